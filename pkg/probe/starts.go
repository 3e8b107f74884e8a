package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/train"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A Maker makes ports, as for a container runtime. Errors are or wrap a *reason.Error where people can do something about them. It may be used from many goroutines.
type Maker interface {
	// Spare finds a logical port that no port is of, or says why none can be made of it (LPortInUse if somebody has it).
	Spare(ctx context.Context, name, target string) (Spare, error)
	// Make returns when the port is made and its flows are installed, and undoes everything if it fails. It calls known once, when it is decided what the host's
	// device is.
	Make(ctx context.Context, p NewPort, known func(device string)) (Made, error)
	// Unmake returns when nothing is left of it.
	Unmake(ctx context.Context, p NewPort) error
	// Clear unmakes all that Make has made, now or for a daemon before, and returns their names.
	Clear(ctx context.Context) ([]string, error)
}

// A Spare is a logical port that no port is of.
type Spare struct {
	Name      string
	MAC       net.HardwareAddr
	Addresses []netip.Addr
	// Near says that it is on the logical switch of the target.
	Near bool
}

// A NewPort is to be made.
type NewPort struct {
	Netns       path.Netns
	LogicalPort string
	Kind, Pool  string
	// To is the target's address, and Via the router to it; invalid: it is on the link.
	To, Via netip.Addr
}

// StartDevice is the interface of a NewPort, in its network namespace.
const StartDevice = "eth0"

// Made is when a port had come so far.
type Made struct {
	Configured time.Time // its interface has its addresses and is up
	Installed  time.Time // its flows are
}

const (
	// lookInterval is how often counters are looked at.
	lookInterval = 10 * time.Millisecond
	// settled is for how long counters of a NIC have to stay as they are, after the last packet, to be final: drivers read them once a second.
	settled = 1500 * time.Millisecond
	// spareTime is how long a logical port may take to be nobody's again.
	spareTime = 10 * time.Second
	// unmakeTime is how long a port may take to be removed when a run is given up.
	unmakeTime = time.Minute
)

// RunStarts makes a run in which ports are made, used and deleted, keeps it, and returns it as Run does.
func (p *Prober) RunStarts(ctx context.Context, spec StartSpec, tell func(Progress)) ([]byte, error) {
	spec, err := spec.Validate()
	if err != nil {
		return nil, err
	}
	if p.options.Node == nil || p.options.Maker == nil {
		return nil, reason.Errorf(reason.FeatureUnsupported, "probe: there are no ports without a daemon")
	}
	return p.make(ctx, func(ctx context.Context) (*result.Run, error) {
		c := &startCampaign{
			campaign: newCampaign(Spec{Seed: spec.Seed}, p.options, tell), spec: spec, node: p.options.Node, maker: p.options.Maker,
			clientPort: PortSpec{Port: spec.Port}.dynamicPorts(), never: map[string]map[string]string{},
		}
		c.cpus = [2]int{-1, -1}
		return c.measureStarts(ctx)
	}, tell)
}

// A startCampaign is such a run while it is made.
type startCampaign struct {
	campaign
	spec       StartSpec
	node       Node
	maker      Maker
	clientPort func() uint16

	target  Port
	to      netip.AddrPort
	spares  []Spare
	from    []netip.Addr // of the spares, of the target's family
	next    int          // of the spares
	number  int          // of the next network namespace
	trains  *train.Process
	filters string                       // why there are none; empty: there are
	never   map[string]map[string]string // by kind, steps that are not waited for, and why
	failed  int
}

func (c *startCampaign) measureStarts(ctx context.Context) (_ *result.Run, err error) {
	started := now()
	release, err := path.Hold(ctx, c.options.Wait)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if _, err := c.maker.Clear(ctx); err != nil {
		return nil, err
	}
	if err := c.find(ctx); err != nil {
		return nil, err
	}
	if err := c.findFilters(ctx); err != nil {
		return nil, err
	}
	c.trains, err = train.Start(ctx, train.End{Netns: c.target.Netns, At: c.to})
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, reason.Errorf(reason.ProbeImpossible, "probe port %s: %w", c.spec.Target, err)
	}
	defer c.trains.Close()
	before := readMachine()
	c.run = &result.Run{
		Version: result.Version, ID: started.Format("20060102-150405") + fmt.Sprintf("-%04x", rand.N(1<<16)), Started: started, Program: c.options.Program,
		Parameters: result.Parameters{CPUs: c.cpus, Seed: c.spec.Seed},
		Starts: &result.Starts{
			Target: c.target.Port, Ports: c.spec.Ports, Wait: c.spec.Wait, Interval: c.spec.Interval, NoFilters: printable(c.filters),
		},
	}
	if err := c.rehearse(ctx); err != nil {
		return nil, err
	}
	if err := c.measureBatches(ctx); err != nil {
		return nil, err
	}
	c.run.Machine, c.run.Doubts = c.machine(ctx, before)
	c.run.Ended = now()
	return c.run, nil
}

