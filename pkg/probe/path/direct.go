package path

import (
	"context"
	"net/netip"

	"github.com/vishvananda/netlink"
)

var loopback = netip.MustParsePrefix("127.0.0.1/8")

func buildHost(_ context.Context, s *site) error {
	node, err := s.space(node1)
	if err != nil {
		return err
	}
	for i := range 2 {
		s.setEnd(i, node, loopback, "lo")
	}
	return nil
}

func buildMetal(_ context.Context, s *site) error {
	nodes, err := s.nodes()
	for i, n := range nodes {
		if err == nil {
			s.setEnd(i, n, wire[i], wireDevice)
		}
	}
	return err
}

func buildMacvlan(_ context.Context, s *site) error {
	return s.slaves(flat, func(parent int) netlink.Link {
		a := attrs(podDevice, s.want.mtu())
		a.ParentIndex = parent
		return &netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE}
	})
}

func buildIpvlanL2(_ context.Context, s *site) error {
	return s.slaves(flat, s.ipvlan(netlink.IPVLAN_MODE_L2))
}

// buildIpvlanL3 is for the modes L3 and L3S, in which pods have no neighbours: their node routes for them.
func buildIpvlanL3(mode netlink.IPVlanMode) func(context.Context, *site) error {
	return func(_ context.Context, s *site) error {
		if err := s.slaves(subnets, s.ipvlan(mode)); err != nil {
			return err
		}
		for i, role := range []string{pod1, pod2} {
			if err := s.spaces[role].route(anywhere, netip.Addr{}, podDevice); err != nil {
				return err
			}
			if err := s.spaces[[]string{node1, node2}[i]].route(subnets[1-i].Masked(), wire[1-i].Addr(), wireDevice); err != nil {
				return err
			}
		}
		return nil
	}
}

func (s *site) ipvlan(mode netlink.IPVlanMode) func(parent int) netlink.Link {
	return func(parent int) netlink.Link {
		a := attrs(podDevice, s.want.mtu())
		a.ParentIndex = parent
		return &netlink.IPVlan{LinkAttrs: a, Mode: mode}
	}
}

// slaves makes a pod on each node that has a device on top of the wire.
func (s *site) slaves(addrs [2]netip.Prefix, device func(parent int) netlink.Link) error {
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	for i, role := range []string{pod1, pod2} {
		pod, err := s.space(role)
		if err != nil {
			return err
		}
		parent, err := nodes[i].byName(wireDevice)
		if err != nil {
			return err
		}
		if err := nodes[i].add(device(parent.Attrs().Index)); err != nil {
			return err
		}
		if err := nodes[i].move(podDevice, pod, addrs[i]); err != nil {
			return err
		}
		s.setEnd(i, pod, addrs[i], podDevice)
	}
	return nil
}

func buildVeth(_ context.Context, s *site) error {
	node, err := s.space(node1)
	if err != nil {
		return err
	}
	return s.routedPods([2]*space{node, node}, s.want.mtu(), false)
}

func buildBridge(_ context.Context, s *site) error {
	node, err := s.space(node1)
	if err != nil {
		return err
	}
	if err := node.bridge(s.want.mtu()); err != nil {
		return err
	}
	for i, role := range []string{pod1, pod2} {
		pod, err := s.pod(role, node, flat[i], s.want.mtu())
		if err != nil {
			return err
		}
		if err := node.enslave(hostDevice(role), bridgeDevice); err != nil {
			return err
		}
		s.setEnd(i, pod, flat[i], podDevice)
	}
	return nil
}
