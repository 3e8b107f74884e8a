package pinger

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxPlan bounds a plan in octets.
	maxPlan = 8 << 20
	// reportEvery is how often there is a report.
	reportEvery = 2 * time.Second
	// again is when a socket that could not be opened is tried again.
	again = 5 * time.Second
	// priority is the least of SCHED_FIFO: what is measured is not how long this process waited for a CPU. It uses little of it.
	priority = 1
)

// Main is the process: it follows the plans on stdin, reports on stdout, and returns the exit code.
func Main(stdin io.Reader, stdout *os.File) int {
	prefer()
	return obey(stdin, stdout)
}

func obey(stdin io.Reader, stdout *os.File) int {
	m, err := newMaster(int(stdout.Fd()))
	if err == nil {
		err = m.follow(stdin)
	}
	if err != nil {
		text, _ := json.Marshal(Report{Error: err.Error()}) // it can be
		_ = write(int(stdout.Fd()), append(text, '\n'))     // nobody else could be told
		return 1
	}
	return 0
}

// prefer gives the process' threads, also those to come, a priority, if that is permitted.
func prefer() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return // then it has none
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: priority}
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.SchedSetAttr(tid, &attr, 0) // a thread without is not wrong
		}
	}
}

// A master opens sockets, and tells the others what to do. Its goroutine arranges; another makes time pass.
type master struct {
	out      int
	now      func() int64
	sender   *sender
	answerer *answerer
	names    *names
	changed  chan struct{} // has something when there may be something to send earlier
	text     []byte
}

func newMaster(out int) (*master, error) {
	begun := time.Now()
	now := func() int64 { return int64(time.Since(begun)) }
	wall := func() int64 { return time.Now().UnixNano() }
	if err := unix.SetNonblock(out, true); err != nil {
		return nil, fmt.Errorf("pinger: stdout: %w", err)
	}
	names, err := newNames()
	if err != nil {
		return nil, fmt.Errorf("pinger: %w", err)
	}
	m := &master{
		out: out, now: now, names: names, changed: make(chan struct{}, 1), text: make([]byte, 0, 64<<10),
		sender:   &sender{now: now, wall: wall, idle: true, mark: uint32(random() >> 32), inbox: newInbox()},
		answerer: &answerer{now: now, wall: wall, out: make([]byte, MaxSize), inbox: newInbox()},
	}
	// It ends with the process.
	go m.pass()
	return m, nil
}

// pass lets time pass. In it and in what it calls there are raw system calls only: others would wake up a thread of the runtime's that goes on
// to look, some thousand times, for nothing.
func (m *master) pass() {
	report := m.now() + int64(reportEvery)
	timer := time.NewTimer(0)
	for {
		select {
		case <-timer.C:
		case <-m.changed:
		}
		next := m.sender.step()
		if m.now() >= report {
			m.report()
			report += int64(reportEvery)
		}
		timer.Reset(time.Duration(min(next, report) - m.now()))
	}
}

// report writes what has happened. What it cannot get rid of it keeps for the next time.
func (m *master) report() {
	m.sender.mu.Lock()
	defer m.sender.mu.Unlock()
	m.answerer.mu.Lock()
	defer m.answerer.mu.Unlock()
	b := m.sender.report(append(m.text[:0], `{"pairs":[`...))
	b = m.answerer.report(append(uncomma(b), `],"answers":[`...))
	b = append(uncomma(b), "]}\n"...)
	m.text = b
	if len(b) > len(`{"pairs":[],"answers":[]}`+"\n") && write(m.out, b) {
		m.sender.reported()
		m.answerer.reported()
	}
}

// write writes all of b, or if there is no room at all, nothing.
func write(fd int, b []byte) bool {
	for begun := false; len(b) > 0; {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch {
		case errno == 0:
			b = b[n:]
			begun = true
		case errno == unix.EAGAIN && !begun:
			return false
		case errno == unix.EAGAIN:
			<-time.After(10 * time.Millisecond) // what is begun must be finished
		case errno != unix.EINTR:
			return false // nobody reads any more: stdin says so, too
		}
	}
	return true
}

// follow follows plans until there are no more.
func (m *master) follow(in io.Reader) error {
	plans, failed := make(chan Plan), make(chan error, 1)
	// It ends with the process.
	go func() {
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, maxPlan)
		for lines.Scan() {
			var p Plan
			err := json.Unmarshal(lines.Bytes(), &p)
			if err == nil {
				err = p.Check()
			}
			if err != nil {
				failed <- fmt.Errorf("pinger plan: %w", err)
				return
			}
			plans <- p
		}
		failed <- lines.Err()
	}()
	var last Plan
	var retry <-chan time.Time
	for {
		select {
		case err := <-failed:
			return err
		case last = <-plans:
		case <-m.names.gone:
		case <-retry:
		}
		retry = nil
		if !m.arrange(last) {
			retry = time.After(again)
		}
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
}

// arrange makes everything follow a plan, and reports whether all sockets are open.
func (m *master) arrange(p Plan) (complete bool) {
	runtime.LockOSThread() // it enters network namespaces
	defer runtime.UnlockOSThread()
	sending, unused := m.arrangePairs(p)
	answering, unusedToo := m.arrangePorts(p)
	for _, k := range append(unused, unusedToo...) { // closing waits for who reads, who may wait for a mutex
		k.close()
	}
	m.names.only(p)
	return sending && answering
}

