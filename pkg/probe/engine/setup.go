package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// open opens the sockets of all paths. A path whose sockets cannot be opened has failed.
func (e *engine) open() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, p := range e.paths {
		if err := e.openPath(p); err != nil {
			p.fail("%v", err)
		} else {
			p.opened = true
		}
	}
}

func (p *path) fail(format string, args ...any) {
	if p.failed == "" {
		p.failed = fmt.Sprintf(format, args...)
	}
}

func (e *engine) openPath(p *path) (err error) {
	size, answer := e.job.Load.Size, e.job.Load.Answer
	if answer == 0 {
		answer = size
	}
	switch {
	case e.job.Load.Mode == result.CRR:
		p.client, p.server = newConn(-1, true, answer, size), newConn(-1, true, size, answer)
		if p.listener, p.to, err = p.bound(true, p.Server.Port); err != nil {
			return err
		}
		if p.calls, err = newCaller(netip.AddrPortFrom(p.Client.Addr, 0), p.to, p.Client.Netns); err != nil {
			return fmt.Errorf("client: %w", err)
		}
		err = unix.SetNonblock(p.listener, true)
	case e.tcp():
		err = e.openTCP(p, size, answer)
	default:
		err = e.openUDP(p, size, answer)
	}
	if err == nil && e.job.Load.Under > 0 {
		err = e.openStream(p)
	}
	if err == nil && e.job.Segments {
		err = p.stampSockets(e.limit)
	}
	return err
}

// bound opens the server's socket, one that listens if it is TCP's, and says where the client sends to.
func (p *path) bound(tcp bool, port uint16) (fd int, to netip.AddrPort, err error) {
	fd = -1
	err = InNetns(p.Server.Netns, func() (err error) {
		if fd, err = open(tcp, netip.AddrPortFrom(p.Server.Addr, port)); err != nil || !tcp {
			return err
		}
		if err = unix.Listen(fd, 128); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		return nil
	})
	if err == nil {
		to, err = local(fd)
	}
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd) // unused
		}
		return -1, to, fmt.Errorf("server: %w", err)
	}
	if p.Target.IsValid() {
		if port = p.Target.Port(); port == 0 {
			port = to.Port()
		}
		to = netip.AddrPortFrom(p.Target.Addr(), port)
	}
	return fd, to, nil
}

// reach opens the client's socket, and connects it, which takes no longer than wait.
func (p *path) reach(tcp bool, port uint16, to netip.AddrPort, wait time.Duration) (fd int, err error) {
	fd = -1
	err = InNetns(p.Client.Netns, func() (err error) {
		if fd, err = open(tcp, netip.AddrPortFrom(p.Client.Addr, port)); err != nil {
			return err
		}
		if err := patience(fd, wait); err != nil {
			return err
		}
		if err := unix.Connect(fd, sockaddr(to)); err != nil {
			return fmt.Errorf("connect to %v: %w", to, err)
		}
		return nil
	})
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd) // unused
		}
		return -1, fmt.Errorf("client: %w", err)
	}
	return fd, nil
}

// join opens a connection of TCP, and returns its ends.
func (p *path) join(clientPort, serverPort uint16, wait time.Duration) (client, server int, err error) {
	listener, to, err := p.bound(true, serverPort)
	if err != nil {
		return -1, -1, err
	}
	defer func() { _ = unix.Close(listener) }() // nothing is written to it
	if client, err = p.reach(true, clientPort, to, wait); err != nil {
		return -1, -1, err
	}
	if err = patience(listener, wait); err == nil {
		server, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	}
	if err == nil {
		if err = set(server, true); err == nil {
			return client, server, nil
		}
		_ = unix.Close(server) // unused
	}
	_ = unix.Close(client) // likewise
	return -1, -1, fmt.Errorf("server: accept: %w", err)
}

func (e *engine) openTCP(p *path, size, answer int) error {
	client, server, err := p.join(p.Client.Port, p.Server.Port, max(e.job.Timeout, time.Second))
	if err != nil {
		return err
	}
	p.client, p.server = newConn(client, true, answer, size), newConn(server, true, size, answer)
	p.resends = watch(e.now(), client, server)
	wait := nap
	if !e.streams() { // it is to be looked at before the timer expires
		wait = max(time.Millisecond, min(e.job.Timeout, p.resends.rto/2))
	}
	return errors.Join(patience(client, wait), patience(server, nap))
}

func (e *engine) openUDP(p *path, size, answer int) error {
	server, to, err := p.bound(false, p.Server.Port)
	if err != nil {
		return err
	}
	p.server, p.to = newConn(server, false, size, answer), to
	wait := e.job.Timeout
	if e.streams() {
		wait = nap
	}
	client, err := p.reach(false, p.Client.Port, to, wait)
	if err != nil {
		return err
	}
	p.client = newConn(client, false, answer, size)
	if p.Client.Port != 0 { // several clients may have one server's port: each has a socket of its own there
		if err := unix.Connect(server, sockaddr(netip.AddrPortFrom(p.Client.Addr, p.Client.Port))); err != nil {
			return fmt.Errorf("server: connect to %v: %w", p.Client.Addr, err)
		}
	}
	if err := patience(server, nap); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}

func (e *engine) close() {
	for _, p := range e.paths {
		p.unstamp()
		p.client.close()
		p.server.close()
		p.stream.close()
		if p.listener >= 0 {
			_ = unix.Close(p.listener) // nothing is written to it
		}
		if p.calls != nil {
			_ = unix.Close(p.calls.netns) // likewise
		}
	}
}

// allocate makes room for all that the path will have, and touches it.
func (e *engine) allocate(p *path) {
	if p.failed != "" {
		return
	}
	if e.streams() {
		p.sink = make([]byte, sinkSize)
		for i := range p.sink {
			p.sink[i] = 1
		}
		return
	}
	p.state = make([]uint8, e.limit)
	p.took = make([]int64, e.limit)
	rooms := []*[]int64{&p.took}
	if e.job.Load.Mode == result.Open {
		rooms = append(rooms, &p.sent, &p.due, &p.began)
	}
	for _, r := range rooms {
		*r = make([]int64, e.limit)
		for i := range *r {
			(*r)[i] = 1
		}
	}
	for i := range p.state {
		p.state[i] = 1
	}
	clear(p.state)
	p.took, p.sent = p.took[:0], p.sent[:0]
	p.marks = make([]mark, 0, e.limit/blockSize+2)
}
