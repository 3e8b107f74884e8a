package tc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/ir"
)

// A peer answers like the kernel: refusals always, an acknowledgement to those who ask. refuse says what of a request.
type peer struct {
	t        *testing.T
	refuse   func(netlink.Message) (errno unix.Errno, message string)
	list     []netlink.Message // what a dump finds
	requests [][]netlink.Message
	answers  []netlink.Message
	fail     error // of the next receive
}

func (p *peer) conn() *Conn { return NewConn(netlink.NewConn(p, 42)) }

func (p *peer) Close() error { return nil }

func (p *peer) Send(m netlink.Message) error { return p.SendMessages([]netlink.Message{m}) }

func (p *peer) SendMessages(ms []netlink.Message) error {
	p.requests = append(p.requests, append([]netlink.Message(nil), ms...))
	for _, m := range ms {
		var errno unix.Errno
		var message string
		if p.refuse != nil {
			errno, message = p.refuse(m)
		}
		switch {
		case errno != 0 || m.Header.Flags&netlink.Acknowledge != 0:
			p.answers = append(p.answers, p.answer(m, errno, message))
		case m.Header.Flags&netlink.Dump == netlink.Dump:
			for _, l := range p.list {
				l.Header.Sequence, l.Header.Flags = m.Header.Sequence, l.Header.Flags|netlink.Multi
				p.answers = append(p.answers, l)
			}
			p.answers = append(p.answers, netlink.Message{Header: netlink.Header{Type: netlink.Done, Flags: netlink.Multi, Sequence: m.Header.Sequence}, Data: make([]byte, 4)})
		}
	}
	return nil
}

// answer is struct nlmsgerr, the request, and the explanation.
func (p *peer) answer(m netlink.Message, errno unix.Errno, message string) netlink.Message {
	b, err := m.MarshalBinary()
	if err != nil {
		p.t.Fatal(err)
	}
	a := netlink.Message{Header: netlink.Header{Type: netlink.Error, Sequence: m.Header.Sequence, PID: m.Header.PID}, Data: ne.AppendUint32(nil, uint32(-int32(errno)))}
	a.Data = append(a.Data, b...)
	if message != "" {
		a.Header.Flags |= netlink.AcknowledgeTLVs
		a.Data = appendString(a.Data, 1, message) // NLMSGERR_ATTR_MSG
	}
	return a
}

// Receive returns one message, as the kernel's datagrams have.
func (p *peer) Receive() ([]netlink.Message, error) {
	if p.fail != nil {
		return nil, p.fail
	}
	if len(p.answers) == 0 {
		p.t.Error("somebody waits for an answer that does not come")
		return nil, io.ErrUnexpectedEOF
	}
	m := p.answers[0]
	p.answers = p.answers[1:]
	return []netlink.Message{m}, nil
}

func (p *peer) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		ms, err := p.Receive()
		if err != nil {
			yield(netlink.Message{}, err)
			return
		}
		for _, m := range ms {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// What is asked for: the payloads are those of encode.go, the flags say whether the filter may exist.
func TestApplyRequests(t *testing.T) {
	f := examples(t)[1]
	target := Target{Block: 3}
	filter, err := AppendFilter(nil, target, &f)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		op    Op
		typ   netlink.HeaderType
		flags netlink.HeaderFlags
		data  []byte
	}{
		{AddOp(&f), 44, netlink.Request | netlink.Create | netlink.Excl | netlink.Acknowledge, filter},
		{ReplaceOp(&f), 44, netlink.Request | netlink.Replace | netlink.Acknowledge, filter},
		{DeleteOp(f.Key()), 45, netlink.Request | netlink.Acknowledge, AppendKey(nil, target, f.Key())},
	} {
		p := &peer{t: t}
		refused, err := p.conn().Apply(t.Context(), target, []Op{c.op})
		if err != nil || refused != nil || len(p.requests) != 1 || len(p.requests[0]) != 1 {
			t.Fatalf("Apply(%v) = %v, %v after %v", c.op, refused, err, p.requests)
		}
		m := p.requests[0][0]
		if m.Header.Type != c.typ || m.Header.Flags != c.flags || !bytes.Equal(m.Data, c.data) {
			t.Errorf("Apply(%v) sends %+v %x, want type %d flags %v %x", c.op, m.Header, m.Data, c.typ, c.flags, c.data)
		}
	}
	if refused, err := (&peer{t: t}).conn().Apply(t.Context(), target, nil); err != nil || refused != nil {
		t.Errorf("Apply(nothing) = %v, %v", refused, err)
	}
}

