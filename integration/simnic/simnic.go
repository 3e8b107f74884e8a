package simnic

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	bus       = "/sys/bus/simnic"
	auxiliary = "/sys/bus/auxiliary/devices"
	debug     = "/sys/kernel/debug/simnic"
)

// Module is the variable of the environment that names the module, built for the guest's kernel.
const Module = "SIMNIC"

// Absent says why there is no module here, in a sentence; "" in a guest, where there must be one.
func Absent() string {
	if os.Getenv("OFFLOADD_VM") == "" {
		return "not in a guest, for whose kernel the simulated NIC's module is built: make test-vm runs the test in one"
	}
	return ""
}

// Load inserts the module that Build built; there are then the devices 0 to n-1.
func Load(file string, n int) error {
	if file == "" {
		return errors.New("no " + Module + " in the environment: it is what `go run ./integration/simnic/build` prints")
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()                                           //nolint:errcheck // read-only
	if _, err := os.Stat("/sys/module/ib_core"); err != nil { // built in, or inserted
		if out, err := exec.Command("modprobe", "ib_core").CombinedOutput(); err != nil {
			return fmt.Errorf("simnic: modprobe ib_core: %w: %s", err, out)
		}
	}
	if err := unix.FinitModule(int(f.Fd()), "devices="+strconv.Itoa(n), 0); err != nil {
		return fmt.Errorf("simnic: insert %s: %w", file, err)
	}
	return nil
}

// Unload removes all devices and the module.
func Unload() error {
	if err := unix.DeleteModule("simnic", unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("simnic: remove the module: %w", err)
	}
	return nil
}

// A Device is a NIC of that number: one physical function with an embedded switch, its uplink, and a wire.
type Device int

// NewDevice makes another device.
func NewDevice(number int) (Device, error) {
	return Device(number), write(filepath.Join(bus, "new_device"), strconv.Itoa(number))
}

// Remove removes the device with all that is of it.
func (d Device) Remove() error {
	return write(filepath.Join(bus, "del_device"), strconv.Itoa(int(d)))
}

// String is the device's name on its bus.
func (d Device) String() string { return fmt.Sprintf("simnic%d", int(d)) }

// Handle is its name for devlink(8).
func (d Device) Handle() string { return "simnic/" + d.String() }

// Uplink is the netdev of the uplink: of the physical function, and in switchdev mode the uplink's representor.
func (d Device) Uplink() string { return fmt.Sprintf("sn%dp0", int(d)) }

// Wire is the netdev that receives what the uplink sends, and the other way round. It is what the NIC is cabled to.
func (d Device) Wire() string { return fmt.Sprintf("sn%dwire", int(d)) }

// VFRepresentor is the netdev of a VF's representor, in switchdev mode.
func (d Device) VFRepresentor(vf int) string { return fmt.Sprintf("sn%dpf0vf%d", int(d), vf) }

// SFRepresentor is the netdev of an SF's representor.
func (d Device) SFRepresentor(sfnum int) string { return fmt.Sprintf("sn%dpf0sf%d", int(d), sfnum) }

func (d Device) sysfs(name ...string) string {
	return filepath.Join(append([]string{bus, "devices", d.String()}, name...)...)
}

// SetVFs makes n VFs, or with 0 removes those there are.
func (d Device) SetVFs(n int) error { return write(d.sysfs("sriov_numvfs"), strconv.Itoa(n)) }

// VFNetdev returns the name of a VF's netdev: an error wraps os.ErrNotExist while it has none in this network namespace.
func (d Device) VFNetdev(vf int) (string, error) {
	return netdev(d.sysfs("virtfn" + strconv.Itoa(vf)))
}

// SFNetdev is VFNetdev for an SF.
func (d Device) SFNetdev(sfnum int) (string, error) {
	all, err := filepath.Glob(d.sysfs("simnic.sf.*"))
	if err != nil {
		return "", err
	}
	for _, dir := range all {
		b, err := os.ReadFile(filepath.Join(dir, "sfnum"))
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just gone
		}
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(string(b)) == strconv.Itoa(sfnum) {
			return netdev(filepath.Join(auxiliary, filepath.Base(dir)))
		}
	}
	return "", fmt.Errorf("simnic: %v has no auxiliary device with sfnum %d: %w", d, sfnum, os.ErrNotExist)
}

// netdev returns the only netdev of a device.
func netdev(device string) (string, error) {
	entries, err := os.ReadDir(filepath.Join(device, "net"))
	if err != nil {
		return "", err
	}
	if len(entries) != 1 {
		return "", fmt.Errorf("simnic: %s has %d netdevs: %w", device, len(entries), os.ErrNotExist)
	}
	return entries[0].Name(), nil
}

