package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// Block is the index of the block that the ingresses of all devices share.
const Block = 0x0f1d

// Filters keeps the filters of the block, and which devices have it, as desired. It belongs to one goroutine. When it is given
// up everything stays in place, and another one goes on with what it finds.
type Filters struct {
	log   *slog.Logger
	dial  func() (*tc.Conn, error)
	conn  *tc.Conn
	ports []uint32 // of earlier connections
	table *FilterTable
	bound map[int]struct{} // devices that have the block
	stuck map[scope]struct{}
	known bool   // table and bound are what the kernel has
	cause string // why that is not so, for the log
	// devices are those of the last Sync, and index their numbers.
	devices []specialize.Device
	index   map[string]int
	said    map[string]struct{}
	// shadowed are the filters that a NIC must not have; see Shadowed.
	shadowed map[filterID]scope
	hardware hardware
	// futile are the devices that do not get the block even while no filter is in hardware.
	futile map[int]struct{}
	// unsure says that NICs may have other filters than hardware says.
	unsure bool

	foreign int
	refused []RefusedFilter
}

// A RefusedFilter is a filter, or a device, that the kernel did not accept. The chain it belongs to is closed.
type RefusedFilter struct {
	What string // the filter as it is typed after "tc filter", or the device
	Err  error
}

// FilterStatus is what Filters has achieved.
type FilterStatus struct {
	Installed int // filters
	Devices   int
	Closed    int // chains and devices that are closed
	Foreign   int // filters in the block that others have made; they are left alone
	Refused   []RefusedFilter
	// Retired is the number of ends of chains that are to be deleted by another Sync, after a second.
	Retired int
	// Changed is the number of operations of this Sync.
	Changed int
	// Shadowed is the number of filters that the NIC must not have, because it has not those that come before them.
	Shadowed int
}

// SyncOptions say how to install filters.
type SyncOptions struct {
	// Retire deletes the ends of chains that an earlier Sync has left.
	Retire bool

	// Hardware says that a NIC takes filters. Then it is asked, before a chain or device is opened again, which filters the NIC has,
	// and takes those from it that it must not have without the others. Where several NICs share the block it has what all of them have.
	Hardware bool

	// Closed, if not nil, is called when whatever changes is closed: from then on no filter decides otherwise than the desired ones, though
	// some packets go to Open vSwitch that they will decide. Devices that shall have no filters may still have them. It is not called if
	// something could not be closed.
	Closed func()
}

// NewFilters returns Filters that know nothing of the kernel yet. dial connects to it; nil: to the one at hand.
func NewFilters(log *slog.Logger, dial func() (*tc.Conn, error)) *Filters {
	if dial == nil {
		dial = func() (*tc.Conn, error) { return tc.Dial(tc.DialOptions{}) }
	}
	return &Filters{
		log: log, dial: dial, cause: "the first look", table: NewFilterTable(), bound: map[int]struct{}{}, said: map[string]struct{}{},
		shadowed: map[filterID]scope{}, futile: map[int]struct{}{},
	}
}

// Forget makes the next Sync read what the kernel has. The cause is for the log.
func (f *Filters) Forget(cause string) {
	if f.known {
		f.known, f.cause = false, cause
	}
}

// Gone notes that a device is gone, and with it its qdisc. If none is left that has the block, its filters are gone, too.
func (f *Filters) Gone(ifindex int) {
	delete(f.bound, ifindex)
	delete(f.futile, ifindex)
	f.unsure = true
	if len(f.bound) == 0 {
		f.Forget("no device is left")
	}
}

// Lost reports whether NICs have lost filters that they had, which nobody is told. in lists all filters of the kernel. The next
// Sync offers them anew.
func (f *Filters) Lost(in []*tc.Installed) int {
	if !f.known || f.unsure {
		return 0 // Sync will see
	}
	lost := f.hardware.lost(in)
	for _, k := range lost {
		if g := f.table.filters[k]; g != nil {
			delete(f.hardware.alive, f.table.indexes[g.Indev])
		}
		f.offer(k)
	}
	if len(lost) > 0 {
		f.log.Warn("filters lost by the NIC are offered anew", "filters", len(lost))
		f.unsure = true
		clear(f.shadowed)
	}
	return len(lost)
}

