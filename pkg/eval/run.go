package eval

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Flags of ct_state, see ovs-fields(7).
const (
	StateNew = 1 << iota
	StateEst
	StateRel
	StateRpl
	StateInv
	StateTrk
	StateSNAT
	StateDNAT
)

// Options are assumptions about what only a switch knows.
type Options struct {
	// CT is what each lookup in the connection tracker finds, in the order of the lookups: flags of ct_state, to which
	// StateTrk is added. Once used up it is an established connection.
	CT []uint32

	// Track, if it is not nil, is asked instead of CT. It may be asked about the same packet several times, and gives the same
	// answer as long as the connection tracker is the same.
	Track Tracker

	// Length is that of the packet in bytes.
	Length int

	// Dead says that a port is not live, for groups and bundles. nil: all are.
	Dead func(port uint32) bool

	// Observe, if it is not nil, is called with everything that happens, in order.
	Observe func(Step)
}

// A Tracker tells what a lookup of a packet in a zone of the connection tracker finds.
type Tracker func(zone uint16, pkt *Packet) Conn

// A Conn is a connection as a packet's lookup finds it. State are flags of ct_state, to which StateTrk is added. NAT is what
// translation makes of the packet if the lookup asks for it; of one that is new it makes nothing.
type Conn struct {
	State, Mark uint32
	Label       ir.U128
	NAT         []ir.Set
}

// A StepKind says what a Step is.
type StepKind uint8

// The kinds of steps.
const (
	Lookup   StepKind = iota // a packet is looked up in Table and meets Rule, nil for none
	Act                      // Action is about to be executed
	Transmit                 // a packet leaves by Port
	Punt                     // a packet goes to the controller; Action is the ir.Controller, or the ir.DecTTL that found its TTL exceeded
	Note                     // Text is said about the action at hand
	Resume                   // the connection tracker sends a packet back with the state CT, from the lookup in Zone
	Begin                    // a copy of the packet begins to be executed, which ends with End; Last says that nothing follows it
	End
	Done // nothing is left to do with the packet but what the connection tracker sends back
)

// A Step is something that happens to a packet.
type Step struct {
	Kind StepKind
	// Depth counts the resubmits and copies that the step is nested in.
	Depth  int
	Packet *Packet // as it is before an action; valid during the call
	Table  uint8
	Rule   *Rule
	Action ir.Action
	Port   uint32
	Text   string
	CT     uint32
	Zone   uint16
	Last   bool
}

// An Output is a packet that leaves the switch.
type Output struct {
	Port   uint32
	Packet Packet
}

// A Result is what has become of a packet. Nothing in it: it was dropped.
type Result struct {
	Outputs []Output
	// PacketIns counts the packets that went to the controller.
	PacketIns int
	// CT is the states that were assumed, one for each lookup in the connection tracker.
	CT []uint32
	// Commits and Learns count what the packet left behind: connections committed, flows learned.
	Commits, Learns int
	// Meters, Queues and Samples count what happened to it that is not seen in Outputs: limits of its rate, queues chosen for it,
	// samples taken.
	Meters, Queues, Samples int
}

// The limits of Open vSwitch (MAX_DEPTH, MAX_RESUBMITS), and bounds on what it limits by memory.
const (
	maxDepth      = 64
	maxResubmits  = maxDepth * maxDepth
	maxStack      = 8192 // values
	maxNested     = 64   // clones within clones
	maxRecirc     = 256
	maxOutputs    = 4096
	maxOperations = 1 << 16
)

// Run sends pkt through p from table on. The error is a limit that was reached; the result is what had happened until then.
func (p *Program) Run(pkt Packet, table uint8, o Options) (Result, error) {
	m := machine{program: p, options: o}
	m.queue = []pass{{packet: pkt, table: table}}
	for len(m.queue) > 0 && m.err == nil {
		next := m.queue[0]
		m.queue = m.queue[1:]
		m.resubmits = 0
		t := thread{machine: &m, packet: next.packet, stack: next.stack}
		if next.tracked {
			t.resume(next)
		}
		t.table(next.table, false)
		t.observe(Step{Kind: Done})
	}
	return m.result, m.err
}

// A pass is a packet that is waiting to be looked up.
type pass struct {
	packet  Packet
	stack   []ir.U128
	table   uint8
	tracked bool
	zone    uint16
	nat     *ir.NAT
}

