package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/netnsdir"
)

// A space is a named network namespace, visible to ip-netns(8).
type space struct {
	name string
	ns   netns.NsHandle
}

// newSpace makes a namespace with its loopback up. shareNetnsDir comes before the first.
func newSpace(name string) (*space, error) {
	s := &space{name: name}
	err := onOwnThread(func() (err error) {
		s.ns, err = netns.NewNamed(name) // also enters it
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netns add %s: %w", name, err)
	}
	return s, s.settle()
}

// settle makes a namespace usable.
func (s *space) settle() error {
	if err := s.run(quietIPv6); err != nil {
		return err
	}
	return s.links(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
}

// quietIPv6 keeps the kernel from changing addresses by itself a second or two after a link is up, which makes
// ovs-vswitchd read its routes anew and drop tunnel packets meanwhile: no duplicate address detection.
func quietIPv6() error {
	for _, name := range []string{"accept_dad", "dad_transmits", "router_solicitations", "accept_ra"} {
		// On a kernel without IPv6 there is nothing to keep quiet.
		err := os.WriteFile("/proc/sys/net/ipv6/conf/default/"+name, []byte("0"), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// nameSpace gives this process's own namespace a name, as `ip netns attach` does.
func nameSpace(name string) (*space, error) {
	s := &space{name: name}
	path := filepath.Join(netnsdir.Path, name)
	err := onOwnThread(func() error { // the process's first thread may be inside another namespace just now
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
		if err == nil {
			err = errors.Join(f.Close(), unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, ""))
		}
		if err == nil {
			s.ns, err = netns.Get()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netns attach %s: %w", name, err)
	}
	return s, s.settle()
}

// run calls f on a thread inside the namespace. Sockets that f opens and processes that it starts
// belong to the namespace; goroutines that it starts do not.
func (s *space) run(f func() error) error {
	return onOwnThread(func() error {
		if err := netns.Set(s.ns); err != nil {
			return fmt.Errorf("netns %s: %w", s.name, err)
		}
		return f()
	})
}

// onOwnThread calls f on an operating system thread that is put back into the process's own network
// namespace afterwards, or thrown away when that fails.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- fmt.Errorf("netns: %w", err)
			return
		}
		err = f()
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		}
		_ = home.Close()
		done <- err
	}()
	return <-done
}

// links calls f with a netlink handle of the namespace.
func (s *space) links(f func(*netlink.Handle) error) error {
	h, err := netlink.NewHandleAt(s.ns, unix.NETLINK_ROUTE, unix.NETLINK_GENERIC)
	if err != nil {
		return fmt.Errorf("netns %s: netlink: %w", s.name, err)
	}
	if err := errors.Join(f(h), h.Close()); err != nil {
		return fmt.Errorf("netns %s: %w", s.name, err)
	}
	return nil
}

// bridge adds a Linux bridge that is up, with an address if addr is not empty.
func (s *space) bridge(name, addr string) error {
	return s.links(func(h *netlink.Handle) error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		if err := h.LinkAdd(br); err != nil {
			return fmt.Errorf("link add %s: %w", name, err)
		}
		return configure(h, name, addr)
	})
}

// veth adds a pair, one end in s and the peer in to, both up.
func (s *space) veth(name string, mac net.HardwareAddr, to *space, peer string) error {
	err := s.links(func(h *netlink.Handle) error {
		v := netlink.NewVeth(netlink.NewLinkAttrs())
		v.Name, v.HardwareAddr = name, mac
		v.PeerName, v.PeerNamespace = peer, netlink.NsFd(to.ns)
		if err := h.LinkAdd(v); err != nil {
			return fmt.Errorf("link add %s: %w", name, err)
		}
		return configure(h, name)
	})
	if err != nil {
		return err
	}
	return to.links(func(h *netlink.Handle) error { return configure(h, peer) })
}

// move takes a netdev to another namespace, where it is up.
func (s *space) move(name string, to *space) error {
	err := s.links(func(h *netlink.Handle) error {
		link, err := h.LinkByName(name)
		if err == nil {
			err = h.LinkSetNsFd(link, int(to.ns))
		}
		if err != nil {
			return fmt.Errorf("link move %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return to.links(func(h *netlink.Handle) error { return configure(h, name) })
}

// enslave makes port a member of a bridge.
func (s *space) enslave(port, bridge string) error {
	return s.links(func(h *netlink.Handle) error {
		p, err := h.LinkByName(port)
		if err != nil {
			return fmt.Errorf("link %s: %w", port, err)
		}
		br, err := h.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("link %s: %w", bridge, err)
		}
		return h.LinkSetMaster(p, br)
	})
}

// configure sets a link up and gives it the addresses that are not empty. IPv6 addresses skip duplicate
// address detection, so that they work at once.
func configure(h *netlink.Handle, name string, addrs ...string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("link set %s up: %w", name, err)
	}
	for _, s := range addrs {
		if s == "" {
			continue
		}
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("address %s: %w", s, err)
		}
		if a.IP.To4() == nil {
			a.Flags = ifaFlagNoDAD
		}
		if err := h.AddrReplace(link, a); err != nil {
			return fmt.Errorf("address %s on %s: %w", s, name, err)
		}
	}
	return nil
}

// ifaFlagNoDAD is IFA_F_NODAD of linux/if_addr.h.
const ifaFlagNoDAD = 0x02

// removeSpace deletes a namespace by name; one that does not exist is no error.
func removeSpace(name string) error {
	if err := netns.DeleteNamed(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("netns delete %s: %w", name, err)
	}
	return nil
}
