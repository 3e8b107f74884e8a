package tc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/nlgroup"
)

// Conn installs, removes and lists filters through a rtnetlink socket. Its methods may be called from several goroutines;
// they take turns.
//
// Every wait ends with its context. What the kernel was asked for and has not answered by then may or may not have been done,
// so the connection has ended as well: all later calls fail with ErrEnded, and one who wants to know dumps through a new
// connection. Likewise if answers were lost (ENOBUFS).
type Conn struct {
	port atomic.Uint32

	mu  sync.Mutex // guards nl and err; held during an exchange
	nl  *netlink.Conn
	err error
}

// ErrEnded is the error of a connection that has ended.
var ErrEnded = errors.New("tc connection has ended")

// DialOptions say where a socket is opened.
type DialOptions struct {
	// NetNS is the path of a network namespace, "": that of the process.
	NetNS string
}

// receiveBuffer holds the refusals of a whole batch, each of which has the request in it (see batchBytes). The kernel takes
// 1 MiB from those who have CAP_NET_ADMIN, from others net.core.rmem_max.
const receiveBuffer = 1 << 20

// Dial opens a socket.
func Dial(o DialOptions) (*Conn, error) {
	nl, err := dial(o, 0)
	if err != nil {
		return nil, fmt.Errorf("tc dial: %w", err)
	}
	// Not netlink.CapAcknowledge, by which refusals would not repeat the request: netlink v1.11.2 then looks for the kernel's
	// explanation in the wrong place, and fails with "not enough data for netlink error code".
	if err := nl.SetOption(netlink.ExtendedAcknowledge, true); err != nil {
		return nil, errors.Join(fmt.Errorf("tc dial: %w", err), nl.Close())
	}
	return NewConn(nl), nil
}

func dial(o DialOptions, groups uint32) (*netlink.Conn, error) {
	config := &netlink.Config{Groups: groups}
	if o.NetNS != "" {
		ns, err := os.Open(o.NetNS)
		if err != nil {
			return nil, err
		}
		defer func() { _ = ns.Close() }()
		config.NetNS = int(ns.Fd())
	}
	nl, err := netlink.Dial(unix.NETLINK_ROUTE, config)
	if err != nil {
		return nil, err
	}
	if err := nl.SetReadBuffer(receiveBuffer); err != nil {
		return nil, errors.Join(err, nl.Close())
	}
	return nl, nil
}

// NewConn takes an open socket, which it owns from now on.
func NewConn(nl *netlink.Conn) *Conn { return &Conn{nl: nl} }

// Close ends the connection. Filters stay.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = ErrEnded
	}
	return c.nl.Close()
}

// Port is the number of the socket, by which events that it causes are recognised; 0 before it has been used.
func (c *Conn) Port() uint32 { return c.port.Load() }

// Limits of one system call. The kernel refuses more than the send buffer holds (212992 bytes), and loses answers that
// the receive buffer does not.
const (
	batchMessages = 150
	batchBytes    = 128 << 10
)

// Apply does ops at t in order. It returns the refused operations, in order; the others were done. Refusals do not stop
// it. If err is not nil, it is not known how far it came.
func (c *Conn) Apply(ctx context.Context, t Target, ops []Op) (refused []OpError, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := batch{ops: ops}
	for i, op := range ops {
		m, err := message(t, op)
		if err != nil {
			b.refused = append(b.refused, OpError{Index: i, Op: op, Err: err})
			continue
		}
		if len(b.messages) == batchMessages || len(b.messages) > 0 && b.bytes+len(m.Data) > batchBytes {
			if err := c.send(ctx, &b); err != nil {
				return b.sorted(), fmt.Errorf("tc apply %v: %w", t, err)
			}
		}
		b.messages, b.indices, b.bytes = append(b.messages, m), append(b.indices, i), b.bytes+len(m.Data)
	}
	if len(b.messages) > 0 {
		if err := c.send(ctx, &b); err != nil {
			return b.sorted(), fmt.Errorf("tc apply %v: %w", t, err)
		}
	}
	return b.sorted(), nil
}

