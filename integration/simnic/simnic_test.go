package simnic_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/simnic"
)

// A VF and an SF from the first call to the last, with packets between them, and what tools find them by.
func TestSimnicFunctions(t *testing.T) {
	load(t)
	const d = simnic.Device(0)
	wantWords(t, "eswitch", run(t, words("devlink dev eswitch show %s", d.Handle())...), "mode legacy")
	wantError(t, "only supported in eswitch switchdev mode", words("devlink port add %s flavour pcisf pfnum 0 sfnum 88", d.Handle())...)
	if b, err := os.ReadFile("/sys/class/net/" + d.Uplink() + "/phys_switch_id"); err == nil {
		t.Errorf("phys_switch_id of %s in legacy mode = %q, want none", d.Uplink(), b)
	}
	check(t, d.SetVFs(2))
	if err := d.SetVFs(3); err == nil {
		t.Error("sriov_numvfs from 2 to 3 = nil, want an error: PCI wants 0 first")
	}
	if _, err := os.Stat("/sys/class/net/" + d.VFRepresentor(0)); err == nil {
		t.Error("there are representors in legacy mode")
	}
	switchdev(t, d)

	var ids []string
	for dev, port := range map[string]string{d.Uplink(): "p0", d.VFRepresentor(0): "pf0vf0", d.VFRepresentor(1): "pf0vf1"} {
		if got := read(t, "/sys/class/net/"+dev+"/phys_port_name"); got != port {
			t.Errorf("phys_port_name of %s = %q, want %q", dev, got, port)
		}
		ids = append(ids, read(t, "/sys/class/net/"+dev+"/phys_switch_id"))
	}
	if ids[0] == "" || ids[0] != ids[1] || ids[0] != ids[2] {
		t.Errorf("phys_switch_id of uplink and representors: %q, want the same", ids)
	}
	wantWords(t, "port of VF 1", run(t, words("devlink port show %s/2", d.Handle())...), "netdev "+d.VFRepresentor(1), "flavour pcivf", "pfnum 0", "vfnum 1")

	// The address is what the netdev has when its driver is bound.
	run(t, words("devlink port function set %s/1 hw_addr 02:00:00:00:00:01", d.Handle())...)
	check(t, os.WriteFile("/sys/bus/simnic/drivers/simnic_vf/unbind", []byte("simnic0v0"), 0))
	if name, err := d.VFNetdev(0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("VFNetdev(0) without a driver = %q, %v, want ErrNotExist", name, err)
	}
	check(t, os.WriteFile("/sys/bus/simnic/drivers/simnic_vf/bind", []byte("simnic0v0"), 0))
	vf, err := d.VFNetdev(0)
	check(t, err)
	if got := read(t, "/sys/class/net/"+vf+"/address"); got != "02:00:00:00:00:01" {
		t.Errorf("address of VF 0 = %s, want that of its devlink port", got)
	}
	run(t, words("ip link set %s vf 1 mac 02:00:00:00:00:02", d.Uplink())...)
	wantWords(t, "port of VF 1", run(t, words("devlink port show %s/2", d.Handle())...), "hw_addr 02:00:00:00:00:02")

	add := words("devlink port add %s flavour pcisf pfnum 0 sfnum 88", d.Handle())
	run(t, add...)
	wantError(t, "SF already exist", add...)
	port := words("devlink port show %s/32768", d.Handle())
	wantWords(t, "port of a new SF", run(t, port...), "netdev "+d.SFRepresentor(88), "flavour pcisf", "sfnum 88", "state inactive", "opstate detached")
	if name, err := d.SFNetdev(88); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("SFNetdev of an inactive SF = %q, %v, want ErrNotExist", name, err)
	}
	run(t, words("devlink port function set %s/32768 hw_addr 02:00:00:00:00:88 state active", d.Handle())...)
	var sf string
	eventually(t, func() (err error) {
		sf, err = d.SFNetdev(88)
		return err
	})
	wantWords(t, "port of an active SF", run(t, port...), "hw_addr 02:00:00:00:00:88", "state active", "opstate attached")
	if got := read(t, "/sys/class/net/"+sf+"/address"); got != "02:00:00:00:00:88" {
		t.Errorf("address of SF 88 = %s, want that of its devlink port", got)
	}

	space(t, "a", vf, "10.0.0.1/24")
	space(t, "b", sf, "10.0.0.2/24")
	redirect(t, d.VFRepresentor(0), d.SFRepresentor(88), "")
	ping(t, "a", "10.0.0.2")
	if n := read(t, "/sys/class/net/"+d.VFRepresentor(0)+"/statistics/rx_packets"); n == "0" {
		t.Error("the representor of VF 0 has received no packet")
	}
	run(t, words("ip -n a link set eth0 mtu 9000")...)
	wantError(t, "100% packet loss", words("ip netns exec a ping -n -c 1 -W 1 -s 4000 -M do 10.0.0.2")...)

	// Carrier is there while both ends are up.
	carrier := "/sys/class/net/" + d.VFRepresentor(0) + "/carrier"
	run(t, words("ip -n a link set eth0 down")...)
	if got := read(t, carrier); got != "0" {
		t.Errorf("carrier of the representor of a function that is down = %s, want 0", got)
	}
	run(t, words("ip -n a link set eth0 up")...)
	if got := read(t, carrier); got != "1" {
		t.Errorf("carrier of the representor of a function that is up = %s, want 1", got)
	}

	// A function outlives the namespace it was in; that of an SF goes with its activation, wherever it is.
	run(t, words("ip netns del a")...)
	eventually(t, func() error { _, err := d.VFNetdev(0); return err })
	run(t, words("devlink port function set %s/32768 state inactive", d.Handle())...)
	if out := run(t, words("ip -n b -br link")...); strings.Contains(out, "eth0") {
		t.Errorf("the SF was deactivated, and is there:\n%s", out)
	}
	wantWords(t, "port of an inactive SF", run(t, port...), "state inactive", "opstate detached")
	run(t, words("devlink port del %s/32768", d.Handle())...)
	wantError(t, "No such device", words("devlink port del %s/32768", d.Handle())...)

	run(t, words("devlink dev eswitch set %s mode legacy", d.Handle())...)
	if left, _ := filepath.Glob("/sys/class/net/sn0pf0*"); len(left) > 0 {
		t.Errorf("representors in legacy mode: %q", left)
	}
}

