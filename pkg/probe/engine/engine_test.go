package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// parentVerb makes the test's binary the parent of an engine, for TestParentKilled.
const parentVerb = "probe-engine-parent"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case Verb:
			os.Exit(Main(os.Stdin, os.Stdout))
		case parentVerb:
			os.Exit(parent())
		}
	}
	os.Exit(m.Run())
}

// loopback is a path on 127.0.0.1.
func loopback(name string) Path {
	lo := End{Addr: netip.MustParseAddr("127.0.0.1")}
	return Path{Name: name, Client: lo, Server: lo}
}

// run runs a job that is to have a session for each path.
func run(t *testing.T, job Job) map[string]result.Session {
	t.Helper()
	outcomes, err := Run(t.Context(), job, func(e Event) {
		if e.Note != "" {
			t.Logf("%s: %s", e.Path, e.Note)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if o.Error != "" {
			t.Fatalf("path %s: %s", o.Path, o.Error)
		}
	}
	return Sessions(outcomes)
}

func decode(t *testing.T, text string, lost int64) *stats.Distribution {
	t.Helper()
	d, err := stats.Decode(text, lost)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// atLeast returns how many samples of the histogram are d or more.
func atLeast(t *testing.T, text string, d time.Duration) int64 {
	t.Helper()
	h, err := hdrhistogram.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for _, b := range h.Distribution() {
		if b.To >= int64(d) {
			n += b.Count
		}
	}
	return n
}

// Every request of a closed loop is accounted for.
func TestClosedLoop(t *testing.T) {
	for _, c := range []struct {
		mode, transport string
		size, answer    int
	}{
		{result.RR, "udp", MinSize, 0},
		{result.RR, "udp", MaxSize, 0},
		{result.RR, "udp", 64, 4096},
		{result.RR, "tcp", MinSize, 0},
		{result.RR, "tcp", MaxSize, 0},
		{result.RR, "tcp", 4096, 64},
		{result.CRR, "tcp", 64, 0},
		{result.CRR, "tcp", 300, MaxSize},
	} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %s %d %d busy %v", c.transport, c.mode, c.size, c.answer, busy), func(t *testing.T) {
				job := Job{
					Paths:  []Path{loopback("a"), loopback("b"), loopback("c")},
					Load:   result.Load{Mode: c.mode, Transport: c.transport, Size: c.size, Answer: c.answer},
					Rounds: 5, Burst: 10, Timeout: MaxTimeout, Busy: busy, CPUs: [2]int{-1, -1},
				}
				for name, s := range run(t, job) {
					l := decode(t, s.Histogram, s.Loss.Lost).Latency(s.Jitter)
					if s.Loss != (result.Loss{Sent: 45}) || l.Count != 45 || s.Transactions != 50 {
						t.Errorf("path %s: %+v, %d in the histogram, %d transactions, want 45 that count of 50", name, s.Loss, l.Count, s.Transactions)
					}
					if l.Min <= 0 || s.Elapsed < time.Duration(l.Mean*45*0.99) || s.Jitter <= 0 {
						t.Errorf("path %s: at least %d ns, elapsed %v, jitter %v", name, l.Min, s.Elapsed, s.Jitter)
					}
					if s.CPU[0].User+s.CPU[0].System <= 0 || s.CPU[1].User+s.CPU[1].System <= 0 {
						t.Errorf("path %s: CPU time %+v", name, s.CPU)
					}
					if (s.TCP != nil) != (c.transport == "tcp") {
						t.Errorf("path %s: TCP is %+v", name, s.TCP)
					}
				}
			})
		}
	}
}

// The warm-up counts nowhere, and a duration ends a job that has no rounds.
func TestDuration(t *testing.T) {
	job := Job{
		Paths: []Path{loopback("a")},
		Load:  result.Load{Mode: result.RR, Transport: "udp", Size: 64, Duration: 300 * time.Millisecond},
		Burst: 100, Warmup: 200 * time.Millisecond, Timeout: time.Second, CPUs: [2]int{-1, -1},
	}
	s := run(t, job)["a"]
	l := decode(t, s.Histogram, s.Loss.Lost).Latency(0)
	if l.Count == 0 || l.Count+s.Loss.Lost < s.Loss.Sent || s.Transactions > 100*(s.Loss.Sent/99) {
		t.Errorf("%d in the histogram, %d transactions, %+v", l.Count, s.Transactions, s.Loss)
	}
	if s.Noise.Elapsed < 500*time.Millisecond {
		t.Errorf("the session took %v, less than warm-up and duration", s.Noise.Elapsed)
	}
	if n := int(s.Transactions) / (2 * blockSize); len(s.Blocks) < min(n, maxBlocks/2) || len(s.Blocks) > maxBlocks {
		t.Errorf("%d blocks of %d transactions", len(s.Blocks), s.Transactions)
	}
}

