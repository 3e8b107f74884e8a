package probe

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

func TestPortSpec(t *testing.T) {
	s, err := PortSpec{Client: "a", Server: "b", New: -1, Spec: Spec{Seed: 1, Paths: []string{"metal"}}}.Validate()
	if err != nil {
		t.Fatal(err)
	}
	want := PortSpec{
		Client: "a", Server: "b", Port: DefaultPort, New: -1, Cold: DefaultCold, Idle: DefaultIdle,
		Spec: Spec{
			Baseline: "software", Loads: []result.Load{{Mode: "rr", Transport: "udp", Size: 64}}, Seed: 1,
			Sessions: DefaultSessions, Count: DefaultCount, Burst: DefaultBurst, Warmup: DefaultWarmup, Timeout: DefaultTimeout,
		},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if again, err := s.Validate(); err != nil || cmp.Diff(s, again) != "" {
		t.Errorf("once more: %+v, %v", again, err)
	}
	for _, tt := range []struct {
		spec PortSpec
		want string
	}{
		{PortSpec{Server: "b"}, "client"},
		{PortSpec{Client: "a", Server: "a"}, "server"},
		{PortSpec{Client: strings.Repeat("a", 300), Server: "b"}, "client"},
		{PortSpec{Client: "a", Server: "b", Family: 5}, "family"},
		{PortSpec{Client: "a", Server: "b", New: 101}, "new"},
		{PortSpec{Client: "a", Server: "b", Cold: 21}, "cold"},
		{PortSpec{Client: "a", Server: "b", Idle: time.Hour}, "idle"},
		{PortSpec{Client: "a", Server: "b", Spec: Spec{Sessions: 1000}}, "spec.sessions"},
		{PortSpec{Client: "a", Server: "b", Spec: Spec{Loads: []result.Load{{Mode: "rr", Transport: "tcp", Size: 64}}}}, "spec.loads[0]"},
		{PortSpec{Client: "a", Server: "b", Spec: Spec{Loads: []result.Load{{Mode: "rr", Transport: "udp", Size: 1}}}}, "spec.loads[0]"},
	} {
		_, err := tt.spec.Validate()
		var e *reason.Error
		if !errors.As(err, &e) || e.Reason != reason.InvalidField || !slices.ContainsFunc(e.Fields, func(f reason.Field) bool { return f.Path == tt.want }) {
			t.Errorf("%+v: %v, want one about %s", tt.spec, err, tt.want)
		}
	}
}

// Clients' ports are dynamic ones, different, and not the server's.
func TestDynamicPorts(t *testing.T) {
	next := PortSpec{Port: 40000}.dynamicPorts()
	seen := map[uint16]bool{}
	for range 28000 {
		p := next()
		if p < 32768 || p > 60999 || p == 40000 || seen[p] {
			t.Fatalf("port %d", p)
		}
		seen[p] = true
	}
}

func TestMedians(t *testing.T) {
	got := medians([]result.Trial{{Took: []int64{5, 2, 9}}, {Took: []int64{1, result.Lost}}, {Took: []int64{3, 4}}})
	if want := []int64{3, 4, 9}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Without a daemon there are no ports.
func TestPortsWithoutNode(t *testing.T) {
	_, err := New(Options{}).RunPorts(t.Context(), PortSpec{Client: "a", Server: "b"}, nil)
	if reason.Of(err) != reason.FeatureUnsupported {
		t.Errorf("%v, want %s", err, reason.FeatureUnsupported)
	}
}
