package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/devlink/devlinktest"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
)

func TestPluginConfig(t *testing.T) {
	pools := []device.Pool{{Name: "fast", Device: "p0", Kind: device.VF}, {Name: "many", Device: "p0", Kind: device.SF, Max: 4}}
	for _, tt := range []struct {
		change func(*PluginConfig)
		want   string // of the error; "": none
	}{
		{func(*PluginConfig) {}, ""},
		{func(c *PluginConfig) { c.Resources = map[string]string{"fast": "example.com/NIC_fast.1"} }, ""},
		{func(c *PluginConfig) { c.Resources = map[string]string{"slow": "example.com/slow"} }, `no pool "slow"`},
		{func(c *PluginConfig) {
			c.Resources = map[string]string{"fast": "example.com/x", "many": "example.com/x"}
		}, "pools fast and many"},
		{func(c *PluginConfig) { c.KubeletDir = "kubelet" }, "not an absolute path"},
		{func(c *PluginConfig) { c.KubeletDir = "/" + strings.Repeat("x", 80) }, "the path of a socket"},
		{func(c *PluginConfig) { c.Prefix = "kubernetes.io" }, "Kubernetes' own"},
		{func(c *PluginConfig) { c.Prefix = "" }, "not DOMAIN/NAME"},
		{func(c *PluginConfig) { c.Prefix = "Offloadd.io" }, "no domain"},
		{func(c *PluginConfig) { c.Prefix = "-x.io" }, "no domain"},
		{func(c *PluginConfig) { c.Resources = map[string]string{"fast": "example.com/x/y"} }, "other characters"},
		{func(c *PluginConfig) { c.Resources = map[string]string{"fast": "example.com/x-"} }, "other characters"},
		{func(c *PluginConfig) {
			c.Resources = map[string]string{"fast": "example.com/" + strings.Repeat("x", 64)}
		}, "too long"},
		{func(c *PluginConfig) { c.Prefix, c.Enabled = "", false }, ""},
	} {
		c := DefaultConfig()
		c.Pools = pools
		c.DevicePlugin.Enabled = true
		tt.change(&c.DevicePlugin)
		_, err := c.Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", c.DevicePlugin, err, tt.want)
		}
	}
	c := DefaultConfig()
	c.Pools = pools
	if got := c.offered(); len(got) != 0 {
		t.Errorf("by default %v is offered", got)
	}
	c.DevicePlugin.Enabled, c.DevicePlugin.Resources = true, map[string]string{"many": "example.com/sf"}
	if diff := cmp.Diff(map[string]string{"fast": "offloadd.io/fast", "many": "example.com/sf"}, c.offered()); diff != "" {
		t.Errorf("offered: want -, got +:\n%s", diff)
	}
}

// A pods is the part of kubelet that tells what pods have been given.
type pods struct {
	podresources.UnimplementedPodResourcesListerServer
	list func() *podresources.ListPodResourcesResponse
}

func (p pods) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	return p.list(), nil
}

func servePods(t *testing.T, dir string, list func() *podresources.ListPodResourcesResponse) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "pod-resources"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "pod-resources", "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(s, pods{list: list})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
}

func given(pod string, ids ...string) *podresources.PodResources {
	return &podresources.PodResources{Namespace: "default", Name: pod, Containers: []*podresources.ContainerResources{{
		Name: "main", Devices: []*podresources.ContainerDevices{{ResourceName: "offloadd.io/many", DeviceIds: ids}, {ResourceName: "nvidia.com/gpu", DeviceIds: []string{"0"}}},
	}}}
}

// port is one that has asked for a device by name, "": for none.
func portWith(container, asked string) ports.Port {
	return ports.Port{State: ports.Ready, Spec: ports.Spec{Key: ports.Key{Network: "pods", ContainerID: container, Ifname: "eth0"}, Device: asked}}
}

