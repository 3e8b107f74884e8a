package path

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/offloadd/offloadd/internal/netnsdir"
)

// The namespaces of a path. A path has a number, so that its namespaces' names say which belong together.
const (
	pod1, pod2   = "pod1", "pod2"
	node1, node2 = "node1", "node2"

	overlay1, overlay2 = "overlay1", "overlay2" // of Docker's overlay, where its bridges are
)

// The devices of a path, the same in each: they are never in one namespace with another path's.
const (
	wireDevice   = "oprwire" // of a node: where its NIC would be
	podDevice    = "opreth"  // of a pod
	bridgeDevice = "oprbr"
	tunnelDevice = "oprtun"
)

// hostDevice is a node's end of the veth pair of a pod.
func hostDevice(pod string) string { return "opr" + pod }

// Addresses are of 198.18.0.0/15, which RFC 2544 gives to measurements. Namespaces keep those of different paths apart.
var (
	wire = [2]netip.Prefix{netip.MustParsePrefix("198.19.0.1/24"), netip.MustParsePrefix("198.19.0.2/24")}

	// flat are pods that see each other without a router, subnets those that do not, and gateways their routers.
	flat     = [2]netip.Prefix{netip.MustParsePrefix("198.18.0.1/24"), netip.MustParsePrefix("198.18.0.2/24")}
	subnets  = [2]netip.Prefix{netip.MustParsePrefix("198.18.1.2/24"), netip.MustParsePrefix("198.18.2.2/24")}
	gateways = [2]netip.Prefix{netip.MustParsePrefix("198.18.1.1/24"), netip.MustParsePrefix("198.18.2.1/24")}

	anywhere = netip.MustParsePrefix("0.0.0.0/0")
)

// A site is where one path is built.
type site struct {
	number int
	want   Want
	opts   Options
	path   Path

	spaces map[string]*space
	undo   []func() error // in the order of what was done
}

func newSite(number int, w Want, o Options) *site {
	return &site{number: number, want: w, opts: o, spaces: map[string]*space{}}
}

// build makes the path, sends packets through it, and reads its facts.
func (s *site) build(ctx context.Context) error {
	k, _ := find(s.want.Kind)
	if k.Function && s.opts.Functions == nil {
		return errNoFunctions
	}
	if err := k.build(ctx, s); err != nil {
		return err
	}
	if !s.path.Target.IsValid() {
		s.path.Target = s.path.Server.Addr
	}
	if err := s.prime(ctx); err != nil {
		return err
	}
	return s.readFacts()
}

// errNoFunctions is why there is no path of functions without Options.Functions.
var errNoFunctions = errors.New("functions of NICs are the daemon's: it has none, or this is not the daemon")

// close removes the path, in the opposite order. It may be called again.
func (s *site) close() error {
	var errs []error
	for _, f := range slices.Backward(s.undo) {
		errs = append(errs, f())
	}
	s.undo = nil
	return errors.Join(errs...)
}

// fact adds what only a kind's own builder knows.
func (s *site) fact(name, value string) {
	if s.path.Facts == nil {
		s.path.Facts = map[string]string{}
	}
	s.path.Facts[name] = value
}

func (s *site) name(role string) string { return fmt.Sprintf("opr%d-%s", s.number, role) }

// dir is a directory of the path's own, for one purpose.
func (s *site) dir(role string) string { return filepath.Join(s.opts.Dir, s.name(role)) }

// space makes a namespace of the path, which is removed with it.
func (s *site) space(role string) (*space, error) {
	sp, err := newSpace(s.name(role))
	s.undo = append(s.undo, func() error { return removeSpace(filepath.Join(netnsdir.Path, s.name(role))) })
	if err != nil {
		return nil, err
	}
	s.undo = append(s.undo, sp.release)
	s.spaces[role] = sp
	return sp, nil
}

// nodes makes two nodes that are joined by a wire.
func (s *site) nodes() (nodes [2]*space, err error) {
	for i, role := range []string{node1, node2} {
		if nodes[i], err = s.space(role); err != nil {
			return nodes, err
		}
	}
	if err := nodes[0].veth(wireDevice, nodes[1], wireDevice, s.want.mtu()); err != nil {
		return nodes, err
	}
	for i, n := range nodes {
		if err := n.up(wireDevice, wire[i]); err != nil {
			return nodes, err
		}
		if !s.want.wan() {
			continue
		}
		if err := n.wan(wireDevice, s.want); err != nil {
			return nodes, err
		}
	}
	return nodes, nil
}

