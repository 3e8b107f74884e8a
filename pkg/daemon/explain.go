package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
	"github.com/offloadd/offloadd/pkg/trace"
)

// Explain tells what becomes of the packets of a port, or of one packet.
func (f *Flows) Explain(ctx context.Context, req api.ExplainRequest) (api.Explanation, error) {
	place, err := f.findPort(ctx, req.Port)
	if err != nil {
		return api.Explanation{}, err
	}
	if f.agent.config.Offload == offloadDelegated {
		return f.explainDelegated(ctx, place, req)
	}
	v, err := f.filterView(ctx)
	if err != nil {
		return api.Explanation{}, err
	}
	e := api.Explanation{Device: place.device, Idle: v.idle(place.device)}
	if req.Microflow == "" {
		return e, f.explainPort(ctx, v, &e)
	}
	return e, f.explainPacket(ctx, v, place, req, &e)
}

// idle says why filters handle no packets of a device, "" if they do.
func (v *filterView) idle(device string) string {
	if v.status.Idle != "" {
		return v.status.Idle
	}
	_, bind := v.devices()
	for _, d := range bind {
		if d.Name != device {
			continue
		}
		if _, bound := v.bound[d.Ifindex]; !bound {
			return "the device does not have the block"
		}
		return ""
	}
	return "the device cannot offload, or is gone"
}

// A puntKey is what punts are told together by.
type puntKey struct {
	reason specialize.Reason
	row    [16]byte // of the logical flow that decides
}

// explainPort sums what filters have counted of a device's packets.
func (f *Flows) explainPort(ctx context.Context, v *filterView, e *api.Explanation) error {
	entries, states := v.program.From(e.Device)
	if len(entries) == 0 {
		return nil
	}
	ours := map[uint32]struct{}{}
	for _, s := range states {
		ours[s.Chain] = struct{}{}
	}
	others := map[uint32]struct{}{} // chains that packets of other devices come to
	_, states = v.program.Reached(func(o *specialize.Entry) bool { return o.Device != e.Device })
	for _, s := range states {
		others[s.Chain] = struct{}{}
	}
	var mine []*viewedFilter
	var leaves []*specialize.Leaf
	for i := range v.filters {
		x := &v.filters[i]
		g := x.filter()
		_, reached := ours[g.Chain]
		if x.wanted == nil || !reached && (g.Chain != 0 || g.Indev != "" && g.Indev != e.Device) {
			continue
		}
		mine = append(mine, x)
		if x.wanted.Leaf != nil {
			leaves = append(leaves, x.wanted.Leaf)
		}
	}
	if err := f.refusals(ctx, v, mine, e); err != nil {
		return err
	}
	flows, err := f.deciding(ctx, leaves)
	if err != nil {
		return err
	}
	e.Forwarded, e.Dropped, e.Punted = &api.Counters{}, &api.Counters{}, &api.Counters{}
	punts := map[puntKey]*api.Punt{}
	for _, x := range mine {
		w := x.wanted
		_, shared := others[w.Chain]
		shared = shared || w.Chain == 0 && w.Indev == ""
		e.Shared = e.Shared || shared && w.Chain != 0
		n := x.counters()
		if n == nil {
			n = &api.Counters{}
		}
		if w.Reason == specialize.NoReason {
			switch w.Leaf.Verdict.(type) {
			case specialize.Drop:
				add(e.Dropped, n)
			case *specialize.Output:
				add(e.Forwarded, n)
			case specialize.Lookup, specialize.Goto, specialize.Punt:
			}
			continue
		}
		add(e.Punted, n)
		key := puntKey{reason: w.Reason}
		var flow *api.LogicalFlow
		if w.Leaf != nil {
			if flow = flows[w.Leaf]; flow != nil {
				id, _ := sb.ParseUUID(flow.UUID) // it is one
				key.row = id
			}
		}
		p := punts[key]
		if p == nil {
			p = puntOf(w.Reason, flow)
			punts[key] = p
		}
		add(&p.Counters, n)
		p.Filters++
		p.Shared = p.Shared || shared
	}
	for _, p := range punts {
		e.Punts = append(e.Punts, *p)
	}
	slices.SortFunc(e.Punts, func(a, b api.Punt) int {
		return cmp.Or(cmp.Compare(b.Counters.Packets, a.Counters.Packets), strings.Compare(a.Reason, b.Reason), strings.Compare(uuidOf(a.LogicalFlow), uuidOf(b.LogicalFlow)))
	})
	return nil
}

