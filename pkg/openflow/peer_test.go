package openflow

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offloadd/offloadd/pkg/ir"
)

// message returns a message of OpenFlow 1.5.
func message(typ msgType, xid uint32, body string) string {
	b, _ := appendMessage(nil, typ, xid, []byte(body))
	return string(b)
}

// peer is the other end of a connection, played by the test.
type peer struct {
	net.Conn
	r *bufio.Reader
}

// pair returns both ends of a connection on which hellos have been exchanged.
func pair(t *testing.T) (*Conn, *peer) {
	t.Helper()
	ours, theirs := net.Pipe()
	p := &peer{theirs, bufio.NewReader(theirs)}
	t.Cleanup(func() { _ = theirs.Close() })
	go func() {
		_, _ = readFrame(p.r)
		_, _ = io.WriteString(p, message(msgHello, 0, ""))
	}()
	c, err := NewConn(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, p
}

func (p *peer) next(t *testing.T) frame {
	t.Helper()
	f, err := readFrame(p.r)
	if err != nil {
		t.Errorf("peer: %v", err)
	}
	return f
}

func (p *peer) send(t *testing.T, msg string) {
	t.Helper()
	if _, err := io.WriteString(p, msg); err != nil {
		t.Errorf("peer: %v", err)
	}
}

func TestHello(t *testing.T) {
	defer goleak.VerifyNone(t)
	hello := func(version byte, bitmap ...byte) string {
		m := []byte(message(msgHello, 0, string(bitmap)))
		m[0] = version
		return string(m)
	}
	for name, c := range map[string]struct {
		says string
		want string // part of the error, "" for success
	}{
		"1.5":                  {hello(6), ""},
		"newer":                {hello(9), ""},
		"newer without 1.5":    {hello(9, 0, 1, 0, 8, 0, 0, 3, 0x80), "speaks version 9 and not OpenFlow 1.5"},
		"older with 1.5":       {hello(1, 0, 1, 0, 8, 0, 0, 0, 0x42), ""},
		"bitmap after another": {hello(1, 0, 9, 0, 5, 7, 0, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0x40), ""},
		"1.3":                  {hello(4), "speaks version 4"},
		"1.3 with bitmap":      {hello(4, 0, 1, 0, 8, 0, 0, 0, 0x12), "speaks version 4"},
		"bad element":          {hello(6, 0, 1, 0, 3), "not OpenFlow 1.5"},
		"long element":         {hello(6, 0, 1, 0, 80, 0, 0, 0, 0x40), "not OpenFlow 1.5"},
		"error":                {message(msgError, 0, "\x00\x00\x00\x00"), "OFPHFC_INCOMPATIBLE"},
		"short error":          {message(msgError, 0, "\x00"), "1 bytes"},
		"another message":      {message(msgEchoRequest, 0, ""), "began with message type 2"},
		"length 7":             {"\x06\x00\x00\x07\x00\x00\x00\x00", "length 7"},
		"half a header":        {"\x06\x00\x00", "unexpected EOF"},
		"half a message":       {"\x06\x00\x00\x10\x00\x00\x00\x00\x00", "unexpected EOF"},
		"nothing":              {"", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = readFrame(bufio.NewReader(theirs))
				_, _ = io.WriteString(theirs, c.says)
				if c.want != "" {
					_ = theirs.Close()
				}
			}()
			conn, err := NewConn(t.Context(), ours)
			<-done
			switch {
			case err == nil && c.want != "":
				t.Errorf("NewConn() succeeds, want error %q", c.want)
			case err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want)):
				t.Errorf("NewConn() = %v, want %q", err, c.want)
			}
			if conn != nil {
				_ = conn.Close()
			}
			_ = theirs.Close()
		})
	}
}

func TestHelloEndsWithItsContext(t *testing.T) {
	defer goleak.VerifyNone(t)
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = readFrame(bufio.NewReader(theirs))
		cancel()
	}()
	if _, err := NewConn(ctx, ours); !errors.Is(err, context.Canceled) {
		t.Errorf("NewConn() = %v, want canceled", err)
	}
}

