package monitor

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/pinger"
	"github.com/offloadd/offloadd/pkg/reason"
)

const (
	// soon is when ways are looked at after flows have become others, for the first time.
	soon = 2 * time.Second
	// pause is how long a process that has ended is not started again, the first time; then twice as long, up to maxPause.
	pause    = time.Second
	maxPause = time.Minute
)

// Options are of a Monitor.
type Options struct {
	Config Config
	Log    *slog.Logger
	// File remembers how far pairs were offloaded; "": nothing is remembered.
	File string
	// Ways looks which way the packets of pairs take since the last call, in the order of flows; nil: nobody can tell. It is called once in
	// Config.Look, and when flows have become others. What is not known has no packets; with an error there may be some that are known.
	Ways func(ctx context.Context, flows []Flow) ([]Way, error)
	// Now is the clock; nil: that of the machine.
	Now func() time.Time
}

// A Side is the requests of a pair, or its answers.
type Side struct {
	Pair
	Answers bool
}

// Port is the logical port whose packets these are.
func (s Side) Port() string {
	if s.Answers {
		return s.To
	}
	return s.From
}

func compareSides(a, b Side) int {
	answers := func(s Side) int {
		if s.Answers {
			return 1
		}
		return 0
	}
	return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To), answers(a)-answers(b))
}

// A Flow is the packets of a side that a port of this node sends.
type Flow struct {
	Side
	Ends             pinger.Pair // From is that port
	FromPort, ToPort uint16
}

// A Monitor measures pairs. It may be used from many goroutines.
type Monitor struct {
	options Options
	world   chan World

	mu      sync.Mutex
	sides   map[Side]*tracked
	byID    map[uint64]*tracked // by the pinger's number of requests
	answers pinger.AnswerReport // of all ports, since the start
	names   map[uint64]string   // of ports that answer
	broken  map[string]string   // ports that cannot answer, and why
	failed  string              // why there is no process
	blind   string              // why not all ways are known
	flows   []Flow
	known   map[Side]memento
	memory  memory
	changed chan struct{} // closed when there is something new
}

// A tracked is a side with what is known of it.
type tracked struct {
	ends    *pinger.Pair // nil: it is not measured
	absent  Status       // why
	chassis string       // of who answers
	since   time.Time    // when its state began
	state   Status
	series  series
	path    path
	speed   speed
	way     Way
	error   string // of the pinger
	lost    uint64 // how often its offload was lost
}

// A Status is how a pair is.
type Status struct {
	Reason  reason.Reason // ""; it is measured, and nothing is wrong
	Message string
}

// Worse reports whether something is wrong with the pair. That it is not measured, because one of its ends is not there, is not.
func (s State) Worse() bool { return (s.Measured || s.Answers) && s.Reason != "" }

// A State is a side for people and metrics.
type State struct {
	Pair
	// Answers says that these are the answers, which a port of this node sends: only their way is known.
	Answers bool
	Status
	Since    time.Time
	Measured bool   // requests are sent
	Chassis  string // of who answers; "": none
	Counts   pinger.Counts
	Latency  Latency
	Level    Level
	Way      Way    // at the last look
	Why      string // packets are not offloaded further
	// Regressions is how often its offload was lost since the start.
	Regressions uint64
	// All is set if it was asked for.
	All Histogram
}

// New returns a Monitor, which does nothing before Run. The Config has been checked.
func New(o Options) *Monitor {
	if o.Now == nil {
		o.Now = time.Now
	}
	m := &Monitor{
		options: o, world: make(chan World, 1), sides: map[Side]*tracked{}, byID: map[uint64]*tracked{}, broken: map[string]string{}, changed: make(chan struct{}),
		memory: memory(o.File),
	}
	var err error
	if m.known, err = m.memory.read(); err != nil {
		o.Log.Warn("offload of probes not remembered", "err", err)
	}
	return m
}

// Ports are the logical ports that See is to tell of.
func (m *Monitor) Ports() []string { return m.options.Config.Ports() }

// See tells what the world is like now. It does not wait.
func (m *Monitor) See(w World) {
	for {
		select {
		case m.world <- w:
			return
		case <-m.world: // nobody needs an older one
		}
	}
}

