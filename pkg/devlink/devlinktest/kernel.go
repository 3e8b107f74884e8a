// Package devlinktest fakes the kernel at the netlink socket, for tests of what makes ports and follows them.
package devlinktest

import (
	"cmp"
	"encoding/binary"
	"iter"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/devlink"
)

// A Kernel has devices with ports, and answers requests for them as the kernel and mlx5 do. It can make, change and delete subfunctions
// on devices in switchdev mode; of params, rates and health reporters it knows nothing.
//
// It fails the test if it is asked for something that it does not know, unless Refuse answers that.
type Kernel struct {
	// Before, if not nil, is called for each request while it is sent. As long as it does not return the driver is stuck.
	Before func(Request)

	// Refuse, if not nil, says what a request is refused with; a zero Refusal: it is not.
	Refuse func(Request) Refusal

	// TellsPort says that the port of a network device is told with it, as since Linux 6.2.
	TellsPort bool

	// SF is what a driver says of new SFs beside address and state.
	SF devlink.Function

	// Answer, if not nil, is asked for the answer to a request that is not refused; false: the kernel answers by itself. So tests bring what
	// the kernel does not know.
	Answer func(Request) ([]byte, bool)

	// Interrupted says that something changes during each list.
	Interrupted bool

	t  testing.TB
	mu sync.Mutex // guards what follows

	requests []Request
	devices  map[devlink.Handle]*device
	links    map[int]devlink.Handle // by ifindex, the parent
	sockets  map[*socket]struct{}   // those that have joined
	next     int                    // ifindex of the next representor
}

type device struct {
	eswitch devlink.Eswitch
	info    devlink.Info
	ports   map[uint32]*devlink.Port
}

// A Request is what was sent.
type Request struct {
	Command    uint8
	Flags      netlink.HeaderFlags
	Attributes []byte
}

// A Refusal is what the kernel says instead of doing something.
type Refusal struct {
	Errno   unix.Errno
	Message string
	Offset  int // of the attribute in the message, headers included; 0: it does not say
}

// NewKernel returns a Kernel without devices.
func NewKernel(t testing.TB) *Kernel {
	return &Kernel{t: t, devices: map[devlink.Handle]*device{}, links: map[int]devlink.Handle{}, sockets: map[*socket]struct{}{}, next: 100}
}

// Conn returns a connection to it.
func (k *Kernel) Conn() *devlink.Conn {
	k.t.Helper()
	c, err := devlink.NewConn(k.Dial)
	if err != nil {
		k.t.Fatal(err)
	}
	return c
}

// Dial opens a socket.
func (k *Kernel) Dial(protocol int) (*netlink.Conn, error) {
	return netlink.NewConn(&socket{kernel: k, protocol: protocol, wake: make(chan struct{}, 1)}, 42), nil
}

// Device makes the kernel have a device, or changes its eswitch and info, and tells those who listen.
func (k *Kernel) Device(info devlink.Info, e devlink.Eswitch) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.devices[info.Handle]
	if d == nil {
		d = &device{ports: map[uint32]*devlink.Port{}}
		k.devices[info.Handle] = d
	}
	d.info, d.eswitch = info, e
	k.tell(cmdNew, k.encode(func(a *netlink.AttributeEncoder) { handle(a, info.Handle) }))
}

// Port makes the kernel have a port, or changes it, and tells those who listen.
func (k *Kernel) Port(p devlink.Port) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.devices[p.Handle].ports[p.Index] = &p
	if p.Ifindex != 0 {
		k.links[p.Ifindex] = p.Handle
	}
	k.tell(cmdPortNew, k.port(&p))
}

// Ports returns the ports of a device.
func (k *Kernel) Ports(h devlink.Handle) []devlink.Port {
	k.mu.Lock()
	defer k.mu.Unlock()
	var ports []devlink.Port
	for _, i := range slices.Sorted(maps.Keys(k.devices[h].ports)) {
		ports = append(ports, *k.devices[h].ports[i])
	}
	return ports
}

// Link makes the kernel have a network device without a port.
func (k *Kernel) Link(ifindex int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.links[ifindex] = devlink.Handle{}
}

// Overflow loses the events of all who listen.
func (k *Kernel) Overflow() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for s := range k.sockets {
		s.lost = true
		s.answers = nil
		s.poke()
	}
}

