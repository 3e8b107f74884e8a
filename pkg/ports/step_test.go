package ports

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/reason"
)

// rehearse returns the steps with what they do replaced: they only tell that they were there, and fail if so told.
func rehearse(fails map[string]error) (play []step, told *[]string) {
	told = new([]string)
	act := func(name string) func(*making, context.Context) error {
		return func(*making, context.Context) error {
			*told = append(*told, name)
			return fails[name]
		}
	}
	for _, s := range steps() {
		s.do = act(s.name)
		if s.undo != nil {
			s.undo = act(s.undoName)
		}
		play = append(play, s)
	}
	return play, told
}

// Whichever step fails, all that may have been done is undone, in the opposite order, and the error is that of the step.
func TestFailureUndoes(t *testing.T) {
	for i, s := range steps() {
		boom := errors.New("boom")
		play, told := rehearse(map[string]error{s.name: boom})
		var want []string
		for _, s := range steps()[:i+1] {
			want = append(want, s.name)
		}
		for j := range steps()[:i+1] {
			if s := steps()[i-j]; s.undo != nil && i > 0 {
				want = append(want, s.undoName)
			}
		}
		var faults []string
		m := &making{publish: func(Port) {}, fault: func(p string) { faults = append(faults, p) }}
		err, unfinished := m.make(t.Context(), play)
		if !errors.Is(err, boom) || unfinished != nil {
			t.Errorf("%s: %v, unfinished %v", s.name, err, unfinished)
		}
		if d := cmp.Diff(want, *told); d != "" {
			t.Errorf("%s fails (-want +got):\n%s", s.name, d)
		}
		var points, names []string
		for _, name := range want {
			points = append(points, "before-"+name, "after-"+name)
		}
		if d := cmp.Diff(points, faults); d != "" {
			t.Errorf("%s fails: fault points (-want +got):\n%s", s.name, d)
		}
		for _, p := range points {
			if !slices.Contains(FaultPoints(), p) {
				t.Errorf("fault point %s is not listed", p)
			}
		}
		for _, s := range m.port.Timeline {
			names = append(names, s.Name)
			if s.Duration < 0 {
				t.Errorf("timeline: %s is not over", s.Name)
			}
		}
		if d := cmp.Diff(want, names); d != "" {
			t.Errorf("%s fails: timeline (-want +got):\n%s", s.name, d)
		}
	}
}

// What cannot be undone does not keep the rest from being undone, but the record stays.
func TestUndoingThatFails(t *testing.T) {
	play, told := rehearse(map[string]error{
		"install": errors.New("boom"),
		"unplug":  reason.Errorf(reason.OVSDBDisconnected, "no database"),
	})
	m := &making{publish: func(Port) {}, fault: func(string) {}}
	err, unfinished := m.make(t.Context(), play)
	if err == nil || reason.Of(unfinished) != reason.OVSDBDisconnected {
		t.Errorf("%v, unfinished %v", err, unfinished)
	}
	if got := strings.Join((*told)[len(*told)-2:], " "); got != "unplug unlink" {
		t.Errorf("at last: %s, want unplug and unlink only", got)
	}
}

// The reason for ending tells who ended it.
func TestEnded(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(context.Context) (context.Context, context.CancelFunc)
		err  error
		want reason.Reason
	}{
		{"deadline", expired, errors.New("x"), reason.DeadlineExceeded},
		{"deadline while waiting", expired, reason.Errorf(reason.LPortNotFound, "x"), reason.LPortNotFound},
		{"caller", context.WithCancel, reason.Errorf(reason.LPortNotFound, "x"), reason.Cancelled},
		{"delete", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			return ctx, func() { cancel(errDeleted) }
		}, reason.Errorf(reason.LPortNotFound, "x"), reason.PortDeleted},
	} {
		play, _ := rehearse(map[string]error{"install": fmt.Errorf("%w", tt.err)})
		ctx, cancel := tt.end(t.Context())
		cancel()
		m := &making{publish: func(Port) {}, fault: func(string) {}}
		if err, unfinished := m.make(ctx, play); reason.Of(err) != tt.want || unfinished != nil {
			t.Errorf("%s: %s (%v), unfinished %v; want %s", tt.name, reason.Of(err), err, unfinished, tt.want)
		}
	}
}

func expired(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, 0)
	<-ctx.Done()
	return ctx, cancel
}

