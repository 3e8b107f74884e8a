package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (c *cli) getPortsCommand() *cobra.Command {
	var filter portFilter
	cmd := &cobra.Command{
		Use: "ports", Aliases: []string{"port"}, Short: "list the ports of pods on this node", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := filter.message()
			if err != nil {
				return err
			}
			l := newList(c, "PortList", c.portColumns())
			return c.call(cmd.Context(), func(d daemon) error {
				return listed(l, func(token string) ([]*offloadv1.Port, string, error) {
					r, err := d.ports.ListPorts(d.ctx, &offloadv1.ListPortsRequest{Filter: f, PageToken: token})
					return r.GetPorts(), r.GetNextPageToken(), err
				})
			})
		},
	}
	filter.flags(c, cmd)
	return cmd
}

func (c *cli) watchCommand() *cobra.Command {
	watch := group("watch", "show changes as they happen")
	var filter portFilter
	ports := &cobra.Command{
		Use: "ports", Aliases: []string{"port"}, Short: "show the ports and then their changes, until interrupted", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := filter.message()
			if err != nil {
				return err
			}
			err = c.stream(cmd.Context(), func(d daemon) error {
				stream, err := d.ports.WatchPorts(d.ctx, &offloadv1.WatchPortsRequest{Filter: f})
				if err != nil {
					return client.Error(err)
				}
				return received(stream.Recv, c.portEvents())
			})
			if cmd.Context().Err() != nil {
				return nil // it was interrupted, as it is meant to be
			}
			return err
		},
	}
	filter.flags(c, ports)
	watch.AddCommand(ports, c.watchDevicesCommand())
	return watch
}

// portEvents returns what prints the events of a watch: a line for each change, in columns that grow as needed.
func (c *cli) portEvents() func(*offloadv1.WatchPortsResponse) error {
	events := map[offloadv1.EventType]string{
		offloadv1.EventType_EVENT_TYPE_EXISTS:  "exists",
		offloadv1.EventType_EVENT_TYPE_CHANGED: "changed",
		offloadv1.EventType_EVENT_TYPE_DELETED: "deleted",
	}
	event := ""
	columns := append([]column[*offloadv1.Port]{{name: "EVENT", value: func(*offloadv1.Port) string { return event }}}, c.portColumns()...)
	l := newList(c, "", columns)
	l.table.widths = []int{len("changed")}
	return func(e *offloadv1.WatchPortsResponse) error {
		if c.structured() {
			return c.printEvent(e)
		}
		switch e.GetType() {
		case offloadv1.EventType_EVENT_TYPE_LOST:
			l.table.flush()
			fmt.Fprintf(c.stdout, "LOST %d changes; everything anew:\n", e.GetLost())
			return nil
		case offloadv1.EventType_EVENT_TYPE_EXISTS, offloadv1.EventType_EVENT_TYPE_CHANGED, offloadv1.EventType_EVENT_TYPE_DELETED:
			event = events[e.GetType()]
			if err := l.add(e.GetPort()); err != nil {
				return err
			}
			if e.GetType() == offloadv1.EventType_EVENT_TYPE_EXISTS {
				return nil // until all are known, so that they are aligned
			}
		case offloadv1.EventType_EVENT_TYPE_SYNCED, offloadv1.EventType_EVENT_TYPE_HEARTBEAT, offloadv1.EventType_EVENT_TYPE_UNSPECIFIED:
		}
		l.table.flush()
		return nil
	}
}

// A portFilter is the flags that select ports.
type portFilter struct {
	network, container, lport, netns string
	states                           []string
}

func (f *portFilter) flags(c *cli, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.network, "network", "", "only of this `network`")
	flags.StringVar(&f.container, "container", "", "only of the container with this `id`")
	flags.StringVar(&f.lport, "port", "", "only with this logical port `name`")
	flags.StringVar(&f.netns, "netns", "", "only in the network namespace at this `path`")
	flags.StringSliceVar(&f.states, "state", nil, "only in one of these `states`: creating, plugged, ready, deleting, failed")
	mustComplete(cmd, "state", "creating", "plugged", "ready", "deleting", "failed")
	completeFlag(cmd, "port", c.completePorts)
}

