package train

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// An order is a line that the process reads: one of its fields is set. The first has Answer.
type order struct {
	Answer *End   `json:"answer,omitempty"`
	Start  *Train `json:"start,omitempty"`
	Stop   uint32 `json:"stop,omitempty"`
}

// An event is a line that it says.
type event struct {
	ID       uint32  `json:"id,omitempty"`
	Error    string  `json:"error,omitempty"`    // of a train, or without ID of all
	Begun    bool    `json:"begun,omitempty"`    // the end answers, or a train is on its way
	Answered int64   `json:"answered,omitempty"` // when the first answer came
	Report   *Report `json:"report,omitempty"`   // the last of a train
}

const (
	maxOrder = 64 << 10 // octets
	// afterwards is for how long no answer may have been sent when a train has ended, for that to have been the last; maxAfterwards bounds it.
	afterwards    = 20 * time.Millisecond
	maxAfterwards = time.Second
	// askAgain is when a neighbour that has not answered is asked again, in milliseconds, instead of after a second: the question may be lost while the port
	// is not in force. The kernel does not ask earlier (HZ/100 in neigh_event_send).
	askAgain = "10"
)

// Main is the process: it obeys what comes on stdin, says on stdout what happens, and returns the exit code.
func Main(stdin io.Reader, stdout io.Writer) int {
	m := &master{out: json.NewEncoder(stdout), trains: map[uint32]*sender{}}
	if err := m.obey(stdin); err != nil {
		m.say(event{Error: err.Error()})
		return 1
	}
	return 0
}

// A master answers, and has trains sent.
type master struct {
	saying sync.Mutex // held while a line is written
	out    *json.Encoder

	nonce uint64
	to    netip.AddrPort
	home  int // the network namespace of the process

	mu     sync.Mutex // guards what follows
	trains map[uint32]*sender
}

func (m *master) say(e event) {
	m.saying.Lock()
	defer m.saying.Unlock()
	_ = m.out.Encode(e) // who does not listen has ended
}

func (m *master) obey(stdin io.Reader) error {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	m.nonce = binary.BigEndian.Uint64(random[:])
	var err error
	if m.home, err = unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("train: open own network namespace: %w", err)
	}
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, maxOrder)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return fmt.Errorf("train: %w", err)
		}
		switch {
		case o.Answer != nil && !m.to.IsValid():
			if err := m.answer(*o.Answer); err != nil {
				return fmt.Errorf("train answers at %v: %w", o.Answer.At, err)
			}
			m.say(event{Begun: true})
		case o.Start != nil && m.to.IsValid():
			if err := m.start(*o.Start); err != nil {
				m.say(event{ID: o.Start.ID, Error: err.Error()})
			}
		case o.Stop != 0:
			m.stop(o.Stop)
		default:
			return errors.New("train: an order that is none")
		}
	}
	return lines.Err()
}

// inside calls do on a thread in a network namespace, which ends with it.
func (m *master) inside(netns string, do func() error) error {
	runtime.LockOSThread()
	defer func() { _ = unix.Setns(m.home, unix.CLONE_NEWNET) }() // the process' first thread does not end, and would keep the namespace
	ns, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", netns, err)
	}
	defer func() { _ = unix.Close(ns) }() // nothing is written to it
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", netns, err)
	}
	return do()
}

func network(a netip.Addr) string {
	if a.Is4() {
		return "udp4"
	}
	return "udp6"
}

// answer answers the packets of trains until the process ends.
func (m *master) answer(at End) error {
	var conn *net.UDPConn
	done := make(chan error)
	go func() { // for the thread, which ends with it
		done <- m.inside(at.Netns, func() (err error) {
			conn, err = net.ListenUDP(network(at.At.Addr()), net.UDPAddrFromAddrPort(at.At))
			return err
		})
	}()
	if err := <-done; err != nil {
		return err
	}
	m.to = at.At
	go func() { // until the process ends
		b := make([]byte, size+1)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				continue // an ICMP error
			}
			p, ok := parse(b[:n])
			if !ok || p.nonce != m.nonce || !p.isRequest {
				continue
			}
			m.mu.Lock()
			s := m.trains[p.id]
			m.mu.Unlock()
			if s == nil || s.From != netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) {
				continue
			}
			p.isRequest = false
			p.put(b[:size])
			at := Now()
			if _, err := conn.WriteToUDPAddrPort(b[:size], from); err == nil {
				s.answered(at)
			}
		}
	}()
	return nil
}

