package device

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A worker does what is to be done on a device, one thing after the other. So a driver that takes long, or does not come back, holds up
// nothing but its own device.
type worker struct {
	devlink.Handle
	wake  chan struct{}
	gone  chan struct{} // closed when the device is no more
	taken chan struct{} // has an element while something is being done to the device

	// Guarded by the Inventory's mutex.
	started bool
	read    bool // it has been read, or could not be
	stale   bool // mode, and what sysfs says, are to be read
	ports   bool // the ports too
	doing   string

	// touched are the ports that have changed since all are being read, of which the list may not know; nil: they are not being read.
	touched map[devlink.PortHandle]bool

	tries int // to read the names of VFs that are coming, or a device that does not answer
}

func newWorker(h devlink.Handle) *worker {
	return &worker{Handle: h, wake: make(chan struct{}, 1), gone: make(chan struct{}), taken: make(chan struct{}, 1), stale: true, ports: true}
}

func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

const (
	// operationTime bounds what is done with a function in the background.
	operationTime = 30 * time.Second
	// resetTime is how long the restoring of a function is tried before it is quarantined, which its owner waits for.
	resetTime = 10 * time.Second
	// modeInterval is how often the mode of an eswitch is read, of whose changes there are no events.
	modeInterval = 10 * time.Second
	// fullWait, shortWait: no SF is made in advance for so long after the device had no room, or the sfnum was not free.
	fullWait  = 10 * time.Second
	shortWait = 200 * time.Millisecond
	// resetWait is how often it is looked whether a function has come back.
	resetWait = 100 * time.Millisecond
	// mostSilence is the longest time until a device that does not answer is asked again.
	mostSilence = 30 * time.Minute
	// enableWait is how often it is looked whether a new SF has a device.
	enableWait = 100 * time.Millisecond
)

