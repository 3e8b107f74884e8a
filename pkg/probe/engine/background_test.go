package engine

import (
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// device is what the kernel has counted at an end of a wire: octets and packets that came in.
func device(t *testing.T, end End) (octets, packets int64) {
	t.Helper()
	f, err := os.Open(end.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	l, err := h.LinkByName("e0")
	if err != nil {
		t.Fatal(err)
	}
	return int64(l.Attrs().Statistics.RxBytes), int64(l.Attrs().Statistics.RxPackets)
}

// inside does a job in this process, to be looked into, and returns its last event of each path. Its threads do not give their Ps away, and so that nobody waits for
// that there is no collection of garbage meanwhile, as in a process of the engine's own.
func inside(t *testing.T, job Job, each func(*engine, Event)) (*engine, map[string]Event) {
	t.Helper()
	before := runtime.GOMAXPROCS(8)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	percent := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	if err := job.Check(); err != nil {
		t.Fatal(err)
	}
	e := newEngine(job)
	found := map[string]Event{}
	err := e.run(make(chan struct{}), func(ev Event) error {
		if ev.Session != nil || ev.Error != "" {
			found[ev.Path] = ev
		}
		if each != nil {
			each(e, ev)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, found
}

// anyCPU is of a job.
var anyCPU = [2]int{-1, -1}

// Beside round trips of each path flows a stream, whose octets are those that the kernel has counted at the path's device, and at what it was paced to.
func TestBackground(t *testing.T) {
	for _, c := range []struct {
		load result.Load
		busy bool
	}{
		{result.Load{Mode: result.RR, Transport: "udp", Size: 64, Under: 0.2}, false},
		{result.Load{Mode: result.RR, Transport: "tcp", Size: 64, Under: 0.2}, false},
		{result.Load{Mode: result.RR, Transport: "udp", Size: 64, Under: 0.2}, true},
	} {
		t.Run(c.load.String(), func(t *testing.T) {
			p := wire(t)
			e, found := inside(t, Job{
				Paths: []Path{p, loopback("lo")}, Load: c.load, Rounds: 3, Burst: 100, Warmup: 10 * time.Millisecond, Timeout: MaxTimeout,
				Busy: c.busy, CPUs: anyCPU, StreamCPUs: anyCPU,
			}, nil)
			sessions := map[string]*result.Session{}
			for name, ev := range found {
				if sessions[name] = ev.Session; ev.Error != "" {
					t.Fatalf("path %s: %s", name, ev.Error)
				}
			}
			for _, m := range e.paths {
				s, b := m.stream, sessions[m.Name].Background
				t.Logf("%s: %+v, %d octets received in all, %+v", m.Name, b, s.received.Load(), sessions[m.Name].Noise)
				if b == nil || b.Maximum <= 0 || b.Rate <= 0 {
					t.Fatalf("path %s: %+v", m.Name, b)
				}
				if want := int64(math.Round(float64(b.Maximum) * c.load.Under)); s.pace.Load() != want {
					t.Errorf("path %s: paced to %d, want %d", m.Name, s.pace.Load(), want)
				}
				// The kernel has as much as was sent at most, and at least what was read.
				if s.octets > s.sent.Load() || s.received.Load() > s.sent.Load() {
					t.Errorf("path %s: %d octets beside round trips, %d received, %d sent", m.Name, s.octets, s.received.Load(), s.sent.Load())
				}
				if l := decode(t, sessions[m.Name].Histogram, 0).Latency(0); l.Count != 3*99 || sessions[m.Name].Loss.Lost > 0 {
					t.Errorf("path %s: %d round trips, %+v", m.Name, l.Count, sessions[m.Name].Loss)
				}
				if sessions[m.Name].CPU != [2]result.CPU{} {
					t.Errorf("path %s: CPU time %+v is of the stream, too", m.Name, sessions[m.Name].CPU)
				}
			}
			// A packet is of 64 KB at most, with headers of some 66 octets, or with timestamps of TCP some more. Others are round trips, and acknowledgements.
			received, sent := e.paths[0].stream.received.Load(), e.paths[0].stream.sent.Load()
			octets, packets := device(t, p.Server)
			if octets < received || octets > sent+sent/100+packets*300 {
				t.Errorf("the device has received %d octets in %d packets, the stream %d of %d that were sent", octets, packets, received, sent)
			}
		})
	}
}

// In no time is more sent than is due in it, but for a send and what a sender may make up for that was late; and one that is not late sends what is due.
func TestPace(t *testing.T) {
	const seed = 3
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for _, late := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond} {
		pace := int64(1) << (10 + rnd.IntN(25))
		var (
			p    pacer
			now  time.Duration
			sent int64
			at   []time.Duration
			sum  []int64
		)
		for range 3000 {
			if left := p.left(now); left > 0 {
				now += left
				if late > 0 && rnd.IntN(10) == 0 {
					now += time.Duration(rnd.Int64N(int64(late)))
				}
				continue
			}
			n := int64(sendSize(pace))
			p.sent(n, pace)
			sent += n
			at, sum = append(at, now), append(sum, sent)
		}
		for range 3000 {
			a := rnd.IntN(len(at))
			b := a + rnd.IntN(len(at)-a)
			got, due := sum[b]-sum[a], float64(pace)*(at[b]-at[a]).Seconds()
			if float64(got) > due+float64(pace)*catchUp.Seconds()+streamSize {
				t.Fatalf("late up to %v, pace %d: %d octets in %v", late, pace, got, at[b]-at[a])
			}
			if late == 0 && math.Abs(float64(got)-due) > streamSize {
				t.Fatalf("never late, pace %d: %d octets in %v, want %.0f", pace, got, at[b]-at[a], due)
			}
		}
	}
	for pace, want := range map[int64]int{1: leastSend, 1e6: leastSend, 1e8: 1e4, 1e10: streamSize} {
		if got := sendSize(pace); got != want {
			t.Errorf("at %d octets a second %d are sent at once, want %d", pace, got, want)
		}
	}
}

// A path whose stream ends has failed, and does not keep the others.
func TestBrokenStream(t *testing.T) {
	_, found := inside(t, Job{
		Paths: []Path{loopback("a"), loopback("b")}, Load: result.Load{Mode: result.RR, Transport: "udp", Size: 64, Under: 0.1, Duration: 2 * time.Second},
		Burst: 10, Timeout: MaxTimeout, CPUs: anyCPU, StreamCPUs: anyCPU,
	}, func(e *engine, ev Event) {
		if ev.Progress != nil && e.counting.Load() {
			_ = unix.Shutdown(e.paths[0].stream.in, unix.SHUT_RDWR) // once more does no harm
		}
	})
	if a := found["a"]; a.Session != nil || !strings.HasPrefix(a.Error, "stream: the connection has ended: ") {
		t.Errorf("path a: %+v, want that its stream has ended", a)
	}
	if b := found["b"].Session; b == nil || b.Loss.Sent == 0 || b.Background.Rate == 0 {
		t.Errorf("path b: %+v", found["b"])
	}
}
