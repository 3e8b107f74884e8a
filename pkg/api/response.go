package api

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/ports"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// timestamp returns nil for the zero Time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// texts returns what String returns for each, "" for values that are not valid.
func texts[T interface {
	fmt.Stringer
	IsValid() bool
}](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, text(v))
	}
	return out
}

func text[T interface {
	fmt.Stringer
	IsValid() bool
}](v T) string {
	if !v.IsValid() {
		return ""
	}
	return v.String()
}

func portMessage(p ports.Port) *offloadv1.Port {
	m := &offloadv1.Port{Spec: specMessage(p.Spec), Revision: p.Revision}
	if p.State == "" {
		return m // of a call that only validates
	}
	m.Status = &offloadv1.PortStatus{
		State:         number(states, p.State),
		Reason:        string(p.Reason),
		Message:       p.Message,
		HostInterface: p.HostInterface,
		Mac:           p.MAC.String(),
		Addresses:     texts(p.Addresses),
		Gateways:      texts(p.Gateways),
		Routes:        routeMessages(p.Routes),
		Mtu:           uint32(p.MTU),
		Ofport:        p.OFPort,
		Zone:          uint32(p.Zone),
		Created:       timestamp(p.Created),
		Kind:          number(kinds, p.Kind),
		FellBack:      p.FellBack,
		Function:      functionMessage(p.Function),
	}
	for _, s := range p.Timeline {
		step := &offloadv1.Step{Name: s.Name, Started: timestamp(s.Started)}
		if s.Duration >= 0 {
			step.Duration = durationpb.New(s.Duration)
		}
		m.Status.Timeline = append(m.Status.Timeline, step)
	}
	return m
}

func specMessage(s ports.Spec) *offloadv1.PortSpec {
	return &offloadv1.PortSpec{
		Key:         &offloadv1.PortKey{Network: s.Key.Network, ContainerId: s.Key.ContainerID, Ifname: s.Key.Ifname},
		Netns:       s.Netns,
		Kind:        number(kinds, s.Kind),
		LogicalPort: s.LogicalPort,
		IfaceIdVer:  s.IfaceIDVer,
		Addressing:  number(addressings, s.Addressing),
		Mac:         s.MAC.String(),
		Addresses:   texts(s.Addresses),
		Gateways:    texts(s.Gateways),
		Routes:      routeMessages(s.Routes),
		Mtu:         uint32(s.MTU),
		Labels:      s.Labels,
		Fallback:    kindMessages(s.Fallback),
		Pool:        s.Pool,
		Device:      s.Device,
		Attributes:  attributesMessage(s.Attributes),
	}
}

func kindMessages(all []ports.Kind) []offloadv1.PortKind {
	var out []offloadv1.PortKind
	for _, k := range all {
		out = append(out, number(kinds, k))
	}
	return out
}

// attributesMessage returns nil if there are none.
func attributesMessage(a ports.Attributes) *offloadv1.FunctionAttributes {
	if a == (ports.Attributes{}) {
		return nil
	}
	m := &offloadv1.FunctionAttributes{
		Vlan:         uint32(a.VLAN),
		Qos:          uint32(a.QoS),
		VlanProtocol: number(vlanProtocols, a.VLANProto),
		Trust:        a.Trust,
		SpoofCheck:   a.SpoofCheck,
		LinkState:    number(linkStates, a.LinkState),
		MinRate:      a.MinRate,
		MaxRate:      a.MaxRate,
		Rdma:         a.RDMA,
	}
	if a.GUID != nil {
		m.InfinibandGuid = a.GUID.String()
	}
	return m
}

// functionMessage returns nil for nil.
func functionMessage(f *device.Function) *offloadv1.PortFunction {
	if f == nil {
		return nil
	}
	return &offloadv1.PortFunction{
		Device:      f.Device,
		Bus:         f.Bus,
		Pool:        f.Pool,
		DevlinkPort: f.Handle.String(),
		Pf:          uint32(f.PF),
		Number:      f.Number,
		Numa:        int32(f.NUMA),
		Generation:  f.Generation,
		RdmaDevice:  f.RDMA,
	}
}