// offer makes a filter one that the next Sync installs anew, in the order of a change. What is not in hardware does what one with skip_hw does.
func (f *Filters) offer(k tc.Key) {
	if g := f.table.filters[k]; g != nil {
		h := *g
		h.Flags |= tc.SkipHW
		f.table.filters[k] = &h
	}
}

// Follow makes filters that send to a device which was made anew send to the new one. They mean what they did, so that none is closed for it:
// it is for the time until Sync, since the old ones drop. A filter that the kernel refuses is left to Sync.
func (f *Filters) Follow(ctx context.Context, devices []specialize.Device, o SyncOptions) (err error) {
	defer f.giveUp(&err)
	moved := map[int]int{}
	for _, d := range devices {
		if was := f.index[d.Name]; was != 0 && was != d.Ifindex {
			moved[was] = d.Ifindex
		}
	}
	if len(moved) == 0 {
		return nil
	}
	indexes := indexesOf(devices)
	if err := f.ready(ctx, indexes); err != nil {
		return err
	}
	f.index = indexes
	ops := f.table.Follow(moved)
	if len(ops) == 0 {
		return nil
	}
	refused, err := f.conn.Apply(ctx, tc.Target{Block: Block}, ops)
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		f.Forget(refused[0].Error())
		return nil
	}
	for _, op := range ops {
		f.table.Done(op, f.table.indexes[op.Filter.Indev])
	}
	f.log.Info("filters send to a device that was made anew", "filters", len(ops))
	if o.Hardware {
		return f.verify(ctx, f.table.indexes, ops)
	}
	return nil
}

// maxKinds bounds how many kinds of filters drivers are asked about at once.
const maxKinds = 64

// notAsked is what is said of filters of further kinds.
const notAsked = "nobody has asked the driver: too many kinds of filters are not in hardware"

// Why asks drivers why they do not take filters, once for each kind of them: of the same keys and actions. It returns what they say in
// the order of the filters, "" where there is nothing to say. device is a port of the switch whose driver it is.
func (f *Filters) Why(ctx context.Context, device string, filters []*tc.Filter) (says []string, err error) {
	defer f.giveUp(&err)
	if f.conn == nil {
		if f.conn, err = f.dial(); err != nil {
			return nil, err
		}
	}
	said := map[string]string{}
	says = make([]string, len(filters))
	for i, g := range filters {
		kind := kindOf(g)
		words, asked := said[kind]
		switch {
		case asked:
		case len(said) >= maxKinds:
			words = notAsked
		default:
			if words, err = f.conn.WhyNot(ctx, Block, device, g); err != nil {
				return nil, err
			}
			said[kind] = words
		}
		says[i] = words
	}
	return says, nil
}

// kindOf is the same for filters that ask for the same keys, and do the same but for values.
func kindOf(f *tc.Filter) string {
	b := fmt.Appendf(nil, "%t %x %d %t", f.Chain == 0, f.Protocol, f.EncDstPort, f.Indev == "")
	for _, t := range f.Match {
		b = fmt.Appendf(b, " %d", t.Field)
		if t.Field == ir.CTState || t.Field == ir.IPProto {
			b = fmt.Appendf(b, "=%v", t.Value)
		}
	}
	for _, a := range f.Actions {
		b = fmt.Appendf(b, " %T", a)
		if p, is := a.(tc.Pedit); is {
			for _, e := range p.Edits {
				b = fmt.Appendf(b, ",%d", e.Field)
			}
		}
	}
	return string(b)
}

// Key returns the key by which the kernel has a filter that asks for the same packets of the same chain at the same pref, and whether there is one.
func (f *Filters) Key(g *tc.Filter) (tc.Key, bool) {
	k, ok := f.table.byID[idOf(g)]
	return k, ok && f.known
}

// maxPorts is of how many earlier connections it is known that they were ours: events of their changes may still be on their way.
const maxPorts = 8

// Ours reports whether a change was made by these Filters, over their connection or one that they have given up. port is that of the event, see
// tc.Event.
func (f *Filters) Ours(port uint32) bool {
	return port != 0 && (f.conn != nil && f.conn.Port() == port || slices.Contains(f.ports, port))
}

