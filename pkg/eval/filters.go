package eval

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A Block is the filters of a shared block, as the kernel's software runs them (net/sched/cls_api.c, __tcf_classify;
// cls_flower.c), or as hardware does. It does not change, and may be used by several goroutines.
type Block struct {
	chains   map[uint32][]*tc.Filter // in the order in which they are tried
	software *Block                  // what goes on where hardware ends; nil: the block is software
}

// NewBlock returns the block of filters, which must not change afterwards. Filters that are for hardware only are left out.
//
// Their order is that in which they were added. It matters within a pref: the kernel keeps the filters of a pref by mask, and
// tries first the mask that came first.
func NewBlock(filters []tc.Filter) *Block {
	return newBlock(filters, func(f *tc.Filter) bool { return f.Flags&tc.SkipSW == 0 })
}

// NewHardwareBlock returns what a NIC has of the filters: those that are flagged tc.InHW. Software goes on with packets for which it
// has none, at the beginning or in a chain, and with those whose connection is not established: in the chain where hardware has ended,
// which drivers tell it (struct tc_skb_ext). Where two filters of one pref match, Undefined is all that can be said.
func NewHardwareBlock(filters []tc.Filter) *Block {
	b := newBlock(filters, func(f *tc.Filter) bool { return f.Flags&tc.InHW != 0 && f.Flags&tc.SkipHW == 0 })
	b.software = NewBlock(filters)
	return b
}

func newBlock(filters []tc.Filter, has func(*tc.Filter) bool) *Block {
	b := &Block{chains: map[uint32][]*tc.Filter{}}
	for i := range filters {
		if f := &filters[i]; has(f) {
			b.chains[f.Chain] = append(b.chains[f.Chain], f)
		}
	}
	for _, c := range b.chains {
		type mask struct {
			pref uint16
			mask string
		}
		first := map[mask]int{} // when the mask was first seen
		at := make(map[*tc.Filter]int, len(c))
		for i, f := range c {
			m := mask{f.Pref, maskText(f)}
			if _, seen := first[m]; !seen {
				first[m] = i
			}
			at[f] = first[m]
		}
		slices.SortStableFunc(c, func(x, y *tc.Filter) int {
			return cmp.Or(cmp.Compare(x.Pref, y.Pref), cmp.Compare(at[x], at[y]))
		})
	}
	return b
}

// maskText is equal for filters that look at the same bits.
func maskText(f *tc.Filter) string {
	b := fmt.Appendf(nil, "%t %t", f.Indev != "", f.EncDstPort != 0)
	typ, proto := etherType(f), ipProto(f)
	for _, t := range f.Match {
		if heeds(t.Field, typ, proto) {
			b = fmt.Appendf(b, " %d/%v", t.Field, t.Mask)
		}
	}
	return string(b)
}

// An Arrival is where a packet comes in: the device, and the UDP port of the tunnel that it came through, or 0.
type Arrival struct {
	Device     string
	EncDstPort uint16
}

// A VerdictKind says what a block does with a packet.
type VerdictKind uint8

// The kinds of verdicts.
const (
	Passed     VerdictKind = iota // who receives from the device gets it
	Dropped                       // it is gone, as a filter says
	Redirected                    // it leaves by Ifindex
	Lost                          // nobody decides: it is gone, or somebody gets it who takes it for another one; a mistake
)

// String returns the verdict in a word.
func (k VerdictKind) String() string {
	return [...]string{"passed", "dropped", "redirected", "lost"}[k]
}

// A Verdict is what has become of a packet.
type Verdict struct {
	Kind    VerdictKind
	Ifindex int           // of Redirected
	Ingress bool          // of Redirected: as if it came in by Ifindex
	Packet  Packet        // as it is in the end
	Tunnel  *tc.TunnelSet // what a tunnel device will write around it
	Copies  []Copy        // those that were sent before
	Why     string        // of Lost, and of what happened although no filter says so
	Path    []tc.Key      // the filters that ran
	Filters []*tc.Filter  // the same, themselves
	// Pristine says that the packet is as it was when it came in, without a connection, and that nothing has seen it.
	Pristine bool
	// BadChecksum says that something was rewritten and a checksum that covers it was not mended.
	BadChecksum bool
	// Undefined says that two filters of one pref match the packet and do different things.
	Undefined bool
}

