// Package ledger accounts for each packet of a probe's flows: which filter decided it, in hardware or in software, and what came to Open
// vSwitch. It is pure.
//
// In go the filters of a node and the flows, each of one 5-tuple that is reserved for it; out come filters for these packets alone (Filters), which come before
// the others and do the same, or leave the packets to Open vSwitch. What these have counted makes Counts, and two readings of them with what was
// sent make an Account, which says whether what is claimed of the way of the packets is so.
package ledger

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A Flow is the packets of one direction of a connection where they come in: there is one for each direction, and for each node that they pass.
type Flow struct {
	// ID tells flows apart. 0 is none.
	ID uint32
	// Device is where its packets come in: the host's end of a veth pair, a representor, the device of the tunnels.
	Device string
	// Tunnelled says that Device is one of tunnels. Src and Dst are those of the inner packet.
	Tunnelled bool
	// Proto is 6 or 17. The addresses are of one family.
	Proto    uint8
	Src, Dst netip.AddrPort
	// DstMAC is the Ethernet destination where the packets come in; nil: it is not known, and there may be more filters than need be.
	DstMAC net.HardwareAddr
	// Punt leaves its packets to Open vSwitch, whatever others do.
	Punt bool
}

// Check returns why there can be no such flow.
func (f Flow) Check() error {
	switch {
	case f.ID == 0:
		return fmt.Errorf("ledger flow: it has no number")
	case f.Device == "":
		return fmt.Errorf("ledger flow %d: no device", f.ID)
	case f.Proto != protoTCP && f.Proto != protoUDP:
		return fmt.Errorf("ledger flow %d: protocol %d is neither TCP nor UDP", f.ID, f.Proto)
	case !f.Src.IsValid() || !f.Dst.IsValid() || f.Src.Addr().Is4() != f.Dst.Addr().Is4():
		return fmt.Errorf("ledger flow %d: %v and %v are not two addresses of one family", f.ID, f.Src, f.Dst)
	case f.Src.Port() == 0 || f.Dst.Port() == 0:
		return fmt.Errorf("ledger flow %d: a port is not said", f.ID)
	case f.DstMAC != nil && len(f.DstMAC) != 6:
		return fmt.Errorf("ledger flow %d: %v is no Ethernet address", f.ID, f.DstMAC)
	}
	return nil
}

const (
	protoTCP = 6
	protoUDP = 17
)

func (f *Flow) etherType() uint16 {
	if f.Src.Addr().Is4() {
		return tc.ProtocolIPv4
	}
	return tc.ProtocolIPv6
}

// match is the 5-tuple.
func (f *Flow) match() ir.Match {
	m := ir.Match{}.Eq(ir.IPProto, uint64(f.Proto))
	src, dst := ir.UDPSrc, ir.UDPDst
	if f.Proto == protoTCP {
		src, dst = ir.TCPSrc, ir.TCPDst
	}
	m = m.Eq(src, uint64(f.Src.Port())).Eq(dst, uint64(f.Dst.Port()))
	from, to := ir.IPSrc, ir.IPDst
	if f.Src.Addr().Is6() {
		from, to = ir.IPv6Src, ir.IPv6Dst
	}
	m, _ = m.With(from, valueOf(f.Src.Addr()), from.Ones()) // it asks for nothing of the kind yet
	m, _ = m.With(to, valueOf(f.Dst.Addr()), to.Ones())
	return m
}

