package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
)

// The test binary is the plugin if the environment says so.
func TestMain(m *testing.M) {
	if os.Getenv("OFFLOAD_CNI_TEST") == "plugin" {
		main()
		return
	}
	os.Exit(m.Run())
}

// run runs the plugin with a configuration and an environment, and returns what it prints and whether it succeeds.
func run(t *testing.T, conf string, env ...string) (string, bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Stdin = strings.NewReader(conf)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append([]string{"OFFLOAD_CNI_TEST=plugin", "CNI_PATH=" + t.TempDir()}, env...)
	out, err := cmd.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Logf("stderr: %s", &stderr)
	}
	return string(out), err == nil
}

// refused runs the plugin and returns its error.
func refused(t *testing.T, conf string, env ...string) types.Error {
	t.Helper()
	out, ok := run(t, conf, env...)
	var e types.Error
	if err := json.Unmarshal([]byte(out), &e); ok || err != nil || e.Code == 0 {
		t.Fatalf("success = %v, stdout %q: %v; want an error", ok, out, err)
	}
	return e
}

func accepted(t *testing.T, conf string, env ...string) string {
	t.Helper()
	out, ok := run(t, conf, env...)
	if !ok {
		t.Fatalf("failed: %s", out)
	}
	return out
}

// A node is a daemon with no kernel behind it: ports are what was asked for.
type node struct {
	api.Node    // nil: only Status is called
	api.Devices // nil: only Snapshot and Resource are called

	mu     sync.Mutex // guards what follows
	feed   *ports.Feed
	asked  []ports.CreateRequest
	trace  []string        // traceparent and tracestate of the last Create
	answer error           // of Create and Delete, if not nil
	wrong  []ports.Problem // found by Check
	checks []ports.CheckRequest
	pools  []device.PoolStatus
}

func (n *node) Create(ctx context.Context, req ports.CreateRequest) (ports.Port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trace = slices.Concat(metadata.ValueFromIncomingContext(ctx, "traceparent"), metadata.ValueFromIncomingContext(ctx, "tracestate"))
	n.asked = append(n.asked, req)
	if n.answer != nil {
		return ports.Port{}, n.answer
	}
	s := req.Spec
	p := ports.Port{Spec: s, State: ports.Ready, HostInterface: "veth0", MAC: s.MAC, Addresses: s.Addresses, Gateways: s.Gateways, Routes: s.Routes, MTU: s.MTU}
	if s.Addressing == ports.FromLogicalPort {
		p.MAC, p.Addresses = ports.MAC{10, 0, 0, 0, 0, 5}, []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("fd00::5/64")}
	}
	if p.Kind = s.Kinds()[0]; p.Kind != ports.Veth {
		p.HostInterface = "pf0vf0"
		p.Function = &device.Function{
			Handle: devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}.Port(1), Kind: device.Kind(p.Kind), Bus: "pci", Device: "0000:03:00.2", NUMA: -1,
		}
		if p.Kind == ports.SF {
			p.HostInterface, p.Function.Bus, p.Function.Device = "pf0sf88", "auxiliary", "mlx5_core.sf.4"
		}
	}
	return n.feed.Put(p), nil
}

func (n *node) Delete(_ context.Context, req ports.DeleteRequest) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.feed.Find(req.Key)
	if n.answer != nil {
		return false, n.answer
	}
	n.feed.Remove(req.Key)
	return ok, nil
}

func (n *node) Check(_ context.Context, req ports.CheckRequest) ([]ports.Problem, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.checks = append(n.checks, req)
	if _, ok := n.feed.Find(req.Key); !ok {
		return nil, reason.Errorf(reason.PortNotFound, "ports check %s: no such port", req.Key)
	}
	return n.wrong, nil
}

func (n *node) Feed() *ports.Feed { return n.feed }

func (n *node) Known(context.Context) error { return nil }

func (n *node) Status(context.Context, api.StatusRequest) (api.Status, error) {
	return api.Status{}, nil
}

func (n *node) Snapshot() device.Snapshot {
	n.mu.Lock()
	defer n.mu.Unlock()
	return device.Snapshot{Pools: n.pools}
}

func (n *node) Resource(string) string { return "" }

func newNode() *node { return &node{feed: ports.NewFeed()} }

// serve serves a node at a socket until the test ends or stop is called.
func serve(t *testing.T, socket string, n *node) (server *api.Server, stop func()) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server = api.NewServer(n, n, nil, n, nil, nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return server, stop
}

// lab is a node with its socket, and a configuration to which a test adds.
func newLab(t *testing.T) (n *node, server *api.Server, conf func(extra string) string) {
	t.Helper()
	n = newNode()
	socket := filepath.Join(t.TempDir(), "s")
	server, _ = serve(t, socket, n)
	return n, server, func(extra string) string { return config11(socket, extra) }
}

