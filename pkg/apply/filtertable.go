package apply

import (
	"cmp"
	"encoding/binary"
	"maps"
	"reflect"
	"slices"

	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A FilterTable knows what filters a block has, and plans the way to others.
//
// The kernel has no transactions. What changes is closed first: a filter before all others leaves the packets of the chain, or of
// the device, to Open vSwitch, which has the whole policy. Then chains change from the last to the first, and at the end they are
// opened again. Chains and devices that are new need no such filter, because their filters are added in the order in which they
// are met: what is there of a decision list is right about the packets that it decides. The end of a chain that is not used any more is
// left for a while, for packets that are on their way to it.
//
// What probes add needs no closing: it comes before the other filters and does the same, and is added from the first to the last, and removed from the last
// to the first.
type FilterTable struct {
	filters map[tc.Key]*tc.Filter
	byID    map[filterID]tc.Key
	scopes  map[scope]int // filters in it, without those that close it
	// indexes are the interface indexes that the names of devices stood for when their filters were added.
	indexes map[string]int
}

// A scope is what is closed at once: a chain, or in chain 0 a device.
type scope struct {
	chain uint32
	indev string
}

// closing returns the filter that closes s. enc says that all filters of s are for packets from a tunnel: as one of them, it can be in
// the hardware for those.
func (s scope) closing(enc bool) tc.Filter {
	f := specialize.Closed(s.chain, s.indev)
	if enc {
		f.EncDstPort = geneveUDPPort
	}
	return f
}

// geneveUDPPort is that of all filters for packets from a tunnel.
const geneveUDPPort = 6081

func scopeOf(f *tc.Filter) scope {
	if f.Chain == 0 {
		return scope{0, f.Indev}
	}
	return scope{chain: f.Chain}
}

// A filterID is what a filter asks for, and when.
type filterID struct {
	chain uint32
	pref  uint16
	asks  string
}

func idOf(f *tc.Filter) filterID {
	b := binary.BigEndian.AppendUint16(nil, f.Protocol)
	b = binary.BigEndian.AppendUint16(b, f.EncDstPort)
	b = append(append(b, f.Indev...), 0)
	for _, t := range f.Match {
		b = append(b, byte(t.Field))
		for _, x := range [...]uint64{t.Value.Hi, t.Value.Lo, t.Mask.Hi, t.Mask.Lo} {
			b = binary.BigEndian.AppendUint64(b, x)
		}
	}
	return filterID{f.Chain, f.Pref, string(b)}
}

// NewFilterTable returns the table of a block without filters.
func NewFilterTable() *FilterTable {
	return &FilterTable{
		filters: map[tc.Key]*tc.Filter{}, byID: map[filterID]tc.Key{}, scopes: map[scope]int{}, indexes: map[string]int{},
	}
}

// Len returns the number of filters.
func (t *FilterTable) Len() int { return len(t.filters) }

// Filter returns the installed filter of a key, nil if there is none. It must not be changed.
func (t *FilterTable) Filter(k tc.Key) *tc.Filter { return t.filters[k] }

// Closed returns the number of chains and devices that are closed.
func (t *FilterTable) Closed() int {
	n := 0
	for k := range t.filters {
		if k.Pref == specialize.PrefGuard {
			n++
		}
	}
	return n
}

// Installed notes that the block has f. The table keeps it.
func (t *FilterTable) Installed(f *tc.Filter, ifindex int) {
	t.forget(f.Key())
	t.filters[f.Key()] = f
	t.byID[idOf(f)] = f.Key()
	if f.Pref != specialize.PrefGuard {
		t.scopes[scopeOf(f)]++
	}
	if f.Indev != "" {
		t.indexes[f.Indev] = ifindex
	}
}

func (t *FilterTable) forget(k tc.Key) {
	f := t.filters[k]
	if f == nil {
		return
	}
	delete(t.filters, k)
	if id := idOf(f); t.byID[id] == k {
		delete(t.byID, id)
	}
	if f.Pref != specialize.PrefGuard {
		s := scopeOf(f)
		if t.scopes[s]--; t.scopes[s] == 0 {
			delete(t.scopes, s)
		}
	}
}

// Done notes that the kernel has done op.
func (t *FilterTable) Done(op tc.Op, ifindex int) {
	if op.Verb == tc.Delete {
		t.forget(op.Key)
		return
	}
	t.Installed(op.Filter, ifindex)
}

// Follow returns the way from filters that send to devices to those that send to others, by interface indexes.
func (t *FilterTable) Follow(moved map[int]int) []tc.Op {
	var ops []tc.Op
	for _, k := range slices.SortedFunc(maps.Keys(t.filters), compareFilterKeys) {
		f := t.filters[k]
		for i, a := range f.Actions {
			if m, is := a.(tc.Mirred); is && moved[m.Ifindex] != 0 {
				g := *f
				g.Actions = slices.Clone(f.Actions)
				m.Ifindex = moved[m.Ifindex]
				g.Actions[i] = m
				ops = append(ops, tc.ReplaceOp(&g))
			}
		}
	}
	return ops
}

// A FilterPlan is the way to the desired filters. Its parts are done one after the other.
type FilterPlan struct {
	Close, Change, Open []tc.Op

	// Retire are the ends of chains that nothing leads to any more. They are deleted when no packet can be on its way.
	Retire []tc.Op
}

// list returns the filters, in the order of their keys.
func (t *FilterTable) list() []tc.Filter {
	out := make([]tc.Filter, 0, len(t.filters))
	for _, k := range slices.SortedFunc(maps.Keys(t.filters), compareFilterKeys) {
		out = append(out, *t.filters[k])
	}
	return out
}

// PlanOptions say how to plan.
type PlanOptions struct {
	// CloseDevices closes devices that are new, too: where it has to be found out whether filters are as they should.
	CloseDevices bool
}

// Plan plans the way to desired, whose handles do not matter: they are given here. indexes are the interface indexes of devices by
// name.
func (t *FilterTable) Plan(desired []tc.Filter, indexes map[string]int, o PlanOptions) FilterPlan {
	type change struct {
		add, replace, del []tc.Op
		close             bool // not only what probes have added changes
	}
	changes := map[scope]*change{}
	in := func(f *tc.Filter) *change {
		s := scopeOf(f)
		c := changes[s]
		if c == nil {
			c = &change{}
			changes[s] = c
		}
		c.close = c.close || !isProbe(f)
		return c
	}
	wanted := map[tc.Key]struct{}{}
	wantedScopes := map[scope]struct{}{}
	handles := t.handles()
	var added []*tc.Filter
	for i := range desired {
		f := &desired[i]
		s := scopeOf(f)
		wantedScopes[s] = struct{}{}
		key, there := t.byID[idOf(f)]
		if there && f.Indev != "" && t.indexes[f.Indev] != indexes[f.Indev] {
			there = false // of a device that is gone, whose name another one has now
		}
		if !there {
			added = append(added, f)
			continue
		}
		wanted[key] = struct{}{}
		if old := t.filters[key]; !sameEffect(old, f) {
			g := *f
			g.Handle = key.Handle
			c := in(f)
			c.replace = append(c.replace, tc.ReplaceOp(&g))
		}
	}
	for _, f := range added {
		g := *f
		g.Handle = handles.next(f.Chain, f.Pref)
		c := in(f)
		c.add = append(c.add, tc.AddOp(&g))
	}
	var p FilterPlan
	for key, f := range t.filters {
		if _, ok := wanted[key]; ok || f.Pref == specialize.PrefGuard {
			continue
		}
		s := scopeOf(f)
		if _, used := wantedScopes[s]; !used && f.Pref == specialize.PrefEnd {
			p.Retire = append(p.Retire, tc.DeleteOp(key))
			continue
		}
		c := in(f)
		c.del = append(c.del, tc.DeleteOp(key))
	}
	slices.SortFunc(p.Retire, func(a, b tc.Op) int { return compareFilterKeys(a.Key, b.Key) })

	var fresh, changed, devices []scope
	for _, s := range slices.SortedFunc(maps.Keys(changes), func(a, b scope) int {
		return cmp.Or(cmp.Compare(b.chain, a.chain), cmp.Compare(a.indev, b.indev))
	}) {
		_, used := wantedScopes[s]
		switch {
		case used && (t.scopes[s] > 0 || s.chain == 0 && o.CloseDevices):
			changed = append(changed, s)
		case s.chain == 0:
			devices = append(devices, s)
		default:
			fresh = append(fresh, s)
		}
	}
	closed := t.closed()
	kinds := t.kinds(desired)
	for _, s := range changed {
		if !changes[s].close {
			continue
		}
		for _, f := range kinds[s].closings(s) {
			if _, already := t.byID[idOf(&f)]; already {
				continue
			}
			f.Handle = handles.next(f.Chain, f.Pref)
			closed[s] = append(closed[s], f.Key())
			p.Close = append(p.Close, tc.AddOp(&f))
		}
	}
	// Those that are used no more come last: what leads to them has changed by then.
	order := slices.Concat(
		slices.DeleteFunc(slices.Clone(fresh), func(s scope) bool { return t.scopes[s] > 0 }), changed, devices,
		slices.DeleteFunc(slices.Clone(fresh), func(s scope) bool { return t.scopes[s] == 0 }),
	)
	for _, s := range order {
		c := changes[s]
		slices.SortFunc(c.del, func(a, b tc.Op) int { return compareFilterKeys(b.Key, a.Key) })
		slices.SortFunc(c.replace, func(a, b tc.Op) int { return compareFilterKeys(a.Key, b.Key) })
		slices.SortStableFunc(c.add, func(a, b tc.Op) int {
			end := func(o tc.Op) int {
				if o.Key.Chain != 0 && o.Key.Pref == specialize.PrefEnd {
					return 0
				}
				return 1
			}
			return cmp.Or(cmp.Compare(end(a), end(b)), compareFilterKeys(a.Key, b.Key))
		})
		p.Change = append(p.Change, c.del...)
		p.Change = append(p.Change, c.replace...)
		p.Change = append(p.Change, c.add...)
	}
	for _, s := range slices.SortedFunc(maps.Keys(closed), func(a, b scope) int {
		return cmp.Or(cmp.Compare(b.chain, a.chain), cmp.Compare(a.indev, b.indev))
	}) {
		for _, k := range closed[s] {
			p.Open = append(p.Open, tc.DeleteOp(k))
		}
	}
	return p
}

// closed returns the filters that close scopes.
func (t *FilterTable) closed() map[scope][]tc.Key {
	out := map[scope][]tc.Key{}
	for _, k := range slices.SortedFunc(maps.Keys(t.filters), compareFilterKeys) {
		if k.Pref == specialize.PrefGuard {
			s := scopeOf(t.filters[k])
			out[s] = append(out[s], k)
		}
	}
	return out
}

// kinds says whether a scope has filters, or will, that are for packets from a tunnel alone, and others. Ends of chains do what those do that
// close them.
type kinds struct{ plain, tunnelled bool }

// closings returns the filters that close a scope: for packets from tunnels a NIC has only filters that ask for one.
func (k kinds) closings(s scope) (all []tc.Filter) {
	if k.plain {
		all = append(all, s.closing(false))
	}
	if k.tunnelled || !k.plain {
		all = append(all, s.closing(true))
	}
	return all
}

func (t *FilterTable) kinds(desired []tc.Filter) map[scope]kinds {
	out := map[scope]kinds{}
	note := func(f *tc.Filter) {
		if f.Pref == specialize.PrefGuard || isEnd(f) {
			return
		}
		k := out[scopeOf(f)]
		k.plain, k.tunnelled = k.plain || f.EncDstPort == 0, k.tunnelled || f.EncDstPort != 0
		out[scopeOf(f)] = k
	}
	for _, f := range t.filters {
		note(f)
	}
	for i := range desired {
		note(&desired[i])
	}
	return out
}

// isProbe reports whether f is one that a probe counts with.
func isProbe(f *tc.Filter) bool { return specialize.KindOf(f.Cookie) == specialize.KindProbe }

// isEnd reports whether f is the end of a chain.
func isEnd(f *tc.Filter) bool { return f.Chain != 0 && f.Pref == specialize.PrefEnd }

func compareFilterKeys(a, b tc.Key) int {
	return cmp.Or(cmp.Compare(a.Chain, b.Chain), cmp.Compare(a.Pref, b.Pref), cmp.Compare(a.Handle, b.Handle))
}

// sameEffect reports whether two filters with the same conditions do the same, and say the same of themselves.
func sameEffect(a, b *tc.Filter) bool {
	const given = tc.SkipHW | tc.SkipSW
	return a.Cookie == b.Cookie && a.Flags&given == b.Flags&given && reflect.DeepEqual(a.Actions, b.Actions)
}

// A handleSet gives handles that are free.
type handleSet struct {
	used map[tc.Key]struct{}
	last map[tc.Key]uint32 // by chain and pref
}

func (t *FilterTable) handles() *handleSet {
	h := &handleSet{used: map[tc.Key]struct{}{}, last: map[tc.Key]uint32{}}
	for k := range t.filters {
		h.used[k] = struct{}{}
	}
	return h
}

func (h *handleSet) next(chain uint32, pref uint16) uint32 {
	at := tc.Key{Chain: chain, Pref: pref}
	for {
		h.last[at]++
		k := tc.Key{Chain: chain, Pref: pref, Handle: h.last[at]}
		if _, used := h.used[k]; !used {
			return k.Handle
		}
	}
}
