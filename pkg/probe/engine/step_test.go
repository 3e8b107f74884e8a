package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

func stepJob(paths ...Path) Job {
	return Job{
		Paths: paths, Load: result.Load{Mode: result.RR, Transport: "udp", Size: 64}, Rounds: 100, Burst: 1,
		Timeout: time.Second, CPUs: [2]int{-1, -1},
	}
}

// A request is sent when it is asked for, and not before; paths may share the server's port if the clients' are fixed.
func TestSteps(t *testing.T) {
	a, b := loopback("a"), loopback("b")
	a.Client.Port, b.Client.Port, a.Server.Port, b.Server.Port = 34101, 34102, 34100, 34100
	for _, busy := range []bool{false, true} {
		job := stepJob(a, b)
		job.Busy = busy
		s, err := Steps(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		last, used, before := time.Duration(0), time.Duration(0), children(t)
		for i := range 40 {
			step, err := s.Next(i % 2)
			if step.At <= last {
				t.Errorf("step %d is sent at %v, the one before at %v", i, step.At, last)
			}
			last = step.At + step.Took
			if used += step.CPU; step.CPU <= 0 {
				t.Errorf("step %d has taken no CPU time", i)
			}
			if err != nil || step.Lost || step.Took <= 0 || step.Took > time.Second {
				t.Fatalf("step %d: %+v, %v", i, step, err)
			}
		}
		if _, err := s.Next(2); err == nil {
			t.Error("a path that there is not")
		}
		s.Close()
		if _, err := s.Next(0); err == nil {
			t.Error("a step after the end")
		}
		if all := children(t) - before; used > all {
			t.Errorf("steps have taken %v of CPU time, and the process %v", used, all)
		}
	}
}

// children returns how much CPU time processes have used that have ended.
func children(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What is not answered is lost, and the next request is not disturbed.
func TestStepsLost(t *testing.T) {
	p := loopback("a")
	p.Fault = &Fault{Drop: 1}
	job := stepJob(p, loopback("b"))
	job.Timeout = 20 * time.Millisecond
	s, err := Steps(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 4 {
		if step, err := s.Next(i % 2); err != nil || step.Lost != (i%2 == 0) {
			t.Errorf("step %d: %+v, %v", i, step, err)
		}
	}
}

func TestStepsFailed(t *testing.T) {
	p := loopback("a")
	p.Client.Netns = "/nowhere"
	s, err := Steps(t.Context(), stepJob(p))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Next(0); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("%v, want that there is no such namespace", err)
	}
}

// All datagrams are counted, those too that precede what counts.
func TestPackets(t *testing.T) {
	a, b := loopback("a"), loopback("b")
	a.Client.Port, b.Client.Port, a.Server.Port, b.Server.Port = 34201, 34202, 34200, 34200
	job := Job{
		Paths: []Path{a, b}, Load: result.Load{Mode: result.RR, Transport: "udp", Size: 64}, Rounds: 10, Burst: 7,
		Warmup: 20 * time.Millisecond, Timeout: 5 * time.Second, CPUs: [2]int{-1, -1},
	}
	for name, s := range run(t, job) {
		if s.Packets[0] <= 70 || s.Packets[0] != s.Packets[1] {
			t.Errorf("%s: %v packets, want the same of both, and more than 70", name, s.Packets)
		}
	}
	job.Warmup, job.Load.Mode, job.Load.Rate = 0, result.Open, 1000
	for name, s := range run(t, job) {
		if want := fmt.Sprint([2]int64{71, 71}); fmt.Sprint(s.Packets) != want {
			t.Errorf("%s: %v packets, want %s: one that finds out whether there is a way", name, s.Packets, want)
		}
	}
}
