package apply

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

// A relaying socket stands between a Flows and its bridge and notes what changes the bridge.
type relaying struct {
	path string

	mu    sync.Mutex // guards notes
	notes []string
}

// relay listens until the test ends and passes one connection at a time on to a socket.
func relay(t *testing.T, to string) *relaying {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "relay") //nolint:usetesting // its paths are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	r := &relaying{path: filepath.Join(dir, "bridge.mgmt")}
	l, err := net.Listen("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			bridge, err := net.Dial("unix", to)
			if err != nil {
				t.Error(err)
				return
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				_, _ = io.Copy(client, bridge)
				_ = client.Close()
			})
			r.forward(bridge, bufio.NewReader(client))
			_ = bridge.Close()
			wg.Wait()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
		_ = os.RemoveAll(dir)
	})
	return r
}

// seen returns the notes since the last call.
func (r *relaying) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.notes
	r.notes = nil
	return n
}

// forward passes messages on until one side ends.
func (r *relaying) forward(w io.Writer, from *bufio.Reader) {
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
