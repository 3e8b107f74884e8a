package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A flowWatch has filters that count the packets of flows, until it is closed. Those are part of what the loop of offload wants: they
// follow what other filters do, and what a daemon leaves that is killed is removed by the next one, which does not want it.
type flowWatch struct {
	offload *offload
	conn    *tc.Conn
	flows   []ledger.Flow

	// What follows is the loop's; mu of offload guards it.
	filters []specialize.Filter
	keys    []tc.Key // of those that the kernel has
	changes int      // see ledger.Watch
	err     error    // why there are none, or not all
}

// watchFlows returns when the filters of the flows are there, or at once if all await those of devices. Numbers of flows are given here; those of all
// watches are different.
func (o *offload) watchFlows(ctx context.Context, flows []ledger.Flow) (_ *flowWatch, err error) {
	conn, err := o.dial()
	if err != nil {
		return nil, err
	}
	w := &flowWatch{offload: o, conn: conn, flows: slices.Clone(flows)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.conn.Close())
		}
	}()
	if !slices.ContainsFunc(flows, func(f ledger.Flow) bool { return !f.Await }) {
		if err := o.enter(w); err != nil {
			o.forget(w)
			return nil, err
		}
		poke(o.work) // filters of the device may be there already
		return w, nil
	}
	err = o.call(ctx, func(l *offloader) error {
		err := o.enter(w)
		o.mu.Lock()
		asleep := o.asleep
		o.mu.Unlock()
		switch {
		case err != nil:
		case asleep || !l.complete || l.open || l.current == nil:
			err = reason.Errorf(reason.NotReady, "probe: filters are not known yet")
		default:
			_, err = l.turnOver(ctx, false)
		}
		if err == nil {
			o.mu.Lock()
			err = w.err
			o.mu.Unlock()
		}
		if err != nil {
			o.forget(w)
			poke(o.work) // to remove what there is
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// enter makes the loop want the filters, and says why there are none at all.
func (o *offload) enter(w *flowWatch) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range w.flows {
		o.lastFlow++
		w.flows[i].ID = o.lastFlow
	}
	o.watches = append(o.watches, w)
	if why := o.status.Idle; why != "" {
		return reason.Errorf(reason.ProbeImpossible, "probe: there are no filters: %s", why)
	}
	return nil
}

// forget makes the loop want the filters no more.
func (o *offload) forget(w *flowWatch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watches = slices.DeleteFunc(o.watches, func(x *flowWatch) bool { return x == w })
}

// Close returns when the filters are gone, or when the loop has ended.
func (w *flowWatch) Close() error {
	o := w.offload
	o.forget(w)
	err := o.call(context.Background(), func(l *offloader) error { // the loop ends, at the latest, with the daemon
		_, err := l.turnOver(context.Background(), false)
		return err
	})
	if reason.Of(err) == reason.ShuttingDown {
		err = nil // the next daemon removes them
	}
	return errors.Join(err, w.conn.Close())
}

// Flows are those that are watched, with their numbers.
func (w *flowWatch) Flows() []ledger.Flow { return w.flows }

// Read returns what the flows' filters have counted, and how often these have become others: what they had counted before is lost then.
func (w *flowWatch) Read(ctx context.Context) (counts map[uint32]ledger.Counts, changes int, err error) {
	w.offload.mu.Lock()
	keys, changes, failed := w.keys, w.changes, w.err
	w.offload.mu.Unlock()
	if failed != nil {
		return nil, changes, failed
	}
	var all []*tc.Installed
	err = w.conn.Get(ctx, tc.Target{Block: apply.Block}, keys, func(in *tc.Installed) error {
		all = append(all, in)
		return nil
	})
	return ledger.Read(all), changes, err
}

// watchesChanged reports whether there are other watches than when it was last decided what to want.
func (l *offloader) watchesChanged() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.Equal(l.watches, l.watched)
}

// desire decides what to want: the filters of the program at hand, and of the watches.
func (l *offloader) desire() {
	all := l.current.Filters()
	l.desired = l.desired[:0]
	for i := range all {
		l.desired = append(l.desired, all[i].Filter)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched = slices.Clone(l.watches)
	for _, w := range l.watches {
		filters, err := ledger.Filters(all, w.flows)
		if w.err = nil; err != nil {
			w.err = &reason.Error{Reason: reason.ProbeImpossible, Err: err}
		}
		same := slices.EqualFunc(filters, w.filters, func(a, b specialize.Filter) bool { return reflect.DeepEqual(a.Filter, b.Filter) })
		if w.filters = filters; !same {
			if w.changes++; w.changes%2 == 0 { // the change before is not there yet
				w.changes++
			}
		}
		for i := range filters {
			l.desired = append(l.desired, filters[i].Filter)
		}
	}
}

// installed notes which filters of the watches the kernel has.
func (l *offloader) installed(s *apply.FilterStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.watches {
		w.changes += w.changes % 2
		w.keys = nil
		for i := range w.filters {
			if k, ok := l.filters.Key(&w.filters[i].Filter); ok {
				w.keys = append(w.keys, k)
			}
		}
		if missing := len(w.filters) - len(w.keys); missing > 0 && w.err == nil {
			w.err = reason.Errorf(reason.KernelRefused, "probe: the kernel has refused %d filters%s", missing, refusal(s))
		}
	}
}

// refusal is what the kernel has said.
func refusal(s *apply.FilterStatus) string {
	for _, r := range s.Refused {
		return fmt.Sprintf(", as: %s: %v", r.What, r.Err)
	}
	return ""
}

// wanted are the filters of the program at hand, and of watches.
func (o *offload) wanted() (program *specialize.Program, probes []*specialize.Filter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.watched {
		for i := range w.filters {
			probes = append(probes, &w.filters[i])
		}
	}
	return o.current, probes
}

// Watch makes filters that count the packets of flows; see ledger.Watcher.
func (a *Agent) Watch(ctx context.Context, flows []ledger.Flow) (ledger.Watch, error) {
	if a.offload == nil {
		return nil, reason.Errorf(reason.FeatureUnsupported, "probe: the daemon has no filters with offload=%s", a.config.Offload)
	}
	return a.offload.watchFlows(ctx, flows)
}
