package compile

import (
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/sb"
)

// zones are the conntrack zones that packets of a logical port use; 0 is none.
type zones struct{ ct, dnat, snat uint16 }

func (v *view) zonesOf(p *sb.Port) zones {
	dp := p.Datapath.String()
	return zones{v.zone(p.Name), v.zone(dp + "_dnat"), v.zone(dp + "_snat")}
}

func (z zones) load() []ir.Action {
	var a []ir.Action
	if z.ct != 0 {
		a = append(a, ir.SetWhole(regCTZone, uint64(z.ct)))
	}
	if z.dnat != 0 {
		a = append(a, ir.SetWhole(regDNATZone, uint64(z.dnat)))
	}
	if z.snat != 0 {
		a = append(a, ir.SetWhole(regSNATZone, uint64(z.snat)))
	}
	return a
}

// ingress returns the actions that make a packet one that has just entered the logical port: zones, datapath, inport.
func ingress(dp *sb.Datapath, p *sb.Port, z zones) []ir.Action {
	return append(z.load(), ir.SetWhole(ir.Metadata, uint64(dp.Key)), ir.SetWhole(regInport, uint64(p.Key)))
}

func outportMatch(dp, port uint32) ir.Match {
	return ir.Match{}.Eq(ir.Metadata, uint64(dp)).Eq(regOutport, uint64(port))
}

func flag(bit int) (value, mask uint64) { return 1 << bit, 1 << bit }

// withFlag adds the condition that a bit of the logical flags is set.
func withFlag(m ir.Match, bit int) ir.Match {
	value, mask := flag(bit)
	return m.Masked(regFlags, value, mask)
}

func setFlag(bit int) ir.Action { return ir.Load(ir.Bit(regFlags, bit), 1) }

const portNone = 0xffff // OFPP_NONE as NXM_OF_IN_PORT carries it

// hairpin sends a packet on to the physical tables as if it had come from nowhere, since OpenFlow refuses to output a
// packet to the port it came in on.
func hairpin() []ir.Action {
	return []ir.Action{
		ir.Push{Sub: ir.Whole(ir.InPort)},
		ir.SetWhole(ir.InPort, portNone),
		ir.Resubmit{Table: TableLogToPhy},
		ir.Pop{Sub: ir.Whole(ir.InPort)},
	}
}

// localCommon adds the rules of every port that packets can leave this chassis by: delivery, the loopback check, and
// the way back out of the port they came from. parent is the port a nested container sits behind, or nil.
func localCommon(s *sink, dp *sb.Datapath, p, parent *sb.Port, z zones) {
	cookie := p.UUID.Cookie()
	s.rule(TableLocalOutput, 100, cookie, outportMatch(dp.Key, p.Key),
		append(z.load(), ir.Resubmit{Table: TableCheckLoopback})...)
	_, loopback := flag(flagAllowLoopback)
	s.rule(TableCheckLoopback, 100, cookie,
		outportMatch(dp.Key, p.Key).Masked(regFlags, 0, loopback).Eq(regInport, uint64(p.Key)))
	m := outportMatch(dp.Key, p.Key)
	if parent == nil {
		m = withFlag(m, flagAllowLoopback)
	}
	s.rule(TableSaveInport, 100, cookie, m, hairpin()...)
	if parent != nil {
		s.rule(TableSaveInport, 100, 0,
			withFlag(outportMatch(dp.Key, parent.Key), flagNestedContainer), hairpin()...)
	}
}

