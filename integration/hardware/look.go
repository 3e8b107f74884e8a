package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/integration/testnic"
	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/tc"
)

// look finds out how the machine is. It changes nothing, but that it tries on a machine that is there for it whether the switch takes an SF, which
// is not activated, and filters, which no packet meets.
func look(ctx context.Context, w want) (*machine, error) {
	m := &machine{
		root: os.Geteuid() == 0, drivers: map[devlink.Handle]string{}, programs: map[string]string{}, vfDrivers: map[uint32]string{},
		used: map[string]error{}, hardware: map[string][]tc.Finding{}, carrier: map[string]string{},
	}
	var err error
	if m.processes, err = running(); err != nil {
		return nil, err
	}
	for _, name := range []string{"ovs-system", "genev_sys_6081"} {
		if _, err := net.InterfaceByName(name); err == nil {
			m.datapath = true
		}
	}
	for _, p := range programs {
		if version, err := versionOf(ctx, p.name); err == nil {
			m.programs[p.name] = version
		}
	}
	if w.handle != (devlink.Handle{}) {
		dir := filepath.Join("/sys/bus", w.handle.Bus, "devices", w.handle.Dev)
		_, err = os.Stat(dir)
		m.onBus, m.driver = err == nil, base(filepath.Join(dir, "driver"))
	}
	m.kernel, m.kernelErr = tc.Probe(ctx)
	conn, err := devlink.Dial(devlink.DialOptions{})
	if err != nil {
		if errors.Is(err, devlink.ErrUnsupported) || errors.Is(err, os.ErrNotExist) {
			return m, nil // no driver with devlink is loaded: there is no device
		}
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is asked any more
	if err := m.lookDevices(ctx, conn, w); err != nil {
		return nil, err
	}
	st, ok := m.status(w.handle)
	if !ok {
		return m, nil
	}
	m.lookNetdevs(st, w)
	if st.Mode == devlink.ModeSwitchdev && m.safe() {
		m.sfTried, m.sf = true, trySF(ctx, conn, w.handle)
		err = m.lookHardware(ctx, st)
	}
	return m, err
}

// running returns which programs run that must not: in this network namespace, or for kubelet at all.
func running() ([]string, error) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, dir := range dirs {
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		name := strings.TrimSpace(string(comm))
		if _, bad := notHere[name]; err != nil || !bad || slices.Contains(found, name) {
			continue // it has ended, or is none of them
		}
		// Without root it cannot be read: it may be here.
		if ns, err := os.Readlink(filepath.Join(dir, "ns/net")); err != nil || ns == own || name == "kubelet" {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, nil
}

// versionOf runs a program that is in PATH, or where root would have it.
func versionOf(ctx context.Context, name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	flag := "--version"
	switch name {
	case "ip", "tc", "devlink", "ping":
		flag = "-V"
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, flag).CombinedOutput()
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first, nil
}

func (m *machine) lookDevices(ctx context.Context, conn *devlink.Conn, w want) error {
	all, err := conn.Devices(ctx)
	if err != nil {
		return err
	}
	for _, d := range all {
		if info, err := conn.Info(ctx, d.Handle); err == nil {
			m.drivers[d.Handle] = info.Driver
		}
	}
	return testnic.Inventory(ctx, func(ctx context.Context, v *device.Inventory) error {
		_, err := testnic.Find(ctx, v, w.handle)
		s := v.Snapshot()
		m.devices = s.Devices
		if err != nil {
			return nil // there is none, or the driver says nothing: the status has it
		}
		for _, f := range s.Functions {
			if f.Handle.Handle == w.handle && f.Kind == device.VF {
				m.functions = append(m.functions, f)
			}
		}
		m.info, m.infoErr = conn.Info(ctx, w.handle)
		return nil
	})
}

func (m *machine) lookNetdevs(st device.Status, w want) {
	names := []string{st.Uplink.Name, w.wire}
	for _, f := range m.functions {
		names = append(names, f.Netdev.Name, f.Representor.Name)
		m.vfDrivers[f.Number] = base(filepath.Join("/sys/bus", f.Bus, "devices", f.Device, "driver"))
	}
	for _, name := range names {
		if name != "" {
			m.used[name] = testnic.Unused(name)
		}
	}
	m.wireDevice = base(filepath.Join("/sys/class/net", w.wire, "device"))
	if m.wireDevice == "" {
		m.wireDevice = "no device of a bus"
	}
	for _, name := range names[:2] {
		b, _ := os.ReadFile(filepath.Join("/sys/class/net", name, "carrier")) // EINVAL: it is down
		m.carrier[name] = strings.TrimSpace(string(b))
	}
}

// base is the last part of what a link of sysfs leads to; "": there is none.
func base(link string) string {
	to, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

func trySF(ctx context.Context, conn *devlink.Conn, h devlink.Handle) error {
	number := uint32(trialSF)
	p, err := conn.NewPort(ctx, h, devlink.NewPort{Flavour: devlink.FlavourPCISF, SF: &number})
	if err != nil {
		return err
	}
	return conn.DelPort(context.WithoutCancel(ctx), p.PortHandle)
}

func (m *machine) lookHardware(ctx context.Context, st device.Status) error {
	names := []string{st.Uplink.Name}
	for _, f := range m.functions {
		if int(f.Number) < needVFs {
			names = append(names, f.Representor.Name)
		}
	}
	for _, name := range names {
		if name == "" || m.used[name] != nil {
			continue
		}
		caps, err := tc.ProbeDevice(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		m.hardware[name] = caps.Findings
	}
	return nil
}
