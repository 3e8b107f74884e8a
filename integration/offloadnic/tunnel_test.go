package offloadnic

import (
	"testing"

	"github.com/offloadd/offloadd/integration/offload"
)

// A new ovs-vswitchd makes the tunnel device anew. The kernel lets it join the filters only while none is in hardware; afterwards all are again,
// those of the new device too.
func TestTunnelDeviceAnew(t *testing.T) {
	r := rig(t)
	settled(t, r, everything)
	names, err := offload.Devices(r.Nodes[0])
	check(t, err)
	check(t, r.Nodes[0].Restart(t.Context(), "ovs-vswitchd"))
	check(t, r.Sync(t.Context()))
	settled(t, r, everything)
	for ifindex, name := range names {
		if now, err := offload.Devices(r.Nodes[0]); err != nil || name == offload.TunnelDevice && now[ifindex] == name {
			t.Errorf("%s is still device %d (%v): nothing was tried", name, ifindex, err)
		}
	}
	passes(t, r)
}
