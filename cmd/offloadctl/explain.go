package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (c *cli) explainCommand() *cobra.Command {
	names := make([]string, len(reason.Table))
	for i, e := range reason.Table {
		names[i] = string(e.Reason)
	}
	var ct []string
	cmd := &cobra.Command{
		Use:   "explain REASON | PORT [PACKET]",
		Short: "say what a reason means, or where a port's packets are handled and why",
		Long: `explain REASON says what a reason of an error means and what to do; it needs no daemon.

explain PORT tells how many of a port's packets are forwarded by filters, and why others are left to Open vSwitch: the reason, what would
change it, and the logical flow that decides; with -o wide also reasons that no packet has met. Of filters that a NIC does not have it tells
what its driver says: for that it is offered one of each kind once more, for a moment, where no packet comes. PORT is a logical port or a
device.

explain PORT PACKET tells where a packet of the port is handled: by the NIC, by TC or by Open vSwitch, the filters that it meets, and
why it is left to Open vSwitch. If offload is delegated to Open vSwitch both show megaflows of its datapath instead: of the port, or those
that the packet meets. PACKET is a conjunction like
  eth.src == 0a:00:00:00:00:01 && eth.dst == 0a:00:00:00:00:02 && ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && tcp.dst == 80
What it does not mention is 0, but for the TTL, which is 64. The exit code is 1 if the packet is delivered nowhere.`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if len(ct) > 0 {
					return usageError{errors.New("--ct: is about a packet, and there is none")}
				}
				if e, ok := reason.Find(reason.Reason(strings.ToUpper(args[0]))); ok {
					c.printReason(e)
					return nil
				}
				return c.call(cmd.Context(), func(d daemon) error { return c.explainPort(d, args[0]) })
			}
			if strings.TrimSpace(args[1]) == "" {
				return usageError{errors.New("explain: the packet is empty")}
			}
			req := &offloadv1.ExplainRequest{Port: args[0], Microflow: args[1], Ct: ct}
			return c.call(cmd.Context(), func(d daemon) error { return c.explainPacket(d, req) })
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			reasons, _ := fixed(names)(cmd, args, begun)
			ports, _ := c.completePorts(cmd, args, begun)
			return append(reasons, ports...), cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().StringArrayVar(&ct, "ct", nil,
		"`flags` of ct_state that a lookup in the connection tracker finds, such as trk,new; once for each lookup, trk,est after that")
	return cmd
}

func (c *cli) printReason(e reason.Entry) {
	s := &sheet{c: c}
	s.add("Reason", string(e.Reason))
	s.add("Meaning", e.Meaning)
	s.add("Remedy", e.Remedy)
	s.add("Seen", e.Runbook().Seen)
	s.add("Retry", choose(e.Retry, "the same call may succeed later", "the same call fails again until somebody does something"))
	s.add("Exit code", fmt.Sprint(exitOfReason(e.Reason)))
	s.add("CNI code", fmt.Sprint(e.CNI))
	if e.Status != 0 {
		s.add("CNI STATUS", fmt.Sprint(e.Status))
	}
	s.print()
	for _, list := range []struct {
		heading  string
		commands []string
	}{{"What shows it", e.Runbook().Look}, {"What mends it", e.Runbook().Mend}} {
		if len(list.commands) > 0 {
			fmt.Fprintf(c.stdout, "\n%s:\n  %s\n", list.heading, strings.Join(list.commands, "\n  "))
		}
	}
}

func (c *cli) explainPort(d daemon, port string) error {
	e, err := d.flows.Explain(d.ctx, &offloadv1.ExplainRequest{Port: port})
	if err != nil {
		return client.Error(err)
	}
	if c.structured() {
		return c.print("Explanation", e)
	}
	s := &sheet{c: c}
	s.add("Port", port)
	s.add("Device", e.GetDevice())
	if e.GetDelegated() {
		s.add("Offload", "delegated to Open vSwitch")
		s.add("Idle", e.GetIdle())
		s.print()
		c.printMegaflows(e)
		return nil
	}
	s.add("Filters", cmp.Or(e.GetIdle(), "handle the device's packets"))
	if e.GetPunted() != nil {
		f, p := e.GetForwarded(), e.GetPunted()
		total := f.GetPackets() + e.GetDropped().GetPackets() + p.GetPackets()
		s.add("Forwarded", share(f, total))
		s.add("Dropped", share(e.GetDropped(), total))
		s.add("Left to OVS", share(p, total))
	}
	if n := e.GetInHw(); n > 0 || len(e.GetRefusals()) > 0 {
		s.add("In hardware", hardwareText(e))
	}
	s.add("Counted", choose(e.GetShared(), "with packets of other ports that come to the same chains", ""))
	s.print()
	met, names := e.GetPunts(), []string(nil)
	if c.format != "wide" {
		met = nil
		for _, p := range e.GetPunts() {
			if p.GetCounters().GetPackets() > 0 {
				met = append(met, p)
			} else if !slices.Contains(names, p.GetReason()) {
				names = append(names, p.GetReason())
			}
		}
	}
	c.printRefusals(e.GetRefusals())
	c.printPunts(met, true)
	if len(names) > 0 {
		fmt.Fprintf(c.stdout, "\nwithout packets (-o wide says why): %s\n", strings.Join(names, ", "))
	}
	return nil
}

