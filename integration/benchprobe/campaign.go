package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// A campaign compares paths with the first of them, by UDP round trips.
type campaign struct {
	options
	wants    []path.Want
	faults   map[string]engine.Fault // of paths, by name
	sessions int
	margin   time.Duration
	segments bool // instead of round trips
}

// build builds paths, all of which there have to be. Whoever gets them must Close them.
func build(ctx context.Context, wants []path.Want) (*path.Built, error) {
	built, missing, err := path.Build(ctx, path.Options{Kinds: wants})
	if err != nil {
		return nil, err
	}
	for _, m := range missing {
		return nil, errors.Join(fmt.Errorf("path %s: %s", m.Kind, m.Why), built.Close())
	}
	return built, nil
}

// ends are those of a path, for the engine.
func ends(p path.Path) engine.Path {
	return engine.Path{
		Name:   p.Name,
		Client: engine.End{Netns: p.Client.Netns, Addr: p.Client.Addr},
		Server: engine.End{Netns: p.Server.Netns, Addr: p.Server.Addr},
	}
}

// session is one session of each path: new devices, a new process, new sockets.
func (c *campaign) session(ctx context.Context, seed uint64) (sessions map[string]result.Session, paths []result.Path, err error) {
	built, err := build(ctx, c.wants)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, built.Close()) }()
	job := engine.Job{
		Load:  c.load(),
		Burst: 20, Warmup: 200 * time.Millisecond, Timeout: time.Second, Busy: true, Priority: c.priority, CPUs: c.cpus, Seed: seed,
	}
	job.Load.Duration, job.Segments = c.duration, c.segments
	for _, p := range built.Paths {
		e := ends(p)
		if f, ok := c.faults[p.Name]; ok {
			e.Fault = &f
		}
		job.Paths = append(job.Paths, e)
		paths = append(paths, result.Path{Name: p.Name, Kind: p.Kind, Twin: p.Twin})
	}
	outcomes, err := engine.Run(ctx, job, nil)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range outcomes {
		if o.Error != "" {
			return nil, nil, fmt.Errorf("path %s: %s", o.Path, o.Error)
		}
	}
	return engine.Sessions(outcomes), paths, nil
}

func (c *campaign) load() result.Load {
	return result.Load{Mode: result.RR, Transport: "udp", Size: size}
}

// run is a campaign, judged.
func (c *campaign) run(ctx context.Context, seed uint64) (*result.Run, error) {
	run := &result.Run{
		Version: result.Version, Started: time.Now(),
		Parameters: result.Parameters{Sessions: c.sessions, Margin: c.margin, Seed: seed, Limits: stats.DefaultLimits()},
	}
	for i := range c.sessions {
		sessions, paths, err := c.session(ctx, seed+uint64(i))
		if err != nil {
			return nil, err
		}
		if i == 0 {
			run.Paths, run.Baseline = paths, paths[0].Name
			for _, p := range paths {
				run.Cases = append(run.Cases, result.Case{Path: p.Name, Load: c.load()})
			}
		}
		for k := range run.Cases {
			cs := &run.Cases[k]
			cs.Sessions = append(cs.Sessions, sessions[cs.Path])
		}
	}
	run.Ended = time.Now()
	return run, stats.Judge(run)
}

// effect returns what was found of a path.
func effect(run *result.Run, name string) (p50, p99 result.Effect) {
	for _, c := range run.Cases {
		if c.Path == name && c.Against != nil {
			return c.Against.P50, c.Against.P99
		}
	}
	none := result.Effect{Verdict: result.NoVerdict, Why: "the path is not there"}
	return none, none
}

func say(e result.Effect) string {
	text := fmt.Sprintf("%+.3f µs [%+.3f, %+.3f], floor %.3f: %s", e.Difference/1e3, e.Low/1e3, e.High/1e3, e.Floor/1e3, e.Verdict)
	if e.Why != "" {
		text += ", " + e.Why
	}
	return text
}
