package tc

import (
	"encoding/binary"

	"github.com/offloadd/offloadd/pkg/ir"
)

var (
	be = binary.BigEndian
	ne = binary.NativeEndian
)

// Bits of an attribute's type, linux/netlink.h.
const (
	attrNested   = 1 << 15 // NLA_F_NESTED
	attrTypeMask = 1<<14 - 1
	attrHeader   = 4
)

// appendAttr appends an attribute with its padding.
func appendAttr(b []byte, typ uint16, data []byte) []byte {
	b = ne.AppendUint16(b, uint16(attrHeader+len(data)))
	b = ne.AppendUint16(b, typ)
	return pad(append(b, data...))
}

func appendU8(b []byte, typ uint16, v uint8) []byte { return appendAttr(b, typ, []byte{v}) }

// appendU16 and appendU32 write in host byte order, appendBE16 and appendBE32 in network byte order.
func appendU16(b []byte, typ, v uint16) []byte {
	return appendAttr(b, typ, ne.AppendUint16(nil, v))
}

func appendU32(b []byte, typ uint16, v uint32) []byte {
	return appendAttr(b, typ, ne.AppendUint32(nil, v))
}

func appendBE16(b []byte, typ, v uint16) []byte {
	return appendAttr(b, typ, be.AppendUint16(nil, v))
}

func appendBE32(b []byte, typ uint16, v uint32) []byte {
	return appendAttr(b, typ, be.AppendUint32(nil, v))
}

func appendString(b []byte, typ uint16, s string) []byte {
	return appendAttr(b, typ, append([]byte(s), 0))
}

// begin starts an attribute that contains others. end, given what begin returned, ends it.
func begin(b []byte, typ uint16) ([]byte, int) {
	b = ne.AppendUint16(b, 0)
	return ne.AppendUint16(b, typ), len(b) - 2
}

// end completes the attribute that starts at start. It reports false if the attribute is too long for its header.
func end(b []byte, start int) bool {
	n := len(b) - start
	if n > 0xffff {
		return false
	}
	ne.PutUint16(b[start:], uint16(n))
	return true
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// walk calls f for each attribute of b, with its type without flags. It reports false if b does not consist of attributes;
// those before the malformed one have been seen by then.
func walk(b []byte, f func(typ uint16, data []byte)) bool {
	for len(b) >= attrHeader {
		n := int(ne.Uint16(b))
		if n < attrHeader || n > len(b) {
			return false
		}
		f(ne.Uint16(b[2:])&attrTypeMask, b[attrHeader:n])
		b = b[min((n+3)&^3, len(b)):]
	}
	return len(b) == 0
}

// u128Bytes returns the n bytes of v, of which it has no more, as a key holds them: in network byte order, or as an integer
// of this host.
func u128Bytes(v ir.U128, n int, host bool) []byte {
	a := v.Bytes16()
	b := a[16-n:]
	if host && littleEndian {
		reverse(b)
	}
	return b
}

// u128Of is the inverse of u128Bytes.
func u128Of(b []byte, host bool) ir.U128 {
	if host && littleEndian {
		b = append([]byte(nil), b...)
		reverse(b)
	}
	return ir.FromBytes(b)
}

var littleEndian = ne.Uint16([]byte{1, 0}) == 1

func reverse(b []byte) {
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
}
