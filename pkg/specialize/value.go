package specialize

import "github.com/offloadd/offloadd/pkg/ir"

// A value is what is known of a field's bits: each is a constant (in known), a bit of a field of the packet as it arrived
// (in alias), or neither, that is, something that filters cannot ask about.
type value struct {
	known, val ir.U128 // val has no bit outside known
	alias      ir.U128 // disjoint from known
	// Bit i of the field, if it is in alias, is bit i+ofs of src.
	src ir.Field
	ofs int
}

// original is the value of a field of the packet that nothing has written.
func original(f ir.Field) value { return value{alias: f.Ones(), src: f} }

func constant(f ir.Field, v ir.U128) value { return value{known: f.Ones(), val: v.And(f.Ones())} }

// isOriginal reports whether the bits of mask are those of f of the packet as it arrived.
func (v *value) isOriginal(f ir.Field, mask ir.U128) bool {
	return mask.AndNot(v.alias).IsZero() && (mask.IsZero() || v.src == f && v.ofs == 0)
}

// shift moves bits by n places to more significance, or less if n is negative.
func shift(u ir.U128, n int) ir.U128 {
	if n < 0 {
		return u.Shr(-n)
	}
	return u.Shl(n)
}

// bits returns the N bits of v from Ofs on, as bits 0 to N-1.
func (v *value) bits(ofs, n int) value {
	m := ir.Ones(n)
	return value{
		known: v.known.Shr(ofs).And(m), val: v.val.Shr(ofs).And(m), alias: v.alias.Shr(ofs).And(m),
		src: v.src, ofs: v.ofs + ofs,
	}
}

// write returns v with bits 0 to n-1 of w from bit ofs on.
func (v value) write(ofs, n int, w value) value {
	m := ir.Ones(n).Shl(ofs)
	v.known, v.val, v.alias = v.known.AndNot(m), v.val.AndNot(m), v.alias.AndNot(m)
	v.known = v.known.Or(w.known.Shl(ofs))
	v.val = v.val.Or(w.val.Shl(ofs))
	if w.alias.IsZero() {
		return v
	}
	src, at := w.src, w.ofs-ofs
	switch {
	case v.alias.IsZero():
		v.src, v.ofs = src, at
	case v.src != src || v.ofs != at:
		return v // bits of two fields in one: those of the second are lost
	}
	v.alias = v.alias.Or(w.alias.Shl(ofs))
	return v
}

// load returns v with the bits of mask written.
func (v value) load(val, mask ir.U128) value {
	v.known = v.known.Or(mask)
	v.val = v.val.AndNot(mask).Or(val.And(mask))
	v.alias = v.alias.AndNot(mask)
	return v
}

// pinned returns v once it is known that the bits of mask of src are those of val.
func (v value) pinned(src ir.Field, val, mask ir.U128) value {
	if v.src != src {
		return v
	}
	m := shift(mask, -v.ofs).And(v.alias)
	return v.load(shift(val, -v.ofs), m)
}

// same reports whether v and w agree on the bits of mask.
func (v *value) same(w *value, mask ir.U128) bool {
	if !v.known.Xor(w.known).And(mask).IsZero() || !v.val.Xor(w.val).And(mask).IsZero() {
		return false
	}
	a := v.alias.And(mask)
	if a != w.alias.And(mask) {
		return false
	}
	return a.IsZero() || v.src == w.src && v.ofs == w.ofs
}

// hash mixes a field and its value to a number.
func (v *value) hash(f ir.Field) uint64 {
	h := uint64(f)*0x9e3779b97f4a7c15 + 0x7f4a7c15
	for _, x := range [...]uint64{v.known.Hi, v.known.Lo, v.val.Hi, v.val.Lo, v.alias.Hi, v.alias.Lo} {
		h = mix(h ^ x)
	}
	if !v.alias.IsZero() {
		h = mix(h ^ uint64(v.src)<<16 ^ uint64(uint16(v.ofs)))
	}
	return h
}

// mix is the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
