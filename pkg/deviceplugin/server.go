package deviceplugin

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// A server is what kubelet calls about a resource.
type server struct {
	pluginapi.UnimplementedDevicePluginServer
	plugin         *Plugin
	pool, resource string
}

func options() *pluginapi.DevicePluginOptions {
	return &pluginapi.DevicePluginOptions{GetPreferredAllocationAvailable: true}
}

// GetDevicePluginOptions tells kubelet what Register has told it.
func (r *server) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return options(), nil
}

// units returns what there is, and what is closed when that may change.
func (r *server) units() ([]unit, <-chan struct{}) {
	s := r.plugin.Snapshot()
	return list(s, r.pool, r.plugin.Held()), s.Changed
}

// ListAndWatch tells kubelet what there is, and each change.
func (r *server) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	var told *pluginapi.ListAndWatchResponse
	for {
		held := r.plugin.held.wait()
		units, changed := r.units()
		now := &pluginapi.ListAndWatchResponse{}
		for _, u := range units {
			now.Devices = append(now.Devices, u.message())
		}
		if told == nil || !proto.Equal(told, now) {
			if err := stream.Send(now); err != nil {
				return err
			}
			told = now
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-changed:
		case <-held:
		}
	}
}

func (u unit) message() *pluginapi.Device {
	d := &pluginapi.Device{ID: u.id, Health: pluginapi.Unhealthy}
	if u.healthy {
		d.Health = pluginapi.Healthy
	}
	if u.numa >= 0 {
		d.Topology = &pluginapi.TopologyInfo{Nodes: []*pluginapi.NUMANode{{ID: int64(u.numa)}}}
	}
	return d
}

// GetPreferredAllocation chooses among units that are all the same to kubelet.
func (r *server) GetPreferredAllocation(_ context.Context, req *pluginapi.PreferredAllocationRequest) (*pluginapi.PreferredAllocationResponse, error) {
	units, _ := r.units()
	answer := &pluginapi.PreferredAllocationResponse{}
	for _, c := range req.GetContainerRequests() {
		answer.ContainerResponses = append(answer.ContainerResponses, &pluginapi.ContainerPreferredAllocationResponse{
			DeviceIDs: prefer(units, c.GetAvailableDeviceIDs(), c.GetMustIncludeDeviceIDs(), int(c.GetAllocationSize())),
		})
	}
	return answer, nil
}

// Allocate tells a container's environment what it has got, and gives it the device nodes of RDMA devices of VFs. Which SF a slot will be is not
// known yet. Nothing is done to a function: that is for the CNI plugin, which is told by
// whoever calls it.
func (r *server) Allocate(_ context.Context, req *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	units, _ := r.units()
	answer := &pluginapi.AllocateResponse{}
	for _, c := range req.GetContainerRequests() {
		name := "SFDEVICE_"
		given := &pluginapi.ContainerAllocateResponse{}
		for _, id := range c.GetDevicesIds() {
			i := slices.IndexFunc(units, func(u unit) bool { return u.id == id })
			if i < 0 {
				return nil, status.Errorf(codes.NotFound, "deviceplugin allocate %s: there is no %.64q", r.resource, id)
			}
			if units[i].function != nil {
				name = "PCIDEVICE_"
				r.writeInfo(units[i])
				r.addNodes(given, units[i])
			}
		}
		given.Envs = map[string]string{name + variable(r.resource): strings.Join(c.GetDevicesIds(), ",")}
		answer.ContainerResponses = append(answer.ContainerResponses, given)
	}
	return answer, nil
}

// addNodes gives a container the device nodes of a VF. Some are of several VFs, and a container gets those once.
func (r *server) addNodes(given *pluginapi.ContainerAllocateResponse, u unit) {
	if r.plugin.RDMANodes == nil {
		return
	}
	for _, path := range r.plugin.RDMANodes(*u.function) {
		if !slices.ContainsFunc(given.Devices, func(d *pluginapi.DeviceSpec) bool { return d.HostPath == path }) {
			given.Devices = append(given.Devices, &pluginapi.DeviceSpec{HostPath: path, ContainerPath: path, Permissions: "rw"})
		}
	}
}

// variable is the name of a resource as part of that of a variable, as the SR-IOV device plugin writes it.
func variable(resource string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToUpper(resource))
}