// Each error of the kernel, for each call that it can be an answer to.
func TestRefusals(t *testing.T) {
	f := examples(t)[1]
	target := Target{Ifindex: 7}
	apply := func(op Op) func(*Conn) error {
		return func(c *Conn) error {
			refused, err := c.Apply(t.Context(), target, []Op{op})
			if err != nil || len(refused) != 1 || refused[0].Index != 0 || refused[0].Op.Verb != op.Verb {
				t.Errorf("Apply(%v) = %v, %v", op, refused, err)
				return err
			}
			return &refused[0]
		}
	}
	clsact := func(c *Conn) error { return c.EnsureClsact(t.Context(), 7, 3) }
	remove := func(c *Conn) error { return c.DeleteClsact(t.Context(), 7) }
	dump := func(c *Conn) error {
		return c.Dump(t.Context(), target, DumpOptions{}, func(*Installed) error { return nil })
	}
	for _, c := range []struct {
		name    string
		call    func(*Conn) error
		errno   unix.Errno
		message string
		want    error
		text    string
	}{
		{"add", apply(AddOp(&f)), unix.EEXIST, "Filter already exists", unix.EEXIST, "file exists (Filter already exists)"},
		{"add", apply(AddOp(&f)), unix.EINVAL, "new and est are mutually exclusive", unix.EINVAL, "(new and est are mutually exclusive)"},
		{"add", apply(AddOp(&f)), unix.ENOENT, "", unix.ENOENT, "no such file or directory"},
		{"add", apply(AddOp(&f)), unix.EBUSY, "mlx5_core: busy", unix.EBUSY, "(mlx5_core: busy)"},
		{"add", apply(AddOp(&f)), unix.EOPNOTSUPP, "match not supported", unix.EOPNOTSUPP, "(match not supported)"},
		{"replace", apply(ReplaceOp(&f)), unix.ENOENT, "", unix.ENOENT, "tc filter replace chain 0 pref 20"},
		{"replace", apply(ReplaceOp(&f)), unix.EINVAL, "", unix.EINVAL, "invalid argument"},
		{"delete", apply(DeleteOp(f.Key())), unix.ENOENT, "", unix.ENOENT, "tc filter del chain 0 pref 20 handle 0x2"},
		{"clsact", clsact, unix.ENODEV, "", unix.ENODEV, "device 7, block 3"},
		{"clsact", clsact, unix.EEXIST, "Exclusivity flag on", unix.EEXIST, "it has a ingress qdisc of block 0"},
		{"remove", remove, unix.ENOENT, "", nil, ""},
		{"remove", remove, unix.ENODEV, "", nil, ""},
		{"remove", remove, unix.EINVAL, "Invalid qdisc name", unix.EINVAL, "Invalid qdisc name"},
		{"remove", remove, unix.EBUSY, "", unix.EBUSY, "device 7"},
		{"dump", dump, unix.EINVAL, "", unix.EINVAL, "dump dev if7 ingress: invalid argument"},
		{"dump", dump, unix.EBUSY, "", unix.EBUSY, ""},
	} {
		ingress := append(appendRawTcmsg(nil, 7, handleClsact, parentClsact, 0), appendString(nil, tcaKind, "ingress")...)
		p := &peer{t: t, list: []netlink.Message{{Header: netlink.Header{Type: rtmNewQdisc}, Data: ingress}}}
		p.refuse = func(m netlink.Message) (unix.Errno, string) {
			if m.Header.Type == rtmGetQdisc {
				return 0, ""
			}
			return c.errno, c.message
		}
		conn := p.conn()
		err := c.call(conn)
		switch {
		case c.want == nil && err != nil:
			t.Errorf("%s, %v: %v, want nil", c.name, c.errno, err)
		case c.want != nil && (!errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text)):
			t.Errorf("%s, %v: %v, want %v with %q", c.name, c.errno, err, c.want, c.text)
		}
		// A refusal is not the end of the connection.
		p.refuse = nil
		if refused, err := conn.Apply(t.Context(), target, []Op{AddOp(&f)}); err != nil || refused != nil {
			t.Errorf("after %s, %v: %v, %v", c.name, c.errno, refused, err)
		}
	}
}

