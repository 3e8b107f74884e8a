package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// etherType is the first of IEEE 802's for local experiments.
const etherType = 0x88b5

// cable returns an error unless a broadcast that one netdev sends arrives at another in time. Both are brought up; the second is set down again if
// it was.
func cable(from, to string, patience time.Duration) (err error) {
	var indices [2]int
	for i, name := range []string{from, to} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("cable: netdev %s: %w", name, err)
		}
		if indices[i] = link.Attrs().Index; i == 1 && link.Attrs().Flags&net.FlagUp == 0 {
			defer func() { err = errors.Join(err, netlink.LinkSetDown(link)) }()
		}
	}
	var sockets [2]int
	for i, index := range indices {
		protocol := int(etherType>>8 | etherType&0xff<<8) // in network byte order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return fmt.Errorf("cable: socket: %w", err)
		}
		defer unix.Close(fd) //nolint:errcheck // nothing is lost
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: uint16(protocol)}); err != nil {
			return fmt.Errorf("cable: bind: %w", err)
		}
		sockets[i] = fd
	}
	wait := unix.NsecToTimeval(int64(200 * time.Millisecond))
	if err := unix.SetsockoptTimeval(sockets[1], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return fmt.Errorf("cable: timeout: %w", err)
	}
	frame := make([]byte, 60) // the shortest
	if _, err := rand.Read(frame[14:]); err != nil {
		return err
	}
	copy(frame, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x01, etherType >> 8, etherType & 0xff})
	got := make([]byte, 128)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		// While a link comes up it takes nothing.
		if _, err := unix.Write(sockets[0], frame); err != nil && !errors.Is(err, unix.ENETDOWN) && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("cable: send by %s: %w", from, err)
		}
		n, err := unix.Read(sockets[1], got)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENETDOWN) {
			return fmt.Errorf("cable: receive by %s: %w", to, err)
		}
		if err == nil && n >= len(frame) && bytes.Equal(got[:len(frame)], frame) {
			return nil
		}
	}
	return fmt.Errorf("cable: what %s sends does not arrive at %s in %v: plug in the cable between them, or look at the switch between them and at ethtool %[1]s", from, to, patience)
}
