package device

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/devlink"
)

// What belongs together is found in whatever order it is told, and told again, and after what was told before.
func TestWorldOrder(t *testing.T) {
	pf := devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}
	nested := devlink.Handle{Bus: "auxiliary", Dev: "mlx5_core.sf.9"}
	told := devlink.Handle{Bus: "auxiliary", Dev: "mlx5_core.sf.4"}
	vf := devlink.Handle{Bus: "pci", Dev: "0000:03:00.2"}
	function := func(index uint32, ifindex int, f devlink.Flavour, n uint32, device *devlink.Nested) *devlink.Port {
		return &devlink.Port{
			PortHandle: pf.Port(index), Ifindex: ifindex, Flavour: f, VF: uint16(n), SF: n,
			Function: &devlink.Function{HWAddr: []byte{2, 0, 0, 0, 0, byte(n)}, Device: device},
		}
	}
	here := func(index int, name string, parent devlink.Handle) link {
		return link{Link: Link{name, index}, parent: parent}
	}
	steps := []func(*world){
		func(w *world) {
			w.nics[pf] = &nic{Handle: pf, mode: devlink.ModeSwitchdev, known: true, sysfs: sysfsNIC{
				numa: 1, vfs: 1, total: 8, virtfns: map[uint32]devlink.Handle{0: vf}, numbers: map[devlink.Handle]uint32{vf: 0},
			}}
		},
		func(w *world) {
			w.setPort(&devlink.Port{PortHandle: pf.Port(0xffff), Ifindex: 5, Flavour: devlink.FlavourPhysical})
		},
		func(w *world) { w.setPort(function(1, 10, devlink.FlavourPCIVF, 0, nil)) },
		func(w *world) { w.setPort(function(32768, 11, devlink.FlavourPCISF, 88, nil)) },
		func(w *world) {
			w.setPort(function(32769, 12, devlink.FlavourPCISF, 89, &devlink.Nested{Handle: nested}))
		},
		func(w *world) { w.setAuxiliary(told, sfOf{pf.Dev, 88}) },
		func(w *world) { w.setLink(here(5, "ens1f0", pf)) },
		func(w *world) { w.setLink(here(10, "ens1f0_0", pf)) },
		func(w *world) { w.setLink(here(11, "en3f0pf0sf88", pf)) },
		func(w *world) { w.setLink(here(12, "en3f0pf0sf89", pf)) },
		func(w *world) { w.setLink(here(20, "ens1f0v0", vf)) },
		func(w *world) { w.setLink(here(21, "enp3s0f0s88", told)) },
		func(w *world) { w.setLink(here(22, "enp3s0f0s89", nested)) },
	}
	past := []func(*world){
		func(w *world) { w.setPort(function(1, 13, devlink.FlavourPCIVF, 0, nil)) },
		func(w *world) { w.delPort(pf.Port(32768)) },
		func(w *world) { w.setPort(function(32768, 14, devlink.FlavourPCISF, 87, nil)) },
		func(w *world) { w.setAuxiliary(told, sfOf{pf.Dev, 87}) },
		func(w *world) { w.setLink(here(20, "eth0", told)) },
		func(w *world) { w.delLink(21) },
	}
	want := []facts{
		{Function: Function{
			Handle: pf.Port(32768), Kind: SF, Number: 88, Bus: told.Bus, Device: told.Dev, NUMA: 1,
			Representor: Link{"en3f0pf0sf88", 11}, Netdev: Link{"enp3s0f0s88", 21},
		}, hwAddr: &MAC{2, 0, 0, 0, 0, 88}},
		{Function: Function{
			Handle: pf.Port(32769), Kind: SF, Number: 89, Bus: nested.Bus, Device: nested.Dev, NUMA: 1,
			Representor: Link{"en3f0pf0sf89", 12}, Netdev: Link{"enp3s0f0s89", 22},
		}, hwAddr: &MAC{2, 0, 0, 0, 0, 89}},
		{Function: Function{
			Handle: pf.Port(1), Kind: VF, Number: 0, Bus: vf.Bus, Device: vf.Dev, NUMA: 1,
			Representor: Link{"ens1f0_0", 10}, Netdev: Link{"ens1f0v0", 20},
		}, hwAddr: &MAC{2, 0, 0, 0, 0, 0}},
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		w := newWorld()
		for range rnd.IntN(8) {
			past[rnd.IntN(len(past))](w)
		}
		for _, i := range rnd.Perm(len(steps)) {
			steps[i](w)
		}
		var got []facts
		for _, k := range w.functionsOf(pf) {
			f, ok := w.function(k)
			if !ok {
				t.Fatalf("seed %d: no function %s", seed, k.name())
			}
			got = append(got, f)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(facts{})); d != "" {
			t.Fatalf("seed %d: functions (-want +got):\n%s", seed, d)
		}
		// And from what is told of a link its function is found.
		for i, l := range []int{21, 22, 20} {
			if keys := w.about(w.links[l]); len(keys) != 1 || keys[0] != want[i].key() {
				t.Fatalf("seed %d: about(%v) = %v, want %s", seed, w.links[l].Link, keys, want[i].key().name())
			}
			if keys := w.about(w.links[want[i].Representor.Index]); len(keys) != 1 || keys[0] != want[i].key() {
				t.Fatalf("seed %d: about(%v) = %v, want %s", seed, want[i].Representor, keys, want[i].key().name())
			}
		}
		if w.find("ens1f0") != pf || w.find(pf.String()) != pf || w.find("ens1f0v0") != (devlink.Handle{}) {
			t.Fatalf("seed %d: find does not find", seed)
		}
		w.forget(pf)
		if n := len(w.ports) + len(w.byKey) + len(w.byIndex) + len(w.byNested) + len(w.byNumber); n != 0 {
			t.Fatalf("seed %d: %d things are left of a device that is forgotten", seed, n)
		}
	}
}