// Each request that the server drops is lost, the others are not, and none keeps the client longer than the timeout.
func TestDrop(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		for _, mode := range []string{result.RR, result.Open} {
			t.Run(transport+" "+mode, func(t *testing.T) {
				p := loopback("a")
				p.Fault = &Fault{Drop: 0.3}
				job := Job{
					Paths:  []Path{p, loopback("b")},
					Load:   result.Load{Mode: mode, Transport: transport, Size: 64},
					Rounds: 10, Burst: 10, Timeout: 50 * time.Millisecond, CPUs: [2]int{-1, -1}, Seed: 7,
				}
				sent := int64(90)
				if mode == result.Open {
					job.Load.Rate, sent = 500, 100
				}
				chance, dropped := rand.New(rand.NewPCG(job.Seed, 1)), int64(0)
				for range 100 {
					if chance.Float64() < p.Fault.Drop {
						dropped++
					}
				}
				sessions := run(t, job)
				s := sessions["a"]
				// What is late on a busy machine was not dropped. The last ones may arrive after the end.
				if gone := s.Loss.Lost - s.Loss.Late; s.Loss.Sent != sent || gone < dropped || gone > dropped+2 {
					t.Errorf("%+v, want %d sent and %d lost that are not late", s.Loss, sent, dropped)
				}
				if mode == result.RR && s.Elapsed < time.Duration(dropped)*job.Timeout {
					t.Errorf("elapsed %v, less than %d timeouts", s.Elapsed, dropped)
				}
				if median, ok := decode(t, s.Histogram, s.Loss.Lost).Latency(0).At(50); !ok || median.Lost {
					t.Errorf("median %+v, %v, want one that is not lost", median, ok)
				}
				if p90, ok := decode(t, s.Histogram, s.Loss.Lost).Latency(0).At(90); mode == result.Open && (!ok || !p90.Lost) {
					t.Errorf("90th percentile %+v, %v, want it lost", p90, ok)
				}
				if other := sessions["b"].Loss; other.Lost-other.Late > 2 {
					t.Errorf("the other path: %+v", other)
				}
			})
		}
	}
}

// A server that never answers, once the path has been tried, costs a timeout for each request and no more.
func TestSilence(t *testing.T) {
	p := loopback("a")
	p.Fault = &Fault{Drop: 1}
	job := Job{
		Paths:  []Path{p},
		Load:   result.Load{Mode: result.RR, Transport: "udp", Size: 64},
		Rounds: 10, Burst: 1, Timeout: 10 * time.Millisecond, Busy: true, CPUs: [2]int{-1, -1},
	}
	s := run(t, job)["a"]
	if s.Loss != (result.Loss{Sent: 10, Lost: 10}) || s.Histogram != "" {
		t.Errorf("%+v, histogram %q, want 10 lost and nothing else", s.Loss, s.Histogram)
	}
}

// A server that stalls once delays all requests that are due meanwhile, not only the one that it was about to answer; and so does a client
// that stops. A busy machine only makes stalls longer.
func TestOpenLoopHonesty(t *testing.T) {
	const rate, stall = 2000, 100 * time.Millisecond
	for _, transport := range []string{"udp", "tcp"} {
		for _, who := range []string{"server", "client"} {
			t.Run(transport+" "+who, func(t *testing.T) {
				job := Job{
					Paths: []Path{loopback("a")},
					Load:  result.Load{Mode: result.Open, Transport: transport, Size: 64, Rate: rate, Duration: time.Second},
					Burst: 1, Timeout: MaxTimeout, CPUs: [2]int{-1, -1},
				}
				if who == "server" {
					job.Paths[0].Fault = &Fault{Stall: stall, StallAfter: rate / 2}
				} else {
					job.Stop = stall
				}
				s := run(t, job)["a"]
				if s.Loss.Sent != rate || s.Loss.Lost != 0 {
					t.Errorf("%+v, want %d sent and none lost", s.Loss, rate)
				}
				// Those due in the first half of the stall wait for the second at least: one each 500 µs.
				for _, part := range []time.Duration{stall / 10, stall / 2, stall * 9 / 10} {
					want := int64((stall-part).Seconds()*rate) - 1
					if n := atLeast(t, s.Histogram, part); n < want {
						t.Errorf("%d requests waited %v, want %d", n, part, want)
					}
				}
				l := decode(t, s.Histogram, 0).Latency(0)
				if p, ok := l.At(99); !ok || p.Value < int64(stall*8/10) || l.Max < int64(stall*99/100) {
					t.Errorf("99th percentile %v (%v), max %v, want about %v", time.Duration(p.Value), ok, time.Duration(l.Max), stall)
				}
				sends := decode(t, s.FromSend, 0).Latency(0)
				if sends.Count != l.Count || sends.Mean > l.Mean {
					t.Errorf("from the send: %d, mean %v, from when it was due: %d, mean %v", sends.Count, sends.Mean, l.Count, l.Mean)
				}
			})
		}
	}
}

