package apply

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// filterDevices are the devices of the tests, and the interface indexes they have unless a test says otherwise.
var filterDevices = map[string]int{"a": 1, "b": 2, "c": 3}

// randomFilters returns the filters of a random program: entries of some devices, and up to three chains, which lead to later ones
// only and end in a punt.
func randomFilters(rnd *rand.Rand) []tc.Filter {
	var all []tc.Filter
	chains := []uint32{specialize.ChainBase, specialize.ChainBase + 1, specialize.ChainBase + 2}
	rules := func(chain uint32, indev string) {
		asked := map[string]bool{}
		for level := range uint16(1 + rnd.IntN(4)) {
			f := tc.Filter{
				Chain: chain, Pref: 100 + level, Handle: 1, Protocol: tc.ProtocolIPv4, Indev: indev,
				Cookie: specialize.Closed(0, "").Cookie,
			}
			f.Cookie[3] = byte(specialize.KindRule)
			if mask := uint64(rnd.IntN(4)); mask != 0 {
				f.Match = f.Match.Masked(ir.IPDst, rnd.Uint64N(4), mask)
			}
			if id := fmt.Sprint(f.Match); asked[id] {
				continue // the kernel would take it, but no packet would meet it
			} else {
				asked[id] = true
			}
			punt := specialize.Closed(chain, "").Actions
			switch pick := rnd.IntN(6); {
			case pick < 2:
				f.Actions = []tc.Action{tc.Mirred{Ifindex: 10 + rnd.IntN(3)}}
			case pick == 2:
				f.Actions = []tc.Action{tc.Drop{}}
			case pick == 3:
				f.Actions = punt
			default:
				later := slices.DeleteFunc(slices.Clone(chains), func(c uint32) bool { return c <= chain })
				if len(later) == 0 {
					f.Actions = []tc.Action{tc.Drop{}}
					break
				}
				f.Actions = []tc.Action{tc.Goto{Chain: later[rnd.IntN(len(later))]}}
			}
			all = append(all, f)
		}
	}
	for _, dev := range []string{"a", "b", "c"} {
		if rnd.IntN(4) > 0 {
			rules(0, dev)
		}
	}
	for {
		missing := uint32(0)
		for _, f := range all {
			if g, ok := f.Actions[len(f.Actions)-1].(tc.Goto); ok && !slices.ContainsFunc(all, func(x tc.Filter) bool { return x.Chain == g.Chain }) {
				missing = g.Chain
			}
		}
		if missing == 0 {
			return all
		}
		rules(missing, "")
		end := specialize.Closed(missing, "")
		end.Pref = specialize.PrefEnd
		all = append(all, end)
	}
}

// withProbes returns filters with those by which probes count some packets.
func withProbes(rnd *rand.Rand, filters []tc.Filter) []tc.Filter {
	out := slices.Clone(filters)
	for dst := range uint64(4) {
		if rnd.IntN(3) > 0 {
			continue
		}
		at := map[string]uint16{}
		for i := range filters {
			f := specialize.Filter{Filter: filters[i], Kind: specialize.KindRule}
			if f.Chain == 0 && f.Indev != "a" {
				continue
			}
			place := fmt.Sprint(f.Chain)
			if g, ok := f.Narrowed(ir.Match{}.Eq(ir.IPDst, dst), tc.ProtocolIPv4, specialize.PrefProbe+at[place], uint32(dst)+1); ok {
				out = append(out, g.Filter)
				at[place]++
			}
		}
	}
	return out
}

// What probes add and take away again closes nothing, and changes no packet's way at any moment.
func TestProbesAreNotNoticed(t *testing.T) {
	changed := 0
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		table, filters := NewFilterTable(), randomFilters(rnd)
		for _, op := range table.Plan(filters, filterDevices, PlanOptions{}).Change {
			kernelDoes(t, table, op)
		}
		want := fmt.Sprint(filterVerdicts(table.all()))
		for step := range 4 {
			plan := table.Plan(withProbes(rnd, filters), filterDevices, PlanOptions{CloseDevices: true})
			if len(plan.Close)+len(plan.Open) > 0 {
				t.Fatalf("seed %d step %d: closes %v", seed, step, plan.Close)
			}
			for _, op := range slices.Concat(plan.Change, plan.Retire) {
				kernelDoes(t, table, op)
				changed++
				if got := fmt.Sprint(filterVerdicts(table.all())); got != want {
					t.Fatalf("seed %d step %d: after %v %s, want %s", seed, step, op, got, want)
				}
			}
		}
	}
	if changed == 0 {
		t.Error("nothing changed")
	}
}

// filterVerdicts are what becomes of all packets that the tests know, in words.
func filterVerdicts(filters []tc.Filter) map[string]string {
	block := eval.NewBlock(filters)
	out := map[string]string{}
	for dev := range filterDevices {
		for dst := range uint64(4) {
			var p eval.Packet
			p.Set(ir.EthType, ir.U64(tc.ProtocolIPv4))
			p.Set(ir.IPDst, ir.U64(dst))
			v := block.Run(p, eval.Arrival{Device: dev}, nil)
			text := fmt.Sprint(v.Kind)
			if v.Kind == eval.Redirected {
				text = fmt.Sprintf("to %d", v.Ifindex)
			}
			if v.Kind == eval.Passed && !v.Pristine {
				text = "passed, but not as it came"
			}
			out[fmt.Sprintf("%s %d", dev, dst)] = text
		}
	}
	return out
}

func (t *FilterTable) all() []tc.Filter {
	out := make([]tc.Filter, 0, len(t.filters))
	for _, f := range t.filters {
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b tc.Filter) int { return compareFilterKeys(a.Key(), b.Key()) })
	return out
}

