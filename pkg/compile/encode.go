package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
)

// Unsupported says that a flow's actions have no OpenFlow equivalent here, so that the flow cannot be installed.
type Unsupported struct {
	Action string // as logical.Verb names it
	Reason string
}

// Error returns action and reason.
func (e *Unsupported) Error() string { return fmt.Sprintf("compile action %s: %s", e.Action, e.Reason) }

// An encodeContext is what the encoding of a logical flow's actions depends on, besides the actions.
type encodeContext struct {
	IsSwitch    bool
	DatapathKey uint32
	Cookie      uint32 // of the flow's rules

	// SNATZoneRequested says that the datapath has snat-ct-zone: translation in the common zone uses the SNAT zone.
	SNATZoneRequested bool
	// CTZeroSNAT says that the switch knows "ct(nat(src))" without an address, which keeps committed connections from
	// colliding with translated ones.
	CTZeroSNAT bool
	// HashL4Sym says that the switch can hash ports symmetrically for a select group.
	HashL4Sym bool

	Port func(name string) (key uint32, ok bool) // key of a logical port or multicast group

	// Group and RateMeter return the identifier of a group, and of a meter that this flow alone uses (in kbit/s and
	// kbit); 0: none is left. If they are nil, actions that need them are unsupported.
	Group     func(ir.SelectGroup) uint32
	RateMeter func(rate, burst uint64) uint32

	// TunnelTo gives the OpenFlow port of the tunnel to the chassis that has the logical port.
	// Collector tells whether the switch has the Flow_Sample_Collector_Set. Either may be nil: none is known.
	TunnelTo  func(port string) (ofport uint32, ok bool)
	Collector func(set uint32) bool

	// ControllerMeter is the name of the meter that limits what the flow sends to the controller, "": none. NamedMeter
	// returns the identifier of a row of table Meter, 0 if there is none; it may be nil if sharable.
	ControllerMeter string
	NamedMeter      func(name string) uint32
}

// encode translates actions to OpenFlow as ovn-controller(8) does. An error is an [*Unsupported].
func encode(acts logical.Actions, ctx encodeContext) ([]ir.Action, error) {
	o := encoding{encodeContext: &ctx, at: acts.At}
	if err := o.list(acts.List); err != nil {
		return nil, err
	}
	return o.actions, nil
}

// sharable reports whether the encoding of acts is the same for all flows in the stage, as far as the three flags
// IsSwitch, SNATZoneRequested and CTZeroSNAT are.
func sharable(acts logical.Actions) bool {
	for a := range acts.All() {
		switch a := a.(type) {
		case logical.LoadPort:
			if a.Port != "" {
				return false
			}
		case logical.CTLB:
			if len(a.Backends) > 0 {
				return false
			}
		case logical.Select, logical.FwdGroup, logical.SetMeter, logical.Sample:
			return false
		case logical.Reply, logical.Log, logical.LoadOVNField, logical.BindVPort:
			return false
		}
	}
	return true
}

// An encoding is the OpenFlow actions so far of a flow in stage at.
type encoding struct {
	*encodeContext
	at      logical.Stage
	actions []ir.Action
	icmp    bool // they are for an ICMP error that the controller makes
}

func (o *encoding) add(acts ...ir.Action) { o.actions = append(o.actions, acts...) }

func (o *encoding) list(acts []logical.Action) error {
	for _, a := range acts {
		if err := o.action(a); err != nil {
			return err
		}
	}
	return nil
}

// nested encodes the actions of a { } by themselves.
func (o *encoding) nested(acts []logical.Action) ([]ir.Action, error) {
	inner := encoding{encodeContext: o.encodeContext, at: o.at}
	err := inner.list(acts)
	return inner.actions, err
}