// The server's fault of one path is that of no other.
func TestDelay(t *testing.T) {
	slow := loopback("slow")
	slow.Fault = &Fault{Delay: 20 * time.Millisecond}
	job := Job{
		Paths:  []Path{loopback("a"), slow},
		Load:   result.Load{Mode: result.RR, Transport: "udp", Size: 64},
		Rounds: 10, Burst: 2, Timeout: MaxTimeout, CPUs: [2]int{-1, -1},
	}
	s := run(t, job)
	if l := decode(t, s["slow"].Histogram, 0).Latency(0); l.Min < int64(slow.Fault.Delay)*99/100 {
		t.Errorf("slow path: at least %v, want %v", time.Duration(l.Min), slow.Fault.Delay)
	}
	if l := decode(t, s["a"].Histogram, 0).Latency(0); l.Min > int64(slow.Fault.Delay)/2 {
		t.Errorf("other path: at least %v", time.Duration(l.Min))
	}
}

// What a stream has sent has arrived, or is lost.
func TestStream(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		for _, mode := range []string{result.Stream, result.Maerts} {
			for _, busy := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s busy %v", transport, mode, busy), func(t *testing.T) {
					job := Job{
						Paths:  []Path{loopback("a"), loopback("b")},
						Load:   result.Load{Mode: mode, Transport: transport, Size: 1400, Duration: 100 * time.Millisecond},
						Rounds: 2, Timeout: 5 * time.Second, Busy: busy, CPUs: [2]int{-1, -1},
					}
					for name, s := range run(t, job) {
						if s.Loss.Sent == 0 || s.Octets != (s.Loss.Sent-s.Loss.Lost+s.Loss.Duplicates)*1400 {
							t.Errorf("path %s: %d octets, %+v", name, s.Octets, s.Loss)
						}
						if transport == "tcp" && s.Loss.Lost != 0 || s.Elapsed <= 0 || s.CPU[0].User+s.CPU[0].System <= 0 || s.CPU[1].User+s.CPU[1].System <= 0 {
							t.Errorf("path %s: elapsed %v, CPU %+v, %+v", name, s.Elapsed, s.CPU, s.Loss)
						}
					}
				})
			}
		}
	}
}

// A stream with a rate sends no faster.
func TestStreamRate(t *testing.T) {
	job := Job{
		Paths:   []Path{loopback("a")},
		Load:    result.Load{Mode: result.Stream, Transport: "udp", Size: 1000, Rate: 1000, Duration: 200 * time.Millisecond},
		Timeout: time.Second, CPUs: [2]int{-1, -1},
	}
	if s := run(t, job)["a"]; s.Loss.Sent < 1 || s.Loss.Sent > 201 || s.Loss.Lost != 0 {
		t.Errorf("%+v, want 200 sent", s.Loss)
	}
}

// wire makes two network namespaces with a veth pair between them, and returns the ends.
func wire(t *testing.T) Path {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var at [2]netns.NsHandle
	for i := range at {
		if at[i], err = netns.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { at[i].Close() })
		if err := netns.Set(home); err != nil {
			panic(err) // the thread is lost
		}
	}
	p := Path{Name: "veth"}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "e0", Namespace: netlink.NsFd(at[0])}, PeerName: "e0", PeerNamespace: netlink.NsFd(at[1]),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	for i, end := range []*End{&p.Client, &p.Server} {
		h, err := netlink.NewHandleAt(at[i])
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		for _, name := range []string{"lo", "e0"} {
			l, err := h.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			if name == "e0" {
				a, _ := netlink.ParseAddr(fmt.Sprintf("10.77.0.%d/24", i+1))
				if err := h.AddrAdd(l, a); err != nil {
					t.Fatal(err)
				}
			}
			if err := h.LinkSetUp(l); err != nil {
				t.Fatal(err)
			}
		}
		*end = End{Netns: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(at[i])), Addr: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", i+1))}
	}
	return p
}

