package specialize

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// The prefs of a chain, from the first to the last.
const (
	// PrefGuard is for a filter that punts everything while the chain is being changed.
	PrefGuard = 1

	prefExclude = 10  // the guards of the program: IPv4, and after it IPv6
	prefRules   = 100 // the first level
	// PrefEnd is for the filter that punts what no other filter of the chain has.
	PrefEnd = 0xffff
)

// geneveUDPPort is where Geneve packets arrive.
const geneveUDPPort = 6081

// tunnelTTL is the TTL of outer headers, as Open vSwitch sends them (DEFAULT_TTL in lib/packets.h).
const tunnelTTL = 64

// cookieMagic begins the cookies of all filters of ours.
var cookieMagic = [2]byte{0x0f, 0x1d}

// A Kind is what a filter is for.
type Kind uint8

// The kinds of filters.
const (
	KindGuard  Kind = iota + 1 // punts what nothing else may see
	KindEntry                  // a rule of chain 0
	KindRule                   // a rule of another chain
	KindEnd                    // the end of a chain
	KindClosed                 // see Closed
	KindProbe                  // see Filter.Narrowed and Punting
)

// cookie says what a filter is: a chain's state, and the row that decided.
func cookie(kind Kind, state uint64, path []*Rule) tc.Cookie {
	c := tc.Cookie{cookieMagic[0], cookieMagic[1], 1, byte(kind)}
	binary.BigEndian.PutUint64(c[4:], state)
	for _, r := range slices.Backward(path) {
		if row := r.Owner.Row; row != ([16]byte{}) {
			copy(c[12:], row[:4])
			break
		}
	}
	return c
}

// Closed returns the filter that punts everything that comes to a chain, or in chain 0 by a device, while its other filters are
// being changed.
func Closed(chain uint32, indev string) tc.Filter {
	f := tc.Filter{
		Chain: chain, Pref: PrefGuard, Handle: 1, Protocol: tc.ProtocolAll, Indev: indev,
		Actions: []tc.Action{tc.Pass{}}, Cookie: cookie(KindClosed, 0, nil),
	}
	if chain != 0 {
		f.Actions = []tc.Action{tc.CT{Clear: true}, tc.Pass{}}
	}
	return f
}

// IsOurs reports whether a filter has been made by this package, in this process or another.
func IsOurs(c tc.Cookie) bool { return c[0] == cookieMagic[0] && c[1] == cookieMagic[1] }

// A Filter is a filter and where it comes from.
type Filter struct {
	tc.Filter
	Kind   Kind
	Reason Reason // of a punt
	// Leaf is the rule that it stands for; nil for guards and ends of chains.
	Leaf *Leaf
}

// Filters lowers the program to the filters of one shared block, in the order of chains and prefs. Handles are counted from 1 in each
// pref. The result passes tc.Check. Nothing enters by a device that is not there, and what would be sent to one is left to Open vSwitch.
func (p *Program) Filters() []Filter {
	l := lowering{handles: map[tc.Key]uint32{}}
	for _, g := range p.Guards {
		f := tc.Filter{
			Pref: prefExclude + familyOffset(g.EtherType), Protocol: g.EtherType, Match: g.Match,
			Actions: []tc.Action{tc.Pass{}}, Cookie: cookie(KindGuard, 0, nil),
		}
		l.add(f, KindGuard, g.Reason, nil)
		if p.Devices[p.guarded] != 0 {
			f.Indev, f.EncDstPort = p.guarded, geneveUDPPort
			l.add(f, KindGuard, g.Reason, nil)
		}
	}
	for _, e := range p.Entries {
		if p.Devices[e.Device] == 0 {
			continue
		}
		for i := range e.Rules {
			r := &e.Rules[i]
			if r.implied {
				continue
			}
			v := p.present(r.Verdict)
			f := tc.Filter{
				Pref:     prefRules + 2*uint16(r.level) + familyOffset(e.EtherType),
				Protocol: e.EtherType, Indev: e.Device, Match: r.Match,
				Actions: p.actions(v, false), Cookie: cookie(KindEntry, uint64(e.Port), r.Path),
			}
			if e.Tunnel != nil {
				f.EncDstPort = geneveUDPPort
			}
			l.add(f, KindEntry, reasonOf(v), r)
		}
	}
	ended := map[uint32]bool{}
	for _, s := range p.States {
		for i := range s.Rules {
			r := &s.Rules[i]
			if r.implied {
				continue
			}
			v := p.present(r.Verdict)
			f := tc.Filter{
				Chain: s.Chain, Pref: prefRules + uint16(r.level), Protocol: s.EtherType, Match: s.match(r.Match),
				Actions: p.actions(v, true), Cookie: cookie(KindRule, s.ID, r.Path),
			}
			if s.asksTunnel {
				f.EncDstPort = geneveUDPPort
			}
			l.add(f, KindRule, reasonOf(v), r)
		}
		if !ended[s.Chain] {
			ended[s.Chain] = true
			l.add(tc.Filter{
				Chain: s.Chain, Pref: PrefEnd, Protocol: tc.ProtocolAll,
				Actions: []tc.Action{tc.CT{Clear: true}, tc.Pass{}}, Cookie: cookie(KindEnd, 0, nil),
			}, KindEnd, NewConnection, nil)
		}
	}
	return l.filters
}

