// Package ports makes and removes the ports of pods: it carries each through its states, journals before it acts, and
// undoes what fails.
package ports

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A Key names a port on this node.
type Key struct {
	Network     string // the network's name in the CNI configuration
	ContainerID string
	Ifname      string // inside the container
}

// ProbeNetwork is the network of the ports that the probe makes, and removes: nobody else may have ports of it.
const ProbeNetwork = "offloadd-probe"

// Compare orders keys by network, container and interface.
func (k Key) Compare(o Key) int {
	return cmp.Or(
		strings.Compare(k.Network, o.Network),
		strings.Compare(k.ContainerID, o.ContainerID),
		strings.Compare(k.Ifname, o.Ifname))
}

// String returns the parts with slashes between them, which no part of a valid key has.
func (k Key) String() string { return k.Network + "/" + k.ContainerID + "/" + k.Ifname }

// parseKey reads what String returns of a valid key.
func parseKey(s string) (Key, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Key{}, fmt.Errorf("%q: not the key of a port", s)
	}
	k := Key{parts[0], parts[1], parts[2]}
	return k, k.Validate()
}

func isKey(s string) bool {
	_, err := parseKey(s)
	return err == nil
}

// A Kind is what a port is made of.
type Kind string

// The kinds.
const (
	Veth Kind = "veth" // a pair of virtual Ethernet devices
	VF   Kind = "vf"   // a virtual function of a NIC
	SF   Kind = "sf"   // a subfunction of a NIC
	Auto Kind = "auto" // what Spec.Fallback has, in that order; no port is of this kind
)

// Addressing says where the addresses of a port come from.
type Addressing string

// The ways of addressing.
const (
	// Static: from the Spec. Without a MAC address there the kernel chooses one.
	Static Addressing = "static"
	// FromLogicalPort: from the first entry of the column mac of Port_Binding.
	FromLogicalPort Addressing = "logical-port"
)

// DefaultMTU leaves room for Geneve over IPv4 in frames of 1500 bytes, as OVN's documentation asks for.
const DefaultMTU = 1442

// A Route is a route inside the container, in the main table.
type Route struct {
	Destination netip.Prefix // masked
	Gateway     netip.Addr   // the zero Addr: on the link
	MTU         int          // bytes; 0: the interface's
	AdvMSS      int          // bytes; 0: the kernel derives it
	Metric      uint32       // the lower wins; 0: the kernel's default
}

// A VLANProto is the protocol of a VLAN tag.
type VLANProto string

// The protocols of VLAN tags, in the words of ip-link(8).
const (
	VLAN8021Q  VLANProto = "802.1q"
	VLAN8021AD VLANProto = "802.1ad"
)

// A LinkState is what a VF sees of its link: the PF's, or always up, or always down.
type LinkState string

// The link states, in the words of ip-link(8).
const (
	LinkAuto    LinkState = "auto"
	LinkEnable  LinkState = "enable"
	LinkDisable LinkState = "disable"
)

// Attributes are what a function is set to as long as the port has it. A field that is zero leaves it as it is.
type Attributes struct {
	VLAN       uint16    `json:",omitzero"` // what the NIC tags its packets with, 1 to 4094
	QoS        uint8     `json:",omitzero"` // the priority in that tag, 0 to 7
	VLANProto  VLANProto `json:",omitzero"` // the tag's protocol; "": 802.1q
	Trust      *bool     `json:",omitzero"` // it may become promiscuous, and choose its addresses
	SpoofCheck *bool     `json:",omitzero"` // other source MAC addresses than its own are dropped
	LinkState  LinkState `json:",omitzero"`
	MinRate    uint64    `json:",omitzero"` // bit/s that it sends, guaranteed
	MaxRate    uint64    `json:",omitzero"` // bit/s that it sends at most
	RDMA       bool      `json:",omitzero"` // it has to have an RDMA device

	GUID *device.GUID `json:",omitzero"` // of InfiniBand, of the node and of its port
}

// equal compares values, not pointers.
func (a Attributes) equal(o Attributes) bool {
	if !same(a.Trust, o.Trust) || !same(a.SpoofCheck, o.SpoofCheck) || !same(a.GUID, o.GUID) {
		return false
	}
	a.Trust, a.SpoofCheck, a.GUID, o.Trust, o.SpoofCheck, o.GUID = nil, nil, nil, nil, nil, nil
	return a == o
}

func same[T comparable](x, y *T) bool {
	return x == nil && y == nil || x != nil && y != nil && *x == *y
}

// A Spec is what a caller wants. A valid one (Validate) has every field set that has a default.
type Spec struct {
	Key         Key
	Netns       string // absolute path
	Kind        Kind
	Fallback    []Kind     `json:",omitzero"` // what it may be instead, in order of preference; with Auto, what it may be
	Pool        string     `json:",omitzero"` // where a function comes from
	Device      string     `json:",omitzero"` // which function it has to be, as sysfs names it; "": any
	Attributes  Attributes `json:",omitzero"` // of the function
	LogicalPort string
	IfaceIDVer  string // "" is none
	Addressing  Addressing
	MAC         MAC // of the container's side; the zero MAC: see Addressing
	Addresses   []netip.Prefix
	Gateways    []netip.Addr // at most one of each family; a default route by each
	Routes      []Route
	MTU         int // bytes
	Labels      map[string]string
}

