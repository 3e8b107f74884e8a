package parity_test

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/integration/parity"
	"github.com/offloadd/offloadd/integration/parity/content"
)

var (
	agentFlag = flag.String("parity.agent", string(lab.Offloadd), "the agent that is compared with ovn-controller")
	firstSeed = flag.Uint64("parity.seed", 1, "first seed of the random contents")
	seeds     = flag.Int("parity.seeds", 6, "number of seeds of the random contents")
	beyond    = flag.Bool("parity.beyond", false, "only the contents of content.Beyond, which offloadd is not held to")
	strict    = flag.Bool("parity.strict", false, "let flows count whose actions are out of scope")
)

// TestParity installs each content with ovn-controller and with our agent, on one chassis and one Southbound
// database, and compares the flows. Every second content begins with our agent, so that claims, tunnels and
// conntrack zones are its own work and not what ovn-controller left behind.
func TestParity(t *testing.T) {
	agent, err := lab.ParseAgent(*agentFlag)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, agent)
	missing, present := make(map[string]int), make(map[string]int) // flows by verb of parity.OutOfScope
	contents := content.All(*firstSeed, *seeds)
	if *beyond {
		contents = content.Beyond()
	}
	for i, c := range contents {
		t.Run(c.Name, func(t *testing.T) {
			began := time.Now()
			b := b.in(t)
			b.apply(c)
			var theirs, ours parity.Bridge
			if i%2 == 0 {
				theirs, ours = b.install(lab.OVNController), b.install(agent)
			} else {
				ours, theirs = b.install(agent), b.install(lab.OVNController)
			}
			report := b.compare(theirs, ours, string(agent))
			for verb, n := range report.OutOfScope {
				missing[verb] += n
			}
			for verb, n := range report.InScope {
				present[verb] += n
			}
			if !report.Same() {
				t.Errorf("%s (%s): flows differ\n%s\n%s", c.Name, c.About, report, clip(c.NB+"\n"+c.SB+"\n"+c.VS))
				return
			}
			if n := sum(report.Deviating); n > 0 && !c.Deviates {
				t.Errorf("%s: %d differences pass for deviations %v, and none is due\n%s", c.Name, n, report.Deviating, report)
			}
			t.Logf("%d flows equal, %d out of scope, %d deviating, %d ties, %v", report.Equal,
				sum(report.OutOfScope), sum(report.Deviating), report.Ties, time.Since(began).Round(time.Millisecond))
		})
	}
	for _, v := range parity.OutOfScope() {
		if agent == lab.Offloadd && present[v.Name] > 0 && missing[v.Name] == 0 {
			t.Errorf("%s is encoded: it need not be in parity.OutOfScope any longer", v.Name)
		}
	}
}

// TestOracle is the test of the test: ovn-controller agrees with itself after a restart, and a bridge from which
// one flow is missing, or in which one is changed, is told from it.
func TestOracle(t *testing.T) {
	b := newBench(t, lab.OVNController)
	all := make(map[string]content.Content)
	for _, c := range content.Fixed() {
		all[c.Name] = c
	}
	for _, name := range []string{"acl-conjunctions-shared", "remote-many", "router-remote"} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			b.apply(all[name])
			first, second := b.install(lab.OVNController), b.install(lab.OVNController)
			if r := b.compare(first, second, "the same again"); !r.Same() {
				t.Fatalf("ovn-controller differs from itself:\n%s", r)
			}
			for _, spoil := range [][]string{
				{"--strict", "del-flows", "br-int", "table=65,priority=0"},
				{"add-flow", "br-int", "table=8,priority=1,actions=drop"},
				{"mod-flows", "br-int", "table=64,actions=drop"},
				{"add-group", "br-int", "group_id=77,type=all"},
			} {
				if _, err := b.node.OFctl(t.Context(), spoil...); err != nil {
					t.Fatal(err)
				}
				third := b.dump()
				if r := b.compare(second, third, "spoilt"); r.Same() {
					t.Errorf("after ovs-ofctl %s: the same", strings.Join(spoil, " "))
				}
				second = third
			}
		})
	}
}

// A bench is a lab with one chassis on which one content after another is installed.
type bench struct {
	*labtest.Lab
	node *lab.Node
	ids  string // external_ids of Open_vSwitch as the lab made them

	content content.Content // what apply applied; device(i) is the interface of its i-th local port
}

func newBench(t *testing.T, agent lab.Agent) *bench {
	opts := lab.Options{Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.None}}}
	if agent == lab.Offloadd {
		opts.OffloaddPath = labtest.Offloadd(t)
	}
	l := labtest.Start(t, opts)
	b := &bench{Lab: l, node: l.Node("n1")}
	b.ids = strings.TrimSpace(b.vsctl("get", "open", ".", "external_ids"))
	return b
}

func (b *bench) in(t *testing.T) *bench {
	c := *b
	c.Lab = b.In(t)
	return &c
}

func (b *bench) vsctl(args ...string) string {
	b.T.Helper()
	out, err := b.node.VSctl(b.T.Context(), args...)
	b.Check(err)
	return out
}

