// Package testnic is the NIC of tests: the simulated one of package simnic, which is loaded for them, or one of the machine's, which they
// get as it is and give back as it was.
//
// A NIC of the machine is known by its devlink handle alone; what is of it is found by devlink and sysfs. Faults that the embedded
// simnic.Device makes are for the simulated NIC: tests that need them ask [Device.Real].
package testnic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/offloadd/offloadd/integration/simnic"
	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
)

// Variables of the environment.
const (
	Module = simnic.Module         // the simulated NIC's module, which `go run ./integration/simnic/build` prints
	NIC    = "OFFLOADD_NIC"        // the devlink handle of one of the machine's NICs, to be used instead
	Wire   = "OFFLOADD_NIC_WIRE"   // the netdev that its uplink's cable leads to
	Change = "OFFLOADD_NIC_CHANGE" // if it is not empty tests may change the number of its VFs and its mode
)

// A Device is the NIC of a test. Its methods other than New and Open work between Open and Close only.
type Device struct {
	simnic.Device

	module string // of the simulated one
	handle string // of one of the machine's, or ""
	wire   string
	change bool

	uplink       string
	representors []string                // of VFs
	functions    []device.FunctionStatus // VFs, in order
	sfs          map[uint32]bool         // the numbers of those that there were
	undo         []func() error
}

// New returns the NIC that the environment names.
func New() *Device {
	return &Device{module: os.Getenv(Module), handle: os.Getenv(NIC), wire: os.Getenv(Wire), change: os.Getenv(Change) != ""}
}

// Simulated returns the NIC of a module.
func Simulated(module string) *Device { return &Device{module: module} }

// Existing returns a NIC of the machine, which may be changed or not.
func Existing(handle string, change bool) *Device { return &Device{handle: handle, change: change} }

// Real reports whether it is one of the machine's, and makes no faults.
func (d *Device) Real() bool { return d.handle != "" }

// Changeable reports whether the number of VFs and the mode may be changed.
func (d *Device) Changeable() bool { return !d.Real() || d.change }

// Absent says why there is no NIC here, in a sentence; "" if there should be one.
func (d *Device) Absent() string {
	if why := simnic.Absent(); !d.Real() && why != "" {
		return why + "; and there is no " + NIC + " in the environment, with which make hardware runs it"
	}
	return ""
}

// Open makes the NIC have so many VFs, in switchdev mode. One of the machine's that may not be changed must be so, and may have more VFs.
func (d *Device) Open(ctx context.Context, vfs int) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if !d.Real() {
		if err := simnic.Load(d.module, 1); err != nil {
			return err
		}
		d.undo = append(d.undo, simnic.Unload)
	}
	h, err := devlink.ParseHandle(d.Handle())
	if err != nil {
		return err
	}
	return Inventory(ctx, func(ctx context.Context, v *device.Inventory) error {
		if d.Changeable() {
			if err := d.prepare(ctx, v, h, vfs); err != nil {
				return err
			}
		}
		if err := d.read(ctx, v, h, vfs); err != nil || !d.Real() {
			return err
		}
		return d.remember(ctx)
	})
}

// Inventory calls f with the NICs of the network namespace.
func Inventory(ctx context.Context, f func(context.Context, *device.Inventory) error) (err error) {
	conn, err := devlink.Dial(devlink.DialOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	v := device.New(device.Options{Devlink: conn, Log: slog.New(slog.DiscardHandler)})
	v.Reconciled() // no function is of a pool
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	g.Go(func() error { return v.Run(ctx) })
	g.Go(func() error {
		defer cancel()
		return f(ctx, v)
	})
	return g.Wait()
}

// Find waits until a device has been read.
func Find(ctx context.Context, v *device.Inventory, h devlink.Handle) (device.Status, error) {
	var st device.Status
	err := await(ctx, v, func(s device.Snapshot) error {
		for _, st = range s.Devices {
			if st.Handle != h {
				continue
			}
			if st.Mode == 0 && st.Reason == "" {
				return fmt.Errorf("device %v: it has not been read", h)
			}
			return nil
		}
		return fmt.Errorf("device %v: there is none with an embedded switch", h)
	})
	return st, err
}

// patience is how long a driver may take to make VFs and their netdevs, and udev to name them.
const patience = time.Minute

// await waits until f returns nil.
func await(ctx context.Context, v *device.Inventory, f func(device.Snapshot) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		s := v.Snapshot()
		err := f(s)
		if err == nil {
			return nil
		}
		select {
		case <-s.Changed:
		case <-ctx.Done():
			return err
		}
	}
}

