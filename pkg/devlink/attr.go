package devlink

import (
	"encoding/binary"
	"fmt"
	"slices"
)

var ne = binary.NativeEndian

// Commands, enum devlink_command.
const (
	cmdGet             = 1
	cmdNew             = 3
	cmdDel             = 4
	cmdPortGet         = 5
	cmdPortSet         = 6
	cmdPortNew         = 7
	cmdPortDel         = 8
	cmdEswitchGet      = 29
	cmdEswitchSet      = 30
	cmdReload          = 37
	cmdParamGet        = 38
	cmdParamSet        = 39
	cmdParamNew        = 40
	cmdParamDel        = 41
	cmdInfoGet         = 51
	cmdReporterGet     = 52
	cmdReporterSet     = 53
	cmdReporterRecover = 54
	cmdRateGet         = 74
	cmdRateSet         = 75
	cmdRateNew         = 76
	cmdRateDel         = 77
)

// Attributes, enum devlink_attr.
const (
	attrBusName             = 1
	attrDevName             = 2
	attrPortIndex           = 3
	attrPortType            = 4
	attrPortDesiredType     = 5
	attrPortNetdevIfindex   = 6
	attrPortNetdevName      = 7
	attrPortIBDevName       = 8
	attrPortSplitGroup      = 10
	attrEswitchMode         = 25
	attrEswitchInlineMode   = 26
	attrEswitchEncapMode    = 62
	attrPortFlavour         = 77
	attrPortNumber          = 78
	attrParam               = 80
	attrParamName           = 81
	attrParamGeneric        = 82
	attrParamType           = 83
	attrParamValuesList     = 84
	attrParamValue          = 85
	attrParamValueData      = 86
	attrParamValueCMode     = 87
	attrInfoDriverName      = 98
	attrInfoSerialNumber    = 99
	attrInfoVersionFixed    = 100
	attrInfoVersionRunning  = 101
	attrInfoVersionStored   = 102
	attrInfoVersionName     = 103
	attrInfoVersionValue    = 104
	attrReporter            = 114
	attrReporterName        = 115
	attrReporterState       = 116
	attrReporterErrors      = 117
	attrReporterRecoveries  = 118
	attrReporterGracePeriod = 120
	attrReporterAutoRecover = 121
	attrPortPCIPFNumber     = 127
	attrPortPCIVFNumber     = 128
	attrReloadFailed        = 136
	attrReporterDumpTime    = 137 // in ns; 119 is in jiffies
	attrNetNSFD             = 138
	attrNetNSID             = 140
	attrReporterAutoDump    = 141
	attrPortFunction        = 145
	attrInfoBoardSerial     = 146
	attrPortLanes           = 147
	attrPortSplittable      = 148
	attrPortExternal        = 149
	attrPortController      = 150
	attrReloadAction        = 153
	attrReloadPerformed     = 154
	attrReloadLimits        = 155
	attrPortPCISFNumber     = 164
	attrRateType            = 165
	attrRateTxShare         = 166
	attrRateTxMax           = 167
	attrRateNodeName        = 168
	attrRateParentNodeName  = 169
	attrLinecardIndex       = 171
	attrNestedDevlink       = 175
	attrRateTxPriority      = 177
	attrRateTxWeight        = 178
)

// Attributes within attrPortFunction, enum devlink_port_function_attr.
const (
	functionHWAddr   = 1
	functionState    = 2
	functionOpState  = 3
	functionCaps     = 4
	functionDevlink  = 5
	functionMaxIOEQs = 6
)

// Bits of an attribute's type, linux/netlink.h.
const (
	attrNested   = 1 << 15 // NLA_F_NESTED
	attrTypeMask = 1<<14 - 1
	attrHeader   = 4
)

func appendAttr(b []byte, typ uint16, data []byte) []byte {
	b = ne.AppendUint16(b, uint16(attrHeader+len(data)))
	b = ne.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendU8(b []byte, typ uint16, v uint8) []byte { return appendAttr(b, typ, []byte{v}) }
func appendU16(b []byte, typ, v uint16) []byte {
	return appendAttr(b, typ, ne.AppendUint16(nil, v))
}

func appendU32(b []byte, typ uint16, v uint32) []byte {
	return appendAttr(b, typ, ne.AppendUint32(nil, v))
}

func appendU64(b []byte, typ uint16, v uint64) []byte {
	return appendAttr(b, typ, ne.AppendUint64(nil, v))
}

func appendString(b []byte, typ uint16, s string) []byte {
	return appendAttr(b, typ, append([]byte(s), 0))
}

// appendBits writes a struct nla_bitfield32: of the bits of selector, those of value are set.
func appendBits(b []byte, typ uint16, value, selector uint32) []byte {
	return appendAttr(b, typ, ne.AppendUint32(ne.AppendUint32(nil, value), selector))
}

// walk calls f for each attribute of b, with its type without flags. What comes after a malformed one is not looked at.
func walk(b []byte, f func(typ uint16, data []byte)) {
	for len(b) >= attrHeader {
		n := int(ne.Uint16(b))
		if n < attrHeader || n > len(b) {
			return
		}
		f(ne.Uint16(b[2:])&attrTypeMask, b[attrHeader:n:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// text is a string without the NUL that ends it.
func text(data []byte) string {
	if i := slices.Index(data, 0); i >= 0 {
		data = data[:i]
	}
	return string(data)
}

// number is an integer of any width, as kernels have changed some of them; of other lengths it is 0.
func number(data []byte) uint64 {
	switch len(data) {
	case 1:
		return uint64(data[0])
	case 2:
		return uint64(ne.Uint16(data))
	case 4:
		return uint64(ne.Uint32(data))
	case 8:
		return ne.Uint64(data)
	}
	return 0
}

func u16(data []byte) uint16 { return uint16(number(data)) }
func u32(data []byte) uint32 { return uint32(number(data)) }
func isSet(data []byte) bool { return number(data) != 0 }

// bits reads a struct nla_bitfield32.
func bits(data []byte) (value, selector uint32) {
	if len(data) < 8 {
		return 0, 0
	}
	return ne.Uint32(data), ne.Uint32(data[4:])
}

// enum reads an enumeration, of which zero means that there is none.
func enum[E ~uint8](data []byte) E { return E(min(number(data), 0xfe) + 1) }

// wire is the kernel's value of an enumeration.
func wire[E ~uint8](e E) uint8 { return uint8(e - 1) }

// name is that of an enumeration's value in a table that starts with that of 1.
func name[E ~uint8](e E, names []string) string {
	switch {
	case e == 0:
		return "unknown"
	case int(e) <= len(names):
		return names[e-1]
	}
	return fmt.Sprintf("unknown (%d)", wire(e))
}
