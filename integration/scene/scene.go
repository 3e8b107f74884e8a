// Package scene is a network for demonstrations and tests of connectivity: two switches behind a router, a workload
// of each on every node, a policy of stateful ACLs, and the questions who reaches whom.
package scene

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/offloadd/offloadd/integration/lab"
)

// A Scene is the network for some nodes.
type Scene struct {
	// Workloads are web1, web2, ... and db1, db2, ..., with a node's number each.
	Workloads []Workload

	nodes []lab.NodeConfig
}

// A Workload is a pod to be.
type Workload struct {
	Name string // of the logical switch port too
	Node string

	net   int // 1 is the switch web, 2 is db
	index int // of the node, from 1
}

// New describes the scene for one to nine nodes.
func New(nodes []lab.NodeConfig) Scene {
	s := Scene{nodes: nodes}
	for net, tier := range []string{"web", "db"} {
		for i, n := range nodes {
			s.Workloads = append(s.Workloads, Workload{Name: fmt.Sprintf("%s%d", tier, i+1), Node: n.Name, net: net + 1, index: i + 1})
		}
	}
	return s
}

func (w Workload) mac() string { return fmt.Sprintf("50:54:00:00:0%d:0%d", w.net, w.index) }

// IP is the workload's address of a family.
func (w Workload) IP(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("fd10:%d::1%d", w.net, w.index))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.%d.0.1%d", w.net, w.index))
}

func (w Workload) config() lab.PodConfig {
	return lab.PodConfig{
		Name: w.Name, MAC: w.mac(),
		IPs: []netip.Prefix{netip.PrefixFrom(w.IP(false), 24), netip.PrefixFrom(w.IP(true), 64)},
		Gateways: []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", w.net)),
			netip.MustParseAddr(fmt.Sprintf("fd10:%d::1", w.net)),
		},
	}
}

// Names lists the workloads.
func (s Scene) Names() []string {
	var names []string
	for _, p := range s.Workloads {
		names = append(names, p.Name)
	}
	return names
}

const topology = `
	lr-add r0
	ls-add web
	lrp-add r0 r0-web 50:54:00:00:01:ff 10.1.0.1/24 fd10:1::1/64
	lsp-add web web-r0 -- lsp-set-type web-r0 router -- lsp-set-addresses web-r0 router -- lsp-set-options web-r0 router-port=r0-web
	ls-add db
	lrp-add r0 r0-db 50:54:00:00:02:ff 10.2.0.1/24 fd10:2::1/64
	lsp-add db db-r0 -- lsp-set-type db-r0 router -- lsp-set-addresses db-r0 router -- lsp-set-options db-r0 router-port=r0-db
`

// policy is what Allowed says in Go.
const policy = `
	# db listens to web on PostgreSQL's port and answers its pings, and to db on everything.
	acl-add pg_db to-lport 1001 'outport == @pg_db && ip4.src == $pg_web_ip4 && (icmp4 || tcp.dst == 5432)' allow-related
	acl-add pg_db to-lport 1001 'outport == @pg_db && ip6.src == $pg_web_ip6 && (icmp6 || tcp.dst == 5432)' allow-related
	acl-add pg_db to-lport 1001 'outport == @pg_db && (ip4.src == $pg_db_ip4 || ip6.src == $pg_db_ip6)' allow-related
	acl-add pg_db to-lport 1000 'outport == @pg_db && ip' drop
	# db opens no connection to anybody but db; its answers pass, for the ACLs above are stateful.
	acl-add pg_db from-lport 1001 'inport == @pg_db && (ip4.dst == $pg_db_ip4 || ip6.dst == $pg_db_ip6)' allow-related
	acl-add pg_db from-lport 1000 'inport == @pg_db && ip' drop
`

// Northbound is the scene as ovn-nbctl(8) commands.
func (s Scene) Northbound() string {
	var b strings.Builder
	b.WriteString(topology)
	groups := map[int]string{}
	for _, p := range s.Workloads {
		tier := []string{"", "web", "db"}[p.net]
		fmt.Fprintf(&b, "lsp-add %s %s -- lsp-set-addresses %s '%s %s %s'\n", tier, p.Name, p.Name, p.mac(), p.IP(false), p.IP(true))
		groups[p.net] += " " + p.Name
	}
	fmt.Fprintf(&b, "pg-add pg_web%s\npg-add pg_db%s\n", groups[1], groups[2])
	b.WriteString(policy)
	return b.String()
}

// Policy is the part of Northbound that says who may reach whom.
func (s Scene) Policy() string {
	return strings.ReplaceAll(strings.TrimLeft(policy, "\n"), "\t", "  ")
}

