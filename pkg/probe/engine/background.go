package engine

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// The background of a load is a stream of TCP on the path that has its turn, from the client's end to the server's, so that its packets pass what requests
// pass. How much a path carries at most is measured first, one path after the other, while nothing else is sent; then its stream is paced to a part of that.
//
// Two threads send and receive it, not those that measure. They are ordinary ones: where they share CPUs with those that measure, and these have a
// real-time priority, a round trip waits for the kernel's work on the stream, as it does on a loaded node, and never for a program's.
type background struct {
	sender, receiver thread

	_      [64]byte
	active atomic.Int64 // the index of the path whose stream flows, -1: none
}

// A stream is the background of one path.
type stream struct {
	out, in int // sockets
	resends *resends
	rtt     time.Duration // of the connection when it was made

	pace     atomic.Int64 // octets a second, 0: as much as goes
	sent     atomic.Int64 // octets
	received atomic.Int64
	broken   atomic.Pointer[string] // why it flows no more

	// Of the client's thread: octets a second at most, and what has come in while round trips were measured.
	maximum int64
	octets  int64
	elapsed time.Duration
}

const (
	streamSize  = 64 << 10               // of a send at most
	streamStep  = 100 * time.Microsecond // from one send to the next, at least
	leastSend   = 1448                   // octets, that one segment carries over Ethernet
	catchUp     = 5 * time.Millisecond   // what a sender that was late sends at once
	streamNap   = time.Millisecond       // until a thread looks again whose stream flows
	maxSettling = time.Second
	spacing     = 400 * time.Microsecond // of requests, in the mean

	// A path's maximum is that of the best of so many times of so long, after so long: a stream that has lost something may stand still for a fifth of a second,
	// and on a busy machine lose that again. If it stands still for all of them there are more.
	maximumTimes = 5
	maximumMore  = 30
	maximumTime  = 100 * time.Millisecond
	maximumRise  = 100 * time.Millisecond

	// MaximumTime is how long it takes at most to measure the maximum of a path, but for what is still on its way.
	MaximumTime = (1 + maximumTimes) * maxSettling
)

// settling is how long a stream flows until it is as it will be: a connection that has not sent for a while begins with a few segments in a round trip.
func (s *stream) settling(least time.Duration, trips int) time.Duration {
	return min(max(least, time.Duration(trips)*s.rtt), maxSettling)
}

// openStream opens the connection of a path's stream.
func (e *engine) openStream(p *path) error {
	client, server, err := p.join(0, 0, max(e.job.Timeout, time.Second))
	if err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	p.stream = &stream{out: client, in: server, resends: watch(e.now(), client, server)}
	for _, fd := range []int{client, server} {
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
	info, err := unix.GetsockoptTCPInfo(client, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return fmt.Errorf("stream: getsockopt TCP_INFO: %w", err)
	}
	p.stream.rtt = time.Duration(info.Rtt) * time.Microsecond
	return nil
}

func (s *stream) close() {
	if s != nil {
		_ = unix.Close(s.out) // it carries nothing that matters
		_ = unix.Close(s.in)
	}
}

func (s *stream) breaks(format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	s.broken.CompareAndSwap(nil, &why)
}

// A pacer says when to send. Who was late may make up for a little of it.
type pacer struct{ due time.Duration }

// left is how long to wait until the next send.
func (p *pacer) left(now time.Duration) time.Duration {
	if now < p.due {
		return p.due - now
	}
	p.due = max(p.due, now-catchUp)
	return 0
}

func (p *pacer) sent(octets, pace int64) {
	p.due += time.Duration(float64(octets) * float64(time.Second) / float64(pace))
}

// flowing is the stream of the path that is active, if it is not broken.
func (e *engine) flowing() *stream {
	i := e.background.active.Load()
	if i < 0 {
		return nil
	}
	s := e.paths[i].stream
	if s == nil || s.broken.Load() != nil {
		return nil
	}
	return s
}

// sendSize is what is sent at once at a pace.
func sendSize(pace int64) int {
	return min(streamSize, max(leastSend, int(float64(pace)*streamStep.Seconds())))
}

// sendStreams is the sender's thread. What is due while another path has its turn is not sent later.
func (e *engine) sendStreams() {
	octets := make([]byte, streamSize)
	for i := range octets {
		octets[i] = byte(i)
	}
	var (
		last *stream
		p    pacer
	)
	for !e.done.Load() && !e.stop.Load() {
		s, now := e.flowing(), e.now()
		if s != last {
			last, p.due = s, now
		}
		if s == nil {
			rest(streamNap)
			continue
		}
		pace, size := s.pace.Load(), streamSize
		if pace > 0 {
			if left := p.left(now); left > 0 {
				rest(min(left, streamNap))
				continue
			}
			size = sendSize(pace)
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.out), uintptr(unsafe.Pointer(&octets[0])), uintptr(size), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
			poll(s.out, unix.POLLOUT, streamNap)
		case errno != 0:
			s.breaks("the connection has ended: send: %v", errno)
		default:
			s.sent.Add(int64(n))
			if pace > 0 {
				p.sent(int64(n), pace)
			}
		}
	}
}

