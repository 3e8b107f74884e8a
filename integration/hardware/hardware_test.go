package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/tc"
)

var nic = devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}

// good is a machine that lacks nothing.
func good() *machine {
	m := &machine{
		root: true, onBus: true, driver: "mlx5_core", drivers: map[devlink.Handle]string{nic: "mlx5_core"}, programs: map[string]string{}, vfDrivers: map[uint32]string{},
		devices: []device.Status{{Handle: nic, Mode: devlink.ModeSwitchdev, Uplink: device.Link{Name: "p0", Index: 2}, VFs: 5, TotalVFs: 8}},
		info:    &devlink.Info{Handle: nic, Driver: "mlx5_core", Running: []devlink.Version{{Name: "fw.version", Value: "22.35.1012"}}},
		used:    map[string]error{"p0": nil, "p1": nil}, sfTried: true, hardware: map[string][]tc.Finding{}, carrier: map[string]string{}, wireDevice: "0000:04:00.0",
		kernel: tc.Caps{Release: "6.8.0"},
	}
	for _, p := range programs {
		m.programs[p.name] = p.name + " 3.3"
	}
	for i := range tc.Capabilities {
		m.kernel.Findings = append(m.kernel.Findings, tc.Finding{Capability: &tc.Capabilities[i], Answer: tc.Yes})
	}
	for n := range uint32(5) {
		names := [2]string{"v" + string('0'+rune(n)), "r" + string('0'+rune(n))}
		m.functions = append(m.functions, device.FunctionStatus{Function: device.Function{
			Handle: nic.Port(n + 1), Kind: device.VF, Number: n, Bus: "pci", Device: "0000:03:00." + string('2'+rune(n)),
			Netdev: device.Link{Name: names[0], Index: int(n) + 10}, Representor: device.Link{Name: names[1], Index: int(n) + 20},
		}})
		m.vfDrivers[n] = "mlx5_core"
		var all []tc.Finding
		for i := range tc.DeviceCapabilities {
			all = append(all, tc.Finding{Capability: &tc.DeviceCapabilities[i], Answer: tc.Yes})
		}
		m.hardware[names[1]] = all
	}
	return m
}

