package tc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// filterOf returns the payload that makes a kernel have f.
func filterOf(t *testing.T, target Target, f *Filter) []byte {
	t.Helper()
	b, err := AppendFilter(nil, target, f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is asked for: the payloads are those of encode.go, the flags say whether the filter may exist.
func TestApplyRequests(t *testing.T) {
	f := examples(t)[1]
	target := Target{Block: 3}
	filter := filterOf(t, target, &f)
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
		k := tctest.NewKernel(t)
		if c.op.Verb != Add {
			k.Filter(filter)
		}
		refused, err := NewConn(k.Dial()).Apply(t.Context(), target, []Op{c.op})
		requests := k.Requests()
		if err != nil || refused != nil || len(requests) != 1 || len(requests[0]) != 1 {
			t.Fatalf("Apply(%v) = %v, %v after %v", c.op, refused, err, requests)
		}
		m := requests[0][0]
		if m.Header.Type != c.typ || m.Header.Flags != c.flags || !bytes.Equal(m.Data, c.data) {
			t.Errorf("Apply(%v) sends %+v %x, want type %d flags %v %x", c.op, m.Header, m.Data, c.typ, c.flags, c.data)
		}
	}
	if refused, err := NewConn(tctest.NewKernel(t).Dial()).Apply(t.Context(), target, nil); err != nil || refused != nil {
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
		k := tctest.NewKernel(t)
		k.Qdisc(7, "ingress", 0)
		k.Refuse = func(m netlink.Message) (unix.Errno, string) {
			if m.Header.Type == rtmGetQdisc {
				return 0, ""
			}
			return c.errno, c.message
		}
		conn := NewConn(k.Dial())
		err := c.call(conn)
		switch {
		case c.want == nil && err != nil:
			t.Errorf("%s, %v: %v, want nil", c.name, c.errno, err)
		case c.want != nil && (!errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text)):
			t.Errorf("%s, %v: %v, want %v with %q", c.name, c.errno, err, c.want, c.text)
		}
		// A refusal is not the end of the connection.
		k.Refuse = nil
		if refused, err := conn.Apply(t.Context(), target, []Op{AddOp(&f)}); err != nil || refused != nil {
			t.Errorf("after %s, %v: %v, %v", c.name, c.errno, refused, err)
		}
	}
}

