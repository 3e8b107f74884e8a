package devlink_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/devlink/devlinktest"
)

var nic = devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}

// newKernel has a NIC in switchdev mode with an uplink and the representor of a virtual function, and another device.
func newKernel(t testing.TB) *devlinktest.Kernel {
	k := devlinktest.NewKernel(t)
	k.Device(devlink.Info{Handle: nic, Driver: "mlx5_core", Serial: "MT1", Running: []devlink.Version{{Name: "fw.version", Value: "22.41.1000"}}},
		devlink.Eswitch{Mode: devlink.ModeSwitchdev, Inline: devlink.InlineNone, Encap: devlink.EncapBasic})
	k.Device(devlink.Info{Handle: devlink.Handle{Bus: "auxiliary", Dev: "x.sf.1"}}, devlink.Eswitch{})
	k.Port(devlink.Port{PortHandle: nic.Port(65535), Type: devlink.TypeEth, Ifindex: 4, Netdev: "eth0", Flavour: devlink.FlavourPhysical})
	k.Port(devlink.Port{
		PortHandle: nic.Port(1), Type: devlink.TypeEth, Ifindex: 9, Netdev: "eth0_0", Flavour: devlink.FlavourPCIVF, VF: 3,
		Function: &devlink.Function{HWAddr: []byte{2, 0, 0, 0, 0, 9}},
	})
	return k
}

