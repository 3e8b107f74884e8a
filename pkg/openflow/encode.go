package openflow

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

var be = binary.BigEndian

// AppendMatch appends the OXM TLVs of m, without the header and padding of struct ofp_match.
// Prerequisites are not checked and not added: m must contain them, else Open vSwitch refuses the flow.
// A condition that OpenFlow 1.5 cannot express exactly (half of a priority of a VLAN tag) is written as Open
// vSwitch would write it.
func AppendMatch(b []byte, m ir.Match) []byte {
	for i := 0; i < len(m); i++ {
		t := &m[i]
		switch f := t.Field; {
		case f == ir.InPort:
			b = be.AppendUint32(b, headerInPort)
			b = be.AppendUint32(b, port32(uint16(t.Value.Lo)))
		case f == ir.VLANTCI:
			b = appendVLAN(b, uint16(t.Value.Lo), uint16(t.Mask.Lo))
		case f == ir.TunFlags:
			// Only one flag is defined, so the mask is never that of the whole field.
			b = appendMasked(b, wire[f].oxm, t.Value, t.Mask.And(ir.U64(tunFlagOAM)), 2)
		case f.IsReg():
			var partner *ir.Term
			if i+1 < len(m) && m[i+1].Field == f+1 && (f-ir.Reg0)%2 == 0 {
				i++
				partner = &m[i]
			}
			b = appendXReg(b, t, partner)
		default:
			w := &wire[f]
			if t.Mask == f.Ones() {
				b = be.AppendUint32(b, w.oxm)
				b = appendUint(b, t.Value, w.size)
			} else {
				b = appendMasked(b, w.oxm, t.Value, t.Mask, w.size)
			}
		}
	}
	return b
}

// tunFlagOAM is NX_TUN_FLAG_OAM.
const tunFlagOAM = 1

// appendXReg appends the condition on a pair of registers; either may be the only one (and partner nil).
func appendXReg(b []byte, t, partner *ir.Term) []byte {
	n := int(t.Field - ir.Reg0)
	value, mask := t.Value.Lo, t.Mask.Lo
	switch {
	case partner != nil:
		value, mask = value<<32|partner.Value.Lo, mask<<32|partner.Mask.Lo
	case n%2 == 0:
		value, mask = value<<32, mask<<32
	}
	h := wire[ir.XReg0+ir.Field(n/2)].oxm
	if mask == ^uint64(0) {
		b = be.AppendUint32(b, h)
		return be.AppendUint64(b, value)
	}
	return appendMasked(b, h, ir.U64(value), ir.U64(mask), 8)
}

func appendVLAN(b []byte, tci, mask uint16) []byte {
	if vid := mask & vlanVIDPresent; vid == vlanVIDPresent {
		b = be.AppendUint32(b, headerVLANVID)
		b = be.AppendUint16(b, tci&vlanVIDPresent)
	} else if vid != 0 {
		b = appendMasked(b, headerVLANVID, ir.U64(uint64(tci&vlanVIDPresent)), ir.U64(uint64(vid)), 2)
	}
	if tci&vlanVIDPresent != 0 && mask>>vlanPCPShift != 0 {
		b = be.AppendUint32(b, headerVLANPCP)
		b = append(b, byte(tci>>vlanPCPShift))
	}
	return b
}

// appendMasked appends a TLV with a mask. size is the length of the value alone.
func appendMasked(b []byte, header uint32, value, mask ir.U128, size int) []byte {
	b = be.AppendUint32(b, header+uint32(size)|oxmHasMask)
	b = appendUint(b, value, size)
	return appendUint(b, mask, size)
}

// appendUint appends the low size bytes of v in network byte order.
func appendUint(b []byte, v ir.U128, size int) []byte {
	switch size {
	case 1:
		return append(b, byte(v.Lo))
	case 2:
		return be.AppendUint16(b, uint16(v.Lo))
	case 4:
		return be.AppendUint32(b, uint32(v.Lo))
	case 8:
		return be.AppendUint64(b, v.Lo)
	case 16:
		return be.AppendUint64(be.AppendUint64(b, v.Hi), v.Lo)
	default:
		a := v.Bytes16()
		return append(b, a[16-size:]...)
	}
}

// Reserved ports start here in the 16 bits of OpenFlow 1.0 and the Nicira extensions; OpenFlow 1.1 and later
// have them at the end of 32 bits (ofputil_port_to_ofp11).
const (
	portReserved16 = 0xff00
	portReserved32 = 0xffffff00
)

