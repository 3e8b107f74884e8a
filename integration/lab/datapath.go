package lab

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// A Datapath is what forwards the packets of a node's bridges.
type Datapath string

// The datapaths. Netdev is Open vSwitch's own, in userspace: it needs nothing of the kernel, and TC sees nothing of its
// packets. System is the kernel's; a node's is its network namespace's own.
const (
	Netdev Datapath = "netdev"
	System Datapath = "system"
)

// guestVariable names the guest kernel in a guest of integration/vm.
const guestVariable = "OFFLOADD_VM"

// complete replaces an empty datapath by the default.
func (d *Datapath) complete() error {
	if *d == "" {
		*d = Datapath(os.Getenv("OFFLOADD_DATAPATH"))
	}
	switch {
	case *d == "" && os.Getenv(guestVariable) != "":
		*d = System
	case *d == "":
		*d = Netdev
	case *d != Netdev && *d != System:
		return fmt.Errorf("lab datapath %q: want %s or %s", *d, Netdev, System)
	}
	return nil
}

// underlay is the device that has a node's addresses on the underlay. The userspace datapath sends tunnel packets
// out of the bridge that has their source address; the kernel routes them.
func (d Datapath) underlay() string {
	if d == Netdev {
		return "br-phy"
	}
	return "phy0"
}

// prepare returns when ovs-vswitchd can be started.
func (d Datapath) prepare(ctx context.Context, s *space) error {
	if d == Netdev {
		return nil
	}
	err := s.links(func(h *netlink.Handle) error {
		_, err := h.GenlFamilyGet("ovs_datapath") // loads the module, if there is one
		return err
	})
	if err != nil {
		return fmt.Errorf("this kernel has no Open vSwitch datapath (make test-vm runs tests on one that has): %w", err)
	}
	return waitUptime(ctx)
}

// waitUptime waits until the machine has run for eleven seconds. ovs-vswitchd 3.1 that is started in the first ten thinks
// that it has no CPU (count_cpu_cores of lib/ovs-thread.c keeps what it has, the initial 0, for that long), starts no
// handler thread, and forwards nothing.
func waitUptime(ctx context.Context) error {
	const enough = 11.0
	return Until(ctx, func() (bool, error) {
		b, err := os.ReadFile("/proc/uptime")
		if err != nil {
			return false, err
		}
		first, _, _ := strings.Cut(string(b), " ")
		up, err := strconv.ParseFloat(first, 64)
		return up > enough, err
	})
}

// Patient is how long to wait here for what takes at most d on a machine of its own: d times $OFFLOADD_PATIENCE, by default
// as much as a guest of integration/vm is slower. It is for deadlines; what a test waits for to not happen takes
// as long on any machine.
func Patient(d time.Duration) time.Duration {
	factor, err := patience()
	if err != nil {
		panic(err) // Start has refused it
	}
	return time.Duration(float64(d) * factor)
}

// patience reads the factor once. Starting a program takes 25 ms in either guest, which is 20 times as long as outside, and
// everything takes longer under QEMU without KVM.
var patience = sync.OnceValues(func() (float64, error) {
	if s := os.Getenv("OFFLOADD_PATIENCE"); s != "" {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f < 1 {
			return 0, fmt.Errorf("lab: OFFLOADD_PATIENCE %q: want a factor of 1 or more", s)
		}
		return f, nil
	}
	switch os.Getenv(guestVariable) {
	case "uml":
		return 3, nil
	case "qemu":
		return 6, nil
	default:
		return 1, nil
	}
})

// timeoutArg is the argument that bounds an OVS or OVN program.
func timeoutArg(d time.Duration) string {
	return fmt.Sprintf("--timeout=%d", int(Patient(d).Seconds()))
}