// Run measures until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	if len(m.options.Config.Pairs) == 0 {
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	plans := make(chan pinger.Plan, 1)
	ended := make(chan struct{})
	// It ends with ctx.
	go func() {
		defer close(ended)
		m.ping(ctx, plans)
	}()
	numbers := &numbering{}
	look := time.NewTimer(soon)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			<-ended
			return nil
		case w := <-m.world:
			var all map[Pair]role
			all, numbers = roles(m.options.Config, w, numbers)
			m.arrange(all)
			put(plans, plan(m.options.Config, all))
			look.Reset(soon)
		case <-look.C:
			m.look(ctx)
			look.Reset(time.Duration(m.options.Config.Look))
		}
	}
}

// put replaces what was not taken.
func put[T any](to chan T, v T) {
	select {
	case <-to:
	default:
	}
	to <- v
}

// ping runs the process, again whenever it ends.
func (m *Monitor) ping(ctx context.Context, plans <-chan pinger.Plan) {
	last := pinger.Plan{}
	for wait := pause; ctx.Err() == nil; wait = min(2*wait, maxPause) {
		for len(last.Pairs) == 0 && len(last.Answers) == 0 { // there is nothing to do
			select {
			case <-ctx.Done():
				return
			case last = <-plans:
			}
		}
		tell, done := make(chan pinger.Plan, 1), make(chan error, 1)
		tell <- last
		begun := time.Now()
		// It ends with ctx, or with the process.
		go func() { done <- pinger.Run(ctx, tell, m.report) }()
		var err error
		for running := true; running; {
			select {
			case err = <-done:
				running = false
			case last = <-plans:
				put(tell, last)
			}
		}
		if ctx.Err() != nil {
			return
		}
		m.fail(err.Error())
		m.options.Log.Warn("probe process ended", "err", err, "retry_in", wait)
		if time.Since(begun) > maxPause {
			wait = pause
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			m.fail("")
		}
	}
}

func (m *Monitor) fail(why string) {
	m.mu.Lock()
	m.failed = why
	m.settle()
	m.mu.Unlock()
}

// arrange takes what has to be done for each pair. What is measured as before goes on.
func (m *Monitor) arrange(all map[Pair]role) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byID, m.names, m.flows = map[uint64]*tracked{}, map[uint64]string{}, nil
	port := m.options.Config.Port
	for p, r := range all {
		requests, answers := Side{p, false}, Side{p, true}
		if r.answers == nil {
			delete(m.sides, answers)
		} else {
			m.names[r.answers.ID] = p.To
			m.follow(Flow{answers, pinger.Pair{From: r.answers.At, To: r.answers.For[0]}, port, port + 1}).chassis = r.chassis
		}
		switch {
		case !r.here:
			delete(m.sides, requests)
		case r.sends == nil:
			t := m.side(requests)
			t.forget(nil)
			t.absent, t.chassis = Status{r.why, r.message}, r.chassis
		default:
			t := m.follow(Flow{requests, *r.sends, port + 1, port})
			m.byID[r.sends.ID], t.chassis = t, r.chassis
		}
	}
	slices.SortFunc(m.flows, func(a, b Flow) int { return compareSides(a.Side, b.Side) })
	for name := range m.broken {
		if !slices.Contains(slices.Collect(maps.Values(m.names)), name) {
			delete(m.broken, name)
		}
	}
	m.settle()
}

// side returns what is known of a side. mu is held.
func (m *Monitor) side(s Side) *tracked {
	t := m.sides[s]
	if t == nil {
		t = &tracked{since: m.options.Now()}
		m.sides[s] = t
	}
	return t
}

// follow makes a flow one that is looked at. mu is held.
func (m *Monitor) follow(f Flow) *tracked {
	t := m.side(f.Side)
	if t.ends == nil || *t.ends != f.Ends {
		t.forget(&f.Ends)
		if k := m.known[f.Side]; k.Ends == endsOf(f.Ends) {
			t.path.best = k.Best
		}
	}
	m.flows = append(m.flows, f)
	return t
}

