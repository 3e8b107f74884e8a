package device

// A rotation hands out the sfnums of a pool, each after all others: a driver may need a while to let go of one that was deleted, and
// whatever is left of its last function should be gone when the number comes back.
type rotation struct {
	first, count uint32
	next         uint32 // an offset from first
}

// contains reports whether n is one of its numbers.
func (r *rotation) contains(n uint32) bool { return n >= r.first && n-r.first < r.count }

// take returns the next number that is not in use; false if there is none.
func (r *rotation) take(inUse func(uint32) bool) (uint32, bool) {
	for range r.count {
		n := r.first + r.next
		r.next = (r.next + 1) % r.count
		if !inUse(n) {
			return n, true
		}
	}
	return 0, false
}

// saw makes n one of those that are handed out last: it exists since before the start.
func (r *rotation) saw(n uint32) {
	if r.contains(n) && n-r.first >= r.next {
		r.next = (n - r.first + 1) % r.count
	}
}
