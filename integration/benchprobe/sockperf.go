package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

const (
	size  = 64
	port  = 11111
	turns = 50 // of each tool, each time
)

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
	fmt.Fprintf(out, "%d rounds of %d turns of %v, %d octets, polling, SCHED_FIFO %d on CPUs %d and %d; microseconds; ratios with 95 %% interval\n",
		o.rounds, turns, turn, size, o.priority, o.cpus[0], o.cpus[1])
	fmt.Fprintf(out, "%-12s %-10s %10s %10s   %s\n", "path", "", "sockperf", "probe", "ratio")
	var bad []error
	for _, p := range built.Paths {
		for _, transport := range []string{"udp", "tcp"} {
			rounds := make([][2]counted, o.rounds)
			for i := range rounds {
				if rounds[i], err = inTurns(ctx, o, p, transport); err != nil {
					return fmt.Errorf("path %s, %s: %w", p.Name, transport, err)
				}
			}
			for _, c := range pooled(rounds, rnd) {
				verdict := "good"
				switch {
				case c.low > c.limit:
					verdict = fmt.Sprintf("more than %.2f", c.limit)
					bad = append(bad, fmt.Errorf("path %s, %s: the ratio at p%v is %.3f [%.3f, %.3f], more than %.2f", p.Name, transport, c.p, c.ratio, c.low, c.high, c.limit))
				case c.high > c.limit:
					verdict = fmt.Sprintf("not certainly at most %.2f", c.limit)
				}
				fmt.Fprintf(out, "%-12s %-10s %10.3f %10.3f   %.3f [%.3f, %.3f] %s\n",
					p.Name+" "+transport, fmt.Sprintf("p%v", c.p), c.theirs, c.ours, c.ratio, c.low, c.high, verdict)
			}
		}
	}
	return errors.Join(bad...)
}

// inTurns measures with both in turns, sockperf first.
func inTurns(ctx context.Context, o options, p path.Path, transport string) (m [2]counted, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The engine starts first, and is stopped while it still warms up: where sockperf polls, nothing starts. It begins to count in its first turn, and ends
	// when it runs again after all turns, because its time is over then.
	var session result.Session
	var failed error
	ended := make(chan struct{})
	go func() { // it is waited for
		defer close(ended)
		session, failed = measure(ctx, o, p, transport, schedule(turns))
	}()
	defer func() {
		cancel()
		<-ended
	}()
	probe, err := engineProcess()
	if err != nil {
		return m, err
	}
	<-time.After(200 * time.Millisecond) // it has opened its sockets
	if err := syscall.Kill(probe, syscall.SIGSTOP); err != nil {
		return m, err
	}
	err = sockperf(ctx, o, p, transport, &m[0], func(processes ...int) error {
		return takeTurns(ctx, o, turns, processes, []int{probe})
	})
	if err != nil {
		return m, fmt.Errorf("sockperf: %w", err)
	}
	<-time.After(3 * pause)
	if err := syscall.Kill(probe, syscall.SIGCONT); err != nil {
		return m, fmt.Errorf("probe: %w", err)
	}
	<-ended
	if failed == nil {
		failed = m[1].addSession(session)
	}
	if failed != nil {
		return m, fmt.Errorf("probe: %w", failed)
	}
	return m, nil
}

// measure measures with the engine, for d.
func measure(ctx context.Context, o options, p path.Path, transport string, d time.Duration) (result.Session, error) {
	outcomes, err := engine.Run(ctx, engine.Job{
		Paths: []engine.Path{ends(p)},
		Load:  result.Load{Mode: result.RR, Transport: transport, Size: size, Duration: d},
		Burst: 1000, Warmup: 2 * time.Second, Timeout: 10 * time.Second, Busy: true, Priority: o.priority, CPUs: o.cpus,
	}, nil)
	if err != nil {
		return result.Session{}, err
	}
	if outcomes[0].Error != "" {
		return result.Session{}, errors.New(outcomes[0].Error)
	}
	return *outcomes[0].Session, nil
}

// sockperf starts sockperf, calls run with its processes, and adds to c what it has measured meanwhile.
func sockperf(ctx context.Context, o options, p path.Path, transport string, c *counted, run func(processes ...int) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	at := []string{"-i", p.Server.Addr.String(), "-p", strconv.Itoa(port), "--nonblocked"}
	if transport == "tcp" {
		at = append(at, "--tcp")
	}
	server := command(ctx, p.Server.Netns, o.cpus[1], o.priority, append([]string{"sockperf", "server"}, at...)...)
	if err := server.Start(); err != nil {
		return err
	}
	defer func() {
		cancel()
		_ = server.Wait() // killed
	}()
	if err := listening(ctx, p, transport); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	dir, err := os.MkdirTemp("", "benchprobe")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	log := filepath.Join(dir, "log")
	seconds := 10 + int(schedule(turns).Seconds()) // it is ended before
	args := append([]string{"stdbuf", "-oL", "sockperf", "ping-pong", "-m", strconv.Itoa(size), "-t", strconv.Itoa(seconds), "--full-rtt", "--full-log", log}, at...)
	client := command(ctx, p.Client.Netns, o.cpus[0], o.priority, args...)
	out, err := client.StdoutPipe()
	if err != nil {
		return err
	}
	client.Stderr = client.Stdout
	if err := client.Start(); err != nil {
		return err
	}
	waited := false
	defer func() {
		if cancel(); !waited {
			_ = client.Wait() // killed
		}
	}()
	said := bufio.NewReader(out)
	for line := ""; !strings.Contains(line, "Starting test"); {
		if line, err = said.ReadString('\n'); err != nil {
			return fmt.Errorf("it does not start: %w", err)
		}
	}
	if err := run(client.Process.Pid, server.Process.Pid); err != nil {
		return err
	}
	if err := errors.Join(client.Process.Signal(syscall.SIGINT), client.Process.Signal(syscall.SIGCONT), server.Process.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	text, err := io.ReadAll(said)
	waited = true
	if err := errors.Join(err, client.Wait()); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	if text, err = os.ReadFile(log); err != nil {
		return err
	}
	return c.addLog(string(text))
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
