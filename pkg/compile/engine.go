package compile

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"maps"
	"slices"
	"strconv"

	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/sb"
)

// Owner is who asks for rules: a Southbound row and, for a logical flow, the tunnel key of the datapath it is compiled
// for. The zero Owner asks for the rules that every chassis has.
type Owner struct {
	Row      sb.UUID
	Datapath uint32
}

// Replacement says that from now on Owner has exactly Rules. No rules: it has none any more.
type Replacement struct {
	Owner Owner
	Rules []ir.Rule
	// Groups and Meters are those that Rules use, by identifier. Owners share a group; they name the same contents.
	Groups map[uint32]ir.SelectGroup
	Meters map[uint32]ir.RateMeter
}

// Skip is a row, or one rule of it, that makes no rules although it should.
type Skip struct {
	Row sb.UUID
	// Action is the logical action that has no OpenFlow form here yet; empty if the row is malformed.
	Action string
	Err    error
}

// Input is the world to compile for. The Engine keeps it until the next call.
type Input struct {
	SB     *sb.Store
	Local  *chassis.Local
	Geneve ir.Field // tun_metadata field that carries OVN's Geneve option; 0 while it is unknown
}

// Engine compiles and remembers what each unit has read. It belongs to one goroutine.
type Engine struct {
	view  view
	units map[unitID]*unit
	facts map[fact]*factNode

	exprs   exprCache
	actions actionCache
	conj    conjIDs
	groups  identifiers
	meters  identifiers

	skipped map[sb.UUID]Skip
	fresh   []Skip // skipped since the last call of Skips
}

type unitKind uint8

const (
	unitConstant unitKind = iota
	unitTunnel
	unitPort
	unitMulticastGroup
	unitLogicalFlow
	unitMACBinding
	unitStaticBinding
	unitFDB
)

type unitID struct {
	kind unitKind
	row  sb.UUID
	name string // of a tunnel port
}

type unit struct {
	id    unitID
	reads []*factNode
	// parts holds each datapath that a logical flow has rules for; other units have no parts.
	parts map[sb.UUID]part
	ruled bool // a unit without parts has rules
}

// A factNode is a fact and the units that have read it.
type factNode struct {
	fact    fact
	readers map[*unit]struct{}
}

// dirt says how much of a unit must be compiled again.
type dirt struct {
	all       bool
	datapaths map[sb.UUID]struct{}
}

// NewEngine returns an engine that has compiled nothing.
func NewEngine() *Engine {
	e := &Engine{}
	e.forget()
	return e
}

func (e *Engine) forget() {
	e.units = map[unitID]*unit{}
	e.facts = map[fact]*factNode{}
	e.exprs = exprCache{}
	e.actions = actionCache{}
	e.conj = newConjIDs()
	e.groups = newIdentifiers(maxGroupID)
	e.meters = newIdentifiers(maxMeterID)
	e.skipped = map[sb.UUID]Skip{}
	e.fresh = nil
}

// Skips returns what has been skipped since the last call, once per row and reason.
func (e *Engine) Skips() []Skip {
	s := e.fresh
	e.fresh = nil
	return s
}

// Skipped returns the number of rows that are skipped now, by action; malformed rows are under "".
func (e *Engine) Skipped() map[string]int {
	n := map[string]int{}
	for _, s := range e.skipped {
		n[s.Action]++
	}
	return n
}

// SkipOf returns why a row, or one rule of it, makes no rules although it should; nil if it is not skipped.
func (e *Engine) SkipOf(row sb.UUID) error { return e.skipped[row].Err }

