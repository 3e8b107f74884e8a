package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// From is the first number from which on the sum stays below zero, which one finds by adding up.
func TestFrom(t *testing.T) {
	r := random(t, 11)
	for range 3000 {
		b := beginning{0}
		for range 1 + r.IntN(20) {
			b = append(b, b[len(b)-1]+float64(r.IntN(41)-20+10*r.IntN(2)))
		}
		then := float64(r.IntN(9) - 5)
		want := math.Inf(1)
		sum, n := 0.0, 0
		for n = 1; n < 2000; n++ { // 20 packets make at most 600
			if n < len(b) {
				sum = b[n]
			} else {
				sum += then
			}
			switch {
			case sum >= 0:
				want = math.Inf(1)
			case math.IsInf(want, 1):
				want = float64(n)
			}
		}
		if got := b.from(then); got != want {
			t.Fatalf("%v, then %v: from %v, want %v", b, then, got, want)
		}
	}
}

// A portRun simulates a run between ports, in nanoseconds: each first packet of a connection through filters takes so much more than through Open vSwitch, for
// a while, and after that each takes so much more, of time and of CPU.
type portRun struct {
	first       []float64
	then        float64
	connections int
	noise       float64
	change      func(*result.Run)
}

func (p portRun) run(t *testing.T, r *rand.Rand) *result.Run {
	t.Helper()
	load := result.Load{Mode: result.RR, Transport: "udp", Size: 64}
	run := &result.Run{
		Baseline: "software", Parameters: result.Parameters{Seed: r.Uint64(), Limits: DefaultLimits()},
		Paths: []result.Path{{Name: "offload"}, {Name: "software"}, {Name: "software-twin", Twin: "software"}},
		Ports: &result.Ports{Ways: []result.Way{{Path: "offload", Claim: result.ByFilters}, {Path: "software", Claim: result.ByOVS}}},
	}
	h := NewHistogram()
	for i, path := range run.Paths {
		c := result.Case{Path: path.Name, Load: load}
		for range 10 {
			at := 50_000 + 20*r.NormFloat64()
			if i == 0 {
				at += p.then
			}
			h.Reset()
			for range 1000 {
				_ = h.RecordValue(int64(at + 100*r.NormFloat64()))
			}
			text, err := Encode(h)
			if err != nil {
				t.Fatal(err)
			}
			c.Sessions = append(c.Sessions, result.Session{
				Histogram: text, Transactions: 1000, Elapsed: time.Second, Loss: result.Loss{Sent: 1000},
				CPU: [2]result.CPU{{System: time.Duration(400 * at)}, {System: time.Duration(600 * at)}},
			})
		}
		run.Cases = append(run.Cases, c)
	}
	offload, software := result.Life{Path: "offload", Before: "new"}, result.Life{Path: "software", Before: "new"}
	for range p.connections {
		x := result.Trial{Switches: [2]result.Switch{{Packet: 2}, {Packet: 2}}}
		y := result.Trial{}
		for _, more := range p.first {
			v := int64(80_000 + p.noise*r.NormFloat64())
			w := int64(80_000 + more + p.noise*r.NormFloat64())
			x.Took, x.CPU = append(x.Took, w), append(x.CPU, w)
			y.Took, y.CPU = append(y.Took, v), append(y.CPU, v)
		}
		offload.Trials, software.Trials = append(offload.Trials, x), append(software.Trials, y)
	}
	run.Ports.Lives = []result.Life{offload, software}
	if p.change != nil {
		p.change(run)
	}
	if err := Judge(run); err != nil {
		t.Fatal(err)
	}
	if len(run.Ports.BreakEvens) != 2 || run.Ports.BreakEvens[0].Of != result.OfTime || run.Ports.BreakEvens[1].Of != result.OfCPU {
		t.Fatalf("break-evens %+v", run.Ports.BreakEvens)
	}
	return run
}

