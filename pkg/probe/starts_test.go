package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A startNode is a node with one port, in a network namespace, to which new ports are joined by veths. It counts the packets that come and go there as filters would: those that
// are before the third of a direction are left to Open vSwitch, and hardware has those from the eleventh on.
type startNode struct {
	t      *testing.T
	netns  string
	link   *netlink.Handle
	packet int // socket

	nic   bool  // hardware forwards
	idle  error // why there are no filters
	fail  error // why no port is made, but
	well  int   // so many before
	few   int   // of so many
	slow  bool  // hardware never forwards
	at    int   // the making at which
	then  func()
	mute  bool // ports are made without a way to the target
	taken string

	mu      sync.Mutex
	seen    map[[2]netip.AddrPort]uint64
	made    map[string]bool // by network namespace
	makings int
	most    int // at once
	watches int
	flow    uint32
}

const startTarget = "198.18.0.1"

func newStartNode(t *testing.T) *startNode {
	t.Helper()
	name := fmt.Sprintf("starttest%d", os.Getpid())
	n := &startNode{t: t, netns: filepath.Join("/run/netns", name), seen: map[[2]netip.AddrPort]uint64{}, made: map[string]bool{}}
	done := make(chan error)
	go func() { // for the thread
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- func() error {
			home, err := netns.Get()
			if err != nil {
				return err
			}
			ns, err := netns.NewNamed(name)
			if err != nil {
				return err
			}
			n.link, err = netlink.NewHandle(unix.NETLINK_ROUTE)
			if err == nil {
				n.packet, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})))
			}
			return errors.Join(err, netns.Set(home), home.Close(), ns.Close())
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(n.packet, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		t.Fatal(err)
	}
	lo, err := n.link.LinkByName("lo")
	if err = errors.Join(err, n.link.LinkSetUp(lo), n.link.AddrAdd(lo, hostAddress(startTarget))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.link.Close()
		if err := errors.Join(unix.Close(n.packet), netns.DeleteNamed(name)); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob("/run/netns/opr*-start"); len(left) > 0 || len(n.made) > 0 || n.watches != 0 {
			t.Errorf("left: %v, ports %v, %d watches", left, n.made, n.watches)
		}
	})
	return n
}

func hostAddress(a string) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: netip.MustParseAddr(a).AsSlice(), Mask: net.CIDRMask(32, 32)}}
}

func (n *startNode) Port(_ context.Context, name string) (Port, error) {
	if name != "db" {
		return Port{}, reason.Errorf(reason.PortNotFound, "no port %s", name)
	}
	return Port{Port: result.Port{Name: name, Kind: "veth", Device: "target", NIC: n.nic}, Netns: n.netns, Addresses: []netip.Addr{netip.MustParseAddr(startTarget)}}, nil
}

func (n *startNode) Datapath(context.Context) ([]dpctl.Flow, uint64, error) {
	return nil, 0, errors.New("nobody asks")
}

func (n *startNode) Connections(context.Context, netip.AddrPort, netip.AddrPort) ([]result.Connection, error) {
	return nil, errors.New("nobody asks")
}

func (n *startNode) Vswitchd() (time.Duration, bool) { return 0, false }

// Spare has p1 to p9, of which p9 is behind a router.
func (n *startNode) Spare(_ context.Context, name, _ string) (Spare, error) {
	var i int
	if _, err := fmt.Sscanf(name, "p%d", &i); err != nil || i > 9 {
		return Spare{}, reason.Errorf(reason.LPortNotFound, "no logical port %s", name)
	}
	if name == n.taken {
		return Spare{}, reason.Errorf(reason.LPortInUse, "%s is taken", name)
	}
	return Spare{Name: name, MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{198, 18, 0, byte(10 + i)})}, Near: i < 9}, nil
}

