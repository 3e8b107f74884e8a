package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/offloadd/offloadd/pkg/api/client"
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

// A runtimeConfig has what the runtime gives for the capabilities.
type runtimeConfig struct {
	MAC         string   `json:"mac"`
	IPs         []string `json:"ips"`
	LogicalPort string   `json:"logicalPort"`
}

// capabilities are those that the plugin has.
var capabilities = []string{"ips", "logicalPort", "mac"}

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
	if c.Kind != "" && c.Kind != "veth" {
		return configError("kind", fmt.Errorf("%q: want veth", c.Kind))
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
