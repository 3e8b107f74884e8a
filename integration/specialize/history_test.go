package specialize

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/specialize"
)

// What is made after a change, out of what is known from before, does with packets what is made from nothing. When all changes are taken
// back it does what the rules do.
func TestHistory(t *testing.T) {
	seed := 1 + rand.Uint64N(1<<32)
	d := drawn(t, seed, min(*topologiesFlag, 6))
	if *seedFlag != 0 {
		seed = *seedFlag
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	const steps, packets = 8, 100
	differ, decided := 0, 0
	for _, b := range d.benches {
		h := newHistory(b.Topology)
		_ = h.rules.Specialize(h.all)
		for step := range steps {
			for range 1 + rnd.IntN(3) {
				h.change(rnd)
			}
			now := eval.NewBlock(filters(h.rules.Specialize(h.in())).Filters)
			fresh := eval.NewBlock(filters(h.anew().Specialize(h.in())).Filters)
			for range packets {
				number := rnd.Uint64N(1<<20) * variants
				a, track := b.packet(number)
				v, w := now.Run(a.packet, a.from, track), fresh.Run(a.packet, a.from, track)
				if w.Kind != eval.Passed {
					decided++
				}
				same := v.Kind == w.Kind && v.Ifindex == w.Ifindex && v.Packet == w.Packet && reflect.DeepEqual(v.Tunnel, w.Tunnel)
				switch {
				case same:
				case v.Kind == eval.Passed && v.Pristine, w.Kind == eval.Passed && w.Pristine:
					differ++ // chains that are cut elsewhere may end elsewhere
				default:
					t.Errorf("%s, step %d, packet %d: %v now, %v made from nothing", b.Topology.Name, step, number, v, w)
				}
			}
		}
		h.restore()
		report(t, "after changes", b.Judge(filters(h.rules.Specialize(h.in())), d.first, d.packets/2))
	}
	t.Logf("%d packets decided, %d decided on one side only", decided, differ)
	if differ*50 > decided {
		t.Errorf("%d of %d packets are decided on one side only", differ, decided)
	}
}

// A history is a program that changes.
type history struct {
	topology *topology.Topology
	rules    *specialize.Rules
	all      specialize.Input
	without  map[int]bool // owners whose rules are gone
	ports    map[uint16]int
}

func newHistory(t *topology.Topology) *history {
	h := &history{topology: t, without: map[int]bool{}, ports: map[uint16]int{}}
	h.rules, h.all = t.Specialize()
	return h
}

func (h *history) change(rnd *rand.Rand) {
	if rnd.IntN(3) == 0 && len(h.all.Ports) > 0 {
		h.ports[h.all.Ports[rnd.IntN(len(h.all.Ports))].OFPort] = rnd.IntN(4)
		return
	}
	if len(h.topology.Owned) == 0 {
		return
	}
	i := rnd.IntN(len(h.topology.Owned))
	o := h.topology.Owned[i]
	if h.without[i] = !h.without[i]; h.without[i] {
		h.rules.Replace(specialize.Owner(o.Owner), nil)
	} else {
		h.rules.Replace(specialize.Owner(o.Owner), o.Rules)
	}
}

// in is the input as the ports are now: there, gone, with another device, or one that packets are only sent to.
func (h *history) in() specialize.Input {
	in := h.all
	in.Ports = slices.Clone(in.Ports)
	for i := range in.Ports {
		switch p := &in.Ports[i]; h.ports[p.OFPort] {
		case 1:
			p.OFPort = 0
		case 2:
			p.Device.Ifindex += 1000
		case 3:
			p.Enter = false
		}
	}
	in.Ports = slices.DeleteFunc(in.Ports, func(p specialize.Port) bool { return p.OFPort == 0 })
	return in
}

// anew returns the rules as if they had not changed.
func (h *history) anew() *specialize.Rules {
	rules := specialize.NewRules()
	for i, o := range h.topology.Owned {
		if !h.without[i] {
			rules.Replace(specialize.Owner(o.Owner), o.Rules)
		}
	}
	return rules
}

func (h *history) restore() {
	clear(h.ports)
	for i, o := range h.topology.Owned {
		if h.without[i] {
			h.rules.Replace(specialize.Owner(o.Owner), o.Rules)
		}
	}
	clear(h.without)
}