func (e *Engine) skip(s Skip) {
	if old, ok := e.skipped[s.Row]; ok && old.Action == s.Action && errorText(old.Err) == errorText(s.Err) {
		return
	}
	e.skipped[s.Row] = s
	e.fresh = append(e.fresh, s)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Recompute compiles everything from nothing and passes it on, owner by owner, so that nobody has to hold all of it. It
// is complete: who is not passed on has no rules.
func (e *Engine) Recompute(in Input, emit func(Replacement)) {
	old := e.skipped
	e.forget()
	e.skipped = old // what has been reported is not reported again
	e.see(in)
	todo := map[unitID]dirt{{kind: unitConstant}: {all: true}}
	all := dirt{all: true}
	for id := range in.SB.Ports {
		todo[unitID{kind: unitPort, row: id}] = all
	}
	for id := range in.SB.MulticastGroups {
		todo[unitID{kind: unitMulticastGroup, row: id}] = all
	}
	for id := range in.SB.LogicalFlows {
		todo[unitID{kind: unitLogicalFlow, row: id}] = all
	}
	for id := range in.SB.MACBindings {
		todo[unitID{kind: unitMACBinding, row: id}] = all
	}
	for id := range in.SB.StaticBindings {
		todo[unitID{kind: unitStaticBinding, row: id}] = all
	}
	for id := range in.SB.FDBs {
		todo[unitID{kind: unitFDB, row: id}] = all
	}
	for _, t := range in.Local.Tunnels {
		todo[unitID{kind: unitTunnel, name: tunnelName(t)}] = all
	}
	for id := range e.skipped {
		if !e.known(id) {
			delete(e.skipped, id)
		}
	}
	e.run(todo, emit)
}

// Update compiles what a delta of the Southbound and a change of the chassis touch. in.SB already has the delta.
func (e *Engine) Update(delta sb.Delta, in Input) []Replacement {
	old := e.view
	e.see(in)
	d := dirtying{e: e, todo: map[unitID]dirt{}}
	if e.units[unitID{kind: unitConstant}] == nil {
		d.unit(unitID{kind: unitConstant})
	}
	for _, c := range delta.Changes {
		d.row(c)
	}
	if old.local != in.Local {
		d.local(&old, in.Local)
	}
	if old.geneve != in.Geneve {
		d.fact(fact{kind: factGeneve})
	}
	var out []Replacement
	e.run(d.todo, func(r Replacement) { out = append(out, r) })
	return out
}

// see makes in what the units see.
func (e *Engine) see(in Input) {
	v := view{sb: in.SB, local: in.Local, geneve: in.Geneve, reads: map[fact]struct{}{}}
	if e.view.local == in.Local && e.view.tunnels != nil {
		v.tunnels = e.view.tunnels
	} else {
		v.tunnels = map[string][]Tunnel{}
		for _, t := range in.Local.Tunnels {
			v.tunnels[t.Chassis] = append(v.tunnels[t.Chassis], t)
		}
	}
	v.related, v.relatedNames = map[[2]uint32]struct{}{}, map[string]struct{}{}
	for id := range in.Local.Related {
		p := in.SB.Ports[id]
		if p == nil {
			continue
		}
		v.relatedNames[p.Name] = struct{}{}
		if dp := in.SB.Datapaths[p.Datapath]; dp != nil {
			v.related[[2]uint32{dp.Key, p.Key}] = struct{}{}
		}
	}
	e.view = v
}

func (e *Engine) known(id sb.UUID) bool {
	s := e.view.sb
	return s.LogicalFlows[id] != nil || s.Ports[id] != nil || s.MulticastGroups[id] != nil ||
		s.MACBindings[id] != nil || s.StaticBindings[id] != nil || s.FDBs[id] != nil
}

// run compiles the units in a fixed order.
func (e *Engine) run(todo map[unitID]dirt, emit func(Replacement)) {
	ids := slices.SortedFunc(maps.Keys(todo), func(a, b unitID) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), bytes.Compare(a.row[:], b.row[:]), cmp.Compare(a.name, b.name))
	})
	var out []Replacement
	for _, id := range ids {
		out = e.compile(out[:0], id, todo[id])
		for _, r := range out {
			emit(r)
		}
	}
	e.exprs.trim()
	e.actions.trim()
}

// compile compiles one unit and records what it has read.
func (e *Engine) compile(out []Replacement, id unitID, d dirt) []Replacement {
	u := e.units[id]
	if u == nil {
		u = &unit{id: id}
		e.units[id] = u
	}
	clear(e.view.reads)
	if !d.all {
		// What the other parts have read stays read.
		for _, n := range u.reads {
			e.view.reads[n.fact] = struct{}{}
		}
	}
	var exists bool
	if id.kind == unitLogicalFlow {
		out, exists = e.compileFlow(out, u, id.row, d)
	} else {
		s := sink{}
		exists = e.compileRow(&s, id)
		if len(s.rules) > 0 || u.ruled {
			owner := Owner{Row: id.row}
			if id.kind == unitTunnel {
				owner.Row = tunnelOwner(id.name)
			}
			out = append(out, Replacement{Owner: owner, Rules: s.rules})
		}
		u.ruled = len(s.rules) > 0
	}
	e.record(u)
	if !exists {
		delete(e.units, id)
		delete(e.skipped, id.row)
	}
	return out
}

