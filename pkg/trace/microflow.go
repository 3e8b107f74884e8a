package trace

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
)

// Registers of the logical network, as the compiler uses them. The conntrack zones have no names in the language.
var (
	inport  = logical.Symbols().Lookup("inport").Field
	outport = logical.Symbols().Lookup("outport").Field
)

const (
	dnatZone = ir.Reg11
	snatZone = ir.Reg12
	portZone = ir.Reg13
)

// A Microflow is a packet, and where it enters the logical network.
type Microflow struct {
	// Match is what the packet is said to have, but for the input port.
	Match    ir.Match
	Datapath *sb.Datapath
	Port     *sb.Port
}

// Packet returns the packet. Fields that are not mentioned are 0.
func (f *Microflow) Packet() (pkt eval.Packet) {
	for _, t := range f.Match {
		pkt.Set(t.Field, t.Value)
	}
	return pkt
}

// ParseMicroflow reads the only packet that satisfies an expression, as ovn-trace(8) takes it. It enters at the datapath of its inport,
// which must be that of the given name or UUID unless that is "". Errors have a reason of pkg/reason.
func ParseMicroflow(store *sb.Store, text, datapath string) (Microflow, error) {
	match, names, err := assignment(store, text, datapath)
	if err != nil {
		return Microflow{}, err
	}
	t, ok := match.Term(inport)
	if !ok {
		return Microflow{}, malformed("names no inport")
	}
	f := Microflow{Port: store.PortByName(names[t.Value.Lo])}
	if f.Port == nil {
		return Microflow{}, reason.Errorf(reason.LPortNotFound, "trace: no logical port %q", names[t.Value.Lo])
	}
	f.Datapath = store.Datapaths[f.Port.Datapath]
	switch dp := f.Datapath; {
	case dp == nil:
		return Microflow{}, reason.Errorf(reason.DatapathNotFound, "trace: the datapath of port %s is not known here", f.Port.Name)
	case datapath != "" && datapath != dp.Name && datapath != dp.UUID.String():
		return Microflow{}, reason.Errorf(reason.DatapathNotFound, "trace: port %s is in datapath %s, not %s", f.Port.Name, dp.Name, datapath)
	}
	for _, t := range match {
		if t.Field == outport && t.Value.Lo != 0 {
			return Microflow{}, malformed("an outport is found by the pipeline, not given")
		}
		if t.Field != inport {
			f.Match = append(f.Match, t)
		}
	}
	return f, nil
}

// assignment parses text into the only values of fields that satisfy it. A port's value is its position in names, which
// starts with the empty name.
func assignment(store *sb.Store, text, datapath string) (ir.Match, []string, error) {
	expr, err := logical.ParseMatch(text, logical.Symbols(), sets{store, datapath})
	if err != nil {
		return nil, nil, malformed("%w", err)
	}
	matches, err := expr.Matches(func(string) bool { return true })
	if err != nil {
		return nil, nil, malformed("%w", err)
	}
	names := []string{""}
	number := func(name string) (uint32, bool) {
		i := slices.Index(names, name)
		if i < 0 {
			i = len(names)
			names = append(names, name)
		}
		return uint32(i), true
	}
	var found []logical.FlowMatch
	matches.ForDatapath(number, func(m logical.FlowMatch) { found = append(found, m) })
	switch {
	case len(found) == 0:
		return nil, nil, malformed("constraints are contradictory")
	case len(found) > 1:
		return nil, nil, malformed("constraints are ambiguous: %s", expr)
	}
	return found[0].Match, names, nil
}

// malformed is an error about the microflow.
func malformed(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &reason.Error{
		Reason: reason.InvalidField, Err: fmt.Errorf("trace microflow: %w", err),
		Fields: []reason.Field{{Path: "microflow", Cause: err.Error()}},
	}
}

// sets are the sets that a microflow may name. A set of one is as good as its member.
type sets struct {
	sb       *sb.Store
	datapath string
}

func (s sets) AddressSet(name string) ([]logical.Constant, bool) {
	set := s.sb.AddressSetByName(name)
	if set == nil {
		return nil, false
	}
	constants, _ := logical.ParseAddressSet(set.Addresses)
	return constants, true
}

// PortGroup finds a group by the name it has in the Southbound, or in the Northbound if the datapath is given.
func (s sets) PortGroup(name string) ([]string, bool) {
	if g := s.sb.PortGroupByName(name); g != nil {
		return g.Ports, true
	}
	for _, dp := range s.sb.Datapaths {
		if dp.Name != s.datapath && dp.UUID.String() != s.datapath {
			continue
		}
		if g := s.sb.PortGroupByName(strconv.FormatUint(uint64(dp.Key), 10) + "_" + name); g != nil {
			return g.Ports, true
		}
	}
	return nil, false
}

// enter puts pkt at the door of port and returns the table where it begins: the first one of the bridge if it
// comes from outside, the first one of the pipeline if the port connects two datapaths.
func (n Network) enter(pkt *eval.Packet, dp *sb.Datapath, port *sb.Port) (table uint8, err error) {
	set := func(f ir.Field, v uint64) { pkt.Set(f, ir.U64(v)) }
	tagged := func(tag uint16) {
		if tag != 0 {
			set(ir.VLANTCI, vlanPresent|uint64(tag))
		}
	}
	if n.Local.Datapaths[dp.UUID] == nil {
		return 0, reason.Errorf(reason.DatapathNotFound, "trace: datapath %s is not local to this chassis", dp.Name)
	}
	switch port.Type {
	case sb.Patch, sb.L3Gateway:
		set(ir.Metadata, uint64(dp.Key))
		set(inport, uint64(port.Key))
		set(portZone, uint64(n.Local.Zones[port.Name]))
		set(dnatZone, uint64(n.Local.Zones[dp.UUID.String()+"_dnat"]))
		set(snatZone, uint64(n.Local.Zones[dp.UUID.String()+"_snat"]))
		return firstIngress, nil
	case sb.Localnet, sb.L2Gateway:
		if ofport := n.Local.Patch[port.Name]; ofport != 0 {
			set(ir.InPort, uint64(ofport))
			tagged(port.Tag)
			return 0, nil
		}
	default:
		name := port.Name
		if port.Parent != "" {
			name = port.Parent
			tagged(port.Tag)
		}
		if p := n.Local.Ports[name]; p.OFPort != 0 {
			set(ir.InPort, uint64(p.OFPort))
			return 0, nil
		}
	}
	if c := n.SB.Chassis[port.Chassis]; c != nil && c.UUID != n.Local.Chassis {
		return 0, reason.Errorf(reason.LPortClaimedElsewhere, "trace: port %s is on chassis %s: trace there", port.Name, c.Name)
	}
	return 0, reason.Errorf(reason.LPortNotFound, "trace: port %s has no interface on this chassis", port.Name)
}

const vlanPresent = 0x1000
