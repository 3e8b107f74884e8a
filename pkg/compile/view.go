package compile

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/sb"
)

// Tunnel is a tunnel port of the integration bridge.
type Tunnel = chassis.Tunnel

// A fact is something a unit has read: when it changes, the unit is compiled again.
type fact struct {
	kind factKind
	name string  // of a port, set, group, meter, zone key or chassis
	row  sb.UUID // of a datapath, port, multicast group, chassis or encap
}

type factKind uint8

const (
	factPort           factKind = iota // Port_Binding by name
	factPortRow                        // Port_Binding by UUID
	factDatapath                       // Datapath_Binding by UUID, and whether and how it is local
	factMulticastGroup                 // Multicast_Group by datapath and name
	factAddressSet
	factPortGroup
	factChassis // Chassis by UUID
	factEncap
	factHA // any HA_Chassis_Group, HA_Chassis or tunnel liveness
	factZone
	factLocalPort // OpenFlow port by logical port name
	factPatch
	factTunnel // tunnels to a chassis by name
	factGeneve // index of the Geneve option
	factRelated
	factVTEPs // any VTEP port
	factMeter // Meter by name, and its bands
)

// A view is what units see of the world. Everything they read through it is recorded in reads.
type view struct {
	sb     *sb.Store
	local  *chassis.Local
	geneve ir.Field
	// tunnels holds the tunnels to each chassis, by chassis name.
	tunnels map[string][]Tunnel
	// related holds, by datapath and port key, the ports whose logical flows matter here.
	related map[[2]uint32]struct{}
	// relatedNames holds their names.
	relatedNames map[string]struct{}

	reads map[fact]struct{}
}

func (v *view) read(f fact) { v.reads[f] = struct{}{} }

func (v *view) portByName(name string) *sb.Port {
	v.read(fact{kind: factPort, name: name})
	return v.sb.PortByName(name)
}

func (v *view) portByUUID(id sb.UUID) *sb.Port {
	v.read(fact{kind: factPortRow, row: id})
	return v.sb.Ports[id]
}

func (v *view) datapath(id sb.UUID) *sb.Datapath {
	v.read(fact{kind: factDatapath, row: id})
	return v.sb.Datapaths[id]
}

// localDatapath returns the datapath if it is local, nil otherwise.
func (v *view) localDatapath(id sb.UUID) *sb.Datapath {
	dp := v.datapath(id)
	if dp == nil || v.local.Datapaths[id] == nil {
		return nil
	}
	return dp
}

// localnet returns the localnet port of a local datapath, or nil.
func (v *view) localnet(dp *sb.Datapath) *sb.Port {
	v.read(fact{kind: factDatapath, row: dp.UUID})
	ld := v.local.Datapaths[dp.UUID]
	if ld == nil || ld.Localnet.IsZero() {
		return nil
	}
	return v.portByUUID(ld.Localnet)
}

func (v *view) zone(key string) uint16 {
	v.read(fact{kind: factZone, name: key})
	return v.local.Zones[key]
}

// localPort returns the OpenFlow port of a logical port that is plugged into this chassis.
func (v *view) localPort(name string) (uint16, bool) {
	v.read(fact{kind: factLocalPort, name: name})
	p, ok := v.local.Ports[name]
	return p.OFPort, ok && p.OFPort != 0
}

// patch returns the OpenFlow port of the patch port that stands for a localnet or l2gateway port, 0 if there is none.
func (v *view) patch(name string) uint16 {
	v.read(fact{kind: factPatch, name: name})
	return v.local.Patch[name]
}

func (v *view) chassis(id sb.UUID) *sb.Chassis {
	if id.IsZero() {
		return nil
	}
	v.read(fact{kind: factChassis, row: id})
	return v.sb.Chassis[id]
}

// tunnel returns the tunnel to a chassis, to the endpoint encap if there is one.
func (v *view) tunnel(host, encap sb.UUID) (Tunnel, bool) {
	c := v.chassis(host)
	if c == nil {
		return Tunnel{}, false
	}
	v.read(fact{kind: factTunnel, name: c.Name})
	ts := v.tunnels[c.Name]
	if len(ts) == 0 {
		return Tunnel{}, false
	}
	best := ts[0]
	if !encap.IsZero() {
		v.read(fact{kind: factEncap, row: encap})
		if e := v.sb.Encaps[encap]; e != nil {
			for _, t := range ts {
				if t.RemoteIP == e.IP {
					best = t
					break
				}
			}
		}
	}
	if best.Type == encapGeneve {
		v.read(fact{kind: factGeneve})
		if v.geneve == 0 {
			return Tunnel{}, false // until the switch has told its option's index
		}
	}
	return best, best.OFPort != 0
}

