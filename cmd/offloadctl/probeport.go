package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/probe"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const portHelp = `Measure between two ports of this node, through filters, of the NIC or of TC, and through Open vSwitch: the same ports, with packets of their own.

Each packet is accounted for by what filters, Open vSwitch's datapath and the connection tracker have counted. If they do not say that the packets took
these ways, nothing is reported. UDP to --port has to be allowed from CLIENT to SERVER, by policies too. docs/probe.md says more.`

// portFlags are those of probe port.
type portFlags struct {
	port, family int
	fresh, cold  int
	idle         time.Duration
	runFlags
}

func (p *prober) portCommand() *cobra.Command {
	f := &portFlags{}
	cmd := &cobra.Command{
		Use:   "port CLIENT SERVER",
		Short: "measure between two ports of this node, offloaded and not, and prove it",
		Long:  portHelp,
		Example: `  offloadctl probe port web db
  offloadctl probe port web db --port 5353 --cold 0 --html report.html`,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: p.c.completeTwoPorts,
		RunE: func(cmd *cobra.Command, args []string) error {
			if p.local {
				return usageError{fmt.Errorf("probe port: ports are the daemon's: without --local")}
			}
			spec, err := f.portSpec(cmd, args)
			if err != nil {
				return err
			}
			var text []byte
			err = p.within(cmd, probe.MaxTime+shortly, func(d daemon) error {
				stream, err := d.probe.RunPorts(d.ctx, &offloadv1.RunPortsRequest{Spec: spec})
				if err != nil {
					return client.Error(err)
				}
				text, err = follow(p, stream.Recv)
				return err
			})
			if err != nil {
				return err
			}
			return p.show([][]byte{text}, f.outputs)
		},
	}
	fs := cmd.Flags()
	fs.IntVar(&f.port, "port", probe.DefaultPort, "the server's `port`, of UDP")
	fs.IntVar(&f.family, "family", 0, "`4 or 6` (default the first that both ports have addresses of)")
	fs.IntVar(&f.fresh, "new", probe.DefaultNew, "`number` of connections to look at from their first packet on, on each path")
	fs.IntVar(&f.cold, "cold", probe.DefaultCold, "`number` of those before each of which nothing is sent for --idle")
	fs.DurationVar(&f.idle, "idle", 0, "`time` in which Open vSwitch's datapath forgets its flows (default 11s)")
	fs.IntSliceVar(&f.sizes, "sizes", nil, "`octets` of a request, several for a load each (default 64)")
	fs.StringVar(&f.mode, "mode", "rr", "`mode`: rr or open")
	f.measuring(cmd)
	f.files(cmd)
	mustComplete(cmd, "mode", "open", "rr")
	mustComplete(cmd, "family", "4", "6")
	return cmd
}

func (f *portFlags) portSpec(cmd *cobra.Command, args []string) (*offloadv1.PortProbeSpec, error) {
	if f.mode != "rr" && f.mode != "open" {
		return nil, usageError{fmt.Errorf("--mode %q: neither rr nor open", f.mode)}
	}
	if len(f.sizes) == 0 {
		f.sizes = []int{64}
	}
	spec, err := f.spec(cmd)
	if err != nil {
		return nil, err
	}
	for _, n := range []struct {
		flag       string
		value, max int
	}{{"port", f.port, 65535}, {"family", f.family, 6}, {"new", f.fresh, probe.MaxNew}, {"cold", f.cold, probe.MaxCold}} {
		if n.value < 0 || n.value > n.max {
			return nil, usageError{fmt.Errorf("--%s %d: not from 0 to %d", n.flag, n.value, n.max)}
		}
	}
	fresh, cold := uint32(f.fresh), uint32(f.cold)
	return &offloadv1.PortProbeSpec{
		Client: args[0], Server: args[1], Port: uint32(f.port), Family: uint32(f.family), New: &fresh, Cold: &cold, Idle: optional(f.idle), Spec: spec,
	}, nil
}
