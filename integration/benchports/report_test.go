package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPercentile(t *testing.T) {
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i))
	}
	for _, tt := range []struct {
		all  []time.Duration
		p    int
		want time.Duration
	}{
		{all, 50, 50},
		{all, 90, 90},
		{all, 99, 99},
		{all, 100, 100},
		{all[:1], 50, 100},
		{all[:1], 99, 100},
		{all[:2], 50, 99},
		{all[:2], 51, 100},
		{nil, 50, 0},
	} {
		if got := percentile(tt.all, tt.p); got != tt.want {
			t.Errorf("percentile(%d values, %d) = %d, want %d", len(tt.all), tt.p, got, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	one := func(ms float64) []time.Duration {
		return []time.Duration{time.Duration(ms * float64(time.Millisecond))}
	}
	got := report(map[string][]time.Duration{
		"cnitool add, bridge": one(40), daemonRow: one(20.5), placeRow: one(2), moveRow: one(26), "plug": one(3), "link": one(1),
	}, []string{"link", "plug"}, map[string]float64{"bridge": 10}, 8, "0.10")
	want := `ms                                     p50       p90       p99
cnitool add, bridge                   40.0      40.0      40.0
kernel: veth made in place             2.0       2.0       2.0
kernel: veth made, then moved         26.0      26.0      26.0
CreatePort in the daemon              20.5      20.5      20.5
  link                                 1.0       1.0       1.0
  plug                                 3.0       3.0       3.0
bridge                                10.0 pods/s, attached and detached, 8 at a time
The daemon adds 18.5 ms to the kernel's own time at the median, -5.5 ms to that with a move; the aim is 15.0 ms. Load average 0.10.
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}
