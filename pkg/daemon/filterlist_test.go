package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// smallProgram are the chains of a port v1, from which what is established goes to v2, TCP to port 80 is translated, and IPv6 is for a
// program. The rows are those of logicalAgent: 1 looks up, 2 translates, 3 delivers.
func smallProgram(t *testing.T) *specialize.Program {
	t.Helper()
	var all ir.Match
	rules := specialize.NewRules()
	add := func(n int, r ir.Rule) {
		row, err := sb.ParseUUID(rowUUID(n))
		if err != nil {
			t.Fatal(err)
		}
		rules.Replace(specialize.Owner{Row: row, Part: 0xa0}, []ir.Rule{r})
	}
	const ipv4, tcp, established = 0x800, 6, 0x22
	add(1, ir.Rule{Table: 0, Priority: 90, Match: all.Eq(ir.InPort, 1).Eq(ir.EthType, ipv4), Actions: []ir.Action{ir.CT{Table: 9, Zone: 5}}})
	add(6, ir.Rule{Table: 0, Priority: 80, Match: all.Eq(ir.InPort, 1), Actions: []ir.Action{ir.Controller{}}})
	add(2, ir.Rule{
		Table: 9, Priority: 90, Match: all.Eq(ir.EthType, ipv4).Eq(ir.IPProto, tcp).Eq(ir.TCPDst, 80).Masked(ir.CTState, established, established),
		Actions: []ir.Action{ir.CT{Table: 10, Zone: 6, NAT: &ir.NAT{Dst: true}}},
	})
	add(3, ir.Rule{Table: 9, Priority: 80, Match: all.Masked(ir.CTState, established, established), Actions: []ir.Action{ir.Output{Port: 2}}})
	return rules.Specialize(specialize.Input{Ports: []specialize.Port{
		{OFPort: 1, Device: specialize.Device{Name: "v1", Ifindex: 11}, Enter: true},
		{OFPort: 2, Device: specialize.Device{Name: "v2", Ifindex: 12}},
	}})
}

// kernelWith returns a kernel whose devices have the block, and which has filters in it.
func kernelWith(t *testing.T, bound []int, filters []tc.Filter) *tctest.Kernel {
	t.Helper()
	k := tctest.NewKernel(t)
	for _, ifindex := range bound {
		k.Qdisc(ifindex, "clsact", apply.Block)
	}
	for i := range filters {
		b, err := tc.AppendFilter(nil, tc.Target{Block: apply.Block}, &filters[i])
		if err != nil {
			t.Fatal(err)
		}
		k.Filter(b)
	}
	return k
}

// filtersOf returns Flows whose program is p, over that kernel. What its loop is asked to do is done until the test ends.
func filtersOf(t *testing.T, p *specialize.Program, k *tctest.Kernel) *Flows {
	t.Helper()
	a := logicalAgent(t)
	a.commands, a.ended = make(chan command), make(chan struct{})
	a.offload = newOffload(slog.New(slog.DiscardHandler), false, nil)
	a.offload.current = p
	a.offload.dial = func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	calls := a.offload.calls
	l := &offloader{offload: a.offload, filters: apply.NewFilters(a.offload.log, a.offload.dial)}
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case f := <-calls:
				f(ctx, l)
			case c := <-a.commands:
				c.run()
				close(c.done)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return NewFlows(a)
}

func filtersOfProgram(p *specialize.Program) (all []tc.Filter) {
	for _, f := range p.Filters() {
		all = append(all, f.Filter)
	}
	return all
}