func port32(p uint16) uint32 {
	if p >= portReserved16 {
		return uint32(p) | 0xffff0000
	}
	return uint32(p)
}

// Vendors (experimenter ids).
const (
	vendorNicira    = 0x00002320
	vendorNetronome = 0x0000154d
)

// Standard actions: enum ofp_raw_action_type of lib/ofp-actions.c, OpenFlow 1.5.
const (
	actOutput    = 0
	actPushVLAN  = 17
	actPopVLAN   = 18
	actSetQueue  = 21
	actGroup     = 22
	actSetField  = 25
	actCopyField = 28
	actMeter     = 29
	actVendor    = 0xffff
)

// Nicira actions (NXAST_*).
const (
	nxNote           = 8
	nxBundle         = 12
	nxResubmitTable  = 14
	nxLearn          = 16
	nxDecTTLCntIDs   = 21
	nxStackPush      = 27
	nxStackPop       = 28
	nxSample         = 29
	nxConjunction    = 34
	nxCT             = 35
	nxNAT            = 36
	nxController2    = 37
	nxSample2        = 38
	nxClone          = 42
	nxCTClear        = 43
	nxCheckPktLarger = 49
)

// Fields of the Nicira actions.
const (
	resubmitInPort = 0xfff8 // OFPP_IN_PORT: the packet's own input port
	samplePortNone = 0xffff // OFPP_NONE

	ctCommit, ctForce = 1, 2 // NX_CT_F_*

	natSrc, natDst, natPersistent, natProtoHash, natProtoRandom = 1, 2, 4, 8, 16 // NX_NAT_F_*

	// NX_NAT_RANGE_*: the values that follow, in this order.
	natIPv4Min, natIPv4Max, natIPv6Min, natIPv6Max, natProtoMin, natProtoMax = 1, 2, 4, 8, 16, 32

	// NXAC2PT_*: properties of a controller action.
	ctrlMaxLen, ctrlID, ctrlUserData, ctrlPause, ctrlMeterID = 0, 1, 3, 4, 5

	learnDeleteLearned = 2 // NX_LEARN_F_DELETE_LEARNED

	// Bits of the header of a learn term: the low 10 are the width.
	learnWidth     = 0x3ff
	learnDstLoad   = 1 << 11
	learnDstMask   = 3 << 11
	learnImmediate = 1 << 13

	bundleHashEthSrc, bundleActiveBackup = 0, 0 // NX_HASH_FIELDS_ETH_SRC, NX_BD_ALG_ACTIVE_BACKUP
)

// AppendActions appends the actions, each padded to a multiple of 8 bytes: the contents of an apply-actions
// instruction, of a bucket, or of the userdata of a controller action.
// Lengths are 16 bits wide; a list of more than 65535 bytes comes out wrong and is refused by [Conn.Commit].
// It panics on an action or a field that is none of ir's.
func AppendActions(b []byte, actions []ir.Action) []byte {
	for _, a := range actions {
		b = appendAction(b, a)
	}
	return b
}

