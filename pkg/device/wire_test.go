package device_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/devlink/devlinktest"
	"github.com/offloadd/offloadd/pkg/reason"
)

var ne = binary.NativeEndian

// A card is NICs at the wire: a kernel's devlink, its rtnetlink as far as it is about links, and a directory as sysfs.
type card struct {
	*testing.T
	devlink *devlinktest.Kernel
	dir     string

	mu       sync.Mutex // guards what follows
	links    map[int]*netdev
	sockets  map[*routeSocket]bool // those that are told of links
	vfMasks  int                   // requests that let a driver be asked for VFs
	forgets  bool                  // a VF's trust is taken, but not kept
	stubborn bool                  // a VF's VLAN cannot be changed any more
}

// A netdev has a name, an address and so on, and that of a PF what is set of VFs.
type netdev struct {
	index  int
	name   string
	mac    [6]byte
	mtu    uint32
	flags  uint32
	master uint32
	parent devlink.Handle
	vfs    map[uint32]*vfAttributes
}

type vfAttributes struct {
	vlan, qos       uint32
	trust, spoof    uint32
	state, min, max uint32
	protocol        uint16
	guids           *[2]uint64 // of the node and of the port; nil: it is not of InfiniBand
}

func newCard(t *testing.T) *card {
	return &card{T: t, devlink: devlinktest.NewKernel(t), dir: t.TempDir(), links: map[int]*netdev{}, sockets: map[*routeSocket]bool{}}
}

func (c *card) write(path, text string) {
	c.Helper()
	path = filepath.Join(c.dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text+"\n"), 0o644)); err != nil {
		c.Fatal(err)
	}
}

// nic adds a NIC in switchdev mode with VFs, of which everything is there. Indices count from base.
func (c *card) nic(name string, base int, vfs int) devlink.Handle {
	c.Helper()
	h := devlink.Handle{Bus: "pci", Dev: name}
	dir := "bus/pci/devices/" + name
	c.write(dir+"/numa_node", "1")
	c.write(dir+"/sriov_totalvfs", "16")
	c.write(dir+"/sriov_numvfs", fmt.Sprint(vfs))
	c.devlink.Device(devlink.Info{Handle: h}, devlink.Eswitch{Mode: devlink.ModeSwitchdev})
	uplink := &netdev{index: base, name: fmt.Sprint("up", base), mtu: 1500, parent: h, vfs: map[uint32]*vfAttributes{}}
	c.link(uplink)
	c.devlink.Port(devlink.Port{PortHandle: h.Port(0xffff), Type: devlink.TypeEth, Ifindex: base, Netdev: uplink.name, Flavour: devlink.FlavourPhysical})
	for i := range vfs {
		vf := fmt.Sprintf("%s.vf%d", name, i)
		uplink.vfs[uint32(i)] = &vfAttributes{spoof: 1}
		if err := os.Symlink("../"+vf, filepath.Join(c.dir, dir, fmt.Sprint("virtfn", i))); err != nil {
			c.Fatal(err)
		}
		c.link(&netdev{index: base + 10 + i, name: fmt.Sprintf("rep%d-%d", base, i), mtu: 1500, parent: h})
		c.link(&netdev{index: base + 20 + i, name: fmt.Sprintf("vf%d-%d", base, i), mac: [6]byte{2, 1, 0, 0, byte(base), byte(i)}, mtu: 1500, parent: devlink.Handle{Bus: "pci", Dev: vf}})
		c.devlink.Port(devlink.Port{
			PortHandle: h.Port(uint32(i + 1)), Type: devlink.TypeEth, Ifindex: base + 10 + i, Netdev: fmt.Sprintf("rep%d-%d", base, i),
			Flavour: devlink.FlavourPCIVF, VF: uint16(i), Function: &devlink.Function{HWAddr: make([]byte, 6)},
		})
	}
	return h
}

// auxiliary makes the device of an SF.
func (c *card) auxiliary(h devlink.Handle, sfnum uint32) devlink.Handle {
	c.Helper()
	dev := fmt.Sprint("sf.", sfnum)
	c.write(fmt.Sprintf("bus/pci/devices/%s/%s/sfnum", h.Dev, dev), fmt.Sprint(sfnum))
	if err := errors.Join(os.MkdirAll(filepath.Join(c.dir, "bus/auxiliary/devices"), 0o755),
		os.Symlink(fmt.Sprintf("../../pci/devices/%s/%s", h.Dev, dev), filepath.Join(c.dir, "bus/auxiliary/devices", dev))); err != nil {
		c.Fatal(err)
	}
	return devlink.Handle{Bus: "auxiliary", Dev: dev}
}

// bind is what firmware and drivers do for an SF that is active: its device and its netdev appear.
func (c *card) bind(h devlink.Handle, sfnum uint32, index int) {
	c.Helper()
	dev := c.auxiliary(h, sfnum)
	for _, p := range c.devlink.Ports(h) {
		if p.Flavour == devlink.FlavourPCISF && p.SF == sfnum {
			c.link(&netdev{index: p.Ifindex, name: p.Netdev, mtu: 1500, parent: h})
		}
	}
	c.link(&netdev{index: index, name: fmt.Sprint("sf", sfnum), mtu: 1500, parent: dev})
}

// link makes a link, or changes it, and tells those who listen.
func (c *card) link(n *netdev) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links[n.index] = n
	c.tell(unix.RTM_NEWLINK, n)
}

func (c *card) tell(typ netlink.HeaderType, n *netdev) {
	for s := range c.sockets {
		s.push(netlink.Message{Header: netlink.Header{Type: typ}, Data: n.encode(c.T, false)})
	}
}

// lose loses events of links, as if there had been too many.
func (c *card) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sockets {
		s.mu.Lock()
		s.answers, s.lost = nil, true
		s.mu.Unlock()
		s.poke()
	}
}

func attrs(t *testing.T, f func(*netlink.AttributeEncoder)) []byte {
	e := netlink.NewAttributeEncoder()
	f(e)
	b, err := e.Encode()
	if err != nil {
		t.Error(err)
	}
	return b
}

