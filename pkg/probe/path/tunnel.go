package path

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// What a tunnel adds to a packet, with an outer IPv4 header.
const (
	vxlanOverhead     = 50 // IP 20, UDP 8, VXLAN 8, inner Ethernet 14
	geneveOverhead    = 50 // likewise, without options
	ipipOverhead      = 20
	greOverhead       = 24
	udpOverhead       = 28
	wireguardOverhead = 60 // IP 20, UDP 8, type, key and counter 16, tag 16
)

const (
	vni           = 1
	flannelPort   = 8472  // of flannel's vxlan
	dockerPort    = 4789  // of Docker's, and IANA's
	genevePort    = 6081  // IANA's
	sleevePort    = 8285  // of flannel's udp
	wireguardPort = 51820 // of the WireGuard manual
)

// endpoints are the addresses of tunnels' devices, as flannel gives them: the first of the node's subnet.
var endpoints = [2]netip.Prefix{netip.MustParsePrefix("198.18.1.0/32"), netip.MustParsePrefix("198.18.2.0/32")}

func endpointMAC(i int) net.HardwareAddr { return net.HardwareAddr{0x02, 0, 0, 0, 0, byte(i + 1)} }

// A tunnel is a node's device that leads to the other node.
type tunnel struct {
	overhead int
	bridged  bool // pods are on a bridge of the node

	// device is what node i is to have, named tunnelDevice, of this MTU.
	device func(node *space, i, mtu int) (netlink.Link, error)

	// ethernet says that what passes the device are frames; then forwarding entries tell where the other device is, if learned is false.
	ethernet, learned bool
}

// build makes routed pods whose packets take the tunnel to the other node.
func (t tunnel) build(_ context.Context, s *site) error {
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	mtu := s.want.mtu() - t.overhead
	for i, n := range nodes {
		link, err := t.device(n, i, mtu)
		if err != nil {
			return err
		}
		if t.ethernet {
			link.Attrs().HardwareAddr = endpointMAC(i)
		}
		if err := n.add(link); err != nil {
			return err
		}
	}
	return s.routeThroughTunnel(nodes, mtu, t)
}

// routeThroughTunnel makes pods, when the devices are there.
func (s *site) routeThroughTunnel(nodes [2]*space, mtu int, t tunnel) error {
	for i, n := range nodes {
		if err := n.up(tunnelDevice, endpoints[i]); err != nil {
			return err
		}
	}
	if err := s.routedPods(nodes, mtu, t.bridged); err != nil {
		return err
	}
	for i, n := range nodes {
		subnet, other := subnets[1-i].Masked(), endpoints[1-i].Addr()
		if !t.ethernet {
			if err := n.route(subnet, netip.Addr{}, tunnelDevice); err != nil {
				return err
			}
			continue
		}
		if err := n.neighbour(tunnelDevice, other, endpointMAC(1-i)); err != nil {
			return err
		}
		if !t.learned {
			if err := n.forwardingEntry(tunnelDevice, endpointMAC(1-i), wire[1-i].Addr()); err != nil {
				return err
			}
		}
		if err := n.route(subnet, other, tunnelDevice, netlink.FLAG_ONLINK); err != nil {
			return err
		}
	}
	return nil
}

// neighbour says which Ethernet address an IP address has.
func (s *space) neighbour(dev string, ip netip.Addr, mac net.HardwareAddr) error {
	return s.entry("neigh add", &netlink.Neigh{Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: mac}, dev)
}

// forwardingEntry says behind which node a vxlan device finds an Ethernet address.
func (s *space) forwardingEntry(dev string, mac net.HardwareAddr, node netip.Addr) error {
	return s.entry("fdb add", &netlink.Neigh{
		Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, IP: node.AsSlice(), HardwareAddr: mac,
	}, dev)
}

func (s *space) entry(asked string, n *netlink.Neigh, dev string) error {
	link, err := s.byName(dev)
	if err != nil {
		return err
	}
	n.LinkIndex = link.Attrs().Index
	if err := s.link.NeighSet(n); err != nil {
		return fmt.Errorf("netns %s: %s %s dev %s %s: %w", s.name, asked, n.IP, dev, n.HardwareAddr, err)
	}
	return nil
}

func vxlan(node *space, i, mtu, port int) (*netlink.Vxlan, error) {
	under, err := node.byName(wireDevice)
	if err != nil {
		return nil, err
	}
	return &netlink.Vxlan{
		LinkAttrs: attrs(tunnelDevice, mtu), VxlanId: vni, VtepDevIndex: under.Attrs().Index, SrcAddr: wire[i].Addr().AsSlice(), Port: port,
	}, nil
}

