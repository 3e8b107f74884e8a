package daemon

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
	"github.com/offloadd/offloadd/pkg/specialize"
)

// Flows shows the API the flows of an agent. It implements api.Flows.
type Flows struct{ agent *Agent }

// NewFlows returns the Flows of an agent.
func NewFlows(agent *Agent) *Flows { return &Flows{agent} }

// A compiled is a logical flow on one datapath. The rows do not change.
type compiled struct {
	flow    *sb.LogicalFlow
	dp      *sb.Datapath
	skipped error
}

// LogicalFlows yields the logical flows that filter selects, with what was made of them.
func (f *Flows) LogicalFlows(ctx context.Context, filter api.LogicalFlowFilter, yield func(api.LogicalFlow) error) error {
	var all []compiled
	var missing error
	var path string
	if err := f.agent.query(ctx, func() {
		all, missing = f.agent.logicalFlows(filter)
		path = f.agent.bridgePath()
	}); err != nil {
		return err
	}
	if missing != nil {
		return missing
	}
	slices.SortFunc(all, compareCompiled)
	wanted := make([][]apply.Wanted, len(all))
	if err := f.agent.flows.Ask(ctx, func(t *apply.FlowTable, known bool) {
		for i, c := range all {
			wanted[i] = presence(t.WantedBy(apply.Owner{Row: c.flow.UUID, Part: c.dp.Key}), known)
		}
	}); err != nil {
		return err
	}
	counters := flowCounters{}
	var filtered *filtered
	if filter.Counters {
		var err error
		if err = counters.read(ctx, path, wanted...); err != nil {
			return err
		}
		if filtered, err = f.filtered(ctx); err != nil {
			return err
		}
	}
	for i, c := range all {
		lf := c.logicalFlow()
		lf.Filtered = filtered.row(specialize.Owner{Row: c.flow.UUID, Part: c.dp.Key})
		for _, w := range wanted[i] {
			lf.Flows = append(lf.Flows, flowOf(w, counters, filtered))
		}
		if err := yield(lf); err != nil {
			return err
		}
	}
	return nil
}

// Flows yields the desired flows that filter selects.
func (f *Flows) Flows(ctx context.Context, filter api.FlowFilter, yield func(api.Flow) error) error {
	var path string
	if err := f.agent.query(ctx, func() { path = f.agent.bridgePath() }); err != nil {
		return err
	}
	var all []apply.Wanted
	if err := f.agent.flows.Ask(ctx, func(t *apply.FlowTable, known bool) {
		all = presence(t.Wanted(func(w apply.Wanted) bool { return selects(filter, w) }), known)
	}); err != nil {
		return err
	}
	if len(filter.States) > 0 {
		all = slices.DeleteFunc(all, func(w apply.Wanted) bool { return !slices.Contains(filter.States, flowStates[w.Presence]) })
	}
	counters := flowCounters{}
	var filtered *filtered
	if filter.Counters {
		var err error
		if err = counters.read(ctx, path, all); err != nil {
			return err
		}
		if filtered, err = f.filtered(ctx); err != nil {
			return err
		}
	}
	for _, w := range all {
		if err := yield(flowOf(w, counters, filtered)); err != nil {
			return err
		}
	}
	return nil
}

// presence makes unknown what is not known.
func presence(all []apply.Wanted, known bool) []apply.Wanted {
	if !known {
		for i := range all {
			all[i].Presence = apply.Unknown
		}
	}
	return all
}

func selects(filter api.FlowFilter, w apply.Wanted) bool {
	return (filter.Table == nil || *filter.Table == w.Key.Table) &&
		(filter.Cookie == 0 || filter.Cookie == w.Flow.Cookie) &&
		(filter.Row == "" || slices.ContainsFunc(w.Rows, func(row [16]byte) bool {
			return strings.HasPrefix(sb.UUID(row).String(), filter.Row)
		}))
}

// logicalFlows returns the logical flows of the local datapaths that filter selects. It runs in the loop, and is quick if the filter
// names a datapath.
func (a *Agent) logicalFlows(filter api.LogicalFlowFilter) ([]compiled, error) {
	var all []compiled
	known := filter.Datapath == ""
	if a.plan.Local != nil {
		for id := range a.plan.Local.Datapaths {
			dp := a.store.Datapaths[id]
			if dp == nil || filter.Datapath != "" && filter.Datapath != dp.Name && filter.Datapath != id.String() {
				continue
			}
			known = true
			all = a.flowsOf(all, dp, a.store.FlowsOf(id), filter)
			for group := range a.store.GroupsOf(id) {
				all = a.flowsOf(all, dp, a.store.FlowsOfGroup(group), filter)
			}
		}
	}
	if !known {
		return nil, reason.Errorf(reason.DatapathNotFound, "daemon: no local datapath %q", filter.Datapath).With("datapath", filter.Datapath)
	}
	return all, nil
}

// flowsOf appends those of flows that filter selects.
func (a *Agent) flowsOf(all []compiled, dp *sb.Datapath, flows map[sb.UUID]*sb.LogicalFlow, filter api.LogicalFlowFilter) []compiled {
	quoted := strconv.Quote(filter.LogicalPort)
	for id, lf := range flows {
		switch {
		case filter.Pipeline != "" && filter.Pipeline != pipelineOf(lf):
		case filter.Table != nil && *filter.Table != lf.Table:
		case filter.UUID != "" && !strings.HasPrefix(id.String(), filter.UUID):
		case filter.LogicalPort != "" && lf.InOutPort != filter.LogicalPort &&
			!strings.Contains(lf.Match, quoted) && !strings.Contains(lf.Actions, quoted):
		default:
			all = append(all, compiled{lf, dp, a.engine.SkipOf(id)})
		}
	}
	return all
}

