// Benchports measures how long it takes to attach and detach pods: by cnitool with offload-cni and the daemon, by the same cnitool
// with the reference plugin bridge, and by the kernel alone, in turn.
//
//	go run ./integration/benchports -offloadd bin/offloadd
//
// It prints percentiles of each, of each step that the daemon takes, pods per second, and what the daemon adds to the kernel's
// own time. It needs root.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchports:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("benchports", flag.ContinueOnError)
	offloadd := flags.String("offloadd", "bin/offloadd", "the daemon's binary")
	pods := flags.Int("pods", 50, "pods of each kind, one after the other, and again in parallel")
	parallel := flags.Int("parallel", 8, "pods at a time in the second part")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *pods < 1 || *pods > 1000 || *parallel < 1 {
		return fmt.Errorf("%d pods, %d at a time: want 1 to 1000, and at least one at a time", *pods, *parallel)
	}
	l, err := lab.Start(ctx, lab.Options{OffloaddPath: *offloadd, Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.Offloadd}}})
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // what is left behind the next lab sweeps
	b := &bench{lab: l, node: l.Node("n1"), pods: *pods, times: map[string][]time.Duration{}}
	if err := b.prepare(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, l.Tails(8))
	}
	defer b.forget() //nolint:errcheck // the same
	for i := range *pods {
		if err := b.serial(ctx, i); err != nil {
			return fmt.Errorf("pod %d: %w\n%s", i, err, l.Tails(8))
		}
	}
	rates := map[string]float64{}
	for _, net := range b.networks() {
		begin := time.Now()
		if err := b.parallel(ctx, net, *parallel); err != nil {
			return fmt.Errorf("%w\n%s", err, l.Tails(8))
		}
		rates[net.plugin] = float64(*pods) / time.Since(begin).Seconds()
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, report(b.times, b.steps, rates, *parallel, strings.Fields(string(load))[0]))
	return err
}

// A bench is a node, and what was measured on it.
type bench struct {
	lab    *lab.Lab
	node   *lab.Node
	pods   int
	ours   network
	theirs network

	times map[string][]time.Duration // by row of the report
	steps []string                   // rows that are steps of the daemon, in the order of a timeline
}

// A network is one of a plugin.
type network struct {
	*attach.Network
	plugin string
}

func (b *bench) networks() []network { return []network{b.ours, b.theirs} }

func (b *bench) prepare(ctx context.Context) error {
	var script strings.Builder
	script.WriteString("ls-add sw0\n")
	for i := range b.pods {
		c := config(i)
		fmt.Fprintf(&script, "lsp-add sw0 %s -- lsp-set-addresses %s '%s %s'\n", c.Name, c.Name, c.MAC, c.IPs[0].Addr())
	}
	if _, err := b.lab.NB(ctx, script.String()); err != nil {
		return err
	}
	if err := b.lab.Sync(ctx); err != nil {
		return err
	}
	path, err := attach.Build(ctx, b.lab.Dir, "bridge", "host-local")
	if err != nil {
		return err
	}
	ours, err := attach.NewNetwork(b.node, path, "ours", `{"type":"offload-cni","mtu":1400,"routes":[{"dst":"10.0.0.0/16"}]}`)
	if err != nil {
		return err
	}
	theirs, err := attach.NewNetwork(b.node, path, "theirs", fmt.Sprintf(
		`{"type":"bridge","bridge":"bench0","mtu":1400,"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.9.0.0/16"}}`,
		filepath.Join(b.lab.Dir, "leases")))
	b.ours, b.theirs = network{ours, "offload-cni"}, network{theirs, "bridge"}
	return err
}

func (b *bench) forget() error { return b.ours.Forget() }

// serial attaches a pod in each way, one after the other.
func (b *bench) serial(ctx context.Context, i int) error {
	for _, net := range b.networks() {
		pod, err := b.bare(ctx, i)
		if err != nil {
			return err
		}
		for _, verb := range []string{"add", "del"} {
			begin := time.Now()
			if _, err := net.Do(ctx, verb, pod.Netns(), "IgnoreUnknown=1;LogicalPort="+pod.Name); err != nil {
				return err
			}
			b.took(fmt.Sprintf("cnitool %s, %s", verb, net.plugin), time.Since(begin))
			if net == b.ours && verb == "add" {
				if err := b.timeline(ctx, pod.Name); err != nil {
					return err
				}
			}
		}
		if err := pod.Remove(ctx); err != nil {
			return err
		}
	}
	pod, err := b.bare(ctx, i)
	if err != nil {
		return err
	}
	if err := b.kernel(pod); err != nil {
		return err
	}
	return pod.Remove(ctx)
}

// parallel attaches and detaches all pods, some at a time.
func (b *bench) parallel(ctx context.Context, net network, at int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(at)
	for i := range b.pods {
		g.Go(func() error {
			pod, err := b.bare(ctx, i)
			if err != nil {
				return err
			}
			for _, verb := range []string{"add", "del"} {
				if _, err := net.Do(ctx, verb, pod.Netns(), "IgnoreUnknown=1;LogicalPort="+pod.Name); err != nil {
					return err
				}
			}
			return pod.Remove(ctx)
		})
	}
	return g.Wait()
}

func (b *bench) bare(ctx context.Context, i int) (*lab.Pod, error) {
	c := config(i)
	c.Bare = true
	return b.node.AddPod(ctx, c)
}

func (b *bench) took(row string, d time.Duration) { b.times[row] = append(b.times[row], d) }
