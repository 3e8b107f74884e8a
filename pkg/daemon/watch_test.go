package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// watching returns an offload whose loop does what it is asked to, and whose program drops what comes by lo, over that kernel.
func watching(t *testing.T, k *tctest.Kernel) *offload {
	t.Helper()
	o := newOffload(slog.New(slog.DiscardHandler), true, nil)
	o.dial = func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil }
	o.representor = func(string) bool { return false }
	l := &offloader{offload: o, rules: specialize.NewRules(), filters: apply.NewFilters(o.log, o.dial), links: true, kernel: &tc.Caps{}}
	rule := ir.Rule{Table: 0, Priority: 1, Match: ir.Match{}.Eq(ir.InPort, 1)}
	o.put(apply.Batch{Turn: 1, Complete: true, Replacements: []apply.Replacement{{Owner: apply.Owner{Part: 1}, Rules: []ir.Rule{rule}}}},
		scenery{ports: []sceneryPort{{1, "lo"}}})
	if s, err := l.turnOver(t.Context(), false); err != nil || s.Idle != "" || s.Filters.Installed == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // until the test ends
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				_ = l.filters.Close()
				return
			case f := <-o.calls:
				f(ctx, l)
			case <-o.work:
				if _, err := l.turnOver(ctx, false); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return o
}

