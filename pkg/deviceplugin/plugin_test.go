package deviceplugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/reason"
)

const (
	vfs   = "0000:03:00.1@1 0000:03:00.2@1 0000:03:00.3@1"
	slot4 = "many.slot.0@1 many.slot.1@1 many.slot.2@1 many.slot.3@1"
)

// Two resources are offered to a kubelet that comes later, to one that has restarted, with or without removing what it found, and again if
// somebody removes the sockets. What ends with the plugin are its sockets.
func TestKubeletComesAndGoes(t *testing.T) {
	n := newNode()
	k, dir := newKubelet(t)
	_, stop := offer(t, n, dir)
	time.Sleep(20 * time.Millisecond) // so that the directory, and those above it, come while they are waited for
	both := func() {
		t.Helper()
		k.Await("offloadd.io/fast", vfs)
		k.Await("example.com/sf", slot4)
	}
	k.Start()
	both()
	for range 10 {
		k.Stop()
		k.Start()
		both()
	}
	for range 10 { // its socket may have the same inode again
		k.Stop()
		k.Resume()
		both()
	}
	before, _ := k.Counts()
	if err := os.Remove(filepath.Join(k.Sockets(), endpoint("fast"))); err != nil {
		t.Fatal(err)
	}
	k.Until(func() bool {
		now, _ := k.Counts()
		return now > before
	}, func() string { return "it was not registered again after its socket was removed" })
	k.Await("offloadd.io/fast", vfs)

	k.Stop()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	k.Start()
	both()
	stop()
	left, err := os.ReadDir(k.Sockets())
	if err != nil || len(left) != 1 || left[0].Name() != "kubelet.sock" {
		t.Errorf("left when it has ended: %v, %v", left, err)
	}
}

