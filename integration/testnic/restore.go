package testnic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
)

// What Open vSwitch has in the kernel, and leaves there when it is killed: the netdev of its datapath, and that of its tunnels.
const (
	datapath = "ovs-system"
	tunnels  = "genev_sys_6081"
)

// remember lets Close restore what a lab changes on a machine, and does not restore itself since in a guest nobody needs it: the netdevs of
// VFs, which come back from pods as these had them, filters on the ports of the switch, the kernel's part of Open vSwitch.
func (d *Device) remember(ctx context.Context) error {
	for _, name := range []string{datapath, tunnels} {
		if _, err := net.InterfaceByName(name); err == nil {
			return fmt.Errorf("there is a %s: another Open vSwitch uses the kernel in this network namespace, or has been killed", name)
		}
	}
	var before []*net.Interface
	for _, f := range d.functions {
		netdev, err := net.InterfaceByName(f.Netdev.Name)
		if err != nil {
			return fmt.Errorf("VF %d: %w", f.Number, err)
		}
		before = append(before, netdev)
	}
	if err := Unused(d.uplink); err != nil {
		return err
	}
	var down []string // which are so
	for _, name := range append([]string{d.uplink}, d.representors...) {
		port, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		if port.Flags&net.FlagUp == 0 {
			down = append(down, name)
		}
	}
	ports := append([]string{d.uplink}, d.representors...)
	ctx = context.WithoutCancel(ctx)
	d.undo = append(d.undo, func() error {
		var err error
		if _, there := net.InterfaceByName(datapath); there == nil {
			err = run("ovs-dpctl", "del-dp", datapath)
		}
		if _, there := net.InterfaceByName(tunnels); there == nil {
			err = errors.Join(err, run("ip", "link", "del", tunnels))
		}
		for _, p := range ports {
			_ = run("tc", "qdisc", "del", "dev", p, "clsact") // it need not have one
		}
		err = errors.Join(err, run("ip", "addr", "flush", "dev", d.uplink, "scope", "global"))
		for _, p := range down {
			err = errors.Join(err, run("ip", "link", "set", p, "down"))
		}
		for i, b := range before {
			err = errors.Join(err, d.restore(int(d.functions[i].Number), b))
		}
		return errors.Join(err, d.removeSFs(ctx))
	})
	return nil
}

// Unused returns an error if the machine uses a netdev: it has an address, or is part of a bridge or bond.
func Unused(netdev string) error {
	i, err := net.InterfaceByName(netdev)
	if err != nil {
		return fmt.Errorf("netdev %s: %w", netdev, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return fmt.Errorf("netdev %s: %w", netdev, err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLinkLocalUnicast() {
			return fmt.Errorf("netdev %s has the address %v: the machine uses it", netdev, a)
		}
	}
	if master, err := os.Readlink("/sys/class/net/" + netdev + "/master"); err == nil {
		return fmt.Errorf("netdev %s is part of %s: the machine uses it", netdev, filepath.Base(master))
	}
	return nil
}

// removeSFs deletes the SFs that were not there when the NIC was opened: those that daemons have made for their pools.
func (d *Device) removeSFs(ctx context.Context) error {
	return Inventory(ctx, func(ctx context.Context, v *device.Inventory) error {
		h, err := devlink.ParseHandle(d.handle)
		if err == nil {
			_, err = Find(ctx, v, h)
		}
		if err != nil {
			return err
		}
		for _, f := range v.Snapshot().Functions {
			if f.Handle.Handle == h && f.Kind == device.SF && !d.sfs[f.Number] {
				_, deleted := v.DeleteSF(ctx, f.Handle, false)
				err = errors.Join(err, deleted)
			}
		}
		return err
	})
}

// restore gives a VF's netdev its name, address and MTU again, when the namespace is gone in which it was.
func (d *Device) restore(vf int, b *net.Interface) error {
	deadline := time.Now().Add(patience)
	name, err := d.VFNetdev(vf)
	for ; errors.Is(err, os.ErrNotExist) && time.Now().Before(deadline); name, err = d.VFNetdev(vf) {
		<-time.After(100 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("VF %d has not come back: %w", vf, err)
	}
	err = run("ip", "link", "set", name, "down", "name", b.Name, "address", b.HardwareAddr.String(), "mtu", strconv.Itoa(b.MTU))
	if err == nil && b.Flags&net.FlagUp != 0 {
		err = run("ip", "link", "set", b.Name, "up")
	}
	return err
}

// settle waits until udev has named what is new, where there is udev.
func settle() error {
	if _, err := exec.LookPath("udevadm"); err != nil {
		return nil
	}
	return run("udevadm", "settle", "--timeout=60")
}
