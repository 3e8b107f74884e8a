package probe

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A PortSpec is what is to be measured between two ports of this node. What is zero has a default, as in Spec.
type PortSpec struct {
	// Client and Server are names of logical ports.
	Client, Server string
	// Port is that of the server, of UDP; a policy has to let it pass. 0: DefaultPort.
	Port uint16
	// Family is 4 or 6; 0: the first that both ports have addresses of.
	Family int

	// New is how many connections are looked at from their first packet on, of each path, and Cold how many after nothing was sent for Idle, for which Open
	// vSwitch's datapath forgets its flows. -1: none.
	New, Cold int
	Idle      time.Duration

	// Spec has the loads, which are round trips of UDP or open loops, and how they are measured. Paths, Baseline, Wire, Study, Segments and Fresh are not
	// asked.
	Spec
}

// Defaults of a PortSpec, and limits.
const (
	// DefaultPort is of nobody (IANA).
	DefaultPort = 7531
	DefaultNew  = 8
	DefaultCold = 2
	// DefaultIdle is longer than other_config:max-idle, ovs-vswitchd.conf.db(5).
	DefaultIdle = 11 * time.Second

	MaxNew  = 100
	MaxCold = 20
)

// portPaths are those of a run between ports: through filters, through Open vSwitch, and that once more.
var portPaths = []string{"offload", "software", "software-twin"}

// Validate returns the PortSpec with its defaults, which is valid itself, or an error with reason InvalidField, whose fields are those of the API.
func (s PortSpec) Validate() (PortSpec, error) {
	var fields []reason.Field
	refuse := func(path, format string, args ...any) {
		fields = append(fields, reason.Field{Path: path, Cause: fmt.Sprintf(format, args...)})
	}
	for field, name := range map[string]string{"client": s.Client, "server": s.Server} {
		if name == "" || len(name) > maxText {
			refuse(field, "has %d bytes, not from 1 to %d", len(name), maxText)
		}
	}
	if s.Client == s.Server {
		refuse("server", "is the client")
	}
	if s.Family != 0 && s.Family != 4 && s.Family != 6 {
		refuse("family", "%d is neither 4 nor 6", s.Family)
	}
	setDefault(&s.Port, DefaultPort)
	setDefault(&s.New, DefaultNew)
	setDefault(&s.Cold, DefaultCold)
	setDefault(&s.Idle, DefaultIdle)
	if s.New < -1 || s.New > MaxNew {
		refuse("new", "%d: not from 0 to %d", s.New, MaxNew)
	}
	if s.Cold < -1 || s.Cold > MaxCold {
		refuse("cold", "%d: not from 0 to %d", s.Cold, MaxCold)
	}
	if s.Idle < 0 || s.Idle > time.Minute {
		refuse("idle", "%v: not from 0 to %v", s.Idle, time.Minute)
	}
	if s.Loads == nil {
		s.Loads = []result.Load{{Mode: result.RR, Transport: "udp", Size: 64}}
	}
	shared := func(path, format string, args ...any) { refuse("spec."+path, format, args...) }
	for i, l := range s.Loads[:min(len(s.Loads), MaxLoads)] {
		if l.Transport != "udp" || l.Mode != result.RR && l.Mode != result.Open {
			shared(fmt.Sprintf("loads[%d]", i), "%s: between ports there are round trips and open loops of UDP", l)
		}
		if l.Under != 0 {
			shared(fmt.Sprintf("loads[%d].under", i), "%v: between ports there is no stream in the background", l.Under)
		}
	}
	s.Paths, s.Baseline, s.Wire, s.Study, s.Segments, s.Fresh = nil, portPaths[1], result.Wire{}, "", false, false
	s.setDefaults()
	s.check(len(portPaths), shared, func() bool { return len(fields) > 0 })
	return s, invalid(fields)
}

// dynamicPorts are those of clients: what the system gives away by itself, so that no policy knows them.
func (s PortSpec) dynamicPorts() func() uint16 {
	const first, number = 32768, 28232
	next := rand.IntN(number)
	return func() uint16 {
		for {
			next++
			if p := uint16(first + next%number); p != s.Port {
				return p
			}
		}
	}
}

// lifeJob sends a packet at a time.
func (s PortSpec) lifeJob(p engine.Path) engine.Job {
	return engine.Job{
		Paths: []engine.Path{p}, Load: result.Load{Mode: result.RR, Transport: "udp", Size: s.Loads[0].Size, Answer: s.Loads[0].Answer}, Rounds: lifePackets + lifeMore, Burst: 1,
		Timeout: s.Timeout, Busy: s.Busy,
	}
}
