package devlink

import (
	"fmt"
	"strings"
)

// A Port is one of a device's: one to the outside, or one of its embedded switch that leads to a function. Which of the numbers mean
// something is said by the flavour.
type Port struct {
	PortHandle
	Type        PortType
	DesiredType PortType

	// Ifindex and Netdev are those of its network device, of an eswitch port that is the representor; 0 and "": it has none in
	// this network namespace, as yet. Names change: key on the index.
	Ifindex int
	Netdev  string
	IBDev   string // of a port of type ib

	Flavour    Flavour
	Controller uint32 // the number of the host, for pcipf, pcivf, pcisf
	PF         uint16 // likewise
	VF         uint16 // of pcivf
	SF         uint32 // of pcisf
	External   bool   // the function is another host's, as for the hosts of a DPU
	Number     uint32 // of the jack, for physical, cpu and dsa
	Lanes      uint32
	Splittable bool

	// ExternalTold says whether the kernel tells External: Linux 6.1 does not for pcisf.
	ExternalTold bool

	SplitGroup *uint32
	Linecard   *uint32

	// Function is what the port leads to; nil: nothing that could be set.
	Function *Function
}

// A PortType is what protocol a port speaks.
type PortType uint8

// Types, enum devlink_port_type.
const (
	TypeNotSet PortType = iota + 1
	TypeAuto
	TypeEth
	TypeIB
)

func (t PortType) String() string { return name(t, []string{"notset", "auto", "eth", "ib"}) }

// A Flavour is what a port is for.
type Flavour uint8

// Flavours, enum devlink_port_flavour.
const (
	FlavourPhysical Flavour = iota + 1
	FlavourCPU
	FlavourDSA
	FlavourPCIPF
	FlavourPCIVF
	FlavourVirtual
	FlavourUnused
	FlavourPCISF
)

func (f Flavour) String() string {
	return name(f, []string{"physical", "cpu", "dsa", "pcipf", "pcivf", "virtual", "unused", "pcisf"})
}

// A Function is what a port of an embedded switch leads to.
type Function struct {
	HWAddr  []byte // a net.HardwareAddr, of six bytes for Ethernet; nil: not told
	State   FunctionState
	OpState FunctionOpState
	Caps    Caps
	Device  *Nested // the function's own device; nil: it has none, or the kernel is before 6.7

	// MaxIOEQs is the most event queues that the function may have; nil: the driver does not say, or the kernel is before 6.10.
	MaxIOEQs *uint32
}

type (
	// FunctionState is what is wanted of a function.
	FunctionState uint8
	// FunctionOpState says whether a driver is bound to it. A port is deleted when it is detached.
	FunctionOpState uint8
)

// States, enum devlink_port_fn_state.
const (
	Inactive FunctionState = iota + 1
	Active
)

// States, enum devlink_port_fn_opstate.
const (
	Detached FunctionOpState = iota + 1
	Attached
)

func (s FunctionState) String() string   { return name(s, []string{"inactive", "active"}) }
func (s FunctionOpState) String() string { return name(s, []string{"detached", "attached"}) }

// Caps are capabilities of a function: of those in Known, those in Enabled are on. In a request those in Known are set. A zero value knows
// nothing. Linux has them since 6.2.
type Caps struct {
	Enabled, Known Cap
}

// A Cap is a set of capabilities.
type Cap uint32

// Capabilities, enum devlink_port_fn_attr_cap.
const (
	CapRoCE Cap = 1 << iota
	CapMigratable
	CapIPsecCrypto
	CapIPsecPacket
)

var capNames = []struct {
	cap  Cap
	name string
}{{CapRoCE, "roce"}, {CapMigratable, "migratable"}, {CapIPsecCrypto, "ipsec_crypto"}, {CapIPsecPacket, "ipsec_packet"}}

func (c Caps) words() []string {
	var words []string
	for _, n := range capNames {
		if c.Known&n.cap != 0 {
			words = append(words, n.name, enable(c.Enabled&n.cap != 0))
		}
	}
	return words
}

// decodePort reads the attributes of a port.
func decodePort(b []byte) *Port {
	p := &Port{}
	walk(b, func(typ uint16, data []byte) {
		p.decode(typ, data)
		switch typ {
		case attrPortIndex:
			p.Index = u32(data)
		case attrPortType:
			p.Type = enum[PortType](data)
		case attrPortDesiredType:
			p.DesiredType = enum[PortType](data)
		case attrPortNetdevIfindex:
			p.Ifindex = int(int32(u32(data)))
		case attrPortNetdevName:
			p.Netdev = text(data)
		case attrPortIBDevName:
			p.IBDev = text(data)
		case attrPortFlavour:
			p.Flavour = enum[Flavour](data)
		case attrPortController:
			p.Controller = u32(data)
		case attrPortPCIPFNumber:
			p.PF = u16(data)
		case attrPortPCIVFNumber:
			p.VF = u16(data)
		case attrPortPCISFNumber:
			p.SF = u32(data)
		case attrPortExternal:
			p.External, p.ExternalTold = isSet(data), true
		case attrPortNumber:
			p.Number = u32(data)
		case attrPortLanes:
			p.Lanes = u32(data)
		case attrPortSplittable:
			p.Splittable = isSet(data)
		case attrPortSplitGroup:
			p.SplitGroup = new(u32(data))
		case attrLinecardIndex:
			p.Linecard = new(u32(data))
		case attrPortFunction:
			p.Function = decodeFunction(data)
		}
	})
	return p
}

