package vm

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
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Kernel is a kernel to run a program on.
type Kernel string

// The kernels. The guest finds its own in the environment, as OFFLOADD_VM.
const (
	UML  Kernel = "uml"
	QEMU Kernel = "qemu"
)

// A Job is a program to run in a guest.
type Job struct {
	Kernel Kernel

	// Argv is the program and its arguments. A program without a slash is looked for in the guest, along the PATH of Env.
	Argv []string

	// Dir is where it runs; empty is this process's working directory.
	Dir string

	// Env is the program's environment; nil is this process's. OFFLOADD_VM is added.
	Env []string

	// Results are directories of the host that are writable in the guest, at the same path.
	Results []string

	// Timeout bounds everything but making a kernel that is not in the cache: boot, program and end. 0 is ten minutes.
	Timeout time.Duration

	// Memory of the guest in MiB; 0 is 3072. It is used as it is needed.
	Memory int

	// Stdout and Stderr receive what the program writes, as it writes it; nil discards it.
	Stdout, Stderr io.Writer

	// Log receives a line for each long step, and the guest's console when it ends without a result; nil discards it.
	Log io.Writer
}

// ErrTimeout is the error of a job that did not end in time.
var ErrTimeout = errors.New("not done in time")

// Run runs the job and returns the exit status of its program, 128 and more after a signal as in a shell. An error
// means that there is no status: the kernel could not be made or did not boot, or ErrTimeout. When it returns,
// or when this process ends in any way, the guest is gone.
func Run(ctx context.Context, j Job) (int, error) {
	status, err := run(ctx, j)
	if err != nil {
		return 0, fmt.Errorf("vm %s: %w", j.Kernel, err)
	}
	return status, nil
}

func run(ctx context.Context, j Job) (int, error) {
	if err := complete(&j); err != nil {
		return 0, err
	}
	busybox, err := need("busybox")
	if err != nil {
		return 0, err
	}
	var m machine
	switch j.Kernel {
	case UML:
		m, err = newUML(ctx, j.Log)
	case QEMU:
		m, err = newQEMU(ctx, j.Log)
	default:
		err = unknown()
	}
	if err != nil {
		return 0, err
	}
	return boot(ctx, m, j, busybox)
}

func unknown() error { return fmt.Errorf("unknown kernel; want %s or %s", UML, QEMU) }

// complete fills in what the job leaves to this process, and checks the rest.
func complete(j *Job) error {
	if len(j.Argv) == 0 {
		return errors.New("no program")
	}
	if strings.Contains(j.Argv[0], "=") {
		return fmt.Errorf("program %q: env(1) would take it for a variable", j.Argv[0])
	}
	if j.Dir == "" {
		j.Dir = "."
	}
	paths := append([]string{j.Dir}, j.Results...)
	for i, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return err
		}
		if strings.Contains(abs, ",") {
			return fmt.Errorf("directory %s: a comma cannot be part of a mount option", abs)
		}
		if info, err := os.Stat(abs); err != nil {
			return err
		} else if !info.IsDir() {
			return fmt.Errorf("%s is no directory", abs)
		}
		paths[i] = abs
	}
	j.Dir, j.Results = paths[0], paths[1:]
	j.Argv = append([]string(nil), j.Argv...)
	if strings.Contains(j.Argv[0], "/") && !filepath.IsAbs(j.Argv[0]) {
		j.Argv[0] = filepath.Join(j.Dir, j.Argv[0])
	}
	if j.Env == nil {
		j.Env = os.Environ()
	}
	if j.Timeout == 0 {
		j.Timeout = 10 * time.Minute
	}
	if j.Memory == 0 {
		j.Memory = 3072
	}
	for _, w := range []*io.Writer{&j.Stdout, &j.Stderr, &j.Log} {
		if *w == nil {
			*w = io.Discard
		}
	}
	return nil
}

// A machine is a kernel that is ready to boot.
type machine interface {
	// world says how the guest mounts the host's directories and what else its kernel needs.
	world() (world, error)

	// command is the host's command line. The program has the file descriptors 3 and 4, where the guest's serial lines 1
	// and 2 go; its own output is the guest's console. mounts[i] has the number i+1 in world.source.
	command(initrd string, memory int, mounts []mount) []string

	// files are the contents of the modules in world.
	files() ([]entry, error)

	// processes says that the guest's processes are processes of the host, one of which runs at a time.
	processes() bool
}

