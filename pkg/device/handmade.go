package device

import (
	"context"
	"fmt"

	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// CreateSF makes an SF that is of no pool, activates it, and returns its port and what that takes. Its network devices come later. With
// dryRun nothing is done, and there is no port.
func (v *Inventory) CreateSF(ctx context.Context, h devlink.Handle, pf uint16, number uint32, dryRun bool) (Plan, devlink.PortHandle, error) {
	k := key{h, SF, pf, number}
	p, err := v.plan(ctx, h, func(*nic) (Plan, error) {
		if err := v.usable(h); err != nil {
			return Plan{}, err
		}
		if pool := v.book.poolOf(k); pool != nil {
			err := reason.Errorf(reason.InvalidField, "device %v: sfnum %d is of the pool %s, which makes its own", h, number, pool.Name)
			err.Fields = []reason.Field{{Path: "number", Cause: fmt.Sprintf("%d: of the pool %s", number, pool.Name)}}
			return Plan{}, err
		}
		if _, there := v.book.accounts[k]; there {
			return Plan{}, reason.Errorf(reason.DeviceBusy, "device %v: there is a function %s already", h, k.name())
		}
		return Plan{Steps: []string{
			fmt.Sprintf("devlink port add %v flavour pcisf pfnum %d sfnum %d", h, pf, number),
			fmt.Sprintf("devlink port function set %v/INDEX state active", h),
		}}, nil
	})
	if err != nil || dryRun {
		return p, devlink.PortHandle{}, err
	}
	done, err := v.turn(ctx, h, "making "+k.name())
	if err != nil {
		return p, devlink.PortHandle{}, err
	}
	defer done()
	var port *devlink.Port
	err = whileBusy(ctx, func() (err error) {
		port, err = v.kernel.devlink.NewPort(ctx, h, devlink.NewPort{Flavour: devlink.FlavourPCISF, PF: pf, SF: &number})
		return err
	})
	if err != nil {
		return p, devlink.PortHandle{}, reason.Errorf(failedCode(err), "device %v: %w", h, err)
	}
	err = whileBusy(ctx, func() error {
		return v.kernel.devlink.SetPortFunction(ctx, port.PortHandle, devlink.Function{State: devlink.Active})
	})
	if err != nil {
		if again := v.kernel.devlink.DelPort(context.WithoutCancel(ctx), port.PortHandle); again != nil {
			v.log.Warn("function is left over", "function", port.PortHandle, "err", again)
		}
		return p, devlink.PortHandle{}, reason.Errorf(failedCode(err), "device %v: %w", h, err)
	}
	v.log.Info("function was made by hand", "function", port.PortHandle, "sfnum", number)
	return p, port.PortHandle, nil
}

// DeleteSF deletes an SF that nobody has, and returns when it is gone, and what that takes. With dryRun nothing is done. One that somebody has
// is refused with FUNCTIONS_IN_USE, and a plan.
func (v *Inventory) DeleteSF(ctx context.Context, h devlink.PortHandle, dryRun bool) (Plan, error) {
	var a *account
	p, err := v.plan(ctx, h.Handle, func(*nic) (Plan, error) {
		for _, o := range v.book.accounts {
			if v.world.byKey[o.key()] == h {
				a = o
			}
		}
		switch {
		case a == nil:
			return Plan{}, reason.Errorf(reason.DeviceNotFound, "device delete %v: there is no such function", h)
		case a.Kind != SF:
			return Plan{}, reason.Errorf(reason.FeatureUnsupported, "device delete %s: single VFs cannot be deleted", a.Name())
		}
		p := Plan{
			Steps: []string{fmt.Sprintf("devlink port function set %v state inactive", h), fmt.Sprintf("devlink port del %v", h)}, Removes: []string{a.Name()},
		}
		switch {
		case a.owner != "":
			p.Affected = []string{a.owner}
		case a.state != Free && a.state != Quarantined && a.state != Unmanaged:
			return Plan{}, reason.Errorf(reason.DeviceBusy, "device delete %s: it is %s", a.Name(), a.condition())
		}
		return p, nil
	})
	if err != nil || dryRun {
		return p, err
	}
	unlock := v.lock()
	moved := v.book.accounts[a.key()] == a && a.owner == "" && v.book.move(a, removed)
	unmanaged := a.state == Unmanaged
	unlock(moved)
	switch {
	case moved: // the worker does it
		return p, v.removal(ctx, a)
	case unmanaged:
		return p, v.unmake(ctx, h)
	}
	return p, reason.Errorf(reason.DeviceBusy, "device delete %v: somebody has acquired it meanwhile", h)
}

// removal waits until an SF that is being deleted is gone.
func (v *Inventory) removal(ctx context.Context, a *account) error {
	for {
		v.mu.Lock()
		changed, state := v.changed, a.state
		here := v.book.accounts[a.key()] == a
		err := reason.Errorf(a.reason, "device delete %s: %s", a.Name(), a.message)
		v.mu.Unlock()
		switch {
		case !here:
			return nil
		case state != Removing:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("device delete %s: %w", a.key().name(), context.Cause(ctx))
		}
	}
}

// unmake deletes an SF of no pool.
func (v *Inventory) unmake(ctx context.Context, h devlink.PortHandle) error {
	done, err := v.turn(ctx, h.Handle, "deleting "+h.String())
	if err != nil {
		return err
	}
	defer done()
	err = whileBusy(ctx, func() error {
		return v.kernel.devlink.SetPortFunction(ctx, h, devlink.Function{State: devlink.Inactive})
	})
	if err == nil || isUnsupported(err) {
		err = whileBusy(ctx, func() error { return v.kernel.devlink.DelPort(ctx, h) })
	}
	if err != nil && !isGone(err) {
		return reason.Errorf(failedCode(err), "device delete %v: %w", h, err)
	}
	v.log.Info("function was deleted by hand", "function", h)
	return nil
}
