// Package result is what a probe has measured, in the form in which it is kept, sent and compared. It is pure: values only.
//
// Names in JSON that end in _ns are nanoseconds, as are all numbers of Latency, Segments and Effect. pkg/probe/stats computes what a Case
// has besides its sessions; pkg/probe/report shows a Run, reads and writes it.
package result

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

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

	// Cases has one for each load and path: all paths of a load, in the order of Paths, then those of the next.
	Cases []Case `json:"cases"`

	// Ports are what a run between two ports of a node says besides; nil: it was of other paths.
	Ports *Ports `json:"ports,omitempty"`

	// Starts is how long ports took to be made and used; nil: the run was not of that.
	Starts *Starts `json:"starts,omitempty"`

	// Doubts are facts for which there are no verdicts whatever was measured, as "the clock is hpet".
	Doubts []string `json:"doubts,omitempty"`

	// What follows is computed from Cases, by stats.Judge.

	// Floors are what differences between twins say of differences that mean nothing, for each load that has them.
	Floors []Floor `json:"floors,omitempty"`
	// Noise says why there are no verdicts; empty: the machine was quiet enough.
	Noise []string `json:"noise,omitempty"`
}

// Parameters are what was asked for, with all defaults filled in.
type Parameters struct {
	Loads      []Load        `json:"loads"`
	Sessions   int           `json:"sessions"`
	Rounds     int           `json:"rounds"` // of each session of the first load: each path in random order
	Burst      int           `json:"burst"`  // transactions of a path in a round; the first is not counted
	Warmup     time.Duration `json:"warmup_ns"`
	Timeout    time.Duration `json:"timeout_ns"`
	Busy       bool          `json:"busy"`                  // polling instead of sleeping
	Priority   int           `json:"priority"`              // of SCHED_FIFO; 0: SCHED_OTHER
	CPUs       [2]int        `json:"cpus"`                  // of the client and the server; -1: any
	StreamCPUs *[2]int       `json:"stream_cpus,omitempty"` // of those who send and receive streams in the background, if there are any
	Timestamps bool          `json:"timestamps"`            // segments were measured, in sessions of their own
	Wire       Wire          `json:"wire,omitzero"`         // between the two nodes
	Margin     time.Duration `json:"margin_ns"`             // differences up to this do not matter to who asks
	Seed       uint64        `json:"seed"`                  // of the order of paths, and of the statistics
	Study      string        `json:"study,omitempty"`       // whose loads these are
	Limits     Limits        `json:"limits,omitzero"`
}

// Limits are of what may disturb a session before it is left out, and how much twins may differ; see stats.DefaultLimits. Zero: no limit.
type Limits struct {
	Steal    float64 `json:"steal,omitempty"`    // part of the time of the two CPUs
	Others   float64 `json:"others,omitempty"`   // likewise
	Switches float64 `json:"switches,omitempty"` // involuntary ones, per second
	Floor    float64 `json:"floor,omitempty"`    // part of the baseline's percentile
}

// A Wire is what netem makes of a link, for each direction. Zero: a plain one.
type Wire struct {
	Delay  time.Duration `json:"delay_ns,omitempty"`
	Jitter time.Duration `json:"jitter_ns,omitempty"`
	Loss   float64       `json:"loss,omitempty"` // from 0 to 1
}

// String is as "delay 8ms, jitter 0s, loss 1 %".
func (w Wire) String() string {
	return fmt.Sprintf("delay %v, jitter %v, loss %s %%", w.Delay, w.Jitter, strconv.FormatFloat(100*w.Loss, 'g', 3, 64))
}

// Modes of a Load.
const (
	RR     = "rr"     // closed loop: a request, its answer, the next request
	Open   = "open"   // open loop: requests at a fixed rate, whatever becomes of the answers
	CRR    = "crr"    // connect, request, answer, close
	Stream = "stream" // as much as fits, from the client to the server
	Maerts = "maerts" // as much as fits, from the server to the client
)

// A Load is what is sent.
type Load struct {
	Mode      string        `json:"mode"`
	Transport string        `json:"transport"`        // "udp" or "tcp"
	Size      int           `json:"size"`             // octets of payload of a request, or of a send of a stream
	Answer    int           `json:"answer,omitempty"` // octets of payload of an answer; 0: as many as of the request
	Rate      float64       `json:"rate,omitempty"`   // requests per second of an open loop
	Duration  time.Duration `json:"duration_ns,omitempty"`
	// Under is what a stream of TCP in the background has of what the path carries at most, from 0 to 1; 0: there is none.
	Under float64 `json:"under,omitempty"`
}

