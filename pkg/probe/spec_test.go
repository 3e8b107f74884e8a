package probe

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

func TestValidate(t *testing.T) {
	rr := result.Load{Mode: result.RR, Transport: "udp", Size: 64}
	with := func(change func(*Spec)) Spec {
		s := Spec{Paths: []string{"metal", "veth"}, Loads: []result.Load{rr}}
		change(&s)
		return s
	}
	load := func(change func(*result.Load)) Spec {
		return with(func(s *Spec) { change(&s.Loads[0]) })
	}
	number := func(n int) *int { return &n }
	for _, c := range []struct {
		spec         Spec
		field, cause string
	}{
		{with(func(s *Spec) { s.Paths = []string{"metal", "vxlan"} }), "paths[1]", `"vxlan": there is none of that name`},
		{with(func(s *Spec) { s.Paths = []string{"metal,colour=red"} }), "paths[0]", `option "colour=red"`},
		{with(func(s *Spec) { s.Paths = []string{"metal", "metal"} }), "paths[1]", `"metal" is there twice`},
		{with(func(s *Spec) { s.Paths = []string{strings.Repeat("x", 300)} }), "paths[0]", "is longer than 256 bytes"},
		{with(func(s *Spec) { s.Paths = manyPaths() }), "paths", "are 71 with twins, more than 64"},
		{with(func(s *Spec) { s.Baseline = "moon" }), "baseline", `"moon": there is none of that name`},
		{with(func(s *Spec) { s.Wire.Loss = 0.95 }), "wire", "a loss is from 0 to"},
		{with(func(s *Spec) { s.Wire.Delay = time.Hour }), "wire", "a delay is at most"},
		{with(func(s *Spec) { s.Study = "mine" }), "study", `"mine": there is none of that name`},
		{with(func(s *Spec) { s.Sessions = 201 }), "sessions", "201: not from 1 to 200"},
		{with(func(s *Spec) { s.Sessions = -1 }), "sessions", "-1: not from 1 to 200"},
		{with(func(s *Spec) { s.Count = 10_000_001 }), "count", "10000001: not from 1 to 10000000"},
		{with(func(s *Spec) { s.Burst = 1_000_001 }), "burst", "1000001: not from 1 to 1000000"},
		{with(func(s *Spec) { s.Warmup = time.Hour }), "warmup", "1h0m0s: not from 0s to 1m0s"},
		{with(func(s *Spec) { s.Timeout = time.Microsecond }), "timeout", "1µs: not from 1ms to 10s"},
		{with(func(s *Spec) { s.Margin = time.Minute }), "margin", "1m0s: not from 0s to 1s"},
		{with(func(s *Spec) { s.Priority = number(100) }), "priority", "100: not from 0 to 99"},
		{with(func(s *Spec) { s.CPUs = &[2]int{0, 1024} }), "server_cpu", "1024: not from -1 to 1023"},
		{with(func(s *Spec) { s.Loads = manyLoads() }), "loads", "17: not from 1 to 16"},
		{with(func(s *Spec) { s.Loads = slices.Repeat(s.Loads, 2) }), "loads[1]", "udp rr 64 B is there twice"},
		{load(func(l *result.Load) { l.Mode = "ping" }), "loads[0]", `mode "ping" is none of`},
		{load(func(l *result.Load) { l.Transport = "sctp" }), "loads[0]", `transport "sctp" is neither`},
		{load(func(l *result.Load) { l.Size = 15 }), "loads[0]", "size 15 is not from 16 to 65507"},
		{load(func(l *result.Load) { l.Size = 65508 }), "loads[0]", "size 65508 is not from 16 to 65507"},
		{load(func(l *result.Load) { l.Answer = 3 }), "loads[0]", "the answer's size 3 is not"},
		{load(func(l *result.Load) { l.Mode = result.Open }), "loads[0]", "an open loop needs a rate"},
		{load(func(l *result.Load) { l.Rate = 5 }), "loads[0]", "rr has no rate"},
		{load(func(l *result.Load) { l.Mode, l.Rate = result.Open, 2e6 }), "loads[0]", "rate 2e+06 of 3 paths is not from 0 to 5000000"},
		{load(func(l *result.Load) { l.Mode = result.CRR }), "loads[0]", "crr connects: it needs tcp"},
		{load(func(l *result.Load) { l.Under = 1.1 }), "loads[0]", "a stream of 1.1 of what a path carries is not from 0 to 1"},
		{load(func(l *result.Load) { l.Mode, l.Rate, l.Under = result.Open, 5, 0.5 }), "loads[0]", "open has no stream in the background"},
		{load(func(l *result.Load) { l.Mode, l.Under = result.Stream, 0.5 }), "loads[0]", "stream has no stream in the background"},
		{with(func(s *Spec) { s.Loads[0].Under, s.Loads[0].Duration, s.Sessions = 0.5, time.Second, 200 }), "loads", "take 1h10m0s with 3 paths and 200 sessions, more than 1h0m0s"},
		{load(func(l *result.Load) { l.Duration = -1 }), "loads[0].duration", "-1ns: not from 0 to 1h0m0s"},
		{load(func(l *result.Load) { l.Duration = 3 * time.Minute }), "loads", "take 1h30m0s with 3 paths and 10 sessions, more than 1h0m0s"},
	} {
		_, err := c.spec.Validate()
		var r *reason.Error
		if !errors.As(err, &r) || r.Reason != reason.InvalidField || len(r.Fields) != 1 {
			t.Errorf("%s %s: %v, want one field", c.field, c.cause, err)
			continue
		}
		if f := r.Fields[0]; f.Path != c.field || !strings.Contains(f.Cause, c.cause) {
			t.Errorf("%s %q, want %s %q", f.Path, f.Cause, c.field, c.cause)
		}
	}

	// All that is wrong is said at once.
	_, err := with(func(s *Spec) { s.Sessions, s.Count, s.Baseline = -1, -1, "moon" }).Validate()
	if e, ok := errors.AsType[*reason.Error](err); !ok || len(e.Fields) != 3 {
		t.Errorf("three wrong fields: %v", err)
	}
}

