package specialize

import (
	"encoding/binary"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// The prefs of what probes add to a chain: behind the guards, and before all rules.
const (
	PrefProbe    = 20
	PrefProbeEnd = prefRules - 1
)

// Narrowed returns a copy of f for those packets alone that match m, at a pref of its own: what f would do with them it does, and counts them. flow says
// whose packets they are, see ProbeFlow. It reports false if f matches none of them.
func (f *Filter) Narrowed(m ir.Match, etherType, pref uint16, flow uint32) (Filter, bool) {
	if f.Protocol != etherType && f.Protocol != tc.ProtocolAll {
		return Filter{}, false
	}
	both, ok := f.Match.And(m)
	if !ok {
		return Filter{}, false
	}
	g := *f
	g.Protocol, g.Match, g.Pref, g.Kind, g.Cookie = etherType, both, pref, KindProbe, probeCookie(flow)
	return g, true
}

// Punting returns the filter that leaves packets of a device to Open vSwitch, of hardware and of software, and counts them.
func Punting(indev string, tunnelled bool, m ir.Match, etherType, pref uint16, flow uint32) Filter {
	f := Filter{Kind: KindProbe, Reason: Probed, Filter: tc.Filter{
		Pref: pref, Protocol: etherType, Indev: indev, Match: m, Actions: []tc.Action{tc.Pass{}}, Cookie: probeCookie(flow),
	}}
	if tunnelled {
		f.EncDstPort = geneveUDPPort
	}
	return f
}

// probeCookie says no row: a filter that does the same as before must not be made anew, and lose what it has counted.
func probeCookie(flow uint32) tc.Cookie {
	return cookie(KindProbe, uint64(flow), nil)
}

// ProbeFlow returns whose packets a filter counts, and whether it is a probe's.
func ProbeFlow(c tc.Cookie) (flow uint32, ok bool) {
	if KindOf(c) != KindProbe {
		return 0, false
	}
	return binary.BigEndian.Uint32(c[8:]), true
}
