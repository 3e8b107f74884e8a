package main

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// filterFlags are those of flows --tc.
type filterFlags struct {
	chain  int
	states []string
}

// maxChain is the largest number of a chain (TC_ACT_EXT_VAL_MASK).
const maxChain = 1<<28 - 1

// request returns the request for the filters that the flags select.
func (f *filterFlags) request(cmd *cobra.Command, port string) (*offloadv1.ListFiltersRequest, error) {
	for _, flag := range []string{"datapath", "table", "pipeline", "uuid"} {
		if cmd.Flags().Changed(flag) {
			return nil, usageError{fmt.Errorf("--%s: selects logical flows, not filters", flag)}
		}
	}
	req := &offloadv1.ListFiltersRequest{Port: port}
	if cmd.Flags().Changed("chain") {
		if f.chain < 0 || f.chain > maxChain {
			return nil, usageError{fmt.Errorf("--chain %d: not from 0 to %d", f.chain, maxChain)}
		}
		n := uint32(f.chain)
		req.Chain = &n
	}
	for _, s := range f.states {
		v, ok := offloadv1.FilterState_value["FILTER_STATE_"+strings.ToUpper(s)]
		if !ok || v == 0 {
			return nil, usageError{fmt.Errorf("--state %q: none of %s", s, strings.Join(filterStates, ", "))}
		}
		req.States = append(req.States, offloadv1.FilterState(v))
	}
	return req, nil
}

// refuse refuses the flags without --tc.
func (f *filterFlags) refuse(cmd *cobra.Command) error {
	for _, flag := range []string{"chain", "state"} {
		if cmd.Flags().Changed(flag) {
			return usageError{fmt.Errorf("--%s: selects filters; say --tc", flag)}
		}
	}
	return nil
}

var filterStates = []string{"installed", "missing", "refused", "different", "surplus", "foreign", "delegated"}

func (c *cli) printFilters(d daemon, req *offloadv1.ListFiltersRequest) error {
	stream, err := d.flows.ListFilters(d.ctx, req)
	if err != nil {
		return client.Error(err)
	}
	l := newList(c, "FilterList", c.filterColumns())
	err = received(stream.Recv, func(r *offloadv1.ListFiltersResponse) error { return l.add(r.GetFilter()) })
	if err == nil {
		l.end()
	}
	return err
}

func (c *cli) filterColumns() []column[*offloadv1.Filter] {
	return []column[*offloadv1.Filter]{
		{name: "CHAIN", value: func(f *offloadv1.Filter) string { return fmt.Sprint(f.GetChain()) }},
		{name: "PREF", value: func(f *offloadv1.Filter) string { return fmt.Sprint(f.GetPref()) }},
		{name: "HANDLE", value: func(f *offloadv1.Filter) string { return fmt.Sprintf("%#x", f.GetHandle()) }},
		{name: "KIND", value: func(f *offloadv1.Filter) string { return filterKindText(f.GetKind()) }},
		{
			name:  "STATE",
			value: func(f *offloadv1.Filter) string { return filterStateText(f.GetState()) },
			style: func(f *offloadv1.Filter) style { return filterStateStyle(f.GetState()) },
		},
		{name: "HW", value: func(f *offloadv1.Filter) string { return yesNo(f.GetInHw()) }},
		{name: "PACKETS", value: func(f *offloadv1.Filter) string { return packetsText(f.GetCounters()) }},
		{name: "BYTES", value: func(f *offloadv1.Filter) string { return bytesText(f.GetCounters()) }},
		{name: "PUNT", value: func(f *offloadv1.Filter) string { return cmp.Or(f.GetReason(), "-") }},
		{name: "ROWS", wide: true, value: func(f *offloadv1.Filter) string { return cmp.Or(strings.Join(f.GetRows(), ","), "-") }},
		{name: "UFID", wide: true, value: func(f *offloadv1.Filter) string { return cmp.Or(f.GetUfid(), "-") }},
		{name: "FILTER", value: func(f *offloadv1.Filter) string {
			text := f.GetText()
			if c.format != "wide" {
				text = shortFilter(text)
			}
			if f.GetState() == offloadv1.FilterState_FILTER_STATE_DELEGATED {
				text = "dev " + f.GetDevice() + " ingress " + text
			}
			if f.GetError() != "" {
				text += " (" + f.GetError() + ")"
			}
			if f.GetNotInHw() != "" {
				text += " (not in hardware: " + f.GetNotInHw() + ")"
			}
			return text
		}},
	}
}

// What is the same in each filter, or in other columns.
var (
	filterNoise = regexp.MustCompile(` cookie [0-9a-f]{32}| no_percpu`)
	filterKey   = regexp.MustCompile(`^chain \d+ pref \d+ handle \S+ `)
)

func shortFilter(text string) string {
	return filterKey.ReplaceAllString(filterNoise.ReplaceAllString(text, ""), "")
}

