package api

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A parser turns the text of requests into values and collects what is wrong with them.
type parser struct{ fields []reason.Field }

func (p *parser) refuse(path, format string, args ...any) {
	p.fields = append(p.fields, reason.Field{Path: path, Cause: fmt.Sprintf(format, args...)})
}

// err returns an error about the fields that are wrong, or nil.
func (p *parser) err() error {
	if len(p.fields) == 0 {
		return nil
	}
	return invalid(p.fields...)
}

// enum returns our name of e; "" if e is 0.
func enum[E interface {
	~int32
	fmt.Stringer
}, N ~string](p *parser, path string, names map[E]N, e E) N {
	n, ok := names[e]
	if !ok && e != 0 {
		p.refuse(path, "%v: unknown", e)
	}
	return n
}

func (p *parser) mac(path, s string) ports.MAC {
	if s == "" {
		return ports.MAC{}
	}
	m, err := ports.ParseMAC(s)
	if err == nil && m == (ports.MAC{}) {
		err = fmt.Errorf("%q: no address", s)
	}
	if err != nil {
		p.refuse(path, "%v", err)
	}
	return m
}

func (p *parser) address(path, s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		p.refuse(path, "%.64q: not an IP address", s)
	}
	return a
}

func (p *parser) prefix(path, s string) netip.Prefix {
	pre, err := netip.ParsePrefix(s)
	if err != nil {
		p.refuse(path, "%.64q: not an IP address with a prefix length", s)
	}
	return pre
}

// bound refuses what is longer than n bytes.
func (p *parser) bound(path, s string, n int) string {
	if len(s) > n {
		p.refuse(path, "is longer than %d bytes", n)
	}
	return s
}

// small returns n, which must be below 1<<31, as an int.
func (p *parser) small(path string, n uint32) int {
	if n > 1<<31-1 {
		p.refuse(path, "%d: too large", n)
		return 0
	}
	return int(n)
}

