package path

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A Function is a VF or an SF of a NIC that a path has for itself until Return. Its netdev and its representor are in this process's
// network namespace, and the netdev is there again, or about to return from a namespace that has ended, when it is given back.
type Function struct {
	Netdev, Representor string
	Facts               map[string]string // of the NIC and the function
	// Return restores it.
	Return func() error
}

// Functions gives a path two functions of a kind, vf or sf, of one NIC.
type Functions func(ctx context.Context, kind string) ([2]Function, error)

// buildFunctions is a function in each of two pods. What one sends the NIC gives to the other, by a filter on each representor, which
// hardware has to take.
func buildFunctions(ctx context.Context, s *site) error {
	fs, err := s.opts.Functions(ctx, s.want.Kind)
	if err != nil {
		return err
	}
	s.undo = append(s.undo, func() error { return errors.Join(fs[0].Return(), fs[1].Return()) })
	home, err := openHome()
	if err != nil {
		return err
	}
	s.undo = append(s.undo, home.release)
	conn, err := tc.Dial(tc.DialOptions{})
	if err != nil {
		return err
	}
	s.undo = append(s.undo, conn.Close)
	var ends, reps [2]netlink.Link
	for i, role := range []string{pod1, pod2} {
		pod, err := s.space(role)
		if err != nil {
			return err
		}
		if ends[i], err = s.lend(home, fs[i].Netdev, pod); err != nil {
			return err
		}
		if err := pod.up(podDevice, flat[i]); err != nil {
			return err
		}
		s.setEnd(i, pod, flat[i], podDevice)
		for name, value := range fs[i].Facts {
			s.fact([]string{"client ", "server "}[i]+name, value)
		}
		if reps[i], err = s.representor(ctx, conn, home, fs[i].Representor); err != nil {
			return err
		}
	}
	for i := range reps {
		// Filters are of IP: nobody would answer ARP.
		if err := s.end([]End{s.path.Client, s.path.Server}[i]).neighbour(podDevice, flat[1-i].Addr(), ends[1-i].Attrs().HardwareAddr); err != nil {
			return err
		}
		if err := join(ctx, conn, reps[i].Attrs(), reps[1-i].Attrs(), ends[1-i].Attrs().HardwareAddr); err != nil {
			return err
		}
	}
	s.path.Target = s.path.Server.Addr
	if err := s.prime(ctx); err != nil {
		return err
	}
	return s.proveHardware(ctx, conn, reps)
}

// openHome opens the namespace of this process: of the thread, which is the same but in tests.
func openHome() (*space, error) {
	s := &space{name: "of this process"}
	var err error
	if s.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, fmt.Errorf("netns %s: %w", s.name, err)
	}
	if s.link, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("netns %s: netlink: %w", s.name, err), s.file.Close())
	}
	return s, nil
}

// lend moves a netdev into a pod, under the name that devices of pods have, and back at the end.
func (s *site) lend(home *space, name string, pod *space) (netlink.Link, error) {
	if err := home.give(name, pod, podDevice); err != nil {
		return nil, err
	}
	s.undo = append(s.undo, func() error { return pod.give(podDevice, home, name) })
	return pod.byName(podDevice)
}

// give moves a netdev to another namespace, where it is down and has another name. It is renamed where it was, for there the new name is free:
// home has no devices of ours, and a pod no others.
func (s *space) give(name string, to *space, other string) error {
	link, err := s.byName(name)
	if err != nil {
		return err
	}
	refused := func(what string, err error) error {
		return fmt.Errorf("netns %s: link set %s %s: %w", s.name, name, what, err)
	}
	if err := s.link.LinkSetDown(link); err != nil {
		return refused("down", err)
	}
	if err := s.link.LinkSetName(link, other); err != nil {
		return refused("name "+other, err)
	}
	if err := s.link.LinkSetNsFd(link, int(to.file.Fd())); err != nil {
		return errors.Join(refused("netns "+to.name, err), s.link.LinkSetName(link, name))
	}
	return nil
}

