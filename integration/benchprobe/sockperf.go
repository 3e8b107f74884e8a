package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

const (
	size = 64
	port = 11111
	// What sockperf does not count of the time that it is given, at the beginning and at the end.
	warmup, cooldown = 400 * time.Millisecond, 50 * time.Millisecond
)

// percentiles are those that are compared, with the greatest ratio that is good enough.
var percentiles = []struct{ p, limit float64 }{{50, 1.05}, {99, 1.05}, {99.9, 1.10}}

// measured are the percentiles in microseconds.
type measured []float64

// besideSockperf compares the engine with sockperf.
func besideSockperf(ctx context.Context, o options, out io.Writer) (err error) {
	if _, err := exec.LookPath("sockperf"); err != nil {
		return err
	}
	built, err := build(ctx, []path.Want{{Kind: "host"}, {Kind: "metal"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	rnd := rand.New(rand.NewPCG(o.seed, 1))
	fmt.Fprintf(out, "%d rounds of %v, %d octets, polling, SCHED_FIFO %d on CPUs %d and %d; microseconds, medians of rounds; ratios with 95 %% interval\n",
		o.rounds, o.duration, size, o.priority, o.cpus[0], o.cpus[1])
	fmt.Fprintf(out, "%-12s %-10s %10s %10s   %s\n", "path", "", "sockperf", "probe", "ratio")
	tools := []func(context.Context, options, path.Path, string) (measured, error){sockperf, probe}
	var bad []error
	for _, p := range built.Paths {
		for _, transport := range []string{"udp", "tcp"} {
			rounds := make([][]measured, len(tools))
			for range o.rounds {
				for _, i := range rnd.Perm(len(tools)) {
					m, err := tools[i](ctx, o, p, transport)
					if err != nil {
						return fmt.Errorf("path %s, %s: %w", p.Name, transport, err)
					}
					rounds[i] = append(rounds[i], m)
				}
			}
			for k, want := range percentiles {
				column := func(tool int) []float64 {
					values := make([]float64, o.rounds)
					for r := range values {
						values[r] = rounds[tool][r][k]
					}
					return values
				}
				theirs, ours := column(0), column(1)
				ratios := make([]float64, o.rounds)
				for r := range ratios {
					ratios[r] = ours[r] / theirs[r]
				}
				ratio, low, high := interval(ratios, rnd)
				verdict := "good"
				switch {
				case low > want.limit:
					verdict = fmt.Sprintf("more than %.2f", want.limit)
					bad = append(bad, fmt.Errorf("path %s, %s: the ratio at p%v is %.3f [%.3f, %.3f], more than %.2f", p.Name, transport, want.p, ratio, low, high, want.limit))
				case high > want.limit:
					verdict = fmt.Sprintf("not certainly at most %.2f", want.limit)
				}
				fmt.Fprintf(out, "%-12s %-10s %10.3f %10.3f   %.3f [%.3f, %.3f] %s\n",
					p.Name+" "+transport, fmt.Sprintf("p%v", want.p), median(theirs), median(ours), ratio, low, high, verdict)
			}
		}
	}
	return errors.Join(bad...)
}

// probe measures with the engine.
func probe(ctx context.Context, o options, p path.Path, transport string) (measured, error) {
	outcomes, err := engine.Run(ctx, engine.Job{
		Paths: []engine.Path{ends(p)},
		Load:  result.Load{Mode: result.RR, Transport: transport, Size: size, Duration: o.duration - warmup - cooldown},
		Burst: 1000, Warmup: warmup, Timeout: time.Second, Busy: true, Priority: o.priority, CPUs: o.cpus,
	}, nil)
	if err != nil {
		return nil, err
	}
	if outcomes[0].Error != "" {
		return nil, errors.New(outcomes[0].Error)
	}
	return percentilesOf(*outcomes[0].Session)
}

// percentilesOf are those of percentiles, in microseconds.
func percentilesOf(s result.Session) (m measured, err error) {
	d, err := stats.Decode(s.Histogram, s.Loss.Lost)
	if err != nil {
		return nil, err
	}
	l := d.Latency(0)
	for _, want := range percentiles {
		q, ok := l.At(want.p)
		if !ok || q.Lost {
			return nil, fmt.Errorf("probe: no percentile %v of %d round trips and %d lost", want.p, l.Count, l.Lost)
		}
		m = append(m, float64(q.Value)/1e3)
	}
	return m, nil
}

// sockperf measures with sockperf.
func sockperf(ctx context.Context, o options, p path.Path, transport string) (measured, error) {
	at := []string{"-i", p.Server.Addr.String(), "-p", strconv.Itoa(port), "--nonblocked"}
	if transport == "tcp" {
		at = append(at, "--tcp")
	}
	server := command(ctx, p.Server.Netns, o.cpus[1], o.priority, append([]string{"sockperf", "server"}, at...)...)
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = server.Process.Kill() // it may have ended already
		_ = server.Wait()         // killed
	}()
	if err := listening(ctx, p, transport); err != nil {
		return nil, fmt.Errorf("sockperf server: %w", err)
	}
	seconds := int(o.duration.Seconds())
	args := append([]string{"sockperf", "ping-pong", "-m", strconv.Itoa(size), "-t", strconv.Itoa(seconds), "--full-rtt"}, at...)
	text, err := command(ctx, p.Client.Netns, o.cpus[0], o.priority, args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("sockperf: %w: %s", err, text)
	}
	var m measured
	for _, want := range percentiles {
		v, err := percentile(string(text), want.p)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, text)
		}
		m = append(m, v)
	}
	return m, nil
}

