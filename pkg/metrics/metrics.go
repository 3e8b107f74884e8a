// Package metrics shows Prometheus what is measured.
package metrics

import (
	"math"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/offloadd/offloadd/pkg/probe/monitor"
)

// A Monitor is what there is of monitor.Monitor.
type Monitor interface {
	States(histograms bool) ([]monitor.State, <-chan struct{})
	Answers() (answered, refused uint64)
}

// maxScrapes is how many scrapes are answered at a time.
const maxScrapes = 4

// Handler answers scrapes: in Prometheus' protobuf format, which only has native histograms, or as text.
func Handler(m Monitor) http.Handler {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(&collector{m, time.Now()})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

// A collector makes metrics of the pairs when they are asked for. There are as many as pairs are configured.
type collector struct {
	monitor Monitor
	started time.Time
}

var pairLabels = []string{"from", "to"}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("offloadd_probe_"+name, help, labels, nil)
}

var (
	rtt      = describe("rtt_seconds", "Round trips that were answered in time, without the first of several in a burst.", pairLabels...)
	up       = describe("measured", "Whether requests are sent.", pairLabels...)
	worse    = describe("worse", "Whether something is wrong with the pair.", pairLabels...)
	ratio    = describe("offloaded_ratio", "The part of requests that was forwarded in the last minute: by filters, and of these by those in hardware.", append(pairLabels, "by")...)
	answered = describe("answers_total", "Requests of others that ports of this node have answered.")
	refused  = describe("answers_refused_total", "Datagrams to ports of this node that were not answered: of others than the pairs' ports, malformed, or too many.")
)

var counters = []struct {
	desc *prometheus.Desc
	of   func(*monitor.State) uint64
}{
	{describe("sent_total", "Requests that were sent.", pairLabels...), func(s *monitor.State) uint64 { return s.Counts.Sent }},
	{describe("lost_total", "Requests without an answer in time.", pairLabels...), func(s *monitor.State) uint64 { return s.Counts.Lost }},
	{describe("late_total", "Requests among the lost that were answered after all.", pairLabels...), func(s *monitor.State) uint64 { return s.Counts.Late }},
	{describe("missed_total", "Requests that were not sent, because the sender was held up for longer than an interval.", pairLabels...), func(s *monitor.State) uint64 { return s.Counts.Missed }},
	{describe("held_total", "Requests that were sent late, and count from when they were due.", pairLabels...), func(s *monitor.State) uint64 { return s.Counts.Held }},
	{describe("offload_lost_total", "How often the pair was offloaded and ceased to be.", pairLabels...), func(s *monitor.State) uint64 { return s.Regressions }},
}

// Describe is for prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rtt, up, worse, ratio, answered, refused} {
		to <- d
	}
	for _, k := range counters {
		to <- k.desc
	}
}

// Collect is for prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	pairs, _ := c.monitor.States(true)
	for i := range pairs {
		p := &pairs[i]
		labels := []string{p.From, p.To}
		for _, k := range counters {
			to <- prometheus.MustNewConstMetric(k.desc, prometheus.CounterValue, float64(k.of(p)), labels...)
		}
		to <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, truth(p.Measured), labels...)
		to <- prometheus.MustNewConstMetric(worse, prometheus.GaugeValue, truth(p.Worse()), labels...)
		if p.Level != monitor.Unknown {
			filters, hardware := p.Way.Offloaded()
			to <- prometheus.MustNewConstMetric(ratio, prometheus.GaugeValue, filters, append(labels, "filters")...)
			to <- prometheus.MustNewConstMetric(ratio, prometheus.GaugeValue, hardware, append(labels, "hardware")...)
		}
		to <- c.histogram(&p.All, labels)
	}
	a, r := c.monitor.Answers()
	to <- prometheus.MustNewConstMetric(answered, prometheus.CounterValue, float64(a))
	to <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(r))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// A both is a histogram that is native, and classic for servers that know no others.
type both struct {
	prometheus.Metric
	classic []*dto.Bucket
}

// Write is for prometheus.Metric.
func (b both) Write(to *dto.Metric) error {
	if err := b.Metric.Write(to); err != nil {
		return err
	}
	to.GetHistogram().Bucket = b.classic
	return nil
}

func (c *collector) histogram(h *monitor.Histogram, labels []string) prometheus.Metric {
	native, err := prometheus.NewConstNativeHistogram(rtt, h.Count, h.Sum, h.Buckets, nil, 0, monitor.Schema, math.SmallestNonzeroFloat64, c.started, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(rtt, err)
	}
	m := both{Metric: native}
	for i, bound := range monitor.Classic {
		n := uint64(0)
		if h.Classic != nil {
			n = h.Classic[i]
		}
		m.classic = append(m.classic, &dto.Bucket{UpperBound: new(bound), CumulativeCount: new(n)})
	}
	return m
}
