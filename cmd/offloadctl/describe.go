package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func (c *cli) describeCommand() *cobra.Command {
	describe := group("describe", "show all about one thing")
	var slowest, check bool
	port := &cobra.Command{
		Use:   "port [NAME|KEY]",
		Short: "show a port: what was wanted, what there is, and how long each step took",
		Long: `NAME is that of the logical port, the identifier of the container or the interface on the host.
KEY is NETWORK/CONTAINER/IFNAME.`,
		Args: usage(func(cmd *cobra.Command, args []string) error {
			return cobra.ExactArgs(choose(slowest, 0, 1))(cmd, args)
		}),
		ValidArgsFunction: c.completePorts,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd.Context(), func(d daemon) error {
				var p *offloadv1.Port
				var err error
				if slowest {
					p, err = d.slowestPort()
				} else {
					p, err = d.findPort(args[0])
				}
				if err != nil {
					return err
				}
				if check {
					return c.checkPort(d, p)
				}
				if c.structured() {
					return c.print("Port", p)
				}
				c.printPort(p, d.countersOf(p))
				return nil
			})
		},
	}
	port.Flags().BoolVar(&slowest, "slowest", false, "the port whose creation took longest, instead of NAME")
	port.Flags().BoolVar(&check, "check", false, "compare it with the kernel and Open vSwitch; exit code 1 if it differs")
	describe.AddCommand(port, c.describeDeviceCommand())
	return describe
}

// findPort returns the port that a name or key means.
func (d daemon) findPort(name string) (*offloadv1.Port, error) {
	if key, ok := parseKey(name); ok {
		r, err := d.ports.GetPort(d.ctx, &offloadv1.GetPortRequest{Key: key})
		return r.GetPort(), client.Error(err)
	}
	var found []*offloadv1.Port
	err := d.eachPort(func(p *offloadv1.Port) error {
		if p.GetSpec().GetLogicalPort() == name || p.GetSpec().GetKey().GetContainerId() == name || p.GetStatus().GetHostInterface() == name {
			found = append(found, p)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, notFound{fmt.Errorf("no port %q on this node; see offloadctl get ports", name)}
	case len(found) > 1:
		var keys []string
		for _, p := range found {
			keys = append(keys, keyText(p.GetSpec().GetKey()))
		}
		return nil, usageError{fmt.Errorf("%q means several ports: %s", name, strings.Join(keys, ", "))}
	}
	return found[0], nil
}

func (d daemon) eachPort(f func(*offloadv1.Port) error) error {
	return pages(func(token string) ([]*offloadv1.Port, string, error) {
		r, err := d.ports.ListPorts(d.ctx, &offloadv1.ListPortsRequest{PageToken: token})
		return r.GetPorts(), r.GetNextPageToken(), err
	}, f)
}

// slowestPort returns the port whose creation took longest.
func (d daemon) slowestPort() (*offloadv1.Port, error) {
	var slowest *offloadv1.Port
	var longest time.Duration
	err := d.eachPort(func(p *offloadv1.Port) error {
		if took, ok := timelineTotal(p.GetStatus().GetTimeline()); ok && (slowest == nil || took > longest) {
			slowest, longest = p, took
		}
		return nil
	})
	if err == nil && slowest == nil {
		err = notFound{fmt.Errorf("no port has been created on this node")}
	}
	return slowest, err
}

func parseKey(s string) (*offloadv1.PortKey, bool) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return nil, false
	}
	return &offloadv1.PortKey{Network: parts[0], ContainerId: parts[1], Ifname: parts[2]}, true
}

// countersOf returns what filters have counted of a port's packets; nil if there are no filters, or nothing is known of the port.
func (d daemon) countersOf(p *offloadv1.Port) *offloadv1.PortCounters {
	var found *offloadv1.PortCounters
	_ = d.eachCounters(&offloadv1.ListPortCountersRequest{Port: p.GetStatus().GetHostInterface()}, func(n *offloadv1.PortCounters) error {
		found = n
		return nil
	}) // the port is worth showing without it
	return found
}

