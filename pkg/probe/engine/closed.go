package engine

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// tries is how often a path is tried before it has failed: neighbours and flows take their time.
const tries = 5

// prime makes the neighbours known, and finds out whether the path works.
func (e *engine) prime(p *path) {
	if e.job.Load.Mode == result.CRR || p.client.tcp {
		return // connecting does
	}
	e.active.Store(int64(p.index))
	wait := max(e.job.Timeout, 200*time.Millisecond)
	for range tries {
		took, ok := e.transact(p, kindPrime, wait)
		if ok || e.stop.Load() {
			p.rtt = took
			e.awaitStamps(p)
			return
		}
	}
	why := ""
	if p.client.errno != 0 {
		why = ": " + p.client.errno.Error()
	}
	p.fail("client: no answer from %v to %d requests%s", p.to, tries, why)
}

// awaitStamps waits until what arrives is stamped: the kernel begins to do so some time after the first socket has asked for it.
func (e *engine) awaitStamps(p *path) {
	if p.stamps == nil {
		return
	}
	for end := e.now() + time.Second; e.now() < end && !p.stamps.seen.Load() && !e.stop.Load(); {
		e.transact(p, kindPrime, e.job.Timeout)
	}
}

// closedLoop calls once for each request, in rounds.
func (e *engine) closedLoop(once func(p *path, counted bool)) {
	order := make([]*path, 0, len(e.paths))
	for _, p := range e.paths {
		if p.failed == "" {
			order = append(order, p)
		}
	}
	for end := e.now() + e.job.Warmup; e.now() < end && !e.stop.Load(); {
		e.round(order, once)
	}
	e.count()
	begun := e.now()
	marked := 0
	for r := 0; r < e.job.Rounds || e.job.Rounds == 0; r++ {
		if e.stop.Load() || e.job.Load.Duration > 0 && e.now()-begun >= e.job.Load.Duration {
			break
		}
		if int64(order[0].next-order[0].first)+int64(e.job.Burst) > e.limit || !e.any() {
			break
		}
		e.round(order, once)
		if marked += e.job.Burst; marked >= blockSize {
			marked = 0
			for _, p := range order {
				p.marks = append(p.marks, mark{len(p.took), int(p.loss.Lost)})
			}
		}
	}
}

// round is a burst of each path in random order.
func (e *engine) round(order []*path, once func(p *path, counted bool)) {
	e.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	counting := e.counting.Load()
	for _, p := range order {
		if p.stream != nil && p.failed == "" {
			e.flow(p)
		}
		if p.failed != "" {
			p.next += uint64(e.job.Burst)
			continue
		}
		e.active.Store(int64(p.index))
		begun, carried, apart := e.now(), p.stream.carried(), time.Duration(0)
		for i := range e.job.Burst {
			if p.stream != nil {
				apart += e.space()
			}
			once(p, counting && (i > 0 || e.job.Burst == 1))
		}
		took := e.now() - begun
		p.elapsed += took - apart
		p.stream.had(p.stream.carried()-carried, took)
		p.cpu[0] += e.client.used()
		if counting {
			e.requests.Add(int64(e.job.Burst))
		}
		if e.job.Stop > 0 && counting {
			e.pause()
		}
	}
}

// pause is the fault of a client that stops once a second.
func (e *engine) pause() {
	now := e.now()
	if now < e.nextStop {
		return
	}
	e.nextStop += time.Second
	for e.now()-now < e.job.Stop {
	}
}

// exchange is one request and its answer.
func (e *engine) exchange(p *path, counted bool) {
	seq := p.next
	took, ok := e.transact(p, kindRequest, e.job.Timeout)
	p.note(seq, took, ok, counted)
}

// note notes what came of a request.
func (p *path) note(seq uint64, took time.Duration, ok, counted bool) {
	i := seq - p.first
	if i >= uint64(len(p.state)) {
		return // of the warm-up
	}
	if counted {
		p.loss.Sent++
	}
	if !ok {
		p.loss.Lost++
		p.state[i] = lost
		return
	}
	p.state[i] = answered
	p.transactions++
	if counted {
		p.took = append(p.took, int64(took))
		if p.timer {
			p.timers = append(p.timers, int64(took))
		}
	}
}

// transact sends a request and waits for its answer, not longer than wait.
func (e *engine) transact(p *path, kind uint16, wait time.Duration) (time.Duration, bool) {
	c := p.client
	seq := p.next
	p.next++
	flags := uintptr(unix.MSG_DONTWAIT)
	if !e.job.Busy {
		flags = 0
	}
	begun := e.now()
	p.timer = false
	for c.written > 0 && c.send(flags) == nothing { // what an earlier request has left
		if e.now()-begun >= wait || e.stop.Load() {
			return 0, false
		}
	}
	putHeader(c.out, seq, e.nonce, uint16(p.index), kind)
	if p.stamps != nil {
		put(p.stamps.send, seq, p.first, realtime())
	}
	for c.send(flags) == nothing {
		if e.now()-begun >= wait || e.stop.Load() {
			return 0, false
		}
	}
	for spins := 1; ; spins++ {
		switch c.receive(flags) {
		case message:
			now := e.now()
			switch got, ok := e.answer(c, p); {
			case !ok:
			case got == seq:
				if p.stamps != nil {
					p.stamps.collect(c.fd, p.first)
					p.stamps.trip(seq, p.first, begun, now)
				}
				p.timer = p.resends != nil && p.resends.waited(begun, now)
				return now - begun, true
			default:
				p.stale(got)
			}
		case closed:
			p.fail("client: the connection has ended: %v", c.errno)
			return 0, false
		default: // nothing
		}
		left := wait - (e.now() - begun)
		if left <= 0 || e.stop.Load() {
			if p.stamps != nil {
				p.stamps.collect(c.fd, p.first)
			}
			return 0, false
		}
		if p.resends != nil {
			left = p.patient(begun, left, e.now())
		}
		if flags = unix.MSG_DONTWAIT; !e.job.Busy {
			poll(c.fd, unix.POLLIN, left)
		} else {
			yield(spins)
		}
	}
}

// patient looks at the connection if that is due, and returns how much of left may pass until it is.
func (p *path) patient(begun, left, now time.Duration) time.Duration {
	due := p.resends.due(begun)
	if due > 0 && due <= now {
		p.resends.look(now)
	} else if due > 0 {
		left = min(left, due-now)
	}
	return left
}

// answer returns the sequence number of the answer that c has received, if it is one.
func (e *engine) answer(c *conn, p *path) (uint64, bool) {
	ours := binary.BigEndian.Uint32(c.in[8:]) == e.nonce && binary.BigEndian.Uint16(c.in[12:]) == uint16(p.index) && binary.BigEndian.Uint16(c.in[14:]) == kindAnswer
	return binary.BigEndian.Uint64(c.in), ours
}

// stale notes an answer that nobody waits for any more.
func (p *path) stale(seq uint64) {
	i := seq - p.first
	if i >= uint64(len(p.state)) {
		return // of the warm-up
	}
	switch p.state[i] {
	case lost:
		p.state[i] = answered
		p.loss.Late++
	case answered:
		p.loss.Duplicates++
	}
}
