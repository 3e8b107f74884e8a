package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// The API's values of what the configuration says; "" is absent.
var (
	kinds = map[string]offloadv1.PortKind{
		"":     offloadv1.PortKind_PORT_KIND_UNSPECIFIED,
		"veth": offloadv1.PortKind_PORT_KIND_VETH,
		"vf":   offloadv1.PortKind_PORT_KIND_VF,
		"sf":   offloadv1.PortKind_PORT_KIND_SF,
		"auto": offloadv1.PortKind_PORT_KIND_AUTO,
	}
	vlanProtocols = map[string]offloadv1.VlanProtocol{
		"":        offloadv1.VlanProtocol_VLAN_PROTOCOL_UNSPECIFIED,
		"802.1q":  offloadv1.VlanProtocol_VLAN_PROTOCOL_8021Q,
		"802.1ad": offloadv1.VlanProtocol_VLAN_PROTOCOL_8021AD,
	}
	linkStates = map[string]offloadv1.LinkState{
		"":        offloadv1.LinkState_LINK_STATE_UNSPECIFIED,
		"auto":    offloadv1.LinkState_LINK_STATE_AUTO,
		"enable":  offloadv1.LinkState_LINK_STATE_ENABLE,
		"disable": offloadv1.LinkState_LINK_STATE_DISABLE,
	}
)

// mega is the unit of rates in the configuration, in bit/s.
const mega = 1_000_000

// device is the function that it has to be; "": any.
func (c *config) device() string { return firstOf(c.RuntimeConfig.DeviceID, c.DeviceID, c.PCIBusID) }

// kind is what the port is preferred to be.
func (c *config) kind() offloadv1.PortKind {
	switch {
	case c.Kind != "":
		return kinds[c.Kind]
	case c.device() != "" || c.Pool != "" || len(c.Fallback) > 0:
		return offloadv1.PortKind_PORT_KIND_AUTO
	}
	return offloadv1.PortKind_PORT_KIND_VETH
}

// madeOf says in s what the port is to be made of. What a device plugin has allocated, or a pool has, is a function of either kind
// unless the configuration says which.
func (c *config) madeOf(s *offloadv1.PortSpec) {
	s.Kind, s.Pool, s.Device = c.kind(), c.Pool, c.device()
	for _, k := range c.Fallback {
		s.Fallback = append(s.Fallback, kinds[k])
	}
	f := c.function
	a := &offloadv1.FunctionAttributes{
		Vlan: f.VLAN, Qos: f.VLANQoS, VlanProtocol: vlanProtocols[strings.ToLower(f.VLANProto)],
		Trust: onOff(f.Trust), SpoofCheck: onOff(f.SpoofChk), LinkState: linkStates[f.LinkState],
		MinRate: f.MinTxRate * mega, MaxRate: f.MaxTxRate * mega, InfinibandGuid: c.RuntimeConfig.GUID, Rdma: f.RDMA,
	}
	if b := c.RuntimeConfig.Bandwidth; b != nil && b.EgressRate != 0 { // what the runtime says for this container goes before
		a.MaxRate = b.EgressRate
	}
	if f != (function{}) || a.GetMaxRate() != 0 || a.GetInfinibandGuid() != "" {
		s.Attributes = a
	}
}

// onOff returns nil for "".
func onOff(s string) *bool {
	if s == "" {
		return nil
	}
	return new(s == "on")
}

