package tc

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/offloadd/offloadd/pkg/ir"
)

// A Target is what filters are attached to: the ingress of a device, or a block that several ingresses share.
type Target struct {
	Ifindex int    // of the device, if Block is 0
	Block   uint32 // index of the shared block, 0: none
}

// String returns the target as tc's commands have it. The device is written as its number, "if7", which tc understands too.
func (t Target) String() string {
	if t.Block != 0 {
		return fmt.Sprintf("block %d", t.Block)
	}
	return fmt.Sprintf("dev if%d ingress", t.Ifindex)
}

// Constants of linux/pkt_sched.h and linux/rtnetlink.h.
const (
	magicBlock    = 0xffffffff // TCM_IFINDEX_MAGIC_BLOCK
	parentIngress = 0xfffffff2 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)

	tcmsgSize = 20

	tcaKind         = 1
	tcaOptions      = 2
	tcaChain        = 11
	tcaIngressBlock = 13
	tcaDumpFlags    = 15

	kindFlower = "flower"
)

// Attributes of an action, TCA_ACT_*.
const (
	actKind      = 1
	actOptions   = 2
	actIndex     = 3
	actStats     = 4
	actCookie    = 6
	actFlags     = 7
	actInHWCount = 10

	actFlagNoPercpuStats = 1

	// maxActions is TCA_ACT_MAX_PRIO.
	maxActions = 32
)

// Verdicts of an action, TC_ACT_*.
const (
	verdictOK     = 0
	verdictShot   = 2
	verdictPipe   = 3
	verdictStolen = 4
	verdictTrap   = 8
	verdictGoto   = 2 << 28
	verdictExt    = 0xf << 28
)

// appendTcmsg appends struct tcmsg of a filter. Handle, pref and protocol are 0 for all.
func appendTcmsg(b []byte, t Target, handle uint32, pref, protocol uint16) []byte {
	ifindex, parent := uint32(t.Ifindex), uint32(parentIngress)
	if t.Block != 0 {
		ifindex, parent = magicBlock, t.Block
	}
	return appendRawTcmsg(b, ifindex, handle, parent, uint32(pref)<<16|uint32(hostToBE16(protocol)))
}

func appendRawTcmsg(b []byte, ifindex, handle, parent, info uint32) []byte {
	b = append(b, 0, 0, 0, 0) // family AF_UNSPEC, padding
	b = ne.AppendUint32(b, ifindex)
	b = ne.AppendUint32(b, handle)
	b = ne.AppendUint32(b, parent)
	return ne.AppendUint32(b, info)
}

// hostToBE16 is htons.
func hostToBE16(v uint16) uint16 { return ne.Uint16(be.AppendUint16(nil, v)) }

// AppendFilter appends the payload of the message RTM_NEWTFILTER that installs f at t: struct tcmsg and the attributes, byte
// for byte as tc(8) sends them for f's arguments (see String), in the order of f's fields. It fails if flower has no words
// for f; whether f does what it says is for Check to find out.
func AppendFilter(b []byte, t Target, f *Filter) ([]byte, error) {
	b, err := appendFilter(b, t, f)
	if err != nil {
		return nil, fmt.Errorf("tc filter %v: %w", f.Key(), err)
	}
	return b, nil
}

// AppendKey appends the payload of the message RTM_DELTFILTER that removes the filter k from t.
func AppendKey(b []byte, t Target, k Key) []byte {
	b = appendTcmsg(b, t, k.Handle, k.Pref, 0)
	b = appendU32(b, tcaChain, k.Chain)
	// Without the kind the kernel takes the rtnl lock to find it out.
	return appendString(b, tcaKind, kindFlower)
}

var errTooLong = errors.New("too long for a netlink attribute")

func appendFilter(b []byte, t Target, f *Filter) ([]byte, error) {
	b = appendTcmsg(b, t, f.Handle, f.Pref, f.Protocol)
	b = appendU32(b, tcaChain, f.Chain)
	b = appendString(b, tcaKind, kindFlower)
	b, options := begin(b, tcaOptions)
	b, err := appendKeys(b, f)
	if err != nil {
		return nil, err
	}
	b, acts := begin(b, flowerAct)
	if len(f.Actions) > maxActions {
		return nil, fmt.Errorf("%d actions, more than %d", len(f.Actions), maxActions)
	}
	for i, a := range f.Actions {
		if b, err = appendAction(b, uint16(i+1), a, f); err != nil {
			return nil, fmt.Errorf("action %d: %w", i+1, err)
		}
	}
	if !end(b, acts) {
		return nil, errTooLong
	}
	b = appendU32(b, flowerFlags, uint32(f.Flags&^(InHW|NotInHW)))
	if t, ok := f.Match.Term(ir.IPFrag); ok {
		value, mask, err := fragKey.wire(t)
		if err != nil {
			return nil, err
		}
		b = appendAttr(b, fragKey.attr, u128Bytes(value, 4, false))
		b = appendAttr(b, fragKey.mask, u128Bytes(mask, 4, false))
	}
	if f.Protocol != ProtocolAll {
		b = appendBE16(b, flowerEthType, f.Protocol)
	}
	if !end(b, options) {
		return nil, errTooLong
	}
	return b, nil
}

