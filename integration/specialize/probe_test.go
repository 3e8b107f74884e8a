package specialize

import (
	"encoding/binary"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// What a probe counts with changes no packet's way: not in software, not while its filters come and go, and not in hardware, whatever that
// refuses. Each packet of the flow is counted once where it comes in, and in each chain it comes to; others are not. Punted ones go to Open vSwitch as they came.
func TestProbeFilters(t *testing.T) {
	d := drawn(t, 1+rand.Uint64N(1<<32), min(*topologiesFlag, 8))
	seed := maphash.MakeSeed()
	const flowsOf, stride = 8, 5 // four numbers have one packet
	counted, ways, tunnelled := 0, map[eval.VerdictKind]int{}, 0
	for _, b := range d.benches {
		rules, in := b.Topology.Specialize()
		all := rules.Specialize(in).Filters()
		plain := eval.NewBlock(filtersOnly(all))
		tried := 0
		for number := d.first; number < d.first+uint64(d.packets) && tried < flowsOf; number += stride {
			a, track := b.packet(number)
			flow, ok := flowOf(a)
			if !ok {
				continue
			}
			tried++
			probes, err := ledger.Filters(all, []ledger.Flow{flow})
			if err != nil {
				continue // nothing enters by this device, or the packet may meet too much
			}
			counted++
			if flow.Tunnelled {
				tunnelled++
			}
			want := plain.Run(a.packet, a.from, track)
			ways[want.Kind]++
			judge := func(what string, got eval.Verdict) {
				t.Helper()
				if want.Kind != got.Kind || want.Ifindex != got.Ifindex || want.Packet != got.Packet || !reflect.DeepEqual(want.Tunnel, got.Tunnel) || got.Undefined && !want.Undefined {
					t.Errorf("-specialize.topology=%s -specialize.packet=%d: %s: %s to %d, without the probe %s to %d\nwith %v\nwithout %v",
						b.Topology.Name, number, what, got.Kind, got.Ifindex, want.Kind, want.Ifindex, got.Path, want.Path)
				}
			}
			with := slices.Concat(filtersOnly(all), filtersOnly(probes))
			if err := tc.Check(with); err != nil {
				t.Fatalf("%s: %v", b.Topology.Name, err)
			}
			got := eval.NewBlock(with).Run(a.packet, a.from, track)
			judge("all of its filters", got)
			chains := map[uint32]int{}
			for _, f := range got.Filters {
				if specialize.KindOf(f.Cookie) == specialize.KindProbe {
					chains[f.Chain]++
				} else if specialize.KindOf(f.Cookie) != specialize.KindGuard {
					t.Errorf("%s, packet %d: met %v, which is not the probe's", b.Topology.Name, number, f)
				}
			}
			guarded := len(got.Filters) > 0 && specialize.KindOf(got.Filters[0].Cookie) == specialize.KindGuard
			for chain, n := range chains {
				if n != 1 {
					t.Errorf("%s, packet %d: counted %d times in chain %d", b.Topology.Name, number, n, chain)
				}
			}
			if chains[0] == 0 && !guarded {
				t.Errorf("%s, packet %d: not counted where it comes in", b.Topology.Name, number)
			}
			some := rand.IntN(len(probes))
			judge("the first of its filters", eval.NewBlock(slices.Concat(filtersOnly(all), filtersOnly(probes[:some]))).Run(a.packet, a.from, track))

			hardware := slices.Clone(with)
			takes := func(f *tc.Filter, _ bool) apply.Taken {
				if maphash.Comparable(seed, f.Key())%4 == 0 {
					return apply.ByNone
				}
				return apply.ByAll
			}
			gone := apply.Shadowed(hardware, takes)
			for i := range hardware {
				if takes(&hardware[i], false) == apply.ByAll && !slices.Contains(gone, i) {
					hardware[i].Flags |= tc.InHW
				}
			}
			judge("in hardware", eval.NewHardwareBlock(hardware).Run(a.packet, a.from, track))

			moved := a // with another Ethernet address
			moved.packet.Set(ir.EthDst, ir.U64(moved.packet.Value(ir.EthDst).Lo^1))
			if want := plain.Run(moved.packet, moved.from, track); want.Kind != eval.NewBlock(with).Run(moved.packet, moved.from, track).Kind {
				t.Errorf("%s, packet %d: with another Ethernet address it is not %s", b.Topology.Name, number, want.Kind)
			}
			other := a
			port, _ := transportOf(&other.packet)
			other.packet.Set(port, ir.U64(other.packet.Value(port).Lo^1))
			for _, f := range eval.NewBlock(with).Run(other.packet, other.from, track).Filters {
				if specialize.KindOf(f.Cookie) == specialize.KindProbe {
					t.Errorf("%s, packet %d: another port is counted by %v", b.Topology.Name, number, f)
				}
			}

			flow.Punt = true
			punts, err := ledger.Filters(all, []ledger.Flow{flow})
			if err != nil || len(punts) != 1 {
				t.Fatalf("%d filters that punt, %v", len(punts), err)
			}
			if v := eval.NewBlock(slices.Concat(filtersOnly(all), filtersOnly(punts))).Run(a.packet, a.from, track); v.Kind != eval.Passed || !v.Pristine || len(v.Filters) != 1 {
				t.Errorf("%s, packet %d: punted, it is %s by %v", b.Topology.Name, number, v.Kind, v.Path)
			}
		}
	}
	t.Logf("%d flows, %d of them from tunnels: %v", counted, tunnelled, ways)
	if *packetFlag < 0 && *topologyFlag == "" && (ways[eval.Redirected] == 0 || ways[eval.Dropped] == 0 || ways[eval.Passed] == 0 || tunnelled == 0) {
		t.Error("the flows are too much alike")
	}
}

func filtersOnly(all []specialize.Filter) []tc.Filter {
	out := make([]tc.Filter, len(all))
	for i := range all {
		out[i] = all[i].Filter
	}
	return out
}

// transportOf returns the field of the source port, and the protocol; false: it is neither TCP nor UDP.
func transportOf(p *eval.Packet) (src ir.Field, ok bool) {
	switch p.Value(ir.IPProto).Lo {
	case 6:
		return ir.TCPSrc, true
	case 17:
		return ir.UDPSrc, true
	}
	return 0, false
}

// flowOf returns the flow of a packet, if it can be one.
func flowOf(a arrival) (ledger.Flow, bool) {
	p := &a.packet
	src, ok := transportOf(p)
	if !ok || p.Value(ir.IPFrag).Lo != 0 || p.Value(ir.VLANTCI).Lo != 0 {
		return ledger.Flow{}, false
	}
	var from, to netip.Addr
	switch p.Value(ir.EthType).Lo {
	case tc.ProtocolIPv4:
		from, to = ip4(p.Value(ir.IPSrc)), ip4(p.Value(ir.IPDst))
	case tc.ProtocolIPv6:
		from, to = netip.AddrFrom16(p.Value(ir.IPv6Src).Bytes16()), netip.AddrFrom16(p.Value(ir.IPv6Dst).Bytes16())
	default:
		return ledger.Flow{}, false
	}
	f := ledger.Flow{
		ID: 1, Device: a.from.Device, Tunnelled: a.from.EncDstPort != 0, Proto: uint8(p.Value(ir.IPProto).Lo),
		Src: netip.AddrPortFrom(from, uint16(p.Value(src).Lo)), Dst: netip.AddrPortFrom(to, uint16(p.Value(src+1).Lo)),
	}
	mac := p.Value(ir.EthDst).Bytes16()
	from6 := p.Value(ir.EthSrc).Bytes16()
	f.SrcMAC, f.DstMAC = from6[10:], mac[10:]
	return f, f.Check() == nil
}

func ip4(v ir.U128) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(v.Lo))
	return netip.AddrFrom4(b)
}
