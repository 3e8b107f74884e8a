package offload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/specialize"
)

// packets is how many a case of TestPunts sends.
const packets = 5

// What filters cannot do, or should not, is left to Open vSwitch, for the reason that the documentation gives, and works there: also
// what Open vSwitch hands to the agent to be logged or answered.
func TestPunts(t *testing.T) {
	r := rig(t)
	warm(t, r)
	pin(t, r)
	path := offloadctl(t)
	web1, web3, db1, db3 := r.Pod("web1"), r.Pod("web3"), r.Pod("db1"), r.Pod("db3")
	for _, tt := range []struct {
		name    string
		on, off string // in the Northbound database
		port    *lab.Pod
		reason  specialize.Reason // NoReason: no filter has the packets
		// traffic calls begin when it has what it needs, such as a connection: packets count from then on.
		traffic  func(ctx context.Context, begin func()) (answered int, err error)
		answered int

		// packet is one that `offloadctl explain` has to explain with the reason, where no filter of its own counts: all that
		// the port sends is left to Open vSwitch, and nothing is installed for that, or the end of a chain counts it with all that ends
		// there.
		packet string
	}{
		{
			name: "ECMP chooses by a select group",
			on:   "--ecmp lr-route-add r0 10.99.0.0/16 10.2.0.11\n--ecmp lr-route-add r0 10.99.0.0/16 10.2.0.13",
			off:  "lr-route-del r0 10.99.0.0/16",
			port: web1, reason: specialize.SelectGroup, answered: packets,
			traffic: func(ctx context.Context, begin func()) (int, error) {
				vip := netip.MustParseAddrPort("10.99.0.1:5353")
				return echoed(ctx, web1, vip, []*lab.Pod{db1, db3}, 100, begin)
			},
		},
		{
			name: "a load balancer translates",
			on:   "lb-add lb0 10.9.0.9:5432 10.2.0.11:5432,10.2.0.13:5432\nls-lb-add web lb0",
			off:  "ls-lb-del web lb0\nlb-del lb0",
			port: web1, reason: specialize.Translates, answered: packets,
			packet: fmt.Sprintf("eth.src == %s && eth.dst == 50:54:00:00:01:ff && ip4.src == %v && ip4.dst == 10.9.0.9 && tcp.src == 40000 && tcp.dst == 5432",
				web1.MAC, web1.Addr(false)),
			traffic: func(ctx context.Context, begin func()) (n int, err error) {
				for _, p := range []*lab.Pod{db1, db3} {
					if err := p.Serve(ctx, 5432); err != nil {
						return 0, err
					}
				}
				begin()
				for range packets {
					if ok, err := web1.Connect(ctx, netip.MustParseAddrPort("10.9.0.9:5432"), lab.Patient(5*time.Second)); err != nil {
						return n, err
					} else if ok {
						n++
					}
				}
				return n, nil
			},
		},
		{
			name: "a router asks for the size",
			on:   sizeAsked,
			off:  "remove logical_router_port r0-db options gateway_mtu",
			port: web1, reason: specialize.PacketSize, answered: packets,
			traffic: func(ctx context.Context, begin func()) (int, error) {
				return echoed(ctx, web1, netip.AddrPortFrom(db1.Addr(false), UDPPort), []*lab.Pod{db1}, 100, begin)
			},
		},
		{
			name: "a packet that is too long for the router",
			on:   sizeAsked,
			off:  "remove logical_router_port r0-db options gateway_mtu",
			port: web1, reason: specialize.PacketSize, answered: 1,
			traffic: func(ctx context.Context, begin func()) (int, error) {
				got, err := pathMTU(ctx, web1, db1, routerMTU+50, begin)
				if err != nil || got != routerMTU {
					return 0, errors.Join(err, fmt.Errorf("the sender takes %d for the path's MTU, want %d", got, routerMTU))
				}
				return 1, nil
			},
		},
		{
			name: "fragments",
			port: web1, reason: specialize.Fragments, answered: packets,
			traffic: func(ctx context.Context, begin func()) (int, error) {
				return echoed(ctx, web1, netip.AddrPortFrom(db1.Addr(false), UDPPort), []*lab.Pod{db1}, 3000, begin)
			},
		},
		{
			name: "ICMP errors",
			port: db1, reason: specialize.ICMPErrors, answered: packets,
			traffic: func(ctx context.Context, begin func()) (n int, err error) {
				begin()
				for range packets { // nobody listens, and db1 says so
					if err := refused(ctx, web1, netip.AddrPortFrom(db1.Addr(false), UDPPort)); err != nil {
						return n, err
					}
					n++
				}
				return n, nil
			},
		},
		{
			name: "multicast",
			port: web1, reason: specialize.Multicast, answered: packets,
			traffic: func(ctx context.Context, begin func()) (int, error) {
				begin()
				return arrivals(t, []*lab.Pod{web3}, func() error {
					return sendUDP(ctx, web1, netip.MustParseAddrPort("224.0.0.251:5353"), packets, 100)
				})
			},
		},
		{
			name: "ARP",
			port: db1, reason: specialize.NoReason, answered: 1,
			traffic: func(ctx context.Context, begin func()) (int, error) {
				begin()
				if err := forget(db1, db3.Addr(false)); err != nil {
					return 0, err
				}
				ok, err := db1.Ping(ctx, db3.Addr(false), lab.Patient(2*time.Second))
				if !ok {
					return 0, err
				}
				return 1, err
			},
		},
		{
			name: "a TTL that ends",
			port: web1, reason: specialize.ShortTTL, answered: packets,
			traffic: func(ctx context.Context, begin func()) (int, error) {
				begin()
				out, err := web1.Exec(ctx, "ping", "-n", "-c", fmt.Sprint(packets), "-i", "0.1", "-W", "1", "-t", "1", db1.Addr(false).String())
				if err == nil {
					return 0, fmt.Errorf("a ping whose TTL is 1 is answered from behind a router:\n%s", out)
				}
				return strings.Count(out+err.Error(), "Time to live exceeded"), nil
			},
		},
		{
			name: "an ACL that rejects",
			on:   `acl-add pg_db to-lport 1003 'outport == @pg_db && ip4.src == $pg_web_ip4 && tcp.dst == 5433' reject`,
			off:  `acl-del pg_db to-lport 1003 'outport == @pg_db && ip4.src == $pg_web_ip4 && tcp.dst == 5433'`,
			port: web1, reason: specialize.NewConnection, answered: packets, // a connection that is refused is always new
			traffic: func(ctx context.Context, begin func()) (n int, err error) {
				begin()
				for range packets {
					if err := refusedTCP(ctx, web1, netip.AddrPortFrom(db1.Addr(false), 5433)); err != nil {
						return n, err
					}
					n++
				}
				return n, nil
			},
		},
		{
			name: "an ACL that logs",
			on:   `--log --name=knock --severity=notice acl-add pg_db to-lport 1003 'outport == @pg_db && ip4.src == $pg_web_ip4 && udp.dst == 5354' allow-related`,
			off:  `acl-del pg_db to-lport 1003 'outport == @pg_db && ip4.src == $pg_web_ip4 && udp.dst == 5354'`,
			port: web1, reason: specialize.PacketIn, answered: packets,
			packet: fmt.Sprintf("eth.src == %s && eth.dst == 50:54:00:00:01:ff && ip4.src == %v && ip4.dst == %v && udp.src == 40000 && udp.dst == 5354",
				web1.MAC, web1.Addr(false), db1.Addr(false)),
			traffic: func(ctx context.Context, begin func()) (int, error) {
				to := netip.AddrPortFrom(db1.Addr(false), 5354)
				n, err := echoed(ctx, web1, to, []*lab.Pod{db1}, 100, begin)
				if err != nil {
					return n, err
				}
				// Each of them, and the one that was there before.
				return n, logged(ctx, db1.Node, packets+1, `msg="acl log" name=knock verdict=allow severity=notice direction=to-lport flow="udp,vlan_tci=0x0000,`,
					fmt.Sprintf("nw_src=%v,nw_dst=%v,", web1.Addr(false), to.Addr()), ",tp_dst=5354\"")
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.on != "" {
				_, err := r.NB(t.Context(), "--wait=hv "+tt.on)
				check(t, err)
				defer func() {
					_, err := r.NB(context.Background(), "--wait=hv "+tt.off)
					check(t, err)
				}()
			}
			c := ctl{t, path, tt.port.Node}
			ctx, cancel := context.WithTimeout(t.Context(), lab.Patient(patience))
			defer cancel()
			var before map[string]uint64
			var seen map[string]Counts
			answered, err := tt.traffic(ctx, func() { before, seen = punts(t, c, tt.port), count(t, r) })
			check(t, err)
			after := punts(t, c, tt.port)
			ovs := since(t, r, seen)[tt.port.Node.Name].OVS[tt.port.Iface()]
			why := map[string]uint64{}
			for reason, n := range after {
				if n > before[reason] {
					why[reason] = n - before[reason]
				}
			}
			t.Logf("%d of %d arrived or were answered; Open vSwitch saw %d packets of %s, left to it by filters: %v", answered, packets, ovs, tt.port.Name, why)
			least := uint64(max(1, min(tt.answered, packets)))
			if answered != tt.answered {
				t.Errorf("%d arrived or were answered, want %d", answered, tt.answered)
			}
			if ovs < least {
				t.Errorf("Open vSwitch saw %d packets, want at least %d", ovs, least)
			}
			if tt.packet != "" {
				if out, _ := c.run("explain", tt.port.Name, tt.packet); !strings.Contains(out, "\n"+tt.reason.String()+"\n") {
					t.Errorf("offloadctl explain does not say %v of the packet %s:\n%s", tt.reason, tt.packet, out)
				}
			} else if n := why[tt.reason.String()]; tt.reason != specialize.NoReason && n < least {
				t.Errorf("filters left %d packets to Open vSwitch because of %v, want at least %d: %v", n, tt.reason, least, why)
			}
		})
	}
}

