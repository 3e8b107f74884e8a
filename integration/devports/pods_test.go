package devports

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// Pods on a VF, an SF and a veth, by cnitool: each has its name, MAC address and MTU inside and reaches the others; what it is made of is
// told; and afterwards the functions are as they were.
func TestPodsByCNI(t *testing.T) {
	r := newRig(t)
	path, err := binary("CNIBIN")
	r.Check(err)
	before := home(t)
	_, eth0 := os.Stat("/sys/class/net/eth0")
	kinds := []string{"vf", "sf", "veth"}
	pods := r.pods(1, 2, 3)
	var nets []*attach.Network
	for i, kind := range kinds {
		conf := fmt.Sprintf(`{"type":"offload-cni","kind":%q,"mtu":1400,"routes":[{"dst":"10.0.1.0/24"}]}`, kind)
		net, err := attach.NewNetwork(r.node, path, kind, conf)
		r.Check(err)
		nets = append(nets, net)
		out, err := net.Do(t.Context(), "add", pods[i].Netns(), "LogicalPort="+pods[i].Name)
		r.Check(err)
		t.Logf("%s: %s", kind, out)
		if has := strings.Contains(out, `"pciID"`); has != (kind != "veth") {
			t.Errorf("%s: pciID in the result: %v", kind, has)
		}
	}
	list, err := r.ports.ListPorts(t.Context(), &offloadv1.ListPortsRequest{})
	r.Check(err)
	for _, p := range list.GetPorts() {
		st := p.GetStatus()
		kind := strings.ToLower(strings.TrimPrefix(st.GetKind().String(), "PORT_KIND_"))
		if !strings.HasSuffix(p.GetSpec().GetKey().GetNetwork(), "-"+kind) || st.GetState() != offloadv1.PortState_PORT_STATE_READY {
			t.Errorf("%v is %s, %v", p.GetSpec().GetKey(), kind, st.GetState())
		}
		switch f := st.GetFunction(); {
		case kind == "veth":
			if f != nil {
				t.Errorf("veth: function %v", f)
			}
		case !strings.HasPrefix(switchPort(t, st.GetHostInterface()), "pf0"+kind) || f.GetDevice() == "" || f.GetPool() != kind+"s" || f.GetGeneration() == 0:
			t.Errorf("%s: host interface %s, function %v", kind, st.GetHostInterface(), f)
		default:
			if d, here := home(t)[f.GetDevice()]; here {
				t.Errorf("%s: the netdev is at home as %v", kind, d)
			}
		}
	}
	for i, p := range pods {
		out, err := p.Exec(t.Context(), "ip", "-o", "link", "show", "eth0")
		r.Check(err)
		for _, want := range []string{p.MAC, "mtu 1400", "UP"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is not in %s", kinds[i], want, out)
			}
		}
		for _, o := range pods {
			if o != p {
				r.wantPing(p, o)
			}
		}
		if out, err := nets[i].Do(t.Context(), "check", p.Netns(), "LogicalPort="+p.Name); err != nil {
			t.Errorf("CHECK %s: %v\n%s", kinds[i], err, out)
		}
	}
	r.wantClean("q1", "q2", "q3")
	for i, p := range pods {
		_, err := nets[i].Do(t.Context(), "del", p.Netns(), "LogicalPort="+p.Name)
		r.Check(err)
		_, err = nets[i].Do(t.Context(), "del", p.Netns(), "LogicalPort="+p.Name) // again
		r.Check(err)
	}
	r.wantClean()
	r.wantRestored(before)
	if _, err := os.Stat("/sys/class/net/eth0"); errors.Is(err, os.ErrNotExist) != errors.Is(eth0, os.ErrNotExist) {
		t.Errorf("is there an eth0 on the host? %v, before %v", err, eth0)
	}
}

// switchPort is what a NIC calls a port of its switch: pf0vf3.
func switchPort(t *testing.T, representor string) string {
	t.Helper()
	name, err := os.ReadFile(filepath.Join("/sys/class/net", representor, "phys_port_name"))
	if err != nil {
		t.Error(err)
	}
	return string(name)
}

