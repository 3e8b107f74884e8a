package logical

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Kind is the kind of a token.
type Kind uint8

// The kinds of tokens. Those without text of their own are printed as they are written.
const (
	TokEnd      Kind = iota // end of the text
	TokError                // Text is the message; nothing follows
	TokID                   // Text is the identifier
	TokString               // "..."; Text is the string with its escapes resolved
	TokInteger              // decimal or hexadecimal number, Ethernet, IPv4 or IPv6 address, perhaps masked
	TokMacro                // $name, an address set; Text is the name
	TokGroup                // @name, a port group; Text is the name
	TokTemplate             // ^name, a template variable that was not expanded; Text is the name
	TokLParen
	TokRParen
	TokLCurly
	TokRCurly
	TokLSquare
	TokRSquare
	TokEQ
	TokNE
	TokLT
	TokLE
	TokGT
	TokGE
	TokNot
	TokAnd
	TokOr
	TokEllipsis
	TokComma
	TokSemicolon
	TokEquals
	TokExchange
	TokDecrement
	TokColon
	TokHyphen
)

var kindText = [...]string{
	TokEnd: "$", TokError: "error", TokID: "identifier", TokString: "string", TokInteger: "integer",
	TokMacro: "$name", TokGroup: "@name", TokTemplate: "^name",
	TokLParen: "(", TokRParen: ")", TokLCurly: "{", TokRCurly: "}", TokLSquare: "[", TokRSquare: "]",
	TokEQ: "==", TokNE: "!=", TokLT: "<", TokLE: "<=", TokGT: ">", TokGE: ">=",
	TokNot: "!", TokAnd: "&&", TokOr: "||", TokEllipsis: "..", TokComma: ",", TokSemicolon: ";",
	TokEquals: "=", TokExchange: "<->", TokDecrement: "--", TokColon: ":", TokHyphen: "-",
}

// String returns the token of kind k as it is written, or a description of it.
func (k Kind) String() string { return kindText[k] }

// Format is the notation in which a constant was written.
type Format uint8

// The notations of constants.
const (
	FormatDecimal Format = iota
	FormatHex
	FormatIPv4
	FormatIPv6
	FormatEthernet
)

// Constant is a number or an address of up to 128 bits, with a mask if Masked is true.
// Value has no bit outside Mask then. An address is the big-endian integer of its bytes.
type Constant struct {
	Value, Mask ir.U128
	Format      Format
	Masked      bool
}

// width returns the number of bits a field needs to hold c.
func (c *Constant) width() int {
	switch {
	case c.Masked:
		return c.Mask.BitLen()
	case c.Format == FormatIPv4:
		return 32
	case c.Format == FormatIPv6:
		return 128
	case c.Format == FormatEthernet:
		return 48
	default:
		return c.Value.BitLen()
	}
}

// String returns c in its notation, or in hexadecimal if it is too wide for it.
func (c Constant) String() string {
	width := map[Format]int{FormatDecimal: 64, FormatHex: 128, FormatIPv4: 32, FormatIPv6: 128, FormatEthernet: 48}
	f := c.Format
	if c.Value.Or(c.Mask).BitLen() > width[f] {
		f = FormatHex
	}
	s := formatValue(c.Value, f)
	if !c.Masked {
		return s
	}
	bits := 128
	if f == FormatIPv4 {
		bits = 32
	}
	if n := c.Mask.OnesCount(); (f == FormatIPv4 || f == FormatIPv6) && c.Mask == prefixMask(n, bits) {
		return s + "/" + strconv.Itoa(n)
	}
	return s + "/" + formatValue(c.Mask, f)
}

func prefixMask(n, bits int) ir.U128 { return ir.Ones(n).Shl(bits - n).And(ir.Ones(bits)) }

func formatValue(v ir.U128, f Format) string {
	b := v.Bytes16()
	switch f {
	case FormatDecimal:
		return strconv.FormatUint(v.Lo, 10)
	case FormatIPv4:
		return netip.AddrFrom4([4]byte(b[12:])).String()
	case FormatIPv6:
		return netip.AddrFrom16(b).String()
	case FormatEthernet:
		return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[10], b[11], b[12], b[13], b[14], b[15])
	case FormatHex:
	}
	return hexText(v)
}

// hexText returns v in hexadecimal, with 0x unless it is 0.
func hexText(v ir.U128) string {
	if v.IsZero() {
		return "0"
	}
	return v.String()
}

