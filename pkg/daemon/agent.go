package daemon

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/pinctrl"
	"github.com/offloadd/offloadd/pkg/sb"
	"github.com/offloadd/offloadd/pkg/tc"
)

// An Agent is the loop that owns the state of the chassis. Each turn takes in what has happened, lets the chassis
// decide, compiles what changed, and hands the result over; nothing in a turn waits.
type Agent struct {
	config Config
	log    *slog.Logger

	ovs   *database
	south *database
	flows *apply.Flows
	punts *pinctrl.Responder
	// offload puts the program into TC filters; nil if that is off.
	offload *offload
	// installed is closed when the bridge has had a complete program.
	installed     chan struct{}
	markInstalled sync.Once

	store  *sb.Store
	sw     *chassis.Switch
	state  *chassis.State
	engine *compile.Engine

	turn      uint64
	sent      uint64 // the last turn that had something for the bridge
	acked     uint64
	inForce   uint64 // acked, but that filters may be missing
	delta     sb.Delta
	zones     []uint16 // to flush before the next flows
	compiled  bool     // a complete program has been handed over
	recompute bool
	condSeq   uint64
	condTurns []condTurn // conditions that were set and that the Southbound may not reflect yet, oldest first
	input     compile.Input
	plan      chassis.Plan
	logged    map[string]struct{} // what was said once and is not said again
	leaving   bool
	gone      bool          // nothing of the chassis is in the databases any more
	ended     chan struct{} // closed when the loop has ended
	report    func(api.Health)

	followers      []*follower
	portsFollowers []*portsFollower
	aging          aging

	// asking holds who asks ovs-vswitchd for its megaflows.
	asking chan struct{}
	// dialTC and ifindex look at the kernel for those who ask what Open vSwitch has installed.
	dialTC  func() (*tc.Conn, error)
	ifindex func(device string) int

	commands chan command
}

// command is a request from the control socket. It runs in the loop.
type command struct {
	run  func()
	done chan struct{}
}

// NewAgent returns an agent that does nothing before Run.
func NewAgent(config Config, opts chassis.Options, log *slog.Logger) (*Agent, error) {
	ovs, err := ovsdb.New(ovsdb.Config{
		Database: "Open_vSwitch",
		Remotes:  []string{config.OVSDatabase},
		Tables:   SwitchTables(),
		Log:      log.With("db", "Open_vSwitch"),
	})
	if err != nil {
		return nil, err
	}
	a := &Agent{
		config:   config,
		log:      log,
		ovs:      newDatabase("Open_vSwitch", ovs),
		south:    newDatabase("OVN_Southbound", nil),
		flows:    apply.NewFlows(log, compile.LearnedTables()...),
		punts:    pinctrl.NewResponder(log),
		store:    sb.NewStore(),
		sw:       chassis.NewSwitch(),
		state:    chassis.New(opts),
		engine:   compile.NewEngine(),
		logged:   map[string]struct{}{},
		ended:    make(chan struct{}),
		commands: make(chan command),
		asking:   make(chan struct{}, 1),
		dialTC:   func() (*tc.Conn, error) { return tc.Dial(tc.DialOptions{}) },
		ifindex:  ifindexOf,

		installed: make(chan struct{}),
		aging:     newAging(),
	}
	if config.Offload == offloadDirect {
		a.offload = newOffload(log, config.TCSoftware, a.Recompute)
	}
	return a, nil
}

// Tasks returns what must run for the agent to work.
func (a *Agent) Tasks() []Task {
	tasks := []Task{
		{"open-vswitch-database", a.ovs.client.Run},
		{"southbound-database", a.south.run},
		{"flows", a.flows.Run},
		{"packet-ins", a.punts.Run},
		{"agent", a.run},
		{"aging", a.age},
	}
	if a.offload != nil {
		tasks = append(tasks, Task{"offload", a.offload.Run})
	} else {
		tasks = append(tasks, Task{"stale-filters", a.removeStale})
	}
	return tasks
}

// Recompute asks for a full recompute, and returns when the turn that does it is over. It may be called from any goroutine.
func (a *Agent) Recompute() error { return a.do(func() { a.recompute = true }) }

// Leave takes the chassis out of the deployment and ends the agent with ErrLeft. It returns when that is done, with an
// error if the agent ended before. It may be called from any goroutine.
func (a *Agent) Leave() error {
	if err := a.do(func() { a.leaving = true }); err != nil {
		return err
	}
	<-a.ended
	if !a.hasLeft() {
		return errors.New("daemon leave: ended before it was done")
	}
	return nil
}

// errEnded answers commands that came too late.
var errEnded = errors.New("daemon: already ended")

