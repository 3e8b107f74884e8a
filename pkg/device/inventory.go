package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// Options say what an Inventory is about. Only Devlink and Log are needed.
type Options struct {
	Devlink *devlink.Conn
	Log     *slog.Logger
	Pools   []Pool // as Check returns them

	// Sysfs is where sysfs is mounted; "": /sys.
	Sysfs string

	// Route opens a socket of rtnetlink that is told of groups, a mask of RTMGRP_*; nil: in the network namespace of the process.
	Route func(groups uint32) (*netlink.Conn, error)

	// Memory is a file for what has to be restored of functions that are quarantined, so that a restart does not forget it. It must not
	// outlast a boot, after which functions are as new. "": it is forgotten.
	Memory string

	// Patience is how long a function that was given back may take to come back to the host, and a new SF to have a network device.
	// 0: 10 seconds, and a minute.
	Patience time.Duration
}

// An Inventory keeps account of the functions of the node's NICs. Its methods may be called from several goroutines. What takes a driver
// long holds up only what is about the same device.
type Inventory struct {
	kernel   kernel
	sysfs    sysfs
	memory   memory
	log      *slog.Logger
	back     time.Duration // how long the netdev of a function may take to come back
	coming   time.Duration // likewise, that of a new SF
	arrived  chan struct{} // has an element if there are workers that Run has to start
	settling sync.Once

	mu       sync.Mutex // guards what follows
	world    *world
	book     *book
	listed   bool // the list of devices has been read
	workers  map[devlink.Handle]*worker
	revision uint64
	changed  chan struct{} // closed at the next change
}

// New returns an Inventory that knows nothing before Run.
func New(o Options) *Inventory {
	v := &Inventory{
		kernel: kernel{devlink: o.Devlink, dial: o.Route}, sysfs: sysfs(o.Sysfs), memory: memory(o.Memory), log: o.Log,
		back: o.Patience, coming: o.Patience, arrived: make(chan struct{}, 1),
		world: newWorld(), workers: map[devlink.Handle]*worker{}, changed: make(chan struct{}), revision: 1,
		// Larger than any that was given before a restart, unless the clock was set back; Claim sees to that.
		book: newBook(o.Pools, uint64(time.Now().UnixNano())),
	}
	if v.kernel.dial == nil {
		v.kernel.dial = dialRoute
	}
	if v.sysfs == "" {
		v.sysfs = "/sys"
	}
	owed, err := v.memory.read()
	if err != nil {
		v.log.Warn("functions that are quarantined are forgotten", "err", err)
	}
	for _, f := range owed {
		v.book.owed[f.key()] = f
	}
	if o.Patience == 0 {
		v.back, v.coming = 10*time.Second, time.Minute
	}
	return v
}

// lock gives access to the book, whose time it sets. The function that it returns ends that, and tells those who wait if anything has
// changed.
func (v *Inventory) lock() (unlock func(changed bool)) {
	v.mu.Lock()
	v.book.now = time.Now().UnixNano()
	return func(changed bool) {
		if v.book.owedChanged {
			v.book.owedChanged = false
			if err := v.memory.write(v.book.owing()); err != nil {
				v.log.Error("functions that are quarantined cannot be remembered", "err", err)
			}
		}
		if changed {
			v.revision++
			close(v.changed)
			v.changed = make(chan struct{})
			for _, w := range v.workers {
				w.poke()
			}
		}
		v.mu.Unlock()
	}
}