// A Copy is a packet that was sent while the original went on.
type Copy struct {
	tc.Mirred
	Packet Packet
	Tunnel *tc.TunnelSet
}

// maxGotos is how often a packet can go to another chain (max_reclassify_loop in cls_api.c).
const maxGotos = 16

// Run sends a packet through the block. OVN's Geneve option, in a filter any tun_metadata field, is tun_metadata0 of the packet.
// track is asked what lookups in the connection tracker find; of its states flower sees fewer bits than Open vSwitch.
func (b *Block) Run(pkt Packet, from Arrival, track Tracker) Verdict {
	r := blockRun{from: from, track: track, came: pkt, hardware: b.software != nil}
	r.Packet = pkt
	r.run(b)
	r.Pristine = r.Packet == r.came && r.Tunnel == nil && len(r.Copies) == 0 && !r.touched
	r.BadChecksum = r.stale != tc.CSum{}
	return r.Verdict
}

type blockRun struct {
	Verdict
	from    Arrival
	track   Tracker
	came    Packet
	touched bool // in a way that the fields do not show

	hardware bool // the NIC runs the filters
	missed   bool // the NIC can do no more, and software goes on with the chain

	stale tc.CSum // checksums that are wrong
}

func (r *blockRun) lost(why string) { r.Kind, r.Why = Lost, why }

func (r *blockRun) run(b *Block) {
	chain := uint32(0)
	for gotos := 0; ; gotos++ {
		if gotos > maxGotos {
			r.Kind, r.Why = Dropped, "too many gotos"
			return
		}
		f := r.find(b.chains[chain])
		if f == nil {
			if r.hardware {
				b, r.hardware = b.software, false
				continue
			}
			if chain != 0 {
				r.lost("nothing matches in a chain")
			}
			return // of chain 0: as if there were no filters
		}
		r.Path, r.Filters = append(r.Path, f.Key()), append(r.Filters, f)
		next, done := r.act(f)
		if r.missed {
			b, r.hardware, r.missed = b.software, false, false
			continue
		}
		if done {
			return
		}
		if chain = next; b.chains[chain] == nil && !r.hardware {
			r.lost("there is no such chain")
			return
		}
	}
}

// find returns the filter that runs, nil for none.
func (r *blockRun) find(chain []*tc.Filter) *tc.Filter {
	var met *tc.Filter
	for _, f := range chain {
		if met != nil && f.Pref > met.Pref {
			break
		}
		if !r.matches(f) {
			continue
		}
		if met == nil {
			met = f
		} else if !reflect.DeepEqual(f.Actions, met.Actions) {
			r.Undefined = true
		}
	}
	return met
}

// protocol returns the outermost EtherType.
func (r *blockRun) protocol() uint16 {
	if r.Packet.Value(ir.VLANTCI).Lo&vlanPresent != 0 {
		return tc.ProtocolVLAN
	}
	return uint16(r.Packet.Value(ir.EthType).Lo)
}

func (r *blockRun) matches(f *tc.Filter) bool {
	if f.Protocol != tc.ProtocolAll && f.Protocol != r.protocol() {
		return false
	}
	if f.Indev != "" && f.Indev != r.from.Device || f.EncDstPort != 0 && f.EncDstPort != r.from.EncDstPort {
		return false
	}
	typ, proto := etherType(f), ipProto(f)
	for i := range f.Match {
		t := &f.Match[i]
		if !heeds(t.Field, typ, proto) {
			continue
		}
		if !r.has(t.Field) || r.key(t.Field).And(t.Mask) != t.Value {
			return false
		}
	}
	return true
}

