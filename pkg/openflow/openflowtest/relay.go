package openflowtest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A Relay stands between a controller and its bridge, and notes what changes the bridge.
type Relay struct {
	// Dir is where the relay's socket is, named as the bridge's.
	Dir string

	to string // the bridge's socket

	mu    sync.Mutex // guards what follows
	notes []string
	conns map[net.Conn]struct{}
	ended bool
}

// StartRelay listens until the test ends, and passes connections on to a bridge.
func StartRelay(t testing.TB, s *Switch, bridge string) *Relay {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "relay") //nolint:usetesting // its paths are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{Dir: dir, to: s.Socket(bridge), conns: map[net.Conn]struct{}{}}
	l, err := net.Listen("unix", r.Socket(bridge))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		r.ended = true
		for c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		wg.Wait()
		_ = os.RemoveAll(dir)
	})
	return r
}

// Socket is the path of the relay's socket.
func (r *Relay) Socket(bridge string) string { return filepath.Join(r.Dir, bridge+".mgmt") }

// Seen returns what has been noted since the last call, in order: "flush ZONE", "flow mod", "bundle add".
func (r *Relay) Seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.notes
	r.notes = nil
	return n
}

// serve passes messages on until one side ends. While there is no bridge, there is no connection either.
func (r *Relay) serve(client net.Conn) {
	defer r.forget(client)
	bridge, err := net.Dial("unix", r.to)
	if err != nil {
		return
	}
	defer r.forget(bridge)
	r.mu.Lock()
	r.conns[client], r.conns[bridge] = struct{}{}, struct{}{}
	ended := r.ended
	r.mu.Unlock()
	if ended {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, _ = io.Copy(client, bridge)
		_ = client.Close()
	})
	r.forward(bridge, bufio.NewReader(client))
	_ = bridge.Close()
}

func (r *Relay) forget(c net.Conn) {
	_ = c.Close()
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
}

func (r *Relay) forward(w io.Writer, from *bufio.Reader) {
	for {
		header, err := from.Peek(8)
		if err != nil {
			return
		}
		message := make([]byte, binary.BigEndian.Uint16(header[2:]))
		if _, err := io.ReadFull(from, message); err != nil {
			return
		}
		if n := note(message); n != "" {
			r.mu.Lock()
			r.notes = append(r.notes, n)
			r.mu.Unlock()
		}
		if _, err := w.Write(message); err != nil {
			return
		}
	}
}

// note says in a word or two what a message changes, or nothing.
func note(m []byte) string {
	const (
		experimenter = 4  // OFPT_EXPERIMENTER
		flowMod      = 14 // OFPT_FLOW_MOD
		bundleAdd    = 34 // OFPT_BUNDLE_ADD_MESSAGE
		flushZone    = 29 // NXT_CT_FLUSH_ZONE
	)
	switch m[1] {
	case flowMod:
		return "flow mod"
	case bundleAdd:
		return "bundle add"
	case experimenter:
		if len(m) >= 24 && binary.BigEndian.Uint32(m[12:]) == flushZone {
			return fmt.Sprintf("flush %d", binary.BigEndian.Uint16(m[22:]))
		}
	}
	return ""
}
