package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// The values of Config.Offload.
const (
	offloadDirect    = "direct"    // filters of ours
	offloadDelegated = "delegated" // of Open vSwitch
	offloadOff       = "off"
)

// tunnelDevice is the device that all Geneve tunnels of the kernel datapath share, for the port of IANA.
const tunnelDevice = "genev_sys_6081"

// A scenery is what the chains depend on besides rules. Two that are equal make equal chains of equal rules.
type scenery struct {
	ports   []sceneryPort
	tunnels []specialize.Tunnel
	geneve  ir.Field
	// idle says why there should be no chains, "": there should.
	idle string
}

type sceneryPort struct {
	ofport uint16
	iface  string
}

func (s *scenery) equal(o *scenery) bool {
	return s.geneve == o.geneve && s.idle == o.idle && slices.Equal(s.ports, o.ports) && slices.Equal(s.tunnels, o.tunnels)
}

// An offload keeps the filters of the node as the program wants them: one loop, beside that of the bridge. The agent puts in what
// it has compiled and hears up to which turn it is installed.
type offload struct {
	log *slog.Logger
	// everywhere says that devices need not be able to offload.
	everywhere bool

	// recompute asks for all rules. It waits for the agent.
	recompute func() error

	mu sync.Mutex // guards what follows
	// asleep says that no device needs filters, and no rules are kept: on most nodes of a cluster that never changes.
	asleep  bool
	batches []apply.Batch
	scenery scenery
	turn    uint64 // the last that was put
	status  offloadStatus
	current *specialize.Program
	watches []*flowWatch
	// watched is what the filters are made of that the loop wants for watches; lastFlow is the number that was given last.
	watched  []*flowWatch
	lastFlow uint32

	work    chan struct{}
	changed chan struct{}
	calls   chan func(context.Context, *offloader)
	ended   chan struct{} // closed when the loop has ended

	// dial connects those who read what the kernel has.
	dial func() (*tc.Conn, error)

	// representor reports whether a device is a port of an embedded switch.
	representor func(name string) bool
}

// offloadStatus is how far an offload has come.
type offloadStatus struct {
	AckedTurn uint64
	InForce   uint64 // the turn that no filter contradicts any more: what changes is closed, if not installed; AckedTurn or later
	Idle      string // why there are no filters, "" if there are
	Filters   apply.FilterStatus
	States    int
	Computed  time.Time     // the last specialisation, zero: none yet
	Took      time.Duration // of it
	Err       error
}

func newOffload(log *slog.Logger, everywhere bool, recompute func() error) *offload {
	return &offload{
		log: log, everywhere: everywhere, recompute: recompute,
		work: make(chan struct{}, 1), changed: make(chan struct{}, 1), calls: make(chan func(context.Context, *offloader)),
		ended: make(chan struct{}), dial: func() (*tc.Conn, error) { return tc.Dial(tc.DialOptions{}) },
		representor: isRepresentor,
	}
}

// put hands over what a turn has compiled, and the scenery. It never waits. The caller does not change b afterwards.
func (o *offload) put(b apply.Batch, s scenery) {
	o.mu.Lock()
	if b.Complete {
		o.batches = nil
	}
	if !o.asleep && (b.Complete || len(b.Replacements) > 0 || b.More) {
		o.batches = append(o.batches, b)
	}
	o.scenery, o.turn = s, b.Turn
	o.mu.Unlock()
	if !b.More {
		poke(o.work)
	}
}

