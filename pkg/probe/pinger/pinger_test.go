package pinger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Verb {
		os.Exit(Main(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// A ground is some namespaces on one bridge, which is in one more.
type ground struct {
	t    *testing.T
	name string
	ends []End // of IPv4
	six  []End
}

func (g *ground) netns(i int) string { return fmt.Sprintf("%s-%d", g.name, i) }
func (g *ground) bridge() string     { return g.name + "-br" }
func ip(args string) ([]byte, error) {
	return exec.Command("ip", strings.Fields(args)...).CombinedOutput()
}

func (g *ground) ip(format string, args ...any) {
	g.t.Helper()
	command := fmt.Sprintf(format, args...)
	if out, err := ip(command); err != nil {
		g.t.Fatalf("ip %s: %v: %s", command, err, out)
	}
}

var grounds int

func newGround(t *testing.T, n int) *ground {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	grounds++
	g := &ground{t: t, name: fmt.Sprintf("opng%d-%d", os.Getpid(), grounds)}
	t.Cleanup(func() {
		for i := range n {
			_, _ = ip("netns del " + g.netns(i)) // the test may have done it
		}
		if out, err := ip("netns del " + g.bridge()); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	g.ip("netns add %s", g.bridge())
	g.ip("-n %s link add br0 type bridge", g.bridge())
	g.ip("-n %s link set br0 up", g.bridge())
	for i := range n {
		g.add(i)
		e := End{Netns: "/run/netns/" + g.netns(i), Device: "eth0"}
		e.Addr = netip.AddrFrom4([4]byte{10, 88, byte(i >> 8), byte(i)}).Next()
		g.ends = append(g.ends, e)
		e.Addr = netip.MustParseAddr(fmt.Sprintf("fd88::%x", i+1))
		g.six = append(g.six, e)
	}
	return g
}

// add makes namespace i.
func (g *ground) add(i int) {
	g.t.Helper()
	ns := g.netns(i)
	g.ip("netns add %s", ns)
	g.ip("-n %s link add v%d type veth peer name eth0 netns %s", g.bridge(), i, ns)
	g.ip("-n %s link set v%d master br0 up", g.bridge(), i)
	g.ip("-n %s link set eth0 up", ns)
	g.ip("-n %s addr add %v/16 dev eth0", ns, netip.AddrFrom4([4]byte{10, 88, byte(i >> 8), byte(i)}).Next())
	g.ip("-n %s addr add fd88::%x/64 dev eth0 nodad", ns, i+1)
}

// A log is what a process has reported.
type log struct {
	mu      sync.Mutex
	pairs   map[uint64]PairReport
	answers map[uint64]AnswerReport
	running context.Context // until the process has ended
	changed chan struct{}
}

func (l *log) add(r Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range r.Pairs {
		old := l.pairs[p.ID]
		old.Sent += p.Sent
		old.Answered += p.Answered
		old.Lost += p.Lost
		old.Late += p.Late
		old.Missed += p.Missed
		old.Held += p.Held
		old.Took = append(old.Took, p.Took...)
		old.ID, old.Error = p.ID, p.Error
		l.pairs[p.ID] = old
	}
	for _, a := range r.Answers {
		old := l.answers[a.ID]
		old.Answered += a.Answered
		old.Refused += a.Refused
		old.ID, old.Error = a.ID, a.Error
		l.answers[a.ID] = old
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// await waits until something is so.
func (l *log) await(t *testing.T, what string, so func(pairs map[uint64]PairReport, answers map[uint64]AnswerReport) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(l.running, time.Minute)
	defer cancel()
	for {
		l.mu.Lock()
		ok, changed := so(l.pairs, l.answers), l.changed
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Fatalf("never %s: %+v %+v", what, l.pairs, l.answers)
		}
	}
}

// run runs a process until the test ends.
func run(t *testing.T, plan Plan) (*log, chan<- Plan) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &log{running: ctx, pairs: map[uint64]PairReport{}, answers: map[uint64]AnswerReport{}, changed: make(chan struct{})}
	plans, ended := make(chan Plan, 1), make(chan error)
	go func() {
		err := Run(ctx, plans, l.add)
		cancel()
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	plans <- plan
	return l, plans
}

func quick() Plan {
	return Plan{Interval: MinInterval, Burst: 2, Size: 64, Timeout: time.Second, Port: 8629}
}

func TestPairs(t *testing.T) {
	g := newGround(t, 3)
	plan := quick()
	plan.Pairs = []Pair{
		{1, g.ends[0], g.ends[1].Addr},
		{2, g.ends[1], g.ends[0].Addr},
		{3, g.ends[0], g.ends[2].Addr},
		{4, g.six[0], g.six[2].Addr},
		{5, g.six[2], g.six[1].Addr},
	}
	plan.Answers = []Answer{
		{1, g.ends[0], []netip.Addr{g.ends[1].Addr}},
		{2, g.ends[1], []netip.Addr{g.ends[0].Addr}},
		{3, g.ends[2], []netip.Addr{g.ends[0].Addr}},
		{4, g.six[2], []netip.Addr{g.six[0].Addr}},
		{5, g.six[1], []netip.Addr{g.six[2].Addr}},
	}
	l, _ := run(t, plan)
	l.await(t, "measured", func(pairs map[uint64]PairReport, answers map[uint64]AnswerReport) bool {
		for id := uint64(1); id <= 5; id++ {
			if len(pairs[id].Took) < 20 || answers[id].Answered < 20 {
				return false
			}
		}
		return true
	})
	for id, p := range l.pairs {
		if p.Error != "" || p.Sent < 2*uint64(len(p.Took)) {
			t.Errorf("pair %d: %+v", id, p)
		}
		t.Logf("pair %d: %+v", id, p)
	}
}

// in calls f in a namespace of the ground.
func (g *ground) in(i int, f func() error) {
	g.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := engine.InNetns(g.ends[i].Netns, f); err != nil {
		g.t.Fatal(err)
	}
}

// socket is one at an end, on a port.
func (g *ground) socket(i int, port uint16) *net.UDPConn {
	g.t.Helper()
	var c *net.UDPConn
	g.in(i, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(g.ends[i].Addr, port)))
		return err
	})
	g.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Who is not the other end of a pair gets nothing, whatever it sends; who has its address and port, but not its token, a challenge at most.
func TestStrangers(t *testing.T) {
	g := newGround(t, 3)
	plan := quick()
	plan.Answers = []Answer{{1, g.ends[0], []netip.Addr{g.ends[1].Addr}}}
	l, _ := run(t, plan)
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(g.ends[0].Addr, plan.Port))
	guest, elsewhere := g.socket(1, plan.Port+1), g.socket(1, 0)
	stranger, answering := g.socket(2, plan.Port+1), g.socket(1, plan.Port)
	send := func(c *net.UDPConn, m message, size int) {
		t.Helper()
		b := make([]byte, size)
		m.put(b)
		if _, err := c.WriteTo(b, to); err != nil {
			t.Fatal(err)
		}
	}
	receive := func() (message, int) {
		t.Helper()
		b := make([]byte, 2000)
		if err := guest.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := guest.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		m, ok := parse(b[:n])
		if !ok {
			t.Fatalf("%x", b[:n])
		}
		return m, n
	}
	// The socket is there when the first is answered.
	first := message{kind: request, nonce: 1, seq: 1}
	var got message
	for got.kind == 0 {
		send(guest, first, plan.Size)
		_ = guest.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		b := make([]byte, 2000)
		if n, err := guest.Read(b); err == nil {
			got, _ = parse(b[:n])
		}
	}
	if got.kind != challenge || got.token == 0 {
		t.Fatalf("the first answer is %+v", got)
	}
	token := got.token
	for seq := uint64(100); seq < 120; seq++ {
		send(guest, message{kind: request, nonce: 1, seq: seq, token: token + 1}, plan.Size) // a challenge has just been
		send(guest, message{kind: answer, nonce: 1, seq: seq, token: token}, plan.Size)
		send(guest, message{kind: request, nonce: 1, seq: seq, token: token}, plan.Size+1)
		send(guest, message{kind: request, nonce: 1, seq: seq, token: token}, MaxSize)
		send(guest, message{kind: request, nonce: 1, seq: seq, token: token}, MinSize)
		for _, c := range []*net.UDPConn{elsewhere, stranger, answering} {
			send(c, message{kind: request, nonce: 1, seq: seq, token: token}, plan.Size)
		}
	}
	// Messages are taken in order, so this is answered after all that.
	send(guest, message{kind: request, nonce: 7, seq: 8, token: token}, plan.Size)
	challenges := 0
	for {
		m, n := receive()
		if m.kind == challenge && n == plan.Size {
			challenges++ // if the machine has taken more than a second for it
			continue
		}
		if m.kind != answer || m.nonce != 7 || m.seq != 8 || m.token == token || n != plan.Size {
			t.Errorf("got %+v of %d octets", m, n)
		}
		break
	}
	for _, c := range []*net.UDPConn{elsewhere, stranger, answering} {
		_ = c.SetReadDeadline(time.Now())
		if n, err := c.Read(make([]byte, 2000)); err == nil {
			t.Errorf("%v got %d octets", c.LocalAddr(), n)
		}
	}
	l.await(t, "counted", func(_ map[uint64]PairReport, answers map[uint64]AnswerReport) bool {
		return answers[1].Refused+uint64(challenges) >= 20*8
	})
	// A flood has the agreed answers, twice, and what the time since has brought.
	begun := time.Now()
	for seq := range uint64(2000) {
		send(guest, message{kind: request, nonce: 9, seq: seq, token: token}, plan.Size)
	}
	answers := 0
	for {
		_ = guest.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := guest.Read(make([]byte, 2000)); err != nil {
			break
		}
		answers++
	}
	if most := 2*plan.Burst + int(time.Since(begun)/plan.Interval+1)*2*plan.Burst; answers > most || answers < 1 {
		t.Errorf("%d answers to a flood, want from 1 to %d", answers, most)
	}
}

// What others send to who asks takes no room from answers, however much it is and however long they take.
func TestFlood(t *testing.T) {
	g := newGround(t, 3)
	plan := quick()
	plan.Interval, plan.Timeout, plan.Burst = time.Second, 5*time.Second, 1 // nobody looks what has come for a second
	plan.Pairs = []Pair{{1, g.ends[0], g.ends[1].Addr}}
	slow, other := g.socket(1, plan.Port), g.socket(2, plan.Port)
	var talking sync.WaitGroup
	talking.Go(func() { // until its socket is closed
		b := make([]byte, plan.Size)
		for {
			n, from, err := slow.ReadFrom(b)
			if err != nil {
				return
			}
			time.Sleep(200 * time.Millisecond) // for others to send
			if m, ok := parse(b[:n]); ok {
				message{kind: answer, nonce: m.nonce, seq: m.seq}.put(b[:n])
				_, _ = slow.WriteTo(b[:n], from) // if it is lost that is seen
			}
		}
	})
	sent := 0
	talking.Go(func() {
		b, to := make([]byte, plan.Size), net.UDPAddrFromAddrPort(netip.AddrPortFrom(g.ends[0].Addr, plan.Port+1))
		for {
			message{kind: answer, nonce: rand.Uint64(), seq: uint64(sent)}.put(b)
			if _, err := other.WriteTo(b, to); errors.Is(err, net.ErrClosed) {
				return
			}
			sent++
		}
	})
	l, _ := run(t, plan)
	l.await(t, "measured", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool { return len(pairs[1].Took) >= 5 })
	_, _ = other.Close(), slow.Close()
	talking.Wait()
	t.Logf("%d datagrams of others", sent)
	if p := l.pairs[1]; p.Lost > 0 || p.Late > 0 {
		t.Errorf("%+v", p.Counts)
	}
}

// What is not answered is lost, in time, and all that was sent is accounted for; what comes too late is said.
func TestLoss(t *testing.T) {
	g := newGround(t, 2)
	plan := quick()
	plan.Timeout = 50 * time.Millisecond
	plan.Pairs = []Pair{{1, g.ends[0], g.ends[1].Addr}, {2, g.ends[0], netip.MustParseAddr("10.99.0.1")}}
	l, _ := run(t, plan)
	l.await(t, "lost", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool {
		return pairs[1].Lost >= 20 && pairs[2].Lost >= 20
	})
	for id, p := range l.pairs {
		if waits := p.Sent - p.Lost; p.Answered+p.Late > 0 || len(p.Took) > 0 || p.Sent < p.Lost || waits > uint64(plan.Burst) {
			t.Errorf("pair %d: %+v", id, p)
		}
	}
	if p := l.pairs[2]; p.Error != "network is unreachable" && p.Error != "no route to host" && p.Error != "" {
		t.Errorf("what cannot be routed: %+v", p)
	}

	// Somebody answers late: with the token of a challenge, and that late, too.
	c := g.socket(1, plan.Port)
	ended := make(chan error)
	go func() {
		b := make([]byte, plan.Size)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				ended <- nil
				return
			}
			m, ok := parse(b[:n])
			if !ok || m.kind != request || n != plan.Size {
				ended <- fmt.Errorf("got %x", b[:n])
				return
			}
			time.Sleep(2 * plan.Timeout)
			message{kind: answer, nonce: m.nonce, seq: m.seq}.put(b)
			if _, err := c.WriteTo(b, from); err != nil {
				ended <- nil // the test is over
				return
			}
		}
	}()
	l.await(t, "late", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool { return pairs[1].Late >= 3 })
	_ = c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// While the other end stands still, requests go on: each that is due meanwhile has what was left of the stall. While the sender does, what was
// due is counted as late or missed.
func TestStalls(t *testing.T) {
	g := newGround(t, 2)
	plan := quick()
	plan.Burst = 1
	sends, answers := plan, plan
	sends.Pairs = []Pair{{1, g.ends[0], g.ends[1].Addr}}
	answers.Answers = []Answer{{1, g.ends[1], []netip.Addr{g.ends[0].Addr}}}
	run(t, answers)
	answering := children(t, 1)
	l, _ := run(t, sends)
	sending := slices.DeleteFunc(children(t, 2), func(pid int) bool { return pid == answering[0] })
	l.await(t, "measured", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool { return len(pairs[1].Took) >= 10 })

	const stall = 700 * time.Millisecond
	halt := func(pid int, d time.Duration) {
		t.Helper()
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(d) // that is what is tested
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	l.mu.Lock()
	n, lost := len(l.pairs[1].Took), l.pairs[1].Lost
	l.mu.Unlock()
	halt(answering[0], stall)
	l.await(t, "measured after the stall", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool {
		return len(pairs[1].Took) >= n+25 || pairs[1].Lost > lost+20
	})
	slow := 0
	for _, took := range l.pairs[1].Took[n:] {
		if took > int64(plan.Interval/2) {
			slow++
		}
	}
	// Seven or so are due in it. The last of them waits less than half an interval.
	if got := slow + int(l.pairs[1].Lost-lost); got < int(stall/plan.Interval)-2 {
		t.Errorf("of a stall of %v %d requests tell, want %d or so: %v", stall, got, stall/plan.Interval, l.pairs[1].Took[n:])
	}

	was := l.pairs[1].Counts
	const long = 2 * time.Second
	halt(sending[0], long)
	l.await(t, "said to have been held up", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool {
		p := pairs[1]
		return p.Missed+p.Held >= was.Missed+was.Held+uint64(long/plan.Interval)-2
	})
}

// children waits until this process has started so many, and returns their numbers.
func children(t *testing.T, n int) []int {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		var all []int
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			text, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children") // the thread may have ended
			for word := range strings.FieldsSeq(string(text)) {
				pid, _ := strconv.Atoi(word) // it is one
				if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(line), Verb) {
					all = append(all, pid)
				}
			}
		}
		if len(all) == n {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %v, want %d", all, n)
		}
	}
}

