package eval

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

func filter(chain uint32, pref, protocol uint16, m ir.Match, actions ...tc.Action) tc.Filter {
	return tc.Filter{Chain: chain, Pref: pref, Handle: 1, Protocol: protocol, Match: m, Actions: actions}
}

func TestBlock(t *testing.T) {
	var all ir.Match
	tcp := map[ir.Field]uint64{ir.EthType: 0x0800, ir.IPProto: 6, ir.TCPDst: 80, ir.IPTTL: 64, ir.EthDst: 5}
	with := func(f ir.Field, v uint64) map[ir.Field]uint64 {
		m := maps.Clone(tcp)
		m[f] = v
		return m
	}
	out := tc.Mirred{Ifindex: 7}
	ip := func(m ir.Match, actions ...tc.Action) tc.Filter { return filter(0, 5, tc.ProtocolIPv4, m, actions...) }
	loop := func(n uint32) (all []tc.Filter) {
		for i := range n {
			all = append(all, filter(i, 1, tc.ProtocolAll, nil, tc.Goto{Chain: i + 1}))
		}
		return append(all, filter(n, 1, tc.ProtocolAll, nil, out))
	}
	tracked := func(m ir.Match) []tc.Filter {
		return []tc.Filter{
			ip(all, tc.CT{Zone: 3}, tc.Goto{Chain: 9}),
			filter(9, 1, tc.ProtocolIPv4, m, out),
			filter(9, 2, tc.ProtocolAll, nil, tc.CT{Clear: true}, tc.Pass{}),
		}
	}
	for _, c := range []struct {
		name    string
		filters []tc.Filter
		packet  map[ir.Field]uint64
		from    Arrival
		state   uint32
		want    string
	}{
		{name: "nothing", want: "passed pristine"},
		{name: "redirect", filters: []tc.Filter{ip(all, out)}, want: "redirected 7 pristine"},
		{name: "the smaller pref", filters: []tc.Filter{ip(all, out), filter(0, 4, tc.ProtocolIPv4, nil, tc.Drop{})}, want: "dropped pristine"},
		{name: "one pref, two ways", filters: []tc.Filter{ip(all, out), ip(all, tc.Drop{})}, want: "redirected 7 pristine undefined"},
		{name: "for hardware only", filters: []tc.Filter{{Pref: 1, Protocol: tc.ProtocolAll, Flags: tc.SkipSW, Actions: []tc.Action{tc.Drop{}}}}, want: "passed pristine"},
		{
			name: "one pref, the mask that came first", want: "redirected 7 pristine undefined",
			filters: []tc.Filter{ip(all.Eq(ir.EthDst, 9), tc.Drop{}), ip(all.Eq(ir.IPTTL, 64), tc.Drop{}), ip(all.Eq(ir.EthDst, 5), out)},
		},
		{name: "another EtherType", filters: []tc.Filter{filter(0, 1, tc.ProtocolIPv6, nil, out)}, want: "passed pristine"},
		{name: "a tag hides it", filters: []tc.Filter{ip(all, out)}, packet: with(ir.VLANTCI, 0x1005), want: "passed pristine"},
		{name: "the tag's EtherType", filters: []tc.Filter{filter(0, 1, tc.ProtocolVLAN, nil, out)}, packet: with(ir.VLANTCI, 0x1005), want: "redirected 7 pristine"},
		{name: "an address behind a tag", filters: []tc.Filter{filter(0, 1, tc.ProtocolVLAN, all.Eq(ir.EthType, 0x800).Eq(ir.IPTTL, 9), out)}, packet: with(ir.VLANTCI, 0x1005), want: "passed pristine"},
		{name: "a TTL behind a tag and nobody knows what", filters: []tc.Filter{filter(0, 1, tc.ProtocolVLAN, all.Eq(ir.IPTTL, 9), out)}, packet: with(ir.VLANTCI, 0x1005), want: "redirected 7 pristine"},
		{name: "addresses are those of IPv4", filters: []tc.Filter{filter(0, 1, tc.ProtocolAll, all.Masked(ir.IPSrc, 0, 1), out)}, packet: map[ir.Field]uint64{ir.EthType: 0x86dd}, want: "passed pristine"},
		{name: "an ARP operation that flower does not know", filters: []tc.Filter{filter(0, 1, tc.ProtocolARP, all.Eq(ir.ARPSPA, 0), out)}, packet: map[ir.Field]uint64{ir.EthType: 0x806, ir.ARPOp: 9, ir.ARPSPA: 5}, want: "redirected 7 pristine"},
		{name: "the device", filters: []tc.Filter{{Pref: 1, Protocol: tc.ProtocolAll, Indev: "v1", Actions: []tc.Action{out}}}, from: Arrival{Device: "v1"}, want: "redirected 7 pristine"},
		{name: "another device", filters: []tc.Filter{{Pref: 1, Protocol: tc.ProtocolAll, Indev: "v1", Actions: []tc.Action{out}}}, from: Arrival{Device: "v2"}, want: "passed pristine"},
		{name: "no tunnel", filters: []tc.Filter{{Pref: 1, Protocol: tc.ProtocolAll, EncDstPort: 6081, Actions: []tc.Action{out}}}, want: "passed pristine"},
		{name: "a tunnel", filters: []tc.Filter{{Pref: 1, Protocol: tc.ProtocolAll, EncDstPort: 6081, Actions: []tc.Action{tc.TunnelUnset{}, out}}}, from: Arrival{EncDstPort: 6081}, packet: with(ir.TunID, 4), want: "redirected 7"},
		{name: "a port with its protocol", filters: []tc.Filter{ip(all.Eq(ir.IPProto, 6).Eq(ir.TCPDst, 81), out)}, want: "passed pristine"},
		{name: "a port without its protocol", filters: []tc.Filter{ip(all.Eq(ir.TCPDst, 81), out)}, want: "redirected 7 pristine"},
		{name: "a port of another protocol", filters: []tc.Filter{ip(all.Eq(ir.IPProto, 6).Eq(ir.UDPDst, 81), out)}, want: "redirected 7 pristine"},
		{name: "a TTL without its EtherType", filters: []tc.Filter{filter(0, 1, tc.ProtocolAll, all.Eq(ir.IPTTL, 1), out)}, want: "redirected 7 pristine"},
		{name: "a fragment has no ports", filters: []tc.Filter{ip(all.Eq(ir.IPProto, 6).Eq(ir.TCPDst, 80), out)}, packet: with(ir.IPFrag, 1), want: "passed pristine"},
		{name: "any tun_metadata is the option", filters: []tc.Filter{ip(all.Eq(ir.TunMetadata0+3, 8), out)}, packet: with(ir.TunMetadata0, 8), from: Arrival{EncDstPort: 6081}, want: "redirected 7 pristine"},
		{name: "sixteen gotos", filters: loop(16), want: "redirected 7 pristine"},
		{name: "seventeen gotos", filters: loop(17), want: "dropped pristine"},
		{name: "off the end", filters: []tc.Filter{ip(all, tc.Goto{Chain: 9}), filter(9, 1, tc.ProtocolIPv6, nil, out)}, want: "lost pristine"},
		{name: "no chain", filters: []tc.Filter{ip(all, tc.Goto{Chain: 9})}, want: "lost pristine"},
		{name: "no verdict", filters: []tc.Filter{ip(all, tc.CSum{})}, want: "lost pristine"},
		{name: "a trap", filters: []tc.Filter{ip(all, tc.Trap{})}, want: "lost pristine"},
		{name: "established", filters: tracked(all.Masked(ir.CTState, 0x22, 0x3b)), state: StateEst, want: "redirected 7"},
		{name: "established and related is established", filters: tracked(all.Eq(ir.CTState, 0x22)), state: StateEst | StateRel | StateDNAT, want: "redirected 7"},
		{name: "related", filters: tracked(all.Eq(ir.CTState, 0x24)), state: StateNew | StateRel, want: "redirected 7"},
		{name: "a reply", filters: tracked(all.Masked(ir.CTState, 0x2a, 0x2a)), state: StateEst | StateRpl, want: "redirected 7"},
		{name: "invalid", filters: tracked(all.Eq(ir.CTState, 0x30)), state: StateInv | StateEst, want: "redirected 7"},
		{name: "new, forgotten", filters: tracked(all.Masked(ir.CTState, 0x22, 0x3b)), state: StateNew, want: "passed pristine"},
		{name: "passed with a connection", filters: []tc.Filter{ip(all, tc.CT{}, tc.Pass{})}, want: "passed"},
		{name: "a lookup of a fragment", filters: []tc.Filter{ip(all, tc.CT{}, tc.Pass{})}, packet: with(ir.IPFrag, 1), want: "lost pristine"},
		{name: "a lookup of what is not IP", filters: []tc.Filter{filter(0, 1, tc.ProtocolAll, nil, tc.CT{}, tc.Pass{})}, packet: map[ir.Field]uint64{ir.EthType: 0x0806}, want: "dropped pristine"},
		{name: "a commit", filters: []tc.Filter{ip(all, tc.CT{Commit: true}, tc.CT{Clear: true}, tc.Pass{})}, want: "passed"},
		{name: "a copy", filters: []tc.Filter{ip(all, tc.Mirred{Ifindex: 3, Mirror: true}, tc.Pass{})}, want: "passed"},
		{
			name: "TTL without checksum", want: "redirected 7 ttl=63 checksum",
			filters: []tc.Filter{ip(all, tc.Pedit{Edits: []tc.Edit{{Field: ir.IPTTL, Value: ir.U64(255), Mask: ir.U64(255), Add: true}}}, out)},
		},
		{
			name: "TTL with checksum", want: "redirected 7 ttl=63",
			filters: []tc.Filter{ip(all, tc.Pedit{Edits: []tc.Edit{{Field: ir.IPTTL, Value: ir.U64(255), Mask: ir.U64(255), Add: true}}}, tc.CSum{IPv4: true}, out)},
		},
		{
			name: "a rewrite of what is not there", want: "lost pristine",
			filters: []tc.Filter{ip(all, tc.Pedit{Edits: []tc.Edit{{Field: ir.UDPDst, Value: ir.U64(2), Mask: ir.U64(3)}}}, out)},
		},
		{
			name: "a rewrite of some bits", want: "redirected 7 dst=6",
			filters: []tc.Filter{ip(all, tc.Pedit{Edits: []tc.Edit{{Field: ir.EthDst, Value: ir.U64(2), Mask: ir.U64(3)}}}, out)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.packet == nil {
				c.packet = tcp
			}
			var pkt Packet
			for f, v := range c.packet {
				pkt.Set(f, ir.U64(v))
			}
			v := NewBlock(c.filters).Run(pkt, c.from, func(uint16, *Packet) Conn { return Conn{State: c.state, Mark: 1} })
			got := v.Kind.String()
			if v.Kind == Redirected {
				got += fmt.Sprintf(" %d", v.Ifindex)
			}
			if ttl := v.Packet.Value(ir.IPTTL); ttl != pkt.Value(ir.IPTTL) {
				got += fmt.Sprintf(" ttl=%d", ttl.Lo)
			}
			if dst := v.Packet.Value(ir.EthDst); dst != pkt.Value(ir.EthDst) {
				got += fmt.Sprintf(" dst=%d", dst.Lo)
			}
			for _, s := range []struct {
				is   bool
				text string
			}{{v.Pristine, " pristine"}, {v.BadChecksum, " checksum"}, {v.Undefined, " undefined"}} {
				if s.is {
					got += s.text
				}
			}
			if got != c.want {
				t.Errorf("Run = %q, want %q; path %v, %s", got, c.want, v.Path, v.Why)
			}
		})
	}
}

