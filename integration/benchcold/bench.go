package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
)

// agents are in the order in which they take turns; the reference is first.
var agents = []lab.Agent{lab.OVNController, lab.Offloadd}

// limit bounds a single start.
const limit = 5 * time.Minute

// A bench is a lab with one chassis and full databases.
type bench struct {
	lab   *lab.Lab
	node  *lab.Node
	nbCfg int
	flows map[lab.Agent]int // how many flows each agent installs in the end
}

func start(ctx context.Context, opts lab.Options) (*bench, error) {
	l, err := lab.Start(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &bench{lab: l, node: l.Nodes[0], flows: make(map[lab.Agent]int)}, nil
}

// fill writes the contents, lets each agent start once, so that every row the agents and ovn-northd tell each
// other is there, and stops ovn-northd. It returns the number of logical flows.
func (b *bench) fill(ctx context.Context, z size) (lflows int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*limit)
	defer cancel()
	for _, script := range z.northbound() {
		if _, err := b.lab.NB(ctx, script); err != nil {
			return 0, err
		}
	}
	if _, err := b.lab.NB(ctx, "--wait=sb sync"); err != nil {
		return 0, err
	}
	for _, script := range z.southbound() {
		if _, err := b.lab.SB(ctx, script); err != nil {
			return 0, err
		}
	}
	var add []string
	for s := range z.switches {
		for p := range z.ports {
			if z.isLocal(s, p) {
				add = append(add, "--", "add-port", "br-int", port(s, p),
					"--", "set", "interface", port(s, p), "type=internal", "external_ids:iface-id="+port(s, p))
			}
		}
	}
	if len(add) > 0 {
		if _, err := b.node.VSctl(ctx, add[1:]...); err != nil {
			return 0, err
		}
	}
	for _, agent := range agents {
		if err := b.empty(ctx); err != nil {
			return 0, err
		}
		if err := b.node.StartAgent(agent); err != nil {
			return 0, err
		}
		if err := b.lab.Sync(ctx); err != nil {
			return 0, fmt.Errorf("%s: %w", agent, err)
		}
		if b.flows[agent], err = b.settled(ctx); err != nil {
			return 0, err
		}
		if err := b.node.StopAgent(syscall.SIGTERM); err != nil {
			return 0, err
		}
	}
	if err := b.lab.Stop("northd"); err != nil {
		return 0, err
	}
	out, err := b.lab.SB(ctx, "get sb_global . nb_cfg")
	if err != nil {
		return 0, err
	}
	if b.nbCfg, err = strconv.Atoi(strings.TrimSpace(out)); err != nil {
		return 0, fmt.Errorf("nb_cfg: %w", err)
	}
	out, err = b.lab.SB(ctx, "--bare --columns=priority list logical_flow")
	return len(strings.Fields(out)), err
}

