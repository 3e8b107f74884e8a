package logical

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Pipeline is one of the two logical pipelines of a datapath.
type Pipeline uint8

// The pipelines.
const (
	Ingress Pipeline = iota
	Egress
)

// String returns the pipeline's name as in the pipeline column of ovn-sb(5).
func (p Pipeline) String() string {
	if p == Egress {
		return "egress"
	}
	return "ingress"
}

// Stage is a logical flow table: Table counts from 0 within Pipeline.
type Stage struct {
	Pipeline Pipeline
	Table    uint8
}

// Actions is the parsed actions column of a logical flow. It does not change after [ParseActions] returned it.
type Actions struct {
	// At is the stage of the flow that has these actions; "next" and the ct actions continue relative to it.
	At Stage

	// List holds the actions in the order of execution. An empty list is "drop;".
	List []Action

	// Prereqs holds, without duplicates, match expressions that are to be ANDed with the flow's match:
	// those of the actions and those of the fields that they read or write. They are not annotated.
	Prereqs []string
}

// Action is one logical action, as in ovn-sb(5), Logical_Flow, actions. The set is closed: every implementation is
// in this file.
type Action interface {
	// verb returns the word by which ovn-sb(5) knows the action.
	verb() string

	// append appends the action's text with its semicolon. at is the stage of the flow that has the action.
	append(b []byte, at Stage) []byte
}

// Verb returns the word by which ovn-sb(5) knows the action, such as "ct_commit"; "=" and "<->" for assignments.
func Verb(a Action) string { return a.verb() }

// Operand is a field, or adjacent bits of one, that an action reads or writes.
type Operand struct {
	Symbol *Symbol
	Ofs, N int // bits Ofs to Ofs+N-1 of Symbol; both 0 for a string field
}

// Sub returns the OpenFlow bits behind o: those of the field of which o's symbol is a part.
func (o Operand) Sub() ir.Sub {
	if o.N == 0 {
		return ir.Whole(o.Symbol.Field)
	}
	return ir.Sub{Field: o.Symbol.Field, Ofs: o.Symbol.Lo + o.Ofs, N: o.N}
}

// Output sends the packet to its outport.
type Output struct{}

// Next continues in another stage.
type Next struct{ To Stage }

// LoadPort writes the name of a logical port or multicast group to the string field Dst; "" is none.
type LoadPort struct {
	Dst  Operand
	Port string
}

// Load writes the bits of Value.Mask, all if it is not masked, of a constant to Dst.
type Load struct {
	Dst   Operand
	Value Constant
}

// LoadOVNField writes a constant to a field that OpenFlow does not have, icmp4.frag_mtu or icmp6.frag_mtu.
type LoadOVNField struct {
	Dst   Operand
	Value Constant
}

// Move copies Src to Dst, which have the same width.
type Move struct{ Dst, Src Operand }

// Exchange swaps A and B, which have the same width.
type Exchange struct{ A, B Operand }

// Push pushes a field on the stack.
type Push struct{ Field Operand }

// Pop pops the stack into a field.
type Pop struct{ Field Operand }

// DecTTL is "ip.ttl--;".
type DecTTL struct{}

// CTNext sends the packet through the connection tracker to the next table.
type CTNext struct{}

// CTCommitV1 is "ct_commit(ct_mark=..., ct_label=...);". A zero mask means that the part is absent.
type CTCommitV1 struct {
	Mark, MarkMask   uint32
	Label, LabelMask ir.U128
}

// CTCommit is "ct_commit { ... };", or "ct_commit;" if Nested is empty. The nested actions write ct_mark and ct_label.
type CTCommit struct{ Nested []Action }

// NATVerb tells the address translating actions with an optional address apart.
type NATVerb uint8

// The verbs of NAT.
const (
	CTDNAT NATVerb = iota
	CTSNAT
	CTDNATInCZone
	CTSNATInCZone
)

// NAT is "ct_dnat;", "ct_snat(192.0.2.1,1024-2047);" and the like. Without an address (the zero Addr) it undoes or
// repeats what the connection's first packet had done; with one it also commits the connection.
type NAT struct {
	Kind             NATVerb
	Addr             netip.Addr
	PortMin, PortMax uint16 // 0: none; PortMax is 0 unless it is a range
}

// CTCommitNAT commits the connection and applies the translation it has.
type CTCommitNAT struct{}

