package chassis

import (
	"maps"
	"slices"

	"github.com/offloadd/offloadd/pkg/sb"
)

// Local is what the compiler must know of this chassis. It does not change once handed out. Two plans hold the same
// pointer exactly if nothing in it changed.
type Local struct {
	Name    string // of the chassis
	Chassis sb.UUID
	Bridge  string // the integration bridge

	// Datapaths that some local port can reach: those of the ports here, and over patch ports their peers.
	Datapaths map[sb.UUID]*LocalDatapath

	// Ports maps the name of a logical port to the interface it has here: VIFs that may be bound to this chassis,
	// whether or not the Southbound says so yet, and localports. A container port is reached through its parent.
	Ports map[string]LocalPort

	// Related are the ports whose logical flows matter here. A logical flow whose tags:in_out_port names another
	// port can be left out.
	Related map[sb.UUID]struct{}

	// Zones maps "<lport>", "<datapath uuid>_dnat" and "<datapath uuid>_snat" to conntrack zones, which are never 0.
	Zones map[string]uint16

	// Tunnels are the tunnel ports of the bridge, sorted by Chassis, then RemoteIP.
	Tunnels []Tunnel

	// ActiveTunnels are the chassis to which a tunnel's BFD session is up.
	ActiveTunnels map[string]struct{}

	// Patch maps localnet and l2gateway ports to the OpenFlow port of their patch port.
	Patch map[string]uint16

	// CTZeroSNAT says that the OVS datapath supports SNAT to the address 0.0.0.0, for all-zero SNAT of ports.
	CTZeroSNAT bool

	// HashL4Sym says that the OVS datapath can hash the ports of a packet alike in both directions
	// (OVS_HASH_ALG_SYM_L4), for select groups.
	HashL4Sym bool
}

// LocalDatapath is a logical switch or router that some packet of this chassis can reach.
type LocalDatapath struct {
	UUID     sb.UUID
	IsSwitch bool
	// Localnet is the localnet port whose network is mapped to a bridge here, zero if there is none. If there are
	// several it is the one with the first name.
	Localnet sb.UUID
	// Peers are the patch ports that lead to other local datapaths, sorted by Local.
	Peers []Peer
	// Multichassis are the VIFs bound to more than one chassis, sorted.
	Multichassis []sb.UUID
	// External are the external ports, sorted.
	External []sb.UUID
}

// Peer is a pair of connected ports; Local belongs to the datapath at hand.
type Peer struct{ Local, Remote sb.UUID }

// LocalPort is the interface of a logical port on the integration bridge.
type LocalPort struct {
	OFPort uint16 // 1..MaxOFPort
	Iface  string // name
	MTU    int    // bytes, 0 if unknown
}

// MaxOFPort is the largest OpenFlow port number of a port, OFPP_MAX of OpenFlow 1.0.
const MaxOFPort = 0xff00

// Tunnel is a tunnel port of the integration bridge.
type Tunnel struct {
	Chassis  string // name of the remote chassis
	Type     string // geneve, vxlan or stt
	RemoteIP string
	OFPort   uint16
	IsIPv6   bool // RemoteIP is an IPv6 address
}

// equal reports whether two values would make the same program.
func (l *Local) equal(m *Local) bool {
	if l == nil || m == nil {
		return l == m
	}
	return l.Name == m.Name && l.Chassis == m.Chassis && l.Bridge == m.Bridge && l.CTZeroSNAT == m.CTZeroSNAT &&
		l.HashL4Sym == m.HashL4Sym &&
		maps.EqualFunc(l.Datapaths, m.Datapaths, (*LocalDatapath).equal) &&
		maps.Equal(l.Ports, m.Ports) &&
		maps.Equal(l.Related, m.Related) &&
		maps.Equal(l.Zones, m.Zones) &&
		slices.Equal(l.Tunnels, m.Tunnels) &&
		maps.Equal(l.ActiveTunnels, m.ActiveTunnels) &&
		maps.Equal(l.Patch, m.Patch)
}

func (d *LocalDatapath) equal(e *LocalDatapath) bool {
	return d.UUID == e.UUID && d.IsSwitch == e.IsSwitch && d.Localnet == e.Localnet &&
		slices.Equal(d.Peers, e.Peers) && slices.Equal(d.Multichassis, e.Multichassis) &&
		slices.Equal(d.External, e.External)
}
