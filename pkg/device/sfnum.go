package device

import "slices"

// A rotation hands out the sfnums of a pool, first those whose last function is gone for the longest time: a driver may need a while to let
// go of a number, and whatever is left of its last function should be gone when the number comes back.
type rotation struct {
	first, count uint32
	order        []uint32 // those that were in use last come last
}

func newRotation(first, count uint32) rotation {
	r := rotation{first: first, count: count}
	for n := range count {
		r.order = append(r.order, first+n)
	}
	return r
}

// contains reports whether n is one of its numbers.
func (r *rotation) contains(n uint32) bool { return n >= r.first && n-r.first < r.count }

// take returns the next number that is not in use; false if there is none.
func (r *rotation) take(inUse func(uint32) bool) (uint32, bool) {
	i := slices.IndexFunc(r.order, func(n uint32) bool { return !inUse(n) })
	if i < 0 {
		return 0, false
	}
	n := r.order[i]
	r.saw(n)
	return n, true
}

// saw notes that n is in use, or was until now.
func (r *rotation) saw(n uint32) {
	if i := slices.Index(r.order, n); i >= 0 {
		r.order = append(slices.Delete(r.order, i, i+1), n)
	}
}
