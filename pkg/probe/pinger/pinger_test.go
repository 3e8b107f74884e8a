package pinger

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Verb {
		os.Exit(Main(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// A ground is some namespaces on one bridge, which is in one more.
type ground struct {
	t    *testing.T
	name string
	ends []End // of IPv4
	six  []End
}

func (g *ground) netns(i int) string { return fmt.Sprintf("%s-%d", g.name, i) }
func (g *ground) bridge() string     { return g.name + "-br" }
func ip(args string) ([]byte, error) {
	return exec.Command("ip", strings.Fields(args)...).CombinedOutput()
}

func (g *ground) ip(format string, args ...any) {
	g.t.Helper()
	command := fmt.Sprintf(format, args...)
	if out, err := ip(command); err != nil {
		g.t.Fatalf("ip %s: %v: %s", command, err, out)
	}
}

var grounds int

func newGround(t *testing.T, n int) *ground {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	grounds++
	g := &ground{t: t, name: fmt.Sprintf("opng%d-%d", os.Getpid(), grounds)}
	t.Cleanup(func() {
		for i := range n {
			_, _ = ip("netns del " + g.netns(i)) // the test may have done it
		}
		if out, err := ip("netns del " + g.bridge()); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	g.ip("netns add %s", g.bridge())
	g.ip("-n %s link add br0 type bridge", g.bridge())
	g.ip("-n %s link set br0 up", g.bridge())
	for i := range n {
		g.add(i)
		e := End{Netns: "/run/netns/" + g.netns(i), Device: "eth0"}
		e.Addr = netip.AddrFrom4([4]byte{10, 88, byte(i >> 8), byte(i)}).Next()
		g.ends = append(g.ends, e)
		e.Addr = netip.MustParseAddr(fmt.Sprintf("fd88::%x", i+1))
		g.six = append(g.six, e)
	}
	return g
}

// add makes namespace i.
func (g *ground) add(i int) {
	g.t.Helper()
	ns := g.netns(i)
	g.ip("netns add %s", ns)
	g.ip("-n %s link add v%d type veth peer name eth0 netns %s", g.bridge(), i, ns)
	g.ip("-n %s link set v%d master br0 up", g.bridge(), i)
	g.ip("-n %s link set eth0 up", ns)
	g.ip("-n %s addr add %v/16 dev eth0", ns, netip.AddrFrom4([4]byte{10, 88, byte(i >> 8), byte(i)}).Next())
	g.ip("-n %s addr add fd88::%x/64 dev eth0 nodad", ns, i+1)
}

// A log is what a process has reported.
type log struct {
	mu      sync.Mutex
	pairs   map[uint64]PairReport
	answers map[uint64]AnswerReport
	running context.Context // until the process has ended
	changed chan struct{}
}

func (l *log) add(r Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range r.Pairs {
		old := l.pairs[p.ID]
		old.Sent += p.Sent
		old.Lost += p.Lost
		old.Late += p.Late
		old.Missed += p.Missed
		old.Held += p.Held
		old.Took = append(old.Took, p.Took...)
		old.ID, old.Error = p.ID, p.Error
		l.pairs[p.ID] = old
	}
	for _, a := range r.Answers {
		old := l.answers[a.ID]
		old.Answered += a.Answered
		old.Refused += a.Refused
		old.ID, old.Error = a.ID, a.Error
		l.answers[a.ID] = old
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// await waits until something is so.
func (l *log) await(t *testing.T, what string, so func(pairs map[uint64]PairReport, answers map[uint64]AnswerReport) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(l.running, time.Minute)
	defer cancel()
	for {
		l.mu.Lock()
		ok, changed := so(l.pairs, l.answers), l.changed
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Fatalf("never %s: %+v %+v", what, l.pairs, l.answers)
		}
	}
}

// run runs a process until the test ends.
func run(t *testing.T, plan Plan) (*log, chan<- Plan) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &log{running: ctx, pairs: map[uint64]PairReport{}, answers: map[uint64]AnswerReport{}, changed: make(chan struct{})}
	plans, ended := make(chan Plan, 1), make(chan error)
	go func() {
		err := Run(ctx, plans, l.add)
		cancel()
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	plans <- plan
	return l, plans
}

func quick() Plan {
	return Plan{Interval: MinInterval, Burst: 2, Size: 64, Timeout: time.Second, Port: 8629}
}

func TestPairs(t *testing.T) {
	g := newGround(t, 3)
	plan := quick()
	plan.Pairs = []Pair{
		{1, g.ends[0], g.ends[1].Addr}, {2, g.ends[1], g.ends[0].Addr}, {3, g.ends[0], g.ends[2].Addr},
		{4, g.six[0], g.six[2].Addr}, {5, g.six[2], g.six[1].Addr},
	}
	plan.Answers = []Answer{
		{1, g.ends[0], []netip.Addr{g.ends[1].Addr}},
		{2, g.ends[1], []netip.Addr{g.ends[0].Addr}},
		{3, g.ends[2], []netip.Addr{g.ends[0].Addr}},
		{4, g.six[2], []netip.Addr{g.six[0].Addr}},
		{5, g.six[1], []netip.Addr{g.six[2].Addr}},
	}
	l, _ := run(t, plan)
	l.await(t, "measured", func(pairs map[uint64]PairReport, answers map[uint64]AnswerReport) bool {
		for id := uint64(1); id <= 5; id++ {
			if len(pairs[id].Took) < 20 || answers[id].Answered < 20 {
				return false
			}
		}
		return true
	})
	for id, p := range l.pairs {
		if p.Error != "" || p.Sent < 2*uint64(len(p.Took)) {
			t.Errorf("pair %d: %+v", id, p)
		}
		t.Logf("pair %d: %+v", id, p)
	}
}