func (o *encoding) action(a logical.Action) error {
	switch a := a.(type) {
	case logical.Output:
		o.add(ir.Resubmit{Table: o.outputTable()})
	case logical.Next:
		o.add(ir.Resubmit{Table: stageTable(a.To)})
	case logical.LoadPort:
		o.add(ir.Load(a.Dst.Sub(), uint64(o.key(a.Port))))
	case logical.Load:
		o.load(a)
	case logical.Move:
		o.add(ir.Move{Src: a.Src.Sub(), Dst: a.Dst.Sub()})
	case logical.Exchange:
		x, y := a.A.Sub(), a.B.Sub()
		o.add(ir.Push{Sub: y}, ir.Push{Sub: x}, ir.Pop{Sub: y}, ir.Pop{Sub: x})
	case logical.Push:
		o.add(ir.Push{Sub: a.Field.Sub()})
	case logical.Pop:
		o.add(ir.Pop{Sub: a.Field.Sub()})
	case logical.DecTTL:
		o.add(ir.DecTTL{})
	case logical.CTNext:
		o.add(ir.CT{Table: o.nextTable(), ZoneFrom: o.zone()})
	case logical.CTCommitV1:
		o.ctCommitV1(a)
	case logical.CTCommit:
		return o.ctCommit(a)
	case logical.NAT:
		o.nat(a)
	case logical.CTCommitNAT:
		o.add(ir.CT{Commit: true, Table: o.nextTable(), ZoneFrom: o.zone(), NAT: &ir.NAT{}})
	case logical.CTLB:
		return o.ctLB(a)
	case logical.Select:
		return o.selectMember(a)
	case logical.CTClear:
		o.add(ir.CTClear{})
	case logical.MACCacheUse:
		o.add(ir.Resubmit{Table: TableMACCacheUse})
	case logical.CTSNATToVIP:
		o.add(ir.Resubmit{Table: TableCTSNATHairpin})
	case logical.Clone:
		inner, err := o.nested(a.Nested)
		if err != nil {
			return err
		}
		o.add(ir.Clone{Actions: inner})
	case logical.GetMAC:
		o.getMAC(a)
	case logical.LookupMAC:
		o.lookupMAC(a)
	case logical.LookupMACIP:
		o.lookupMACIP(a)
	case logical.GetFDB:
		o.getFDB(a)
	case logical.LookupFDB:
		o.lookupFDB(a)
	case logical.Test:
		return o.test(a)
	case logical.SetQueue:
		o.add(ir.SetQueue{ID: uint32(a.ID)})
	case logical.SetMeter:
		return o.setMeter(a)
	case logical.CheckPktLarger:
		o.add(ir.CheckPktLarger{Len: a.Len, Dst: a.Dst.Sub()})
	case logical.FwdGroup:
		return o.fwdGroup(a)
	case logical.CommitECMPNH:
		o.add(learnECMP(a, TableECMPNextHopMAC), learnECMP(a, TableECMPNextHop))
	case logical.CommitLBAff:
		o.commitLBAff(a)
	case logical.Sample:
		o.sample(a)
	default:
		return o.punt(a)
	}
	return nil
}

// stageTable returns the OpenFlow table of a logical stage.
func stageTable(s logical.Stage) uint8 {
	if s.Pipeline == logical.Egress {
		return TableEgress + s.Table
	}
	return TableIngress + s.Table
}

func (o *encoding) nextTable() uint8 { return stageTable(o.at) + 1 }

func (o *encoding) outputTable() uint8 {
	if o.at.Pipeline == logical.Egress {
		return TableSaveInport
	}
	return TableOutputInit
}

// zoneIn returns the conntrack zone that the register holds.
func zoneIn(reg ir.Field) ir.Sub { return ir.Sub{Field: reg, Ofs: 0, N: 16} }

// zone returns the zone of the logical port on a switch, the DNAT zone on a router.
func (o *encoding) zone() ir.Sub {
	if o.IsSwitch {
		return zoneIn(regCTZone)
	}
	return zoneIn(regDNATZone)
}

// key returns what inport and outport hold for a name; 0 for a name that is unknown and for "".
func (o *encoding) key(port string) uint32 {
	if port == "" {
		return 0
	}
	key, _ := o.Port(port)
	return key
}

func (o *encoding) load(a logical.Load) {
	dst := a.Dst.Sub()
	s := ir.LoadWide(dst, a.Value.Value)
	if a.Value.Masked {
		s.Mask = a.Value.Mask.And(ir.Ones(dst.N)).Shl(dst.Ofs)
	}
	o.add(s)
}

// commit returns a commit to the zone with the given writes of mark and label.
func (o *encoding) commit(zone ir.Sub, exec []ir.Action) ir.CT {
	ct := ir.CT{Commit: true, Table: ir.NoTable, ZoneFrom: zone, Exec: exec}
	if o.CTZeroSNAT {
		ct.NAT = &ir.NAT{Src: true}
	}
	return ct
}

