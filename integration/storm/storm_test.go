package storm

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/offloadd/offloadd/integration/lab"
)

var (
	operations = flag.Int("storm.operations", 0, "how many operations; 0: 300, in a guest 800")
	seed       = flag.Uint64("storm.seed", 0, "of the choices; 0: another one each time")
)

const (
	workers = 6
	each    = 3                // pods of a worker
	pods    = workers*each + 2 // and two that nobody does anything to

	// round is after how many operations it is looked whether there is what should be.
	round = 250
)

// What is made, made again, removed, given up and killed at random leaves what was acknowledged, and nothing else.
// Two ports that nobody touches lose no packet.
func TestStorm(t *testing.T) {
	n := newNode(t)
	total := *operations
	if total == 0 {
		total = 300
		if n.nic {
			total = 800
		}
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("%d operations, -storm.seed=%d", total, *seed)

	var all []*slot
	for i := range pods {
		all = append(all, &slot{n: n, number: i, pod: n.AddPod("n1", config(i))})
	}
	x, y := all[pods-2], all[pods-1]
	for i, s := range []*slot{x, y} {
		kind := veth
		if n.nic {
			kind = []wish{{kind: vf}, {kind: sf}}[i].kind
		}
		s.spec = s.wants(wish{kind: kind})
		n.Check(s.create(s.spec, patience()))
	}
	n.verify(all)

	var ws []*worker
	for i := range workers {
		ws = append(ws, &worker{n: n, rnd: rand.New(rand.NewPCG(*seed, uint64(i))), slots: all[i*each : (i+1)*each], did: map[string]int{}})
	}
	begun := time.Now()
	for done := 0; done < total; {
		todo := min(round, total-done)
		notice := n.watch(x, y)
		n.storm(ws, todo)
		n.verify(all)
		notice()
		done += todo
		spaces, files := n.holds()
		if t.Logf("%d operations, %d kills, %v, the daemon has %d files open", done, n.kills.Load(), time.Since(begun).Round(time.Second), files); len(spaces) > 0 || files > 100 {
			t.Fatalf("the daemon has %d files open, network namespaces are %v", files, spaces)
		}
	}
	did := map[string]int{}
	for _, w := range ws {
		for what, times := range w.did {
			did[what] += times
		}
	}
	t.Logf("in %v: %v", time.Since(begun).Round(time.Second), did)
	for _, want := range n.outcomes() {
		if did[want] == 0 && total >= 2000 {
			t.Errorf("in %d operations there was never: %s", total, want)
		}
	}

	// When all are removed there is what there was before the first.
	for _, s := range all {
		n.Check(s.remove())
	}
	n.verify(all)
	n.Check(n.kill(0, true))
	n.verify(all)
	journal, err := os.ReadFile(filepath.Join(n.node.Dir, "state", "ports.journal"))
	if n.Check(err); strings.Contains(string(journal), "{") {
		t.Errorf("records of ports are left:\n%s", journal)
	}
	owed, err := os.ReadFile(filepath.Join(n.node.Dir, "quarantine.json"))
	if err == nil && strings.TrimSpace(string(owed)) != "[]" {
		t.Errorf("it is remembered what is to be restored:\n%s", owed)
	}
}

// storm lets all workers do so many operations together.
func (n *node) storm(ws []*worker, todo int) {
	n.T.Helper()
	var left atomic.Int64
	left.Store(int64(todo))
	var g errgroup.Group
	for _, w := range ws {
		g.Go(func() error {
			for left.Add(-1) >= 0 && !n.T.Failed() {
				if err := w.next(); err != nil {
					left.Store(0)
					return err
				}
			}
			return w.settle()
		})
	}
	n.Check(g.Wait())
}

// watch lets a reach b all the time. The function that it returns ends that, and fails the test if a packet was lost. Outside a guest nobody
// looks: the userspace datapath itself drops what it has no flow for while Open vSwitch adds or removes ports (upcall_rwlock in
// dpif-netdev.c).
func (n *node) watch(a, b *slot) func() {
	if !n.nic {
		return func() {}
	}
	var wg sync.WaitGroup
	end := make(chan struct{})
	wg.Go(func() {
		for {
			s, err := a.pod.PingN(context.Background(), b.pod.Addr(false), 20, 100*time.Millisecond, lab.Patient(5*time.Second))
			if err != nil || len(s.Lost()) > 0 || s.Received == 0 {
				n.T.Errorf("others noticed: %+v, %v", s, err)
			}
			select {
			case <-end:
				return
			default:
			}
		}
	})
	return sync.OnceFunc(func() {
		close(end)
		wg.Wait()
	})
}
