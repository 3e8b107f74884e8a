package specialize

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ir"
)

// After each change the program is what it would be if it were made from nothing. Packets of two ports come to one chain, until the
// changes make a difference between them.
func TestMemo(t *testing.T) {
	var all ir.Match
	const established = ctTrk | ctEst
	est := all.Masked(ir.CTState, established, established)
	rule := func(table uint8, priority uint16, m ir.Match, actions ...ir.Action) ir.Rule {
		return ir.Rule{Table: table, Priority: priority, Match: m, Actions: actions}
	}
	from := func(port uint16) []ir.Rule {
		return []ir.Rule{rule(0, 100, all.Eq(ir.InPort, uint64(port)),
			ir.SetWhole(ir.Metadata, 7), ir.SetWhole(ir.Reg5, uint64(port)), ir.CT{Zone: 5, Table: 9})}
	}
	rules := map[string][]ir.Rule{
		"port 1":  from(1),
		"port 2":  from(2),
		"on":      {rule(9, 10, est.Eq(ir.Metadata, 7), ir.Resubmit{Table: 10})},
		"deliver": {rule(10, 10, all.Eq(ir.EthDst, 3), ir.Output{Port: 3}), rule(10, 5, all.Eq(ir.EthDst, 4), ir.Output{Port: 4})},

		"a register is asked for":         {rule(10, 50, all.Eq(ir.Reg5, 1))},
		"the input port is asked for":     {rule(10, 60, all.Eq(ir.InPort, 2))},
		"for a datapath":                  {rule(10, 70, all.Eq(ir.Metadata, 7).Eq(ir.IPProto, 6), ir.Output{Port: 3})},
		"for another datapath":            {rule(10, 80, all.Eq(ir.Metadata, 8))},
		"nothing is decided any more":     {rule(9, 90, all, ir.Controller{})},
		"the connection is asked again":   {rule(10, 90, all.Eq(ir.EthDst, 3), ir.CT{Zone: 6, Table: 11}), rule(11, 1, est, ir.Output{Port: 3})},
		"to a port that asks":             {rule(10, 97, all.Eq(ir.EthDst, 5), ir.Output{Port: 2})},
		"the table answers":               {rule(10, 95, all.Eq(ir.EthDst, 9), ir.SetWhole(ir.Reg6, 1))},
		"port 1 does not ask":             {rule(0, 200, all.Eq(ir.InPort, 1).Eq(ir.EthDst, 3), ir.Output{Port: 3})},
		"another table learns":            {rule(30, 1, all, ir.Learn{Table: 10})},
		"two of the same, one of them is": {rule(10, 50, all.Eq(ir.Reg5, 1), ir.Output{Port: 4})},
	}
	order := []string{
		"port 1", "on", "deliver", "port 2", "to a port that asks",
		"a register is asked for", "the input port is asked for", "for a datapath", "for another datapath", "nothing is decided any more",
		"the connection is asked again", "the table answers", "port 1 does not ask", "another table learns", "two of the same, one of them is",
	}
	in := Input{Ports: []Port{
		{OFPort: 1, Device: Device{"v1", 11}, Enter: true},
		{OFPort: 2, Device: Device{"v2", 12}, Enter: true},
		{OFPort: 3, Device: Device{"v3", 13}},
		{OFPort: 4, Device: Device{"v4", 14}},
	}}
	kept := NewRules()
	there := map[string]bool{}
	check := func(step string) {
		t.Helper()
		fresh := NewRules()
		for _, name := range order {
			if there[name] {
				fresh.Replace(ownerOf(name), rules[name])
			}
		}
		if diff := cmp.Diff(textOf(t, fresh.Specialize(in)), textOf(t, kept.Specialize(in))); diff != "" {
			t.Errorf("%s (-from nothing +after what was):\n%s", step, diff)
		}
	}
	toggle := func(name string) {
		t.Helper()
		if there[name] = !there[name]; there[name] {
			kept.Replace(ownerOf(name), rules[name])
		} else {
			kept.Replace(ownerOf(name), nil)
		}
		check(name)
	}
	for _, name := range order {
		toggle(name)
		if strings.Contains(name, "asked") || strings.Contains(name, "decided") {
			toggle(name)
			toggle(name)
		}
		if strings.Contains(name, "decided") {
			toggle(name)
		}
	}
	in.Ports[2].Device.Ifindex = 23
	check("another device")
	in.Ports[2].Enter = true
	check("a port more")
	in.Ports = in.Ports[:3]
	check("a port less")
	in.Caps.NoFrag = true
	check("another kernel")
	for _, name := range order[4:] {
		toggle(name)
	}
}

func ownerOf(name string) (o Owner) {
	copy(o.Row[:], name)
	return o
}

func textOf(t *testing.T, p *Program) []string {
	t.Helper()
	var b strings.Builder
	if err := p.Text(&b); err != nil {
		t.Fatal(err)
	}
	return strings.Split(b.String(), "\n")
}
