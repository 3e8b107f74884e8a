package devlink

import "fmt"

// A ReporterHandle names a health reporter, of a device or of a port.
type ReporterHandle struct {
	Handle
	Port *uint32 // nil: the device's own
	Name string
}

// Reporter is the handle of a device's health reporter: fw, fw_fatal, vnic.
func (h Handle) Reporter(name string) ReporterHandle { return ReporterHandle{Handle: h, Name: name} }

// Reporter is the handle of a port's health reporter: tx, rx.
func (h PortHandle) Reporter(name string) ReporterHandle {
	return ReporterHandle{Handle: h.Handle, Port: new(h.Index), Name: name}
}

// String returns it as devlink(8) takes it.
func (h ReporterHandle) String() string {
	if h.Port != nil {
		return fmt.Sprintf("%v/%d reporter %s", h.Handle, *h.Port, h.Name)
	}
	return fmt.Sprintf("%v reporter %s", h.Handle, h.Name)
}

// A Reporter watches the health of a part of a device.
type Reporter struct {
	ReporterHandle
	State      HealthState
	Errors     uint64 // since the driver came up, likewise Recoveries
	Recoveries uint64
	LastDump   uint64 // when it last took a dump, in ns since 1970; 0: it has none

	// GracePeriod is for how long, in ms, after a recovery another error is not recovered from. It and AutoRecover are nil if the reporter
	// cannot recover, AutoDump if it cannot dump.
	GracePeriod           *uint64
	AutoRecover, AutoDump *bool
}

// A ReporterChange is what is to be changed of a reporter; nil: nothing.
type ReporterChange struct {
	GracePeriod           *uint64 // in ms
	AutoRecover, AutoDump *bool
}

// A HealthState is that of a reporter.
type HealthState uint8

// States, enum devlink_health_reporter_state.
const (
	Healthy HealthState = iota + 1
	Unhealthy
)

func (s HealthState) String() string { return name(s, []string{"healthy", "error"}) }

func decodeReporter(b []byte) *Reporter {
	r := &Reporter{}
	walk(b, func(typ uint16, data []byte) {
		r.decode(typ, data)
		switch typ {
		case attrPortIndex:
			r.Port = new(u32(data))
		case attrReporter:
			r.decodeReporter(data)
		}
	})
	return r
}

func (r *Reporter) decodeReporter(b []byte) {
	walk(b, func(typ uint16, data []byte) {
		switch typ {
		case attrReporterName:
			r.Name = text(data)
		case attrReporterState:
			r.State = enum[HealthState](data)
		case attrReporterErrors:
			r.Errors = number(data)
		case attrReporterRecoveries:
			r.Recoveries = number(data)
		case attrReporterDumpTime:
			r.LastDump = number(data)
		case attrReporterGracePeriod:
			r.GracePeriod = new(number(data))
		case attrReporterAutoRecover:
			r.AutoRecover = new(isSet(data))
		case attrReporterAutoDump:
			r.AutoDump = new(isSet(data))
		}
	})
}

// String returns it in a line, in the words of devlink health show.
func (r *Reporter) String() string {
	s := fmt.Sprintf("%v: state %v error %d recover %d", r.ReporterHandle, r.State, r.Errors, r.Recoveries)
	if r.GracePeriod != nil {
		s += fmt.Sprintf(" grace_period %d", *r.GracePeriod)
	}
	if r.AutoRecover != nil {
		s += fmt.Sprintf(" auto_recover %v", *r.AutoRecover)
	}
	if r.AutoDump != nil {
		s += fmt.Sprintf(" auto_dump %v", *r.AutoDump)
	}
	return s
}

func ofReporter(command uint8, text string, h ReporterHandle) request {
	r := of(command, text, h.Handle)
	if h.Port != nil {
		r.text += fmt.Sprintf("/%d", *h.Port)
		r.data = appendU32(r.data, attrPortIndex, *h.Port)
	}
	r.say("reporter %s", h.Name)
	r.data = appendString(r.data, attrReporterName, h.Name)
	return r
}

func setReporter(h ReporterHandle, c ReporterChange) request {
	r := ofReporter(cmdReporterSet, "health set", h)
	if c.GracePeriod != nil {
		r.say("grace_period %d", *c.GracePeriod)
		r.data = appendU64(r.data, attrReporterGracePeriod, *c.GracePeriod)
	}
	if c.AutoRecover != nil {
		r.say("auto_recover %v", *c.AutoRecover)
		r.data = appendU8(r.data, attrReporterAutoRecover, number8(*c.AutoRecover))
	}
	if c.AutoDump != nil {
		r.say("auto_dump %v", *c.AutoDump)
		r.data = appendU8(r.data, attrReporterAutoDump, number8(*c.AutoDump))
	}
	return r
}

func number8(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}
