package offload

import (
	"testing"

	"github.com/offloadd/offloadd/integration/scene"
)

// Everybody reaches whom the policy lets them, with filters and without.
func TestMatrix(t *testing.T) {
	r := rig(t)
	ask := func(how string) map[scene.Probe]bool {
		seen, err := r.Scene.Ask(t.Context(), r.Lab)
		check(t, err)
		for p, reached := range seen {
			if reached != r.Scene.Allowed(p) {
				t.Errorf("%s: %s, %s to %s: reached is %t, the policy says %t", how, p.Name+" "+family(p.V6), p.From, p.To, reached, !reached)
			}
		}
		return seen
	}
	before := count(t, r)
	with := ask("with filters")
	for node, c := range since(t, r, before) {
		var packets uint64
		for _, n := range c.TC {
			packets += n
		}
		t.Logf("%s: filters sent %d packets, Open vSwitch saw %d", node, packets, sum(c.OVS))
		if packets == 0 {
			t.Errorf("%s: filters sent nothing", node)
		}
	}
	check(t, r.SetFilters(t.Context(), false))
	defer func() { check(t, r.SetFilters(t.Context(), true)) }()
	for _, n := range r.Nodes {
		left, err := Filters(t.Context(), n)
		check(t, err)
		if len(left) > 0 {
			t.Errorf("%s: %d filters are left without %s", n.Name, len(left), software)
		}
	}
	without := ask("without filters")
	if len(with) != len(without) || len(with) < 100 {
		t.Errorf("%d probes with filters, %d without", len(with), len(without))
	}
	for p, reached := range with {
		if reached != without[p] {
			t.Errorf("%s, %s to %s: reached is %t with filters, %t without", p.Name+" "+family(p.V6), p.From, p.To, reached, without[p])
		}
	}
}

func sum(m map[string]uint64) (all uint64) {
	for _, n := range m {
		all += n
	}
	return all
}
