package apply

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// Owner is who asks for a flow: a Southbound row, and which part of what it asks for (the tunnel key of a datapath for
// a logical flow that many datapaths share, 0 otherwise).
type Owner struct {
	Row  [16]byte
	Part uint32
}

// Replacement says that from now on Owner wants exactly Rules. No rules: it wants nothing any more.
type Replacement struct {
	Owner Owner
	Rules []ir.Rule
	// Groups and Meters are those that Rules use, by identifier. Owners that use the same identifier name the same
	// contents.
	Groups map[uint32]ir.SelectGroup
	Meters map[uint32]ir.RateMeter
}

// Key is what OpenFlow identifies a flow by. Match is in its canonical encoding, openflow.AppendMatch.
type Key struct {
	Table    uint8
	Priority uint16
	Match    string
}

// Flow is what a flow does, with actions in their canonical encoding.
type Flow struct {
	Cookie  uint64
	Actions string
}

// FlowTable holds, for every key, who wants what, and what the switch has. Several owners may want the same key:
// the one that does something wins over the one that drops, and that over members of conjunctions, which are united;
// among equals the smallest cookie wins, so that the result does not depend on the order of arrival. Groups and meters
// are desired as long as somebody's flows use them.
//
// A FlowTable is not safe for concurrent use.
type FlowTable struct {
	entries map[Key]*entry
	owned   map[Owner][]*entry
	dirty   map[*entry]struct{} // may differ from the switch
	unseen  map[Owner]struct{}  // between Begin and End: who has not been heard of
	desired int
	refused int             // entries whose refused is not nil
	groups  idTable[string] // openflow.AppendGroup
	meters  idTable[ir.RateMeter]
	// noGroups asks for the deletion of all groups before anything else.
	noGroups bool

	interned map[string]string
	scratch  []byte
}

type entry struct {
	key       Key
	claims    []claim
	present   bool // on the switch
	before    bool // on the switch before the last mod
	installed Flow
	refused   *refusal // nil unless the switch would not have it
}

// A refusal is a flow that the switch did not accept, and why.
type refusal struct {
	flow Flow
	err  error
}

type claim struct {
	owner Owner
	flow  Flow
	conj  []ir.Conjunction // if not empty, flow.Actions is unused
}

// NewFlowTable returns a table in which nobody wants anything and nothing is installed.
func NewFlowTable() *FlowTable {
	return &FlowTable{
		entries:  map[Key]*entry{},
		owned:    map[Owner][]*entry{},
		dirty:    map[*entry]struct{}{},
		groups:   newIDTable[string](),
		meters:   newIDTable[ir.RateMeter](),
		interned: map[string]string{},
	}
}

// Len returns the number of flows that are desired.
func (t *FlowTable) Len() int { return t.desired }

// LenRefused returns how many flows are desired that the switch refused.
func (t *FlowTable) LenRefused() int { return t.refused }

// Replace makes r.Rules all that r.Owner wants.
func (t *FlowTable) Replace(r Replacement) {
	delete(t.unseen, r.Owner)
	for _, e := range t.owned[r.Owner] {
		n := len(e.claims)
		e.claims = slices.DeleteFunc(e.claims, func(c claim) bool { return c.owner == r.Owner })
		if n > 0 && len(e.claims) == 0 {
			t.desired--
		}
		t.dirty[e] = struct{}{}
	}
	if len(r.Rules) == 0 {
		delete(t.owned, r.Owner)
		t.groups.replace(r.Owner, nil)
		t.meters.replace(r.Owner, nil)
		return
	}
	t.groups.replace(r.Owner, groupBodies(r.Groups))
	t.meters.replace(r.Owner, r.Meters)
	entries := make([]*entry, 0, len(r.Rules))
	for i := range r.Rules {
		rule := &r.Rules[i]
		e := t.entry(rule)
		if len(e.claims) == 0 {
			t.desired++
		}
		c := claim{owner: r.Owner, flow: Flow{Cookie: rule.Cookie}}
		if conj := conjunctions(rule.Actions); conj != nil {
			c.conj = conj
		} else {
			t.scratch = openflow.AppendActions(t.scratch[:0], rule.Actions)
			c.flow.Actions = t.intern(t.scratch)
		}
		e.claims = append(e.claims, c)
		t.dirty[e] = struct{}{}
		entries = append(entries, e)
	}
	t.owned[r.Owner] = entries
}

