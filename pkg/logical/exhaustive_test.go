package logical

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
)

var terms4 = flag.Bool("terms4", false, "test all expressions of four terms too, which takes minutes")

// The oracle of these tests is brute force: an expression is written as a text and, independently of the parser, as
// the set of packets for which it is true. All packets of a small world are tried on each stage of the compiler.

// A world has the fields x and y of two bits, p of one bit that exists only if y[1] is 1, k of two bits that must
// not be a dimension, the strings s and t with the ports "a", "b" and "lost", which the datapath does not have, and
// z of one bit. A packet is a number of worldBits bits.
const (
	xOfs, yOfs, pOfs, kOfs, sOfs, tOfs, zOfs = 0, 2, 4, 5, 7, 9, 11
	worldBits                                = 12
	packets                                  = 1 << worldBits
)

var worldFields = []struct {
	field   ir.Field
	ofs, n  int
	strings bool
}{
	{ir.Reg0, xOfs, 2, false},
	{ir.Reg1, yOfs, 2, false},
	{ir.Reg2, pOfs, 1, false},
	{ir.Reg3, kOfs, 2, false},
	{ir.Reg14, sOfs, 2, true},
	{ir.Reg15, tOfs, 2, true},
	{ir.Reg4, zOfs, 1, false},
}

// newWorld returns the symbols of the world.
func newWorld() *SymbolTable {
	t := &SymbolTable{symbols: map[string]*Symbol{}}
	num := func(name string, f ir.Field, width int, prereqs string) *Symbol {
		return t.add(&Symbol{Name: name, Width: width, Field: f, Level: Ordinal, Prereqs: prereqs})
	}
	num("x", ir.Reg0, 2, "")
	num("y", ir.Reg1, 2, "")
	num("p", ir.Reg2, 1, "y[1]")
	num("k", ir.Reg3, 2, "").MustCrossProduct = true
	num("z", ir.Reg4, 1, "")
	t.str("s", ir.Reg14)
	t.str("t", ir.Reg15)
	t.part("x0", "x", 0, 1, "")
	t.part("x1", "x", 1, 1, "z")
	t.pred("odd", "x[0] && (y == 1 || k == 1)")
	return t
}

func worldPort(name string) (uint32, bool) {
	key, ok := map[string]uint32{"a": 1, "b": 2}[name]
	return key, ok
}

// fieldOf returns the value that packet p has in f.
func fieldOf(p int, f ir.Field) uint64 {
	for _, w := range worldFields {
		if w.field == f {
			return uint64(p) >> w.ofs & (1<<w.n - 1)
		}
	}
	panic(f)
}

// set is a set of packets.
type set [packets / 64]uint64

func setOf(f func(p int) bool) *set {
	var s set
	for p := range packets {
		if f(p) {
			s[p/64] |= 1 << (p % 64)
		}
	}
	return &s
}

func (s *set) has(p int) bool { return s[p/64]>>(p%64)&1 != 0 }

func (s *set) and(t *set) *set {
	var u set
	for i := range u {
		u[i] = s[i] & t[i]
	}
	return &u
}

func (s *set) or(t *set) *set {
	var u set
	for i := range u {
		u[i] = s[i] | t[i]
	}
	return &u
}

func (s *set) not() *set {
	var u set
	for i := range u {
		u[i] = ^s[i]
	}
	return &u
}

// cache remembers the packets of comparisons, which recur.
type cache map[comparison]*set

type comparison struct {
	field ir.Field
	rel   relop
	alt
}

func (c cache) get(key comparison) *set {
	s, ok := c[key]
	if !ok {
		s = setOf(key.matches)
		c[key] = s
	}
	return s
}

// matches reports whether packet p satisfies c.
func (c comparison) matches(p int) bool {
	got := fieldOf(p, c.field)
	if c.port != "" {
		key, ok := worldPort(c.port)
		return ok && got == uint64(key)
	}
	d := ir.U64(got).And(c.mask).Cmp(c.value)
	return [...]bool{eq: d == 0, ne: d != 0, lt: d < 0, le: d <= 0, gt: d > 0, ge: d >= 0}[c.rel]
}

var all, nothing = (&set{}).not(), &set{}

