// Package kubelettest speaks kubelet's side of the protocols with device plugins, over its sockets.
package kubelettest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// A Kubelet is one. Its methods end the test if something goes wrong.
type Kubelet struct {
	pluginapi.UnimplementedRegistrationServer
	podresources.UnimplementedPodResourcesListerServer
	t      testing.TB
	dir    string
	server *grpc.Server
	done   sync.WaitGroup

	mu            sync.Mutex
	changed       chan struct{}
	registered    map[string]*pluginapi.RegisterRequest // by resource
	registrations int
	pods          *podresources.ListPodResourcesResponse
	devices       map[string][]*pluginapi.Device
	lists         int // how many lists have come
	refuse        int // registrations to refuse
}

// New returns one that has not started. Its directory need not exist.
func New(t testing.TB, dir string) *Kubelet {
	k := &Kubelet{t: t, dir: dir, changed: make(chan struct{}), pods: &podresources.ListPodResourcesResponse{}}
	t.Cleanup(k.Stop)
	return k
}

// Sockets is the directory where its socket, and those of plugins, are.
func (k *Kubelet) Sockets() string { return filepath.Join(k.dir, "device-plugins") }

// Start does what kubelet does when it starts: it removes all sockets, and forgets all plugins.
func (k *Kubelet) Start() {
	k.t.Helper()
	if err := os.RemoveAll(k.Sockets()); err != nil {
		k.t.Fatal(err)
	}
	k.Resume()
}

// Resume is Start without removing anything.
func (k *Kubelet) Resume() {
	k.t.Helper()
	k.tell(func() {
		k.registered, k.devices = map[string]*pluginapi.RegisterRequest{}, map[string][]*pluginapi.Device{}
	})
	k.server = grpc.NewServer(grpc.WaitForHandlers(true))
	pluginapi.RegisterRegistrationServer(k.server, k)
	podresources.RegisterPodResourcesListerServer(k.server, k)
	for _, dir := range []string{k.Sockets(), filepath.Join(k.dir, "pod-resources")} {
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

// Stop ends it. It may be called twice.
func (k *Kubelet) Stop() {
	if k.server != nil {
		k.server.Stop()
		k.done.Wait()
		k.server = nil
	}
}

func (k *Kubelet) tell(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	close(k.changed)
	k.changed = make(chan struct{})
}

// Register calls the plugin back before it answers, as kubelet does.
func (k *Kubelet) Register(_ context.Context, r *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	k.mu.Lock()
	k.registrations++
	refuse := k.refuse > 0
	k.refuse--
	k.mu.Unlock()
	if refuse || r.GetVersion() != pluginapi.Version {
		return nil, fmt.Errorf("version %q is refused", r.GetVersion())
	}
	conn, err := dial(filepath.Join(k.Sockets(), r.GetEndpoint()))
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

// List is what kubelet has given to pods.
func (k *Kubelet) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pods, nil
}

// Refuse lets it refuse so many registrations.
func (k *Kubelet) Refuse(n int) { k.tell(func() { k.refuse = n }) }

// Give says what it has given to pods.
func (k *Kubelet) Give(pods ...*podresources.PodResources) {
	k.tell(func() { k.pods = &podresources.ListPodResourcesResponse{PodResources: pods} })
}

// Counts returns how many registrations and lists there have been.
func (k *Kubelet) Counts() (registrations, lists int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.registrations, k.lists
}

// Plugin returns a client of the plugin of a resource.
func (k *Kubelet) Plugin(resource string) pluginapi.DevicePluginClient {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	conn, err := dial(filepath.Join(k.Sockets(), k.registered[resource].GetEndpoint()))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = conn.Close() })
	return pluginapi.NewDevicePluginClient(conn)
}

// Show is what kubelet knows of a resource: names of devices, with - before those that are not healthy, and their NUMA node.
func (k *Kubelet) Show(resource string) string {
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

// Await waits until kubelet knows this of a resource.
func (k *Kubelet) Await(resource, want string) {
	k.t.Helper()
	k.Until(func() bool { return k.Show(resource) == want }, func() string {
		return fmt.Sprintf("kubelet knows of %s: %s\nwant: %s", resource, k.Show(resource), want)
	})
}

// Until waits until something is so, which is looked at again whenever a plugin has said something.
func (k *Kubelet) Until(ok func() bool, otherwise func() string) {
	k.t.Helper()
	late := time.After(time.Minute)
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

func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
}