// Sockets are where the path says, of all modes.
func TestNamespaces(t *testing.T) {
	w := wire(t)
	v6 := Path{Name: "v6", Client: End{Addr: netip.IPv6Loopback()}, Server: End{Addr: netip.IPv6Loopback()}}
	v6.Client.Netns, v6.Server.Netns = w.Client.Netns, w.Client.Netns
	for _, l := range []result.Load{
		{Mode: result.RR, Transport: "udp", Size: 64},
		{Mode: result.RR, Transport: "tcp", Size: 64},
		{Mode: result.CRR, Transport: "tcp", Size: 64},
		{Mode: result.Open, Transport: "udp", Size: 64, Rate: 1000},
		{Mode: result.Stream, Transport: "tcp", Size: 1400, Duration: 50 * time.Millisecond},
		{Mode: result.RR, Transport: "udp", Size: 64, Under: 0.3},
		{Mode: result.CRR, Transport: "tcp", Size: 64, Under: 0.3},
	} {
		job := Job{Paths: []Path{w, loopback("lo"), v6}, Load: l, Rounds: 4, Burst: 10, Timeout: MaxTimeout, CPUs: [2]int{-1, -1}}
		for name, s := range run(t, job) {
			if s.Loss.Sent == 0 || s.Loss.Lost != 0 {
				t.Errorf("%v: path %s: %+v", l, name, s.Loss)
			}
			if (s.Background != nil) != (l.Under > 0) {
				t.Errorf("%v: path %s: in the background %+v", l, name, s.Background)
			}
		}
	}
}

// The parts of a way are its whole, on a device that stamps.
func TestSegments(t *testing.T) {
	job := Job{
		Paths:    []Path{wire(t), loopback("lo")},
		Load:     result.Load{Mode: result.RR, Transport: "udp", Size: 64},
		Segments: true, Rounds: 20, Burst: 10, Warmup: 10 * time.Millisecond, Timeout: MaxTimeout, CPUs: [2]int{-1, -1},
	}
	for name, s := range run(t, job) {
		g := s.Segments
		if g == nil || g.Count < 100 || g.Send <= 0 || g.Path <= 0 || g.Receive <= 0 || g.Path99 < g.Path || s.Histogram != "" {
			t.Errorf("path %s: segments %+v, histogram %q", name, g, s.Histogram)
		}
	}
}

// Samples without a stamp are left out, and it is said why.
func TestMissingStamps(t *testing.T) {
	for _, c := range []struct {
		transmit []int64
		want     *result.Segments
		note     string
	}{
		{[]int64{110, 220, 330, 0}, &result.Segments{Count: 3, Send: 20, Path: 2, Receive: 20, Send99: 30, Path99: 3, Receive99: 30}, ""},
		// One is missing, one was before it was sent.
		{
			[]int64{110, 0, 290, 0},
			&result.Segments{Count: 1, Send: 10, Path: 1, Receive: 10, Send99: 10, Path99: 1, Receive99: 10},
			"2 of 3 requests are not in the segments: a timestamp is missing or out of order",
		},
		{make([]int64, 4), nil, "no segments: the client's device does not stamp what it sends"},
	} {
		s := &stamps{send: []int64{100, 200, 300, 0}, transmit: c.transmit, receive: []int64{111, 222, 333, 0}, arrived: []int64{121, 242, 363, 0}}
		if got, note := s.segments(); cmp.Diff(c.want, got) != "" || note != c.note {
			t.Errorf("transmit %v: segments = %+v, %q, want %+v, %q", c.transmit, got, note, c.want, c.note)
		}
	}
}

