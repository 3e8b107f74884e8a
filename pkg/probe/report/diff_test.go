package report

import (
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// another is a run of some paths on another day; change is before it is judged.
func another(t testing.TB, seed uint64, change func(*result.Run)) *result.Run {
	t.Helper()
	return simulate(t, seed, 1500, []result.Load{udp}, func(run *result.Run) {
		run.Paths, run.Cases = run.Paths[:8], run.Cases[:8]
		if change != nil {
			change(run)
		}
	})
}

func diffs(t testing.TB, name string) (*Diff, error) {
	t.Helper()
	old := another(t, 31, nil)
	switch name {
	case "same":
		return Compare(old, another(t, 32, nil))
	case "upgrade": // another kernel, and bridges take as long as routers
		return Compare(old, another(t, 33, func(run *result.Run) {
			run.ID, run.Started = "20261130-090000", run.Started.Add(18*time.Hour)
			run.Machine.Kernel, run.Machine.Facts["governor"] = "6.19.1", "performance"
			delete(run.Machine.Facts, "mitigations")
			run.Cases[6].Sessions = run.Cases[7].Sessions
			run.Paths[5].Name, run.Cases[5].Path = "veth-new", "veth-new"
		}))
	case "faster":
		return Compare(another(t, 33, func(run *result.Run) { run.Cases[6].Sessions = run.Cases[7].Sessions }), another(t, 34, nil))
	case "other":
		return Compare(old, another(t, 35, func(run *result.Run) {
			run.Parameters.Busy, run.Parameters.Priority = false, 0
			run.Parameters.Wire.Delay = time.Millisecond
			run.Paths[6].Kind = "ovs"
		}))
	}
	t.Fatalf("there is no %q", name)
	return nil, nil
}

func TestDiff(t *testing.T) {
	golden.Run(t, "testdata/diff.txt", func(input string) string {
		d, err := diffs(t, input)
		if err != nil {
			return err.Error()
		}
		return d.Text(110)
	})
}

func TestStatus(t *testing.T) {
	effect := func(verdict string, d result.Delta) result.Effect {
		return result.Effect{Sessions: 8, Verdict: verdict, Difference: d}
	}
	for _, test := range []struct {
		name     string
		p50, p99 result.Effect
		want     int
	}{
		{"same", effect(result.Equivalent, 0), effect(result.Equivalent, 5), Same},
		{"faster", effect(result.Different, -900), effect(result.Equivalent, 5), Same},
		{"slower at p99", effect(result.Undecided, 0), effect(result.Different, 900), Slower},
		{"undecided", effect(result.Undecided, 50), effect(result.Equivalent, 5), NotKnown},
		{"no verdict", effect(result.Equivalent, 0), effect(result.NoVerdict, 0), NotKnown},
	} {
		d := &Diff{}
		d.Changes = append(d.Changes, changeOf(test.p50, test.p99))
		if got := d.Status(); got != test.want {
			t.Errorf("%s: status %d, want %d", test.name, got, test.want)
		}
	}
	if got := (&Diff{}).Status(); got != NotKnown {
		t.Errorf("with nothing to compare: status %d, want %d", got, NotKnown)
	}
	d, err := diffs(t, "upgrade")
	if err != nil || d.Status() != Slower {
		t.Errorf("slower bridges: %v", err)
	}
	if d, err = diffs(t, "faster"); err != nil || d.Status() == Slower {
		t.Errorf("faster bridges: %v", err)
	}
	if _, err := diffs(t, "other"); err == nil || !strings.Contains(err.Error(), "polling was true, is false") {
		t.Errorf("unlike runs: %v", err)
	}
}

func changeOf(p50, p99 result.Effect) stats.Change {
	return stats.Change{Path: "x", P50: p50, P99: p99}
}
