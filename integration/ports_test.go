package integration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// fifty is a switch with fifty logical ports, q1 to q50, and the node n1 whose daemon makes ports.
func fifty(t *testing.T, opts lab.Options) (*labtest.Lab, offloadv1.PortServiceClient) {
	t.Helper()
	opts.Nodes = []lab.NodeConfig{{Name: "n1", Agent: lab.Offloadd}}
	l := labtest.Start(t, opts)
	script := "ls-add sw0\n"
	for i := range 50 {
		c := pod(i + 1)
		script += "lsp-add sw0 " + c.Name + "\n"
		script += fmt.Sprintf("lsp-set-addresses %s '%s %s'\n", c.Name, c.MAC, c.IPs[0].Addr())
	}
	l.NB(script)
	l.Sync()
	return l, dialPorts(t, l.Node("n1"))
}

func dialPorts(t *testing.T, n *lab.Node) offloadv1.PortServiceClient {
	t.Helper()
	conn, err := client.Dial(filepath.Join(n.Dir, "offloadd.sock"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return offloadv1.NewPortServiceClient(conn)
}

// pod is the pod for the logical port q<i>, without an interface.
func pod(i int) lab.PodConfig {
	return lab.PodConfig{
		Name: fmt.Sprintf("q%d", i), MAC: fmt.Sprintf("50:54:00:00:01:%02x", i),
		IPs:  []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.1.%d/24", i))},
		Bare: true,
	}
}

func spec(p *lab.Pod) *offloadv1.PortSpec {
	return &offloadv1.PortSpec{
		Key:         &offloadv1.PortKey{Network: "net", ContainerId: p.Name, Ifname: "eth0"},
		Netns:       "/run/netns/" + p.Netns(),
		LogicalPort: p.Name,
		Mac:         p.MAC,
		Addresses:   []string{p.IPs[0].String()},
		Gateways:    []string{"10.0.1.254"},
	}
}

// patience is the deadline of calls that are to succeed.
const patience = 20 * time.Second

func create(ctx context.Context, c offloadv1.PortServiceClient, s *offloadv1.PortSpec, within time.Duration) (*offloadv1.Port, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	r, err := c.CreatePort(ctx, &offloadv1.CreatePortRequest{Spec: s})
	return r.GetPort(), client.Error(err)
}

func remove(ctx context.Context, c offloadv1.PortServiceClient, k *offloadv1.PortKey) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := c.DeletePort(ctx, &offloadv1.DeletePortRequest{Key: k})
	return r.GetExisted(), client.Error(err)
}

// wantClean fails the test if the node's audit finds anything, or more than the wanted number of ports.
func wantClean(t *testing.T, n *lab.Node, c offloadv1.PortServiceClient, ports int) {
	t.Helper()
	out, err := n.Exec(t.Context(), "ovs-appctl", "-t", filepath.Join(n.Dir, "offloadd.ctl"), "ports/audit")
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("audit: %v\n%s", err, out)
	}
	list, err := c.ListPorts(t.Context(), &offloadv1.ListPortsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(list.GetPorts()); got != ports {
		t.Errorf("%d ports, want %d: %v", got, ports, list.GetPorts())
	}
	links, err := n.Exec(t.Context(), "ip", "-o", "link", "show", "type", "veth")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(links, ": off"); got != ports {
		t.Errorf("%d links of ports, want %d:\n%s", got, ports, links)
	}
	plugged, err := n.VSctl(t.Context(), "--bare", "--columns=name", "find", "interface", "external_ids:offloadd-port!=x")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(plugged, "off"); got != ports {
		t.Errorf("%d Interfaces of ports, want %d:\n%s", got, ports, plugged)
	}
}

// Fifty pods, eight at a time, each reaches the one before it as soon as its call has returned.
func TestFiftyPorts(t *testing.T) {
	l, c := fifty(t, lab.Options{})
	n1 := l.Node("n1")
	pods := make([]*lab.Pod, 50)
	for i := range pods {
		pods[i] = l.AddPod("n1", pod(i+1))
	}
	spans := map[string][]time.Duration{}
	each := func(f func(ctx context.Context, i int, p *lab.Pod) error) {
		t.Helper()
		g, ctx := errgroup.WithContext(t.Context())
		g.SetLimit(8)
		for i, p := range pods {
			g.Go(func() error { return f(ctx, i, p) })
		}
		l.Check(g.Wait())
	}
	made := make([]*offloadv1.Port, len(pods))
	took := make([]time.Duration, len(pods))
	each(func(ctx context.Context, i int, p *lab.Pod) (err error) {
		start := time.Now()
		made[i], err = create(ctx, c, spec(p), patience)
		took[i] = time.Since(start)
		return err
	})
	spans["create"] = took
	each(func(ctx context.Context, i int, p *lab.Pod) error {
		ok, err := p.Ping(ctx, pods[(i+1)%len(pods)].Addr(false), time.Second)
		if err == nil && !ok {
			err = fmt.Errorf("%s does not reach the next one", p.Name)
		}
		return err
	})
	for _, p := range made {
		if p.GetStatus().GetState() != offloadv1.PortState_PORT_STATE_READY || p.GetStatus().GetOfport() == 0 {
			t.Errorf("not ready: %v", p)
		}
		for _, s := range p.GetStatus().GetTimeline() {
			spans[s.GetName()] = append(spans[s.GetName()], s.GetDuration().AsDuration())
		}
	}
	l.Check(pods[0].Serve(t.Context(), 80)) // TCP fails if checksums are left to a card that does not exist
	if ok, err := pods[1].Connect(t.Context(), netip.AddrPortFrom(pods[0].Addr(false), 80), 5*time.Second); err != nil || !ok {
		t.Errorf("no TCP connection: %v", err)
	}
	for _, p := range pods {
		r, err := c.CheckPort(t.Context(), &offloadv1.CheckPortRequest{Key: spec(p).GetKey()})
		if err != nil || len(r.GetProblems()) > 0 {
			t.Errorf("check %s: %v %v", p.Name, r.GetProblems(), err)
		}
	}
	wantClean(t, n1, c, len(pods))
	gone := make([]time.Duration, len(pods))
	each(func(ctx context.Context, i int, p *lab.Pod) error {
		start := time.Now()
		existed, err := remove(ctx, c, spec(p).GetKey())
		gone[i] = time.Since(start)
		if err == nil && !existed {
			err = fmt.Errorf("%s did not exist", p.Name)
		}
		return err
	})
	spans["delete"] = gone
	for name, d := range spans {
		slices.SortFunc(d, cmp.Compare[time.Duration])
		t.Logf("%-10s p50 %v p90 %v max %v", name, d[len(d)/2], d[len(d)*9/10], d[len(d)-1])
	}
	wantClean(t, n1, c, 0)
}

// What is asked for again is there; what differs is refused; what is absent can be deleted.
func TestPortAgain(t *testing.T) {
	l, c := fifty(t, lab.Options{})
	n1, p := l.Node("n1"), l.AddPod("n1", pod(1))
	first, err := create(t.Context(), c, spec(p), patience)
	l.Check(err)
	again, err := create(t.Context(), c, spec(p), patience)
	l.Check(err)
	if first.GetRevision() > again.GetRevision() || again.GetStatus().GetCreated().AsTime() != first.GetStatus().GetCreated().AsTime() {
		t.Errorf("again: %v\nfirst: %v", again, first)
	}
	other := spec(p)
	other.Mtu = 1300
	_, err = create(t.Context(), c, other, patience)
	wantReason(t, err, reason.PortConflict)
	if e, ok := errors.AsType[*reason.Error](err); !ok || e.Metadata["fields"] != "mtu" {
		t.Errorf("conflict: %v does not name the field", err)
	}
	q := l.AddPod("n1", pod(2))
	for _, tt := range []struct {
		name   string
		change func(*offloadv1.PortSpec)
		want   reason.Reason
	}{
		{"same interface", func(s *offloadv1.PortSpec) { s.Netns = spec(p).GetNetns() }, reason.IfnameInUse},
		{"same logical port", func(s *offloadv1.PortSpec) { s.LogicalPort = p.Name }, reason.LPortInUse},
		{"same MAC", func(s *offloadv1.PortSpec) { s.Mac = p.MAC }, reason.MACInUse},
		{"no namespace", func(s *offloadv1.PortSpec) { s.Netns = "/run/netns/nowhere" }, reason.NetnsGone},
		{"not a namespace", func(s *offloadv1.PortSpec) { s.Netns = "/dev/null" }, reason.NetnsInvalid},
		{"another namespace", func(s *offloadv1.PortSpec) { s.Netns = "/proc/self/ns/uts" }, reason.NetnsInvalid},
		{"the daemon's own", func(s *offloadv1.PortSpec) { s.Netns = "/proc/self/ns/net" }, reason.NetnsInvalid},
		{"taken name", func(s *offloadv1.PortSpec) { s.Key.Ifname = "lo" }, reason.IfnameInUse},
		{"unknown logical port", func(s *offloadv1.PortSpec) { s.LogicalPort = "nobody" }, reason.LPortNotFound},
		{"route nowhere", func(s *offloadv1.PortSpec) {
			s.Routes = []*offloadv1.Route{{Destination: "10.9.0.0/16", Gateway: "fe80::1"}}
		}, reason.InvalidField},
	} {
		s := spec(q)
		tt.change(s)
		_, err := create(t.Context(), c, s, patience)
		if got := reason.Of(err); got != tt.want {
			t.Errorf("%s: %s (%v), want %s", tt.name, got, err, tt.want)
		}
	}
	wantClean(t, n1, c, 1)
	for _, want := range []bool{true, false} {
		existed, err := remove(t.Context(), c, spec(p).GetKey())
		if err != nil || existed != want {
			t.Errorf("delete: %v %v, want %v", existed, err, want)
		}
	}
	wantClean(t, n1, c, 0)
}

func wantReason(t *testing.T, err error, want reason.Reason) {
	t.Helper()
	if got := reason.Of(err); got != want {
		t.Errorf("%s (%v), want %s", got, err, want)
	}
}

// The daemon is killed at every step of making, undoing and removing a port. The call that is repeated after its restart
// succeeds, nothing is left but what should be, and other pods lose no packet.
func TestPortsSurviveKills(t *testing.T) {
	opts := lab.Options{OffloaddPath: withFaults(t)}
	l, c := fifty(t, opts)
	n1 := l.Node("n1")
	p, x, y := l.AddPod("n1", pod(1)), l.AddPod("n1", pod(2)), l.AddPod("n1", pod(3))
	for _, other := range []*lab.Pod{x, y} {
		_, err := create(t.Context(), c, spec(other), patience)
		l.Check(err)
	}
	arm := filepath.Join(n1.Dir, "state", "fault")
	for _, point := range ports.FaultPoints() {
		for _, call := range []string{"create", "create that fails", "delete"} {
			_, step, _ := strings.Cut(point, "-")
			if slices.Contains([]string{"allocate", "assign", "function", "release"}, step) {
				continue // for functions of NICs: integration/devports
			}
			undoes := slices.Contains([]string{"unplug", "unlink", "forget"}, step)
			if undoes == (call == "create") || (step == "condemn") != (call == "delete") && !undoes {
				continue // it does not come by there
			}
			if call == "create that fails" && !undoes {
				continue
			}
			t.Run(call+" "+point, func(t *testing.T) {
				l := l.In(t)
				ctx := t.Context()
				want := spec(p)
				if call == "delete" {
					_, err := create(ctx, c, want, patience)
					l.Check(err)
				}
				pings := make(chan lab.PingStats)
				go func() {
					s, err := x.PingN(ctx, y.Addr(false), 300, 5*time.Millisecond, 2*time.Second)
					if err != nil {
						t.Error(err)
					}
					pings <- s
				}()
				l.Check(os.WriteFile(arm, []byte(point), 0o644))
				var err error
				switch call {
				case "create":
					_, err = create(ctx, c, want, patience)
				case "create that fails":
					nobody := spec(p)
					nobody.LogicalPort = "nobody"
					_, err = create(ctx, c, nobody, patience)
				case "delete":
					_, err = remove(ctx, c, want.GetKey())
				}
				wantReason(t, err, reason.DaemonUnreachable)
				l.Eventually(5*time.Second, "the daemon's end", func() bool { return !n1.AgentRuns() })
				l.Check(os.Remove(arm))
				_ = n1.StopAgent(syscall.SIGKILL) // it has been
				l.Check(n1.StartAgent(lab.Offloadd))
				if call == "delete" {
					_, err = remove(ctx, c, want.GetKey())
					l.Check(err)
					wantClean(t, n1, c, 2)
				} else {
					_, err = create(ctx, c, want, patience)
					l.Check(err)
					wantClean(t, n1, c, 3)
					if ok, err := p.Ping(ctx, x.Addr(false), 5*time.Second); err != nil || !ok {
						t.Errorf("the port does not work: %v", err)
					}
					_, err = remove(ctx, c, want.GetKey())
					l.Check(err)
				}
				if s := <-pings; s.Received != s.Sent {
					t.Errorf("others noticed: %+v", s)
				}
			})
		}
	}
}

// withFaults builds the daemon with fault points.
func withFaults(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "offloadd")
	cmd := exec.Command("go", "build", "-tags=faults", "-o", path, "../cmd/offloadd")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// Whatever is away, a call says so, and nothing is left when it is back.
func TestPortsWithoutNeighbours(t *testing.T) {
	l, c := fifty(t, lab.Options{})
	n1, p := l.Node("n1"), l.AddPod("n1", pod(1))
	q := l.AddPod("n1", pod(2))
	ctx := t.Context()

	l.Check(n1.Stop("ovs-vswitchd"))
	_, err := create(ctx, c, spec(p), patience)
	wantReason(t, err, reason.BridgeDisconnected)
	wantClean(t, n1, c, 0)
	l.Check(n1.Resume(ctx, "ovs-vswitchd"))
	_, err = create(ctx, c, spec(p), patience)
	l.Check(err)

	l.Check(n1.Stop("ovsdb-server"))
	l.Eventually(5*time.Second, "a refusal", func() bool {
		_, err := create(ctx, c, spec(q), patience)
		return reason.Of(err) == reason.OVSDBDisconnected
	})
	_, err = remove(ctx, c, spec(p).GetKey())
	wantReason(t, err, reason.OVSDBDisconnected)
	l.Check(n1.Resume(ctx, "ovsdb-server"))
	l.Eventually(15*time.Second, "the end of what could not be removed", func() bool {
		r, err := c.ListPorts(ctx, &offloadv1.ListPortsRequest{})
		return err == nil && len(r.GetPorts()) == 0
	})
	wantClean(t, n1, c, 0)

	l.Check(l.Stop("sb"))
	_, err = create(ctx, c, spec(p), patience)
	wantReason(t, err, reason.SBDisconnected)
	l.Check(l.Resume(ctx, "sb"))
	_, err = create(ctx, c, spec(p), patience)
	l.Check(err)

	// A caller that gives up leaves nothing behind either.
	gone := spec(q)
	gone.LogicalPort = "nobody"
	_, err = create(ctx, c, gone, 300*time.Millisecond)
	if r := reason.Of(err); r != reason.DeadlineExceeded && r != reason.LPortNotFound { // who is first, client or daemon
		t.Errorf("deadline: %v", err)
	}
	l.Eventually(5*time.Second, "undoing", func() bool {
		r, err := c.ListPorts(ctx, &offloadv1.ListPortsRequest{})
		return err == nil && len(r.GetPorts()) == 1
	})
	wantClean(t, n1, c, 1)

	// The namespace goes away while the daemon is, and while it is there.
	l.Check(n1.StopAgent(syscall.SIGTERM))
	l.Check(p.Remove(ctx))
	l.Check(n1.StartAgent(lab.Offloadd))
	l.Eventually(10*time.Second, "the port's removal", func() bool {
		r, err := c.ListPorts(ctx, &offloadv1.ListPortsRequest{})
		return err == nil && len(r.GetPorts()) == 0
	})
	wantClean(t, n1, c, 0)
	_, err = create(ctx, c, spec(q), patience)
	l.Check(err)
	l.Check(q.Remove(ctx))
	l.Eventually(10*time.Second, "the port's failure", func() bool {
		r, err := c.GetPort(ctx, &offloadv1.GetPortRequest{Key: spec(q).GetKey()})
		return err == nil && r.GetPort().GetStatus().GetState() == offloadv1.PortState_PORT_STATE_FAILED
	})
	existed, err := remove(ctx, c, spec(q).GetKey())
	if err != nil || !existed {
		t.Errorf("delete: %v, %v", existed, err)
	}
	wantClean(t, n1, c, 0)
}

// The addresses are those that ovn-northd assigned; what is on the link the request says.
func TestPortWithDynamicAddresses(t *testing.T) {
	l, c := fifty(t, lab.Options{})
	l.NB(`
		ls-add sw1
		set logical_switch sw1 other_config:subnet=10.0.2.0/24
		lsp-add sw1 d1
		lsp-set-addresses d1 dynamic
		lsp-add sw1 d2
		lsp-set-addresses d2 dynamic
		lsp-add sw1 d3
		lsp-set-addresses d3 unknown`)
	var made []*offloadv1.Port
	var pods []*lab.Pod
	for _, name := range []string{"d1", "d2", "d3"} {
		p := l.AddPod("n1", lab.PodConfig{Name: name, MAC: "50:54:00:00:00:00", Bare: true})
		port, err := create(t.Context(), c, &offloadv1.PortSpec{
			Key:         &offloadv1.PortKey{Network: "net", ContainerId: name, Ifname: "eth0"},
			Netns:       "/run/netns/" + p.Netns(),
			LogicalPort: name,
			Routes:      []*offloadv1.Route{{Destination: "10.0.2.0/24"}},
			Gateways:    []string{"10.0.2.1"},
		}, patience)
		if name == "d3" {
			wantReason(t, err, reason.LPortNoAddresses)
			break
		}
		l.Check(err)
		want := strings.Fields(l.NB("get logical_switch_port " + name + " dynamic_addresses"))
		got := port.GetStatus().GetMac() + " " + strings.TrimSuffix(port.GetStatus().GetAddresses()[0], "/32")
		if got != strings.Trim(strings.Join(want, " "), `"`) {
			t.Errorf("%s has %s, northd assigned %s", name, got, want)
		}
		made, pods = append(made, port), append(pods, p)
	}
	to := netip.MustParsePrefix(made[1].GetStatus().GetAddresses()[0]).Addr()
	if ok, err := pods[0].Ping(t.Context(), to, time.Second); err != nil || !ok {
		t.Errorf("d1 does not reach d2: %v", err)
	}
	wantClean(t, l.Node("n1"), c, 2)
}

// Where there is no pool of functions, or the bridge takes none, a port that has to have one is refused, and one that may be a veth
// is a veth and says why.
func TestPortsWithoutFunctions(t *testing.T) {
	l, c := fifty(t, lab.Options{})
	p := l.AddPod("n1", pod(1))
	s := spec(p)
	s.Kind = offloadv1.PortKind_PORT_KIND_VF
	_, err := create(t.Context(), c, s, patience)
	wantReason(t, err, reason.FeatureUnsupported)
	wantClean(t, l.Node("n1"), c, 0)
	s.Fallback = []offloadv1.PortKind{offloadv1.PortKind_PORT_KIND_SF, offloadv1.PortKind_PORT_KIND_VETH}
	port, err := create(t.Context(), c, s, patience)
	l.Check(err)
	if st := port.GetStatus(); st.GetKind() != offloadv1.PortKind_PORT_KIND_VETH || st.GetFellBack() == "" || st.GetFunction() != nil {
		t.Errorf("%v, because %q, function %v", st.GetKind(), st.GetFellBack(), st.GetFunction())
	}
	wantClean(t, l.Node("n1"), c, 1)
	_, err = remove(t.Context(), c, s.GetKey())
	l.Check(err)
	wantClean(t, l.Node("n1"), c, 0)
}

// Calls for one port that come at the same time have one result, and the last word has the one that deletes.
func TestPortCallsAtOnce(t *testing.T) {
	l, c := fifty(t, lab.Options{})
	n1, p := l.Node("n1"), l.AddPod("n1", pod(1))
	var g errgroup.Group
	made := make([]*offloadv1.Port, 5)
	for i := range made {
		g.Go(func() (err error) {
			made[i], err = create(t.Context(), c, spec(p), patience)
			return err
		})
	}
	l.Check(g.Wait())
	for _, m := range made {
		if got, want := m.GetStatus().GetCreated().AsTime(), made[0].GetStatus().GetCreated().AsTime(); got != want {
			t.Errorf("made at %v and at %v", got, want)
		}
	}
	wantClean(t, n1, c, 1)

	q := l.AddPod("n1", pod(2))
	waits := spec(q)
	waits.LogicalPort = "nobody"
	created := make(chan error)
	go func() {
		_, err := create(t.Context(), c, waits, patience)
		created <- err
	}()
	l.Eventually(5*time.Second, "a port that waits", func() bool {
		r, err := c.GetPort(t.Context(), &offloadv1.GetPortRequest{Key: waits.GetKey()})
		steps := r.GetPort().GetStatus().GetTimeline()
		return err == nil && len(steps) > 0 && steps[len(steps)-1].GetName() == "claim"
	})
	_, err := remove(t.Context(), c, waits.GetKey())
	l.Check(err)
	wantReason(t, <-created, reason.PortDeleted)
	wantClean(t, n1, c, 1)

	// The namespace goes away while its port is being made.
	go func() {
		_, err := create(t.Context(), c, waits, patience)
		created <- err
	}()
	l.Check(q.Remove(t.Context()))
	if err := <-created; err == nil {
		t.Errorf("a port without a namespace")
	}
	wantClean(t, n1, c, 1)
}

// One after the other, to see what each step takes when nothing else is to be done.
func TestPortSteps(t *testing.T) {
	l, c := fifty(t, lab.Options{})
	p := l.AddPod("n1", pod(1))
	spans := map[string][]time.Duration{}
	var names []string
	for range 30 {
		start := time.Now()
		port, err := create(t.Context(), c, spec(p), patience)
		l.Check(err)
		spans["create"] = append(spans["create"], time.Since(start))
		for _, s := range port.GetStatus().GetTimeline() {
			if !slices.Contains(names, s.GetName()) {
				names = append(names, s.GetName())
			}
			spans[s.GetName()] = append(spans[s.GetName()], s.GetDuration().AsDuration())
		}
		start = time.Now()
		_, err = remove(t.Context(), c, spec(p).GetKey())
		l.Check(err)
		spans["delete"] = append(spans["delete"], time.Since(start))
	}
	for _, name := range append(names, "create", "delete") {
		d := spans[name]
		slices.Sort(d)
		t.Logf("%-10s p50 %v p90 %v max %v", name, d[len(d)/2], d[len(d)*9/10], d[len(d)-1])
	}
}
