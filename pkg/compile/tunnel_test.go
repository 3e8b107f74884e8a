package compile

import (
	"math/rand/v2"
	"testing"

	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/sb"
)

// Tunnels and the option that Geneve uses concern ports and multicast groups, never a logical flow.
func TestLogicalFlowsDoNotReadTunnels(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWorld(rand.New(rand.NewPCG(seed, 0)))
	store := sb.NewStore()
	for range 200 {
		store.Apply(w.mutate())
	}
	e := NewEngine()
	in := Input{SB: store, Local: w.local(store), Geneve: ir.TunMetadata0}
	e.Recompute(in, func(Replacement) {})

	other := *in.Local
	other.Tunnels = []chassis.Tunnel{{Chassis: "hv1", Type: "geneve", RemoteIP: "172.31.9.9", OFPort: 99}}
	in.Local, in.Geneve = &other, ir.TunMetadata0+7
	replaced := e.Update(sb.Delta{}, in)
	if len(replaced) == 0 {
		t.Fatal("a new tunnel and another Geneve option change nothing")
	}
	for _, r := range replaced {
		if store.LogicalFlows[r.Owner.Row] != nil {
			t.Errorf("logical flow %v was compiled again", r.Owner.Row)
		}
	}
}
