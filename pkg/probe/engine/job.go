// Package engine sends and receives what a probe measures, in a process of its own.
//
// In goes a Job, out come Events: one result.Session for each path. The process is the same binary once more (see Verb), for what measures
// microseconds must not share a garbage collector with what does not: a thread of it that waits in a raw system call would stop the
// daemon's world until the next packet.
//
// One thread is the client of all paths and one is the server of all paths, so that paths differ in nothing but the path. Sockets stay in
// the network namespace in which they were opened; the threads do not.
package engine

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// Limits of a job.
const (
	MaxPaths = 64
	// MinSize is the header of each message: sequence number, the process' nonce, path, and what the message is.
	MinSize     = 16
	MaxSize     = 65507 // of UDP over IPv4
	MaxRounds   = 10_000_000
	MaxBurst    = 1_000_000
	MaxRate     = 5_000_000 // requests per second, of all paths together
	MaxDuration = time.Hour
	MaxTimeout  = 10 * time.Second
	// MaxRequests is how many requests of all paths together are remembered, at 9 to 89 octets each.
	MaxRequests = 1 << 24
)

// A Job is one load on some paths. Durations are nanoseconds in JSON.
type Job struct {
	Paths []Path      `json:"paths"`
	Load  result.Load `json:"load"`

	// Segments splits the way of a request by the kernel's timestamps, of UDP rr, and round trips into their two ways. Timestamps take time, so
	// there is no histogram.
	Segments bool `json:"segments,omitempty"`

	// Rounds end the job, or Load.Duration does, the earlier of the two, or MaxRequests; 0: only the duration. In each round comes each path once, in
	// random order, with Burst requests. The first of several is counted as sent, or lost, but is not in the histogram: it finds cold
	// caches; an open loop has all. A stream has a share of Load.Duration in each round.
	Rounds int `json:"rounds"`
	Burst  int `json:"burst"`

	// Warmup is a time of requests that are not counted.
	Warmup time.Duration `json:"warmup_ns"`
	// Timeout is when a request is lost. A closed loop waits no longer.
	Timeout time.Duration `json:"timeout_ns"`

	Busy     bool   `json:"busy"`     // poll instead of sleeping
	Priority int    `json:"priority"` // of SCHED_FIFO; 0: an ordinary thread
	CPUs     [2]int `json:"cpus"`     // of the client's and the server's thread; -1: any
	// StreamCPUs are of the threads that send and receive the load's background, if it has one.
	StreamCPUs [2]int `json:"stream_cpus"`
	Seed       uint64 `json:"seed"` // of the order of paths

	// Steps makes the client send a request only when it is told to (Stepper), of UDP rr: nothing precedes the first, and no path takes turns with others.
	Steps bool `json:"steps,omitempty"`

	// Stop is a fault, for tests: the client does nothing for so long, once a second.
	Stop time.Duration `json:"stop_ns,omitempty"`
}

// A Path is two ends that can reach each other.
type Path struct {
	Name   string `json:"name"`
	Client End    `json:"client"`
	Server End    `json:"server"`
	// Target is where the client sends to, if that is not the server's address: a service. An invalid one is the server's, and so is port 0.
	Target netip.AddrPort `json:"target,omitzero"`
	// NICClock says that segments are to have the NIC's timestamps too: the devices of both ends stamp by one clock.
	NICClock bool   `json:"nic_clock,omitempty"`
	Fault    *Fault `json:"fault,omitempty"`
}

// An End is where a socket is opened.
type End struct {
	Netns string     `json:"netns,omitempty"` // a path like /run/netns/a; empty: that of the daemon
	Addr  netip.Addr `json:"addr"`
	Port  uint16     `json:"port,omitempty"` // 0: the kernel's choice
	// Device has Addr; it is needed for the NIC's timestamps only.
	Device string `json:"device,omitempty"`
}

// A Fault is what the server does wrong, after the warm-up, for tests.
type Fault struct {
	Delay      time.Duration `json:"delay_ns,omitempty"` // busy, before each answer
	Stall      time.Duration `json:"stall_ns,omitempty"` // busy, once
	StallAfter int64         `json:"stall_after,omitempty"`
	Drop       float64       `json:"drop,omitempty"` // the share of requests without an answer
}

// An Event is one line of what the process says: one of its fields is set, beside Path.
type Event struct {
	Path    string          `json:"path,omitempty"`
	Session *result.Session `json:"session,omitempty"` // the path's, at the end
	Error   string          `json:"error,omitempty"`   // why the path has no session, or without a path, why there are none
	Note    string          `json:"note,omitempty"`    // what was asked for and refused, and does not end the job

	Progress *Progress `json:"progress,omitempty"`
	Step     *Step     `json:"step,omitempty"`
}

// A Step is what came of a request that the client was told to send.
type Step struct {
	At   time.Duration `json:"at_ns"` // when it was sent, since the process began
	Took time.Duration `json:"took_ns"`
	Lost bool          `json:"lost,omitempty"`
	// CPU is the time that both threads have used for it: the server's with what it did after its last answer.
	CPU time.Duration `json:"cpu_ns"`
}

// Progress is how much of the job is done, of all paths.
type Progress struct {
	Fraction float64 `json:"fraction"`
	Requests int64   `json:"requests"` // sent and counted
}

