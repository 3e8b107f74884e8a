package openflow

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// errNotCanonical is the cause for bytes that could be understood but are not those that Open vSwitch sends.
var errNotCanonical = errors.New("not in canonical form")

// DecodeMatch is the inverse of AppendMatch. It refuses fields that ir does not have and every encoding but the
// one that AppendMatch writes. b is not kept.
func DecodeMatch(b []byte) (ir.Match, error) {
	var m ir.Match
	for p := b; len(p) > 0; {
		h, value, mask, rest, err := cutTLV(p)
		if err != nil {
			return nil, fmt.Errorf("openflow match: %w", err)
		}
		p = rest
		if m, err = appendTerms(m, h, value, mask); err != nil {
			return nil, fmt.Errorf("openflow match: %w", err)
		}
	}
	for i := range m {
		if i > 0 && m[i-1].Field >= m[i].Field {
			return nil, fmt.Errorf("openflow match: %v after %v: %w", m[i].Field, m[i-1].Field, errNotCanonical)
		}
	}
	if !bytes.Equal(AppendMatch(nil, m), b) {
		return nil, fmt.Errorf("openflow match: %w", errNotCanonical)
	}
	return m, nil
}

// cutTLV splits off one OXM TLV. h is its header without mask bit and length; mask is nil if there is none.
func cutTLV(b []byte) (h uint32, value, mask, rest []byte, err error) {
	if len(b) < 4 {
		return 0, nil, nil, nil, fmt.Errorf("%d bytes left over", len(b))
	}
	h = be.Uint32(b)
	size := int(h & 0xff)
	if size > len(b)-4 {
		return 0, nil, nil, nil, fmt.Errorf("OXM %#08x: %d of %d bytes", h, len(b)-4, size)
	}
	value, rest = b[4:4+size], b[4+size:]
	if h&oxmHasMask != 0 {
		if size%2 != 0 {
			return 0, nil, nil, nil, fmt.Errorf("OXM %#08x: odd length", h)
		}
		value, mask = value[:size/2], value[size/2:]
	}
	if len(value) > 16 {
		return 0, nil, nil, nil, fmt.Errorf("OXM %#08x: too long", h)
	}
	return h &^ 0x1ff, value, mask, rest, nil
}

// appendTerms appends what one TLV says.
func appendTerms(m ir.Match, h uint32, value, mask []byte) (ir.Match, error) {
	var f ir.Field
	width, shift := 0, 0 // of the TLV's value in bits, and where in the field it is
	switch h {
	case headerInPort &^ 0x1ff:
		if len(value) != 4 || mask != nil {
			return nil, errors.New("in_port: bad length")
		}
		return append(m, ir.Term{Field: ir.InPort, Value: ir.U64(uint64(be.Uint16(value[2:]))), Mask: ir.InPort.Ones()}), nil
	case headerVLANVID &^ 0x1ff:
		f, width = ir.VLANTCI, 13
	case headerVLANPCP &^ 0x1ff:
		f, width, shift = ir.VLANTCI, 3, vlanPCPShift
	default:
		var ok bool
		if f, ok = fieldOf[h>>9]; !ok {
			return nil, fmt.Errorf("OXM %#08x: no such field", h)
		}
		width = f.Bits()
		if len(value) != wire[f].size {
			return nil, fmt.Errorf("%v: %d bytes", f, len(value))
		}
	}
	v, k := ir.FromBytes(value), ir.Ones(width)
	if mask != nil {
		k = ir.FromBytes(mask)
	}
	if k.IsZero() || !v.AndNot(k).IsZero() || !k.AndNot(ir.Ones(width)).IsZero() {
		return nil, fmt.Errorf("%v: value %v, mask %v", f, v, k)
	}
	v, k = v.Shl(shift), k.Shl(shift)
	switch {
	case f >= ir.XReg0 && f <= ir.XReg7:
		first := ir.Reg0 + 2*(f-ir.XReg0)
		for i := range ir.Field(2) {
			part := ir.Term{Field: first + i, Value: v.Shr(32 - 32*int(i)).And(ir.Ones(32)), Mask: k.Shr(32 - 32*int(i)).And(ir.Ones(32))}
			if !part.Mask.IsZero() {
				m = append(m, part)
			}
		}
		return m, nil
	case f == ir.VLANTCI && len(m) > 0 && m[len(m)-1].Field == f:
		t := &m[len(m)-1]
		t.Value, t.Mask = t.Value.Or(v), t.Mask.Or(k)
		return m, nil
	}
	return append(m, ir.Term{Field: f, Value: v, Mask: k}), nil
}

