package device

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// Configure sets a function's attributes and reads them back. Its netdev has to be in the host's network namespace. What was set before
// an error stays set: Release undoes it. The error's metadata name the attribute; its reason is FEATURE_UNSUPPORTED, ATTRIBUTE_NOT_KEPT,
// KERNEL_REFUSED, DEVICE_FAILED, DEVICE_BUSY, FUNCTION_ELSEWHERE, DEVICE_GONE or DEVICE_STALE_OWNER.
func (v *Inventory) Configure(ctx context.Context, f Function, a Attributes) error {
	if err := a.check(); err != nil {
		return err
	}
	now, uplink, err := v.owned(f)
	if err != nil {
		return err
	}
	if now.Netdev.Index == 0 {
		return reason.Errorf(reason.FunctionElsewhere, "device configure %s: its network device is not in the host's network namespace", f.Name())
	}
	if err := a.possible(now, now.Before); err != nil {
		return err
	}
	v.mu.Lock()
	err = v.usable(f.Handle.Handle)
	v.mu.Unlock()
	if err != nil {
		return err
	}
	done, err := v.turn(ctx, f.Handle.Handle, "configuring "+f.Name())
	if err != nil {
		return err
	}
	defer done()
	is, err := v.bring(ctx, now, uplink, now.Before.with(a))
	if err != nil {
		return fmt.Errorf("device configure: %w", err)
	}
	if d := differences(now.Before.with(a), is); len(d) > 0 {
		return reason.Errorf(reason.AttributeNotKept, "device configure %s: %v", f.Name(), d[0]).With("attribute", d[0].attribute)
	}
	return nil
}

// Verify compares what a function was configured to with what it is, and returns in words what differs, in the order of the attributes. What
// its netdev has is not compared: that is wherever its owner has put it. Reasons for errors are those of Configure.
func (v *Inventory) Verify(ctx context.Context, f Function, a Attributes) ([]string, error) {
	now, uplink, err := v.owned(f)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	err = v.usable(f.Handle.Handle)
	v.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := a.possible(now, now.Before); err != nil {
		return nil, err
	}
	want := now.Before.asked(a)
	is := Before{}
	if err := v.readHere(ctx, now, uplink, scopeOf(want), &is); err != nil {
		return nil, fmt.Errorf("device verify: %w", err)
	}
	var words []string
	for _, d := range differences(want, is) {
		words = append(words, d.String())
	}
	return words, nil
}

// scope says what of a function is read.
type scope struct {
	hwAddr bool // of the port's function
	vf     bool // what the PF's netdev keeps of a VF
	rate   bool // devlink's
}

// scopeOf is what has been read of a function.
func scopeOf(b Before) scope {
	return scope{hwAddr: b.HWAddr != nil, vf: b.VF != nil, rate: b.Rate != nil}
}

// readBefore reads what a function is set to when it is acquired, as far as attributes may change it. It does not ask devlink for the
// address: nobody has changed it since the function was verified, and devlink may be slow.
func (v *Inventory) readBefore(ctx context.Context, f Function, a Attributes) (Before, error) {
	v.mu.Lock()
	uplink := v.world.uplink(f.Handle.Handle)
	v.mu.Unlock()
	b, err := v.readAll(ctx, f, uplink, scope{})
	if err != nil {
		return Before{}, err
	}
	b.HWAddr = f.Before.HWAddr
	if a.rates() {
		got, err := v.rate(ctx, f)
		if err != nil && !isUnsupported(err) && !isGone(err) {
			return Before{}, failed(f, attributeRate, err)
		}
		b.Rate = got
	}
	if f.Kind == VF && (a.ofVF() != "" || a.rates() && b.Rate == nil || a.MAC != (MAC{}) && b.HWAddr == nil) {
		got, err := v.vf(ctx, f, uplink)
		if err != nil {
			return Before{}, err
		}
		if b.HWAddr != nil { // devlink has it, and the PF's netdev shows the same
			got.MAC = nil
		}
		b.VF = &got
	}
	return b, a.possible(f, b)
}

// readAll reads what a function is set to. On an error nothing of it counts.
func (v *Inventory) readAll(ctx context.Context, f Function, uplink Link, s scope) (Before, error) {
	end, err := v.kernel.link(ctx, f.Netdev)
	if err != nil {
		return Before{}, elsewhere(f, err)
	}
	b := Before{Netdev: end.Name, MAC: end.mac, MTU: end.mtu}
	return b, v.readHere(ctx, f, uplink, s, &b)
}