// find finds the target and the logical ports, and addresses of one family.
func (c *startCampaign) find(ctx context.Context) (err error) {
	if c.target, err = c.node.Port(ctx, c.spec.Target); err != nil {
		return err
	}
	for _, name := range c.spec.Ports {
		s, err := c.maker.Spare(ctx, name, c.spec.Target)
		if err != nil {
			return err
		}
		if !s.Near && !c.spec.Gateway.IsValid() {
			return reason.Errorf(reason.ProbeImpossible, "probe port %s: it is not on the logical switch of %s: a gateway is needed", name, c.spec.Target).With("port", name)
		}
		c.spares = append(c.spares, s)
	}
	for _, family := range []int{4, 6} {
		usable := func(a netip.Addr) bool { return a.Is4() == (family == 4) && !a.IsLinkLocalUnicast() }
		i := slices.IndexFunc(c.target.Addresses, usable)
		if i < 0 || c.spec.Family != 0 && c.spec.Family != family || c.spec.Gateway.IsValid() && c.spec.Gateway.Is4() != (family == 4) {
			continue
		}
		c.from = nil
		for _, s := range c.spares {
			if i := slices.IndexFunc(s.Addresses, usable); i >= 0 {
				c.from = append(c.from, s.Addresses[i])
			}
		}
		if len(c.from) == len(c.spares) {
			c.to = netip.AddrPortFrom(c.target.Addresses[i], c.spec.Port)
			c.target.Address = c.to.Addr().String()
			return nil
		}
	}
	return reason.Errorf(reason.ProbeImpossible, "probe port %s: it and all ports have no addresses of the same family, or not of that of the gateway", c.spec.Target)
}

// findFilters finds out whether there can be filters, or why not.
func (c *startCampaign) findFilters(ctx context.Context) error {
	f := c.flow(c.target.Device, c.to, netip.AddrPortFrom(c.from[0], c.clientPort()), nil, nil)
	f.Await = false
	w, err := c.node.Watch(ctx, []ledger.Flow{f})
	switch {
	case err == nil:
		return w.Close()
	case reason.Of(err) == reason.FeatureUnsupported || reason.Of(err) == reason.ProbeImpossible:
		c.filters = err.Error()
		return nil
	}
	return err
}

func (c *startCampaign) flow(device string, src, dst netip.AddrPort, srcMAC, dstMAC net.HardwareAddr) ledger.Flow {
	return ledger.Flow{Device: device, Proto: 17, Src: src, Dst: dst, SrcMAC: srcMAC, DstMAC: dstMAC, Await: true}
}

// steps are those that starts of a kind are waited for, besides the first answer.
func (c *startCampaign) steps(kind string) (all []string) {
	if c.filters == "" {
		all = []string{result.StepFilters, result.StepFiltersBack}
		if kind != "veth" && c.target.NIC {
			all = append(all, result.StepHardware, result.StepHardwareBack)
		}
	}
	return slices.DeleteFunc(all, func(step string) bool { return c.never[kind][step] != "" })
}

