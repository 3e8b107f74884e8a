package api

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// Every enum's numbers have a name of ours, and the other way round.
func TestEnums(t *testing.T) {
	for _, e := range []struct {
		values protoreflect.EnumValueDescriptors
		names  any
	}{
		{offloadv1.PortKind(0).Descriptor().Values(), kinds},
		{offloadv1.VlanProtocol(0).Descriptor().Values(), vlanProtocols},
		{offloadv1.LinkState(0).Descriptor().Values(), linkStates},
		{offloadv1.Addressing(0).Descriptor().Values(), addressings},
		{offloadv1.WaitFor(0).Descriptor().Values(), waits},
		{offloadv1.PortState(0).Descriptor().Values(), states},
		{offloadv1.Pipeline(0).Descriptor().Values(), pipelines},
		{offloadv1.FlowState(0).Descriptor().Values(), flowStates},
		{offloadv1.TraceStepKind(0).Descriptor().Values(), traceStepKinds},
		{offloadv1.FilterKind(0).Descriptor().Values(), filterKinds},
		{offloadv1.FilterState(0).Descriptor().Values(), filterStates},
		{offloadv1.ChainVerdict(0).Descriptor().Values(), chainVerdicts},
		{offloadv1.Layer(0).Descriptor().Values(), layers},
		{offloadv1.LayerAnswer(0).Descriptor().Values(), layerAnswers},
		{offloadv1.FunctionKind(0).Descriptor().Values(), functionKinds},
		{offloadv1.FunctionState(0).Descriptor().Values(), functionStates},
	} {
		m := reflect.ValueOf(e.names)
		seen := map[string]bool{}
		for _, k := range m.MapKeys() {
			if e.values.ByNumber(protoreflect.EnumNumber(k.Int())) == nil || k.Int() == 0 {
				t.Errorf("%v has a name, but is no value", k)
			}
			seen[m.MapIndex(k).String()] = true
		}
		if len(seen) != e.values.Len()-1 {
			t.Errorf("%s: %d values, %d names", e.values.Get(0).FullName(), e.values.Len(), len(seen))
		}
	}
	for _, s := range device.States() {
		if n := number(functionStates, s); functionStates[n] != s {
			t.Errorf("state %s is %v", s, n)
		}
	}
	for _, s := range ports.States() {
		if n := number(states, s); states[n] != s {
			t.Errorf("state %s is %v", s, n)
		}
	}
}

func pick[T any](rnd *rand.Rand, values ...T) T { return values[rnd.IntN(len(values))] }