// tunnelName identifies a tunnel among those of this chassis.
func tunnelName(t Tunnel) string { return t.Type + " " + t.Chassis + " " + t.RemoteIP }

// tunnelOwner names the owner of a tunnel's rules, which belong to no row: a UUID of version 5 of its name.
func tunnelOwner(name string) sb.UUID {
	h := sha1.Sum([]byte(name))
	u := sb.UUID(h[:16])
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return u
}

// record replaces what the unit has read by the view's reads.
func (e *Engine) record(u *unit) {
	now := e.view.reads
	for _, n := range u.reads {
		if _, still := now[n.fact]; still {
			continue
		}
		delete(n.readers, u)
		if len(n.readers) == 0 {
			delete(e.facts, n.fact)
		}
	}
	u.reads = slices.Grow(u.reads[:0], len(now))
	for f := range now {
		n := e.facts[f]
		if n == nil {
			n = &factNode{f, map[*unit]struct{}{}}
			e.facts[f] = n
		}
		n.readers[u] = struct{}{}
		u.reads = append(u.reads, n)
	}
}

// compileRow compiles a unit other than a logical flow. It reports whether what the unit stands for exists.
func (e *Engine) compileRow(s *sink, id unitID) bool {
	v := &e.view
	switch id.kind {
	case unitConstant:
		constant(s)
	case unitTunnel:
		return e.compileTunnel(s, id.name)
	case unitPort:
		p := v.sb.Ports[id.row]
		if p == nil {
			return false
		}
		if dp := v.localDatapath(p.Datapath); dp != nil {
			v.port(s, dp, p)
			if _, here := v.localPort(p.Name); here && dp.IsSwitch && len(p.PortSecurity) > 0 && v.resident(p) {
				e.report(id.row, portSecurity(s, dp, p))
			}
		}
	case unitMulticastGroup:
		g := v.sb.MulticastGroups[id.row]
		if g == nil {
			return false
		}
		if dp := v.localDatapath(g.Datapath); dp != nil {
			v.multicastGroup(s, dp, g)
		}
	case unitMACBinding:
		b := v.sb.MACBindings[id.row]
		if b == nil {
			return false
		}
		if dp, p := v.neighbourPort(b.Port); p != nil {
			e.report(id.row, one(macBinding(s, dp, p, b)))
		}
	case unitStaticBinding:
		b := v.sb.StaticBindings[id.row]
		if b == nil {
			return false
		}
		if dp, p := v.neighbourPort(b.Port); p != nil {
			e.report(id.row, one(staticMACBinding(s, dp, p, b)))
		}
	case unitFDB:
		f := v.sb.FDBs[id.row]
		if f == nil {
			return false
		}
		v.read(fact{kind: factDatapath, name: fdbKey(f.DatapathKey)})
		if dp := v.sb.DatapathByKey(f.DatapathKey); dp != nil && v.localDatapath(dp.UUID) != nil {
			e.report(id.row, one(fdbEntry(s, dp, f)))
		}
	case unitLogicalFlow:
		panic("compile: a logical flow is compiled per datapath")
	}
	return true
}

// fdbKey is the name under which units that know only a datapath's key read it.
func fdbKey(key uint32) string { return "key " + strconv.FormatUint(uint64(key), 10) }

func one(err error) []error {
	if err == nil {
		return nil
	}
	return []error{err}
}

// report notes what is wrong with a row that has been compiled all the same.
func (e *Engine) report(row sb.UUID, errs []error) {
	if len(errs) == 0 {
		delete(e.skipped, row)
	}
	for _, err := range errs {
		e.skip(Skip{Row: row, Err: err})
	}
}

// neighbourPort returns the port of a neighbour entry and its datapath, if that is local.
func (v *view) neighbourPort(name string) (*sb.Datapath, *sb.Port) {
	p := v.portByName(name)
	if p == nil {
		return nil, nil
	}
	dp := v.localDatapath(p.Datapath)
	if dp == nil {
		return nil, nil
	}
	return dp, p
}

func (e *Engine) compileTunnel(s *sink, name string) bool {
	v := &e.view
	for _, t := range v.local.Tunnels {
		if tunnelName(t) != name {
			continue
		}
		var vteps []*sb.Port
		if t.Type == encapVXLAN {
			v.read(fact{kind: factVTEPs})
			for _, p := range sb.Sorted(v.sb.Ports) {
				if p.Type != sb.VTEP {
					continue
				}
				if c := v.chassis(p.Chassis); c != nil && c.Name == t.Chassis {
					vteps = append(vteps, p)
				}
			}
		} else {
			v.read(fact{kind: factGeneve})
			if v.geneve == 0 {
				return true
			}
		}
		if t.OFPort != 0 {
			v.tunnelIngress(s, t, vteps)
		}
		return true
	}
	return false
}

