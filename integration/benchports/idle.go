package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// usage is what a process has used so far, and has now.
type usage struct {
	cpu      time.Duration
	resident int // KiB
	switches int // how often its threads have waited for something
}

// idle measures what the daemon uses while nothing happens, and prints it. title says with what.
func (b *bench) idle(ctx context.Context, title string) error {
	if b.idleFor == 0 {
		return nil
	}
	pid := b.node.AgentPID()
	before, err := used(pid)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.idleFor):
	}
	after, err := used(pid)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(b.out, "The daemon, %s, idle for %v: %d MiB resident, %v of CPU time, its threads have waited %d times.\n\n",
		title, b.idleFor, after.resident/1024, after.cpu-before.cpu, after.switches-before.switches)
	return err
}

// tick is the unit of times in /proc/PID/stat, on all architectures of Linux.
const tick = 10 * time.Millisecond

// used reads what a process has used. Threads that have ended count in its CPU time alone.
func used(pid int) (usage, error) {
	var u usage
	dir := fmt.Sprintf("/proc/%d", pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, err
	}
	// The program's name, in parentheses, may have spaces in it.
	_, rest, _ := strings.Cut(string(stat), ") ")
	var user, system int64
	if fields := strings.Fields(rest); len(fields) > 12 {
		_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	} else {
		err = errors.New("too short")
	}
	if err != nil {
		return u, fmt.Errorf("%s/stat: %w", dir, err)
	}
	u.cpu = time.Duration(user+system) * tick
	if u.resident, err = statusOf(dir, "VmRSS:"); err != nil {
		return u, err
	}
	threads, err := os.ReadDir(dir + "/task")
	if err != nil {
		return u, err
	}
	for _, t := range threads {
		n, err := statusOf(dir+"/task/"+t.Name(), "voluntary_ctxt_switches:")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return u, err
		}
		u.switches += n
	}
	return u, nil
}

// statusOf returns a number of a process or thread.
func statusOf(dir, key string) (n int, err error) {
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, is := strings.CutPrefix(line, key); is {
			if _, err := fmt.Sscan(value, &n); err != nil {
				return 0, fmt.Errorf("%s/status: %s %w", dir, key, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s/status has no %s", dir, key)
}
