package apply

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// Blocked connections in zones of ours go: those that are blocked before the Revoker begins, those that become so later, and those
// that nobody hears of. There is no NIC here that could have one: those that are assured stand for those that a NIC has.
func TestRevoker(t *testing.T) {
	config := &netlink.Config{NetNS: space(t)}
	conn, err := conntrack.Dial(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	flow := func(port uint16, v6 bool, zone uint16, mark uint32, status conntrack.Status) conntrack.Flow {
		from, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		if v6 {
			from, to = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
		}
		f := conntrack.NewFlow(unix.IPPROTO_UDP, status, from, to, port, 53, 300, mark)
		f.Zone = zone
		return f
	}
	const taken = conntrack.StatusConfirmed | conntrack.StatusSeenReply | conntrack.StatusAssured
	const known = conntrack.StatusConfirmed | conntrack.StatusSeenReply
	create := func(flows ...conntrack.Flow) {
		t.Helper()
		for _, f := range flows {
			if err := conn.Create(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	create(
		flow(1, false, 7, 1, taken), // goes
		flow(2, true, 7, 3, taken),  // goes
		flow(3, false, 8, 1, taken), // not our zone
		flow(4, false, 7, 1, known), // not in the NIC
		flow(5, false, 7, 0, taken), // is not blocked
		flow(6, false, 7, 0, taken), // will be, and nobody hears of it
	)
	ctx, cancel := context.WithCancel(t.Context())
	r := NewRevoker(slog.New(slog.DiscardHandler), func(zone uint16) bool { return zone == 7 })
	r.config, r.status = config, conntrack.StatusAssured
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	await := func(want ...uint16) {
		t.Helper()
		var have []uint16
		for range 500 {
			flows, err := conn.Dump(nil)
			if err != nil {
				t.Fatal(err)
			}
			have = nil
			for i := range flows {
				have = append(have, flows[i].TupleOrig.Proto.SourcePort)
			}
			if slices.Sort(have); slices.Equal(have, want) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("connections %d are left, want %d", have, want)
	}
	update := func(flows ...conntrack.Flow) {
		t.Helper()
		for _, f := range flows {
			if err := conn.Update(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	await(3, 4, 5, 6)
	create(flow(7, false, 7, 2, taken), flow(8, true, 7, 0, taken))
	update(flow(7, false, 7, 3, 0), flow(8, true, 7, 1, 0), flow(5, false, 7, 4, 0))
	await(3, 4, 5, 6)
	update(flow(6, false, 7, 1, 0))
	r.Look()
	await(3, 4, 5)
}

// space makes a network namespace, and returns a descriptor of it.
func space(t *testing.T) int {
	t.Helper()
	name := "apply-" + strconv.Itoa(os.Getpid())
	if out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	f, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return int(f.Fd())
}
