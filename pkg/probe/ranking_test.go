package probe

import (
	"os"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// Two runs rank the kinds as the kernel's work for a packet does: the wire, macvlan that hands packets over, routing, Open vSwitch with conntrack, and then
// what puts a packet into another. Absolutes drift with the machine, so that a kind's p50 is taken as a multiple of the wire's in the same run.
func TestRanking(t *testing.T) {
	if os.Getenv("OFFLOADD_VM") == "" {
		t.Skip("it is about the guests' kernels, which have all of the kinds")
	}
	steps := [][]string{{"metal"}, {"macvlan"}, {"routed"}, {"ovs-ct"}, {"geneve", "ipip", "overlay-vxlan"}}
	var names []string
	for _, step := range steps {
		names = append(names, step...)
	}
	const runs = 2
	multiples := map[string][]float64{}
	for seed := range uint64(runs) {
		began := time.Now()
		text, err := New(Options{Wait: true}).Run(t.Context(), Spec{
			Paths: names, Loads: []result.Load{{Mode: result.RR, Transport: "udp", Size: 64}}, Sessions: 8, Count: 6000, Seed: seed + 1,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		run, err := report.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		if len(run.Missing) > 0 {
			t.Fatalf("missing: %+v", run.Missing)
		}
		var wire float64
		for _, c := range run.Cases { // the baseline is the first
			p50, ok := c.Latency.At(50)
			if !ok {
				t.Fatalf("%s has no median", c.Path)
			}
			if c.Path == run.Baseline {
				wire = float64(p50.Value)
			}
			multiple := 1.0
			if c.Against != nil {
				multiple += float64(c.Against.P50.Difference) / wire
			}
			multiples[c.Path] = append(multiples[c.Path], multiple)
			t.Logf("%-14s p50 %7.1f us, %.3f of the wire's", c.Path, float64(p50.Value)/1e3, multiple)
		}
		t.Logf("run %d took %v", seed+1, time.Since(began).Round(time.Second))
	}
	mean := func(name string) float64 { return (multiples[name][0] + multiples[name][1]) / runs }
	for _, name := range names {
		a, b := multiples[name][0], multiples[name][1]
		if spread := max(a, b)/min(a, b) - 1; spread > 0.1 {
			t.Errorf("%s is %.3f and %.3f of the wire in two runs: %.0f %% apart, want 10 at most", name, a, b, 100*spread)
		}
	}
	// Of neighbours in the order a guest on a busy machine cannot tell less than this, of the wire; tunnels are above all others.
	const resolution = 0.02
	for i, step := range steps[1:] {
		for _, slower := range step {
			for j, faster := range steps[:i+1] {
				slack := resolution
				if i+1 == len(steps)-1 || i+1-j > 1 {
					slack = 0
				}
				for _, f := range faster {
					if mean(slower) < mean(f)-slack {
						t.Errorf("%s, %.3f of the wire, is faster than %s, %.3f", slower, mean(slower), f, mean(f))
					}
				}
			}
		}
	}
}