// packetsOf returns the packets for which n, whose relations are as in the text or simplified, is true.
func (c cache) packetsOf(n *node) *set {
	switch n.kind {
	case boolNode:
		if n.truth {
			return all
		}
		return nothing
	case condNode:
		if (n.text == "here") == n.truth {
			return all
		}
		return nothing
	case cmpNode:
		return c.get(comparison{n.sym.Field, n.rel, alt{n.value, n.mask, n.text}})
	case andNode, orNode:
	}
	s := c.packetsOf(n.sub[0])
	for _, sub := range n.sub[1:] {
		if n.kind == andNode {
			s = s.and(c.packetsOf(sub))
		} else {
			s = s.or(c.packetsOf(sub))
		}
	}
	return s
}

// packetsOfMatch returns the packets that m matches, whatever it says of conj_id.
func (c cache) packetsOfMatch(m ir.Match) *set {
	out := all
	for _, t := range m {
		if t.Field != ir.ConjID {
			out = out.and(c.get(comparison{t.Field, eq, alt{value: t.Value, mask: t.Mask}}))
		}
	}
	return out
}

// packetsOfFlows returns the packets that get the actions of the logical flow, as in ovs-actions(7), "conjunction".
func (c cache) packetsOfFlows(flows []FlowMatch) *set {
	var out set
	type clause struct {
		id uint32
		k  uint8
	}
	clauses := map[clause]*set{}
	size := map[uint32]uint8{}
	for _, f := range flows {
		s := c.packetsOfMatch(f.Match)
		if f.Conj == nil && f.ConjID == 0 {
			out = *out.or(s)
		}
		for _, j := range f.Conj {
			k := clause{j.ID, j.Clause}
			if clauses[k] == nil {
				clauses[k] = &set{}
			}
			clauses[k] = clauses[k].or(s)
			size[j.ID] = j.N
		}
	}
	for _, f := range flows {
		if f.ConjID == 0 {
			continue
		}
		s := c.packetsOfMatch(f.Match)
		for k := range size[f.ConjID] {
			if d := clauses[clause{f.ConjID, k}]; d != nil {
				s = s.and(d)
			} else {
				s = nothing
			}
		}
		if size[f.ConjID] > 0 { // otherwise all members are ordinary flows
			out = *out.or(s)
		}
	}
	return &out
}