// While nothing happens, nothing is done: kubelet gets no list twice, and no second registration.
func TestQuiet(t *testing.T) {
	n := newNode()
	k, dir := newKubelet(t)
	k.Start()
	offer(t, n, dir)
	k.Await("offloadd.io/fast", vfs)
	k.Await("example.com/sf", slot4)
	for range 20 {
		n.change(func(s *device.Snapshot) { s.Devices[0].Doing += "x" }) // which does not concern kubelet
	}
	if err := os.WriteFile(filepath.Join(k.Sockets(), "other.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if registrations, lists := k.Counts(); registrations != 2 || lists != 2 {
		t.Errorf("%d registrations and %d lists, want 2 and 2", registrations, lists)
	}
}

// A kubelet that refuses is asked again.
func TestRefused(t *testing.T) {
	n := newNode()
	k, dir := newKubelet(t)
	k.Refuse(3)
	k.Start()
	offer(t, n, dir)
	k.Await("offloadd.io/fast", vfs)
	k.Await("example.com/sf", slot4)
}

// Kubelet hears of each change of VFs. Those that pods have stay.
func TestHealthOfVFs(t *testing.T) {
	n := newNode()
	k, dir := newKubelet(t)
	k.Start()
	offer(t, n, dir)
	k.Await("offloadd.io/fast", vfs)
	for _, tt := range []struct {
		what   string
		change func(*device.Snapshot)
		want   string
	}{
		{"a pod has one", func(s *device.Snapshot) { s.Functions[0].State, s.Functions[0].Owner = device.Used, "pods/c1/eth0" }, vfs},
		{"another is quarantined", func(s *device.Snapshot) { s.Functions[1].State = device.Quarantined }, "0000:03:00.1@1 -0000:03:00.2@1 0000:03:00.3@1"},
		{"it is verified again", func(s *device.Snapshot) { s.Functions[1].State = device.Resetting }, vfs},
		{"the mode is legacy", func(s *device.Snapshot) { s.Devices[0].Reason = reason.EswitchNotSwitchdev }, "0000:03:00.1@1 -0000:03:00.2@1 -0000:03:00.3@1"},
		{"there is only what a pod has, and that is gone", func(s *device.Snapshot) {
			s.Functions = s.Functions[:1]
			s.Functions[0].State = device.Gone
		}, "-0000:03:00.1@1"},
		{"there is nothing", func(s *device.Snapshot) { s.Functions = nil }, ""},
		{"everything is back", func(s *device.Snapshot) { *s = newNode().is }, vfs},
	} {
		t.Log(tt.what)
		n.change(tt.change)
		k.Await("offloadd.io/fast", tt.want)
	}
}

// There are as many slots as there can be SFs; as many are healthy as a pod can get, and those that a pod has.
func TestSlots(t *testing.T) {
	n := newNode()
	n.held["many.slot.2"] = "pods/c1/eth0"
	check := func(what, want string) {
		t.Helper()
		var words []string
		for _, u := range list(n.snapshot(), "many", n.holders()) {
			word := u.id[len("many.slot."):]
			if !u.healthy {
				word = "-" + word
			}
			if u.free {
				word += "!"
			}
			words = append(words, word)
		}
		if got := strings.Join(words, " "); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	check("a port that has a slot has no SF yet", "0 1 2 3")
	n.change(func(s *device.Snapshot) { sf(s, 100, device.Used, "pods/c1/eth0"); sf(s, 101, device.Free, "") })
	check("one used, one free, two that can be made", "0! 1 2 3")
	n.change(func(s *device.Snapshot) { sf(s, 102, device.Quarantined, "") })
	check("one quarantined", "0! 1 2 -3")
	n.change(func(s *device.Snapshot) { sf(s, 103, device.Used, "pods/c7/eth0") })
	check("one of a port that has not asked by slot", "0! -1 2 -3")
	n.change(func(s *device.Snapshot) { s.Functions = s.Functions[:5]; s.Pools[1].Reason = reason.PoolExhausted })
	check("two, and the device has no room for more", "0! -1 2 -3")
	n.change(func(s *device.Snapshot) { s.Pools[1].Reason = ""; s.Devices[0].Reason = reason.EswitchNotSwitchdev })
	check("the mode is legacy", "-0 -1 2 -3")
	n.change(func(s *device.Snapshot) { s.Functions[3].State = device.Gone })
	check("and the SF that a port has is gone", "-0 -1 -2 -3")
	n.change(func(s *device.Snapshot) { s.Functions = s.Functions[:3] })
	check("and forgotten, as its port will be", "-0 -1 -2 -3")
}

// Who has a slot may change although no SF does.
func TestHolders(t *testing.T) {
	n := newNode()
	k, dir := newKubelet(t)
	n.is.Pools[1].Reason = reason.PoolExhausted
	sf(&n.is, 100, device.Free, "")
	n.held["many.slot.0"] = "pods/c1/eth0" // which has given its SF back, and is about to be forgotten
	k.Start()
	p, _ := offer(t, n, dir)
	k.Await("example.com/sf", "many.slot.0@1 many.slot.1@1 -many.slot.2@1 -many.slot.3@1")
	n.mu.Lock()
	delete(n.held, "many.slot.0")
	n.mu.Unlock()
	p.Look()
	k.Await("example.com/sf", "many.slot.0@1 -many.slot.1@1 -many.slot.2@1 -many.slot.3@1")
}

// How kubelet is to choose: near what it must take, in one place if that is possible, what is ready, and so that much is left in one place.
func TestPrefer(t *testing.T) {
	var all []unit
	add := func(numa int, pf uint16, ids string) {
		for id := range strings.FieldsSeq(ids) {
			name, busy := strings.CutSuffix(id, "*")
			all = append(all, unit{id: name, numa: numa, pf: pf, free: !busy, healthy: true})
		}
	}
	add(0, 0, "a1 a2* a3")
	add(0, 1, "b1 b2")
	add(1, 2, "c1 c2 c3 c4")
	for _, tt := range []struct {
		available, must string
		size            int
		want            string
	}{
		{"a1 a2 a3 b1 b2 c1 c2 c3 c4", "", 1, "b1"},
		{"a1 a2 a3 b1 b2 c1 c2 c3 c4", "", 2, "b1 b2"},
		{"a1 a2 a3 b1 b2 c1 c2 c3 c4", "", 3, "a1 a3 a2"},
		{"a1 a2 a3 b1 b2 c1 c2 c3 c4", "", 4, "c1 c2 c3 c4"},
		{"a1 a2 a3 b1 b2 c1 c2 c3 c4", "", 5, "a1 a3 a2 b1 b2"},
		{"a1 a2 a3 b1 b2 c1 c2 c3 c4", "a2", 2, "a2 a1"},
		{"a1 b1 b2 c1", "a1", 3, "a1 b1 b2"},
		{"a1 c1 c2", "c1", 3, "c1 c2 a1"},
		{"a2 a3", "", 1, "a3"},
		{"a2 a3", "", 9, "a3 a2"},
		{"x1 a1", "", 2, "a1"},
	} {
		got := strings.Join(prefer(all, strings.Fields(tt.available), strings.Fields(tt.must), tt.size), " ")
		if got != tt.want {
			t.Errorf("%d of %s with %q: %s, want %s", tt.size, tt.available, tt.must, got, tt.want)
		}
	}
}

// A container learns what it has got, and Multus what is known of a VF.
func TestAllocate(t *testing.T) {
	n := newNode()
	k, dir := newKubelet(t)
	k.Start()
	p, stop := offer(t, n, dir)
	k.Await("offloadd.io/fast", vfs)
	k.Await("example.com/sf", slot4)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	fast := k.Plugin("offloadd.io/fast")
	preferred, err := fast.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{
		{AvailableDeviceIDs: []string{"0000:03:00.3", "0000:03:00.2", "0000:03:00.1"}, MustIncludeDeviceIDs: []string{"0000:03:00.3"}, AllocationSize: 2},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ids := preferred.GetContainerResponses()[0].GetDeviceIDs()
	if want := []string{"0000:03:00.3", "0000:03:00.1"}; !slices.Equal(ids, want) {
		t.Errorf("preferred: %v, want %v", ids, want)
	}
	allocate := func(c pluginapi.DevicePluginClient, ids ...string) (map[string]string, error) {
		r, err := c.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: ids}}})
		if err != nil {
			return nil, err
		}
		return r.GetContainerResponses()[0].GetEnvs(), nil
	}
	envs, err := allocate(fast, ids...)
	if diff := cmp.Diff(map[string]string{"PCIDEVICE_OFFLOADD_IO_FAST": "0000:03:00.3,0000:03:00.1"}, envs); err != nil || diff != "" {
		t.Errorf("a container with two VFs: %v, want -, got +:\n%s", err, diff)
	}
	all, err := fast.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{
		{DevicesIds: []string{"0000:03:00.1", "0000:03:00.3"}}, {DevicesIds: []string{"0000:03:00.1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	node := func(name string) *pluginapi.DeviceSpec {
		return &pluginapi.DeviceSpec{HostPath: name, ContainerPath: name, Permissions: "rw"}
	}
	nodes := [][]*pluginapi.DeviceSpec{{node("uverbs1"), node("rdma_cm"), node("uverbs3")}, {node("uverbs1"), node("rdma_cm")}}
	for i, r := range all.GetContainerResponses() {
		if diff := cmp.Diff(nodes[i], r.GetDevices(), protocmp.Transform()); diff != "" {
			t.Errorf("the device nodes of container %d: want -, got +:\n%s", i, diff)
		}
	}
	envs, err = allocate(k.Plugin("example.com/sf"), "many.slot.3")
	if diff := cmp.Diff(map[string]string{"SFDEVICE_EXAMPLE_COM_SF": "many.slot.3"}, envs); err != nil || diff != "" {
		t.Errorf("a container with an SF: %v, want -, got +:\n%s", err, diff)
	}
	if _, err := allocate(fast, "0000:03:00.9"); status.Code(err) != codes.NotFound {
		t.Errorf("a VF that does not exist: %v", err)
	}

	file := filepath.Join(p.InfoDir, "offloadd.io-fast-0000:03:00.3-device.json")
	text, err := os.ReadFile(file)
	want := `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:00.3","pf-pci-address":"0000:03:00.0","representor-device":"rep2","rdma-device":"mlx5_3"}}`
	if err != nil || string(text) != want {
		t.Errorf("device information: %s, %v, want %s", text, err, want)
	}
	files, err := os.ReadDir(p.InfoDir)
	if err != nil || len(files) != 2 {
		t.Errorf("files with device information: %v, %v, want those of two VFs", files, err)
	}

	// Files of VFs that are no more do not outlive a restart.
	stop()
	n.change(func(s *device.Snapshot) { s.Functions = s.Functions[:1] })
	next := New(p.Options)
	(&server{plugin: next, pool: "fast", resource: "offloadd.io/fast"}).forgetInfo()
	files, err = os.ReadDir(p.InfoDir)
	if err != nil || len(files) != 1 || files[0].Name() != "offloadd.io-fast-0000:03:00.1-device.json" {
		t.Errorf("files with device information after a restart: %v, %v", files, err)
	}
}

// Kubelet is told nothing before it is known what there is.
func TestNotKnownYet(t *testing.T) {
	n := newNode()
	k, dir := newKubelet(t)
	n.is.Pools[0].Reason = reason.NotReady
	n.is.Functions = nil
	k.Start()
	offer(t, n, dir)
	k.Await("example.com/sf", slot4)
	if got := k.Show("offloadd.io/fast"); got != "not registered" {
		t.Fatalf("before the device has been read kubelet knows %q", got)
	}
	n.change(func(s *device.Snapshot) { *s = newNode().is })
	k.Await("offloadd.io/fast", vfs)
}

func TestAllocations(t *testing.T) {
	k, dir := newKubelet(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	resources := map[string]bool{"offloadd.io/fast": true}
	if all, err := Allocations(ctx, dir, resources); err == nil {
		t.Errorf("without kubelet: %v", all)
	}
	k.Give(&podresources.PodResources{
		Namespace: "default", Name: "web", Containers: []*podresources.ContainerResources{{Name: "main", Devices: []*podresources.ContainerDevices{
			{ResourceName: "offloadd.io/fast", DeviceIds: []string{"0000:03:00.1", "0000:03:00.2"}}, {ResourceName: "nvidia.com/gpu", DeviceIds: []string{"0"}},
		}}},
	}, &podresources.PodResources{Namespace: "default", Name: "idle"})
	k.Start()
	all, err := Allocations(ctx, dir, resources)
	if err != nil {
		t.Fatal(err)
	}
	want := []Allocation{{"default", "web", "main", "offloadd.io/fast", "0000:03:00.1"}, {"default", "web", "main", "offloadd.io/fast", "0000:03:00.2"}}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestCheck(t *testing.T) {
	long := strings.Repeat("x", 63)
	if err := Check(DefaultKubeletDir, []device.Pool{{Name: "fast"}}); err != nil {
		t.Error(err)
	}
	err := Check(DefaultKubeletDir, []device.Pool{{Name: "fast"}, {Name: long}})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("offloadd-%s.sock", long)) {
		t.Errorf("a name that is too long: %v", err)
	}
}
