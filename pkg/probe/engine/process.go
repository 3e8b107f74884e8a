package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

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
	if err := job.Check(); err != nil {
		return nil, fmt.Errorf("engine job: %w", err)
	}
	line, err := marshal(job)
	if err != nil {
		return nil, err
	}
	events, started := make(chan Event), make(chan error)
	// It ends with the process.
	go func() {
		// The kernel's PR_SET_PDEATHSIG means the thread that has forked, not its process: it must not end before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(events)
		p, err := start(line)
		started <- err
		if err != nil {
			return
		}
		if err := p.forward(ctx, events); err != nil {
			select {
			case events <- Event{Error: err.Error()}:
			case <-ctx.Done():
			}
		}
	}()
	return events, <-started
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

// A process is the engine's. Its stdin stays open: its end is the end of who started it.
type process struct {
	os                    *os.Process
	stdin, stdout, stderr *os.File
}

func start(job []byte) (*process, error) {
	var ours, theirs [3]*os.File
	closeAll := func(files []*os.File) {
		for _, f := range files {
			if f != nil {
				_ = f.Close() // a pipe that nobody needs any more
			}
		}
	}
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours[:])
			closeAll(theirs[:])
			return nil, fmt.Errorf("engine: %w", err)
		}
		ours[i], theirs[i] = r, w
		if i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	// Both threads, and what reads, writes and waits, each have a P: a thread in a raw system call does not give its own away. A signal of
	// the scheduler's would end a system call early.
	p, err := os.StartProcess("/proc/self/exe", []string{"offloadd", Verb}, &os.ProcAttr{
		Env:   []string{"GOMAXPROCS=6", "GOGC=off", "GODEBUG=asyncpreemptoff=1"},
		Files: theirs[:],
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	closeAll(theirs[:])
	if err != nil {
		closeAll(ours[:])
		return nil, fmt.Errorf("engine: %w", err)
	}
	c := &process{os: p, stdin: ours[0], stdout: ours[1], stderr: ours[2]}
	if _, err := c.stdin.Write(job); err != nil {
		return nil, errors.Join(fmt.Errorf("engine job: %w", err), c.wait())
	}
	return c, nil
}

// forward sends what the process says until it ends.
func (c *process) forward(ctx context.Context, events chan<- Event) error {
	stop := context.AfterFunc(ctx, func() { _ = c.os.Kill() }) // it may have ended already
	defer stop()
	complaint := make(chan string, 1)
	// It ends with the process.
	go func() {
		said, _ := io.ReadAll(io.LimitReader(c.stderr, 64<<10)) // what there is, even after an error
		_, _ = io.Copy(io.Discard, c.stderr)
		complaint <- firstLines(said, 3)
	}()
	lines := bufio.NewScanner(c.stdout)
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
		_ = c.os.Kill() // it may have ended already
	}
	err := c.wait()
	if said := <-complaint; err != nil && said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	_ = c.stderr.Close() // read to its end
	if failed != nil {
		return failed
	}
	return err
}

func (c *process) wait() error {
	_ = c.stdin.Close() // nothing is in it
	_ = c.stdout.Close()
	state, err := c.os.Wait()
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if !state.Success() {
		return fmt.Errorf("engine: %v", state)
	}
	return nil
}

func firstLines(text []byte, n int) string {
	lines := bytes.SplitN(bytes.TrimSpace(text), []byte("\n"), n+1)
	var kept []string
	for _, l := range lines[:min(n, len(lines))] {
		kept = append(kept, string(bytes.TrimSpace(l)))
	}
	return strings.Join(kept, "; ")
}
