package path

import (
	"cmp"
	"context"
	"net/netip"
)

// buildRouted is for pods with a veth pair to their node, or to a bridge of it, and routes between the nodes.
func buildRouted(bridged bool) func(context.Context, *site) error {
	return func(_ context.Context, s *site) error {
		_, err := s.routed(bridged)
		return err
	}
}

func (s *site) routed(bridged bool) ([2]*space, error) {
	nodes, err := s.nodes()
	if err != nil {
		return nodes, err
	}
	if err := s.routedPods(nodes, s.want.mtu(), bridged); err != nil {
		return nodes, err
	}
	for i, n := range nodes {
		if err := n.route(subnets[1-i].Masked(), wire[1-i].Addr(), wireDevice); err != nil {
			return nodes, err
		}
	}
	return nodes, nil
}

// usualRules is how many rules routed-rules has unless it is told: what a node with some dozens of policies has.
const usualRules = 200

func buildRoutedRules(_ context.Context, s *site) error {
	s.want.Rules = cmp.Or(s.want.Rules, usualRules)
	_, err := s.routed(false)
	return err
}

// serviceAddr is an address that no device has.
var serviceAddr = netip.MustParseAddr("198.18.255.1")

// buildService is buildRouted with a service in front of the server, as kube-proxy's nftables mode makes them.
func buildService(_ context.Context, s *site) error {
	nodes, err := s.routed(false)
	if err != nil {
		return err
	}
	s.path.Target = serviceAddr
	return nodes[0].translate(serviceAddr, s.path.Server.Addr, "")
}

// buildBridgeNAT is Docker's bridge with a published port: the client leaves with its node's address, and the server is reached by
// that of its own.
func buildBridgeNAT(_ context.Context, s *site) error {
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	if err := s.routedPods(nodes, s.want.mtu(), true); err != nil {
		return err
	}
	s.path.Target = wire[1].Addr()
	if err := nodes[0].masquerade(wireDevice); err != nil {
		return err
	}
	return nodes[1].translate(wire[1].Addr(), s.path.Server.Addr, wireDevice)
}

// buildFlowtable is buildRouted with connections taken out of the routing after their first packets.
func buildFlowtable(_ context.Context, s *site) error {
	nodes, err := s.routed(false)
	if err != nil {
		return err
	}
	for i, role := range []string{pod1, pod2} {
		if err := nodes[i].flowtable(wireDevice, hostDevice(role)); err != nil {
			return err
		}
	}
	return nil
}