func valueOf(a netip.Addr) ir.U128 {
	if a.Is4() {
		b := a.As4()
		return ir.U64(uint64(binary.BigEndian.Uint32(b[:])))
	}
	b := a.As16()
	return ir.U128{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

// possible reports whether a packet of the flow may match m where it has come in.
func (f *Flow) possible(m ir.Match) bool {
	t, asks := m.Term(ir.EthDst)
	if !asks || f.DstMAC == nil {
		return true
	}
	var b [8]byte
	copy(b[2:], f.DstMAC)
	return t.Value.Xor(ir.U64(binary.BigEndian.Uint64(b[:]))).And(t.Mask).IsZero()
}

// maxChains bounds how many chains the packets of a flow may come to. The kernel follows fewer.
const maxChains = 64

// Filters returns the filters of the flows, of a node that has these filters. Those of a flow count each of its packets in every chain that it comes to, by what
// becomes of it there; the packets go on as all others do. Or, with Punt, one filter leaves them to Open vSwitch. Guards come before them, and what closes a
// chain: of packets that meet those nothing is counted. Installed from the first to the last, and removed in reverse, they change no packet's way, but
// for that of Punt.
//
// In chain 0 the last filter of a flow counts what no other has: Open vSwitch has it, as without. A flow that there are too many filters for is an error, and
// so is one of whose device there are none.
func Filters(all []specialize.Filter, flows []Flow) ([]specialize.Filter, error) {
	if len(flows) == 0 {
		return nil, nil
	}
	chains := map[uint32][]*specialize.Filter{} // without chain 0
	entries := map[string][]*specialize.Filter{}
	for i := range all {
		switch f := &all[i]; {
		case f.Kind == specialize.KindGuard || f.Kind == specialize.KindProbe:
		case f.Chain == 0:
			entries[f.Indev] = append(entries[f.Indev], f)
		default:
			chains[f.Chain] = append(chains[f.Chain], f)
		}
	}
	byPref := func(a, b *specialize.Filter) int { return cmp.Compare(a.Pref, b.Pref) }
	for _, c := range chains { // several states may share one
		slices.SortStableFunc(c, byPref)
	}
	for _, e := range entries {
		slices.SortStableFunc(e, byPref)
	}
	var out []specialize.Filter
	for i := range flows {
		f := &flows[i]
		if err := f.Check(); err != nil {
			return nil, err
		}
		if len(entries[f.Device]) == 0 {
			return nil, fmt.Errorf("ledger flow %d: there are no filters for device %s", f.ID, f.Device)
		}
		some, err := f.filters(entries[f.Device], chains)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	slices.SortStableFunc(out, func(a, b specialize.Filter) int {
		return cmp.Or(cmp.Compare(a.Chain, b.Chain), cmp.Compare(a.Pref, b.Pref))
	})
	handles := map[tc.Key]uint32{}
	for i := range out {
		at := tc.Key{Chain: out[i].Chain, Pref: out[i].Pref}
		handles[at]++
		out[i].Handle = handles[at]
	}
	return out, nil
}

// filters are those of one flow, without handles.
func (f *Flow) filters(entries []*specialize.Filter, chains map[uint32][]*specialize.Filter) ([]specialize.Filter, error) {
	m, etherType := f.match(), f.etherType()
	if f.Punt {
		return []specialize.Filter{specialize.Punting(f.Device, f.Tunnelled, m, etherType, f.pref(0), f.ID)}, nil
	}
	var out []specialize.Filter
	level := -1
	copyChain := func(list []*specialize.Filter) (next []uint32, err error) {
		level = -1
		last := uint16(0)
		for _, g := range list { // by pref
			if !f.possible(g.Match) {
				continue
			}
			h, ok := g.Narrowed(m, etherType, 0, f.ID)
			if !ok {
				continue
			}
			if level < 0 || g.Pref != last {
				level, last = level+1, g.Pref
			}
			if h.Pref = f.pref(level); h.Pref > specialize.PrefProbeEnd {
				return nil, fmt.Errorf("ledger flow %d: its packets may meet the rules of more than %d prefs in chain %d", f.ID, level, g.Chain)
			}
			if slices.ContainsFunc(out, func(o specialize.Filter) bool {
				return o.Chain == h.Chain && o.Pref == h.Pref && o.EncDstPort == h.EncDstPort && o.Match.Equal(h.Match)
			}) {
				continue // of one pref, so they do the same
			}
			out = append(out, h)
			if to, goes := verdict(h.Actions).(tc.Goto); goes {
				next = append(next, to.Chain)
			}
		}
		return next, nil
	}
	next, err := copyChain(entries)
	if err != nil {
		return nil, err
	}
	rest := f.pref(level + 1)
	if rest > specialize.PrefProbeEnd {
		return nil, fmt.Errorf("ledger flow %d: its packets may meet the rules of more than %d prefs in chain 0", f.ID, level)
	}
	out = append(out, specialize.Punting(f.Device, f.Tunnelled, m, etherType, rest, f.ID))
	seen := map[uint32]bool{}
	for len(next) > 0 {
		chain := next[0]
		next = next[1:]
		if seen[chain] {
			continue
		}
		if seen[chain] = true; len(seen) > maxChains {
			return nil, fmt.Errorf("ledger flow %d: its packets may come to more than %d chains", f.ID, maxChains)
		}
		more, err := copyChain(chains[chain])
		if err != nil {
			return nil, err
		}
		next = append(next, more...)
	}
	return out, nil
}

// pref is that of a level of a chain: families have prefs of their own.
func (f *Flow) pref(level int) uint16 {
	p := specialize.PrefProbe + 2*uint16(min(level, 1<<10))
	if f.etherType() == tc.ProtocolIPv6 {
		p++
	}
	return p
}

func verdict(a []tc.Action) tc.Action {
	if len(a) == 0 {
		return nil
	}
	return a[len(a)-1]
}