// refusals tells which filters hardware has, of those that mine are, and why not the others.
func (f *Flows) refusals(ctx context.Context, v *filterView, mine []*viewedFilter, e *api.Explanation) error {
	among := map[*viewedFilter]struct{}{}
	for _, x := range mine {
		among[x] = struct{}{}
		if x.has != nil && x.has.Filter.Flags&tc.InHW != 0 {
			e.InHW++
		}
	}
	if err := f.agent.offload.ask(ctx, v, func(x *viewedFilter) bool { _, is := among[x]; return is }); err != nil {
		return err
	}
	name, _ := v.devices()
	all := map[string]*api.Refusal{}
	for _, x := range mine {
		if x.says == "" {
			continue
		}
		r := all[x.says]
		if r == nil {
			r = &api.Refusal{Text: x.says, Example: x.filter().Args(name)}
			all[x.says] = r
		}
		r.Filters++
		add(&r.Counters, x.counters())
	}
	for _, r := range all {
		e.Refusals = append(e.Refusals, *r)
	}
	slices.SortFunc(e.Refusals, func(a, b api.Refusal) int {
		return cmp.Or(cmp.Compare(b.Filters, a.Filters), strings.Compare(a.Text, b.Text))
	})
	return nil
}

func uuidOf(lf *api.LogicalFlow) string {
	if lf == nil {
		return ""
	}
	return lf.UUID
}

func add(sum, n *api.Counters) { sum.Packets, sum.Bytes = sum.Packets+n.Packets, sum.Bytes+n.Bytes }

func puntOf(r specialize.Reason, flow *api.LogicalFlow) *api.Punt {
	doc := r.Doc()
	return &api.Punt{Reason: doc.Name, Text: doc.Text, Fix: doc.Fix, LogicalFlow: flow}
}

// defaultTTL is the TTL of packets to explain whose TTL nobody mentions: with 0 all of them would be left to Open vSwitch.
const defaultTTL = 64

// A question is a packet as it arrives, what the connection tracker finds for it, and what becomes of it by the rules of the bridge.
type question struct {
	came    eval.Packet
	tracker *scriptedTracker
	steps   []api.TraceStep
}

// question reads a request with a packet.
func (f *Flows) question(ctx context.Context, place portPlace, req api.ExplainRequest) (q question, err error) {
	if place.name == "" {
		return q, reason.Errorf(reason.LPortNotFound, "daemon explain: device %s is of no logical port", place.device).With("port", req.Port)
	}
	microflow := "inport == " + strconv.Quote(place.name) + " && (" + req.Microflow + ")"
	var flow trace.Microflow
	var failed error
	err = f.agent.query(ctx, func() {
		if microflow, flow, failed = withTTL(f.agent.store, microflow); failed == nil {
			q.steps, failed = f.agent.trace(api.TraceRequest{Microflow: microflow, CT: req.CT})
		}
	})
	if err = cmp.Or(err, failed); err != nil {
		return q, err
	}
	q.came = flow.Packet()
	if place.tag != 0 {
		q.came.Set(ir.VLANTCI, ir.U64(0x1000|uint64(place.tag)))
	}
	q.tracker = &scriptedTracker{ct: req.CT, mark: uint32(q.came.Value(ir.CTMark).Lo), label: q.came.Value(ir.CTLabel)}
	untrack(&q.came)
	return q, nil
}

// untrack takes from a packet what the connection tracker knows of it.
func untrack(pkt *eval.Packet) {
	for field := ir.CTState; field <= ir.CTTPDst; field++ {
		pkt.Set(field, ir.U128{})
	}
}

