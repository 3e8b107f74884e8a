package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// Batch is what the compiler says at the end of a turn.
type Batch struct {
	Turn uint64
	// Complete says that Replacements are all there is: owners that are not among them want nothing.
	Complete bool
	// More says that the turn goes on in the next batch, which is not Complete itself. Nothing is installed before the
	// last one, but the rules of this one need not be kept by who has compiled them.
	More         bool
	Replacements []Replacement
	// FlushZones are conntrack zones to empty before the flows of this turn are installed.
	FlushZones []uint16
}

// Status is how far a Flows has come.
type Status struct {
	Connected bool
	// Geneve is the tun_metadata field of OVN's Geneve option on the connected bridge, 0 if it is not known.
	Geneve ir.Field
	// Installed says that the connected bridge has everything up to AckedTurn.
	Installed bool
	// AckedTurn is the newest turn all of whose flows the bridge has confirmed.
	AckedTurn uint64
	// Desired and Refused count flows: those that are wanted, and those among them that the bridge does not accept.
	Desired, Refused int
	// Groups and Meters count those that are wanted.
	Groups, Meters int
	// Sent counts the modifications of flows, groups and meters since the start.
	Sent uint64
	Err  error // why the last connection ended or could not be made; nil while connected
}

// RefusedFlow is a flow, group or meter that the bridge did not accept.
type RefusedFlow struct {
	Flow string     // as ovs-ofctl prints it; begins with "group_id=" or "meter=" if it is no flow
	Rows [][16]byte // who wants it
	Err  error
}

// Flows keeps the flows of one bridge as desired. Before the first complete Batch it changes nothing; when its
// context ends it leaves everything in place; when the bridge comes back empty it fills it from memory.
type Flows struct {
	log *slog.Logger
	// learned are the tables whose flows the bridge itself adds: what is in them is left alone unless it is desired.
	learned map[uint8]bool

	mu      sync.Mutex // guards what follows
	path    string
	pending Batch
	status  Status
	refused []RefusedFlow

	work    chan struct{} // pending or path has changed
	changed chan struct{} // status or refused has changed
	queries chan query

	// Owned by Run.
	table    *FlowTable
	complete bool // a complete batch has arrived
	open     bool // of a complete batch, more is to come
	more     bool // of the turn, more is to come
	turn     uint64
	zones    []uint16
	geneve   ir.Field // where OVN's Geneve option was mapped last; 0: nowhere
	blind    bool     // the last attempt to read groups and flows ended the connection
}

// NewFlows returns a Flows without a bridge: SetPath gives it one.
func NewFlows(log *slog.Logger, learnedTables ...uint8) *Flows {
	f := &Flows{
		log:     log,
		learned: map[uint8]bool{},
		work:    make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
		queries: make(chan query),
		table:   NewFlowTable(),
	}
	for _, t := range learnedTables {
		f.learned[t] = true
	}
	return f
}

// SetPath says where the bridge's management socket is. The empty path is no bridge. If it is another bridge, nothing is
// installed from now on.
func (f *Flows) SetPath(path string) {
	f.mu.Lock()
	changed := f.path != path
	f.path = path
	f.status.Installed = f.status.Installed && !changed
	f.mu.Unlock()
	if changed {
		poke(f.work)
	}
}

// Put hands over a batch. It never waits. The caller does not change b afterwards.
func (f *Flows) Put(b Batch) {
	f.mu.Lock()
	p := &f.pending
	if b.Complete {
		p.Complete, p.Replacements = true, nil
	}
	p.Turn, p.More = b.Turn, b.More
	p.Replacements = append(p.Replacements, b.Replacements...)
	p.FlushZones = append(p.FlushZones, b.FlushZones...)
	f.mu.Unlock()
	poke(f.work)
}

// Status returns how far the loop has come.
func (f *Flows) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// TakeRefused returns the flows that were refused since the last call.
func (f *Flows) TakeRefused() []RefusedFlow {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.refused
	f.refused = nil
	return r
}

