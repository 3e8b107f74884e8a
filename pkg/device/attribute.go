package device

import (
	"fmt"
	"math"

	"github.com/offloadd/offloadd/pkg/reason"
)

// Names of attributes, as errors and their metadata have them.
const (
	attributeMAC        = "mac"
	attributeMTU        = "mtu"
	attributeVLAN       = "vlan"
	attributeTrust      = "trust"
	attributeSpoofCheck = "spoof_check"
	attributeLinkState  = "link_state"
	attributeRate       = "rate"
	attributeName       = "name"
	attributeGUID       = "infiniband_guid"
	attributeRDMA       = "rdma"
)

// check refuses attributes that no function can have.
func (a Attributes) check() error {
	var fields []reason.Field
	bad := func(name, format string, args ...any) {
		fields = append(fields, reason.Field{Path: name, Cause: fmt.Sprintf(format, args...)})
	}
	if a.MAC[0]&1 != 0 {
		bad(attributeMAC, "%v: an address of a group", a.MAC)
	}
	if a.MTU != 0 && (a.MTU < 68 || a.MTU > math.MaxUint16) { // ETH_MIN_MTU, ETH_MAX_MTU
		bad(attributeMTU, "%d: not between 68 and 65535", a.MTU)
	}
	if v := a.VLAN; v != nil {
		switch {
		case v.ID > 4094:
			bad(attributeVLAN, "%d: not between 0 and 4094", v.ID)
		case v.QoS > 7:
			bad(attributeVLAN, "qos %d: not between 0 and 7", v.QoS)
		case v.ID == 0 && v.QoS != 0:
			bad(attributeVLAN, "qos %d without a tag", v.QoS)
		case v.protocol() != etherVLAN && v.protocol() != etherQinQ:
			bad(attributeVLAN, "protocol %#x: neither 0x8100 nor 0x88a8", v.Protocol)
		}
	}
	switch a.LinkState {
	case "", LinkAuto, LinkEnable, LinkDisable:
	default:
		bad(attributeLinkState, "%q: none of auto, enable, disable", a.LinkState)
	}
	if a.GUID != nil && *a.GUID == (GUID{}) {
		bad(attributeGUID, "%v: none", a.GUID)
	}
	if a.MinRate != nil && a.MaxRate != nil && *a.MaxRate != 0 && *a.MinRate > *a.MaxRate {
		bad(attributeRate, "at least %d, but at most %d bit/s", *a.MinRate, *a.MaxRate)
	}
	for _, r := range []*uint64{a.MinRate, a.MaxRate} {
		if r != nil && *r%8 != 0 {
			bad(attributeRate, "%d bit/s: not a whole number of bytes", *r)
		}
	}
	if fields == nil {
		return nil
	}
	err := reason.Errorf(reason.InvalidField, "device attributes: %s: %s", fields[0].Path, fields[0].Cause)
	err.Fields = fields
	return err
}

// ofVF names the first of the attributes that only VFs have, and only by their PF's netdev; "" if there is none.
func (a Attributes) ofVF() string {
	switch {
	case a.VLAN != nil:
		return attributeVLAN
	case a.Trust != nil:
		return attributeTrust
	case a.SpoofCheck != nil:
		return attributeSpoofCheck
	case a.LinkState != "":
		return attributeLinkState
	case a.GUID != nil:
		return attributeGUID
	}
	return ""
}

func (a Attributes) rates() bool { return a.MinRate != nil || a.MaxRate != nil }

func unsupported(f Function, attribute, cause string) error {
	return reason.Errorf(reason.FeatureUnsupported, "device %s: %s: %s", f.Name(), attribute, cause).With("attribute", attribute)
}

// possible refuses attributes that a function does not have, by what has been read of it.
func (a Attributes) possible(f Function, b Before) error {
	if name := a.ofVF(); f.Kind == SF && name != "" {
		return unsupported(f, name, "SFs do not have it")
	}
	const silent = "the driver of the PF does not have it"
	v := b.VF
	if v == nil {
		v = &VFConfig{}
	}
	switch {
	case a.VLAN != nil && v.VLAN == nil:
		return unsupported(f, attributeVLAN, silent)
	case a.Trust != nil && v.Trust == nil:
		return unsupported(f, attributeTrust, silent)
	case a.SpoofCheck != nil && v.SpoofCheck == nil:
		return unsupported(f, attributeSpoofCheck, silent)
	case a.LinkState != "" && v.LinkState == "":
		return unsupported(f, attributeLinkState, silent)
	case a.GUID != nil && v.NodeGUID == nil:
		return unsupported(f, attributeGUID, "it is not of InfiniBand")
	case a.RDMA && f.RDMA == "":
		return unsupported(f, attributeRDMA, "it has no RDMA device")
	case a.rates() && b.Rate == nil && v.Rate == nil:
		return unsupported(f, attributeRate, "neither devlink nor the PF's netdev has it")
	case a.rates() && b.Rate == nil && (a.MinRate != nil && *a.MinRate%megabit != 0 || a.MaxRate != nil && *a.MaxRate%megabit != 0):
		return unsupported(f, attributeRate, "the PF's netdev has it in whole megabits a second only")
	}
	return nil
}