// receiveStreams is the receiver's thread.
func (e *engine) receiveStreams() {
	set, err := newPoller()
	if err != nil {
		e.background.receiver.notes = append(e.background.receiver.notes, err.Error())
		return
	}
	defer set.close()
	for _, p := range e.paths {
		if p.stream == nil {
			continue
		}
		if err := set.add(p.stream.in, p.index); err != nil {
			p.stream.breaks("%v", err)
		}
	}
	sink := make([]byte, sinkSize)
	for i := range sink {
		sink[i] = 1
	}
	for !e.done.Load() && !e.stop.Load() {
		for _, event := range set.events[:set.wait(nap)] {
			s := e.paths[event.Fd].stream
			n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.in), uintptr(unsafe.Pointer(&sink[0])), uintptr(len(sink)), unix.MSG_DONTWAIT, 0, 0)
			switch {
			case errno == unix.EAGAIN || errno == unix.EINTR:
			case errno != 0 || n == 0:
				s.breaks("the connection has ended: receive: %v", errno)
				_ = unix.EpollCtl(set.fd, unix.EPOLL_CTL_DEL, s.in, nil) // it would be ready for ever
			default:
				s.received.Add(int64(n))
			}
		}
	}
}

// rest sleeps.
func rest(d time.Duration) {
	ts := unix.NsecToTimespec(int64(max(d, 0)))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// pass lets time pass, unless the job is to end.
func (e *engine) pass(d time.Duration) {
	for end := e.now() + d; !e.stop.Load(); {
		left := end - e.now()
		if left <= 0 {
			return
		}
		rest(min(left, nap))
	}
}

// maxima finds out what each path carries at most, and what its stream is to carry then.
func (e *engine) maxima() {
	for _, p := range e.paths {
		if p.failed != "" || e.stop.Load() {
			continue
		}
		s := p.stream
		e.background.active.Store(int64(p.index))
		e.pass(s.settling(maximumRise, 20))
		for n := 0; (n < maximumTimes || n < maximumMore && s.maximum == 0) && !e.stop.Load() && s.broken.Load() == nil; n++ {
			octets, begun := s.carried(), e.now()
			e.pass(s.settling(maximumTime, 5))
			s.maximum = max(s.maximum, perSecond(s.carried()-octets, e.now()-begun))
		}
		e.background.active.Store(-1)
		for end := e.now() + e.job.Timeout; s.received.Load() < s.sent.Load() && s.broken.Load() == nil && e.now() < end; {
			e.pass(streamNap)
		}
		s.pace.Store(max(1, int64(math.Round(float64(s.maximum)*e.job.Load.Under))))
		if p.checkStream(); p.failed == "" && s.maximum == 0 && !e.stop.Load() {
			p.fail("stream: it carries nothing")
		}
	}
	// What others do meanwhile must not be measured by a time in which they have nothing to disturb.
	e.before = readStat()
	for _, t := range e.threads() {
		t.from = t.clockOf()
	}
}

func perSecond(octets int64, d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64(float64(octets) / d.Seconds())
}

// checkStream gives the path up if its stream does not flow any more.
func (p *path) checkStream() {
	if why := p.stream.broken.Load(); why != nil {
		p.fail("stream: %s", *why)
	}
}

// flow makes the stream of p the one that flows, and returns when it does so evenly.
func (e *engine) flow(p *path) {
	e.background.active.Store(int64(p.index))
	e.pass(p.stream.settling(5*time.Millisecond, 2))
	p.checkStream()
}

// space keeps requests apart, at random: they are to see the path as the stream leaves it at any time, and to leave it CPU time. It returns for how long.
func (e *engine) space() time.Duration {
	begun, d := e.now(), time.Duration(e.rnd.Int64N(int64(2*spacing)))
	if !e.job.Busy {
		rest(d)
		return e.now() - begun
	}
	for spins := 1; e.now()-begun < d; spins++ {
		yield(spins)
	}
	return e.now() - begun
}

// carried is what has come in so far, by the kernel's account: what the receiver has not read yet, too. It is nothing of no stream.
func (s *stream) carried() int64 {
	if s == nil {
		return 0
	}
	info, err := unix.GetsockoptTCPInfo(s.in, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0 // it is a connection
	}
	return int64(info.Bytes_received)
}

// had notes what has come in while round trips were measured.
func (s *stream) had(octets int64, took time.Duration) {
	if s != nil {
		s.octets += octets
		s.elapsed += took
	}
}

// report is what the stream was beside the round trips of p.
func (s *stream) report() *result.Background {
	return &result.Background{
		Maximum: s.maximum, Rate: perSecond(s.octets, s.elapsed),
		TCP: result.TCP{Retransmits: s.resends.since(), RTO: s.resends.rto},
	}
}
