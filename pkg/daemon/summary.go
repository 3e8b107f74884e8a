package daemon

import (
	"fmt"
	"strings"

	"github.com/offloadd/offloadd/pkg/apply"
)

// Summary is what the control socket's "status" tells.
type Summary struct {
	Chassis    string
	Southbound bool // connected
	OVS        bool // connected
	Bridge     apply.Status
	Turn       uint64
	Acked      uint64
	Datapaths  int
	Ports      int
	Tunnels    int
	Skipped    map[string]int
	Refused    int            // Southbound rows
	Rows       map[string]int // by Southbound table
	Offload    []string       // lines for people
}

func (a *Agent) summary() Summary {
	s := Summary{
		Chassis:    a.plan.Config.Name,
		Southbound: a.south.connected,
		OVS:        a.ovs.connected,
		Bridge:     a.flows.Status(),
		Turn:       a.turn,
		Acked:      a.acked,
		Skipped:    a.engine.Skipped(),
		Refused:    a.store.Refused(),
		Rows:       rowCounts(a.store),
	}
	if s.Bridge.Installed && a.acked >= a.sent {
		s.Acked = a.turn // what this one wanted, if anything, was nothing for the bridge
	}
	switch {
	case a.config.Offload == offloadDelegated:
		s.Offload = delegatedLines(a.delegatedState())
	case a.offload == nil:
		s.Offload = []string{"offload: off"}
	default:
		status, _ := a.offload.Status()
		s.Offload = status.lines()
	}
	if l := a.plan.Local; l != nil {
		s.Datapaths, s.Ports, s.Tunnels = len(l.Datapaths), len(l.Ports), len(l.Tunnels)
	}
	return s
}

func (s Summary) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "chassis: %s\nsouthbound connected: %v\nopen_vswitch connected: %v\nbridge connected: %v\n",
		s.Chassis, s.Southbound, s.OVS, s.Bridge.Connected)
	fmt.Fprintf(&out, "flows desired: %d\nflows refused: %d\nflow modifications sent: %d\nturn: %d\nacknowledged turn: %d\n",
		s.Bridge.Desired, s.Bridge.Refused, s.Bridge.Sent, s.Turn, s.Acked)
	fmt.Fprintf(&out, "groups desired: %d\nmeters desired: %d\n", s.Bridge.Groups, s.Bridge.Meters)
	fmt.Fprintf(&out, "local datapaths: %d\nlocal ports: %d\ntunnels: %d\nsouthbound rows refused: %d\n",
		s.Datapaths, s.Ports, s.Tunnels, s.Refused)
	for _, line := range s.Offload {
		fmt.Fprintln(&out, line)
	}
	for _, table := range sortedKeys(s.Rows) {
		fmt.Fprintf(&out, "rows of %s: %d\n", table, s.Rows[table])
	}
	for _, action := range sortedKeys(s.Skipped) {
		name := action
		if name == "" {
			name = "(malformed)"
		}
		fmt.Fprintf(&out, "rows skipped for %s: %d\n", name, s.Skipped[action])
	}
	return out.String()
}
