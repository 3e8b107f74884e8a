package devlink

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/integration/simnic"
)

var (
	tool    = flag.String("devlink.tool", "devlink", "the devlink(8) that TestKernelRequests compares with")
	capture = flag.String("devlink.capture", "", "a file into which TestKernelRequests writes what that sends, as "+requestsFile)
)

const bus = "/sys/bus/netdevsim"

// needNetdevsim skips a test on a kernel without netdevsim and without a module of it; the user-mode guest has it.
func needNetdevsim(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(bus); errors.Is(err, fs.ErrNotExist) {
		out, err := exec.Command("modprobe", "netdevsim").CombinedOutput()
		if err != nil && os.Getenv("OFFLOADD_VM") != "uml" {
			t.Skipf("this kernel has no netdevsim: there is no %s, and modprobe says: %s", bus, bytes.TrimSpace(out))
		}
	}
	if os.Getuid() != 0 {
		t.Skip("making devices takes root")
	}
}

// simulated makes a device of netdevsim with two ports and four virtual functions, and returns its handle.
func simulated(t *testing.T) Handle {
	t.Helper()
	needNetdevsim(t)
	write(t, bus+"/new_device", "1 2")
	t.Cleanup(func() { write(t, bus+"/del_device", "1") })
	write(t, bus+"/devices/netdevsim1/sriov_numvfs", "4")
	return Handle{"netdevsim", "netdevsim1"}
}