// What the uplink keeps of a VF is shown as it was set; and what mlx5 refuses in switchdev mode is refused, unless that is switched on.
func TestSimnicVFConfig(t *testing.T) {
	load(t)
	const d = simnic.Device(0)
	check(t, d.SetVFs(2))
	switchdev(t, d)
	show := func() string { return run(t, words("ip link show %s", d.Uplink())...) }
	before := show()
	for _, what := range []string{"vlan 7", "trust on", "spoofchk on"} {
		wantError(t, "Operation not supported", words("ip link set %s vf 1 %s", d.Uplink(), what)...)
	}
	run(t, words("ip link set %s vf 1 vlan 0", d.Uplink())...)
	if after := show(); after != before {
		t.Errorf("after what was refused:\n%swas\n%s", after, before)
	}
	check(t, d.Set(simnic.VFConfig, 1))
	for _, what := range []string{"vlan 7 qos 3 proto 802.1ad", "trust on", "spoofchk on", "state enable", "min_tx_rate 10 max_tx_rate 50"} {
		run(t, words("ip link set %s vf 1 %s", d.Uplink(), what)...)
	}
	wantWords(t, "VFs", show(), "vlan 7, qos 3, vlan protocol 802.1ad", "trust on", "spoof checking on", "link-state enable", "tx rate 50 (Mbps)", "min_tx_rate 10Mbps")
	wantError(t, "Invalid argument", words("ip link set %s vf 2 trust on", d.Uplink())...)
}

