package ovsdb

// Limits of the table of interned strings. Beyond them it starts anew; rows
// keep the strings they have.
const (
	maxInterned       = 1 << 18
	maxInternedLength = 4 << 10 // bytes; longer strings are rarely repeated
)

// An interner makes equal strings share their memory: thousands of logical
// flows name the same datapath and have the same match.
type interner struct {
	strings map[string]*string
}

// A yield counts how often interning a column's strings found them known, so
// that columns of ever new strings stop paying for it.
type yield struct {
	hits, misses int
}

func (y *yield) poor() bool { return y.misses > 4096 && y.hits < y.misses }

// intern returns a pointer to a string with the contents of b. Several callers
// may get the same pointer; what it points to must not change.
func (in *interner) intern(b []byte, y *yield) *string {
	if len(b) > maxInternedLength || y.poor() {
		s := string(b)
		return &s
	}
	if p, ok := in.strings[string(b)]; ok {
		y.hits++
		return p
	}
	y.misses++
	if in.strings == nil || len(in.strings) >= maxInterned {
		in.strings = make(map[string]*string)
	}
	s := string(b)
	in.strings[s] = &s
	return &s
}