// maxNesting is how deep actions may contain actions: what Open vSwitch accepts (MAX_OFPACT_PARSE_DEPTH).
const maxNesting = 100

// DecodeActions is the inverse of AppendActions. It refuses actions that ir does not have and every encoding but
// the one that AppendActions writes. b is not kept.
func DecodeActions(b []byte) ([]ir.Action, error) {
	actions, err := decodeActions(b, 0)
	if err != nil {
		return nil, fmt.Errorf("openflow actions: %w", err)
	}
	if !bytes.Equal(AppendActions(nil, actions), b) {
		return nil, fmt.Errorf("openflow actions: %w", errNotCanonical)
	}
	return actions, nil
}

func decodeActions(b []byte, depth int) ([]ir.Action, error) {
	if depth > maxNesting {
		return nil, errors.New("nested too deep")
	}
	var out []ir.Action
	for len(b) > 0 {
		act, rest, err := cutAction(b)
		if err != nil {
			return nil, err
		}
		a, err := decodeAction(act, depth)
		if err != nil {
			return nil, err
		}
		out, b = append(out, a), rest
	}
	return out, nil
}

// cutAction splits off one action with its header.
func cutAction(b []byte) (act, rest []byte, err error) {
	if len(b) < 8 {
		return nil, nil, fmt.Errorf("%d bytes left over", len(b))
	}
	n := int(be.Uint16(b[2:]))
	if n < 8 || n%8 != 0 || n > len(b) {
		return nil, nil, fmt.Errorf("action %d: length %d of %d bytes", be.Uint16(b), n, len(b))
	}
	return b[:n], b[n:], nil
}

// decodeAction reads one action. It checks lengths; what else must hold, such as padding that is zero, the
// comparison of the whole does.
func decodeAction(b []byte, depth int) (ir.Action, error) {
	typ := be.Uint16(b)
	if typ == actVendor {
		return decodeNicira(b, depth)
	}
	// The standard actions besides these have a header of 4 bytes and up to 4 bytes of arguments.
	switch typ {
	case actSetField:
		return decodeSet(b[4:])
	case actCopyField:
		return decodeMove(b)
	case actOutput:
		if len(b) != 16 {
			return nil, fmt.Errorf("output: length %d", len(b))
		}
		return ir.Output{Port: portIR(be.Uint32(b[4:]))}, nil
	}
	arg := be.Uint32(b[4:])
	switch typ {
	case actPushVLAN:
		return ir.PushVLAN{EtherType: uint16(arg >> 16)}, nil
	case actPopVLAN:
		return ir.StripVLAN{}, nil
	case actSetQueue:
		return ir.SetQueue{ID: arg}, nil
	case actGroup:
		return ir.Group{ID: arg}, nil
	case actMeter:
		return ir.Meter{ID: arg}, nil
	}
	return nil, fmt.Errorf("action type %d: not supported", typ)
}

// portIR returns the 16-bit form of a port number of OpenFlow 1.1 and later, if it has one.
func portIR(p uint32) uint32 {
	if p >= portReserved32 {
		return p & 0xffff
	}
	return p
}

func decodeSet(b []byte) (ir.Action, error) {
	h, value, mask, _, err := cutTLV(b)
	if err != nil {
		return nil, fmt.Errorf("set_field: %w", err)
	}
	f, ok := fieldOf[h>>9]
	if !ok {
		return nil, fmt.Errorf("set_field: OXM %#08x: no such field", h)
	}
	if len(value) != wire[f].size && (!f.IsTunMetadata() || len(value) > wire[f].size) {
		return nil, fmt.Errorf("set_field: %v: %d bytes", f, len(value))
	}
	s := ir.Set{Field: f, Value: ir.FromBytes(value), Mask: f.Ones()}
	if mask != nil {
		s.Mask = ir.FromBytes(mask)
	} else if !wholeBytes(f) {
		return nil, fmt.Errorf("set_field: %v: no mask", f)
	}
	if !s.Value.AndNot(s.Mask).IsZero() || !s.Mask.AndNot(f.Ones()).IsZero() {
		return nil, fmt.Errorf("set_field: %v: value %v, mask %v", f, s.Value, s.Mask)
	}
	return s, nil
}