// wantRestored fails the test unless the functions that there were are there again, as they were.
func (r *rig) wantRestored(before map[string]netdev) {
	r.T.Helper()
	now := home(r.T.(*testing.T))
	for dev, was := range before {
		if now[dev] != was && nic.IsVF(dev) {
			r.T.Errorf("the netdev of %s is %+v, was %+v", dev, now[dev], was)
		}
	}
	for dev, is := range now {
		if strings.HasPrefix(is.mac, "50:54:") || is.name == "eth0" {
			r.T.Errorf("the netdev of %s is %+v", dev, is)
		}
	}
}

// A container that exists with the interface's name in use gets nothing, and the function stays where it was.
func TestNameInUse(t *testing.T) {
	r := newRig(t)
	before := home(t)
	p := r.pods(1)[0]
	for _, kind := range []offloadv1.PortKind{vf, sf} {
		s := spec(p, kind)
		s.Key.Ifname = "lo"
		_, err := r.create(s)
		r.wantReason(err, reason.IfnameInUse)
	}
	r.wantClean()
	r.wantRestored(before)
}

// What is not to be had becomes something else only if that was said, and then it says so.
func TestFallback(t *testing.T) {
	r := newRig(t)
	before := home(t)
	pods := r.pods(1, 2, 3, 4, 5, 6, 7)
	for i, p := range pods[:vfs] {
		s := spec(p, vf)
		s.Fallback = []offloadv1.PortKind{sf, veth}
		s.Pool = ""
		if st := r.mustCreate(s).GetStatus(); st.GetKind() != vf || st.GetFellBack() != "" {
			t.Errorf("port %d: %v", i, st)
		}
	}
	_, err := r.create(spec(pods[4], vf))
	r.wantReason(err, reason.PoolExhausted)
	nowhere := spec(pods[4], vf)
	nowhere.Pool, nowhere.Fallback = "none", []offloadv1.PortKind{veth}
	_, err = r.create(nowhere)
	r.wantReason(err, reason.PoolNotFound)
	for i, tt := range []struct {
		kind     offloadv1.PortKind
		pool     string
		fallback []offloadv1.PortKind
		want     offloadv1.PortKind
	}{
		{vf, "vfs", []offloadv1.PortKind{veth}, veth},
		{auto, "", []offloadv1.PortKind{vf, sf}, sf},
		{auto, "", nil, sf},
	} {
		s := spec(pods[4+i], tt.kind)
		s.Pool, s.Fallback = tt.pool, tt.fallback
		st := r.mustCreate(s).GetStatus()
		if st.GetKind() != tt.want || st.GetFellBack() == "" {
			t.Errorf("%v %v: %v, because %q", tt.kind, tt.fallback, st.GetKind(), st.GetFellBack())
		}
		r.wantPing(pods[4+i], pods[0])
	}
	for _, p := range pods {
		r.mustDelete(spec(p, vf).GetKey())
	}
	r.wantClean()
	r.wantRestored(before)
}

// The function that kubelet has allocated is the one that the container gets, and nobody else does.
func TestParticularDevice(t *testing.T) {
	r := newRig(t)
	pods := r.pods(1, 2)
	s := spec(pods[0], auto)
	s.Pool, s.Device = "", nic.VFDevice(2)
	st := r.mustCreate(s).GetStatus()
	if st.GetKind() != vf || st.GetHostInterface() != nic.VFRepresentor(2) {
		t.Errorf("%v on %s", st.GetKind(), st.GetHostInterface())
	}
	other := spec(pods[1], vf)
	other.Device = s.GetDevice()
	_, err := r.create(other)
	r.wantReason(err, reason.DeviceBusy)
	r.mustDelete(s.GetKey())
	r.mustCreate(other)
	r.mustDelete(s.GetKey()) // a late repetition
	if st := r.status(other.GetKey()); st.GetState() != offloadv1.PortState_PORT_STATE_READY {
		t.Errorf("after a late DEL of its function's last user: %v", st)
	}
	r.mustDelete(other.GetKey())
	r.wantClean()
}
