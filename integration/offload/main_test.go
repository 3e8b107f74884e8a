package offload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/pkg/tc"
)

func TestMain(m *testing.M) {
	status := m.Run()
	if theRig.Rig != nil {
		if err := theRig.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// theRig is that of all tests: a guest needs ten seconds to start one.
var theRig struct {
	*Rig
	once sync.Once
	err  error
}

// rig returns the rig, with filters. Tests leave it as they found it. It is nothing for a kernel without flower or the kernel's
// datapath; in a guest of integration/vm there are both.
func rig(t *testing.T) *Rig {
	t.Helper()
	if os.Getenv("OFFLOADD_VM") == "" {
		for what, try := range map[string]func() error{"datapath of Open vSwitch": tryDatapath, "classifier flower": tryFlower} {
			if err := try(); errors.Is(err, unix.ENOENT) {
				t.Skipf("this kernel has no %s: %v (make test-vm runs the test on one that has)", what, err)
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	theRig.once.Do(func() {
		theRig.Rig, theRig.err = Start(context.Background(), Options{OffloaddPath: labtest.Offloadd(t)})
	})
	if theRig.err != nil {
		t.Fatal(theRig.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of lab %s:\n%s\n%s", theRig.Name, theRig.Tails(30), theRig.State(context.Background()))
		}
	})
	return theRig.Rig
}

// tryDatapath asks for the family of messages to the kernel's datapath, which loads the module if there is one.
func tryDatapath() error {
	_, err := netlink.GenlFamilyGet("ovs_datapath")
	return err
}

// tryFlower adds the simplest filter to the loopback of a namespace that ends with the thread.
func tryFlower() error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		done <- func() error {
			ns, err := netns.New()
			if err != nil {
				return err
			}
			defer ns.Close()
			conn, err := tc.Dial(tc.DialOptions{})
			if err != nil {
				return err
			}
			defer conn.Close()
			const loopback = 1
			if err := conn.EnsureClsact(context.Background(), loopback, 0); err != nil {
				return err
			}
			f := tc.Filter{Pref: 1, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Pass{}}}
			refused, err := conn.Apply(context.Background(), tc.Target{Ifindex: loopback}, []tc.Op{tc.AddOp(&f)})
			if err == nil && len(refused) > 0 {
				err = &refused[0]
			}
			return err
		}()
	}()
	return <-done
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// count is Count.
func count(t *testing.T, r *Rig) map[string]Counts {
	t.Helper()
	c, err := r.Count(t.Context())
	check(t, err)
	return c
}

// since returns what was counted since before, by node.
func since(t *testing.T, r *Rig, before map[string]Counts) map[string]Counts {
	t.Helper()
	now := count(t, r)
	for n := range now {
		now[n] = now[n].Sub(before[n])
	}
	return now
}

// pin makes what the pods know of their neighbours last, so that they ask no more.
func pin(t *testing.T, r *Rig) {
	t.Helper()
	neighbours(t, r, func(h *netlink.Handle, n *netlink.Neigh) error {
		if n.State&netlink.NUD_PERMANENT != 0 || n.State&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY|netlink.NUD_PROBE) == 0 {
			return nil
		}
		n.State = netlink.NUD_PERMANENT
		return h.NeighSet(n)
	})
}

func neighbours(t *testing.T, r *Rig, f func(*netlink.Handle, *netlink.Neigh) error) {
	t.Helper()
	for _, p := range r.Pods() {
		check(t, eth0(p, func(h *netlink.Handle, link netlink.Link) error {
			for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
				list, err := h.NeighList(link.Attrs().Index, family)
				if err != nil {
					return err
				}
				for i := range list {
					if err := f(h, &list[i]); err != nil {
						return fmt.Errorf("neighbour %v: %w", list[i], err)
					}
				}
			}
			return nil
		}))
	}
}

// eth0 calls f with the pod's device.
func eth0(p *lab.Pod, f func(*netlink.Handle, netlink.Link) error) error {
	return p.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return f(h, link)
	})
}

// warm makes the pods at the ends of all paths know each other.
func warm(t *testing.T, r *Rig) {
	t.Helper()
	for _, p := range Paths() {
		for _, v6 := range []bool{false, true} {
			ok, err := r.Pod(p.From).Ping(t.Context(), r.Pod(p.To).Addr(v6), lab.Patient(patience))
			check(t, err)
			if !ok {
				t.Fatalf("%s: %s does not reach %s", p.Name, p.From, p.To)
			}
		}
	}
}

// family names a family.
func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// sent is how many packets the pod has sent.
func sent(t *testing.T, p *lab.Pod) uint64 {
	t.Helper()
	var packets uint64
	check(t, eth0(p, func(_ *netlink.Handle, link netlink.Link) error {
		packets = link.Attrs().Statistics.TxPackets
		return nil
	}))
	return packets
}
