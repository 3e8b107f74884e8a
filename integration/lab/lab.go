package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/netnsdir"
)

// Options says what to start. The zero value is the databases and ovn-northd without any node.
type Options struct {
	Nodes []NodeConfig

	// OffloaddPath is the daemon's binary. Needed if a node's agent is Offloadd.
	OffloaddPath string

	// Datapath is what forwards packets on the nodes. Empty is $OFFLOADD_DATAPATH, or System in a guest of
	// integration/vm, and Netdev elsewhere.
	Datapath Datapath

	// SBServers is the number of Southbound servers: 0 or 1 is a standalone database, more a RAFT cluster.
	SBServers int

	// TLS makes the agents reach the Southbound database as ssl:172.30.0.254:6642 with certificates whose
	// common name is the chassis name, instead of through a Unix socket.
	TLS bool

	// RBAC gives the TLS remote the role ovn-controller, so that the server refuses what a chassis may not
	// write. It implies TLS.
	RBAC bool

	// MonitorAll sets external_ids:ovn-monitor-all on every node.
	MonitorAll bool

	// Keep leaves the lab running when this process ends without Close; Sweep(true) ends it.
	Keep bool

	// Log receives a line for each step, or nothing if it is nil.
	Log io.Writer
}

// A Lab is a running deployment. Its methods may be called from several goroutines, except that one node's
// agent or daemons are started and stopped from one goroutine at a time.
type Lab struct {
	// Name is unique on this machine while the lab exists, and short, for it is part of socket paths.
	Name string

	// Dir holds everything the lab writes: central/ and one directory per node.
	Dir string

	// Nodes are in the order of Options.Nodes.
	Nodes []*Node

	opts    Options
	lock    *os.File // holds the flock that tells Sweep that the lab is in use
	spawner *spawner
	net     *space // the underlay, the management network and the databases

	mu     sync.Mutex
	daemon map[string]*process // by name, for example "sb" or "n1/ovs-vswitchd"
	pods   []*Pod
}

// The lab's networks. Node i (from 1) has host number i in each.
const (
	underlay4 = "172.31.0.%d"
	underlay6 = "fd31::%x"
	mgmt4     = "172.30.0.%d"
	centralIP = "172.30.0.254"
)

// Start builds a lab and returns when every node's Open vSwitch runs and its agent has been started; use
// Sync to wait until the agents are done. On error, and if ctx ends, nothing is left behind.
func Start(ctx context.Context, opts Options) (*Lab, error) {
	if err := checkOptions(&opts); err != nil {
		return nil, err
	}
	if err := Sweep(false); err != nil {
		return nil, err
	}
	l, err := create(opts)
	if err != nil {
		return nil, err
	}
	if err := l.start(ctx); err != nil {
		tails := l.Tails(20)
		return nil, fmt.Errorf("lab %s: %w\n%s", l.Name, errors.Join(err, l.Close()), tails)
	}
	return l, nil
}

func checkOptions(o *Options) error {
	if os.Geteuid() != 0 {
		return errors.New("lab start: network namespaces need root")
	}
	o.TLS = o.TLS || o.RBAC
	if err := o.Datapath.complete(); err != nil {
		return err
	}
	if _, err := patience(); err != nil {
		return err
	}
	names := map[string]bool{"net": true}
	for _, n := range o.Nodes {
		switch {
		case !validName(n.Name):
			return fmt.Errorf("lab start: node name %q: want 1 to %d letters, digits and dashes", n.Name, maxName)
		case names[n.Name]:
			return fmt.Errorf("lab start: node name %q: used twice", n.Name)
		case (n.Uplink == "") != (n.Wire == "") || n.Uplink != "" && (!n.Host || o.Datapath != System):
			return fmt.Errorf("lab start: node %s: uplink %q, wire %q: want both, on a host node with the kernel's datapath", n.Name, n.Uplink, n.Wire)
		case n.Agent == Offloadd && o.OffloaddPath == "":
			return fmt.Errorf("lab start: node %s: agent offloadd, but no OffloaddPath", n.Name)
		}
		names[n.Name] = true
	}
	if o.OffloaddPath != "" {
		path, err := filepath.Abs(o.OffloaddPath)
		if err != nil {
			return fmt.Errorf("lab start: %w", err)
		}
		o.OffloaddPath = path
	}
	return nil
}

// create reserves a name: the directory, and a lock on it that the kernel drops when this process ends.
func create(opts Options) (*Lab, error) {
	unlock, err := lockLabs()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := netnsdir.Share(); err != nil {
		return nil, fmt.Errorf("lab start: %w", err)
	}
	for range 1000 {
		name := fmt.Sprintf("%s%04x", namePrefix, rand.IntN(1<<16))
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("lab start: %w", err)
		}
		lock, err := os.Create(filepath.Join(dir, lockName))
		if err != nil {
			return nil, fmt.Errorf("lab start: %w", err)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			return nil, fmt.Errorf("lab start: lock %s: %w", lock.Name(), err)
		}
		if opts.Keep {
			if err := os.WriteFile(filepath.Join(dir, keepName), nil, 0o644); err != nil {
				return nil, fmt.Errorf("lab start: %w", err)
			}
		}
		return &Lab{Name: name, Dir: dir, opts: opts, lock: lock, spawner: newSpawner(), daemon: map[string]*process{}}, nil
	}
	return nil, fmt.Errorf("lab start: no free name under %s", root)
}