// At each moment of a change a packet has the verdict of the old filters, that of the new ones, or is left to Open vSwitch as it came,
// and none falls off the end of a chain. In the end the filters are as desired, wherever the way began.
func TestFilterPlanIsSafe(t *testing.T) {
	for seed := range uint64(120) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		table := NewFilterTable()
		for step := range 6 {
			desired := withProbes(rnd, randomFilters(rnd))
			old, now := filterVerdicts(table.all()), filterVerdicts(desired)
			plan := table.Plan(desired, filterDevices, PlanOptions{})
			for _, part := range [][]tc.Op{plan.Close, plan.Change, plan.Open, plan.Retire} {
				for _, op := range part {
					kernelDoes(t, table, op)
					for packet, v := range filterVerdicts(table.all()) {
						if v != old[packet] && v != now[packet] && v != fmt.Sprint(eval.Passed) {
							t.Fatalf("seed %d step %d: after %v packet %s is %s; before %s, to be %s", seed, step, op, packet, v, old[packet], now[packet])
						}
					}
				}
			}
			if got := filterVerdicts(table.all()); fmt.Sprint(got) != fmt.Sprint(now) {
				t.Fatalf("seed %d step %d: verdicts %v, want %v", seed, step, got, now)
			}
			if table.Len() != len(desired) {
				t.Fatalf("seed %d step %d: %d filters, want %d", seed, step, table.Len(), len(desired))
			}
			if again := table.Plan(desired, filterDevices, PlanOptions{}); !empty(&again) {
				t.Fatalf("seed %d step %d: planned again %+v", seed, step, again)
			}
		}
	}
}

// kernelDoes does op as the kernel would, which refuses some.
func kernelDoes(t *testing.T, table *FilterTable, op tc.Op) {
	t.Helper()
	there := table.Filter(op.Key)
	switch op.Verb {
	case tc.Add:
		if there != nil {
			t.Fatalf("%v: EEXIST", op)
		}
		for _, f := range table.all() {
			if f.Chain == op.Key.Chain && f.Pref == op.Key.Pref && (f.Protocol != op.Filter.Protocol || idOf(&f) == idOf(op.Filter)) {
				t.Fatalf("%v: EEXIST or EINVAL, there is %v", op, f)
			}
		}
	case tc.Replace, tc.Delete:
		if there == nil {
			t.Fatalf("%v: ENOENT", op)
		}
	}
	ifindex := 0
	if op.Filter != nil {
		ifindex = filterDevices[op.Filter.Indev]
	}
	table.Done(op, ifindex)
}

// A table that was read after a restart, in whatever state the last process has left the block, leads to the same filters; what
// closes is opened.
func TestFilterPlanAfterRestart(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		before := NewFilterTable()
		for range 2 {
			plan := before.Plan(randomFilters(rnd), filterDevices, PlanOptions{})
			ops := slices.Concat(plan.Close, plan.Change, plan.Open, plan.Retire)
			for _, op := range ops[:rnd.IntN(len(ops)+1)] {
				before.Done(op, 0)
			}
		}
		table := NewFilterTable()
		for _, f := range before.all() {
			table.Installed(&f, filterDevices[f.Indev])
		}
		desired := randomFilters(rnd)
		plan := table.Plan(desired, filterDevices, PlanOptions{})
		for _, op := range slices.Concat(plan.Close, plan.Change, plan.Open, plan.Retire) {
			kernelDoes(t, table, op)
		}
		if table.Closed() != 0 || table.Len() != len(desired) || fmt.Sprint(filterVerdicts(table.all())) != fmt.Sprint(filterVerdicts(desired)) {
			t.Fatalf("seed %d: %d filters, %d closed; want %d", seed, table.Len(), table.Closed(), len(desired))
		}
	}
}

// The filters of a device that has gone are of no use to another one that has its name.
func TestFilterPlanOfAnotherDevice(t *testing.T) {
	f := specialize.Closed(0, "a")
	f.Pref = 100
	table := NewFilterTable()
	table.Installed(&f, 1)
	plan := table.Plan([]tc.Filter{f}, map[string]int{"a": 7}, PlanOptions{})
	if len(plan.Change) != 2 || plan.Change[0].Verb != tc.Delete || plan.Change[1].Verb != tc.Add {
		t.Fatalf("plan %+v: want a deletion and an addition", plan)
	}
}

// When a device was made anew, filters send to the new one, one after the other, and nothing else changes: no filter is closed, and
// nothing is left to plan.
func TestFollow(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		table := NewFilterTable()
		before := randomFilters(rnd)
		plan := table.Plan(before, filterDevices, PlanOptions{})
		for _, op := range plan.Change {
			kernelDoes(t, table, op)
		}
		moved := map[int]int{10: 20, 12: 22}
		after := slices.Clone(before)
		sends := 0
		for i := range after {
			if m, is := after[i].Actions[0].(tc.Mirred); is && moved[m.Ifindex] != 0 {
				after[i].Actions = []tc.Action{tc.Mirred{Ifindex: moved[m.Ifindex]}}
				sends++
			}
		}
		ops := table.Follow(moved)
		if len(ops) != sends {
			t.Fatalf("seed %d: %d operations for %d filters", seed, len(ops), sends)
		}
		for _, op := range ops {
			if op.Verb != tc.Replace {
				t.Fatalf("seed %d: %v", seed, op.String())
			}
			kernelDoes(t, table, op)
		}
		if plan := table.Plan(after, filterDevices, PlanOptions{}); !empty(&plan) {
			t.Fatalf("seed %d: there is still to do: %+v", seed, plan)
		}
	}
}

func empty(p *FilterPlan) bool { return len(p.Close)+len(p.Change)+len(p.Open)+len(p.Retire) == 0 }
