package ovsdb

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A connection is one try to talk to a remote: a goroutine that dials and then
// reads, another that writes. Both end with close, and report to the client's
// loop before.
type connection struct {
	remote Remote
	events chan event
	write  chan []byte
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	start time.Time
	read  atomic.Int64 // time of the latest byte from the server, in nanoseconds since start
}

// lastRead returns when the latest byte came in; when the connection was
// established, if none did.
func (c *connection) lastRead() time.Time { return c.start.Add(time.Duration(c.read.Load())) }

// An event is something that happened to a connection: it is established, a
// message came in, or it failed.
type event struct {
	established bool
	message     *message
	err         error
}

// connect starts a connection. Its decoder must not be in use elsewhere.
func connect(ctx context.Context, remote Remote, files *TLSFiles, d *decoder) *connection {
	ctx, cancel := context.WithCancel(ctx)
	c := &connection{
		remote: remote,
		events: make(chan event),
		write:  make(chan []byte),
		cancel: cancel,
		start:  time.Now(),
	}
	c.tasks.Go(func() {
		if err := c.run(ctx, files, d); err != nil {
			c.report(ctx, event{err: err})
		}
	})
	return c
}

// close ends the connection and waits for its goroutines.
func (c *connection) close() {
	c.cancel()
	c.tasks.Wait()
}

func (c *connection) report(ctx context.Context, e event) {
	select {
	case c.events <- e:
	case <-ctx.Done():
	}
}

// run dials and reads until ctx ends or the connection fails.
func (c *connection) run(ctx context.Context, files *TLSFiles, d *decoder) error {
	conn, err := c.remote.dial(ctx, files)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { hangUp(conn) })
	defer stop()
	defer hangUp(conn)
	c.read.Store(int64(time.Since(c.start)))
	c.report(ctx, event{established: true})
	c.tasks.Go(func() {
		if err := c.send(ctx, conn); err != nil {
			c.report(ctx, event{err: fmt.Errorf("write: %w", err)})
		}
	})
	d.scanner = newScanner(&clockedReader{conn, c})
	for {
		m, err := d.message()
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		c.report(ctx, event{message: m})
		if ctx.Err() != nil {
			return nil
		}
	}
}

// send writes messages until ctx ends.
func (c *connection) send(ctx context.Context, conn net.Conn) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case text := <-c.write:
			if _, err := conn.Write(text); err != nil {
				return err
			}
		}
	}
}

// hangUp closes a connection at once. tls.Conn's own Close would wait for room
// to say goodbye to a server that does not read.
func hangUp(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	_ = conn.Close()
}

// A clockedReader notes when it last read something.
type clockedReader struct {
	net.Conn
	owner *connection
}

func (r *clockedReader) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if n > 0 {
		r.owner.read.Store(int64(time.Since(r.owner.start)))
	}
	return n, err
}