// readHere reads what a function is set to as far as it does not go away with its netdev.
func (v *Inventory) readHere(ctx context.Context, f Function, uplink Link, s scope, b *Before) error {
	rep, err := v.kernel.link(ctx, f.Representor)
	if err != nil {
		return elsewhere(f, err)
	}
	b.RepresentorMTU = rep.mtu
	if s.hwAddr {
		p, err := v.kernel.devlink.Port(ctx, f.Handle)
		if err != nil {
			return failed(f, attributeMAC, err)
		}
		b.HWAddr = hwAddrOf(p)
	}
	if s.rate {
		if b.Rate, err = v.rate(ctx, f); err != nil {
			return failed(f, attributeRate, err)
		}
	}
	if s.vf {
		got, err := v.vf(ctx, f, uplink)
		if err != nil {
			return err
		}
		b.VF = &got
	}
	return nil
}

func elsewhere(f Function, err error) error {
	if isGone(err) {
		return reason.Errorf(reason.FunctionElsewhere, "device %s: %w", f.Name(), err)
	}
	return err
}

func (v *Inventory) rate(ctx context.Context, f Function) (*Rate, error) {
	r, err := v.kernel.devlink.Rate(ctx, f.Handle.Rate())
	if err != nil {
		return nil, err
	}
	return &Rate{Min: r.TxShare * 8, Max: r.TxMax * 8}, nil
}

func (v *Inventory) vf(ctx context.Context, f Function, uplink Link) (VFConfig, error) {
	if uplink.Index == 0 {
		return VFConfig{}, reason.Errorf(reason.FeatureUnsupported, "device %s: the PF has no network device here, which keeps what is set of VFs", f.Name())
	}
	got, err := v.kernel.vf(ctx, uplink, f.Number)
	if isUnsupported(err) {
		return VFConfig{}, reason.Errorf(reason.FeatureUnsupported, "device %s: %w", f.Name(), err)
	}
	return got, err
}

// failed says which attribute an error is about.
func failed(f Function, attribute string, err error) error {
	var r *refusal
	code := reason.DeviceFailed
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = reason.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = reason.Cancelled
	case isUnsupported(err):
		code = reason.FeatureUnsupported
	case isBusy(err):
		code = reason.DeviceBusy
	case isGone(err):
		code = reason.DeviceGone
	case errors.As(err, &r):
		code = reason.KernelRefused
	}
	return reason.Errorf(code, "device %s: %s: %w", f.Name(), attribute, err).With("attribute", attribute)
}

// bring sets what differs from what should be, and returns what is then.
func (v *Inventory) bring(ctx context.Context, f Function, uplink Link, want Before) (Before, error) {
	is, err := v.readAll(ctx, f, uplink, scopeOf(want))
	if err != nil {
		return Before{}, err
	}
	if len(differences(want, is)) == 0 {
		return is, nil
	}
	for _, c := range v.changes(ctx, f, uplink, want, is) {
		if err := whileBusy(ctx, c.do); err != nil {
			return Before{}, failed(f, c.attribute, err)
		}
	}
	return v.readAll(ctx, f, uplink, scopeOf(want))
}

// A change is a request that sets an attribute.
type change struct {
	attribute string
	do        func() error
}

// changes are the requests by which a function comes from what it is to what it should be, in order.
func (v *Inventory) changes(ctx context.Context, f Function, uplink Link, want, is Before) []change {
	var all []change
	request := func(attribute string, r linkRequest) {
		all = append(all, change{attribute, func() error { return v.kernel.set(ctx, r) }})
	}
	// The address of the port's function first: a driver that is bound anew takes it.
	if w := want.HWAddr; w != nil && (is.HWAddr == nil || *w != *is.HWAddr) {
		all = append(all, change{attributeMAC, func() error {
			return v.kernel.devlink.SetPortFunction(ctx, f.Handle, devlink.Function{HWAddr: w[:]})
		}})
	}
	if want.VF != nil && is.VF != nil {
		changeVF(uplink, f.Number, *want.VF, *is.VF, request)
	}
	if w := want.Rate; w != nil && is.Rate != nil && *w != *is.Rate {
		all = append(all, change{attributeRate, func() error {
			return v.kernel.devlink.SetRate(ctx, f.Handle.Rate(), devlink.RateChange{TxShare: new(w.Min / 8), TxMax: new(w.Max / 8)})
		}})
	}
	renamed := want.Netdev != "" && want.Netdev != is.Netdev
	readdressed := want.MAC != (MAC{}) && want.MAC != is.MAC
	if renamed || readdressed { // which is not for links that are up
		request(attributeName, setQuiet(f.Netdev))
	}
	if renamed {
		request(attributeName, setName(f.Netdev, want.Netdev))
	}
	if readdressed {
		request(attributeMAC, setMAC(f.Netdev, want.MAC))
	}
	if want.MTU != 0 && want.MTU != is.MTU {
		request(attributeMTU, setMTU(f.Netdev, want.MTU))
	}
	if want.RepresentorMTU != 0 && want.RepresentorMTU != is.RepresentorMTU {
		request(attributeMTU, setMTU(f.Representor, want.RepresentorMTU))
	}
	return all
}

