package report

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// scenes have been simulated, which takes a while, and are kept as JSON, since tests change them.
var scenes = map[string][]byte{}

// scene returns a run of golden files.
func scene(t testing.TB, name string) *result.Run {
	t.Helper()
	if scenes[name] == nil {
		text, err := JSON(simulateScene(t, name))
		if err != nil {
			t.Fatal(err)
		}
		scenes[name] = text
	}
	run, err := Read(scenes[name])
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func simulateScene(t testing.TB, name string) *result.Run {
	t.Helper()
	switch name {
	case "quiet":
		return simulate(t, 1, 3000, []result.Load{udp}, nil)
	case "noisy":
		return simulate(t, 1, 1500, []result.Load{udp}, func(run *result.Run) {
			for i := range run.Cases {
				for s := range run.Cases[i].Sessions {
					run.Cases[i].Sessions[s].Noise.Steal = run.Cases[i].Sessions[s].Noise.Elapsed / 5
				}
			}
		})
	case "lossy":
		return simulate(t, 2, 1500, []result.Load{udp}, func(run *result.Run) {
			for s := range 8 {
				run.Cases[8].Sessions[s].Loss.Lost = 45
			}
		})
	case "few":
		return simulate(t, 3, 300, []result.Load{udp}, func(run *result.Run) {
			for i := range run.Cases {
				run.Cases[i].Sessions = run.Cases[i].Sessions[:4]
			}
		})
	case "ports":
		run := simulateScene(t, "tiny")
		run.Ports = ports()
		return run
	case "starts":
		run := simulateScene(t, "tiny")
		run.Paths = []result.Path{{Name: "veth", Kind: "veth", About: "a new port of kind veth"}, {Name: "vf x2", Kind: "vf", About: "2 new ports of kind vf at once"}}
		run.Cases, run.Missing, run.Floors, run.Baseline, run.Starts = nil, nil, nil, "veth", starts()
		if err := stats.Judge(run); err != nil {
			t.Fatal(err)
		}
		return run
	case "tiny":
		return simulate(t, 5, 1200, []result.Load{udp}, func(run *result.Run) {
			run.Paths, run.Cases = run.Paths[:5], run.Cases[:5]
		})
	case "loaded":
		return simulate(t, 6, 1200, []result.Load{{Mode: result.RR, Transport: "tcp", Size: 350}, {Mode: result.RR, Transport: "tcp", Size: 350, Under: 0.3}}, func(run *result.Run) {
			run.Parameters.Busy, run.Parameters.StreamCPUs = false, &[2]int{0, 1}
			few := []string{"metal", "metal-1", "metal-2", "hostgw", "flannel-vxlan"}
			run.Paths = slices.DeleteFunc(run.Paths, func(p result.Path) bool { return !slices.Contains(few, p.Name) })
			run.Cases = slices.DeleteFunc(run.Cases, func(c result.Case) bool { return !slices.Contains(few, c.Path) })
			load(t, run)
		})
	case "streams":
		return simulate(t, 4, 1000, []result.Load{
			{Mode: result.Stream, Transport: "tcp", Size: 1400},
			{Mode: result.Open, Transport: "udp", Size: 350, Rate: 50000},
		}, nil)
	}
	t.Fatalf("there is no scene %q", name)
	return nil
}

// load gives the second load of a run its streams, one of which does not reach its rate, and the path behind it segments that were sent again.
func load(t testing.TB, run *result.Run) {
	t.Helper()
	for i := range run.Cases {
		c := &run.Cases[i]
		c.Sessions = c.Sessions[:8] // without segments
		for k := range c.Sessions {
			s := &c.Sessions[k]
			s.TCP = &result.TCP{RTO: 204 * time.Millisecond}
			if c.Load.Under == 0 {
				continue
			}
			s.CPU = [2]result.CPU{}
			s.Background = &result.Background{
				Maximum: 400_000_000 + int64(1000*i), Rate: 120_000_000 + int64(1_000_000*k), TCP: result.TCP{Retransmits: int64(k % 2), RTO: 204 * time.Millisecond},
			}
			switch c.Path {
			case "hostgw":
				s.Background.Rate /= 2
			case "flannel-vxlan":
				h, err := hdrhistogram.Decode([]byte(s.Histogram))
				if err != nil {
					t.Fatal(err)
				}
				waited := stats.NewHistogram()
				for n := range int64(20) {
					at := 204_000_000 + 200_000_000*(n%2) + 37_000*n
					if err := errors.Join(h.RecordValue(at), waited.RecordValue(at)); err != nil {
						t.Fatal(err)
					}
				}
				s.TCP.Retransmits, s.TCP.Timeouts = 33, 20
				if s.Histogram, err = stats.Encode(h); err != nil {
					t.Fatal(err)
				}
				if s.TCP.Waited, err = stats.Encode(waited); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestText(t *testing.T) {
	golden.Run(t, "testdata/text.txt", func(input string) string {
		name, columns, _ := strings.Cut(input, " ")
		n, err := strconv.Atoi(columns)
		if err != nil {
			return err.Error()
		}
		return Text(scene(t, name), n)
	})
}

// On no terminal is a line too long, unless it is so narrow that a path, its losses and its differences do not fit.
func TestWidth(t *testing.T) {
	run := scene(t, "quiet")
	for columns := 60; columns < 220; columns += 7 {
		for line := range strings.SplitSeq(Text(run, columns), "\n") {
			if n := utf8.RuneCountInString(line); n > columns {
				t.Errorf("with %d columns a line has %d: %s", columns, n, line)
			}
		}
	}
}

// How far apart the CPUs were is over all sessions, and those that do not know it do not count.
func TestApart(t *testing.T) {
	for _, test := range []struct {
		apart [][]time.Duration // by case and session
		want  string
	}{
		{[][]time.Duration{{0, 0}, {0}}, ""},
		{[][]time.Duration{{110, 0}, {118}}, " (a cache line takes 110 to 118 ns there and back)"},
		{[][]time.Duration{{110, 64}, {0, 480}}, " (a cache line takes 64 to 480 ns there and back: they are moved, and round trips change with that)"},
	} {
		run := &result.Run{Parameters: result.Parameters{CPUs: [2]int{2, 3}}}
		for _, sessions := range test.apart {
			var c result.Case
			for _, d := range sessions {
				c.Sessions = append(c.Sessions, result.Session{Noise: result.Noise{Apart: d}})
			}
			run.Cases = append(run.Cases, c)
		}
		if got := manner(run); !strings.HasSuffix(got, "CPUs 2 and 3"+test.want) {
			t.Errorf("%v: %q, want ... %q", test.apart, got, test.want)
		}
	}
}

func TestMicroseconds(t *testing.T) {
	for _, test := range []struct {
		ns   float64
		want string
	}{{0, "0.00"}, {4, "0.00"}, {190, "0.19"}, {7281, "7.28"}, {9996, "10.0"}, {29_000, "29.0"}, {99_960, "100"}, {50_123_000, "50123"}, {-1072, "-1.07"}} {
		if got := us(test.ns); got != test.want {
			t.Errorf("us(%v) = %s, want %s", test.ns, got, test.want)
		}
	}
	for d, want := range map[result.Delta]string{0: "0.00", 3: "0.00", -3: "0.00", 341: "+0.34", -1072: "-1.07"} {
		if got := delta(d); got != want {
			t.Errorf("delta(%v) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{1: "1", 1234: "1 234", 1234567: "1 234 567"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}