func write(t *testing.T, file, s string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T) *Conn {
	t.Helper()
	c, err := Dial(DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func devlink(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("devlink", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("devlink %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimRight(string(out), "\n")
}

// devlink(8) sends the same bytes for the same command line, or does not know it.
func TestKernelRequests(t *testing.T) {
	h := simulated(t)
	devlink(t, "dev", "eswitch", "set", h.String(), "mode", "switchdev")
	known, newer := examples(t)
	var captured strings.Builder
	fmt.Fprintf(&captured, "# What devlink(8) sends: flags, command, and an attribute a line. Captured by\n# TestKernelRequests -devlink.capture with the devlink of %s", toolVersion(t))
	lacks := 0
	for _, r := range append(known, newer...) {
		got := sent(t, r)
		if got == "" {
			lacks++
			if slices.ContainsFunc(known, func(k request) bool { return k.text == r.text }) {
				t.Errorf("devlink %s sends nothing", r.text)
			}
			continue
		}
		if want := r.outline(); got != want {
			t.Errorf("devlink %s sends\n%s\nwe send\n%s", r.text, got, want)
		}
		fmt.Fprintf(&captured, "\n\n%s\n    %s", r.text, strings.ReplaceAll(got, "\n", "\n    "))
	}
	t.Logf("%d requests, of which devlink does not know %d", len(known)+len(newer), lacks)
	if *capture != "" {
		write(t, *capture, captured.String()+"\n")
	}
}

func toolVersion(t *testing.T) string {
	out, err := exec.Command(*tool, "-V").Output()
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`iproute2\S+`).FindString(string(out))
}

// sent returns the last request of devlink(8) to the family devlink, "" if there is none. Some begin with a question.
func sent(t *testing.T, r request) string {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	args := append([]string{"-qq", "-o", log, "-e", "trace=sendto,sendmsg", "-e", "write=all", *tool}, strings.Fields(r.text)...)
	out, err := exec.Command("strace", args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("strace: %v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	last := ""
	for _, m := range hexDumps(string(text)) {
		const headers, generic = 20, 16 // GENL_ID_CTRL
		if len(m) < headers || ne.Uint16(m[4:]) == generic {
			continue
		}
		attributes := m[headers:]
		// devlink(8) says it all twice: cmd_health_recover calls dl_opts_put two times.
		if n := len(attributes); r.command == cmdReporterRecover && n%2 == 0 {
			if first, second := outline(0, 0, 0, attributes[:n/2]), outline(0, 0, 0, attributes[n/2:]); first == second {
				attributes = attributes[:n/2]
			}
		}
		v := m[17]
		if v == 0 {
			v = version // iproute2 6.1 does not initialise it, and kernels do not look at it
		}
		last = outline(ne.Uint16(m[6:]), m[16], v, attributes)
	}
	return last
}

// hexDumps returns the data of each system call in the output of strace -e write=all.
func hexDumps(log string) (all [][]byte) {
	for line := range strings.Lines(log) {
		dump, ok := strings.CutPrefix(line, " | ")
		if !ok {
			all = append(all, nil)
			continue
		}
		for b := range strings.FieldsSeq(dump[len("00000  ") : len("00000  ")+3*16+1]) {
			var v byte
			if _, err := fmt.Sscanf(b, "%02x", &v); err == nil {
				all[len(all)-1] = append(all[len(all)-1], v)
			}
		}
	}
	return all
}

// What is read is what devlink(8) prints.
func TestKernelShow(t *testing.T) {
	h, c, ctx := simulated(t), dial(t), t.Context()
	for _, mode := range []EswitchMode{ModeLegacy, ModeSwitchdev} {
		if err := c.SetEswitch(ctx, h, Eswitch{Mode: mode}); err != nil {
			t.Fatal(err)
		}
		e, err := c.Eswitch(ctx, h)
		if got, want := fmt.Sprintf("%v: %v", h, e), devlink(t, "dev", "eswitch", "show", h.String()); err != nil || e.Mode != mode || got != want {
			t.Errorf("Eswitch() = %q, %v, want %q", got, err, want)
		}
		devices, err := c.Devices(ctx)
		if want := devlink(t, "dev", "show"); err != nil || lines(devices) != want {
			t.Errorf("Devices() = %s, %v, want %s", lines(devices), err, want)
		}
		ports, err := c.Ports(ctx, h)
		if want := devlink(t, "port", "show"); err != nil || lines(ports) != want {
			t.Errorf("Ports() = %s, %v, want %s", lines(ports), err, want)
		}
		// Two of the device, and in switchdev mode the representors of its functions.
		if want := 2 + 4*int(mode-ModeLegacy); len(ports) != want {
			t.Errorf("Ports() are %d in %v, want %d", len(ports), mode, want)
		}
		for _, p := range ports {
			one, err := c.Port(ctx, p.PortHandle)
			if err != nil || one.String() != p.String() {
				t.Errorf("Port(%v) = %v, %v, want %v", p.PortHandle, one, err, p)
			}
			of, err := c.PortOf(ctx, p.Ifindex)
			if err != nil || of.String() != p.String() {
				t.Errorf("PortOf(%d) = %v, %v, want %v", p.Ifindex, of, err, p)
			}
		}
	}
	info, err := c.Info(ctx, h)
	if want := devlink(t, "dev", "info", h.String()); err != nil || info.String() != want {
		t.Errorf("Info() = %s, %v, want %s", info, err, want)
	}
	params, err := c.Params(ctx, h)
	if err != nil || len(params) == 0 {
		t.Errorf("Params() = %v, %v", params, err)
	}
	for _, p := range params {
		if want := devlink(t, "dev", "param", "show", h.String(), "name", p.Name); p.String() != want {
			t.Errorf("Params() has %s, want %s", p, want)
		}
	}
	if other, err := c.Ports(ctx, Handle{"netdevsim", "netdevsim2"}); err == nil && len(other) > 0 || err != nil && !errors.Is(err, ErrGone) {
		t.Errorf("Ports() of no device = %v, %v", other, err)
	}
}

func lines[T fmt.Stringer](all []T) string {
	var s []string
	for _, t := range all {
		s = append(s, t.String())
	}
	return strings.Join(s, "\n")
}

func TestKernelParams(t *testing.T) {
	h, c, ctx := simulated(t), dial(t), t.Context()
	for _, v := range []struct {
		name string
		ParamValue
	}{{"max_macs", ParamValue{ModeDriverInit, uint32(16)}}, {"test1", ParamValue{ModeDriverInit, false}}, {"test1", ParamValue{ModeDriverInit, true}}} {
		if err := c.SetParam(ctx, h, v.name, v.ParamValue); err != nil {
			t.Error(err)
		}
		p, err := c.Param(ctx, h, v.name)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := p.Value(v.Mode); !ok || got != v.Value {
			t.Errorf("%s is %v (%T), want %v (%T)", v.name, got, got, v.Value, v.Value)
		}
	}
	for _, v := range []struct {
		name string
		ParamValue
		want error
	}{
		{"max_macs", ParamValue{ModeDriverInit, uint8(16)}, ErrInvalid},
		{"no_such", ParamValue{ModeDriverInit, true}, ErrInvalid},
		{"max_macs", ParamValue{ModePermanent, uint32(16)}, ErrUnsupported},
	} {
		if err := c.SetParam(ctx, h, v.name, v.ParamValue); !errors.Is(err, v.want) {
			t.Errorf("SetParam(%s, %v) = %v, want %v", v.name, v.ParamValue, err, v.want)
		}
	}
	if _, err := c.Param(ctx, h, "no_such"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Param(no_such) = %v", err)
	}
	actions, err := c.Reload(ctx, h, Reload{Action: ReloadDriverReinit})
	if err != nil || !slices.Equal(actions, []ReloadAction{ReloadDriverReinit}) {
		t.Errorf("Reload(driver_reinit) = %v, %v", actions, err)
	}
	if actions, err := c.Reload(ctx, h, Reload{}); err != nil || actions != nil {
		t.Errorf("Reload() = %v, %v", actions, err)
	}
	if _, err := c.Reload(ctx, h, Reload{Action: ReloadFWActivate, NoReset: true}); err != nil && !errors.Is(err, ErrUnsupported) {
		t.Errorf("Reload(fw_activate) = %v", err)
	}
}

// A reload takes a device into another network namespace, where it is gone from here.
func TestKernelNetNS(t *testing.T) {
	h, c, ctx := simulated(t), dial(t), t.Context()
	const name = "devlink-test"
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	ns, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	there, err := Dial(DialOptions{NetNS: ns.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = there.Close() })
	if _, err := c.Reload(ctx, h, Reload{NetNSFD: int(ns.Fd())}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Device(ctx, h); !errors.Is(err, ErrGone) {
		t.Errorf("Device() here = %v", err)
	}
	if ports, err := there.Ports(ctx, h); err != nil || len(ports) != 2 || ports[0].Ifindex == 0 {
		t.Errorf("Ports() there = %v, %v", ports, err)
	}
	here, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	if _, err := there.Reload(ctx, h, Reload{NetNSFD: int(here.Fd())}); err != nil {
		t.Error(err)
	}
	if _, err := c.Device(ctx, h); err != nil {
		t.Error(err)
	}
	if err := there.Close(); err != nil {
		t.Error(err)
	}
	if devices, err := there.Devices(ctx); err == nil {
		t.Errorf("Devices() there = %v after Close", devices)
	}
}

func TestKernelRates(t *testing.T) {
	h, c, ctx := simulated(t), dial(t), t.Context()
	group, other := h.Node("group"), h.Node("other")
	if _, err := c.Rate(ctx, h.Port(128).Rate()); !errors.Is(err, ErrGone) {
		t.Errorf("Rate() in legacy mode = %v", err)
	}
	if err := c.SetEswitch(ctx, h, Eswitch{Mode: ModeSwitchdev}); err != nil {
		t.Fatal(err)
	}
	const mbit = 125000 // in bytes; netdevsim wants whole Mbit/s
	if err := c.NewRate(ctx, group, RateChange{TxShare: new(uint64(2 * mbit)), TxMax: new(uint64(10 * mbit))}); err != nil {
		t.Fatal(err)
	}
	if err := c.NewRate(ctx, other, RateChange{Parent: &group.Node}); err != nil {
		t.Fatal(err)
	}
	leaves, err := c.Rates(ctx, h)
	if err != nil || len(leaves) != 6 {
		t.Fatalf("Rates() = %v, %v", leaves, err)
	}
	leaf := leaves[0].RateHandle
	if leaf.Node != "" {
		t.Fatalf("Rates() begins with %v", leaf)
	}
	if err := c.SetRate(ctx, leaf, RateChange{TxMax: new(uint64(5 * mbit)), Parent: &other.Node}); err != nil {
		t.Fatal(err)
	}
	for _, w := range []Rate{
		{RateHandle: group, TxShare: 2 * mbit, TxMax: 10 * mbit},
		{RateHandle: other, Parent: "group"},
		{RateHandle: leaf, TxMax: 5 * mbit, Parent: "other"},
	} {
		if got, err := c.Rate(ctx, w.RateHandle); err != nil || *got != w {
			t.Errorf("Rate(%v) = %v, %v, want %v", w.RateHandle, got, err, &w)
		}
	}
	for _, r := range []struct {
		name string
		err  error
		want error
	}{
		{"same again", c.NewRate(ctx, group, RateChange{}), ErrExists},
		{"a number", c.NewRate(ctx, h.Node("17"), RateChange{}), ErrInvalid},
		{"with children", c.DelRate(ctx, group), ErrBusy},
		{"below itself", c.SetRate(ctx, group, RateChange{Parent: &other.Node}), ErrInvalid},
		{"no such parent", c.SetRate(ctx, group, RateChange{Parent: new("none")}), ErrGone},
		{"no such node", c.DelRate(ctx, h.Node("none")), ErrGone},
		{"legacy with nodes", c.SetEswitch(ctx, h, Eswitch{Mode: ModeLegacy}), ErrBusy},
	} {
		if !errors.Is(r.err, r.want) {
			t.Errorf("%s: %v, want %v", r.name, r.err, r.want)
		}
	}
	for _, err := range []error{c.SetRate(ctx, leaf, RateChange{Parent: new("")}), c.DelRate(ctx, other), c.DelRate(ctx, group)} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestKernelHealth(t *testing.T) {
	h, c, ctx := simulated(t), dial(t), t.Context()
	all, err := c.Reporters(ctx, h)
	if err != nil || len(all) != 2 {
		t.Fatalf("Reporters() = %v, %v", all, err)
	}
	dummy := h.Reporter("dummy")
	if err := c.SetReporter(ctx, dummy, ReporterChange{GracePeriod: new(uint64(1234)), AutoRecover: new(false), AutoDump: new(false)}); err != nil {
		t.Fatal(err)
	}
	m, err := c.Watch()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	const broken = "/sys/kernel/debug/netdevsim/netdevsim1/health/break_health"
	if err := os.WriteFile(broken, []byte("on fire"), 0o200); err != nil && !errors.Is(err, unix.ECANCELED) {
		t.Fatal(err)
	}
	next(t, m, func(e Event) bool { return e.Kind == ReporterChanged && e.Reporter.State == Unhealthy })
	r, err := c.Reporter(ctx, dummy)
	if err != nil || r.State != Unhealthy || r.Errors != 1 || *r.GracePeriod != 1234 || *r.AutoRecover || *r.AutoDump {
		t.Errorf("Reporter(dummy) = %v, %v", r, err)
	}
	if err := c.RecoverReporter(ctx, dummy); err != nil {
		t.Error(err)
	}
	if r, err = c.Reporter(ctx, dummy); err != nil || r.State != Healthy || r.Recoveries != 1 {
		t.Errorf("Reporter(dummy) = %v, %v", r, err)
	}
	if _, err := c.Reporter(ctx, h.Reporter("none")); !errors.Is(err, ErrGone) {
		t.Errorf("Reporter(none) = %v", err)
	}
	if err := c.SetReporter(ctx, h.Reporter("empty"), ReporterChange{AutoRecover: new(true)}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("SetReporter(empty) = %v", err)
	}
}

// What the simulated device, or Linux 6.1, cannot do is told as that.
func TestKernelRefusals(t *testing.T) {
	h, c, ctx := simulated(t), dial(t), t.Context()
	_, newErr := c.NewPort(ctx, h, NewPort{Flavour: FlavourPCISF, SF: new(uint32(88))})
	_, goneErr := c.Port(ctx, h.Port(4711))
	old := before(t, 6, 2)
	for _, r := range []struct {
		name  string
		err   error
		want  error
		texts []string
		old   bool // only on a kernel that does not know the attribute
	}{
		{"port new", newErr, ErrUnsupported, []string{"port add netdevsim/netdevsim1 flavour pcisf pfnum 0 sfnum 88: operation not supported"}, false},
		{"port gone", goneErr, ErrGone, []string{"netdevsim/netdevsim1/4711"}, false},
		{"port del", c.DelPort(ctx, h.Port(1)), ErrUnsupported, []string{"port del netdevsim/netdevsim1/1"}, false},
		{"address", c.SetPortFunction(ctx, h.Port(0), Function{HWAddr: []byte{2, 0, 0, 0, 0, 1}}), ErrUnsupported, []string{"hw_addr 02:00:00:00:00:01"}, false},
		{"multicast", c.SetPortFunction(ctx, h.Port(0), Function{HWAddr: []byte{1, 0, 0, 0, 0, 1}}), ErrInvalid, []string{"Non-unicast hardware address"}, false},
		{"caps", c.SetPortFunction(ctx, h.Port(0), Function{Caps: Caps{Known: CapRoCE}}), ErrUnsupported, []string{"roce disable", "kernel does not know", "capabilities"}, true},
		{"event queues", c.SetPortFunction(ctx, h.Port(0), Function{MaxIOEQs: new(uint32(3))}), ErrUnsupported, []string{"max_io_eqs 3", "kernel does not know"}, true},
		{"encap", c.SetEswitch(ctx, h, Eswitch{Encap: EncapBasic}), ErrUnsupported, []string{"encap-mode basic"}, false},
		{"inactive", c.SetEswitch(ctx, h, Eswitch{Mode: ModeSwitchdevInactive}), ErrUnsupported, []string{"(mode: "}, true},
		{"no device", c.SetEswitch(ctx, Handle{"pci", "0000:03:00.0"}, Eswitch{Mode: ModeLegacy}), ErrGone, []string{"pci/0000:03:00.0"}, false},
	} {
		if r.old && !old {
			continue
		}
		if !errors.Is(r.err, r.want) {
			t.Errorf("%s: %v, want %v", r.name, r.err, r.want)
			continue
		}
		for _, text := range r.texts {
			if !strings.Contains(r.err.Error(), text) {
				t.Errorf("%s: %v, want %q in it", r.name, r.err, text)
			}
		}
	}
}

// before reports whether the kernel is older than a release.
func before(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var x, y int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &x, &y); err != nil {
		t.Fatal(err)
	}
	return x < major || x == major && y < minor
}

func next(t *testing.T, m *Monitor, want func(Event) bool) Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		e, err := m.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if want(e) {
			return e
		}
	}
}

// Devices, ports and rates come and go, and with too many events at once, one says that they are lost.
func TestKernelEvents(t *testing.T) {
	needNetdevsim(t)
	c := dial(t)
	m, err := c.Watch()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	h, ctx := simulated(t), t.Context()
	next(t, m, func(e Event) bool { return e.Kind == DeviceNew && e.Device.Handle == h })
	next(t, m, func(e Event) bool { return e.Kind == PortNew && e.Port.PortHandle == h.Port(1) && e.Port.Ifindex != 0 })
	if err := c.SetEswitch(ctx, h, Eswitch{Mode: ModeSwitchdev}); err != nil {
		t.Fatal(err)
	}
	vf := next(t, m, func(e Event) bool { return e.Kind == PortNew && e.Port.Flavour == FlavourPCIVF && e.Port.Ifindex != 0 }).Port
	next(t, m, func(e Event) bool { return e.Kind == RateNew })
	if err := c.SetParam(ctx, h, "test1", ParamValue{ModeDriverInit, false}); err != nil {
		t.Fatal(err)
	}
	next(t, m, func(e Event) bool { return e.Kind == ParamNew && e.Param.Name == "test1" })
	if err := c.SetEswitch(ctx, h, Eswitch{Mode: ModeLegacy}); err != nil {
		t.Fatal(err)
	}
	next(t, m, func(e Event) bool { return e.Kind == PortGone && e.Port.PortHandle == vf.PortHandle })
	if err := m.nl.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := c.Reload(ctx, h, Reload{}); err != nil {
			t.Fatal(err)
		}
	}
	next(t, m, func(e Event) bool { return e.Kind == Resync })
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := m.Next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Next() of a context that has ended = %v", err)
	}
}

// The life of a subfunction on integration/simnic, which answers as mlx5 does where netdevsim has nothing.
func TestKernelSubfunction(t *testing.T) {
	if why := simnic.Absent(); why != "" {
		t.Skip(why)
	}
	if err := simnic.Load(os.Getenv(simnic.Module), 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := simnic.Unload(); err != nil {
			t.Error(err)
		}
	})
	nic, c, ctx := simnic.Device(0), dial(t), t.Context()
	h, err := ParseHandle(nic.Handle())
	if err != nil {
		t.Fatal(err)
	}
	wanted := NewPort{Flavour: FlavourPCISF, SF: new(uint32(88))}
	if _, err := c.NewPort(ctx, h, wanted); !errors.Is(err, ErrUnsupported) {
		t.Errorf("NewPort() in legacy mode = %v", err)
	}
	if err := c.SetEswitch(ctx, h, Eswitch{Mode: ModeSwitchdev}); err != nil {
		t.Fatal(err)
	}
	m, err := c.Watch()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if err := nic.Fail(simnic.PortNew, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.NewPort(ctx, h, wanted); !errors.Is(err, ErrBusy) {
		t.Errorf("NewPort() that is made to fail = %v", err)
	}
	p, err := c.NewPort(ctx, h, wanted)
	if err != nil || p.Index < 32768 || p.SF != 88 || p.Flavour != FlavourPCISF || p.Function.State != Inactive || p.Function.OpState != Detached {
		t.Fatalf("NewPort() = %v, %v", p, err)
	}
	told := next(t, m, func(e Event) bool {
		return e.Kind == PortNew && e.Port.PortHandle == p.PortHandle && e.Port.Ifindex != 0
	})
	if of, err := c.PortOf(ctx, told.Port.Ifindex); err != nil || of.PortHandle != p.PortHandle {
		t.Errorf("PortOf(%d) = %v, %v", told.Port.Ifindex, of, err)
	}
	if _, err := c.NewPort(ctx, h, wanted); !errors.Is(err, ErrExists) {
		t.Errorf("NewPort() of a sfnum in use = %v", err)
	}
	if err := c.SetPortFunction(ctx, p.PortHandle, Function{HWAddr: []byte{2, 0, 0, 0, 0, 1}, State: Active}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for p.Function.OpState != Attached && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
		if p, err = c.Port(ctx, p.PortHandle); err != nil {
			t.Fatal(err)
		}
	}
	if p.Function.State != Active || p.Function.OpState != Attached || hexColon(p.Function.HWAddr) != "02:00:00:00:00:01" {
		t.Errorf("Port() = %v", p)
	}
	if got, want := p.String(), devlink(t, "port", "show", p.PortHandle.String()); got != want {
		t.Errorf("Port() = %s, want %s", got, want)
	}
	if err := c.SetPortFunction(ctx, p.PortHandle, Function{State: Inactive}); err != nil {
		t.Error(err)
	}
	if err := c.DelPort(ctx, p.PortHandle); err != nil {
		t.Error(err)
	}
	next(t, m, func(e Event) bool { return e.Kind == PortGone && e.Port.PortHandle == p.PortHandle })
	if err := c.DelPort(ctx, p.PortHandle); err == nil {
		t.Error("DelPort() of one that is gone")
	}
}
