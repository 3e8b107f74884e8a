package offload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/integration/lab"
)

// A flow is one direction of a conversation in UDP or TCP.
type flow struct {
	proto    byte
	from, to netip.AddrPort
}

// A sighting is a packet at a pod's device.
type sighting struct {
	flow
	out bool      // it left the pod
	at  time.Time // the kernel's
	key uint64    // equal for the same packet elsewhere, and for its repetitions

	seq, data uint32 // of TCP: the first octet, and how many
}

// parts calls f with what the packet consists of: itself, or the octets of TCP, which GRO may join to other segments.
func (s *sighting) parts(f func(key uint64)) {
	if s.data == 0 {
		f(s.key)
		return
	}
	for i := range s.data {
		f(uint64(s.seq + i))
	}
}

// A recorder notes the packets of UDP and TCP that leave or reach a pod. The kernel writes them into memory, which is read when
// somebody asks: a system call for each would take more of a guest than the packets do.
type recorder struct {
	fd   int
	done chan struct{} // closed by stop

	mu   sync.Mutex // guards what follows
	ring []byte
	next int // frame
	seen []sighting
}

// A ring is read so often that it does not become full, however long a test takes.
const recorderInterval = 2 * time.Second

// The ring is as in packet(7) and Documentation/networking/packet_mmap.rst of Linux.
const (
	frameSize, frameCount, blockSize = 256, 1 << 16, 1 << 16

	linkOffset = 32 // of struct sockaddr_ll behind struct tpacket2_hdr
)

// record starts one, which ends with stop.
func record(t *testing.T, p *lab.Pod) *recorder {
	t.Helper()
	r := &recorder{done: make(chan struct{})}
	check(t, within(p.Netns(), func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
		if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := errors.Join(
			unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2),
			unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{
				Block_size: blockSize, Block_nr: frameSize * frameCount / blockSize, Frame_size: frameSize, Frame_nr: frameCount,
			}),
		); err != nil {
			return err
		}
		if r.ring, err = unix.Mmap(r.fd, 0, frameSize*frameCount, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return err
		}
		return unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	}))
	go func() { // ends with stop
		for {
			select {
			case <-r.done:
				return
			case <-time.After(recorderInterval):
				r.read()
			}
		}
	}()
	return r
}

// read takes from the ring what is new, and returns all. A stopped recorder has no ring.
func (r *recorder) read() []sighting {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.ring != nil {
		f := r.ring[r.next*frameSize:][:frameSize]
		h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&f[0]))
		if atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0 {
			break
		}
		if s, ok := sight(f[h.Net:][:h.Snaplen]); ok {
			s.at = time.Unix(int64(h.Sec), int64(h.Nsec))
			s.out = (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&f[linkOffset])).Pkttype == unix.PACKET_OUTGOING
			r.seen = append(r.seen, s)
		}
		atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL)
		r.next = (r.next + 1) % frameCount
	}
	return r.seen
}

// stop ends the recorder, and fails the test if it has missed packets.
func (r *recorder) stop(t *testing.T) {
	t.Helper()
	close(r.done)
	r.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	stats, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	check(t, errors.Join(err, unix.Munmap(r.ring), unix.Close(r.fd)))
	r.ring = nil
	if stats.Drops > 0 {
		t.Fatalf("a recorder missed %d packets", stats.Drops)
	}
}

var seed = maphash.MakeSeed()

