package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (c *cli) traceCommand() *cobra.Command {
	req := &offloadv1.TraceRequest{}
	cmd := &cobra.Command{
		Use:   "trace [DATAPATH] MICROFLOW",
		Short: "follow a packet through the logical pipeline and the flows of this chassis",
		Long: `trace tells what would become of a packet, in the format of ovn-trace(8), below each logical flow with the OpenFlow flow that
the packet meets. What is traced is what this chassis has compiled; nothing is sent. The exit code is 1 if the packet is delivered nowhere.

MICROFLOW is a conjunction like
  inport == "p1" && eth.src == 0a:00:00:00:00:01 && eth.dst == 0a:00:00:00:00:02 && ip4.dst == 10.0.0.2 && ip.ttl == 64 && icmp4
What it does not mention is 0. The inport is a port of this chassis, or one that connects a router and is local.`,
		Args: usage(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Microflow = args[len(args)-1]
			if len(args) == 2 {
				req.Datapath = args[0]
			}
			return c.call(cmd.Context(), func(d daemon) error { return c.trace(d, req) })
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return c.completeDatapaths(cmd, args, begun)
		},
	}
	cmd.Flags().StringArrayVar(&req.Ct, "ct", nil,
		"`flags` of ct_state that a lookup in the connection tracker finds, such as trk,new; once for each lookup, trk,est after that")
	return cmd
}

func (c *cli) trace(d daemon, req *offloadv1.TraceRequest) error {
	stream, err := d.flows.Trace(d.ctx, req)
	if err != nil {
		return client.Error(err)
	}
	l := newList[*offloadv1.TraceStep](c, "TraceStepList", nil)
	if !c.structured() {
		fmt.Fprintf(c.stdout, "# %s\n", req.GetMicroflow())
	}
	var delivered []string
	dropped := ""
	err = received(stream.Recv, func(r *offloadv1.TraceResponse) error {
		s := r.GetStep()
		switch s.GetKind() {
		case offloadv1.TraceStepKind_TRACE_STEP_KIND_OUTPUT:
			delivered = append(delivered, fmt.Sprintf("%q (%s)", s.GetLogicalPort(), s.GetVia()))
		case offloadv1.TraceStepKind_TRACE_STEP_KIND_DROP:
			dropped = s.GetText()
		case offloadv1.TraceStepKind_TRACE_STEP_KIND_PIPELINE, offloadv1.TraceStepKind_TRACE_STEP_KIND_TABLE,
			offloadv1.TraceStepKind_TRACE_STEP_KIND_ACTION, offloadv1.TraceStepKind_TRACE_STEP_KIND_NOTE,
			offloadv1.TraceStepKind_TRACE_STEP_KIND_UNSPECIFIED:
		}
		if c.structured() {
			return l.add(s)
		}
		c.printStep(s)
		return nil
	})
	if err != nil {
		return err
	}
	if c.structured() {
		l.end()
	} else {
		c.printVerdict(delivered, dropped)
	}
	if len(delivered) == 0 {
		return errNegative
	}
	return nil
}

// printStep prints a step as ovn-trace(8) does: pipelines underlined, tables below them, and actions below those.
func (c *cli) printStep(s *offloadv1.TraceStep) {
	const step = "    "
	indent := strings.Repeat(step, int(s.GetDepth()))
	text := s.GetText()
	switch s.GetKind() {
	case offloadv1.TraceStepKind_TRACE_STEP_KIND_PIPELINE:
		fmt.Fprintf(c.stdout, "\n%s%s\n%s%s\n", indent, text, indent, strings.Repeat("-", utf8.RuneCountInString(text)))
	case offloadv1.TraceStepKind_TRACE_STEP_KIND_TABLE:
		fmt.Fprintf(c.stdout, "%s%s\n", indent, text)
		for _, f := range s.GetLogicalFlow().GetFlows() {
			fmt.Fprintf(c.stdout, "%s%s# table=%d, priority=%d", indent, step, f.GetTable(), f.GetPriority())
			if f.GetMatch() != "" {
				fmt.Fprintf(c.stdout, ",%s", f.GetMatch())
			}
			fmt.Fprintf(c.stdout, " actions=%s\n", f.GetActions())
		}
	case offloadv1.TraceStepKind_TRACE_STEP_KIND_OUTPUT:
		fmt.Fprintf(c.stdout, "%s%s%s\n", indent, step, c.paint(green, text))
	case offloadv1.TraceStepKind_TRACE_STEP_KIND_DROP:
		fmt.Fprintf(c.stdout, "%s%s%s\n", indent, step, c.paint(red, text))
	case offloadv1.TraceStepKind_TRACE_STEP_KIND_NOTE:
		fmt.Fprintf(c.stdout, "%s%s# %s\n", indent, step, text)
	case offloadv1.TraceStepKind_TRACE_STEP_KIND_ACTION, offloadv1.TraceStepKind_TRACE_STEP_KIND_UNSPECIFIED:
		fmt.Fprintf(c.stdout, "%s%s%s\n", indent, step, text)
	}
}

func (c *cli) printVerdict(delivered []string, dropped string) {
	switch {
	case len(delivered) > 0:
		fmt.Fprintf(c.stdout, "\n%s to %s\n", c.paint(green, "delivered"), strings.Join(delivered, ", "))
	case dropped == "" || dropped == "drop":
		fmt.Fprintf(c.stdout, "\n%s\n", c.paint(red, "delivered nowhere"))
	default:
		fmt.Fprintf(c.stdout, "\n%s (%s)\n", c.paint(red, "delivered nowhere"), dropped)
	}
}