// dirtying collects the units that a change touches.
type dirtying struct {
	e    *Engine
	todo map[unitID]dirt
}

func (d *dirtying) unit(id unitID) { d.todo[id] = dirt{all: true} }

// part marks a logical flow for one of its datapaths.
func (d *dirtying) part(flow, dp sb.UUID) {
	id := unitID{kind: unitLogicalFlow, row: flow}
	x := d.todo[id]
	if x.all {
		return
	}
	if x.datapaths == nil {
		x.datapaths = map[sb.UUID]struct{}{}
	}
	x.datapaths[dp] = struct{}{}
	d.todo[id] = x
}

func (d *dirtying) fact(f fact) {
	if n := d.e.facts[f]; n != nil {
		for u := range n.readers {
			d.unit(u.id)
		}
	}
}

// row marks what a changed row touches: its own unit, and the units that have read it.
func (d *dirtying) row(c sb.Change) {
	for _, r := range []sb.Row{c.Old, c.New} {
		switch r := r.(type) {
		case nil:
		case *sb.Datapath:
			d.fact(fact{kind: factDatapath, row: r.UUID})
			d.fact(fact{kind: factDatapath, name: fdbKey(r.Key)})
			d.flowsOf(r.UUID)
		case *sb.Port:
			d.unit(unitID{kind: unitPort, row: r.UUID})
			d.fact(fact{kind: factPort, name: r.Name})
			d.fact(fact{kind: factPortRow, row: r.UUID})
			if old, ok := c.Old.(*sb.Port); !ok || c.New == nil || old.Name != c.New.(*sb.Port).Name {
				d.memberOf(r.Name)
			}
			if r.Type == sb.VTEP {
				d.fact(fact{kind: factVTEPs})
			}
		case *sb.LogicalFlow:
			d.unit(unitID{kind: unitLogicalFlow, row: r.UUID})
		case *sb.DatapathGroup:
			d.group(c)
			return
		case *sb.MulticastGroup:
			d.unit(unitID{kind: unitMulticastGroup, row: r.UUID})
			if old, ok := c.Old.(*sb.MulticastGroup); ok && c.New != nil {
				now := c.New.(*sb.MulticastGroup)
				if old.Name == now.Name && old.Key == now.Key && old.Datapath == now.Datapath {
					continue // only the members changed, which no logical flow reads
				}
			}
			d.fact(fact{kind: factMulticastGroup, row: r.Datapath, name: r.Name})
		case *sb.MACBinding:
			d.unit(unitID{kind: unitMACBinding, row: r.UUID})
		case *sb.StaticMACBinding:
			d.unit(unitID{kind: unitStaticBinding, row: r.UUID})
		case *sb.FDB:
			d.unit(unitID{kind: unitFDB, row: r.UUID})
		case *sb.AddressSet:
			d.e.exprs.changedAddressSet(r.Name)
			d.fact(fact{kind: factAddressSet, name: r.Name})
		case *sb.PortGroup:
			d.e.exprs.changedPortGroup(r.Name)
			d.fact(fact{kind: factPortGroup, name: r.Name})
		case *sb.Chassis:
			d.fact(fact{kind: factChassis, row: r.UUID})
		case *sb.Encap:
			d.fact(fact{kind: factEncap, row: r.UUID})
		case *sb.HAChassisGroup, *sb.HAChassis:
			d.fact(fact{kind: factHA})
		case *sb.Meter:
			d.fact(fact{kind: factMeter, name: r.Name})
		case *sb.MeterBand:
			for _, m := range d.e.view.sb.Meters {
				if slices.Contains(m.Bands, r.UUID) {
					d.fact(fact{kind: factMeter, name: m.Name})
				}
			}
		}
	}
}

// memberOf marks the port groups that name a port: which of their members matter here may have changed.
func (d *dirtying) memberOf(port string) {
	for _, pg := range d.e.view.sb.PortGroupsWith(port) {
		d.e.exprs.changedPortGroup(pg.Name)
		d.fact(fact{kind: factPortGroup, name: pg.Name})
	}
}

