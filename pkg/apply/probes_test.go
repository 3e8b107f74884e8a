package apply

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// Without a daemon what probes have left goes, and nothing else, and no packet takes another way at any moment. So it is too if the kernel refuses to remove one.
func TestRemoveProbes(t *testing.T) {
	all, stopped := 0, 0
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		filters := randomFilters(rnd)
		k, table := tctest.NewKernel(t), NewFilterTable()
		for _, op := range table.Plan(withProbes(rnd, filters), filterDevices, PlanOptions{}).Change {
			kernelDoes(t, table, op)
		}
		probes := table.Len() - len(filters)
		for _, f := range table.all() {
			payload, err := tc.AppendFilter(nil, tc.Target{Block: Block}, &f)
			if err != nil {
				t.Fatal(err)
			}
			k.Filter(payload)
		}
		want, stop := fmt.Sprint(filterVerdicts(table.all())), -1
		if probes > 0 && seed%2 == 1 {
			stop = rnd.IntN(probes)
		}
		deleted := 0
		k.Refuse = func(m netlink.Message) (unix.Errno, string) {
			if m.Header.Type != unix.RTM_DELTFILTER {
				return 0, ""
			}
			in, err := tc.Decode(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			if deleted == stop {
				stop = -2
				return unix.EBUSY, "the driver is not ready"
			}
			deleted++
			table.Done(tc.DeleteOp(in.Filter.Key()), 0)
			if got := fmt.Sprint(filterVerdicts(table.all())); got != want {
				t.Fatalf("seed %d: without %v %s, want %s", seed, in.Filter.Key(), got, want)
			}
			return 0, ""
		}
		c := tc.NewConn(k.Dial())
		removed, err := RemoveProbes(t.Context(), c)
		if stop == -2 {
			stopped++
			if err == nil || !strings.Contains(err.Error(), "the driver is not ready") {
				t.Errorf("seed %d: %v, want what the kernel says", seed, err)
			}
		} else if err != nil || removed != probes || table.Len() != len(filters) {
			t.Errorf("seed %d: %d filters of %d are removed, %d of %d others are left; %v", seed, removed, probes, table.Len(), len(filters), err)
		}
		if removed != deleted {
			t.Errorf("seed %d: %d filters are removed, and %d said to be", seed, deleted, removed)
		}
		all += removed
		k.Refuse = nil
		if rest, err := RemoveProbes(t.Context(), c); err != nil || rest != probes-removed {
			t.Errorf("seed %d: %d more, want %d; %v", seed, rest, probes-removed, err)
		}
		left := 0
		if err := c.Dump(t.Context(), tc.Target{Block: Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
			left++
			if specialize.KindOf(in.Filter.Cookie) == specialize.KindProbe {
				t.Errorf("seed %d: %s is left", seed, in.Filter.String())
			}
			return nil
		}); err != nil || left != len(filters) {
			t.Errorf("seed %d: %d filters are left, want %d; %v", seed, left, len(filters), err)
		}
	}
	if all == 0 || stopped == 0 {
		t.Errorf("%d filters were removed, %d times it was refused", all, stopped)
	}
}

// A kernel without TC has no filters.
func TestRemoveProbesWithoutTC(t *testing.T) {
	k := tctest.NewKernel(t)
	k.Refuse = func(netlink.Message) (unix.Errno, string) { return unix.EOPNOTSUPP, "" }
	if n, err := RemoveProbes(t.Context(), tc.NewConn(k.Dial())); n != 0 || err != nil {
		t.Errorf("%d filters, %v", n, err)
	}
}
