package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/child"
	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/pinger"
)

const (
	peers = 100
	// cpuClaim and memoryClaim are what the probe may take that measures all the time, for so many peers and a burst a second.
	cpuClaim    = 0.001
	memoryClaim = 20 << 20
	ratioClaim  = 1.6 // of bare system calls
	settling    = 4 * time.Second
	repeats     = 3
)

// continuously measures what it takes to measure a hundred peers once a second: the process that asks, and that which answers for all of them, as a
// hundred nodes would. Beside that, what the same datagrams take when they are sent and answered by system calls and nothing else: where that is more
// than the claim, the claim cannot hold, and only the ratio says something.
func continuously(ctx context.Context, o options, out io.Writer) error {
	g, err := newGround(ctx, peers+1)
	if err != nil {
		return err
	}
	defer g.remove()
	plan := pinger.Plan{Interval: time.Second, Burst: 1, Size: 64, Timeout: time.Second, Port: 8629}
	asks, answers := plan, plan
	for i := 1; i <= peers; i++ {
		asks.Pairs = append(asks.Pairs, pinger.Pair{ID: uint64(i), From: g.ends[0], To: g.ends[i].Addr})
		answers.Answers = append(answers.Answers, pinger.Answer{ID: uint64(i), At: g.ends[i], For: []netip.Addr{g.ends[0].Addr}})
	}
	fmt.Fprintf(out, "%d peers, a request a second each, on veths at one bridge; %d rounds of %v\n", peers, repeats, 10*o.duration)
	var used [2][2][]float64 // of the probe, of bare system calls; who asks, who answers
	memory, sent, lost := int64(0), uint64(0), uint64(0)
	for range repeats {
		for way, measure := range []func(context.Context, time.Duration, pinger.Plan, pinger.Plan) (costs, error){ours, bare} {
			c, err := measure(ctx, 10*o.duration, asks, answers)
			if err != nil {
				return err
			}
			for side := range 2 {
				used[way][side] = append(used[way][side], c.cpu[side])
			}
			memory = max(memory, c.memory)
			sent, lost = sent+c.sent, lost+c.lost
		}
	}
	fmt.Fprintln(out, "part of one CPU, median of rounds        asks   answers")
	for way, name := range []string{"the probe", "bare system calls"} {
		fmt.Fprintf(out, "%-34s  %.4f %%  %.4f %%\n", name, 100*median(used[way][0]), 100*median(used[way][1]))
	}
	fmt.Fprintf(out, "the probe to bare system calls        x%.2f     x%.2f\n", median(used[0][0])/median(used[1][0]), median(used[0][1])/median(used[1][1]))
	fmt.Fprintf(out, "memory of the larger process, most of which is the program: %.1f MiB; %d requests sent, %d lost\n", float64(memory)/(1<<20), sent, lost)
	var failed []error
	m, floor := median(used[0][0]), median(used[1][0])
	switch {
	case m <= cpuClaim:
	case floor > cpuClaim:
		fmt.Fprintf(out, "no verdict on %.1f %% of a CPU: on this machine, with what else it does, system calls alone take more\n", 100*cpuClaim)
	default:
		failed = append(failed, fmt.Errorf("who asks takes %.3f %% of a CPU, more than %.1f %%", 100*m, 100*cpuClaim))
	}
	if m > ratioClaim*floor {
		failed = append(failed, fmt.Errorf("who asks takes %.2f times as much as bare system calls, more than %.1f", m/floor, ratioClaim))
	}
	if memory > memoryClaim {
		failed = append(failed, fmt.Errorf("a process has %.1f MiB", float64(memory)/(1<<20)))
	}
	return errors.Join(failed...)
}

// costs are what a round has taken.
type costs struct {
	cpu        [2]float64 // part of one
	memory     int64      // octets, of the larger process
	sent, lost uint64
}