// empty removes every flow, group and meter from the bridge.
func (b *bench) empty(ctx context.Context) error {
	for _, command := range []string{"del-flows", "del-groups", "del-meters"} {
		if _, err := b.node.OFctl(ctx, command, "br-int"); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until neither the number of flows nor the agent's CPU time has changed for half a second, and
// returns the number of flows.
func (b *bench) settled(ctx context.Context) (int, error) {
	type state struct {
		flows int
		usage usage
	}
	var last state
	since := time.Now()
	err := every(ctx, 50*time.Millisecond, func() (bool, error) {
		var now state
		var err error
		if now.flows, err = b.node.Flows(ctx, "br-int"); err != nil {
			return false, err
		}
		if now.usage, err = readUsage(b.node.AgentPID()); err != nil {
			return false, err
		}
		// An idle agent needs a tick now and then.
		if now.flows != last.flows || now.usage.cpu > last.usage.cpu+20*time.Millisecond {
			last, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond, nil
	})
	return last.flows, err
}

// every asks cond at once and then every d until it holds or fails, or ctx ends.
func every(ctx context.Context, d time.Duration, cond func() (bool, error)) error {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		if ok, err := cond(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// A result is one start.
type result struct {
	acknowledged time.Duration // until Chassis_Private.nb_cfg has the new value
	complete     time.Duration // until every flow is there too; looked up every 20 ms
	cpu          time.Duration // the agent's, until it is idle
	peak         int           // the agent's largest resident set, in bytes
	flows        int
	early        int // flows that were still missing at the acknowledgement
}

func (r result) String() string {
	s := fmt.Sprintf("acknowledged %.3f s, complete %.3f s, CPU %.2f s, peak %.0f MB, %d flows",
		r.acknowledged.Seconds(), r.complete.Seconds(), r.cpu.Seconds(), float64(r.peak)/1e6, r.flows)
	if r.early > 0 {
		s += fmt.Sprintf(" (%d missing when acknowledged)", r.early)
	}
	return s
}

// measure starts an agent on an empty bridge with a new nb_cfg to acknowledge.
func (b *bench) measure(ctx context.Context, agent lab.Agent) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := b.empty(ctx); err != nil {
		return result{}, err
	}
	b.nbCfg++
	if _, err := b.lab.SB(ctx, fmt.Sprintf("set sb_global . nb_cfg=%d\nset chassis_private n1 nb_cfg=0", b.nbCfg)); err != nil {
		return result{}, err
	}
	acknowledged, err := b.watch(ctx)
	if err != nil {
		return result{}, err
	}

	var r result
	began := time.Now()
	if err := b.node.StartAgent(agent); err != nil {
		return result{}, err
	}
	defer b.node.StopAgent(syscall.SIGTERM) //nolint:errcheck // stopped below; this is for the ways out before
	select {
	case at, ok := <-acknowledged:
		if !ok {
			return result{}, fmt.Errorf("nb_cfg %d not acknowledged: %w", b.nbCfg, context.Cause(ctx))
		}
		r.acknowledged = at.Sub(began)
	case <-ctx.Done():
		return result{}, fmt.Errorf("nb_cfg %d not acknowledged: %w", b.nbCfg, context.Cause(ctx))
	}
	want := b.flows[agent]
	r.complete = r.acknowledged
	err = every(ctx, 20*time.Millisecond, func() (bool, error) {
		n, err := b.node.Flows(ctx, "br-int")
		switch {
		case err != nil:
			return false, err
		case n < want && r.early == 0:
			r.early = want - n
		case n >= want && r.early > 0:
			r.complete = time.Since(began)
		}
		return n >= want, nil
	})
	if err != nil {
		return result{}, fmt.Errorf("%d flows: %w", want, err)
	}
	if r.flows, err = b.settled(ctx); err != nil {
		return result{}, err
	}
	u, err := readUsage(b.node.AgentPID())
	if err != nil {
		return result{}, err
	}
	r.cpu, r.peak = u.cpu, u.peak
	return r, b.node.StopAgent(syscall.SIGTERM)
}

// watch returns a channel that receives the time at which the chassis acknowledges the current nb_cfg. It is closed
// without a value when ctx ends. The first contents have been read when watch returns.
func (b *bench) watch(ctx context.Context) (<-chan time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	client, err := ovsdb.New(ovsdb.Config{
		Database: "OVN_Southbound",
		Remotes:  strings.Split(b.lab.SBRemote(), ","),
		Tables:   []ovsdb.Table{{Name: sbdb.ChassisPrivateTable, Row: sbdb.ChassisPrivate{}, Columns: []string{"name", "nb_cfg"}}},
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		cancel()
		return nil, err
	}
	synced, acknowledged := make(chan struct{}), make(chan time.Time, 1)
	go func() { // ends with ctx, at the latest when the run does
		_ = client.Run(ctx) // ends with ctx only
	}()
	go func(nbCfg int) { // likewise
		defer cancel()
		defer close(acknowledged)
		open := true
		for {
			select {
			case <-ctx.Done():
				return
			case u := <-client.Updates():
				if u.Synced && open {
					close(synced)
					open = false
				}
				for _, c := range u.Changes {
					if row, ok := c.New.(*sbdb.ChassisPrivate); ok && row.Name == "n1" && row.NbCfg == nbCfg {
						acknowledged <- time.Now()
						return
					}
				}
			}
		}
	}(b.nbCfg)
	select {
	case <-synced:
		return acknowledged, nil
	case <-ctx.Done():
		cancel()
		return nil, fmt.Errorf("watch Chassis_Private: %w", context.Cause(ctx))
	}
}

// usage is what a process has used.
type usage struct {
	cpu  time.Duration // user and system time of all threads
	peak int           // bytes
}

// readUsage reads /proc/PID/stat and the VmHWM line of /proc/PID/status; see proc(5).
func readUsage(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return usage{}, err
	}
	return parseUsage(string(stat), string(status))
}

// tick is the unit of CPU times in /proc, USER_HZ.
const tick = 10 * time.Millisecond

func parseUsage(stat, status string) (usage, error) {
	// The second field is the program's name in parentheses and may hold anything; utime and stime are 14th and 15th.
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 13 {
		return usage{}, fmt.Errorf("proc stat %q: too short", stat)
	}
	utime, err := strconv.Atoi(fields[11])
	if err != nil {
		return usage{}, fmt.Errorf("proc stat: utime: %w", err)
	}
	stime, err := strconv.Atoi(fields[12])
	if err != nil {
		return usage{}, fmt.Errorf("proc stat: stime: %w", err)
	}
	_, rest, ok := strings.Cut(status, "VmHWM:")
	words := strings.Fields(rest)
	if !ok || len(words) < 2 || words[1] != "kB" {
		return usage{}, fmt.Errorf("proc status: no VmHWM in kB")
	}
	peak, err := strconv.Atoi(words[0])
	if err != nil {
		return usage{}, fmt.Errorf("proc status: VmHWM: %w", err)
	}
	return usage{cpu: time.Duration(utime+stime) * tick, peak: peak * 1024}, nil
}