// etherType returns the EtherType that flower knows of f's packets behind their tags, 0 if it knows none.
func etherType(f *tc.Filter) uint16 {
	switch f.Protocol {
	case tc.ProtocolAll:
		return 0
	case tc.ProtocolVLAN, tc.ProtocolQinQ:
		t, ok := f.Match.Term(ir.EthType)
		if !ok || t.Mask != ir.EthType.Ones() {
			return 0
		}
		return uint16(t.Value.Lo)
	}
	return f.Protocol
}

// ipProto returns the IP protocol that flower knows of f's packets, 0 if it knows none.
func ipProto(f *tc.Filter) uint64 {
	if t, ok := f.Match.Term(ir.IPProto); ok && t.Mask == ir.IPProto.Ones() && isIPType(etherType(f)) {
		return t.Value.Lo
	}
	return 0
}

// has reports whether the packet has addresses of the kind that a condition on f presupposes (FLOW_DISSECTOR_KEY_CONTROL).
func (r *blockRun) has(f ir.Field) bool {
	p := &r.Packet
	switch f { //nolint:exhaustive // the others presuppose nothing
	case ir.IPSrc, ir.IPDst:
		return p.Value(ir.EthType).Lo == etherTypeIPv4
	case ir.IPv6Src, ir.IPv6Dst:
		return p.Value(ir.EthType).Lo == etherTypeIPv6
	case ir.TunSrc, ir.TunDst:
		return r.from.EncDstPort != 0 && p.Value(ir.TunIPv6Src).IsZero() && p.Value(ir.TunIPv6Dst).IsZero()
	case ir.TunIPv6Src, ir.TunIPv6Dst:
		return r.from.EncDstPort != 0 && p.Value(ir.TunSrc).IsZero() && p.Value(ir.TunDst).IsZero()
	}
	return !f.IsTunMetadata() || r.from.EncDstPort != 0 // those of tunnels have the option
}

func isIPType(protocol uint16) bool {
	return protocol == tc.ProtocolIPv4 || protocol == tc.ProtocolIPv6
}

// heeds reports whether flower heeds a condition on a field in a filter for this EtherType and IP protocol, 0 if the filter
// says none. The others it ignores without a word (fl_set_key in cls_flower.c).
func heeds(field ir.Field, protocol uint16, proto uint64) bool {
	switch field { //nolint:exhaustive // the others are not of this kind
	case ir.IPProto, ir.IPDSCP, ir.IPECN, ir.IPTTL:
		return isIPType(protocol)
	case ir.TCPSrc, ir.TCPDst, ir.TCPFlags:
		return proto == protoTCP
	case ir.UDPSrc, ir.UDPDst:
		return proto == protoUDP
	case ir.SCTPSrc, ir.SCTPDst:
		return proto == protoSCTP
	case ir.ICMPType, ir.ICMPCode:
		return protocol == tc.ProtocolIPv4 && proto == protoICMP
	case ir.ICMPv6Type, ir.ICMPv6Code:
		return protocol == tc.ProtocolIPv6 && proto == protoICMPv6
	case ir.ARPOp, ir.ARPSPA, ir.ARPTPA, ir.ARPSHA, ir.ARPTHA:
		return protocol == tc.ProtocolARP
	default:
		return true
	}
}

const protoICMP, protoICMPv6 = 1, 58

// key returns a field as flower dissects it.
func (r *blockRun) key(f ir.Field) ir.U128 {
	switch f { //nolint:exhaustive // the others are not of this kind
	case ir.TCPSrc, ir.TCPDst, ir.TCPFlags, ir.UDPSrc, ir.UDPDst, ir.SCTPSrc, ir.SCTPDst,
		ir.ICMPType, ir.ICMPCode, ir.ICMPv6Type, ir.ICMPv6Code:
		if !r.Packet.Value(ir.IPFrag).IsZero() {
			return ir.U128{} // it does not look into fragments, nor into the first
		}
	case ir.ARPOp, ir.ARPSPA, ir.ARPTPA, ir.ARPSHA, ir.ARPTHA:
		const request, reply = 1, 2
		if op := r.Packet.Value(ir.ARPOp).Lo; op != request && op != reply {
			return ir.U128{} // of other operations it knows nothing
		}
	default:
	}
	if f.IsTunMetadata() {
		f = ir.TunMetadata0
	}
	return r.Packet.Value(f)
}

