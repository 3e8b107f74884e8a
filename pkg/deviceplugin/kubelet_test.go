package deviceplugin

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A kubelet speaks kubelet's side of the protocols, over its sockets.
type kubelet struct {
	pluginapi.UnimplementedRegistrationServer
	podresources.UnimplementedPodResourcesListerServer
	t      *testing.T
	dir    string
	server *grpc.Server
	done   sync.WaitGroup
	pods   *podresources.ListPodResourcesResponse

	mu            sync.Mutex
	changed       chan struct{}
	registered    map[string]*pluginapi.RegisterRequest // by resource
	registrations int
	devices       map[string][]*pluginapi.Device
	lists         int // how many lists have come
	refuse        int // registrations to refuse
}

// newKubelet returns one that has not started, and whose directory does not exist.
func newKubelet(t *testing.T) *kubelet {
	k := &kubelet{t: t, dir: filepath.Join(t.TempDir(), "lib", "kubelet"), changed: make(chan struct{})}
	t.Cleanup(k.stop)
	return k
}

func (k *kubelet) sockets() string { return filepath.Join(k.dir, "device-plugins") }

// start does what kubelet does when it starts: it removes all sockets, and forgets all plugins.
func (k *kubelet) start() {
	k.t.Helper()
	if err := os.RemoveAll(k.sockets()); err != nil {
		k.t.Fatal(err)
	}
	k.begin()
}

func (k *kubelet) begin() {
	k.t.Helper()
	k.tell(func() {
		k.registered, k.devices = map[string]*pluginapi.RegisterRequest{}, map[string][]*pluginapi.Device{}
	})
	k.server = grpc.NewServer(grpc.WaitForHandlers(true))
	pluginapi.RegisterRegistrationServer(k.server, k)
	podresources.RegisterPodResourcesListerServer(k.server, k)
	for _, dir := range []string{k.sockets(), filepath.Join(k.dir, "pod-resources")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			k.t.Fatal(err)
		}
		path := filepath.Join(dir, "kubelet.sock")
		_ = os.Remove(path)
		l, err := net.Listen("unix", path)
		if err != nil {
			k.t.Fatal(err)
		}
		k.done.Go(func() { _ = k.server.Serve(l) })
	}
}

func (k *kubelet) stop() {
	if k.server != nil {
		k.server.Stop()
		k.done.Wait()
		k.server = nil
	}
}

func (k *kubelet) tell(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	close(k.changed)
	k.changed = make(chan struct{})
}

// Register calls the plugin back before it answers, as kubelet does.
func (k *kubelet) Register(_ context.Context, r *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	k.mu.Lock()
	k.registrations++
	refuse := k.refuse > 0
	k.refuse--
	k.mu.Unlock()
	if refuse || r.GetVersion() != pluginapi.Version {
		return nil, fmt.Errorf("version %q is refused", r.GetVersion())
	}
	conn, err := dial(filepath.Join(k.sockets(), r.GetEndpoint()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	o, err := pluginapi.NewDevicePluginClient(conn).GetDevicePluginOptions(ctx, &pluginapi.Empty{})
	if err != nil || !o.GetGetPreferredAllocationAvailable() || o.GetPreStartRequired() {
		_ = conn.Close()
		return nil, fmt.Errorf("options %v, %w", o, err)
	}
	k.tell(func() { k.registered[r.GetResourceName()] = r })
	k.done.Go(func() {
		defer func() { _ = conn.Close() }()
		stream, err := pluginapi.NewDevicePluginClient(conn).ListAndWatch(context.Background(), &pluginapi.Empty{})
		for err == nil {
			var list *pluginapi.ListAndWatchResponse
			if list, err = stream.Recv(); err == nil {
				k.tell(func() { k.devices[r.GetResourceName()] = list.GetDevices(); k.lists++ })
			}
		}
	})
	return &pluginapi.Empty{}, nil
}

func (k *kubelet) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	return k.pods, nil
}

// plugin returns a client of the plugin of a resource.
func (k *kubelet) plugin(resource string) pluginapi.DevicePluginClient {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	conn, err := dial(filepath.Join(k.sockets(), k.registered[resource].GetEndpoint()))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = conn.Close() })
	return pluginapi.NewDevicePluginClient(conn)
}

