package chassis

import (
	"maps"
	"slices"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// features are the keys of Chassis.other_config by which ovn-northd decides what logical flows it may write. It
// writes what the weakest chassis understands, so a missing one costs the whole deployment.
var features = map[string]string{
	"port-up-notif":         "true", // Port_Binding.up follows the flows
	"ct-no-masked-label":    "true", // ct_lb_mark and ct_mark instead of ct_label bits
	"mac-binding-timestamp": "true", // MAC_Binding.timestamp, so neighbours can age
	"ovn-ct-lb-related":     "true", // related traffic of load balancers is translated
}

// register makes the rows that describe this chassis as they should be and returns the Chassis row, or nil while
// there is none.
func (st *step) register() *sb.Chassis {
	me := st.in.SB.ChassisByName(st.cfg.Name)
	self := Ref{}
	switch {
	case me != nil:
		self.UUID = me.UUID.String()
		st.updateChassis(me)
	default:
		name, ok := st.insertChassis()
		if !ok {
			return nil
		}
		self.Name = name
	}

	private := st.privateRow()
	switch {
	case private == nil && (st.condName != st.cfg.Name || !st.in.CondInSync):
		// There may be one that has not come into view.
	case private == nil:
		st.sb.add(Op{Kind: Insert, Table: sbdb.ChassisPrivateTable, Name: st.sb.name(), Set: map[string]any{
			"name": st.cfg.Name, "chassis": self,
		}})
	case me == nil || private.Chassis != me.UUID:
		st.sb.add(Op{Kind: Update, Table: sbdb.ChassisPrivateTable, UUID: private.UUID.String(), Set: map[string]any{
			"chassis": self,
		}})
	}
	return me
}

func (st *step) privateRow() *sb.ChassisPrivate {
	for _, p := range st.in.SB.ChassisPrivates {
		if p.Name == st.cfg.Name {
			return p
		}
	}
	return nil
}

// otherConfig returns the keys of Chassis.other_config that are this chassis' to set.
func (st *step) otherConfig() map[string]string {
	want := maps.Clone(st.cfg.published)
	maps.Copy(want, features)
	want["datapath-type"] = ""
	if b := st.in.Switch.Bridge(st.cfg.Bridge); b != nil {
		want["datapath-type"] = b.DatapathType
	}
	return want
}

func (st *step) insertChassis() (name string, ok bool) {
	encaps, ok := st.wantEncaps(nil)
	if !ok {
		return "", false
	}
	name = st.sb.name()
	set := map[string]any{
		"name": st.cfg.Name, "hostname": st.cfg.Hostname, "encaps": encaps, "other_config": st.otherConfig(),
	}
	if len(st.cfg.TransportZones) > 0 {
		set["transport_zones"] = st.cfg.TransportZones
	}
	if st.sb.add(Op{Kind: Insert, Table: sbdb.ChassisTable, Name: name, Set: set}) {
		st.tell("chassis registered", "chassis", st.cfg.Name)
	}
	return name, true
}

// updateChassis changes the row where it differs. Name and hostname stay as they were inserted: the role
// ovn-controller may not update them, and one refused column aborts the transaction.
func (st *step) updateChassis(me *sb.Chassis) {
	uuid := me.UUID.String()
	st.sb.setKeys(sbdb.ChassisTable, uuid, "other_config", me.OtherConfig, st.otherConfig())
	if me.Hostname != st.cfg.Hostname {
		st.notice(LevelWarn, "chassis hostname differs", "chassis", me.Name, "hostname", st.cfg.Hostname,
			"reason", "the row says "+quote(me.Hostname)+"; it is set when the chassis registers")
	}
	set := map[string]any{}
	if !sameSet(me.TransportZones, st.cfg.TransportZones) {
		set["transport_zones"] = st.cfg.TransportZones
	}
	if encaps, ok := st.wantEncaps(me); ok && !slices.Equal(encaps, sortedRefs(me.Encaps)) {
		set["encaps"] = encaps
	}
	if len(set) > 0 {
		st.sb.add(Op{Kind: Update, Table: sbdb.ChassisTable, UUID: uuid, Set: set})
	}
}

// wantEncaps returns references to one Encap row for each pair of type and address, sorted: rows of me that fit, and
// rows it inserts. It reports false, and writes nothing, if there is no pair or if another chassis has one of them,
// since the database would refuse a second row.
func (st *step) wantEncaps(me *sb.Chassis) (refs []Ref, ok bool) {
	if len(st.cfg.EncapTypes) == 0 || len(st.cfg.EncapIPs) == 0 {
		return nil, false
	}
	type endpoint struct{ encapType, ip string }
	own, others := map[endpoint]*sb.Encap{}, map[endpoint]*sb.Encap{}
	for uuid, e := range st.in.SB.Encaps {
		at := endpoint{e.Type, e.IP}
		switch {
		case me == nil || !slices.Contains(me.Encaps, uuid):
			others[at] = e
		case e.ChassisName == st.cfg.Name:
			own[at] = e
		}
	}
	var inserts []Op
	for _, ip := range st.cfg.EncapIPs {
		for _, t := range st.cfg.EncapTypes {
			at := endpoint{t, ip}
			if e := others[at]; e != nil {
				st.notice(LevelWarn, "encap taken by another chassis", "type", t, "ip", ip, "chassis", e.ChassisName)
				return nil, false
			}
			options := map[string]string{"csum": st.cfg.EncapCsum}
			if e := own[at]; e != nil {
				refs = append(refs, Ref{UUID: e.UUID.String()})
				st.sb.setKeys(sbdb.EncapTable, e.UUID.String(), "options", e.Options, options)
				continue
			}
			name := st.sb.name()
			refs = append(refs, Ref{Name: name})
			inserts = append(inserts, Op{Kind: Insert, Table: sbdb.EncapTable, Name: name, Set: map[string]any{
				"type": t, "ip": ip, "options": options, "chassis_name": st.cfg.Name,
			}})
		}
	}
	for _, op := range inserts {
		st.sb.add(op)
	}
	slices.SortFunc(refs, compareRefs)
	return refs, true
}

func sortedRefs(uuids []sb.UUID) []Ref {
	refs := make([]Ref, 0, len(uuids))
	for _, u := range uuids {
		refs = append(refs, Ref{UUID: u.String()})
	}
	slices.SortFunc(refs, compareRefs)
	return refs
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// acknowledgement is how far this chassis has come with SB_Global.nb_cfg.
type acknowledgement struct {
	// waiting are values seen whose flows are not in yet, oldest first; at most two, so that the first comes to an
	// end however fast new ones follow.
	waiting []seenConfig
	done    int64 // the last value whose flows are in, 0 before the first
}

// seenConfig is a value of nb_cfg on its way. When it was seen the server may still have owed rows that are older
// than it, for conditions that changed in turn cond. When those are here it belongs to a turn.
type seenConfig struct {
	nbCfg int64
	cond  uint64
	turn  uint64 // 0 until known
}

// see notes a value, and the turn of the conditions of the time.
func (a *acknowledgement) see(nbCfg int64, cond uint64) {
	last := a.done
	if n := len(a.waiting); n > 0 {
		last = a.waiting[n-1].nbCfg
	}
	if nbCfg == last {
		return
	}
	if len(a.waiting) == 2 {
		a.waiting = a.waiting[:1]
	}
	a.waiting = append(a.waiting, seenConfig{nbCfg: nbCfg, cond: cond})
}

// program notes that the program of turn is made from the rows of conditions up to those of turn reflected.
func (a *acknowledgement) program(turn, reflected uint64) {
	for i := range a.waiting {
		if w := &a.waiting[i]; w.turn == 0 && w.cond <= reflected {
			w.turn = turn
		}
	}
}

// waits reports whether a value waits for what was not installed by acked.
func (a *acknowledgement) waits(acked uint64) bool {
	return len(a.waiting) > 0 && a.waiting[0].turn > acked
}

// installed notes that the flows of all turns up to acked are in.
func (a *acknowledgement) installed(acked uint64) {
	for len(a.waiting) > 0 && a.waiting[0].turn > 0 && a.waiting[0].turn <= acked {
		a.done = a.waiting[0].nbCfg
		a.waiting = a.waiting[1:]
	}
}

// acknowledge tells both databases the last nb_cfg whose flows are installed.
func (st *step) acknowledge() {
	if g := st.in.SB.Global; g != nil {
		st.acked.see(g.NBCfg, st.condTurn)
	}
	st.acked.program(st.in.Turn, st.reflected)
	st.acked.installed(st.in.AckedTurn)
	done := st.acked.done
	if done == 0 {
		return
	}
	if p := st.privateRow(); p != nil && p.NBCfg != done {
		st.sb.add(Op{Kind: Update, Table: sbdb.ChassisPrivateTable, UUID: p.UUID.String(), Set: map[string]any{
			"nb_cfg": done, "nb_cfg_timestamp": st.in.Now,
		}})
	}
	if b := st.bridge; b != nil && b.ExternalIDs["ovn-nb-cfg"] != formatValue(done) {
		st.ovs.setKeys(vswitchdb.BridgeTable, b.UUID, "external_ids", b.ExternalIDs, map[string]string{
			"ovn-nb-cfg": formatValue(done), "ovn-nb-cfg-ts": formatValue(st.in.Now),
		})
	}
}
