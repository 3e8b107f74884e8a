package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// delegatedFilters yields the filters on the devices of local ports, and on that of the tunnels, whoever has made them.
func (f *Flows) delegatedFilters(ctx context.Context, filter api.FilterFilter, yield func(api.Filter) error) error {
	var devices []localDevice
	if err := f.agent.query(ctx, func() { devices = f.agent.localDevices() }); err != nil {
		return err
	}
	if filter.Port != "" {
		place, err := f.findPort(ctx, filter.Port)
		if err != nil {
			return err
		}
		devices = []localDevice{{place.name, place.device}}
	}
	for _, d := range devices {
		has, err := f.agent.installedOn(ctx, d.name)
		if err != nil {
			return err
		}
		for _, in := range has {
			g := delegatedFilter(in, d.name)
			if filter.Chain != nil && *filter.Chain != g.Chain || len(filter.States) > 0 && !slices.Contains(filter.States, g.State) {
				continue
			}
			if err := yield(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// installedOn reads the filters of a device's ingress, by chain, pref and handle. A device that is gone has none.
func (a *Agent) installedOn(ctx context.Context, name string) (has []*tc.Installed, err error) {
	ifindex := a.ifindex(name)
	if ifindex == 0 {
		return nil, nil
	}
	conn, err := a.dialTC()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	qdiscs, err := conn.Qdiscs(ctx)
	for _, q := range qdiscs {
		if q.Ifindex != ifindex {
			continue
		}
		target := tc.Target{Ifindex: ifindex}
		if q.Block != 0 { // shared by the devices of a bond
			target = tc.Target{Block: q.Block}
		}
		err = conn.Dump(ctx, target, tc.DumpOptions{}, func(in *tc.Installed) error {
			has = append(has, in)
			return nil
		})
	}
	if errno := unix.Errno(0); errors.As(err, &errno) {
		err = &reason.Error{Reason: reason.KernelRefused, Err: fmt.Errorf("daemon filters: device %s: %w", name, err)}
	}
	slices.SortStableFunc(has, func(x, y *tc.Installed) int {
		a, b := x.Filter.Key(), y.Filter.Key()
		return cmp.Or(cmp.Compare(a.Chain, b.Chain), cmp.Compare(a.Pref, b.Pref), cmp.Compare(a.Handle, b.Handle))
	})
	return has, err
}

// ifindexOf returns the number of a device, 0 if there is none of that name.
func ifindexOf(name string) int {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return i.Index
}

// delegatedFilter converts a filter that the kernel has on a device. Open vSwitch's have the UFID of their megaflow as cookie.
func delegatedFilter(in *tc.Installed, device string) api.Filter {
	g := &in.Filter
	out := api.Filter{
		Chain: g.Chain, Pref: g.Pref, Handle: g.Handle, Device: device, Text: g.Args(deviceName), Installed: strings.Join(in.Foreign, ", "),
		InHW: g.Flags&tc.InHW != 0, State: api.FilterForeign,
	}
	packets, bytes := in.Packets()
	out.Counters = &api.Counters{Packets: packets, Bytes: bytes}
	switch {
	case in.Target.Block == apply.Block && specialize.IsOurs(g.Cookie): // a UFID may begin with anything
		out.State, out.Kind = api.FilterSurplus, filterKinds[specialize.KindOf(g.Cookie)]
	case g.Cookie != tc.Cookie{}:
		out.State, out.UFID = api.FilterDelegated, dpctl.UFIDOf(g.Cookie)
	}
	return out
}

const (
	// maxMegaflows bounds what one explanation tells.
	maxMegaflows = 1000
	// maxRecirculations is as often as a packet is recirculated, MAX_DEPTH of lib/dpif-netdev.c; the kernel has no such limit.
	maxRecirculations = 8
)

// explainDelegated tells what becomes of a port's packets, or of one packet, if Open vSwitch offloads.
func (f *Flows) explainDelegated(ctx context.Context, place portPlace, req api.ExplainRequest) (api.Explanation, error) {
	e := api.Explanation{Device: place.device, Delegated: true}
	var datapath string
	if err := f.agent.query(ctx, func() { e.Idle, datapath = f.agent.delegatedState().Idle, f.agent.datapath() }); err != nil {
		return e, err
	}
	var q question
	if req.Microflow != "" {
		var err error
		if q, err = f.question(ctx, place, req); err != nil {
			return e, err
		}
	}
	all, err := f.agent.megaflows(ctx, datapath)
	if err != nil {
		return e, err
	}
	all = slices.DeleteFunc(all, func(m dpctl.Flow) bool { return m.InPort != place.device })
	if req.Microflow == "" {
		slices.SortFunc(all, func(a, b dpctl.Flow) int {
			return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Recirc, b.Recirc), strings.Compare(a.Key(), b.Key()))
		})
		if len(all) > maxMegaflows {
			e.MegaflowsLeft = len(all) - maxMegaflows
			all = all[:maxMegaflows]
		}
		for i := range all {
			e.Megaflows = append(e.Megaflows, megaflow(&all[i]))
		}
		return e, nil
	}
	met := follow(all, q.came, q.tracker)
	for _, m := range met.path {
		e.Megaflows = append(e.Megaflows, megaflow(m))
	}
	e.Layers = met.layers(q.steps)
	if !slices.ContainsFunc(met.path, func(m *dpctl.Flow) bool { return m.Layer >= dpctl.TC }) {
		return e, nil
	}
	has, err := f.agent.installedOn(ctx, place.device)
	if err != nil {
		return e, err
	}
	for _, m := range met.path {
		cookie, ok := m.Cookie()
		for _, in := range has {
			if ok && in.Filter.Cookie == tc.Cookie(cookie) {
				e.Filters = append(e.Filters, delegatedFilter(in, place.device))
			}
		}
	}
	return e, nil
}

func megaflow(m *dpctl.Flow) api.Megaflow {
	out := api.Megaflow{
		UFID: m.UFID, Device: m.InPort, Recirc: m.Recirc, Match: m.Key(), Actions: m.Actions, Used: m.Used, Reason: m.Reason,
		Layer: api.LayerOVS, Counters: api.Counters{Packets: m.Packets, Bytes: m.Bytes},
	}
	switch m.Layer {
	case dpctl.NIC:
		out.Layer = api.LayerNIC
	case dpctl.TC:
		out.Layer = api.LayerTC
	case dpctl.Partly:
		out.Reason = cmp.Or(out.Reason, "hardware recognises the packets, Open vSwitch carries the actions out")
	case dpctl.OVS:
	}
	return out
}

// A meeting is which megaflows a packet meets.
type meeting struct {
	path []*dpctl.Flow
	// missing says why it is not known where the packet goes on, "" if the last megaflow is the end of its way.
	missing string
}

// follow finds the megaflows that a packet meets, and does with it what matters for the next one.
func follow(flows []dpctl.Flow, pkt eval.Packet, tracker *scriptedTracker) (m meeting) {
	recirc := uint32(0)
	for range maxRecirculations {
		next, unknown := find(flows, recirc, &pkt)
		switch {
		case next == nil && unknown > 0:
			m.missing = fmt.Sprintf("no megaflow matches, but %d ask for what is not understood", unknown)
			return m
		case next == nil:
			m.missing = "no megaflow matches: ovs-vswitchd decides, and makes one"
			return m
		}
		m.path = append(m.path, next)
		var clear bool
		if recirc, clear = pass(next, &pkt, tracker); !clear {
			m.missing = "a megaflow changes the packet in a way that is not understood: " + next.Actions
			return m
		}
		if recirc == 0 {
			return m
		}
	}
	m.missing = "it is recirculated more often than is followed"
	return m
}

// find returns the megaflow that a packet meets: no two match the same. unknown counts those that may or may not match.
func find(flows []dpctl.Flow, recirc uint32, pkt *eval.Packet) (found *dpctl.Flow, unknown int) {
	for i := range flows {
		if flows[i].Recirc != recirc {
			continue
		}
		match, other := flows[i].Match()
		switch {
		case !pkt.Satisfies(match):
		case len(other) > 0:
			unknown++
		default:
			return &flows[i], 0
		}
	}
	return nil, unknown
}

// pass does with a packet what a megaflow does, as far as the next one may ask for it, and returns where it goes on; 0: nowhere. clear is
// false if that is not understood.
func pass(m *dpctl.Flow, pkt *eval.Packet, tracker *scriptedTracker) (recirc uint32, clear bool) {
	clear = true
	for _, s := range m.Steps() {
		switch s.Kind {
		case dpctl.Track:
			conn := tracker.track(s.Zone, pkt)
			pkt.Set(ir.CTState, ir.U64(uint64(conn.State|eval.StateTrk)))
			pkt.Set(ir.CTZone, ir.U64(uint64(s.Zone)))
			pkt.Set(ir.CTMark, ir.U64(uint64(conn.Mark)))
			pkt.Set(ir.CTLabel, conn.Label)
		case dpctl.Untrack:
			untrack(pkt)
		case dpctl.Set:
			for _, t := range s.Terms {
				pkt.Set(t.Field, pkt.Value(t.Field).AndNot(t.Mask).Or(t.Value))
			}
		case dpctl.Unclear:
			clear = false
		case dpctl.Recirculate:
			return s.Recirc, clear
		case dpctl.Other:
		}
	}
	return 0, true // nobody asks any more
}

// layers tells where a packet is handled. In steps is what becomes of it, wherever that is.
func (m *meeting) layers(steps []api.TraceStep) []api.LayerVerdict {
	all := []api.LayerVerdict{{Layer: api.LayerNIC}, {Layer: api.LayerTC}, {Layer: api.LayerOVS}}
	from := 0 // how many megaflows the layers so far have carried out
	for i, layer := range []dpctl.Layer{dpctl.NIC, dpctl.TC} {
		where := [...]string{"in hardware", "in TC"}[i]
		l := &all[i]
		to := from
		for to < len(m.path) && m.path[to].Layer >= layer {
			to++
		}
		switch {
		case to == len(m.path) && to > from && m.missing == "":
			*l = overall(*l, steps)
			for j := i + 1; j < len(all); j++ {
				all[j].Answer = api.LayerNotReached
			}
			return all
		case len(m.path) == 0:
			l.Text = m.missing
		case to == from:
			l.Text = "the megaflow that the packet meets is not " + where
		case to == len(m.path):
			l.Text = fmt.Sprintf("it has the first %d megaflows, and not the next", to)
		default:
			l.Text = fmt.Sprintf("it has the first %d of %d megaflows", to, len(m.path))
		}
		l.Answer, from = api.LayerPasses, to
	}
	ovs := overall(all[2], steps)
	if m.missing != "" {
		ovs.Text += "; " + m.missing
	}
	all[2] = ovs
	return all
}
