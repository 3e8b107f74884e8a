package logical

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/ir"
)

// fixture is the world of the golden files: sets, ports with their tunnel keys, and what is resident.
type fixture struct{}

func (fixture) AddressSet(name string) ([]Constant, bool) {
	addresses, ok := map[string][]string{
		"web":   {"10.0.0.2", "10.0.0.1"},
		"one":   {"10.0.0.1"},
		"nets":  {"10.1.0.0/16", "10.2.0.0/16"},
		"hosts": {"fd00::1", "fd00::2"},
		"macs":  {"0a:00:00:00:00:01", "0a:00:00:00:00:02"},
		"empty": {},
	}[name]
	set, invalid := ParseAddressSet(addresses)
	if invalid != nil {
		panic(fmt.Sprint(invalid))
	}
	return set, ok
}

func (fixture) PortGroup(name string) ([]string, bool) {
	ports, ok := map[string][]string{
		"pg":      {"vm1", "vm2", "gone"},
		"missing": {"gone", "lost"},
		"single":  {"vm1"},
		"none":    {},
	}[name]
	return ports, ok
}

func (fixture) port(name string) (uint32, bool) {
	key, ok := map[string]uint32{"vm1": 1, "vm2": 2, "vm3": 3, "flood": 0x8000, "none": 0}[name]
	return key, ok
}

func (fixture) resident(name string) bool { return name == "here" }

// describe returns what is wrong, and where.
func describe(err error) string {
	pos := ""
	if se := (*SyntaxError)(nil); errors.As(err, &se) {
		pos = fmt.Sprintf(" at %d", se.Pos)
	}
	return fmt.Sprintf("error%s: %v", pos, err)
}

func TestLex(t *testing.T) {
	golden.Run(t, "testdata/lex.txt", func(in string) string {
		var out []string
		for _, tok := range Lex(in) {
			//exhaustive:ignore
			switch tok.Kind {
			case TokEnd:
			case TokError:
				out = append(out, fmt.Sprintf("error at %d: %s", tok.Pos, tok.Text))
			default:
				out = append(out, tok.String())
				again := Lex(tok.String())
				if tok.Value.IsZero() && !tok.Masked {
					tok.Format = again[0].Format // 0x0 is printed as 0
				}
				if len(again) != 2 || again[0].Kind != tok.Kind || again[0].Text != tok.Text ||
					again[0].Constant != tok.Constant {
					t.Errorf("%s: token %v is read again as %v", in, tok, again)
				}
			}
		}
		return strings.Join(out, " ")
	})
}

// The text before simplification, as the manual explains the expansions.
func TestAnnotate(t *testing.T) {
	golden.Run(t, "testdata/annotate.txt", func(in string) string {
		p := matchParser{lx: NewLexer(in), st: Symbols(), sets: fixture{}}
		n := p.whole()
		if err := p.err(); err != nil {
			return describe(err)
		}
		return annotate(n, true).String()
	})
}

func TestSimplify(t *testing.T) {
	golden.Run(t, "testdata/simplify.txt", func(in string) string {
		e, err := ParseMatch(in, Symbols(), fixture{})
		if err != nil {
			return describe(err)
		}
		return e.String()
	})
}

func TestMatches(t *testing.T) {
	golden.Run(t, "testdata/match.txt", func(in string) string {
		text, more, _ := strings.Cut(in, " require ")
		var prereqs []string
		if more != "" {
			prereqs = strings.Split(more, ", ")
		}
		e, err := ParseMatch(text, Symbols(), fixture{}, prereqs...)
		if err != nil {
			return describe(err)
		}
		m, err := e.Matches(fixture{}.resident)
		if err != nil {
			return describe(err)
		}
		var flows []FlowMatch
		n := m.ForDatapath(fixture{}.port, func(f FlowMatch) { flows = append(flows, f) })
		return formatFlows(t, flows, n)
	})
}