// explainPacket runs a packet through the filters that the kernel has, and through the rules of the bridge where they leave it.
func (f *Flows) explainPacket(ctx context.Context, v *filterView, place portPlace, req api.ExplainRequest, e *api.Explanation) error {
	q, err := f.question(ctx, place, req)
	if err != nil {
		return err
	}
	came, tracker := q.came, q.tracker
	var verdict eval.Verdict
	if e.Idle == "" {
		verdict = eval.NewBlock(v.installed).Run(came, eval.Arrival{Device: place.device}, tracker.track)
	}
	path := v.path(&verdict)
	if err := f.agent.offload.ask(ctx, v, func(x *viewedFilter) bool { return slices.Contains(path, x) }); err != nil {
		return err
	}
	name, _ := v.devices()
	for _, x := range path {
		e.Filters = append(e.Filters, x.show(name))
	}
	e.Layers = layers(e.Idle, &verdict, path, tracker.missed, name, q.steps)
	if verdict.Kind != eval.Passed || e.Idle != "" {
		return nil
	}
	why, leaf := v.punted(place.device, &came, path, tracker)
	if why == specialize.NoReason {
		return nil
	}
	var leaves []*specialize.Leaf
	if leaf != nil {
		leaves = append(leaves, leaf)
	}
	flows, err := f.deciding(ctx, leaves)
	if err != nil {
		return err
	}
	p := puntOf(why, flows[leaf])
	if len(path) > 0 {
		p.Filters = 1
	}
	e.Punts = append(e.Punts, *p)
	return nil
}

// path returns the filters of a verdict.
func (v *filterView) path(verdict *eval.Verdict) (path []*viewedFilter) {
	for _, k := range verdict.Path {
		for i := range v.filters {
			if x := &v.filters[i]; x.has != nil && x.key() == k {
				path = append(path, x)
			}
		}
	}
	return path
}

// withTTL returns a microflow with the TTL that it has if it does not say so itself.
func withTTL(store *sb.Store, microflow string) (string, trace.Microflow, error) {
	flow, err := trace.ParseMicroflow(store, microflow, "")
	if err != nil {
		return "", flow, err
	}
	_, mentioned := flow.Match.Term(ir.IPTTL)
	t, _ := flow.Match.Term(ir.EthType)
	if mentioned || t.Value.Lo != tc.ProtocolIPv4 && t.Value.Lo != tc.ProtocolIPv6 {
		return microflow, flow, nil
	}
	microflow += fmt.Sprintf(" && ip.ttl == %d", defaultTTL)
	flow.Match = flow.Match.Eq(ir.IPTTL, defaultTTL)
	return microflow, flow, nil
}

// A scriptedTracker finds what a request says, in the order of the lookups, and established connections after that.
type scriptedTracker struct {
	ct    []string
	mark  uint32
	label ir.U128

	last   uint32 // the state that was found last, 0 before the first lookup
	zone   uint16 // that was asked last
	missed bool   // a connection was not established
}

func (t *scriptedTracker) track(zone uint16, _ *eval.Packet) eval.Conn {
	state := uint32(eval.StateEst)
	if len(t.ct) > 0 {
		state, _ = trace.ParseState(t.ct[0]) // the API has checked it
		t.ct = t.ct[1:]
	}
	t.last, t.zone = state|eval.StateTrk, zone
	t.missed = t.missed || !t.established()
	return eval.Conn{State: state, Mark: t.mark, Label: t.label}
}

func (t *scriptedTracker) established() bool {
	return t.last&eval.StateEst != 0 && t.last&eval.StateInv == 0
}

// punted finds why filters leave a packet, and the rule that says so, which need not have a filter.
func (v *filterView) punted(device string, came *eval.Packet, path []*viewedFilter, t *scriptedTracker) (specialize.Reason, *specialize.Leaf) {
	etherType := uint16(came.Value(ir.EthType).Lo)
	if len(path) == 0 {
		entries, _ := v.program.From(device)
		for _, e := range entries {
			if e.EtherType == etherType && e.Tunnel == nil && came.Value(ir.VLANTCI).IsZero() {
				return firstPunt(e.Rules, came)
			}
		}
		return specialize.NotIP, nil
	}
	last := path[len(path)-1]
	switch {
	case last.wanted == nil:
		return specialize.NoReason, nil // closed, or of somebody else
	case last.wanted.Kind != specialize.KindEnd:
		return last.wanted.Reason, last.wanted.Leaf
	}
	tracked := *came
	if t.last != 0 {
		tracked.Set(ir.CTState, ir.U64(uint64(t.last)))
		tracked.Set(ir.CTZone, ir.U64(uint64(t.zone)))
		tracked.Set(ir.CTMark, ir.U64(uint64(t.mark)))
		tracked.Set(ir.CTLabel, t.label)
	}
	for _, s := range v.program.States {
		if s.Chain == last.wanted.Chain && s.Satisfies(etherType, t.established(), t.zone) {
			if why, leaf := firstPunt(s.Rules, &tracked); leaf != nil {
				return why, leaf
			}
		}
	}
	// It is the lookup that led here.
	var leaf *specialize.Leaf
	if len(path) > 1 && path[len(path)-2].wanted != nil {
		leaf = path[len(path)-2].wanted.Leaf
	}
	return last.wanted.Reason, leaf
}

