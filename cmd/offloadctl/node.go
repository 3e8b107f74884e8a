package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// leaveTimeout is how long leaving may take unless the user says something else: two databases and the bridge take part.
const leaveTimeout = time.Minute

func (c *cli) nodeCommand() *cobra.Command {
	node := group("node", "show what the daemon is, or take the chassis out of the deployment")
	node.AddCommand(
		&cobra.Command{
			Use: "info", Short: "show what the daemon is, and which versions it sees around it", Args: usage(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return c.call(cmd.Context(), func(d daemon) error {
					i, err := d.node.GetInfo(d.ctx, &offloadv1.GetInfoRequest{})
					if err != nil {
						return client.Error(err)
					}
					if c.structured() {
						return c.print("Info", i)
					}
					c.printInfo(i)
					return nil
				})
			},
		},
		&cobra.Command{
			Use:   "leave",
			Short: "take the chassis out of the deployment and end the daemon",
			Long: `leave releases the chassis' ports, removes its flows, tunnels and records, and ends the daemon. Pods on this node lose
their network. When the timeout passes, leaving goes on.`,
			Args: usage(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				if !cmd.Flags().Changed("timeout") {
					c.timeout = leaveTimeout
				}
				return c.call(cmd.Context(), func(d daemon) error {
					if _, err := d.node.Leave(d.ctx, &offloadv1.LeaveRequest{}); err != nil {
						return client.Error(err)
					}
					fmt.Fprintln(c.stderr, "the chassis has left")
					return nil
				})
			},
		})
	return node
}

func (c *cli) printInfo(i *offloadv1.GetInfoResponse) {
	s := &sheet{c: c}
	s.add("Version", i.GetBuild().GetVersion())
	s.add("Commit", i.GetBuild().GetCommit())
	s.add("Go", i.GetBuild().GetGo())
	s.add("API", strings.Join(i.GetApiVersions(), ", "))
	s.add("Capabilities", strings.Join(i.GetCapabilities(), ", "))
	s.add("Chassis", i.GetChassis())
	s.add("Hostname", i.GetHostname())
	if t := i.GetStarted(); t != nil {
		s.add("Started", fmt.Sprintf("%s (%s ago)", t.AsTime().Format(time.RFC3339), age(c.now().Sub(t.AsTime()))))
	}
	s.add("Boot", i.GetBootId())
	s.add("Kernel", i.GetKernelVersion())
	s.add("Open vSwitch", i.GetOvsVersion())
	s.add("ovn-northd", i.GetNorthdVersion())
	for _, db := range sortedKeys(i.GetSchemaVersions()) {
		s.add("Schema", db+" "+i.GetSchemaVersions()[db])
	}
	s.print()
}

func (c *cli) recomputeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "recompute",
		Short: "compute all flows from nothing; it is never needed, and changes only what is wrong",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.call(cmd.Context(), func(d daemon) error {
				_, err := d.node.Recompute(d.ctx, &offloadv1.RecomputeRequest{})
				return client.Error(err)
			})
		},
	}
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "show the versions of this program and, if it answers, of the daemon", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(c.stdout, "offloadctl %s %s\n", buildVersion(), runtime.Version())
			return c.call(cmd.Context(), func(d daemon) error {
				if i, err := d.node.GetInfo(d.ctx, &offloadv1.GetInfoRequest{}); err == nil {
					fmt.Fprintf(c.stdout, "offloadd %s %s\n", i.GetBuild().GetVersion(), i.GetBuild().GetGo())
				}
				return nil
			})
		},
	}
}

func buildVersion() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "(devel)"
}
