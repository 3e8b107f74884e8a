package monitor

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/pinger"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// Schema is that of the native histograms: a bucket's bound is 2^(1/128) = 1.0054 times that of the one below.
const Schema = 7

// Classic are the bounds of classic histograms in seconds, for servers that know no others.
var Classic = []float64{10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1, 2, 5, 10}

// A Histogram is all round trips of a pair.
type Histogram struct {
	Count   uint64
	Sum     float64       // seconds
	Buckets map[int]int64 // of Schema: bucket i is up to 2^(i/128) seconds
	Classic []uint64      // of Classic, cumulative
}

// Add adds a round trip.
func (h *Histogram) Add(nanoseconds int64) {
	if h.Buckets == nil {
		h.Buckets, h.Classic = map[int]int64{}, make([]uint64, len(Classic))
	}
	// What takes no time, or longer than any timeout, is an error of the clock, and must not make a bucket of its own.
	seconds := float64(min(max(nanoseconds, 100), int64(time.Minute))) / 1e9
	h.Count++
	h.Sum += seconds
	h.Buckets[int(math.Ceil(math.Log2(seconds)*(1<<Schema)))]++
	for i, bound := range Classic {
		if seconds <= bound {
			h.Classic[i]++
		}
	}
}

func (h Histogram) clone() Histogram {
	c := h
	c.Buckets, c.Classic = maps.Clone(h.Buckets), slices.Clone(h.Classic)
	return c
}

// Recent is how long the last round trips and losses of a pair are remembered one by one, and maxRecent how many of them at most. With one a second
// that is just enough for a 99th percentile.
const (
	Recent    = 20 * time.Minute
	maxRecent = 4096
)

// A series is what was measured of a pair.
type series struct {
	counts pinger.Counts
	all    Histogram

	// What follows is of the last time. A sample is as old as the report that has it.
	samples []sample
	silent  uint64 // requests that were lost since the last answer
}

type sample struct {
	at   time.Time
	took time.Duration // or Lost
}

// add adds a report, and returns its samples.
func (s *series) add(r pinger.PairReport, now time.Time) []sample {
	var fresh []sample
	s.counts.Sent += r.Sent
	s.counts.Answered += r.Answered
	s.counts.Lost += r.Lost
	s.counts.Late += r.Late
	s.counts.Missed += r.Missed
	s.counts.Held += r.Held
	for _, t := range r.Took {
		s.all.Add(t)
		fresh = append(fresh, sample{now, time.Duration(t)})
	}
	for range min(r.Lost, maxRecent) {
		fresh = append(fresh, sample{now, Lost})
	}
	s.samples = append(s.samples, fresh...)
	if s.silent += r.Lost; r.Answered+r.Late > 0 {
		s.silent = 0
	}
	s.forget(now)
	return fresh
}

// forget forgets what is too old, or too much.
func (s *series) forget(now time.Time) {
	i := max(len(s.samples)-maxRecent, 0)
	for i < len(s.samples) && now.Sub(s.samples[i].at) > Recent {
		i++
	}
	s.samples = slices.Delete(s.samples, 0, i)
}

// A Latency is that of some samples, those that were lost behind all others. What the count does not support is 0, what was lost Lost.
type Latency struct {
	Count, Lost   int
	P50, P90, P99 time.Duration
	Max           time.Duration // of what was answered
}

// Lost is longer than anything that was answered.
const Lost = time.Duration(math.MaxInt64)

// latency needs as many samples beyond a percentile as pkg/probe/stats.
func latency(samples []sample) Latency {
	all := make([]time.Duration, len(samples))
	for i, s := range samples {
		all[i] = s.took
	}
	slices.Sort(all)
	l := Latency{Count: len(all)}
	answered, _ := slices.BinarySearch(all, Lost)
	l.Lost = len(all) - answered
	if answered > 0 {
		l.Max = all[answered-1]
	}
	for _, q := range []struct {
		to      *time.Duration
		percent int
	}{{&l.P50, 50}, {&l.P90, 90}, {&l.P99, 99}} {
		rank := (len(all)*q.percent + 99) / 100
		if len(all)-rank >= stats.Beyond {
			*q.to = all[rank-1]
		}
	}
	return l
}