func TestMilestones(t *testing.T) {
	plugged := outlook{connected: true, bridge: true, socket: socket{Exists: true, LPort: "lp", OFPort: 7}}
	good := LogicalPort{Bridge: true, Connected: true, Known: true, Exists: true, Claimed: true, Addresses: "0a:00:00:00:00:01 10.0.0.1"}
	spec := Spec{LogicalPort: "lp"}
	for _, tt := range []struct {
		name   string
		goal   milestone
		change func(*outlook, *LogicalPort)
		want   reason.Reason // "": reached
	}{
		{"addresses", bound, func(*outlook, *LogicalPort) {}, ""},
		{"number", numbered, func(*outlook, *LogicalPort) {}, ""},
		{"claim", claimed, func(*outlook, *LogicalPort) {}, ""},
		{"not installed", installed, func(*outlook, *LogicalPort) {}, reason.OVNNotInstalled},
		{"installed", installed, func(o *outlook, _ *LogicalPort) { o.socket.Installed = true }, ""},
		{"installed, whatever the chassis says", installed, func(o *outlook, l *LogicalPort) { o.socket.Installed, *l = true, LogicalPort{} }, ""},
		{"database away", installed, func(o *outlook, _ *LogicalPort) { o.connected = false }, reason.OVSDBDisconnected},
		{"bridge gone", installed, func(o *outlook, _ *LogicalPort) { o.bridge = false }, reason.BridgeMissing},
		{"unplugged", installed, func(o *outlook, _ *LogicalPort) { o.socket = socket{} }, reason.PortUnplugged},
		{"plugged for another", installed, func(o *outlook, _ *LogicalPort) { o.socket.LPort = "x" }, reason.PortUnplugged},
		{"not opened", numbered, func(o *outlook, _ *LogicalPort) { o.socket.OFPort = -1 }, reason.KernelRefused},
		{"no number", numbered, func(o *outlook, _ *LogicalPort) { o.socket.OFPort = 0 }, reason.OVNNotInstalled},
		{"switch away", numbered, func(o *outlook, l *LogicalPort) { o.socket.OFPort, l.Bridge = 0, false }, reason.BridgeDisconnected},
		{"southbound away", claimed, func(_ *outlook, l *LogicalPort) { *l = LogicalPort{Bridge: true} }, reason.SBDisconnected},
		{"southbound silent", claimed, func(_ *outlook, l *LogicalPort) { *l = LogicalPort{Bridge: true, Connected: true} }, reason.OVNNotInstalled},
		{"no logical port", claimed, func(_ *outlook, l *LogicalPort) { l.Exists, l.Claimed = false, false }, reason.LPortNotFound},
		{"reserved", claimed, func(_ *outlook, l *LogicalPort) { l.Requested, l.Claimed = "other", false }, reason.LPortClaimedElsewhere},
		{"not claimed", claimed, func(_ *outlook, l *LogicalPort) { l.Claimed = false }, reason.OVNNotInstalled},
		{"no addresses", bound, func(_ *outlook, l *LogicalPort) { l.Addresses = "" }, reason.LPortNoAddresses},
		{"no real addresses", bound, func(_ *outlook, l *LogicalPort) { l.Addresses = "unknown" }, reason.LPortNoAddresses},
	} {
		o, l := plugged, good
		tt.change(&o, &l)
		ok, obstacle := tt.goal.reached(o, l, spec)
		var got reason.Reason
		if obstacle != nil {
			got = obstacle.Reason
		}
		if got != tt.want || ok != (tt.want == "") {
			t.Errorf("%s: %v, %s; want %s", tt.name, ok, got, tt.want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"0a:00:00:00:00:01", "0a:00:00:00:00:01 []"},
		{"0a:00:00:00:00:01 10.0.0.1 fd00::1", "0a:00:00:00:00:01 [10.0.0.1/32 fd00::1/128]"},
		{"0a:00:00:00:00:01 10.0.0.1/24", "0a:00:00:00:00:01 [10.0.0.1/24]"},
		{"", "no addresses"},
		{"unknown", `"unknown": not a MAC address`},
		{"01:00:00:00:00:01 10.0.0.1", "01:00:00:00:00:01: not a unicast address"},
		{"0a:00:00:00:00:01 10.0.0", `ParseAddr("10.0.0"): IPv4 address too short`},
		{"0a:00:00:00:00:01" + strings.Repeat(" 10.0.0.1", 33), "33 addresses, more than 32"},
	} {
		mac, ips, err := LogicalPort{Addresses: tt.in}.addresses()
		got := fmt.Sprintf("%s %v", mac, ips)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s", tt.in, got, tt.want)
		}
	}
}

