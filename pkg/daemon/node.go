package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
)

// A Build is what the program was built from.
type Build struct{ Version, Commit string }

// A Node tells the API of an agent. It implements api.Node.
type Node struct {
	agent    *Agent
	identity api.Identity // what does not come from the databases
}

// NewNode returns the Node of an agent. capabilities are those of api.Identity.
func NewNode(agent *Agent, build Build, capabilities ...string) (*Node, error) {
	id := api.Identity{
		Capabilities: capabilities,
		Version:      build.Version,
		Commit:       build.Commit,
		GoVersion:    runtime.Version(),
		Started:      time.Now(),
	}
	var err error
	if id.Hostname, err = os.Hostname(); err != nil {
		return nil, fmt.Errorf("daemon node: %w", err)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("daemon node: uname: %w", err)
	}
	id.Kernel = unix.ByteSliceToString(uts.Release[:])
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil { // not everywhere
		id.BootID = strings.TrimSpace(string(boot))
	}
	return &Node{agent, id}, nil
}

// query runs f in the agent's loop. If it returns an error, f may still be running, or run later.
func (a *Agent) query(ctx context.Context, f func()) error {
	c := command{f, make(chan struct{})}
	select {
	case a.commands <- c:
	case <-a.ended:
		return reason.Errorf(reason.ShuttingDown, "daemon: the agent has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Identity returns what the daemon is, and which versions it sees.
func (n *Node) Identity(ctx context.Context) (api.Identity, error) {
	seen := n.identity
	err := n.agent.query(ctx, func() {
		a := n.agent
		seen.Chassis = a.plan.Config.Name
		seen.Schemas = map[string]string{}
		for _, db := range []*database{a.ovs, a.south} {
			if db.client == nil {
				continue
			}
			if v := db.client.SchemaVersion(); v != "" {
				seen.Schemas[db.name] = v
			}
		}
		if root := a.sw.Root(); root != nil {
			if root.OVSVersion != nil {
				seen.OVS = *root.OVSVersion
			}
		}
		if g := a.store.Global; g != nil {
			seen.Northd = g.Options["northd_internal_version"]
		}
	})
	if err != nil {
		return api.Identity{}, err
	}
	return seen, nil
}

// Status returns how the chassis is doing, without the health of the subsystems: api.Server knows that.
func (n *Node) Status(ctx context.Context, req api.StatusRequest) (api.Status, error) {
	var st api.Status
	err := n.agent.query(ctx, func() {
		a := n.agent
		sum := a.summary()
		st = api.Status{
			Chassis: sum.Chassis,
			Databases: []api.Database{
				{Name: a.south.name, Remote: a.south.remote, Connected: a.south.connected, Synced: a.south.synced, Rows: sum.Rows},
				{Name: a.ovs.name, Remote: a.config.OVSDatabase, Connected: a.ovs.connected, Synced: a.ovs.synced},
			},
			Bridge: api.Bridge{
				Name:      a.plan.Config.Bridge,
				Connected: sum.Bridge.Connected,
				Installed: sum.Bridge.Installed && a.acked >= a.sent,
				Desired:   sum.Bridge.Desired,
				Refused:   sum.Bridge.Refused,
				Groups:    sum.Bridge.Groups,
				Meters:    sum.Bridge.Meters,
				Sent:      sum.Bridge.Sent,
			},
			Turn: sum.Turn, AckedTurn: sum.Acked,
			Datapaths: sum.Datapaths, Ports: sum.Ports, Tunnels: sum.Tunnels,
			Skipped: sum.Skipped, RowsRefused: sum.Refused,
			Offload: a.offloadState(),
		}
		for _, p := range a.store.ChassisPrivates {
			if p.Name == sum.Chassis {
				st.NBCfg = p.NBCfg
			}
		}
	})
	if d := st.Offload.Delegated; err == nil && d != nil && req.Megaflows {
		err = n.sumMegaflows(ctx, d)
	}
	if err != nil {
		return api.Status{}, err
	}
	return st, nil
}

// offloadState is how far the filters are what they should be.
func (a *Agent) offloadState() api.Offload {
	switch {
	case a.config.Offload == offloadDelegated:
		return a.delegatedState()
	case a.offload == nil:
		return api.Offload{Mode: api.OffloadOff}
	}
	s, put := a.offload.Status()
	out := api.Offload{
		Mode: api.OffloadDirect, Idle: s.Idle, Filters: s.Filters.Installed, Devices: s.Filters.Devices, States: s.States,
		Closed: s.Filters.Closed, Foreign: s.Filters.Foreign, Shadowed: s.Filters.Shadowed,
		Computed: s.Computed, Took: s.Took, Turn: put, AckedTurn: s.AckedTurn,
	}
	for _, r := range s.Filters.Refused {
		out.Refused = append(out.Refused, api.RefusedFilter{What: r.What, Error: r.Err.Error()})
	}
	if s.Err != nil {
		out.Error = s.Err.Error()
	}
	return out
}

// Chassis returns the chassis that the Southbound shows.
func (n *Node) Chassis(ctx context.Context) ([]api.Chassis, error) {
	var all []api.Chassis
	err := n.agent.query(ctx, func() {
		s := n.agent.store
		nbCfg := map[string]int64{}
		for _, p := range s.ChassisPrivates {
			nbCfg[p.Name] = p.NBCfg
		}
		for _, c := range s.Chassis {
			all = append(all, api.Chassis{
				Name: c.Name, Hostname: c.Hostname, Encaps: encaps(s, c),
				Local: c.Name == n.agent.plan.Config.Name, NBCfg: nbCfg[c.Name],
				BridgeMappings: c.OtherConfig["ovn-bridge-mappings"],
			})
		}
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

func encaps(s *sb.Store, c *sb.Chassis) []api.Encap {
	var all []api.Encap
	for _, id := range c.Encaps {
		if e := s.Encaps[id]; e != nil {
			all = append(all, api.Encap{Type: e.Type, IP: e.IP})
		}
	}
	return all
}

// Tunnels returns the tunnels of the integration bridge.
func (n *Node) Tunnels(ctx context.Context) ([]api.Tunnel, error) {
	var all []api.Tunnel
	err := n.agent.query(ctx, func() {
		for _, t := range chassis.TunnelPorts(n.agent.sw, n.agent.plan.Config.Bridge) {
			// The addresses are what somebody wrote into the database: the zero Addr if it is none.
			remote, _ := netip.ParseAddr(t.RemoteIP)
			local, _ := netip.ParseAddr(t.LocalIP)
			all = append(all, api.Tunnel{
				Interface: t.Interface, Chassis: t.Chassis, Type: t.Type, RemoteIP: remote, LocalIP: local, OFPort: uint32(t.OFPort),
			})
		}
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Zones returns the conntrack zones in use.
func (n *Node) Zones(ctx context.Context) ([]api.Zone, error) {
	var all []api.Zone
	err := n.agent.query(ctx, func() {
		if l := n.agent.plan.Local; l != nil {
			for owner, zone := range l.Zones {
				all = append(all, api.Zone{Owner: owner, Zone: zone})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Recompute returns when the turn that has computed everything from nothing is over.
func (n *Node) Recompute(ctx context.Context) error {
	return n.agent.query(ctx, func() { n.agent.recompute = true })
}

// Leave returns when the chassis has left; when ctx ends before, leaving goes on.
func (n *Node) Leave(ctx context.Context) error {
	a := n.agent
	if err := a.query(ctx, func() { a.leaving = true }); err != nil {
		return err
	}
	select {
	case <-a.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !a.hasLeft() {
		return &reason.Error{Reason: reason.ShuttingDown, Err: errors.New("daemon leave: ended before it was done")}
	}
	return nil
}