// forget gives the side another way, of which nothing is known. What was counted stays.
func (t *tracked) forget(ends *pinger.Pair) {
	t.ends, t.absent = ends, Status{}
	t.path, t.speed, t.way, t.error = path{}, speed{}, Way{}, ""
	t.series.samples, t.series.silent = nil, 0
}

// report takes what the process says.
func (m *Monitor) report(r pinger.Report) {
	m.mu.Lock()
	now := m.options.Now()
	for _, p := range r.Pairs {
		t := m.byID[p.ID]
		if t == nil {
			continue // of a plan before
		}
		t.speed.add(t.series.add(p, now), m.options.Config.Slower)
		t.error = p.Error
	}
	for _, a := range r.Answers {
		m.answers.Answered += a.Answered
		m.answers.Refused += a.Refused
		if name, ok := m.names[a.ID]; ok && a.Error != m.broken[name] {
			if m.broken[name] = a.Error; a.Error == "" {
				delete(m.broken, name)
			}
		}
	}
	m.settle()
	m.mu.Unlock()
}

// look looks which way the packets take.
func (m *Monitor) look(ctx context.Context) {
	if m.options.Ways == nil {
		return
	}
	m.mu.Lock()
	flows := m.flows
	m.mu.Unlock()
	ways, err := m.options.Ways(ctx, flows)
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	if said := errorText(err); said != m.blind {
		if m.blind = said; err != nil {
			m.options.Log.Warn("ways of probes not known", "err", err)
		}
	}
	now := m.options.Now()
	for i, f := range flows {
		if t := m.sides[f.Side]; t != nil && t.ends != nil && *t.ends == f.Ends {
			was := t.path.lost() != ""
			t.way = ways[i]
			if t.path.look(ways[i], now); !was && t.path.lost() != "" {
				t.lost++
			}
		}
	}
	m.remember()
	m.settle()
	m.mu.Unlock()
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// settle finds out how all pairs are, and says what has changed. mu is held.
func (m *Monitor) settle() {
	now := m.options.Now()
	for p, t := range m.sides {
		s := t.absent
		switch {
		case t.ends == nil:
		case m.failed != "":
			s = Status{reason.Internal, m.failed}
		case p.Answers:
			s.Reason, s.Message = verdict(&t.series, &t.path, &t.speed, m.broken[p.To])
		default:
			s.Reason, s.Message = verdict(&t.series, &t.path, &t.speed, t.error)
		}
		if s.Reason == t.state.Reason {
			t.state.Message = s.Message
			continue
		}
		packets := "requests"
		if p.Answers {
			packets = "answers"
		}
		log := m.options.Log.With("from", p.From, "to", p.To, "packets", packets)
		switch {
		case s.Reason == "":
			log.Info("probe pair well again", "was", string(t.state.Reason))
		case t.ends == nil:
			log.Info("probe pair not measured", "reason", string(s.Reason), "err", s.Message)
		default:
			log.Warn("probe pair worse", "reason", string(s.Reason), "err", s.Message)
		}
		t.state, t.since = s, now
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// States returns what this node knows of pairs, ordered by name, the requests that its ports send before the answers, and a channel that is closed when there is
// something new.
func (m *Monitor) States(histograms bool) ([]State, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]State, 0, len(m.sides))
	now := m.options.Now()
	for p, t := range m.sides {
		t.series.forget(now)
		s := State{
			Pair: p.Pair, Answers: p.Answers, Status: t.state, Since: t.since, Measured: t.ends != nil && !p.Answers, Chassis: t.chassis, Counts: t.series.counts,
			Latency: latency(t.series.samples), Level: t.path.level, Way: t.way, Why: t.path.why, Regressions: t.lost,
		}
		if histograms && !p.Answers {
			s.All = t.series.all.clone()
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b State) int { return compareSides(Side{a.Pair, a.Answers}, Side{b.Pair, b.Answers}) })
	return all, m.changed
}

// Answers is what ports of this node have answered and refused, since the start.
func (m *Monitor) Answers() (answered, refused uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answers.Answered, m.answers.Refused
}
