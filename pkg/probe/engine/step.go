package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/probe/child"
)

// A Stepper is a process whose client sends a request when it is told to, so that something else can be looked at after each packet.
type Stepper struct {
	job    Job
	end    context.CancelFunc
	events <-chan Event
	p      *child.Process
}

// Steps starts the job, of which Steps is set. Whoever gets a Stepper must Close it.
func Steps(ctx context.Context, job Job) (*Stepper, error) {
	ctx, end := context.WithCancel(ctx)
	job.Steps = true
	events, p, err := launch(ctx, job)
	if err != nil {
		end()
		return nil, err
	}
	return &Stepper{job: job, end: end, events: events, p: p}, nil
}

// Next lets a path, of the job's, send its next request, and returns what has come of it.
func (s *Stepper) Next(path int) (Step, error) {
	if path < 0 || path >= len(s.job.Paths) {
		return Step{}, fmt.Errorf("engine: there is no path %d", path)
	}
	if _, err := fmt.Fprintln(s.p.In, path); err != nil {
		return Step{}, fmt.Errorf("engine: %w", err)
	}
	for e := range s.events {
		switch {
		case e.Step != nil:
			return *e.Step, nil
		case e.Error != "" && e.Path != "":
			return Step{}, fmt.Errorf("engine path %s: %s", e.Path, e.Error)
		case e.Error != "":
			return Step{}, errors.New(e.Error)
		}
	}
	return Step{}, errors.New("engine: it has ended")
}

// Close ends the process.
func (s *Stepper) Close() {
	s.end()
	for range s.events { // until it has ended
		continue
	}
}

// listen reads which paths are to send a request, until there is no more.
func (e *engine) listen(in *bufio.Reader) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		path, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || path < 0 || path >= len(e.paths) {
			return
		}
		e.steps <- path
	}
}

// stepLoop sends a request for each path that it is told, until the process is ended.
func (e *engine) stepLoop() {
	e.count()
	served := e.server.clockOf()
	for !e.stop.Load() {
		p := e.paths[<-e.steps]
		if p.failed != "" {
			e.stepped <- Event{Path: p.Name, Error: p.failed}
			continue
		}
		e.active.Store(int64(p.index))
		at := e.now()
		e.client.used()
		took, ok := e.transact(p, kindRequest, e.job.Timeout)
		cpu, since := e.client.used(), served
		served = e.server.clockOf()
		e.stepped <- Event{Path: p.Name, Step: &Step{At: at, Took: took, Lost: !ok, CPU: cpu + served - since}}
	}
}
