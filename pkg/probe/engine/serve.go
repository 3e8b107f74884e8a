package engine

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// serve is the server's thread.
func (e *engine) serve() {
	switch {
	case e.streams():
		e.serveStream()
	case e.job.Load.Mode == result.CRR:
		e.serveConnections()
	case e.job.Busy && (e.job.Load.Mode == result.RR || len(e.paths) == 1):
		e.serveActive()
	default:
		e.serveReady()
	}
}

// serveActive polls the path that the client uses.
func (e *engine) serveActive() {
	current := int64(-1)
	for spins := 1; !e.done.Load() && !e.stop.Load(); spins++ {
		i := e.active.Load()
		if i != current {
			e.account(current)
			current = i
		}
		if i >= 0 && e.serveOne(e.paths[i]) == message {
			spins = 0
		}
		yield(spins)
	}
	e.account(current)
}

// serveReady answers on all paths.
func (e *engine) serveReady() {
	set, err := newPoller()
	if err != nil {
		e.server.notes = append(e.server.notes, err.Error())
		return
	}
	defer set.close()
	for _, p := range e.paths {
		if p.opened {
			if err := set.add(p.server.fd, p.index); err != nil {
				e.server.notes = append(e.server.notes, err.Error())
				return
			}
		}
	}
	wait := nap
	if e.job.Busy {
		wait = 0
	}
	current := int64(-1)
	for spins := 1; !e.done.Load() && !e.stop.Load(); spins++ {
		n := set.wait(wait)
		if n > 0 {
			spins = 0
		} else if e.job.Busy {
			yield(spins)
		}
		if i := e.active.Load(); i != current {
			e.account(current)
			current = i
		}
		for k := range n {
			p := e.paths[set.events[k].Fd]
			if e.serveOne(p) == closed {
				p.server.close() // which also takes it out of the set
			}
		}
	}
	e.account(current)
}

// account adds what the server's thread has used since the last call to the path at i.
func (e *engine) account(i int64) {
	if d := e.server.used(); i >= 0 && e.counting.Load() {
		e.paths[i].cpu[1] += d
	}
}

// serveOne answers one request, if there is one.
func (e *engine) serveOne(p *path) int {
	c := p.server
	var what int
	if p.stamps != nil {
		what = p.stamps.receiveFrom(c, e.counting.Load(), &p.first, e.base)
	} else {
		what = c.receiveFrom(unix.MSG_DONTWAIT)
	}
	if what != message {
		return what
	}
	kind := binary.BigEndian.Uint16(c.in[14:])
	if binary.BigEndian.Uint32(c.in[8:]) != e.nonce || kind != kindRequest && kind != kindPrime {
		return message
	}
	if p.Fault != nil && kind == kindRequest && e.counting.Load() && !e.misbehave(p) {
		return message
	}
	copy(c.out[:14], c.in[:14])
	binary.BigEndian.PutUint16(c.out[14:], kindAnswer)
	flags := uintptr(unix.MSG_DONTWAIT)
	if !e.job.Busy && p.calls == nil {
		flags = 0
	}
	for c.sendBack(flags) == nothing && !e.stop.Load() && !e.done.Load() {
	}
	return message
}

// misbehave reports whether there is to be an answer.
func (e *engine) misbehave(p *path) bool {
	f := p.Fault
	if f.Drop > 0 && p.chance.Float64() < f.Drop {
		return false
	}
	wait := time.Duration(0)
	if p.answered++; f.Stall > 0 && !p.stalled && p.answered > f.StallAfter {
		p.stalled = true
		wait += f.Stall
	}
	if f.Delay > exact {
		wait += f.Delay
	} else {
		e.spin(int(float64(f.Delay) * e.pace))
	}
	if wait > 0 {
		for begun := e.now(); e.now()-begun < wait; {
		}
	}
	return true
}

// exact is up to where a delay is counted in turns of a loop, for which reading the clock is too coarse.
const exact = 10 * time.Microsecond

// calibrate finds out how many turns of spin a nanosecond has.
func (e *engine) calibrate() {
	const turns = 100_000
	for range 20 {
		begun := e.now()
		e.spin(turns)
		e.pace = max(e.pace, turns/float64(e.now()-begun)) // what was interrupted took longer
	}
}

// spin makes n turns, each of which needs the one before.
func (e *engine) spin(n int) {
	x := e.spun | 1
	for range n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	e.spun = x
}
