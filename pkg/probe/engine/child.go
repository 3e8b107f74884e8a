package engine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
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
	e := newEngine(job)
	// It ends with the process.
	go func() {
		defer close(ended)
		if job.Steps {
			e.listen(in)
		}
		_, _ = io.Copy(io.Discard, in) // until there is no other end
	}()
	if err := e.run(ended, func(e Event) error { return out.Encode(e) }); err != nil {
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

	// steps are the paths that are to send a request, and stepped is what has come of it.
	steps   chan int
	stepped chan Event

	active   atomic.Int64 // the index of the path that is used, -1: none
	_        [64]byte
	counting atomic.Bool  // the warm-up is over
	stop     atomic.Bool  // the job is to end early
	done     atomic.Bool  // the client has ended: so does the server
	requests atomic.Int64 // sent and counted
	started  atomic.Int64 // when counting began
	nextStop time.Duration

	// Of the server's thread, for faults: turns of spin in a nanosecond, and what it has spun.
	pace float64
	spun uint64

	netns  int // of the client's thread, if it is one of a path's, which is so for connections only; else -1
	primed atomic.Bool
	turn   turn

	background background

	between handover
	apart   time.Duration // how long it took between the two threads' CPUs and back, 0: not known

	before stat // what others do is looked at from then on
}

// A path is one of the job's while it is measured.
type path struct {
	Path
	index    int
	to       netip.AddrPort // of the client's requests
	client   *conn
	server   *conn
	listener int    // -1: none
	opened   bool   // its sockets are
	failed   string // why it is measured no more; of the client's thread

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
	// resends are those of the path's connection, nil: it has none. Those of connections that are made for a request each are counted: retransmits.
	resends     *resends
	retransmits int64
	rto         time.Duration // tcpi_rto of the last of them
	// timers are of took, what has waited for a retransmission timer, and timer says so of the last answer.
	timers []int64
	timer  bool
	cpu    [2]time.Duration // [1] is the server's thread's

	// Of the server's thread.
	_        [64]byte
	answered int64
	stalled  bool
	resent   int64 // by the server's ends of connections
	chance   *rand.Rand

	stamps  *stamps
	stamped []func() // undo what was set of devices for that
	// unclocked is why there are no stamps of the NIC, though there should be.
	unclocked string
	calls     *caller
	stream    *stream // nil: there is nothing in the background

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
		client: thread{side: "client"}, server: thread{side: "server"}, steps: make(chan int), stepped: make(chan Event),
	}
	if !e.streams() {
		e.limit = job.requests()
	}
	e.netns = -1
	e.active.Store(-1)
	e.background.sender.side, e.background.receiver.side = "stream's sender", "stream's receiver"
	e.background.active.Store(-1)
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
		if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_ONFAULT); err != nil {
			e.client.notes = append(e.client.notes, fmt.Sprintf("memory is not locked: mlockall: %v", err))
		}
	}
	e.slacken()
	e.before = readStat()
	client, server := make(chan struct{}), make(chan struct{})
	ready := make(chan struct{})
	var streams sync.WaitGroup
	if e.job.Load.Under > 0 {
		for side, f := range []func(){e.sendStreams, e.receiveStreams} {
			t := []*thread{&e.background.sender, &e.background.receiver}[side]
			// It ends as the client does, or before.
			streams.Go(func() {
				t.settle(e.job.StreamCPUs[side], 0)
				f()
				t.end()
			})
		}
	}
	// Each of the two ends with its loop; the thread ends with it.
	go func() {
		defer close(server)
		e.server.settle(e.job.CPUs[1], e.job.Priority)
		e.calibrate()
		close(ready)
		if e.distant() {
			e.between.answer(e.now)
		}
		e.serve()
		e.server.end()
	}()
	go func() {
		defer close(client)
		defer e.done.Store(true)
		<-ready
		e.client.settle(e.job.CPUs[0], e.job.Priority)
		if e.distant() {
			e.apart = e.between.ask(e.now)
		}
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
		case ev := <-e.stepped:
			if err := say(ev); err != nil {
				e.stop.Store(true)
				return fmt.Errorf("engine: %w", err)
			}
		case <-ticker.C:
			if err := say(Event{Progress: e.progress()}); err != nil {
				e.stop.Store(true)
				return fmt.Errorf("engine: %w", err)
			}
		}
	}
	<-server
	streams.Wait()
	for _, p := range e.paths {
		for _, r := range p.watched() {
			r.look(e.now())
		}
	}
	noise := e.noise(e.before, readStat())
	return e.report(noise, say)
}

