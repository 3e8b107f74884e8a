package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/reason"
)

// offloadsItself reports whether Open vSwitch is told to offload its megaflows. root may be nil.
func offloadsItself(root *vswitchdb.OpenvSwitch) bool {
	return root != nil && strings.EqualFold(root.OtherConfig["hw-offload"], "true") // smap_get_bool
}

// fixHWOffload makes Open vSwitch offload. It is never done by us: the restart stops what is forwarded by ovs-vswitchd for a moment.
const fixHWOffload = "ovs-vsctl set open . other_config:hw-offload=true, and restart ovs-vswitchd"

// delegatedState is how far Open vSwitch offloads, as far as the database says. It runs in the loop.
func (a *Agent) delegatedState() api.Offload {
	out := api.Offload{Mode: api.OffloadDelegated, Delegated: &api.Delegated{}}
	root := a.sw.Root()
	if root != nil {
		out.Delegated.TCPolicy = root.OtherConfig["tc-policy"]
	}
	out.Delegated.HWOffload = offloadsItself(root)
	switch {
	case !a.ovs.synced:
		out.Idle = "the local database has not been read"
	case !out.Delegated.HWOffload:
		out.Idle, out.Delegated.Fix = "Open vSwitch does not offload: other_config:hw-offload is not true", fixHWOffload
	}
	return out
}

// delegatedLines describes the state for people, a line for each fact.
func delegatedLines(o api.Offload) []string {
	if o.Idle != "" {
		lines := []string{"offload: none: " + o.Idle}
		if o.Delegated.Fix != "" {
			lines = append(lines, "offload: to do: "+o.Delegated.Fix)
		}
		return lines
	}
	return []string{"offload: delegated to Open vSwitch, tc-policy " + cmp.Or(o.Delegated.TCPolicy, "none")}
}

// A localDevice is where packets arrive, and the logical port that they come from, "" if it is a tunnel.
type localDevice struct{ port, name string }

// localDevices are the devices of local ports, ordered by port, and that of the tunnels at the end. It runs in the loop.
func (a *Agent) localDevices() []localDevice {
	var all []localDevice
	local := a.plan.Local
	if local == nil {
		return nil
	}
	for _, port := range slices.Sorted(maps.Keys(local.Ports)) {
		all = append(all, localDevice{port, local.Ports[port].Iface})
	}
	if len(local.Tunnels) > 0 {
		all = append(all, localDevice{name: tunnelDevice})
	}
	return all
}

// datapath is the name of the datapath of the integration bridge, for dpctl(8). It runs in the loop.
func (a *Agent) datapath() string {
	if b := a.sw.Bridge(a.plan.Config.Bridge); b != nil && b.DatapathType == "netdev" {
		return dpctl.UserDatapath
	}
	return dpctl.KernelDatapath
}

// megaflowTimeout bounds a question to ovs-vswitchd, also if the caller does not.
const megaflowTimeout = 30 * time.Second

// megaflows asks ovs-vswitchd what its datapath has. One asks at a time, since ovs-vswitchd does nothing else in its main thread
// meanwhile.
func (a *Agent) megaflows(ctx context.Context, datapath string) (flows []dpctl.Flow, err error) {
	err = a.ask(ctx, func(ctx context.Context, c *dpctl.Conn) (err error) {
		flows, err = c.Flows(ctx, datapath)
		return err
	})
	return flows, err
}

// ask lets do ask ovs-vswitchd.
func (a *Agent) ask(ctx context.Context, do func(context.Context, *dpctl.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, megaflowTimeout)
	defer cancel()
	select {
	case a.asking <- struct{}{}:
		defer func() { <-a.asking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	conn, err := dpctl.Dial(ctx, a.config.OVSRunDir)
	if err == nil {
		err = errors.Join(do(ctx, conn), conn.Close())
	}
	if err != nil && ctx.Err() == nil {
		err = &reason.Error{Reason: reason.BridgeDisconnected, Err: fmt.Errorf("daemon megaflows: %w", err)}
	}
	return err
}

// sumMegaflows completes an Offload with the megaflows of the local ports.
func (n *Node) sumMegaflows(ctx context.Context, d *api.Delegated) error {
	var devices []localDevice
	var datapath string
	if err := n.agent.query(ctx, func() { devices, datapath = n.agent.localDevices(), n.agent.datapath() }); err != nil {
		return err
	}
	flows, err := n.agent.megaflows(ctx, datapath)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		d.Error = err.Error()
		return nil
	}
	sums := dpctl.Sums(flows)
	for _, dev := range devices {
		s := sums[dev.name]
		d.Ports = append(d.Ports, api.DelegatedPort{
			Port: dev.port, Device: dev.name,
			NIC: api.MegaflowSum(s[dpctl.NIC]), TC: api.MegaflowSum(s[dpctl.TC]), Partly: api.MegaflowSum(s[dpctl.Partly]), OVS: api.MegaflowSum(s[dpctl.OVS]),
		})
	}
	return nil
}
