// Demo shows offloadd at work on one machine without special hardware: three nodes, of which two run offloadd and
// one the distribution's ovn-controller, and six workloads under a policy. It checks that every ping and
// every connection has the verdict that the policy asks for, and fails if one has not. With -offload it shows TC filters at
// work on two nodes instead.
//
// The lab is removed at the end, unless -keep is given; then -clean removes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/scene"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	agents := flags.String("agents", "offloadd,offloadd,ovn-controller", "the chassis agent of each node")
	offloadd := flags.String("offloadd", "bin/offloadd", "the daemon's binary")
	ctl := flags.String("offloadctl", "bin/offloadctl", "the command line's binary")
	keep := flags.Bool("keep", false, "leave the lab running and say how to look around")
	clean := flags.Bool("clean", false, "remove labs that -keep left running, and nothing else")
	filters := flags.Bool("offload", false, "show TC filters at work; this needs the kernel's datapath, as in a guest of integration/vm")
	verbose := flags.Bool("v", false, "print every daemon's command line")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *clean {
		return errors.Join(lab.Sweep(true), attach.Sweep())
	}
	path, err := filepath.Abs(*ctl)
	if err != nil {
		return err
	}
	if *filters {
		var log io.Writer
		if *verbose {
			log = out
		}
		return playOffload(ctx, newPage(out), *offloadd, path, log)
	}
	opts := lab.Options{OffloaddPath: *offloadd, Keep: *keep}
	if *verbose {
		opts.Log = out
	}
	for i, name := range strings.Split(*agents, ",") {
		agent, err := lab.ParseAgent(name)
		if err != nil {
			return err
		}
		opts.Nodes = append(opts.Nodes, lab.NodeConfig{Name: fmt.Sprintf("node%d", i+1), Agent: agent})
	}
	if n := len(opts.Nodes); n < 1 || n > 9 {
		return fmt.Errorf("%d agents: want one to nine", n)
	}
	return play(ctx, newPage(out), opts, path)
}

// play runs the demo from the curtain to the last table.
func play(ctx context.Context, p *page, opts lab.Options, ctl string) (err error) {
	p.title("offloadd on this machine: %d nodes, two switches, one router", len(opts.Nodes))

	begin := time.Now()
	l, err := lab.Start(ctx, opts)
	if err != nil {
		return err
	}
	var seen map[scene.Probe]bool
	defer func() {
		if err != nil && seen == nil {
			p.text("%s", l.Tails(8))
		}
		if opts.Keep {
			l.Release()
			return
		}
		err = errors.Join(err, l.Close())
	}()
	p.step("databases, ovn-northd and %d nodes with Open vSwitch", begin, len(opts.Nodes))

	begin = time.Now()
	d, err := newDoor(ctx, l.Dir, ctl)
	if err != nil {
		return err
	}
	defer func() {
		if !opts.Keep {
			err = errors.Join(err, d.forget())
		}
	}()
	p.step("cnitool and offload-cni are built", begin)

	begin = time.Now()
	s := scene.New(opts.Nodes)
	if _, err := l.NB(ctx, s.Northbound()); err != nil {
		return err
	}
	pods, err := s.PopulateBy(ctx, l, d.plug)
	if err != nil {
		return err
	}
	if err := l.Sync(ctx); err != nil {
		return fmt.Errorf("the chassis do not catch up with the Northbound database: %w", err)
	}
	p.step("%d workloads plugged in, their ports up and every chassis in step", begin, len(pods))

	p.text("\n%s", s.Picture())
	p.heading("The policy, as the Northbound database has it")
	p.text("%s", s.Policy())

	begin = time.Now()
	if seen, err = s.Ask(ctx, l); err != nil {
		return err
	}
	p.text("")
	p.step("%d probes", begin, len(seen))
	p.heading("The nodes")
	if err := showNodes(ctx, p, l, pods); err != nil {
		return err
	}
	if err := d.show(ctx, p); err != nil {
		return err
	}
	p.heading("What this machine cannot show")
	p.text("%s", limits(ctx, l.Nodes[0]))
	if opts.Keep {
		p.heading("Look around")
		p.text("%s", lookAround(l, s))
	}

	if wrong := showMatrices(p, s, seen); wrong > 0 {
		return fmt.Errorf("%d of %d probes have the wrong verdict: see the cells marked with an exclamation mark", wrong, len(seen))
	}
	p.text("All %d probes have the verdict that the policy wants.", len(seen))
	return nil
}

