package daemon

import (
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// Of filters that a NIC does not have it is told what the driver says, and of those that are kept from it that they are; neither is
// something that differs from what is wanted. A driver is asked once for each kind of filters.
func TestNotInHardware(t *testing.T) {
	const words = "simnic: Unsupported key"
	p := smallProgram(t)
	filters := filtersOfProgram(p)
	kept := 0
	for i := range filters {
		if specialize.KindOf(filters[i].Cookie) == specialize.KindEnd {
			filters[i].Flags |= tc.SkipHW
			kept++
		}
	}
	k := kernelWith(t, []int{11}, filters)
	asked := 0
	k.Refuse = func(m netlink.Message) (unix.Errno, string) {
		if m.Header.Type == unix.RTM_NEWTFILTER {
			asked++
			return 0, words
		}
		return 0, ""
	}
	k.NIC = func(payload []byte, _ int) bool {
		in, err := tc.Decode(payload)
		return err == nil && in.Filter.Pref >= 100
	}
	f := filtersOf(t, p, k)
	f.agent.offload.representor = func(string) bool { return true }
	err := f.agent.offload.call(t.Context(), func(l *offloader) error {
		l.devices = []specialize.Device{{Name: "v1", Ifindex: 11}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	guards, ends := 0, 0
	err = f.Filters(t.Context(), api.FilterFilter{}, func(g api.Filter) error {
		want := ""
		switch {
		case g.Kind == api.FilterGuard:
			want = words
			guards++
		case g.Kind == api.FilterEnd:
			want = notBefore
			ends++
		case !g.InHW:
			t.Errorf("%s is not in hardware", g.Text)
		}
		if g.NotInHW != want || g.State != api.FilterInstalled {
			t.Errorf("%s: %s, not in hardware because of %q, want %q", g.Text, g.State, g.NotInHW, want)
		}
		return nil
	})
	if err != nil || guards == 0 || ends != kept || kept == 0 {
		t.Fatalf("%d guards, %d ends of %d: %v", guards, ends, kept, err)
	}
	if asked == 0 || asked >= guards {
		t.Errorf("the driver was asked about %d filters, of %d that it refuses", asked, guards)
	}
	e := &api.Explanation{Device: "v1"}
	v, err := f.filterView(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.explainPort(t.Context(), v, e); err != nil {
		t.Fatal(err)
	}
	if e.InHW == 0 || len(e.Refusals) != 2 || e.Refusals[0].Text != words || e.Refusals[0].Filters != guards || !strings.Contains(e.Refusals[0].Example, "flower") {
		t.Errorf("explain: %d in hardware, %+v", e.InHW, e.Refusals)
	}
}