// A subfunction from its making to its end, as mlx5 has it; and what those who listen hear.
func TestSubfunction(t *testing.T) {
	k := newKernel(t)
	c, ctx := k.Conn(), t.Context()
	m, err := c.Watch()
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.NewPort(ctx, nic, devlink.NewPort{Flavour: devlink.FlavourPCISF, SF: new(uint32(88))})
	if err != nil || p.Index != 32768 || p.Flavour != devlink.FlavourPCISF || p.SF != 88 || p.Ifindex != 0 || p.Function.State != devlink.Inactive {
		t.Fatalf("NewPort() = %v, %v", p, err)
	}
	if _, err := c.NewPort(ctx, nic, devlink.NewPort{Flavour: devlink.FlavourPCISF, SF: new(uint32(88))}); !errors.Is(err, devlink.ErrExists) {
		t.Errorf("NewPort() of a sfnum in use = %v", err)
	}
	caps := devlink.Caps{Known: devlink.CapRoCE | devlink.CapMigratable, Enabled: devlink.CapMigratable}
	for _, f := range []devlink.Function{
		{HWAddr: []byte{2, 0, 0, 0, 0, 1}, Caps: caps, MaxIOEQs: new(uint32(8))},
		{State: devlink.Active},
	} {
		if err := c.SetPortFunction(ctx, p.PortHandle, f); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Port(ctx, p.PortHandle)
	want := &devlink.Function{HWAddr: []byte{2, 0, 0, 0, 0, 1}, State: devlink.Active, OpState: devlink.Attached, Caps: caps, MaxIOEQs: new(uint32(8))}
	if err != nil || cmp.Diff(want, got.Function) != "" {
		t.Errorf("Port(): %v, -want +got\n%s", err, cmp.Diff(want, got.Function))
	}
	if of, err := c.PortOf(ctx, got.Ifindex); err != nil || of.PortHandle != p.PortHandle {
		t.Errorf("PortOf(%d) = %v, %v", got.Ifindex, of, err)
	}
	if err := c.DelPort(ctx, p.PortHandle); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Port(ctx, p.PortHandle); !errors.Is(err, devlink.ErrGone) {
		t.Errorf("Port() of one that is deleted = %v", err)
	}
	heard := []devlink.EventKind{}
	netdevs := 0
	for range 5 {
		e, err := m.Next(ctx)
		if err != nil || e.Port.PortHandle != p.PortHandle {
			t.Fatalf("Next() = %v, %v", e, err)
		}
		heard = append(heard, e.Kind)
		if e.Port.Ifindex != 0 {
			netdevs++
		}
	}
	if want := []devlink.EventKind{devlink.PortNew, devlink.PortNew, devlink.PortNew, devlink.PortNew, devlink.PortGone}; !cmp.Equal(heard, want) || netdevs != 3 {
		t.Errorf("heard %v, of which %d with a network device", heard, netdevs)
	}
}

func TestLists(t *testing.T) {
	k := newKernel(t)
	c, ctx := k.Conn(), t.Context()
	devices, err := c.Devices(ctx)
	if err != nil || fmt.Sprint(devices) != "[auxiliary/x.sf.1 pci/0000:03:00.0]" {
		t.Errorf("Devices() = %v, %v", devices, err)
	}
	for _, h := range []devlink.Handle{nic, {}} {
		ports, err := c.Ports(ctx, h)
		if err != nil || len(ports) != 2 || ports[0].Index != 1 || ports[1].Index != 65535 {
			t.Errorf("Ports(%v) = %v, %v", h, ports, err)
		}
	}
	if ports, err := c.Ports(ctx, devlink.Handle{Bus: "auxiliary", Dev: "x.sf.1"}); err != nil || len(ports) != 0 {
		t.Errorf("Ports() of another device = %v, %v", ports, err)
	}
	k.Interrupted = true
	if _, err := c.Ports(ctx, nic); !errors.Is(err, devlink.ErrInterrupted) {
		t.Errorf("Ports() with changes meanwhile = %v", err)
	}
}

// What is asked for by its index is not looked for in a list.
func TestNoLists(t *testing.T) {
	k := newKernel(t)
	k.Refuse = func(r devlinktest.Request) devlinktest.Refusal {
		if r.Flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP {
			t.Errorf("a list of %d", r.Command)
		}
		return devlinktest.Refusal{}
	}
	c, ctx := k.Conn(), t.Context()
	_, errDevice := c.Device(ctx, nic)
	info, errInfo := c.Info(ctx, nic)
	e, errEswitch := c.Eswitch(ctx, nic)
	_, errPort := c.Port(ctx, nic.Port(1))
	errSet := c.SetEswitch(ctx, nic, devlink.Eswitch{Inline: devlink.InlineTransport})
	if err := errors.Join(errDevice, errInfo, errEswitch, errPort, errSet); err != nil {
		t.Error(err)
	}
	if info.String() != "pci/0000:03:00.0:\n  driver mlx5_core\n  serial_number MT1\n  versions:\n      running:\n        fw.version 22.41.1000" {
		t.Errorf("Info() = %s", info)
	}
	if e.String() != "mode switchdev inline-mode none encap-mode basic" {
		t.Errorf("Eswitch() = %v", e)
	}
	if e, err := c.Eswitch(ctx, nic); err != nil || e.Inline != devlink.InlineTransport {
		t.Errorf("Eswitch() = %v, %v after it was set", e, err)
	}
}

func TestPortOf(t *testing.T) {
	k := newKernel(t)
	k.Link(77)
	lists := 0
	k.Refuse = func(r devlinktest.Request) devlinktest.Refusal {
		if r.Flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP {
			lists++
		}
		return devlinktest.Refusal{}
	}
	c, ctx := k.Conn(), t.Context()
	if p, err := c.PortOf(ctx, 9); err != nil || p.PortHandle != nic.Port(1) || p.VF != 3 {
		t.Errorf("PortOf(9) = %v, %v", p, err)
	}
	for _, ifindex := range []int{77, 78} {
		if p, err := c.PortOf(ctx, ifindex); !errors.Is(err, devlink.ErrGone) || !strings.Contains(err.Error(), fmt.Sprint(ifindex)) {
			t.Errorf("PortOf(%d) = %v, %v", ifindex, p, err)
		}
	}
	if lists != 1 {
		t.Errorf("%d lists, want one: of the ports of what registered 9", lists)
	}
	k.TellsPort = true
	if p, err := c.PortOf(ctx, 9); err != nil || p.PortHandle != nic.Port(1) || lists != 1 {
		t.Errorf("PortOf(9) = %v, %v of a kernel that tells, with %d lists", p, err, lists-1)
	}
}

// Each errno that kernels and drivers refuse a command with: what it amounts to, and what one reads.
func TestRefusals(t *testing.T) {
	ctx := t.Context()
	sf := devlink.NewPort{Flavour: devlink.FlavourPCISF, SF: new(uint32(88))}
	port, node, reporter := nic.Port(32768), nic.Node("group"), nic.Reporter("fw")
	calls := map[string]func(*devlink.Conn) error{
		"dev show":         func(c *devlink.Conn) error { _, err := c.Device(ctx, nic); return err },
		"dev info":         func(c *devlink.Conn) error { _, err := c.Info(ctx, nic); return err },
		"dev eswitch show": func(c *devlink.Conn) error { _, err := c.Eswitch(ctx, nic); return err },
		"dev eswitch set": func(c *devlink.Conn) error {
			return c.SetEswitch(ctx, nic, devlink.Eswitch{Mode: devlink.ModeSwitchdev})
		},
		"dev reload":     func(c *devlink.Conn) error { _, err := c.Reload(ctx, nic, devlink.Reload{}); return err },
		"dev param show": func(c *devlink.Conn) error { _, err := c.Param(ctx, nic, "max_sfs"); return err },
		"dev param set": func(c *devlink.Conn) error {
			return c.SetParam(ctx, nic, "max_sfs", devlink.ParamValue{Mode: devlink.ModePermanent, Value: uint32(9)})
		},
		"port show": func(c *devlink.Conn) error { _, err := c.Port(ctx, port); return err },
		"port add":  func(c *devlink.Conn) error { _, err := c.NewPort(ctx, nic, sf); return err },
		"port del":  func(c *devlink.Conn) error { return c.DelPort(ctx, port) },
		"port function set": func(c *devlink.Conn) error {
			return c.SetPortFunction(ctx, port, devlink.Function{State: devlink.Active})
		},
		"port function rate show": func(c *devlink.Conn) error { _, err := c.Rate(ctx, node); return err },
		"port function rate set":  func(c *devlink.Conn) error { return c.SetRate(ctx, node, devlink.RateChange{TxMax: new(uint64(5))}) },
		"port function rate add":  func(c *devlink.Conn) error { return c.NewRate(ctx, node, devlink.RateChange{}) },
		"port function rate del":  func(c *devlink.Conn) error { return c.DelRate(ctx, node) },
		"health show":             func(c *devlink.Conn) error { _, err := c.Reporter(ctx, reporter); return err },
		"health set": func(c *devlink.Conn) error {
			return c.SetReporter(ctx, reporter, devlink.ReporterChange{AutoDump: new(true)})
		},
		"health recover": func(c *devlink.Conn) error { return c.RecoverReporter(ctx, reporter) },
		"ports":          func(c *devlink.Conn) error { _, err := c.Ports(ctx, nic); return err },
	}
	refuse := func(t *testing.T, call func(*devlink.Conn) error, refusal devlinktest.Refusal) error {
		t.Helper()
		k := newKernel(t)
		k.Refuse = func(devlinktest.Request) devlinktest.Refusal { return refusal }
		return call(k.Conn())
	}
	// What goes for all commands that are not named below.
	general := map[unix.Errno]error{
		unix.EPERM: devlink.ErrPermission, unix.EACCES: devlink.ErrPermission, unix.ENODEV: devlink.ErrGone, unix.ENOENT: devlink.ErrGone,
		unix.EOPNOTSUPP: devlink.ErrUnsupported, unix.EBUSY: devlink.ErrBusy, unix.EAGAIN: devlink.ErrBusy, unix.EINPROGRESS: devlink.ErrBusy,
		unix.EEXIST: devlink.ErrExists, unix.ENOSPC: devlink.ErrFull, unix.ENOMEM: devlink.ErrFull, unix.EINVAL: devlink.ErrInvalid,
		unix.ERANGE: devlink.ErrInvalid, unix.EIO: devlink.ErrFailed, unix.EREMOTEIO: devlink.ErrFailed, unix.ETIMEDOUT: devlink.ErrFailed,
		unix.EXDEV: nil,
	}
	type pair struct {
		command string
		errno   unix.Errno
	}
	special := map[pair]error{
		{"dev eswitch set", unix.ERANGE}:        devlink.ErrUnsupported,
		{"dev param show", unix.EINVAL}:         devlink.ErrUnsupported,
		{"port function rate set", unix.EEXIST}: devlink.ErrInvalid,
		{"health show", unix.EINVAL}:            devlink.ErrGone,
		{"health set", unix.EINVAL}:             devlink.ErrGone,
		{"health recover", unix.EINVAL}:         devlink.ErrGone,
	}
	kinds := []error{
		devlink.ErrUnsupported, devlink.ErrBusy, devlink.ErrGone, devlink.ErrExists, devlink.ErrFull, devlink.ErrInvalid, devlink.ErrPermission,
		devlink.ErrFailed, devlink.ErrUnanswered,
	}
	for command, call := range calls {
		for errno, want := range general {
			if kind, ok := special[pair{command, errno}]; ok {
				want = kind
			}
			err := refuse(t, call, devlinktest.Refusal{Errno: errno, Message: "mlx5_core: why"})
			var e *devlink.Error
			if !errors.As(err, &e) || !errors.Is(err, errno) || !same(e.Kind, want) || e.Message != "mlx5_core: why" {
				t.Errorf("%s, %v: %v", command, errno, err)
				continue
			}
			for _, kind := range kinds {
				if errors.Is(err, kind) != same(kind, want) {
					t.Errorf("%s, %v: is %v: %v", command, errno, errors.Is(err, kind), kind)
				}
			}
			if command != "ports" && !strings.HasPrefix(err.Error(), "devlink "+command+" pci/0000:03:00.0") || !strings.HasSuffix(err.Error(), "(mlx5_core: why)") {
				t.Errorf("%s, %v: %v", command, errno, err)
			}
		}
	}
	for _, c := range []struct {
		command string
		refusal devlinktest.Refusal
		want    string
	}{
		{
			"port add",
			devlinktest.Refusal{Errno: unix.EEXIST},
			"devlink port add pci/0000:03:00.0 flavour pcisf pfnum 0 sfnum 88: file exists: the sfnum is in use, or its last function is not yet torn down",
		},
		{"port add", devlinktest.Refusal{Errno: unix.ENOSPC}, "the device has no subfunction left"},
		{"port function set", devlinktest.Refusal{Errno: unix.EBUSY, Message: "mlx5_core: SF is inactivated but it is still attached"}, "its driver has not let go of it (mlx5_core: SF is inact"},
		{"dev eswitch set", devlinktest.Refusal{Errno: unix.EBUSY, Message: "Rate node(s) exists."}, "mode switchdev: device or resource busy: rate nodes exist"},
		{"port show", devlinktest.Refusal{Errno: unix.ENODEV}, "no such device: no such device in this network namespace, or no such port"},
		{"dev param set", devlinktest.Refusal{Errno: unix.EOPNOTSUPP}, "name max_sfs value 9 cmode permanent: operation not supported: the parameter does not have this cmode"},
		{"dev show", devlinktest.Refusal{Errno: unix.EPERM}, "operation not permitted: it takes CAP_NET_ADMIN"},
	} {
		if err := refuse(t, calls[c.command], c.refusal); !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.command, err, c.want)
		}
	}
}