// peer returns the port at the other end of a patch or l3gateway port, if both ends agree.
func (v *view) peer(p *sb.Port) *sb.Port {
	name := p.Options["peer"]
	if name == "" {
		return nil
	}
	q := v.portByName(name)
	if q == nil || q.Type != p.Type || q.Options["peer"] != p.Name {
		return nil
	}
	return q
}

// boundHere reports whether a multicast group delivers to p on this chassis.
func (v *view) boundHere(p *sb.Port) bool {
	if v.local.Chassis.IsZero() || p.Chassis != v.local.Chassis && !slices.Contains(p.AdditionalChassis, v.local.Chassis) {
		return false
	}
	if p.Type == sb.L3Gateway {
		return true
	}
	name := p.Name
	if p.Parent != "" {
		name = p.Parent
	}
	_, ok := v.localPort(name)
	return ok
}

// haChassis returns the members of a gateway group, the best first. The rows of a member that has not registered are
// skipped.
func (v *view) haChassis(group sb.UUID) []sb.UUID {
	if group.IsZero() {
		return nil
	}
	v.read(fact{kind: factHA})
	g := v.sb.HAChassisGroups[group]
	if g == nil {
		return nil
	}
	var members []*sb.HAChassis
	for _, id := range g.HAChassis {
		if m := v.sb.HAChassis[id]; m != nil && !m.Chassis.IsZero() {
			members = append(members, m)
		}
	}
	slices.SortFunc(members, func(a, b *sb.HAChassis) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), bytes.Compare(a.UUID[:], b.UUID[:]))
	})
	hosts := make([]sb.UUID, len(members))
	for i, m := range members {
		hosts[i] = m.Chassis
	}
	return hosts
}

// resident reports whether p is at home on this chassis, is_chassis_resident of ovn-sb(5).
func (v *view) resident(p *sb.Port) bool {
	me := v.local.Chassis
	if me.IsZero() {
		return false
	}
	if p.Type != sb.ChassisRedirect {
		return p.Chassis == me
	}
	if p.Chassis == me {
		return true
	}
	hosts := v.haChassis(p.HAChassisGroup)
	for _, host := range hosts {
		if host == me {
			return true
		}
		c := v.chassis(host)
		if c == nil {
			continue
		}
		if _, up := v.local.ActiveTunnels[c.Name]; up {
			return false
		}
	}
	return false
}

func (v *view) residentByName(name string) bool {
	p := v.portByName(name)
	return p != nil && v.resident(p)
}

// key returns what inport or outport compares with for a name: a port of dp, or one of its multicast groups.
func (v *view) key(dp *sb.Datapath, name string) (uint32, bool) {
	if name == "none" {
		return 0, true
	}
	if p := v.portByName(name); p != nil && p.Datapath == dp.UUID {
		return p.Key, true
	}
	v.read(fact{kind: factMulticastGroup, row: dp.UUID, name: name})
	if g := v.sb.MulticastGroup(dp.UUID, name); g != nil {
		return g.Key, true
	}
	return 0, false
}

// relevant reports whether logical flows of dp that pin a port key are of any use here.
func (v *view) relevant(dp *sb.Datapath, key uint32) bool {
	_, ok := v.related[[2]uint32{dp.Key, key}]
	return ok
}

// meter returns the Meter of a name as a meter of the switch, if it is there. Of several bands, which northd never writes,
// it is the one with the smallest rate: it drops most.
func (v *view) meter(name string) (meter ir.RateMeter, ok bool) {
	v.read(fact{kind: factMeter, name: name})
	m := v.sb.MeterByName(name)
	if m == nil {
		return ir.RateMeter{}, false
	}
	for _, id := range m.Bands {
		b := v.sb.MeterBands[id]
		if b == nil {
			continue
		}
		next := ir.RateMeter{Packets: m.Unit == sb.PacketsPerSecond, Rate: clamp32(b.Rate), Burst: clamp32(b.Burst)}
		if !ok || cmp.Or(cmp.Compare(next.Rate, meter.Rate), cmp.Compare(next.Burst, meter.Burst)) < 0 {
			meter, ok = next, true
		}
	}
	return meter, ok
}

// clamp32 returns the number of 32 bits that is next to n.
func clamp32(n int64) uint32 { return uint32(max(0, min(n, 1<<32-1))) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