// sight reads a packet without its Ethernet header.
func sight(b []byte) (s sighting, ok bool) {
	var (
		payload  []byte
		size     int // of the payload, not all of which may be here
		from, to netip.Addr
	)
	switch {
	case len(b) >= 20 && b[0] == 0x45:
		s.proto, payload, size = b[9], b[20:], int(binary.BigEndian.Uint16(b[2:]))-20
		from, _ = netip.AddrFromSlice(b[12:16])
		to, _ = netip.AddrFromSlice(b[16:20])
	case len(b) >= 40 && b[0]>>4 == 6:
		s.proto, payload, size = b[6], b[40:], int(binary.BigEndian.Uint16(b[4:]))
		from, _ = netip.AddrFromSlice(b[8:24])
		to, _ = netip.AddrFromSlice(b[24:40])
	default:
		return s, false
	}
	sum := map[byte]int{protoUDP: 6, protoTCP: 16}[s.proto]
	if sum == 0 || len(payload) < sum+2 {
		return s, false
	}
	s.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(payload))
	s.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(payload[2:]))
	if s.proto == protoTCP {
		s.seq, s.data = binary.BigEndian.Uint32(payload[4:]), uint32(size-int(payload[12]>>4)*4)
	}
	var h maphash.Hash
	h.SetSeed(seed)
	h.Write(payload[:sum]) // the checksum is not computed yet where the packet leaves
	h.Write(payload[sum+2:])
	s.key = h.Sum64()
	return s, true
}

// A stream is a conversation along a path: the client sends numbered messages at a rate, and the server sends them back.
type stream struct {
	Path
	v6, tcp  bool
	client   uint16 // port
	interval time.Duration
}

// String names the stream for people.
func (s stream) String() string {
	proto := "UDP"
	if s.tcp {
		proto = "TCP"
	}
	return fmt.Sprintf("%s, %s, %s", s.Name, family(s.v6), proto)
}

func (s stream) server() uint16 {
	if s.tcp {
		return 5432
	}
	return UDPPort
}

// flow returns a direction of the stream.
func (s stream) flow(r *Rig, back bool) flow {
	f := flow{
		proto: protoUDP,
		from:  netip.AddrPortFrom(r.Pod(s.From).Addr(s.v6), s.client),
		to:    netip.AddrPortFrom(r.Pod(s.To).Addr(s.v6), s.server()),
	}
	if s.tcp {
		f.proto = protoTCP
	}
	if back {
		f.from, f.to = f.to, f.from
	}
	return f
}

// A load is traffic and a record of it.
type load struct {
	rig       *Rig
	streams   []stream
	recorders map[string]*recorder // by pod
	cancel    context.CancelFunc
	senders   sync.WaitGroup
	end       time.Time // what left later is not judged
}

// startLoad begins to send, and returns when all streams are answered. Nobody cuts or joins segments on their way.
func startLoad(t *testing.T, r *Rig, streams []stream) *load {
	t.Helper()
	segments(t, r, "off")
	t.Cleanup(func() { segments(t, r, "on") })
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	l := &load{rig: r, streams: streams, recorders: map[string]*recorder{}, cancel: cancel}
	served := map[string]bool{}
	for _, s := range streams {
		for _, name := range []string{s.From, s.To} {
			if l.recorders[name] == nil {
				l.recorders[name] = record(t, r.Pod(name))
			}
		}
		if !served[s.To] {
			served[s.To] = true
			check(t, Echo(ctx, r.Pod(s.To), UDPPort))
			check(t, serveTCP(ctx, r.Pod(s.To), 5432))
		}
	}
	for _, s := range streams {
		network, local := "udp", net.Addr(&net.UDPAddr{Port: int(s.client)})
		if s.tcp {
			network, local = "tcp", &net.TCPAddr{Port: int(s.client)}
		}
		var c net.Conn
		check(t, r.Pod(s.From).Do(func() (err error) {
			d := net.Dialer{LocalAddr: local, Timeout: lab.Patient(patience), ControlContext: reuse}
			c, err = d.DialContext(ctx, network, s.flow(r, false).to.String())
			return err
		}))
		if tcp, ok := c.(*net.TCPConn); ok {
			check(t, tcp.SetLinger(0))
		}
		context.AfterFunc(ctx, func() { _ = c.Close() })
		go func() { _, _ = io.Copy(io.Discard, c) }() // ends with c
		l.senders.Go(func() { s.send(ctx, c) })
	}
	for _, s := range streams {
		waitFor(t, s.String()+" to be answered", func() bool { return l.last(s, true, time.Time{}) != nil })
	}
	return l
}

