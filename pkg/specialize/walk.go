package specialize

import (
	"cmp"
	"maps"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// A walk makes one Program.
type walk struct {
	rules     *Rules
	etherType uint16
	in        *Input
	budget    Budget
	guards    []Guard

	ports   map[uint16]string // names of devices
	tunnels map[uint16]*Tunnel

	states map[position][]*State
	// cuts are where chains end because what follows is reached by several paths, and visits where one chain has gone on so far. They are
	// of all chains; see lookup.
	cuts       map[uint64]struct{}
	visits     map[uint64]*join
	repeated   int // rules that earlier chains have because a cut was not yet known
	lives      map[liveKey][]bitsOf
	merged     map[candidateKey][]*Rule
	asking     map[uint64]struct{} // where it is known that the connection is asked for
	subroutine map[uint8]bool      // tables that only set fields and come back
	total      int                 // rules so far
	truncated  bool

	previous *memo             // what an earlier walk has found; nil: nothing
	renewed  map[*State]*State // states of previous as they are now

	faults faults
}

// faults are mistakes that tests make on purpose, to see that they are noticed. What is nil makes none.
type faults struct {
	candidates func([]*Rule) []*Rule                // instead of the rules that a packet may meet
	known      func(m *machine, at position) *State // instead of machine.known
	unread     func(f ir.Field) bool                // nothing depends on f
	forget     func(f ir.Field) bool                // rules do not ask for f
}

// liveKey is a table as the packets of a datapath see it.
type liveKey struct {
	dp    uint64
	table uint8
}

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

// maxChains is how many chains a packet may pass; the kernel drops one that is sent to another chain for the 17th time.
const maxChains = 15

// Specialize makes the chains for what is known of the node. It keeps nothing of in. The result refers to rules of p, and must not be
// changed: the next one is made of it.
func (p *Rules) Specialize(in Input) *Program { return p.specialize(in, faults{}) }

func (p *Rules) specialize(in Input, mistakes faults) *Program {
	ports, tunnels := slices.Clone(in.Ports), slices.Clone(in.Tunnels)
	slices.SortFunc(ports, func(a, b Port) int { return cmp.Compare(a.OFPort, b.OFPort) })
	slices.SortFunc(tunnels, func(a, b Tunnel) int { return cmp.Compare(a.OFPort, b.OFPort) })
	p.sort()
	p.prepare(&in, ports, tunnels)
	// Packets of the two families have no chain in common.
	other := make(chan *Program, 1)
	go func() { other <- p.family(&in, mistakes, etherTypeIPv6, ports, tunnels, &p.memos[1]) }()
	v4 := p.family(&in, mistakes, etherTypeIPv4, ports, tunnels, &p.memos[0])
	v6 := <-other
	out := &Program{Guards: guards(), Truncated: v4.Truncated || v6.Truncated, Devices: map[string]int{}}
	for _, x := range ports {
		out.Devices[x.Device.Name] = x.Device.Ifindex
	}
	if in.TunnelDevice != nil {
		out.Devices[in.TunnelDevice.Name] = in.TunnelDevice.Ifindex
	}
	for i, e := range v4.Entries {
		out.Entries = append(out.Entries, e, v6.Entries[i])
	}
	out.finish()
	return out
}

// family makes the chains for packets with an EtherType, out of what is known already as far as that holds.
func (p *Rules) family(in *Input, mistakes faults, etherType uint16, ports []Port, tunnels []Tunnel, known **memo) *Program {
	enough := func(w *walk) bool { return w.repeated*worthRepeating <= w.total }
	if *known != nil && mistakes.none() {
		if w := p.begin(in, mistakes, etherType, ports, tunnels, maps.Clone((*known).cuts)); w.usable(*known) {
			w.previous, w.renewed = *known, map[*State]*State{}
			if out := w.walk(ports, tunnels); enough(w) && !w.grown(*known) {
				*known = w.remember(out, (*known).fresh)
				return out
			}
		}
	}
	cuts := map[uint64]struct{}{}
	for pass := 1; ; pass++ {
		w := p.begin(in, mistakes, etherType, ports, tunnels, cuts)
		out := w.walk(ports, tunnels)
		if pass == maxPasses || enough(w) {
			if *known = nil; mistakes.none() {
				*known = w.remember(out, w.total)
			}
			return out
		}
	}
}

func (f *faults) none() bool {
	return f.candidates == nil && f.known == nil && f.unread == nil && f.forget == nil
}

// Everything is walked anew, at most so many times, when cuts were found for want of which earlier chains have one rule in so many
// that they need not have.
const (
	maxPasses      = 4
	worthRepeating = 8
)

// begin prepares a walk. Ports and tunnels are sorted.
func (p *Rules) begin(in *Input, mistakes faults, etherType uint16, ports []Port, tunnels []Tunnel, cuts map[uint64]struct{}) *walk {
	w := &walk{
		rules: p, in: in, etherType: etherType, guards: guards(), faults: mistakes,
		ports: map[uint16]string{}, tunnels: map[uint16]*Tunnel{},
		states: map[position][]*State{}, subroutine: map[uint8]bool{},
		cuts: cuts, visits: map[uint64]*join{}, asking: map[uint64]struct{}{}, lives: map[liveKey][]bitsOf{}, merged: map[candidateKey][]*Rule{},
	}
	w.budget.ChainRules = cmp.Or(in.Budget.ChainRules, defaultChainRules)
	w.budget.TotalRules = cmp.Or(in.Budget.TotalRules, defaultTotalRules) / 2 // so much for each family
	for _, x := range ports {
		w.ports[x.OFPort] = x.Device.Name
	}
	if in.TunnelDevice != nil && in.Geneve != 0 {
		for i := range tunnels {
			w.tunnels[tunnels[i].OFPort] = &tunnels[i]
		}
	}
	return w
}

// walk walks all chains.
func (w *walk) walk(ports []Port, tunnels []Tunnel) *Program {
	out := &Program{}
	for _, x := range ports {
		if x.Enter {
			out.Entries = append(out.Entries, w.enter(x.OFPort, x.Device.Name, nil))
		}
	}
	for i := range tunnels {
		if t := w.tunnels[tunnels[i].OFPort]; t != nil {
			out.Entries = append(out.Entries, w.enter(t.OFPort, w.in.TunnelDevice.Name, t))
		}
	}
	out.Truncated = w.truncated
	return out
}

// enter walks chain 0 of packets that arrive by a port.
func (w *walk) enter(port uint16, dev string, tunnel *Tunnel) *Entry {
	if w.previous != nil {
		if old := w.previous.entries[port]; old != nil {
			if to, same := w.renewAll(&old.trace); same {
				w.total += len(old.Rules)
				return &Entry{
					Port: port, Device: dev, Tunnel: tunnel, EtherType: w.etherType,
					Rules: moved(old.Rules, to), trace: old.trace.moved(to), isOrdered: old.isOrdered,
				}
			}
		}
	}
	m := w.arrival(port, tunnel)
	m.trace.ask(source{kind: portSource, of: primary{value: uint64(port)}})
	m.chain(func() { m.branch(0, nil) })
	return &Entry{Port: port, Device: dev, Tunnel: tunnel, EtherType: w.etherType, Rules: m.rules, trace: m.trace}
}

// arrival returns a machine with a packet that has just arrived.
func (w *walk) arrival(port uint16, tunnel *Tunnel) *machine {
	etherType := w.etherType
	m := &machine{walk: w, state: &State{EtherType: etherType, ttlMin: minTTL, Tunnelled: tunnel != nil}, trace: w.traced()}
	for f := ir.Field(1); f < ir.XReg0; f++ {
		m.field[f] = constant(f, ir.U128{}) // registers, connection, tunnel, and headers that a packet of this type does not have
	}
	for _, f := range asked {
		if f < ir.TunID {
			m.field[f] = original(f)
		}
	}
	m.field[ir.IPv6Label], m.field[ir.NDTarget], m.field[ir.NDSLL], m.field[ir.NDTLL] = value{}, value{}, value{}, value{}
	m.field[ir.PktMark], m.field[ir.TunFlags] = value{}, value{}
	m.field[ir.EthType] = constant(ir.EthType, ir.U64(uint64(etherType)))
	absent := onlyIPv6
	if etherType == etherTypeIPv6 {
		absent = onlyIPv4
	}
	for _, f := range absent {
		m.field[f] = constant(f, ir.U128{})
	}
	m.field[ir.InPort] = constant(ir.InPort, ir.U64(uint64(port)))
	if tunnel != nil {
		m.field[ir.TunID] = value{known: ir.TunID.Ones().AndNot(ir.Ones(24)), alias: ir.Ones(24), src: ir.TunID}
		m.field[w.in.Geneve] = value{alias: ir.Ones(32), src: ir.TunMetadata0}
		for f, addr := range tunnelAddrs(tunnel) {
			m.field[f] = constant(f, addr)
			m.cube[f].val, m.cube[f].mask = addr, f.Ones()
		}
	}
	m.begin()
	return m
}

// The fields that packets of one address family have and those of the other have not.
var (
	onlyIPv4 = []ir.Field{ir.IPSrc, ir.IPDst, ir.ICMPType, ir.ICMPCode}
	onlyIPv6 = []ir.Field{ir.IPv6Src, ir.IPv6Dst, ir.IPv6Label, ir.ICMPv6Type, ir.ICMPv6Code, ir.NDTarget, ir.NDSLL, ir.NDTLL}
)

// tunnelAddrs returns the outer addresses of packets that arrive by a tunnel.
func tunnelAddrs(t *Tunnel) map[ir.Field]ir.U128 {
	src, dst := ir.TunSrc, ir.TunDst
	if t.Remote.Is6() {
		src, dst = ir.TunIPv6Src, ir.TunIPv6Dst
	}
	addrs := map[ir.Field]ir.U128{src: ir.FromBytes(t.Remote.AsSlice())}
	if t.Local.IsValid() {
		addrs[dst] = ir.FromBytes(t.Local.AsSlice())
	}
	return addrs
}

// begin makes what the machine holds the beginning of a chain.
func (m *machine) begin() {
	for f := ir.Field(1); f < ir.XReg0; f++ {
		m.inherited[f] = f.Ones()
		if isShape(f) {
			m.hash ^= m.field[f].hash(f)
		}
	}
	m.here = moment{ttlDec: m.state.ttlDec, ttlMin: m.state.ttlMin}
}

// chain walks until no more cuts are found.
func (m *machine) chain(start func()) {
	for {
		m.rules, m.height, m.restart, m.full = nil, 0, false, false
		m.reads, m.notPorts = [256]ir.U128{}, map[uint16]struct{}{}
		m.joins, m.order = map[uint64]*join{}, nil
		m.review = joinReview
		mark, here := len(m.trail), m.here
		start()
		m.back(mark)
		m.here = here
		if m.asksConnection {
			return // nothing of it is kept
		}
		if !m.restart && !m.cut() {
			break
		}
	}
	m.total += len(m.rules)
	for key, j := range m.joins {
		if v := m.visits[key]; v == nil || v.leaves < j.leaves {
			m.visits[key] = j
		}
	}
}

// A frame is what is left to do when a table has been dealt with.
type frame struct {
	rest []ir.Action
	next *frame
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

// live returns the bits of fields that rules of a datapath may ask for from a table on, before the packet enters another datapath,
// and what a packet consists of. The input port and the connection are not among them.
func (w *walk) live(dp uint64, table uint8) []bitsOf {
	key := liveKey{dp, table}
	if l, known := w.lives[key]; known {
		return l
	}
	w.lives[key] = nil // in a circle nothing is added
	bits := liveBits{}
	bits.add(ir.Metadata, ir.Metadata.Ones())
	for _, list := range [][]ir.Field{rewritable, fixed, {ir.VLANTCI, ir.PktMark}} {
		for _, f := range list {
			bits.add(f, f.Ones())
		}
	}
	t := &w.rules.tables[table]
	for _, b := range []*bucket{t.buckets[primary{}], t.buckets[primary{ir.Metadata, dp}]} {
		if b == nil {
			continue
		}
		for _, list := range b.rules {
			for _, r := range list {
				for f, mask := range w.liveBefore(dp, r.Actions) {
					bits.add(f, mask)
				}
				for _, t := range r.Match {
					if t.Field != ir.ConjID {
						bits.add(t.Field, t.Mask)
					}
				}
			}
		}
	}
	var out []bitsOf
	for f, mask := range bits {
		out = append(out, bitsOf{f, mask})
	}
	slices.SortFunc(out, func(a, b bitsOf) int { return cmp.Compare(a.field, b.field) })
	w.lives[key] = out
	return out
}

// liveBefore returns the bits that actions, and the tables they send packets of a datapath to, may ask for.
func (w *walk) liveBefore(dp uint64, actions []ir.Action) liveBits {
	bits := liveBits{}
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
				bits.add(f, mask)
			}
		default:
		}
	}
	return bits
}