// compare orders constants by value, unmasked after masked ones of the same value, then by mask.
func (c *Constant) compare(d *Constant) int {
	if n := c.Value.Cmp(d.Value); n != 0 || !c.Masked && !d.Masked {
		return n
	}
	if c.Masked != d.Masked {
		if c.Masked {
			return -1
		}
		return 1
	}
	return c.Mask.Cmp(d.Mask)
}

// ParseAddressSet turns the addresses of an address set into constants, sorted. Texts that do not begin with
// a constant are left out and returned in invalid.
func ParseAddressSet(addresses []string) (set []Constant, invalid []string) {
	set = make([]Constant, 0, len(addresses))
	for _, a := range addresses {
		t := lexToken(a, 0)
		if t.Kind != TokInteger {
			invalid = append(invalid, a)
			continue
		}
		set = append(set, t.Constant)
	}
	slices.SortFunc(set, func(a, b Constant) int {
		return cmp.Or(a.compare(&b), cmp.Compare(a.Format, b.Format))
	})
	return set, invalid
}

// Token is one token: the bytes [Pos, End) of the text it came from.
type Token struct {
	Kind     Kind
	Text     string
	Pos, End int
	Constant // of a TokInteger
}

// String returns t in a form that lexes to an equal token, unless it is a TokEnd or TokError.
func (t Token) String() string {
	//exhaustive:ignore
	switch t.Kind {
	case TokID:
		return t.Text
	case TokString:
		return quote(t.Text)
	case TokInteger:
		return t.Constant.String()
	case TokMacro:
		return "$" + t.Text
	case TokGroup:
		return "@" + t.Text
	case TokTemplate:
		return "^" + t.Text
	case TokError:
		return "error(" + quote(t.Text) + ")"
	default:
		return t.Kind.String()
	}
}

// Lex returns the tokens of text. The last one is a TokEnd, or a TokError that describes what is wrong at its
// position.
func Lex(text string) []Token {
	var ts []Token
	for pos := 0; ; {
		t := lexToken(text, pos)
		ts = append(ts, t)
		if t.Kind == TokEnd || t.Kind == TokError {
			return ts
		}
		pos = t.End
	}
}

// lexToken returns the first token of text[pos:].
func lexToken(text string, pos int) Token {
	pos, msg := skipSpace(text, pos)
	if msg != "" {
		return Token{Kind: TokError, Text: msg, Pos: pos, End: len(text)}
	}
	if pos == len(text) {
		return Token{Kind: TokEnd, Pos: pos, End: pos}
	}
	l := scanner{text: text, tok: Token{Pos: pos, End: pos}}
	l.scan()
	return l.tok
}

// skipSpace returns the position of the first byte of text[pos:] that is no space and not part of a comment.
// If a comment or a lone slash is malformed, it returns a message.
func skipSpace(text string, pos int) (int, string) {
	for pos < len(text) {
		switch c := text[pos]; {
		case c == ' ' || c >= '\t' && c <= '\r':
			pos++
		case c != '/':
			return pos, ""
		case strings.HasPrefix(text[pos:], "//"):
			n := strings.IndexByte(text[pos:], '\n')
			if n < 0 {
				return len(text), ""
			}
			pos += n
		case strings.HasPrefix(text[pos:], "/*"):
			n := strings.Index(text[pos+2:], "*/")
			if n < 0 || strings.IndexByte(text[pos+2:pos+2+n], '\n') >= 0 {
				return pos, "`/*' without matching `*/'."
			}
			pos += n + 4
		default:
			return pos, "`/' is only valid as part of `//' or `/*'."
		}
	}
	return pos, ""
}

// scanner makes one token: it extends tok.End over the bytes of text it has read.
type scanner struct {
	text string
	tok  Token
}

// at returns the byte n after the current position, or 0 after the end.
func (l *scanner) at(n int) byte {
	if i := l.tok.End + n; i < len(l.text) {
		return l.text[i]
	}
	return 0
}

func (l *scanner) take(n int, k Kind) {
	l.tok.End += n
	l.tok.Kind = k
}

// choose takes two bytes as kind k2 if the second one is c2, otherwise one byte as kind k1.
func (l *scanner) choose(c2 byte, k2, k1 Kind) {
	if l.at(1) == c2 {
		l.take(2, k2)
	} else {
		l.take(1, k1)
	}
}

