package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/integration/lab"
)

// answers is a network for TestAnswers: pair's switch, a router, and a switch behind it. Ports 81 and 82 of p1 are rejected where
// its packets arrive and where they leave; 83 is logged.
const answers = `
	lr-add r0
	lrp-add r0 r0-sw0 50:54:00:00:ff:00 10.0.0.254/24 fd10::fe/64
	lsp-add sw0 sw0-r0
	lsp-set-type sw0-r0 router
	lsp-set-addresses sw0-r0 router
	lsp-set-options sw0-r0 router-port=r0-sw0
	ls-add sw1
	lrp-add r0 r0-sw1 50:54:00:00:ff:01 10.1.0.254/24 fd11::fe/64
	lsp-add sw1 sw1-r0
	lsp-set-type sw1-r0 router
	lsp-set-addresses sw1-r0 router
	lsp-set-options sw1-r0 router-port=r0-sw1
	lsp-add sw1 far
	lsp-set-addresses far '50:54:00:00:01:01 10.1.0.11 fd11::11'
	set logical_router_port r0-sw1 options:gateway_mtu=1300
	acl-add sw0 to-lport 1001 'outport == "p1" && ip && (tcp.dst == 81 || udp.dst == 81)' reject
	acl-add sw0 from-lport 1001 'inport == "p1" && ip && (tcp.dst == 82 || udp.dst == 82)' reject
	--log --severity=alert acl-add sw0 to-lport 1001 'outport == "p1" && ip && (tcp.dst == 83 || udp.dst == 83)' allow-related
	--log --name=all acl-add sw0 to-lport 1000 'outport == "p1" && ip && udp' drop
`

// What the agent of n1 answers and logs: with -agent ovn-controller that is what OVN does.
func TestAnswers(t *testing.T) {
	l := pair(t, lab.Options{})
	l.NB(answers)
	p1, p2, n1 := l.Pod("p1"), l.Pod("p2"), l.Node("n1")
	far := l.AddPod("n1", lab.PodConfig{
		Name: "far", MAC: "50:54:00:00:01:01",
		IPs: []netip.Prefix{netip.MustParsePrefix("10.1.0.11/24"), netip.MustParsePrefix("fd11::11/64")},
	})
	l.WaitInstalled(far)
	for p, gateways := range map[*lab.Pod][2]string{p1: {"10.0.0.254", "fd10::fe"}, p2: {"10.0.0.254", "fd10::fe"}, far: {"10.1.0.254", "fd11::fe"}} {
		for i, family := range []string{"-4", "-6"} {
			_, err := p.Exec(t.Context(), "ip", family, "route", "add", "default", "via", gateways[i])
			l.Check(err)
		}
	}
	l.Sync()
	for _, v6 := range []bool{false, true} {
		router, family := netip.MustParseAddr("10.0.0.254"), "IPv4"
		if v6 {
			router, family = netip.MustParseAddr("fd10::fe"), "IPv6"
		}
		t.Run("TTL that ends, "+family, func(t *testing.T) {
			wantPing(t, p1, far, 10*time.Second)
			out, err := p1.Exec(t.Context(), "ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", "-t", "1", far.Addr(v6).String())
			if err == nil {
				t.Fatalf("a ping whose TTL is 1 is answered from behind a router:\n%s", out)
			}
			out += err.Error()
			if n := strings.Count(out, "From "+router.String()); n != 2 || !strings.Contains(out, map[bool]string{false: "Time to live exceeded", true: "Hop limit"}[v6]) {
				t.Errorf("%d answers of the router, want 2:\n%s", n, out)
			}
		})
		t.Run("packet that is too long, "+family, func(t *testing.T) {
			out, err := p1.Exec(t.Context(), "ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", "-s", "1340", far.Addr(v6).String())
			if err == nil {
				t.Fatalf("a packet of 1368 bytes or more passes an MTU of 1300:\n%s", out)
			}
			if out += err.Error(); !strings.Contains(out, map[bool]string{false: "(mtu = 1300)", true: "mtu=1300"}[v6]) {
				t.Errorf("nobody says that the MTU is 1300:\n%s", out)
			}
		})
		t.Run("closed ports of the router, "+family, func(t *testing.T) {
			wantRefused(t, "tcp", p1, netip.AddrPortFrom(router, 7))
			wantRefused(t, "udp", p1, netip.AddrPortFrom(router, 7))
		})
		t.Run("ACLs that reject, "+family, func(t *testing.T) {
			for _, network := range []string{"tcp", "udp"} {
				wantRefused(t, network, p2, netip.AddrPortFrom(p1.Addr(v6), 81))
				wantRefused(t, network, far, netip.AddrPortFrom(p1.Addr(v6), 81))
				wantRefused(t, network, p1, netip.AddrPortFrom(p2.Addr(v6), 82))
				wantRefused(t, network, p1, netip.AddrPortFrom(far.Addr(v6), 82))
			}
		})
		t.Run("ACLs that log, "+family, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l.Check(p1.Serve(ctx, 83))
			if ok, err := p2.Connect(t.Context(), netip.AddrPortFrom(p1.Addr(v6), 83), 10*time.Second); !ok {
				t.Errorf("no connection through an ACL that logs: %v", err)
			}
			c := connect(t, "udp", p2, netip.AddrPortFrom(p1.Addr(v6), 84))
			_, err := c.Write([]byte("?"))
			l.Check(err)
			l.Check(c.Close())
			kind, src := "", fmt.Sprintf("nw_src=%v,nw_dst=%v", p2.Addr(v6), p1.Addr(v6))
			if v6 {
				kind, src = "6", fmt.Sprintf("ipv6_src=%v,ipv6_dst=%v", p2.Addr(v6), p1.Addr(v6))
			}
			allowed := []string{"<unnamed>", "verdict=allow", "severity=alert", "direction=to-lport", "tcp" + kind + ",vlan_tci=0x0000,", src, "tp_dst=83,tcp_flags=syn"}
			dropped := []string{"all", "verdict=drop", "severity=info", "direction=to-lport", "udp" + kind + ",vlan_tci=0x0000,", src, "tp_dst=84"}
			wantLogged(t, n1, allowed...)
			wantLogged(t, n1, dropped...)
		})
	}
}

