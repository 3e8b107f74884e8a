package devports

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/simnic"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// An attribute is asked for as configurations and runtimes of CNI do.
type attribute struct {
	name string
	kind string // vf or sf

	conf string // keys of the plugin
	args string // CAP_ARGS, what the runtime gives for capabilities

	command string   // that shows it: UPLINK, PORT, REPRESENTOR and NUMBER stand for the function's
	want    []string // that this shows while the pod has the function

	// spoil is what somebody else may do to it, in the same words, and says what CHECK answers then. "": nothing is tried.
	spoil, says string
}

const (
	ofVF   = "ip -d link show UPLINK"
	ofPort = "devlink port show PORT"
	ofRate = "devlink port function rate show PORT"
	ofRep  = "ip link show REPRESENTOR"
)

var attributes = []attribute{
	{
		name: "MAC address of a VF", kind: "vf", command: ofPort, want: []string{"hw_addr 50:54:00:00:01:01"},
		spoil: "devlink port function set PORT hw_addr 02:00:00:00:00:77", says: "mac is 02:00:00:00:00:77, not 50:54:00:00:01:01",
	},
	{name: "MAC address of an SF", kind: "sf", command: ofPort, want: []string{"hw_addr 50:54:00:00:01:01"}},
	{
		name: "MTU", kind: "vf", conf: `"mtu":1300`, command: ofRep, want: []string{"mtu 1300"},
		spoil: "ip link set REPRESENTOR mtu 1400", says: "mtu is 1400, not 1300",
	},
	{name: "MTU of an SF", kind: "sf", conf: `"mtu":1300`, command: ofRep, want: []string{"mtu 1300"}},
	{
		name: "VLAN", kind: "vf", conf: `"vlan":7,"vlanQoS":3`, command: ofVF, want: []string{"vf NUMBER", "vlan 7, qos 3"},
		spoil: "ip link set UPLINK vf NUMBER vlan 8", says: "vlan is vlan 8 qos 0 proto 0x8100, not vlan 7 qos 3 proto 0x8100",
	},
	{name: "QinQ", kind: "vf", conf: `"vlan":7,"vlanProto":"802.1ad"`, command: ofVF, want: []string{"vlan 7, vlan protocol 802.1ad"}},
	{
		name: "trust", kind: "vf", conf: `"trust":"on"`, command: ofVF, want: []string{"trust on"},
		spoil: "ip link set UPLINK vf NUMBER trust off", says: "trust is false, not true",
	},
	{
		name: "spoof check", kind: "vf", conf: `"spoofchk":"on"`, command: ofVF, want: []string{"spoof checking on"},
		spoil: "ip link set UPLINK vf NUMBER spoofchk off", says: "spoof_check is false, not true",
	},
	{
		name: "link state", kind: "vf", conf: `"link_state":"enable"`, command: ofVF, want: []string{"link-state enable"},
		spoil: "ip link set UPLINK vf NUMBER state disable", says: "link_state is disable, not enable",
	},
	{
		name: "rates of a VF", kind: "vf", conf: `"min_tx_rate":100,"max_tx_rate":800`, command: ofRate, want: []string{"tx_share 100Mbit", "tx_max 800Mbit"},
		spoil: "devlink port function rate set PORT tx_max 900Mbit",
		says:  "rate is tx_share 100000000bit tx_max 900000000bit, not tx_share 100000000bit tx_max 800000000bit",
	},
	{name: "rates of an SF", kind: "sf", conf: `"min_tx_rate":100,"max_tx_rate":800`, command: ofRate, want: []string{"tx_share 100Mbit", "tx_max 800Mbit"}},
	{
		name: "bandwidth of a VF", kind: "vf", conf: `"max_tx_rate":800`, args: `{"bandwidth":{"egressRate":16000000,"egressBurst":8000}}`,
		command: ofRate, want: []string{"tx_max 16Mbit"},
	},
	{name: "bandwidth of an SF", kind: "sf", args: `{"bandwidth":{"egressRate":16000000}}`, command: ofRate, want: []string{"tx_max 16Mbit"}},
}