// The two ways of a round trip are all of it, of each one: what the server does before it has read the clock is of the first, what it does afterwards of
// the second. What has no end, or is out of order, is left out.
func TestOneWay(t *testing.T) {
	s := &stamps{
		begun: []int64{100, 200, 300, 400, 500},
		came:  []int64{130, 225, 0, 399, 520},
		ended: []int64{190, 0, 390, 490, 620},
	}
	if got, want := s.oneWay(), (&result.OneWay{Count: 2, There: 30, Back: 100, There99: 30, Back99: 100}); cmp.Diff(want, got) != "" {
		t.Errorf("oneWay = %+v, want %+v", got, want)
	}
	if got := (&stamps{came: []int64{0}, begun: []int64{0}, ended: []int64{0}}).oneWay(); got != nil {
		t.Errorf("oneWay of nothing = %+v", got)
	}
	const delay = 3 * time.Millisecond
	slow := wire(t)
	slow.Fault = &Fault{Delay: delay}
	job := Job{
		Paths:    []Path{slow, loopback("lo")},
		Load:     result.Load{Mode: result.RR, Transport: "udp", Size: 64},
		Segments: true, Rounds: 5, Burst: 10, Timeout: MaxTimeout, CPUs: [2]int{-1, -1},
	}
	for name, session := range run(t, job) {
		w := session.OneWay
		if w == nil || w.Count != 50 || w.There <= 0 || w.Back <= 0 || w.There99 < w.There || w.Back99 < w.Back {
			t.Errorf("path %s: %+v", name, w)
		} else if name == slow.Name && w.Back < int64(delay) {
			t.Errorf("path %s: %v on the way back, want %v that its server waits", name, time.Duration(w.Back), delay)
		}
	}
}

// A round trip of each path is, to the nanosecond, what its two ways are.
func TestOneWaySum(t *testing.T) {
	job := Job{
		Paths:    []Path{loopback("lo")},
		Load:     result.Load{Mode: result.RR, Transport: "udp", Size: 64},
		Segments: true, Rounds: 20, Burst: 1, Timeout: MaxTimeout, CPUs: [2]int{-1, -1},
	}
	e := newEngine(job)
	if err := e.run(make(chan struct{}), func(Event) error { return nil }); err != nil {
		t.Fatal(err)
	}
	p := e.paths[0]
	if len(p.took) != 20 {
		t.Fatalf("%d round trips, want 20", len(p.took))
	}
	for i, took := range p.took {
		if there, back := p.stamps.came[i]-p.stamps.begun[i], p.stamps.ended[i]-p.stamps.came[i]; there <= 0 || back <= 0 || there+back != took {
			t.Errorf("round trip %d: %d there and %d back are not %d", i, there, back, took)
		}
	}
}

// A path that cannot be measured says why, and does not keep the others.
func TestFailedPaths(t *testing.T) {
	w := wire(t)
	gone := loopback("gone")
	gone.Client.Netns = "/run/netns/no-such-namespace"
	file := loopback("file")
	file.Server.Netns = "/etc/passwd"
	foreign := loopback("foreign")
	foreign.Server.Addr = netip.MustParseAddr("192.0.2.1")
	silent := w
	silent.Name = "silent"
	silent.Target = netip.MustParseAddrPort("10.77.0.99:9")
	want := map[string]string{
		"gone":    "client: open network namespace /run/netns/no-such-namespace: no such file or directory",
		"file":    "server: enter network namespace /etc/passwd: invalid argument",
		"foreign": "server: bind 192.0.2.1:0: cannot assign requested address",
		"silent":  "client: no answer from 10.77.0.99:9 to 5 requests",
	}
	job := Job{
		Paths:  []Path{gone, loopback("good"), file, foreign, silent},
		Load:   result.Load{Mode: result.RR, Transport: "udp", Size: 64},
		Rounds: 5, Burst: 2, Timeout: 200 * time.Millisecond, CPUs: [2]int{-1, -1},
	}
	outcomes, err := Run(t.Context(), job, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if o.Path == "good" {
			if o.Session == nil || o.Session.Loss.Sent != 5 {
				t.Errorf("good path: %+v", o)
			}
			continue
		}
		if why := want[o.Path]; o.Session != nil || !strings.HasPrefix(o.Error, why) {
			t.Errorf("path %s: %q, want %q", o.Path, o.Error, why)
		}
	}
}

