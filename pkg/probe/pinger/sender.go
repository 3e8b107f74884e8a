package pinger

import (
	"math"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spacing is how long a request waits at most for the answer to the one before it.
	spacing = time.Millisecond
	// punctual is up to when a request that is sent late counts from when it was sent: what timers and wake-ups take is not the path's. Timers
	// of Go's are up to a millisecond late by design.
	punctual = 3 * int64(time.Millisecond)
	// slotTime is how long a slot of an interval is at least. What is in one is sent one after the other: waking up is what costs most, and what
	// finds cold caches.
	slotTime = time.Second
	maxSlots = 64
	// maxTook is how many round trips of a pair wait for a report.
	maxTook = 1024
)

// A sender sends. What it has is guarded by mu.
type sender struct {
	now func() int64

	mu    sync.Mutex
	plan  Plan
	pairs []*pair // by the lower 16 bits of their nonces; nil: free
	slots [][]*pair
	idle  bool  // there are no pairs
	next  int64 // number of the next slot, from now 0 on

	awaited *flight       // its answer is waited for
	heard   chan struct{} // has something when it has come
	timer   *time.Timer

	message, buffer []byte
	from            place
}

// A pair is one of the plan's.
type pair struct {
	Pair
	socket  *socket // nil: none
	broken  string  // why
	to      place
	key     [16]byte // of the address that is asked
	nonce   uint64
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
	n := min(max(int(s.plan.Interval/slotTime), 1), maxSlots)
	s.slots, s.idle = make([][]*pair, n), true
	for _, p := range s.pairs {
		if p != nil {
			s.idle = false
			i := int(p.ID % uint64(n))
			s.slots[i] = append(s.slots[i], p)
		}
	}
	s.next = max(s.next, now/s.slotLength()+1)
}

func (s *sender) slotLength() int64 { return int64(s.plan.Interval) / int64(len(s.slots)) }

// step does what is due, and returns when something will be.
func (s *sender) step() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle {
		return math.MaxInt64
	}
	now, length := s.now(), s.slotLength()
	for s.next*length+int64(s.plan.Interval) < now {
		for _, p := range s.slots[s.next%int64(len(s.slots))] {
			p.counts.Missed += uint64(s.plan.Burst)
		}
		s.next++
	}
	due := s.next * length
	if due > now {
		return due
	}
	n := s.next
	s.next++
	s.train(s.slots[n%int64(len(s.slots))], due)
	return s.next * length
}

// train sends what is in a slot, one request after the other.
func (s *sender) train(pairs []*pair, due int64) {
	if len(pairs) == 0 {
		return
	}
	gap := min(int64(spacing), s.slotLength()/int64(2*len(pairs)*s.plan.Burst))
	latest := due // when the next request is due at the latest
	release := due
	for _, p := range pairs {
		for i := range s.plan.Burst {
			if p.socket == nil { // or not any more
				break
			}
			if f := s.send(p, min(release, latest), i == 0 && s.plan.Burst > 1); f != nil {
				release = s.await(f, gap)
			}
			latest += gap
		}
	}
}

// send sends the next request of a pair; nil: it could not be sent.
func (s *sender) send(p *pair, due int64, first bool) *flight {
	f := &p.flights[p.seq%uint64(len(p.flights))]
	if f.state == waiting {
		p.counts.Lost++
	}
	now := s.now()
	*f = flight{seq: p.seq, began: now, state: waiting, first: first}
	if now-due > punctual {
		f.began = due
		p.counts.Held++
	}
	message{kind: request, nonce: p.nonce, seq: p.seq, token: p.token}.put(s.message)
	p.seq++
	p.counts.Sent++
	if p.errno = sendTo(p.socket.fd, s.message, &p.to); p.errno != 0 {
		f.state = lost
		p.counts.Lost++
		return nil
	}
	return f
}

// await waits for the answer to a request, but not longer than gap, and returns when that was. Meanwhile it does not hold mu.
func (s *sender) await(f *flight, gap int64) int64 {
	s.awaited = f
	s.timer.Reset(time.Duration(gap))
	s.mu.Unlock()
	select {
	case <-s.heard:
	case <-s.timer.C:
	}
	s.mu.Lock()
	s.awaited = nil
	select {
	case <-s.heard: // it has come just now
	default:
	}
	return s.now()
}

// drain takes what has come to a socket.
func (s *sender) drain(from *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.receive(from.fd) {
	}
}

// receive takes an answer, and reports whether there was anything.
func (s *sender) receive(fd int) bool {
	n, ok := receiveFrom(fd, s.buffer, &s.from)
	if !ok {
		return false
	}
	now := s.now()
	m, ok := parse(s.buffer[:n])
	if !ok || m.kind == request {
		return true
	}
	i := int(m.nonce & math.MaxUint16)
	if i >= len(s.pairs) || s.pairs[i] == nil || s.pairs[i].nonce != m.nonce {
		return true
	}
	p := s.pairs[i]
	f := &p.flights[m.seq%uint64(len(p.flights))]
	if addr, port := s.from.addr(); addr != p.key || port != s.plan.Port || f.seq != m.seq || n != s.plan.Size {
		return true
	}
	if m.kind == challenge {
		p.token = m.token
	}
	switch {
	case f.state == lost || f.state == waiting && now-f.began > int64(s.plan.Timeout):
		if f.state == waiting {
			p.counts.Lost++
		}
		p.counts.Late++
	case f.state == waiting:
		p.counts.Answered++
		if m.kind == answer && !f.first && len(p.took) < maxTook {
			p.took = append(p.took, now-f.began)
		}
	}
	f.state = answered
	if f == s.awaited {
		s.awaited = nil
		s.heard <- struct{}{}
	}
	return true
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
