package api

import (
	"context"

	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

type flowService struct {
	offloadv1.UnimplementedFlowServiceServer
	flows Flows
}

func (s *flowService) ListLogicalFlows(req *offloadv1.ListLogicalFlowsRequest, stream offloadv1.FlowService_ListLogicalFlowsServer) error {
	filter, err := parseLogicalFlowFilter(req)
	if err != nil {
		return err
	}
	return s.flows.LogicalFlows(stream.Context(), filter, func(f LogicalFlow) error {
		return stream.Send(&offloadv1.ListLogicalFlowsResponse{LogicalFlow: logicalFlowMessage(f)})
	})
}

func (s *flowService) ListFlows(req *offloadv1.ListFlowsRequest, stream offloadv1.FlowService_ListFlowsServer) error {
	filter, err := parseFlowFilter(req)
	if err != nil {
		return err
	}
	return s.flows.Flows(stream.Context(), filter, func(f Flow) error {
		return stream.Send(&offloadv1.ListFlowsResponse{Flow: flowMessage(f)})
	})
}

func (s *flowService) Trace(req *offloadv1.TraceRequest, stream offloadv1.FlowService_TraceServer) error {
	trace, err := parseTraceRequest(req)
	if err != nil {
		return err
	}
	return s.flows.Trace(stream.Context(), trace, func(step TraceStep) error {
		return stream.Send(&offloadv1.TraceResponse{Step: traceStepMessage(step)})
	})
}

func (s *flowService) ListFilters(req *offloadv1.ListFiltersRequest, stream offloadv1.FlowService_ListFiltersServer) error {
	filter, err := parseFilterFilter(req)
	if err != nil {
		return err
	}
	return s.flows.Filters(stream.Context(), filter, func(f Filter) error {
		return stream.Send(&offloadv1.ListFiltersResponse{Filter: filterMessage(f)})
	})
}

func (s *flowService) ListChains(req *offloadv1.ListChainsRequest, stream offloadv1.FlowService_ListChainsServer) error {
	port, err := parseChainsRequest(req)
	if err != nil {
		return err
	}
	return s.flows.Chains(stream.Context(), port, func(i ChainItem) error { return stream.Send(chainItemMessage(i)) })
}

func (s *flowService) Explain(ctx context.Context, req *offloadv1.ExplainRequest) (*offloadv1.ExplainResponse, error) {
	explain, err := parseExplainRequest(req)
	if err != nil {
		return nil, err
	}
	e, err := s.flows.Explain(ctx, explain)
	if err != nil {
		return nil, err
	}
	return explanationMessage(e), nil
}

func (s *flowService) ListPortCounters(req *offloadv1.ListPortCountersRequest, stream offloadv1.FlowService_ListPortCountersServer) error {
	var p parser
	port := p.bound("port", req.GetPort(), maxNameBytes)
	if err := p.err(); err != nil {
		return err
	}
	return s.flows.PortCounters(stream.Context(), port, func(c PortCounters) error {
		return stream.Send(&offloadv1.ListPortCountersResponse{Port: &offloadv1.PortCounters{
			LogicalPort: c.LogicalPort, Device: c.Device, From: filterCounters(&c.From), To: filterCounters(&c.To),
		}})
	})
}

func (s *flowService) DiffFilters(_ *offloadv1.DiffFiltersRequest, stream offloadv1.FlowService_DiffFiltersServer) error {
	return s.flows.FilterDiff(stream.Context(), func(d FilterDifference) error {
		m := &offloadv1.DiffFiltersResponse{Device: d.Device}
		if d.Filter != nil {
			m.Filter = filterMessage(*d.Filter)
		}
		return stream.Send(m)
	})
}
