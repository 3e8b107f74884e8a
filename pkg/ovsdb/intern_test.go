package ovsdb

import (
	"fmt"
	"strings"
	"testing"
)

func TestInternerShares(t *testing.T) {
	in, y := &interner{}, &yield{}
	a, b := in.intern([]byte("next;"), y), in.intern([]byte("next;"), y)
	if a != b || *a != "next;" {
		t.Errorf("%p %q and %p %q, want the same", a, *a, b, *b)
	}
	long := []byte(strings.Repeat("x", maxInternedLength+1))
	if a, b := in.intern(long, y), in.intern(long, y); a == b {
		t.Error("long strings are kept")
	}
}

func TestInternerIsBounded(t *testing.T) {
	in, y := &interner{}, &yield{hits: 10 * maxInterned}
	for i := range 2*maxInterned + 1 {
		text := fmt.Sprint(i)
		if s := *in.intern([]byte(text), y); s != text {
			t.Fatalf("intern(%s) = %s", text, s)
		}
		if len(in.strings) > maxInterned {
			t.Fatalf("%d strings kept, want at most %d", len(in.strings), maxInterned)
		}
	}
}

// TestInternerGivesUp stops keeping the strings of a column where none comes
// twice, and goes on with the others.
func TestInternerGivesUp(t *testing.T) {
	in, names, types := &interner{}, &yield{}, &yield{}
	for i := range 20000 {
		in.intern(fmt.Append(nil, i), names)
		in.intern([]byte("patch"), types)
	}
	if n := len(in.strings); n > 5000 {
		t.Errorf("%d strings kept of a column that does not repeat them", n)
	}
	if a, b := in.intern([]byte("patch"), types), in.intern([]byte("patch"), types); a != b {
		t.Error("strings of a column that repeats them are not shared any more")
	}
}
