package ovsdb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// scannerOn returns a scanner as begin leaves it, with a small window.
func scannerOn(r io.Reader) *scanner {
	return &scanner{r: r, buf: make([]byte, 32), left: maxMessageSize}
}

func TestScannerRefuses(t *testing.T) {
	tests := []struct{ text, want string }{
		{`{"a":1,}`, `json: '}' after ','`},
		{`[1 2]`, `json: '2' where ',' or ']' is due`},
		{`[1,]`, `json: ']' after ','`},
		{`{"a" 1}`, `json: '1' where ':' is due`},
		{`{a:1}`, `json: 'a' where '"' is due`},
		{`[01]`, `json: "01" is not a number`},
		{`[1.]`, `json: "1." is not a number`},
		{`[.5]`, `json: ".5" is not a number`},
		{`[1e]`, `json: "1e" is not a number`},
		{`[--1]`, `json: "--1" is not a number`},
		{`[+1]`, `json: "+1" is not a number`},
		{`[NaN]`, `json: "" is not a number`},
		{`[trve]`, `json: 'v' where true is due`},
		{`[nul]`, `json: ']' where null is due`},
		{"[\"a\nb\"]", `json: control character 0x0a in string`},
		{`["\q"]`, `json: escape \q`},
		{`["\u12g4"]`, `json: 'g' in \u escape`},
		{`["\ud800"]`, `json: lone surrogate in string`},
		{`["\ud800\u0041"]`, `json: lone surrogate in string`},
		{`["\ud800udc00"]`, `json: lone surrogate in string`},
		{`["\ud800\nudc00"]`, `json: lone surrogate in string`},
		{`["\udc00\ud800"]`, `json: lone surrogate in string`},
		{"[\"\xff\"]", `json: string is not UTF-8`},
		{"[\"\\n\xc3\"]", `json: string is not UTF-8`},
		{strings.Repeat("[", maxDepth+1), `json: nested deeper than 64`},
		{`[` + strings.Repeat("1", 401) + `]`, `json: number is too long`},
		{`["a`, `unexpected EOF`},
		{`[1`, `unexpected EOF`},
		{`{"a"`, `unexpected EOF`},
		{`["\u00`, `unexpected EOF`},
		{``, `unexpected EOF`},
	}
	for _, test := range tests {
		for _, r := range []io.Reader{strings.NewReader(test.text), iotest.OneByteReader(strings.NewReader(test.text))} {
			if err := scannerOn(r).skip(); err == nil || err.Error() != test.want {
				t.Errorf("skip(%.40q) = %v, want %s", test.text, err, test.want)
			}
		}
	}
}

func TestScannerLimits(t *testing.T) {
	s := scannerOn(strings.NewReader(`"0123456789"`))
	s.left = 5
	if err := s.skip(); err == nil || !strings.Contains(err.Error(), "exceeds") {
		t.Errorf("a message longer than the limit: %v", err)
	}
	s = newScanner(io.MultiReader(strings.NewReader(`["`), endless{}))
	s.left = maxMessageSize
	if _, err := s.capture(); err == nil || !strings.Contains(err.Error(), "exceeds") {
		t.Errorf("an endless captured value: %v", err)
	}
	s = newScanner(io.MultiReader(strings.NewReader(`"`), endless{}))
	s.left = maxMessageSize
	if _, err := s.text(); err == nil || !strings.Contains(err.Error(), "exceeds") {
		t.Errorf("an endless string: %v", err)
	}
	s = scannerOn(stuck{})
	if err := s.skip(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that returns nothing: %v, want %v", err, io.ErrNoProgress)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestScannerIntegers(t *testing.T) {
	for text, want := range map[string]string{
		"9223372036854775807":  "9223372036854775807 <nil>",
		"-9223372036854775808": "-9223372036854775808 <nil>",
		"9223372036854775808":  `0 json: "9223372036854775808" is not a 64-bit integer`,
		"1.0":                  `0 json: "1.0" is not a 64-bit integer`,
		"-0":                   "0 <nil>",
	} {
		n, err := scannerOn(strings.NewReader(text + " ")).integer()
		if got := fmt.Sprint(n, " ", err); got != want {
			t.Errorf("integer(%s) = %s, want %s", text, got, want)
		}
	}
}

// TestScannerAgainstJSON writes random values with encoding/json and reads them
// through windows that end anywhere.
func TestScannerAgainstJSON(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		text, err := json.Marshal(randomJSON(rnd, 4))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []io.Reader{
			bytes.NewReader(text), iotest.OneByteReader(bytes.NewReader(text)), iotest.HalfReader(bytes.NewReader(text)),
		} {
			// A number ends where the next byte cannot belong to it.
			s := scannerOn(io.MultiReader(r, strings.NewReader(" ")))
			s.buf = make([]byte, 1+rnd.IntN(20))
			got, err := s.capture()
			if err != nil || !bytes.Equal(got, text) {
				t.Fatalf("seed %d: capture(%s) = %s, %v", seed, text, got, err)
			}
		}
	}
}

