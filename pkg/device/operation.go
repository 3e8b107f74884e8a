package device

import (
	"context"
	"fmt"
	"slices"

	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A Plan is what an explicit operation does, or would do.
type Plan struct {
	Steps    []string // as one would do them by hand: commands of devlink(8), or writes into sysfs
	Removes  []string // functions that vanish
	Affected []string // owners of such: unless there are none the operation is refused
}

// SetVFs makes a device have n VFs, and returns what that takes. Where there are VFs, and n is another number, all vanish first. With dryRun
// nothing is done. An operation that takes functions from their owners is refused with FUNCTIONS_IN_USE, and a plan. If ctx ends before the
// driver is done, the driver goes on.
func (v *Inventory) SetVFs(ctx context.Context, h devlink.Handle, n int, dryRun bool) (Plan, error) {
	var numbers []int
	return v.operate(ctx, h, fmt.Sprintf("making %d VFs", n), dryRun, func(nic *nic) (Plan, error) {
		if n < 0 || n > nic.sysfs.total {
			return Plan{}, reason.Errorf(reason.InvalidField, "device %v: %d VFs: it can have between 0 and %d", h, n, nic.sysfs.total)
		}
		var p Plan
		if n == nic.sysfs.vfs {
			return p, nil
		}
		numbers = []int{n}
		if n != 0 && nic.sysfs.vfs != 0 {
			numbers = []int{0, n}
		}
		for _, n := range numbers {
			p.Steps = append(p.Steps, fmt.Sprintf("echo %d > %s", n, v.sysfs.vfsFile(h)))
		}
		if nic.sysfs.vfs != 0 {
			v.removes(&p, h, func(k Kind) bool { return k == VF })
		}
		return p, nil
	}, func(context.Context) error {
		for _, n := range numbers {
			if err := v.sysfs.setVFs(h, n); err != nil {
				return err
			}
		}
		v.log.Info("device has another number of VFs", "device", h, "vfs", n)
		return nil
	})
}

// SetMode changes the mode of a device's eswitch, and returns what that takes. Representors of the old mode vanish, and with
// them all SFs. With dryRun nothing is done. An operation that takes functions from their owners is refused with FUNCTIONS_IN_USE, and a
// plan.
func (v *Inventory) SetMode(ctx context.Context, h devlink.Handle, mode devlink.EswitchMode, dryRun bool) (Plan, error) {
	return v.operate(ctx, h, fmt.Sprintf("changing its mode to %v", mode), dryRun, func(nic *nic) (Plan, error) {
		if mode != devlink.ModeLegacy && mode != devlink.ModeSwitchdev {
			return Plan{}, reason.Errorf(reason.InvalidField, "device %v: mode %v: neither legacy nor switchdev", h, mode)
		}
		var p Plan
		if mode != nic.mode {
			p.Steps = []string{fmt.Sprintf("devlink dev eswitch set %v mode %v", h, mode)}
			v.removes(&p, h, func(Kind) bool { return true })
		}
		return p, nil
	}, func(ctx context.Context) error {
		return whileBusy(ctx, func() error { return v.kernel.devlink.SetEswitch(ctx, h, devlink.Eswitch{Mode: mode}) })
	})
}

// operate plans an operation, and carries it out unless dryRun says not to. It has the device's turn, and reads the device before, so that the
// plan is about what is there now and not about what was heard of last, and after, so that the next one knows. If ctx ends it returns, and what
// was begun goes on.
func (v *Inventory) operate(ctx context.Context, h devlink.Handle, doing string, dryRun bool, what func(*nic) (Plan, error), do func(context.Context) error) (Plan, error) {
	done, err := v.turn(ctx, h, doing)
	if err != nil {
		return Plan{}, err
	}
	v.reread(ctx, h)
	p, err := v.plan(ctx, h, what)
	if err != nil || dryRun || len(p.Steps) == 0 {
		done()
		return p, err
	}
	result := make(chan error, 1)
	go func() { // it ends when the driver is done
		err := do(ctx)
		v.reread(context.WithoutCancel(ctx), h)
		done()
		result <- err
	}()
	select {
	case err = <-result:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return p, reason.Errorf(failedCode(err), "device %v: %s: %w", h, doing, err)
	}
	return p, nil
}

func failedCode(err error) reason.Reason {
	if code := reason.Of(err); code != reason.Internal {
		return code
	}
	if isBusy(err) {
		return reason.DeviceBusy
	}
	return reason.DeviceFailed
}

// reread reads everything of a device again, unless it does not answer. The caller has its turn.
func (v *Inventory) reread(ctx context.Context, h devlink.Handle) {
	v.mu.Lock()
	w, n := v.workers[h], v.world.nics[h]
	v.mu.Unlock()
	if w != nil && (n == nil || n.failure == nil) {
		v.read(ctx, w, true)
	}
}

// plan returns what an operation does, and refuses it if somebody would lose a function.
func (v *Inventory) plan(ctx context.Context, h devlink.Handle, what func(*nic) (Plan, error)) (Plan, error) {
	if ctx.Err() != nil {
		return Plan{}, context.Cause(ctx)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	nic := v.world.nics[h]
	switch {
	case nic == nil:
		return Plan{}, reason.Errorf(reason.DeviceNotFound, "device %v: there is none with an embedded switch", h).With("device", h.String())
	case !nic.known:
		return Plan{}, reason.Errorf(reason.NotReady, "device %v: it has not been read yet", h)
	case !v.book.settled:
		return Plan{}, reason.Errorf(reason.NotReady, "device %v: it is not known yet which functions are in use", h)
	}
	p, err := what(nic)
	if err == nil && len(p.Affected) > 0 {
		err = reason.Errorf(reason.FunctionsInUse, "device %v: functions of %d ports would vanish, the first is that of %s", h, len(p.Affected), p.Affected[0]).
			With("device", h.String())
	}
	return p, err
}

// removes notes the functions of some kinds that vanish with an operation.
func (v *Inventory) removes(p *Plan, h devlink.Handle, which func(Kind) bool) {
	for _, a := range v.book.sorted() {
		if a.Handle.Handle != h || !which(a.Kind) || a.state == Gone || a.state == Warming && !a.begun {
			continue
		}
		p.Removes = append(p.Removes, a.Name())
		if a.owner != "" {
			p.Affected = append(p.Affected, a.owner)
		}
	}
	slices.Sort(p.Affected)
}
