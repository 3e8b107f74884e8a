package stats

import (
	"slices"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// StartTimes is the distribution of a step of a case's starts: those that did not come so far are lost.
func StartTimes(c *result.StartCase, step string) *Distribution {
	h, lost := NewHistogram(), int64(0)
	for _, b := range c.Batches {
		for i := range b.Starts {
			at, _ := b.Starts[i].At(step)
			if at <= 0 || h.RecordValue(int64(at)) != nil {
				lost++
			}
		}
	}
	return of(h, lost)
}

// summariseStarts fills what cases say besides their batches.
func summariseStarts(s *result.Starts) {
	for i := range s.Cases {
		summariseStartCase(&s.Cases[i], s.NoFilters)
	}
}

func summariseStartCase(c *result.StartCase, noFilters string) {
	c.Failed, c.Steps = 0, nil
	for _, b := range c.Batches {
		for i := range b.Starts {
			if b.Starts[i].Failed != "" {
				c.Failed++
			}
		}
	}
	ofFilters := []string{result.StepFilters, result.StepFiltersBack, result.StepHardware, result.StepHardwareBack}
	for _, name := range result.StartSteps() {
		if filters := slices.Contains(ofFilters, name); c.Never[name] != "" || filters && noFilters != "" {
			continue
		}
		step := result.StartStep{Name: name, Latency: StartTimes(c, name).Latency(0)}
		var packets []int
		for _, b := range c.Batches {
			for i := range b.Starts {
				if _, n := b.Starts[i].At(name); n > 0 {
					packets = append(packets, n)
				}
			}
		}
		if step.Exact = len(packets); step.Exact > 0 {
			slices.Sort(packets)
			step.Packet = packets[(len(packets)-1)/2]
		}
		c.Steps = append(c.Steps, step)
	}
	c.Made, c.Answered, c.Deleted = perSecond(c, result.StepCreated), perSecond(c, result.StepAnswered), perSecond(c, result.StepDeleted)
}

// perSecond is how many ports a second came so far, in batches of which all did; 0: there are none.
func perSecond(c *result.StartCase, step string) float64 {
	ports, took := 0, int64(0) // nanoseconds
	for _, b := range c.Batches {
		last, all := int64(0), true
		for i := range b.Starts {
			at, _ := b.Starts[i].At(step)
			last, all = max(last, int64(at)), all && at > 0
		}
		if all {
			ports, took = ports+len(b.Starts), took+last
		}
	}
	if took <= 0 {
		return 0
	}
	return float64(ports) / float64(took) * 1e9
}