func reuse(_ context.Context, _, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }), err)
}

// send sends messages until ctx ends. Those that are late are sent at once.
func (s stream) send(ctx context.Context, c net.Conn) {
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	begin, message := time.Now(), make([]byte, 64)
	for sent := uint32(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := uint32(time.Since(begin) / s.interval); sent < due; sent++ {
			binary.BigEndian.PutUint32(message, sent)
			if _, err := c.Write(message); err != nil {
				break // refused, or closed
			}
		}
	}
}

// serveTCP sends back what arrives, until ctx ends.
func serveTCP(ctx context.Context, pod *lab.Pod, port uint16) error {
	var lis net.Listener
	err := pod.Do(func() (err error) {
		lis, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("[::]:%d", port))
		return err
	})
	if err != nil {
		return fmt.Errorf("pod %s: listen: %w", pod.Name, err)
	}
	context.AfterFunc(ctx, func() { _ = lis.Close() })
	go func() { // ends with ctx
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { _ = c.Close() })
			go func() { // ends with c
				buf := make([]byte, 1<<12)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return nil
}

// stop ends the traffic. What was recorded stays.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.end = time.Now()
	time.Sleep(lab.Patient(100 * time.Millisecond)) // for what is on its way
	for _, r := range l.recorders {
		r.stop(t)
	}
	l.cancel()
	l.senders.Wait()
}

// sightings calls f with the packets of a flow at a pod, in one direction.
func (l *load) sightings(pod string, w flow, out bool, f func(s *sighting)) {
	seen := l.recorders[pod].read()
	for i := range seen {
		if s := &seen[i]; s.flow == w && s.out == out {
			f(s)
		}
	}
}

// ends returns the pods that a direction of a stream leaves and reaches.
func (s stream) ends(back bool) (from, to string) {
	if back {
		return s.To, s.From
	}
	return s.From, s.To
}

// last returns the last packet of a direction that has arrived, if that was later than after.
func (l *load) last(s stream, back bool, after time.Time) (last *sighting) {
	_, to := s.ends(back)
	l.sightings(to, s.flow(l.rig, back), false, func(p *sighting) {
		if p.at.After(after) {
			last = p
		}
	})
	return last
}

// lost returns the packets of a direction that left one pod after a time and did not arrive at the other.
func (l *load) lost(s stream, back bool, after time.Time) (sent int, lost []sighting) {
	from, to := s.ends(back)
	arrived := map[uint64]int{} // by part
	l.sightings(to, s.flow(l.rig, back), false, func(p *sighting) {
		if !p.at.Before(after) {
			p.parts(func(key uint64) { arrived[key]++ })
		}
	})
	l.sightings(from, s.flow(l.rig, back), true, func(p *sighting) {
		if p.at.Before(after) || p.at.After(l.end) {
			return
		}
		sent++
		missing := false
		p.parts(func(key uint64) {
			arrived[key]--
			missing = missing || arrived[key] < 0
		})
		if missing {
			lost = append(lost, *p)
		}
	})
	return sent, lost
}

// wantAll fails the test for each stream of which a packet was lost that left after a time, either way.
func (l *load) wantAll(t *testing.T, streams []stream, after time.Time) {
	t.Helper()
	for _, s := range streams {
		for _, back := range []bool{false, true} {
			l.wantAllOf(t, s, back, after)
		}
	}
}

// wantAllOf is wantAll for one direction of a stream.
func (l *load) wantAllOf(t *testing.T, s stream, back bool, after time.Time) {
	t.Helper()
	from, to := s.ends(back)
	sent, lost := l.lost(s, back, after)
	if sent == 0 {
		t.Errorf("%v: nothing was sent from %s to %s", s, from, to)
	}
	if len(lost) > 0 {
		t.Errorf("%v: of %d packets from %s to %s %d are lost, the first sent at %s (%d octets of TCP from %d on) and the last at %s", s, sent, from, to, len(lost),
			clock(lost[0].at), lost[0].data, lost[0].seq, clock(lost[len(lost)-1].at))
	}
}