// do runs f in the loop and waits until the turn after it is over.
func (a *Agent) do(f func()) error {
	c := command{f, make(chan struct{})}
	select {
	case a.commands <- c:
	case <-a.ended:
		return errEnded
	}
	<-c.done
	return nil
}

func (a *Agent) run(ctx context.Context) error {
	defer close(a.ended)
	var wake <-chan time.Time
	var offloaded <-chan struct{}
	if a.offload != nil {
		offloaded = a.offload.changed
	}
	for {
		var cmd *command
		select {
		case <-ctx.Done():
			return nil
		case u := <-a.ovs.updates():
			a.ovsUpdate(u)
		case u := <-a.south.updates():
			a.southUpdate(u)
		case r := <-a.ovs.results:
			a.result(a.ovs, r)
		case r := <-a.south.results:
			a.result(a.south, r)
		case <-a.flows.Changed():
		case <-offloaded:
		case <-wake:
		case c := <-a.commands:
			c.run()
			cmd = &c
		}
		next := a.step(ctx)
		a.tellFollowers()
		a.tellPortsFollowers()
		a.reportHealth()
		if cmd != nil {
			close(cmd.done)
		}
		wake = nil
		if next > 0 {
			wake = time.After(next)
		}
		if a.hasLeft() {
			return ErrLeft
		}
	}
}

// ErrLeft ends the daemon after the chassis has been removed.
var ErrLeft = errors.New("the chassis has left")

func (a *Agent) ovsUpdate(u ovsdb.Update) {
	a.ovs.seen(u)
	changes := make([]chassis.Change, len(u.Changes))
	for i, c := range u.Changes {
		changes[i] = chassis.Change{Table: c.Table, UUID: c.UUID, Old: c.Old, New: c.New}
		if c.Table == vswitchdb.SSLTable && a.config.TLS == (TLSConfig{}) {
			a.south.setSSL(c.New, a.config.TLS)
		}
	}
	a.sw.Apply(changes)
}

func (a *Agent) southUpdate(u ovsdb.Update) {
	a.south.seen(u)
	updates := make([]sb.Update, len(u.Changes))
	for i, c := range u.Changes {
		updates[i] = sb.Update{Table: c.Table, UUID: c.UUID, New: c.New}
	}
	d := a.store.Apply(updates)
	a.aging.seen(d)
	for _, r := range d.Refused {
		a.log.Error("southbound row refused", "table", r.Table, "row", r.UUID.String(), "err", r.Err)
	}
	if a.compiled { // otherwise everything will be, from the store
		a.delta.Changes = append(a.delta.Changes, d.Changes...)
	}
}

func (a *Agent) result(db *database, err error) {
	db.done(err, time.Now())
	if err != nil {
		a.log.Warn("transaction not done", "db", db.name, "err", err)
	}
}

// step is one turn. It returns when the next is due at the latest; 0 is never.
func (a *Agent) step(ctx context.Context) time.Duration {
	a.turn++
	status := a.flows.Status()
	a.acknowledge(status)
	if !a.ovs.synced {
		return 0
	}
	now := time.Now()
	in := chassis.Inputs{
		Turn:       a.turn,
		AckedTurn:  a.acked,
		InForce:    a.inForce,
		Now:        now.UnixMilli(),
		Switch:     a.sw,
		SB:         a.store,
		SBSynced:   a.south.synced,
		CondInSync: a.south.conditions >= a.condSeq,
		CondTurn:   a.reflected(),
		SBIdle:     a.south.idle(now),
		OVSIdle:    a.ovs.idle(now),
		HasColumn:  a.hasColumn,
	}
	if a.leaving {
		a.plan, a.gone = a.state.Leave(in)
	} else {
		a.plan = a.state.Step(in)
	}
	a.aging.turn(a.plan.Local)
	a.zones = append(a.zones, a.plan.FlushZones...)
	a.events(a.plan.Events)
	a.southbound()
	if a.plan.ConditionsChanged && a.south.client != nil {
		a.setConditions(a.south.client)
	}
	path := a.bridgePath()
	a.flows.SetPath(path)
	a.punts.SetPath(path)
	a.program(status)
	a.ovs.transact(ctx, Operations(a.plan.OVSOps))
	a.south.transact(ctx, a.southboundOperations(in.SBIdle))

	if a.sent < a.turn && status.Installed && status.AckedTurn >= a.sent {
		inForce, installed := a.offloadedAll()
		if a.plan.Waiting && inForce || a.plan.WaitingAll && installed {
			return time.Nanosecond // this turn had nothing for the bridge, so the next finds it installed
		}
	}
	next := a.ovs.waits(now)
	if s := a.south.waits(now); s > 0 && (next == 0 || s < next) {
		next = s
	}
	if a.plan.WakeAt > 0 {
		if w := max(time.Until(time.UnixMilli(a.plan.WakeAt)), time.Millisecond); next == 0 || w < next {
			next = w
		}
	}
	return next
}

