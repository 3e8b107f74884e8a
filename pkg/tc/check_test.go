package tc

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Filters that break one rule each, and words of the error.
func TestCheckFilter(t *testing.T) {
	m := ir.Match{}
	ok := func(f Filter) Filter {
		f.Pref, f.Handle = 1, 1
		if f.Protocol == 0 {
			f.Protocol = ProtocolIPv4
		}
		if f.Actions == nil {
			f.Actions = []Action{Drop{}}
		}
		return f
	}
	acts := func(as ...Action) Filter { return ok(Filter{Actions: as}) }
	tcp := func(as ...Action) Filter { return ok(Filter{Match: m.Eq(ir.IPProto, 6), Actions: as}) }
	whole := func(f ir.Field, v uint64) Edit { return Edit{Field: f, Value: ir.U64(v), Mask: f.Ones()} }
	a1, a2, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::1")
	dnat := CT{Commit: true, NAT: true, Dst: true, AddrMin: a1, AddrMax: a2}
	for _, c := range []struct {
		name, want string // "": nothing is wrong
		f          Filter
	}{
		{"drop", "", ok(Filter{})},
		{"chain", "chain is more than", func() Filter { f := ok(Filter{}); f.Chain = MaxChain + 1; return f }()},
		{"pref 0", "pref is 0", Filter{Handle: 1, Protocol: ProtocolAll, Actions: []Action{Drop{}}}},
		{"handle 0", "handle is 0", Filter{Pref: 1, Protocol: ProtocolAll, Actions: []Action{Drop{}}}},
		{"flags", "skip_hw and skip_sw", ok(Filter{Flags: SkipHW | SkipSW})},
		{"kernel's flags", "for the kernel", ok(Filter{Flags: InHW})},

		{"port without ip_proto", "without nw_proto=6", ok(Filter{Match: m.Eq(ir.TCPDst, 80)})},
		{"port of another", "without nw_proto=17", ok(Filter{Match: m.Eq(ir.IPProto, 6).Eq(ir.UDPDst, 80)})},
		{"partial ip_proto", "without nw_proto=6", ok(Filter{Match: m.Masked(ir.IPProto, 6, 0x7f).Eq(ir.TCPDst, 80)})},
		{"partial ip_proto alone", "as a whole only", ok(Filter{Match: m.Masked(ir.IPProto, 6, 0x7f)})},
		{"ip of arp", "the kernel would ignore it", ok(Filter{Protocol: ProtocolARP, Match: m.Eq(ir.IPSrc, 1)})},
		{"ttl of all", "the kernel would ignore it", ok(Filter{Protocol: ProtocolAll, Match: m.Eq(ir.IPTTL, 1)})},
		{"tos of all", "the kernel would ignore it", ok(Filter{Protocol: ProtocolAll, Match: m.Eq(ir.IPDSCP, 1)})},
		{"ipv6 in ipv4", "the kernel would ignore it", ok(Filter{Match: m.Eq(ir.IPv6Src, 1)})},
		{"icmp", "without nw_proto=1", ok(Filter{Match: m.Eq(ir.ICMPType, 8)})},
		{"icmpv6", "without nw_proto=58", ok(Filter{Protocol: ProtocolIPv6, Match: m.Eq(ir.ICMPv6Type, 8)})},
		{"icmp of ipv6", "the kernel would ignore it", ok(Filter{Protocol: ProtocolIPv6, Match: m.Eq(ir.IPProto, 1).Eq(ir.ICMPType, 8)})},
		{"arp of ip", "the kernel would ignore it", ok(Filter{Match: m.Eq(ir.ARPOp, 1)})},
		{"ip in vlan", "", ok(Filter{Protocol: ProtocolVLAN, Match: m.Eq(ir.EthType, ProtocolIPv4).Eq(ir.IPDst, 1)})},
		{"ip in anything in vlan", "the kernel would ignore it", ok(Filter{Protocol: ProtocolVLAN, Match: m.Eq(ir.IPDst, 1)})},
		{"vlan of ip", "can look into the tag", ok(Filter{Match: m.Masked(ir.VLANTCI, 0x1005, 0x1fff)})},
		{"register", "flower has no key", ok(Filter{Match: m.Eq(ir.Reg0, 1)})},
		{"two tunnels", "both IPv4 and IPv6", ok(Filter{Match: m.Eq(ir.TunSrc, 1).Eq(ir.TunIPv6Dst, 1)})},
		{"indev", "not the name of a device", ok(Filter{Indev: "a b"})},
		{"order", "not in order", ok(Filter{Match: ir.Match{{Field: ir.IPDst, Mask: ir.Ones(32)}, {Field: ir.IPSrc, Mask: ir.Ones(32)}}})},

		{"state", "", ok(Filter{Match: m.Masked(ir.CTState, stateTrk|stateEst, stateTrk|stateEst|stateNew|stateInv)})},
		{"untracked", "", ok(Filter{Match: m.Masked(ir.CTState, 0, stateTrk)})},
		{"state without trk", "not +trk", ok(Filter{Match: m.Masked(ir.CTState, stateEst, stateEst)})},
		{"new and est", "+new+est", ok(Filter{Match: m.Masked(ir.CTState, stateTrk|stateNew|stateEst, 63)})},
		{"new and rpl", "+new+rpl", ok(Filter{Match: m.Masked(ir.CTState, stateTrk|stateNew|stateRpl, 63)})},
		{"inv and rel", "+inv with other", ok(Filter{Match: m.Masked(ir.CTState, stateTrk|stateInv|stateRel, 63)})},

		{"no actions", "no actions", Filter{Pref: 1, Handle: 1, Protocol: ProtocolAll}},
		{"too many", "33 actions", acts(append(make([]Action, 0), func() (as []Action) {
			for range 32 {
				as = append(as, Mirred{Ifindex: 1, Mirror: true})
			}
			return append(as, Drop{})
		}()...)...)},
		{"no verdict", "gives no verdict", acts(CT{Zone: 1})},
		{"mirror last", "gives no verdict", acts(Mirred{Ifindex: 1, Mirror: true})},
		{"after verdict", "is not the last", acts(Drop{}, Drop{})},
		{"after redirect", "is not the last", acts(Mirred{Ifindex: 1}, Drop{})},
		{"trap", "in software the packet is lost", acts(Trap{})},
		{"trap in hardware", "", ok(Filter{Flags: SkipSW, Actions: []Action{Trap{}}})},
		{"unset and goto", "tunnel_key unset and goto", acts(TunnelUnset{}, Goto{1})},

		{"pass", "", acts(Pass{})},
		{"pass, tracked", "must not find it tracked", acts(CT{Zone: 1}, Pass{})},
		{"pass, cleared", "", acts(CT{Zone: 1}, CT{Clear: true}, Pass{})},
		{"pass, committed", "must find it as it came", acts(CT{Zone: 1, Commit: true}, CT{Clear: true}, Pass{})},
		{"pass, translated", "must find it as it came", acts(CT{Zone: 1, NAT: true}, CT{Clear: true}, Pass{})},
		{"pass, edited", "must find it as it came", acts(Pedit{[]Edit{whole(ir.EthSrc, 1)}}, Pass{})},
		{"pass, tagged", "must find it as it came", acts(VLAN{Op: VLANPop}, Pass{})},
		{"pass, tunnel", "must find it as it came", acts(TunnelUnset{}, Pass{})},
		{"pass, marked", "must find it as it came", acts(SkbEdit{Mark: 1, MarkMask: 1}, Pass{})},
		{"pass, mirrored", "must find it as it came", acts(Mirred{Ifindex: 1, Mirror: true}, Pass{})},

		{"two lookups", "a second ct", acts(CT{Zone: 1}, CT{Zone: 2}, Drop{})},
		{"lookup after edit", "ct after a change", acts(Pedit{[]Edit{whole(ir.EthSrc, 1)}}, CT{Zone: 1}, Drop{})},
		{"ct of arp", "the kernel drops what is not IP", ok(Filter{Protocol: ProtocolARP, Actions: []Action{CT{Zone: 1}, Drop{}}})},
		{"tuple", "without ct clear", tcp(Pedit{[]Edit{whole(ir.IPDst, 1)}}, CSum{IPv4: true, TCP: true}, Drop{})},
		{"tuple, cleared", "", tcp(CT{Clear: true}, Pedit{[]Edit{whole(ir.IPDst, 1)}}, CSum{IPv4: true, TCP: true}, Drop{})},
		{"tuple, looked up", "with another ct", tcp(CT{Zone: 1}, CT{Clear: true}, Pedit{[]Edit{whole(ir.IPDst, 1)}}, CSum{IPv4: true, TCP: true}, Drop{})},
		{"ttl without csum", "checksum that it breaks", acts(Pedit{[]Edit{whole(ir.IPTTL, 1)}}, Drop{})},
		{"ttl, csum before", "checksum that it breaks", acts(CSum{IPv4: true}, Pedit{[]Edit{whole(ir.IPTTL, 1)}}, Drop{})},
		{"ttl", "", acts(Pedit{[]Edit{whole(ir.IPTTL, 1)}}, CSum{IPv4: true}, Drop{})},
		{"hop limit", "", ok(Filter{Protocol: ProtocolIPv6, Actions: []Action{Pedit{[]Edit{whole(ir.IPTTL, 1)}}, Drop{}}})},
		{"address without protocol", "cannot be mended", acts(CT{Clear: true}, Pedit{[]Edit{whole(ir.IPDst, 1)}}, CSum{IPv4: true}, Drop{})},
		{"port without tcp csum", "checksum that it breaks", tcp(CT{Clear: true}, Pedit{[]Edit{whole(ir.TCPDst, 1)}}, CSum{IPv4: true}, Drop{})},
		{"udp port of tcp", "in a filter for nw_proto=6", tcp(CT{Clear: true}, Pedit{[]Edit{whole(ir.UDPDst, 1)}}, CSum{UDP: true, TCP: true}, Drop{})},
		{"ttl of arp", "not for the protocol", ok(Filter{Protocol: ProtocolARP, Actions: []Action{Pedit{[]Edit{whole(ir.IPTTL, 1)}}, Drop{}}})},
		{"edit of ct_mark", "pedit cannot do it", acts(Pedit{[]Edit{whole(ir.CTMark, 1)}}, Drop{})},
		{"edit twice", "two edits", acts(Pedit{[]Edit{whole(ir.EthSrc, 1), whole(ir.EthSrc, 2)}}, Drop{})},
		{"add to address", "only the TTL", tcp(CT{Clear: true}, Pedit{[]Edit{{Field: ir.IPDst, Value: ir.U64(1), Mask: ir.Ones(32), Add: true}}}, CSum{IPv4: true, TCP: true}, Drop{})},

		{"clear with zone", "clear goes with nothing", acts(CT{Clear: true, Zone: 1}, Drop{})},
		{"mark without commit", "without commit", acts(CT{Mark: 1, MarkMask: 1}, Drop{})},
		{"mark outside", "outside its mask", acts(CT{Commit: true, Mark: 2, MarkMask: 1}, Drop{})},
		{"dnat", "", acts(dnat, Drop{})},
		{"dnat, families", "no range", acts(CT{Commit: true, NAT: true, Dst: true, AddrMin: a1, AddrMax: v6}, Drop{})},
		{"dnat, one address", "no range", acts(CT{Commit: true, NAT: true, Dst: true, AddrMin: a1}, Drop{})},
		{"dnat without commit", "without nat and commit", acts(CT{NAT: true, Dst: true, AddrMin: a1, AddrMax: a1}, Drop{})},
		{"tunnel, families", "one family", acts(TunnelSet{Src: a1, Dst: v6}, Mirred{Ifindex: 1})},
		{"tunnel, id", "24 bits", acts(TunnelSet{Src: a1, Dst: a2, ID: 1 << 24}, Mirred{Ifindex: 1})},
		{"tunnel, option", "3 bytes", acts(TunnelSet{Src: a1, Dst: a2, Options: []GeneveOption{{1, 1, "abc"}}}, Mirred{Ifindex: 1})},
		{"tag", "12 bits", acts(VLAN{VLANPush, 4096, 0, ProtocolVLAN}, Drop{})},
		{"mark of nothing", "nothing to edit", acts(SkbEdit{}, Drop{})},
		{"no device", "no device", acts(Mirred{})},
		{"no checksum", "no checksum", acts(CSum{}, Drop{})},
	} {
		err := c.f.Check()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "tc filter chain ")):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}

	label := ok(Filter{Match: m.Masked(ir.CTLabel, 1, 1)})
	if err := label.Check(); err != nil {
		t.Error(err)
	}
	if err := (Rules{WholeLabels: true}).CheckFilter(&label); err == nil {
		t.Error("a part of ct_label is allowed under WholeLabels")
	}
}

