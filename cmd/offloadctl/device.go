package main

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// deviceTimeout is how long an operation may take unless the user says something else: a driver needs half a second for each VF.
const deviceTimeout = 2 * time.Minute

const deviceHelp = `DEVICE is a handle, as pci/0000:03:00.0, or the network device of a PF.

First it is shown what will be done, as commands for a shell, and which functions vanish. With --dry-run that is all; exit code 1 says that it
would be refused, since ports have some of those functions. Otherwise it is asked whether to go on, unless --yes says so.`

func (c *cli) deviceCommand() *cobra.Command {
	dev := group("device", "change a NIC: its mode, its VFs, its SFs; each time it is shown first what that does")
	sf := group("sf", "make or delete an SF")
	sf.AddCommand(c.addSFCommand(), c.deleteSFCommand())
	dev.AddCommand(c.eswitchCommand(), c.vfsCommand(), sf, c.releaseCommand())
	return dev
}

// An operation is one on a NIC that can be asked about first.
type operation struct {
	c           *cli
	dryRun, yes bool
}

func (o *operation) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
}

// run asks what would be done, shows it, and does it if the user wants that.
func (o *operation) run(cmd *cobra.Command, do func(d daemon, validateOnly bool) (*offloadv1.Plan, error)) error {
	c := o.c
	if !cmd.Flags().Changed("timeout") {
		c.timeout = deviceTimeout
	}
	var plan *offloadv1.Plan
	err := c.call(cmd.Context(), func(d daemon) (err error) {
		plan, err = do(d, true)
		return err
	})
	if err != nil {
		return err
	}
	if c.structured() {
		if err := c.print("Plan", plan); err != nil {
			return err
		}
	} else {
		c.printPlan(plan)
	}
	if len(plan.GetSteps()) == 0 {
		fmt.Fprintln(c.stderr, "nothing to do: it is so already")
		return nil
	}
	refused := len(plan.GetAffected()) > 0
	switch {
	case o.dryRun && refused:
		return errNegative
	case o.dryRun:
		return nil
	case !o.yes && !refused && !c.confirmed("do this?"):
		fmt.Fprintln(c.stderr, "nothing was done")
		return errNegative
	}
	return c.call(cmd.Context(), func(d daemon) error {
		_, err := do(d, false)
		return err
	})
}

// printPlan prints a plan as a shell would take it.
func (c *cli) printPlan(p *offloadv1.Plan) {
	for _, owner := range p.GetAffected() {
		fmt.Fprintf(c.stdout, "%s\n", c.paint(red, "# is refused as long as there is the port "+owner))
	}
	for _, f := range p.GetRemoves() {
		fmt.Fprintf(c.stdout, "%s\n", c.paint(yellow, "# removes "+f))
	}
	for _, s := range p.GetSteps() {
		fmt.Fprintln(c.stdout, s)
	}
}

// confirmed asks the user. Whoever does not answer does not agree.
func (c *cli) confirmed(question string) bool {
	fmt.Fprintf(c.stderr, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(c.stdin).ReadString('\n')
	if !strings.HasSuffix(answer, "\n") {
		fmt.Fprintln(c.stderr)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}

func (c *cli) eswitchCommand() *cobra.Command {
	o := &operation{c: c}
	cmd := &cobra.Command{
		Use:   "eswitch DEVICE legacy|switchdev",
		Short: "change the mode of a NIC's embedded switch (root)",
		Long:  "eswitch changes who forwards between the functions of a NIC. All of them are interrupted, and SFs vanish.\n" + deviceHelp,
		Args:  usage(cobra.ExactArgs(2)),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return fixed([]string{"legacy", "switchdev"})(cmd, args, begun)
			}
			return c.completeDevices(cmd, args, begun)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			mode, ok := map[string]offloadv1.EswitchMode{
				"legacy": offloadv1.EswitchMode_ESWITCH_MODE_LEGACY, "switchdev": offloadv1.EswitchMode_ESWITCH_MODE_SWITCHDEV,
			}[args[1]]
			if !ok {
				return usageError{fmt.Errorf("device eswitch %q: neither legacy nor switchdev", args[1])}
			}
			return o.run(cmd, func(d daemon, validateOnly bool) (*offloadv1.Plan, error) {
				r, err := d.devices.SetEswitch(d.ctx, &offloadv1.SetEswitchRequest{Device: args[0], Mode: mode, ValidateOnly: validateOnly})
				return r.GetPlan(), client.Error(err)
			})
		},
	}
	o.flags(cmd)
	return cmd
}