// command is args in a network namespace, on a CPU, with a priority of SCHED_FIFO.
func command(ctx context.Context, netns string, cpu, priority int, args ...string) *exec.Cmd {
	words := []string{"nsenter", "--net=" + netns, "taskset", "-c", strconv.Itoa(cpu)}
	if netns == "" {
		words = words[2:]
	}
	if priority > 0 {
		words = append(words, "chrt", "-f", strconv.Itoa(priority))
	}
	words = append(words, args...)
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// listening waits until the server has its socket.
func listening(ctx context.Context, p path.Path, transport string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	want := net.JoinHostPort(p.Server.Addr.String(), strconv.Itoa(port))
	for {
		text, err := command(ctx, p.Server.Netns, 0, 0, "ss", "-H", "-n", "-l", "--"+transport).Output()
		if err == nil && strings.Contains(string(text), want) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not listen on %s %s: %w", transport, want, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// percentile finds one in what sockperf says: "sockperf: ---> percentile 99.900 =   12.345".
func percentile(text string, p float64) (float64, error) {
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(line, "---> percentile ")
		if !ok {
			continue
		}
		name, value, _ := strings.Cut(rest, "=")
		if f, err := strconv.ParseFloat(strings.TrimSpace(name), 64); err != nil || f != p {
			continue
		}
		return strconv.ParseFloat(strings.TrimSpace(value), 64)
	}
	return 0, fmt.Errorf("sockperf says no percentile %v", p)
}

// interval is the pseudo-median of ratios (Hodges and Lehmann: the median of the means of any two, here geometric ones), and its 95 % interval by the bootstrap over
// rounds. Most of what two runs differ by is which process it was, by a tenth and more on virtual CPUs, so that pairs say little more than their number: it takes
// two thirds of the rounds that the median would for the same interval, and is as little moved by a round in which something happened.
func interval(ratios []float64, rnd *rand.Rand) (mid, low, high float64) {
	logs := make([]float64, len(ratios))
	for i, r := range ratios {
		logs[i] = math.Log(r)
	}
	mid, low, high = shift(logs, rnd)
	return math.Exp(mid), math.Exp(low), math.Exp(high)
}

// shift is the pseudo-median of values, and its interval.
func shift(values []float64, rnd *rand.Rand) (mid, low, high float64) {
	const resamples = 2000
	medians := make([]float64, resamples)
	sample := make([]float64, len(values))
	for i := range medians {
		for k := range sample {
			sample[k] = values[rnd.IntN(len(values))]
		}
		medians[i] = pseudoMedian(sample)
	}
	slices.Sort(medians)
	return pseudoMedian(values), medians[resamples*25/1000], medians[resamples*975/1000]
}

func pseudoMedian(values []float64) float64 {
	means := make([]float64, 0, len(values)*(len(values)+1)/2)
	for i, a := range values {
		for _, b := range values[i:] {
			means = append(means, (a+b)/2)
		}
	}
	return median(means)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
