package ports

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/offloadd/offloadd/pkg/reason"
)

// A Chassis knows the logical ports.
type Chassis interface {
	// Follow returns a channel of what is known of a logical port: now, and whenever that changes until ctx ends. A value that
	// was not received is replaced by the next. The channel is never closed. It fails if the chassis has ended.
	Follow(ctx context.Context, lport string) (<-chan LogicalPort, error)
}

// A LogicalPort is what the chassis knows of one.
type LogicalPort struct {
	Bridge    bool   // the integration bridge is connected
	Connected bool   // the Southbound is connected and has been read
	Known     bool   // the chassis would know if it existed; before, Exists means nothing
	Exists    bool   // there is a Port_Binding
	Addresses string // "MAC IP...", as in its column mac; "": none
	Claimed   bool   // by this chassis
	Requested string // the chassis it is reserved for, if that is another one
	Zone      uint16 // of conntrack; 0: none
}

// addresses reads an entry of the column mac, "MAC IP...". Such an entry has no prefix lengths, so the addresses are those of
// single hosts; what else is on the link the routes say.
func (l LogicalPort) addresses() (MAC, []netip.Prefix, error) {
	words := strings.Fields(l.Addresses)
	if len(words) == 0 {
		return MAC{}, nil, fmt.Errorf("no addresses")
	}
	mac, err := ParseMAC(words[0])
	if err != nil {
		return MAC{}, nil, err
	}
	if mac[0]&1 != 0 {
		return MAC{}, nil, fmt.Errorf("%s: not a unicast address", mac)
	}
	if len(words)-1 > maxAddresses {
		return MAC{}, nil, fmt.Errorf("%d addresses, more than %d", len(words)-1, maxAddresses)
	}
	var ips []netip.Prefix
	for _, w := range words[1:] {
		p, err := netip.ParsePrefix(w)
		if err != nil {
			ip, err := netip.ParseAddr(w)
			if err != nil {
				return MAC{}, nil, err
			}
			p = netip.PrefixFrom(ip, ip.BitLen())
		}
		ips = append(ips, p)
	}
	return mac, ips, nil
}

// A milestone is something that a plugged port reaches by others' doing, in this order.
type milestone int

const (
	bound     milestone = iota // the logical port has addresses
	numbered                   // it has an OpenFlow port number
	claimed                    // by this chassis
	installed                  // its flows are
)

// reached reports whether a port has reached m, and otherwise what is most likely in the way.
func (m milestone) reached(o outlook, l LogicalPort, spec Spec) (bool, *reason.Error) {
	lport := spec.LogicalPort
	blame := func(r reason.Reason, format string, args ...any) (bool, *reason.Error) {
		return false, reason.Errorf(r, "ports wait: "+format, args...).With("logical_port", lport)
	}
	switch {
	case !o.connected:
		return blame(reason.OVSDBDisconnected, "the Open_vSwitch database is away")
	case !o.bridge:
		return blame(reason.BridgeMissing, "the integration bridge is gone")
	case !o.socket.Exists || o.socket.LPort != lport:
		return blame(reason.PortUnplugged, "somebody unplugged it")
	case o.socket.OFPort < 0:
		return blame(reason.KernelRefused, "Open vSwitch: %s", o.socket.Error)
	}
	switch m {
	case bound:
		if _, _, err := l.addresses(); l.Exists && err == nil {
			return true, nil
		}
	case numbered:
		if o.socket.OFPort > 0 {
			return true, nil
		}
	case claimed:
		if l.Claimed || o.socket.Installed {
			return true, nil
		}
	case installed:
		if o.socket.Installed {
			return true, nil
		}
	}
	switch {
	case !l.Bridge:
		return blame(reason.BridgeDisconnected, "the integration bridge does not answer")
	case m == numbered:
		return blame(reason.OVNNotInstalled, "Open vSwitch has not numbered it")
	case !l.Connected:
		return blame(reason.SBDisconnected, "the Southbound is away")
	case !l.Known:
		return blame(reason.OVNNotInstalled, "the Southbound has not told about it")
	case !l.Exists:
		return blame(reason.LPortNotFound, "the Southbound has no logical port %s", lport)
	case l.Requested != "":
		_, err := blame(reason.LPortClaimedElsewhere, "logical port %s is reserved for chassis %s", lport, l.Requested)
		return false, err.With("chassis", l.Requested)
	case m == bound:
		_, _, err := l.addresses()
		return blame(reason.LPortNoAddresses, "logical port %s: %w", lport, err)
	case m == claimed:
		return blame(reason.OVNNotInstalled, "logical port %s is not claimed", lport)
	default:
		return blame(reason.OVNNotInstalled, "its flows are not installed")
	}
}
