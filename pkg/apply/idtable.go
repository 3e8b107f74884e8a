package apply

import (
	"maps"
	"slices"
)

// An idTable holds, for every identifier of a group or meter, how many owners want what under it, and what the switch
// has. All owners want the same under an identifier, except while replace is being called for those whose wishes change:
// what was said last is right.
type idTable[T comparable] struct {
	entries map[uint32]*idEntry[T]
	owned   map[Owner][]uint32
	dirty   map[uint32]struct{} // may differ from the switch
	refused map[uint32]T        // what the switch would not have
	wanted  int                 // identifiers that somebody wants something under
}

type idEntry[T comparable] struct {
	owners    int
	want      T    // if there are owners
	present   bool // on the switch
	installed T    // the zero T, which nobody wants, if it is not known
}

// An idChange is what to do under an identifier.
type idChange[T comparable] struct {
	id     uint32
	want   T
	modify bool // there is something under id already
}

func newIDTable[T comparable]() idTable[T] {
	return idTable[T]{
		entries: map[uint32]*idEntry[T]{},
		owned:   map[Owner][]uint32{},
		dirty:   map[uint32]struct{}{},
		refused: map[uint32]T{},
	}
}

// replace makes wants all that o wants.
func (t *idTable[T]) replace(o Owner, wants map[uint32]T) {
	for _, id := range t.owned[o] {
		e := t.entries[id]
		if e.owners--; e.owners == 0 {
			t.wanted--
		}
		t.dirty[id] = struct{}{}
	}
	if len(wants) == 0 {
		delete(t.owned, o)
		return
	}
	for id, want := range wants {
		e := t.entry(id)
		if e.owners++; e.owners == 1 {
			t.wanted++
		}
		e.want = want
		t.dirty[id] = struct{}{}
	}
	t.owned[o] = slices.Collect(maps.Keys(wants))
}

func (t *idTable[T]) entry(id uint32) *idEntry[T] {
	e := t.entries[id]
	if e == nil {
		e = &idEntry[T]{}
		t.entries[id] = e
	}
	return e
}

// reset forgets what is installed.
func (t *idTable[T]) reset() {
	clear(t.refused)
	for id, e := range t.entries {
		e.present = false
		t.dirty[id] = struct{}{}
	}
}

// has tells that the switch has what under id.
func (t *idTable[T]) has(id uint32, what T) {
	e := t.entry(id)
	e.present, e.installed = true, what
	t.dirty[id] = struct{}{}
}

// changes returns what to do before flows change, and the identifiers that nobody wants any more, to be removed
// after that. Both are sorted and taken as done.
func (t *idTable[T]) changes() (wanted []idChange[T], unwanted []uint32) {
	for _, id := range slices.Sorted(maps.Keys(t.dirty)) {
		e := t.entries[id]
		if e.owners == 0 {
			if e.present {
				unwanted = append(unwanted, id)
			}
			delete(t.entries, id)
			delete(t.refused, id)
			continue
		}
		if e.present && e.installed == e.want || t.lacks(id) {
			continue
		}
		delete(t.refused, id)
		wanted = append(wanted, idChange[T]{id, e.want, e.present})
		e.present, e.installed = true, e.want
	}
	clear(t.dirty)
	return wanted, unwanted
}

// refuse tells that the switch did not accept what is wanted under id; old says that there is something else instead.
// It is not tried again until somebody wants something else there.
func (t *idTable[T]) refuse(id uint32, old bool) {
	e := t.entries[id]
	if e == nil {
		return
	}
	var unknown T
	e.present, e.installed = old, unknown
	t.refused[id] = e.want
}

// lacks reports whether the switch has refused what is wanted under id.
func (t *idTable[T]) lacks(id uint32) bool {
	what, ok := t.refused[id]
	e := t.entries[id]
	return ok && e != nil && e.owners > 0 && e.want == what
}

// ownersOf returns who wants something under id, in no particular order.
func (t *idTable[T]) ownersOf(id uint32) []Owner {
	var owners []Owner
	for o, ids := range t.owned {
		if slices.Contains(ids, id) {
			owners = append(owners, o)
		}
	}
	return owners
}