// An audit tells of everything once, with what can be done about it, and of what kubelet says only if that stays so.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	pools, err := device.Check([]device.Pool{{Name: "many", Device: "pci/0000:03:00.0", Kind: device.SF, Max: 4}})
	if err != nil {
		t.Fatal(err)
	}
	feed := ports.NewFeed()
	asked := 0
	n := &nics{
		Inventory: device.New(device.Options{Pools: pools}), offered: map[string]string{"many": "offloadd.io/many"}, kubelet: dir, feed: feed, settle: time.Millisecond,
		audit: func(context.Context) ([]ports.Leftover, error) {
			return []ports.Leftover{
				{Where: "link", Name: "veth1", Cause: "of no port"},
				{Where: "interface", Name: "it's; veth2", Cause: "of no port; its mark says x"},
				{Where: "function", Name: "pci/0000:03:00.0/2 (pf0vf1)", Cause: "quarantined: FUNCTION_NOT_RESTORED: x"},
				{Where: "function", Name: "pci/0000:03:00.0/3 (pf0vf2)", Cause: "its owner pods/c9/eth0 is no port"},
				{Where: "journal", Name: "pods/c3/eth0", Cause: "its Interface rep3 does not exist"},
			}, nil
		},
		filters: func(_ context.Context, f api.FilterFilter, yield func(api.Filter) error) error {
			if len(f.States) != 1 || f.States[0] != api.FilterForeign {
				return fmt.Errorf("asked for %v", f.States)
			}
			return yield(api.Filter{Text: "chain 5 pref 7 protocol ip flower"})
		},
	}
	const none = "it does not tell"
	show := func() string {
		t.Helper()
		all, err := n.Leftovers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, l := range all[6:] {
			if strings.Contains(l.Cause, none) {
				l.Cause = none
			}
			lines = append(lines, l.Where+" "+l.Name+": "+l.Cause)
		}
		return strings.Join(lines, "\n")
	}
	all, err := n.Leftovers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Leftover{
		{Where: "link", Name: "veth1", Cause: "of no port", Remedy: "ip link del veth1"},
		{Where: "interface", Name: "it's; veth2", Cause: "of no port; its mark says x", Remedy: `ovs-vsctl --if-exists del-port 'it'\''s; veth2'`},
		{Where: "function", Name: "pci/0000:03:00.0/2 (pf0vf1)", Cause: "quarantined: FUNCTION_NOT_RESTORED: x", Remedy: "offloadctl device release pci/0000:03:00.0/2"},
		{Where: "function", Name: "pci/0000:03:00.0/3 (pf0vf2)", Cause: "its owner pods/c9/eth0 is no port"},
		{Where: "journal", Name: "pods/c3/eth0", Cause: "its Interface rep3 does not exist"},
		{Where: "filter", Name: "chain 5 pref 7 protocol ip flower", Cause: "somebody else has put it where ours are; it is left alone"},
	}
	if diff := cmp.Diff(want, all[:min(6, len(all))]); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if got := show(); got != "kubelet "+dir+": "+none {
		t.Errorf("without kubelet: %s", got)
	}

	servePods(t, dir, func() *podresources.ListPodResourcesResponse {
		asked++
		r := &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{given("web", "many.slot.0", "many.slot.1")}}
		if asked == 1 { // another pod is just ending
			r.PodResources = append(r.PodResources, given("over", "many.slot.3"))
		}
		return r
	})
	feed.Put(portWith("c1", "many.slot.0"))
	feed.Put(portWith("c2", "many.slot.2"))
	feed.Put(portWith("c3", "0000:03:00.7")) // which was never offered
	feed.Put(portWith("c4", ""))
	wantText := "kubelet default/web/main: it has been given offloadd.io/many many.slot.1, which no port has\n" +
		"kubelet pods/c2/eth0: the port has many.slot.2, which kubelet has given to nobody, and may give to a pod"
	if got := show(); got != wantText {
		t.Errorf("two disputes:\n%s\nwant:\n%s", got, wantText)
	}
	feed.Put(portWith("c5", "many.slot.1"))
	feed.Remove(portWith("c2", "").Spec.Key)
	if got := show(); got != "" {
		t.Errorf("everybody agrees, but: %s", got)
	}

	n.offered = nil
	feed.Remove(portWith("c1", "").Spec.Key)
	if got := show(); got != "" {
		t.Errorf("nothing is offered to kubelet, but: %s", got)
	}
	n.filters = func(context.Context, api.FilterFilter, func(api.Filter) error) error {
		return reason.Errorf(reason.FeatureUnsupported, "offload is off")
	}
	if all, err := n.Leftovers(t.Context()); err != nil || len(all) != 5 {
		t.Errorf("without filters of ours: %v, %v", all, err)
	}
	n.filters = func(context.Context, api.FilterFilter, func(api.Filter) error) error { return errors.New("no") }
	if all, err := n.Leftovers(t.Context()); err == nil {
		t.Errorf("the filters cannot be read, and yet: %v", all)
	}
}

