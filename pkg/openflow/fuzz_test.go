package openflow

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
)

// What is decoded from what was encoded is the same, and so is what is encoded from that.
func TestDecodeInvertsEncode(t *testing.T) {
	g := gen{Rand: newRand(t)}
	for range 5000 {
		m := canonical(g.match())
		b := AppendMatch(nil, m)
		if got, err := DecodeMatch(b); err != nil || !got.Equal(m) {
			t.Fatalf("DecodeMatch(%x) = %v, %v, want %v", b, got, err, m)
		}
		a := g.actions(m, 0)
		b = AppendActions(nil, a)
		if got, err := DecodeActions(b); err != nil || !reflect.DeepEqual(a, got) {
			t.Fatalf("DecodeActions(%x) = %v, %v, want %v", b, got, err, a)
		}
		s := g.group()
		b = AppendGroup(nil, &s)
		if got, err := DecodeGroup(b); err != nil || !reflect.DeepEqual(&s, got) {
			t.Fatalf("DecodeGroup(%x) = %v, %v, want %v", b, got, err, s)
		}
	}
}

// A match that differs from another has different bytes and different text.
func TestEncodingIsInjective(t *testing.T) {
	g := gen{Rand: newRand(t)}
	byBytes, byText := map[string]ir.Match{}, map[string]ir.Match{}
	for range 5000 {
		m := canonical(g.match())
		b, s := string(AppendMatch(nil, m)), FormatMatch(m)
		if o, ok := byBytes[b]; ok && !o.Equal(m) {
			t.Fatalf("%v and %v have the same bytes", m, o)
		}
		if o, ok := byText[s]; ok && !o.Equal(m) {
			t.Fatalf("%v and %v have the same text %s", m, o, s)
		}
		byBytes[b], byText[s] = m, m
	}
}

// Cut anywhere or changed in any byte, bytes are refused or mean something that encodes to them.
func TestDamagedBytes(t *testing.T) {
	g := gen{Rand: newRand(t)}
	for range 60 {
		m := g.match()
		checkMatch(t, nil)
		for _, b := range damage(g, AppendMatch(nil, m)) {
			checkMatch(t, b)
		}
		for _, b := range damage(g, AppendActions(nil, g.actions(m, 0))) {
			checkActions(t, b)
		}
		s := g.group()
		for _, b := range damage(g, AppendGroup(nil, &s)) {
			checkGroup(t, b)
		}
	}
}

func damage(g gen, b []byte) [][]byte {
	var out [][]byte
	for i := range b {
		out = append(out, b[:i])
		c := bytes.Clone(b)
		c[i] ^= byte(1 << g.IntN(8))
		out = append(out, c)
	}
	return out
}

func checkMatch(t *testing.T, b []byte) {
	t.Helper()
	m, err := DecodeMatch(b)
	if err != nil {
		return
	}
	if got := AppendMatch(nil, m); !bytes.Equal(got, b) {
		t.Errorf("DecodeMatch(%x) = %v, which is encoded %x", b, m, got)
	}
	for _, term := range m {
		if !term.Field.Valid() || term.Mask.IsZero() || !term.Value.AndNot(term.Mask).IsZero() || !term.Mask.AndNot(term.Field.Ones()).IsZero() {
			t.Errorf("DecodeMatch(%x) has term %v", b, term)
		}
	}
	FormatMatch(m)
}

func checkActions(t *testing.T, b []byte) {
	t.Helper()
	a, err := DecodeActions(b)
	if err != nil {
		return
	}
	if got := AppendActions(nil, a); !bytes.Equal(got, b) {
		t.Errorf("DecodeActions(%x) = %v, which is encoded %x", b, a, got)
	}
	FormatActions(a)
}

func checkGroup(t *testing.T, b []byte) {
	t.Helper()
	s, err := DecodeGroup(b)
	if err != nil {
		return
	}
	if got := AppendGroup(nil, s); !bytes.Equal(got, b) {
		t.Errorf("DecodeGroup(%x) = %v, which is encoded %x", b, s, got)
	}
	FormatGroup(1, s)
}

// seeded returns a generator of seed corpora, the same each time.
func seeded() gen { return gen{Rand: rand.New(rand.NewPCG(1, 2))} }

