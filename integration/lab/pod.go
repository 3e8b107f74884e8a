package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
)

// A PodConfig describes a workload.
type PodConfig struct {
	// Name is the logical switch port's name too (external_ids:iface-id).
	Name string

	MAC string // for example 50:54:00:00:00:01

	// IPs are the pod's addresses with the length of their subnets.
	IPs []netip.Prefix

	// Gateways are the default routes, one per family at most.
	Gateways []netip.Addr

	// MTU defaults to 1400, which fits into any tunnel of the underlay.
	MTU int

	// Bare leaves the pod without an interface: something else makes eth0, and plugs it in.
	Bare bool

	// HostIface is the pod's interface on the node, where something else makes it: a representor. By default it is v-NAME.
	HostIface string
}

// A Pod is a namespace whose eth0 is a port of a node's br-int.
type Pod struct {
	PodConfig

	// Node is where the pod runs.
	Node *Node

	space   *space
	plugged time.Time
}

// AddPod makes a pod and plugs it into the node's br-int. It does not wait for the agent (see
// WaitInstalled), nor does it touch the Northbound database.
func (n *Node) AddPod(ctx context.Context, c PodConfig) (*Pod, error) {
	p := &Pod{PodConfig: c, Node: n}
	if err := p.create(ctx); err != nil {
		return nil, fmt.Errorf("pod %s: %w", c.Name, err)
	}
	if !c.Bare {
		if err := p.Plug(ctx); err != nil {
			return nil, fmt.Errorf("pod %s: %w", c.Name, err)
		}
	}
	n.lab.mu.Lock()
	n.lab.pods = append(n.lab.pods, p)
	n.lab.mu.Unlock()
	return p, nil
}

// Iface is the pod's interface on the node.
func (p *Pod) Iface() string { return cmp.Or(p.HostIface, "v-"+p.Name) }

// Netns is the name of the pod's network namespace, as ip-netns(8) knows it.
func (p *Pod) Netns() string { return p.space.name }

// Addr returns the pod's first address of the family; it panics if there is none.
func (p *Pod) Addr(v6 bool) netip.Addr {
	for _, ip := range p.IPs {
		if ip.Addr().Is6() == v6 {
			return ip.Addr()
		}
	}
	panic("lab: pod " + p.Name + " lacks an address")
}

