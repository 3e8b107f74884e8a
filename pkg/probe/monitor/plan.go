// Package monitor measures pairs of ports all the time, and says when one gets worse.
//
// In go what is configured, which ports this node has, and what the Southbound says of the others; out come a plan for pkg/probe/pinger, and from what
// that reports numbers, histograms, and regressions. The core is pure; Monitor is its door.
package monitor

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/offloadd/offloadd/pkg/probe/pinger"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A World is what decides which pairs can be measured. It does not change.
type World struct {
	// Own are the ports of this daemon that work, by logical port.
	Own map[string]Own
	// Ports are those that the Southbound has, by name.
	Ports map[string]Port
}

// An Own is where a port of this daemon is.
type Own struct {
	Netns, Device string
	Addresses     []netip.Addr
}

// A Port is what the Southbound says of a logical port.
type Port struct {
	Addresses []netip.Addr
	Chassis   string // "": none
}

// A role is what this node has to do for a pair.
type role struct {
	sends   *pinger.Pair // nil: nothing
	answers *pinger.Answer
	chassis string // of who answers
	// why it cannot send although it is its part to; "": it can, or it is not
	why     reason.Reason
	message string
	here    bool // it is its part to send
}

// an identity is what has the same number as long as it is the same.
type identity struct {
	end pinger.End
	to  netip.Addr // of who answers there is none
}

// A numbering gives numbers.
type numbering struct {
	last  uint64
	known map[identity]uint64
}

// next returns a numbering for the next plan, which knows nothing yet.
func (n *numbering) next() *numbering { return &numbering{n.last, map[identity]uint64{}} }

func (n *numbering) of(i identity, before *numbering) uint64 {
	if id, ok := n.known[i]; ok {
		return id
	}
	id, ok := before.known[i]
	if !ok {
		n.last++
		id = n.last
	}
	n.known[i] = id
	return id
}

// roles says what this node has to do for each pair. It returns the numbering of what it says.
func roles(c Config, w World, before *numbering) (map[Pair]role, *numbering) {
	all, n := map[Pair]role{}, before.next()
	for _, p := range c.Pairs {
		r := role{}
		own, sends := w.Own[p.From]
		host, answers := w.Own[p.To]
		from, known := w.Ports[p.From]
		to, toKnown := w.Ports[p.To]
		r.here, r.chassis = sends, to.Chassis
		src, dst, match := family(from.Addresses, to.Addresses)
		refuse := func(why reason.Reason, message string) {
			if sends {
				r.why, r.message = why, message
			}
		}
		switch {
		case !known:
			refuse(reason.LPortNotFound, "the Southbound has no logical port "+p.From)
		case !toKnown:
			refuse(reason.LPortNotFound, "the Southbound has no logical port "+p.To+", or none that can be reached from "+p.From)
		case to.Chassis == "":
			refuse(reason.ProbeImpossible, "logical port "+p.To+" is on no chassis")
		case !match:
			refuse(reason.LPortNoAddresses, "logical ports "+p.From+" and "+p.To+" have no addresses of one family")
		case sends && !slices.Contains(own.Addresses, src):
			refuse(reason.AddressMissing, "logical port "+p.From+" has address "+src.String()+", which its interface does not have")
		case sends:
			end := pinger.End{Netns: own.Netns, Device: own.Device, Addr: src}
			r.sends = &pinger.Pair{ID: n.of(identity{end, dst}, before), From: end, To: dst}
		}
		if answers && known && toKnown && match && slices.Contains(host.Addresses, dst) {
			end := pinger.End{Netns: host.Netns, Device: host.Device, Addr: dst}
			r.answers = &pinger.Answer{ID: n.of(identity{end: end}, before), At: end, For: []netip.Addr{src}}
		}
		all[p] = r
	}
	return all, n
}

// family returns the first addresses of one family, IPv4 first.
func family(from, to []netip.Addr) (src, dst netip.Addr, ok bool) {
	first := func(all []netip.Addr, four bool) (netip.Addr, bool) {
		i := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() == four && !a.IsLinkLocalUnicast() })
		if i < 0 {
			return netip.Addr{}, false
		}
		return all[i], true
	}
	for _, four := range []bool{true, false} {
		s, sok := first(from, four)
		d, dok := first(to, four)
		if sok && dok {
			return s, d, true
		}
	}
	return src, dst, false
}

// plan is what all roles together are for the pinger, in the order of numbers.
func plan(c Config, all map[Pair]role) pinger.Plan {
	p := c.plan()
	sends, answers := map[uint64]pinger.Pair{}, map[uint64]pinger.Answer{}
	for _, r := range all {
		if r.sends != nil {
			sends[r.sends.ID] = *r.sends
		}
		if r.answers != nil {
			a, ok := answers[r.answers.ID]
			if !ok {
				a = pinger.Answer{ID: r.answers.ID, At: r.answers.At}
			}
			a.For = append(a.For, r.answers.For...)
			answers[a.ID] = a
		}
	}
	for _, a := range answers {
		slices.SortFunc(a.For, netip.Addr.Compare)
		a.For = slices.Compact(a.For)
		p.Answers = append(p.Answers, a)
	}
	p.Pairs = slices.Collect(maps.Values(sends))
	slices.SortFunc(p.Pairs, func(a, b pinger.Pair) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(p.Answers, func(a, b pinger.Answer) int { return cmp.Compare(a.ID, b.ID) })
	return p
}