// manyPaths are 70, with a twin 71.
func manyPaths() []string {
	var all []string
	for i := range 70 {
		all = append(all, fmt.Sprintf("metal,name=m%d", i))
	}
	return all
}

func manyLoads() []result.Load {
	var all []result.Load
	for size := range 17 {
		all = append(all, result.Load{Mode: result.RR, Transport: "udp", Size: 64 + size})
	}
	return all
}

// Defaults are filled in, and stay.
func TestDefaults(t *testing.T) {
	s, err := Spec{}.Validate()
	if err != nil {
		t.Fatal(err)
	}
	if s.Baseline != "metal" || s.Sessions != DefaultSessions || s.Count != DefaultCount || len(s.Loads) != len(DefaultSizes()) || s.Seed == 0 {
		t.Errorf("defaults %+v", s)
	}
	wants, _ := s.wants()
	if len(wants) != len(path.Kinds()) {
		t.Errorf("%d paths by default, there are %d kinds", len(wants), len(path.Kinds()))
	}
	for _, w := range wants {
		if w.Twin != (w.Name == "metal") {
			t.Errorf("path %s: twin %v", w.Name, w.Twin)
		}
	}
	again, err := s.Validate()
	if err != nil || fmt.Sprint(again) != fmt.Sprint(s) {
		t.Errorf("validated again: %+v, %v, want %+v", again, err, s)
	}

	// The baseline is measured even if it is not among the paths, and may have options.
	s, err = Spec{Paths: []string{"veth", "bridge"}, Baseline: "routed,rules=5"}.Validate()
	if err != nil {
		t.Fatal(err)
	}
	if wants, _ := s.wants(); len(wants) != 3 || wants[2].Rules != 5 || !wants[2].Twin || s.Baseline != "routed,rules=5" {
		t.Errorf("%+v, %+v", s, wants)
	}

	// Every study can be asked for as it is.
	for _, study := range report.Studies() {
		s, err := Spec{Study: study.Name}.Validate()
		if err != nil {
			t.Errorf("%s: %v", study.Name, err)
			continue
		}
		if len(s.Loads) != len(study.Loads) || len(s.Paths) != len(study.Kinds) {
			t.Errorf("%s: %+v", study.Name, s)
		}
	}
}