// Lost answers end the connection, since nobody knows what was done.
func TestLostAnswers(t *testing.T) {
	f := examples(t)[1]
	for _, fail := range []error{unix.ENOBUFS, io.ErrUnexpectedEOF} {
		p := &peer{t: t, fail: fail}
		c := p.conn()
		if _, err := c.Apply(t.Context(), Target{Block: 1}, []Op{AddOp(&f)}); !errors.Is(err, fail) {
			t.Errorf("Apply = %v, want %v", err, fail)
		}
		p.fail = nil
		if _, err := c.Apply(t.Context(), Target{Block: 1}, []Op{AddOp(&f)}); !errors.Is(err, ErrEnded) {
			t.Errorf("Apply after it = %v, want ErrEnded", err)
		}
		if err := c.Dump(t.Context(), Target{Block: 1}, DumpOptions{}, nil); !errors.Is(err, ErrEnded) {
			t.Errorf("Dump after it = %v, want ErrEnded", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := &peer{t: t}
	if _, err := p.conn().Apply(ctx, Target{Block: 1}, []Op{AddOp(&f)}); !errors.Is(err, context.Canceled) || len(p.requests) != 0 {
		t.Errorf("Apply of a context that has ended = %v after %d requests", err, len(p.requests))
	}
}

// A thousand operations go out in a few system calls, one acknowledgement each, and every refusal is that of its operation,
// also if it cannot be sent.
func TestBatches(t *testing.T) {
	g := newGen(t)
	var ops []Op
	want := map[int]bool{}
	for i := range 1000 {
		f := g.filter(Key{1, uint16(1 + i), 1})
		switch {
		case i%10 == 3:
			f.Match = f.Match.Eq(ir.Reg0, 1) // no key
			want[i] = true
		case i%7 == 0:
			f.Handle = 666
			want[i] = true
		}
		ops = append(ops, AddOp(&f))
	}
	p := &peer{t: t, refuse: func(m netlink.Message) (unix.Errno, string) {
		if ne.Uint32(m.Data[8:]) == 666 {
			return unix.EEXIST, "as asked"
		}
		return 0, ""
	}}
	refused, err := p.conn().Apply(t.Context(), Target{Block: 1}, ops)
	if err != nil || len(refused) != len(want) {
		t.Fatalf("%d of %d refused, %v", len(refused), len(want), err)
	}
	for i, r := range refused {
		if !want[r.Index] || r.Op.Key != ops[r.Index].Key || i > 0 && refused[i-1].Index >= r.Index {
			t.Errorf("%d refused: %v", r.Index, &r)
		}
	}
	for _, ms := range p.requests {
		size := 0
		for i, m := range ms {
			size += len(m.Data)
			if last := i == len(ms)-1; last != (m.Header.Flags&netlink.Acknowledge != 0) {
				t.Errorf("message %d of %d has flags %v", i, len(ms), m.Header.Flags)
			}
		}
		if len(ms) > batchMessages || size > batchBytes {
			t.Errorf("a batch of %d messages, %d bytes", len(ms), size)
		}
	}
	if len(p.requests) > 12 {
		t.Errorf("%d system calls", len(p.requests))
	}
}

func TestDump(t *testing.T) {
	fs := examples(t)[:3]
	p := &peer{t: t}
	for i := range fs {
		b, err := AppendFilter(nil, Target{Block: 1}, &fs[i])
		if err != nil {
			t.Fatal(err)
		}
		p.list = append(p.list, netlink.Message{Header: netlink.Header{Type: rtmNewTFilter}, Data: b})
	}
	head := appendString(appendTcmsg(nil, Target{Block: 1}, 0, 10, ProtocolAll), tcaKind, kindFlower)
	p.list = append(p.list, netlink.Message{Header: netlink.Header{Type: rtmNewTFilter}, Data: head})
	c := p.conn()
	var got []string
	chain := uint32(5)
	if err := c.Dump(t.Context(), Target{Block: 1}, DumpOptions{Terse: true, Chain: &chain}, func(in *Installed) error {
		got = append(got, in.Filter.String())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{fs[0].String(), fs[1].String(), fs[2].String()}, got); d != "" {
		t.Errorf("Dump (-want +got):\n%s", d)
	}
	m := p.requests[0][0]
	want := appendAttr(appendU32(appendTcmsg(nil, Target{Block: 1}, 0, 0, 0), tcaChain, 5), tcaDumpFlags, []byte{1, 0, 0, 0, 1, 0, 0, 0})
	if littleEndian && !bytes.Equal(m.Data, want) || m.Header.Type != rtmGetTFilter || m.Header.Flags != netlink.Request|netlink.Dump {
		t.Errorf("Dump sends %+v %x, want %x", m.Header, m.Data, want)
	}

	// The caller's error ends the listing, not the connection.
	stop := errors.New("stop")
	n := 0
	if err := c.Dump(t.Context(), Target{Block: 1}, DumpOptions{}, func(*Installed) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("Dump = %v after %d calls", err, n)
	}
	p.list[0].Header.Flags = flagDumpInterrupted
	if err := c.Dump(t.Context(), Target{Block: 1}, DumpOptions{}, func(*Installed) error { return nil }); !errors.Is(err, ErrInterrupted) {
		t.Errorf("Dump = %v, want ErrInterrupted", err)
	}
}

func TestMonitor(t *testing.T) {
	f := examples(t)[1]
	b, err := AppendFilter(nil, Target{Ifindex: 7}, &f)
	if err != nil {
		t.Fatal(err)
	}
	link := make([]byte, ifinfomsgSize)
	ne.PutUint32(link[4:], 7)
	link = appendString(link, iflaIfname, "eth7")
	bridge := append([]byte(nil), link...)
	bridge[0] = unix.AF_BRIDGE
	root := appendRawTcmsg(nil, 7, 0x10000, 0xffffffff, 0)
	events := [][]netlink.Message{
		{{Header: netlink.Header{Type: rtmNewTFilter, PID: 99}, Data: b}, {Header: netlink.Header{Type: rtmDelTFilter}, Data: b}},
		nil, // ENOBUFS
		{{Header: netlink.Header{Type: rtmDelLink}, Data: link}, {Header: netlink.Header{Type: rtmNewLink}, Data: bridge}, {Header: netlink.Header{Type: 20}}},
		{{Header: netlink.Header{Type: rtmNewQdisc}, Data: clsactOf(7, 3)}, {Header: netlink.Header{Type: rtmNewQdisc}, Data: root}},
		{{Header: netlink.Header{Type: rtmNewTFilter}, Data: b[:7]}, {Header: netlink.Header{Type: rtmDelQdisc}, Data: clsactOf(7, 0)}},
	}
	m := NewMonitor(nltest.Dial(func([]netlink.Message) ([]netlink.Message, error) {
		if len(events) == 0 {
			return nil, unix.ENETDOWN
		}
		e := events[0]
		events = events[1:]
		if e == nil {
			return nil, unix.ENOBUFS
		}
		return e, nil
	}))
	in := &Installed{Target: Target{Ifindex: 7}, Kind: "flower", Filter: f}
	for _, want := range []Event{
		{Kind: FilterNew, Filter: in, Port: 99},
		{Kind: FilterGone, Filter: in},
		{Kind: Resync},
		{Kind: LinkGone, Ifindex: 7, Name: "eth7"},
		{Kind: QdiscNew, Qdisc: Qdisc{7, "clsact", 3}},
		{Kind: QdiscGone, Qdisc: Qdisc{7, "clsact", 0}},
	} {
		got, err := m.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.Filter != nil {
			got.Filter.Actions = nil
		}
		if d := cmp.Diff(want, got, cmpFilters); d != "" {
			t.Errorf("Next (-want +got):\n%s", d)
		}
	}
	if _, err := m.Next(t.Context()); !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("Next = %v", err)
	}
}
