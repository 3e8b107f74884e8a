package daemon

import (
	"context"
	"time"

	"github.com/offloadd/offloadd/pkg/apply"
)

// removeStale removes the filters of an earlier run that had offload, when the bridge has the flows: until then, their old policy is
// better than none, and afterwards nobody would keep them up to date. It is for a run without offload.
func (a *Agent) removeStale(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.installed:
	}
	f := apply.NewFilters(a.log, a.dialTC)
	defer func() { _ = f.Close() }()
	for backoff := minOffloadBackoff; ; backoff = min(2*backoff, maxOffloadBackoff) {
		_, err := f.Sync(ctx, nil, nil, apply.SyncOptions{})
		if err == nil || ctx.Err() != nil {
			return nil
		}
		a.log.Warn("filters of an earlier run not removed", "err", err, "retry_in", backoff)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
	}
}
