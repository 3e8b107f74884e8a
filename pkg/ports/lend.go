package ports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/reason"
)

// errAway says that the netdev of a function is in a network namespace of which there is no name, or nowhere.
var errAway = errors.New("its netdev is not in the host's network namespace, nor where it was put")

// lend moves the netdev of a function into ns and gives it its name there, in one message: the kernel takes long for a move, and what
// is in two steps can fail between them. It returns its MAC address.
func (kernel) lend(ns *netns, f device.Function, ifname string) (MAC, error) {
	h, err := host()
	if err != nil {
		return MAC{}, err
	}
	defer func() { _ = h.Close() }()
	link, err := netdevOf(h, f)
	switch {
	case err != nil:
		return MAC{}, err
	case link == nil:
		return MAC{}, reason.Errorf(reason.FunctionElsewhere, "ports link: the netdev of function %s is not in the host's network namespace", f.Name())
	}
	if err := forgetNames(h, link); err != nil {
		return MAC{}, err
	}
	err = move(nil, link.Attrs().Index, int(ns.file.Fd()), ifname)
	switch {
	case errors.Is(err, unix.EEXIST): // it may have moved in spite of that, under the name that it had
		return MAC{}, ifnameInUse(ifname)
	case err != nil:
		return MAC{}, err
	}
	return MAC(link.Attrs().HardwareAddr), nil
}

// forgetNames removes the alternative names, which would be in the way of others where the link goes, and of the name that it gets back.
// They are of udev's choice, which makes the choice again when it comes back.
func forgetNames(h *netlink.Handle, link netlink.Link) error {
	for _, name := range link.Attrs().AltNames {
		if err := h.LinkDelAltName(link, name); err != nil && !errors.Is(err, unix.ENOENT) {
			return refused(err, "link property del dev %s altname %s", link.Attrs().Name, name)
		}
	}
	return nil
}

// netdevOf returns the netdev of a function if it is in the namespace of h, otherwise nil. Names and indices may have changed; what
// the kernel registered it for has not.
func netdevOf(h *netlink.Handle, f device.Function) (netlink.Link, error) {
	belongs := func(l netlink.Link) bool {
		return f.Device != "" && l.Attrs().ParentDev == f.Device && l.Attrs().ParentDevBus == f.Bus
	}
	if f.Netdev.Index != 0 {
		if l, err := h.LinkByIndex(f.Netdev.Index); err == nil && belongs(l) {
			return l, nil
		}
	}
	links, err := h.LinkList()
	if err != nil {
		return nil, refused(err, "link show")
	}
	if i := slices.IndexFunc(links, belongs); i >= 0 {
		return links[i], nil
	}
	return nil, nil
}

// move moves a link of ns, nil for the host's, into the namespace that fd is, where it is called name. A number is put in the place of a
// %d in name.
func move(ns *netns, index, fd int, name string) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	if ns != nil {
		socket, err := nl.GetNetlinkSocketAt(vnetns.NsHandle(ns.file.Fd()), vnetns.None(), unix.NETLINK_ROUTE)
		if err != nil {
			return refused(err, "open in the network namespace")
		}
		defer func() { _ = socket.Close() }()
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(fd))))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return refused(err, "link set %d netns %d name %s", index, fd, name)
	}
	return nil
}

// takeBack sees to it that the netdev of a function is in the host's namespace: it may be where it was put, in the namespace with this
// id, which was at path; or be on its way, for when a namespace dies the kernel moves it to the host's. It waits for that as long as ctx
// says, and then returns errAway. A function that is gone has no netdev to come back.
func (kernel) takeBack(ctx context.Context, f device.Function, path string, id netnsID) error {
	h, err := host()
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	if link, err := netdevOf(h, f); err != nil || link != nil {
		return err
	}
	if !present(f) {
		return nil
	}
	if err := fetch(f, path, id); err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	updates := make(chan netlink.LinkUpdate)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return refused(err, "monitor link")
	}
	defer func() {
		go func() {
			for range updates { // until the subscription has ended
			}
		}()
	}()
	for {
		if link, err := netdevOf(h, f); err != nil || link != nil {
			return err
		}
		if !present(f) {
			return nil
		}
		for came := false; !came; {
			select {
			case u, ok := <-updates:
				if !ok {
					return refused(errors.New("the events have ended"), "monitor link")
				}
				came = u.Header.Type == unix.RTM_NEWLINK && u.Attrs().ParentDev == f.Device
			case <-ctx.Done():
				return fmt.Errorf("ports link: function %s: %w", f.Name(), errAway)
			}
		}
	}
}

