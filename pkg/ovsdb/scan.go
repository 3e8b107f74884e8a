package ovsdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits on what a server may send. A Southbound database of a thousand nodes
// is some hundreds of megabytes in one message, hence the size.
const (
	maxMessageSize = 4 << 30
	maxText        = 64 << 20 // of a string, and of a value that is kept as text
	maxDepth       = 64
	windowSize     = 64 << 10
)

// A scanner reads JSON (RFC 8259) from a stream, one token at a time, without
// building a tree. Its methods return an error for anything that is not the
// token they name; after an error the scanner is of no further use.
type scanner struct {
	r    io.Reader
	buf  []byte // the window: buf[pos:end] is read and not yet consumed
	pos  int
	end  int
	left int64 // bytes this message may still take

	scratch []byte // a string that crossed the window's end or had escapes

	capturing bool
	mark      int    // where the captured text starts in the window
	captured  []byte // what of it has left the window already
}

func newScanner(r io.Reader) *scanner {
	return &scanner{r: r, buf: make([]byte, windowSize)}
}

// begin starts a message: it grants it the maximal size and waits for its
// first byte. It returns io.EOF when the stream ends between two messages.
func (s *scanner) begin() error {
	s.left = maxMessageSize
	_, err := s.next()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// fill replaces the consumed window by the bytes that follow it.
func (s *scanner) fill() error {
	if s.capturing {
		s.captured = append(s.captured, s.buf[s.mark:s.pos]...)
		s.mark = 0
		if len(s.captured) > maxText {
			return fmt.Errorf("value exceeds %d bytes", maxText)
		}
	}
	s.pos, s.end = 0, 0
	for range 100 {
		n, err := s.r.Read(s.buf)
		if n > 0 {
			s.end = n
			if s.left -= int64(n); s.left < 0 {
				return fmt.Errorf("message exceeds %d bytes", int64(maxMessageSize))
			}
			return nil
		}
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// next skips white space and returns the byte after it without consuming it.
func (s *scanner) next() (byte, error) {
	for {
		for s.pos < s.end {
			switch c := s.buf[s.pos]; c {
			case ' ', '\t', '\n', '\r':
				s.pos++
			default:
				return c, nil
			}
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// expect consumes white space and the byte want.
func (s *scanner) expect(want byte) error {
	c, err := s.next()
	if err != nil {
		return err
	}
	if c != want {
		return fmt.Errorf("json: %q where %q is due", c, want)
	}
	s.pos++
	return nil
}

// more tells whether another member follows in an object or array that ends
// with the byte end, and consumes the comma before it, or end. The member is
// the first one if first is true.
func (s *scanner) more(end byte, first bool) (bool, error) {
	c, err := s.next()
	switch {
	case err != nil:
		return false, err
	case c == end:
		s.pos++
		return false, nil
	case first:
		return true, nil
	case c != ',':
		return false, fmt.Errorf("json: %q where ',' or %q is due", c, end)
	}
	s.pos++
	if c, err = s.next(); err == nil && c == end {
		return false, fmt.Errorf("json: %q after ','", end)
	}
	return true, err
}

// key consumes the name of a member and the colon after it. The name is valid
// until the next call.
func (s *scanner) key() ([]byte, error) {
	name, err := s.text()
	if err != nil {
		return nil, err
	}
	if s.pos < s.end && s.buf[s.pos] == ':' {
		s.pos++
		return name, nil
	}
	// Reading on may move the window under the name.
	s.scratch = append(s.scratch[:0], name...)
	return s.scratch, s.expect(':')
}

// text consumes a string and returns its contents, valid until the next call.
func (s *scanner) text() ([]byte, error) {
	if err := s.expect('"'); err != nil {
		return nil, err
	}
	start, ascii := s.pos, true
	for i := start; i < s.end; i++ {
		switch c := s.buf[i]; {
		case c == '"':
			s.pos = i + 1
			if !ascii && !utf8.Valid(s.buf[start:i]) {
				return nil, errors.New("json: string is not UTF-8")
			}
			return s.buf[start:i], nil
		case c == '\\':
			return s.longText()
		case c < ' ':
			return nil, fmt.Errorf("json: control character %#02x in string", c)
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return s.longText()
}

// longText is text for a string that has escapes or leaves the window. The
// opening quote is consumed.
func (s *scanner) longText() ([]byte, error) {
	b := s.scratch[:0]
	for {
		start, i := s.pos, s.pos
		for i < s.end && s.buf[i] != '"' && s.buf[i] != '\\' && s.buf[i] >= ' ' {
			i++
		}
		b = append(b, s.buf[start:i]...)
		s.pos = i
		if len(b) > maxText {
			return nil, fmt.Errorf("string exceeds %d bytes", maxText)
		}
		if i == s.end {
			if err := s.fill(); err != nil {
				return nil, err
			}
			continue
		}
		s.pos++
		switch c := s.buf[i]; c {
		case '"':
			s.scratch = b
			if !utf8.Valid(b) {
				return nil, errors.New("json: string is not UTF-8")
			}
			return b, nil
		case '\\':
			var err error
			if b, err = s.escape(b); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("json: control character %#02x in string", c)
		}
	}
}

// escape consumes what follows a backslash and appends the character it means.
func (s *scanner) escape(b []byte) ([]byte, error) {
	c, err := s.byte()
	if err != nil {
		return nil, err
	}
	switch c {
	case '"', '\\', '/':
		return append(b, c), nil
	case 'b':
		return append(b, '\b'), nil
	case 'f':
		return append(b, '\f'), nil
	case 'n':
		return append(b, '\n'), nil
	case 'r':
		return append(b, '\r'), nil
	case 't':
		return append(b, '\t'), nil
	case 'u':
	default:
		return nil, fmt.Errorf("json: escape \\%c", c)
	}
	r, err := s.hex4()
	if err != nil {
		return nil, err
	}
	if utf16.IsSurrogate(r) {
		var low rune
		for _, want := range []byte(`\u`) {
			if c, err = s.byte(); err != nil {
				return nil, err
			}
			if c != want {
				return nil, errLoneSurrogate
			}
		}
		if low, err = s.hex4(); err != nil {
			return nil, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return nil, errLoneSurrogate
		}
	}
	return utf8.AppendRune(b, r), nil
}

var errLoneSurrogate = errors.New("json: lone surrogate in string")

func (s *scanner) hex4() (rune, error) {
	var r rune
	for range 4 {
		c, err := s.byte()
		if err != nil {
			return 0, err
		}
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, fmt.Errorf("json: %q in \\u escape", c)
		}
		r = r<<4 | rune(c)
	}
	return r, nil
}

// byte consumes one byte, white space or not.
func (s *scanner) byte() (byte, error) {
	if s.pos == s.end {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	s.pos++
	return s.buf[s.pos-1], nil
}

// number consumes a number and returns its text, valid until the next call.
func (s *scanner) number() ([]byte, error) {
	if _, err := s.next(); err != nil {
		return nil, err
	}
	b := s.scratch[:0]
	for {
		if s.pos == s.end {
			if err := s.fill(); err != nil {
				return nil, err
			}
		}
		c := s.buf[s.pos]
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			break
		}
		b = append(b, c)
		s.pos++
		if len(b) > 400 {
			return nil, errors.New("json: number is too long")
		}
	}
	s.scratch = b
	if !validNumber(b) {
		return nil, fmt.Errorf("json: %q is not a number", b)
	}
	return b, nil
}

// validNumber checks the grammar of RFC 8259, section 6.
func validNumber(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && '0' <= b[n] && b[n] <= '9' {
			n++
		}
		b = b[n:]
		return n > 0
	}
	b = bytes.TrimPrefix(b, []byte("-"))
	if len(b) > 1 && b[0] == '0' && '0' <= b[1] && b[1] <= '9' || !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		if b = b[1:]; !digits() {
			return false
		}
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		if b = b[1:]; len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(b) == 0
}

// integer consumes a number that is a 64-bit integer.
func (s *scanner) integer() (int, error) {
	b, err := s.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("json: %q is not a 64-bit integer", b)
	}
	return int(n), nil
}

// real consumes a number that a float64 can hold.
func (s *scanner) real() (float64, error) {
	b, err := s.number()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return 0, fmt.Errorf("json: %q is out of range", b)
	}
	return f, nil
}

// boolean consumes true or false.
func (s *scanner) boolean() (bool, error) {
	c, err := s.next()
	switch {
	case err != nil:
		return false, err
	case c == 't':
		return true, s.literal("true")
	case c == 'f':
		return false, s.literal("false")
	}
	return false, fmt.Errorf("json: %q where a boolean is due", c)
}

// literal consumes the given word.
func (s *scanner) literal(word string) error {
	if _, err := s.next(); err != nil {
		return err
	}
	for i := range len(word) {
		c, err := s.byte()
		if err != nil {
			return err
		}
		if c != word[i] {
			return fmt.Errorf("json: %q where %s is due", c, word)
		}
	}
	return nil
}

// object calls member for each name of an object. The name is valid until
// member reads on; member must consume the value.
func (s *scanner) object(member func(name []byte) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.more('}', first)
		if err != nil || !more {
			return err
		}
		name, err := s.key()
		if err != nil {
			return err
		}
		if err := member(name); err != nil {
			return err
		}
	}
}

// array calls element for each element of an array; element must consume it.
func (s *scanner) array(element func() error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.more(']', first)
		if err != nil || !more {
			return err
		}
		if err := element(); err != nil {
			return err
		}
	}
}

// skip consumes any value.
func (s *scanner) skip() error { return s.skipTo(maxDepth) }

func (s *scanner) skipTo(depth int) error {
	if depth == 0 {
		return fmt.Errorf("json: nested deeper than %d", maxDepth)
	}
	c, err := s.next()
	if err != nil {
		return err
	}
	switch c {
	case '{':
		return s.object(func([]byte) error { return s.skipTo(depth - 1) })
	case '[':
		return s.array(func() error { return s.skipTo(depth - 1) })
	case '"':
		_, err = s.text()
	case 't', 'f':
		_, err = s.boolean()
	case 'n':
		err = s.literal("null")
	default:
		_, err = s.number()
	}
	return err
}

// capture consumes any value and returns its text, which the caller owns.
func (s *scanner) capture() ([]byte, error) {
	if _, err := s.next(); err != nil {
		return nil, err
	}
	s.capturing, s.mark, s.captured = true, s.pos, nil
	err := s.skip()
	s.capturing = false
	if err != nil {
		return nil, err
	}
	text := append(s.captured, s.buf[s.mark:s.pos]...)
	s.captured = nil
	return text, nil
}
