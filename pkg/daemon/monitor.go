package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe/monitor"
	"github.com/offloadd/offloadd/pkg/sb"
)

// NewMonitor returns what measures the configured pairs of ports, and what must run for that.
func NewMonitor(c Config, a *Agent, p *ports.Service, log *slog.Logger) (*monitor.Monitor, []Task) {
	o := monitor.Options{Config: c.ContinuousProbe, Log: log, File: filepath.Join(c.StateDir, "monitor.json")}
	if c.Offload == offloadDirect {
		o.Ways = (&ways{watcher: a, feed: p.Feed(), watches: map[string]*waysOf{}, tracked: a.tracked, nic: isRepresentor}).look
	}
	m := monitor.New(o)
	tasks := []Task{{"monitor", m.Run}}
	if len(m.Ports()) > 0 {
		tasks = append(tasks, Task{"monitored-ports", func(ctx context.Context) error { return seePorts(ctx, m, a, p) }})
	}
	return m, tasks
}

// seePorts shows the monitor its ports: those of this daemon, and what the Southbound says of all. Both tell when something changes.
func seePorts(ctx context.Context, m *monitor.Monitor, a *Agent, p *ports.Service) error {
	if p.Known(ctx) != nil {
		return nil // the daemon ends
	}
	south, err := a.followPorts(ctx, m.Ports())
	if err != nil {
		return nil // likewise
	}
	// It ends with ctx.
	changed := make(chan struct{}, 1)
	go func() {
		revision := uint64(0)
		for ctx.Err() == nil {
			events, lost, err := p.Feed().Next(ctx, revision)
			switch {
			case err != nil:
				return
			case lost > 0:
				_, revision = p.Feed().All()
			default:
				revision = events[len(events)-1].Revision
			}
			select {
			case changed <- struct{}{}:
			default: // they will be looked at anyway
			}
		}
	}()
	var w monitor.World
	for {
		select {
		case <-ctx.Done():
			return nil
		case w.Ports = <-south:
		case <-changed:
		}
		if w.Ports == nil {
			continue // the Southbound has not been read: not knowing is not that there are none
		}
		w.Own = ownPorts(p.Feed(), m.Ports())
		m.See(w)
	}
}

// ownPorts are those of names that are there and work.
func ownPorts(f *ports.Feed, names []string) map[string]monitor.Own {
	own := map[string]monitor.Own{}
	all, _ := f.All()
	for _, p := range all {
		if p.State != ports.Ready && p.State != ports.Plugged || !slices.Contains(names, p.Spec.LogicalPort) {
			continue
		}
		o := monitor.Own{Netns: p.Spec.Netns, Device: p.Spec.Key.Ifname}
		for _, a := range p.Addresses {
			o.Addresses = append(o.Addresses, a.Addr())
		}
		own[p.Spec.LogicalPort] = o
	}
	return own
}

// A portsFollower is told what the Southbound says of some logical ports.
type portsFollower struct {
	names []string
	done  <-chan struct{} // closed when it wants to know no more
	seen  []portSeen      // by names, what it was told
	tell  chan map[string]monitor.Port
}

// A portSeen is what a logical port looks like without looking closely. Rows do not change.
type portSeen struct {
	row     *sb.Port
	chassis *sb.Chassis
}

// followPorts returns a channel of what the Southbound says of logical ports: as soon as it has been read, and whenever it changes until ctx ends. A
// value that was not received is replaced by the next.
func (a *Agent) followPorts(ctx context.Context, names []string) (<-chan map[string]monitor.Port, error) {
	f := &portsFollower{names: names, done: ctx.Done(), tell: make(chan map[string]monitor.Port, 1)}
	return f.tell, a.do(func() { a.portsFollowers = append(a.portsFollowers, f) })
}

// tellPortsFollowers is the end of a turn.
func (a *Agent) tellPortsFollowers() {
	if len(a.portsFollowers) == 0 || a.plan.Local == nil || !a.south.synced {
		return
	}
	a.portsFollowers = slices.DeleteFunc(a.portsFollowers, func(f *portsFollower) bool {
		select {
		case <-f.done:
			return true
		default:
			return false
		}
	})
	for _, f := range a.portsFollowers {
		seen := make([]portSeen, len(f.names))
		for i, name := range f.names {
			if p := a.store.PortByName(name); p != nil {
				seen[i] = portSeen{p, a.store.Chassis[p.Chassis]}
			}
		}
		if slices.Equal(seen, f.seen) {
			continue
		}
		f.seen = seen
		select {
		case <-f.tell: // nobody else puts anything in
		default:
		}
		f.tell <- a.monitored(f.names)
	}
}

// monitored is what the Southbound says of logical ports.
func (a *Agent) monitored(names []string) map[string]monitor.Port {
	all := map[string]monitor.Port{}
	for _, name := range names {
		p := a.store.PortByName(name)
		if p == nil {
			continue
		}
		m := monitor.Port{Addresses: hosts(addresses(a.store, p))}
		if c := a.store.Chassis[p.Chassis]; c != nil {
			m.Chassis = c.Name
		}
		all[name] = m
	}
	return all
}

// hosts are the addresses of an entry "MAC IP..." of Port_Binding's column mac.
func hosts(entry string) []netip.Addr {
	var all []netip.Addr
	for i, word := range strings.Fields(entry) {
		if i == 0 {
			continue
		}
		word, _, _ = strings.Cut(word, "/")
		if a, err := netip.ParseAddr(word); err == nil {
			all = append(all, a)
		}
	}
	return all
}