func appendAction(b []byte, a ir.Action) []byte {
	start := len(b)
	switch a := a.(type) {
	case ir.Output:
		b = beginAction(b, actOutput)
		port := a.Port
		if port <= 0xffff {
			port = port32(uint16(port))
		}
		b = be.AppendUint32(b, port)
		b = be.AppendUint64(b, 0) // nothing is sent to a controller
	case ir.Resubmit:
		b = beginNicira(b, nxResubmitTable)
		b = be.AppendUint16(b, resubmitInPort)
		b = append(b, a.Table, 0, 0, 0)
	case ir.Set:
		b = beginAction(b, actSetField)
		b = appendSet(b, &a)
	case ir.Move:
		b = beginAction(b, actCopyField)
		b = be.AppendUint16(b, uint16(a.Dst.N))
		b = be.AppendUint16(b, uint16(a.Src.Ofs))
		b = be.AppendUint16(b, uint16(a.Dst.Ofs))
		b = append(b, 0, 0)
		b = be.AppendUint32(b, mustKnow(a.Src.Field).oxm)
		b = be.AppendUint32(b, mustKnow(a.Dst.Field).oxm)
	case ir.Push:
		b = appendStack(b, nxStackPush, a.Sub)
	case ir.Pop:
		b = appendStack(b, nxStackPop, a.Sub)
	case ir.StripVLAN:
		b = beginAction(b, actPopVLAN)
	case ir.PushVLAN:
		b = beginAction(b, actPushVLAN)
		b = be.AppendUint16(b, a.EtherType)
	case ir.DecTTL:
		b = beginNicira(b, nxDecTTLCntIDs)
		b = be.AppendUint16(b, 0) // controllers
	case ir.CTClear:
		b = beginNicira(b, nxCTClear)
	case ir.CT:
		b = beginNicira(b, nxCT)
		b = appendCT(b, &a)
	case ir.Clone:
		b = beginNicira(b, nxClone)
		b = append(b, 0, 0, 0, 0, 0, 0)
		b = AppendActions(b, a.Actions)
	case ir.Conjunction:
		b = beginNicira(b, nxConjunction)
		b = append(b, a.Clause, a.N)
		b = be.AppendUint32(b, a.ID)
	case ir.Group:
		b = beginAction(b, actGroup)
		b = be.AppendUint32(b, a.ID)
	case ir.Controller:
		b = beginNicira(b, nxController2)
		b = append(b, 0, 0, 0, 0, 0, 0)
		b = appendController(b, &a)
	case ir.Learn:
		b = beginNicira(b, nxLearn)
		b = appendLearn(b, &a)
	case ir.Meter:
		b = beginAction(b, actMeter)
		b = be.AppendUint32(b, a.ID)
	case ir.SetQueue:
		b = beginAction(b, actSetQueue)
		b = be.AppendUint32(b, a.ID)
	case ir.CheckPktLarger:
		b = beginNicira(b, nxCheckPktLarger)
		b = be.AppendUint16(b, a.Len)
		b = be.AppendUint16(b, uint16(a.Dst.Ofs))
		b = be.AppendUint32(b, mustKnow(a.Dst.Field).legacy)
	case ir.Sample:
		b = appendSample(b, &a)
	case ir.Bundle:
		b = beginNicira(b, nxBundle)
		b = appendBundleAction(b, &a)
	case ir.Note:
		b = beginNicira(b, nxNote)
		b = append(b, a.Data...)
	default:
		panic(fmt.Sprintf("openflow: action %T", a))
	}
	return endAction(b, start)
}

// beginAction appends the header of a standard action; endAction completes it.
func beginAction(b []byte, typ uint16) []byte {
	b = be.AppendUint16(b, typ)
	return append(b, 0, 0)
}

func beginNicira(b []byte, subtype uint16) []byte {
	b = beginAction(b, actVendor)
	b = be.AppendUint32(b, vendorNicira)
	return be.AppendUint16(b, subtype)
}