// prepare makes VFs, and then their representors, for which mlx5 wants this order. What was before is made again in the end.
func (d *Device) prepare(ctx context.Context, v *device.Inventory, h devlink.Handle, vfs int) error {
	was, err := Find(ctx, v, h)
	if err != nil {
		return err
	}
	if was.VFs == vfs && was.Mode == devlink.ModeSwitchdev {
		return nil
	}
	if d.Real() {
		ctx := context.WithoutCancel(ctx)
		d.undo = append(d.undo, func() error {
			return Inventory(ctx, func(ctx context.Context, v *device.Inventory) error {
				if _, err := Find(ctx, v, h); err != nil {
					return err
				}
				_, err := v.SetMode(ctx, h, was.Mode, false)
				if err == nil {
					_, err = v.SetVFs(ctx, h, was.VFs, false)
				}
				return err
			})
		})
	}
	if _, err := v.SetVFs(ctx, h, vfs, false); err != nil {
		return err
	}
	if _, err := v.SetMode(ctx, h, devlink.ModeSwitchdev, false); err != nil || !d.Real() {
		return err
	}
	return settle()
}

// read waits until the uplink and so many VFs are as they should be, and takes down what they are called.
func (d *Device) read(ctx context.Context, v *device.Inventory, h devlink.Handle, vfs int) error {
	return await(ctx, v, func(s device.Snapshot) error {
		d.uplink, d.representors, d.functions = "", make([]string, vfs), nil
		for _, st := range s.Devices {
			if st.Handle == h {
				d.uplink = st.Uplink.Name
				if st.Mode != devlink.ModeSwitchdev {
					return fmt.Errorf("device %v: its mode is %v, not switchdev", h, st.Mode)
				}
			}
		}
		if d.uplink == "" {
			return fmt.Errorf("device %v: there is no uplink", h)
		}
		d.sfs = map[uint32]bool{}
		for _, f := range s.Functions {
			if f.Handle.Handle == h && f.Kind == device.SF {
				d.sfs[f.Number] = true
			}
			if f.Handle.Handle != h || f.Kind != device.VF || f.PF != 0 || int(f.Number) >= vfs {
				continue
			}
			if f.Representor.Index == 0 || f.Netdev.Index == 0 {
				return fmt.Errorf("device %v: VF %d: representor %q, netdev %q: one of them is missing", h, f.Number, f.Representor.Name, f.Netdev.Name)
			}
			d.representors[f.Number] = f.Representor.Name
			d.functions = append(d.functions, f)
		}
		if len(d.functions) < vfs {
			return fmt.Errorf("device %v: there are %d VFs of %d", h, len(d.functions), vfs)
		}
		return nil
	})
}

// Close gives the NIC back.
func (d *Device) Close() error {
	var err error
	for len(d.undo) > 0 {
		last := len(d.undo) - 1
		err = errors.Join(err, d.undo[last]())
		d.undo = d.undo[:last]
	}
	return err
}

// Handle is its name for devlink(8).
func (d *Device) Handle() string {
	if d.Real() {
		return d.handle
	}
	return d.Device.Handle()
}

// String is its name on its bus.
func (d *Device) String() string {
	_, name, _ := strings.Cut(d.Handle(), "/")
	return name
}

// Uplink is the netdev of the uplink.
func (d *Device) Uplink() string { return d.uplink }

// Wire is the netdev that the uplink's cable leads to; "": nobody has said.
func (d *Device) Wire() string {
	if d.Real() {
		return d.wire
	}
	return d.Device.Wire()
}

// VFRepresentor is the netdev of the representor of one of the VFs that Open made.
func (d *Device) VFRepresentor(vf int) string { return d.representors[vf] }

func (d *Device) sysfs(name ...string) string {
	bus, dev, _ := strings.Cut(d.Handle(), "/")
	return filepath.Join(append([]string{"/sys/bus", bus, "devices", dev}, name...)...)
}

// VFDevice is what sysfs and kubelet call a VF; "": it does not exist.
func (d *Device) VFDevice(vf int) string {
	to, err := os.Readlink(d.sysfs(fmt.Sprintf("virtfn%d", vf)))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// IsVF reports whether a device of this name on the NIC's bus is a VF of it.
func (d *Device) IsVF(dev string) bool {
	to, err := os.Readlink(d.sysfs("..", dev, "physfn"))
	return err == nil && filepath.Base(to) == d.String()
}

// IsSF reports whether an auxiliary device of this name is an SF of the NIC.
func (d *Device) IsSF(dev string) bool {
	_, err := os.Stat(d.sysfs(dev, "sfnum"))
	return err == nil
}

// SetVFs makes n VFs, or with 0 removes those there are.
func (d *Device) SetVFs(n int) error {
	if !d.Changeable() {
		return fmt.Errorf("device %s: its VFs may not be changed: %s is empty", d.Handle(), Change)
	}
	f, err := os.OpenFile(d.sysfs("sriov_numvfs"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(f, n)
	return errors.Join(err, f.Close())
}

// VFNetdev returns the name of a VF's netdev: an error wraps os.ErrNotExist while it has none in this network namespace.
func (d *Device) VFNetdev(vf int) (string, error) {
	dir := d.sysfs(fmt.Sprintf("virtfn%d", vf), "net")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) != 1 {
		return "", fmt.Errorf("%s: %d netdevs: %w", dir, len(entries), os.ErrNotExist)
	}
	return entries[0].Name(), nil
}

// Switchdev changes the mode.
func (d *Device) Switchdev() error {
	return run("devlink", "dev", "eswitch", "set", d.Handle(), "mode", "switchdev")
}

func run(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}
