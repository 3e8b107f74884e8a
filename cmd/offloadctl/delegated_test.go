package main

import (
	"testing"

	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const fakeUFID = "b934d6ca13fb4cf19fcac1011f96b50b"

var delegatedFilters = []*offloadv1.Filter{
	{
		Pref: 2, Handle: 2, Device: "vethc1", State: offloadv1.FilterState_FILTER_STATE_DELEGATED, InHw: true, Ufid: fakeUFID, Counters: seen(845, 1052996),
		Text: "chain 0 pref 2 handle 0x2 protocol ip flower ip_proto tcp action ct zone 10 pipe" + fakeCookie + " action goto chain 3" + fakeCookie,
	},
	{
		Pref: 9, Handle: 1, Device: "vethc1", State: offloadv1.FilterState_FILTER_STATE_FOREIGN, Counters: seen(0, 0),
		Text: "chain 0 pref 9 handle 0x1 protocol all flower action pass",
	},
}

func fakeMegaflow(layer offloadv1.Layer, packets uint64, match, actions, reason string) *offloadv1.Megaflow {
	return &offloadv1.Megaflow{
		Ufid: fakeUFID, Device: "vethc1", Match: match, Actions: actions, Layer: layer, Used: "0.860s", Reason: reason, Counters: seen(packets, 100*packets),
	}
}

// delegatedExplanation is of packets that TC forwards, and of one for which ovs-vswitchd has no megaflow.
func delegatedExplanation(req *offloadv1.ExplainRequest) *offloadv1.ExplainResponse {
	const nic, tc, ovs = offloadv1.Layer_LAYER_NIC, offloadv1.Layer_LAYER_TC, offloadv1.Layer_LAYER_OVS
	arrives := fakeMegaflow(tc, 845, "recirc_id(0),in_port(vethc1),eth_type(0x0800),ipv4(proto=6)", "ct(zone=10),recirc(0x3)", "")
	e := &offloadv1.ExplainResponse{Device: "vethc1", Delegated: true}
	switch req.GetMicroflow() {
	case "":
		e.MegaflowsLeft = 7
		e.Megaflows = []*offloadv1.Megaflow{
			fakeMegaflow(nic, 900, "recirc_id(0),in_port(vethc1),eth_type(0x86dd)", "vethc2", ""), arrives,
			fakeMegaflow(ovs, 3, "recirc_id(0),in_port(vethc1),eth_type(0x0806)", "userspace(pid=1)", "hardware recognises the packets, Open vSwitch carries the actions out"),
		}
		if req.GetPort() == "web2" {
			e.Megaflows, e.MegaflowsLeft, e.Idle = nil, 0, "Open vSwitch does not offload: other_config:hw-offload is not true"
		}
	case "tcp.dst == 443":
		e.Layers = []*offloadv1.LayerVerdict{
			{Layer: nic, Answer: offloadv1.LayerAnswer_LAYER_ANSWER_PASSES, Text: "no megaflow matches: ovs-vswitchd decides, and makes one"},
			{Layer: tc, Answer: offloadv1.LayerAnswer_LAYER_ANSWER_PASSES, Text: "no megaflow matches: ovs-vswitchd decides, and makes one"},
			{Layer: ovs, Answer: offloadv1.LayerAnswer_LAYER_ANSWER_DECIDES, Text: "delivered nowhere; no megaflow matches: ovs-vswitchd decides, and makes one"},
		}
	default:
		e.Layers = []*offloadv1.LayerVerdict{
			{Layer: nic, Answer: offloadv1.LayerAnswer_LAYER_ANSWER_PASSES, Text: "the megaflow that the packet meets is not in hardware"},
			{Layer: tc, Answer: offloadv1.LayerAnswer_LAYER_ANSWER_DECIDES, Text: "delivered to web2 (local)", Delivers: true},
			{Layer: ovs, Answer: offloadv1.LayerAnswer_LAYER_ANSWER_NOT_REACHED},
		}
		e.Filters, e.Megaflows = delegatedFilters[:1], []*offloadv1.Megaflow{arrives}
	}
	return e
}

// What Open vSwitch offloads, where it is asked to.
func TestDelegated(t *testing.T) {
	f := newFake()
	f.delegated = true
	sum := func(flows, packets uint64) *offloadv1.MegaflowSum {
		return &offloadv1.MegaflowSum{Flows: flows, Packets: packets, Bytes: 100 * packets}
	}
	f.status.Offload = &offloadv1.Offload{
		Mode: offloadv1.OffloadMode_OFFLOAD_MODE_DELEGATED, Delegated: &offloadv1.Delegated{HwOffload: true, Ports: []*offloadv1.DelegatedPort{
			{Port: "web1", Device: "vethc1", Nic: sum(1, 900), Tc: sum(1, 845), Ovs: sum(1, 3)},
			{Device: "genev_sys_6081", Ovs: sum(2, 20)},
		}},
	}
	shell{t: t, socket: f.serve(t)}.golden("testdata/delegated.txt")
}

// That Open vSwitch should offload and does not is said with what to do, and so is that it does not answer.
func TestDelegatedInVain(t *testing.T) {
	f := newFake()
	f.delegated = true
	f.status.Offload = &offloadv1.Offload{
		Mode: offloadv1.OffloadMode_OFFLOAD_MODE_DELEGATED, Idle: "Open vSwitch does not offload: other_config:hw-offload is not true",
		Delegated: &offloadv1.Delegated{Fix: "ovs-vsctl set open . other_config:hw-offload=true, and restart ovs-vswitchd"},
	}
	f.status.Subsystems[1].Serving = false
	f.status.Subsystems[1].Reason, f.status.Subsystems[1].Message = string(reason.HWOffloadOff), f.status.GetOffload().GetIdle()
	shell{t: t, socket: f.serve(t)}.golden("testdata/delegated-in-vain.txt")

	f.status.Offload = &offloadv1.Offload{
		Mode: offloadv1.OffloadMode_OFFLOAD_MODE_DELEGATED, Delegated: &offloadv1.Delegated{HwOffload: true, TcPolicy: "skip_hw", Error: "ovs-vswitchd: no answer"},
	}
	f.status.Subsystems[1].Serving, f.status.Subsystems[1].Reason, f.status.Subsystems[1].Message = true, "", ""
	shell{t: t, socket: f.serve(t)}.golden("testdata/delegated-unknown.txt")
}