// A sender sends a train.
type sender struct {
	Train
	m    *master
	stop chan struct{} // closed when it is to end

	mu     sync.Mutex // guards what follows
	report Report
}

func (s *sender) answered(at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.report.Answers) < MaxPackets {
		s.report.Answers = append(s.report.Answers, at)
	}
}

func (m *master) start(t Train) error {
	if err := t.Check(m.to); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.trains) >= MaxTrains || m.trains[t.ID] != nil {
		return fmt.Errorf("train %d: it is there, or %d others are", t.ID, MaxTrains)
	}
	s := &sender{Train: t, m: m, stop: make(chan struct{})}
	m.trains[t.ID] = s
	go s.run() // until it is stopped, on a thread that ends with it
	return nil
}

func (m *master) stop(id uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.trains[id]; s != nil {
		select {
		case <-s.stop:
		default:
			close(s.stop)
		}
	}
}

// run sends, and says in the end what has become of it.
func (s *sender) run() {
	if err := s.m.inside(s.Netns, s.sendAll); err != nil {
		s.end(event{ID: s.ID, Error: err.Error()})
		return
	}
	s.mu.Lock()
	r := s.report
	s.mu.Unlock()
	s.end(event{ID: s.ID, Report: &r})
}

func (s *sender) sendAll() error {
	// Wherever the address will be: it is not there yet.
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), s.From.Port())
	if s.From.Addr().Is6() {
		at = netip.AddrPortFrom(netip.IPv6Unspecified(), s.From.Port())
	}
	conn, err := net.ListenUDP(network(at.Addr()), net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	received := make(chan struct{})
	go func() { // until conn is closed
		defer close(received)
		s.receive(conn)
	}()
	s.m.say(event{ID: s.ID, Begun: true})
	err = s.send(conn)
	for ended, answers := time.Now(), -1; answers != s.answers() && time.Since(ended) < maxAfterwards; {
		answers = s.answers()
		<-time.After(afterwards)
	}
	_ = conn.Close() // ends the other
	<-received
	return err
}

// answers is how many there are.
func (s *sender) answers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.report.Answers)
}

// end is the last that is heard of it.
func (s *sender) end(e event) {
	s.m.mu.Lock()
	delete(s.m.trains, s.ID)
	s.m.mu.Unlock()
	s.m.say(e)
}

// send sends a packet every interval, until it is stopped. Its thread is in the namespace.
func (s *sender) send(conn *net.UDPConn) error {
	tick := time.NewTicker(s.Interval)
	defer tick.Stop()
	b := make([]byte, size)
	ready := false
	for number := uint32(1); number <= MaxPackets; {
		select {
		case <-s.stop:
			return nil
		case <-tick.C:
		}
		if !ready {
			switch err := s.impatient(); {
			case errors.Is(err, fs.ErrNotExist):
				continue // there is no device yet
			case err != nil:
				return fmt.Errorf("train %d: %w", s.ID, err)
			}
			ready = true
		}
		packet{s.m.nonce, s.ID, number, true}.put(b)
		at := Now()
		if _, err := conn.WriteToUDPAddrPort(b, s.m.to); err != nil {
			continue // there is no address, or no route, yet
		}
		s.mu.Lock()
		s.report.Sent = append(s.report.Sent, at)
		s.mu.Unlock()
		number++
	}
	<-s.stop
	return nil
}

// impatient makes the device ask for neighbours soon again, and keep no more than one packet meanwhile: one that leaves much later than it was sent would seem
// to have been forwarded when it was sent.
func (s *sender) impatient() error {
	family := "ipv4"
	if s.From.Addr().Is6() {
		family = "ipv6"
	}
	dir := filepath.Join("/proc/sys/net", family, "neigh", s.Device)
	for name, value := range map[string]string{"retrans_time_ms": askAgain, "unres_qlen_bytes": "0"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0) // it is not made
		if err != nil {
			return err
		}
		_, err = f.WriteString(value)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// receive notes the first answer.
func (s *sender) receive(conn *net.UDPConn) {
	b := make([]byte, size+1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		at := Now()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue // an ICMP error
		}
		p, ok := parse(b[:n])
		if !ok || p.nonce != s.m.nonce || p.id != s.ID || p.isRequest || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != s.m.to {
			continue
		}
		s.mu.Lock()
		first := s.report.First == 0
		if first {
			s.report.First, s.report.Answered = int(p.number), at
		}
		s.mu.Unlock()
		if first {
			s.m.say(event{ID: s.ID, Answered: at})
		}
	}
}