// Close ends the connection. Filters stay.
func (f *Filters) Close() error {
	if f.conn == nil {
		return nil
	}
	conn := f.conn
	f.conn = nil
	f.ports = append(f.ports, conn.Port())
	f.ports = f.ports[max(0, len(f.ports)-maxPorts):]
	return conn.Close()
}

// Sync makes the block have the desired filters, and exactly the given devices have the block. After an error what is installed is
// not known, and the next Sync finds out.
func (f *Filters) Sync(ctx context.Context, desired []tc.Filter, devices []specialize.Device, o SyncOptions) (s FilterStatus, err error) {
	defer f.giveUp(&err)
	indexes := indexesOf(devices)
	if err := f.ready(ctx, indexes); err != nil {
		return s, err
	}
	f.refused, f.stuck, f.devices = nil, map[scope]struct{}{}, slices.Clone(devices)
	fresh, err := f.bind(ctx, devices, indexes, o.Hardware)
	if err != nil {
		return s, err
	}
	if len(f.bound) == 0 {
		f.table = NewFilterTable() // without devices there is no block
		clear(f.shadowed)
		f.hardware, f.unsure = hardware{}, true
		return f.status(0, 0), nil
	}
	if o.Hardware && fresh {
		if err := f.offerAll(ctx); err != nil {
			return s, err
		}
	}
	p := f.plan(desired, indexes, o.Hardware)
	f.index = indexes
	changed := 0
	for i, part := range [][]tc.Op{p.Close, p.Change} {
		changed += len(part)
		if err := f.apply(ctx, part, indexes); err != nil {
			return s, err
		}
		if o.Hardware && len(part) > 0 {
			if err := f.verify(ctx, indexes, part); err != nil {
				return s, err
			}
		}
		if i == 0 && len(f.refused) == 0 && o.Closed != nil {
			o.Closed()
		}
	}
	if o.Hardware && f.unsure {
		if err := f.verify(ctx, indexes, nil); err != nil {
			return s, err
		}
	}
	if err := f.closeStuck(ctx, indexes); err != nil {
		return s, err
	}
	p.Open = slices.DeleteFunc(p.Open, func(op tc.Op) bool {
		g := f.table.Filter(op.Key)
		if g == nil {
			return true // it was refused itself
		}
		_, stays := f.stuck[scopeOf(g)]
		return stays
	})
	changed += len(p.Open)
	if err := f.apply(ctx, p.Open, indexes); err != nil {
		return s, err
	}
	if o.Hardware && changed > 0 {
		n, err := f.offerKept(ctx, indexes)
		if err != nil {
			return s, err
		}
		changed += n
	}
	if err := f.unbind(ctx, devices); err != nil {
		return s, err
	}
	if len(f.refused) > 0 {
		// Perhaps only because somebody has taken the block away meanwhile, which refuses everything.
		if err := f.stillBound(ctx); err != nil {
			return s, err
		}
	}
	retired := len(p.Retire)
	if o.Retire {
		if err := f.apply(ctx, p.Retire, indexes); err != nil {
			return s, err
		}
		retired = 0
	}
	return f.status(retired, changed), nil
}

// ready connects, and finds out what the kernel has, if that is not known.
func (f *Filters) ready(ctx context.Context, indexes map[string]int) (err error) {
	if f.conn == nil {
		if f.conn, err = f.dial(); err != nil {
			return err
		}
	}
	if !f.known {
		return f.adopt(ctx, indexes)
	}
	return nil
}

// giveUp ends the connection if there is an error, after which what is installed is not known.
func (f *Filters) giveUp(err *error) {
	if *err != nil {
		f.Forget((*err).Error())
		*err = errors.Join(*err, f.Close())
	}
}

func indexesOf(devices []specialize.Device) map[string]int {
	indexes := map[string]int{}
	for _, d := range devices {
		indexes[d.Name] = d.Ifindex
	}
	return indexes
}

func (f *Filters) status(retired, changed int) FilterStatus {
	return FilterStatus{
		Installed: f.table.Len(), Devices: len(f.bound), Closed: f.table.Closed(), Foreign: f.foreign,
		Refused: f.refused, Retired: retired, Changed: changed, Shadowed: len(f.shadowed),
	}
}

