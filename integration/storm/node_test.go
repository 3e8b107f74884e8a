package storm

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/integration/testnic"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

var nic = testnic.Simulated(os.Getenv(testnic.Module))

const (
	vfs     = 4 // as many as the pool of VFs has
	minWarm = 1 // of the pool of SFs, as are the others
	maxWarm = 2
	maxSFs  = 5
)

// A node is one whose daemon is killed, and what there is to see of it from outside.
type node struct {
	*labtest.Lab
	node    *lab.Node
	ports   offloadv1.PortServiceClient
	devices offloadv1.DeviceServiceClient
	nic     bool              // it has one, and so ports may be VFs and SFs
	before  map[string]netdev // those of VFs, when nobody had them

	killing sync.Mutex
	away    atomic.Int64 // kills that are under way
	kills   atomic.Int64 // all, counted when they begin
	back    atomic.Int64 // when the last one was over, in Unix time in nanoseconds
}

// newNode starts a lab with one node and the logical ports of pods. In a guest it is the guest itself, which gets a NIC.
func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{nic: nic.Absent() == ""}
	opts := lab.Options{Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.Offloadd}}}
	if n.nic {
		if err := nic.Open(t.Context(), vfs); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := nic.Close(); err != nil {
				t.Error(err)
			}
		})
		opts.Datapath = lab.System
		opts.Nodes[0].Host = true
		// Filters are others' tests, and would be most of the work.
		opts.Nodes[0].ConfigYAML = fmt.Sprintf(`
offload: "off"
pools:
- {name: vfs, device: %[1]s, kind: vf}
- {name: sfs, device: %[1]s, kind: sf, min_warm: %[2]d, max_warm: %[3]d, max: %[4]d}
`, nic.Handle(), minWarm, maxWarm, maxSFs)
	}
	n.Lab = labtest.Start(t, opts)
	n.node = n.Node("n1")
	var script strings.Builder
	script.WriteString("ls-add sw0\n")
	for i := range pods {
		c := config(i)
		fmt.Fprintf(&script, "lsp-add sw0 %s -- lsp-set-addresses %s '%s %s'\n", c.Name, c.Name, c.MAC, c.IPs[0].Addr())
	}
	n.NB(script.String())
	n.Sync()
	n.Check(n.Pause(t.Context())) // ovn-northd has no more to do, but would look at each port that is claimed
	conn, err := client.Dial(filepath.Join(n.node.Dir, "offloadd.sock"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	n.Check(err)
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	n.ports, n.devices = offloadv1.NewPortServiceClient(conn), offloadv1.NewDeviceServiceClient(conn)
	if n.nic {
		n.before = home(t)
	}
	return n
}

// config is the pod for the logical port s<i>, without an interface.
func config(i int) lab.PodConfig {
	return lab.PodConfig{
		Name: fmt.Sprintf("s%d", i), MAC: fmt.Sprintf("50:54:00:03:00:%02x", i), Bare: true,
		IPs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.3.%d/24", i+1))},
	}
}

// patience is the deadline of calls that are to be answered.
func patience() time.Duration { return lab.Patient(time.Minute) }

// A call is one to the daemon, which may be killed meanwhile.
type call struct {
	n     *node
	away  bool
	kills int64
}

func (n *node) begin() call { return call{n, n.away.Load() > 0, n.kills.Load()} }

// killed reports whether a call has no answer because the daemon was killed.
func (c call) killed(err error) bool {
	return reason.Of(err) == reason.DaemonUnreachable && (c.away || c.n.kills.Load() != c.kills)
}

// early reports whether an error is of a daemon that has just started: it answers before it has reached the switch and the Southbound.
func (c call) early(err error) bool {
	r := reason.Of(err)
	return (r == reason.BridgeDisconnected || r == reason.SBDisconnected) &&
		(c.away || c.n.kills.Load() != c.kills || time.Since(time.Unix(0, c.n.back.Load())) < lab.Patient(10*time.Second))
}

// kill kills the daemon after a while and starts it again. With answers it returns when the new one does.
func (n *node) kill(after time.Duration, answers bool) error {
	n.killing.Lock()
	time.Sleep(after)
	if !n.node.AgentRuns() {
		n.killing.Unlock()
		return fmt.Errorf("the daemon has ended by itself: %s", n.node.AgentEnd(lab.Offloadd))
	}
	n.away.Add(1)
	n.kills.Add(1)
	err := n.node.StopAgent(syscall.SIGKILL)
	if err == nil {
		err = n.node.StartAgent(lab.Offloadd)
	}
	n.killing.Unlock()
	defer func() {
		n.back.Store(time.Now().UnixNano())
		n.away.Add(-1)
	}()
	deadline := time.Now().Add(patience())
	for answers && err == nil {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		_, err = n.ports.ListPorts(ctx, &offloadv1.ListPortsRequest{})
		cancel()
		if err = client.Error(err); err == nil {
			break
		}
		if reason.Of(err) == reason.DaemonUnreachable && time.Now().Before(deadline) {
			err = nil // it was the one before, or another kill
		}
	}
	return err
}

// leftovers are what the daemon finds that does not fit together: what offloadctl audit prints.
func (n *node) leftovers() string {
	n.T.Helper()
	list, err := n.devices.ListLeftovers(n.T.Context(), &offloadv1.ListLeftoversRequest{})
	if reason.Of(client.Error(err)) == reason.NotReady {
		return "not ready"
	}
	n.Check(client.Error(err))
	var lines []string
	for _, l := range list.GetLeftovers() {
		lines = append(lines, l.GetWhere()+" "+l.GetName()+": "+l.GetCause())
	}
	return strings.Join(lines, "\n")
}

// A view is what there is, each thing in a line, sorted.
type view []string

func (v *view) add(format string, args ...any) { *v = append(*v, fmt.Sprintf(format, args...)) }

// expected is what there is to be if these are the ports. Functions that nobody has are free.
func (n *node) expected(all []*slot) view {
	var v view
	used := map[offloadv1.PortKind]int{}
	for _, s := range all {
		inside := "lo"
		if s.port != nil {
			key, st := s.spec.GetKey(), s.port.GetStatus()
			v.add("port %s/%s/%s: READY, %v on %s", key.GetNetwork(), key.GetContainerId(), key.GetIfname(), st.GetKind(), st.GetHostInterface())
			v.add("Interface %s", st.GetHostInterface())
			v.add("claimed %s", s.pod.Name)
			used[st.GetKind()]++
			if f := st.GetFunction(); f != nil {
				v.add("%v %s: USED by %s/%s/%s", st.GetKind(), st.GetHostInterface(), key.GetNetwork(), key.GetContainerId(), key.GetIfname())
			} else {
				v.add("link %s", st.GetHostInterface())
			}
			inside = "eth0 lo"
		}
		v.add("pod %s: %s", s.pod.Name, inside)
	}
	if n.nic {
		v.add("%d VFs are free", vfs-used[vf])
		v.add("SFs are free: as many as there should be")
	}
	slices.Sort(v)
	return v
}

// seen is the same of what there is.
func (n *node) seen(all []*slot) view {
	n.T.Helper()
	var v view
	list, err := n.ports.ListPorts(n.T.Context(), &offloadv1.ListPortsRequest{})
	n.Check(err)
	for _, p := range list.GetPorts() {
		key, st := p.GetSpec().GetKey(), p.GetStatus()
		state := strings.TrimPrefix(st.GetState().String(), "PORT_STATE_")
		v.add("port %s/%s/%s: %s, %v on %s", key.GetNetwork(), key.GetContainerId(), key.GetIfname(), state, st.GetKind(), st.GetHostInterface())
	}
	interfaces, err := n.node.VSctl(n.T.Context(), "--bare", "--columns=name", "find", "interface", "external_ids:offloadd-port!=x")
	n.Check(err)
	for name := range strings.FieldsSeq(interfaces) {
		v.add("Interface %s", name)
	}
	for name := range strings.FieldsSeq(n.SB("--bare --columns=logical_port find port_binding chassis!=[]")) {
		v.add("claimed %s", name)
	}
	links, err := n.node.Exec(n.T.Context(), "ip", "-o", "link", "show", "type", "veth")
	n.Check(err)
	for line := range strings.Lines(links) {
		if name, _, _ := strings.Cut(strings.Fields(line)[1], "@"); strings.HasPrefix(name, "off") {
			v.add("link %s", name)
		}
	}
	for _, s := range all {
		n.Check(s.pod.Do(func() error {
			links, err := net.Interfaces() // in the order of the kernel's hash of their indexes: lo is not always the first
			var names []string
			for _, l := range links {
				names = append(names, l.Name)
			}
			slices.Sort(names)
			v.add("pod %s: %s", s.pod.Name, strings.Join(names, " "))
			return err
		}))
	}
	if n.nic {
		v = append(v, n.functions()...)
	}
	slices.Sort(v)
	return v
}

// functions are what the daemon says of them, and the netdevs of those that nobody has.
func (n *node) functions() view {
	n.T.Helper()
	var v view
	list, err := n.devices.ListFunctions(n.T.Context(), &offloadv1.ListFunctionsRequest{})
	n.Check(err)
	free := map[offloadv1.FunctionKind]int{}
	netdevs := home(n.T)
	for _, f := range list.GetFunctions() {
		kind := vf
		if f.GetKind() == offloadv1.FunctionKind_FUNCTION_KIND_SF {
			kind = sf
		}
		d, isHome := netdevs[f.GetDevice()]
		delete(netdevs, f.GetDevice())
		switch state := strings.TrimPrefix(f.GetState().String(), "FUNCTION_STATE_"); {
		case state != "FREE" || f.GetOwner() != "":
			v.add("%v %s: %s by %s", kind, f.GetRepresentor(), state, f.GetOwner())
			if isHome {
				v.add("%v %s is not in the container, but here: %v", kind, f.GetRepresentor(), d)
			}
		case !isHome:
			v.add("%v %s is free, and not here", kind, f.GetRepresentor())
		case kind == vf && d != n.before[f.GetDevice()]:
			v.add("%v %s is free, and not as it was: %v, before %v", kind, f.GetRepresentor(), d, n.before[f.GetDevice()])
		case strings.HasPrefix(d.mac, "50:54:") || d.name == "eth0":
			v.add("%v %s is free, and not as it was: %v", kind, f.GetRepresentor(), d)
		default:
			free[f.GetKind()]++
		}
	}
	for dev, d := range netdevs {
		v.add("netdev %v of %s, of no function", d, dev)
	}
	sfs := "as many as there should be"
	used := len(list.GetFunctions()) - vfs - free[offloadv1.FunctionKind_FUNCTION_KIND_SF]
	if is := free[offloadv1.FunctionKind_FUNCTION_KIND_SF]; is > maxWarm || is < min(minWarm, maxSFs-used) {
		sfs = fmt.Sprint(is)
	}
	v.add("%d VFs are free", free[offloadv1.FunctionKind_FUNCTION_KIND_VF])
	v.add("SFs are free: %s", sfs)
	return v
}

// A netdev is what there is to see of one.
type netdev struct{ name, mac, mtu string }

// home returns the netdevs of functions in the host's network namespace, by the function's device.
func home(t testing.TB) map[string]netdev {
	t.Helper()
	all, err := filepath.Glob("/sys/class/net/*")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]netdev{}
	for _, dir := range all {
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		dev := filepath.Base(device)
		if err != nil || !nic.IsVF(dev) && !nic.IsSF(dev) {
			continue // not the NIC's, or the PF's, as representors are
		}
		d := netdev{name: filepath.Base(dir)}
		for file, to := range map[string]*string{"address": &d.mac, "mtu": &d.mtu} {
			b, err := os.ReadFile(filepath.Join(dir, file))
			if os.IsNotExist(err) {
				continue // it has just gone
			}
			if err != nil {
				t.Fatal(err)
			}
			*to = strings.TrimSpace(string(b))
		}
		found[dev] = d
	}
	return found
}