// A State is where a port is in its life.
type State string

// The states.
const (
	Creating State = "CREATING" // the steps of its creation are being done
	Plugged  State = "PLUGGED"  // in the bridge, but its flows are not installed (yet, or any more)
	Ready    State = "READY"    // its flows are installed
	Deleting State = "DELETING" // it is being removed, or undone
	Failed   State = "FAILED"   // something of it was taken away, or it cannot be removed
)

// States lists all states.
func States() []State { return []State{Creating, Plugged, Ready, Deleting, Failed} }

// A Step is a part of a port's creation or removal, and when it was done.
type Step struct {
	Name     string
	Started  time.Time
	Duration time.Duration // negative: it is not over
}

// A Port is what was wanted and what there is. It is a value in motion: once handed over, nothing in it changes.
type Port struct {
	Spec          Spec
	Kind          Kind             // what it is made of; "": that is not decided yet
	FellBack      string           `json:",omitzero"` // why it is not of the kind that was preferred; "": it is
	Function      *device.Function `json:",omitzero"` // that it is made of; nil: none
	State         State
	Reason        reason.Reason // why it is not ready; "" if nothing is wrong
	Message       string        // the same for people
	HostInterface string        // the Interface in the integration bridge; "": not decided yet
	MAC           MAC
	Addresses     []netip.Prefix
	Gateways      []netip.Addr
	Routes        []Route
	MTU           int    // bytes
	OFPort        uint32 // 0: none yet
	Zone          uint16 // of conntrack; 0: none yet
	Created       time.Time
	Timeline      []Step
	Revision      uint64 // set by Feed
}

// A Wait says when Create returns.
type Wait string

// What Create may wait for.
const (
	UntilPlugged   Wait = "plugged"
	UntilInstalled Wait = "installed"
)

// A CreateRequest is a call of Create.
type CreateRequest struct {
	Spec         Spec
	Wait         Wait
	RequestID    string // for the log
	ValidateOnly bool   // change nothing
}

// A DeleteRequest is a call of Delete.
type DeleteRequest struct {
	Key          Key
	RequestID    string // for the log
	ValidateOnly bool   // change nothing
}

// A CheckRequest is a call of Check.
type CheckRequest struct {
	Key       Key
	Netns     string         // "": that of the Spec
	Addresses []netip.Prefix // which it should have at least; none: those of the Port
}

// A Problem is something that is not as it should be.
type Problem struct {
	Reason  reason.Reason
	Message string
}

// Kinds lists what a port with a valid spec may be made of, in order of preference.
func (s Spec) Kinds() []Kind {
	if s.Kind == Auto {
		return s.Fallback
	}
	return append([]Kind{s.Kind}, s.Fallback...)
}

// Differ returns the names of the fields, as in the .proto file, in which two valid specs differ, in order.
func (s Spec) Differ(o Spec) []string {
	var names []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"key", s.Key == o.Key},
		{"netns", s.Netns == o.Netns},
		{"kind", s.Kind == o.Kind},
		{"fallback", slices.Equal(s.Fallback, o.Fallback)},
		{"pool", s.Pool == o.Pool},
		{"device", s.Device == o.Device},
		{"attributes", s.Attributes.equal(o.Attributes)},
		{"logical_port", s.LogicalPort == o.LogicalPort},
		{"iface_id_ver", s.IfaceIDVer == o.IfaceIDVer},
		{"addressing", s.Addressing == o.Addressing},
		{"mac", s.MAC == o.MAC},
		{"addresses", slices.Equal(s.Addresses, o.Addresses)},
		{"gateways", slices.Equal(s.Gateways, o.Gateways)},
		{"routes", slices.Equal(s.Routes, o.Routes)},
		{"mtu", s.MTU == o.MTU},
		{"labels", maps.Equal(s.Labels, o.Labels)},
	} {
		if !f.same {
			names = append(names, f.name)
		}
	}
	return names
}

// A MAC is an Ethernet address, in the order of transmission. The zero MAC is none.
type MAC [6]byte

// ParseMAC takes six pairs of hexadecimal digits with colons between them.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	if len(s) != 17 {
		return MAC{}, fmt.Errorf("%q: not a MAC address", s)
	}
	for i := range m {
		hi, lo := hexDigit(s[3*i]), hexDigit(s[3*i+1])
		if hi > 15 || lo > 15 || i < 5 && s[3*i+2] != ':' {
			return MAC{}, fmt.Errorf("%q: not a MAC address", s)
		}
		m[i] = hi<<4 | lo
	}
	return m, nil
}

func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	default:
		return 255
	}
}

// String returns like 0a:00:00:00:00:01, and "" for the zero MAC.
func (m MAC) String() string {
	if m == (MAC{}) {
		return ""
	}
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText returns the text of String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (m *MAC) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*m = MAC{}
		return nil
	}
	*m, err = ParseMAC(string(text))
	return err
}
