package specialize

import (
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/tc"
)

var (
	seedFlag       = flag.Uint64("specialize.seed", 0, "what is drawn follows from it; 0: the test chooses")
	topologiesFlag = flag.Int("specialize.topologies", 24, "number of random topologies")
	packetsFlag    = flag.Int("specialize.packets", 400, "number of packets at each topology")
	topologyFlag   = flag.String("specialize.topology", "", "only this topology: a name of topology.Names, or the seed of a random one")
	packetFlag     = flag.Int64("specialize.packet", -1, "only the packet of this number")
)

// A draw is what a test judges with.
type draw struct {
	benches []*Bench
	first   uint64 // number of the first packet
	packets int
}

// drawn makes the topologies of the flags: those made for this purpose, and random ones.
func drawn(t *testing.T, seed uint64, random int) draw {
	t.Helper()
	if *seedFlag != 0 {
		seed = *seedFlag
	}
	t.Logf("-specialize.seed=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	d := draw{first: r.Uint64N(1<<40) * variants, packets: *packetsFlag}
	if *packetFlag >= 0 {
		d.first, d.packets = uint64(*packetFlag), 1
	}
	names := slices.DeleteFunc(topology.Names(), func(n string) bool { return !strings.HasPrefix(n, "spec-") })
	for range random {
		names = append(names, strconv.FormatUint(r.Uint64N(1<<20), 10))
	}
	if *topologyFlag != "" {
		names = []string{*topologyFlag}
	}
	for _, name := range names {
		top, err := topology.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := NewBench(top)
		if err != nil {
			t.Fatal(err)
		}
		if b.Quiet() {
			continue
		}
		d.benches = append(d.benches, b)
		if *packetFlag >= 0 {
			t.Log(b.Explain(d.first))
		}
	}
	return d
}

// judge judges filters at all benches. They must be such as the kernel takes and understands.
func (d draw) judge(t *testing.T, what string, specialise func(*Bench) Program) Report {
	t.Helper()
	var all Report
	for _, b := range d.benches {
		p := specialise(b)
		if err := tc.Check(p.Filters); err != nil {
			t.Errorf("%s at %s: %v", what, b.Topology.Name, err)
		}
		all.Add(b.Judge(p, d.first, d.packets))
	}
	t.Logf("%s, %d topologies, %v", what, len(d.benches), all)
	return all
}

// Filters that pass everything are right, whichever way they do it; ones that have seen the packets before are right and decide. The
// flows do what the rules do.
func TestRightFilters(t *testing.T) {
	d := drawn(t, 1+rand.Uint64N(1<<32), *topologiesFlag)
	for name, p := range map[string]Program{
		"no filters": {},
		"pass":       {Filters: []tc.Filter{{Pref: 1, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Pass{}}}}},
	} {
		r := d.judge(t, name, func(*Bench) Program { return p })
		if r.Forwarded+r.Dropped > 0 {
			t.Errorf("%s: decided something", name)
		}
		report(t, name, r)
	}
	r := d.judge(t, "exact", func(b *Bench) Program { return exact(b, d.first, d.packets) })
	report(t, "exact", r)
	if *packetFlag < 0 && *topologyFlag == "" && (r.Forwarded == 0 || r.Dropped == 0 || r.Tunnelled == 0 || r.Passed == 0) {
		t.Errorf("exact filters do not decide: %v", r)
	}
}

func report(t *testing.T, name string, r Report) {
	t.Helper()
	for _, w := range r.Wrong {
		t.Errorf("%s: %v", name, w)
	}
}

// Filters that are wrong are told from those that are right. Some mistakes show with few packets only, so these are always the same.
func TestWrongFilters(t *testing.T) {
	d := drawn(t, 1, 0)
	names := append(slices.Sorted(maps.Keys(mutants)), slices.Sorted(maps.Keys(wrong))...)
	caught := map[string]int{}
	for _, b := range d.benches {
		right := exact(b, d.first, d.packets)
		var programs []Program
		for _, name := range names {
			if mutation := mutants[name]; mutation != nil {
				programs = append(programs, mutated(right, b.Topology, mutation))
			} else {
				programs = append(programs, wrong[name](b.Topology))
			}
		}
		for i, r := range b.JudgeAll(programs, d.first, d.packets) {
			caught[names[i]] += r.WrongTotal
		}
	}
	for _, name := range names {
		if caught[name] == 0 {
			t.Errorf("%s: not noticed", name)
		}
		t.Logf("%5d packets: %s", caught[name], name)
	}
}

// wrong are programs that are wrong from the beginning.
var wrong = map[string]func(*topology.Topology) Program{
	"everything is dropped": func(*topology.Topology) Program {
		return Program{Filters: []tc.Filter{{Pref: 1, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Drop{}}}}}
	},
	"everything goes to one port": func(t *topology.Topology) Program {
		return Program{Filters: []tc.Filter{{Pref: 1, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Mirred{Ifindex: t.TunnelDevice.Ifindex}}}}}
	},
	"hardware does not know of a pass": func(*topology.Topology) Program {
		return Program{
			Filters: []tc.Filter{
				{Pref: 1, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Pass{}}},
				{Pref: 2, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Drop{}}},
			},
			Hardware: func(f *tc.Filter) bool { return f.Pref == 2 },
		}
	},
}