// Begin starts a complete account: owners that Replace is not called for before End want nothing.
func (t *FlowTable) Begin() {
	t.unseen = make(map[Owner]struct{}, len(t.owned))
	for o := range t.owned {
		t.unseen[o] = struct{}{}
	}
}

// End ends the account that Begin started.
func (t *FlowTable) End() {
	for o := range t.unseen {
		t.Replace(Replacement{Owner: o})
	}
	t.unseen = nil
}

func (t *FlowTable) entry(rule *ir.Rule) *entry {
	t.scratch = openflow.AppendMatch(t.scratch[:0], rule.Match)
	// The lookup does not allocate; only a new key makes a string of the match.
	if e := t.entries[Key{rule.Table, rule.Priority, string(t.scratch)}]; e != nil {
		return e
	}
	return t.add(Key{rule.Table, rule.Priority, string(t.scratch)})
}

func (t *FlowTable) add(k Key) *entry {
	e := &entry{key: k}
	t.entries[k] = e
	return e
}

// intern returns b as a string that equal action lists share.
func (t *FlowTable) intern(b []byte) string {
	if s, ok := t.interned[string(b)]; ok {
		return s
	}
	s := string(b)
	t.interned[s] = s
	return s
}

func conjunctions(acts []ir.Action) []ir.Conjunction {
	var out []ir.Conjunction
	for _, a := range acts {
		c, ok := a.(ir.Conjunction)
		if !ok {
			return nil
		}
		out = append(out, c)
	}
	return out
}

// want returns the flow that wins at e, and whether anybody wants one.
func (t *FlowTable) want(e *entry) (Flow, bool) {
	best := -1
	var conj []ir.Conjunction
	for i, c := range e.claims {
		if c.conj != nil {
			conj = append(conj, c.conj...)
			continue
		}
		if best < 0 || preferred(c.flow, e.claims[best].flow) {
			best = i
		}
	}
	switch {
	case best >= 0:
		return e.claims[best].flow, true
	case conj == nil:
		return Flow{}, false
	}
	slices.SortFunc(conj, func(a, b ir.Conjunction) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Clause, b.Clause), cmp.Compare(a.N, b.N))
	})
	conj = slices.Compact(conj)
	acts := make([]ir.Action, len(conj))
	for i, c := range conj {
		acts[i] = c
	}
	t.scratch = openflow.AppendActions(t.scratch[:0], acts)
	return Flow{Actions: t.intern(t.scratch)}, true
}

// preferred reports whether a wins over b.
func preferred(a, b Flow) bool {
	if drops := a.Actions == ""; drops != (b.Actions == "") {
		return !drops
	}
	return cmp.Or(cmp.Compare(a.Cookie, b.Cookie), cmp.Compare(a.Actions, b.Actions)) < 0
}

// Reset forgets what is installed: nothing is. Following calls of Installed, InstalledGroup and InstalledMeter tell
// what is.
func (t *FlowTable) Reset() {
	t.groups.reset()
	t.meters.reset()
	t.noGroups = false
	for k, e := range t.entries {
		e.present, e.installed = false, Flow{}
		t.setRefused(e, nil)
		if len(e.claims) == 0 {
			delete(t.entries, k)
			delete(t.dirty, e)
			continue
		}
		t.dirty[e] = struct{}{}
	}
}

// Installed tells that the switch has a flow. The slices may be reused afterwards.
func (t *FlowTable) Installed(table uint8, priority uint16, match, actions []byte, cookie uint64) {
	if t.noGroups && usesGroup(actions) {
		return // it goes with its group
	}
	e := t.entries[Key{table, priority, string(match)}]
	if e == nil {
		e = t.add(Key{table, priority, string(match)})
	}
	e.present = true
	e.installed = Flow{cookie, t.intern(actions)}
	t.dirty[e] = struct{}{}
}

// Mods returns the changes that turn what is installed into what is desired: first groups that are new, then flows,
// ordered by table, priority and match, then groups that are of no use any more, since with a group go the flows that
// use it. It takes them as done: a caller that could not carry them out calls Reset, and one whose switch refused some
// calls Refused for each of them.
func (t *FlowTable) Mods() []openflow.Mod {
	wanted, unwanted := t.groups.changes()
	flows := t.flowMods()
	mods := make([]openflow.Mod, 0, 1+len(wanted)+len(flows)+len(unwanted))
	if t.noGroups {
		mods = append(mods, openflow.Mod{Kind: openflow.GroupDelete, Group: openflow.AllGroups})
		t.noGroups = false
	}
	for _, c := range wanted {
		kind := openflow.GroupAdd
		if c.modify {
			kind = openflow.GroupModify
		}
		mods = append(mods, openflow.GroupMods(kind, c.id, c.want)...)
	}
	mods = append(mods, flows...)
	for _, id := range unwanted {
		mods = append(mods, openflow.Mod{Kind: openflow.GroupDelete, Group: id})
	}
	return mods
}

