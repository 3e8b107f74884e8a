package path

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/netnsdir"
)

// A space is a named network namespace.
type space struct {
	name string
	path string
	file *os.File
	link *netlink.Handle
}

// newSpace makes a namespace that has loopback and no IPv6, and whose bridges do not report that they listen to multicast routers: no router is solicited, no
// address tried and no group reported while something is measured, all of which the kernel does at random times.
func newSpace(name string) (*space, error) {
	s := &space{name: name, path: filepath.Join(netnsdir.Path, name)}
	err := addNetns(s.path)
	if err == nil {
		s.file, err = os.Open(s.path)
	}
	if err != nil {
		return nil, fmt.Errorf("netns add %s: %w", name, err)
	}
	ns := netns.NsHandle(s.file.Fd())
	s.link, err = netlink.NewHandleWithOptions(netlink.HandleOptions{NetNS: &ns, RetryInterrupted: true}, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netns %s: netlink: %w", name, err), s.file.Close())
	}
	for _, set := range [][2]string{
		{"net/ipv6/conf/all/disable_ipv6", "1"},
		{"net/ipv6/conf/default/disable_ipv6", "1"},
		{"net/ipv4/igmp_link_local_mcast_reports", "0"},
	} {
		// A kernel without IPv6, or without multicast, is quiet already.
		if err := s.sysctl(set[0], set[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, s.release())
		}
	}
	if err := s.up("lo"); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

// addNetns makes a namespace with the name of a file, as the kernel makes it.
func addNetns(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
	}))
}

// release gives up what this process has open of the namespace.
func (s *space) release() error { return errors.Join(s.link.Close(), s.file.Close()) }

// removeSpace takes a namespace its name away. It ends when its last process and socket do.
func removeSpace(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("umount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// onOwnThread calls f on a thread that ends with it, so f may change the thread's namespaces.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() { // ends with f
		runtime.LockOSThread() // never unlocked
		done <- f()
	}()
	return <-done
}

// do calls f on a thread inside the namespace. Sockets that f opens belong to it; goroutines that f starts do not.
func (s *space) do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("netns %s: %w", s.name, err)
		}
		return f()
	})
}

// sysctl sets what is below /proc/sys/net.
func (s *space) sysctl(name, value string) error {
	return s.do(func() error { return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644) })
}

// forward makes the namespace a router.
func (s *space) forward() error { return s.sysctl("net/ipv4/ip_forward", "1") }

// A lack is something that this kernel or this machine does not have.
type lack struct {
	asked string // as one would ask for it by hand
	what  string
	err   error
}

func (l *lack) Error() string {
	err := l.err
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		err = errno // without what libraries put around it
	}
	return fmt.Sprintf("%s: %s (%v)", l.asked, l.what, err)
}

func (l *lack) Unwrap() error { return l.err }

// lacks is err as a lack if it is one of the answers that mean it.
func lacks(asked, what string, err error, answers ...error) error {
	for _, answer := range answers {
		if errors.Is(err, answer) {
			return &lack{asked, what, err}
		}
	}
	return fmt.Errorf("%s: %w", asked, err)
}

// add makes a device.
func (s *space) add(link netlink.Link) error {
	err := s.link.LinkAdd(link)
	if err == nil {
		return nil
	}
	// EOPNOTSUPP is __rtnl_newlink's answer to a kind that is not registered.
	return lacks(fmt.Sprintf("link add %s type %s", link.Attrs().Name, link.Type()), "this kernel has no device of that kind", err, unix.EOPNOTSUPP)
}

// attrs are those of a device of this MTU.
func attrs(name string, mtu int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = name, mtu
	return a
}

// veth makes a pair, both ends up: name here, peer in to.
func (s *space) veth(name string, to *space, peer string, mtu int) error {
	pair := &netlink.Veth{LinkAttrs: attrs(name, mtu), PeerName: peer, PeerNamespace: netlink.NsFd(to.file.Fd()), PeerMTU: uint32(mtu)}
	if err := s.add(pair); err != nil {
		return err
	}
	if err := s.up(name); err != nil {
		return err
	}
	return to.up(peer)
}

func (s *space) byName(name string) (netlink.Link, error) {
	link, err := s.link.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("netns %s: link %s: %w", s.name, name, err)
	}
	return link, nil
}

// up sets a device up and gives it addresses.
func (s *space) up(name string, addrs ...netip.Prefix) error {
	link, err := s.byName(name)
	if err != nil {
		return err
	}
	if err := s.link.LinkSetUp(link); err != nil {
		return fmt.Errorf("netns %s: link set %s up: %w", s.name, name, err)
	}
	for _, a := range addrs {
		if err := s.link.AddrAdd(link, &netlink.Addr{IPNet: ipNet(a)}); err != nil {
			return fmt.Errorf("netns %s: address add %s dev %s: %w", s.name, a, name, err)
		}
	}
	return nil
}

// enslave makes a device a port of a bridge.
func (s *space) enslave(port, bridge string) error {
	p, err := s.byName(port)
	if err != nil {
		return err
	}
	b, err := s.byName(bridge)
	if err != nil {
		return err
	}
	if err := s.link.LinkSetMaster(p, b); err != nil {
		return fmt.Errorf("netns %s: link set %s master %s: %w", s.name, port, bridge, err)
	}
	return nil
}

// move takes a device to another namespace, where it is up and has the addresses.
func (s *space) move(name string, to *space, addrs ...netip.Prefix) error {
	link, err := s.byName(name)
	if err != nil {
		return err
	}
	if err := s.link.LinkSetNsFd(link, int(to.file.Fd())); err != nil {
		return fmt.Errorf("netns %s: link set %s netns %s: %w", s.name, name, to.name, err)
	}
	return to.up(name, addrs...)
}

// route adds a route. An invalid via: the destination is on the link.
func (s *space) route(to netip.Prefix, via netip.Addr, dev string, flags ...netlink.NextHopFlag) error {
	link, err := s.byName(dev)
	if err != nil {
		return err
	}
	r := &netlink.Route{Dst: ipNet(to), LinkIndex: link.Attrs().Index}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	for _, f := range flags {
		r.SetFlag(f)
	}
	if err := s.link.RouteAdd(r); err != nil {
		return fmt.Errorf("netns %s: route add %s via %s dev %s: %w", s.name, to, via, dev, err)
	}
	return nil
}

// wan makes what leaves through a device late, and loses some of it.
func (s *space) wan(dev string, w Want) error {
	link, err := s.byName(dev)
	if err != nil {
		return err
	}
	q := netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		netlink.NetemQdiscAttrs{
			Latency: uint32(w.Delay.Microseconds()), Jitter: uint32(w.Jitter.Microseconds()), Loss: float32(100 * w.Loss),
			Limit: 100_000, // packets on the wire at once: a second of 100,000 packets a second
		})
	if err := s.link.QdiscAdd(q); err != nil {
		// ENOENT is qdisc_create's answer to a kind that is not registered.
		return lacks(fmt.Sprintf("qdisc add dev %s root netem", dev), "this kernel has no queueing discipline of that kind", err, unix.ENOENT)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
