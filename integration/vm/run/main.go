// Run runs a program in a guest kernel on this machine, as package vm says, and exits with its exit status:
//
//	go run ./integration/vm/run -kernel uml -- sh -c 'uname -a; tc qdisc'
//	go test -exec 'bin/vmrun -kernel qemu --' ./integration
//
// 124 means that the program did not end in time, 125 that there was no guest to run it in.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/vm"
)

// The exit statuses for what is not the program's, as timeout(1) has them.
const (
	exitTimeout = 124
	exitFailed  = 125
)

func main() {
	j := vm.Job{Stdout: os.Stdout, Stderr: os.Stderr, Log: os.Stderr, Env: os.Environ()}
	kernel := flag.String("kernel", string(vm.UML), "the kernel: uml, or qemu for Debian's own")
	flag.DurationVar(&j.Timeout, "timeout", 10*time.Minute, "`time` for boot, program and end")
	flag.IntVar(&j.Memory, "memory", 0, "of the guest, in `MiB`")
	flag.StringVar(&j.Dir, "C", "", "the `directory` to run in")
	flag.Func("results", "a `directory` of the host that is writable in the guest; may be repeated", func(s string) error {
		j.Results = append(j.Results, s)
		return nil
	})
	flag.Func("e", "`KEY=VALUE` for the program's environment, besides this one's; may be repeated", func(s string) error {
		if !strings.Contains(s, "=") {
			return errors.New("want KEY=VALUE")
		}
		j.Env = append(j.Env, s)
		return nil
	})
	verbose := flag.Bool("v", false, "say how long it took")
	flag.Parse()
	j.Kernel, j.Argv = vm.Kernel(*kernel), flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	start := time.Now()
	status, err := vm.Run(ctx, j)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = exitFailed
		if errors.Is(err, vm.ErrTimeout) {
			status = exitTimeout
		}
	}
	if *verbose {
		fmt.Fprintf(os.Stderr, "vm %s: exit status %d after %v\n", j.Kernel, status, time.Since(start).Round(100*time.Millisecond))
	}
	os.Exit(status)
}