// printPort prints a port; n may be nil.
func (c *cli) printPort(p *offloadv1.Port, n *offloadv1.PortCounters) {
	spec, status := p.GetSpec(), p.GetStatus()
	s := &sheet{c: c}
	s.add("Port", spec.GetLogicalPort())
	s.add("State", c.paint(stateStyle(status.GetState()), stateText(status.GetState())))
	s.add("Reason", status.GetReason())
	s.add("Message", status.GetMessage())
	s.add("Network", spec.GetKey().GetNetwork())
	s.add("Container", spec.GetKey().GetContainerId())
	s.add("Namespace", spec.GetNetns())
	s.add("Kind", kindText(status.GetKind()))
	s.add("Wanted", wantedText(spec, status))
	s.add("Fell back", status.GetFellBack())
	if f := status.GetFunction(); f != nil {
		s.add("Device", fmt.Sprintf("%s on the bus %s, pool %s, use %d", f.GetDevice(), f.GetBus(), f.GetPool(), f.GetGeneration()))
		s.add("RDMA device", f.GetRdmaDevice())
		s.add("Devlink port", fmt.Sprintf("%s, %s %d of PF %d", f.GetDevlinkPort(), kindText(status.GetKind()), f.GetNumber(), f.GetPf()))
		if n := f.GetNuma(); n >= 0 {
			s.add("NUMA node", fmt.Sprint(n))
		}
	}
	s.add("Attributes", strings.Join(attributeWords(spec.GetAttributes()), " "))
	s.add("Interface", fmt.Sprintf("%s in the container, %s on the host", spec.GetKey().GetIfname(), status.GetHostInterface()))
	s.add("MAC", status.GetMac())
	s.add("Addresses", strings.Join(status.GetAddresses(), ", "))
	s.add("Gateways", strings.Join(status.GetGateways(), ", "))
	for _, r := range status.GetRoutes() {
		s.add("Route", routeText(r))
	}
	s.add("MTU", orDash(status.GetMtu()))
	s.add("OpenFlow port", orDash(status.GetOfport()))
	s.add("CT zone", orDash(status.GetZone()))
	if n != nil {
		s.add("Filters", fmt.Sprintf("%d packets (%d bytes) from it, %d packets (%d bytes) to it",
			n.GetFrom().GetPackets(), n.GetFrom().GetBytes(), n.GetTo().GetPackets(), n.GetTo().GetBytes()))
	}
	for _, key := range sortedKeys(spec.GetLabels()) {
		s.add("Label", key+"="+spec.GetLabels()[key])
	}
	if t := status.GetCreated(); t != nil {
		s.add("Created", fmt.Sprintf("%s (%s ago)", t.AsTime().Format(time.RFC3339), age(c.now().Sub(t.AsTime()))))
	}
	if steps := status.GetTimeline(); len(steps) > 0 {
		s.add("Timeline", millis(extent(steps)))
	}
	s.print()
	c.printTimeline(status.GetTimeline())
}

// wantedText says of which kind a port should have been; "" if it could be of one only.
func wantedText(spec *offloadv1.PortSpec, status *offloadv1.PortStatus) string {
	var words []string
	if k := spec.GetKind(); k != offloadv1.PortKind_PORT_KIND_AUTO {
		words = append(words, kindText(k))
	}
	for _, k := range spec.GetFallback() {
		words = append(words, kindText(k))
	}
	if len(words) == 1 && words[0] == kindText(status.GetKind()) {
		return ""
	}
	return strings.Join(words, ", or else ")
}