// A Failure is a kind of call that can be made to fail.
type Failure string

// The failures: the calls fail with EBUSY, a netdev's registration with ENOMEM.
const (
	PortNew    Failure = "fail_port_new"
	PortDel    Failure = "fail_port_del"
	HWAddrSet  Failure = "fail_hw_addr_set"
	StateSet   Failure = "fail_state_set"
	EswitchSet Failure = "fail_eswitch_set"
	Netdev     Failure = "fail_netdev" // of representors as of functions
)

// Fail makes the next n such calls fail.
func (d Device) Fail(f Failure, n int) error { return d.set(string(f), strconv.Itoa(n)) }

// A Setting is a number that the device goes by; 0 and 1 mean no and yes where that is the question.
type Setting string

// The settings, and what they are when the device is made.
const (
	SFDelay   Setting = "sf_delay_ms" // how many milliseconds an SF's device takes to appear after its activation: 0
	RDMA      Setting = "rdma"        // functions get an RDMA device when their drivers are bound: no
	VFConfig  Setting = "vf_config"   // VLAN, trust and spoof check of VFs can be set, as of many NICs in legacy mode only: no
	AcceptAll Setting = "accept_all"  // all filters are taken, but for those that are to be refused: no
	CT        Setting = "ct"          // there is connection tracking: yes
	CTNew     Setting = "ct_new"      // filters may match on ct_state +new, as from Linux 6.3: no
	TTL       Setting = "ttl"         // filters may match on a TTL: yes
	MaxChain  Setting = "max_chain"   // the highest chain: all of TC's
	MaxRules  Setting = "max_rules"   // as many filters are taken, those of each device counted; 0 is no limit: 0
	Delay     Setting = "delay_ms"    // how many milliseconds the insertion of a filter takes: 0
	RefuseNth Setting = "refuse_nth"  // 1 refuses the next filter, 2 the one after it; 0 none: 0
	Tunnels   Setting = "tunnels"     // filters of tunnel devices are taken: yes. Those that are there lose in_hw when it becomes no
)

// Set sets it; it counts from the next call.
func (d Device) Set(s Setting, n int) error { return d.set(string(s), strconv.Itoa(n)) }

// Reset takes all representors away and makes new ones, as a reset of a NIC's firmware does. Active SFs stay active, with a new
// auxiliary device.
func (d Device) Reset() error { return d.set("reset", "1") }

// RefuseKeys refuses all filters that match on one of these, from now on: indev, mac, vlan, ipv4, ipv6, ip (TOS and TTL), ports,
// tcp_flags, icmp, ct, enc_key_id, enc_ip, enc_opts.
func (d Device) RefuseKeys(names ...string) error {
	return d.set("refuse_keys", strings.Join(names, " ")+"\n")
}

// RefuseActions refuses all filters with one of these actions, from now on: pass, drop, trap, goto, redirect, mirror, vlan,
// tunnel_set, tunnel_unset, pedit, csum, ct, police, sample.
func (d Device) RefuseActions(names ...string) error {
	return d.set("refuse_actions", strings.Join(names, " ")+"\n")
}

// Forget lets the hardware lose the rules that it has: nobody is told, filters stay in_hw, and count no more.
func (d Device) Forget() error { return d.set("forget", "1") }

// Count lets each rule in the hardware count n packets of 100 octets.
func (d Device) Count(n int) error { return d.set("count", strconv.Itoa(n)) }

// A Rule is what the hardware has of a filter, once for each device of a shared block that it was taken for.
type Rule struct {
	Device    string // where packets come in
	Chain     uint32
	Pref      uint32
	Keys      uint64 // bits are the kernel's enum flow_dissector_key_id
	Actions   uint64 // bits are the kernel's enum flow_action_id
	Forgotten bool
}

// Rules returns the rules, in the order of devices, chains and prefs.
func (d Device) Rules() ([]Rule, error) {
	file := filepath.Join(debug, d.String(), "rules")
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rules []Rule
	for line := range strings.Lines(string(b)) {
		var r Rule
		if _, err := fmt.Sscanf(line, "%s %d %d %v %v", &r.Device, &r.Chain, &r.Pref, &r.Keys, &r.Actions); err != nil {
			return nil, fmt.Errorf("simnic: %s: line %q: %w", file, line, err)
		}
		r.Forgotten = strings.HasSuffix(line, " forgotten\n")
		rules = append(rules, r)
	}
	slices.SortFunc(rules, func(a, b Rule) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Chain, b.Chain), cmp.Compare(a.Pref, b.Pref))
	})
	return rules, nil
}

func (d Device) set(name, value string) error {
	return write(filepath.Join(debug, d.String(), name), value)
}

// write writes a file of the kernel's.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
