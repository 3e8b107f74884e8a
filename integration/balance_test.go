package integration

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
)

// balanced is two clients on n1, whose agent is under test, and behind a router a backend on n1 and one on n2, which
// has ovn-controller.
type balanced struct {
	*labtest.Lab
	clients, backends []*lab.Pod
}

func newBalanced(t *testing.T) balanced {
	l := labtest.Start(t, lab.Options{Nodes: []lab.NodeConfig{{Name: "n1", Agent: agent(t)}, {Name: "n2", Agent: lab.OVNController}}})
	b := balanced{Lab: l}
	script := `
		lr-add r0
		ls-add clients
		lrp-add r0 r0-clients 50:54:00:00:01:ff 10.1.0.1/24 fd10:1::1/64
		lsp-add clients clients-r0 -- lsp-set-type clients-r0 router -- lsp-set-addresses clients-r0 router -- lsp-set-options clients-r0 router-port=r0-clients
		ls-add backends
		lrp-add r0 r0-backends 50:54:00:00:02:ff 10.2.0.1/24 fd10:2::1/64
		lsp-add backends backends-r0 -- lsp-set-type backends-r0 router -- lsp-set-addresses backends-r0 router -- lsp-set-options backends-r0 router-port=r0-backends
	`
	for net, sw := range []string{"clients", "backends"} {
		for i := 1; i <= 2; i++ {
			node := "n1"
			if sw == "backends" && i == 2 {
				node = "n2"
			}
			c := lab.PodConfig{
				Name: fmt.Sprintf("%s%d", sw[:1], i), MAC: fmt.Sprintf("50:54:00:00:0%d:0%d", net+1, i),
				IPs: []netip.Prefix{
					netip.MustParsePrefix(fmt.Sprintf("10.%d.0.1%d/24", net+1, i)), netip.MustParsePrefix(fmt.Sprintf("fd10:%d::1%d/64", net+1, i)),
				},
				Gateways: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", net+1)), netip.MustParseAddr(fmt.Sprintf("fd10:%d::1", net+1))},
			}
			script += fmt.Sprintf("lsp-add %s %s -- lsp-set-addresses %s '%s %s %s'\n", sw, c.Name, c.Name, c.MAC, c.IPs[0].Addr(), c.IPs[1].Addr())
			pod := l.AddPod(node, c)
			if sw == "clients" {
				b.clients = append(b.clients, pod)
			} else {
				b.backends = append(b.backends, pod)
			}
		}
	}
	l.NB(script)
	l.WaitInstalled(append(b.clients, b.backends...)...)
	l.Sync()
	return b
}

// wantBalanced fails the test unless connections of the first client to dst are all established, and n1 has chosen every
// bucket of a group whose buckets look like that for some of them.
func (b balanced) wantBalanced(t *testing.T, dst, bucket string) {
	t.Helper()
	b.Lab = b.In(t)
	const connections = 32
	for range connections {
		ok, err := b.clients[0].Connect(t.Context(), netip.MustParseAddrPort(dst), 5*time.Second)
		if err != nil || !ok {
			t.Fatalf("%s: connected %v, %v", dst, ok, err)
		}
	}
	id := ""
	groups, err := b.Node("n1").OFctl(t.Context(), "dump-groups", "br-int")
	b.Check(err)
	for line := range strings.Lines(groups) {
		if m := regexp.MustCompile(`group_id=(\d+),type=select`).FindStringSubmatch(line); m != nil && regexp.MustCompile(bucket).MatchString(line) {
			id = m[1]
		}
	}
	if id == "" {
		t.Fatalf("%s: no group with %q:\n%s", dst, bucket, groups)
	}
	// Open vSwitch brings counters up to date within a second.
	b.Eventually(10*time.Second, "packets for every bucket of the group of "+dst, func() bool {
		stats, err := b.Node("n1").OFctl(t.Context(), "dump-group-stats", "br-int", "group_id="+id)
		b.Check(err)
		counts := regexp.MustCompile(`bucket\d+:packet_count=(\d+)`).FindAllStringSubmatch(stats, -1)
		if len(counts) != len(b.backends) {
			t.Fatalf("%s: group statistics %q", dst, stats)
		}
		for _, c := range counts {
			if c[1] == "0" {
				return false
			}
		}
		return true
	})
}

