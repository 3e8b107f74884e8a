package specialize

import (
	"maps"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// What a walk has found is kept, so that the next one does again only what depends on something that has changed. A chain depends on
// the rules it was walked through, on devices, and on what it knows of the chains that it leads to (see State.alike). What it is walked
// from, if that has to be done again, is kept as well.

// A source is something that a chain depends on, and that can change: the rules of a table that ask for the same datapath or port;
// whether there are any that ask for one; a port's device.
type source struct {
	kind  sourceKind
	table uint8
	of    primary
}

type sourceKind uint8

const (
	bucketSource  sourceKind = iota
	indexSource              // there are rules of this table that ask for the whole of of.field
	portSource               // of.value is the OpenFlow port
	unknownSource            // changes always
)

// maxChanged bounds what is remembered of changes while nobody asks for chains. After more of them everything is walked anew.
const maxChanged = 1 << 16

// touch notes that a source has changed. What has changed is of interest until the next walk: all that is kept of one has been found,
// or found to hold, by it.
func (p *Rules) touch(s source) {
	if p.memos == [2]*memo{} {
		return
	}
	if p.changed[s] = struct{}{}; len(p.changed) > maxChanged {
		p.forget()
	}
}

// forget makes the next walk a fresh one.
func (p *Rules) forget() {
	p.memos, p.changed = [2]*memo{}, map[source]struct{}{}
}

// A trace is what a chain depends on.
type trace struct {
	sources  map[source]struct{}
	children []*State
}

func newTrace() trace { return trace{sources: map[source]struct{}{}} }

func (t *trace) ask(s source) { t.sources[s] = struct{}{} }

// stale reports whether a source has changed since the last walk. What becomes of its children is another question.
func (t *trace) stale(p *Rules) bool {
	if _, is := t.sources[source{kind: unknownSource}]; is {
		return true
	}
	fewer, more := p.changed, t.sources
	if len(fewer) > len(more) {
		fewer, more = more, fewer
	}
	for s := range fewer {
		if _, changed := more[s]; changed {
			return true
		}
	}
	return false
}

// A memo is what a walk of one family has found.
type memo struct {
	cuts       map[uint64]struct{}
	subroutine map[uint8]bool
	states     map[position][]*State
	entries    map[uint16]*Entry
	fresh      size // when everything was last walked
}

// A size is how many rules there are, and places where chains end.
type size struct{ rules, cuts int }

func (w *walk) size() size { return size{w.total, len(w.cuts)} }

// A node is what all chains depend on.
type node struct {
	geneve       ir.Field
	tunnelDevice string // its name, "": there is none
	caps         Caps
	budget       Budget
	learns       [256]int
}

// prepare notes what has changed besides rules. If everything may have, the memos are forgotten.
func (p *Rules) prepare(in *Input, ports []Port, tunnels []Tunnel) {
	n := node{geneve: in.Geneve, caps: in.Caps, budget: in.Budget, learns: p.learns}
	if in.TunnelDevice != nil {
		n.tunnelDevice = in.TunnelDevice.Name
	}
	if n != p.node {
		p.forget()
	}
	p.node = n
	now := map[uint16]any{}
	for _, x := range ports {
		now[x.OFPort] = x.Device.Name
	}
	for _, x := range tunnels {
		now[x.OFPort] = x
	}
	for port, is := range now {
		if p.devices[port] != is {
			p.touch(source{kind: portSource, of: primary{value: uint64(port)}})
		}
	}
	for port := range p.devices {
		if _, still := now[port]; !still {
			p.touch(source{kind: portSource, of: primary{value: uint64(port)}})
		}
	}
	p.devices = now
}

// usable reports whether chains of the memo mean what they did.
func (w *walk) usable(m *memo) bool {
	if m == nil {
		return false
	}
	for table, was := range m.subroutine {
		if w.returns(table) != was {
			return false
		}
	}
	return true
}

// recall returns the state at a position that the packet is in, as an earlier walk has found it, brought up to date; nil if there is
// none.
func (m *machine) recall(at position) *State {
	if m.previous == nil {
		return nil
	}
	for _, old := range m.previous.states[at] {
		if !old.holds(m) {
			continue
		}
		if s := m.renew(old); s != nil && s.holds(m) {
			return s
		}
	}
	return nil
}

// renew returns an old state as it is now, nil if it is none any more because it asks for the connection.
func (w *walk) renew(old *State) *State {
	if s, done := w.renewed[old]; done {
		return s
	}
	w.renewed[old] = nil // a chain does not lead to itself
	to, same := w.renewAll(&old.trace)
	var s *State
	if same {
		s = old.copied(to)
		w.keep(s)
	} else {
		s = w.follow(old.at, old.start, old.depth)
	}
	w.renewed[old] = s
	return s
}

// renewAll renews the states that a chain leads to. It reports whether the chain need not be walked again.
func (w *walk) renewAll(t *trace) (to map[*State]*State, same bool) {
	if t.stale(w.rules) {
		return nil, false
	}
	to = make(map[*State]*State, len(t.children))
	for _, c := range t.children {
		s := w.renew(c)
		if s == nil || !c.alike(s) {
			return nil, false
		}
		to[c] = s
	}
	return to, true
}

// alike reports whether those that lead to s need not know that it is now x.
func (s *State) alike(x *State) bool {
	return s.height == x.height && s.puntsOnly() == x.puntsOnly() && !s.passes() && !x.passes() &&
		slices.Equal(s.reads, x.reads) && slices.Equal(s.notPorts, x.notPorts)
}

// passes reports whether the chain only goes to another one, so that those that lead to it go there.
func (s *State) passes() bool {
	if len(s.Rules) != 1 || len(s.Rules[0].Match) > 0 {
		return false
	}
	_, is := s.Rules[0].Verdict.(Goto)
	return is
}

// copied returns the state with other states where it leads to. What has been found out about its rules' order holds.
func (s *State) copied(to map[*State]*State) *State {
	c := *s
	c.Chain, c.seen = 0, false
	c.trace = s.trace.moved(to)
	c.Rules = moved(s.Rules, to)
	return &c
}

func (t *trace) moved(to map[*State]*State) trace {
	c := *t
	c.children = make([]*State, len(t.children))
	for i, s := range t.children {
		c.children[i] = to[s]
	}
	return c
}

func moved(rules []Leaf, to map[*State]*State) []Leaf {
	out := slices.Clone(rules)
	for i := range out {
		switch v := out[i].Verdict.(type) {
		case Lookup:
			out[i].Verdict = Lookup{v.Zone, to[v.State]}
		case Goto:
			out[i].Verdict = Goto{to[v.State]}
		case Punt, Drop, *Output:
		}
	}
	return out
}

// keep makes a state known to the rest of the walk.
func (w *walk) keep(s *State) {
	w.total += len(s.Rules)
	w.truncated = w.truncated || s.Truncated
	w.states[s.at] = append(w.states[s.at], s)
}

// grown reports whether there is so much more than when everything was last walked that it is time to do so again: where chains end was
// decided for what there was then, and places that are gone are still among them.
func (w *walk) grown(m *memo) bool {
	more := func(now, then int) bool { return now > then+then/4+256 }
	now := w.size()
	return more(now.rules, m.fresh.rules) || more(now.cuts, m.fresh.cuts)
}

// remember returns what the walk has found. fresh is how much there was when everything was walked.
func (w *walk) remember(p *Program, fresh size) *memo {
	m := &memo{fresh: fresh, cuts: w.cuts, subroutine: maps.Clone(w.subroutine), states: w.states, entries: map[uint16]*Entry{}}
	for _, e := range p.Entries {
		m.entries[e.Port] = e
	}
	return m
}
