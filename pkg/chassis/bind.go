package chassis

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// A role is the way in which a port may be bound to this chassis.
type role int

const (
	none       role = iota
	main            // Port_Binding.chassis
	additional      // an element of Port_Binding.additional_chassis
)

// roleOf says how a port may be bound here, by what its owner requested: nothing, or a list of chassis names and
// hostnames of which the first is the main one.
func roleOf(port *sb.Port, me *sb.Chassis) role {
	if port.RequestedChassis == me.UUID {
		return main
	}
	if slices.Contains(port.RequestedAdditionalChassis, me.UUID) {
		return additional
	}
	requested := port.Options["requested-chassis"]
	if requested == "" {
		return main
	}
	r := main
	for name := range strings.SplitSeq(requested, ",") {
		if name == "" {
			continue
		}
		if name == me.Name || name == me.Hostname {
			return r
		}
		r = additional
	}
	return none
}

// holds reports whether the Southbound says that a port is bound here in a role.
func holds(port *sb.Port, me sb.UUID, r role) bool {
	switch r {
	case main:
		return port.Chassis == me
	case additional:
		return slices.Contains(port.AdditionalChassis, me)
	case none:
	}
	return false
}

// A binding is a port that belongs here.
type binding struct {
	port *sb.Port
	role role
	// iface carries the port; nil for a port that exists only in the logical pipeline.
	iface *vswitchdb.Interface
	// parent is the port that a container port is nested in, else nil.
	parent *sb.Port
}

// sites are the interfaces of the integration bridge that ask for a logical port.
type sites struct {
	// byID maps an iface-id to its interface. If several have the same, the first by name is used.
	byID map[string]*vswitchdb.Interface
	// ids are all iface-ids, sorted, also of interfaces without an OpenFlow port.
	ids []string
	// installed are the interfaces marked as installed.
	installed []*vswitchdb.Interface
}

// The keys of Interface.external_ids that concern a claim.
const (
	keyIfaceID     = "iface-id"
	keyIfaceIDVer  = "iface-id-ver"
	keyEncapIP     = "encap-ip"
	keyInstalled   = "ovn-installed"
	keyInstalledTS = "ovn-installed-ts"
)

func isInstalled(i *vswitchdb.Interface) bool {
	return strings.EqualFold(i.ExternalIDs[keyInstalled], "true")
}

func (st *step) findSites(bridge *vswitchdb.Bridge) sites {
	out := sites{byID: map[string]*vswitchdb.Interface{}}
	ids := map[string]struct{}{}
	for _, port := range st.in.Switch.Ports(bridge) {
		for _, i := range st.in.Switch.Interfaces(port) {
			if isInstalled(i) {
				out.installed = append(out.installed, i)
			}
			id := i.ExternalIDs[keyIfaceID]
			if id == "" {
				continue
			}
			ids[id] = struct{}{}
			if ofPort(i) == 0 {
				continue
			}
			if first := out.byID[id]; first != nil {
				st.notice(LevelWarn, "interface ignored", "lport", id, "iface", i.Name,
					"reason", "interface "+first.Name+" has the same iface-id")
				continue
			}
			out.byID[id] = i
		}
	}
	out.ids = slices.Sorted(maps.Keys(ids))
	return out
}