// plan plans the way to desired. Where something changes it is found out anew what a NIC must not have.
func (f *Filters) plan(desired []tc.Filter, indexes map[string]int, hardware bool) FilterPlan {
	o := PlanOptions{CloseDevices: hardware}
	p := f.table.Plan(f.unshadowed(desired, hardware), indexes, o)
	if len(f.shadowed) == 0 {
		return p
	}
	changed := map[scope]struct{}{}
	for _, op := range slices.Concat(p.Close, p.Change) {
		g := op.Filter
		if g == nil {
			g = f.table.filters[op.Key]
		}
		if g != nil && !isProbe(g) {
			changed[scopeOf(g)] = struct{}{}
		}
	}
	before := len(f.shadowed)
	maps.DeleteFunc(f.shadowed, func(_ filterID, s scope) bool { _, is := changed[s]; return is })
	if len(f.shadowed) == before {
		return p
	}
	return f.table.Plan(f.unshadowed(desired, hardware), indexes, o)
}

// offerAll is for when a device has come. The kernel offers it what is there, but nothing to a driver whose tunnel devices were there
// before; and what another device did not take may have been kept from it.
func (f *Filters) offerAll(ctx context.Context) error {
	clear(f.shadowed)
	f.unsure = true
	if _, err := f.look(ctx, nil); err != nil {
		return err
	}
	f.hardware.update(f.table, f.bound, f.devices)
	for k, g := range f.table.filters {
		if g.EncDstPort != 0 && f.hardware.has(g, true) != ByAll {
			f.offer(k)
		}
	}
	return nil
}

// unshadowed returns desired with those filters kept from the NIC that it must not have. Of those that are desired no more nothing is
// remembered.
func (f *Filters) unshadowed(desired []tc.Filter, hardware bool) []tc.Filter {
	if !hardware {
		clear(f.shadowed)
	}
	if len(f.shadowed) == 0 {
		return desired
	}
	out := slices.Clone(desired)
	still := map[filterID]scope{}
	for i := range out {
		id := idOf(&out[i])
		if s, shadowed := f.shadowed[id]; shadowed {
			out[i].Flags |= tc.SkipHW
			still[id] = s
		}
	}
	f.shadowed = still
	return out
}

// verify asks which of the filters that operations have made NICs have, nil: of all filters, and takes those from them that they must not
// have. A filter that closes a chain or a device and is not in the NIC takes all of them from it.
func (f *Filters) verify(ctx context.Context, indexes map[string]int, done []tc.Op) error {
	all, err := f.look(ctx, done)
	if err != nil {
		return err
	}
	if f.hardware.update(f.table, f.bound, f.devices) && !all { // what has been enough may not be any more
		if _, err := f.look(ctx, nil); err != nil {
			return err
		}
		f.hardware.update(f.table, f.bound, f.devices)
	}
	list := f.table.list()
	var ops []tc.Op
	for _, i := range slices.Backward(Shadowed(list, f.hardware.has)) { // those that are tried last go first
		g := list[i]
		g.Flags = g.Flags&^(tc.InHW|tc.NotInHW) | tc.SkipHW
		ops = append(ops, tc.ReplaceOp(&g))
		f.shadowed[idOf(&g)] = scopeOf(&g)
		f.once("filter kept from the NIC, which lacks one before it", g.String())
	}
	if err := f.apply(ctx, ops, indexes); err != nil {
		return err
	}
	for i := range ops {
		delete(f.hardware.counts, ops[i].Key)
	}
	f.hardware.update(f.table, f.bound, f.devices)
	return nil
}