func words(n ...uint32) []byte {
	var b []byte
	for _, n := range n {
		b = ne.AppendUint32(b, n)
	}
	return b
}

// encode is a link as the kernel tells it.
func (n *netdev) encode(t *testing.T, withVFs bool) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	ne.PutUint32(b[4:], uint32(n.index))
	ne.PutUint32(b[8:], n.flags)
	return append(b, attrs(t, func(e *netlink.AttributeEncoder) {
		e.String(unix.IFLA_IFNAME, n.name)
		e.Bytes(unix.IFLA_ADDRESS, n.mac[:])
		e.Uint32(unix.IFLA_MTU, n.mtu)
		if n.master != 0 {
			e.Uint32(unix.IFLA_MASTER, n.master)
		}
		e.String(unix.IFLA_PARENT_DEV_NAME, n.parent.Dev)
		e.String(unix.IFLA_PARENT_DEV_BUS_NAME, n.parent.Bus)
		if !withVFs || n.vfs == nil {
			return
		}
		e.Nested(unix.IFLA_VFINFO_LIST, func(e *netlink.AttributeEncoder) error {
			for _, i := range slices.Sorted(maps.Keys(n.vfs)) {
				v := n.vfs[i]
				e.Nested(unix.IFLA_VF_INFO, func(e *netlink.AttributeEncoder) error {
					e.Bytes(unix.IFLA_VF_MAC, append(words(i), make([]byte, 32)...))
					e.Bytes(unix.IFLA_VF_VLAN, words(i, v.vlan, v.qos))
					e.Bytes(unix.IFLA_VF_RATE, words(i, v.min, v.max))
					e.Bytes(unix.IFLA_VF_SPOOFCHK, words(i, v.spoof))
					e.Bytes(unix.IFLA_VF_LINK_STATE, words(i, v.state))
					e.Bytes(unix.IFLA_VF_TRUST, words(i, v.trust))
					if v.guids != nil {
						e.Bytes(unix.IFLA_VF_IB_NODE_GUID, ne.AppendUint64(words(i, 0), v.guids[0]))
						e.Bytes(unix.IFLA_VF_IB_PORT_GUID, ne.AppendUint64(words(i, 0), v.guids[1]))
					}
					e.Bytes(unix.IFLA_VF_RSS_QUERY_EN, words(i, 0xffffffff))
					e.Nested(unix.IFLA_VF_VLAN_LIST, func(e *netlink.AttributeEncoder) error {
						protocol := v.protocol
						if protocol == 0 {
							protocol = 0x8100
						}
						e.Bytes(unix.IFLA_VF_VLAN_INFO, append(words(i, v.vlan, v.qos), byte(protocol>>8), byte(protocol), 0, 0))
						return nil
					})
					return nil
				})
			}
			return nil
		})
	})...)
}

func walk(b []byte, f func(typ uint16, data []byte)) {
	for len(b) >= 4 {
		n := int(ne.Uint16(b))
		f(ne.Uint16(b[2:])&0x3fff, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// answer does what a request of rtnetlink asks for.
func (c *card) answer(m *netlink.Message) []netlink.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	reply := func(typ netlink.HeaderType, flags netlink.HeaderFlags, data []byte) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: typ, Flags: flags, Sequence: m.Header.Sequence, PID: m.Header.PID}, Data: data}
	}
	verdict := func(errno unix.Errno) []netlink.Message {
		data := ne.AppendUint32(nil, uint32(-int32(errno)))
		return []netlink.Message{reply(netlink.Error, 0, append(data, make([]byte, unix.NLMSG_HDRLEN)...))}
	}
	withVFs := false
	walk(m.Data[unix.SizeofIfInfomsg:], func(typ uint16, data []byte) {
		withVFs = withVFs || typ == unix.IFLA_EXT_MASK && ne.Uint32(data)&1 /* RTEXT_FILTER_VF */ != 0
	})
	if withVFs {
		c.vfMasks++
	}
	if m.Header.Flags&netlink.Dump == netlink.Dump {
		if withVFs {
			c.Error("a list of all links with their VFs")
		}
		var all []netlink.Message
		for _, i := range slices.Sorted(maps.Keys(c.links)) {
			all = append(all, reply(unix.RTM_NEWLINK, netlink.Multi, c.links[i].encode(c.T, false)))
		}
		return append(all, reply(netlink.Done, netlink.Multi, make([]byte, 4)))
	}
	n := c.links[int(ne.Uint32(m.Data[4:]))]
	if n == nil {
		return verdict(unix.ENODEV)
	}
	if m.Header.Type == unix.RTM_GETLINK {
		return []netlink.Message{reply(unix.RTM_NEWLINK, 0, n.encode(c.T, withVFs))}
	}
	if m.Header.Type != unix.RTM_SETLINK {
		c.Errorf("request of type %d", m.Header.Type)
	}
	n.flags = n.flags&^ne.Uint32(m.Data[12:]) | ne.Uint32(m.Data[8:])
	errno := unix.Errno(0)
	walk(m.Data[unix.SizeofIfInfomsg:], func(typ uint16, data []byte) {
		switch typ {
		case unix.IFLA_ADDRESS:
			n.mac = [6]byte(data)
		case unix.IFLA_MTU:
			n.mtu = ne.Uint32(data)
		case unix.IFLA_IFNAME:
			n.name = string(data[:len(data)-1])
		case unix.IFLA_VFINFO_LIST:
			walk(data, func(_ uint16, data []byte) {
				walk(data, func(typ uint16, data []byte) { errno = c.setVF(n, typ, data) })
			})
		}
	})
	c.tell(unix.RTM_NEWLINK, n)
	return verdict(errno)
}