// act executes a filter's actions. It returns the chain to go to, or that the packet is done with.
func (r *blockRun) act(f *tc.Filter) (chain uint32, done bool) {
	for _, a := range f.Actions {
		switch a := a.(type) {
		case tc.CT:
			if !r.ct(a) {
				return 0, true
			}
		case tc.Pedit:
			for _, e := range a.Edits {
				if !r.edit(e) {
					return 0, true
				}
			}
		case tc.CSum:
			r.mend(a)
		case tc.TunnelSet:
			r.setTunnel(a)
		case tc.TunnelUnset:
			r.Tunnel, r.from.EncDstPort = nil, 0
			r.clearTunnel()
		case tc.VLAN:
			r.vlan(a)
		case tc.SkbEdit:
			r.Packet.setMasked(ir.PktMark, ir.U64(uint64(a.Mark)), ir.U64(uint64(a.MarkMask)))
			r.touched = r.touched || a.Host
		case tc.Mirred:
			if a.Mirror {
				r.Copies = append(r.Copies, Copy{a, r.Packet, r.Tunnel})
				continue
			}
			r.Kind, r.Ifindex, r.Ingress = Redirected, a.Ifindex, a.Ingress
			return 0, true
		case tc.Goto:
			return a.Chain, false
		case tc.Pass:
			r.Kind = Passed
			return 0, true
		case tc.Drop:
			r.Kind = Dropped
			return 0, true
		case tc.Trap:
			if !r.hardware {
				r.lost("a trap in software")
			}
			return 0, true
		default:
			panic("eval: action of a filter that is not known")
		}
	}
	r.lost("no action decides")
	return 0, true
}

// ct reports whether the packet goes on (net/sched/act_ct.c, tcf_ct_act).
func (r *blockRun) ct(a tc.CT) bool {
	p := &r.Packet
	if a.Clear {
		p.untrack()
		return true
	}
	switch {
	case !p.isIP():
		r.Kind, r.Why = Dropped, "a lookup of what is not IP"
		return false
	case !p.Value(ir.IPFrag).IsZero():
		r.lost("a fragment waits for the others")
		return false
	}
	c := r.track(a.Zone, p)
	state := c.State | StateTrk
	if r.hardware && (state&StateEst == 0 || state&StateInv != 0) {
		r.missed = true // the connection is not in hardware
		return false
	}
	switch {
	case state&StateInv != 0:
		state = StateTrk | StateInv
	case state&StateEst != 0: // also if it is related to another one
		state &= StateTrk | StateEst | StateRpl
	case state&StateRel != 0:
		state &= StateTrk | StateRel | StateRpl
	default:
		state &= StateTrk | StateNew | StateRpl
	}
	p.untrack()
	p.Set(ir.CTState, ir.U64(uint64(state)))
	p.Set(ir.CTZone, ir.U64(uint64(a.Zone)))
	p.Set(ir.CTMark, ir.U64(uint64(c.Mark)))
	p.Set(ir.CTLabel, c.Label)
	if a.Commit {
		p.setMasked(ir.CTMark, ir.U64(uint64(a.Mark)), ir.U64(uint64(a.MarkMask)))
		p.setMasked(ir.CTLabel, a.Label, a.LabelMask)
	}
	if a.NAT && state&(StateEst|StateRel) != 0 { // what is new and not committed is not translated
		for _, x := range c.NAT {
			p.setMasked(x.Field, x.Value, x.Mask)
		}
		r.touched = true
	}
	r.touched = r.touched || a.Commit
	return true
}

