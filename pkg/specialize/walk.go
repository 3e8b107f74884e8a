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
	clear(p.changed)
	out := &Program{Guards: guards(), Truncated: v4.Truncated || v6.Truncated, Devices: map[string]int{}}
	for _, x := range ports {
		out.Devices[x.Device.Name] = x.Device.Ifindex
	}
	if in.TunnelDevice != nil {
		out.Devices[in.TunnelDevice.Name] = in.TunnelDevice.Ifindex
		if in.Caps.TunnelKeysInEveryChain {
			out.guarded = in.TunnelDevice.Name
		}
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
				*known = w.remember(out, w.size())
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
	m := &machine{walk: w, state: &State{EtherType: etherType, ttlMin: minTTL, Tunnelled: tunnel != nil}, trace: newTrace()}
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