// double takes the byte that is valid only when doubled.
func (l *scanner) double(k Kind, rest string) {
	c := l.at(0)
	if l.at(1) == c {
		l.take(2, k)
		return
	}
	l.fail("`%c' is only valid as part of `%c%c'%s.", c, c, c, rest)
}

func (l *scanner) fail(format string, args ...any) {
	l.tok = Token{Kind: TokError, Text: fmt.Sprintf(format, args...), Pos: l.tok.Pos, End: len(l.text)}
}

func (l *scanner) scan() {
	c := l.at(0)
	switch c {
	case '(':
		l.take(1, TokLParen)
	case ')':
		l.take(1, TokRParen)
	case '{':
		l.take(1, TokLCurly)
	case '}':
		l.take(1, TokRCurly)
	case '[':
		l.take(1, TokLSquare)
	case ']':
		l.take(1, TokRSquare)
	case ',':
		l.take(1, TokComma)
	case ';':
		l.take(1, TokSemicolon)
	case '=':
		l.choose('=', TokEQ, TokEquals)
	case '!':
		l.choose('=', TokNE, TokNot)
	case '>':
		l.choose('=', TokGE, TokGT)
	case '-':
		l.choose('-', TokDecrement, TokHyphen)
	case '<':
		if l.at(1) == '-' && l.at(2) == '>' {
			l.take(3, TokExchange)
		} else {
			l.choose('=', TokLE, TokLT)
		}
	case '&':
		l.double(TokAnd, "")
	case '|':
		l.double(TokOr, "")
	case '.':
		l.double(TokEllipsis, " or a number")
	case '$':
		l.name(TokMacro)
	case '@':
		l.name(TokGroup)
	case '^':
		l.name(TokTemplate)
	case '"':
		l.str()
	case ':':
		if l.at(1) == ':' {
			l.number() // an IPv6 address
		} else {
			l.take(1, TokColon)
		}
	default:
		switch {
		case isDigit(c), isHex(c) && l.hexThenColon():
			l.number()
		case isID(c):
			l.id(TokID)
		case c >= ' ' && c <= '~':
			l.fail("Invalid character `%c' in input.", c)
		default:
			l.fail("Invalid byte 0x%02x in input.", c)
		}
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isHex(c byte) bool   { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isID(c byte) bool    { return isAlpha(c) || c == '_' || c == '.' }

// hexThenColon tells an address that begins with a letter from an identifier.
func (l *scanner) hexThenColon() bool {
	n := 0
	for isHex(l.at(n)) {
		n++
	}
	return l.at(n) == ':'
}

// id takes an identifier as a token of kind k.
func (l *scanner) id(k Kind) {
	start := l.tok.End
	for isID(l.at(0)) || isDigit(l.at(0)) {
		l.tok.End++
	}
	l.tok.Kind, l.tok.Text = k, l.text[start:l.tok.End]
}

// name takes a character that introduces a name, and the name.
func (l *scanner) name(k Kind) {
	if !isID(l.at(1)) {
		l.fail("`%c' must be followed by a valid identifier.", l.at(0))
		return
	}
	l.tok.End++
	l.id(k)
}

// number takes a constant and its mask.
func (l *scanner) number() {
	var msg string
	if l.tok.Constant, msg = l.integer(); msg != "" {
		l.fail("%s", msg)
		return
	}
	l.tok.Kind = TokInteger
	if l.at(0) != '/' {
		return
	}
	l.tok.End++
	mask, msg := l.integer()
	if msg != "" {
		l.fail("%s", msg)
		return
	}
	c := &l.tok.Constant
	switch n := mask.Value.Lo; {
	case c.Format == mask.Format:
		c.Mask = mask.Value
	case c.Format == FormatIPv4 && mask.Format == FormatDecimal && n <= 32:
		c.Mask = prefixMask(int(n), 32)
	case c.Format == FormatIPv6 && mask.Format == FormatDecimal && n <= 128:
		c.Mask = prefixMask(int(n), 128)
	case c.Format == FormatDecimal && mask.Format == FormatHex && c.Value.IsZero():
		c.Format, c.Mask = FormatHex, mask.Value // 0/0xff
	default:
		l.fail("Value and mask have incompatible formats.")
		return
	}
	c.Masked = true
	c.Value = c.Value.And(c.Mask)
}

// integer takes a number or an address without a mask. It returns a message if there is none.
//
// Two dots end it, so that "1..2" is a range; a colon after a dot ends it, so that "10.0.0.1:80" is three tokens.
func (l *scanner) integer() (Constant, string) {
	start, dot, digits := l.tok.End, false, true
	for {
		c := l.at(0)
		if !isDigit(c) && !isAlpha(c) && (c != ':' || dot) && (c != '.' || l.at(1) == '.') {
			break
		}
		dot = dot || c == '.'
		digits = digits && isDigit(c)
		l.tok.End++
	}
	s := l.text[start:l.tok.End]
	if s == "" {
		return Constant{}, "Integer constant expected."
	}
	if mac, ok := parseMAC(s); ok {
		return Constant{Value: ir.U64(mac), Format: FormatEthernet}, ""
	}
	if digits {
		if s[0] == '0' && len(s) > 1 {
			return Constant{}, "Decimal constants must not have leading zeros."
		}
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return Constant{}, "Decimal constants must be less than 2**64."
		}
		return Constant{Value: ir.U64(v)}, ""
	}
	if s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		return parseHex(s)
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return Constant{}, "Invalid numeric constant."
	case a.Is4():
		b := a.As4()
		return Constant{Value: ir.U64(uint64(binary.BigEndian.Uint32(b[:]))), Format: FormatIPv4}, ""
	default:
		b := a.As16()
		return Constant{Value: ir.FromBytes(b[:]), Format: FormatIPv6}, ""
	}
}

// parseMAC parses six groups of two hexadecimal digits.
func parseMAC(s string) (mac uint64, ok bool) {
	if len(s) != 17 {
		return 0, false
	}
	for i := range len(s) {
		if i%3 == 2 {
			if s[i] != ':' {
				return 0, false
			}
			continue
		}
		if !isHex(s[i]) {
			return 0, false
		}
		mac = mac<<4 | uint64(hexDigit(s[i]))
	}
	return mac, true
}

func hexDigit(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return (c | 0x20) - 'a' + 10
}

// parseHex parses s, which begins with 0x.
func parseHex(s string) (Constant, string) {
	if len(s) == 2 {
		return Constant{}, fmt.Sprintf("Hex digits expected following 0%c.", s[1])
	}
	var v ir.U128
	for i := 2; i < len(s); i++ {
		if !isHex(s[i]) {
			return Constant{}, "Invalid syntax in hexadecimal constant."
		}
		if v.BitLen() > 124 {
			return Constant{}, "Hexadecimal constant requires more than 128 bits."
		}
		v = v.Shl(4).Or(ir.U64(uint64(hexDigit(s[i]))))
	}
	return Constant{Value: v, Format: FormatHex}, ""
}

// str takes a string in double quotes.
func (l *scanner) str() {
	i := l.tok.End + 1
	escapes := false
	for ; i < len(l.text) && l.text[i] != '"'; i++ {
		if l.text[i] == '\\' {
			escapes = true
			i++
		}
	}
	if i >= len(l.text) {
		l.fail("Input ends inside quoted string.")
		return
	}
	s := l.text[l.tok.End+1 : i]
	if strings.IndexByte(s, 0) >= 0 {
		l.fail("null bytes not supported in quoted strings")
		return
	}
	if escapes {
		var msg string
		if s, msg = unescape(s); msg != "" {
			l.fail("%s", msg)
			return
		}
	}
	l.tok.Kind, l.tok.Text, l.tok.End = TokString, s, i+1
}

// unescape resolves the escapes of RFC 8259 section 7 in s, in which no backslash is last. It returns a message
// if one of them is malformed.
func unescape(s string) (string, string) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		switch s[i] {
		case '"', '\\', '/':
			out = append(out, s[i])
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, n, msg := unescapeRune(s[i-1:])
			if msg != "" {
				return "", msg
			}
			out = utf8.AppendRune(out, r)
			i += n - 2
		default:
			return "", fmt.Sprintf("bad escape \\%c", s[i])
		}
	}
	return string(out), ""
}