// attributeWords are those that are asked for, as ip-link(8) has them.
func attributeWords(a *offloadv1.FunctionAttributes) []string {
	var words []string
	say := func(set bool, name string, value any) {
		if set {
			words = append(words, name, fmt.Sprint(value))
		}
	}
	word := func(e fmt.Stringer, prefix string) string {
		return strings.ToLower(strings.TrimPrefix(e.String(), prefix))
	}
	say(a.GetVlan() != 0, "vlan", a.GetVlan())
	say(a.GetQos() != 0, "qos", a.GetQos())
	say(a.GetVlanProtocol() == offloadv1.VlanProtocol_VLAN_PROTOCOL_8021AD, "proto", "802.1ad")
	if a != nil {
		say(a.Trust != nil, "trust", choose(a.GetTrust(), "on", "off"))              //nolint:protogetter // absent is not off
		say(a.SpoofCheck != nil, "spoofchk", choose(a.GetSpoofCheck(), "on", "off")) //nolint:protogetter // likewise
	}
	say(a.GetLinkState() != 0, "state", word(a.GetLinkState(), "LINK_STATE_"))
	say(a.GetMinRate() != 0, "min_rate", fmt.Sprintf("%dbit/s", a.GetMinRate()))
	say(a.GetMaxRate() != 0, "max_rate", fmt.Sprintf("%dbit/s", a.GetMaxRate()))
	say(a.GetInfinibandGuid() != "", "infiniband_guid", a.GetInfinibandGuid())
	say(a.GetRdma(), "rdma", "true")
	return words
}

// extent returns how long it took from the beginning of the first step to the end of the last that is over.
func extent(steps []*offloadv1.Step) time.Duration {
	first := steps[0].GetStarted().AsTime()
	last := first
	for _, s := range steps {
		if end := s.GetStarted().AsTime().Add(s.GetDuration().AsDuration()); end.After(last) {
			last = end
		}
	}
	return last.Sub(first)
}

func routeText(r *offloadv1.Route) string {
	words := []string{r.GetDestination()}
	if r.GetGateway() != "" {
		words = append(words, "via", r.GetGateway())
	}
	for _, o := range []struct {
		name  string
		value uint32
	}{{"mtu", r.GetMtu()}, {"advmss", r.GetAdvmss()}, {"metric", r.GetMetric()}} {
		if o.value != 0 {
			words = append(words, o.name, fmt.Sprint(o.value))
		}
	}
	return strings.Join(words, " ")
}

// timelineBar is the width of the drawing of a timeline, in columns.
const timelineBar = 40

// printTimeline draws when each step began and how long it took.
func (c *cli) printTimeline(steps []*offloadv1.Step) {
	if len(steps) == 0 {
		return
	}
	first, total := steps[0].GetStarted().AsTime(), extent(steps)
	t := table{c: c}
	if !c.noHeaders {
		t.heading = []cell{{text: "  STEP"}, {text: "AT"}, {text: "TOOK"}, {}}
	}
	for _, s := range steps {
		at, took := s.GetStarted().AsTime().Sub(first), s.GetDuration().AsDuration()
		text := millis(took)
		if s.GetDuration() == nil {
			text = "under way"
		}
		t.add([]cell{{text: "  " + s.GetName()}, {text: "+" + millis(at)}, {text: text}, {text: bar(at, took, total)}})
	}
	t.flush()
}

// bar draws a stretch of time as part of the total.
func bar(at, took, total time.Duration) string {
	if total <= 0 {
		return ""
	}
	column := func(d time.Duration) int { return int(int64(timelineBar) * int64(d) / int64(total)) }
	from, to := column(at), column(at+took)
	if to == from {
		return strings.Repeat(" ", min(from, timelineBar-1)) + "|"
	}
	return strings.Repeat(" ", from) + strings.Repeat("#", to-from)
}

// checkPort prints in what a port differs from reality.
func (c *cli) checkPort(d daemon, p *offloadv1.Port) error {
	r, err := d.ports.CheckPort(d.ctx, &offloadv1.CheckPortRequest{Key: p.GetSpec().GetKey()})
	if err != nil {
		return client.Error(err)
	}
	if c.structured() {
		err = c.print("PortCheck", r)
	} else {
		if len(r.GetProblems()) == 0 {
			fmt.Fprintf(c.stdout, "%s is as it should be\n", p.GetSpec().GetLogicalPort())
		}
		for _, problem := range r.GetProblems() {
			fmt.Fprintf(c.stdout, "%s: %s\n", c.paint(red, problem.GetReason()), problem.GetMessage())
		}
	}
	if err == nil && len(r.GetProblems()) > 0 {
		err = errNegative
	}
	return err
}
