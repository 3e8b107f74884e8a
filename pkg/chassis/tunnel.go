package chassis

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// keyTunnel is the key of Port.external_ids that says which endpoint of which chassis a tunnel port leads to, as
// <chassis>@<ip>.
const keyTunnel = "ovn-chassis-id"

// The keys of Port.external_ids that mark the patch ports of localnet and l2gateway ports.
const (
	keyLocalnet  = "ovn-localnet-port"
	keyL2Gateway = "ovn-l2gateway-port"
)

// tunnelID splits the value of keyTunnel; ok is false if it is not of that form.
func tunnelID(id string) (chassis, ip string, ok bool) {
	at := strings.LastIndexByte(id, '@')
	if at <= 0 || at == len(id)-1 {
		return "", "", false
	}
	return id[:at], id[at+1:], true
}

// A tunnelSpec is a tunnel port as it should be.
type tunnelSpec struct {
	id      string // of keyTunnel
	chassis string
	kind    string // tunnel type
	options map[string]string
}

// connectChassis makes the tunnel ports of the bridge lead to each endpoint of each other chassis, by the best
// tunnel type that both have.
//
// A port that leads to the right endpoint is changed, not replaced, so that it keeps its OpenFlow port. On the
// integration bridge every port with a keyTunnel is ours. On other bridges only those whose name has our prefix
// are: they are left from when that was the integration bridge.
func (st *step) connectChassis() {
	index, ok := st.index()
	if !ok {
		return
	}
	have := map[string]*vswitchdb.Port{}
	names := map[string]bool{}
	var gone []Ref
	for _, p := range st.in.Switch.Ports(st.bridge) {
		names[p.Name] = true
		id := p.ExternalIDs[keyTunnel]
		switch {
		case id == "":
		case have[id] != nil || len(p.Interfaces) != 1:
			gone = append(gone, Ref{UUID: p.UUID})
		default:
			have[id] = p
		}
	}

	var added []Ref
	for _, spec := range st.wantTunnels() {
		if p := have[spec.id]; p != nil {
			delete(have, spec.id)
			st.adjustTunnel(p, spec)
			continue
		}
		name := tunnelName(index, spec.chassis, names)
		if name == "" {
			st.notice(LevelWarn, "tunnel names exhausted", "chassis", spec.chassis)
			continue
		}
		names[name] = true
		iface, port := st.ovs.name(), st.ovs.name()
		st.ovs.add(Op{Kind: Insert, Table: vswitchdb.InterfaceTable, Name: iface, Set: map[string]any{
			"name": name, "type": spec.kind, "options": spec.options,
		}})
		if st.ovs.add(Op{Kind: Insert, Table: vswitchdb.PortTable, Name: port, Set: map[string]any{
			"name": name, "interfaces": []Ref{{Name: iface}}, "external_ids": map[string]string{keyTunnel: spec.id},
		}}) {
			st.tell("tunnel added", "chassis", spec.chassis, "port", name, "type", spec.kind,
				"ip", spec.options["remote_ip"])
		}
		added = append(added, Ref{Name: port})
	}
	for _, id := range slices.Sorted(maps.Keys(have)) {
		gone = append(gone, Ref{UUID: have[id].UUID})
		if st.ovs.open {
			st.tell("tunnel removed", "port", have[id].Name, "id", id)
		}
	}
	st.changePorts(st.bridge, added, gone)
	st.clearOtherBridges("ovn" + index + "-")
}

// changePorts adds ports to a bridge and takes ports away, which deletes them.
func (st *step) changePorts(b *vswitchdb.Bridge, added, gone []Ref) {
	op := Op{Kind: Mutate, Table: vswitchdb.BridgeTable, UUID: b.UUID, Add: map[string]any{}, Remove: map[string]any{}}
	if len(added) > 0 {
		op.Add["ports"] = added
	}
	if len(gone) > 0 {
		slices.SortFunc(gone, compareRefs)
		op.Remove["ports"] = gone
	}
	if len(added)+len(gone) > 0 {
		st.ovs.add(op)
	}
}

