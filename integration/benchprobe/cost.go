package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/child"
	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// burnVerb is the argument of the process that uses what CPU time nobody else wants.
const burnVerb = "probe-burner"

// onCost compares the CPU time that the engine tells of a round trip with what a burner does not get of the CPUs meanwhile: a process with a thread on each CPU that runs when
// nobody else does, and counts. So the burner loses what the kernel does in interrupts, too. What setting up a session takes is in two sessions of different
// lengths, and so not in their difference.
func onCost(ctx context.Context, o options, out io.Writer) (err error) {
	const (
		few, many = 5_000, 45_000 // round trips
		tolerance = 0.10
		tries     = 10
	)
	built, err := build(ctx, []path.Want{{Kind: "metal"}, {Kind: "routed"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	b, err := startBurner()
	if err != nil {
		return err
	}
	defer b.close()
	rnd := rand.New(rand.NewPCG(o.seed, 2))
	fmt.Fprintf(out, "CPU time of a round trip, sleeping, microseconds; %d times %d round trips; ratio with 95 %% interval\n%-10s %10s %10s   %s\n",
		tries, many, "path", "burner", "probe", "ratio")
	var failed []error
	for _, p := range built.Paths {
		var theirs, ours, ratios []float64
		for range tries {
			var stolen [2]time.Duration
			var told time.Duration
			for i, n := range []int{few, many} {
				s, lost, err := b.during(ctx, func() (result.Session, error) { return trips(ctx, o, p, n) })
				if err != nil {
					return fmt.Errorf("path %s: %w", p.Name, err)
				}
				stolen[i] = lost
				if n == many {
					told = (s.CPU[0].User + s.CPU[0].System + s.CPU[1].User + s.CPU[1].System) / time.Duration(s.Transactions)
				}
			}
			burnt := (stolen[1] - stolen[0]) / (many - few)
			if burnt <= 0 {
				continue // somebody has taken more during the shorter one
			}
			theirs, ours = append(theirs, float64(burnt)/1e3), append(ours, float64(told)/1e3)
			ratios = append(ratios, float64(told)/float64(burnt))
		}
		if len(ratios) < tries/2 {
			return fmt.Errorf("path %s: others have taken more of the CPUs than the probe", p.Name)
		}
		ratio, low, high := interval(ratios, rnd)
		verdict := "good"
		if ratio < 1-tolerance || ratio > 1+tolerance {
			verdict = fmt.Sprintf("not within %.0f %%", 100*tolerance)
		}
		if low > 1+tolerance || high < 1-tolerance {
			failed = append(failed, fmt.Errorf("path %s: the ratio is %.3f [%.3f, %.3f], not within %.0f %%", p.Name, ratio, low, high, 100*tolerance))
		}
		fmt.Fprintf(out, "%-10s %10.2f %10.2f   %.3f [%.3f, %.3f] %s\n", p.Name, median(theirs), median(ours), ratio, low, high, verdict)
	}
	return errors.Join(failed...)
}

// trips makes n round trips of UDP on a path, with threads that sleep between them.
func trips(ctx context.Context, o options, p path.Path, n int) (result.Session, error) {
	outcomes, err := engine.Run(ctx, engine.Job{
		Paths: []engine.Path{ends(p)},
		Load:  result.Load{Mode: result.RR, Transport: "udp", Size: size}, Rounds: n / 100, Burst: 100, Timeout: time.Second, Priority: o.priority, CPUs: o.cpus,
	}, nil)
	if err != nil {
		return result.Session{}, err
	}
	if outcomes[0].Error != "" {
		return result.Session{}, errors.New(outcomes[0].Error)
	}
	return *outcomes[0].Session, nil
}

// A burner is a process that uses what is left of all CPUs.
type burner struct {
	p   *child.Process
	out *bufio.Reader
}

func startBurner() (*burner, error) {
	p, err := child.Start(burnVerb, fmt.Sprintf("GOMAXPROCS=%d", runtime.NumCPU()+2), "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	if err != nil {
		return nil, err
	}
	return &burner{p, bufio.NewReader(p.Out)}, nil
}

func (b *burner) close() {
	b.p.Kill()
	_ = b.p.Close() // it was killed
}

// counts are what each CPU has counted so far, and when that was.
func (b *burner) counts() ([]float64, time.Time, error) {
	if _, err := fmt.Fprintln(b.p.In); err != nil {
		return nil, time.Time{}, fmt.Errorf("burner: %w", err)
	}
	line, err := b.out.ReadString('\n')
	at := time.Now()
	if err != nil {
		return nil, at, fmt.Errorf("burner: %w", err)
	}
	var counts []float64
	for w := range strings.FieldsSeq(line) {
		n, err := strconv.ParseFloat(w, 64)
		if err != nil {
			return nil, at, fmt.Errorf("burner: %w", err)
		}
		counts = append(counts, n)
	}
	return counts, at, nil
}

// rates are how much each CPU counts in a nanosecond while nobody else wants it.
func (b *burner) rates(ctx context.Context) ([]float64, error) {
	_, rates, err := b.around(func() error { return sleep(ctx, 500*time.Millisecond) })
	return rates, err
}

// around returns how long f took, and how much each CPU has counted in a nanosecond of it.
func (b *burner) around(f func() error) (time.Duration, []float64, error) {
	from, began, err := b.counts()
	if err == nil {
		err = f()
	}
	if err != nil {
		return 0, nil, err
	}
	to, ended, err := b.counts()
	if err != nil {
		return 0, nil, err
	}
	took := ended.Sub(began)
	for i := range to {
		to[i] = (to[i] - from[i]) / float64(took)
	}
	return took, to, nil
}

// during calls f, and returns the CPU time that the burner did not get meanwhile, of all CPUs.
func (b *burner) during(ctx context.Context, f func() (result.Session, error)) (s result.Session, lost time.Duration, err error) {
	before, err := b.rates(ctx)
	if err != nil {
		return s, 0, err
	}
	took, during, err := b.around(func() (err error) {
		s, err = f()
		return err
	})
	if err != nil {
		return s, 0, err
	}
	after, err := b.rates(ctx)
	if err != nil {
		return s, 0, err
	}
	for i, rate := range during {
		lost += time.Duration(float64(took) * (1 - 2*rate/(before[i]+after[i])))
	}
	return s, lost, nil
}

// burn is the process: it says what has been counted whenever it is asked.
func burn(in io.Reader, out io.Writer) error {
	counts := make([]struct {
		atomic.Int64
		spun uint64
		_    [112]byte // each in cache lines of its own
	}, runtime.NumCPU())
	settled := make(chan error)
	for i := range counts {
		go func() { // until the process ends
			runtime.LockOSThread()
			var set unix.CPUSet
			set.Set(i)
			settled <- errors.Join(unix.SchedSetaffinity(0, &set), unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0))
			for x := uint64(1); ; {
				for range 1000 {
					x ^= x << 13
					x ^= x >> 7
					x ^= x << 17
				}
				counts[i].spun = x // otherwise the compiler could leave it out
				counts[i].Add(1)
			}
		}()
		if err := <-settled; err != nil {
			return err
		}
	}
	asked := bufio.NewScanner(in)
	for asked.Scan() {
		var words []string
		for i := range counts {
			words = append(words, strconv.FormatInt(counts[i].Load(), 10))
		}
		if _, err := fmt.Fprintln(out, strings.Join(words, " ")); err != nil {
			return err
		}
	}
	return asked.Err()
}

// onIsolation measures while this process, in the daemon's place, makes garbage and collects it, and while it does not, in turn. The engine is a process of its own, so
// its tail is to be what it is otherwise; and threads of it that wait are nothing that a collection waits for.
func onIsolation(ctx context.Context, o options, out io.Writer) (err error) {
	const (
		longest = 50 * time.Millisecond
		rounds  = 15
	)
	built, err := build(ctx, []path.Want{{Kind: "metal", Twin: true}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	rnd := rand.New(rand.NewPCG(o.seed, 3))
	var moved, apart []float64
	var collected []time.Duration
	fmt.Fprintf(out, "p99 of sleeping round trips, %d rounds: beside 200 MB/s of garbage and a collection each 100 ms, and without\n", rounds)
	for range rounds {
		var p99 [2]float64
		for _, i := range rnd.Perm(2) {
			ctx, stop := context.WithCancel(ctx)
			done := make(chan []time.Duration, 1)
			if i == 1 {
				go func() { done <- litter(ctx) }() // ends with ctx
			} else {
				done <- nil
			}
			var twins [2]float64
			for k := range twins {
				s, failed := trips(ctx, o, built.Paths[k], 12_000)
				if failed == nil {
					twins[k], failed = tail(s)
				}
				err = errors.Join(err, failed)
			}
			stop()
			collected = append(collected, <-done...)
			if err != nil {
				return err
			}
			p99[i] = (twins[0] + twins[1]) / 2
			if i == 0 {
				apart = append(apart, math.Abs(twins[0]-twins[1]))
			}
		}
		moved = append(moved, p99[1]-p99[0])
	}
	slices.Sort(apart)
	slices.Sort(collected)
	floor := apart[len(apart)*975/1000]
	mid, low, high := shift(moved, rnd)
	last := collected[len(collected)-1]
	fmt.Fprintf(out, "p99 beside garbage: %+.2f us [%+.2f, %+.2f]; identical paths differ by up to %.2f us; %d collections, median %v, the longest %v\n",
		mid, low, high, floor, len(collected), collected[len(collected)/2].Round(time.Microsecond), last.Round(time.Microsecond))
	var failed []error
	if low > floor {
		failed = append(failed, fmt.Errorf("p99 is %.2f us [%.2f, %.2f] more beside garbage, and identical paths differ by %.2f us", mid, low, high, floor))
	}
	if last > longest {
		failed = append(failed, fmt.Errorf("a collection of garbage took %v, more than %v", last, longest))
	}
	return errors.Join(failed...)
}

// tail is p99 in microseconds.
func tail(s result.Session) (float64, error) {
	d, err := stats.Decode(s.Histogram, s.Loss.Lost)
	if err != nil {
		return 0, err
	}
	v, ok := d.At(99)
	if !ok || v == result.Lost {
		return 0, fmt.Errorf("no p99 of %d round trips and %d lost", s.Loss.Sent, s.Loss.Lost)
	}
	return float64(v) / 1e3, nil
}

// litter makes 200 MB of garbage a second and collects it ten times a second, until ctx ends. It returns how long collections took.
func litter(ctx context.Context) (collected []time.Duration) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var kept [32][]byte
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			runtime.KeepAlive(kept)
			return collected
		case <-tick.C:
		}
		for i := range kept {
			kept[i] = make([]byte, 64<<10)
		}
		if n%10 == 0 {
			began := time.Now()
			runtime.GC()
			collected = append(collected, time.Since(began))
		}
	}
}