// A namespace that loses its name is let go, although its pair is still wanted: nothing of it is left. When there is one of that name again it is
// measured.
func TestNamespaceEnds(t *testing.T) {
	g := newGround(t, 3)
	plan := quick()
	plan.Pairs = []Pair{{1, g.ends[0], g.ends[1].Addr}, {2, g.ends[0], g.ends[2].Addr}, {3, g.ends[1], g.ends[2].Addr}}
	plan.Answers = []Answer{{1, g.ends[1], []netip.Addr{g.ends[0].Addr}}, {2, g.ends[2], []netip.Addr{g.ends[0].Addr, g.ends[1].Addr}}}
	l, plans := run(t, plan)
	l.await(t, "measured", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool {
		return len(pairs[1].Took) > 0 && len(pairs[2].Took) > 0 && len(pairs[3].Took) > 0
	})
	g.ip("netns del %s", g.netns(1))
	// The kernel removes the other end of the pair when nothing holds the namespace any more.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := ip("-n " + g.bridge() + " link show v1"); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the namespace is kept")
		}
	}
	l.await(t, "said", func(pairs map[uint64]PairReport, answers map[uint64]AnswerReport) bool {
		return strings.Contains(pairs[3].Error, "no such file") && strings.Contains(answers[1].Error, "no such file")
	})
	l.mu.Lock()
	before := l.pairs
	l.mu.Unlock()
	n := len(before[2].Took)
	l.await(t, "measured on", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool { return len(pairs[2].Took) > n+10 })

	g.add(1)
	plans <- plan // as the daemon does when a port comes; otherwise it is tried again every few seconds
	took := len(l.pairs[1].Took)
	l.await(t, "measured again", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool {
		return len(pairs[1].Took) > took+5 && pairs[3].Error == ""
	})
}