// endAction pads the action that begins at start to a multiple of 8 bytes and fills in its length.
func endAction(b []byte, start int) []byte {
	b = pad8(b, start)
	be.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

// pad8 appends zeros until the part of b from start is a multiple of 8 bytes long.
func pad8(b []byte, start int) []byte {
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

func mustKnow(f ir.Field) *wireField {
	if !known(f) {
		panic(fmt.Sprintf("openflow: field %v", f))
	}
	return &wire[f]
}

// wholeBytes reports whether f fills the bytes that carry it. If not, OVN's agents always write it with a mask.
func wholeBytes(f ir.Field) bool { return f.Bits()%8 == 0 }

func appendSet(b []byte, a *ir.Set) []byte {
	w := mustKnow(a.Field)
	size := w.size
	whole := a.Mask == a.Field.Ones() && wholeBytes(a.Field)
	header := w.oxm
	if a.Field.IsTunMetadata() {
		// A field of variable length is as long as its value (field_len of lib/meta-flow.c).
		v := a.Value
		if !whole {
			v = v.Or(a.Mask)
		}
		header -= uint32(size)
		size = (v.BitLen() + 7) / 8
		header += uint32(size)
	}
	if whole {
		b = be.AppendUint32(b, header)
		return appendUint(b, a.Value, size)
	}
	return appendMasked(b, header, a.Value, a.Mask, size)
}

func appendStack(b []byte, subtype uint16, s ir.Sub) []byte {
	b = beginNicira(b, subtype)
	b = be.AppendUint16(b, uint16(s.Ofs))
	b = be.AppendUint32(b, mustKnow(s.Field).legacy)
	return be.AppendUint16(b, uint16(s.N))
}

// ofsNBits packs a range of bits into 16 (nxm_encode_ofs_nbits).
func ofsNBits(s ir.Sub) uint16 { return uint16(s.Ofs<<6 | (s.N - 1)) }

func appendCT(b []byte, a *ir.CT) []byte {
	var flags uint16
	if a.Commit {
		flags |= ctCommit
	}
	if a.Force {
		flags |= ctForce
	}
	b = be.AppendUint16(b, flags)
	if a.ZoneFrom.Field != 0 {
		b = be.AppendUint32(b, mustKnow(a.ZoneFrom.Field).legacy)
		b = be.AppendUint16(b, ofsNBits(a.ZoneFrom))
	} else {
		b = be.AppendUint32(b, 0)
		b = be.AppendUint16(b, a.Zone)
	}
	b = append(b, a.Table, 0, 0, 0)
	b = be.AppendUint16(b, a.Alg)
	if a.NAT != nil {
		b = appendNAT(b, a.NAT)
	}
	return AppendActions(b, a.Exec)
}

func appendNAT(b []byte, n *ir.NAT) []byte {
	start := len(b)
	b = beginNicira(b, nxNAT)
	var flags, ranges uint16
	for _, f := range [...]struct {
		on  bool
		bit uint16
	}{
		{n.Src, natSrc},
		{n.Dst, natDst},
		{n.Persistent, natPersistent},
		{n.ProtoHash, natProtoHash},
		{n.ProtoRandom, natProtoRandom},
	} {
		if f.on {
			flags |= f.bit
		}
	}
	b = append(b, 0, 0)
	b = be.AppendUint16(b, flags)
	rangesAt := len(b)
	b = append(b, 0, 0)

	size, minBit, maxBit := 4, uint16(natIPv4Min), uint16(natIPv4Max)
	if n.IPv6 {
		size, minBit, maxBit = 16, natIPv6Min, natIPv6Max
	}
	if !n.AddrMin.IsZero() {
		b = appendUint(b, n.AddrMin, size)
		ranges |= minBit
		if !n.AddrMax.IsZero() {
			b = appendUint(b, n.AddrMax, size)
			ranges |= maxBit
		}
		// Ports without an address are refused by Open vSwitch.
		if n.PortMin != 0 {
			b = be.AppendUint16(b, n.PortMin)
			ranges |= natProtoMin
			if n.PortMax != 0 {
				b = be.AppendUint16(b, n.PortMax)
				ranges |= natProtoMax
			}
		}
	}
	be.PutUint16(b[rangesAt:], ranges)
	return endAction(b, start)
}

func appendController(b []byte, a *ir.Controller) []byte {
	if a.MaxLen != 0xffff {
		b = appendProp16(b, ctrlMaxLen, a.MaxLen)
	}
	if a.ControllerID != 0 {
		b = appendProp16(b, ctrlID, a.ControllerID)
	}
	if len(a.UserData) > 0 {
		start := len(b)
		b = be.AppendUint16(b, ctrlUserData)
		b = be.AppendUint16(b, uint16(4+len(a.UserData)))
		b = append(b, a.UserData...)
		b = pad8(b, start)
	}
	if a.Pause {
		b = be.AppendUint16(b, ctrlPause)
		b = be.AppendUint16(b, 4)
		b = append(b, 0, 0, 0, 0)
	}
	if a.MeterID != 0 {
		b = appendProp32(b, ctrlMeterID, a.MeterID)
	}
	return b
}

func appendProp16(b []byte, typ, v uint16) []byte {
	b = be.AppendUint16(b, typ)
	b = be.AppendUint16(b, 8) // Open vSwitch counts the padding (struct ofp_prop_be16)
	b = be.AppendUint16(b, v)
	return append(b, 0, 0)
}

func appendProp32(b []byte, typ uint16, v uint32) []byte {
	b = be.AppendUint16(b, typ)
	b = be.AppendUint16(b, 8)
	return be.AppendUint32(b, v)
}

func appendLearn(b []byte, a *ir.Learn) []byte {
	b = be.AppendUint16(b, a.IdleTimeout)
	b = be.AppendUint16(b, a.HardTimeout)
	b = be.AppendUint16(b, a.Priority)
	b = be.AppendUint64(b, a.Cookie)
	var flags uint16
	if a.DeleteLearned {
		flags = learnDeleteLearned
	}
	b = be.AppendUint16(b, flags)
	b = append(b, a.Table, 0)
	b = be.AppendUint32(b, 0) // no timeouts after FIN
	for i := range a.Terms {
		t := &a.Terms[i]
		h := uint16(t.Dst.N)
		if t.Load {
			h |= learnDstLoad
		}
		if t.Src.Field == 0 {
			b = be.AppendUint16(b, h|learnImmediate)
			v := t.Imm.And(ir.Ones(t.Dst.N)).Bytes16()
			b = append(b, v[16-learnImmSize(t.Dst.N):]...)
		} else {
			b = be.AppendUint16(b, h)
			b = be.AppendUint32(b, mustKnow(t.Src.Field).legacy)
			b = be.AppendUint16(b, uint16(t.Src.Ofs))
		}
		b = be.AppendUint32(b, mustKnow(t.Dst.Field).legacy)
		b = be.AppendUint16(b, uint16(t.Dst.Ofs))
	}
	return b
}

// learnImmSize is the length in bytes of an immediate value of n bits.
func learnImmSize(n int) int { return 2 * ((n + 15) / 16) }

func appendSample(b []byte, a *ir.Sample) []byte {
	if a.SamplingPort == samplePortNone {
		b = beginNicira(b, nxSample)
	} else {
		b = beginNicira(b, nxSample2)
	}
	b = be.AppendUint16(b, a.Probability)
	b = be.AppendUint32(b, a.CollectorSet)
	b = be.AppendUint32(b, a.ObsDomain)
	b = be.AppendUint32(b, a.ObsPoint)
	if a.SamplingPort != samplePortNone {
		b = be.AppendUint16(b, a.SamplingPort)
	}
	return b
}

func appendBundleAction(b []byte, a *ir.Bundle) []byte {
	b = be.AppendUint16(b, bundleActiveBackup)
	b = be.AppendUint16(b, bundleHashEthSrc)
	b = be.AppendUint16(b, a.Basis)
	b = be.AppendUint32(b, wire[ir.InPort].legacy)
	b = be.AppendUint16(b, uint16(len(a.Members)))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // no destination field; reserved
	for _, m := range a.Members {
		b = be.AppendUint16(b, m)
	}
	return b
}

// Groups (include/openflow/openflow-1.5.h) and the property with their selection method (netronome-ext.h).
const (
	groupSelect     = 1 // OFPGT11_SELECT
	bucketWeight    = 0 // OFPGBPT15_WEIGHT
	bucketWatchPort = 1 // OFPGBPT15_WATCH_PORT
	bucketIDAll     = 0xffffffff
	bucketIDLast    = 0xfffffffe

	propExperimenter   = 0xffff
	ntrSelectionMethod = 1  // NTRT_SELECTION_METHOD
	ntrPropSize        = 40 // without the fields
	ntrMethodSize      = 16 // of the method's name with its final zero
)

// Wildcards of the ports and groups that a request is about (OFPP_ANY, OFPG_ANY).
const portAny, groupAny = 0xffffffff, 0xffffffff

// AppendGroup appends the buckets of g, which are numbered from 0, followed by the property that carries its
// selection method: the part of a group that a group-mod and a group description have in common.
// A method of more than 15 bytes is cut.
func AppendGroup(b []byte, g *ir.SelectGroup) []byte {
	for i := range g.Buckets {
		k := &g.Buckets[i]
		start := len(b)
		b = append(b, 0, 0, 0, 0)
		b = be.AppendUint32(b, uint32(i))
		b = AppendActions(b, k.Actions)
		be.PutUint16(b[start+2:], uint16(len(b)-start-8))
		b = appendProp16(b, bucketWeight, k.Weight)
		if k.WatchPort != 0 {
			b = appendProp32(b, bucketWatchPort, k.WatchPort)
		}
		be.PutUint16(b[start:], uint16(len(b)-start))
	}
	if g.Method == "" {
		return b
	}
	start := len(b)
	b = be.AppendUint16(b, propExperimenter)
	b = append(b, 0, 0)
	b = be.AppendUint32(b, vendorNetronome)
	b = be.AppendUint32(b, ntrSelectionMethod)
	b = append(b, 0, 0, 0, 0)
	var method [ntrMethodSize]byte
	copy(method[:ntrMethodSize-1], g.Method)
	b = append(b, method[:]...)
	b = be.AppendUint64(b, g.Param)
	fields := g.Fields
	if !slices.IsSorted(fields) {
		fields = slices.Sorted(slices.Values(fields))
	}
	for _, f := range fields {
		w := mustKnow(f)
		b = be.AppendUint32(b, w.oxm)
		for range w.size {
			b = append(b, 0xff)
		}
	}
	be.PutUint16(b[start+2:], uint16(len(b)-start))
	return pad8(b, start)
}