// showNodes prints what each node did, and the packets in its tunnels.
func showNodes(ctx context.Context, p *page, l *lab.Lab, installed map[string]time.Duration) error {
	rows := [][]string{{"node", "agent", "flows in br-int", "until ovn-installed", "tunnel to", "packets from there"}}
	for _, n := range l.Nodes {
		flows, err := n.Flows(ctx, "br-int")
		if err != nil {
			return err
		}
		tunnels, err := n.Tunnels(ctx)
		if err != nil {
			return err
		}
		var times []string
		for _, pod := range l.Pods() {
			if pod.Node == n {
				times = append(times, fmt.Sprintf("%s %d ms", pod.Name, installed[pod.Name].Milliseconds()))
			}
		}
		row := []string{n.Name, string(n.Agent()), fmt.Sprint(flows), strings.Join(times, ", ")}
		for _, t := range tunnels {
			row = append(row, fmt.Sprintf("%s %s", t.Type, t.Remote), fmt.Sprint(t.RxPackets))
			rows = append(rows, row)
			row = []string{"", "", "", ""}
		}
		if len(tunnels) == 0 {
			rows = append(rows, append(row, "-", ""))
		}
	}
	p.table(rows)
	p.text("With offloadd the times are those of cnitool add, with ovn-controller those of ovs-vsctl(8), twice.")
	return nil
}

// showMatrices prints for each probe what was seen beside what the policy wants, and returns how many probes
// differ.
func showMatrices(p *page, s scene.Scene, seen map[scene.Probe]bool) (wrong int) {
	p.heading("Who reaches whom: rows are sources; 4 and 6 stand for IPv4 and IPv6, a dot for no answer")
	for _, kind := range scene.Kinds() {
		var rows [][]string
		head := []string{kind.Name}
		for range 2 {
			head = append(append(head, s.Names()...), " ")
		}
		rows = append(rows, head)
		for _, from := range s.Names() {
			row := []string{from}
			var wanted []string
			for _, to := range s.Names() {
				var got, want, bad string
				for _, v6 := range []bool{false, true} {
					pr := scene.Probe{Kind: kind, From: from, To: to, V6: v6}
					ok, probed := seen[pr]
					switch {
					case !probed:
						continue
					case ok != s.Allowed(pr):
						wrong++
						bad = "!"
					}
					got += mark(ok, v6)
					want += mark(s.Allowed(pr), v6)
				}
				row, wanted = append(row, got+bad), append(wanted, want)
			}
			rows = append(rows, append(append(append(row, " "), wanted...), " "))
		}
		p.matrix(rows, len(s.Names()))
	}
	return wrong
}

func mark(ok, v6 bool) string {
	switch {
	case !ok:
		return "."
	case v6:
		return "6"
	default:
		return "4"
	}
}

// lookAround says how to use a lab that goes on running.
func lookAround(l *lab.Lab, s scene.Scene) string {
	n, from, to := l.Nodes[0], s.Workloads[0], s.Workloads[len(s.Workloads)-1]
	return fmt.Sprintf(`The lab %[1]s goes on running. For example:
  export OVN_NB_DB=%[2]s OVN_SB_DB=%[3]s
  ovn-nbctl show; ovn-sbctl show
  export OVS_RUNDIR=%[4]s     # the programs of Open vSwitch talk to %[5]s
  ovs-vsctl show; ovs-ofctl -O OpenFlow15 dump-flows br-int; tail %[6]s
  ip netns exec %[7]s ping %[8]s     # from %[9]s
  bin/offloadctl --socket %[10]s status
  make demo-clean     # ends it
`, l.Name, l.NBRemote(), l.SBRemote(), n.Dir, n.Name, n.AgentLog(), l.Pod(from.Name).Netns(), to.IP(false), from.Name, attach.Socket(n))
}
