package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A Node is what a run between ports asks those who forward. Errors are or wrap a *reason.Error where people can do something about them.
type Node interface {
	ledger.Watcher
	// Port finds a port of this node that is ready.
	Port(ctx context.Context, name string) (Port, error)
	// Datapath returns the flows of Open vSwitch's datapath, and for how many packets it has had none.
	Datapath(ctx context.Context) (flows []dpctl.Flow, missed uint64, err error)
	// Vswitchd returns how much CPU time ovs-vswitchd has used since it began, if that is known.
	Vswitchd() (used time.Duration, known bool)
	// Connections are the connection tracker's entries of a connection of UDP, by zone.
	Connections(ctx context.Context, src, dst netip.AddrPort) ([]result.Connection, error)
}

// A Port is a port of this node.
type Port struct {
	result.Port // without Address
	Netns       string
	Interface   string // in there
	MAC         net.HardwareAddr
	Addresses   []netip.Addr
}

// RunPorts makes a run between two ports, keeps it, and returns it as Run does. It returns an error with reason ProbeRefused if counters do not say that packets
// took the ways that they are said to have taken.
func (p *Prober) RunPorts(ctx context.Context, spec PortSpec, tell func(Progress)) ([]byte, error) {
	spec, err := spec.Validate()
	if err != nil {
		return nil, err
	}
	if p.options.Node == nil {
		return nil, reason.Errorf(reason.FeatureUnsupported, "probe: there are no ports without a daemon")
	}
	return p.make(ctx, func(ctx context.Context) (*result.Run, error) {
		c := &portCampaign{campaign: newCampaign(spec.Spec, p.options, tell), spec: spec, node: p.options.Node, clientPort: spec.dynamicPorts()}
		return c.measurePorts(ctx)
	}, tell)
}

// A portCampaign is a run between ports while it is made.
type portCampaign struct {
	campaign
	spec       PortSpec
	node       Node
	clientPort func() uint16

	ends  [2]Port // the client, and the server
	addrs [2]netip.Addr
	// hops are the Ethernet addresses to which the ends send for each other; nil: it is not known.
	hops  [2]net.HardwareAddr
	ways  []*way
	watch ledger.Watch
	lives []result.Life
}

// A way is a path of a run between ports: requests come in by the client's device, answers by the server's.
type way struct {
	result.Way
	path  engine.Path
	flows [2]ledger.Flow
}

// numbers are of the flows of a watch that has flows of ways, in order.
func numbers(ways []*way, w ledger.Watch) {
	for i, f := range w.Flows() {
		ways[i/2].flows[i%2].ID = f.ID
	}
}

func (c *portCampaign) measurePorts(ctx context.Context) (_ *result.Run, err error) {
	started := now()
	if err := c.settle(); err != nil {
		return nil, err
	}
	release, err := path.Hold(ctx, c.options.Wait)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := c.find(ctx); err != nil {
		return nil, err
	}
	before := readMachine()
	c.run = &result.Run{
		Version: result.Version, ID: started.Format("20060102-150405") + fmt.Sprintf("-%04x", rand.N(1<<16)), Started: started, Program: c.options.Program,
		Parameters: c.parameters(), Baseline: c.Baseline,
	}
	c.jobs = c.Sessions * len(c.Loads)
	if err := c.hello(ctx); err != nil {
		return nil, err
	}
	if err := c.measureLives(ctx); err != nil {
		return nil, err
	}
	if err := c.steady(ctx); err != nil {
		return nil, err
	}
	c.collect()
	c.run.Machine, c.run.Doubts = c.machine(ctx, before)
	c.run.Ended = now()
	c.run.Ports = &result.Ports{Client: c.ends[0].Port, Server: c.ends[1].Port, Lives: c.lives}
	for _, w := range c.ways {
		c.run.Ports.Ways = append(c.run.Ports.Ways, w.Way)
	}
	return c.run, c.refuse()
}

// find finds the ports, and addresses of one family.
func (c *portCampaign) find(ctx context.Context) (err error) {
	for i, name := range []string{c.spec.Client, c.spec.Server} {
		if c.ends[i], err = c.node.Port(ctx, name); err != nil {
			return err
		}
	}
	for _, family := range []int{4, 6} {
		of := func(a netip.Addr) bool { return a.Is4() == (family == 4) && !a.IsLinkLocalUnicast() }
		i, j := slices.IndexFunc(c.ends[0].Addresses, of), slices.IndexFunc(c.ends[1].Addresses, of)
		if i < 0 || j < 0 || c.spec.Family != 0 && c.spec.Family != family {
			continue
		}
		c.addrs = [2]netip.Addr{c.ends[0].Addresses[i], c.ends[1].Addresses[j]}
		for i, a := range c.addrs {
			c.ends[i].Address = a.String()
		}
		return nil
	}
	return reason.Errorf(reason.ProbeImpossible, "probe ports %s and %s: they have no addresses of the same family%s", c.spec.Client, c.spec.Server,
		[]string{4: " IPv4", 6: " IPv6", 0: "", 5: ""}[c.spec.Family])
}