// flowMods returns those of the changes that concern flows.
func (t *FlowTable) flowMods() []openflow.Mod {
	var mods []openflow.Mod
	for e := range t.dirty {
		if m, ok := t.mod(e); ok {
			mods = append(mods, m)
		}
	}
	clear(t.dirty)
	slices.SortFunc(mods, func(a, b openflow.Mod) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Match, b.Match))
	})
	t.sweep()
	return mods
}

func (t *FlowTable) mod(e *entry) (openflow.Mod, bool) {
	m := openflow.Mod{Table: e.key.Table, Priority: e.key.Priority, Match: e.key.Match}
	flow, wanted := t.want(e)
	if wanted && e.refused != nil && e.refused.flow == flow {
		return m, false
	}
	t.setRefused(e, nil)
	e.before = e.present
	switch {
	case !wanted && !e.present:
		delete(t.entries, e.key)
		return m, false
	case !wanted:
		delete(t.entries, e.key)
		m.Kind = openflow.FlowDeleteStrict
		return m, true
	case !e.present:
		m.Kind = openflow.FlowAdd
	case e.installed == flow:
		return m, false
	case e.installed.Cookie == flow.Cookie:
		m.Kind = openflow.FlowModifyStrict // keeps the counters
	default:
		m.Kind = openflow.FlowAdd
	}
	m.Cookie, m.Body = flow.Cookie, flow.Actions
	e.present, e.installed = true, flow
	return m, true
}

// Refused tells that the switch did not accept m, and why. Nothing is tried again at its key, or under its number, until
// somebody wants something else there.
func (t *FlowTable) Refused(m openflow.Mod, err error) {
	switch m.Kind {
	case openflow.GroupAdd, openflow.GroupModify, openflow.GroupInsert:
		t.groups.refuse(m.Group, m.Kind != openflow.GroupAdd)
		return
	case openflow.GroupDelete:
		return
	case openflow.FlowAdd, openflow.FlowModifyStrict, openflow.FlowDeleteStrict, openflow.FlowDelete:
	}
	e := t.entries[Key{m.Table, m.Priority, m.Match}]
	if e == nil {
		return
	}
	t.setRefused(e, &refusal{e.installed, err})
	// An older flow is still there: whatever comes next replaces or deletes it.
	e.present, e.installed = e.before, unknown
}

func (t *FlowTable) setRefused(e *entry, r *refusal) {
	if (e.refused == nil) != (r == nil) {
		if r != nil {
			t.refused++
		} else {
			t.refused--
		}
	}
	e.refused = r
}

// unknown is a flow that no row asks for: cookies of rows have 32 bits.
var unknown = Flow{Cookie: ^uint64(0)}

// Desired calls f for every flow that is desired, in no particular order.
func (t *FlowTable) Desired(f func(Key, Flow)) {
	for k, e := range t.entries {
		if flow, ok := t.want(e); ok {
			f(k, flow)
		}
	}
}

// OwnersOf returns the rows that want a flow at the key of m, or a group under its number, in the order of their UUIDs.
func (t *FlowTable) OwnersOf(m openflow.Mod) [][16]byte {
	if isGroup(m) {
		return rowsOf(t.groups.ownersOf(m.Group))
	}
	var owners []Owner
	if e := t.entries[Key{m.Table, m.Priority, m.Match}]; e != nil {
		for _, c := range e.claims {
			owners = append(owners, c.owner)
		}
	}
	return rowsOf(owners)
}

func rowsOf(owners []Owner) [][16]byte {
	var rows [][16]byte
	for _, o := range owners {
		rows = append(rows, o.Row)
	}
	slices.SortFunc(rows, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(rows)
}

// sweep forgets interned actions that nobody uses, once they are the majority.
func (t *FlowTable) sweep() {
	if len(t.interned) < 1024 || len(t.interned) < 2*len(t.entries) {
		return
	}
	used := make(map[string]string, len(t.entries))
	for _, e := range t.entries {
		used[e.installed.Actions] = e.installed.Actions
		for _, c := range e.claims {
			used[c.flow.Actions] = c.flow.Actions
		}
	}
	t.interned = used
}