func (l *Lab) start(ctx context.Context) error {
	var err error
	if l.net, err = newSpace(l.Name + "-net"); err != nil {
		return err
	}
	if err := l.net.bridge("underlay", ""); err != nil {
		return err
	}
	if err := l.net.bridge("mgmt", centralIP+"/24"); err != nil {
		return err
	}
	for i, c := range l.opts.Nodes {
		l.Nodes = append(l.Nodes, newNode(l, i+1, c))
	}
	if l.opts.TLS {
		if err := l.makePKI(); err != nil {
			return err
		}
	}
	if err := l.startCentral(ctx); err != nil {
		return err
	}
	if err := l.eachNode(ctx, (*Node).start); err != nil {
		return err
	}
	return l.eachNode(ctx, func(n *Node, ctx context.Context) error {
		if err := n.resolveUnderlay(ctx); err != nil {
			return err
		}
		return n.StartAgent(n.config.Agent)
	})
}

// eachNode calls f for all nodes at the same time.
func (l *Lab) eachNode(ctx context.Context, f func(*Node, context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range l.Nodes {
		g.Go(func() error {
			if err := f(n, ctx); err != nil {
				return fmt.Errorf("node %s: %w", n.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Node returns the node of that name; it panics if there is none.
func (l *Lab) Node(name string) *Node {
	for _, n := range l.Nodes {
		if n.Name == name {
			return n
		}
	}
	panic("lab: no node " + name)
}

// Pods returns the pods added so far.
func (l *Lab) Pods() []*Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.pods)
}

// Pod returns the pod of that name; it panics if there is none.
func (l *Lab) Pod(name string) *Pod {
	for _, p := range l.Pods() {
		if p.Name == name {
			return p
		}
	}
	panic("lab: no pod " + name)
}

// spaces are the namespaces of the lab that have been made.
func (l *Lab) spaces() (all []*space) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.pods {
		all = append(all, p.space)
	}
	for _, n := range l.Nodes {
		all = append(all, n.space)
	}
	return slices.DeleteFunc(append(all, l.net), func(s *space) bool { return s == nil })
}

// Close ends every process of the lab and removes its namespaces and its directory. A second call does
// nothing.
func (l *Lab) Close() error {
	if l.lock == nil {
		return nil
	}
	l.mu.Lock()
	daemons := slices.Collect(maps.Values(l.daemon))
	l.mu.Unlock()
	for _, p := range daemons {
		p.kill() // nothing in the lab outlives it, so nobody needs a graceful end
	}
	for _, p := range daemons {
		p.wait(Patient(5 * time.Second))
	}
	l.spawner.close()
	err := Remove(l.Name)
	for _, s := range l.spaces() {
		err = errors.Join(err, s.ns.Close()) // until then it lives, with the netdevs of NICs that are in it
	}
	_ = l.lock.Close() // the file is gone already
	l.lock = nil
	return err
}

// Release gives up a lab started with Options.Keep: it goes on running without this process.
func (l *Lab) Release() {
	l.spawner.close()
}

func (l *Lab) logf(format string, args ...any) {
	if l.opts.Log != nil {
		fmt.Fprintf(l.opts.Log, format+"\n", args...)
	}
}

// Tails returns the last n lines of every daemon's log, for a failed test's output.
func (l *Lab) Tails(n int) string {
	l.mu.Lock()
	names := slices.Sorted(maps.Keys(l.daemon))
	var b []byte
	for _, name := range names {
		p := l.daemon[name]
		b = fmt.Appendf(b, "--- %s (%s): %s\n%s", name, p.state(), p.log, tail(p.log, n))
	}
	l.mu.Unlock()
	return string(b)
}

// State returns what Open vSwitch on each node says about its ports, its tunnels' neighbours and the packets
// that it forwards, for a failed test's output.
func (l *Lab) State(ctx context.Context) string {
	var b []byte
	for _, n := range l.Nodes {
		for _, argv := range [][]string{
			{"ovs-vsctl", timeoutArg(5 * time.Second), "show"},
			{"ovs-appctl", "tnl/neigh/show"},
			{"ovs-appctl", "dpctl/dump-flows"},
		} {
			out, err := n.Exec(ctx, argv...)
			if err != nil {
				out += err.Error() + "\n"
			}
			b = fmt.Appendf(b, "--- %s: %s\n%s", n.Name, strings.Join(argv, " "), out)
		}
	}
	return string(b)
}
