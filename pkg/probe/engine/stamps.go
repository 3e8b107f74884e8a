package engine

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// stamps are the times of requests by sequence number since the warm-up; 0: there is none. Server and client each write their own arrays.
type stamps struct {
	// Of CLOCK_REALTIME, which is that of the kernel's.
	send     []int64 // the client's: before the system call
	transmit []int64 // the kernel's: in the driver of the first device that stamps
	receive  []int64 // the kernel's: from the last device
	arrived  []int64 // the server's: after the system call

	// Of the NIC's clock; nil: it does not stamp.
	out []int64 // when a request leaves
	in  []int64 // when it arrives

	// Of the engine's clock, which nobody sets: it times round trips.
	begun []int64 // the client's: when the round trip begins
	came  []int64 // the server's: when it has the request
	ended []int64 // the client's: when the round trip ends

	client, server control

	seen atomic.Bool // a stamp of what has arrived
}

// A control is room for a message's ancillary data.
type control struct {
	header unix.Msghdr
	iov    unix.Iovec
	data   [256]byte
	_      [64]byte
}

// stampSockets asks for the kernel's timestamps.
func (p *path) stampSockets(limit int64) error {
	s := &stamps{}
	rooms := []*[]int64{&s.send, &s.transmit, &s.receive, &s.arrived, &s.begun, &s.came, &s.ended}
	var transmitNIC, receiveNIC int
	if p.NICClock {
		if err := p.stampDevices(); err != nil {
			p.unclocked = err.Error()
		} else {
			rooms = append(rooms, &s.out, &s.in)
			transmitNIC = unix.SOF_TIMESTAMPING_RAW_HARDWARE | unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_OPT_TX_SWHW
			receiveNIC = unix.SOF_TIMESTAMPING_RAW_HARDWARE | unix.SOF_TIMESTAMPING_RX_HARDWARE
		}
	}
	for _, a := range rooms {
		*a = make([]int64, limit)
		for i := range *a {
			(*a)[i] = 1
		}
		clear(*a)
	}
	const report = unix.SOF_TIMESTAMPING_SOFTWARE
	const transmit = report | unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_OPT_ID | unix.SOF_TIMESTAMPING_OPT_TSONLY
	if err := unix.SetsockoptInt(p.client.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, transmit|transmitNIC); err != nil {
		return fmt.Errorf("client: setsockopt SO_TIMESTAMPING: %w", err)
	}
	if err := unix.SetsockoptInt(p.server.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, report|unix.SOF_TIMESTAMPING_RX_SOFTWARE|receiveNIC); err != nil {
		return fmt.Errorf("server: setsockopt SO_TIMESTAMPING: %w", err)
	}
	p.stamps = s
	return nil
}

func realtime() int64 { return time.Now().UnixNano() }

// put sets one of the arrays, unless seq is of the warm-up.
func put(a []int64, seq, first uint64, at int64) {
	if i := seq - first; i < uint64(len(a)) {
		a[i] = at
	}
}

// receiveFrom is that of c, the server's, with stamps. What first points to is settled when counting begins; base is when the engine's clock was 0.
func (s *stamps) receiveFrom(c *conn, counting bool, first *uint64, base time.Time) int {
	n := s.server.receive(c.fd, c.in, unsafe.Pointer(&c.peer), uint32(unsafe.Sizeof(c.peer)))
	at := time.Now()
	if n < 0 {
		return nothing
	}
	c.peerLen = s.server.header.Namelen
	if n != len(c.in) {
		return nothing // not ours
	}
	by := s.server.stamp()
	if by.kernel != 0 && !s.seen.Load() {
		s.seen.Store(true)
	}
	if counting && binary.BigEndian.Uint16(c.in[14:]) == kindRequest {
		seq := binary.BigEndian.Uint64(c.in)
		put(s.came, seq, *first, int64(at.Sub(base)))
		if by.kernel != 0 {
			put(s.receive, seq, *first, by.kernel)
			put(s.arrived, seq, *first, at.UnixNano())
		}
		put(s.in, seq, *first, by.nic)
	}
	return message
}

// trip notes a round trip that has ended.
func (s *stamps) trip(seq, first uint64, begun, ended time.Duration) {
	put(s.begun, seq, first, int64(begun))
	put(s.ended, seq, first, int64(ended))
}

// oneWay are the two ways of each round trip, which together are all of it: the server's time is read once, by the clock of the round trip. It is nil if
// there are none.
func (s *stamps) oneWay() *result.OneWay {
	var there, back []int64
	for i, came := range s.came {
		if s.ended[i] != 0 && s.begun[i] <= came && came <= s.ended[i] {
			there, back = append(there, came-s.begun[i]), append(back, s.ended[i]-came)
		}
	}
	if len(there) == 0 {
		return nil
	}
	slices.Sort(there)
	slices.Sort(back)
	return &result.OneWay{
		Count: int64(len(there)),
		There: quantile(there, 0, 0.5), Back: quantile(back, 0, 0.5), There99: quantile(there, 0, 0.99), Back99: quantile(back, 0, 0.99),
	}
}