// port compiles a Port_Binding: how packets get from the port into the logical pipeline and from the pipeline to it.
func (v *view) port(s *sink, dp *sb.Datapath, p *sb.Port) {
	switch {
	case p.Type == sb.Patch, p.Type == sb.L3Gateway && p.Chassis == v.local.Chassis && !p.Chassis.IsZero():
		v.patchPort(s, dp, p)
		return
	case p.Type == sb.ChassisRedirect && v.resident(p):
		v.redirectPort(s, dp, p)
		return
	}

	var ofport, tag uint16
	var parent *sb.Port
	switch {
	case p.Parent != "":
		if p.Tag == 0 {
			return
		}
		if lp, ok := v.localPort(p.Parent); ok {
			ofport, tag = lp, p.Tag
			parent = v.portByName(p.Parent)
		}
	case p.Type == sb.Localnet || p.Type == sb.L2Gateway:
		ofport = v.patch(p.Name)
		if ofport != 0 {
			tag = p.Tag
		}
	default:
		if lp, ok := v.localPort(p.Name); ok {
			ofport = lp
		}
	}

	localnet := v.localnet(dp)
	switch {
	case ofport != 0:
		v.localAccess(s, dp, p, parent, localnet, ofport, tag)
		v.tunnelled(s, dp, p)
	case localnet != nil && len(p.AdditionalChassis) == 0:
		if v.patch(localnet.Name) != 0 {
			s.rule(TableLocalOutput, 100, p.UUID.Cookie(), outportMatch(dp.Key, p.Key),
				ir.SetWhole(regOutport, uint64(localnet.Key)), ir.Resubmit{Table: TableLocalOutput})
		}
	default:
		if hosts := v.haChassis(p.HAChassisGroup); len(hosts) >= 2 {
			v.tunnelledToActive(s, dp, p, hosts)
		} else {
			v.tunnelled(s, dp, p)
		}
	}
}

// patchPort compiles one end of the connection between two logical datapaths: the packet leaves one pipeline and
// enters the other as if new.
func (v *view) patchPort(s *sink, dp *sb.Datapath, p *sb.Port) {
	peer := v.peer(p)
	if peer == nil {
		return
	}
	peerDP := v.datapath(peer.Datapath)
	if peerDP == nil {
		return
	}
	localCommon(s, dp, p, nil, v.zonesOf(p))
	acts := []ir.Action{
		ir.CTClear{},
		ir.SetWhole(regDNATZone, 0), ir.SetWhole(regSNATZone, 0), ir.SetWhole(regCTZone, 0),
	}
	acts = append(acts, ingress(peerDP, peer, v.zonesOf(peer))...)
	acts = append(acts, ir.SetWhole(regFlags, 0), ir.SetWhole(regOutport, 0))
	acts = append(acts, clearLogRegs()...)
	acts = append(acts, ir.Resubmit{Table: TableIngress})
	s.rule(TableLogToPhy, 100, p.UUID.Cookie(), outportMatch(dp.Key, p.Key), ir.Clone{Actions: acts})
}

func clearLogRegs() []ir.Action {
	acts := make([]ir.Action, logRegs)
	for i := range acts {
		acts[i] = ir.SetWhole(ir.Reg0+ir.Field(i), 0)
	}
	return acts
}

// redirectPort compiles a chassisredirect port whose gateway is this chassis: it becomes the port it stands for.
func (v *view) redirectPort(s *sink, dp *sb.Datapath, p *sb.Port) {
	var acts []ir.Action
	if d := v.portByName(p.Options["distributed-port"]); d != nil && d.Datapath == p.Datapath {
		acts = append(acts, ir.SetWhole(regOutport, uint64(d.Key)))
		acts = append(acts, v.zonesOf(d).load()...)
		acts = append(acts, ir.Resubmit{Table: TableCheckLoopback})
	}
	s.rule(TableLocalOutput, 100, p.UUID.Cookie(), outportMatch(dp.Key, p.Key), acts...)
}

