package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
)

// A bench is a node, and what was measured on it.
type bench struct {
	options
	lab   *lab.Lab
	node  *lab.Node
	out   io.Writer // for what was measured
	log   io.Writer // for what is being measured
	begun time.Time

	spaces     []*lab.Pod // the pods, without interfaces
	bridge     way
	hostDevice way
	networks   []*attach.Network // all
	watch      *watch            // of the daemon that runs

	trials      []*trial
	kernelTimes map[string]*histogram
}

// A way to attach pods is a plugin, and what it makes interfaces of.
type way struct {
	name     string
	networks []*attach.Network // as many pods at a time have one each; one is for all
	daemon   bool              // the pods' ports are the daemon's
	to       string            // the way that it is compared with; "": none
}

// A trial is several ways, measured in turn.
type trial struct {
	title    string
	ways     []way
	serial   map[string]*measure // by the way's name
	parallel map[string]*measure
}

// prepare makes the pods, and what both kinds of benches need.
func (b *bench) prepare(ctx context.Context) error {
	var script strings.Builder
	script.WriteString("ls-add sw0\n")
	for i := range b.pods {
		c := config(i)
		fmt.Fprintf(&script, "lsp-add sw0 %s -- lsp-set-addresses %s '%s %s'\n", c.Name, c.Name, c.MAC, c.IPs[0].Addr())
		p, err := b.node.AddPod(ctx, c)
		if err != nil {
			return err
		}
		b.spaces = append(b.spaces, p)
	}
	if _, err := b.lab.NB(ctx, script.String()); err != nil {
		return err
	}
	if err := b.lab.Sync(ctx); err != nil {
		return err
	}
	var err error
	if b.cni, err = filepath.Abs(b.cni); err != nil {
		return err
	}
	if b.watch, err = newWatch(ctx, b.node); err != nil {
		return err
	}
	net, err := b.network("bridge", fmt.Sprintf(`{"type":"bridge","bridge":"bench0","mtu":1400,"ipam":%s}`, b.ipam(9)))
	b.bridge = way{name: "bridge", networks: []*attach.Network{net}}
	return err
}

// config is the pod with a number.
func config(i int) lab.PodConfig {
	return lab.PodConfig{
		Name: fmt.Sprintf("b%d", i), MAC: fmt.Sprintf("50:54:00:02:%02x:%02x", i/256, i%256), Bare: true,
		IPs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/16", 1+i/200, 1+i%200))},
	}
}

// ipam gives the pods of a reference plugin addresses in 10.second.0.0/16.
func (b *bench) ipam(second int) string {
	return fmt.Sprintf(`{"type":"host-local","dataDir":%q,"subnet":"10.%d.0.0/16"}`, filepath.Join(b.lab.Dir, "leases"), second)
}

// network returns a network that is forgotten when the bench ends.
func (b *bench) network(name, plugin string) (*attach.Network, error) {
	net, err := attach.NewNetwork(b.node, b.cni, name, plugin)
	if err == nil {
		b.networks = append(b.networks, net)
	}
	return net, err
}

// ours is the way of the daemon with a kind of port, from a pool if that is not "".
func (b *bench) ours(kind, pool, name, to string) (way, error) {
	net, err := b.network(kind, fmt.Sprintf(`{"type":"offload-cni","kind":%q,"pool":%q,"mtu":1400,"routes":[{"dst":"10.0.0.0/16"}]}`, kind, pool))
	return way{name, []*attach.Network{net}, true, to}, err
}

// forget removes what cnitool keeps of pods that are still attached.
func (b *bench) forget() error {
	err := b.watch.close()
	for _, net := range b.networks {
		err = errors.Join(err, net.Forget())
	}
	return err
}

