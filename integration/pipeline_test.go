package integration

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/integration/parity"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// A quotation is a fenced block of docs/pipeline.md. Its language says what it quotes.
type quotation struct {
	line     int    // in the document, from 1
	language string // the word after the opening fence
	section  string // the heading above it
	text     string
}

const pipelineDoc = "../docs/pipeline.md"

func quotations(t *testing.T) []quotation {
	t.Helper()
	text, err := os.ReadFile(pipelineDoc)
	if err != nil {
		t.Fatal(err)
	}
	var all []quotation
	var section string
	var block *quotation
	for i, line := range strings.Split(string(text), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && block == nil:
			block = &quotation{line: i + 1, language: fence, section: section}
		case isFence:
			block.text = strings.TrimSuffix(block.text, "\n")
			all = append(all, *block)
			block = nil
		case block != nil:
			block.text += line + "\n"
		case strings.HasPrefix(line, "#"):
			section = strings.TrimLeft(line, "# ")
		}
	}
	return all
}

// quoted returns the only quotation of that language.
func quoted(t *testing.T, all []quotation, language string) string {
	t.Helper()
	var text []string
	for _, q := range all {
		if q.language == language {
			text = append(text, q.text)
		}
	}
	if len(text) != 1 {
		t.Fatalf("%s: %d quotations of kind %q, want one", pipelineDoc, len(text), language)
	}
	return text[0]
}

// What the document says of one rule on its way through pkg/logical and pkg/openflow is what these say.
func TestPipelineDocRule(t *testing.T) {
	all := quotations(t)
	lflow := regexp.MustCompile(`table=(\d+) .*match=\((.*)\), action=\((.*)\)$`).FindStringSubmatch(quoted(t, all, "lflow"))
	if lflow == nil {
		t.Fatal("the quoted logical flow is not one")
	}
	table, err := strconv.ParseUint(lflow[1], 10, 8)
	if err != nil {
		t.Fatal(err)
	}
	actions, err := logical.ParseActions(lflow[3], logical.Symbols(),
		logical.ActionOptions{At: logical.Stage{Pipeline: logical.Egress, Table: uint8(table)}, Tables: 22})
	if err != nil {
		t.Fatal(err)
	}
	expr, err := logical.ParseMatch(lflow[2], logical.Symbols(), docSets{}, actions.Prereqs...)
	if err != nil {
		t.Fatal(err)
	}
	matches, err := expr.Matches(nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"expression": expr.String()}
	var text []string
	var last ir.Match
	matches.ForDatapath(func(string) (uint32, bool) { return 1, true }, func(m logical.FlowMatch) {
		line := openflow.FormatMatch(m.Match)
		for _, c := range m.Conj {
			line += fmt.Sprintf(" conjunction(%d,%d/%d)", c.ID, c.Clause+1, c.N)
		}
		text = append(text, line)
		last = m.Match.Eq(ir.Metadata, 1)
	})
	got["matches"] = strings.Join(text, "\n")
	got["ir"] = fmt.Sprint(last)
	got["oxm"] = fmt.Sprintf("%x", openflow.AppendMatch(nil, last))
	text = nil
	for _, a := range actions.List {
		text = append(text, fmt.Sprintf("%T%+v", a, a))
	}
	got["actions"] = strings.Join(text, "\n")
	for language, is := range got {
		if diff := cmp.Diff(strings.Split(quoted(t, all, language), "\n"), strings.Split(is, "\n")); diff != "" {
			t.Errorf("%s, %s (-quoted +is):\n%s", pipelineDoc, language, diff)
		}
	}
}

// docSets are the sets of the document's network.
type docSets struct{}

func (docSets) AddressSet(name string) ([]logical.Constant, bool) {
	set, _ := logical.ParseAddressSet([]string{"10.0.0.12", "10.0.1.0/28"})
	return set, name == "clients"
}

func (docSets) PortGroup(name string) ([]string, bool) { return []string{"web"}, name == "pg_web" }

