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

var (
	pairLabels = []string{"from", "to"}
	sideLabels = []string{"from", "to", "packets"} // requests or answers
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("offloadd_probe_"+name, help, labels, nil)
}

var (
	rtt      = describe("rtt_seconds", "Round trips that were answered in time, without the first of several in a burst.", pairLabels...)
	up       = describe("measured", "Whether requests are sent.", pairLabels...)
	worse    = describe("worse", "Whether something is wrong with the pair.", sideLabels...)
	ratio    = describe("offloaded_ratio", "The part of packets that was forwarded in the last minute: by filters, and of these by those in hardware.", append(sideLabels, "by")...)
	zones    = describe("connection_zones", "In how many zones of the two ports the connection tracker has the connection, and in how many it is assured, in a flow table, in a NIC.", append(sideLabels, "state")...)
	left     = describe("offload_lost_total", "How often the packets were offloaded and ceased to be.", sideLabels...)
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
}

// Describe is for prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rtt, up, worse, ratio, zones, left, answered, refused} {
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
		c.side(&pairs[i], to)
	}
	a, r := c.monitor.Answers()
	to <- prometheus.MustNewConstMetric(answered, prometheus.CounterValue, float64(a))
	to <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(r))
}

// side is one row: of answers there is only what becomes of them here.
func (c *collector) side(p *monitor.State, to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	labels := []string{p.From, p.To, "requests"}
	if p.Answers {
		labels[2] = "answers"
	}
	gauge(worse, truth(p.Worse()), labels...)
	if p.Level != monitor.Unknown {
		filters, hardware := p.Way.Offloaded()
		gauge(ratio, filters, append(labels, "filters")...)
		gauge(ratio, hardware, append(labels, "hardware")...)
	}
	if t := p.Way.Tracked; p.Level != monitor.Unknown || t.Zones > 0 {
		for i, state := range []string{"tracked", "assured", "offload", "hw_offload"} {
			gauge(zones, float64([]int{t.Zones, t.Assured, t.Offload, t.Hardware}[i]), append(labels, state)...)
		}
	}
	to <- prometheus.MustNewConstMetric(left, prometheus.CounterValue, float64(p.Regressions), labels...)
	if p.Answers {
		return
	}
	labels = labels[:2]
	for _, k := range counters {
		to <- prometheus.MustNewConstMetric(k.desc, prometheus.CounterValue, float64(k.of(p)), labels...)
	}
	gauge(up, truth(p.Measured), labels...)
	to <- c.histogram(&p.All, labels)
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
