package device

import (
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
	Mode     devlink.EswitchMode // 0: it has no embedded switch
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
	Capacity int // how many there can be: for SFs the pool's maximum
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
