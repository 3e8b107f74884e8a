package logical

import (
	"fmt"
	"net/netip"
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
			return fmt.Sprintf("error at %d: %v", err.(*SyntaxError).Pos, err)
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
	}
}