// Run reads what there is, follows what changes, and keeps the pools filled, until ctx ends. An error is final.
func (v *Inventory) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	monitor, err := v.kernel.devlink.Watch()
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	defer func() { _ = monitor.Close() }()
	began := make(chan struct{})
	g.Go(func() error {
		begun := func() error {
			defer close(began)
			return v.readLinks(ctx)
		}
		return v.kernel.watchLinks(ctx, begun, func(e linkEvent) { v.onLink(ctx, e) })
	})
	g.Go(func() error {
		select {
		case <-began:
		case <-ctx.Done():
			return nil
		}
		if err := v.readDevices(ctx); err != nil {
			return err
		}
		for {
			e, err := monitor.Next(ctx)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return err
			case e.Kind == devlink.Resync:
				if err := v.readDevices(ctx); err != nil {
					return err
				}
			default:
				v.onDevlink(e)
			}
		}
	})
	g.Go(func() error {
		for {
			select {
			case <-v.arrived:
				v.mu.Lock()
				for _, w := range v.workers {
					if !w.started {
						w.started = true
						g.Go(func() error { return v.work(ctx, w) }) // it ends with its device, or with ctx
					}
				}
				v.mu.Unlock()
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

// readLinks reads all links, and all devices of SFs.
func (v *Inventory) readLinks(ctx context.Context) error {
	links, err := v.kernel.links(ctx)
	if err != nil {
		return ended(ctx, err)
	}
	sfs, err := v.sysfs.sfs()
	if err != nil {
		return err
	}
	unlock := v.lock()
	defer unlock(true)
	v.world.setLinks(links)
	for h, sf := range sfs {
		v.world.setAuxiliary(h, sf)
	}
	for h := range v.world.nics {
		v.review(h)
	}
	return nil
}

// ended is nil for an error that is the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// readDevices reads the list of devices. What each has is read by its worker.
func (v *Inventory) readDevices(ctx context.Context) error {
	devices, err := v.kernel.devlink.Devices(ctx)
	if err != nil {
		return ended(ctx, fmt.Errorf("device: %w", err))
	}
	sfs, err := v.sysfs.sfs()
	if err != nil {
		return err
	}
	unlock := v.lock()
	defer unlock(true)
	here := map[devlink.Handle]bool{}
	for _, d := range devices {
		here[d.Handle] = true
		sf, isSF := sfs[d.Handle]
		v.arrive(d.Handle, sf, isSF)
	}
	for h, w := range v.workers {
		if !here[h] {
			v.leave(w)
		}
	}
	v.listed = true
	return nil
}

// arrive starts the worker of a device, or lets it read everything again. The own devices of SFs have none: they have no functions.
func (v *Inventory) arrive(h devlink.Handle, sf sfOf, isSF bool) {
	w := v.workers[h]
	switch {
	case isSF:
		v.world.setAuxiliary(h, sf)
		if k, ok := v.world.functionAt(h); ok {
			v.reviewOne(k)
		}
	case w != nil:
		w.stale, w.ports = true, true
	default:
		v.workers[h] = newWorker(h)
		select {
		case v.arrived <- struct{}{}:
		default:
		}
	}
}

// leave forgets a device.
func (v *Inventory) leave(w *worker) {
	v.book.leave(w.Handle)
	v.world.forget(w.Handle)
	delete(v.workers, w.Handle)
	close(w.gone)
	v.place()
}

// place finds the devices of pools.
func (v *Inventory) place() {
	for _, p := range v.book.pools {
		v.book.place(p, v.world.find(p.Device))
	}
}

// review brings the accounts of a device's functions up to date.
func (v *Inventory) review(h devlink.Handle) {
	v.place()
	for _, k := range v.world.functionsOf(h) {
		v.reviewOne(k)
	}
	for k := range v.book.accounts {
		if _, ok := v.world.byKey[k]; !ok && k.Device == h {
			v.book.vanish(k)
		}
	}
}

func (v *Inventory) reviewOne(k key) {
	f, ok := v.world.function(k)
	if !ok {
		return
	}
	before := v.stateOf(k)
	v.book.appear(f)
	if a := v.book.accounts[k]; a != nil && a.state != before && a.state == Quarantined {
		v.log.Warn("function is quarantined", "function", a.Name(), "reason", a.reason, "cause", a.message)
	}
}

func (v *Inventory) stateOf(k key) State {
	if a := v.book.accounts[k]; a != nil {
		return a.state
	}
	return nowhere
}

func (v *Inventory) onLink(ctx context.Context, e linkEvent) {
	if e.lost {
		if err := v.readLinks(ctx); err != nil {
			v.log.Error("links cannot be read after events were lost", "err", err)
		}
		return
	}
	// Before the lock: it is a file.
	sf, isSF := sfOf{}, false
	if e.parent.Bus == auxiliaryBus && !e.gone {
		sf, isSF = v.sysfs.sf(e.parent)
	}
	unlock := v.lock()
	if isSF {
		v.world.setAuxiliary(e.parent, sf)
	}
	old := v.world.links[e.Index]
	keys := v.world.about(old)
	if e.gone {
		v.world.delLink(e.Index)
	} else {
		v.world.setLink(e.link)
		keys = append(keys, v.world.about(e.link)...)
	}
	for _, k := range keys {
		v.reviewOne(k)
	}
	placed := old.Name != e.Name && v.isPoolsDevice(old.Name, e.Name)
	if placed {
		v.place()
	}
	unlock(placed || len(keys) > 0)
}

// isPoolsDevice reports whether a pool names one of the links as its PF.
func (v *Inventory) isPoolsDevice(names ...string) bool {
	return slices.ContainsFunc(v.book.pools, func(p *poolBook) bool { return slices.Contains(names, p.Device) })
}

func (v *Inventory) onDevlink(e devlink.Event) {
	switch e.Kind {
	case devlink.DeviceNew:
		sf, isSF := v.sysfs.sf(e.Device.Handle)
		unlock := v.lock()
		v.arrive(e.Device.Handle, sf, isSF)
		unlock(true)
	case devlink.DeviceGone:
		unlock := v.lock()
		if w := v.workers[e.Device.Handle]; w != nil {
			v.leave(w)
		}
		unlock(true)
	case devlink.PortNew:
		unlock := v.lock()
		v.world.setPort(e.Port)
		v.touch(e.Port.PortHandle)
		v.onPort(e.Port)
		if k, ok := keyOf(e.Port); ok {
			v.reviewOne(k)
		}
		unlock(true)
	case devlink.PortGone:
		unlock := v.lock()
		// Of a port that is gone the kernel tells the flavour too, but who it was is known better here.
		if p := v.world.ports[e.Port.PortHandle]; p != nil {
			v.world.delPort(p.PortHandle)
			v.touch(p.PortHandle)
			v.onPort(p)
			if k, ok := keyOf(p); ok {
				v.book.vanish(k)
			}
		}
		unlock(true)
	case devlink.Resync, devlink.ParamNew, devlink.ParamGone, devlink.RateNew, devlink.RateGone, devlink.ReporterChanged:
	}
}

// touch notes that a port has changed, for the worker that may be reading all.
func (v *Inventory) touch(h devlink.PortHandle) {
	if w := v.workers[h.Handle]; w != nil && w.touched != nil {
		w.touched[h] = true
	}
}

// onPort lets a worker read anew what has no events of its own: the mode of the eswitch, with which the uplink's port comes and goes, and
// what sysfs says of VFs.
func (v *Inventory) onPort(p *devlink.Port) {
	w := v.workers[p.Handle]
	if w != nil && p.Flavour != devlink.FlavourPCISF {
		w.stale = true
	}
	if p.Flavour == devlink.FlavourPhysical {
		v.place()
	}
}

// Reconciled says that all who have functions since before the start have claimed them. What nobody has claimed is verified, and then
// free.
func (v *Inventory) Reconciled() {
	v.settling.Do(func() {
		unlock := v.lock()
		v.book.settle()
		unlock(true)
	})
}

// Claim says that somebody has a function since before the start, as Acquire returned it then. It need not have been found yet: until it is,
// it is Gone. The error is DEVICE_BUSY if it is somebody else's.
func (v *Inventory) Claim(f Function, owner string) error {
	unlock := v.lock()
	err := v.book.claim(f, owner)
	unlock(err == nil)
	return err
}

// Lookup returns the function that somebody has, as it is now; false: they have none.
func (v *Inventory) Lookup(owner string) (FunctionStatus, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.book.owners[owner]
	if a == nil {
		return FunctionStatus{}, false
	}
	return a.status(), true
}

// usable says why functions of a device cannot be used, or nil. No device may be one that has not been read yet.
func (v *Inventory) usable(h devlink.Handle) error {
	unread := func(h devlink.Handle) error {
		return fmt.Errorf("%w%w", errComing, reason.Errorf(reason.NotReady, "device %v: it has not been read yet", h))
	}
	if h == (devlink.Handle{}) {
		for _, w := range v.workers {
			if !w.read {
				return unread(w.Handle)
			}
		}
		return nil
	}
	nic := v.world.nics[h]
	switch {
	case nic == nil || !nic.known && nic.failure == nil:
		return unread(h)
	case nic.failure != nil:
		return reason.Errorf(reason.DeviceFailed, "device %v: it cannot be read: %w", h, nic.failure).With("device", h.String())
	case nic.mode != devlink.ModeSwitchdev:
		return reason.Errorf(reason.EswitchNotSwitchdev, "device %v: the eswitch is in mode %v", h, nic.mode).With("device", h.String())
	}
	return nil
}

// Acquire gives somebody a function, and waits if it has to be made first, or devices are still being read, or all that are not in use are
// being verified. What its attributes are is noted in Before. Reasons for errors
// are POOL_NOT_FOUND, POOL_EXHAUSTED, DEVICE_NOT_FOUND, DEVICE_BUSY, FUNCTION_QUARANTINED, ESWITCH_NOT_SWITCHDEV, FEATURE_UNSUPPORTED for an
// attribute that the function cannot have, and NOT_READY before Reconciled.
func (v *Inventory) Acquire(ctx context.Context, r Request) (Function, error) {
	r, err := r.unslotted()
	if err != nil {
		return Function{}, err
	}
	if err := r.Attributes.check(); err != nil {
		return Function{}, err
	}
	for {
		unlock := v.lock()
		if !v.book.settled {
			unlock(false)
			return Function{}, unsettled(r)
		}
		var a *account
		err := errUnlisted
		if v.listed {
			a, err = v.book.acquire(r, v.usable)
		}
		if errors.Is(err, errComing) {
			changed := v.changed
			unlock(false)
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return Function{}, err
			}
		}
		if err != nil {
			unlock(false)
			return Function{}, err
		}
		if a.state == Used {
			f := a.Function
			unlock(true)
			return v.capture(ctx, f, r)
		}
		unlock(true)
		v.mu.Lock()
		changed := v.changed
		waiting := v.book.owners[r.Owner] == a && a.state == Warming
		v.mu.Unlock()
		if !waiting {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			unlock := v.lock()
			v.book.abandon(r.Owner)
			unlock(true)
			return Function{}, fmt.Errorf("device acquire for %s: %s is being made: %w", r.Owner, a.key().name(), context.Cause(ctx))
		}
	}
}

// errUnlisted is why nobody gets anything before it is known which devices there are.
var errUnlisted = fmt.Errorf("%w%w", errComing, reason.Errorf(reason.NotReady, "device acquire: it is not known yet which devices there are"))

// RDMA returns the RDMA device of a function that nobody has; "": none, or it is in another network namespace.
func (v *Inventory) RDMA(f Function) string {
	name, err := v.sysfs.rdma(f)
	if err != nil {
		v.log.Warn("RDMA device not known", "function", f.Name(), "err", err)
	}
	return name
}

// RDMANodes returns the device nodes that programs need for a function's RDMA device (uverbs, umad, issm, and rdma_cm), as udev names them. Nil: it
// has none, or the kernel has no modules for user space loaded (ib_uverbs, ib_umad).
func (v *Inventory) RDMANodes(f Function) []string {
	nodes, err := v.sysfs.rdmaNodes(f)
	if err != nil {
		v.log.Warn("RDMA device not known", "function", f.Name(), "err", err)
	}
	return nodes
}

// Validate says what Acquire would refuse now, with the same reasons, and changes nothing. Of a function that is free already it reads what its
// driver has; what a driver does not do with what it has is not known before Configure. A function that is about to be free counts as such.
func (v *Inventory) Validate(ctx context.Context, r Request) error {
	r, err := r.unslotted()
	if err != nil {
		return err
	}
	if err := r.Attributes.check(); err != nil {
		return err
	}
	unlock := v.lock()
	if !v.book.settled {
		unlock(false)
		return unsettled(r)
	}
	var a *account
	err = errUnlisted
	if v.listed {
		a, err = v.book.choose(r, v.usable, false)
	}
	if err != nil {
		unlock(false)
		if errors.Is(err, errComing) && reason.Of(err) != reason.NotReady {
			return nil
		}
		return err
	}
	f, free := a.Function, a.state == Free
	f.Before = Before{HWAddr: a.hwAddr}
	unlock(false)
	if !free {
		return nil
	}
	if f.RDMA, err = v.sysfs.rdma(f); err == nil {
		_, err = v.readBefore(ctx, f, r.Attributes)
	}
	if err != nil {
		return fmt.Errorf("device acquire for %s: %s: %w", r.Owner, f.Name(), err)
	}
	return nil
}

func unsettled(r Request) error {
	return reason.Errorf(reason.NotReady, "device acquire for %s: it is not known yet which functions are in use", r.Owner)
}

// capture notes what a function is set to, before anything is.
func (v *Inventory) capture(ctx context.Context, f Function, r Request) (Function, error) {
	if f.Before.MTU != 0 {
		return f, nil // it is the same use
	}
	before := Before{}
	rdma, err := v.sysfs.rdma(f)
	if err == nil {
		f.RDMA = rdma
		before, err = v.readBefore(ctx, f, r.Attributes)
	}
	unlock := v.lock()
	defer unlock(true)
	a := v.book.accounts[f.key()]
	if a == nil || a.owner != r.Owner || a.Generation != f.Generation {
		return Function{}, reason.Errorf(reason.DeviceGone, "device acquire for %s: %s vanished meanwhile", r.Owner, f.Name())
	}
	if err != nil {
		v.book.giveUp(a)
		return Function{}, fmt.Errorf("device acquire for %s: %s: %w", r.Owner, f.Name(), err)
	}
	a.Before, a.RDMA, a.Netdev.Name = before, rdma, before.Netdev // events may be a little behind
	return a.Function, nil
}

// Release takes a function back, waits until it is restored and verified or quarantined, and returns nil then. The function's netdev has to
// be in the host's network namespace, or come back soon. If ctx ends first, it goes on being restored, and belongs to its owner until the
// next Release. A function that is not, or no longer, the owner's use of it is refused with DEVICE_STALE_OWNER if another has it, and
// otherwise there is nothing to do.
func (v *Inventory) Release(ctx context.Context, f Function, owner string) error {
	unlock := v.lock()
	a, wait, err := v.book.release(f, owner)
	unlock(wait)
	if err != nil || !wait {
		return err
	}
	for {
		v.mu.Lock()
		changed, over := v.changed, v.book.owners[owner] != a
		v.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("device release %s: it is being restored: %w", f.Name(), context.Cause(ctx))
		}
	}
}

// Recover lets a function that is quarantined be verified again, and waits for it. The error has the reason if it stays where it is.
func (v *Inventory) Recover(ctx context.Context, h devlink.PortHandle) error {
	return v.outOf(ctx, h, "recover", retried)
}

// Discard deletes an SF that is quarantined, and waits for it.
func (v *Inventory) Discard(ctx context.Context, h devlink.PortHandle) error {
	return v.outOf(ctx, h, "discard", removed)
}

func (v *Inventory) outOf(ctx context.Context, h devlink.PortHandle, verb string, e event) error {
	unlock := v.lock()
	var a *account
	for _, o := range v.book.accounts {
		if o.Handle == h {
			a = o
		}
	}
	var err error
	switch {
	case a == nil:
		err = reason.Errorf(reason.DeviceNotFound, "device %s %v: there is no such function", verb, h)
	case a.state != Quarantined:
		err = reason.Errorf(reason.DeviceBusy, "device %s %s: it is %s, not quarantined", verb, a.Name(), a.condition())
	case e == removed && a.Kind != SF:
		err = reason.Errorf(reason.FeatureUnsupported, "device %s %s: single VFs cannot be deleted", verb, a.Name())
	default:
		v.book.move(a, e)
	}
	unlock(err == nil)
	if err != nil {
		return err
	}
	for {
		v.mu.Lock()
		changed, state, is := v.changed, a.state, reason.Errorf(a.reason, "device %s %s: %s", verb, a.Name(), a.message)
		here := v.book.accounts[a.key()] == a
		v.mu.Unlock()
		switch {
		case !here || state == Free || state == Unmanaged || state == Used:
			return nil
		case state == Quarantined:
			return is
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("device %s %s: %w", verb, a.key().name(), context.Cause(ctx))
		}
	}
}

func (k key) name() string { return fmt.Sprintf("%v pf%d%s%d", k.Device, k.PF, k.Kind, k.Number) }

// owned checks that a function is that use of its owner, and returns it as it is now.
func (v *Inventory) owned(f Function) (Function, Link, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.book.accounts[f.key()]
	switch {
	case a == nil || a.owner == "" || a.Generation != f.Generation:
		return Function{}, Link{}, reason.Errorf(reason.DeviceStaleOwner, "device configure %s: use %d is over", f.Name(), f.Generation)
	case a.state != Used:
		return Function{}, Link{}, reason.Errorf(reason.DeviceGone, "device configure %s: it is %s", f.Name(), a.condition())
	}
	return a.Function, v.world.uplink(f.Handle.Handle), nil
}

// errWorkerGone is why what waits for a turn of a device does not get it.
var errWorkerGone = errors.New("the device is gone")

// turn waits until nothing else is being done to a device. The function that it returns ends the turn.
func (v *Inventory) turn(ctx context.Context, h devlink.Handle, doing string) (func(), error) {
	v.mu.Lock()
	w := v.workers[h]
	v.mu.Unlock()
	if w == nil {
		return nil, reason.Errorf(reason.DeviceNotFound, "device %v: there is no such device", h)
	}
	return v.turnOf(ctx, w, doing)
}

func (v *Inventory) turnOf(ctx context.Context, w *worker, doing string) (func(), error) {
	select {
	case w.taken <- struct{}{}:
	case <-w.gone:
		return nil, reason.Errorf(reason.DeviceGone, "device %v: %w", w.Handle, errWorkerGone)
	case <-ctx.Done():
		v.mu.Lock()
		other := w.doing
		v.mu.Unlock()
		return nil, reason.Errorf(reason.DeviceBusy, "device %v: %s waits for: %s: %w", w.Handle, doing, other, context.Cause(ctx))
	}
	unlock := v.lock()
	w.doing = doing
	unlock(false)
	return func() {
		unlock := v.lock()
		w.doing = ""
		unlock(true)
		<-w.taken
	}, nil
}
