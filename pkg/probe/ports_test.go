package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A loopNode has two ports on loopback, and counts their packets as filters would: those of flows that are punted for Open vSwitch. It sees the packets that
// the kernel sends.
type loopNode struct {
	t  *testing.T
	fd int

	mu      sync.Mutex
	seen    map[[2]netip.AddrPort]uint64
	blink   bool // it does not see a request after the first reading
	armed   bool
	watches int
	changes int // of filters, in each reading one more
}

func newLoopNode(t *testing.T) *loopNode {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		t.Fatal(err)
	}
	n := &loopNode{t: t, fd: fd, seen: map[[2]netip.AddrPort]uint64{}}
	ended := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(time.Millisecond): // what waits is bounded
				n.mu.Lock()
				n.drain()
				n.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		close(ended)
		reading.Wait()
		_ = unix.Close(fd)
	})
	return n
}

// drain counts all packets that were sent. It is called with mu held.
func (n *loopNode) drain() {
	b := make([]byte, 2048)
	for {
		size, from, err := unix.Recvfrom(n.fd, b, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		// What arrives is the same once more.
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING && size >= 28 && b[0] == 0x45 && b[9] == 17 {
			n.count(b)
		}
	}
}

func (n *loopNode) count(b []byte) {
	end := func(addr, port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[addr:addr+4])), binary.BigEndian.Uint16(b[port:]))
	}
	key := [2]netip.AddrPort{end(12, 20), end(16, 22)}
	if n.armed && key[1].Port() == DefaultPort {
		n.armed = false
		return
	}
	n.seen[key]++
}

func (n *loopNode) Port(_ context.Context, name string) (Port, error) {
	addr, ok := map[string]string{"a": "127.0.0.1", "b": "127.0.0.2", "six": "::1"}[name]
	if !ok {
		return Port{}, reason.Errorf(reason.PortNotFound, "no port %s", name)
	}
	return Port{Port: result.Port{Name: name, Kind: "veth", Device: "dev-" + name}, Addresses: []netip.Addr{netip.MustParseAddr(addr)}}, nil
}

// Datapath has one flow for all that comes in by a device, with what was left to it.
func (n *loopNode) Datapath(context.Context) ([]dpctl.Flow, uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drain()
	flows := []dpctl.Flow{{UFID: "1", InPort: "dev-a"}, {UFID: "2", InPort: "dev-b"}}
	for key, packets := range n.seen {
		if key[1].Port() == DefaultPort {
			flows[0].Packets += packets
		} else {
			flows[1].Packets += packets
		}
	}
	return flows, 0, nil
}

// Vswitchd has used a microsecond for each packet.
func (n *loopNode) Vswitchd() (time.Duration, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drain()
	used := time.Duration(0)
	for _, packets := range n.seen {
		used += time.Duration(packets) * time.Microsecond
	}
	return used, true
}

func (n *loopNode) Connections(context.Context, netip.AddrPort, netip.AddrPort) ([]result.Connection, error) {
	return []result.Connection{{Zone: 5, Assured: true, Offload: true}}, nil
}

func (n *loopNode) Watch(_ context.Context, flows []ledger.Flow) (ledger.Watch, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watches++
	w := &loopWatch{n, nil}
	for i, f := range flows {
		f.ID = uint32(i + 1)
		w.flows = append(w.flows, f)
	}
	return w, nil
}

type loopWatch struct {
	n     *loopNode
	flows []ledger.Flow
}

func (w *loopWatch) Flows() []ledger.Flow { return w.flows }

func (w *loopWatch) Read(context.Context) (map[uint32]ledger.Counts, int, error) {
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	w.n.drain()
	w.n.armed, w.n.blink = w.n.armed || w.n.blink, false
	counts := map[uint32]ledger.Counts{}
	for _, f := range w.flows {
		n := ledger.Split{Software: w.n.seen[[2]netip.AddrPort{f.Src, f.Dst}]}
		c := ledger.Counts{Filters: 1, Entered: n, Forwarded: n}
		if f.Punt {
			c.Left, c.Forwarded = n, ledger.Split{}
		}
		counts[f.ID] = c
	}
	if w.n.changes > 0 {
		w.n.changes++
	}
	return counts, w.n.changes, nil
}

func (w *loopWatch) Close() error {
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	w.n.watches--
	return nil
}

func portRun() PortSpec {
	return PortSpec{
		Client: "a", Server: "b", Cold: 1, New: 2, Idle: time.Millisecond,
		Spec: Spec{Sessions: 2, Count: 200, Burst: 5, Warmup: 10 * time.Millisecond, Timeout: 5 * time.Second, Seed: 7},
	}
}

