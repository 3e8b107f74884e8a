package pinger

import (
	"math"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spacing is the time between the requests of a burst, in which the one before is answered.
	spacing = time.Millisecond
	// pace is how long the requests of other pairs may hold up one in a slot.
	pace = 100 * time.Microsecond
	// punctual is up to when a request that is sent late counts from when it was sent: what timers and wake-ups take is not the path's. Timers
	// of Go's are up to a millisecond late by design.
	punctual = 3 * int64(time.Millisecond)
	// slotTime is how long a slot of an interval is at least. What is in one is sent one after the other: waking up is what costs most, and what
	// finds cold caches.
	slotTime = time.Second
	maxSlots = 64
	// inSlot is how many pairs there are in a slot, if there are not more than maxSlots times as many: they keep others from a CPU for some milliseconds.
	inSlot = 64
	// maxTook is how many round trips of a pair wait for a report.
	maxTook = 1024
	// stepped is how far apart the two clocks may drift, by the time between two readings, before one of them was set.
	stepped = 5 * int64(time.Millisecond)
	// seqBits is how many bits of the number of a request count those of a pair. The rest are the pair's place.
	seqBits = 48
)

// A sender sends. What has come it reads when it sends the next time: the kernel says when it came, so that nobody has to be woken. What it has is guarded by mu.
type sender struct {
	now  func() int64
	wall func() int64 // CLOCK_REALTIME, which is that of the kernel's stamps
	mark uint32       // of its nonces

	mu      sync.Mutex
	plan    Plan
	pairs   []*pair // nil: free
	sockets []*socket
	slots   [][]*pair
	length  int64 // of a slot
	idle    bool  // there are no pairs
	next    int64 // number of the next slot, from now 0 on
	turn    int   // the request of the bursts in it that is next

	message []byte
	inbox   *inbox
}

// A pair is one of the plan's.
type pair struct {
	Pair
	socket  *socket // nil: none
	broken  string  // why
	to      place
	key     [16]byte // of the address that is asked
	nonce   uint64
	index   uint64 // its place, in the upper bits of a request's number
	token   uint64
	seq     uint64 // of the next request
	expired uint64 // what is before it is not waited for
	flights []flight

	// What follows is for the next report.
	counts Counts
	took   []int64
	errno  unix.Errno // of the last request
	told   string     // the error of the last report
}

// A flight is a request, at its sequence number modulo their length.
type flight struct {
	seq   uint64
	began int64 // from when it counts
	wall  int64 // the same by the other clock
	state uint8
	first bool // of several
}

const (
	waiting = 1 + iota
	answered
	lost
)

// arrange puts pairs into slots. What would have been due before now is not.
func (s *sender) arrange(now int64) {
	n := min(max(int(s.plan.Interval/slotTime), (len(s.plan.Pairs)+inSlot-1)/inSlot, 1), maxSlots)
	s.slots, s.idle = make([][]*pair, n), true
	for _, p := range s.pairs {
		if p != nil {
			s.idle = false
			i := int(p.ID % uint64(n))
			s.slots[i] = append(s.slots[i], p)
		}
	}
	next := s.next
	if length := int64(s.plan.Interval) / int64(n); length != s.length { // slots have other numbers
		s.length, s.turn, next = length, 0, 0
	}
	s.next = max(next, now/s.length+1)
}

// step does what is due, and returns when something will be.
func (s *sender) step() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle {
		return math.MaxInt64
	}
	now := s.now()
	for s.turn == 0 && s.next*s.length+int64(s.plan.Interval) < now {
		for _, p := range s.slots[s.next%int64(len(s.slots))] {
			p.counts.Missed += uint64(s.plan.Burst)
		}
		s.next++
	}
	if due := s.due(); due > now {
		return due
	}
	s.drain() // with it come the tokens of who is asked next
	s.train(s.slots[s.next%int64(len(s.slots))])
	if s.turn++; s.turn == s.plan.Burst {
		s.next, s.turn = s.next+1, 0
	}
	return s.due()
}

// due is when the next requests are.
func (s *sender) due() int64 {
	gap := min(int64(spacing), s.length/int64(2*s.plan.Burst))
	return s.next*s.length + int64(s.turn)*gap
}

// train sends one request of each of the pairs.
func (s *sender) train(pairs []*pair) {
	if len(pairs) == 0 {
		return
	}
	due, gap := s.due(), min(int64(pace), s.length/int64(2*len(pairs)*s.plan.Burst))
	for _, p := range pairs {
		if p.socket != nil {
			s.send(p, due, s.turn == 0 && s.plan.Burst > 1)
		}
		due += gap
	}
}

// send sends the next request of a pair.
func (s *sender) send(p *pair, due int64, first bool) {
	f := &p.flights[p.seq%uint64(len(p.flights))]
	if f.state == waiting {
		p.counts.Lost++
	}
	message{kind: request, nonce: p.nonce, seq: p.index | p.seq, token: p.token}.put(s.message)
	now, wall := s.now(), s.wall()
	*f = flight{seq: p.seq, began: now, wall: wall, state: waiting, first: first}
	if late := now - due; late > punctual {
		f.began, f.wall = now-late, wall-late
		p.counts.Held++
	}
	p.seq = (p.seq + 1) & (1<<seqBits - 1)
	p.counts.Sent++
	if p.errno = sendTo(p.socket.fd, s.message, &p.to); p.errno != 0 {
		f.state = lost
		p.counts.Lost++
	}
}