// appendKeys appends all of f's conditions but the fragment flags and the protocol.
func appendKeys(b []byte, f *Filter) ([]byte, error) {
	for _, t := range f.Match {
		switch {
		case t.Field == ir.VLANTCI, t.Field == ir.EthType, t.Field.IsTunMetadata(), keyOfField[t.Field] != nil:
		default:
			return nil, fmt.Errorf("%s: flower has no key for it", t.Field)
		}
	}
	if f.Indev != "" {
		if len(f.Indev) > 15 {
			return nil, fmt.Errorf("indev %q: longer than the name of a device", f.Indev)
		}
		b = appendString(b, flowerIndev, f.Indev)
	}
	v, err := vlanOf(f)
	if err != nil {
		return nil, err
	}
	if v.none {
		b = appendU8(b, flowerNumVLANs, 0)
	}
	if v.hasID {
		b = appendU16(b, flowerVLANID, v.id)
	}
	if v.hasPrio {
		b = appendU8(b, flowerVLANPrio, v.prio)
	}
	if v.hasType {
		b = appendBE16(b, flowerVLANType, v.typ)
	}
	for i := 0; i < len(keys); i++ {
		k := &keys[i]
		var value, mask ir.U128
		var some bool
		for ; ; i++ {
			if t, ok := f.Match.Term(keys[i].field); ok {
				v, m, err := keys[i].wire(t)
				if err != nil {
					return nil, err
				}
				value, mask, some = value.Or(v), mask.Or(m), true
			}
			if i+1 == len(keys) || keys[i+1].attr != k.attr {
				break
			}
		}
		if some {
			b = appendAttr(b, k.attr, u128Bytes(value, k.size, k.host))
			if k.mask != noMask && (!k.short || value.IsZero() || mask != ir.Ones(8*k.size)) {
				b = appendAttr(b, k.mask, u128Bytes(mask, k.size, k.host))
			}
		}
		if k.field == ir.TunID {
			if f.EncDstPort != 0 {
				b = appendBE16(b, flowerEncDstPort, f.EncDstPort)
			}
			if b, err = appendOption(b, f.Match); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// Attributes of Geneve options, which are the same in keys (TCA_FLOWER_KEY_ENC_OPT_GENEVE_*) and in tunnel_key
// (TCA_TUNNEL_KEY_ENC_OPT_GENEVE_*).
const (
	optsGeneve  = 1
	geneveClass = 1
	geneveType  = 2
	geneveData  = 3
)

// appendOption appends the condition on OVN's Geneve option, if there is one.
func appendOption(b []byte, m ir.Match) ([]byte, error) {
	var found bool
	for _, t := range m {
		if !t.Field.IsTunMetadata() {
			continue
		}
		if found {
			return nil, errors.New("two fields of tunnel metadata: there is one Geneve option")
		}
		found = true
		b = appendOptions(b, flowerEncOpts, GeneveOption{OptionClass, OptionType, string(u128Bytes(t.Value, 4, false))})
		b = appendOptions(b, flowerEncOpts+1, GeneveOption{0xffff, 0xff, string(u128Bytes(t.Mask, 4, false))})
	}
	return b, nil
}

// appendOptions appends each option by itself. The kernel writes them all into one attribute, but reads one from each.
func appendOptions(b []byte, typ uint16, opts ...GeneveOption) []byte {
	b, outer := begin(b, typ)
	for _, o := range opts {
		var inner int
		b, inner = begin(b, optsGeneve)
		b = appendBE16(b, geneveClass, o.Class)
		b = appendU8(b, geneveType, o.Type)
		b = appendAttr(b, geneveData, []byte(o.Data))
		end(b, inner)
	}
	end(b, outer)
	return b
}

// appendAction appends f's action number order, from 1.
func appendAction(b []byte, order uint16, a Action, f *Filter) ([]byte, error) {
	b, outer := begin(b, order)
	b = appendString(b, actKind, kindOf(a))
	b, options := begin(b, actOptions|attrNested)
	b, err := appendActionOptions(b, a, f)
	if err != nil {
		return nil, err
	}
	if !end(b, options) {
		return nil, errTooLong
	}
	if f.Cookie != (Cookie{}) {
		b = appendAttr(b, actCookie, f.Cookie[:])
	}
	// Counters per CPU cost three allocations per action, and filters are many.
	flags := ne.AppendUint32(nil, actFlagNoPercpuStats)
	b = appendAttr(b, actFlags, append(flags, flags...))
	if !end(b, outer) {
		return nil, errTooLong
	}
	return b, nil
}

// kindOf returns the name of the kernel's module of a.
func kindOf(a Action) string {
	switch a.(type) {
	case CT:
		return "ct"
	case Pedit:
		return "pedit"
	case CSum:
		return "csum"
	case TunnelSet, TunnelUnset:
		return "tunnel_key"
	case VLAN:
		return "vlan"
	case SkbEdit:
		return "skbedit"
	case Mirred:
		return "mirred"
	case Goto, Pass, Drop, Trap:
		return "gact"
	}
	panic(fmt.Sprintf("tc: action %T", a))
}

// tcGen returns the header of every action's parameters, tc_gen.
func tcGen(verdict uint32) []byte {
	b := make([]byte, 8, 32) // index 0: a new one; capab
	b = ne.AppendUint32(b, verdict)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0) // refcnt, bindcnt
}

// genSize is the size of tc_gen.
const genSize = 20

// Attributes of the actions' options, linux/tc_act/*.h. PARMS is 2 unless said otherwise.
const (
	parms = 2

	csumParms = 1

	ctParms      = 1
	ctAction     = 3
	ctZone       = 4
	ctMark       = 5
	ctMarkMask   = 6
	ctLabels     = 7
	ctLabelsMask = 8
	ctNATv4Min   = 9
	ctNATv4Max   = 10
	ctNATv6Min   = 11
	ctNATv6Max   = 12
	ctNATPortMin = 13
	ctNATPortMax = 14

	tunSrc4    = 3
	tunDst4    = 4
	tunSrc6    = 5
	tunDst6    = 6
	tunKeyID   = 7
	tunDstPort = 9
	tunNoCSum  = 10
	tunOpts    = 11
	tunTOS     = 12
	tunTTL     = 13
	tunNoFrag  = 14

	vlanID       = 3
	vlanProtocol = 4
	vlanPriority = 6

	skbMark  = 5
	skbPtype = 7
	skbMask  = 8
)

// Bits of TCA_CT_ACTION.
const (
	ctActCommit = 1 << iota
	ctActForce
	ctActClear
	ctActNAT
	ctActNATSrc
	ctActNATDst
)

// Operations of tunnel_key, and of mirred (TCA_EGRESS_REDIR and so on).
const (
	tunSet   = 1
	tunUnset = 2

	egressRedirect  = 1
	egressMirror    = 2
	ingressRedirect = 3
	ingressMirror   = 4
)

func appendActionOptions(b []byte, a Action, f *Filter) ([]byte, error) {
	switch a := a.(type) {
	case CT:
		return appendCT(b, a), nil
	case Pedit:
		return appendPedit(b, a, f)
	case CSum:
		return appendAttr(b, csumParms, ne.AppendUint32(tcGen(verdictPipe), a.bits())), nil
	case TunnelSet:
		return appendTunnel(b, a)
	case TunnelUnset:
		b = appendU8(b, tunNoCSum, 0)
		return appendAttr(b, parms, ne.AppendUint32(tcGen(verdictPipe), tunUnset)), nil
	case VLAN:
		b = appendAttr(b, parms, ne.AppendUint32(tcGen(verdictPipe), uint32(a.Op)))
		if a.Op != VLANPop {
			b = appendU16(b, vlanID, a.ID)
			b = appendBE16(b, vlanProtocol, a.Protocol)
			b = appendU8(b, vlanPriority, a.Prio)
		}
		return b, nil
	case SkbEdit:
		b = appendAttr(b, parms, tcGen(verdictPipe))
		if a.MarkMask != 0 {
			b = appendU32(b, skbMark, a.Mark)
			if a.MarkMask != ^uint32(0) {
				b = appendU32(b, skbMask, a.MarkMask)
			}
		}
		if a.Host {
			b = appendU16(b, skbPtype, 0) // PACKET_HOST
		}
		return b, nil
	case Mirred:
		verdict, op := uint32(verdictStolen), uint32(egressRedirect)
		switch {
		case a.Mirror && a.Ingress:
			verdict, op = verdictPipe, ingressMirror
		case a.Mirror:
			verdict, op = verdictPipe, egressMirror
		case a.Ingress:
			op = ingressRedirect
		}
		p := ne.AppendUint32(tcGen(verdict), op)
		return appendAttr(b, parms, ne.AppendUint32(p, uint32(a.Ifindex))), nil
	case Goto:
		if a.Chain > MaxChain {
			return nil, fmt.Errorf("goto chain %d, which is more than %d", a.Chain, MaxChain)
		}
		return appendAttr(b, parms, tcGen(verdictGoto|a.Chain)), nil
	case Pass:
		return appendAttr(b, parms, tcGen(verdictOK)), nil
	case Drop:
		return appendAttr(b, parms, tcGen(verdictShot)), nil
	case Trap:
		return appendAttr(b, parms, tcGen(verdictTrap)), nil
	}
	panic(fmt.Sprintf("tc: action %T", a))
}

func appendCT(b []byte, a CT) []byte {
	var bits uint16
	for _, x := range []struct {
		set bool
		bit uint16
	}{{a.Commit, ctActCommit}, {a.Force, ctActForce}, {a.Clear, ctActClear}, {a.NAT, ctActNAT}, {a.Src, ctActNATSrc}, {a.Dst, ctActNATDst}} {
		if x.set {
			bits |= x.bit
		}
	}
	if !a.Clear {
		b = appendU16(b, ctZone, a.Zone)
		if a.MarkMask != 0 {
			b = appendU32(b, ctMark, a.Mark)
			b = appendU32(b, ctMarkMask, a.MarkMask)
		}
		if !a.LabelMask.IsZero() {
			b = appendAttr(b, ctLabels, u128Bytes(a.Label, 16, true))
			b = appendAttr(b, ctLabelsMask, u128Bytes(a.LabelMask, 16, true))
		}
		b = appendRange(b, a.AddrMin, ctNATv4Min, ctNATv6Min)
		b = appendRange(b, a.AddrMax, ctNATv4Max, ctNATv6Max)
		if a.PortMin != 0 {
			b = appendBE16(b, ctNATPortMin, a.PortMin)
			b = appendBE16(b, ctNATPortMax, a.PortMax)
		}
	}
	b = appendU16(b, ctAction, bits)
	return appendAttr(b, ctParms, tcGen(verdictPipe))
}

// appendRange appends an address as the attribute of its family, if it is one.
func appendRange(b []byte, a netip.Addr, v4, v6 uint16) []byte {
	switch {
	case a.Is4():
		return appendAttr(b, v4, a.AsSlice())
	case a.Is6():
		return appendAttr(b, v6, a.WithZone("").AsSlice())
	}
	return b
}

// The bits of TCA_CSUM_PARMS, TCA_CSUM_UPDATE_FLAG_*, in ascending order.
func (a *CSum) flags() []*bool {
	return []*bool{&a.IPv4, &a.ICMP, &a.IGMP, &a.TCP, &a.UDP, &a.UDPLite, &a.SCTP}
}

func (a CSum) bits() (bits uint32) {
	for i, set := range a.flags() {
		if *set {
			bits |= 1 << i
		}
	}
	return bits
}

// maxOptions is IP_TUNNEL_OPTS_MAX: the bytes of all Geneve options, each with its header of 4 bytes.
const maxOptions = 255

func appendTunnel(b []byte, a TunnelSet) ([]byte, error) {
	b = appendRange(b, a.Src, tunSrc4, tunSrc6)
	b = appendRange(b, a.Dst, tunDst4, tunDst6)
	b = appendBE32(b, tunKeyID, a.ID)
	if a.DstPort != 0 {
		b = appendBE16(b, tunDstPort, a.DstPort)
	}
	if len(a.Options) > 0 {
		n := 0
		for _, o := range a.Options {
			if n += 4 + len(o.Data); len(o.Data)%4 != 0 || n > maxOptions {
				return nil, fmt.Errorf("geneve option %04x:%02x with %d bytes of data: not a multiple of 4, or options of more than %d in all",
					o.Class, o.Type, len(o.Data), maxOptions)
			}
		}
		b = appendOptions(b, tunOpts, a.Options...)
	}
	if a.TOS != 0 {
		b = appendU8(b, tunTOS, a.TOS)
	}
	if a.TTL != 0 {
		b = appendU8(b, tunTTL, a.TTL)
	}
	if a.NoFrag {
		b = appendAttr(b, tunNoFrag, nil)
	}
	noCSum := uint8(0)
	if a.NoCSum {
		noCSum = 1
	}
	b = appendU8(b, tunNoCSum, noCSum)
	return appendAttr(b, parms, ne.AppendUint32(tcGen(verdictPipe), tunSet)), nil
}
