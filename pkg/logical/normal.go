package logical

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

// alt is one value that a field may have.
type alt struct {
	value, mask ir.U128
	port        string // of a string field
}

func (a *alt) compare(b *alt) int {
	if c := a.value.Cmp(b.value); c != 0 {
		return c
	}
	if c := a.mask.Cmp(b.mask); c != 0 {
		return c
	}
	return strings.Compare(a.port, b.port)
}

// intersect returns the alternative that holds when both a and b do, if there is one.
func (a *alt) intersect(b *alt) (alt, bool) {
	if a.port != b.port || !a.value.Xor(b.value).And(a.mask).And(b.mask).IsZero() {
		return alt{}, false
	}
	return alt{a.value.Or(b.value), a.mask.Or(b.mask), a.port}, true
}

// dim is a disjunction about one field: it has one of alts, which are sorted and different. A dim in a product has
// one or more.
type dim struct {
	sym  *Symbol
	alts []alt
}

// product is a conjunction of dims, sorted by the names of their symbols, which are different.
type product []dim

// normalizer turns an expression without conditions into a disjunction of products.
type normalizer struct {
	work     budget
	products []product
	err      error
}

// normalize returns the products of which n, which has no conditions, is the disjunction.
func normalize(n *node) ([]product, error) {
	z := normalizer{work: maxNodes}
	switch {
	case n.kind == boolNode && !n.truth:
	case n.kind == boolNode:
		z.emit(nil)
	case n.kind == orNode && n.sym == nil:
		for _, sub := range n.sub {
			z.conjunction(sub)
		}
	default:
		z.conjunction(n)
	}
	if z.work.spent() {
		return nil, ErrTooComplex
	}
	return z.products, z.err
}

// conjunction adds the products of n, which is a comparison, a conjunction or about one symbol.
func (z *normalizer) conjunction(n *node) {
	subs := []*node{n}
	if n.kind == andNode {
		subs = n.sub
	}
	if dims, mixed, ok := z.split(nil, subs, nil); ok {
		z.distribute(dims, mixed)
	}
}

// split adds to dims the nodes of subs that are about one symbol, and the others to the disjunctions rest. It
// reports false if the conjunction is never true. Neither dims nor rest is changed.
func (z *normalizer) split(dims product, subs, rest []*node) (product, []*node, bool) {
	dims = append(make(product, 0, len(dims)+len(subs)), dims...)
	var mixed []*node
	for _, sub := range subs {
		sym := sub.sym
		if sym == nil {
			mixed = append(mixed, sub)
			continue
		}
		alts := z.crush(sub)
		i, found := slices.BinarySearchFunc(dims, sym.Name, func(d dim, name string) int {
			return cmp.Compare(d.sym.Name, name)
		})
		if found {
			alts = z.intersect(dims[i].alts, alts)
			dims[i].alts = alts
		} else {
			dims = slices.Insert(dims, i, dim{sym, alts})
		}
		if len(alts) == 0 || z.work.spent() {
			return nil, nil, false
		}
	}
	mixed = append(mixed, rest...)
	slices.SortStableFunc(mixed, func(a, b *node) int { return cmp.Compare(len(a.sub), len(b.sub)) })
	return dims, mixed, true
}

// distribute adds the products of the conjunction of dims and the disjunctions mixed, each of which is about
// several symbols. Dims that must not become dimensions of a conjunctive match come first, then the smallest
// disjunction.
func (z *normalizer) distribute(dims product, mixed []*node) {
	for i, d := range dims {
		if !d.sym.MustCrossProduct || len(d.alts) == 1 {
			continue
		}
		for j := range d.alts {
			if !z.work.spend(len(dims)) {
				return
			}
			one := slices.Clone(dims)
			one[i].alts = d.alts[j : j+1]
			z.distribute(one, mixed)
		}
		return
	}
	if len(mixed) == 0 {
		z.emit(dims)
		return
	}
	for _, k := range mixed[0].sub {
		if !z.work.spend(len(dims) + len(mixed)) {
			return
		}
		subs := []*node{k}
		if k.kind == andNode {
			subs = k.sub
		}
		if dims, mixed, ok := z.split(dims, subs, mixed[1:]); ok {
			z.distribute(dims, mixed)
		}
	}
}

// crush returns the alternatives of n, which is about one symbol.
func (z *normalizer) crush(n *node) []alt {
	switch n.kind {
	case cmpNode:
		return z.appendAlt(nil, n)
	case orNode:
		alts := make([]alt, 0, len(n.sub))
		for _, sub := range n.sub {
			if sub.kind == cmpNode {
				alts = z.appendAlt(alts, sub)
			} else {
				alts = append(alts, z.crush(sub)...)
			}
			if z.work.spent() {
				return nil
			}
		}
		return sortAlts(alts)
	case andNode:
		var alts []alt
		for i, sub := range n.sub {
			a := z.crush(sub)
			if i > 0 {
				a = z.intersect(alts, a)
			}
			if alts = a; len(alts) == 0 {
				return nil
			}
		}
		return alts
	case boolNode, condNode:
	}
	panic(fmt.Sprintf("logical: %s in a simplified expression", n))
}