// argument reads a number from the command line.
func argument(what, s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, usageError{fmt.Errorf("%s %q: not a number", what, s)}
	}
	return uint32(n), nil
}

func (c *cli) vfsCommand() *cobra.Command {
	o := &operation{c: c}
	cmd := &cobra.Command{
		Use:               "vfs DEVICE NUMBER",
		Short:             "make a NIC have a number of VFs (root)",
		Long:              "vfs makes a NIC have NUMBER VFs. Where it has another number above 0, all vanish first.\n" + deviceHelp,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: c.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := argument("device vfs", args[1])
			if err != nil {
				return err
			}
			return o.run(cmd, func(d daemon, validateOnly bool) (*offloadv1.Plan, error) {
				r, err := d.devices.SetVFs(d.ctx, &offloadv1.SetVFsRequest{Device: args[0], Count: n, ValidateOnly: validateOnly})
				return r.GetPlan(), client.Error(err)
			})
		},
	}
	o.flags(cmd)
	return cmd
}

func (c *cli) addSFCommand() *cobra.Command {
	o := &operation{c: c}
	var pf uint32
	cmd := &cobra.Command{
		Use:               "add DEVICE SFNUM",
		Short:             "make an SF that is of no pool (root)",
		Long:              "add makes an SF with the number SFNUM, which must not be one of a pool, and prints its port.\n" + deviceHelp,
		Args:              usage(cobra.ExactArgs(2)),
		ValidArgsFunction: c.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := argument("device sf add", args[1])
			if err != nil {
				return err
			}
			port := ""
			err = o.run(cmd, func(d daemon, validateOnly bool) (*offloadv1.Plan, error) {
				r, err := d.devices.CreateFunction(d.ctx, &offloadv1.CreateFunctionRequest{Device: args[0], Pf: pf, Number: n, ValidateOnly: validateOnly})
				port = r.GetPort()
				return r.GetPlan(), client.Error(err)
			})
			if err == nil && port != "" && !c.structured() {
				fmt.Fprintln(c.stdout, port)
			}
			return err
		},
	}
	cmd.Flags().Uint32Var(&pf, "pf", 0, "`number` of the PF")
	o.flags(cmd)
	return cmd
}

const functionHelp = `FUNCTION is its port, as pci/0000:03:00.0/32768, its device in sysfs, or its representor: see offloadctl functions.`

func (c *cli) deleteSFCommand() *cobra.Command {
	o := &operation{c: c}
	cmd := &cobra.Command{
		Use:               "delete FUNCTION",
		Short:             "delete an SF that nobody has (root)",
		Long:              "delete deletes an SF, also one that is quarantined. If it is of a pool, that may make another.\n" + functionHelp,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: c.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, func(d daemon, validateOnly bool) (*offloadv1.Plan, error) {
				port, err := d.findFunction(args[0])
				if err != nil {
					return nil, err
				}
				r, err := d.devices.DeleteFunction(d.ctx, &offloadv1.DeleteFunctionRequest{Port: port, ValidateOnly: validateOnly})
				return r.GetPlan(), client.Error(err)
			})
		},
	}
	o.flags(cmd)
	return cmd
}

func (c *cli) releaseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "release FUNCTION",
		Short: "let a function that is quarantined be verified again (root)",
		Long: `release verifies a function that is quarantined once more. If everything is as it should be it is free; otherwise it stays where it is,
and it is printed why.
` + functionHelp,
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: c.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("timeout") {
				c.timeout = deviceTimeout
			}
			return c.call(cmd.Context(), func(d daemon) error {
				port, err := d.findFunction(args[0])
				if err != nil {
					return err
				}
				r, err := d.devices.ReleaseFunction(d.ctx, &offloadv1.ReleaseFunctionRequest{Port: port})
				if err != nil {
					return client.Error(err)
				}
				if c.structured() {
					return c.print("Function", r.GetFunction())
				}
				fmt.Fprintf(c.stdout, "%s is %s\n", port, functionStateText(r.GetFunction().GetState()))
				return nil
			})
		},
	}
}
