package apply

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// In whatever order devices come and go, and with them what chains are for: a NIC that takes every filter, as mlx5 does those of tunnel devices only
// if they ask for a tunnel, has all of them.
func TestJoining(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const tunnel = 4
	devices := []specialize.Device{{Name: "a", Ifindex: 1}, {Name: "b", Ifindex: 2}, {Name: "c", Ifindex: 3}, {Name: "t", Ifindex: tunnel, Tunnel: true}}
	k := tctest.NewKernel(t)
	k.Bare = func(ifindex int) bool { return ifindex == tunnel }
	k.NIC = func(payload []byte, ifindex int) bool {
		in, err := tc.Decode(payload)
		if err != nil {
			t.Error(err)
			return false
		}
		g := in.Filter
		return (g.Indev == "" || g.Indev == devices[ifindex-1].Name) && (ifindex != tunnel || g.EncDstPort != 0)
	}
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	for range 100 {
		some := slices.DeleteFunc(slices.Clone(devices), func(specialize.Device) bool { return rnd.IntN(3) == 0 })
		desired := tunnelFilters(rnd, some)
		if rnd.IntN(8) == 0 {
			f.Forget("test")
		}
		s, err := f.Sync(t.Context(), desired, some, SyncOptions{Hardware: true, Retire: rnd.IntN(2) == 0})
		if err != nil || s.Shadowed != 0 || s.Closed != 0 || s.Devices != len(some) || len(s.Refused) > 0 {
			t.Fatalf("with %v: %+v, %v", some, s, err)
		}
		if s.Devices == 0 {
			continue
		}
		err = f.conn.Dump(t.Context(), tc.Target{Block: Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
			wanted := slices.ContainsFunc(desired, func(g tc.Filter) bool { return idOf(&g) == idOf(&in.Filter) })
			if wanted && in.Filter.Flags&tc.SkipHW != 0 {
				t.Errorf("with %v, kept from the NIC: %s", some, in.Filter.String())
			}
			return nil
		})
		if err != nil || t.Failed() {
			t.Fatal(err)
		}
	}
}

// tunnelFilters are filters as a node with these devices has them, of which t is that of its tunnels.
func tunnelFilters(rnd *rand.Rand, devices []specialize.Device) (all []tc.Filter) {
	filter := func(kind specialize.Kind, chain uint32, pref uint16, indev string, enc bool, match ir.Match, actions ...tc.Action) {
		f := specialize.Closed(chain, indev)
		f.Pref, f.Match, f.Actions, f.Protocol = pref, match, actions, tc.ProtocolIPv4
		if f.Cookie[3] = byte(kind); enc {
			f.EncDstPort = geneveUDPPort
		}
		all = append(all, f)
	}
	var none ir.Match
	frag := none.Eq(ir.IPTTL, 0)
	if len(devices) == 0 {
		return nil
	}
	filter(specialize.KindGuard, 0, 10, "", false, frag, tc.Pass{})
	tunnelled := map[uint32]bool{}
	for n := range uint32(4) {
		tunnelled[specialize.ChainBase+n] = rnd.IntN(2) == 0
	}
	used := map[uint32]bool{}
	for _, d := range devices {
		enc := d.Name == "t"
		if enc {
			filter(specialize.KindGuard, 0, 10, "t", true, frag, tc.Pass{})
		}
		for i := range uint64(1 + rnd.IntN(4)) {
			chain := specialize.ChainBase + uint32(rnd.IntN(4))
			if tunnelled[chain] != enc {
				filter(specialize.KindRule, 0, 100, d.Name, enc, none.Eq(ir.IPDst, i), tc.Drop{})
				continue
			}
			used[chain] = true
			filter(specialize.KindRule, 0, 100, d.Name, enc, none.Eq(ir.IPDst, i), tc.Goto{Chain: chain})
		}
	}
	for chain := range uint32(4) {
		if chain += specialize.ChainBase; !used[chain] {
			continue
		}
		for i := range uint64(1 + rnd.IntN(4)) {
			filter(specialize.KindRule, chain, 100+uint16(i), "", tunnelled[chain], none.Eq(ir.IPSrc, i), tc.Drop{})
		}
		end := specialize.Closed(chain, "")
		end.Pref = specialize.PrefEnd
		end.Cookie[3] = byte(specialize.KindEnd)
		all = append(all, end)
	}
	return all
}
