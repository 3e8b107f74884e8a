package specialize

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ir"
)

// A changing program is compared after each change with what it would be if it were made from nothing.
type changing struct {
	t     *testing.T
	rules map[string][]ir.Rule // by what they do
	order []string             // of the names, in which they are told to a program made from nothing
	in    Input
	kept  *Rules
	there map[string]bool
}

func newChanging(t *testing.T, rules map[string][]ir.Rule, order []string, in Input) *changing {
	t.Helper()
	if len(order) != len(rules) {
		t.Fatalf("%d names of %d", len(order), len(rules))
	}
	return &changing{t, rules, order, in, NewRules(), map[string]bool{}}
}

func (c *changing) check(step string) {
	c.t.Helper()
	fresh := NewRules()
	for _, name := range c.order {
		if c.there[name] {
			fresh.Replace(ownerOf(name), c.rules[name])
		}
	}
	if diff := cmp.Diff(textOf(c.t, fresh.Specialize(c.in)), textOf(c.t, c.kept.Specialize(c.in))); diff != "" {
		c.t.Errorf("%s (-from nothing +after what was):\n%s", step, diff)
	}
}

// toggle adds rules, or removes them if they are there.
func (c *changing) toggle(names ...string) {
	c.t.Helper()
	for _, name := range names {
		if c.there[name] = !c.there[name]; c.there[name] {
			c.kept.Replace(ownerOf(name), c.rules[name])
		} else {
			c.kept.Replace(ownerOf(name), nil)
		}
	}
	c.check(strings.Join(names, ", "))
}

const established = ctTrk | ctEst

var est = ir.Match{}.Masked(ir.CTState, established, established)

func ruleOf(table uint8, priority uint16, m ir.Match, actions ...ir.Action) ir.Rule {
	return ir.Rule{Table: table, Priority: priority, Match: m, Actions: actions}
}

// After each change the program is what it would be if it were made from nothing. Packets of two ports come to one chain, until the
// changes make a difference between them.
func TestMemo(t *testing.T) {
	var all ir.Match
	rule := ruleOf
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
		"some are decided by a register":  {rule(10, 50, all.Eq(ir.EthDst, 6).Eq(ir.Reg5, 1))},
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
		"port 1", "on", "deliver", "port 2", "some are decided by a register", "to a port that asks",
		"a register is asked for", "the input port is asked for", "for a datapath", "for another datapath", "nothing is decided any more",
		"the connection is asked again", "the table answers", "port 1 does not ask", "another table learns", "two of the same, one of them is",
	}
	in := Input{Ports: []Port{
		{OFPort: 1, Device: Device{Name: "v1", Ifindex: 11}, Enter: true},
		{OFPort: 2, Device: Device{Name: "v2", Ifindex: 12}, Enter: true},
		{OFPort: 3, Device: Device{Name: "v3", Ifindex: 13}},
		{OFPort: 4, Device: Device{Name: "v4", Ifindex: 14}},
	}}
	c := newChanging(t, rules, order, in)
	for _, name := range order {
		c.toggle(name)
		if strings.Contains(name, "asked") || strings.Contains(name, "decided") {
			c.toggle(name)
			c.toggle(name)
		}
		if strings.Contains(name, "decided") {
			c.toggle(name)
		}
	}
	c.in.Ports[2].Device.Ifindex = 23
	c.check("another device")
	c.in.Ports[2].Enter = true
	c.check("a port more")
	c.in.Ports = c.in.Ports[:3]
	c.check("a port less")
	c.in.Caps.NoFrag = true
	c.check("another kernel")
	for _, name := range order[4:] {
		c.toggle(name)
	}
}