func config11(socket, extra string) string {
	if extra != "" {
		extra = "," + extra
	}
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net1","type":"offload-cni","socket":%q%s}`, socket, extra)
}

// env is what a runtime sets for a verb; the namespace is one that does not exist, for the node does not look.
func env(verb string, more ...string) []string {
	return append([]string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/none"}, more...)
}

const k8s = "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_UID=u-1;FUTURE=x"

func TestAdd(t *testing.T) {
	n, _, conf := newLab(t)
	got := accepted(t, conf(`"gateways":["10.0.0.1"],"routes":[{"dst":"192.0.2.0/24","gw":"10.0.0.2","mtu":1300}],"dns":{"nameservers":["10.0.0.3"]}`), env("ADD", k8s)...)
	want := `{
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "veth0", "mtu": 1442},
        {"name": "eth0", "mac": "0a:00:00:00:00:05", "mtu": 1442, "sandbox": "/run/netns/none"}
    ],
    "ips": [
        {"interface": 1, "address": "10.0.0.5/24", "gateway": "10.0.0.1"},
        {"interface": 1, "address": "fd00::5/64"}
    ],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.0.0.1"},
        {"dst": "192.0.2.0/24", "gw": "10.0.0.2", "mtu": 1300}
    ],
    "dns": {"nameservers": ["10.0.0.3"]}
}`
	if diff := cmp.Diff(tree(t, want), tree(t, got)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	s := n.asked[0].Spec
	if s.LogicalPort != "ns_pod" || s.IfaceIDVer != "u-1" || s.Addressing != ports.FromLogicalPort {
		t.Errorf("spec %+v: want ns_pod, u-1, logical-port", s)
	}
	accepted(t, conf(""), env("DEL")...)
	accepted(t, conf(""), env("DEL")...) // what is not there is removed
	if all, _ := n.feed.All(); len(all) != 0 {
		t.Errorf("after DEL: %v", all)
	}
}

// What the configuration and the runtime say of functions comes to the daemon, and the result says which it is.
func TestFunctions(t *testing.T) {
	n, _, conf := newLab(t)
	yes, no := true, false
	for _, tt := range []struct {
		conf       string
		want       ports.Spec // the fields that are about functions
		interfaces string     // name and pciID of each
	}{
		{``, ports.Spec{Kind: ports.Veth}, "veth0,/eth0,"},
		{`"kind":"vf"`, ports.Spec{Kind: ports.VF}, "pf0vf0,/eth0,0000:03:00.2"},
		{`"kind":"sf","fallback":["vf","veth"],"pool":"fast"`, ports.Spec{Kind: ports.SF, Fallback: []ports.Kind{ports.VF, ports.Veth}, Pool: "fast"}, "pf0sf88,/eth0,mlx5_core.sf.4"},
		{`"pool":"fast"`, ports.Spec{Kind: ports.Auto, Fallback: []ports.Kind{ports.VF, ports.SF}, Pool: "fast"}, "pf0vf0,/eth0,0000:03:00.2"},
		{`"deviceID":"0000:03:00.2","pciBusID":"0000:03:00.2"`, ports.Spec{Kind: ports.Auto, Fallback: []ports.Kind{ports.VF, ports.SF}, Device: "0000:03:00.2"}, "pf0vf0,/eth0,0000:03:00.2"},
		{`"kind":"sf","deviceID":"x","capabilities":{"deviceID":true},"runtimeConfig":{"deviceID":"mlx5_core.sf.4"}`, ports.Spec{Kind: ports.SF, Device: "mlx5_core.sf.4"}, "pf0sf88,/eth0,mlx5_core.sf.4"},
		{
			`"kind":"vf","vlan":7,"vlanQoS":3,"vlanProto":"802.1AD","trust":"on","spoofchk":"off","link_state":"enable","min_tx_rate":10,"max_tx_rate":100`,
			ports.Spec{Kind: ports.VF, Attributes: ports.Attributes{
				VLAN: 7, QoS: 3, VLANProto: ports.VLAN8021AD, Trust: &yes, SpoofCheck: &no, LinkState: ports.LinkEnable, MinRate: 10e6, MaxRate: 100e6,
			}},
			"pf0vf0,/eth0,0000:03:00.2",
		},
		{
			`"kind":"vf","max_tx_rate":100,"capabilities":{"bandwidth":true},"runtimeConfig":{"bandwidth":{"egressRate":5000,"egressBurst":1}}`,
			ports.Spec{Kind: ports.VF, Attributes: ports.Attributes{MaxRate: 5000}},
			"pf0vf0,/eth0,0000:03:00.2",
		},
		{
			`"kind":"vf","rdma":true,"capabilities":{"infinibandGUID":true},"runtimeConfig":{"infinibandGUID":"02:00:00:00:00:00:00:0A"}`,
			ports.Spec{Kind: ports.VF, Attributes: ports.Attributes{RDMA: true, GUID: &device.GUID{2, 0, 0, 0, 0, 0, 0, 10}}},
			"pf0vf0,/eth0,0000:03:00.2",
		},
	} {
		result := tree(t, accepted(t, conf(tt.conf), env("ADD", k8s)...)).(map[string]any)
		var interfaces []string
		for _, i := range result["interfaces"].([]any) {
			pci, _ := i.(map[string]any)["pciID"].(string)
			interfaces = append(interfaces, i.(map[string]any)["name"].(string)+","+pci)
		}
		if got := strings.Join(interfaces, "/"); got != tt.interfaces {
			t.Errorf("%s: interfaces %s, want %s", tt.conf, got, tt.interfaces)
		}
		s := n.asked[len(n.asked)-1].Spec
		got := ports.Spec{Kind: s.Kind, Fallback: s.Fallback, Pool: s.Pool, Device: s.Device, Attributes: s.Attributes}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.conf, diff)
		}
		accepted(t, conf(""), env("DEL")...)
	}
}