// message returns the request for op.
func message(t Target, op Op) (netlink.Message, error) {
	m := netlink.Message{Header: netlink.Header{Type: rtmNewTFilter, Flags: netlink.Request}}
	var err error
	switch op.Verb {
	case Add:
		m.Header.Flags |= netlink.Create | netlink.Excl
		m.Data, err = AppendFilter(nil, t, op.Filter)
	case Replace:
		m.Header.Flags |= netlink.Replace
		m.Data, err = AppendFilter(nil, t, op.Filter)
	case Delete:
		m.Header.Type = rtmDelTFilter
		m.Data = AppendKey(nil, t, op.Key)
	default:
		err = errors.New("no verb")
	}
	return m, err
}

// A batch is what goes into one system call, and what has been refused of it and those before it.
type batch struct {
	ops      []Op
	messages []netlink.Message
	indices  []int // of messages in ops
	bytes    int
	refused  []OpError
}

func (b *batch) sorted() []OpError {
	// What could not be encoded was known before the kernel's answers.
	slices.SortStableFunc(b.refused, func(x, y OpError) int { return cmp.Compare(x.Index, y.Index) })
	return b.refused
}

// send sends a batch and waits for its answers. Refusals always come; that all has been done is told by the
// acknowledgement of the last message, which is the only one to ask for it.
func (c *Conn) send(ctx context.Context, b *batch) error {
	last := len(b.messages) - 1
	b.messages[last].Header.Flags |= netlink.Acknowledge
	err := c.exchange(ctx, b.messages, func(seq uint32, err *netlink.OpError) bool {
		i := int(seq - b.messages[0].Header.Sequence)
		if i < 0 || i > last {
			return false
		}
		if err != nil {
			at := b.indices[i]
			b.refused = append(b.refused, OpError{Index: at, Op: b.ops[at], Err: err.Err, Message: err.Message})
		}
		return i == last
	})
	b.messages, b.indices, b.bytes = nil, nil, 0
	return err
}

// exchange sends messages and calls answer with each answer, of which err is nil for an acknowledgement, until it
// reports true. Numbers of messages are consecutive.
func (c *Conn) exchange(ctx context.Context, messages []netlink.Message, answer func(seq uint32, err *netlink.OpError) bool) error {
	return c.talk(ctx, messages, func() (bool, error) {
		got, err := c.nl.Receive()
		var refusal *netlink.OpError
		if errors.As(err, &refusal) && refusal.Sequence != 0 {
			return answer(refusal.Sequence, refusal), nil
		}
		if err != nil {
			return false, err
		}
		for _, m := range got {
			if m.Header.Type == netlink.Error && answer(m.Header.Sequence, nil) {
				return true, nil
			}
		}
		return false, nil
	})
}

