package chassis

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
)

// A driver does for a State what the daemon does: it calls Step with what the databases say, writes what the plan
// wants, and reports flows installed a while later. It checks at every step what must always hold.
type driver struct {
	m     *model
	s     *State
	turn  uint64
	acked uint64
	// inForce is acked, or later while filters are being installed.
	inForce uint64
	now     int64
	// pending are the conditions the server has not seen yet.
	pending  []wanted
	inSync   bool       // there are none
	condTurn uint64     // of the last conditions it has seen
	rnd      *rand.Rand // whether the server sees conditions in a turn; nil: it does
	lag      int        // how many changes of conditions it is behind
	synced   bool       // the Southbound is connected
	heldAcks bool       // flows are not installed
	boot     int64
	types    []string // that this chassis claims

	zones  map[string]uint16 // of the last step
	bound  map[string]uint64 // since which turn the Southbound has said that a port is here
	fed    map[string]uint64 // since which turn the logical flows of a datapath have been in view
	local  *Local
	output strings.Builder
}

// wanted are conditions on their way to the server.
type wanted struct {
	turn       uint64
	conditions map[string][]Clause
}

func newDriver(m *model) *driver {
	d := &driver{m: m, now: 1000, synced: true, bound: map[string]uint64{}, zones: map[string]uint16{}}
	d.restart()
	return d
}

func (d *driver) restart() {
	d.boot++
	d.s = New(Options{Hostname: "machine", StartTime: d.boot, BridgeMAC: "02:00:00:00:00:01", Types: d.types})
	d.turn, d.acked, d.inForce, d.inSync, d.condTurn, d.pending = 0, 0, 0, false, 0, nil
	d.zones, d.local = map[string]uint16{}, nil
	d.bound, d.fed = map[string]uint64{}, map[string]uint64{}
}

func (d *driver) inputs() Inputs {
	return Inputs{
		Turn: d.turn, AckedTurn: d.acked, InForce: d.inForce, Now: d.now, Switch: d.m.sw, SB: d.m.store,
		SBSynced: d.synced && d.turn > 1, CondInSync: d.inSync, CondTurn: d.condTurn, SBIdle: d.synced, OVSIdle: true,
	}
}

// step makes one turn and reports whether anything is left to do.
func (d *driver) step() (busy bool, err error) {
	d.m.publish()
	d.turn++
	d.now += 10
	in := d.inputs()
	plan := d.s.Step(in)
	if err := d.check(in, plan); err != nil {
		return false, err
	}
	d.print(plan)
	for _, ops := range [][]Op{plan.SBOps, plan.OVSOps} {
		if err := d.m.transact(ops, plan.Config.Name); err != nil {
			return false, err
		}
	}
	// The server sees the conditions of a step after that step, and flows are in a turn later.
	if d.synced && len(d.pending) > d.lag && (d.rnd == nil || d.rnd.IntN(3) > 0) {
		w := d.pending[0]
		d.m.conditions, d.m.monitorAll, d.condTurn = w.conditions, w.conditions == nil, w.turn
		d.pending = d.pending[1:]
		busy = true
	}
	if plan.ConditionsChanged {
		d.pending = append(d.pending, wanted{d.turn, plan.Conditions})
	}
	if d.turn == 1 && len(d.pending) > 0 { // the Southbound is connected with these
		w := d.pending[0]
		d.m.conditions, d.m.monitorAll, d.condTurn = w.conditions, w.conditions == nil, w.turn
		d.pending = nil
	}
	d.inSync = len(d.pending) == 0
	busy = busy || d.synced && !d.inSync
	if !d.heldAcks && d.acked < d.turn {
		if d.inForce = d.turn; d.rnd == nil || d.rnd.IntN(3) > 0 {
			d.acked = d.turn
		}
	}
	busy = busy || (plan.Waiting || plan.WaitingAll) && !d.heldAcks
	if plan.WakeAt > d.now {
		d.now = plan.WakeAt
		busy = true
	}
	return busy || d.turn == 1 || plan.ConditionsChanged || len(plan.SBOps)+len(plan.OVSOps) > 0, nil
}

// settle steps until there is nothing left to do, and once more to see that there really is not.
func (d *driver) settle() error {
	quiet := 0
	for range 200 {
		busy, err := d.step()
		if err != nil {
			return err
		}
		if busy {
			quiet = 0
		} else if quiet++; quiet == 2 {
			return nil
		}
	}
	return fmt.Errorf("does not settle:\n%s", tail(d.output.String(), 40))
}

