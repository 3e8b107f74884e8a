package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/offloadd/offloadd/pkg/devlink"
)

// A link is a network device in the host's network namespace.
type link struct {
	Link
	mac    MAC // zero: it has none, or one of another length
	mtu    int
	up     bool
	listen bool                // it takes packets for others: promisc, allmulticast
	xdp    bool                // a program is attached
	master int                 // the index of the bridge that it is in; 0: none
	alias  string              // ip-link(8): alias
	others []string            // altnames
	parent devlink.Handle      // the device that has registered it; Linux tells since 5.14
	vfs    map[uint32]VFConfig // of a PF, if the kernel was asked for them
}

var (
	ne = binary.NativeEndian
	be = binary.BigEndian
)

// Messages and attributes, linux/rtnetlink.h and linux/if_link.h.
const (
	rtmNewLink = 16
	rtmDelLink = 17
	rtmGetLink = 18
	rtmSetLink = 19

	rtmDelLinkProp = 109

	iflaAddress       = 1
	iflaIfname        = 3
	iflaMTU           = 4
	iflaMaster        = 10
	iflaIfalias       = 20
	iflaVFInfoList    = 22
	iflaExtMask       = 29
	iflaXDP           = 43
	iflaPropList      = 52
	iflaParentDevName = 56
	iflaParentDevBus  = 57

	iflaVFInfo = 1 // within iflaVFInfoList

	iflaXDPFD       = 1 // within iflaXDP
	iflaXDPAttached = 2

	iflaAltIfname = 53 // within iflaPropList

	iflaVFMac       = 1 // within iflaVFInfo
	iflaVFVLAN      = 2
	iflaVFSpoofChk  = 4
	iflaVFLinkState = 5
	iflaVFRate      = 6
	iflaVFTrust     = 9
	iflaVFNodeGUID  = 10
	iflaVFPortGUID  = 11
	iflaVFVLANList  = 12

	iflaVFVLANInfo = 1 // within iflaVFVLANList

	iffUp       = 1 << 0
	iffPromisc  = 1 << 8
	iffAllMulti = 1 << 9

	extFilterVF        = 1 << 0 // RTEXT_FILTER_VF
	extFilterSkipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS

	ifinfomsgSize = 16
	attrHeader    = 4
	attrNested    = 1 << 15
	attrTypeMask  = 1<<14 - 1
)