// localAccess compiles a port that is an OpenFlow port of the integration bridge. A tag of 0 is none.
func (v *view) localAccess(s *sink, dp *sb.Datapath, p, parent, localnet *sb.Port, ofport, tag uint16) {
	cookie := p.UUID.Cookie()
	z := v.zonesOf(p)
	localCommon(s, dp, p, parent, z)

	physical := p.Type == sb.Localnet || p.Type == sb.L2Gateway
	m := ir.Match{}.Eq(ir.InPort, uint64(ofport))
	var enter []ir.Action
	if tag != 0 || physical {
		if parent != nil {
			enter = append(enter, setFlag(flagNestedContainer))
		}
		if tag != 0 || p.Options["vlan-passthru"] != "true" {
			// The CFI bit says "tagged"; priority bits are the sender's.
			m = m.Masked(ir.VLANTCI, vlanCFI|uint64(tag), vlanCFI|vlanVID)
			enter = append(enter, ir.StripVLAN{})
		}
	}
	body := ingress(dp, p, z)
	if p.Type == sb.Localport {
		body = append(body, setFlag(flagLocalport))
	}
	body = append(body, ir.Resubmit{Table: TableIngress})
	priority := uint16(100)
	if tag != 0 {
		priority = 150
	}
	s.rule(TablePhyToLog, priority, cookie, m, append(enter, body...)...)
	if tag == 0 && physical {
		// Frames without any 802.1Q header have nothing to strip.
		s.rule(TablePhyToLog, 100, cookie, m.Masked(ir.VLANTCI, 0, vlanCFI), body...)
	}

	var deliver []ir.Action
	if tag != 0 {
		deliver = append(deliver, ir.PushVLAN{EtherType: tagEtherType(localnet)},
			ir.Set{Field: ir.VLANTCI, Value: ir.U64(vlanCFI | uint64(tag)), Mask: ir.U64(vlanCFI | vlanVID)})
	}
	deliver = append(deliver, ir.Output{Port: uint32(ofport)})
	if tag != 0 {
		// Later copies of a broadcast packet must not carry this port's tag.
		deliver = append(deliver, ir.StripVLAN{})
	}
	s.rule(TableLogToPhy, 100, cookie, outportMatch(dp.Key, p.Key), deliver...)

	switch p.Type {
	case sb.Localnet:
		for _, bit := range []int{flagLocalport, flagLocalOnly} {
			s.rule(TableCheckLoopback, 160, cookie, withFlag(outportMatch(dp.Key, p.Key), bit))
		}
	case sb.Localport:
		s.rule(TableRemoteOutput, 150, cookie,
			ir.Match{}.Eq(regInport, uint64(p.Key)).Eq(ir.Metadata, uint64(dp.Key)),
			ir.Resubmit{Table: TableLocalOutput})
	}
}

const (
	vlanCFI = 0x1000
	vlanVID = 0x0fff
)

// tagEtherType returns the EtherType of tags towards a localnet port (nil: none), Port_Binding options:ethtype.
func tagEtherType(localnet *sb.Port) uint16 {
	if localnet != nil && localnet.Options["ethtype"] == "802.11ad" {
		return 0x88a8
	}
	return 0x8100
}

// tunnelled sends packets for a port to every other chassis that hosts it.
func (v *view) tunnelled(s *sink, dp *sb.Datapath, p *sb.Port) {
	var acts []ir.Action
	if p.Type == sb.VTEP {
		acts = append(acts, ir.SetWhole(ir.InPort, portNone))
	}
	found := false
	for i, host := range append([]sb.UUID{p.Chassis}, p.AdditionalChassis...) {
		if host.IsZero() || host == v.local.Chassis {
			continue
		}
		encap := p.Encap
		if i > 0 {
			encap = sb.UUID{}
		}
		t, ok := v.tunnel(host, encap)
		if !ok {
			continue
		}
		found = true
		acts = append(acts, v.encapsulate(t, dp.Key, p.Key, p.Type == sb.VTEP)...)
		acts = append(acts, ir.Output{Port: uint32(t.OFPort)})
	}
	if !found {
		return
	}
	acts = append(acts, ir.Resubmit{Table: TableLocalOutput})
	s.rule(TableRemoteOutput, 100, p.UUID.Cookie(), outportMatch(dp.Key, p.Key), acts...)
}

// tunnelledToActive sends packets for a port that several gateways can host to the first whose tunnel is alive.
func (v *view) tunnelledToActive(s *sink, dp *sb.Datapath, p *sb.Port, hosts []sb.UUID) {
	var acts []ir.Action
	var members []uint16
	var kind string
	for _, host := range hosts {
		t, ok := v.tunnel(host, sb.UUID{})
		if !ok {
			continue
		}
		if kind == "" {
			kind = t.Type
			acts = v.encapsulate(t, dp.Key, p.Key, p.Type == sb.VTEP)
		}
		if t.Type != kind {
			return // gateways of one group must share an encapsulation
		}
		members = append(members, t.OFPort)
	}
	if len(members) == 0 {
		return
	}
	acts = append(acts, ir.Bundle{Members: members})
	s.rule(TableRemoteOutput, 100, p.UUID.Cookie(), outportMatch(dp.Key, p.Key), acts...)
}

