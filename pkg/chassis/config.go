package chassis

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
)

// Config is what Open_vSwitch:external_ids says to a chassis, ovn-controller(8), section Configuration. Of a key K
// that the manual page allows to be given per chassis, K-<chassis name> is preferred.
type Config struct {
	Name     string // of the chassis; empty if nothing gives it one, and then nothing else is known
	Hostname string

	Remote           string // ovn-remote as it is; empty if unset
	ProbeInterval    int    // to the Southbound, milliseconds; 0 is never
	ProbeIntervalSet bool   // whether ProbeInterval was given; a default depends on the transport
	OFProbeInterval  int    // to the bridge, seconds; 0 is never
	WaitBeforeClear  int    // how long old flows stay after a start, milliseconds
	MonitorAll       bool

	Bridge         string
	DatapathType   string // empty: what the bridge has
	BridgeMappings []BridgeMapping

	EncapTypes     []string // sorted, known types only
	EncapIPs       []string // sorted, valid addresses only
	EncapCsum      string   // as it is
	EncapTOS       string   // empty if unset or "none"
	EncapDF        string   // ovn-encap-df_default, empty if unset
	SetLocalIP     bool
	TransportZones []string // sorted
	Interconn      bool

	// published holds the values of Chassis.other_config that are copies of the configuration.
	published map[string]string
}

// BridgeMapping says which bridge leads to a physical network.
type BridgeMapping struct{ Network, Bridge string }

// The defaults of ovn-controller(8).
const (
	defaultBridge        = "br-int"
	defaultDatapathType  = "system"
	defaultProbeInterval = 5000
	minProbeInterval     = 1000
)

// Limits of what a configuration may ask for.
const (
	maxName   = 255
	maxEncaps = 64
)

// encapRanks orders the tunnel types by preference: the larger wins.
var encapRanks = map[string]int{"geneve": 3, "stt": 2, "vxlan": 1}

// copiedKeys are the keys that Chassis.other_config repeats, with the values it shows if they are unset.
var copiedKeys = map[string]string{
	"ovn-bridge-mappings":             "",
	"ovn-cms-options":                 "",
	"ovn-monitor-all":                 "false",
	"ovn-enable-lflow-cache":          "true",
	"ovn-limit-lflow-cache":           "",
	"ovn-memlimit-lflow-cache-kb":     "",
	"ovn-trim-limit-lflow-cache":      "",
	"ovn-trim-wmark-perc-lflow-cache": "",
	"ovn-trim-timeout-ms":             "",
	"ovn-chassis-mac-mappings":        "",
}

// ParseConfig reads the configuration. A value that cannot be used is an event, and the default takes its place.
func ParseConfig(sw *Switch, opts Options) (Config, []Event) {
	root := sw.Root()
	if root == nil {
		return Config{}, []Event{event(LevelInfo, "configuration missing", "reason", "no row in table Open_vSwitch")}
	}
	r := configReader{ids: root.ExternalIDs, chassis: cmp.Or(opts.Name, root.ExternalIDs["system-id"])}
	switch {
	case r.chassis == "":
		return Config{}, []Event{event(LevelWarn, "configuration incomplete", "key", "system-id", "reason", "unset")}
	case len(r.chassis) > maxName:
		return Config{}, []Event{event(LevelWarn, "configuration refused", "key", "system-id", "reason", "too long")}
	}

	cfg := Config{
		Name:            r.chassis,
		Hostname:        cmp.Or(r.str("hostname", ""), opts.Hostname),
		Remote:          r.str("ovn-remote", ""),
		OFProbeInterval: r.int("ovn-openflow-probe-interval", 0),
		WaitBeforeClear: r.int("ovn-ofctrl-wait-before-clear", 0),
		MonitorAll:      r.bool("ovn-monitor-all", false),
		Bridge:          cmp.Or(r.str("ovn-bridge", ""), defaultBridge),
		DatapathType:    r.str("ovn-bridge-datapath-type", ""),
		BridgeMappings:  r.mappings("ovn-bridge-mappings"),
		EncapCsum:       r.str("ovn-encap-csum", "true"),
		EncapTOS:        r.str("ovn-encap-tos", "none"),
		EncapDF:         r.str("ovn-encap-df_default", ""),
		SetLocalIP:      r.bool("ovn-set-local-ip", false),
		TransportZones:  r.list("ovn-transport-zones"),
		Interconn:       r.bool("ovn-is-interconn", false),
	}
	if cfg.EncapTOS == "none" {
		cfg.EncapTOS = ""
	}
	cfg.ProbeInterval = r.int("ovn-remote-probe-interval", -1)
	cfg.ProbeIntervalSet = cfg.ProbeInterval >= 0
	switch {
	case !cfg.ProbeIntervalSet:
		cfg.ProbeInterval = defaultProbeInterval
	case cfg.ProbeInterval > 0:
		cfg.ProbeInterval = max(cfg.ProbeInterval, minProbeInterval)
	}
	cfg.EncapTypes, cfg.EncapIPs = r.encaps()

	cfg.published = map[string]string{
		"iface-types":  strings.Join(root.IfaceTypes, ","),
		"is-interconn": strconv.FormatBool(cfg.Interconn),
	}
	for key, unset := range copiedKeys {
		cfg.published[key] = r.str(key, unset)
	}
	return cfg, r.events
}