// Each thing that is missing is said in a line of its own, with what mends it; and nothing else is missing then.
func TestJudge(t *testing.T) {
	ask := want{handle: nic, wire: "p1"}
	capability := func(m *machine, name string, a tc.Answer) {
		for i := range m.kernel.Findings {
			if m.kernel.Findings[i].Name == name {
				m.kernel.Findings[i].Answer = a
			}
		}
	}
	other := devlink.Handle{Bus: "pci", Dev: "0000:05:00.0"}
	for _, tt := range []struct {
		name string
		does func(*machine, *want)
		want []string // the lines that are not ok: verdict, name, and part of the rest
	}{
		{"nothing", func(*machine, *want) {}, nil},
		{"root", func(m *machine, _ *want) { m.root = false }, []string{"missing root sudo"}},
		{"node of a cluster", func(m *machine, _ *want) { m.processes = []string{"kubelet", "offloadd"} }, []string{
			"missing machine kubectl drain", "missing machine systemctl stop offloadd",
		}},
		{"datapath", func(m *machine, _ *want) { m.datapath = true }, []string{"missing machine ovs-dpctl del-dp ovs-system"}},
		{"program", func(m *machine, _ *want) { delete(m.programs, "ovn-northd") }, []string{"missing program ovn-northd"}},
		{"kernel", func(m *machine, _ *want) { capability(m, "edit.ip", tc.No) }, []string{"missing kernel act_pedit", "note kernel 31 of 32"}},
		{"kernel without what others need", func(m *machine, _ *want) {
			capability(m, "tunnel_key.set", tc.No)
			capability(m, tc.CapNoFrag, tc.No)
		}, []string{"missing kernel act_tunnel_key", "note kernel 30 of 32"}},
		{"Debian's kernel", func(m *machine, _ *want) { capability(m, tc.CapResume, tc.No) }, []string{"missing kernel NET_TC_SKB_EXT", "note kernel 31 of 32"}},
		{"Debian's kernel, not mlx5", func(m *machine, _ *want) {
			capability(m, tc.CapResume, tc.No)
			m.drivers[nic] = "ice"
		}, []string{"note kernel NET_TC_SKB_EXT"}},
		{"no such device", func(m *machine, _ *want) { m.devices[0].Handle, m.onBus = other, false }, []string{"missing device pci/0000:05:00.0"}},
		{"no driver", func(m *machine, _ *want) { m.devices, m.driver = nil, "" }, []string{"missing device modprobe mlx5_core"}},
		{"vfio", func(m *machine, _ *want) { m.devices, m.driver = nil, "vfio-pci" }, []string{"missing device its driver is vfio-pci"}},
		{"legacy", func(m *machine, _ *want) { m.devices[0].Mode, m.sfTried, m.hardware = devlink.ModeLegacy, false, nil }, []string{
			"missing eswitch devlink dev eswitch set pci/0000:03:00.0 mode switchdev, or HARDWARE_SETUP=1", "missing sfs switchdev", "note hardware",
		}},
		{"legacy, to be changed", func(m *machine, w *want) {
			m.devices[0].Mode, m.sfTried, m.hardware, m.functions, w.change = devlink.ModeLegacy, false, nil, nil, true
			m.devices[0].VFs = 0
		}, []string{"later eswitch switchdev", "later vfs echo 5", "later sfs", "note functions", "note hardware"}},
		{"few VFs", func(m *machine, _ *want) { m.devices[0].VFs = 2; m.functions = m.functions[:2] }, []string{"missing vfs echo 5 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs, or HARDWARE_SETUP=1"}},
		{"firmware without VFs", func(m *machine, w *want) { m.devices[0].TotalVFs, w.change = 2, true }, []string{"missing vfs mlxconfig -d 0000:03:00.0 set SRIOV_EN=1"}},
		{"VF of a virtual machine", func(m *machine, _ *want) { m.functions[3].Netdev, m.vfDrivers[3] = device.Link{}, "vfio-pci" }, []string{"missing vf has the driver vfio-pci"}},
		{"VF without driver", func(m *machine, _ *want) { m.functions[3].Netdev = device.Link{}; delete(m.vfDrivers, 3) }, []string{"missing vf echo 0000:03:00.5 > /sys/bus/pci/drivers_probe"}},
		{"VF with address", func(m *machine, _ *want) { m.used["v1"] = errors.New("netdev v1 has the address 10.0.0.1/8") }, []string{"missing vf ip addr flush dev v1"}},
		{"representor in a bridge", func(m *machine, _ *want) { m.used["r1"] = errors.New("netdev r1 is part of br0") }, []string{"missing vf ip link set r1 nomaster"}},
		{"a VF that is not needed", func(m *machine, _ *want) {
			m.devices[0].VFs = 6
			m.functions = append(m.functions, device.FunctionStatus{Function: device.Function{Number: 5, Kind: device.VF}})
		}, nil},
		{"it would vanish", func(m *machine, w *want) {
			m.devices[0].VFs, w.change = 6, true
			m.functions = append(m.functions, device.FunctionStatus{Function: device.Function{Number: 5, Kind: device.VF, Bus: "pci", Device: "0000:03:00.7"}})
			m.vfDrivers[5] = "vfio-pci"
		}, []string{"later vfs echo 5", "missing vf 0000:03:00.7 has the driver vfio-pci"}},
		{"no SFs", func(m *machine, _ *want) { m.sf = devlink.ErrUnsupported }, []string{"missing sfs CONFIG_MLX5_SF"}},
		{"uplink in use", func(m *machine, _ *want) { m.used["p0"] = errors.New("netdev p0 has the address 192.0.2.1/24") }, []string{"missing uplink ip addr flush dev p0"}},
		{"no wire", func(_ *machine, w *want) { w.wire = "" }, []string{"missing wire WIRE=NETDEV"}},
		{"wire in use", func(m *machine, _ *want) { m.used["p1"] = errors.New("netdev p1 is part of bond0") }, []string{"missing wire bond0"}},
		{"wire of the same switch", func(_ *machine, w *want) { w.wire = "v4" }, []string{"missing wire same switch"}},
		{"no cable", func(m *machine, _ *want) { m.carrier["p1"] = "0" }, []string{"missing wire plug in the cable"}},
		{"hw-tc-offload", func(m *machine, _ *want) {
			m.hardware["r2"] = []tc.Finding{{Capability: &tc.DeviceCapabilities[1], Answer: tc.No}}
		}, []string{"missing r2 ethtool -K r2 hw-tc-offload on"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, w := good(), ask
			tt.does(m, &w)
			lines := judge(m, w)
			bad := slices.DeleteFunc(slices.Clone(lines), func(l line) bool { return l.Verdict == fine })
			if len(bad) != len(tt.want) {
				t.Fatalf("%d lines are not ok, want %d: %q", len(bad), len(tt.want), bad)
			}
			for i, l := range bad {
				parts := strings.SplitN(tt.want[i], " ", 3)
				if string(l.Verdict) != parts[0] || !strings.HasPrefix(l.Name, parts[1]) || !strings.Contains(l.String(), parts[len(parts)-1]) {
					t.Errorf("line %q, want %q", l, tt.want[i])
				}
				if l.Verdict == missing && l.Mend == "" {
					t.Errorf("%q does not say what mends it", l)
				}
			}
			if got, want := ready(lines), !strings.Contains(strings.Join(tt.want, "|"), "missing"); got != want {
				t.Errorf("ready: %v, want %v", got, want)
			}
		})
	}
}

func TestOutcomes(t *testing.T) {
	const log = "=== RUN   TestA\n    --- PASS: TestA/x (0.10s)\n--- FAIL: TestA (0.20s)\nnoise --- PASS: no\n--- SKIP: TestB (0.00s)\n"
	got, err := outcomes(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"PASS TestA/x", "FAIL TestA", "SKIP TestB"}, got); d != "" {
		t.Errorf("outcomes (-want +got):\n%s", d)
	}
}

// Without a device it says what DEV is, and fails.
func TestWithoutDevice(t *testing.T) {
	var out strings.Builder
	status, err := run(context.Background(), nil, &out)
	if status != exitUsage || err != nil || !strings.Contains(out.String(), "make hardware DEV=") {
		t.Errorf("run() = %d, %v:\n%s", status, err, &out)
	}
	if _, err := run(context.Background(), []string{"-device", "pci/0000:03:00.0", "-suites", "nosuch"}, &out); err == nil || !strings.Contains(err.Error(), "bench-tc") {
		t.Errorf("a suite that does not exist: %v", err)
	}
}
