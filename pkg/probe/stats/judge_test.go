package stats

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A machine simulates what was seen of real ones, in nanoseconds: the level of all paths drifts by a fifth from session to session and
// wanders within; each path has an offset of its own in each session, by its placement in memory; packets follow each other; and some
// are late. 5000 packets a session suffice to make the usual interval wrong in nine of ten cases, as it was on machines with 21,900.
type machine struct {
	offset   float64 // standard deviation of a path's offset in a session
	keeps    float64 // and of one that it keeps for the campaign
	sessions int
}

const packets = 5000

type simulated struct {
	name, twin string
	effect     float64
}

// campaign returns the load as Judge would have decoded it, and the raw samples of the sessions by path.
func (m machine) campaign(r *rand.Rand, paths []simulated) (*load, [][][]int64) {
	h := NewHistogram()
	l := &load{load: result.Load{Mode: result.RR, Transport: "udp", Size: 64}}
	raw := make([][][]int64, len(paths))
	keeps := make([]float64, len(paths))
	for i, p := range paths {
		l.cases = append(l.cases, &measured{
			Case: &result.Case{Path: p.name, Load: l.load}, path: result.Path{Name: p.name, Twin: p.twin},
		})
		keeps[i] = m.keeps * r.NormFloat64()
	}
	level := 7000.0
	for s := range m.sessions {
		l.quiet = append(l.quiet, s)
		level += 250*r.NormFloat64() + 0.3*(7000-level)
		common := make([]float64, packets) // what all paths feel at the time
		var w float64
		for k := range common {
			w = 0.999*w + 4*r.NormFloat64()
			common[k] = w
		}
		for i, p := range paths {
			at := level + p.effect + keeps[i] + m.offset*r.NormFloat64()
			samples := make([]int64, packets)
			var own float64
			for k := range samples {
				own = 0.95*own + 10*r.NormFloat64()
				v := at + common[k] + own + 55*r.NormFloat64()
				if r.IntN(100) == 0 {
					v += 800 * r.ExpFloat64()
				}
				samples[k] = int64(v)
			}
			raw[i] = append(raw[i], samples)
			c := l.cases[i]
			c.sessions = append(c.sessions, sampled(h, samples))
			c.fromSend = append(c.fromSend, &Distribution{})
			session := result.Session{}
			for part := range slices.Chunk(samples, 1000) {
				part = slices.Sorted(slices.Values(part))
				session.Blocks = append(session.Blocks, [2]int64{part[500], part[990]})
			}
			c.Sessions = append(c.Sessions, session)
		}
	}
	l.summarise()
	return l, raw
}

func sampled(h *hdrhistogram.Histogram, samples []int64) *Distribution {
	h.Reset()
	for _, v := range samples {
		_ = h.RecordValue(v)
	}
	return of(h, 0)
}

// naive is the usual way to compare: packets are taken as independent.
func naive(a, b []int64) (different bool) {
	half := func(v []int64) (middle, error float64) {
		v = slices.Sorted(slices.Values(v))
		n := float64(len(v))
		low, high := v[int(n/2-0.98*math.Sqrt(n))], v[int(n/2+0.98*math.Sqrt(n))]
		return float64(v[len(v)/2]), float64(high-low) / 2
	}
	x, ex := half(a)
	y, ey := half(b)
	return math.Abs(x-y) > math.Hypot(ex, ey)
}

// judged runs campaigns with the source of the seed.
func (m machine) judged(t *testing.T, campaigns int, seed uint64, paths []simulated, each func(l *load, raw [][][]int64)) {
	t.Helper()
	r := random(t, seed)
	for i := range campaigns {
		l, raw := m.campaign(r, paths)
		l.judge(&result.Run{Baseline: paths[0].name, Parameters: result.Parameters{Seed: uint64(i), Limits: DefaultLimits()}})
		each(l, raw)
	}
}

// withTwins is a baseline, two twins of it, and x, which is identical but for the effect and does not say so.
func withTwins(effect float64) []simulated {
	return []simulated{{name: "veth"}, {name: "veth-1", twin: "veth"}, {name: "veth-2", twin: "veth"}, {name: "x", effect: effect}}
}

