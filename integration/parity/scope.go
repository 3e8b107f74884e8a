package parity

import (
	"regexp"
	"strings"
)

// A Verb is a logical action that the agent parses but does not encode into OpenFlow, with the reason.
type Verb struct{ Name, Reason string }

// OutOfScope is the whole list of what may be missing from our bridge. A flow of the other agent that is
// missing from ours is forgiven, and counted, only if a logical flow it comes from uses one of these verbs.
// An entry leaves this list in the commit that encodes the action; TestParity finds the ones that stayed.
//
// Not in it, because no logical flow makes them: the flows of load balancers of switches in tables 68 to 70, for packets
// that are balanced to their sender. Contents with such load balancers are among those of content.Beyond.
func OutOfScope() []Verb {
	const (
		reply = "answered by a packet-in program of its own"
		learn = "needs the packet-in program that writes the Southbound"
	)
	return []Verb{
		{"put_dhcp_opts", reply},
		{"put_dhcpv6_opts", reply},
		{"put_nd_ra_opts", reply},
		{"dns_lookup", reply},
		{"arp", reply},
		{"nd_ns", reply},
		{"put_arp", learn},
		{"put_nd", learn},
		{"put_fdb", learn},
		{"igmp", learn},
		{"bind_vport", learn},
		{"handle_svc_check", learn},
		{"handle_dhcpv6_reply", learn},
		{"handle_bfd_msg", learn},
		{"trigger_event", learn},
	}
}

// A Deviation is a kind of match or of actions that the agent deliberately translates in another way than ovn-controller.
type Deviation struct {
	Name, Reason string
	Match        *regexp.Regexp // finds it in a logical flow's match, unless it is nil
	Actions      *regexp.Regexp // finds it in its actions, unless it is nil
}

// Deviations is the whole list. A difference between flows of a logical flow with such a match or actions is counted, and
// forgiven.
//
// The first two have one cause: ovn-controller 23.03 hands a test with a mask to Open vSwitch even if the field
// cannot be masked, and there mf_set (lib/meta-flow.c) leaves the test out. The flow then matches too much.
func Deviations() []Deviation {
	return []Deviation{
		{
			Name: "ip.dscp", Reason: "the six bits are a mask of an octet that cannot be masked, so ovn-controller matches every DSCP",
			Match: regexp.MustCompile(`\bip\.dscp\b`),
		},
		{
			Name: "negated fragment", Reason: "the negation reaches ip, becomes single bits of eth.type, and ovn-controller matches every packet",
			Match: regexp.MustCompile(`!\s*ip\.(is_frag|first_frag|later_frag)\b`),
		},
		{
			Name: "late commit", Reason: "ovn-controller 23.03 hides a ct_commit that is not the first action in the one that is (encode_CT_COMMIT_V2), " +
				"so that an ACL that logs and rejects does not block an established connection",
			Actions: regexp.MustCompile(`[;}]\s*ct_commit\s*[;({]`),
		},
	}
}

// deviationIn returns the name of the first of list that the match or the actions have, or "".
func deviationIn(match, actions string, list []Deviation) string {
	for _, d := range list {
		if d.Match != nil && d.Match.MatchString(match) || d.Actions != nil && d.Actions.MatchString(actions) {
			return d.Name
		}
	}
	return ""
}

var (
	reQuoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	reVerb   = regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_]*)\s*[({;]`)
)

// verbIn returns the first of verbs that actions, in the notation of ovn-sb(5), uses, or "".
func verbIn(actions string, verbs []Verb) string {
	used := make(map[string]bool)
	for _, m := range reVerb.FindAllStringSubmatch(reQuoted.ReplaceAllString(actions, `""`), -1) {
		used[m[1]] = true
	}
	for _, v := range verbs {
		if used[v.Name] {
			return v.Name
		}
	}
	return ""
}

// An Lflow is what a report needs of a row of Logical_Flow.
type Lflow struct {
	UUID           string
	Stage          string // stage-name of external_ids, as ls_in_acl
	Pipeline       string // ingress or egress
	Table          int    // logical, 0 to 32
	Priority       int
	Match, Actions string
}

// Cookie is the first 32 bits of the row's UUID, which the flows made from it carry.
func (l Lflow) Cookie() string {
	prefix, _, _ := strings.Cut(l.UUID, "-")
	return prefix
}

// interchangeable says that it is arbitrary which of two logical flows a common flow is attributed to.
func interchangeable(a, b Lflow) bool {
	return a.Pipeline == b.Pipeline && a.Table == b.Table && a.Priority == b.Priority && a.Actions == b.Actions
}
