package api

import "time"

// A Pipeline is a half of a datapath's logical pipeline. "" is either, in filters.
type Pipeline string

// The pipelines.
const (
	Ingress Pipeline = "ingress"
	Egress  Pipeline = "egress"
)

// A LogicalFlowFilter selects the logical flows that have everything it names.
type LogicalFlowFilter struct {
	Datapath    string // name or UUID; "" any
	Pipeline    Pipeline
	Table       *uint8 // logical; nil any
	LogicalPort string // that match or actions mention; "" any
	UUID        string // of a row, or its beginning, in lower case; "" any
	Counters    bool   // read them
}

// A LogicalFlow is a row of Logical_Flow on one datapath, and what was made of it.
type LogicalFlow struct {
	UUID         string
	Datapath     string // UUID
	DatapathName string
	Pipeline     Pipeline
	Table        uint8
	Stage        string
	Priority     uint16
	Match        string
	Actions      string
	Source       string // in ovn-northd
	Flows        []Flow
	Skipped      string // why it makes no flows although it should
	// Filtered is what filters have counted of packets for which they did what the row says, without Duration; nil: not asked for, or
	// there are none.
	Filtered *Counters
}

// A FlowState is where a wanted flow is. "" is not known.
type FlowState string

// The states of flows.
const (
	FlowInstalled FlowState = "installed"
	FlowPending   FlowState = "pending"
	FlowRefused   FlowState = "refused"
)

// A FlowFilter selects the flows that have everything it names.
type FlowFilter struct {
	Table    *uint8      // nil any
	Cookie   uint64      // 0 any
	Row      string      // a UUID, or its beginning, in lower case; "" any
	States   []FlowState // one of these; none any
	Counters bool        // read them
}

// A Flow is an OpenFlow flow that is wanted in the integration bridge.
type Flow struct {
	Table    uint8
	Priority uint16 // the larger wins
	Cookie   uint64
	Match    string   // as in ovs-fields(7), without table and priority
	Actions  string   // as in ovs-actions(7)
	Rows     []string // UUIDs of what it is made from
	State    FlowState
	Counters *Counters // nil: not asked for, or not installed
	Error    string    // why the bridge refused it
	// Filtered is what filters have counted of packets for which they did what the flow says; see LogicalFlow.Filtered.
	Filtered *Counters
}

// Counters are what a flow has seen since it was installed.
type Counters struct {
	Packets  uint64
	Bytes    uint64
	Duration time.Duration
}

// A TraceRequest is a packet to trace.
type TraceRequest struct {
	Datapath  string   // name or UUID; "": that of the port in Microflow
	Microflow string   // as ovn-trace(8) takes it
	CT        []string // what each conntrack lookup finds; see ovn-trace(8), --ct
}

// A TraceStepKind is what a step of a trace is.
type TraceStepKind string

// The kinds of steps.
const (
	TracePipeline TraceStepKind = "pipeline" // enters a pipeline of a datapath
	TraceTable    TraceStepKind = "table"    // meets a logical table
	TraceAction   TraceStepKind = "action"
	TraceOutput   TraceStepKind = "output"
	TraceDrop     TraceStepKind = "drop"
	TraceNote     TraceStepKind = "note"
)

// A TraceStep is what happens to a packet.
type TraceStep struct {
	Kind        TraceStepKind
	Depth       int          // 0 for the first pipeline
	Text        string       // as ovn-trace(8) prints it, without indentation
	LogicalFlow *LogicalFlow // with TraceTable; nil: none matches
	Datapath    string       // the name, with TracePipeline, TraceOutput and TraceDrop
	Pipeline    Pipeline     // with TracePipeline
	LogicalPort string       // with TraceOutput
	Via         string       // with TraceOutput: "local", "tunnel to NAME", "localnet", "patch"
}
