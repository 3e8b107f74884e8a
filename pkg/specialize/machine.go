package specialize

import (
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// A machine walks one chain: it holds a packet of which only some is known, and goes back to each branch to take the next.
type machine struct {
	*walk
	depth int // chains before this one

	state *State // what the chain is, as far as it is known before the walk

	field     [256]value
	inherited [256]ir.U128 // bits that are as they were when the chain began
	reads     [256]ir.U128 // of those, bits that something depended on
	cube      [256]condition
	notPorts  map[uint16]struct{}
	trail     []undo
	hash      uint64 // of the fields for which isShape holds

	here moment

	rules  []Leaf
	height int
	trace  trace

	// To find what is reached by several paths: visits by position and fields.
	joins  map[uint64]*join
	order  []uint64 // the places of joins, as they were reached
	limit  int      // how many rules there may be when something is tried; 0: as many as the budget allows
	review int      // how many rules there are when joins are looked at next

	// Why the walk of the chain ends early: to begin anew with another cut; because the budget is used up; because something asked
	// for the connection, where the chain is to be the same for all.
	restart, full, asksConnection bool
}

// stopped reports whether the walk of the chain ends early.
func (m *machine) stopped() bool { return m.restart || m.full || m.asksConnection || m.over() }

// over reports whether more has come of what is tried than may.
func (m *machine) over() bool { return m.limit > 0 && len(m.rules) > m.limit }

// ofConnection reports whether a field is of the connection that was looked up.
func ofConnection(f ir.Field) bool { return f >= ir.CTState && f <= ir.CTTPDst }

// isShape reports whether a field counts for finding what is reached by several paths. The connection and the port that a packet
// came in by are often all that differs, and often not asked for.
func isShape(f ir.Field) bool { return f != ir.InPort && !ofConnection(f) }

// A moment is what a branch restores besides the fields.
type moment struct {
	ttlDec, ttlMin uint8
	output         *Output
	stack          *stackCell
	path           *pathCell
	resubmits      int
}

type stackCell struct {
	value     value
	sub       ir.Sub
	inherited ir.U128 // those of sub's bits that were
	below     *stackCell
}

type pathCell struct {
	rule   *Rule
	before *pathCell
}

// A join is a place that paths reach.
type join struct {
	kind          uint64
	leaves, total int      // rules that follow from the largest visit, and from all
	below         []uint64 // the places reached from it
}

// An undo restores a field or a term of the cube.
type undo struct {
	field     ir.Field
	isCube    bool
	value     value // of a field
	inherited ir.U128
	val, mask ir.U128 // of the cube
}

// isView reports whether f is a view of registers.
func isView(f ir.Field) bool { return f >= ir.XReg0 }

// registers returns the registers of which f is a view, the least significant first.
func registers(f ir.Field) (first ir.Field, n int) {
	if f >= ir.XXReg0 {
		return ir.Reg0 + 4*(f-ir.XXReg0), 4
	}
	return ir.Reg0 + 2*(f-ir.XReg0), 2
}

// read notes that something depends on bits of a field, as far as they are as they were when the chain began.
func (m *machine) read(f ir.Field, mask ir.U128) {
	if m.faults.unread != nil && m.faults.unread(f) {
		return
	}
	mask = mask.And(m.inherited[f])
	if m.state.anyConnection && ofConnection(f) && !mask.IsZero() {
		m.asksConnection = true
	}
	m.reads[f] = m.reads[f].Or(mask)
}

// set gives a field another value; written are the bits that do not have their value from the beginning of the chain any more.
func (m *machine) set(f ir.Field, v value, written ir.U128) {
	m.trail = append(m.trail, undo{field: f, value: m.field[f], inherited: m.inherited[f]})
	if isShape(f) {
		m.hash ^= m.field[f].hash(f) ^ v.hash(f)
	}
	m.field[f] = v
	m.inherited[f] = m.inherited[f].AndNot(written)
}

// back undoes everything since the trail had that length.
func (m *machine) back(mark int) {
	for len(m.trail) > mark {
		u := &m.trail[len(m.trail)-1]
		if u.isCube {
			m.cube[u.field].val, m.cube[u.field].mask = u.val, u.mask
		} else {
			if isShape(u.field) {
				m.hash ^= m.field[u.field].hash(u.field) ^ u.value.hash(u.field)
			}
			m.field[u.field], m.inherited[u.field] = u.value, u.inherited
		}
		m.trail = m.trail[:len(m.trail)-1]
	}
}

// get returns some bits, and notes that something depends on them.
func (m *machine) get(s ir.Sub) value {
	if !isView(s.Field) {
		m.read(s.Field, s.Mask())
		return m.field[s.Field].bits(s.Ofs, s.N)
	}
	var out value
	m.parts(s, func(part ir.Sub, at int) {
		m.read(part.Field, part.Mask())
		out = out.write(at, part.N, m.field[part.Field].bits(part.Ofs, part.N))
	})
	return out
}

// put writes some bits.
func (m *machine) put(s ir.Sub, v value) {
	if !isView(s.Field) {
		m.set(s.Field, m.field[s.Field].write(s.Ofs, s.N, v), s.Mask())
		return
	}
	m.parts(s, func(part ir.Sub, at int) {
		m.set(part.Field, m.field[part.Field].write(part.Ofs, part.N, v.bits(at, part.N)), part.Mask())
	})
}

// parts calls f for each register of a view that s has bits of, with the bit of s that part begins at.
func (m *machine) parts(s ir.Sub, f func(part ir.Sub, at int)) {
	first, n := registers(s.Field)
	for i := range n {
		reg, base := first+ir.Field(n-1-i), 32*i // the last register has the least significant bits
		from, to := max(s.Ofs, base), min(s.Ofs+s.N, base+32)
		if from < to {
			f(ir.Sub{Field: reg, Ofs: from - base, N: to - from}, from-s.Ofs)
		}
	}
}

// load writes the bits of mask.
func (m *machine) load(a ir.Set) {
	if !isView(a.Field) {
		m.set(a.Field, m.field[a.Field].load(a.Value, a.Mask), a.Mask)
		return
	}
	first, n := registers(a.Field)
	for i := range n {
		reg := first + ir.Field(n-1-i)
		val, mask := a.Value.Shr(32*i).And(ir.Ones(32)), a.Mask.Shr(32*i).And(ir.Ones(32))
		if !mask.IsZero() {
			m.set(reg, m.field[reg].load(val, mask), mask)
		}
	}
}

func (m *machine) push(s ir.Sub) {
	c := &stackCell{sub: s, below: m.here.stack}
	if isView(s.Field) {
		c.value = m.get(s)
	} else {
		// Whether something depends on it shows when it is popped.
		c.value, c.inherited = m.field[s.Field].bits(s.Ofs, s.N), m.inherited[s.Field].And(s.Mask())
	}
	m.here.stack = c
}

// pop reports whether there was something on the stack.
func (m *machine) pop(s ir.Sub) bool {
	c := m.here.stack
	if c == nil {
		return false
	}
	m.here.stack = c.below
	if c.sub == s && !isView(s.Field) {
		m.put(s, c.value)
		m.inherited[s.Field] = m.inherited[s.Field].Or(c.inherited) // as it was; back restores what put has recorded
		return true
	}
	m.reads[c.sub.Field] = m.reads[c.sub.Field].Or(c.inherited)
	m.put(s, c.value)
	return true
}

// A need is a condition on a field of the packet as it arrived.
type need struct {
	field     ir.Field
	val, mask ir.U128
}

type answer uint8

const (
	never  answer = iota
	maybe         // if the needs are met
	always        // there are no needs
	unable        // if the needs are met and more, which filters cannot ask
)

// ask finds out whether the packet can satisfy match.
func (m *machine) ask(match ir.Match) (needs []need, a answer) {
	// Find a contradiction, if there is one; best one that adds nothing to what the chain depends on.
	var why need
	no := false
	for i := range match {
		t := &match[i]
		if t.Field == ir.ConjID {
			continue
		}
		if bit, contradicts := m.contradiction(t); contradicts {
			if bit.And(m.inherited[t.Field]).AndNot(m.reads[t.Field]).IsZero() {
				return nil, never
			}
			if !no {
				no, why = true, need{field: t.Field, mask: bit}
			}
		}
	}
	if no {
		m.read(why.field, why.mask)
		return nil, never
	}
	out := always
	for i := range match {
		t := &match[i]
		if t.Field == ir.ConjID {
			continue
		}
		m.read(t.Field, t.Mask)
		v := &m.field[t.Field]
		if !t.Mask.AndNot(v.known).AndNot(v.alias).IsZero() {
			out = unable
		}
		bits := t.Mask.And(v.alias)
		if bits.IsZero() {
			continue
		}
		if m.state.anyConnection && ofConnection(v.src) && !m.inherited[v.src].IsZero() {
			m.asksConnection = true
		}
		n := need{v.src, shift(t.Value, v.ofs), shift(bits, v.ofs)}
		n.val = n.val.And(n.mask)
		if v.src == ir.IPTTL && m.here.ttlDec > 0 {
			if t.Field != ir.IPTTL || bits != ir.Ones(8) {
				out = unable
				continue
			}
			n.val = ir.U64(n.val.Lo + uint64(m.here.ttlDec))
		}
		c := &m.cube[v.src]
		if n.mask.AndNot(c.mask).IsZero() {
			continue // the cube says so already
		}
		if !hasKey[v.src] {
			out = unable
			continue
		}
		needs = append(needs, n)
		if out == always {
			out = maybe
		}
	}
	return needs, out
}

// contradiction returns the bits of a term that the packet cannot have, one of them.
func (m *machine) contradiction(t *ir.Term) (ir.U128, bool) {
	v := &m.field[t.Field]
	if d := v.val.Xor(t.Value).And(v.known).And(t.Mask); !d.IsZero() {
		return lowest(d), true
	}
	a := t.Mask.And(v.alias)
	if a.IsZero() {
		return ir.U128{}, false
	}
	val := shift(t.Value.And(a), v.ofs)
	if v.src == ir.IPTTL {
		if a != ir.Ones(8) || t.Field != ir.IPTTL {
			return ir.U128{}, false
		}
		ttl := val.Lo + uint64(m.here.ttlDec)
		if ttl > 255 || ttl < uint64(m.here.ttlMin) {
			return lowest(a), true
		}
		val = ir.U64(ttl)
	}
	c := &m.cube[v.src]
	if d := c.val.Xor(val).And(c.mask).And(shift(a, v.ofs)); !d.IsZero() {
		return lowest(shift(d, -v.ofs)), true
	}
	return ir.U128{}, false
}

// lowest returns the least significant bit of u that is set.
func lowest(u ir.U128) ir.U128 { return ir.U64(1).Shl(u.TrailingZeros()) }

// assume narrows the cube. It reports false if a guard has all packets of it.
func (m *machine) assume(needs []need) bool {
	for _, n := range needs {
		c := &m.cube[n.field]
		m.trail = append(m.trail, undo{field: n.field, isCube: true, val: c.val, mask: c.mask})
		c.val, c.mask = c.val.Or(n.val), c.mask.Or(n.mask)
		for _, f := range carriers {
			v := &m.field[f]
			if v.src != n.field || v.alias.IsZero() {
				continue
			}
			if w := v.pinned(n.field, n.val, n.mask); w != *v {
				now := w.known.AndNot(v.known)
				m.read(f, now)
				m.set(f, w, now)
			}
		}
	}
	for i := range m.guards {
		if g := &m.guards[i]; g.EtherType == m.state.EtherType && m.implies(g.Match) {
			return false
		}
	}
	return true
}

// implies reports whether all packets of the cube satisfy match.
func (m *machine) implies(match ir.Match) bool {
	for i := range match {
		c := &m.cube[match[i].Field]
		if !match[i].Mask.AndNot(c.mask).IsZero() || !c.val.Xor(match[i].Value).And(match[i].Mask).IsZero() {
			return false
		}
	}
	return true
}

// match returns the cube as a match.
func (m *machine) match() ir.Match {
	var out ir.Match
	for _, f := range asked {
		if m.faults.forget != nil && m.faults.forget(f) {
			continue
		}
		if c := &m.cube[f]; !c.mask.IsZero() {
			out = append(out, ir.Term{Field: f, Value: c.val, Mask: c.mask})
		}
	}
	return out
}

// carriers are the fields that can stand for bits of other fields.
var carriers = func() []ir.Field {
	var all []ir.Field
	for f := ir.Reg0; f <= ir.Reg15; f++ {
		all = append(all, f)
	}
	return append(all, ir.Metadata)
}()

// asked are the fields that flower has keys for and that the walk may ask about, sorted.
var asked = func() []ir.Field {
	all := []ir.Field{
		ir.EthSrc, ir.EthDst, ir.IPSrc, ir.IPDst, ir.IPv6Src, ir.IPv6Dst, ir.IPDSCP, ir.IPECN, ir.IPTTL, ir.IPProto,
		ir.TCPSrc, ir.TCPDst, ir.TCPFlags, ir.UDPSrc, ir.UDPDst, ir.SCTPSrc, ir.SCTPDst,
		ir.ICMPType, ir.ICMPCode, ir.ICMPv6Type, ir.ICMPv6Code, ir.TunID, ir.TunSrc, ir.TunDst, ir.TunIPv6Src, ir.TunIPv6Dst,
		ir.TunMetadata0, ir.CTState, ir.CTMark, ir.CTLabel,
	}
	slices.Sort(all)
	return all
}()

var hasKey = func() (has [256]bool) {
	for _, f := range asked {
		has[f] = true
	}
	return has
}()
