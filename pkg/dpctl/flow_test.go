package dpctl

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/ir"
)

// What Open vSwitch 3.1 has printed, and what is made of it.
func TestFlows(t *testing.T) {
	golden.Run(t, "testdata/flows.txt", func(input string) string {
		flows, err := Parse(input)
		if err != nil {
			return err.Error()
		}
		var b strings.Builder
		for i := range flows {
			f := &flows[i]
			fmt.Fprintf(&b, "%s from %s, recirculated %d: %s\n", f.Layer, f.InPort, f.Recirc, f.Key())
			m, unknown := f.Match()
			fmt.Fprintf(&b, "match: %s\n", matchText(m))
			for _, u := range unknown {
				fmt.Fprintf(&b, "unknown: %s\n", u)
			}
			for _, s := range f.Steps() {
				fmt.Fprintf(&b, "%s: %s\n", stepText(s), s.Text)
			}
			fmt.Fprintf(&b, "%d packets, %d bytes, %s", f.Packets, f.Bytes, f.Used)
			if cookie, ok := f.Cookie(); ok {
				fmt.Fprintf(&b, ", cookie %x", cookie)
			}
			if f.Reason != "" {
				fmt.Fprintf(&b, ", because %s", f.Reason)
			}
			b.WriteString("\n")
		}
		return strings.TrimSuffix(b.String(), "\n")
	})
}

func matchText(m ir.Match) string {
	var words []string
	for _, t := range m {
		w := fmt.Sprintf("%v=%v", t.Field, t.Value)
		if t.Mask != t.Field.Ones() {
			w += fmt.Sprintf("/%v", t.Mask)
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func stepText(s Step) string {
	switch s.Kind {
	case Track:
		return fmt.Sprintf("track in %d", s.Zone)
	case Untrack:
		return "untrack"
	case Set:
		return strings.TrimSpace("set " + matchText(s.Terms))
	case Recirculate:
		return fmt.Sprintf("go on at %d", s.Recirc)
	case Unclear:
		return "unclear"
	case Other:
	}
	return "do"
}

// The UFID in the text of a megaflow and the cookie of its filter say the same.
func TestCookie(t *testing.T) {
	f := Flow{UFID: "cab0753fc5f546f395e35a7673ff50bc"}
	cookie, ok := f.Cookie()
	if want := "3f75b0caf346f5c5765ae395bc50ff73"; !ok || fmt.Sprintf("%x", cookie) != want {
		t.Errorf("Cookie() = %x, %t, want %s", cookie, ok, want)
	}
	if got := UFIDOf(cookie); got != f.UFID {
		t.Errorf("UFIDOf(%x) = %s, want %s", cookie, got, f.UFID)
	}
	for _, bad := range []string{"", "cab0", strings.Repeat("x", 32)} {
		if _, ok := (&Flow{UFID: bad}).Cookie(); ok {
			t.Errorf("UFID %q has a cookie", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/flows.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, text string) {
		flows, err := Parse(text)
		if err != nil {
			return
		}
		for i := range flows {
			flows[i].Match()
			flows[i].Steps()
			if c, ok := flows[i].Cookie(); ok && !strings.EqualFold(UFIDOf(c), flows[i].UFID) {
				t.Errorf("UFID %s becomes %s", flows[i].UFID, UFIDOf(c))
			}
		}
	})
}