func TestTrack(t *testing.T) {
	p := program(
		rule(0, 1, ir.Match{}, ir.CT{Table: 1, Zone: 4}),
		rule(1, 1, ir.Match{}.Eq(ir.CTMark, 8).Eq(ir.CTZone, 4).Masked(ir.CTState, 0x22, 0x22),
			ir.CT{Commit: true, Zone: 5, Table: ir.NoTable}, ir.Learn{Table: 3}, ir.Output{Port: 1}),
	)
	var zones []uint16
	r, err := p.Run(Packet{}, 0, Options{Track: func(zone uint16, _ *Packet) Conn {
		zones = append(zones, zone)
		return Conn{State: StateEst, Mark: 8}
	}})
	if err != nil || ports(r) != "1/0x0" || r.Commits != 1 || r.Learns != 1 || !slices.Equal(zones, []uint16{4}) {
		t.Errorf("Run = %s, %d commits, %d flows learned, %v; zones %v", ports(r), r.Commits, r.Learns, err, zones)
	}
}

// A NIC does not know of filters that it has refused: what they would shadow is run.
func TestHardwareBlock(t *testing.T) {
	var all ir.Match
	out := tc.Mirred{Ifindex: 7}
	ip := func(pref uint16, flags tc.Flags, m ir.Match, actions ...tc.Action) tc.Filter {
		return tc.Filter{Pref: pref, Handle: 1, Protocol: tc.ProtocolIPv4, Match: m, Actions: actions, Flags: flags}
	}
	for _, c := range []struct {
		name      string
		filters   []tc.Filter
		state     uint32
		want      VerdictKind
		undefined bool
	}{
		{name: "nothing", want: Passed},
		{name: "shadowed", filters: []tc.Filter{ip(1, tc.InHW, all, tc.Pass{}), ip(2, tc.InHW, all, out)}, want: Passed},
		{name: "overtaken", filters: []tc.Filter{ip(1, tc.NotInHW, all, tc.Pass{}), ip(2, tc.InHW, all, out)}, want: Redirected},
		{name: "not overtaken", filters: []tc.Filter{ip(1, tc.NotInHW, all, tc.Pass{}), ip(2, tc.SkipHW, all, out)}, want: Passed},
		{name: "without order", filters: []tc.Filter{ip(1, tc.InHW, all.Eq(ir.EthDst, 5), out), ip(1, tc.InHW, all, tc.Drop{})}, want: Redirected, undefined: true},
		{name: "a trap", filters: []tc.Filter{ip(1, tc.InHW|tc.SkipSW, all, tc.Trap{})}, want: Passed},
		{name: "off the end", filters: []tc.Filter{ip(1, tc.InHW, all, tc.Goto{Chain: 9})}, want: Lost},
		{name: "on in software", filters: []tc.Filter{ip(1, tc.InHW, all, tc.Goto{Chain: 9}), {Chain: 9, Pref: 1, Handle: 1, Protocol: tc.ProtocolIPv4, Actions: []tc.Action{tc.Drop{}}}}, want: Dropped},
		{name: "new", filters: []tc.Filter{ip(1, tc.InHW, all, tc.CT{Zone: 1}, out)}, state: StateNew, want: Redirected},
		{name: "new, and software knows better", filters: []tc.Filter{ip(1, tc.NotInHW, all, tc.Drop{}), ip(2, tc.InHW, all, tc.CT{Zone: 1}, out)}, state: StateNew, want: Dropped},
		{name: "established", filters: []tc.Filter{ip(1, tc.InHW, all, tc.CT{Zone: 1}, out)}, state: StateEst, want: Redirected},
	} {
		var pkt Packet
		pkt.Set(ir.EthType, ir.U64(0x0800))
		pkt.Set(ir.EthDst, ir.U64(5))
		v := NewHardwareBlock(c.filters).Run(pkt, Arrival{}, func(uint16, *Packet) Conn { return Conn{State: c.state} })
		if v.Kind != c.want || v.Undefined != c.undefined {
			t.Errorf("%s: %v, undefined %t, want %v, undefined %t", c.name, v.Kind, v.Undefined, c.want, c.undefined)
		}
	}
}