// Filters that are wrong together only.
func TestCheck(t *testing.T) {
	m := ir.Match{}
	filter := func(chain uint32, pref uint16, match ir.Match, as ...Action) Filter {
		return Filter{Chain: chain, Pref: pref, Handle: 1, Protocol: ProtocolIPv4, Match: match, Actions: as}
	}
	all := func(chain uint32, as ...Action) Filter {
		return Filter{Chain: chain, Pref: 65535, Handle: 1, Protocol: ProtocolAll, Actions: as}
	}
	handle := func(h uint32, f Filter) Filter { f.Handle = h; return f }
	line := func(n int, last Action) (fs []Filter) {
		for i := range n {
			fs = append(fs, all(uint32(i), Goto{uint32(i + 1)}))
		}
		return append(fs, all(uint32(n), last))
	}
	tcp := func(port uint64) ir.Match { return m.Eq(ir.IPProto, 6).Eq(ir.TCPDst, port) }
	for _, c := range []struct {
		name, want string
		fs         []Filter
	}{
		{"chains", "", []Filter{filter(0, 1, nil, Goto{1}), filter(1, 1, m.Eq(ir.IPTTL, 1), Drop{}), all(1, Pass{})}},
		{"target without filters", "has no filters", []Filter{filter(0, 1, nil, Goto{1})}},
		{"target without a last filter", "would fall off", []Filter{filter(0, 1, nil, Goto{1}), filter(1, 1, nil, Drop{})}},
		{"catch-all before others", "would fall off", []Filter{filter(0, 1, nil, Goto{1}), {Chain: 1, Pref: 1, Handle: 1, Protocol: ProtocolAll, Actions: []Action{Drop{}}}, filter(1, 2, nil, Drop{})}},
		{"catch-all in hardware", "would fall off", []Filter{filter(0, 1, nil, Goto{1}), {Chain: 1, Pref: 1, Handle: 1, Protocol: ProtocolAll, Flags: SkipSW, Actions: []Action{Drop{}}}}},
		{"chain that nobody goes to", "", []Filter{filter(7, 1, nil, Drop{})}},
		{"circle", "in a circle: [1 2 1]", []Filter{all(0, Goto{1}), all(1, Goto{2}), all(2, Goto{1})}},
		{"itself", "in a circle: [0 0]", []Filter{all(0, Goto{0})}},
		{"16 gotos", "", line(16, Pass{})},
		{"17 gotos", "drops it after 16", line(17, Pass{})},

		{"protocols of a pref", "a pref has one", []Filter{filter(0, 1, nil, Drop{}), {Pref: 1, Handle: 2, Protocol: ProtocolIPv6, Actions: []Action{Drop{}}}}},
		{"keys", "two of this key", []Filter{filter(0, 1, nil, Drop{}), filter(0, 1, m.Eq(ir.IPTTL, 1), Drop{})}},
		{"conditions", "its conditions are those of", []Filter{filter(0, 1, tcp(80), Drop{}), handle(2, filter(0, 1, tcp(80), Drop{}))}},
		{"one mask", "", []Filter{filter(0, 1, tcp(80), Drop{}), handle(2, filter(0, 1, tcp(81), Pass{}))}},
		{"disjoint masks", "", []Filter{filter(0, 1, tcp(80), Drop{}), handle(2, filter(0, 1, m.Eq(ir.IPProto, 17), Pass{}))}},
		{"overlap", "in one pref there is no order", []Filter{filter(0, 1, tcp(80), Drop{}), handle(2, filter(0, 1, m.Eq(ir.IPProto, 6), Pass{}))}},
		{"overlap, nothing in common", "in one pref there is no order", []Filter{filter(0, 1, m.Eq(ir.IPSrc, 1), Drop{}), handle(2, filter(0, 1, m.Eq(ir.IPDst, 1), Pass{}))}},
		{"overlap, same actions", "", []Filter{filter(0, 1, m.Eq(ir.IPSrc, 1), Drop{}), handle(2, filter(0, 1, m.Eq(ir.IPDst, 1), Drop{}))}},
		{"overlap, other flags", "in one pref there is no order", []Filter{
			{Pref: 1, Handle: 1, Protocol: ProtocolIPv4, Match: m.Eq(ir.IPSrc, 1), Flags: SkipHW, Actions: []Action{Drop{}}}, handle(2, filter(0, 1, m.Eq(ir.IPDst, 1), Drop{})),
		}},
		{"overlap of devices", "", []Filter{
			{Pref: 1, Handle: 1, Protocol: ProtocolIPv4, Indev: "a", Match: m.Eq(ir.IPSrc, 1), Actions: []Action{Drop{}}},
			{Pref: 1, Handle: 2, Protocol: ProtocolIPv4, Indev: "b", Match: m.Eq(ir.IPDst, 1), Actions: []Action{Pass{}}},
		}},
		{"prefixes", "in one pref there is no order", []Filter{
			filter(0, 1, m.Masked(ir.IPDst, 0x0a000000, 0xff000000), Drop{}), handle(2, filter(0, 1, m.Masked(ir.IPDst, 0x0a010000, 0xffff0000), Pass{})),
		}},
		{"disjoint prefixes", "", []Filter{
			filter(0, 1, m.Masked(ir.IPDst, 0x0a000000, 0xff000000), Drop{}), handle(2, filter(0, 1, m.Masked(ir.IPDst, 0x0b010000, 0xffff0000), Pass{})),
		}},
	} {
		err := Check(c.fs)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// On a small domain, filters of a pref are refused exactly if some packet matches two that do different things.
func TestCheckPrefIsExact(t *testing.T) {
	g := newGen(t)
	refused := 0
	for range 3000 {
		var fs []Filter
		for i := range 2 + g.IntN(3) {
			f := Filter{Pref: 1, Handle: uint32(i + 1), Protocol: ProtocolIPv4, Actions: []Action{pick[Action](g, Drop{}, Pass{})}}
			for _, field := range []ir.Field{ir.IPECN, ir.IPDSCP} {
				f.Match, _ = f.Match.With(field, ir.U64(g.Uint64N(4)), ir.U64(g.Uint64N(4)))
			}
			fs = append(fs, f)
		}
		clash := false
		for p := range uint64(16) {
			var first *Filter
			for i := range fs {
				if !satisfied(fs[i].Match, p) {
					continue
				}
				if first != nil && (!sameEffect(first, &fs[i])) {
					clash = true
				}
				first = &fs[i]
			}
		}
		for i := range fs {
			for j := range fs[:i] {
				clash = clash || fs[i].Match.Equal(fs[j].Match)
			}
		}
		err := errors.Join(checkPrefs(fs)...)
		if (err != nil) != clash {
			t.Fatalf("%v %v: %v, clash %v", &fs[0], &fs[1], err, clash)
		}
		if clash {
			refused++
		}
	}
	if refused < 300 || refused > 2900 {
		t.Errorf("%d of 3000 were refused", refused)
	}
}

// satisfied reports whether a packet with ECN p&3 and DSCP p>>2 satisfies m.
func satisfied(m ir.Match, p uint64) bool {
	for _, t := range m {
		v := p & 3
		if t.Field == ir.IPDSCP {
			v = p >> 2
		}
		if v&t.Mask.Lo != t.Value.Lo {
			return false
		}
	}
	return true
}

// A hundred thousand filters of one pref, with all prefixes for masks, take a moment.
func TestCheckIsFast(t *testing.T) {
	var fs []Filter
	for i := range 100_000 {
		n := 1 + i%32
		fs = append(fs, Filter{
			Pref: 1, Handle: uint32(i + 1), Protocol: ProtocolIPv4, Actions: []Action{Drop{}},
			Match: ir.Match{}.Masked(ir.IPDst, uint64(i)*2654435761, 0xffffffff<<(32-n)).Eq(ir.CTZone, uint64(i%65536)).Eq(ir.CTMark, uint64(i)),
		})
	}
	start := time.Now()
	if err := Check(fs); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	} else {
		t.Logf("it took %v", d)
	}
}
