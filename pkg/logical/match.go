package logical

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// FlowMatch is the match of one OpenFlow flow. It is one of three:
//
//   - an ordinary match, for the actions of the logical flow;
//   - the match on the id of a conjunction, for the actions of the logical flow: ConjID is that id, and Match has a
//     term conj_id=ConjID;
//   - a match for conjunction actions only: Conj are these.
//
// Ids are relative: 1 to the number of conjunctions of the logical flow.
type FlowMatch struct {
	Match  ir.Match // not to be changed
	ConjID uint32
	Conj   []Conj // not to be changed
}

// Conj says that a flow is member of dimension Clause, from 0, of the N of the conjunction ID.
type Conj struct {
	ID        uint32
	Clause, N uint8
}

// maxClauses is the number of dimensions that OpenFlow's conjunction action can have.
const maxClauses = 64

// Matches are the matches that are together equivalent to an expression, in every datapath. It does not change.
type Matches struct {
	products []product // if there are string fields among them
	shared   []FlowMatch
	nConj    int
}

// Matches returns the matches of e on a chassis on which the ports are for which resident returns true; resident
// may be nil if e has no conditions. The error is ErrTooComplex, or says what OpenFlow cannot match.
func (e *Expr) Matches(resident func(port string) bool) (*Matches, error) {
	n := e.root
	if len(e.refs.Residents) > 0 {
		n = evaluate(n, resident)
	}
	products, err := normalize(n)
	if err != nil {
		return nil, err
	}
	flows, usesPorts := 0, false
	for _, p := range products {
		one := 1
		dims := 0
		for _, d := range p {
			usesPorts = usesPorts || d.sym.Width == 0
			if len(d.alts) > 1 {
				one += len(d.alts)
				dims++
			}
		}
		if flows += one; dims > maxClauses || flows > maxNodes {
			return nil, ErrTooComplex
		}
	}
	if usesPorts {
		return &Matches{products: products}, nil
	}
	m := &Matches{}
	b := builder{}
	m.nConj = b.build(products)
	m.shared = b.flows
	return m, nil
}

// ForDatapath calls emit for each match, in an arbitrary but fixed order, and returns the number of conjunctions.
// port returns the tunnel key of the logical port or multicast group that the datapath has under that name. A
// match on a port that port does not know is left out.
func (m *Matches) ForDatapath(port func(name string) (key uint32, ok bool), emit func(FlowMatch)) int {
	if m.products == nil {
		for i := range m.shared {
			emit(m.shared[i])
		}
		return m.nConj
	}
	b := builder{port: port}
	n := b.build(m.products)
	for i := range b.flows {
		emit(b.flows[i])
	}
	return n
}

// builder makes the flows of products.
type builder struct {
	port  func(name string) (key uint32, ok bool)
	flows []FlowMatch
	index map[string]int // position in flows by encoded match, once there are several flows
	key   []byte
}

// build makes the flows of products and returns the number of conjunctions.
func (b *builder) build(products []product) (nConj int) {
	for _, p := range products {
		if b.product(p, uint32(nConj)+1) {
			nConj++
		}
	}
	return nConj
}

// product makes the flows of p. It uses the conjunction id, and reports that it did, if p has two or more
// dimensions: fields with several alternatives.
func (b *builder) product(p product, id uint32) (conj bool) {
	base := make(ir.Match, 0, len(p))
	dims := 0
	for _, d := range p {
		if len(d.alts) > 1 {
			dims++
			continue
		}
		var ok bool
		if base, ok = b.constrain(base, d.sym, &d.alts[0]); !ok {
			return false
		}
	}
	if dims == 0 {
		b.add(base, Conj{})
		return false
	}
	clause := uint8(0)
	for _, d := range p {
		if len(d.alts) == 1 {
			continue
		}
		c := Conj{}
		if dims > 1 {
			c = Conj{ID: id, Clause: clause, N: uint8(dims)}
		}
		clause++
		n := 0
		for i := range d.alts {
			m := append(make(ir.Match, 0, len(base)+1), base...)
			if m, ok := b.constrain(m, d.sym, &d.alts[i]); ok {
				b.add(m, c)
				n++
			}
		}
		if n == 0 {
			return dims > 1 // the conjunction is never true
		}
	}
	if dims > 1 {
		m := append(make(ir.Match, 0, len(base)+1), ir.Term{
			Field: ir.ConjID, Value: ir.U64(uint64(id)), Mask: ir.ConjID.Ones(),
		})
		b.add(append(m, base...), Conj{}) // ir.ConjID is the first field
		b.flows[len(b.flows)-1].ConjID = id
	}
	return dims > 1
}

