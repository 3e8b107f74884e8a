package dpctl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Layer is where the packets of a megaflow are handled.
type Layer uint8

// The layers. Partly is a megaflow that hardware recognises and Open vSwitch carries out, as with some NICs of DPDK.
const (
	OVS Layer = iota
	Partly
	TC
	NIC
)

// String returns the layer's name.
func (l Layer) String() string { return [...]string{"ovs", "partly", "tc", "nic"}[l] }

// A Flow is a megaflow of the datapath.
type Flow struct {
	// UFID is its number, as 32 hexadecimal digits; filters of TC have it as their cookie (Cookie). "": it has none.
	UFID string

	// Attrs are what it asks for, in the order of the text, without what it does not ask for.
	Attrs []Attr

	InPort string // name of the port, or its number
	Recirc uint32 // recirc_id, 0 for packets that have just arrived

	Packets, Bytes uint64
	Used           string // "never", or how long ago, as in "1.204s"
	Layer          Layer
	Actions        string

	// Reason is what the datapath says of it besides (dp-extra-info), "" for nothing.
	Reason string
}

// A Sum is megaflows and what they have counted.
type Sum struct {
	Flows          int
	Packets, Bytes uint64
}

// Sums returns by port, and layer, what megaflows of its packets have counted. A packet that is recirculated is counted by each that it
// meets.
func Sums(flows []Flow) map[string][NIC + 1]Sum {
	all := map[string][NIC + 1]Sum{}
	for i := range flows {
		f := &flows[i]
		sums := all[f.InPort]
		s := &sums[f.Layer]
		s.Flows, s.Packets, s.Bytes = s.Flows+1, s.Packets+f.Packets, s.Bytes+f.Bytes
		all[f.InPort] = sums
	}
	return all
}

// An Attr is an attribute of a megaflow's key, such as ipv4(src=10.0.0.1), without its parentheses.
type Attr struct{ Name, Text string }

// Key returns what f asks for, as dpctl/dump-flows prints it without -m.
func (f *Flow) Key() string {
	words := make([]string, len(f.Attrs))
	for i, a := range f.Attrs {
		words[i] = a.Name + "(" + a.Text + ")"
	}
	return strings.Join(words, ",")
}

// Cookie returns the cookie that Open vSwitch gives the actions of f's filter in TC: the words of the UFID in the order of bytes of a
// little-endian machine. ok is false if f has no UFID.
func (f *Flow) Cookie() (c [16]byte, ok bool) {
	if len(f.UFID) != 2*len(c) {
		return c, false
	}
	for i := range c {
		b, err := strconv.ParseUint(f.UFID[2*i:2*i+2], 16, 8)
		if err != nil {
			return c, false
		}
		c[i&^3+3-i&3] = byte(b)
	}
	return c, true
}

// UFIDOf returns the UFID that a cookie stands for, as Flow.UFID.
func UFIDOf(c [16]byte) string {
	var b strings.Builder
	for i := range c {
		fmt.Fprintf(&b, "%02x", c[i&^3+3-i&3])
	}
	return b.String()
}

// Parse reads the output of dpctl/dump-flows -m. Lines that are no flows, such as headings of threads, are passed over; of a line that
// has no actions or no counters it says so.
func Parse(text string) ([]Flow, error) {
	var flows []Flow
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "flow-dump from ") {
			continue
		}
		f, err := parseFlow(line)
		if err != nil {
			return flows, fmt.Errorf("dpctl flow %.200q: %w", line, err)
		}
		flows = append(flows, f)
	}
	return flows, nil
}

// ParseMissed reads from the output of dpctl/show for how many packets there was no megaflow.
func ParseMissed(text string) (uint64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "lookups:"); ok {
			for word := range strings.FieldsSeq(rest) {
				if n, ok := strings.CutPrefix(word, "missed:"); ok {
					return strconv.ParseUint(n, 10, 64)
				}
			}
		}
	}
	return 0, fmt.Errorf("dpctl: %.200q has no number of lookups that missed", text)
}

