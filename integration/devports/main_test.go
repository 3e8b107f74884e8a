package devports

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// nic is the NIC of all tests.
var nic = testnic.New()

// vfs is how many VFs it has.
const vfs = 4

var pools = `
pools:
- {name: vfs, device: "` + nic.Handle() + `", kind: vf` + map[bool]string{false: ", vfs: 0-3"}[nic.Changeable()] + `}
- {name: sfs, device: "` + nic.Handle() + `", kind: sf, min_warm: 2, max_warm: 4, max: 6}
device_plugin: {enabled: true, kubelet_dir: ` + kubeletDir + `}
`

// kubeletDir is where kubelet would be. There is none, but for a test of it.
const kubeletDir = "/run/kubelet"

// theRig is that of all tests: a guest needs long to start one.
var theRig struct {
	*lab.Lab
	once sync.Once
	err  error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if theRig.Lab != nil {
		if err := errors.Join(theRig.Close(), nic.Close()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// A rig is a lab whose node n1 is the guest itself, with the NIC, and the logical ports q1 to q20 of the switch sw0. Tests leave it
// without ports.
type rig struct {
	*labtest.Lab
	node  *lab.Node
	ports offloadv1.PortServiceClient
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if why := nic.Absent(); why != "" {
		t.Skip(why)
	}
	theRig.once.Do(func() { theRig.Lab, theRig.err = start() })
	if theRig.err != nil {
		t.Fatal(theRig.err)
	}
	l := &labtest.Lab{Lab: theRig.Lab, T: t}
	n := l.Node("n1")
	conn, err := client.Dial(filepath.Join(n.Dir, "offloadd.sock"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	l.Check(err)
	r := &rig{l, n, offloadv1.NewPortServiceClient(conn)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of lab %s:\n%s\n%s", l.Name, l.Tails(60), l.State(context.Background()))
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// binary returns the path of a program that is built outside the guest.
func binary(variable string) (string, error) {
	path := os.Getenv(variable)
	if path == "" {
		return "", fmt.Errorf("no %s in the environment: see test-vm in the Makefile", variable)
	}
	return path, nil
}

func start() (*lab.Lab, error) {
	offloadd, err := binary("OFFLOADD_FAULTS")
	if err != nil {
		return nil, err
	}
	if err := nic.Open(context.Background(), vfs); err != nil {
		return nil, err
	}
	// While there are no other namespaces. No function of the simulated NIC has an RDMA device until a test wants that.
	if !nic.Real() {
		err = run("rdma", "system", "set", "netns", "exclusive")
	}
	if err != nil {
		return nil, errors.Join(err, nic.Close())
	}
	l, err := lab.Start(context.Background(), lab.Options{
		OffloaddPath: offloadd,
		Datapath:     lab.System,
		Nodes:        []lab.NodeConfig{{Name: "n1", Agent: lab.Offloadd, Host: true, ConfigYAML: pools}},
	})
	if err != nil {
		return nil, errors.Join(err, nic.Close())
	}
	script := "ls-add sw0\n"
	for i := 1; i <= 20; i++ {
		c := pod(i)
		script += fmt.Sprintf("lsp-add sw0 %s -- lsp-set-addresses %s '%s %s'\n", c.Name, c.Name, c.MAC, c.IPs[0].Addr())
	}
	if _, err := l.NB(context.Background(), script); err != nil {
		return nil, errors.Join(err, l.Close(), nic.Close())
	}
	return l, nil
}

// setUp is what a node does with its NIC when it boots.
func setUp() error {
	if err := nic.SetVFs(vfs); err != nil {
		return err
	}
	return nic.Switchdev()
}

// faulty skips a test that makes the NIC do what only the simulated one can be told to.
func faulty(t *testing.T) {
	t.Helper()
	if nic.Real() {
		t.Skip("it takes faults that only the simulated NIC makes")
	}
}

// changing skips a test that changes the number of VFs or the mode of a NIC where that is not wanted.
func changing(t *testing.T) {
	t.Helper()
	if !nic.Changeable() {
		t.Skip("it changes the number of VFs or the mode, and " + testnic.Change + " is empty")
	}
}

func run(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// pod is the pod for the logical port q<i>, without an interface.
func pod(i int) lab.PodConfig {
	return lab.PodConfig{
		Name: fmt.Sprintf("q%d", i), MAC: fmt.Sprintf("50:54:00:00:01:%02x", i),
		IPs:  []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.1.%d/24", i))},
		Bare: true,
	}
}

// pods makes namespaces for logical ports that end with the test.
func (r *rig) pods(numbers ...int) []*lab.Pod {
	r.T.Helper()
	var all []*lab.Pod
	for _, i := range numbers {
		p := r.AddPod("n1", pod(i))
		r.T.Cleanup(func() {
			if err := p.Remove(context.Background()); err != nil {
				r.T.Error(err)
			}
		})
		all = append(all, p)
	}
	return all
}

// spec asks for a port of a kind, from the pool that has such functions.
func spec(p *lab.Pod, kind offloadv1.PortKind) *offloadv1.PortSpec {
	s := &offloadv1.PortSpec{
		Key:         &offloadv1.PortKey{Network: "net", ContainerId: p.Name, Ifname: "eth0"},
		Netns:       "/run/netns/" + p.Netns(),
		Kind:        kind,
		LogicalPort: p.Name,
		Mac:         p.MAC,
		Addresses:   []string{p.IPs[0].String()},
	}
	switch kind {
	case vf:
		s.Pool = "vfs"
	case sf:
		s.Pool = "sfs"
	case veth, auto, offloadv1.PortKind_PORT_KIND_UNSPECIFIED:
	}
	return s
}

const (
	veth = offloadv1.PortKind_PORT_KIND_VETH
	vf   = offloadv1.PortKind_PORT_KIND_VF
	sf   = offloadv1.PortKind_PORT_KIND_SF
	auto = offloadv1.PortKind_PORT_KIND_AUTO
)

// patience is the deadline of calls that are to succeed.
func patience() time.Duration { return lab.Patient(30 * time.Second) }

func (r *rig) create(s *offloadv1.PortSpec) (*offloadv1.Port, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	resp, err := r.ports.CreatePort(ctx, &offloadv1.CreatePortRequest{Spec: s})
	return resp.GetPort(), client.Error(err)
}

func (r *rig) mustCreate(s *offloadv1.PortSpec) *offloadv1.Port {
	r.T.Helper()
	p, err := r.create(s)
	r.Check(err)
	return p
}

func (r *rig) delete(k *offloadv1.PortKey) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	_, err := r.ports.DeletePort(ctx, &offloadv1.DeletePortRequest{Key: k})
	return client.Error(err)
}

func (r *rig) mustDelete(k *offloadv1.PortKey) {
	r.T.Helper()
	r.Check(r.delete(k))
}

// status returns a port's, nil if there is no such port.
func (r *rig) status(k *offloadv1.PortKey) *offloadv1.PortStatus {
	r.T.Helper()
	resp, err := r.ports.GetPort(r.T.Context(), &offloadv1.GetPortRequest{Key: k})
	if reason.Of(client.Error(err)) == reason.PortNotFound {
		return nil
	}
	r.Check(client.Error(err))
	return resp.GetPort().GetStatus()
}

// waitFailed waits until a port has failed for a reason.
func (r *rig) waitFailed(k *offloadv1.PortKey, why reason.Reason) {
	r.T.Helper()
	r.Eventually(10*time.Second, "the failure of a port, for "+string(why), func() bool {
		st := r.status(k)
		return st.GetState() == offloadv1.PortState_PORT_STATE_FAILED && st.GetReason() == string(why)
	})
}

func (r *rig) wantReason(err error, want reason.Reason) {
	r.T.Helper()
	if got := reason.Of(err); got != want {
		r.T.Errorf("%s (%v), want %s", got, err, want)
	}
}

// wantPing fails the test unless a reaches b.
func (r *rig) wantPing(a, b *lab.Pod) {
	r.T.Helper()
	if ok, err := a.Ping(r.T.Context(), b.Addr(false), lab.Patient(2*time.Second)); err != nil || !ok {
		r.T.Errorf("%s does not reach %s: %v", a.Name, b.Name, err)
	}
}

// audit returns what the daemon finds that does not fit together.
func (r *rig) audit() string {
	r.T.Helper()
	out, err := r.node.Exec(r.T.Context(), "ovs-appctl", "-t", filepath.Join(r.node.Dir, "offloadd.ctl"), "ports/audit")
	r.Check(err)
	return strings.TrimSpace(out)
}

// wantClean fails the test unless there are these ports, their Interfaces, and nothing else of the daemon's.
func (r *rig) wantClean(want ...string) {
	r.T.Helper()
	if out := r.audit(); out != "" {
		r.T.Errorf("audit:\n%s", out)
	}
	list, err := r.ports.ListPorts(r.T.Context(), &offloadv1.ListPortsRequest{})
	r.Check(err)
	var got, interfaces []string
	for _, p := range list.GetPorts() {
		got = append(got, p.GetSpec().GetLogicalPort())
		interfaces = append(interfaces, p.GetStatus().GetHostInterface())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.T.Errorf("ports %q, want %q", got, want)
	}
	plugged, err := r.node.VSctl(r.T.Context(), "--bare", "--columns=name", "find", "interface", "external_ids:offloadd-port!=x")
	r.Check(err)
	have := strings.Fields(plugged)
	slices.Sort(have)
	slices.Sort(interfaces)
	if !slices.Equal(have, interfaces) {
		r.T.Errorf("Interfaces %q, want %q", have, interfaces)
	}
}

// A netdev is what there is to see of one.
type netdev struct{ name, mac, mtu string }

// home returns the netdevs of functions in the host's network namespace, by the function's device.
func home(t *testing.T) map[string]netdev {
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
			continue // not a NIC's, or the PF's, as representors are
		}
		d := netdev{name: filepath.Base(dir)}
		for file, to := range map[string]*string{"address": &d.mac, "mtu": &d.mtu} {
			b, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			*to = strings.TrimSpace(string(b))
		}
		found[dev] = d
	}
	return found
}

// restart starts the daemon again, whether it runs or has ended.
func (r *rig) restart() {
	r.T.Helper()
	_ = r.node.StopAgent(syscall.SIGKILL) // it may have been
	r.Check(r.node.StartAgent(lab.Offloadd))
}
