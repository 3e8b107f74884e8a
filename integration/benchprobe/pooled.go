package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// percentiles are those that are compared, with the greatest ratio that is good enough.
var percentiles = []struct{ p, limit float64 }{{50, 1.05}, {99, 1.05}, {99.9, 1.10}}

// counted are the round trips of a tool by the logarithm of their nanoseconds, in steps of a thousandth. What was under way when the tool was stopped is left
// out: one in some thousands.
type counted [20_000]int32

func (c *counted) add(nanoseconds float64, n int64) {
	if nanoseconds >= 1 && nanoseconds < float64(pause) {
		c[int(1000*math.Log(nanoseconds))] += int32(n)
	}
}

// addSession adds what the engine has measured.
func (c *counted) addSession(s result.Session) error {
	if s.Loss.Lost > 0 {
		return fmt.Errorf("%d of %d are lost", s.Loss.Lost, s.Loss.Sent)
	}
	d, err := stats.Decode(s.Histogram, 0)
	if err != nil {
		return err
	}
	before := int64(0)
	for _, p := range d.Curve() {
		n := int64(math.Round(p.Below * float64(s.Loss.Sent)))
		c.add(float64(p.Value), n-before)
		before = n
	}
	return c.enough()
}

// addLog adds a log of sockperf's, whose lines are "number, seconds sent, seconds received, microseconds": what is between the first pause and the last.
func (c *counted) addLog(text string) error {
	var since []float64 // the last pause
	pauses, last := 0, math.Inf(1)
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ", ")
		if len(fields) != 4 {
			continue // what it also says there
		}
		received, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			continue // the headline
		}
		took, err := strconv.ParseFloat(fields[3], 64)
		if err != nil {
			return fmt.Errorf("a line of the log: %q: %w", line, err)
		}
		if received-last >= pause.Seconds() {
			for _, us := range since {
				if pauses > 0 {
					c.add(us*float64(time.Microsecond), 1)
				}
			}
			pauses, since = pauses+1, since[:0]
		}
		last = received
		since = append(since, took)
	}
	return c.enough()
}

// enough is an error if p99.9 is one of a few.
func (c *counted) enough() error {
	if n := c.count(); n < 20_000 {
		return fmt.Errorf("%d round trips", n)
	}
	return nil
}

func (c *counted) count() (n int64) {
	for _, k := range c {
		n += int64(k)
	}
	return n
}

// at is percentile p in microseconds.
func (c *counted) at(p float64) float64 {
	rank := int64(math.Ceil(p / 100 * float64(c.count())))
	for i, k := range c {
		if rank -= int64(k); rank <= 0 {
			return math.Exp((float64(i)+0.5)/1000) / 1000
		}
	}
	panic("benchprobe: nothing is counted")
}

// A compared is one of percentiles of two tools, and our ratio to theirs with its 95 % interval.
type compared struct {
	p, limit         float64
	theirs, ours     float64 // microseconds
	ratio, low, high float64
}

// pooled compares what is counted in all rounds together, and draws rounds for the interval. The percentiles of one round alone are no good: if half of
// it was on cores that are far apart, its median is one or the other.
func pooled(rounds [][2]counted, rnd *rand.Rand) []compared {
	const resamples = 1000
	draws := make([][]float64, len(percentiles))
	sample := make([][2]counted, len(rounds))
	for range resamples {
		for i := range sample {
			sample[i] = rounds[rnd.IntN(len(rounds))]
		}
		for k, c := range together(sample) {
			draws[k] = append(draws[k], c.ratio)
		}
	}
	all := together(rounds)
	for k := range all {
		slices.Sort(draws[k])
		all[k].low, all[k].high = draws[k][resamples*25/1000], draws[k][resamples*975/1000]
	}
	return all
}

func together(rounds [][2]counted) []compared {
	var sums [2]counted
	for i := range sums {
		for r := range rounds {
			for k, n := range &rounds[r][i] {
				sums[i][k] += n
			}
		}
	}
	var all []compared
	for _, want := range percentiles {
		theirs, ours := sums[0].at(want.p), sums[1].at(want.p)
		all = append(all, compared{p: want.p, limit: want.limit, theirs: theirs, ours: ours, ratio: ours / theirs})
	}
	return all
}