func (c *card) setVF(n *netdev, typ uint16, data []byte) unix.Errno {
	value := func(at int) uint32 { return ne.Uint32(data[at:]) }
	if typ == unix.IFLA_VF_VLAN_LIST {
		walk(data, func(_ uint16, info []byte) { data = info })
	}
	v := n.vfs[value(0)]
	switch typ {
	case unix.IFLA_VF_VLAN:
		if c.stubborn {
			return unix.EINVAL
		}
		v.vlan, v.qos, v.protocol = value(4), value(8), 0
	case unix.IFLA_VF_VLAN_LIST:
		v.vlan, v.qos, v.protocol = value(4), value(8), binary.BigEndian.Uint16(data[12:])
	case unix.IFLA_VF_TRUST:
		if !c.forgets {
			v.trust = value(4)
		}
	case unix.IFLA_VF_SPOOFCHK:
		v.spoof = value(4)
	case unix.IFLA_VF_LINK_STATE:
		v.state = value(4)
	case unix.IFLA_VF_IB_NODE_GUID:
		v.guids = &[2]uint64{ne.Uint64(data[8:]), v.guids[1]}
	case unix.IFLA_VF_IB_PORT_GUID:
		v.guids = &[2]uint64{v.guids[0], ne.Uint64(data[8:])}
	case unix.IFLA_VF_RATE:
		v.min, v.max = value(4), value(8)
	default:
		c.Errorf("VF attribute %d", typ)
	}
	return 0
}

// vf1 returns what is set of VF 1 of the NIC whose indices count from 10.
func (c *card) vf1() vfAttributes {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.links[10].vfs[1]
}

func (c *card) dial(groups uint32) (*netlink.Conn, error) {
	s := &routeSocket{card: c, wake: make(chan struct{}, 1)}
	if groups != 0 {
		c.mu.Lock()
		c.sockets[s] = true
		c.mu.Unlock()
	}
	return netlink.NewConn(s, 42), nil
}

// start starts an inventory of the card.
func (c *card) start(pools ...device.Pool) inventory {
	c.Helper()
	return start(c.T, device.Options{Devlink: c.devlink.Conn(), Route: c.dial, Sysfs: c.dir, Memory: c.dir + "/run/quarantine.json", Pools: pools, Patience: 300 * time.Millisecond})
}

// A routeSocket is one of rtnetlink's. It implements netlink.Socket, and what netlink.Conn asks of sockets for deadlines.
type routeSocket struct {
	card *card
	wake chan struct{}

	mu          sync.Mutex // guards what follows
	answers     []netlink.Message
	lost, ended bool
}

func (s *routeSocket) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *routeSocket) push(m ...netlink.Message) {
	s.mu.Lock()
	s.answers = append(s.answers, m...)
	s.mu.Unlock()
	s.poke()
}

func (s *routeSocket) Close() error {
	s.card.mu.Lock()
	defer s.card.mu.Unlock()
	delete(s.card.sockets, s)
	return nil
}