// slack is by how much Go's sysmon may be late.
const slack = tick

// slacken lets sysmon, the thread of Go's runtime that looks a hundred times a second at what runs, look when others would wake up anyway. Each time it
// interrupts a CPU on which it may be measured, and asks what has run for long to let others run: that takes a thread that measures
// to another one and back. There is no other way to be spared: goroutines that are locked to their threads are asked, too.
func (e *engine) slacken() {
	var err error
	for range 100 {
		var tasks []string
		if tasks, err = sleepers(); err != nil || len(tasks) > 0 {
			for _, task := range tasks {
				err = errors.Join(err, os.WriteFile(filepath.Join(task, "timerslack_ns"), []byte(strconv.Itoa(int(slack))), 0))
			}
			break
		}
		<-time.After(time.Millisecond) // it has looked at this very moment
		err = errors.New("no thread sleeps in nanosleep")
	}
	if err != nil {
		e.client.notes = append(e.client.notes, fmt.Sprintf("Go's runtime interrupts what is measured: %v", err))
	}
}

// sleepers are the directories in /proc of the threads that sleep for some time, which only sysmon does.
func sleepers() ([]string, error) {
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return nil, fmt.Errorf("threads: %w", err)
	}
	var found []string
	for _, task := range tasks {
		call, err := os.ReadFile(filepath.Join(task, "syscall"))
		if err != nil {
			if _, gone := os.Stat(task); gone != nil {
				continue // the thread has ended
			}
			if errors.Is(err, os.ErrNotExist) {
				return nil, errors.New("this kernel has no /proc/PID/syscall, which would tell sysmon's thread")
			}
			return nil, fmt.Errorf("threads: %w", err)
		}
		if number, _, _ := strings.Cut(string(call), " "); number == strconv.Itoa(unix.SYS_NANOSLEEP) {
			found = append(found, filepath.Join("/proc", filepath.Base(task)))
		}
	}
	return found, nil
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
	for _, t := range e.threads() {
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

// measure is the client's thread.
func (e *engine) measure() {
	if e.job.Steps {
		e.stepLoop()
		return
	}
	for _, p := range e.paths {
		if p.failed == "" && !e.stop.Load() {
			e.prime(p)
		}
	}
	if e.job.Load.Under > 0 {
		e.maxima()
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

// threads are all that have something to do.
func (e *engine) threads() []*thread {
	if e.job.Load.Under > 0 {
		return []*thread{&e.client, &e.server, &e.background.sender, &e.background.receiver}
	}
	return []*thread{&e.client, &e.server}
}

// watched are the connections of a path that last.
func (p *path) watched() []*resends {
	var all []*resends
	if p.resends != nil {
		all = append(all, p.resends)
	}
	if p.stream != nil {
		all = append(all, p.stream.resends)
	}
	return all
}

// count begins to count: what came before was warm-up.
func (e *engine) count() {
	for _, p := range e.paths {
		p.first = p.next
		clear(p.state)
		p.loss, p.elapsed, p.octets, p.transactions = result.Loss{}, 0, 0, 0
		p.cpu[0] = 0
		p.retransmits, p.timers = 0, p.timers[:0]
		for _, r := range p.watched() {
			*r = *watch(e.now(), r.ends...)
		}
		if p.stream != nil {
			p.stream.octets, p.stream.elapsed = 0, 0
		}
	}
	e.client.used()
	e.nextStop = e.now() + time.Second/2
	e.started.Store(int64(e.now()))
	e.counting.Store(true)
}
