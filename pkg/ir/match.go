package ir

import (
	"cmp"
	"slices"
)

// Term is one condition: the bits of Field selected by Mask equal those of Value.
// Mask is not zero and Value has no bit outside it.
type Term struct {
	Field       Field
	Value, Mask U128
}

// Match is a conjunction of terms, sorted by field, at most one per field. An empty Match matches every packet.
type Match []Term

func (m Match) find(f Field) (int, bool) {
	return slices.BinarySearchFunc(m, f, func(t Term, f Field) int { return cmp.Compare(t.Field, f) })
}

// Term returns the condition on f, and whether there is one.
func (m Match) Term(f Field) (Term, bool) {
	if i, ok := m.find(f); ok {
		return m[i], true
	}
	return Term{}, false
}

// With returns m && (f & mask == value & mask) in new memory. It reports false if no packet can satisfy both.
// A zero mask adds nothing. The register views (xreg, xxreg) become terms on 32-bit registers.
func (m Match) With(f Field, value, mask U128) (Match, bool) {
	mask = mask.And(f.Ones())
	value = value.And(mask)
	switch {
	case f >= XXReg0 && f <= XXReg3:
		return m.withParts(Reg0+4*(f-XXReg0), 4, value, mask)
	case f >= XReg0 && f <= XReg7:
		return m.withParts(Reg0+2*(f-XReg0), 2, value, mask)
	}
	if mask.IsZero() {
		return m, true
	}
	i, ok := m.find(f)
	if !ok {
		out := make(Match, 0, len(m)+1)
		out = append(out, m[:i]...)
		out = append(out, Term{f, value, mask})
		return append(out, m[i:]...), true
	}
	t := m[i]
	if !t.Value.Xor(value).And(t.Mask.And(mask)).IsZero() {
		return nil, false
	}
	out := slices.Clone(m)
	out[i].Value, out[i].Mask = t.Value.Or(value), t.Mask.Or(mask)
	return out, true
}

// withParts adds a term on n adjacent registers, the first of which holds the most significant 32 bits.
func (m Match) withParts(first Field, n int, value, mask U128) (Match, bool) {
	var ok bool
	for i := range n {
		shift := 32 * (n - 1 - i)
		m, ok = m.With(first+Field(i), value.Shr(shift), mask.Shr(shift))
		if !ok {
			return nil, false
		}
	}
	return m, true
}

// Eq returns m && f == value in new memory, replacing a term that m may have on f.
func (m Match) Eq(f Field, value uint64) Match { return m.Masked(f, value, ^uint64(0)) }

// Masked returns m && f & mask == value in new memory, replacing a term that m may have on f.
func (m Match) Masked(f Field, value, mask uint64) Match {
	t := Term{f, U64(value & mask).And(f.Ones()), U64(mask).And(f.Ones())}
	i, ok := m.find(f)
	if ok {
		out := slices.Clone(m)
		out[i] = t
		return out
	}
	out := make(Match, 0, len(m)+4)
	out = append(out, m[:i]...)
	out = append(out, t)
	return append(out, m[i:]...)
}

// And returns the conjunction of m and n in new memory. It reports false if no packet can satisfy both.
func (m Match) And(n Match) (Match, bool) {
	out := make(Match, 0, len(m)+len(n))
	i, j := 0, 0
	for i < len(m) && j < len(n) {
		a, b := m[i], n[j]
		switch {
		case a.Field < b.Field:
			out = append(out, a)
			i++
		case a.Field > b.Field:
			out = append(out, b)
			j++
		default:
			if !a.Value.Xor(b.Value).And(a.Mask.And(b.Mask)).IsZero() {
				return nil, false
			}
			out = append(out, Term{a.Field, a.Value.Or(b.Value), a.Mask.Or(b.Mask)})
			i++
			j++
		}
	}
	out = append(out, m[i:]...)
	return append(out, n[j:]...), true
}

// Equal reports whether m and n are the same conditions.
func (m Match) Equal(n Match) bool { return slices.Equal(m, n) }