// Changed receives after Status or TakeRefused have something new to tell.
func (f *Flows) Changed() <-chan struct{} { return f.changed }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (f *Flows) update(change func(*Status)) {
	f.mu.Lock()
	old := f.status
	change(&f.status)
	same := old == f.status
	f.mu.Unlock()
	if !same {
		poke(f.changed)
	}
}

// Reconnection to a socket on the same machine: the pause doubles from the first to the last of these.
const (
	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second
)

// Run connects, installs and reconnects until ctx ends, and then returns nil.
func (f *Flows) Run(ctx context.Context) error {
	backoff := minBackoff
	for ctx.Err() == nil {
		path := f.take()
		if path == "" {
			select {
			case <-ctx.Done():
			case <-f.work:
			case q := <-f.queries:
				f.answer(q)
			}
			continue
		}
		began := time.Now()
		err := f.serve(ctx, path)
		if ctx.Err() != nil {
			break
		}
		f.update(func(s *Status) { s.Connected, s.Installed, s.Geneve, s.Err = false, false, 0, err })
		if time.Since(began) > maxBackoff {
			f.log.Warn("bridge connection ended", "path", path, "err", err)
			backoff = minBackoff
		}
		f.pause(ctx, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// pause returns after d, or when ctx ends.
func (f *Flows) pause(ctx context.Context, d time.Duration) {
	over := time.NewTimer(d)
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			return
		case q := <-f.queries:
			f.answer(q)
		}
	}
}

// errMoved ends a connection whose bridge is not the one we want any more.
var errMoved = errors.New("apply flows: the bridge has moved")

// serve works on one connection until it ends.
func (f *Flows) serve(ctx context.Context, path string) error {
	conn, err := openflow.Dial(ctx, path)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	geneve, err := f.geneveField(ctx, conn)
	if err != nil {
		return err
	}
	f.log.Info("bridge connected", "path", path, "geneve_field", geneve.String())
	f.update(func(s *Status) { s.Connected, s.Geneve, s.Err = true, geneve, nil })

	adopted := false
	poke(f.work) // what is desired already
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Done():
			return conn.Err()
		case q := <-f.queries:
			f.answer(q)
			continue
		case <-f.work:
		}
		if f.take() != path {
			return errMoved
		}
		if !f.complete || f.more {
			continue
		}
		if !adopted {
			if err := f.adopt(ctx, conn); err != nil {
				f.blind = true
				return err
			}
			f.blind = false
			adopted = true
		}
		if err := f.install(ctx, conn, path); err != nil {
			return err
		}
	}
}

// take applies what is pending to the table, and returns where the bridge is.
func (f *Flows) take() (path string) {
	f.mu.Lock()
	b := f.pending
	f.pending = Batch{}
	path = f.path
	f.mu.Unlock()
	if b.Complete {
		f.table.Begin()
		f.open = true
	}
	for i, r := range b.Replacements {
		f.table.Replace(r)
		b.Replacements[i] = Replacement{} // the table has it encoded
	}
	if b.Turn != 0 {
		f.more = b.More
	}
	if f.open && !f.more {
		f.table.End()
		f.open, f.complete = false, true
	}
	f.turn = max(f.turn, b.Turn)
	f.zones = append(f.zones, b.FlushZones...)
	slices.Sort(f.zones)
	f.zones = slices.Compact(f.zones)
	return path
}

// OVN's Geneve option: class, type with the critical bit, and length in bytes (ovn-architecture(7)).
const (
	geneveClass = 0x0102
	geneveType  = 0x80
	geneveLen   = 4
)