// The RDMA device of a function can be in another namespace, comes back when that dies, and goes with the function.
func TestSimnicRDMA(t *testing.T) {
	load(t)
	const d = simnic.Device(0)
	run(t, words("rdma system set netns exclusive")...)
	defer run(t, words("rdma system set netns shared")...)
	check(t, d.Set(simnic.RDMA, 1))
	check(t, d.SetVFs(2))
	wantWords(t, "RDMA devices", run(t, words("rdma dev show")...), "sn0v0", "sn0v1")
	if _, err := os.Stat("/sys/bus/simnic/devices/simnic0v1/infiniband/sn0v1"); err != nil {
		t.Error(err)
	}
	run(t, words("ip netns add a")...)
	run(t, words("rdma dev set sn0v1 netns a")...)
	wantWords(t, "RDMA devices of the namespace", run(t, words("ip netns exec a rdma dev show")...), "sn0v1")
	if here := run(t, words("rdma dev show")...); strings.Contains(here, "sn0v1") {
		t.Errorf("RDMA devices: %s", here)
	}
	run(t, words("ip netns del a")...)
	eventually(t, func() error {
		if here := run(t, words("rdma dev show")...); !strings.Contains(here, "sn0v1") {
			return fmt.Errorf("RDMA devices: %s", here)
		}
		return nil
	})
	check(t, d.SetVFs(0))
	if here := run(t, words("rdma dev show")...); strings.Contains(here, "sn0") {
		t.Errorf("RDMA devices without VFs: %s", here)
	}
}

// Two NICs are connected by their wires; one of them is in another namespace, which then dies.
func TestSimnicWire(t *testing.T) {
	load(t)
	other, err := simnic.NewDevice(7)
	check(t, err)
	if _, err := simnic.NewDevice(7); err == nil {
		t.Error("NewDevice(7) twice = nil, want an error")
	}
	run(t, words("ip netns add node")...)
	run(t, words("devlink dev reload %s netns node", other.Handle())...)
	run(t, words("ip -n node link set %s netns 1", other.Wire())...)
	const d = simnic.Device(0)
	// What one wire receives, the other sends.
	redirect(t, d.Wire(), other.Wire(), "")
	space(t, "a", d.Uplink(), "10.0.0.1/24")
	run(t, words("ip -n node link set %s up", other.Uplink())...)
	run(t, words("ip -n node addr add 10.0.0.2/24 dev %s", other.Uplink())...)
	ping(t, "a", "10.0.0.2")

	run(t, words("ip netns exec node devlink dev eswitch set %s mode switchdev", other.Handle())...)
	run(t, words("ip netns exec node devlink port add %s flavour pcisf pfnum 0 sfnum 1", other.Handle())...)
	wantWords(t, "ports of the node", run(t, words("ip netns exec node devlink port")...), other.SFRepresentor(1))
	run(t, words("ip netns del node")...)
	eventually(t, func() error {
		if out := run(t, "devlink", "dev", "eswitch", "show", d.Handle()); out == "" {
			return errors.New("no answer")
		}
		_, err := try(words("devlink dev eswitch show %s", other.Handle())...)
		return err
	})
	wantWords(t, "eswitch that came back", run(t, words("devlink dev eswitch show %s", other.Handle())...), "mode legacy")
	check(t, other.Remove())
}

