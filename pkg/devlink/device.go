package devlink

import "strings"

// A Device is one that a driver has registered: a PCI function, or the auxiliary device of a subfunction.
type Device struct {
	Handle

	// ReloadFailed says that the last reload did not come to an end, so that only another one may help.
	ReloadFailed bool

	// Nested are the devices that belong to it. Linux has it since 6.7.
	Nested []Nested
}

func decodeDevice(b []byte) *Device {
	d := &Device{}
	walk(b, func(typ uint16, data []byte) {
		d.decode(typ, data)
		switch typ {
		case attrReloadFailed:
			d.ReloadFailed = isSet(data)
		case attrNestedDevlink:
			if n := decodeNested(data); n != nil {
				d.Nested = append(d.Nested, *n)
			}
		}
	})
	return d
}

// String returns it as devlink dev show prints it.
func (d *Device) String() string {
	s := d.Handle.String()
	if d.ReloadFailed || len(d.Nested) > 0 {
		s += ":"
	}
	if d.ReloadFailed {
		s += "\n  reload_failed true"
	}
	return s + showNested("  ", d.Nested)
}

func showNested(indent string, all []Nested) string {
	if len(all) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString("\n" + indent + "nested_devlink:")
	for _, n := range all {
		s.WriteString("\n" + indent + "  " + n.String())
	}
	return s.String()
}

// An Eswitch is the embedded switch of a device, as it is or, in a request, as it should be.
type Eswitch struct {
	Mode   EswitchMode
	Inline InlineMode
	Encap  EncapMode
}

type (
	// EswitchMode says who forwards between functions.
	EswitchMode uint8
	// InlineMode is how much of the headers a function has to give its NIC with each packet.
	InlineMode uint8
	// EncapMode says whether the switch encapsulates.
	EncapMode uint8
)

// Modes of an Eswitch, enum devlink_eswitch_mode, _inline_mode and _encap_mode.
const (
	ModeLegacy EswitchMode = iota + 1
	ModeSwitchdev
	ModeSwitchdevInactive
)

// Likewise.
const (
	InlineNone InlineMode = iota + 1
	InlineLink
	InlineNetwork
	InlineTransport
)

// Likewise.
const (
	EncapNone EncapMode = iota + 1
	EncapBasic
)

func (m EswitchMode) String() string {
	return name(m, []string{"legacy", "switchdev", "switchdev_inactive"})
}

func (m InlineMode) String() string {
	return name(m, []string{"none", "link", "network", "transport"})
}

func (m EncapMode) String() string { return name(m, []string{"none", "basic"}) }

// String returns it as devlink dev eswitch show prints it, and takes it.
func (e Eswitch) String() string {
	var words []string
	if e.Mode != 0 {
		words = append(words, "mode", e.Mode.String())
	}
	if e.Inline != 0 {
		words = append(words, "inline-mode", e.Inline.String())
	}
	if e.Encap != 0 {
		words = append(words, "encap-mode", e.Encap.String())
	}
	return strings.Join(words, " ")
}

func decodeEswitch(b []byte) Eswitch {
	var e Eswitch
	walk(b, func(typ uint16, data []byte) {
		switch typ {
		case attrEswitchMode:
			e.Mode = enum[EswitchMode](data)
		case attrEswitchInlineMode:
			e.Inline = enum[InlineMode](data)
		case attrEswitchEncapMode:
			e.Encap = enum[EncapMode](data)
		}
	})
	return e
}

func setEswitch(h Handle, e Eswitch) request {
	r := of(cmdEswitchSet, "dev eswitch set", h)
	if e != (Eswitch{}) {
		r.say("%v", e)
	}
	if e.Mode != 0 {
		r.data = appendU16(r.data, attrEswitchMode, uint16(wire(e.Mode)))
	}
	if e.Inline != 0 {
		r.data = appendU8(r.data, attrEswitchInlineMode, wire(e.Inline))
	}
	if e.Encap != 0 {
		r.data = appendU8(r.data, attrEswitchEncapMode, wire(e.Encap))
	}
	return r
}

