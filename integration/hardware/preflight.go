package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A verdict is what a line of the preflight comes to.
type verdict string

const (
	fine    verdict = "ok"
	missing verdict = "missing" // the job cannot be done
	later   verdict = "later"   // the job does it, and undoes it in the end
	note    verdict = "note"    // the job can be done without
)

// A line says of one thing how it is, and if something is missing the command that mends it.
type line struct {
	Verdict verdict `json:"verdict"`
	Name    string  `json:"name"`
	What    string  `json:"what"`
	Mend    string  `json:"mend,omitempty"`
}

func (l line) String() string {
	s := fmt.Sprintf("%-8s %-26s %s", l.Verdict, l.Name, l.What)
	if l.Mend != "" {
		s += "; mend: " + l.Mend
	}
	return s
}

// What the test bodies need of the NIC.
const (
	needVFs = 5    // integration/offloadnic, of which one is left to nobody
	trialSF = 4000 // the number of the SF that is made and deleted
)

// A want is what the job is asked to do.
type want struct {
	handle devlink.Handle
	wire   string
	change bool // VFs may be made, and the mode changed
}

// A machine is what the preflight looks at. What was not looked at, since something before it is missing, is zero.
type machine struct {
	root      bool
	devices   []device.Status
	drivers   map[devlink.Handle]string
	processes []string // of those that must not run here, the ones that do
	datapath  bool     // Open vSwitch has one in the kernel
	programs  map[string]string

	onBus  bool // the bus has the device
	driver string

	info       *devlink.Info
	infoErr    error
	functions  []device.FunctionStatus // VFs of the device, in order
	vfDrivers  map[uint32]string       // of VFs, by number
	used       map[string]error        // why netdevs are used by the machine: uplink, wire, VFs, representors
	sf         error                   // of the trial
	sfTried    bool
	kernel     tc.Caps
	kernelErr  error
	hardware   map[string][]tc.Finding // by netdev
	wireDevice string                  // the device on its bus that the wire's netdev is of
	carrier    map[string]string       // of uplink and wire: "1", "0", or "" if they are down
}

// A package has a program that labs run.
type program struct{ name, deb string }

var programs = []program{
	{"ovs-vswitchd", "openvswitch-switch"},
	{"ovsdb-server", "openvswitch-common"},
	{"ovsdb-tool", "openvswitch-common"},
	{"ovs-vsctl", "openvswitch-common"},
	{"ovs-appctl", "openvswitch-common"},
	{"ovs-dpctl", "openvswitch-common"},
	{"ovs-ofctl", "openvswitch-common"},
	{"ovn-northd", "ovn-central"},
	{"ovn-nbctl", "ovn-common"},
	{"ovn-sbctl", "ovn-common"},
	{"ip", "iproute2"},
	{"tc", "iproute2"},
	{"devlink", "iproute2"},
	{"ping", "iputils-ping"},
}

// notHere are programs of a node that works: the job does not take it.
var notHere = map[string]string{
	"offloadd":       "systemctl stop offloadd",
	"ovn-controller": "systemctl stop ovn-controller",
	"ovs-vswitchd":   "systemctl stop openvswitch-switch",
	"kubelet":        "kubectl drain NODE, and systemctl stop kubelet",
}

// status is the device that is asked for.
func (m *machine) status(h devlink.Handle) (device.Status, bool) {
	i := slices.IndexFunc(m.devices, func(st device.Status) bool { return st.Handle == h })
	if i < 0 {
		return device.Status{}, false
	}
	return m.devices[i], true
}

// safe reports whether something may be tried on the machine: that it is there for this.
func (m *machine) safe() bool { return m.root && len(m.processes) == 0 && !m.datapath }

// candidates lists the devices with an embedded switch, a line each.
func (m *machine) candidates() string {
	if len(m.devices) == 0 {
		return "  none: no driver has registered a device with an embedded switch (devlink dev eswitch show)\n"
	}
	var b strings.Builder
	for _, st := range m.devices {
		fmt.Fprintf(&b, "  %-24v %-12s uplink %-16s mode %v, %d of %d VFs\n", st.Handle, m.drivers[st.Handle], st.Uplink.Name, st.Mode, st.VFs, st.TotalVFs)
	}
	return b.String()
}

