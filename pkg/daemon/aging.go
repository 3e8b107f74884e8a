package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/sb"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// An aging keeps learned rows that are used: northd deletes those whose timestamp has become too old.
type aging struct {
	// changed is poked when rows may have begun or ceased to age.
	changed chan struct{}

	// What follows belongs to the loop of the agent.
	local   *chassis.Local
	pending map[sb.UUID]chassis.Refresh // to be written
}

func newAging() aging {
	return aging{changed: make(chan struct{}, 1), pending: map[sb.UUID]chassis.Refresh{}}
}

// seen notes what the Southbound has changed.
func (g *aging) seen(d sb.Delta) {
	for _, c := range d.Changes {
		for _, row := range []sb.Row{c.Old, c.New} {
			switch row.(type) {
			case *sb.MACBinding, *sb.FDB, *sb.Datapath:
				poke(g.changed)
				return
			}
		}
	}
}

// turn notes what is local.
func (g *aging) turn(local *chassis.Local) {
	if local != g.local {
		g.local = local
		poke(g.changed)
	}
}

// southboundOperations are the writes of a turn: those of the plan, or, when there are none, timestamps, which must not fail together
// with anything else.
func (a *Agent) southboundOperations(idle bool) []ovsdb.Operation {
	ops := Operations(a.plan.SBOps)
	if len(ops) > 0 || !idle {
		return ops
	}
	rows := slices.SortedFunc(maps.Keys(a.aging.pending), func(x, y sb.UUID) int { return bytes.Compare(x[:], y[:]) })
	for _, id := range rows {
		r := a.aging.pending[id]
		ops = append(ops, ovsdb.OnlyIfAtMost(ovsdb.UpdateRow(r.Table, id.String(), map[string]any{"timestamp": r.Now}), "timestamp", r.Before))
	}
	clear(a.aging.pending)
	return ops
}

const (
	// agingPause is between two looks at which rows age, while they change.
	agingPause = time.Second

	// agingRetry is after how long counters that could not be read are read again, if that is not due before.
	agingRetry = 10 * time.Second
)