// pod makes a pod that has a veth pair to its node, and an address.
func (s *site) pod(role string, node *space, addr netip.Prefix, mtu int) (*space, error) {
	pod, err := s.space(role)
	if err != nil {
		return nil, err
	}
	if err := node.veth(hostDevice(role), pod, podDevice, mtu); err != nil {
		return nil, err
	}
	return pod, pod.up(podDevice, addr)
}

// routedPods makes a pod on each node, with the node as its router: the gateway's address is on the node's end of the pair, or on a
// bridge with this end as its port. The nodes may be the same.
func (s *site) routedPods(nodes [2]*space, mtu int, bridged bool) error {
	for i, role := range []string{pod1, pod2} {
		node := nodes[i]
		pod, err := s.pod(role, node, subnets[i], mtu)
		if err != nil {
			return err
		}
		gatewayDevice := hostDevice(role)
		if bridged {
			if err := node.bridge(mtu, hostDevice(role)); err != nil {
				return err
			}
			gatewayDevice = bridgeDevice
		}
		if err := node.up(gatewayDevice, gateways[i]); err != nil {
			return err
		}
		if err := pod.route(anywhere, gateways[i].Addr(), podDevice); err != nil {
			return err
		}
		if err := node.forward(); err != nil {
			return err
		}
		s.setEnd(i, pod, subnets[i], podDevice)
	}
	if s.want.Rules == 0 {
		return nil
	}
	if err := nodes[0].policy(s.want.Rules); err != nil || nodes[0] == nodes[1] {
		return err
	}
	return nodes[1].policy(s.want.Rules)
}

// bridge makes a bridge with ports.
func (s *space) bridge(mtu int, ports ...string) error {
	if err := s.add(&netlink.Bridge{LinkAttrs: attrs(bridgeDevice, mtu)}); err != nil {
		return err
	}
	for _, p := range ports {
		if err := s.enslave(p, bridgeDevice); err != nil {
			return err
		}
	}
	return s.up(bridgeDevice)
}

// setEnd says where the client (0) or the server (1) runs.
func (s *site) setEnd(i int, sp *space, addr netip.Prefix, device string) {
	e := End{Netns: sp.path, Addr: addr.Addr(), Device: device}
	if i == 0 {
		s.path.Client = e
	} else {
		s.path.Server = e
	}
}

// end returns the namespace of an end.
func (s *site) end(e End) *space {
	for _, sp := range s.spaces {
		if sp.path == e.Netns {
			return sp
		}
	}
	panic("path: an end is in no namespace of its path")
}

// enough is how many datagrams have to come back before a path is ready: the first one resolves neighbours on its way there, and
// fills the tables of bridges and connections, and the others find them filled.
const enough = 3

// prime sends datagrams to the server until enough have come back.
func (s *site) prime(ctx context.Context) error { return s.exchange(ctx, enough) }

// exchange sends datagrams to the server, of one connection, until n have come back.
func (s *site) exchange(ctx context.Context, n int) error {
	var server, client *net.UDPConn
	err := s.end(s.path.Server).do(func() (err error) {
		server, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.path.Server.Addr, 0)))
		return err
	})
	if err != nil {
		return fmt.Errorf("first packet: %w", err)
	}
	defer server.Close() //nolint:errcheck // ends the echo
	go func() {          // ends when server is closed
		b := make([]byte, 64)
		for {
			n, from, err := server.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = server.WriteToUDPAddrPort(b[:n], from) // what is lost is sent again
			}
		}
	}()
	port := server.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	err = s.end(s.path.Client).do(func() (err error) {
		client, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.path.Target, port)))
		return err
	})
	if err != nil {
		return fmt.Errorf("first packet: %w", err)
	}
	defer client.Close() //nolint:errcheck // it has no state
	// A kernel answers ARP within a millisecond, and asks again after a second.
	wait := 300*time.Millisecond + 4*(s.want.Delay+s.want.Jitter)
	tries := 10 / ((1 - s.want.Loss) * (1 - s.want.Loss)) // ten of them would come back
	deadline := time.Now().Add(5*time.Second + time.Duration(tries*float64(wait)))
	came, last := 0, errors.New("nothing was sent")
	for seq := byte(0); came < n; seq++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("first packet from %s to %s: none came back: %w", s.path.Client.Addr, s.path.Target, last)
		}
		if err := echo(client, seq, wait); err == nil {
			came++
		} else if last = err; !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
			<-time.After(10 * time.Millisecond) // an ICMP error comes at once
		}
	}
	return nil
}

// echo sends a datagram and waits for it.
func echo(c *net.UDPConn, seq byte, wait time.Duration) error {
	if _, err := c.Write([]byte{seq}); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	b := make([]byte, 64)
	for {
		n, err := c.Read(b)
		if err != nil || n == 1 && b[0] == seq {
			return err
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