// encapsulate writes the tunnel metadata of a packet for logical port outport; see OVN's tunnel key layout in
// ovn-architecture(7), "Tunnel Encapsulations". whole says that the VNI is the datapath key alone (VTEP gateways).
func (v *view) encapsulate(t Tunnel, dp, outport uint32, whole bool) []ir.Action {
	if t.Type == encapVXLAN {
		vni := uint64(dp)
		if !whole {
			vni |= vxlanPortKey(outport) << 12
		}
		return []ir.Action{ir.Load(ir.Sub{Field: ir.TunID, N: 24}, vni)}
	}
	return []ir.Action{
		ir.Load(ir.Sub{Field: ir.TunID, N: 24}, uint64(dp)),
		ir.Load(ir.Sub{Field: v.geneve, N: 32}, uint64(outport)),
		ir.Move{Src: ir.Sub{Field: regInport, N: 15}, Dst: ir.Sub{Field: v.geneve, Ofs: 16, N: 15}},
	}
}

const (
	encapGeneve = "geneve"
	encapVXLAN  = "vxlan"

	vxlanMinMulticast = 1 << 11
)

// vxlanPortKey maps a port key to the 12 bits that VXLAN leaves for it.
func vxlanPortKey(key uint32) uint64 {
	if key >= sb.MinMulticastKey {
		return uint64(vxlanMinMulticast | key&(vxlanMinMulticast-1))
	}
	return uint64(key)
}

// multicastGroup compiles a Multicast_Group: local members in the local output table, remote chassis in the remote one.
func (v *view) multicastGroup(s *sink, dp *sb.Datapath, g *sb.MulticastGroup) {
	var local, remote []ir.Action
	chassis := map[string]sb.UUID{}
	vteps := map[string]sb.UUID{}
	localnet := v.localnet(dp)
	for _, id := range g.Ports {
		p := v.portByUUID(id)
		if p == nil || p.Datapath != g.Datapath {
			continue
		}
		if zone := v.zone(p.Name); zone != 0 {
			local = append(local, ir.SetWhole(regCTZone, uint64(zone)))
		}
		deliver := func(key uint32) []ir.Action {
			return []ir.Action{ir.SetWhole(regOutport, uint64(key)), ir.Resubmit{Table: TableCheckLoopback}}
		}
		switch {
		case p.Type == sb.Patch && !dp.IsTransitSwitch, p.Type == sb.Localport:
			remote = append(remote, deliver(p.Key)...)
		case p.Type == sb.Patch:
			local = append(local, deliver(p.Key)...)
		case p.Type == sb.Remote:
			if !p.Chassis.IsZero() {
				remote = append(remote, ir.SetWhole(regOutport, uint64(p.Key)))
				if t, ok := v.tunnel(p.Chassis, sb.UUID{}); ok {
					remote = append(remote, v.encapsulate(t, dp.Key, p.Key, false)...)
					remote = append(remote, ir.Output{Port: uint32(t.OFPort)})
				}
			}
		case v.boundHere(p):
			local = append(local, deliver(p.Key)...)
		case v.patch(p.Name) != 0:
			local = append(local, deliver(p.Key)...)
		case p.Type == sb.ChassisRedirect && p.Chassis == v.local.Chassis && !p.Chassis.IsZero():
			if d := v.portByName(p.Options["distributed-port"]); d != nil && d.Datapath == p.Datapath {
				local = append(local, deliver(d.Key)...)
			}
		case localnet == nil:
			for _, id := range append([]sb.UUID{p.Chassis}, p.AdditionalChassis...) {
				c := v.chassis(id)
				switch {
				case c == nil:
				case c.OtherConfig["is-vtep"] == "true":
					vteps[c.Name] = id
				default:
					chassis[c.Name] = id
				}
			}
		}
	}

	m := outportMatch(dp.Key, g.Key)
	restore := ir.SetWhole(regOutport, uint64(g.Key))
	hasLocal := len(local) > 0
	if hasLocal {
		s.rule(TableLocalOutput, 100, g.UUID.Cookie(), m, append(local, restore)...)
	}
	if len(remote) > 0 {
		remote = append(remote, restore)
	}
	remote = append(remote, v.fanOut(chassis, dp.Key, g.Key, false)...)
	remote = append(remote, v.fanOut(vteps, dp.Key, g.Key, true)...)
	if len(remote) > 0 {
		if hasLocal {
			remote = append(remote, ir.Resubmit{Table: TableLocalOutput})
		}
		s.rule(TableRemoteOutput, 100, g.UUID.Cookie(), m, remote...)
	}
}