func appendAttr(b []byte, typ uint16, data []byte) []byte {
	b = ne.AppendUint16(b, uint16(attrHeader+len(data)))
	b = ne.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// walk calls f for each attribute of b, with its type without flags. What comes after a malformed one is not looked at.
func walk(b []byte, f func(typ uint16, data []byte)) {
	for len(b) >= attrHeader {
		n := int(ne.Uint16(b))
		if n < attrHeader || n > len(b) {
			return
		}
		f(ne.Uint16(b[2:])&attrTypeMask, b[attrHeader:n:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

func text(data []byte) string {
	s, _, _ := bytes.Cut(data, []byte{0})
	return string(s)
}

// A linkRequest is a message of rtnetlink about a link, and the arguments with which ip(8) sends the same.
type linkRequest struct {
	text  string
	typ   uint16
	index int
	flags uint32 // IFF_*
	mask  uint32 // which of them are changed
	attrs []byte
}

func (r linkRequest) encode() []byte {
	b := make([]byte, ifinfomsgSize, ifinfomsgSize+len(r.attrs))
	ne.PutUint32(b[4:], uint32(int32(r.index)))
	ne.PutUint32(b[8:], r.flags)
	ne.PutUint32(b[12:], r.mask)
	return append(b, r.attrs...)
}

// showLinks asks for all links, and showLink for one. Neither lets drivers be asked for VFs, which takes a millisecond or two for each, nor
// for counters.
func showLinks() linkRequest {
	return linkRequest{text: "link show", typ: rtmGetLink, attrs: appendAttr(nil, iflaExtMask, ne.AppendUint32(nil, extFilterSkipStats))}
}

func showLink(l Link) linkRequest {
	r := showLinks()
	r.text, r.index = "link show "+l.Name, l.Index
	return r
}

// showVFs asks for the link of a PF with what the driver says of its VFs. There is no way to ask for one VF.
func showVFs(pf Link) linkRequest {
	return linkRequest{
		text: "link show " + pf.Name, typ: rtmGetLink, index: pf.Index,
		attrs: appendAttr(nil, iflaExtMask, ne.AppendUint32(nil, extFilterVF|extFilterSkipStats)),
	}
}

func setLink(l Link, format string, args ...any) linkRequest {
	return linkRequest{text: "link set " + l.Name + " " + fmt.Sprintf(format, args...), typ: rtmSetLink, index: l.Index}
}

func (r linkRequest) with(typ uint16, data []byte) linkRequest {
	r.attrs = appendAttr(r.attrs, typ, data)
	return r
}

func setMAC(l Link, m MAC) linkRequest { return setLink(l, "address %v", m).with(iflaAddress, m[:]) }

func setMTU(l Link, mtu int) linkRequest {
	return setLink(l, "mtu %d", mtu).with(iflaMTU, ne.AppendUint32(nil, uint32(mtu)))
}

func setName(l Link, name string) linkRequest {
	return setLink(l, "name %s", name).with(iflaIfname, append([]byte(name), 0))
}

func setAlias(l Link, alias string) linkRequest {
	return setLink(l, "alias %q", alias).with(iflaIfalias, []byte(alias))
}

// setQuiet takes a link down, and lets it take packets for itself only.
func setQuiet(l Link) linkRequest {
	r := setLink(l, "down promisc off allmulticast off")
	r.mask = iffUp | iffPromisc | iffAllMulti
	return r
}

func setNoXDP(l Link) linkRequest {
	const none = -1
	fd := int32(none)
	return setLink(l, "xdp off").with(iflaXDP|attrNested, appendAttr(nil, iflaXDPFD, ne.AppendUint32(nil, uint32(fd))))
}

func delAltNames(l Link, names []string) linkRequest {
	var list []byte
	for _, n := range names {
		list = appendAttr(list, iflaAltIfname, append([]byte(n), 0))
	}
	r := linkRequest{text: fmt.Sprintf("link property del dev %s altname %v", l.Name, names), typ: rtmDelLinkProp, index: l.Index}
	return r.with(iflaPropList|attrNested, list)
}

// setVF changes one thing of a VF: ip link set PF vf N.
func setVF(pf Link, n uint32, typ uint16, data []byte, format string, args ...any) linkRequest {
	info := appendAttr(nil, typ, data)
	list := appendAttr(nil, iflaVFInfo|attrNested, info)
	return setLink(pf, "vf %d %s", n, fmt.Sprintf(format, args...)).with(iflaVFInfoList|attrNested, list)
}

func setVFMAC(pf Link, n uint32, m MAC) linkRequest {
	data := make([]byte, 4+32) // struct ifla_vf_mac
	ne.PutUint32(data, n)
	copy(data[4:], m[:])
	return setVF(pf, n, iflaVFMac, data, "mac %v", m)
}

func setVFVLAN(pf Link, n uint32, v VLAN) linkRequest {
	if v.protocol() == etherVLAN { // what all kernels know, struct ifla_vf_vlan
		data := ne.AppendUint32(ne.AppendUint32(ne.AppendUint32(nil, n), uint32(v.ID)), uint32(v.QoS))
		return setVF(pf, n, iflaVFVLAN, data, "vlan %d qos %d", v.ID, v.QoS)
	}
	info := ne.AppendUint32(ne.AppendUint32(ne.AppendUint32(nil, n), uint32(v.ID)), uint32(v.QoS)) // struct ifla_vf_vlan_info
	info = append(be.AppendUint16(info, v.protocol()), 0, 0)
	return setVF(pf, n, iflaVFVLANList|attrNested, appendAttr(nil, iflaVFVLANInfo, info), "vlan %d qos %d proto %#x", v.ID, v.QoS, v.protocol())
}

// setVFSwitch is for what is on or off.
func setVFSwitch(pf Link, n uint32, typ uint16, name string, on bool) linkRequest {
	value, word := uint32(0), "off"
	if on {
		value, word = 1, "on"
	}
	return setVF(pf, n, typ, ne.AppendUint32(ne.AppendUint32(nil, n), value), "%s %s", name, word)
}

var linkStates = []LinkState{LinkAuto, LinkEnable, LinkDisable} // IFLA_VF_LINK_STATE_*

func setVFLinkState(pf Link, n uint32, s LinkState) linkRequest {
	value := uint32(0)
	for i, known := range linkStates {
		if known == s {
			value = uint32(i)
		}
	}
	return setVF(pf, n, iflaVFLinkState, ne.AppendUint32(ne.AppendUint32(nil, n), value), "state %s", s)
}

const megabit = 1_000_000 // the unit of IFLA_VF_RATE

func setVFRate(pf Link, n uint32, r Rate) linkRequest {
	data := ne.AppendUint32(ne.AppendUint32(ne.AppendUint32(nil, n), uint32(r.Min/megabit)), uint32(r.Max/megabit))
	return setVF(pf, n, iflaVFRate, data, "min_tx_rate %d max_tx_rate %d", r.Min/megabit, r.Max/megabit)
}

// setVFGUID is for node_guid and port_guid. struct ifla_vf_guid has the GUID as a number, aligned as such.
func setVFGUID(pf Link, n uint32, typ uint16, name string, g GUID) linkRequest {
	data := ne.AppendUint64(ne.AppendUint32(ne.AppendUint32(nil, n), 0), be.Uint64(g[:]))
	return setVF(pf, n, typ, data, "%s %v", name, g)
}

const (
	etherVLAN = 0x8100 // ETH_P_8021Q
	etherQinQ = 0x88a8 // ETH_P_8021AD
)

func (v VLAN) protocol() uint16 {
	if v.Protocol == 0 {
		return etherVLAN
	}
	return v.Protocol
}

var errShort = errors.New("the kernel's message is too short")

// decodeLink reads RTM_NEWLINK or RTM_DELLINK.
func decodeLink(b []byte) (link, error) {
	if len(b) < ifinfomsgSize {
		return link{}, fmt.Errorf("device link: %w", errShort)
	}
	flags := ne.Uint32(b[8:])
	l := link{Link: Link{Index: int(int32(ne.Uint32(b[4:])))}, up: flags&iffUp != 0, listen: flags&(iffPromisc|iffAllMulti) != 0}
	walk(b[ifinfomsgSize:], func(typ uint16, data []byte) {
		switch typ {
		case iflaIfname:
			l.Name = text(data)
		case iflaAddress:
			if len(data) == len(l.mac) {
				l.mac = MAC(data)
			}
		case iflaMTU:
			l.mtu = int(u32(data))
		case iflaMaster:
			l.master = int(u32(data))
		case iflaIfalias:
			l.alias = text(data)
		case iflaXDP:
			walk(data, func(typ uint16, data []byte) {
				if typ == iflaXDPAttached && len(data) > 0 {
					l.xdp = data[0] != 0
				}
			})
		case iflaPropList:
			walk(data, func(typ uint16, data []byte) {
				if typ == iflaAltIfname {
					l.others = append(l.others, text(data))
				}
			})
		case iflaParentDevName:
			l.parent.Dev = text(data)
		case iflaParentDevBus:
			l.parent.Bus = text(data)
		case iflaVFInfoList:
			l.vfs = map[uint32]VFConfig{}
			walk(data, func(typ uint16, data []byte) {
				if n, v, ok := decodeVF(data); typ == iflaVFInfo && ok {
					l.vfs[n] = v
				}
			})
		}
	})
	if l.parent.Bus == "" || l.parent.Dev == "" {
		l.parent = devlink.Handle{}
	}
	return l, nil
}

func u32(data []byte) uint32 {
	if len(data) < 4 {
		return 0
	}
	return ne.Uint32(data)
}

func guid(data []byte) *GUID {
	if len(data) < 16 {
		return nil
	}
	var g GUID
	be.PutUint64(g[:], ne.Uint64(data[8:]))
	return &g
}

// decodeVF reads IFLA_VF_INFO. Drivers leave out what they do not have, or say -1: rtnl_fill_vfinfo of net/core/rtnetlink.c.
func decodeVF(b []byte) (n uint32, v VFConfig, ok bool) {
	walk(b, func(typ uint16, data []byte) {
		if len(data) < 8 {
			return
		}
		value := ne.Uint32(data[4:])
		onOff := func() *bool {
			if value > 1 {
				return nil
			}
			return new(value == 1)
		}
		switch typ {
		case iflaVFMac:
			if len(data) >= 4+6 {
				n, ok = ne.Uint32(data), true
				v.MAC = new(MAC(data[4:10]))
			}
		case iflaVFVLAN:
			if len(data) >= 12 && v.VLAN == nil {
				v.VLAN = &VLAN{ID: uint16(value), QoS: uint8(ne.Uint32(data[8:]))}
			}
		case iflaVFVLANList:
			walk(data, func(typ uint16, data []byte) {
				if typ == iflaVFVLANInfo && len(data) >= 14 {
					v.VLAN = &VLAN{ID: uint16(ne.Uint32(data[4:])), QoS: uint8(ne.Uint32(data[8:])), Protocol: be.Uint16(data[12:])}
				}
			})
		case iflaVFSpoofChk:
			v.SpoofCheck = onOff()
		case iflaVFTrust:
			v.Trust = onOff()
		case iflaVFLinkState:
			if int(value) < len(linkStates) {
				v.LinkState = linkStates[value]
			}
		case iflaVFNodeGUID:
			v.NodeGUID = guid(data)
		case iflaVFPortGUID:
			v.PortGUID = guid(data)
		case iflaVFRate:
			if len(data) >= 12 {
				v.Rate = &Rate{Min: uint64(value) * megabit, Max: uint64(ne.Uint32(data[8:])) * megabit}
			}
		}
	})
	if v.VLAN != nil && v.VLAN.Protocol == etherVLAN {
		v.VLAN.Protocol = 0
	}
	return n, v, ok
}
