package daemon

import (
	"log/slog"
	"testing"

	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// Where no device can offload, rules are not kept, and each turn counts as installed. When there is one the rules are asked for, and
// only with all of them is anything done.
func TestNoDeviceNoRules(t *testing.T) {
	asked := make(chan struct{})
	o := newOffload(slog.New(slog.DiscardHandler), false, func() error {
		asked <- struct{}{}
		return nil
	})
	capable := false
	kernel := tctest.NewKernel(t)
	o.dial = func() (*tc.Conn, error) { return tc.NewConn(kernel.Dial()), nil }
	o.representor = func(string) bool { return capable }
	l := &offloader{offload: o, rules: specialize.NewRules(), filters: apply.NewFilters(o.log, o.dial), links: true, kernel: &tc.Caps{}}
	t.Cleanup(func() { _ = l.filters.Close() })
	here := scenery{ports: []sceneryPort{{1, "lo"}}}
	rules := func(turn uint64, complete, more bool) apply.Batch {
		return apply.Batch{Turn: turn, Complete: complete, More: more, Replacements: []apply.Replacement{
			{Owner: apply.Owner{Part: uint32(turn)}, Rules: []ir.Rule{{Table: 0, Priority: 1}}},
		}}
	}
	step := func(want uint64, asleep bool) {
		t.Helper()
		s, err := l.turnOver(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if s.AckedTurn != want || o.asleep != asleep {
			t.Errorf("turn %d is installed, asleep %v; want %d, %v", s.AckedTurn, o.asleep, want, asleep)
		}
	}

	o.put(rules(1, true, false), here)
	step(1, true)
	o.put(rules(2, false, false), here)
	if len(o.batches) > 0 || l.complete {
		t.Errorf("%d batches are kept, complete %v", len(o.batches), l.complete)
	}
	step(2, true)

	capable, l.links = true, true
	step(2, false)
	<-asked
	o.put(rules(3, false, false), here) // before the agent has heard of it
	step(2, false)
	o.put(rules(4, true, true), here)
	step(2, false)
	if o.put(rules(4, false, false), here); len(o.batches) != 1 || !l.open {
		t.Errorf("%d batches, open %v; want the last one of all rules", len(o.batches), l.open)
	}
}
