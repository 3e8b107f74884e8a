package engine

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

const (
	tick = 500 * time.Millisecond // of progress
	// nap is how long a thread that has nothing to do waits before it looks whether it is to end.
	nap = 50 * time.Millisecond
	// maxMemory is when the garbage collector runs after all; samples are a quarter of it.
	maxMemory = 2 << 30
	sinkSize  = 256 << 10 // of what the receiver of a stream takes at once
)

// Main is the process: it does the job on stdin, says on stdout what happens, and returns the exit code.
func Main(stdin io.Reader, stdout io.Writer) int {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(maxMemory)
	in, out := bufio.NewReader(stdin), json.NewEncoder(stdout)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return 1 // who started it has ended
	}
	var job Job
	if err = json.Unmarshal(line, &job); err == nil {
		err = job.Check()
	}
	if err != nil {
		_ = out.Encode(Event{Error: fmt.Sprintf("engine job: %v", err)}) // nobody else could be told
		return 1
	}
	ended := make(chan struct{})
	// It ends with the process.
	go func() {
		_, _ = io.Copy(io.Discard, in) // until there is no other end
		close(ended)
	}()
	if err := newEngine(job).run(ended, func(e Event) error { return out.Encode(e) }); err != nil {
		_ = out.Encode(Event{Error: err.Error()})
		return 1
	}
	return 0
}

// An engine is the state of a job. Its threads share what is atomic; all else belongs to the client's thread, or where it says so to the
// server's, until both have ended.
type engine struct {
	job   Job
	base  time.Time
	nonce uint32
	limit int64 // requests of a path after the warm-up
	paths []*path
	rnd   *rand.Rand

	client, server thread

	active   atomic.Int64 // the index of the path that is used, -1: none
	_        [64]byte
	counting atomic.Bool  // the warm-up is over
	stop     atomic.Bool  // the job is to end early
	done     atomic.Bool  // the client has ended: so does the server
	requests atomic.Int64 // sent and counted
	started  atomic.Int64 // when counting began
	nextStop time.Duration
	home     int // the network namespace of the client's thread, if it is one of a path's, which is so for connections only
	primed   atomic.Bool
	turn     turn
}

// A path is one of the job's while it is measured.
type path struct {
	Path
	index    int
	to       netip.AddrPort // of the client's requests
	client   *conn
	server   *conn
	listener int // -1: none
	failed   string

	next  uint64 // sequence number
	first uint64 // after the warm-up
	state []uint8
	took  []int64
	// sent are those of an open loop: what is took, from when it was really sent.
	sent  []int64
	marks []mark

	loss    result.Loss
	elapsed time.Duration
	octets  int64
	// transactions are all that were answered while time and CPU were counted.
	transactions int64
	rtt          time.Duration // of the first answer
	// retransmits are TCP's since the warm-up.
	retransmits int64
	cpu         [2]time.Duration // [1] is the server's thread's

	// Of the server's thread.
	_        [64]byte
	answered int64
	stalled  bool
	chance   *rand.Rand

	stamps *stamps
	calls  *caller

	// Of an open loop: when requests are due and were sent, the oldest that is waited for, and the newest that was answered.
	due, began   []int64
	head, newest uint64

	// Of a stream: messages so far, the receiver's room, the newest it has seen, and what it has received in the last turn.
	streamed  uint64
	sink      []byte
	heard     uint64
	delivered delivery
	refused   string // why the server's half of the last turn has failed
}

// A mark is how much there was when a block could end.
type mark struct{ took, lost int }

// States of a request. Zero is one that was not sent.
const (
	waiting = 1 + iota
	answered
	lost
)

func newEngine(job Job) *engine {
	e := &engine{
		job: job, base: time.Now(), nonce: rand.Uint32(), rnd: rand.New(rand.NewPCG(job.Seed, 0)),
		client: thread{side: "client"}, server: thread{side: "server"},
	}
	if !e.streams() {
		e.limit = job.requests()
	}
	e.home = -1
	e.active.Store(-1)
	for i, p := range job.Paths {
		e.paths = append(e.paths, &path{Path: p, index: i, listener: -1, chance: rand.New(rand.NewPCG(job.Seed, uint64(i)+1))})
	}
	return e
}