// Differences of sessions have a standard deviation of 45 ns then, as those of twins had.
var usual = machine{offset: 32, sessions: 10}

// In each of a hundred campaigns are identical paths, and some that differ. Identical ones are not called different, though the usual
// interval calls nearly all of them so; half a microsecond is found; and a twentieth of one is not, since twins differ by as much.
func TestCampaigns(t *testing.T) {
	const campaigns = 100
	effects := map[string]float64{"veth-1": 0, "veth-2": 0, "x": 0, "slow": 500, "fast": -500, "slower": 50, "faster": -50}
	paths := withTwins(0)
	for _, name := range []string{"slow", "fast", "slower", "faster"} {
		paths = append(paths, simulated{name: name, effect: effects[name]})
	}
	var (
		wrong, sessions  int
		covered, within  int
		p50, p99         = map[string]map[string]int{}, map[string]map[string]int{}
		families, sorted = 0, []string{"veth-1", "veth-2", "x", "slow", "fast", "slower", "faster"}
	)
	for name := range effects {
		p50[name], p99[name] = map[string]int{}, map[string]int{}
	}
	usual.judged(t, campaigns, 5, paths, func(l *load, raw [][][]int64) {
		for s := range raw[0] {
			sessions++
			if naive(raw[0][s], raw[3][s]) {
				wrong++
			}
		}
		var family bool
		for name, want := range effects {
			a := l.find(name).Against
			p50[name][a.P50.Verdict]++
			p99[name][a.P99.Verdict]++
			if within++; float64(a.P50.Low) <= want && want <= float64(a.P50.High) {
				covered++
			}
			if a.P50.Verdict == result.Different {
				family = family || math.Abs(want) < 100
				if want != 0 && (a.P50.Difference > 0) != (want > 0) {
					t.Errorf("%v ns is called different as %v", want, a.P50.Difference)
				}
			}
		}
		if family {
			families++
		}
	})
	for _, name := range sorted {
		t.Logf("%-8s %4v ns: p50 %v, p99 %v", name, effects[name], p50[name], p99[name])
		least, most := 0, 5
		if math.Abs(effects[name]) == 500 {
			least, most = 95, 100
		}
		for _, n := range []int{p50[name][result.Different], p99[name][result.Different]} {
			if n < least || n > most {
				t.Errorf("%s, which has %v ns more, was called different in %d of 100 campaigns, want %d to %d", name, effects[name], n, least, most)
			}
		}
	}
	t.Logf("intervals with the effect: %d of %d; naively different: %d of %d sessions; campaigns with a wrong verdict: %d", covered, within, wrong, sessions, families)
	if families > 5 {
		t.Errorf("%d of 100 campaigns have a wrong verdict", families)
	}
	if p50["x"][result.Equivalent] < 80 {
		t.Error("identical paths were rarely called equivalent: the method says nothing")
	}
	if 10*wrong < 9*sessions {
		t.Error("the usual interval is right on this machine: it does not simulate what makes it wrong")
	}
	if 100*covered < 92*within {
		t.Error("intervals of 95 % rarely have the effect")
	}
}

// What a path keeps for a campaign looks like an effect, and three pairs of twins are a small sample of it. A small one still passes.
func TestKeptOffsets(t *testing.T) {
	m := usual
	m.keeps = 20
	verdicts := map[string]int{}
	m.judged(t, 50, 6, withTwins(0), func(l *load, _ [][][]int64) { verdicts[l.find("x").Against.P50.Verdict]++ })
	if t.Log(verdicts); verdicts[result.Different] > 3 {
		t.Error("identical paths were called different in more than one of twenty campaigns")
	}
}

// Of twenty identical paths hardly ever one is called different.
func TestManyPaths(t *testing.T) {
	paths := withTwins(0)
	for i := range 17 {
		paths = append(paths, simulated{name: fmt.Sprint("same-", i)})
	}
	m := usual
	m.sessions = 8
	var families int
	m.judged(t, 12, 8, paths, func(l *load, _ [][][]int64) {
		for _, c := range l.cases {
			if c.Against != nil && c.Against.P50.Verdict == result.Different {
				families++
				return
			}
		}
	})
	if t.Logf("%d of 12 families have a difference", families); families > 1 {
		t.Error("more than one in twenty")
	}
}

