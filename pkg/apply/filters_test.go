package apply

import (
	"bytes"
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

// Once Sync has returned, a NIC that refuses filters, each for some devices, has for no device one that decides what an earlier one should have
// decided.
func TestHardware(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	type asked struct {
		filter  string
		ifindex int
	}
	refuses := map[asked]bool{}
	devices := []specialize.Device{{Name: "a", Ifindex: 1}, {Name: "b", Ifindex: 2}, {Name: "c", Ifindex: 3}}
	takes := func(g tc.Filter, ifindex int) bool {
		if g.Indev != "" && g.Indev != devices[ifindex-1].Name {
			return false
		}
		if specialize.KindOf(g.Cookie) == specialize.KindClosed && g.Indev != "" {
			return true // if none of its own is taken, a device is thought to take none at all
		}
		g.Handle, g.Flags = 0, 0
		one, all := asked{g.String(), ifindex}, asked{g.String(), 0}
		if _, known := refuses[all]; !known {
			refuses[all] = rnd.IntN(12) == 0
		}
		if _, known := refuses[one]; !known {
			refuses[one] = rnd.IntN(36) == 0
		}
		return !refuses[one] && !refuses[all]
	}
	k := tctest.NewKernel(t)
	k.NIC = func(payload []byte, ifindex int) bool {
		in, err := tc.Decode(payload)
		if err != nil {
			t.Error(err)
			return false
		}
		return takes(in.Filter, ifindex)
	}
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	shadowed, had := 0, 0
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
		for _, d := range devices {
			var absent []*tc.Filter
			enters := false // packets of d meet what is not for d alone only behind what is
			for i := range all {
				g := &all[i]
				switch {
				case g.Indev != "" && g.Indev != d.Name:
				case g.Flags&tc.SkipHW != 0 || !takes(*g, d.Ifindex):
					absent = append(absent, g)
				case g.Indev == d.Name:
					enters = true
				}
			}
			for i := range all {
				g := &all[i]
				if !enters || g.Indev != "" && g.Indev != d.Name || g.Flags&tc.SkipHW != 0 || !takes(*g, d.Ifindex) {
					continue
				}
				had++
				if n := slices.IndexFunc(absent, func(a *tc.Filter) bool { return a.Chain == g.Chain && a.Pref < g.Pref && overlap(a, g) }); n >= 0 {
					t.Fatalf("for %s the NIC has %s, but not %s", d.Name, g.String(), absent[n].String())
				}
			}
		}
	}
	if shadowed == 0 || had == 0 {
		t.Errorf("%d filters were shadowed, the NIC had %d", shadowed, had)
	}
}