// sameTerms reports whether what goes on can go on.
func sameTerms(p, o Plan) bool {
	return p.Interval == o.Interval && p.Burst == o.Burst && p.Size == o.Size && p.Timeout == o.Timeout && p.Port == o.Port
}

// arrangePairs makes the sender's pairs those of a plan. Those that go on keep what they have. It returns the sockets that are to be closed.
func (m *master) arrangePairs(plan Plan) (complete bool, unused []*socket) {
	s := m.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	old, sockets := map[uint64]*pair{}, map[End]*socket{}
	for _, p := range s.pairs {
		if p != nil {
			old[p.ID] = p
			if p.socket != nil {
				sockets[p.From] = p.socket
			}
		}
	}
	if !sameTerms(plan, s.plan) {
		clear(old)
	}
	used, failed, pairs := map[End]*socket{}, map[End]string{}, map[End]int{}
	kept := map[uint64]bool{}
	var fresh []*pair
	for _, w := range plan.Pairs {
		p := old[w.ID]
		if p == nil || p.Pair != w {
			p = newPair(w, plan)
			fresh = append(fresh, p)
		} else {
			kept[w.ID] = true
		}
		if used[w.From] == nil && failed[w.From] == "" {
			used[w.From], failed[w.From] = m.socket(sockets[w.From], s.plan.Port == plan.Port, w.From, plan.Port+1, false, func(fd int) error { return await(fd, s.mark) })
		}
		p.socket, p.broken = used[w.From], failed[w.From]
		pairs[w.From]++
	}
	for e, k := range sockets {
		if used[e] != k {
			unused = append(unused, k)
		}
	}
	for i, p := range s.pairs {
		if p != nil && !kept[p.ID] {
			p.socket = nil
			s.pairs[i] = nil
		}
	}
	for _, p := range fresh {
		i := slices.Index(s.pairs, nil)
		if i < 0 {
			i = len(s.pairs)
			s.pairs = append(s.pairs, nil)
		}
		p.nonce = uint64(s.mark)<<32 | random()>>32
		p.index = uint64(i) << seqBits
		s.pairs[i] = p
	}
	s.sockets = s.sockets[:0]
	for e, k := range used {
		if k != nil {
			s.sockets = append(s.sockets, k)
			room(k.fd, len(newFlights(plan))*pairs[e])
		}
	}
	s.plan, s.message = plan, make([]byte, plan.Size)
	s.arrange(m.now())
	return !slices.ContainsFunc(slices.Collect(maps.Values(failed)), func(why string) bool { return why != "" }), unused
}

// socket is the one at an end: that which was there, if it is still good, or a new one.
func (m *master) socket(old *socket, samePort bool, e End, port uint16, wakes bool, prepare func(fd int) error) (*socket, string) {
	if old != nil && samePort && m.names.known(e.Netns) {
		return old, ""
	}
	if err := m.names.watch(e.Netns); err != nil {
		return nil, err.Error()
	}
	k, err := open(e, port, wakes, prepare)
	if err != nil {
		return nil, err.Error()
	}
	return k, ""
}

func newPair(w Pair, plan Plan) *pair {
	return &pair{
		Pair: w, to: newPlace(w.To, plan.Port), key: w.To.As16(),
		flights: newFlights(plan),
		took:    make([]int64, 0, plan.Burst*(int(reportEvery/plan.Interval)+2)),
	}
}

// newFlights is room for the requests of a pair that may be waited for.
func newFlights(plan Plan) []flight {
	return make([]flight, plan.Burst*(int(plan.Timeout/plan.Interval)+3))
}

// arrangePorts makes the answerer's ports those of a plan. Whom a port has answered it goes on to answer with the same token. It returns the sockets that
// are to be closed.
func (m *master) arrangePorts(plan Plan) (complete bool, unused []*socket) {
	a := m.answerer
	a.mu.Lock()
	defer a.mu.Unlock()
	complete = true
	ports := map[uint64]*port{}
	for _, w := range plan.Answers {
		p := a.ports[w.ID]
		if p == nil || p.At != w.At {
			p = &port{}
		}
		p.Answer = w
		p.book.admit(w.For, plan, m.now())
		old := p.socket
		if p.socket, p.broken = m.socket(old, a.plan.Port == plan.Port, w.At, plan.Port, true, stamped); p.socket == nil {
			complete = false
		}
		if k := p.socket; k != old {
			if old != nil {
				unused = append(unused, old)
			}
			if k != nil {
				// It ends when the socket is closed.
				go k.read(func() { a.drain(p, k) })
			}
		}
		ports[w.ID] = p
	}
	for id, p := range a.ports {
		if ports[id] != p && p.socket != nil {
			unused = append(unused, p.socket)
		}
	}
	a.plan, a.ports, a.order = plan, ports, slices.Sorted(maps.Keys(ports))
	return complete, unused
}

// random is never 0.
func random() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if n := binary.BigEndian.Uint64(b[:]); n != 0 {
			return n
		}
	}
}