// probes returns the filters of probes that the kernel has, and how many others.
func probes(t *testing.T, k *tctest.Kernel) (all []*tc.Installed, others int) {
	t.Helper()
	conn := tc.NewConn(k.Dial())
	defer func() { _ = conn.Close() }() // it has been read
	err := conn.Dump(t.Context(), tc.Target{Block: apply.Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
		if specialize.KindOf(in.Filter.Cookie) == specialize.KindProbe {
			all = append(all, in)
		} else {
			others++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, others
}

func probeFlow(port uint16) ledger.Flow {
	return ledger.Flow{
		Device: "lo", Proto: 17,
		Src: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), Dst: netip.MustParseAddrPort("10.0.0.2:7531"),
	}
}

// A watch's filters come without anything being closed, are among those that are wanted, and go with it.
func TestWatchFlows(t *testing.T) {
	k := tctest.NewKernel(t)
	k.Qdisc(1, "clsact", apply.Block)
	o := watching(t, k)
	_, before := probes(t, k)
	requests := len(k.Requests())
	w, err := o.watchFlows(t.Context(), []ledger.Flow{probeFlow(1000), probeFlow(1001)})
	if err != nil {
		t.Fatal(err)
	}
	second, err := o.watchFlows(t.Context(), []ledger.Flow{probeFlow(1002)})
	if err != nil {
		t.Fatal(err)
	}
	all, others := probes(t, k)
	if len(all) != 3 || others != before {
		t.Errorf("%d filters of probes and %d others, want 3 and %d", len(all), others, before)
	}
	for _, batch := range k.Requests()[requests:] {
		for _, m := range batch {
			if m.Header.Type != unix.RTM_NEWTFILTER && m.Header.Type != unix.RTM_DELTFILTER {
				continue
			}
			if in, err := tc.Decode(m.Data); err != nil || in.Filter.Pref < specialize.PrefProbe || in.Filter.Pref > specialize.PrefProbeEnd {
				t.Errorf("the kernel was asked for %+v, %v", in, err)
			}
		}
	}
	counts, changes, err := w.Read(t.Context())
	if err != nil || len(counts) != 2 || counts[w.Flows()[0].ID].Filters != 1 || counts[second.Flows()[0].ID].Filters != 0 {
		t.Errorf("counts %+v, %v", counts, err)
	}
	v, err := o.view(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[api.FilterKind]int{}
	for i := range v.filters {
		f := v.filters[i].show(func(i int) string { return fmt.Sprint(i) })
		if kinds[f.Kind]++; f.State != api.FilterInstalled {
			t.Errorf("%s is %s", f.Text, f.State)
		}
	}
	if kinds[api.FilterProbe] != 3 {
		t.Errorf("kinds %v, want 3 of probes", kinds)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	all, others = probes(t, k)
	if len(all) != 1 || others != before {
		t.Errorf("%d filters of probes and %d others, want 1 and %d", len(all), others, before)
	}
	if _, now, err := second.Read(t.Context()); err != nil || now != 2 || changes != 2 {
		t.Errorf("%d changes, then %d, %v: want 2, for the first", changes, now, err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if all, others := probes(t, k); len(all) != 0 || others != before {
		t.Errorf("%d filters of probes and %d others, want none and %d", len(all), others, before)
	}
}

// A flow that awaits the filters of its device has none before, and is counted as soon as there are.
func TestWatchFlowsAwait(t *testing.T) {
	k := tctest.NewKernel(t)
	k.Qdisc(1, "clsact", apply.Block)
	o := watching(t, k)
	here, later := probeFlow(1000), probeFlow(1001)
	later.Device = "v9"
	here.Await, later.Await = true, true
	var watches []*flowWatch
	for _, f := range []ledger.Flow{here, later} {
		w, err := o.watchFlows(t.Context(), []ledger.Flow{f})
		if err != nil {
			t.Fatal(err)
		}
		watches = append(watches, w)
	}
	// The loop has taken what it was told before.
	if err := o.call(t.Context(), func(l *offloader) error { _, err := l.turnOver(t.Context(), false); return err }); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 0} {
		counts, changes, err := watches[i].Read(t.Context())
		if err != nil || counts[watches[i].Flows()[0].ID].Filters != want || changes != 2*want {
			t.Errorf("device %s: %+v, %d changes, %v, want %d filters", watches[i].Flows()[0].Device, counts, changes, err, want)
		}
		if err := watches[i].Close(); err != nil {
			t.Fatal(err)
		}
	}
	if all, _ := probes(t, k); len(all) != 0 {
		t.Errorf("%d filters of probes are left", len(all))
	}
	o.see(2, scenery{idle: "there is no integration bridge"})
	if err := o.call(t.Context(), func(l *offloader) error { _, err := l.turnOver(t.Context(), false); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := o.watchFlows(t.Context(), []ledger.Flow{here}); reason.Of(err) != reason.ProbeImpossible || len(o.watches) != 0 {
		t.Errorf("without filters: %v, %d watches", err, len(o.watches))
	}
}

// What a daemon leaves that is killed, the next one removes.
func TestWatchFlowsKilled(t *testing.T) {
	k := tctest.NewKernel(t)
	k.Qdisc(1, "clsact", apply.Block)
	if _, err := watching(t, k).watchFlows(t.Context(), []ledger.Flow{probeFlow(1000)}); err != nil {
		t.Fatal(err)
	}
	if all, _ := probes(t, k); len(all) != 1 {
		t.Fatalf("%d filters of probes, want 1", len(all))
	}
	watching(t, k)
	if all, _ := probes(t, k); len(all) != 0 {
		t.Errorf("%d filters of probes are left", len(all))
	}
}

// If the kernel refuses a filter, or there can be none, there is an error that says so, and nothing is left, and nothing closed.
func TestWatchFlowsRefused(t *testing.T) {
	k := tctest.NewKernel(t)
	k.Qdisc(1, "clsact", apply.Block)
	o := watching(t, k)
	_, before := probes(t, k)
	k.Refuse = func(m netlink.Message) (unix.Errno, string) {
		in, err := tc.Decode(m.Data)
		if m.Header.Type == unix.RTM_NEWTFILTER && err == nil && in.Filter.Pref == specialize.PrefProbe {
			return unix.ENOSPC, "no room"
		}
		return 0, ""
	}
	other := probeFlow(1)
	other.Device = "v9"
	for want, flow := range map[reason.Reason]ledger.Flow{reason.KernelRefused: probeFlow(1000), reason.ProbeImpossible: other} {
		_, err := o.watchFlows(t.Context(), []ledger.Flow{flow})
		if reason.Of(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
		if err := o.call(t.Context(), func(l *offloader) error { _, err := l.turnOver(t.Context(), false); return err }); err != nil {
			t.Fatal(err)
		}
		if all, others := probes(t, k); len(all) != 0 || others != before {
			t.Errorf("%d filters of probes and %d others, want none and %d", len(all), others, before)
		}
	}
	if slices.ContainsFunc(o.watches, func(*flowWatch) bool { return true }) {
		t.Error("a watch is left")
	}
}
