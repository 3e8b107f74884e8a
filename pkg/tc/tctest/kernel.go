// Package tctest fakes the kernel at the netlink socket, for tests of what installs and lists TC filters.
package tctest

import (
	"cmp"
	"encoding/binary"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Kernel has filters and qdiscs, and answers requests for them as the kernel does: refusals always, an acknowledgement to those who
// ask for one, and one message of a list after the other. It knows filters by where they are, not what they mean: it takes those that a
// kernel would find wrong, and its lists are never terse. Filters need no device. Their target is a block, or a device's ingress.
//
// Its fields are not changed while it answers. It fails the test if it is asked for something that it does not know.
type Kernel struct {
	dialled atomic.Uint32

	// Refuse, if not nil, says what a request is refused with; 0: it is not. message is the kernel's explanation, or "".
	Refuse func(netlink.Message) (errno unix.Errno, message string)

	// Makes, if not nil, returns what becomes of a filter that is installed, given the payload of RTM_NEWTFILTER; nil: it is lost. Old
	// kernels leave out what they do not know.
	Makes func(payload []byte) []byte

	// NIC, if not nil, says of the payload of RTM_NEWTFILTER whether a NIC takes the filter for a device that has its target, 0 if there is
	// none at all, whenever the filter is listed. It is not asked of those with skip_hw.
	NIC func(payload []byte, ifindex int) bool

	// Bare, if not nil, says of a device that its own driver takes no filters: it may have a block only while none of its filters is in hardware.
	Bare func(ifindex int) bool

	// Interrupted says that something changes during each list.
	Interrupted bool

	// Lost, if not nil, is what reading from a socket fails with.
	Lost error

	t  testing.TB
	mu sync.Mutex // guards what follows

	requests [][]netlink.Message
	filters  map[place][]byte
	qdiscs   map[uint32][]byte // by ifindex
}

// NewKernel returns a Kernel without filters.
func NewKernel(t testing.TB) *Kernel {
	return &Kernel{t: t, filters: map[place][]byte{}, qdiscs: map[uint32][]byte{}}
}

// Filter makes the kernel have a filter, given the payload of RTM_NEWTFILTER.
func (k *Kernel) Filter(payload []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.filters[placeOf(payload)] = payload
}

// Qdisc makes the kernel have a qdisc for a device's ingress: of kind clsact or ingress, with the filters of a block; 0: its own.
func (k *Kernel) Qdisc(ifindex int, kind string, block uint32) {
	b := make([]byte, tcmsgSize)
	ne.PutUint32(b[4:], uint32(ifindex))
	ne.PutUint32(b[8:], 0xffff0000)  // of both kinds
	ne.PutUint32(b[12:], 0xfffffff1) // TC_H_CLSACT, which is TC_H_INGRESS
	attrs := netlink.NewAttributeEncoder()
	attrs.String(unix.TCA_KIND, kind)
	if block != 0 {
		attrs.Uint32(unix.TCA_INGRESS_BLOCK, block)
	}
	b = append(b, k.encode(attrs)...)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.qdiscs[uint32(ifindex)] = b
}

// Requests returns what has been sent to the kernel so far, by system call.
func (k *Kernel) Requests() [][]netlink.Message {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.requests)
}

// Dial opens a socket. The first has the number 42, the next 43.
func (k *Kernel) Dial() *netlink.Conn {
	return netlink.NewConn(&socket{kernel: k}, 41+k.dialled.Add(1))
}

var ne = binary.NativeEndian

const tcmsgSize = 20

// A place is where a filter is.
type place struct {
	ifindex, parent uint32 // of a block: TCM_IFINDEX_MAGIC_BLOCK, and its index
	chain           uint32
	pref            uint16
	handle          uint32
}

// placeOf reads struct tcmsg and TCA_CHAIN.
func placeOf(b []byte) place {
	p := place{ifindex: ne.Uint32(b[4:]), parent: ne.Uint32(b[12:]), pref: uint16(ne.Uint32(b[16:]) >> 16), handle: ne.Uint32(b[8:])}
	if chain := attribute(b[tcmsgSize:], unix.TCA_CHAIN); chain != nil {
		p.chain = ne.Uint32(chain)
	}
	return p
}

// The kernel's order is that of chains and prefs; handles are in any.
func comparePlaces(a, b place) int {
	return cmp.Or(
		cmp.Compare(a.ifindex, b.ifindex), cmp.Compare(a.parent, b.parent),
		cmp.Compare(a.chain, b.chain), cmp.Compare(a.pref, b.pref), cmp.Compare(a.handle, b.handle),
	)
}

