package offload

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Numbers of protocols.
const (
	etherTypeIPv4, etherTypeIPv6 = 0x0800, 0x86dd

	protoHopByHop, protoICMP, protoTCP, protoUDP, protoICMPv6 = 0, 1, 6, 17, 58
)

// An ip is a header of either family, as its addresses are; the fields that a family lacks do not matter.
type ip struct {
	src, dst netip.Addr
	tos, ttl byte
	id       uint16
	df       bool
	label    uint32 // flow label
	options  []byte // IPv4, of a length that 4 divides
	hopByHop []byte // IPv6, the options of an extension header: 6 bytes, or 8 more
}

// packet returns the packet with the header h. sum is the offset of its checksum in the payload, which covers addresses as TCP
// has it, or without them as in ICMP; negative: none.
func (h ip) packet(proto byte, payload []byte, sum int) []byte {
	payload = append([]byte(nil), payload...)
	pseudo := uint32(0)
	if proto != protoICMP {
		pseudo = sum16(h.src.AsSlice()) + sum16(h.dst.AsSlice()) + uint32(proto) + uint32(len(payload))
	}
	if sum >= 0 {
		c := fold(pseudo + sum16(payload))
		if c == 0 && proto == protoUDP {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(payload[sum:], c)
	}
	if h.src.Is4() {
		b := make([]byte, 20, 20+len(h.options)+len(payload))
		b[0], b[1] = 0x45+byte(len(h.options)/4), h.tos
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(h.options)+len(payload)))
		binary.BigEndian.PutUint16(b[4:], h.id)
		if h.df {
			b[6] = 0x40
		}
		b[8], b[9] = h.ttl, proto
		copy(b[12:], h.src.AsSlice())
		copy(b[16:], h.dst.AsSlice())
		b = append(b, h.options...)
		binary.BigEndian.PutUint16(b[10:], fold(sum16(b)))
		return append(b, payload...)
	}
	if h.hopByHop != nil {
		payload = append(append([]byte{proto, byte(len(h.hopByHop)-6) / 8}, h.hopByHop...), payload...)
		proto = protoHopByHop
	}
	b := make([]byte, 40, 40+len(payload))
	binary.BigEndian.PutUint32(b, 6<<28|uint32(h.tos)<<20|h.label)
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = proto, h.ttl
	copy(b[8:], h.src.AsSlice())
	copy(b[24:], h.dst.AsSlice())
	return append(b, payload...)
}

func (h ip) udp(from, to uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return h.packet(protoUDP, append(append(b, 0, 0), data...), 6)
}

// A segment is a TCP header and its data.
type segment struct {
	seq, ack uint32
	flags    byte
	urgent   uint16
	options  []byte // of a length that 4 divides
	data     []byte
}

// Flags of TCP.
const fin, syn, psh, ack, urg = 1, 2, 8, 16, 32

func (h ip) tcp(from, to uint16, s segment) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint32(b, s.seq)
	b = binary.BigEndian.AppendUint32(b, s.ack)
	b = append(b, byte(5+len(s.options)/4)<<4, s.flags, 0x20, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, s.urgent)
	return h.packet(protoTCP, append(append(b, s.options...), s.data...), 16)
}

func (h ip) echo(reply bool, seq uint16, data []byte) []byte {
	proto, typ := byte(protoICMP), byte(8)
	if !h.src.Is4() {
		proto, typ = protoICMPv6, 128
	}
	switch {
	case reply && typ == 8:
		typ = 0
	case reply:
		typ++
	}
	b := []byte{typ, 0, 0, 0, 0x12, 0x34}
	return h.packet(proto, append(binary.BigEndian.AppendUint16(b, seq), data...), 2)
}

func sum16(b []byte) (sum uint32) {
	for i, x := range b {
		sum += uint32(x) << (8 * (1 - i%2))
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// ethernet returns the frame of an IP packet.
func ethernet(t *testing.T, dst, src string, packet []byte) []byte {
	t.Helper()
	d, err := net.ParseMAC(dst)
	check(t, err)
	s, err := net.ParseMAC(src)
	check(t, err)
	typ := uint16(etherTypeIPv4)
	if packet[0]>>4 == 6 {
		typ = etherTypeIPv6
	}
	return append(binary.BigEndian.AppendUint16(append(d, s...), typ), packet...)
}

// A tap sends frames on a device, and sees those that arrive there before anything else does.
type tap struct {
	t      *testing.T
	fd     int
	frames chan []byte
}

// newTap opens one in a namespace. It is closed when the test ends.
func newTap(t *testing.T, space, device string) *tap {
	t.Helper()
	p := &tap{t: t, frames: make(chan []byte, 4096)}
	check(t, within(space, func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		return unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	}))
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(done)
		<-ended
		unix.Close(p.fd)
	})
	go func() {
		defer close(ended)
		buf := make([]byte, 1<<16)
		for {
			select {
			case <-done:
				return
			default:
			}
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, 50); n != 1 || err != nil {
				continue
			}
			n, from, err := unix.Recvfrom(p.fd, buf, unix.MSG_DONTWAIT)
			if l, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && l.Pkttype != unix.PACKET_OUTGOING {
				p.frames <- append([]byte(nil), buf[:n]...)
			}
		}
	}()
	return p
}

// within calls f on a thread in a namespace.
func within(space string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		done <- func() error {
			ns, err := netns.GetFromName(space)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := netns.Set(ns); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}

func (p *tap) send(frame []byte) {
	p.t.Helper()
	_, err := unix.Write(p.fd, frame)
	check(p.t, err)
}

// drop forgets what has arrived.
func (p *tap) drop() {
	for {
		select {
		case <-p.frames:
		default:
			return
		}
	}
}

// next returns the next frame that is wanted, or nil if there is none within the time.
func (p *tap) next(within time.Duration, wanted func([]byte) bool) []byte {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		select {
		case f := <-p.frames:
			if wanted(f) {
				return f
			}
		case <-timer.C:
			return nil
		}
	}
}

// unicastIP reports whether a frame is an IP packet for one receiver.
func unicastIP(f []byte) bool {
	if len(f) < 34 || f[0]&1 != 0 {
		return false
	}
	typ := binary.BigEndian.Uint16(f[12:])
	return typ == etherTypeIPv4 || typ == etherTypeIPv6
}