// newWay returns a path with a client's port of its own.
func (c *portCampaign) newWay(name string, claim ledger.Claim) *way {
	src, dst := netip.AddrPortFrom(c.addrs[0], c.clientPort()), netip.AddrPortFrom(c.addrs[1], c.spec.Port)
	w := &way{
		Way: result.Way{Path: name, Claim: string(claim)},
		path: engine.Path{
			Name:   name,
			Client: engine.End{Netns: c.ends[0].Netns, Addr: src.Addr(), Port: src.Port()},
			Server: engine.End{Netns: c.ends[1].Netns, Addr: dst.Addr(), Port: dst.Port()},
		},
	}
	for i, ends := range [2][2]netip.AddrPort{{src, dst}, {dst, src}} {
		w.flows[i] = ledger.Flow{
			Device: c.ends[i].Device, Proto: 17, Src: ends[0], Dst: ends[1], SrcMAC: c.ends[i].MAC, DstMAC: c.hops[i], Punt: claim == ledger.ByOVS,
		}
		w.Accounts[i] = result.Account{Flow: fmt.Sprintf("udp %v > %v", ends[0], ends[1]), Device: c.ends[i].Device}
	}
	return w
}

// claim is what is said of the path through filters.
func (c *portCampaign) claim() ledger.Claim {
	if c.ends[0].NIC && c.ends[1].NIC {
		return ledger.ByHardware
	}
	return ledger.ByFilters
}

// hello sends the first packets, with which the ends get to know each other, and learns where they send for each other.
func (c *portCampaign) hello(ctx context.Context) error {
	c.say("asking for an answer", 0, 0)
	w := c.newWay("hello", c.claim())
	job := engine.Job{
		Paths: []engine.Path{w.path}, Load: result.Load{Mode: result.RR, Transport: "udp", Size: c.Loads[0].Size}, Rounds: 1, Burst: 3,
		Timeout: c.Timeout, CPUs: c.cpus,
	}
	outcomes, err := engine.Run(ctx, job, nil)
	if err != nil {
		return err
	}
	if why := outcomes[0].Error; why != "" {
		return reason.Errorf(reason.ProbeImpossible, "probe ports %s and %s: %s; UDP to port %d has to pass, from any port, and the answers",
			c.spec.Client, c.spec.Server, why, c.spec.Port)
	}
	for i := range c.ends {
		c.hops[i] = nextHop(c.ends[i].Netns, c.addrs[1-i])
	}
	return nil
}

// watchWays makes the filters of ways.
func (c *portCampaign) watchWays(ctx context.Context, ways []*way) (ledger.Watch, error) {
	var flows []ledger.Flow
	for _, w := range ways {
		flows = append(flows, w.flows[:]...)
	}
	watch, err := c.node.Watch(ctx, flows)
	if err != nil {
		return nil, err
	}
	numbers(ways, watch)
	return watch, nil
}

const (
	// assured is how long packets have to pass both ways before the connection tracker lets hardware have a connection of UDP: it
	// is assured if packets pass two seconds after the first one (nf_conntrack_udp_packet in nf_conntrack_proto_udp.c).
	assured = 2500 * time.Millisecond
	// patienceOfCounters is how long is waited for counters that do not say yet what has become of all packets: drivers read them once a second, and less often.
	patienceOfCounters = 5 * time.Second
	betweenReadings    = 100 * time.Millisecond
)

// steady measures the loads on all paths.
func (c *portCampaign) steady(ctx context.Context) (err error) {
	for i, name := range portPaths {
		claim := ledger.ByOVS
		if i == 0 {
			claim = c.claim()
		}
		c.ways = append(c.ways, c.newWay(name, claim))
		twin := ""
		if i == 2 {
			twin = portPaths[1]
		}
		c.run.Paths = append(c.run.Paths, result.Path{
			Name: name, Kind: c.ends[0].Kind, Twin: twin, About: wayAbout(claim),
			Facts: map[string]string{"client": c.ends[0].Name + " " + c.ends[0].Device, "server": c.ends[1].Name + " " + c.ends[1].Device},
		})
	}
	if c.watch, err = c.watchWays(ctx, c.ways); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.watch.Close()) }()
	c.notes = map[string]bool{}
	for range c.Loads {
		c.sessions, c.segments, c.failed = append(c.sessions, map[string][]result.Session{}), append(c.segments, map[string][]result.Session{}), append(c.failed, map[string]string{})
	}
	c.say("warming up", 0, 0)
	warm := engine.Job{
		Paths: c.enginePaths(), Load: result.Load{Mode: result.RR, Transport: "udp", Size: c.Loads[0].Size, Duration: assured}, Burst: 1,
		Timeout: c.Timeout, CPUs: c.cpus,
	}
	if _, err := engine.Run(ctx, warm, nil); err != nil {
		return err
	}
	again := 0
	for session := 0; session < c.Sessions; session++ {
		for i := range c.Loads {
			ok, err := c.measureSession(ctx, i, session)
			if err != nil {
				return err
			}
			if !ok {
				if again++; again > c.Sessions {
					return reason.Errorf(reason.ProbeRefused, "probe: filters change all the time: %d sessions were lost to it", again)
				}
				session-- // all loads of it, which come one after the other
				break
			}
		}
	}
	for _, w := range c.ways {
		w.Connections, err = c.node.Connections(ctx, w.flows[0].Src, w.flows[0].Dst)
		if err != nil {
			return err
		}
	}
	return nil
}

