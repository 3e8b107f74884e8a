package daemon

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/reason"
)

// NewProbe returns what measures paths, and the task that removes what a daemon has left that was killed in the middle of a run. Runs are
// kept in the state directory. It is to be called before there are other tasks: functions that an earlier daemon has lent to the probe are claimed.
func NewProbe(c Config, program string, node *Node, devices *device.Inventory, attached *ports.Service, log *slog.Logger) (*probe.Prober, Task) {
	o := probe.Options{
		Dir: filepath.Join(c.StateDir, "probe"), Program: program, Facts: node.facts,
		Node: &probeNode{node.agent, attached.Feed()}, Maker: &probeMaker{node.agent, attached},
	}
	var l *lender
	if devices != nil {
		l = newLender(devices, filepath.Join(c.RunDir, "probe-functions.json"), log)
		o.Functions = l.Lend
	}
	p := probe.New(o)
	return p, Task{Name: "probe", Run: func(ctx context.Context) error {
		cleaned := func(removed []string, err error) {
			switch {
			case reason.Of(err) == reason.ProbeBusy: // a program's own, or a run that has begun meanwhile, which does it itself
			case err != nil && ctx.Err() == nil:
				log.Warn("what a killed probe has left not removed", "err", err)
			case len(removed) > 0:
				log.Info("what a killed probe has left removed", "removed", removed)
			}
		}
		cleaned(p.CleanPaths(ctx))
		if l != nil { // their netdevs come back when the paths' namespaces have ended
			l.Recover(ctx)
			defer close(l.ended)
		}
		select {
		case <-attached.Ready():
			cleaned(p.Clean(ctx))
		case <-ctx.Done():
		}
		<-ctx.Done()
		return nil
	}}
}

// facts are the versions that the daemon sees.
func (n *Node) facts(ctx context.Context) map[string]string {
	facts := map[string]string{}
	id, err := n.Identity(ctx)
	if err != nil {
		return nil
	}
	if id.OVS != "" {
		facts["Open vSwitch"] = id.OVS
	}
	if id.Northd != "" {
		facts["OVN"] = id.Northd
	}
	return facts
}