func parseFlow(line string) (f Flow, err error) {
	head, actions, ok := strings.Cut(line, ", actions:")
	if !ok {
		return f, fmt.Errorf("no actions")
	}
	f.Actions, f.Reason, _ = strings.Cut(actions, ", dp-extra-info:")
	counted, partly, offloaded, layer := false, false, false, ""
	for word := range strings.SplitSeq(head, ", ") {
		name, value, _ := strings.Cut(word, ":")
		switch name {
		case "ufid":
			f.UFID = strings.ReplaceAll(value, "-", "")
		case "packets":
			f.Packets, err = strconv.ParseUint(value, 10, 64)
			counted = true
		case "bytes":
			f.Bytes, err = strconv.ParseUint(value, 10, 64)
		case "used":
			f.Used = value
		case "offloaded":
			offloaded, partly = value == "yes", value == "partial"
		case "dp":
			layer = value
		default:
			if strings.Contains(word, "(") && f.Attrs == nil {
				f.Attrs, err = parseKey(word)
			}
		}
		if err != nil {
			return f, err
		}
	}
	if !counted {
		return f, fmt.Errorf("no counters")
	}
	switch {
	case offloaded:
		f.Layer = NIC
	case partly:
		f.Layer = Partly
	case layer == "tc":
		f.Layer = TC
	}
	for _, a := range f.Attrs {
		switch a.Name {
		case "in_port":
			f.InPort = unquote(a.Text)
		case "recirc_id":
			n, err := strconv.ParseUint(a.Text, 0, 32)
			if err != nil {
				return f, fmt.Errorf("recirc_id %q", a.Text)
			}
			f.Recirc = uint32(n)
		}
	}
	return f, nil
}

// parseKey reads attributes, and leaves out what has a mask of 0.
func parseKey(s string) ([]Attr, error) {
	var attrs []Attr
	for s != "" {
		name, rest, ok := strings.Cut(s, "(")
		end := closing(rest)
		if !ok || end < 0 {
			return nil, fmt.Errorf("key %.80q", s)
		}
		text := rest[:end]
		if s = rest[end+1:]; s != "" {
			if s, ok = strings.CutPrefix(s, ","); !ok {
				return nil, fmt.Errorf("key %.80q", s)
			}
		}
		if name != "in_port" { // it may have any name
			text = asked(text)
		}
		if text != "" {
			attrs = append(attrs, Attr{name, text})
		}
	}
	return attrs, nil
}

// closing returns where the parenthesis is closed that is open before s, -1 if it is not. Names of ports may be quoted.
func closing(s string) int {
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')' && depth == 0:
			return i
		case c == ')':
			depth--
		}
	}
	return -1
}

// asked returns what is between parentheses without what has a mask of 0.
func asked(text string) string {
	var some []string
	for _, member := range members(text) {
		inner, nested := "", false
		if name, rest, ok := strings.Cut(member, "("); ok {
			inner, nested = strings.CutSuffix(rest, ")")
			if member = name + "(" + asked(inner) + ")"; strings.HasSuffix(member, "()") {
				continue
			}
		}
		if option, ok := strings.CutPrefix(member, "{"); ok { // of a tunnel: {class=,type=,len=,data}{...}
			if !slices.ContainsFunc(strings.Split(option, "{"), func(o string) bool { return asked(strings.TrimSuffix(o, "}")) != "" }) {
				continue
			}
		}
		if _, mask, ok := strings.Cut(member, "/"); !nested && ok && strings.Trim(mask, "0x.: ") == "" {
			continue
		}
		some = append(some, member)
	}
	return strings.Join(some, ",")
}

// members splits what is between parentheses at the commas that are in no others, and in no quotes.
func members(s string) []string {
	var out []string
	depth, begin, quoted := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(', c == '{':
			depth++
		case c == ')', c == '}':
			depth--
		case c == ',' && depth == 0:
			out = append(out, s[begin:i])
			begin = i + 1
		}
	}
	return append(out, s[begin:])
}

// unquote returns the name of a port, which may be quoted.
func unquote(s string) string {
	if name, err := strconv.Unquote(s); err == nil {
		return name
	}
	return s
}
