package ports

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/reason"
)

// hostPrefix begins the names of our ends of veth pairs.
const hostPrefix = "off"

// hostName names the host's end of a port. It follows from the key, so that what was made can be found without a record.
func (k Key) hostName() string {
	sum := sha256.Sum256([]byte(k.String()))
	return hostPrefix + hex.EncodeToString(sum[:6])
}

var hostNames = regexp.MustCompile(`^` + hostPrefix + `[0-9a-f]{12}$`)

// kernel is the door to rtnetlink(7) and ethtool's netlink. Its sockets live for one operation each, so operations for
// different ports wait for each other in the kernel only.
type kernel struct{}

// refused wraps what the kernel says to a request, in the words of ip(8).
func refused(err error, request string, args ...any) error {
	return reason.Errorf(reason.KernelRefused, "ports link: %s: %w", fmt.Sprintf(request, args...), err)
}

// quick leaves out what a NIC has to say of each of its VFs, for which its driver takes a millisecond.
var quick = netlink.HandleOptions{DisableVFInfoCollection: true, RetryInterrupted: true}

func host() (*netlink.Handle, error) {
	h, err := netlink.NewHandleWithOptions(quick, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, refused(err, "open")
	}
	return h, nil
}

func inside(ns *netns) (*netlink.Handle, error) {
	opts, fd := quick, vnetns.NsHandle(ns.file.Fd())
	opts.NetNS = &fd
	h, err := netlink.NewHandleWithOptions(opts, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, refused(err, "open in the network namespace")
	}
	return h, nil
}

// free makes sure that ns has no interface called ifname.
func (kernel) free(ns *netns, ifname string) error {
	h, err := inside(ns)
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	_, err = h.LinkByName(ifname)
	switch {
	case errors.As(err, &netlink.LinkNotFoundError{}):
		return nil
	case err != nil:
		return refused(err, "link show %s", ifname)
	}
	return ifnameInUse(ifname)
}

func ifnameInUse(ifname string) error {
	return reason.Errorf(reason.IfnameInUse, "ports link %s: exists in the network namespace", ifname)
}

// create makes the pair. The container's end comes into being in ns under its final name, down and without addresses: it
// was never anywhere else, so no move or renaming can fail half-way, nor takes the time that they take.
// It returns the MAC address of the container's end.
func (k kernel) create(ns *netns, s Spec) (MAC, error) {
	h, err := host()
	if err != nil {
		return MAC{}, err
	}
	defer func() { _ = h.Close() }()
	name := s.Key.hostName()
	pair := &netlink.Veth{
		LinkAttrs:     netlink.NewLinkAttrs(),
		PeerName:      s.Key.Ifname,
		PeerNamespace: netlink.NsFd(ns.file.Fd()),
	}
	pair.Name, pair.MTU = name, s.MTU
	if s.MAC != (MAC{}) {
		pair.PeerHardwareAddr = s.MAC[:]
	}
	if err := h.LinkAdd(pair); errors.Is(err, unix.EEXIST) {
		if err := k.free(ns, s.Key.Ifname); err != nil {
			return MAC{}, err
		}
		// So our end is there: what a port of this key has left whose record was lost.
		if err := k.remove(name); err != nil {
			return MAC{}, err
		}
		if err := h.LinkAdd(pair); err != nil {
			return MAC{}, refused(err, "link add %s", name)
		}
	} else if err != nil {
		return MAC{}, refused(err, "link add %s", name)
	}
	if err := readyHost(h, pair, s); err != nil {
		return MAC{}, err
	}
	in, err := inside(ns)
	if err != nil {
		return MAC{}, err
	}
	defer func() { _ = in.Close() }()
	peer, err := in.LinkByName(s.Key.Ifname)
	if err != nil {
		return MAC{}, refused(err, "link show %s", s.Key.Ifname)
	}
	return MAC(peer.Attrs().HardwareAddr), nil
}

// readyHost brings the host's end up, with an alias for people.
func readyHost(h *netlink.Handle, link netlink.Link, s Spec) error {
	const maxAlias = 255 // IFALIASZ less the NUL
	alias := "offloadd " + s.Key.String()
	if err := h.LinkSetAlias(link, alias[:min(len(alias), maxAlias)]); err != nil {
		return refused(err, "link set %s alias", link.Attrs().Name)
	}
	return up(h, link)
}

