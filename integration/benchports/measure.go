package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// config is the pod with a number.
func config(i int) lab.PodConfig {
	return lab.PodConfig{
		Name: fmt.Sprintf("b%d", i), MAC: fmt.Sprintf("50:54:00:02:%02x:%02x", i/256, i%256),
		IPs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/16", 1+i/200, 1+i%200))},
	}
}

// Rows of the report that are not a plugin's.
const (
	daemonRow = "CreatePort in the daemon"
	placeRow  = "kernel: veth made in place"
	moveRow   = "kernel: veth made, then moved"
)

// timeline adds the daemon's own times of the pod's creation.
func (b *bench) timeline(ctx context.Context, lport string) (err error) {
	conn, err := client.Dial(attach.Socket(b.node))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	list, err := offloadv1.NewPortServiceClient(conn).ListPorts(ctx, &offloadv1.ListPortsRequest{Filter: &offloadv1.PortFilter{LogicalPort: lport}})
	if err != nil {
		return err
	}
	if len(list.GetPorts()) != 1 {
		return fmt.Errorf("%d ports of %s, want one", len(list.GetPorts()), lport)
	}
	st := list.GetPorts()[0].GetStatus()
	var end time.Time
	for _, s := range st.GetTimeline() {
		b.took(s.GetName(), s.GetDuration().AsDuration())
		if !slices.Contains(b.steps, s.GetName()) {
			b.steps = append(b.steps, s.GetName())
		}
		end = s.GetStarted().AsTime().Add(s.GetDuration().AsDuration())
	}
	b.took(daemonRow, end.Sub(st.GetCreated().AsTime()))
	return nil
}

// kernel gives a pod an interface with nothing but the kernel: a veth pair, an address, both ends up. In one way the pair is
// made with one end in the pod, in the other that end is moved there, as plugins often do.
func (b *bench) kernel(pod *lab.Pod) (err error) {
	host, inHost, err := open(b.node.Netns())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inHost.Close(), host.Close()) }()
	space, inPod, err := open(pod.Netns())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inPod.Close(), space.Close()) }()
	for _, row := range []string{placeRow, moveRow} {
		v := netlink.NewVeth(netlink.NewLinkAttrs())
		v.Name, v.PeerName = "bench1", "eth0"
		begin := time.Now()
		if row == placeRow {
			v.PeerNamespace = netlink.NsFd(space)
		}
		if err := inHost.LinkAdd(v); err != nil {
			return fmt.Errorf("link add: %w", err)
		}
		if row == moveRow {
			peer, err := inHost.LinkByName("eth0")
			if err == nil {
				err = inHost.LinkSetNsFd(peer, int(space))
			}
			if err != nil {
				return fmt.Errorf("link move: %w", err)
			}
		}
		peer, err := inPod.LinkByName("eth0")
		if err != nil {
			return fmt.Errorf("link: %w", err)
		}
		address, err := netlink.ParseAddr(pod.IPs[0].String())
		if err != nil {
			return err
		}
		if err := errors.Join(inPod.AddrAdd(peer, address), inPod.LinkSetUp(peer), inHost.LinkSetUp(v)); err != nil {
			return fmt.Errorf("link configure: %w", err)
		}
		b.took(row, time.Since(begin))
		if err := inHost.LinkDel(v); err != nil {
			return fmt.Errorf("link del: %w", err)
		}
	}
	return nil
}

func open(name string) (netns.NsHandle, *netlink.Handle, error) {
	ns, err := netns.GetFromName(name)
	if err != nil {
		return ns, nil, fmt.Errorf("netns %s: %w", name, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return ns, nil, errors.Join(fmt.Errorf("netns %s: %w", name, err), ns.Close())
	}
	return ns, h, nil
}
