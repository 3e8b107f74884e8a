// Package probe makes one run of the probe: it builds paths, measures loads on them in sessions, judges what was measured, and keeps it.
//
// A session is a process of its own (pkg/probe/engine) with new sockets, in which all paths take turns; with Spec.Fresh it has new devices too. In
// each session the loads come one after the other, so that the sessions of a load are spread over the run. What is built is removed
// however a run ends, except by SIGKILL of this process: then the next one that builds paths does it, or Clean.
package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
	"github.com/offloadd/offloadd/pkg/reason"
)

// Options are of a Prober.
type Options struct {
	// Dir keeps runs, the last maxKept of them. It is made if need be. Empty: none are kept.
	Dir string
	// Program is what has measured, as "offloadd 1.2.3".
	Program string
	// Functions gives paths functions of a NIC, see path.Options.
	Functions path.Functions
	// Wait says to wait while another process has paths, instead of refusing.
	Wait bool
	// Node is asked for ports, and what became of their packets; nil: there are none.
	Node Node
	// Maker makes ports; nil: none are made.
	Maker Maker
	// Filters removes the filters that a killed daemon's runs between ports have left, and returns how many; nil: the daemon has done so when it started, since it does
	// not want them.
	Filters func(context.Context) (int, error)
	// Facts are of the machine, besides those that this package finds itself, for result.Machine; nil: none.
	Facts func(context.Context) map[string]string
}

// A Prober makes runs, one at a time. It may be used from many goroutines.
type Prober struct {
	options Options
	running sync.Mutex // held during a run and while it cleans
	keeping sync.Mutex // held while Dir changes
}

// New returns a Prober. It does nothing yet.
func New(o Options) *Prober { return &Prober{options: o} }

// Progress is how far a run is.
type Progress struct {
	Fraction float64 // from 0 to 1
	Doing    string  // a phrase, as "building paths", "udp rr 64 B"
	Session  int     // from 1; 0: none yet
	Sessions int
}

// Run makes a run, keeps it, and returns it in the form of report.JSON. It calls tell, if not nil, from the same goroutine, at least a few times a second. Errors are or wrap a
// *reason.Error, of contexts, or of what is broken; nothing is left then, and nothing kept.
func (p *Prober) Run(ctx context.Context, spec Spec, tell func(Progress)) ([]byte, error) {
	spec, err := spec.Validate()
	if err != nil {
		return nil, err
	}
	return p.make(ctx, func(ctx context.Context) (*result.Run, error) {
		c := newCampaign(spec, p.options, tell)
		return c.measure(ctx)
	}, tell)
}

// make makes a run, one at a time, judges it, keeps it, and returns it in the form of report.JSON.
func (p *Prober) make(ctx context.Context, measure func(context.Context) (*result.Run, error), tell func(Progress)) ([]byte, error) {
	if !p.running.TryLock() {
		return nil, reason.Errorf(reason.ProbeBusy, "probe: this daemon is measuring already")
	}
	defer p.running.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, MaxTime, reason.Errorf(reason.DeadlineExceeded, "probe: the run takes more than %v", MaxTime))
	defer cancel()
	run, err := measure(ctx)
	if err != nil {
		return nil, busy(err)
	}
	if tell != nil {
		tell(Progress{Fraction: 1, Doing: "judging", Sessions: run.Parameters.Sessions})
	}
	if err := stats.Judge(run); err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	text, err := report.JSON(run)
	if err != nil {
		return nil, err
	}
	return text, p.keep(run.ID, text)
}

// busy gives the error of somebody else's paths its reason.
func busy(err error) error {
	if errors.Is(err, path.ErrBusy) {
		return &reason.Error{Reason: reason.ProbeBusy, Err: err}
	}
	return err
}

// Clean removes what a killed process has left, paths and ports, and returns what that was. It waits until it is known which ports there are.
func (p *Prober) Clean(ctx context.Context) ([]string, error) { return p.clean(ctx, p.options.Maker) }

// CleanPaths is Clean without ports: it waits for nothing.
func (p *Prober) CleanPaths(ctx context.Context) ([]string, error) { return p.clean(ctx, nil) }

func (p *Prober) clean(ctx context.Context, maker Maker) ([]string, error) {
	if !p.running.TryLock() {
		return nil, reason.Errorf(reason.ProbeBusy, "probe: this daemon is measuring")
	}
	defer p.running.Unlock()
	var removed []string
	n, err := p.cleanFilters(ctx)
	if n > 0 {
		removed = append(removed, fmt.Sprintf("%d filters", n))
	}
	if err != nil {
		return removed, busy(err)
	}
	more, err := path.Clean(ctx, "")
	removed = append(removed, more...)
	if err == nil && maker != nil {
		more, err = maker.Clear(ctx)
		removed = append(removed, more...)
	}
	return removed, busy(err)
}

// cleanFilters removes filters while nobody makes a run for which they may be.
func (p *Prober) cleanFilters(ctx context.Context) (n int, err error) {
	if p.options.Filters == nil {
		return 0, nil
	}
	release, err := path.Hold(ctx, false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	return p.options.Filters(ctx)
}

// now is when something happened, as precise as it is of use to people.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
