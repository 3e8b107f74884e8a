package device

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/nlgroup"
	"github.com/offloadd/offloadd/pkg/devlink"
)

// A kernel is the door to devlink and rtnetlink. Its sockets of rtnetlink live for one request each, so that requests wait for each other
// in the kernel only.
type kernel struct {
	devlink *devlink.Conn
	dial    func(groups uint32) (*netlink.Conn, error)
}

// receiveBuffer holds some thousand events of links. The kernel takes it from those who have CAP_NET_ADMIN.
const receiveBuffer = 2 << 20

// dialRoute opens a socket of rtnetlink that is told of groups, a mask of RTMGRP_*.
func dialRoute(groups uint32) (*netlink.Conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err != nil {
		return nil, fmt.Errorf("device link: %w", err)
	}
	// Not netlink.CapAcknowledge: see pkg/tc.
	if err := errors.Join(nl.SetOption(netlink.ExtendedAcknowledge, true), nl.SetReadBuffer(receiveBuffer)); err != nil {
		return nil, errors.Join(fmt.Errorf("device link: %w", err), nl.Close())
	}
	return nl, nil
}

// A refusal is a request about a link that the kernel refused.
type refusal struct {
	request string // as arguments of ip(8)
	err     error  // a unix.Errno
	message string // the kernel's explanation, or ""
}

func (r *refusal) Error() string {
	s := "device " + r.request + ": " + r.err.Error()
	if r.message != "" {
		s += " (" + r.message + ")"
	}
	return s
}

func (r *refusal) Unwrap() error { return r.err }

func (k *kernel) ask(ctx context.Context, r linkRequest, flags netlink.HeaderFlags) ([]link, error) {
	nl, err := k.dial(0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = nl.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = nl.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answers, err := nl.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(r.typ), Flags: netlink.Request | flags}, Data: r.encode(),
	})
	if err != nil {
		var op *netlink.OpError
		var errno unix.Errno
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case errors.As(err, &op) && errors.As(op.Err, &errno):
			return nil, &refusal{request: r.text, err: errno, message: op.Message}
		}
		return nil, fmt.Errorf("device %s: %w", r.text, err)
	}
	var links []link
	for _, a := range answers {
		if a.Header.Type != rtmNewLink {
			continue
		}
		l, err := decodeLink(a.Data)
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", r.text, err)
		}
		links = append(links, l)
	}
	return links, nil
}

// links returns all links of the network namespace.
func (k *kernel) links(ctx context.Context) ([]link, error) {
	return k.ask(ctx, showLinks(), netlink.Dump)
}

// link returns a link, by its index. The error is unix.ENODEV if there is none.
func (k *kernel) link(ctx context.Context, l Link) (link, error) {
	return k.one(ctx, showLink(l))
}

func (k *kernel) one(ctx context.Context, r linkRequest) (link, error) {
	got, err := k.ask(ctx, r, 0)
	if err == nil && len(got) != 1 {
		err = fmt.Errorf("device %s: %d answers", r.text, len(got))
	}
	if err != nil {
		return link{}, err
	}
	return got[0], nil
}

// vf returns what the driver of a PF says of one of its VFs.
func (k *kernel) vf(ctx context.Context, pf Link, n uint32) (VFConfig, error) {
	l, err := k.one(ctx, showVFs(pf))
	if err != nil {
		return VFConfig{}, err
	}
	v, ok := l.vfs[n]
	if !ok {
		return VFConfig{}, fmt.Errorf("device link show %s: the driver tells nothing of VF %d: %w", pf.Name, n, errors.ErrUnsupported)
	}
	return v, nil
}

func (k *kernel) set(ctx context.Context, r linkRequest) error {
	_, err := k.ask(ctx, r, netlink.Acknowledge)
	return err
}

// A linkEvent is a link that is new, has changed, or is gone; or it says that events were lost.
type linkEvent struct {
	link
	gone bool
	lost bool
}

const rtmgrpLink = 1 // RTMGRP_LINK

// watchLinks calls f for each event of links until ctx ends. begun is called when there is a socket for them, before the first event: what
// was before has to be read there.
func (k *kernel) watchLinks(ctx context.Context, begun func() error, f func(linkEvent)) error {
	nl, err := k.dial(rtmgrpLink)
	if err != nil {
		return err
	}
	defer func() { _ = nl.Close() }()
	if err := begun(); err != nil {
		return err
	}
	for {
		messages, lost, err := nlgroup.Receive(ctx, nl)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("device link monitor: %w", err)
		case lost:
			f(linkEvent{lost: true})
		}
		for _, m := range messages {
			if m.Header.Type != rtmNewLink && m.Header.Type != rtmDelLink {
				continue
			}
			l, err := decodeLink(m.Data)
			// A bridge tells of its members by the same messages, of another family.
			if err == nil && m.Data[0] == unix.AF_UNSPEC {
				f(linkEvent{link: l, gone: m.Header.Type == rtmDelLink})
			}
		}
	}
}

// Waits before something that was busy is tried again: twice as long each time.
const (
	firstWait = 20 * time.Millisecond
	lastWait  = 2 * time.Second
)

// whileBusy does something until it is not refused for something else that has to be over first, or ctx ends.
func whileBusy(ctx context.Context, f func() error) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := f()
		if !isBusy(err) {
			return err
		}
		// Somewhere between half and all of it, so that those who wait for the same do not come back at the same time.
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

func isBusy(err error) bool {
	return errors.Is(err, devlink.ErrBusy) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EAGAIN)
}

func isUnsupported(err error) bool {
	return errors.Is(err, devlink.ErrUnsupported) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, errors.ErrUnsupported)
}

func isGone(err error) bool {
	return errors.Is(err, devlink.ErrGone) || errors.Is(err, unix.ENODEV) || errors.Is(err, os.ErrNotExist)
}
