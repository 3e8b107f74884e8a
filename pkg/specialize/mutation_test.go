package specialize_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rig "github.com/offloadd/offloadd/integration/specialize"
	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// mutationPackets are the packets at each topology that mutants are judged by, always the same.
const mutationPackets = 1200

// Mistakes of the specialiser are noticed by the packets that integration/specialize judges filters by; the specialiser
// without a mistake passes on the same packets.
func TestMutants(t *testing.T) {
	var names []string
	for _, name := range topology.Names() {
		if strings.HasPrefix(name, "spec-") {
			names = append(names, name)
		}
	}
	// Mutants are made anew at each topology until they are noticed: those that take longest come last.
	slices.SortStableFunc(names, func(a, b string) int { return strings.Index(a, "nat") - strings.Index(b, "nat") })
	right := []specialize.Mutant{
		{Name: "none"},
		{Name: "none, all in hardware", Hardware: func(*specialize.Filter) bool { return true }},
		{Name: "none, nothing in hardware", Hardware: func(*specialize.Filter) bool { return false }},
	}
	mutants := specialize.Mutants()
	noticed := map[string]string{}
	for _, name := range names {
		top, err := topology.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := rig.NewBench(top)
		if err != nil {
			t.Fatal(err)
		}
		rules, in := top.Specialize()
		var programs []rig.Program
		var judged []string
		for _, m := range slices.Concat(right, mutants) {
			if noticed[m.Name] == "" {
				judged = append(judged, m.Name)
				programs = append(programs, judgeable(m.Filters(rules, in), m.Hardware))
			}
		}
		for i, r := range b.JudgeAll(programs, 0, mutationPackets) {
			switch {
			case i < len(right):
				for _, w := range r.Wrong {
					t.Errorf("%s: %v", judged[i], w)
				}
			case r.WrongTotal > 0:
				noticed[judged[i]] = fmt.Sprintf("%d packets at %s: %s", r.WrongTotal, name, r.Wrong[0].What)
			}
		}
	}
	for _, m := range mutants {
		if noticed[m.Name] == "" {
			t.Errorf("%s: not noticed", m.Name)
			continue
		}
		t.Logf("%s: %s", m.Name, noticed[m.Name])
	}
}

// judgeable gives filters to the judge.
func judgeable(all []specialize.Filter, hardware func(*specialize.Filter) bool) rig.Program {
	out := rig.Program{}
	taken := map[tc.Key]bool{}
	for i := range all {
		out.Filters = append(out.Filters, all[i].Filter)
		taken[all[i].Key()] = hardware != nil && hardware(&all[i])
	}
	if hardware != nil {
		out.Hardware = func(f *tc.Filter) bool { return taken[f.Key()] }
	}
	return out
}