// If it says that N more sessions would decide, then mostly they do.
func TestMoreSessions(t *testing.T) {
	r := random(t, 9)
	var asked, decided int
	for i := range 30 {
		m := usual
		run := &result.Run{Baseline: "veth", Parameters: result.Parameters{Seed: uint64(i), Limits: DefaultLimits()}}
		l, _ := m.campaign(r, withTwins(150))
		l.judge(run)
		e := l.find("x").Against.P50
		if e.Verdict != result.Undecided || e.More == 0 || e.More > 60 {
			continue
		}
		asked++
		m.sessions += e.More
		l, _ = m.campaign(r, withTwins(150))
		l.judge(run)
		if v := l.find("x").Against.P50.Verdict; v != result.Undecided {
			decided++
		}
	}
	t.Logf("undecided %d, then decided %d", asked, decided)
	if asked < 5 || 2*decided < asked {
		t.Error("the number of sessions that it takes is not worth saying")
	}
}

func TestVerdicts(t *testing.T) {
	steady := func(values ...float64) []session {
		var s []session
		for _, v := range values {
			s = append(s, session{difference: v})
		}
		return s
	}
	inf := math.Inf(1)
	for _, test := range []struct {
		name     string
		sessions []session
		floor    float64
		margin   float64
		want     string
	}{
		{"far outside", steady(500, 510, 490, 505, 495, 500, 500), 100, 0, result.Different},
		{"faster", steady(-500, -510, -490, -505, -495, -500), 100, 0, result.Different},
		{"inside the floor", steady(5, -10, 20, 0, 3, 8), 100, 0, result.Equivalent},
		{"across the floor", steady(50, 150, 80, 120, 60, 140), 100, 0, result.Undecided},
		{"does not matter to who asks", steady(500, 510, 490, 505, 495, 500), 100, 1000, result.Equivalent},
		{"matters", steady(1500, 1510, 1490, 1505, 1495, 1500), 100, 1000, result.Different},
		{"too few sessions", steady(500, 510, 490), 100, 0, result.Undecided},
		{"always lost", steady(inf, inf, inf, inf, inf, inf), 100, 0, result.Different},
		{"mostly lost", steady(inf, inf, 10, inf, inf, inf, inf, inf), 100, 0, result.Different},
		{"sometimes lost", steady(inf, 10, 10, 10, inf, 10, 10, inf), 100, 0, result.Undecided},
	} {
		c := &comparison{
			sessions: len(test.sessions), difference: effect(test.sessions), floor: test.floor,
			replicates: bootstrap(test.sessions, rand.New(rand.NewPCG(1, 1))),
		}
		decide([]*comparison{c}, test.margin)
		if c.verdict != test.want {
			t.Errorf("%s: %s [%v, %v], want %s", test.name, c.verdict, c.low, c.high, test.want)
		}
		if c.verdict != result.Undecided && c.more != 0 {
			t.Errorf("%s: %s, and %d more sessions", test.name, c.verdict, c.more)
		}
	}
}

// Holm's method asks more of each of many paths than of one alone.
func TestHolm(t *testing.T) {
	family := func(n int) []*comparison {
		all := make([]*comparison, n)
		for i := range all {
			c := &comparison{sessions: 10, difference: 150, floor: 100, replicates: make([]float64, 1000)}
			for j := range c.replicates { // 5 of 1000 are on the other side of the floor
				if c.replicates[j] = 150; j < 5 {
					c.replicates[j] = 50
				}
			}
			all[i] = c
		}
		decide(all, 0)
		return all
	}
	if c := family(1)[0]; c.verdict != result.Different {
		t.Errorf("alone it is %s", c.verdict)
	}
	for _, c := range family(3) {
		if c.verdict != result.Undecided {
			t.Errorf("among three it is %s", c.verdict)
		}
	}
}