// Requests returns what has been sent so far, except to find the family.
func (k *Kernel) Requests() []Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.requests)
}

// Commands and attributes of linux/devlink.h, written here once more so that a wrong one in pkg/devlink is noticed.
const (
	cmdGet, cmdNew, cmdPortGet, cmdPortSet, cmdPortNew, cmdPortDel      = 1, 3, 5, 6, 7, 8
	cmdHealthReporterGet                                                = 52
	cmdEswitchGet, cmdEswitchSet, cmdReload, cmdInfoGet                 = 29, 30, 37, 51
	busName, devName, portIndex, portType, netdevIfindex, netdevName    = 1, 2, 3, 4, 6, 7
	eswitchMode, eswitchInline, eswitchEncap, portFlavour, portNumber   = 25, 26, 62, 77, 78
	infoDriver, infoSerial, infoRunning, versionName, versionValue      = 98, 99, 101, 103, 104
	pciPF, pciVF, portFunction, splittable, external, controller, pciSF = 127, 128, 145, 148, 149, 150, 164
	fnHWAddr, fnState, fnOpState, fnCaps, fnDevlink, fnMaxIOEQs         = 1, 2, 3, 4, 5, 6
	familyID, groupID                                                   = 20, 7
)

var ne = binary.NativeEndian

func handle(a *netlink.AttributeEncoder, h devlink.Handle) {
	a.String(busName, h.Bus)
	a.String(devName, h.Dev)
}

func (k *Kernel) encode(f func(*netlink.AttributeEncoder)) []byte {
	a := netlink.NewAttributeEncoder()
	f(a)
	b, err := a.Encode()
	if err != nil {
		k.t.Error(err)
	}
	return b
}

// port is a port as the kernel tells it.
func (k *Kernel) port(p *devlink.Port) []byte {
	return k.encode(func(a *netlink.AttributeEncoder) {
		handle(a, p.Handle)
		a.Uint32(portIndex, p.Index)
		if p.Type != 0 {
			a.Uint16(portType, uint16(p.Type-1))
		}
		if p.Ifindex != 0 {
			a.Uint32(netdevIfindex, uint32(p.Ifindex))
			a.String(netdevName, p.Netdev)
		}
		a.Uint8(splittable, 0)
		a.Uint16(portFlavour, uint16(p.Flavour-1))
		switch p.Flavour { //nolint:exhaustive // the others are numbered
		case devlink.FlavourPCIPF, devlink.FlavourPCIVF, devlink.FlavourPCISF:
			a.Uint32(controller, p.Controller)
			a.Uint16(pciPF, p.PF)
			a.Uint8(external, flag(p.External))
			if p.Flavour == devlink.FlavourPCIVF {
				a.Uint16(pciVF, p.VF)
			}
			if p.Flavour == devlink.FlavourPCISF {
				a.Uint32(pciSF, p.SF)
			}
		default:
			a.Uint32(portNumber, p.Number)
		}
		if f := p.Function; f != nil {
			a.Nested(portFunction, func(a *netlink.AttributeEncoder) error {
				k.function(a, f)
				return nil
			})
		}
	})
}

func (k *Kernel) function(a *netlink.AttributeEncoder, f *devlink.Function) {
	if f.HWAddr != nil {
		a.Bytes(fnHWAddr, f.HWAddr)
	}
	if f.State != 0 {
		a.Uint8(fnState, uint8(f.State-1))
	}
	if f.OpState != 0 {
		a.Uint8(fnOpState, uint8(f.OpState-1))
	}
	if f.Caps.Known != 0 {
		a.Bytes(fnCaps, ne.AppendUint32(ne.AppendUint32(nil, uint32(f.Caps.Enabled)), uint32(f.Caps.Known)))
	}
	if f.Device != nil {
		a.Nested(fnDevlink, func(a *netlink.AttributeEncoder) error {
			handle(a, f.Device.Handle)
			return nil
		})
	}
	if f.MaxIOEQs != nil {
		a.Uint32(fnMaxIOEQs, *f.MaxIOEQs)
	}
}

