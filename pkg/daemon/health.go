package daemon

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/reason"
)

// ReportHealth has the agent tell after each turn how its connections are, also without a change. It must be called before
// the agent runs.
func (a *Agent) ReportHealth(report func(api.Health)) { a.report = report }

func (a *Agent) reportHealth() {
	if a.report == nil {
		return
	}
	a.report(databaseHealth(api.SubsystemOVS, a.ovs, a.config.OVSDatabase, reason.OVSDBDisconnected))
	south := databaseHealth(api.SubsystemSB, a.south, a.south.remote, reason.SBDisconnected)
	if a.south.client == nil && !a.ovs.synced {
		south.Message = "the local database, which says where it is, has not been read"
	}
	a.report(south)
	bridge := api.Health{Subsystem: api.SubsystemBridge}
	switch status := a.flows.Status(); {
	case a.bridgePath() == "":
		bridge.Reason, bridge.Message = reason.BridgeMissing, "there is no integration bridge yet"
	case !status.Connected:
		bridge.Reason, bridge.Message = reason.BridgeDisconnected, "not connected to "+a.bridgePath()
		if status.Err != nil {
			bridge.Message = status.Err.Error()
		}
	}
	a.report(bridge)
	a.report(filterHealth(a.offloadState()))
}

// filterHealth says that filters do not work if some could not be installed. That there should be none is no fault, but that
// Open vSwitch should make them and does not is one.
func filterHealth(o api.Offload) api.Health {
	h := api.Health{Subsystem: api.SubsystemFilter}
	switch {
	case o.Delegated != nil && o.Delegated.Fix != "":
		h.Reason, h.Message = reason.HWOffloadOff, o.Idle+"; "+o.Delegated.Fix
	case o.Error != "":
		h.Reason, h.Message = reason.KernelRefused, o.Error
	case len(o.Refused) > 0:
		first := o.Refused[0]
		h.Reason, h.Message = reason.KernelRefused, fmt.Sprintf("%d refused, the first is %s: %s", len(o.Refused), first.What, first.Error)
	}
	return h
}

func databaseHealth(s api.Subsystem, db *database, remote string, down reason.Reason) api.Health {
	switch {
	case db.client == nil:
		return api.Health{Subsystem: s, Reason: down, Message: "external_ids of the table Open_vSwitch do not say where it is"}
	case !db.connected:
		return api.Health{Subsystem: s, Reason: down, Message: fmt.Sprintf("no connection to %s", remote)}
	case !db.synced:
		return api.Health{Subsystem: s, Reason: reason.NotReady, Message: "its contents are being read"}
	default:
		return api.Health{Subsystem: s}
	}
}