// apply replaces whatever the databases hold by c. No agent runs meanwhile.
func (b *bench) apply(c content.Content) {
	b.T.Helper()
	b.NB(`
		--all destroy logical_switch
		--all destroy logical_router
		--all destroy port_group
		--all destroy address_set
		--all destroy static_mac_binding
		--all destroy load_balancer
		--all destroy dhcp_options
		--all destroy dns
		--all destroy meter
		--all destroy copp
		remove nb_global . options default_acl_drop
	`)
	b.northd()
	b.SB(`
		--all destroy chassis_private
		--all destroy chassis
		--all destroy fdb
		--all destroy mac_binding
	`)
	clean := []string{"--if-exists", "del-br", "br-ex", "--", "clear", "bridge", "br-int", "external_ids", "--", "clear", "open", ".", "external_ids", "--", "set", "open", ".", "external_ids=" + b.ids}
	for port := range strings.FieldsSeq(b.vsctl("list-ports", "br-int")) {
		clean = append(clean, "--", "del-port", "br-int", port)
	}
	for i, p := range c.Local {
		clean = append(clean, "--", "add-port", "br-int", device(i),
			"--", "set", "interface", device(i), "type=internal", "external_ids:iface-id="+strconv.Quote(p))
	}
	for line := range strings.Lines(c.VS) {
		if words := strings.Fields(line); len(words) > 0 {
			clean = append(append(clean, "--"), words...)
		}
	}
	b.vsctl(clean...)
	b.NB(c.NB)
	b.northd()
	b.SB(c.SB)
	b.northd()
	b.content = c
}

// device names the interface of the i-th local port.
func device(i int) string { return fmt.Sprintf("v%d", i) }

// ours says whether the chassis is the one to bind a logical port: an ordinary one that asks for no other chassis.
func (b *bench) ours(port string) bool {
	b.T.Helper()
	out := b.SB("--bare --columns=type,options find port_binding logical_port=" + strconv.Quote(strconv.Quote(port)))
	requested := strings.Contains(out, "requested-chassis=") && !strings.Contains(out, "requested-chassis=n1")
	return out != "" && strings.TrimSpace(strings.SplitAfter(out, "\n")[0]) == "" && !requested
}

// northd waits until ovn-northd has caught up.
func (b *bench) northd() {
	b.T.Helper()
	b.NB("--timeout=20 --wait=sb sync")
}

// install lets an agent fill an empty bridge and returns what it installed. Afterwards the agent is gone and its
// rows are there still.
func (b *bench) install(agent lab.Agent) parity.Bridge {
	b.T.Helper()
	for _, command := range []string{"del-flows", "del-groups", "del-meters"} {
		_, err := b.node.OFctl(b.T.Context(), command, "br-int")
		b.Check(err)
	}
	for i := range b.content.Local {
		b.vsctl("remove", "interface", device(i), "external_ids", "ovn-installed")
	}
	b.Check(b.node.StartAgent(agent))
	defer func() { b.Check(b.node.StopAgent(syscall.SIGTERM)) }()
	b.caughtUp(agent)
	for i, p := range b.content.Local {
		if b.ours(p) {
			b.vsctl("wait-until", "interface", device(i), "external_ids:ovn-installed=true")
		}
	}
	return b.settled(agent)
}

// caughtUp waits for the agent's acknowledgement. One that does not come fails the test, but its flows are compared
// all the same.
func (b *bench) caughtUp(agent lab.Agent) {
	b.T.Helper()
	if b.T.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(b.T.Context(), 10*time.Second)
	defer cancel()
	if err := b.Lab.Lab.Sync(ctx); err != nil {
		b.T.Errorf("%s: %v", agent, err)
	}
}

// settled returns the flows once they no longer change: a claim changes logical flows, and an agent that has just
// started acknowledges what it knows, which at first is not everything.
func (b *bench) settled(agent lab.Agent) parity.Bridge {
	b.T.Helper()
	const quiet, most = 100 * time.Millisecond, 20 * time.Second
	began := time.Now()
	bridge := b.dump()
	for since := time.Now(); time.Since(since) < quiet || len(bridge.Flows) == 0; {
		b.caughtUp(agent)
		// ovs-vsctl waits until ovs-vswitchd has made the tunnels the agent asked for.
		b.vsctl("set", "bridge", "br-phy", fmt.Sprintf("other_config:parity=%d", time.Now().UnixNano()))
		b.caughtUp(agent)
		next := b.dump()
		if next.String() != bridge.String() {
			bridge, since = next, time.Now()
		}
		if time.Since(began) > most {
			b.T.Fatalf("the flows still change after %v", most)
		}
	}
	return bridge
}

func (b *bench) dump() parity.Bridge {
	b.T.Helper()
	ctx, cancel := context.WithTimeout(b.T.Context(), 20*time.Second)
	defer cancel()
	d, err := parity.Source{Database: b.node.OVSRemote(), Bridge: "br-int"}.Dump(ctx)
	b.Check(err)
	if b.content.AnyTunnel {
		for n, name := range d.Ports {
			d.Ports[n], _, _ = strings.Cut(name, "@") // a tunnel's name is chassis@address
		}
	}
	bridge, err := parity.Normalise(d, false)
	b.Check(err)
	return bridge
}

func (b *bench) compare(reference, other parity.Bridge, name string) parity.Report {
	b.T.Helper()
	lflows, err := parity.ReadLflows(b.T.Context(), b.SBRemote())
	b.Check(err)
	opts := parity.Options{A: "ovn-controller", B: name, Lflows: lflows, Most: 6}
	if !*strict {
		opts.OutOfScope, opts.Deviations = parity.OutOfScope(), parity.Deviations()
	}
	return parity.Compare(reference, other, opts)
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// clip shortens a script for a test's output.
func clip(s string) string {
	const most = 4000
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