func (p *Pod) create(ctx context.Context) error {
	if !validName(p.Name) || len(p.Iface()) > 15 {
		return errors.New("name: want up to 13 letters, digits and dashes")
	}
	mac, err := net.ParseMAC(p.MAC)
	if err != nil {
		return err
	}
	if p.space, err = newSpace(p.Node.lab.Name + "-" + p.Name); err != nil || p.Bare {
		return err
	}
	if err := p.space.veth("eth0", mac, p.Node.space, p.Iface()); err != nil {
		return err
	}
	mtu := p.MTU
	if mtu == 0 {
		mtu = 1400
	}
	err = p.space.links(func(h *netlink.Handle) error {
		var addrs []string
		for _, ip := range p.IPs {
			addrs = append(addrs, ip.String())
		}
		if err := configure(h, "eth0", addrs...); err != nil {
			return err
		}
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := h.LinkSetMTU(link, mtu); err != nil {
			return err
		}
		for _, gw := range p.Gateways {
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()}
			if err := h.RouteReplace(route); err != nil {
				return fmt.Errorf("route via %s: %w", gw, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if p.Node.lab.opts.Datapath != Netdev {
		return nil
	}
	// The userspace datapath takes packets off the wire as they are: it wants real checksums and no
	// segments larger than the MTU.
	_, err = p.Exec(ctx, "ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off")
	return err
}

// Plug adds the pod's interface to br-int with its iface-id.
func (p *Pod) Plug(ctx context.Context) error {
	p.plugged = time.Now()
	_, err := p.Node.VSctl(ctx, "--no-wait", "add-port", "br-int", p.Iface(),
		"--", "set", "interface", p.Iface(), "external_ids:iface-id="+p.Name)
	return err
}

// Unplug takes the pod's interface out of br-int; the pod and its end of the link stay.
func (p *Pod) Unplug(ctx context.Context) error {
	_, err := p.Node.VSctl(ctx, "--no-wait", "--if-exists", "del-port", "br-int", p.Iface())
	return err
}

// WaitInstalled waits for the agent to set external_ids:ovn-installed on the pod's interface and
// returns how long that took since Plug. The time includes running ovs-vsctl twice, some milliseconds.
func (p *Pod) WaitInstalled(ctx context.Context) (time.Duration, error) {
	_, err := p.Node.VSctl(ctx, "wait-until", "interface", p.Iface(), "external_ids:ovn-installed=true")
	if err != nil {
		return 0, fmt.Errorf("pod %s: no ovn-installed: %w", p.Name, err)
	}
	return time.Since(p.plugged), nil
}

// Exec runs a program in the pod.
func (p *Pod) Exec(ctx context.Context, argv ...string) (string, error) {
	return command{in: p.space, argv: argv}.run(ctx)
}

// Do calls f inside the pod's namespace, on a thread of its own: sockets that f itself opens are the pod's.
func (p *Pod) Do(f func() error) error { return p.space.run(f) }

// Ping sends one echo request and reports whether it was answered within the time.
func (p *Pod) Ping(ctx context.Context, dst netip.Addr, within time.Duration) (bool, error) {
	s, err := p.PingN(ctx, dst, 1, time.Second, within)
	return s.Received > 0, err
}

// PingStats is the outcome of a series of echo requests.
type PingStats struct {
	Sent, Received, Duplicates int

	// Missing are the requests without an answer, numbered from 1 in the order of sending.
	Missing []int
}

// Lost is Missing without those at the end: ping(8) waits for the last answers as long as linger says only if it has had none at all, and
// otherwise for two of the longest round trips until then. If none was answered all are lost.
func (s PingStats) Lost() []int {
	if s.Received == 0 {
		return s.Missing
	}
	n := len(s.Missing)
	for last := s.Sent; n > 0 && s.Missing[n-1] == last; last-- {
		n--
	}
	return s.Missing[:n]
}

// PingN sends count echo requests, at most 65535, at an interval, waits for the last answers as long as linger
// says, and counts. That answers are missing is no error.
func (p *Pod) PingN(ctx context.Context, dst netip.Addr, count int, interval, linger time.Duration) (PingStats, error) {
	// On a busy machine ping keeps the interval badly, even when it goes before others.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Duration(count)*interval+linger+10*time.Second)
	defer cancel()
	seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
	out, err := p.Exec(ctx, "nice", "-n", "-20", "ping", "-n", "-c", strconv.Itoa(count), "-i", seconds(interval), "-W", seconds(linger), dst.String())
	m := pingSummary.FindStringSubmatch(out)
	if m == nil { // no summary: ping did not even start
		return PingStats{}, fmt.Errorf("pod %s: ping %s: no summary in %q: %w", p.Name, dst, out, err)
	}
	var s PingStats
	for i, dst := range []*int{&s.Sent, &s.Received, &s.Duplicates} {
		if m[i+1] != "" {
			if *dst, err = strconv.Atoi(m[i+1]); err != nil {
				return PingStats{}, fmt.Errorf("pod %s: ping: %w", p.Name, err)
			}
		}
	}
	answered := map[string]bool{}
	for _, m := range pingAnswer.FindAllStringSubmatch(out, -1) {
		answered[m[1]] = true
	}
	for seq := 1; seq <= s.Sent; seq++ {
		if !answered[strconv.Itoa(seq)] {
			s.Missing = append(s.Missing, seq)
		}
	}
	return s, nil
}

var (
	pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received(?:, \+(\d+) duplicates)?`)
	pingAnswer  = regexp.MustCompile(`bytes from .* icmp_seq=(\d+) ttl`)
)

// Serve accepts TCP connections on a port in the pod, for both families, and closes them, until ctx ends.
func (p *Pod) Serve(ctx context.Context, port uint16) error {
	var lis net.Listener
	err := p.Do(func() (err error) {
		lis, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("[::]:%d", port))
		return err
	})
	if err != nil {
		return fmt.Errorf("pod %s: listen: %w", p.Name, err)
	}
	context.AfterFunc(ctx, func() { _ = lis.Close() })
	go func() { // ends with ctx
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	return nil
}

// Connect reports whether a TCP connection to dst is established within the time. Being refused counts as
// not connected.
func (p *Pod) Connect(ctx context.Context, dst netip.AddrPort, within time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	connected := false
	err := p.Do(func() error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", dst.String())
		if err != nil {
			return nil //nolint:nilerr // the answer is no
		}
		connected = true
		return c.Close()
	})
	return connected, err
}

// Remove unplugs the pod and deletes its namespace.
func (p *Pod) Remove(ctx context.Context) error {
	p.Node.lab.mu.Lock()
	p.Node.lab.pods = slices.DeleteFunc(p.Node.lab.pods, func(q *Pod) bool { return p == q })
	p.Node.lab.mu.Unlock()
	return errors.Join(p.Unplug(ctx), removeSpace(p.space.name), p.space.ns.Close())
}