func decodeMove(b []byte) (ir.Action, error) {
	if len(b) != 24 {
		return nil, fmt.Errorf("copy_field: length %d", len(b))
	}
	n := be.Uint16(b[4:])
	src, err := decodeSub(be.Uint32(b[12:]), be.Uint16(b[6:]), n)
	if err != nil {
		return nil, fmt.Errorf("copy_field: %w", err)
	}
	dst, err := decodeSub(be.Uint32(b[16:]), be.Uint16(b[8:]), n)
	if err != nil {
		return nil, fmt.Errorf("copy_field: %w", err)
	}
	return ir.Move{Src: src, Dst: dst}, nil
}

// decodeSub returns n bits from bit ofs of the field with the given header.
func decodeSub(header uint32, ofs, n uint16) (ir.Sub, error) {
	f, ok := fieldOf[header>>9]
	if !ok {
		return ir.Sub{}, fmt.Errorf("OXM %#08x: no such field", header)
	}
	if n == 0 || int(ofs)+int(n) > f.Bits() {
		return ir.Sub{}, fmt.Errorf("%v: %d bits from bit %d", f, n, ofs)
	}
	return ir.Sub{Field: f, Ofs: int(ofs), N: int(n)}, nil
}

func decodeNicira(b []byte, depth int) (ir.Action, error) {
	if len(b) < 16 || be.Uint32(b[4:]) != vendorNicira {
		return nil, errors.New("vendor action: not Nicira's")
	}
	subtype := be.Uint16(b[8:])
	if n := minNicira[subtype]; len(b) < n {
		return nil, fmt.Errorf("NXAST %d: length %d", subtype, len(b))
	}
	arg := b[10:] // at least 6 bytes
	switch subtype {
	case nxNote:
		return ir.Note{Data: bytes.Clone(arg)}, nil
	case nxResubmitTable:
		return ir.Resubmit{Table: arg[2]}, nil
	case nxCTClear:
		return ir.CTClear{}, nil
	case nxDecTTLCntIDs:
		if n := be.Uint16(arg); n != 0 {
			return nil, fmt.Errorf("dec_ttl: %d controllers", n)
		}
		return ir.DecTTL{}, nil
	case nxConjunction:
		return ir.Conjunction{Clause: arg[0], N: arg[1], ID: be.Uint32(arg[2:])}, nil
	case nxClone:
		actions, err := decodeActions(b[16:], depth+1)
		if err != nil {
			return nil, fmt.Errorf("clone: %w", err)
		}
		return ir.Clone{Actions: actions}, nil
	case nxController2:
		return decodeController(b[16:])
	case nxBundle:
		return decodeBundleAction(b)
	case nxLearn:
		return decodeLearn(b)
	case nxStackPush, nxStackPop:
		s, err := decodeSub(be.Uint32(arg[2:]), be.Uint16(arg), be.Uint16(arg[6:]))
		if err != nil {
			return nil, fmt.Errorf("stack: %w", err)
		}
		if subtype == nxStackPush {
			return ir.Push{Sub: s}, nil
		}
		return ir.Pop{Sub: s}, nil
	case nxSample, nxSample2:
		s := ir.Sample{
			Probability: be.Uint16(arg), CollectorSet: be.Uint32(arg[2:]), ObsDomain: be.Uint32(arg[6:]),
			ObsPoint: be.Uint32(arg[10:]), SamplingPort: samplePortNone,
		}
		if subtype == nxSample2 {
			s.SamplingPort = be.Uint16(arg[14:])
		}
		return s, nil
	case nxCT:
		return decodeCT(b, depth)
	case nxCheckPktLarger:
		dst, err := decodeSub(be.Uint32(arg[4:]), be.Uint16(arg[2:]), 1)
		if err != nil {
			return nil, fmt.Errorf("check_pkt_larger: %w", err)
		}
		return ir.CheckPktLarger{Len: be.Uint16(arg), Dst: dst}, nil
	}
	return nil, fmt.Errorf("NXAST %d: not supported", subtype)
}

// minNicira are the lengths of the fixed parts of the Nicira actions that have more than 16 bytes.
var minNicira = map[uint16]int{
	nxBundle: 32, nxLearn: 32, nxStackPush: 24, nxStackPop: 24, nxSample: 24, nxSample2: 32, nxCT: 24,
	nxCheckPktLarger: 24,
}