func routeMessages(routes []ports.Route) []*offloadv1.Route {
	var out []*offloadv1.Route
	for _, r := range routes {
		out = append(out, &offloadv1.Route{
			Destination: text(r.Destination),
			Gateway:     text(r.Gateway),
			Mtu:         uint32(r.MTU),
			Advmss:      uint32(r.AdvMSS),
			Metric:      r.Metric,
		})
	}
	return out
}

func problemMessages(problems []ports.Problem) []*offloadv1.Problem {
	var out []*offloadv1.Problem
	for _, p := range problems {
		out = append(out, &offloadv1.Problem{Reason: string(p.Reason), Message: p.Message})
	}
	return out
}

func infoMessage(id Identity) *offloadv1.GetInfoResponse {
	capabilities := slices.Clone(id.Capabilities)
	slices.Sort(capabilities)
	return &offloadv1.GetInfoResponse{
		ApiVersions:    []string{string(offloadv1.File_offload_v1_port_proto.Package())},
		Capabilities:   capabilities,
		Build:          &offloadv1.Build{Version: id.Version, Commit: id.Commit, Go: id.GoVersion},
		Started:        timestamp(id.Started),
		BootId:         id.BootID,
		Hostname:       id.Hostname,
		Chassis:        id.Chassis,
		SchemaVersions: id.Schemas,
		KernelVersion:  id.Kernel,
		OvsVersion:     id.OVS,
		NorthdVersion:  id.Northd,
	}
}

func statusMessage(s Status, health []Health) *offloadv1.GetStatusResponse {
	m := &offloadv1.GetStatusResponse{
		Chassis: s.Chassis,
		Bridge: &offloadv1.Bridge{
			Name:          s.Bridge.Name,
			Connected:     s.Bridge.Connected,
			FlowsDesired:  uint64(s.Bridge.Desired),
			FlowsRefused:  uint64(s.Bridge.Refused),
			GroupsDesired: uint64(s.Bridge.Groups),
			MetersDesired: uint64(s.Bridge.Meters),
			FlowModsSent:  s.Bridge.Sent,
			Installed:     s.Bridge.Installed,
		},
		Turn:           s.Turn,
		AckedTurn:      s.AckedTurn,
		NbCfg:          s.NBCfg,
		LocalDatapaths: uint64(s.Datapaths),
		LocalPorts:     uint64(s.Ports),
		Tunnels:        uint64(s.Tunnels),
		RowsRefused:    uint64(s.RowsRefused),
		Offload:        offloadMessage(s.Offload),
	}
	for _, h := range health {
		m.Subsystems = append(m.Subsystems, &offloadv1.Subsystem{
			Name:    string(h.Subsystem),
			Serving: h.Reason == "",
			Reason:  string(h.Reason),
			Message: h.Message,
			Since:   timestamp(h.Since),
		})
	}
	for _, db := range slices.SortedFunc(slices.Values(s.Databases), func(a, b Database) int { return cmp.Compare(a.Name, b.Name) }) {
		d := &offloadv1.Database{Name: db.Name, Remote: db.Remote, Connected: db.Connected, Synced: db.Synced, Rows: map[string]uint64{}}
		for table, n := range db.Rows {
			d.Rows[table] = uint64(n)
		}
		m.Databases = append(m.Databases, d)
	}
	for _, action := range slices.Sorted(maps.Keys(s.Skipped)) {
		m.Skipped = append(m.Skipped, &offloadv1.SkippedRows{Action: action, Count: uint64(s.Skipped[action])})
	}
	return m
}

func offloadMessage(o Offload) *offloadv1.Offload {
	m := &offloadv1.Offload{
		Mode:        number(offloadModes, o.Mode),
		Idle:        o.Idle,
		Filters:     uint64(o.Filters),
		Devices:     uint64(o.Devices),
		ChainStates: uint64(o.States),
		Closed:      uint64(o.Closed),
		Foreign:     uint64(o.Foreign),
		Shadowed:    uint64(o.Shadowed),
		Computed:    timestamp(o.Computed),
		Error:       o.Error,
		Turn:        o.Turn,
		AckedTurn:   o.AckedTurn,
	}
	if d := o.Delegated; d != nil {
		m.Delegated = delegatedMessage(*d)
	}
	if !o.Computed.IsZero() {
		m.Took = durationpb.New(o.Took)
	}
	for _, r := range o.Refused {
		m.Refused = append(m.Refused, &offloadv1.RefusedFilter{What: r.What, Error: r.Error})
	}
	return m
}