func (o *encoding) ctCommitV1(a logical.CTCommitV1) {
	var exec []ir.Action
	if a.MarkMask != 0 {
		exec = append(exec, ir.Set{Field: ir.CTMark, Value: ir.U64(uint64(a.Mark)), Mask: ir.U64(uint64(a.MarkMask))})
	}
	if !a.LabelMask.IsZero() {
		exec = append(exec, ir.Set{Field: ir.CTLabel, Value: a.Label, Mask: a.LabelMask})
	}
	o.add(o.commit(zoneIn(regCTZone), exec))
}

func (o *encoding) ctCommit(a logical.CTCommit) error {
	exec, err := o.nested(a.Nested)
	if err != nil {
		return err
	}
	for i, x := range exec {
		var dst ir.Field
		switch x := x.(type) {
		case ir.Set:
			dst = x.Field
		case ir.Move:
			dst = x.Dst.Field
		}
		if dst != ir.CTMark && dst != ir.CTLabel {
			return &Unsupported{logical.Verb(a), fmt.Sprintf("nested action %d does not write ct_mark or ct_label", i+1)}
		}
	}
	o.add(o.commit(o.zone(), exec))
	return nil
}

func (o *encoding) nat(a logical.NAT) {
	zone := regDNATZone
	switch a.Kind {
	case logical.CTDNAT:
	case logical.CTSNAT:
		zone = regSNATZone
	case logical.CTDNATInCZone, logical.CTSNATInCZone:
		if o.SNATZoneRequested {
			zone = regSNATZone
		}
	}
	nat := &ir.NAT{}
	if a.Addr.IsValid() {
		nat = natTo(netip.AddrPortFrom(a.Addr, a.PortMin))
		nat.PortMax = a.PortMax
		nat.Dst = a.Kind == logical.CTDNAT || a.Kind == logical.CTDNATInCZone
		nat.Src = !nat.Dst
	}
	o.add(ir.CT{Commit: a.Addr.IsValid(), Table: o.nextTable(), ZoneFrom: zoneIn(zone), NAT: nat})
}

// natTo returns the destination translation to a; port 0 is no port.
func natTo(a netip.AddrPort) *ir.NAT {
	return &ir.NAT{Dst: true, AddrMin: addrBits(a.Addr()), IPv6: a.Addr().Is6(), PortMin: a.Port()}
}

// addrBits returns the 32 or 128 bits of a.
func addrBits(a netip.Addr) ir.U128 { return ir.FromBytes(a.AsSlice()) }

// Bits of ct_mark, or ct_label, that mark a connection as load balanced (lib/ovn-util.h, OVN_CT_NATTED and following).
const (
	ctNatted    = 1
	ctSkipSNAT  = 2
	ctForceSNAT = 3
)

// defaultWeight is the weight of a backend.
const defaultWeight = 100

func (o *encoding) ctLB(a logical.CTLB) error {
	if len(a.Backends) == 0 {
		o.add(ir.CT{Table: o.nextTable(), ZoneFrom: o.zone(), NAT: &ir.NAT{}})
		return nil
	}
	g := ir.SelectGroup{Method: "dp_hash"}
	if a.HashFields != "" {
		fields, err := hashFields(a.HashFields)
		if err != nil {
			return &Unsupported{logical.Verb(a), err.Error()}
		}
		g.Method, g.Fields = "hash", fields
	}
	mark := ir.CTLabel
	if a.Mark {
		mark = ir.CTMark
	}
	exec := []ir.Action{ir.Load(ir.Bit(mark, ctNatted), 1)}
	switch a.Flag {
	case logical.SkipSNAT:
		exec = append(exec, ir.Load(ir.Bit(mark, ctSkipSNAT), 1))
	case logical.ForceSNAT:
		exec = append(exec, ir.Load(ir.Bit(mark, ctForceSNAT), 1))
	case logical.NoSNATFlag:
	}
	for _, b := range a.Backends {
		ct := ir.CT{Commit: true, Table: o.nextTable(), ZoneFrom: o.zone(), NAT: natTo(b), Exec: exec}
		g.Buckets = append(g.Buckets, ir.Bucket{Weight: defaultWeight, Actions: []ir.Action{ct}})
	}
	return o.toGroup(a, g)
}

