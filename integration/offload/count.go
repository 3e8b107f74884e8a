package offload

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// Counts are packets of one node since it was started.
type Counts struct {
	// OVS has what entered table 0 of br-int, by the name of the port.
	OVS map[string]uint64

	// TC has what filters sent, by the name of the device. A segment that was not cut yet counts as its parts.
	TC map[string]uint64
}

// Sub returns what was counted since before.
func (c Counts) Sub(before Counts) Counts {
	d := Counts{OVS: maps.Clone(c.OVS), TC: maps.Clone(c.TC)}
	for k := range d.OVS {
		d.OVS[k] -= before.OVS[k]
	}
	for k := range d.TC {
		d.TC[k] -= before.TC[k]
	}
	return d
}

// Count reads the counters of all nodes, by the node's name. Open vSwitch forgets its datapath flows for that, since it counts
// what they forwarded when it deletes them.
func (r *Rig) Count(ctx context.Context) (map[string]Counts, error) {
	all := make([]Counts, len(r.Nodes))
	g, ctx := errgroup.WithContext(ctx)
	for i, n := range r.Nodes {
		g.Go(func() (err error) {
			if all[i].OVS, err = countOVS(ctx, n); err != nil {
				return err
			}
			all[i].TC, err = countTC(ctx, n)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	counts := map[string]Counts{}
	for i, n := range r.Nodes {
		counts[n.Name] = all[i]
	}
	return counts, nil
}

func countOVS(ctx context.Context, n *lab.Node) (map[string]uint64, error) {
	if _, err := n.AppCtl(ctx, "revalidator/purge"); err != nil {
		return nil, err
	}
	out, err := n.OFctl(ctx, "--names", "dump-flows", "br-int", "table=0")
	if err != nil {
		return nil, err
	}
	ports := map[string]uint64{}
	for _, m := range tableZero.FindAllStringSubmatch(out, -1) {
		packets, err := strconv.ParseUint(m[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("node %s: dump-flows: %w", n.Name, err)
		}
		ports[strings.Trim(m[2], `"`)] += packets
	}
	return ports, nil
}

var tableZero = regexp.MustCompile(`n_packets=(\d+),.*in_port=("[^"]*"|[^ ,]+)`)

func countTC(ctx context.Context, n *lab.Node) (map[string]uint64, error) {
	filters, err := Filters(ctx, n)
	if err != nil {
		return nil, err
	}
	names, err := Devices(n)
	if err != nil {
		return nil, err
	}
	devices := map[string]uint64{}
	for _, f := range filters {
		for i, a := range f.Filter.Actions {
			if m, ok := a.(tc.Mirred); ok && i < len(f.Actions) {
				devices[names[m.Ifindex]] += f.Actions[i].Packets
			}
		}
	}
	return devices, nil
}

// Filters lists the filters on a node that are ours, with their counters.
func Filters(ctx context.Context, n *lab.Node) (_ []*tc.Installed, err error) {
	conn, err := tc.Dial(tc.DialOptions{NetNS: "/run/netns/" + n.Netns()})
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // it has been read
	block, err := Block(ctx, conn)
	if err != nil || block == 0 {
		return nil, err
	}
	var all []*tc.Installed
	err = conn.Dump(ctx, tc.Target{Block: block}, tc.DumpOptions{}, func(f *tc.Installed) error {
		if specialize.IsOurs(f.Filter.Cookie) {
			all = append(all, f)
		}
		return nil
	})
	return all, err
}

// Block returns the number of the block that the devices share, or 0 if there is none.
func Block(ctx context.Context, conn *tc.Conn) (uint32, error) {
	qdiscs, err := conn.Qdiscs(ctx)
	if err != nil {
		return 0, err
	}
	var block uint32
	for _, q := range qdiscs {
		switch {
		case q.Block == 0:
		case block != 0 && block != q.Block:
			return 0, fmt.Errorf("devices share two blocks, %d and %d", block, q.Block)
		default:
			block = q.Block
		}
	}
	return block, nil
}

// Devices returns the names of a node's network devices by their numbers.
func Devices(n *lab.Node) (map[int]string, error) {
	ns, err := netns.GetFromName(n.Netns())
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // nothing was written
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close() //nolint:errcheck // nothing was written
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

// TunnelDevice is the device of all Geneve tunnels of a node.
const TunnelDevice = "genev_sys_6081"

// A Split says how many packets of a path took which way.
type Split struct {
	// OVS are the packets that Open vSwitch saw, where they entered the first node, and the second if there is a tunnel.
	OVS, OVSFar uint64

	// TC are the packets that filters sent to the workload, or into the tunnel and then to it.
	TC, TCFar uint64
}

// Way returns what of the counts is about the packets from one workload to another. Only their node's counters of
// tunnels are known, so nothing else may use those at the same time.
func (r *Rig) Way(counts map[string]Counts, from, to string) Split {
	a, b := r.Pod(from), r.Pod(to)
	here, there := counts[a.Node.Name], counts[b.Node.Name]
	s := Split{OVS: here.OVS[a.Iface()]}
	if a.Node == b.Node {
		s.TC = here.TC[b.Iface()]
		return s
	}
	s.TC, s.TCFar = here.TC[TunnelDevice], there.TC[b.Iface()]
	for port, packets := range there.OVS {
		if strings.HasPrefix(port, "ovn-") {
			s.OVSFar += packets
		}
	}
	return s
}
