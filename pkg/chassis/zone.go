package chassis

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// zonePrefix begins the keys of Bridge.external_ids that keep zones over a restart.
const zonePrefix = "ct-zone-"

// maxZone is the last conntrack zone; zone 0 is what traffic outside OVN uses.
const maxZone = 1<<16 - 1

// A zone is a conntrack zone in use.
type zone struct {
	id    uint16
	phase zonePhase
	// turn is the one whose flows need the zone to be empty. Only when they are in, and so the zone has been
	// flushed, is it written to the database: a zone read back after a crash then never holds foreign connections.
	turn uint64
}

// zonePhase says what use a zone has had since the program started.
type zonePhase int

const (
	restored zonePhase = iota // none yet; an earlier run has recorded it
	used
	left // its user is gone, and only ignorance of what else is gone keeps it
)

// natZones returns the names of the zones of a datapath.
func natZones(dp sb.UUID) (dnat, snat string) { return dp.String() + "_dnat", dp.String() + "_snat" }

// restoreZones reads the zones that an earlier run recorded.
func restoreZones(b *vswitchdb.Bridge) map[string]zone {
	zones := map[string]zone{}
	for key, value := range b.ExternalIDs {
		name, ok := strings.CutPrefix(key, zonePrefix)
		if !ok || name == "" {
			continue
		}
		if id, err := strconv.ParseUint(value, 10, 16); err == nil && id > 0 {
			zones[name] = zone{id: uint16(id)}
		}
	}
	return zones
}

// assignZones gives every user a zone and returns the new assignment.
//
// Names in requested get the zone they ask for, even if several ask for the same. Of the others each gets a zone of
// its own: the one it has unless somebody else has a better right to it, or the lowest free one. Names that are no
// users keep their zones while keep is set, and lose them otherwise. Flush holds, sorted, the zones whose user
// changed. If there are not enough zones, without are the users, sorted, that got none.
func assignZones(have map[string]zone, users map[string]struct{}, requested map[string]uint16, keep bool, turn uint64) (zones map[string]zone, flush []uint16, without []string) {
	zones = make(map[string]zone, len(users))
	taken := map[uint16]struct{}{}
	flushed := map[uint16]struct{}{}
	assign := func(name string, id uint16) {
		taken[id] = struct{}{}
		z := zone{id: id, phase: used, turn: turn}
		if old, ok := have[name]; ok && old.id == id && old.phase != left {
			z.turn = old.turn
		} else {
			flushed[id] = struct{}{}
		}
		zones[name] = z
	}
	for _, name := range slices.Sorted(maps.Keys(requested)) {
		if _, ok := users[name]; ok {
			assign(name, requested[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		old := have[name]
		_, user := users[name]
		_, done := zones[name]
		_, held := taken[old.id]
		switch {
		case done || held:
		case user:
			assign(name, old.id)
		case keep:
			if old.phase == used {
				old.phase = left
			}
			zones[name] = old
			taken[old.id] = struct{}{}
		default:
			flushed[old.id] = struct{}{}
		}
	}
	free := 1
	for _, name := range slices.Sorted(maps.Keys(users)) {
		if _, done := zones[name]; done {
			continue
		}
		for ; free <= maxZone; free++ {
			if _, held := taken[uint16(free)]; !held {
				break
			}
		}
		if free > maxZone {
			without = append(without, name)
			continue
		}
		assign(name, uint16(free))
	}
	return zones, slices.Sorted(maps.Keys(flushed)), without
}

// allocate assigns zones to the bindings, the local datapaths, and whatever else is plugged into the bridge, and keeps
// the database up to date. A port that is plugged in here but bound elsewhere has a zone as with ovn-controller(8), so
// that a port on its way has the zone already.
func (st *step) allocate(bindings []binding, at sites, local *Local) {
	if st.zones == nil {
		st.zones = restoreZones(st.bridge)
	}
	users := map[string]struct{}{}
	requested := map[string]uint16{}
	for _, b := range bindings {
		users[b.port.Name] = struct{}{}
	}
	for name := range at.byID {
		users[name] = struct{}{}
	}
	for uuid := range local.Datapaths {
		dnat, snat := natZones(uuid)
		users[dnat], users[snat] = struct{}{}, struct{}{}
		if id := st.in.SB.Datapaths[uuid].SNATZone; id != 0 {
			requested[snat] = id
		}
		for _, port := range st.in.SB.PortsOf(uuid) {
			if port.Type == sb.Localnet {
				users[port.Name] = struct{}{}
			}
		}
	}
	var without []string
	st.zones, st.plan.FlushZones, without = assignZones(st.zones, users, requested, !st.known, st.in.Turn)
	if len(without) > 0 {
		st.notice(LevelError, "ct zones exhausted", "lport", without[0], "count", strconv.Itoa(len(without)))
	}

	local.Zones = make(map[string]uint16, len(st.zones))
	record := map[string]string{}
	for name, z := range st.zones {
		if _, ok := users[name]; ok {
			local.Zones[name] = z.id
		}
		if st.in.InForce >= z.turn {
			record[zonePrefix+name] = strconv.Itoa(int(z.id))
		}
	}
	st.ovs.setKeys(vswitchdb.BridgeTable, st.bridge.UUID, "external_ids", st.bridge.ExternalIDs, record)
	if st.known {
		var stale []string
		for key := range st.bridge.ExternalIDs {
			if name, ok := strings.CutPrefix(key, zonePrefix); ok && st.zones[name].id == 0 {
				stale = append(stale, key)
			}
		}
		st.ovs.dropKeys(vswitchdb.BridgeTable, st.bridge.UUID, "external_ids", st.bridge.ExternalIDs, stale...)
	}
}
