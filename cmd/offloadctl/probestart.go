package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/probe"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const startHelp = `Measure how long a new port of this node takes: until it is made, as for a pod, until its first packet is answered, until filters forward its packets, and
until hardware does; and how many ports a second that are.

TARGET is a port of this node that is ready, and answers. PORTS are logical ports that exist in OVN and that nobody uses, for this purpose: the daemon makes
ports of them in network namespaces of its own, and deletes them. UDP to --port has to be allowed from PORTS to TARGET, by policies too. docs/probe.md says
how to make logical ports, and how to read what comes out.`

// startFlags are those of probe start.
type startFlags struct {
	kinds        []string
	pool         string
	gateway      string
	port, family int
	count        int
	parallel     []int
	wait         time.Duration
	interval     time.Duration
	seed         uint64
	html         string
}

func (p *prober) startCommand() *cobra.Command {
	f := &startFlags{}
	cmd := &cobra.Command{
		Use:   "start TARGET PORT...",
		Short: "measure how long new ports take, until their packets are offloaded",
		Long:  startHelp,
		Example: `  offloadctl probe start db probe-{1..8} --parallel 1,8
  offloadctl probe start db probe-1 probe-2 --kind veth,vf --count 100 --html report.html`,
		Args: usage(cobra.MinimumNArgs(2)),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 { // no port is of those that may follow
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return p.c.completePorts(cmd, nil, begun)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if p.local {
				return usageError{fmt.Errorf("probe start: ports are the daemon's: without --local")}
			}
			spec, err := f.spec(args)
			if err != nil {
				return err
			}
			var text []byte
			err = p.within(cmd, probe.MaxTime+shortly, func(d daemon) error {
				stream, err := d.probe.RunStarts(d.ctx, &offloadv1.RunStartsRequest{Spec: spec})
				if err != nil {
					return client.Error(err)
				}
				text, err = follow(p, stream.Recv)
				return err
			})
			if err != nil {
				return err
			}
			return p.show([][]byte{text}, outputs{html: f.html})
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&f.kinds, "kind", []string{"veth"}, "`kinds` of ports: veth, vf, sf")
	fs.StringVar(&f.pool, "pool", "", "`pool` that VFs or SFs come from (default any)")
	fs.StringVar(&f.gateway, "gateway", "", "`address` of the router to TARGET, of PORTS on another logical switch")
	fs.IntVar(&f.port, "port", probe.DefaultPort, "TARGET's `port`, of UDP")
	fs.IntVar(&f.family, "family", 0, "`4 or 6` (default the first that all have addresses of)")
	fs.IntVar(&f.count, "count", probe.DefaultStarts, "`number` of starts of each kind, with each of --parallel")
	fs.IntSliceVar(&f.parallel, "parallel", []int{1}, "`numbers` of ports that are asked for at once")
	fs.DurationVar(&f.wait, "wait", probe.DefaultStartWait, "`time` for which a start is followed")
	fs.DurationVar(&f.interval, "interval", probe.DefaultStartInterval, "`time` from a port's packet to the next")
	fs.Uint64Var(&f.seed, "seed", 0, "`number` for the order (default random)")
	fs.StringVar(&f.html, "html", "", "also write a page, in one `file`")
	mustComplete(cmd, "kind", "sf", "veth", "vf")
	mustComplete(cmd, "family", "4", "6")
	return cmd
}

func (f *startFlags) spec(args []string) (*offloadv1.StartProbeSpec, error) {
	s := &offloadv1.StartProbeSpec{
		Target: args[0], Ports: args[1:], Pool: f.pool, Gateway: f.gateway, Port: uint32(f.port), Family: uint32(f.family), Count: uint32(f.count), Wait: optional(f.wait), Interval: optional(f.interval), Seed: f.seed,
	}
	for _, k := range f.kinds {
		kind, ok := offloadv1.PortKind_value["PORT_KIND_"+strings.ToUpper(k)]
		if !ok || !slices.Contains([]string{"veth", "vf", "sf"}, k) {
			return nil, usageError{fmt.Errorf("--kind %q: none of veth, vf, sf", k)}
		}
		s.Kinds = append(s.Kinds, offloadv1.PortKind(kind))
	}
	for _, n := range []struct {
		flag       string
		value, max int
	}{{"port", f.port, math.MaxUint16}, {"family", f.family, 6}, {"count", f.count, probe.MaxStarts}} {
		if n.value < 0 || n.value > n.max {
			return nil, usageError{fmt.Errorf("--%s %d: not from 0 to %d", n.flag, n.value, n.max)}
		}
	}
	for _, n := range f.parallel {
		if n < 1 || n > min(probe.MaxParallel, len(s.Ports)) {
			return nil, usageError{fmt.Errorf("--parallel %d: not from 1 to %d, nor more than there are PORTS", n, probe.MaxParallel)}
		}
		s.Parallel = append(s.Parallel, uint32(n))
	}
	return s, nil
}
