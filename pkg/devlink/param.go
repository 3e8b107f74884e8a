package devlink

import (
	"fmt"
	"slices"
	"strings"
)

// A Param is a parameter of a device. Its value depends on when it is to be in force.
type Param struct {
	Handle
	Name    string
	Generic bool // known to all drivers by this name, not one's own
	Values  []ParamValue
}

// A ParamValue is a parameter's value in one mode: a bool, uint8, uint16, uint32, uint64 or string, as the driver has it; nil: of a type that is
// not known here.
type ParamValue struct {
	Mode  ParamMode
	Value any
}

// Value returns the value in a mode, and whether the parameter has that mode.
func (p *Param) Value(m ParamMode) (any, bool) {
	i := slices.IndexFunc(p.Values, func(v ParamValue) bool { return v.Mode == m })
	if i < 0 {
		return nil, false
	}
	return p.Values[i].Value, true
}

// A ParamMode says when a value is in force.
type ParamMode uint8

// Modes, enum devlink_param_cmode.
const (
	ModeRuntime    ParamMode = iota + 1 // at once
	ModeDriverInit                      // after the next reload
	ModePermanent                       // after the next reset, and kept by the device
)

func (m ParamMode) String() string {
	return name(m, []string{"runtime", "driverinit", "permanent"})
}

// Types of values, enum devlink_var_attr_type, which once were NLA_*.
const (
	typeU8     = 1
	typeU16    = 2
	typeU32    = 3
	typeU64    = 4
	typeString = 5
	typeFlag   = 6
)

func decodeParam(b []byte) *Param {
	p := &Param{}
	walk(b, func(typ uint16, data []byte) {
		p.decode(typ, data)
		if typ == attrParam {
			p.decodeParam(data)
		}
	})
	return p
}

func (p *Param) decodeParam(b []byte) {
	var typ uint64
	var values []byte
	walk(b, func(t uint16, data []byte) {
		switch t {
		case attrParamName:
			p.Name = text(data)
		case attrParamGeneric:
			p.Generic = true
		case attrParamType:
			typ = number(data)
		case attrParamValuesList:
			values = data
		}
	})
	walk(values, func(t uint16, data []byte) {
		if t == attrParamValue {
			p.Values = append(p.Values, decodeParamValue(typ, data))
		}
	})
}

func decodeParamValue(typ uint64, b []byte) ParamValue {
	var v ParamValue
	var value []byte
	present := false
	walk(b, func(t uint16, data []byte) {
		switch t {
		case attrParamValueCMode:
			v.Mode = enum[ParamMode](data)
		case attrParamValueData:
			value, present = data, true
		}
	})
	switch {
	case typ == typeFlag:
		v.Value = present
	case !present:
	case typ == typeString:
		v.Value = text(value)
	case typ == typeU8:
		v.Value = uint8(number(value))
	case typ == typeU16:
		v.Value = u16(value)
	case typ == typeU32:
		v.Value = u32(value)
	case typ == typeU64:
		v.Value = number(value)
	}
	return v
}

// String returns it as devlink dev param show prints it, without the names that devlink(8) has for some values.
func (p *Param) String() string {
	kind := "driver-specific"
	if p.Generic {
		kind = "generic"
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%v:\n  name %s type %s\n    values:", p.Handle, p.Name, kind)
	for _, v := range p.Values {
		fmt.Fprintf(&s, "\n      cmode %v", v.Mode)
		if v.Value != nil {
			fmt.Fprintf(&s, " value %v", v.Value)
		}
	}
	return s.String()
}

func getParam(h Handle, name string) request {
	r := of(cmdParamGet, "dev param show", h)
	r.say("name %s", name)
	r.data = appendString(r.data, attrParamName, name)
	return r
}

// setParam fails for values of types that no parameter has.
func setParam(h Handle, name string, v ParamValue) (request, error) {
	r := of(cmdParamSet, "dev param set", h)
	r.say("name %s value %v cmode %v", name, v.Value, v.Mode)
	if v.Mode == 0 {
		return r, fmt.Errorf("devlink %s: a value needs a mode", r.text)
	}
	r.data = appendString(r.data, attrParamName, name)
	r.data = appendU8(r.data, attrParamValueCMode, wire(v.Mode))
	switch value := v.Value.(type) {
	case bool:
		r.data = appendU8(r.data, attrParamType, typeFlag)
		if value {
			r.data = appendAttr(r.data, attrParamValueData, nil)
		}
	case uint8:
		r.data = appendU8(appendU8(r.data, attrParamType, typeU8), attrParamValueData, value)
	case uint16:
		r.data = appendU16(appendU8(r.data, attrParamType, typeU16), attrParamValueData, value)
	case uint32:
		r.data = appendU32(appendU8(r.data, attrParamType, typeU32), attrParamValueData, value)
	case uint64:
		r.data = appendU64(appendU8(r.data, attrParamType, typeU64), attrParamValueData, value)
	case string:
		r.data = appendString(appendU8(r.data, attrParamType, typeString), attrParamValueData, value)
	default:
		return r, fmt.Errorf("devlink %s: no parameter has a value of type %T", r.text, v.Value)
	}
	return r, nil
}