// Routes on the link come before those that lead by way of them.
func TestRoutes(t *testing.T) {
	p := Port{
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("fd00::5/128")},
		Gateways:  []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Routes: []Route{
			{Destination: netip.MustParsePrefix("10.1.0.0/16"), Gateway: netip.MustParseAddr("10.0.0.2"), Metric: 5, MTU: 1300},
			{Destination: netip.MustParsePrefix("10.2.0.0/16")},
		},
	}
	var got []string
	for _, r := range routes(p, 3) {
		got = append(got, fmt.Sprintf("%s %s flags %v metric %d mtu %d", describe(r), r.Scope, r.ListFlags(), r.Priority, r.MTU))
	}
	want := []string{
		"10.2.0.0/16 link flags [] metric 0 mtu 0",
		"0.0.0.0/0 via 10.0.0.1 universe flags [] metric 0 mtu 0",
		"::/0 via fd00::1 universe flags [onlink] metric 0 mtu 0",
		"10.1.0.0/16 via 10.0.0.2 universe flags [] metric 5 mtu 1300",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestStanding(t *testing.T) {
	good := socket{Exists: true, LPort: "lp", OFPort: 7, Installed: true}
	for _, tt := range []struct {
		name   string
		link   bool
		change func(*socket)
		want   string
	}{
		{"ready", true, func(*socket) {}, "READY "},
		{"not installed", true, func(k *socket) { k.Installed = false }, "PLUGGED OVN_NOT_INSTALLED"},
		{"link gone", false, func(*socket) {}, "FAILED DEVICE_GONE"},
		{"unplugged", true, func(k *socket) { *k = socket{} }, "FAILED PORT_UNPLUGGED"},
		{"plugged for another", true, func(k *socket) { k.LPort = "x" }, "FAILED PORT_UNPLUGGED"},
		{"not opened", true, func(k *socket) { k.OFPort, k.Error = -1, "no such device" }, "FAILED LINK_MISSING"},
	} {
		k := good
		tt.change(&k)
		var missing Problem
		if !tt.link {
			missing = Problem{reason.DeviceGone, "x"}
		}
		state, why, _ := standing(missing, k, Spec{LogicalPort: "lp"})
		if got := string(state) + " " + string(why); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// A port that is no function has nothing to do with functions, neither when it is made nor when it is unmade.
func TestVethSkipsFunctions(t *testing.T) {
	play, told := rehearse(map[string]error{"record": errors.New("boom")})
	m := &making{port: Port{Kind: Veth}, publish: func(Port) {}, fault: func(string) {}}
	if err, unfinished := m.make(t.Context(), play); err == nil || unfinished != nil {
		t.Fatalf("%v, unfinished %v", err, unfinished)
	}
	want := "journal link plug addresses configure ofport claim install record unplug unlink forget"
	if got := strings.Join(*told, " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What the caller wants of a function is what the function is asked for.
func TestFunctionAttributes(t *testing.T) {
	yes, low, high := true, uint64(1e6), uint64(1e9)
	s := good()
	s.Attributes = Attributes{VLAN: 7, QoS: 3, VLANProto: VLAN8021AD, Trust: &yes, SpoofCheck: &yes, LinkState: LinkEnable, MinRate: low, MaxRate: high}
	want := device.Attributes{
		MAC: device.MAC(s.MAC), MTU: s.MTU, VLAN: &device.VLAN{ID: 7, QoS: 3, Protocol: 0x88a8}, Trust: &yes, SpoofCheck: &yes,
		LinkState: device.LinkEnable, MinRate: &low, MaxRate: &high,
	}
	if d := cmp.Diff(want, s.function()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	s.Attributes = Attributes{VLAN: 7}
	if got := s.function(); got.VLAN.Protocol != 0x8100 || got.MinRate != nil || got.MaxRate != nil || got.Trust != nil {
		t.Errorf("%+v", got)
	}
	s.Attributes = Attributes{}
	if d := cmp.Diff(device.Attributes{MAC: device.MAC(s.MAC), MTU: s.MTU}, s.function()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Only that there is none to be had makes a port something else.
func TestLacking(t *testing.T) {
	for r, want := range map[reason.Reason]bool{
		reason.PoolExhausted: true, reason.DeviceNotFound: true, reason.FeatureUnsupported: true,
		reason.PoolNotFound: false, reason.DeviceBusy: false, reason.InvalidField: false, reason.EswitchNotSwitchdev: false, reason.Internal: false,
	} {
		if lacking(r) != want {
			t.Errorf("%s: %v", r, !want)
		}
	}
}

func TestKeyOfInterface(t *testing.T) {
	k := Key{"net", "c1", "eth0"}
	if !hostNames.MatchString(k.hostName()) || len(k.hostName()) > maxIfname {
		t.Errorf("host name %q", k.hostName())
	}
	if got, err := parseKey(k.String()); err != nil || got != k {
		t.Errorf("parseKey(%q) = %v, %v", k, got, err)
	}
	for _, bad := range []string{"", "a/b", "a/b/c/d", "a//c", "a/b/."} {
		if got, err := parseKey(bad); err == nil {
			t.Errorf("parseKey(%q) = %v", bad, got)
		}
	}
}
