package probe

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A wire that loses two of a hundred packets each way, at random, loses four of a hundred round trips of UDP: the report says "lost" where they are, and the run
// waits for none of them longer than the timeout. TCP sends them again, and what waited for that is called so.
func TestLossyWire(t *testing.T) {
	if os.Getenv("OFFLOADD_VM") == "" {
		t.Skip("it is about netem, which the guests' kernels have")
	}
	const count, timeout = 2400, 50 * time.Millisecond
	began := time.Now()
	text, err := New(Options{Wait: true}).Run(t.Context(), Spec{
		Paths: []string{"metal"}, Wire: result.Wire{Loss: 0.02}, Sessions: 2, Count: count, Timeout: timeout, Seed: 1,
		Loads: []result.Load{{Mode: result.RR, Transport: "udp", Size: 64}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	run, err := report.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("it took %v\n%s", time.Since(began).Round(time.Millisecond), report.Text(run, 0))
	for _, c := range run.Cases {
		// Of 2400 round trips 95 are lost in the mean, by a binomial's standard deviation of 9.5; what is late on a slow machine is lost, too.
		if gone := c.Loss.Lost - c.Loss.Late; gone < 40 || gone > 160 {
			t.Errorf("%s: %+v, want about 95 lost and not late", c.Path, c.Loss)
		}
		if p99, ok := c.Latency.At(99); !ok || !p99.Lost {
			t.Errorf("%s: p99 is %+v, %v, want it lost", c.Path, p99, ok)
		}
		if p50, ok := c.Latency.At(50); !ok || p50.Lost {
			t.Errorf("%s: p50 is %+v, %v", c.Path, p50, ok)
		}
	}
	if !strings.Contains(report.Text(run, 0), " lost ") {
		t.Error("the report does not say lost")
	}

	text, err = New(Options{Wait: true}).Run(t.Context(), Spec{
		Paths: []string{"metal"}, Wire: result.Wire{Loss: 0.02}, Sessions: 1, Count: 1000, Timeout: 5 * time.Second, Seed: 1,
		Loads: []result.Load{{Mode: result.RR, Transport: "tcp", Size: 64}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if run, err = report.Read(text); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", report.Text(run, 0))
	for _, c := range run.Cases {
		if c.TCP == nil || c.TCP.Timeouts < 10 || c.TCP.Timeouts > c.TCP.Retransmits || !c.Latency.MaxRTO {
			t.Errorf("%s: TCP %+v, %+v, want that some forty have waited for a retransmission", c.Path, c.TCP, c.Latency)
		}
	}
}
