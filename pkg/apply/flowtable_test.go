package apply

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

func owner(n int) Owner { return Owner{Row: [16]byte{byte(n), byte(n >> 8)}} }

func rule(priority uint16, cookie uint64, acts ...ir.Action) ir.Rule {
	return ir.Rule{Table: 8, Priority: priority, Cookie: cookie, Match: ir.Match{}.Eq(ir.Metadata, 1), Actions: acts}
}

func member(id uint32, clause uint8) ir.Action {
	return ir.Conjunction{ID: id, Clause: clause, N: 2}
}

// texts returns what a switch would show after mods, given what it showed before.
func texts(installed map[Key]Flow) []string {
	var out []string
	for k, f := range installed {
		out = append(out, modText(openflow.Mod{Table: k.Table, Priority: k.Priority, Cookie: f.Cookie, Match: k.Match, Body: f.Actions}))
	}
	slices.Sort(out)
	return out
}

// bridge is what a switch does with mods.
func bridge(installed map[Key]Flow, mods []openflow.Mod) error {
	for _, m := range mods {
		k := Key{m.Table, m.Priority, m.Match}
		old, there := installed[k]
		switch m.Kind {
		case openflow.FlowAdd:
			installed[k] = Flow{m.Cookie, m.Body}
		case openflow.FlowModifyStrict:
			if !there || old.Cookie != m.Cookie {
				return fmt.Errorf("modify of %v: there %v, cookie %#x, want %#x", k, there, old.Cookie, m.Cookie)
			}
			installed[k] = Flow{m.Cookie, m.Body}
		case openflow.FlowDeleteStrict:
			if !there {
				return fmt.Errorf("delete of %v, which is not there", k)
			}
			delete(installed, k)
		case openflow.FlowDelete, openflow.GroupAdd, openflow.GroupModify, openflow.GroupInsert, openflow.GroupDelete:
			return fmt.Errorf("mod kind %d", m.Kind)
		}
	}
	return nil
}

func TestWhoWins(t *testing.T) {
	next, drop := ir.Resubmit{Table: 9}, []ir.Action(nil)
	for _, c := range []struct {
		name string
		in   []Replacement
		want []string
	}{
		{"nobody", nil, nil},
		{
			"one",
			[]Replacement{{Owner: owner(1), Rules: []ir.Rule{rule(1, 7, next)}}},
			[]string{"cookie=0x7, table=8, priority=1,metadata=0x1 actions=resubmit(,9)"},
		},
		{
			"allow over drop",
			[]Replacement{{Owner: owner(1), Rules: []ir.Rule{rule(1, 1, drop...)}}, {Owner: owner(2), Rules: []ir.Rule{rule(1, 2, next)}}},
			[]string{"cookie=0x2, table=8, priority=1,metadata=0x1 actions=resubmit(,9)"},
		},
		{
			"drop over conjunction",
			[]Replacement{{Owner: owner(1), Rules: []ir.Rule{rule(1, 0, member(5, 0))}}, {Owner: owner(2), Rules: []ir.Rule{rule(1, 2, drop...)}}},
			[]string{"cookie=0x2, table=8, priority=1,metadata=0x1 actions=drop"},
		},
		{
			"conjunctions united",
			[]Replacement{{Owner: owner(1), Rules: []ir.Rule{rule(1, 0, member(6, 1))}}, {Owner: owner(2), Rules: []ir.Rule{rule(1, 0, member(5, 0))}}},
			[]string{"table=8, priority=1,metadata=0x1 actions=conjunction(5,1/2),conjunction(6,2/2)"},
		},
		{
			"smaller cookie among equals",
			[]Replacement{{Owner: owner(1), Rules: []ir.Rule{rule(1, 9, next)}}, {Owner: owner(2), Rules: []ir.Rule{rule(1, 3, next)}}},
			[]string{"cookie=0x3, table=8, priority=1,metadata=0x1 actions=resubmit(,9)"},
		},
		{
			"an owner that wants the same flow twice",
			[]Replacement{{Owner: owner(1), Rules: []ir.Rule{rule(1, 7, next), rule(1, 7, next)}}},
			[]string{"cookie=0x7, table=8, priority=1,metadata=0x1 actions=resubmit(,9)"},
		},
		{"replaced by nothing", []Replacement{{Owner: owner(1), Rules: []ir.Rule{rule(1, 7, next)}}, {Owner: owner(1)}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := NewFlowTable()
			for _, r := range c.in {
				table.Replace(r)
			}
			installed := map[Key]Flow{}
			if err := bridge(installed, table.Mods()); err != nil {
				t.Fatal(err)
			}
			if got := texts(installed); !slices.Equal(got, c.want) {
				t.Errorf("installed %q, want %q", got, c.want)
			}
			if table.Len() != len(c.want) {
				t.Errorf("Len() = %d, want %d", table.Len(), len(c.want))
			}
		})
	}
}

// randomRules has few keys, so that owners meet, and all three kinds of flows.
func randomRules(rnd *rand.Rand) []ir.Rule {
	var rules []ir.Rule
	for range rnd.IntN(5) {
		priority := uint16(rnd.IntN(6))
		switch rnd.IntN(4) {
		case 0:
			rules = append(rules, rule(priority, 1+rnd.Uint64N(3)))
		case 1, 2:
			rules = append(rules, rule(priority, 1+rnd.Uint64N(3), ir.Resubmit{Table: uint8(9 + rnd.IntN(3))}))
		case 3:
			rules = append(rules, rule(priority, 0, member(1+rnd.Uint32N(3), uint8(rnd.IntN(2)))))
		}
	}
	return rules
}