// Blocks make the interval wider if a session's own noise is more than what sessions differ by.
func TestTwoLevels(t *testing.T) {
	plain := []session{{difference: 10}, {difference: 12}, {difference: 11}, {difference: 9}, {difference: 10}, {difference: 11}}
	noisy := slices.Clone(plain)
	for i := range noisy {
		noisy[i] = newSession(noisy[i].difference, []float64{-300, 100, 400, -200, 50})
	}
	width := func(s []session) float64 {
		r := bootstrap(s, rand.New(rand.NewPCG(1, 2)))
		return quantile(r, 0.975) - quantile(r, 0.025)
	}
	if a, b := width(plain), width(noisy); a > 3 || b < 50 {
		t.Errorf("without blocks %v wide, with them %v", a, b)
	}
	for _, blocks := range [][]float64{nil, {3}, {1, math.Inf(1)}} {
		if s := newSession(1, blocks); s.blocks != nil {
			t.Errorf("newSession(1, %v) = %v", blocks, s)
		}
	}
}

// encoded is a run as it comes from sessions, with histograms.
func encoded(t *testing.T, seed uint64, sessions int, paths []simulated) *result.Run {
	t.Helper()
	m := usual
	m.sessions = sessions
	l, raw := m.campaign(random(t, seed), paths)
	run := &result.Run{
		Version: result.Version, Baseline: paths[0].name,
		Parameters: result.Parameters{Loads: []result.Load{l.load}, Sessions: sessions, Seed: seed, Limits: DefaultLimits()},
	}
	h := NewHistogram()
	for i, c := range l.cases {
		run.Paths = append(run.Paths, c.path)
		for s := range c.Sessions {
			h.Reset()
			for _, v := range raw[i][s] {
				_ = h.RecordValue(v)
			}
			text, err := Encode(h)
			if err != nil {
				t.Fatal(err)
			}
			c.Sessions[s].Histogram = text
			c.Sessions[s].Transactions = packets
			c.Sessions[s].Elapsed = packets * 7 * time.Microsecond
			c.Sessions[s].Loss.Sent = packets
			c.Sessions[s].CPU[0] = result.CPU{User: packets * time.Microsecond, System: packets * 2 * time.Microsecond}
			c.Sessions[s].Noise = result.Noise{Elapsed: time.Second}
		}
		run.Cases = append(run.Cases, result.Case{Path: c.Path, Load: c.Load, Sessions: c.Sessions})
	}
	return run
}