// offerKept offers NICs what they have been kept from, as far as they are not to be kept from it any more: what closed a chain, or had not changed
// yet, may have been the only reason. It returns how many filters these are.
func (f *Filters) offerKept(ctx context.Context, indexes map[string]int) (int, error) {
	if len(f.shadowed) == 0 {
		return 0, nil
	}
	list := f.table.list()
	kept := map[tc.Key]bool{}
	for i := range list {
		if _, is := f.shadowed[idOf(&list[i])]; is {
			kept[list[i].Key()] = true
		}
	}
	still := Shadowed(list, func(g *tc.Filter, tunnelled bool) Taken {
		if kept[g.Key()] && tunnelled == (g.EncDstPort != 0) {
			return ByAll // it was taken before
		}
		return f.hardware.has(g, tunnelled)
	})
	for _, i := range still {
		delete(kept, list[i].Key())
	}
	var ops []tc.Op
	for i := range list {
		if g := list[i]; kept[g.Key()] {
			g.Flags &^= tc.InHW | tc.NotInHW | tc.SkipHW
			ops = append(ops, tc.ReplaceOp(&g))
			delete(f.shadowed, idOf(&g))
		}
	}
	if len(ops) == 0 {
		return 0, nil
	}
	if err := f.apply(ctx, ops, indexes); err != nil {
		return 0, err
	}
	return len(ops), f.verify(ctx, indexes, ops)
}

// maxAsked is how many filters are asked for one by one; of more all are listed. To tell of a filter a driver may have to ask its NIC.
const maxAsked = 1024

// look reads which filters are in hardware of those that operations have made, nil: of all, and of those that are not there although the same
// chain, or device in chain 0, has changed. It reports whether it has read all.
func (f *Filters) look(ctx context.Context, done []tc.Op) (all bool, err error) {
	note := func(in *tc.Installed) error {
		if n := inHardware(in); n > 0 && specialize.IsOurs(in.Filter.Cookie) {
			f.hardware.counts[in.Filter.Key()] = n
		}
		return nil
	}
	var asked []tc.Key
	if all = done == nil || f.unsure; !all {
		asked = f.absent(done)
		all = len(asked) > maxAsked
	}
	if !all {
		return false, f.conn.Get(ctx, tc.Target{Block: Block}, asked, note)
	}
	f.hardware.counts = map[tc.Key]uint32{}
	err = f.conn.Dump(ctx, tc.Target{Block: Block}, tc.DumpOptions{}, note)
	f.unsure = f.unsure && err != nil
	return true, err
}

// absent returns the filters that are not known to be in hardware after operations, of the scopes that these have changed.
func (f *Filters) absent(done []tc.Op) (keys []tc.Key) {
	changed := map[scope]struct{}{}
	for _, op := range done {
		delete(f.hardware.counts, op.Key)
		if op.Filter != nil {
			changed[scopeOf(op.Filter)] = struct{}{}
		}
	}
	for k, g := range f.table.filters {
		if _, is := changed[scopeOf(g)]; is && f.hardware.counts[k] == 0 && g.Flags&tc.SkipHW == 0 {
			keys = append(keys, k)
		}
	}
	return keys
}

// adopt reads what the kernel has.
func (f *Filters) adopt(ctx context.Context, indexes map[string]int) error {
	qdiscs, err := f.conn.Qdiscs(ctx)
	if err != nil {
		return err
	}
	f.bound, f.table, f.foreign, f.unsure = map[int]struct{}{}, NewFilterTable(), 0, true
	for _, q := range qdiscs {
		if q.Block == Block {
			f.bound[q.Ifindex] = struct{}{}
		}
	}
	if len(f.bound) > 0 {
		err = f.conn.Dump(ctx, tc.Target{Block: Block}, tc.DumpOptions{}, func(in *tc.Installed) error {
			if !specialize.IsOurs(in.Filter.Cookie) {
				f.foreign++
				f.once("foreign filter left alone", in.Filter.String())
				return nil
			}
			g := in.Filter
			f.table.Installed(&g, indexes[g.Indev])
			return nil
		})
	}
	f.known = err == nil
	if f.known && f.table.Len() > 0 {
		f.log.Info("filters adopted", "filters", f.table.Len(), "devices", len(f.bound), "cause", f.cause)
	}
	return err
}

var errAbsent = errors.New("it is not there; filters that send to it stay")

