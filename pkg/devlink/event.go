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
)

func (k EventKind) String() string {
	return name(k, []string{"resync", "device new", "device gone", "port new", "port gone"})
}

// An Event is a change of what there is, by whomever.
type Event struct {
	Kind   EventKind
	Device *Device // for DeviceNew, DeviceGone
	Port   *Port   // for PortNew, PortGone
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
	}
	return Event{}, false
}
