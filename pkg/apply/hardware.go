package apply

import (
	"cmp"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// maxAbsent bounds how many filters that a NIC does not have are compared with each one after them in a chain. If there are more, the NIC
// gets no further ones of that chain.
const maxAbsent = 256

// Shadowed returns the indexes of the filters that a NIC must not have, although it would take them: those that a packet could meet in
// hardware which an earlier filter of the chain, one that is not there, would have decided. inHW says which the NIC has. What is
// not in hardware because of this shadows others in turn.
func Shadowed(filters []tc.Filter, inHW func(*tc.Filter) bool) []int {
	order := make([]int, len(filters))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareFilterKeys(filters[a].Key(), filters[b].Key()) })
	var shadowed []int
	var absent []*tc.Filter // of the chain so far
	for n, i := range order {
		f := &filters[i]
		if n == 0 || filters[order[n-1]].Chain != f.Chain {
			absent = absent[:0]
		}
		has := inHW(f)
		// Filters of one pref that overlap do the same.
		if has && (len(absent) > maxAbsent || slices.ContainsFunc(absent, func(a *tc.Filter) bool { return a.Pref < f.Pref && overlap(a, f) })) {
			shadowed = append(shadowed, i)
			has = false
		}
		if !has {
			absent = append(absent, f)
		}
	}
	slices.SortFunc(shadowed, cmp.Compare)
	return shadowed
}

// overlap reports whether there may be a packet that both filters match.
func overlap(a, b *tc.Filter) bool {
	if a.Protocol != b.Protocol && a.Protocol != tc.ProtocolAll && b.Protocol != tc.ProtocolAll {
		return false
	}
	if a.Indev != "" && b.Indev != "" && a.Indev != b.Indev {
		return false
	}
	return !slices.ContainsFunc(a.Match, func(s ir.Term) bool {
		t, asks := b.Match.Term(s.Field)
		return asks && !s.Value.Xor(t.Value).And(s.Mask).And(t.Mask).IsZero()
	})
}
