package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// Range of a histogram, and its significant digits. Values beyond it are the caller's to count as lost.
const (
	Lowest  = 1
	Highest = 60_000_000_000
	Digits  = 3
)

// NewHistogram returns one for the nanoseconds of a session. All that are to be merged have its range.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(Lowest, Highest, Digits) }

// Encode returns h in the form of result.Session.
func Encode(h *hdrhistogram.Histogram) (string, error) {
	text, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return "", fmt.Errorf("stats encode histogram: %w", err)
	}
	return string(text), nil
}

// Limits of what Decode takes: a full histogram is some hundred kilobytes.
const (
	maxEncoded = 1 << 20
	maxCount   = 1 << 40
)

// A Distribution is samples in nanoseconds, some of them lost. Its values are those of a histogram's bins, their upper ends: at most 1/1024
// more than the samples. Distributions of the same range merge exactly. It does not change.
type Distribution struct {
	bins  []bin // ascending, none empty
	count int64
	lost  int64
}

type bin struct{ from, to, count int64 }

// Decode makes a distribution of a session's histogram and of what it has lost. An empty text is no samples.
func Decode(text string, lost int64) (*Distribution, error) {
	if lost < 0 || lost > maxCount {
		return nil, fmt.Errorf("stats decode histogram: %d lost", lost)
	}
	if text == "" {
		return &Distribution{lost: lost}, nil
	}
	if len(text) > maxEncoded {
		return nil, fmt.Errorf("stats decode histogram: %d octets, at most %d are taken", len(text), maxEncoded)
	}
	h, err := hdrhistogram.Decode([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("stats decode histogram: %w", err)
	}
	if h.LowestTrackableValue() != Lowest || h.HighestTrackableValue() != Highest || h.SignificantFigures() != Digits {
		return nil, fmt.Errorf("stats decode histogram: from %d to %d with %d digits, want from %d to %d with %d",
			h.LowestTrackableValue(), h.HighestTrackableValue(), h.SignificantFigures(), Lowest, Highest, Digits)
	}
	if h.TotalCount() > maxCount {
		return nil, fmt.Errorf("stats decode histogram: %d samples, at most %d are taken", h.TotalCount(), maxCount)
	}
	return of(h, lost), nil
}

func of(h *hdrhistogram.Histogram, lost int64) *Distribution {
	d := &Distribution{lost: lost}
	for _, b := range h.Distribution() {
		if b.Count > 0 {
			d.bins = append(d.bins, bin{b.From, b.To, b.Count})
			d.count += b.Count
		}
	}
	return d
}

// Merge returns the distribution of all samples. Order does not matter.
func Merge(all ...*Distribution) *Distribution {
	m := &Distribution{}
	var bins []bin
	for _, d := range all {
		bins = append(bins, d.bins...)
		m.count += d.count
		m.lost += d.lost
	}
	slices.SortFunc(bins, func(a, b bin) int { return cmp.Compare(a.to, b.to) })
	for _, b := range bins {
		if n := len(m.bins); n > 0 && m.bins[n-1].to == b.to {
			m.bins[n-1].count += b.count
		} else {
			m.bins = append(m.bins, b)
		}
	}
	return m
}

// Beyond is how many samples have to be beyond a percentile.
const Beyond = 10

// percentiles are those that are reported, if the count is enough.
var percentiles = []float64{50, 90, 95, 99, 99.5, 99.9, 99.99, 99.999}

// At returns percentile p by the nearest rank, the samples that were lost behind all others. It is absent if less than Beyond
// samples are beyond it, and result.Lost if it is one that was lost.
func (d *Distribution) At(p float64) (value int64, ok bool) {
	n := d.count + d.lost
	thousandths := int64(math.Round(p * 1000)) // of a percent: ranks are computed in whole numbers
	rank := n/100_000*thousandths + (n%100_000*thousandths+99_999)/100_000
	if n-rank < Beyond || rank < 1 {
		return 0, false
	}
	if rank > d.count {
		return result.Lost, true
	}
	for _, b := range d.bins {
		if rank -= b.count; rank <= 0 {
			return b.to, true
		}
	}
	panic("stats: a distribution has fewer samples than it counts")
}

// Needed is how many samples percentile p needs.
func Needed(p float64) int64 { return int64(math.Ceil(Beyond/(1-p/100) - 1e-6)) }

// Latency summarises d; jitter is the caller's. It is nil if there are no samples.
func (d *Distribution) Latency(jitter float64) *result.Latency {
	if d.count+d.lost == 0 {
		return nil
	}
	l := &result.Latency{Count: d.count, Lost: d.lost, Jitter: jitter, Percentiles: []result.Percentile{}}
	if d.count > 0 {
		l.Min, l.Max = d.bins[0].from, d.bins[len(d.bins)-1].to
		for _, b := range d.bins {
			l.Mean += b.middle() * float64(b.count)
		}
		l.Mean /= float64(d.count)
		var squares float64
		for _, b := range d.bins {
			squares += (b.middle() - l.Mean) * (b.middle() - l.Mean) * float64(b.count)
		}
		if d.count > 1 {
			l.Stddev = math.Sqrt(squares / float64(d.count-1))
		}
	}
	for _, p := range percentiles {
		switch v, ok := d.At(p); {
		case ok && v == result.Lost:
			l.Percentiles = append(l.Percentiles, result.Percentile{P: p, Lost: true})
		case ok:
			l.Percentiles = append(l.Percentiles, result.Percentile{P: p, Value: v})
		}
	}
	return l
}

// label says of l, which is of d, what values are those of requests that have waited for a retransmission timer: waited. A value stands for all samples of its
// bin, so all of them have to.
func (d *Distribution) label(l *result.Latency, waited *Distribution) {
	if l == nil || waited.count == 0 {
		return
	}
	all := func(value int64) bool {
		n := waited.holds(value)
		return n > 0 && n >= d.holds(value)
	}
	for i, p := range l.Percentiles {
		l.Percentiles[i].RTO = !p.Lost && all(p.Value)
	}
	l.MaxRTO = all(l.Max)
}

// holds is how many samples are in the bin whose upper end is value.
func (d *Distribution) holds(value int64) int64 {
	i, ok := slices.BinarySearchFunc(d.bins, value, func(b bin, v int64) int { return cmp.Compare(b.to, v) })
	if !ok {
		return 0
	}
	return d.bins[i].count
}

func (b bin) middle() float64 { return (float64(b.from) + float64(b.to)) / 2 }

// A Point is a value and the part of samples that are not greater.
type Point struct {
	Below float64 // of all, also of those that were lost
	Value int64
}

// Curve returns the cumulative distribution for a plot: one point a bin, as far as at least Beyond samples are beyond it.
func (d *Distribution) Curve() []Point {
	var (
		points []Point
		below  int64
		n      = d.count + d.lost
	)
	for _, b := range d.bins {
		if below += b.count; n-below < Beyond {
			break
		}
		points = append(points, Point{float64(below) / float64(n), b.to})
	}
	return points
}
