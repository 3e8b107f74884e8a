package apply

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// maxAbsent bounds how many filters that a NIC does not have are compared with each one after them in a chain. If there are more, the NIC
// gets no further ones of that chain.
const maxAbsent = 256

// Taken says for which of the devices that it concerns a filter is in hardware.
type Taken int

// The extents.
const (
	ByNone Taken = iota
	BySome       // for some, or who knows for which
	ByAll
)

// Shadowed returns the indexes of the filters that a NIC must not have, although it would take them: those that a packet could meet in
// hardware which an earlier filter of the chain, one that is not there, would have decided. What is not in hardware because of this
// shadows others in turn.
//
// has says which filters the NIC has, for packets from tunnels (those of tunnel devices) or for others: a driver is asked for each device of
// the block, and may take a filter for one and refuse it for another. It is asked for packets from tunnels of filters that are for
// no other device, and for others of those that do not ask for a tunnel.
//
// What a probe counts with does what the filters after it do, so that it shadows none of them, but for others of probes.
func Shadowed(filters []tc.Filter, has func(f *tc.Filter, tunnelled bool) Taken) []int {
	order := make([]int, len(filters))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareFilterKeys(filters[a].Key(), filters[b].Key()) })
	s := shadows{filters: filters, order: order, has: has, gone: map[int]struct{}{}}
	for n := -1; n != len(s.gone); { // what is for both kinds of packets is taken from both
		n = len(s.gone)
		s.cast(false)
		s.cast(true)
	}
	return slices.SortedFunc(maps.Keys(s.gone), cmp.Compare)
}

type shadows struct {
	filters []tc.Filter
	order   []int
	has     func(f *tc.Filter, tunnelled bool) Taken
	gone    map[int]struct{}
}

// cast finds what is shadowed for one kind of packets.
func (s *shadows) cast(tunnelled bool) {
	twins := map[filterID]*tc.Filter{}
	taken := func(i int) Taken {
		if _, gone := s.gone[i]; gone {
			return ByNone
		}
		return s.has(&s.filters[i], tunnelled)
	}
	if tunnelled {
		for i := range s.filters {
			if f := &s.filters[i]; f.EncDstPort != 0 && taken(i) == ByAll {
				twins[twinOf(f)] = f
			}
		}
	}
	var absent, probes []*tc.Filter // of the chain so far
	chain := uint32(0)
	for _, i := range s.order {
		f := &s.filters[i]
		if tunnelled && f.Indev != "" && f.EncDstPort == 0 || !tunnelled && f.EncDstPort != 0 {
			continue
		}
		if f.Chain != chain {
			chain, absent, probes = f.Chain, absent[:0], probes[:0]
		}
		before := func(a *tc.Filter) bool { return a.Pref < f.Pref && overlap(a, f) }
		has := taken(i)
		// Filters of one pref that overlap do the same.
		if has != ByNone && (len(absent) > maxAbsent || slices.ContainsFunc(absent, before) || isProbe(f) && slices.ContainsFunc(probes, before)) {
			s.gone[i] = struct{}{}
			has = ByNone
		}
		if twin := twins[twinOf(f)]; has != ByAll && (twin == nil || !reflect.DeepEqual(twin.Actions, f.Actions)) {
			if isProbe(f) {
				probes = append(probes, f)
			} else {
				absent = append(absent, f)
			}
		}
	}
}

// twinOf is the same for filters that differ in that one is for packets from a tunnel alone.
func twinOf(f *tc.Filter) filterID {
	g := *f
	g.Indev, g.EncDstPort = "", 0
	return idOf(&g)
}

// overlap reports whether there may be a packet that both filters match.
func overlap(a, b *tc.Filter) bool {
	if a.Protocol != b.Protocol && a.Protocol != tc.ProtocolAll && b.Protocol != tc.ProtocolAll {
		return false
	}
	if a.Indev != "" && b.Indev != "" && a.Indev != b.Indev {
		return false
	}
	return !slices.ContainsFunc(a.Match, func(s ir.Term) bool {
		t, asks := b.Match.Term(s.Field)
		return asks && !s.Value.Xor(t.Value).And(s.Mask).And(t.Mask).IsZero()
	})
}

