package ovsdbtest

import (
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// Serve listens on a socket until the test ends, and calls handle for each
// connection, numbered from 0 in the order in which they come in. It returns
// the socket's active connection method. A handler that returns closes its
// connection; when the test ends all are closed.
func Serve(t testing.TB, handle func(n int, c *Conn)) string {
	t.Helper()
	path := filepath.Join(directory(t), "sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ServeOn(t, listener, handle)
	return "unix:" + path
}

// ServeOn is Serve with a listener of the caller's, which it closes.
func ServeOn(t testing.TB, listener net.Listener, handle func(n int, c *Conn)) {
	var tasks sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	closed := false
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		closed = true
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		tasks.Wait()
	})
	tasks.Go(func() {
		for n := 0; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if closed {
				mu.Unlock()
				_ = conn.Close()
				return
			}
			open[conn] = true
			mu.Unlock()
			tasks.Go(func() {
				handle(n, &Conn{Conn: conn, requests: json.NewDecoder(conn)})
				_ = conn.Close()
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
			})
		}
	})
}

// A Conn is a scripted server's side of a connection. Its methods return false
// when the client has gone.
type Conn struct {
	net.Conn
	requests *json.Decoder
}

// A Message is what a client sent.
type Message struct {
	ID     json.RawMessage
	Method string // empty if it is a reply
	Params json.RawMessage
	Result json.RawMessage
}

// Receive waits for the client's next message.
func (c *Conn) Receive() (Message, bool) {
	var m Message
	err := c.requests.Decode(&m)
	return m, err == nil
}

// Await waits for a message with the given method, and skips others.
func (c *Conn) Await(method string) (Message, bool) {
	for {
		m, ok := c.Receive()
		if !ok || m.Method == method {
			return m, ok
		}
	}
}

// Send sends bytes, JSON or not.
func (c *Conn) Send(text string) bool {
	_, err := io.WriteString(c, text)
	return err == nil
}

// Reply sends the result of a request.
func (c *Conn) Reply(to Message, result string) bool {
	return c.Send(`{"id":` + string(to.ID) + `,"result":` + result + `,"error":null}`)
}

// Schema answers the client's request for the table Database as the server of
// one standalone database with the given schema.
func (c *Conn) Schema(database, schema string) bool {
	m, ok := c.Await("monitor_cond")
	if !ok {
		return false
	}
	row, err := json.Marshal(map[string]any{"initial": map[string]any{
		"name": database, "model": "standalone", "connected": true, "leader": true, "schema": schema,
	}})
	return err == nil && c.Reply(m, `{"Database":{"00000000-0000-4000-8000-000000000001":`+string(row)+`}}`)
}

// Contents answers the client's request for a monitor with <table-updates2>,
// as a server that has no history. Transactions and conditions after that are
// answered by Idle.
func (c *Conn) Contents(updates string) bool {
	m, ok := c.Await("monitor_cond_since")
	return ok && c.Reply(m, `[false,"00000000-0000-0000-0000-000000000000",`+updates+`]`)
}

// Idle answers requests with as little as will do, until the client has gone.
func (c *Conn) Idle() {
	for {
		m, ok := c.Receive()
		switch {
		case !ok:
			return
		case m.Method == "transact":
			var params []json.RawMessage
			if json.Unmarshal(m.Params, &params) != nil {
				return
			}
			results := make([]json.RawMessage, max(len(params)-1, 0))
			for i := range results {
				results[i] = json.RawMessage("{}")
			}
			text, err := json.Marshal(results)
			if err != nil || !c.Reply(m, string(text)) {
				return
			}
		case m.Method == "echo":
			c.Reply(m, string(m.Params))
		case m.Method != "":
			c.Reply(m, "{}")
		}
	}
}
