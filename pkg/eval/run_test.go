package eval

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ir"
)

func program(rules ...ir.Rule) *Program {
	var b Builder
	b.Add(Owner{}, rules, map[uint32]ir.SelectGroup{7: {Buckets: []ir.Bucket{
		{Weight: 0, Actions: []ir.Action{ir.Output{Port: 70}}},
		{Weight: 1, WatchPort: 9, Actions: []ir.Action{ir.Output{Port: 71}}},
		{Weight: 1, Actions: []ir.Action{ir.SetWhole(ir.Reg0, 5), ir.Output{Port: 72}}},
	}}})
	return b.Program()
}

func rule(table uint8, priority uint16, m ir.Match, actions ...ir.Action) ir.Rule {
	return ir.Rule{Table: table, Priority: priority, Match: m, Actions: actions}
}

// ports lists where the packet leaves, with reg0 after a slash.
func ports(r Result) string {
	var all []string
	for _, o := range r.Outputs {
		all = append(all, fmt.Sprintf("%d/%#x", o.Port, o.Packet.Value(ir.Reg0).Lo))
	}
	return strings.Join(all, " ")
}

func TestRun(t *testing.T) {
	all := ir.Match{}
	tcp := all.Eq(ir.EthType, 0x0800).Eq(ir.IPProto, 6)
	for _, c := range []struct {
		name  string
		rules []ir.Rule
		opts  Options
		set   map[ir.Field]uint64
		want  string
	}{
		{name: "nothing matches"},
		{name: "the larger priority", want: "2/0x0", rules: []ir.Rule{
			rule(0, 1, all, ir.Output{Port: 1}), rule(0, 2, all, ir.Output{Port: 2}),
		}},
		{name: "one that does something over one that drops", want: "1/0x0", rules: []ir.Rule{
			rule(0, 1, all), rule(0, 1, all, ir.Output{Port: 1}),
		}},
		{name: "resubmit returns", want: "1/0x1 2/0x1", rules: []ir.Rule{
			rule(0, 1, all, ir.Resubmit{Table: 5}, ir.Output{Port: 2}),
			rule(5, 1, all, ir.SetWhole(ir.Reg0, 1), ir.Output{Port: 1}),
		}},
		{name: "a clone's changes stay with it", want: "1/0x1 2/0x0", rules: []ir.Rule{
			rule(0, 1, all, ir.Clone{Actions: []ir.Action{ir.SetWhole(ir.Reg0, 1), ir.Output{Port: 1}}}, ir.Output{Port: 2}),
		}},
		{name: "not back", want: "4/0x0", set: map[ir.Field]uint64{ir.InPort: 3}, rules: []ir.Rule{
			rule(0, 1, all, ir.Output{Port: 3}, ir.Output{Port: 4}),
		}},
		{name: "push and pop", want: "1/0x34", set: map[ir.Field]uint64{ir.Reg1: 0x1234}, rules: []ir.Rule{
			rule(0, 1, all, ir.Push{Sub: ir.Sub{Field: ir.Reg1, N: 8}}, ir.Pop{Sub: ir.Whole(ir.Reg0)}, ir.Output{Port: 1}),
		}},
		{name: "move from a view", want: "1/0x2", set: map[ir.Field]uint64{ir.Reg2: 1, ir.Reg3: 2}, rules: []ir.Rule{
			rule(0, 1, all, ir.Move{Src: ir.Sub{Field: ir.XReg1, N: 32}, Dst: ir.Whole(ir.Reg0)}, ir.Output{Port: 1}),
		}},
		{name: "what comes back comes last, as established", want: "1/0x0 2/0x22", rules: []ir.Rule{
			rule(0, 1, all, ir.CT{Table: 3}, ir.Output{Port: 1}),
			rule(3, 1, all.Masked(ir.CTState, 0x22, 0x22), ir.Move{Src: ir.Whole(ir.CTState), Dst: ir.Whole(ir.Reg0)}, ir.Output{Port: 2}),
		}},
		{name: "what comes back as the caller says", want: "2/0x21", opts: Options{CT: []uint32{StateNew}}, rules: []ir.Rule{
			rule(0, 1, all, ir.CT{Table: 3}),
			rule(3, 1, all, ir.Move{Src: ir.Whole(ir.CTState), Dst: ir.Whole(ir.Reg0)}, ir.Output{Port: 2}),
		}},
		{
			name: "translation", want: "1/0x50", set: map[ir.Field]uint64{ir.EthType: 0x0800, ir.IPProto: 6, ir.TCPDst: 9},
			rules: []ir.Rule{
				rule(0, 1, all, ir.CT{Commit: true, Table: 3, NAT: &ir.NAT{Dst: true, AddrMin: ir.U64(0x0a000001), PortMin: 80}}),
				rule(3, 1, tcp.Eq(ir.IPDst, 0x0a000001).Eq(ir.TCPDst, 80).Masked(ir.CTState, StateDNAT, StateDNAT),
					ir.Move{Src: ir.Whole(ir.TCPDst), Dst: ir.Sub{Field: ir.Reg0, N: 16}}, ir.Output{Port: 1}),
			},
		},
		{
			name: "an invalid packet is not translated", want: "1/0x30", opts: Options{CT: []uint32{StateInv}},
			rules: []ir.Rule{
				rule(0, 1, all, ir.CT{Commit: true, Table: 3, NAT: &ir.NAT{Src: true, AddrMin: ir.U64(0x0a000001)}}),
				rule(3, 1, all.Eq(ir.IPSrc, 0), ir.Move{Src: ir.Whole(ir.CTState), Dst: ir.Whole(ir.Reg0)}, ir.Output{Port: 1}),
			},
		},
		{name: "an exceeded TTL ends it", set: map[ir.Field]uint64{ir.EthType: 0x0800, ir.IPTTL: 1}, rules: []ir.Rule{
			rule(0, 1, all, ir.DecTTL{}, ir.Output{Port: 1}),
		}},
		{name: "first bucket with weight", want: "71/0x0 1/0x0", rules: []ir.Rule{
			rule(0, 1, all, ir.Group{ID: 7}, ir.Output{Port: 1}),
		}},
		{name: "first bucket alive", want: "72/0x5 1/0x0", opts: Options{Dead: func(p uint32) bool { return p == 9 }}, rules: []ir.Rule{
			rule(0, 1, all, ir.Group{ID: 7}, ir.Output{Port: 1}),
		}},
		{name: "bundle", want: "8/0x0", opts: Options{Dead: func(p uint32) bool { return p == 9 }}, rules: []ir.Rule{
			rule(0, 1, all, ir.Bundle{Members: []uint16{9, 8, 7}}),
		}},
		{name: "length", want: "1/0x1", opts: Options{Length: 1501}, rules: []ir.Rule{
			rule(0, 1, all, ir.CheckPktLarger{Len: 1500, Dst: ir.Bit(ir.Reg0, 0)}, ir.Output{Port: 1}),
		}},
		{name: "tags", want: "1/0x1005", set: map[ir.Field]uint64{ir.VLANTCI: 0x1005}, rules: []ir.Rule{
			rule(0, 1, all, ir.PushVLAN{EtherType: 0x8100}, ir.StripVLAN{},
				ir.Move{Src: ir.Whole(ir.VLANTCI), Dst: ir.Sub{Field: ir.Reg0, N: 16}}, ir.StripVLAN{}, ir.StripVLAN{}, ir.Output{Port: 1}),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var pkt Packet
			for f, v := range c.set {
				pkt.Set(f, ir.U64(v))
			}
			r, err := program(c.rules...).Run(pkt, 0, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := ports(r); got != c.want {
				t.Errorf("Run = %q, want %q", got, c.want)
			}
		})
	}
}

func TestRunIsBounded(t *testing.T) {
	all := ir.Match{}
	for name, rules := range map[string][]ir.Rule{
		"loop":      {rule(0, 1, all, ir.Resubmit{Table: 0})},
		"explosion": {rule(0, 1, all, ir.Resubmit{Table: 1}, ir.Resubmit{Table: 1}), rule(1, 1, all, ir.Resubmit{Table: 0}, ir.Resubmit{Table: 0})},
		"conntrack": {rule(0, 1, all, ir.CT{Table: 0}, ir.CT{Table: 0})},
	} {
		if _, err := program(rules...).Run(Packet{}, 0, Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A conjunctive match is the conjunction of disjunctions that its members spell out: on random ones, Lookup agrees with the
// definition of ovs-fields(7).
func TestConjunctions(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	regs := []ir.Field{ir.Reg0, ir.Reg1, ir.Reg2}
	met := map[bool]int{}
	for range 2000 {
		n := 2 + rnd.IntN(2)
		dims := make([]map[uint64]bool, n)
		priority := uint16(1 + rnd.IntN(3))
		rules := []ir.Rule{
			rule(0, 2, ir.Match{}, ir.Output{Port: 1}),
			rule(0, priority, ir.Match{}.Eq(ir.ConjID, 9), ir.Output{Port: 2}),
		}
		for i := range dims {
			dims[i] = map[uint64]bool{}
			for range 1 + rnd.IntN(3) {
				v := rnd.Uint64N(4)
				dims[i][v] = true
				rules = append(rules, rule(0, priority, ir.Match{}.Eq(regs[i], v), ir.Conjunction{ID: 9, Clause: uint8(i), N: uint8(n)}))
			}
		}
		rnd.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
		var pkt Packet
		holds := priority > 2
		for i, r := range regs[:n] {
			v := rnd.Uint64N(4)
			pkt.Set(r, ir.U64(v))
			holds = holds && dims[i][v]
		}
		met[holds]++
		want := uint32(1)
		if holds {
			want = 2
		}
		res, err := program(rules...).Run(pkt, 0, Options{})
		if err != nil || len(res.Outputs) != 1 || res.Outputs[0].Port != want {
			t.Fatalf("%v: %s, %v, want port %d", rules, ports(res), err, want)
		}
	}
	if met[true] < 50 || met[false] < 50 {
		t.Errorf("satisfied and not: %v", met)
	}
}

// What is observed tells the whole story.
func TestObserve(t *testing.T) {
	p := program(
		rule(0, 1, ir.Match{}, ir.Clone{Actions: []ir.Action{ir.Resubmit{Table: 4}}}, ir.CT{Table: 3, Zone: 6}),
		rule(3, 1, ir.Match{}, ir.Controller{}),
	)
	var got []string
	_, err := p.Run(Packet{}, 0, Options{Observe: func(s Step) {
		line := strings.Repeat(".", s.Depth)
		switch s.Kind {
		case Lookup:
			line += fmt.Sprintf("table %d %v", s.Table, s.Rule != nil)
		case Act, Punt:
			line += fmt.Sprintf("%d %T", s.Kind, s.Action)
		case Resume:
			line += fmt.Sprintf("resume %d %#x %d", s.Table, s.CT, s.Zone)
		case Transmit, Note, Begin, End, Done:
			line += fmt.Sprint(s.Kind)
		}
		got = append(got, line)
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"table 0 true", ".1 ir.Clone", ".6", "..1 ir.Resubmit", "..table 4 false", ".7", ".1 ir.CT", "8",
		"resume 3 0x22 6", "table 3 true", ".1 ir.Controller", ".3 ir.Controller", "8",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}