// A machine is what all threads of a packet share.
type machine struct {
	program    *Program
	options    Options
	queue      []pass
	resubmits  int // of this pass
	recircs    int
	operations int
	result     Result
	err        error
}

// A thread is one packet that is being executed.
type thread struct {
	*machine
	packet  Packet
	stack   []ir.U128
	current uint8 // table
	depth   int   // as Open vSwitch counts it: resubmits to a table that is not further on
	level   int   // of nesting
	nested  int   // clones
	last    bool  // the action at hand is the last of its list
	exit    bool  // nothing more is done with the packet
}

func (t *thread) observe(s Step) {
	if t.options.Observe != nil {
		s.Depth, s.Packet = t.level, &t.packet
		t.options.Observe(s)
	}
}

func (t *thread) note(format string, args ...any) {
	t.observe(Step{Kind: Note, Text: fmt.Sprintf(format, args...)})
}

func (t *thread) fail(format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf("eval: "+format, args...)
		t.note("%v", t.err)
	}
}

// resume gives the packet the state that the connection tracker is assumed to find.
func (t *thread) resume(p pass) {
	state := uint32(StateEst)
	var known *Conn
	if n := len(t.result.CT); t.options.Track != nil {
		c := t.options.Track(p.zone, &t.packet)
		state, known = c.State, &c
		t.packet.Set(ir.CTMark, ir.U64(uint64(c.Mark)))
		t.packet.Set(ir.CTLabel, c.Label)
	} else if n < len(t.options.CT) {
		state = t.options.CT[n]
	}
	state |= StateTrk
	switch {
	case p.nat == nil || state&StateInv != 0:
	case known != nil && state&StateNew == 0: // it is translated as its first packet was
		for _, x := range known.NAT {
			t.packet.setMasked(x.Field, x.Value, x.Mask)
		}
	default:
		state |= uint32(t.packet.translate(p.nat))
	}
	t.result.CT = append(t.result.CT, state)
	t.packet.Set(ir.CTState, ir.U64(uint64(state)))
	t.packet.Set(ir.CTZone, ir.U64(uint64(p.zone)))
	t.observe(Step{Kind: Resume, CT: state, Zone: p.zone, Table: p.table})
}

// table looks the packet up and executes what it meets. deepens says that this may be a loop.
func (t *thread) table(table uint8, deepens bool) {
	switch {
	case t.depth >= maxDepth:
		t.fail("more than %d resubmits to earlier tables within each other", maxDepth)
		return
	case t.resubmits >= maxResubmits:
		t.fail("more than %d resubmits", maxResubmits)
		return
	}
	t.resubmits++
	from := t.current
	t.current = table
	r := t.program.Lookup(table, &t.packet)
	t.observe(Step{Kind: Lookup, Table: table, Rule: r})
	if r != nil {
		if deepens {
			t.depth++
		}
		t.level++
		t.execute(r.Actions)
		t.level--
		if deepens {
			t.depth--
		}
	}
	t.current = from
}

func (t *thread) execute(actions []ir.Action) {
	for i, a := range actions {
		if t.exit || t.err != nil {
			return
		}
		if t.operations++; t.operations > maxOperations {
			t.fail("more than %d actions", maxOperations)
			return
		}
		if _, member := a.(ir.Conjunction); !member {
			t.observe(Step{Kind: Act, Action: a})
		}
		t.last = i == len(actions)-1
		t.action(a)
	}
}

