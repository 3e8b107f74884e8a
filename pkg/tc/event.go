package tc

// A Qdisc is what the ingress of a device has.
type Qdisc struct {
	Ifindex int
	Kind    string // "clsact", or "ingress", which is not ours
	Block   uint32 // the shared block of its filters, 0: none
}

// EventKind says what has happened.
type EventKind uint8

// The kinds of events.
const (
	// Resync: events have been lost, so that everything has to be read anew.
	Resync EventKind = iota + 1
	FilterNew
	FilterGone // a Handle of 0: all filters of the pref; a Pref of 0: of the chain
	QdiscNew
	QdiscGone
	LinkNew // or changed
	LinkGone
)

// An Event is a change of what the kernel has, by whomever.
type Event struct {
	Kind   EventKind
	Filter *Installed // for FilterNew, FilterGone
	Qdisc  Qdisc      // for QdiscNew, QdiscGone; others than those of an ingress are not told

	// Ifindex and Name are those of the device, for LinkNew and LinkGone.
	Ifindex int
	Name    string

	// Port is that of the socket that asked for the change, see Conn.Port; 0: the kernel did it by itself.
	Port uint32
}

// Types of messages, linux/rtnetlink.h.
const (
	rtmNewLink    = 16
	rtmDelLink    = 17
	rtmNewQdisc   = 36
	rtmDelQdisc   = 37
	rtmGetQdisc   = 38
	rtmNewTFilter = 44
	rtmDelTFilter = 45
	rtmGetTFilter = 46
)

const (
	parentClsact = 0xfffffff1 // TC_H_CLSACT
	handleClsact = 0xffff0000
	kindClsact   = "clsact"

	ifinfomsgSize = 16
	iflaIfname    = 3
)

// decodeEvent reads a notification. It reports false for those that are no event.
func decodeEvent(typ uint16, port uint32, b []byte) (Event, bool) {
	e := Event{Port: port}
	switch typ {
	case rtmNewTFilter, rtmDelTFilter:
		in, err := Decode(b)
		if err != nil {
			return e, false
		}
		e.Filter = in
		e.Kind = FilterNew
		if typ == rtmDelTFilter {
			e.Kind = FilterGone
		}
	case rtmNewQdisc, rtmDelQdisc:
		q, ok := decodeQdisc(b)
		if !ok {
			return e, false
		}
		e.Qdisc = q
		e.Kind = QdiscNew
		if typ == rtmDelQdisc {
			e.Kind = QdiscGone
		}
	case rtmNewLink, rtmDelLink:
		if len(b) < ifinfomsgSize || b[0] != 0 { // of AF_BRIDGE: a bridge's port, not a device
			return e, false
		}
		e.Ifindex = int(int32(ne.Uint32(b[4:])))
		walk(b[ifinfomsgSize:], func(typ uint16, data []byte) {
			if typ == iflaIfname {
				e.Name = text(data)
			}
		})
		e.Kind = LinkNew
		if typ == rtmDelLink {
			e.Kind = LinkGone
		}
	default:
		return e, false
	}
	return e, true
}

// decodeQdisc reads the payload of RTM_NEWQDISC or RTM_DELQDISC. It reports false for the qdiscs of transmission.
func decodeQdisc(b []byte) (Qdisc, bool) {
	if len(b) < tcmsgSize || ne.Uint32(b[12:]) != parentClsact {
		return Qdisc{}, false
	}
	q := Qdisc{Ifindex: int(int32(ne.Uint32(b[4:])))}
	walk(b[tcmsgSize:], func(typ uint16, data []byte) {
		switch {
		case typ == tcaKind:
			q.Kind = text(data)
		case typ == tcaIngressBlock && len(data) == 4:
			q.Block = ne.Uint32(data)
		}
	})
	return q, true
}

// clsactOf returns the payload of RTM_NEWQDISC or RTM_DELQDISC for the clsact of a device.
func clsactOf(ifindex int, block uint32) []byte {
	b := appendRawTcmsg(nil, uint32(ifindex), handleClsact, parentClsact, 0)
	b = appendString(b, tcaKind, kindClsact)
	if block != 0 {
		b = appendU32(b, tcaIngressBlock, block)
	}
	return b
}

// appendDump appends the payload of RTM_GETTFILTER for a dump.
func appendDump(b []byte, t Target, o DumpOptions) []byte {
	b = appendTcmsg(b, t, 0, 0, 0)
	if o.Chain != nil {
		b = appendU32(b, tcaChain, *o.Chain)
	}
	if o.Terse {
		terse := ne.AppendUint32(nil, 1)                         // TCA_DUMP_FLAGS_TERSE
		b = appendAttr(b, tcaDumpFlags, append(terse, terse...)) // value, selector
	}
	return b
}