func flag(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

// tell sends a notification to those who have joined.
func (k *Kernel) tell(command uint8, data []byte) {
	for s := range k.sockets {
		s.answers = append(s.answers, k.message(&netlink.Message{}, command, 0, data))
		s.poke()
	}
}

func (k *Kernel) message(to *netlink.Message, command uint8, flags netlink.HeaderFlags, data []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: familyID, Flags: flags, Sequence: to.Header.Sequence, PID: to.Header.PID},
		Data:   append([]byte{command, 1, 0, 0}, data...),
	}
}

// answer does what a message asks for, and returns what the kernel says to it.
func (k *Kernel) answer(protocol int, m *netlink.Message) []netlink.Message {
	if protocol == unix.NETLINK_ROUTE {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.link(m)
	}
	if m.Header.Type == unix.GENL_ID_CTRL {
		return []netlink.Message{k.controller(m)}
	}
	r := Request{Command: m.Data[0], Flags: m.Header.Flags, Attributes: m.Data[4:]}
	k.mu.Lock()
	k.requests = append(k.requests, r)
	k.mu.Unlock()
	if k.Before != nil {
		k.Before(r)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	refusal := Refusal{}
	if k.Refuse != nil {
		refusal = k.Refuse(r)
	}
	if refusal == (Refusal{}) && k.Answer != nil {
		if a, ok := k.Answer(r); ok {
			return []netlink.Message{k.message(m, r.Command, 0, a), k.verdict(m, refusal)}
		}
	}
	if refusal == (Refusal{}) && r.Flags&netlink.Dump == netlink.Dump {
		return k.list(m, r)
	}
	var answers [][]byte
	if refusal == (Refusal{}) {
		answers, refusal = k.do(r)
	}
	var all []netlink.Message
	for _, a := range answers {
		all = append(all, k.message(m, r.Command, 0, a))
	}
	return append(all, k.verdict(m, refusal))
}

// controller answers CTRL_CMD_GETFAMILY.
func (k *Kernel) controller(m *netlink.Message) netlink.Message {
	data := k.encode(func(a *netlink.AttributeEncoder) {
		a.String(unix.CTRL_ATTR_FAMILY_NAME, "devlink")
		a.Uint16(unix.CTRL_ATTR_FAMILY_ID, familyID)
		a.Nested(unix.CTRL_ATTR_MCAST_GROUPS, func(a *netlink.AttributeEncoder) error {
			a.Nested(1, func(a *netlink.AttributeEncoder) error {
				a.String(unix.CTRL_ATTR_MCAST_GRP_NAME, "config")
				a.Uint32(unix.CTRL_ATTR_MCAST_GRP_ID, groupID)
				return nil
			})
			return nil
		})
	})
	answer := k.message(m, unix.CTRL_CMD_NEWFAMILY, 0, data)
	answer.Header.Type = unix.GENL_ID_CTRL
	return answer
}

// link answers RTM_GETLINK.
func (k *Kernel) link(m *netlink.Message) []netlink.Message {
	ifindex := int(ne.Uint32(m.Data[4:]))
	parent, ok := k.links[ifindex]
	if !ok {
		return []netlink.Message{k.verdict(m, Refusal{Errno: unix.ENODEV})}
	}
	data := make([]byte, unix.SizeofIfInfomsg)
	if parent != (devlink.Handle{}) {
		data = append(data, k.encode(func(a *netlink.AttributeEncoder) {
			a.String(unix.IFLA_PARENT_DEV_NAME, parent.Dev)
			a.String(unix.IFLA_PARENT_DEV_BUS_NAME, parent.Bus)
			for _, p := range k.devices[parent].ports {
				if p.Ifindex == ifindex && k.TellsPort {
					a.Nested(unix.IFLA_DEVLINK_PORT, func(a *netlink.AttributeEncoder) error {
						handle(a, parent)
						a.Uint32(portIndex, p.Index)
						return nil
					})
				}
			}
		})...)
	}
	return []netlink.Message{{Header: netlink.Header{Type: unix.RTM_NEWLINK, Sequence: m.Header.Sequence, PID: m.Header.PID}, Data: data}}
}

// asked are the attributes of a request.
type asked map[uint16][]byte

func parse(b []byte) asked {
	a := asked{}
	for len(b) >= 4 {
		n := int(ne.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		a[ne.Uint16(b[2:])&^(netlink.Nested|netlink.NetByteOrder)] = b[4:n]
		b = b[min((n+3)&^3, len(b)):]
	}
	return a
}

func (a asked) handle() devlink.Handle {
	word := func(typ uint16) string {
		return string(slices.DeleteFunc(slices.Clone(a[typ]), func(c byte) bool { return c == 0 }))
	}
	return devlink.Handle{Bus: word(busName), Dev: word(devName)}
}

func (a asked) u32(typ uint16) uint32 {
	switch v := a[typ]; len(v) {
	case 1:
		return uint32(v[0])
	case 2:
		return uint32(ne.Uint16(v))
	case 4:
		return ne.Uint32(v)
	}
	return 0
}

// do does what a request asks for that is no list.
func (k *Kernel) do(r Request) ([][]byte, Refusal) {
	a := parse(r.Attributes)
	d := k.devices[a.handle()]
	if d == nil {
		return nil, Refusal{Errno: unix.ENODEV}
	}
	switch r.Command {
	case cmdGet:
		return [][]byte{k.encode(func(e *netlink.AttributeEncoder) { handle(e, a.handle()) })}, Refusal{}
	case cmdInfoGet:
		return [][]byte{k.info(d.info)}, Refusal{}
	case cmdEswitchGet:
		if d.eswitch == (devlink.Eswitch{}) {
			return nil, Refusal{Errno: unix.EOPNOTSUPP}
		}
		return [][]byte{k.eswitch(a.handle(), d.eswitch)}, Refusal{}
	case cmdEswitchSet:
		return nil, k.setEswitch(d, a)
	case cmdReload:
		return nil, Refusal{}
	case cmdPortNew:
		return k.newPort(d, a)
	case cmdPortGet, cmdPortSet, cmdPortDel:
		p := d.ports[a.u32(portIndex)]
		if p == nil {
			return nil, Refusal{Errno: unix.ENODEV}
		}
		switch r.Command {
		case cmdPortGet:
			return [][]byte{k.port(p)}, Refusal{}
		case cmdPortDel:
			return nil, k.delPort(d, p)
		}
		return nil, k.setFunction(p, parse(a[portFunction]))
	}
	k.t.Errorf("request %d to a kernel that does not know it", r.Command)
	return nil, Refusal{Errno: unix.EOPNOTSUPP}
}

func (k *Kernel) info(i devlink.Info) []byte {
	return k.encode(func(a *netlink.AttributeEncoder) {
		handle(a, i.Handle)
		a.String(infoDriver, i.Driver)
		a.String(infoSerial, i.Serial)
		for _, v := range i.Running {
			a.Nested(infoRunning, func(a *netlink.AttributeEncoder) error {
				a.String(versionName, v.Name)
				a.String(versionValue, v.Value)
				return nil
			})
		}
	})
}

func (k *Kernel) eswitch(h devlink.Handle, e devlink.Eswitch) []byte {
	return k.encode(func(a *netlink.AttributeEncoder) {
		handle(a, h)
		if e.Mode != 0 {
			a.Uint16(eswitchMode, uint16(e.Mode-1))
		}
		if e.Inline != 0 {
			a.Uint8(eswitchInline, uint8(e.Inline-1))
		}
		if e.Encap != 0 {
			a.Uint8(eswitchEncap, uint8(e.Encap-1))
		}
	})
}

// setEswitch changes modes. Without switchdev there are no ports to subfunctions.
func (k *Kernel) setEswitch(d *device, a asked) Refusal {
	if d.eswitch == (devlink.Eswitch{}) {
		return Refusal{Errno: unix.EOPNOTSUPP}
	}
	if a[eswitchMode] != nil {
		d.eswitch.Mode = devlink.EswitchMode(a.u32(eswitchMode) + 1)
	}
	if a[eswitchInline] != nil {
		d.eswitch.Inline = devlink.InlineMode(a.u32(eswitchInline) + 1)
	}
	if a[eswitchEncap] != nil {
		d.eswitch.Encap = devlink.EncapMode(a.u32(eswitchEncap) + 1)
	}
	if d.eswitch.Mode == devlink.ModeLegacy {
		for _, p := range d.ports {
			if p.Flavour == devlink.FlavourPCISF {
				k.remove(d, p)
			}
		}
	}
	return Refusal{}
}

// newPort makes a subfunction as mlx5 does: first without a network device, which an event tells of.
func (k *Kernel) newPort(d *device, a asked) ([][]byte, Refusal) {
	flavour := devlink.Flavour(a.u32(portFlavour) + 1)
	switch {
	case flavour != devlink.FlavourPCISF:
		return nil, Refusal{Errno: unix.EOPNOTSUPP, Message: "mlx5_core: Driver supports only SF port addition"}
	case a[pciSF] == nil:
		return nil, Refusal{Errno: unix.EOPNOTSUPP, Message: "mlx5_core: User must provide unique sfnum. Driver does not support auto assignment"}
	case d.eswitch.Mode != devlink.ModeSwitchdev:
		return nil, Refusal{Errno: unix.EOPNOTSUPP, Message: "mlx5_core: Port add is only supported in eswitch switchdev mode or SF ports are disabled."}
	}
	const firstSF = 32768
	p := &devlink.Port{
		PortHandle: a.handle().Port(firstSF), Type: devlink.TypeEth, Flavour: flavour, PF: uint16(a.u32(pciPF)), SF: a.u32(pciSF),
		Function: &devlink.Function{
			HWAddr: make([]byte, 6), State: devlink.Inactive, OpState: devlink.Detached, Caps: k.SF.Caps, MaxIOEQs: k.SF.MaxIOEQs,
		},
	}
	for _, other := range d.ports {
		if other.Flavour == flavour && other.SF == p.SF {
			return nil, Refusal{Errno: unix.EEXIST}
		}
	}
	for d.ports[p.Index] != nil {
		p.Index++
	}
	d.ports[p.Index] = p
	answer := k.port(p)
	k.tell(cmdPortNew, answer)
	p.Ifindex, p.Netdev = k.next, "eth"+string(rune('0'+k.next%10))
	k.links[k.next] = p.Handle
	k.next++
	k.tell(cmdPortNew, k.port(p))
	return [][]byte{answer}, Refusal{}
}

// setFunction changes what is behind a port. The driver of a function is bound, and lets go, at once.
func (k *Kernel) setFunction(p *devlink.Port, a asked) Refusal {
	if p.Function == nil {
		return Refusal{Errno: unix.EOPNOTSUPP, Message: "leftover: Port doesn't support function attributes"}
	}
	f := *p.Function
	if b := a[fnHWAddr]; b != nil {
		f.HWAddr = slices.Clone(b)
	}
	if b := a[fnCaps]; b != nil {
		value, selector := devlink.Cap(ne.Uint32(b)), devlink.Cap(ne.Uint32(b[4:]))
		f.Caps.Known |= selector
		f.Caps.Enabled = f.Caps.Enabled&^selector | value&selector
	}
	if a[fnMaxIOEQs] != nil {
		f.MaxIOEQs = new(a.u32(fnMaxIOEQs))
	}
	if a[fnState] != nil {
		f.State = devlink.FunctionState(a.u32(fnState) + 1)
		f.OpState = devlink.FunctionOpState(a.u32(fnState) + 1)
	}
	p.Function = &f
	k.tell(cmdPortNew, k.port(p))
	return Refusal{}
}

func (k *Kernel) delPort(d *device, p *devlink.Port) Refusal {
	if p.Flavour != devlink.FlavourPCISF {
		return Refusal{Errno: unix.EOPNOTSUPP}
	}
	k.remove(d, p)
	return Refusal{}
}

func (k *Kernel) remove(d *device, p *devlink.Port) {
	delete(d.ports, p.Index)
	delete(k.links, p.Ifindex)
	gone := *p
	gone.Type, gone.Ifindex = devlink.TypeNotSet, 0
	k.tell(cmdPortDel, k.port(&gone))
}

// list answers a dump, which is not narrowed, as before 6.6.
func (k *Kernel) list(m *netlink.Message, r Request) (all []netlink.Message) {
	flags := netlink.Multi
	if k.Interrupted {
		flags |= unix.NLM_F_DUMP_INTR
	}
	handles := slices.SortedFunc(maps.Keys(k.devices), func(a, b devlink.Handle) int { return cmp.Compare(b.String(), a.String()) })
	for _, h := range handles {
		switch r.Command {
		case cmdGet:
			all = append(all, k.message(m, cmdNew, flags, k.encode(func(a *netlink.AttributeEncoder) { handle(a, h) })))
		case cmdPortGet:
			for _, i := range slices.Sorted(maps.Keys(k.devices[h].ports)) {
				all = append(all, k.message(m, cmdPortNew, flags, k.port(k.devices[h].ports[i])))
			}
		case cmdHealthReporterGet: // its drivers have none
		default:
			k.t.Errorf("list of %d of a kernel that does not know it", r.Command)
		}
	}
	done := k.message(m, 0, flags, nil)
	done.Header.Type, done.Data = netlink.Done, make([]byte, 4)
	return append(all, done)
}

// verdict is struct nlmsgerr: the error, and the request, or of one that was not refused its header.
func (k *Kernel) verdict(m *netlink.Message, refusal Refusal) netlink.Message {
	request, err := m.MarshalBinary()
	if err != nil {
		k.t.Error(err)
		return netlink.Message{}
	}
	v := netlink.Message{Header: netlink.Header{Type: netlink.Error, Sequence: m.Header.Sequence, PID: m.Header.PID}}
	v.Data = ne.AppendUint32(nil, uint32(-int32(refusal.Errno)))
	if refusal.Errno == 0 {
		v.Data = append(v.Data, request[:unix.NLMSG_HDRLEN]...)
		return v
	}
	v.Data = append(v.Data, request...)
	if refusal.Message != "" || refusal.Offset != 0 {
		v.Header.Flags |= netlink.AcknowledgeTLVs
		v.Data = append(v.Data, k.encode(func(a *netlink.AttributeEncoder) {
			if refusal.Message != "" {
				a.String(unix.NLMSGERR_ATTR_MSG, refusal.Message)
			}
			if refusal.Offset != 0 {
				a.Uint32(unix.NLMSGERR_ATTR_OFFS, uint32(refusal.Offset))
			}
		})...)
	}
	return v
}

// A socket is one of those that are connected to a kernel. It implements netlink.Socket, and what netlink.Conn asks of sockets beyond.
type socket struct {
	kernel   *Kernel
	protocol int
	wake     chan struct{}

	// Guarded by the kernel's mutex.
	answers []netlink.Message
	lost    bool
	ended   bool // its deadline is over
}

func (s *socket) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *socket) Close() error { return s.LeaveGroup(groupID) }

func (s *socket) JoinGroup(group uint32) error {
	s.kernel.mu.Lock()
	defer s.kernel.mu.Unlock()
	if group != groupID {
		return unix.EINVAL
	}
	s.kernel.sockets[s] = struct{}{}
	return nil
}

func (s *socket) LeaveGroup(uint32) error {
	s.kernel.mu.Lock()
	defer s.kernel.mu.Unlock()
	delete(s.kernel.sockets, s)
	return nil
}

func (s *socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline knows only deadlines that are over, and none.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.kernel.mu.Lock()
	defer s.kernel.mu.Unlock()
	s.ended = !t.IsZero()
	s.poke()
	return nil
}

func (s *socket) Send(m netlink.Message) error { return s.SendMessages([]netlink.Message{m}) }

func (s *socket) SendMessages(all []netlink.Message) error {
	for i := range all {
		answers := s.kernel.answer(s.protocol, &all[i])
		s.kernel.mu.Lock()
		s.answers = append(s.answers, answers...)
		s.kernel.mu.Unlock()
	}
	return nil
}

// Receive returns one message, as the kernel's datagrams have.
func (s *socket) Receive() ([]netlink.Message, error) {
	for {
		s.kernel.mu.Lock()
		m, ok, err := s.take()
		s.kernel.mu.Unlock()
		if ok {
			return m, err
		}
		<-s.wake
	}
}

func (s *socket) take() (m []netlink.Message, ok bool, err error) {
	switch {
	case s.lost:
		s.lost = false
		return nil, true, os.NewSyscallError("recvmsg", unix.ENOBUFS)
	case len(s.answers) > 0:
		m, s.answers = s.answers[:1], s.answers[1:]
		return m, true, nil
	case s.ended:
		return nil, true, os.ErrDeadlineExceeded
	}
	return nil, false, nil
}

func (s *socket) ReceiveIter() iter.Seq2[netlink.Message, error] {
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
