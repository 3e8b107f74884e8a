package api

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

type deviceService struct {
	offloadv1.UnimplementedDeviceServiceServer
	devices   Devices
	feed      *deviceFeed
	heartbeat time.Duration
}

func newDeviceService(d Devices) *deviceService {
	return &deviceService{devices: d, feed: newDeviceFeed(d), heartbeat: heartbeat}
}

// unixNano returns the zero Time for 0.
func unixNano(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(min(ns, math.MaxInt64)))
}

func (s *deviceService) ListDevices(_ context.Context, req *offloadv1.ListDevicesRequest) (*offloadv1.ListDevicesResponse, error) {
	page, next, err := page(req, "devices", nil, s.devices.Snapshot().Devices, func(d device.Status) string { return d.Handle.String() }, deviceMessage)
	return &offloadv1.ListDevicesResponse{Devices: page, NextPageToken: next}, err
}

func (s *deviceService) GetDevice(ctx context.Context, req *offloadv1.GetDeviceRequest) (*offloadv1.GetDeviceResponse, error) {
	d, err := s.find(ctx, req.GetDevice())
	if err != nil {
		return nil, err
	}
	details, err := s.devices.Describe(ctx, d.Handle)
	if err != nil {
		return nil, err
	}
	return detailsMessage(d, details), nil
}

// find returns a device, and says in the log which.
func (s *deviceService) find(ctx context.Context, name string) (device.Status, error) {
	d, err := findDevice(s.devices.Snapshot(), name)
	if err == nil {
		annotate(ctx, slog.String("device", d.Handle.String()))
	}
	return d, err
}

func (s *deviceService) ListFunctions(_ context.Context, req *offloadv1.ListFunctionsRequest) (*offloadv1.ListFunctionsResponse, error) {
	filter, err := parseFunctionFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(s.devices.Snapshot().Functions, func(f device.FunctionStatus) bool { return !filter.selects(f) })
	page, next, err := page(req, "functions", req.GetFilter(), all, functionKey, functionStatusMessage)
	return &offloadv1.ListFunctionsResponse{Functions: page, NextPageToken: next}, err
}

func (s *deviceService) ListPools(_ context.Context, req *offloadv1.ListPoolsRequest) (*offloadv1.ListPoolsResponse, error) {
	page, next, err := page(req, "pools", nil, s.devices.Snapshot().Pools, func(p device.PoolStatus) string { return p.Name },
		func(p device.PoolStatus) *offloadv1.Pool { return poolMessage(p, s.devices.Resource(p.Name)) })
	return &offloadv1.ListPoolsResponse{Pools: page, NextPageToken: next}, err
}

func (s *deviceService) ListLeftovers(ctx context.Context, req *offloadv1.ListLeftoversRequest) (*offloadv1.ListLeftoversResponse, error) {
	all, err := s.devices.Leftovers(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, compareLeftovers)
	page, next, err := page(req, "leftovers", nil, slices.Compact(all),
		func(l Leftover) string { return l.Where + "\x00" + l.Name + "\x00" + l.Cause }, leftoverMessage)
	return &offloadv1.ListLeftoversResponse{Leftovers: page, NextPageToken: next}, err
}

// planned answers for an operation on a device. What ports stand in the way of is no error if it is only asked about.
func planned(ctx context.Context, validateOnly bool, plan device.Plan, err error) (*offloadv1.Plan, error) {
	annotate(ctx, slog.Bool("validate_only", validateOnly), slog.Int("steps", len(plan.Steps)), slog.Int("removes", len(plan.Removes)))
	if validateOnly && reason.Of(err) == reason.FunctionsInUse {
		err = nil
	}
	if err != nil {
		return nil, inUse(plan, err)
	}
	return planMessage(plan), nil
}

