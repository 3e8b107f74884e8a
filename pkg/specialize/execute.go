package specialize

import (
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Within a chain the rules are executed as Open vSwitch would: on a packet of which something is known, each of the ways that it may go.

// A frame is what is left to do when a table has been dealt with.
type frame struct {
	rest []ir.Action
	next *frame
}

// branch takes the rules of a table that the packet may meet, one after the other.
func (m *machine) branch(table uint8, next *frame) {
	rules := m.candidates(table)
	if m.faults.candidates != nil {
		rules = m.faults.candidates(rules)
	}
	for i, r := range rules {
		if m.stopped() {
			return
		}
		if r.conj != nil {
			continue
		}
		if r.isConj {
			if m.conjunction(rules, i, next) {
				return
			}
			continue
		}
		needs, a := m.ask(r.Match)
		if a == never {
			continue
		}
		if bit, ok := connectionBit(needs); ok {
			m.split(bit, table, next)
			return
		}
		m.take(r, needs, a, next)
		if a == always {
			return
		}
	}
	m.resume(next)
}

// connectionBit returns the first condition on a single bit of a connection. Most packets' ways part there, and the rules of
// several tables ask for it.
func connectionBit(needs []need) (need, bool) {
	for _, n := range needs {
		if (n.field == ir.CTState || n.field == ir.CTMark) && n.mask.OnesCount() == 1 {
			return n, true
		}
	}
	return need{}, false
}

// split goes on in a table once with the bit as it is asked for, and once with the other one. Without it the rules that remain
// would be asked about packets that earlier ones have had already, in every table again.
func (m *machine) split(n need, table uint8, next *frame) {
	for _, val := range []ir.U128{n.val, n.val.Xor(n.mask)} {
		mark, here := len(m.trail), m.here
		if m.assume([]need{{n.field, val, n.mask}}) {
			m.branch(table, next)
		}
		m.back(mark)
		m.here = here
		if m.stopped() {
			return
		}
	}
}

// take goes the way of a rule.
func (m *machine) take(r *Rule, needs []need, a answer, next *frame) {
	mark, here := len(m.trail), m.here
	m.here.path = &pathCell{r, m.here.path}
	switch {
	case !m.assume(needs):
	case a == unable:
		m.punt(NoKey)
	default:
		m.execute(r.Actions, next)
	}
	m.back(mark)
	m.here = here
}

// maxProduct bounds the rules that one conjunctive match becomes.
const maxProduct = 4096

// conjunction takes rules[at], which asks for a conjunction, with each combination of its members. It reports whether all packets
// of the cube have gone that way.
func (m *machine) conjunction(rules []*Rule, at int, next *frame) (all bool) {
	r := rules[at]
	own, a := m.ask(r.Match)
	if a == never {
		return false
	}
	type member struct {
		rule  *Rule
		needs []need
		a     answer
	}
	var dims [][]member
	for _, x := range rules {
		for _, c := range x.conj {
			if c.ID != r.conjID || x.Priority != r.Priority {
				continue
			}
			for len(dims) < int(c.N) {
				dims = append(dims, nil)
			}
			if needs, a := m.ask(x.Match); a != never {
				dims[c.Clause] = append(dims[c.Clause], member{x, needs, a})
			}
		}
	}
	product := 1
	for _, d := range dims {
		product *= len(d)
		if product > maxProduct {
			m.take(r, own, unable, nil)
			return a == always
		}
	}
	if len(dims) == 0 || product == 0 {
		return false
	}
	chosen := make([]member, len(dims))
	var combine func(dim int)
	combine = func(dim int) {
		if m.stopped() || all {
			return
		}
		if dim < len(dims) {
			for _, c := range dims[dim] {
				chosen[dim] = c
				combine(dim + 1)
			}
			return
		}
		mark, here := len(m.trail), m.here
		result, possible := a, m.assume(own)
		for _, c := range chosen {
			if !possible {
				break
			}
			needs, b := m.ask(c.rule.Match) // under what the others ask
			if b == never {
				possible = false
				break
			}
			result = worse(result, worse(b, c.a))
			m.here.path = &pathCell{c.rule, m.here.path}
			possible = m.assume(needs)
		}
		if possible {
			m.take(r, nil, result, next)
			all = result == always
		}
		m.back(mark)
		m.here = here
	}
	combine(0)
	return all
}

// worse returns the one of two answers that says less.
func worse(a, b answer) answer {
	switch {
	case a == unable || b == unable:
		return unable
	case a == maybe || b == maybe:
		return maybe
	}
	return always
}

// A candidateKey is all that decides which rules of a table a packet may meet as far as their indexes tell.
type candidateKey struct {
	table          uint8
	dp             uint64
	port           uint16
	output, input  uint32
	noOutput, noIn bool // the logical port is not known
}

// candidates returns the rules of a table that the packet may meet as far as their indexes tell, the largest priority first, without
// those that the bridge does not have because others are in their place.
func (m *machine) candidates(table uint8) []*Rule {
	t := &m.walk.rules.tables[table]
	dp, port, out, in := &m.field[ir.Metadata], &m.field[ir.InPort], &m.field[regOutport], &m.field[regInport]
	key := candidateKey{table: table}
	m.trace.ask(source{indexSource, table, primary{field: ir.InPort}})
	m.trace.ask(source{indexSource, table, primary{field: ir.Metadata}})
	if t.primaries[ir.InPort] > 0 {
		m.read(ir.InPort, ir.InPort.Ones())
		key.port = uint16(port.val.Lo)
	}
	known := dp.known == ir.Metadata.Ones()
	if t.primaries[ir.Metadata] > 0 {
		m.read(ir.Metadata, ir.Metadata.Ones())
		key.dp = dp.val.Lo
	}
	if t.secondaries[regOutport] > 0 {
		key.output, key.noOutput = uint32(out.val.Lo), out.known != regOutport.Ones()
	}
	if t.secondaries[regInport] > 0 {
		key.input, key.noIn = uint32(in.val.Lo), in.known != regInport.Ones()
	}
	var buckets []*bucket
	add := func(p primary) {
		m.trace.ask(source{bucketSource, table, p})
		if b := t.buckets[p]; b != nil {
			buckets = append(buckets, b)
			for _, f := range [...]ir.Field{regOutport, regInport} {
				if b.byPort[f] > 0 {
					m.read(f, f.Ones())
				}
			}
		}
	}
	add(primary{})
	add(primary{ir.InPort, port.val.Lo})
	if known {
		add(primary{ir.Metadata, dp.val.Lo})
	} else {
		m.trace.ask(source{kind: unknownSource})
		for p := range t.buckets {
			if p.field == ir.Metadata {
				add(p)
			}
		}
	}
	if known {
		if rules, ok := m.merged[key]; ok {
			return rules
		}
	}
	var lists [][]*Rule
	for _, b := range buckets {
		lists = m.ofBucket(lists, b)
	}
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, compareRules)
	all = slices.CompactFunc(all, func(a, b *Rule) bool {
		return a.conj == nil && b.conj == nil && a.Priority == b.Priority && a.Match.Equal(b.Match)
	})
	if known {
		m.merged[key] = all
	}
	return all
}

