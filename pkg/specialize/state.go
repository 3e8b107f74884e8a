package specialize

import (
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Where a chain ends, the packet goes on in that of a state. Which one, is found by what the state's chain has read.

// maxChains is how many chains a packet may pass; the kernel drops one that is sent to another chain for the 17th time.
const maxChains = 15

// position is what all packets of a state have in common whatever the chain reads.
type position struct {
	table          uint8
	etherType      uint16
	tracked        bool
	zone           uint16
	anyConnection  bool
	tunnelled      bool
	ttlDec, ttlMin uint8
	tunnel         [len(outer)]condition // if filters have to ask for it in every chain
}

// boundary ends the path: packets go on in the chain of what is known now. at says what is known of the connection. It reports false,
// and does nothing, if that does not suffice.
func (m *machine) boundary(table uint8, at position, verdict func(*State) Verdict) bool {
	if m.depth >= maxChains {
		m.punt(TooDeep)
		return true
	}
	at.table, at.etherType, at.tunnelled = table, m.state.EtherType, m.state.Tunnelled
	at.ttlDec, at.ttlMin = m.here.ttlDec, m.here.ttlMin
	if at.tunnelled && m.in.Caps.TunnelKeysInEveryChain {
		at.tunnel = m.tunnel()
	}
	s := m.known(at)
	if s == nil {
		s = m.recall(at)
	}
	if s == nil {
		s = m.explore(at)
	}
	if s == nil {
		return false
	}
	m.leadsTo(s)
	for _, r := range s.reads {
		m.read(r.field, r.mask)
	}
	if !m.inherited[ir.InPort].IsZero() {
		for _, p := range s.notPorts {
			m.notPorts[p] = struct{}{}
		}
	}
	if m.depth+1+s.height > maxChains {
		m.punt(TooDeep)
		return true
	}
	if reason := s.puntsOnly(); reason != NoReason {
		m.punt(reason) // without asking anybody
		return true
	}
	path := m.here.path
	v := verdict(s)
	for len(s.Rules) == 1 && len(s.Rules[0].Match) == 0 {
		to, is := s.Rules[0].Verdict.(Goto)
		if _, looks := v.(Lookup); !is || looks && !to.State.Tracked {
			break // who comes from a lookup has to be asked whether the connection is established
		}
		for _, r := range s.Rules[0].Path {
			m.here.path = &pathCell{r, m.here.path}
		}
		s = to.State
		v = verdict(s)
		m.leadsTo(s)
	}
	m.height = max(m.height, s.height+1)
	m.leaf(v)
	m.here.path = path
	return true
}

// puntsOnly returns the first reason if nothing is decided in the chain, or NoReason.
func (s *State) puntsOnly() Reason {
	reason := NewConnection
	for i := range s.Rules {
		p, ok := s.Rules[i].Verdict.(Punt)
		if !ok {
			return NoReason
		}
		if reason == NewConnection {
			reason = p.Reason
		}
	}
	return reason
}

// known returns the state at a position that the packet is in, if there is one.
func (m *machine) known(at position) *State {
	if m.faults.known != nil {
		return m.faults.known(m, at)
	}
	for _, s := range m.states[at] {
		if s.holds(m) {
			return s
		}
	}
	return nil
}

// holds reports whether the packet is in state s, as far as it matters there.
func (s *State) holds(m *machine) bool {
	for i := range s.reads {
		r := &s.reads[i]
		if !r.value.same(&m.field[r.field], r.mask) {
			return false
		}
	}
	for _, p := range s.notPorts {
		if m.field[ir.InPort].val.Lo == uint64(p) {
			return false
		}
	}
	return true
}

// outer are the keys of tunnels.
var outer = [...]ir.Field{ir.TunID, ir.TunSrc, ir.TunDst, ir.TunIPv6Src, ir.TunIPv6Dst, ir.TunMetadata0}

type condition struct{ val, mask ir.U128 }

// tunnel returns what the packets of the cube have in outer.
func (m *machine) tunnel() (all [len(outer)]condition) {
	for i, f := range outer {
		all[i] = condition{m.cube[f].val, m.cube[f].mask}
	}
	return all
}

// explore walks the chain of what is known now; nil if it asks for a connection that may be any.
func (m *machine) explore(at position) *State {
	start := (*[ir.XReg0]value)(m.field[:ir.XReg0])
	copied := *start
	return m.follow(at, &copied, m.depth+1)
}

// follow walks the chain of what is known in start, after so many others.
func (w *walk) follow(at position, start *[ir.XReg0]value, depth int) *State {
	s := &State{
		Table: at.table, EtherType: at.etherType, Tracked: at.tracked, Zone: at.zone, Tunnelled: at.tunnelled,
		anyConnection: at.anyConnection, ttlDec: at.ttlDec, ttlMin: at.ttlMin, asksTunnel: at.tunnel != [len(outer)]condition{},
		at: at, start: start, depth: depth,
	}
	c := &machine{walk: w, depth: depth, state: s, trace: newTrace()}
	copy(c.field[:], start[:])
	if s.asksTunnel {
		for i, f := range outer {
			c.cube[f].val, c.cube[f].mask = at.tunnel[i].val, at.tunnel[i].mask
		}
	}
	if s.anyConnection {
		for f := ir.CTState; ofConnection(f); f++ {
			c.field[f] = value{}
		}
	}
	c.begin()
	c.chain(func() { c.branch(at.table, nil) })
	if c.asksConnection {
		return nil
	}
	s.Rules, s.Truncated, s.height, s.trace = c.rules, c.full, c.height, c.trace
	for f := ir.Field(1); f < ir.XReg0; f++ {
		if mask := c.reads[f]; !mask.IsZero() {
			s.reads = append(s.reads, read{f, mask, start[f]})
		}
	}
	for p := range c.notPorts {
		s.notPorts = append(s.notPorts, p)
	}
	slices.Sort(s.notPorts)
	s.kin, s.ID = s.identity()
	w.states[at] = append(w.states[at], s)
	return s
}

// leadsTo notes that what becomes of the chain depends on what s is.
func (m *machine) leadsTo(s *State) {
	if !slices.Contains(m.trace.children, s) {
		m.trace.children = append(m.trace.children, s)
	}
}

// identity hashes what the state is, and kin what of that does not change with each port that comes or goes.
func (s *State) identity() (kin, id uint64) {
	h := uint64(s.Table)<<32 | uint64(s.EtherType)<<16 | uint64(s.Zone)
	for i, b := range []bool{s.Tracked, s.Tunnelled, s.anyConnection} {
		if b {
			h ^= 1 << (40 + i)
		}
	}
	h = mix(h ^ uint64(s.ttlDec)<<48 ^ uint64(s.ttlMin)<<56)
	for i := range s.reads {
		r := &s.reads[i]
		v := r.value
		v.known, v.val, v.alias = v.known.And(r.mask), v.val.And(r.mask), v.alias.And(r.mask)
		h = mix(h ^ v.hash(r.field) ^ mix(r.mask.Hi) ^ r.mask.Lo)
	}
	kin = h
	for _, p := range s.notPorts {
		h = mix(h ^ uint64(p))
	}
	return kin, h
}
