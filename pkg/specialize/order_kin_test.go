package specialize

import "testing"

// A port that a packet did not come by makes another state, but not another order: chains of others stay where they are.
func TestNumberWithAnotherPort(t *testing.T) {
	chains := func(notPorts ...uint16) (first, second uint32) {
		a, b := &State{Table: 10, Tracked: true, Zone: 5}, &State{Table: 11, Tracked: true, Zone: 5}
		for _, s := range []*State{a, b} {
			s.notPorts = notPorts
			s.kin, s.ID = s.identity()
		}
		p := &Program{States: []*State{a, b}}
		p.number()
		return a.Chain, b.Chain
	}
	first, second := chains()
	ids := map[bool]int{}
	for port := range uint16(64) {
		x, y := chains(port)
		if x != first || y != second {
			t.Errorf("with port %d the chains are %d and %d, without any %d and %d", port, x, y, first, second)
		}
		a, b := &State{Table: 10, Tracked: true, Zone: 5, notPorts: []uint16{port}}, &State{Table: 11, Tracked: true, Zone: 5, notPorts: []uint16{port}}
		_, idA := a.identity()
		_, idB := b.identity()
		ids[idA < idB]++
	}
	if len(ids) != 2 {
		t.Error("the identities are always in one order: the test says nothing")
	}
}
