package specialize

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// Text writes the program for people: guards, entries, and then the other chains, each before those it leads to. Two programs have the same
// text if they do the same for the same reasons. A rule is its conditions, its verdict, and the rows that lead to it; conditions and
// actions are those of tc-flower(8) and tc-actions(8). What all rules of a chain ask for stands above them.
func (p *Program) Text(w io.Writer) error {
	t := textWriter{w: w}
	if len(p.Guards) > 0 {
		t.line("guards")
	}
	for _, g := range p.Guards {
		t.line("  %s %s: punt %s", familyText(g.EtherType), MatchText(g.EtherType, g.Match), g.Reason)
	}
	for _, e := range p.Entries {
		t.line("%s", e)
		t.rules(e.EtherType, e.Rules)
	}
	for _, s := range p.States {
		t.line("%s", s)
		t.rules(s.EtherType, s.Rules)
	}
	if p.Truncated {
		t.line("truncated: the budget does not suffice")
	}
	return t.err
}

// A textWriter writes until something fails.
type textWriter struct {
	w   io.Writer
	err error
}

func (t *textWriter) line(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format+"\n", args...)
	}
}

func (t *textWriter) rules(etherType uint16, rules []Leaf) {
	for i := range rules {
		r := &rules[i]
		text := MatchText(etherType, r.Match) + ": " + VerdictText(etherType, r)
		if r.implied {
			text += " (no filter)"
		}
		var rows []string
		for _, row := range r.Rows() {
			rows = append(rows, fmt.Sprintf("%x", row[:4]))
		}
		if len(rows) > 0 {
			text += "  # " + strings.Join(rows, " ")
		}
		t.line("  %s", text)
	}
}

// String returns the head of the entry: by which port packets arrive, and of which address family.
func (e *Entry) String() string {
	s := fmt.Sprintf("port %d device %s %s", e.Port, e.Device, familyText(e.EtherType))
	if e.Tunnel != nil {
		s += " tunnel from " + e.Tunnel.Remote.String()
	}
	return s
}

// String returns the head of the chain: its number, where in the program its packets are, and what is known of them.
func (s *State) String() string {
	head := fmt.Sprintf("chain %d %s table %d", s.Chain, familyText(s.EtherType), s.Table)
	if s.Tracked {
		head += fmt.Sprintf(" established in zone %d", s.Zone)
	}
	if s.Tunnelled {
		head += " tunnelled"
	}
	if known := s.Known(); len(known) > 0 {
		head += ": " + strings.Join(known, " ")
	}
	return head
}

// Known returns what is known of the packets of the chain besides what the fields of s say, and only as far as the chain depends on it:
// "reg14=0x3", with a mask if some bits are known, or "reg0=ip_dst" if a field is another one of the packet as it arrived, with
// the place of its first bit if that is not the first. A header's field that is as it arrived is not named. "in_port!=3"
// excludes a port, "ttl-1" says that a hop has been counted.
func (s *State) Known() []string {
	var all []string
	absent := onlyIPv6
	if s.EtherType == etherTypeIPv6 {
		absent = onlyIPv4
	}
	for _, r := range s.reads {
		if r.field == ir.EthType || r.field == ir.VLANTCI || r.field == ir.CTState || slices.Contains(absent, r.field) ||
			!r.value.alias.IsZero() && r.value.isOriginal(r.field, r.mask) {
			continue
		}
		if known := r.value.known.And(r.mask); !known.IsZero() {
			text := fmt.Sprintf("%s=%s", r.field, r.value.val.And(known))
			if known != r.field.Ones() {
				text += "/" + known.String()
			}
			all = append(all, text)
		}
		if alias := r.value.alias.And(r.mask); !alias.IsZero() {
			all = append(all, aliasText(r.field, r.value.src, r.value.ofs, alias))
		}
	}
	for _, port := range s.notPorts {
		all = append(all, fmt.Sprintf("in_port!=%d", port))
	}
	if s.ttlDec > 0 {
		all = append(all, fmt.Sprintf("ttl-%d", s.ttlDec))
	}
	return all
}