func (c *cli) getCountersCommand() *cobra.Command {
	req := &offloadv1.ListPortCountersRequest{}
	cmd := &cobra.Command{
		Use: "counters", Short: "list what filters have forwarded from and to each port", Args: usage(cobra.NoArgs),
		Long: `counters lists what TC filters have forwarded from and to each port, which Open vSwitch has not seen. FROM counts packets that the
filters of chain 0 have not left to Open vSwitch; a later chain may have, as with the first packets of connections.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l := newList(c, "PortCountersList", portCountersColumns)
			return c.call(cmd.Context(), func(d daemon) error {
				if err := d.eachCounters(req, l.add); err != nil {
					return err
				}
				l.end()
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&req.Port, "port", "", "only of the logical port or device with this `name`")
	completeFlag(cmd, "port", c.completeLogicalPorts)
	return cmd
}

var portCountersColumns = []column[*offloadv1.PortCounters]{
	{name: "PORT", value: func(p *offloadv1.PortCounters) string { return cmp.Or(p.GetLogicalPort(), "-") }},
	{name: "DEVICE", value: (*offloadv1.PortCounters).GetDevice},
	{name: "FROM-PACKETS", value: func(p *offloadv1.PortCounters) string { return packetsText(p.GetFrom()) }},
	{name: "FROM-BYTES", value: func(p *offloadv1.PortCounters) string { return bytesText(p.GetFrom()) }},
	{name: "TO-PACKETS", value: func(p *offloadv1.PortCounters) string { return packetsText(p.GetTo()) }},
	{name: "TO-BYTES", value: func(p *offloadv1.PortCounters) string { return bytesText(p.GetTo()) }},
}

func (d daemon) eachCounters(req *offloadv1.ListPortCountersRequest, f func(*offloadv1.PortCounters) error) error {
	stream, err := d.flows.ListPortCounters(d.ctx, req)
	if err != nil {
		return client.Error(err)
	}
	return received(stream.Recv, func(r *offloadv1.ListPortCountersResponse) error { return f(r.GetPort()) })
}

func packetsText(n *offloadv1.Counters) string {
	return choose(n == nil, "-", fmt.Sprint(n.GetPackets()))
}

func bytesText(n *offloadv1.Counters) string { return choose(n == nil, "-", fmt.Sprint(n.GetBytes())) }

func filterKindText(k offloadv1.FilterKind) string {
	if k == offloadv1.FilterKind_FILTER_KIND_UNSPECIFIED {
		return "-"
	}
	return strings.ToLower(strings.TrimPrefix(k.String(), "FILTER_KIND_"))
}

func filterStateText(s offloadv1.FilterState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "FILTER_STATE_"))
}

func filterStateStyle(s offloadv1.FilterState) style {
	switch s {
	case offloadv1.FilterState_FILTER_STATE_INSTALLED, offloadv1.FilterState_FILTER_STATE_DELEGATED:
		return green
	case offloadv1.FilterState_FILTER_STATE_REFUSED, offloadv1.FilterState_FILTER_STATE_DIFFERENT:
		return red
	case offloadv1.FilterState_FILTER_STATE_UNSPECIFIED, offloadv1.FilterState_FILTER_STATE_MISSING,
		offloadv1.FilterState_FILTER_STATE_SURPLUS, offloadv1.FilterState_FILTER_STATE_FOREIGN:
		return yellow
	}
	return plain
}

func (c *cli) chainsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "chains PORT",
		Short: "show the chains of TC filters that a port's packets can come to, and the logical flows behind each rule",
		Long: `chains shows where the packets of a logical port, or of a device, are sent by filters: for each chain what is known of the packets
there, and its rules in order, of which the first that matches counts. Below a rule stands what its filter has counted, and the logical flow
that decides; with -o wide all rows that lead to it. At the end of a chain packets are left to Open vSwitch.`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd.Context(), func(d daemon) error { return c.printChains(d, args[0]) })
		},
		ValidArgsFunction: c.completePorts,
	}
}

func (c *cli) printChains(d daemon, port string) error {
	stream, err := d.flows.ListChains(d.ctx, &offloadv1.ListChainsRequest{Port: port})
	if err != nil {
		return client.Error(err)
	}
	l := newList[*offloadv1.ListChainsResponse](c, "ChainItemList", nil)
	any := false
	err = received(stream.Recv, func(r *offloadv1.ListChainsResponse) error {
		if c.structured() {
			return l.add(r)
		}
		if chain := r.GetChain(); chain != nil {
			if any {
				fmt.Fprintln(c.stdout)
			}
			any = true
			fmt.Fprintln(c.stdout, chain.GetText())
			return nil
		}
		c.printChainRule(r.GetRule())
		return nil
	})
	if err != nil {
		return err
	}
	if c.structured() || !any {
		l.end()
	}
	return nil
}

func (c *cli) printChainRule(r *offloadv1.ChainRule) {
	s := plain
	switch r.GetVerdict() {
	case offloadv1.ChainVerdict_CHAIN_VERDICT_OUTPUT:
		s = green
	case offloadv1.ChainVerdict_CHAIN_VERDICT_DROP:
		s = red
	case offloadv1.ChainVerdict_CHAIN_VERDICT_PUNT:
		s = yellow
	case offloadv1.ChainVerdict_CHAIN_VERDICT_GOTO, offloadv1.ChainVerdict_CHAIN_VERDICT_LOOKUP, offloadv1.ChainVerdict_CHAIN_VERDICT_UNSPECIFIED:
	}
	fmt.Fprintf(c.stdout, "  %s: %s\n", cmp.Or(r.GetMatch(), "any"), c.paint(s, r.GetText()))
	switch n := r.GetCounters(); {
	case n != nil:
		fmt.Fprintf(c.stdout, "      n_packets=%d, n_bytes=%d\n", n.GetPackets(), n.GetBytes())
	case r.GetNoFilter():
		fmt.Fprintln(c.stdout, "      no filter: the end of the chain does the same")
	default:
		fmt.Fprintf(c.stdout, "      %s\n", c.paint(yellow, "its filter is not installed"))
	}
	if lf := r.GetLogicalFlow(); lf != nil {
		fmt.Fprintf(c.stdout, "      %s\n", flowLine(lf))
	}
	if c.format == "wide" && len(r.GetRows()) > 0 {
		fmt.Fprintf(c.stdout, "      rows=%s\n", strings.Join(r.GetRows(), ","))
	}
}

// flowLine is a logical flow in a line.
func flowLine(lf *offloadv1.LogicalFlow) string {
	return fmt.Sprintf("%s %s: uuid=%s, table=%d, priority=%d, match=(%s), action=(%s)",
		lf.GetDatapathName(), pipelineText(lf.GetPipeline()), lf.GetUuid(), lf.GetTable(), lf.GetPriority(), lf.GetMatch(), lf.GetActions())
}

func (c *cli) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff",
		Short: "compare the TC filters that are wanted with those that the kernel has",
		Long: `diff reads the kernel's filters and prints a line with + for each that it lacks, with - for each of ours that is not wanted, both for
one that does something else, and with ? for those that others have made. The exit code is 1 if there is a difference but filters of
others, which are left alone.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.call(cmd.Context(), c.printDiff)
		},
	}
}

