package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

func seen(packets, bytes uint64) *offloadv1.Counters {
	return &offloadv1.Counters{Packets: packets, Bytes: bytes}
}

const (
	fakeCookie = " cookie 0f1d010300000000000000000000abc0 no_percpu"
	fakeRow    = "00000abc-0000-0000-0000-000000000000"
)

var natFlow = &offloadv1.LogicalFlow{
	Uuid: fakeRow, Datapath: "4b1c0f7e-1111-2222-3333-444455556666", DatapathName: "sw0", Pipeline: offloadv1.Pipeline_PIPELINE_INGRESS,
	Table: 13, Priority: 120, Match: "ip4.dst == 10.96.0.1", Actions: "ct_lb(backends=10.0.0.2:80);",
}

var fakeFilters = []*offloadv1.Filter{
	{
		Pref: 10, Handle: 1, Kind: offloadv1.FilterKind_FILTER_KIND_GUARD, State: offloadv1.FilterState_FILTER_STATE_INSTALLED,
		Text:     "chain 0 pref 10 handle 0x1 protocol ip flower ip_flags frag action pass" + fakeCookie,
		Counters: seen(2, 3000), Reason: "fragment", NotInHw: "mlx5_core: Unsupported key",
	},
	{
		Pref: 100, Handle: 1, Kind: offloadv1.FilterKind_FILTER_KIND_ENTRY, Device: "vethc1", State: offloadv1.FilterState_FILTER_STATE_INSTALLED, InHw: true,
		Text:     "chain 0 pref 100 handle 0x1 protocol ip flower indev vethc1 action ct zone 5 pipe" + fakeCookie + " action goto chain 7" + fakeCookie,
		Counters: seen(12, 1176), Rows: []string{fakeRow},
	},
	{
		Chain: 7, Pref: 100, Handle: 1, Kind: offloadv1.FilterKind_FILTER_KIND_RULE, State: offloadv1.FilterState_FILTER_STATE_MISSING,
		Text: "chain 7 pref 100 handle 0x1 protocol ip flower ip_proto tcp dst_port 80 action mirred egress redirect dev vethc2" + fakeCookie, Rows: []string{fakeRow},
	},
	{
		Chain: 7, Pref: 101, Handle: 1, Kind: offloadv1.FilterKind_FILTER_KIND_RULE, State: offloadv1.FilterState_FILTER_STATE_DIFFERENT,
		Text:      "chain 7 pref 101 handle 0x1 protocol ip flower action drop" + fakeCookie,
		Installed: "chain 7 pref 101 handle 0x1 protocol ip flower action pass" + fakeCookie, Counters: seen(0, 0),
	},
	{
		Chain: 7, Pref: 102, Handle: 1, Kind: offloadv1.FilterKind_FILTER_KIND_RULE, State: offloadv1.FilterState_FILTER_STATE_REFUSED,
		Text: "chain 7 pref 102 handle 0x1 protocol ip flower ct_mark 1 action drop" + fakeCookie, Error: "operation not supported",
	},
	{
		Chain: 7, Pref: 1, Handle: 1, Kind: offloadv1.FilterKind_FILTER_KIND_CLOSED, State: offloadv1.FilterState_FILTER_STATE_SURPLUS,
		Text: "chain 7 pref 1 handle 0x1 protocol all flower action pass" + fakeCookie, Counters: seen(1, 60),
	},
	{
		Chain: 9, Pref: 1, Handle: 5, State: offloadv1.FilterState_FILTER_STATE_FOREIGN, Installed: `classifier "matchall"`,
		Text: "chain 9 pref 1 handle 0x5 protocol all flower", Counters: seen(7, 70),
	},
}

func noPort(name string) error {
	return refusal(codes.NotFound, reason.LPortNotFound, fmt.Sprintf("daemon: no port or device %q on this chassis", name), map[string]string{"port": name})
}

// knows reports whether a port is one that has filters.
func knows(port string) bool { return port == "web1" || port == "web2" }