// appendAlt appends the value of the comparison n, unless no packet has it.
func (z *normalizer) appendAlt(alts []alt, n *node) []alt {
	z.work.spend(1)
	if !n.value.And(unused[n.sym.Field]).IsZero() {
		return alts
	}
	return append(alts, alt{n.value, n.mask, n.text})
}

// unused are the bits of fields that are 0 in all packets. Open vSwitch refuses flows that want them to be 1
// (lib/meta-flow.c, mf_is_value_valid).
var unused = map[ir.Field]ir.U128{ir.ARPOp: ir.U64(0xff00), ir.CTState: ir.U64(0xffffff00)}

// sortAlts sorts alts and removes duplicates.
func sortAlts(alts []alt) []alt {
	slices.SortFunc(alts, func(a, b alt) int { return a.compare(&b) })
	return slices.Compact(alts)
}

// intersect returns the alternatives of which one is in each of a and b.
func (z *normalizer) intersect(a, b []alt) []alt {
	if len(a) > 1 && len(b) > 1 && sameMask(a, b) {
		return merge(a, b)
	}
	if !z.work.spend(len(a) * len(b)) {
		return nil
	}
	var out []alt
	for i := range a {
		for j := range b {
			if c, ok := a[i].intersect(&b[j]); ok {
				out = append(out, c)
			}
		}
	}
	return sortAlts(out)
}

// sameMask reports whether all alternatives have the same mask, so that any two are equal or exclude each other.
func sameMask(a, b []alt) bool {
	for _, list := range [][]alt{a, b} {
		for i := range list {
			if list[i].mask != a[0].mask {
				return false
			}
		}
	}
	return true
}

// merge returns the alternatives that are in both a and b, which are sorted.
func merge(a, b []alt) []alt {
	var out []alt
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].compare(&b[0]); {
		case c < 0:
			a = a[1:]
		case c > 0:
			b = b[1:]
		default:
			out = append(out, a[0])
			a, b = a[1:], b[1:]
		}
	}
	return out
}

// emit adds the product of dims, unless OpenFlow excludes it or cannot express it.
func (z *normalizer) emit(dims product) {
	z.work.spend(1 + len(dims))
	for _, d := range dims {
		if d.sym.exists == nil {
			continue
		}
		switch dims.truth(d.sym.exists) {
		case never:
			return // the field does not exist in such packets
		case sometimes:
			z.err = cmp.Or(z.err, fmt.Errorf("field %s is compared without its prerequisite %s", d.sym.Name, d.sym.Prereqs))
			return
		case always:
		}
	}
	for _, d := range dims {
		if d.sym.Level != Nominal || d.sym.Width == 0 {
			continue
		}
		for i := range d.alts {
			if d.alts[i].mask != ir.Ones(d.sym.Width) {
				z.err = cmp.Or(z.err, fmt.Errorf("nominal field %s is compared bitwise", d.sym.Name))
				return
			}
		}
	}
	if dims, ok := dims.withoutLaterFragments(); ok {
		z.products = append(z.products, dims)
	}
}

// withoutLaterFragments returns p without what requires a later fragment of a datagram to have the ports or flags of
// its first one, which Open vSwitch refuses (lib/meta-flow.c, mf_are_prereqs_ok__). It reports false if nothing is
// left. p is not changed.
func (p product) withoutLaterFragments() (product, bool) {
	const later = 2
	frag, transport, fixed := -1, false, false
	for i, d := range p {
		switch f := d.sym.Field; {
		case f == ir.IPFrag:
			frag = i
		case f >= ir.TCPSrc && f <= ir.SCTPDst:
			transport = true
			fixed = fixed || len(d.alts) == 1
		}
	}
	if frag < 0 || !transport || !fixed && len(p[frag].alts) > 1 {
		return p, true
	}
	alts := slices.DeleteFunc(slices.Clone(p[frag].alts), func(a alt) bool { return a.value.Lo&later != 0 })
	p = slices.Clone(p)
	p[frag].alts = alts
	return p, len(alts) > 0
}

// certainty says of a condition for which packets of a product it is true.
type certainty uint8

const (
	never certainty = iota
	sometimes
	always
)

// truth returns for which packets of p the simplified prerequisite n is true.
func (p product) truth(n *node) certainty {
	switch n.kind {
	case andNode:
		t := always
		for _, sub := range n.sub {
			t = min(t, p.truth(sub))
		}
		return t
	case orNode:
		t := never
		for _, sub := range n.sub {
			t = max(t, p.truth(sub))
		}
		return t
	case cmpNode:
		return p.truthCmp(n)
	case boolNode, condNode:
	}
	return sometimes
}

func (p product) truthCmp(n *node) certainty {
	for _, d := range p {
		if d.sym != n.sym {
			continue
		}
		yes, no := false, false
		want := alt{n.value, n.mask, n.text}
		for i := range d.alts {
			switch both, ok := d.alts[i].intersect(&want); {
			case !ok:
				no = true
			case both == d.alts[i]:
				yes = true
			default:
				yes, no = true, true
			}
		}
		switch {
		case !no:
			return always
		case !yes:
			return never
		}
	}
	return sometimes
}