// supply returns an error if a container could have no function, and has to have one. Of a particular one kubelet keeps account.
func (r *request) supply(ctx context.Context) error {
	var s offloadv1.PortSpec
	r.conf.madeOf(&s)
	wanted := []offloadv1.PortKind{s.GetKind()}
	if s.GetKind() == offloadv1.PortKind_PORT_KIND_AUTO {
		wanted = []offloadv1.PortKind{offloadv1.PortKind_PORT_KIND_VF, offloadv1.PortKind_PORT_KIND_SF}
		if len(s.GetFallback()) > 0 {
			wanted = nil
		}
	}
	wanted = append(wanted, s.GetFallback()...)
	if s.GetDevice() != "" || slices.Contains(wanted, offloadv1.PortKind_PORT_KIND_VETH) {
		return nil
	}
	var resp *offloadv1.ListPoolsResponse
	err := r.call(ctx, 0, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = offloadv1.NewDeviceServiceClient(conn).ListPools(ctx, &offloadv1.ListPoolsRequest{})
		return err
	})
	if err != nil {
		return err
	}
	var empty []error
	for _, p := range resp.GetPools() {
		kind := functionKinds[p.GetKind()]
		switch why := reason.Reason(p.GetReason()); {
		case s.GetPool() != "" && s.GetPool() != p.GetName() || !slices.Contains(wanted, kind):
		case hasRoom(p):
			return nil
		case why != "":
			empty = append(empty, reason.Errorf(why, "pool %s: %s", p.GetName(), p.GetMessage()))
		default:
			empty = append(empty, reason.Errorf(reason.PoolExhausted, "pool %s: no function is free", p.GetName()))
		}
	}
	if len(empty) == 0 {
		return reason.Errorf(reason.PoolNotFound, "there is no pool %s of the kinds that are wanted", s.GetPool())
	}
	return all(empty...)
}

var functionKinds = map[offloadv1.FunctionKind]offloadv1.PortKind{
	offloadv1.FunctionKind_FUNCTION_KIND_VF: offloadv1.PortKind_PORT_KIND_VF,
	offloadv1.FunctionKind_FUNCTION_KIND_SF: offloadv1.PortKind_PORT_KIND_SF,
}

// hasRoom reports whether a pool has a function that is free, or soon will be, or could be made.
func hasRoom(p *offloadv1.Pool) bool {
	has := p.GetCapacity()
	for state, n := range p.GetCounts() {
		switch state {
		case "FREE", "RESETTING", "WARMING", "UNKNOWN":
			if n > 0 {
				return true
			}
		case "GONE", "UNMANAGED": // take no place
		default:
			has -= min(has, n)
		}
	}
	return p.GetKind() == offloadv1.FunctionKind_FUNCTION_KIND_SF && has > 0 && p.GetReason() == ""
}

// A deviceInfo is what the Device Information Specification 1.1.0, section 3, says of a PCI device.
type deviceInfo struct {
	Type    string  `json:"type"`
	Version string  `json:"version"`
	PCI     pciInfo `json:"pci"`
}

type pciInfo struct {
	Address     string `json:"pci-address"`
	PF          string `json:"pf-pci-address,omitempty"`
	Representor string `json:"representor-device,omitempty"`
	RDMA        string `json:"rdma-device,omitempty"`
}

// tellDevice writes which function the container has, if the runtime wants to know. The specification has nothing for subfunctions,
// and what it finds written is of the device plugin and stays.
func (r *request) tellDevice(st *offloadv1.PortStatus) error {
	path, f := r.conf.RuntimeConfig.DeviceInfoFile, st.GetFunction()
	if path == "" || f.GetBus() != "pci" {
		return nil
	}
	info := deviceInfo{"pci", "1.1.0", pciInfo{Address: f.GetDevice(), Representor: st.GetHostInterface(), RDMA: f.GetRdmaDevice()}}
	if parts := strings.Split(f.GetDevlinkPort(), "/"); len(parts) == 3 && parts[0] == "pci" {
		info.PCI.PF = parts[1]
	}
	text, err := json.Marshal(info)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = writeNew(path, text)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return types.NewError(types.ErrIOFailure, "offload-cni CNIDeviceInfoFile: "+err.Error(), "")
	}
	return nil
}

// forgetDevice removes what tellDevice wrote, or the runtime. That is the runtime's duty: an error is its business.
func (r *request) forgetDevice() {
	path := r.conf.RuntimeConfig.DeviceInfoFile
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	var info deviceInfo
	if json.Unmarshal(text, &info) == nil && info.Type != "" && info.Version != "" { // and nothing else
		_ = os.Remove(path)
	}
}

// writeNew writes a file that does not exist.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