// Lost answers end the connection, since nobody knows what was done.
func TestLostAnswers(t *testing.T) {
	f := examples(t)[1]
	for _, fail := range []error{unix.ENOBUFS, io.ErrUnexpectedEOF} {
		k := tctest.NewKernel(t)
		k.Lost = fail
		c := NewConn(k.Dial())
		if _, err := c.Apply(t.Context(), Target{Block: 1}, []Op{AddOp(&f)}); !errors.Is(err, fail) {
			t.Errorf("Apply = %v, want %v", err, fail)
		}
		k.Lost = nil
		if _, err := c.Apply(t.Context(), Target{Block: 1}, []Op{AddOp(&f)}); !errors.Is(err, ErrEnded) {
			t.Errorf("Apply after it = %v, want ErrEnded", err)
		}
		if err := c.Dump(t.Context(), Target{Block: 1}, DumpOptions{}, nil); !errors.Is(err, ErrEnded) {
			t.Errorf("Dump after it = %v, want ErrEnded", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := tctest.NewKernel(t)
	if _, err := NewConn(k.Dial()).Apply(ctx, Target{Block: 1}, []Op{AddOp(&f)}); !errors.Is(err, context.Canceled) || len(k.Requests()) != 0 {
		t.Errorf("Apply of a context that has ended = %v after %d requests", err, len(k.Requests()))
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
	k := tctest.NewKernel(t)
	k.Refuse = func(m netlink.Message) (unix.Errno, string) {
		if ne.Uint32(m.Data[8:]) == 666 {
			return unix.EEXIST, "as asked"
		}
		return 0, ""
	}
	refused, err := NewConn(k.Dial()).Apply(t.Context(), Target{Block: 1}, ops)
	if err != nil || len(refused) != len(want) {
		t.Fatalf("%d of %d refused, %v", len(refused), len(want), err)
	}
	for i, r := range refused {
		if !want[r.Index] || r.Op.Key != ops[r.Index].Key || i > 0 && refused[i-1].Index >= r.Index {
			t.Errorf("%d refused: %v", r.Index, &r)
		}
	}
	for _, ms := range k.Requests() {
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
	if n := len(k.Requests()); n > 12 {
		t.Errorf("%d system calls", n)
	}
}

func TestDump(t *testing.T) {
	k := tctest.NewKernel(t)
	target := Target{Block: 1}
	fs := examples(t)[:4]
	var want []string
	for i := range fs {
		k.Filter(filterOf(t, target, &fs[i]))
		k.Filter(filterOf(t, Target{Block: 2}, &fs[i]))
		if fs[i].Chain == 5 {
			want = append(want, fs[i].String())
		}
	}
	c := NewConn(k.Dial())
	var got []string
	chain := uint32(5)
	if err := c.Dump(t.Context(), target, DumpOptions{Terse: true, Chain: &chain}, func(in *Installed) error {
		in.Filter.Flags = 0 // where it is
		got = append(got, in.Filter.String())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" || len(want) != 2 {
		t.Errorf("Dump (-want +got):\n%s", d)
	}
	m := k.Requests()[0][0]
	request := appendAttr(appendU32(appendTcmsg(nil, target, 0, 0, 0), tcaChain, 5), tcaDumpFlags, []byte{1, 0, 0, 0, 1, 0, 0, 0})
	if littleEndian && !bytes.Equal(m.Data, request) || m.Header.Type != rtmGetTFilter || m.Header.Flags != netlink.Request|netlink.Dump {
		t.Errorf("Dump sends %+v %x, want %x", m.Header, m.Data, request)
	}

	// The caller's error ends the listing, not the connection.
	stop := errors.New("stop")
	n := 0
	if err := c.Dump(t.Context(), Target{Block: 1}, DumpOptions{}, func(*Installed) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("Dump = %v after %d calls", err, n)
	}
	k.Interrupted = true
	if err := c.Dump(t.Context(), Target{Block: 1}, DumpOptions{}, func(*Installed) error { return nil }); !errors.Is(err, ErrInterrupted) {
		t.Errorf("Dump = %v, want ErrInterrupted", err)
	}
}

// Of many filters that are asked for those come that there are, and no others.
func TestGet(t *testing.T) {
	k := tctest.NewKernel(t)
	target := Target{Block: 1}
	f := examples(t)[1]
	var keys []Key
	var want []uint32
	for handle := uint32(1); handle <= 3*getMessages; handle++ {
		if f.Handle = handle; handle%5 == 0 {
			k.Filter(filterOf(t, target, &f))
			want = append(want, handle)
		} else {
			k.Filter(filterOf(t, Target{Block: 2}, &f))
		}
		keys = append(keys, f.Key())
	}
	c := NewConn(k.Dial())
	var got []uint32
	get := func() error {
		return c.Get(t.Context(), target, keys, func(in *Installed) error {
			got = append(got, in.Filter.Handle)
			return nil
		})
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Get (-want +got):\n%s", d)
	}
	if n := len(k.Requests()); n != 3 {
		t.Errorf("Get makes %d system calls, want 3", n)
	}

	// The caller's error ends the call, not the connection, and so does a refusal.
	stop := errors.New("stop")
	n := 0
	if err := c.Get(t.Context(), target, keys, func(*Installed) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("Get = %v after %d calls", err, n)
	}
	k.Refuse = func(netlink.Message) (unix.Errno, string) { return unix.EPERM, "no" }
	if err := get(); !errors.Is(err, unix.EPERM) {
		t.Errorf("Get = %v, want EPERM", err)
	}
	k.Refuse, got = nil, nil
	if err := get(); err != nil || len(got) != len(want) {
		t.Errorf("Get = %d filters, %v; want %d", len(got), err, len(want))
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