func (t *thread) action(a ir.Action) {
	p := &t.packet
	switch a := a.(type) {
	case ir.Output:
		t.output(a.Port)
	case ir.Resubmit:
		t.table(a.Table, a.Table <= t.current)
	case ir.Set:
		p.setMasked(a.Field, a.Value, a.Mask)
	case ir.Move:
		p.SetBits(a.Dst, p.Bits(a.Src))
	case ir.Push:
		if len(t.stack) == maxStack {
			t.fail("more than %d values on the stack", maxStack)
			return
		}
		t.stack = append(t.stack, p.Bits(a.Sub))
	case ir.Pop:
		if len(t.stack) == 0 {
			t.note("the stack is empty")
			return
		}
		p.SetBits(a.Sub, t.stack[len(t.stack)-1])
		t.stack = t.stack[:len(t.stack)-1]
	case ir.StripVLAN:
		p.popVLAN()
	case ir.PushVLAN:
		p.pushVLAN()
	case ir.DecTTL:
		t.decTTL(a)
	case ir.CTClear:
		p.untrack()
	case ir.CT:
		t.ct(a)
	case ir.Clone:
		t.exit = t.clone(a.Actions) // what cuts a copy short cuts its original short, too
	case ir.Conjunction:
	case ir.Group:
		t.group(a.ID)
	case ir.Controller:
		t.result.PacketIns++
		t.observe(Step{Kind: Punt, Action: a})
		if a.Pause {
			t.exit = true
			t.note("the packet waits for the controller")
		}
	case ir.Learn:
		t.result.Learns++
		t.note("nothing is learned into table %d", a.Table)
	case ir.Meter:
		t.result.Meters++
		t.note("meter %d lets the packet pass", a.ID)
	case ir.CheckPktLarger:
		larger := uint64(0)
		if t.options.Length > int(a.Len) {
			larger = 1
		}
		p.SetBits(a.Dst, ir.U64(larger))
	case ir.Bundle:
		t.bundle(a)
	case ir.SetQueue:
		t.result.Queues++
	case ir.Sample:
		t.result.Samples++
	case ir.Note:
	default:
		panic(fmt.Sprintf("eval: action %T", a))
	}
}

// output sends the packet out, unless that is where it came from.
func (t *thread) output(port uint32) {
	if ir.U64(uint64(port)) == t.packet.Value(ir.InPort) {
		t.note("port %d is where the packet came from: it is not sent back", port)
		return
	}
	if len(t.result.Outputs) == maxOutputs {
		t.fail("more than %d outputs", maxOutputs)
		return
	}
	t.result.Outputs = append(t.result.Outputs, Output{port, t.packet})
	t.observe(Step{Kind: Transmit, Port: port})
}

func (t *thread) decTTL(a ir.DecTTL) {
	if !t.packet.isIP() {
		return
	}
	ttl := t.packet.Value(ir.IPTTL).Lo
	if ttl > 1 {
		t.packet.Set(ir.IPTTL, ir.U64(ttl-1))
		return
	}
	t.observe(Step{Kind: Punt, Action: a})
	t.exit = true
}

// clone executes actions on a copy of the packet. It reports whether they were cut short.
func (t *thread) clone(actions []ir.Action) (exit bool) {
	if t.nested == maxNested {
		t.fail("more than %d copies within each other", maxNested)
		return true
	}
	c := *t
	c.stack = append([]ir.U128(nil), t.stack...)
	c.nested++
	c.level++
	t.observe(Step{Kind: Begin, Last: t.last})
	c.execute(actions)
	t.observe(Step{Kind: End})
	return c.exit
}

// ct sends the packet to the connection tracker. A copy comes back if there is a table for it; the packet itself goes on untracked.
func (t *thread) ct(a ir.CT) {
	zone := a.Zone
	if a.ZoneFrom.Field != 0 {
		zone = uint16(t.packet.Bits(a.ZoneFrom).Lo)
	}
	if a.Commit {
		t.result.Commits++
	}
	for _, x := range a.Exec {
		t.action(x)
	}
	if a.Table != ir.NoTable {
		if t.recircs++; t.recircs > maxRecirc {
			t.fail("more than %d lookups in the connection tracker", maxRecirc)
			return
		}
		t.queue = append(t.queue, pass{
			packet: t.packet, stack: append([]ir.U128(nil), t.stack...), table: a.Table, tracked: true, zone: zone, nat: a.NAT,
		})
	}
	t.packet.untrack()
}

func (t *thread) live(port uint32) bool { return t.options.Dead == nil || !t.options.Dead(port) }

// group takes the first bucket of a group that is alive. The switch takes one by hash and weight.
func (t *thread) group(id uint32) {
	g, ok := t.program.groups[id]
	if !ok {
		t.note("there is no group %d", id)
		return
	}
	for i, b := range g.Buckets {
		if b.Weight == 0 || b.WatchPort != 0 && !t.live(b.WatchPort) {
			continue
		}
		t.note("bucket %d, the first that is alive of the %d of group %d", i, len(g.Buckets), id)
		t.clone(b.Actions)
		return
	}
	t.note("group %d has no bucket that is alive", id)
}

// bundle sends the packet out of the first port that is alive.
func (t *thread) bundle(a ir.Bundle) {
	for _, port := range a.Members {
		if t.live(uint32(port)) {
			t.output(uint32(port))
			return
		}
	}
	t.note("no port of the bundle is alive")
}