// An Info is what a driver says of a device's hardware and firmware.
type Info struct {
	Handle
	Driver      string
	Serial      string
	BoardSerial string

	// Versions that cannot change, that run, and that will run after the next reset. They are in the driver's order.
	Fixed, Running, Stored []Version
}

// A Version is one of something, as fw.version or psid.
type Version struct {
	Name, Value string
}

func decodeInfo(b []byte) *Info {
	i := &Info{}
	walk(b, func(typ uint16, data []byte) {
		i.decode(typ, data)
		switch typ {
		case attrInfoDriverName:
			i.Driver = text(data)
		case attrInfoSerialNumber:
			i.Serial = text(data)
		case attrInfoBoardSerial:
			i.BoardSerial = text(data)
		case attrInfoVersionFixed:
			i.Fixed = append(i.Fixed, decodeVersion(data))
		case attrInfoVersionRunning:
			i.Running = append(i.Running, decodeVersion(data))
		case attrInfoVersionStored:
			i.Stored = append(i.Stored, decodeVersion(data))
		}
	})
	return i
}

func decodeVersion(b []byte) Version {
	var v Version
	walk(b, func(typ uint16, data []byte) {
		switch typ {
		case attrInfoVersionName:
			v.Name = text(data)
		case attrInfoVersionValue:
			v.Value = text(data)
		}
	})
	return v
}

// A ReloadAction is what a reload does.
type ReloadAction uint8

// Actions, enum devlink_reload_action, of which 0 is none.
const (
	ReloadDriverReinit ReloadAction = iota + 1 // the driver lets go of the device and takes it again, with the parameters of driverinit
	ReloadFWActivate                           // the stored firmware is run
)

func (a ReloadAction) String() string {
	return name(a, []string{"driver_reinit", "fw_activate"})
}

// Reload says how a device is to be reloaded.
type Reload struct {
	Action  ReloadAction // 0: driver_reinit
	NoReset bool         // not if it would take the link down

	// NetNSFD is an open network namespace that the device is to be in afterwards; 0: it stays.
	NetNSFD int
}

func reload(h Handle, o Reload) request {
	r := of(cmdReload, "dev reload", h)
	if o.NetNSFD != 0 {
		r.say("netns %d", o.NetNSFD)
		r.data = appendU32(r.data, attrNetNSFD, uint32(o.NetNSFD))
	}
	if o.Action != 0 {
		r.say("action %v", o.Action)
		r.data = appendU8(r.data, attrReloadAction, uint8(o.Action))
	}
	if o.NoReset {
		const noReset = 1 << 1 // DEVLINK_RELOAD_LIMIT_NO_RESET as a bit
		const valid = 1<<2 - 1 // DEVLINK_RELOAD_LIMITS_VALID_MASK
		r.say("limit no_reset")
		r.data = appendBits(r.data, attrReloadLimits, noReset, valid)
	}
	return r
}

// decodeReload reads the actions that have been performed.
func decodeReload(b []byte) []ReloadAction {
	var actions []ReloadAction
	walk(b, func(typ uint16, data []byte) {
		if typ != attrReloadPerformed {
			return
		}
		value, selector := bits(data)
		for a := ReloadAction(1); a < 32; a++ {
			if value&selector&(1<<a) != 0 {
				actions = append(actions, a)
			}
		}
	})
	return actions
}

// String returns it as devlink dev info prints it.
func (i *Info) String() string {
	s := i.Handle.String() + ":"
	for _, line := range [][2]string{{"driver", i.Driver}, {"serial_number", i.Serial}, {"board.serial_number", i.BoardSerial}} {
		if line[1] != "" {
			s += "\n  " + line[0] + " " + line[1]
		}
	}
	if len(i.Fixed)+len(i.Running)+len(i.Stored) == 0 {
		return s
	}
	s += "\n  versions:"
	for _, group := range []struct {
		name     string
		versions []Version
	}{{"fixed", i.Fixed}, {"running", i.Running}, {"stored", i.Stored}} {
		if len(group.versions) == 0 {
			continue
		}
		s += "\n      " + group.name + ":"
		for _, v := range group.versions {
			s += "\n        " + v.Name + " " + v.Value
		}
	}
	return s
}
