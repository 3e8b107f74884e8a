package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
)

// turn is for how long a tool runs while the other one is stopped, and rest is between turns.
//
// A hypervisor moves virtual CPUs between cores some times a second. How far two of them are apart then, between 60 ns for a cache line and 500, makes the same
// round trip take up to twice its time, which is more than tools differ by. So they have to be compared within less.
const turn, rest = 100 * time.Millisecond, 20 * time.Millisecond

const (
	// pause is for how long a tool is stopped, at least.
	pause = turn + 2*rest
	// lead is more than what sockperf does not count at its beginning, 400 ms, and at its end, 50.
	lead = 600 * time.Millisecond
)

// schedule is how long n turns of each tool take, with what is before and after them.
func schedule(n int) time.Duration { return pause + time.Duration(n)*2*(turn+rest) + pause + lead }

// turnsVerb is the first argument of the process that gives turns; the others are how many, and for each tool its processes.
const turnsVerb = "probe-turns"

// takeTurns lets one of two tools run at a time, n times each, and then the first one for a while more, so that it counts its last turn. In the end both are
// stopped. They may poll on all CPUs with a priority, so it is a process whose threads all have a greater one that does so.
func takeTurns(ctx context.Context, o options, n int, tools ...[]int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{self, turnsVerb, strconv.Itoa(n)}
	for _, processes := range tools {
		args = append(args, strings.Trim(fmt.Sprint(processes), "[]"))
	}
	if text, err := command(ctx, "", o.cpus[0], o.priority+1, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("turns: %w: %s", err, text)
	}
	return nil
}

func giveTurns(args []string) error {
	n, err := strconv.Atoi(args[0])
	var tools [2][]int
	for i := range tools {
		for word := range strings.FieldsSeq(args[1+i]) {
			pid, bad := strconv.Atoi(word)
			tools[i], err = append(tools[i], pid), errors.Join(err, bad)
		}
	}
	signal := func(tool int, number syscall.Signal) {
		for _, pid := range tools[tool] {
			if bad := syscall.Kill(pid, number); !errors.Is(bad, syscall.ESRCH) { // it may have ended
				err = errors.Join(err, bad)
			}
		}
	}
	run := func(tool int, d time.Duration) {
		signal(tool, syscall.SIGCONT)
		<-time.After(d)
		signal(tool, syscall.SIGSTOP)
	}
	signal(0, syscall.SIGSTOP)
	signal(1, syscall.SIGSTOP)
	<-time.After(pause)
	for range n {
		for tool := range tools {
			run(tool, turn)
			<-time.After(rest)
		}
	}
	<-time.After(pause)
	run(0, lead)
	return err
}

// engineProcess is the engine's, when there is one.
func engineProcess() (int, error) {
	for range 1000 {
		for _, pid := range childProcesses() {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have ended
			if strings.HasSuffix(string(line), "\x00"+engine.Verb+"\x00") {
				return pid, nil
			}
		}
		<-time.After(time.Millisecond)
	}
	return 0, errors.New("the engine's process has not started in a second")
}