// representor makes a representor ready for a filter of ours, and only ours.
func (s *site) representor(ctx context.Context, conn *tc.Conn, home *space, name string) (netlink.Link, error) {
	link, err := home.byName(name)
	if err != nil {
		return nil, err
	}
	qdiscs, err := conn.Qdiscs(ctx)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(qdiscs, func(q tc.Qdisc) bool { return q.Ifindex == link.Attrs().Index }); i >= 0 {
		return nil, fmt.Errorf("representor %s: it has a %s qdisc of somebody else", name, qdiscs[i].Kind)
	}
	s.undo = append(s.undo, func() error { return conn.DeleteClsact(context.WithoutCancel(ctx), link.Attrs().Index) })
	if err := conn.EnsureClsact(ctx, link.Attrs().Index, 0); err != nil {
		return nil, err
	}
	return link, home.up(name)
}

// join makes a filter that sends what comes from a function, and is for a MAC address, to another function. from and to are their representors.
func join(ctx context.Context, conn *tc.Conn, from, to *netlink.LinkAttrs, mac net.HardwareAddr) error {
	var dst uint64
	for _, b := range mac {
		dst = dst<<8 | uint64(b)
	}
	f := tc.Filter{
		Pref: 1, Handle: 1, Protocol: tc.ProtocolIPv4, Match: ir.Match{}.Eq(ir.EthDst, dst),
		Actions: []tc.Action{tc.Mirred{Ifindex: to.Index}}, Flags: tc.Verbose,
	}
	target := tc.Target{Ifindex: from.Index}
	says, refused, err := conn.Offer(ctx, target, &f)
	if err := errors.Join(refused, err); err != nil {
		return fmt.Errorf("filter from %s to %s: %w %s", from.Name, to.Name, err, says)
	}
	in := false
	err = conn.Get(ctx, target, []tc.Key{f.Key()}, func(got *tc.Installed) error {
		in = got.Filter.Flags&tc.InHW != 0
		return nil
	})
	if err == nil && !in {
		err = fmt.Errorf("filter from %s to %s: hardware has not taken it: %s", from.Name, to.Name, cmp.Or(says, "the driver does not say why"))
	}
	return err
}

// hardwareLag is how long the counters of a NIC may be late: drivers read them once a second.
const hardwareLag = 2 * time.Second

// proveHardware sends packets, and makes facts of what the filters have counted: that hardware has taken a filter does not say that packets of the
// host's kernel do not meet it, too.
func (s *site) proveHardware(ctx context.Context, conn *tc.Conn, reps [2]netlink.Link) error {
	before, err := countFilters(ctx, conn, reps)
	if err != nil {
		return err
	}
	if err := s.exchange(ctx, proofPackets); err != nil {
		return err
	}
	const all = 2 * proofPackets
	for deadline := time.Now().Add(hardwareLag); ; {
		n, err := countFilters(ctx, conn, reps)
		if err != nil {
			return err
		}
		total, hardware := n.total-before.total, n.hardware-before.hardware
		if total < all && time.Now().Before(deadline) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		s.fact("filters", "in hardware")
		switch {
		case hardware >= all:
			s.fact("forwards by", "hardware")
		case total >= all && hardware == 0:
			s.fact("forwards by", "software, though hardware has the filters")
		default:
			return fmt.Errorf("of %d packets filters have counted %d, hardware %d of them", all, total, hardware)
		}
		return nil
	}
}

type filtered struct{ total, hardware uint64 }

func countFilters(ctx context.Context, conn *tc.Conn, reps [2]netlink.Link) (n filtered, err error) {
	for _, r := range reps {
		err := conn.Dump(ctx, tc.Target{Ifindex: r.Attrs().Index}, tc.DumpOptions{}, func(f *tc.Installed) error {
			for _, a := range f.Actions {
				n.total += a.Packets
				n.hardware += a.HWPackets
			}
			return nil
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
