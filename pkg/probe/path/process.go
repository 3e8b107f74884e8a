package path

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A process is a child inside a namespace of a path.
type process struct {
	name  string
	proc  *os.Process
	done  chan struct{} // closed when it has ended
	state *os.ProcessState
}

// start starts a program inside a namespace. It is killed when the path is closed, or when this process ends. files are those that it
// has from descriptor 3 on; log gets what it says.
func (s *site) start(sp *space, log string, env []string, files []*os.File, argv ...string) (*process, error) {
	program, err := lookup(argv[0])
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	defer out.Close() //nolint:errcheck // the child has its own
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	defer null.Close() //nolint:errcheck // likewise
	p := &process{name: argv[0], done: make(chan struct{})}
	started := make(chan error, 1)
	go func() { // ends with the child
		// The child is killed when the thread that started it ends (PR_SET_PDEATHSIG of prctl(2)), so this one waits for it.
		runtime.LockOSThread()
		err := unix.Setns(int(sp.file.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			p.proc, err = os.StartProcess(program, argv, &os.ProcAttr{
				Env:   append(os.Environ(), env...),
				Files: append([]*os.File{null, out, out}, files...),
				Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
			})
		}
		started <- err
		if err == nil {
			p.state, _ = p.proc.Wait() // nil is said to be unknown
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	s.undo = append(s.undo, func() error { p.kill(); return nil })
	return p, nil
}

// kill ends the process, and waits for its end.
func (p *process) kill() {
	_ = p.proc.Kill() // it may have ended
	<-p.done
}

// run runs a program to its end. The error has what it said.
func (s *site) run(ctx context.Context, sp *space, log string, env []string, argv ...string) error {
	p, err := s.start(sp, log, env, nil, argv...)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
		return ctx.Err()
	}
	if p.state.Success() {
		return nil
	}
	said, _ := os.ReadFile(log) // there may be nothing
	return fmt.Errorf("%s: %v: %s", strings.Join(argv, " "), p.state, bytes.TrimSpace(said))
}

// lookup finds a program: ours beside this one, and any where PATH leads, or root's.
func lookup(program string) (string, error) {
	if filepath.IsAbs(program) {
		return program, nil
	}
	dirs := append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin", "/usr/local/sbin")
	if self, err := os.Executable(); err == nil && program == ChassisOffloadd {
		dirs = slices.Insert(dirs, 0, filepath.Dir(self))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &lack{program, "there is no program of that name in " + strings.Join(dirs, ":"), fs.ErrNotExist}
}