func tail(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// check is what holds at every step of every test.
func (d *driver) check(in Inputs, plan Plan) error {
	if !in.SBSynced && len(plan.SBOps) > 0 {
		return fmt.Errorf("turn %d: Southbound written before it is known: %v", in.Turn, plan.SBOps)
	}
	for _, op := range append(slices.Clone(plan.SBOps), plan.OVSOps...) {
		if op.Kind == Insert && op.Name == "" || op.Kind != Insert && op.UUID == "" {
			return fmt.Errorf("turn %d: %v names no row", in.Turn, op)
		}
	}
	if (d.local == plan.Local) != d.local.equal(plan.Local) {
		return fmt.Errorf("turn %d: Local is the same pointer: %v, equal: %v", in.Turn, d.local == plan.Local, d.local.equal(plan.Local))
	}
	d.local = plan.Local
	if err := d.checkZones(plan); err != nil {
		return fmt.Errorf("turn %d: %w", in.Turn, err)
	}
	if err := d.checkInstalled(in, plan); err != nil {
		return fmt.Errorf("turn %d: %w", in.Turn, err)
	}
	return d.checkAcknowledged(in, plan)
}

// checkZones: a zone has one holder, and changes hands empty.
func (d *driver) checkZones(plan Plan) error {
	if plan.Local == nil {
		return nil
	}
	holders := map[uint16]string{}
	for name, id := range plan.Local.Zones {
		if id == 0 {
			return fmt.Errorf("zone of %s is 0", name)
		}
		if other, ok := holders[id]; ok && !d.requested(name) && !d.requested(other) {
			return fmt.Errorf("zone %d of both %s and %s", id, name, other)
		}
		holders[id] = name
		old, had := d.zones[name]
		if had && old != id && !slices.Contains(plan.FlushZones, id) {
			return fmt.Errorf("zone %d of %s, which had %d, is not flushed", id, name, old)
		}
		if !had && len(d.zones) > 0 && !slices.Contains(plan.FlushZones, id) && d.recorded(name) != id {
			return fmt.Errorf("new zone %d of %s is not flushed", id, name)
		}
	}
	d.zones = plan.Local.Zones
	return nil
}

func (d *driver) requested(zone string) bool {
	uuid, ok := strings.CutSuffix(zone, "_snat")
	if !ok {
		return false
	}
	r := d.m.table(Southbound, sbdb.DatapathBindingTable)[uuid]
	return r != nil && r.(*sbdb.DatapathBinding).ExternalIDs["snat-ct-zone"] != ""
}

func (d *driver) recorded(name string) uint16 {
	b := d.m.sw.Bridge("br-int")
	if b == nil {
		return 0
	}
	n, _ := strconv.Atoi(b.ExternalIDs["ct-zone-"+name])
	return uint16(n)
}

// checkInstalled: nobody is told that a port works before the flows of a turn in which it was here are installed.
func (d *driver) checkInstalled(in Inputs, plan Plan) error {
	me := d.m.store.ChassisByName(plan.Config.Name)
	here := map[string]uint64{}
	for _, p := range d.m.store.Ports {
		if me != nil && (p.Chassis == me.UUID || slices.Contains(p.AdditionalChassis, me.UUID)) {
			here[p.Name] = in.Turn
			if since, ok := d.bound[p.Name]; ok {
				here[p.Name] = since
			}
		}
	}
	d.bound = here
	fed := map[string]uint64{}
	for u := range d.m.table(Southbound, sbdb.DatapathBindingTable) {
		if d.m.visible(sbdb.LogicalFlowTable, &sbdb.LogicalFlow{LogicalDatapath: &u}) {
			fed[u] = in.Turn
			if since, ok := d.fed[u]; ok {
				fed[u] = since
			}
		}
	}
	d.fed = fed
	for _, op := range plan.OVSOps {
		add, _ := op.Add["external_ids"].(map[string]string)
		if op.Table != vswitchdb.InterfaceTable || add["ovn-installed"] != "true" {
			continue
		}
		i := d.m.table(OpenvSwitch, vswitchdb.InterfaceTable)[op.UUID].(*vswitchdb.Interface)
		id := i.ExternalIDs["iface-id"]
		if since, ok := here[id]; !ok || since > in.InForce {
			return fmt.Errorf("%s marked installed: here since turn %d, flows in up to turn %d", id, since, in.InForce)
		}
		dp := d.m.store.PortByName(id).Datapath
		if since, ok := fed[dp.String()]; !ok || since > in.InForce {
			return fmt.Errorf("%s marked installed: its logical flows in view since turn %d, flows in up to turn %d", id, since, in.InForce)
		}
	}
	for _, op := range plan.SBOps {
		if op.Table != sbdb.PortBindingTable || op.Set["up"] != true {
			continue
		}
		p := d.m.table(Southbound, sbdb.PortBindingTable)[op.UUID].(*sbdb.PortBinding)
		if p.ParentPort != nil || p.Type != "" {
			continue // no flows of their own to wait for
		}
		if since, ok := here[p.LogicalPort]; !ok || since > in.InForce {
			return fmt.Errorf("%s up: here since turn %d, flows in up to turn %d", p.LogicalPort, since, in.InForce)
		}
	}
	return nil
}

// checkAcknowledged: nb_cfg is not acknowledged before it was seen in a turn whose flows are in.
func (d *driver) checkAcknowledged(in Inputs, plan Plan) error {
	for _, op := range plan.SBOps {
		if v, ok := op.Set["nb_cfg"]; ok && in.AckedTurn == 0 {
			return fmt.Errorf("turn %d: nb_cfg %v acknowledged before any flow", in.Turn, v)
		}
	}
	return nil
}

// print appends what a plan does.
func (d *driver) print(plan Plan) {
	var lines []string
	for _, e := range plan.Events {
		lines = append(lines, "! "+e.String())
	}
	for _, op := range plan.SBOps {
		lines = append(lines, op.String())
	}
	for _, op := range plan.OVSOps {
		lines = append(lines, op.String())
	}
	if len(plan.FlushZones) > 0 {
		lines = append(lines, fmt.Sprintf("flush %d", plan.FlushZones))
	}
	if len(lines) > 0 {
		fmt.Fprintf(&d.output, "turn %d\n", d.turn)
	}
	for _, l := range lines {
		fmt.Fprintf(&d.output, "  %s\n", d.m.text(l))
	}
}

// printLocal appends what the compiler is told.
func (d *driver) printLocal() {
	l := d.local
	if l == nil {
		fmt.Fprintln(&d.output, "nothing local is known")
		return
	}
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, d.m.text(fmt.Sprintf(format, args...))) }
	for uuid, dp := range l.Datapaths {
		kind := "router"
		if dp.IsSwitch {
			kind = "switch"
		}
		line := fmt.Sprintf("datapath %s %s", uuid, kind)
		for _, p := range dp.Peers {
			line += fmt.Sprintf(" %s-%s", p.Local, p.Remote)
		}
		if !dp.Localnet.IsZero() {
			line += fmt.Sprintf(" localnet=%s", dp.Localnet)
		}
		for _, p := range dp.Multichassis {
			line += fmt.Sprintf(" multichassis=%s", p)
		}
		for _, p := range dp.External {
			line += fmt.Sprintf(" external=%s", p)
		}
		add("%s", line)
	}
	for name, p := range l.Ports {
		add("port %s %s ofport %d", name, p.Iface, p.OFPort)
	}
	related := []string{}
	for u := range l.Related {
		related = append(related, d.m.text(u.String()))
	}
	slices.Sort(related)
	add("related %v", related)
	for name, id := range l.Zones {
		add("zone %s %d", name, id)
	}
	for _, t := range l.Tunnels {
		_, active := l.ActiveTunnels[t.Chassis]
		add("tunnel %s %s %s ofport %d v6=%v active=%v", t.Chassis, t.Type, t.RemoteIP, t.OFPort, t.IsIPv6, active)
	}
	for name, of := range l.Patch {
		add("patch %s ofport %d", name, of)
	}
	slices.Sort(lines)
	fmt.Fprintln(&d.output, strings.Join(lines, "\n"))
}