// hardwareText says how many of the filters that a port's packets can meet are in hardware.
func hardwareText(e *offloadv1.ExplainResponse) string {
	all := e.GetInHw()
	for _, r := range e.GetRefusals() {
		all += r.GetFilters()
	}
	return fmt.Sprintf("%d of %d filters", e.GetInHw(), all)
}

// printRefusals prints why filters are not in hardware.
func (c *cli) printRefusals(refusals []*offloadv1.Refusal) {
	for _, r := range refusals {
		fmt.Fprintf(c.stdout, "\n%s: %d filters, %d packets\n", c.paint(yellow, "not in hardware"), r.GetFilters(), r.GetCounters().GetPackets())
		fmt.Fprintf(c.stdout, "  why:  %s\n  one:  %s\n", r.GetText(), filterNoise.ReplaceAllString(r.GetExample(), ""))
	}
}

// share prints a count and what part of the total it is.
func share(n *offloadv1.Counters, total uint64) string {
	text := fmt.Sprintf("%d packets, %d bytes", n.GetPackets(), n.GetBytes())
	if total > 0 {
		text += fmt.Sprintf(" (%.1f %%)", 100*float64(n.GetPackets())/float64(total))
	}
	return text
}

// printPunts prints why packets are left to Open vSwitch. Without counts there is one packet.
func (c *cli) printPunts(punts []*offloadv1.Punt, counts bool) {
	for _, p := range punts {
		fmt.Fprintln(c.stdout)
		head := c.paint(yellow, p.GetReason())
		if counts {
			head += fmt.Sprintf(": %d packets at %d filters", p.GetCounters().GetPackets(), p.GetFilters())
			head += choose(p.GetShared(), ", of all ports", "")
		}
		fmt.Fprintln(c.stdout, head)
		fmt.Fprintf(c.stdout, "  why:  %s\n  fix:  %s\n", p.GetText(), p.GetFix())
		if lf := p.GetLogicalFlow(); lf != nil {
			fmt.Fprintf(c.stdout, "  flow: %s\n", flowLine(lf))
		}
	}
}

func (c *cli) explainPacket(d daemon, req *offloadv1.ExplainRequest) error {
	e, err := d.flows.Explain(d.ctx, req)
	if err != nil {
		return client.Error(err)
	}
	delivered := false
	for _, l := range e.GetLayers() {
		delivered = delivered || l.GetDelivers()
	}
	if c.structured() {
		if err := c.print("Explanation", e); err != nil {
			return err
		}
	} else {
		c.printPacket(e)
	}
	if !delivered {
		return errNegative
	}
	return nil
}

func (c *cli) printPacket(e *offloadv1.ExplainResponse) {
	t := table{c: c}
	if !c.noHeaders {
		t.heading = []cell{{text: "LAYER"}, {text: "PACKET"}, {text: "WHY"}}
	}
	for _, l := range e.GetLayers() {
		answer := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(l.GetAnswer().String(), "LAYER_ANSWER_")), "_", " ")
		s := plain
		if l.GetAnswer() == offloadv1.LayerAnswer_LAYER_ANSWER_DECIDES {
			s = red
			if l.GetDelivers() {
				s = green
			}
		}
		t.add([]cell{{text: layerText(l.GetLayer())}, {text: answer, style: s}, {text: l.GetText()}})
	}
	t.flush()
	if len(e.GetFilters()) > 0 {
		fmt.Fprintln(c.stdout)
	}
	for _, f := range e.GetFilters() {
		fmt.Fprintf(c.stdout, "%s\n", filterNoise.ReplaceAllString(f.GetText(), ""))
	}
	c.printPunts(e.GetPunts(), false)
	if e.GetDelegated() && len(e.GetMegaflows()) > 0 {
		c.printMegaflows(e)
	}
}

func layerText(l offloadv1.Layer) string {
	return strings.ToLower(strings.TrimPrefix(l.String(), "LAYER_"))
}