// bind decides which ports belong here: bindings sorted by name, and what of Local follows from them. Roots are the
// datapaths they make local.
func (st *step) bind(at sites) (bindings []binding, roots map[sb.UUID]struct{}, local *Local) {
	local = &Local{
		Name:    st.me.Name,
		Chassis: st.me.UUID,
		Bridge:  st.bridge.Name,
		Ports:   map[string]LocalPort{},
		Related: map[sb.UUID]struct{}{},
	}
	roots = map[sb.UUID]struct{}{}
	own := func(b binding) {
		bindings = append(bindings, b)
		roots[b.port.Datapath] = struct{}{}
		local.Related[b.port.UUID] = struct{}{}
	}
	carried := func(port *sb.Port, i *vswitchdb.Interface) {
		local.Ports[port.Name] = LocalPort{OFPort: ofPort(i), Iface: i.Name, MTU: mtu(i)}
	}
	for id, i := range at.byID {
		port := st.in.SB.PortByName(id)
		if port == nil {
			continue
		}
		switch {
		case port.Type == sb.Localport:
			local.Related[port.UUID] = struct{}{}
			if roleOf(port, st.me) != none {
				carried(port, i)
			}
		case port.Type == sb.VIF && port.Parent == "":
			r := st.vifRole(port, i)
			if r == none {
				continue
			}
			own(binding{port: port, role: r, iface: i})
			carried(port, i)
			for _, child := range st.in.SB.ChildrenOf(id) {
				if child.Type != sb.VIF {
					continue
				}
				if r := roleOf(child, st.me); r != none {
					own(binding{port: child, role: r, iface: i, parent: port})
				}
			}
		}
	}
	for _, port := range st.in.SB.Ports {
		if candidate, ours := st.logical(port); ours {
			own(binding{port: port, role: main})
		} else if candidate {
			roots[port.Datapath] = struct{}{}
			local.Related[port.UUID] = struct{}{}
		}
	}
	slices.SortFunc(bindings, func(a, b binding) int { return cmp.Compare(a.port.Name, b.port.Name) })
	return bindings, roots, local
}

// vifRole says how the VIF of an interface may be bound here.
func (st *step) vifRole(port *sb.Port, i *vswitchdb.Interface) role {
	if ver, ok := port.Options[keyIfaceIDVer]; ok && ver != i.ExternalIDs[keyIfaceIDVer] {
		st.notice(LevelInfo, "lport not claimed", "lport", port.Name, "iface", i.Name,
			"reason", "iface-id-ver is "+quote(i.ExternalIDs[keyIfaceIDVer])+", want "+quote(ver))
		return none
	}
	r := roleOf(port, st.me)
	if r == none {
		st.notice(LevelInfo, "lport not claimed", "lport", port.Name, "iface", i.Name,
			"reason", "requested-chassis is "+quote(port.Options["requested-chassis"]))
	}
	return r
}

// logical says whether a port without an interface belongs here, or at least its datapath does since this chassis
// is a candidate to host it.
func (st *step) logical(port *sb.Port) (candidate, ours bool) {
	switch port.Type {
	case sb.L2Gateway:
		ours = port.Options["l2gateway-chassis"] == st.me.Name
		candidate = ours
	case sb.L3Gateway:
		ours = port.Options["l3gateway-chassis"] == st.me.Name
		candidate = ours
	case sb.ChassisRedirect, sb.External:
		candidate = inHAGroup(st.in.SB, port.HAChassisGroup, st.me.UUID)
		ours = candidate && leadsHAGroup(st.in.SB, port.HAChassisGroup, st.me, st.active)
	}
	if candidate && !st.serves(port.Type) {
		st.notice(LevelWarn, "lport not claimed", "lport", port.Name,
			"reason", "ports of type "+port.Type+" are not supported")
		return false, false
	}
	return candidate, ours
}

// serves reports whether ports of a type are claimed and released here.
func (st *step) serves(portType string) bool {
	return portType == sb.VIF || slices.Contains(st.opts.Types, portType)
}

func mtu(i *vswitchdb.Interface) int {
	if i.MTU == nil || *i.MTU < 0 {
		return 0
	}
	return *i.MTU
}

// findEncap returns the tunnel endpoint that an interface asks for, of the best type, zero if it asks for none.
func (st *step) findEncap(i *vswitchdb.Interface) sb.UUID {
	if i == nil || i.ExternalIDs[keyEncapIP] == "" {
		return sb.UUID{}
	}
	var best *sb.Encap
	for _, uuid := range st.me.Encaps {
		e := st.in.SB.Encaps[uuid]
		if e == nil || e.IP != i.ExternalIDs[keyEncapIP] {
			continue
		}
		if best == nil || encapRanks[e.Type] > encapRanks[best.Type] {
			best = e
		}
	}
	if best == nil {
		return sb.UUID{}
	}
	return best.UUID
}