// Whatever comes from a socket, nothing panics, and what is read can be asked for again.
func FuzzLink(f *testing.F) {
	f.Add(setVFVLAN(Link{"ens1f0", 5}, 3, VLAN{ID: 5, QoS: 2, Protocol: etherQinQ}).encode())
	f.Add(setMAC(Link{"ens1f0", 5}, MAC{2, 0, 0, 0, 0, 1}).with(iflaIfname, []byte("ens1f0\x00")).encode())
	f.Add(setVFRate(Link{"ens1f0", 5}, 3, Rate{Min: megabit, Max: 2 * megabit}).encode())
	f.Add(delAltNames(Link{"ens1f0", 5}, []string{"a", "b"}).encode())
	f.Add(setNoXDP(Link{"ens1f0", 5}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLink(b)
		if err != nil {
			return
		}
		again, err := decodeLink(setMTU(setMAC(l.Link, l.mac).linkOf(), l.mtu).with(iflaAddress, l.mac[:]).encode())
		if err != nil || again.Index != l.Index || again.mac != l.mac || again.mtu != l.mtu {
			t.Errorf("%+v is read back as %+v, %v", l, again, err)
		}
	})
}

// linkOf is the link that a request is about.
func (r linkRequest) linkOf() Link { return Link{Index: r.index} }

// Requests of all kinds are read back as what they ask for.
func TestVFRequests(t *testing.T) {
	pf := Link{"ens1f0", 5}
	for _, tt := range []struct {
		r    linkRequest
		text string
		want VFConfig
	}{
		{setVFVLAN(pf, 3, VLAN{ID: 5, QoS: 2}), "link set ens1f0 vf 3 vlan 5 qos 2", VFConfig{VLAN: &VLAN{ID: 5, QoS: 2}}},
		{setVFVLAN(pf, 3, VLAN{ID: 5, Protocol: etherQinQ}), "link set ens1f0 vf 3 vlan 5 qos 0 proto 0x88a8", VFConfig{VLAN: &VLAN{ID: 5, Protocol: etherQinQ}}},
		{setVFSwitch(pf, 3, iflaVFTrust, "trust", true), "link set ens1f0 vf 3 trust on", VFConfig{Trust: new(true)}},
		{setVFSwitch(pf, 3, iflaVFSpoofChk, "spoofchk", false), "link set ens1f0 vf 3 spoofchk off", VFConfig{SpoofCheck: new(false)}},
		{setVFLinkState(pf, 3, LinkDisable), "link set ens1f0 vf 3 state disable", VFConfig{LinkState: LinkDisable}},
		{setVFRate(pf, 3, Rate{Min: megabit, Max: 5 * megabit}), "link set ens1f0 vf 3 min_tx_rate 1 max_tx_rate 5", VFConfig{Rate: &Rate{Min: megabit, Max: 5 * megabit}}},
	} {
		// A driver tells of a VF with its address first.
		mac := setVFMAC(pf, 3, MAC{2, 0, 0, 0, 0, 3})
		tt.want.MAC = &MAC{2, 0, 0, 0, 0, 3}
		var both []byte
		for _, r := range []linkRequest{mac, tt.r} {
			walk(r.attrs, func(_ uint16, list []byte) {
				walk(list, func(_ uint16, info []byte) { both = append(both, info...) })
			})
		}
		n, got, ok := decodeVF(both)
		if d := cmp.Diff(tt.want, got); !ok || n != 3 || d != "" || tt.r.text != tt.text {
			t.Errorf("%s is read back as VF %d, %t (-want +got):\n%s", tt.r.text, n, ok, d)
		}
	}
	if s := fmt.Sprint(VLAN{ID: 5}, Rate{Max: 8}); s != "vlan 5 qos 0 proto 0x8100 tx_share 0bit tx_max 8bit" {
		t.Errorf("%s", s)
	}
}

// A list of ports does not undo what has happened since it was asked for.
func TestWorldMerged(t *testing.T) {
	h := devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}
	port := func(index uint32, ifindex int) *devlink.Port {
		return &devlink.Port{PortHandle: h.Port(index), Ifindex: ifindex, Flavour: devlink.FlavourPCIVF, VF: uint16(index)}
	}
	w := newWorld()
	for _, p := range []*devlink.Port{port(1, 0), port(2, 12), port(4, 14)} {
		w.setPort(p)
	}
	list := []*devlink.Port{port(1, 0), port(2, 12), port(3, 13)} // port 4 has gone, of which an event will tell
	touched := map[devlink.PortHandle]bool{}
	for _, p := range []*devlink.Port{port(1, 11), port(5, 15)} {
		w.setPort(p)
		touched[p.PortHandle] = true
	}
	w.delPort(h.Port(2))
	touched[h.Port(2)] = true
	w.setPorts(h, w.merged(list, touched))
	got := map[uint32]int{}
	for _, p := range w.portsOf(h) {
		got[p.Index] = p.Ifindex
	}
	if d := cmp.Diff(map[uint32]int{1: 11, 3: 13, 5: 15}, got); d != "" {
		t.Errorf("ports and indices of their netdevs (-want +got):\n%s", d)
	}
}
