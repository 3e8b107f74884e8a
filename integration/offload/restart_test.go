package offload

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// What runs beside the filters is killed and started again, and no packet of an established connection is lost: filters stay where they
// are.
//
// A new ovs-vswitchd makes the tunnel device anew, since it does not know the old one. Filters that send to the old one drop, until the
// agent has heard of the new one and changed their last action. What is lost meanwhile is logged, and bounded. Local connections lose nothing.
func TestRestart(t *testing.T) {
	r := rig(t)
	warm(t, r)
	pin(t, r)
	n1, n2 := r.Node("n1"), r.Node("n2")
	agent := func(n *lab.Node) func(context.Context) error {
		return func(context.Context) error {
			if err := n.StopAgent(syscall.SIGKILL); err != nil {
				return err
			}
			time.Sleep(100 * time.Millisecond)
			return n.StartAgent(lab.Offloadd)
		}
	}
	for _, tt := range []struct {
		name    string
		tunnels bool // are made anew
		restart func(context.Context) error
	}{
		{"offloadd here", false, agent(n1)},
		{"offloadd there", false, agent(n2)},
		{"ovsdb-server of Open vSwitch", false, func(ctx context.Context) error { return n1.Restart(ctx, "ovsdb-server") }},
		{"ovsdb-server of the Southbound", false, func(ctx context.Context) error { return r.Restart(ctx, "sb") }},
		{"ovs-vswitchd", true, func(ctx context.Context) error { return n1.Restart(ctx, "ovs-vswitchd") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := startLoad(t, r, streams(false))
			wantOffloaded(t, r, Paths())
			begin := time.Now()
			check(t, tt.restart(t.Context()))
			check(t, r.Sync(t.Context()))
			t.Logf("killed at %s, everybody was in step after %v", clock(begin), time.Since(begin).Round(time.Millisecond))
			time.Sleep(lab.Patient(300 * time.Millisecond))
			wantOffloaded(t, r, Paths())
			l.stop(t)
			var local, far []stream
			for _, s := range l.streams {
				if s.Tunnel && tt.tunnels {
					far = append(far, s)
				} else {
					local = append(local, s)
				}
			}
			l.wantAll(t, local, time.Time{})
			for _, s := range far {
				l.wantGaps(t, s, begin, 1, lab.Patient(tunnelGap))
			}
		})
	}
}

// tunnelGap is how long tunnelled packets may be lost when the tunnel device is made anew.
const tunnelGap = time.Second
