package devlink

// EventKind says what has happened.
type EventKind uint8

// The kinds of events.
const (
	// Resync: events have been lost, so that everything has to be read anew.
	Resync EventKind = iota + 1
	DeviceNew
	DeviceGone
	PortNew  // or changed: its netdev, function, or type
	PortGone // of its function nothing is told
	ParamNew // or changed
	ParamGone
	RateNew // or changed
	RateGone
	ReporterChanged // an error, or a recovery
)

func (k EventKind) String() string {
	return name(k, []string{"resync", "device new", "device gone", "port new", "port gone", "param new", "param gone", "rate new", "rate gone", "reporter changed"})
}

// An Event is a change of what there is, by whomever.
type Event struct {
	Kind     EventKind
	Device   *Device   // for DeviceNew, DeviceGone
	Port     *Port     // for PortNew, PortGone
	Param    *Param    // for ParamNew, ParamGone
	Rate     *Rate     // for RateNew, RateGone
	Reporter *Reporter // for ReporterChanged
}

// decodeEvent reads a notification. It reports false for those that are no event.
func decodeEvent(command uint8, b []byte) (Event, bool) {
	switch command {
	case cmdNew:
		return Event{Kind: DeviceNew, Device: decodeDevice(b)}, true
	case cmdDel:
		return Event{Kind: DeviceGone, Device: decodeDevice(b)}, true
	case cmdPortNew:
		return Event{Kind: PortNew, Port: decodePort(b)}, true
	case cmdPortDel:
		return Event{Kind: PortGone, Port: decodePort(b)}, true
	case cmdParamNew:
		return Event{Kind: ParamNew, Param: decodeParam(b)}, true
	case cmdParamDel:
		return Event{Kind: ParamGone, Param: decodeParam(b)}, true
	case cmdRateNew:
		return Event{Kind: RateNew, Rate: decodeRate(b)}, true
	case cmdRateDel:
		return Event{Kind: RateGone, Rate: decodeRate(b)}, true
	case cmdReporterRecover:
		return Event{Kind: ReporterChanged, Reporter: decodeReporter(b)}, true
	}
	return Event{}, false
}