func (c *cli) printDiff(d daemon) error {
	stream, err := d.flows.DiffFilters(d.ctx, &offloadv1.DiffFiltersRequest{})
	if err != nil {
		return client.Error(err)
	}
	l := newList[*offloadv1.DiffFiltersResponse](c, "FilterDifferenceList", nil)
	any, differs := false, false
	err = received(stream.Recv, func(r *offloadv1.DiffFiltersResponse) error {
		any = true
		differs = differs || r.GetFilter().GetState() != offloadv1.FilterState_FILTER_STATE_FOREIGN
		if c.structured() {
			return l.add(r)
		}
		c.printDifference(r)
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case c.structured():
		l.end()
	case !any:
		fmt.Fprintln(c.stdout, "the kernel has the filters that are wanted, and no others")
	}
	if differs {
		return errNegative
	}
	return nil
}

func (c *cli) printDifference(r *offloadv1.DiffFiltersResponse) {
	f := r.GetFilter()
	if f == nil {
		fmt.Fprintf(c.stdout, "%s device %s: it does not have the block\n", c.paint(green, "+"), r.GetDevice())
		return
	}
	line := func(s style, sign, text, why string) {
		if why != "" {
			why = " (" + why + ")"
		}
		fmt.Fprintf(c.stdout, "%s %s%s\n", c.paint(s, sign), filterNoise.ReplaceAllString(text, ""), why)
	}
	switch f.GetState() {
	case offloadv1.FilterState_FILTER_STATE_MISSING:
		line(green, "+", f.GetText(), "")
	case offloadv1.FilterState_FILTER_STATE_REFUSED:
		line(green, "+", f.GetText(), "refused: "+f.GetError())
	case offloadv1.FilterState_FILTER_STATE_DIFFERENT:
		line(red, "-", f.GetInstalled(), "")
		line(green, "+", f.GetText(), "")
	case offloadv1.FilterState_FILTER_STATE_SURPLUS:
		why := ""
		if f.GetKind() == offloadv1.FilterKind_FILTER_KIND_CLOSED {
			why = "it closes the chain or device"
		}
		line(red, "-", f.GetText(), why)
	case offloadv1.FilterState_FILTER_STATE_FOREIGN:
		line(yellow, "?", f.GetText(), f.GetInstalled())
	case offloadv1.FilterState_FILTER_STATE_INSTALLED, offloadv1.FilterState_FILTER_STATE_DELEGATED,
		offloadv1.FilterState_FILTER_STATE_UNSPECIFIED:
	}
}
