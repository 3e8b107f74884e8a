package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/monitor"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// ctZones are the zones of the connection tracker that this chassis uses, by logical port, and others.
func (a *Agent) ctZones(ctx context.Context) (zones map[string]uint16, err error) {
	err = a.query(ctx, func() {
		if local := a.plan.Local; local != nil {
			zones = maps.Clone(local.Zones)
		}
	})
	return zones, err
}

// tracked asks the connection tracker about flows, in the zones of their ports on this node, in the order of flows. The error is of the first that cannot be
// asked about; those before it are known.
func (a *Agent) tracked(ctx context.Context, flows []monitor.Flow) (all []monitor.Tracked, err error) {
	all = make([]monitor.Tracked, len(flows))
	if len(flows) == 0 {
		return all, nil
	}
	zones, err := a.ctZones(ctx)
	if err != nil {
		return all, err
	}
	t, err := openTracker()
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	for i, f := range flows {
		src, dst := netip.AddrPortFrom(f.Ends.From.Addr, f.FromPort), netip.AddrPortFrom(f.Ends.To, f.ToPort)
		asked := map[uint16]bool{}
		for _, port := range []string{f.From, f.To} {
			zone, known := zones[port]
			if !known || asked[zone] {
				continue
			}
			asked[zone] = true
			c, known, err := t.connection(zone, src, dst) // of either direction
			if err != nil {
				return all, err
			}
			if known {
				all[i] = all[i].With(c.Assured, c.Offload, c.Hardware)
			}
		}
	}
	return all, nil
}

// A tracker is a socket to the connection tracker of the kernel.
type tracker struct{ fd int }

func openTracker() (*tracker, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("probe: connection tracker: socket: %w", err)
	}
	timeout := unix.NsecToTimeval(int64(trackerTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, errors.Join(fmt.Errorf("probe: connection tracker: setsockopt: %w", err), unix.Close(fd))
	}
	return &tracker{fd}, nil
}

func (t *tracker) close() error { return unix.Close(t.fd) }

// connection returns what is known of a connection of UDP in a zone, and whether there is one.
func (t *tracker) connection(zone uint16, src, dst netip.AddrPort) (c result.Connection, known bool, err error) {
	status, err := trackedStatus(t.fd, zone, src, dst)
	switch {
	case errors.Is(err, unix.ENOENT):
		return c, false, nil
	case err != nil:
		return c, false, &reason.Error{Reason: reason.KernelRefused, Err: fmt.Errorf("probe: connection tracker, zone %d: %w", zone, err)}
	}
	return result.Connection{
		Zone: zone, Assured: status&ipsAssured != 0, Offload: status&ipsOffload != 0, Hardware: status&ipsHWOffload != 0,
	}, true, nil
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
