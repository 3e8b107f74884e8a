package specialize

import (
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// Whatever filters a NIC does not take: without those that they shadow it does with packets what software does.
func TestShadowed(t *testing.T) {
	d := drawn(t, 1+rand.Uint64N(1<<32), min(*topologiesFlag, 4))
	seed := maphash.MakeSeed() // the same packets fail with other seeds, too: which filters are refused matters little
	asks := func(fields ...ir.Field) func(*tc.Filter) bool {
		return func(f *tc.Filter) bool {
			return slices.ContainsFunc(f.Match, func(t ir.Term) bool { return slices.Contains(fields, t.Field) })
		}
	}
	does := func(is func(tc.Action) bool) func(*tc.Filter) bool {
		return func(f *tc.Filter) bool { return slices.ContainsFunc(f.Actions, is) }
	}
	refusals := map[string]func(*tc.Filter) bool{
		"some":         func(f *tc.Filter) bool { return maphash.Comparable(seed, f.Key())%8 == 0 },
		"most":         func(f *tc.Filter) bool { return maphash.Comparable(seed, f.Key())%4 != 0 },
		"fragments":    asks(ir.IPFrag),
		"TTL":          asks(ir.IPTTL),
		"ICMP":         asks(ir.ICMPType, ir.ICMPv6Type),
		"options":      asks(ir.TunMetadata0),
		"drops":        does(func(a tc.Action) bool { return a == tc.Action(tc.Drop{}) }),
		"passes":       does(func(a tc.Action) bool { return a == tc.Action(tc.Pass{}) }),
		"lookups":      does(func(a tc.Action) bool { ct, is := a.(tc.CT); return is && !ct.Clear }),
		"edits":        does(func(a tc.Action) bool { _, is := a.(tc.Pedit); return is }),
		"tunnels":      does(func(a tc.Action) bool { _, is := a.(tc.TunnelSet); return is }),
		"redirections": does(func(a tc.Action) bool { _, is := a.(tc.Mirred); return is }),
	}
	names := slices.Sorted(maps.Keys(refusals))
	shadowed := 0
	for _, b := range d.benches {
		rules, in := b.Topology.Specialize()
		made := filters(rules.Specialize(in))
		var programs []Program
		for _, name := range names {
			p, refuses := made, refusals[name]
			takes := func(f *tc.Filter) bool { return !refuses(f) }
			gone := map[tc.Key]bool{}
			for _, i := range apply.Shadowed(p.Filters, func(f *tc.Filter, _ bool) apply.Taken {
				if takes(f) {
					return apply.ByAll
				}
				return apply.ByNone
			}) {
				gone[p.Filters[i].Key()] = true
			}
			shadowed += len(gone)
			p.Hardware = func(f *tc.Filter) bool { return takes(f) && !gone[f.Key()] }
			programs = append(programs, p)
		}
		for i, r := range b.JudgeAll(programs, d.first, d.packets) {
			report(t, b.Topology.Name+" without "+names[i], r)
		}
	}
	if shadowed == 0 {
		t.Error("nothing was shadowed")
	}
}