func wayAbout(claim ledger.Claim) string {
	switch claim {
	case ledger.ByHardware:
		return "port, filters in hardware, port"
	case ledger.ByFilters:
		return "port, TC filters in software, port"
	case ledger.ByOVS:
		return "port, Open vSwitch's datapath, port"
	}
	panic("probe: a claim that nobody makes: " + string(claim))
}

func (c *portCampaign) enginePaths() (all []engine.Path) {
	for _, w := range c.ways {
		all = append(all, w.path)
	}
	return all
}

// A reading is all that counts at one moment.
type reading struct {
	counts  map[uint32]ledger.Counts
	changes int
	mega    [2]map[string]uint64 // by device
	missed  uint64
}

func (c *portCampaign) read(ctx context.Context, watch ledger.Watch, ways []*way) (r reading, err error) {
	if r.counts, r.changes, err = watch.Read(ctx); err != nil {
		return r, err
	}
	flows, missed, err := c.node.Datapath(ctx)
	if err != nil {
		return r, err
	}
	r.missed = missed
	for i := range r.mega {
		var mine []ledger.Flow
		for _, w := range ways {
			mine = append(mine, w.flows[i])
		}
		r.mega[i] = ledger.Megaflows(flows, c.ends[i].Device, mine)
	}
	return r, nil
}

// measureSession measures one load on all paths, and accounts for the packets. It reports false if filters have changed meanwhile: then nothing of it counts.
func (c *portCampaign) measureSession(ctx context.Context, load, session int) (ok bool, err error) {
	l := c.Loads[load]
	job := c.job(l, len(c.ways))
	job.Paths, job.CPUs, job.Priority = c.enginePaths(), c.cpus, c.priority
	job.Seed = c.Seed + uint64(session*len(c.Loads)+load)
	c.say(l.String(), session+1, float64(c.done)/float64(c.jobs))
	before, err := c.read(ctx, c.watch, c.ways)
	if err != nil {
		return false, err
	}
	outcomes, err := engine.Run(ctx, job, func(e engine.Event) {
		switch {
		case e.Progress != nil:
			c.say(l.String(), session+1, (float64(c.done)+e.Progress.Fraction)/float64(c.jobs))
		case e.Note != "":
			c.notes[e.Note] = true
		}
	})
	if err != nil {
		return false, err
	}
	sent := make([][2]int64, len(c.ways))
	for i, o := range outcomes {
		if o.Session == nil {
			return false, reason.Errorf(reason.ProbeImpossible, "probe path %s, %s: %s", o.Path, l, o.Error)
		}
		sent[i] = o.Session.Packets
	}
	ok, err = c.post(ctx, c.watch, c.ways, sent, before)
	if !ok || err != nil {
		return false, err
	}
	c.done++
	for _, o := range outcomes {
		c.sessions[load][o.Path] = append(c.sessions[load][o.Path], *o.Session)
	}
	return true, nil
}

// post enters in the accounts of ways what was counted since a reading, when it accounts for all packets, or does not for too long.
func (c *portCampaign) post(ctx context.Context, watch ledger.Watch, ways []*way, sent [][2]int64, before reading) (ok bool, err error) {
	for begun := time.Now(); ; {
		after, err := c.read(ctx, watch, ways)
		if err != nil {
			return false, err
		}
		accounts := make([][2]result.Account, len(ways))
		same, closed := after.changes == before.changes, true
		missed := after.missed - before.missed
		for side := range 2 {
			var mine []*result.Account
			var left []uint64
			for i, w := range ways {
				id := w.flows[side].ID
				counts, more := after.counts[id].Since(before.counts[id])
				same = same && more
				a := w.Accounts[side]
				unexplained := a.Unexplained
				ledger.Post(&a, uint64(sent[i][side]), counts)
				closed = closed && a.Unexplained == unexplained
				accounts[i][side] = a
				mine, left = append(mine, &accounts[i][side]), append(left, counts.Left.Software)
			}
			missed = ledger.PostDatapath(mine, left, ledger.Counted(before.mega[side], after.mega[side]), missed)
		}
		if !same {
			return false, nil
		}
		if closed || time.Since(begun) > patienceOfCounters {
			for i, w := range ways {
				w.Accounts = accounts[i]
			}
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(betweenReadings):
		}
	}
}

// refuse says which ways are not those that are claimed.
func (c *portCampaign) refuse() error {
	var why []string
	for _, w := range c.ways {
		for side := range w.Accounts {
			if text := ledger.Refuse(ledger.Claim(w.Claim), &w.Accounts[side]); text != "" {
				why = append(why, w.Path+", "+text)
			}
		}
	}
	if len(why) == 0 {
		return nil
	}
	return reason.Errorf(reason.ProbeRefused, "probe: counters do not say what is claimed: %s", strings.Join(why, "; "))
}