func (s *routeSocket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

func (s *routeSocket) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline knows only deadlines that are over.
func (s *routeSocket) SetReadDeadline(time.Time) error {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.poke()
	return nil
}

func (s *routeSocket) Send(m netlink.Message) error {
	s.push(s.card.answer(&m)...)
	return nil
}

func (s *routeSocket) SendMessages(all []netlink.Message) error {
	for i := range all {
		s.push(s.card.answer(&all[i])...)
	}
	return nil
}

func (s *routeSocket) Receive() ([]netlink.Message, error) {
	for {
		s.mu.Lock()
		switch {
		case s.lost:
			s.lost = false
			s.mu.Unlock()
			return nil, os.NewSyscallError("recvmsg", unix.ENOBUFS)
		case len(s.answers) > 0:
			m := s.answers[:1]
			s.answers = s.answers[1:]
			s.mu.Unlock()
			return m, nil
		case s.ended:
			s.mu.Unlock()
			return nil, os.ErrDeadlineExceeded
		}
		s.mu.Unlock()
		<-s.wake
	}
}

func (s *routeSocket) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		all, err := s.Receive()
		if err != nil {
			yield(netlink.Message{}, err)
			return
		}
		for _, m := range all {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// noRates is a driver without rates of devlink, as devlinktest has.
func noRates(r devlinktest.Request) devlinktest.Refusal {
	const rateGet = 74
	if r.Command == rateGet {
		return devlinktest.Refusal{Errno: unix.EOPNOTSUPP}
	}
	return devlinktest.Refusal{}
}

// What only the PF's netdev keeps of a VF is set, read back, and restored; and nobody asks for it otherwise, since drivers take long to tell.
func TestVFAttributes(t *testing.T) {
	c := newCard(t)
	c.devlink.Refuse = noRates
	c.nic("0000:03:00.0", 10, 2)
	v := c.start(device.Pool{Name: "vfs", Device: "up10", Kind: device.VF})
	v.Reconciled()
	v.counts(t, "vfs", map[device.State]int{device.Free: 2})
	ctx := context.Background()
	plain := v.acquire(t, device.Request{Owner: "plain", Attributes: device.Attributes{MTU: 9000}})
	if err := v.Configure(ctx, plain, device.Attributes{MTU: 9000}); err != nil {
		t.Fatal(err)
	}
	v.release(t, plain, "plain")
	if c.vfMasks != 0 {
		t.Errorf("the driver was asked %d times for its VFs, although nobody wants to change what is set of them", c.vfMasks)
	}
	if plain.NUMA != 1 || plain.Bus != "pci" || plain.Device != "0000:03:00.0.vf0" {
		t.Errorf("Acquire = %+v", plain)
	}

	a := device.Attributes{
		VLAN: &device.VLAN{ID: 7, QoS: 3}, Trust: new(true), SpoofCheck: new(false), LinkState: device.LinkEnable, MinRate: new(uint64(1e6)), MaxRate: new(uint64(5e6)),
	}
	r := device.Request{Device: "0000:03:00.0.vf1", Owner: "a", Attributes: a}
	f := v.acquire(t, r)
	before := c.vf1()
	if err := v.Configure(ctx, f, a); err != nil {
		t.Fatal(err)
	}
	want := vfAttributes{vlan: 7, qos: 3, trust: 1, state: 1, min: 1, max: 5}
	if got := c.vf1(); got != want {
		t.Errorf("VF after Configure: %+v, want %+v", got, want)
	}
	verify := func(a device.Attributes, want ...string) {
		t.Helper()
		got, err := v.Verify(ctx, f, a)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Verify = %q, %v, want %q", got, err, want)
		}
	}
	verify(a)
	c.mu.Lock()
	changed := *c.links[10].vfs[1]
	*c.links[10].vfs[1] = vfAttributes{vlan: 8, spoof: 1, state: 2, max: 5, protocol: 0x88a8}
	c.mu.Unlock()
	verify(a, "vlan is vlan 8 qos 0 proto 0x88a8, not vlan 7 qos 3 proto 0x8100", "trust is false, not true", "spoof_check is true, not false",
		"link_state is disable, not enable", "rate is tx_share 0bit tx_max 5000000bit, not tx_share 1000000bit tx_max 5000000bit")
	verify(device.Attributes{LinkState: device.LinkDisable}) // what is not asked for may be as it likes
	c.mu.Lock()
	*c.links[10].vfs[1] = changed
	c.mu.Unlock()
	v.release(t, f, "a")
	if got := c.vf1(); got != before {
		t.Errorf("VF after Release: %+v, want %+v", got, before)
	}

	a = device.Attributes{VLAN: &device.VLAN{ID: 8, Protocol: 0x88a8}}
	r.Attributes = a
	f = v.acquire(t, r)
	if err := v.Configure(ctx, f, a); err != nil {
		t.Fatal(err)
	}
	if got := c.vf1(); got.vlan != 8 || got.protocol != 0x88a8 {
		t.Errorf("VF after Configure: %+v", got)
	}
	// What cannot be restored is kept from everybody, until it can.
	c.mu.Lock()
	c.stubborn = true
	c.mu.Unlock()
	v.release(t, f, "a")
	v.until(t, quarantined(f, reason.KernelRefused))
	wantReason(t, "Recover", v.Recover(ctx, f.Handle), reason.KernelRefused, "vlan")
	// Also if the daemon is restarted meanwhile.
	v.stop()
	v = c.start(device.Pool{Name: "vfs", Device: "up10", Kind: device.VF})
	v.Reconciled()
	v.until(t, quarantined(f, reason.KernelRefused))
	c.mu.Lock()
	c.stubborn, c.forgets = false, true
	c.mu.Unlock()
	if err := v.Recover(ctx, f.Handle); err != nil {
		t.Errorf("Recover: %v", err)
	}
	if got := c.vf1(); got.vlan != 0 {
		t.Errorf("VF after Recover: %+v", got)
	}

	// What the driver takes and does not keep is an error.
	r.Attributes = device.Attributes{Trust: new(true)}
	f = v.acquire(t, r)
	wantReason(t, "Configure what is not kept", v.Configure(ctx, f, r.Attributes), reason.AttributeNotKept, "trust is false, not true")
	wantReason(t, "Configure half a megabit", v.Configure(ctx, f, device.Attributes{MaxRate: new(uint64(500e3))}), reason.FeatureUnsupported, "rate")
	v.release(t, f, "a")
	_, err := v.Acquire(ctx, device.Request{Owner: "a", Attributes: device.Attributes{VLAN: &device.VLAN{ID: 4095}, MTU: 7}})
	wantReason(t, "Acquire what is nonsense", err, reason.InvalidField, "mtu")
	v.counts(t, "vfs", map[device.State]int{device.Free: 2})
	if b, err := os.ReadFile(c.dir + "/run/quarantine.json"); err != nil || string(b) != "[]\n" {
		t.Errorf("what has to be restored in the end: %q, %v", b, err)
	}
}

// GUIDs are for VFs of InfiniBand, and what has an RDMA device is said by sysfs. That is to be back before the function is given away again.
func TestInfiniBand(t *testing.T) {
	c := newCard(t)
	c.nic("0000:03:00.0", 10, 2)
	c.links[10].vfs[1].guids = &[2]uint64{1, 2}
	rdma := "bus/pci/devices/0000:03:00.0.vf1/infiniband/mlx5_1"
	c.write(rdma+"/node_type", "1: CA")
	v := c.start(device.Pool{Name: "vfs", Device: "up10", Kind: device.VF})
	v.Reconciled()
	v.counts(t, "vfs", map[device.State]int{device.Free: 2})
	ctx := context.Background()
	a := device.Attributes{GUID: &device.GUID{2, 0, 0, 0, 0, 0, 0, 9}, RDMA: true}
	f := v.acquire(t, device.Request{Device: "0000:03:00.0.vf1", Owner: "a", Attributes: a})
	if f.RDMA != "mlx5_1" {
		t.Errorf("Acquire = %+v", f)
	}
	if err := v.Configure(ctx, f, a); err != nil {
		t.Fatal(err)
	}
	if got := *c.vf1().guids; got != [2]uint64{0x0200000000000009, 0x0200000000000009} {
		t.Errorf("GUIDs after Configure: %x", got)
	}
	if differ, err := v.Verify(ctx, f, a); err != nil || differ != nil {
		t.Errorf("Verify = %q, %v", differ, err)
	}
	if err := os.Rename(filepath.Join(c.dir, rdma), filepath.Join(c.dir, "away")); err != nil {
		t.Fatal(err)
	}
	v.release(t, f, "a")
	v.until(t, quarantined(f, reason.FunctionElsewhere))
	// Also if the daemon is restarted meanwhile.
	v.stop()
	v = c.start(device.Pool{Name: "vfs", Device: "up10", Kind: device.VF})
	v.Reconciled()
	v.until(t, quarantined(f, reason.FunctionElsewhere))
	if err := os.Rename(filepath.Join(c.dir, "away"), filepath.Join(c.dir, rdma)); err != nil {
		t.Fatal(err)
	}
	v.counts(t, "vfs", map[device.State]int{device.Free: 2}) // though nothing tells of it
	if got := *c.vf1().guids; got != [2]uint64{1, 2} {
		t.Errorf("GUIDs after Release: %x", got)
	}

	for _, tt := range []struct {
		device.Attributes
		says string
	}{{device.Attributes{GUID: a.GUID}, "infiniband_guid"}, {device.Attributes{RDMA: true}, "rdma"}} {
		r := device.Request{Device: "0000:03:00.0.vf0", Owner: "b", Attributes: tt.Attributes}
		wantReason(t, "Validate", v.Validate(ctx, r), reason.FeatureUnsupported, tt.says)
		_, err := v.Acquire(ctx, r)
		wantReason(t, "Acquire", err, reason.FeatureUnsupported, tt.says)
		v.counts(t, "vfs", map[device.State]int{device.Free: 2})
	}
}

// A driver that is busy without end does not hold up who gives a function back, which is quarantined with what it is busy for.
func TestBusyWithoutEnd(t *testing.T) {
	c := newCard(t)
	const portSet = 6
	var busy atomic.Bool
	c.devlink.Refuse = func(r devlinktest.Request) devlinktest.Refusal {
		if busy.Load() && r.Command == portSet {
			return devlinktest.Refusal{Errno: unix.EBUSY}
		}
		return noRates(r)
	}
	c.nic("0000:03:00.0", 10, 1)
	v := c.start(device.Pool{Name: "vfs", Device: "up10", Kind: device.VF})
	v.Reconciled()
	v.counts(t, "vfs", map[device.State]int{device.Free: 1})
	a := device.Attributes{MAC: device.MAC{2, 0, 0, 0, 0, 1}}
	f := v.acquire(t, device.Request{Owner: "a", Attributes: a})
	if err := v.Configure(t.Context(), f, a); err != nil {
		t.Fatal(err)
	}
	busy.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := v.Release(ctx, f, "a"); err != nil {
		t.Fatal(err)
	}
	v.until(t, quarantined(f, reason.DeviceBusy))
	busy.Store(false)
	if err := v.Recover(t.Context(), f.Handle); err != nil {
		t.Errorf("Recover: %v", err)
	}
	v.counts(t, "vfs", map[device.State]int{device.Free: 1})
}

// What Acquire would refuse is known before, for the same reason, and nothing is taken for that.
func TestValidate(t *testing.T) {
	c := newCard(t)
	c.devlink.Refuse = noRates
	h := c.nic("0000:03:00.0", 10, 2)
	v := c.start(device.Pool{Name: "vfs", Device: "up10", Kind: device.VF}, device.Pool{Name: "sfs", Device: "up10", Kind: device.SF, Max: 1})
	ctx := context.Background()
	wantReason(t, "Validate before Reconciled", v.Validate(ctx, device.Request{Owner: "a"}), reason.NotReady, "in use")
	v.Reconciled()
	v.counts(t, "vfs", map[device.State]int{device.Free: 2})
	for _, tt := range []struct {
		request device.Request
		want    reason.Reason
	}{
		{device.Request{Pool: "none"}, reason.PoolNotFound},
		{device.Request{Pool: "sfs", Kinds: []device.Kind{device.VF}}, reason.PoolNotFound},
		{device.Request{Device: "0000:03:00.0.vf7"}, reason.DeviceNotFound},
		{device.Request{Pool: "sfs", Attributes: device.Attributes{Trust: new(true)}}, reason.FeatureUnsupported},
		{device.Request{Pool: "vfs", Attributes: device.Attributes{MaxRate: new(uint64(500e3))}}, reason.FeatureUnsupported},
		{device.Request{Pool: "vfs", Attributes: device.Attributes{MTU: 7}}, reason.InvalidField},
	} {
		r := tt.request
		r.Owner = "a"
		err := v.Validate(ctx, r)
		wantReason(t, fmt.Sprintf("Validate %+v", r), err, tt.want, "")
		if _, real := v.Acquire(ctx, r); reason.Of(real) != reason.Of(err) {
			t.Errorf("Acquire %+v: %v, but Validate: %v", r, real, err)
		}
		v.until(t, func(s device.Snapshot) error { // what was given up is verified again
			if n := s.Pools[1].Counts[device.Free]; n != 2 {
				return fmt.Errorf("%d VFs are free", n)
			}
			return nil
		})
	}
	before := v.Snapshot()
	for _, r := range []device.Request{
		{Owner: "a", Pool: "vfs", Attributes: device.Attributes{Trust: new(true), MaxRate: new(uint64(1e6))}}, {Owner: "a", Pool: "sfs"}, {Owner: "a"},
	} {
		if err := v.Validate(ctx, r); err != nil {
			t.Errorf("Validate %+v: %v", r, err)
		}
	}
	if after := v.Snapshot(); after.Revision != before.Revision || len(c.devlink.Ports(h)) != 3 {
		t.Errorf("after Validate:\n%+v\nbefore:\n%+v", after, before)
	}
	for _, owner := range []string{"a", "b"} {
		v.acquire(t, device.Request{Owner: owner, Pool: "vfs"})
	}
	wantReason(t, "Validate while all VFs are used", v.Validate(ctx, device.Request{Owner: "c", Pool: "vfs"}), reason.PoolExhausted, "2 used")
}

// A driver that is stuck holds up what is about its own device, and nothing else.
func TestSlowDriver(t *testing.T) {
	c := newCard(t)
	slow := c.nic("0000:03:00.0", 10, 1)
	c.nic("0000:04:00.0", 40, 1)
	stuck, asked := make(chan struct{}), make(chan struct{}, 1)
	var isStuck atomic.Bool
	const portNew = 7
	c.devlink.Before = func(r devlinktest.Request) {
		if r.Command == portNew && isStuck.Load() {
			asked <- struct{}{}
			<-stuck
		}
	}
	v := c.start(
		device.Pool{Name: "a", Device: "pci/0000:03:00.0", Kind: device.VF},
		device.Pool{Name: "b", Device: "pci/0000:04:00.0", Kind: device.VF},
		device.Pool{Name: "sf", Device: "pci/0000:03:00.0", Kind: device.SF, Max: 2},
	)
	v.Reconciled()
	v.counts(t, "a", map[device.State]int{device.Free: 1})
	v.counts(t, "b", map[device.State]int{device.Free: 1})
	isStuck.Store(true)
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	sf := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err := v.Acquire(ctx, device.Request{Pool: "sf", Owner: "sf"})
		sf <- err
	}()
	<-asked
	v.until(t, func(s device.Snapshot) error {
		if s.Devices[0].Doing != "making pci/0000:03:00.0 pf0sf100" || s.Devices[1].Doing != "" {
			return fmt.Errorf("%q and %q are done", s.Devices[0].Doing, s.Devices[1].Doing)
		}
		return nil
	})
	attributes := device.Attributes{MAC: device.MAC{2, 0, 0, 0, 0, 9}}
	other := v.acquire(t, device.Request{Pool: "b", Owner: "other"})
	if err := v.Configure(short(), other, attributes); err != nil {
		t.Errorf("Configure on another device: %v", err)
	}
	v.release(t, other, "other")
	same := v.acquire(t, device.Request{Pool: "a", Owner: "same"}) // what is free needs no driver
	wantReason(t, "Configure on the same device", v.Configure(short(), same, attributes), reason.DeviceBusy, "making")
	err := v.Release(short(), same, "same")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Release on the same device: %v", err)
	}
	_, err = v.Acquire(short(), device.Request{Pool: "sf", Owner: "sf2"})
	wantReason(t, "Acquire what is to be made there", err, reason.DeadlineExceeded, "is being made")

	close(stuck)
	v.until(t, func(device.Snapshot) error { // two were asked for, one by somebody who waits no more
		active := 0
		for _, p := range c.devlink.Ports(slow) {
			if p.Flavour == devlink.FlavourPCISF && p.Function.State == devlink.Active {
				active++
			}
		}
		if active != 2 {
			return fmt.Errorf("%d SFs are active", active)
		}
		return nil
	})
	c.bind(slow, 100, 31)
	c.bind(slow, 101, 32)
	if err := <-sf; err != nil {
		t.Errorf("Acquire of an SF: %v", err)
	}
	v.release(t, same, "same")
	v.counts(t, "a", map[device.State]int{device.Free: 1})
	v.counts(t, "sf", map[device.State]int{device.Used: 1}) // the other is more than the pool keeps
}