func (e *engine) streams() bool {
	return e.job.Load.Mode == result.Stream || e.job.Load.Mode == result.Maerts
}

func (e *engine) tcp() bool { return e.job.Load.Transport == "tcp" }

// now is the clock of everything: monotonic, since the process began.
func (e *engine) now() time.Duration { return time.Since(e.base) }

// run does the job until it is done or ended is closed.
func (e *engine) run(ended <-chan struct{}, say func(Event) error) error {
	e.open()
	defer e.close()
	for _, p := range e.paths {
		e.allocate(p)
	}
	if e.job.Priority > 0 {
		if err := unix.Mlockall(unix.MCL_CURRENT); err != nil {
			e.client.notes = append(e.client.notes, fmt.Sprintf("memory is not locked: mlockall: %v", err))
		}
	}
	before := readStat()
	client, server := make(chan struct{}), make(chan struct{})
	ready := make(chan struct{})
	// Each of the two ends with its loop; the thread ends with it.
	go func() {
		defer close(server)
		e.server.settle(e.job.CPUs[1], e.job.Priority)
		close(ready)
		e.serve()
		e.server.end()
	}()
	go func() {
		defer close(client)
		defer e.done.Store(true)
		<-ready
		e.client.settle(e.job.CPUs[0], e.job.Priority)
		e.measure()
		e.client.end()
	}()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for running := true; running; {
		select {
		case <-client:
			running = false
		case <-ended:
			e.stop.Store(true)
			return errors.New("engine: who started it has ended")
		case <-ticker.C:
			if err := say(Event{Progress: e.progress()}); err != nil {
				e.stop.Store(true)
				return fmt.Errorf("engine: %w", err)
			}
		}
	}
	<-server
	for _, p := range e.paths {
		p.retransmits += p.retransmitted()
	}
	noise := e.noise(before, readStat())
	return e.report(noise, say)
}

func (e *engine) progress() *Progress {
	p := &Progress{Requests: e.requests.Load()}
	if !e.counting.Load() {
		return p
	}
	if e.limit > 0 {
		p.Fraction = float64(p.Requests) / float64(e.limit*int64(len(e.paths)))
	}
	if d := e.job.Load.Duration; d > 0 {
		p.Fraction = max(p.Fraction, float64(e.now()-time.Duration(e.started.Load()))/float64(d))
	}
	p.Fraction = min(p.Fraction, 1)
	return p
}

// report says what came of each path, and what was refused.
func (e *engine) report(noise result.Noise, say func(Event) error) error {
	for _, t := range []*thread{&e.client, &e.server} {
		for _, n := range t.notes {
			if err := say(Event{Note: n}); err != nil {
				return err
			}
		}
	}
	for _, p := range e.paths {
		if p.failed != "" {
			if err := say(Event{Path: p.Name, Error: p.failed}); err != nil {
				return err
			}
			continue
		}
		for side, c := range []*conn{p.client, p.server} {
			if c == nil || c.errno == 0 {
				continue
			}
			note := fmt.Sprintf("the %s's last error was: %v", []string{"client", "server"}[side], c.errno)
			if err := say(Event{Path: p.Name, Note: note}); err != nil {
				return err
			}
		}
		s, notes, err := e.session(p)
		if err != nil {
			return fmt.Errorf("engine path %s: %w", p.Name, err)
		}
		for _, n := range notes {
			if err := say(Event{Path: p.Name, Note: n}); err != nil {
				return err
			}
		}
		s.Noise = noise
		if err := say(Event{Path: p.Name, Session: s}); err != nil {
			return err
		}
	}
	return nil
}