// Populate plugs in all workloads and returns how long each took from its interface to ovn-installed.
func (s Scene) Populate(ctx context.Context, l *lab.Lab) (map[string]time.Duration, error) {
	return s.PopulateBy(ctx, l, Plug)
}

// PopulateBy plugs in all workloads, each by plug, and returns how long plug says that each took.
func (s Scene) PopulateBy(ctx context.Context, l *lab.Lab, plug func(context.Context, *lab.Node, lab.PodConfig) (time.Duration, error)) (map[string]time.Duration, error) {
	took := map[string]time.Duration{}
	for _, w := range s.Workloads { // one after the other, so that the times are of one port each
		d, err := plug(ctx, l.Node(w.Node), w.config())
		if err != nil {
			return nil, err
		}
		took[w.Name] = d
	}
	return took, nil
}

// Plug makes a pod and waits for ovn-installed.
func Plug(ctx context.Context, n *lab.Node, c lab.PodConfig) (time.Duration, error) {
	pod, err := n.AddPod(ctx, c)
	if err != nil {
		return 0, err
	}
	return pod.WaitInstalled(ctx)
}

// A Probe is one question: does one workload reach another?
type Probe struct {
	Kind
	From, To string
	V6       bool
}

// A Kind is the kind of traffic that a probe sends.
type Kind struct {
	Name string
	Port uint16 // of TCP; 0: ping
}

// Kinds are the kinds of probes.
func Kinds() []Kind { return []Kind{{"ping", 0}, {"tcp 22", 22}, {"tcp 5432", 5432}} }

// Allowed is the verdict that policy asks for.
func (s Scene) Allowed(p Probe) bool {
	fromDB, toDB := strings.HasPrefix(p.From, "db"), strings.HasPrefix(p.To, "db")
	switch {
	case fromDB == toDB:
		return true
	case fromDB:
		return false
	default:
		return p.Port != 22
	}
}

// Ask asks all questions, several at a time, and returns which probes were answered.
func (s Scene) Ask(ctx context.Context, l *lab.Lab) (map[Probe]bool, error) {
	ctx, stop := context.WithCancel(ctx) // ends the listeners
	defer stop()
	for _, pod := range l.Pods() {
		for _, kind := range Kinds() {
			if kind.Port == 0 {
				continue
			}
			if err := pod.Serve(ctx, kind.Port); err != nil {
				return nil, err
			}
		}
	}
	var (
		mu   sync.Mutex
		seen = map[Probe]bool{}
	)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, kind := range Kinds() {
		for _, from := range s.Workloads {
			for _, to := range s.Workloads {
				for _, v6 := range []bool{false, true} {
					if from == to {
						continue
					}
					pr := Probe{kind, from.Name, to.Name, v6}
					g.Go(func() error {
						ok, err := s.ask(ctx, l.Pod(pr.From), to.IP(v6), pr)
						mu.Lock()
						seen[pr] = ok
						mu.Unlock()
						return err
					})
				}
			}
		}
	}
	return seen, g.Wait()
}

// ask probes once. It waits for an answer that should come longer than for one that should not.
func (s Scene) ask(ctx context.Context, from *lab.Pod, to netip.Addr, p Probe) (bool, error) {
	within := time.Second
	if s.Allowed(p) {
		within = 5 * time.Second
	}
	if p.Port == 0 {
		return from.Ping(ctx, to, within)
	}
	return from.Connect(ctx, netip.AddrPortFrom(to, p.Port), within)
}

// Picture draws the nodes, and below them the logical network.
func (s Scene) Picture() string {
	var (
		nodes = make([]string, 6)
		wire  []string
		tiers [2]string
	)
	for i, n := range s.nodes {
		for j, line := range []string{
			fmt.Sprintf(" %s: %s", n.Name, n.Agent),
			"+---------------------+",
			fmt.Sprintf("|  web%d          db%d  |", i+1, i+1),
			"|     \\          /    |",
			"|      [ br-int ]     |",
			"+----------+----------+",
		} {
			nodes[j] += fmt.Sprintf("  %-23s", line)
		}
		wire = append(wire, "+")
		tiers[0] += fmt.Sprintf(" web%d", i+1)
		tiers[1] += fmt.Sprintf(" db%d", i+1)
	}
	lines := append(nodes,
		strings.Repeat(" ", 13)+strings.Join(wire, strings.Repeat("-", 24))+"  underlay 172.31.0.0/24, Geneve",
		"",
		"   switch web                                     switch db",
		"   10.1.0.0/24  fd10:1::/64  --[ router r0 ]--  10.2.0.0/24  fd10:2::/64",
		fmt.Sprintf("  %-46s%s", tiers[0], tiers[1]),
		"")
	return strings.Join(lines, "\n")
}
