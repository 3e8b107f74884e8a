package device_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/devlink/devlinktest"
	"github.com/offloadd/offloadd/pkg/reason"
)

// sfsOf are the states of a snapshot's SFs by number.
func sfsOf(s device.Snapshot) map[uint32]device.State {
	states := map[uint32]device.State{}
	for _, f := range s.Functions {
		if f.Kind == device.SF {
			states[f.Number] = f.State
		}
	}
	return states
}

// An SF by hand is made, is nobody's, and is deleted; nothing of it is left if the driver refuses to activate it. Those of a pool are
// deleted if nobody has them.
func TestSFsByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCard(t)
		h := c.nic("0000:03:00.0", 1, 1)
		v := c.start(device.Pool{Name: "vf", Device: h.String(), Kind: device.VF}, device.Pool{Name: "sf", Device: h.String(), Kind: device.SF, MaxWarm: 1, Max: 4})
		v.Reconciled()
		ctx := context.Background()
		v.counts(t, "vf", map[device.State]int{device.Free: 1})
		are := func(want map[uint32]device.State) {
			t.Helper()
			v.until(t, func(s device.Snapshot) error {
				if got := sfsOf(s); fmt.Sprint(got) != fmt.Sprint(want) {
					return fmt.Errorf("SFs are %v, want %v", got, want)
				}
				return nil
			})
		}

		plan, _, err := v.CreateSF(ctx, h, 0, 7, true)
		if err != nil || len(plan.Steps) != 2 || plan.Steps[0] != "devlink port add pci/0000:03:00.0 flavour pcisf pfnum 0 sfnum 7" {
			t.Errorf("the plan for an SF: %+v, %v", plan, err)
		}
		are(map[uint32]device.State{})
		_, port, err := v.CreateSF(ctx, h, 0, 7, false)
		if err != nil {
			t.Fatal(err)
		}
		are(map[uint32]device.State{7: device.Unmanaged})
		if p, err := c.devlink.Conn().Port(ctx, port); err != nil || p.SF != 7 || p.Function.State != devlink.Active {
			t.Errorf("its port is %v, %v", p, err)
		}

		_, _, err = v.CreateSF(ctx, h, 0, 7, false)
		wantReason(t, "the same SF again", err, reason.DeviceBusy, "already")
		_, _, err = v.CreateSF(ctx, h, 0, 103, false)
		wantReason(t, "an SF of the pool", err, reason.InvalidField, "of the pool sf")
		_, _, err = v.CreateSF(ctx, devlink.Handle{Bus: "pci", Dev: "x"}, 0, 8, false)
		wantReason(t, "an SF of no device", err, reason.DeviceNotFound, "")
		_, err = v.DeleteSF(ctx, h.Port(1), false)
		wantReason(t, "a VF", err, reason.FeatureUnsupported, "single VFs")
		_, err = v.DeleteSF(ctx, h.Port(4711), false)
		wantReason(t, "nothing", err, reason.DeviceNotFound, "")

		plan, err = v.DeleteSF(ctx, port, true)
		if err != nil || len(plan.Steps) != 2 || len(plan.Removes) != 1 || len(plan.Affected) != 0 {
			t.Errorf("the plan for its end: %+v, %v", plan, err)
		}
		are(map[uint32]device.State{7: device.Unmanaged})
		if _, err := v.DeleteSF(ctx, port, false); err != nil {
			t.Errorf("its end: %v", err)
		}
		are(map[uint32]device.State{})

		c.devlink.Refuse = func(r devlinktest.Request) devlinktest.Refusal {
			if r.Command == 6 { // DEVLINK_CMD_PORT_SET
				return devlinktest.Refusal{Errno: 22, Message: "no"}
			}
			return devlinktest.Refusal{}
		}
		_, _, err = v.CreateSF(ctx, h, 0, 7, false)
		wantReason(t, "an SF that cannot be activated", err, reason.DeviceFailed, "no")
		for _, p := range c.devlink.Ports(h) {
			if p.Flavour == devlink.FlavourPCISF {
				t.Errorf("left over: %v", &p)
			}
		}
		c.devlink.Refuse = nil

		// Of the pool.
		got := make(chan device.Function, 1)
		go func() {
			f, err := v.Acquire(ctx, device.Request{Device: "sf.slot.3", Owner: "a"})
			if err != nil {
				t.Errorf("Acquire: %v", err)
			}
			got <- f
		}()
		are(map[uint32]device.State{100: device.Warming})
		v.until(t, func(device.Snapshot) error {
			for _, p := range c.devlink.Ports(h) {
				if p.SF == 100 && p.Function.State == devlink.Active {
					return nil
				}
			}
			return errors.New("no SF 100")
		})
		c.bind(h, 100, 31)
		f := <-got
		if f.Number != 100 || f.Pool != "sf" {
			t.Errorf("for a slot: %+v", f)
		}
		plan, err = v.DeleteSF(ctx, f.Handle, true)
		wantReason(t, "an SF that somebody has", err, reason.FunctionsInUse, "a")
		if len(plan.Affected) != 1 || plan.Affected[0] != "a" {
			t.Errorf("the plan for the end of an SF that somebody has: %+v", plan)
		}
		if err := v.Release(ctx, f, "a"); err != nil {
			t.Fatal(err)
		}
		are(map[uint32]device.State{100: device.Free})
		if _, err := v.DeleteSF(ctx, f.Handle, false); err != nil {
			t.Errorf("the end of an SF of the pool: %v", err)
		}
		are(map[uint32]device.State{})
		v.stop()
	})
}