// Pairs come and go; those that stay lose nothing by it. Sockets of those that are gone are closed.
func TestPlans(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const n = 5
	g := newGround(t, n)
	all := quick()
	all.Burst, all.Timeout = 1, MaxTimeout
	for i := range uint64(n * n) {
		from, to := i/n, i%n
		if from != to {
			all.Pairs = append(all.Pairs, Pair{i + 1, g.ends[from], g.ends[to].Addr})
		}
	}
	var everybody []netip.Addr
	for _, e := range g.ends {
		everybody = append(everybody, e.Addr)
	}
	for i, e := range g.ends {
		all.Answers = append(all.Answers, Answer{uint64(i + 1), e, everybody})
	}
	only := func(p Plan) Plan { // pairs that are there always, and some of the others
		q := p
		q.Pairs = nil
		for i, w := range p.Pairs {
			if i < 2 || r.IntN(2) == 0 {
				q.Pairs = append(q.Pairs, w)
			}
		}
		return q
	}
	l, plans := run(t, only(all))
	l.await(t, "measured", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool {
		return len(pairs[all.Pairs[0].ID].Took) > 5
	})
	for range 100 {
		plans <- only(all)
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
	}
	plans <- all
	enough := len(l.pairs[all.Pairs[0].ID].Took) + 20
	l.await(t, "measured at the end", func(pairs map[uint64]PairReport, _ map[uint64]AnswerReport) bool {
		return !slices.ContainsFunc(all.Pairs, func(w Pair) bool { return len(pairs[w.ID].Took) == 0 || pairs[w.ID].Error != "" }) &&
			len(pairs[all.Pairs[0].ID].Took) > enough
	})
	for _, w := range all.Pairs[:2] {
		if p := l.pairs[w.ID]; p.Lost > 0 || p.Sent-p.Answered > 5 {
			t.Errorf("a pair that stayed: %+v", p.Counts)
		}
	}
	none := all
	none.Pairs, none.Answers = nil, nil
	plans <- none
	pid := children(t, 1)[0]
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		sockets := 0
		for _, fd := range fds {
			if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); strings.HasPrefix(to, "socket:") {
				sockets++
			}
		}
		if sockets == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sockets are left", sockets)
		}
	}
}

// What is no plan ends the process, and says why.
func TestMainRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"{}\n":          "interval 0s",
		"{":             "unexpected end",
		`{"x":1` + "\n": "unexpected end",
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if code := obey(strings.NewReader(in), w); code != 1 {
			t.Errorf("%q: code %d", in, code)
		}
		_ = w.Close()
		said, _ := io.ReadAll(r)
		if !strings.Contains(string(said), want) {
			t.Errorf("%q: %s, want %s", in, said, want)
		}
	}
}

// A plan that cannot be followed is an error of who starts the process.
func TestRunRefuses(t *testing.T) {
	plans := make(chan Plan, 1)
	plans <- Plan{}
	if err := Run(t.Context(), plans, func(Report) {}); err == nil || !strings.Contains(err.Error(), "interval 0s") {
		t.Error(err)
	}
}
