package apply

import (
	"bytes"
	"encoding/binary"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A nic answers requests for one block as a kernel does, with a NIC that takes some filters. It has no other state than the filters.
type nic struct {
	t       *testing.T
	takes   func(*tc.Filter) bool
	filters map[tc.Key]*tc.Filter
	answers []netlink.Message
}

func (n *nic) Close() error                 { return nil }
func (n *nic) Send(m netlink.Message) error { return n.SendMessages([]netlink.Message{m}) }
func (n *nic) has(f *tc.Filter) bool        { return f.Flags&tc.SkipHW == 0 && n.takes(f) }
func (n *nic) put(to *netlink.Message, typ netlink.HeaderType, data []byte) {
	h := netlink.Header{Type: typ, Sequence: to.Header.Sequence, PID: to.Header.PID}
	if to.Header.Flags&netlink.Dump == netlink.Dump {
		h.Flags = netlink.Multi
	}
	n.answers = append(n.answers, netlink.Message{Header: h, Data: data})
}

func (n *nic) SendMessages(all []netlink.Message) error {
	for i := range all {
		n.answer(&all[i])
	}
	return nil
}

func (n *nic) answer(m *netlink.Message) {
	ack := make([]byte, 4+16)
	switch m.Header.Type { //nolint:exhaustive // others are not to be sent
	case unix.RTM_NEWTFILTER:
		in, err := tc.Decode(m.Data)
		if err != nil {
			n.t.Fatal(err)
		}
		n.filters[in.Filter.Key()] = &in.Filter
		n.put(m, netlink.Error, ack)
	case unix.RTM_DELTFILTER:
		h := m.Data
		info := binary.NativeEndian.Uint32(h[16:])
		for k := range n.filters {
			if uint32(k.Pref) == info>>16 && k.Handle == binary.NativeEndian.Uint32(h[8:]) && bytes.Contains(h[20:], chainAttr(k.Chain)) {
				delete(n.filters, k)
			}
		}
		n.put(m, netlink.Error, ack)
	case unix.RTM_GETTFILTER:
		for _, k := range slices.SortedFunc(keysOf(n.filters), compareFilterKeys) {
			f := n.filters[k]
			b, err := tc.AppendFilter(nil, tc.Target{Block: Block}, f)
			if err != nil {
				n.t.Fatal(err)
			}
			if n.has(f) {
				const flags, inHW = 22, 4 // TCA_FLOWER_FLAGS, TCA_CLS_FLAGS_IN_HW
				b[bytes.LastIndex(b, []byte{8, 0, flags, 0})+4] |= inHW
			}
			n.put(m, unix.RTM_NEWTFILTER, b)
		}
		n.put(m, netlink.Done, make([]byte, 4))
		return
	case unix.RTM_GETQDISC:
		n.put(m, netlink.Done, make([]byte, 4))
		return
	case unix.RTM_NEWQDISC:
		n.put(m, netlink.Error, ack)
		return
	default:
		n.t.Fatalf("request %d", m.Header.Type)
	}
}

func chainAttr(chain uint32) []byte {
	return binary.NativeEndian.AppendUint32([]byte{8, 0, unix.TCA_CHAIN, 0}, chain)
}

func keysOf(m map[tc.Key]*tc.Filter) iter.Seq[tc.Key] {
	return func(yield func(tc.Key) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (n *nic) Receive() ([]netlink.Message, error) {
	if len(n.answers) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	m := n.answers[0]
	n.answers = n.answers[1:]
	return []netlink.Message{m}, nil
}

func (n *nic) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		ms, err := n.Receive()
		for _, m := range ms {
			if !yield(m, err) {
				return
			}
		}
		if err != nil {
			yield(netlink.Message{}, err)
		}
	}
}

// Once Sync has returned, a NIC that refuses filters has none that decides what an earlier one should have decided.
func TestHardware(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	refuses := map[string]bool{}
	n := &nic{t: t, filters: map[tc.Key]*tc.Filter{}, takes: func(f *tc.Filter) bool {
		g := *f
		g.Handle, g.Flags = 0, 0
		name := g.String()
		if _, known := refuses[name]; !known {
			refuses[name] = rnd.IntN(6) == 0
		}
		return !refuses[name]
	}}
	f := NewFilters(slog.New(slog.DiscardHandler))
	f.conn = tc.NewConn(netlink.NewConn(n, 7))
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
		for _, g := range n.filters {
			all = append(all, *g)
		}
		if bad := Shadowed(all, n.has); len(bad) > 0 {
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
