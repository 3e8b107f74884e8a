package monitor

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/offloadd/offloadd/pkg/probe/pinger"
	"github.com/offloadd/offloadd/pkg/reason"
)

func addrs(text string) []netip.Addr {
	var all []netip.Addr
	for word := range strings.FieldsSeq(text) {
		all = append(all, netip.MustParseAddr(word))
	}
	return all
}

func own(name, addresses string) Own {
	return Own{Netns: "/run/netns/" + name, Device: "eth0", Addresses: addrs(addresses)}
}

func end(name, address string) pinger.End {
	return pinger.End{Netns: "/run/netns/" + name, Device: "eth0", Addr: netip.MustParseAddr(address)}
}

func config(pairs ...string) Config {
	c := DefaultConfig()
	for _, p := range pairs {
		from, to, _ := strings.Cut(p, " ")
		c.Pairs = append(c.Pairs, Pair{from, to})
	}
	return c
}

// Each of two nodes with the same configuration does its part: what one sends the other answers.
func TestRoles(t *testing.T) {
	c := config("a b", "a c", "b a", "c a")
	ports := map[string]Port{
		"a": {addrs("10.0.0.1 fd00::1"), "n1"}, "b": {addrs("10.0.0.2"), "n1"}, "c": {addrs("fe80::3 fd00::3"), "n2"},
	}
	n1 := World{map[string]Own{"a": own("a", "10.0.0.1 fd00::1"), "b": own("b", "10.0.0.2")}, ports}
	n2 := World{map[string]Own{"c": own("c", "fd00::3")}, ports}
	all, numbers := roles(c, n1, &numbering{})
	p1 := plan(c, all)
	want := pinger.Plan{
		Interval: time.Second, Burst: 1, Size: 64, Timeout: time.Second, Port: 8629,
		Pairs: []pinger.Pair{
			{From: end("a", "10.0.0.1"), To: netip.MustParseAddr("10.0.0.2")},
			{From: end("a", "fd00::1"), To: netip.MustParseAddr("fd00::3")},
			{From: end("b", "10.0.0.2"), To: netip.MustParseAddr("10.0.0.1")},
		},
		Answers: []pinger.Answer{
			{At: end("a", "10.0.0.1"), For: addrs("10.0.0.2")}, {At: end("a", "fd00::1"), For: addrs("fd00::3")}, {At: end("b", "10.0.0.2"), For: addrs("10.0.0.1")},
		},
	}
	opts := cmp.Options{
		cmpopts.IgnoreFields(pinger.Pair{}, "ID"), cmpopts.IgnoreFields(pinger.Answer{}, "ID"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmpopts.SortSlices(func(a, b pinger.Pair) bool {
			return a.From.Addr.String()+a.To.String() < b.From.Addr.String()+b.To.String()
		}),
		cmpopts.SortSlices(func(a, b pinger.Answer) bool { return a.At.Addr.Less(b.At.Addr) }),
	}
	if d := cmp.Diff(want, p1, opts); d != "" {
		t.Errorf("n1 (-want +got)\n%s", d)
	}
	if err := p1.Check(); err != nil {
		t.Error(err)
	}
	other, _ := roles(c, n2, &numbering{})
	p2 := plan(c, other)
	want.Pairs = []pinger.Pair{{From: end("c", "fd00::3"), To: netip.MustParseAddr("fd00::1")}}
	want.Answers = []pinger.Answer{{At: end("c", "fd00::3"), For: addrs("fd00::1")}}
	if d := cmp.Diff(want, p2, opts); d != "" {
		t.Errorf("n2 (-want +got)\n%s", d)
	}
	if r := other[Pair{"a", "c"}]; r.here || r.sends != nil || r.answers == nil {
		t.Errorf("n2 of what it answers: %+v", r)
	}

	// What stays the same keeps its number; what becomes another, also if it was that before, gets a new one.
	id := func(all map[Pair]role, from, to string) uint64 { return all[Pair{from, to}].sends.ID }
	gone := World{map[string]Own{"a": own("a", "10.0.0.1 fd00::1")}, ports}
	again, numbers := roles(c, gone, numbers)
	if got, want := id(again, "a", "b"), id(all, "a", "b"); got != want {
		t.Errorf("a to b has number %d, and had %d", got, want)
	}
	moved := n1
	moved.Own = map[string]Own{"a": own("a", "10.0.0.1 fd00::1"), "b": own("b2", "10.0.0.2")}
	third, _ := roles(c, moved, numbers)
	if id(third, "b", "a") == id(all, "b", "a") || id(third, "a", "b") != id(all, "a", "b") {
		t.Error("b in another namespace has the same number, or a, that is where it was, another")
	}
}

// Why a pair is not measured, and that its reason is for who would send.
func TestRolesWithReasons(t *testing.T) {
	base := map[string]Own{"a": own("a", "10.0.0.1")}
	a := Port{addrs("10.0.0.1"), "n1"}
	for name, tt := range map[string]struct {
		own   map[string]Own
		ports map[string]Port
		why   reason.Reason
	}{
		"nothing is known":       {base, nil, reason.LPortNotFound},
		"to is not there":        {base, map[string]Port{"a": a}, reason.LPortNotFound},
		"to is on no chassis":    {base, map[string]Port{"a": a, "b": {addrs("10.0.0.2"), ""}}, reason.ProbeImpossible},
		"to has no addresses":    {base, map[string]Port{"a": a, "b": {nil, "n2"}}, reason.LPortNoAddresses},
		"families differ":        {base, map[string]Port{"a": a, "b": {addrs("fd00::2"), "n2"}}, reason.LPortNoAddresses},
		"from has another":       {map[string]Own{"a": own("a", "10.0.0.9")}, map[string]Port{"a": a, "b": {addrs("10.0.0.2"), "n2"}}, reason.AddressMissing},
		"link-local is not one":  {base, map[string]Port{"a": {addrs("fe80::1"), "n1"}, "b": {addrs("fe80::2"), "n2"}}, reason.LPortNoAddresses},
		"neither is here":        {nil, map[string]Port{"a": a, "b": {addrs("10.0.0.2"), "n2"}}, ""},
		"to is here, from not":   {map[string]Own{"b": own("b", "10.0.0.2")}, map[string]Port{"b": {addrs("10.0.0.2"), "n2"}}, ""},
		"all is well":            {base, map[string]Port{"a": a, "b": {addrs("10.0.0.2"), "n2"}}, ""},
		"to is here without one": {map[string]Own{"b": own("b", "10.0.0.9")}, map[string]Port{"a": a, "b": {addrs("10.0.0.2"), "n2"}}, ""},
	} {
		all, _ := roles(config("a b"), World{tt.own, tt.ports}, &numbering{})
		r := all[Pair{"a", "b"}]
		if r.why != tt.why || (r.message != "") != (tt.why != "") || (r.sends != nil) != (name == "all is well") || r.answers != nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// All that ask a port are in one answer.
func TestPlanJoins(t *testing.T) {
	c := config("a c", "b c")
	w := World{map[string]Own{"c": own("c", "10.0.0.3")}, map[string]Port{"a": {addrs("10.0.0.1"), "n1"}, "b": {addrs("10.0.0.2"), "n1"}, "c": {addrs("10.0.0.3"), "n2"}}}
	all, _ := roles(c, w, &numbering{})
	p := plan(c, all)
	if len(p.Pairs) != 0 || len(p.Answers) != 1 || len(p.Answers[0].For) != 2 {
		t.Errorf("%+v", p)
	}
}

func TestConfig(t *testing.T) {
	if err := config("a b", "b a").Check(); err != nil {
		t.Error(err)
	}
	for want, c := range map[string]Config{
		"pairs[1]: from a to b is there twice":     config("a b", "a b"),
		"pairs[0]: a with itself":                  config("a a"),
		"pairs[0]: from or to is missing":          config("a"),
		"pairs[0]: a name is longer than 255":      config(strings.Repeat("a", 256) + " b"),
		"burst 0: not from":                        {Interval: Duration(time.Second), Size: 64, Timeout: Duration(time.Second), Port: 1, Look: Duration(time.Minute)},
		"slower 1: neither 0 nor from 1.1 to 1000": {Interval: Duration(time.Second), Size: 64, Timeout: Duration(time.Second), Port: 1, Burst: 1, Slower: 1},
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
