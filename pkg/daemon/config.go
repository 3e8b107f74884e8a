package daemon

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/deviceplugin"
	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/probe/monitor"
)

// Config is what the configuration file and the command line say. What concerns OVN itself is not here: as for
// ovn-controller(8) it is in the external_ids of the table Open_vSwitch.
type Config struct {
	// OVSDatabase is the remote of the local Open_vSwitch database.
	OVSDatabase string `json:"ovs_database,omitempty"`
	// OVSRunDir is the directory of the bridges' management sockets, <bridge>.mgmt. Empty: that of OVSDatabase.
	OVSRunDir string `json:"ovs_run_dir,omitempty"`
	// RunDir holds what lasts until the next boot, StateDir what lasts longer.
	RunDir   string `json:"run_dir,omitempty"`
	StateDir string `json:"state_dir,omitempty"`
	// Listen is the socket of the API, Control that of ovs-appctl(8), both unix:PATH. Empty: offloadd.sock and
	// offloadd.ctl in RunDir.
	Listen  string `json:"listen,omitempty"`
	Control string `json:"control,omitempty"`
	// ListenGroup is the name of the group whose members may connect to Listen, and read. Empty: only root.
	ListenGroup string `json:"listen_group,omitempty"`
	// LogFormat is text or json, LogLevel one of debug, info, warn and error.
	LogFormat string `json:"log_format,omitempty"`
	LogLevel  string `json:"log_level,omitempty"`
	// ChassisName overrides external_ids:system-id.
	ChassisName string `json:"chassis_name,omitempty"`
	// Offload is direct, delegated or off: whether the pipeline is put into TC filters on devices that can offload them, and whether by us or
	// by Open vSwitch.
	Offload string `json:"offload,omitempty"`
	// TCSoftware puts them on all devices, for tests: in software they are no gain.
	TCSoftware bool `json:"tc_software,omitempty"`
	// Pools are of functions of NICs, for ports.
	Pools []device.Pool `json:"pools,omitempty"`
	// DevicePlugin says whether and how they are offered to kubelet.
	DevicePlugin PluginConfig `json:"device_plugin,omitzero"`
	// ContinuousProbe says which pairs of ports are measured all the time.
	ContinuousProbe monitor.Config `json:"continuous_probe,omitzero"`
	// Metrics is where Prometheus may ask, tcp:HOST:PORT or unix:PATH. Empty: nowhere.
	Metrics string `json:"metrics,omitempty"`
	// TLS holds the files for ssl remotes of the Southbound. Empty: those of the table SSL of the OVS database.
	TLS TLSConfig `json:"tls,omitzero"`
}

// TLSConfig names PEM files.
type TLSConfig struct {
	PrivateKey    string `json:"private_key,omitempty"`
	Certificate   string `json:"certificate,omitempty"`
	CACertificate string `json:"ca_certificate,omitempty"`
}

// DefaultConfig returns what holds where neither file nor command line say anything.
func DefaultConfig() Config {
	return Config{
		OVSDatabase: "unix:/run/openvswitch/db.sock",
		RunDir:      "/run/offloadd",
		StateDir:    "/var/lib/offloadd",
		LogFormat:   "text",
		LogLevel:    "info",
		Offload:     offloadDirect,
		DevicePlugin: PluginConfig{
			KubeletDir: deviceplugin.DefaultKubeletDir,
			Prefix:     deviceplugin.DefaultPrefix,
		},
		ContinuousProbe: monitor.DefaultConfig(),
	}
}

// maxConfig bounds the size of a configuration file in bytes.
const maxConfig = 1 << 20

// ReadConfig reads a YAML file over base. An unknown key is an error.
func ReadConfig(path string, base Config) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return base, fmt.Errorf("daemon config: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return base, fmt.Errorf("daemon config %s: %w", path, err)
	}
	if len(text) > maxConfig {
		return base, fmt.Errorf("daemon config %s: larger than %d bytes", path, maxConfig)
	}
	if err := yaml.UnmarshalStrict(text, &base); err != nil {
		return base, fmt.Errorf("daemon config %s: %w", path, err)
	}
	return base, nil
}

// Check fills in what follows from other settings and refuses what cannot work.
func (c Config) Check() (Config, error) {
	remotes, err := ovsdb.ParseRemotes(c.OVSDatabase)
	if err != nil {
		return c, fmt.Errorf("daemon config ovs_database: %w", err)
	}
	if c.OVSRunDir == "" {
		path, ok := strings.CutPrefix(c.OVSDatabase, "unix:")
		if !ok || len(remotes) != 1 {
			return c, fmt.Errorf("daemon config ovs_run_dir: needed, since ovs_database %q is no unix socket", c.OVSDatabase)
		}
		c.OVSRunDir = filepath.Dir(path)
	}
	for _, s := range []struct {
		key   string
		value *string
		file  string
	}{
		{"listen", &c.Listen, "offloadd.sock"},
		{"control", &c.Control, "offloadd.ctl"},
	} {
		if *s.value == "" {
			*s.value = "unix:" + filepath.Join(c.RunDir, s.file)
		}
		if !strings.HasPrefix(*s.value, "unix:/") {
			return c, fmt.Errorf("daemon config %s %q: not unix:/PATH", s.key, *s.value)
		}
	}
	if c.Listen == c.Control {
		return c, fmt.Errorf("daemon config control %q: the API listens there", c.Control)
	}
	switch c.LogFormat {
	case "text", "json":
	default:
		return c, fmt.Errorf("daemon config log_format %q: neither text nor json", c.LogFormat)
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		return c, fmt.Errorf("daemon config log_level %q: none of debug, info, warn, error", c.LogLevel)
	}
	if c.Offload == "false" { // what an off without quotes is in YAML 1.1
		c.Offload = offloadOff
	}
	switch c.Offload {
	case offloadDirect, offloadDelegated, offloadOff:
	default:
		return c, fmt.Errorf("daemon config offload %q: none of direct, delegated, off", c.Offload)
	}
	if c.TCSoftware && c.Offload != offloadDirect {
		return c, fmt.Errorf("daemon config tc_software: there are no filters of ours with offload %s", c.Offload)
	}
	if c.Pools, err = device.Check(c.Pools); err != nil {
		return c, fmt.Errorf("daemon config pools: %w", err)
	}
	if err := c.DevicePlugin.check(c.Pools); err != nil {
		return c, fmt.Errorf("daemon config device_plugin: %w", err)
	}
	if err := c.ContinuousProbe.Check(); err != nil {
		return c, fmt.Errorf("daemon config continuous_probe: %w", err)
	}
	if c.Metrics != "" {
		if _, _, err := metricsAddress(c.Metrics); err != nil {
			return c, fmt.Errorf("daemon config metrics: %w", err)
		}
	}
	set := 0
	for _, f := range []string{c.TLS.PrivateKey, c.TLS.Certificate, c.TLS.CACertificate} {
		if f != "" {
			set++
		}
	}
	if set != 0 && set != 3 {
		return c, fmt.Errorf("daemon config tls: private_key, certificate and ca_certificate go together")
	}
	return c, nil
}