// ofBucket adds the lists of b that the packet's logical ports allow.
func (m *machine) ofBucket(lists [][]*Rule, b *bucket) [][]*Rule {
	for _, f := range [...]ir.Field{0, regOutport, regInport} {
		if b.byPort[f] == 0 {
			continue
		}
		if f == 0 {
			lists = append(lists, b.rules[secondary{}])
			continue
		}
		v := &m.field[f]
		if v.known == f.Ones() {
			if l := b.rules[secondary{f, uint32(v.val.Lo)}]; len(l) > 0 {
				lists = append(lists, l)
			}
			continue
		}
		for key := range b.rules {
			if key.field == f {
				lists = append(lists, b.rules[key])
			}
		}
	}
	return lists
}

// resume goes on with what is left.
func (m *machine) resume(next *frame) {
	switch {
	case next != nil:
		m.execute(next.rest, next.next)
	case m.here.output != nil:
		m.leaf(m.here.output)
	default:
		m.leaf(Drop{})
	}
}

// execute executes actions and goes on with next.
func (m *machine) execute(actions []ir.Action, next *frame) {
	for i, a := range actions {
		rest := actions[i+1:]
		alone := next == nil && !effective(rest) // nothing that follows makes a difference
		reason := NoReason
		switch a := a.(type) {
		case ir.Resubmit:
			switch {
			case m.walk.rules.learns[a.Table] > 0:
				reason = LearnedTable
			case alone:
				m.lookup(a.Table, nil)
				return
			case !m.returns(a.Table) && effective(rest):
				reason = SeveralCopies
			default:
				m.lookup(a.Table, &frame{rest, next})
				return
			}
		case ir.Clone:
			if m.state.Tunnelled {
				reason = Transit
				break
			}
			if alone {
				m.execute(a.Actions, nil)
				return
			}
			reason = SeveralCopies
		case ir.CT:
			if reason = m.tracks(a); reason == NoReason && (!alone || m.here.output != nil) {
				reason = SeveralCopies
			}
			if reason == NoReason {
				m.track(a)
				return
			}
		case ir.Output:
			reason = m.output(a.Port)
		case ir.Set:
			if slices.Contains(fixed, a.Field) {
				reason = CopiedField // there is no way back to what TC can send
				break
			}
			m.load(a)
		case ir.Move:
			if slices.Contains(fixed, a.Dst.Field) {
				reason = CopiedField
				break
			}
			m.put(a.Dst, m.get(a.Src))
		case ir.Push:
			m.push(a.Sub)
		case ir.Pop:
			if !m.pop(a.Sub) {
				reason = TooDeep
			}
		case ir.CTClear:
			m.untrack()
		case ir.DecTTL:
			reason = m.decTTL()
		case ir.StripVLAN:
			if v := m.get(ir.Whole(ir.VLANTCI)); v.known != ir.VLANTCI.Ones() || !v.val.IsZero() {
				reason = VLANTag
			}
		case ir.PushVLAN:
			reason = VLANTag
		case ir.Group:
			reason = SelectGroup
		case ir.Controller:
			reason = PacketIn
		case ir.Learn:
			reason = Learns
		case ir.Meter:
			reason = Metered
		case ir.SetQueue:
			reason = Queued
		case ir.CheckPktLarger:
			reason = PacketSize
		case ir.Sample:
			reason = Sampled
		case ir.Bundle:
			reason = Failover
		case ir.Note, ir.Conjunction:
		}
		if reason != NoReason {
			m.punt(reason)
			return
		}
	}
	m.resume(next)
}