// SNATFlag is the optional last argument of ct_lb and ct_lb_mark.
type SNATFlag uint8

// The flags of CTLB.
const (
	NoSNATFlag SNATFlag = iota
	SkipSNAT
	ForceSNAT
)

// CTLB is "ct_lb(...);" or, if Mark is true, "ct_lb_mark(...);". Without backends it applies the translation that
// the connection has; then HashFields and Flag are zero.
type CTLB struct {
	Mark       bool
	Backends   []netip.AddrPort // port 0: none
	HashFields string           // as in ovs-ofctl(8), comma separated; "": datapath hash
	Flag       SNATFlag
}

// SelectMember is one choice of Select.
type SelectMember struct{ ID, Weight uint16 }

// Select writes the ID of one of Members, chosen by hash, to Dst and continues in the next table.
type Select struct {
	Dst     Operand
	Members []SelectMember // at least two; no weight is 0
}

// CTClear forgets the connection tracking state.
type CTClear struct{}

// MACCacheUse counts the packet for the learned neighbour that has sent it, so that its MAC_Binding stays; since OVN 23.09.
type MACCacheUse struct{}

// Clone runs Nested on a copy of the packet.
type Clone struct{ Nested []Action }

// ReplyVerb tells the actions apart that turn the packet into another one and run nested actions on it.
type ReplyVerb uint8

// The verbs of Reply.
const (
	ARP ReplyVerb = iota
	NDNA
	NDNARouter
	NDNS
	ICMP4
	ICMP4Error
	ICMP6
	ICMP6Error
	TCPReset
	SCTPAbort
	Reject
)

// Reply is "arp { ... };" and the like: the controller makes another packet from this one, on which Nested runs.
type Reply struct {
	Kind   ReplyVerb
	Nested []Action
}

// GetMAC is "get_arp(port, ip);" or, if IPv6 is true, "get_nd(port, ip);": eth.dst becomes the neighbour's address.
type GetMAC struct {
	IPv6     bool
	Port, IP Operand
}

// PutMAC is "put_arp(port, ip, mac);" or, if IPv6 is true, "put_nd(port, ip, mac);": learns a neighbour.
type PutMAC struct {
	IPv6          bool
	Port, IP, MAC Operand
}

// LookupMAC is "dst = lookup_arp(port, ip, mac);" or, if IPv6 is true, lookup_nd: whether the neighbour is known.
type LookupMAC struct {
	IPv6               bool
	Dst, Port, IP, MAC Operand
}

// LookupMACIP is "dst = lookup_arp_ip(port, ip);" or, if IPv6 is true, lookup_nd_ip: whether the IP address is known.
type LookupMACIP struct {
	IPv6          bool
	Dst, Port, IP Operand
}

// OptsVerb tells the actions apart that take a list of options.
type OptsVerb uint8

// The verbs of PutOpts.
const (
	PutDHCPOpts OptsVerb = iota
	PutDHCPv6Opts
	PutNDRAOpts
)

// Option is one "name = value" of PutOpts or TriggerEvent. Code and Type are those of the option's definition.
type Option struct {
	Name string
	Code uint16
	Type string // as in DHCP_Options of ovn-sb(5): "bool", "uint8", "ipv4", "str", ...
	Set  bool   // written with curly braces

	// One of Values and Strings is empty, the other is not.
	Values  []Constant
	Strings []string
}

// PutOpts is "dst = put_dhcp_opts(...);" and the like: turns the packet into the reply of a DHCP server or router.
type PutOpts struct {
	Kind OptsVerb
	Dst  Operand
	Opts []Option
}

// SetQueue chooses the queue of later outputs.
type SetQueue struct{ ID uint16 }

// TestVerb tells the actions "dst = verb();" apart.
type TestVerb uint8

// The verbs of Test.
const (
	DNSLookup TestVerb = iota
	ChkLBHairpin
	ChkLBHairpinReply
	CheckInPortSec
	CheckOutPortSec
	ChkECMPNHMAC
	ChkECMPNH
	ChkLBAff
)

// Test is an action without arguments that stores one bit in Dst.
type Test struct {
	Kind TestVerb
	Dst  Operand
}

// Verdict is the verdict of an ACL. The values are those of enum log_verdict.
type Verdict uint8

// The verdicts.
const (
	VerdictAllow Verdict = iota
	VerdictDrop
	VerdictReject
)