// collect takes the stamps of what the client has sent from the socket's error queue. OPT_ID numbers a socket's datagrams as the client
// numbers its requests, from 0.
func (s *stamps) collect(fd int, first uint64) {
	for s.client.receive(fd, nil, nil, 0) >= 0 {
		at := s.client.stamp()
		if at.kernel != 0 {
			put(s.transmit, uint64(at.id), first, at.kernel)
		}
		if at.nic != 0 {
			put(s.out, uint64(at.id), first, at.nic)
		}
	}
}

// receive is recvmsg(2) without waiting: into data, or if there is none, from the error queue. It returns -1 if there is nothing.
func (c *control) receive(fd int, data []byte, from unsafe.Pointer, fromLen uint32) int {
	flags := uintptr(unix.MSG_DONTWAIT)
	c.header = unix.Msghdr{Name: (*byte)(from), Namelen: fromLen, Control: &c.data[0]}
	c.header.SetControllen(len(c.data))
	if len(data) == 0 {
		flags |= unix.MSG_ERRQUEUE
	} else {
		c.iov.Base = &data[0]
		c.iov.SetLen(len(data))
		c.header.Iov = &c.iov
		c.header.SetIovlen(1)
	}
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&c.header)), flags)
	if errno != 0 {
		return -1
	}
	return int(n)
}

// A stamp is when a datagram was where it is stamped, by the kernel's clock and the NIC's, 0: it was not, and which it is if it was sent.
type stamp struct {
	kernel, nic int64
	id          uint32
}

// stamp finds it in what was received.
func (c *control) stamp() (at stamp) {
	rest := c.data[:c.header.Controllen]
	for len(rest) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&rest[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(rest) {
			break
		}
		body := rest[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPING && len(body) >= int(unsafe.Sizeof(unix.ScmTimestamping{})):
			ts := (*unix.ScmTimestamping)(unsafe.Pointer(&body[0])).Ts
			at.kernel, at.nic = ts[0].Nano(), ts[2].Nano() // the second has been obsolete since Linux 3.17
		case (h.Level == unix.SOL_IP && h.Type == unix.IP_RECVERR || h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVERR) &&
			len(body) >= int(unsafe.Sizeof(unix.SockExtendedErr{})):
			e := (*unix.SockExtendedErr)(unsafe.Pointer(&body[0]))
			if e.Origin != unix.SO_EE_ORIGIN_TIMESTAMPING || e.Info != unix.SCM_TSTAMP_SND {
				return stamp{}
			}
			at.id = e.Data
		}
		rest = rest[min(unix.CmsgSpace(len(body)), len(rest)):]
	}
	return at
}

// segments are the parts of the requests of which all stamps are there and in order; a step of the clock puts them out of it. The note says
// what is missing.
func (s *stamps) segments() (*result.Segments, string) {
	var parts [3][]int64
	sent, transmitted, received := 0, 0, 0
	for i := range s.send {
		if s.send[i] == 0 {
			continue
		}
		sent++
		at := [4]int64{s.send[i], s.transmit[i], s.receive[i], s.arrived[i]}
		if at[1] != 0 {
			transmitted++
		}
		if at[2] != 0 {
			received++
		}
		if at[1] == 0 || !slices.IsSorted(at[:]) {
			continue
		}
		for k := range parts {
			parts[k] = append(parts[k], at[k+1]-at[k])
		}
	}
	n := len(parts[0])
	var note string
	switch {
	case sent > 0 && transmitted == 0:
		note = "no segments: the client's device does not stamp what it sends"
	case sent > 0 && received == 0:
		note = "no segments: what arrives is not stamped"
	case n < sent:
		note = fmt.Sprintf("%d of %d requests are not in the segments: a timestamp is missing or out of order", sent-n, sent)
	}
	if n == 0 {
		return nil, note
	}
	for k := range parts {
		slices.Sort(parts[k])
	}
	at := func(k int, q float64) int64 { return quantile(parts[k], 0, q) }
	g := &result.Segments{
		Count: int64(n),
		Send:  at(0, 0.5), Path: at(1, 0.5), Receive: at(2, 0.5),
		Send99: at(0, 0.99), Path99: at(1, 0.99), Receive99: at(2, 0.99),
	}
	if wire := s.onWire(); len(wire) > 0 {
		g.NIC, g.NIC99 = quantile(wire, 0, 0.5), quantile(wire, 0, 0.99)
	}
	return g, note
}

// onWire is how long requests have taken by the NIC's clock, ascending, of those that it has stamped on both sides.
func (s *stamps) onWire() []int64 {
	var took []int64
	for i, out := range s.out {
		if in := s.in[i]; out != 0 && in >= out {
			took = append(took, in-out)
		}
	}
	slices.Sort(took)
	return took
}