// edit reports whether the packet has what is to be rewritten. The kernel writes to where it would be.
func (r *blockRun) edit(e tc.Edit) bool {
	p := &r.Packet
	if !p.carries(e.Field) {
		r.lost("a rewrite of a header that the packet does not have")
		return false
	}
	v := e.Value
	if e.Add {
		v = p.Value(e.Field).Add(v)
	}
	before := p.Value(e.Field)
	p.setMasked(e.Field, v, e.Mask)
	if p.Value(e.Field) == before {
		return true
	}
	switch e.Field { //nolint:exhaustive // the others are not of this kind
	case ir.IPTTL, ir.IPDSCP:
		r.stale.IPv4 = r.stale.IPv4 || p.Value(ir.EthType).Lo == etherTypeIPv4
	case ir.IPSrc, ir.IPDst:
		r.stale.IPv4 = true
		r.staleTransport()
	case ir.IPv6Src, ir.IPv6Dst, ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst:
		r.staleTransport()
	default:
	}
	return true
}

// carries reports whether the packet has the header that f is a field of.
func (p *Packet) carries(f ir.Field) bool {
	later := p.Value(ir.IPFrag).Lo&fragLater != 0
	proto := p.Value(ir.IPProto).Lo
	switch f { //nolint:exhaustive // every packet has the others that can be rewritten
	case ir.IPSrc, ir.IPDst:
		return p.Value(ir.EthType).Lo == etherTypeIPv4
	case ir.IPv6Src, ir.IPv6Dst:
		return p.Value(ir.EthType).Lo == etherTypeIPv6
	case ir.IPTTL, ir.IPDSCP:
		return p.isIP()
	case ir.TCPSrc, ir.TCPDst:
		return proto == protoTCP && !later
	case ir.UDPSrc, ir.UDPDst:
		return proto == protoUDP && !later
	}
	return true
}

// fragLater is the bit of ip_frag that says that it is not the first fragment.
const fragLater = 2

// staleTransport notes that a checksum that covers addresses and ports is wrong.
func (r *blockRun) staleTransport() {
	switch r.Packet.Value(ir.IPProto).Lo {
	case protoTCP:
		r.stale.TCP = true
	case protoUDP:
		r.stale.UDP = true
	case protoICMPv6:
		r.stale.ICMP = true
	}
}

func (r *blockRun) mend(a tc.CSum) {
	r.stale.IPv4 = r.stale.IPv4 && !a.IPv4
	r.stale.ICMP = r.stale.ICMP && !a.ICMP
	r.stale.TCP = r.stale.TCP && !a.TCP
	r.stale.UDP = r.stale.UDP && !a.UDP
}

func (r *blockRun) clearTunnel() {
	for f := ir.TunID; f < ir.Reg0; f++ {
		r.Packet.Set(f, ir.U128{})
	}
}

func (r *blockRun) setTunnel(a tc.TunnelSet) {
	r.clearTunnel()
	r.Tunnel, r.from.EncDstPort = &a, a.DstPort
	p := &r.Packet
	p.Set(ir.TunID, ir.U64(uint64(a.ID)))
	src, dst := ir.TunSrc, ir.TunDst
	if a.Dst.Is6() {
		src, dst = ir.TunIPv6Src, ir.TunIPv6Dst
	}
	p.Set(src, ir.FromBytes(a.Src.AsSlice()))
	p.Set(dst, ir.FromBytes(a.Dst.AsSlice()))
	if len(a.Options) > 0 && a.Options[0].Class == tc.OptionClass && a.Options[0].Type == tc.OptionType && len(a.Options[0].Data) == 4 {
		p.Set(ir.TunMetadata0, ir.FromBytes([]byte(a.Options[0].Data)))
	}
}

func (r *blockRun) vlan(a tc.VLAN) {
	p := &r.Packet
	tci := ir.U64(vlanPresent | uint64(a.Prio)<<13 | uint64(a.ID))
	switch a.Op {
	case tc.VLANPop:
		p.popVLAN()
	case tc.VLANPush:
		p.pushVLAN()
		p.Set(ir.VLANTCI, tci)
	case tc.VLANModify:
		p.Set(ir.VLANTCI, tci)
	}
}