func (st *step) clearOtherBridges(prefix string) {
	for _, b := range st.in.Switch.Bridges() {
		if b.UUID == st.bridge.UUID {
			continue
		}
		var gone []Ref
		for _, p := range st.in.Switch.Ports(b) {
			if p.ExternalIDs[keyTunnel] != "" && strings.HasPrefix(p.Name, prefix) {
				gone = append(gone, Ref{UUID: p.UUID})
			}
		}
		st.changePorts(b, nil, gone)
	}
}

// adjustTunnel makes an existing tunnel port as spec says.
func (st *step) adjustTunnel(p *vswitchdb.Port, spec tunnelSpec) {
	for _, i := range st.in.Switch.Interfaces(p) {
		set := map[string]any{}
		if i.Type != spec.kind {
			set["type"] = spec.kind
		}
		if !maps.Equal(i.Options, spec.options) {
			set["options"] = spec.options
		}
		if len(set) > 0 {
			st.ovs.add(Op{Kind: Update, Table: vswitchdb.InterfaceTable, UUID: i.UUID, Set: set})
		}
	}
}

// watchTunnels enables BFD, RFC 5880, on the tunnels to the chassis with which gateways are shared, and disables it
// on the others.
func (st *step) watchTunnels() {
	peers := bfdPeers(st.in.SB, st.me)
	want := map[string]string{"enable": "true"}
	if g := st.in.SB.Global; g != nil {
		for option, key := range map[string]string{
			"bfd-min-rx": "min_rx", "bfd-decay-min-rx": "decay_min_rx", "bfd-min-tx": "min_tx", "bfd-mult": "mult",
		} {
			if v := g.Options[option]; v != "" {
				want[key] = v
			}
		}
	}
	for _, p := range st.in.Switch.Ports(st.bridge) {
		chassis, _, ok := tunnelID(p.ExternalIDs[keyTunnel])
		if !ok {
			continue
		}
		_, watched := peers[chassis]
		for _, i := range st.in.Switch.Interfaces(p) {
			switch {
			case watched && !maps.Equal(i.BFD, want):
				st.ovs.add(Op{Kind: Update, Table: vswitchdb.InterfaceTable, UUID: i.UUID, Set: map[string]any{"bfd": want}})
			case !watched && len(i.BFD) > 0:
				st.ovs.add(Op{Kind: Update, Table: vswitchdb.InterfaceTable, UUID: i.UUID, Set: map[string]any{
					"bfd": map[string]string{},
				}})
			}
		}
	}
}

// wantTunnels returns the tunnels this chassis should have, sorted by id.
func (st *step) wantTunnels() []tunnelSpec {
	var specs []tunnelSpec
	common := st.tunnelOptions()
	own := st.encapsOf(st.me)
	for _, c := range st.in.SB.Chassis {
		if c.UUID == st.me.UUID || !shareZone(st.cfg.TransportZones, c.TransportZones) ||
			c.OtherConfig["is-remote"] == "true" && !st.cfg.Interconn {
			continue
		}
		theirs := st.encapsOf(c)
		kind := bestType(own, theirs)
		if kind == "" {
			st.notice(LevelInfo, "no supported encaps", "chassis", c.Name)
			continue
		}
		for _, e := range theirs {
			if e.Type != kind {
				continue
			}
			options := maps.Clone(common)
			options["remote_ip"] = e.IP
			if csum := e.Options["csum"]; csum == "true" || csum == "false" {
				options["csum"] = csum
			}
			if port := e.Options["dst_port"]; port != "" {
				options["dst_port"] = port
			}
			if st.in.SB.Global != nil && st.in.SB.Global.IPsec {
				options["remote_name"] = c.Name
			}
			specs = append(specs, tunnelSpec{id: c.Name + "@" + e.IP, chassis: c.Name, kind: kind, options: options})
		}
	}
	slices.SortFunc(specs, func(a, b tunnelSpec) int { return cmp.Compare(a.id, b.id) })
	return slices.CompactFunc(specs, func(a, b tunnelSpec) bool { return a.id == b.id })
}

