package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

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
	table *FilterTable
	bound map[int]struct{} // devices that have the block
	stuck map[scope]struct{}
	known bool // table and bound are what the kernel has
	// index is what devices of the last Sync were numbered.
	index map[string]int
	said  map[string]struct{}
	// shadowed are the filters that a NIC must not have; see Shadowed.
	shadowed map[filterID]struct{}

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
	// and takes those from it that it must not have without the others. It is enough that one of several NICs has a filter.
	Hardware bool
}

// NewFilters returns Filters that know nothing of the kernel yet. dial connects to it; nil: to the one at hand.
func NewFilters(log *slog.Logger, dial func() (*tc.Conn, error)) *Filters {
	if dial == nil {
		dial = func() (*tc.Conn, error) { return tc.Dial(tc.DialOptions{}) }
	}
	return &Filters{log: log, dial: dial, table: NewFilterTable(), bound: map[int]struct{}{}, said: map[string]struct{}{}, shadowed: map[filterID]struct{}{}}
}

// Forget makes the next Sync read what the kernel has.
func (f *Filters) Forget() { f.known = false }

// Gone notes that a device is gone, and with it its qdisc. If none is left that has the block, its filters are gone, too.
func (f *Filters) Gone(ifindex int) {
	delete(f.bound, ifindex)
	if len(f.bound) == 0 {
		f.known = false
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
	if f.known = err == nil && len(refused) == 0; !f.known {
		return err
	}
	for _, op := range ops {
		f.table.Done(op, f.table.indexes[op.Filter.Indev])
	}
	f.log.Info("filters send to a device that was made anew", "filters", len(ops))
	if o.Hardware {
		return f.verify(ctx, f.table.indexes)
	}
	return nil
}

// Port is the number of the socket that asks the kernel for changes, 0: none yet; see tc.Event.
func (f *Filters) Port() uint32 {
	if f.conn == nil {
		return 0
	}
	return f.conn.Port()
}

// Close ends the connection. Filters stay.
func (f *Filters) Close() error {
	if f.conn == nil {
		return nil
	}
	conn := f.conn
	f.conn = nil
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
	f.refused, f.stuck = nil, map[scope]struct{}{}
	if err := f.bind(ctx, devices); err != nil {
		return s, err
	}
	if len(f.bound) == 0 {
		f.table = NewFilterTable() // without devices there is no block
		clear(f.shadowed)
		return f.status(0, 0), nil
	}
	p := f.table.Plan(f.unshadowed(desired, o.Hardware), indexes, PlanOptions{CloseDevices: o.Hardware})
	f.index = indexes
	changed := 0
	for _, part := range [][]tc.Op{p.Close, p.Change} {
		changed += len(part)
		if err := f.apply(ctx, part, indexes); err != nil {
			return s, err
		}
		if o.Hardware && len(part) > 0 {
			if err := f.verify(ctx, indexes); err != nil {
				return s, err
			}
		}
	}
	if err := f.closeStuck(ctx, indexes); err != nil {
		return s, err
	}
	p.Open = slices.DeleteFunc(p.Open, func(op tc.Op) bool {
		g := f.table.Filter(op.Key)
		_, stays := f.stuck[scopeOf(g)]
		return stays
	})
	changed += len(p.Open)
	if err := f.apply(ctx, p.Open, indexes); err != nil {
		return s, err
	}
	if err := f.unbind(ctx, devices); err != nil {
		return s, err
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
		f.known = false
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
	still := map[filterID]struct{}{}
	for i := range out {
		id := idOf(&out[i])
		if _, shadowed := f.shadowed[id]; shadowed {
			out[i].Flags |= tc.SkipHW
			still[id] = struct{}{}
		}
	}
	f.shadowed = still
	return out
}

// verify asks which filters the NIC has, and takes those from it that it must not have. A filter that closes a chain or a device and
// is not in the NIC takes all of them from it.
func (f *Filters) verify(ctx context.Context, indexes map[string]int) error {
	has := map[tc.Key]struct{}{}
	err := f.conn.Dump(ctx, tc.Target{Block: Block}, tc.DumpOptions{Terse: true}, func(in *tc.Installed) error {
		if in.Filter.Flags&tc.InHW != 0 {
			has[in.Filter.Key()] = struct{}{}
		}
		return nil
	})
	if err != nil {
		return err
	}
	all := f.table.list()
	shadowed := Shadowed(all, func(g *tc.Filter) bool {
		_, is := has[g.Key()]
		return is
	})
	var ops []tc.Op
	for _, i := range slices.Backward(shadowed) { // those that are tried last go first
		g := all[i]
		g.Flags = g.Flags&^(tc.InHW|tc.NotInHW) | tc.SkipHW
		ops = append(ops, tc.ReplaceOp(&g))
		f.shadowed[idOf(&g)] = struct{}{}
		f.once("filter kept from the NIC, which lacks one before it", g.String())
	}
	return f.apply(ctx, ops, indexes)
}

// adopt reads what the kernel has.
func (f *Filters) adopt(ctx context.Context, indexes map[string]int) error {
	qdiscs, err := f.conn.Qdiscs(ctx)
	if err != nil {
		return err
	}
	f.bound, f.table, f.foreign = map[int]struct{}{}, NewFilterTable(), 0
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
		f.log.Info("filters adopted", "filters", f.table.Len(), "devices", len(f.bound))
	}
	return err
}

var errAbsent = errors.New("it is not there; filters that send to it stay")

// bind gives devices the block.
func (f *Filters) bind(ctx context.Context, devices []specialize.Device) error {
	for _, d := range devices {
		if _, has := f.bound[d.Ifindex]; has {
			continue
		}
		err := f.conn.EnsureClsact(ctx, d.Ifindex, Block)
		switch errno := unix.Errno(0); {
		case err == nil:
			f.bound[d.Ifindex] = struct{}{}
		case errors.Is(err, unix.ENODEV):
			f.refuse("device "+d.Name, errAbsent)
		case errors.As(err, &errno):
			f.refuse("device "+d.Name, err)
		default:
			return err
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
			f.stuck[scopeOf(r.Op.Filter)] = struct{}{}
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
	closed := f.table.closed()
	handles := f.table.handles()
	var ops []tc.Op
	for s := range f.stuck {
		if _, already := closed[s]; !already {
			g := specialize.Closed(s.chain, s.indev)
			g.Handle = handles.next(g.Chain, g.Pref)
			ops = append(ops, tc.AddOp(&g))
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