// with returns what a function is to be set to: what it was before, and attributes.
func (b Before) with(a Attributes) Before {
	if b.VF != nil {
		b.VF = new(*b.VF)
	}
	if a.MAC != (MAC{}) {
		b.MAC = a.MAC
		switch {
		case b.HWAddr != nil:
			b.HWAddr = new(a.MAC)
		case b.VF != nil && b.VF.MAC != nil:
			b.VF.MAC = new(a.MAC)
		}
	}
	if a.MTU != 0 {
		b.MTU, b.RepresentorMTU = a.MTU, a.MTU
	}
	if a.VLAN != nil {
		v := *a.VLAN
		if v.Protocol == etherVLAN || v.ID == 0 {
			v.Protocol = 0
		}
		b.VF.VLAN = &v
	}
	if a.Trust != nil {
		b.VF.Trust = a.Trust
	}
	if a.SpoofCheck != nil {
		b.VF.SpoofCheck = a.SpoofCheck
	}
	if a.LinkState != "" {
		b.VF.LinkState = a.LinkState
	}
	if a.GUID != nil {
		b.VF.NodeGUID, b.VF.PortGUID = a.GUID, a.GUID
	}
	if a.rates() {
		rate := &b.Rate
		if *rate == nil {
			rate = &b.VF.Rate
		}
		r := **rate
		if a.MinRate != nil {
			r.Min = *a.MinRate
		}
		if a.MaxRate != nil {
			r.Max = *a.MaxRate
		}
		*rate = &r
	}
	return b
}

// asked is what attributes ask for of what stays with the host when a function's netdev goes away.
func (b Before) asked(a Attributes) Before {
	all := b.with(a)
	want := Before{RepresentorMTU: a.MTU}
	if a.MAC != (MAC{}) {
		want.HWAddr = all.HWAddr
	}
	if a.rates() {
		want.Rate = all.Rate
	}
	if all.VF == nil {
		return want
	}
	vf := VFConfig{LinkState: a.LinkState, Trust: a.Trust, SpoofCheck: a.SpoofCheck}
	if a.VLAN != nil {
		vf.VLAN = all.VF.VLAN
	}
	vf.NodeGUID, vf.PortGUID = a.GUID, a.GUID
	if a.MAC != (MAC{}) && b.HWAddr == nil {
		vf.MAC = all.VF.MAC
	}
	if a.rates() && all.Rate == nil {
		vf.Rate = all.VF.Rate
	}
	if vf != (VFConfig{}) {
		want.VF = &vf
	}
	return want
}

// A difference is an attribute that is not what it should be.
type difference struct{ attribute, want, is string }

func (d difference) String() string {
	return fmt.Sprintf("%s is %s, not %s", d.attribute, d.is, d.want)
}

// differences are those of what is from what should be. What is not known of the latter is not compared.
func differences(want, is Before) []difference {
	var all []difference
	differ := func(attribute string, w, i any) {
		all = append(all, difference{attribute, fmt.Sprint(w), fmt.Sprint(i)})
	}
	if w := want.HWAddr; w != nil && (is.HWAddr == nil || *w != *is.HWAddr) {
		differ(attributeMAC, w, show(is.HWAddr))
	}
	if want.Netdev != "" && want.Netdev != is.Netdev {
		differ(attributeName, want.Netdev, is.Netdev)
	}
	if want.MAC != (MAC{}) && want.MAC != is.MAC {
		differ(attributeMAC, want.MAC, is.MAC)
	}
	if want.MTU != 0 && want.MTU != is.MTU {
		differ(attributeMTU, want.MTU, is.MTU)
	}
	if want.RepresentorMTU != 0 && want.RepresentorMTU != is.RepresentorMTU {
		differ(attributeMTU, want.RepresentorMTU, is.RepresentorMTU)
	}
	if w := want.Rate; w != nil && (is.Rate == nil || *w != *is.Rate) {
		differ(attributeRate, *w, show(is.Rate))
	}
	if want.VF == nil {
		return all
	}
	w, i := want.VF, is.VF
	if i == nil {
		i = &VFConfig{}
	}
	if w.MAC != nil && (i.MAC == nil || *w.MAC != *i.MAC) {
		differ(attributeMAC, *w.MAC, show(i.MAC))
	}
	if w.VLAN != nil && (i.VLAN == nil || *w.VLAN != *i.VLAN) {
		differ(attributeVLAN, *w.VLAN, show(i.VLAN))
	}
	if w.Trust != nil && (i.Trust == nil || *w.Trust != *i.Trust) {
		differ(attributeTrust, *w.Trust, show(i.Trust))
	}
	if w.SpoofCheck != nil && (i.SpoofCheck == nil || *w.SpoofCheck != *i.SpoofCheck) {
		differ(attributeSpoofCheck, *w.SpoofCheck, show(i.SpoofCheck))
	}
	if w.LinkState != "" && w.LinkState != i.LinkState {
		differ(attributeLinkState, w.LinkState, i.LinkState)
	}
	if w.NodeGUID != nil && (i.NodeGUID == nil || *w.NodeGUID != *i.NodeGUID) {
		differ(attributeGUID, *w.NodeGUID, show(i.NodeGUID))
	}
	if w.PortGUID != nil && (i.PortGUID == nil || *w.PortGUID != *i.PortGUID) {
		differ(attributeGUID, *w.PortGUID, show(i.PortGUID))
	}
	if w.Rate != nil && (i.Rate == nil || *w.Rate != *i.Rate) {
		differ(attributeRate, *w.Rate, show(i.Rate))
	}
	return all
}

func show[T any](p *T) any {
	if p == nil {
		return "not told"
	}
	return *p
}

// String is a rate in the words of devlink-rate(8).
func (r Rate) String() string { return fmt.Sprintf("tx_share %dbit tx_max %dbit", r.Min, r.Max) }

// String is a VLAN in the words of ip-link(8).
func (v VLAN) String() string {
	return fmt.Sprintf("vlan %d qos %d proto %#x", v.ID, v.QoS, v.protocol())
}
