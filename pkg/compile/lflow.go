package compile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
	"github.com/offloadd/offloadd/pkg/sb"
)

// compileFlow compiles a logical flow for those of its datapaths that d names and that are local. It reports whether
// the row exists.
func (e *Engine) compileFlow(out []Replacement, u *unit, id sb.UUID, d dirt) ([]Replacement, bool) {
	f := e.view.sb.LogicalFlows[id]
	drop := func(dp sb.UUID) {
		if p, ok := u.parts[dp]; ok {
			out = append(out, Replacement{Owner: Owner{id, p.key}})
			e.release(p)
			delete(u.parts, dp)
			e.conj.free(id, dp)
		}
	}
	if f == nil {
		for dp := range u.parts {
			drop(dp)
		}
		return out, false
	}
	datapaths := e.datapathsOf(f)
	for dp := range u.parts {
		_, named := d.datapaths[dp]
		if (d.all || named) && !slices.Contains(datapaths, dp) {
			drop(dp)
		}
	}
	if d.all {
		delete(e.skipped, id)
	}
	var ruled []Replacement // come after the dropped ones: a tunnel key may have moved to another datapath
	for _, id := range datapaths {
		if _, named := d.datapaths[id]; !d.all && !named {
			continue
		}
		dp := e.view.sb.Datapaths[id]
		if dp == nil || e.view.local.Datapaths[id] == nil {
			drop(id)
			continue
		}
		s := sink{}
		if err := e.logicalFlow(&s, f, dp); err != nil {
			s.rules = nil
			e.skip(skipOf(f, err))
		}
		now := newPart(dp.Key, &s)
		if len(s.rules) == 0 {
			e.release(now)
			drop(id)
			continue
		}
		if old, had := u.parts[id]; had {
			if old.key != dp.Key {
				out = append(out, Replacement{Owner: Owner{f.UUID, old.key}})
			}
			e.release(old) // only now, so that what is still in use keeps its identifier
		}
		if u.parts == nil {
			u.parts = map[sb.UUID]part{}
		}
		u.parts[id] = now
		ruled = append(ruled, Replacement{Owner{f.UUID, dp.Key}, s.rules, s.groups, s.meters})
	}
	return append(out, ruled...), true
}

func skipOf(f *sb.LogicalFlow, err error) Skip {
	s := Skip{Row: f.UUID, Err: fmt.Errorf("compile logical flow %s: %w", f.UUID, err)}
	if un, ok := errors.AsType[*Unsupported](err); ok {
		s.Action = un.Action
	}
	return s
}

// datapathsOf returns the datapaths of f in the order of their UUIDs.
func (e *Engine) datapathsOf(f *sb.LogicalFlow) []sb.UUID {
	if !f.Datapath.IsZero() {
		return []sb.UUID{f.Datapath}
	}
	if g := e.view.sb.DatapathGroups[f.Group]; g != nil {
		return g.Datapaths
	}
	return nil
}

// logicalFlow compiles f for one local datapath.
func (e *Engine) logicalFlow(s *sink, f *sb.LogicalFlow, dp *sb.Datapath) error {
	v := &e.view
	if f.InOutPort != "" {
		p := v.portByName(f.InOutPort)
		if p == nil || !v.relevant(dp, p.Key) {
			return nil
		}
	}
	acts, err := e.actions.parse(f)
	if err != nil {
		return fmt.Errorf("actions %q: %w", f.Actions, err)
	}
	matches, err := e.matches(f, acts, dp)
	if err != nil {
		return fmt.Errorf("match %q: %w", f.Match, err)
	}
	encoded, err := e.encode(s, f, acts, dp)
	if err != nil {
		return err
	}

	pipeline, port := uint8(TableIngress), regInport
	if f.Egress {
		pipeline, port = TableEgress, regOutport
	}
	cookie := f.UUID.Cookie()
	key := func(name string) (uint32, bool) { return v.key(dp, name) }
	flows := e.actions.flows[:0]
	nConj := matches.ForDatapath(key, func(m logical.FlowMatch) { flows = append(flows, m) })
	e.actions.flows = flows[:0]
	var base uint32
	if nConj > 0 {
		base = e.conj.alloc(f.UUID, dp.UUID, uint32(nConj)) - 1
	}
	for _, fm := range flows {
		if dp.IsSwitch {
			if t, ok := fm.Match.Term(port); ok && !t.Value.IsZero() && !v.relevant(dp, uint32(t.Value.Lo)) {
				continue
			}
		}
		m := fm.Match.Eq(ir.Metadata, uint64(dp.Key))
		if len(fm.Conj) > 0 {
			conj := make([]ir.Action, len(fm.Conj))
			for i, c := range fm.Conj {
				conj[i] = ir.Conjunction{ID: base + c.ID, Clause: c.Clause, N: c.N}
			}
			s.rule(pipeline+f.Table, f.Priority, 0, m, conj...)
			continue
		}
		if fm.ConjID != 0 {
			m = m.Eq(ir.ConjID, uint64(base+fm.ConjID))
		}
		s.rule(pipeline+f.Table, f.Priority, cookie, m, encoded...)
	}
	return nil
}