func formatFlows(t *testing.T, flows []FlowMatch, nConj int) string {
	t.Helper()
	if len(flows) == 0 {
		return "(no flows)"
	}
	var out []string
	for _, f := range flows {
		line := formatMatch(f.Match)
		for i, c := range f.Conj {
			sep := ","
			if i == 0 {
				sep = ":"
			}
			if c.ID > uint32(nConj) {
				t.Errorf("conjunction %d of %d", c.ID, nConj)
			}
			line += fmt.Sprintf("%s conjunction(%d, %d/%d)", sep, c.ID, c.Clause+1, c.N)
		}
		if id, ok := f.Match.Term(ir.ConjID); ok != (f.ConjID != 0) || id.Value != ir.U64(uint64(f.ConjID)) {
			t.Errorf("%s: ConjID is %d", line, f.ConjID)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// formats are the notations of values; a field that is not here has decimal ones if it is narrow.
var formats = map[ir.Field]Format{
	ir.EthSrc: FormatEthernet, ir.EthDst: FormatEthernet, ir.ARPSHA: FormatEthernet, ir.ARPTHA: FormatEthernet,
	ir.NDSLL: FormatEthernet, ir.NDTLL: FormatEthernet,
	ir.IPSrc: FormatIPv4, ir.IPDst: FormatIPv4, ir.ARPSPA: FormatIPv4, ir.ARPTPA: FormatIPv4,
	ir.IPv6Src: FormatIPv6, ir.IPv6Dst: FormatIPv6, ir.NDTarget: FormatIPv6,
	ir.EthType: FormatHex, ir.VLANTCI: FormatHex, ir.TCPFlags: FormatHex, ir.IPFrag: FormatHex,
}

// formatMatch returns m as in ovs-fields(7).
func formatMatch(m ir.Match) string {
	if len(m) == 0 {
		return "(any)"
	}
	var out []string
	for _, t := range m {
		c := Constant{Value: t.Value, Mask: t.Mask, Masked: t.Mask != t.Field.Ones()}
		c.Format = formats[t.Field]
		if c.Format == FormatDecimal && (c.Masked || t.Field.Bits() > 16 && t.Field != ir.ConjID) {
			c.Format = FormatHex
		}
		out = append(out, fmt.Sprintf("%s=%s", t.Field, c))
	}
	return strings.Join(out, ",")
}

// Every error of the language, with the byte at which it is noticed.
func TestMatchErrors(t *testing.T) {
	golden.Run(t, "testdata/match-errors.txt", func(in string) string {
		_, err := ParseMatch(in, Symbols(), fixture{})
		if err == nil {
			return "no error"
		}
		out := describe(err)
		pe := (*ParseError)(nil)
		if !errors.As(err, &pe) {
			t.Fatalf("%s: error is a %T", in, err)
		}
		if ms := (*MissingSet)(nil); errors.As(err, &ms) {
			refs := pe.Refs.AddressSets
			if ms.Group {
				refs = pe.Refs.PortGroups
			}
			if !slices.Contains(refs, ms.Name) {
				t.Errorf("%s: the missing %q is not in the references %v", in, ms.Name, refs)
			}
			out += "\nmissing " + ms.Name
		}
		return out
	})
}

func TestRefs(t *testing.T) {
	const text = `ip4.src == {$web, $nets, $web} && inport == @pg && (is_chassis_resident("b") || is_chassis_resident("a"))`
	e, err := ParseMatch(text, Symbols(), fixture{})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(e.Refs())
	if want := "{[nets web] [pg] [a b]}"; got != want {
		t.Errorf("Refs of %s = %s, want %s", text, got, want)
	}
}

// Every name of the manual is a symbol, and what it stands for refers to earlier symbols only.
func TestSymbols(t *testing.T) {
	st := Symbols()
	for name, s := range st.symbols {
		if s.Name != name || st.Lookup(name) != s {
			t.Errorf("symbol %q is found as %q", s.Name, name)
		}
		if s.Width > 128 || s.Parent != nil && s.Lo+s.Width > s.Parent.Width {
			t.Errorf("%s has %d bits from %d", name, s.Width, s.Lo)
		}
		if s.Field == 0 && s.Predicate == "" && s.OVNField == 0 {
			t.Errorf("%s stands for nothing", name)
		}
		if s.Parent != nil && s.Level != Ordinal {
			t.Errorf("%s is a part of a %s field", name, s.Level)
		}
	}
	if st.Lookup("nonesuch") != nil {
		t.Error("a symbol that nobody defined")
	}
	for name, level := range map[string]Level{
		"ip4": Nominal, "tcp": Nominal, "nd": Nominal, "arp": Nominal, "icmp": Nominal, "ip.first_frag": Boolean,
		"vlan.present": Boolean, "eth.bcast": Boolean, "ip6.mcast": Boolean, "ct.new": Ordinal, "eth.mcast": Ordinal,
		"inport": Nominal, "arp.op": Nominal, "ip.ttl": Nominal, "tcp.flags": Ordinal, "ip.frag": Ordinal,
	} {
		if got := st.Lookup(name).Level; got != level {
			t.Errorf("%s is %s, want %s", name, got, level)
		}
	}
	for name, w := range map[string]Scope{
		"reg0": WriteAnywhere, "ct_mark": WriteCTCommit, "ct_label.ecmp_reply_eth": WriteCTCommit, "ct_state": 0, "ct.new": 0,
		"eth.type": 0, "ip.proto": 0, "ip.frag": 0, "tcp.flags": 0, "ip.ttl": WriteAnywhere, "tcp": 0,
		"icmp4.frag_mtu": WriteAnywhere | WriteCTCommit, "inport": WriteAnywhere, "vlan.vid": WriteAnywhere,
	} {
		if got := st.Lookup(name).Writable; got != w {
			t.Errorf("%s is writable in %b, want %b", name, got, w)
		}
	}
}

// Limits are errors, quickly.
func TestLimits(t *testing.T) {
	nest := func(n int) string { return strings.Repeat("(", n) + "ip4" + strings.Repeat(")", n) }
	if _, err := ParseMatch(nest(maxDepth), Symbols(), nil); err != nil {
		t.Errorf("%d parentheses: %v", maxDepth, err)
	}
	if _, err := ParseMatch(nest(maxDepth+1), Symbols(), nil); err == nil {
		t.Errorf("%d parentheses: no error", maxDepth+1)
	}
	var each []string
	for i := range 40 {
		each = append(each, fmt.Sprintf("(reg%d[%d] || tcp.dst[%d])", i%10, i%32, i%16))
	}
	for name, text := range map[string]string{
		"product":   strings.Join(each, " && "),
		"bits":      "xxreg0 != {" + strings.Repeat("1, 2, 3, 5, 7, 11, 13, 17,", 2000) + "}",
		"intersect": "ip6.src != {::1, ::2, ::4, ::8, ::10, ::20, ::40}",
		"sets":      "ip4.src == {" + strings.Repeat("$big, ", 100) + "}",
		"depth":     strings.Repeat("(reg0[0] || tcp) && ", 50000) + "ip4",
	} {
		e, err := ParseMatch(text, Symbols(), bigSet{})
		if err == nil {
			_, err = e.Matches(nil)
		}
		if !errors.Is(err, ErrTooComplex) {
			t.Errorf("%s: error is %v, want %v", name, err, ErrTooComplex)
		}
	}
}

// bigSet has one address set of 20000 members.
type bigSet struct{ fixture }

func (bigSet) AddressSet(string) ([]Constant, bool) {
	set := make([]Constant, 20000)
	for i := range set {
		set[i] = Constant{Value: ir.U64(uint64(i)), Format: FormatIPv4}
	}
	return set, true
}
