package ovsdb

import (
	"encoding/hex"
	"fmt"
)

// A UUID in the order of its text form: the first byte is the first pair of
// hexadecimal digits. The zero UUID stands for no row and no transaction.
type UUID [16]byte

// ParseUUID reads the form 01234567-89ab-cdef-0123-456789abcdef (RFC 7047,
// section 3.1, <uuid>). Upper case digits are accepted.
func ParseUUID(text string) (UUID, error) {
	u, ok := parseUUID([]byte(text))
	if !ok {
		return UUID{}, fmt.Errorf("ovsdb parse uuid %q: not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", text)
	}
	return u, nil
}

func parseUUID(text []byte) (u UUID, ok bool) {
	if len(text) != 36 {
		return UUID{}, false
	}
	pos := 0
	for i := range u {
		if pos == 8 || pos == 13 || pos == 18 || pos == 23 {
			if text[pos] != '-' {
				return UUID{}, false
			}
			pos++
		}
		high, low := hexDigit(text[pos]), hexDigit(text[pos+1])
		if high > 15 || low > 15 {
			return UUID{}, false
		}
		u[i] = high<<4 | low
		pos += 2
	}
	return u, true
}

// hexDigit returns 255 for what is not a digit.
func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// String returns the text form in lower case.
func (u UUID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], u[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], u[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], u[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], u[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], u[10:16])
	return string(b[:])
}