// A session has at least its share of the requests, and a time that the paths share has room for each.
func TestJob(t *testing.T) {
	s, err := Spec{Count: 1000, Sessions: 3, Burst: 10}.Validate()
	if err != nil {
		t.Fatal(err)
	}
	rr, open := result.Load{Mode: result.RR}, result.Load{Mode: result.Open}
	if n := s.job(rr, 5).Rounds * 9; n < 334 || n > 334+9 {
		t.Errorf("rr: %d requests in the histogram of a session, want 334", n)
	}
	if n := s.job(open, 5).Rounds * 10; n < 334 || n > 334+10 {
		t.Errorf("open: %d requests, want 334", n)
	}
	rr.Duration, open.Duration = time.Second, time.Second
	if j := s.job(rr, 5); j.Load.Duration != 5*time.Second || j.Rounds != 0 {
		t.Errorf("rr: %+v", j)
	}
	if j := s.job(open, 5); j.Load.Duration != time.Second || j.Rounds != 0 {
		t.Errorf("open: %+v", j)
	}
	rr.Under, rr.Duration = 0.3, 0
	if j := s.job(rr, 5); j.Burst != 10*underBursts || j.Rounds*(j.Burst-1) < 334 || j.Rounds*(j.Burst-1) > 334+j.Burst {
		t.Errorf("under a stream: %+v", j)
	}
	if j := s.job(result.Load{Mode: result.Stream, Duration: time.Second}, 5); j.Load.Duration != time.Second || j.Rounds != 5 {
		t.Errorf("stream: %+v", j)
	}
}

