package ovsdb

import (
	"math/rand/v2"
	"time"
)

// A backoff says how long to wait before the next try to connect.
//
// For servers on the network the waits are those of the C library
// (RECONNECT_DEFAULT_MIN_BACKOFF, RECONNECT_DEFAULT_MAX_BACKOFF). On a local
// socket the wait is the outage: whoever restarts ovsdb-server has it back
// within milliseconds, and an attempt costs microseconds. There the waits grow
// so slowly that the outage is prolonged by a quarter of its length, or so.
type backoff struct {
	min, max time.Duration
	growth   float64
	free     int // tries without waiting after a loss: one per remote

	tries int
	wait  time.Duration
}

func newBackoff(remotes []Remote) *backoff {
	local := true
	for _, r := range remotes {
		local = local && r.local()
	}
	if local {
		return &backoff{min: 10 * time.Millisecond, max: time.Second, growth: 1.25, free: len(remotes)}
	}
	return &backoff{min: time.Second, max: 8 * time.Second, growth: 2, free: len(remotes)}
}

// next returns the wait before the next try. A quarter of it is random, so
// that the nodes of a cluster do not return all at once.
func (b *backoff) next() time.Duration {
	if b.tries++; b.tries <= b.free {
		return 0
	}
	b.wait = min(max(b.min, time.Duration(float64(b.wait)*b.growth)), b.max)
	return b.wait - time.Duration(rand.Int64N(int64(b.wait)/4+1))
}

// lost takes note of a connection that kept the contents current for the given
// time. If that was long, all is forgotten; if not, a server that takes
// connections only to drop them would otherwise be asked for everything again
// and again.
func (b *backoff) lost(current time.Duration) {
	if current >= b.max {
		b.tries, b.wait = 0, 0
	}
}