// at is path[i].
func at(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// maxRequestID is the length of a request's identifier, in bytes.
const maxRequestID = 128

func portKey(k *offloadv1.PortKey) ports.Key {
	return ports.Key{Network: k.GetNetwork(), ContainerID: k.GetContainerId(), Ifname: k.GetIfname()}
}

// parsePortKey returns a valid key, or an error with reason InvalidField.
func parsePortKey(k *offloadv1.PortKey) (ports.Key, error) {
	if k == nil {
		return ports.Key{}, required("key")
	}
	key := portKey(k)
	var p parser
	p.below("key", key.Validate())
	return key, p.err()
}

// below takes over what Validate says of the message in field path, unless something is known about that field.
func (p *parser) below(path string, err error) {
	e, ok := err.(*reason.Error) //nolint:errorlint // Validate returns it as it is, or nothing
	if !ok {
		return
	}
	known := map[string]bool{}
	for _, f := range p.fields {
		known[f.Path] = true
	}
	for _, f := range e.Fields {
		if f.Path = path + "." + f.Path; !known[f.Path] {
			p.fields = append(p.fields, f)
		}
	}
}

// parseSpec returns a valid Spec, or an error with reason InvalidField.
func parseSpec(m *offloadv1.PortSpec) (ports.Spec, ports.Wait, error) {
	if m == nil {
		return ports.Spec{}, "", required("spec")
	}
	var p parser
	if m.GetKey().GetNetwork() == ports.ProbeNetwork {
		p.refuse("spec.key.network", "%s is that of the probe's ports, which it removes", ports.ProbeNetwork)
	}
	s := ports.Spec{
		Key:         portKey(m.GetKey()),
		Netns:       m.GetNetns(),
		Kind:        enum(&p, "spec.kind", kinds, m.GetKind()),
		Pool:        m.GetPool(),
		Device:      m.GetDevice(),
		Attributes:  p.attributes("spec.attributes.", m.GetAttributes()),
		LogicalPort: m.GetLogicalPort(),
		IfaceIDVer:  m.GetIfaceIdVer(),
		Addressing:  enum(&p, "spec.addressing", addressings, m.GetAddressing()),
		MAC:         p.mac("spec.mac", m.GetMac()),
		MTU:         p.small("spec.mtu", m.GetMtu()),
		Labels:      m.GetLabels(),
	}
	for i, k := range m.GetFallback() {
		s.Fallback = append(s.Fallback, enum(&p, at("spec.fallback", i), kinds, k))
	}
	for i, a := range m.GetAddresses() {
		s.Addresses = append(s.Addresses, p.prefix(at("spec.addresses", i), a))
	}
	for i, a := range m.GetGateways() {
		s.Gateways = append(s.Gateways, p.address(at("spec.gateways", i), a))
	}
	for i, r := range m.GetRoutes() {
		path := at("spec.routes", i)
		route := ports.Route{
			Destination: p.prefix(path+".destination", r.GetDestination()),
			MTU:         p.small(path+".mtu", r.GetMtu()),
			AdvMSS:      p.small(path+".advmss", r.GetAdvmss()),
			Metric:      r.GetMetric(),
		}
		if g := r.GetGateway(); g != "" {
			route.Gateway = p.address(path+".gateway", g)
		}
		s.Routes = append(s.Routes, route)
	}
	wait := enum(&p, "spec.wait", waits, m.GetWait())
	if wait == "" {
		wait = ports.UntilInstalled
	}
	valid, err := s.Validate()
	p.below("spec", err)
	return valid, wait, p.err()
}

func (p *parser) attributes(prefix string, m *offloadv1.FunctionAttributes) ports.Attributes {
	a := ports.Attributes{
		VLAN:      uint16(p.upTo(prefix+"vlan", m.GetVlan(), math.MaxUint16)),
		QoS:       uint8(p.upTo(prefix+"qos", m.GetQos(), math.MaxUint8)),
		VLANProto: enum(p, prefix+"vlan_protocol", vlanProtocols, m.GetVlanProtocol()),
		LinkState: enum(p, prefix+"link_state", linkStates, m.GetLinkState()),
		MinRate:   m.GetMinRate(),
		MaxRate:   m.GetMaxRate(),
		RDMA:      m.GetRdma(),
	}
	if s := m.GetInfinibandGuid(); s != "" {
		g, err := device.ParseGUID(s)
		if err != nil {
			p.refuse(prefix+"infiniband_guid", "%v", err)
		}
		a.GUID = &g
	}
	if m != nil {
		a.Trust, a.SpoofCheck = m.Trust, m.SpoofCheck //nolint:protogetter // absent is not false
	}
	return a
}

// upTo returns n, or refuses it if it is larger than most.
func (p *parser) upTo(path string, n, most uint32) uint32 {
	if n > most {
		p.refuse(path, "%d: too large", n)
		return 0
	}
	return n
}

// A portFilter selects ports.
type portFilter struct {
	network, container, lport, netns string
	states                           map[ports.State]bool // nil: any
}

func parsePortFilter(m *offloadv1.PortFilter) (portFilter, error) {
	var p parser
	f := portFilter{network: m.GetNetwork(), container: m.GetContainerId(), lport: m.GetLogicalPort(), netns: m.GetNetns()}
	for i, e := range m.GetStates() {
		path := at("filter.states", i)
		state := enum(&p, path, states, e)
		if e == 0 {
			p.refuse(path, "is unspecified")
		}
		if f.states == nil {
			f.states = map[ports.State]bool{}
		}
		f.states[state] = true
	}
	return f, p.err()
}

// selects reports whether p has everything the filter names.
func (f portFilter) selects(p ports.Port) bool {
	named := func(want, have string) bool { return want == "" || want == have }
	return f.mayKnow(p.Spec.Key) &&
		named(f.lport, p.Spec.LogicalPort) && named(f.netns, p.Spec.Netns) &&
		(f.states == nil || f.states[p.State])
}

// mayKnow reports whether a port with this key can ever be selected.
func (f portFilter) mayKnow(k ports.Key) bool {
	return (f.network == "" || f.network == k.Network) && (f.container == "" || f.container == k.ContainerID)
}

// maxTable is the last OpenFlow table, see OFPTT_MAX of the OpenFlow specification.
const maxTable = 254

func (p *parser) table(path string, n *uint32) *uint8 {
	if n == nil {
		return nil
	}
	if *n > maxTable {
		p.refuse(path, "%d: not between 0 and %d", *n, maxTable)
		return nil
	}
	t := uint8(*n)
	return &t
}

// uuid takes a UUID or its beginning, and returns it in lower case.
func (p *parser) uuid(path, s string) string {
	s = strings.ToLower(p.bound(path, s, 36))
	if strings.Trim(s, "0123456789abcdef-") != "" {
		p.refuse(path, "%.64q: not the beginning of a UUID", s)
	}
	return s
}

const (
	maxNameBytes = 1024 // of a datapath or logical port in a filter
	maxMicroflow = 65535
	maxCT        = 64
)

func parseLogicalFlowFilter(m *offloadv1.ListLogicalFlowsRequest) (LogicalFlowFilter, error) {
	var p parser
	f := LogicalFlowFilter{
		Datapath:    p.bound("datapath", m.GetDatapath(), maxNameBytes),
		Pipeline:    enum(&p, "pipeline", pipelines, m.GetPipeline()),
		Table:       p.table("table", m.Table), //nolint:protogetter // absent is not 0
		LogicalPort: p.bound("logical_port", m.GetLogicalPort(), maxNameBytes),
		UUID:        p.uuid("uuid", m.GetUuid()),
		Counters:    m.GetCounters(),
	}
	return f, p.err()
}

func parseFlowFilter(m *offloadv1.ListFlowsRequest) (FlowFilter, error) {
	var p parser
	f := FlowFilter{
		Table:    p.table("table", m.Table), //nolint:protogetter // absent is not 0
		Cookie:   m.GetCookie(),
		Row:      p.uuid("row", m.GetRow()),
		Counters: m.GetCounters(),
	}
	for i, e := range m.GetStates() {
		path := at("states", i)
		f.States = append(f.States, enum(&p, path, flowStates, e))
		if e == 0 {
			p.refuse(path, "is unspecified")
		}
	}
	return f, p.err()
}

// ctStates are the words of --ct, see ovn-trace(8).
var ctStates = map[string]bool{
	"trk": true, "new": true, "est": true, "rel": true, "rpl": true, "inv": true, "dnat": true, "snat": true,
}

func parseTraceRequest(m *offloadv1.TraceRequest) (TraceRequest, error) {
	var p parser
	r := TraceRequest{
		Datapath:  p.bound("datapath", m.GetDatapath(), maxNameBytes),
		Microflow: p.bound("microflow", m.GetMicroflow(), maxMicroflow),
		CT:        m.GetCt(),
	}
	if r.Microflow == "" {
		p.refuse("microflow", "is required")
	}
	p.ct(r.CT)
	return r, p.err()
}

// ct checks what lookups in the connection tracker are to find.
func (p *parser) ct(states []string) {
	if len(states) > maxCT {
		p.refuse("ct", "has %d, more than %d", len(states), maxCT)
	}
	for i, s := range states[:min(len(states), maxCT)] {
		for word := range strings.SplitSeq(s, ",") {
			if !ctStates[word] {
				p.refuse(at("ct", i), "%.32q: none of trk, new, est, rel, rpl, inv, dnat, snat", word)
			}
		}
	}
}

// maxChain is the largest number of a chain (TC_ACT_EXT_VAL_MASK).
const maxChain = 1<<28 - 1

func parseFilterFilter(m *offloadv1.ListFiltersRequest) (FilterFilter, error) {
	var p parser
	f := FilterFilter{Port: p.bound("port", m.GetPort(), maxNameBytes)}
	if m.Chain != nil { //nolint:protogetter // absent is not 0
		n := m.GetChain()
		if n > maxChain {
			p.refuse("chain", "%d: not between 0 and %d", n, maxChain)
		}
		f.Chain = &n
	}
	for i, e := range m.GetStates() {
		path := at("states", i)
		f.States = append(f.States, enum(&p, path, filterStates, e))
		if e == 0 {
			p.refuse(path, "is unspecified")
		}
	}
	return f, p.err()
}

func parseChainsRequest(m *offloadv1.ListChainsRequest) (string, error) {
	var p parser
	port := p.bound("port", m.GetPort(), maxNameBytes)
	if port == "" {
		p.refuse("port", "is required")
	}
	return port, p.err()
}

func parseExplainRequest(m *offloadv1.ExplainRequest) (ExplainRequest, error) {
	var p parser
	r := ExplainRequest{
		Port:      p.bound("port", m.GetPort(), maxNameBytes),
		Microflow: p.bound("microflow", m.GetMicroflow(), maxMicroflow),
		CT:        m.GetCt(),
	}
	if r.Port == "" {
		p.refuse("port", "is required")
	}
	p.ct(r.CT)
	return r, p.err()
}
