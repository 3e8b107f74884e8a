package daemon

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// The devices of one driver decide for all: they share the block.
func TestShape(t *testing.T) {
	caps := func(name string, a tc.Answer) *tc.Caps {
		for i := range tc.Capabilities {
			if tc.Capabilities[i].Name == name {
				return &tc.Caps{Findings: []tc.Finding{{Capability: &tc.Capabilities[i], Answer: a}}}
			}
		}
		t.Fatalf("no capability %s", name)
		return nil
	}
	for _, c := range []struct {
		name    string
		kernel  *tc.Caps
		drivers []string
		want    specialize.Caps
	}{
		{"nothing known", &tc.Caps{}, nil, specialize.Caps{}},
		{"new kernel", caps(tc.CapNoFrag, tc.Yes), []string{"veth"}, specialize.Caps{NoFrag: true}},
		{"not known", caps(tc.CapNoFrag, tc.Unknown), nil, specialize.Caps{}},
		{"mlx5", caps(tc.CapNoFrag, tc.No), []string{"nfp", "mlx5_core"}, specialize.Caps{TunnelKeysInEveryChain: true, WholeLabel: true}},
	} {
		if got := shape(c.kernel, c.drivers); got != c.want {
			t.Errorf("%s: shape() = %+v, want %+v", c.name, got, c.want)
		}
	}
	if got := drivers([]specialize.Device{{Name: "lo", Ifindex: 1}, {Name: "nosuchdevice"}}); len(got) != 0 {
		t.Errorf("drivers(lo) = %q", got)
	}
}

// The probe is one line of the log. Ended before it began it says nothing.
func TestProbeKernel(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	c := probeKernel(t.Context(), log)
	want := "kernel probed"
	if os.Getuid() != 0 {
		want = "kernel not probed"
	}
	if strings.Count(b.String(), "\n") != 1 || !strings.Contains(b.String(), want) {
		t.Errorf("%+v; logged: %s", c, b.String())
	}
	b.Reset()
	ended, end := context.WithCancel(t.Context())
	end()
	if c := probeKernel(ended, log); len(c.Findings) != 0 || b.Len() != 0 {
		t.Errorf("%+v; logged: %s", c, b.String())
	}
}