// What the document quotes of a node is on that node, in the tables where it says; and it has every table.
func TestPipelineDocNode(t *testing.T) {
	all := quotations(t)
	l := labtest.Start(t, lab.Options{Nodes: []lab.NodeConfig{{Name: "n1", Agent: agent(t)}, {Name: "n2", Agent: lab.OVNController}}})
	l.NB(quoted(t, all, "ovn-nbctl"))
	pod := func(node, name, mac, ip string) *lab.Pod {
		return l.AddPod(node, lab.PodConfig{Name: name, MAC: mac, IPs: []netip.Prefix{netip.MustParsePrefix(ip)}})
	}
	l.WaitInstalled(
		pod("n1", "web", "50:54:00:00:00:01", "10.0.0.11/24"),
		pod("n2", "client", "50:54:00:00:00:02", "10.0.0.12/24"),
		pod("n2", "db", "50:54:00:00:00:03", "10.0.1.13/24"))
	l.SB(quoted(t, all, "ovn-sbctl"))
	l.Sync()

	lflows, err := l.Lab.SB(t.Context(), "lflow-list")
	l.Check(err)
	if q := quoted(t, all, "lflow"); !strings.Contains(lflows, q) {
		t.Errorf("the Southbound has no logical flow %s", q)
	}
	n1 := l.Node("n1")
	dump, err := parity.Source{Database: n1.OVSRemote(), Bridge: "br-int"}.Dump(t.Context())
	l.Check(err)
	bridge, err := parity.Normalise(dump, true)
	l.Check(err)
	checkFlows(t, all, bridge)
	checkStages(t, lflows)

	trace, err := n1.AppCtl(t.Context(), "ofproto/trace", "br-int", "in_port=ovn-n2-0,tun_id=1,tun_metadata0=0x20001,"+
		"dl_src=50:54:00:00:00:02,dl_dst=50:54:00:00:00:01,tcp,nw_src=10.0.0.12,nw_dst=10.0.0.11,nw_ttl=64,tp_dst=80",
		"--ct-next", "trk,new")
	l.Check(err)
	if diff := cmp.Diff(strings.Split(quoted(t, all, "trace"), "\n"), traceTables(trace)); diff != "" {
		t.Errorf("%s, trace (-quoted +is):\n%s", pipelineDoc, diff)
	}
}

var reUUID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// checkFlows compares the quoted flows with those of the node, and the tables that have flows with the sections.
func checkFlows(t *testing.T, all []quotation, bridge parity.Bridge) {
	t.Helper()
	installed, documented := map[string]bool{}, map[int]bool{}
	for _, f := range bridge.Flows {
		installed[reUUID.ReplaceAllString(f.String(), "UUID")] = true
	}
	for _, q := range all {
		if q.language != "flows" {
			continue
		}
		tables := sectionTables(q.section)
		for line := range strings.Lines(q.text) {
			f, err := parity.ParseFlow(line)
			if err != nil {
				t.Errorf("%s:%d: %v", pipelineDoc, q.line, err)
				continue
			}
			if !installed[strings.TrimSpace(line)] {
				t.Errorf("%s:%d: the node has no flow %s", pipelineDoc, q.line, line)
			}
			if len(tables) > 0 && !slices.Contains(tables, f.Table) {
				t.Errorf("%s:%d: a flow of table %d in section %q", pipelineDoc, q.line, f.Table, q.section)
			}
			for _, table := range tables {
				documented[table] = true
			}
		}
	}
	for _, f := range bridge.Flows {
		if !documented[f.Table] {
			t.Errorf("%s shows no flow of table %d, such as %v", pipelineDoc, f.Table, f)
			documented[f.Table] = true
		}
	}
}

// sectionTables returns the tables in a heading such as "8 to 36: ...", "0: ..." or "76, 77, 78: ...", or nothing.
func sectionTables(heading string) []int {
	numbers, _, ok := strings.Cut(heading, ":")
	if !ok {
		return nil
	}
	if first, last, ok := strings.Cut(numbers, " to "); ok {
		a, errA := strconv.Atoi(first)
		b, errB := strconv.Atoi(last)
		if errA != nil || errB != nil {
			return nil
		}
		var tables []int
		for i := a; i <= b; i++ {
			tables = append(tables, i)
		}
		return tables
	}
	var tables []int
	for n := range strings.SplitSeq(numbers, ", ") {
		table, err := strconv.Atoi(n)
		if err != nil {
			return nil
		}
		tables = append(tables, table)
	}
	return tables
}

// checkStages compares the lists of stages with the logical flows: no stage is missing, and none is elsewhere.
func checkStages(t *testing.T, lflows string) {
	t.Helper()
	listed, exist := map[string]bool{}, map[string]bool{}
	text, err := os.ReadFile(pipelineDoc)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| (\w*) \| (\w*) \|$`).FindAllStringSubmatch(string(text), -1) {
		for _, stage := range row[2:] {
			if stage != "" {
				listed[row[1]+" "+stage] = true
			}
		}
	}
	for _, f := range regexp.MustCompile(`table=(\d+) *\((l[sr]_(in|out)_\w+)`).FindAllStringSubmatch(lflows, -1) {
		table, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatal(err)
		}
		first := map[string]int{"in": 8, "out": 42}[f[3]]
		exist[fmt.Sprintf("%d %s", first+table, f[2])] = true
	}
	if diff := cmp.Diff(listed, exist); diff != "" {
		t.Errorf("%s: stages (-listed +in the Southbound):\n%s", pipelineDoc, diff)
	}
}

var (
	reTraceTable = regexp.MustCompile(`^ *\d+\. `)
	reTraceOwn   = regexp.MustCompile(`, cookie 0x[0-9a-f]+$|conj_id=\d+,|in_port=\d+, `)
)

// traceTables returns the lines of ofproto/trace that name a table, without the numbers that differ from node to node.
func traceTables(trace string) []string {
	var lines []string
	for line := range strings.SplitSeq(trace, "\n") {
		if strings.Contains(line, "resume conntrack") {
			lines = append(lines, "    conntrack")
		}
		if reTraceTable.MatchString(line) {
			lines = append(lines, reTraceOwn.ReplaceAllString(line, ""))
		}
	}
	return lines
}