// constrain adds a to m, which it may overwrite. It reports false if m cannot be true then.
func (b *builder) constrain(m ir.Match, s *Symbol, a *alt) (ir.Match, bool) {
	if s.Width == 0 {
		key, ok := b.port(a.port)
		if !ok {
			return nil, false
		}
		return insert(m, ir.Term{Field: s.Field, Value: ir.U64(uint64(key)), Mask: s.Field.Ones()})
	}
	first, n := s.Field, 1
	switch {
	case s.Field >= ir.XXReg0 && s.Field <= ir.XXReg3:
		first, n = ir.Reg0+4*(s.Field-ir.XXReg0), 4
	case s.Field >= ir.XReg0 && s.Field <= ir.XReg7:
		first, n = ir.Reg0+2*(s.Field-ir.XReg0), 2
	}
	if n == 1 {
		return insert(m, ir.Term{Field: s.Field, Value: a.value, Mask: a.mask})
	}
	word := ir.Ones(32)
	ok := true
	for i := 0; i < n && ok; i++ {
		shift := 32 * (n - 1 - i)
		if mask := a.mask.Shr(shift).And(word); !mask.IsZero() {
			m, ok = insert(m, ir.Term{Field: first + ir.Field(i), Value: a.value.Shr(shift).And(word), Mask: mask})
		}
	}
	return m, ok
}

// insert adds t to m, overwriting it. It reports false if both cannot be true.
func insert(m ir.Match, t ir.Term) (ir.Match, bool) {
	i, found := slices.BinarySearchFunc(m, t.Field, func(t ir.Term, f ir.Field) int { return cmp.Compare(t.Field, f) })
	if !found {
		return slices.Insert(m, i, t), true
	}
	if !m[i].Value.Xor(t.Value).And(m[i].Mask).And(t.Mask).IsZero() {
		return nil, false
	}
	m[i].Value, m[i].Mask = m[i].Value.Or(t.Value), m[i].Mask.Or(t.Mask)
	return m, true
}

// add adds a flow with a match and, unless c is zero, a conjunction. If there is a flow with that match already, it
// gets the conjunction as well; a flow without conjunctions matches more and wins.
func (b *builder) add(m ir.Match, c Conj) {
	if i, found := b.find(m); found {
		f := &b.flows[i]
		if len(f.Conj) == 0 || c.ID == 0 {
			f.Conj = nil
		} else {
			f.Conj = append(f.Conj, c)
		}
		return
	}
	f := FlowMatch{Match: m}
	if c.ID != 0 {
		f.Conj = []Conj{c}
	}
	b.flows = append(b.flows, f)
}

// find returns the position of the flow whose match is m, and remembers m as the next flow's if there is none.
func (b *builder) find(m ir.Match) (int, bool) {
	const few = 8
	if len(b.flows) < few {
		for i := range b.flows {
			if b.flows[i].Match.Equal(m) {
				return i, true
			}
		}
		return 0, false
	}
	if b.index == nil {
		b.index = make(map[string]int, 4*few)
		for i := range b.flows {
			b.index[string(b.encode(b.flows[i].Match))] = i
		}
	}
	key := b.encode(m)
	if i, found := b.index[string(key)]; found {
		return i, true
	}
	b.index[string(key)] = len(b.flows)
	return 0, false
}

// encode returns bytes that are different for different matches, valid until the next call.
func (b *builder) encode(m ir.Match) []byte {
	k := b.key[:0]
	for _, t := range m {
		k = append(k, byte(t.Field))
		for _, v := range [...]uint64{t.Value.Hi, t.Value.Lo, t.Mask.Hi, t.Mask.Lo} {
			k = binary.LittleEndian.AppendUint64(k, v)
		}
	}
	b.key = k
	return k
}
