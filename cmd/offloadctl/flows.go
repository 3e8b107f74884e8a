package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (c *cli) getFlowsCommand() *cobra.Command {
	var table int
	var cookie, row string
	var states []string
	var counters bool
	cmd := &cobra.Command{
		Use: "flows", Aliases: []string{"flow"}, Short: "list the OpenFlow flows wanted in the integration bridge", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &offloadv1.ListFlowsRequest{Row: row, Counters: counters}
			var err error
			if req.Table, err = tableFlag(cmd, table); err != nil {
				return err
			}
			if cookie != "" {
				if req.Cookie, err = strconv.ParseUint(cookie, 0, 64); err != nil {
					return usageError{fmt.Errorf("--cookie %q: not a number", cookie)}
				}
			}
			for _, s := range states {
				v, ok := offloadv1.FlowState_value["FLOW_STATE_"+strings.ToUpper(s)]
				if !ok || v == 0 {
					return usageError{fmt.Errorf("--state %q: none of installed, pending, refused", s)}
				}
				req.States = append(req.States, offloadv1.FlowState(v))
			}
			l := newList(c, "FlowList", flowColumns)
			return c.call(cmd.Context(), func(d daemon) error {
				stream, err := d.flows.ListFlows(d.ctx, req)
				if err != nil {
					return client.Error(err)
				}
				err = received(stream.Recv, func(r *offloadv1.ListFlowsResponse) error { return l.add(r.GetFlow()) })
				if err != nil {
					return err
				}
				l.end()
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&table, "table", 0, "only of this OpenFlow table, 0 to 254")
	flags.StringVar(&cookie, "cookie", "", "only with this `cookie`, as in 0x1b2c3d4e")
	flags.StringVar(&row, "row", "", "only made from the Southbound row with this `UUID`, or this beginning of one")
	flags.StringSliceVar(&states, "state", nil, "only in one of these `states`: installed, pending, refused")
	flags.BoolVar(&counters, "counters", true, "read the counters from the bridge, and those of filters")
	mustComplete(cmd, "state", "installed", "pending", "refused")
	return cmd
}

var flowColumns = []column[*offloadv1.Flow]{
	{name: "TABLE", value: func(f *offloadv1.Flow) string { return fmt.Sprint(f.GetTable()) }},
	{name: "PRIORITY", value: func(f *offloadv1.Flow) string { return fmt.Sprint(f.GetPriority()) }},
	{
		name:  "STATE",
		value: func(f *offloadv1.Flow) string { return flowStateText(f.GetState()) },
		style: func(f *offloadv1.Flow) style { return flowStateStyle(f.GetState()) },
	},
	{name: "PACKETS", value: func(f *offloadv1.Flow) string {
		return choose(f.GetCounters() == nil, "-", fmt.Sprint(f.GetCounters().GetPackets()))
	}},
	{name: "BYTES", value: func(f *offloadv1.Flow) string {
		return choose(f.GetCounters() == nil, "-", fmt.Sprint(f.GetCounters().GetBytes()))
	}},
	{name: "TC-PACKETS", value: func(f *offloadv1.Flow) string { return packetsText(f.GetFiltered()) }},
	{name: "TC-BYTES", value: func(f *offloadv1.Flow) string { return bytesText(f.GetFiltered()) }},
	{name: "AGE", value: func(f *offloadv1.Flow) string {
		return choose(f.GetCounters() == nil, "-", age(f.GetCounters().GetDuration().AsDuration()))
	}},
	{name: "COOKIE", value: func(f *offloadv1.Flow) string { return fmt.Sprintf("%#x", f.GetCookie()) }},
	{name: "ROWS", wide: true, value: func(f *offloadv1.Flow) string { return cmp.Or(strings.Join(f.GetRows(), ","), "-") }},
	{name: "MATCH", value: func(f *offloadv1.Flow) string { return cmp.Or(f.GetMatch(), "(any)") }},
	{name: "ACTIONS", value: (*offloadv1.Flow).GetActions},
}

func flowStateText(s offloadv1.FlowState) string {
	if s == offloadv1.FlowState_FLOW_STATE_UNSPECIFIED {
		return "unknown"
	}
	return strings.ToLower(strings.TrimPrefix(s.String(), "FLOW_STATE_"))
}

func flowStateStyle(s offloadv1.FlowState) style {
	switch s {
	case offloadv1.FlowState_FLOW_STATE_INSTALLED:
		return green
	case offloadv1.FlowState_FLOW_STATE_REFUSED:
		return red
	case offloadv1.FlowState_FLOW_STATE_UNSPECIFIED, offloadv1.FlowState_FLOW_STATE_PENDING:
		return yellow
	}
	return plain
}

func (c *cli) flowsCommand() *cobra.Command {
	var table int
	var counters bool
	req := &offloadv1.ListLogicalFlowsRequest{}
	var pipeline string
	var tc bool
	var filters filterFlags
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "show what OpenFlow flows each logical flow became, and what they have counted",
		Long: `flows shows the logical flows of the local datapaths as ovn-sbctl lflow-list does, and below each the flows
made from it as ovs-ofctl dump-flows does, and what TC filters have counted of packets for which they did the same. The stage is named by
pipeline and number: the daemon does not read external_ids of Logical_Flow.

With --tc it shows the TC filters instead, each as the arguments of "tc filter add", whether the kernel has it and a device has it in
hardware, and what it has counted; --port, --chain and --state select.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if tc {
				wanted, err := filters.request(cmd, req.GetLogicalPort())
				if err != nil {
					return err
				}
				return c.call(cmd.Context(), func(d daemon) error { return c.printFilters(d, wanted) })
			}
			if err := filters.refuse(cmd); err != nil {
				return err
			}
			if req.Table, err = tableFlag(cmd, table); err != nil {
				return err
			}
			switch pipeline {
			case "":
			case "ingress":
				req.Pipeline = offloadv1.Pipeline_PIPELINE_INGRESS
			case "egress":
				req.Pipeline = offloadv1.Pipeline_PIPELINE_EGRESS
			default:
				return usageError{fmt.Errorf("--pipeline %q: neither ingress nor egress", pipeline)}
			}
			if cookie, ok := strings.CutPrefix(req.GetUuid(), "0x"); ok {
				req.Uuid = strings.Repeat("0", max(8-len(cookie), 0)) + cookie // the first 32 bits
			}
			req.Counters = counters
			return c.call(cmd.Context(), func(d daemon) error { return c.printLogicalFlows(d, req) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&req.Datapath, "datapath", "", "only of the datapath with this `name` or UUID")
	flags.IntVar(&table, "table", 0, "only of this logical table")
	flags.StringVar(&pipeline, "pipeline", "", "only of this `pipeline`, ingress or egress")
	flags.StringVar(&req.LogicalPort, "port", "", "only those that mention this logical port `name`; with --tc those that its packets can meet")
	flags.StringVar(&req.Uuid, "uuid", "", "only the row with this `UUID`, this beginning of one, or this cookie, as in 0x1b2c3d4e")
	flags.BoolVar(&counters, "counters", true, "read the counters from the bridge, and those of filters")
	flags.BoolVar(&tc, "tc", false, "show the TC filters")
	flags.IntVar(&filters.chain, "chain", 0, "with --tc, only those of this chain")
	flags.StringSliceVar(&filters.states, "state", nil, "with --tc, only in one of these `states`: "+strings.Join(filterStates, ", "))
	mustComplete(cmd, "state", filterStates...)
	mustComplete(cmd, "pipeline", "ingress", "egress")
	completeFlag(cmd, "datapath", c.completeDatapaths)
	completeFlag(cmd, "port", c.completeLogicalPorts)
	return cmd
}

// tableFlag returns the table that the user named, or nil.
func tableFlag(cmd *cobra.Command, table int) (*uint32, error) {
	if !cmd.Flags().Changed("table") {
		return nil, nil
	}
	if table < 0 || table > 254 {
		return nil, usageError{fmt.Errorf("--table %d: not from 0 to 254", table)}
	}
	n := uint32(table)
	return &n, nil
}

func (c *cli) printLogicalFlows(d daemon, req *offloadv1.ListLogicalFlowsRequest) error {
	stream, err := d.flows.ListLogicalFlows(d.ctx, req)
	if err != nil {
		return client.Error(err)
	}
	l := newList[*offloadv1.LogicalFlow](c, "LogicalFlowList", nil)
	title := ""
	err = received(stream.Recv, func(r *offloadv1.ListLogicalFlowsResponse) error {
		lf := r.GetLogicalFlow()
		if c.structured() {
			return l.add(lf)
		}
		if t := logicalFlowTitle(lf); t != title {
			if title != "" {
				fmt.Fprintln(c.stdout)
			}
			title = t
			fmt.Fprintln(c.stdout, t)
		}
		c.printLogicalFlow(lf)
		return nil
	})
	if err == nil && c.structured() {
		l.end()
	}
	return err
}

// logicalFlowTitle is what ovn-sbctl(8) prints above the flows of a pipeline.
func logicalFlowTitle(lf *offloadv1.LogicalFlow) string {
	return fmt.Sprintf("Datapath: %q (%s)  Pipeline: %s", lf.GetDatapathName(), lf.GetDatapath(), pipelineText(lf.GetPipeline()))
}

func pipelineText(p offloadv1.Pipeline) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PIPELINE_"))
}

// printLogicalFlow prints one as "ovn-sbctl --uuid lflow-list" does, and below it its flows.
func (c *cli) printLogicalFlow(lf *offloadv1.LogicalFlow) {
	stage := ""
	if lf.GetStage() != "" {
		stage = fmt.Sprintf(" (%s)", lf.GetStage())
	}
	fmt.Fprintf(c.stdout, "  uuid=%s, table=%d%s, priority=%d, match=(%s), action=(%s)\n",
		lf.GetUuid(), lf.GetTable(), stage, lf.GetPriority(), lf.GetMatch(), lf.GetActions())
	if lf.GetSkipped() != "" {
		fmt.Fprintf(c.stdout, "    %s %s\n", c.paint(red, "skipped:"), lf.GetSkipped())
	}
	if n := lf.GetFiltered(); n.GetPackets() > 0 {
		fmt.Fprintf(c.stdout, "    filters: n_packets=%d, n_bytes=%d\n", n.GetPackets(), n.GetBytes())
	}
	for _, f := range lf.GetFlows() {
		fmt.Fprintf(c.stdout, "    %s\n", c.flowText(f))
	}
}

// flowText returns a flow as "ovs-ofctl dump-flows" prints it. If it is not installed the state stands in front.
func (c *cli) flowText(f *offloadv1.Flow) string {
	var b strings.Builder
	if f.GetState() != offloadv1.FlowState_FLOW_STATE_INSTALLED {
		b.WriteString(c.paint(flowStateStyle(f.GetState()), flowStateText(f.GetState())+":") + " ")
	}
	fmt.Fprintf(&b, "cookie=%#x, ", f.GetCookie())
	if n := f.GetCounters(); n != nil {
		fmt.Fprintf(&b, "duration=%ds, ", int64(n.GetDuration().AsDuration().Seconds()))
	}
	fmt.Fprintf(&b, "table=%d, ", f.GetTable())
	if n := f.GetCounters(); n != nil {
		fmt.Fprintf(&b, "n_packets=%d, n_bytes=%d, ", n.GetPackets(), n.GetBytes())
	}
	fmt.Fprintf(&b, "priority=%d", f.GetPriority())
	if f.GetMatch() != "" {
		b.WriteString("," + f.GetMatch())
	}
	b.WriteString(" actions=" + f.GetActions())
	if f.GetError() != "" {
		b.WriteString(" (" + f.GetError() + ")")
	}
	return b.String()
}
