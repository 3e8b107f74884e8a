package logical

import (
	"errors"
	"fmt"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// maxDepth is the number of parentheses an expression may have open.
const maxDepth = 100

// maxNodes bounds the comparisons of an expression and the alternatives and flows made from it.
const maxNodes = 1 << 20

// ErrTooComplex says that an expression would take more time or memory than it may, as a conjunction of many
// disjunctions can.
var ErrTooComplex = errors.New("match is too complex")

// Sets are the sets of constants to which an expression may refer.
type Sets interface {
	// AddressSet returns the members of the address set of that name. The slice is not changed.
	AddressSet(name string) ([]Constant, bool)
	// PortGroup returns the logical ports of the port group that has that name in the datapath at hand. Ports that
	// do not concern the chassis should be left out: with one port a group is a plain comparison, with several it is
	// a dimension of a conjunctive match.
	PortGroup(name string) ([]string, bool)
}

// Refs are the names that occur in the text of an expression. Each list is sorted and has no duplicates.
type Refs struct {
	AddressSets []string // of $name
	PortGroups  []string // of @name
	Residents   []string // of is_chassis_resident("name")
}

// ParseError is why a text is no match expression.
type ParseError struct {
	Err  error // what is wrong: a *SyntaxError, a *MissingSet or ErrTooComplex
	Refs Refs  // the names up to there, including one that is missing
}

// Error returns the text of Err.
func (e *ParseError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *ParseError) Unwrap() error { return e.Err }

// MissingSet says that a set to which an expression refers does not exist.
type MissingSet struct {
	Group  bool // a port group, otherwise an address set
	Name   string
	Syntax *SyntaxError
}

// Error returns the message of Syntax.
func (e *MissingSet) Error() string { return e.Syntax.Msg }

// Unwrap returns Syntax.
func (e *MissingSet) Unwrap() error { return e.Syntax }

// ParseMatch parses text and simplifies the conjunction of it and the expressions prereqs, which are the
// prerequisites of a flow's actions. sets may be nil if there are none. The error is a *ParseError.
func ParseMatch(text string, st *SymbolTable, sets Sets, prereqs ...string) (*Expr, error) {
	p := matchParser{lx: NewLexer(text), st: st, sets: sets}
	root := p.whole()
	refs := p.refs.sorted()
	if err := p.err(); err != nil {
		return nil, &ParseError{err, refs}
	}
	for _, s := range prereqs {
		q := matchParser{lx: NewLexer(s), st: st}
		n := q.whole()
		if err := q.err(); err != nil {
			return nil, &ParseError{fmt.Errorf("prerequisite `%s': %w", s, err), refs}
		}
		root = join(andNode, root, n)
	}
	work := budget(maxNodes)
	root = simplify(annotate(root, true), &work)
	if work.spent() {
		return nil, &ParseError{ErrTooComplex, refs}
	}
	return &Expr{root, refs}, nil
}

// budget is the work that is left.
type budget int

// spend takes n from the budget and reports whether it had as much.
func (b *budget) spend(n int) bool {
	*b -= budget(n)
	return *b >= 0
}

func (b *budget) spent() bool { return *b < 0 }

// matchParser is a recursive descent parser of expressions. After an error, which the Lexer keeps, its methods
// return anything.
type matchParser struct {
	lx      *Lexer
	st      *SymbolTable
	sets    Sets
	refs    Refs
	missing *MissingSet
	size    int  // constants so far
	not     bool // inside an odd number of !
	depth   int
}

func (r *Refs) sorted() Refs {
	for _, list := range []*[]string{&r.AddressSets, &r.PortGroups, &r.Residents} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return *r
}

func (p *matchParser) err() error {
	switch {
	case p.size > maxNodes:
		return ErrTooComplex
	case p.missing != nil:
		return p.missing
	default:
		return p.lx.Err()
	}
}

// whole parses an expression up to the end of the text.
func (p *matchParser) whole() *node {
	n := p.expr()
	if !p.lx.Failed() {
		p.lx.Expect(TokEnd)
	}
	return n
}

func (p *matchParser) expr() *node {
	first := p.operand()
	op := p.lx.Tok.Kind
	if op != TokAnd && op != TokOr {
		return first
	}
	nodes := []*node{first}
	for p.lx.Match(op) {
		nodes = append(nodes, p.operand())
	}
	if k := p.lx.Tok.Kind; k == TokAnd || k == TokOr {
		p.lx.Errorf("&& and || must be parenthesized when used together.")
	}
	if p.lx.Failed() {
		return falseNode
	}
	if op == TokAnd {
		return join(andNode, nodes...)
	}
	return join(orNode, nodes...)
}

func (p *matchParser) operand() *node {
	if !p.lx.Match(TokNot) {
		n, _ := p.primary()
		return n
	}
	p.not = !p.not
	n, atomic := p.primary()
	p.not = !p.not
	if !atomic {
		p.lx.Errorf("Missing parentheses around operand of !.")
	}
	if p.lx.Failed() {
		return falseNode
	}
	return not(n)
}

// primary parses an expression without && and || outside of parentheses. It reports whether ! can precede it.
func (p *matchParser) primary() (n *node, atomic bool) {
	lx := p.lx
	switch {
	case lx.Tok.Kind == TokLParen:
		return p.parenthesized(), true
	case lx.Tok.Kind != TokID:
		return p.constantFirst()
	case lx.Peek() != TokLParen:
		return p.fieldFirst()
	case lx.MatchID("is_chassis_resident"):
		lx.Next()
		return p.resident(), true
	default:
		lx.Errorf("parsing function name")
		return falseNode, true
	}
}

func (p *matchParser) parenthesized() *node {
	p.lx.Next()
	if p.depth >= maxDepth {
		p.lx.Errorf("Parentheses nested too deeply.")
		return falseNode
	}
	p.depth++
	n := p.expr()
	p.depth--
	if !p.lx.Failed() {
		p.lx.Expect(TokRParen)
	}
	return n
}

// resident parses what follows "is_chassis_resident(".
func (p *matchParser) resident() *node {
	if p.lx.Tok.Kind != TokString {
		p.lx.SyntaxErrorf("expecting string")
		return falseNode
	}
	n := &node{kind: condNode, truth: true, text: p.lx.Tok.Text}
	p.refs.Residents = append(p.refs.Residents, n.text)
	p.lx.Next()
	p.lx.Expect(TokRParen)
	return n
}

// fieldFirst parses "field" and "field rel constants".
func (p *matchParser) fieldFirst() (n *node, atomic bool) {
	lx := p.lx
	f, ok := p.st.parseOperand(lx)
	if !ok {
		return falseNode, true
	}
	if r, ok := relopOf(lx.Tok.Kind); ok {
		lx.Next()
		return p.compare(f, r, p.constants()), false
	}
	switch {
	case f.N == 0 || lx.Tok.Kind == TokEquals:
		lx.SyntaxErrorf("expecting relational operator")
	case f.N > 1 && !p.not:
		lx.Errorf("Explicit `!= 0' is required for inequality test of multibit field against 0.")
	}
	return p.compare(f, ne, constants{values: []Constant{{Format: FormatHex}}}), true
}

// constantFirst parses "0", "1", "constants rel field" and "constant rel field rel constant".
func (p *matchParser) constantFirst() (n *node, atomic bool) {
	lx := p.lx
	low := p.constants()
	if lx.Failed() {
		return falseNode, true
	}
	r1, ok := relopOf(lx.Tok.Kind)
	if !ok {
		if v := low.values; len(v) == 1 && !low.set && !v[0].Masked && v[0].Format == FormatDecimal &&
			v[0].Value.Lo <= 1 {
			return boolean(v[0].Value.Lo == 1), true
		}
		lx.SyntaxErrorf("expecting relational operator")
		return falseNode, true
	}
	lx.Next()
	f, ok := p.st.parseOperand(lx)
	if !ok {
		return falseNode, true
	}
	r2, ok := relopOf(lx.Tok.Kind)
	if !ok {
		return p.compare(f, r1.turn(), low), false
	}
	lx.Next()
	high := p.constants()
	ordered := func(r relop) bool { return r != eq && r != ne }
	less := func(r relop) bool { return r == lt || r == le }
	if !ordered(r1) || !ordered(r2) || less(r1) != less(r2) {
		lx.Errorf("Range expressions must have the form `x < field < y' or `x > field > y', " +
			"with each `<' optionally replaced by `<=' or `>' by `>=').")
		return falseNode, true
	}
	a, b := p.compare(f, r1.turn(), low), p.compare(f, r2, high)
	if lx.Failed() {
		return falseNode, true
	}
	return join(andNode, a, b), false
}

var relops = map[Kind]relop{TokEQ: eq, TokNE: ne, TokLT: lt, TokLE: le, TokGT: gt, TokGE: ge}

func relopOf(k Kind) (relop, bool) {
	r, ok := relops[k]
	return r, ok
}

// constants is a constant or a set of them: strings or values, never both.
type constants struct {
	strings []string
	values  []Constant
	str     bool // strings
	set     bool // in curly brackets
}

func (c *constants) len() int { return len(c.strings) + len(c.values) }

// constants parses a constant or a set of constants in curly brackets.
func (p *matchParser) constants() constants {
	var c constants
	if !p.lx.Match(TokLCurly) {
		p.constant(&c)
		return c
	}
	c.set = true
	for {
		p.constant(&c)
		p.lx.Match(TokComma)
		if p.lx.Failed() || p.lx.Match(TokRCurly) {
			return c
		}
	}
}

// constant parses one constant, or a name of several, and adds it to c.
func (p *matchParser) constant(c *constants) {
	//exhaustive:ignore
	switch t := p.lx.Tok; t.Kind {
	case TokTemplate:
		p.lx.Errorf("Unexpanded template.")
	case TokString:
		if p.want(c, true) {
			c.strings = append(c.strings, t.Text)
		}
	case TokInteger:
		if p.want(c, false) {
			c.values = append(c.values, t.Constant)
		}
	case TokMacro:
		p.refs.AddressSets = append(p.refs.AddressSets, t.Text)
		set, ok := p.addressSet(t.Text)
		switch {
		case !ok:
			p.lx.SyntaxErrorf("expecting address set name")
			p.miss(&MissingSet{Name: t.Text})
		case p.want(c, false):
			if c.len() == 0 {
				c.values = set
			} else {
				c.values = append(slices.Clip(c.values), set...)
			}
		}
	case TokGroup:
		p.refs.PortGroups = append(p.refs.PortGroups, t.Text)
		ports, ok := p.portGroup(t.Text)
		switch {
		case !ok:
			p.lx.SyntaxErrorf("expecting port group name")
			p.miss(&MissingSet{Group: true, Name: t.Text})
		case p.want(c, true):
			c.strings = append(slices.Clip(c.strings), ports...)
		}
	default:
		p.lx.SyntaxErrorf("expecting constant")
	}
	if p.size += c.len(); p.size > maxNodes {
		p.lx.Errorf("%s", ErrTooComplex)
	}
	p.lx.Next()
}

func (p *matchParser) addressSet(name string) ([]Constant, bool) {
	if p.sets == nil {
		return nil, false
	}
	return p.sets.AddressSet(name)
}

func (p *matchParser) portGroup(name string) ([]string, bool) {
	if p.sets == nil {
		return nil, false
	}
	return p.sets.PortGroup(name)
}

// miss completes m with the error that was just recorded.
func (p *matchParser) miss(m *MissingSet) {
	if p.missing == nil && errors.As(p.lx.Err(), &m.Syntax) {
		p.missing = m
	}
}

// want reports whether c can take a constant that is a string or, if str is false, a value.
func (p *matchParser) want(c *constants, str bool) bool {
	if c.len() > 0 && c.str != str {
		what := "integer"
		if c.str {
			what = "string"
		}
		p.lx.SyntaxErrorf("expecting %s", what)
		return false
	}
	c.str = str
	return true
}

// compare returns the comparison of f with one of the constants of c if r is ==, with all of them if it is !=.
func (p *matchParser) compare(f Operand, r relop, c constants) *node {
	if p.lx.Failed() || !p.checkType(f, &c) || !p.checkRelop(f, r, &c) || !p.checkNominal(f, r, &c) {
		return falseNode
	}
	n := c.len()
	if n == 0 {
		return boolean(r == ne)
	}
	cmps := make([]node, n) // one allocation for a large set
	subs := make([]*node, n)
	for i := range cmps {
		cmps[i] = node{kind: cmpNode, rel: r, sym: f.Symbol}
		if c.str {
			cmps[i].text = c.strings[i]
		} else {
			cmps[i].value, cmps[i].mask = bitsOf(f, &c.values[i])
		}
		subs[i] = &cmps[i]
	}
	if r == eq {
		return join(orNode, subs...)
	}
	return join(andNode, subs...)
}

// bitsOf returns c as bits of the symbol of f. Bits of c that f does not have are lost, as OVN does it.
func bitsOf(f Operand, c *Constant) (value, mask ir.U128) {
	mask = ir.Ones(f.N)
	value = c.Value.And(mask)
	if c.Masked {
		mask = mask.And(c.Mask)
	}
	return value.Shl(f.Ofs), mask.Shl(f.Ofs)
}

func (p *matchParser) checkType(f Operand, c *constants) bool {
	s := f.Symbol
	if c.str != (s.Width == 0) {
		field, constant := "Integer", "string"
		if s.Width == 0 {
			field, constant = "String", "integer"
		}
		p.lx.Errorf("%s field %s is not compatible with %s constant.", field, s.Name, constant)
		return false
	}
	for i := range c.values {
		if w := c.values[i].width(); w > s.Width {
			p.lx.Errorf("%d-bit constant is not compatible with %d-bit field %s.", w, s.Width, s.Name)
			return false
		}
	}
	return true
}

func (p *matchParser) checkRelop(f Operand, r relop, c *constants) bool {
	switch {
	case r == eq || r == ne:
		return true
	case c.set:
		p.lx.Errorf("Only == and != operators may be used with value sets.")
	case f.Symbol.Level != Ordinal:
		p.lx.Errorf("Only == and != operators may be used with %s field %s.", f.Symbol.Level, f.Symbol.Name)
	case c.len() == 0:
		p.lx.Errorf("Only == and != operators may be used to compare a field against an empty value set.")
	case slices.ContainsFunc(c.values, func(c Constant) bool { return c.Masked }):
		p.lx.Errorf("Only == and != operators may be used with masked constants.  Consider using subfields " +
			"instead (e.g. eth.src[0..15] > 0x1111 in place of eth.src > 00:00:00:00:11:11/00:00:00:00:ff:ff).")
	default:
		return true
	}
	return false
}

func (p *matchParser) checkNominal(f Operand, r relop, c *constants) bool {
	s := f.Symbol
	switch {
	case s.Level != Nominal:
	case s.Predicate != "":
		for i := range c.values {
			if c.values[i].Value.Bit(0) == (r == ne) != p.not {
				p.lx.Errorf("Nominal predicate %s may only be tested positively, "+
					"e.g. `%s' or `%s == 1' but not `!%s' or `%s == 0'.", s.Name, s.Name, s.Name, s.Name, s.Name)
				return false
			}
		}
	case (r == eq) == p.not || r != eq && r != ne:
		p.lx.Errorf("Nominal field %s may only be tested for equality (taking enclosing `!' operators into account).",
			s.Name)
		return false
	}
	return true
}

// parseOperand parses a symbol, perhaps followed by a range of bits.
func (t *SymbolTable) parseOperand(lx *Lexer) (Operand, bool) {
	var s *Symbol
	if lx.Tok.Kind == TokID {
		s = t.symbols[lx.Tok.Text]
	}
	if s == nil {
		lx.SyntaxErrorf("expecting field name")
		return Operand{}, false
	}
	lx.Next()
	if !lx.Match(TokLSquare) {
		return Operand{Symbol: s, N: s.Width}, true
	}
	if s.Width == 0 {
		lx.Errorf("Cannot select subfield of string field %s.", s.Name)
		return Operand{}, false
	}
	low, ok := lx.ExpectInt()
	high := low
	if ok && lx.Match(TokEllipsis) {
		high, ok = lx.ExpectInt()
	}
	if !ok || !lx.Expect(TokRSquare) {
		return Operand{}, false
	}
	switch {
	case low > high:
		lx.Errorf("Invalid bit range %d to %d.", low, high)
	case high >= s.Width:
		lx.Errorf("Cannot select bits %d to %d of %d-bit field %s.", low, high, s.Width, s.Name)
	case s.Level == Nominal && (low != 0 || high != s.Width-1):
		lx.Errorf("Cannot select subfield of nominal field %s.", s.Name)
	default:
		return Operand{Symbol: s, Ofs: low, N: high - low + 1}, true
	}
	return Operand{}, false
}