// What is refused besides is a note, and the job goes on.
func TestRefusedThread(t *testing.T) {
	job := Job{
		Paths:  []Path{loopback("a")},
		Load:   result.Load{Mode: result.RR, Transport: "udp", Size: 64},
		Rounds: 1, Burst: 2, Timeout: time.Second, CPUs: [2]int{1023, -1},
	}
	var notes []string
	if _, err := Run(t.Context(), job, func(e Event) {
		if e.Note != "" {
			notes = append(notes, e.Note)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"the client's thread is not on CPU 1023: sched_setaffinity: invalid argument"}; cmp.Diff(want, notes) != "" {
		t.Errorf("notes %q, want %q", notes, want)
	}
}

func TestCheck(t *testing.T) {
	good := Job{
		Paths: []Path{loopback("a")}, Load: result.Load{Mode: result.RR, Transport: "udp", Size: 64},
		Rounds: 1, Burst: 1, Timeout: time.Second,
	}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		change func(*Job)
	}{
		{"the number of paths 0 is not from 1 to 64", func(j *Job) { j.Paths = nil }},
		{`path "a": the name is empty or not the only one`, func(j *Job) { j.Paths = append(j.Paths, j.Paths[0]) }},
		{"path a: 127.0.0.1 and ::1 are not two addresses of one family", func(j *Job) { j.Paths[0].Server.Addr = netip.IPv6Loopback() }},
		{"size 15 is not from 16 to 65507", func(j *Job) { j.Load.Size = 15 }},
		{"size 65508 is not from 16 to 65507", func(j *Job) { j.Load.Size = 65508 }},
		{"the answer's size 1 is not from 16 to 65507", func(j *Job) { j.Load.Answer = 1 }},
		{`mode "" is none of rr, open, crr, stream, maerts`, func(j *Job) { j.Load.Mode = "" }},
		{"crr connects: it needs tcp", func(j *Job) { j.Load.Mode = result.CRR }},
		{"rr has no rate", func(j *Job) { j.Load.Rate = 1 }},
		{"an open loop needs a rate", func(j *Job) { j.Load.Mode = result.Open }},
		{"rate 6e+06 of 1 paths is not from 0 to 5000000", func(j *Job) { j.Load.Mode, j.Load.Rate = result.Open, 6e6 }},
		{"neither rounds nor a duration end the job", func(j *Job) { j.Rounds = 0 }},
		{"a stream needs a duration", func(j *Job) { j.Load.Mode = result.Stream }},
		{"the number of requests of all paths 100000000 is not from 1 to 16777216", func(j *Job) { j.Rounds, j.Burst = 1e6, 100 }},
		{"timeout 0s is not from 1ms to 10s", func(j *Job) { j.Timeout = 0 }},
		{"duration 2h0m0s is not from 0s to 1h0m0s", func(j *Job) { j.Load.Duration = 2 * time.Hour }},
		{"segments are those of UDP rr", func(j *Job) { j.Segments, j.Load.Transport = true, "tcp" }},
		{"a stream of 1.5 of what a path carries is not from 0 to 1", func(j *Job) { j.Load.Under = 1.5 }},
		{"a stream of NaN of what a path carries is not from 0 to 1", func(j *Job) { j.Load.Under = math.NaN() }},
		{"open has no stream in the background: paths take turns in closed loops only", func(j *Job) { j.Load.Mode, j.Load.Rate, j.Load.Under = result.Open, 10, 0.3 }},
		{"segments and steps are those of paths that carry nothing else", func(j *Job) { j.Segments, j.Load.Under = true, 0.3 }},
		{"path a: a stream needs a port of its own at the target", func(j *Job) { j.Paths[0].Target, j.Load.Under = netip.MustParseAddrPort("127.0.0.1:9"), 0.3 }},
		{"CPU 1024 is not from -1 to 1023", func(j *Job) { j.StreamCPUs[1] = 1024 }},
		{"priority 100 is not from 0 to 99", func(j *Job) { j.Priority = 100 }},
		{"CPU -2 is not from -1 to 1023", func(j *Job) { j.CPUs[1] = -2 }},
		{"path a: drop 2 is not from 0 to 1", func(j *Job) { j.Paths[0].Fault = &Fault{Drop: 2} }},
	} {
		j := good
		j.Paths = []Path{loopback("a")}
		c.change(&j)
		if err := j.Check(); err == nil || err.Error() != c.want {
			t.Errorf("Check() = %v, want %s", err, c.want)
		}
		if _, err := Start(t.Context(), j); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Start() = %v, want %s", err, c.want)
		}
	}
}

// long is a job that does not end by itself while a test waits.
func long() Job {
	return Job{
		Paths: []Path{loopback("a")},
		Load:  result.Load{Mode: result.RR, Transport: "udp", Size: 64, Duration: 10 * time.Minute},
		Burst: 10, Timeout: time.Second, CPUs: [2]int{-1, -1},
	}
}