// randomSpec returns a valid Spec.
func randomSpec(rnd *rand.Rand) ports.Spec {
	s := ports.Spec{
		Key:         ports.Key{Network: pick(rnd, "a", "b.c"), ContainerID: fmt.Sprint(rnd.Uint32()), Ifname: pick(rnd, "eth0", "net1")},
		Netns:       "/run/netns/" + fmt.Sprint(rnd.IntN(10)),
		Kind:        ports.Veth,
		LogicalPort: fmt.Sprint("lp", rnd.IntN(10)),
		IfaceIDVer:  pick(rnd, "", "7"),
		Addressing:  pick(rnd, ports.Static, ports.FromLogicalPort),
		MTU:         1280 + rnd.IntN(1000),
	}
	if s.Kind = pick(rnd, ports.Veth, ports.VF, ports.SF, ports.Auto); s.Kind != ports.Veth {
		randomFunction(rnd, &s)
	}
	if s.Addressing == ports.Static {
		s.MAC = pick(rnd, ports.MAC{}, ports.MAC{2, byte(rnd.IntN(256)), 3, 4, 5, byte(rnd.IntN(256))})
		for i := range rnd.IntN(4) {
			s.Addresses = append(s.Addresses, pick(rnd, netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/24", i, 1+rnd.IntN(250))), netip.MustParsePrefix(fmt.Sprintf("fd00:%x::%x/64", i, 1+rnd.IntN(65000)))))
		}
	}
	if rnd.IntN(2) == 0 {
		s.Gateways = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fe80::1")}[:1+rnd.IntN(2)]
	}
	for i := range rnd.IntN(3) {
		s.Routes = append(s.Routes, ports.Route{
			Destination: netip.MustParsePrefix(fmt.Sprintf("172.%d.0.0/16", 16+i)), Gateway: pick(rnd, netip.Addr{}, netip.MustParseAddr("10.0.0.9")),
			MTU: pick(rnd, 0, 1400), AdvMSS: pick(rnd, 0, 1360), Metric: rnd.Uint32(),
		})
	}
	if rnd.IntN(2) == 0 {
		s.Labels = map[string]string{"pod": fmt.Sprint(rnd.IntN(9)), "ns": "x"}
	}
	return s
}

// randomFunction sets what is about functions.
func randomFunction(rnd *rand.Rand, s *ports.Spec) {
	switch s.Kind {
	case ports.VF:
		s.Fallback = pick(rnd, nil, []ports.Kind{ports.SF}, []ports.Kind{ports.SF, ports.Veth})
	case ports.SF:
		s.Fallback = pick(rnd, nil, []ports.Kind{ports.VF})
	case ports.Auto, ports.Veth:
		s.Fallback = pick(rnd, []ports.Kind{ports.VF, ports.SF}, []ports.Kind{ports.SF, ports.Veth})
	}
	s.Pool = pick(rnd, "", "fast")
	if slices.Contains(s.Fallback, ports.Veth) {
		return
	}
	s.Device = pick(rnd, "", "0000:03:00.2")
	yes, no := true, false
	s.Attributes = ports.Attributes{
		Trust: pick(rnd, nil, &yes, &no), SpoofCheck: pick(rnd, nil, &yes, &no),
		LinkState: pick(rnd, "", ports.LinkAuto, ports.LinkEnable, ports.LinkDisable),
		MinRate:   pick(rnd, 0, uint64(1e6)), MaxRate: pick(rnd, 0, uint64(100e9)),
	}
	if rnd.IntN(2) == 0 {
		s.Attributes.VLAN, s.Attributes.QoS = uint16(1+rnd.IntN(4094)), uint8(rnd.IntN(8))
		s.Attributes.VLANProto = pick(rnd, "", ports.VLAN8021Q, ports.VLAN8021AD)
	}
}

// A valid specification is the same after its way over the wire.
func TestSpecRoundTrip(t *testing.T) {
	compare := []cmp.Option{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		want := randomSpec(rnd)
		if valid, err := want.Validate(); err != nil || !cmp.Equal(valid, want, compare...) {
			t.Fatalf("seed %d: not valid: %+v: %v", seed, want, err)
		}
		wire, err := proto.Marshal(specMessage(want))
		if err != nil {
			t.Fatal(err)
		}
		var m offloadv1.PortSpec
		if err := proto.Unmarshal(wire, &m); err != nil {
			t.Fatal(err)
		}
		got, wait, err := parseSpec(&m)
		if err != nil || wait != ports.UntilInstalled {
			t.Fatalf("seed %d: %v, %v", seed, wait, err)
		}
		if diff := cmp.Diff(want, got, compare...); diff != "" || want.Differ(got) != nil {
			t.Fatalf("seed %d: sent -, got +:\n%s", seed, diff)
		}
	}
}

// Each field that cannot be as it is gets named, by its path in the request, and reaches no seam.
func TestInvalidRequests(t *testing.T) {
	spec := func(change func(*offloadv1.PortSpec)) *offloadv1.PortSpec {
		s := goodSpec()
		change(s)
		return s
	}
	table := uint32(255)
	for _, c := range []struct {
		err  error
		want string
	}{
		{second(parseSpec2(nil)), "spec"},
		{second(parseSpec2(&offloadv1.PortSpec{})), "spec.key.network spec.key.container_id spec.key.ifname spec.netns spec.logical_port"},
		{second(parseSpec2(spec(func(*offloadv1.PortSpec) {}))), ""},
		{second(parseSpec2(spec(func(m *offloadv1.PortSpec) { m.Key.Network = ports.ProbeNetwork }))), "spec.key.network"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Mac = "zz" }))), "spec.mac"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Mac = "00:00:00:00:00:00" }))), "spec.mac"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Mac = "01:00:00:00:00:00" }))), "spec.mac"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Addresses = []string{"10.0.0.5"} }))), "spec.addresses[0]"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Addresses = []string{"10.0.0.5/24", "224.0.0.1/4"} }))), "spec.addresses[1]"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Gateways = []string{""} }))), "spec.gateways[0]"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) {
			s.Routes = []*offloadv1.Route{{Destination: "x", Gateway: "y"}, {Destination: "10.0.0.0/8", Mtu: 1 << 31}}
		}))), "spec.routes[0].destination spec.routes[0].gateway spec.routes[1].mtu"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Routes = []*offloadv1.Route{nil} }))), "spec.routes[0].destination"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Kind = 77 }))), "spec.kind"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Fallback = []offloadv1.PortKind{77} }))), "spec.fallback[0]"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Kind, s.Fallback = 2, []offloadv1.PortKind{3, 3} }))), "spec.fallback[1]"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) {
			s.Kind, s.Attributes = 2, &offloadv1.FunctionAttributes{Vlan: 1 << 16, Qos: 1 << 8, VlanProtocol: 9, LinkState: 9, MinRate: 2, MaxRate: 1}
		}))), "spec.attributes.vlan spec.attributes.qos spec.attributes.vlan_protocol spec.attributes.link_state spec.attributes.min_rate"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Wait = 77 }))), "spec.wait"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Addressing = -1 }))), "spec.addressing"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Mtu = 1 << 31 }))), "spec.mtu"},
		{second(parseSpec2(spec(func(s *offloadv1.PortSpec) { s.Mtu = 9 }))), "spec.mtu"},
		{second(parsePortKey(nil)), "key"},
		{second(parsePortKey(&offloadv1.PortKey{Network: "a", ContainerId: "b", Ifname: "../x"})), "key.ifname"},
		{second(parsePortFilter(&offloadv1.PortFilter{States: []offloadv1.PortState{0, 3, 9}})), "filter.states[0] filter.states[2]"},
		{second(parseLogicalFlowFilter(&offloadv1.ListLogicalFlowsRequest{Table: &table, Uuid: "xyz", Pipeline: 9, Datapath: strings.Repeat("x", 1025)})), "datapath pipeline table uuid"},
		{second(parseFlowFilter(&offloadv1.ListFlowsRequest{Table: &table, Row: strings.Repeat("a", 37), States: []offloadv1.FlowState{0}})), "table row states[0]"},
		{second(parseTraceRequest(&offloadv1.TraceRequest{})), "microflow"},
		{second(parseTraceRequest(&offloadv1.TraceRequest{Microflow: "ip4", Ct: []string{"trk,est", "trk, new", "", "foo"}})), "ct[1] ct[2] ct[3]"},
		{second(parseTraceRequest(&offloadv1.TraceRequest{Microflow: strings.Repeat("x", 65536), Ct: slices.Repeat([]string{"trk"}, 65)})), "microflow ct"},
		{second(parseFilterFilter(&offloadv1.ListFiltersRequest{Port: strings.Repeat("x", 1025), Chain: proto.Uint32(1 << 28), States: []offloadv1.FilterState{0, 1, 99}})), "port chain states[0] states[2]"},
		{second(parseChainsRequest(&offloadv1.ListChainsRequest{})), "port"},
		{second(parseExplainRequest(&offloadv1.ExplainRequest{Microflow: strings.Repeat("x", 65536), Ct: []string{"foo"}})), "microflow port ct[0]"},
	} {
		var got []string
		if e, ok := errors.AsType[*reason.Error](c.err); ok {
			for _, f := range e.Fields {
				got = append(got, f.Path)
			}
		}
		if s := strings.Join(got, " "); s != c.want || (c.err == nil) != (c.want == "") || c.err != nil && reason.Of(c.err) != reason.InvalidField {
			t.Errorf("refused %q (%v), want %q", s, c.err, c.want)
		}
	}
}