// The two CPUs are on one node and on two cores if there are such, and the last ones.
func TestPair(t *testing.T) {
	for _, c := range []struct {
		name string
		cpus []topology // from 0
		want [2]int
	}{
		{"one", []topology{{"0", "0"}}, [2]int{0, 0}},
		{"two", []topology{{"0", "0"}, {"1", "0"}}, [2]int{0, 1}},
		{"siblings at last", []topology{{"0,2", "0"}, {"1,3", "0"}, {"0,2", "0"}, {"1,3", "0"}}, [2]int{2, 3}},
		{"siblings together", []topology{{"0-1", "0"}, {"0-1", "0"}, {"2-3", "0"}, {"2-3", "0"}}, [2]int{1, 3}},
		{"nodes", []topology{{"0", "0"}, {"1", "0"}, {"2", "1"}, {"3", "0"}}, [2]int{1, 3}},
		{"siblings only", []topology{{"0-1", "0"}, {"0-1", "0"}}, [2]int{0, 1}},
		{"unknown", make([]topology, 4), [2]int{2, 3}},
	} {
		var allowed []int
		for i := range c.cpus {
			allowed = append(allowed, i)
		}
		if got := pair(allowed, func(cpu int) topology { return c.cpus[cpu] }); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Streams have CPUs that nobody measures on, as near as there are.
func TestBeside(t *testing.T) {
	nodes := func(all string) func(int) topology {
		return func(cpu int) topology { return topology{node: all[cpu : cpu+1]} }
	}
	for _, c := range []struct {
		nodes      string // of each CPU
		pair, want [2]int
	}{
		{"0", [2]int{0, 0}, [2]int{0, 0}},
		{"00", [2]int{0, 1}, [2]int{0, 1}},
		{"000", [2]int{1, 2}, [2]int{0, 0}},
		{"0000", [2]int{2, 3}, [2]int{0, 1}},
		{"0000", [2]int{-1, -1}, [2]int{2, 3}},
		{"00001111", [2]int{2, 3}, [2]int{0, 1}},
		{"0111", [2]int{2, 3}, [2]int{0, 1}},
		{"011", [2]int{1, 2}, [2]int{0, 0}},
	} {
		var allowed []int
		for cpu := range c.nodes {
			allowed = append(allowed, cpu)
		}
		if got := beside(allowed, c.pair, nodes(c.nodes)); got != c.want {
			t.Errorf("%s, %v: %v, want %v", c.nodes, c.pair, got, c.want)
		}
	}
}

// A path that fails in a session has none for that load, and the run says why; without the baseline there is nothing to compare with.
func TestFail(t *testing.T) {
	a, b := result.Load{Mode: result.RR, Transport: "udp", Size: 64}, result.Load{Mode: result.CRR, Transport: "tcp", Size: 64}
	session := result.Session{Transactions: 1}
	c := &campaign{
		Spec: Spec{Loads: []result.Load{a, b}, Baseline: "metal"},
		run:  &result.Run{Paths: []result.Path{{Name: "metal"}, {Name: "veth"}}, Baseline: "metal"},
	}
	for range c.Loads {
		c.sessions = append(c.sessions, map[string][]result.Session{"metal": {session, session}, "veth": {session}})
		c.segments = append(c.segments, map[string][]result.Session{})
		c.failed = append(c.failed, map[string]string{})
	}
	for range 2 { // the second time nothing is new
		if err := c.fail(1, "veth", 1, "connect: no route to host"); err != nil {
			t.Fatal(err)
		}
	}
	c.collect()
	var lengths []int
	for _, cs := range c.run.Cases {
		lengths = append(lengths, len(cs.Sessions))
	}
	if want := []int{2, 1, 2, 0}; !slices.Equal(lengths, want) {
		t.Errorf("sessions %v, want %v", lengths, want)
	}
	if len(c.run.Missing) != 1 || c.run.Missing[0] != (result.Missing{Kind: "veth", Why: "tcp crr 64 B, session 2: connect: no route to host"}) {
		t.Errorf("missing %+v", c.run.Missing)
	}
	if err := c.fail(0, "metal", 0, "gone"); reason.Of(err) != reason.ProbeImpossible || !strings.Contains(err.Error(), "gone") {
		t.Errorf("the baseline fails: %v", err)
	}
}

// What cannot be measured with these loads on this machine is missing, or refused, with a reason.
func TestPossible(t *testing.T) {
	c := &campaign{Spec: Spec{Paths: []string{"metal", "veth", "routed,delay=1ms"}, Wire: result.Wire{Delay: 5 * time.Millisecond}}}
	var err error
	if c.Spec, err = c.Validate(); err != nil {
		t.Fatal(err)
	}
	wants, missing := c.possible()
	if len(wants) != 2 || wants[0].Delay != 5*time.Millisecond || wants[0].Name != "metal" || wants[1].Delay != time.Millisecond {
		t.Errorf("paths %+v", wants)
	}
	if len(missing) != 1 || missing[0].Kind != "veth" {
		t.Errorf("missing %+v", missing)
	}
	allowed, err := allowedCPUs()
	if err != nil {
		t.Fatal(err)
	}
	c = &campaign{Spec: Spec{Busy: true, CPUs: &[2]int{0, 0}}}
	if err := c.settle(); reason.Of(err) != reason.ProbeImpossible {
		t.Errorf("polling on one CPU: %v", err)
	}
	if len(allowed) == 2 {
		c = &campaign{Spec: Spec{Busy: true, Loads: []result.Load{{Mode: result.RR, Transport: "udp", Size: 64, Under: 0.3}}}}
		if err := c.settle(); reason.Of(err) != reason.ProbeImpossible || !strings.Contains(err.Error(), "three") {
			t.Errorf("polling beside a stream on two CPUs: %v", err)
		}
	}
	_, err = New(Options{Wait: true}).Run(t.Context(), Spec{Paths: []string{"metal"}, Baseline: "sf"}, nil)
	if reason.Of(err) != reason.ProbeImpossible || !strings.Contains(err.Error(), "baseline sf: ") || strings.HasSuffix(err.Error(), "not built") {
		t.Errorf("a baseline that needs hardware: %v", err)
	}
}
