package daemon

import (
	"testing"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A database works when it is connected and has been read; one that was read and is away does not.
func TestDatabaseHealth(t *testing.T) {
	client := new(ovsdb.Client)
	for _, c := range []struct {
		client            *ovsdb.Client
		connected, synced bool
		want              reason.Reason
	}{
		{nil, false, false, reason.SBDisconnected},
		{client, false, false, reason.SBDisconnected},
		{client, true, false, reason.NotReady},
		{client, true, true, ""},
		{client, false, true, reason.SBDisconnected},
	} {
		db := newDatabase("OVN_Southbound", c.client)
		db.connected, db.synced = c.connected, c.synced
		got := databaseHealth(api.SubsystemSB, db, "tcp:192.0.2.1:6642", reason.SBDisconnected)
		if got.Reason != c.want || got.Subsystem != api.SubsystemSB || (got.Message == "") != (c.want == "") {
			t.Errorf("client %v, connected %v, synced %v: %+v, want %q", c.client != nil, c.connected, c.synced, got, c.want)
		}
	}
}

// Filters that could not be installed are a fault; that there are none is not.
func TestFilterHealth(t *testing.T) {
	refused := []api.RefusedFilter{{What: "filter add x", Error: "no"}, {What: "filter add y", Error: "no"}}
	for _, c := range []struct {
		state   api.Offload
		want    reason.Reason
		message string
	}{
		{api.Offload{Mode: api.OffloadOff}, "", ""},
		{api.Offload{Mode: api.OffloadDirect, Idle: "there is no integration bridge"}, "", ""},
		{api.Offload{Mode: api.OffloadDirect, Filters: 5, Foreign: 1, Turn: 3, AckedTurn: 2}, "", ""},
		{api.Offload{Mode: api.OffloadDirect, Error: "tc dial: no"}, reason.KernelRefused, "tc dial: no"},
		{api.Offload{Mode: api.OffloadDirect, Refused: refused, Filters: 5}, reason.KernelRefused, "2 refused, the first is filter add x: no"},
	} {
		want := api.Health{Subsystem: api.SubsystemFilter, Reason: c.want, Message: c.message}
		if got := filterHealth(c.state); got != want {
			t.Errorf("filterHealth(%+v) = %+v, want %+v", c.state, got, want)
		}
	}
}