// rehearse makes one batch of each kind that does not count: what is refused here ends the run, and how far none comes is not waited for later.
func (c *startCampaign) rehearse(ctx context.Context) error {
	n := slices.Max(c.spec.Parallel)
	for _, kind := range c.spec.Kinds {
		c.say(fmt.Sprintf("rehearsal of %s", kind), 0, 0)
		never := map[string]string{}
		for _, step := range []string{result.StepHardware, result.StepHardwareBack} {
			switch {
			case kind == "veth":
				never[step] = "a veth is no NIC's"
			case !c.target.NIC:
				never[step] = fmt.Sprintf("%s, which is port %s, is no NIC's", c.target.Device, c.target.Name)
			}
		}
		c.never[kind] = never
		b, err := c.batch(ctx, kind, n, 0)
		if err != nil {
			return err
		}
		for _, s := range b {
			if s.err != nil {
				return s.err
			}
			if s.out.Answered == 0 {
				return reason.Errorf(reason.ProbeImpossible, "probe: port %s, made of %s, has no answer from %s in %v; UDP to port %d has to pass, from any port, and the answers",
					s.spare.Name, kind, c.to, c.spec.Wait, c.spec.Port)
			}
		}
		for _, step := range c.steps(kind) {
			if !slices.ContainsFunc(b, func(s *start) bool { at, _ := s.out.At(step); return at > 0 }) {
				never[step] = fmt.Sprintf("not one of %d came so far in %v, before what counts", n, c.spec.Wait)
				for _, s := range b {
					if why := cmp.Or(s.out.Requests.Unknown, s.out.Answers.Unknown); why != "" {
						never[step] = why
					}
				}
			}
		}
	}
	return nil
}

// measureBatches makes all batches, in random order.
func (c *startCampaign) measureBatches(ctx context.Context) error {
	var order []*result.StartCase
	total := 0
	cases := make([]result.StartCase, 0, len(c.spec.Kinds)*len(c.spec.Parallel))
	for _, kind := range c.spec.Kinds {
		for _, n := range c.spec.Parallel {
			p := result.Path{Name: kind, Kind: kind, About: "a new port of kind " + kind}
			if n > 1 {
				p.Name, p.About = fmt.Sprintf("%s x%d", kind, n), fmt.Sprintf("%d new ports of kind %s at once", n, kind)
			}
			c.run.Paths = append(c.run.Paths, p)
			cases = append(cases, result.StartCase{Path: p.Name, Kind: kind, Parallel: n, Never: c.never[kind]})
			for range (c.spec.Count + n - 1) / n {
				order = append(order, &cases[len(cases)-1])
				total += n
			}
		}
	}
	c.run.Baseline = c.run.Paths[0].Name
	random := rand.New(rand.NewPCG(c.spec.Seed, 0))
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for i, cs := range order {
		c.say(fmt.Sprintf("%s, %d of %d", cs.Path, i+1, len(order)), 0, float64(i)/float64(len(order)))
		b, err := c.batch(ctx, cs.Kind, cs.Parallel, float64(i)/float64(len(order)))
		if err != nil {
			return err
		}
		var batch result.Batch
		for _, s := range b {
			if s.err != nil {
				s.out.Failed = printable(s.err.Error())
				if c.failed++; c.failed > max(5, total/10) {
					return fmt.Errorf("probe: %d starts have failed, the last: %w", c.failed, s.err)
				}
			}
			batch.Starts = append(batch.Starts, s.out)
		}
		cs.Batches = append(cs.Batches, batch)
	}
	c.run.Starts.Cases = cases
	return nil
}

// batch makes ports at once, follows them, and deletes them at once. What becomes of one port is in its start; an error is of the run.
func (c *startCampaign) batch(ctx context.Context, kind string, n int, fraction float64) (all []*start, err error) {
	defer func() {
		for _, s := range all {
			err = errors.Join(err, s.close(ctx))
		}
	}()
	for range n {
		s := &start{c: c, steps: c.steps(kind)}
		all = append(all, s)
		if err := s.prepare(ctx, kind); err != nil {
			return all, err
		}
	}
	for _, part := range []func(*start, context.Context){(*start).follow, (*start).unwatch, (*start).unmake} {
		if err := c.together(ctx, all, fraction, part); err != nil {
			return all, err
		}
	}
	return all, nil
}

// together does a part of all starts at the same time, and tells meanwhile that it is still at it.
func (c *startCampaign) together(ctx context.Context, all []*start, fraction float64, part func(*start, context.Context)) error {
	var going sync.WaitGroup
	for _, s := range all {
		going.Go(func() { part(s, ctx) })
	}
	done := make(chan struct{})
	go func() { // ends with them
		going.Wait()
		close(done)
	}()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return c.broken(all)
		case <-tick.C:
			c.say(fmt.Sprintf("%s, %d at once", all[0].port.Kind, len(all)), 0, fraction)
		}
	}
}

// broken is why a run cannot go on.
func (c *startCampaign) broken(all []*start) error {
	for _, s := range all {
		if s.broken != nil {
			return s.broken
		}
	}
	return nil
}
