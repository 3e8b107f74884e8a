package parity

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// A Dump is one bridge as the tools of Open vSwitch print it. The texts are the output of
// ovs-ofctl -O OpenFlow15 --no-names (and --no-stats for the flows); their header lines may be there.
type Dump struct {
	Flows  string // dump-flows
	Groups string // dump-groups
	Meters string // dump-meters
	TLVs   string // dump-tlv-map

	// Ports names each OpenFlow port number by something that means the same on every bridge of
	// this chassis: the logical port of an interface, the remote chassis of a tunnel.
	Ports map[uint64]string

	// Zones names each conntrack zone by its key, the part after "ct-zone-" in the bridge's external_ids.
	Zones map[uint64]string
}

// A Flow is one flow entry. Table, Priority and Match identify it within its bridge.
type Flow struct {
	Table    int
	Priority int    // larger wins; 32768 when the dump does not say
	Match    string // comma list as ovs-ofctl prints it; "" matches every packet
	Cookie   uint64
	Extra    string // timeouts, importance and flags, as printed; mostly ""
	Actions  string
}

// String prints f as ovs-ofctl dump-flows --no-stats does, but always with its table.
func (f Flow) String() string {
	var b strings.Builder
	if f.Cookie != 0 {
		fmt.Fprintf(&b, "cookie=%#x, ", f.Cookie)
	}
	fmt.Fprintf(&b, "table=%d, ", f.Table)
	if f.Extra != "" {
		fmt.Fprintf(&b, "%s, ", f.Extra)
	}
	fmt.Fprintf(&b, "priority=%d", f.Priority)
	if f.Match != "" {
		b.WriteString("," + f.Match)
	}
	b.WriteString(" actions=" + f.Actions)
	return b.String()
}

// defaultPriority is OFP_DEFAULT_PRIORITY, which ovs-ofctl leaves out.
const defaultPriority = 32768

// ParseFlow reads one line of ovs-ofctl dump-flows --no-stats.
func ParseFlow(line string) (Flow, error) {
	head, actions, ok := strings.Cut(strings.TrimSpace(line), "actions=")
	if !ok {
		return Flow{}, fmt.Errorf("parity: parse flow %q: no actions", line)
	}
	f := Flow{Priority: defaultPriority, Actions: actions}
	var extra []string
	for section := range strings.SplitSeq(strings.TrimSpace(head), ", ") {
		for word := range strings.FieldsSeq(section) {
			word = strings.TrimSuffix(word, ",")
			key, value, _ := strings.Cut(word, "=")
			var err error
			switch key {
			case "cookie":
				f.Cookie, err = strconv.ParseUint(value, 0, 64)
			case "table":
				f.Table, err = strconv.Atoi(value)
			case "priority":
				p, match, _ := strings.Cut(value, ",")
				f.Match = match
				f.Priority, err = strconv.Atoi(p)
			case "idle_timeout", "hard_timeout", "importance", "out_port", "out_group",
				"send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts", "no_byte_counts":
				extra = append(extra, word)
			default: // a match without a priority before it
				f.Match = word
			}
			if err != nil {
				return Flow{}, fmt.Errorf("parity: parse flow %q: %w", line, err)
			}
		}
	}
	f.Extra = strings.Join(extra, ", ")
	return f, nil
}

// parseFlows reads the output of ovs-ofctl dump-flows, skipping its header lines.
func parseFlows(text string) ([]Flow, error) {
	var flows []Flow
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || isReplyHeader(line) {
			continue
		}
		f, err := ParseFlow(line)
		if err != nil {
			return nil, err
		}
		flows = append(flows, f)
	}
	return flows, nil
}

// parseGroups reads the output of ovs-ofctl dump-groups into the text of each group without its id.
func parseGroups(text string) (map[uint64]string, error) {
	groups := make(map[uint64]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || isReplyHeader(line) {
			continue
		}
		rest, ok := strings.CutPrefix(line, "group_id=")
		id, content, comma := strings.Cut(rest, ",")
		n, err := strconv.ParseUint(id, 10, 32)
		if !ok || !comma || err != nil {
			return nil, fmt.Errorf("parity: parse group %q: no group_id", line)
		}
		groups[n] = content
	}
	return groups, nil
}

// parseMeters reads the output of ovs-ofctl dump-meters into the text of each meter without its id.
// A meter is one line with its flags, then one line for each band.
func parseMeters(text string) (map[uint64]string, error) {
	meters := make(map[uint64]string)
	current, open := uint64(0), false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || isReplyHeader(line) {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "meter="); ok {
			id, content, _ := strings.Cut(rest, " ")
			n, err := strconv.ParseUint(id, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("parity: parse meter %q: %w", line, err)
			}
			meters[n] = content
			current, open = n, true
			continue
		}
		if !open {
			return nil, fmt.Errorf("parity: parse meter %q: a band before the first meter", line)
		}
		meters[current] += " " + line
	}
	return meters, nil
}

// parseTLVs reads the output of ovs-ofctl dump-tlv-map: option by the number of its tun_metadata field.
func parseTLVs(text string) (map[uint64]string, error) {
	tlvs := make(map[uint64]string)
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 4 || !strings.HasPrefix(words[3], "tun_metadata") {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(words[3], "tun_metadata"), 10, 8)
		if err != nil {
			return nil, fmt.Errorf("parity: parse tlv map %q: %w", strings.TrimSpace(line), err)
		}
		tlvs[n] = strings.Join(words[:3], "/")
	}
	return tlvs, nil
}

func isReplyHeader(line string) bool {
	return strings.HasPrefix(line, "OFPST_") || strings.HasPrefix(line, "NXST_") || strings.HasPrefix(line, "NXT_")
}

// Clone returns a copy of d that shares no map with it.
func (d Dump) Clone() Dump {
	d.Ports, d.Zones = maps.Clone(d.Ports), maps.Clone(d.Zones)
	return d
}
