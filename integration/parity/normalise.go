package parity

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Bridge is a dump in which every arbitrary number has become a name.
type Bridge struct {
	Flows []Flow // ordered by table, then falling priority, then match

	// Unused lists groups and meters no flow refers to, sorted: what an agent leaked.
	Unused []string
}

// Normalise gives canonical names to what an agent may choose freely; without cookies if ignoreCookies, as
// between bridges whose Southbound rows have different UUIDs. A number that stands for nothing
// (an output to a port that is not there, a group that does not exist) keeps its digits and gets a question
// mark, so that it differs from everything that does exist.
func Normalise(d Dump, ignoreCookies bool) (Bridge, error) {
	flows, err := parseFlows(d.Flows)
	if err != nil {
		return Bridge{}, err
	}
	groups, err := parseGroups(d.Groups)
	if err != nil {
		return Bridge{}, err
	}
	meters, err := parseMeters(d.Meters)
	if err != nil {
		return Bridge{}, err
	}
	tlvs, err := parseTLVs(d.TLVs)
	if err != nil {
		return Bridge{}, err
	}

	n := names{ports: d.Ports, zones: d.Zones, tlvs: tlvs, meters: meters, groups: groups}
	used := references{groups: make(map[uint64]bool), meters: make(map[uint64]bool)}
	for i := range flows {
		f := &flows[i]
		if ignoreCookies {
			f.Cookie = 0
		}
		used.collect(f.Actions)
		f.Match = n.rename(f.Match, 0)
		f.Actions = n.rename(f.Actions, 0)
	}
	for id := range used.groups {
		used.collect(groups[id])
	}
	nameConjunctions(flows)
	slices.SortFunc(flows, compareFlows)

	b := Bridge{Flows: flows}
	for id, content := range groups {
		if !used.groups[id] {
			b.Unused = append(b.Unused, "group "+n.rename(content, 0))
		}
	}
	for id, content := range meters {
		if !used.meters[id] {
			b.Unused = append(b.Unused, "meter "+content)
		}
	}
	slices.Sort(b.Unused)
	return b, nil
}

// compareFlows orders flows as they are printed: by table, highest priority first, then by text.
func compareFlows(a, b Flow) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(b.Priority, a.Priority),
		cmp.Compare(a.Match, b.Match), cmp.Compare(a.Actions, b.Actions), cmp.Compare(a.Cookie, b.Cookie))
}

// reArbitrary finds the arbitrary numbers of a match or an action list: ports (but not the named ones, LOCAL or
// IN_PORT), groups, meters, tunnel options, what is loaded into registers 11 to 13, which hold conntrack zones and nothing
// else since logical flows cannot name them, and, last, the meter of a controller action in the user data of another
// (NXAC2PT_METER_ID).
var reArbitrary = regexp.MustCompile(`\b(?:` +
	`(in_port=|output:|watch_port:|members:|group:|meter:|meter_id=|tun_metadata|NXM_NX_TUN_METADATA)(\d+(?:,\d+)*)|` +
	`(set_field:|load:)(0x[0-9a-f]+|\d+)(->(?:reg1[123]\b|NXM_NX_REG1[123]\[\]))|` +
	`(00\.05\.00\.08\.)([0-9a-f]{2}\.[0-9a-f]{2}\.[0-9a-f]{2}\.[0-9a-f]{2}))`)

var (
	reGroup = regexp.MustCompile(`\bgroup:(\d+)\b`)
	reMeter = regexp.MustCompile(`\b(meter:|meter_id=)(\d+)\b`)
)

// names holds what each arbitrary number of one bridge stands for.
type names struct {
	ports, zones, tlvs, meters, groups map[uint64]string
}

