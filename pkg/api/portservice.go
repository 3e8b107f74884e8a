package api

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// heartbeat is how often a watch without changes says that it is alive.
const heartbeat = 30 * time.Second

type portService struct {
	offloadv1.UnimplementedPortServiceServer
	ports     Ports
	heartbeat time.Duration
}

// subject says in the log what a call is about.
func subject(ctx context.Context, k ports.Key, requestID string) {
	annotate(ctx, slog.String("port", k.String()))
	if requestID != "" {
		annotate(ctx, slog.String("request_id", requestID))
	}
}

func (s *portService) CreatePort(ctx context.Context, req *offloadv1.CreatePortRequest) (*offloadv1.CreatePortResponse, error) {
	spec, wait, err := parseSpec(req.GetSpec())
	if err != nil {
		return nil, err
	}
	var p parser
	p.bound("request_id", req.GetRequestId(), maxRequestID)
	if err := p.err(); err != nil {
		return nil, err
	}
	subject(ctx, spec.Key, req.GetRequestId())
	annotate(ctx, slog.String("lport", spec.LogicalPort), slog.Bool("validate_only", req.GetValidateOnly()))
	port, err := s.ports.Create(ctx, ports.CreateRequest{
		Spec:         spec,
		Wait:         wait,
		RequestID:    req.GetRequestId(),
		ValidateOnly: req.GetValidateOnly(),
	})
	if err != nil {
		return nil, err
	}
	return &offloadv1.CreatePortResponse{Port: portMessage(port)}, nil
}

func (s *portService) DeletePort(ctx context.Context, req *offloadv1.DeletePortRequest) (*offloadv1.DeletePortResponse, error) {
	key, err := parsePortKey(req.GetKey())
	if err != nil {
		return nil, err
	}
	var p parser
	p.bound("request_id", req.GetRequestId(), maxRequestID)
	if err := p.err(); err != nil {
		return nil, err
	}
	subject(ctx, key, req.GetRequestId())
	annotate(ctx, slog.Bool("validate_only", req.GetValidateOnly()))
	existed, err := s.ports.Delete(ctx, ports.DeleteRequest{
		Key:          key,
		RequestID:    req.GetRequestId(),
		ValidateOnly: req.GetValidateOnly(),
	})
	if err != nil {
		return nil, err
	}
	return &offloadv1.DeletePortResponse{Existed: existed}, nil
}

func (s *portService) GetPort(ctx context.Context, req *offloadv1.GetPortRequest) (*offloadv1.GetPortResponse, error) {
	p, err := s.find(ctx, req.GetKey())
	if err != nil {
		return nil, err
	}
	return &offloadv1.GetPortResponse{Port: portMessage(p)}, nil
}

func (s *portService) find(ctx context.Context, k *offloadv1.PortKey) (ports.Port, error) {
	key, err := parsePortKey(k)
	if err != nil {
		return ports.Port{}, err
	}
	subject(ctx, key, "")
	if err := s.ports.Known(ctx); err != nil {
		return ports.Port{}, err
	}
	p, ok := s.ports.Feed().Find(key)
	if !ok {
		return ports.Port{}, reason.Errorf(reason.PortNotFound, "api port %s: there is none", key)
	}
	return p, nil
}

func (s *portService) ListPorts(ctx context.Context, req *offloadv1.ListPortsRequest) (*offloadv1.ListPortsResponse, error) {
	filter, err := parsePortFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	if err := s.ports.Known(ctx); err != nil {
		return nil, err
	}
	all, _ := s.ports.Feed().All()
	all = slices.DeleteFunc(all, func(p ports.Port) bool { return !filter.selects(p) })
	page, next, err := page(req, "ports", req.GetFilter(), all, sortKey, portMessage)
	return &offloadv1.ListPortsResponse{Ports: page, NextPageToken: next}, err
}

// sortKey orders ports as their keys do: NUL is less than whatever a name may have.
func sortKey(p ports.Port) string {
	k := p.Spec.Key
	return strings.Join([]string{k.Network, k.ContainerID, k.Ifname}, "\x00")
}

func (s *portService) CheckPort(ctx context.Context, req *offloadv1.CheckPortRequest) (*offloadv1.CheckPortResponse, error) {
	port, err := s.find(ctx, req.GetKey())
	if err != nil {
		return nil, err
	}
	check := ports.CheckRequest{Key: port.Spec.Key, Netns: req.GetNetns()}
	var p parser
	p.bound("netns", req.GetNetns(), maxMicroflow)
	for i, a := range req.GetAddresses() {
		check.Addresses = append(check.Addresses, p.prefix(at("addresses", i), a))
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	problems, err := s.ports.Check(ctx, check)
	if err != nil {
		return nil, err
	}
	return &offloadv1.CheckPortResponse{Problems: problemMessages(problems), Port: portMessage(port)}, nil
}