// Check returns why the job cannot be done by anybody.
func (j Job) Check() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	between := func(what string, n, low, high int64) {
		check(low <= n && n <= high, "%s %d is not from %d to %d", what, n, low, high)
	}
	during := func(what string, d, low, high time.Duration) {
		check(low <= d && d <= high, "%s %v is not from %v to %v", what, d, low, high)
	}
	between("the number of paths", int64(len(j.Paths)), 1, MaxPaths)
	seen := map[string]bool{}
	for _, p := range j.Paths {
		check(p.Name != "" && !seen[p.Name], "path %q: the name is empty or not the only one", p.Name)
		seen[p.Name] = true
		check(p.Client.Addr.IsValid() && p.Server.Addr.IsValid() && p.Client.Addr.Is4() == p.Server.Addr.Is4(),
			"path %s: %v and %v are not two addresses of one family", p.Name, p.Client.Addr, p.Server.Addr)
		check(p.Client.Port == 0 || j.Load.Mode != result.CRR, "path %s: a client with a port for each connection cannot have port %d", p.Name, p.Client.Port)
		check(!p.Target.IsValid() || p.Target.Addr().Is4() == p.Client.Addr.Is4(), "path %s: target %v is of another family", p.Name, p.Target)
		check(p.Target.Port() == 0 || j.Load.Under == 0, "path %s: a stream needs a port of its own at the target", p.Name)
		if f := p.Fault; f != nil {
			during("path "+p.Name+": delay", f.Delay, 0, time.Second)
			during("path "+p.Name+": stall", f.Stall, 0, MaxTimeout)
			check(0 <= f.Drop && f.Drop <= 1, "path %s: drop %v is not from 0 to 1", p.Name, f.Drop)
		}
	}
	for _, p := range j.Paths {
		for _, dev := range []string{p.Client.Device, p.Server.Device} {
			check(dev != "" || !p.NICClock, "path %s: the NIC's timestamps are those of a device, and it has none", p.Name)
		}
	}
	l := j.Load
	stream := l.Mode == result.Stream || l.Mode == result.Maerts
	check(stream || l.Mode == result.RR || l.Mode == result.Open || l.Mode == result.CRR, "mode %q is none of rr, open, crr, stream, maerts", l.Mode)
	check(l.Transport == "udp" || l.Transport == "tcp", "transport %q is neither udp nor tcp", l.Transport)
	check(l.Mode != result.CRR || l.Transport == "tcp", "crr connects: it needs tcp")
	between("size", int64(l.Size), MinSize, MaxSize)
	if l.Answer != 0 {
		between("the answer's size", int64(l.Answer), MinSize, MaxSize)
		check(!stream, "%s has no answers", l.Mode)
	}
	check(0 <= l.Rate && !math.IsNaN(l.Rate) && l.Rate*float64(len(j.Paths)) <= MaxRate, "rate %v of %d paths is not from 0 to %d", l.Rate, len(j.Paths), MaxRate)
	check(l.Rate == 0 || l.Mode == result.Open || stream, "%s has no rate", l.Mode)
	check(0 <= l.Under && l.Under <= 1 && !math.IsNaN(l.Under), "a stream of %v of what a path carries is not from 0 to 1", l.Under)
	check(l.Under == 0 || l.Mode == result.RR || l.Mode == result.CRR, "%s has no stream in the background: paths take turns in closed loops only", l.Mode)
	check(l.Under == 0 || !j.Segments && !j.Steps, "segments and steps are those of paths that carry nothing else")
	check(l.Rate > 0 || l.Mode != result.Open, "an open loop needs a rate")
	during("duration", l.Duration, 0, MaxDuration)
	during("warm-up", j.Warmup, 0, MaxDuration)
	during("timeout", j.Timeout, time.Millisecond, MaxTimeout)
	during("stop", j.Stop, 0, time.Second)
	between("rounds", int64(j.Rounds), 0, MaxRounds)
	check(j.Rounds > 0 || l.Duration > 0, "neither rounds nor a duration end the job")
	if stream {
		check(l.Duration > 0, "a stream needs a duration")
	} else {
		between("burst", int64(j.Burst), 1, MaxBurst)
		if len(errs) == 0 && (j.Rounds > 0 || l.Mode == result.Open) {
			between("the number of requests of all paths", j.requests()*int64(len(j.Paths)), 1, MaxRequests)
		}
	}
	check(!j.Steps || l.Mode == result.RR && l.Transport == "udp" && !j.Segments && l.Duration == 0, "steps are those of UDP rr, without segments or a duration")
	check(!j.Segments || l.Mode == result.RR && l.Transport == "udp", "segments are those of UDP rr")
	between("priority", int64(j.Priority), 0, 99)
	for _, cpu := range slices.Concat(j.CPUs[:], j.StreamCPUs[:]) {
		between("CPU", int64(cpu), -1, 1023)
	}
	return errors.Join(errs...)
}

// requests is how many requests a path can have after the warm-up.
func (j Job) requests() int64 {
	n := int64(math.MaxInt64)
	if j.Rounds > 0 {
		n = int64(j.Rounds) * int64(j.Burst)
	}
	switch {
	case j.Load.Duration == 0:
	case j.Load.Mode == result.Open:
		n = min(n, int64(math.Ceil(j.Load.Rate*j.Load.Duration.Seconds())))
	default: // no round trip is faster than two microseconds, and all paths have as many
		paths := int64(len(j.Paths))
		n = min(n, int64(j.Load.Duration/(2*time.Microsecond))/paths+int64(j.Burst))
		if j.Rounds == 0 {
			n = min(n, MaxRequests/paths)
		}
	}
	return n
}
