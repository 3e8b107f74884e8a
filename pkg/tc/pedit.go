package tc

import (
	"fmt"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Attributes of pedit, linux/tc_act/tc_pedit.h.
const (
	peditParmsEx = 4
	peditKeysEx  = 5
	peditKeyEx   = 6
	peditHtype   = 1
	peditCmd     = 2

	peditCmdSet = 0
	peditCmdAdd = 1
)

// A header that pedit counts offsets from, TCA_PEDIT_KEY_EX_HDR_TYPE_*.
type header uint16

const (
	headerEth header = iota + 1
	headerIPv4
	headerIPv6
	headerTCP
	headerUDP
)

// A place is where a field is in its header: size bytes from byte off, of which the lowest shift bits and what is left of the
// field at the top do not belong to it.
type place struct {
	field       ir.Field
	header      header
	off, size   int
	shift, bits int
}

// places of the fields that can be edited. A field of both IPv4 and IPv6 has two.
var places = []place{
	{ir.EthDst, headerEth, 0, 6, 0, 48},
	{ir.EthSrc, headerEth, 6, 6, 0, 48},
	{ir.IPDSCP, headerIPv4, 1, 1, 2, 6},
	{ir.IPTTL, headerIPv4, 8, 1, 0, 8},
	{ir.IPSrc, headerIPv4, 12, 4, 0, 32},
	{ir.IPDst, headerIPv4, 16, 4, 0, 32},
	{ir.IPDSCP, headerIPv6, 0, 2, 6, 6}, // the version has 4 bits, the traffic class 8, the rest is of the flow label
	{ir.IPTTL, headerIPv6, 7, 1, 0, 8},
	{ir.IPv6Src, headerIPv6, 8, 16, 0, 128},
	{ir.IPv6Dst, headerIPv6, 24, 16, 0, 128},
	{ir.TCPSrc, headerTCP, 0, 2, 0, 16},
	{ir.TCPDst, headerTCP, 2, 2, 0, 16},
	{ir.UDPSrc, headerUDP, 0, 2, 0, 16},
	{ir.UDPDst, headerUDP, 2, 2, 0, 16},
}

// placeOf finds the place of a field in the packets of f.
func placeOf(field ir.Field, f *Filter) (place, error) {
	var found bool
	for _, p := range places {
		if p.field != field {
			continue
		}
		found = true
		switch p.header { //nolint:exhaustive // the others have no such words
		case headerIPv4:
			if f.etherType() == ProtocolIPv4 {
				return p, nil
			}
		case headerIPv6:
			if f.etherType() == ProtocolIPv6 {
				return p, nil
			}
		default:
			return p, nil
		}
	}
	if found {
		return place{}, fmt.Errorf("edit of %s: the filter is not for the protocol that has it", field)
	}
	return place{}, fmt.Errorf("edit of %s: pedit cannot do it", field)
}

// A word is 32 bits of a header that are edited: struct tc_pedit_key and the attributes of its extension.
type word struct {
	header      header
	add         bool
	off         int    // a multiple of 4
	value, mask uint32 // in network byte order; mask selects the bits to be written
}

// words returns what e does to the header at p, in ascending order of offsets.
func (e Edit) words(p place) []word {
	var ws []word
	value, mask := e.Value.And(e.Mask).Shl(p.shift), e.Mask.Shl(p.shift)
	for off := p.off &^ 3; off < p.off+p.size; off += 4 {
		// The word's last bit is so many bits before the field's last byte ends, or after.
		down := 8 * (p.off + p.size - off - 4)
		v, m := shift(value, down), shift(mask, down)
		if m.Lo&0xffffffff != 0 {
			ws = append(ws, word{p.header, e.Add, off, uint32(v.Lo), uint32(m.Lo)})
		}
	}
	return ws
}

// shift moves v down by n bits, or up if n is negative.
func shift(v ir.U128, n int) ir.U128 {
	if n < 0 {
		return v.Shl(-n)
	}
	return v.Shr(n)
}

func appendPedit(b []byte, a Pedit, f *Filter) ([]byte, error) {
	var ws []word
	for _, e := range a.Edits {
		p, err := placeOf(e.Field, f)
		if err != nil {
			return nil, err
		}
		ws = append(ws, e.words(p)...)
	}
	if len(ws) == 0 {
		return nil, fmt.Errorf("pedit without an edit")
	}
	if len(ws) > 255 {
		return nil, fmt.Errorf("pedit of %d words, more than 255", len(ws))
	}
	sel := append(tcGen(verdictPipe), byte(len(ws)), 0, 0, 0) // nkeys, flags, padding
	for _, w := range ws {
		sel = be.AppendUint32(sel, ^w.mask) // 1: preserve
		sel = be.AppendUint32(sel, w.value)
		sel = ne.AppendUint32(sel, uint32(w.off))
		sel = append(sel, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // at, offmask, shift
	}
	b = appendAttr(b, peditParmsEx, sel)
	b, keys := begin(b, peditKeysEx|attrNested)
	for _, w := range ws {
		var key int
		cmd := uint16(peditCmdSet)
		if w.add {
			cmd = peditCmdAdd
		}
		b, key = begin(b, peditKeyEx|attrNested)
		b = appendU16(b, peditHtype, uint16(w.header))
		b = appendU16(b, peditCmd, cmd)
		end(b, key)
	}
	if !end(b, keys) {
		return nil, errTooLong
	}
	return b, nil
}

// Sizes of struct tc_pedit_sel without its keys, and of struct tc_pedit_key.
const (
	peditSelSize = 24
	peditKeySize = 24
)

// decodePedit is the inverse of appendPedit. What it cannot say is described by the returned string.
func decodePedit(options []byte) (Pedit, string) {
	var sel []byte
	var types []word
	walk(options, func(typ uint16, data []byte) {
		switch typ {
		case peditParmsEx:
			sel = data
		case peditKeysEx:
			walk(data, func(typ uint16, data []byte) {
				if typ != peditKeyEx || len(types) > 255 {
					return
				}
				var w word
				walk(data, func(typ uint16, data []byte) {
					switch {
					case typ == peditHtype && len(data) == 2:
						w.header = header(ne.Uint16(data))
					case typ == peditCmd && len(data) == 2:
						w.add = ne.Uint16(data) == peditCmdAdd
					}
				})
				types = append(types, w)
			})
		}
	})
	if len(sel) < peditSelSize {
		return Pedit{}, "pedit without extended keys"
	}
	n := int(sel[genSize])
	if len(types) != n || len(sel) < peditSelSize+n*peditKeySize {
		return Pedit{}, "pedit with too few keys"
	}
	var a Pedit
	var unknown []string
	for i := range n {
		k := sel[peditSelSize+i*peditKeySize:]
		w := types[i]
		w.mask, w.value = ^be.Uint32(k), be.Uint32(k[4:])
		off := ne.Uint32(k[8:])
		if off%4 != 0 || off > 1<<10 || ne.Uint32(k[12:])|ne.Uint32(k[16:])|ne.Uint32(k[20:]) != 0 {
			unknown = append(unknown, fmt.Sprintf("pedit key %d at %d", i, int32(off)))
			continue
		}
		w.off = int(off)
		if rest := a.add(w); rest != 0 && len(unknown) < 4 {
			unknown = append(unknown, fmt.Sprintf("pedit key %d at %d mask %08x", i, w.off, ^rest))
		}
	}
	return a, strings.Join(unknown, ", ")
}

// add appends what w writes, or completes the last edit with it if w continues that one. It returns the bits that belong to
// no field.
func (a *Pedit) add(w word) (rest uint32) {
	rest = w.mask
	for _, p := range places {
		if p.header != w.header || w.off+4 <= p.off || w.off >= p.off+p.size {
			continue
		}
		up := 8*(p.off+p.size-w.off-4) - p.shift // from the word's bits to the field's
		ones := ir.Ones(p.bits)
		mask := shift(ir.U64(uint64(w.mask)), -up).And(ones)
		if mask.IsZero() {
			continue
		}
		rest &^= uint32(shift(mask, up).Lo)
		e := Edit{Field: p.field, Value: shift(ir.U64(uint64(w.value)), -up).And(mask), Mask: mask, Add: w.add}
		if n := len(a.Edits); n > 0 {
			// Words of one edit ascend, which the bits of its mask show.
			last := &a.Edits[n-1]
			if last.Field == e.Field && last.Add == e.Add && !e.Add && e.Mask.Cmp(last.Mask) < 0 && e.Mask.BitLen() <= last.Mask.TrailingZeros() {
				last.Value, last.Mask = last.Value.Or(e.Value), last.Mask.Or(e.Mask)
				continue
			}
		}
		a.Edits = append(a.Edits, e)
	}
	return rest
}