func delegatedMessage(d Delegated) *offloadv1.Delegated {
	m := &offloadv1.Delegated{HwOffload: d.HWOffload, TcPolicy: d.TCPolicy, Fix: d.Fix, Error: d.Error}
	sum := func(s MegaflowSum) *offloadv1.MegaflowSum {
		return &offloadv1.MegaflowSum{Flows: uint64(s.Flows), Packets: s.Packets, Bytes: s.Bytes}
	}
	for _, p := range d.Ports {
		m.Ports = append(m.Ports, &offloadv1.DelegatedPort{
			Port: p.Port, Device: p.Device, Nic: sum(p.NIC), Tc: sum(p.TC), Partly: sum(p.Partly), Ovs: sum(p.OVS),
		})
	}
	return m
}

func chassisMessage(c Chassis) *offloadv1.Chassis {
	m := &offloadv1.Chassis{Name: c.Name, Hostname: c.Hostname, Local: c.Local, NbCfg: c.NBCfg, BridgeMappings: c.BridgeMappings}
	byType := func(a, b Encap) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.IP, b.IP)) }
	for _, e := range slices.SortedFunc(slices.Values(c.Encaps), byType) {
		m.Encaps = append(m.Encaps, &offloadv1.Encap{Type: e.Type, Ip: e.IP})
	}
	return m
}

func tunnelMessage(t Tunnel) *offloadv1.Tunnel {
	return &offloadv1.Tunnel{
		Interface: t.Interface,
		Chassis:   t.Chassis,
		Type:      t.Type,
		RemoteIp:  text(t.RemoteIP),
		LocalIp:   text(t.LocalIP),
		Ofport:    t.OFPort,
	}
}

func zoneMessage(z Zone) *offloadv1.Zone {
	return &offloadv1.Zone{Owner: z.Owner, Zone: uint32(z.Zone)}
}

func flowMessage(f Flow) *offloadv1.Flow {
	m := &offloadv1.Flow{
		Table:    uint32(f.Table),
		Priority: uint32(f.Priority),
		Cookie:   f.Cookie,
		Match:    f.Match,
		Actions:  f.Actions,
		Rows:     f.Rows,
		State:    number(flowStates, f.State),
		Error:    f.Error,
		Filtered: filterCounters(f.Filtered),
	}
	if c := f.Counters; c != nil {
		m.Counters = &offloadv1.Counters{Packets: c.Packets, Bytes: c.Bytes, Duration: durationpb.New(c.Duration)}
	}
	return m
}

func logicalFlowMessage(f LogicalFlow) *offloadv1.LogicalFlow {
	m := &offloadv1.LogicalFlow{
		Uuid:         f.UUID,
		Datapath:     f.Datapath,
		DatapathName: f.DatapathName,
		Pipeline:     number(pipelines, f.Pipeline),
		Table:        uint32(f.Table),
		Stage:        f.Stage,
		Priority:     uint32(f.Priority),
		Match:        f.Match,
		Actions:      f.Actions,
		Source:       f.Source,
		Skipped:      f.Skipped,
		Filtered:     filterCounters(f.Filtered),
	}
	for _, flow := range f.Flows {
		m.Flows = append(m.Flows, flowMessage(flow))
	}
	return m
}

func traceStepMessage(s TraceStep) *offloadv1.TraceStep {
	m := &offloadv1.TraceStep{
		Kind:        number(traceStepKinds, s.Kind),
		Depth:       uint32(s.Depth),
		Text:        s.Text,
		Datapath:    s.Datapath,
		Pipeline:    number(pipelines, s.Pipeline),
		LogicalPort: s.LogicalPort,
		Via:         s.Via,
	}
	if s.LogicalFlow != nil {
		m.LogicalFlow = logicalFlowMessage(*s.LogicalFlow)
	}
	return m
}

// filterCounters converts counters without duration; nil stays nil.
func filterCounters(c *Counters) *offloadv1.Counters {
	if c == nil {
		return nil
	}
	return &offloadv1.Counters{Packets: c.Packets, Bytes: c.Bytes}
}