// condTurn is which turn's conditions have a sequence number.
type condTurn struct{ seq, turn uint64 }

func (a *Agent) setConditions(client *ovsdb.Client) {
	a.condSeq = client.SetConditions(conditions(a.plan.Conditions, a.south.conditional))
	a.condTurns = append(a.condTurns, condTurn{a.condSeq, a.turn})
}

// reflected returns the turn of the newest conditions that the Southbound's contents reflect, 0 if there are none.
func (a *Agent) reflected() uint64 {
	for len(a.condTurns) > 1 && a.condTurns[1].seq <= a.south.conditions {
		a.condTurns = a.condTurns[1:]
	}
	if len(a.condTurns) == 0 || a.condTurns[0].seq > a.south.conditions {
		return 0
	}
	return a.condTurns[0].turn
}

// acknowledge finds out up to which turn everything is installed, and up to which what is decides about every packet. A turn that had
// nothing for the bridge is installed when those before it are.
func (a *Agent) acknowledge(s apply.Status) {
	if s.Installed {
		inForce, installed := s.AckedTurn, s.AckedTurn
		if a.offload != nil {
			o, put := a.offload.Status()
			if o.InForce < put {
				inForce = min(inForce, o.InForce)
			}
			if o.AckedTurn < put {
				installed = min(installed, o.AckedTurn)
			}
		}
		a.inForce, a.acked = a.reached(a.inForce, inForce), a.reached(a.acked, installed)
		if installed >= a.sent && a.compiled {
			a.markInstalled.Do(func() { close(a.installed) })
		}
	}
	for _, r := range a.flows.TakeRefused() {
		rows := make([]string, len(r.Rows))
		for i, row := range r.Rows {
			rows[i] = sb.UUID(row).String()
		}
		a.log.Error("flow refused", "flow", r.Flow, "rows", rows, "err", r.Err)
	}
}

// reached returns the turn up to which something is done, given the last that was known of, and what is done of those that had something for
// the bridge.
func (a *Agent) reached(known, done uint64) uint64 {
	if done >= a.sent {
		return a.turn - 1
	}
	return max(known, done)
}

func (a *Agent) hasColumn(db chassis.DB, table, column string) bool {
	client := a.ovs.client
	if db == chassis.Southbound {
		client = a.south.client
	}
	return client != nil && client.HasColumn(table, column)
}

func (a *Agent) bridgePath() string {
	bridge := a.plan.Config.Bridge
	if bridge == "" || a.sw.Bridge(bridge) == nil {
		return ""
	}
	return filepath.Join(a.config.OVSRunDir, bridge+".mgmt")
}

// southbound connects to the Southbound that the configuration names.
func (a *Agent) southbound() {
	cfg := a.plan.Config
	if cfg.Remote == "" {
		return
	}
	probe := time.Duration(cfg.ProbeInterval) * time.Millisecond
	if a.south.client != nil {
		if a.south.remote != cfg.Remote {
			if err := a.south.client.SetRemotes([]string{cfg.Remote}); err != nil {
				a.once("ovn-remote refused", err)
			}
			a.south.remote = cfg.Remote
		}
		if a.south.probe != probe {
			a.south.client.SetProbeInterval(probe)
			a.south.probe = probe
		}
		return
	}
	tables := SouthboundTables()
	client, err := ovsdb.New(ovsdb.Config{
		Database:      "OVN_Southbound",
		Remotes:       []string{cfg.Remote},
		ProbeInterval: probe,
		TLS:           a.south.tlsFiles(a.config.TLS),
		Tables:        tables,
		Log:           a.log.With("db", "OVN_Southbound"),
	})
	if err != nil {
		a.once("ovn-remote refused", err)
		return
	}
	a.south.remote, a.south.probe = cfg.Remote, probe
	for _, t := range tables {
		a.south.conditional[t.Name] = true
	}
	a.setConditions(client)
	a.south.open(client)
}