// geneveField returns the field that OVN's Geneve option is mapped to, mapping it if it is not: to the same as before
// if it can be, since the flows in memory use that.
func (f *Flows) geneveField(ctx context.Context, conn *openflow.Conn) (ir.Field, error) {
	for range 3 { // another controller may map one at the same time
		table, err := conn.TLVTable(ctx)
		if err != nil {
			return 0, err
		}
		used := map[uint16]bool{}
		for _, t := range table.TLVs {
			if t.Class == geneveClass && t.Type == geneveType {
				if t.Len != geneveLen || t.Index >= 64 {
					return 0, fmt.Errorf("apply flows: OVN's Geneve option is mapped with length %d to tun_metadata%d", t.Len, t.Index)
				}
				f.geneve = ir.TunMetadata0 + ir.Field(t.Index)
				return f.geneve, nil
			}
			used[t.Index] = true
		}
		var free uint16
		if f.geneve != 0 {
			free = uint16(f.geneve - ir.TunMetadata0)
		}
		if used[free] {
			for free = 0; used[free]; {
				free++
			}
		}
		if free >= 64 || free >= table.MaxFields {
			return 0, errors.New("apply flows: no tun_metadata field is free for OVN's Geneve option")
		}
		err = conn.AddTLVs(ctx, openflow.TLV{Class: geneveClass, Type: geneveType, Len: geneveLen, Index: free})
		var refused *openflow.Error
		if err != nil && !errors.As(err, &refused) {
			return 0, err
		}
	}
	return 0, errors.New("apply flows: the bridge does not map OVN's Geneve option")
}

// dumpTimeout is how long the bridge may take to tell its groups.
const dumpTimeout = 10 * time.Second

// adopt learns what is installed. After a failure it does without the groups, whose statistics end the connection if
// somebody has made one with too many buckets.
func (f *Flows) adopt(ctx context.Context, conn *openflow.Conn) error {
	f.table.Reset()
	if f.blind {
		f.log.Warn("groups unknown and replaced")
		f.table.UnknownGroups()
	} else if err := f.adoptGroups(ctx, conn); err != nil {
		return err
	}
	err := conn.DumpMeters(ctx, func(m openflow.Meter) error {
		f.table.InstalledMeter(m.ID, rateMeter(m))
		return nil
	})
	if err != nil {
		return err
	}
	return conn.DumpFlows(ctx, func(s *openflow.FlowStats) error {
		if f.learned[s.Table] {
			return nil
		}
		cookie := s.Cookie
		if s.Other || s.IdleTimeout != 0 || s.HardTimeout != 0 || s.Flags != 0 {
			cookie = unknown.Cookie // not a flow of ours, whatever its actions
		}
		f.table.Installed(s.Table, s.Priority, s.Match, s.Actions, cookie)
		return nil
	})
}

