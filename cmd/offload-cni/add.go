package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/ns"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// undoTime is how long undoing may take after the deadline has passed.
const undoTime = 5 * time.Second

// add makes the container's port. When it fails, nothing of it is left.
func add(ctx context.Context, r *request) error {
	// skel looks only afterwards.
	if own, err := ns.CheckNetNS(r.Netns); err != nil {
		return err
	} else if own {
		return reason.Errorf(reason.NetnsInvalid, "offload-cni CNI_NETNS %s: is the plugin's own", r.Netns)
	}
	spec, err := r.spec()
	if err != nil {
		return err
	}
	var allocated *current.Result
	if r.conf.IPAMType != "" {
		if allocated, err = r.allocate(ctx); err != nil {
			return err
		}
		if err := useAllocated(spec, allocated); err != nil {
			return all(err, r.releaseLate(ctx))
		}
	}
	port, err := r.create(ctx, spec)
	if err == nil {
		err = r.tellDevice(port.GetStatus())
		if err == nil {
			err = r.answer(port, allocated)
		}
		if err != nil { // the runtime will not know of the port
			err = all(err, r.deleteLate(ctx))
			r.forgetDevice()
		}
	}
	if err != nil && allocated != nil {
		err = all(err, r.releaseLate(ctx))
	}
	return err
}

func (r *request) create(ctx context.Context, spec *offloadv1.PortSpec) (port *offloadv1.Port, err error) {
	err = r.call(ctx, patience, func(ctx context.Context, conn *grpc.ClientConn) error {
		resp, err := offloadv1.NewPortServiceClient(conn).CreatePort(ctx, &offloadv1.CreatePortRequest{Spec: spec, RequestId: r.id})
		port = resp.GetPort()
		return err
	})
	return port, err
}

// spec is the port that the configuration and the environment ask for, without what a delegated plugin allocates.
func (r *request) spec() (*offloadv1.PortSpec, error) {
	a, err := parseArgs(r.Args)
	if err != nil {
		return nil, err
	}
	c := r.conf
	s := &offloadv1.PortSpec{
		Key:        r.key(),
		Netns:      filepath.Clean(r.Netns),
		IfaceIdVer: a.UID,
		Mac:        firstOf(c.RuntimeConfig.MAC, a.MAC, c.MAC),
		Addresses:  c.Addresses,
		Gateways:   c.Gateways,
		Mtu:        c.MTU,
		Labels:     map[string]string{},
	}
	if s.LogicalPort, err = logicalPort(c, a, r.ContainerID, r.IfName); err != nil {
		return nil, err
	}
	c.madeOf(s)
	switch c.Addressing {
	case "logical-port":
		s.Addressing = offloadv1.Addressing_ADDRESSING_LOGICAL_PORT
	case "static", "ipam":
		s.Addressing = offloadv1.Addressing_ADDRESSING_STATIC
	}
	if c.IPAMType == "" && len(c.RuntimeConfig.IPs) > 0 { // otherwise they are for that plugin
		s.Addresses = c.RuntimeConfig.IPs
	}
	for _, to := range c.Routes {
		s.Routes = append(s.Routes, &offloadv1.Route{Destination: to.Dst, Gateway: to.GW, Mtu: to.MTU, Advmss: to.AdvMSS, Metric: to.Priority})
	}
	if c.Wait == "plugged" {
		s.Wait = offloadv1.WaitFor_WAIT_FOR_PLUGGED
	}
	for label, v := range map[string]string{ // the container runtime interface's names
		"io.kubernetes.pod.namespace": a.Namespace,
		"io.kubernetes.pod.name":      a.Pod,
		"io.kubernetes.pod.uid":       a.UID,
	} {
		if v != "" {
			s.Labels[label] = v
		}
	}
	return s, nil
}

func firstOf(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

// answer prints the result. Interfaces, addresses and routes of plugins that ran before are passed on.
func (r *request) answer(port *offloadv1.Port, allocated *current.Result) error {
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion}
	if prev := r.conf.PrevResult; prev != nil {
		*result = *prev
	}
	st := port.GetStatus()
	container := len(result.Interfaces) + 1
	result.Interfaces = append(result.Interfaces,
		&current.Interface{Name: st.GetHostInterface(), Mtu: int(st.GetMtu())},
		&current.Interface{Name: r.IfName, Mac: st.GetMac(), Mtu: int(st.GetMtu()), Sandbox: r.Netns, PciID: st.GetFunction().GetDevice()})
	gateways := st.GetGateways()
	if allocated != nil {
		for _, ip := range allocated.IPs {
			if ip.Gateway != nil {
				gateways = append(gateways, ip.Gateway.String())
			}
		}
		result.DNS = allocated.DNS
	}
	for _, s := range st.GetAddresses() {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("offload-cni result: address: %w", err)
		}
		ip := &current.IPConfig{Interface: new(container), Address: ipNet(p)}
		for _, s := range gateways {
			if gw, err := netip.ParseAddr(s); err == nil && gw.Is4() == p.Addr().Is4() {
				ip.Gateway = gw.AsSlice()
			}
		}
		result.IPs = append(result.IPs, ip)
	}
	for _, s := range st.GetGateways() {
		gw, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("offload-cni result: gateway: %w", err)
		}
		to := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gw.Is6() {
			to = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		result.Routes = append(result.Routes, &types.Route{Dst: ipNet(to), GW: gw.AsSlice()})
	}
	for _, to := range st.GetRoutes() {
		dst, err := netip.ParsePrefix(to.GetDestination())
		if err != nil {
			return fmt.Errorf("offload-cni result: route: %w", err)
		}
		result.Routes = append(result.Routes, &types.Route{
			Dst: ipNet(dst), GW: net.ParseIP(to.GetGateway()),
			MTU: int(to.GetMtu()), AdvMSS: int(to.GetAdvmss()), Priority: int(to.GetMetric()),
		})
	}
	if !r.conf.DNS.IsEmpty() {
		result.DNS = r.conf.DNS
	}
	if err := types.PrintResult(result, r.conf.CNIVersion); err != nil {
		return types.NewError(types.ErrIOFailure, "offload-cni result: "+err.Error(), "")
	}
	return nil
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// deleteLate removes the port that has just been made, also when time is up.
func (r *request) deleteLate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	return r.delete(ctx, r.key())
}
