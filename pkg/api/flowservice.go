package api

import (
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