// adoptGroups reads only groups that may be right: those that are too long to be described never are.
func (f *Flows) adoptGroups(ctx context.Context, conn *openflow.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, dumpTimeout)
	defer cancel()
	var candidates []uint32
	err := conn.DumpGroupStats(ctx, func(g openflow.GroupStats) error {
		f.table.InstalledGroup(g.ID, nil)
		if f.table.WantsGroup(g.ID, g.Buckets) {
			candidates = append(candidates, g.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = conn.DescribeGroups(ctx, candidates, func(g *openflow.GroupDesc) error {
		if g.Select {
			f.table.InstalledGroup(g.ID, g.Body)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return conn.Barrier(ctx) // there is order on the connection still
}

// install brings the bridge up to the newest turn and tells that it has arrived.
func (f *Flows) install(ctx context.Context, conn *openflow.Conn, path string) error {
	turn := f.turn
	for _, zone := range f.zones {
		if err := conn.FlushZone(ctx, zone); err != nil {
			return err
		}
	}
	f.zones = nil
	meters, unwanted := f.table.MeterMods()
	for _, m := range meters {
		if err := f.meter(ctx, conn, m); err != nil {
			return err
		}
	}
	mods := f.table.Mods()
	if err := f.commit(ctx, conn, mods); err != nil {
		return err
	}
	for _, id := range unwanted {
		if err := conn.DeleteMeter(ctx, id); err != nil && !errors.As(err, new(*openflow.Error)) {
			return err
		}
	}
	if err := conn.Barrier(ctx); err != nil {
		return err
	}
	f.update(func(s *Status) {
		if f.path == path { // update holds mu
			s.Installed, s.AckedTurn = true, turn
		}
		s.Desired, s.Refused = f.table.Len(), f.table.LenRefused()
		s.Groups, s.Meters = f.table.groups.wanted, f.table.meters.wanted
		s.Sent += uint64(len(meters) + len(mods) + len(unwanted))
	})
	return nil
}

// meter adds or changes a meter.
func (f *Flows) meter(ctx context.Context, conn *openflow.Conn, m MeterMod) error {
	do := conn.AddMeter
	if m.Modify {
		do = conn.ModifyMeter
	}
	err := do(ctx, switchMeter(m))
	if errors.As(err, new(*openflow.Error)) {
		f.table.RefusedMeter(m)
		f.report(RefusedFlow{Flow: formatMeter(m), Rows: f.table.OwnersOfMeter(m.ID), Err: err})
		return nil
	}
	return err
}

// retries is how often a bundle is tried again without the mods that were refused before it is cut in halves: a bundle
// stops at the first mod that cannot be applied, so many bad ones would take as many attempts.
const retries = 8

// commit sends mods in one bundle and isolates those that the bridge refuses.
func (f *Flows) commit(ctx context.Context, conn *openflow.Conn, mods []openflow.Mod) error {
	for range retries {
		mods = f.possible(mods)
		errs, err := conn.Commit(ctx, mods)
		if err != nil {
			var refused *openflow.Error
			if errors.As(err, &refused) && len(mods) == 1 {
				f.refuse(mods[0], err)
				return nil
			}
			return err
		}
		if len(errs) == 0 {
			return nil
		}
		bad := map[int]bool{}
		for _, e := range errs {
			bad[e.Index] = true
			f.refuse(mods[e.Index], e.Err)
		}
		good := make([]openflow.Mod, 0, len(mods))
		for i, m := range mods {
			if !bad[i] {
				good = append(good, m)
			}
		}
		if mods = good; len(mods) == 0 {
			return nil
		}
	}
	if err := f.commit(ctx, conn, mods[:len(mods)/2]); err != nil {
		return err
	}
	return f.commit(ctx, conn, mods[len(mods)/2:])
}

// possible returns mods without the flows that use a group or meter that was refused, which it refuses as well, and
// without other parts of such a group.
func (f *Flows) possible(mods []openflow.Mod) []openflow.Mod {
	if len(f.table.groups.refused)+len(f.table.meters.refused) == 0 {
		return mods
	}
	rest := make([]openflow.Mod, 0, len(mods))
	for _, m := range mods {
		err := f.table.Missing(m)
		switch {
		case err == nil:
			rest = append(rest, m)
		case !isGroup(m):
			f.refuse(m, err)
		}
	}
	return rest
}

func (f *Flows) refuse(m openflow.Mod, err error) {
	f.table.Refused(m, err)
	f.report(RefusedFlow{Flow: modText(m), Rows: f.table.OwnersOf(m), Err: err})
}

func isGroup(m openflow.Mod) bool {
	switch m.Kind {
	case openflow.GroupAdd, openflow.GroupModify, openflow.GroupInsert, openflow.GroupDelete:
		return true
	case openflow.FlowAdd, openflow.FlowModifyStrict, openflow.FlowDeleteStrict, openflow.FlowDelete:
	}
	return false
}

func (f *Flows) report(r RefusedFlow) {
	f.mu.Lock()
	if len(f.refused) < maxRefused {
		f.refused = append(f.refused, r)
	}
	f.mu.Unlock()
	poke(f.changed)
}

// maxRefused bounds the refused flows that wait to be told.
const maxRefused = 1000

// modText returns the flow or group of a mod as ovs-ofctl prints it.
func modText(m openflow.Mod) string {
	if isGroup(m) {
		g, err := openflow.DecodeGroup([]byte(m.Body))
		if err != nil {
			return err.Error()
		}
		return openflow.FormatGroup(m.Group, g)
	}
	match, err := openflow.DecodeMatch([]byte(m.Match))
	if err != nil {
		return err.Error()
	}
	acts, err := openflow.DecodeActions([]byte(m.Body))
	if err != nil {
		return err.Error()
	}
	return openflow.FormatFlow(&ir.Rule{Table: m.Table, Priority: m.Priority, Cookie: m.Cookie, Match: match, Actions: acts})
}