// attribute returns the value of an attribute in place, nil if there is none.
func attribute(b []byte, typ uint16) []byte {
	for len(b) >= 4 {
		n := int(ne.Uint16(b))
		if n < 4 || n > len(b) {
			return nil
		}
		if ne.Uint16(b[2:])&^(netlink.Nested|netlink.NetByteOrder) == typ {
			return b[4:n]
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

func (k *Kernel) encode(e *netlink.AttributeEncoder) []byte {
	b, err := e.Encode()
	if err != nil {
		k.t.Error(err)
	}
	return b
}

// answer does what a message asks for, and returns what the kernel says to it.
func (k *Kernel) answer(m *netlink.Message) []netlink.Message {
	k.mu.Lock()
	defer k.mu.Unlock()
	errno, message := unix.Errno(0), ""
	if k.Refuse != nil {
		errno, message = k.Refuse(*m)
	}
	if errno == 0 && m.Header.Flags&netlink.Dump == netlink.Dump {
		return k.list(m)
	}
	if errno == 0 && m.Header.Type == unix.RTM_GETTFILTER {
		if filter, exists := k.filters[placeOf(m.Data)]; exists {
			return []netlink.Message{reply(m, unix.RTM_NEWTFILTER, 0, k.listed(filter))}
		}
		errno = unix.ENOENT
	}
	if errno == 0 {
		errno = k.do(m)
	}
	if errno == 0 && m.Header.Flags&netlink.Acknowledge == 0 {
		return nil
	}
	return []netlink.Message{k.verdict(m, errno, message)}
}

// do changes what there is.
func (k *Kernel) do(m *netlink.Message) unix.Errno {
	at := placeOf(m.Data)
	switch m.Header.Type { //nolint:exhaustive // these are not all that a kernel knows
	case unix.RTM_NEWTFILTER:
		switch _, exists := k.filters[at]; {
		case exists && m.Header.Flags&netlink.Excl != 0:
			return unix.EEXIST
		case !exists && m.Header.Flags&netlink.Create == 0:
			return unix.ENOENT
		}
		if k.filters[at] = m.Data; k.Makes != nil {
			k.filters[at] = k.Makes(m.Data)
		}
		if k.filters[at] == nil {
			delete(k.filters, at)
		}
	case unix.RTM_DELTFILTER:
		if _, exists := k.filters[at]; !exists {
			return unix.ENOENT
		}
		delete(k.filters, at)
	case unix.RTM_NEWQDISC:
		if _, exists := k.qdiscs[at.ifindex]; exists {
			return unix.EEXIST
		}
		if k.Bare != nil && k.Bare(int(at.ifindex)) && k.inHardware(attribute(m.Data[tcmsgSize:], unix.TCA_INGRESS_BLOCK)) {
			return unix.EOPNOTSUPP
		}
		k.qdiscs[at.ifindex] = m.Data
	case unix.RTM_DELQDISC:
		if _, exists := k.qdiscs[at.ifindex]; !exists {
			return unix.ENOENT
		}
		delete(k.qdiscs, at.ifindex)
		// A block goes with its last device.
		maps.DeleteFunc(k.filters, func(p place, _ []byte) bool {
			return p.ifindex == magicBlock && (len(k.qdiscs) == 0 || len(k.devices(p)) == 0)
		})
	default:
		k.t.Errorf("request of type %d to a kernel that does not know it", m.Header.Type)
		return unix.EOPNOTSUPP
	}
	return 0
}

// verdict is struct nlmsgerr: the error, and the request, or of one that was not refused its header.
func (k *Kernel) verdict(m *netlink.Message, errno unix.Errno, message string) netlink.Message {
	request, err := m.MarshalBinary()
	if err != nil {
		k.t.Error(err)
		return netlink.Message{}
	}
	a := reply(m, netlink.Error, 0, ne.AppendUint32(nil, uint32(-int32(errno))))
	if errno == 0 {
		request = request[:unix.NLMSG_HDRLEN]
	}
	a.Data = append(a.Data, request...)
	if message != "" {
		a.Header.Flags |= netlink.AcknowledgeTLVs
		attrs := netlink.NewAttributeEncoder()
		attrs.String(unix.NLMSGERR_ATTR_MSG, message)
		a.Data = append(a.Data, k.encode(attrs)...)
	}
	return a
}

// list answers a dump.
func (k *Kernel) list(m *netlink.Message) (all []netlink.Message) {
	flags := netlink.Multi
	if k.Interrupted {
		flags |= unix.NLM_F_DUMP_INTR
	}
	switch m.Header.Type { //nolint:exhaustive // nothing else is listed
	case unix.RTM_GETQDISC:
		for _, ifindex := range slices.Sorted(maps.Keys(k.qdiscs)) {
			all = append(all, reply(m, unix.RTM_NEWQDISC, flags, k.qdiscs[ifindex]))
		}
	case unix.RTM_GETTFILTER:
		of, oneChain := placeOf(m.Data), attribute(m.Data[tcmsgSize:], unix.TCA_CHAIN) != nil
		var before place
		for _, at := range slices.SortedFunc(maps.Keys(k.filters), comparePlaces) {
			if at.ifindex != of.ifindex || at.parent != of.parent || oneChain && at.chain != of.chain {
				continue
			}
			if len(all) == 0 || at.chain != before.chain || at.pref != before.pref {
				all = append(all, reply(m, unix.RTM_NEWTFILTER, flags, k.head(k.filters[at])))
			}
			before = at
			all = append(all, reply(m, unix.RTM_NEWTFILTER, flags, k.listed(k.filters[at])))
		}
	default:
		k.t.Errorf("list of type %d of a kernel that does not know it", m.Header.Type)
	}
	return append(all, reply(m, netlink.Done, flags, make([]byte, 4)))
}

// head returns what the kernel says of a pref before it lists its filters: the payload of a filter without handle and options.
func (k *Kernel) head(filter []byte) []byte {
	b := slices.Clone(filter[:tcmsgSize])
	ne.PutUint32(b[8:], 0)
	attrs := netlink.NewAttributeEncoder()
	attrs.String(unix.TCA_KIND, "flower")
	attrs.Uint32(unix.TCA_CHAIN, placeOf(filter).chain)
	return append(b, k.encode(attrs)...)
}

// TCA_CLS_FLAGS_*.
const skipHW, inHW, notInHW = 1 << 0, 1 << 2, 1 << 3

// flowerFlags returns TCA_FLOWER_FLAGS in place, nil if it is not a filter of flower.
func flowerFlags(filter []byte) []byte {
	return attribute(attribute(filter[tcmsgSize:], unix.TCA_OPTIONS), 22)
}

// listed returns a filter with what the kernel says of where it is.
func (k *Kernel) listed(filter []byte) []byte {
	b := slices.Clone(filter)
	flags := flowerFlags(b)
	if flags == nil {
		return b // not a filter of flower
	}
	has := ne.Uint32(flags)
	n := uint32(0)
	if has&skipHW == 0 && k.NIC != nil {
		for _, ifindex := range k.devices(placeOf(filter)) {
			if k.NIC(filter, ifindex) {
				n++
			}
		}
	}
	if n > 0 {
		has |= inHW
	} else {
		has |= notInHW
	}
	ne.PutUint32(flags, has)
	return count(b, n)
}

// inHardware reports whether a NIC has a filter of a block.
func (k *Kernel) inHardware(block []byte) bool {
	for at, filter := range k.filters {
		if at.ifindex != magicBlock || block == nil || at.parent != ne.Uint32(block) {
			continue
		}
		if flags := flowerFlags(k.listed(filter)); flags != nil && ne.Uint32(flags)&inHW != 0 {
			return true
		}
	}
	return false
}

// devices returns those whose ingress has the filters of a target.
func (k *Kernel) devices(of place) []int {
	if of.ifindex != magicBlock {
		return []int{int(of.ifindex)}
	}
	if len(k.qdiscs) == 0 {
		return []int{0}
	}
	var all []int
	for _, ifindex := range slices.Sorted(maps.Keys(k.qdiscs)) {
		if block := attribute(k.qdiscs[ifindex][tcmsgSize:], unix.TCA_INGRESS_BLOCK); block != nil && ne.Uint32(block) == of.parent {
			all = append(all, int(ifindex))
		}
	}
	return all
}

// magicBlock is TCM_IFINDEX_MAGIC_BLOCK.
const magicBlock = 0xffffffff

// count adds to a filter how many devices have it in hardware.
func count(b []byte, n uint32) []byte {
	const inHWCount = 86 // TCA_FLOWER_IN_HW_COUNT
	out := slices.Clone(b[:tcmsgSize])
	for rest := b[tcmsgSize:]; len(rest) >= 4; {
		size := int(ne.Uint16(rest))
		if size < 4 || size > len(rest) {
			break
		}
		padded := min((size+3)&^3, len(rest))
		at := len(out)
		out = append(out, rest[:padded]...)
		if ne.Uint16(rest[2:])&^(netlink.Nested|netlink.NetByteOrder) == unix.TCA_OPTIONS {
			out = ne.AppendUint16(out, 8)
			out = ne.AppendUint16(out, inHWCount)
			out = ne.AppendUint32(out, n)
			ne.PutUint16(out[at:], uint16(len(out)-at))
		}
		rest = rest[padded:]
	}
	return out
}

// reply returns an answer to a message.
func reply(to *netlink.Message, typ netlink.HeaderType, flags netlink.HeaderFlags, data []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: typ, Flags: flags, Sequence: to.Header.Sequence, PID: to.Header.PID}, Data: data}
}

// A socket is one of those that are connected to a kernel. It implements netlink.Socket.
type socket struct {
	kernel  *Kernel
	answers []netlink.Message
}

func (s *socket) Close() error { return nil }

func (s *socket) Send(m netlink.Message) error { return s.SendMessages([]netlink.Message{m}) }

func (s *socket) SendMessages(all []netlink.Message) error {
	s.kernel.mu.Lock()
	s.kernel.requests = append(s.kernel.requests, slices.Clone(all))
	s.kernel.mu.Unlock()
	for i := range all {
		s.answers = append(s.answers, s.kernel.answer(&all[i])...)
	}
	return nil
}

// Receive returns one message, as the kernel's datagrams have.
func (s *socket) Receive() ([]netlink.Message, error) {
	if s.kernel.Lost != nil {
		return nil, s.kernel.Lost
	}
	if len(s.answers) == 0 {
		s.kernel.t.Error("somebody waits for an answer that does not come")
		return nil, io.ErrUnexpectedEOF
	}
	m := s.answers[0]
	s.answers = s.answers[1:]
	return []netlink.Message{m}, nil
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