// Multus learns which function it is, unless the device plugin has told it.
func TestDeviceInfo(t *testing.T) {
	n, _, conf := newLab(t)
	dir := t.TempDir()
	for _, tt := range []struct{ kind, there, want string }{
		{"vf", "", `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:00.2","pf-pci-address":"0000:03:00.0","representor-device":"pf0vf0"}}`},
		{"vf", `{"type":"pci","version":"1.1.0"}`, `{"type":"pci","version":"1.1.0"}`},
		{"sf", "", ""},
		{"veth", "", ""},
	} {
		path := filepath.Join(dir, "cni", tt.kind+"-info.json")
		_ = os.Remove(path)
		if tt.there != "" {
			if err := os.WriteFile(path, []byte(tt.there), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		extra := fmt.Sprintf(`"kind":%q,"capabilities":{"CNIDeviceInfoFile":true},"runtimeConfig":{"CNIDeviceInfoFile":%q}`, tt.kind, path)
		accepted(t, conf(extra), env("ADD", k8s)...)
		got, err := os.ReadFile(path)
		if string(got) != tt.want || (tt.want == "") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %s, %v; want %s", tt.kind, got, err, tt.want)
		}
		for range 2 { // whoever wrote it; the second time there is none
			accepted(t, conf(extra), env("DEL")...)
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: after DEL: %v", tt.kind, err)
			}
		}
	}
	// What is something else stays.
	other := filepath.Join(dir, "other.json")
	if err := os.WriteFile(other, []byte(`{"type":"veth"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	accepted(t, conf(fmt.Sprintf(`"runtimeConfig":{"CNIDeviceInfoFile":%q}`, other)), env("DEL")...)
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
	// Without it nothing is known of the container's function, so nothing is kept.
	if e := refused(t, conf(`"kind":"vf","runtimeConfig":{"CNIDeviceInfoFile":"/proc/none/info.json"}`), env("ADD", k8s)...); e.Code != 5 {
		t.Errorf("a file that cannot be written: %+v", e)
	}
	if all, _ := n.feed.All(); len(all) != 0 {
		t.Errorf("after an ADD that failed: %v", all)
	}
}

// An older configuration gets the result of its own version.
func TestVersions(t *testing.T) {
	_, _, conf := newLab(t)
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		got := tree(t, accepted(t, strings.Replace(conf(""), "1.1.0", version, 1), env("ADD", k8s)...)).(map[string]any)
		ipVersion := got["ips"].([]any)[0].(map[string]any)["version"]
		if old := strings.HasPrefix(version, "0."); got["cniVersion"] != version || (ipVersion == "4") != old {
			t.Errorf("%s: %v", version, got)
		}
	}
}

func tree(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

// Behind another plugin, what that one made is passed on, and our addresses belong to our interface.
func TestPassOn(t *testing.T) {
	_, _, conf := newLab(t)
	prev := `"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"net1","sandbox":"/run/netns/none"}],"ips":[{"interface":0,"address":"192.0.2.1/24"}]}`
	got := tree(t, accepted(t, conf(prev), env("ADD", k8s)...)).(map[string]any)
	var names, ips []string
	for _, i := range got["interfaces"].([]any) {
		names = append(names, i.(map[string]any)["name"].(string))
	}
	for _, ip := range got["ips"].([]any) {
		ips = append(ips, fmt.Sprintf("%v %v", ip.(map[string]any)["interface"], ip.(map[string]any)["address"]))
	}
	if diff := cmp.Diff([]string{"net1", "veth0", "eth0"}, names); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"0 192.0.2.1/24", "2 10.0.0.5/24", "2 fd00::5/64"}, ips); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// The runtime's trace goes on in the daemon; what cannot be one does no harm.
func TestTrace(t *testing.T) {
	n, _, conf := newLab(t)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for state, want := range map[string][]string{"a=1": {parent, "a=1"}, "a\x1b": {parent}, strings.Repeat("x", 600): {parent}, "": {parent}} {
		accepted(t, conf(""), env("ADD", k8s, "TRACEPARENT="+parent, "TRACESTATE="+state)...)
		if diff := cmp.Diff(want, n.trace); diff != "" {
			t.Errorf("TRACESTATE=%.20q (-want +got):\n%s", state, diff)
		}
	}
}

// STATUS fails if a container has to have a function and can have none.
func TestStatusOfPools(t *testing.T) {
	n, server, conf := newLab(t)
	for _, s := range api.Subsystems() {
		server.SetHealth(api.Health{Subsystem: s})
	}
	pool := func(name string, kind device.Kind, capacity int, counts map[device.State]int, why reason.Reason) device.PoolStatus {
		return device.PoolStatus{Pool: device.Pool{Name: name, Kind: kind}, Capacity: capacity, Counts: counts, Reason: why, Message: "because"}
	}
	full := pool("fast", device.VF, 2, map[device.State]int{device.Used: 2}, "")
	room := pool("many", device.SF, 4, map[device.State]int{device.Used: 2, device.Quarantined: 1, device.Gone: 1}, "")
	for _, tt := range []struct {
		conf  string
		pools []device.PoolStatus
		want  string // in the message; "": it succeeds
	}{
		{`"kind":"veth"`, nil, ""},
		{`"kind":"vf"`, nil, "there is no pool"},
		{`"kind":"vf"`, []device.PoolStatus{full, room}, "pool fast: no function is free"},
		{`"kind":"vf","pool":"many"`, []device.PoolStatus{full, room}, "there is no pool many"},
		{`"kind":"vf","fallback":["veth"]`, []device.PoolStatus{full}, ""},
		{`"kind":"vf","fallback":["sf"]`, []device.PoolStatus{full, room}, ""},
		{`"kind":"auto"`, []device.PoolStatus{full, room}, ""},
		{`"pool":"fast"`, []device.PoolStatus{full, room}, "pool fast: no function is free"},
		{`"deviceID":"0000:03:00.2"`, []device.PoolStatus{full}, ""},
		{`"kind":"vf"`, []device.PoolStatus{pool("fast", device.VF, 2, map[device.State]int{device.Used: 1, device.Resetting: 1}, "")}, ""},
		{`"kind":"vf"`, []device.PoolStatus{pool("fast", device.VF, 0, nil, reason.EswitchNotSwitchdev)}, "pool fast: because"},
		{`"kind":"sf"`, []device.PoolStatus{pool("many", device.SF, 4, map[device.State]int{device.Used: 3, device.Quarantined: 1}, "")}, "pool many: no function is free"},
		{`"kind":"sf"`, []device.PoolStatus{pool("many", device.SF, 4, map[device.State]int{device.Used: 1}, reason.DeviceFailed)}, "pool many: because"},
		{`"kind":"sf"`, []device.PoolStatus{pool("many", device.SF, 4, map[device.State]int{device.Free: 1}, reason.DeviceFailed)}, ""},
	} {
		n.mu.Lock()
		n.pools = tt.pools
		n.mu.Unlock()
		if tt.want == "" {
			accepted(t, conf(tt.conf), env("STATUS")...)
			continue
		}
		if e := refused(t, conf(tt.conf), env("STATUS")...); e.Code != 50 || !strings.Contains(e.Msg, tt.want) {
			t.Errorf("%s: %+v, want code 50 and %q", tt.conf, e, tt.want)
		}
	}
}

// What cannot be is refused with the code of the specification, and names what is wrong; the daemon hears nothing of it.
func TestRefused(t *testing.T) {
	n, _, conf := newLab(t)
	for _, tt := range []struct {
		name  string
		conf  string
		env   []string
		code  uint
		words string
	}{
		{"misspelt key", conf(`"mttu":1400`), env("ADD", k8s), 7, "mttu"},
		{"other case", conf(`"MTU":1400`), env("ADD", k8s), 7, "MTU"},
		{"type", conf(`"mtu":"1400"`), env("ADD", k8s), 7, "mtu"},
		{"negative", conf(`"mtu":-1`), env("ADD", k8s), 7, "mtu"},
		{"route key", conf(`"routes":[{"dest":"10.0.0.0/8"}]`), env("ADD", k8s), 7, "dest"},
		{"timeout", conf(`"timeout":"-1s"`), env("ADD", k8s), 7, "timeout"},
		{"kind", conf(`"kind":"tap"`), env("ADD", k8s), 7, "kind"},
		{"fallback", conf(`"kind":"vf","fallback":["tap"]`), env("ADD", k8s), 7, "fallback[0]"},
		{"empty fallback", conf(`"kind":"vf","fallback":[""]`), env("ADD", k8s), 7, "fallback[0]"},
		{"fallback of a veth", conf(`"kind":"veth","fallback":["vf"]`), env("ADD", k8s), 7, "fallback[0]"},
		{"veth of a pool", conf(`"kind":"veth","pool":"fast"`), env("ADD", k8s), 7, "pool"},
		{"two devices", conf(`"deviceID":"0000:03:00.2","pciBusID":"0000:03:00.3"`), env("ADD", k8s), 7, "pciBusID"},
		{"trust", conf(`"kind":"vf","trust":"yes"`), env("ADD", k8s), 7, "trust"},
		{"spoofchk", conf(`"kind":"vf","spoofchk":true`), env("ADD", k8s), 7, "spoofchk"},
		{"link state", conf(`"kind":"vf","link_state":"up"`), env("ADD", k8s), 7, "link_state"},
		{"VLAN protocol", conf(`"kind":"vf","vlan":7,"vlanProto":"x"`), env("ADD", k8s), 7, "vlanProto"},
		{"VLAN", conf(`"kind":"vf","vlan":4095`), env("ADD", k8s), 7, "attributes.vlan"},
		{"rates", conf(`"kind":"vf","min_tx_rate":2,"max_tx_rate":1`), env("ADD", k8s), 7, "attributes.min_rate"},
		{"huge rate", conf(`"kind":"vf","max_tx_rate":18446744073709551615`), env("ADD", k8s), 7, "max_tx_rate"},
		{"attributes of a veth", conf(`"vlan":7`), env("ADD", k8s), 7, "attributes"},
		{"GUID", conf(`"kind":"vf","runtimeConfig":{"infinibandGUID":"02:00"}`), env("ADD", k8s), 7, "infiniband_guid"},
		{"GUID of a veth", conf(`"runtimeConfig":{"infinibandGUID":"02:00:00:00:00:00:00:0a"}`), env("ADD", k8s), 7, "attributes"},
		{"bandwidth of a veth", conf(`"runtimeConfig":{"bandwidth":{"egressRate":8000}}`), env("ADD", k8s), 7, "chain the plugin bandwidth"},
		{"what it receives", conf(`"kind":"vf","runtimeConfig":{"bandwidth":{"ingressRate":5}}`), env("ADD", k8s), 7, "ingressRate"},
		{"addressing", conf(`"addressing":"dhcp"`), env("ADD", k8s), 7, "addressing"},
		{"ipam without type", conf(`"addressing":"ipam","ipam":{}`), env("ADD", k8s), 7, "ipam.type"},
		{"ipam and static", conf(`"addressing":"static","ipam":{"type":"host-local"}`), env("ADD", k8s), 7, "ipam"},
		{"capability", conf(`"capabilities":{"portMappings":true}`), env("ADD", k8s), 7, "portMappings"},
		{"placeholder", conf(`"logicalPort":"{pood}"`), env("ADD", k8s), 7, "{pood"},
		{"open placeholder", conf(`"logicalPort":"x{pod"`), env("ADD", k8s), 7, "{pod"},
		{"no value", conf(`"logicalPort":"{pod}"`), env("ADD"), 7, "{pod}"},
		{"no logical port", conf(``), env("ADD"), 7, "logicalPort"},
		{"MAC", conf(`"mac":"01:02"`), env("ADD", k8s), 7, "mac"},
		{"multicast MAC", conf(`"mac":"01:00:00:00:00:05"`), env("ADD", k8s), 7, "mac"},
		{"address", conf(`"addresses":["10.0.0.300/24"]`), env("ADD", k8s), 7, "addresses[0]"},
		{"host bits", conf(`"routes":[{"dst":"10.0.0.1/8"}]`), env("ADD", k8s), 7, "routes[0].destination"},
		{"prevResult", conf(`"prevResult":{"cniVersion":"1.1.0","ips":"x"}`), env("ADD", k8s), 7, "prevResult"},
		{"no JSON", `{`, env("ADD", k8s), 6, ""},
		{"array", `[]`, env("ADD", k8s), 6, ""},
		{"empty", ``, env("ADD", k8s), 6, ""},
		{"no name", `{"cniVersion":"1.1.0"}`, env("ADD", k8s), 7, "name"},
		{"version", strings.Replace(conf(``), "1.1.0", "9.0.0", 1), env("ADD", k8s), 1, ""},
		{"old version", strings.Replace(conf(``), "1.1.0", "0.2.0", 1), env("ADD", k8s), 1, ""},
		{"GC of old", strings.Replace(conf(``), "1.1.0", "1.0.0", 1), env("GC"), 1, "GC"},
		{"STATUS of old", strings.Replace(conf(``), "1.1.0", "1.0.0", 1), env("STATUS"), 1, "STATUS"},
		{"CHECK of old", strings.Replace(conf(``), "1.1.0", "0.3.1", 1), env("CHECK"), 1, "CHECK"},
		{"args", conf(``), env("ADD", "CNI_ARGS=x"), 4, "KEY=VALUE"},
		{"args twice", conf(``), env("ADD", "CNI_ARGS=LogicalPort=a;LogicalPort=b"), 4, "twice"},
		{"args unknown", conf(``), env("ADD", "CNI_ARGS=LogicalPort=a;X=b"), 4, "X"},
		{"args ignore", conf(``), env("ADD", "CNI_ARGS=IgnoreUnknown=maybe"), 4, "IgnoreUnknown"},
		{"args space", conf(``), env("ADD", "CNI_ARGS=LogicalPort=a b"), 4, "LogicalPort"},
		{"args escape", conf(``), env("ADD", "CNI_ARGS=LogicalPort=a\x1b[31m"), 4, "LogicalPort"},
		{"args no UTF-8", conf(``), env("ADD", "CNI_ARGS=LogicalPort=\xff"), 4, "LogicalPort"},
		{"args long", conf(``), env("ADD", "CNI_ARGS=LogicalPort="+strings.Repeat("x", 300)), 4, "LogicalPort"},
		{"args endless", conf(``), env("ADD", "CNI_ARGS="+strings.Repeat("a=b;", 5000)), 4, "CNI_ARGS"},
		{"container", conf(``), append(env("ADD", k8s), "CNI_CONTAINERID=../x"), 4, ""},
		{"interface", conf(``), append(env("ADD", k8s), "CNI_IFNAME=a/b"), 4, ""},
		{"own namespace", conf(``), append(env("ADD", k8s), "CNI_NETNS=/proc/self/ns/net"), 4, "CNI_NETNS"},
		{"relative namespace", conf(``), append(env("ADD", k8s), "CNI_NETNS=run/netns/x"), 7, "netns"},
		{"verb", conf(``), env("FIX"), 4, "FIX"},
		{"CHECK without prevResult", conf(``), env("CHECK"), 7, "prevResult"},
		{"GC list of strings", conf(`"cni.dev/valid-attachments":["c1"]`), env("GC"), 7, "valid-attachments"},
		{"GC list without ids", conf(`"cni.dev/valid-attachments":[{}]`), env("GC"), 7, "valid-attachments"},
		{"GC object", conf(`"cni.dev/valid-attachments":{}`), env("GC"), 7, "valid-attachments"},
	} {
		e := refused(t, tt.conf, tt.env...)
		if e.Code != tt.code || !strings.Contains(e.Msg, tt.words) {
			t.Errorf("%s: %+v, want code %d and %q", tt.name, e, tt.code, tt.words)
		}
	}
	if len(n.asked) > 0 {
		t.Errorf("the daemon was asked for %+v", n.asked)
	}
	// To remove something, a configuration need not be faultless.
	for _, c := range []string{conf(`"mttu":1400`), conf(`"mtu":"1400"`), conf(`"prevResult":{}`), conf(`"prevResult":null`), conf(`"prevResult":{"cniVersion":"1.1.0","ips":7}`)} {
		accepted(t, c, env("DEL")...)
	}
}

// Each reason that the daemon may have is an error with the code of the table, and says what to do.
func TestReasons(t *testing.T) {
	for _, verb := range []string{"ADD", "DEL"} {
		n, _, conf := newLab(t)
		for _, entry := range reason.Table {
			if away(entry.Reason) {
				continue // TestRestart
			}
			n.answer = reason.Errorf(entry.Reason, "ports %s: for a reason", verb).With("owner", "x y")
			e := refused(t, conf(""), env(verb, k8s)...)
			want := types.Error{
				Code: uint(entry.CNI), Msg: "ports " + verb + ": for a reason",
				Details: string(entry.Reason) + ": " + entry.Remedy + ` owner="x y"`,
			}
			if e != want {
				t.Errorf("%s: %s: %+v, want %+v", verb, entry.Reason, e, want)
			}
		}
	}
}

// A restart of the daemon is not seen, and if it does not come back the runtime is asked to try again.
func TestRestart(t *testing.T) {
	for _, verb := range []string{"ADD", "DEL"} {
		socket := filepath.Join(t.TempDir(), "s")
		n := newNode()
		_, stop := serve(t, socket, n)
		stop()
		back := time.AfterFunc(300*time.Millisecond, func() { serve(t, socket, n) })
		accepted(t, config11(socket, ""), env(verb, k8s)...)
		back.Stop()
	}
	begin := time.Now()
	none := filepath.Join(t.TempDir(), "none")
	e := refused(t, config11(none, ""), env("DEL")...)
	if took := time.Since(begin); e.Code != 11 || !strings.HasPrefix(e.Details, "DAEMON_UNREACHABLE") || took < patience/2 || took > 2*patience {
		t.Errorf("DEL without a daemon: %+v after %v, want code 11 after %v", e, took, patience)
	}
	if e := refused(t, config11(none, ""), env("STATUS")...); e.Code != 50 {
		t.Errorf("STATUS without a daemon: %+v, want code 50", e)
	}
}

func TestStatus(t *testing.T) {
	_, server, conf := newLab(t)
	if e := refused(t, conf(""), env("STATUS")...); e.Code != 50 || !strings.Contains(e.Msg, "offload.port") {
		t.Errorf("STATUS at the start: %+v, want 50", e)
	}
	for _, s := range api.Subsystems() {
		server.SetHealth(api.Health{Subsystem: s})
	}
	if out := accepted(t, conf(""), env("STATUS")...); out != "" {
		t.Errorf("STATUS prints %q", out)
	}
	server.SetHealth(api.Health{Subsystem: api.SubsystemFilter, Reason: reason.KernelRefused, Message: "no"})
	if out := accepted(t, conf(""), env("STATUS")...); out != "" {
		t.Errorf("STATUS with filters that the kernel refuses prints %q", out) // pods work without them
	}
	server.SetHealth(api.Health{Subsystem: api.SubsystemSB, Reason: reason.SBDisconnected, Message: "connection refused"})
	if e := refused(t, conf(""), env("STATUS")...); e.Code != 50 || !strings.Contains(e.Msg, "connection refused") {
		t.Errorf("STATUS just after the Southbound went away: %+v, want 50", e)
	}
}

func TestCheck(t *testing.T) {
	n, _, conf := newLab(t)
	result := accepted(t, conf(""), env("ADD", k8s)...)
	prev := conf(`"prevResult":` + result)
	accepted(t, prev, env("CHECK")...)
	if got := fmt.Sprint(n.checks[0].Addresses); got != "[10.0.0.5/24 fd00::5/64]" {
		t.Errorf("addresses %s", got)
	}
	if e := refused(t, strings.Replace(prev, "0a:00:00:00:00:05", "0a:00:00:00:00:06", 1), env("CHECK")...); e.Code != 102 || !strings.HasPrefix(e.Details, "LINK_CHANGED") {
		t.Errorf("another MAC: %+v", e)
	}
	if e := refused(t, strings.Replace(prev, `"sandbox"`, `"other"`, 1), env("CHECK")...); e.Code != 102 || !strings.HasPrefix(e.Details, "LINK_MISSING") {
		t.Errorf("no sandbox: %+v", e)
	}
	n.wrong = []ports.Problem{{Reason: reason.AddressMissing, Message: "10.0.0.5 is gone"}, {Reason: reason.RouteMissing, Message: "the way is gone"}}
	if e := refused(t, prev, env("CHECK")...); e.Code != 102 || e.Msg != "10.0.0.5 is gone\nthe way is gone" {
		t.Errorf("two problems: %+v", e)
	}
	accepted(t, conf(""), env("DEL")...)
	if e := refused(t, prev, env("CHECK")...); e.Code != 3 {
		t.Errorf("CHECK after DEL: %+v, want 3", e)
	}
}

// GC removes what is not valid of its own network. Not to know what is valid is not to know that nothing is.
func TestGC(t *testing.T) {
	n, _, conf := newLab(t)
	left := func() string {
		var keys []string
		all, _ := n.feed.All()
		for _, p := range all {
			keys = append(keys, p.Spec.Key.Network+"/"+p.Spec.Key.ContainerID)
		}
		return strings.Join(keys, " ")
	}
	for _, c := range []string{"c1", "c2", "c3"} {
		accepted(t, conf(""), append(env("ADD", k8s), "CNI_CONTAINERID="+c)...)
	}
	accepted(t, strings.Replace(conf(""), "net1", "net2", 1), env("ADD", k8s)...)
	for _, tt := range []struct{ list, want string }{
		{``, "net1/c1 net1/c2 net1/c3 net2/c1"},
		{`"cni.dev/valid-attachments":null`, "net1/c1 net1/c2 net1/c3 net2/c1"},
		{`"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"},{"containerID":"c2","ifname":"eth0"},{"containerID":"c3","ifname":"eth1"}]`, "net1/c1 net1/c2 net2/c1"},
		{`"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}],"mttu":1`, "net1/c2 net2/c1"},
		{`"cni.dev/valid-attachments":[]`, "net2/c1"},
	} {
		accepted(t, conf(tt.list), env("GC")...)
		if got := left(); got != tt.want {
			t.Errorf("GC %s: left %s, want %s", tt.list, got, tt.want)
		}
	}
	n.answer = reason.Errorf(reason.OVSDBDisconnected, "ports delete: no database")
	accepted(t, conf(`"cni.dev/valid-attachments":[]`), env("GC")...) // has nothing to remove
	n.answer = nil
	accepted(t, conf(""), env("ADD", k8s)...)
	accepted(t, conf(""), append(env("ADD", k8s), "CNI_CONTAINERID=c2")...)
	n.answer = reason.Errorf(reason.OVSDBDisconnected, "ports delete: no database")
	if e := refused(t, conf(`"cni.dev/valid-attachments":[]`), env("GC")...); e.Code != 11 || strings.Count(e.Msg, "no database") != 2 {
		t.Errorf("GC that fails twice: %+v, want code 11 and both", e)
	}
}

// A plugin of the reference kind: it writes down how it was called.
const fakeIPAM = `#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID" >>"$(dirname "$0")/calls"
[ "$CNI_COMMAND" = DEL ] && [ -e "$(dirname "$0")/full" ] && echo '{"code":5,"msg":"disk full"}' && exit 1
[ "$CNI_COMMAND" = ADD ] && cat "$(dirname "$0")/result"
exit 0
`

func TestIPAM(t *testing.T) {
	n, server, conf := newLab(t)
	for _, s := range api.Subsystems() {
		server.SetHealth(api.Health{Subsystem: s})
	}
	dir := t.TempDir()
	calls := func() string {
		out, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", ",")
	}
	result := `{"cniVersion":"1.1.0","ips":[{"address":"10.9.0.7/24","gateway":"10.9.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}`
	for name, text := range map[string]string{"fake": fakeIPAM, "result": result} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	with := func(verb string) []string { return append(env(verb, k8s), "CNI_PATH="+dir) }
	ipam := `"ipam":{"type":"fake","anything":1}`
	out := accepted(t, conf(ipam), with("ADD")...)
	s := n.asked[0].Spec
	if got := fmt.Sprintf("%s %s %s %s", s.Addressing, s.Addresses, s.Routes[0].Destination, s.Routes[0].Gateway); got != "static [10.9.0.7/24] 0.0.0.0/0 10.9.0.1" {
		t.Errorf("spec: %s", got)
	}
	if !strings.Contains(out, `"gateway": "10.9.0.1"`) {
		t.Errorf("result: %s", out)
	}
	accepted(t, conf(ipam+`,"prevResult":`+out), with("CHECK")...)
	accepted(t, conf(ipam), with("STATUS")...)
	accepted(t, conf(ipam+`,"cni.dev/valid-attachments":null`), with("GC")...) // not passed on
	accepted(t, conf(ipam+`,"cni.dev/valid-attachments":[]`), with("GC")...)
	accepted(t, conf(ipam), with("DEL")...)
	n.answer = reason.Errorf(reason.LPortNotFound, "ports create: no logical port")
	if e := refused(t, conf(ipam), with("ADD")...); e.Code != 11 {
		t.Errorf("ADD: %+v, want code 11", e)
	}
	if e := refused(t, conf(ipam), with("DEL")...); e.Code != 11 { // and the addresses are kept
		t.Errorf("DEL: %+v, want code 11", e)
	}
	if got, want := calls(), "ADD c1,CHECK c1,STATUS c1,GC c1,DEL c1,ADD c1,DEL c1"; got != want {
		t.Errorf("calls %s, want %s", got, want)
	}
	// That the release fails too is said, but the code is that of what failed first.
	if err := os.WriteFile(filepath.Join(dir, "full"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if e := refused(t, conf(ipam), with("ADD")...); e.Code != 11 || !strings.Contains(e.Msg, "no logical port") || !strings.Contains(e.Msg, "disk full") {
		t.Errorf("ADD that cannot be undone: %+v, want code 11 and both messages", e)
	}
	if e := refused(t, conf(`"ipam":{"type":"absent"}`), with("ADD")...); !strings.Contains(e.Msg, "absent") {
		t.Errorf("no such plugin: %+v", e)
	}
}