// punts returns how many packets of a pod have been left to Open vSwitch, by reason.
func punts(t *testing.T, c ctl, p *lab.Pod) map[string]uint64 {
	t.Helper()
	out, code := c.run("explain", p.Name, "-o", "json")
	if code != 0 {
		t.Fatalf("offloadctl explain %s: exit code %d\n%s", p.Name, code, out)
	}
	var answer struct {
		Punts []struct {
			Reason   string
			Counters struct {
				Packets uint64 `json:",string"`
			}
		}
	}
	check(t, json.Unmarshal([]byte(out), &answer))
	all := map[string]uint64{}
	for _, p := range answer.Punts {
		all[p.Reason] += p.Counters.Packets
	}
	return all
}

// arrivals counts the UDP packets that arrive at pods while traffic runs, and a moment longer.
func arrivals(t *testing.T, pods []*lab.Pod, traffic func() error) (n int, err error) {
	t.Helper()
	var recorders []*recorder
	for _, p := range pods {
		recorders = append(recorders, record(t, p))
	}
	err = traffic()
	time.Sleep(lab.Patient(200 * time.Millisecond))
	for _, r := range recorders {
		r.stop(t)
		for _, s := range r.read() {
			if !s.out && s.proto == protoUDP {
				n++
			}
		}
	}
	return n, err
}

