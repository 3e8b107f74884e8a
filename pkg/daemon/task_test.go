package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// untilDone is a task that ends with its context, and notes it.
func untilDone(name string, ended *[]string) Task {
	return Task{name, func(ctx context.Context) error {
		<-ctx.Done()
		*ended = append(*ended, name)
		return nil
	}}
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		err := Run(ctx, silent(), untilDone("a", &ended))
		if err != nil || len(ended) != 1 || time.Since(begin) != time.Hour {
			t.Errorf("Run = %v after %v with %v ended, want nil after an hour with its task ended", err, time.Since(begin), ended)
		}
	})
}

// The first error ends all other tasks, and is what Run tells, with the name of the task.
func TestRunEndsWithAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		broken := errors.New("broken")
		err := Run(t.Context(), silent(),
			untilDone("waits", &ended),
			Task{"fails", func(context.Context) error {
				time.Sleep(time.Second)
				return broken
			}},
			Task{"fails later", func(ctx context.Context) error {
				<-ctx.Done()
				return errors.New("because of the other")
			}})
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "fails: ") {
			t.Errorf("Run = %v, want fails: broken", err)
		}
		if len(ended) != 1 {
			t.Errorf("ended %v, want the task that waits", ended)
		}
	})
}

// A task that has nothing more to do leaves the others alone.
func TestRunGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		err := Run(ctx, silent(), untilDone("waits", &ended), Task{"is done", func(context.Context) error { return nil }})
		if err != nil || time.Since(begin) != time.Minute {
			t.Errorf("Run = %v after %v, want nil after a minute", err, time.Since(begin))
		}
	})
}
