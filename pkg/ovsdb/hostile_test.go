package ovsdb_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
)

const (
	addressSetSchema = `{"tables":{"Address_Set":{"columns":{"name":{"type":"string"},"addresses":{"type":{"key":"string","min":0,"max":"unlimited"}}}}}}`
	row1             = "00000001-0000-4000-8000-000000000000"
	row2             = "00000002-0000-4000-8000-000000000000"
)

// conversation is what an honest server sends after its schema, without waiting
// for requests.
var conversation = `{"id":4,"result":[false,"` + row1 + `",{"Address_Set":{"` + row1 + `":{"initial":{"name":"a\u00e9\"","addresses":["set",["1","2"]]}}}}],"error":null}` +
	`{"id":2,"result":{},"error":null}` +
	`{"id":null,"method":"update3","params":["OVN_Southbound","` + row2 + `",{"Address_Set":{"` + row2 + `":{"insert":{"name":"b","addresses":"3"}},"` +
	row1 + `":{"modify":{"addresses":["set",["2","4"]]}}}}]}` +
	`{"id":"echo","method":"echo","params":[]}` +
	`{"id":null,"method":"update3","params":["OVN_Southbound","` + row1 + `",{"Address_Set":{"` + row1 + `":{"delete":null}}}]}`

// hostile runs a client whose first connection is treated by misbehave, and its
// second honestly. The client has to arrive at the contents of the second.
func hostile(t *testing.T, name string, misbehave func(c *ovsdbtest.Conn)) {
	t.Helper()
	remote := ovsdbtest.Serve(t, func(n int, c *ovsdbtest.Conn) {
		if n == 0 {
			misbehave(c)
			return
		}
		if c.Schema(sbdb.Database, addressSetSchema) && c.Contents(`{"Address_Set":{"`+row2+`":{"initial":{"name":"final"}}}}`) {
			c.Idle()
		}
	})
	f := follow(t, southbound(remote))
	// Transactions must end whatever the server does.
	transacted := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		_, err := f.Client.Transact(ctx, ovsdb.Comment(""))
		transacted <- err
	}()
	f.until("contents of the honest server after "+name, func() bool { return f.names() == "final" && f.last.Connected })
	switch err := <-transacted; {
	case errors.Is(err, context.DeadlineExceeded):
		t.Errorf("%s: a transaction does not end", name)
	case err == nil:
		f.answered++
	}
	f.must(ovsdb.Comment(""))
}

// inParallel runs many cases that wait more than they work.
func inParallel(t *testing.T, cases int, run func(t *testing.T, i int)) {
	t.Helper()
	var wait sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < cases; i = int(next.Add(1)) - 1 {
				t.Run("", func(t *testing.T) { run(t, i) })
			}
		})
	}
	wait.Wait()
}

// TestServerCuts ends the conversation after every byte of it.
func TestServerCuts(t *testing.T) {
	inParallel(t, len(conversation)+1, func(t *testing.T, cut int) {
		hostile(t, fmt.Sprintf("%d bytes", cut), func(c *ovsdbtest.Conn) {
			if c.Schema(sbdb.Database, addressSetSchema) {
				c.Send(conversation[:cut])
			}
		})
	})
}

// TestServerGarbles changes, drops and repeats bytes of the conversation.
func TestServerGarbles(t *testing.T) {
	inParallel(t, 300, func(t *testing.T, seed int) {
		rnd := rand.New(rand.NewPCG(uint64(seed), 20))
		text := []byte(conversation)
		for range 1 + rnd.IntN(3) {
			i := rnd.IntN(len(text))
			switch rnd.IntN(4) {
			case 0:
				text[i] = byte(rnd.IntN(256))
			case 1:
				text[i] = `{}[]",:0nt`[rnd.IntN(10)]
			case 2:
				text = append(text[:i], text[i+rnd.IntN(len(text)-i):]...)
			case 3:
				j := i + rnd.IntN(len(text)-i)
				text = append(text[:j:j], text[i:]...)
			}
			text = append(text, ' ')
		}
		hostile(t, fmt.Sprintf("garbling with seed %d", seed), func(c *ovsdbtest.Conn) {
			if c.Schema(sbdb.Database, addressSetSchema) {
				c.Send(string(text))
			}
		})
	})
}