// When Sync says that what changes is closed, no chain or device that is used has a filter that is not as desired without one that closes it.
func TestClosed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	k := tctest.NewKernel(t)
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	devices := []specialize.Device{{Name: "a", Ifindex: 1}, {Name: "b", Ifindex: 2}, {Name: "c", Ifindex: 3}}
	closed, old := 0, 0
	for range 60 {
		desired := randomFilters(rnd)
		used, wanted := map[scope]bool{}, map[filterID]*tc.Filter{}
		for i := range desired {
			g := &desired[i]
			used[scopeOf(g)], wanted[idOf(g)] = true, g
		}
		calls := 0
		_, err := f.Sync(t.Context(), desired, devices, SyncOptions{Closed: func() {
			calls++
			is := map[scope]bool{}
			var others []tc.Filter
			err := tc.NewConn(k.Dial()).Dump(t.Context(), tc.Target{Block: Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
				g := in.Filter
				switch {
				case specialize.KindOf(g.Cookie) == specialize.KindClosed:
					is[scopeOf(&g)] = true
					closed++
				case used[scopeOf(&g)] && g.Pref != specialize.PrefGuard && (wanted[idOf(&g)] == nil || !sameEffect(wanted[idOf(&g)], &g)):
					others = append(others, g)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			for i := range others {
				if old++; !is[scopeOf(&others[i])] {
					t.Errorf("what changes is said to be closed, and %s decides", others[i].String())
				}
			}
		}})
		if err != nil || calls != 1 {
			t.Fatalf("%d times told that what changes is closed, %v", calls, err)
		}
	}
	if closed == 0 || old == 0 {
		t.Errorf("%d filters closed something, %d were not as desired", closed, old)
	}

	k.Refuse = func(m netlink.Message) (unix.Errno, string) {
		if m.Header.Flags&netlink.Dump == 0 {
			return unix.EPERM, ""
		}
		return 0, ""
	}
	told := false
	for range 10 {
		_, _ = f.Sync(t.Context(), randomFilters(rnd), devices, SyncOptions{Closed: func() { told = told || f.table.Closed() == 0 && f.table.Len() > 0 }})
	}
	if told {
		t.Error("what changes is said to be closed, although nothing could be")
	}
}

// A NIC that refuses one of many filters goes on with those that do not come after it, takes all again once it does not refuse it any
// more and something changes there, and those that it has lost.
func TestHardwareComesBack(t *testing.T) {
	k := tctest.NewKernel(t)
	refused, gone := uint16(200), map[int]bool{}
	k.NIC = func(payload []byte, ifindex int) bool {
		in, err := tc.Decode(payload)
		if err != nil {
			t.Error(err)
			return false
		}
		g := in.Filter
		tunnel := ifindex == 9
		switch {
		case gone[ifindex] || g.Pref == refused:
			return false
		case tunnel:
			return g.EncDstPort != 0
		default:
			return g.Indev == "" || g.Indev == "pod"
		}
	}
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	ours := specialize.Closed(0, "").Cookie
	ours[3] = byte(specialize.KindEntry)
	filter := func(pref uint16, from string, port uint16, m ir.Match) tc.Filter {
		return tc.Filter{Pref: pref, Protocol: tc.ProtocolIPv4, Indev: from, EncDstPort: port, Match: m, Cookie: ours, Actions: []tc.Action{tc.Pass{}}}
	}
	var all ir.Match
	frag := all.Eq(ir.IPFrag, 1)
	desired := []tc.Filter{
		filter(10, "", 0, frag), filter(10, "tunnel", geneveUDPPort, frag),
		filter(100, "pod", 0, all.Eq(ir.IPDst, 1)), filter(200, "pod", 0, all.Eq(ir.IPProto, 6)),
		filter(300, "pod", 0, all.Eq(ir.IPProto, 17)), filter(400, "pod", 0, all),
		filter(100, "tunnel", geneveUDPPort, all),
	}
	devices := []specialize.Device{{Name: "pod", Ifindex: 1}, {Name: "tunnel", Ifindex: 9, Tunnel: true}}
	sync := func(what string, want ...uint16) {
		t.Helper()
		if _, err := f.Sync(t.Context(), desired, devices, SyncOptions{Hardware: true}); err != nil {
			t.Fatal(err)
		}
		var has []*tc.Installed
		var prefs []uint16
		err := f.conn.Dump(t.Context(), tc.Target{Block: Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
			if has = append(has, in); in.Filter.Flags&tc.InHW != 0 {
				prefs = append(prefs, in.Filter.Pref)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(prefs, want) {
			t.Errorf("%s: in hardware are %v, want %v", what, prefs, want)
		}
		if n := f.Lost(has); n != 0 {
			t.Errorf("%s: %d filters are lost", what, n)
		}
	}
	listed := func() (all []*tc.Installed) {
		err := f.conn.Dump(t.Context(), tc.Target{Block: Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
			all = append(all, in)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	sync("a filter is refused", 10, 10, 100, 100, 300)
	refused = 0
	sync("nothing changes", 10, 10, 100, 100, 200, 300) // this kernel's NIC takes it by itself
	desired = append(desired, filter(500, "pod", 0, all))
	sync("something changes", 10, 10, 100, 100, 200, 300, 400, 500)

	gone[9] = true
	if n := f.Lost(listed()); n != 2 {
		t.Errorf("the tunnel device has lost %d filters, want 2", n)
	}
	sync("what is lost", 10, 100, 200, 300, 400, 500)
	gone[9] = false
	devices = append(devices, specialize.Device{Name: "another", Ifindex: 2})
	sync("a device comes", 10, 10, 100, 100, 200, 300, 400, 500)
}

// A kernel that refuses everything for a while, as one does whose block somebody takes away in the middle of a change, is asked again, and
// then has what is wanted.
func TestEverythingRefused(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 0))
	k := tctest.NewKernel(t)
	k.NIC = func([]byte, int) bool { return true }
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	devices := []specialize.Device{{Name: "a", Ifindex: 1}, {Name: "b", Ifindex: 2}, {Name: "c", Ifindex: 3}}
	sync := func(desired []tc.Filter) FilterStatus {
		t.Helper()
		s, err := f.Sync(t.Context(), desired, devices, SyncOptions{Hardware: true, Retire: true})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for range 20 {
		before, after := randomFilters(rnd), randomFilters(rnd)
		sync(before)
		k.Refuse = func(m netlink.Message) (unix.Errno, string) {
			if m.Header.Type == unix.RTM_NEWTFILTER {
				return unix.EINVAL, "Block of given index was not found"
			}
			return 0, ""
		}
		sync(after)
		k.Refuse = nil
		f.Forget("test")
		if s := sync(after); len(s.Refused) > 0 || s.Closed > 0 || s.Installed < len(after) {
			t.Fatalf("%+v, want %d filters", s, len(after))
		}
	}
}

// Changes are known as ours also after the connection has been given up by which they were made: their events may come later.
func TestOurs(t *testing.T) {
	k := tctest.NewKernel(t)
	var conns []*tc.Conn
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) {
		conns = append(conns, tc.NewConn(k.Dial()))
		return conns[len(conns)-1], nil
	})
	if f.Ours(0) || f.Ours(1) {
		t.Error("before there is a connection, some changes are ours")
	}
	for n := range maxPorts + 2 {
		if _, err := f.Sync(t.Context(), randomFilters(rand.New(rand.NewPCG(1, 0))), []specialize.Device{{Name: "a", Ifindex: 1}}, SyncOptions{}); err != nil {
			t.Fatal(err)
		}
		for i, c := range conns {
			if got, want := f.Ours(c.Port()), i >= n-maxPorts; got != want {
				t.Errorf("after %d connections were given up, changes by that of number %d, port %d, are ours: %t", n, i, c.Port(), got)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f.Forget("test")
	}
	if f.Ours(0) {
		t.Error("what the kernel does by itself is ours")
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
		got := Shadowed(c.filters, func(f *tc.Filter, _ bool) Taken {
			if slices.ContainsFunc(c.absent, func(i int) bool { return c.filters[i].Key() == f.Key() }) {
				return ByNone
			}
			return ByAll
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

// What closes a device may be refused itself: the device has just gone. The rest goes on.
func TestRefusedGuard(t *testing.T) {
	k := tctest.NewKernel(t)
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	ours := specialize.Closed(0, "").Cookie
	ours[3] = byte(specialize.KindEntry)
	filter := func(from string) tc.Filter {
		return tc.Filter{Pref: 100, Protocol: tc.ProtocolIPv4, Indev: from, Cookie: ours, Actions: []tc.Action{tc.Mirred{Ifindex: 1}}}
	}
	k.Refuse = func(m netlink.Message) (unix.Errno, string) {
		if m.Header.Type == unix.RTM_NEWTFILTER && bytes.Contains(m.Data, []byte("gone\x00")) {
			return unix.EINVAL, ""
		}
		return 0, ""
	}
	devices := []specialize.Device{{Name: "here", Ifindex: 1}, {Name: "gone", Ifindex: 2}}
	s, err := f.Sync(t.Context(), []tc.Filter{filter("here"), filter("gone")}, devices, SyncOptions{Hardware: true})
	if err != nil || s.Installed != 1 || s.Closed != 0 || len(s.Refused) == 0 {
		t.Errorf("Sync = %+v, %v; want one filter, and the others refused", s, err)
	}
}