// maxExprs bounds the cache of parsed matches.
const maxExprs = 1 << 14

// An exprCache remembers matches by text. It is emptied when it grows too large, since most texts occur once and
// those that occur often are soon back.
type exprCache struct {
	entries map[exprKey]exprEntry
	// users holds the keys of the entries that name an address set ("$name") or a Southbound port group ("@name").
	users map[string][]exprKey
	sets  map[string]addressSet
}

type exprKey struct {
	match, prereqs string
	dp             uint32 // port groups differ per datapath; 0 if the text has none
}

type exprEntry struct {
	refs    logical.Refs
	expr    *logical.Expr    // nil unless the matches depend on which ports are resident
	matches *logical.Matches // otherwise
	err     error
}

type addressSet struct{ constants []logical.Constant }

// keptTexts is how many texts the caches keep between two runs: a run over everything shares much, and the next change
// concerns little of it.
const keptTexts = 1 << 8

func (c *exprCache) trim() {
	if len(c.entries) > keptTexts {
		*c = exprCache{sets: c.sets}
	}
}

func (c *exprCache) changedAddressSet(name string) {
	delete(c.sets, name)
	c.forget("$" + name)
}

func (c *exprCache) changedPortGroup(name string) { c.forget("@" + name) }

func (c *exprCache) forget(set string) {
	for _, k := range c.users[set] {
		delete(c.entries, k)
	}
	delete(c.users, set)
}

// matches returns the matches of f for dp.
func (e *Engine) matches(f *sb.LogicalFlow, acts *parsedActions, dp *sb.Datapath) (*logical.Matches, error) {
	k := exprKey{match: f.Match, prereqs: acts.prereqText}
	if containsByte(f.Match, '@') {
		k.dp = dp.Key
	}
	c := &e.exprs
	entry, ok := c.entries[k]
	if !ok {
		entry = parseMatch(f.Match, acts.Prereqs, sets{e, dp})
		c.add(k, entry, dp)
	}
	e.readSets(entry, dp)
	if entry.err != nil {
		return nil, entry.err
	}
	if entry.matches != nil {
		return entry.matches, nil
	}
	return entry.expr.Matches(e.view.residentByName)
}

func containsByte(s string, b byte) bool {
	for i := range len(s) {
		if s[i] == b {
			return true
		}
	}
	return false
}

func parseMatch(text string, prereqs []string, s sets) exprEntry {
	expr, err := logical.ParseMatch(text, logical.Symbols(), s, prereqs...)
	var failed *logical.ParseError
	switch {
	case errors.As(err, &failed):
		return exprEntry{refs: failed.Refs, err: err}
	case err != nil:
		return exprEntry{err: err}
	case len(expr.Refs().Residents) > 0:
		return exprEntry{refs: expr.Refs(), expr: expr}
	}
	matches, err := expr.Matches(nil)
	return exprEntry{refs: expr.Refs(), matches: matches, err: err}
}

func (c *exprCache) add(k exprKey, entry exprEntry, dp *sb.Datapath) {
	if len(c.entries) >= maxExprs || c.entries == nil {
		c.entries = map[exprKey]exprEntry{}
		c.users = map[string][]exprKey{}
	}
	c.entries[k] = entry
	refs := entry.refs
	for _, name := range refs.AddressSets {
		c.users["$"+name] = append(c.users["$"+name], k)
	}
	for _, name := range refs.PortGroups {
		for _, n := range []string{portGroupName(dp.Key, name), name} {
			c.users["@"+n] = append(c.users["@"+n], k)
		}
	}
}

