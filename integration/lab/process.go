package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
)

// A process is a daemon of the lab.
type process struct {
	name string
	log  string // path of what it logs
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// A spawner starts daemons from one operating system thread that lives as long as the lab: the kernel
// kills a daemon when the thread that started it ends (PR_SET_PDEATHSIG), so daemons die with the lab's
// process however that ends.
type spawner struct {
	calls chan func()
	once  sync.Once
}

func newSpawner() *spawner {
	s := &spawner{calls: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for f := range s.calls {
			f()
		}
	}()
	return s
}

func (s *spawner) close() { s.once.Do(func() { close(s.calls) }) }

// spawn runs a daemon in the foreground as a child, inside a namespace. Its output is appended to log.
// env is added to this process's environment.
func (l *Lab) spawn(in *space, name, log string, env []string, argv ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close() //nolint:errcheck // the child has its own copy
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = filepath.Dir(log)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a ^C at the terminal is for us, not for the daemons
	if !l.opts.Keep {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started := make(chan error, 1)
	l.spawner.calls <- func() { started <- in.enter(cmd.Start) }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the process
		_ = cmd.Wait() // its state is in cmd.ProcessState
		close(p.done)
	}()
	l.mu.Lock()
	l.daemon[name] = p
	l.mu.Unlock()
	return p, nil
}

// state says in a word or two whether the process runs, or how it ended.
func (p *process) state() string {
	select {
	case <-p.done:
		return p.cmd.ProcessState.String()
	default:
		return "running"
	}
}

func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) } // one that has ended is fine

func (p *process) kill() { p.signal(syscall.SIGKILL) }

// wait reports whether the process ended within d.
func (p *process) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// stop sends sig and waits for the end; a process that outlives the grace of ten patient seconds is killed, and
// that is an error.
func (p *process) stop(sig syscall.Signal) error {
	p.signal(sig)
	if p.wait(Patient(10 * time.Second)) {
		return nil
	}
	p.kill()
	p.wait(Patient(10 * time.Second))
	return fmt.Errorf("stop %s: still running ten seconds after %v", p.name, sig)
}

// until asks cond every few milliseconds until it holds, ctx or the process ends, or twenty patient seconds pass.
func (p *process) until(ctx context.Context, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, Patient(20*time.Second))
	defer cancel()
	err := Until(ctx, func() (bool, error) {
		select {
		case <-p.done:
			return false, fmt.Errorf("ended: %s", p.state())
		default:
			return cond(), nil
		}
	})
	if err != nil {
		return fmt.Errorf("%s: waiting for %s: %w", p.name, what, err)
	}
	return nil
}

// Until asks cond every few milliseconds until it holds or fails, or ctx ends.
func Until(ctx context.Context, cond func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := cond(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// enter is run for a thread that the caller owns.
func (s *space) enter(f func() error) error {
	home, err := netns.Get()
	if err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	defer home.Close() //nolint:errcheck // read-only
	if err := netns.Set(s.ns); err != nil {
		return fmt.Errorf("netns %s: %w", s.name, err)
	}
	return errors.Join(f(), netns.Set(home))
}

// A command is a program that runs to its end.
type command struct {
	in    *space // nil: this process's namespace
	env   []string
	argv  []string
	stdin io.Reader
}

// defaultTimeout bounds a command whose context has no deadline of its own.
const defaultTimeout = 30 * time.Second

// run returns the standard output. The error of a command that fails has its arguments and what it
// wrote to standard error.
func (c command) run(ctx context.Context) (string, error) {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, Patient(defaultTimeout))
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, &out, &stderr
	cmd.WaitDelay = time.Second
	start := cmd.Start
	if c.in != nil {
		start = func() error { return c.in.run(cmd.Start) }
	}
	err := start()
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return out.String(), fmt.Errorf("%s: %w: %s", abbreviate(strings.Join(c.argv, " ")), err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

// abbreviate cuts a command line that is too long for an error message.
func abbreviate(s string) string {
	const most = 400
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// tail returns the last n lines of a file, or why they cannot be read.
func tail(path string, n int) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n-1):], nil)
}
