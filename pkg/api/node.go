package api

import (
	"net/netip"
	"time"

	"github.com/offloadd/offloadd/pkg/reason"
)

// An Identity is what the daemon is, and the versions it sees around it. "" is not known.
type Identity struct {
	Capabilities []string // beyond the first version of the services, for example "port.veth"
	Version      string   // of the daemon's build
	Commit       string
	GoVersion    string
	Started      time.Time
	BootID       string
	Hostname     string
	Chassis      string
	Schemas      map[string]string // versions by database
	Kernel       string            // the release
	OVS          string
	Northd       string // northd_internal_version
}

// Subsystem names a part of the daemon that may work while another does not, in the status and for grpc.health.v1.
type Subsystem string

// The subsystems.
const (
	SubsystemPort   Subsystem = "offload.port"   // ports can be created
	SubsystemSB     Subsystem = "offload.sb"     // the Southbound is connected and read
	SubsystemOVS    Subsystem = "offload.ovs"    // the local database is connected and read
	SubsystemBridge Subsystem = "offload.bridge" // the integration bridge is connected
	SubsystemFilter Subsystem = "offload.filter" // the TC filters are as wanted, also if there should be none
)

// Subsystems lists all subsystems, ordered by name.
func Subsystems() []Subsystem {
	return []Subsystem{SubsystemBridge, SubsystemFilter, SubsystemOVS, SubsystemPort, SubsystemSB}
}

// A Health is how a subsystem is.
type Health struct {
	Subsystem Subsystem
	Reason    reason.Reason // why it does not work; "" if it does
	Message   string        // the same for people
	Since     time.Time     // when it began to work or ceased to
}

// A Status is how the chassis is doing.
type Status struct {
	Chassis     string
	Databases   []Database
	Bridge      Bridge
	Turn        uint64
	AckedTurn   uint64
	NBCfg       int64
	Datapaths   int
	Ports       int
	Tunnels     int
	Skipped     map[string]int // rows by unsupported action; "" counts malformed ones
	RowsRefused int
	Offload     Offload
}

// OffloadMode is who makes TC filters, an enum of package offloadv1 by its name.
type OffloadMode string

// The modes.
const (
	OffloadOff       OffloadMode = "OFF"
	OffloadDirect    OffloadMode = "DIRECT"
	OffloadDelegated OffloadMode = "DELEGATED"
)

// An Offload is how far the TC filters are what they should be.
type Offload struct {
	Mode      OffloadMode
	Idle      string // why there are none; "" if there are
	Filters   int    // installed
	Devices   int
	States    int // of chains
	Closed    int // chains and devices
	Foreign   int // filters of others
	Shadowed  int // filters kept from the NIC
	Refused   []RefusedFilter
	Computed  time.Time // zero: not yet
	Took      time.Duration
	Error     string // of the last attempt to install them
	Turn      uint64 // the last that had something for the filters
	AckedTurn uint64
	Delegated *Delegated // nil unless Mode is OffloadDelegated
}

// A StatusRequest says what to find out besides.
type StatusRequest struct {
	Megaflows bool // of ovs-vswitchd, if offload is delegated
}

// Delegated is how Open vSwitch offloads.
type Delegated struct {
	HWOffload bool
	TCPolicy  string
	Fix       string // what to do about Offload.Idle
	Ports     []DelegatedPort
	Error     string // why there are no Ports
}

// A DelegatedPort is the megaflows of the packets that come by a port.
type DelegatedPort struct {
	Port, Device         string
	NIC, TC, Partly, OVS MegaflowSum
}

// A MegaflowSum is megaflows and what they have counted.
type MegaflowSum struct {
	Flows          int
	Packets, Bytes uint64
}

// A RefusedFilter is a filter, or a device, that the kernel did not accept.
type RefusedFilter struct{ What, Error string }

// A Database is a connection to a database.
type Database struct {
	Name      string
	Remote    string
	Connected bool
	Synced    bool           // read since the start
	Rows      map[string]int // held, by table
}

// A Bridge is the integration bridge.
type Bridge struct {
	Name      string
	Connected bool
	Installed bool // everything wanted
	Desired   int  // flows
	Refused   int  // flows
	Groups    int  // desired
	Meters    int  // desired
	Sent      uint64
}

// An Encap is a way to reach a chassis.
type Encap struct {
	Type string // geneve or vxlan
	IP   string
}

// A Chassis is a node of the deployment.
type Chassis struct {
	Name           string
	Hostname       string
	Encaps         []Encap
	Local          bool
	NBCfg          int64
	BridgeMappings string
}

// A Tunnel is an interface that leads to another chassis.
type Tunnel struct {
	Interface string
	Chassis   string
	Type      string     // geneve or vxlan
	RemoteIP  netip.Addr // the other side's
	LocalIP   netip.Addr // the zero Addr: the kernel chooses
	OFPort    uint32     // 0: none yet
}

// A Zone is a conntrack zone in use.
type Zone struct {
	Owner string // as in ct-zone-list
	Zone  uint16
}