// toGroup hands the packet to the group of action a.
func (o *encoding) toGroup(a logical.Action, g ir.SelectGroup) error {
	if o.Group == nil {
		return &Unsupported{logical.Verb(a), "no groups"}
	}
	id := o.Group(g)
	if id == 0 {
		return &Unsupported{logical.Verb(a), "no group identifier left"}
	}
	o.add(ir.Group{ID: id})
	return nil
}

func (o *encoding) setMeter(a logical.SetMeter) error {
	if o.RateMeter == nil {
		return &Unsupported{logical.Verb(a), "no meters"}
	}
	id := o.RateMeter(a.Rate, a.Burst)
	if id == 0 {
		return &Unsupported{logical.Verb(a), "no meter identifier left"}
	}
	o.add(ir.Meter{ID: id})
	return nil
}

// hashFields parses the names of the fields that a select group hashes. The result is sorted.
func hashFields(names string) ([]ir.Field, error) {
	var fields []ir.Field
	for name := range strings.SplitSeq(names, ",") {
		f, ok := hashField(strings.TrimSpace(name))
		if !ok {
			return nil, fmt.Errorf("unknown hash field %q", name)
		}
		fields = append(fields, f)
	}
	slices.Sort(fields)
	return slices.Compact(fields), nil
}

// hashField returns the field that selection_fields of ovn-nb(5) means; northd has put the protocol in the place of
// "tp".
func hashField(name string) (ir.Field, bool) {
	for _, f := range []ir.Field{
		ir.EthSrc, ir.EthDst, ir.IPSrc, ir.IPDst, ir.IPv6Src, ir.IPv6Dst,
		ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst, ir.SCTPSrc, ir.SCTPDst,
	} {
		if f.String() == name {
			return f, true
		}
	}
	return 0, false
}

// hashL4SymParam is the parameter of dp_hash that asks for the hash algorithm OVS_HASH_ALG_SYM_L4.
const hashL4SymParam = 1 << 32

func (o *encoding) selectMember(a logical.Select) error {
	g := ir.SelectGroup{Method: "dp_hash"}
	if o.HashL4Sym {
		g.Param = hashL4SymParam
	}
	for _, m := range a.Members {
		g.Buckets = append(g.Buckets, ir.Bucket{Weight: m.Weight, Actions: []ir.Action{
			ir.Load(a.Dst.Sub(), uint64(m.ID)), ir.Resubmit{Table: o.nextTable()},
		}})
	}
	return o.toGroup(a, g)
}

// fwdGroup does nothing if one of the ports is unknown, as ovn-controller does. (Version 23.03 of it writes the decimal
// digits of a port's key after "0x", so that it finds only ports with keys below ten.)
func (o *encoding) fwdGroup(a logical.FwdGroup) error {
	if len(a.ChildPorts) == 0 {
		return nil
	}
	g := ir.SelectGroup{Method: "dp_hash"}
	for _, name := range a.ChildPorts {
		key, ok := o.Port(name)
		if !ok {
			return nil
		}
		b := ir.Bucket{Weight: 1, Actions: []ir.Action{
			ir.Load(ir.Sub{Field: regOutport, Ofs: 0, N: 16}, uint64(key)), ir.Resubmit{Table: o.outputTable()},
		}}
		if a.Liveness {
			if o.TunnelTo == nil {
				return nil
			}
			if b.WatchPort, ok = o.TunnelTo(name); !ok {
				return nil
			}
		}
		g.Buckets = append(g.Buckets, b)
	}
	return o.toGroup(a, g)
}

func (o *encoding) sample(a logical.Sample) {
	if o.Collector == nil || !o.Collector(a.CollectorSet) {
		return
	}
	s := ir.Sample{
		Probability:  a.Probability,
		CollectorSet: a.CollectorSet,
		ObsDomain:    uint32(a.ObsDomain)<<24 | o.DatapathKey&0xffffff,
		ObsPoint:     a.ObsPoint,
		SamplingPort: portNone,
	}
	if a.Cookie {
		s.ObsPoint = o.Cookie
	}
	o.add(s)
}

// An arg is a value that a table, or the controller, expects in the field dst.
type arg struct {
	src ir.Sub
	dst ir.Field
}

func (a arg) inPlace() bool { return a.src.Field == a.dst }