type lowering struct {
	filters []Filter
	handles map[tc.Key]uint32
}

func (l *lowering) add(f tc.Filter, kind Kind, reason Reason, leaf *Leaf) {
	key := tc.Key{Chain: f.Chain, Pref: f.Pref}
	l.handles[key]++
	f.Handle = l.handles[key]
	l.filters = append(l.filters, Filter{f, kind, reason, leaf})
}

// familyOffset keeps the prefs of the address families apart: a pref has one protocol.
func familyOffset(etherType uint16) uint16 {
	if etherType == etherTypeIPv6 {
		return 1
	}
	return 0
}

func reasonOf(v Verdict) Reason {
	if p, ok := v.(Punt); ok {
		return p.Reason
	}
	return NoReason
}

// match adds to m what all rules of the chain ask.
func (s *State) match(m ir.Match) ir.Match {
	if !s.Tracked {
		return m
	}
	const established = ctTrk | ctEst
	m, ok := m.With(ir.CTState, ir.U64(established), ir.U64(established))
	if ok {
		m, ok = m.With(ir.CTZone, ir.U64(uint64(s.Zone)), ir.CTZone.Ones())
	}
	if !ok {
		panic("specialize: a rule contradicts its chain")
	}
	return m
}

// present returns v, or why there can be no such filter now.
func (p *Program) present(v Verdict) Verdict {
	if out, is := v.(*Output); is && p.Devices[out.Device] == 0 {
		return Punt{NoDevice}
	}
	return v
}

// actions lowers a verdict. tracked says that the packet may have been looked up in a zone.
func (p *Program) actions(v Verdict, tracked bool) []tc.Action {
	switch v := v.(type) {
	case Punt:
		if tracked {
			return []tc.Action{tc.CT{Clear: true}, tc.Pass{}}
		}
		return []tc.Action{tc.Pass{}}
	case Drop:
		return []tc.Action{tc.Drop{}}
	case Lookup:
		return []tc.Action{tc.CT{Zone: v.Zone}, tc.Goto{Chain: v.State.Chain}}
	case Goto:
		return []tc.Action{tc.Goto{Chain: v.State.Chain}}
	case *Output:
		return append(v.actions(tracked), tc.Mirred{Ifindex: p.Devices[v.Device]})
	default:
		panic(fmt.Sprintf("specialize: verdict %T", v))
	}
}

// actions lowers an output, but for the device.
func (v *Output) actions(tracked bool) []tc.Action {
	var all []tc.Action
	if tracked && (v.CSumTCP || v.CSumUDP || v.CSumICMP) {
		all = append(all, tc.CT{Clear: true}) // the addresses that the connection is known by change
	}
	var p tc.Pedit
	for _, e := range v.Edits {
		p.Edits = append(p.Edits, tc.Edit{Field: e.Field, Value: e.Value, Mask: e.Mask})
	}
	if v.DecTTL > 0 {
		p.Edits = append(p.Edits, tc.Edit{Field: ir.IPTTL, Value: ir.U64(0x100 - uint64(v.DecTTL)), Mask: ir.Ones(8), Add: true})
	}
	if len(p.Edits) > 0 {
		all = append(all, p)
	}
	if sum := (tc.CSum{IPv4: v.CSumIP, TCP: v.CSumTCP, UDP: v.CSumUDP, ICMP: v.CSumICMP}); sum != (tc.CSum{}) {
		all = append(all, sum)
	}
	if v.Unset {
		all = append(all, tc.TunnelUnset{})
	}
	if e := v.Encap; e != nil {
		src := e.Tunnel.Local
		switch {
		case src.IsValid():
		case e.Tunnel.Remote.Is6():
			src = netip.IPv6Unspecified()
		default:
			src = netip.IPv4Unspecified()
		}
		all = append(all, tc.TunnelSet{
			ID: e.VNI, Src: src, Dst: e.Tunnel.Remote, DstPort: geneveUDPPort, TTL: tunnelTTL, NoCSum: e.Tunnel.NoCSum, NoFrag: e.NoFrag,
			Options: []tc.GeneveOption{{
				Class: tc.OptionClass, Type: tc.OptionType, Data: string(binary.BigEndian.AppendUint32(nil, e.Option)),
			}},
		})
	}
	return all
}