// talk sends messages, which get their numbers in place, and calls receive until it reports true, fails, or ctx ends; the
// latter two end the connection.
func (c *Conn) talk(ctx context.Context, messages []netlink.Message, receive func() (bool, error)) (err error) {
	if c.err != nil {
		return c.err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.nl.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if stopped := stop(); err == nil && stopped {
			return
		}
		c.err = ErrEnded
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	if _, err := c.nl.SendMessages(messages); err != nil {
		return err
	}
	c.port.Store(messages[0].Header.PID)
	for {
		if done, err := receive(); done || err != nil {
			return err
		}
		// A socket without deadlines would not notice.
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// DumpOptions narrow a dump.
type DumpOptions struct {
	// Terse leaves out conditions and parameters, which is about seven times as fast: keys, flags, cookies, and counters remain.
	Terse bool

	// Chain is the only one to be listed, nil: all.
	Chain *uint32
}

// ErrInterrupted means that filters changed during a dump in such a way that it may be incomplete.
var ErrInterrupted = errors.New("dump was interrupted by a change")

// Dump calls f with each filter of t, in the kernel's order: by chain, pref, and then any. Filters of other classifiers are among
// them. Of a target that does not exist there are none. If f fails, it is not called again and its error is returned.
// f must not use c.
func (c *Conn) Dump(ctx context.Context, t Target, o DumpOptions, f func(*Installed) error) error {
	var failed error
	err := c.dump(ctx, rtmGetTFilter, appendDump(nil, t, o), func(m netlink.Message) {
		if failed != nil || m.Header.Type != rtmNewTFilter {
			return
		}
		in, err := Decode(m.Data)
		if err == nil && in.Filter.Handle == 0 && len(in.Actions) == 0 {
			return // the head of a pref, not a filter
		}
		if err == nil {
			err = f(in)
		}
		failed = err
	})
	if err != nil {
		return fmt.Errorf("tc dump %v: %w", t, err)
	}
	return failed
}

// getMessages is how many filters are asked for at once: the kernel's answers, of up to 8 KiB with what it accounts for them, have to fit
// into the receive buffer.
const getMessages = 24

// Get calls f with those of the filters with some keys that there are, in the order of the keys. If f fails, it is not called again and its
// error is returned. f must not use c.
func (c *Conn) Get(ctx context.Context, t Target, keys []Key, f func(*Installed) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed error
	for some := range slices.Chunk(keys, getMessages) {
		messages := make([]netlink.Message, len(some))
		for i, k := range some {
			messages[i] = netlink.Message{Header: netlink.Header{Type: rtmGetTFilter, Flags: netlink.Request}, Data: AppendKey(nil, t, k)}
		}
		answered := 0
		err := c.talk(ctx, messages, func() (bool, error) {
			got, err := c.nl.Receive()
			var refusal *netlink.OpError
			switch {
			case errors.As(err, &refusal) && refusal.Sequence != 0:
				answered++
				// EINVAL: not even its chain is there.
				if failed == nil && !errors.Is(refusal.Err, unix.ENOENT) && !errors.Is(refusal.Err, unix.EINVAL) {
					failed = explained(refusal)
				}
			case err != nil:
				return false, err
			}
			for _, m := range got {
				if m.Header.Type != rtmNewTFilter {
					continue
				}
				answered++
				if failed != nil {
					continue
				}
				in, err := Decode(m.Data)
				if err == nil {
					err = f(in)
				}
				failed = err
			}
			return answered == len(messages), nil
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return fmt.Errorf("tc get %v: %w", t, err)
		}
	}
	return nil
}

// Qdiscs returns what the ingresses of all devices have.
func (c *Conn) Qdiscs(ctx context.Context) ([]Qdisc, error) {
	var qs []Qdisc
	err := c.dump(ctx, rtmGetQdisc, appendRawTcmsg(nil, 0, 0, 0, 0), func(m netlink.Message) {
		if q, ok := decodeQdisc(m.Data); ok && m.Header.Type == rtmNewQdisc {
			qs = append(qs, q)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("tc qdiscs: %w", err)
	}
	return qs, nil
}

// flagDumpInterrupted is NLM_F_DUMP_INTR.
const flagDumpInterrupted = 0x10

// dump asks for a list and calls f with each message of it.
func (c *Conn) dump(ctx context.Context, typ netlink.HeaderType, data []byte, f func(netlink.Message)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	messages := []netlink.Message{{Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Dump}, Data: data}}
	interrupted := false
	var refused error
	err := c.talk(ctx, messages, func() (bool, error) {
		for m, err := range c.nl.ReceiveIter() {
			if refusal := (*netlink.OpError)(nil); errors.As(err, &refusal) && refusal.Sequence != 0 {
				refused = explained(refusal)
				return true, nil
			}
			if err != nil {
				return false, err
			}
			interrupted = interrupted || m.Header.Flags&flagDumpInterrupted != 0
			if m.Header.Sequence == messages[0].Header.Sequence {
				f(m)
			}
		}
		return true, nil
	})
	switch {
	case err != nil:
		return err
	case refused != nil:
		return refused
	case interrupted:
		return ErrInterrupted
	}
	return nil
}

// explained returns the errno of a refusal with the kernel's explanation, if it gave one.
func explained(refusal *netlink.OpError) error {
	if refusal.Message == "" {
		return refusal.Err
	}
	return fmt.Errorf("%w (%s)", refusal.Err, refusal.Message)
}

// EnsureClsact gives the device a clsact qdisc whose ingress filters are those of a shared block, 0: its own. It is content
// with one that is there already, and fails with EEXIST if that is of another block or kind.
func (c *Conn) EnsureClsact(ctx context.Context, ifindex int, block uint32) error {
	err := c.request(ctx, rtmNewQdisc, netlink.Create|netlink.Excl, clsactOf(ifindex, block))
	if errors.Is(err, unix.EEXIST) {
		qs, lookErr := c.Qdiscs(ctx)
		if lookErr != nil {
			return lookErr
		}
		for _, q := range qs {
			switch {
			case q == Qdisc{ifindex, kindClsact, block}:
				return nil
			case q.Ifindex == ifindex:
				err = fmt.Errorf("%w: it has a %s qdisc of block %d", err, q.Kind, q.Block)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("tc clsact of device %d, block %d: %w", ifindex, block, err)
	}
	return nil
}

// DeleteClsact removes the device's clsact qdisc, and with it its filters; those of a shared block remain as long as another
// device has it. It is content if there is none, or no device.
func (c *Conn) DeleteClsact(ctx context.Context, ifindex int) error {
	err := c.request(ctx, rtmDelQdisc, 0, clsactOf(ifindex, 0))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if errors.Is(err, unix.EINVAL) {
		// Of another kind, or gone: once a device has had one, the kernel finds an empty one in its place.
		qs, lookErr := c.Qdiscs(ctx)
		if lookErr != nil {
			return lookErr
		}
		if !slices.ContainsFunc(qs, func(q Qdisc) bool { return q.Ifindex == ifindex }) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("tc clsact of device %d: %w", ifindex, err)
	}
	return nil
}

// request sends one message and waits for its acknowledgement.
func (c *Conn) request(ctx context.Context, typ netlink.HeaderType, flags netlink.HeaderFlags, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	messages := []netlink.Message{{Header: netlink.Header{Type: typ, Flags: netlink.Request | netlink.Acknowledge | flags}, Data: data}}
	var refusal error
	err := c.exchange(ctx, messages, func(seq uint32, err *netlink.OpError) bool {
		if seq != messages[0].Header.Sequence {
			return false
		}
		if err != nil {
			refusal = explained(err)
		}
		return true
	})
	return errors.Join(err, refusal)
}

// A Monitor tells of changes that anybody makes. It is for one goroutine.
type Monitor struct {
	nl     *netlink.Conn
	events []Event
}

// MonitorOptions say what is to be told.
type MonitorOptions struct {
	DialOptions

	// Filters adds events of filters and qdiscs to those of devices. The kernel describes each filter for its listeners, which
	// makes mass changes about 40 % dearer.
	Filters bool
}

// Multicast groups as bits, RTNLGRP_LINK and RTNLGRP_TC.
const (
	groupLink = 1 << 0
	groupTC   = 1 << 3
)

// Watch opens a socket for events.
func Watch(o MonitorOptions) (*Monitor, error) {
	groups := uint32(groupLink)
	if o.Filters {
		groups |= groupTC
	}
	nl, err := dial(o.DialOptions, groups)
	if err != nil {
		return nil, fmt.Errorf("tc watch: %w", err)
	}
	return NewMonitor(nl), nil
}

// NewMonitor takes an open socket that has joined groups. It owns it from now on.
func NewMonitor(nl *netlink.Conn) *Monitor { return &Monitor{nl: nl} }

// Close ends the Monitor.
func (m *Monitor) Close() error { return m.nl.Close() }

// Next waits for an event. If the kernel had more events than the socket has room for, the event is Resync: what is there is to be
// read then. An error is
// final.
func (m *Monitor) Next(ctx context.Context) (Event, error) {
	for len(m.events) == 0 {
		if err := m.receive(ctx); err != nil {
			return Event{}, fmt.Errorf("tc monitor: %w", err)
		}
	}
	e := m.events[0]
	m.events = m.events[1:]
	return e, nil
}

func (m *Monitor) receive(ctx context.Context) error {
	got, lost, err := nlgroup.Receive(ctx, m.nl)
	if lost && err == nil {
		m.events = append(m.events, Event{Kind: Resync})
	}
	if err != nil {
		return err
	}
	for _, g := range got {
		if e, ok := decodeEvent(uint16(g.Header.Type), g.Header.PID, g.Data); ok {
			m.events = append(m.events, e)
		}
	}
	return nil
}
