package probe

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// Bounds of a Spec, besides those of engine.Job and path.Want.
const (
	MaxLoads    = 16
	MaxSessions = 200
	MaxCount    = 10_000_000
	// MaxTime is how long a run may take.
	MaxTime = 2 * time.Hour
	// maxMeasuring bounds the durations that are asked for, all together: half of MaxTime, since nothing else has to be short.
	maxMeasuring = MaxTime / 2
	maxText      = 256 // octets of a path or a study
)

// Defaults of a Spec.
const (
	DefaultSessions = 10
	DefaultCount    = 50_000
	DefaultBurst    = 20
	DefaultWarmup   = 200 * time.Millisecond
	DefaultTimeout  = time.Second
	// DefaultPriority is of SCHED_FIFO: without it other programs make most of a tail.
	DefaultPriority = 10
	// DefaultStream is how long a session's stream lasts.
	DefaultStream = time.Second

	// underBursts is how many times as long bursts are under a stream, which takes a while until it flows, on each path in turn.
	underBursts = 5

	segmentSessions = 3                      // with timestamps
	streamTurn      = 200 * time.Millisecond // of a path, before the next one has its turn
)

// DefaultSizes returns the sizes of the default loads, those of the studies.
func DefaultSizes() []int { return []int{64, 300, 350, 500, 1024, 2048, 4096} }

// A Spec is what is to be measured. A field that is zero has its default.
type Spec struct {
	// Paths are of the form that path.ParseWant reads. None: each kind once.
	Paths []string
	// Baseline is the name of the path that others are compared with; it need not be among Paths. It gets a twin. Empty: the first of Paths, or
	// metal.
	Baseline string
	// Wire is for all paths that do not say otherwise; those that have none are missing then.
	Wire result.Wire

	// Loads are measured one after the other in each session. Their durations are of each path. None: those of the study, or round trips of UDP
	// of the default sizes.
	Loads []result.Load
	// Study is a name of report.Studies; its loads, kinds and count are the defaults then.
	Study string

	Sessions int
	// Count is how many requests each path has of each load without a duration, of all sessions together.
	Count  int
	Burst  int // see engine.Job
	Warmup time.Duration
	// Timeout is when a request is lost.
	Timeout time.Duration

	Busy bool
	// Priority is of SCHED_FIFO; nil: DefaultPriority, but 0 if that would leave no CPU to others: if there is one, or two that poll.
	Priority *int
	// CPUs are of the client and the server; nil: two that share neither core nor, if possible, are those of most interrupts.
	CPUs *[2]int
	// Segments adds sessions with timestamps for round trips of UDP.
	Segments bool
	// Fresh makes new devices for each session.
	Fresh bool

	Margin time.Duration
	Seed   uint64
}

// Validate returns s with defaults set, but those that depend on the machine, or an error with reason InvalidField that names every field that
// cannot be as it is, as the .proto file calls it.
func (s Spec) Validate() (Spec, error) {
	var fields []reason.Field
	refuse := func(path, format string, args ...any) {
		fields = append(fields, reason.Field{Path: path, Cause: fmt.Sprintf(format, args...)})
	}
	if s.Study != "" {
		study, err := report.StudyOf(s.Study)
		if err != nil {
			refuse("study", "%.64q: there is none of that name", s.Study)
		}
		if s.Loads == nil {
			s.Loads = study.Loads
		}
		if s.Paths == nil {
			s.Paths = study.Kinds
		}
		setDefault(&s.Count, study.Packets)
	}
	if s.Loads == nil {
		for _, size := range DefaultSizes() {
			s.Loads = append(s.Loads, result.Load{Mode: result.RR, Transport: "udp", Size: size})
		}
	}
	s.setDefaults()
	wants, bad := s.wants()
	fields = append(fields, bad...)
	paths := 0
	for _, w := range wants {
		if paths++; w.Twin {
			paths++
		}
	}
	if paths > engine.MaxPaths {
		refuse("paths", "are %d with twins, more than %d", paths, engine.MaxPaths)
		paths = engine.MaxPaths
	}
	s.check(paths, refuse, func() bool { return len(fields) > 0 })
	return s, invalid(fields)
}

