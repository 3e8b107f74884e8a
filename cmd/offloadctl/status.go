package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "show how the chassis is doing; exit code 1 if part of it does not work",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.call(cmd.Context(), func(d daemon) error {
				st, err := d.node.GetStatus(d.ctx, &offloadv1.GetStatusRequest{Megaflows: true})
				if err != nil {
					return client.Error(err)
				}
				if c.structured() {
					err = c.print("Status", st)
				} else {
					c.printStatus(st)
				}
				if err == nil && !serving(st) {
					err = errNegative
				}
				return err
			})
		},
	}
}

func serving(st *offloadv1.GetStatusResponse) bool {
	for _, s := range st.GetSubsystems() {
		if !s.GetServing() {
			return false
		}
	}
	return true
}

func (c *cli) printStatus(st *offloadv1.GetStatusResponse) {
	s := &sheet{c: c}
	s.add("Chassis", cmp.Or(st.GetChassis(), "(not configured)"))
	health := c.paint(green, "works")
	if !serving(st) {
		health = c.paint(red, "does not work entirely")
	}
	s.add("Health", health)
	if b := st.GetBridge(); b != nil {
		s.add("Bridge", strings.Join([]string{cmp.Or(b.GetName(), "(none)"), connection(b.GetConnected()), installation(b)}, ", "))
		s.add("Wanted", fmt.Sprintf("%d flows (%d refused), %d groups, %d meters; %d changes sent",
			b.GetFlowsDesired(), b.GetFlowsRefused(), b.GetGroupsDesired(), b.GetMetersDesired(), b.GetFlowModsSent()))
	}
	c.addOffload(s, st.GetOffload())
	s.add("Turn", fmt.Sprintf("%d, installed up to %d; nb_cfg %d", st.GetTurn(), st.GetAckedTurn(), st.GetNbCfg()))
	s.add("Local", fmt.Sprintf("%d datapaths, %d ports, %d tunnels", st.GetLocalDatapaths(), st.GetLocalPorts(), st.GetTunnels()))
	if n := st.GetProbePairs(); n > 0 {
		s.add("Probed", fmt.Sprintf("%d pairs of ports; worse: %d", n, len(st.GetProbeWorse())))
	}
	for _, p := range st.GetProbeWorse() {
		s.add("  Worse", c.paint(red, fmt.Sprintf("%sfrom %s to %s since %s: %s: %s", choose(p.GetAnswers(), "answers to requests ", ""), p.GetFrom(), p.GetTo(), age(c.now().Sub(p.GetSince().AsTime())), p.GetReason(), p.GetMessage())))
	}
	if n := st.GetRowsRefused(); n > 0 {
		s.add("Refused", fmt.Sprintf("%d Southbound rows that no chassis could use", n))
	}
	var skipped []string
	for _, k := range st.GetSkipped() {
		skipped = append(skipped, fmt.Sprintf("%d for %s", k.GetCount(), cmp.Or(k.GetAction(), "(malformed)")))
	}
	s.add("Skipped", strings.Join(skipped, ", "))
	s.print()

	fmt.Fprintln(c.stdout)
	subsystems := newList(c, "", []column[*offloadv1.Subsystem]{
		{name: "SUBSYSTEM", value: (*offloadv1.Subsystem).GetName},
		{
			name:  "STATE",
			value: func(s *offloadv1.Subsystem) string { return choose(s.GetServing(), "serving", "not serving") },
			style: func(s *offloadv1.Subsystem) style { return choose(s.GetServing(), green, red) },
		},
		{name: "SINCE", value: func(s *offloadv1.Subsystem) string {
			if s.GetSince() == nil {
				return "-"
			}
			return age(c.now().Sub(s.GetSince().AsTime()))
		}},
		{name: "REASON", value: func(s *offloadv1.Subsystem) string { return cmp.Or(s.GetReason(), "-") }},
		{name: "MESSAGE", value: (*offloadv1.Subsystem).GetMessage},
	})
	for _, s := range st.GetSubsystems() {
		_ = subsystems.add(s) // tables do not fail
	}
	subsystems.end()

	fmt.Fprintln(c.stdout)
	databases := newList(c, "", []column[*offloadv1.Database]{
		{name: "DATABASE", value: (*offloadv1.Database).GetName},
		{
			name:  "STATE",
			value: func(d *offloadv1.Database) string { return connection(d.GetConnected()) },
			style: func(d *offloadv1.Database) style { return choose(d.GetConnected(), green, red) },
		},
		{name: "SYNCED", value: func(d *offloadv1.Database) string { return yesNo(d.GetSynced()) }},
		{name: "ROWS", value: func(d *offloadv1.Database) string {
			var n uint64
			for _, rows := range d.GetRows() {
				n += rows
			}
			return choose(n == 0, "-", fmt.Sprint(n))
		}},
		{name: "REMOTE", value: (*offloadv1.Database).GetRemote},
	})
	for _, d := range st.GetDatabases() {
		_ = databases.add(d) // tables do not fail
		if c.format == "wide" {
			for _, name := range sortedKeys(d.GetRows()) {
				databases.table.add([]cell{{text: "  " + name}, {}, {}, {text: fmt.Sprint(d.GetRows()[name])}, {}})
			}
		}
	}
	databases.end()
	c.printDelegated(st.GetOffload().GetDelegated())
}

// addOffload adds what there is to say of the filters. A daemon that does not tell of them is an older one.
func (c *cli) addOffload(s *sheet, o *offloadv1.Offload) {
	switch {
	case o == nil:
	case o.GetMode() == offloadv1.OffloadMode_OFFLOAD_MODE_DELEGATED:
		c.addDelegated(s, o)
	case o.GetMode() == offloadv1.OffloadMode_OFFLOAD_MODE_OFF:
		s.add("Offload", "off")
	case o.GetIdle() != "":
		s.add("Offload", "none: "+o.GetIdle())
	case o.GetComputed() == nil:
		s.add("Offload", "not computed yet")
	default:
		s.add("Offload", fmt.Sprintf("%d filters on %d devices, %d chain states, computed %s ago in %s", o.GetFilters(), o.GetDevices(),
			o.GetChainStates(), age(c.now().Sub(o.GetComputed().AsTime())), millis(o.GetTook().AsDuration())))
	}
	for _, n := range []struct {
		name  string
		count uint64
		text  string
	}{
		{"Closed", o.GetClosed(), "chains or devices, whose packets go to Open vSwitch"},
		{"Foreign", o.GetForeign(), "filters of others, which are left alone"},
		{"Shadowed", o.GetShadowed(), "filters, kept from the NIC because it has not all that come before them"},
	} {
		if n.count > 0 {
			s.add("  "+n.name, fmt.Sprintf("%d %s", n.count, n.text))
		}
	}
	for _, r := range o.GetRefused() {
		s.add("  Refused", c.paint(red, r.GetWhat()+": "+r.GetError()))
	}
	if o.GetError() != "" {
		s.add("  Failed", c.paint(red, o.GetError()))
	}
	if o.GetAckedTurn() < o.GetTurn() {
		s.add("  Behind", fmt.Sprintf("in force up to turn %d of %d", o.GetAckedTurn(), o.GetTurn()))
	}
}

func connection(ok bool) string { return choose(ok, "connected", "not connected") }

func installation(b *offloadv1.Bridge) string {
	return choose(b.GetInstalled(), "everything is installed", "not everything is installed")
}

func choose[T any](ok bool, a, b T) T {
	if ok {
		return a
	}
	return b
}