func FuzzDecodeMatch(f *testing.F) {
	g := seeded()
	for range 100 {
		f.Add(AppendMatch(nil, g.match()))
	}
	f.Fuzz(checkMatch)
}

func FuzzDecodeActions(f *testing.F) {
	g := seeded()
	for range 100 {
		f.Add(AppendActions(nil, g.actions(g.match(), 0)))
	}
	f.Fuzz(checkActions)
}

func FuzzDecodeGroup(f *testing.F) {
	g := seeded()
	for range 100 {
		s := g.group()
		f.Add(AppendGroup(nil, &s))
	}
	f.Fuzz(checkGroup)
}

// FuzzMessages reads a stream as a connection does.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(message(msgHello, 1, "\x00\x01\x00\x08\x00\x00\x00\x40") + message(msgError, 2, "\x00\x01\x00\x02")))
	f.Add([]byte(message(msgMultipartReply, 3, "\x00\x01\x00\x00\x00\x00\x00\x00"+string(flowDesc(AddFlow(&ir.Rule{
		Match: ir.Match{}.Eq(ir.Reg0, 1), Actions: []ir.Action{ir.Output{Port: 1}},
	}))))))
	f.Add([]byte(message(msgVendor, 4, "\x00\x00\x23\x20\x00\x00\x00\x1a"+string(make([]byte, 24)))))
	f.Add([]byte(message(msgVendor, 5, "\x00\x03\x00\x05\x07\x00\x00\x00\x00\x06\x00\x0e\x00\x00\x00\x04\x80\x00\x20\x02\x00\x07\x00\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			fr, err := readFrame(r)
			if err != nil {
				return
			}
			speaks15(fr)
			if e, err := parseError(fr.body); err == nil && e.Error() == "" {
				t.Errorf("error %+v has no text", e)
			}
			if table, err := parseTLVTable(fr.body); err == nil && len(table.TLVs) > len(fr.body)/8 {
				t.Errorf("%d TLVs in %d bytes", len(table.TLVs), len(fr.body))
			}
			if p, err := parsePacketIn(fr.body); err == nil {
				FormatMatch(p.Metadata)
			}
			for _, body := range [][]byte{fr.body, fr.body[min(8, len(fr.body)):]} {
				_ = parseFlows(body, func(s *FlowStats) error {
					checkMatch(t, s.Match)
					checkActions(t, s.Actions)
					return nil
				})
				_ = parseGroups(body, func(d *GroupDesc) error {
					checkGroup(t, d.Body)
					return nil
				})
				_ = parseGroupStats(body, func(GroupStats) error { return nil })
				_ = parseMeters(body, func(Meter) error { return nil })
			}
		}
	})
}

// flowDesc returns the description of the flow that m adds.
func flowDesc(m Mod) []byte {
	b := make([]byte, flowDescSize)
	b[4] = m.Table
	be.PutUint16(b[6:], m.Priority)
	be.PutUint64(b[16:], m.Cookie)
	b = appendOFPMatch(b, m.Match)
	b = append(b, 0, 0, 0, 16, 0x80, 0x02, statPackets<<1, 8, 0, 0, 0, 0, 0, 0, 0, 9)
	if m.Body != "" {
		b = be.AppendUint16(b, instApplyActions)
		b = be.AppendUint16(b, uint16(8+len(m.Body)))
		b = append(b, 0, 0, 0, 0)
		b = append(b, m.Body...)
	}
	be.PutUint16(b, uint16(len(b)))
	return b
}

func TestParseFlow(t *testing.T) {
	g := gen{Rand: newRand(t)}
	for range 1000 {
		r := g.rule()
		m := AddFlow(&r)
		n := 0
		if err := parseFlows(flowDesc(m), func(s *FlowStats) error {
			n++
			if s.Table != r.Table || s.Priority != r.Priority || s.Cookie != r.Cookie || string(s.Match) != m.Match ||
				string(s.Actions) != m.Body || s.Other || s.PacketCount != 9 {
				t.Errorf("%s comes out as %+v", FormatFlow(&r), s)
			}
			return nil
		}); err != nil || n != 1 {
			t.Errorf("%s: %d flows, %v", FormatFlow(&r), n, err)
		}
	}
}
