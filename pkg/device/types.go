package device

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/offloadd/offloadd/pkg/devlink"
)

// A Kind is what a function is.
type Kind string

// The kinds.
const (
	VF Kind = "vf"
	SF Kind = "sf"
)

// A Link is a network device. Its index is 0 while there is none in the host's network namespace.
type Link struct {
	Name  string `json:"name,omitempty"`
	Index int    `json:"index,omitempty"`
}

// A Function is a VF or an SF: a port of an embedded switch, its representor, and what is at the other end. It is a value in motion, for
// journals too: what identifies it over restarts and resets are the device's handle, Kind, PF and Number.
type Function struct {
	Handle devlink.PortHandle `json:"handle"` // of the representor's port
	Kind   Kind               `json:"kind"`
	PF     uint16             `json:"pf"`
	Number uint32             `json:"number"` // of the VF, from 0, or the sfnum
	Pool   string             `json:"pool"`

	// Bus and Device are what sysfs calls the function: "pci" and "0000:03:00.2", "auxiliary" and "mlx5_core.sf.4"; "" while an SF has no
	// device.
	Bus    string `json:"bus,omitempty"`
	Device string `json:"device,omitempty"`

	Representor Link `json:"representor"`
	Netdev      Link `json:"netdev"` // the function's own
	NUMA        int  `json:"numa"`   // node; -1: none

	// RDMA is the RDMA device that it had when it was acquired; "": none, or nobody has the function.
	RDMA string `json:"rdma,omitempty"`

	// Generation is that of this use. Each use has one of its own, which is larger than those before, so that a late release of an
	// earlier use is refused.
	Generation uint64 `json:"generation"`

	// Before is what Release restores. It is nobody else's concern.
	Before Before `json:"before"`
}

// Name is what people call a function: its representor's port, and which function of which PF it is.
func (f Function) Name() string {
	return fmt.Sprintf("%v (pf%d%s%d)", f.Handle, f.PF, f.Kind, f.Number)
}

// Before is what a function was set to when it was acquired.
type Before struct {
	HWAddr *MAC   `json:"hw_addr,omitempty"` // of the port's function, which a driver takes for its netdev when it is bound; nil: the driver does not say
	Netdev string `json:"netdev,omitempty"`  // the name

	MAC            MAC       `json:"mac,omitzero"` // the netdev's
	MTU            int       `json:"mtu,omitempty"`
	RepresentorMTU int       `json:"representor_mtu,omitempty"`
	VF             *VFConfig `json:"vf,omitempty"`   // nil: nothing was asked for that changes it
	Rate           *Rate     `json:"rate,omitempty"` // likewise
}

// VFConfig is what the PF's netdev keeps of a VF, as ip-link(8) shows it. Drivers have parts of it only; nil and "": not this one.
type VFConfig struct {
	MAC        *MAC      `json:"mac,omitempty"`
	VLAN       *VLAN     `json:"vlan,omitempty"`
	Trust      *bool     `json:"trust,omitempty"`
	SpoofCheck *bool     `json:"spoof_check,omitempty"`
	LinkState  LinkState `json:"link_state,omitempty"`
	Rate       *Rate     `json:"rate,omitempty"`
	NodeGUID   *GUID     `json:"node_guid,omitempty"` // of InfiniBand, as PortGUID
	PortGUID   *GUID     `json:"port_guid,omitempty"`
}

// A VLAN is a tag that a NIC adds to what a VF sends, and takes off what it gets.
type VLAN struct {
	ID       uint16 `json:"id"` // 1 to 4094; 0: none
	QoS      uint8  `json:"qos,omitempty"`
	Protocol uint16 `json:"protocol,omitempty"` // an EtherType, 0x8100 or 0x88a8; 0: 0x8100
}

// A LinkState is what a VF sees of its link: the PF's, or always up, or always down.
type LinkState string

// The link states, in the words of ip-link(8).
const (
	LinkAuto    LinkState = "auto"
	LinkEnable  LinkState = "enable"
	LinkDisable LinkState = "disable"
)

// A Rate says how fast a function may send, in bits a second: at least and at most. 0: nothing is promised, or there is no limit.
type Rate struct {
	Min uint64 `json:"min,omitempty"`
	Max uint64 `json:"max,omitempty"`
}

// Attributes are what a function is to be set to. The zero value of each, nil for pointers: it is left as it is.
type Attributes struct {
	MAC MAC // of the netdev, and of the port's function, so that it lasts
	MTU int // bytes; of the netdev and of the representor

	VLAN       *VLAN // VFs only, as all up to GUID
	Trust      *bool
	SpoofCheck *bool
	LinkState  LinkState
	GUID       *GUID // of InfiniBand: of the node and of its port

	MinRate, MaxRate *uint64 // bits a second; 0: none
	RDMA             bool    // it has to have an RDMA device
}

// A Request is for a function.
type Request struct {
	Pool       string // "": any
	Device     string // as Function.Device: that one; as Pool.Slot: any of that pool; "": any of the pool
	Kinds      []Kind // in order of preference; none: of any kind
	Owner      string // the port's key. An owner has one function: another Acquire returns the same
	Attributes Attributes
}

// A State is where a function is in its life. Transitions are in state.go.
type State string

// The states.
const (
	Unknown     State = "UNKNOWN"     // it was there at the start, and nobody has told yet whose it is
	Warming     State = "WARMING"     // an SF is being made, or has no network device yet
	Free        State = "FREE"        // it can be acquired
	Used        State = "USED"        // it has an owner
	Resetting   State = "RESETTING"   // it is restored to what it was, and verified
	Quarantined State = "QUARANTINED" // it could not be verified: nobody gets it
	Removing    State = "REMOVING"    // an SF is being deleted
	Gone        State = "GONE"        // it has an owner, but no longer exists
	Unmanaged   State = "UNMANAGED"   // it belongs to no pool
)

// States lists all states.
func States() []State {
	return []State{Unknown, Warming, Free, Used, Resetting, Quarantined, Removing, Gone, Unmanaged}
}

// A GUID names a node or a port of InfiniBand, in the order of transmission.
type GUID [8]byte

// String returns like 02:00:00:00:00:00:00:01.
func (g GUID) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x:%02x:%02x", g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7])
}

// MarshalText returns the text of String.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (g *GUID) UnmarshalText(text []byte) (err error) {
	*g, err = ParseGUID(string(text))
	return err
}

// ParseGUID takes eight pairs of hexadecimal digits with colons between them.
func ParseGUID(s string) (GUID, error) {
	var g GUID
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(s) != 23 || copy(g[:], b) != len(g) || !strings.EqualFold(g.String(), s) {
		return GUID{}, fmt.Errorf("%q: not a GUID", s)
	}
	return g, nil
}

// A MAC is an Ethernet address, in the order of transmission. The zero MAC is none.
type MAC [6]byte

// String returns like 0a:00:00:00:00:01.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText returns the text of String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (m *MAC) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMAC(string(text))
	return err
}

// ParseMAC takes six pairs of hexadecimal digits with colons between them.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(s) != 17 || copy(m[:], b) != len(m) || !strings.EqualFold(m.String(), s) {
		return MAC{}, fmt.Errorf("%q: not a MAC address", s)
	}
	return m, nil
}
