package apply

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

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
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
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

// A device that was made anew gets the filters of the old one, and those that send to it send to the new one, before anybody has
// computed anything. One that is not there for a while changes nothing.
func TestDeviceMadeAnew(t *testing.T) {
	k := tctest.NewKernel(t)
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	ours := specialize.Closed(0, "").Cookie
	ours[3] = byte(specialize.KindEntry)
	filter := func(from string, to int) tc.Filter {
		return tc.Filter{Pref: 100, Protocol: tc.ProtocolIPv4, Indev: from, Cookie: ours, Actions: []tc.Action{tc.Mirred{Ifindex: to}}}
	}
	sync := func(tunnel int) FilterStatus {
		t.Helper()
		devices := []specialize.Device{{Name: "pod", Ifindex: 1}, {Name: "tunnels", Ifindex: tunnel}}
		if err := f.Follow(t.Context(), devices, SyncOptions{}); err != nil {
			t.Fatal(err)
		}
		s, err := f.Sync(t.Context(), []tc.Filter{filter("pod", tunnel), filter("tunnels", 1)}, devices, SyncOptions{})
		if err != nil || s.Installed != 2 || s.Closed != 0 {
			t.Fatalf("Sync = %+v, %v", s, err)
		}
		return s
	}
	sync(7)
	if s := sync(7); s.Changed != 0 {
		t.Errorf("%d operations for nothing", s.Changed)
	}
	f.Gone(7)
	k.Refuse = func(m netlink.Message) (unix.Errno, string) {
		if m.Header.Type == unix.RTM_NEWQDISC {
			return unix.ENODEV, ""
		}
		return 0, ""
	}
	if s := sync(7); s.Changed != 0 || len(s.Refused) != 1 {
		t.Errorf("%d operations while the device is not there, and %v", s.Changed, s.Refused)
	}
	k.Refuse = nil
	// The filter that enters by the device goes, and comes back with its number; the one that sends to it has followed.
	if s := sync(8); s.Changed != 4 {
		t.Errorf("%d operations after the device was made anew, want those that close, delete, add and open", s.Changed)
	}
	for _, g := range f.table.list() {
		if m := g.Actions[0].(tc.Mirred); m.Ifindex == 7 {
			t.Errorf("a filter still sends to the old device: %s", g.String())
		}
	}
}