// engineOf returns the process that pid has started with Verb.
func engineOf(pid int) (int, bool) {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	all := strings.Fields(string(children))
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		all = append(all, strings.Fields(string(children))...)
	}
	for _, text := range all {
		line, _ := os.ReadFile("/proc/" + text + "/cmdline")
		if strings.Contains(string(line), Verb+"\x00") && !strings.Contains(string(line), parentVerb) {
			child, err := strconv.Atoi(text)
			return child, err == nil
		}
	}
	return 0, false
}

// await waits until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute: not %s", what)
		}
	}
}

// alive reports whether the process runs; a zombie does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	events, err := Start(ctx, long())
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Progress == nil {
		t.Errorf("first event %+v, want progress", e)
	}
	child, ok := engineOf(os.Getpid())
	if !ok {
		t.Fatal("there is no engine")
	}
	cancel()
	for range events {
	}
	if alive(child) {
		t.Errorf("engine %d is alive", child)
	}
}

func TestKilledEngine(t *testing.T) {
	events, err := Start(t.Context(), long())
	if err != nil {
		t.Fatal(err)
	}
	<-events
	child, ok := engineOf(os.Getpid())
	if !ok {
		t.Fatal("there is no engine")
	}
	if err := unix.Kill(child, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var last Event
	for e := range events {
		last = e
	}
	if last.Error != "engine: signal: killed" {
		t.Errorf("last event %+v, want that it was killed", last)
	}
}

// parent starts an engine and says so.
func parent() int {
	events, err := Start(context.Background(), long())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-events
	fmt.Println("started")
	for range events {
	}
	return 0
}

func TestKilledParent(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", parentVerb)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if n, err := out.Read(make([]byte, 16)); n == 0 {
		t.Fatal(err)
	}
	child, ok := engineOf(cmd.Process.Pid)
	if !ok {
		t.Fatal("there is no engine")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	await(t, "without the engine", func() bool { return !alive(child) })
}

// The process ends when its stdin does, for where a death is not signalled: in a container whose init has forked it.
func TestEndOfInput(t *testing.T) {
	line, err := marshal(long())
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(line)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := p.Out.Read(make([]byte, 1024)); n == 0 {
		t.Fatal(err)
	}
	go func() {
		_ = p.In.Close()
	}()
	await(t, "without the engine", func() bool { return !alive(p.Pid()) })
	_ = p.Close()
}

// Main takes no job that Check would not.
func TestMainRefuses(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1) // Main turns collection off for its process
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	bad := long()
	bad.Load.Size = 1
	tooSmall, err := marshal(bad)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ in, out string }{
		{"", ""},
		{"{", ""},
		{"{\n", `{"error":"engine job: unexpected end of JSON input"}` + "\n"},
		{"{}\n", `{"error":"engine job: the number of paths 0 is not from 1 to 64`},
		{string(tooSmall), `{"error":"engine job: size 1 is not from 16 to 65507"}` + "\n"},
	} {
		var out strings.Builder
		if code := Main(strings.NewReader(c.in), &out); code != 1 || !strings.HasPrefix(out.String(), c.out) {
			t.Errorf("Main(%q) = %d, %q, want 1, %q", c.in, code, out.String(), c.out)
		}
	}
}

// The kernel's ancillary data is read within its bounds, whatever is in it.
func FuzzStamp(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Add(append([]byte{64, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, unix.SCM_TIMESTAMPING, 0, 0, 0}, make([]byte, 48)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c control
		n := copy(c.data[:], data)
		c.header.SetControllen(n)
		if at := c.stamp(); n < unix.SizeofCmsghdr+16 && at != (stamp{}) {
			t.Errorf("%d octets have the stamp %+v", n, at)
		}
	})
}

