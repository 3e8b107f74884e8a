package specialize

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/tc"
)

// same says how two results of the same packet differ; nothing if they do not.
func same(rules, flows eval.Result, rulesErr, flowsErr error) string {
	a, b := outcome(rules, rulesErr), outcome(flows, flowsErr)
	if a == b {
		return ""
	}
	return fmt.Sprintf("the flows do something else than the rules\nrules: %s\nflows: %s", a, b)
}

func outcome(r eval.Result, err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "error %v, %s, ct %#x", err, effects(r), r.CT)
	for _, o := range r.Outputs {
		fmt.Fprintf(&b, "\n  output %d: %s", o.Port, formatPacket(&o.Packet))
	}
	return b.String()
}

// effects names what a packet has left behind; nothing if it is nothing.
func effects(r eval.Result) string {
	var all []string
	for _, e := range []struct {
		what string
		n    int
	}{
		{"commit", r.Commits}, {"learn", r.Learns}, {"packet-in", r.PacketIns}, {"meter", r.Meters}, {"set_queue", r.Queues}, {"sample", r.Samples},
	} {
		if e.n > 0 {
			all = append(all, fmt.Sprintf("%d %s", e.n, e.what))
		}
	}
	return strings.Join(all, ", ")
}

// agree says what is wrong with a verdict on a packet of which Open vSwitch would make r; nothing if nothing is.
//
// It may pass a packet that is as it came. It may forward or drop one with which Open vSwitch would do the same, and no more.
func agree(t *topology.Topology, r eval.Result, err error, v eval.Verdict) string {
	switch {
	case v.Kind == eval.Lost:
		return "lost: " + v.Why
	case v.Undefined:
		return "two filters of one pref do different things"
	case v.Kind == eval.Passed && !v.Pristine:
		return "passed to Open vSwitch, and not as it came"
	case v.Kind == eval.Passed:
		return ""
	case v.Kind == eval.Dropped && v.Why != "":
		return "dropped: " + v.Why
	case err != nil:
		return fmt.Sprintf("decided, where Open vSwitch reaches a limit: %v", err)
	case effects(r) != "":
		return "decided, where Open vSwitch would have done more: " + effects(r)
	case v.Kind == eval.Dropped && len(v.Copies) == 0 && len(r.Outputs) == 0:
		return ""
	case v.BadChecksum:
		return "forwarded with a wrong checksum"
	}
	want := make([]string, 0, len(r.Outputs))
	for _, o := range r.Outputs {
		want = append(want, wanted(t, o))
	}
	var got []string
	for _, c := range v.Copies {
		got = append(got, sent(t, c.Ifindex, c.Ingress, &c.Packet, c.Tunnel))
	}
	if v.Kind == eval.Redirected {
		got = append(got, sent(t, v.Ifindex, v.Ingress, &v.Packet, v.Tunnel))
	}
	slices.Sort(want)
	slices.Sort(got)
	if slices.Equal(want, got) {
		return ""
	}
	return fmt.Sprintf("%s otherwise than by Open vSwitch\nwant: %s\ngot:  %s", v.Kind,
		cmp.Or(strings.Join(want, "\n      "), "no output"), cmp.Or(strings.Join(got, "\n      "), "no output"))
}

// wanted describes an output of Open vSwitch in the words of sent.
func wanted(t *topology.Topology, o eval.Output) string {
	for _, p := range t.Ports {
		if uint32(p.OFPort) == o.Port {
			return fmt.Sprintf("%s: %s", p.Device.Name, onWire(&o.Packet))
		}
	}
	for _, x := range t.Tunnels {
		if uint32(x.OFPort) == o.Port && x.Type == "geneve" {
			return fmt.Sprintf("%s: %s in %v > %v vni %#x option %#x port %d ttl %d tos 0", t.TunnelDevice.Name, onWire(&o.Packet), x.Local, x.Remote,
				o.Packet.Value(ir.TunID).And(ir.Ones(24)).Lo, o.Packet.Value(t.Geneve).Lo, genevePort, tunnelTTL)
		}
	}
	return fmt.Sprintf("port %d, which no device stands for: %s", o.Port, onWire(&o.Packet))
}

// tunnelTTL is the TTL of what Open vSwitch sends through tunnels (DEFAULT_TTL in lib/packets.h).
const tunnelTTL = 64

// sent describes what a filter sends out.
func sent(t *topology.Topology, ifindex int, ingress bool, p *eval.Packet, x *tc.TunnelSet) string {
	if ingress {
		return fmt.Sprintf("into %d: %s", ifindex, onWire(p))
	}
	text := fmt.Sprintf("device %d: %s", ifindex, onWire(p))
	for _, port := range t.Ports {
		if port.Device.Ifindex == ifindex {
			text = fmt.Sprintf("%s: %s", port.Device.Name, onWire(p))
		}
	}
	if ifindex == t.TunnelDevice.Ifindex {
		text = fmt.Sprintf("%s: %s", t.TunnelDevice.Name, onWire(p))
	}
	switch {
	case x != nil:
		option := "none"
		if len(x.Options) == 1 && x.Options[0].Class == tc.OptionClass && x.Options[0].Type == tc.OptionType && len(x.Options[0].Data) == 4 {
			option = fmt.Sprintf("%#x", ir.FromBytes([]byte(x.Options[0].Data)).Lo)
		}
		return text + fmt.Sprintf(" in %v > %v vni %#x option %s port %d ttl %d tos %d", x.Src, x.Dst, x.ID, option, x.DstPort, x.TTL, x.TOS)
	case !p.Value(ir.TunID).IsZero() || !p.Value(ir.TunSrc).IsZero() || !p.Value(ir.TunIPv6Src).IsZero():
		return text + " with the tunnel that it came through"
	}
	return text
}

// onWire is what others see of a packet: its headers, and the mark that this host sees.
func onWire(p *eval.Packet) string {
	var m ir.Match
	for f := ir.EthSrc; f < ir.TunID; f++ {
		if v := p.Value(f); !v.IsZero() {
			m = append(m, ir.Term{Field: f, Value: v, Mask: f.Ones()})
		}
	}
	text := openflow.FormatMatch(m)
	if mark := p.Value(ir.PktMark); !mark.IsZero() {
		text += ",pkt_mark=" + mark.String()
	}
	if tags := p.Inner(); len(tags) > 0 {
		text += fmt.Sprintf(",inner tags %#x", tags)
	}
	return text
}

// formatPacket is everything about a packet.
func formatPacket(p *eval.Packet) string {
	var m ir.Match
	for f := ir.Field(1); f < ir.XReg0; f++ {
		if v := p.Value(f); !v.IsZero() {
			m = append(m, ir.Term{Field: f, Value: v, Mask: f.Ones()})
		}
	}
	return openflow.FormatMatch(m)
}

// formatConn says what a lookup has found.
func formatConn(zone uint16, c eval.Conn) string {
	var states []string
	for i, name := range []string{"new", "est", "rel", "rpl", "inv"} {
		if c.State>>i&1 != 0 {
			states = append(states, name)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "zone %d: %s mark %#x label %v", zone, strings.Join(states, "|"), c.Mark, c.Label)
	for _, x := range c.NAT {
		v := x.Value.String()
		if b := x.Value.Bytes16(); x.Field == ir.IPSrc || x.Field == ir.IPDst {
			v = netip.AddrFrom4([4]byte(b[12:])).String()
		}
		fmt.Fprintf(&b, " %s:=%s", x.Field, v)
	}
	return b.String()
}