// up brings a link of the host up, without any address: what the host sent by itself would be the pod's.
func up(h *netlink.Handle, link netlink.Link) error {
	const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE
	if err := h.LinkSetIP6AddrGenMode(link, addrGenModeNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return refused(err, "link set %s addrgenmode none", link.Attrs().Name)
	}
	if err := h.LinkSetUp(link); err != nil {
		return refused(err, "link set %s up", link.Attrs().Name)
	}
	return nil
}

// remove deletes the pair by the host's end, if there is one.
func (kernel) remove(name string) error {
	h, err := host()
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	link, err := h.LinkByName(name)
	switch {
	case errors.As(err, &netlink.LinkNotFoundError{}):
		return nil
	case err != nil:
		return refused(err, "link show %s", name)
	case link.Type() != "veth":
		return refused(fmt.Errorf("is a %s, so it is not ours", link.Type()), "link del %s", name)
	}
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return refused(err, "link del %s", name)
	}
	return nil
}

// exists reports whether there is a host's end.
func (kernel) exists(name string) (bool, error) {
	h, err := host()
	if err != nil {
		return false, err
	}
	defer func() { _ = h.Close() }()
	_, err = h.LinkByName(name)
	switch {
	case errors.As(err, &netlink.LinkNotFoundError{}):
		return false, nil
	case err != nil:
		return false, refused(err, "link show %s", name)
	}
	return true, nil
}

// ours lists the host's ends, sorted.
func (kernel) ours() ([]string, error) {
	h, err := host()
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }()
	links, err := h.LinkList()
	if err != nil {
		return nil, refused(err, "link show")
	}
	var names []string
	for _, l := range links {
		if name := l.Attrs().Name; l.Type() == "veth" && hostNames.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// A linkEvent is a link of the host's that has gone, by its name, or that is there or has changed, by the device that it is registered
// for. The zero linkEvent says that some may have been missed.
type linkEvent struct{ gone, device string }

// watch sends what happens to links on the host, until ctx ends.
func (kernel) watch(ctx context.Context, log *slog.Logger, events chan<- linkEvent) {
	send := func(e linkEvent) {
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		updates := make(chan netlink.LinkUpdate)
		done := make(chan struct{})
		stop := context.AfterFunc(ctx, func() { close(done) })
		err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
			ErrorCallback: func(err error) { log.Debug("link events lost", "err", err) },
		})
		if err == nil {
			send(linkEvent{})
			for u := range updates {
				switch attrs := u.Attrs(); {
				case u.Header.Type == unix.RTM_DELLINK:
					send(linkEvent{gone: attrs.Name})
				case attrs.ParentDev != "":
					send(linkEvent{device: attrs.ParentDev})
				}
			}
		} else {
			log.Warn("link events not received", "err", err, "retry_in", retryTime)
		}
		if stop() {
			close(done)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryTime):
		}
	}
}