// flowsOf marks the logical flows of a datapath, for that datapath.
func (d *dirtying) flowsOf(dp sb.UUID) {
	s := d.e.view.sb
	for id := range s.FlowsOf(dp) {
		d.part(id, dp)
	}
	for group := range s.GroupsOf(dp) {
		for id := range s.FlowsOfGroup(group) {
			d.part(id, dp)
		}
	}
}

// group marks the flows of a datapath group for the datapaths that joined or left.
func (d *dirtying) group(c sb.Change) {
	in := map[sb.UUID]int{}
	var id sb.UUID
	if g, ok := c.Old.(*sb.DatapathGroup); ok && g != nil {
		id = g.UUID
		for _, dp := range g.Datapaths {
			in[dp] |= 1
		}
	}
	if g, ok := c.New.(*sb.DatapathGroup); ok && g != nil {
		id = g.UUID
		for _, dp := range g.Datapaths {
			in[dp] |= 2
		}
	}
	for dp, when := range in {
		if when == 3 {
			continue
		}
		for flow := range d.e.view.sb.FlowsOfGroup(id) {
			d.part(flow, dp)
		}
	}
}

// local marks what a change of the chassis touches.
func (d *dirtying) local(old *view, now *chassis.Local) {
	was := old.local
	if was == nil {
		was = &chassis.Local{}
	}
	if was.Chassis != now.Chassis {
		// Who we are decides where every port is.
		for id := range d.e.units {
			if id.kind == unitPort || id.kind == unitMulticastGroup || id.kind == unitLogicalFlow {
				d.unit(id)
			}
		}
	}
	if was.CTZeroSNAT != now.CTZeroSNAT || was.HashL4Sym != now.HashL4Sym {
		for id := range d.e.units {
			if id.kind == unitLogicalFlow {
				d.unit(id)
			}
		}
	}
	changed(was.Datapaths, now.Datapaths, func(a, b *chassis.LocalDatapath) bool {
		return a != nil && b != nil && a.Localnet == b.Localnet
	}, func(dp sb.UUID) {
		d.fact(fact{kind: factDatapath, row: dp})
		if (was.Datapaths[dp] == nil) != (now.Datapaths[dp] == nil) {
			d.flowsOf(dp)
			d.unread(dp)
		}
	})
	same := func(a, b uint16) bool { return a == b }
	changed(was.Zones, now.Zones, same, func(key string) { d.fact(fact{kind: factZone, name: key}) })
	changed(was.Patch, now.Patch, same, func(name string) { d.fact(fact{kind: factPatch, name: name}) })
	changed(was.Ports, now.Ports, func(a, b chassis.LocalPort) bool { return a.OFPort == b.OFPort },
		func(name string) { d.fact(fact{kind: factLocalPort, name: name}) })
	changed(was.Related, now.Related, func(_, _ struct{}) bool { return true }, func(id sb.UUID) {
		if p := d.e.view.sb.Ports[id]; p != nil {
			d.fact(fact{kind: factPort, name: p.Name})
			d.memberOf(p.Name)
		}
	})
	if !maps.Equal(was.ActiveTunnels, now.ActiveTunnels) {
		d.fact(fact{kind: factHA})
	}
	d.tunnels(was.Tunnels, now.Tunnels)
}

// unread marks rows of a datapath whose units do not exist because the row came while the datapath was unknown.
func (d *dirtying) unread(dp sb.UUID) {
	s := d.e.view.sb
	for id := range s.PortsOf(dp) {
		d.unit(unitID{kind: unitPort, row: id})
	}
	for id := range s.MulticastGroupsOf(dp) {
		d.unit(unitID{kind: unitMulticastGroup, row: id})
	}
}

func (d *dirtying) tunnels(was, now []Tunnel) {
	byPort := func(ts []Tunnel) map[string]Tunnel {
		m := map[string]Tunnel{}
		for _, t := range ts {
			m[tunnelName(t)] = t
		}
		return m
	}
	a, b := byPort(was), byPort(now)
	changed(a, b, func(x, y Tunnel) bool { return x == y }, func(port string) {
		d.unit(unitID{kind: unitTunnel, name: port})
		for _, t := range []Tunnel{a[port], b[port]} {
			d.fact(fact{kind: factTunnel, name: t.Chassis})
		}
	})
}

// changed calls f for every key that a and b do not have in common with the same value.
func changed[K comparable, V any](a, b map[K]V, same func(V, V) bool, f func(K)) {
	for k, x := range a {
		if y, ok := b[k]; !ok || !same(x, y) {
			f(k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			f(k)
		}
	}
}