// ours is a round of the probe.
func ours(ctx context.Context, d time.Duration, asks, answers pinger.Plan) (c costs, err error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 2)
	started := 0
	defer func() {
		cancel()
		for range started {
			err = errors.Join(err, <-ended)
		}
	}()
	var pids [2]int
	for side, p := range []pinger.Plan{asks, answers} {
		before := childProcesses()
		plans := make(chan pinger.Plan, 1)
		plans <- p
		started++
		// It ends with ctx.
		go func() {
			ended <- pinger.Run(ctx, plans, func(r pinger.Report) {
				for _, p := range r.Pairs {
					c.sent, c.lost = c.sent+p.Sent, c.lost+p.Lost // of one process alone
				}
			})
		}()
		for pids[side] == 0 {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				return c, err
			}
			for _, pid := range childProcesses() {
				if !slices.Contains(before, pid) {
					pids[side] = pid
				}
			}
		}
	}
	if err := sleep(ctx, settling); err != nil {
		return c, err
	}
	before := [2]int64{busy(pids[0], false), busy(pids[1], false)}
	if err := sleep(ctx, d); err != nil {
		return c, err
	}
	for side, pid := range pids {
		c.cpu[side] = float64(busy(pid, false)-before[side]) / float64(d)
		c.memory = max(c.memory, resident(pid))
	}
	return c, nil
}

// bareVerb and bareAnswerVerb are the only arguments of processes that send and answer with system calls alone.
const (
	bareVerb       = "bench-bare-ask"
	bareAnswerVerb = "bench-bare-answer"
	barePort       = 20000 // of the first peer's requests
)

func bare(ctx context.Context, d time.Duration, asks, answers pinger.Plan) (c costs, err error) {
	var all [2]*child.Process
	defer func() {
		for _, p := range all {
			if p != nil {
				p.Kill()
				_ = p.Close() // it was killed
			}
		}
	}()
	for side, verb := range map[int]string{0: bareVerb, 1: bareAnswerVerb} {
		p, err := child.Start(verb, "GOMAXPROCS=3", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
		if err != nil {
			return c, err
		}
		all[side] = p
		line, err := json.Marshal([]pinger.Plan{asks, answers}[side])
		if err != nil {
			return c, err
		}
		if _, err := p.In.Write(append(line, '\n')); err != nil {
			return c, err
		}
	}
	if err := sleep(ctx, settling); err != nil {
		return c, err
	}
	before := [2]int64{busy(all[0].Pid(), true), busy(all[1].Pid(), true)}
	if err := sleep(ctx, d); err != nil {
		return c, err
	}
	for side, p := range all {
		n := busy(p.Pid(), true) - before[side]
		if n <= 0 {
			return c, fmt.Errorf("%s does nothing", []string{bareVerb, bareAnswerVerb}[side])
		}
		c.cpu[side] = float64(n) / float64(d)
	}
	return c, nil
}

// bareMain is what such a process does. It ends by being killed.
func bareMain(verb string) error {
	var plan pinger.Plan
	if err := json.NewDecoder(os.Stdin).Decode(&plan); err != nil {
		return err
	}
	runtime.LockOSThread()
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return err
	}
	var fds []unix.PollFd
	open := func(e pinger.End, port uint16, to netip.Addr, toPort uint16) error {
		return engine.InNetns(e.Netns, func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: e.Addr.As4()}); err != nil {
				return err
			}
			return unix.Connect(fd, &unix.SockaddrInet4{Port: int(toPort), Addr: to.As4()})
		})
	}
	for i, p := range plan.Pairs {
		if err := open(p.From, barePort+uint16(i), p.To, plan.Port); err != nil {
			return err
		}
	}
	for i, a := range plan.Answers {
		if err := open(a.At, plan.Port, a.For[0], barePort+uint16(i)); err != nil {
			return err
		}
	}
	b := make([]byte, plan.Size)
	call := func(trap uintptr, fd int32) {
		_, _, _ = unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	}
	wait := func(fds []unix.PollFd, d time.Duration) {
		ts := unix.NsecToTimespec(int64(d))
		_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	}
	if verb == bareVerb {
		for next := time.Now(); ; next = next.Add(plan.Interval) {
			wait([]unix.PollFd{{Fd: -1}}, time.Until(next))
			for _, trap := range []uintptr{unix.SYS_RECVFROM, unix.SYS_SENDTO} { // what has come since the last time
				for i := range fds {
					call(trap, fds[i].Fd)
				}
			}
		}
	}
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	for _, f := range fds {
		if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, int(f.Fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: f.Fd}); err != nil {
			return err
		}
	}
	var events [64]unix.EpollEvent
	for {
		n, _, _ := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(set), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 1000, 0, 0)
		for _, e := range events[:max(int(n), 0)] {
			call(unix.SYS_RECVFROM, e.Fd)
			call(unix.SYS_SENDTO, e.Fd)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// childProcesses are the processes that this one has started.
func childProcesses() []int {
	var all []int
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range files {
		text, _ := os.ReadFile(f) // the thread may have ended
		for word := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

// busy is how many nanoseconds the threads of a process have run, or the busiest of them alone.
func busy(pid int, busiest bool) int64 {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	sum, most := int64(0), int64(0)
	for _, f := range files {
		text, _ := os.ReadFile(f) // the thread may have ended
		if words := strings.Fields(string(text)); len(words) > 0 {
			n, _ := strconv.ParseInt(words[0], 10, 64) // digits
			sum, most = sum+n, max(most, n)
		}
	}
	if busiest {
		return most
	}
	return sum
}

// resident is the memory of a process, with what it shares with others.
func resident(pid int) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)) // it may have ended
	if words := strings.Fields(string(text)); len(words) > 1 {
		pages, _ := strconv.ParseInt(words[1], 10, 64) // digits
		return pages * int64(os.Getpagesize())
	}
	return 0
}

