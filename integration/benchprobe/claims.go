package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// onTwins compares four identical paths: what it calls different is wrong.
func onTwins(ctx context.Context, o options, out io.Writer) error {
	const each = 10
	c := campaign{options: o, sessions: each, wants: []path.Want{
		{Kind: "metal", Name: "a", Twin: true}, {Kind: "metal", Name: "b", Twin: true},
	}}
	fmt.Fprintf(out, "four identical paths, %d campaigns of %d sessions of %v each\n", o.campaigns, each, o.duration)
	counts := map[string]int{}
	naive, pairs, verdicts := 0, 0, 0
	for i := range o.campaigns {
		run, err := c.run(ctx, o.seed+uint64(i)*1000)
		if err != nil {
			return err
		}
		for _, name := range []string{"a-twin", "b", "b-twin"} {
			p50, p99 := effect(run, name)
			for _, e := range []result.Effect{p50, p99} {
				counts[e.Verdict]++
				verdicts++
			}
			if p50.Verdict == result.Different || p99.Verdict == result.Different {
				fmt.Fprintf(out, "campaign %d, %s: p50 %s; p99 %s\n", i+1, name, say(p50), say(p99))
			}
			n, of, err := naively(run, name)
			if err != nil {
				return err
			}
			naive, pairs = naive+n, pairs+of
		}
	}
	part := float64(counts[result.Different]) / float64(verdicts)
	fmt.Fprintf(out, "of %d verdicts: %d different (%.0f %%), %d equivalent, %d undecided, %d none\n", verdicts, counts[result.Different], 100*part,
		counts[result.Equivalent], counts[result.Undecided], counts[result.NoVerdict])
	fmt.Fprintf(out, "the usual interval of independent samples calls %d of %d sessions different (%.0f %%)\n", naive, pairs, 100*float64(naive)/float64(pairs))
	if part > 0.05 {
		return fmt.Errorf("%.0f %% of the verdicts on identical paths are \"different\", more than 5 %%", 100*part)
	}
	if counts[result.NoVerdict] == verdicts {
		return errors.New("this machine is too noisy for any verdict")
	}
	return nil
}

// naively counts the sessions in which a path's median is outside the baseline's order-statistic interval for 95 %, and the reverse: as if
// round trips were independent.
func naively(run *result.Run, name string) (different, of int, err error) {
	var base, other []result.Session
	for _, c := range run.Cases {
		switch c.Path {
		case run.Baseline:
			base = c.Sessions
		case name:
			other = c.Sessions
		}
	}
	for i := range base {
		var low, high [2]int64
		for k, s := range []result.Session{base[i], other[i]} {
			d, err := stats.Decode(s.Histogram, s.Loss.Lost)
			if err != nil {
				return 0, 0, err
			}
			// The ranks of the median's interval are n/2 +- 1.96 sqrt(n)/2; each of two for 83 % makes 95 % of their difference.
			half := 100 * 1.39 / 2 / math.Sqrt(float64(d.Latency(0).Count))
			low[k], _ = d.At(50 - half)
			high[k], _ = d.At(50 + half)
		}
		if low[0] > high[1] || low[1] > high[0] {
			different++
		}
	}
	return different, len(base), nil
}

// onDelays looks for a delay that the server makes itself.
func onDelays(ctx context.Context, o options, out io.Writer) error {
	const margin = 100 * time.Nanosecond
	c := campaign{
		options: o, sessions: 10, margin: margin,
		wants:  []path.Want{{Kind: "metal", Name: "a", Twin: true}, {Kind: "metal", Name: "slower"}, {Kind: "metal", Name: "hardly"}},
		faults: map[string]engine.Fault{"slower": {Delay: 500 * time.Nanosecond}, "hardly": {Delay: 50 * time.Nanosecond}},
	}
	began := time.Now()
	run, err := c.run(ctx, o.seed)
	if err != nil {
		return err
	}
	slower, _ := effect(run, "slower")
	hardly, _ := effect(run, "hardly")
	fmt.Fprintf(out, "%d sessions of %v, %.0f s in all, a margin of %v; medians\n", c.sessions, o.duration, time.Since(began).Seconds(), margin)
	fmt.Fprintf(out, "0.50 µs: %s\n0.05 µs: %s\n", say(slower), say(hardly))
	var failed []error
	if took := time.Since(began); took > time.Minute {
		failed = append(failed, fmt.Errorf("it took %v, more than a minute", took.Round(time.Second)))
	}
	if slower.Verdict != result.Different || slower.Difference < 0 {
		failed = append(failed, fmt.Errorf("a delay of 0.5 µs is %s", slower.Verdict))
	}
	if hardly.Verdict == result.Different {
		failed = append(failed, errors.New("a delay of 0.05 µs, less than the margin, is different"))
	}
	return errors.Join(failed...)
}

// besideHog measures the difference of macvlan and a plain wire, first alone and then while all CPUs are used every other second.
func besideHog(ctx context.Context, o options, out io.Writer) error {
	const moved = 200.0 // nanoseconds
	c := campaign{options: o, sessions: 10, wants: []path.Want{{Kind: "metal", Name: "a", Twin: true}, {Kind: "macvlan", Name: "macvlan"}}}
	run, err := c.run(ctx, o.seed)
	if err != nil {
		return err
	}
	alone, _ := effect(run, "macvlan")
	fmt.Fprintf(out, "macvlan - veth, medians, campaigns of %d sessions of %v\nalone: %s\n", c.sessions, o.duration, say(alone))
	var wrong []error
	none := 0
	for i := range o.tries {
		run, err := hogged(ctx, func() (*result.Run, error) { return c.run(ctx, o.seed+uint64(i+1)*1000) })
		if err != nil {
			return err
		}
		e, _ := effect(run, "macvlan")
		twin, _ := effect(run, "a-twin")
		fmt.Fprintf(out, "beside a hog, %d: %s\n", i+1, say(e))
		if e.Verdict == result.NoVerdict {
			none++
		} else if d := math.Abs(float64(e.Difference - alone.Difference)); d >= moved {
			wrong = append(wrong, fmt.Errorf("try %d: the difference has moved by %.3f µs", i+1, d/1e3))
		}
		if twin.Verdict == result.Different {
			wrong = append(wrong, fmt.Errorf("try %d: a twin is different: %s", i+1, say(twin)))
		}
	}
	fmt.Fprintf(out, "%d of %d tries have no verdict, %d faults\n", none, o.tries, len(wrong))
	return errors.Join(wrong...)
}

// hogVerb is the argument of the process that uses the CPUs.
const hogVerb = "probe-hog"

// hogged calls f while there is a hog.
func hogged(ctx context.Context, f func() (*result.Run, error)) (*result.Run, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hog := exec.CommandContext(ctx, "/proc/self/exe", hogVerb, strconv.Itoa(runtime.NumCPU()))
	hog.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	hog.Stderr = os.Stderr
	if err := hog.Start(); err != nil {
		return nil, err
	}
	defer func() {
		cancel()
		_ = hog.Wait() // killed
	}()
	return f()
}

// hog uses n CPUs every other second, until it is killed.
func hog(n int) {
	for i := range n {
		go func() {
			runtime.LockOSThread()
			var set unix.CPUSet
			set.Set(i)
			_ = unix.SchedSetaffinity(0, &set) // anywhere else is as bad
			for {
				for end := time.Now().Add(time.Second); time.Now().Before(end); {
				}
				<-time.After(time.Second)
			}
		}()
	}
	select {}
}