var flannelVXLAN = tunnel{
	overhead: vxlanOverhead, bridged: true, ethernet: true,
	device: func(node *space, i, mtu int) (netlink.Link, error) { return vxlan(node, i, mtu, flannelPort) },
}

var geneve = tunnel{
	overhead: geneveOverhead, ethernet: true, learned: true,
	device: func(_ *space, i, mtu int) (netlink.Link, error) {
		return &netlink.Geneve{LinkAttrs: attrs(tunnelDevice, mtu), ID: vni, Remote: wire[1-i].Addr().AsSlice(), Dport: genevePort}, nil
	},
}

var ipip = tunnel{
	overhead: ipipOverhead,
	device: func(_ *space, i, mtu int) (netlink.Link, error) {
		return &netlink.Iptun{
			LinkAttrs: attrs(tunnelDevice, mtu), Local: wire[i].Addr().AsSlice(), Remote: wire[1-i].Addr().AsSlice(), PMtuDisc: 1,
		}, nil
	},
}

var gre = tunnel{
	overhead: greOverhead,
	device: func(_ *space, i, mtu int) (netlink.Link, error) {
		return &netlink.Gretun{
			LinkAttrs: attrs(tunnelDevice, mtu), Local: wire[i].Addr().AsSlice(), Remote: wire[1-i].Addr().AsSlice(), PMtuDisc: 1,
		}, nil
	},
}

// buildWireGuard has keys that nobody else sees.
func buildWireGuard(_ context.Context, s *site) error {
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	mtu := s.want.mtu() - wireguardOverhead
	var keys [2]wgtypes.Key
	for i, n := range nodes {
		if err := n.add(&netlink.Wireguard{LinkAttrs: attrs(tunnelDevice, mtu)}); err != nil {
			return err
		}
		if keys[i], err = wgtypes.GeneratePrivateKey(); err != nil {
			return err
		}
	}
	for i, n := range nodes {
		port := wireguardPort
		config := wgtypes.Config{PrivateKey: &keys[i], ListenPort: &port, Peers: []wgtypes.PeerConfig{{
			PublicKey:  keys[1-i].PublicKey(),
			Endpoint:   &net.UDPAddr{IP: wire[1-i].Addr().AsSlice(), Port: wireguardPort},
			AllowedIPs: []net.IPNet{*ipNet(subnets[1-i].Masked()), *ipNet(endpoints[1-i])},
		}}}
		err := n.do(func() error {
			c, err := wgctrl.New()
			if err != nil {
				return err
			}
			defer c.Close() //nolint:errcheck // it only was to be configured
			return c.ConfigureDevice(tunnelDevice, config)
		})
		if err != nil {
			return fmt.Errorf("netns %s: wg set %s: %w", n.name, tunnelDevice, err)
		}
	}
	return s.routeThroughTunnel(nodes, mtu, tunnel{})
}

// buildOverlay is Docker's overlay network: on each node a bridge in a namespace of its own, with a vxlan port that was made in the node's and
// answers ARP for pods that it was told of.
func buildOverlay(_ context.Context, s *site) error {
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	mtu := s.want.mtu() - vxlanOverhead
	var hidden [2]*space
	var macs [2]net.HardwareAddr
	for i, n := range nodes {
		if hidden[i], err = s.space([]string{overlay1, overlay2}[i]); err != nil {
			return err
		}
		link, err := vxlan(n, i, mtu, dockerPort)
		if err != nil {
			return err
		}
		link.Proxy, link.Learning, link.L2miss, link.L3miss = true, true, true, true
		if err := n.add(link); err != nil {
			return err
		}
		if err := n.move(tunnelDevice, hidden[i]); err != nil {
			return err
		}
		role := []string{pod1, pod2}[i]
		pod, err := s.pod(role, hidden[i], flat[i], mtu)
		if err != nil {
			return err
		}
		if err := hidden[i].bridge(mtu, tunnelDevice, hostDevice(role)); err != nil {
			return err
		}
		eth, err := pod.byName(podDevice)
		if err != nil {
			return err
		}
		macs[i] = eth.Attrs().HardwareAddr
		s.setEnd(i, pod, flat[i], podDevice)
	}
	for i, h := range hidden {
		if err := h.neighbour(tunnelDevice, flat[1-i].Addr(), macs[1-i]); err != nil {
			return err
		}
		if err := h.forwardingEntry(tunnelDevice, macs[1-i], wire[1-i].Addr()); err != nil {
			return err
		}
	}
	return nil
}
