package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A probeNode answers a probe between ports: see probe.Node.
type probeNode struct {
	agent *Agent
	feed  *ports.Feed
}

// Watch makes filters that count the packets of flows.
func (n *probeNode) Watch(ctx context.Context, flows []ledger.Flow) (ledger.Watch, error) {
	return n.agent.Watch(ctx, flows)
}

// Port finds a port that this daemon has made, and that is ready.
func (n *probeNode) Port(_ context.Context, name string) (probe.Port, error) {
	all, _ := n.feed.All()
	i := slices.IndexFunc(all, func(p ports.Port) bool { return p.Spec.LogicalPort == name })
	if i < 0 {
		return probe.Port{}, reason.Errorf(reason.PortNotFound, "probe: no port of this node is of the logical port %q", name).With("port", name)
	}
	p := &all[i]
	if p.State != ports.Ready {
		return probe.Port{}, reason.Errorf(reason.NotReady, "probe port %s: it is %s", name, p.State).With("port", name)
	}
	out := probe.Port{
		Port:  result.Port{Name: name, Kind: string(p.Kind), Device: p.HostInterface, NIC: isRepresentor(p.HostInterface)},
		Netns: p.Spec.Netns, Interface: p.Spec.Key.Ifname, MAC: p.MAC[:],
	}
	for _, a := range p.Addresses {
		out.Addresses = append(out.Addresses, a.Addr())
	}
	return out, nil
}

// Datapath asks ovs-vswitchd.
func (n *probeNode) Datapath(ctx context.Context) (flows []dpctl.Flow, missed uint64, err error) {
	var datapath string
	if err := n.agent.query(ctx, func() { datapath = n.agent.datapath() }); err != nil {
		return nil, 0, err
	}
	err = n.agent.ask(ctx, func(ctx context.Context, c *dpctl.Conn) (err error) {
		if flows, err = c.Flows(ctx, datapath); err == nil {
			missed, err = c.Missed(ctx, datapath)
		}
		return err
	})
	return flows, missed, err
}

// Vswitchd asks the process's clock.
func (n *probeNode) Vswitchd() (used time.Duration, known bool) {
	pid, err := dpctl.PID(n.agent.config.OVSRunDir)
	if err != nil {
		return 0, false
	}
	// The number is that of its own namespace: here it may be somebody else's.
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(name)) != "ovs-vswitchd" {
		return 0, false
	}
	var ts unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|2), &ts) != nil { // MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of posix-timers_types.h
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}

// Connections asks the connection tracker in all zones of this chassis.
func (n *probeNode) Connections(ctx context.Context, src, dst netip.AddrPort) (all []result.Connection, err error) {
	zones, err := n.agent.ctZones(ctx)
	if err != nil {
		return nil, err
	}
	t, err := openTracker()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	numbers := slices.Sorted(maps.Values(zones))
	for _, zone := range slices.Compact(numbers) {
		c, known, err := t.connection(zone, src, dst)
		if err != nil {
			return nil, err
		}
		if known {
			all = append(all, c)
		}
	}
	return all, nil
}
