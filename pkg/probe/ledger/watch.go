package ledger

import "context"

// A Watcher makes the filters of flows on this node. It may be used from many goroutines.
type Watcher interface {
	// Watch returns when the filters are there, or at once if all flows await those of their devices. Numbers of flows are given by it.
	Watch(ctx context.Context, flows []Flow) (Watch, error)
}

// A Watch has the filters of some flows until it is closed. They follow other filters, which they do the same as.
type Watch interface {
	// Flows are those that were asked for, in that order, with their numbers.
	Flows() []Flow
	// Read returns what was counted, by number, and how often filters have become others: what they had counted before is lost then. A change is two more, of which the
	// first is that it is wanted, and the second that it is there. It takes the kernel some microseconds a filter, and a driver as long as it takes to ask its
	// NIC. Drivers read counters once a second or less often.
	Read(ctx context.Context) (counts map[uint32]Counts, changes int, err error)
	// Close returns when the filters are gone. What a process leaves that is killed, the next daemon removes.
	Close() error
}
