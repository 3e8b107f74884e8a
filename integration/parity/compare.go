package parity

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Options say what Compare knows beside the flows. The zero value compares everything and forgives nothing.
type Options struct {
	A, B string // what the two sides are called in the report; "A" and "B" when empty

	// Tables limits the comparison; nil means all.
	Tables []int

	// Lflows are the rows of Logical_Flow, to explain a flow by its cookie, to see that two cookies are
	// equally right for it, and to find out that it is out of scope. Nil: every difference counts.
	Lflows []Lflow

	// OutOfScope lists the verbs whose flows side B need not have.
	OutOfScope []Verb

	// Deviations lists the matches and actions whose flows may differ.
	Deviations []Deviation

	// Most is how many differences of one table Format prints; 0 means all.
	Most int
}

// A Report is what is left between two bridges.
type Report struct {
	Equal       int            // flows that are the same on both sides
	Ties        int            // of those, flows with a different but equally right cookie
	OutOfScope  map[string]int // flows that only A has, by the verb that excuses it
	InScope     map[string]int // equal flows that are there in spite of a verb that would excuse them, by the verb
	Deviating   map[string]int // differences that are deliberate, by the deviation
	Differences []Difference   // by table, then falling priority, then match
	UnusedA     []string       // groups and meters that no flow of A uses
	UnusedB     []string

	opts   Options
	lflows map[string][]Lflow // by cookie
}

// A Difference is a flow that only one side has (the other is nil), or that has the same table, priority
// and match on both but differs in the rest.
type Difference struct{ A, B *Flow }

func (d Difference) flow() Flow {
	if d.A != nil {
		return *d.A
	}
	return *d.B
}

// Compare lists how b differs from a. A is the reference: only flows missing from b can be out of scope.
func Compare(a, b Bridge, opts Options) Report {
	r := Report{
		OutOfScope: make(map[string]int), InScope: make(map[string]int), Deviating: make(map[string]int), UnusedA: a.Unused, UnusedB: b.Unused,
		opts: opts, lflows: make(map[string][]Lflow),
	}
	for _, l := range opts.Lflows {
		r.lflows[l.Cookie()] = append(r.lflows[l.Cookie()], l)
	}

	left, right := index(a.Flows, opts.Tables), index(b.Flows, opts.Tables)
	r.dropOutOfScope(left, right)
	deviating := r.deviatingConjunctions(a.Flows, b.Flows)
	add := func(d Difference) {
		if name := r.deviation(d, deviating); name != "" {
			r.Deviating[name]++
			return
		}
		r.Differences = append(r.Differences, d)
	}
	for key, as := range left {
		as, bs := r.removeEqual(as, right[key])
		for i := range max(len(as), len(bs)) {
			var d Difference
			if i < len(as) {
				d.A = &as[i]
			}
			if i < len(bs) {
				d.B = &bs[i]
			}
			add(d)
		}
		delete(right, key)
	}
	for _, bs := range right {
		for i := range bs {
			add(Difference{B: &bs[i]})
		}
	}
	slices.SortFunc(r.Differences, func(x, y Difference) int { return compareFlows(x.flow(), y.flow()) })
	return r
}

// Same says that the bridges do the same, apart from what is out of scope.
func (r Report) Same() bool {
	return len(r.Differences) == 0 && slices.Equal(r.UnusedA, r.UnusedB)
}

type flowKey struct {
	table, priority int
	match           string
}

// index groups flows by what identifies them. Two conjunctions that are equal but for their number make two
// flows with one key.
func index(flows []Flow, tables []int) map[flowKey][]Flow {
	m := make(map[flowKey][]Flow)
	for _, f := range flows {
		if tables == nil || slices.Contains(tables, f.Table) {
			m[keyOf(f)] = append(m[keyOf(f)], f)
		}
	}
	return m
}

func keyOf(f Flow) flowKey { return flowKey{f.Table, f.Priority, f.Match} }