// String is as "udp rr 64 B", "tcp open 350 B at 50000/s", "udp rr 64 B under 30 %".
func (l Load) String() string {
	s := fmt.Sprintf("%s %s %d B", l.Transport, l.Mode, l.Size)
	if l.Answer != 0 && l.Answer != l.Size {
		s = fmt.Sprintf("%s %s %d/%d B", l.Transport, l.Mode, l.Size, l.Answer)
	}
	if l.Rate != 0 {
		s += " at " + strconv.FormatFloat(l.Rate, 'f', -1, 64) + "/s"
	}
	if l.Under != 0 {
		s += " under " + strconv.FormatFloat(100*l.Under, 'g', 6, 64) + " %"
	}
	return s
}

// Ports is where packets of a run between two ports of a node went, and how the first ones of a connection fared.
type Ports struct {
	Client Port `json:"client"`
	Server Port `json:"server"`
	// Ways has one for each path.
	Ways []Way `json:"ways"`
	// Lives are those of first flows, by path and by what was there before.
	Lives []Life `json:"lives,omitempty"`

	// BreakEvens is computed from Lives and Cases, by stats.Judge: for each kind of beginning, of time and of CPU.
	BreakEvens []BreakEven `json:"break_evens,omitempty"`
}

// A Port is one end.
type Port struct {
	Name    string `json:"name"` // of the logical port
	Kind    string `json:"kind"` // "veth", "vf", "sf"
	Device  string `json:"device"`
	Address string `json:"address"`
	// NIC says that its device is a port of an embedded switch.
	NIC bool `json:"nic,omitempty"`
}

// Claims of a Way: who has forwarded its packets.
const (
	ByHardware = "hardware" // filters in hardware
	ByFilters  = "filters"  // filters, in hardware or in software
	ByOVS      = "ovs"      // Open vSwitch
)

// A Way is which way the packets of a path took.
type Way struct {
	Path  string `json:"path"`
	Claim string `json:"claim"`
	// Accounts are of requests and of answers.
	Accounts [2]Account `json:"accounts"`
	// Connections are the entries of the connection tracker, in each zone that has one.
	Connections []Connection `json:"connections,omitempty"`
}

// A Connection is what the connection tracker knows.
type Connection struct {
	Zone     uint16 `json:"zone"`
	Assured  bool   `json:"assured"`
	Offload  bool   `json:"offload"`    // it is in a flow table (IPS_OFFLOAD)
	Hardware bool   `json:"hw_offload"` // a NIC forwards it (IPS_HW_OFFLOAD)
}

// A Life is the beginning of connections.
type Life struct {
	Path string `json:"path"`
	// Before says what there was: "cold" is nothing, "new" is that connections of the same ports were there shortly before.
	Before string  `json:"before"`
	Trials []Trial `json:"trials"`
	// Took is the median over trials, by packet from the first one on, in nanoseconds; Lost: most were.
	Took []int64 `json:"took"`
}

// A Trial is one connection.
type Trial struct {
	Took []int64 `json:"took"` // round trips in nanoseconds, by packet; Lost
	Sent []int64 `json:"sent"` // when, from the first one on, in nanoseconds
	// CPU is what each has taken in nanoseconds of both ends, and of ovs-vswitchd meanwhile, whatever for. Empty: that is not known.
	CPU []int64 `json:"cpu,omitempty"`
	// Switches are of requests and of answers.
	Switches [2]Switch  `json:"switches"`
	Accounts [2]Account `json:"accounts"`
}

// What a BreakEven is of.
const (
	OfTime = "time"
	OfCPU  = "cpu"
)

// Verdicts of a BreakEven, beside Undecided.
const (
	FromPacket = "from packet" // From says which
	Never      = "never"       // it stays dearer: in the steady state it is
)

// A BreakEven is how long a connection has to be for a path to be cheaper than the baseline, in all that it takes from the first packet on. A packet is a
// request with its answer. What comes after those of Lives is taken to cost what it does in the steady state.
type BreakEven struct {
	Path   string `json:"path"`
	Before string `json:"before"` // as of Life
	Of     string `json:"of"`

	Verdict string `json:"verdict"`
	Why     string `json:"why,omitempty"` // it is never, or undecided
	// From is the number of packets from which on it is cheaper, the median over connections, and Octets are those of their payload, both ways. 1: it always is.
	From   int64 `json:"from,omitempty"`
	Octets int64 `json:"octets,omitempty"`
	// Low and High are its 95 % interval; 0: there are too few connections.
	Low  int64 `json:"low,omitempty"`
	High int64 `json:"high,omitempty"`

	// Connections are how many were compared, one of each path at a time.
	Connections int `json:"connections"`
	// Packets are the first ones that were looked at, and First is how much more than on the baseline they have taken in all, in nanoseconds: medians.
	Packets int   `json:"packets,omitempty"`
	First   Delta `json:"first"`
	// Then is how much more each further packet takes, with its verdict.
	Then Effect `json:"then"`
}