// TestServerMisbehaves has kinds of misbehaviour by name.
func TestServerMisbehaves(t *testing.T) {
	honestly := func(then func(c *ovsdbtest.Conn)) func(c *ovsdbtest.Conn) {
		return func(c *ovsdbtest.Conn) {
			if c.Schema(sbdb.Database, addressSetSchema) && c.Contents("{}") {
				then(c)
			}
		}
	}
	sends := func(text string) func(c *ovsdbtest.Conn) {
		return func(c *ovsdbtest.Conn) { c.Send(text); c.Idle() }
	}
	for name, misbehave := range map[string]func(c *ovsdbtest.Conn){
		"hanging up":                func(*ovsdbtest.Conn) {},
		"hanging up on the request": func(c *ovsdbtest.Conn) { c.Receive() },
		"HTTP":                      sends("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"zeros":                     sends(strings.Repeat("\x00", 10000)),
		"an endless array": func(c *ovsdbtest.Conn) {
			for c.Send(strings.Repeat("[", 1000)) {
			}
		},
		"an endless string": func(c *ovsdbtest.Conn) {
			c.Send(`{"id":"`)
			for range 80 {
				if !c.Send(strings.Repeat("a", 1<<20)) {
					return
				}
			}
		},
		"a flood of echoes that it does not read": honestly(func(c *ovsdbtest.Conn) {
			for c.Send(strings.Repeat(`{"id":"echo","method":"echo","params":["`+strings.Repeat("a", 1000)+`"]}`, 100)) {
			}
		}),
		"a schema that is none": func(c *ovsdbtest.Conn) { c.Schema(sbdb.Database, `[]`); c.Idle() },
		"another database":      func(c *ovsdbtest.Conn) { c.Schema("Open_vSwitch", addressSetSchema); c.Idle() },
		"refusing everything": func(c *ovsdbtest.Conn) {
			for {
				m, ok := c.Receive()
				if !ok || !c.Send(`{"id":`+string(m.ID)+`,"error":"unknown method"}`) {
					return
				}
			}
		},
		"answering everything with null": func(c *ovsdbtest.Conn) {
			for {
				m, ok := c.Receive()
				if !ok || !c.Reply(m, "null") {
					return
				}
			}
		},
		"an update of a row it never sent": honestly(sends(`{"id":null,"method":"update3","params":["OVN_Southbound","` + row1 + `",{"Address_Set":{"` + row1 + `":{"modify":{"name":"x"}}}}]}`)),
		"canceling the monitor":            honestly(sends(`{"id":null,"method":"monitor_canceled","params":["OVN_Southbound"]}`)),
		"replies nobody asked for":         honestly(sends(`{"id":4,"result":[false,"` + row1 + `",{}],"error":null}`)),
		"a column of the wrong type":       honestly(sends(`{"id":null,"method":"update3","params":["OVN_Southbound","` + row1 + `",{"Address_Set":{"` + row1 + `":{"insert":{"name":5}}}}]}`)),
	} {
		t.Run(name, func(t *testing.T) { hostile(t, name, misbehave) })
	}
}

// TestServerStopsReading leaves transactions in the client's hands.
func TestServerStopsReading(t *testing.T) {
	remote := ovsdbtest.Serve(t, func(_ int, c *ovsdbtest.Conn) {
		if c.Schema(sbdb.Database, addressSetSchema) && c.Contents("{}") {
			// Say something now and then, but never read.
			for c.Send(`{"id":null,"method":"update3","params":["OVN_Southbound","` + row1 + `",{}]}`) {
				time.Sleep(time.Millisecond)
			}
		}
	})
	f := follow(t, southbound(remote))
	f.connected()
	comment := ovsdb.Comment(strings.Repeat("x", 100_000))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if _, err := f.Client.Transact(ctx, comment); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Transact = %v, want %v", err, context.DeadlineExceeded)
			}
		})
	}
	wait.Wait()
	n := f.SetConditions(map[string][]ovsdb.Condition{"Address_Set": {}})
	if n == 0 {
		t.Error("conditions were not taken")
	}
}

