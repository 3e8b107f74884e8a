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

// Once Sync has returned, a NIC that refuses filters has none that decides what an earlier one should have decided.
func TestHardware(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	refuses := map[string]bool{}
	k := tctest.NewKernel(t)
	k.NIC = func(payload []byte) bool {
		in, err := tc.Decode(payload)
		if err != nil {
			t.Error(err)
			return false
		}
		in.Filter.Handle, in.Filter.Flags = 0, 0
		name := in.Filter.String()
		if _, known := refuses[name]; !known {
			refuses[name] = rnd.IntN(6) == 0
		}
		return !refuses[name]
	}
	f := NewFilters(slog.New(slog.DiscardHandler))
	f.conn = tc.NewConn(k.Dial())
	devices := []specialize.Device{{Name: "a", Ifindex: 1}, {Name: "b", Ifindex: 2}, {Name: "c", Ifindex: 3}}
	shadowed := 0
	for range 60 {
		desired := randomFilters(rnd)
		s, err := f.Sync(t.Context(), desired, devices, SyncOptions{Hardware: true, Retire: rnd.IntN(2) == 0})
		if err != nil {
			t.Fatal(err)
		}
		shadowed += s.Shadowed
		var all []tc.Filter
		err = f.conn.Dump(t.Context(), tc.Target{Block: Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
			all = append(all, in.Filter)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if bad := Shadowed(all, func(f *tc.Filter) bool { return f.Flags&tc.InHW != 0 }); len(bad) > 0 {
			t.Fatalf("the NIC has %s", all[bad[0]].String())
		}
	}
	if shadowed == 0 {
		t.Error("no filter was shadowed")
	}
}

// What overlaps is kept from the NIC, and what does not is not.
func TestShadowed(t *testing.T) {
	var all ir.Match
	ip := func(chain uint32, pref uint16, m ir.Match) tc.Filter {
		return tc.Filter{Chain: chain, Pref: pref, Handle: 1, Protocol: tc.ProtocolIPv4, Match: m, Actions: []tc.Action{tc.Pass{}}}
	}
	for _, c := range []struct {
		name    string
		filters []tc.Filter
		absent  []int
		want    []int
	}{
		{"all there", []tc.Filter{ip(0, 1, all), ip(0, 2, all)}, nil, nil},
		{"the later one", []tc.Filter{ip(0, 2, all), ip(0, 1, all)}, []int{1}, []int{0}},
		{"another chain", []tc.Filter{ip(0, 1, all), ip(5, 2, all)}, []int{0}, nil},
		{"another protocol", []tc.Filter{ip(0, 1, all), {Pref: 2, Handle: 1, Protocol: tc.ProtocolIPv6}}, []int{0}, nil},
		{"any protocol", []tc.Filter{ip(0, 1, all), {Pref: 2, Handle: 1, Protocol: tc.ProtocolAll}}, []int{0}, []int{1}},
		{"other values", []tc.Filter{ip(0, 1, all.Eq(ir.IPDst, 1)), ip(0, 2, all.Eq(ir.IPDst, 2)), ip(0, 3, all.Eq(ir.IPDst, 1))}, []int{0}, []int{2}},
		{"in turn", []tc.Filter{ip(0, 1, all.Eq(ir.IPDst, 1)), ip(0, 2, all.Eq(ir.EthDst, 1)), ip(0, 3, all.Eq(ir.IPDst, 2))}, []int{0}, []int{1, 2}},
		{"one pref", []tc.Filter{ip(0, 1, all.Eq(ir.IPDst, 1)), {Pref: 1, Handle: 2, Protocol: tc.ProtocolIPv4, Match: all.Eq(ir.IPDst, 2)}}, []int{0}, nil},
		{"other devices", []tc.Filter{{Pref: 1, Handle: 1, Protocol: tc.ProtocolIPv4, Indev: "a"}, {Pref: 2, Handle: 1, Protocol: tc.ProtocolIPv4, Indev: "b"}}, []int{0}, nil},
	} {
		got := Shadowed(c.filters, func(f *tc.Filter) bool {
			return !slices.ContainsFunc(c.absent, func(i int) bool { return c.filters[i].Key() == f.Key() })
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: Shadowed = %v, want %v", c.name, got, c.want)
		}
	}
}
