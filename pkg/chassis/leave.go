package chassis

import (
	"slices"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// Leave decides how to take this chassis out of the deployment: its ports are released, its rows and tunnel ports
// deleted. It is called instead of Step, again and again until done. Patch ports and zones
// stay; that the bridge's flows go too is the caller's business.
func (s *State) Leave(in Inputs) (plan Plan, done bool) {
	st := &step{
		State:   s,
		in:      in,
		sb:      transaction{db: Southbound, open: in.SBIdle && in.SBSynced, hasColumn: in.HasColumn},
		ovs:     transaction{db: OpenvSwitch, open: in.OVSIdle, hasColumn: in.HasColumn},
		notices: map[string]struct{}{},
	}
	st.cfg, _ = ParseConfig(in.Switch, s.opts)
	if st.cfg.Name == "" {
		return Plan{Config: st.cfg}, true
	}
	done = st.leaveSouthbound()
	done = st.leaveSwitch() && done
	st.plan.Config, st.plan.Local = st.cfg, s.local
	st.plan.SBOps, st.plan.OVSOps = st.sb.ops, st.ovs.ops
	return st.plan, done
}

// leaveSouthbound reports whether no row says that this chassis exists.
func (st *step) leaveSouthbound() bool {
	st.me = st.in.SB.ChassisByName(st.cfg.Name)
	private := st.privateRow()
	if st.me == nil && private == nil {
		return true
	}
	if st.me != nil {
		var own []*sb.Port
		for _, port := range st.in.SB.Ports {
			if holds(port, st.me.UUID, main) || holds(port, st.me.UUID, additional) {
				own = append(own, port)
			}
		}
		slices.SortFunc(own, func(a, b *sb.Port) int { return compareUUIDs(a.UUID, b.UUID) })
		for _, port := range own {
			st.release(port)
		}
		if st.sb.add(Op{Kind: Delete, Table: sbdb.ChassisTable, UUID: st.me.UUID.String()}) {
			st.tell("chassis unregistered", "chassis", st.cfg.Name)
		}
	}
	if private != nil {
		st.sb.add(Op{Kind: Delete, Table: sbdb.ChassisPrivateTable, UUID: private.UUID.String()})
	}
	return false
}

// leaveSwitch reports whether the switch has no tunnel port of ours.
func (st *step) leaveSwitch() bool {
	root := st.in.Switch.Root()
	_, indexed := root.OtherConfig[indexPrefix+st.cfg.Name]
	st.ovs.dropKeys(vswitchdb.OpenvSwitchTable, root.UUID, "other_config", root.OtherConfig, indexPrefix+st.cfg.Name)
	st.bridge = st.in.Switch.Bridge(st.cfg.Bridge)
	if st.bridge == nil {
		return !indexed
	}
	var gone []Ref
	for _, p := range st.in.Switch.Ports(st.bridge) {
		if p.ExternalIDs[keyTunnel] != "" {
			gone = append(gone, Ref{UUID: p.UUID})
		}
	}
	st.changePorts(st.bridge, nil, gone)
	return !indexed && len(gone) == 0
}