// Make joins a network namespace to that of the target.
func (n *startNode) Make(ctx context.Context, p NewPort, known func(string)) (made Made, err error) {
	n.mu.Lock()
	n.makings++
	failing := n.fail != nil && n.makings > n.well && n.makings <= n.well+n.few
	if n.makings == n.at {
		n.then()
	}
	n.most = max(n.most, len(n.made)+1)
	if !failing {
		n.made[p.Netns.Name] = true
	}
	n.mu.Unlock()
	if failing {
		return made, n.fail
	}
	host := hostEnd(p)
	known(host)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Unmake(context.WithoutCancel(ctx), p))
		}
	}()
	ns, err := netns.GetFromPath(p.Netns.Path)
	if err != nil {
		return made, err
	}
	defer func() { _ = ns.Close() }()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return made, err
	}
	defer inside.Close()
	from := fmt.Sprintf("198.18.0.1%s", p.LogicalPort[1:])
	attrs := netlink.NewLinkAttrs()
	attrs.Name = host
	if err := n.link.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: StartDevice, PeerNamespace: netlink.NsFd(int(ns))}); err != nil {
		return made, err
	}
	eth0, err := inside.LinkByName(StartDevice)
	if err != nil {
		return made, err
	}
	link, err := n.link.LinkByName(host)
	if err != nil {
		return made, err
	}
	if !n.mute { // before there is an interface, so that nothing comes that is not answered
		if err := errors.Join(n.link.LinkSetUp(link), n.link.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: hostAddress(from).IPNet})); err != nil {
			return made, err
		}
	}
	if err := errors.Join(inside.AddrAdd(eth0, hostAddress(from)), inside.LinkSetUp(eth0), inside.RouteAdd(&netlink.Route{
		LinkIndex: eth0.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: hostAddress(p.To.String()).IPNet,
	})); err != nil {
		return made, err
	}
	made.Configured = time.Now()
	made.Installed = time.Now()
	return made, nil
}

func (n *startNode) Unmake(_ context.Context, p NewPort) error {
	link, err := n.link.LinkByName(hostEnd(p))
	if err == nil {
		err = n.link.LinkDel(link)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.made, p.Netns.Name)
	return err
}

func (n *startNode) Clear(context.Context) ([]string, error) { return nil, nil }

func (n *startNode) Watch(_ context.Context, flows []ledger.Flow) (ledger.Watch, error) {
	if n.idle != nil {
		return nil, n.idle
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watches++
	n.flow++
	w := &startWatch{n, slices.Clone(flows)}
	w.flows[0].ID = n.flow
	return w, nil
}

type startWatch struct {
	n     *startNode
	flows []ledger.Flow
}

func (w *startWatch) Flows() []ledger.Flow { return w.flows }

func (w *startWatch) Close() error {
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	w.n.watches--
	return nil
}

func (w *startWatch) Read(context.Context) (map[uint32]ledger.Counts, int, error) {
	n := w.n
	n.mu.Lock()
	defer n.mu.Unlock()
	for b := make([]byte, 2048); ; {
		size, _, err := unix.Recvfrom(n.packet, b, unix.MSG_DONTWAIT)
		if err != nil {
			break
		}
		if size >= 28 && b[0] == 0x45 && b[9] == unix.IPPROTO_UDP {
			n.seen[[2]netip.AddrPort{endOf(b[12:16], b[20:]), endOf(b[16:20], b[22:])}]++
		}
	}
	counts := ledger.Counts{Filters: 2, Forwarders: 1}
	all := n.seen[[2]netip.AddrPort{w.flows[0].Src, w.flows[0].Dst}]
	counts.Left.Software, all = min(all, 2), all-min(all, 2)
	counts.Forwarded.Software = all
	if n.nic {
		counts.InHW = 1
	}
	if n.nic && !n.slow {
		counts.Forwarded.Software, counts.Forwarded.Hardware = min(all, 8), all-min(all, 8)
	}
	return map[uint32]ledger.Counts{w.flows[0].ID: counts}, 2, nil
}

func endOf(addr, port []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr)), binary.BigEndian.Uint16(port))
}

func startRun(change func(*StartSpec)) StartSpec {
	s := StartSpec{Target: "db", Ports: []string{"p1", "p2", "p3"}, Count: 6, Parallel: []int{1, 3}, Wait: 5 * time.Second, Seed: 7}
	if change != nil {
		change(&s)
	}
	return s
}

func runStarts(t *testing.T, n *startNode, s StartSpec) (*result.Run, error) {
	t.Helper()
	p := New(Options{Dir: t.TempDir(), Program: "test 1", Wait: true, Node: n, Maker: n})
	text, err := p.RunStarts(t.Context(), s, nil)
	if err != nil {
		if kept, keptErr := p.Runs(); keptErr != nil || len(kept) > 0 {
			t.Errorf("%d runs are kept, %v", len(kept), keptErr)
		}
		return nil, err
	}
	run, err := report.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report.Text(run, 0))
	return run, nil
}

