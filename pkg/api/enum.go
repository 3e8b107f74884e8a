package api

import (
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe/monitor"
	"github.com/offloadd/offloadd/pkg/probe/result"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// Our names of what enums of the .proto files number. An enum's zero is absent: unspecified is "", where that is allowed.
var (
	kinds = map[offloadv1.PortKind]ports.Kind{
		offloadv1.PortKind_PORT_KIND_VETH: ports.Veth,
		offloadv1.PortKind_PORT_KIND_VF:   ports.VF,
		offloadv1.PortKind_PORT_KIND_SF:   ports.SF,
		offloadv1.PortKind_PORT_KIND_AUTO: ports.Auto,
	}
	vlanProtocols = map[offloadv1.VlanProtocol]ports.VLANProto{
		offloadv1.VlanProtocol_VLAN_PROTOCOL_8021Q:  ports.VLAN8021Q,
		offloadv1.VlanProtocol_VLAN_PROTOCOL_8021AD: ports.VLAN8021AD,
	}
	linkStates = map[offloadv1.LinkState]ports.LinkState{
		offloadv1.LinkState_LINK_STATE_AUTO:    ports.LinkAuto,
		offloadv1.LinkState_LINK_STATE_ENABLE:  ports.LinkEnable,
		offloadv1.LinkState_LINK_STATE_DISABLE: ports.LinkDisable,
	}
	addressings = map[offloadv1.Addressing]ports.Addressing{
		offloadv1.Addressing_ADDRESSING_STATIC:       ports.Static,
		offloadv1.Addressing_ADDRESSING_LOGICAL_PORT: ports.FromLogicalPort,
	}
	waits = map[offloadv1.WaitFor]ports.Wait{
		offloadv1.WaitFor_WAIT_FOR_PLUGGED:   ports.UntilPlugged,
		offloadv1.WaitFor_WAIT_FOR_INSTALLED: ports.UntilInstalled,
	}
	states = map[offloadv1.PortState]ports.State{
		offloadv1.PortState_PORT_STATE_CREATING: ports.Creating,
		offloadv1.PortState_PORT_STATE_PLUGGED:  ports.Plugged,
		offloadv1.PortState_PORT_STATE_READY:    ports.Ready,
		offloadv1.PortState_PORT_STATE_DELETING: ports.Deleting,
		offloadv1.PortState_PORT_STATE_FAILED:   ports.Failed,
	}
	probeModes = map[offloadv1.ProbeMode]string{
		offloadv1.ProbeMode_PROBE_MODE_RR:     result.RR,
		offloadv1.ProbeMode_PROBE_MODE_OPEN:   result.Open,
		offloadv1.ProbeMode_PROBE_MODE_CRR:    result.CRR,
		offloadv1.ProbeMode_PROBE_MODE_STREAM: result.Stream,
		offloadv1.ProbeMode_PROBE_MODE_MAERTS: result.Maerts,
	}
	probeTransports = map[offloadv1.ProbeTransport]string{
		offloadv1.ProbeTransport_PROBE_TRANSPORT_UDP: "udp",
		offloadv1.ProbeTransport_PROBE_TRANSPORT_TCP: "tcp",
	}
	pipelines = map[offloadv1.Pipeline]Pipeline{
		offloadv1.Pipeline_PIPELINE_INGRESS: Ingress,
		offloadv1.Pipeline_PIPELINE_EGRESS:  Egress,
	}
	flowStates = map[offloadv1.FlowState]FlowState{
		offloadv1.FlowState_FLOW_STATE_INSTALLED: FlowInstalled,
		offloadv1.FlowState_FLOW_STATE_PENDING:   FlowPending,
		offloadv1.FlowState_FLOW_STATE_REFUSED:   FlowRefused,
	}
	traceStepKinds = map[offloadv1.TraceStepKind]TraceStepKind{
		offloadv1.TraceStepKind_TRACE_STEP_KIND_PIPELINE: TracePipeline,
		offloadv1.TraceStepKind_TRACE_STEP_KIND_TABLE:    TraceTable,
		offloadv1.TraceStepKind_TRACE_STEP_KIND_ACTION:   TraceAction,
		offloadv1.TraceStepKind_TRACE_STEP_KIND_OUTPUT:   TraceOutput,
		offloadv1.TraceStepKind_TRACE_STEP_KIND_DROP:     TraceDrop,
		offloadv1.TraceStepKind_TRACE_STEP_KIND_NOTE:     TraceNote,
	}
	filterKinds = map[offloadv1.FilterKind]FilterKind{
		offloadv1.FilterKind_FILTER_KIND_GUARD:  FilterGuard,
		offloadv1.FilterKind_FILTER_KIND_ENTRY:  FilterEntry,
		offloadv1.FilterKind_FILTER_KIND_RULE:   FilterRule,
		offloadv1.FilterKind_FILTER_KIND_END:    FilterEnd,
		offloadv1.FilterKind_FILTER_KIND_CLOSED: FilterClosed,
		offloadv1.FilterKind_FILTER_KIND_PROBE:  FilterProbe,
	}
	filterStates = map[offloadv1.FilterState]FilterState{
		offloadv1.FilterState_FILTER_STATE_INSTALLED: FilterInstalled,
		offloadv1.FilterState_FILTER_STATE_MISSING:   FilterMissing,
		offloadv1.FilterState_FILTER_STATE_REFUSED:   FilterRefused,
		offloadv1.FilterState_FILTER_STATE_DIFFERENT: FilterDifferent,
		offloadv1.FilterState_FILTER_STATE_SURPLUS:   FilterSurplus,
		offloadv1.FilterState_FILTER_STATE_FOREIGN:   FilterForeign,
		offloadv1.FilterState_FILTER_STATE_DELEGATED: FilterDelegated,
	}
	chainVerdicts = map[offloadv1.ChainVerdict]ChainVerdict{
		offloadv1.ChainVerdict_CHAIN_VERDICT_GOTO:   ChainGoto,
		offloadv1.ChainVerdict_CHAIN_VERDICT_LOOKUP: ChainLookup,
		offloadv1.ChainVerdict_CHAIN_VERDICT_OUTPUT: ChainOutput,
		offloadv1.ChainVerdict_CHAIN_VERDICT_DROP:   ChainDrop,
		offloadv1.ChainVerdict_CHAIN_VERDICT_PUNT:   ChainPunt,
	}
	offloadModes = map[offloadv1.OffloadMode]OffloadMode{
		offloadv1.OffloadMode_OFFLOAD_MODE_OFF:       OffloadOff,
		offloadv1.OffloadMode_OFFLOAD_MODE_DIRECT:    OffloadDirect,
		offloadv1.OffloadMode_OFFLOAD_MODE_DELEGATED: OffloadDelegated,
	}
	offloadLevels = map[offloadv1.OffloadLevel]monitor.Level{
		offloadv1.OffloadLevel_OFFLOAD_LEVEL_OVS:      monitor.ByOVS,
		offloadv1.OffloadLevel_OFFLOAD_LEVEL_FILTERS:  monitor.Filters,
		offloadv1.OffloadLevel_OFFLOAD_LEVEL_HARDWARE: monitor.Hardware,
	}
	layers = map[offloadv1.Layer]Layer{
		offloadv1.Layer_LAYER_NIC: LayerNIC,
		offloadv1.Layer_LAYER_TC:  LayerTC,
		offloadv1.Layer_LAYER_OVS: LayerOVS,
	}
	layerAnswers = map[offloadv1.LayerAnswer]LayerAnswer{
		offloadv1.LayerAnswer_LAYER_ANSWER_DECIDES:     LayerDecides,
		offloadv1.LayerAnswer_LAYER_ANSWER_PASSES:      LayerPasses,
		offloadv1.LayerAnswer_LAYER_ANSWER_NOT_REACHED: LayerNotReached,
	}
)

// number returns the enum's number of one of our names; 0 for "".
func number[E ~int32, N ~string](names map[E]N, name N) E {
	for e, n := range names {
		if n == name {
			return e
		}
	}
	return 0
}