// Each filter is in the state that the kernel's own make of it, whatever handles they have there.
func TestFilterStates(t *testing.T) {
	p := smallProgram(t)
	foreign := tc.Filter{Chain: 99, Pref: 3, Handle: 1, Protocol: tc.ProtocolIPv4, Actions: []tc.Action{tc.Drop{}}}
	noise := regexp.MustCompile(` cookie [0-9a-f]+| no_percpu`)
	changed := func(change func([]tc.Filter) []tc.Filter) []tc.Filter { return change(filtersOfProgram(p)) }
	last := len(p.Filters()) - 1 // the end of the last chain
	end := p.Filters()[last].Chain
	for _, c := range []struct {
		name    string
		bound   []int
		filters []tc.Filter
		want    []string
	}{
		{name: "all there", bound: []int{11}, filters: filtersOfProgram(p)},
		{name: "others have a block", bound: []int{11, 77}, filters: filtersOfProgram(p)},
		{name: "no device", want: append([]string{"device v1"}, slices.Repeat([]string{"missing"}, last+1)...)},
		{name: "handles are the kernel's", bound: []int{11}, filters: changed(func(all []tc.Filter) []tc.Filter {
			for i := range all {
				all[i].Handle += 1000
			}
			return all
		})},
		{name: "one is missing", bound: []int{11}, filters: changed(func(all []tc.Filter) []tc.Filter { return all[:last] }), want: []string{fmt.Sprintf("missing end in chain %d", end)}},
		{name: "one does something else", bound: []int{11}, filters: changed(func(all []tc.Filter) []tc.Filter {
			all[last].Actions = []tc.Action{tc.Pass{}}
			return all
		}), want: []string{fmt.Sprintf("different end in chain %d: action pass", end)}},
		{name: "one decided by another row", bound: []int{11}, filters: changed(func(all []tc.Filter) []tc.Filter {
			all[last].Cookie[15]++
			return all
		}), want: []string{fmt.Sprintf("different end in chain %d: action ct clear pipe action pass", end)}},
		{
			name: "a chain is closed", bound: []int{11}, filters: append(filtersOfProgram(p), specialize.Closed(end, "")),
			want: []string{fmt.Sprintf("surplus closed in chain %d", end)},
		},
		{name: "somebody else's", bound: []int{11}, filters: append(filtersOfProgram(p), foreign), want: []string{"foreign  in chain 99"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := filtersOf(t, p, kernelWith(t, c.bound, c.filters))
			var got []string
			err := f.FilterDiff(t.Context(), func(d api.FilterDifference) error {
				if d.Filter == nil {
					got = append(got, "device "+d.Device)
					return nil
				}
				text := fmt.Sprintf("%s %s in chain %d", d.Filter.State, d.Filter.Kind, d.Filter.Chain)
				if len(c.bound) == 0 {
					text = string(d.Filter.State)
				}
				if _, actions, ok := strings.Cut(d.Filter.Installed, " action "); ok {
					text += ": action " + noise.ReplaceAllString(actions, "")
				}
				got = append(got, text)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			n := 0
			if err := f.Filters(t.Context(), api.FilterFilter{}, func(api.Filter) error { n++; return nil }); err != nil || n < last+1 {
				t.Errorf("%d filters, %v, want at least %d", n, err, last+1)
			}
		})
	}
}

func TestFilterSelection(t *testing.T) {
	p := smallProgram(t)
	f := filtersOf(t, p, kernelWith(t, []int{11}, filtersOfProgram(p)))
	chain := p.States[0].Chain
	for _, c := range []struct {
		name   string
		filter api.FilterFilter
		want   func(*specialize.Filter) bool
	}{
		{"all", api.FilterFilter{}, func(*specialize.Filter) bool { return true }},
		{"a chain", api.FilterFilter{Chain: &chain}, func(f *specialize.Filter) bool { return f.Chain == chain }},
		{"a state", api.FilterFilter{States: []api.FilterState{api.FilterMissing, api.FilterForeign}}, func(*specialize.Filter) bool { return false }},
		{"another device", api.FilterFilter{Port: tunnelDevice}, func(f *specialize.Filter) bool { return f.Chain == 0 && f.Indev == "" }},
	} {
		want := 0
		for _, w := range p.Filters() {
			if c.want(&w) {
				want++
			}
		}
		got := 0
		if err := f.Filters(t.Context(), c.filter, func(api.Filter) error { got++; return nil }); err != nil || got != want {
			t.Errorf("%s: %d filters, %v, want %d", c.name, got, err, want)
		}
	}
	if err := f.Filters(t.Context(), api.FilterFilter{Port: "nobody"}, nil); reason.Of(err) != reason.LPortNotFound {
		t.Errorf("of an unknown port: %v, want %s", err, reason.LPortNotFound)
	}
}

// What the kernel says, and what is not there to be asked, arrives with its reason.
func TestFiltersUnavailable(t *testing.T) {
	ask := func(f *Flows) error {
		return f.FilterDiff(t.Context(), func(api.FilterDifference) error { return nil })
	}
	if err := ask(filtersOf(t, nil, tctest.NewKernel(t))); reason.Of(err) != reason.NotReady {
		t.Errorf("before the first program: %v, want %s", err, reason.NotReady)
	}
	k := kernelWith(t, []int{11}, nil)
	k.Refuse = func(m netlink.Message) (unix.Errno, string) {
		if m.Header.Type == unix.RTM_GETTFILTER {
			return unix.EPERM, ""
		}
		return 0, ""
	}
	if err := ask(filtersOf(t, smallProgram(t), k)); reason.Of(err) != reason.KernelRefused || !strings.Contains(err.Error(), "not permitted") {
		t.Errorf("when the kernel refuses: %v, want %s", err, reason.KernelRefused)
	}
	off := filtersOf(t, nil, tctest.NewKernel(t))
	off.agent.offload = nil
	if err := ask(off); reason.Of(err) != reason.FeatureUnsupported {
		t.Errorf("without filters: %v, want %s", err, reason.FeatureUnsupported)
	}
	ended := &offload{calls: make(chan func(context.Context, *offloader)), ended: make(chan struct{})}
	close(ended.ended)
	if _, err := ended.view(t.Context()); reason.Of(err) != reason.ShuttingDown {
		t.Errorf("when the loop has ended: %v, want %s", err, reason.ShuttingDown)
	}
}

// counted returns a view of p whose filters have counted 100 packets each, and those that drop or send one thousand.
func counted(p *specialize.Program) *filterView {
	v := &filterView{program: p, bound: map[int]struct{}{11: {}}}
	var has []*tc.Installed
	for _, f := range p.Filters() {
		in := &tc.Installed{Filter: f.Filter, Actions: []tc.ActionState{{Packets: 100, Bytes: 6000}}}
		if f.Leaf != nil && f.Reason == specialize.NoReason {
			if _, sends := f.Leaf.Verdict.(*specialize.Output); sends {
				in.Actions[0] = tc.ActionState{Packets: 1000, Bytes: 60000}
			}
		}
		has = append(has, in)
	}
	v.pair(p.Filters(), has)
	return v
}

// Each rule of a path has what the filter at its end has counted.
func TestOwnedCounters(t *testing.T) {
	sums := counted(smallProgram(t)).filtered()
	for n, want := range map[int]uint64{1: 100, 2: 100, 3: 1000, 4: 0} {
		row, err := sb.ParseUUID(rowUUID(n))
		if err != nil {
			t.Fatal(err)
		}
		if got := sums.row(specialize.Owner{Row: row, Part: 0xa0}).Packets; got != want {
			t.Errorf("row %d: %d packets, want %d", n, got, want)
		}
	}
	delivers := ir.Match{}.Masked(ir.CTState, 0x22, 0x22)
	for priority, want := range map[uint16]uint64{80: 1000, 90: 0} { // there is no flow with this match and priority 90
		k := apply.Key{Table: 9, Priority: priority, Match: string(openflow.AppendMatch(nil, delivers))}
		if got := sums.flow(k); got.Packets != want || got.Bytes != 60*want {
			t.Errorf("flow of priority %d: %+v, want %d packets", priority, *got, want)
		}
	}
	if none := (*filtered)(nil); none.flow(apply.Key{}) != nil || none.row(specialize.Owner{}) != nil {
		t.Error("without filters there are counters")
	}
}

// What is sent out of a device came to it; what filters of chain 0 have passed on came from one, and what they leave to Open vSwitch did not.
func TestPortCounters(t *testing.T) {
	p := smallProgram(t)
	all := filtersOfProgram(p)
	f := filtersOf(t, p, kernelWith(t, []int{11}, all))
	f.agent.plan.Local.Ports = map[string]chassis.LocalPort{"p1": {OFPort: 1, Iface: "v1"}}
	for _, c := range []struct {
		port string
		want []api.PortCounters
	}{
		{"", []api.PortCounters{{LogicalPort: "p1", Device: "v1"}, {Device: "v2"}}},
		{"p1", []api.PortCounters{{LogicalPort: "p1", Device: "v1"}}},
	} {
		var got []api.PortCounters
		err := f.PortCounters(t.Context(), c.port, func(n api.PortCounters) error { got = append(got, n); return nil })
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("PortCounters(%q): %v (-want +got):\n%s", c.port, err, diff)
		}
	}
	if err := f.PortCounters(t.Context(), "nobody", nil); reason.Of(err) != reason.LPortNotFound {
		t.Errorf("of an unknown port: %v, want %s", err, reason.LPortNotFound)
	}

	got := counted(p).ports()
	want := map[string]*api.PortCounters{
		"v1": {Device: "v1", From: api.Counters{Packets: 100, Bytes: 6000}},
		"v2": {Device: "v2", To: api.Counters{Packets: 1000, Bytes: 60000}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was counted (-want +got):\n%s", diff)
	}
}

func TestExplainPort(t *testing.T) {
	p := smallProgram(t)
	f := filtersOf(t, p, tctest.NewKernel(t))
	e := api.Explanation{Device: "v1"}
	if err := f.explainPort(t.Context(), counted(p), &e); err != nil {
		t.Fatal(err)
	}
	if e.Forwarded.Packets != 1000 || e.Dropped.Packets != 0 || e.Shared {
		t.Errorf("forwarded %v, dropped %v, shared %t", e.Forwarded, e.Dropped, e.Shared)
	}
	var got []string
	for _, p := range e.Punts {
		if !p.Shared { // the guards are of all ports
			got = append(got, fmt.Sprintf("%s %d at %d flow %.8s", p.Reason, p.Counters.Packets, p.Filters, uuidOf(p.LogicalFlow)))
		}
		if p.Text == "" || p.Fix == "" {
			t.Errorf("%s: text %q, fix %q", p.Reason, p.Text, p.Fix)
		}
	}
	if diff := cmp.Diff([]string{"nat 100 at 1 flow 00000002", "new-connection 100 at 1 flow "}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Why a packet is left to Open vSwitch is found also where no filter says so.
func TestPunted(t *testing.T) {
	p := smallProgram(t)
	v := &filterView{program: p}
	var has []*tc.Installed
	for _, f := range p.Filters() {
		has = append(has, &tc.Installed{Filter: f.Filter})
	}
	v.pair(p.Filters(), has)
	packet := func(fields map[ir.Field]uint64) (pkt eval.Packet) {
		for f, n := range map[ir.Field]uint64{ir.EthType: 0x800, ir.IPTTL: 64, ir.IPProto: 6, ir.TCPDst: 81} {
			pkt.Set(f, ir.U64(n))
		}
		for f, n := range fields {
			pkt.Set(f, ir.U64(n))
		}
		return pkt
	}
	for _, c := range []struct {
		name   string
		packet eval.Packet
		ct     []string
		kind   eval.VerdictKind
		want   string // the reason, and the row that decides
	}{
		{"established", packet(nil), nil, eval.Redirected, ""},
		{"new", packet(nil), []string{"trk,new"}, eval.Passed, "new-connection 1"},
		{"translated", packet(map[ir.Field]uint64{ir.TCPDst: 80}), nil, eval.Passed, "nat 2"},
		{"a guard", packet(map[ir.Field]uint64{ir.IPTTL: 1}), nil, eval.Passed, "ttl 0"},
		{"no filter says so", packet(map[ir.Field]uint64{ir.EthType: 0x86dd}), nil, eval.Passed, "packet-in 6"},
		{"not IP", packet(map[ir.Field]uint64{ir.EthType: 0x806}), nil, eval.Passed, "not-ip 0"},
		{"a tag", packet(map[ir.Field]uint64{ir.VLANTCI: 0x1005}), nil, eval.Passed, "not-ip 0"},
	} {
		tracker := &scriptedTracker{ct: c.ct}
		verdict := eval.NewBlock(v.installed).Run(c.packet, eval.Arrival{Device: "v1"}, tracker.track)
		if verdict.Kind != c.kind {
			t.Errorf("%s: %s %s, want %s", c.name, verdict.Kind, verdict.Why, c.kind)
		}
		if c.want == "" {
			continue
		}
		why, leaf := v.punted("v1", &c.packet, v.path(&verdict), tracker)
		row := uint64(0)
		if leaf != nil {
			row = sb.UUID(leaf.Path[len(leaf.Path)-1].Owner.Row).Cookie()
		}
		if got := fmt.Sprintf("%s %x", why, row); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestChains(t *testing.T) {
	p := smallProgram(t)
	f := filtersOf(t, p, kernelWith(t, []int{11}, filtersOfProgram(p)))
	if err := f.Chains(t.Context(), "nobody", nil); reason.Of(err) != reason.LPortNotFound {
		t.Errorf("of an unknown port: %v, want %s", err, reason.LPortNotFound)
	}
	var got []string
	f.agent.plan.Local.Ports = map[string]chassis.LocalPort{"p1": {OFPort: 1, Iface: "v1"}}
	err := f.Chains(t.Context(), "p1", func(i api.ChainItem) error {
		if i.Chain != nil {
			got = append(got, i.Chain.Text)
		} else {
			got = append(got, fmt.Sprintf("%s %s by %.8s", orAny(i.Rule.Match), i.Rule.Text, uuidOf(i.Rule.LogicalFlow)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	chain := p.States[0].Chain
	want := []string{
		"port 1 device v1 ip", fmt.Sprintf("any ct zone 5 goto chain %d by 00000001", chain),
		"port 1 device v1 ipv6", "any punt packet-in by 00000006",
		p.States[0].String(), "ip_proto tcp dst_port 80 punt nat by 00000002", "any output v2 by 00000003",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func orAny(match string) string {
	if match == "" {
		return "any"
	}
	return match
}