// Functions of no pool are told of where others are of one: where nobody has configured anything they are somebody else's.
func TestUnmanaged(t *testing.T) {
	h, other := devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}, devlink.Handle{Bus: "pci", Dev: "0000:04:00.0"}
	s := device.Snapshot{Pools: []device.PoolStatus{{Handle: h}}}
	for _, h := range []devlink.Handle{h, other} {
		for i, state := range []device.State{device.Free, device.Unmanaged} {
			s.Functions = append(s.Functions, device.FunctionStatus{State: state, Function: device.Function{Handle: h.Port(uint32(i)), Kind: device.VF, Number: uint32(i)}})
		}
	}
	all := unmanaged(s)
	if len(all) != 1 || all[0].Name != "pci/0000:03:00.0/1 (pf0vf1)" {
		t.Errorf("unmanaged: %v, want VF 1 of the first device", all)
	}
}

// On a kernel without devlink there is nothing, which is an answer.
func TestNoNICs(t *testing.T) {
	attached, err := ports.New(ports.Options{StateDir: t.TempDir(), OVSDatabase: "unix:/nonexistent", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n := NewNICs(DefaultConfig(), nil, attached, NewFlows(nil), slog.New(slog.DiscardHandler))
	if s := n.Snapshot(); len(s.Devices)+len(s.Functions)+len(s.Pools) != 0 || s.Revision == 0 {
		t.Errorf("snapshot: %+v", s)
	}
	_, err = n.SetVFs(t.Context(), devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}, 4, true)
	if reason.Of(err) != reason.DeviceNotFound {
		t.Errorf("VFs of a device that there is not: %v", err)
	}
}

// What a driver does not have is left out; what it refuses is told; and a device that is not there is none.
func TestDescribe(t *testing.T) {
	k := devlinktest.NewKernel(t)
	h := devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}
	k.Device(devlink.Info{Handle: h, Driver: "mlx5_core"}, devlink.Eswitch{Mode: devlink.ModeSwitchdev, Inline: devlink.InlineNone})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d, err := describe(ctx, k.Conn(), h)
	if err != nil || d.Info == nil || d.Info.Driver != "mlx5_core" || d.Eswitch.Mode != devlink.ModeSwitchdev || d.Eswitch.Inline != devlink.InlineNone {
		t.Errorf("describe: %+v, %v", d, err)
	}
	if d, err := describe(ctx, k.Conn(), devlink.Handle{Bus: "pci", Dev: "0000:09:00.0"}); reason.Of(err) != reason.DeviceGone {
		t.Errorf("a device that is not there: %+v, %v", d, err)
	}
}

// The plugin looks again after each change of ports.
func TestOnChanges(t *testing.T) {
	feed := ports.NewFeed()
	looked := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		onChanges(ctx, feed, func() { looked <- struct{}{} })
	}()
	for i := range 3 {
		for done := false; !done; { // until it follows
			feed.Put(portWith(fmt.Sprint("c", i), ""))
			select {
			case <-looked:
				done = true
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	cancel()
	for {
		select {
		case <-looked:
			continue
		case <-ended:
		}
		return
	}
}