// drain takes what has come to all sockets; what a peer sends without end waits for the next time. mu is held.
func (s *sender) drain() {
	const most = 64 // inboxes of a socket
	ahead := s.wall() - s.now()
	for _, k := range s.sockets {
		for range most {
			n := s.inbox.receive(k.fd)
			for i := range n {
				datagram, from := s.inbox.at(i)
				s.take(datagram, &from, s.inbox.stamp(i), ahead)
			}
			if n < inboxSize {
				break
			}
		}
	}
}

// take takes an answer that arrived at a time of the other clock, which is so far ahead now; 0: that is not known.
func (s *sender) take(datagram []byte, from *place, arrived, ahead int64) {
	m, ok := parse(datagram)
	if !ok || m.kind == request {
		return
	}
	i := int(m.seq >> seqBits)
	if i >= len(s.pairs) || s.pairs[i] == nil || s.pairs[i].nonce != m.nonce {
		return
	}
	p, seq := s.pairs[i], m.seq&(1<<seqBits-1)
	f := &p.flights[seq%uint64(len(p.flights))]
	if addr, port := from.addr(); addr != p.key || port != s.plan.Port || f.seq != seq || len(datagram) != s.plan.Size {
		return
	}
	if m.kind == challenge {
		p.token = m.token
	}
	// Without a stamp, or if a clock was set meanwhile, it is not known how long it took.
	drift := ahead - (f.wall - f.began)
	timed := arrived != 0 && arrived >= f.wall && -stepped < drift && drift < stepped
	switch took := arrived - f.wall; {
	case f.state == lost || f.state == waiting && timed && took > int64(s.plan.Timeout):
		if f.state == waiting {
			p.counts.Lost++
		}
		p.counts.Late++
	case f.state == waiting:
		p.counts.Answered++
		if timed && m.kind == answer && !f.first && len(p.took) < maxTook {
			p.took = append(p.took, underway(took, m.token))
		}
	}
	f.state = answered
}

// underway is what a round trip took without the time that the request has waited for who answers to wake up, and to answer others before. If that is
// too long for it, the other end stood still, and all of it counts, as on this side.
func underway(took int64, waited uint64) int64 {
	if waited > uint64(punctual) || int64(waited) >= took {
		return took
	}
	return took - int64(waited)
}

// expire gives up what is not answered in time.
func (s *sender) expire(p *pair, now int64) {
	if oldest := p.seq - min(p.seq, uint64(len(p.flights))); p.expired < oldest {
		p.expired = oldest // those have been counted when they were overwritten
	}
	for ; p.expired < p.seq; p.expired++ {
		f := &p.flights[p.expired%uint64(len(p.flights))]
		if f.state != waiting {
			continue
		}
		if now-f.began <= int64(s.plan.Timeout) {
			return
		}
		f.state = lost
		p.counts.Lost++
	}
}

// report appends what there is to report, with a comma after each pair.
func (s *sender) report(b []byte) []byte {
	now := s.now()
	s.drain() // so that what is not there now has not come by then
	for _, p := range s.pairs {
		if p == nil {
			continue
		}
		s.expire(p, now)
		if p.counts != (Counts{}) || len(p.took) > 0 || p.why() != p.told {
			b = p.appendTo(b)
		}
	}
	return b
}

// reported says that the report has arrived.
func (s *sender) reported() {
	for _, p := range s.pairs {
		if p != nil {
			p.counts, p.took, p.told = Counts{}, p.took[:0], p.why()
		}
	}
}

func uncomma(b []byte) []byte {
	if b[len(b)-1] == ',' {
		return b[:len(b)-1]
	}
	return b
}

// why is what keeps requests from being sent.
func (p *pair) why() string {
	if p.errno != 0 {
		return p.errno.Error()
	}
	return p.broken
}

// appendTo appends the pair's report and a comma, without making garbage.
func (p *pair) appendTo(b []byte) []byte {
	b = append(b, `{"id":`...)
	b = strconv.AppendUint(b, p.ID, 10)
	c := &p.counts
	b = appendCount(b, `,"sent":`, c.Sent)
	b = appendCount(b, `,"answered":`, c.Answered)
	b = appendCount(b, `,"lost":`, c.Lost)
	b = appendCount(b, `,"late":`, c.Late)
	b = appendCount(b, `,"missed":`, c.Missed)
	b = appendCount(b, `,"held":`, c.Held)
	if len(p.took) > 0 {
		b = append(b, `,"took":[`...)
		for _, t := range p.took {
			b = append(strconv.AppendInt(b, t, 10), ',')
		}
		b = append(uncomma(b), ']')
	}
	b = appendText(b, `,"error":`, p.why())
	return append(b, "},"...)
}

func appendCount(b []byte, key string, n uint64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendUint(append(b, key...), n, 10)
}

// appendText appends a text as JSON has it; what is not printable ASCII becomes a question mark.
func appendText(b []byte, key, text string) []byte {
	if text == "" {
		return b
	}
	b = append(append(b, key...), '"')
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
