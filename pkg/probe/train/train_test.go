package train

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/path"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Verb {
		os.Exit(Main(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

var (
	here  = netip.MustParseAddrPort("198.18.0.1:7531")
	there = netip.MustParseAddrPort("198.18.0.2:40000")
)

// spaces are that which answers, and one in which there is nothing but loopback.
func spaces(t *testing.T) (answers, sends path.Netns) {
	t.Helper()
	release, err := path.Hold(t.Context(), true)
	check(t, err)
	t.Cleanup(func() { check(t, release()) })
	var both [2]path.Netns
	for i := range both {
		both[i], err = path.NewNetns(900 + i)
		check(t, err)
		t.Cleanup(func() { check(t, both[i].Close()) })
	}
	in(t, both[0], func(h *netlink.Handle) {
		lo, err := h.LinkByName("lo")
		check(t, err)
		check(t, h.LinkSetUp(lo))
		check(t, h.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: here.Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}}))
	})
	return both[0], both[1]
}

func in(t *testing.T, n path.Netns, do func(*netlink.Handle)) {
	t.Helper()
	ns, err := netns.GetFromPath(n.Path)
	check(t, err)
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	check(t, err)
	defer h.Close()
	do(h)
}

// join makes a pair of veths between the two: what a new port is.
func join(t *testing.T, answers, sends path.Netns) {
	t.Helper()
	to, err := netns.GetFromPath(sends.Path)
	check(t, err)
	defer func() { _ = to.Close() }()
	in(t, answers, func(h *netlink.Handle) {
		a := netlink.NewLinkAttrs()
		a.Name = "port"
		check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(to))}))
		up(t, h, "port", there.Addr())
	})
	in(t, sends, func(h *netlink.Handle) {
		eth0, err := h.LinkByName("eth0")
		check(t, err)
		check(t, h.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: there.Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}}))
		up(t, h, "eth0", here.Addr())
	})
}

// up brings a device up, and leads to an address by it.
func up(t *testing.T, h *netlink.Handle, name string, to netip.Addr) {
	t.Helper()
	link, err := h.LinkByName(name)
	check(t, err)
	check(t, h.LinkSetUp(link))
	check(t, h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(32, 32)}}))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A train begins before there is an interface, and its first packet is answered as soon as there is; from then on each is. Others than trains get no answer.
func TestTrain(t *testing.T) {
	answers, sends := spaces(t)
	p, err := Start(t.Context(), End{Netns: answers.Path, At: here})
	check(t, err)
	defer p.Close()
	run, err := p.Send(t.Context(), Train{Netns: sends.Path, Device: "eth0", From: there, Interval: time.Millisecond})
	check(t, err)
	before := Now()
	join(t, answers, sends)
	at := <-run.Answered()
	if at < before {
		t.Errorf("an answer came %v before there was an interface", time.Duration(before-at))
	}
	stranger(t, sends)
	<-time.After(50 * time.Millisecond)
	r, err := run.Stop(t.Context())
	check(t, err)
	if r.Answered != at || r.First < 1 || len(r.Sent) < r.First || r.Sent[0] < before || !slices.IsSorted(r.Sent) || !slices.IsSorted(r.Answers) {
		t.Errorf("%+v, the answer came at %d", r, at)
	}
	if want := len(r.Sent) - r.First + 1; len(r.Answers) != want {
		t.Errorf("%d packets, %d of them since the first that was answered, and %d answers", len(r.Sent), want, len(r.Answers))
	}
	if len(r.Answers) > 0 && (r.Answers[0] < r.Sent[r.First-1] || r.Answers[0] > at) {
		t.Errorf("the first answer left at %d, between %d and %d it should have", r.Answers[0], r.Sent[r.First-1], at)
	}
}

// stranger sends what is no train's, and gets no answer before a train of its own has ended.
func stranger(t *testing.T, from path.Netns) {
	t.Helper()
	ns, err := netns.GetFromPath(from.Path)
	check(t, err)
	defer func() { _ = ns.Close() }()
	done := make(chan error, 1)
	go func() { // on a thread that ends with it
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = home.Close() }()
		done <- func() error {
			if err := netns.Set(ns); err != nil {
				return err
			}
			defer func() { _ = netns.Set(home) }()
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(here))
			if err != nil {
				return err
			}
			defer c.Close()
			b := make([]byte, size)
			for _, p := range []packet{{1, 1, 1, true}, {0, 1, 1, false}} {
				p.put(b)
				for _, n := range []int{size, size - 1, 1} {
					if _, err := c.Write(b[:n]); err != nil {
						return err
					}
				}
			}
			if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				return err
			}
			if n, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.Join(fmt.Errorf("a stranger has an answer of %d octets", n), err)
			}
			return nil
		}()
	}()
	check(t, <-done)
}

// What cannot be is refused with its reason, and a process that has ended is an error, not a wait.
func TestRefused(t *testing.T) {
	answers, sends := spaces(t)
	if _, err := Start(t.Context(), End{Netns: answers.Path, At: netip.MustParseAddrPort("198.18.0.9:7531")}); err == nil || !strings.Contains(err.Error(), "198.18.0.9:7531") {
		t.Errorf("at an address that is not there: %v", err)
	}
	if _, err := Start(t.Context(), End{Netns: "/run/netns/nowhere", At: here}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("nowhere: %v", err)
	}
	p, err := Start(t.Context(), End{Netns: answers.Path, At: here})
	check(t, err)
	defer p.Close()
	good := Train{Netns: sends.Path, Device: "eth0", From: there, Interval: time.Millisecond}
	for what, change := range map[string]func(*Train){
		"path": func(x *Train) { x.Netns = "a" }, "device": func(x *Train) { x.Device = "../eth0" }, "no device": func(x *Train) { x.Device = "" },
		"family": func(x *Train) { x.From = netip.MustParseAddrPort("[fd00::1]:1") }, "port": func(x *Train) { x.From = netip.AddrPortFrom(there.Addr(), 0) },
		"interval": func(x *Train) { x.Interval = 0 }, "namespace": func(x *Train) { x.Netns = "/run/netns/nowhere" },
	} {
		x := good
		change(&x)
		if _, err := p.Send(t.Context(), x); err == nil {
			t.Errorf("wrong %s: no error", what)
		}
	}
	run, err := p.Send(t.Context(), good)
	check(t, err)
	p.p.Kill()
	if _, err := run.Stop(t.Context()); err == nil {
		t.Error("a train has ended well whose process was killed")
	}
	if _, err := p.Send(t.Context(), good); err == nil {
		t.Error("a process that was killed takes a train")
	}
}
