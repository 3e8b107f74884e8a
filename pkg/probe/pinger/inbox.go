package pinger

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An inbox is room for datagrams that are received in one system call, each with where it comes from and when the kernel says that it has arrived.
type inbox struct {
	headers [inboxSize]arrival
	iovs    [inboxSize]unix.Iovec
	from    [inboxSize]unix.RawSockaddrInet6
	control [inboxSize][controlSize]byte
	data    [inboxSize][MaxSize + 1]byte
}

const (
	inboxSize   = 64
	controlSize = 128
)

// An arrival is struct mmsghdr of the kernel.
type arrival struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

func newInbox() *inbox {
	b := &inbox{}
	for i := range b.headers {
		b.iovs[i].Base = &b.data[i][0]
		b.iovs[i].SetLen(len(b.data[i]))
		h := &b.headers[i].header
		h.Iov, h.Name, h.Control = &b.iovs[i], (*byte)(unsafe.Pointer(&b.from[i])), &b.control[i][0]
		h.SetIovlen(1)
	}
	return b
}

// receive takes datagrams, as many as there are room for, and returns how many.
func (b *inbox) receive(fd int) int {
	for i := range b.headers {
		h := &b.headers[i].header
		h.Namelen, h.Flags = unix.SizeofSockaddrInet6, 0
		h.SetControllen(controlSize)
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[0])), inboxSize, unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(n)
		}
		if errno != unix.EINTR {
			return 0
		}
	}
}

// at is a datagram that was received, and from where.
func (b *inbox) at(i int) (datagram []byte, from place) {
	return b.data[i][:b.headers[i].length], place{raw: b.from[i], len: b.headers[i].header.Namelen}
}

// stamp is when it arrived, by CLOCK_REALTIME; 0: that is not known.
func (b *inbox) stamp(i int) int64 {
	rest := b.control[i][:min(uint64(b.headers[i].header.Controllen), controlSize)] //nolint:unconvert // its type is another on other machines
	for len(rest) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&rest[0]))
		length := int(c.Len)
		if length < unix.SizeofCmsghdr || length > len(rest) {
			return 0
		}
		data := rest[unix.CmsgLen(0):length]
		if c.Level == unix.SOL_SOCKET && c.Type == unix.SCM_TIMESTAMPING && len(data) >= 16 { // struct scm_timestamping: the first is the software's
			return int64(binary.NativeEndian.Uint64(data))*1e9 + int64(binary.NativeEndian.Uint64(data[8:]))
		}
		rest = rest[min(unix.CmsgSpace(len(data)), len(rest)):]
	}
	return 0
}

// stamped lets the kernel stamp what arrives at a socket.
func stamped(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_SOFTWARE|unix.SOF_TIMESTAMPING_RX_SOFTWARE); err != nil {
		return fmt.Errorf("setsockopt SO_TIMESTAMPING: %w", err)
	}
	return nil
}

// await prepares a socket whose datagrams wait until somebody looks: what has not the process' mark takes no room from others.
func await(fd int, mark uint32) error {
	if err := stamped(fd); err != nil {
		return err
	}
	const header = 8 // of UDP, from which on a filter sees a datagram
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: header + nonceAt},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: mark, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}); err != nil {
		return fmt.Errorf("setsockopt SO_ATTACH_FILTER: %w", err)
	}
	return nil
}

// room makes room for so many datagrams. One takes up to some kilobytes of the kernel's account, whatever its size.
func room(fd, datagrams int) {
	const each, most = 8 << 10, 32 << 20
	n := min(max(datagrams*each, 256<<10), most)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, n) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n) // as much as is permitted
	}
}
