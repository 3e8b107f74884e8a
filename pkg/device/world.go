package device

import (
	"cmp"
	"maps"
	"slices"

	"github.com/offloadd/offloadd/pkg/devlink"
)

// A world is what the kernel has told: devices, ports and links, each by itself. What belongs together is found out when it is asked
// for, so that nothing depends on the order in which things are told.
type world struct {
	nics  map[devlink.Handle]*nic
	ports map[devlink.PortHandle]*devlink.Port
	links map[int]link

	auxiliary map[devlink.Handle]sfOf // devices of SFs, and the other way round
	devices   map[sfOf]devlink.Handle

	byKey    map[key]devlink.PortHandle
	byNumber map[key]key                     // without the PF, which sysfs does not tell
	byIndex  map[int]key                     // of the representor
	byNested map[devlink.Handle]key          // of the function's own device
	byParent map[devlink.Handle]map[int]bool // indices of links
}

// A nic is a device with an embedded switch.
type nic struct {
	devlink.Handle
	mode    devlink.EswitchMode
	sysfs   sysfsNIC
	known   bool  // it has been read
	failure error // why it could not be read
}

// A sysfsNIC is what sysfs says of a device.
type sysfsNIC struct {
	numa       int // -1: none
	vfs, total int
	virtfns    map[uint32]devlink.Handle // by the number of the VF, and the other way round
	numbers    map[devlink.Handle]uint32
}

// An sfOf says which SF a device is: parent is the device that has it, by its name, which no two buses share in practice.
type sfOf struct {
	parent string
	number uint32
}

func newWorld() *world {
	return &world{
		nics: map[devlink.Handle]*nic{}, ports: map[devlink.PortHandle]*devlink.Port{}, links: map[int]link{}, auxiliary: map[devlink.Handle]sfOf{},
		devices: map[sfOf]devlink.Handle{}, byKey: map[key]devlink.PortHandle{}, byNumber: map[key]key{}, byIndex: map[int]key{},
		byNested: map[devlink.Handle]key{}, byParent: map[devlink.Handle]map[int]bool{},
	}
}

// keyOf is the function that a port leads to; false if it leads to none of this host's.
func keyOf(p *devlink.Port) (key, bool) {
	if p.Controller != 0 || p.External {
		return key{}, false
	}
	switch p.Flavour { //nolint:exhaustive // others lead to no function that could be given to somebody
	case devlink.FlavourPCIVF:
		return key{p.Handle, VF, p.PF, uint32(p.VF)}, true
	case devlink.FlavourPCISF:
		return key{p.Handle, SF, p.PF, p.SF}, true
	}
	return key{}, false
}

// setPort notes a port that is new or has changed.
func (w *world) setPort(p *devlink.Port) {
	if old := w.ports[p.PortHandle]; old != nil {
		w.delPort(p.PortHandle)
	}
	w.ports[p.PortHandle] = p
	if k, ok := keyOf(p); ok {
		w.byKey[k], w.byNumber[k.anyPF()] = p.PortHandle, k
		if p.Ifindex != 0 {
			w.byIndex[p.Ifindex] = k
		}
		if h := nested(p); h != (devlink.Handle{}) {
			w.byNested[h] = k
		}
	}
}

// anyPF is a key by which a function is found whose PF is not known.
func (k key) anyPF() key {
	k.PF = 0
	return k
}

// nested is the device of the function behind a port, if the kernel tells.
func nested(p *devlink.Port) devlink.Handle {
	if p.Function == nil || p.Function.Device == nil {
		return devlink.Handle{}
	}
	return p.Function.Device.Handle
}

func (w *world) delPort(h devlink.PortHandle) {
	p := w.ports[h]
	if p == nil {
		return
	}
	delete(w.ports, h)
	k, ok := keyOf(p)
	if !ok || w.byKey[k] != h {
		return
	}
	delete(w.byKey, k)
	delete(w.byNumber, k.anyPF())
	if w.byIndex[p.Ifindex] == k {
		delete(w.byIndex, p.Ifindex)
	}
	if d := nested(p); w.byNested[d] == k {
		delete(w.byNested, d)
	}
}

// setAuxiliary notes that a device is that of an SF.
func (w *world) setAuxiliary(h devlink.Handle, sf sfOf) {
	// Names of devices are used again: the SF that had this one may have another by now.
	if old, ok := w.auxiliary[h]; ok && w.devices[old] == h {
		delete(w.devices, old)
	}
	w.auxiliary[h], w.devices[sf] = sf, h
}

// setPorts notes that these are all ports of a device.
func (w *world) setPorts(h devlink.Handle, all []*devlink.Port) {
	for _, p := range w.portsOf(h) {
		w.delPort(p.PortHandle)
	}
	for _, p := range all {
		w.setPort(p)
	}
}

// merged is a list of ports with what is known better of those that have changed since it was asked for.
func (w *world) merged(list []*devlink.Port, touched map[devlink.PortHandle]bool) []*devlink.Port {
	list = slices.DeleteFunc(slices.Clone(list), func(p *devlink.Port) bool { return touched[p.PortHandle] })
	for h := range touched {
		if p := w.ports[h]; p != nil {
			list = append(list, p)
		}
	}
	return list
}

