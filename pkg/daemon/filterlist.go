package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A filterView is the filters that are wanted and those that the kernel has, at one moment between two changes of ours.
type filterView struct {
	program *specialize.Program
	probes  []*specialize.Filter // besides those of the program
	status  offloadStatus
	filters []viewedFilter // by chain, pref and handle
	bound   map[int]struct{}
	// installed are the kernel's filters that are understood, in its order.
	installed []tc.Filter
}

// A viewedFilter is one of a view. Not both of wanted and has are nil.
type viewedFilter struct {
	wanted *specialize.Filter
	has    *tc.Installed
	err    error  // why the kernel refused it
	says   string // why it is not in hardware
}

// view reads what the kernel has, in the loop, so that nothing of ours changes meanwhile.
func (o *offload) view(ctx context.Context) (*filterView, error) {
	var v *filterView
	var has []*tc.Installed
	err := o.call(ctx, func(l *offloader) (err error) {
		if v, has, err = o.read(ctx); err == nil && l.filters.Lost(has) > 0 {
			poke(o.work) // what drivers take away they tell nobody
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	wanted := v.program.Filters()
	for _, f := range v.probes {
		wanted = append(wanted, *f)
	}
	v.pair(wanted, has)
	return v, nil
}

// call lets the loop do something, which has to end with ctx.
func (o *offload) call(ctx context.Context, do func(*offloader) error) error {
	done := make(chan error, 1)
	select {
	case o.calls <- func(_ context.Context, l *offloader) { done <- do(l) }:
	case <-o.ended:
		return reason.Errorf(reason.ShuttingDown, "daemon filters: the loop has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
	err := <-done
	if errno := unix.Errno(0); errors.As(err, &errno) {
		err = &reason.Error{Reason: reason.KernelRefused, Err: fmt.Errorf("daemon filters: %w", err)}
	}
	return err
}

// notBefore is why a filter is not in hardware that the hardware might take.
const notBefore = "kept from the hardware, which has not all filters before it"

// ask finds out why filters of a view that should be in hardware are not, of those that fits selects. It asks drivers, which takes them a
// while, and adds and removes filters that no packet meets.
func (o *offload) ask(ctx context.Context, v *filterView, fits func(*viewedFilter) bool) error {
	var open []*viewedFilter
	var filters []*tc.Filter
	for i := range v.filters {
		f := &v.filters[i]
		switch {
		case f.state() != api.FilterInstalled || f.has.Filter.Flags&tc.InHW != 0 || !fits(f):
		case f.has.Filter.Flags&tc.SkipHW != 0:
			f.says = notBefore
		default:
			open, filters = append(open, f), append(filters, &f.has.Filter)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return o.call(ctx, func(l *offloader) error {
		port := l.port()
		if port == "" {
			return nil
		}
		says, err := l.filters.Why(ctx, port, filters)
		for i := range says {
			open[i].says = cmp.Or(says[i], "the driver does not say why")
		}
		return err
	})
}

// port is a device of a NIC, "" if there is none.
func (l *offloader) port() string {
	for _, d := range l.devices {
		if l.representor(d.Name) {
			return d.Name
		}
	}
	return ""
}

// read begins a view, and reads what the kernel has over a connection of its own.
func (o *offload) read(ctx context.Context) (v *filterView, has []*tc.Installed, err error) {
	v = &filterView{bound: map[int]struct{}{}}
	v.program, v.probes = o.wanted()
	v.status, _ = o.Status()
	if v.program == nil {
		return nil, nil, reason.Errorf(reason.NotReady, "daemon filters: nothing has been compiled yet")
	}
	conn, err := o.dial()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	qdiscs, err := conn.Qdiscs(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, q := range qdiscs {
		if q.Block == apply.Block {
			v.bound[q.Ifindex] = struct{}{}
		}
	}
	if len(v.bound) > 0 { // otherwise there is no block
		err = conn.Dump(ctx, tc.Target{Block: apply.Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
			has = append(has, in)
			return nil
		})
	}
	return v, has, err
}

// pair finds which filter of the kernel stands for which that is wanted. Handles do not matter: they are given when filters are installed.
func (v *filterView) pair(wanted []specialize.Filter, has []*tc.Installed) {
	refused := map[string]error{}
	for _, r := range v.status.Filters.Refused {
		refused[withoutHandle(r.What)] = r.Err
	}
	at := map[string]int{} // by what a filter asks for
	for i := range wanted {
		f := viewedFilter{wanted: &wanted[i]}
		at[asks(&wanted[i].Filter)] = i
		f.err = refused[withoutHandle(tc.AddOp(&wanted[i].Filter).String())]
		v.filters = append(v.filters, f)
	}
	for _, in := range has {
		if len(in.Foreign) == 0 {
			v.installed = append(v.installed, in.Filter)
		}
		if specialize.IsOurs(in.Filter.Cookie) {
			if i, ok := at[asks(&in.Filter)]; ok && v.filters[i].has == nil {
				v.filters[i].has = in
				continue
			}
		}
		v.filters = append(v.filters, viewedFilter{has: in})
	}
	slices.SortStableFunc(v.filters, func(a, b viewedFilter) int {
		x, y := a.key(), b.key()
		return cmp.Or(cmp.Compare(x.Chain, y.Chain), cmp.Compare(x.Pref, y.Pref), cmp.Compare(x.Handle, y.Handle))
	})
}

// asks is equal for filters of one place in the order that ask for the same packets.
func asks(f *tc.Filter) string {
	g := tc.Filter{Chain: f.Chain, Pref: f.Pref, Protocol: f.Protocol, Indev: f.Indev, EncDstPort: f.EncDstPort, Match: f.Match}
	return g.String()
}

// withoutHandle returns the text of an operation without the handle of its filter.
func withoutHandle(op string) string {
	before, after, ok := strings.Cut(op, " handle ")
	if !ok {
		return op
	}
	_, after, _ = strings.Cut(after, " ")
	return before + " " + after
}

func (f *viewedFilter) key() tc.Key {
	if f.has != nil {
		return f.has.Filter.Key()
	}
	return f.wanted.Key()
}

// filter is the one of the kernel, or else the one that is wanted.
func (f *viewedFilter) filter() *tc.Filter {
	if f.wanted != nil {
		return &f.wanted.Filter
	}
	return &f.has.Filter
}

func (f *viewedFilter) state() api.FilterState {
	const given = tc.SkipHW | tc.SkipSW
	switch {
	case f.wanted == nil && specialize.IsOurs(f.has.Filter.Cookie):
		return api.FilterSurplus
	case f.wanted == nil:
		return api.FilterForeign
	case f.has == nil && f.err != nil:
		return api.FilterRefused
	case f.has == nil:
		return api.FilterMissing
	}
	w, h := &f.wanted.Filter, &f.has.Filter
	// One that is kept from hardware does what it should, in software.
	if len(f.has.Foreign) > 0 || w.Cookie != h.Cookie || w.Flags&given != h.Flags&given&^tc.SkipHW || !reflect.DeepEqual(w.Actions, h.Actions) {
		return api.FilterDifferent
	}
	return api.FilterInstalled
}

func (f *viewedFilter) counters() *api.Counters {
	if f.has == nil {
		return nil
	}
	packets, bytes := f.has.Packets()
	return &api.Counters{Packets: packets, Bytes: bytes}
}

var filterKinds = map[specialize.Kind]api.FilterKind{
	specialize.KindGuard:  api.FilterGuard,
	specialize.KindEntry:  api.FilterEntry,
	specialize.KindRule:   api.FilterRule,
	specialize.KindEnd:    api.FilterEnd,
	specialize.KindClosed: api.FilterClosed,
	specialize.KindProbe:  api.FilterProbe,
}

// show converts a filter. device names devices by their numbers.
func (f *viewedFilter) show(device func(int) string) api.Filter {
	g := *f.filter()
	g.Handle = f.key().Handle
	out := api.Filter{
		Chain: g.Chain, Pref: g.Pref, Handle: g.Handle, Kind: filterKinds[specialize.KindOf(g.Cookie)], Device: g.Indev,
		Text: g.Args(device), State: f.state(), Counters: f.counters(),
	}
	if f.has != nil {
		out.InHW = f.has.Filter.Flags&tc.InHW != 0
		out.NotInHW = f.says
		more := strings.Join(f.has.Foreign, ", ")
		switch {
		case out.State == api.FilterForeign:
			out.Installed = more
		case out.State == api.FilterDifferent && more != "":
			out.Installed = f.has.Filter.Args(device) + " (" + more + ")"
		case out.State == api.FilterDifferent:
			out.Installed = f.has.Filter.Args(device)
		}
	}
	if f.wanted != nil {
		if f.wanted.Reason != specialize.NoReason {
			out.Reason = f.wanted.Reason.String()
		}
		if f.wanted.Leaf != nil {
			out.Rows = rowTexts(f.wanted.Leaf)
		}
	}
	if out.State == api.FilterRefused {
		out.Error = f.err.Error()
	}
	return out
}

func rowTexts(l *specialize.Leaf) []string {
	rows := l.Rows()
	texts := make([]string, len(rows))
	for i, row := range rows {
		texts[i] = sb.UUID(row).String()
	}
	return texts
}

// devices returns a function that names the devices of the program by their numbers, and the devices that should have the block.
func (v *filterView) devices() (name func(int) string, bind []specialize.Device) {
	names := map[int]string{}
	for device, ifindex := range v.program.Devices {
		names[ifindex] = device
	}
	for _, e := range v.program.Entries {
		d := specialize.Device{Name: e.Device, Ifindex: v.program.Devices[e.Device]}
		if d.Ifindex != 0 && !slices.Contains(bind, d) {
			bind = append(bind, d)
		}
	}
	return func(ifindex int) string { return names[ifindex] }, bind
}

// A leafCount is what the filter of a rule has counted, and those with which probes count for it.
type leafCount struct {
	filter   *specialize.Filter // one of them
	counters *api.Counters      // nil: the kernel has none
}

// counts is what the filters of rules have counted.
func (v *filterView) counts() map[*specialize.Leaf]leafCount {
	all := map[*specialize.Leaf]leafCount{}
	for i := range v.filters {
		f := &v.filters[i]
		if f.wanted == nil || f.wanted.Leaf == nil {
			continue
		}
		c, n := all[f.wanted.Leaf], f.counters()
		if c.filter = f.wanted; n != nil {
			sum := *n
			if c.counters != nil {
				add(&sum, c.counters)
			}
			c.counters = &sum
		}
		all[f.wanted.Leaf] = c
	}
	return all
}

// met sums by a key of rules what filters have counted. Each packet that a filter counts has met all rules of its path.
func met[K comparable](v *filterView, key func(*specialize.Rule) K) map[K]api.Counters {
	all := map[K]api.Counters{}
	for leaf, f := range v.counts() {
		n := f.counters
		if n == nil {
			continue
		}
		keys := map[K]struct{}{}
		for _, r := range leaf.Path {
			keys[key(r)] = struct{}{}
		}
		for k := range keys {
			sum := all[k]
			add(&sum, n)
			all[k] = sum
		}
	}
	return all
}

// filtered is what filters have counted, by the row and by the flow of rules.
type filtered struct {
	owned map[specialize.Owner]api.Counters
	flows map[apply.Key]api.Counters
}

func (v *filterView) filtered() *filtered {
	keys := map[*specialize.Rule]apply.Key{} // to encode a match takes a while, and paths share rules
	return &filtered{
		owned: met(v, func(r *specialize.Rule) specialize.Owner { return r.Owner }),
		flows: met(v, func(r *specialize.Rule) apply.Key {
			k, known := keys[r]
			if !known {
				k = apply.Key{Table: r.Table, Priority: r.Priority, Match: string(openflow.AppendMatch(nil, r.Match))}
				keys[r] = k
			}
			return k
		}),
	}
}

// filtered reads what filters have counted; nil if there are none.
func (f *Flows) filtered(ctx context.Context) (*filtered, error) {
	if f.agent.offload == nil {
		return nil, nil
	}
	v, err := f.agent.offload.view(ctx)
	switch {
	case err == nil:
		return v.filtered(), nil
	case reason.Of(err) == reason.NotReady:
		return nil, nil
	default:
		return nil, err
	}
}

// flow returns what was counted for a flow, nil if there are no filters.
func (f *filtered) flow(k apply.Key) *api.Counters {
	if f == nil {
		return nil
	}
	n := f.flows[k]
	return &n
}

// row returns what was counted for a row on a datapath, nil if there are no filters.
func (f *filtered) row(o specialize.Owner) *api.Counters {
	if f == nil {
		return nil
	}
	n := f.owned[o]
	return &n
}

// PortCounters yields what filters have counted of the packets of a port, of all with "".
func (f *Flows) PortCounters(ctx context.Context, port string, yield func(api.PortCounters) error) error {
	only := ""
	if port != "" {
		place, err := f.findPort(ctx, port)
		if err != nil {
			return err
		}
		only = place.device
	}
	names := map[string]string{} // of logical ports, by device
	if err := f.agent.query(ctx, func() {
		if local := f.agent.plan.Local; local != nil {
			for name, p := range local.Ports {
				names[p.Iface] = name
			}
		}
	}); err != nil {
		return err
	}
	v, err := f.filterView(ctx)
	if err != nil {
		return err
	}
	all := v.ports()
	for _, device := range sortedKeys(all) {
		if only != "" && device != only {
			continue
		}
		c := *all[device]
		c.LogicalPort = names[device]
		if err := yield(c); err != nil {
			return err
		}
	}
	return nil
}

// ports sums by device what filters have counted of packets from and to it. Chains are shared, so which of them leaves a
// device's packet to Open vSwitch after chain 0 is not known.
func (v *filterView) ports() map[string]*api.PortCounters {
	all := map[string]*api.PortCounters{}
	of := func(device string) *api.PortCounters {
		if all[device] == nil {
			all[device] = &api.PortCounters{Device: device}
		}
		return all[device]
	}
	for _, e := range v.program.Entries {
		of(e.Device)
	}
	for leaf, f := range v.counts() {
		n := f.counters
		if n == nil {
			n = &api.Counters{}
		}
		if out, ok := leaf.Verdict.(*specialize.Output); ok {
			add(&of(out.Device).To, n)
		}
		if _, punts := leaf.Verdict.(specialize.Punt); !punts && f.filter.Chain == 0 {
			add(&of(f.filter.Indev).From, n)
		}
	}
	return all
}

// filterView is view for an agent that may have no filters.
func (f *Flows) filterView(ctx context.Context) (*filterView, error) {
	switch {
	case f.agent.config.Offload == offloadDelegated:
		return nil, reason.Errorf(reason.FeatureUnsupported,
			"daemon filters: there are no chains of ours with offload=%s: Open vSwitch makes the filters, which flows --tc lists", offloadDelegated)
	case f.agent.offload == nil:
		return nil, reason.Errorf(reason.FeatureUnsupported, "daemon filters: the daemon runs with offload=%s", offloadOff)
	}
	return f.agent.offload.view(ctx)
}

// A portPlace is where packets of a port arrive.
type portPlace struct {
	name   string // of the logical port; "" for a device without one
	device string
	tag    uint16 // of the VLAN in which they come, 0: none
}

// findPort finds a logical port, or a device. It runs in the loop of the agent.
func (a *Agent) findPort(name string) (portPlace, error) {
	if local := a.plan.Local; local != nil {
		parent, tag := name, uint16(0)
		if p := a.store.PortByName(name); p != nil && p.Parent != "" {
			parent, tag = p.Parent, p.Tag
		}
		if p, ok := local.Ports[parent]; ok {
			return portPlace{name, p.Iface, tag}, nil
		}
		for _, lport := range slices.Sorted(maps.Keys(local.Ports)) {
			if p := local.Ports[lport]; p.Iface == name {
				return portPlace{lport, name, 0}, nil
			}
		}
	}
	if name == tunnelDevice {
		return portPlace{device: name}, nil
	}
	return portPlace{}, reason.Errorf(reason.LPortNotFound, "daemon: no port or device %q on this chassis", name).With("port", name)
}

func (f *Flows) findPort(ctx context.Context, name string) (place portPlace, err error) {
	if asked := f.agent.query(ctx, func() { place, err = f.agent.findPort(name) }); asked != nil {
		return place, asked
	}
	return place, err
}

// Filters yields the filters that filter selects.
func (f *Flows) Filters(ctx context.Context, filter api.FilterFilter, yield func(api.Filter) error) error {
	if f.agent.config.Offload == offloadDelegated {
		return f.delegatedFilters(ctx, filter, yield)
	}
	var device string
	if filter.Port != "" {
		place, err := f.findPort(ctx, filter.Port)
		if err != nil {
			return err
		}
		device = place.device
	}
	v, err := f.filterView(ctx)
	if err != nil {
		return err
	}
	chains := map[uint32]struct{}{}
	if device != "" {
		_, states := v.program.From(device)
		for _, s := range states {
			chains[s.Chain] = struct{}{}
		}
	}
	name, _ := v.devices()
	fits := func(x *viewedFilter) bool {
		g := x.filter()
		if filter.Chain != nil && *filter.Chain != g.Chain {
			return false
		}
		if _, reached := chains[g.Chain]; device != "" && !reached && (g.Chain != 0 || g.Indev != "" && g.Indev != device) {
			return false
		}
		return len(filter.States) == 0 || slices.Contains(filter.States, x.state())
	}
	if err := f.agent.offload.ask(ctx, v, fits); err != nil {
		return err
	}
	for i := range v.filters {
		if !fits(&v.filters[i]) {
			continue
		}
		if err := yield(v.filters[i].show(name)); err != nil {
			return err
		}
	}
	return nil
}

// FilterDiff yields what differs between the filters that are wanted and those of the kernel.
func (f *Flows) FilterDiff(ctx context.Context, yield func(api.FilterDifference) error) error {
	v, err := f.filterView(ctx)
	if err != nil {
		return err
	}
	name, bind := v.devices()
	for _, d := range bind {
		if _, bound := v.bound[d.Ifindex]; !bound {
			if err := yield(api.FilterDifference{Device: d.Name}); err != nil {
				return err
			}
		}
	}
	for i := range v.filters {
		if v.filters[i].state() == api.FilterInstalled {
			continue
		}
		g := v.filters[i].show(name)
		if err := yield(api.FilterDifference{Filter: &g}); err != nil {
			return err
		}
	}
	return nil
}

// Chains yields the chains that packets of a port can come to.
func (f *Flows) Chains(ctx context.Context, port string, yield func(api.ChainItem) error) error {
	place, err := f.findPort(ctx, port)
	if err != nil {
		return err
	}
	v, err := f.filterView(ctx)
	if err != nil {
		return err
	}
	entries, states := v.program.From(place.device)
	var leaves []*specialize.Leaf
	for _, e := range entries {
		leaves = appendLeaves(leaves, e.Rules)
	}
	for _, s := range states {
		leaves = appendLeaves(leaves, s.Rules)
	}
	flows, err := f.deciding(ctx, leaves)
	if err != nil {
		return err
	}
	counts := v.counts()
	tell := func(c api.Chain, rules []specialize.Leaf) error {
		if err := yield(api.ChainItem{Chain: &c}); err != nil {
			return err
		}
		for i := range rules {
			r := chainRule(c.EtherType, &rules[i])
			r.LogicalFlow = flows[&rules[i]]
			r.Counters = counts[&rules[i]].counters
			if err := yield(api.ChainItem{Rule: &r}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, e := range entries {
		c := api.Chain{Device: e.Device, OFPort: e.Port, EtherType: e.EtherType, Tunnelled: e.Tunnel != nil, Text: e.String()}
		if err := tell(c, e.Rules); err != nil {
			return err
		}
	}
	for _, s := range states {
		c := api.Chain{
			Number: s.Chain, EtherType: s.EtherType, Table: s.Table, Tracked: s.Tracked, Zone: s.Zone, Tunnelled: s.Tunnelled,
			Known: s.Known(), Text: s.String(),
		}
		if err := tell(c, s.Rules); err != nil {
			return err
		}
	}
	return nil
}

func appendLeaves(all []*specialize.Leaf, rules []specialize.Leaf) []*specialize.Leaf {
	for i := range rules {
		all = append(all, &rules[i])
	}
	return all
}

// deciding finds the last logical flow in the path of each rule. A rule that has none is not in the map.
func (f *Flows) deciding(ctx context.Context, leaves []*specialize.Leaf) (map[*specialize.Leaf]*api.LogicalFlow, error) {
	found := map[*specialize.Leaf]compiled{}
	err := f.agent.query(ctx, func() {
		for _, l := range leaves {
			for _, r := range slices.Backward(l.Path) {
				if lf := f.agent.store.LogicalFlows[r.Owner.Row]; lf != nil {
					if dp := f.agent.store.DatapathByKey(r.Owner.Part); dp != nil {
						found[l] = compiled{flow: lf, dp: dp}
					}
					break
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	flows := map[*specialize.Leaf]*api.LogicalFlow{}
	for l, c := range found {
		lf := c.logicalFlow()
		flows[l] = &lf
	}
	return flows, nil
}

func chainRule(etherType uint16, l *specialize.Leaf) api.ChainRule {
	r := api.ChainRule{Text: specialize.VerdictText(etherType, l), Rows: rowTexts(l), NoFilter: l.Implied()}
	if len(l.Match) > 0 {
		r.Match = specialize.MatchText(etherType, l.Match)
	}
	switch v := l.Verdict.(type) {
	case specialize.Punt:
		r.Verdict, r.Reason = api.ChainPunt, v.Reason.String()
	case specialize.Drop:
		r.Verdict = api.ChainDrop
	case *specialize.Output:
		r.Verdict, r.Device = api.ChainOutput, v.Device
	case specialize.Lookup:
		r.Verdict, r.Chain, r.Zone = api.ChainLookup, v.State.Chain, v.Zone
	case specialize.Goto:
		r.Verdict, r.Chain = api.ChainGoto, v.State.Chain
	}
	return r
}