func randomJSON(rnd *rand.Rand, depth int) any {
	switch n := rnd.IntN(8); {
	case depth > 0 && n < 2:
		m := make(map[string]any)
		for range rnd.IntN(4) {
			m[randomString(rnd)] = randomJSON(rnd, depth-1)
		}
		return m
	case depth > 0 && n < 4:
		a := make([]any, rnd.IntN(4))
		for i := range a {
			a[i] = randomJSON(rnd, depth-1)
		}
		return a
	case n == 4:
		return rnd.Int64() - rnd.Int64()
	case n == 5:
		return rnd.NormFloat64() * 1e30
	case n == 6:
		return []any{nil, true, false}[rnd.IntN(3)]
	}
	return randomString(rnd)
}

func randomString(rnd *rand.Rand) string {
	alphabet := []rune("ab\"\\/\b\f\n\r\t\x00\x1f é漢😀 <>")
	b := make([]rune, rnd.IntN(12))
	for i := range b {
		b[i] = alphabet[rnd.IntN(len(alphabet))]
	}
	return string(b)
}

func TestScannerStrings(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		want := randomString(rnd)
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		s := scannerOn(bytes.NewReader(text))
		s.buf = make([]byte, 1+rnd.IntN(20))
		if got, err := s.text(); err != nil || string(got) != want {
			t.Fatalf("seed %d: text(%s) = %q, %v, want %q", seed, text, got, err, want)
		}
	}
}

// FuzzScanner compares with encoding/json, which takes the same texts except
// that it replaces what is not UTF-8 and nests deeper.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{`{"id":1,"a":[1,2.5e-3,"x\u00e9\ud83d\ude00",null,true]}`, `[]`, `"\u0000"`, `-0`, `{"a":{}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s := scannerOn(io.MultiReader(bytes.NewReader(text), strings.NewReader(" ")))
		s.buf = make([]byte, 7)
		got, err := s.capture()
		if err != nil {
			return
		}
		if !json.Valid(got) {
			t.Fatalf("capture accepts %q, encoding/json does not", got)
		}
		if !utf8.Valid(got) {
			t.Fatalf("capture accepts %q, which is not UTF-8", got)
		}
		if got[0] != '"' {
			return
		}
		var want string
		if err := json.Unmarshal(got, &want); err != nil {
			t.Fatal(err)
		}
		if decoded, err := scannerOn(bytes.NewReader(got)).text(); err != nil || string(decoded) != want {
			t.Fatalf("text(%q) = %q, %v, want %q", got, decoded, err, want)
		}
	})
}

// TestScannerTakesWhatJSONTakes is the other direction of FuzzScanner, over all
// short texts of some telling characters.
func TestScannerTakesWhatJSONTakes(t *testing.T) {
	alphabet := `[]{}",:1-.e0tn\u `
	var walk func(prefix []byte)
	walk = func(prefix []byte) {
		s := scannerOn(io.MultiReader(bytes.NewReader(prefix), strings.NewReader(" ")))
		got, err := s.capture()
		accepted := err == nil && len(bytes.TrimSpace(prefix)) == len(got)
		if want := json.Valid(prefix); accepted != want {
			t.Errorf("%q: accepted %v, by encoding/json %v (%v)", prefix, accepted, want, err)
		}
		if len(prefix) == 4 {
			return
		}
		for i := range len(alphabet) {
			walk(append(slices.Clip(prefix), alphabet[i]))
		}
	}
	walk(nil)
}