func (f *portFilter) message() (*offloadv1.PortFilter, error) {
	m := &offloadv1.PortFilter{Network: f.network, ContainerId: f.container, LogicalPort: f.lport, Netns: f.netns}
	for _, s := range f.states {
		v, ok := offloadv1.PortState_value["PORT_STATE_"+strings.ToUpper(s)]
		if !ok || v == 0 {
			return nil, usageError{fmt.Errorf("--state %q: none of creating, plugged, ready, deleting, failed", s)}
		}
		m.States = append(m.States, offloadv1.PortState(v))
	}
	return m, nil
}

func (c *cli) portColumns() []column[*offloadv1.Port] {
	type port = *offloadv1.Port
	return []column[port]{
		{name: "PORT", value: func(p port) string { return p.GetSpec().GetLogicalPort() }},
		{name: "STATE", value: func(p port) string { return stateText(p.GetStatus().GetState()) }, style: func(p port) style {
			return stateStyle(p.GetStatus().GetState())
		}},
		{name: "ADDRESSES", value: func(p port) string { return cmp.Or(strings.Join(p.GetStatus().GetAddresses(), ","), "-") }},
		{name: "MAC", value: func(p port) string { return cmp.Or(p.GetStatus().GetMac(), "-") }},
		{name: "KIND", value: func(p port) string { return kindText(p.GetStatus().GetKind()) }},
		{name: "INTERFACE", value: func(p port) string { return cmp.Or(p.GetStatus().GetHostInterface(), "-") }},
		{name: "CREATE", value: func(p port) string {
			total, ok := timelineTotal(p.GetStatus().GetTimeline())
			return choose(ok, millis(total), "-")
		}},
		{name: "AGE", value: func(p port) string {
			if p.GetStatus().GetCreated() == nil {
				return "-"
			}
			return age(c.now().Sub(p.GetStatus().GetCreated().AsTime()))
		}},
		{name: "REASON", value: func(p port) string { return cmp.Or(p.GetStatus().GetReason(), "-") }},
		{name: "DEVICE", wide: true, value: func(p port) string { return cmp.Or(p.GetStatus().GetFunction().GetDevice(), "-") }},
		{name: "POOL", wide: true, value: func(p port) string { return cmp.Or(p.GetStatus().GetFunction().GetPool(), "-") }},
		{name: "OFPORT", wide: true, value: func(p port) string { return orDash(p.GetStatus().GetOfport()) }},
		{name: "ZONE", wide: true, value: func(p port) string { return orDash(p.GetStatus().GetZone()) }},
		{name: "MTU", wide: true, value: func(p port) string { return orDash(p.GetStatus().GetMtu()) }},
		{name: "KEY", wide: true, value: func(p port) string { return keyText(p.GetSpec().GetKey()) }},
		{name: "NETNS", wide: true, value: func(p port) string { return p.GetSpec().GetNetns() }},
	}
}

func stateText(s offloadv1.PortState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "PORT_STATE_"))
}

// kindText returns "-" if it is not decided.
func kindText(k offloadv1.PortKind) string {
	if k == offloadv1.PortKind_PORT_KIND_UNSPECIFIED {
		return "-"
	}
	return strings.ToLower(strings.TrimPrefix(k.String(), "PORT_KIND_"))
}

func stateStyle(s offloadv1.PortState) style {
	switch s {
	case offloadv1.PortState_PORT_STATE_READY:
		return green
	case offloadv1.PortState_PORT_STATE_FAILED:
		return red
	case offloadv1.PortState_PORT_STATE_UNSPECIFIED, offloadv1.PortState_PORT_STATE_CREATING,
		offloadv1.PortState_PORT_STATE_PLUGGED, offloadv1.PortState_PORT_STATE_DELETING:
		return yellow
	}
	return plain
}

func keyText(k *offloadv1.PortKey) string {
	return k.GetNetwork() + "/" + k.GetContainerId() + "/" + k.GetIfname()
}

// timelineTotal returns how long all steps together took; false if they are not over or there is none.
func timelineTotal(steps []*offloadv1.Step) (time.Duration, bool) {
	if len(steps) == 0 || steps[len(steps)-1].GetDuration() == nil {
		return 0, false
	}
	return extent(steps), true
}
