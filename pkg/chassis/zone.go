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
	id uint16
	// turn is the one whose flows need the zone to be empty. Only when they are in, and so the zone has been
	// flushed, is it written to the database: a zone read back after a crash then never holds foreign connections.
	turn uint64
}

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
// users keep their zones while keep is set, and lose them otherwise. Flush holds, sorted, the zones whose holder
// changed. If there are not enough zones, left are the users, sorted, that got none.
func assignZones(have map[string]zone, users map[string]struct{}, requested map[string]uint16, keep bool, turn uint64) (zones map[string]zone, flush []uint16, left []string) {
	zones = make(map[string]zone, len(users))
	taken := map[uint16]struct{}{}
	flushed := map[uint16]struct{}{}
	assign := func(name string, id uint16) {
		taken[id] = struct{}{}
		if old, ok := have[name]; ok && old.id == id {
			zones[name] = old
			return
		}
		zones[name] = zone{id: id, turn: turn}
		flushed[id] = struct{}{}
	}
	for _, name := range slices.Sorted(maps.Keys(requested)) {
		if _, ok := users[name]; ok {
			assign(name, requested[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		_, used := users[name]
		_, done := zones[name]
		_, held := taken[have[name].id]
		switch {
		case done:
		case !used && !keep:
			flushed[have[name].id] = struct{}{}
		case !held:
			assign(name, have[name].id)
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
			left = append(left, name)
			continue
		}
		assign(name, uint16(free))
	}
	return zones, slices.Sorted(maps.Keys(flushed)), left
}

// allocate assigns zones to the bindings and the local datapaths and keeps the database up to date.
func (st *step) allocate(bindings []binding, local *Local) {
	if st.zones == nil {
		st.zones = restoreZones(st.bridge)
	}
	users := map[string]struct{}{}
	requested := map[string]uint16{}
	for _, b := range bindings {
		users[b.port.Name] = struct{}{}
	}
	for name := range local.Ports {
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
	var left []string
	st.zones, st.plan.FlushZones, left = assignZones(st.zones, users, requested, !st.known, st.in.Turn)
	if len(left) > 0 {
		st.notice(LevelError, "ct zones exhausted", "lport", left[0], "count", strconv.Itoa(len(left)))
	}

	local.Zones = make(map[string]uint16, len(st.zones))
	record := map[string]string{}
	for name, z := range st.zones {
		if _, ok := users[name]; ok {
			local.Zones[name] = z.id
		}
		if st.in.AckedTurn >= z.turn {
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
