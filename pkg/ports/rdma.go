package ports

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/device"
)

// exclusive is the mode in which an RDMA device is in one network namespace only. Otherwise it is in all: rdma-system(8).
const exclusive = "exclusive"

// lendRDMA moves an RDMA device into ns, unless it is in all namespaces. Its name is its own in all.
func (kernel) lendRDMA(ns *netns, name string) error {
	if name == "" {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_RDMA)
	if err != nil {
		return refused(err, "open for RDMA")
	}
	defer func() { _ = h.Close() }()
	mode, err := h.RdmaSystemGetNetnsMode()
	if err != nil {
		return refused(err, "rdma system show")
	}
	if mode != exclusive {
		return nil
	}
	link, err := rdmaLink(h, name)
	if err == nil && link == nil {
		err = unix.ENODEV
	}
	if err == nil {
		err = h.RdmaLinkSetNsFd(link, uint32(ns.file.Fd()))
	}
	if err != nil {
		return refused(err, "rdma dev set %s netns %d", name, ns.file.Fd())
	}
	return nil
}

// rdmaLink returns an RDMA device that is in the namespace of h, otherwise nil.
func rdmaLink(h *netlink.Handle, name string) (*netlink.RdmaLink, error) {
	all, err := h.RdmaLinkList()
	if err != nil {
		return nil, fmt.Errorf("rdma dev show: %w", err)
	}
	i := slices.IndexFunc(all, func(l *netlink.RdmaLink) bool { return l.Attrs.Name == name })
	if i < 0 {
		return nil, nil
	}
	return all[i], nil
}

// rdmaInterval is how often it is looked whether an RDMA device has come back: older kernels have no events for that.
const rdmaInterval = 50 * time.Millisecond

// takeBackRDMA is takeBack for the RDMA device of a function.
func (kernel) takeBackRDMA(ctx context.Context, f device.Function, path string, id netnsID) error {
	if f.RDMA == "" {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_RDMA)
	if errors.Is(err, unix.EPROTONOSUPPORT) { // the kernel has no RDMA any more
		return nil
	}
	if err != nil {
		return refused(err, "open for RDMA")
	}
	defer func() { _ = h.Close() }()
	tick := time.NewTicker(rdmaInterval)
	defer tick.Stop()
	for fetched := false; ; {
		link, err := rdmaLink(h, f.RDMA)
		switch {
		case !present(f) || errors.Is(err, unix.ECONNREFUSED): // as above
			return nil
		case err != nil:
			return refused(err, "find %s", f.RDMA)
		case link != nil:
			return nil
		}
		if !fetched {
			if fetched, err = fetchRDMA(f.RDMA, path, id); err != nil {
				return err
			}
			if fetched {
				continue
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("ports link: function %s: RDMA device %s: %w", f.Name(), f.RDMA, errAway)
		}
	}
}

// fetchRDMA moves an RDMA device out of the namespace where it was put, and reports whether it did: if that can be found.
func fetchRDMA(name, path string, id netnsID) (moved bool, err error) {
	ns := findNetns(path, id)
	if ns == nil {
		return false, nil
	}
	defer ns.close()
	// Whose namespace the device leaves the kernel takes from the thread that asks, not from its socket.
	err = ns.enter(func(home *os.File) error {
		h, err := netlink.NewHandle(unix.NETLINK_RDMA)
		if err != nil {
			return refused(err, "open for RDMA in the network namespace")
		}
		defer func() { _ = h.Close() }()
		link, err := rdmaLink(h, name)
		if err != nil {
			return refused(err, "find %s in the network namespace", name)
		}
		if link == nil {
			return nil
		}
		if err := h.RdmaLinkSetNsFd(link, uint32(home.Fd())); err != nil {
			return refused(err, "rdma dev set %s netns %d", name, home.Fd())
		}
		moved = true
		return nil
	})
	return moved, err
}
