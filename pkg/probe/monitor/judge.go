package monitor

import (
	"fmt"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/reason"
)

// A Way is which way the packets of a Flow have taken since the last look.
type Way struct {
	Packets  uint64
	Hardware uint64 // forwarded by filters in hardware
	Software uint64 // forwarded by filters in software
	// NIC says that they come in by a port of an embedded switch, so that hardware may forward them.
	NIC     bool
	Tracked Tracked
}

// A Tracked is in how many zones of the two ports the connection tracker of this node has the connection, and in how many of them it is more.
type Tracked struct {
	Zones    int
	Assured  int
	Offload  int // in a flow table (IPS_OFFLOAD)
	Hardware int // and in a NIC (IPS_HW_OFFLOAD)
}

// With is t with one zone more.
func (t Tracked) With(assured, offload, hardware bool) Tracked {
	one := func(is bool) int {
		if is {
			return 1
		}
		return 0
	}
	return Tracked{t.Zones + 1, t.Assured + one(assured), t.Offload + one(offload), t.Hardware + one(hardware)}
}

// why says what the connection tracker knows of why packets of a level are not offloaded further; "": they are, or that is not known.
func (w Way) why(l Level) string {
	switch t := w.Tracked; {
	case l == Unknown || l == Hardware || l == Filters && !w.NIC:
		return ""
	case t.Zones == 0 && l == ByOVS:
		return "the connection tracker has no such connection"
	case t.Assured < t.Zones:
		return "to the connection tracker it is not assured, which takes packets both ways for two seconds"
	case t.Offload < t.Zones:
		return "the connection tracker has it in no flow table: no filter has looked it up since it is assured, or the kernel does not take it"
	case t.Hardware < t.Zones && w.NIC:
		return "the connection tracker has it in a flow table, from which no NIC has taken it"
	}
	return "the connection tracker does not keep it from that: offloadctl explain PORT PACKET says which filter does"
}

// Offloaded is the part of packets that filters have forwarded, and which part hardware has.
func (w Way) Offloaded() (filters, hardware float64) {
	if w.Packets == 0 {
		return 0, 0
	}
	return min(float64(w.Hardware+w.Software)/float64(w.Packets), 1), min(float64(w.Hardware)/float64(w.Packets), 1)
}

// A Level is how far packets are offloaded.
type Level string

// The levels, from the least.
const (
	Unknown  Level = ""
	ByOVS    Level = "ovs"
	Filters  Level = "filters"  // by filters, in hardware or in software
	Hardware Level = "hardware" // by filters in hardware
)

var levels = []Level{Unknown, ByOVS, Filters, Hardware}

// share is how much of the packets have to take a way for it to be theirs, and enough how many there have to be.
const (
	share  = 0.9
	enough = 10
)

func (w Way) level() Level {
	filters, hardware := w.Offloaded()
	switch {
	case w.Packets < enough:
		return Unknown
	case hardware >= share:
		return Hardware
	case filters >= share:
		return Filters
	default:
		return ByOVS
	}
}

// A path judges the way of a pair. It is lost when two looks in a row find less than two have found before: what one finds may be a change of filters.
type path struct {
	last, best, level Level
	since             time.Time // level
	why               string    // it is not better
}

// look takes a look.
func (p *path) look(w Way, now time.Time) {
	l := w.level()
	if l == Unknown {
		return
	}
	p.why = w.why(l)
	if l == p.last && l != p.level {
		p.level, p.since = l, now
	}
	p.last = l
	if slices.Index(levels, p.level) > slices.Index(levels, p.best) {
		p.best = p.level
	}
}

// lost says what has become of the way.
func (p *path) lost() string {
	if p.level == Unknown || slices.Index(levels, p.level) >= slices.Index(levels, p.best) {
		return ""
	}
	by := map[Level]string{ByOVS: "Open vSwitch", Filters: "filters in software", Hardware: "hardware"}
	lost := fmt.Sprintf("its packets were forwarded by %s, and are by %s now", by[p.best], by[p.level])
	if p.why != "" {
		lost += "; " + p.why
	}
	return lost
}

// What a speed needs: a window has so many samples, which a 99th percentile needs; a pair is slower when so many windows in a row are slower than all of the
// usual ones, of which there are at least and at most so many.
const (
	window    = 1000
	inARow    = 2
	minUsual  = 4
	maxUsual  = 24
	forgetful = 3 * time.Minute // after a pause without samples a window begins anew
)

// A speed judges the 99th percentile of a pair.
type speed struct {
	window []sample
	usual  []time.Duration // of windows that were not slower
	slow   []time.Duration // of the last windows, all slower
	is     string          // what there is to say
}

// add takes samples. ratio 0 is never slower.
func (s *speed) add(samples []sample, ratio float64) {
	for _, n := range samples {
		if len(s.window) > 0 && n.at.Sub(s.window[len(s.window)-1].at) > forgetful {
			s.window = s.window[:0]
		}
		if s.window = append(s.window, n); len(s.window) == window {
			s.judge(latency(s.window).P99, ratio)
			s.window = s.window[:0]
		}
	}
}

func (s *speed) judge(p99 time.Duration, ratio float64) {
	limit := Lost
	if ratio > 0 && len(s.usual) >= minUsual {
		limit = time.Duration(ratio * float64(slices.Max(s.usual)))
	}
	if p99 <= limit {
		s.usual = append(s.usual, p99)
		s.usual = s.usual[max(len(s.usual)-maxUsual, 0):]
		s.slow, s.is = nil, ""
		return
	}
	if s.slow = append(s.slow, p99); len(s.slow) < inARow {
		return
	}
	s.slow = s.slow[len(s.slow)-inARow:]
	said := "lost"
	if m := slices.Min(s.slow); m != Lost {
		said = m.String()
	}
	s.is = fmt.Sprintf("99 %% of its round trips took at most %v, and now %v", slices.Max(s.usual), said)
}

// silence is how many requests in a row are without an answer before that is said. Fewer are loss, which is counted.
const silence = 3

// verdict is what is wrong with a pair that is measured: the first of these.
func verdict(s *series, p *path, v *speed, failed string) (reason.Reason, string) {
	switch lost := p.lost(); {
	case failed != "":
		return reason.KernelRefused, failed
	case s.silent >= silence:
		return reason.ProbeNoAnswer, fmt.Sprintf("the last %d requests were not answered", s.silent)
	case lost != "":
		return reason.ProbeOffloadLost, lost
	case v.is != "":
		return reason.ProbeSlower, v.is
	}
	return "", ""
}
