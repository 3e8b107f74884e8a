package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const (
	// defaultTimeout of a call; most of it is for ovn-northd to see a logical port that has just been made.
	defaultTimeout = time.Minute
	// maxTimeout keeps below the two minutes that kubelet gives a request to the container runtime.
	maxTimeout = 110 * time.Second

	maxConfig = 1 << 20 // bytes
)

// A config is the network's configuration, as docs/cni.md has it.
type config struct {
	CNIVersion string
	Name       string
	Type       string

	Socket      string
	Timeout     duration
	Kind        string
	Fallback    []string
	Pool        string
	DeviceID    string
	PCIBusID    string // as Multus says DeviceID, too
	function    function
	LogicalPort string // with placeholders
	MTU         uint32
	Addressing  string
	MAC         string
	Addresses   []string
	Gateways    []string
	Routes      []route
	Wait        string
	DNS         types.DNS

	Capabilities  map[string]bool
	RuntimeConfig runtimeConfig
	Args          json.RawMessage // CNI conventions: not for us

	// IPAMType is the type of the block ipam; "" is no delegation.
	IPAMType string

	PrevResult *current.Result // nil: none

	ipam struct {
		Type string `json:"type"`
	}
	raw json.RawMessage // of prevResult
}

// A function is what a function of a NIC is set to, in the words of sriov-cni.
type function struct {
	VLAN      uint32
	VLANQoS   uint32
	VLANProto string
	Trust     string
	SpoofChk  string
	LinkState string
	MinTxRate uint64 // Mbit/s
	MaxTxRate uint64 // Mbit/s
	RDMA      bool
}

// A runtimeConfig has what the runtime gives for the capabilities.
type runtimeConfig struct {
	MAC         string   `json:"mac"`
	IPs         []string `json:"ips"`
	LogicalPort string   `json:"logicalPort"`
	DeviceID    string   `json:"deviceID"`
	GUID        string   `json:"infinibandGUID"`

	// Bandwidth is as in the conventions of CNI: in bit/s and bits, ingress is what the container receives.
	Bandwidth *bandwidth `json:"bandwidth"`

	// DeviceInfoFile is where the Device Information Specification wants to have device information.
	DeviceInfoFile string `json:"CNIDeviceInfoFile"`
}

type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate"`
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

// capabilities are those that the plugin has.
var capabilities = []string{"CNIDeviceInfoFile", "bandwidth", "deviceID", "infinibandGUID", "ips", "logicalPort", "mac"}

// A route is one of the container, as the CNI specification writes it in results.
type route struct {
	Dst      string `json:"dst"`
	GW       string `json:"gw"`
	MTU      uint32 `json:"mtu"`
	AdvMSS   uint32 `json:"advmss"`
	Priority uint32 `json:"priority"`
}

// A duration is written as time.ParseDuration reads it.
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v <= 0 {
		err = fmt.Errorf("%q: not positive", text)
	}
	*d = duration(v)
	return err
}

// fields are the keys that a configuration may have.
func (c *config) fields() map[string]any {
	return map[string]any{
		"cniVersion":    &c.CNIVersion,
		"name":          &c.Name,
		"type":          &c.Type,
		"socket":        &c.Socket,
		"timeout":       &c.Timeout,
		"kind":          &c.Kind,
		"fallback":      &c.Fallback,
		"pool":          &c.Pool,
		"deviceID":      &c.DeviceID,
		"pciBusID":      &c.PCIBusID,
		"vlan":          &c.function.VLAN,
		"vlanQoS":       &c.function.VLANQoS,
		"vlanProto":     &c.function.VLANProto,
		"trust":         &c.function.Trust,
		"spoofchk":      &c.function.SpoofChk,
		"link_state":    &c.function.LinkState,
		"min_tx_rate":   &c.function.MinTxRate,
		"max_tx_rate":   &c.function.MaxTxRate,
		"rdma":          &c.function.RDMA,
		"logicalPort":   &c.LogicalPort,
		"mtu":           &c.MTU,
		"addressing":    &c.Addressing,
		"mac":           &c.MAC,
		"addresses":     &c.Addresses,
		"gateways":      &c.Gateways,
		"routes":        &c.Routes,
		"wait":          &c.Wait,
		"dns":           &c.DNS,
		"ipam":          &c.ipam,
		"capabilities":  &c.Capabilities,
		"runtimeConfig": &c.RuntimeConfig,
		"args":          &c.Args,
		"prevResult":    &c.raw,
	}
}

// loose are the fields in which others may have keys of theirs.
var loose = map[string]bool{"ipam": true, "runtimeConfig": true, "args": true, "prevResult": true}

// strictness is how much of a configuration must be right.
type strictness bool

const (
	// strict: all of it. A key that nobody knows is an error, for it may be a misspelt one.
	strict strictness = true
	// lenient: what is needed to remove something, so that nothing is left behind for a misspelt key.
	lenient strictness = false
)

// needed are the fields that even a removal needs.
var needed = map[string]bool{"cniVersion": true, "name": true, "socket": true, "timeout": true, "ipam": true}

// parseConfig reads a configuration. Keys that begin with cni.dev/ are the specification's own.
func parseConfig(stdin []byte, care strictness) (*config, error) {
	if len(stdin) > maxConfig {
		return nil, configError("", fmt.Errorf("has more than %d bytes", maxConfig))
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &keys); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "offload-cni configuration: "+err.Error(), "")
	}
	c := &config{Socket: client.DefaultSocket, Timeout: duration(defaultTimeout)}
	known := c.fields()
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		to, ok := known[key]
		if !ok {
			if care == strict && !strings.HasPrefix(key, "cni.dev/") {
				return nil, configError(key, errors.New("unknown"))
			}
			continue
		}
		if err := decode(keys[key], to, care == strict && !loose[key]); err != nil && (care == strict || needed[key]) {
			return nil, configError(key, err)
		}
	}
	c.IPAMType = c.ipam.Type
	if care == lenient {
		return c, nil
	}
	if err := c.previous(); err != nil {
		return nil, configError("prevResult", err)
	}
	return c, c.check()
}

