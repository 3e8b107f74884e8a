package probe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A campaign is a run while it is made.
type campaign struct {
	Spec
	options Options
	tell    func(Progress)

	allowed  int // how many CPUs there are
	cpus     [2]int
	streams  [2]int // CPUs of the threads of streams in the background
	priority int
	run      *result.Run
	notes    map[string]bool // of the engine, for the report

	// What follows is by load, and then by path.
	sessions, segments []map[string][]result.Session
	failed             []map[string]string // why a path is not measured any more
	done, jobs         int
}

func newCampaign(s Spec, o Options, tell func(Progress)) campaign {
	if tell == nil {
		tell = func(Progress) {}
	}
	return campaign{Spec: s, options: o, tell: tell}
}

func (c *campaign) say(doing string, session int, fraction float64) {
	c.tell(Progress{Fraction: fraction, Doing: doing, Session: session, Sessions: c.Sessions})
}

// measure returns a run that is not judged yet.
func (c *campaign) measure(ctx context.Context) (_ *result.Run, err error) {
	started := now()
	if err := c.settle(); err != nil {
		return nil, err
	}
	wants, missing := c.possible()
	c.say("building paths", 0, 0)
	built, impossible, err := path.Build(ctx, path.Options{Kinds: wants, Functions: c.options.Functions, Wait: c.options.Wait})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	missing = append(missing, impossible...)
	if i := slices.IndexFunc(built.Paths, func(p path.Path) bool { return p.Name == c.Baseline }); i < 0 {
		return nil, c.noBaseline(missing)
	}
	before := readMachine()
	c.run = &result.Run{
		Version: result.Version, ID: started.Format("20060102-150405") + fmt.Sprintf("-%04x", rand.N(1<<16)), Started: started, Program: c.options.Program,
		Parameters: c.parameters(), Paths: describe(built.Paths), Missing: missing, Baseline: c.Baseline,
	}
	if err := c.measureSessions(ctx, built, wants); err != nil {
		return nil, err
	}
	c.collect()
	c.run.Machine, c.run.Doubts = c.machine(ctx, before)
	c.run.Ended = now()
	return c.run, nil
}

// settle decides what depends on the machine.
func (c *campaign) settle() error {
	allowed, err := allowedCPUs()
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	c.allowed = len(allowed)
	if c.Busy && len(allowed) < 2 {
		return reason.Errorf(reason.ProbeImpossible, "probe: polling needs two CPUs, there is one")
	}
	c.cpus = pair(allowed, readTopology)
	if c.CPUs != nil {
		c.cpus = *c.CPUs
	}
	if c.Busy && c.cpus[0] >= 0 && c.cpus[0] == c.cpus[1] {
		return reason.Errorf(reason.ProbeImpossible, "probe: polling needs two CPUs, not CPU %d for both sides", c.cpus[0])
	}
	c.streams = beside(allowed, c.cpus, readTopology)
	if c.Busy && slices.Contains(c.cpus[:], c.streams[0]) && slices.ContainsFunc(c.Loads, func(l result.Load) bool { return l.Under > 0 }) {
		return reason.Errorf(reason.ProbeImpossible, "probe: client and server that poll leave the stream in the background no CPU: that takes three")
	}
	switch {
	case c.Priority != nil:
		c.priority = *c.Priority
	case len(allowed) > 2 || !c.Busy && len(allowed) == 2:
		c.priority = DefaultPriority
	}
	return nil
}

// possible are the paths that these loads can be measured on.
func (c *campaign) possible() (wants []path.Want, missing []result.Missing) {
	all, _ := c.wants() // it was valid
	kinds := kindsByName()
	for _, w := range all {
		on := onWire(w, c.Wire)
		switch k := kinds[w.Kind]; {
		case on != w && !slices.Contains(k.Options, path.OptionDelay):
			missing = append(missing, result.Missing{Kind: w.Name, Why: "it has no wire that could be slow or lose something"})
		case k.Process && c.Busy && c.allowed < 3:
			missing = append(missing, result.Missing{Kind: w.Name, Why: "its packets wait for a process, which would starve while client and server poll on the only two CPUs"})
		default:
			on.Name = w.Name
			wants = append(wants, on)
		}
	}
	return wants, missing
}

