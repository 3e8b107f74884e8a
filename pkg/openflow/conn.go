package openflow

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Conn is an OpenFlow 1.5 connection to a bridge. Its methods may be called from several goroutines; what one
// writes is not interleaved with what another writes, so a call may have to wait for a large Commit to be sent.
//
// Every wait ends with its context. A context that ends while a message is only half written also ends the
// connection.
type Conn struct {
	nc   net.Conn
	done chan struct{} // closed after err is set
	err  error
	end  sync.Once
	wg   sync.WaitGroup

	answers chan []byte // echo replies to be written

	packetIns                     chan PacketIn
	droppedFull, droppedMalformed atomic.Uint64

	wmu     sync.Mutex // guards w, buf and bundles
	w       *bufio.Writer
	buf     []byte // one message being encoded
	bundles uint32 // number of the last bundle

	mu    sync.Mutex // guards calls and xid
	calls []*call
	xid   uint32
}

// bufferSize is that of both directions' buffers: a system call carries a few hundred flows.
const bufferSize = 64 << 10

// maxPendingAnswers bounds the echo replies that wait for a large write to end. A peer that asks for more gets
// no further answers, as if it had asked once.
const maxPendingAnswers = 8

// ErrClosed is the reason for which a connection ends after Close.
var ErrClosed = errors.New("openflow connection closed")

// Dial connects to a bridge's management socket, <rundir>/<bridge>.mgmt, and agrees on OpenFlow 1.5.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("openflow dial %s: %w", path, err)
	}
	c, err := NewConn(ctx, nc)
	if err != nil {
		return nil, fmt.Errorf("openflow dial %s: %w", path, err)
	}
	return c, nil
}

// NewConn agrees with the peer of nc on OpenFlow 1.5. It owns nc from now on and closes it if it fails.
//
// Two goroutines run until the connection ends, by Close or by the peer: one reads, one answers echo requests.
func NewConn(ctx context.Context, nc net.Conn) (*Conn, error) {
	c := &Conn{
		nc:      nc,
		done:    make(chan struct{}),
		answers: make(chan []byte, maxPendingAnswers),

		packetIns: make(chan PacketIn, maxPacketIns),
		w:         bufio.NewWriterSize(nc, bufferSize),
	}
	r := bufio.NewReaderSize(nc, bufferSize)
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	err := c.hello(r)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = nc.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	c.wg.Add(2)
	go func() {
		defer c.wg.Done()
		c.fail(c.read(r))
	}()
	go func() {
		defer c.wg.Done()
		c.answer()
	}()
	return c, nil
}

// hello exchanges hello messages. Ours says that we speak version 6 and nothing else.
func (c *Conn) hello(r *bufio.Reader) error {
	const elemBitmap = 1 // OFPHET_VERSIONBITMAP
	bitmap := be.AppendUint16(nil, elemBitmap)
	bitmap = be.AppendUint16(bitmap, 8)
	bitmap = be.AppendUint32(bitmap, 1<<version)
	b, _ := appendMessage(nil, msgHello, 0, bitmap)
	if _, err := c.nc.Write(b); err != nil {
		return fmt.Errorf("openflow hello: %w", err)
	}
	f, err := readFrame(r)
	if err != nil {
		return fmt.Errorf("openflow hello: %w", err)
	}
	switch {
	case f.typ == msgError:
		e, err := parseError(f.body)
		if err != nil {
			return err
		}
		return fmt.Errorf("openflow hello: %w", e)
	case f.typ != msgHello:
		return fmt.Errorf("openflow hello: peer began with message type %d", f.typ)
	case !speaks15(f):
		return fmt.Errorf("openflow hello: peer speaks version %d and not OpenFlow 1.5", f.version)
	}
	return nil
}

// speaks15 reports whether the peer that sent hello f and we have version 6 in common.
func speaks15(f frame) bool {
	b := f.body
	for len(b) >= 4 {
		typ, n := be.Uint16(b), int(be.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return false
		}
		if typ == 1 && n >= 8 {
			return be.Uint32(b[4:])&(1<<version) != 0
		}
		b = b[min((n+7)/8*8, len(b)):]
	}
	return f.version >= version
}

// frame is one received message.
type frame struct {
	version uint8
	typ     msgType
	xid     uint32
	body    []byte
}