// Severity is the severity of an ACL's log message. The values are those of syslog(3).
type Severity uint8

// The severities.
const (
	SeverityAlert   Severity = 1
	SeverityWarning Severity = 4
	SeverityNotice  Severity = 5
	SeverityInfo    Severity = 6
	SeverityDebug   Severity = 7
)

// Log logs the packet.
type Log struct {
	Name     string // at most 63 bytes; "": unnamed
	Verdict  Verdict
	Severity Severity
	Meter    string // "": not limited
}

// SetMeter limits the rate of the flow's packets. Rate is in kbit/s, Burst in kbit; Burst 0: none.
type SetMeter struct{ Rate, Burst uint64 }

// CheckPktLarger stores in the bit Dst whether the packet is longer than Len bytes.
type CheckPktLarger struct {
	Dst Operand
	Len uint16
}

// TriggerEvent reports an event to the CMS. The only event is "empty_lb_backends".
type TriggerEvent struct {
	Event string
	Opts  []Option
}

// BindVPort binds a virtual port to the chassis, with Parent as its virtual parent.
type BindVPort struct {
	VPort  string
	Parent Operand
}

// HandleSvcCheck consumes the reply to a service monitor's probe.
type HandleSvcCheck struct{ Port Operand }

// FwdGroup sends the packet to one of the logical ports ChildPorts, chosen by hash; if Liveness is true, to one
// whose chassis is reachable.
type FwdGroup struct {
	Liveness   bool
	ChildPorts []string
}

// IGMP snoops a multicast report.
type IGMP struct{}

// DHCPv6Reply consumes the reply to a prefix delegation request.
type DHCPv6Reply struct{}

// BFDMsg consumes a BFD message.
type BFDMsg struct{}

// CTSNATToVIP translates the source of a hairpinned packet to the load balancer's address.
type CTSNATToVIP struct{}

// PutFDB learns MAC on Port.
type PutFDB struct{ Port, MAC Operand }

// GetFDB sets Dst, a string field or a field of 32 bits, to the port that has MAC.
type GetFDB struct{ Dst, MAC Operand }

// LookupFDB stores in the bit Dst whether MAC is known on Port.
type LookupFDB struct{ Dst, Port, MAC Operand }

// CommitECMPNH remembers the next hop from which the packet came. Proto is the IP protocol number.
type CommitECMPNH struct {
	IPv6  bool
	Proto uint8
}

// CommitLBAff remembers the backend for the packet's source address. VIP and Backend are of the same family;
// port 0 means none. Proto is the IP protocol number, 0 if VIP has no port. Timeout is in seconds.
type CommitLBAff struct {
	VIP, Backend netip.AddrPort
	Proto        uint8
	Timeout      uint16
}

// Sample emits an IPFIX sample. Probability is a fraction of 65535 and not 0.
type Sample struct {
	Probability  uint16
	CollectorSet uint32
	ObsDomain    uint8
	ObsPoint     uint32
	Cookie       bool // the observation point is the flow's cookie instead of ObsPoint
}

// All yields the actions in their order, each before the actions nested in it.
func (a Actions) All() iter.Seq[Action] {
	return func(yield func(Action) bool) { walk(a.List, yield) }
}

// walk calls f for each action and those nested in it until f returns false, which it returns then.
func walk(list []Action, f func(Action) bool) bool {
	for _, a := range list {
		var nested []Action
		switch a := a.(type) {
		case CTCommit:
			nested = a.Nested
		case Clone:
			nested = a.Nested
		case Reply:
			nested = a.Nested
		}
		if !f(a) || !walk(nested, f) {
			return false
		}
	}
	return true
}

// Ports returns the names of the logical ports and multicast groups that the actions refer to, sorted.
func (a Actions) Ports() []string {
	var names []string
	for a := range a.All() {
		switch a := a.(type) {
		case LoadPort:
			if a.Port != "" {
				names = append(names, a.Port)
			}
		case BindVPort:
			names = append(names, a.VPort)
		case FwdGroup:
			names = append(names, a.ChildPorts...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Meters returns the names of the rows of table Meter that the actions refer to, sorted.
func (a Actions) Meters() []string {
	var names []string
	for a := range a.All() {
		if l, ok := a.(Log); ok && l.Meter != "" {
			names = append(names, l.Meter)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
