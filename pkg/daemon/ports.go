package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
)

// A follower is told what the loop knows of a logical port.
type follower struct {
	lport string
	done  <-chan struct{} // closed when it wants to know no more
	told  ports.LogicalPort
	tell  chan ports.LogicalPort // has the last value that was not taken
}

// Follow is for package ports, see ports.Chassis.
func (a *Agent) Follow(ctx context.Context, lport string) (<-chan ports.LogicalPort, error) {
	f := &follower{lport: lport, done: ctx.Done(), tell: make(chan ports.LogicalPort, 1)}
	f.tell <- ports.LogicalPort{}
	err := a.do(func() { a.followers = append(a.followers, f) })
	return f.tell, err
}

// tellFollowers is the end of a turn.
func (a *Agent) tellFollowers() {
	a.followers = slices.DeleteFunc(a.followers, func(f *follower) bool {
		select {
		case <-f.done:
			return true
		default:
			return false
		}
	})
	for _, f := range a.followers {
		l := a.logicalPort(f.lport)
		if l == f.told {
			continue
		}
		f.told = l
		select {
		case <-f.tell: // nobody else puts anything in
		default:
		}
		f.tell <- l
	}
}

// logicalPort is what the loop knows of a logical port.
func (a *Agent) logicalPort(name string) ports.LogicalPort {
	l := ports.LogicalPort{
		Bridge:    a.flows.Status().Connected,
		Connected: a.south.connected && a.south.synced,
	}
	if a.plan.Local == nil {
		return l
	}
	l.Zone = a.plan.Local.Zones[name]
	me := a.plan.Local.Chassis
	p := a.store.PortByName(name)
	if p == nil {
		// A logical port is looked for when an Interface names it.
		l.Known = l.Connected && a.south.conditions >= a.condSeq && a.plugged(name)
		return l
	}
	l.Known, l.Exists = true, true
	l.Addresses = addresses(a.store, p)
	l.Claimed = p.Chassis == me || slices.Contains(p.AdditionalChassis, me)
	if !a.welcome(p) {
		l.Requested = p.Options["requested-chassis"]
	}
	return l
}

// welcome reports whether a logical port may be claimed here.
func (a *Agent) welcome(p *sb.Port) bool {
	me := a.store.ChassisByName(a.plan.Local.Name)
	requested := p.Options["requested-chassis"]
	if me == nil || requested == "" || p.RequestedChassis == me.UUID || slices.Contains(p.RequestedAdditionalChassis, me.UUID) {
		return true
	}
	names := strings.Split(requested, ",")
	return slices.Contains(names, me.Name) || slices.Contains(names, me.Hostname)
}

// plugged reports whether an Interface of the integration bridge names the logical port.
func (a *Agent) plugged(lport string) bool {
	b := a.sw.Bridge(a.plan.Config.Bridge)
	if b == nil {
		return false
	}
	for _, p := range a.sw.Ports(b) {
		for _, i := range a.sw.Interfaces(p) {
			if i.ExternalIDs["iface-id"] == lport {
				return true
			}
		}
	}
	return false
}

// PortHealth is a task that reports the health of ports: they can be made once it is known which there are, while their own connection to
// the Open_vSwitch database is there. That the Southbound and the bridge are needed too their own health tells.
func PortHealth(p *ports.Service, report func(api.Health)) Task {
	return Task{"port-health", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-p.Ready():
		}
		for {
			connected, changed := p.Connected()
			h := api.Health{Subsystem: api.SubsystemPort}
			if !connected {
				h.Reason, h.Message = reason.OVSDBDisconnected, "the Open_vSwitch database is away, in which ports are plugged in"
			}
			report(h)
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	}}
}

// ServePorts adds commands about ports. It must be called before Run.
func (c *Control) ServePorts(p *ports.Service) {
	c.commands["ports/audit"] = controlCommand{run: func([]string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), auditTime)
		defer cancel()
		found, err := p.Audit(ctx)
		var b strings.Builder
		for _, l := range found {
			fmt.Fprintf(&b, "%s %s: %s\n", l.Where, l.Name, l.Cause)
		}
		return b.String(), err
	}}
}

// auditTime is how long an audit waits for the daemon to know what there is.
const auditTime = 5 * time.Second