// A ground is namespaces at one bridge, in one more.
type ground struct {
	name string
	ends []pinger.End
}

func newGround(ctx context.Context, n int) (_ *ground, err error) {
	g := &ground{name: fmt.Sprintf("opb%d", os.Getpid())}
	bridge := g.name + "-br"
	defer func() {
		if err != nil {
			g.remove()
		}
	}()
	var spaces, links strings.Builder
	fmt.Fprintf(&spaces, "netns add %s\n", bridge)
	links.WriteString("link add br0 type bridge\nlink set br0 up\n")
	for i := range n {
		name := fmt.Sprintf("%s-%d", g.name, i)
		g.ends = append(g.ends, pinger.End{Netns: "/run/netns/" + name, Device: "eth0", Addr: netip.AddrFrom4([4]byte{10, 88, byte((i + 1) >> 8), byte(i + 1)})})
		fmt.Fprintf(&spaces, "netns add %s\n", name)
		fmt.Fprintf(&links, "link add v%d type veth peer name eth0 netns %s\nlink set v%d master br0 up\n", i, name, i)
	}
	if err := batch(ctx, spaces.String()); err != nil {
		return nil, err
	}
	if err := batch(ctx, links.String(), "-n", bridge); err != nil {
		return nil, err
	}
	for _, e := range g.ends {
		if err := batch(ctx, fmt.Sprintf("link set eth0 up\naddr add %v/16 dev eth0\n", e.Addr), "-n", filepath.Base(e.Netns)); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func (g *ground) remove() {
	var script strings.Builder
	files, _ := filepath.Glob("/run/netns/" + g.name + "-*")
	for _, f := range files {
		fmt.Fprintf(&script, "netns del %s\n", filepath.Base(f))
	}
	if err := batch(context.Background(), script.String()); err != nil {
		fmt.Fprintln(os.Stderr, "benchprobe:", err)
	}
}

func batch(ctx context.Context, script string, args ...string) error {
	cmd := exec.CommandContext(ctx, "ip", append(args, "-batch", "-")...)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
