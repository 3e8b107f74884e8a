package tc

import (
	"bytes"
	"testing"
)

// Nothing from outside makes the decoder panic or grow without bound, and what it understands completely is encoded to
// something that it understands alike.
func FuzzDecode(f *testing.F) {
	for _, e := range examples(f) {
		b, err := AppendFilter(nil, Target{Block: 1}, &e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(clsactOf(3, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		in, err := Decode(b)
		for typ := range uint16(50) {
			decodeEvent(typ, 1, b)
		}
		if !bytes.Equal(b, before) {
			t.Fatal("the message was written to")
		}
		if err != nil {
			return
		}
		if len(in.Foreign) > maxForeign || len(in.Actions) > maxActions || len(in.Filter.Actions) > maxActions || len(in.Filter.Match) > 64 {
			t.Fatalf("%d foreign, %d actions, %d terms", len(in.Foreign), len(in.Actions), len(in.Filter.Match))
		}
		_ = in.Show(ShowOptions{Stats: true})
		_ = in.Filter.String()
		if in.Filter.Check() != nil || in.Foreign != nil || in.Terse {
			return
		}
		out, err := AppendFilter(nil, in.Target, &in.Filter)
		if err != nil {
			t.Fatalf("Check of %v finds nothing, but it cannot be encoded: %v", &in.Filter, err)
		}
		again, err := Decode(out)
		if err != nil || again.Foreign != nil || again.Target != in.Target {
			t.Fatalf("%v: %v, %v, foreign %q", &in.Filter, err, again.Target, again.Foreign)
		}
		if d := diff(&in.Filter, &again.Filter); d != "" {
			t.Fatal(d)
		}
	})
}