// tunnelOptions returns the options that all tunnels have.
func (st *step) tunnelOptions() map[string]string {
	options := map[string]string{"key": "flow"}
	if st.cfg.EncapTOS != "" {
		options["tos"] = st.cfg.EncapTOS
	}
	if st.cfg.EncapDF != "" {
		options["df_default"] = st.cfg.EncapDF
	}
	ipsec := st.in.SB.Global != nil && st.in.SB.Global.IPsec
	if ipsec {
		for _, key := range []string{"ipsec_encapsulation", "ipsec_forceencaps"} {
			if st.in.SB.Global.Options[key] == "true" {
				options[key] = "yes"
			}
		}
	}
	if st.cfg.SetLocalIP || ipsec {
		if len(st.cfg.EncapIPs) > 1 {
			st.notice(LevelError, "configuration refused", "key", "ovn-encap-ip", "value", strings.Join(st.cfg.EncapIPs, ","),
				"reason", "a list of addresses cannot be the source of tunnels")
		}
		if len(st.cfg.EncapIPs) > 0 {
			options["local_ip"] = st.cfg.EncapIPs[0]
		}
	}
	return options
}

func (st *step) encapsOf(c *sb.Chassis) []*sb.Encap {
	var out []*sb.Encap
	for _, uuid := range c.Encaps {
		if e := st.in.SB.Encaps[uuid]; e != nil && encapRanks[e.Type] > 0 {
			out = append(out, e)
		}
	}
	return out
}

// bestType returns the best tunnel type that both sides have, empty if there is none.
func bestType(a, b []*sb.Encap) string {
	best := ""
	for _, e := range a {
		if encapRanks[e.Type] > encapRanks[best] && slices.ContainsFunc(b, func(f *sb.Encap) bool { return f.Type == e.Type }) {
			best = e.Type
		}
	}
	return best
}

// shareZone reports whether two chassis have a transport zone in common, where none at all is a zone too.
func shareZone(a, b []string) bool {
	if len(a) == 0 && len(b) == 0 {
		return true
	}
	return slices.ContainsFunc(a, func(zone string) bool { return slices.Contains(b, zone) })
}

// tunnelName returns the first free name for a tunnel port to a chassis, short enough for a network device. It is
// empty if there is none.
func tunnelName(index, chassis string, names map[string]bool) string {
	prefix := strings.ToValidUTF8(chassis[:min(len(chassis), 6-len(index))], "")
	for n := range 1 << 16 {
		if name := fmt.Sprintf("ovn%s-%s-%x", index, prefix, n); !names[name] {
			return name
		}
	}
	return ""
}

// readPorts fills in what the ports of the bridge say that are no VIFs: tunnels and patch ports.
func (st *step) readPorts(local *Local) {
	local.Patch = map[string]uint16{}
	for _, p := range st.in.Switch.Ports(st.bridge) {
		for _, i := range st.in.Switch.Interfaces(p) {
			of := ofPort(i)
			if of == 0 {
				continue
			}
			if i.Type == "patch" {
				if name := cmp.Or(p.ExternalIDs[keyLocalnet], p.ExternalIDs[keyL2Gateway]); name != "" {
					local.Patch[name] = of
				}
				continue
			}
			chassis, ip, ok := tunnelID(p.ExternalIDs[keyTunnel])
			if !ok || chassis == st.cfg.Name || encapRanks[i.Type] == 0 {
				continue
			}
			addr, err := netip.ParseAddr(ip)
			local.Tunnels = append(local.Tunnels, Tunnel{
				Chassis: chassis, Type: i.Type, RemoteIP: ip, OFPort: of, IsIPv6: err == nil && addr.Is6(),
			})
		}
	}
	slices.SortFunc(local.Tunnels, func(a, b Tunnel) int {
		return cmp.Or(cmp.Compare(a.Chassis, b.Chassis), cmp.Compare(a.RemoteIP, b.RemoteIP), cmp.Compare(a.OFPort, b.OFPort))
	})
}

// activeTunnels returns the chassis to which the BFD session of a tunnel is up.
func (st *step) activeTunnels() map[string]struct{} {
	active := map[string]struct{}{}
	for _, p := range st.in.Switch.Ports(st.bridge) {
		chassis, _, ok := tunnelID(p.ExternalIDs[keyTunnel])
		if !ok {
			continue
		}
		for _, i := range st.in.Switch.Interfaces(p) {
			if i.BFD["enable"] == "true" && i.BFDStatus["state"] == "up" {
				active[chassis] = struct{}{}
			}
		}
	}
	return active
}