// see hands over the scenery alone, if it has changed, for a turn that has compiled nothing. It reports whether it has.
func (o *offload) see(turn uint64, s scenery) bool {
	o.mu.Lock()
	changed := !o.scenery.equal(&s)
	if changed {
		o.scenery, o.turn = s, turn
	}
	o.mu.Unlock()
	if changed {
		poke(o.work)
	}
	return changed
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Status returns how far the loop has come, and the last turn that was put.
func (o *offload) Status() (s offloadStatus, put uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.status, o.turn
}

// An offloader is the loop's own state.
type offloader struct {
	*offload
	rules    *specialize.Rules
	complete bool // a complete program has been told
	open     bool // one is being told
	filters  *apply.Filters
	kernel   *tc.Caps // nil before there was a device that needs it
	obstacle string   // why the kernel cannot have filters

	done    scenery // what the program at hand was made of
	devices []specialize.Device
	fresh   bool // the program at hand is that of the rules
	desired []tc.Filter
	links   bool // devices may have changed
	needed  bool // a device has needed rules; where there is one there will be others
	nic     bool // one of the devices belongs to a NIC
	tunnel  int  // the index that the device of the tunnels has, or had when there was one; 0: none yet
	revoked revocation
}

const (
	minOffloadBackoff = 100 * time.Millisecond
	maxOffloadBackoff = 10 * time.Second

	// retireAfter is how long the end of a chain stays after nothing leads to it any more.
	retireAfter = time.Second

	// eventDelay gathers what others change, before all is read anew: until nothing has come for so long, but not longer than maxEventDelay.
	eventDelay    = 20 * time.Millisecond
	maxEventDelay = 300 * time.Millisecond
)

// Run works until ctx ends, and leaves the filters in place.
func (o *offload) Run(ctx context.Context) error {
	l := &offloader{offload: o, rules: specialize.NewRules(), filters: apply.NewFilters(o.log, o.dial), links: true}
	defer func() { _ = l.filters.Close() }()
	defer close(o.ended)
	events := make(chan tc.Event)
	go l.watch(ctx, events) // ends with ctx
	var retry, retire, again <-chan time.Time
	var latest time.Time // when it is read anew at the latest
	backoff := minOffloadBackoff
	for {
		retiring := false
		select {
		case <-ctx.Done():
			return nil
		case f := <-o.calls:
			f(ctx, l)
			continue
		case e := <-events:
			if l.concerns(e) {
				if again == nil {
					latest = time.Now().Add(maxEventDelay)
				}
				again = time.After(min(eventDelay, time.Until(latest)))
			}
			continue
		case <-again:
			again = nil
		case <-o.work:
		case <-retry:
		case <-retire:
			retiring = true
		}
		retry = nil
		status, err := l.turnOver(ctx, retiring)
		if ctx.Err() != nil {
			return nil
		}
		if retire = nil; err == nil && status.Filters.Retired > 0 {
			retire = time.After(retireAfter)
		}
		if err != nil {
			o.log.Warn("filters not installed", "err", err, "retry_in", backoff)
			retry, backoff = time.After(backoff), min(2*backoff, maxOffloadBackoff)
		} else {
			backoff = minOffloadBackoff
		}
	}
}

// watch passes on what others change in the kernel.
func (l *offloader) watch(ctx context.Context, events chan<- tc.Event) {
	for ctx.Err() == nil {
		m, err := tc.Watch(tc.MonitorOptions{Filters: true})
		for err == nil {
			var e tc.Event
			if e, err = m.Next(ctx); err != nil {
				err = errors.Join(err, m.Close())
				break
			}
			select {
			case events <- e:
			case <-ctx.Done():
			}
		}
		if ctx.Err() == nil {
			l.log.Warn("kernel events unavailable", "err", err, "retry_in", maxOffloadBackoff)
			select {
			case <-ctx.Done():
			case <-time.After(maxOffloadBackoff):
			}
		}
	}
}

// concerns reports whether an event makes the kernel differ from what is known, and notes in what.
func (l *offloader) concerns(e tc.Event) bool {
	switch e.Kind {
	case tc.Resync:
		l.filters.Forget("more events than there was room for")
		l.links = true
		return true
	case tc.FilterNew, tc.FilterGone:
		if e.Filter == nil || e.Filter.Target.Block != apply.Block || l.filters.Ours(e.Port) {
			return false
		}
		l.filters.Forget("somebody else changed " + e.Filter.Filter.String())
		return true
	case tc.QdiscNew, tc.QdiscGone:
		if l.filters.Ours(e.Port) || !slices.ContainsFunc(l.devices, func(d specialize.Device) bool { return d.Ifindex == e.Qdisc.Ifindex }) {
			return false
		}
		l.filters.Forget(fmt.Sprintf("somebody else changed the qdisc of device %d", e.Qdisc.Ifindex))
		return true
	case tc.LinkNew, tc.LinkGone:
		known := slices.ContainsFunc(l.devices, func(d specialize.Device) bool { return d.Ifindex == e.Ifindex && d.Name == e.Name })
		if known == (e.Kind == tc.LinkNew) && known {
			return false
		}
		if e.Kind == tc.LinkGone && known {
			l.filters.Gone(e.Ifindex)
		}
		wanted := e.Name == tunnelDevice || slices.ContainsFunc(l.done.ports, func(p sceneryPort) bool { return p.iface == e.Name })
		l.links = l.links || wanted || known
		return wanted || known
	}
	return false
}

// turnOver takes what is pending and installs it.
func (l *offloader) turnOver(ctx context.Context, retiring bool) (offloadStatus, error) {
	l.mu.Lock()
	batches, s, turn, status, asleep := l.batches, l.scenery, l.turn, l.status, l.asleep
	l.batches = nil
	l.mu.Unlock()
	more := false
	for _, b := range batches {
		if b.Complete {
			l.rules.Begin()
			l.open = true
		}
		for _, r := range b.Replacements {
			l.rules.Replace(specialize.Owner{Row: r.Owner.Row, Part: r.Owner.Part}, r.Rules)
		}
		l.fresh = false
		if more = b.More; l.open && !more {
			l.rules.End()
			l.open, l.complete = false, true
		}
	}
	if !asleep && (!l.complete || l.open) {
		return status, nil // not knowing is not wanting nothing
	}
	if !l.fresh || l.links || !s.equal(&l.done) {
		in := l.input(ctx, &s)
		switch {
		case len(l.devices) == 0 && !l.needed:
			l.sleep()
		case len(l.devices) > 0 && asleep:
			l.wake()
			return status, nil
		case len(l.devices) > 0:
			l.needed = true
		}
		if err := l.filters.Follow(ctx, l.devices, apply.SyncOptions{Hardware: l.nic}); err != nil {
			l.links = true
			return status, err
		}
		begin := time.Now()
		program := &specialize.Program{}
		if s.idle == "" && len(in.Ports) > 0 {
			program = l.rules.Specialize(in)
		}
		status.Computed, status.Took, status.States, status.Idle = begin, time.Since(begin), len(program.States), cmp.Or(s.idle, l.obstacle)
		if status.Idle == "" && len(l.devices) == 0 {
			status.Idle = "no device of a local port can offload"
		}
		l.done, l.fresh = s, true
		l.mu.Lock()
		l.current = program
		l.mu.Unlock()
		l.desire()
	} else if l.watchesChanged() {
		l.desire()
	}
	// A port whose flows are installed need not wait for filters: Open vSwitch has its packets as soon as no filter decides about them as
	// before.
	closed := func() {
		status.InForce = turn
		l.mu.Lock()
		l.status.InForce = turn
		l.mu.Unlock()
		poke(l.changed)
	}
	var err error
	if status.Filters, err = l.filters.Sync(ctx, l.desired, l.devices, apply.SyncOptions{Retire: retiring, Hardware: l.nic, Closed: closed}); err == nil {
		status.AckedTurn, status.InForce = turn, turn
		if status.Filters.Changed > 0 {
			l.revoked.look(ctx, l.offload, l.current, l.nic)
		}
		l.installed(&status.Filters)
	} else {
		l.links = true
	}
	status.Err = err
	l.mu.Lock()
	l.status = status
	l.mu.Unlock()
	poke(l.changed)
	return status, err
}

// sleep gives up the rules, since no device needs them.
func (l *offloader) sleep() {
	l.rules, l.complete = specialize.NewRules(), false
	l.mu.Lock()
	l.asleep, l.batches = true, nil
	l.mu.Unlock()
}

// wake asks for the rules.
func (l *offloader) wake() {
	l.links = true
	l.mu.Lock()
	l.asleep = false
	l.mu.Unlock()
	go func() { _ = l.recompute() }() // an agent that has ended needs no filters
}

// input finds the devices of the scenery, and makes what the chains are made of.
func (l *offloader) input(ctx context.Context, s *scenery) specialize.Input {
	in := specialize.Input{Geneve: s.geneve, Tunnels: s.tunnels}
	l.devices, l.links, l.nic, l.obstacle = nil, false, false, ""
	if s.idle != "" {
		return in
	}
	offloads := false
	for _, p := range s.ports {
		link, err := netlink.LinkByName(p.iface)
		if err != nil || link.Type() == "openvswitch" {
			continue // gone, or a device into which Open vSwitch itself sends: no filter can
		}
		dev := specialize.Device{Name: p.iface, Ifindex: link.Attrs().Index}
		representor := l.representor(p.iface)
		l.nic = l.nic || representor
		enter := l.everywhere || representor
		in.Ports = append(in.Ports, specialize.Port{OFPort: p.ofport, Device: dev, Enter: enter})
		if enter {
			offloads = true
			l.devices = append(l.devices, dev)
		}
	}
	if !offloads {
		return specialize.Input{}
	}
	if l.kernel == nil { // not before: to try things loads modules
		kernel := probeKernel(ctx, l.log)
		l.kernel = &kernel
	}
	if l.obstacle = l.kernel.Obstacle(); l.obstacle != "" {
		l.devices = nil
		return specialize.Input{}
	}
	if len(s.tunnels) > 0 && s.geneve != 0 {
		// A new ovs-vswitchd makes the device anew. For the time without one filters stay as they are: Open vSwitch cannot send either.
		if link, err := netlink.LinkByName(tunnelDevice); err == nil {
			l.tunnel = link.Attrs().Index
		}
		in.TunnelDevice = &specialize.Device{Name: tunnelDevice, Ifindex: l.tunnel, Tunnel: true}
		if l.tunnel != 0 {
			l.devices = append(l.devices, *in.TunnelDevice)
		}
	}
	in.Caps = shape(l.kernel, drivers(l.devices))
	return in
}

// isRepresentor reports whether a device is a port of an embedded switch.
func isRepresentor(name string) bool {
	id, err := os.ReadFile("/sys/class/net/" + name + "/phys_switch_id")
	return err == nil && len(strings.TrimSpace(string(id))) > 0
}

// scenery is what the chains depend on as the agent sees it.
func (a *Agent) scenery(local *chassis.Local, geneve ir.Field) scenery {
	s := scenery{geneve: geneve}
	b := a.sw.Bridge(local.Bridge)
	switch {
	case b == nil:
		s.idle = "there is no integration bridge"
		return s
	case b.DatapathType == "netdev":
		s.idle = "the integration bridge has the userspace datapath, which takes packets before TC does"
		return s
	case offloadsItself(a.sw.Root()):
		s.idle = "Open vSwitch offloads by itself: other_config:hw-offload is true, which is for offload: delegated"
		return s
	}
	for _, p := range local.Ports {
		s.ports = append(s.ports, sceneryPort{p.OFPort, p.Iface})
	}
	slices.SortFunc(s.ports, func(x, y sceneryPort) int { return cmp.Compare(x.ofport, y.ofport) })
	options := map[uint16]map[string]string{}
	for _, p := range a.sw.Ports(b) {
		for _, i := range a.sw.Interfaces(p) {
			if i.Ofport != nil && i.Type == "geneve" {
				options[uint16(*i.Ofport)] = i.Options
			}
		}
	}
	for _, t := range local.Tunnels {
		if x, ok := tunnelOf(t, options[t.OFPort]); ok {
			s.tunnels = append(s.tunnels, x)
		}
	}
	return s
}

// tunnelOf describes a tunnel that filters can send through; ok is false for others, whose packets are left to Open vSwitch.
func tunnelOf(t chassis.Tunnel, options map[string]string) (x specialize.Tunnel, ok bool) {
	remote, err := netip.ParseAddr(t.RemoteIP)
	if err != nil || t.OFPort == 0 || t.Type != "geneve" || options == nil {
		return x, false
	}
	for key, value := range options {
		switch key {
		case "remote_ip", "key", "csum", "local_ip":
		case "dst_port":
			ok := value == "6081"
			if !ok {
				return x, false
			}
		default: // tos, ttl, egress_pkt_mark and what else there may be
			return x, false
		}
	}
	x = specialize.Tunnel{OFPort: t.OFPort, Remote: remote, NoCSum: options["csum"] != "true"}
	if ip := options["local_ip"]; ip != "" {
		if x.Local, err = netip.ParseAddr(ip); err != nil {
			return x, false
		}
	}
	return x, options["key"] == "flow"
}

// text describes the state for people, a line for each fact.
func (s offloadStatus) lines() []string {
	if s.Idle != "" {
		return []string{"offload: none: " + s.Idle}
	}
	lines := []string{fmt.Sprintf("offload: %d filters on %d devices, %d chain states, computed in %s",
		s.Filters.Installed, s.Filters.Devices, s.States, s.Took.Round(time.Microsecond))}
	if s.Filters.Closed > 0 {
		lines = append(lines, fmt.Sprintf("offload: %d chains or devices are closed, their packets go to Open vSwitch", s.Filters.Closed))
	}
	if s.Filters.Foreign > 0 {
		lines = append(lines, fmt.Sprintf("offload: %d filters of others are left alone", s.Filters.Foreign))
	}
	if s.Filters.Shadowed > 0 {
		lines = append(lines, fmt.Sprintf("offload: %d filters are kept from the NIC, because it has not all that come before them", s.Filters.Shadowed))
	}
	for _, r := range s.Filters.Refused {
		lines = append(lines, fmt.Sprintf("offload: refused: %s: %v", r.What, r.Err))
	}
	if s.Err != nil {
		lines = append(lines, "offload: not installed: "+s.Err.Error())
	}
	return lines
}