// configure gives the container's end what p has, and brings it up. With userspace the datapath of the bridge cannot
// complete checksums, so the container must.
func (kernel) configure(ns *netns, p Port, userspace bool) error {
	h, err := inside(ns)
	if err != nil {
		return err
	}
	defer func() { _ = h.Close() }()
	name := p.Spec.Key.Ifname
	link, err := h.LinkByName(name)
	if err != nil {
		return refused(err, "link show %s", name)
	}
	if p.MAC != (MAC{}) && p.MAC != MAC(link.Attrs().HardwareAddr) {
		if err := h.LinkSetHardwareAddr(link, p.MAC[:]); err != nil {
			return refused(err, "link set %s address %s", name, p.MAC)
		}
	}
	if userspace {
		if err := checksumOff(ns, name); err != nil {
			return err
		}
	}
	for _, a := range p.Addresses {
		if err := h.AddrAdd(link, address(a)); err != nil {
			return refused(err, "addr add %s dev %s", a, name)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return refused(err, "link set %s up", name)
	}
	for _, r := range routes(p, link.Attrs().Index) {
		if err := h.RouteAdd(&r); err != nil {
			return refused(err, "route add %s", describe(r))
		}
	}
	return nil
}

// address makes addresses usable at once: that nobody else has them is what the logical switch is for.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// routes returns the routes on the link first, for others may lead by way of them. A gateway that is in no prefix of the
// port's is taken to be on the link.
func routes(p Port, index int) []netlink.Route {
	var direct, via []netlink.Route
	add := func(r Route) {
		out := netlink.Route{
			LinkIndex: index, Dst: ipNet(r.Destination), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: int(r.Metric),
		}
		if !r.Gateway.IsValid() {
			out.Scope = netlink.SCOPE_LINK
			direct = append(direct, out)
			return
		}
		out.Gw = r.Gateway.AsSlice()
		reachable := slices.ContainsFunc(p.Addresses, func(a netip.Prefix) bool { return a.Masked().Contains(r.Gateway) })
		if !reachable {
			out.Flags = int(netlink.FLAG_ONLINK)
		}
		via = append(via, out)
	}
	for _, g := range p.Gateways {
		to := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if g.Is6() {
			to = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		add(Route{Destination: to, Gateway: g})
	}
	for _, r := range p.Routes {
		add(r)
	}
	return append(direct, via...)
}

func describe(r netlink.Route) string {
	if r.Gw == nil {
		return r.Dst.String()
	}
	return fmt.Sprintf("%s via %s", r.Dst, r.Gw)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// checksumOff makes the stack in the container complete checksums itself, like ethtool -K NAME tx off.
func checksumOff(ns *netns, name string) error {
	request := fmt.Sprintf("ethtool -K %s tx off", name)
	family, err := netlink.GenlFamilyGet("ethtool")
	if err != nil {
		return refused(err, "%s", request)
	}
	socket, err := nl.GetNetlinkSocketAt(vnetns.NsHandle(ns.file.Fd()), vnetns.None(), unix.NETLINK_GENERIC)
	if err != nil {
		return refused(err, "%s", request)
	}
	defer func() { _ = socket.Close() }()
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: {Socket: socket}}
	req.AddData(&nl.Genlmsg{Command: unix.ETHTOOL_MSG_FEATURES_SET, Version: unix.ETHTOOL_GENL_VERSION})
	header := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_HEADER|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_NAME, nl.ZeroTerminated(name))
	req.AddData(header)
	// A feature that is named without the flag ETHTOOL_A_BITSET_BIT_VALUE is to be off.
	wanted := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_WANTED|unix.NLA_F_NESTED, nil)
	bits := wanted.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, nil)
	for _, feature := range []string{"tx-checksum-ip-generic", "tx-checksum-sctp"} {
		bit := bits.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS_BIT|unix.NLA_F_NESTED, nil)
		bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_NAME, nl.ZeroTerminated(feature))
	}
	req.AddData(wanted)
	if _, err := req.Execute(unix.NETLINK_GENERIC, 0); err != nil {
		return refused(err, "%s", request)
	}
	return nil
}

// check compares the container's end with p; addresses are those that it should have at least.
func (kernel) check(ns *netns, p Port, addresses []netip.Prefix) ([]Problem, error) {
	h, err := inside(ns)
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }()
	name := p.Spec.Key.Ifname
	link, err := h.LinkByName(name)
	switch {
	case errors.As(err, &netlink.LinkNotFoundError{}):
		return []Problem{{reason.LinkMissing, "the container has no interface " + name}}, nil
	case err != nil:
		return nil, refused(err, "link show %s", name)
	}
	var found []Problem
	add := func(r reason.Reason, format string, args ...any) {
		found = append(found, Problem{r, fmt.Sprintf(format, args...)})
	}
	attrs := link.Attrs()
	if attrs.Flags&net.FlagUp == 0 {
		add(reason.LinkChanged, "%s is down", name)
	}
	if mac := attrs.HardwareAddr.String(); mac != p.MAC.String() {
		add(reason.LinkChanged, "the MAC address of %s is %s, not %s", name, mac, p.MAC)
	}
	if attrs.MTU != p.MTU {
		add(reason.LinkChanged, "the MTU of %s is %d, not %d", name, attrs.MTU, p.MTU)
	}
	have, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, refused(err, "addr show %s", name)
	}
	for _, want := range addresses {
		if !slices.ContainsFunc(have, func(a netlink.Addr) bool { return a.IPNet.String() == ipNet(want).String() }) {
			add(reason.AddressMissing, "%s lacks the address %s", name, want)
		}
	}
	table, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: attrs.Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return nil, refused(err, "route show dev %s", name)
	}
	for _, want := range routes(p, attrs.Index) {
		if !slices.ContainsFunc(table, func(r netlink.Route) bool { return sameRoute(r, want) }) {
			add(reason.RouteMissing, "the container lacks the route %s", describe(want))
		}
	}
	return found, nil
}

// sameRoute compares destination and gateway. What a route adds to these the kernel may show in its own way.
func sameRoute(have, want netlink.Route) bool {
	dst := "0.0.0.0/0"
	if len(want.Dst.IP) == net.IPv6len {
		dst = "::/0"
	}
	if have.Dst != nil {
		dst = have.Dst.String()
	}
	return dst == want.Dst.String() && strings.EqualFold(have.Gw.String(), want.Gw.String())
}