// A Switch is when filters began to forward packets of a direction.
type Switch struct {
	// Packet is the first one that they forwarded, from 1; 0: none.
	Packet int           `json:"packet"`
	After  time.Duration `json:"after_ns"` // from when the first packet was sent until it was sent
	// Hardware is the first that hardware forwarded, likewise: from how many it has forwarded in the end, since it goes on once it has begun.
	Hardware      int           `json:"hardware,omitempty"`
	HardwareAfter time.Duration `json:"hardware_after_ns,omitempty"`
}

// An Account says where the packets of one direction went, of a path whose packets are counted one by one: those of a port of this node.
type Account struct {
	Flow   string `json:"flow"`   // "udp 10.0.0.1:7531 > 10.0.0.2:7531"
	Device string `json:"device"` // where they come in
	Sent   int64  `json:"sent"`
	// Hardware and Software were forwarded by filters, OVS left to Open vSwitch by them. What remains is Unexplained; negative: more were counted than sent.
	Hardware    int64 `json:"hardware"`
	Software    int64 `json:"software"`
	OVS         int64 `json:"ovs"`
	Dropped     int64 `json:"dropped"`
	Unexplained int64 `json:"unexplained"`
	// Of OVS, what flows of Open vSwitch's datapath have counted, what was sent up to ovs-vswitchd, and what neither explains.
	Datapath int64 `json:"datapath"`
	Upcalls  int64 `json:"upcalls"`
	Lost     int64 `json:"lost,omitempty"`
	// Filters is how many count, and InHW how many of them are in hardware; Changed is how often they were made anew meanwhile.
	Filters int `json:"filters"`
	InHW    int `json:"in_hw"`
	Changed int `json:"changed,omitempty"`
}

// Machine are facts that change results; see docs/probe.md.
type Machine struct {
	Hostname string            `json:"hostname"`
	Kernel   string            `json:"kernel"`
	CPU      string            `json:"cpu"`
	CPUs     int               `json:"cpus"`
	Facts    map[string]string `json:"facts,omitempty"`
}

// A Path is what was measured.
type Path struct {
	Name   string            `json:"name"`
	Kind   string            `json:"kind"`
	Twin   string            `json:"twin,omitempty"`   // the path that it is identical with
	Stands []string          `json:"stands,omitempty"` // systems that the studies measured
	About  string            `json:"about,omitempty"`  // what a packet passes
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

	// Sessions of all paths of a load are of one length: the nth are of the same time, and compared with each other.
	Sessions []Session `json:"sessions"`

	// What follows is computed from Sessions, by stats.Judge.

	Latency *Latency `json:"latency,omitempty"`
	// FromSend is of open loops: from when a request was sent, not from when it should have been.
	FromSend   *Latency    `json:"from_send,omitempty"`
	Rate       float64     `json:"rate"` // transactions per second, or octets per second of a stream as they were received
	CPU        [2]CPU      `json:"cpu"`  // of the client and the server
	Segments   *Segments   `json:"segments,omitempty"`
	OneWay     *OneWay     `json:"one_way,omitempty"`
	Loss       Loss        `json:"loss"`
	TCP        *TCP        `json:"tcp,omitempty"`
	Background *Background `json:"background,omitempty"`
	Against    *Against    `json:"against,omitempty"` // the baseline; nil: it is the baseline, or a stream
}

