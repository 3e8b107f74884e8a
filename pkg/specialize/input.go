package specialize

import (
	"net/netip"

	"github.com/offloadd/offloadd/pkg/ir"
)

// An Input is what is known of the node. The ports and tunnels that are not named cannot be sent to.
type Input struct {
	// Ports are the OpenFlow ports that are network devices with pods behind them. Their order does not matter.
	Ports []Port

	// Tunnels are the Geneve tunnel ports, and TunnelDevice is the device that all of them use; nil if there is none.
	Tunnels      []Tunnel
	TunnelDevice *Device

	// Geneve is the tun_metadata field of OVN's Geneve option in the program; 0 while it is unknown.
	Geneve ir.Field

	Caps   Caps
	Budget Budget
}

// A Device is a network device of the node. Chains know it by its name, so that a device that is made anew changes none.
type Device struct {
	Name    string
	Ifindex int // 0: it is not there

	// Tunnel says that it is the device of tunnels, for whose packets drivers take only filters that ask for a tunnel.
	Tunnel bool
}

// A Port is an OpenFlow port that is a network device.
type Port struct {
	OFPort uint16
	Device Device
	// Enter says that filters handle packets that arrive from the port; otherwise they are only sent to it.
	Enter bool
}

// A Tunnel is a Geneve tunnel port: packets from Remote to Local arrive by it, and it sends from Local to Remote. An invalid
// Local is any address of the node, and the one that the route to Remote says.
type Tunnel struct {
	OFPort        uint16
	Remote, Local netip.Addr
	// NoCSum says that outer UDP checksums are not computed (options:csum=false).
	NoCSum bool
}

// Caps is what kernel and devices can do, as far as the shape of the chains depends on it.
type Caps struct {
	// TunnelKeysInEveryChain makes filters for packets from a tunnel ask for the tunnel's keys in all chains, as mlx5 needs it, and says guards
	// once more, for packets from tunnels. Ends of chains it may lack: it leaves what it has no filter for to the kernel anyway.
	TunnelKeysInEveryChain bool

	// WholeLabel says that labels of connections can be matched as a whole only, as in mlx5.
	WholeLabel bool

	// NoFrag says that tunnel_key can set DF on the outer packet (Linux 6.3).
	NoFrag bool
}

// A Budget bounds what is made. Zero fields stand for the defaults.
type Budget struct {
	// ChainRules bounds the rules of one chain, TotalRules those of all, one half for IPv4 and one for IPv6.
	ChainRules, TotalRules int
}

const (
	defaultChainRules = 16384
	defaultTotalRules = 1 << 20
)
