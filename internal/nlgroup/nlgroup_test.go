package nlgroup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	route "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A namespace is a new network namespace with loopback.
func namespace(t *testing.T) (lo *route.Handle, groups *netlink.Conn) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can have a network namespace of its own")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	check(t, err)
	defer home.Close()
	ns, err := netns.New() // and enters it
	check(t, err)
	lo, err = route.NewHandle(unix.NETLINK_ROUTE)
	check(t, err)
	t.Cleanup(func() { _ = lo.Close() })
	groups, err = netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK})
	check(t, errors.Join(err, netns.Set(home), ns.Close()))
	t.Cleanup(func() { check(t, groups.Close()) })
	return lo, groups
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What changes after it was said that something was lost is told, however much nobody had received before.
func TestLost(t *testing.T) {
	lo, groups := namespace(t)
	check(t, groups.SetReadBuffer(1)) // the least that there is
	link, err := lo.LinkByName("lo")
	check(t, err)
	for round := range 5 {
		for i := range 100 {
			check(t, lo.LinkSetMTU(link, 2000+i))
		}
		for {
			_, lost, err := Receive(t.Context(), groups)
			check(t, err)
			if lost {
				break
			}
		}
		const last = 1234567
		check(t, lo.LinkSetMTU(link, last))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		for seen := false; !seen; {
			messages, lost, err := Receive(ctx, groups)
			if err != nil || lost {
				t.Fatalf("round %d: the last change was not told: lost %t, %v", round, lost, err)
			}
			for _, m := range messages {
				seen = seen || bytes.Contains(m.Data, binary.NativeEndian.AppendUint32(nil, last))
			}
		}
		cancel()
	}
}

// The end of the context ends the wait, and the connection goes on.
func TestEnd(t *testing.T) {
	lo, groups := namespace(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	if _, _, err := Receive(ctx, groups); !errors.Is(err, cause) {
		t.Errorf("the wait ended with %v, want %v", err, cause)
	}
	if _, _, err := Receive(ctx, groups); !errors.Is(err, cause) {
		t.Errorf("after the end of the context: %v", err)
	}
	link, err := lo.LinkByName("lo")
	check(t, err)
	check(t, lo.LinkSetMTU(link, 2000))
	if m, lost, err := Receive(t.Context(), groups); err != nil || lost || len(m) == 0 {
		t.Errorf("another wait: %d messages, lost %t, %v", len(m), lost, err)
	}
}