func decodeController(b []byte) (ir.Action, error) {
	c := ir.Controller{MaxLen: 0xffff}
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, fmt.Errorf("controller: %d bytes left over", len(b))
		}
		typ, n := be.Uint16(b), int(be.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return nil, fmt.Errorf("controller: property %d: length %d of %d bytes", typ, n, len(b))
		}
		switch {
		case typ == ctrlMaxLen && n == 8:
			c.MaxLen = be.Uint16(b[4:])
		case typ == ctrlID && n == 8:
			c.ControllerID = be.Uint16(b[4:])
		case typ == ctrlUserData:
			c.UserData = bytes.Clone(b[4:n])
		case typ == ctrlPause && n == 4:
			c.Pause = true
		case typ == ctrlMeterID && n == 8:
			c.MeterID = be.Uint32(b[4:])
		default:
			return nil, fmt.Errorf("controller: property %d of %d bytes: not supported", typ, n)
		}
		b = b[(n+7)/8*8:] // the whole is a multiple of 8 bytes, so this is within it
	}
	return c, nil
}

func decodeBundleAction(b []byte) (ir.Action, error) {
	n := int(be.Uint16(b[20:]))
	if 32+2*n > len(b) {
		return nil, fmt.Errorf("bundle: %d members in %d bytes", n, len(b))
	}
	a := ir.Bundle{Basis: be.Uint16(b[14:])}
	for i := range n {
		a.Members = append(a.Members, be.Uint16(b[32+2*i:]))
	}
	return a, nil
}

func decodeLearn(b []byte) (ir.Action, error) {
	a := ir.Learn{
		IdleTimeout: be.Uint16(b[10:]), HardTimeout: be.Uint16(b[12:]), Priority: be.Uint16(b[14:]),
		Cookie: be.Uint64(b[16:]), DeleteLearned: be.Uint16(b[24:])&learnDeleteLearned != 0, Table: b[26],
	}
	b = b[32:]
	for len(b) >= 2 && be.Uint16(b) != 0 {
		h := be.Uint16(b)
		n := int(h & learnWidth)
		if d := h & learnDstMask; (d != 0 && d != learnDstLoad) || n == 0 || n > 128 {
			return nil, fmt.Errorf("learn: term %#04x: not supported", h)
		}
		t := ir.LearnTerm{Load: h&learnDstMask == learnDstLoad}
		srcSize := 6
		if h&learnImmediate != 0 {
			srcSize = learnImmSize(n)
		}
		if len(b) < 2+srcSize+6 {
			return nil, fmt.Errorf("learn: term %#04x: %d bytes left over", h, len(b))
		}
		var err error
		src, dst := b[2:], b[2+srcSize:]
		if h&learnImmediate != 0 {
			t.Imm = ir.FromBytes(src[:srcSize])
		} else if t.Src, err = decodeSub(be.Uint32(src), be.Uint16(src[4:]), uint16(n)); err != nil {
			return nil, fmt.Errorf("learn: %w", err)
		}
		if t.Dst, err = decodeSub(be.Uint32(dst), be.Uint16(dst[4:]), uint16(n)); err != nil {
			return nil, fmt.Errorf("learn: %w", err)
		}
		a.Terms = append(a.Terms, t)
		b = dst[6:]
	}
	return a, nil
}

func decodeCT(b []byte, depth int) (ir.Action, error) {
	flags := be.Uint16(b[10:])
	a := ir.CT{
		Commit: flags&ctCommit != 0, Force: flags&ctForce != 0,
		Table: b[18], Alg: be.Uint16(b[22:]),
	}
	if src, zone := be.Uint32(b[12:]), be.Uint16(b[16:]); src == 0 {
		a.Zone = zone
	} else {
		var err error
		if a.ZoneFrom, err = decodeSub(src, zone>>6, zone&0x3f+1); err != nil {
			return nil, fmt.Errorf("ct zone: %w", err)
		}
	}
	b = b[24:]
	if len(b) >= 16 && be.Uint16(b) == actVendor && be.Uint32(b[4:]) == vendorNicira && be.Uint16(b[8:]) == nxNAT {
		nat, rest, err := cutAction(b)
		if err != nil {
			return nil, fmt.Errorf("ct: %w", err)
		}
		if a.NAT, err = decodeNAT(nat); err != nil {
			return nil, fmt.Errorf("ct: %w", err)
		}
		b = rest
	}
	var err error
	if a.Exec, err = decodeActions(b, depth+1); err != nil {
		return nil, fmt.Errorf("ct exec: %w", err)
	}
	return a, nil
}