// Each start comes through its steps in their order, and it is known which packet was the first that filters forwarded, and hardware.
func TestRunStarts(t *testing.T) {
	for name, tt := range map[string]struct {
		nic  bool
		spec StartSpec
	}{
		"software": {false, startRun(nil)},
		"hardware": {true, startRun(func(s *StartSpec) { s.Kinds, s.Count, s.Parallel = []string{"vf", "veth"}, 3, []int{3} })},
	} {
		t.Run(name, func(t *testing.T) {
			n := newStartNode(t)
			n.nic = tt.nic
			run, err := runStarts(t, n, tt.spec)
			if err != nil {
				t.Fatal(err)
			}
			if len(run.Starts.Cases) != len(tt.spec.Kinds)+len(tt.spec.Parallel)-len(tt.spec.Kinds)/2 || n.most != 3 {
				t.Errorf("%d cases, %d ports at once", len(run.Starts.Cases), n.most)
			}
			for _, c := range run.Starts.Cases {
				hardware := tt.nic && c.Kind == "vf"
				if c.Failed > 0 || c.Made <= 0 || c.Answered <= 0 || c.Deleted <= 0 || (c.Never[result.StepHardware] == "") != hardware {
					t.Errorf("%s: %+v", c.Path, c)
				}
				starts := 0
				for _, b := range c.Batches {
					starts += len(b.Starts)
					for _, s := range b.Starts {
						wantStart(t, &s, hardware)
					}
				}
				if starts != tt.spec.Count {
					t.Errorf("%s: %d starts", c.Path, starts)
				}
			}
		})
	}
}

func wantStart(t *testing.T, s *result.Start, hardware bool) {
	t.Helper()
	if s.Configured <= 0 || s.Installed < s.Configured || s.Created < s.Installed || s.Answered <= 0 || s.Deleted <= 0 { // the first answer may come before it is noted that the interface is up
		t.Errorf("steps are not in their order: %+v", s)
	}
	for _, f := range []result.Forwarding{s.Requests, s.Answers} {
		want := result.Forwarding{Exact: true, Packet: 3, Filters: f.Filters, Hardware: f.Hardware, HardwarePacket: f.HardwarePacket}
		if hardware {
			want.HardwarePacket = 11
		}
		if f != want || f.Filters < s.Configured || hardware && f.Hardware < f.Filters {
			t.Errorf("%+v, want %+v", f, want)
		}
	}
	if s.Answers.Filters < s.Requests.Filters {
		t.Errorf("an answer was forwarded before its request: %+v", s)
	}
}

// What none comes to is not waited for again, and said.
func TestStartsNever(t *testing.T) {
	n := newStartNode(t)
	n.nic, n.slow = true, true
	run, err := runStarts(t, n, startRun(func(s *StartSpec) { s.Kinds, s.Count, s.Parallel, s.Wait = []string{"sf"}, 4, []int{2}, 2*time.Second }))
	if err != nil {
		t.Fatal(err)
	}
	c := run.Starts.Cases[0]
	for _, step := range []string{result.StepHardware, result.StepHardwareBack} {
		if why := c.Never[step]; !strings.Contains(why, "not one of 2 came so far in 2s") || slices.ContainsFunc(c.Steps, func(s result.StartStep) bool { return s.Name == step }) {
			t.Errorf("%s: %q, %+v", step, why, c.Steps)
		}
	}
	for _, b := range c.Batches {
		for _, s := range b.Starts {
			if wantStart(t, &s, false); s.Sent > 1500 {
				t.Errorf("%d packets were sent: it was waited for hardware", s.Sent)
			}
		}
	}
}

// A run without filters says so, and measures the rest.
func TestStartsWithoutFilters(t *testing.T) {
	n := newStartNode(t)
	n.idle = reason.Errorf(reason.FeatureUnsupported, "the daemon has no filters with offload=off")
	run, err := runStarts(t, n, startRun(nil))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(run.Starts.NoFilters, "offload=off") {
		t.Errorf("there are no filters because of %q", run.Starts.NoFilters)
	}
	for _, c := range run.Starts.Cases {
		if len(c.Steps) != 5 {
			t.Errorf("%s: steps %+v", c.Path, c.Steps)
		}
		for _, b := range c.Batches {
			for _, s := range b.Starts {
				if s.Answered <= 0 || s.Requests != (result.Forwarding{}) || s.Answers != (result.Forwarding{}) {
					t.Errorf("%s: %+v", c.Path, s)
				}
			}
		}
	}
}

