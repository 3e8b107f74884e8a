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

func (e *engine) openPath(p *path) error {
	size, answer := e.job.Load.Size, e.job.Load.Answer
	if answer == 0 {
		answer = size
	}
	server := -1
	err := InNetns(p.Server.Netns, func() (err error) {
		if server, err = open(e.tcp(), netip.AddrPortFrom(p.Server.Addr, p.Server.Port)); err != nil || !e.tcp() {
			return err
		}
		if err = unix.Listen(server, 128); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		return nil
	})
	if err != nil {
		if server >= 0 {
			_ = unix.Close(server) // unused
		}
		return fmt.Errorf("server: %w", err)
	}
	if e.tcp() {
		p.listener = server
	} else {
		p.server = newConn(server, false, size, answer)
		if err := patience(server, nap); err != nil {
			return fmt.Errorf("server: %w", err)
		}
	}
	if p.to, err = local(server); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if p.Target.IsValid() {
		port := p.Target.Port()
		if port == 0 {
			port = p.to.Port()
		}
		p.to = netip.AddrPortFrom(p.Target.Addr(), port)
	}
	if e.job.Load.Mode == result.CRR {
		p.client, p.server = newConn(-1, true, answer, size), newConn(-1, true, size, answer)
		if p.calls, err = newCaller(netip.AddrPortFrom(p.Client.Addr, 0), p.to, p.Client.Netns); err != nil {
			return fmt.Errorf("client: %w", err)
		}
		return unix.SetNonblock(p.listener, true)
	}
	err = InNetns(p.Client.Netns, func() error {
		fd, err := open(e.tcp(), netip.AddrPortFrom(p.Client.Addr, p.Client.Port))
		if err != nil {
			return err
		}
		p.client = newConn(fd, e.tcp(), answer, size)
		if err := patience(fd, max(e.job.Timeout, time.Second)); err != nil {
			return err
		}
		if err := unix.Connect(fd, sockaddr(p.to)); err != nil {
			return fmt.Errorf("connect to %v: %w", p.to, err)
		}
		if e.streams() {
			return patience(fd, nap)
		}
		return patience(fd, e.job.Timeout)
	})
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if !e.tcp() && p.Client.Port != 0 { // several clients may have one server's port: each has a socket of its own there
		if err := unix.Connect(server, sockaddr(netip.AddrPortFrom(p.Client.Addr, p.Client.Port))); err != nil {
			return fmt.Errorf("server: connect to %v: %w", p.Client.Addr, err)
		}
	}
	if e.tcp() {
		if err := patience(p.listener, max(e.job.Timeout, time.Second)); err != nil {
			return fmt.Errorf("server: %w", err)
		}
		fd, _, err := unix.Accept4(p.listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return fmt.Errorf("server: accept: %w", err)
		}
		p.server = newConn(fd, true, size, answer)
		if err := errors.Join(set(fd, true), patience(fd, nap)); err != nil {
			return fmt.Errorf("server: %w", err)
		}
		p.resends = watch(e.now(), p.client.fd, fd)
		if !e.streams() { // it is to be looked at before the timer expires
			if err := patience(p.client.fd, max(time.Millisecond, min(e.job.Timeout, p.resends.rto/2))); err != nil {
				return fmt.Errorf("client: %w", err)
			}
		}
	}
	if e.job.Segments {
		return p.stampSockets(e.limit)
	}
	return nil
}

func (e *engine) close() {
	for _, p := range e.paths {
		p.unstamp()
		p.client.close()
		p.server.close()
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