// readFrame reads a message into new memory.
func readFrame(r *bufio.Reader) (frame, error) {
	h, err := r.Peek(headerSize)
	if err != nil {
		if errors.Is(err, io.EOF) && len(h) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	f := frame{version: h[0], typ: msgType(h[1]), xid: be.Uint32(h[4:])}
	n := int(be.Uint16(h[2:]))
	if n < headerSize {
		return frame{}, fmt.Errorf("openflow message of type %d: length %d", f.typ, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, err
	}
	f.body = b[headerSize:]
	return f, nil
}

// read delivers what arrives until the connection ends and returns the reason.
func (c *Conn) read(r *bufio.Reader) error {
	for {
		f, err := readFrame(r)
		if err != nil {
			return fmt.Errorf("openflow read: %w", err)
		}
		if f.version != version {
			return fmt.Errorf("openflow read: message of version %d", f.version)
		}
		if f.typ == msgEchoRequest {
			b, _ := appendMessage(nil, msgEchoReply, f.xid, f.body)
			select {
			case c.answers <- b:
			default:
			}
			continue
		}
		if c.packetIn(f) {
			continue
		}
		c.mu.Lock()
		var to *call
		for _, call := range c.calls {
			if f.xid-call.first < call.n {
				to = call
				break
			}
		}
		c.mu.Unlock()
		// What nobody waits for is asynchronous (port status) or late.
		if to != nil {
			to.deliver(f)
		}
	}
}

// answer writes echo replies. It is not done by the reader, which must never wait for the peer to read.
func (c *Conn) answer() {
	for {
		select {
		case b := <-c.answers:
			if err := c.write(context.Background(), func() error {
				_, err := c.w.Write(b)
				return err
			}); err != nil {
				return
			}
		case <-c.done:
			return
		}
	}
}

// fail ends the connection for the given reason.
func (c *Conn) fail(err error) {
	c.end.Do(func() {
		c.err = err
		_ = c.nc.Close()
		close(c.done)
	})
}

// Close ends the connection and waits for its goroutines.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	c.wg.Wait()
	return nil
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, nil while it has not.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// call is one operation that waits for answers to the transaction ids first..first+n-1.
type call struct {
	first, n uint32
	frames   chan frame    // answers, in order
	gone     chan struct{} // closed when the caller waits no more
}

// deliver hands f to the caller. It blocks the reader until the caller takes it: that is what bounds memory.
func (k *call) deliver(f frame) {
	select {
	case k.frames <- f:
	case <-k.gone:
	}
}

// frameQueue is how many answers may wait for a caller before the reader waits for it.
const frameQueue = 16

// begin reserves n transaction ids.
func (c *Conn) begin(n int) *call {
	k := &call{n: uint32(n), frames: make(chan frame, frameQueue), gone: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.xid+uint32(n) < c.xid {
		c.xid = 0 // asynchronous messages have id 0, which is never used
	}
	k.first = c.xid + 1
	c.xid += uint32(n)
	c.calls = append(c.calls, k)
	return k
}

func (c *Conn) finish(k *call) {
	c.mu.Lock()
	for i, o := range c.calls {
		if o == k {
			c.calls = append(c.calls[:i], c.calls[i+1:]...)
			break
		}
	}
	c.mu.Unlock()
	close(k.gone)
}

// next waits for an answer.
func (c *Conn) next(ctx context.Context, k *call) (frame, error) {
	select {
	case f := <-k.frames:
		return f, nil
	default:
	}
	select {
	case f := <-k.frames:
		return f, nil
	case <-ctx.Done():
		return frame{}, context.Cause(ctx)
	case <-c.done:
		// The reader is at its end, so what it had for us is in the queue.
		select {
		case f := <-k.frames:
			return f, nil
		default:
			return frame{}, c.err
		}
	}
}

// write runs f, which writes to c.w, and flushes.
func (c *Conn) write(ctx context.Context, f func() error) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := c.Err(); err != nil {
		return err
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.nc.SetWriteDeadline(time.Unix(1, 0))
		close(fired)
	})
	err := f()
	if err == nil {
		err = c.w.Flush()
	}
	if !stop() {
		<-fired
		_ = c.nc.SetWriteDeadline(time.Time{})
	}
	if err == nil || errors.Is(err, errTooLong) {
		return err // a message that is too long has not been written at all
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	err = fmt.Errorf("openflow write: %w", err)
	c.fail(err)
	return err
}

// roundTrip sends one message, made by encode, and waits for the answer of the given type.
func (c *Conn) roundTrip(ctx context.Context, op string, want msgType, encode func(b []byte, xid uint32) ([]byte, bool)) (frame, error) {
	k := c.begin(1)
	defer c.finish(k)
	if err := c.write(ctx, func() error { return c.put(k.first, encode) }); err != nil {
		return frame{}, fmt.Errorf("openflow %s: %w", op, err)
	}
	f, err := c.next(ctx, k)
	if err != nil {
		return frame{}, fmt.Errorf("openflow %s: %w", op, err)
	}
	if err := f.is(want); err != nil {
		return frame{}, fmt.Errorf("openflow %s: %w", op, err)
	}
	return f, nil
}

// put writes one message.
func (c *Conn) put(xid uint32, encode func(b []byte, xid uint32) ([]byte, bool)) error {
	b, ok := encode(c.buf[:0], xid)
	c.buf = b
	if !ok {
		return errTooLong
	}
	_, err := c.w.Write(b)
	return err
}

// is returns nil if f is of type want, the switch's error if it is one, or an error that says what it is.
func (f frame) is(want msgType) error {
	if f.typ == want {
		return nil
	}
	if f.typ != msgError {
		return fmt.Errorf("answer of type %d", f.typ)
	}
	e, err := parseError(f.body)
	if err != nil {
		return err
	}
	return e
}

// Barrier waits until everything sent before has been processed.
func (c *Conn) Barrier(ctx context.Context) error {
	_, err := c.roundTrip(ctx, "barrier", msgBarrierReply, func(b []byte, xid uint32) ([]byte, bool) {
		return appendMessage(b, msgBarrier, xid, nil)
	})
	return err
}

// Echo asks the peer for a sign of life.
func (c *Conn) Echo(ctx context.Context) error {
	_, err := c.roundTrip(ctx, "echo", msgEchoReply, func(b []byte, xid uint32) ([]byte, bool) {
		return appendMessage(b, msgEchoRequest, xid, nil)
	})
	return err
}

// Features are what a bridge says about itself.
type Features struct {
	DatapathID uint64
	Buffers    uint32
	Tables     uint8
}

// Features asks the bridge for its features.
func (c *Conn) Features(ctx context.Context) (Features, error) {
	f, err := c.roundTrip(ctx, "features", msgFeaturesReply, func(b []byte, xid uint32) ([]byte, bool) {
		return appendMessage(b, msgFeaturesRequest, xid, nil)
	})
	if err != nil {
		return Features{}, err
	}
	if len(f.body) < 13 {
		return Features{}, fmt.Errorf("openflow features: %d bytes", len(f.body))
	}
	return Features{be.Uint64(f.body), be.Uint32(f.body[8:]), f.body[12]}, nil
}

// MissSendLen asks how many bytes of a packet the bridge sends with a packet-in; 0 turns packet-ins off.
func (c *Conn) MissSendLen(ctx context.Context) (uint16, error) {
	f, err := c.roundTrip(ctx, "get config", msgConfigReply, func(b []byte, xid uint32) ([]byte, bool) {
		return appendMessage(b, msgConfigRequest, xid, nil)
	})
	if err != nil {
		return 0, err
	}
	if len(f.body) < 4 {
		return 0, fmt.Errorf("openflow get config: %d bytes", len(f.body))
	}
	return be.Uint16(f.body[2:]), nil
}

// do sends a message that has no answer except an error, and a barrier, and waits for that.
func (c *Conn) do(ctx context.Context, op string, encode func(b []byte, xid uint32) ([]byte, bool)) error {
	k := c.begin(2)
	defer c.finish(k)
	err := c.write(ctx, func() error {
		if err := c.put(k.first, encode); err != nil {
			return err
		}
		return c.put(k.first+1, appendBarrier)
	})
	if err == nil {
		err = c.refusal(ctx, k)
	}
	if err != nil {
		return fmt.Errorf("openflow %s: %w", op, err)
	}
	return nil
}

// refusal waits for the answer to k's barrier and returns the error that came before it, if any.
func (c *Conn) refusal(ctx context.Context, k *call) error {
	var refused error
	for {
		f, err := c.next(ctx, k)
		if err != nil {
			return err
		}
		err = f.is(msgBarrierReply)
		if err == nil {
			return refused
		}
		refused = err
		if f.xid != k.first {
			return err
		}
	}
}

func appendBarrier(b []byte, xid uint32) ([]byte, bool) {
	return appendMessage(b, msgBarrier, xid, nil)
}

// SetMissSendLen sets how many bytes of a packet the bridge sends with a packet-in; 0 turns packet-ins off.
func (c *Conn) SetMissSendLen(ctx context.Context, n uint16) error {
	return c.do(ctx, "set config", func(b []byte, xid uint32) ([]byte, bool) {
		return appendMessage(b, msgSetConfig, xid, []byte{0, 0, byte(n >> 8), byte(n)})
	})
}

// PacketInFormat is a format of packet-in messages (enum ofputil_packet_in_format).
type PacketInFormat uint32

// Formats of packet-in messages.
const (
	PacketInStandard PacketInFormat = 0
	PacketInNicira2  PacketInFormat = 2 // NXT_PACKET_IN2: with userdata, may be resumed
)

// SetPacketInFormat chooses the format in which this connection receives packet-ins.
func (c *Conn) SetPacketInFormat(ctx context.Context, format PacketInFormat) error {
	return c.do(ctx, "set packet-in format", func(b []byte, xid uint32) ([]byte, bool) {
		return appendVendorMessage(b, nxtSetPacketInFormat, xid, be.AppendUint32(nil, uint32(format)))
	})
}

// FlushZone removes all connections from a conntrack zone.
func (c *Conn) FlushZone(ctx context.Context, zone uint16) error {
	return c.do(ctx, fmt.Sprintf("flush zone %d", zone), func(b []byte, xid uint32) ([]byte, bool) {
		return appendVendorMessage(b, nxtCTFlushZone, xid, be.AppendUint16(make([]byte, 6), zone))
	})
}

// TLVTable reads the bridge's mapping of Geneve options to tun_metadata fields.
func (c *Conn) TLVTable(ctx context.Context) (TLVTable, error) {
	f, err := c.roundTrip(ctx, "TLV table", msgVendor, func(b []byte, xid uint32) ([]byte, bool) {
		return appendVendorMessage(b, nxtTLVTableRequest, xid, nil)
	})
	if err != nil {
		return TLVTable{}, err
	}
	if len(f.body) < 8 || be.Uint32(f.body) != vendorNicira || be.Uint32(f.body[4:]) != nxtTLVTableReply {
		return TLVTable{}, errors.New("openflow TLV table: answer is another vendor message")
	}
	return parseTLVTable(f.body[8:])
}

// AddTLVs maps Geneve options to tun_metadata fields. Either all are added or none.
func (c *Conn) AddTLVs(ctx context.Context, tlvs ...TLV) error {
	return c.do(ctx, "add TLVs", func(b []byte, xid uint32) ([]byte, bool) {
		return appendVendorMessage(b, nxtTLVTableMod, xid, tlvTableModBody(tlvAdd, tlvs))
	})
}

// DeleteTLVs removes mappings. Open vSwitch refuses it while a flow uses one.
func (c *Conn) DeleteTLVs(ctx context.Context, tlvs ...TLV) error {
	return c.do(ctx, "delete TLVs", func(b []byte, xid uint32) ([]byte, bool) {
		return appendVendorMessage(b, nxtTLVTableMod, xid, tlvTableModBody(tlvDelete, tlvs))
	})
}

// AddMeter adds m. It is refused if there is a meter with this number. Meters cannot be part of a bundle.
func (c *Conn) AddMeter(ctx context.Context, m Meter) error {
	return c.do(ctx, fmt.Sprintf("add meter %d", m.ID), func(b []byte, xid uint32) ([]byte, bool) {
		return appendMeterMod(b, xid, cmdAdd, &m)
	})
}

// ModifyMeter replaces the contents of a meter.
func (c *Conn) ModifyMeter(ctx context.Context, m Meter) error {
	return c.do(ctx, fmt.Sprintf("modify meter %d", m.ID), func(b []byte, xid uint32) ([]byte, bool) {
		return appendMeterMod(b, xid, cmdModify, &m)
	})
}

// DeleteMeter deletes a meter and the flows that use it.
func (c *Conn) DeleteMeter(ctx context.Context, id uint32) error {
	return c.do(ctx, fmt.Sprintf("delete meter %d", id), func(b []byte, xid uint32) ([]byte, bool) {
		return appendMeterMod(b, xid, cmdMeterDelete, &Meter{ID: id})
	})
}

// PacketOut lets the bridge execute actions on a packet as if it came from inPort.
func (c *Conn) PacketOut(ctx context.Context, inPort uint16, actions []ir.Action, packet []byte) error {
	return c.do(ctx, "packet-out", func(b []byte, xid uint32) ([]byte, bool) {
		return appendMessage(b, msgPacketOut, xid, packetOut(inPort, actions, packet))
	})
}

// multipart sends requests of one type and calls f with the body of each part of the answers.
func (c *Conn) multipart(ctx context.Context, op string, f func(body []byte) error, requests ...[]byte) error {
	k := c.begin(len(requests))
	defer c.finish(k)
	if err := c.write(ctx, func() error {
		for i, r := range requests {
			if err := c.put(k.first+uint32(i), func(b []byte, xid uint32) ([]byte, bool) {
				return appendMessage(b, msgMultipart, xid, r)
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("openflow %s: %w", op, err)
	}
	for left := len(requests); left > 0; {
		fr, err := c.next(ctx, k)
		if err == nil {
			err = fr.is(msgMultipartReply)
		}
		if err != nil {
			return fmt.Errorf("openflow %s: %w", op, err)
		}
		if len(fr.body) < 8 || be.Uint16(fr.body) != be.Uint16(requests[0]) {
			return fmt.Errorf("openflow %s: answer is another multipart message", op)
		}
		if err := f(fr.body[8:]); err != nil {
			return err
		}
		if be.Uint16(fr.body[2:])&multipartMore == 0 {
			left--
		}
	}
	return nil
}

// DumpFlows calls f with each flow of the bridge, in no particular order, and stops at f's first error, which it
// returns. The FlowStats and its slices are f's only until it returns, and f must not use the connection: nothing
// else arrives while f runs. Flows that are too long for an OpenFlow message are left out by Open vSwitch.
func (c *Conn) DumpFlows(ctx context.Context, f func(*FlowStats) error) error {
	return c.DumpFlowsOf(ctx, []FlowFilter{{Table: AllTables}}, f)
}

// DumpFlowsOf is DumpFlows for the flows that some filter selects; those that several select come several times. Open
// vSwitch looks at all flows of a table to find some.
func (c *Conn) DumpFlowsOf(ctx context.Context, filters []FlowFilter, f func(*FlowStats) error) error {
	for some := range slices.Chunk(filters, frameQueue) { // so that no answer waits while a request is being written
		requests := make([][]byte, len(some))
		for i, filter := range some {
			requests[i] = flowDescRequest(filter)
		}
		if err := c.multipart(ctx, "dump flows", func(b []byte) error { return parseFlows(b, f) }, requests...); err != nil {
			return err
		}
	}
	return nil
}

// DumpGroupStats calls f with the statistics of each group of the bridge, as DumpFlows does with flows. Those of a
// group with more than 4000 buckets may end the connection: Open vSwitch 3.1 does not cut messages that are too long.
func (c *Conn) DumpGroupStats(ctx context.Context, f func(GroupStats) error) error {
	return c.multipart(ctx, "dump group statistics", func(b []byte) error { return parseGroupStats(b, f) }, groupRequest(mpGroupStats, AllGroups))
}

// DescribeGroups calls f with those of the groups that the bridge has, as DumpFlows does with flows. A description
// that is longer than a message ends the connection, and Open vSwitch 3.1 aborts if it is asked to describe all groups
// and another follows; therefore that cannot be asked.
func (c *Conn) DescribeGroups(ctx context.Context, groups []uint32, f func(*GroupDesc) error) error {
	for some := range slices.Chunk(groups, frameQueue) { // so that no answer waits while a request is being written
		requests := make([][]byte, len(some))
		for i, id := range some {
			requests[i] = groupRequest(mpGroupDesc, id)
		}
		if err := c.multipart(ctx, "describe groups", func(b []byte) error { return parseGroups(b, f) }, requests...); err != nil {
			return err
		}
	}
	return nil
}

// DumpMeters calls f with each meter of the bridge, as DumpFlows does with flows.
func (c *Conn) DumpMeters(ctx context.Context, f func(Meter) error) error {
	return c.multipart(ctx, "dump meters", func(b []byte) error { return parseMeters(b, f) }, meterConfigRequest())
}

// Commit makes all of mods at once, in their order: no packet sees some of them only.
//
// If the bridge refuses some of them, it makes none, and Commit returns those of them that it named, sorted by
// index, and no error. They are all that cannot be understood or, if there is none of those, the first that
// cannot be applied after those before it; so after they have been corrected there may be others. With an error
// nothing is known about which mods were made, except if it is an [*Error], when none was.
func (c *Conn) Commit(ctx context.Context, mods []Mod) ([]ModError, error) {
	if len(mods) == 0 {
		return nil, nil
	}
	var long []ModError
	for i := range mods {
		if len(mods[i].Match)+len(mods[i].Body) > maxModSize {
			long = append(long, ModError{i, errTooLong})
		}
	}
	if long != nil {
		return long, nil
	}

	// Transaction ids: open, the mods, barrier, commit or discard.
	k := c.begin(len(mods) + 3)
	defer c.finish(k)
	b := bundle{conn: c, call: k, n: len(mods), failed: map[int]error{}}

	// Errors may arrive while the mods are still being written, and they must be taken then: the bridge stops
	// reading when too many of its answers are not read.
	collected := make(chan error, 1)
	cctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { collected <- b.collect(cctx, b.barrierXID(), msgBarrierReply) }()

	err := c.write(ctx, func() error {
		c.bundles++
		b.id = c.bundles
		return b.write(mods)
	})
	if err != nil {
		cancel()
	}
	if cerr := <-collected; err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("openflow commit: %w", err)
	}
	if len(b.failed) > 0 {
		// A discarded bundle that does not exist, because its opening was refused, is of no interest.
		if err := b.control(ctx, bundleDiscard); err != nil && !errors.As(err, new(*Error)) {
			return nil, fmt.Errorf("openflow commit: %w", err)
		}
		return b.errors()
	}
	err = b.control(ctx, bundleCommit)
	if len(b.failed) > 0 {
		return b.errors()
	}
	if err != nil {
		return nil, fmt.Errorf("openflow commit: %w", err)
	}
	return nil, nil
}

// maxModSize is how long a mod's match and body together may be: what a message holds besides the frames of the
// bundle and of the flow or group, and padding.
const (
	maxModSize = maxMessage - 2*headerSize - bundleHeaderSize - flowModSize - 4 - 7 - 8

	bundleHeaderSize = 8  // struct ofp14_bundle_ctrl_msg
	flowModSize      = 40 // struct ofp11_flow_mod
)

// bundle is one Commit.
type bundle struct {
	conn   *Conn
	call   *call
	id     uint32
	n      int
	failed map[int]error // by index of the mod, -1: the bundle itself
}

func (b *bundle) barrierXID() uint32 { return b.call.first + 1 + uint32(b.n) }
func (b *bundle) endXID() uint32     { return b.barrierXID() + 1 }

// write writes everything up to the barrier. c.wmu is held.
func (b *bundle) write(mods []Mod) error {
	c, xid := b.conn, b.call.first
	c.buf = appendBundleControl(c.buf[:0], xid, b.id, bundleOpen)
	if _, err := c.w.Write(c.buf); err != nil {
		return err
	}
	for i := range mods {
		xid++
		m, ok := appendBundleAdd(c.buf[:0], xid, b.id, &mods[i])
		c.buf = m
		if !ok {
			return errTooLong
		}
		if _, err := c.w.Write(c.buf); err != nil {
			return err
		}
	}
	return c.put(b.barrierXID(), appendBarrier)
}

// control ends the bundle by commit or discard.
func (b *bundle) control(ctx context.Context, ctrl uint16) error {
	c := b.conn
	if err := c.write(ctx, func() error {
		c.buf = appendBundleControl(c.buf[:0], b.endXID(), b.id, ctrl)
		_, err := c.w.Write(c.buf)
		return err
	}); err != nil {
		return err
	}
	return b.collect(ctx, b.endXID(), msgBundleControl)
}

// collect takes answers up to the one with the given transaction id, which is of type want or an error.
// Errors with other ids are those of mods.
func (b *bundle) collect(ctx context.Context, last uint32, want msgType) error {
	for {
		f, err := b.conn.next(ctx, b.call)
		if err != nil {
			return err
		}
		if f.xid == last {
			return f.is(want)
		}
		if f.typ == msgError {
			e, err := parseError(f.body)
			if err != nil {
				return err
			}
			b.failed[int(f.xid-b.call.first)-1] = e
		}
	}
}

// errors returns what failed.
func (b *bundle) errors() ([]ModError, error) {
	if err, ok := b.failed[-1]; ok {
		return nil, fmt.Errorf("openflow commit: open bundle: %w", err)
	}
	errs := make([]ModError, 0, len(b.failed))
	for i := range b.n {
		if err, ok := b.failed[i]; ok {
			errs = append(errs, ModError{i, err})
		}
	}
	return errs, nil
}