// open opens the sockets of all paths. A path whose sockets cannot be opened has failed.
func (e *engine) open() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, p := range e.paths {
		if err := e.openPath(p); err != nil {
			p.fail("%v", err)
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
	err := inNetns(p.Server.Netns, func() (err error) {
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
	if p.to = p.Target; !p.to.IsValid() {
		if p.to, err = local(server); err != nil {
			return fmt.Errorf("server: %w", err)
		}
	}
	if e.job.Load.Mode == result.CRR {
		p.client, p.server = newConn(-1, true, answer, size), newConn(-1, true, size, answer)
		if p.calls, err = newCaller(netip.AddrPortFrom(p.Client.Addr, 0), p.to, p.Client.Netns); err != nil {
			return fmt.Errorf("client: %w", err)
		}
		return unix.SetNonblock(p.listener, true)
	}
	err = inNetns(p.Client.Netns, func() error {
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
	}
	if e.job.Segments {
		return p.stampSockets(e.limit)
	}
	return nil
}

func (e *engine) close() {
	for _, p := range e.paths {
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

// measure is the client's thread.
func (e *engine) measure() {
	for _, p := range e.paths {
		if p.failed == "" && !e.stop.Load() {
			e.prime(p)
		}
	}
	if !e.any() {
		return
	}
	switch e.job.Load.Mode {
	case result.RR:
		e.closedLoop(e.exchange)
	case result.CRR:
		e.closedLoop(e.connect)
	case result.Open:
		e.openLoop()
	case result.Stream, result.Maerts:
		e.stream()
	default:
		panic("engine: a mode that Check does not know: " + e.job.Load.Mode)
	}
}

// any reports whether a path has not failed.
func (e *engine) any() bool {
	for _, p := range e.paths {
		if p.failed == "" {
			return true
		}
	}
	return false
}

// count begins to count: what came before was warm-up.
func (e *engine) count() {
	for _, p := range e.paths {
		p.first = p.next
		clear(p.state)
		p.loss, p.elapsed, p.octets, p.transactions = result.Loss{}, 0, 0, 0
		p.cpu[0] = 0
		p.retransmits = -p.retransmitted()
	}
	e.client.used()
	e.nextStop = e.now() + time.Second/2
	e.started.Store(int64(e.now()))
	e.counting.Store(true)
}

// retransmitted is what both ends of the path's connection have sent again since it exists.
func (p *path) retransmitted() int64 {
	n := int64(0)
	for _, c := range []*conn{p.client, p.server} {
		if c == nil || !c.tcp || c.fd < 0 || p.calls != nil {
			continue
		}
		if info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n += int64(info.Total_retrans)
		}
	}
	return n
}

// tries is how often a path is tried before it has failed: neighbours and flows take their time.
const tries = 5

// prime makes the neighbours known, and finds out whether the path works.
func (e *engine) prime(p *path) {
	if e.job.Load.Mode == result.CRR || p.client.tcp {
		return // connecting does
	}
	e.active.Store(int64(p.index))
	wait := max(e.job.Timeout, 200*time.Millisecond)
	for range tries {
		took, ok := e.transact(p, kindPrime, wait)
		if ok || e.stop.Load() {
			p.rtt = took
			e.awaitStamps(p)
			return
		}
	}
	why := ""
	if p.client.errno != 0 {
		why = ": " + p.client.errno.Error()
	}
	p.fail("client: no answer from %v to %d requests%s", p.to, tries, why)
}

// awaitStamps waits until what arrives is stamped: the kernel begins to do so some time after the first socket has asked for it.
func (e *engine) awaitStamps(p *path) {
	if p.stamps == nil {
		return
	}
	for end := e.now() + time.Second; e.now() < end && !p.stamps.seen.Load() && !e.stop.Load(); {
		e.transact(p, kindPrime, e.job.Timeout)
	}
}

// closedLoop calls once for each request, in rounds.
func (e *engine) closedLoop(once func(p *path, counted bool)) {
	order := make([]*path, 0, len(e.paths))
	for _, p := range e.paths {
		if p.failed == "" {
			order = append(order, p)
		}
	}
	for end := e.now() + e.job.Warmup; e.now() < end && !e.stop.Load(); {
		e.round(order, once)
	}
	e.count()
	begun := e.now()
	marked := 0
	for r := 0; r < e.job.Rounds || e.job.Rounds == 0; r++ {
		if e.stop.Load() || e.job.Load.Duration > 0 && e.now()-begun >= e.job.Load.Duration {
			break
		}
		if int64(order[0].next-order[0].first)+int64(e.job.Burst) > e.limit || !e.any() {
			break
		}
		e.round(order, once)
		if marked += e.job.Burst; marked >= blockSize {
			marked = 0
			for _, p := range order {
				p.marks = append(p.marks, mark{len(p.took), int(p.loss.Lost)})
			}
		}
	}
}

// round is a burst of each path in random order.
func (e *engine) round(order []*path, once func(p *path, counted bool)) {
	e.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	counting := e.counting.Load()
	for _, p := range order {
		if p.failed != "" {
			p.next += uint64(e.job.Burst)
			continue
		}
		e.active.Store(int64(p.index))
		begun := e.now()
		for i := range e.job.Burst {
			once(p, counting && (i > 0 || e.job.Burst == 1))
		}
		p.elapsed += e.now() - begun
		p.cpu[0] += e.client.used()
		if counting {
			e.requests.Add(int64(e.job.Burst))
		}
		if e.job.Stop > 0 && counting {
			e.pause()
		}
	}
}

// pause is the fault of a client that stops once a second.
func (e *engine) pause() {
	now := e.now()
	if now < e.nextStop {
		return
	}
	e.nextStop += time.Second
	for e.now()-now < e.job.Stop {
	}
}

// exchange is one request and its answer.
func (e *engine) exchange(p *path, counted bool) {
	seq := p.next
	took, ok := e.transact(p, kindRequest, e.job.Timeout)
	p.note(seq, took, ok, counted)
}

// note notes what came of a request.
func (p *path) note(seq uint64, took time.Duration, ok, counted bool) {
	i := seq - p.first
	if i >= uint64(len(p.state)) {
		return // of the warm-up
	}
	if counted {
		p.loss.Sent++
	}
	if !ok {
		p.loss.Lost++
		p.state[i] = lost
		return
	}
	p.state[i] = answered
	p.transactions++
	if counted {
		p.took = append(p.took, int64(took))
	}
}

// transact sends a request and waits for its answer, not longer than wait.
func (e *engine) transact(p *path, kind uint16, wait time.Duration) (time.Duration, bool) {
	c := p.client
	seq := p.next
	p.next++
	flags := uintptr(unix.MSG_DONTWAIT)
	if !e.job.Busy {
		flags = 0
	}
	begun := e.now()
	for c.written > 0 && c.send(flags) == nothing { // what an earlier request has left
		if e.now()-begun >= wait || e.stop.Load() {
			return 0, false
		}
	}
	putHeader(c.out, seq, e.nonce, uint16(p.index), kind)
	if p.stamps != nil {
		put(p.stamps.send, seq, p.first, realtime())
	}
	for c.send(flags) == nothing {
		if e.now()-begun >= wait || e.stop.Load() {
			return 0, false
		}
	}
	for spins := 1; ; spins++ {
		switch c.receive(flags) {
		case message:
			now := e.now()
			switch got, ok := e.answer(c, p); {
			case !ok:
			case got == seq:
				if p.stamps != nil {
					p.stamps.collect(c.fd, p.first)
				}
				return now - begun, true
			default:
				p.stale(got)
			}
		case closed:
			p.fail("client: the connection has ended: %v", c.errno)
			return 0, false
		default: // nothing
		}
		left := wait - (e.now() - begun)
		if left <= 0 || e.stop.Load() {
			if p.stamps != nil {
				p.stamps.collect(c.fd, p.first)
			}
			return 0, false
		}
		if flags = unix.MSG_DONTWAIT; !e.job.Busy {
			poll(c.fd, unix.POLLIN, left)
		} else {
			yield(spins)
		}
	}
}

// answer returns the sequence number of the answer that c has received, if it is one.
func (e *engine) answer(c *conn, p *path) (uint64, bool) {
	ours := binary.BigEndian.Uint32(c.in[8:]) == e.nonce && binary.BigEndian.Uint16(c.in[12:]) == uint16(p.index) && binary.BigEndian.Uint16(c.in[14:]) == kindAnswer
	return binary.BigEndian.Uint64(c.in), ours
}

// stale notes an answer that nobody waits for any more.
func (p *path) stale(seq uint64) {
	i := seq - p.first
	if i >= uint64(len(p.state)) {
		return // of the warm-up
	}
	switch p.state[i] {
	case lost:
		p.state[i] = answered
		p.loss.Late++
	case answered:
		p.loss.Duplicates++
	}
}

// serve is the server's thread.
func (e *engine) serve() {
	switch {
	case e.streams():
		e.serveStream()
	case e.job.Load.Mode == result.CRR:
		e.serveConnections()
	case e.job.Busy && (e.job.Load.Mode == result.RR || len(e.paths) == 1):
		e.serveActive()
	default:
		e.serveReady()
	}
}

// serveActive polls the path that the client uses.
func (e *engine) serveActive() {
	current := int64(-1)
	for spins := 1; !e.done.Load() && !e.stop.Load(); spins++ {
		i := e.active.Load()
		if i != current {
			e.account(current)
			current = i
		}
		if i >= 0 && e.serveOne(e.paths[i], unix.MSG_DONTWAIT) == message {
			spins = 0
		}
		yield(spins)
	}
	e.account(current)
}

// serveReady answers on all paths.
func (e *engine) serveReady() {
	set, err := newPoller()
	if err != nil {
		e.server.notes = append(e.server.notes, err.Error())
		return
	}
	defer set.close()
	for _, p := range e.paths {
		if p.failed == "" {
			if err := set.add(p.server.fd, p.index); err != nil {
				e.server.notes = append(e.server.notes, err.Error())
				return
			}
		}
	}
	wait := nap
	if e.job.Busy {
		wait = 0
	}
	current := int64(-1)
	for spins := 1; !e.done.Load() && !e.stop.Load(); spins++ {
		n := set.wait(wait)
		if n > 0 {
			spins = 0
		} else if e.job.Busy {
			yield(spins)
		}
		if i := e.active.Load(); i != current {
			e.account(current)
			current = i
		}
		for k := range n {
			p := e.paths[set.events[k].Fd]
			if e.serveOne(p, unix.MSG_DONTWAIT) == closed {
				p.server.close() // which also takes it out of the set
			}
		}
	}
	e.account(current)
}

// account adds what the server's thread has used since the last call to the path at i.
func (e *engine) account(i int64) {
	if d := e.server.used(); i >= 0 && e.counting.Load() {
		e.paths[i].cpu[1] += d
	}
}

// serveOne answers one request, if there is one.
func (e *engine) serveOne(p *path, flags uintptr) int {
	c := p.server
	var what int
	if p.stamps != nil {
		what = p.stamps.receiveFrom(c, e.counting.Load(), p.first)
	} else {
		what = c.receiveFrom(flags)
	}
	if what != message {
		return what
	}
	kind := binary.BigEndian.Uint16(c.in[14:])
	if binary.BigEndian.Uint32(c.in[8:]) != e.nonce || kind != kindRequest && kind != kindPrime {
		return message
	}
	if p.Fault != nil && kind == kindRequest && e.counting.Load() && !e.misbehave(p) {
		return message
	}
	copy(c.out[:14], c.in[:14])
	binary.BigEndian.PutUint16(c.out[14:], kindAnswer)
	if !e.job.Busy && p.calls == nil {
		flags = 0
	}
	for c.sendBack(flags) == nothing && !e.stop.Load() && !e.done.Load() {
	}
	return message
}

// misbehave reports whether there is to be an answer.
func (e *engine) misbehave(p *path) bool {
	f := p.Fault
	if f.Drop > 0 && p.chance.Float64() < f.Drop {
		return false
	}
	wait := f.Delay
	if p.answered++; f.Stall > 0 && !p.stalled && p.answered > f.StallAfter {
		p.stalled = true
		wait += f.Stall
	}
	for begun := e.now(); e.now()-begun < wait; {
	}
	return true
}
