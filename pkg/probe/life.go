package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

const (
	// lifePackets of a connection are looked at, and if filters do not forward both ways by then, more at intervals, until they do: hardware takes a
	// connection of UDP after two seconds only, and tells a second later.
	lifePackets  = 32
	lifeMore     = 80
	lifeInterval = 50 * time.Millisecond
)

// measureLives looks at connections from their first packet on: first those for which nothing is prepared.
func (c *portCampaign) measureLives(ctx context.Context) error {
	for _, kind := range []struct {
		before string
		trials int
		idle   time.Duration
	}{{"cold", c.spec.Cold, c.spec.Idle}, {"new", c.spec.New, 0}} {
		lives, sent := map[string]*result.Life{}, 0
		for _, name := range portPaths[:2] {
			lives[name] = &result.Life{Path: name, Before: kind.before}
		}
		for trial := range max(kind.trials, 0) {
			for i, name := range portPaths[:2] {
				c.say(fmt.Sprintf("%s connection %d of %d, %s", kind.before, trial+1, kind.trials, name), 0, 0)
				if err := wait(ctx, kind.idle); err != nil {
					return err
				}
				claim := ledger.ByOVS
				if i == 0 {
					claim = c.claim()
				}
				if i == 0 {
					sent = lifePackets
				}
				t, err := c.measureLife(ctx, c.newWay(name, claim), sent)
				if err != nil {
					return err
				}
				sent = len(t.Took)
				lives[name].Trials = append(lives[name].Trials, *t)
			}
		}
		for _, name := range portPaths[:2] {
			if l := lives[name]; kind.trials > 0 {
				l.Took = medians(l.Trials)
				c.lives = append(c.lives, *l)
			}
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// measureLife sends the packets of one connection, at least so many, and looks after each at what filters have counted.
func (c *portCampaign) measureLife(ctx context.Context, w *way, least int) (_ *result.Trial, err error) {
	ways := []*way{w}
	watch, err := c.watchWays(ctx, ways)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, watch.Close()) }()
	before, err := c.read(ctx, watch, ways)
	if err != nil {
		return nil, err
	}
	job := c.spec.lifeJob(w.path)
	job.CPUs, job.Priority = c.cpus, c.priority
	s, err := engine.Steps(ctx, job)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	t := &result.Trial{}
	seen := [2][]ledger.Counts{} // after each packet
	answered := int64(0)
	first := time.Duration(0) // when the first packet was sent
	vswitchd, known := c.node.Vswitchd()
	for n := range lifePackets + lifeMore {
		if n >= lifePackets {
			if n >= least && (w.flows[0].Punt || c.forwarded(seen[0]) && c.forwarded(seen[1])) {
				break
			}
			if err := wait(ctx, lifeInterval); err != nil {
				return nil, err
			}
		}
		step, err := s.Next(0)
		if err != nil {
			return nil, reason.Errorf(reason.ProbeImpossible, "probe path %s: %w", w.Path, err)
		}
		if n == 0 {
			first = step.At
		}
		t.Sent = append(t.Sent, int64(step.At-first))
		switch {
		case step.Lost:
			t.Took = append(t.Took, result.Lost)
		default:
			t.Took = append(t.Took, int64(step.Took))
			answered++
		}
		counts, changes, err := watch.Read(ctx)
		if err != nil {
			return nil, err
		}
		for side := range 2 {
			id := w.flows[side].ID
			d, ok := counts[id].Since(before.counts[id])
			if !ok || changes != before.changes {
				return nil, reason.Errorf(reason.ProbeRefused, "probe path %s: filters have changed while a connection was looked at", w.Path)
			}
			seen[side] = append(seen[side], d)
		}
		used, ok := c.node.Vswitchd()
		known = known && ok && used >= vswitchd // otherwise it is another process
		t.CPU = append(t.CPU, int64(step.CPU+used-vswitchd))
		vswitchd = used
	}
	if !known {
		t.CPU = nil
	}
	ok, err := c.post(ctx, watch, ways, [][2]int64{{int64(len(t.Took)), answered}}, before)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, reason.Errorf(reason.ProbeRefused, "probe path %s: filters have changed while a connection was looked at", w.Path)
	}
	t.Accounts = w.Accounts
	for side := range t.Switches {
		if a := &t.Accounts[side]; answered == int64(len(t.Took)) && a.Unexplained != 0 { // what is lost may be counted or not
			return nil, reason.Errorf(reason.ProbeRefused, "probe: counters do not say what is claimed: %s, %s: of %d packets %d were counted by nothing", w.Path, a.Flow, a.Sent, a.Unexplained)
		}
		t.Switches[side] = ledger.SwitchOf(&t.Accounts[side], seen[side], t.Sent)
		if w.flows[side].Punt && t.Switches[side].Packet > 0 {
			return nil, reason.Errorf(reason.ProbeRefused, "probe path %s: filters have forwarded packets that were to be left to Open vSwitch", w.Path)
		}
	}
	return t, nil
}

// forwarded reports whether those have begun to forward who are said to, as far as is known.
func (c *portCampaign) forwarded(seen []ledger.Counts) bool {
	last := seen[len(seen)-1].Forwarded
	return last.Hardware > 0 || last.Software > 0 && c.claim() != ledger.ByHardware
}

// medians are over trials, by packet, as far as all trials have it.
func medians(trials []result.Trial) []int64 {
	var all []int64
	for n := range lifePackets {
		var took []int64
		for _, t := range trials {
			if n < len(t.Took) {
				took = append(took, t.Took[n])
			}
		}
		if len(took) == 0 {
			break
		}
		slices.Sort(took)
		all = append(all, took[len(took)/2])
	}
	return all
}
