package api

import (
	"context"

	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

type nodeService struct {
	offloadv1.UnimplementedNodeServiceServer
	node    Node
	health  func() []Health
	monitor Monitor // nil: there is none
}

func (s *nodeService) GetInfo(ctx context.Context, _ *offloadv1.GetInfoRequest) (*offloadv1.GetInfoResponse, error) {
	id, err := s.node.Identity(ctx)
	if err != nil {
		return nil, err
	}
	return infoMessage(id), nil
}

func (s *nodeService) GetStatus(ctx context.Context, req *offloadv1.GetStatusRequest) (*offloadv1.GetStatusResponse, error) {
	st, err := s.node.Status(ctx, StatusRequest{Megaflows: req.GetMegaflows()})
	if err != nil {
		return nil, err
	}
	m := statusMessage(st, s.health())
	if s.monitor != nil {
		pairs, _ := s.monitor.States(false)
		m.ProbePairs, m.ProbeWorse = pairsStatus(pairs)
	}
	return m, nil
}

func (s *nodeService) ListChassis(ctx context.Context, req *offloadv1.ListChassisRequest) (*offloadv1.ListChassisResponse, error) {
	all, err := s.node.Chassis(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := page(req, "chassis", nil, all, func(c Chassis) string { return c.Name }, chassisMessage)
	return &offloadv1.ListChassisResponse{Chassis: page, NextPageToken: next}, err
}

func (s *nodeService) ListTunnels(ctx context.Context, req *offloadv1.ListTunnelsRequest) (*offloadv1.ListTunnelsResponse, error) {
	all, err := s.node.Tunnels(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := page(req, "tunnels", nil, all, func(t Tunnel) string { return t.Interface }, tunnelMessage)
	return &offloadv1.ListTunnelsResponse{Tunnels: page, NextPageToken: next}, err
}

func (s *nodeService) ListZones(ctx context.Context, req *offloadv1.ListZonesRequest) (*offloadv1.ListZonesResponse, error) {
	all, err := s.node.Zones(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := page(req, "zones", nil, all, func(z Zone) string { return z.Owner }, zoneMessage)
	return &offloadv1.ListZonesResponse{Zones: page, NextPageToken: next}, err
}

func (s *nodeService) Recompute(ctx context.Context, _ *offloadv1.RecomputeRequest) (*offloadv1.RecomputeResponse, error) {
	return &offloadv1.RecomputeResponse{}, s.node.Recompute(ctx)
}

func (s *nodeService) Leave(ctx context.Context, _ *offloadv1.LeaveRequest) (*offloadv1.LeaveResponse, error) {
	return &offloadv1.LeaveResponse{}, s.node.Leave(ctx)
}
