package specialize

import (
	"github.com/offloadd/offloadd/pkg/ir"
)

// A Program is what the walk makes: entries, and the states they lead to.
type Program struct {
	Guards  []Guard
	Entries []*Entry
	// States are the chains but the first, in an order in which each comes before those it leads to.
	States []*State

	Truncated bool // the total budget did not suffice; what is missing is punted

	// Devices are the interface indexes of the devices, by name; 0: not there.
	Devices map[string]int

	// guarded is the tunnel device, for which guards are said once more.
	guarded string
}

// A Guard leaves packets to Open vSwitch before anything else is asked.
type Guard struct {
	EtherType uint16
	Match     ir.Match
	Reason    Reason
}

// An Entry is what happens in chain 0 to packets that arrive by a device.
type Entry struct {
	Port      uint16 // OpenFlow port
	Device    string
	Tunnel    *Tunnel // nil for a port that is a device of its own
	EtherType uint16
	Rules     []Leaf

	trace     trace
	isOrdered bool
}

// A State is what is known when packets come to a chain: where they go on in the program, and what the chain has read of
// everything else.
type State struct {
	Table      uint8
	EtherType  uint16
	Tracked    bool   // the connection was looked up in Zone, and is established
	Zone       uint16 // of the last lookup
	Tunnelled  bool   // the packet came through a tunnel, and its metadata is still there
	asksTunnel bool   // all rules ask for the keys of the tunnel
	// anyConnection says that the packet may belong to any connection, which nothing in the chain asks for.
	anyConnection bool
	ttlDec        uint8 // how often the TTL has been decremented so far
	ttlMin        uint8 // the TTL of the packet as it arrived is at least this

	reads    []read
	notPorts []uint16 // the packet did not come by these

	// ID identifies the state by its contents.
	ID  uint64
	kin uint64

	Rules     []Leaf // in order: the first that matches a packet counts; at the end everything is punted
	Truncated bool

	// Chain is the number of the chain; states share one if no packet can be in both.
	Chain uint32

	height    int // chains below
	seen      bool
	isOrdered bool

	// For the next walk.
	trace trace
	at    position
	start *[ir.XReg0]value // of the machine
	depth int
}

// A read is bits of a field that the outcome of a chain depends on, and what they are.
type read struct {
	field ir.Field
	mask  ir.U128
	value value
}

// A Leaf is one outcome: packets that satisfy Match get Verdict.
type Leaf struct {
	Match   ir.Match
	Verdict Verdict
	// Path are the rules that lead here, from the beginning of the chain on.
	Path []*Rule

	implied bool // a punt that is punted at the end anyway
	level   int  // the filters' order: smaller is earlier
}

// Implied reports whether the leaf needs no filter, because what comes after it does the same.
func (l *Leaf) Implied() bool { return l.implied }

// A Verdict is what becomes of a packet. The set is closed: every implementation is in this file.
type Verdict interface{ isVerdict() }

// Punt leaves the packet, as it arrived, to Open vSwitch.
type Punt struct{ Reason Reason }

// Drop ends the packet.
type Drop struct{}

// Output rewrites the packet and sends it out of Device.
type Output struct {
	Port   uint16 // OpenFlow port
	Device string
	Edits  []Edit
	DecTTL uint8
	// CSum are the checksums to mend.
	CSumIP, CSumTCP, CSumUDP, CSumICMP bool
	// Unset says that the packet came through a tunnel.
	Unset bool
	// Encap, if it is not nil, is what the packet is sent through.
	Encap *Encap
}

// An Edit writes Value to the bits of Field that Mask selects.
type Edit struct {
	Field       ir.Field
	Value, Mask ir.U128
}

// An Encap is the outer header of a packet.
type Encap struct {
	Tunnel *Tunnel
	VNI    uint32
	Option uint32 // the data of OVN's Geneve option
	NoFrag bool   // sets DF
}

// Lookup asks the connection tracker and goes on in State.
type Lookup struct {
	Zone  uint16
	State *State
}

// Goto goes on in State.
type Goto struct{ State *State }

func (Punt) isVerdict()    {}
func (Drop) isVerdict()    {}
func (*Output) isVerdict() {}
func (Lookup) isVerdict()  {}
func (Goto) isVerdict()    {}
