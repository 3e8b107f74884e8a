package daemon

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/reason"
)

// NewProbe returns what measures paths. It keeps runs in the state directory.
func NewProbe(c Config, program string) *probe.Prober {
	return probe.New(probe.Options{Dir: filepath.Join(c.StateDir, "probe"), Program: program})
}

// CleanProbe removes what a daemon that was killed in the middle of a run has left.
func CleanProbe(p *probe.Prober, log *slog.Logger) Task {
	return Task{Name: "probe", Run: func(ctx context.Context) error {
		removed, err := p.Clean(ctx)
		switch {
		case reason.Of(err) == reason.ProbeBusy: // a program's own, or a run that has begun meanwhile, which does it itself
		case err != nil:
			log.Warn("paths of a killed probe not removed", "err", err)
		case len(removed) > 0:
			log.Info("paths of a killed probe removed", "removed", removed)
		}
		<-ctx.Done()
		return nil
	}}
}