// same reports whether two kinds of errors, or the lack of them, are one.
func same(a, b error) bool { return errors.Is(a, b) && errors.Is(b, a) }

// A kernel that does not know capabilities or event queues says EINVAL, and where: 6.1 with its own words, later ones with those of nlattr.
func TestUnknownAttribute(t *testing.T) {
	for _, f := range []struct {
		devlink.Function
		name string
	}{
		{devlink.Function{Caps: devlink.Caps{Known: devlink.CapRoCE}}, "capabilities"},
		{devlink.Function{HWAddr: []byte{2, 0, 0, 0, 0, 1}, MaxIOEQs: new(uint32(8))}, "max_io_eqs"},
	} {
		for message, want := range map[string]error{
			"leftover: Fail to parse port function attributes":     devlink.ErrUnsupported,
			"Unknown attribute type":                               devlink.ErrUnsupported,
			"mlx5_core: max_io_eqs is more than the device has":    devlink.ErrInvalid,
			"mlx5_core: Cannot be changed while it is not offline": devlink.ErrInvalid,
		} {
			k := newKernel(t)
			k.Refuse = func(r devlinktest.Request) devlinktest.Refusal {
				// The last attribute of the function, which is the last of the message.
				return devlinktest.Refusal{Errno: unix.EINVAL, Message: message, Offset: 20 + lastAttribute(r.Attributes)}
			}
			err := k.Conn().SetPortFunction(t.Context(), nic.Port(1), f.Function)
			if !errors.Is(err, want) || !strings.Contains(err.Error(), "("+f.name+": "+message+")") {
				t.Errorf("%s, %s: %v, want %v", f.name, message, err, want)
			}
		}
	}
}

