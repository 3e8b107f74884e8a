package engine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// buffer is what sockets are to hold: what comes at a high rate while one side is stalled must not be lost.
const buffer = 16 << 20

// InNetns calls f with the thread in the network namespace at path, empty: where it is. The caller's goroutine is locked to its thread; a
// thread that cannot return must not go on, so that is a panic.
func InNetns(path string, f func() error) error {
	if path == "" {
		return f()
	}
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer func() { _ = unix.Close(home) }() // nothing is written to it
	away, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer func() { _ = unix.Close(away) }() // likewise
	if err := unix.Setns(away, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	defer func() {
		if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("engine: the thread cannot leave network namespace %s: %v", path, err))
		}
	}()
	return f()
}

// header is at the beginning of each message: 8 octets of sequence number, 4 of the process' nonce, 2 of path, 2 of kind; big endian.
const (
	kindRequest = 1 + iota
	kindAnswer
	kindPrime // is answered also by who only receives
	kindData  // is never answered
)

func putHeader(b []byte, seq uint64, nonce uint32, path uint16, kind uint16) {
	binary.BigEndian.PutUint64(b, seq)
	binary.BigEndian.PutUint32(b[8:], nonce)
	binary.BigEndian.PutUint16(b[12:], path)
	binary.BigEndian.PutUint16(b[14:], kind)
}

// A conn is one end's socket with what it sends and receives. Messages have fixed sizes, so a TCP connection needs no lengths.
type conn struct {
	fd  int // -1: none
	tcp bool

	in, out []byte // one message each
	have    int    // octets of in, of TCP
	written int    // octets of out, of TCP; what is begun must be finished

	// peer is where the last datagram came from, if the socket is not connected.
	peer    unix.RawSockaddrInet6 // the larger of the two
	peerLen uint32

	sent int64 // messages

	errno unix.Errno // the last that was neither EAGAIN nor EINTR
}

// newConn touches its memory, so that the first message does not.
func newConn(fd int, tcp bool, in, out int) *conn {
	c := &conn{fd: fd, tcp: tcp, in: make([]byte, in), out: make([]byte, out)}
	for i := range c.in {
		c.in[i] = 1
	}
	for i := range c.out {
		c.out[i] = byte(i)
	}
	return c
}

// What sending and receiving found.
const (
	nothing = iota // yet
	message        // a whole one
	closed         // or refused, see errno
)

// send sends out. If it returns nothing, call it again with the same.
func (c *conn) send(flags uintptr) int { return c.sendTo(flags, nil, 0) }

// sendBack is send, to where the last datagram came from.
func (c *conn) sendBack(flags uintptr) int {
	if c.tcp {
		return c.send(flags)
	}
	return c.sendTo(flags, unsafe.Pointer(&c.peer), c.peerLen)
}

func (c *conn) sendTo(flags uintptr, to unsafe.Pointer, toLen uint32) int {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&c.out[c.written])), uintptr(len(c.out)-c.written),
			flags|unix.MSG_NOSIGNAL, uintptr(to), uintptr(toLen))
		switch {
		case errno == unix.EAGAIN:
			return nothing
		case errno == unix.EINTR:
		case errno != 0:
			c.errno = errno
			return closed
		case c.tcp && c.written+int(n) < len(c.out):
			c.written += int(n)
		default:
			c.written = 0
			c.sent++
			return message
		}
	}
}

// receive reads one message into in.
func (c *conn) receive(flags uintptr) int { return c.receiveInto(flags, nil, nil) }

// receiveFrom is receive, and notes where a datagram came from.
func (c *conn) receiveFrom(flags uintptr) int {
	if c.tcp {
		return c.receive(flags)
	}
	c.peerLen = uint32(unsafe.Sizeof(c.peer))
	return c.receiveInto(flags, unsafe.Pointer(&c.peer), unsafe.Pointer(&c.peerLen))
}

func (c *conn) receiveInto(flags uintptr, from, fromLen unsafe.Pointer) int {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&c.in[c.have])), uintptr(len(c.in)-c.have),
			flags, uintptr(from), uintptr(fromLen))
		switch {
		case errno == unix.EAGAIN:
			return nothing
		case errno == unix.EINTR:
		case errno != 0:
			c.errno = errno
			if c.tcp {
				return closed
			}
			return nothing // an ICMP error: the request will be lost
		case !c.tcp:
			if int(n) == len(c.in) {
				return message
			} // else it is not ours
		case n == 0:
			return closed
		default:
			if c.have += int(n); c.have == len(c.in) {
				c.have = 0
				return message
			}
		}
	}
}

