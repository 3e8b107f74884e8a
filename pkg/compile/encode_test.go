package compile

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// testDHCPOptions and testDHCPv6Options are the DHCP options that the tests' actions use.
var (
	testDHCPOptions = map[string]logical.OptionDef{
		"offerip":                {Code: 0, Type: "ipv4"},
		"netmask":                {Code: 1, Type: "ipv4"},
		"router":                 {Code: 3, Type: "ipv4"},
		"hostname":               {Code: 12, Type: "str"},
		"ip_forward_enable":      {Code: 19, Type: "bool"},
		"mtu":                    {Code: 26, Type: "uint16"},
		"tftp_server":            {Code: 66, Type: "host_id"},
		"domain_search_list":     {Code: 119, Type: "domains"},
		"classless_static_route": {Code: 121, Type: "static_routes"},
	}
	testDHCPv6Options = map[string]logical.OptionDef{
		"server_id":     {Code: 2, Type: "mac"},
		"ia_addr":       {Code: 5, Type: "ipv6"},
		"dns_server":    {Code: 23, Type: "ipv6"},
		"domain_search": {Code: 24, Type: "str"},
	}
)

// parseInput splits an input such as "[rt egress 3; ip4] next;" of a golden file. What the brackets leave out, and the
// brackets themselves, default to datapath sw, pipeline ingress, table 10 and the match "1". The word metered gives the
// flow a controller_meter.
func parseInput(t *testing.T, text string) oracleFlow {
	t.Helper()
	f := oracleFlow{dp: "sw", table: 10, match: "1", actions: text}
	inner, ok := strings.CutPrefix(text, "[")
	if !ok {
		return f
	}
	head, rest, _ := strings.Cut(inner, "] ")
	head, match, ok := strings.Cut(head, "; ")
	f.actions = rest
	if ok {
		f.match = match
	}
	for word := range strings.FieldsSeq(head) {
		switch word {
		case "sw", "rt", "gw":
			f.dp = word
		case "ingress", "egress":
			f.egress = word == "egress"
		case "metered":
			f.meter = oracleMeter
		default:
			if _, err := fmt.Sscan(word, &f.table); err != nil {
				t.Fatalf("input %q: %v", text, err)
			}
		}
	}
	return f
}

// inputs returns the inputs of a golden file.
func inputs(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var in []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "    ") {
			in = append(in, line)
		}
	}
	return in
}

func (f oracleFlow) parse() (logical.Actions, error) {
	opts := logical.ActionOptions{
		At: logical.Stage{Table: f.table}, Tables: ingressTables, DHCPv4: testDHCPOptions, DHCPv6: testDHCPv6Options,
	}
	if f.egress {
		opts.At.Pipeline = logical.Egress
	}
	return logical.ParseActions(f.actions, logical.Symbols(), opts)
}

const testCookie = 0xc00c1e

// encodeText encodes the actions of f. Groups follow on lines of their own, numbered from 1.
func encodeText(f oracleFlow) string {
	acts, err := f.parse()
	if err != nil {
		return "error: " + err.Error()
	}
	var groups []ir.SelectGroup
	rules, err := encode(acts, encodeContext{
		IsSwitch:          f.dp == "sw",
		DatapathKey:       map[string]uint32{"sw": 1, "rt": 2, "gw": 3}[f.dp],
		Cookie:            testCookie,
		SNATZoneRequested: f.dp == "gw",
		CTZeroSNAT:        true,
		HashL4Sym:         true,
		Port: func(name string) (uint32, bool) {
			key, ok := oracleKeys[f.dp][name]
			return key, ok
		},
		Group: func(g ir.SelectGroup) uint32 {
			groups = append(groups, g)
			return uint32(len(groups))
		},
		RateMeter:       func(uint64, uint64) uint32 { return 1 },
		NamedMeter:      func(string) uint32 { return 1 },
		ControllerMeter: f.meter,
		TunnelTo:        func(string) (uint32, bool) { return 0, false },
		Collector:       func(set uint32) bool { return set == 1 },
	})
	if _, ok := errors.AsType[*Unsupported](err); ok {
		return "unsupported: " + err.Error()
	}
	matches, err := matchTexts(f.match, acts.Prereqs)
	if err != nil {
		return "error: " + err.Error()
	}
	out := whereText(matches) + openflow.FormatActions(rules)
	for i := range groups {
		out += "\n" + openflow.FormatGroup(uint32(i+1), &groups[i])
	}
	return out
}

// matchTexts returns the matches, without metadata, of the rules of a logical flow.
func matchTexts(match string, prereqs []string) ([]string, error) {
	expr, err := logical.ParseMatch(match, logical.Symbols(), nil, prereqs...)
	if err != nil {
		return nil, err
	}
	matches, err := expr.Matches(nil)
	if err != nil {
		return nil, err
	}
	var texts []string
	matches.ForDatapath(nil, func(m logical.FlowMatch) { texts = append(texts, openflow.FormatMatch(m.Match)) })
	return texts, nil
}

// whereText says on a line of its own which packets match, unless all do.
func whereText(matches []string) string {
	if slices.Equal(matches, []string{""}) {
		return ""
	}
	slices.Sort(matches)
	return "where " + strings.Join(matches, " or ") + "\n"
}

func TestEncode(t *testing.T) {
	golden.Run(t, "testdata/encode.txt", func(in string) string { return encodeText(parseInput(t, in)) })
}

var (
	groupID = regexp.MustCompile(`\bgroup:(\d+)`)
	// The last is that of a controller action in the user data of another (NXAC2PT_METER_ID).
	meterID = regexp.MustCompile(`\b(meter:|meter_id=)\d+|\b(00\.05\.00\.08\.00\.00\.00\.)0[1-9]\b`)
)

// TestEncodeAsOVNController asks ovn-controller(8) for the expectations of TestEncode.
func TestEncodeAsOVNController(t *testing.T) {
	const first = 20000 // above the priorities of the rules that ovn-controller makes by itself
	in := inputs(t, "testdata/encode.txt")
	flows := make([]oracleFlow, len(in))
	index := map[string]int{}
	for i, text := range in {
		flows[i] = parseInput(t, text)
		index[text] = i
	}
	c := startOVNController(t)
	c.add(first, flows)
	c.addCollectorSet()
	rules, groups := c.rules(first, len(in)), c.groups()
	golden.Run(t, "testdata/encode.txt", func(text string) string {
		i := index[text]
		r, ok := rules[first+i]
		if !ok {
			return fmt.Sprintf("no rule; %q", c.refusals(flows[i].actions))
		}
		return r.text(groups)
	})
}

// text returns what encodeText returns for the logical flow. groups are the definitions of groups by identifier.
func (r oracleRules) text(groups map[string]string) string {
	out := strings.ReplaceAll(r.actions, fmt.Sprint("obs_point_id=", r.cookie), fmt.Sprint("obs_point_id=", testCookie))
	out = meterID.ReplaceAllStringFunc(out, func(s string) string {
		m := meterID.FindStringSubmatch(s)
		if m[2] != "" {
			return m[2] + "01"
		}
		return m[1] + "1"
	})
	var defs strings.Builder
	n := 0
	out = groupID.ReplaceAllStringFunc(out, func(s string) string {
		n++
		fmt.Fprintf(&defs, "\ngroup_id=%d,%s", n, groups[strings.TrimPrefix(s, "group:")])
		return fmt.Sprint("group:", n)
	})
	return whereText(r.matches) + out + defs.String()
}