// A Session is one process with new sockets and, if a path can be made anew, new devices.
type Session struct {
	// Histogram and FromSend are HdrHistogram's V2 compressed encoding in base64, as its Encode returns it, of the nanoseconds
	// of what was answered in time; see stats.NewHistogram.
	Histogram string `json:"histogram,omitempty"`
	FromSend  string `json:"from_send,omitempty"`

	// Blocks are the median and the 99th percentile of consecutive parts of the session, at least a thousand transactions each. The
	// nth blocks of all paths are of the same time. Lost is a percentile that was lost. Without blocks a session's own noise is
	// not known, only that between sessions.
	Blocks [][2]int64 `json:"blocks,omitempty"`

	Jitter float64 `json:"jitter,omitempty"` // as in Latency
	// Elapsed is of this path, without the turns of the others. Transactions are all that were answered in it, also those that do not count.
	Elapsed      time.Duration `json:"elapsed_ns"`
	Transactions int64         `json:"transactions,omitempty"`
	Octets       int64         `json:"octets,omitempty"` // received, of a stream
	// Packets are all datagrams that the client and the server have sent, also before and after what counts.
	Packets [2]int64 `json:"packets,omitzero"`
	CPU     [2]CPU   `json:"cpu"` // of the client and the server
	// Segments are of a session with timestamps. They make it slower, so it has no histogram, and but for losses counts for nothing else.
	Segments *Segments `json:"segments,omitempty"`
	OneWay   *OneWay   `json:"one_way,omitempty"` // of such a session
	Loss     Loss      `json:"loss"`
	TCP      *TCP      `json:"tcp,omitempty"`
	// Background is of a load that has one. CPU is not told then.
	Background *Background `json:"background,omitempty"`
	Noise      Noise       `json:"noise,omitzero"`
}

// Lost is the value of what was lost: it is infinitely late.
const Lost = math.MaxInt64

// A Floor is the 97.5th percentile of the absolute differences between twins, over their pairs and sessions. 0: they
// have too few samples for it.
type Floor struct {
	Load  Load  `json:"load"`
	Pairs int   `json:"pairs"`
	P50   Delta `json:"p50"`
	P99   Delta `json:"p99"`
}

// Noise is what disturbed a session, all of its paths.
type Noise struct {
	Steal    time.Duration `json:"steal_ns,omitempty"`   // taken by the hypervisor from the two CPUs
	Others   time.Duration `json:"others_ns,omitempty"`  // used by others on the two CPUs
	Switches int64         `json:"switches,omitempty"`   // involuntary, of the two threads
	Elapsed  time.Duration `json:"elapsed_ns,omitempty"` // of the session
	// Apart is how long a cache line took from one of the two CPUs to the other and back when the session began; 0: they are not known. It limits nothing, because
	// all paths of a session have the same, but says why sessions differ: a hypervisor has moved virtual CPUs.
	Apart time.Duration `json:"apart_ns,omitempty"`
}

// Loss is what did not arrive as it should.
type Loss struct {
	Sent       int64 `json:"sent"`           // requests whose answers count, of a stream: sends
	Lost       int64 `json:"lost,omitempty"` // not answered in time; also of those that do not count
	Late       int64 `json:"late,omitempty"` // of these, answered later
	Duplicates int64 `json:"duplicates,omitempty"`
	Reordered  int64 `json:"reordered,omitempty"` // they are in the histogram
}

// TCP is what tcp_info says has happened meanwhile.
type TCP struct {
	Retransmits int64 `json:"retransmits"` // segments that either end has sent again
	// RTO is the retransmission timer at the end of a session (tcpi_rto), of the end whose is shorter; of a case the longest.
	RTO time.Duration `json:"rto_ns,omitempty"`
	// Timeouts are requests in the histogram that have waited for such a timer: something was sent again while they were on their way, and they took as
	// long as it. Of requests that have a connection each it is what the client has sent again.
	Timeouts int64 `json:"timeouts,omitempty"`
	// Waited is a histogram of these, of a session.
	Waited string `json:"waited,omitempty"`
}

// Reached is the part of its rate that a stream in the background must have: there is no verdict on a path whose stream has less.
const Reached = 0.9

// Background is the stream of TCP beside the round trips of a path, in octets of payload a second. Of a case it is the medians of sessions.
type Background struct {
	Maximum int64 `json:"maximum"` // what the path carried, in the same session and while nothing else was sent
	Rate    int64 `json:"rate"`    // what was received while round trips were measured
	TCP     TCP   `json:"tcp"`
}

// Part is how much of what the path carries at most the stream had.
func (b *Background) Part() float64 {
	if b.Maximum == 0 {
		return 0
	}
	return float64(b.Rate) / float64(b.Maximum)
}

// Latency is a distribution in nanoseconds. What was lost counts as infinitely late in percentiles, and not at all in the mean.
type Latency struct {
	Count       int64        `json:"count"` // answered in time
	Lost        int64        `json:"lost,omitempty"`
	Min         int64        `json:"min"`
	Max         int64        `json:"max"`               // of what was answered
	MaxRTO      bool         `json:"max_rto,omitempty"` // it is that of a Percentile
	Mean        float64      `json:"mean"`
	Stddev      float64      `json:"stddev"`
	Jitter      float64      `json:"jitter,omitempty"` // RFC 3550, section 6.4.1, of consecutive round trips
	Percentiles []Percentile `json:"percentiles"`      // those of which the count is enough, ascending
}