// judge says what is missing.
func judge(m *machine, w want) (all []line) {
	say := func(v verdict, name, what, mend string) { all = append(all, line{v, name, what, mend}) }
	check := func(ok bool, name, good, bad, mend string) bool {
		if ok {
			say(fine, name, good, "")
		} else {
			say(missing, name, bad, mend)
		}
		return ok
	}
	check(m.root, "root", "the job runs as root", "the job does not run as root", "sudo make hardware ...")
	for _, p := range m.processes {
		say(missing, "machine", p+" runs here: this is a node that works, and the job would take it", notHere[p])
	}
	switch {
	case m.datapath:
		say(missing, "machine", "Open vSwitch has a datapath or a device for tunnels in the kernel here",
			"ovs-dpctl del-dp ovs-system, and ip link del genev_sys_6081, when nobody needs them any more")
	case len(m.processes) == 0:
		say(fine, "machine", "neither Open vSwitch nor an agent nor kubelet runs here", "")
	}
	m.judgePrograms(check)
	m.judgeKernel(w, say)
	st, ok := m.status(w.handle)
	if !ok {
		what, mend := m.absent(w)
		say(missing, "device", what, mend+"; DEV can be\n"+strings.TrimSuffix(m.candidates(), "\n"))
		return all
	}
	say(fine, "device", fmt.Sprintf("devlink has %v, with an embedded switch", w.handle), "")
	if m.infoErr != nil {
		say(note, "firmware", m.infoErr.Error(), "")
	} else if m.info != nil {
		say(fine, "driver", m.info.Driver, "")
		if v := versions(m.info); v != "" {
			say(fine, "firmware", v, "")
		} else {
			say(note, "firmware", "the driver tells no version", "")
		}
	}
	m.judgeSwitch(st, w, say)
	m.judgeFunctions(st, w, say)
	m.judgeWire(st, w, say)
	m.judgeHardware(st, say)
	return all
}

// absent says why devlink does not have the device.
func (m *machine) absent(w want) (what, mend string) {
	what = fmt.Sprintf("devlink has no %v with an embedded switch", w.handle)
	switch {
	case !m.onBus:
		return what + ", and the bus has no such device", "lspci, or ls /sys/bus/" + w.handle.Bus + "/devices"
	case m.driver == "":
		return what + ": the device has no driver", "modprobe mlx5_core, or that of its kind"
	default:
		return fmt.Sprintf("%s: its driver is %s", what, m.driver), "bind the NIC's own driver, or take a NIC whose driver has a switch: devlink dev eswitch show"
	}
}

func versions(i *devlink.Info) string {
	var words []string
	for _, v := range append(slices.Clone(i.Fixed), i.Running...) {
		words = append(words, v.Name+" "+v.Value)
	}
	return strings.Join(words, ", ")
}

func (m *machine) judgePrograms(check func(bool, string, string, string, string) bool) {
	for _, p := range programs {
		version, ok := m.programs[p.name]
		check(ok, "program "+p.name, version, "it is not in PATH", "tools/prepare lab, or install "+p.deb)
	}
}

// Capabilities of the kernel that the tests do without: on a kernel older than some, and for drivers other than mlx5.
func dispensable(name, driver string) bool {
	return name == tc.CapNoFrag || name == "skbedit" || name == tc.CapResume && driver != "mlx5_core"
}

func (m *machine) judgeKernel(w want, say func(verdict, string, string, string)) {
	if m.kernelErr != nil {
		say(missing, "kernel", "it cannot be tried what it can do: "+m.kernelErr.Error(), "run the job as root")
		return
	}
	n, lacks := 0, false
	for _, f := range m.kernel.Findings {
		switch {
		case f.Answer == tc.Yes:
			n++
		case consequent(m.kernel.Findings, f):
		case f.Answer == tc.Unknown || dispensable(f.Name, m.drivers[w.handle]):
			say(note, "kernel "+f.Name, join(f.What, f.Words, f.Cost), f.Fix)
		default:
			lacks = true
			say(missing, "kernel "+f.Name, join(f.What, f.Words, f.Cost), f.Fix)
		}
	}
	v := fine
	if lacks {
		v = note
	}
	say(v, "kernel", fmt.Sprintf("Linux %s has %d of %d capabilities of filters", m.kernel.Release, n, len(m.kernel.Findings)), "")
}