// A hardware is what NICs are known to have of the filters of a table.
type hardware struct {
	// counts are how many devices have a filter in hardware, if any.
	counts map[tc.Key]uint32
	// ports are the devices that take filters, by interface index, but for those of tunnels; tunnels says that one of these does. alive are
	// those that have had a filter of their own in hardware.
	ports, alive map[int]struct{}
	tunnels      bool
}

// update finds out which of the devices that have the block, and shall have it, take filters, and reports whether that has changed. One that takes
// none of its own takes none at all: what comes by it is not met by filters in hardware.
func (h *hardware) update(t *FilterTable, bound map[int]struct{}, devices []specialize.Device) bool {
	ports, asked, tunnels := map[int]struct{}{}, map[int]struct{}{}, false
	for _, d := range devices {
		if _, has := bound[d.Ifindex]; has && !d.Tunnel {
			ports[d.Ifindex] = struct{}{}
		}
	}
	if h.alive == nil {
		h.alive = map[int]struct{}{}
	}
	maps.DeleteFunc(h.alive, func(i int, _ struct{}) bool { _, is := bound[i]; return !is })
	for k, f := range t.filters {
		i := t.indexes[f.Indev]
		switch {
		case f.Indev == "":
		case f.EncDstPort != 0:
			tunnels = tunnels || h.counts[k] > 0
		case h.counts[k] > 0:
			h.alive[i] = struct{}{}
		case f.Flags&tc.SkipHW == 0:
			asked[i] = struct{}{}
		}
	}
	for i := range asked {
		if _, alive := h.alive[i]; !alive {
			delete(ports, i)
		}
	}
	maps.DeleteFunc(h.counts, func(k tc.Key, _ uint32) bool { return t.filters[k] == nil })
	same := maps.Equal(ports, h.ports) && tunnels == h.tunnels
	h.ports, h.tunnels = ports, tunnels
	return !same
}

// has says for which of the devices that take filters f is in hardware, of those whose packets are tunnelled or of the others. Of filters that
// are for all devices it goes by their number: ports are those that have them first, since drivers take none that do not ask for a tunnel
// from tunnel devices; and they refuse to send a packet out of the port by which it came.
func (h *hardware) has(f *tc.Filter, tunnelled bool) Taken {
	n, need := int(h.counts[f.Key()]), len(h.ports)
	switch {
	case n == 0 || tunnelled && !h.tunnels:
		return ByNone
	case f.Indev != "":
		return ByAll
	case tunnelled && f.EncDstPort == 0 && n <= need:
		return ByNone
	case tunnelled:
		need++ // a port takes what asks for a tunnel as well
	}
	if len(f.Actions) > 0 {
		if m, sends := f.Actions[len(f.Actions)-1].(tc.Mirred); sends {
			if _, back := h.ports[m.Ifindex]; back {
				need--
			}
		}
	}
	if n < need {
		return BySome
	}
	return ByAll
}

// lost returns the filters that NICs had and do not have any more. in lists those of the kernel.
func (h *hardware) lost(in []*tc.Installed) []tc.Key {
	now := map[tc.Key]uint32{}
	for _, i := range in {
		if specialize.IsOurs(i.Filter.Cookie) {
			now[i.Filter.Key()] = inHardware(i)
		}
	}
	var lost []tc.Key
	for k, n := range h.counts {
		if has, there := now[k]; there && has < n {
			lost = append(lost, k)
		}
	}
	return lost
}

// inHardware returns how many devices have a filter in hardware. One that has lost it says neither that it is there nor that it is not.
func inHardware(in *tc.Installed) uint32 {
	if in.Filter.Flags&tc.InHW == 0 {
		return 0
	}
	return max(in.InHWCount, 1)
}
