package engine

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A turn is the time of one path in a stream's round. The client's thread writes it while the server's waits for the next number.
type turn struct {
	number atomic.Int64
	first  atomic.Uint64 // sequence number: what is before it is a straggler of an earlier turn
	served atomic.Int64  // the last that the server's thread has ended
	end    atomic.Int64  // when the sender stops
	begun  atomic.Int64  // when it has begun
	sent   atomic.Int64  // what it has sent, -1: it has not stopped yet
}

// A delivery is what the receiver has seen of a turn.
type delivery struct {
	octets     int64
	messages   int64
	duplicates int64
	reordered  int64
	last       time.Duration
}

// stream is the client's thread: each path in turn.
func (e *engine) stream() {
	e.primed.Store(true)
	order := make([]*path, 0, len(e.paths))
	for _, p := range e.paths {
		if p.failed == "" {
			order = append(order, p)
		}
	}
	if e.job.Warmup > 0 {
		for _, p := range order {
			e.take(p, e.job.Warmup)
		}
	}
	e.count()
	rounds := max(e.job.Rounds, 1)
	for range rounds {
		e.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, p := range order {
			if e.stop.Load() {
				return
			}
			if p.failed == "" {
				e.take(p, e.job.Load.Duration/time.Duration(rounds))
			}
		}
	}
}

// take is a turn of p.
func (e *engine) take(p *path, d time.Duration) {
	e.client.used()
	e.turn.sent.Store(-1)
	e.turn.first.Store(p.streamed)
	e.turn.end.Store(int64(e.now() + d))
	e.active.Store(int64(p.index))
	n := e.turn.number.Add(1)
	why := e.half(&e.client, p, 0)
	for spins := 1; e.turn.served.Load() != n && !e.stop.Load(); spins++ {
		e.idle(spins)
	}
	if e.stop.Load() {
		return
	}
	for _, w := range []string{why, p.refused} {
		if w != "" {
			p.fail("%s", w)
		}
	}
	got := p.delivered
	p.octets += got.octets
	if last := got.last; last > 0 {
		p.elapsed += last - time.Duration(e.turn.begun.Load())
	}
	sent := e.turn.sent.Load()
	p.loss.Sent += sent
	if !e.tcp() {
		p.loss.Lost += max(sent-(got.messages-got.duplicates), 0)
		p.loss.Duplicates += got.duplicates
		p.loss.Reordered += got.reordered
	}
}

// half is what one side does in a turn. It returns why that has failed.
func (e *engine) half(t *thread, p *path, side int) (why string) {
	c := p.client
	if side == 1 {
		c = p.server
	}
	if (side == 1) == (e.job.Load.Mode == result.Maerts) {
		why = e.push(p, c, side == 1)
	} else {
		why = e.pull(p, c)
	}
	if d := t.used(); e.counting.Load() {
		p.cpu[side] += d
	}
	if why != "" {
		return t.side + ": " + why
	}
	return ""
}

// serveStream is the server's thread.
func (e *engine) serveStream() {
	for spins := 1; !e.done.Load() && !e.stop.Load(); spins++ {
		i := e.active.Load()
		if i < 0 {
			e.idle(spins)
			continue
		}
		p := e.paths[i]
		if !e.primed.Load() {
			if p.server != nil && e.serveOne(p) == nothing {
				e.idle(spins)
			}
			continue
		}
		n := e.turn.number.Load()
		if n == e.turn.served.Load() {
			e.idle(spins)
			continue
		}
		spins = 0
		p = e.paths[e.active.Load()] // of this turn
		e.server.used()
		p.refused = e.half(&e.server, p, 1)
		e.turn.served.Store(n)
	}
}

// idle passes a little time.
func (e *engine) idle(spins int) {
	if e.job.Busy {
		yield(spins)
		return
	}
	rest(50 * time.Microsecond)
}

// push sends until the turn ends.
func (e *engine) push(p *path, c *conn, back bool) (why string) {
	flags := uintptr(0)
	if e.job.Busy {
		flags = unix.MSG_DONTWAIT
	}
	send := c.send
	if back {
		send = c.sendBack
	}
	begun := e.now()
	e.turn.begun.Store(int64(begun))
	end := time.Duration(e.turn.end.Load())
	sent := int64(0)
	for spins := 1; !e.stop.Load(); spins++ {
		now := e.now()
		if c.written == 0 {
			if now >= end {
				break
			}
			if r := e.job.Load.Rate; r > 0 {
				if due := begun + time.Duration(float64(sent)*float64(time.Second)/r); now < due {
					if !e.job.Busy {
						pollAll([]unix.PollFd{{Fd: -1}}, min(due, end)-now)
					}
					continue
				}
			}
			putHeader(c.out, p.streamed, e.nonce, uint16(p.index), kindData)
		} else if now >= end+e.job.Timeout {
			why = fmt.Sprintf("the connection takes nothing for %v", e.job.Timeout)
			break
		}
		switch send(flags) {
		case message:
			sent++
			p.streamed++
			spins = 0
		case closed:
			if c.tcp {
				why = fmt.Sprintf("the connection has ended: %v", c.errno)
				end, c.written = 0, 0
			}
		default:
			yield(spins)
		}
	}
	e.turn.sent.Store(sent)
	return why
}

// pull receives until all has come, or nothing more comes.
func (e *engine) pull(p *path, c *conn) (why string) {
	flags := uintptr(0)
	if e.job.Busy {
		flags = unix.MSG_DONTWAIT
	}
	d := delivery{}
	quiet := e.job.Timeout
	if !c.tcp {
		quiet = min(quiet, max(4*p.rtt, nap))
	}
	heard, over := e.now(), false
	first := e.turn.first.Load()
	for spins := 1; !e.stop.Load(); spins++ {
		what := nothing
		if c.tcp {
			n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&p.sink[0])), uintptr(len(p.sink)), flags, 0, 0)
			switch {
			case errno == 0 && n == 0, errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR:
				c.errno = errno
				what = closed
			case errno == 0:
				d.octets += int64(n)
				what = message
			}
		} else if what = c.receive(flags); what == message {
			if binary.BigEndian.Uint32(c.in[8:]) != e.nonce || binary.BigEndian.Uint16(c.in[14:]) != kindData {
				continue
			}
			seq := binary.BigEndian.Uint64(c.in)
			if seq < first {
				continue
			}
			if d.messages > 0 && seq <= p.heard {
				if d.reordered++; seq == p.heard {
					d.reordered--
					d.duplicates++
				}
			}
			p.heard = max(p.heard, seq)
			d.messages++
			d.octets += int64(len(c.in))
		}
		if what == closed {
			why = fmt.Sprintf("the connection has ended: %v", c.errno)
			break
		}
		if what == message {
			d.last = e.now()
			heard, over, spins = d.last, false, 0
			continue
		}
		if sent := e.turn.sent.Load(); sent >= 0 {
			if d.octets >= sent*int64(e.job.Load.Size) {
				break
			}
			// Who was not running while it was quiet looks once more.
			if over {
				break
			}
			over = e.now()-heard >= quiet && e.now() >= time.Duration(e.turn.end.Load())+quiet
		}
		if e.job.Busy {
			yield(spins)
		}
	}
	p.delivered = d
	return why
}
