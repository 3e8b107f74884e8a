package engine

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A caller is the client's end of a path whose requests have a connection each.
type caller struct {
	netns  int // file descriptor, -1: the thread's own
	to     unix.RawSockaddrInet6
	toLen  uintptr
	from   unix.Sockaddr
	family int
}

func newCaller(from, to netip.AddrPort, netns string) (*caller, error) {
	c := &caller{netns: -1, family: unix.AF_INET, toLen: unix.SizeofSockaddrInet4, from: sockaddr(from)}
	if to.Addr().Is4() {
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(&c.to))
		a.Family, a.Port, a.Addr = unix.AF_INET, network(to.Port()), to.Addr().As4()
	} else {
		c.family, c.toLen = unix.AF_INET6, unix.SizeofSockaddrInet6
		c.to.Family, c.to.Port, c.to.Addr = unix.AF_INET6, network(to.Port()), to.Addr().As16()
	}
	if netns == "" {
		netns = "/proc/thread-self/ns/net"
	}
	var err error
	if c.netns, err = unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", netns, err)
	}
	return c, nil
}

// network is a port as it is in a socket's address.
func network(port uint16) uint16 {
	b := [2]byte{byte(port >> 8), byte(port)}
	return *(*uint16)(unsafe.Pointer(&b))
}

// socket opens one that is bound and will be reset when it is closed: what remains of a connection must not disturb the next, or use up the
// ports.
func (c *caller) socket(busy bool, timeout time.Duration) (int, error) {
	kind := unix.SOCK_STREAM | unix.SOCK_CLOEXEC
	if busy {
		kind |= unix.SOCK_NONBLOCK
	}
	fd, err := unix.Socket(c.family, kind, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}
	if err == nil && !busy {
		err = patience(fd, timeout)
	}
	if err == nil {
		err = unix.Bind(fd, c.from)
	}
	if err != nil {
		_ = unix.Close(fd) // unused
		return -1, fmt.Errorf("socket of a connection: %w", err)
	}
	return fd, nil
}

// connect is a connection, one request, its answer and the end of the connection. The time is from connect(2) until the answer is there.
func (e *engine) connect(p *path, counted bool) {
	if e.netns != p.calls.netns {
		if err := unix.Setns(p.calls.netns, unix.CLONE_NEWNET); err != nil {
			p.fail("client: enter network namespace %s: %v", p.Client.Netns, err)
			return
		}
		e.netns = p.calls.netns
	}
	c, seq := p.client, p.next
	p.next++
	fd, err := p.calls.socket(e.job.Busy, e.job.Timeout)
	if err != nil {
		p.fail("client: %v", err)
		return
	}
	c.fd, c.have, c.written = fd, 0, 0
	putHeader(c.out, seq, e.nonce, uint16(p.index), kindRequest)
	begun := e.now()
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&p.calls.to)), p.calls.toLen)
	took, ok := time.Duration(0), false
	if errno == 0 || errno == unix.EINPROGRESS && e.job.Busy {
		took, ok = e.call(p, seq, begun)
	} else if errno != unix.EINPROGRESS { // which means that time is over
		c.errno = errno
	}
	p.timer = false
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		p.rto = time.Duration(info.Rto) * time.Microsecond
		p.timer = info.Total_retrans > 0 && asLong(took, p.rto)
		if counted {
			p.retransmits += int64(info.Total_retrans)
		}
	}
	c.close()
	p.note(seq, took, ok, counted)
}

// call sends the request on the connection that is being made, and waits for the answer.
func (e *engine) call(p *path, seq uint64, begun time.Duration) (time.Duration, bool) {
	c, flags := p.client, uintptr(0)
	if e.job.Busy {
		flags = unix.MSG_DONTWAIT
	}
	for spins := 1; ; spins++ {
		switch c.send(flags) {
		case message:
		case closed:
			return 0, false
		default: // not connected yet
			if e.now()-begun >= e.job.Timeout || e.stop.Load() {
				return 0, false
			}
			yield(spins)
			continue
		}
		break
	}
	for spins := 1; ; spins++ {
		switch c.receive(flags) {
		case message:
			now := e.now()
			if got, ok := e.answer(c, p); ok && got == seq {
				return now - begun, true
			}
			return 0, false
		case closed:
			return 0, false
		default: // nothing yet
		}
		left := e.job.Timeout - (e.now() - begun)
		if left <= 0 || e.stop.Load() {
			return 0, false
		}
		if flags = unix.MSG_DONTWAIT; !e.job.Busy {
			poll(c.fd, unix.POLLIN, left)
		} else {
			yield(spins)
		}
	}
}

// serveConnections accepts and answers. A path has one connection at a time: the next one ends the last.
func (e *engine) serveConnections() {
	var set *poller
	if !e.job.Busy {
		var err error
		if set, err = newPoller(); err != nil {
			e.server.notes = append(e.server.notes, err.Error())
			return
		}
		defer set.close()
		for _, p := range e.paths {
			if !p.opened {
				continue
			}
			if err := set.add(p.listener, MaxPaths+p.index); err != nil {
				e.server.notes = append(e.server.notes, err.Error())
				return
			}
		}
	}
	current := int64(-1)
	for spins := 1; !e.done.Load() && !e.stop.Load(); spins++ {
		n := 0
		if set != nil {
			n = set.wait(nap)
		}
		i := e.active.Load()
		if i != current {
			e.account(current)
			current = i
		}
		if set == nil && i >= 0 {
			p := e.paths[i]
			// A connection whose end was lost must not keep the next one waiting.
			if p.server.fd < 0 || spins%64 == 0 {
				e.accept(p, nil)
			}
			if p.server.fd >= 0 && e.serveOne(p) == closed {
				e.hangUp(p)
			}
			yield(spins)
			continue
		}
		for k := range n {
			number := int(set.events[k].Fd)
			if number >= MaxPaths {
				e.accept(e.paths[number-MaxPaths], set)
				continue
			}
			if p := e.paths[number]; p.server.fd >= 0 && e.serveOne(p) == closed {
				e.hangUp(p)
			}
		}
	}
	e.account(current)
	for _, p := range e.paths {
		if p.opened {
			e.hangUp(p)
		}
	}
}

// hangUp closes the server's end of a connection, and counts what that has sent again.
func (e *engine) hangUp(p *path) {
	if p.server.fd < 0 {
		return
	}
	if e.counting.Load() {
		if info, err := unix.GetsockoptTCPInfo(p.server.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			p.resent += int64(info.Total_retrans)
		}
	}
	p.server.close()
}

func (e *engine) accept(p *path, set *poller) {
	fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(p.listener), 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
	if errno != 0 {
		return // nobody is there, or no more
	}
	e.hangUp(p)
	p.server.fd, p.server.have, p.server.written = int(fd), 0, 0
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // an answer is one segment or a few
	if set == nil {
		return
	}
	if err := set.add(int(fd), p.index); err != nil {
		p.server.close()
	}
}
