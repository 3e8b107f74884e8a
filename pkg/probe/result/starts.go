package result

import "time"

// Starts is how long new ports took, from the request on: until they were made, until they were answered, until their packets were forwarded by filters, and by
// hardware; and to be deleted.
type Starts struct {
	Target Port `json:"target"` // that answers
	// Ports are the logical ports that take turns.
	Ports []string `json:"ports"`
	// Wait is for how long a start is followed, and Interval how often a packet is sent.
	Wait     time.Duration `json:"wait_ns"`
	Interval time.Duration `json:"interval_ns"`
	// NoFilters is why nothing is known of filters; empty: it is.
	NoFilters string `json:"no_filters,omitempty"`
	// Cases has one for each kind and number at once; the name of its path is its name.
	Cases []StartCase `json:"cases"`
}

// A StartCase is starts of one kind, so many at once.
type StartCase struct {
	Path     string  `json:"path"`
	Kind     string  `json:"kind"` // "veth", "vf", "sf"
	Parallel int     `json:"parallel"`
	Batches  []Batch `json:"batches"`
	// Never says why a step is not measured: none of those of the rehearsal came so far.
	Never map[string]string `json:"never,omitempty"`

	// What follows is computed from Batches, by stats.Judge.

	Failed int         `json:"failed,omitempty"`
	Steps  []StartStep `json:"steps,omitempty"`
	// Made, Answered and Deleted are ports per second: those of all batches in which nothing failed, by the time until the last of a batch was.
	Made     float64 `json:"made_per_s,omitempty"`
	Answered float64 `json:"answered_per_s,omitempty"`
	Deleted  float64 `json:"deleted_per_s,omitempty"`
}

// A Batch is starts that were asked for at the same time, and deleted at the same time.
type Batch struct {
	Starts []Start `json:"starts"`
}

// The steps of a start, each from the request on, but for StepDeleted, which is from when that was asked for.
const (
	StepConfigured   = "interface up"
	StepInstalled    = "OVN up"
	StepCreated      = "created"
	StepAnswered     = "first answer"
	StepFilters      = "requests by filters"
	StepFiltersBack  = "answers by filters"
	StepHardware     = "requests in hardware"
	StepHardwareBack = "answers in hardware"
	StepDeleted      = "deletion"
)

// StartSteps are all of them, in the order in which they are shown.
func StartSteps() []string {
	return []string{
		StepConfigured, StepInstalled, StepCreated, StepAnswered, StepFilters, StepFiltersBack, StepHardware, StepHardwareBack, StepDeleted,
	}
}

// A Start is one.
type Start struct {
	Port   string `json:"port"`
	Failed string `json:"failed,omitempty"` // why it was not made, or was not deleted
	// Configured is when the interface had its addresses and was up, Installed when its flows were, Created when the call returned, Answered when the first
	// answer came; 0: not in time.
	Configured time.Duration `json:"configured_ns"`
	Installed  time.Duration `json:"installed_ns"`
	Created    time.Duration `json:"created_ns"`
	Answered   time.Duration `json:"answered_ns"`
	Deleted    time.Duration `json:"deleted_ns"`
	// Sent is how many packets there were.
	Sent int `json:"sent"`
	// Requests and Answers are when those packets began to be forwarded.
	Requests Forwarding `json:"requests"`
	Answers  Forwarding `json:"answers"`
}

// A Forwarding is when filters began to forward the packets of one direction.
type Forwarding struct {
	// Filters is when the first one that filters forwarded was sent, and Packet which that was, from 1 for the first that was answered, or the first answer; 0:
	// none. In hardware likewise.
	Filters        time.Duration `json:"filters_ns,omitempty"`
	Packet         int           `json:"packet,omitempty"`
	Hardware       time.Duration `json:"hardware_ns,omitempty"`
	HardwarePacket int           `json:"hardware_packet,omitempty"`
	// Exact says that the numbers are those of packets that were counted. Otherwise filters were made anew meanwhile, which lost what they had counted: then times
	// are when it was seen, or what has been counted since says, the earlier of the two, so it was not later; and there are no numbers.
	Exact bool `json:"exact,omitempty"`
	// Unknown is why nothing is known; empty: it is.
	Unknown string `json:"unknown,omitempty"`
}

// A StartStep is a step of all starts of a case.
type StartStep struct {
	Name string `json:"name"`
	// Latency counts starts that failed, or did not come so far in time, as lost.
	Latency *Latency `json:"latency"`
	// Packet is the median number of the packet, as in Forwarding, of those that are exact, and Exact how many are; both 0: the step is not of packets.
	Packet int `json:"packet,omitempty"`
	Exact  int `json:"exact,omitempty"`
}

// At returns when a start came so far, and for steps of packets which packet that was; 0: it did not, or it is not known.
func (s *Start) At(step string) (at time.Duration, packet int) {
	switch step {
	case StepConfigured:
		return s.Configured, 0
	case StepInstalled:
		return s.Installed, 0
	case StepCreated:
		return s.Created, 0
	case StepAnswered:
		return s.Answered, 0
	case StepFilters:
		return s.Requests.Filters, s.Requests.Packet
	case StepFiltersBack:
		return s.Answers.Filters, s.Answers.Packet
	case StepHardware:
		return s.Requests.Hardware, s.Requests.HardwarePacket
	case StepHardwareBack:
		return s.Answers.Hardware, s.Answers.HardwarePacket
	case StepDeleted:
		return s.Deleted, 0
	}
	panic("result: a step that no start has: " + step)
}
