package api

import (
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// An access is what a method needs.
type access uint8

const (
	reads  access = iota // anybody who can connect may call it
	writes               // only root may call it, and only with a deadline
)

// methods are all that the server has. What is not here is refused.
var methods = map[string]access{
	offloadv1.PortService_CreatePort_FullMethodName: writes,
	offloadv1.PortService_DeletePort_FullMethodName: writes,
	offloadv1.PortService_GetPort_FullMethodName:    reads,
	offloadv1.PortService_ListPorts_FullMethodName:  reads,
	offloadv1.PortService_WatchPorts_FullMethodName: reads,
	offloadv1.PortService_CheckPort_FullMethodName:  reads,

	offloadv1.NodeService_GetInfo_FullMethodName:     reads,
	offloadv1.NodeService_GetStatus_FullMethodName:   reads,
	offloadv1.NodeService_ListChassis_FullMethodName: reads,
	offloadv1.NodeService_ListTunnels_FullMethodName: reads,
	offloadv1.NodeService_ListZones_FullMethodName:   reads,
	offloadv1.NodeService_Recompute_FullMethodName:   writes,
	offloadv1.NodeService_Leave_FullMethodName:       writes,

	offloadv1.FlowService_ListLogicalFlows_FullMethodName: reads,
	offloadv1.FlowService_ListFlows_FullMethodName:        reads,
	offloadv1.FlowService_Trace_FullMethodName:            reads,
	offloadv1.FlowService_ListFilters_FullMethodName:      reads,
	offloadv1.FlowService_ListChains_FullMethodName:       reads,
	offloadv1.FlowService_Explain_FullMethodName:          reads,
	offloadv1.FlowService_DiffFilters_FullMethodName:      reads,
	offloadv1.FlowService_ListPortCounters_FullMethodName: reads,

	offloadv1.DeviceService_ListDevices_FullMethodName:     reads,
	offloadv1.DeviceService_GetDevice_FullMethodName:       reads,
	offloadv1.DeviceService_ListFunctions_FullMethodName:   reads,
	offloadv1.DeviceService_ListPools_FullMethodName:       reads,
	offloadv1.DeviceService_WatchDevices_FullMethodName:    reads,
	offloadv1.DeviceService_ListLeftovers_FullMethodName:   reads,
	offloadv1.DeviceService_SetEswitch_FullMethodName:      writes,
	offloadv1.DeviceService_SetVFs_FullMethodName:          writes,
	offloadv1.DeviceService_CreateFunction_FullMethodName:  writes,
	offloadv1.DeviceService_DeleteFunction_FullMethodName:  writes,
	offloadv1.DeviceService_ReleaseFunction_FullMethodName: writes,

	offloadv1.ProbeService_ListPathKinds_FullMethodName: reads,
	offloadv1.ProbeService_Run_FullMethodName:           writes,
	offloadv1.ProbeService_RunPorts_FullMethodName:      writes,
	offloadv1.ProbeService_RunStarts_FullMethodName:     writes,
	offloadv1.ProbeService_ListRuns_FullMethodName:      reads,
	offloadv1.ProbeService_GetRun_FullMethodName:        reads,
	offloadv1.ProbeService_Clean_FullMethodName:         writes,

	offloadv1.MonitorService_WatchPairs_FullMethodName: reads,

	healthv1.Health_Check_FullMethodName: reads,
	healthv1.Health_List_FullMethodName:  reads,
	healthv1.Health_Watch_FullMethodName: reads,

	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName:      reads,
	reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: reads,
}
