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
	// SrcMAC and DstMAC are the Ethernet addresses where the packets come in: others are not counted. nil: any, and there may be more filters than need be.
	SrcMAC, DstMAC net.HardwareAddr
	// Punt leaves its packets to Open vSwitch, whatever others do.
	Punt bool
	// Await says that Device may have no filters yet: the flow has none then either, and they come with those of the device.
	Await bool
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
	}
	for _, mac := range []net.HardwareAddr{f.SrcMAC, f.DstMAC} {
		if mac != nil && len(mac) != 6 {
			return fmt.Errorf("ledger flow %d: %v is no Ethernet address", f.ID, mac)
		}
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

// match is the 5-tuple, and what is known of Ethernet addresses.
func (f *Flow) match() ir.Match {
	m := ir.Match{}.Eq(ir.IPProto, uint64(f.Proto))
	if f.SrcMAC != nil {
		m = m.Eq(ir.EthSrc, macOf(f.SrcMAC))
	}
	if f.DstMAC != nil {
		m = m.Eq(ir.EthDst, macOf(f.DstMAC))
	}
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

func macOf(a net.HardwareAddr) uint64 {
	var b [8]byte
	copy(b[2:], a)
	return binary.BigEndian.Uint64(b[:])
}

// maxChains bounds how many chains the packets of a flow may come to. The kernel follows fewer.
const maxChains = 64

// Filters returns the filters of the flows, of a node that has these filters. Those of a flow count each of its packets in every chain that it comes to, by what
// becomes of it there; the packets go on as all others do. Or, with Punt, one filter leaves them to Open vSwitch. Guards come before them, and what closes a
// chain: of packets that meet those nothing is counted. Installed from the first to the last, and removed in reverse, they change no packet's way, but
// for that of Punt.
//
// In chain 0 the last filter of a flow counts what no other has: Open vSwitch has it, as without. A flow that there are too many filters for is an error, and
// so is one of whose device there are none, unless it awaits them.
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
			if f.Await {
				continue
			}
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
	chainOf := func(chain uint32) []*specialize.Filter {
		if chain == 0 {
			return entries
		}
		return chains[chain]
	}
	// Where the packets come to, and in which zones they may have been looked up.
	visits := []visit{{0, noZone}}
	zones := map[uint32][]int{0: {noZone}}
	for i := 0; i < len(visits); i++ {
		v := visits[i]
		for _, g := range chainOf(v.chain) {
			if _, ok := g.Narrowed(m, etherType, 0, f.ID); !ok || !inZone(g, v.zone) {
				continue
			}
			to, goes := v.after(g)
			if !goes || slices.Contains(visits, to) {
				continue
			}
			if visits = append(visits, to); len(visits) > maxChains {
				return nil, fmt.Errorf("ledger flow %d: its packets may come to more than %d chains", f.ID, maxChains)
			}
			zones[to.chain] = append(zones[to.chain], to.zone)
		}
	}
	var out []specialize.Filter
	for chain, in := range zones {
		level, last, all := -1, uint16(0), false
		add := func(h specialize.Filter, pref uint16) error {
			if level < 0 || pref != last {
				level, last = level+1, pref
			}
			if h.Pref = f.pref(level); h.Pref > specialize.PrefProbeEnd {
				return fmt.Errorf("ledger flow %d: its packets may meet the rules of more than %d prefs in chain %d", f.ID, level, chain)
			}
			same := func(o specialize.Filter) bool {
				return o.Chain == h.Chain && o.Pref == h.Pref && o.EncDstPort == h.EncDstPort && o.Match.Equal(h.Match)
			}
			if !slices.ContainsFunc(out, same) { // of one pref, so they do the same
				out = append(out, h)
			}
			all = all || h.Match.Equal(m)
			return nil
		}
		for _, g := range chainOf(chain) {
			h, ok := g.Narrowed(m, etherType, 0, f.ID)
			if !ok || !slices.ContainsFunc(in, func(zone int) bool { return inZone(g, zone) }) {
				continue
			}
			if all && g.Pref != last {
				break // no packet is left
			}
			if err := add(h, g.Pref); err != nil {
				return nil, err
			}
		}
		if chain == 0 && !all {
			if err := add(specialize.Punting(f.Device, f.Tunnelled, m, etherType, 0, f.ID), 0); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// A visit is a chain to which packets may come, and the zone in which they have been looked up before.
type visit struct {
	chain uint32
	zone  int
}

const noZone = -1

// after returns where a filter sends packets on to, if it does.
func (v visit) after(g *specialize.Filter) (to visit, goes bool) {
	next, goes := verdict(g.Actions).(tc.Goto)
	to = visit{next.Chain, v.zone}
	for _, a := range g.Actions {
		if ct, is := a.(tc.CT); is {
			if to.zone = int(ct.Zone); ct.Clear {
				to.zone = noZone
			}
		}
	}
	return to, goes
}

// inZone reports whether packets that were looked up in a zone may match a filter.
func inZone(g *specialize.Filter, zone int) bool {
	t, asks := g.Match.Term(ir.CTZone)
	return !asks || zone != noZone && t.Value.Xor(ir.U64(uint64(zone))).And(t.Mask).IsZero()
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