// consequent reports whether a finding is missing for want of another that is missing.
func consequent(all []tc.Finding, f tc.Finding) bool {
	return f.Needs != "" && slices.ContainsFunc(all, func(g tc.Finding) bool { return g.Name == f.Needs && g.Answer != tc.Yes })
}

func join(what, words, cost string) string {
	if words != "" {
		what += " (" + words + ")"
	}
	return what + ": " + strings.TrimSuffix(cost, ".")
}

func (m *machine) judgeSwitch(st device.Status, w want, say func(verdict, string, string, string)) {
	const byJob = ", or HARDWARE_SETUP=1"
	mode := fmt.Sprintf("devlink dev eswitch set %v mode switchdev", w.handle)
	switch {
	case st.Reason != "" && st.Mode == 0:
		say(missing, "eswitch", st.Message, "look at dmesg, and at devlink health show "+w.handle.String())
	case st.Mode == devlink.ModeSwitchdev:
		say(fine, "eswitch", "its mode is switchdev", "")
	case w.change:
		say(later, "eswitch", fmt.Sprintf("its mode is %v: %s", st.Mode, mode), "")
	default:
		say(missing, "eswitch", fmt.Sprintf("its mode is %v", st.Mode), mode+byJob)
	}
	vfs := fmt.Sprintf("echo %d > /sys/bus/%s/devices/%s/sriov_numvfs", needVFs, w.handle.Bus, w.handle.Dev)
	switch {
	case st.TotalVFs < needVFs:
		say(missing, "vfs", fmt.Sprintf("it can have %d VFs, %d are needed", st.TotalVFs, needVFs),
			fmt.Sprintf("mlxconfig -d %s set SRIOV_EN=1 NUM_OF_VFS=%d, and a cold boot; likewise with another vendor's tool", w.handle.Dev, 2*needVFs))
	case st.VFs >= needVFs && !w.change || st.VFs == needVFs:
		say(fine, "vfs", fmt.Sprintf("there are %d VFs of %d, %d are needed", st.VFs, st.TotalVFs, needVFs), "")
	case w.change:
		say(later, "vfs", fmt.Sprintf("there are %d VFs of %d: %s", st.VFs, st.TotalVFs, vfs), "")
	default:
		say(missing, "vfs", fmt.Sprintf("there are %d VFs of %d, %d are needed", st.VFs, st.TotalVFs, needVFs), vfs+byJob)
	}
	switch {
	case m.sfTried && m.sf == nil:
		say(fine, "sfs", "one was made, not activated, and deleted", "")
	case m.sfTried:
		say(missing, "sfs", m.sf.Error(), sfMend(m.drivers[w.handle], w.handle))
	case st.Mode != devlink.ModeSwitchdev && w.change:
		say(later, "sfs", "whether there can be any is seen in switchdev mode", "")
	case st.Mode != devlink.ModeSwitchdev:
		say(missing, "sfs", "there are none but in switchdev mode", mode+byJob)
	default:
		say(note, "sfs", "none was tried, because of what is missing above", "")
	}
}

func sfMend(driver string, h devlink.Handle) string {
	if driver == "mlx5_core" {
		return fmt.Sprintf("a kernel with CONFIG_MLX5_SF and CONFIG_MLX5_SF_MANAGER (Debian's has neither), and mlxconfig -d %s set PF_BAR2_ENABLE=0 PER_PF_NUM_SF=1 PF_TOTAL_SF=64 PF_SF_BAR_SIZE=10, and a cold boot", h.Dev)
	}
	return "a driver, kernel and firmware with subfunctions"
}

