package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/monitor"
)

// ways counts which way the packets of pairs take, by filters of their own at the ingress of each port that sends. They stay, so that a look reads
// counters and changes nothing. One goroutine uses it.
type ways struct {
	watcher ledger.Watcher
	feed    *ports.Feed
	watches map[string]*waysOf // by the host's device of a port
	// tracked asks the connection tracker, and nic whether a device is a port of an embedded switch.
	tracked func(context.Context, []monitor.Flow) ([]monitor.Tracked, error)
	nic     func(device string) bool
}

// waysOf are those of the packets that come in by one device.
type waysOf struct {
	flows   []monitor.Flow
	watch   ledger.Watch
	before  map[uint32]ledger.Counts
	changes int
}

// look returns what was counted since the last look, and what the connection tracker has, in the order of flows. What is not known has no packets; the
// error says why.
func (w *ways) look(ctx context.Context, flows []monitor.Flow) ([]monitor.Way, error) {
	devices, byDevice := w.devices(flows)
	all := make([]monitor.Way, len(flows))
	var failed error
	for device, of := range w.watches {
		if !slices.Equal(of.flows, byDevice[device]) { // flows are others: what was counted of those that stay is given up
			failed = errors.Join(failed, of.watch.Close())
			delete(w.watches, device)
		}
	}
	for device, wanted := range byDevice {
		counted, err := w.read(ctx, device, wanted)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("device %s: %w", device, err))
			continue
		}
		for i, f := range flows {
			if devices[i] == device {
				all[i] = counted[f.Side]
			}
		}
	}
	tracked, err := w.tracked(ctx, flows)
	for i := range flows {
		all[i].Tracked, all[i].NIC = tracked[i], devices[i] != "" && w.nic(devices[i])
	}
	return all, errors.Join(failed, err)
}

// devices are the host's devices of the ports that send, "" if there is none.
func (w *ways) devices(flows []monitor.Flow) (devices []string, byDevice map[string][]monitor.Flow) {
	byPort := map[string]string{}
	known, _ := w.feed.All()
	for i := range known {
		byPort[known[i].Spec.LogicalPort] = known[i].HostInterface
	}
	byDevice = map[string][]monitor.Flow{}
	for _, f := range flows {
		d := byPort[f.Port()]
		if devices = append(devices, d); d != "" {
			byDevice[d] = append(byDevice[d], f)
		}
	}
	return devices, byDevice
}

// read returns what was counted of the packets of a device since the last time.
func (w *ways) read(ctx context.Context, device string, flows []monitor.Flow) (map[monitor.Side]monitor.Way, error) {
	of := w.watches[device]
	if of == nil {
		of = &waysOf{flows: flows}
		watched := make([]ledger.Flow, len(flows))
		for i, f := range flows {
			watched[i] = ledger.Flow{
				Device: device, Proto: protoUDP, Src: netip.AddrPortFrom(f.Ends.From.Addr, f.FromPort), Dst: netip.AddrPortFrom(f.Ends.To, f.ToPort),
			}
		}
		var err error
		if of.watch, err = w.watcher.Watch(ctx, watched); err != nil {
			return nil, err
		}
		w.watches[device] = of
	}
	counts, changes, err := of.watch.Read(ctx)
	if err != nil {
		return nil, err
	}
	same := of.before != nil && changes == of.changes
	ways := map[monitor.Side]monitor.Way{}
	for i, f := range of.watch.Flows() {
		if c, ok := counts[f.ID].Since(of.before[f.ID]); ok && same {
			ways[flows[i].Side] = monitor.Way{Packets: c.Arrived(), Hardware: c.Forwarded.Hardware, Software: c.Forwarded.Software}
		}
	}
	of.before, of.changes = counts, changes
	return ways, nil
}