// noBaseline says why there is nothing to compare with.
func (c *campaign) noBaseline(missing []result.Missing) error {
	why := "it was not built"
	all, _ := c.wants()
	for _, m := range missing {
		if i := slices.IndexFunc(all, func(w path.Want) bool { return w.Name == c.Baseline }); m.Kind == c.Baseline || m.Kind == onWire(all[i], c.Wire).String() {
			why = m.Why
		}
	}
	return reason.Errorf(reason.ProbeImpossible, "probe baseline %s: %s", c.Baseline, why)
}

// parameters are those that the run has had, with all defaults.
func (c *campaign) parameters() result.Parameters {
	p := result.Parameters{
		Loads: c.Loads, Sessions: c.Sessions, Rounds: c.Spec.job(c.Loads[0], 0).Rounds, Burst: c.Burst, Warmup: c.Warmup, Timeout: c.Timeout,
		Busy: c.Busy, Priority: c.priority, CPUs: c.cpus, Timestamps: c.Segments, Wire: c.Wire, Margin: c.Margin, Seed: c.Seed, Study: c.Study,
		Limits: stats.DefaultLimits(),
	}
	if slices.ContainsFunc(c.Loads, func(l result.Load) bool { return l.Under > 0 }) {
		p.StreamCPUs = &c.streams
	}
	return p
}

func kindsByName() map[string]path.Kind {
	kinds := map[string]path.Kind{}
	for _, k := range path.Kinds() {
		kinds[k.Name] = k
	}
	return kinds
}

func describe(paths []path.Path) []result.Path {
	kinds := kindsByName()
	var all []result.Path
	for _, p := range paths {
		k := kinds[p.Kind]
		all = append(all, result.Path{Name: p.Name, Kind: p.Kind, Twin: p.Twin, Stands: k.Stands, About: k.Passes, Facts: p.Facts})
	}
	return all
}