// What is known of a chain is known to those that lead to it, however long the way to it is.
func TestMemoDepth(t *testing.T) {
	var all ir.Match
	rules := map[string][]ir.Rule{
		"from near": {ruleOf(0, 100, all.Eq(ir.InPort, 1), ir.CT{Zone: 5, Table: 20})},
		"from far":  {ruleOf(0, 100, all.Eq(ir.InPort, 2), ir.CT{Zone: 40, Table: 40})},
		"deliver":   {ruleOf(20, 10, est.Eq(ir.EthDst, 3), ir.Output{Port: 3})},
		"on":        {ruleOf(20, 5, est, ir.CT{Zone: 60, Table: 60})},
		"a drop":    {ruleOf(69, 20, est.Eq(ir.EthDst, 3))},
	}
	for i := range uint8(8) {
		to := ir.CT{Zone: 41 + uint16(i), Table: 41 + i}
		if i == 7 {
			to = ir.CT{Zone: 5, Table: 20}
		}
		rules["from far"] = append(rules["from far"], ruleOf(40+i, 10, est.Eq(ir.EthDst, 3), to), ruleOf(40+i, 5, est, to))
	}
	for i := range uint8(9) {
		to := ir.CT{Zone: 61 + uint16(i), Table: 61 + i}
		rules["on"] = append(rules["on"], ruleOf(60+i, 10, est.Eq(ir.EthDst, 3), to), ruleOf(60+i, 5, est, to))
	}
	rules["on"] = append(rules["on"], ruleOf(69, 10, est.Eq(ir.EthDst, 3), ir.Output{Port: 3}), ruleOf(69, 5, est, ir.Output{Port: 3}))
	c := newChanging(t, rules, []string{"from near", "from far", "deliver", "on", "a drop"}, Input{Ports: []Port{
		{OFPort: 1, Device: Device{Name: "v1", Ifindex: 11}, Enter: true},
		{OFPort: 2, Device: Device{Name: "v2", Ifindex: 12}, Enter: true},
		{OFPort: 3, Device: Device{Name: "v3", Ifindex: 13}},
	}})
	c.toggle("from near", "from far", "deliver")
	c.toggle("on") // from far it is too far
	c.toggle("a drop")
	c.toggle("on")
}

// Nobody is sent to a chain that decides nothing.
func TestMemoPunts(t *testing.T) {
	var all ir.Match
	rules := map[string][]ir.Rule{
		"port 1":           {ruleOf(0, 100, all.Eq(ir.InPort, 1), ir.CT{Zone: 5, Table: 9})},
		"decide":           {ruleOf(9, 10, est.Eq(ir.EthDst, 3)), ruleOf(9, 5, est, ir.Controller{})},
		"decide nothing":   {ruleOf(9, 20, est.Eq(ir.EthDst, 3), ir.Controller{})},
		"for other reason": {ruleOf(9, 30, est.Eq(ir.EthDst, 3), ir.Meter{ID: 1}), ruleOf(9, 25, est, ir.Meter{ID: 1})},
	}
	c := newChanging(t, rules, []string{"port 1", "decide", "decide nothing", "for other reason"}, Input{Ports: []Port{
		{OFPort: 1, Device: Device{Name: "v1", Ifindex: 11}, Enter: true},
	}})
	c.toggle("port 1", "decide")
	c.toggle("decide nothing")
	c.toggle("for other reason")
	c.toggle("for other reason")
	c.toggle("decide nothing")
}

// Those that lead to a chain that only leads on go where that leads, until it does something itself.
func TestMemoPasses(t *testing.T) {
	var all ir.Match
	reg5 := func(n uint64) ir.Match { return est.Eq(ir.Reg5, n) }
	rules := map[string][]ir.Rule{
		"port 1":                {ruleOf(0, 100, all.Eq(ir.InPort, 1), ir.SetWhole(ir.Reg5, 1), ir.CT{Zone: 5, Table: 9})},
		"port 2":                {ruleOf(0, 100, all.Eq(ir.InPort, 2), ir.SetWhole(ir.Reg5, 2), ir.CT{Zone: 5, Table: 9})},
		"on":                    {ruleOf(9, 50, reg5(1), ir.Resubmit{Table: 20}), ruleOf(9, 50, reg5(2), ir.Resubmit{Table: 20})},
		"port 1 decides itself": {ruleOf(9, 90, reg5(1).Eq(ir.EthDst, 3))},
	}
	for i := range uint64(20) {
		m := est.Eq(ir.EthDst, i)
		rules["deliver"] = append(rules["deliver"], ruleOf(20, 20, m.Eq(ir.CTMark, 1)), ruleOf(20, 10, m, ir.Output{Port: 3 + uint32(i%2)}))
	}
	c := newChanging(t, rules, []string{"port 1", "port 2", "on", "deliver", "port 1 decides itself"}, Input{Ports: []Port{
		{OFPort: 1, Device: Device{Name: "v1", Ifindex: 11}, Enter: true},
		{OFPort: 2, Device: Device{Name: "v2", Ifindex: 12}, Enter: true},
		{OFPort: 3, Device: Device{Name: "v3", Ifindex: 13}},
		{OFPort: 4, Device: Device{Name: "v4", Ifindex: 14}},
	}})
	c.toggle("port 1", "port 2", "on", "deliver")
	c.toggle("port 1 decides itself")
	c.toggle("port 1 decides itself")
}

