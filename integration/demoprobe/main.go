// Demoprobe measures all kinds of paths that can be measured on this machine, and writes one report.
//
//	bin/demoprobe -offloadctl bin/offloadctl -dir bin/probe
//
// First come the kinds that this kernel can build, by offloadctl probe run --local. Those that it cannot are measured in a guest with another
// kernel, together with the baseline: a run of its own, since numbers of different kernels are not to be compared. Both are in report.html.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/vm"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// baseline is in every run.
const baseline = "metal"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "demoprobe:", err)
		stop()
		os.Exit(1)
	}
}

type demo struct {
	ctl, dir, kernel string
	sizes            string
	count, sessions  int
	timeout          time.Duration
	out, stderr      io.Writer
}

func run(ctx context.Context, args []string, out, stderr io.Writer) error {
	d := demo{out: out, stderr: stderr}
	flags := flag.NewFlagSet("demoprobe", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&d.ctl, "offloadctl", "bin/offloadctl", "the `program`")
	flags.StringVar(&d.dir, "dir", "bin/probe", "`directory` of what is written")
	flags.StringVar(&d.kernel, "kernel", string(vm.UML), "the guest's `kernel`: uml, qemu, or none")
	flags.StringVar(&d.sizes, "sizes", "64,1024", "`octets` of requests")
	flags.IntVar(&d.count, "count", 12_000, "requests on each path and of each size")
	flags.IntVar(&d.sessions, "sessions", 8, "sessions")
	flags.DurationVar(&d.timeout, "timeout", 10*time.Minute, "`time` that a kernel may take")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if d.ctl, err = filepath.Abs(d.ctl); err != nil {
		return err
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	fmt.Fprintln(out, "measuring the kinds of paths that this kernel can build")
	here, err := d.here(ctx)
	if err != nil {
		return err
	}
	runs := []*result.Run{here}
	fmt.Fprintf(out, "\n%s\n", report.Text(here, 0))
	if missing := kinds(here); len(missing) > 0 && d.kernel != "none" {
		fmt.Fprintf(out, "measuring the others in a guest: %s\n", strings.Join(missing, ", "))
		there, err := d.there(ctx, missing)
		if err != nil {
			return err
		}
		runs = append(runs, there)
		fmt.Fprintf(out, "\n%s\n", report.Text(there, 0))
	}
	page, err := report.HTML(runs...)
	if err != nil {
		return err
	}
	file := filepath.Join(d.dir, "report.html")
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(out, "the report is %s\n", file)
	return nil
}

// command measures kinds.
func (d demo) command(kinds string) []string {
	return []string{
		d.ctl, "probe", "--local", "--state-dir", "/tmp/demoprobe", "run", "--kinds", kinds, "--baseline", baseline, "--sizes", d.sizes,
		"--count", strconv.Itoa(d.count), "--sessions", strconv.Itoa(d.sessions), "-o", "json",
	}
}

// here measures all kinds.
func (d demo) here(ctx context.Context) (*result.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	argv := d.command("all")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// It removes its paths when it is asked to end.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	cmd.Stderr = d.stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("offloadctl probe run: %w", errors.Join(err, ctx.Err()))
	}
	return d.read("here", text)
}

// there measures kinds in a guest, which is many times slower: so a sixth of the requests, as many as p50 takes.
func (d demo) there(ctx context.Context, kinds []string) (*result.Run, error) {
	var text bytes.Buffer
	d.count /= 6
	status, err := vm.Run(ctx, vm.Job{
		Kernel: vm.Kernel(d.kernel), Argv: d.command(strings.Join(append([]string{baseline}, kinds...), ",")), Timeout: d.timeout, Stdout: &text, Stderr: d.stderr, Log: d.stderr,
	})
	if err != nil {
		return nil, err
	}
	if status != 0 {
		return nil, fmt.Errorf("offloadctl probe run in the guest %s: exit status %d", d.kernel, status)
	}
	return d.read(d.kernel, text.Bytes())
}

// read keeps the run in a file of its own, too.
func (d demo) read(name string, text []byte) (*result.Run, error) {
	r, err := report.Read(text)
	if err != nil {
		return nil, err
	}
	return r, os.WriteFile(filepath.Join(d.dir, name+".json"), text, 0o644)
}

// elsewhere are kinds that take more than another kernel: a NIC.
var elsewhere = []string{"vf", "sf"}

// kinds are those that the run is missing and another kernel may have.
func kinds(run *result.Run) []string {
	var all []string
	for _, m := range run.Missing {
		if !slices.Contains(elsewhere, m.Kind) && !strings.Contains(m.Kind, " ") {
			all = append(all, m.Kind)
		}
	}
	return all
}