// A few starts may fail: they are counted, and late for ever. If many do the run ends with the reason.
func TestStartsFail(t *testing.T) {
	n := newStartNode(t)
	n.fail, n.well, n.few = reason.Errorf(reason.OVNNotInstalled, "its flows are not installed"), 5, 2
	run, err := runStarts(t, n, startRun(func(s *StartSpec) { s.Parallel = []int{1} }))
	if err != nil {
		t.Fatal(err)
	}
	c := run.Starts.Cases[0]
	if c.Failed != 2 || c.Steps[0].Latency.Lost != 2 || c.Steps[0].Latency.Count != 4 || !strings.Contains(report.Text(run, 0), "2 times: its flows are not installed") {
		t.Errorf("%+v", c)
	}
	n.fail, n.well, n.few, n.makings = reason.Errorf(reason.OVNNotInstalled, "its flows are not installed"), 5, 100, 0
	if _, err := runStarts(t, n, startRun(func(s *StartSpec) { s.Count = 50 })); reason.Of(err) != reason.OVNNotInstalled || !strings.Contains(err.Error(), "starts have failed") {
		t.Errorf("all fail: %v", err)
	}
}

// What cannot be measured is refused with its reason, and nothing is left or kept.
func TestStartsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*startNode)
		spec  func(*StartSpec)
		want  reason.Reason
		says  string
	}{
		"no target":      {nil, func(s *StartSpec) { s.Target = "web" }, reason.PortNotFound, "web"},
		"no port":        {nil, func(s *StartSpec) { s.Ports[1] = "p10" }, reason.LPortNotFound, "p10"},
		"in use":         {func(n *startNode) { n.taken = "p2" }, nil, reason.LPortInUse, "p2"},
		"far":            {nil, func(s *StartSpec) { s.Ports[1] = "p9" }, reason.ProbeImpossible, "a gateway is needed"},
		"IPv6":           {nil, func(s *StartSpec) { s.Family = 6 }, reason.ProbeImpossible, "no addresses of the same family"},
		"pool exhausted": {func(n *startNode) { n.fail, n.well, n.few = reason.Errorf(reason.PoolExhausted, "none is free"), 2, 9 }, nil, reason.PoolExhausted, "none is free"},
		"no answer":      {func(n *startNode) { n.mute = true }, func(s *StartSpec) { s.Wait = time.Second }, reason.ProbeImpossible, "UDP to port 7531 has to pass"},
		"filters are not known": {
			func(n *startNode) { n.idle = reason.Errorf(reason.NotReady, "filters are not known yet") }, nil, reason.NotReady, "filters are not known yet",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newStartNode(t)
			if tt.spoil != nil {
				tt.spoil(n)
			}
			if _, err := runStarts(t, n, startRun(tt.spec)); reason.Of(err) != tt.want || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %s, %q", err, tt.want, tt.says)
			}
		})
	}
}

// A run that is given up leaves nothing, wherever it was.
func TestStartsCancelled(t *testing.T) {
	n := newStartNode(t)
	for _, after := range []int{1, 3, 4, 6, 9} {
		ctx, cancel := context.WithCancel(t.Context())
		n.makings, n.at, n.then = 0, after, cancel
		_, err := New(Options{Wait: true, Node: n, Maker: n}).RunStarts(ctx, startRun(nil), nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at the %dth port: %v", after, err)
		}
		if left, _ := filepath.Glob("/run/netns/opr*-start"); len(left) > 0 || len(n.made) > 0 || n.watches != 0 {
			t.Errorf("cancelled at the %dth port: left: %v, ports %v, %d watches", after, left, n.made, n.watches)
		}
	}
}

