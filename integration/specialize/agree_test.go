package specialize

import (
	"math/rand/v2"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// filters lowers a program for the judge.
func filters(p *specialize.Program) Program {
	var out Program
	why := map[tc.Key]string{}
	for _, f := range p.Filters() {
		out.Filters = append(out.Filters, f.Filter)
		if f.Reason != specialize.NoReason {
			why[f.Key()] = f.Reason.String()
		}
	}
	out.Why = func(f *tc.Filter) string { return why[f.Key()] }
	return out
}

// What pkg/specialize makes of real programs forwards and drops packets as the rules do, and as the flows do, and leaves the others as
// they came. It decides a good part of what filters can decide.
func TestAgree(t *testing.T) {
	d := drawn(t, 1+rand.Uint64N(1<<32), *topologiesFlag)
	r := d.judge(t, "specialised", func(b *Bench) Program {
		rules, in := b.Topology.Specialize()
		return filters(rules.Specialize(in))
	})
	report(t, "specialised", r)
	if *packetFlag < 0 && *topologyFlag == "" && (r.Forwarded == 0 || r.Dropped == 0 || r.Tunnelled == 0) {
		t.Errorf("nothing is decided: %v", r)
	}
}

// So it does for a NIC that needs more keys in filters, and has them all.
func TestAgreeMLX5(t *testing.T) {
	d := drawn(t, 1+rand.Uint64N(1<<32), min(*topologiesFlag, 8))
	r := d.judge(t, "for mlx5", func(b *Bench) Program {
		rules, in := b.Topology.Specialize()
		in.Caps = specialize.Caps{TunnelKeysInEveryChain: true, WholeLabel: true, NoFrag: true}
		p := rules.Specialize(in)
		for _, s := range p.States {
			for i := range s.Rules {
				if _, asks := s.Rules[i].Match.Term(ir.TunSrc); s.Tunnelled && !asks {
					t.Errorf("chain %d: a rule for %v does not ask for the tunnel", s.Chain, s.Rules[i].Match)
				}
			}
		}
		out := filters(p)
		out.Hardware = func(*tc.Filter) bool { return true }
		return out
	})
	report(t, "for mlx5", r)
	if *packetFlag < 0 && *topologyFlag == "" && (r.Hardware == 0 || r.Tunnelled == 0) {
		t.Errorf("nothing is decided: %v", r)
	}
}
