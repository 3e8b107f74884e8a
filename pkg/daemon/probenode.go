package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A probeNode answers a probe between ports: see probe.Node.
type probeNode struct {
	agent *Agent
	feed  *ports.Feed
}

// Watch makes filters that count the packets of flows.
func (n *probeNode) Watch(ctx context.Context, flows []ledger.Flow) (ledger.Watch, error) {
	return n.agent.Watch(ctx, flows)
}

// Port finds a port that this daemon has made, and that is ready.
func (n *probeNode) Port(_ context.Context, name string) (probe.Port, error) {
	all, _ := n.feed.All()
	i := slices.IndexFunc(all, func(p ports.Port) bool { return p.Spec.LogicalPort == name })
	if i < 0 {
		return probe.Port{}, reason.Errorf(reason.PortNotFound, "probe: no port of this node is of the logical port %q", name).With("port", name)
	}
	p := &all[i]
	if p.State != ports.Ready {
		return probe.Port{}, reason.Errorf(reason.NotReady, "probe port %s: it is %s", name, p.State).With("port", name)
	}
	out := probe.Port{
		Port:  result.Port{Name: name, Kind: string(p.Kind), Device: p.HostInterface, NIC: isRepresentor(p.HostInterface)},
		Netns: p.Spec.Netns, Interface: p.Spec.Key.Ifname, MAC: p.MAC[:],
	}
	for _, a := range p.Addresses {
		out.Addresses = append(out.Addresses, a.Addr())
	}
	return out, nil
}

// Datapath asks ovs-vswitchd.
func (n *probeNode) Datapath(ctx context.Context) (flows []dpctl.Flow, missed uint64, err error) {
	var datapath string
	if err := n.agent.query(ctx, func() { datapath = n.agent.datapath() }); err != nil {
		return nil, 0, err
	}
	err = n.agent.ask(ctx, func(ctx context.Context, c *dpctl.Conn) (err error) {
		if flows, err = c.Flows(ctx, datapath); err == nil {
			missed, err = c.Missed(ctx, datapath)
		}
		return err
	})
	return flows, missed, err
}

// Connections asks the connection tracker in all zones of this chassis.
func (n *probeNode) Connections(ctx context.Context, src, dst netip.AddrPort) (all []result.Connection, err error) {
	zones := map[uint16]bool{}
	if err := n.agent.query(ctx, func() {
		if local := n.agent.plan.Local; local != nil {
			for _, zone := range local.Zones {
				zones[zone] = true
			}
		}
	}); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("probe: connection tracker: socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	timeout := unix.NsecToTimeval(int64(trackerTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, fmt.Errorf("probe: connection tracker: setsockopt: %w", err)
	}
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		status, err := trackedStatus(fd, zone, src, dst)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return nil, &reason.Error{Reason: reason.KernelRefused, Err: fmt.Errorf("probe: connection tracker, zone %d: %w", zone, err)}
		default:
			all = append(all, result.Connection{
				Zone: zone, Assured: status&ipsAssured != 0, Offload: status&ipsOffload != 0, Hardware: status&ipsHWOffload != 0,
			})
		}
	}
	return all, nil
}

// trackerTimeout bounds how long the connection tracker is waited for, which answers at once.
const trackerTimeout = time.Second

// Of nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	ctGet        = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	ctaTupleOrig = 1
	ctaStatus    = 3
	ctaZone      = 18

	ipsAssured   = 1 << 2
	ipsOffload   = 1 << 14
	ipsHWOffload = 1 << 15

	protoUDP = 17
)

// trackedStatus returns the status of a connection of UDP in a zone; ENOENT: there is none.
//
// The answer claims to be one of several (NLM_F_MULTI, ctnetlink_fill_info in nf_conntrack_netlink.c of Linux 6.1), and none follows: connections of
// netlink libraries wait for more.
func trackedStatus(fd int, zone uint16, src, dst netip.AddrPort) (uint32, error) {
	family, ip := byte(unix.AF_INET), uint16(1) // CTA_IP_V4_SRC
	if src.Addr().Is6() {
		family, ip = unix.AF_INET6, 3 // CTA_IP_V6_SRC
	}
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Nested(ctaTupleOrig, func(e *netlink.AttributeEncoder) error {
		e.Nested(1, func(e *netlink.AttributeEncoder) error { // CTA_TUPLE_IP
			e.Bytes(ip, src.Addr().AsSlice())
			e.Bytes(ip+1, dst.Addr().AsSlice())
			return nil
		})
		e.Nested(2, func(e *netlink.AttributeEncoder) error { // CTA_TUPLE_PROTO
			e.Uint8(1, protoUDP)
			e.Uint16(2, src.Port())
			e.Uint16(3, dst.Port())
			return nil
		})
		return nil
	})
	e.Uint16(ctaZone, zone)
	attrs, err := e.Encode()
	if err != nil {
		return 0, err
	}
	body := append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...)
	// Without NLM_F_ACK there is one answer: the connection, or an error.
	ask := netlink.Message{Header: netlink.Header{Length: uint32(unix.NLMSG_HDRLEN + len(body)), Type: ctGet, Flags: netlink.Request, Sequence: uint32(zone)}, Data: body}
	text, err := ask.MarshalBinary()
	if err != nil {
		return 0, err
	}
	if err := unix.Sendto(fd, text, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	text = make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, text, 0)
	if err != nil {
		return 0, err
	}
	return readStatus(text[:n], uint32(zone))
}

// readStatus reads the answer to a question.
func readStatus(text []byte, sequence uint32) (uint32, error) {
	if len(text) < unix.NLMSG_HDRLEN+4 {
		return 0, fmt.Errorf("%d octets are no answer", len(text))
	}
	header := netlink.Header{
		Length: binary.NativeEndian.Uint32(text), Type: netlink.HeaderType(binary.NativeEndian.Uint16(text[4:])), Sequence: binary.NativeEndian.Uint32(text[8:]),
	}
	if header.Sequence != sequence || int(header.Length) > len(text) || header.Length < unix.NLMSG_HDRLEN+4 {
		return 0, fmt.Errorf("an answer of %d octets, with number %d, is not that to question %d", len(text), header.Sequence, sequence)
	}
	data := text[unix.NLMSG_HDRLEN:header.Length]
	if header.Type == netlink.Error {
		return 0, unix.Errno(-int32(binary.NativeEndian.Uint32(data)))
	}
	return statusOf(data[4:])
}

// statusOf reads CTA_STATUS.
func statusOf(attrs []byte) (status uint32, err error) {
	d, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return 0, err
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		if d.Type() == ctaStatus {
			status = d.Uint32()
		}
	}
	return status, d.Err()
}
