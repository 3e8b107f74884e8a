package apply

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
)

// A Presence is where a desired flow is.
type Presence uint8

// The presences.
const (
	Unknown   Presence = iota // nobody knows what the bridge has
	Installed                 // the bridge has it
	Pending                   // the bridge does not have it yet
	Refused                   // the bridge does not accept it
)

// A Wanted is a flow that is desired.
type Wanted struct {
	Key      Key
	Flow     Flow
	Presence Presence
	Err      error // why the bridge does not accept it
	// Rows are who wants a flow at this key, in the order of their UUIDs, without the zero UUID.
	Rows [][16]byte
}

// A query runs in the loop that owns the table.
type query struct {
	run  func(t *FlowTable, known bool)
	done chan struct{}
}

// Ask runs q in the loop that owns the table; q may keep nothing of it. known says that what the table takes as
// installed is so. Ask waits while the loop changes the bridge. If it returns an error, which is that of ctx, q may
// still be running, or run later.
func (f *Flows) Ask(ctx context.Context, q func(t *FlowTable, known bool)) error {
	m := query{q, make(chan struct{})}
	select {
	case f.queries <- m:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *Flows) answer(q query) {
	defer close(q.done)
	q.run(f.table, f.Status().Installed)
}

// WantedBy returns the flows at the keys where o wants one, ordered by table, priority (the larger first) and match:
// also those where another owner's wish wins.
func (t *FlowTable) WantedBy(o Owner) []Wanted {
	out := make([]Wanted, 0, len(t.owned[o]))
	for _, e := range t.owned[o] {
		if w, ok := t.wanted(e); ok {
			out = append(out, w)
		}
	}
	sortWanted(out)
	// An owner may want the same key twice.
	return slices.CompactFunc(out, func(a, b Wanted) bool { return a.Key == b.Key })
}

// Wanted returns the desired flows that keep selects, in the order of WantedBy. Nil selects all.
func (t *FlowTable) Wanted(keep func(Wanted) bool) []Wanted {
	var out []Wanted
	for _, e := range t.entries {
		if w, ok := t.wanted(e); ok && (keep == nil || keep(w)) {
			out = append(out, w)
		}
	}
	sortWanted(out)
	return out
}

func sortWanted(all []Wanted) {
	slices.SortFunc(all, func(a, b Wanted) int {
		return cmp.Or(cmp.Compare(a.Key.Table, b.Key.Table), cmp.Compare(b.Key.Priority, a.Key.Priority),
			strings.Compare(a.Key.Match, b.Key.Match))
	})
}

// wanted returns what is desired at e, as if it were known what is installed.
func (t *FlowTable) wanted(e *entry) (Wanted, bool) {
	flow, ok := t.want(e)
	if !ok {
		return Wanted{}, false
	}
	w := Wanted{Key: e.key, Flow: flow, Presence: Pending}
	switch {
	case e.refused != nil && e.refused.flow == flow:
		w.Presence, w.Err = Refused, e.refused.err
	case e.present && e.installed == flow:
		w.Presence = Installed
	}
	w.Rows = make([][16]byte, 0, len(e.claims))
	for _, c := range e.claims {
		if c.owner.Row != ([16]byte{}) {
			w.Rows = append(w.Rows, c.owner.Row)
		}
	}
	slices.SortFunc(w.Rows, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	w.Rows = slices.Compact(w.Rows)
	return w, true
}