func aliasText(f, src ir.Field, ofs int, bits ir.U128) string {
	text := f.String()
	if bits != f.Ones() {
		text += "/" + bits.String()
	}
	text += "=" + src.String()
	switch {
	case ofs > 0:
		text += fmt.Sprintf("[%d..]", ofs)
	case ofs < 0:
		text += fmt.Sprintf("<<%d", -ofs)
	}
	return text
}

// MatchText returns conditions on packets of an EtherType as tc(8) takes them, "any" if there are none.
func MatchText(etherType uint16, m ir.Match) string {
	f := tc.Filter{Protocol: etherType, Match: m}
	_, text, _ := strings.Cut(f.String(), " flower")
	if text = strings.TrimSpace(text); text == "" {
		return "any"
	}
	return text
}

// VerdictText returns what becomes of the packets of a rule: "drop", "punt REASON", "goto chain 5", "ct zone 3 goto chain 5", or "output
// DEVICE" and what tc(8) does with the packet before.
func VerdictText(etherType uint16, l *Leaf) string {
	switch v := l.Verdict.(type) {
	case Punt:
		return "punt " + v.Reason.String()
	case Drop:
		return "drop"
	case Lookup:
		return fmt.Sprintf("ct zone %d goto chain %d", v.Zone, v.State.Chain)
	case Goto:
		return fmt.Sprintf("goto chain %d", v.State.Chain)
	case *Output:
		f := tc.Filter{Protocol: etherType, Match: l.Match, Actions: v.actions(false)}
		text := "output " + v.Device
		if _, actions, some := strings.Cut(f.String(), " action "); some {
			text += " after " + strings.ReplaceAll(strings.TrimSuffix(actions, " pipe"), " pipe action ", ", ")
		}
		return text
	default:
		panic(fmt.Sprintf("specialize: verdict %T", v))
	}
}

// Rows returns the rows that the rules of l's path are made from, in order, each once in a run.
func (l *Leaf) Rows() [][16]byte {
	var rows [][16]byte
	for _, r := range l.Path {
		if row := r.Owner.Row; row != ([16]byte{}) && (len(rows) == 0 || rows[len(rows)-1] != row) {
			rows = append(rows, row)
		}
	}
	return rows
}

// From returns the entries of a device, and the states that packets from there can come to, in the order of p.States.
func (p *Program) From(device string) ([]*Entry, []*State) {
	return p.Reached(func(e *Entry) bool { return e.Device == device })
}

// Reached returns the entries that by accepts, and the states that their packets can come to, in the order of p.States.
func (p *Program) Reached(by func(*Entry) bool) ([]*Entry, []*State) {
	var entries []*Entry
	reached := map[*State]struct{}{}
	follow := func(rules []Leaf) {
		for i := range rules {
			if s := next(rules[i].Verdict); s != nil {
				reached[s] = struct{}{}
			}
		}
	}
	for _, e := range p.Entries {
		if by(e) {
			entries = append(entries, e)
			follow(e.Rules)
		}
	}
	var states []*State
	for _, s := range p.States { // each before those it leads to
		if _, is := reached[s]; is {
			states = append(states, s)
			follow(s.Rules)
		}
	}
	return entries, states
}

func familyText(etherType uint16) string {
	if etherType == etherTypeIPv6 {
		return "ipv6"
	}
	return "ip"
}

// String returns the kind in a word.
func (k Kind) String() string {
	switch k {
	case KindGuard:
		return "guard"
	case KindEntry:
		return "entry"
	case KindRule:
		return "rule"
	case KindEnd:
		return "end"
	case KindClosed:
		return "closed"
	case KindProbe:
		return "probe"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// KindOf returns what a filter with this cookie is for, 0 if it is not ours.
func KindOf(c tc.Cookie) Kind {
	if k := Kind(c[3]); IsOurs(c) && k >= KindGuard && k <= KindProbe {
		return k
	}
	return 0
}

// Satisfies reports what packets of s must have in common besides what the rules ask for: they are established in the zone that was
// asked. A packet is of at most one of the states that share a chain.
func (s *State) Satisfies(etherType uint16, established bool, zone uint16) bool {
	return s.EtherType == etherType && (!s.Tracked || established && s.Zone == zone)
}