// After events were lost everything is read anew.
func TestLostEvents(t *testing.T) {
	c := newCard(t)
	h := c.nic("0000:03:00.0", 10, 2)
	v := c.start(device.Pool{Name: "vfs", Device: "up10", Kind: device.VF})
	v.Reconciled()
	v.counts(t, "vfs", map[device.State]int{device.Free: 2})
	f := v.acquire(t, device.Request{Owner: "a"})

	c.mu.Lock()
	gone := c.links[f.Netdev.Index]
	delete(c.links, f.Netdev.Index)
	other := c.links[f.Netdev.Index+1]
	other.name = "renamed"
	c.mu.Unlock()
	c.lose()
	v.until(t, func(s device.Snapshot) error {
		if s.Functions[0].Netdev.Index != 0 || s.Functions[1].Netdev.Name != "renamed" {
			return fmt.Errorf("%+v", s.Functions)
		}
		return nil
	})
	c.link(gone)
	v.release(t, f, "a")

	// The port of a VF, of which no event tells.
	c.devlink.Device(devlink.Info{Handle: h}, devlink.Eswitch{Mode: devlink.ModeLegacy})
	v.until(t, func(s device.Snapshot) error {
		if s.Devices[0].Mode != devlink.ModeLegacy || s.Pools[0].Reason != reason.EswitchNotSwitchdev {
			return fmt.Errorf("%+v %+v", s.Devices[0], s.Pools[0])
		}
		return nil
	})
	_, err := v.Acquire(context.Background(), device.Request{Owner: "a"})
	wantReason(t, "Acquire in legacy mode", err, reason.EswitchNotSwitchdev, "legacy")
	c.devlink.Device(devlink.Info{Handle: h}, devlink.Eswitch{Mode: devlink.ModeSwitchdev})
	c.devlink.Port(devlink.Port{PortHandle: h.Port(3), Flavour: devlink.FlavourPCIVF, VF: 2, Type: devlink.TypeEth, Function: &devlink.Function{}})
	c.devlink.Overflow()
	v.until(t, func(s device.Snapshot) error {
		if len(s.Functions) != 3 || s.Pools[0].Reason != "" {
			return fmt.Errorf("%d functions, %s", len(s.Functions), s.Pools[0].Reason)
		}
		return nil
	})
	// It has no netdev and no device as yet.
	v.counts(t, "vfs", map[device.State]int{device.Free: 2, device.Quarantined: 1})
}