// At returns the percentile p, as 99.9, if the count is enough for it.
func (l *Latency) At(p float64) (Percentile, bool) {
	if l != nil {
		for _, q := range l.Percentiles {
			if q.P == p {
				return q, true
			}
		}
	}
	return Percentile{}, false
}

// A Percentile has at least ten samples beyond it.
type Percentile struct {
	P     float64 `json:"p"` // 50, 90, 95, 99, 99.5, 99.9, 99.99, 99.999
	Value int64   `json:"value"`
	Lost  bool    `json:"lost,omitempty"` // so much was lost that this is infinite; Value is 0
	RTO   bool    `json:"rto,omitempty"`  // it is a time of TCP's retransmission timer: all samples that it may be of have waited for that
}

// CPU is what one side has used.
type CPU struct {
	User   time.Duration `json:"user_ns"`
	System time.Duration `json:"system_ns"`
	// Forwarding is of programs that pass packets on this side: those of tunnels, ovs-vswitchd.
	Forwarding time.Duration `json:"forwarding_ns,omitempty"`

	// PerTransaction is microseconds of all of it for a transaction, PerKB for 1024 octets of a stream, Utilisation the part of one CPU.
	PerTransaction float64 `json:"us_per_transaction,omitempty"`
	PerKB          float64 `json:"us_per_kb,omitempty"`
	Utilisation    float64 `json:"utilisation,omitempty"`
}

// Segments are the parts of a one-way trip by the kernel's software timestamps, medians and 99th percentiles in nanoseconds.
type Segments struct {
	Count     int64 `json:"count"`
	Send      int64 `json:"send"`    // application to device
	Path      int64 `json:"path"`    // device to device
	Receive   int64 `json:"receive"` // device to application
	Send99    int64 `json:"send_p99"`
	Path99    int64 `json:"path_p99"`
	Receive99 int64 `json:"receive_p99"`
	// NIC is from device to device by the NIC's clock, without what the driver takes before; 0: it does not stamp.
	NIC   int64 `json:"nic,omitempty"`
	NIC99 int64 `json:"nic_p99,omitempty"`
}

// OneWay are the two ways of round trips, medians and 99th percentiles in nanoseconds, by one clock: both ends are on one machine. There is from before
// the client sends until the server has the request, Back until the client has the answer. The two of a request are its round trip; medians need not add up.
type OneWay struct {
	Count   int64 `json:"count"`
	There   int64 `json:"there"`
	Back    int64 `json:"back"`
	There99 int64 `json:"there_p99"`
	Back99  int64 `json:"back_p99"`
}

// Against is the comparison with the baseline.
type Against struct {
	P50 Effect `json:"p50"`
	P99 Effect `json:"p99"`
}

// Verdicts of an Effect.
const (
	Different  = "different"  // the interval is outside the floor
	Equivalent = "equivalent" // the interval is inside the floor, or the margin
	Undecided  = "undecided"  // neither
	NoVerdict  = "no verdict" // the numbers are not to be trusted
)

// An Effect is a difference in nanoseconds, positive if the path is slower than the baseline.
type Effect struct {
	Sessions   int    `json:"sessions"`   // that were compared; 0: nothing follows but Verdict and Why
	Difference Delta  `json:"difference"` // the median over sessions
	Low        Delta  `json:"low"`        // its 95 % interval
	High       Delta  `json:"high"`
	Floor      Delta  `json:"floor"` // 97.5 of 100 differences between twins are within it
	Verdict    string `json:"verdict"`
	More       int    `json:"more,omitempty"` // sessions that would decide it, if undecided; 0: more than are worth it
	Why        string `json:"why,omitempty"`  // there is no verdict
}

// A Delta is a difference. It is infinite if one side was lost; JSON has then "+inf" or "-inf".
type Delta float64

// MarshalJSON makes a string of what JSON has no number for.
func (d Delta) MarshalJSON() ([]byte, error) {
	switch f := float64(d); {
	case math.IsInf(f, 1):
		return []byte(`"+inf"`), nil
	case math.IsInf(f, -1):
		return []byte(`"-inf"`), nil
	case math.IsNaN(f):
		return nil, fmt.Errorf("result: a difference is not a number")
	default:
		return strconv.AppendFloat(nil, f, 'g', -1, 64), nil
	}
}

// UnmarshalJSON is the inverse.
func (d *Delta) UnmarshalJSON(text []byte) error {
	s := strings.Trim(string(bytes.TrimSpace(text)), `"`)
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) {
		return fmt.Errorf("result: %.20q is not a difference", s)
	}
	*d = Delta(f)
	return nil
}