func decodeFunction(b []byte) *Function {
	f := &Function{}
	walk(b, func(typ uint16, data []byte) {
		switch typ {
		case functionHWAddr:
			f.HWAddr = append([]byte{}, data...)
		case functionState:
			f.State = enum[FunctionState](data)
		case functionOpState:
			f.OpState = enum[FunctionOpState](data)
		case functionCaps:
			value, selector := bits(data)
			f.Caps = Caps{Enabled: Cap(value & selector), Known: Cap(selector)}
		case functionDevlink:
			f.Device = decodeNested(data)
		case functionMaxIOEQs:
			f.MaxIOEQs = new(u32(data))
		}
	})
	return f
}

// String returns it as devlink port show prints it.
func (p *Port) String() string {
	var words []string
	say := func(key string, value any) { words = append(words, key, fmt.Sprint(value)) }
	if p.Type != 0 {
		say("type", p.Type)
		if p.DesiredType != 0 && p.DesiredType != p.Type {
			say("des_type", p.DesiredType)
		}
	}
	if p.Netdev != "" {
		say("netdev", p.Netdev)
	}
	if p.IBDev != "" {
		say("ibdev", p.IBDev)
	}
	if p.Flavour != 0 {
		say("flavour", p.Flavour)
	}
	switch p.Flavour { //nolint:exhaustive // the others lead to no function
	case FlavourPCIPF, FlavourPCIVF, FlavourPCISF:
		say("controller", p.Controller)
		say("pfnum", p.PF)
		if p.Flavour == FlavourPCIVF {
			say("vfnum", p.VF)
		}
		if p.Flavour == FlavourPCISF {
			say("sfnum", p.SF)
		}
		if p.ExternalTold {
			say("external", p.External)
		}
	}
	if p.Linecard != nil {
		say("lc", *p.Linecard)
	}
	switch p.Flavour { //nolint:exhaustive // the others have no number
	case FlavourPhysical, FlavourCPU, FlavourDSA:
		say("port", p.Number)
	}
	if p.SplitGroup != nil {
		say("split_group", *p.SplitGroup)
	}
	if p.Flavour != 0 {
		say("splittable", p.Splittable)
	}
	if p.Lanes != 0 {
		say("lanes", p.Lanes)
	}
	s := p.PortHandle.String() + ":"
	if len(words) > 0 {
		s += " " + strings.Join(words, " ")
	}
	if p.Function == nil {
		return s
	}
	s += "\n  function:"
	if words := p.Function.words(); len(words) > 0 {
		s += "\n    " + strings.Join(words, " ")
	}
	if p.Function.Device != nil {
		s += showNested("    ", []Nested{*p.Function.Device})
	}
	return s
}

func (f *Function) words() []string {
	var words []string
	if f.HWAddr != nil {
		words = append(words, "hw_addr", hexColon(f.HWAddr))
	}
	if f.State != 0 {
		words = append(words, "state", f.State.String())
	}
	if f.OpState != 0 {
		words = append(words, "opstate", f.OpState.String())
	}
	words = append(words, f.Caps.words()...)
	if f.MaxIOEQs != nil {
		words = append(words, "max_io_eqs", fmt.Sprint(*f.MaxIOEQs))
	}
	return words
}

// A NewPort is a port to be made, with a function behind it.
type NewPort struct {
	Flavour Flavour // pcisf, for all drivers up to now
	PF      uint16

	// SF is the function's number, which mlx5 wants to be told; nil: the driver chooses. One that has just been deleted is taken
	// for as long as the firmware needs: do not take it at once.
	SF *uint32

	// Controller and Index are nil except on a DPU, and for drivers that let one choose the port's index.
	Controller *uint32
	Index      *uint32
}

func newPort(h Handle, p NewPort) request {
	r := of(cmdPortNew, "port add", h)
	if p.Index != nil {
		r.text += fmt.Sprintf("/%d", *p.Index)
		r.data = appendU32(r.data, attrPortIndex, *p.Index)
	}
	r.say("flavour %v pfnum %d", p.Flavour, p.PF)
	r.data = appendU16(r.data, attrPortFlavour, uint16(wire(p.Flavour)))
	r.data = appendU16(r.data, attrPortPCIPFNumber, p.PF)
	if p.SF != nil {
		r.say("sfnum %d", *p.SF)
		r.data = appendU32(r.data, attrPortPCISFNumber, *p.SF)
	}
	if p.Controller != nil {
		r.say("controller %d", *p.Controller)
		r.data = appendU32(r.data, attrPortController, *p.Controller)
	}
	return r
}

// setFunction asks for what f has; opstate and device are not for setting.
func setFunction(h PortHandle, f Function) request {
	r := ofPort(cmdPortSet, "port function set", h)
	f.OpState = 0
	if words := f.words(); len(words) > 0 {
		r.say("%s", strings.Join(words, " "))
	}
	var b []byte
	if f.HWAddr != nil {
		b = appendAttr(b, functionHWAddr, f.HWAddr)
	}
	if f.State != 0 {
		b = appendU8(b, functionState, wire(f.State))
	}
	if f.Caps.Known != 0 {
		b = appendBits(b, functionCaps, uint32(f.Caps.Enabled&f.Caps.Known), uint32(f.Caps.Known))
	}
	if f.MaxIOEQs != nil {
		b = appendU32(b, functionMaxIOEQs, *f.MaxIOEQs)
	}
	r.data = appendAttr(r.data, attrPortFunction|attrNested, b)
	return r
}
