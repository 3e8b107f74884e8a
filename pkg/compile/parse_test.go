package compile

import (
	"fmt"
	"testing"
)

// unlikeOVNController are the inputs of the parser's golden file that ovn-controller 23.03.1 does not refuse, or
// refuses with another message, and why.
var unlikeOVNController = map[string]string{
	"reg0 = ^variable;": "it expands template variables before it parses",
	"^variable;":        "it expands template variables before it parses",

	"icmp4.frag_mtu = reg0[0..15];":                                         "it takes what it cannot encode",
	"ct_commit(ct_mark=0x100000000);":                                       "it drops bits of a number that is too wide",
	"reg9[1] = check_pkt_larger(65536);":                                    "it drops bits of a number that is too wide",
	"ct_dnat(192.0.2.1, 65536);":                                            "it drops bits of a number that is too wide",
	"sample(probability=10,collector_set=a);":                               "it takes any word for 0",
	`commit_lb_aff(vip = "fe80::1%lo", backend = "fe80::2", timeout = 20);`: "it asks the kernel for interface lo",

	"mac_cache_use; next;": "it does not know it before 23.09",
	"mac_cache_use();":     "it does not know it before 23.09",

	"[ingress 29] ct_commit_nat;":        "it says ct_commit_related",
	`trigger_event(event = "nosuch");`:   "it says -1",
	"ct_lb(backends=192.0.2.2:80; foo);": "it says that ; is missing",
	"reg9[1] = check_pkt_larger();":      "it says that ; is missing",
	"set_queue(a);":                      "it says that ; is missing",
	"fwd_group();":                       "it says that ; is missing",
	`fwd_group(foo="lp1");`:              "it says that ; is missing",
	"set_meter();":                       "it says that ) is missing",
	"set_meter(100, );":                  "it says that ) is missing",
	`commit_lb_aff(vip = "192.0.2.1:80", backend = "[2001:db8::2]:8080", proto = tcp, timeout = 20);`: "it points at the backend",
}

// TestParseActionsAsOVNController checks that ovn-controller(8) takes and refuses the same actions as the parser, with
// the same messages.
func TestParseActionsAsOVNController(t *testing.T) {
	in := inputs(t, "../logical/testdata/actions.txt")
	flows := make([]oracleFlow, len(in))
	texts := make([]string, len(in))
	for i, text := range in {
		flows[i] = parseInput(t, text)
		flows[i].match = "0" // so that actions that the switch would refuse do no harm
		flows[i].actions = fmt.Sprintf("/* %d */ %s", i, flows[i].actions)
		texts[i] = flows[i].actions
	}
	c := startOVNController(t)
	c.add(1, flows)
	refusals := c.refusals(texts...)
	for i, f := range flows {
		want := refusals[f.actions]
		got := ""
		if _, err := f.parse(); err != nil {
			got = err.Error()
		}
		why, unlike := unlikeOVNController[in[i]]
		switch {
		case unlike && got == want:
			t.Errorf("%s: error %q, like ovn-controller, though %s", in[i], got, why)
		case !unlike && got != want:
			t.Errorf("%s: error %q; ovn-controller: %q", in[i], got, want)
		}
	}
}
