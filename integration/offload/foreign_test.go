package offload

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/tc"
)

// graft is for how long a device may lose packets that are sent to it when it loses a qdisc, and when it gets one: qdisc_graft of Linux 6.1
// (net/sched/sch_api.c) takes it out of service for that (dev_deactivate), also for one of ingress. A path has up to two devices on a node.
const graft = 100 * time.Millisecond

// What others take away under way comes back. Open vSwitch forwards meanwhile, so that no packet is lost where all filters of a device are
// gone. A filter that leads to a chain that is gone makes Open vSwitch take the packet for one of its own recirculations, and drop it,
// until the chain is there again. What becomes of the device of the tunnels is the business of Open vSwitch, of which 3.1 needs a restart to make it anew.
func TestForeignChanges(t *testing.T) {
	r := rig(t)
	warm(t, r)
	pin(t, r)
	n1 := r.Node("n1")
	block := fmt.Sprint(apply.Block)
	run := func(argv ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := n1.Exec(ctx, argv...)
			return err
		}
	}
	local := func(p Path) bool { return !p.Tunnel }
	none := func(Path) bool { return false }
	for _, tt := range []struct {
		name   string
		keeps  func(Path) bool // paths that lose nothing; nil: all
		times  int             // how often the others may lose packets
		most   time.Duration   // and for how long each time
		damage func(context.Context) error
	}{
		{"all filters", nil, 0, 0, run("tc", "filter", "del", "block", block)},
		{"a chain", none, 1, 2 * tunnelGap, func(ctx context.Context) error {
			filters, err := Filters(ctx, n1)
			if err != nil {
				return err
			}
			chain := filters[len(filters)/2].Filter.Chain
			return run("tc", "filter", "del", "block", block, "chain", fmt.Sprint(chain))(ctx)
		}},
		{"the qdisc of a pod", none, 2, graft, run("tc", "qdisc", "del", "dev", r.Pod("db1").Iface(), "clsact")},
		{"the qdisc of the tunnels", none, 2, graft, run("tc", "qdisc", "del", "dev", TunnelDevice, "clsact")},
		{"all qdiscs", none, 4, graft, func(ctx context.Context) error {
			for _, p := range r.Pods() {
				if p.Node != n1 {
					continue
				}
				if err := run("tc", "qdisc", "del", "dev", p.Iface(), "clsact")(ctx); err != nil {
					return err
				}
			}
			return run("tc", "qdisc", "del", "dev", TunnelDevice, "clsact")(ctx)
		}},
		{"the device of the tunnels", local, 1, 4 * tunnelGap, func(ctx context.Context) error {
			if err := run("ip", "link", "del", TunnelDevice)(ctx); err != nil {
				return err
			}
			time.Sleep(lab.Patient(500 * time.Millisecond)) // it is gone for a while
			return n1.Restart(ctx, "ovs-vswitchd")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := chains(t, n1)
			l := startLoad(t, r, streams(false))
			wantOffloaded(t, r, Paths())
			begin := time.Now()
			check(t, tt.damage(t.Context()))
			wantOffloaded(t, r, Paths())
			t.Logf("filters forward again after at most %v", time.Since(begin).Round(time.Millisecond))
			waitFor(t, "all filters to be there", func() bool {
				return slices.Equal(chains(t, n1), before)
			})
			l.stop(t)
			for _, s := range l.streams {
				if tt.keeps == nil || tt.keeps(s.Path) {
					l.wantAll(t, []stream{s}, time.Time{})
				} else {
					l.wantGaps(t, s, begin, tt.times, lab.Patient(tt.most))
				}
			}
		})
	}
}

// A pod's device goes, and one of the same name comes, for the pod that takes its place. Others lose no packet.
func TestPodDeviceReplaced(t *testing.T) {
	r := rig(t)
	warm(t, r)
	pin(t, r)
	n1, old := r.Node("n1"), r.Pod("db3")
	others := slices.DeleteFunc(streams(false), func(s stream) bool { return s.From == old.Name || s.To == old.Name })
	l := startLoad(t, r, others)
	_, err := n1.Exec(t.Context(), "ip", "link", "del", old.Iface())
	check(t, err)
	check(t, r.Sync(t.Context()))
	waitFor(t, "the filters of the device to go", func() bool {
		filters, err := Filters(t.Context(), n1)
		check(t, err)
		return !slices.ContainsFunc(filters, func(f *tc.Installed) bool { return f.Filter.Indev == old.Iface() })
	})
	check(t, old.Remove(t.Context()))
	_, err = n1.AddPod(t.Context(), old.PodConfig)
	check(t, err)
	check(t, r.Sync(t.Context()))
	l.stop(t)
	l.wantAll(t, others, time.Time{})

	warm(t, r)
	pin(t, r)
	l = startLoad(t, r, streams(false))
	wantOffloaded(t, r, Paths())
	l.stop(t)
	l.wantAll(t, l.streams, time.Time{})
}

// chains returns how many filters of ours the chains of a node have, a line for each.
func chains(t *testing.T, n *lab.Node) []string {
	t.Helper()
	filters, err := Filters(t.Context(), n)
	check(t, err)
	number := map[uint32]int{}
	for _, f := range filters {
		number[f.Filter.Chain]++
	}
	var lines []string
	for chain, n := range number {
		lines = append(lines, fmt.Sprintf("%d: %d", chain, n))
	}
	slices.Sort(lines)
	return lines
}