func dialUDP(ctx context.Context, from *lab.Pod, to netip.AddrPort) (c net.Conn, err error) {
	err = from.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "udp", to.String())
		return err
	})
	return c, err
}

// sendUDP sends count datagrams of a size, slowly.
func sendUDP(ctx context.Context, from *lab.Pod, to netip.AddrPort, count, size int) error {
	c, err := dialUDP(ctx, from, to)
	if err != nil {
		return err
	}
	defer c.Close()
	for range count {
		_, _ = c.Write(make([]byte, size)) // what is lost is counted elsewhere
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// echoed sends some datagrams of a size to an address that pods send them back from, and returns how many came back. Before
// that one more has come back, so that the connection is established when begin is called.
func echoed(ctx context.Context, from *lab.Pod, to netip.AddrPort, servers []*lab.Pod, size int, begin func()) (n int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, p := range servers {
		if err := echoAt(ctx, p, to); err != nil {
			return 0, err
		}
	}
	c, err := dialUDP(ctx, from, to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	buf := make([]byte, size)
	echo := func() (bool, error) {
		if _, err := c.Write(buf); err != nil {
			return false, err
		}
		if err := c.SetReadDeadline(time.Now().Add(lab.Patient(time.Second))); err != nil {
			return false, err
		}
		m, err := c.Read(buf)
		return err == nil && m == size, nil
	}
	if ok, err := echo(); !ok {
		return 0, errors.Join(fmt.Errorf("no answer from %v to the first datagram", to), err)
	}
	begin()
	for range packets {
		ok, err := echo()
		if err != nil {
			return n, err
		}
		if ok {
			n++
		}
	}
	return n, nil
}

// routerMTU is less than the MTU of the pods.
const routerMTU = 1300

var sizeAsked = fmt.Sprintf("set logical_router_port r0-db options:gateway_mtu=%d", routerMTU)

// pathMTU sends a datagram of a size to a pod, through a connection that is established before begin is called, and returns what
// the sender takes for the path's MTU as soon as that is less than the size.
func pathMTU(ctx context.Context, from, to *lab.Pod, size int, begin func()) (mtu int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	at := netip.AddrPortFrom(to.Addr(false), UDPPort)
	if err := echoAt(ctx, to, at); err != nil {
		return 0, err
	}
	c, err := dialUDP(ctx, from, at)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer func() { // what has been learned holds for ten minutes otherwise
		_, e := from.Exec(context.WithoutCancel(ctx), "ip", "route", "flush", "cache")
		err = errors.Join(err, e)
	}()
	if _, err := c.Write([]byte("?")); err != nil {
		return 0, err
	}
	if err := c.SetReadDeadline(time.Now().Add(lab.Patient(time.Second))); err != nil {
		return 0, err
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return 0, err
	}
	begin()
	if _, err := c.Write(make([]byte, size)); err != nil {
		return 0, err
	}
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	for end := time.Now().Add(lab.Patient(2 * time.Second)); ; time.Sleep(10 * time.Millisecond) {
		e := raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU) })
		if err = errors.Join(err, e); err != nil || mtu < size || time.Now().After(end) {
			return mtu, err
		}
	}
}

