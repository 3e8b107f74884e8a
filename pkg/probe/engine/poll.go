package engine

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poll waits until fd is ready, or for d.
func poll(fd int, events int16, d time.Duration) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	pollAll(fds[:], d)
}

// pollAll waits until one of fds is ready, or for d. A signal may end it early.
func pollAll(fds []unix.PollFd, d time.Duration) {
	ts := unix.NsecToTimespec(int64(max(d, 0)))
	_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
}

// A poller is an epoll set. The Fd of its events are the numbers that were added.
type poller struct {
	fd     int
	events [2 * MaxPaths]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &poller{fd: fd}, nil
}

func (p *poller) add(fd, number int) error {
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait returns how many events there are, after d at the latest; d is in whole milliseconds.
func (p *poller) wait(d time.Duration) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(d.Milliseconds()), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func (p *poller) close() { _ = unix.Close(p.fd) } // it holds nothing

// yield lets others run after each hundred microseconds or so of polling in vain: who is polled may need this CPU.
func yield(spins int) {
	if spins%512 == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}