// unescapeRune resolves the \uXXXX, or the surrogate pair of two of them, with which s begins, and returns its
// length.
func unescapeRune(s string) (r rune, n int, msg string) {
	code := func(s string) (rune, bool) {
		if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
			return 0, false
		}
		v, err := strconv.ParseUint(s[2:6], 16, 16)
		return rune(v), err == nil
	}
	r, ok := code(s)
	switch {
	case !ok:
		return 0, 0, "malformed \\u escape"
	case r == 0:
		return 0, 0, "null bytes not supported in quoted strings"
	case !utf16.IsSurrogate(r):
		return r, 6, ""
	}
	low, ok := code(s[6:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0, "malformed escaped surrogate pair"
	}
	return r, 12, ""
}

// quote returns s in double quotes, with the escapes of RFC 8259 section 7.
func quote(s string) string {
	b := append(make([]byte, 0, len(s)+2), '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			if c < ' ' {
				b = fmt.Appendf(b, "\\u%04x", c)
			} else {
				b = append(b, c)
			}
		}
	}
	return string(append(b, '"'))
}

// SyntaxError is what is wrong with a text, and the byte at which it was noticed.
// The message is the one that ovn-controller writes to its log.
type SyntaxError struct {
	Pos int
	Msg string
}

// Error returns the message.
func (e *SyntaxError) Error() string { return e.Msg }