// liveBits are bits of fields, of none that are views of others.
type liveBits map[ir.Field]ir.U128

func (l liveBits) add(f ir.Field, mask ir.U128) {
	eachPart(f, mask, func(f ir.Field, mask ir.U128) {
		if isShape(f) {
			l[f] = l[f].Or(mask)
		}
	})
}

func (l liveBits) remove(f ir.Field, mask ir.U128) {
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
	if reason, only := s.puntsOnly(); only {
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

// puntsOnly reports whether nothing is decided in the chain, and the first reason.
func (s *State) puntsOnly() (Reason, bool) {
	reason := NewConnection
	for i := range s.Rules {
		p, ok := s.Rules[i].Verdict.(Punt)
		if !ok {
			return 0, false
		}
		if reason == NewConnection {
			reason = p.Reason
		}
	}
	return reason, true
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
	c := &machine{walk: w, depth: depth, state: s, trace: w.traced()}
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
	s.ID = s.identity()
	w.states[at] = append(w.states[at], s)
	return s
}

func (w *walk) traced() trace { return trace{sources: map[source]struct{}{}, walked: w.rules.clock} }

// leadsTo notes that what becomes of the chain depends on what s is.
func (m *machine) leadsTo(s *State) {
	if !slices.Contains(m.trace.children, s) {
		m.trace.children = append(m.trace.children, s)
	}
}

// identity hashes what the state is.
func (s *State) identity() uint64 {
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
	for _, p := range s.notPorts {
		h = mix(h ^ uint64(p))
	}
	return h
}