func judge(t *testing.T, run *result.Run) string {
	t.Helper()
	if err := Judge(run); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestJudge(t *testing.T) {
	run := encoded(t, 11, 8, withTwins(500))
	first := judge(t, run)
	if again := judge(t, run); again != first {
		t.Error("judging again changes the run")
	}
	slices.Reverse(run.Cases)
	judge(t, run)
	slices.Reverse(run.Cases)
	if text, _ := json.Marshal(run); string(text) != first {
		t.Error("the order of cases matters")
	}
	x := run.Cases[3]
	if e := x.Against.P50; e.Verdict != result.Different || math.Abs(float64(e.Difference)-500) > 60 || e.Sessions != 8 {
		t.Errorf("x: %+v", e)
	}
	if run.Cases[0].Against != nil || x.Latency.Count != 8*packets || x.Loss.Sent != 8*packets || math.Abs(x.Rate-1e9/7000) > 1 {
		t.Errorf("baseline %+v, x %+v, rate %v", run.Cases[0].Against, x.Latency, x.Rate)
	}
	if c := x.CPU[0]; math.Abs(c.PerTransaction-3) > 1e-9 || math.Abs(c.Utilisation-3.0/7) > 1e-9 {
		t.Errorf("CPU %+v, want 3 us a transaction and 3/7 of a CPU", c)
	}
	if len(run.Floors) != 1 || run.Floors[0].Pairs != 3 || run.Floors[0].P50 < 30 || run.Floors[0].P50 > 300 {
		t.Errorf("floors %+v", run.Floors)
	}
	run.Doubts = []string{"the clock is hpet"}
	if judge(t, run); run.Cases[3].Against.P50.Verdict != result.NoVerdict || run.Noise[0] != "the clock is hpet" {
		t.Errorf("with a fact that forbids verdicts: %+v, %v", run.Cases[3].Against.P50, run.Noise)
	}
	run.Doubts = nil
	if again := judge(t, run); again != first {
		t.Error("what was computed before is not replaced")
	}
}

// A disturbed session is left out of comparisons, and of nothing else.
func TestNoisySessions(t *testing.T) {
	run := encoded(t, 12, 14, withTwins(0))
	for i := range run.Cases { // a hog slowed one path, and let itself be seen
		run.Cases[i].Sessions[3].Noise.Others = time.Second
		run.Cases[i].Sessions[4].Noise.Steal = time.Second
		run.Cases[i].Sessions[5].Noise.Switches = 5000
	}
	judge(t, run)
	if e := run.Cases[3].Against.P50; e.Sessions != 11 || e.Verdict != result.Equivalent || len(run.Noise) != 0 {
		t.Errorf("3 of 14 sessions disturbed: %+v, %v", e, run.Noise)
	}
	if n := run.Cases[3].Latency.Count; n != 14*packets {
		t.Errorf("%d samples, want those of disturbed sessions too", n)
	}
	for i := range run.Cases {
		for s := range 8 {
			run.Cases[i].Sessions[s].Noise.Others = 500 * time.Millisecond
		}
	}
	judge(t, run)
	want := "udp rr 64 B: in 8 of 14 sessions more than 20 % of the CPUs' time was used by others, up to 25 %"
	if e := run.Cases[3].Against.P99; e.Verdict != result.NoVerdict || run.Noise[0] != want || e.Why != want {
		t.Errorf("8 of 14 sessions disturbed: %+v, %q", e, run.Noise)
	}
}

func TestNoVerdict(t *testing.T) {
	alone := []simulated{{name: "veth"}, {name: "x", effect: 500}}
	for _, test := range []struct {
		name   string
		run    *result.Run
		change func(*result.Run)
		want   string
	}{
		{"no twins", encoded(t, 13, 6, alone), nil, "without twins the noise is not known"},
		{"few samples", encoded(t, 13, 6, withTwins(0)), func(run *result.Run) {
			h := NewHistogram()
			_ = h.RecordValues(7000, 900)
			text, _ := Encode(h)
			for i := range run.Cases {
				for s := range run.Cases[i].Sessions {
					run.Cases[i].Sessions[s].Histogram = text
				}
			}
		}, "it needs 1000 samples a session, there are 900"},
		{"twins lose", encoded(t, 13, 6, withTwins(0)), func(run *result.Run) {
			for s := range run.Cases[1].Sessions {
				run.Cases[1].Sessions[s].Loss.Lost = packets / 10
			}
		}, "one of two identical paths lost it"},
		{"all lose", encoded(t, 13, 6, withTwins(0)), func(run *result.Run) {
			for i := range run.Cases {
				for s := range run.Cases[i].Sessions {
					run.Cases[i].Sessions[s].Loss.Lost = packets / 10
				}
			}
		}, "both paths lost it"},
	} {
		if test.change != nil {
			test.change(test.run)
		}
		judge(t, test.run)
		if e := test.run.Cases[len(test.run.Cases)-1].Against.P99; e.Verdict != result.NoVerdict || e.Why != test.want {
			t.Errorf("%s: %q because %q, want %q", test.name, e.Verdict, e.Why, test.want)
		}
	}
	// Twins that differ a lot: a small difference cannot be seen, a large one can.
	m := usual
	m.offset = 3000
	l, _ := m.campaign(random(t, 14), withTwins(0))
	l.judge(&result.Run{Baseline: "veth", Parameters: result.Parameters{Limits: DefaultLimits()}})
	if e := l.find("x").Against.P50; e.Verdict != result.NoVerdict || !strings.HasPrefix(e.Why, "identical paths differ by up to") {
		t.Errorf("twins that differ by microseconds: %+v", e)
	}
	l, _ = m.campaign(random(t, 14), withTwins(100_000))
	l.judge(&result.Run{Baseline: "veth", Parameters: result.Parameters{Limits: DefaultLimits()}})
	if e := l.find("x").Against.P50; e.Verdict != result.Different {
		t.Errorf("100 us on the same machine: %+v", e)
	}
}

// A path that loses what the baseline does not is different, infinitely so.
func TestLostIsDifferent(t *testing.T) {
	run := encoded(t, 15, 7, withTwins(0))
	for s := range run.Cases[3].Sessions {
		run.Cases[3].Sessions[s].Loss.Lost = packets / 50
	}
	text := judge(t, run)
	a := run.Cases[3].Against
	if a.P99.Verdict != result.Different || !math.IsInf(float64(a.P99.Difference), 1) || a.P50.Verdict != result.Equivalent {
		t.Errorf("2 %% lost: %+v", a)
	}
	var back result.Run
	if err := json.Unmarshal([]byte(text), &back); err != nil || !reflect.DeepEqual(back.Cases[3].Against, a) {
		t.Errorf("from JSON: %+v, %v", back.Cases[3].Against, err)
	}
}

// Sessions with timestamps are slower: their segments count, their time does not.
func TestSegments(t *testing.T) {
	run := encoded(t, 16, 6, withTwins(0))
	c := &run.Cases[3]
	for _, path := range []int64{190, 200, 900} {
		c.Sessions = append(c.Sessions, result.Session{
			Segments: &result.Segments{Count: 10, Send: 3000, Path: path, Receive: 3100, Path99: path + 10},
			Elapsed:  time.Hour, CPU: [2]result.CPU{{User: time.Hour}}, Transactions: 1,
		})
	}
	judge(t, run)
	if want := (result.Segments{Count: 30, Send: 3000, Path: 200, Receive: 3100, Path99: 210}); *c.Segments != want {
		t.Errorf("segments %+v, want %+v", *c.Segments, want)
	}
	if math.Abs(c.CPU[0].PerTransaction-3) > 1e-9 || c.Against.P50.Sessions != 6 {
		t.Errorf("sessions with timestamps count: %+v, %+v", c.CPU[0], c.Against.P50)
	}
}

func TestStreams(t *testing.T) {
	l := result.Load{Mode: result.Stream, Transport: "tcp", Size: 1400}
	run := &result.Run{Baseline: "veth", Paths: []result.Path{{Name: "veth"}, {Name: "x"}}}
	for _, p := range run.Paths {
		run.Cases = append(run.Cases, result.Case{Path: p.Name, Load: l, Sessions: []result.Session{{
			Elapsed: 2 * time.Second, Octets: 2048 << 20, CPU: [2]result.CPU{{System: time.Second}, {System: time.Second, Forwarding: time.Second}},
			TCP: &result.TCP{Retransmits: 3},
		}}})
	}
	judge(t, run)
	c := run.Cases[1]
	if c.Rate != 1024<<20 || c.Against != nil || c.Latency != nil || c.TCP.Retransmits != 3 {
		t.Errorf("a stream: %+v", c)
	}
	if want := 2e6 / (2048 << 10); math.Abs(c.CPU[1].PerKB-want) > 1e-9 {
		t.Errorf("%v us a kB, want %v", c.CPU[1].PerKB, want)
	}
}

func TestJudgeRefuses(t *testing.T) {
	two := []result.Path{{Name: "a"}, {Name: "b"}}
	for name, run := range map[string]*result.Run{
		"no baseline":     {Paths: two},
		"path twice":      {Baseline: "a", Paths: append(two, two[0])},
		"twin of nothing": {Baseline: "a", Paths: []result.Path{{Name: "a", Twin: "z"}}},
		"twin of itself":  {Baseline: "a", Paths: []result.Path{{Name: "a", Twin: "a"}}},
		"unknown path":    {Baseline: "a", Paths: two, Cases: []result.Case{{Path: "z"}}},
		"bad histogram":   {Baseline: "a", Paths: two, Cases: []result.Case{{Path: "a", Sessions: []result.Session{{Histogram: "!"}}}}},
	} {
		if err := Judge(run); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