// Lexer reads a text token by token, as a recursive descent parser wants it. It keeps the first error, which is
// the one to report; after an error the current token is a TokError, which no grammar accepts.
type Lexer struct {
	Tok  Token // the current token
	text string
	err  *SyntaxError
}

// NewLexer returns a Lexer whose current token is the first one of text.
func NewLexer(text string) *Lexer {
	l := &Lexer{text: text}
	l.Next()
	return l
}

// Next makes the next token the current one.
func (l *Lexer) Next() {
	if l.Tok.Kind != TokError {
		l.Tok = lexToken(l.text, l.Tok.End)
	}
}

// Peek returns the kind of the token after the current one.
func (l *Lexer) Peek() Kind { return lexToken(l.text, l.Tok.End).Kind }

// Match skips the current token if it is of kind k, and reports whether it was.
func (l *Lexer) Match(k Kind) bool {
	if l.Tok.Kind != k {
		return false
	}
	l.Next()
	return true
}

// MatchID skips the current token if it is the identifier id, and reports whether it was.
func (l *Lexer) MatchID(id string) bool {
	if l.Tok.Kind != TokID || l.Tok.Text != id {
		return false
	}
	l.Next()
	return true
}

// Expect is Match that makes a missing token an error.
func (l *Lexer) Expect(k Kind) bool {
	switch {
	case k == TokEnd:
		if l.Tok.Kind != TokEnd {
			l.SyntaxErrorf("expecting end of input")
			return false
		}
		return true
	case l.Match(k):
		return true
	default:
		l.SyntaxErrorf("expecting `%s'", k)
		return false
	}
}

// Int takes the decimal number that is the current token if it is less than 2^31.
func (l *Lexer) Int() (int, bool) {
	t := &l.Tok
	if t.Kind != TokInteger || t.Masked || t.Format != FormatDecimal || t.Value.Lo > 1<<31-1 {
		return 0, false
	}
	v := int(t.Value.Lo)
	l.Next()
	return v, true
}

// ExpectInt is Int that makes a missing number an error.
func (l *Lexer) ExpectInt() (int, bool) {
	v, ok := l.Int()
	if !ok {
		l.SyntaxErrorf("expecting small integer")
	}
	return v, ok
}

// Errorf records an error at the current token, unless there is one already. The error of a TokError is the
// token's own.
func (l *Lexer) Errorf(format string, args ...any) {
	if l.err != nil {
		return
	}
	msg := l.Tok.Text
	if l.Tok.Kind != TokError {
		msg = fmt.Sprintf(format, args...)
	}
	l.err = &SyntaxError{Pos: l.Tok.Pos, Msg: msg}
	l.Tok = Token{Kind: TokError, Text: msg, Pos: l.Tok.Pos, End: len(l.text)}
}

// SyntaxErrorf is Errorf for a token that the grammar does not allow; the message quotes it.
func (l *Lexer) SyntaxErrorf(format string, args ...any) {
	where := " at end of input"
	if l.Tok.Kind != TokEnd {
		where = fmt.Sprintf(" at `%s'", l.text[l.Tok.Pos:l.Tok.End])
	}
	if format != "" {
		format = " " + format
	}
	l.Errorf("Syntax error%s%s.", where, fmt.Sprintf(format, args...))
}

// Failed reports whether there was an error.
func (l *Lexer) Failed() bool { return l.err != nil }

// Err returns the first error, a *SyntaxError, or nil.
func (l *Lexer) Err() error {
	if l.err == nil {
		return nil
	}
	return l.err
}
