package report

import (
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

func TestStudies(t *testing.T) {
	golden.Run(t, "testdata/study.txt", func(input string) string {
		s, err := StudyOf(input)
		if err != nil {
			return err.Error()
		}
		loads := s.Loads
		switch s.Name {
		case "deitcher":
			loads = []result.Load{loads[0], loads[7]}
		case "k8s-compare": // a small machine cannot have its rates
			loads = []result.Load{loads[0], {Mode: result.Open, Transport: "tcp", Size: 100, Answer: 4096, Rate: 1000}}
		}
		run := func(wire result.Wire) *result.Run {
			return simulateWire(t, 41, 1000, loads, wire, nil)
		}
		if len(s.Circuits) == 0 {
			return s.Text(run(result.Wire{}))
		}
		return s.Text(run(s.Circuits[0].Wire()), run(s.Circuits[4].Wire()))
	})
}

// What a study takes can be built, and every system of its tables has a path among it.
func TestStudyKinds(t *testing.T) {
	known := map[string]bool{}
	for _, k := range path.Kinds() {
		known[k.Name] = true
	}
	systems := map[string][]system{"uva": uvaSystems, "macvlan-etun": etunSystems}
	for _, s := range deitcherSystems {
		systems["deitcher"] = append(systems["deitcher"], s.system)
	}
	for _, s := range k8sPublished {
		systems["k8s-compare"] = append(systems["k8s-compare"], s.system)
	}
	for _, s := range Studies() {
		if len(s.Loads) == 0 || len(s.Conditions) < 2 || len(systems[s.Name]) == 0 {
			t.Errorf("%s: %d loads, %d conditions, %d systems", s.Name, len(s.Loads), len(s.Conditions), len(systems[s.Name]))
		}
		for _, k := range s.Kinds {
			if !known[k] {
				t.Errorf("%s takes %s, which is no kind", s.Name, k)
			}
		}
		for _, sys := range systems[s.Name] {
			if !slices.ContainsFunc(sys.kinds, func(k string) bool { return slices.Contains(s.Kinds, k) }) {
				t.Errorf("%s: nothing that it takes stands for %s", s.Name, sys.name)
			}
		}
	}
	if len(etunPublished) != len(studies[3].Loads) || len(uvaPublished) != len(studies[2].Circuits) {
		t.Error("tables of published numbers are not as long as what they are of")
	}
	// Round trips beside a stream are not those of a study.
	plain := result.Load{Mode: result.RR, Transport: "udp", Size: 64}
	under := plain
	under.Under = 0.3
	if alike(plain, under) || equal(plain, under) || !alike(under, under) {
		t.Error("a load under a stream is taken for one without")
	}
	if _, err := StudyOf("cilium"); err == nil || !strings.Contains(err.Error(), "k8s-compare") {
		t.Errorf("of a study that is not there: %v", err)
	}
}