// A run accounts for each packet of each path.
func TestRunPorts(t *testing.T) {
	n := newLoopNode(t)
	p := New(Options{Dir: t.TempDir(), Program: "test 1", Wait: true, Node: n})
	var told []Progress
	text, err := p.RunPorts(t.Context(), portRun(), func(pr Progress) { told = append(told, pr) })
	if err != nil {
		t.Fatal(err)
	}
	run, err := report.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	if run.Baseline != "software" || len(run.Paths) != 3 || run.Paths[2].Twin != "software" || len(run.Cases) != 3 || run.Ports.Client.Address != "127.0.0.1" {
		t.Errorf("run %+v", run)
	}
	for i, w := range run.Ports.Ways {
		for side, a := range w.Accounts {
			forwarded, left := a.Sent, int64(0)
			if i > 0 {
				forwarded, left = 0, a.Sent
			}
			if a.Sent < 2*(100+5+1) || a.Software != forwarded || a.OVS != left || a.Datapath != left || a.Unexplained != 0 || a.Lost != 0 {
				t.Errorf("%s %d: %+v", w.Path, side, a)
			}
		}
		if len(w.Connections) != 1 || !w.Connections[0].Offload {
			t.Errorf("%s: %+v", w.Path, w.Connections)
		}
	}
	var lives []string
	for _, l := range run.Ports.Lives {
		lives = append(lives, fmt.Sprint(l.Before, " ", l.Path, " ", len(l.Trials)))
		for _, trial := range l.Trials {
			if len(trial.Took) < lifePackets || len(l.Took) != lifePackets || (trial.Switches[0].Packet > 0) != (l.Path == "offload") {
				t.Errorf("%s %s: %d packets, %+v", l.Before, l.Path, len(trial.Took), trial.Switches)
			}
			if least := int64(2 * time.Microsecond); len(trial.CPU) != len(trial.Took) || slices.Min(trial.CPU) <= least {
				t.Errorf("%s %s: %d packets take %d ns of CPU, want more than %d each", l.Before, l.Path, len(trial.Took), trial.CPU, least)
			}
		}
	}
	if got, want := strings.Join(lives, ", "), "cold offload 1, cold software 1, new offload 2, new software 2"; got != want {
		t.Errorf("lives %s, want %s", got, want)
	}
	var evens []string
	for _, b := range run.Ports.BreakEvens {
		evens = append(evens, fmt.Sprint(b.Before, " ", b.Of, " ", b.Connections, " of ", b.Packets))
	}
	if got, want := strings.Join(evens, ", "), "cold time 1 of 32, cold cpu 1 of 32, new time 2 of 32, new cpu 2 of 32"; got != want {
		t.Errorf("break-evens %s, want %s", got, want)
	}
	if n.watches != 0 || len(told) == 0 || told[len(told)-1].Fraction != 1 {
		t.Errorf("%d watches are left; %d times progress", n.watches, len(told))
	}
	if kept, err := p.Runs(); err != nil || len(kept) != 1 || kept[0].ID != run.ID {
		t.Errorf("kept %+v, %v", kept, err)
	}
}

// Nothing is reported, nor kept, of what counters do not say, and of what cannot be.
func TestRunPortsRefuses(t *testing.T) {
	spec := func(change func(*PortSpec)) PortSpec {
		s := portRun()
		s.New, s.Cold = -1, -1
		if change != nil {
			change(&s)
		}
		return s
	}
	for name, tt := range map[string]struct {
		spec  PortSpec
		spoil func(*loopNode)
		want  reason.Reason
		says  string
	}{
		"a packet is not counted": {spec(nil), func(n *loopNode) { n.blink = true }, reason.ProbeRefused, "1 were counted by nothing"},
		"filters change":          {spec(nil), func(n *loopNode) { n.changes = 1 }, reason.ProbeRefused, "filters change all the time"},
		"no such port":            {spec(func(s *PortSpec) { s.Server = "c" }), nil, reason.PortNotFound, "c"},
		"no family":               {spec(func(s *PortSpec) { s.Server = "six" }), nil, reason.ProbeImpossible, "no addresses of the same family"},
		"no IPv6":                 {spec(func(s *PortSpec) { s.Family = 6 }), nil, reason.ProbeImpossible, "IPv6"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLoopNode(t)
			if tt.spoil != nil {
				tt.spoil(n)
			}
			p := New(Options{Dir: t.TempDir(), Wait: true, Node: n})
			_, err := p.RunPorts(t.Context(), tt.spec, nil)
			if reason.Of(err) != tt.want || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %s, %q", err, tt.want, tt.says)
			}
			if kept, err := p.Runs(); err != nil || len(kept) > 0 || n.watches != 0 {
				t.Errorf("%d runs are kept, %d watches; %v", len(kept), n.watches, err)
			}
		})
	}
}