func (f *fake) ListFilters(req *offloadv1.ListFiltersRequest, s offloadv1.FlowService_ListFiltersServer) error {
	if req.GetPort() != "" && !knows(req.GetPort()) {
		return noPort(req.GetPort())
	}
	all := fakeFilters
	if f.delegated {
		all = delegatedFilters
	}
	for _, x := range all {
		if req.Chain != nil && req.GetChain() != x.GetChain() || len(req.GetStates()) > 0 && req.GetStates()[0] != x.GetState() {
			continue
		}
		if err := s.Send(&offloadv1.ListFiltersResponse{Filter: x}); err != nil {
			return err
		}
	}
	return nil
}

// ListPortCounters knows of web1 and of the tunnels.
func (f *fake) ListPortCounters(req *offloadv1.ListPortCountersRequest, s offloadv1.FlowService_ListPortCountersServer) error {
	if req.GetPort() == "vethc2" {
		return refusal(codes.Unimplemented, reason.FeatureUnsupported, "daemon filters: the daemon runs with offload=off", nil)
	}
	for _, p := range []*offloadv1.PortCounters{
		{Device: "genev_sys_6081", From: seen(5, 500), To: seen(6, 600)},
		{LogicalPort: "web1", Device: "vethc1", From: seen(12, 1176), To: seen(0, 0)},
	} {
		if req.GetPort() != "" && req.GetPort() != p.GetLogicalPort() && req.GetPort() != p.GetDevice() {
			continue
		}
		if err := s.Send(&offloadv1.ListPortCountersResponse{Port: p}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) DiffFilters(_ *offloadv1.DiffFiltersRequest, s offloadv1.FlowService_DiffFiltersServer) error {
	if !f.differs {
		return nil
	}
	if err := s.Send(&offloadv1.DiffFiltersResponse{Device: "vethc2"}); err != nil {
		return err
	}
	for _, x := range fakeFilters[2:] {
		if err := s.Send(&offloadv1.DiffFiltersResponse{Filter: x}); err != nil {
			return err
		}
	}
	return nil
}

// ListChains has chains for web1, and none for web2.
func (f *fake) ListChains(req *offloadv1.ListChainsRequest, s offloadv1.FlowService_ListChainsServer) error {
	if !knows(req.GetPort()) {
		return noPort(req.GetPort())
	}
	if req.GetPort() == "web2" {
		return nil
	}
	chain := func(c *offloadv1.Chain) *offloadv1.ListChainsResponse {
		return &offloadv1.ListChainsResponse{Item: &offloadv1.ListChainsResponse_Chain{Chain: c}}
	}
	rule := func(r *offloadv1.ChainRule) *offloadv1.ListChainsResponse {
		return &offloadv1.ListChainsResponse{Item: &offloadv1.ListChainsResponse_Rule{Rule: r}}
	}
	for _, r := range []*offloadv1.ListChainsResponse{
		chain(&offloadv1.Chain{Device: "vethc1", Ofport: 1, EtherType: 0x800, Text: "port 1 device vethc1 ip"}),
		rule(&offloadv1.ChainRule{
			Match: "dst_ip 10.96.0.1", Verdict: offloadv1.ChainVerdict_CHAIN_VERDICT_PUNT, Text: "punt nat", Reason: "nat", Rows: []string{fakeRow},
			LogicalFlow: natFlow, Counters: seen(3, 180),
		}),
		rule(&offloadv1.ChainRule{Verdict: offloadv1.ChainVerdict_CHAIN_VERDICT_LOOKUP, Text: "ct zone 5 goto chain 7", Chain: 7, Zone: 5, Counters: seen(12, 1176)}),
		chain(&offloadv1.Chain{Number: 7, EtherType: 0x800, Table: 9, Tracked: true, Zone: 5, Known: []string{"reg14=0x1"}, Text: "chain 7 ip table 9 established in zone 5: reg14=0x1"}),
		rule(&offloadv1.ChainRule{Match: "ip_proto tcp", Verdict: offloadv1.ChainVerdict_CHAIN_VERDICT_OUTPUT, Text: "output vethc2", Device: "vethc2"}),
		rule(&offloadv1.ChainRule{Verdict: offloadv1.ChainVerdict_CHAIN_VERDICT_PUNT, Text: "punt commit", Reason: "commit", NoFilter: true}),
	} {
		if err := s.Send(r); err != nil {
			return err
		}
	}
	return nil
}

// Explain forwards packets of web1 but those to port 443, which go through NAT; nothing of web2 is offloaded.
func (f *fake) Explain(_ context.Context, req *offloadv1.ExplainRequest) (*offloadv1.ExplainResponse, error) {
	nat := &offloadv1.Punt{
		Reason: "nat", Text: "The flow translates addresses.", Fix: "Keep traffic that needs no translation elsewhere.", LogicalFlow: natFlow,
		Filters: 2, Counters: seen(3, 180),
	}
	layer := func(l offloadv1.Layer, a offloadv1.LayerAnswer, text string, delivers bool) *offloadv1.LayerVerdict {
		return &offloadv1.LayerVerdict{Layer: l, Answer: a, Text: text, Delivers: delivers}
	}
	const (
		nic, tc, ovs                = offloadv1.Layer_LAYER_NIC, offloadv1.Layer_LAYER_TC, offloadv1.Layer_LAYER_OVS
		decides, passes, notReached = offloadv1.LayerAnswer_LAYER_ANSWER_DECIDES, offloadv1.LayerAnswer_LAYER_ANSWER_PASSES, offloadv1.LayerAnswer_LAYER_ANSWER_NOT_REACHED
	)
	switch {
	case !knows(req.GetPort()):
		return nil, noPort(req.GetPort())
	case f.delegated:
		return delegatedExplanation(req), nil
	case req.GetPort() == "web2" && req.GetMicroflow() == "":
		return &offloadv1.ExplainResponse{Device: "vethc2", Idle: "the device cannot offload, or is gone"}, nil
	case req.GetPort() == "web2":
		none := "no filters: the device cannot offload, or is gone"
		return &offloadv1.ExplainResponse{Device: "vethc2", Idle: none[12:], Layers: []*offloadv1.LayerVerdict{
			layer(nic, passes, none, false), layer(tc, passes, none, false), layer(ovs, decides, "delivered nowhere: drop", false),
		}}, nil
	case req.GetMicroflow() == "":
		return &offloadv1.ExplainResponse{
			Device: "vethc1", Forwarded: seen(92, 9200), Dropped: seen(0, 0), Punted: seen(8, 800), Shared: true, InHw: 11,
			Refusals: []*offloadv1.Refusal{{Text: "mlx5_core: Unsupported key", Filters: 2, Counters: seen(5, 300), Example: fakeFilters[0].GetText()}},
			Punts:    []*offloadv1.Punt{nat, {Reason: "multicast", Text: "The destination is a multicast or broadcast address.", Fix: "Nothing to do.", Filters: 1, Counters: seen(0, 0), Shared: true}},
		}, nil
	case req.GetMicroflow() == "tcp.dst == 443":
		one := &offloadv1.Punt{Reason: nat.GetReason(), Text: nat.GetText(), Fix: nat.GetFix(), LogicalFlow: natFlow, Filters: 1}
		return &offloadv1.ExplainResponse{
			Device: "vethc1", Filters: fakeFilters[1:2], Punts: []*offloadv1.Punt{one}, Layers: []*offloadv1.LayerVerdict{
				layer(nic, passes, "it has the first 1 of 2 filters", false), layer(tc, passes, "left to Open vSwitch", false), layer(ovs, decides, "delivered to web2 (local)", true),
			},
		}, nil
	}
	return &offloadv1.ExplainResponse{Device: "vethc1", Filters: fakeFilters[1:3], Layers: []*offloadv1.LayerVerdict{
		layer(nic, passes, "no filter that the packet meets is in hardware", false), layer(tc, decides, "sent out of vethc2", true), layer(ovs, notReached, "", false),
	}}, nil
}