// judgeFunctions looks at the VFs that the tests take: those that are there, since others are made as they should be. All that are there vanish
// if there is another number.
func (m *machine) judgeFunctions(st device.Status, w want, say func(verdict, string, string, string)) {
	ready := 0
	for _, f := range m.functions {
		if int(f.Number) >= needVFs && !w.change {
			continue
		}
		name := fmt.Sprintf("vf %d", f.Number)
		switch why := m.used[f.Netdev.Name]; {
		case f.Netdev.Index == 0 && m.vfDrivers[f.Number] == "":
			say(missing, name, f.Device+" has no driver", fmt.Sprintf("echo %s > /sys/bus/%s/drivers_probe", f.Device, w.handle.Bus))
		case f.Netdev.Index == 0:
			say(missing, name, fmt.Sprintf("%s has the driver %s, and no netdev in this network namespace: somebody uses it", f.Device, m.vfDrivers[f.Number]),
				fmt.Sprintf("end the pod or machine that has it, or echo %s > /sys/bus/%s/drivers/%s/unbind and bind it to the NIC's own driver",
					f.Device, w.handle.Bus, m.vfDrivers[f.Number]))
		case why != nil:
			say(missing, name, why.Error(), "ip addr flush dev "+f.Netdev.Name+", ip link set "+f.Netdev.Name+" nomaster")
		case f.Representor.Index == 0:
			say(missing, name, "it has no representor in this network namespace", "look at devlink port show, and at dmesg")
		case m.used[f.Representor.Name] != nil:
			say(missing, name, m.used[f.Representor.Name].Error(), "ovs-vsctl del-port "+f.Representor.Name+", or ip link set "+f.Representor.Name+" nomaster")
		default:
			ready++
			continue
		}
	}
	if ready > 0 {
		say(fine, "functions", fmt.Sprintf("%d VFs have a driver, a netdev that nobody uses, and a representor", ready), "")
	} else if st.Mode != devlink.ModeSwitchdev {
		say(note, "functions", "representors are seen in switchdev mode only", "")
	}
}

func (m *machine) judgeWire(st device.Status, w want, say func(verdict, string, string, string)) {
	const cable = "WIRE=NETDEV, of a second port of this machine that a cable leads to from "
	if st.Uplink.Name == "" {
		say(missing, "uplink", "the PF has no netdev in this network namespace", "look at devlink port show "+w.handle.String())
		return
	}
	if why := m.used[st.Uplink.Name]; why != nil {
		say(missing, "uplink", why.Error(), "a NIC that the machine is not reached by, or ip addr flush dev "+st.Uplink.Name)
	} else {
		say(fine, "uplink", st.Uplink.Name+" has no address, and is in no bridge", "")
	}
	switch why := m.used[w.wire]; {
	case w.wire == "":
		say(missing, "wire", "nothing is known of the other end of the uplink's cable, for packets of tunnels", cable+st.Uplink.Name)
	case why != nil:
		say(missing, "wire", why.Error(), cable+st.Uplink.Name)
	case w.wire == st.Uplink.Name || m.isFunction(w.wire):
		say(missing, "wire", w.wire+" is of the same switch: its packets would not leave the NIC", cable+st.Uplink.Name)
	case m.carrier[w.wire] == "0" || m.carrier[st.Uplink.Name] == "0":
		say(missing, "wire", fmt.Sprintf("%s or %s is up, but has no carrier", st.Uplink.Name, w.wire), "plug in the cable between them")
	default:
		say(fine, "wire", fmt.Sprintf("%s (%s) is what %s leads to, if the cable is where you say", w.wire, m.wireDevice, st.Uplink.Name), "")
	}
}

// isFunction reports whether a netdev is a function's or representor of the device.
func (m *machine) isFunction(netdev string) bool {
	return slices.ContainsFunc(m.functions, func(f device.FunctionStatus) bool { return f.Netdev.Name == netdev || f.Representor.Name == netdev })
}

// judgeHardware tells what devices were tried for. Of the uplink the feature alone matters: no packet is filtered on its arrival there, but after
// the tunnel.
func (m *machine) judgeHardware(st device.Status, say func(verdict, string, string, string)) {
	names := make([]string, 0, len(m.hardware))
	for name := range m.hardware {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		say(note, "hardware", "no filter was tried, because of what is missing above", "")
	}
	for _, name := range names {
		good := 0
		for _, f := range m.hardware[name] {
			switch {
			case name == st.Uplink.Name && f.Name != tc.CapFeature:
			case f.Answer == tc.Yes:
				good++
			case consequent(m.hardware[name], f):
			case f.Answer == tc.Unknown:
				say(note, name+" "+f.Name, join(f.What, f.Words, f.Cost), f.Fix)
			default:
				say(missing, name+" "+f.Name, join(f.What, f.Words, f.Cost), strings.ReplaceAll(f.Fix, "DEVICE", name))
			}
		}
		if good > 0 {
			say(fine, name, fmt.Sprintf("hw-tc-offload and what else was tried: %d are there", good), "")
		}
	}
}

// ready reports whether nothing is missing.
func ready(all []line) bool {
	return !slices.ContainsFunc(all, func(l line) bool { return l.Verdict == missing })
}
