package stats

import (
	"math"
	"testing"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A run on another day, when everything takes longer: what a path has more has changed only where it has.
func TestChanges(t *testing.T) {
	paths := func(effect float64) []simulated {
		return append(withTwins(2000), simulated{name: "z", effect: 3000 + effect})
	}
	old, same, worse := encoded(t, 21, 8, paths(0)), encoded(t, 22, 8, paths(0)), encoded(t, 23, 8, paths(700))
	for _, test := range []struct {
		name     string
		old, new *result.Run
		differs  bool
		change   float64
	}{
		{"again", old, same, false, 0},
		{"worse", old, worse, true, 700},
		{"better", worse, same, true, -700},
	} {
		judge(t, test.old)
		judge(t, test.new)
		changes, err := Changes(test.old, test.new)
		if err != nil || len(changes) != 2 {
			t.Fatalf("%s: %d changes, %v", test.name, len(changes), err)
		}
		x, z := changes[0], changes[1]
		if x.Path != "x" || z.Path != "z" {
			t.Fatalf("%s: %s, %s", test.name, x.Path, z.Path)
		}
		if x.P50.Verdict == result.Different || (z.P50.Verdict == result.Different) != test.differs {
			t.Errorf("%s: x %+v, z %+v", test.name, x.P50, z.P50)
		}
		if math.Abs(float64(z.P50.Difference)-test.change) > 120 {
			t.Errorf("%s: z changed by %v, want %v", test.name, z.P50.Difference, test.change)
		}
	}
	if old.Cases[3].Against == nil || old.Cases[3].Latency == nil {
		t.Error("comparing runs has changed them")
	}
	lossy := encoded(t, 24, 8, paths(0))
	for s := range lossy.Cases[4].Sessions {
		lossy.Cases[4].Sessions[s].Loss.Lost = packets / 50
	}
	judge(t, lossy)
	changes, err := Changes(old, lossy)
	if err != nil {
		t.Fatal(err)
	}
	if e := changes[1].P99; e.Verdict != result.Different || !math.IsInf(float64(e.Difference), 1) {
		t.Errorf("2 %% lost now: %+v", e)
	}
	changes, err = Changes(lossy, lossy)
	if err != nil {
		t.Fatal(err)
	}
	if e := changes[1].P99; e.Verdict != result.NoVerdict || e.Why != "lost in both" {
		t.Errorf("2 %% lost both times: %+v", e)
	}
}