// udpInterval is that of messages in UDP: a thousand a second, or fewer where a system call takes long, or all does.
func udpInterval() time.Duration {
	switch os.Getenv("OFFLOADD_VM") {
	case "":
		return time.Millisecond
	case "uml":
		return 5 * time.Millisecond
	default:
		return 20 * time.Millisecond // all of it has to pass Open vSwitch, too, in places
	}
}

// wantGaps fails the test if packets of a stream were lost more often than so many times, each no longer than most, either way. TCP, which
// waits ever longer between its attempts, has to go on.
func (l *load) wantGaps(t *testing.T, s stream, since time.Time, times int, most time.Duration) {
	t.Helper()
	for _, back := range []bool{false, true} {
		from, to := s.ends(back)
		sent, lost := l.lost(s, back, time.Time{})
		if len(lost) == 0 {
			continue
		}
		first, last := lost[0].at, lost[len(lost)-1].at
		if l.last(s, back, last) == nil {
			t.Errorf("%v: nothing arrives from %s at %s any more", s, from, to)
		}
		gaps, begin := 1, first
		for _, p := range lost {
			if p.at.Sub(begin) > most {
				gaps, begin = gaps+1, p.at
			}
		}
		t.Logf("%v: of %d packets from %s to %s %d are lost, sent in %v, the first %v after it happened", s, sent, from, to, len(lost),
			last.Sub(first).Round(time.Millisecond), first.Sub(since).Round(time.Millisecond))
		if gaps > times && !s.tcp {
			t.Errorf("%v: packets from %s to %s are lost %d times for %v, want at most %d times", s, from, to, gaps, most, times)
		}
	}
}

// streams are a conversation in UDP and one in TCP along each path.
func streams(v6 bool) []stream {
	var all []stream
	for i, p := range Paths() {
		port := uint16(20000 + 10*i)
		if v6 {
			port += 100
		}
		all = append(all,
			stream{Path: p, v6: v6, client: port, interval: udpInterval()},
			stream{Path: p, v6: v6, tcp: true, client: port, interval: 4 * udpInterval()},
		)
	}
	return all
}

// wantOffloaded fails the test unless filters forward the load on the paths soon, both ways.
func wantOffloaded(t *testing.T, r *Rig, paths []Path) {
	t.Helper()
	deadline := time.Now().Add(lab.Patient(patience))
	for before := count(t, r); ; {
		time.Sleep(lab.Patient(200 * time.Millisecond))
		now := count(t, r)
		counts := map[string]Counts{}
		for n := range now {
			counts[n] = now[n].Sub(before[n])
		}
		wrong := softPaths(r, counts, paths)
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("filters do not forward what they should:\n%s", strings.Join(wrong, "\n"))
			return
		}
		before = now
	}
}

// softPaths describes the paths of which Open vSwitch forwards more than one packet in twenty.
func softPaths(r *Rig, counts map[string]Counts, paths []Path) []string {
	var wrong []string
	for _, p := range paths {
		for _, e := range [][2]string{{p.From, p.To}, {p.To, p.From}} {
			if way := r.Way(counts, e[0], e[1]); way.TC < 20*way.OVS || way.TC == 0 || p.Tunnel && (way.TCFar < 20*way.OVSFar || way.TCFar == 0) {
				wrong = append(wrong, fmt.Sprintf("%s to %s: Open vSwitch saw %d packets, filters sent %d; behind the tunnel %d and %d",
					e[0], e[1], way.OVS, way.TC, way.OVSFar, way.TCFar))
			}
		}
	}
	return wrong
}

// clock shows a time like the logs of the daemons.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// waitFor waits for a condition.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lab.Patient(patience))
	defer cancel()
	if err := lab.Until(ctx, func() (bool, error) { return cond(), nil }); err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}