func TestStartSpec(t *testing.T) {
	s, err := StartSpec{Target: "db", Ports: []string{"a"}, Seed: 1}.Validate()
	if err != nil || s.Port != DefaultPort || s.Count != DefaultStarts || s.Wait != DefaultStartWait || s.Interval != DefaultStartInterval || !slices.Equal(s.Kinds, []string{"veth"}) || !slices.Equal(s.Parallel, []int{1}) {
		t.Errorf("%+v, %v", s, err)
	}
	if again, err := s.Validate(); err != nil || fmt.Sprint(again) != fmt.Sprint(s) {
		t.Errorf("what is valid becomes %+v, %v", again, err)
	}
	for field, change := range map[string]func(*StartSpec){
		"target": func(s *StartSpec) { s.Target = "" }, "ports": func(s *StartSpec) { s.Ports = nil }, "ports[1]": func(s *StartSpec) { s.Ports[1] = "p1" },
		"ports[2]": func(s *StartSpec) { s.Ports[2] = "db" }, "kinds[0]": func(s *StartSpec) { s.Kinds = []string{"auto"} }, "kinds[1]": func(s *StartSpec) { s.Kinds = []string{"vf", "vf"} },
		"pool": func(s *StartSpec) { s.Pool = "p" }, "family": func(s *StartSpec) { s.Family = 5 }, "count": func(s *StartSpec) { s.Count = MaxStarts + 1 },
		"parallel[0]": func(s *StartSpec) { s.Parallel = []int{4} }, "parallel[1]": func(s *StartSpec) { s.Parallel = []int{1, 1} }, "parallel": func(s *StartSpec) { s.Parallel = make([]int, 9) },
		"wait": func(s *StartSpec) { s.Wait = time.Millisecond }, "interval": func(s *StartSpec) { s.Interval = time.Microsecond },
	} {
		_, err := startRun(change).Validate()
		e, ok := errors.AsType[*reason.Error](err)
		if !ok || reason.Of(err) != reason.InvalidField || !slices.ContainsFunc(e.Fields, func(f reason.Field) bool { return f.Path == field }) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := New(Options{}).RunStarts(t.Context(), startRun(nil), nil); reason.Of(err) != reason.FeatureUnsupported {
		t.Errorf("without a daemon: %v", err)
	}
}

// What filters have counted is exact until those that forward are made anew.
func TestMeter(t *testing.T) {
	type look struct {
		forwarders, changes int
		forwarded           uint64
	}
	for name, tt := range map[string]struct {
		looks []look
		exact bool
	}{
		"new ones":                        {[]look{{0, 0, 0}, {1, 2, 5}, {1, 2, 9}}, true},
		"seen before it is said":          {[]look{{0, 0, 0}, {1, 1, 5}, {1, 2, 9}}, true},
		"others, which did not forward":   {[]look{{0, 4, 0}, {0, 5, 0}, {1, 6, 5}}, true},
		"two changes in between":          {[]look{{0, 2, 0}, {1, 6, 5}}, false},
		"made anew before":                {[]look{{1, 2, 0}, {1, 4, 5}}, false},
		"made anew before, and not there": {[]look{{1, 3, 0}, {1, 3, 5}, {1, 4, 2}}, false},
		"long there":                      {[]look{{1, 2, 0}, {1, 2, 5}, {1, 2, 9}}, true},
		"made anew after":                 {[]look{{0, 0, 0}, {1, 2, 5}, {1, 3, 9}}, false},
	} {
		m := &meter{}
		for i, l := range tt.looks {
			m.see(ledger.Counts{Filters: 1, Forwarders: l.forwarders, Forwarded: ledger.Split{Software: l.forwarded}}, l.changes, time.Duration(i+1))
		}
		if m.exact != tt.exact || m.filters == 0 {
			t.Errorf("%s: %+v", name, m)
		}
		sent := []int64{11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22}
		n := int(tt.looks[len(tt.looks)-1].forwarded)
		want := result.Forwarding{Filters: m.filters}
		if tt.exact {
			want = result.Forwarding{Filters: time.Duration(sent[len(sent)-n] - 10), Packet: len(sent) - n + 1 - 1, Exact: true}
		}
		if f := m.forwarding(sent, 10, 2); f != want {
			t.Errorf("%s: %+v, want %+v", name, f, want)
		}
	}
	late := &meter{filters: 100, hardware: 200, counts: ledger.Counts{Forwarded: ledger.Split{Software: 2, Hardware: 1}}}
	if f := late.forwarding([]int64{30, 40, 50, 60, 70}, 10, 1); f != (result.Forwarding{Filters: 40, Hardware: 60}) {
		t.Errorf("seen later than what has been counted since says: %+v", f)
	}
	m := &meter{filters: 1, exact: true, counts: ledger.Counts{Forwarded: ledger.Split{Software: 3}}}
	if f := m.forwarding([]int64{1, 2}, 0, 1); !strings.Contains(f.Unknown, "counted 3 packets, and 2 were sent") {
		t.Errorf("more than were sent: %+v", f)
	}
}

// hostEnd is the other end of a new port's pair.
func hostEnd(p NewPort) string {
	number, _, _ := strings.Cut(p.Netns.Name, "-")
	return "h" + number
}