// A connection that has been allowed ends when an ACL begins to reject it: the reset has a sequence number that its ends believe. That of ovn-controller 23.03
// is 0, so that they wait on.
func TestRejectEstablished(t *testing.T) {
	want, wait := error(unix.ECONNRESET), 10*time.Second
	if agent(t) != lab.Offloadd {
		want, wait = os.ErrDeadlineExceeded, 3*time.Second
	}
	l := pair(t, lab.Options{})
	l.NB(`acl-add sw0 to-lport 1000 'outport == "p1" && ip' allow-related`)
	l.Sync()
	p1, p2 := l.Pod("p1"), l.Pod("p2")
	wantPing(t, p2, p1, 10*time.Second)
	var lis net.Listener
	l.Check(p1.Do(func() (err error) {
		lis, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "[::]:85")
		return err
	}))
	defer lis.Close()
	c := connect(t, "tcp", p2, netip.AddrPortFrom(p1.Addr(false), 85))
	defer c.Close()
	s, err := lis.Accept()
	l.Check(err)
	defer s.Close()
	_, err = c.Write([]byte("!"))
	l.Check(err)
	_, err = io.ReadFull(s, make([]byte, 1))
	l.Check(err)

	l.NB(`acl-add sw0 to-lport 1001 'outport == "p1" && tcp.dst == 85' reject`)
	l.Sync()
	_, err = c.Write([]byte("!"))
	l.Check(err)
	l.Check(c.SetReadDeadline(time.Now().Add(wait)))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
		t.Errorf("the connection ends with %v, want %v", err, want)
	}
}

// connect makes a connection from a pod within ten seconds.
func connect(t *testing.T, network string, from *lab.Pod, to netip.AddrPort) (c net.Conn) {
	t.Helper()
	err := from.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), network, to.String())
		return err
	})
	if err != nil {
		t.Fatalf("%s from %s to %v: %v", network, from.Name, to, err)
	}
	return c
}

// wantRefused fails the test unless what is sent to a port is refused, within a second: TCP would try again then.
func wantRefused(t *testing.T, network string, from *lab.Pod, to netip.AddrPort) {
	t.Helper()
	err := from.Do(func() error {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), network, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		if network == "tcp" {
			return errors.New("connected")
		}
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 1))
		return err
	})
	if network == "udp" && to.Addr().Is6() && errors.Is(err, unix.EACCES) || errors.Is(err, unix.ECONNREFUSED) {
		return
	}
	t.Errorf("%s from %s to %v: %v, want it refused", network, from.Name, to, err)
}

// wantLogged fails the test unless exactly one entry of the ACL log, of either agent, has all of the words, soon.
func wantLogged(t *testing.T, n *lab.Node, words ...string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		log, err := os.ReadFile(n.AgentLog())
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for line := range strings.Lines(string(log)) {
			entry := strings.Contains(line, `msg="acl log"`) || strings.Contains(line, "|acl_log(")
			if entry && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				found = append(found, line)
			}
		}
		if len(found) == 1 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%d entries of the log with %q, want one:\n%s", len(found), words, strings.Join(found, ""))
			return
		}
	}
}
