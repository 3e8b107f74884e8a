// Command dump prints the program of a topology, as ovs-ofctl would print its flows, and what is known beside it.
//
//	go run ./integration/specialize/dump -list
//	go run ./integration/specialize/dump -name spec-cluster -table 12
//	go run ./integration/specialize/dump -seed 17 -lflows
package main

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/sb"
)

var (
	list   = flag.Bool("list", false, "print the names of the hand-made topologies")
	name   = flag.String("name", "", "a hand-made topology")
	seed   = flag.Uint64("seed", 0, "a random topology, if there is no name")
	table  = flag.Int("table", -1, "only the rules of this table")
	lflows = flag.Bool("lflows", false, "print the logical flow above each of its rules")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if *list {
		fmt.Println(strings.Join(topology.Names(), "\n"))
		return nil
	}
	t, err := topology.Random(*seed)
	if *name != "" {
		t, err = topology.Fixed(*name)
	}
	if err != nil {
		return err
	}
	show(t)
	return nil
}

func show(t *topology.Topology) {
	fmt.Printf("# %s: %s\n", t.Name, t.Content.About)
	for _, text := range []string{t.Content.NB, t.Content.SB, t.Content.VS} {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				fmt.Printf("#   %s\n", line)
			}
		}
	}
	for _, p := range t.Ports {
		fmt.Printf("port %d: %s, device %s, ifindex %d, zone %d\n", p.OFPort, p.Lport, p.Device.Name, p.Device.Ifindex, t.Zones[p.Lport])
	}
	for _, p := range t.Patches {
		fmt.Printf("port %d: %s, a patch port\n", p.OFPort, p.Lport)
	}
	for _, x := range t.Tunnels {
		fmt.Printf("port %d: %s to %s, %s -> %s, device %s\n", x.OFPort, x.Type, x.Chassis, x.Local, x.Remote, t.TunnelDevice.Name)
	}
	for _, dp := range sb.Sorted(t.SB.Datapaths) {
		if t.Local.Datapaths[dp.UUID] == nil {
			continue
		}
		fmt.Printf("datapath %#x: %s, zones %d dnat, %d snat\n", dp.Key, dp.Name, t.Zones[dp.UUID.String()+"_dnat"], t.Zones[dp.UUID.String()+"_snat"])
		for _, p := range sb.Sorted(t.SB.PortsOf(dp.UUID)) {
			fmt.Printf("  port %#x: %s %s\n", p.Key, p.Name, p.Type)
		}
	}
	groups := map[uint32]ir.SelectGroup{}
	type line struct {
		rule  ir.Rule
		lflow *sb.LogicalFlow
	}
	var lines []line
	for _, o := range t.Owned {
		maps.Copy(groups, o.Groups)
		for _, r := range o.Rules {
			lines = append(lines, line{rule: r, lflow: t.SB.LogicalFlows[o.Owner.Row]})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.rule.Table, b.rule.Table), cmp.Compare(b.rule.Priority, a.rule.Priority))
	})
	var last *sb.LogicalFlow
	for _, l := range lines {
		if *table >= 0 && int(l.rule.Table) != *table {
			continue
		}
		if *lflows && l.lflow != nil && l.lflow != last {
			fmt.Printf("# %d: %s -> %s\n", l.lflow.Table, l.lflow.Match, l.lflow.Actions)
		}
		last = l.lflow
		fmt.Println(openflow.FormatFlow(&l.rule))
	}
	for _, id := range slices.Sorted(maps.Keys(groups)) {
		g := groups[id]
		fmt.Println(openflow.FormatGroup(id, &g))
	}
	for _, s := range t.Skipped {
		fmt.Printf("# skipped: %v\n", s.Err)
	}
}
