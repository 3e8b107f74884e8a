// Benchcold measures the cold start of a chassis agent: from its start until nb_cfg is acknowledged and every flow is
// installed, with offloadd and with ovn-controller in turn on the same databases, and prints the ratios.
//
//	go run ./integration/benchcold -offloadd bin/offloadd
//
// Real ovn-northd compiles the Northbound contents once and is then stopped, so that an agent is alone with its
// databases. Before each run the bridge is emptied of flows and the agent's acknowledgement is taken back; ports,
// tunnels and conntrack zones stay as the last agent left them. It needs root.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/offloadd/offloadd/integration/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchcold:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var size size
	flags := flag.NewFlagSet("benchcold", flag.ContinueOnError)
	offloadd := flags.String("offloadd", "bin/offloadd", "the daemon's binary")
	runs := flags.Int("runs", 3, "runs of each agent")
	monitorAll := flags.Bool("monitor-all", true, "agents read the whole Southbound database")
	flags.IntVar(&size.switches, "switches", 25, "logical switches")
	flags.IntVar(&size.ports, "ports", 40, "ports on each switch")
	flags.IntVar(&size.routers, "routers", 5, "routers; they share the switches and are joined by one more")
	flags.IntVar(&size.acls, "acls", 200, "ACLs, with address sets and port groups")
	flags.IntVar(&size.local, "local", 40, "ports on the measured chassis")
	flags.IntVar(&size.chassis, "chassis", 24, "other chassis, which have the other ports")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := size.check(); err != nil {
		return err
	}
	if *runs < 1 {
		return fmt.Errorf("%d runs: want at least one", *runs)
	}

	b, err := start(ctx, lab.Options{OffloaddPath: *offloadd, MonitorAll: *monitorAll, Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.None}}})
	if err != nil {
		return err
	}
	defer b.lab.Close() //nolint:errcheck // what is left behind the next lab sweeps
	lflows, err := b.fill(ctx, size)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.lab.Tails(8))
	}
	fmt.Fprintf(out, "%v, %d logical flows, monitor-all %t\n", size, lflows, *monitorAll)
	results := make(map[lab.Agent][]result)
	for i := range *runs {
		for _, agent := range agents {
			r, err := b.measure(ctx, agent)
			if err != nil {
				return fmt.Errorf("run %d of %s: %w\n%s", i+1, agent, err, b.lab.Tails(8))
			}
			fmt.Fprintf(out, "run %d %-14s %v\n", i+1, agent, r)
			results[agent] = append(results[agent], r)
		}
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	// A start waits for the database server and ovs-vswitchd too: wall times count on an idle machine only.
	_, err = fmt.Fprintf(out, "\n%s\nload average %s", table(results), load)
	return err
}