// Who asks while functions are verified gets one, and is not told that there are none: at the start, and just after a release.
func TestAcquireWaits(t *testing.T) {
	c := newCard(t)
	c.nic("0000:03:00.0", 10, 1)
	hold, asked := make(chan struct{}), make(chan struct{}, 8)
	const eswitchGet, portGet = 29, 5
	c.devlink.Before = func(r devlinktest.Request) {
		if r.Command == eswitchGet || r.Command == portGet && r.Flags&netlink.Dump != netlink.Dump {
			select {
			case asked <- struct{}{}:
			default:
			}
			<-hold
		}
	}
	v := c.start(device.Pool{Name: "vfs", Device: "up10", Kind: device.VF})
	v.Reconciled()
	<-asked
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	_, err := v.Acquire(ctx, device.Request{Owner: "a"})
	cancel()
	wantReason(t, "Acquire before the device has been read", err, reason.NotReady, "not")
	const it = "0000:03:00.0.vf0"
	got := make(chan error, 2)
	ask := func(r device.Request) {
		go func() {
			_, err := v.Acquire(context.Background(), r)
			got <- err
		}()
	}
	ask(device.Request{Owner: "b"})
	hold <- struct{}{}
	<-asked // now the VF is verified
	v.until(t, func(s device.Snapshot) error {
		if len(s.Pools) != 1 || s.Pools[0].Counts[device.Resetting] != 1 {
			return fmt.Errorf("%+v", s.Pools)
		}
		return nil
	})
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	_, err = v.Acquire(ctx, device.Request{Owner: "a"})
	cancel()
	wantReason(t, "Acquire while the only VF is verified", err, reason.PoolExhausted, "1 resetting")
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	_, err = v.Acquire(ctx, device.Request{Owner: "a", Device: it})
	cancel()
	wantReason(t, "Acquire of this VF while it is verified", err, reason.DeviceBusy, "resetting")
	ask(device.Request{Owner: "b", Device: it})
	close(hold)
	for range 2 {
		if err := <-got; err != nil {
			t.Errorf("Acquire: %v", err)
		}
	}
	_, err = v.Acquire(context.Background(), device.Request{Owner: "c"})
	wantReason(t, "Acquire while the only VF is used", err, reason.PoolExhausted, "1 used")
}

