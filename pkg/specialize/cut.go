package specialize

import (
	"maps"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// A chain also ends where several ways of more than a few rules meet, and what follows is a chain of its own. Where that is, is found by
// walking.

// maxResubmits bounds a path; Open vSwitch has a bound of 4096 resubmits (MAX_RESUBMITS).
const maxResubmits = 1024

// joinLeaves is how many rules a chain may have more than once before what they follow becomes a chain of its own.
const joinLeaves = 16

// lookup looks the packet up in a table and goes on with next.
func (m *machine) lookup(table uint8, next *frame) {
	if m.here.resubmits++; m.here.resubmits > maxResubmits {
		m.punt(TooDeep)
		return
	}
	if next != nil || m.here.output != nil || m.here.stack != nil || m.returns(table) {
		m.branch(table, next)
		return
	}
	key, kind := m.place(table)
	if _, cut := m.cuts[kind]; cut {
		if !m.short(func() { m.branch(table, next) }) {
			m.jump(table, kind)
		}
		return
	}
	j := m.joins[key]
	switch {
	case j != nil:
	case m.visits[key] != nil && m.visits[key].leaves >= joinLeaves:
		// Another chain has it too. The places that it has reached from there will be those of one chain.
		m.cuts[innermost(m.visits, key).kind] = struct{}{}
		m.repeated += m.visits[key].leaves
		for _, below := range m.visits[key].below {
			delete(m.visits, below)
		}
		delete(m.visits, key)
		m.lookup(table, next)
		return
	default:
		j = &join{kind: kind}
		m.joins[key] = j
		m.order = append(m.order, key)
	}
	rules, places := len(m.rules), len(m.order)
	m.branch(table, next)
	n := len(m.rules) - rules
	j.total += n
	j.leaves, j.below = max(j.leaves, n), append(j.below, m.order[places:]...)
	if len(m.rules) >= m.review {
		m.review *= 2
		m.restart = m.cut()
	}
}

// innermost returns the last of the places from key on that all its rules follow from. There the least matters of what is known.
func innermost(joins map[uint64]*join, key uint64) *join {
	j := joins[key]
	last := j
	for _, b := range j.below {
		if x := joins[b]; x != nil && x.leaves == j.leaves && x.total >= j.total {
			last = x
		}
	}
	return last
}

// shortWay is how many rules may follow from a place where chains end, for the chain to go on nevertheless.
const shortWay = 4

// short does try if no more than a few rules come of it, or else nothing. Many packets never get further than a cut, such as those
// to addresses that are served before.
func (m *machine) short(try func()) bool {
	limit, rules, height, reads, notPorts := m.limit, len(m.rules), m.height, m.reads, maps.Clone(m.notPorts)
	mark, here := len(m.trail), m.here
	m.limit = rules + shortWay
	if limit > 0 {
		m.limit = min(m.limit, limit)
	}
	try()
	over := m.over()
	m.limit = limit
	if !over {
		return true
	}
	m.back(mark)
	m.here, m.rules, m.height, m.reads, m.notPorts = here, m.rules[:rules], height, reads, notPorts
	return false
}

// joinReview is after how many rules a chain is looked at for the first time for what it has several times.
const joinReview = 1024

// cut finds the places whose rules the chain has several times and which are not all below others. It reports whether there are any.
func (m *machine) cut() bool {
	below := map[uint64]struct{}{}
	any := false
	for _, key := range m.order {
		if _, is := below[key]; is {
			continue
		}
		if j := m.joins[key]; j.leaves >= 4 && j.total-j.leaves >= joinLeaves {
			m.cuts[innermost(m.joins, key).kind], any = struct{}{}, true
			for _, b := range j.below {
				below[b] = struct{}{}
			}
		}
	}
	return any
}

// jump ends the path where others end too.
func (m *machine) jump(table uint8, kind uint64) {
	to := func(s *State) Verdict { return Goto{s} }
	if !m.state.Tracked && !m.state.anyConnection {
		m.boundary(table, position{}, to)
		return
	}
	if state := &m.field[ir.CTState]; state.known == ir.CTState.Ones() && state.val.IsZero() {
		m.read(ir.CTState, ir.CTState.Ones())
		m.boundary(table, position{}, to) // the connection is forgotten
		return
	}
	if _, asks := m.asking[kind]; !asks {
		if m.boundary(table, position{anyConnection: true}, to) {
			return
		}
		m.asking[kind] = struct{}{}
	}
	if m.state.anyConnection {
		m.asksConnection = true
		return
	}
	m.boundary(table, position{tracked: true, zone: m.state.Zone}, to)
}

// place identifies a table and what is known there, as far as it may matter. That it does not matter costs a rule or a chain, not
// more: what a chain depends on is found out while it is walked.
//
// All places of a kind are alike but for the input port and its zone. What is found out about one of them is taken to hold for all.
func (m *machine) place(table uint8) (key, kind uint64) {
	h := mix(uint64(table)<<32 ^ uint64(m.here.ttlDec)<<8 ^ uint64(m.here.ttlMin) ^ uint64(m.state.EtherType)<<40)
	dp := &m.field[ir.Metadata]
	if dp.known != ir.Metadata.Ones() {
		return mix(h ^ m.hash), mix(h ^ m.hash)
	}
	key, kind = h, h
	for _, b := range m.live(dp.val.Lo, table) {
		v := m.field[b.field]
		v.known, v.val, v.alias = v.known.And(b.mask), v.val.And(b.mask), v.alias.And(b.mask)
		x := v.hash(b.field)
		key = mix(key ^ x)
		if b.field != regInport && b.field != regZone {
			kind = mix(kind ^ x)
		}
	}
	return key, kind
}

// liveKey is a table as the packets of a datapath see it.
type liveKey struct {
	dp    uint64
	table uint8
}

// live returns the bits of fields that rules of a datapath may ask for from a table on, before the packet enters another datapath,
// and what a packet consists of. The input port and the connection are not among them.
func (w *walk) live(dp uint64, table uint8) []bitsOf {
	key := liveKey{dp, table}
	if l, known := w.lives[key]; known {
		return l
	}
	w.lives[key] = nil // in a circle nothing is added
	var bits liveBits
	bits.add(ir.Metadata, ir.Metadata.Ones())
	for _, list := range [][]ir.Field{rewritable, fixed, {ir.VLANTCI, ir.PktMark}} {
		for _, f := range list {
			bits.add(f, f.Ones())
		}
	}
	t := &w.rules.tables[table]
	each := func(do func(*Rule)) {
		for _, b := range []*bucket{t.buckets[primary{}], t.buckets[primary{ir.Metadata, dp}]} {
			if b == nil {
				continue
			}
			for _, list := range b.rules {
				for _, r := range list {
					do(r)
				}
			}
		}
	}
	var onward [256]bool // to tables all of whose bits are in; most rules do no more than to set something and go there too
	each(func(r *Rule) {
		if len(r.Actions) != 1 {
			return
		}
		if to, is := r.Actions[0].(ir.Resubmit); is && !onward[to.Table] {
			onward[to.Table] = true
			for _, b := range w.live(dp, to.Table) {
				bits.add(b.field, b.mask)
			}
		}
	})
	each(func(r *Rule) {
		if !goesOnward(r.Actions, &onward) {
			before := w.liveBefore(dp, r.Actions)
			for f, mask := range before {
				bits[f] = bits[f].Or(mask)
			}
		}
		for _, t := range r.Match {
			if t.Field != ir.ConjID {
				bits.add(t.Field, t.Mask)
			}
		}
	})
	var out []bitsOf
	for f, mask := range bits {
		if !mask.IsZero() {
			out = append(out, bitsOf{ir.Field(f), mask})
		}
	}
	w.lives[key] = out
	return out
}

// goesOnward reports whether actions set fields and send packets to tables, if they do anything: they ask for no more than these tables.
func goesOnward(actions []ir.Action, tables *[256]bool) bool {
	return !slices.ContainsFunc(actions, func(a ir.Action) bool {
		switch a := a.(type) {
		case ir.Set:
			return false
		case ir.Resubmit:
			return !tables[a.Table]
		default:
			return true
		}
	})
}

// liveBefore returns the bits that actions, and the tables they send packets of a datapath to, may ask for.
func (w *walk) liveBefore(dp uint64, actions []ir.Action) (bits liveBits) {
	to := func(table uint8) {
		for _, b := range w.live(dp, table) {
			bits.add(b.field, b.mask)
		}
	}
	leaves := slices.IndexFunc(actions, func(a ir.Action) bool {
		set, is := a.(ir.Set)
		return is && set.Field == ir.Metadata
	})
	if leaves >= 0 {
		actions = actions[:leaves] // to another datapath, for which everything is set anew
	}
	for _, a := range slices.Backward(actions) {
		switch a := a.(type) {
		case ir.Set:
			bits.remove(a.Field, a.Mask)
		case ir.Move:
			bits.remove(a.Dst.Field, a.Dst.Mask())
			bits.add(a.Src.Field, a.Src.Mask())
		case ir.CT:
			to(a.Table)
			if a.ZoneFrom.Field != 0 {
				bits.add(a.ZoneFrom.Field, a.ZoneFrom.Mask())
			}
		case ir.Resubmit:
			to(a.Table)
		case ir.Clone:
			for f, mask := range w.liveBefore(dp, a.Actions) {
				bits[f] = bits[f].Or(mask)
			}
		default:
		}
	}
	return bits
}

// liveBits are bits by field, of none that are views of others.
type liveBits [ir.XReg0]ir.U128

func (l *liveBits) add(f ir.Field, mask ir.U128) {
	eachPart(f, mask, func(f ir.Field, mask ir.U128) {
		if isShape(f) {
			l[f] = l[f].Or(mask)
		}
	})
}

func (l *liveBits) remove(f ir.Field, mask ir.U128) {
	eachPart(f, mask, func(f ir.Field, mask ir.U128) { l[f] = l[f].AndNot(mask) })
}

// eachPart calls do with the registers that a view consists of, or with the field if it is no view.
func eachPart(f ir.Field, mask ir.U128, do func(ir.Field, ir.U128)) {
	if !isView(f) {
		do(f, mask)
		return
	}
	first, n := registers(f)
	for i := range n {
		do(first+ir.Field(n-1-i), mask.Shr(32*i).And(ir.Ones(32)))
	}
}