func filterMessage(f Filter) *offloadv1.Filter {
	return &offloadv1.Filter{
		Chain:     f.Chain,
		Pref:      uint32(f.Pref),
		Handle:    f.Handle,
		Kind:      number(filterKinds, f.Kind),
		Device:    f.Device,
		Text:      f.Text,
		State:     number(filterStates, f.State),
		Installed: f.Installed,
		InHw:      f.InHW,
		NotInHw:   f.NotInHW,
		Counters:  filterCounters(f.Counters),
		Reason:    f.Reason,
		Rows:      f.Rows,
		Error:     f.Error,
		Ufid:      f.UFID,
	}
}

func chainItemMessage(i ChainItem) *offloadv1.ListChainsResponse {
	if i.Chain != nil {
		return &offloadv1.ListChainsResponse{Item: &offloadv1.ListChainsResponse_Chain{Chain: chainMessage(*i.Chain)}}
	}
	return &offloadv1.ListChainsResponse{Item: &offloadv1.ListChainsResponse_Rule{Rule: chainRuleMessage(*i.Rule)}}
}

func chainMessage(c Chain) *offloadv1.Chain {
	return &offloadv1.Chain{
		Number:    c.Number,
		Device:    c.Device,
		Ofport:    uint32(c.OFPort),
		EtherType: uint32(c.EtherType),
		Table:     uint32(c.Table),
		Tracked:   c.Tracked,
		Zone:      uint32(c.Zone),
		Tunnelled: c.Tunnelled,
		Known:     c.Known,
		Text:      c.Text,
	}
}

func chainRuleMessage(r ChainRule) *offloadv1.ChainRule {
	m := &offloadv1.ChainRule{
		Match:    r.Match,
		Verdict:  number(chainVerdicts, r.Verdict),
		Text:     r.Text,
		Chain:    r.Chain,
		Zone:     uint32(r.Zone),
		Device:   r.Device,
		Reason:   r.Reason,
		Rows:     r.Rows,
		NoFilter: r.NoFilter,
		Counters: filterCounters(r.Counters),
	}
	if r.LogicalFlow != nil {
		m.LogicalFlow = logicalFlowMessage(*r.LogicalFlow)
	}
	return m
}

func explanationMessage(e Explanation) *offloadv1.ExplainResponse {
	m := &offloadv1.ExplainResponse{
		Device:    e.Device,
		Idle:      e.Idle,
		Forwarded: filterCounters(e.Forwarded),
		Dropped:   filterCounters(e.Dropped),
		Punted:    filterCounters(e.Punted),
		Shared:    e.Shared,

		Delegated:     e.Delegated,
		MegaflowsLeft: uint64(e.MegaflowsLeft),
	}
	for _, f := range e.Megaflows {
		m.Megaflows = append(m.Megaflows, megaflowMessage(f))
	}
	m.InHw = uint64(e.InHW)
	for _, r := range e.Refusals {
		m.Refusals = append(m.Refusals, &offloadv1.Refusal{Text: r.Text, Filters: uint64(r.Filters), Counters: filterCounters(&r.Counters), Example: r.Example})
	}
	for _, p := range e.Punts {
		punt := &offloadv1.Punt{
			Reason: p.Reason, Text: p.Text, Fix: p.Fix, Filters: uint64(p.Filters), Counters: filterCounters(&p.Counters), Shared: p.Shared,
		}
		if p.LogicalFlow != nil {
			punt.LogicalFlow = logicalFlowMessage(*p.LogicalFlow)
		}
		m.Punts = append(m.Punts, punt)
	}
	for _, l := range e.Layers {
		m.Layers = append(m.Layers, &offloadv1.LayerVerdict{
			Layer: number(layers, l.Layer), Answer: number(layerAnswers, l.Answer), Text: l.Text, Delivers: l.Delivers,
		})
	}
	for _, f := range e.Filters {
		m.Filters = append(m.Filters, filterMessage(f))
	}
	return m
}

func megaflowMessage(f Megaflow) *offloadv1.Megaflow {
	return &offloadv1.Megaflow{
		Ufid:     f.UFID,
		Device:   f.Device,
		RecircId: f.Recirc,
		Match:    f.Match,
		Actions:  f.Actions,
		Layer:    number(layers, f.Layer),
		Reason:   f.Reason,
		Used:     f.Used,
		Counters: filterCounters(&f.Counters),
	}
}