// What is installed depends on what is wanted last, never on the way there; what is right already is not touched;
// refused flows are not tried again until something else is wanted.
func TestPathIndependence(t *testing.T) {
	first := rand.Uint64()
	t.Logf("first seed %d", first)
	for i := range uint64(400) {
		seed := first + i
		rnd := rand.New(rand.NewPCG(seed, 0))
		table := NewFlowTable()
		installed := map[Key]Flow{}
		wanted := map[Owner][]ir.Rule{}
		for step := range 30 {
			switch rnd.IntN(8) {
			case 0: // a complete account, from which some owners are missing
				table.Begin()
				for o, rules := range wanted {
					if rnd.IntN(3) == 0 {
						delete(wanted, o)
						continue
					}
					table.Replace(Replacement{Owner: o, Rules: rules})
				}
				table.End()
			case 1: // the connection broke: read back, and find foreign flows and others gone
				if rnd.IntN(2) == 0 {
					clear(installed)
				}
				k := Key{Table: 8, Priority: uint16(rnd.IntN(8)), Match: string(openflow.AppendMatch(nil, ir.Match{}.Eq(ir.Metadata, 1)))}
				installed[k] = Flow{Cookie: 99}
				table.Reset()
				for k, f := range installed {
					table.Installed(k.Table, k.Priority, []byte(k.Match), []byte(f.Actions), f.Cookie)
				}
			default:
				o := owner(rnd.IntN(5))
				rules := randomRules(rnd)
				table.Replace(Replacement{Owner: o, Rules: rules})
				wanted[o] = rules
			}
			if rnd.IntN(3) == 0 {
				continue // several changes before the next bundle
			}
			before := maps.Clone(installed)
			mods := table.Mods()
			if err := bridge(installed, mods); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			for _, m := range mods {
				k := Key{m.Table, m.Priority, m.Match}
				if old, was := before[k]; was && m.Kind != openflow.FlowDeleteStrict && old == installed[k] {
					t.Fatalf("seed %d step %d: %s was right already", seed, step, modText(m))
				}
			}
			fresh := NewFlowTable()
			for _, o := range slices.SortedFunc(maps.Keys(wanted), func(a, b Owner) int { return int(b.Row[0]) - int(a.Row[0]) }) {
				fresh.Replace(Replacement{Owner: o, Rules: wanted[o]})
			}
			want := map[Key]Flow{}
			if err := bridge(want, fresh.Mods()); err != nil {
				t.Fatalf("seed %d step %d: from nothing: %v", seed, step, err)
			}
			if !maps.Equal(installed, want) {
				t.Fatalf("seed %d step %d: installed\n%q\nwant\n%q", seed, step, texts(installed), texts(want))
			}
			if table.Len() != len(want) {
				t.Fatalf("seed %d step %d: Len() = %d, want %d", seed, step, table.Len(), len(want))
			}
			if again := table.Mods(); len(again) != 0 {
				t.Fatalf("seed %d step %d: %d mods although nothing changed", seed, step, len(again))
			}
		}
	}
}

func TestRefusedFlowWaitsForAnother(t *testing.T) {
	table := NewFlowTable()
	bad := Replacement{Owner: owner(1), Rules: []ir.Rule{rule(1, 7, ir.Output{Port: 1})}}
	table.Replace(bad)
	mods := table.Mods()
	if len(mods) != 1 {
		t.Fatalf("%d mods, want 1", len(mods))
	}
	table.Refused(mods[0], errors.New("refused"))
	if rows := table.OwnersOf(mods[0]); len(rows) != 1 || rows[0] != bad.Owner.Row {
		t.Errorf("OwnersOf = %v, want %v", rows, bad.Owner.Row)
	}
	table.Replace(bad)
	if again := table.Mods(); len(again) != 0 {
		t.Errorf("the refused flow is sent again: %v", again)
	}
	table.Replace(Replacement{Owner: owner(1), Rules: []ir.Rule{rule(1, 7, ir.Output{Port: 2})}})
	if mods = table.Mods(); len(mods) != 1 || mods[0].Kind != openflow.FlowAdd {
		t.Errorf("another flow at its place gives %v, want one add", mods)
	}
	table.Replace(Replacement{Owner: owner(1)})
	if mods = table.Mods(); len(mods) != 1 || mods[0].Kind != openflow.FlowDeleteStrict {
		t.Errorf("nothing at its place gives %v, want one delete", mods)
	}
	// After a reconnection everything is tried once more: the bridge may be another.
	table.Replace(bad)
	table.Refused(table.Mods()[0], errors.New("refused"))
	table.Reset()
	if mods = table.Mods(); len(mods) != 1 {
		t.Errorf("after Reset %d mods, want 1", len(mods))
	}
}

func BenchmarkReplace(b *testing.B) {
	rules := make([]ir.Rule, 1000)
	for i := range rules {
		rules[i] = rule(uint16(i), 7, ir.SetWhole(ir.Reg0, uint64(i%10)), ir.Resubmit{Table: 9})
	}
	b.ReportAllocs()
	for b.Loop() {
		table := NewFlowTable()
		table.Replace(Replacement{Owner: owner(1), Rules: rules})
		table.Mods()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/flow")
}
