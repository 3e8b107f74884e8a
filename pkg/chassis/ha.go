package chassis

import (
	"cmp"
	"slices"

	"github.com/offloadd/offloadd/pkg/sb"
)

// inHAGroup reports whether a chassis is a candidate of an HA_Chassis_Group.
func inHAGroup(store *sb.Store, group, chassis sb.UUID) bool {
	g := store.HAChassisGroups[group]
	return g != nil && slices.ContainsFunc(g.HAChassis, func(member sb.UUID) bool {
		m := store.HAChassis[member]
		return m != nil && m.Chassis == chassis
	})
}

// leadsHAGroup reports whether me is the chassis that hosts the ports of a group: the candidate with the highest
// priority among me and those with an active tunnel.
//
// A chassis that sees no other candidate leads only if it sees some chassis that refers to the group: otherwise it
// is more likely itself cut off.
func leadsHAGroup(store *sb.Store, group sb.UUID, me *sb.Chassis, active map[string]struct{}) bool {
	g := store.HAChassisGroups[group]
	if g == nil {
		return false
	}
	sees := func(uuid sb.UUID) bool {
		c := store.Chassis[uuid]
		if c == nil {
			return false
		}
		_, ok := active[c.Name]
		return ok
	}
	type candidate struct {
		priority int
		name     string
		uuid     sb.UUID
	}
	var known, reachable []candidate
	for _, uuid := range g.HAChassis {
		m := store.HAChassis[uuid]
		if m == nil || store.Chassis[m.Chassis] == nil {
			continue
		}
		c := candidate{m.Priority, store.Chassis[m.Chassis].Name, m.Chassis}
		known = append(known, c)
		if m.Chassis == me.UUID || sees(m.Chassis) {
			reachable = append(reachable, c)
		}
	}
	switch {
	case len(known) == 1:
		return known[0].uuid == me.UUID
	case len(active) == 0 || len(reachable) == 0:
		return false
	case len(reachable) == 1 && !slices.ContainsFunc(g.RefChassis, sees):
		return false
	}
	first := slices.MinFunc(reachable, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(b.name, a.name))
	})
	return first.uuid == me.UUID
}

// bfdPeers returns the names of the chassis with which me watches its tunnels: the other candidates of its groups
// and those that refer to them; or, where me only refers to a group, the candidates.
func bfdPeers(store *sb.Store, me *sb.Chassis) map[string]struct{} {
	peers := map[string]struct{}{}
	for _, g := range store.HAChassisGroups {
		if len(g.HAChassis) < 2 {
			continue
		}
		var group []sb.UUID
		member := false
		for _, uuid := range g.HAChassis {
			if m := store.HAChassis[uuid]; m != nil {
				group = append(group, m.Chassis)
				member = member || m.Chassis == me.UUID
			}
		}
		switch {
		case member:
			for _, uuid := range g.RefChassis {
				if c := store.Chassis[uuid]; c != nil && c.OtherConfig["is-remote"] != "true" {
					group = append(group, uuid)
				}
			}
		case !slices.Contains(g.RefChassis, me.UUID):
			continue
		}
		for _, uuid := range group {
			if c := store.Chassis[uuid]; c != nil && uuid != me.UUID {
				peers[c.Name] = struct{}{}
			}
		}
	}
	return peers
}
