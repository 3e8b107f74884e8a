package apply

import (
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// A tunnel's device gets the block although filters of it are in hardware; afterwards they are in hardware again. One that never gets it costs the
// others their hardware once.
func TestWithdrawn(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	desired := randomFilters(rand.New(rand.NewPCG(seed, 0)))
	ports := []specialize.Device{{Name: "a", Ifindex: 1}, {Name: "b", Ifindex: 2}}
	const tunnel, never = 3, 4
	k := tctest.NewKernel(t)
	k.NIC = func([]byte, int) bool { return true }
	k.Bare = func(ifindex int) bool { return ifindex == tunnel }
	withdrawn := 0
	k.Refuse = func(m netlink.Message) (unix.Errno, string) {
		if m.Header.Type != unix.RTM_NEWQDISC && m.Header.Type != unix.RTM_NEWTFILTER {
			return 0, ""
		}
		in, err := tc.Decode(m.Data)
		switch {
		case m.Header.Type == unix.RTM_NEWQDISC && binary.NativeEndian.Uint32(m.Data[4:]) == never:
			return unix.EOPNOTSUPP, ""
		case err == nil && in.Filter.Flags&tc.SkipHW != 0:
			withdrawn++
		}
		return 0, ""
	}
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	sync := func(devices int, more ...specialize.Device) {
		t.Helper()
		s, err := f.Sync(t.Context(), desired, append(more, ports...), SyncOptions{Hardware: true, Retire: true})
		if err != nil || s.Devices != devices || s.Closed != 0 || s.Installed != len(desired) {
			t.Fatalf("%+v, %v; want %d devices", s, err, devices)
		}
		err = f.conn.Dump(t.Context(), tc.Target{Block: Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
			if in.InHWCount == 0 {
				t.Errorf("not in hardware: %s", in.Filter.String())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	sync(2)
	if withdrawn != 0 {
		t.Errorf("%d filters were withdrawn for nothing", withdrawn)
	}
	sync(3, specialize.Device{Name: "c", Ifindex: tunnel})
	if withdrawn != len(desired) {
		t.Errorf("%d filters were withdrawn, want all %d", withdrawn, len(desired))
	}
	if err := f.conn.DeleteClsact(t.Context(), tunnel); err != nil { // somebody
		t.Fatal(err)
	}
	f.Forget("test")
	sync(3, specialize.Device{Name: "c", Ifindex: tunnel})
	if withdrawn != 2*len(desired) {
		t.Errorf("%d filters were withdrawn, want twice all %d", withdrawn, len(desired))
	}
	for range 2 {
		sync(2, specialize.Device{Name: "d", Ifindex: never})
	}
	if withdrawn != 3*len(desired) {
		t.Errorf("%d filters were withdrawn, want three times all %d", withdrawn, len(desired))
	}
}

// A chain that was for all packets and is for those from a tunnel now, since its number means another one, is closed for both: from tunnels a NIC
// takes no other filters than those that ask for one, and nothing is kept from it in the end.
func TestChainOfOtherPackets(t *testing.T) {
	devices := []specialize.Device{{Name: "a", Ifindex: 1}, {Name: "t", Ifindex: 2, Tunnel: true}}
	const tunnel, chain = 2, specialize.ChainBase
	filter := func(chain uint32, indev string, enc uint16, actions ...tc.Action) tc.Filter {
		f := specialize.Closed(chain, indev)
		f.Pref, f.EncDstPort, f.Actions, f.Protocol = 100, enc, actions, tc.ProtocolIPv4
		f.Cookie[3] = byte(specialize.KindRule)
		return f
	}
	of := func(enc uint16) []tc.Filter {
		ends := specialize.Closed(chain, "")
		ends.Pref = specialize.PrefEnd
		ends.Cookie[3] = byte(specialize.KindEnd)
		return []tc.Filter{
			filter(0, map[bool]string{false: "a", true: "t"}[enc != 0], enc, tc.Goto{Chain: chain}),
			filter(0, map[bool]string{true: "a", false: "t"}[enc != 0], geneveUDPPort-enc, tc.Drop{}),
			filter(chain, "", enc, tc.Drop{}), ends,
		}
	}
	k := tctest.NewKernel(t)
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
	for _, enc := range []uint16{0, geneveUDPPort, 0, geneveUDPPort} {
		desired := of(enc)
		s, err := f.Sync(t.Context(), desired, devices, SyncOptions{Hardware: true, Retire: true})
		if err != nil || s.Shadowed != 0 || s.Closed != 0 || s.Installed != len(desired) {
			t.Fatalf("tunnel's port %d: %+v, %v", enc, s, err)
		}
	}
}

// What a NIC is kept from because a filter before it is out of hardware, which changes in the same Sync, it has again in the end.
func TestKeptForAMoment(t *testing.T) {
	devices := []specialize.Device{{Name: "a", Ifindex: 1}}
	filters := func(to int) []tc.Filter {
		f := specialize.Closed(0, "a")
		f.Protocol, f.Pref, f.Actions = tc.ProtocolIPv4, 100, []tc.Action{tc.Mirred{Ifindex: to}}
		f.Cookie[3] = byte(specialize.KindEntry)
		g := f
		g.Pref, g.Actions = 101, []tc.Action{tc.Drop{}}
		return []tc.Filter{f, g}
	}
	gone := 0
	k := tctest.NewKernel(t)
	k.NIC = func(payload []byte, _ int) bool {
		in, err := tc.Decode(payload)
		if err != nil {
			t.Error(err)
			return false
		}
		m, sends := in.Filter.Actions[0].(tc.Mirred)
		return !sends || m.Ifindex != gone
	}
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	for to := 5; to < 8; to++ {
		gone = to - 1 // with its device goes what sends to it, and nobody says so
		f.Forget("test")
		s, err := f.Sync(t.Context(), filters(to), devices, SyncOptions{Hardware: true})
		if err != nil || s.Shadowed != 0 || s.Closed != 0 {
			t.Fatalf("to device %d: %+v, %v", to, s, err)
		}
	}
}

// A driver that takes filters of tunnel devices again gets all that ask for a tunnel, also those that ports had meanwhile.
func TestTunnelsAgain(t *testing.T) {
	devices := []specialize.Device{{Name: "a", Ifindex: 1}, {Name: "t", Ifindex: 2, Tunnel: true}, {Name: "b", Ifindex: 3}}
	const chain = specialize.ChainBase
	filter := func(chain uint32, pref uint16, indev string, enc uint16, actions ...tc.Action) tc.Filter {
		f := specialize.Closed(chain, indev)
		f.Pref, f.EncDstPort, f.Actions, f.Protocol = pref, enc, actions, tc.ProtocolIPv4
		f.Cookie[3] = byte(specialize.KindRule)
		return f
	}
	desired := []tc.Filter{
		filter(0, 100, "a", 0, tc.Drop{}), filter(0, 100, "b", 0, tc.Drop{}), filter(0, 100, "t", geneveUDPPort, tc.Goto{Chain: chain}),
		filter(chain, 100, "", geneveUDPPort, tc.Mirred{Ifindex: 1}), filter(chain, 101, "", geneveUDPPort, tc.Drop{}),
	}
	tunnels, offered := false, map[tc.Key]bool{} // what is installed while there are none is not theirs later
	k := tctest.NewKernel(t)
	k.Refuse = func(m netlink.Message) (unix.Errno, string) {
		if in, err := tc.Decode(m.Data); err == nil && m.Header.Type == unix.RTM_NEWTFILTER {
			offered[in.Filter.Key()] = tunnels
		}
		return 0, ""
	}
	k.NIC = func(payload []byte, ifindex int) bool {
		in, err := tc.Decode(payload)
		if err != nil {
			t.Error(err)
			return false
		}
		g := in.Filter
		if ifindex == 2 {
			return tunnels && offered[g.Key()] && (g.Indev == "" || g.Indev == "t") && g.EncDstPort != 0
		}
		m, sends := g.Actions[0].(tc.Mirred)
		return (g.Indev == "" || g.Indev == devices[ifindex-1].Name) && (!sends || m.Ifindex != ifindex)
	}
	f := NewFilters(slog.New(slog.DiscardHandler), func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil })
	for _, tunnels = range []bool{false, true} {
		if tunnels {
			if err := f.conn.DeleteClsact(t.Context(), 3); err != nil { // somebody
				t.Fatal(err)
			}
			f.Forget("test")
		}
		s, err := f.Sync(t.Context(), desired, devices, SyncOptions{Hardware: true})
		if err != nil || s.Closed != 0 || tunnels && s.Shadowed != 0 {
			t.Fatalf("tunnels %t: %+v, %v", tunnels, s, err)
		}
	}
	for _, g := range f.table.list() {
		if g.EncDstPort != 0 && f.hardware.has(&g, true) != ByAll {
			t.Errorf("not all have %s", g.String())
		}
	}
}