// A connection that is translated is translated alike in both programs, and not before it is established.
func TestTrackNAT(t *testing.T) {
	conn := Conn{NAT: []ir.Set{ir.SetWhole(ir.IPDst, 77)}}
	track := func(uint16, *Packet) Conn { return conn }
	p := program(rule(0, 1, ir.Match{}, ir.CT{Table: 1, Zone: 4, NAT: &ir.NAT{}}), rule(1, 1, ir.Match{}, ir.Output{Port: 1}))
	b := NewBlock([]tc.Filter{filter(0, 1, tc.ProtocolIPv4, nil, tc.CT{Zone: 4, NAT: true}, tc.Mirred{Ifindex: 1})})
	var pkt Packet
	pkt.Set(ir.EthType, ir.U64(0x0800))
	for state, want := range map[uint32]uint64{StateNew: 0, StateEst: 77, StateEst | StateRpl: 77, StateInv: 0} {
		conn.State = state
		r, err := p.Run(pkt, 0, Options{Track: track})
		if err != nil || len(r.Outputs) != 1 || r.Outputs[0].Packet.Value(ir.IPDst).Lo != want {
			t.Errorf("state %#x: %v, %+v, want ip_dst %d", state, err, r.Outputs, want)
		}
		if v := b.Run(pkt, Arrival{}, track); v.Packet.Value(ir.IPDst).Lo != want {
			t.Errorf("state %#x: a filter gives ip_dst %d, want %d", state, v.Packet.Value(ir.IPDst).Lo, want)
		}
	}
}