// do is command, and the commands that concern the driver itself:
//
//	step | settle | hold | release      of acknowledgements
//	serve TYPE...      from now on, after a restart
//	restart | leave | time MILLISECONDS | disconnect | connect
//	quiet | local | conditions     forget what was printed; print what the last plan said
func (d *driver) do(line string) error {
	w := strings.Fields(line)
	switch w[0] {
	case "step":
		_, err := d.step()
		return err
	case "settle":
		return d.settle()
	case "hold":
		d.heldAcks = true
	case "release":
		d.heldAcks = false
	case "serve":
		d.types = w[1:]
		d.restart()
	case "restart":
		d.restart()
	case "time":
		n, err := strconv.Atoi(w[1])
		d.now += int64(n)
		return err
	case "disconnect":
		d.synced = false
	case "connect":
		d.synced = true
	case "quiet":
		d.output.Reset()
	case "local":
		d.printLocal()
	case "conditions":
		for _, table := range slices.Sorted(maps.Keys(d.s.conditions)) {
			fmt.Fprintf(&d.output, "%s\n", table)
			for _, c := range d.s.conditions[table] {
				fmt.Fprintf(&d.output, "  %s\n", d.m.text(c.String()))
			}
		}
	case "leave":
		for range 5 {
			d.m.publish()
			plan, done := d.s.Leave(d.inputs())
			d.turn++
			d.print(plan)
			if err := d.m.transact(append(plan.SBOps, plan.OVSOps...), plan.Config.Name); err != nil {
				return err
			}
			if done {
				return nil
			}
		}
		return fmt.Errorf("does not leave")
	default:
		return d.m.command(line)
	}
	return nil
}