func (s *deviceService) SetEswitch(ctx context.Context, req *offloadv1.SetEswitchRequest) (*offloadv1.SetEswitchResponse, error) {
	var mode devlink.EswitchMode
	switch req.GetMode() { //nolint:exhaustive // the others are refused
	case offloadv1.EswitchMode_ESWITCH_MODE_LEGACY:
		mode = devlink.ModeLegacy
	case offloadv1.EswitchMode_ESWITCH_MODE_SWITCHDEV:
		mode = devlink.ModeSwitchdev
	default:
		return nil, invalid(reason.Field{Path: "mode", Cause: req.GetMode().String() + ": neither legacy nor switchdev"})
	}
	d, err := s.find(ctx, req.GetDevice())
	if err != nil {
		return nil, err
	}
	annotate(ctx, slog.String("mode", mode.String()))
	plan, err := s.devices.SetMode(ctx, d.Handle, mode, req.GetValidateOnly())
	m, err := planned(ctx, req.GetValidateOnly(), plan, err)
	if err != nil {
		return nil, err
	}
	return &offloadv1.SetEswitchResponse{Plan: m}, nil
}

func (s *deviceService) SetVFs(ctx context.Context, req *offloadv1.SetVFsRequest) (*offloadv1.SetVFsResponse, error) {
	var p parser
	count := p.upTo("count", req.GetCount(), math.MaxUint16)
	if err := p.err(); err != nil {
		return nil, err
	}
	d, err := s.find(ctx, req.GetDevice())
	if err != nil {
		return nil, err
	}
	annotate(ctx, slog.Uint64("vfs", uint64(count)))
	plan, err := s.devices.SetVFs(ctx, d.Handle, int(count), req.GetValidateOnly())
	m, err := planned(ctx, req.GetValidateOnly(), plan, err)
	if err != nil {
		return nil, err
	}
	return &offloadv1.SetVFsResponse{Plan: m}, nil
}

func (s *deviceService) CreateFunction(ctx context.Context, req *offloadv1.CreateFunctionRequest) (*offloadv1.CreateFunctionResponse, error) {
	var p parser
	pf := p.upTo("pf", req.GetPf(), math.MaxUint16)
	if err := p.err(); err != nil {
		return nil, err
	}
	d, err := s.find(ctx, req.GetDevice())
	if err != nil {
		return nil, err
	}
	annotate(ctx, slog.Uint64("pf", uint64(pf)), slog.Uint64("sfnum", uint64(req.GetNumber())))
	plan, port, err := s.devices.CreateSF(ctx, d.Handle, uint16(pf), req.GetNumber(), req.GetValidateOnly())
	m, err := planned(ctx, req.GetValidateOnly(), plan, err)
	if err != nil {
		return nil, err
	}
	r := &offloadv1.CreateFunctionResponse{Plan: m}
	if !req.GetValidateOnly() {
		r.Port = port.String()
	}
	return r, nil
}

func (s *deviceService) DeleteFunction(ctx context.Context, req *offloadv1.DeleteFunctionRequest) (*offloadv1.DeleteFunctionResponse, error) {
	h, err := parsePort(ctx, req.GetPort())
	if err != nil {
		return nil, err
	}
	plan, err := s.devices.DeleteSF(ctx, h, req.GetValidateOnly())
	m, err := planned(ctx, req.GetValidateOnly(), plan, err)
	if err != nil {
		return nil, err
	}
	return &offloadv1.DeleteFunctionResponse{Plan: m}, nil
}

// parsePort takes the field port of a request, and says in the log which it is.
func parsePort(ctx context.Context, s string) (devlink.PortHandle, error) {
	var p parser
	h := p.portHandle("port", s)
	if err := p.err(); err != nil {
		return h, err
	}
	annotate(ctx, slog.String("function", h.String()))
	return h, nil
}

func (s *deviceService) ReleaseFunction(ctx context.Context, req *offloadv1.ReleaseFunctionRequest) (*offloadv1.ReleaseFunctionResponse, error) {
	h, err := parsePort(ctx, req.GetPort())
	if err != nil {
		return nil, err
	}
	if err := s.devices.Recover(ctx, h); err != nil {
		return nil, err
	}
	for _, f := range s.devices.Snapshot().Functions {
		if f.Handle == h {
			return &offloadv1.ReleaseFunctionResponse{Function: functionStatusMessage(f)}, nil
		}
	}
	return nil, reason.Errorf(reason.DeviceGone, "api function %v: it vanished meanwhile", h)
}
