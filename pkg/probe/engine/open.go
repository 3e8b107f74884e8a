package engine

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// attributable is the burst from which on an open loop's CPU time can be told by path.
const attributable = 10

// openLoop sends when requests are due. One that cannot be sent in time, for whatever reason, is sent as soon as it can be, and its time
// counts from when it was due: who waits for a server that has stalled does not get to omit what he should have sent meanwhile.
func (e *engine) openLoop() {
	var live []*path
	for _, p := range e.paths {
		if p.failed == "" {
			live = append(live, p)
		}
	}
	if n := int64(e.job.Load.Rate * e.job.Warmup.Seconds()); n > 0 {
		e.openPhase(live, min(n, e.limit), false)
		if e.stop.Load() {
			return
		}
	}
	e.count()
	e.openPhase(live, e.limit, true)
}

// schedule fills in when each of n requests of each path is due, in bursts of paths in random order.
func (e *engine) schedule(live []*path, n int64, begin time.Duration) {
	order := append([]*path(nil), live...)
	slot := float64(time.Second) / (e.job.Load.Rate * float64(len(live)))
	at := int64(0)
	for done := int64(0); done < n; {
		e.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		burst := min(int64(e.job.Burst), n-done)
		for _, p := range order {
			for i := range burst {
				p.due[done+i] = int64(begin) + int64(slot*float64(at))
				at++
			}
		}
		done += burst
	}
}

func (e *engine) openPhase(live []*path, n int64, counted bool) {
	e.schedule(live, n, e.now()+time.Millisecond)
	for _, p := range live {
		p.first, p.head, p.newest = p.next, 0, 0
		clear(p.state)
		p.took, p.sent, p.timers, p.marks = p.took[:0], p.sent[:0], p.timers[:0], p.marks[:0]
	}
	tell := len(live) == 1 || e.job.Burst >= attributable
	if !tell {
		e.active.Store(-1)
		if counted {
			e.client.notes = append(e.client.notes, fmt.Sprintf("CPU time is not told by path: bursts of several paths are shorter than %d", attributable))
		}
	}
	fds := make([]unix.PollFd, len(live))
	begun := e.now()
	total, marked := int64(0), int64(0)
	for spins := 1; !e.stop.Load(); spins++ {
		now := e.now()
		if counted && e.job.Stop > 0 {
			e.pause()
		}
		idle, left := true, false
		next := now + nap
		for i, p := range live {
			fds[i] = unix.PollFd{Fd: -1}
			if p.failed != "" {
				continue
			}
			k := int64(p.next - p.first)
			if k < n {
				left = true
				if due := time.Duration(p.due[k]); now < due {
					next = min(next, due)
				} else if e.openSend(p, k, counted, tell) {
					idle = false
					total++
				} else {
					fds[i] = unix.PollFd{Fd: int32(p.client.fd), Events: unix.POLLOUT}
				}
			}
			if p.head == p.next-p.first {
				continue // nothing is waited for
			}
			left = true
			if p.resends != nil && p.head < p.next-p.first {
				next = min(next, now+p.patient(time.Duration(p.began[p.head]), nap, now))
			}
			if e.openReceive(p, counted) {
				idle = false
			} else if lostAt := e.expire(p, counted); lostAt > 0 {
				next = min(next, lostAt)
			}
			fds[i].Fd = int32(p.client.fd)
			fds[i].Events |= unix.POLLIN
		}
		if counted && total-marked >= int64(blockSize*len(live)) {
			marked = total
			for _, p := range live {
				p.marks = append(p.marks, mark{len(p.took), int(p.loss.Lost)})
			}
		}
		if !left {
			break
		}
		switch {
		case !idle:
			spins = 0
		case e.job.Busy:
			yield(spins)
		default:
			pollAll(fds, next-e.now())
		}
	}
	for _, p := range live {
		p.elapsed = e.now() - begun
	}
	if counted && tell {
		e.turnTo(nil)
	}
}

// turnTo accounts for what the client has used since the last turn, and makes p the path of what follows.
func (e *engine) turnTo(p *path) {
	if i, d := e.active.Load(), e.client.used(); i >= 0 && e.counting.Load() {
		e.paths[i].cpu[0] += d
	}
	if p != nil {
		e.active.Store(int64(p.index))
	}
}

// openSend sends request k, and reports whether it is sent.
func (e *engine) openSend(p *path, k int64, counted, tell bool) bool {
	if tell && e.active.Load() != int64(p.index) {
		e.turnTo(p)
	}
	c := p.client
	if c.written == 0 {
		putHeader(c.out, p.next, e.nonce, uint16(p.index), kindRequest)
		p.began[k] = int64(e.now())
	}
	switch c.send(unix.MSG_DONTWAIT) {
	case nothing:
		return false
	case closed: // a datagram that is refused is lost
		if c.tcp {
			p.fail("client: the connection has ended: %v", c.errno)
			return false
		}
	}
	p.next++
	p.state[k] = waiting
	if counted {
		p.loss.Sent++
		e.requests.Add(1)
	}
	return true
}

// openReceive takes what is there, and reports whether there was anything.
func (e *engine) openReceive(p *path, counted bool) bool {
	c := p.client
	for got := 0; ; got++ {
		switch c.receive(unix.MSG_DONTWAIT) {
		case closed:
			p.fail("client: the connection has ended: %v", c.errno)
			return true
		case nothing:
			return got > 0
		}
		now := int64(e.now())
		seq, ok := e.answer(c, p)
		i := seq - p.first
		if !ok || i >= p.next-p.first {
			continue
		}
		if p.state[i] != waiting {
			p.stale(seq)
			continue
		}
		p.state[i] = answered
		if i < p.newest {
			p.loss.Reordered++
		}
		p.newest = max(p.newest, i)
		if counted {
			p.transactions++
			p.took = append(p.took, now-p.due[i])
			if p.resends != nil && p.resends.waited(time.Duration(p.began[i]), time.Duration(now)) {
				p.timers = append(p.timers, now-p.due[i])
			}
			p.sent = append(p.sent, now-p.began[i])
		}
		if got == 64 {
			return true // others wait too
		}
	}
}

// expire gives up requests that are too old, and returns when the next one will be, 0: none is waited for. What arrives was taken before: a
// client that was stopped has not lost what meanwhile came in time to its socket.
func (e *engine) expire(p *path, counted bool) time.Duration {
	now := e.now()
	for ; p.head < p.next-p.first; p.head++ {
		if p.state[p.head] != waiting {
			continue
		}
		if at := time.Duration(p.began[p.head]) + e.job.Timeout; now < at {
			return at
		}
		p.state[p.head] = lost
		if counted {
			p.loss.Lost++
		}
	}
	return 0
}
