package main

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

// A scene is the demo's network: the switches web and db behind a router, and on every node a workload of each.
type scene struct {
	nodes []lab.NodeConfig
	pods  []workload // web1, web2, ..., db1, db2, ...
}

type workload struct {
	name  string
	node  string
	net   int // 1 is the switch web, 2 is db
	index int // of the node, from 1
}

func newScene(nodes []lab.NodeConfig) scene {
	s := scene{nodes: nodes}
	for net, tier := range []string{"web", "db"} {
		for i, n := range nodes {
			s.pods = append(s.pods, workload{fmt.Sprintf("%s%d", tier, i+1), n.Name, net + 1, i + 1})
		}
	}
	return s
}

func (w workload) mac() string { return fmt.Sprintf("50:54:00:00:0%d:0%d", w.net, w.index) }

func (w workload) ip(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("fd10:%d::1%d", w.net, w.index))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.%d.0.1%d", w.net, w.index))
}

func (w workload) config() lab.PodConfig {
	return lab.PodConfig{
		Name: w.name, MAC: w.mac(),
		IPs: []netip.Prefix{netip.PrefixFrom(w.ip(false), 24), netip.PrefixFrom(w.ip(true), 64)},
		Gateways: []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", w.net)),
			netip.MustParseAddr(fmt.Sprintf("fd10:%d::1", w.net)),
		},
	}
}

func (s scene) names() []string {
	var names []string
	for _, p := range s.pods {
		names = append(names, p.name)
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

// policy is what allowed says in Go.
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

// northbound is the scene as ovn-nbctl(8) commands.
func (s scene) northbound() string {
	var b strings.Builder
	b.WriteString(topology)
	groups := map[int]string{}
	for _, p := range s.pods {
		tier := []string{"", "web", "db"}[p.net]
		fmt.Fprintf(&b, "lsp-add %s %s -- lsp-set-addresses %s '%s %s %s'\n", tier, p.name, p.name, p.mac(), p.ip(false), p.ip(true))
		groups[p.net] += " " + p.name
	}
	fmt.Fprintf(&b, "pg-add pg_web%s\npg-add pg_db%s\n", groups[1], groups[2])
	b.WriteString(policy)
	return b.String()
}

func (s scene) policyText() string {
	return strings.ReplaceAll(strings.TrimLeft(policy, "\n"), "\t", "  ")
}

// populate plugs in all workloads and returns how long each took from its interface to ovn-installed.
func (s scene) populate(ctx context.Context, l *lab.Lab) (map[string]time.Duration, error) {
	took := map[string]time.Duration{}
	for _, w := range s.pods { // one after the other, so that the times are of one port each
		pod, err := l.Node(w.node).AddPod(ctx, w.config())
		if err != nil {
			return nil, err
		}
		d, err := pod.WaitInstalled(ctx)
		if err != nil {
			return nil, err
		}
		took[w.name] = d
	}
	return took, nil
}

// A probe is one question: does from reach to?
type probe struct {
	probeKind
	from, to string
	v6       bool
}

type probeKind struct {
	name string
	port uint16 // 0: ping
}

var probeKinds = []probeKind{{"ping", 0}, {"tcp 22", 22}, {"tcp 5432", 5432}}

// allowed is the verdict that policy asks for.
func (s scene) allowed(p probe) bool {
	fromDB, toDB := strings.HasPrefix(p.from, "db"), strings.HasPrefix(p.to, "db")
	switch {
	case fromDB == toDB:
		return true
	case fromDB:
		return false
	default:
		return p.port != 22
	}
}

// probe asks all questions, several at a time, and returns which probes were answered.
func (s scene) probe(ctx context.Context, l *lab.Lab) (map[probe]bool, error) {
	ctx, stop := context.WithCancel(ctx) // ends the listeners
	defer stop()
	for _, pod := range l.Pods() {
		for _, kind := range probeKinds {
			if kind.port == 0 {
				continue
			}
			if err := pod.Serve(ctx, kind.port); err != nil {
				return nil, err
			}
		}
	}
	var (
		mu   sync.Mutex
		seen = map[probe]bool{}
	)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, kind := range probeKinds {
		for _, from := range s.pods {
			for _, to := range s.pods {
				for _, v6 := range []bool{false, true} {
					if from == to {
						continue
					}
					pr := probe{kind, from.name, to.name, v6}
					g.Go(func() error {
						ok, err := s.ask(ctx, l.Pod(pr.from), to.ip(v6), pr)
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
func (s scene) ask(ctx context.Context, from *lab.Pod, to netip.Addr, p probe) (bool, error) {
	within := time.Second
	if s.allowed(p) {
		within = 5 * time.Second
	}
	if p.port == 0 {
		return from.Ping(ctx, to, within)
	}
	return from.Connect(ctx, netip.AddrPortFrom(to, p.port), within)
}

// picture draws the nodes, and below them the logical network.
func (s scene) picture() string {
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