// Nothing is remembered of datapaths that came and went, whether somebody asked for chains meanwhile or not.
func TestMemoIsBounded(t *testing.T) {
	var all ir.Match
	p := NewRules()
	in := Input{Ports: []Port{{OFPort: 1, Device: Device{Name: "v1", Ifindex: 11}, Enter: true}, {OFPort: 3, Device: Device{Name: "v3", Ifindex: 13}}}}
	// Ways of the datapath meet, so that there are chains of it.
	datapath := func(n uint64) []ir.Rule {
		of := all.Eq(ir.Metadata, n)
		rules := []ir.Rule{ruleOf(0, 100, all.Eq(ir.InPort, 1), ir.SetWhole(ir.Metadata, n), ir.Resubmit{Table: 9})}
		for i := range uint64(8) {
			rules = append(rules, ruleOf(9, 10, of.Eq(ir.EthSrc, i), ir.Resubmit{Table: 20}), ruleOf(20, 10, of.Eq(ir.EthDst, i), ir.Output{Port: 3}))
		}
		return rules
	}
	p.Replace(ownerOf("datapath"), datapath(1))
	first := p.Specialize(in)
	if len(first.States) != 2 {
		t.Fatalf("%d chains, want one for each family", len(first.States))
	}
	for n := range uint64(500) {
		p.Replace(ownerOf("datapath"), datapath(2+n))
		p.Specialize(in)
		if changes, positions := len(p.changed), len(p.memos[0].states); changes > 0 || positions != 1 {
			t.Fatalf("after datapath %d: %d changes and chains at %d positions are remembered", n, changes, positions)
		}
	}
	if n := len(p.memos[0].cuts); n > 300 {
		t.Errorf("%d places where chains end are remembered", n)
	}
	for n := range uint64(maxChanged) {
		p.Replace(ownerOf("datapath"), datapath(2 + n)[:2])
	}
	if n := len(p.changed); n > maxChanged {
		t.Errorf("%d changes are remembered while nobody asks", n)
	}
	p.Replace(ownerOf("datapath"), datapath(1))
	if diff := cmp.Diff(textOf(t, first), textOf(t, p.Specialize(in))); diff != "" {
		t.Errorf("the first datapath again (-first +again):\n%s", diff)
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

// An owner that is given the rules that it has changes nothing.
func TestSameRules(t *testing.T) {
	p := NewRules()
	p.memos[0] = &memo{}
	rules := func(output uint32) []ir.Rule {
		var m ir.Match
		return []ir.Rule{{Table: 3, Priority: 1, Match: m.Eq(ir.Metadata, 5), Actions: []ir.Action{ir.Set{Field: ir.Reg15, Value: ir.U64(uint64(output)), Mask: ir.Ones(32)}}}}
	}
	p.Replace(Owner{Part: 1}, rules(7))
	if len(p.changed) != 2 {
		t.Fatalf("changed %v", p.changed)
	}
	clear(p.changed)
	if p.Replace(Owner{Part: 1}, rules(7)); len(p.changed) != 0 {
		t.Errorf("the same rules change %v", p.changed)
	}
	if p.Replace(Owner{Part: 2}, nil); len(p.changed) != 0 {
		t.Errorf("no rules change %v", p.changed)
	}
	if p.Replace(Owner{Part: 1}, rules(8)); len(p.changed) == 0 {
		t.Error("another action changes nothing")
	}
	clear(p.changed)
	if p.Replace(Owner{Part: 1}, nil); len(p.changed) == 0 {
		t.Error("no rules any more change nothing")
	}
}
