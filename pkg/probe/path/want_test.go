package path

import (
	"strings"
	"testing"
	"time"
)

func TestParseWant(t *testing.T) {
	for _, c := range []struct {
		text string
		want Want
		err  string
	}{
		{text: "metal", want: Want{Kind: "metal"}},
		{text: "routed,rules=200,delay=5ms,jitter=1ms,loss=0.01,mtu=9000", want: Want{
			Kind: "routed", Rules: 200, Delay: 5 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.01, MTU: 9000,
		}},
		{text: "veth,twin,name=x", want: Want{Kind: "veth", Twin: true, Name: "x"}},
		{text: "", err: "none of that name"},
		{text: "carrier-pigeon", err: "none of that name"},
		{text: "metal,", err: "no option of that name"},
		{text: "metal,colour=red", err: "no option of that name"},
		{text: "metal,delay=fast", err: "invalid duration"},
		{text: "metal,rules=1", err: "the kind has no option rules"},
		{text: "bridge,delay=1ms", err: "the kind has no option delay"},
		{text: "host,mtu=1500", err: "the kind has no option mtu"},
		{text: "metal,mtu=100", err: "MTU"},
		{text: "metal,delay=1h", err: "delay"},
		{text: "metal,jitter=1ms", err: "jitter"},
		{text: "metal,loss=1", err: "loss"},
		{text: "metal,loss=NaN", err: "loss"},
		{text: "routed,rules=-1", err: "rules"},
	} {
		got, err := ParseWant(c.text)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("ParseWant(%q) = %v, want an error with %q", c.text, err, c.err)
			}
		case err != nil || got != c.want:
			t.Errorf("ParseWant(%q) = %+v, %v, want %+v", c.text, got, err, c.want)
		default:
			again := got
			again.Name, again.Twin = "", false
			if back, err := ParseWant(got.String()); err != nil || back != again {
				t.Errorf("ParseWant(%q) = %+v, %v, want %+v", got.String(), back, err, again)
			}
		}
	}
}

func TestNamesClash(t *testing.T) {
	for _, kinds := range [][]Want{
		{{Kind: "metal"}, {Kind: "metal"}},
		{{Kind: "metal", Twin: true}, {Kind: "veth", Name: "metal-twin"}},
	} {
		if _, _, err := Build(t.Context(), Options{Kinds: kinds}); err == nil || !strings.Contains(err.Error(), "two of that name") {
			t.Errorf("Build(%v): %v, want that names clash", kinds, err)
		}
	}
}

// Each kind says what it is.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if k.Name == "" || seen[k.Name] || k.Passes == "" || len(k.Stands) == 0 || k.build == nil {
			t.Errorf("kind %+v", k)
		}
		seen[k.Name] = true
	}
}
