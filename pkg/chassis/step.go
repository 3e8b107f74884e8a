package chassis

import (
	"github.com/offloadd/offloadd/pkg/sb"
)

// Options are what neither database says about this chassis.
type Options struct {
	// Name overrides external_ids:system-id, as a command line option or a file may. Empty: no override.
	Name string
	// Hostname is what the operating system calls the machine; external_ids:hostname overrides it.
	Hostname string
	// StartTime is when the program started, in milliseconds since the epoch.
	StartTime int64
	// BridgeMAC is the Ethernet address of an integration bridge that has to be created, in the form
	// xx:xx:xx:xx:xx:xx. ovs-vswitchd derives the datapath id from it.
	BridgeMAC string
	// Types are the port types, beyond VIFs, containers and localports, that this chassis claims. A port of
	// another type that would belong here is left alone, and an event says so.
	Types []string
}

// Inputs are what a step decides from.
type Inputs struct {
	// Turn numbers the steps, from 1. The program compiled from a step's plan belongs to its turn.
	Turn uint64
	// AckedTurn is the last turn of which all flows, and all zone flushes, are known to be installed, and those of
	// all turns before it.
	AckedTurn uint64
	// Now is the time in milliseconds since the epoch.
	Now int64

	Switch *Switch
	SB     *sb.Store
	// SBSynced says that SB holds the complete contents the server had at some time.
	SBSynced bool
	// CondInSync says that SB reflects the conditions of the last plan.
	CondInSync bool
	// SBIdle and OVSIdle say that the database is connected, and that the outcome of the last transaction is known
	// and visible here. Only then does the plan hold ops for it.
	SBIdle, OVSIdle bool
	// HasColumn says whether the server's schema has a column. Nil: it has all.
	HasColumn func(db DB, table, column string) bool
}

// Plan is what a step decides.
type Plan struct {
	Config Config
	// SBOps and OVSOps are one transaction each.
	SBOps, OVSOps []Op
	// Local is nil until this chassis knows enough to compile anything.
	Local *Local
	// FlushZones are conntrack zones whose connections must go before flows of this turn use them, sorted.
	FlushZones []uint16
	// Conditions holds, per Southbound table, the rows that concern this chassis: those for which some clause
	// holds, so an empty list is no row. Tables that are absent are monitored whole; nil is everything.
	Conditions map[string][]Clause
	// ConditionsChanged says that Conditions differ from those of the step before.
	ConditionsChanged bool
	// WakeAt is when the next step is due even if nothing changes, in milliseconds since the epoch; 0 is never.
	WakeAt int64
	Events []Event
}