// measureSessions measures all loads in all sessions. It leaves no paths but those of built, which has changed if they are to be fresh.
func (c *campaign) measureSessions(ctx context.Context, built *path.Built, wants []path.Want) error {
	c.notes = map[string]bool{}
	for _, l := range c.Loads {
		c.sessions = append(c.sessions, map[string][]result.Session{})
		c.segments = append(c.segments, map[string][]result.Session{})
		c.failed = append(c.failed, map[string]string{})
		c.jobs += c.Sessions
		if c.hasSegments(l) {
			c.jobs += min(segmentSessions, c.Sessions)
		}
	}
	wanted := slices.Clone(built.Paths)
	for session := range c.Sessions {
		if c.Fresh && session > 0 {
			if err := c.rebuild(ctx, built, wants, wanted, session); err != nil {
				return err
			}
		}
		for i, l := range c.Loads {
			if err := c.measureJob(ctx, built.Paths, i, session, false); err != nil {
				return err
			}
			if c.hasSegments(l) && session < segmentSessions {
				if err := c.measureJob(ctx, built.Paths, i, session, true); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *campaign) hasSegments(l result.Load) bool {
	return c.Segments && l.Mode == result.RR && l.Transport == "udp" && l.Under == 0
}

// rebuild makes the devices anew.
func (c *campaign) rebuild(ctx context.Context, built *path.Built, wants []path.Want, wanted []path.Path, session int) error {
	c.say("building paths", session+1, float64(c.done)/float64(c.jobs))
	if err := built.Close(); err != nil {
		return err
	}
	// Between the two another process may take its turn.
	again, missing, err := path.Build(ctx, path.Options{Kinds: wants, Functions: c.options.Functions, Wait: true})
	if err != nil {
		return err
	}
	*built = *again
	for _, p := range wanted {
		if slices.ContainsFunc(built.Paths, func(q path.Path) bool { return q.Name == p.Name }) {
			continue
		}
		why := "it was not built again"
		if i := slices.IndexFunc(missing, func(m result.Missing) bool { return m.Kind == p.Kind || strings.HasPrefix(m.Kind, p.Kind+",") }); i >= 0 {
			why += ": " + missing[i].Why
		}
		for i := range c.Loads {
			if err := c.fail(i, p.Name, session, why); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureJob is one load of one session, on all paths that have not failed.
func (c *campaign) measureJob(ctx context.Context, paths []path.Path, load, session int, segments bool) error {
	l := c.Loads[load]
	var live []path.Path
	for _, p := range paths {
		if c.failed[load][p.Name] == "" {
			live = append(live, p)
		}
	}
	job := c.job(l, len(live))
	job.CPUs, job.StreamCPUs, job.Priority, job.Segments = c.cpus, c.streams, c.priority, segments
	job.Seed = c.Seed + uint64(session*len(c.Loads)+load)
	for _, p := range live {
		e := engine.Path{
			Name:   p.Name,
			Client: engine.End{Netns: p.Client.Netns, Addr: p.Client.Addr, Device: p.Client.Device},
			Server: engine.End{Netns: p.Server.Netns, Addr: p.Server.Addr, Device: p.Server.Device}, NICClock: p.NICClock,
		}
		if p.Translated() {
			e.Target = netip.AddrPortFrom(p.Target, 0)
		}
		job.Paths = append(job.Paths, e)
	}
	doing := l.String()
	if segments {
		doing += ", with timestamps"
	}
	c.say(doing, session+1, float64(c.done)/float64(c.jobs))
	kinds := kindsByName()
	before := readForwarding(live, kinds)
	outcomes, err := engine.Run(ctx, job, func(e engine.Event) {
		switch {
		case e.Progress != nil:
			c.say(doing, session+1, (float64(c.done)+e.Progress.Fraction)/float64(c.jobs))
		case e.Note != "":
			c.notes[e.Note] = true
		}
	})
	if err != nil {
		return err
	}
	c.done++
	measured := map[string]*result.Session{}
	for _, o := range outcomes {
		if o.Session != nil {
			measured[o.Path] = o.Session
		}
	}
	account(measured, before, readForwarding(live, kinds), c.Warmup, c.allowed <= 2)
	for _, o := range outcomes {
		switch {
		case o.Session == nil:
			if err := c.fail(load, o.Path, session, o.Error); err != nil {
				return err
			}
		case segments:
			c.segments[load][o.Path] = append(c.segments[load][o.Path], *o.Session)
		default:
			c.sessions[load][o.Path] = append(c.sessions[load][o.Path], *o.Session)
		}
	}
	return nil
}

// fail gives a path up for a load: sessions of all paths are compared with each other, so one that lacks some has none.
func (c *campaign) fail(load int, name string, session int, why string) error {
	if name == c.Baseline {
		return reason.Errorf(reason.ProbeImpossible, "probe baseline %s, %s: %s", name, c.Loads[load], why)
	}
	if c.failed[load][name] == "" {
		c.failed[load][name] = why
		c.run.Missing = append(c.run.Missing, result.Missing{Kind: name, Why: fmt.Sprintf("%s, session %d: %s", c.Loads[load], session+1, why)})
	}
	return nil
}

// collect puts the sessions where they belong.
func (c *campaign) collect() {
	for i, l := range c.Loads {
		for _, p := range c.run.Paths {
			cs := result.Case{Path: p.Name, Load: l}
			if c.failed[i][p.Name] == "" {
				cs.Sessions = slices.Concat(c.sessions[i][p.Name], c.segments[i][p.Name])
			}
			c.run.Cases = append(c.run.Cases, cs)
		}
	}
}

// machine are the facts, and what makes numbers worthless.
func (c *campaign) machine(ctx context.Context, before machine) (result.Machine, []string) {
	m, doubts := before.until(readMachine(), c.cpus)
	if c.options.Facts != nil {
		maps.Copy(m.Facts, c.options.Facts(ctx))
	}
	if len(c.notes) > 0 {
		m.Facts["engine"] = strings.Join(slices.Sorted(maps.Keys(c.notes)), "; ")
	}
	return m, doubts
}
