package ir

// Action is one step of a rule's action list, as in ovs-actions(7). An empty list drops the packet.
// The set of actions is closed: every implementation is in this file.
type Action interface{ isAction() }

// Output sends the packet to an OpenFlow port.
type Output struct{ Port uint32 }

// Resubmit looks the packet up in another table and continues with the next action afterwards.
type Resubmit struct{ Table uint8 }

// Set writes Value to the bits of Field that Mask selects. Value has no bit outside Mask.
type Set struct {
	Field       Field
	Value, Mask U128
}

// Move copies Src to Dst, which have the same width.
type Move struct{ Src, Dst Sub }

// Push pushes the bits of a field on the flow stack.
type Push struct{ Sub Sub }

// Pop pops the flow stack into the bits of a field.
type Pop struct{ Sub Sub }

// StripVLAN removes the outermost VLAN tag.
type StripVLAN struct{}

// PushVLAN adds a VLAN tag with the given EtherType and TCI 0x1000.
type PushVLAN struct{ EtherType uint16 }

// DecTTL decrements the TTL or hop limit. A packet whose TTL is too small goes nowhere, not even to a controller.
type DecTTL struct{}

// CTClear forgets the packet's connection tracking state.
type CTClear struct{}

// NAT is the address translation of a CT. The zero value restores what the connection already has (a bare "nat").
type NAT struct {
	Src, Dst               bool // at most one is true
	AddrMin, AddrMax       U128 // IPv4 or IPv6 address; AddrMax is zero unless it is a range; both zero: none given
	IPv6                   bool
	PortMin, PortMax       uint16 // 0: none given; PortMax 0 unless it is a range
	Persistent             bool
	ProtoHash, ProtoRandom bool
}

// NoTable in CT.Table says that the packet is not recirculated.
const NoTable = 0xff

// CT sends the packet through the connection tracker.
type CT struct {
	Commit bool
	Force  bool
	Table  uint8 // where a copy of the packet continues, tracked; NoTable: nowhere
	Zone   uint16
	// ZoneFrom, if its Field is set, gives the zone instead of Zone.
	ZoneFrom Sub
	Alg      uint16 // port of the application-level gateway, 0 none, 21 ftp, 69 tftp
	NAT      *NAT
	Exec     []Action // Set and Move on ct_mark and ct_label only
}

// Clone runs actions on a copy of the packet; later actions do not see its changes.
type Clone struct{ Actions []Action }

// Conjunction says that the rule is member of dimension Clause (from 0) of N of the conjunctive match ID.
type Conjunction struct {
	ID        uint32
	Clause, N uint8
}

// Group hands the packet to an OpenFlow group.
type Group struct{ ID uint32 }

// Controller sends the packet to the controller with reason "action" (NXAST_CONTROLLER2).
type Controller struct {
	MaxLen       uint16
	ControllerID uint16
	UserData     []byte
	Pause        bool
	MeterID      uint32 // 0: no meter
}

// LearnTerm is one part of a Learn: a condition of the learned flow (Load false) or a load into it.
// The value is Imm, or the packet's Src if its Field is set.
type LearnTerm struct {
	Load bool
	Src  Sub
	Imm  U128
	Dst  Sub
}

// Learn adds or changes a flow in Table.
type Learn struct {
	Table                    uint8
	Priority                 uint16
	Cookie                   uint64
	IdleTimeout, HardTimeout uint16 // seconds, 0: none
	DeleteLearned            bool
	Terms                    []LearnTerm
}

// Meter limits the rate of what follows.
type Meter struct{ ID uint32 }

// SetQueue chooses the queue of later outputs.
type SetQueue struct{ ID uint32 }

// CheckPktLarger stores in the bit Dst whether the packet is longer than Len bytes.
type CheckPktLarger struct {
	Len uint16
	Dst Sub
}

// Sample emits an IPFIX sample; Probability is a fraction of 65535.
type Sample struct {
	Probability                       uint16
	CollectorSet, ObsDomain, ObsPoint uint32
	SamplingPort                      uint16 // OpenFlow port; 0xffff: none
}

// Bundle outputs to the first live member (active_backup) by hash of Fields (eth_src).
type Bundle struct {
	Basis   uint16
	Members []uint16
}

// Note carries bytes without effect.
type Note struct{ Data []byte }

func (Output) isAction()         {}
func (Resubmit) isAction()       {}
func (Set) isAction()            {}
func (Move) isAction()           {}
func (Push) isAction()           {}
func (Pop) isAction()            {}
func (StripVLAN) isAction()      {}
func (PushVLAN) isAction()       {}
func (DecTTL) isAction()         {}
func (CTClear) isAction()        {}
func (CT) isAction()             {}
func (Clone) isAction()          {}
func (Conjunction) isAction()    {}
func (Group) isAction()          {}
func (Controller) isAction()     {}
func (Learn) isAction()          {}
func (Meter) isAction()          {}
func (SetQueue) isAction()       {}
func (CheckPktLarger) isAction() {}
func (Sample) isAction()         {}
func (Bundle) isAction()         {}
func (Note) isAction()           {}

// Load returns the Set that writes value to the bits of s.
func Load(s Sub, value uint64) Set { return LoadWide(s, U64(value)) }

// LoadWide is Load for values of more than 64 bits.
func LoadWide(s Sub, value U128) Set {
	return Set{s.Field, value.And(Ones(s.N)).Shl(s.Ofs), s.Mask()}
}

// SetWhole returns the Set that writes all bits of f.
func SetWhole(f Field, value uint64) Set { return Load(Whole(f), value) }

// Rule is one entry of a table: of the rules whose Match the packet satisfies, the one with the largest Priority
// runs its Actions.
type Rule struct {
	Table    uint8
	Priority uint16
	Cookie   uint64
	Match    Match
	Actions  []Action
}

// Bucket is one way a packet can take through a group.
type Bucket struct {
	Weight    uint16
	WatchPort uint32 // 0: none
	Actions   []Action
}

// SelectGroup is an OpenFlow group of type select.
// Method is "dp_hash" or "hash"; Param is the method's parameter; Fields are the hashed fields of "hash".
type SelectGroup struct {
	Method  string
	Param   uint64
	Fields  []Field
	Buckets []Bucket
}

// RateMeter is an OpenFlow meter with one band: it drops the packets that exceed Rate, in kbit/s, by more than Burst,
// in kbit; if Packets is true, in packets a second and packets. Burst 0 leaves the size of bursts to the switch.
type RateMeter struct {
	Packets     bool
	Rate, Burst uint32
}
