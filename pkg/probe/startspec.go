package probe

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/train"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A StartSpec is which ports are to be made, how often, and who answers them. What is zero has a default.
type StartSpec struct {
	// Target is the logical port that answers: one of this node's, which is ready. Ports are logical ports that no port is of.
	Target string
	Ports  []string
	// Kinds are of "veth", "vf", "sf", and Pool is where functions come from, empty: any.
	Kinds []string
	Pool  string
	// Gateway is the router to the target of ports that are on another logical switch. Invalid: there are none.
	Gateway netip.Addr
	// Port is that of the target, of UDP, and Family 4 or 6; 0: the first that the target and all ports have addresses of.
	Port   uint16
	Family int

	// Count is how many starts there are of each kind with each of Parallel, which is how many at once.
	Count    int
	Parallel []int
	// Wait is for how long a start is followed.
	Wait time.Duration
	// Interval is how often a packet is sent: no time is more precise.
	Interval time.Duration
	Seed     uint64 // of the order
}

// Defaults of a StartSpec, and limits.
const (
	DefaultStarts        = 40
	DefaultStartWait     = 10 * time.Second
	DefaultStartInterval = time.Millisecond

	MaxStarts        = 10_000
	MaxStartPorts    = 256
	MaxParallel      = 64
	MaxStartWait     = time.Minute
	MaxStartInterval = 100 * time.Millisecond
	maxParallels     = 8
)

var startKinds = []string{"veth", "vf", "sf"}

// Validate returns the StartSpec with its defaults, which is valid itself, or an error with reason InvalidField, whose fields are those of the API.
func (s StartSpec) Validate() (StartSpec, error) {
	var fields []reason.Field
	refuse := func(path, format string, args ...any) {
		fields = append(fields, reason.Field{Path: path, Cause: fmt.Sprintf(format, args...)})
	}
	name := func(path, text string) {
		if text == "" || len(text) > maxText {
			refuse(path, "has %d bytes, not from 1 to %d", len(text), maxText)
		}
	}
	name("target", s.Target)
	if n := len(s.Ports); n < 1 || n > MaxStartPorts {
		refuse("ports", "has %d, not from 1 to %d", n, MaxStartPorts)
	}
	for i, p := range s.Ports[:min(len(s.Ports), MaxStartPorts)] {
		path := fmt.Sprintf("ports[%d]", i)
		name(path, p)
		if p == s.Target || slices.Contains(s.Ports[:i], p) {
			refuse(path, "%.64q is the target, or there twice", p)
		}
	}
	if len(s.Kinds) == 0 {
		s.Kinds = startKinds[:1]
	}
	for i, k := range s.Kinds[:min(len(s.Kinds), len(startKinds)+1)] {
		if !slices.Contains(startKinds, k) || slices.Contains(s.Kinds[:i], k) {
			refuse(fmt.Sprintf("kinds[%d]", i), "%.64q is none of veth, vf, sf, or there twice", k)
		}
	}
	if len(s.Pool) > maxText {
		refuse("pool", "has %d bytes, more than %d", len(s.Pool), maxText)
	}
	if s.Pool != "" && !slices.ContainsFunc(s.Kinds, func(k string) bool { return k != "veth" }) {
		refuse("pool", "is for functions of a NIC, which a veth is not")
	}
	if s.Family != 0 && s.Family != 4 && s.Family != 6 {
		refuse("family", "%d is neither 4 nor 6", s.Family)
	}
	setDefault(&s.Port, DefaultPort)
	setDefault(&s.Count, DefaultStarts)
	setDefault(&s.Wait, DefaultStartWait)
	setDefault(&s.Interval, DefaultStartInterval)
	if s.Seed == 0 {
		s.Seed = rand.Uint64()
	}
	if len(s.Parallel) == 0 {
		s.Parallel = []int{1}
	}
	if len(s.Parallel) > maxParallels {
		refuse("parallel", "has %d, more than %d", len(s.Parallel), maxParallels)
	}
	for i, n := range s.Parallel[:min(len(s.Parallel), maxParallels)] {
		if path := fmt.Sprintf("parallel[%d]", i); n < 1 || n > MaxParallel {
			refuse(path, "%d is not from 1 to %d", n, MaxParallel)
		} else if n > len(s.Ports) {
			refuse(path, "%d at once take as many ports, and there are %d", n, len(s.Ports))
		} else if slices.Contains(s.Parallel[:i], n) {
			refuse(path, "%d is there twice", n)
		}
	}
	if s.Count < 1 || s.Count > MaxStarts {
		refuse("count", "%d is not from 1 to %d", s.Count, MaxStarts)
	}
	if s.Wait < time.Second || s.Wait > MaxStartWait {
		refuse("wait", "%v is not from %v to %v", s.Wait, time.Second, MaxStartWait)
	}
	if least := max(train.MinInterval, s.Wait/train.MaxPackets); s.Interval < least || s.Interval > MaxStartInterval {
		refuse("interval", "%v is not from %v to %v", s.Interval, least, MaxStartInterval)
	}
	return s, invalid(fields)
}
