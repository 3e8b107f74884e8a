package specialize

import (
	"math/rand/v2"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
)

// draws calls f with sources of random numbers, the same each time, and says which one it was if f fails.
func draws(t *testing.T, n int, f func(t *testing.T, r *rand.Rand)) {
	t.Helper()
	for seed := range uint64(n) {
		f(t, rand.New(rand.NewPCG(seed, 0)))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// states draws states that lead to each other, without a circle, in no particular order.
func states(r *rand.Rand) *Program {
	all := make([]*State, 1+r.IntN(40))
	for i := len(all) - 1; i >= 0; i-- {
		s := &State{ID: r.Uint64(), EtherType: etherTypeIPv4, Tracked: r.IntN(4) > 0, Zone: uint16(1 + r.IntN(5))}
		if r.IntN(3) == 0 {
			s.EtherType = etherTypeIPv6
		}
		all[i] = s
		for range r.IntN(4) {
			if later := all[i+1:]; len(later) > 0 {
				to := later[r.IntN(min(len(later), 6))]
				s.Rules = append(s.Rules, Leaf{Match: ir.Match{}.Eq(ir.IPProto, r.Uint64N(256)), Verdict: Goto{to}})
			}
		}
	}
	p := &Program{Entries: []*Entry{{}}}
	for range 1 + r.IntN(5) {
		p.Entries[0].Rules = append(p.Entries[0].Rules, Leaf{Verdict: Goto{all[r.IntN(len(all))]}})
	}
	return p
}

// Two states share a chain only if no packet can be in both. Chains lead to those with larger numbers, in as few steps as the
// states do.
func TestNumber(t *testing.T) {
	draws(t, 2000, func(t *testing.T, r *rand.Rand) {
		p := states(r)
		p.collect()
		p.number()
		type place struct {
			etherType uint16
			zone      uint16
		}
		chains := map[uint32]map[place]*State{}
		gotos := map[uint32]map[uint32]bool{0: {}}
		lead := func(from uint32, rules []Leaf) {
			for i := range rules {
				s := next(rules[i].Verdict)
				gotos[from][s.Chain] = true
				if s.Chain <= from {
					t.Errorf("chain %#x leads to chain %#x", from, s.Chain)
				}
			}
		}
		lead(0, p.Entries[0].Rules)
		for _, s := range p.States {
			c := chains[s.Chain]
			if c == nil {
				c = map[place]*State{}
				chains[s.Chain], gotos[s.Chain] = c, map[uint32]bool{}
			}
			here := place{s.EtherType, s.Zone}
			for other := range c {
				if !s.Tracked || !c[other].Tracked || other == here || other.etherType != s.EtherType {
					t.Errorf("two states in chain %#x: %+v, %+v", s.Chain, s, c[other])
				}
			}
			c[here] = s
		}
		for _, s := range p.States {
			lead(s.Chain, s.Rules)
		}
		var height func(s *State) int
		height = func(s *State) (n int) {
			for i := range s.Rules {
				n = max(n, 1+height(next(s.Rules[i].Verdict)))
			}
			return n
		}
		var below func(chain uint32) int
		below = func(chain uint32) (n int) {
			for to := range gotos[chain] {
				n = max(n, 1+below(to))
			}
			return n
		}
		want := 0
		for i := range p.Entries[0].Rules {
			want = max(want, 1+height(next(p.Entries[0].Rules[i].Verdict)))
		}
		if got := below(0); got != want {
			t.Errorf("a packet can pass %d chains, and %d states", got, want)
		}
	})
}