// work does what there is to do until the device is gone, or ctx ends.
func (v *Inventory) work(ctx context.Context, w *worker) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	readAgain := time.Now().Add(modeInterval)
	go func() { // it ends with ctx, at the latest when the worker does
		select {
		case <-w.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		due := time.Now().After(readAgain)
		unlock := v.lock()
		n := v.world.nics[w.Handle]
		// A device that failed is asked for nothing but how it is, and not often: what it does not answer stays in the kernel.
		broken := n != nil && n.failure != nil
		stale, ports := (w.stale || w.ports) && !broken || due, w.ports
		if stale {
			w.stale, w.ports = false, false
		}
		unlock(false)
		if stale {
			done, err := v.turnOf(ctx, w, "reading it")
			if err != nil {
				return nil
			}
			again := v.read(ctx, w, ports)
			done()
			readAgain = time.Now().Add(again)
			continue
		}
		if !broken && v.workOnce(ctx, w) {
			continue
		}
		unlock = v.lock()
		wait := time.Until(readAgain)
		if at := v.book.wakes(w.Handle); at != 0 && !broken {
			wait = min(wait, time.Until(time.Unix(0, at)))
		}
		unlock(false)
		timer := time.NewTimer(max(wait, time.Millisecond))
		select {
		case <-w.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// workOnce does what is next to be done, and reports whether there was anything.
func (v *Inventory) workOnce(ctx context.Context, w *worker) bool {
	unlock := v.lock()
	unlock(v.usable(w.Handle) == nil && v.book.fill(w.Handle))
	unlock = v.lock()
	a, t := v.book.todo(w.Handle)
	if a == nil {
		unlock(false)
		return false
	}
	a.inHand = true
	unlock(false)
	done, err := v.turnOf(ctx, w, t.String()+" "+a.key().name())
	if err == nil {
		v.do(ctx, w, a, t)
		done()
	}
	unlock = v.lock()
	a.inHand = false
	unlock(true)
	return err == nil
}

// silent notes that a device does not answer, so that nothing more is asked of it.
func (v *Inventory) silent(ctx context.Context, w *worker, err error) {
	if n := v.world.nics[w.Handle]; errors.Is(err, devlink.ErrUnanswered) && !errors.Is(ctx.Err(), context.Canceled) && n != nil {
		n.failure = err
	}
}

func (t task) String() string {
	switch t {
	case toReset:
		return "restoring"
	case toMake:
		return "making"
	case toEnable:
		return "enabling"
	case toRemove:
		return "removing"
	}
	return "nothing with"
}

// read reads the mode of a device's eswitch, what sysfs says, and if they are asked for the ports. It returns when to read again.
func (v *Inventory) read(ctx context.Context, w *worker, withPorts bool) time.Duration {
	e, err := v.kernel.devlink.Eswitch(ctx, w.Handle)
	if errors.Is(err, devlink.ErrUnsupported) {
		unlock := v.lock() // it is no NIC, or none that forwards
		w.read = true
		if v.world.nics[w.Handle] != nil {
			v.book.leave(w.Handle)
			v.world.forget(w.Handle)
			v.place()
		}
		unlock(true)
		return 6 * modeInterval
	}
	var fs sysfsNIC
	var ports []*devlink.Port
	if err == nil {
		v.recoverRDMA(w.Handle)
		fs, err = v.sysfs.nic(w.Handle)
	}
	if err == nil && withPorts {
		v.mu.Lock()
		w.touched = map[devlink.PortHandle]bool{}
		v.mu.Unlock()
		ports, err = v.kernel.devlink.Ports(ctx, w.Handle)
	}
	if ctx.Err() != nil {
		return 0
	}
	unlock := v.lock()
	touched := w.touched
	w.touched = nil
	select {
	case <-w.gone:
		unlock(false)
		return 0
	default:
	}
	w.read = true
	n := v.world.nics[w.Handle]
	if n == nil {
		n = &nic{Handle: w.Handle, sysfs: sysfsNIC{numa: -1}}
		v.world.nics[w.Handle] = n
	}
	if err != nil {
		if !isGone(err) && n.failure == nil {
			v.log.Warn("device cannot be read", "device", w.Handle, "err", err)
		}
		n.failure, w.ports = err, w.ports || withPorts
		v.place()
		w.tries++
		again := min(time.Second<<min(w.tries, 20), mostSilence)
		unlock(true)
		return again
	}
	changed := n.mode != e.Mode || n.failure != nil || !n.known || n.sysfs.vfs != fs.vfs || len(n.sysfs.virtfns) != len(fs.virtfns) || withPorts
	if n.mode != e.Mode {
		v.book.retry(w.Handle)
		v.log.Info("device has another mode", "device", w.Handle, "mode", e.Mode, "before", n.mode)
	}
	n.mode, n.sysfs, n.known, n.failure = e.Mode, fs, true, nil
	if withPorts {
		v.world.setPorts(w.Handle, v.world.merged(ports, touched))
	}
	if changed {
		v.review(w.Handle)
	}
	// The port of a VF may come before sysfs tells of it, and there is no event for that.
	missing := slices.ContainsFunc(v.world.functionsOf(w.Handle), func(k key) bool { return k.Kind == VF && fs.virtfns[k.Number].Dev == "" })
	again := modeInterval
	if w.tries++; !missing {
		w.tries = 0
	} else if w.tries < 10 {
		again = 10 * time.Millisecond << w.tries
	}
	unlock(changed)
	return again
}

// recoverRDMA lets functions that are quarantined because of their RDMA devices be verified again if these have come back, of which
// there are no events.
func (v *Inventory) recoverRDMA(h devlink.Handle) {
	v.mu.Lock()
	away := v.book.withoutRDMA(h)
	v.mu.Unlock()
	for _, f := range away {
		if is, err := v.sysfs.rdma(f); err != nil || is != f.RDMA {
			continue
		}
		unlock := v.lock()
		a := v.book.accounts[f.key()]
		back := a != nil && a.state == Quarantined && a.Generation == f.Generation && v.book.move(a, retried)
		unlock(back)
	}
}

// do carries out a task, whose function is in hand.
func (v *Inventory) do(ctx context.Context, w *worker, a *account, t task) {
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	switch t {
	case toReset:
		v.reset(ctx, a)
	case toMake:
		v.makeSF(ctx, w, a)
	case toEnable:
		v.enable(ctx, a)
	case toRemove:
		v.removeSF(ctx, w, a)
	}
}

// makeSF makes an SF and activates it. Its device and netdev come later, with events.
func (v *Inventory) makeSF(ctx context.Context, w *worker, a *account) {
	v.mu.Lock()
	f, pool := a.Function, a.pool.Pool
	v.mu.Unlock()
	var port *devlink.Port
	err := whileBusy(ctx, func() (err error) {
		port, err = v.kernel.devlink.NewPort(ctx, w.Handle, devlink.NewPort{Flavour: devlink.FlavourPCISF, PF: f.PF, SF: &f.Number})
		return err
	})
	if err != nil {
		v.notMade(ctx, w, a, err)
		return
	}
	f.Handle = port.PortHandle
	err = v.fit(ctx, pool, f, port)
	if err == nil {
		err = whileBusy(ctx, func() error {
			return v.kernel.devlink.SetPortFunction(ctx, port.PortHandle, devlink.Function{State: devlink.Active})
		})
	}
	if err != nil {
		if err := v.kernel.devlink.DelPort(ctx, port.PortHandle); err != nil {
			v.log.Warn("function is left over", "function", port.PortHandle, "err", err)
		}
		v.notMade(ctx, w, a, err)
		return
	}
	unlock := v.lock()
	defer unlock(true)
	a.begun = true
	a.later = v.book.now + enableWait.Nanoseconds()
	// What the port is events tell, in order: the answer may be newer than those that are still to come.
	v.reviewOne(f.key())
	v.log.Debug("function was made", "function", a.Name())
}

// fit sets an SF that was just made to what its pool wants, and reads that back.
func (v *Inventory) fit(ctx context.Context, pool Pool, f Function, port *devlink.Port) error {
	want, ok := pool.function()
	if !ok {
		return nil
	}
	if err := pool.possible(f, port.Function); err != nil {
		return err
	}
	if err := whileBusy(ctx, func() error { return v.kernel.devlink.SetPortFunction(ctx, port.PortHandle, want) }); err != nil {
		return err
	}
	is, err := v.kernel.devlink.Port(ctx, port.PortHandle)
	if err != nil {
		return err
	}
	if d, ok := pool.differs(is.Function); ok {
		return reason.Errorf(reason.AttributeNotKept, "device %s: %v", f.Name(), d).With("attribute", d.attribute)
	}
	return nil
}

// fits reports whether an SF is as its pool wants it: it may be from before the configuration was changed.
func (v *Inventory) fits(ctx context.Context, pool Pool, f Function) bool {
	if _, ok := pool.function(); !ok || f.Kind != SF {
		return true
	}
	is, err := v.kernel.devlink.Port(ctx, f.Handle)
	if err != nil {
		return true // if it is gone an event tells
	}
	d, differs := pool.differs(is.Function)
	if differs {
		v.log.Info("function does not fit its pool, and is removed", "function", f.Name(), "pool", pool.Name, "cause", d.String())
	}
	return !differs
}

// notMade gives up an SF that could not be made.
func (v *Inventory) notMade(ctx context.Context, w *worker, a *account, err error) {
	unlock := v.lock()
	defer unlock(true)
	if v.book.accounts[a.key()] != a {
		return
	}
	v.silent(ctx, w, err)
	until := func(d time.Duration) int64 { return v.book.now + d.Nanoseconds() }
	switch {
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded): // the daemon ends
		v.book.unmade(a, "", "", 0)
		return
	case errors.Is(err, devlink.ErrExists):
		v.book.unmade(a, "", "", until(shortWait))
		return
	case errors.Is(err, devlink.ErrFull):
		v.book.unmade(a, reason.PoolExhausted, err.Error(), until(fullWait))
	case isBusy(err):
		v.book.unmade(a, reason.DeviceBusy, err.Error(), until(fullWait))
	case reason.Of(err) == reason.FeatureUnsupported || reason.Of(err) == reason.AttributeNotKept:
		v.book.unmade(a, reason.Of(err), err.Error(), until(fullWait))
	default:
		w.stale = true // perhaps the eswitch has another mode
		v.book.unmade(a, reason.DeviceFailed, err.Error(), until(fullWait))
	}
	v.log.Warn("function cannot be made", "pool", a.Pool, "err", err)
}

// enable looks after an SF that has no netdev yet. Its device makes none before the parameter enable_eth says so, which for mlx5 it does
// not by default. An SF that has none in time is quarantined.
func (v *Inventory) enable(ctx context.Context, a *account) {
	v.mu.Lock()
	f, enabled := a.Function, a.enabled
	missing, since := a.missing(), time.Unix(0, a.since)
	v.mu.Unlock()
	var err error
	if f.Device != "" && !enabled {
		err = v.enableEth(ctx, devlink.Handle{Bus: f.Bus, Dev: f.Device})
		enabled = true
	}
	unlock := v.lock()
	defer unlock(true)
	switch {
	case a.state != Warming || v.book.accounts[a.key()] != a:
		return
	case err != nil:
		missing += ": " + err.Error()
	case time.Since(since) < v.coming:
		a.enabled, a.later = enabled, v.book.now+enableWait.Nanoseconds()
		return
	}
	v.book.quarantine(a, reason.FunctionNotReady, missing)
	v.log.Warn("function is quarantined", "function", a.Name(), "reason", a.reason, "cause", a.message)
}

// enableEth lets a device have a netdev, if it has a parameter that says no.
func (v *Inventory) enableEth(ctx context.Context, h devlink.Handle) error {
	const parameter = "enable_eth"
	p, err := v.kernel.devlink.Param(ctx, h, parameter)
	if isUnsupported(err) || isGone(err) { // the function has no devlink, or not this
		return nil
	}
	if err != nil {
		return err
	}
	if on, ok := p.Value(devlink.ModeDriverInit); !ok || on != false {
		return nil
	}
	if err := v.kernel.devlink.SetParam(ctx, h, parameter, devlink.ParamValue{Mode: devlink.ModeDriverInit, Value: true}); err != nil {
		return err
	}
	_, err = v.kernel.devlink.Reload(ctx, h, devlink.Reload{})
	return err
}

// removeSF deletes an SF.
func (v *Inventory) removeSF(ctx context.Context, w *worker, a *account) {
	v.mu.Lock()
	f := a.Function
	a.begun = true
	v.mu.Unlock()
	err := whileBusy(ctx, func() error {
		return v.kernel.devlink.SetPortFunction(ctx, f.Handle, devlink.Function{State: devlink.Inactive})
	})
	if err == nil || isUnsupported(err) {
		err = whileBusy(ctx, func() error { return v.kernel.devlink.DelPort(ctx, f.Handle) })
	}
	unlock := v.lock()
	defer unlock(true)
	if err != nil && !isGone(err) {
		w.stale = true
		v.silent(ctx, w, err)
		v.book.quarantine(a, reason.DeviceFailed, err.Error())
		v.log.Warn("function cannot be removed", "function", f.Name(), "err", err)
		return
	}
	v.world.delPort(f.Handle)
	v.touch(f.Handle)
	v.book.vanish(f.key())
	v.log.Debug("function was removed", "function", f.Name())
}

// reset restores a function and verifies it. While something of it is missing it waits.
func (v *Inventory) reset(ctx context.Context, a *account) {
	v.mu.Lock()
	f, missing, uplink := a.Function, a.missing(), v.world.uplink(a.Handle.Handle)
	whole := f.whole()
	since := time.Unix(0, a.since)
	pool := Pool{}
	if a.pool != nil {
		pool = a.pool.Pool
	}
	v.mu.Unlock()

	code, message := reason.FunctionElsewhere, missing
	patience := v.back
	if whole {
		within, cancel := context.WithTimeout(ctx, resetTime)
		is, err := v.restore(within, f, uplink)
		cancel()
		if err == nil {
			fits := v.fits(ctx, pool, f)
			unlock := v.lock()
			defer unlock(true)
			if v.book.move(a, verified) {
				a.hwAddr = is.HWAddr
			}
			if !fits && a.state == Free {
				v.book.move(a, removed)
			}
			return
		}
		code, message = reason.Of(err), err.Error()
		if code == reason.Internal {
			code = reason.FunctionNotRestored
		}
		if code != reason.RepresentorInUse {
			patience = min(patience, resetTime)
		}
	}
	unlock := v.lock()
	defer unlock(true)
	if time.Since(since) < patience {
		a.later = v.book.now + resetWait.Nanoseconds()
		return
	}
	if a.state == Resetting {
		v.book.quarantine(a, code, message)
		v.log.Warn("function is quarantined", "function", f.Name(), "reason", code, "cause", message)
	}
}