// A cniPod is a pod with a network of its own, by cnitool.
type cniPod struct {
	*lab.Pod
	net *attach.Network
	env []string
}

// attachment makes a network for a pod: a function of a kind, with further keys and capability arguments.
func (r *rig) attachment(pod *lab.Pod, kind, conf, args string) cniPod {
	r.T.Helper()
	path, err := binary("CNIBIN")
	r.Check(err)
	if conf != "" {
		conf = "," + conf
	}
	p := cniPod{Pod: pod}
	capabilities := `{"bandwidth":true,"deviceID":true,"infinibandGUID":true,"mac":true,"ips":true,"CNIDeviceInfoFile":true}`
	p.net, err = attach.NewNetwork(r.node, path, fmt.Sprintf("a%d", networks()), fmt.Sprintf(
		`{"type":"offload-cni","kind":%q,"addressing":"static","mac":%q,"addresses":[%q],"capabilities":%s%s}`, kind, p.MAC, p.IPs[0], capabilities, conf))
	r.Check(err)
	if args != "" {
		p.env = []string{"CAP_ARGS=" + args}
	}
	return p
}

// networks counts them: cnitool keeps what it did by their names.
var networks = func() func() int {
	n := 0
	return func() int { n++; return n }
}()

func (p cniPod) do(r *rig, verb string) (string, error) {
	return p.net.Do(r.T.Context(), verb, p.Netns(), "LogicalPort="+p.Name, p.env...)
}

// in is the rig in a subtest.
func (r *deviceRig) in(t *testing.T) *deviceRig {
	in := *r
	in.rig = &rig{r.In(t), r.node, r.ports}
	return &in
}

// settled waits until nothing is being done to a function.
func (r *deviceRig) settled() {
	r.T.Helper()
	r.Eventually(30*time.Second, "functions to which nothing is being done", func() bool {
		return !slices.ContainsFunc(strings.Fields(r.show(kindVF)+" "+r.show(kindSF)), func(s string) bool { return s != "FREE" && s != "USED" })
	})
}

// settings are what is set of each of the NIC's functions, as tools show it.
func (r *deviceRig) settings() map[string]string {
	r.T.Helper()
	r.settled()
	all := map[string]string{}
	for _, command := range []string{"ip -d link show " + nic.Uplink(), "devlink port show", "devlink port function rate show"} {
		about := ""
		for line := range strings.Lines(r.shows(command)) {
			words := strings.Fields(line)
			switch { // of a VF, of a port, or more of that port
			case words[0] == "vf":
				about = command + ": " + strings.Join(words[:2], " ")
			case line[0] != ' ' && line[0] != '\t':
				about = command + ": " + words[0]
			}
			all[about] += line
		}
	}
	for dev, d := range home(r.T.(*testing.T)) {
		all[dev] = fmt.Sprint(d)
	}
	return all
}

// wantSettings fails the test unless all is set as it was. There may be more functions than then.
func (r *deviceRig) wantSettings(before map[string]string) {
	r.T.Helper()
	after := r.settings()
	for _, about := range slices.Sorted(maps.Keys(before)) {
		if after[about] != before[about] {
			r.T.Errorf("%s: %q, was %q", about, after[about], before[about])
		}
	}
}

func (r *rig) shows(command string) string {
	r.T.Helper()
	out, err := r.node.Exec(r.T.Context(), strings.Fields(command)...)
	r.Check(err)
	return out
}

// only tells which function the only port has.
func (r *rig) only() (representor, port string, number uint32) {
	r.T.Helper()
	list, err := r.ports.ListPorts(r.T.Context(), &offloadv1.ListPortsRequest{})
	r.Check(err)
	p := list.GetPorts()
	if len(p) != 1 || p[0].GetStatus().GetFunction() == nil {
		r.T.Fatalf("ports: %v, want one of a function", p)
	}
	f := p[0].GetStatus().GetFunction()
	return p[0].GetStatus().GetHostInterface(), f.GetDevlinkPort(), f.GetNumber()
}