func (c *conn) close() {
	if c != nil && c.fd >= 0 {
		_ = unix.Close(c.fd) // nothing is written that matters
		c.fd = -1
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// open opens a socket that is bound to at.
func open(tcp bool, at netip.AddrPort) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_DGRAM
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	if tcp {
		kind = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := set(fd, tcp); err != nil {
		_ = unix.Close(fd) // unused
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		_ = unix.Close(fd) // unused
		return -1, fmt.Errorf("bind %v: %w", at, err)
	}
	return fd, nil
}

func set(fd int, tcp bool) error {
	type option struct {
		name         string
		level, which int
		value        int
	}
	options := []option{{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}}
	if tcp {
		options = append(options, option{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.which, o.value); err != nil {
			return fmt.Errorf("setsockopt %s: %w", o.name, err)
		}
	}
	if tcp {
		return nil // the kernel sizes buffers of TCP as it does for others
	}
	// Beyond the limit of the system, if that is permitted; else up to it.
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], buffer) == nil {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], buffer); err != nil {
			return fmt.Errorf("setsockopt SO_RCVBUF or SO_SNDBUF: %w", err)
		}
	}
	return nil
}

// patience bounds what the kernel waits in a system call of fd.
func patience(fd int, d time.Duration) error {
	tv := unix.NsecToTimeval(int64(d))
	for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &tv); err != nil {
			return fmt.Errorf("setsockopt SO_RCVTIMEO or SO_SNDTIMEO: %w", err)
		}
	}
	return nil
}

// local returns the address of fd.
func local(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("getsockname: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("getsockname: %T", sa)
}

// A thread is one that measures, or one of the background.
type thread struct {
	side  string
	notes []string
	cpu   int           // -1: any
	id    int           // of the kernel
	clock time.Duration // CPU time at the last call of used

	first, last unix.Rusage
	from        time.Duration // CPU time when it is first looked at what others do
}

// settle locks the goroutine to a thread and makes it what the job asks for. What is refused is a note. The thread is never given back.
func (t *thread) settle(cpu, priority int) {
	runtime.LockOSThread()
	t.cpu, t.id = cpu, unix.Gettid()
	if cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			t.notes = append(t.notes, fmt.Sprintf("the %s's thread is not on CPU %d: sched_setaffinity: %v", t.side, cpu, err))
		}
	}
	if priority > 0 {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: uint32(priority)}
		if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
			t.notes = append(t.notes, fmt.Sprintf("the %s's thread does not have SCHED_FIFO priority %d: sched_setattr: %v", t.side, priority, err))
		}
	} else if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		t.notes = append(t.notes, fmt.Sprintf("the %s's thread sleeps up to 50 µs too long: prctl: %v", t.side, err))
	}
	t.used()
	t.first = usage()
	t.from = time.Duration(t.first.Utime.Nano() + t.first.Stime.Nano())
}

// used returns the CPU time that the thread has used since the last call. getrusage(2) is no good for that: it knows of a thread that runs
// what was at the last tick.
func (t *thread) used() time.Duration {
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return 0 // there is such a clock
	}
	d := time.Duration(ts.Nano()) - t.clock
	t.clock += d
	return d
}

// ran is for how long it has run since what others do is looked at.
func (t *thread) ran() time.Duration {
	return time.Duration(t.last.Utime.Nano()+t.last.Stime.Nano()) - t.from
}

// clockOf returns the CPU time that the thread has used since it began. Another thread may ask, when this one has settled.
func (t *thread) clockOf() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(int32(^t.id<<3|6), &ts) != nil { // MAKE_THREAD_CPUCLOCK(t.id, CPUCLOCK_SCHED) of posix-timers_types.h
		return 0 // there is such a clock
	}
	return time.Duration(ts.Nano())
}

// end notes what the thread has used in all.
func (t *thread) end() { t.last = usage() }

func usage() (u unix.Rusage) {
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &u) // it has no other error than a wrong argument
	return u
}

// split divides d as all of the thread's time is divided.
func (t *thread) split(d time.Duration) result.CPU {
	user, system := t.last.Utime.Nano()-t.first.Utime.Nano(), t.last.Stime.Nano()-t.first.Stime.Nano()
	if user+system <= 0 {
		return result.CPU{System: d} // too short for the kernel to have looked
	}
	part := time.Duration(float64(d) * float64(user) / float64(user+system))
	return result.CPU{User: part, System: d - part}
}
