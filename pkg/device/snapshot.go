package device

import (
	"cmp"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A FunctionStatus is a function, where it is in its life, and whose it is.
type FunctionStatus struct {
	Function
	State   State
	Owner   string        // "": nobody's
	Reason  reason.Reason // of Quarantined and Gone; "" otherwise
	Message string        // the same for people
	Since   time.Time     // when it came into its state
}

// A Status is what there is of a device.
type Status struct {
	Handle   devlink.Handle
	Mode     devlink.EswitchMode // 0: it has not been read
	Uplink   Link                // the PF's netdev; the zero Link: it has none here
	NUMA     int                 // -1: none
	VFs      int                 // how many there are
	TotalVFs int                 // how many there can be
	Doing    string              // what is being done to it; "": nothing
	Reason   reason.Reason       // why its functions cannot be used; ""
	Message  string              // the same for people
}

// A PoolStatus is a pool and how many functions it has.
type PoolStatus struct {
	Pool
	Handle   devlink.Handle // of its device; the zero Handle: there is none
	Capacity int            // how many there can be: for SFs the pool's maximum
	Counts   map[State]int
	Reason   reason.Reason // why it cannot be filled, or cannot be used; ""
	Message  string        // the same for people
}

// A Snapshot is everything at one moment, sorted. Nobody changes it.
type Snapshot struct {
	Revision  uint64
	Changed   <-chan struct{} // closed when there is a newer one
	Devices   []Status
	Functions []FunctionStatus
	Pools     []PoolStatus
}

func (a *account) status() FunctionStatus {
	return FunctionStatus{Function: a.Function, State: a.state, Owner: a.owner, Reason: a.reason, Message: a.message, Since: time.Unix(0, a.since)}
}

// Snapshot returns what there is now.
func (v *Inventory) Snapshot() Snapshot {
	unlock := v.lock()
	defer unlock(false)
	s := Snapshot{Revision: v.revision, Changed: v.changed}
	for h, nic := range v.world.nics {
		d := Status{
			Handle: h, Mode: nic.mode, Uplink: v.world.uplink(h), NUMA: nic.sysfs.numa, VFs: nic.sysfs.vfs, TotalVFs: nic.sysfs.total,
		}
		if w := v.workers[h]; w != nil {
			d.Doing = w.doing
		}
		d.Reason, d.Message = why(v.usable(h))
		s.Devices = append(s.Devices, d)
	}
	slices.SortFunc(s.Devices, func(a, b Status) int { return cmp.Compare(a.Handle.String(), b.Handle.String()) })
	counts := map[*poolBook]map[State]int{}
	for _, a := range v.book.sorted() {
		s.Functions = append(s.Functions, a.status())
		if a.pool == nil {
			continue
		}
		if counts[a.pool] == nil {
			counts[a.pool] = map[State]int{}
		}
		counts[a.pool][a.state]++
	}
	for _, p := range v.book.pools {
		ps := PoolStatus{Pool: p.Pool, Handle: p.device, Capacity: p.Max, Counts: counts[p], Reason: p.reason, Message: p.message}
		if p.Kind == VF {
			for state, n := range ps.Counts {
				if state != Gone {
					ps.Capacity += n
				}
			}
		}
		switch {
		case p.device == (devlink.Handle{}) && v.usable(p.device) == nil:
			ps.Reason, ps.Message = reason.DeviceNotFound, "there is no device "+p.Device+" with an embedded switch"
		case v.usable(p.device) != nil:
			ps.Reason, ps.Message = why(v.usable(p.device))
		}
		s.Pools = append(s.Pools, ps)
	}
	return s
}

func why(err error) (reason.Reason, string) {
	if err == nil {
		return "", ""
	}
	return reason.Of(err), err.Error()
}