func (s *Spec) setDefaults() {
	setDefault(&s.Sessions, DefaultSessions)
	setDefault(&s.Count, DefaultCount)
	setDefault(&s.Burst, DefaultBurst)
	setDefault(&s.Warmup, DefaultWarmup)
	setDefault(&s.Timeout, DefaultTimeout)
	if s.Seed == 0 {
		s.Seed = rand.Uint64()
	}
}

// check refuses what cannot be measured on so many paths, and completes loads. failed reports whether something has been refused.
func (s *Spec) check(paths int, refuse func(path, format string, args ...any), failed func() bool) {
	between := func(field string, n, low, high int) {
		if n < low || n > high {
			refuse(field, "%d: not from %d to %d", n, low, high)
		}
	}
	between("sessions", s.Sessions, 1, MaxSessions)
	between("count", s.Count, 1, MaxCount)
	between("burst", s.Burst, 1, engine.MaxBurst)
	between("loads", len(s.Loads), 1, MaxLoads)
	for _, d := range []struct {
		field     string
		d         time.Duration
		low, high time.Duration
	}{
		{"warmup", s.Warmup, 0, time.Minute},
		{"timeout", s.Timeout, time.Millisecond, engine.MaxTimeout},
		{"margin", s.Margin, 0, time.Second},
	} {
		if d.d < d.low || d.d > d.high {
			refuse(d.field, "%v: not from %v to %v", d.d, d.low, d.high)
		}
	}
	if s.Priority != nil {
		between("priority", *s.Priority, 0, 99)
	}
	if s.CPUs != nil {
		between("client_cpu", s.CPUs[0], -1, 1023)
		between("server_cpu", s.CPUs[1], -1, 1023)
	}
	measuring := time.Duration(0)
	s.Loads = slices.Clone(s.Loads)
	for i := range min(len(s.Loads), MaxLoads) {
		l := &s.Loads[i]
		field := fmt.Sprintf("loads[%d]", i)
		if streams(*l) {
			setDefault(&l.Duration, DefaultStream)
		}
		if slices.Contains(s.Loads[:i], *l) {
			refuse(field, "%v is there twice", *l)
		}
		if l.Duration < 0 || l.Duration > engine.MaxDuration {
			refuse(field+".duration", "%v: not from 0 to %v", l.Duration, engine.MaxDuration)
			continue
		}
		each := l.Duration
		if l.Under > 0 {
			each += engine.MaximumTime
		}
		measuring += each * time.Duration(together(*l, paths)) * time.Duration(min(max(s.Sessions, 1), MaxSessions))
		if failed() || paths == 0 {
			continue // what follows looks at all of it
		}
		job := s.job(*l, 0)
		for n := range paths {
			a := netip.AddrFrom4([4]byte{127, 0, 0, byte(n + 1)})
			job.Paths = append(job.Paths, engine.Path{Name: fmt.Sprint(n), Client: engine.End{Addr: a}, Server: engine.End{Addr: a}})
		}
		if err := job.Check(); err != nil {
			refuse(field, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	if measuring > maxMeasuring {
		refuse("loads", "take %v with %d paths and %d sessions, more than %v", measuring.Round(time.Second), paths, s.Sessions, maxMeasuring)
	}
}

// invalid is the error of fields that are refused; nil: none is.
func invalid(fields []reason.Field) error {
	if len(fields) == 0 {
		return nil
	}
	causes := make([]string, len(fields))
	for i, f := range fields {
		causes[i] = f.Path + " " + f.Cause
	}
	return &reason.Error{Reason: reason.InvalidField, Err: fmt.Errorf("probe: %s", strings.Join(causes, "; ")), Fields: fields}
}

func setDefault[T comparable](to *T, value T) {
	var zero T
	if *to == zero {
		*to = value
	}
}

// wants are the paths, that of the baseline with a twin. The name of the baseline is in s then.
func (s *Spec) wants() ([]path.Want, []reason.Field) {
	var fields []reason.Field
	var wants []path.Want
	parse := func(field, text string) {
		if len(text) > maxText {
			fields = append(fields, reason.Field{Path: field, Cause: fmt.Sprintf("is longer than %d bytes", maxText)})
			return
		}
		w, err := path.ParseWant(text)
		if err != nil {
			fields = append(fields, reason.Field{Path: field, Cause: err.Error()})
			return
		}
		if w.Name == "" {
			w.Name = w.String()
		}
		if slices.ContainsFunc(wants, func(o path.Want) bool { return o.Name == w.Name }) {
			fields = append(fields, reason.Field{Path: field, Cause: fmt.Sprintf("%q is there twice", w.Name)})
			return
		}
		wants = append(wants, w)
	}
	for i, text := range s.Paths {
		parse(fmt.Sprintf("paths[%d]", i), text)
	}
	if s.Paths == nil {
		for _, k := range path.Kinds() {
			wants = append(wants, path.Want{Kind: k.Name, Name: k.Name})
		}
		setDefault(&s.Baseline, "metal")
	}
	if s.Baseline == "" && len(wants) > 0 {
		s.Baseline = wants[0].Name
	}
	named := func(w path.Want) bool { return w.Name == s.Baseline }
	if s.Baseline != "" && !slices.ContainsFunc(wants, named) {
		before := len(wants)
		parse("baseline", s.Baseline)
		if len(wants) > before {
			s.Baseline = wants[before].Name
		}
	}
	if i := slices.IndexFunc(wants, named); i >= 0 {
		wants[i].Twin = true
	}
	if err := s.checkWire(); err != "" {
		fields = append(fields, reason.Field{Path: "wire", Cause: err})
	}
	return wants, fields
}

// checkWire says what is wrong with the wire.
func (s *Spec) checkWire() string {
	if s.Wire == (result.Wire{}) {
		return ""
	}
	if _, err := path.ParseWant(onWire(path.Want{Kind: "metal"}, s.Wire).String()); err != nil {
		return err.Error()
	}
	return ""
}

// onWire is a path with this wire, unless it has one of its own.
func onWire(w path.Want, wire result.Wire) path.Want {
	if w.Delay == 0 && w.Jitter == 0 && w.Loss == 0 {
		w.Delay, w.Jitter, w.Loss = wire.Delay, wire.Jitter, wire.Loss
	}
	return w
}

func streams(l result.Load) bool { return l.Mode == result.Stream || l.Mode == result.Maerts }

// together is how many paths take their time one after the other. In an open loop all are used at once.
func together(l result.Load, paths int) int {
	if l.Mode == result.Open {
		return 1
	}
	return paths
}

// job is a session of a load, without paths but for as many.
func (s Spec) job(l result.Load, paths int) engine.Job {
	j := engine.Job{Load: l, Burst: s.Burst, Warmup: s.Warmup, Timeout: s.Timeout, Busy: s.Busy, CPUs: [2]int{-1, -1}, StreamCPUs: [2]int{-1, -1}}
	if l.Under > 0 {
		j.Burst = min(j.Burst*underBursts, engine.MaxBurst)
	}
	switch {
	case streams(l):
		j.Rounds = max(1, int(l.Duration/streamTurn))
	case l.Duration > 0:
		j.Load.Duration = l.Duration * time.Duration(max(1, together(l, paths)))
	default:
		counted := j.Burst // of a burst
		if l.Mode != result.Open && counted > 1 {
			counted--
		}
		each := int(math.Ceil(float64(s.Count) / float64(s.Sessions)))
		j.Rounds = (each + counted - 1) / counted
	}
	return j
}
