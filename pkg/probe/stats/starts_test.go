package stats

import (
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// What does not come so far is infinitely late, and the rate is that of batches that came so far as a whole.
func TestStarts(t *testing.T) {
	start := func(created, answered time.Duration, packet int) result.Start {
		return result.Start{Created: created, Answered: answered, Requests: result.Forwarding{Filters: answered, Packet: packet, Exact: packet > 0}}
	}
	c := result.StartCase{Path: "veth x2", Kind: "veth", Parallel: 2, Never: map[string]string{result.StepHardware: "no NIC", result.StepHardwareBack: "no NIC"}}
	for i := range time.Duration(15) {
		c.Batches = append(c.Batches, result.Batch{Starts: []result.Start{start(10e6, (20+i)*1e6, 3), start(20e6, 40e6, int(i))}})
	}
	c.Batches[2].Starts[0] = result.Start{Failed: "no"}
	run := &result.Run{Paths: []result.Path{{Name: "veth x2"}}, Baseline: "veth x2", Starts: &result.Starts{Cases: []result.StartCase{c}}}
	for range 2 { // what was computed before is replaced
		if err := Judge(run); err != nil {
			t.Fatal(err)
		}
	}
	got := run.Starts.Cases[0]
	if got.Failed != 1 || len(got.Steps) != len(result.StartSteps())-2 {
		t.Fatalf("%d failed, steps %+v", got.Failed, got.Steps)
	}
	steps := map[string]result.StartStep{}
	for _, s := range got.Steps {
		steps[s.Name] = s
	}
	l := steps[result.StepAnswered].Latency
	if p50, ok := l.At(50); l.Count != 29 || l.Lost != 1 || !ok || p50.Value/1e6 != 40 { // 14 came earlier, and 15 in 40 ms
		t.Errorf("%+v, %+v", l, p50)
	}
	if _, ok := l.At(90); ok {
		t.Error("30 starts have a 90th percentile")
	}
	if s := steps[result.StepFilters]; s.Packet != 3 || s.Exact != 14+14 { // the first of one is not known
		t.Errorf("%+v", s)
	}
	if l := steps[result.StepDeleted].Latency; l.Count != 0 || l.Lost != 30 {
		t.Errorf("of none that was deleted %+v", l)
	}
	if got.Made != 100 || got.Answered != 50 || got.Deleted != 0 { // two in 20 ms, and in 40
		t.Errorf("%v, %v, %v a second", got.Made, got.Answered, got.Deleted)
	}
	run.Starts.NoFilters = "off"
	if err := Judge(run); err != nil || len(run.Starts.Cases[0].Steps) != 5 {
		t.Errorf("without filters %+v, %v", run.Starts.Cases[0].Steps, err)
	}
}