// Connections are shared out to the backends of a load balancer and to the next hops of a route, and all of them work,
// over every change of the groups behind them.
func TestBalancing(t *testing.T) {
	b := newBalanced(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for _, pod := range b.backends {
		b.Check(pod.Serve(ctx, 8080))
		_, err := pod.Exec(ctx, "ip", "addr", "add", "10.99.0.1/32", "dev", "lo")
		b.Check(err)
	}
	b.NB(`
		lb-add lb4 10.9.0.1:80 10.2.0.11:8080,10.2.0.12:8080 tcp
		lb-add lb6 [fd09::1]:80 [fd10:2::11]:8080,[fd10:2::12]:8080 tcp
		set load_balancer lb6 selection_fields=ip_src,tp_src
		ls-lb-add clients lb4
		ls-lb-add clients lb6
		--ecmp lr-route-add r0 10.99.0.0/24 10.2.0.11
		--ecmp lr-route-add r0 10.99.0.0/24 10.2.0.12
	`)
	b.Sync()
	t.Run("load balancer", func(t *testing.T) { b.wantBalanced(t, "10.9.0.1:80", `dp_hash.*dst=10\.2\.0\.11:8080`) })
	t.Run("load balancer, IPv6, by fields", func(t *testing.T) { b.wantBalanced(t, "[fd09::1]:80", `=hash.*fd10:2::11`) })
	t.Run("next hops", func(t *testing.T) { b.wantBalanced(t, "10.99.0.1:8080", `->xreg4,resubmit`) })
	t.Run("changes", func(t *testing.T) {
		b.Lab = b.In(t)
		for i := range 5 {
			// Another group in the place of one in use. Open vSwitch may lose a packet that is between two
			// recirculations, whoever changes the flows; then it takes a retransmission to connect.
			b.NB(fmt.Sprintf("--may-exist lb-add lb4 10.9.0.1:80 10.2.0.1%d:8080 tcp", 1+i%2))
			for range 5 {
				if ok, err := b.clients[0].Connect(ctx, netip.MustParseAddrPort("10.9.0.1:80"), 5*time.Second); err != nil || !ok {
					t.Fatalf("change %d: connected %v, %v", i, ok, err)
				}
			}
		}
		b.NB("--all destroy load_balancer")
		b.NB("lr-route-del r0")
		b.Sync()
		b.Eventually(10*time.Second, "no group", func() bool {
			groups, err := b.Node("n1").OFctl(t.Context(), "dump-groups", "br-int")
			b.Check(err)
			return !strings.Contains(groups, "group_id")
		})
		if ok, err := b.clients[0].Connect(ctx, netip.MustParseAddrPort("10.9.0.1:80"), time.Second/2); err != nil || ok {
			t.Errorf("without the load balancer: connected %v, %v", ok, err)
		}
	})
}

// A port whose rate is limited loses what exceeds it, and no other does.
func TestRateLimit(t *testing.T) {
	b := newBalanced(t)
	b.NB(`qos-add clients from-lport 100 'inport == "c2"' rate=8 burst=8`)
	b.Sync()
	const pings = 200
	for i, limited := range []bool{false, true} {
		s, err := b.clients[i].PingN(t.Context(), b.backends[0].Addr(false), pings, 2*time.Millisecond, time.Second)
		b.Check(err)
		if limited && (s.Received == 0 || s.Received > pings*3/4) || !limited && s.Received < pings*9/10 {
			t.Errorf("%s, limited %v: %d of %d answered", b.clients[i].Name, limited, s.Received, pings)
		}
		t.Logf("%s, limited %v: %d of %d answered", b.clients[i].Name, limited, s.Received, pings)
	}
	b.NB("qos-del clients")
	b.Sync()
	if s, err := b.clients[1].PingN(t.Context(), b.backends[0].Addr(false), pings, 2*time.Millisecond, time.Second); err != nil || s.Received < pings*9/10 {
		t.Errorf("after the limit: %d of %d answered, %v", s.Received, pings, err)
	}
	meters, err := b.Node("n1").OFctl(t.Context(), "dump-meters", "br-int")
	b.Check(err)
	if strings.Contains(meters, "meter=") {
		t.Errorf("a meter is left: %s", meters)
	}
}
