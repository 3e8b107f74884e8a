package result

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDeltaJSON(t *testing.T) {
	for _, test := range []struct {
		d    Delta
		want string
	}{
		{0, "0"}, {-70.25, "-70.25"}, {1e21, "1e+21"}, {Delta(math.Inf(1)), `"+inf"`}, {Delta(math.Inf(-1)), `"-inf"`},
	} {
		text, err := json.Marshal(test.d)
		if err != nil || string(text) != test.want {
			t.Errorf("Marshal(%v) = %s, %v, want %s", test.d, text, err, test.want)
		}
		var back Delta
		if err := json.Unmarshal(text, &back); err != nil || back != test.d {
			t.Errorf("Unmarshal(%s) = %v, %v, want %v", text, back, err, test.d)
		}
	}
	if text, err := json.Marshal(Delta(math.NaN())); err == nil {
		t.Errorf("Marshal(NaN) = %s", text)
	}
	for _, text := range []string{`"NaN"`, `"fast"`, `true`, `[1]`} {
		var d Delta
		if err := json.Unmarshal([]byte(text), &d); err == nil {
			t.Errorf("Unmarshal(%s) = %v", text, d)
		}
	}
}

func TestLoadString(t *testing.T) {
	for _, test := range []struct {
		load Load
		want string
	}{
		{Load{Mode: RR, Transport: "udp", Size: 64}, "udp rr 64 B"},
		{Load{Mode: RR, Transport: "tcp", Size: 1, Answer: 1}, "tcp rr 1 B"},
		{Load{Mode: Open, Transport: "tcp", Size: 64, Answer: 350, Rate: 50000, Duration: time.Second}, "tcp open 64/350 B at 50000/s"},
		{Load{Mode: Stream, Transport: "tcp", Size: 1400}, "tcp stream 1400 B"},
	} {
		if got := test.load.String(); got != test.want {
			t.Errorf("%+v is %q, want %q", test.load, got, test.want)
		}
	}
}

// Every field of a Run has a name in JSON, in small letters: what is written now has to be read later.
func TestNames(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Array || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() || seen[typ] {
			return
		}
		seen[typ] = true
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name != strings.ToLower(name) {
				t.Errorf("%s.%s is %q in JSON", typ, f.Name, name)
			}
			if f.Type == reflect.TypeFor[time.Duration]() != strings.HasSuffix(name, "_ns") {
				t.Errorf("%s.%s is %q in JSON: _ns is for durations, and for all of them", typ, f.Name, name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[Run]())
	if len(seen) < 12 {
		t.Errorf("only %d types seen", len(seen))
	}
}
