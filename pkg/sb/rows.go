package sb

import (
	"encoding/hex"
	"fmt"
)

// UUID identifies a row. The zero UUID is no row.
type UUID [16]byte

// ParseUUID parses the 36-character form of RFC 4122. The empty string is the zero UUID.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if s == "" {
		return u, nil
	}
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, fmt.Errorf("sb uuid %q: not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", s)
	}
	var b [32]byte
	n := 0
	for i := range len(s) {
		if s[i] != '-' {
			if n == len(b) {
				return UUID{}, fmt.Errorf("sb uuid %q: too many digits", s)
			}
			b[n] = s[i]
			n++
		}
	}
	if _, err := hex.Decode(u[:], b[:n]); err != nil || n != len(b) {
		return UUID{}, fmt.Errorf("sb uuid %q: not hexadecimal", s)
	}
	return u, nil
}

// String returns the 36-character form.
func (u UUID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], u[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], u[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], u[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], u[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], u[10:16])
	return string(b[:])
}

// IsZero reports whether u is no row.
func (u UUID) IsZero() bool { return u == UUID{} }

// Cookie returns the OpenFlow cookie of flows that belong to the row: its first 32 bits, as ovn-detrace(1) expects.
func (u UUID) Cookie() uint64 {
	return uint64(u[0])<<24 | uint64(u[1])<<16 | uint64(u[2])<<8 | uint64(u[3])
}

// The ranges of tunnel keys, ovn-sb(5).
const (
	MaxDatapathKey  = 1<<24 - 1
	MaxPortKey      = 1<<15 - 1
	MinMulticastKey = 1 << 15
	MaxMulticastKey = 1<<16 - 1
)

// Datapath is a Datapath_Binding: a logical switch or a logical router.
type Datapath struct {
	UUID     UUID
	Key      uint32 // 1..MaxDatapathKey
	IsSwitch bool
	Name     string // external_ids:name, for people
	// SNATZone is external_ids:snat-ct-zone: the conntrack zone that NAT of a gateway router must use, 0 if any will do.
	SNATZone uint16
	// CommonNATZoneIsSNAT says that external_ids has snat-ct-zone, valid or not.
	CommonNATZoneIsSNAT bool
	IsTransitSwitch     bool // external_ids:interconn-ts
	// MACBindingAge and FDBAge are after how many seconds northd deletes a MAC_Binding or FDB row whose timestamp nobody has
	// refreshed: external_ids:mac_binding_age_threshold, fdb_age_threshold, since OVN 23.09. 0: never, or that is not known.
	MACBindingAge, FDBAge uint32
}

// Port types of Port_Binding.type, ovn-sb(5). The empty type is a VIF.
const (
	VIF             = ""
	Patch           = "patch"
	L3Gateway       = "l3gateway"
	Localnet        = "localnet"
	Localport       = "localport"
	L2Gateway       = "l2gateway"
	VTEP            = "vtep"
	ChassisRedirect = "chassisredirect"
	Virtual         = "virtual"
	External        = "external"
	Remote          = "remote"
)

// Port is a Port_Binding.
type Port struct {
	UUID                       UUID
	Name                       string // logical_port
	Type                       string
	Datapath                   UUID
	Key                        uint32 // 1..MaxPortKey
	Parent                     string // parent_port, empty if none
	Tag                        uint16 // VLAN, 0 if none
	Chassis                    UUID   // who has claimed it
	AdditionalChassis          []UUID
	Encap                      UUID
	AdditionalEncap            []UUID
	RequestedChassis           UUID
	RequestedAdditionalChassis []UUID
	HAChassisGroup             UUID
	Options                    map[string]string
	MAC                        []string
	PortSecurity               []string
	Up                         bool
	UpSet                      bool // whether up has a value at all
	VirtualParent              string
}

// LogicalFlow is a Logical_Flow.
type LogicalFlow struct {
	UUID            UUID
	Datapath        UUID // zero if the flow belongs to a group
	Group           UUID // zero if the flow belongs to one datapath
	Egress          bool
	Table           uint8 // logical table, from 0
	Priority        uint16
	Match, Actions  string
	InOutPort       string // tags:in_out_port
	ControllerMeter string
}

// DatapathGroup is a Logical_DP_Group.
type DatapathGroup struct {
	UUID      UUID
	Datapaths []UUID
}

// MulticastGroup is a Multicast_Group.
type MulticastGroup struct {
	UUID     UUID
	Name     string
	Datapath UUID
	Key      uint32 // MinMulticastKey..MaxMulticastKey
	Ports    []UUID
}

// MACBinding is a MAC_Binding: a neighbour that some chassis has learned.
type MACBinding struct {
	UUID     UUID
	Port     string
	IP, MAC  string
	Datapath UUID
}

// StaticMACBinding is a Static_MAC_Binding: a configured neighbour.
type StaticMACBinding struct {
	UUID     UUID
	Port     string
	IP, MAC  string
	Datapath UUID
	Override bool // override_dynamic_mac
}

// FDB is an FDB row: a MAC address learned on a port with unknown addresses.
type FDB struct {
	UUID        UUID
	MAC         string
	DatapathKey uint32
	PortKey     uint32
}

// AddressSet is an Address_Set.
type AddressSet struct {
	UUID      UUID
	Name      string
	Addresses []string
}

// PortGroup is a Port_Group; northd names it <datapath key>_<name>.
type PortGroup struct {
	UUID  UUID
	Name  string
	Ports []string
}

// Chassis is a Chassis row.
type Chassis struct {
	UUID           UUID
	Name           string
	Hostname       string
	Encaps         []UUID
	OtherConfig    map[string]string
	TransportZones []string
}

// ChassisPrivate is a Chassis_Private row.
type ChassisPrivate struct {
	UUID           UUID
	Name           string
	Chassis        UUID
	NBCfg          int64
	NBCfgTimestamp int64 // milliseconds since the epoch
}

// Encap is an Encap row: one tunnel endpoint of a chassis.
type Encap struct {
	UUID        UUID
	Type        string // geneve, vxlan or stt
	IP          string
	Options     map[string]string
	ChassisName string
}

// Global is the one SB_Global row.
type Global struct {
	UUID    UUID
	NBCfg   int64
	Options map[string]string
	IPsec   bool
}

// HAChassisGroup is an HA_Chassis_Group: who may host a gateway port.
type HAChassisGroup struct {
	UUID       UUID
	Name       string
	HAChassis  []UUID
	RefChassis []UUID
}

// HAChassis is a member of an HAChassisGroup. The larger priority wins.
type HAChassis struct {
	UUID     UUID
	Chassis  UUID
	Priority int
}

// Meter is a Meter with its one band, as northd writes them.
type Meter struct {
	UUID  UUID
	Name  string
	Unit  string // "kbps" or PacketsPerSecond
	Bands []UUID
}

// PacketsPerSecond is the unit of a Meter that counts packets.
const PacketsPerSecond = "pktps"

// MeterBand is a Meter_Band of type drop.
type MeterBand struct {
	UUID        UUID
	Rate, Burst int64
}

// TemplateVars is this chassis' Chassis_Template_Var row.
type TemplateVars struct {
	UUID      UUID
	Chassis   string
	Variables map[string]string
}
