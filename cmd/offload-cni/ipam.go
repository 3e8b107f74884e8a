package main

import (
	"context"
	"errors"
	"net/netip"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// allocate has the plugin of the block ipam allocate addresses.
func (r *request) allocate(ctx context.Context) (*current.Result, error) {
	result, err := invoke.DelegateAdd(ctx, r.conf.IPAMType, r.StdinData, nil)
	if err != nil {
		return nil, r.ipamError(err)
	}
	allocated, err := current.NewResultFromResult(result)
	if err == nil && len(allocated.IPs) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return nil, all(r.ipamError(err), r.releaseLate(ctx))
	}
	return allocated, nil
}

// release gives the addresses back.
func (r *request) release(ctx context.Context) error {
	return r.ipamError(invoke.DelegateDel(ctx, r.conf.IPAMType, r.StdinData, nil))
}

// releaseLate gives the addresses back, also when time is up.
func (r *request) releaseLate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	return r.release(ctx)
}

// ipamError keeps the code of the plugin that failed; nil for nil.
func (r *request) ipamError(err error) error {
	if err == nil {
		return nil
	}
	code, details := types.ErrInternal, ""
	if e, ok := errors.AsType[*types.Error](err); ok {
		code, details = e.Code, e.Details
		err = errors.New(e.Msg)
	}
	return types.NewError(code, "offload-cni ipam "+r.conf.IPAMType+": "+err.Error(), details)
}

// useAllocated puts what was allocated into the port. A route without a gateway goes by that of the address of its family.
func useAllocated(s *offloadv1.PortSpec, allocated *current.Result) error {
	gateways := map[bool]string{} // by: is it IPv4
	for _, ip := range allocated.IPs {
		s.Addresses = append(s.Addresses, ip.Address.String())
		if gw, ok := netip.AddrFromSlice(ip.Gateway); ok {
			gateways[gw.Unmap().Is4()] = gw.Unmap().String()
		}
	}
	for _, to := range allocated.Routes {
		if to.Table != nil || to.Scope != nil {
			return reason.Errorf(reason.FeatureUnsupported, "offload-cni ipam: route %s: neither table nor scope can be chosen", to.Dst.String())
		}
		gw := gateways[to.Dst.IP.To4() != nil]
		if to.GW != nil {
			gw = to.GW.String()
		}
		s.Routes = append(s.Routes, &offloadv1.Route{
			Destination: to.Dst.String(), Gateway: gw,
			Mtu: uint32(to.MTU), Advmss: uint32(to.AdvMSS), Metric: uint32(to.Priority),
		})
	}
	return nil
}
