package api

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A DeviceDetails is what a driver says of a device when it is asked.
type DeviceDetails struct {
	Info      *devlink.Info // nil: it does not tell
	Eswitch   devlink.Eswitch
	Reporters []*devlink.Reporter
	Refused   []error // what it does not tell, and has refused to
}

// A Leftover is something that does not fit together. See the message.
type Leftover struct{ Where, Name, Cause, Remedy string }

// As in enum.go.
var (
	functionKinds = map[offloadv1.FunctionKind]device.Kind{
		offloadv1.FunctionKind_FUNCTION_KIND_VF: device.VF,
		offloadv1.FunctionKind_FUNCTION_KIND_SF: device.SF,
	}
	functionStates = map[offloadv1.FunctionState]device.State{
		offloadv1.FunctionState_FUNCTION_STATE_UNKNOWN:     device.Unknown,
		offloadv1.FunctionState_FUNCTION_STATE_WARMING:     device.Warming,
		offloadv1.FunctionState_FUNCTION_STATE_FREE:        device.Free,
		offloadv1.FunctionState_FUNCTION_STATE_USED:        device.Used,
		offloadv1.FunctionState_FUNCTION_STATE_RESETTING:   device.Resetting,
		offloadv1.FunctionState_FUNCTION_STATE_QUARANTINED: device.Quarantined,
		offloadv1.FunctionState_FUNCTION_STATE_REMOVING:    device.Removing,
		offloadv1.FunctionState_FUNCTION_STATE_GONE:        device.Gone,
		offloadv1.FunctionState_FUNCTION_STATE_UNMANAGED:   device.Unmanaged,
	}
)

// eswitchMode converts: the modes are numbered alike, by package devlink and by us.
func eswitchMode(m devlink.EswitchMode) offloadv1.EswitchMode {
	if m > devlink.ModeSwitchdevInactive {
		return 0 // of a newer kernel
	}
	return offloadv1.EswitchMode(m)
}

func deviceMessage(s device.Status) *offloadv1.Device {
	return &offloadv1.Device{
		Handle:   s.Handle.String(),
		Mode:     eswitchMode(s.Mode),
		Uplink:   s.Uplink.Name,
		Numa:     int32(s.NUMA),
		Vfs:      uint32(s.VFs),
		TotalVfs: uint32(s.TotalVFs),
		Doing:    s.Doing,
		Reason:   string(s.Reason),
		Message:  s.Message,
	}
}

func functionStatusMessage(f device.FunctionStatus) *offloadv1.Function {
	m := &offloadv1.Function{
		Kind:        number(functionKinds, f.Kind),
		Pf:          uint32(f.PF),
		Number:      f.Number,
		Pool:        f.Pool,
		Parent:      f.Handle.Handle.String(),
		Device:      f.Device,
		Bus:         f.Bus,
		Representor: f.Representor.Name,
		Netdev:      f.Netdev.Name,
		Numa:        int32(f.NUMA),
		State:       number(functionStates, f.State),
		Owner:       f.Owner,
		Reason:      string(f.Reason),
		Message:     f.Message,
		Since:       timestamp(f.Since),
		Generation:  f.Generation,
	}
	if f.Representor.Index != 0 { // the port of one that is being made, or is gone, has no number
		m.Port = f.Handle.String()
	}
	return m
}

// functionKey orders functions as the .proto file promises.
func functionKey(f device.FunctionStatus) string {
	return fmt.Sprintf("%s\x00%05d\x00%s\x00%010d", f.Handle.Handle, f.PF, f.Kind, f.Number)
}

func poolMessage(p device.PoolStatus, resource string) *offloadv1.Pool {
	m := &offloadv1.Pool{
		Name:     p.Name,
		Device:   p.Device,
		Kind:     number(functionKinds, p.Kind),
		Capacity: uint32(p.Capacity),
		MinWarm:  uint32(p.MinWarm),
		MaxWarm:  uint32(p.MaxWarm),
		Reason:   string(p.Reason),
		Message:  p.Message,
		Resource: resource,
		Roce:     p.RoCE,
		MaxIoEqs: p.MaxIOEQs,
	}
	if p.Handle != (devlink.Handle{}) {
		m.Handle = p.Handle.String()
	}
	for s, n := range p.Counts {
		if n > 0 {
			if m.Counts == nil {
				m.Counts = map[string]uint32{}
			}
			m.Counts[string(s)] = uint32(n)
		}
	}
	return m
}

func planMessage(p device.Plan) *offloadv1.Plan {
	return &offloadv1.Plan{Steps: p.Steps, Removes: p.Removes, Affected: p.Affected}
}

func leftoverMessage(l Leftover) *offloadv1.Leftover {
	return &offloadv1.Leftover{Where: l.Where, Name: l.Name, Cause: l.Cause, Remedy: l.Remedy}
}