// Each attribute is what it should be while a pod has it, as the kernel's own tools show it, and afterwards what it was. CHECK tells if
// somebody changes it.
func TestAttributes(t *testing.T) {
	faulty(t)
	r := newDeviceRig(t)
	r.Check(nic.Set(simnic.VFConfig, 1))
	defer func() { r.Check(nic.Set(simnic.VFConfig, 0)) }()
	for _, a := range attributes {
		t.Run(a.name, func(t *testing.T) {
			r := r.in(t)
			before := r.settings()
			p := r.attachment(r.pods(1)[0], a.kind, a.conf, a.args)
			out, err := p.do(r.rig, "add")
			r.Check(err)
			if !strings.Contains(out, p.MAC) {
				t.Errorf("ADD: %s, want the MAC address %s", out, p.MAC)
			}
			representor, port, number := r.only()
			concrete := strings.NewReplacer("UPLINK", nic.Uplink(), "PORT", port, "REPRESENTOR", representor, "NUMBER", fmt.Sprint(number)).Replace
			shown := r.shows(concrete(a.command))
			for _, want := range a.want {
				if !strings.Contains(shown, concrete(want)) {
					t.Errorf("%s does not show %q:\n%s", concrete(a.command), concrete(want), shown)
				}
			}
			if out, err := p.do(r.rig, "check"); err != nil {
				t.Errorf("CHECK: %v\n%s", err, out)
			}
			if a.spoil != "" {
				r.shows(concrete(a.spoil))
				if out, err := p.do(r.rig, "check"); err == nil || !strings.Contains(err.Error()+out, a.says) {
					t.Errorf("CHECK after %s: %v\n%s\nwant it to say %q", concrete(a.spoil), err, out, a.says)
				}
			}
			_, err = p.do(r.rig, "del")
			r.Check(err)
			r.wantSettings(before)
			r.wantClean()
		})
	}
}

// What the NIC does not do is refused, the error says which attribute it is, and nothing is left of the pod.
func TestAttributesRefused(t *testing.T) {
	faulty(t)
	r := newDeviceRig(t)
	for _, tt := range []struct{ name, kind, conf, args, says string }{
		{"VLAN", "vf", `"vlan":7`, "", "vlan"},
		{"QinQ", "vf", `"vlan":7,"vlanProto":"802.1ad"`, "", "vlan"},
		{"trust", "vf", `"trust":"on"`, "", "trust"},
		{"spoof check", "vf", `"spoofchk":"on"`, "", "spoof_check"},
		{"VLAN of an SF", "sf", `"vlan":7`, "", "vlan"},
		{"trust of an SF", "sf", `"trust":"on"`, "", "trust"},
		{"spoof check of an SF", "sf", `"spoofchk":"off"`, "", "spoof_check"},
		{"GUID of InfiniBand", "vf", "", `{"infinibandGUID":"02:00:00:00:00:00:00:01"}`, "infiniband_guid"},
		{"GUID of an SF", "sf", "", `{"infinibandGUID":"02:00:00:00:00:00:00:01"}`, "infiniband_guid"},
		{"RDMA of a VF that has none", "vf", `"rdma":true`, "", "rdma"},
		{"RDMA of an SF that has none", "sf", `"rdma":true`, "", "rdma"},
		{"link state of an SF", "sf", `"link_state":"enable"`, "", "link_state"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := r.in(t)
			before := r.settings()
			p := r.attachment(r.pods(1)[0], tt.kind, tt.conf, tt.args)
			out, err := p.do(r.rig, "add")
			if text := fmt.Sprint(err) + out; err == nil || !strings.Contains(text, string(reason.FeatureUnsupported)) || !strings.Contains(text, tt.says) {
				t.Errorf("ADD: %v\n%s\nwant %s that says %q", err, out, reason.FeatureUnsupported, tt.says)
			}
			r.wantSettings(before)
			if links := r.shows("ip -n " + p.Netns() + " -br link"); strings.Contains(links, "eth0") {
				t.Errorf("links of the pod: %s", links)
			}
			r.wantClean()
			_, err = p.do(r.rig, "del")
			r.Check(err)
		})
	}
}

