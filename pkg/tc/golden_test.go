package tc

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
)

// goldenExamples runs f on the examples, which are the inputs of the file by their text (Filter.String). Each example is in the
// file, so that a new one is not forgotten.
func goldenExamples(t *testing.T, file string, f func(*Filter) string) {
	t.Helper()
	byText := map[string]*Filter{}
	for _, e := range examples(t) {
		byText[e.String()] = &e
	}
	golden.Run(t, file, func(line string) string {
		e := byText[line]
		if e == nil {
			t.Errorf("%s: no example is %q", file, line)
			return ""
		}
		delete(byText, line)
		return f(e)
	})
	for line := range byText {
		t.Errorf("%s has no %q", file, line)
	}
}

// What tc prints. TestKernelRoundTrip compares with tc itself.
func TestShow(t *testing.T) {
	goldenExamples(t, "testdata/show.txt", func(f *Filter) string { return f.Show(ShowOptions{}) })
}

// The bytes that tc sends. TestSameBytesAsTC compares with tc itself.
func TestWire(t *testing.T) {
	if !littleEndian {
		t.Skip("the bytes of integers are in the order of a little-endian machine")
	}
	goldenExamples(t, "testdata/wire.txt", func(f *Filter) string {
		b, err := AppendFilter(nil, Target{Block: 7}, f)
		if err != nil {
			t.Fatal(err)
		}
		return outline(b)
	})
}

// nested are the attributes of a message that contain others, by their path.
func nested(path []uint16) bool {
	switch {
	case len(path) == 1:
		return path[0] == tcaOptions
	case len(path) == 2:
		return path[1] == flowerAct || path[1] == flowerEncOpts || path[1] == flowerEncOpts+1
	case path[1] != flowerAct:
		return len(path) == 3
	case len(path) == 3:
		return true
	}
	return len(path) == 4 && path[3] == actOptions
}

// outline writes a message in hexadecimal, an attribute a line: its type, and its contents.
func outline(b []byte) string {
	var s strings.Builder
	fmt.Fprintf(&s, "tcmsg %x\n", b[:tcmsgSize])
	var write func(b []byte, path []uint16)
	write = func(b []byte, path []uint16) {
		if !walk(b, func(typ uint16, data []byte) {
			p := append(slices.Clip(path), typ)
			fmt.Fprintf(&s, "%s%d", strings.Repeat("  ", len(path)), typ)
			if nested(p) {
				s.WriteString("\n")
				write(data, p)
				return
			}
			s.WriteString(" " + hex.EncodeToString(data) + "\n")
		}) {
			s.WriteString("malformed\n")
		}
	}
	write(b[tcmsgSize:], nil)
	return s.String()
}