// A device that has no room, or a number that is still taken, is told of, and not asked without end.
func TestFull(t *testing.T) {
	c := newCard(t)
	h := c.nic("0000:03:00.0", 10, 0)
	var asked atomic.Int32
	const portNew = 7
	c.devlink.Refuse = func(r devlinktest.Request) devlinktest.Refusal {
		if r.Command != portNew {
			return devlinktest.Refusal{}
		}
		switch asked.Add(1) {
		case 1, 2:
			return devlinktest.Refusal{Errno: unix.EEXIST}
		case 3:
			return devlinktest.Refusal{}
		}
		return devlinktest.Refusal{Errno: unix.ENOSPC, Message: "No more SFs"}
	}
	v := c.start(device.Pool{Name: "sf", Device: "pci/0000:03:00.0", Kind: device.SF, Max: 4})
	v.Reconciled()
	v.until(t, func(s device.Snapshot) error {
		if len(s.Devices) != 1 || s.Devices[0].Mode == 0 {
			return errors.New("no device")
		}
		return nil
	})
	got := make(chan device.Function, 1)
	go func() {
		f, err := v.Acquire(context.Background(), device.Request{Owner: "a"})
		if err != nil {
			t.Errorf("Acquire: %v", err)
		}
		got <- f
	}()
	v.until(t, func(device.Snapshot) error {
		for _, p := range c.devlink.Ports(h) {
			if p.SF == 102 && p.Function.State == devlink.Active {
				return nil
			}
		}
		return errors.New("no SF 102")
	})
	c.bind(h, 102, 31)
	if f := <-got; f.Number != 102 || f.Device != "sf.102" || f.Bus != "auxiliary" {
		t.Errorf("Acquire = %+v", f)
	}
	for i := range 3 {
		_, err := v.Acquire(context.Background(), device.Request{Owner: fmt.Sprint("b", i)})
		wantReason(t, "Acquire from a full device", err, reason.PoolExhausted, "No more SFs")
	}
	if n := asked.Load(); n != 4 {
		t.Errorf("the driver was asked %d times, want 4", n)
	}
	if p := v.Snapshot().Pools[0]; p.Reason != reason.PoolExhausted || p.Capacity != 4 {
		t.Errorf("pool: %+v", p)
	}
}

// A driver that does not answer at all is asked less and less often, since each request stays in the kernel, and there is room for so many
// only. When it answers again all is as it should be.
func TestSilentDriver(t *testing.T) {
	for _, fromTheBeginning := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) { silentDriver(t, fromTheBeginning) })
	}
}

func silentDriver(t *testing.T, fromTheBeginning bool) {
	c := newCard(t)
	silent := c.nic("0000:03:00.0", 10, 1)
	c.nic("0000:04:00.0", 40, 1)
	answers := make(chan struct{})
	var isSilent atomic.Bool
	var asked atomic.Int32
	c.devlink.Before = func(r devlinktest.Request) {
		if isSilent.Load() && bytes.Contains(r.Attributes, []byte(silent.Dev)) {
			asked.Add(1)
			<-answers
		}
	}
	isSilent.Store(fromTheBeginning)
	v := c.start(
		device.Pool{Name: "a", Device: "pci/0000:03:00.0", Kind: device.SF, MinWarm: 1, Max: 8},
		device.Pool{Name: "b", Device: "pci/0000:04:00.0", Kind: device.VF},
	)
	synctest.Wait()
	isSilent.Store(true)
	v.Reconciled()
	time.Sleep(24 * time.Hour)
	if n := asked.Load(); n < 20 || n > 62 {
		t.Errorf("in a day the driver was asked %d times, want some, and less than there is room for", n)
	}
	s := v.Snapshot()
	if s.Devices[0].Reason != reason.DeviceFailed || s.Pools[0].Reason != reason.DeviceFailed || s.Devices[1].Reason != "" {
		t.Errorf("devices %+v, pools %+v", s.Devices, s.Pools)
	}
	_, err := v.Acquire(context.Background(), device.Request{Pool: "a", Owner: "a"})
	wantReason(t, "Acquire from a device that does not answer", err, reason.DeviceFailed, "no answer")
	v.release(t, v.acquire(t, device.Request{Pool: "b", Owner: "b"}), "b")

	isSilent.Store(false)
	close(answers)
	time.Sleep(time.Hour)
	s = v.Snapshot()
	if s.Devices[0].Reason != "" || s.Pools[0].Reason != "" {
		t.Errorf("devices %+v, pools %+v", s.Devices, s.Pools)
	}
	// Nobody binds a driver to the SF that was made; so none is made beside it.
	if n := len(c.devlink.Ports(silent)); n != 3 && n != 4 { // the first may have been asked for before
		t.Errorf("there are %d ports", n)
	}
	v.stop()
}