// A message has the kernel's time and the NIC's, and of what was sent the number.
func TestStamp(t *testing.T) {
	append64 := binary.NativeEndian.AppendUint64
	message := func(level, kind uint32, body []byte) []byte {
		b := binary.NativeEndian.AppendUint32(append64(nil, uint64(unix.CmsgLen(len(body)))), level)
		b = append(binary.NativeEndian.AppendUint32(b, kind), body...)
		return append(b, make([]byte, unix.CmsgSpace(len(body))-unix.CmsgLen(len(body)))...)
	}
	times := func(kernel, nic uint64) []byte {
		b := append64(append64(nil, kernel), 1) // seconds and nanoseconds
		b = append64(append64(b, 99), 99)       // the obsolete one
		return message(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, append64(append64(b, nic), 2))
	}
	sent := func(info, id uint32) []byte {
		b := append(binary.NativeEndian.AppendUint32(nil, uint32(unix.ENOMSG)), unix.SO_EE_ORIGIN_TIMESTAMPING, 0, 0, 0)
		b = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, info), id)
		return message(unix.SOL_IP, unix.IP_RECVERR, b)
	}
	const second = int64(time.Second)
	for _, c := range []struct {
		data []byte
		want stamp
	}{
		{times(5, 7), stamp{kernel: 5*second + 1, nic: 7*second + 2}},
		{append(times(5, 7), sent(unix.SCM_TSTAMP_SND, 42)...), stamp{5*second + 1, 7*second + 2, 42}},
		{append(sent(unix.SCM_TSTAMP_SND, 42), times(5, 7)...), stamp{5*second + 1, 7*second + 2, 42}},
		{append(times(5, 7), sent(unix.SCM_TSTAMP_SCHED, 42)...), stamp{}},
	} {
		var k control
		k.header.SetControllen(copy(k.data[:], c.data))
		if got := k.stamp(); got != c.want {
			t.Errorf("stamp of %x = %+v, want %+v", c.data, got, c.want)
		}
	}
}

// The NIC's part of the way is of what it has stamped on both sides.
func TestNICSegment(t *testing.T) {
	s := &stamps{
		send: []int64{100, 200, 300}, transmit: []int64{110, 210, 310}, receive: []int64{150, 250, 350}, arrived: []int64{160, 260, 360},
		out: []int64{7000, 7100, 0}, in: []int64{7030, 7120, 7230},
	}
	g, note := s.segments()
	if note != "" || g == nil || g.NIC != 30 || g.NIC99 != 30 || g.Path != 40 {
		t.Errorf("segments = %+v, %q; want a NIC's segment of 30", g, note)
	}
	s.out = []int64{0, 0, 0}
	if g, _ := s.segments(); g == nil || g.NIC != 0 {
		t.Errorf("segments = %+v, want none of a NIC", g)
	}
}

// A device whose driver does not do what it says it can leaves the kernel's timestamps, and it is said.
func TestNoNICClock(t *testing.T) {
	p := wire(t)
	p.NICClock, p.Client.Device, p.Server.Device = true, "e0", "e0"
	job := Job{
		Paths: []Path{p}, Load: result.Load{Mode: result.RR, Transport: "udp", Size: 64},
		Segments: true, Rounds: 2, Burst: 10, Timeout: MaxTimeout, CPUs: [2]int{-1, -1},
	}
	var notes []string
	outcomes, err := Run(t.Context(), job, func(e Event) { notes = append(notes, e.Note) })
	if err != nil || len(outcomes) != 1 || outcomes[0].Session == nil || outcomes[0].Session.Segments == nil {
		t.Fatalf("%+v, %v", outcomes, err)
	}
	if all := strings.Join(notes, ""); !strings.Contains(all, "timestamps of e0: SIOCSHWTSTAMP: operation not supported") {
		t.Errorf("notes %q", notes)
	}
	p.Client.Device = ""
	job.Paths[0] = p
	if err := job.Check(); err == nil || !strings.Contains(err.Error(), "it has none") {
		t.Errorf("Check of a NIC's timestamps without a device: %v", err)
	}
}

func TestJitter(t *testing.T) {
	// J is 0 + 16/16 = 1, then 1 + (32-1)/16 = 2.9375; their mean.
	if got := jitter([]int64{100, 116, 84}); got != (1+2.9375)/2 {
		t.Errorf("jitter = %v, want %v", got, (1+2.9375)/2)
	}
}

func TestBlocks(t *testing.T) {
	var took []int64
	var marks []mark
	for i := range 4 * maxBlocks {
		for k := range 100 {
			took = append(took, int64(i*1000+k))
		}
		marks = append(marks, mark{took: len(took), lost: 8 * (i + 1)})
	}
	got := blocks(took, marks)
	if len(got) != maxBlocks {
		t.Fatalf("%d blocks, want %d", len(got), maxBlocks)
	}
	// 400 samples and 32 that were lost, 7.4 %.
	if want := [2]int64{2016, result.Lost}; got[0] != want {
		t.Errorf("first block %v, want %v", got[0], want)
	}
	if blocks(took, nil) != nil {
		t.Error("there are blocks without marks")
	}
}