func changeVF(pf Link, n uint32, want, is VFConfig, request func(string, linkRequest)) {
	if w := want.MAC; w != nil && (is.MAC == nil || *w != *is.MAC) {
		request(attributeMAC, setVFMAC(pf, n, *w))
	}
	if w := want.VLAN; w != nil && (is.VLAN == nil || *w != *is.VLAN) {
		request(attributeVLAN, setVFVLAN(pf, n, *w))
	}
	if w := want.Trust; w != nil && (is.Trust == nil || *w != *is.Trust) {
		request(attributeTrust, setVFSwitch(pf, n, iflaVFTrust, "trust", *w))
	}
	if w := want.SpoofCheck; w != nil && (is.SpoofCheck == nil || *w != *is.SpoofCheck) {
		request(attributeSpoofCheck, setVFSwitch(pf, n, iflaVFSpoofChk, "spoofchk", *w))
	}
	if w := want.LinkState; w != "" && w != is.LinkState {
		request(attributeLinkState, setVFLinkState(pf, n, w))
	}
	if w := want.NodeGUID; w != nil && (is.NodeGUID == nil || *w != *is.NodeGUID) {
		request(attributeGUID, setVFGUID(pf, n, iflaVFNodeGUID, "node_guid", *w))
	}
	if w := want.PortGUID; w != nil && (is.PortGUID == nil || *w != *is.PortGUID) {
		request(attributeGUID, setVFGUID(pf, n, iflaVFPortGUID, "port_guid", *w))
	}
	if w := want.Rate; w != nil && (is.Rate == nil || *w != *is.Rate) {
		request(attributeRate, setVFRate(pf, n, *w))
	}
}

// restore sets a function to what it was before, takes away what else its owner may have left, and reads everything back. An error says
// what is not so.
func (v *Inventory) restore(ctx context.Context, f Function, uplink Link) (Before, error) {
	rep, err := v.kernel.link(ctx, f.Representor)
	if err != nil {
		return Before{}, elsewhere(f, err)
	}
	if rep.master != 0 {
		return Before{}, reason.Errorf(reason.RepresentorInUse, "device reset %s: the representor %s is in a bridge", f.Name(), rep.Name)
	}
	if f.RDMA != "" {
		if is, err := v.sysfs.rdma(f); err != nil || is != f.RDMA {
			return Before{}, errors.Join(err, reason.Errorf(reason.FunctionElsewhere,
				"device reset %s: its RDMA device %s is not in the host's network namespace", f.Name(), f.RDMA))
		}
	}
	if err := v.clean(ctx, f); err != nil {
		return Before{}, err
	}
	want := f.Before
	p, err := v.kernel.devlink.Port(ctx, f.Handle)
	if err != nil {
		return Before{}, fmt.Errorf("device reset %s: %w", f.Name(), err)
	}
	if want.HWAddr == nil {
		want.HWAddr = hwAddrOf(p)
	}
	if rep.up {
		if err := v.kernel.set(ctx, setQuiet(f.Representor)); err != nil {
			return Before{}, err
		}
	}
	is, err := v.bring(ctx, f, uplink, want)
	if err != nil {
		return Before{}, err
	}
	if d := differences(want, is); len(d) > 0 {
		return Before{}, reason.Errorf(reason.FunctionNotRestored, "device reset %s: %v", f.Name(), d[0]).With("attribute", d[0].attribute)
	}
	end, err := v.kernel.link(ctx, f.Netdev)
	if err != nil {
		return Before{}, elsewhere(f, err)
	}
	if left := leftovers(end); left != "" {
		return Before{}, reason.Errorf(reason.FunctionNotRestored, "device reset %s: %s %s", f.Name(), end.Name, left)
	}
	return is, nil
}

// clean takes away what the owner of a function may have left on its netdev.
func (v *Inventory) clean(ctx context.Context, f Function) error {
	end, err := v.kernel.link(ctx, f.Netdev)
	if err != nil {
		return elsewhere(f, err)
	}
	var requests []linkRequest
	if end.up || end.listen {
		requests = append(requests, setQuiet(f.Netdev))
	}
	if end.xdp {
		requests = append(requests, setNoXDP(f.Netdev))
	}
	if end.alias != "" {
		requests = append(requests, setAlias(f.Netdev, ""))
	}
	if f.Before.Netdev != "" && len(end.others) > 0 {
		requests = append(requests, delAltNames(f.Netdev, end.others))
	}
	for _, r := range requests {
		if err := whileBusy(ctx, func() error { return v.kernel.set(ctx, r) }); err != nil && !errors.Is(err, unix.ENODEV) {
			return reason.Errorf(reason.FunctionNotRestored, "device reset %s: %w", f.Name(), err)
		}
	}
	return nil
}

// leftovers says what is left of an owner on a netdev, "": nothing.
func leftovers(l link) string {
	switch {
	case l.listen:
		return "takes packets for others"
	case l.xdp:
		return "has an XDP program"
	case l.master != 0:
		return "is in a bridge"
	}
	return ""
}