// Each fault of ports and functions once: the call fails, the next one does not.
func TestSimnicFaults(t *testing.T) {
	load(t)
	const d = simnic.Device(0)
	// A function whose netdev cannot be registered is a device without a driver.
	check(t, d.Fail(simnic.Netdev, 1))
	check(t, d.SetVFs(1))
	if name, err := d.VFNetdev(0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("VFNetdev(0) of a VF whose driver failed = %q, %v, want ErrNotExist", name, err)
	}
	check(t, os.WriteFile("/sys/bus/simnic/drivers/simnic_vf/bind", []byte("simnic0v0"), 0))
	_, err := d.VFNetdev(0)
	check(t, err)
	check(t, d.SetVFs(0))

	for _, tt := range []struct {
		fault simnic.Failure
		says  string
		call  string
	}{
		{simnic.EswitchSet, "E-Switch is busy", "dev eswitch set %s mode switchdev"},
		{simnic.PortNew, "busy", "port add %s flavour pcisf pfnum 0 sfnum 1"},
		{simnic.Netdev, "Cannot allocate memory", "port add %s flavour pcisf pfnum 0 sfnum 2"},
		{simnic.HWAddrSet, "busy", "port function set %s/32768 hw_addr 02:00:00:00:00:01"},
		{simnic.StateSet, "busy", "port function set %s/32768 state active"},
		{simnic.PortDel, "busy", "port del %s/32768"},
	} {
		check(t, d.Fail(tt.fault, 1))
		call := append([]string{"devlink"}, words(tt.call, d.Handle())...)
		wantError(t, tt.says, call...)
		run(t, call...)
	}

	check(t, d.Fail(simnic.Netdev, 1))
	if err := d.SetVFs(1); err == nil {
		t.Error("SetVFs(1) without memory for the representor = nil, want an error")
	}

	// An SF that takes its time, and one that is deactivated before it is there.
	check(t, d.Set(simnic.SFDelay, 700))
	start := time.Now()
	sf(t, d, 3, 32768)
	if took := time.Since(start); took < 700*time.Millisecond {
		t.Errorf("an SF with a delay of 700 ms came after %v", took)
	}
	run(t, words("devlink port function set %s/32768 state inactive", d.Handle())...)
	run(t, words("devlink port function set %s/32768 state active", d.Handle())...)
	run(t, words("devlink port del %s/32768", d.Handle())...)
	check(t, d.Set(simnic.SFDelay, 0))

	// A reset: all representors are others, the active SF comes back.
	sf(t, d, 4, 32768)
	before := read(t, "/sys/class/net/"+d.SFRepresentor(4)+"/ifindex")
	check(t, d.Reset())
	if after := read(t, "/sys/class/net/"+d.SFRepresentor(4)+"/ifindex"); after == before {
		t.Error("a reset left the representor of SF 4 as it was")
	}
	eventually(t, func() error { _, err := d.SFNetdev(4); return err })
}

// As many functions as a node may have: they come, and they go with the module.
func TestSimnicMany(t *testing.T) {
	load(t)
	const d, vfs, sfs = simnic.Device(0), 64, 256
	switchdev(t, d)
	check(t, d.SetVFs(vfs))
	var batch strings.Builder
	for i := range sfs {
		fmt.Fprintf(&batch, "port add %s flavour pcisf pfnum 0 sfnum %d\nport function set %s/%d state active\n", d.Handle(), i, d.Handle(), 32768+i)
	}
	file := filepath.Join(t.TempDir(), "batch")
	check(t, os.WriteFile(file, []byte(batch.String()), 0o600))
	start := time.Now()
	run(t, "devlink", "-b", file)
	t.Logf("%d SFs in %v", sfs, time.Since(start))
	if n := strings.Count(run(t, "devlink", "port"), "flavour"); n != 1+vfs+sfs {
		t.Errorf("devlink port shows %d ports, want %d", n, 1+vfs+sfs)
	}
	for i := range vfs {
		_, err := d.VFNetdev(i)
		check(t, err)
	}
	eventually(t, func() error {
		all, err := filepath.Glob("/sys/bus/auxiliary/devices/simnic.sf.*/net/*")
		if err == nil && len(all) != sfs {
			err = fmt.Errorf("%d SFs have a netdev, want %d", len(all), sfs)
		}
		return err
	})
}

// read returns a file of sysfs without the newline.
func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