// rename names the numbers in s, a match or an action list, in one pass: a name that looks like an action stays
// as it is. Depth counts groups in groups, which OpenFlow allows and OVN does not use.
func (n names) rename(s string, depth int) string {
	s = replace(reArbitrary, s, func(m []string) string {
		key, number := m[1], m[2]
		switch {
		case key != "":
		case m[6] != "":
			id, err := strconv.ParseUint(strings.ReplaceAll(m[7], ".", ""), 16, 32)
			if _, ok := n.meters[id]; err != nil || !ok {
				return m[0] // it only looks like one
			}
			return m[6] + lookup(n.meters, strconv.FormatUint(id, 10))
		default: // a register
			if v, err := strconv.ParseUint(m[4], 0, 32); err == nil && v == 0 {
				return m[0]
			}
			return m[3] + "zone " + lookup(n.zones, m[4]) + m[5]
		}
		switch key {
		case "members:":
			members := strings.Split(number, ",") // their order is that of preference
			for i, p := range members {
				members[i] = lookup(n.ports, p)
			}
			return key + strings.Join(members, ",")
		case "group:":
			id, err := strconv.ParseUint(number, 10, 32)
			content, ok := n.groups[id]
			if err != nil || !ok || depth > 3 {
				return key + "?" + number
			}
			return key + "(" + n.rename(content, depth+1) + ")"
		case "meter:", "meter_id=":
			return key + lookup(n.meters, number)
		case "tun_metadata", "NXM_NX_TUN_METADATA":
			return key + "(" + lookup(n.tlvs, number) + ")"
		default:
			return key + lookup(n.ports, number)
		}
	})
	return sortOutputs(s)
}

// lookup names a number: the quoted name, or ?digits when it stands for nothing.
func lookup(names map[uint64]string, digits string) string {
	v, err := strconv.ParseUint(digits, 0, 64)
	name, ok := names[v]
	if err != nil || !ok {
		return "?" + digits
	}
	return strconv.Quote(name)
}

// replace substitutes each match of re in s by what f makes of its submatches.
func replace(re *regexp.Regexp, s string, f func(m []string) string) string {
	return re.ReplaceAllStringFunc(s, func(m string) string { return f(re.FindStringSubmatch(m)) })
}

// sortOutputs orders what has no order: adjacent outputs, and adjacent encapsulations with their outputs. A broadcast
// to several chassis may start with any of them.
func sortOutputs(s string) string {
	list := splitActions(s)
	for i, a := range list {
		if inner, ok := strings.CutPrefix(a, "clone("); ok {
			list[i] = "clone(" + sortOutputs(strings.TrimSuffix(inner, ")")) + ")"
		}
	}
	var sorted []string
	for len(list) > 0 {
		outputs := make(map[string][]string) // by the encapsulation before them, which may be none
		rest := list
		for {
			encap, out, after := cutOutputs(rest)
			if len(out) == 0 {
				break
			}
			outputs[encap] = append(outputs[encap], out...)
			rest = after
		}
		for _, encap := range slices.Sorted(maps.Keys(outputs)) {
			if encap != "" {
				sorted = append(sorted, encap)
			}
			sorted = append(sorted, slices.Sorted(slices.Values(outputs[encap]))...)
		}
		if len(rest) > 0 {
			sorted, rest = append(sorted, rest[0]), rest[1:]
		}
		list = rest
	}
	return strings.Join(sorted, ",")
}

// cutOutputs splits off an encapsulation and the outputs that follow it. An encapsulation begins with the tunnel
// key and goes on with the tunnel's options.
func cutOutputs(list []string) (encap string, outputs, rest []string) {
	n := 0
	if len(list) > 0 && strings.HasSuffix(list[0], "->tun_id") {
		n++
		for n < len(list) && strings.Contains(strings.ToLower(list[n]), "tun_metadata") {
			n++
		}
	}
	end := n
	for end < len(list) && strings.HasPrefix(list[end], "output:") {
		end++
	}
	return strings.Join(list[:n], ","), list[n:end], list[end:]
}

// splitActions splits a list of actions at its commas, but not at those inside parentheses or quoted names.
func splitActions(s string) []string {
	var list []string
	depth, start, quoted := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			list = append(list, s[start:i])
			start = i + 1
		}
	}
	return append(list, s[start:])
}

// references collects which groups and meters are in use.
type references struct{ groups, meters map[uint64]bool }

func (r references) collect(actions string) {
	for _, m := range reGroup.FindAllStringSubmatch(actions, -1) {
		if id, err := strconv.ParseUint(m[1], 10, 32); err == nil {
			r.groups[id] = true
		}
	}
	for _, m := range reMeter.FindAllStringSubmatch(actions, -1) {
		if id, err := strconv.ParseUint(m[2], 10, 32); err == nil {
			r.meters[id] = true
		}
	}
}

// String prints the whole bridge, one flow a line.
func (b Bridge) String() string {
	var s strings.Builder
	for _, f := range b.Flows {
		fmt.Fprintln(&s, f)
	}
	for _, u := range b.Unused {
		fmt.Fprintln(&s, "unused", u)
	}
	return s.String()
}