// removeEqual counts the flows that as and bs share and returns the rest.
func (r *Report) removeEqual(as, bs []Flow) (restA, restB []Flow) {
	bs = slices.Clone(bs)
	for _, a := range as {
		i := slices.Index(bs, a)
		if i < 0 {
			i = slices.IndexFunc(bs, func(b Flow) bool { return r.tie(a, b) })
			if i < 0 {
				restA = append(restA, a)
				continue
			}
			r.Ties++
		}
		r.Equal++
		if verb := r.excuse(a); verb != "" {
			r.InScope[verb]++
		}
		bs = slices.Delete(bs, i, i+1)
	}
	return restA, bs
}

// tie says that a and b differ only in which of several interchangeable logical flows they name.
func (r *Report) tie(a, b Flow) bool {
	owners, others := r.owners(a), r.owners(b)
	a.Cookie = b.Cookie
	if a != b {
		return false
	}
	for _, x := range owners {
		if slices.ContainsFunc(others, func(y Lflow) bool { return interchangeable(x, y) }) {
			return true
		}
	}
	return false
}

func (r *Report) owners(f Flow) []Lflow { return r.lflows[fmt.Sprintf("%08x", f.Cookie)] }

// excuse returns the verb for which side B need not have f, or "".
func (r *Report) excuse(f Flow) string {
	for _, l := range r.owners(f) {
		if verb := verbIn(l.Actions, r.opts.OutOfScope); verb != "" {
			return verb
		}
	}
	return ""
}

// dropOutOfScope takes the flows of a that b lacks and need not have out of a and counts them. With the flow that
// matches a conj_id go the members of the conjunction, which carry no cookie and may serve other conjunctions as well.
func (r *Report) dropOutOfScope(a, b map[flowKey][]Flow) {
	gone := make(map[string]string) // verb by name of the conjunction
	for key, list := range a {
		if len(b[key]) > 0 {
			continue
		}
		a[key] = slices.DeleteFunc(slices.Clone(list), func(f Flow) bool {
			verb := r.excuse(f)
			if verb == "" {
				return false
			}
			r.OutOfScope[verb]++
			if m := reConjName.FindStringSubmatch(f.Match); m != nil {
				gone[m[1]] = verb
			}
			return true
		})
	}
	if len(gone) == 0 {
		return
	}
	for key, list := range a {
		var rest []Flow
		for _, f := range list {
			actions, verb := withoutConjunctions(f.Actions, gone)
			if actions == "" {
				r.OutOfScope[verb]++
				continue
			}
			f.Actions = actions
			rest = append(rest, f)
		}
		a[key] = rest
	}
}

// deviatingConjunctions returns the deviation that each conjunction is a case of, by the conjunction's name.
func (r *Report) deviatingConjunctions(sides ...[]Flow) map[string]string {
	names := make(map[string]string)
	for _, flows := range sides {
		for _, f := range flows {
			if m := reConjName.FindStringSubmatch(f.Match); m != nil {
				if name := r.deviationOf(f); name != "" {
					names[m[1]] = name
				}
			}
		}
	}
	return names
}

// deviation returns the name of the deviation that explains d, or "".
func (r *Report) deviation(d Difference, conjunctions map[string]string) string {
	var rest [2]string // what remains on each side without deviating conjunctions
	found := ""
	for i, f := range []*Flow{d.A, d.B} {
		if f == nil {
			continue
		}
		if name := r.deviationOf(*f); name != "" {
			return name
		}
		var name string
		rest[i], name = withoutConjunctions(f.Actions, conjunctions)
		found = cmp.Or(found, name)
	}
	if rest[0] != rest[1] {
		return ""
	}
	return found
}

// deviationOf returns the name of the deviation in a logical flow behind f, or "".
func (r *Report) deviationOf(f Flow) string {
	for _, l := range r.owners(f) {
		if name := deviationIn(l.Match, l.Actions, r.opts.Deviations); name != "" {
			return name
		}
	}
	return ""
}

