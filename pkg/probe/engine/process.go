package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/offloadd/offloadd/pkg/probe/child"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// Verb is the only argument of the process. Its main is
//
//	if len(os.Args) == 2 && os.Args[1] == engine.Verb {
//		os.Exit(engine.Main(os.Stdin, os.Stdout))
//	}
//
// in each program that calls Start, before anything else.
const Verb = "probe-engine"

// maxLine bounds an event: a session has three histograms of at most some hundred kilobytes.
const maxLine = 16 << 20

// Start runs the job in a process of its own. The channel ends after the process has; its last event says why if that was not as it
// should, or is a session. Ending ctx kills the process, and so does the end of this one, however it ends. Whoever does not read the
// channel to its end must end ctx.
func Start(ctx context.Context, job Job) (<-chan Event, error) {
	events, _, err := launch(ctx, job)
	return events, err
}

// launch is Start, and returns the process too.
func launch(ctx context.Context, job Job) (<-chan Event, *child.Process, error) {
	if err := job.Check(); err != nil {
		return nil, nil, fmt.Errorf("engine job: %w", err)
	}
	line, err := marshal(job)
	if err != nil {
		return nil, nil, err
	}
	p, err := start(line)
	if err != nil {
		return nil, nil, err
	}
	events := make(chan Event)
	// It ends with the process.
	go func() {
		defer close(events)
		if err := forward(ctx, p, events); err != nil {
			select {
			case events <- Event{Error: err.Error()}:
			case <-ctx.Done():
			}
		}
	}()
	return events, p, nil
}

func marshal(job Job) ([]byte, error) {
	line, err := json.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("engine job: %w", err)
	}
	return append(line, '\n'), nil
}

// Run is Start for who wants the sessions: in the order of the job's paths, with an Error for each path that has none. It calls each, if
// not nil, with each event.
func Run(ctx context.Context, job Job, each func(Event)) ([]Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := Start(ctx, job)
	if err != nil {
		return nil, err
	}
	found := map[string]Event{}
	for e := range events {
		if each != nil {
			each(e)
		}
		switch {
		case e.Path != "" && (e.Session != nil || e.Error != ""):
			found[e.Path] = e
		case e.Error != "":
			err = errors.New(e.Error)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, fmt.Errorf("engine: %w", cause)
	}
	if err != nil {
		return nil, err
	}
	outcomes := make([]Event, len(job.Paths))
	for i, p := range job.Paths {
		e, ok := found[p.Name]
		if !ok {
			return nil, fmt.Errorf("engine: path %s has neither a session nor an error", p.Name)
		}
		outcomes[i] = e
	}
	return outcomes, nil
}

// Sessions returns the sessions of outcomes that have one, by path.
func Sessions(outcomes []Event) map[string]result.Session {
	sessions := map[string]result.Session{}
	for _, e := range outcomes {
		if e.Session != nil {
			sessions[e.Path] = *e.Session
		}
	}
	return sessions
}

func start(job []byte) (*child.Process, error) {
	// All threads, and what reads, writes and waits, each have a P: a thread in a raw system call does not give its own away. A signal of
	// the scheduler's would end a system call early.
	p, err := child.Start(Verb, "GOMAXPROCS=8", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if _, err := p.In.Write(job); err != nil {
		return nil, errors.Join(fmt.Errorf("engine job: %w", err), p.Close())
	}
	return p, nil
}

// forward sends what the process says until it ends.
func forward(ctx context.Context, p *child.Process, events chan<- Event) error {
	stop := context.AfterFunc(ctx, p.Kill)
	defer stop()
	lines := bufio.NewScanner(p.Out)
	lines.Buffer(nil, maxLine)
	var failed error
	for failed == nil && lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			failed = fmt.Errorf("engine event: %w", err)
			break
		}
		select {
		case events <- e:
		case <-ctx.Done():
			failed = ctx.Err()
		}
	}
	if failed == nil {
		failed = lines.Err()
	}
	if failed != nil {
		p.Kill()
	}
	if err := p.Close(); err != nil && failed == nil {
		return fmt.Errorf("engine: %w", err)
	}
	return failed
}