// withArgs adds what f adds, with the arguments in their places before and what was there back after it.
func (o *encoding) withArgs(args []arg, f func()) {
	for _, a := range args {
		if !a.inPlace() {
			o.add(ir.Push{Sub: ir.Whole(a.dst)})
		}
	}
	for _, a := range slices.Backward(args) {
		if !a.inPlace() {
			o.add(ir.Push{Sub: a.src})
		}
	}
	for _, a := range args {
		if !a.inPlace() {
			o.add(ir.Pop{Sub: ir.Whole(a.dst)})
		}
	}
	f()
	for _, a := range slices.Backward(args) {
		if !a.inPlace() {
			o.add(ir.Pop{Sub: ir.Whole(a.dst)})
		}
	}
}

// ipArg returns the register in which the tables expect an IP address.
func ipArg(v6 bool) ir.Field {
	if v6 {
		return ir.XXReg0
	}
	return ir.Reg0
}

// lookup runs table, which sets bit of the flags if it finds something.
func (o *encoding) lookup(table uint8, bit int) {
	o.add(ir.Load(ir.Bit(regFlags, bit), 0), ir.Resubmit{Table: table})
}

// result copies bit of the flags.
func (o *encoding) result(bit int, dst logical.Operand) {
	o.add(ir.Move{Src: ir.Bit(regFlags, bit), Dst: dst.Sub()})
}

func (o *encoding) getMAC(a logical.GetMAC) {
	args := []arg{{a.Port.Sub(), regOutport}, {a.IP.Sub(), ipArg(a.IPv6)}}
	o.withArgs(args, func() {
		o.add(ir.SetWhole(ir.EthDst, 0), ir.Resubmit{Table: TableMACBinding})
	})
}

func (o *encoding) lookupMAC(a logical.LookupMAC) {
	args := []arg{{a.Port.Sub(), regInport}, {a.IP.Sub(), ipArg(a.IPv6)}, {a.MAC.Sub(), ir.EthSrc}}
	o.withArgs(args, func() {
		o.lookup(TableMACLookup, flagLookupMAC)
		o.result(flagLookupMAC, a.Dst)
	})
}

// lookupMACIP saves eth.dst, which the table writes.
func (o *encoding) lookupMACIP(a logical.LookupMACIP) {
	args := []arg{{a.Port.Sub(), regOutport}, {a.IP.Sub(), ipArg(a.IPv6)}}
	o.withArgs(args, func() {
		o.add(ir.Push{Sub: ir.Whole(ir.EthDst)})
		o.lookup(TableMACBinding, flagLookupMAC)
		o.result(flagLookupMAC, a.Dst)
		o.add(ir.Pop{Sub: ir.Whole(ir.EthDst)})
	})
}

func (o *encoding) getFDB(a logical.GetFDB) {
	o.withArgs([]arg{{a.MAC.Sub(), ir.EthDst}}, func() {
		o.add(ir.SetWhole(regOutport, 0), ir.Resubmit{Table: TableGetFDB})
	})
	if dst := a.Dst.Sub(); dst.Field != regOutport {
		o.add(ir.Move{Src: ir.Whole(regOutport), Dst: dst})
	}
}

func (o *encoding) lookupFDB(a logical.LookupFDB) {
	args := []arg{{a.Port.Sub(), regInport}, {a.MAC.Sub(), ir.EthSrc}}
	o.withArgs(args, func() { o.lookup(TableLookupFDB, flagLookupFDB) })
	o.result(flagLookupFDB, a.Dst)
}

func (o *encoding) test(a logical.Test) error {
	var table uint8
	var bit int
	switch a.Kind {
	case logical.DNSLookup:
		return o.punt(a)
	case logical.ChkLBHairpin:
		table, bit = TableLBHairpin, flagLookupHairpin
	case logical.ChkLBHairpinReply:
		table, bit = TableLBHairpinReply, flagLookupHairpin
	case logical.CheckInPortSec:
		table, bit = TableInPortSec, flagCheckPortSec
	case logical.CheckOutPortSec:
		table, bit = TableOutPortSec, flagCheckPortSec
	case logical.ChkECMPNHMAC:
		table, bit = TableECMPNextHopMAC, flagLookupECMPNH
	case logical.ChkECMPNH:
		table, bit = TableECMPNextHop, flagLookupECMPNH
	case logical.ChkLBAff:
		table, bit = TableLBAffinity, flagUseLBAffinity
	}
	o.lookup(table, bit)
	o.result(bit, a.Dst)
	return nil
}