func TestBreakEven(t *testing.T) {
	dearer := append([]float64{200_000, 100_000}, make([]float64, 30)...)
	cheaper := append([]float64{-1000, -1000}, make([]float64, 30)...)
	trials := func(change func(*result.Trial)) func(*result.Run) {
		return func(run *result.Run) {
			for i := range run.Ports.Lives[0].Trials {
				change(&run.Ports.Lives[0].Trials[i])
			}
		}
	}
	for name, tt := range map[string]struct {
		run      portRun
		verdict  string
		from     int64 // about
		interval bool
		says     string // of time
	}{
		"an investment":   {portRun{dearer, -5000, 8, 100, nil}, result.FromPacket, 32 + 60, true, ""},
		"few connections": {portRun{dearer, -5000, 5, 100, nil}, result.FromPacket, 32 + 60, false, ""},
		"at once":         {portRun{cheaper, -5000, 8, 0, nil}, result.FromPacket, 1, true, ""},
		"never":           {portRun{dearer, 5000, 8, 100, nil}, result.Never, 0, false, "further packets take more"},
		"never, though cheaper at first": {
			portRun{cheaper, 5000, 8, 0, nil}, result.Never, 0, false, "further packets take more",
		},
		"no difference": {portRun{dearer, 0, 8, 100, nil}, result.Undecided, 0, false, "further packets"},
		"lost": {
			portRun{dearer, -5000, 8, 100, trials(func(x *result.Trial) { x.Took[3] = result.Lost })},
			result.Undecided, 0, false,
			"no connections were compared: packets were lost",
		},
		"not offloaded": {
			portRun{dearer, -5000, 8, 100, trials(func(x *result.Trial) { x.Switches[1] = result.Switch{} })},
			result.Undecided, 0, false,
			"in 32 packets it was not offloaded both ways",
		},
		"not in hardware": {
			portRun{dearer, -5000, 8, 100, func(run *result.Run) { run.Ports.Ways[0].Claim = result.ByHardware }},
			result.Undecided, 0, false,
			"in 32 packets it was not offloaded both ways",
		},
		"a doubt": {
			portRun{dearer, -5000, 8, 100, func(run *result.Run) { run.Doubts = []string{"the clock is hpet"} }},
			result.Undecided, 0, false,
			"of further packets there is no verdict: the clock is hpet",
		},
		"no connections": {portRun{dearer, -5000, 0, 100, nil}, result.Undecided, 0, false, "no connections were compared"},
	} {
		t.Run(name, func(t *testing.T) {
			run := tt.run.run(t, random(t, 12))
			for _, b := range run.Ports.BreakEvens {
				if b.Verdict != tt.verdict || !strings.Contains(b.Why, tt.says) || (b.Low > 0) != tt.interval || (b.From > 0) != (tt.from > 0) {
					t.Errorf("%+v, want %s, %q", b, tt.verdict, tt.says)
				}
				if tt.from > 0 && (math.Abs(float64(b.From-tt.from)) > 0.1*float64(tt.from) || b.Octets != 128*b.From) {
					t.Errorf("%s: from packet %d, %d octets; want about %d", b.Of, b.From, b.Octets, tt.from)
				}
				if b.Low > b.From || b.From > b.High && tt.interval {
					t.Errorf("%s: from packet %d, which is not in [%d, %d]", b.Of, b.From, b.Low, b.High)
				}
			}
		})
	}
	run := portRun{dearer, -5000, 8, 100, trials(func(x *result.Trial) { x.CPU = nil })}.run(t, random(t, 13))
	if b := run.Ports.BreakEvens; b[0].Verdict != result.FromPacket || b[1].Verdict != result.Undecided || !strings.Contains(b[1].Why, "ovs-vswitchd") {
		t.Errorf("what ovs-vswitchd takes is not known: %+v", b)
	}
	again := fmt.Sprint(run.Ports.BreakEvens)
	if err := Judge(run); err != nil || fmt.Sprint(run.Ports.BreakEvens) != again {
		t.Errorf("judged again it is %v, was %s; %v", run.Ports.BreakEvens, again, err)
	}
}

// The interval has the true number in nearly all runs.
func TestBreakEvenInterval(t *testing.T) {
	r := random(t, 14)
	first := append([]float64{200_000, 100_000}, make([]float64, 30)...)
	const runs, truth = 60, 32 + 60
	missed := 0
	for range runs {
		for _, b := range (portRun{first, -5000, 8, 3000, nil}).run(t, r).Ports.BreakEvens {
			if b.Verdict != result.FromPacket {
				t.Fatalf("%+v", b)
			}
			if b.Low > truth+1 || b.High < truth {
				missed++
			}
		}
	}
	t.Logf("%d of %d intervals have not the true number", missed, 2*runs)
	if missed > 2*runs/10 { // 5 % are meant; the median of eight is coarse
		t.Errorf("%d of %d intervals have not the true number", missed, 2*runs)
	}
}
