package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// Percentiles are of the values that were recorded, to three digits, and what is longer than the longest counts as that.
func TestHistogram(t *testing.T) {
	h := newHistogram()
	for i := range 100 {
		h.record(millis(float64(100 - i)))
	}
	for q, want := range map[float64]float64{50: 50, 90: 90, 99: 99, 100: 100} {
		if got := h.quantile(q).Seconds() * 1000; got < want || got > want*1.001 {
			t.Errorf("quantile(%v) of 1 to 100 ms = %v ms, want %v", q, got, want)
		}
	}
	h.record(time.Hour)
	if got := h.quantile(100).Round(time.Second); got != 10*time.Minute {
		t.Errorf("quantile(100) with an hour = %v, want ten minutes", got)
	}
}

// A step that has no end is not counted, and the daemon's part ends with the last that has one.
func TestTimeline(t *testing.T) {
	start := time.Unix(1000, 0)
	st := &offloadv1.PortStatus{Created: timestamppb.New(start), Timeline: []*offloadv1.Step{
		{Name: "journal", Started: timestamppb.New(start.Add(millis(1))), Duration: durationpb.New(millis(2))},
		{Name: "link", Started: timestamppb.New(start.Add(millis(5))), Duration: durationpb.New(millis(7))},
		{Name: "forget", Started: timestamppb.New(start.Add(millis(12)))},
	}}
	m := newMeasure()
	m.timeline("ADD", st)
	m.timeline("DEL", st)
	m.timeline("ADD", nil)
	got := map[row]string{}
	for r, h := range m.rows {
		got[r] = ms(h.quantile(100))
	}
	want := map[row]string{
		{"ADD", "journal"}: "2.0", {"ADD", "link"}: "7.0", {"ADD", inDaemon}: "12.0", {"DEL", "journal"}: "2.0", {"DEL", "link"}: "7.0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// Percentiles that the values cannot tell are not printed.
func TestPercentiles(t *testing.T) {
	for n, want := range map[int]string{
		9:   "      5.0        -        -      9.0",
		10:  "      5.0      9.0        -     10.0",
		99:  "     50.0     89.0        -     99.0",
		100: "     50.0     90.0     99.0    100.0",
	} {
		h := newHistogram()
		for i := range n {
			h.record(millis(float64(i + 1)))
		}
		if got := percentiles(h, n); got != want {
			t.Errorf("percentiles of %d values: %q, want %q", n, got, want)
		}
	}
}

func TestReport(t *testing.T) {
	measured := func(pods int, elapsed float64, times map[row]float64, order ...row) *measure {
		m := newMeasure()
		m.elapsed, m.pods = millis(elapsed), pods
		for _, r := range order {
			m.took(r, millis(times[r]))
		}
		return m
	}
	add, del, link, all, unlink := row{"ADD", ""}, row{"DEL", ""}, row{"ADD", "link"}, row{"ADD", inDaemon}, row{"DEL", "unlink"}
	veth := map[row]float64{add: 40, del: 20, link: 2, all: 30, unlink: 10}
	trials := []*trial{{
		title: "veths", ways: []way{{name: "veth", to: "bridge"}, {name: "bridge"}},
		serial: map[string]*measure{
			"veth":   measured(1, 60, veth, add, del, link, all, unlink),
			"bridge": measured(1, 120, map[row]float64{add: 50, del: 40}, add, del),
		},
		parallel: map[string]*measure{ // of one of the two pods nobody was told
			"veth":   measured(2, 250, veth, add, add, del, del, link, all),
			"bridge": measured(2, 500, map[row]float64{add: 100, del: 10}, add, add, del, del),
		},
	}}
	kernel := map[string]*histogram{placeRow: newHistogram(), moveRow: newHistogram()}
	kernel[placeRow].record(millis(2))
	kernel[moveRow].record(millis(32))
	got := details(trials[0], 8) + summary(trials, kernel, 8)
	want := `veths: veth
                                      one at a time                       8 at a time
ms                                      p50      p90      p99      max      p50      p90      p99      max
cnitool ADD                            40.0        -        -     40.0     40.0        -        -     40.0
  in the daemon                        30.0        -        -     30.0    ~30.0        -        -     30.0
  link                                  2.0        -        -      2.0     ~2.0        -        -      2.0
cnitool DEL                            20.0        -        -     20.0     20.0        -        -     20.0
  unlink                               10.0        -        -     10.0        -        -        -        -

veths: bridge
                                      one at a time                       8 at a time
ms                                      p50      p90      p99      max      p50      p90      p99      max
cnitool ADD                            50.0        -        -     50.0    100.0        -        -    100.0
cnitool DEL                            40.0        -        -     40.0     10.0        -        -     10.0

Medians in ms, pods attached and detached per second, and each as a multiple of the reference's in the same part.

                                      one at a time                                   8 at a time
veths                                  ADD             DEL          pods/s             ADD             DEL          pods/s
  veth, to bridge                     40.0   0.80x    20.0   0.50x   16.67   2.00x    40.0   0.40x    20.0   2.00x    8.00   2.00x
  bridge                              50.0            40.0            8.33           100.0            10.0            4.00

ms                                      p50      p90      p99      max
kernel: veth made in place              2.0        -        -      2.0
kernel: veth made, then moved          32.0        -        -     32.0
For a veth the daemon adds 28.0 ms to the kernel's own time at the median, -2.0 ms to that with a move; the aim is 15.0 ms.
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}
