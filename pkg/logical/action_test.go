package logical

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/internal/golden"
)

// testOptions returns the options for actions in the given stage, with a few DHCP options defined.
func testOptions(at Stage) ActionOptions {
	return ActionOptions{
		At:     at,
		Tables: 29,
		DHCPv4: map[string]OptionDef{
			"offerip":                {0, "ipv4"},
			"netmask":                {1, "ipv4"},
			"router":                 {3, "ipv4"},
			"hostname":               {12, "str"},
			"ip_forward_enable":      {19, "bool"},
			"mtu":                    {26, "uint16"},
			"tftp_server":            {66, "host_id"},
			"domain_search_list":     {119, "domains"},
			"classless_static_route": {121, "static_routes"},
		},
		DHCPv6: map[string]OptionDef{
			"server_id":     {2, "mac"},
			"ia_addr":       {5, "ipv6"},
			"dns_server":    {23, "ipv6"},
			"domain_search": {24, "str"},
		},
	}
}

// cutStage cuts "[egress 3] " from the front of text.
func cutStage(t *testing.T, text string) (Stage, string) {
	at := Stage{Ingress, 10}
	inner, ok := strings.CutPrefix(text, "[")
	if !ok {
		return at, text
	}
	head, rest, _ := strings.Cut(inner, "] ")
	var pipeline string
	if _, err := fmt.Sscanf(head, "%s %d", &pipeline, &at.Table); err != nil {
		t.Fatalf("bad stage in %q: %v", text, err)
	}
	if pipeline == "egress" {
		at.Pipeline = Egress
	}
	return at, rest
}

func TestParseActions(t *testing.T) {
	golden.Run(t, "testdata/actions.txt", func(in string) string {
		at, text := cutStage(t, in)
		opts := testOptions(at)
		acts, err := ParseActions(text, Symbols(), opts)
		if err != nil {
			syntax, ok := errors.AsType[*SyntaxError](err)
			if !ok {
				t.Fatalf("%s: error %#v", in, err)
			}
			return fmt.Sprintf("error at %d: %v", syntax.Pos, err)
		}
		checkRoundTrip(t, acts, opts)
		out := []string{acts.String()}
		for _, list := range []struct {
			name  string
			words []string
		}{{"require", acts.Prereqs}, {"ports", acts.Ports()}, {"meters", acts.Meters()}} {
			if len(list.words) > 0 {
				out = append(out, list.name+": "+strings.Join(list.words, "; "))
			}
		}
		return strings.Join(out, "\n")
	})
}

// checkRoundTrip checks that the canonical text means the same.
func checkRoundTrip(t *testing.T, acts Actions, opts ActionOptions) {
	t.Helper()
	text := acts.String()
	again, err := ParseActions(text, Symbols(), opts)
	if err != nil {
		t.Errorf("%s: canonical text does not parse: %v", text, err)
		return
	}
	if diff := cmp.Diff(acts, again, cmpOptions()...); diff != "" {
		t.Errorf("%s: means something else when parsed again (-was +is):\n%s", text, diff)
	}
}

// cmpOptions compares symbols by identity and the empty lists of a nested "drop;" as equal.
func cmpOptions() []cmp.Option {
	return []cmp.Option{
		cmp.Comparer(func(a, b *Symbol) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b Constant) bool { return decimalZero(a) == decimalZero(b) }),
	}
}

// decimalZero makes a hexadecimal zero decimal: both have the text "0".
func decimalZero(c Constant) Constant {
	if c.Value.IsZero() && c.Format == FormatHex {
		c.Format = FormatDecimal
	}
	return c
}

// FuzzParseActions checks that no text makes the parser panic, and that the canonical text of what it understands
// means the same.
func FuzzParseActions(f *testing.F) {
	text, err := os.ReadFile("testdata/actions.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != '[' {
			f.Add(line, false, uint8(10))
		}
	}
	f.Fuzz(func(t *testing.T, text string, egress bool, table uint8) {
		at := Stage{Ingress, table}
		if egress {
			at.Pipeline = Egress
		}
		opts := testOptions(at)
		acts, err := ParseActions(text, Symbols(), opts)
		if err != nil {
			if syntax, ok := errors.AsType[*SyntaxError](err); !ok || syntax.Pos < 0 || syntax.Pos > len(text) {
				t.Errorf("%q: error %#v", text, err)
			}
			return
		}
		checkRoundTrip(t, acts, opts)
	})
}

func TestNestingIsBounded(t *testing.T) {
	nest := func(n int) string { return strings.Repeat("clone { ", n) + "output;" + strings.Repeat(" };", n) }
	if _, err := ParseActions(nest(31), Symbols(), testOptions(Stage{})); err != nil {
		t.Errorf("31 levels: %v, want none", err)
	}
	for _, n := range []int{32, 100000} {
		_, err := ParseActions(nest(n), Symbols(), testOptions(Stage{}))
		if err == nil || err.Error() != "maximum depth of nested actions reached" {
			t.Errorf("%d levels: %v", n, err)
		}
	}
}
