// Package child starts this program once more, as a process that ends with this one however it ends.
package child

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// A Process is this program with other arguments. Its stdin stays open: its end is the end of who started it.
type Process struct {
	// In is the process' stdin, Out its stdout.
	In, Out *os.File

	os    *os.Process
	ended chan struct{} // lets go of the thread that has forked
	said  chan string
}

// Start starts the program with one argument and this environment.
func Start(verb string, env ...string) (*Process, error) {
	p := &Process{ended: make(chan struct{}), said: make(chan string, 1)}
	started := make(chan error)
	// It ends with the process.
	go func() {
		// The kernel's PR_SET_PDEATHSIG means the thread that has forked, not its process: it must not end before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.start(verb, env)
		started <- err
		if err == nil {
			<-p.ended
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("child %s: %w", verb, err)
	}
	return p, nil
}

func (p *Process) start(verb string, env []string) error {
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
			return err
		}
		ours[i], theirs[i] = r, w
		if i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	started, err := os.StartProcess("/proc/self/exe", []string{"offloadd", verb}, &os.ProcAttr{
		Env: env, Files: theirs[:], Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	closeAll(theirs[:])
	if err != nil {
		closeAll(ours[:])
		return err
	}
	p.os, p.In, p.Out = started, ours[0], ours[1]
	// It ends with the process.
	go func() {
		said, _ := io.ReadAll(io.LimitReader(ours[2], 64<<10)) // what there is, even after an error
		_, _ = io.Copy(io.Discard, ours[2])
		_ = ours[2].Close() // read to its end
		p.said <- firstLines(said, 3)
	}()
	return nil
}

// Pid is the process' number.
func (p *Process) Pid() int { return p.os.Pid }

// Kill ends the process, if it has not ended.
func (p *Process) Kill() { _ = p.os.Kill() } // it may have

// Close closes what leads to the process, waits until it has ended, and returns why that was not as it should. It is called once.
func (p *Process) Close() error {
	_ = p.In.Close() // nothing is in it
	_ = p.Out.Close()
	state, err := p.os.Wait()
	close(p.ended)
	said := <-p.said
	switch {
	case err != nil:
		return err
	case state.Success():
		return nil
	case said != "":
		return fmt.Errorf("%v: %s", state, said)
	default:
		return errors.New(state.String())
	}
}

func firstLines(text []byte, n int) string {
	lines := bytes.SplitN(bytes.TrimSpace(text), []byte("\n"), n+1)
	var kept []string
	for _, l := range lines[:min(n, len(lines))] {
		kept = append(kept, string(bytes.TrimSpace(l)))
	}
	return strings.Join(kept, "; ")
}