// program compiles what has changed and hands it to the bridge, as soon as all there is to know is known.
func (a *Agent) program(status apply.Status) {
	known := a.plan.Local != nil && a.south.synced && status.Geneve != 0
	if !a.compiled && (!known || a.plan.ConditionsChanged || a.south.conditions < a.condSeq) && !a.leaving {
		return
	}
	if a.leaving {
		if a.sent == 0 || a.compiled {
			a.put(apply.Batch{Turn: a.turn, Complete: true})
			a.compiled = false
		}
		return
	}
	if a.plan.Local == nil {
		return
	}
	in := compile.Input{SB: a.store, Local: a.plan.Local, Geneve: status.Geneve}
	if in.Geneve == 0 {
		in.Geneve = a.input.Geneve // the bridge is away; it will most likely come back as it was
	}
	complete := !a.compiled || a.recompute
	if !complete && len(a.delta.Changes) == 0 && in == a.input && len(a.zones) == 0 {
		a.seeScenery(in)
		return
	}
	batch := apply.Batch{Turn: a.turn, Complete: complete, FlushZones: a.zones}
	if complete {
		batch = a.recomputed(in, batch)
	} else {
		for _, r := range a.engine.Update(a.delta, in) {
			batch.Replacements = append(batch.Replacements, replacement(r))
		}
	}
	a.delta, a.zones = sb.Delta{}, nil
	a.input, a.compiled, a.recompute = in, true, false
	a.skips()
	if len(batch.Replacements) > 0 || complete || len(batch.FlushZones) > 0 {
		a.put(batch)
	} else {
		a.seeScenery(in)
	}
}

// chunk is how many owners' rules a recompute hands over at a time: enough to cost nothing, few enough to be garbage soon.
const chunk = 256

// recomputed compiles everything, hands most of it over in parts, and returns the last part of batch.
func (a *Agent) recomputed(in compile.Input, batch apply.Batch) apply.Batch {
	start := time.Now()
	owners := 0
	a.engine.Recompute(in, func(r compile.Replacement) {
		owners++
		batch.Replacements = append(batch.Replacements, replacement(r))
		if len(batch.Replacements) == chunk {
			batch.More = true
			a.put(batch)
			batch = apply.Batch{Turn: batch.Turn}
		}
	})
	batch.More = false
	a.log.Info("recomputed", "owners", owners, "took", time.Since(start))
	return batch
}

func replacement(r compile.Replacement) apply.Replacement {
	return apply.Replacement{
		Owner:  apply.Owner{Row: r.Owner.Row, Part: r.Owner.Datapath},
		Rules:  r.Rules,
		Groups: r.Groups,
		Meters: r.Meters,
	}
}

func (a *Agent) put(b apply.Batch) {
	a.sent = b.Turn
	a.flows.Put(b)
	switch {
	case a.offload == nil:
	case a.plan.Local == nil:
		a.offload.put(b, scenery{idle: "the chassis leaves"})
	default:
		a.offload.put(b, a.scenery(a.plan.Local, a.geneve()))
	}
}

// geneve is the field of OVN's Geneve option that the rules use.
func (a *Agent) geneve() ir.Field {
	if g := a.flows.Status().Geneve; g != 0 {
		return g
	}
	return a.input.Geneve
}

// seeScenery tells what the chains depend on besides the rules, if it has changed; the turn is installed when they are.
func (a *Agent) seeScenery(in compile.Input) {
	if a.offload != nil && a.offload.see(a.turn, a.scenery(in.Local, in.Geneve)) {
		a.sent = a.turn
		a.flows.Put(apply.Batch{Turn: a.turn})
	}
}

// offloadedAll reports whether no filter decides otherwise than all turns want, and whether the filters of all turns are installed.
func (a *Agent) offloadedAll() (inForce, installed bool) {
	if a.offload == nil {
		return true, true
	}
	s, put := a.offload.Status()
	return s.InForce >= put, s.AckedTurn >= put
}

// skips tells which rows make no flows although they should.
func (a *Agent) skips() {
	for _, s := range a.engine.Skips() {
		if s.Action != "" {
			// One line per action would hide which flow it was, one per flow would drown the log at info.
			a.log.Info("logical flow skipped", "row", s.Row.String(), "action", s.Action, "err", s.Err)
			continue
		}
		a.log.Error("row skipped", "row", s.Row.String(), "err", s.Err)
	}
}

func (a *Agent) events(events []chassis.Event) {
	for _, e := range events {
		attrs := make([]any, 0, 2*len(e.Attrs))
		for _, at := range e.Attrs {
			attrs = append(attrs, at.Key, at.Value)
		}
		a.log.Log(context.Background(), slog.Level(e.Level), e.Message, attrs...) //nolint:sloglint // the chassis' phrases are constants
	}
}

// once logs an error the first time it occurs.
func (a *Agent) once(message string, err error) {
	key := message + err.Error()
	if _, ok := a.logged[key]; ok {
		return
	}
	a.logged[key] = struct{}{}
	a.log.Error(message, "err", err) //nolint:sloglint // callers pass constants
}

// hasLeft reports whether a leaving chassis has nothing more to do. Where there is no bridge there are no flows to remove.
func (a *Agent) hasLeft() bool {
	return a.leaving && a.gone && !a.south.busy && !a.ovs.busy && (a.acked >= a.sent || a.bridgePath() == "")
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
