package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"golang.org/x/sync/errgroup"
)

// A Task runs until ctx ends, and then returns nil. Any error ends the daemon.
type Task struct {
	Name string
	Run  func(ctx context.Context) error
}

// Run runs tasks until ctx ends or one of them fails.
func Run(ctx context.Context, log *slog.Logger, tasks ...Task) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range tasks {
		g.Go(func() error {
			log.Debug("task started", "task", t.Name)
			if err := t.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", t.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}