// readSets records that the unit at hand depends on the sets that its match names, found or not.
func (e *Engine) readSets(entry exprEntry, dp *sb.Datapath) {
	refs := entry.refs
	for _, name := range refs.AddressSets {
		e.view.read(fact{kind: factAddressSet, name: name})
	}
	for _, name := range refs.PortGroups {
		for _, n := range []string{portGroupName(dp.Key, name), name} {
			e.view.read(fact{kind: factPortGroup, name: n})
		}
	}
}

// portGroupName is the name northd gives to the part of a port group that lies in a datapath.
func portGroupName(key uint32, name string) string {
	return strconv.FormatUint(uint64(key), 10) + "_" + name
}

// sets gives the expression parser the address sets and the port groups that a datapath sees.
type sets struct {
	e  *Engine
	dp *sb.Datapath
}

// AddressSet returns the members of an Address_Set, without those that are no address.
func (s sets) AddressSet(name string) ([]logical.Constant, bool) {
	c := &s.e.exprs
	if as, ok := c.sets[name]; ok {
		return as.constants, true
	}
	as := s.e.view.sb.AddressSetByName(name)
	if as == nil {
		return nil, false
	}
	constants, invalid := logical.ParseAddressSet(as.Addresses)
	if len(invalid) > 0 {
		s.e.skip(Skip{Row: as.UUID, Err: fmt.Errorf("compile address set %s: %q: no address", name, invalid)})
	}
	if c.sets == nil {
		c.sets = map[string]addressSet{}
	}
	c.sets[name] = addressSet{constants}
	return constants, true
}

// PortGroup returns the members of a Port_Group, of the datapath's own row or of one with the bare name, as far as their
// logical flows matter here: a group of which one port is local is a plain match, not a dimension.
func (s sets) PortGroup(name string) ([]string, bool) {
	for _, n := range []string{portGroupName(s.dp.Key, name), name} {
		pg := s.e.view.sb.PortGroupByName(n)
		if pg == nil {
			continue
		}
		var ports []string
		for _, p := range pg.Ports {
			if _, ok := s.e.view.relatedNames[p]; ok {
				ports = append(ports, p)
			}
		}
		return ports, true
	}
	return nil, false
}

// conjIDs hands out the ids of conjunctive matches: a block per logical flow and datapath, where the hash of the two
// says, so that the ids are the same after a restart unless blocks collide.
type conjIDs struct {
	blocks map[conjOwner]conjBlock
	used   map[uint32]struct{}
}

type conjOwner struct{ flow, dp sb.UUID }

type conjBlock struct{ start, n uint32 }

func newConjIDs() conjIDs {
	return conjIDs{map[conjOwner]conjBlock{}, map[uint32]struct{}{}}
}

// alloc returns the first of n ids for a logical flow in a datapath, never 0. The ids it had before are free unless it
// still has as many.
func (c *conjIDs) alloc(flow, dp sb.UUID, n uint32) uint32 {
	owner := conjOwner{flow, dp}
	if b, ok := c.blocks[owner]; ok {
		if b.n == n {
			return b.start
		}
		c.free(flow, dp)
	}
	start := owner.hash()
	for !c.vacant(start, n) {
		start++
	}
	for i := range n {
		c.used[start+i] = struct{}{}
	}
	c.blocks[owner] = conjBlock{start, n}
	return start
}

func (c *conjIDs) vacant(start, n uint32) bool {
	if start == 0 || start+n < start {
		return false
	}
	for i := range n {
		if _, ok := c.used[start+i]; ok {
			return false
		}
	}
	return true
}

func (c *conjIDs) free(flow, dp sb.UUID) {
	owner := conjOwner{flow, dp}
	b, ok := c.blocks[owner]
	if !ok {
		return
	}
	for i := range b.n {
		delete(c.used, b.start+i)
	}
	delete(c.blocks, owner)
}

func (o conjOwner) hash() uint32 { return fnv1a(append(o.flow[:], o.dp[:]...)) }