// refusedTCP returns nil if a connection is refused, and not only in vain.
func refusedTCP(ctx context.Context, from *lab.Pod, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, lab.Patient(2*time.Second))
	defer cancel()
	err := from.Do(func() error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
		if err == nil {
			_ = c.Close()
			return fmt.Errorf("%v answers", to)
		}
		return err
	})
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return err
}

// logged waits until a node's agent has logged count lines with all of the texts.
func logged(ctx context.Context, n *lab.Node, count int, texts ...string) error {
	for end := time.Now().Add(lab.Patient(2 * time.Second)); ; time.Sleep(10 * time.Millisecond) {
		log, err := os.ReadFile(n.AgentLog())
		if err != nil {
			return err
		}
		lines := 0
		for line := range strings.Lines(string(log)) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				lines++
			}
		}
		switch {
		case lines == count:
			return nil
		case time.Now().After(end) || ctx.Err() != nil:
			return fmt.Errorf("%s has logged %d lines, want %d, with %q", n.Name, lines, count, texts)
		}
	}
}

// echoAt answers datagrams to an address with themselves, until ctx ends. The pod need not have the address.
func echoAt(ctx context.Context, pod *lab.Pod, at netip.AddrPort) error {
	if at.Addr() != pod.Addr(at.Addr().Is6()) {
		local := at.Addr().String() + "/32"
		if _, err := pod.Exec(ctx, "ip", "address", "add", local, "dev", "lo"); err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _, _ = pod.Exec(context.Background(), "ip", "address", "del", local, "dev", "lo") })
	}
	var c net.PacketConn
	err := pod.Do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(ctx, "udp", at.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("pod %s: listen: %w", pod.Name, err)
	}
	context.AfterFunc(ctx, func() { _ = c.Close() })
	go func() { // ends with ctx
		buf := make([]byte, 1<<16)
		for {
			n, peer, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], peer)
		}
	}()
	return nil
}

// refused returns nil if a datagram is answered by an ICMP error.
func refused(ctx context.Context, from *lab.Pod, to netip.AddrPort) error {
	c, err := dialUDP(ctx, from, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("?")); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(lab.Patient(2 * time.Second))); err != nil {
		return err
	}
	switch _, err := c.Read(make([]byte, 1)); {
	case err == nil:
		return fmt.Errorf("%v answers", to)
	case errors.Is(err, unix.ECONNREFUSED):
		return nil
	default:
		return err
	}
}

// forget makes a pod forget a neighbour.
func forget(p *lab.Pod, ip netip.Addr) error {
	return eth0(p, func(h *netlink.Handle, link netlink.Link) error {
		return h.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: ip.AsSlice()})
	})
}