// What would be refused is refused for the same reason if it is only asked about, and nothing changes then.
func TestValidateOnly(t *testing.T) {
	r := newDeviceRig(t)
	pods := r.pods(1, 2)
	held := spec(pods[1], vf)
	held.Pool, held.Device = "", nic.VFDevice(2)
	r.mustCreate(held)
	for _, tt := range []struct {
		name string
		set  func(*offloadv1.PortSpec)
		want reason.Reason // "": it can be done
	}{
		{"VF", func(*offloadv1.PortSpec) {}, ""},
		{"SF with rates", func(s *offloadv1.PortSpec) {
			s.Kind, s.Pool, s.Attributes = sf, "sfs", &offloadv1.FunctionAttributes{MaxRate: 8e6}
		}, ""},
		{"no such pool", func(s *offloadv1.PortSpec) { s.Pool = "none" }, reason.PoolNotFound},
		{"no such pool, and a veth is allowed", func(s *offloadv1.PortSpec) {
			s.Pool, s.Fallback = "none", []offloadv1.PortKind{veth}
		}, reason.PoolNotFound},
		{"pool of another kind", func(s *offloadv1.PortSpec) { s.Pool = "sfs" }, reason.PoolNotFound},
		{"no such device", func(s *offloadv1.PortSpec) { s.Device = "0000:ff:1f.7" }, reason.DeviceNotFound},
		{"device of another", func(s *offloadv1.PortSpec) { s.Device = held.GetDevice() }, reason.DeviceBusy},
		{"VLAN of an SF", func(s *offloadv1.PortSpec) {
			s.Kind, s.Pool, s.Attributes = sf, "sfs", &offloadv1.FunctionAttributes{Vlan: 7}
		}, reason.FeatureUnsupported},
		{"rate that is no whole number of bytes", func(s *offloadv1.PortSpec) { s.Attributes = &offloadv1.FunctionAttributes{MaxRate: 1001} }, reason.InvalidField},
		{"interface that is there", func(s *offloadv1.PortSpec) { s.Key.Ifname = "lo" }, reason.IfnameInUse},
		{"logical port of another", func(s *offloadv1.PortSpec) { s.LogicalPort = held.GetLogicalPort() }, reason.LPortInUse},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := r.in(t)
			s := spec(pods[0], vf)
			tt.set(s)
			used := r.show(kindVF) + r.show(kindSF)
			ctx, cancel := context.WithTimeout(t.Context(), patience())
			defer cancel()
			resp, err := r.ports.CreatePort(ctx, &offloadv1.CreatePortRequest{Spec: s, ValidateOnly: true})
			if got := reason.Of(client.Error(err)); err != nil && got != tt.want || err == nil && (tt.want != "" || resp.GetPort().GetStatus() != nil) {
				t.Errorf("validate_only: %v, %v, want reason %q", resp, err, tt.want)
			}
			if now := r.show(kindVF) + r.show(kindSF); now != used {
				t.Errorf("functions after validate_only: %s, before: %s", now, used)
			}
			r.wantClean(pods[1].Name)
			_, err = r.create(s)
			if got := reason.Of(err); err != nil && got != tt.want || err == nil && tt.want != "" {
				t.Errorf("the call itself: %v, want reason %q", err, tt.want)
			}
			r.mustDelete(s.GetKey())
			r.settled()
		})
	}
	r.mustDelete(held.GetKey())
	r.wantClean()
}
