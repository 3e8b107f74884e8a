// Package result is what a probe has measured, in the form in which it is kept, sent and compared. It is pure.
package result

import "time"

// Version is that of the form. A reader refuses a greater one; fields are only added.
const Version = 1

// A Run is one campaign: the same loads on all paths, in sessions.
type Run struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Program string    `json:"program"` // "offloadd 1.2.3"

	Parameters Parameters `json:"parameters"`
	Machine    Machine    `json:"machine"`

	Paths    []Path    `json:"paths"`
	Missing  []Missing `json:"missing,omitempty"` // kinds that were asked for and could not be built here
	Baseline string    `json:"baseline"`          // the name of the path that others are compared with

	Cases []Case `json:"cases"`

	// Noise says why there are no verdicts; empty: the machine was quiet enough.
	Noise []string `json:"noise,omitempty"`
}

// Parameters are what was asked for, with all defaults filled in.
type Parameters struct {
	Loads    []Load        `json:"loads"`
	Sessions int           `json:"sessions"`
	Rounds   int           `json:"rounds"` // of each session and load: each path in random order
	Burst    int           `json:"burst"`  // transactions of a path in a round; the first is not counted
	Timeout  time.Duration `json:"timeout"`
	Busy     bool          `json:"busy"` // polling instead of sleeping
	Priority int           `json:"priority"`
	CPUs     [2]int        `json:"cpus"` // of the client and the server; -1: any
	Seed     uint64        `json:"seed"`
	Margin   time.Duration `json:"margin"` // differences up to this do not matter to who asks
	Study    string        `json:"study,omitempty"`
}

// A Load is what is sent.
type Load struct {
	Mode      string        `json:"mode"`      // "rr", "open", "crr" or "stream"
	Transport string        `json:"transport"` // "udp" or "tcp"
	Size      int           `json:"size"`      // octets of payload, of the request and of the answer
	Rate      float64       `json:"rate,omitempty"`
	Duration  time.Duration `json:"duration,omitempty"`
}

// Machine are facts that change results; see docs/probe.md.
type Machine struct {
	Hostname string            `json:"hostname"`
	Kernel   string            `json:"kernel"`
	CPU      string            `json:"cpu"`
	CPUs     int               `json:"cpus"`
	Facts    map[string]string `json:"facts"`
}

// A Path is what was measured.
type Path struct {
	Name   string            `json:"name"`
	Kind   string            `json:"kind"`
	Twin   string            `json:"twin,omitempty"` // of the path that it is identical with
	Stands []string          `json:"stands"`         // systems that the studies measured
	About  string            `json:"about"`          // what a packet passes
	Facts  map[string]string `json:"facts,omitempty"`
}

// A Missing is a kind that cannot be built here.
type Missing struct {
	Kind string `json:"kind"`
	Why  string `json:"why"`
}

// A Case is one load on one path.
type Case struct {
	Path string `json:"path"`
	Load Load   `json:"load"`

	Sessions []Session `json:"sessions"`

	// What follows is computed from Sessions.
	Latency *Latency `json:"latency,omitempty"`
	// FromSend is of open loops: from when a request was sent, not from when it should have been.
	FromSend *Latency  `json:"from_send,omitempty"`
	Rate     float64   `json:"rate"`              // transactions per second, or octets per second of a stream as they were received
	CPU      [2]CPU    `json:"cpu"`               // of the client and the server
	Against  *Against  `json:"against,omitempty"` // the baseline; nil: it is the baseline
	Segments *Segments `json:"segments,omitempty"`
	Loss     Loss      `json:"loss"`
}

// A Session is one process with new sockets.
type Session struct {
	// Histogram and FromSend are HdrHistogram's V2 compressed encoding in base64, in nanoseconds.
	Histogram string `json:"histogram,omitempty"`
	FromSend  string `json:"from_send,omitempty"`
	// Blocks are quantiles of consecutive parts of the session, for the interval of a session's own noise: of each the median and the 99th percentile.
	Blocks   [][2]int64    `json:"blocks,omitempty"`
	Elapsed  time.Duration `json:"elapsed"`
	Octets   int64         `json:"octets,omitempty"` // received, of a stream
	CPU      [2]CPU        `json:"cpu"`
	Segments *Segments     `json:"segments,omitempty"`
	Loss     Loss          `json:"loss"`
	TCP      *TCP          `json:"tcp,omitempty"`
}

// Loss is what did not arrive as it should.
type Loss struct {
	Sent       int64 `json:"sent"`
	Lost       int64 `json:"lost"` // not answered in time
	Late       int64 `json:"late"` // of these, answered later
	Duplicates int64 `json:"duplicates"`
	Reordered  int64 `json:"reordered"`
}

// TCP is what tcp_info says has happened meanwhile.
type TCP struct {
	Retransmits int64 `json:"retransmits"`
}

// Latency is a distribution in nanoseconds. What was lost counts as infinitely late.
type Latency struct {
	Count       int64        `json:"count"`
	Min         int64        `json:"min"`
	Max         int64        `json:"max"`
	Mean        float64      `json:"mean"`
	Stddev      float64      `json:"stddev"`
	Jitter      float64      `json:"jitter"`      // RFC 3550, section 6.4.1, of consecutive round trips
	Percentiles []Percentile `json:"percentiles"` // those of which the count is enough, ascending
}

// A Percentile has at least ten samples beyond it.
type Percentile struct {
	P     float64 `json:"p"` // 50, 90, 95, 99, 99.5, 99.9, 99.99, 99.999
	Value int64   `json:"value"`
	Lost  bool    `json:"lost,omitempty"` // more were lost than are beyond it; Value is meaningless
}

// CPU is time that a thread has used, and what the machine used while nobody else was to.
type CPU struct {
	User, System time.Duration
	// PerTransaction is microseconds for a transaction, PerKB for 1024 octets.
	PerTransaction float64 `json:"per_transaction,omitempty"`
	PerKB          float64 `json:"per_kb,omitempty"`
}

// Segments are the parts of a one-way trip by the kernel's software timestamps, medians and 99th percentiles in nanoseconds.
type Segments struct {
	Count                     int64 `json:"count"`
	Send, Path, Receive       int64 // application to device, device to device, device to application
	Send99, Path99, Receive99 int64
}

// Against is the comparison with the baseline.
type Against struct {
	P50, P99 Effect
}

// An Effect is a difference in nanoseconds, positive if the path is slower than the baseline.
type Effect struct {
	Difference float64 `json:"difference"` // the median over sessions
	Low, High  float64 // its 95 % interval
	Floor      float64 `json:"floor"`          // the largest difference seen between twins
	Verdict    string  `json:"verdict"`        // "different", "equivalent", "undecided", "no verdict"
	More       int     `json:"more,omitempty"` // sessions that would decide it, if undecided
}
