package ir

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// U128 is an unsigned integer of up to 128 bits: the value or the mask of any field.
// Bit 0 is the least significant bit of Lo. Values of byte-string fields (MAC and IPv6 addresses) are the
// big-endian integer of their bytes.
type U128 struct{ Hi, Lo uint64 }

// U64 returns v as a U128.
func U64(v uint64) U128 { return U128{Lo: v} }

// Ones returns the n low bits set. n is 0..128.
func Ones(n int) U128 {
	switch {
	case n <= 0:
		return U128{}
	case n >= 128:
		return U128{^uint64(0), ^uint64(0)}
	case n > 64:
		return U128{1<<(n-64) - 1, ^uint64(0)}
	case n == 64:
		return U128{0, ^uint64(0)}
	default:
		return U128{0, 1<<n - 1}
	}
}

// FromBytes returns the big-endian integer of b, which holds at most 16 bytes.
func FromBytes(b []byte) U128 {
	var a [16]byte
	copy(a[16-len(b):], b)
	return U128{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
}

// Bytes16 returns u in network byte order, most significant byte first.
func (u U128) Bytes16() [16]byte {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:8], u.Hi)
	binary.BigEndian.PutUint64(a[8:], u.Lo)
	return a
}

// And returns u & v.
func (u U128) And(v U128) U128 { return U128{u.Hi & v.Hi, u.Lo & v.Lo} }

// Or returns u | v.
func (u U128) Or(v U128) U128 { return U128{u.Hi | v.Hi, u.Lo | v.Lo} }

// Xor returns u ^ v.
func (u U128) Xor(v U128) U128 { return U128{u.Hi ^ v.Hi, u.Lo ^ v.Lo} }

// AndNot returns u &^ v.
func (u U128) AndNot(v U128) U128 { return U128{u.Hi &^ v.Hi, u.Lo &^ v.Lo} }

// Shl returns u << n.
func (u U128) Shl(n int) U128 {
	if n >= 64 {
		return U128{u.Lo << (n - 64), 0}
	}
	return U128{u.Hi<<n | u.Lo>>(64-n), u.Lo << n}
}

// Shr returns u >> n.
func (u U128) Shr(n int) U128 {
	if n >= 64 {
		return U128{0, u.Hi >> (n - 64)}
	}
	return U128{u.Hi >> n, u.Lo>>n | u.Hi<<(64-n)}
}

// IsZero reports whether u is 0.
func (u U128) IsZero() bool { return u.Hi == 0 && u.Lo == 0 }

// Cmp orders u and v as integers: -1, 0 or +1.
func (u U128) Cmp(v U128) int {
	switch {
	case u == v:
		return 0
	case u.Hi < v.Hi || u.Hi == v.Hi && u.Lo < v.Lo:
		return -1
	default:
		return 1
	}
}

// Add returns u+v modulo 2^128.
func (u U128) Add(v U128) U128 {
	lo, c := bits.Add64(u.Lo, v.Lo, 0)
	hi, _ := bits.Add64(u.Hi, v.Hi, c)
	return U128{hi, lo}
}

// Sub returns u-v modulo 2^128.
func (u U128) Sub(v U128) U128 {
	lo, b := bits.Sub64(u.Lo, v.Lo, 0)
	hi, _ := bits.Sub64(u.Hi, v.Hi, b)
	return U128{hi, lo}
}

// BitLen returns the number of bits needed to represent u; 0 for 0.
func (u U128) BitLen() int {
	if u.Hi != 0 {
		return 64 + bits.Len64(u.Hi)
	}
	return bits.Len64(u.Lo)
}

// TrailingZeros returns the number of trailing zero bits; 128 for 0.
func (u U128) TrailingZeros() int {
	if u.Lo != 0 {
		return bits.TrailingZeros64(u.Lo)
	}
	return 64 + bits.TrailingZeros64(u.Hi)
}

// OnesCount returns the number of set bits.
func (u U128) OnesCount() int { return bits.OnesCount64(u.Hi) + bits.OnesCount64(u.Lo) }

// Bit reports whether bit i is set.
func (u U128) Bit(i int) bool { return u.Shr(i).Lo&1 != 0 }

// String returns u in hexadecimal, with 0x and without leading zeros.
func (u U128) String() string {
	if u.Hi != 0 {
		return fmt.Sprintf("%#x%016x", u.Hi, u.Lo)
	}
	return fmt.Sprintf("%#x", u.Lo)
}
