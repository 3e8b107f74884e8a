package daemon

import (
	"context"
	"slices"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
	"github.com/offloadd/offloadd/pkg/trace"
)

// maxTraceSteps is how many steps a trace may have; a flood to a thousand ports has some ten thousand.
const maxTraceSteps = 1 << 16

// Trace follows a packet through the rules that the chassis wants. They are compiled anew for it, in the loop: the switch
// may have others, and nobody else needs them as a whole.
func (f *Flows) Trace(ctx context.Context, req api.TraceRequest, yield func(api.TraceStep) error) error {
	var steps []api.TraceStep
	var failed error
	if err := f.agent.query(ctx, func() { steps, failed = f.agent.trace(req) }); err != nil {
		return err
	}
	for _, s := range steps {
		if err := yield(s); err != nil {
			return err
		}
	}
	return failed
}

// trace runs in the loop, for as long as a recompute takes.
func (a *Agent) trace(req api.TraceRequest) (steps []api.TraceStep, err error) {
	if !a.compiled {
		return nil, reason.Errorf(reason.NotReady, "daemon trace: nothing has been compiled yet")
	}
	var rules eval.Builder
	compile.NewEngine().Recompute(a.input, func(r compile.Replacement) {
		rules.Add(eval.Owner{Row: r.Owner.Row, Part: r.Owner.Datapath}, r.Rules, r.Groups)
	})
	network := trace.Network{SB: a.store, Local: a.input.Local, Program: rules.Program()}
	more := 0
	err = trace.Run(network, trace.Request{Datapath: req.Datapath, Microflow: req.Microflow, CT: slices.Clone(req.CT)}, func(s trace.Step) {
		if len(steps) == maxTraceSteps {
			more++
			return
		}
		steps = append(steps, traceStep(s))
	})
	if err == nil && more > 0 {
		err = reason.Errorf(reason.Internal, "daemon trace: %d steps more than can be told", more)
	}
	return steps, err
}

var traceKinds = [...]api.TraceStepKind{
	trace.Pipeline: api.TracePipeline,
	trace.Table:    api.TraceTable,
	trace.Action:   api.TraceAction,
	trace.Output:   api.TraceOutput,
	trace.Drop:     api.TraceDrop,
	trace.Note:     api.TraceNote,
}

func traceStep(s trace.Step) api.TraceStep {
	step := api.TraceStep{Kind: traceKinds[s.Kind], Depth: s.Depth, Text: s.Text, LogicalPort: s.Port, Via: s.Via}
	if s.Datapath != nil {
		step.Datapath = s.Datapath.Name
	}
	if s.Kind == trace.Pipeline {
		step.Pipeline = api.Ingress
		if s.Egress {
			step.Pipeline = api.Egress
		}
	}
	if s.Flow != nil {
		lf := compiled{flow: s.Flow, dp: s.Datapath}.logicalFlow()
		r := s.Rule
		lf.Flows = []api.Flow{{
			Table: r.Table, Priority: r.Priority, Cookie: r.Cookie,
			Match: openflow.FormatMatch(r.Match), Actions: openflow.FormatActions(r.Actions),
			Rows: []string{sb.UUID(r.Owner.Row).String()},
		}}
		step.LogicalFlow = &lf
	}
	return step
}
