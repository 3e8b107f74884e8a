package pinger

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A round trip is as long as the clocks say that its answer took, whenever that is read; of what they do not say it is known only that it was answered.
func TestTake(t *testing.T) {
	const ms = int64(time.Millisecond)
	plan := quick()
	to := netip.MustParseAddr("10.0.0.2")
	from := newPlace(to, plan.Port)
	type came struct {
		seq              uint64
		kind             byte
		arrived, read    int64 // after it was sent
		set              int64 // by how much the clock is set meanwhile
		unstamped, other bool
		waited           uint64 // as who answers says
	}
	for name, tt := range map[string]struct {
		came   []came
		counts Counts
		took   []int64
	}{
		"in time, read late":         {[]came{{1, answer, 3 * ms, 900 * ms, 0, false, false, 0}}, Counts{Answered: 1}, []int64{3 * ms}},
		"of a number not sent":       {[]came{{9, answer, 3 * ms, 3 * ms, 0, false, false, 0}}, Counts{}, nil},
		"of somebody else":           {[]came{{1, answer, 3 * ms, 3 * ms, 0, false, true, 0}}, Counts{}, nil},
		"that has waited":            {[]came{{1, answer, 3 * ms, 900 * ms, 0, false, false, uint64(2 * ms)}}, Counts{Answered: 1}, []int64{1 * ms}},
		"where somebody stood still": {[]came{{1, answer, 700 * ms, 900 * ms, 0, false, false, uint64(690 * ms)}}, Counts{Answered: 1}, []int64{700 * ms}},
		"of who lies":                {[]came{{1, answer, 2 * ms, 900 * ms, 0, false, false, uint64(2 * ms)}}, Counts{Answered: 1}, []int64{2 * ms}},
		"of who lies more":           {[]came{{1, answer, 2 * ms, 900 * ms, 0, false, false, 1<<64 - 1}}, Counts{Answered: 1}, []int64{2 * ms}},
		"twice":                      {[]came{{1, answer, 3 * ms, 4 * ms, 0, false, false, 0}, {1, answer, 9 * ms, 9 * ms, 0, false, false, 0}}, Counts{Answered: 1}, []int64{3 * ms}},
		"not in order":               {[]came{{3, answer, 3 * ms, 9 * ms, 0, false, false, 0}, {1, answer, 4 * ms, 9 * ms, 0, false, false, 0}}, Counts{Answered: 2}, []int64{3 * ms, 4 * ms}},
		"of a challenge":             {[]came{{1, challenge, 3 * ms, 4 * ms, 0, false, false, 0}}, Counts{Answered: 1}, nil},
		"the first of a burst":       {[]came{{0, answer, 3 * ms, 4 * ms, 0, false, false, 0}}, Counts{Answered: 1}, nil},
		"too late":                   {[]came{{1, answer, 1001 * ms, 1002 * ms, 0, false, false, 0}}, Counts{Lost: 1, Late: 1}, nil},
		"without a stamp":            {[]came{{1, answer, 3 * ms, 4 * ms, 0, true, false, 0}}, Counts{Answered: 1}, nil},
		"a clock is set ahead":       {[]came{{1, answer, 3 * ms, 4 * ms, 20 * ms, false, false, 0}}, Counts{Answered: 1}, nil},
		"far ahead, not too late":    {[]came{{1, answer, 3 * ms, 4 * ms, 3600_000 * ms, false, false, 0}}, Counts{Answered: 1}, nil},
		"a clock is set back":        {[]came{{1, answer, 3 * ms, 4 * ms, -20 * ms, false, false, 0}}, Counts{Answered: 1}, nil},
	} {
		now, ahead := int64(0), int64(time.Hour)
		s := &sender{now: func() int64 { return now }, wall: func() int64 { return now + ahead }, plan: plan, message: make([]byte, plan.Size), inbox: newInbox()}
		p := newPair(Pair{ID: 1, To: to}, plan)
		p.nonce, p.index, p.socket = 7<<32|5, 1<<seqBits, &socket{fd: -1}
		s.pairs = []*pair{nil, p}
		for i := range 4 {
			s.send(p, now, i%2 == 0)
			p.flights[i].state = waiting // although there is no socket
			p.flights[i].first = i == 0
		}
		p.counts = Counts{}
		for _, c := range tt.came {
			b := make([]byte, plan.Size)
			message{kind: c.kind, nonce: p.nonce, seq: p.index | c.seq, token: c.waited}.put(b)
			by := from
			if c.other {
				by = newPlace(to.Next(), plan.Port)
			}
			arrived := c.arrived + ahead + c.set
			if c.unstamped {
				arrived = 0
			}
			now = c.read
			s.take(b, &by, arrived, ahead+c.set)
		}
		if p.counts != tt.counts || !slices.Equal(p.took, tt.took) {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, p.counts, p.took, tt.counts, tt.took)
		}
	}
}

// Whatever number of pairs there is, each is asked once in an interval, from the next one on when there are others; many of them in parts.
func TestSlots(t *testing.T) {
	plan := quick()
	plan.Burst = 3
	for _, interval := range []time.Duration{MinInterval, time.Second, 10 * time.Second} {
		plan.Interval = interval
		now := int64(100 * time.Hour)
		s := &sender{now: func() int64 { return now }, wall: func() int64 { return now }, inbox: newInbox()}
		for _, n := range []int{1000, 3, 64, 65, 0, 640, 1} {
			plan.Pairs = make([]Pair, n)
			s.pairs = nil
			for i := range plan.Pairs {
				p := newPair(Pair{ID: uint64(i + 1), To: netip.MustParseAddr("10.0.0.2")}, plan)
				p.socket = &socket{fd: -1}
				s.pairs = append(s.pairs, p)
			}
			s.plan, s.message = plan, make([]byte, plan.Size)
			s.arrange(now)
			begun, most := now, 0
			sent := func() (sum int) {
				for _, p := range s.pairs {
					sum += int(p.counts.Sent)
				}
				return sum
			}
			for end := now + 4*int64(interval); ; {
				before := sent()
				next := s.step()
				most = max(most, sent()-before)
				if next <= now {
					t.Fatalf("%d pairs, every %v: after %v the next step is at %v", n, interval, time.Duration(now-begun), time.Duration(next-begun))
				}
				if next > end {
					break
				}
				now = next
			}
			for i, p := range s.pairs {
				if p.counts.Sent < uint64(3*plan.Burst) || p.counts.Sent > uint64(4*plan.Burst) || p.counts.Missed+p.counts.Held > 0 {
					t.Errorf("%d pairs, every %v: in four intervals pair %d has %+v", n, interval, i, p.counts)
				}
			}
			if most > 2*inSlot {
				t.Errorf("%d pairs, every %v: %d are asked at once", n, interval, most)
			}
		}
	}
}
