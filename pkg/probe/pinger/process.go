package pinger

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/offloadd/offloadd/pkg/probe/child"
)

// Verb is the only argument of the process. Its main is
//
//	if len(os.Args) == 2 && os.Args[1] == pinger.Verb {
//		os.Exit(pinger.Main(os.Stdin, os.Stdout))
//	}
//
// in each program that calls Run, before anything else.
const Verb = "probe-pinger"

// maxReport bounds a report in octets.
const maxReport = 32 << 20

// Run runs the process until ctx ends, which is nil, or the process does. It has the process follow plans, and calls tell with each report,
// from a goroutine of its own.
func Run(ctx context.Context, plans <-chan Plan, tell func(Report)) error {
	// With one P nothing is handed from thread to thread: who is woken up by an answer also takes it.
	p, err := child.Start(Verb, "GOMAXPROCS=1")
	if err != nil {
		return fmt.Errorf("pinger: %w", err)
	}
	stop := context.AfterFunc(ctx, p.Kill)
	defer stop()
	read := make(chan error, 1)
	// It ends with the process.
	go func() { read <- reports(p, tell) }()
	for {
		select {
		case plan := <-plans:
			if err := follow(p, plan); err != nil {
				p.Kill()
				return ended(ctx, errors.Join(err, <-read, p.Close()))
			}
		case err := <-read:
			p.Kill()
			return ended(ctx, errors.Join(err, p.Close()))
		}
	}
}

// ended is why a process has ended that was not to.
func ended(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return errors.New("pinger: the process has ended")
	}
	return err
}

func follow(p *child.Process, plan Plan) error {
	if err := plan.Check(); err != nil {
		return fmt.Errorf("pinger plan: %w", err)
	}
	line, err := json.Marshal(plan)
	if err != nil {
		return fmt.Errorf("pinger plan: %w", err)
	}
	if _, err := p.In.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("pinger plan: %w", err)
	}
	return nil
}

// reports reads what the process says until it says no more.
func reports(p *child.Process, tell func(Report)) error {
	lines := bufio.NewScanner(p.Out)
	lines.Buffer(nil, maxReport)
	for lines.Scan() {
		var r Report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("pinger report: %w", err)
		}
		if r.Error != "" {
			return errors.New(r.Error)
		}
		tell(r)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("pinger: %w", err)
	}
	return nil
}
