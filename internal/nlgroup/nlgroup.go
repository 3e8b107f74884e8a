// Package nlgroup receives what the kernel tells those who have joined a group of netlink, and says when it may not have told all.
//
// Where there is no room for an event the kernel says so once (ENOBUFS), and from then on tells nothing until all that was there before has been
// received (NETLINK_S_CONGESTED, net/netlink/af_netlink.c). Who reads anew what there is before that is the case misses what changes in between, and
// never hears of it.
package nlgroup

import (
	"context"
	"errors"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Receive waits for messages. lost says that some did not come: whoever reads now what there is hears of all changes after that. It is for
// one goroutine at a time.
func Receive(ctx context.Context, nl *netlink.Conn) (messages []netlink.Message, lost bool, err error) {
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = nl.SetReadDeadline(time.Unix(1, 0))
		close(fired)
	})
	messages, err = nl.Receive()
	if !stop() {
		<-fired
		_ = nl.SetReadDeadline(time.Time{})
	}
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return nil, true, drain(nl)
	case err != nil && ctx.Err() != nil:
		return nil, false, context.Cause(ctx)
	}
	return messages, false, err
}

// drain receives all that is there, which is of before something was lost.
func drain(nl *netlink.Conn) error {
	raw, err := nl.SyscallConn()
	if err != nil {
		return nil //nolint:nilerr // it is none of the kernel's, and has no room that could be too little
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		var some [1]byte // of a message: the rest goes with it
		for {
			switch _, _, err := unix.Recvfrom(int(fd), some[:], unix.MSG_DONTWAIT); {
			case err == nil, errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return true
			default:
				failed = err
				return true
			}
		}
	})
	return errors.Join(err, failed)
}
