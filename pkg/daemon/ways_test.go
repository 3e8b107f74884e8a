package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/monitor"
	"github.com/offloadd/offloadd/pkg/probe/pinger"
)

// counters is a ledger.Watcher whose filters count what tests say.
type counters struct {
	last    uint32
	open    map[*counting]bool
	counts  map[string]ledger.Counts // by destination
	changes int
	refused string // device
}

type counting struct {
	all   *counters
	flows []ledger.Flow
}

func (c *counters) Watch(_ context.Context, flows []ledger.Flow) (ledger.Watch, error) {
	w := &counting{c, slices.Clone(flows)}
	for i := range w.flows {
		c.last++
		w.flows[i].ID = c.last
		if err := w.flows[i].Check(); err != nil {
			return nil, err
		}
		if w.flows[i].Device == c.refused {
			return nil, errors.New("refused")
		}
	}
	c.open[w] = true
	return w, nil
}

func (w *counting) Flows() []ledger.Flow { return w.flows }

func (w *counting) Read(context.Context) (map[uint32]ledger.Counts, int, error) {
	counts := map[uint32]ledger.Counts{}
	for _, f := range w.flows {
		counts[f.ID] = w.all.counts[f.Dst.String()]
	}
	return counts, w.all.changes, nil
}

func (w *counting) Close() error {
	delete(w.all.open, w)
	return nil
}

// A look tells what was counted since the one before, by the device of the port that sends; what it cannot know it does not.
func TestWays(t *testing.T) {
	feed := ports.NewFeed()
	for i, name := range []string{"a", "b"} {
		feed.Put(ports.Port{Spec: ports.Spec{Key: ports.Key{ContainerID: name}, LogicalPort: name}, HostInterface: fmt.Sprintf("dev%d", i)})
	}
	c := &counters{open: map[*counting]bool{}, counts: map[string]ledger.Counts{}}
	w := &ways{
		watcher: c, feed: feed, watches: map[string]*waysOf{}, nic: func(device string) bool { return device == "dev1" },
		tracked: func(_ context.Context, flows []monitor.Flow) ([]monitor.Tracked, error) {
			all := make([]monitor.Tracked, len(flows))
			for i, f := range flows {
				if f.Answers {
					all[i] = monitor.Tracked{Zones: 1}
				}
			}
			return all, nil
		},
	}
	flow := func(from, to string, n byte) monitor.Flow {
		return monitor.Flow{
			Side: monitor.Side{Pair: monitor.Pair{From: from, To: to}}, FromPort: 8630, ToPort: 8629,
			Ends: pinger.Pair{From: pinger.End{Addr: netip.AddrFrom4([4]byte{10, 0, 0, 1})}, To: netip.AddrFrom4([4]byte{10, 0, 0, n})},
		}
	}
	answers := flow("z", "a", 6) // which come in by the port of a
	answers.Answers, answers.FromPort, answers.ToPort = true, 8629, 8630
	flows := []monitor.Flow{flow("a", "x", 2), flow("b", "x", 3), flow("a", "y", 4), flow("gone", "x", 5), answers}
	count := func(n byte, hardware, software, left uint64) {
		dst := fmt.Sprintf("10.0.0.%d:8629", n)
		if n == 6 {
			dst = "10.0.0.6:8630"
		}
		k := c.counts[dst]
		k.Filters = 2
		k.Entered.Hardware += hardware
		k.Entered.Software += software + left
		k.Forwarded.Hardware += hardware
		k.Forwarded.Software += software
		k.Left.Software += left
		c.counts[dst] = k
	}
	look := func(want ...monitor.Way) {
		t.Helper()
		got, err := w.look(t.Context(), flows)
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" || err != nil {
			t.Errorf("%v (-want +got)\n%s", err, d)
		}
	}
	none, nic, tracked := monitor.Way{}, monitor.Way{NIC: true}, monitor.Way{Tracked: monitor.Tracked{Zones: 1}}
	count(2, 5, 5, 5)
	count(3, 0, 0, 0)
	count(6, 0, 0, 0)
	look(none, nic, none, none, tracked) // what was counted before is nobody's
	count(2, 90, 5, 5)
	count(3, 0, 0, 7)
	count(6, 0, 3, 1)
	look(monitor.Way{Packets: 100, Hardware: 90, Software: 5}, monitor.Way{Packets: 7, NIC: true}, none, none, monitor.Way{Packets: 4, Software: 3, Tracked: tracked.Tracked})
	look(none, nic, none, none, tracked)

	count(2, 1, 1, 1)
	c.changes++ // filters are others: what they had counted is lost
	look(none, nic, none, none, tracked)
	count(2, 3, 0, 0)
	look(monitor.Way{Packets: 3, Hardware: 3}, nic, none, none, tracked)

	// Flows of one device become others: those of the other device go on.
	before := len(c.open)
	flows = flows[:2]
	count(2, 3, 0, 0)
	count(3, 4, 0, 0)
	look(none, monitor.Way{Packets: 4, Hardware: 4, NIC: true})
	if len(c.open) != before {
		t.Errorf("%d watches, want %d", len(c.open), before)
	}

	// What cannot be watched is said, and the rest is looked at.
	feed.Put(ports.Port{Spec: ports.Spec{Key: ports.Key{ContainerID: "a"}, LogicalPort: "a"}, HostInterface: "dev9"})
	c.refused = "dev9"
	count(3, 4, 0, 0)
	got, err := w.look(t.Context(), flows)
	if d := cmp.Diff([]monitor.Way{none, {Packets: 4, Hardware: 4, NIC: true}}, got); d != "" || err == nil || !strings.Contains(err.Error(), "device dev9: refused") {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	flows = nil
	if look(); len(c.open) != 0 {
		t.Errorf("%d watches are left", len(c.open))
	}
}