// firstPunt returns the first rule that a packet satisfies, if it is a punt.
func firstPunt(rules []specialize.Leaf, pkt *eval.Packet) (specialize.Reason, *specialize.Leaf) {
	for i := range rules {
		if l := &rules[i]; pkt.Satisfies(l.Match) {
			if p, ok := l.Verdict.(specialize.Punt); ok {
				return p.Reason, l
			}
			break
		}
	}
	return specialize.NotIP, nil
}

// layers tells what becomes of a packet in each layer. In steps is what Open vSwitch does with it.
func layers(idle string, v *eval.Verdict, path []*viewedFilter, missed bool, name func(int) string, steps []api.TraceStep) []api.LayerVerdict {
	nic := api.LayerVerdict{Layer: api.LayerNIC, Answer: api.LayerPasses}
	kernel := api.LayerVerdict{Layer: api.LayerTC, Answer: api.LayerPasses}
	ovs := api.LayerVerdict{Layer: api.LayerOVS, Answer: api.LayerNotReached}
	if idle != "" {
		nic.Text, kernel.Text = "no filters: "+idle, "no filters: "+idle
		return []api.LayerVerdict{nic, kernel, overall(ovs, steps)}
	}
	verdict, delivers := verdictText(v, name)
	hardware := 0
	for hardware < len(path) && path[hardware].has.Filter.Flags&tc.InHW != 0 {
		hardware++
	}
	switch {
	case hardware == 0:
		nic.Text = "no filter that the packet meets is in hardware"
		if len(path) > 0 && path[0].says != "" {
			nic.Text += ": " + path[0].says
		}
	case hardware < len(path):
		nic.Text = fmt.Sprintf("it has the first %d of %d filters", hardware, len(path))
		if says := path[hardware].says; says != "" {
			nic.Text += ": " + says
		}
	case missed:
		nic.Text = "the connection is not established"
	case v.Kind == eval.Passed:
		nic.Text = verdict
	default:
		nic.Answer, nic.Text, nic.Delivers = api.LayerDecides, verdict, delivers
		kernel.Answer = api.LayerNotReached
		return []api.LayerVerdict{nic, kernel, ovs}
	}
	kernel.Text, kernel.Delivers = verdict, delivers
	if v.Kind != eval.Passed {
		kernel.Answer = api.LayerDecides
		return []api.LayerVerdict{nic, kernel, ovs}
	}
	return []api.LayerVerdict{nic, kernel, overall(ovs, steps)}
}

func verdictText(v *eval.Verdict, name func(int) string) (text string, delivers bool) {
	switch v.Kind {
	case eval.Passed:
		if len(v.Path) == 0 {
			return "no filter matches", false
		}
		return "left to Open vSwitch", false
	case eval.Dropped:
		if v.Why != "" {
			return "dropped: " + v.Why, false
		}
		return "dropped", false
	case eval.Redirected:
		text := "sent out of " + cmp.Or(name(v.Ifindex), deviceName(v.Ifindex))
		if t := v.Tunnel; t != nil {
			text += fmt.Sprintf(" to %s, VNI %d", t.Dst, t.ID)
		}
		return text, true
	case eval.Lost:
		return "lost: " + v.Why, false
	}
	return v.Kind.String(), false
}

func deviceName(ifindex int) string {
	if i, err := net.InterfaceByIndex(ifindex); err == nil {
		return i.Name
	}
	return "if" + strconv.Itoa(ifindex)
}

// overall completes what Open vSwitch does with the steps of a trace.
func overall(ovs api.LayerVerdict, steps []api.TraceStep) api.LayerVerdict {
	ovs.Answer = api.LayerDecides
	var to []string
	dropped := "delivered nowhere"
	for _, s := range steps {
		switch s.Kind {
		case api.TraceOutput:
			to = append(to, fmt.Sprintf("%s (%s)", s.LogicalPort, s.Via))
		case api.TraceDrop:
			dropped = "delivered nowhere: " + s.Text
		case api.TracePipeline, api.TraceTable, api.TraceAction, api.TraceNote:
		}
	}
	if ovs.Text = dropped; len(to) > 0 {
		ovs.Text, ovs.Delivers = "delivered to "+strings.Join(to, ", "), true
	}
	return ovs
}