// show is what kubelet knows of a resource: names of devices, with - before those that are not healthy, and their NUMA node.
func (k *kubelet) show(resource string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.registered[resource] == nil {
		return "not registered"
	}
	var words []string
	for _, d := range k.devices[resource] {
		word := d.GetID()
		if d.GetHealth() != pluginapi.Healthy {
			word = "-" + word
		}
		for _, n := range d.GetTopology().GetNodes() {
			word += fmt.Sprintf("@%d", n.GetID())
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// await waits until kubelet knows this of a resource.
func (k *kubelet) await(resource, want string) {
	k.t.Helper()
	k.until(func() bool { return k.show(resource) == want }, func() string {
		return fmt.Sprintf("kubelet knows of %s: %s\nwant: %s", resource, k.show(resource), want)
	})
}

func (k *kubelet) until(ok func() bool, otherwise func() string) {
	k.t.Helper()
	late := time.After(20 * time.Second)
	for {
		k.mu.Lock()
		changed := k.changed
		k.mu.Unlock()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-late:
			k.t.Fatal(otherwise())
		}
	}
}

var nic = devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}

// A node is what there is of devices, and who has what by name.
type node struct {
	mu   sync.Mutex
	is   device.Snapshot
	held map[string]string
	next chan struct{}
}

// newNode has a pool of three VFs and one of at most four SFs.
func newNode() *node {
	n := &node{next: make(chan struct{}), held: map[string]string{}}
	n.is.Devices = []device.Status{{Handle: nic, NUMA: 1}}
	n.is.Pools = []device.PoolStatus{
		{Pool: device.Pool{Name: "fast", Kind: device.VF}, Handle: nic, Capacity: 3},
		{Pool: device.Pool{Name: "many", Kind: device.SF, Max: 4}, Handle: nic, Capacity: 4},
	}
	for i := range uint32(3) {
		n.is.Functions = append(n.is.Functions, device.FunctionStatus{State: device.Free, Function: device.Function{
			Handle: nic.Port(i + 1), Kind: device.VF, Number: i, Pool: "fast", Bus: "pci", Device: fmt.Sprintf("0000:03:00.%d", i+1),
			Representor: device.Link{Name: fmt.Sprintf("rep%d", i), Index: int(i) + 9}, NUMA: 1,
		}})
	}
	return n
}

// sf adds an SF of the pool many.
func sf(s *device.Snapshot, number uint32, state device.State, owner string) {
	s.Functions = append(s.Functions, device.FunctionStatus{State: state, Owner: owner, Function: device.Function{
		Handle: nic.Port(100 + number), Kind: device.SF, Number: number, Pool: "many", NUMA: 1,
	}})
}

func (n *node) snapshot() device.Snapshot {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.is
	s.Changed, s.Functions, s.Pools, s.Devices = n.next, slices.Clone(s.Functions), slices.Clone(s.Pools), slices.Clone(s.Devices)
	return s
}

func (n *node) change(f func(*device.Snapshot)) {
	s := n.snapshot()
	n.mu.Lock()
	defer n.mu.Unlock()
	f(&s)
	s.Revision++
	n.is = s
	close(n.next)
	n.next = make(chan struct{})
}

func (n *node) holders() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.held)
}

// offer runs a plugin of the node's two pools, for a kubelet, until the test is over or stop is called.
func offer(t *testing.T, n *node, k *kubelet) (p *Plugin, stop func()) {
	t.Helper()
	ready := make(chan struct{})
	close(ready)
	p = New(Options{
		KubeletDir: k.dir, Resources: map[string]string{"fast": "offloadd.io/fast", "many": "example.com/sf"},
		Snapshot: n.snapshot, Held: n.holders, Ready: ready,
		InfoDir: filepath.Join(t.TempDir(), "dp"), Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return p, stop
}
