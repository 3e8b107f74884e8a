package pinger

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/engine"
)

// A socket is one at an end, which need not have its address yet. Nothing comes to it, or leaves it, by another device.
type socket struct {
	file *os.File // nil: nobody is woken by what comes
	fd   int
}

// open opens a socket, and prepares it. Somebody may be woken by what comes. The caller's goroutine is locked to its thread.
func open(e End, port uint16, wakes bool, prepare func(fd int) error) (*socket, error) {
	s := &socket{}
	err := engine.InNetns(e.Netns, func() (err error) {
		family := unix.AF_INET
		if e.Addr.Is6() {
			family = unix.AF_INET6
		}
		if s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		if err = prepare(s.fd); err == nil {
			err = settle(s.fd, family, e, port)
		}
		if err != nil {
			_ = unix.Close(s.fd) // unused
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if wakes {
		s.file = os.NewFile(uintptr(s.fd), "socket")
	}
	return s, nil
}

// read calls take whenever there is something to be received, until the socket is closed.
func (s *socket) read(take func()) {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return // it is closed already
	}
	_ = conn.Read(func(uintptr) bool { // it ends when the socket is closed
		take()
		return false
	})
}

// close closes the socket, which nobody uses any more but read.
func (s *socket) close() {
	if s.file != nil {
		_ = s.file.Close() // nothing is written to it that matters
	} else {
		_ = unix.Close(s.fd) // likewise
	}
}

func settle(fd, family int, e End, port uint16) error {
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, e.Device); err != nil {
		return fmt.Errorf("setsockopt SO_BINDTODEVICE %s: %w", e.Device, err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
	if family == unix.AF_INET6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return fmt.Errorf("setsockopt IP_FREEBIND: %w", err)
	}
	var at unix.Sockaddr
	if family == unix.AF_INET6 {
		at = &unix.SockaddrInet6{Port: int(port), Addr: e.Addr.As16()}
	} else {
		at = &unix.SockaddrInet4{Port: int(port), Addr: e.Addr.As4()}
	}
	if err := unix.Bind(fd, at); err != nil {
		return fmt.Errorf("bind %v: %w", netip.AddrPortFrom(e.Addr, port), err)
	}
	return nil
}

// A place is an address and a port as the kernel takes and gives them.
type place struct {
	raw unix.RawSockaddrInet6 // the larger of the two
	len uint32
}

func newPlace(a netip.Addr, port uint16) place {
	var p place
	if a.Is4() {
		r := (*unix.RawSockaddrInet4)(unsafe.Pointer(&p.raw))
		r.Family, r.Addr, p.len = unix.AF_INET, a.As4(), unix.SizeofSockaddrInet4
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&r.Port))[:], port)
		return p
	}
	p.raw.Family, p.raw.Addr, p.len = unix.AF_INET6, a.As16(), unix.SizeofSockaddrInet6
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&p.raw.Port))[:], port)
	return p
}

// addr is the place's address, that of IPv4 mapped, and its port.
func (p *place) addr() (addr [16]byte, port uint16) {
	port = binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&p.raw.Port))[:]) // in both at the same place
	if p.raw.Family == unix.AF_INET {
		addr[10], addr[11] = 0xff, 0xff
		copy(addr[12:], (*unix.RawSockaddrInet4)(unsafe.Pointer(&p.raw)).Addr[:])
		return addr, port
	}
	return p.raw.Addr, port
}

func sendTo(fd int, b []byte, to *place) unix.Errno {
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(&to.raw)), uintptr(to.len))
		if errno != unix.EINTR {
			return errno
		}
	}
}
