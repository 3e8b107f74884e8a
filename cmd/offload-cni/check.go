package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	current "github.com/containernetworking/cni/pkg/types/100"
	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// check compares the port with the result of ADD, the kernel and Open vSwitch.
func check(ctx context.Context, r *request) error {
	prev := r.conf.PrevResult
	if prev == nil {
		return configError("prevResult", errors.New("is required for CHECK"))
	}
	at := slices.IndexFunc(prev.Interfaces, func(i *current.Interface) bool { return i.Name == r.IfName && i.Sandbox == r.Netns })
	if at < 0 {
		return reason.Errorf(reason.LinkMissing, "offload-cni prevResult: has no interface %s in %s", r.IfName, r.Netns)
	}
	req := &offloadv1.CheckPortRequest{Key: r.key(), Netns: r.Netns}
	for _, ip := range prev.IPs {
		if ip.Interface != nil && *ip.Interface == at {
			req.Addresses = append(req.Addresses, ip.Address.String())
		}
	}
	var resp *offloadv1.CheckPortResponse
	err := r.call(ctx, patience, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = offloadv1.NewPortServiceClient(conn).CheckPort(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range resp.GetProblems() {
		errs = append(errs, reason.Errorf(reason.Reason(p.GetReason()), "%s", p.GetMessage()))
	}
	if want, is := prev.Interfaces[at].Mac, resp.GetPort().GetStatus().GetMac(); want != "" && want != is {
		errs = append(errs, reason.Errorf(reason.LinkChanged, "offload-cni prevResult: %s has the MAC address %s, the port %s", r.IfName, want, is))
	}
	if r.conf.IPAMType != "" {
		errs = append(errs, r.ipamError(invoke.DelegateCheck(ctx, r.conf.IPAMType, r.StdinData, nil)))
	}
	return all(errs...)
}

// grace is how long the daemon may be cut off before those containers that exist count as affected: their flows stay, but
// what changes around them does not reach them.
const grace = 10 * time.Second

// status fails while no container can be added: with code 51 if those that exist may suffer too, else with 50.
func status(ctx context.Context, r *request) error {
	var resp *offloadv1.GetStatusResponse
	err := r.call(ctx, 0, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = offloadv1.NewNodeServiceClient(conn).GetStatus(ctx, &offloadv1.GetStatusRequest{})
		return err
	})
	if err != nil {
		return withCode(reason.CNIUnavailable, err)
	}
	code := reason.CNIUnavailable
	var errs []error
	for _, s := range resp.GetSubsystems() {
		if s.GetServing() {
			continue
		}
		why := reason.Reason(s.GetReason())
		entry, known := reason.Find(why)
		if known && entry.Status == 0 {
			continue // it concerns no container
		}
		errs = append(errs, reason.Errorf(why, "%s: %s", s.GetName(), s.GetMessage()))
		if entry.Status == reason.CNILimited && time.Since(s.GetSince().AsTime()) > grace {
			code = reason.CNILimited
		}
	}
	errs = append(errs, r.supply(ctx))
	if r.conf.IPAMType != "" {
		errs = append(errs, r.ipamError(invoke.DelegateStatus(ctx, r.conf.IPAMType, r.StdinData, nil)))
	}
	return withCode(code, errs...)
}

// withCode returns an error with the messages of all, and code; nil if there is none.
func withCode(code reason.CNI, errs ...error) error {
	err := all(errs...)
	if err == nil {
		return nil
	}
	e := *cniError(err)
	e.Code = uint(code)
	return &e
}