// summary is what the databases say, in terms that do not depend on how they came to say it.
func (d *driver) summary() string {
	d.m.publish()
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	pairs := func(m map[string]string, without ...string) string {
		m = maps.Clone(m)
		for _, k := range without {
			delete(m, k)
		}
		return formatMap(m, quote)
	}
	name := map[string]string{}
	for u, r := range d.m.table(Southbound, sbdb.ChassisTable) {
		name[u] = r.(*sbdb.Chassis).Name
	}
	for u, r := range d.m.table(Southbound, sbdb.EncapTable) {
		e := r.(*sbdb.Encap)
		name[u] = e.Type + ":" + e.IP + pairs(e.Options)
	}
	called := func(refs ...string) []string {
		out := []string{}
		for _, r := range refs {
			out = append(out, name[r])
		}
		slices.Sort(out)
		return out
	}
	deref := func(s *string) []string {
		if s == nil {
			return nil
		}
		return []string{*s}
	}
	for _, r := range d.m.table(Southbound, sbdb.ChassisTable) {
		c := r.(*sbdb.Chassis)
		add("chassis %s %v %s %v", c.Name, called(c.Encaps...), pairs(c.OtherConfig), slices.Sorted(slices.Values(c.TransportZones)))
	}
	for _, r := range d.m.table(Southbound, sbdb.ChassisPrivateTable) {
		c := r.(*sbdb.ChassisPrivate)
		add("private %s %v %d", c.Name, called(deref(c.Chassis)...), c.NbCfg)
	}
	for _, r := range d.m.table(Southbound, sbdb.PortBindingTable) {
		p := r.(*sbdb.PortBinding)
		if p.Type != "" && p.Type != "localport" {
			continue // who is bound to what then, is not for this chassis to say
		}
		add("port %s %v %v %v up=%v", p.LogicalPort, called(deref(p.Chassis)...), called(deref(p.Encap)...), called(p.AdditionalChassis...), *p.Up)
	}
	for _, r := range d.m.table(OpenvSwitch, vswitchdb.OpenvSwitchTable) {
		root := r.(*vswitchdb.OpenvSwitch)
		add("root %s", pairs(root.OtherConfig))
	}
	for _, b := range d.m.sw.Bridges() {
		ids, zones := map[string]string{}, []string{}
		for k, v := range b.ExternalIDs {
			if strings.HasPrefix(k, "ct-zone-") {
				zones = append(zones, d.m.text(k))
			} else if k != "ovn-startup-ts" && k != "ovn-nb-cfg-ts" {
				ids[k] = v
			}
		}
		slices.Sort(zones)
		mode := ""
		if b.FailMode != nil {
			mode = *b.FailMode
		}
		add("bridge %s %s %s %s %v %v", b.Name, b.DatapathType, mode, pairs(ids), zones, d.m.sw.Capabilities(b.DatapathType))
		for _, p := range d.m.sw.Ports(b) {
			for _, i := range d.m.sw.Interfaces(p) {
				shown := p.Name
				if p.ExternalIDs["ovn-chassis-id"] != "" {
					shown = "tunnel" // its number depends on which came first
				}
				add("iface %s %s %s %s %s %s", b.Name, shown, pairs(p.ExternalIDs), i.Type, pairs(i.Options), pairs(i.ExternalIDs, "ovn-installed-ts"))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
