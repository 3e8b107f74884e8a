// Package pinger sends small requests between ports at a low rate, and answers them, in a process of its own.
//
// In go Plans, each of which replaces the one before, out come Reports. Ports are sockets in the network namespaces of pods, one for what is
// sent and one for what is answered; no process is in a pod. The process is this program once more (see Verb), for the same reason as that of
// pkg/probe/engine: what measures microseconds must not share a garbage collector with what does not. In it one thread sends and one answers.
package pinger

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Limits of a plan.
const (
	MaxPairs    = 1000
	MaxBurst    = 32
	MinInterval = 100 * time.Millisecond
	MaxInterval = time.Minute
	MaxTimeout  = 10 * time.Second
	// MaxRate is how many requests a second there are of all pairs.
	MaxRate = 10_000
)

// A Plan is what to send and what to answer. Durations are nanoseconds in JSON.
type Plan struct {
	// Interval is from the beginning of a burst to that of the next. A burst has Burst requests, a millisecond apart or so.
	Interval time.Duration `json:"interval_ns"`
	Burst    int           `json:"burst"`
	// Size is that of messages, in octets of UDP.
	Size int `json:"size"`
	// Timeout is when a request is lost.
	Timeout time.Duration `json:"timeout_ns"`
	// Port is where requests are sent to. They come from the one after it.
	Port uint16 `json:"port"`

	Pairs   []Pair   `json:"pairs,omitempty"`
	Answers []Answer `json:"answers,omitempty"`
}

// A Pair is who asks and who is asked. What has the same ID in the next plan must be the same, and goes on.
type Pair struct {
	ID   uint64     `json:"id"`
	From End        `json:"from"`
	To   netip.Addr `json:"to"`
}

// An Answer is who answers, and whom.
type Answer struct {
	ID  uint64       `json:"id"`
	At  End          `json:"at"`
	For []netip.Addr `json:"for"`
}

// An End is an address of a device in a network namespace.
type End struct {
	Netns  string     `json:"netns"` // a path
	Device string     `json:"device"`
	Addr   netip.Addr `json:"addr"`
}

// A Report is what happened since the last one.
type Report struct {
	Pairs   []PairReport   `json:"pairs,omitempty"`
	Answers []AnswerReport `json:"answers,omitempty"`
	// Error is why there are no reports any more.
	Error string `json:"error,omitempty"`
}

// Counts are of requests. Each that was sent was answered in time, or lost, or is still waited for.
type Counts struct {
	Sent     uint64 `json:"sent,omitempty"`
	Answered uint64 `json:"answered,omitempty"` // in time
	Lost     uint64 `json:"lost,omitempty"`
	// Late are those of Lost that were answered after all.
	Late uint64 `json:"late,omitempty"`
	// Missed were due and not sent, because the sender was held up for longer than an interval.
	Missed uint64 `json:"missed,omitempty"`
	// Held were sent more than three milliseconds late, and count from when they were due.
	Held uint64 `json:"held,omitempty"`
}

// A PairReport is what became of a pair's requests.
type PairReport struct {
	ID uint64 `json:"id"`
	Counts
	// Took is the time of round trips in nanoseconds, from before the send until the answer has come to the device, without what the request has waited to be
	// answered: not of the first of several in a burst, which finds cold caches, nor of those that were answered with a challenge, or of which the kernel
	// does not say when they came.
	Took []int64 `json:"took,omitempty"`
	// Error is why the last request could not be sent, or the socket not be opened. "": it could.
	Error string `json:"error,omitempty"`
}

// An AnswerReport is what a port has answered.
type AnswerReport struct {
	ID       uint64 `json:"id"`
	Answered uint64 `json:"answered,omitempty"`
	// Refused are datagrams from addresses that are answered, which were none of ours, or too many. What comes from others is not counted.
	Refused uint64 `json:"refused,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Check returns why the plan cannot be followed by anybody.
func (p Plan) Check() error {
	errs := []error{p.CheckTerms()}
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	ids := map[uint64]bool{}
	end := func(what string, id uint64, e End) {
		check(!ids[id], "%s %d: there are two", what, id)
		ids[id] = true
		check(e.Netns != "" && e.Device != "" && e.Addr.IsValid(), "%s %d: an end without a namespace, a device or an address", what, id)
	}
	for _, p := range p.Pairs {
		end("pair", p.ID, p.From)
		check(p.To.IsValid() && p.To.Is4() == p.From.Addr.Is4(), "pair %d: %v and %v are not two addresses of one family", p.ID, p.From.Addr, p.To)
	}
	clear(ids)
	check(len(p.Answers) <= MaxPairs, "%d ports answer, more than %d", len(p.Answers), MaxPairs)
	for _, a := range p.Answers {
		end("answer", a.ID, a.At)
		check(len(a.For) <= MaxPairs, "answer %d: for %d, more than %d", a.ID, len(a.For), MaxPairs)
		for _, f := range a.For {
			check(f.IsValid() && f.Is4() == a.At.Addr.Is4(), "answer %d: %v and %v are not two addresses of one family", a.ID, a.At.Addr, f)
		}
	}
	return errors.Join(errs...)
}

// CheckTerms is the part of Check that does not look at the ends.
func (p Plan) CheckTerms() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(MinInterval <= p.Interval && p.Interval <= MaxInterval, "interval %v: not from %v to %v", p.Interval, MinInterval, MaxInterval)
	check(1 <= p.Burst && p.Burst <= MaxBurst, "burst %d: not from 1 to %d", p.Burst, MaxBurst)
	check(MinSize <= p.Size && p.Size <= MaxSize, "size %d: not from %d to %d", p.Size, MinSize, MaxSize)
	check(time.Millisecond <= p.Timeout && p.Timeout <= MaxTimeout, "timeout %v: not from 1ms to %v", p.Timeout, MaxTimeout)
	check(1 <= p.Port && p.Port < 65535, "port %d: not from 1 to 65534", p.Port)
	check(len(p.Pairs) <= MaxPairs, "%d pairs, more than %d", len(p.Pairs), MaxPairs)
	if p.Interval > 0 {
		rate := float64(len(p.Pairs)*p.Burst) / p.Interval.Seconds()
		check(rate <= MaxRate, "%.0f requests a second, more than %d", rate, MaxRate)
	}
	return errors.Join(errs...)
}
