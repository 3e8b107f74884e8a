package metrics

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/offloadd/offloadd/pkg/probe/monitor"
	"github.com/offloadd/offloadd/pkg/probe/pinger"
	"github.com/offloadd/offloadd/pkg/reason"
)

type pairs []monitor.State

func (p pairs) States(histograms bool) ([]monitor.State, <-chan struct{}) {
	if !histograms {
		panic("without histograms")
	}
	return p, nil
}

func (p pairs) Answers() (answered, refused uint64) { return 5, 6 }

// scrape asks as Prometheus does that takes a format.
func scrape(t *testing.T, m Monitor, accept string) (expfmt.Format, string) {
	t.Helper()
	s := httptest.NewServer(Handler(m))
	defer s.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatal(r.Status, err, string(text))
	}
	return expfmt.ResponseFormat(r.Header), string(text)
}

// quantile is that of a native histogram, as PromQL reads it: within a bucket values are spread by their logarithms.
func quantile(t *testing.T, h *dto.Histogram, q float64) float64 {
	t.Helper()
	growth := math.Exp2(math.Exp2(-float64(h.GetSchema())))
	rank := q * float64(h.GetSampleCount())
	index, count, delta := int32(0), int64(0), 0
	for _, span := range h.GetPositiveSpan() {
		index += span.GetOffset()
		for range span.GetLength() {
			count += h.GetPositiveDelta()[delta]
			delta++
			if rank <= float64(count) && count > 0 {
				return math.Pow(growth, float64(index)-1+rank/float64(count))
			}
			rank -= float64(count)
			index++
		}
	}
	t.Fatalf("no quantile %v", q)
	return 0
}

// What Prometheus scrapes in its protobuf format has native histograms whose quantiles are those of the raw round trips, within 1 %, and classic ones too; as
// text it has those alone.
func TestScrape(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	well := monitor.State{Pair: monitor.Pair{From: "a", To: "b"}, Measured: true, Level: monitor.Hardware, Way: monitor.Way{Packets: 100, Hardware: 90, Software: 8, Tracked: monitor.Tracked{Zones: 2, Assured: 2, Offload: 1}}}
	well.Counts = pinger.Counts{Sent: 30_100, Answered: 30_000, Lost: 100, Late: 3, Missed: 4, Held: 5}
	var raw []float64
	for range 30_000 {
		took := int64(40_000 * math.Exp(r.NormFloat64()))
		well.All.Add(took)
		raw = append(raw, float64(took)/1e9)
	}
	slices.Sort(raw)
	worse := monitor.State{Pair: monitor.Pair{From: "a", To: "c"}, Measured: true, Status: monitor.Status{Reason: reason.ProbeOffloadLost}, Regressions: 2}
	answers := monitor.State{Pair: monitor.Pair{From: "a", To: "b"}, Answers: true, Level: monitor.ByOVS, Way: monitor.Way{Packets: 100, Software: 25}, Regressions: 1}
	m := pairs{well, worse, answers}

	format, body := scrape(t, m, "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3")
	if format.FormatType() != expfmt.TypeProtoDelim {
		t.Fatalf("asked for protobuf, got %s", format)
	}
	families := map[string]*dto.MetricFamily{}
	for d := expfmt.NewDecoder(strings.NewReader(body), format); ; {
		f := &dto.MetricFamily{}
		if err := d.Decode(f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		families[f.GetName()] = f
	}
	h := families["offloadd_probe_rtt_seconds"].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 30_000 || h.GetSchema() != monitor.Schema || len(h.GetBucket()) != len(monitor.Classic) {
		t.Fatalf("%d samples, schema %d, %d classic buckets", h.GetSampleCount(), h.GetSchema(), len(h.GetBucket()))
	}
	for _, q := range []float64{0.01, 0.1, 0.5, 0.9, 0.99, 0.999} {
		got, want := quantile(t, h, q), raw[int(math.Ceil(q*30_000))-1]
		if math.Abs(got/want-1) > 0.01 {
			t.Errorf("quantile %v is %v, of the raw round trips %v", q, got, want)
		}
	}
	if empty := families["offloadd_probe_rtt_seconds"].GetMetric()[1].GetHistogram(); empty.GetSampleCount() != 0 || empty.Schema == nil {
		t.Errorf("of what has no round trips: %v", empty)
	}

	format, body = scrape(t, m, "text/plain")
	if format.FormatType() != expfmt.TypeTextPlain {
		t.Fatalf("asked for text, got %s", format)
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	if _, err := p.TextToMetricFamilies(strings.NewReader(body)); err != nil {
		t.Error(err)
	}
	for _, line := range []string{
		`offloadd_probe_sent_total{from="a",to="b"} 30100`, `offloadd_probe_lost_total{from="a",to="b"} 100`, `offloadd_probe_late_total{from="a",to="b"} 3`,
		`offloadd_probe_missed_total{from="a",to="b"} 4`, `offloadd_probe_held_total{from="a",to="b"} 5`, `offloadd_probe_measured{from="a",to="c"} 1`,
		`offloadd_probe_worse{from="a",packets="requests",to="b"} 0`, `offloadd_probe_worse{from="a",packets="requests",to="c"} 1`,
		`offloadd_probe_offload_lost_total{from="a",packets="requests",to="c"} 2`, `offloadd_probe_offload_lost_total{from="a",packets="answers",to="b"} 1`,
		`offloadd_probe_offloaded_ratio{by="filters",from="a",packets="requests",to="b"} 0.98`, `offloadd_probe_offloaded_ratio{by="hardware",from="a",packets="requests",to="b"} 0.9`,
		`offloadd_probe_offloaded_ratio{by="filters",from="a",packets="answers",to="b"} 0.25`,
		`offloadd_probe_connection_zones{from="a",packets="requests",state="tracked",to="b"} 2`, `offloadd_probe_connection_zones{from="a",packets="requests",state="assured",to="b"} 2`,
		`offloadd_probe_connection_zones{from="a",packets="requests",state="offload",to="b"} 1`, `offloadd_probe_connection_zones{from="a",packets="requests",state="hw_offload",to="b"} 0`,
		`offloadd_probe_answers_total 5`, `offloadd_probe_answers_refused_total 6`, `offloadd_probe_rtt_seconds_bucket{from="a",to="b",le="+Inf"} 30000`,
		`offloadd_probe_rtt_seconds_count{from="a",to="b"} 30000`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
	for _, none := range []string{`offloaded_ratio{by="filters",from="a",packets="requests",to="c"}`, `connection_zones{from="a",packets="requests",state="tracked",to="c"}`} {
		if strings.Contains(body, none) {
			t.Errorf("what is not known has a %s", none)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}