func parseSpec2(m *offloadv1.PortSpec) (ports.Spec, error) {
	s, _, err := parseSpec(m)
	return s, err
}

func second[T any](_ T, err error) error { return err }

// What a caller says arrives behind the seams, with defaults.
func TestFilters(t *testing.T) {
	table := uint32(0)
	f, err := parseLogicalFlowFilter(&offloadv1.ListLogicalFlowsRequest{Table: &table, Uuid: "AB-12", Pipeline: offloadv1.Pipeline_PIPELINE_EGRESS})
	if err != nil || f.Table == nil || *f.Table != 0 || f.UUID != "ab-12" || f.Pipeline != Egress {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := parseLogicalFlowFilter(&offloadv1.ListLogicalFlowsRequest{}); err != nil || f != (LogicalFlowFilter{}) {
		t.Errorf("%+v, %v", f, err)
	}
	p := plain("n", "c", ports.Ready)
	p.Spec.Netns = "/x"
	for filter, want := range map[*offloadv1.PortFilter]bool{
		nil: true,
		{}:  true,
		{Network: "n", ContainerId: "c", LogicalPort: "c", Netns: "/x", States: []offloadv1.PortState{3}}: true,
		{Network: "m"}:     false,
		{ContainerId: "d"}: false,
		{LogicalPort: "d"}: false,
		{Netns: "/y"}:      false,
		{States: []offloadv1.PortState{offloadv1.PortState_PORT_STATE_CREATING}}: false,
	} {
		f, err := parsePortFilter(filter)
		if err != nil || f.selects(p) != want {
			t.Errorf("%v selects it: %v, %v", filter, !want, err)
		}
	}
}

// Any bytes that decode as a request give a valid Spec or name a field, and nothing else.
func FuzzParseSpec(f *testing.F) {
	for seed := range uint64(5) {
		wire, err := proto.Marshal(specMessage(randomSpec(rand.New(rand.NewPCG(seed, 0)))))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var m offloadv1.PortSpec
		if proto.Unmarshal(wire, &m) != nil {
			return
		}
		s, _, err := parseSpec(&m)
		if err != nil {
			if e, ok := errors.AsType[*reason.Error](err); !ok || len(e.Fields) == 0 || e.Reason != reason.InvalidField {
				t.Fatalf("%v", err)
			}
			return
		}
		if again, err := s.Validate(); err != nil || again.Differ(s) != nil {
			t.Fatalf("%+v is not valid: %v", s, err)
		}
	})
}
