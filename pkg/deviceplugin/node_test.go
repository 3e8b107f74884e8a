package deviceplugin

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/deviceplugin/kubelettest"
	"github.com/offloadd/offloadd/pkg/devlink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newKubelet returns one whose directory, and the one above, does not exist yet, and the directory.
func newKubelet(t *testing.T) (*kubelettest.Kubelet, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lib", "kubelet")
	return kubelettest.New(t, dir), dir
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

// offer runs a plugin of the node's two pools, for the kubelet in a directory, until the test is over or stop is called.
func offer(t *testing.T, n *node, dir string) (p *Plugin, stop func()) {
	t.Helper()
	ready := make(chan struct{})
	close(ready)
	p = New(Options{
		KubeletDir: dir, Resources: map[string]string{"fast": "offloadd.io/fast", "many": "example.com/sf"},
		RDMA: func(f device.Function) string { return map[string]string{"0000:03:00.3": "mlx5_3"}[f.Device] },
		RDMANodes: func(f device.Function) []string {
			return map[string][]string{"0000:03:00.1": {"uverbs1", "rdma_cm"}, "0000:03:00.3": {"uverbs3", "rdma_cm"}}[f.Device]
		},
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