func detailsMessage(s device.Status, d DeviceDetails) *offloadv1.GetDeviceResponse {
	m := &offloadv1.GetDeviceResponse{Device: deviceMessage(s)}
	if d.Eswitch.Mode != 0 {
		m.Device.Mode = eswitchMode(d.Eswitch.Mode)
	}
	if d.Eswitch.Inline != 0 {
		m.InlineMode = d.Eswitch.Inline.String()
	}
	if d.Eswitch.Encap != 0 {
		m.EncapMode = d.Eswitch.Encap.String()
	}
	if i := d.Info; i != nil {
		m.Info = &offloadv1.DeviceInfo{
			Driver: i.Driver, Serial: i.Serial, BoardSerial: i.BoardSerial,
			Fixed: versionMessages(i.Fixed), Running: versionMessages(i.Running), Stored: versionMessages(i.Stored),
		}
	}
	for _, r := range d.Reporters {
		h := &offloadv1.HealthReporter{
			Name: r.Name, Healthy: r.State == devlink.Healthy, Errors: r.Errors, Recoveries: r.Recoveries, LastDump: timestamp(unixNano(r.LastDump)),
		}
		if r.Port != nil {
			h.Port = r.Handle.Port(*r.Port).String()
		}
		m.Reporters = append(m.Reporters, h)
	}
	for _, err := range d.Refused {
		m.Refused = append(m.Refused, err.Error())
	}
	return m
}

func versionMessages(all []devlink.Version) []*offloadv1.DeviceVersion {
	var out []*offloadv1.DeviceVersion
	for _, v := range all {
		out = append(out, &offloadv1.DeviceVersion{Name: v.Name, Value: v.Value})
	}
	return out
}

// A functionFilter selects functions.
type functionFilter struct {
	parent, pool, owner string
	kind                device.Kind
	states              []device.State // none: any
}

func parseFunctionFilter(m *offloadv1.FunctionFilter) (functionFilter, error) {
	var p parser
	f := functionFilter{
		parent: p.bound("filter.parent", m.GetParent(), maxNameBytes),
		pool:   p.bound("filter.pool", m.GetPool(), maxNameBytes),
		owner:  p.bound("filter.owner", m.GetOwner(), maxNameBytes),
		kind:   enum(&p, "filter.kind", functionKinds, m.GetKind()),
	}
	for i, e := range m.GetStates() {
		path := at("filter.states", i)
		f.states = append(f.states, enum(&p, path, functionStates, e))
		if e == 0 {
			p.refuse(path, "is unspecified")
		}
	}
	return f, p.err()
}

func (f functionFilter) selects(s device.FunctionStatus) bool {
	named := func(want, have string) bool { return want == "" || want == have }
	return named(f.parent, s.Handle.Handle.String()) && named(f.pool, s.Pool) && named(f.owner, s.Owner) &&
		named(string(f.kind), string(s.Kind)) && (f.states == nil || slices.Contains(f.states, s.State))
}

// findDevice returns the device that a handle, or the name of a PF's netdev, means.
func findDevice(s device.Snapshot, name string) (device.Status, error) {
	if name == "" {
		return device.Status{}, required("device")
	}
	i := slices.IndexFunc(s.Devices, func(d device.Status) bool {
		return d.Handle.String() == name || d.Uplink.Name == name
	})
	if i < 0 {
		return device.Status{}, reason.Errorf(reason.DeviceNotFound, "api device %.64q: there is none with an embedded switch", name)
	}
	return s.Devices[i], nil
}

// portHandle takes the name of a function's port.
func (p *parser) portHandle(path, s string) devlink.PortHandle {
	h, err := devlink.ParsePortHandle(p.bound(path, s, maxNameBytes))
	switch {
	case s == "":
		p.refuse(path, "is required")
	case err != nil:
		p.refuse(path, "%v", err)
	}
	return h
}

// inUse adds to the error of an operation that ports stand in the way of who they are.
func inUse(plan device.Plan, err error) error {
	const most = 32
	e, ok := errors.AsType[*reason.Error](err)
	if !ok || e.Reason != reason.FunctionsInUse || len(plan.Affected) == 0 {
		return err
	}
	names := strings.Join(plan.Affected[:min(most, len(plan.Affected))], ", ")
	if n := len(plan.Affected) - most; n > 0 {
		names += fmt.Sprintf(", and %d more", n)
	}
	metadata := maps.Clone(e.Metadata)
	return (&reason.Error{Reason: e.Reason, Err: err, Metadata: metadata}).With("ports", names)
}

func compareLeftovers(a, b Leftover) int {
	return cmp.Or(cmp.Compare(a.Where, b.Where), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Cause, b.Cause))
}
