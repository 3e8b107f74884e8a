package chassis

import (
	"slices"

	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// Options are what neither database says about this chassis.
type Options struct {
	// Name overrides external_ids:system-id, as a command line option or a file may. Empty: no override.
	Name string
	// Hostname is what the operating system calls the machine; external_ids:hostname overrides it.
	Hostname string
	// StartTime is when the program started, in milliseconds since the epoch.
	StartTime int64
	// BridgeMAC is the Ethernet address of an integration bridge that has to be created, in the form
	// xx:xx:xx:xx:xx:xx. ovs-vswitchd derives the datapath id from it.
	BridgeMAC string
	// Types are the port types, beyond VIFs, containers and localports, that this chassis claims. A port of
	// another type that would belong here is left alone, and an event says so.
	Types []string
}

// Inputs are what a step decides from.
type Inputs struct {
	// Turn numbers the steps, from 1. The program compiled from a step's plan belongs to its turn.
	Turn uint64
	// AckedTurn is the last turn of which all flows, and all zone flushes, are known to be installed, and those of
	// all turns before it.
	AckedTurn uint64
	// InForce is the last turn of which all flows and zone flushes, and those of all turns before it, decide about every packet: they are
	// installed, and no filter decides otherwise, though some may be missing. It is AckedTurn or later; 0: AckedTurn.
	InForce uint64
	// Now is the time in milliseconds since the epoch.
	Now int64

	Switch *Switch
	SB     *sb.Store
	// SBSynced says that SB holds the complete contents the server had at some time.
	SBSynced bool
	// CondInSync says that SB reflects the conditions of the last plan that changed them.
	CondInSync bool
	// CondTurn is the turn of the last plan that changed the conditions and is reflected by SB, if there are later
	// ones that are not. While conditions change all the time, claims and acknowledgements go on by it.
	CondTurn uint64
	// SBIdle and OVSIdle say that the database is connected, and that the outcome of the last transaction is known
	// and visible here. Only then does the plan hold ops for it.
	SBIdle, OVSIdle bool
	// HasColumn says whether the server's schema has a column. Nil: it has all.
	HasColumn func(db DB, table, column string) bool
}

// Plan is what a step decides.
type Plan struct {
	Config Config
	// SBOps and OVSOps are one transaction each.
	SBOps, OVSOps []Op
	// Local is nil until this chassis knows enough to compile anything.
	Local *Local
	// FlushZones are conntrack zones whose connections must go before flows of this turn use them, sorted.
	FlushZones []uint16
	// Conditions holds, per Southbound table, the rows that concern this chassis: those for which some clause
	// holds, so an empty list is no row. Tables that are absent are monitored whole; nil is everything.
	Conditions map[string][]Clause
	// ConditionsChanged says that Conditions differ from those of the step before.
	ConditionsChanged bool
	// Waiting says that something waits for InForce to reach a turn up to this one, and WaitingAll for AckedTurn.
	Waiting, WaitingAll bool
	// WakeAt is when the next step is due even if nothing changes, in milliseconds since the epoch; 0 is never.
	WakeAt int64
	Events []Event
}

// State is what a chassis remembers between steps. It belongs to one goroutine.
type State struct {
	opts       Options
	claims     map[string]*claim // by name of the port
	taken      map[string]int64  // when a port was last claimed, by name
	zones      map[string]zone   // nil until restored
	acked      acknowledgement
	conditions map[string][]Clause
	stepped    bool
	condTurn   uint64 // when conditions last changed
	condName   string // the chassis they are for
	// everKnown says that all rows that concern this chassis have been known at some time.
	everKnown bool
	local     *Local
	standing  map[string]struct{} // notices of the last step
}

// New returns the state of a chassis that has just started.
func New(opts Options) *State {
	opts.Types = slices.Clone(opts.Types)
	return &State{opts: opts, claims: map[string]*claim{}, taken: map[string]int64{}}
}

// A step is one turn at work.
type step struct {
	*State
	in      Inputs
	cfg     Config
	sb, ovs transaction
	plan    Plan
	notices map[string]struct{}

	bridge *vswitchdb.Bridge // nil while there is none
	me     *sb.Chassis       // nil while there is none
	active map[string]struct{}
	// known says that all rows that concern this chassis are known: the contents are complete, and the server has
	// seen the conditions of this step.
	known bool
	// reflected is the last turn that changed the conditions and whose rows are known, 0 if there is none.
	reflected uint64
}

// Step decides what to do now. It reads in and keeps nothing of it.
func (s *State) Step(in Inputs) Plan {
	in.InForce = max(in.InForce, in.AckedTurn)
	st := &step{
		State:   s,
		in:      in,
		sb:      transaction{db: Southbound, open: in.SBIdle && in.SBSynced, hasColumn: in.HasColumn},
		ovs:     transaction{db: OpenvSwitch, open: in.OVSIdle, hasColumn: in.HasColumn},
		notices: map[string]struct{}{},
	}
	cfg, refusals := ParseConfig(in.Switch, s.opts)
	st.cfg = cfg
	for _, e := range refusals {
		st.noticeEvent(e)
	}
	if cfg.Name != "" {
		st.run()
	}
	s.standing = st.notices
	st.plan.Config = cfg
	st.plan.SBOps, st.plan.OVSOps = st.sb.ops, st.ovs.ops
	st.plan.Local = s.local
	st.plan.Waiting, st.plan.WaitingAll = s.waiting(in.InForce), s.acked.waits(in.AckedTurn)
	return st.plan
}

// waiting reports whether a port or a zone waits for flows that were not in force by then.
func (s *State) waiting(inForce uint64) bool {
	for _, c := range s.claims {
		if c.state == installFlows && c.turn > inForce {
			return true
		}
	}
	for _, z := range s.zones {
		if z.turn > inForce {
			return true
		}
	}
	return false
}

// run takes the decisions in the order in which they need each other.
func (st *step) run() {
	st.bridge = st.bridgeUp()
	var at sites
	if st.bridge != nil {
		at = st.findSites(st.bridge)
		st.active = st.activeTunnels()
	}
	if st.in.SBSynced {
		st.me = st.register()
	}
	if st.me == nil || st.bridge == nil {
		want := st.conditions
		if st.local == nil || st.condName != st.cfg.Name {
			want = conditions(st.cfg.Name, st.me, at.ids, nil)
		}
		st.monitor(want) // what was local will be again when the row or the bridge is back
		return
	}
	st.connectChassis()
	st.watchTunnels()

	bindings, roots, local := st.bind(at)
	var tooDeep bool
	local.Datapaths, tooDeep = walk(st.in.SB, st.me.UUID, roots)
	if tooDeep {
		st.notice(LevelWarn, "datapaths nested too deep", "chassis", st.me.Name)
	}
	st.describe(local)
	st.monitor(conditions(st.cfg.Name, st.me, at.ids, local.Datapaths))

	st.claimAll(bindings)
	st.releaseAll(bindings, at)
	st.allocate(bindings, at, local)
	st.acknowledge()
	if !local.equal(st.local) {
		st.local = local
	}
}

// hashL4Sym is OVS_HASH_ALG_SYM_L4 as Datapath.capabilities:max_hash_alg gives it.
const hashL4Sym = "1"

// describe fills in what the ports of local datapaths and of the bridge say.
func (st *step) describe(local *Local) {
	st.readPorts(local)
	local.ActiveTunnels = st.active
	capabilities := st.in.Switch.Capabilities(st.bridge.DatapathType)
	local.CTZeroSNAT = capabilities["ct_zero_snat"] == "true"
	local.HashL4Sym = capabilities["max_hash_alg"] == hashL4Sym
	for uuid, dp := range local.Datapaths {
		localnet := ""
		for _, port := range st.in.SB.PortsOf(uuid) {
			switch port.Type {
			case sb.Patch, sb.VTEP:
				local.Related[port.UUID] = struct{}{}
			case sb.Localnet:
				local.Related[port.UUID] = struct{}{}
				if !st.cfg.mapped(st.in.Switch, port.Options["network_name"]) {
					continue
				}
				if _, ok := local.Patch[port.Name]; !ok {
					st.notice(LevelWarn, "localnet port not connected", "lport", port.Name,
						"reason", "there is no patch port to its bridge, and making one is not supported")
				}
				if localnet == "" || port.Name < localnet {
					localnet, dp.Localnet = port.Name, port.UUID
				}
			case sb.External:
				dp.External = append(dp.External, port.UUID)
			case sb.VIF:
				if len(port.AdditionalChassis) > 0 {
					dp.Multichassis = append(dp.Multichassis, port.UUID)
				}
			}
		}
		slices.SortFunc(dp.External, compareUUIDs)
		slices.SortFunc(dp.Multichassis, compareUUIDs)
	}
}

// monitor sets the conditions, and with them whether all rows that concern this chassis are known.
func (st *step) monitor(want map[string][]Clause) {
	if st.cfg.MonitorAll {
		want = nil
	}
	st.plan.Conditions = want
	st.plan.ConditionsChanged = !st.stepped || !equalConditions(want, st.conditions)
	switch {
	case !st.in.SBSynced:
		st.reflected = 0
	case st.in.CondInSync:
		st.reflected = st.condTurn
	default:
		st.reflected = min(st.in.CondTurn, st.condTurn)
	}
	if st.plan.ConditionsChanged {
		st.condTurn = st.in.Turn
	}
	st.conditions, st.condName, st.stepped = want, st.cfg.Name, true
	st.known = st.reflected > 0 && st.reflected == st.condTurn
	st.everKnown = st.everKnown || st.known && st.me != nil
}

// tell reports what this step does.
func (st *step) tell(message string, attrs ...string) {
	st.plan.Events = append(st.plan.Events, event(LevelInfo, message, attrs...))
}

// notice reports how things are, once for as long as they stay so.
func (st *step) notice(level Level, message string, attrs ...string) {
	st.noticeEvent(event(level, message, attrs...))
}

func (st *step) noticeEvent(e Event) {
	key := e.String()
	_, before := st.standing[key]
	_, now := st.notices[key]
	st.notices[key] = struct{}{}
	if !before && !now {
		st.plan.Events = append(st.plan.Events, e)
	}
}

// wake asks for a step at a time.
func (st *step) wake(at int64) {
	if st.plan.WakeAt == 0 || at < st.plan.WakeAt {
		st.plan.WakeAt = at
	}
}