func decodeNAT(b []byte) (*ir.NAT, error) {
	if len(b) < 16 {
		return nil, fmt.Errorf("nat: length %d", len(b))
	}
	flags, ranges := be.Uint16(b[12:]), be.Uint16(b[14:])
	n := &ir.NAT{
		Src: flags&natSrc != 0, Dst: flags&natDst != 0, Persistent: flags&natPersistent != 0,
		ProtoHash: flags&natProtoHash != 0, ProtoRandom: flags&natProtoRandom != 0,
		IPv6: ranges&(natIPv6Min|natIPv6Max) != 0,
	}
	b = b[16:]
	for _, r := range [...]struct {
		bit  uint16
		size int
		set  func(ir.U128)
	}{
		{natIPv4Min, 4, func(v ir.U128) { n.AddrMin = v }},
		{natIPv4Max, 4, func(v ir.U128) { n.AddrMax = v }},
		{natIPv6Min, 16, func(v ir.U128) { n.AddrMin = v }},
		{natIPv6Max, 16, func(v ir.U128) { n.AddrMax = v }},
		{natProtoMin, 2, func(v ir.U128) { n.PortMin = uint16(v.Lo) }},
		{natProtoMax, 2, func(v ir.U128) { n.PortMax = uint16(v.Lo) }},
	} {
		if ranges&r.bit == 0 {
			continue
		}
		if len(b) < r.size {
			return nil, fmt.Errorf("nat: ranges %#x: %d bytes left over", ranges, len(b))
		}
		r.set(ir.FromBytes(b[:r.size]))
		b = b[r.size:]
	}
	return n, nil
}

// DecodeGroup is the inverse of AppendGroup. It refuses every encoding but the one that AppendGroup writes.
func DecodeGroup(b []byte) (*ir.SelectGroup, error) {
	g := &ir.SelectGroup{}
	buckets := bucketsLen(string(b))
	for p := b[:buckets]; len(p) > 0; {
		k, rest, err := decodeBucket(p)
		if err != nil {
			return nil, fmt.Errorf("openflow group: %w", err)
		}
		g.Buckets = append(g.Buckets, k)
		p = rest
	}
	if p := b[buckets:]; len(p) > 0 {
		if err := decodeMethod(g, p); err != nil {
			return nil, fmt.Errorf("openflow group: %w", err)
		}
	}
	if !bytes.Equal(AppendGroup(nil, g), b) {
		return nil, fmt.Errorf("openflow group: %w", errNotCanonical)
	}
	return g, nil
}

// decodeBucket reads one bucket of those that bucketsLen has counted.
func decodeBucket(b []byte) (k ir.Bucket, rest []byte, err error) {
	n, actions := int(be.Uint16(b)), int(be.Uint16(b[2:]))
	if n > len(b) || n < 8 || actions > n-8 {
		return k, nil, fmt.Errorf("bucket: %d bytes of actions in %d of %d bytes", actions, n, len(b))
	}
	if k.Actions, err = DecodeActions(b[8 : 8+actions]); err != nil {
		return k, nil, err
	}
	for p := b[8+actions : n]; len(p) > 0; p = p[8:] {
		if len(p) < 8 {
			return k, nil, fmt.Errorf("bucket properties: %d bytes left over", len(p))
		}
		switch typ, size := be.Uint16(p), be.Uint16(p[2:]); {
		case typ == bucketWeight && size == 8:
			k.Weight = be.Uint16(p[4:])
		case typ == bucketWatchPort && size == 8:
			k.WatchPort = be.Uint32(p[4:])
		default:
			return k, nil, fmt.Errorf("bucket property %d of %d bytes: not supported", typ, size)
		}
	}
	return k, b[n:], nil
}

// decodeMethod reads the selection method's property.
func decodeMethod(g *ir.SelectGroup, b []byte) error {
	if len(b) < ntrPropSize || be.Uint32(b[4:]) != vendorNetronome || be.Uint32(b[8:]) != ntrSelectionMethod {
		return errors.New("group property: not a selection method")
	}
	n := int(be.Uint16(b[2:]))
	if n < ntrPropSize || n > len(b) {
		return fmt.Errorf("selection method: length %d of %d bytes", n, len(b))
	}
	method, _, _ := bytes.Cut(b[16:32], []byte{0})
	g.Method, g.Param = string(method), be.Uint64(b[32:])
	for p := b[ntrPropSize:n]; len(p) > 0; {
		h, _, _, rest, err := cutTLV(p)
		if err != nil {
			return fmt.Errorf("selection method: %w", err)
		}
		f, ok := fieldOf[h>>9]
		if !ok {
			return fmt.Errorf("selection method: OXM %#08x: no such field", h)
		}
		g.Fields = append(g.Fields, f)
		p = rest
	}
	if !slices.IsSorted(g.Fields) {
		return fmt.Errorf("selection method: fields: %w", errNotCanonical)
	}
	return nil
}
