package daemon

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/sb"
)

// addresses returns the MAC and IP addresses of a logical port, in the notation of the column mac of Port_Binding: its first entry,
// unless that says that ovn-northd assigns some. Those it writes into the Northbound only; the Southbound has them in logical flows.
// It returns "" if there are none (yet).
func addresses(store *sb.Store, p *sb.Port) string {
	switch {
	case len(p.MAC) == 0:
		return ""
	case !slices.Contains(strings.Fields(p.MAC[0]), "dynamic"):
		return p.MAC[0]
	}
	var a assigned
	for _, f := range store.FlowsOf(p.Datapath) {
		a.add(f, p.Name)
	}
	for id := range store.GroupsOf(p.Datapath) {
		for _, f := range store.FlowsOfGroup(id) {
			a.add(f, p.Name)
		}
	}
	return a.String()
}

// assigned collects addresses from logical flows of a switch that are about one port.
type assigned struct {
	mac string
	ips []netip.Addr
}

// add looks for three flows, see ovn-northd(8): that of Destination Lookup, "eth.dst == MAC" to the port, and in ARP/ND responder
// those that let requests for the port's own addresses pass, whose matches end with its name.
func (a *assigned) add(f *sb.LogicalFlow, lport string) {
	name := strconv.Quote(lport)
	if mac, ok := strings.CutPrefix(f.Match, "eth.dst == "); ok && f.Actions == "outport = "+name+"; output;" {
		a.mac = mac
		return
	}
	match, ok := strings.CutSuffix(f.Match, " && inport == "+name)
	if !ok || f.Actions != "next;" {
		return
	}
	target := ""
	if rest, ok := strings.CutPrefix(match, "arp.tpa == "); ok {
		target, _ = strings.CutSuffix(rest, " && arp.op == 1")
	} else if _, rest, ok := strings.Cut(match, " && nd.target == "); ok && strings.HasPrefix(match, "nd_ns && ") {
		target = rest
	}
	if ip, err := netip.ParseAddr(target); err == nil && !ip.IsLinkLocalUnicast() && !slices.Contains(a.ips, ip) {
		a.ips = append(a.ips, ip)
	}
}

// String is empty while something is missing: ovn-northd assigns a MAC address with at least one of IP.
func (a *assigned) String() string {
	if a.mac == "" || len(a.ips) == 0 {
		return ""
	}
	slices.SortFunc(a.ips, netip.Addr.Compare)
	words := []string{a.mac}
	for _, ip := range a.ips {
		words = append(words, ip.String())
	}
	return strings.Join(words, " ")
}