// age reads the counters of what ages, as often as necessary and not at all while nothing does, until ctx ends.
func (a *Agent) age(ctx context.Context) error {
	var before map[chassis.UseCounter]uint64
	var due time.Time
	reader := useReader{agent: a}
	for {
		var rows []chassis.AgingRow
		var path string
		if err := a.query(ctx, func() {
			path = a.bridgePath()
			rows = chassis.AgingRows(a.store, a.plan.Local, func(table, column string) bool {
				return a.hasColumn(chassis.Southbound, table, column)
			})
		}); err != nil {
			return nil // it has ended
		}
		period := time.Duration(chassis.AgingPeriod(rows)) * time.Millisecond
		now := time.Now()
		switch {
		case period == 0:
			before, due = nil, time.Time{}
		case due.IsZero() || !now.Before(due):
			after, err := reader.read(ctx, path, rows)
			if ctx.Err() != nil {
				return nil
			}
			due = now.Add(period - rand.N(period/4)) // so that the chassis of a deployment do not write at once
			if err != nil {
				due = now.Add(min(period, agingRetry))
				a.log.Warn("use of neighbours not known", "err", err, "retry_in", time.Until(due))
				break
			}
			if refreshes := chassis.Refreshes(rows, before, after, now.UnixMilli()); len(refreshes) > 0 {
				a.log.Debug("neighbours used", "rows", len(refreshes))
				if err := a.query(ctx, func() {
					for _, r := range refreshes {
						a.aging.pending[r.UUID] = r
					}
				}); err != nil {
					return nil
				}
			}
			before = after
		default:
			due = earlier(due, now.Add(period))
		}
		var wait <-chan time.Time
		if !due.IsZero() {
			wait = time.After(time.Until(due))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wait:
		case <-a.aging.changed:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(agingPause):
			}
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// countedIn is the table whose flows count the packets that use a row: those that its neighbour sends.
var countedIn = map[string]uint8{
	sbdb.MACBindingTable: compile.TableMACCacheUse,
	sbdb.FDBTable:        compile.TableLookupFDB,
}

// A useReader reads how many packets have used rows: of flows, and of filters that were made of them.
type useReader struct {
	agent   *Agent
	program *specialize.Program
	probes  []*specialize.Filter
	filters []useFilter // of both
}

// A useFilter is a filter whose packets have met rules that count.
type useFilter struct {
	chain uint32
	asks  string
	rows  []sb.UUID
}

func (u *useReader) read(ctx context.Context, path string, rows []chassis.AgingRow) (map[chassis.UseCounter]uint64, error) {
	counters := map[chassis.UseCounter]uint64{}
	if path != "" {
		if err := readUsedFlows(ctx, path, rows, counters); err != nil {
			return nil, fmt.Errorf("daemon aging: %w", err)
		}
	}
	if u.agent.offload != nil {
		if err := u.readFilters(ctx, rows, counters); err != nil {
			return nil, fmt.Errorf("daemon aging: %w", err)
		}
	}
	return counters, nil
}

// readUsedFlows asks the bridge for the tables that count. A flow's cookie is the beginning of its row's UUID.
func readUsedFlows(ctx context.Context, path string, rows []chassis.AgingRow, counters map[chassis.UseCounter]uint64) (err error) {
	type flowOf struct {
		table  uint8
		cookie uint64
	}
	of := map[flowOf][]sb.UUID{}
	tables := map[openflow.FlowFilter]struct{}{}
	for _, r := range rows {
		table := countedIn[r.Table]
		k := flowOf{table, r.UUID.Cookie()}
		of[k] = append(of[k], r.UUID)
		tables[openflow.FlowFilter{Table: table}] = struct{}{}
	}
	conn, err := openflow.Dial(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.DumpFlowsOf(ctx, slices.Collect(maps.Keys(tables)), func(s *openflow.FlowStats) error {
		for _, row := range of[flowOf{s.Table, s.Cookie}] {
			counters[chassis.UseCounter{Row: row, At: fmt.Sprintf("flow %d %d %s", s.Table, s.Priority, s.Match)}] = s.PacketCount
		}
		return nil
	})
}

// readFilters asks the kernel for the chains that have filters that count. It does not hold up the loop that changes them: what changes
// meanwhile is counted the next time.
func (u *useReader) readFilters(ctx context.Context, rows []chassis.AgingRow, counters map[chassis.UseCounter]uint64) (err error) {
	o := u.agent.offload
	program, probes := o.wanted()
	if program != u.program || !slices.Equal(probes, u.probes) {
		u.program, u.probes, u.filters = program, probes, usedBy(program, probes)
	}
	ages := map[sb.UUID]struct{}{}
	for _, r := range rows {
		ages[r.UUID] = struct{}{}
	}
	byChain := map[uint32]map[string][]sb.UUID{}
	for _, f := range u.filters {
		if !slices.ContainsFunc(f.rows, func(row sb.UUID) bool { _, is := ages[row]; return is }) {
			continue
		}
		if byChain[f.chain] == nil {
			byChain[f.chain] = map[string][]sb.UUID{}
		}
		byChain[f.chain][f.asks] = f.rows
	}
	if len(byChain) == 0 {
		return nil
	}
	conn, err := o.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for _, chain := range slices.Sorted(maps.Keys(byChain)) {
		err := conn.Dump(ctx, tc.Target{Block: apply.Block}, tc.DumpOptions{Chain: &chain}, func(in *tc.Installed) error {
			if !specialize.IsOurs(in.Filter.Cookie) {
				return nil
			}
			at := asks(&in.Filter)
			packets, _ := in.Packets()
			for _, row := range byChain[chain][at] {
				counters[chassis.UseCounter{Row: row, At: "filter " + at}] = packets
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// usedBy finds the filters of a program, and of probes, whose packets have met rules that count. A nil program has none.
func usedBy(program *specialize.Program, probes []*specialize.Filter) []useFilter {
	if program == nil {
		return nil
	}
	counting := map[*specialize.Leaf][]sb.UUID{}
	look := func(leaves []specialize.Leaf) {
		for i := range leaves {
			for _, r := range leaves[i].Path {
				if r.Table == compile.TableMACCacheUse || r.Table == compile.TableLookupFDB {
					counting[&leaves[i]] = append(counting[&leaves[i]], r.Owner.Row)
				}
			}
		}
	}
	for _, e := range program.Entries {
		look(e.Rules)
	}
	for _, s := range program.States {
		look(s.Rules)
	}
	if len(counting) == 0 {
		return nil
	}
	var all []useFilter
	note := func(f *specialize.Filter) {
		if rows := counting[f.Leaf]; f.Leaf != nil && len(rows) > 0 {
			all = append(all, useFilter{f.Chain, asks(&f.Filter), rows})
		}
	}
	for _, f := range program.Filters() {
		note(&f)
	}
	for _, f := range probes {
		note(f)
	}
	return all
}