// fetch moves the netdev of a function out of the namespace where it was put, if that can be found.
func fetch(f device.Function, path string, id netnsID) error {
	ns := findNetns(path, id)
	if ns == nil {
		return nil
	}
	defer ns.close()
	in, err := inside(ns)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	link, err := netdevOf(in, f)
	if err != nil || link == nil {
		return err
	}
	if err := forgetNames(in, link); err != nil { // some that were added there
		return err
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return refused(err, "open our network namespace")
	}
	defer func() { _ = own.Close() }()
	err = move(ns, link.Attrs().Index, int(own.Fd()), f.Netdev.Name)
	if errors.Is(err, unix.EEXIST) { // somebody has taken the name, or the one it has
		err = move(ns, link.Attrs().Index, int(own.Fd()), "dev%d")
	}
	return err
}

// findNetns opens the namespace with an id, which was at path; nil: it cannot be found.
func findNetns(path string, id netnsID) *netns {
	ns, err := openNetns(path)
	if err == nil && ns.id == id {
		return ns
	}
	if err == nil {
		ns.close()
	}
	return holder(id)
}

// holder finds a namespace by the processes in it: its path may have gone before they have. It returns nil if there is none.
func holder(id netnsID) *netns {
	paths, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range paths {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Dev != id.Device || st.Ino != id.Inode {
			continue
		}
		if ns, err := openNetns(path); err == nil {
			if ns.id == id {
				return ns
			}
			ns.close()
		}
	}
	return nil
}

// present reports whether the kernel has the device of a function.
func present(f device.Function) bool {
	if f.Device == "" {
		return false
	}
	_, err := os.Stat(filepath.Join("/sys/bus", f.Bus, "devices", f.Device))
	return !errors.Is(err, fs.ErrNotExist)
}

// home returns the devices, as in device.Function, that have a netdev in the host's namespace.
func (kernel) home() (map[string]bool, error) {
	h, err := host()
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }()
	links, err := h.LinkList()
	if err != nil {
		return nil, refused(err, "link show")
	}
	there := map[string]bool{}
	for _, l := range links {
		if dev := l.Attrs().ParentDev; dev != "" {
			there[dev] = true
		}
	}
	return there, nil
}

// raise brings a representor up, without any address: what the host sent by itself would be the pod's. It returns its name, which
// may have changed.
func (kernel) raise(representor device.Link) (string, error) {
	h, err := host()
	if err != nil {
		return "", err
	}
	defer func() { _ = h.Close() }()
	link, err := h.LinkByIndex(representor.Index)
	if err != nil {
		return "", refused(err, "link show %s", representor.Name)
	}
	return link.Attrs().Name, up(h, link)
}

// stands reports whether a representor is there still: a new one of the same name has another index.
func (kernel) stands(representor device.Link) (bool, error) {
	h, err := host()
	if err != nil {
		return false, err
	}
	defer func() { _ = h.Close() }()
	_, err = h.LinkByIndex(representor.Index)
	switch {
	case errors.As(err, &netlink.LinkNotFoundError{}):
		return false, nil
	case err != nil:
		return false, refused(err, "link show %s", representor.Name)
	}
	return true, nil
}

// checkRepresentor says what is wrong with a representor that is there; the zero Problem if nothing is.
func (kernel) checkRepresentor(representor device.Link) (Problem, error) {
	h, err := host()
	if err != nil {
		return Problem{}, err
	}
	defer func() { _ = h.Close() }()
	link, err := h.LinkByIndex(representor.Index)
	switch {
	case err != nil:
		return Problem{}, refused(err, "link show %s", representor.Name)
	case link.Attrs().Name != representor.Name:
		return Problem{reason.LinkChanged, fmt.Sprintf("the representor %s is called %s now", representor.Name, link.Attrs().Name)}, nil
	case link.Attrs().Flags&net.FlagUp == 0:
		return Problem{reason.LinkChanged, fmt.Sprintf("the representor %s is down", representor.Name)}, nil
	}
	return Problem{}, nil
}