// decode decodes one JSON value.
func decode(raw json.RawMessage, to any, knownOnly bool) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	if knownOnly {
		d.DisallowUnknownFields()
	}
	return d.Decode(to)
}

// previous decodes prevResult, which may be there and empty.
func (c *config) previous() error {
	if len(c.raw) == 0 || string(c.raw) == "null" || string(c.raw) == "{}" {
		return nil
	}
	r, err := create.Create(c.CNIVersion, c.raw)
	if err != nil {
		return err
	}
	c.PrevResult, err = current.NewResultFromResult(r)
	return err
}

func (c *config) check() error {
	for _, name := range slices.Sorted(maps.Keys(c.Capabilities)) {
		if c.Capabilities[name] && !slices.Contains(capabilities, name) {
			return configError("capabilities."+name, fmt.Errorf("unknown: %s are known", strings.Join(capabilities, ", ")))
		}
	}
	if err := c.checkKind(); err != nil {
		return err
	}
	if !slices.Contains([]string{"", "installed", "plugged"}, c.Wait) {
		return configError("wait", fmt.Errorf("%q: want installed or plugged", c.Wait))
	}
	switch c.Addressing {
	case "":
		if c.IPAMType != "" {
			c.Addressing = "ipam"
		}
	case "ipam":
		if c.IPAMType == "" {
			return configError("ipam.type", errors.New("is required with addressing ipam"))
		}
	case "static", "logical-port":
		if c.IPAMType != "" {
			return configError("ipam", fmt.Errorf("goes with addressing ipam, not %s", c.Addressing))
		}
	default:
		return configError("addressing", fmt.Errorf("%q: want logical-port, static or ipam", c.Addressing))
	}
	if c.Addressing == "ipam" && len(c.Addresses)+len(c.Gateways) > 0 {
		return configError("addresses", errors.New("and gateways come from the plugin with addressing ipam"))
	}
	return nil
}

// checkKind checks what concerns functions, as far as the daemon is not told: with its own names for values it checks the rest.
func (c *config) checkKind() error {
	if _, ok := kinds[c.Kind]; !ok {
		return configError("kind", fmt.Errorf("%q: want veth, vf, sf or auto", c.Kind))
	}
	for i, k := range c.Fallback {
		if k == "" || kinds[k] == 0 {
			return configError(fmt.Sprintf("fallback[%d]", i), fmt.Errorf("%q: want veth, vf or sf", k))
		}
	}
	if c.PCIBusID != "" && c.DeviceID != "" && c.PCIBusID != c.DeviceID {
		return configError("pciBusID", fmt.Errorf("%q: is not deviceID, %q", c.PCIBusID, c.DeviceID))
	}
	for _, f := range []struct{ key, value string }{{"trust", c.function.Trust}, {"spoofchk", c.function.SpoofChk}} {
		if !slices.Contains([]string{"", "on", "off"}, f.value) {
			return configError(f.key, fmt.Errorf("%q: want on or off", f.value))
		}
	}
	if _, ok := linkStates[c.function.LinkState]; !ok {
		return configError("link_state", fmt.Errorf("%q: want auto, enable or disable", c.function.LinkState))
	}
	if _, ok := vlanProtocols[strings.ToLower(c.function.VLANProto)]; !ok {
		return configError("vlanProto", fmt.Errorf("%q: want 802.1q or 802.1ad", c.function.VLANProto))
	}
	const most = math.MaxUint64 / mega
	if c.function.MinTxRate > most || c.function.MaxTxRate > most {
		return configError("max_tx_rate", errors.New("and min_tx_rate: too large"))
	}
	if b := c.RuntimeConfig.Bandwidth; b != nil && b.EgressRate != 0 && c.kind() == offloadv1.PortKind_PORT_KIND_VETH {
		return configError("runtimeConfig.bandwidth", errors.New("a veth has no rates: chain the plugin bandwidth"))
	}
	if b := c.RuntimeConfig.Bandwidth; b != nil && b.IngressRate != 0 {
		return configError("runtimeConfig.bandwidth.ingressRate", errors.New("a NIC limits only what a function sends, egressRate"))
	}
	return nil
}

// configError says what in the configuration cannot be as it is.
func configError(field string, err error) error {
	if field != "" {
		field = " " + field
	}
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("offload-cni configuration%s: %v", field, err), "")
}

// attachments returns what GC's configuration says is in use. It reports false if that says nothing: a list that is absent
// or null is not an empty one.
func attachments(stdin []byte) (list []types.GCAttachment, known bool, err error) {
	var conf struct {
		List json.RawMessage `json:"cni.dev/valid-attachments"`
	}
	if err := json.Unmarshal(stdin, &conf); err != nil {
		return nil, false, types.NewError(types.ErrDecodingFailure, "offload-cni configuration: "+err.Error(), "")
	}
	if len(conf.List) == 0 || string(conf.List) == "null" {
		return nil, false, nil
	}
	const key = "cni.dev/valid-attachments"
	if err := json.Unmarshal(conf.List, &list); err != nil {
		return nil, false, configError(key, err)
	}
	for i, a := range list {
		if a.ContainerID == "" || a.IfName == "" {
			return nil, false, configError(key, fmt.Errorf("[%d]: containerID or ifname is missing", i))
		}
	}
	return list, true, nil
}
