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