// lastAttribute returns the offset of the last attribute, within the last if that has some.
func lastAttribute(b []byte) int {
	last, nested := 0, false
	for at := 0; at < len(b); at += (int(binary.NativeEndian.Uint16(b[at:])) + 3) &^ 3 {
		last, nested = at, binary.NativeEndian.Uint16(b[at+2:])&(1<<15) != 0
	}
	if nested {
		return last + 4 + lastAttribute(b[last+4:])
	}
	return last
}

// A driver that does not come back keeps the caller until its context ends, and others not at all.
func TestStuckDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(t)
		stuck := make(chan struct{})
		k.Before = func(r devlinktest.Request) {
			if r.Command == 7 { // PORT_NEW
				<-stuck
			}
		}
		c := k.Conn()
		sf := func(ctx context.Context) error {
			_, err := c.NewPort(ctx, nic, devlink.NewPort{Flavour: devlink.FlavourPCISF, SF: new(uint32(88))})
			return err
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := sf(ctx); !errors.Is(err, devlink.ErrUnanswered) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		if _, err := c.Port(t.Context(), nic.Port(1)); err != nil {
			t.Errorf("another call: %v", err)
		}
		begin = time.Now()
		if err := sf(t.Context()); !errors.Is(err, devlink.ErrUnanswered) || time.Since(begin) != 2*time.Minute || !strings.Contains(err.Error(), "no answer for 2m0s") {
			t.Errorf("without a deadline, after %v: %v", time.Since(begin), err)
		}
		// Two wait in the kernel already; no more than 64 do.
		gone, end := context.WithCancelCause(t.Context())
		for range 62 {
			go func() { _ = sf(gone) }()
		}
		synctest.Wait()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sf(ctx); !errors.Is(err, devlink.ErrUnanswered) || !strings.Contains(err.Error(), "64 requests are in the kernel") {
			t.Errorf("one too many: %v", err)
		}
		end(errors.New("the daemon ends"))
		if err := sf(gone); !errors.Is(err, devlink.ErrUnanswered) || !strings.Contains(err.Error(), "the daemon ends: not asked") {
			t.Errorf("after the end: %v", err)
		}
		// When the driver comes back, what it did is there, and so are the places.
		close(stuck)
		synctest.Wait()
		if ports := k.Ports(nic); len(ports) != 3 {
			t.Errorf("%d ports", len(ports))
		}
		if err := sf(t.Context()); !errors.Is(err, devlink.ErrExists) {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestMonitor(t *testing.T) {
	k := newKernel(t)
	c := k.Conn()
	m, err := c.Watch()
	if err != nil {
		t.Fatal(err)
	}
	k.Device(devlink.Info{Handle: devlink.Handle{Bus: "auxiliary", Dev: "x.sf.2"}}, devlink.Eswitch{})
	if e, err := m.Next(t.Context()); err != nil || e.Kind != devlink.DeviceNew || e.Device.Dev != "x.sf.2" {
		t.Errorf("Next() = %v, %v", e, err)
	}
	k.Overflow()
	k.Port(devlink.Port{PortHandle: nic.Port(2), Flavour: devlink.FlavourPCIPF})
	if e, err := m.Next(t.Context()); err != nil || e.Kind != devlink.Resync {
		t.Errorf("Next() = %v, %v after an overflow", e, err)
	}
	if e, err := m.Next(t.Context()); err != nil || e.Kind != devlink.PortNew || e.Port.Flavour != devlink.FlavourPCIPF {
		t.Errorf("Next() = %v, %v after that", e, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if e, err := m.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next() = %v, %v when its context ends", e, err)
	}
	k.Port(devlink.Port{PortHandle: nic.Port(3), Flavour: devlink.FlavourPCIPF})
	if e, err := m.Next(t.Context()); err != nil || e.Port.Index != 3 {
		t.Errorf("Next() = %v, %v afterwards", e, err)
	}
}
