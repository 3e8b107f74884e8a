package deviceplugin

import (
	"cmp"
	"maps"
	"slices"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A unit is one of what kubelet counts and hands out: a VF, or a slot of a pool of SFs.
type unit struct {
	id      string
	healthy bool
	numa    int // -1: none
	pf      uint16
	free    bool // a pod that gets it has not to wait

	function *device.Function // of a VF; nil for a slot
}

// list returns the units of a pool, in order. held has the owner of each unit that a port has asked for by its name.
func list(s device.Snapshot, pool string, held map[string]string) []unit {
	i := slices.IndexFunc(s.Pools, func(p device.PoolStatus) bool { return p.Name == pool })
	if i < 0 {
		return nil
	}
	p := s.Pools[i]
	usable, numa := false, -1
	for _, d := range s.Devices {
		if p.Handle != (devlink.Handle{}) && d.Handle == p.Handle {
			usable, numa = d.Reason == "", d.NUMA
		}
	}
	if p.Kind == device.SF {
		return slots(s, p, held, usable, numa)
	}
	var all []unit
	for _, f := range s.Functions {
		if f.Pool != pool || f.Device == "" {
			continue
		}
		u := unit{id: f.Device, healthy: usable, numa: f.NUMA, pf: f.PF, free: f.State == device.Free, function: &f.Function}
		switch f.State { //nolint:exhaustive // the others are as their device is
		case device.Used:
			u.healthy = true
		case device.Quarantined, device.Gone:
			u.healthy = false
		}
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b unit) int {
		return cmp.Or(cmp.Compare(a.pf, b.pf), cmp.Compare(a.function.Number, b.function.Number))
	})
	return all
}

// slots are as many as the pool can have functions at most. Those that a port has are as its function is; of the others as many are
// healthy as there can be functions for.
func slots(s device.Snapshot, p device.PoolStatus, held map[string]string, usable bool, numa int) []unit {
	total, free := 0, 0
	broken, owned := 0, map[string]device.State{} // by owner
	for _, f := range s.Functions {
		if f.Pool != p.Name || f.Kind != device.SF {
			continue
		}
		switch f.State { //nolint:exhaustive // the others are there, and no more
		case device.Quarantined:
			broken++
		case device.Free:
			free++
		}
		if f.State != device.Gone {
			total++
		}
		if f.Owner != "" {
			owned[f.Owner] = f.State
		}
	}
	most := p.Capacity
	if p.Reason == reason.PoolExhausted { // the device has no room for more
		most = min(most, total)
	}
	left := most - broken - len(owned)
	all := make([]unit, p.Capacity)
	for n := range all {
		u := unit{id: p.Slot(n), numa: numa, pf: p.PF}
		if owner, ok := held[u.id]; ok {
			state, has := owned[owner]
			u.healthy = has && state != device.Gone || !has && usable // without an SF the port is being made or removed
		} else if usable && left > 0 {
			left--
			u.healthy, u.free = true, free > 0
			free--
		}
		all[n] = u
	}
	return all
}

// prefer chooses size of the units that are available, those that it must among them: of one NUMA node and PF if there are enough, rather where
// few would be left, and rather those for which a pod does not wait.
func prefer(all []unit, available, must []string, size int) []string {
	type place struct {
		numa int
		pf   uint16
	}
	chosen := slices.Clone(must)
	groups := map[place][]unit{}
	near, nearNUMA := map[place]bool{}, map[int]bool{} // of what is chosen
	for _, u := range all {
		at := place{u.numa, u.pf}
		switch {
		case slices.Contains(must, u.id):
			near[at], nearNUMA[u.numa] = true, true
		case slices.Contains(available, u.id):
			groups[at] = append(groups[at], u)
		}
	}
	for len(chosen) < size && len(groups) > 0 {
		missing := size - len(chosen)
		ofNUMA := map[int]int{}
		for at, g := range groups {
			ofNUMA[at.numa] += len(g)
		}
		rank := func(at place) []int { // the lowest is the best
			n := len(groups[at])
			left := n - missing
			if left < 0 {
				left = -n
			}
			return []int{no(near[at]), no(nearNUMA[at.numa]), no(ofNUMA[at.numa] >= missing), no(n >= missing), left, at.numa, int(at.pf)}
		}
		best := slices.MinFunc(slices.Collect(maps.Keys(groups)), func(a, b place) int { return slices.Compare(rank(a), rank(b)) })
		group := groups[best]
		slices.SortStableFunc(group, func(a, b unit) int { return cmp.Compare(no(a.free), no(b.free)) })
		for _, u := range group[:min(missing, len(group))] {
			chosen = append(chosen, u.id)
		}
		near[best], nearNUMA[best.numa] = true, true
		delete(groups, best)
	}
	return chosen
}

// no is 0 for what is so, and 1 for what is not.
func no(b bool) int {
	if b {
		return 0
	}
	return 1
}
