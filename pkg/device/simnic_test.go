package device_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/simnic"
	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

const nic = simnic.Device(0)

func handle() devlink.Handle { return devlink.Handle{Bus: "simnic", Dev: nic.String()} }

// load inserts the simulated NIC's module with n devices for the duration of a test.
func load(t *testing.T, n int) {
	t.Helper()
	if why := simnic.Absent(); why != "" {
		t.Skip(why)
	}
	if err := simnic.Load(os.Getenv(simnic.Module), n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := simnic.Unload(); err != nil {
			t.Error(err)
		}
	})
}

// run runs a command line.
func run(t *testing.T, format string, args ...any) string {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	argv := strings.Fields(line)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// A lockedBuffer takes the log of several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// An inventory is one that runs until the test is over, or stop is called.
type inventory struct {
	*device.Inventory
	stop func()
}

func start(t *testing.T, o device.Options) inventory {
	t.Helper()
	pools, err := device.Check(o.Pools)
	if err != nil {
		t.Fatal(err)
	}
	o.Pools = pools
	if o.Devlink == nil {
		if o.Devlink, err = devlink.Dial(devlink.DialOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if o.Patience == 0 {
		o.Patience = 3 * time.Second
	}
	log := &lockedBuffer{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	v := device.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
			if t.Failed() {
				t.Logf("log of the inventory:\n%s", log)
			}
		})
	}
	t.Cleanup(stop)
	return inventory{v, stop}
}

// until waits for a snapshot that is as it should be: f returns what is wrong, or nil.
func (v inventory) until(t *testing.T, f func(device.Snapshot) error) device.Snapshot {
	t.Helper()
	deadline := time.After(time.Minute) // guests may be emulated
	for {
		s := v.Snapshot()
		err := f(s)
		if err == nil {
			return s
		}
		select {
		case <-s.Changed:
		case <-deadline:
			for _, f := range s.Functions {
				t.Logf("%s: %s %s %s %s %+v", f.Name(), f.State, f.Owner, f.Reason, f.Message, f.Function)
			}
			for _, d := range s.Devices {
				t.Logf("%+v", d)
			}
			t.Fatalf("after a minute: %v", err)
		}
	}
}

// counts waits until a pool has so many functions in some states, and none in others.
func (v inventory) counts(t *testing.T, pool string, want map[device.State]int) {
	t.Helper()
	v.until(t, func(s device.Snapshot) error {
		for _, p := range s.Pools {
			if p.Name != pool {
				continue
			}
			for _, state := range device.States() {
				if p.Counts[state] != want[state] {
					return fmt.Errorf("pool %s has %v, want %v (%s %s)", pool, p.Counts, want, p.Reason, p.Message)
				}
			}
			return nil
		}
		return fmt.Errorf("no pool %s", pool)
	})
}

func (v inventory) acquire(t *testing.T, r device.Request) device.Function {
	t.Helper()
	f, err := v.Acquire(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (v inventory) release(t *testing.T, f device.Function, owner string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := v.Release(ctx, f, owner); err != nil {
		t.Fatal(err)
	}
}

func wantReason(t *testing.T, what string, err error, want reason.Reason, says string) {
	t.Helper()
	if reason.Of(err) != want || !strings.Contains(fmt.Sprint(err), says) {
		t.Errorf("%s = %v (%s), want %s that says %q", what, err, reason.Of(err), want, says)
	}
}

var twoPools = []device.Pool{
	{Name: "vfs", Device: nic.Uplink(), Kind: device.VF},
	{Name: "sfs", Device: nic.Handle(), Kind: device.SF, MinWarm: 3, MaxWarm: 5, Max: 8},
}

// switchdev has an inventory of a NIC in switchdev mode with four VFs, all of whose pools are filled.
func switchdev(t *testing.T) inventory {
	t.Helper()
	load(t, 1)
	run(t, "devlink dev eswitch set %s mode switchdev", nic.Handle())
	if err := nic.SetVFs(4); err != nil {
		t.Fatal(err)
	}
	v := start(t, device.Options{Pools: twoPools})
	v.Reconciled()
	v.counts(t, "vfs", map[device.State]int{device.Free: 4})
	v.counts(t, "sfs", map[device.State]int{device.Free: 3})
	return v
}

// VFs are made, and the mode of the eswitch is changed, when somebody says so, and not while somebody has a function.
func TestSimnicOperations(t *testing.T) {
	load(t, 2)
	ctx := context.Background()
	v := start(t, device.Options{Pools: twoPools})
	v.until(t, func(s device.Snapshot) error {
		if len(s.Devices) != 2 || s.Devices[0].Mode != devlink.ModeLegacy || s.Devices[0].TotalVFs == 0 || s.Devices[0].Uplink.Name != nic.Uplink() {
			return fmt.Errorf("devices: %+v", s.Devices)
		}
		for _, p := range s.Pools {
			if p.Reason != reason.EswitchNotSwitchdev {
				return fmt.Errorf("pool %s: %q %q", p.Name, p.Reason, p.Message)
			}
		}
		return nil
	})
	_, err := v.Acquire(ctx, device.Request{Owner: "a"})
	wantReason(t, "Acquire before Reconciled", err, reason.NotReady, "in use")
	v.Reconciled()
	_, err = v.Acquire(ctx, device.Request{Owner: "a"})
	wantReason(t, "Acquire in legacy mode", err, reason.EswitchNotSwitchdev, "legacy")

	for _, dryRun := range []bool{true, false} {
		p, err := v.SetMode(ctx, handle(), devlink.ModeSwitchdev, dryRun)
		if err != nil || len(p.Steps) != 1 || p.Steps[0] != "devlink dev eswitch set simnic/simnic0 mode switchdev" {
			t.Fatalf("SetMode(dryRun %t) = %+v, %v", dryRun, p, err)
		}
		if is := strings.Contains(run(t, "devlink dev eswitch show %s", nic.Handle()), "switchdev"); is == dryRun {
			t.Errorf("after SetMode(dryRun %t) the mode is switchdev: %t", dryRun, is)
		}
	}
	v.counts(t, "sfs", map[device.State]int{device.Free: 3})
	p, err := v.SetVFs(ctx, handle(), 4, true)
	if err != nil || len(p.Steps) != 1 || len(p.Removes) != 0 {
		t.Errorf("SetVFs(4, dry run) = %+v, %v", p, err)
	}
	if _, err := v.SetVFs(ctx, handle(), 4, false); err != nil {
		t.Fatal(err)
	}
	v.counts(t, "vfs", map[device.State]int{device.Free: 4})

	f := v.acquire(t, device.Request{Pool: "vfs", Owner: "a"})
	p, err = v.SetVFs(ctx, handle(), 2, false)
	wantReason(t, "SetVFs(2) while one is in use", err, reason.FunctionsInUse, "of a")
	if len(p.Steps) != 2 || len(p.Removes) != 4 || len(p.Affected) != 1 {
		t.Errorf("SetVFs(2) = %+v", p)
	}
	p, err = v.SetMode(ctx, handle(), devlink.ModeLegacy, true)
	wantReason(t, "SetMode(legacy) while a VF is in use", err, reason.FunctionsInUse, "of a")
	if len(p.Removes) != 7 || !slices.Equal(p.Affected, []string{"a"}) {
		t.Errorf("SetMode(legacy) = %+v", p)
	}
	v.release(t, f, "a")
	if _, err := v.SetVFs(ctx, handle(), 2, false); err != nil {
		t.Fatal(err)
	}
	v.counts(t, "vfs", map[device.State]int{device.Free: 2})

	// One behind the other, and behind somebody who asks nobody: each is about what is there.
	two := func() bool {
		return strings.TrimSpace(run(t, "cat /sys/bus/simnic/devices/%v/sriov_numvfs", nic)) == "2"
	}
	for i := range 10 {
		if _, err := v.SetVFs(ctx, handle(), 0, false); err != nil {
			t.Fatal(err)
		}
		if p, err := v.SetVFs(ctx, handle(), 2, false); err != nil || len(p.Steps) != 1 || !two() {
			t.Fatalf("round %d: SetVFs(2) right behind SetVFs(0) = %+v, %v; there are two: %t", i, p, err, two())
		}
		if err := nic.SetVFs(0); err != nil {
			t.Fatal(err)
		}
		if p, err := v.SetVFs(ctx, handle(), 2, false); err != nil || len(p.Steps) != 1 || !two() {
			t.Fatalf("round %d: SetVFs(2) after somebody else has removed all = %+v, %v; there are two: %t", i, p, err, two())
		}
	}
	v.counts(t, "vfs", map[device.State]int{device.Free: 2})
	if _, err := v.SetMode(ctx, handle(), devlink.ModeLegacy, false); err != nil {
		t.Fatal(err)
	}
	v.counts(t, "vfs", nil)
	v.counts(t, "sfs", nil)
	_, err = v.SetVFs(ctx, devlink.Handle{Bus: "simnic", Dev: "simnic9"}, 2, false)
	wantReason(t, "SetVFs of no device", err, reason.DeviceNotFound, "simnic9")
}

type linkState struct{ name, mac, mtu string }

func linkOf(t *testing.T, name string) linkState {
	t.Helper()
	words := strings.Fields(run(t, "ip link show dev %s", name))
	after := func(word string) string {
		i := slices.Index(words, word)
		if i < 0 {
			t.Fatalf("ip link show says %q", words)
		}
		return words[i+1]
	}
	return linkState{name, after("link/ether"), after("mtu")}
}

// What a pod was given, and what it has changed by itself, is as before when the function is given to the next.
func TestSimnicRestore(t *testing.T) {
	v := switchdev(t)
	ctx := context.Background()
	rates := []*uint64{new(uint64(8e6)), new(uint64(80e6))}
	for _, pool := range []string{"vfs", "sfs"} {
		r := device.Request{Pool: pool, Owner: "a", Attributes: device.Attributes{
			MAC: device.MAC{2, 0, 0, 0, 0, 1}, MTU: 1400, MinRate: rates[0], MaxRate: rates[1],
		}}
		f := v.acquire(t, r)
		before, rep := linkOf(t, f.Netdev.Name), linkOf(t, f.Representor.Name)
		port := run(t, "devlink port show %v", f.Handle)
		if err := v.Configure(ctx, f, r.Attributes); err != nil {
			t.Fatal(err)
		}
		if again := v.acquire(t, r); again != f && again.Generation != f.Generation {
			t.Errorf("Acquire again = %+v, want %+v", again, f)
		}
		is := linkOf(t, f.Netdev.Name)
		if is.mac != "02:00:00:00:00:01" || is.mtu != "1400" || linkOf(t, f.Representor.Name).mtu != "1400" {
			t.Errorf("%s after Configure: %+v, representor %+v", pool, is, linkOf(t, f.Representor.Name))
		}
		if s := run(t, "devlink port show %v", f.Handle); !strings.Contains(s, "hw_addr 02:00:00:00:00:01") {
			t.Errorf("%s after Configure: %s", pool, s)
		}
		if s := run(t, "devlink port function rate show %v", f.Handle); !strings.Contains(s, "tx_max 80Mbit") || !strings.Contains(s, "tx_share 8Mbit") {
			t.Errorf("%s after Configure: %s", pool, s)
		}
		// What a privileged pod can do, and a container that ends without anybody moving the device back.
		run(t, "ip netns add pod")
		run(t, "ip link set %s netns pod name eth0", f.Netdev.Name)
		run(t, "ip -n pod link set eth0 address 02:00:00:00:00:99 mtu 900 alias mine promisc on up")
		run(t, "ip -n pod link property add dev eth0 altname left-over")
		run(t, "ip -n pod addr add 10.0.0.1/24 dev eth0")
		v.until(t, func(device.Snapshot) error {
			if s, ok := v.Lookup("a"); !ok || s.Netdev.Index != 0 || s.State != device.Used {
				return fmt.Errorf("Lookup = %+v, %t", s, ok)
			}
			return nil
		})
		run(t, "ip netns del pod")
		v.release(t, f, "a")
		if err := v.Release(ctx, f, "a"); err != nil {
			t.Errorf("Release again: %v", err)
		}
		if is := linkOf(t, before.name); is != before || linkOf(t, rep.name) != rep {
			t.Errorf("%s after Release: %+v, representor %+v, want %+v, %+v", pool, is, linkOf(t, rep.name), before, rep)
		}
		if s := run(t, "ip -d link show dev %s", before.name); strings.Contains(s, "left-over") || strings.Contains(s, "PROMISC") || strings.Contains(s, "alias") {
			t.Errorf("%s after Release: %s", pool, s)
		}
		if s := run(t, "devlink port show %v", f.Handle); s != port {
			t.Errorf("%s after Release: %s, want %s", pool, s, port)
		}
		if s := run(t, "devlink port function rate show %v", f.Handle); strings.Contains(s, "tx_max") {
			t.Errorf("%s after Release: %s", pool, s)
		}
	}
	v.counts(t, "vfs", map[device.State]int{device.Free: 4})
	v.counts(t, "sfs", map[device.State]int{device.Free: 4}) // one was made while one was used
}

// An attribute that a function cannot have is an error that names it, before anybody has the function if that is known then.
func TestSimnicUnsupported(t *testing.T) {
	v := switchdev(t)
	ctx := context.Background()
	for _, tt := range []struct {
		pool string
		a    device.Attributes
		name string
	}{
		{"vfs", device.Attributes{Trust: new(true)}, "trust"},
		{"vfs", device.Attributes{SpoofCheck: new(true)}, "spoof_check"},
		{"vfs", device.Attributes{VLAN: &device.VLAN{ID: 5}}, "vlan"},
		{"sfs", device.Attributes{VLAN: &device.VLAN{ID: 5}}, "vlan"},
		{"sfs", device.Attributes{Trust: new(true)}, "trust"},
	} {
		f, err := v.Acquire(ctx, device.Request{Pool: tt.pool, Owner: "a", Attributes: tt.a})
		if err == nil {
			err = v.Configure(ctx, f, tt.a)
			v.release(t, f, "a")
		}
		var e *reason.Error
		if reason.Of(err) != reason.FeatureUnsupported || !errors.As(err, &e) || e.Metadata["attribute"] != tt.name {
			t.Errorf("%s with %s: %v (%s), want %s that names it", tt.pool, tt.name, err, reason.Of(err), reason.FeatureUnsupported)
		}
	}
	v.counts(t, "vfs", map[device.State]int{device.Free: 4})
	v.counts(t, "sfs", map[device.State]int{device.Free: 3})
}

// The driver says EBUSY, the netdev does not come back, the representor stays in a bridge, the NIC is reset.
func TestSimnicFaults(t *testing.T) {
	v := switchdev(t)
	ctx := context.Background()
	attributes := device.Attributes{MAC: device.MAC{2, 0, 0, 0, 0, 1}}
	fail := func(f simnic.Failure, n int) {
		t.Helper()
		if err := nic.Fail(f, n); err != nil {
			t.Fatal(err)
		}
	}
	var owned []device.Function
	fail(simnic.PortNew, 2)
	fail(simnic.StateSet, 2)
	fail(simnic.HWAddrSet, 2)
	for i := range 8 {
		f := v.acquire(t, device.Request{Pool: "sfs", Owner: fmt.Sprint("sf", i), Attributes: attributes})
		if err := v.Configure(ctx, f, attributes); err != nil {
			t.Fatal(err)
		}
		owned = append(owned, f)
	}
	_, err := v.Acquire(ctx, device.Request{Pool: "sfs", Owner: "one more"})
	wantReason(t, "Acquire from a pool that has no more", err, reason.PoolExhausted, "8 used")
	fail(simnic.HWAddrSet, 1)
	fail(simnic.PortDel, 2)
	for i, f := range owned {
		v.release(t, f, fmt.Sprint("sf", i))
	}
	v.counts(t, "sfs", map[device.State]int{device.Free: 5})

	// It does not come back in time, but later.
	f := v.acquire(t, device.Request{Pool: "vfs", Owner: "a"})
	run(t, "ip netns add pod")
	run(t, "ip link set %s netns pod", f.Netdev.Name)
	v.release(t, f, "a")
	s := v.until(t, quarantined(f, reason.FunctionElsewhere))
	_, err = v.Acquire(ctx, device.Request{Pool: "vfs", Device: f.Device, Owner: "b"})
	wantReason(t, "Acquire of what is quarantined", err, reason.FunctionQuarantined, "namespace")
	wantReason(t, "Recover", v.Recover(ctx, f.Handle), reason.FunctionElsewhere, "namespace")
	run(t, "ip netns del pod")
	v.counts(t, "vfs", map[device.State]int{device.Free: 4})
	_ = s

	f = v.acquire(t, device.Request{Pool: "vfs", Owner: "a"})
	run(t, "ip link add br0 type bridge")
	run(t, "ip link set %s master br0", f.Representor.Name)
	v.release(t, f, "a")
	v.until(t, quarantined(f, reason.RepresentorInUse))
	run(t, "ip link set %s nomaster", f.Representor.Name)
	v.counts(t, "vfs", map[device.State]int{device.Free: 4})
	run(t, "ip link del br0")

	// An SF that does not come back can be deleted, wherever it is.
	lost := v.acquire(t, device.Request{Pool: "sfs", Owner: "a"})
	run(t, "ip netns add pod")
	run(t, "ip link set %s netns pod", lost.Netdev.Name)
	v.release(t, lost, "a")
	v.until(t, quarantined(lost, reason.FunctionElsewhere))
	wantReason(t, "Discard of a VF", v.Discard(ctx, f.Handle), reason.DeviceBusy, "not quarantined")
	if err := v.Discard(ctx, lost.Handle); err != nil {
		t.Errorf("Discard: %v", err)
	}
	run(t, "ip netns del pod")
	v.counts(t, "sfs", map[device.State]int{device.Free: 4})

	// A late release of an earlier use.
	again := v.acquire(t, device.Request{Pool: "vfs", Device: f.Device, Owner: "b"})
	wantReason(t, "Release of an earlier use", v.Release(ctx, f, "a"), reason.DeviceStaleOwner, "used by b")
	wantReason(t, "Configure of an earlier use", v.Configure(ctx, f, attributes), reason.DeviceStaleOwner, "is over")

	if err := nic.Reset(); err != nil {
		t.Fatal(err)
	}
	v.until(t, func(device.Snapshot) error {
		if s, ok := v.Lookup("b"); !ok || s.State != device.Used || s.Representor.Index == 0 || s.Representor.Index == again.Representor.Index {
			return fmt.Errorf("Lookup after a reset = %+v, %t", s, ok)
		}
		return nil
	})
	v.release(t, again, "b")
	v.counts(t, "vfs", map[device.State]int{device.Free: 4})
	// While its SFs were away the pool may have made others, up to MaxWarm.
	v.until(t, func(s device.Snapshot) error {
		i := slices.IndexFunc(s.Pools, func(p device.PoolStatus) bool { return p.Name == "sfs" })
		if c := s.Pools[i].Counts; c[device.Free] < 4 || c[device.Free] > 5 || c[device.Quarantined]+c[device.Warming] > 0 {
			return fmt.Errorf("pool sfs has %v, want 4 or 5 free", c)
		}
		return nil
	})

	f = v.acquire(t, device.Request{Pool: "vfs", Owner: "a"})
	if err := nic.SetVFs(0); err != nil {
		t.Fatal(err)
	}
	v.counts(t, "vfs", map[device.State]int{device.Gone: 1})
	wantReason(t, "Configure of what is gone", v.Configure(ctx, f, attributes), reason.DeviceGone, "no longer")
	v.release(t, f, "a")
	v.counts(t, "vfs", nil)
}

func quarantined(f device.Function, want reason.Reason) func(device.Snapshot) error {
	return func(s device.Snapshot) error {
		for _, g := range s.Functions {
			if g.Handle == f.Handle && g.State == device.Quarantined && g.Reason == want {
				return nil
			}
		}
		return fmt.Errorf("%s is not quarantined with %s", f.Name(), want)
	}
}

// A daemon that starts anew knows what was in use by claims, and cleans up the rest when all are in.
func TestSimnicRestart(t *testing.T) {
	v := switchdev(t)
	ctx := context.Background()
	attributes := device.Attributes{MAC: device.MAC{2, 0, 0, 0, 0, 1}, MTU: 1400}
	kept := v.acquire(t, device.Request{Pool: "vfs", Owner: "kept", Attributes: attributes})
	sf := v.acquire(t, device.Request{Pool: "sfs", Owner: "sf", Attributes: attributes})
	for _, f := range []device.Function{kept, sf} {
		if err := v.Configure(ctx, f, attributes); err != nil {
			t.Fatal(err)
		}
	}
	v.acquire(t, device.Request{Pool: "vfs", Owner: "forgotten"})
	v.counts(t, "sfs", map[device.State]int{device.Free: 3, device.Used: 1})
	v.stop()
	run(t, "devlink port add %s flavour pcisf pfnum 0 sfnum 110", nic.Handle()) // as if it was stopped while it made one
	run(t, "devlink port add %s flavour pcisf pfnum 0 sfnum 7", nic.Handle())   // of nobody's

	v = start(t, device.Options{Pools: twoPools})
	if err := v.Claim(kept, "kept"); err != nil {
		t.Fatal(err)
	}
	v.until(t, func(s device.Snapshot) error {
		if len(s.Functions) != 10 {
			return fmt.Errorf("%d functions, want 10", len(s.Functions))
		}
		return nil
	})
	if err := v.Claim(sf, "sf"); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "Claim of somebody else's", v.Claim(sf, "other"), reason.DeviceBusy, "sf")
	v.counts(t, "vfs", map[device.State]int{device.Unknown: 3, device.Used: 1})
	v.counts(t, "sfs", map[device.State]int{device.Unknown: 4, device.Used: 1})
	_, err := v.Acquire(ctx, device.Request{Pool: "vfs", Owner: "a"})
	wantReason(t, "Acquire before Reconciled", err, reason.NotReady, "in use")
	v.Reconciled()
	v.counts(t, "vfs", map[device.State]int{device.Free: 3, device.Used: 1})
	v.counts(t, "sfs", map[device.State]int{device.Free: 3, device.Used: 1})
	v.until(t, func(s device.Snapshot) error {
		for _, f := range s.Functions {
			if f.Number == 7 && f.State == device.Unmanaged {
				return nil
			}
		}
		return errors.New("SF 7 is not unmanaged")
	})
	for _, f := range []device.Function{kept, sf} {
		v.release(t, f, map[device.Kind]string{device.VF: "kept", device.SF: "sf"}[f.Kind])
		if is := linkOf(t, f.Before.Netdev); is.mac != f.Before.MAC.String() || is.mtu != fmt.Sprint(f.Before.MTU) {
			t.Errorf("%s after a restart and Release: %+v, want %+v", f.Name(), is, f.Before)
		}
	}
	v.counts(t, "vfs", map[device.State]int{device.Free: 4})
	v.counts(t, "sfs", map[device.State]int{device.Free: 4})
	run(t, "devlink port del %s/%d", nic.Handle(), 0x8000+5)
}

// A NIC is unplugged while its functions are used, and plugged in again.
func TestSimnicUnplug(t *testing.T) {
	load(t, 1)
	const other = simnic.Device(7)
	v := start(t, device.Options{Pools: []device.Pool{
		{Name: "vfs", Device: other.Handle(), Kind: device.VF},
		{Name: "sfs", Device: other.Handle(), Kind: device.SF, MinWarm: 2, Max: 4},
	}})
	v.Reconciled()
	plug := func() {
		t.Helper()
		if _, err := simnic.NewDevice(int(other)); err != nil {
			t.Fatal(err)
		}
		run(t, "devlink dev eswitch set %s mode switchdev", other.Handle())
		if err := other.SetVFs(2); err != nil {
			t.Fatal(err)
		}
	}
	v.until(t, func(s device.Snapshot) error {
		if len(s.Devices) != 1 || s.Pools[0].Reason != reason.DeviceNotFound {
			return fmt.Errorf("%+v %+v", s.Devices, s.Pools)
		}
		return nil
	})
	_, err := v.Acquire(context.Background(), device.Request{Owner: "a"})
	wantReason(t, "Acquire without the NIC", err, reason.DeviceNotFound, other.Handle())
	plug()
	v.counts(t, "vfs", map[device.State]int{device.Free: 2})
	v.counts(t, "sfs", map[device.State]int{device.Free: 2})
	vf := v.acquire(t, device.Request{Pool: "vfs", Owner: "vf"})
	sf := v.acquire(t, device.Request{Pool: "sfs", Owner: "sf"})
	if err := other.Remove(); err != nil {
		t.Fatal(err)
	}
	v.until(t, func(s device.Snapshot) error {
		if len(s.Devices) != 1 || len(s.Functions) != 2 || s.Functions[0].State != device.Gone || s.Functions[1].State != device.Gone {
			return fmt.Errorf("%+v %+v", s.Devices, s.Functions)
		}
		return nil
	})
	plug()
	v.until(t, func(device.Snapshot) error { // the VF is there again, the SF is not
		a, _ := v.Lookup("vf")
		b, _ := v.Lookup("sf")
		if a.State != device.Used || a.Netdev.Index == 0 || b.State != device.Gone {
			return fmt.Errorf("%+v, %+v", a, b)
		}
		return nil
	})
	v.release(t, vf, "vf")
	v.release(t, sf, "sf")
	v.counts(t, "vfs", map[device.State]int{device.Free: 2})
	v.counts(t, "sfs", map[device.State]int{device.Free: 2})
	if err := other.Remove(); err != nil {
		t.Fatal(err)
	}
}

// A node's worth of functions: all are found, made, given away and taken back.
func TestSimnicScale(t *testing.T) {
	load(t, 1)
	const vfs, sfs = 64, 256
	run(t, "devlink dev eswitch set %s mode switchdev", nic.Handle())
	if err := nic.SetVFs(vfs); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	v := start(t, device.Options{Pools: []device.Pool{
		{Name: "vfs", Device: nic.Handle(), Kind: device.VF},
		{Name: "sfs", Device: nic.Handle(), Kind: device.SF, MinWarm: sfs, Max: sfs},
	}})
	v.Reconciled()
	v.counts(t, "vfs", map[device.State]int{device.Free: vfs})
	t.Logf("%d VFs were verified after %v", vfs, time.Since(began))
	v.counts(t, "sfs", map[device.State]int{device.Free: sfs})
	t.Logf("%d SFs were made after %v", sfs, time.Since(began))
	began = time.Now()
	var all []device.Function
	for i := range vfs + sfs {
		all = append(all, v.acquire(t, device.Request{Owner: fmt.Sprint(i)}))
	}
	acquired := time.Since(began)
	t.Logf("a function was acquired in %v", acquired/time.Duration(len(all)))
	began = time.Now()
	for i, f := range all {
		v.release(t, f, fmt.Sprint(i))
	}
	t.Logf("a function was released in %v", time.Since(began)/time.Duration(len(all)))
	v.counts(t, "vfs", map[device.State]int{device.Free: vfs})
	v.counts(t, "sfs", map[device.State]int{device.Free: sfs})
}

// Many at the same time, with a driver that is busy now and then: nobody gets what another has, and in the end everything is free.
func TestSimnicRandom(t *testing.T) {
	v := switchdev(t)
	var mu sync.Mutex
	has := map[string]string{}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	var all sync.WaitGroup
	uses, exhausted := 0, 0
	for i := range 16 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(seed), uint64(i)))
			for n := range 12 {
				owner := fmt.Sprintf("%d-%d", i, n)
				kinds := [][]device.Kind{{device.VF, device.SF}, {device.SF, device.VF}, {device.SF}}[rnd.IntN(3)]
				if rnd.IntN(10) == 0 {
					_ = nic.Fail([]simnic.Failure{simnic.PortNew, simnic.StateSet, simnic.HWAddrSet, simnic.PortDel}[rnd.IntN(4)], 1)
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rnd.IntN(2000))*time.Millisecond)
				f, err := v.Acquire(ctx, device.Request{Kinds: kinds, Owner: owner})
				cancel()
				if err != nil {
					switch reason.Of(err) { //nolint:exhaustive // what else is a mistake
					case reason.PoolExhausted, reason.DeadlineExceeded, reason.DeviceBusy:
						mu.Lock()
						exhausted++
						mu.Unlock()
					default:
						t.Errorf("Acquire: %v (%s)", err, reason.Of(err))
					}
					continue
				}
				name := f.Name()
				mu.Lock()
				uses++
				if other := has[name]; other != "" {
					t.Errorf("%s has %s, which %s has", owner, name, other)
				}
				has[name] = owner
				mu.Unlock()
				a := device.Attributes{MAC: device.MAC{2, 0, 0, 0, byte(i), byte(n)}, MTU: 1400}
				if err := v.Configure(context.Background(), f, a); err != nil {
					t.Errorf("Configure: %v", err)
				}
				mu.Lock()
				delete(has, name)
				mu.Unlock()
				for again := false; ; again = true {
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rnd.IntN(100))*time.Millisecond)
					err := v.Release(ctx, f, owner)
					cancel()
					if err == nil || again && reason.Of(err) == reason.DeviceStaleOwner { // somebody has it already
						break
					}
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("Release: %v", err)
						break
					}
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d uses, %d refusals", uses, exhausted)
	v.counts(t, "vfs", map[device.State]int{device.Free: 4})
	s := v.until(t, func(s device.Snapshot) error {
		p := s.Pools[0]
		if free := p.Counts[device.Free]; free < 3 || free > 5 || len(p.Counts) != 1 {
			return fmt.Errorf("pool %s has %v", p.Name, p.Counts)
		}
		return nil
	})
	for _, f := range s.Functions {
		if is := linkOf(t, f.Netdev.Name); is.mtu != "1500" || strings.HasPrefix(is.mac, "02:00:00:00:") {
			t.Errorf("%s in the end: %+v", f.Name(), is)
		}
	}
}
