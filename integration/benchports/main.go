// Benchports measures how long it takes to attach and detach pods by cnitool: with offload-cni and the daemon, and with the reference
// plugins bridge and host-device, in turn, one pod at a time and several.
//
//	bin/benchports -offloadd bin/offloadd -cni bin
//
// With -simnic, in a guest with Debian's kernel, pods are also attached to VFs and SFs of the simulated NIC, the SFs from pools of several
// sizes, and made at once or as slowly as NICs make them. What the daemon uses while it has nothing to do is measured with the largest pool.
//
// It prints percentiles of cnitool's times and of each step that the daemon takes, pods per second, and all that as ratios to the reference
// plugins. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/testnic"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "benchports:", err)
		stop()
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	offloadd, cni  string
	pods, parallel int
	nic            *testnic.Device // nil: veths only
	warm           []int
	delays         []time.Duration
	idleFor        time.Duration
}

func parse(args []string) (options, error) {
	o := options{warm: []int{0, 16, 128, 256}, delays: []time.Duration{300 * time.Millisecond}}
	flags := flag.NewFlagSet("benchports", flag.ContinueOnError)
	flags.StringVar(&o.offloadd, "offloadd", "bin/offloadd", "the daemon's binary")
	flags.StringVar(&o.cni, "cni", "bin", "the `directory` with cnitool, offload-cni, bridge, host-device and host-local")
	flags.IntVar(&o.pods, "pods", 50, "pods of each kind, one after the other, and again in parallel")
	flags.IntVar(&o.parallel, "parallel", 8, "pods at a time in the second part")
	flags.Func("simnic", "the `module` of the simulated NIC, to measure VFs and SFs too; in a guest", func(s string) error {
		o.nic = testnic.Simulated(s)
		return nil
	})
	flags.Func("nic", "the devlink `handle` of a NIC of this machine, likewise; "+testnic.Change+" in the environment lets VFs be made", func(s string) error {
		o.nic = testnic.Existing(s, os.Getenv(testnic.Change) != "")
		return nil
	})
	flags.Func("warm", "how many SFs are made in advance: `numbers` with commas between them, \"\": no SFs (0,16,128,256)", func(s string) (err error) {
		o.warm, err = list(s, strconv.Atoi)
		return err
	})
	flags.Func("delays", "how long the NIC takes to make an SF: `times` with commas between them (300ms)", func(s string) (err error) {
		o.delays, err = list(s, time.ParseDuration)
		return err
	})
	flags.DurationVar(&o.idleFor, "idle", time.Minute, "how long the daemon is watched doing nothing, with the largest pool of SFs; 0: not at all")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.parallel < 1 || o.parallel > maxParallel || o.pods < o.parallel || o.pods > 1000 {
		return o, fmt.Errorf("%d pods, %d at a time: want 1 to %d at a time, and as many pods or more, up to 1000", o.pods, o.parallel, maxParallel)
	}
	for _, n := range o.warm {
		if n < 0 || n > maxWarm {
			return o, fmt.Errorf("%d SFs in advance: want 0 to %d", n, maxWarm)
		}
	}
	return o, nil
}

func list[T any](s string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	if s == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(s, ",") {
		v, err := parse(word)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func run(ctx context.Context, args []string, out, log io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	node, datapath := lab.NodeConfig{Name: "n1", Agent: lab.Offloadd}, lab.Datapath("")
	if o.nic != nil {
		if why := o.nic.Absent(); why != "" {
			return errors.New(why)
		}
		if err := openNIC(ctx, o); err != nil {
			return err
		}
		defer func() {
			if o.nic.Real() { // a guest ends anyway
				err = errors.Join(err, o.nic.Close())
			}
		}()
		// Functions are in the network namespace of the NIC, and representors belong to the kernel's datapath.
		node.Host, node.ConfigYAML, datapath = true, poolsYAML(o, 0), lab.System
	}
	if err := attach.Sweep(); err != nil { // what a killed run left; the rest of it the lab sweeps
		return err
	}
	l, err := lab.Start(ctx, lab.Options{OffloaddPath: o.offloadd, Datapath: datapath, Nodes: []lab.NodeConfig{node}})
	if err != nil {
		return err
	}
	b := &bench{
		options: o, lab: l, node: l.Node("n1"), out: out, log: log, begun: time.Now(),
		kernelTimes: map[string]*histogram{placeRow: newHistogram(), moveRow: newHistogram()},
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w\n%s", err, l.Tails(60))
		}
		err = errors.Join(err, b.forget(), l.Close())
	}()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	machine, err := machine()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n%d pods of each kind.\n\n", machine, b.pods)
	if err := b.measure(ctx); err != nil {
		return err
	}
	_, err = io.WriteString(out, summary(b.trials, b.kernelTimes, o.parallel))
	return err
}

// machine says on what it was measured.
func machine() (string, error) {
	var text [5]string
	for i, file := range []string{
		"/proc/sys/kernel/osrelease", "/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg",
		"/sys/devices/system/clocksource/clocksource0/available_clocksource",
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		text[i] = strings.TrimSpace(string(b))
	}
	var memory int
	if _, err := fmt.Sscanf(text[2], "MemTotal: %d kB", &memory); err != nil {
		return "", fmt.Errorf("/proc/meminfo: %w", err)
	}
	cpus, model := 0, "unknown"
	for line := range strings.Lines(text[1]) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "processor":
			cpus++
		case "model name":
			model = strings.TrimSpace(value)
		}
	}
	kind := ""
	if os.Getenv("OFFLOADD_VM") == "qemu" {
		kind = "In a guest of QEMU with KVM. "
		if !strings.Contains(text[4], "kvm-clock") {
			kind = "In a guest of QEMU without KVM: each instruction is emulated, so compare these times with each other only. "
		}
	}
	return fmt.Sprintf("%sLinux %s, %d CPUs (%s), %d MiB, load average %s.", kind, text[0], cpus, model, memory/1024, strings.Fields(text[3])[0]), nil
}
