package engine

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Verb {
		os.Exit(Main(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// loopback is a path on 127.0.0.1.
func loopback(name string) Path {
	lo := End{Addr: netip.MustParseAddr("127.0.0.1")}
	return Path{Name: name, Client: lo, Server: lo}
}

// run runs a job that is to have a session for each path.
func run(t *testing.T, job Job) map[string]result.Session {
	t.Helper()
	outcomes, err := Run(t.Context(), job, func(e Event) {
		if e.Note != "" {
			t.Logf("%s: %s", e.Path, e.Note)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if o.Error != "" {
			t.Fatalf("path %s: %s", o.Path, o.Error)
		}
	}
	return Sessions(outcomes)
}

func decode(t *testing.T, text string) *hdrhistogram.Histogram {
	t.Helper()
	h, err := hdrhistogram.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Every request of a closed loop is accounted for.
func TestClosedLoop(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		for _, busy := range []bool{false, true} {
			for _, size := range []int{MinSize, 1024, MaxSize} {
				job := Job{
					Paths:  []Path{loopback("a"), loopback("b"), loopback("c")},
					Load:   result.Load{Mode: result.RR, Transport: transport, Size: size},
					Rounds: 40, Burst: 10, Timeout: MaxTimeout, Busy: busy, CPUs: [2]int{-1, -1},
				}
				for name, s := range run(t, job) {
					h := decode(t, s.Histogram)
					if s.Loss != (result.Loss{Sent: 360}) || h.TotalCount() != 360 {
						t.Errorf("%s, busy %v, %d octets, path %s: %+v and %d in the histogram, want 360 sent and answered", transport, busy, size, name, s.Loss, h.TotalCount())
					}
					if h.Min() <= 0 || s.Elapsed < time.Duration(h.Mean())*360 || s.Jitter <= 0 {
						t.Errorf("path %s: at least %d ns, elapsed %v, jitter %v", name, h.Min(), s.Elapsed, s.Jitter)
					}
				}
			}
		}
	}
}