// check parses text and tells which stage gives an answer other than want, and for which packet.
func (c cache) check(st *SymbolTable, text string, want *set) error {
	differ := func(stage string, form fmt.Stringer, got *set) error {
		if *got == *want {
			return nil
		}
		for p := range packets {
			if got.has(p) != want.has(p) {
				var at []string
				for _, w := range worldFields {
					at = append(at, fmt.Sprintf("%s=%d", w.field, fieldOf(p, w.field)))
				}
				return fmt.Errorf("%s: %s (%s) is %v for %s, want %v", text, form, stage, got.has(p), strings.Join(at, ","),
					want.has(p))
			}
		}
		panic("sets differ nowhere")
	}
	e, err := ParseMatch(text, st, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	if err := differ("simplified", e, c.packetsOf(e.root)); err != nil {
		return err
	}
	again, err := ParseMatch(e.String(), st, nil)
	if err != nil || again.String() != simplifyAgain(e) {
		return fmt.Errorf("%s: %s is read again as %v, %w", text, e, again, err)
	}
	m, err := e.Matches(func(port string) bool { return port == "here" })
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	var flows flowList
	m.ForDatapath(worldPort, func(f FlowMatch) { flows = append(flows, f) })
	return differ("flows", flows, c.packetsOfFlows(flows))
}

type flowList []FlowMatch

func (l flowList) String() string {
	var out []string
	for _, f := range l {
		out = append(out, fmt.Sprint(formatMatch(f.Match), f.Conj))
	}
	return strings.Join(out, "; ")
}

// simplifyAgain returns the text of e with the prerequisites added once more.
func simplifyAgain(e *Expr) string {
	work := budget(maxNodes)
	return simplify(annotate(e.root, true), &work).String()
}

// term is a comparison and its packets.
type term struct {
	text string
	set  *set
}

func simpleTerms() []term {
	x := func(p int) int { return p >> xOfs & 3 }
	y := func(p int) int { return p >> yOfs & 3 }
	k := func(p int) int { return p >> kOfs & 3 }
	s := func(p int) int { return p >> sOfs & 3 }
	t := func(p int) int { return p >> tOfs & 3 }
	z := func(p int) int { return p >> zOfs & 1 }
	pp := func(p int) int { return p >> pOfs & 1 }
	terms := []struct {
		text string
		f    func(p int) bool
	}{
		{"x == 1", func(p int) bool { return x(p) == 1 }},
		{"x != 2", func(p int) bool { return x(p) != 2 }},
		{"x < 3", func(p int) bool { return x(p) < 3 }},
		{"x >= 2", func(p int) bool { return x(p) >= 2 }},
		{"x == {0, 3}", func(p int) bool { return x(p) == 0 || x(p) == 3 }},
		{"x != {0, 3}", func(p int) bool { return x(p) != 0 && x(p) != 3 }},
		{"x == 2/2", func(p int) bool { return x(p)&2 == 2 }},
		{"0 < x <= 2", func(p int) bool { return x(p) > 0 && x(p) <= 2 }},
		{"!x0", func(p int) bool { return x(p)&1 == 0 }},
		{"x1", func(p int) bool { return x(p)&2 != 0 && z(p) != 0 }},
		{"y[1]", func(p int) bool { return y(p)&2 != 0 }},
		{"y > 0", func(p int) bool { return y(p) > 0 }},
		{"y == {1, 2}", func(p int) bool { return y(p) == 1 || y(p) == 2 }},
		{"k == {1, 2}", func(p int) bool { return k(p) == 1 || k(p) == 2 }},
		{"k != 1", func(p int) bool { return k(p) != 1 }},
		{"p", func(p int) bool { return pp(p) != 0 && y(p)&2 != 0 }},
		{"!p", func(p int) bool { return pp(p) == 0 && y(p)&2 != 0 }},
		{`s == "a"`, func(p int) bool { return s(p) == 1 }},
		{`s == {"a", "b"}`, func(p int) bool { return s(p) == 1 || s(p) == 2 }},
		{`s == {"b", "lost"}`, func(p int) bool { return s(p) == 2 }},
		{`t == {"a", "b"}`, func(p int) bool { return t(p) == 1 || t(p) == 2 }},
		{`t == "lost"`, func(int) bool { return false }},
		{"odd", func(p int) bool { return x(p)&1 != 0 && (y(p) == 1 || k(p) == 1) }},
		{"!odd", func(p int) bool { return x(p)&1 == 0 || y(p) != 1 && k(p) != 1 }},
		{`is_chassis_resident("here")`, func(int) bool { return true }},
		{"0", func(int) bool { return false }},
	}
	var out []term
	for _, t := range terms {
		out = append(out, term{t.text, setOf(t.f)})
	}
	return out
}

// combine calls f for all expressions of n of the terms, each of which is a conjunction or disjunction, according to
// and, of smaller ones of the other kind.
func combine(terms []term, n int, and bool, f func(term)) {
	if n == 1 {
		for _, t := range terms {
			f(t)
		}
		return
	}
	op := " || "
	if and {
		op = " && "
	}
	for first := 1; first < n; first++ {
		combine(terms, first, !and, func(a term) {
			if first > 1 {
				a.text = "(" + a.text + ")"
			}
			rest := func(b term, parens bool) {
				if parens {
					b.text = "(" + b.text + ")"
				}
				t := term{text: a.text + op + b.text}
				if and {
					t.set = a.set.and(b.set)
				} else {
					t.set = a.set.or(b.set)
				}
				f(t)
			}
			combine(terms, n-first, !and, func(b term) { rest(b, n-first > 1) })
			if n-first > 1 {
				combine(terms, n-first, and, func(b term) { rest(b, false) })
			}
		})
	}
}

// All expressions of up to three terms, or four with -terms4, mean the same at each stage.
func TestExhaustive(t *testing.T) {
	n, max := 0, 3
	if *terms4 {
		max = 4
	}
	c, st, terms := cache{}, newWorld(), simpleTerms()
	for size := 1; size <= max; size++ {
		for _, and := range []bool{false, true}[:min(size, 2)] {
			combine(terms, size, and, func(e term) {
				n++
				if err := c.check(st, e.text, e.set); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	t.Logf("%d expressions", n)
	if n < 100000 {
		t.Errorf("only %d expressions", n)
	}
}

// random returns an expression of at most depth levels, and pushes negation to its terms, as the language does: the
// opposite of a comparison needs the prerequisites of the comparison.
func random(rnd *rand.Rand, terms, opposites []term, depth int, neg bool) term {
	if depth == 0 || rnd.IntN(4) == 0 {
		i := rnd.IntN(len(terms))
		if neg {
			return term{terms[i].text, opposites[i].set}
		}
		return terms[i]
	}
	and := rnd.IntN(2) == 0
	op := map[bool]string{true: " && ", false: " || "}[and]
	var texts []string
	var s *set
	for range 2 + rnd.IntN(3) {
		sub := rnd.IntN(4) == 0
		e := random(rnd, terms, opposites, depth-1, neg != sub)
		e.text = "(" + e.text + ")"
		if sub {
			e.text = "!" + e.text
		}
		texts = append(texts, e.text)
		switch {
		case s == nil:
			s = e.set
		case and != neg:
			s = s.and(e.set)
		default:
			s = s.or(e.set)
		}
	}
	return term{strings.Join(texts, op), s}
}

// Larger expressions, with !, mean the same at each stage.
func TestRandomExpressions(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	y1 := setOf(func(p int) bool { return p>>yOfs&2 != 0 })
	z := setOf(func(p int) bool { return p>>zOfs&1 != 0 })
	var terms, opposites []term
	for _, e := range simpleTerms() {
		if strings.HasPrefix(e.text, "s ") || strings.HasPrefix(e.text, "t ") {
			continue // nominal
		}
		no := e.set.not()
		switch e.text {
		case "p", "!p":
			no = no.and(y1)
		case "x1":
			no = no.and(z)
		}
		terms = append(terms, e)
		opposites = append(opposites, term{e.text, no})
	}
	c, st := cache{}, newWorld()
	n := 20000
	if testing.Short() {
		n = 2000
	}
	for range n {
		e := random(rnd, terms, opposites, 1+rnd.IntN(3), false)
		if err := c.check(st, e.text, e.set); err != nil {
			t.Fatal(err)
		}
	}
}

// A text is an error or an expression whose text means the same; matches are sorted, different and refer to
// conjunctions that exist.
func FuzzParseMatch(f *testing.F) {
	for _, s := range []string{
		`ip4 && tcp.dst == {80, 443} && ip4.src == $web`, `inport == @pg && outport == {"vm1", "x\u0041"}`,
		`(!ct.trk || !ct.rpl) && is_chassis_resident("here")`, `1 < tcp.dst <= 0x7ff && !reg0[3..5]`, `^x`, `ip6.mcast_flood`,
		`ip.ttl == {0, 1} && !ip.later_frag && (ip4.mcast || ip6.mcast)`, `reg0 != 5 && xxreg1 == fd00::/64 // x`,
		`eth.src == 0a:00:00:00:00:01/ff:00:00:00:00:00 /* y */`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseMatch(text, Symbols(), fixture{})
		if err != nil {
			return
		}
		// Not all is text: bits of nominal fields are made by expanding predicates only.
		if again, err := ParseMatch(e.String(), Symbols(), nil); err == nil && again.String() != simplifyAgain(e) {
			t.Errorf("%s is %s, which is %s", text, e, again)
		}
		m, err := e.Matches(fixture{}.resident)
		if err != nil {
			return
		}
		var flows []FlowMatch
		n := m.ForDatapath(fixture{}.port, func(f FlowMatch) { flows = append(flows, f) })
		seen := map[string]bool{}
		for line := range strings.SplitSeq(formatFlows(t, flows, n), "\n") {
			match, _, _ := strings.Cut(line, ": ")
			if seen[match] {
				t.Errorf("%s: two flows match %s", text, match)
			}
			seen[match] = true
		}
		for _, f := range flows {
			if !slices.IsSortedFunc(f.Match, func(a, b ir.Term) int { return int(a.Field) - int(b.Field) }) {
				t.Errorf("%s: %v is not sorted", text, f.Match)
			}
			for _, term := range f.Match {
				if term.Mask.IsZero() || !term.Value.AndNot(term.Mask).IsZero() || !term.Mask.AndNot(term.Field.Ones()).IsZero() {
					t.Errorf("%s: term %v", text, term)
				}
			}
		}
	})
}