func pipelineOf(lf *sb.LogicalFlow) api.Pipeline {
	if lf.Egress {
		return api.Egress
	}
	return api.Ingress
}

func compareCompiled(a, b compiled) int {
	return cmp.Or(
		cmp.Compare(a.dp.Name, b.dp.Name), bytes.Compare(a.dp.UUID[:], b.dp.UUID[:]),
		-cmp.Compare(pipelineOf(a.flow), pipelineOf(b.flow)), // ingress comes first
		cmp.Compare(a.flow.Table, b.flow.Table), cmp.Compare(b.flow.Priority, a.flow.Priority),
		bytes.Compare(a.flow.UUID[:], b.flow.UUID[:]))
}

func (c compiled) logicalFlow() api.LogicalFlow {
	lf := api.LogicalFlow{
		UUID:         c.flow.UUID.String(),
		Datapath:     c.dp.UUID.String(),
		DatapathName: c.dp.Name,
		Pipeline:     pipelineOf(c.flow),
		Table:        c.flow.Table,
		Priority:     c.flow.Priority,
		Match:        c.flow.Match,
		Actions:      c.flow.Actions,
	}
	if c.skipped != nil {
		lf.Skipped = c.skipped.Error()
	}
	return lf
}

var flowStates = map[apply.Presence]api.FlowState{
	apply.Unknown:   "",
	apply.Installed: api.FlowInstalled,
	apply.Pending:   api.FlowPending,
	apply.Refused:   api.FlowRefused,
}

func flowOf(w apply.Wanted, counters flowCounters, filtered *filtered) api.Flow {
	f := api.Flow{
		Table: w.Key.Table, Priority: w.Key.Priority, Cookie: w.Flow.Cookie,
		Match: matchText(w.Key.Match), Actions: actionsText(w.Flow.Actions),
		State: flowStates[w.Presence], Filtered: filtered.flow(w.Key),
	}
	if w.Err != nil && w.Presence == apply.Refused {
		f.Error = w.Err.Error()
	}
	for _, row := range w.Rows {
		f.Rows = append(f.Rows, sb.UUID(row).String())
	}
	if c, ok := counters[w.Key]; ok && w.Presence == apply.Installed {
		f.Counters = &c
	}
	return f
}

// matchText returns an encoded match as ovs-ofctl prints it. We have encoded it ourselves, so it is not refused.
func matchText(encoded string) string {
	m, err := openflow.DecodeMatch([]byte(encoded))
	if err != nil {
		return err.Error()
	}
	return openflow.FormatMatch(m)
}

func actionsText(encoded string) string {
	acts, err := openflow.DecodeActions([]byte(encoded))
	if err != nil {
		return err.Error()
	}
	return openflow.FormatActions(acts)
}

// flowCounters are what flows have seen.
type flowCounters map[apply.Key]api.Counters

// maxFilters is up to how many questions are asked for single cookies rather than for whole tables: the bridge looks
// through a table for each.
const maxFilters = 64

// read asks the bridge, over a connection of its own, for the counters of flows that are installed.
func (c flowCounters) read(ctx context.Context, path string, wanted ...[]apply.Wanted) error {
	filters := map[openflow.FlowFilter]struct{}{}
	tables := map[openflow.FlowFilter]struct{}{}
	for _, flows := range wanted {
		for _, w := range flows {
			if w.Presence != apply.Installed {
				continue
			}
			c[w.Key] = api.Counters{}
			filters[openflow.FlowFilter{Table: w.Key.Table, Cookie: w.Flow.Cookie, Mask: ^uint64(0)}] = struct{}{}
			tables[openflow.FlowFilter{Table: w.Key.Table}] = struct{}{}
		}
	}
	if len(c) == 0 {
		return nil
	}
	if len(filters) > maxFilters {
		filters = tables
	}
	conn, err := openflow.Dial(ctx, path)
	if err != nil {
		return &reason.Error{Reason: reason.BridgeDisconnected, Err: fmt.Errorf("daemon counters: %w", err)}
	}
	defer func() { _ = conn.Close() }()
	ask := make([]openflow.FlowFilter, 0, len(filters))
	for f := range filters {
		ask = append(ask, f)
	}
	found := flowCounters{}
	err = conn.DumpFlowsOf(ctx, ask, func(s *openflow.FlowStats) error {
		if _, ok := c[apply.Key{Table: s.Table, Priority: s.Priority, Match: string(s.Match)}]; ok {
			found[apply.Key{Table: s.Table, Priority: s.Priority, Match: string(s.Match)}] = api.Counters{
				Packets: s.PacketCount, Bytes: s.ByteCount, Duration: time.Duration(s.DurationSec) * time.Second,
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return &reason.Error{Reason: reason.BridgeDisconnected, Err: fmt.Errorf("daemon counters: %w", err)}
	}
	for k := range c {
		if n, ok := found[k]; ok {
			c[k] = n
		} else {
			delete(c, k) // it has gone meanwhile
		}
	}
	return err
}