func TestDialNothing(t *testing.T) {
	_, err := Dial(t.Context(), filepath.Join(t.TempDir(), "none.mgmt"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Dial() = %v, want that the file does not exist", err)
	}
}

func TestEchoIsAnswered(t *testing.T) {
	defer goleak.VerifyNone(t)
	c, p := pair(t)
	p.send(t, message(msgEchoRequest, 77, "hi"))
	if f := p.next(t); f.typ != msgEchoReply || f.xid != 77 || string(f.body) != "hi" {
		t.Errorf("answer is %+v", f)
	}
	_ = c.Close()
}

// However a connection ends, everyone who waits learns it, and why.
func TestEnds(t *testing.T) {
	defer goleak.VerifyNone(t)
	mods := make([]Mod, 5000)
	for i := range mods {
		mods[i] = flow(i, ir.Output{Port: 1})
	}
	calls := map[string]func(context.Context, *Conn) error{
		"barrier": func(ctx context.Context, c *Conn) error { return c.Barrier(ctx) },
		"commit":  func(ctx context.Context, c *Conn) error { _, err := c.Commit(ctx, mods); return err },
		"dump": func(ctx context.Context, c *Conn) error {
			return c.DumpFlows(ctx, func(*FlowStats) error { return nil })
		},
		"flush": func(ctx context.Context, c *Conn) error { return c.FlushZone(ctx, 1) },
	}
	ends := map[string]struct {
		end  func(t *testing.T, c *Conn, p *peer, cancel func())
		want error
		part string
		left bool // the connection remains
	}{
		"close":     {end: func(_ *testing.T, c *Conn, _ *peer, _ func()) { go func() { _ = c.Close() }() }, want: ErrClosed},
		"peer ends": {end: func(_ *testing.T, _ *Conn, p *peer, _ func()) { _ = p.Close() }, want: io.EOF},
		"half a message": {end: func(t *testing.T, _ *Conn, p *peer, _ func()) {
			p.send(t, message(msgBarrierReply, 1, "x")[:8])
			_ = p.Close()
		}, want: io.ErrUnexpectedEOF},
		"length": {end: func(t *testing.T, _ *Conn, p *peer, _ func()) {
			p.send(t, "\x06\x01\x00\x00\x00\x00\x00\x00")
		}, part: "length 0"},
		"version": {end: func(t *testing.T, _ *Conn, p *peer, _ func()) {
			p.send(t, "\x04\x01\x00\x08\x00\x00\x00\x00")
		}, part: "version 4"},
		"canceled": {end: func(_ *testing.T, _ *Conn, _ *peer, cancel func()) { cancel() }, want: context.Canceled, left: true},
	}
	for callName, call := range calls {
		for endName, e := range ends {
			t.Run(callName+"/"+endName, func(t *testing.T) {
				c, p := pair(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				got := make(chan error)
				go func() { got <- call(ctx, c) }()
				// Read all of the request.
				for f := p.next(t); f.typ != msgBarrier && f.typ != msgMultipart; f = p.next(t) {
					continue
				}
				e.end(t, c, p, cancel)
				err := <-got
				if err == nil || e.want != nil && !errors.Is(err, e.want) && !errors.Is(err, io.ErrClosedPipe) || !strings.Contains(err.Error(), e.part) {
					t.Errorf("call = %v, want %v %q", err, e.want, e.part)
				}
				if e.left {
					if err := c.Err(); err != nil {
						t.Errorf("connection ended: %v", err)
					}
				} else {
					<-c.Done()
					if c.Err() == nil {
						t.Error("Err() = nil after the end")
					}
					if err := c.Barrier(t.Context()); err == nil {
						t.Error("a call succeeds after the end")
					}
				}
				_ = c.Close()
			})
		}
	}
}

// A peer that reads nothing does not hold us beyond our context. Half a message is lost, so is the connection.
func TestPeerThatDoesNotRead(t *testing.T) {
	defer goleak.VerifyNone(t)
	c, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Commit(ctx, []Mod{flow(1)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Commit() = %v, want deadline exceeded", err)
	}
	<-c.Done()
	_ = c.Close()
}

// Answers that do not belong to the question.
func TestWrongAnswers(t *testing.T) {
	defer goleak.VerifyNone(t)
	for name, c1 := range map[string]struct {
		call   func(context.Context, *Conn) error
		answer string
		want   string
	}{
		"type": {
			func(ctx context.Context, c *Conn) error { return c.Barrier(ctx) },
			message(msgEchoReply, 1, ""), "answer of type 3",
		},
		"error": {
			func(ctx context.Context, c *Conn) error { return c.Barrier(ctx) },
			message(msgError, 1, "\x00\x01\x00\x05rest"), "OFPBRC_EPERM",
		},
		"unknown error": {
			func(ctx context.Context, c *Conn) error { return c.Barrier(ctx) },
			message(msgError, 1, "\x77\x01\x00\x05"), "type 30465 code 5",
		},
		"experimenter error": {
			func(ctx context.Context, c *Conn) error { return c.Barrier(ctx) },
			message(msgError, 1, "\xff\xff\x00\x10\x00\x00\x23\x20"), "NXTTMFC_BAD_COMMAND",
		},
		"short experimenter error": {
			func(ctx context.Context, c *Conn) error { return c.Barrier(ctx) },
			message(msgError, 1, "\xff\xff\x00\x10\x00"), "experimenter error message: 5 bytes",
		},
		"short features": {
			func(ctx context.Context, c *Conn) error { _, err := c.Features(ctx); return err },
			message(msgFeaturesReply, 1, "123456789012"), "12 bytes",
		},
		"short config": {
			func(ctx context.Context, c *Conn) error { _, err := c.MissSendLen(ctx); return err },
			message(msgConfigReply, 1, "123"), "3 bytes",
		},
		"another vendor": {
			func(ctx context.Context, c *Conn) error { _, err := c.TLVTable(ctx); return err },
			message(msgVendor, 1, "\x00\x00\x23\x21\x00\x00\x00\x1a"), "another vendor message",
		},
		"short TLV table": {
			func(ctx context.Context, c *Conn) error { _, err := c.TLVTable(ctx); return err },
			message(msgVendor, 1, "\x00\x00\x23\x20\x00\x00\x00\x1a12345678"), "8 bytes",
		},
		"another multipart": {
			func(ctx context.Context, c *Conn) error { return c.DumpFlows(ctx, nil) },
			message(msgMultipartReply, 1, "\x00\x07\x00\x00\x00\x00\x00\x00"), "another multipart message",
		},
		"garbled flow": {
			func(ctx context.Context, c *Conn) error { return c.DumpFlows(ctx, nil) },
			message(msgMultipartReply, 1, "\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17aaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "length 23 of 30 bytes",
		},
		"garbled group": {
			func(ctx context.Context, c *Conn) error { return c.DescribeGroups(ctx, []uint32{5}, nil) },
			message(msgMultipartReply, 1, "\x00\x07\x00\x00\x00\x00\x00\x00\x00\x17"), "2 bytes left over",
		},
		"garbled group statistics": {
			func(ctx context.Context, c *Conn) error { return c.DumpGroupStats(ctx, nil) },
			message(msgMultipartReply, 1, "\x00\x06\x00\x00\x00\x00\x00\x00"+"\x00\x29"+strings.Repeat("a", 40)), "length 41 of 42 bytes",
		},
		"garbled meter": {
			func(ctx context.Context, c *Conn) error { return c.DumpMeters(ctx, nil) },
			message(msgMultipartReply, 1, "\x00\x0a\x00\x00\x00\x00\x00\x00"+"\x00\x0c"+strings.Repeat("a", 10)), "length 12 of 12 bytes",
		},
		"another kind of meter": {
			func(ctx context.Context, c *Conn) error { return c.DumpMeters(ctx, nil) },
			message(msgMultipartReply, 1, "\x00\x0a\x00\x00\x00\x00\x00\x00"+"\x00\x18\x00\x01\x00\x00\x00\x07\x00\x02\x00\x10"+strings.Repeat("a", 12)), "meter 7: band of type 2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := pair(t)
			go func() {
				_, _ = readFrame(p.r)
				_, _ = io.WriteString(p, message(msgEchoReply, 999, "for nobody")+c1.answer)
			}()
			if err := c1.call(t.Context(), c); err == nil || !strings.Contains(err.Error(), c1.want) {
				t.Errorf("call = %v, want %q", err, c1.want)
			}
			_ = c.Close()
		})
	}
}

// Errors during a bundle that do not name a mod.
func TestBundleRefused(t *testing.T) {
	defer goleak.VerifyNone(t)
	for name, c1 := range map[string]struct {
		refuse msgType // the message that is answered with an error
		ctrl   uint16
		want   string
	}{
		"open":   {msgBundleControl, bundleOpen, "open bundle: OFPBFC_OUT_OF_BUNDLES"},
		"commit": {msgBundleControl, bundleCommit, "OFPBFC_OUT_OF_BUNDLES"},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := pair(t)
			go func() {
				for {
					f, err := readFrame(p.r)
					if err != nil {
						return
					}
					switch {
					case f.typ == c1.refuse && be.Uint16(f.body[4:]) == c1.ctrl:
						_, _ = io.WriteString(p, message(msgError, f.xid, "\x00\x11\x00\x05"))
					case f.typ == msgBundleControl && be.Uint16(f.body[4:]) != bundleOpen:
						_, _ = io.WriteString(p, message(msgBundleControl, f.xid, "\x00\x00\x00\x01\x00\x05\x00\x00"))
					case f.typ == msgBarrier:
						_, _ = io.WriteString(p, message(msgBarrierReply, f.xid, ""))
					}
				}
			}()
			errs, err := c.Commit(t.Context(), []Mod{flow(1)})
			var refused *Error
			if errs != nil || !errors.As(err, &refused) || !strings.Contains(err.Error(), c1.want) {
				t.Errorf("Commit() = %v, %v, want %q", errs, err, c1.want)
			}
			_ = c.Close()
		})
	}
}