// effective reports whether actions can make a difference to what becomes of the packet, if nothing comes after them.
func effective(actions []ir.Action) bool {
	for _, a := range actions {
		switch a.(type) {
		case ir.Set, ir.Move, ir.Push, ir.Pop, ir.CTClear, ir.StripVLAN, ir.PushVLAN, ir.Note, ir.Conjunction:
		case ir.Output, ir.Resubmit, ir.DecTTL, ir.CT, ir.Clone, ir.Group, ir.Controller, ir.Learn, ir.Meter, ir.SetQueue,
			ir.CheckPktLarger, ir.Sample, ir.Bundle:
			return true
		}
	}
	return false
}

// returns reports whether a table only sets fields, as far as one can see from its rules.
func (w *walk) returns(table uint8) bool {
	sub, known := w.subroutine[table]
	if known {
		return sub
	}
	w.subroutine[table] = false // while this is found out; tables in a circle deliver
	sub = true
	for _, b := range w.rules.tables[table].buckets {
		for _, list := range b.rules {
			for _, r := range list {
				for _, a := range r.Actions {
					if next, ok := a.(ir.Resubmit); ok {
						sub = sub && w.returns(next.Table)
					} else {
						sub = sub && !effective([]ir.Action{a})
					}
				}
			}
		}
	}
	w.subroutine[table] = sub
	return sub
}

// untrack forgets the connection.
func (m *machine) untrack() {
	for f := ir.CTState; f <= ir.CTTPDst; f++ {
		m.set(f, constant(f, ir.U128{}), f.Ones())
	}
}

