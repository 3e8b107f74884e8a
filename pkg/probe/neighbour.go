package probe

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nextHop returns the Ethernet address to which a network namespace sends what is for an address; nil if that is not known.
func nextHop(namespace string, to netip.Addr) net.HardwareAddr {
	ns, err := netns.GetFromPath(namespace)
	if err != nil {
		return nil
	}
	defer func() { _ = ns.Close() }() // nothing was written
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil
	}
	defer func() { _ = h.Close() }() // likewise
	routes, err := h.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return nil
	}
	hop := net.IP(to.AsSlice())
	if gw := routes[0].Gw; gw != nil {
		hop = gw
	}
	neighbours, err := h.NeighList(routes[0].LinkIndex, 0)
	if err != nil {
		return nil
	}
	for i := range neighbours {
		if n := &neighbours[i]; n.IP.Equal(hop) && len(n.HardwareAddr) == 6 {
			return n.HardwareAddr
		}
	}
	return nil
}
