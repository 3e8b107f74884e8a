package pinger

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func FuzzParse(f *testing.F) {
	b := make([]byte, 64)
	message{kind: request, nonce: 1, seq: 2, token: 3}.put(b)
	f.Add(b)
	f.Add(b[:63])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parse(b)
		if !ok {
			return
		}
		again := make([]byte, len(b))
		m.put(again)
		if !bytes.Equal(again[:MinSize], b[:MinSize]) {
			t.Errorf("%x is %+v, which is %x", b, m, again)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	good := make([]byte, 64)
	want := message{kind: answer, nonce: 1 << 60, seq: 2, token: 3}
	want.put(good)
	if m, ok := parse(good); !ok || m != want {
		t.Fatalf("parse = %+v, %v", m, ok)
	}
	for name, spoil := range map[string]func(b []byte) []byte{
		"nothing":         func([]byte) []byte { return nil },
		"less":            func(b []byte) []byte { return b[:63] },
		"more":            func(b []byte) []byte { return append(b, 0) },
		"no room":         func(b []byte) []byte { b[7] = MinSize - 1; return b[:MinSize-1] },
		"magic":           func(b []byte) []byte { b[0]++; return b },
		"another version": func(b []byte) []byte { b[4]++; return b },
		"no kind":         func(b []byte) []byte { b[5] = 0; return b },
		"another kind":    func(b []byte) []byte { b[5] = answer + 1; return b },
	} {
		if m, ok := parse(spoil(bytes.Clone(good))); ok {
			t.Errorf("%s: parse = %+v", name, m)
		}
	}
}

// Whatever comes from wherever: only what is asked for with the token is answered, at most twice as much as is agreed on; who does not know the token
// gets at most one challenge a second; nobody gets more than was sent, or anything that could be answered in turn.
func TestBook(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	guests := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	stranger := netip.MustParseAddr("10.0.0.3")
	plan := Plan{Interval: time.Second, Burst: 3}
	var k book
	now := int64(1e9)
	k.admit(guests, plan, now)
	if k.guests[guests[0].As16()].token == k.guests[guests[1].As16()].token {
		t.Fatal("two addresses have one token")
	}
	type count struct{ asked, answers, challenges int }
	counts := map[netip.Addr]*count{guests[0]: {}, guests[1]: {}, stranger: {}}
	begun := now
	in, out := make([]byte, 64), make([]byte, 64)
	for range 200_000 {
		now += r.Int64N(5e6)
		if r.IntN(1000) == 0 {
			k.admit(guests, plan, now) // of a plan that changes nothing here
		}
		from := []netip.Addr{guests[0], guests[1], stranger}[r.IntN(3)]
		m := message{kind: byte(1 + r.IntN(3)), nonce: r.Uint64(), seq: r.Uint64()}
		g := k.guests[guests[r.IntN(2)].As16()] // somebody's token
		known := r.IntN(2) == 0
		if known {
			m.token = g.token
		}
		waited := r.Int64N(2e6) - 1e6 // less than none, if a clock was set
		size := MinSize + r.IntN(33)
		m.put(in[:size])
		c := counts[from]
		c.asked++
		for i := range out {
			out[i] = 0xff
		}
		if !k.reply(from.As16(), in[:size], out, now, waited) {
			continue
		}
		if m.kind != request {
			t.Fatalf("%+v is answered", m)
		}
		if size < len(out) && out[size] != 0xff {
			t.Fatalf("a message of %d octets is answered with more", size)
		}
		got, ok := parse(out[:size])
		own := k.guests[from.As16()]
		switch {
		case !ok || got.nonce != m.nonce || got.seq != m.seq || own == nil:
			t.Fatalf("%v: %+v is answered with %+v", from, m, got)
		case got.kind == answer && m.token == own.token && got.token == uint64(max(waited, 0)):
			c.answers++
		case got.kind == challenge && m.token != own.token && got.token == own.token:
			c.challenges++
		default:
			t.Fatalf("%v: %+v is answered with %+v", from, m, got)
		}
	}
	seconds := int(time.Duration(now-begun).Seconds()) + 1
	for _, a := range guests {
		c := counts[a]
		if most := 2*3*seconds + 2*3; c.answers > most || c.answers < most/2 || c.challenges > seconds || c.challenges < seconds/2 {
			t.Errorf("%v: %+v in %d s", a, *c, seconds)
		}
	}
	if c := counts[stranger]; c.answers+c.challenges > 0 || c.asked == 0 {
		t.Errorf("a stranger: %+v", *c)
	}
}

func TestCheck(t *testing.T) {
	a, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	end := End{"/run/netns/a", "eth0", a}
	good := func() Plan {
		p := quick()
		p.Pairs = []Pair{{1, end, a}}
		p.Answers = []Answer{{1, end, []netip.Addr{a}}}
		return p
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(p *Plan){
		"interval 99ms: not from":  func(p *Plan) { p.Interval = 99 * time.Millisecond },
		"interval 1m1s":            func(p *Plan) { p.Interval = 61 * time.Second },
		"burst 0":                  func(p *Plan) { p.Burst = 0 },
		"burst 33":                 func(p *Plan) { p.Burst = 33 },
		"size 31":                  func(p *Plan) { p.Size = 31 },
		"size 1233":                func(p *Plan) { p.Size = 1233 },
		"timeout 0s":               func(p *Plan) { p.Timeout = 0 },
		"timeout 11s":              func(p *Plan) { p.Timeout = 11 * time.Second },
		"port 0":                   func(p *Plan) { p.Port = 0 },
		"port 65535":               func(p *Plan) { p.Port = 65535 },
		"1001 pairs":               func(p *Plan) { p.Pairs = make([]Pair, 1001) },
		"12800 requests a second":  func(p *Plan) { p.Pairs, p.Burst = make([]Pair, 40), 32 },
		"pair 1: there are two":    func(p *Plan) { p.Pairs = append(p.Pairs, p.Pairs[0]) },
		"pair 1: an end without":   func(p *Plan) { p.Pairs[0].From.Device = "" },
		"pair 1: 10.0.0.1 and fd":  func(p *Plan) { p.Pairs[0].To = six },
		"1001 ports answer":        func(p *Plan) { p.Answers = make([]Answer, 1001) },
		"answer 1: there are two":  func(p *Plan) { p.Answers = append(p.Answers, p.Answers[0]) },
		"answer 1: for 1001":       func(p *Plan) { p.Answers[0].For = make([]netip.Addr, 1001) },
		"answer 1: 10.0.0.1 and f": func(p *Plan) { p.Answers[0].For = []netip.Addr{six} },
	} {
		p := good()
		spoil(&p)
		if err := p.Check(); err == nil || !bytes.Contains([]byte(err.Error()), []byte(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
