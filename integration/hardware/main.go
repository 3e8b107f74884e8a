// Hardware does the tests of NICs on one of this machine's: a preflight, which says precisely what is missing, and then the test bodies and
// benchmarks that elsewhere have the simulated NIC. What they say is stored, beside what the machine is.
//
//	bin/hardware -device pci/0000:03:00.0 -wire enp3s0f1np1
//
// `make hardware` builds it and the rest; docs/hardware.md tells what it takes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/testnic"
	"github.com/offloadd/offloadd/pkg/devlink"
)

// Exit statuses.
const (
	exitFailed = 1 // something is missing, or a suite has failed
	exitUsage  = 2
)

// options are the command line.
type options struct {
	want
	preflight bool
	bin       string
	results   string
	suites    string
	tests     string // a regular expression
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hardware:", err)
		status = max(status, exitFailed)
	}
	os.Exit(status)
}

func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	var o options
	flags := flag.NewFlagSet("hardware", flag.ContinueOnError)
	name := flags.String("device", "", "the NIC, by its devlink `handle`")
	flags.StringVar(&o.wire, "wire", "", "the `netdev` of another port of this machine, to which a cable leads from the NIC's uplink")
	flags.BoolVar(&o.change, "change", false, "make VFs and change the mode of the NIC's switch as the tests need it, and restore both in the end")
	flags.BoolVar(&o.preflight, "preflight", false, "only say what is missing")
	flags.StringVar(&o.bin, "bin", "bin", "the `directory` with the programs and test binaries")
	flags.StringVar(&o.results, "results", "hardware-results", "the `directory` that gets one for this run")
	flags.StringVar(&o.suites, "suites", "", "`names` of the suites to run, with commas between them; empty: all ("+strings.Join(suiteNames(), ", ")+")")
	flags.StringVar(&o.tests, "run", "", "of suites of tests, only those that the `expression` matches")
	if err := flags.Parse(args); err != nil {
		return exitUsage, nil //nolint:nilerr // it has been printed
	}
	if *name == "" {
		m, err := look(ctx, want{})
		if err != nil {
			return exitFailed, err
		}
		fmt.Fprintf(out, "DEV is the devlink handle of the NIC to test, WIRE the netdev that its uplink's cable leads to:\n\n"+
			"  make hardware DEV=pci/0000:03:00.0 WIRE=enp3s0f1np1\n\nNICs of this machine with an embedded switch:\n%s", m.candidates())
		return exitUsage, nil
	}
	var err error
	if o.handle, err = devlink.ParseHandle(*name); err != nil {
		return exitUsage, err
	}
	chosen, err := choose(o.suites)
	if err != nil {
		return exitUsage, err
	}
	m, err := look(ctx, o.want)
	if err != nil {
		return exitFailed, err
	}
	lines := judge(m, o.want)
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
	if !ready(lines) {
		return exitFailed, errors.New("preflight: something is missing")
	}
	if o.preflight {
		return 0, nil
	}
	return o.do(ctx, out, lines, chosen)
}

// do runs the suites on a NIC that is ready, and gives it back as it was.
func (o options) do(ctx context.Context, out io.Writer, lines []line, chosen []suite) (status int, err error) {
	r, err := newRecord(o, lines)
	if err != nil {
		return exitFailed, err
	}
	fmt.Fprintf(out, "results: %s\n", r.dir)
	nic := testnic.Existing(o.handle.String(), o.change)
	if err := nic.Open(ctx, needVFs); err != nil {
		return exitFailed, err
	}
	// A suite that was killed leaves namespaces, with VFs in them.
	defer func() { err = errors.Join(err, lab.Sweep(false), nic.Close()) }()
	if o.change { // what could not be seen before
		m, err := look(ctx, o.want)
		if err != nil {
			return exitFailed, err
		}
		if r.Preflight = judge(m, o.want); !ready(r.Preflight) {
			for _, l := range r.Preflight {
				if l.Verdict == missing {
					fmt.Fprintln(out, l)
				}
			}
			return exitFailed, errors.New("preflight, in switchdev mode: something is missing")
		}
	}
	if err := cable(nic.Uplink(), o.wire, 30*time.Second); err != nil {
		return exitFailed, err
	}
	if err := r.facts(ctx, nic, filepath.Join(o.bin, "offloadctl")); err != nil {
		return exitFailed, err
	}
	for _, s := range chosen {
		if ctx.Err() != nil {
			return exitFailed, context.Cause(ctx)
		}
		res, err := r.suite(ctx, o, s)
		if err != nil {
			return exitFailed, err
		}
		fmt.Fprintln(out, res)
		if !res.Passed {
			status = exitFailed
		}
	}
	return status, r.write()
}

// A suite is a program to run.
type suite struct {
	name    string
	timeout time.Duration
	alone   bool                     // in a network namespace of its own: it needs no NIC
	argv    func(o options) []string // the program is of o.bin
}

// suites are the bodies that also run on the simulated NIC, and the benchmarks.
var suites = []suite{
	{"offloadnic", 30 * time.Minute, false, func(o options) []string { return []string{"offloadnic.test", "-test.v", "-test.run=" + o.tests} }},
	{"devports", time.Hour, false, func(o options) []string { return []string{"devports.test", "-test.v", "-test.run=" + o.tests} }},
	{"bench-ports", time.Hour, false, func(o options) []string {
		return []string{"benchports", "-offloadd", filepath.Join(o.bin, "offloadd"), "-cni", o.bin, "-nic", o.handle.String(), "-pods", "20", "-parallel", "2", "-warm", "0,4", "-idle", "0s"}
	}},
	{"bench-tc", 30 * time.Minute, true, func(options) []string { return []string{"benchtc", "-ports", "20", "-remote", "200", "-acls", "100"} }},
}

func suiteNames() (names []string) {
	for _, s := range suites {
		names = append(names, s.name)
	}
	return names
}

// choose returns the suites of these names, all if there are none.
func choose(names string) ([]suite, error) {
	if names == "" {
		return suites, nil
	}
	var chosen []suite
	for name := range strings.SplitSeq(names, ",") {
		before := len(chosen)
		for _, s := range suites {
			if s.name == name {
				chosen = append(chosen, s)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("there is no suite %q: %s", name, strings.Join(suiteNames(), ", "))
		}
	}
	return chosen, nil
}