// fanOut sends a copy to each chassis. The tunnel metadata is written once per run of tunnels of one type.
func (v *view) fanOut(to map[string]sb.UUID, dp, outport uint32, whole bool) []ir.Action {
	var acts []ir.Action
	last := ""
	for _, name := range sortedKeys(to) {
		t, ok := v.tunnel(to[name], sb.UUID{})
		if !ok {
			continue
		}
		if t.Type != last {
			acts = append(acts, v.encapsulate(t, dp, outport, whole)...)
			last = t.Type
		}
		acts = append(acts, ir.Output{Port: uint32(t.OFPort)})
	}
	return acts
}

// tunnelIngress adds the rules for packets that arrive from another chassis. It needs every VTEP port of the
// tunnel's chassis, in vteps.
func (v *view) tunnelIngress(s *sink, t Tunnel, vteps []*sb.Port) {
	m := ir.Match{}.Eq(ir.InPort, uint64(t.OFPort))
	toLocal := ir.Resubmit{Table: TableLocalOutput}
	dpKey := func(n int) ir.Move {
		return ir.Move{Src: ir.Sub{Field: ir.TunID, N: n}, Dst: ir.Sub{Field: ir.Metadata, N: n}}
	}
	if t.Type == encapGeneve {
		s.rule(TablePhyToLog, 100, 0, m,
			dpKey(24),
			ir.Move{Src: ir.Sub{Field: v.geneve, Ofs: 16, N: 15}, Dst: ir.Sub{Field: regInport, N: 15}},
			ir.Move{Src: ir.Sub{Field: v.geneve, N: 16}, Dst: ir.Sub{Field: regOutport, N: 16}},
			toLocal)
		return
	}
	s.rule(TablePhyToLog, 100, 0, m,
		ir.Move{Src: ir.Sub{Field: ir.TunID, Ofs: 12, N: 12}, Dst: ir.Sub{Field: regOutport, N: 12}},
		dpKey(12), toLocal)
	const multicast = vxlanMinMulticast << 12
	s.rule(TablePhyToLog, 105, 0, m.Masked(ir.TunID, multicast, multicast),
		ir.Load(ir.Bit(regOutport, 15), 1),
		ir.Move{Src: ir.Sub{Field: ir.TunID, Ofs: 12, N: 11}, Dst: ir.Sub{Field: regOutport, N: 11}},
		dpKey(12), toLocal)
	for _, p := range vteps {
		dp := v.datapath(p.Datapath)
		if dp == nil {
			continue
		}
		s.rule(TablePhyToLog, 110, p.UUID.Cookie(), m.Eq(ir.TunID, uint64(dp.Key)),
			dpKey(24),
			ir.Load(ir.Sub{Field: regInport, N: 15}, uint64(p.Key)),
			setFlag(flagRcvFromRamp),
			ir.Resubmit{Table: TableIngress})
	}
}

// constant adds the rules that every chassis has.
func constant(s *sink) {
	all := ir.Match{}
	to := func(table uint8) ir.Action { return ir.Resubmit{Table: table} }
	s.rule(TablePhyToLog, 0, 0, all)
	s.rule(TableLargePktDetect, 0, 0, all, to(TableRemoteOutput))
	s.rule(TableLargePktProcess, 10, 0, withFlag(all, flagAllowLoopback), to(TableLocalOutput))
	s.rule(TableLargePktProcess, 0, 0, all, to(TableRemoteOutput))
	s.rule(TableRemoteOutput, 150, 0,
		all.Masked(regFlags, 1<<flagRcvFromRamp, 1<<flagRcvFromRamp|1<<flagAllowLoopback), to(TableLocalOutput))
	s.rule(TableRemoteOutput, 150, 0, withFlag(all, flagLocalOnly), to(TableLocalOutput))
	s.rule(TableRemoteOutput, 0, 0, all, to(TableLocalOutput))
	s.rule(TableLocalOutput, 0, 0, all)
	s.rule(TableCheckLoopback, 0, 0, all, append(clearLogRegs(), to(TableEgress))...)
	s.rule(TableSaveInport, 0, 0, all, to(TableLogToPhy))
	s.rule(TableLogToPhy, 0, 0, all)
}