// verify waits until there is what is to be: nothing does not fit, and nothing is missing or too much.
func (n *node) verify(all []*slot) {
	n.T.Helper()
	ctx, cancel := context.WithTimeout(n.T.Context(), lab.Patient(30*time.Second))
	defer cancel()
	var left string
	var missing, surplus view
	err := lab.Until(ctx, func() (bool, error) {
		if left = n.leftovers(); left != "" {
			return false, nil
		}
		missing, surplus = difference(n.expected(all), n.seen(all))
		return len(missing)+len(surplus) == 0, nil
	})
	if err != nil {
		n.T.Fatalf("there is not what was acknowledged\naudit: %s\nmissing:\n\t%s\ntoo much:\n\t%s", left, strings.Join(missing, "\n\t"), strings.Join(surplus, "\n\t"))
	}
}

func difference(want, got view) (missing, surplus view) {
	count := map[string]int{}
	for _, line := range want {
		count[line]++
	}
	for _, line := range got {
		count[line]--
	}
	for _, line := range slices.Sorted(maps.Keys(count)) {
		for range count[line] {
			missing = append(missing, line)
		}
		for range -count[line] {
			surplus = append(surplus, line)
		}
	}
	return missing, surplus
}

// holds returns the network namespaces that the daemon keeps open, and how many files in all.
func (n *node) holds() (spaces []string, files int) {
	n.T.Helper()
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.node.AgentPID()))
	n.Check(err)
	for _, file := range all {
		if to, err := os.Readlink(file); err == nil {
			if files++; strings.HasPrefix(to, "net:[") {
				spaces = append(spaces, to)
			}
		}
	}
	return spaces, files
}