// Published returns the configuration that Chassis.other_config repeats. The caller does not change the map.
func (c Config) Published() map[string]string { return c.published }

// A configReader looks up keys for one chassis and notes the values it cannot use.
type configReader struct {
	ids     map[string]string
	chassis string
	events  []Event
}

func (r *configReader) refuse(key, value, reason string) {
	r.events = append(r.events, event(LevelWarn, "configuration refused", "key", key, "value", value, "reason", reason))
}

func (r *configReader) str(key, def string) string {
	if v, ok := r.ids[key+"-"+r.chassis]; ok {
		return v
	}
	if v, ok := r.ids[key]; ok {
		return v
	}
	return def
}

// bool follows smap_get_bool() of OVS: anything but the opposite of the default is the default.
func (r *configReader) bool(key string, def bool) bool {
	v := r.str(key, "")
	switch {
	case v == "":
		return def
	case strings.EqualFold(v, "true"):
		return true
	case strings.EqualFold(v, "false"):
		return false
	}
	r.refuse(key, v, "neither true nor false")
	return def
}

func (r *configReader) int(key string, def int) int {
	v := r.str(key, "")
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > math.MaxInt32 {
		r.refuse(key, v, "not a number from 0 to 2147483647")
		return def
	}
	return n
}

// list returns the elements of a comma-separated list, sorted and each once.
func (r *configReader) list(key string) []string {
	var out []string
	for v := range strings.SplitSeq(r.str(key, ""), ",") {
		if v != "" {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *configReader) mappings(key string) []BridgeMapping {
	var out []BridgeMapping
	for _, v := range r.list(key) {
		network, bridge, ok := strings.Cut(v, ":")
		if !ok || network == "" || bridge == "" {
			r.refuse(key, v, "not of the form network:bridge")
			continue
		}
		out = append(out, BridgeMapping{network, bridge})
	}
	return out
}

// encaps returns tunnel types and addresses; either may be empty, and then there can be no Chassis row.
func (r *configReader) encaps() (types, ips []string) {
	for _, t := range r.list("ovn-encap-type") {
		if encapRanks[t] == 0 {
			r.refuse("ovn-encap-type", t, "unknown tunnel type")
			continue
		}
		types = append(types, t)
	}
	for _, ip := range r.list("ovn-encap-ip") {
		if _, err := netip.ParseAddr(ip); err != nil {
			r.refuse("ovn-encap-ip", ip, "not an IP address")
			continue
		}
		ips = append(ips, ip)
	}
	if len(ips)*len(types) > maxEncaps {
		r.refuse("ovn-encap-ip", r.str("ovn-encap-ip", ""), "too many tunnel endpoints")
		return types, nil
	}
	if len(types) == 0 || len(ips) == 0 {
		r.events = append(r.events, event(LevelInfo, "configuration incomplete",
			"key", "ovn-encap-type, ovn-encap-ip", "reason", "both need a value"))
	}
	return types, ips
}

// mapped reports whether a physical network is mapped to a bridge that exists.
func (c *Config) mapped(sw *Switch, network string) bool {
	return slices.ContainsFunc(c.BridgeMappings, func(m BridgeMapping) bool {
		return m.Network == network && sw.Bridge(m.Bridge) != nil
	})
}

// bridgeDatapathType returns the datapath type that the integration bridge should have.
func (c *Config) bridgeDatapathType(b *vswitchdb.Bridge) string {
	if b == nil {
		return cmp.Or(c.DatapathType, defaultDatapathType)
	}
	return cmp.Or(c.DatapathType, b.DatapathType, defaultDatapathType)
}