// decTTL decrements the TTL, and leaves packets whose TTL does not suffice to Open vSwitch.
func (m *machine) decTTL() Reason {
	m.read(ir.IPTTL, ir.IPTTL.Ones())
	v := m.field[ir.IPTTL]
	if v.known == ir.Ones(8) {
		if v.val.Lo <= 1 {
			return ShortTTL
		}
		m.set(ir.IPTTL, constant(ir.IPTTL, ir.U64(v.val.Lo-1)), ir.Ones(8))
		return NoReason
	}
	if !v.isOriginal(ir.IPTTL, ir.Ones(8)) {
		return CopiedField
	}
	for ; m.here.ttlMin < m.here.ttlDec+2; m.here.ttlMin++ {
		ttl, c := ir.U64(uint64(m.here.ttlMin)), m.cube[ir.IPTTL]
		if !c.val.Xor(ttl).And(c.mask).IsZero() {
			continue // not in the cube
		}
		mark := len(m.trail)
		if m.assume([]need{{ir.IPTTL, ttl, ir.Ones(8)}}) {
			m.punt(ShortTTL)
		}
		m.back(mark)
	}
	m.here.ttlDec++
	return NoReason
}

// tracks says why filters cannot do what a ct action does.
func (m *machine) tracks(a ir.CT) Reason {
	switch {
	case a.Commit, a.Force, len(a.Exec) > 0, a.Alg != 0, a.Table == ir.NoTable:
		return Commits
	case a.NAT != nil:
		return Translates
	case m.walk.rules.learns[a.Table] > 0:
		return LearnedTable
	case m.here.output != nil:
		return SeveralCopies
	}
	return NoReason
}

// The bits of ct_state, see ovs-fields(7).
const (
	ctNew = 1 << iota
	ctEst
	ctRel
	ctRpl
	ctInv
	ctTrk
	ctSNAT
	ctDNAT
)

// track asks the connection tracker and goes on, for packets of established connections, in a chain of its own.
func (m *machine) track(a ir.CT) {
	zone := a.Zone
	if a.ZoneFrom.Field != 0 {
		v := m.get(a.ZoneFrom)
		if v.known != ir.Ones(a.ZoneFrom.N) {
			m.punt(NoKey)
			return
		}
		zone = uint16(v.val.Lo)
	}
	mark := len(m.trail)
	m.untrack()
	for _, f := range carriers { // what they stood for is not to be had any more
		v := m.field[f]
		if lost := v.alias; !lost.IsZero() && ofConnection(v.src) {
			m.read(f, lost)
			v.alias = ir.U128{}
			m.set(f, v, lost)
		}
	}
	// A connection that an application-level gateway expects is related for Open vSwitch, as long as it lasts, and established for
	// flower. OVN has no such gateways: tracks refuses them.
	m.set(ir.CTState, value{known: ir.U64(ctNew | ctEst | ctRel | ctInv | ctTrk), val: ir.U64(ctEst | ctTrk), alias: ir.U64(ctRpl), src: ir.CTState}, ir.CTState.Ones())
	m.set(ir.CTMark, original(ir.CTMark), ir.CTMark.Ones())
	m.set(ir.CTLabel, original(ir.CTLabel), ir.CTLabel.Ones())
	m.set(ir.CTZone, constant(ir.CTZone, ir.U64(uint64(zone))), ir.CTZone.Ones())
	for f := ir.CTNWSrc; f <= ir.CTTPDst; f++ {
		m.set(f, value{}, f.Ones())
	}
	m.boundary(a.Table, position{tracked: true, zone: zone}, func(s *State) Verdict { return Lookup{zone, s} })
	m.back(mark)
}

// leaf adds a rule for all packets of the cube.
func (m *machine) leaf(v Verdict) {
	if m.stopped() {
		return
	}
	if len(m.rules) >= m.budget.ChainRules || m.total+len(m.rules) >= m.budget.TotalRules {
		m.full, m.truncated = true, true
		return
	}
	match := m.match()
	for i, t := range match {
		whole := t.Field == ir.TunID && t.Mask == ir.Ones(24)
		switch {
		case whole:
			match[i].Mask = ir.TunID.Ones() // the other bits are 0
		case t.Field == ir.TunID, t.Field == ir.CTLabel && m.in.Caps.WholeLabel && t.Mask != t.Field.Ones():
			// flower compares the VNI as a whole, and mlx5 labels.
			v = Punt{NoKey}
			match = slices.Delete(slices.Clone(match), i, i+1)
		default:
			continue
		}
		break
	}
	var path []*Rule
	for c := m.here.path; c != nil; c = c.before {
		path = append(path, c.rule)
	}
	slices.Reverse(path)
	m.rules = append(m.rules, Leaf{Match: match, Verdict: v, Path: path})
}

func (m *machine) punt(r Reason) { m.leaf(Punt{r}) }