func (w *world) portsOf(h devlink.Handle) []*devlink.Port {
	var all []*devlink.Port
	for _, p := range w.ports {
		if p.Handle == h {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *devlink.Port) int { return cmp.Compare(a.Index, b.Index) })
	return all
}

func (w *world) setLink(l link) {
	w.delLink(l.Index)
	w.links[l.Index] = l
	if l.parent != (devlink.Handle{}) {
		if w.byParent[l.parent] == nil {
			w.byParent[l.parent] = map[int]bool{}
		}
		w.byParent[l.parent][l.Index] = true
	}
}

func (w *world) delLink(index int) {
	l, ok := w.links[index]
	if !ok {
		return
	}
	delete(w.links, index)
	delete(w.byParent[l.parent], index)
	if len(w.byParent[l.parent]) == 0 {
		delete(w.byParent, l.parent)
	}
}

// setLinks notes that these are all links.
func (w *world) setLinks(all []link) {
	clear(w.links)
	clear(w.byParent)
	for _, l := range all {
		w.setLink(l)
	}
}

// forget drops a device, and what it has.
func (w *world) forget(h devlink.Handle) {
	w.setPorts(h, nil)
	delete(w.nics, h)
}

// Facts are what is known of a function that there is.
type facts struct {
	Function
	plugged bool // the representor is in a bridge
	hwAddr  *MAC // nil: the driver does not say
	unborn  bool // an SF that nobody has activated
}

// function puts together what is known of a function.
func (w *world) function(k key) (facts, bool) {
	h, ok := w.byKey[k]
	nic := w.nics[k.Device]
	if !ok || nic == nil {
		return facts{}, false
	}
	p := w.ports[h]
	f := facts{Function: Function{Handle: h, Kind: k.Kind, PF: k.PF, Number: k.Number, NUMA: nic.sysfs.numa}, hwAddr: hwAddrOf(p)}
	f.unborn = k.Kind == SF && p.Function != nil && p.Function.State == devlink.Inactive
	f.Representor, f.plugged = w.links[p.Ifindex].Link, w.links[p.Ifindex].master != 0
	device := w.deviceOf(k, p)
	f.Bus, f.Device = device.Bus, device.Dev
	if device != (devlink.Handle{}) {
		for _, index := range slices.Sorted(maps.Keys(w.byParent[device])) {
			if index != p.Ifindex {
				f.Netdev = w.links[index].Link
				break
			}
		}
	}
	return f, true
}

// hwAddrOf is the address of the function behind a port; nil if the driver does not say.
func hwAddrOf(p *devlink.Port) *MAC {
	if p.Function == nil || len(p.Function.HWAddr) != len(MAC{}) {
		return nil
	}
	return new(MAC(p.Function.HWAddr))
}

// deviceOf is what sysfs calls a function.
func (w *world) deviceOf(k key, p *devlink.Port) devlink.Handle {
	if k.Kind == VF {
		return w.nics[k.Device].sysfs.virtfns[k.Number]
	}
	if h := nested(p); h != (devlink.Handle{}) {
		return h
	}
	return w.devices[sfOf{k.Device.Dev, k.Number}]
}

// functionAt is the function that a device is.
func (w *world) functionAt(h devlink.Handle) (key, bool) {
	if k, ok := w.byNested[h]; ok {
		return k, true
	}
	sf, isSF := w.auxiliary[h]
	for of, nic := range w.nics {
		n, isVF := nic.sysfs.numbers[h]
		switch {
		case isSF && of.Dev == sf.parent:
			k, ok := w.byNumber[key{Device: of, Kind: SF, Number: sf.number}]
			return k, ok
		case isVF:
			k, ok := w.byNumber[key{Device: of, Kind: VF, Number: n}]
			return k, ok
		}
	}
	return key{}, false
}

// functionsOf are those of a device.
func (w *world) functionsOf(h devlink.Handle) []key {
	var all []key
	for k := range w.byKey {
		if k.Device == h {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, compareKeys)
	return all
}

// about is what a link has to do with functions: that of its representor, or that whose device it is.
func (w *world) about(l link) []key {
	var all []key
	if k, ok := w.byIndex[l.Index]; ok {
		all = append(all, k)
	}
	if k, ok := w.functionAt(l.parent); ok && l.parent != (devlink.Handle{}) {
		all = append(all, k)
	}
	return all
}

// uplink is the netdev of a device's PF: that of its first physical port.
func (w *world) uplink(h devlink.Handle) Link {
	for _, p := range w.portsOf(h) {
		if p.Flavour == devlink.FlavourPhysical && p.Ifindex != 0 {
			return w.links[p.Ifindex].Link
		}
	}
	return Link{}
}

// find resolves the device of a pool: a handle, or the name of a PF's netdev.
func (w *world) find(device string) devlink.Handle {
	if h, err := devlink.ParseHandle(device); err == nil {
		if w.nics[h] == nil {
			return devlink.Handle{}
		}
		return h
	}
	for h := range w.nics {
		if w.uplink(h).Name == device {
			return h
		}
	}
	return devlink.Handle{}
}