// bind gives devices the block. It reports whether one has it anew.
func (f *Filters) bind(ctx context.Context, devices []specialize.Device, indexes map[string]int, hardware bool) (fresh bool, err error) {
	for _, d := range devices {
		if _, has := f.bound[d.Ifindex]; has {
			continue
		}
		err := f.give(ctx, d, indexes, hardware)
		switch errno := unix.Errno(0); {
		case err == nil:
			f.bound[d.Ifindex] = struct{}{}
			delete(f.futile, d.Ifindex)
			fresh = true
		case errors.Is(err, unix.ENODEV):
			f.refuse("device "+d.Name, errAbsent)
		case errors.As(err, &errno):
			f.refuse("device "+d.Name, err)
		default:
			return fresh, err
		}
	}
	return fresh, nil
}

// stillBound fails if a device does not have the block any more.
func (f *Filters) stillBound(ctx context.Context) error {
	qdiscs, err := f.conn.Qdiscs(ctx)
	if err != nil {
		return err
	}
	for ifindex := range f.bound {
		if !slices.ContainsFunc(qdiscs, func(q tc.Qdisc) bool { return q.Ifindex == ifindex && q.Block == Block }) {
			return fmt.Errorf("apply filters: device %d has lost the block", ifindex)
		}
	}
	return nil
}

// unbind takes the block from devices that should not have it.
func (f *Filters) unbind(ctx context.Context, devices []specialize.Device) error {
	keep := map[int]struct{}{}
	for _, d := range devices {
		keep[d.Ifindex] = struct{}{}
	}
	for ifindex := range f.bound {
		if _, wanted := keep[ifindex]; wanted {
			continue
		}
		err := f.conn.DeleteClsact(ctx, ifindex)
		if errno := unix.Errno(0); err != nil && !errors.As(err, &errno) {
			return err
		}
		delete(f.bound, ifindex)
		f.unsure = true
	}
	if len(f.bound) == 0 {
		f.table = NewFilterTable() // the block is gone
	}
	return nil
}

// apply does operations, and notes which scopes cannot be as desired.
func (f *Filters) apply(ctx context.Context, ops []tc.Op, indexes map[string]int) error {
	if len(ops) == 0 {
		return nil
	}
	refused, err := f.conn.Apply(ctx, tc.Target{Block: Block}, ops)
	if err != nil {
		return err
	}
	bad := map[int]error{}
	for i := range refused {
		r := &refused[i]
		switch {
		case r.Op.Verb == tc.Delete && errors.Is(r.Err, unix.ENOENT):
			// somebody else has deleted it
		case r.Op.Verb == tc.Add && errors.Is(r.Err, unix.EEXIST), r.Op.Verb == tc.Replace && errors.Is(r.Err, unix.ENOENT):
			return fmt.Errorf("apply filters: the block is not as it was: %w", r)
		case r.Op.Verb == tc.Delete:
			return fmt.Errorf("apply filters: %w", r)
		default:
			bad[r.Index] = r
			f.refuse(r.Op.String(), r)
			if !isProbe(r.Op.Filter) { // without it packets go the way that they go with it
				f.stuck[scopeOf(r.Op.Filter)] = struct{}{}
			}
		}
	}
	for i, op := range ops {
		if bad[i] == nil {
			ifindex := 0
			if op.Filter != nil {
				ifindex = indexes[op.Filter.Indev]
			}
			f.table.Done(op, ifindex)
		}
	}
	return nil
}

// closeStuck closes chains and devices that lack a filter and are not closed yet.
func (f *Filters) closeStuck(ctx context.Context, indexes map[string]int) error {
	kinds, handles := f.table.kinds(nil), f.table.handles()
	var ops []tc.Op
	for s := range f.stuck {
		for _, g := range kinds[s].closings(s) {
			if _, already := f.table.byID[idOf(&g)]; !already {
				g.Handle = handles.next(g.Chain, g.Pref)
				ops = append(ops, tc.AddOp(&g))
			}
		}
	}
	return f.apply(ctx, ops, indexes)
}

func (f *Filters) refuse(what string, err error) {
	f.refused = append(f.refused, RefusedFilter{what, err})
	f.once("filter refused", what+": "+err.Error())
}

// once logs something the first time it occurs.
func (f *Filters) once(message, what string) {
	key := message + what
	if _, said := f.said[key]; said || len(f.said) > maxRefused {
		return
	}
	f.said[key] = struct{}{}
	f.log.Warn(message, "what", what) //nolint:sloglint // callers pass constants
}