// measure does all trials.
func (b *bench) measure(ctx context.Context) error {
	veth, err := b.ours("veth", "", "veth", "bridge")
	if err != nil {
		return err
	}
	title, ways := "veths", []way{veth, b.bridge}
	if b.nic != nil {
		vf, err := b.devices()
		if err != nil {
			return err
		}
		title, ways = "veths and VFs", append(ways, vf, b.hostDevice)
	}
	if err := b.try(ctx, &trial{title: title, ways: ways}, nil); err != nil {
		return err
	}
	if b.nic != nil {
		return b.subfunctions(ctx)
	}
	return nil
}

// try measures a trial and prints it; settled, unless nil, waits until what pods of the last part left is done.
func (b *bench) try(ctx context.Context, t *trial, settled func(context.Context) error) error {
	t.serial, t.parallel = map[string]*measure{}, map[string]*measure{}
	fmt.Fprintf(b.log, "%4.0f s: %s\n", time.Since(b.begun).Seconds(), t.title)
	b.trials = append(b.trials, t)
	wait := func() error {
		if settled == nil {
			return nil
		}
		return settled(ctx)
	}
	for _, w := range t.ways {
		t.serial[w.name], t.parallel[w.name] = newMeasure(), newMeasure()
		// The first pod does not count: programs are read from the disk, and a daemon has just started.
		first := newMeasure()
		if err := b.attach(ctx, w, 0, b.spaces[0], first); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		if err := b.removed(ctx, w, 1, first); err != nil {
			return err
		}
	}
	if err := wait(); err != nil {
		return err
	}
	for _, p := range b.spaces {
		for _, w := range t.ways {
			m := t.serial[w.name]
			begin := time.Now()
			if err := b.attach(ctx, w, 0, p, m); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			m.elapsed += time.Since(begin)
			if err := b.removed(ctx, w, 1, m); err != nil {
				return err
			}
		}
		if settled == nil { // the first trial; the kernel alone is for all
			if err := b.kernel(p); err != nil {
				return err
			}
		}
	}
	for _, w := range t.ways {
		if err := wait(); err != nil {
			return err
		}
		m := t.parallel[w.name]
		begin := time.Now()
		if err := b.attachAll(ctx, w, m); err != nil {
			return fmt.Errorf("%s, in parallel: %w", w.name, err)
		}
		m.elapsed = time.Since(begin)
		if err := b.removed(ctx, w, len(b.spaces), m); err != nil {
			return err
		}
	}
	_, err := io.WriteString(b.out, details(t, b.parallel))
	return err
}

// attach attaches and detaches a pod. It does both even if ctx ends meanwhile, for plugins that are left alone make things anew while
// the lab is removed.
func (b *bench) attach(ctx context.Context, w way, worker int, p *lab.Pod, m *measure) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lab.Patient(time.Minute))
	defer cancel()
	net := w.networks[worker%len(w.networks)]
	for _, verb := range []string{"ADD", "DEL"} {
		begin := time.Now()
		if _, err := net.Do(ctx, strings.ToLower(verb), p.Netns(), "IgnoreUnknown=1;LogicalPort="+p.Name); err != nil {
			return err
		}
		m.took(row{verb, ""}, time.Since(begin))
	}
	m.attached()
	return nil
}

// attachAll attaches and detaches all pods, some at a time.
func (b *bench) attachAll(ctx context.Context, w way, m *measure) error {
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan *lab.Pod, len(b.spaces))
	for _, p := range b.spaces {
		todo <- p
	}
	close(todo)
	for worker := range b.parallel {
		g.Go(func() error {
			for p := range todo {
				if err := b.attach(ctx, w, worker, p, m); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// removed takes down the timelines of n ports that the daemon has made and removed.
func (b *bench) removed(ctx context.Context, w way, n int, m *measure) error {
	if !w.daemon {
		return nil
	}
	for range n {
		created, removed, err := b.watch.next(ctx)
		if err != nil {
			return err
		}
		m.timeline("ADD", created)
		m.timeline("DEL", removed)
	}
	return nil
}