func boot(ctx context.Context, m machine, j Job, busybox string) (_ int, err error) {
	dir, err := os.MkdirTemp("", "offloadd-vm-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	own := filepath.Join(dir, "share")
	if err := os.Mkdir(own, 0o755); err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(own, "guest"), []byte(guestScript(j, busybox)), 0o644); err != nil {
		return 0, err
	}
	w, err := m.world()
	if err != nil {
		return 0, err
	}
	w.shown = shown(j)
	w.mounts = []mount{{own, share}}
	for _, r := range j.Results {
		w.mounts = append(w.mounts, mount{host: r})
	}
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(initrd, m, w, busybox); err != nil {
		return 0, err
	}

	ctx, cancel := context.WithTimeoutCause(ctx, j.Timeout, ErrTimeout)
	defer cancel()
	console := filepath.Join(dir, "console")
	if err := host(ctx, m.command(initrd, j.Memory, w.mounts), m.processes(), dir, console, j.Stdout, j.Stderr); err != nil {
		fmt.Fprintf(j.Log, "vm %s: the end of the guest's console:\n%s", j.Kernel, lastLines(console, 40))
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(own, "status"))
	if err == nil {
		return strconv.Atoi(strings.TrimSpace(string(b)))
	}
	fmt.Fprintf(j.Log, "vm %s: the end of the guest's console:\n%s", j.Kernel, lastLines(console, 40))
	return 0, errors.New("the guest ended without a result")
}

func writeInitrd(file string, m machine, w world, busybox string) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	var entries []entry
	for _, d := range []string{"bin", "dev", "lower", "modules", "new", "proc", "upper"} {
		entries = append(entries, entry{d, modeDir, nil})
	}
	entries = append(entries, entry{"bin/busybox", modeScript, program}, entry{"init", modeScript, []byte(initScript(w))})
	modules, err := m.files()
	if err != nil {
		return err
	}
	return os.WriteFile(file, cpio(append(entries, modules...)), 0o644)
}

// host runs the guest's process on the host until it ends by itself; the guest's output has then arrived. If ctx ends,
// or this process or thread, it is killed with all it started.
//
// Where the guest's processes are processes of the host they have a PID namespace, if this process may make one, which ends with the
// kernel that is its first. And they stay on one CPU, since only one runs at a time: a system call of a guest took 20 µs that way on a virtual machine,
// and 100 µs if it is handed from one CPU to another.
func host(ctx context.Context, argv []string, processes bool, dir, console string, stdout, stderr io.Writer) error {
	log, err := os.Create(console)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the child has its own copy
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if processes && os.Geteuid() == 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	runtime.LockOSThread() // Pdeathsig is about the thread, and so are CPUs
	defer runtime.UnlockOSThread()
	free := func() error { return nil }
	if processes {
		if free, err = stay(); err != nil {
			return err
		}
	}
	copied := make(chan error, 2)
	for _, w := range []io.Writer{stdout, stderr} {
		read, write, err := os.Pipe()
		if err != nil {
			return errors.Join(err, free())
		}
		defer read.Close() //nolint:errcheck // read-only
		cmd.ExtraFiles = append(cmd.ExtraFiles, write)
		go func() { // ends with the guest's process
			_, err := io.Copy(w, read)
			copied <- err
		}()
	}
	err = errors.Join(cmd.Start(), free())
	for _, f := range cmd.ExtraFiles {
		_ = f.Close() // the child has its own copy
	}
	if err == nil {
		err = cmd.Wait()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what a kernel that panicked left
	}
	return errors.Join(err, <-copied, <-copied)
}

// stay ties the thread, and what it starts, to the CPU that it is on, until free.
func stay() (free func() error, err error) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var cpu uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
		return nil, fmt.Errorf("getcpu: %w", errno)
	}
	one.Set(int(cpu))
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, fmt.Errorf("sched_setaffinity: %w", err)
	}
	return func() error { return unix.SchedSetaffinity(0, &all) }, nil
}

// need returns the path of a program.
func need(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: `tools/prepare vm` installs it", err)
	}
	return path, nil
}

// lastLines returns the last n lines of a file, or why it cannot be read.
func lastLines(file string, n int) []byte {
	b, err := os.ReadFile(file)
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n-1):], nil)
}