// SFs are set to what their pool wants before they are activated. Those from before the pool wanted it are replaced, as soon as nobody has
// them.
func TestSFsOfPool(t *testing.T) {
	c := newCard(t)
	c.devlink.SF = devlink.Function{Caps: devlink.Caps{Enabled: devlink.CapRoCE, Known: devlink.CapRoCE}, MaxIOEQs: new(uint32(8))}
	h := c.nic("0000:03:00.0", 10, 0)
	pool := device.Pool{Name: "sf", Device: "pci/0000:03:00.0", Kind: device.SF, MinWarm: 1, Max: 2}
	index := 31
	made := func(sfnum uint32) devlink.Function {
		t.Helper()
		for range 1000 {
			for _, p := range c.devlink.Ports(h) {
				if p.SF == sfnum && p.Function != nil && p.Function.State == devlink.Active {
					c.bind(h, sfnum, index)
					index++
					return *p.Function
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("no SF %d", sfnum)
		return devlink.Function{}
	}
	v := c.start(pool)
	v.Reconciled()
	if f := made(100); f.Caps.Enabled != devlink.CapRoCE || *f.MaxIOEQs != 8 {
		t.Errorf("an SF of which nothing is wanted: %+v", f)
	}
	v.counts(t, "sf", map[device.State]int{device.Free: 1})
	v.stop()

	pool.RoCE, pool.MaxIOEQs = new(false), 4
	v = c.start(pool)
	v.Reconciled()
	if f := made(101); f.Caps != (devlink.Caps{Known: devlink.CapRoCE}) || *f.MaxIOEQs != 4 {
		t.Errorf("an SF without RoCE and with 4 event queues: %+v, %d", f, *f.MaxIOEQs)
	}
	v.counts(t, "sf", map[device.State]int{device.Free: 1})
	for _, p := range c.devlink.Ports(h) {
		if p.SF == 100 && p.Flavour == devlink.FlavourPCISF {
			t.Errorf("there is still %+v", p)
		}
	}

	// Refused in the words of the driver, or because nobody has it; and no SF is left over.
	full := v.acquire(t, device.Request{Owner: "a"})
	v.until(t, func(s device.Snapshot) error { // the next one has been asked for
		if s.Pools[0].Counts[device.Warming] != 1 {
			return fmt.Errorf("%+v", s.Pools[0])
		}
		return nil
	})
	_ = full
	v.stop()
	for _, tt := range []struct {
		refuse func(devlinktest.Request) devlinktest.Refusal
		sf     devlink.Function
		want   reason.Reason
		says   string
	}{
		{func(r devlinktest.Request) devlinktest.Refusal {
			const portSet = 6
			if r.Command == portSet {
				return devlinktest.Refusal{Errno: unix.EINVAL, Message: "mlx5_core: Cannot change RoCE"}
			}
			return devlinktest.Refusal{}
		}, c.devlink.SF, reason.DeviceFailed, "Cannot change RoCE"},
		{nil, devlink.Function{MaxIOEQs: new(uint32(8))}, reason.FeatureUnsupported, "roce"},
		{nil, devlink.Function{Caps: c.devlink.SF.Caps}, reason.FeatureUnsupported, "max_io_eqs"},
	} {
		c := newCard(t)
		c.devlink.Refuse, c.devlink.SF = tt.refuse, tt.sf
		h := c.nic("0000:03:00.0", 10, 0)
		v := c.start(pool)
		v.Reconciled()
		v.until(t, func(s device.Snapshot) error {
			if len(s.Pools) != 1 || s.Pools[0].Reason != tt.want || !strings.Contains(s.Pools[0].Message, tt.says) {
				return fmt.Errorf("%+v, want %s that says %q", s.Pools, tt.want, tt.says)
			}
			return nil
		})
		_, err := v.Acquire(context.Background(), device.Request{Owner: "a"})
		wantReason(t, "Acquire", err, tt.want, tt.says)
		if ports := c.devlink.Ports(h); len(ports) != 1 {
			t.Errorf("ports: %+v", ports)
		}
		v.stop()
	}
}

// The device of an SF whose driver makes no netdev by itself, as mlx5's, is told to.
func TestEnableEth(t *testing.T) {
	c := newCard(t)
	h := c.nic("0000:03:00.0", 10, 0)
	sf := devlink.Handle{Bus: "auxiliary", Dev: "sf.100"}
	const reload, paramGet, paramSet = 37, 38, 39
	var mu sync.Mutex
	var said []string
	on := false
	c.devlink.Answer = func(r devlinktest.Request) ([]byte, bool) {
		mu.Lock()
		defer mu.Unlock()
		if !bytes.Contains(r.Attributes, []byte(sf.Dev)) {
			return nil, false
		}
		switch r.Command {
		case paramGet:
			said = append(said, "show")
		case paramSet:
			said, on = append(said, "set"), bytes.Contains(r.Attributes, []byte("enable_eth"))
		case reload:
			said = append(said, "reload")
			if on {
				go c.link(&netdev{index: 31, name: "sf100", mtu: 1500, parent: sf})
			}
		default:
			return nil, false // it has no embedded switch
		}
		return attrs(t, func(e *netlink.AttributeEncoder) {
			e.String(1, sf.Bus)
			e.String(2, sf.Dev)
			e.Nested(80, func(e *netlink.AttributeEncoder) error { // DEVLINK_ATTR_PARAM
				e.String(81, "enable_eth")
				e.Flag(82, true)
				e.Uint8(83, 6) // a flag
				e.Nested(84, func(e *netlink.AttributeEncoder) error {
					e.Nested(85, func(e *netlink.AttributeEncoder) error {
						e.Uint8(87, 1) // driverinit
						e.Flag(86, on)
						return nil
					})
					return nil
				})
				return nil
			})
		}), true
	}
	v := c.start(device.Pool{Name: "sf", Device: "pci/0000:03:00.0", Kind: device.SF, MinWarm: 1, Max: 1})
	v.Reconciled()
	v.until(t, func(device.Snapshot) error {
		for _, p := range c.devlink.Ports(h) {
			if p.Flavour == devlink.FlavourPCISF && p.Function.State == devlink.Active {
				c.link(&netdev{index: p.Ifindex, name: p.Netdev, mtu: 1500, parent: h})
				return nil
			}
		}
		return errors.New("no SF")
	})
	c.auxiliary(h, 100)
	c.devlink.Device(devlink.Info{Handle: sf}, devlink.Eswitch{})
	v.counts(t, "sf", map[device.State]int{device.Free: 1})
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(said, []string{"show", "set", "reload"}) {
		t.Errorf("the driver was asked %q", said)
	}
}
