package engine

import (
	"time"

	"golang.org/x/sys/unix"
)

// Resends are what a connection of TCP has sent again, by what tcp_info says of its two ends whenever it is looked at.
//
// A request that took long is not one that waited for a retransmission: the server, or this machine, may have stalled. It is if something was sent again
// while it was on its way and not before, so the connection is looked at when an answer is late, long before the timer can have expired, and once more
// when the answer is there. What is answered in time is not looked at, and costs nothing.
type resends struct {
	ends []int // sockets
	base int64 // how many segments there were when counting began

	count int64         // tcpi_total_retrans of both ends, when it was last looked
	at    time.Duration // when that was
	rto   time.Duration // tcpi_rto of the end that waits less, then

	// The latest growth was after from, and not after until; rto was expired then.
	from, until time.Duration
	expired     time.Duration
}

// watch begins to look at the sockets of a connection.
func watch(now time.Duration, ends ...int) *resends {
	r := &resends{ends: ends}
	r.look(now)
	r.base, r.from, r.until = r.count, 0, 0
	return r
}

// look reads what there is now. A socket that is closed has nothing more to say.
func (r *resends) look(now time.Duration) {
	count, rto := int64(0), time.Duration(0)
	for _, fd := range r.ends {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		count += int64(info.Total_retrans)
		if d := time.Duration(info.Rto) * time.Microsecond; rto == 0 || d < rto {
			rto = d
		}
	}
	if count > r.count {
		r.from, r.until, r.expired = r.at, now, r.rto
	}
	r.count, r.at, r.rto = count, now, rto
}

// since is how many segments were sent again since counting began.
func (r *resends) since() int64 { return r.count - r.base }

// due is when to look because of a request that was sent at begun and has no answer: 0 is not any more.
func (r *resends) due(begun time.Duration) time.Duration {
	if r.at >= begun {
		return 0
	}
	return begun + r.rto/2
}

// waited reports whether a request that was sent at begun and answered at ended has waited for a retransmission timer. It looks, if that was not done in the
// last millisecond.
func (r *resends) waited(begun, ended time.Duration) bool {
	if r.at < begun || !asLong(ended-begun, r.rto) && !asLong(ended-begun, r.expired) {
		return false
	}
	if ended-r.at > time.Millisecond {
		r.look(ended)
	}
	return begun <= r.from && r.until <= ended && asLong(ended-begun, r.expired)
}

// asLong is so for what took as long as a timer, which the kernel counts in ticks, the first of which may be short.
func asLong(took, rto time.Duration) bool { return rto > 0 && took >= rto*9/10 }