// withoutConjunctions removes the conjunctions whose names are in gone. If it removes every action, the reason is
// that of the last.
func withoutConjunctions(actions string, gone map[string]string) (kept, reason string) {
	if !strings.HasPrefix(actions, "conjunction(") {
		return actions, ""
	}
	list := slices.DeleteFunc(splitActions(actions), func(a string) bool {
		m := reConjunctionName.FindStringSubmatch(a)
		if m == nil || gone[m[1]] == "" {
			return false
		}
		reason = gone[m[1]]
		return true
	})
	return strings.Join(list, ","), reason
}

// Format writes r for people: a summary, then the differences of each table with the logical flows behind them.
// Lines that start with - are only in A, with + only in B.
func (r Report) Format(w io.Writer) error {
	var s strings.Builder
	a, b := cmp.Or(r.opts.A, "A"), cmp.Or(r.opts.B, "B")
	fmt.Fprintf(&s, "%d flows equal", r.Equal)
	if r.Ties > 0 {
		fmt.Fprintf(&s, " (%d of them attributed to another, interchangeable logical flow)", r.Ties)
	}
	s.WriteString("\n")
	for _, verb := range slices.Sorted(maps.Keys(r.OutOfScope)) {
		fmt.Fprintf(&s, "out of scope (%s): %d flows\n", verb, r.OutOfScope[verb])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Deviating)) {
		fmt.Fprintf(&s, "deviation (%s): %d flows\n", name, r.Deviating[name])
	}
	if len(r.Differences) > 0 {
		fmt.Fprintf(&s, "--- %s\n+++ %s\n", a, b)
	}
	for start := 0; start < len(r.Differences); {
		table := r.Differences[start].flow().Table
		end := start
		var onlyA, onlyB, changed int
		for ; end < len(r.Differences) && r.Differences[end].flow().Table == table; end++ {
			switch d := r.Differences[end]; {
			case d.B == nil:
				onlyA++
			case d.A == nil:
				onlyB++
			default:
				changed++
			}
		}
		fmt.Fprintf(&s, "table %d: %d only in %s, %d only in %s, %d with the same match\n", table, onlyA, a, onlyB, b, changed)
		for i, d := range r.Differences[start:end] {
			if r.opts.Most > 0 && i == r.opts.Most {
				fmt.Fprintf(&s, "  and %d more\n", end-start-i)
				break
			}
			r.formatDifference(&s, d)
		}
		start = end
	}
	formatUnused(&s, "-", r.UnusedA, r.UnusedB)
	formatUnused(&s, "+", r.UnusedB, r.UnusedA)
	_, err := io.WriteString(w, s.String())
	return err
}

// String is what Format writes.
func (r Report) String() string {
	var s strings.Builder
	_ = r.Format(&s) // a strings.Builder does not fail
	return s.String()
}

func (r Report) formatDifference(s *strings.Builder, d Difference) {
	explained := ""
	for _, side := range []struct {
		sign string
		flow *Flow
	}{{"-", d.A}, {"+", d.B}} {
		if side.flow == nil {
			continue
		}
		fmt.Fprintf(s, "%s %s\n", side.sign, side.flow)
		for _, l := range r.owners(*side.flow) {
			if l.UUID != explained {
				fmt.Fprintf(s, "    # %s %s %d %d (%s) (%s)\n", l.Stage, l.Pipeline, l.Table, l.Priority, l.Match, l.Actions)
			}
			explained = l.UUID
		}
	}
}

// formatUnused prints the elements of have that want lacks.
func formatUnused(s *strings.Builder, sign string, have, want []string) {
	for _, u := range have {
		if !slices.Contains(want, u) {
			fmt.Fprintf(s, "%s unused %s\n", sign, u)
		}
	}
}