// TestInactivityProbe is silent in different ways on a network socket.
func TestInactivityProbe(t *testing.T) {
	const interval = 300 * time.Millisecond
	type server func(c *ovsdbtest.Conn)
	connect := func(t *testing.T, behave server) *follower {
		t.Helper()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ovsdbtest.ServeOn(t, listener, func(_ int, c *ovsdbtest.Conn) {
			if c.Schema(sbdb.Database, addressSetSchema) && c.Contents("{}") {
				behave(c)
			}
		})
		config := southbound("tcp:" + listener.Addr().String())
		config.ProbeInterval = interval
		f := follow(t, config)
		f.connected()
		return f
	}
	t.Run("dead", func(t *testing.T) {
		t.Parallel()
		probed := make(chan struct{})
		start := time.Now()
		f := connect(t, func(c *ovsdbtest.Conn) {
			if _, ok := c.Await("echo"); ok {
				close(probed)
				c.Receive() // nothing, until the client hangs up
			}
		})
		<-probed
		f.disconnected()
		if d := time.Since(start); d < 2*interval {
			t.Errorf("given up after %v, want %v", d, 2*interval)
		}
		if f.log.count("silent for 300ms after an inactivity probe") == 0 {
			t.Errorf("the reason is not logged:\n%s", f.log)
		}
	})
	t.Run("alive", func(t *testing.T) {
		t.Parallel()
		probes := make(chan struct{}, 100)
		f := connect(t, func(c *ovsdbtest.Conn) {
			for {
				m, ok := c.Await("echo")
				if !ok || !c.Reply(m, "[]") {
					return
				}
				probes <- struct{}{}
			}
		})
		for range 3 {
			<-probes
		}
		if f.log.count("database connected") != 1 {
			t.Errorf("a server that answers was given up:\n%s", f.log)
		}
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		// One message that takes many intervals is no silence.
		done := make(chan struct{})
		f := connect(t, func(c *ovsdbtest.Conn) {
			text := `{"id":null,"method":"update3","params":["OVN_Southbound","` + row1 + `",{"Address_Set":{"` + row1 + `":{"insert":{"name":"slow"}}}}]}`
			for chunk := range slices.Chunk([]byte(text), 8) {
				c.Send(string(chunk))
				time.Sleep(interval / 5)
			}
			close(done)
			c.Idle()
		})
		f.until("row", func() bool { return f.names() == "slow" })
		<-done
		if f.log.count("database connected") != 1 {
			t.Errorf("a slow server was given up:\n%s", f.log)
		}
	})
	t.Run("off", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		f := connect(t, func(c *ovsdbtest.Conn) {
			<-release
			c.Idle()
		})
		f.SetProbeInterval(0)
		time.Sleep(4 * interval)
		close(release)
		f.must(ovsdb.Comment(""))
		if f.log.count("database connected") != 1 {
			t.Errorf("a silent server was given up:\n%s", f.log)
		}
	})
}

func TestSetRemotes(t *testing.T) {
	var served [3]atomic.Int64
	var remotes []string
	for i := range served {
		remotes = append(remotes, ovsdbtest.Serve(t, func(_ int, c *ovsdbtest.Conn) {
			served[i].Add(1)
			if c.Schema(sbdb.Database, addressSetSchema) && c.Contents(fmt.Sprintf(`{"Address_Set":{"%s":{"initial":{"name":"s%d"}}}}`, row1, i)) {
				c.Idle()
			}
		}))
	}
	f := follow(t, southbound(remotes[0]))
	f.until("first server", func() bool { return f.names() == "s0" })
	set := func(list ...string) {
		t.Helper()
		if err := f.SetRemotes(list); err != nil {
			t.Fatal(err)
		}
	}
	set(remotes[1], remotes[0])
	set(remotes[0], remotes[1])
	f.must(ovsdb.Comment(""))
	if served[0].Load() != 1 || served[1].Load() != 0 {
		t.Error("the connection was closed though its remote is still named")
	}
	set(remotes[2])
	f.until("third server", func() bool { return f.names() == "s2" && f.last.Connected })
	if err := f.SetRemotes([]string{"nonsense"}); err == nil {
		t.Error("SetRemotes(nonsense) = nil, want an error")
	}
	set("unix:/nonexistent", remotes[0])
	f.until("first server again", func() bool { return f.names() == "s0" && f.last.Connected })
}

// TestReconnectAtOnce loses connections of which one had lasted. There is no
// wait after that one and the first, for one try is free, but after the others.
func TestReconnectAtOnce(t *testing.T) {
	t.Parallel()
	remote := ovsdbtest.Serve(t, func(n int, c *ovsdbtest.Conn) {
		if !c.Schema(sbdb.Database, addressSetSchema) || !c.Contents("{}") {
			return
		}
		if n == 3 {
			time.Sleep(1100 * time.Millisecond)
		}
		if n == 5 {
			c.Idle()
		}
	})
	f := follow(t, southbound(remote))
	wait(t, "six connections", func() bool { return f.log.count("database connected") == 6 })
	var waits []string
	for line := range strings.Lines(f.log.String()) {
		if _, wait, ok := strings.Cut(strings.TrimSpace(line), "retry_in="); ok {
			waits = append(waits, wait)
		}
	}
	atOnce := func(i int) bool { return i < len(waits) && waits[i] == "0s" }
	if len(waits) != 5 || !atOnce(0) || !atOnce(3) || atOnce(1) || atOnce(2) || atOnce(4) {
		t.Errorf("waits after five losses, of which the fourth was late: %v", waits)
	}
}
