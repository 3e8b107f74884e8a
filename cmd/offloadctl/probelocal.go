package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/probe"
	"github.com/offloadd/offloadd/pkg/probe/engine"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/tc"
)

// probeChild is this process if it is one that a probe without a daemon has started: its engine, or part of a path.
func probeChild(args []string) (code int, is bool) {
	if len(args) != 2 {
		return 0, false
	}
	switch args[1] {
	case engine.Verb:
		return engine.Main(os.Stdin, os.Stdout), true
	case path.ForwardVerb:
		fmt.Fprintln(os.Stderr, "offloadctl:", path.Forward())
		return 1, true
	}
	return 0, false
}

// local makes c talk to a server of its own, in this process, that has nothing but the ProbeService: the same calls, checks and errors as with
// the daemon. What it returns ends the server, after what it does has ended.
func (c *cli) local(stateDir string) (func(), error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	server := api.NewServer(nil, nil, nil, nil,
		probe.New(probe.Options{Dir: filepath.Join(stateDir, "probe"), Program: "offloadctl " + version(), Facts: switchFacts, Filters: leftFilters(c.socket)}), nil,
		slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	// The function that is returned ends it.
	served.Go(func() { _ = server.Serve(ctx, &onlyConn{conn: theirs, closed: make(chan struct{})}) })
	c.conn, err = client.Dial("local", grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
		if ours == nil {
			return nil, errors.New("the connection is over")
		}
		conn := ours
		ours = nil
		return conn, nil
	}))
	end := func() {
		cancel()
		served.Wait()
	}
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// leftFilters removes the filters that a killed daemon's probe has left. While a daemon listens on the socket there are none: those that there are it wants.
func leftFilters(socket string) func(context.Context) (int, error) {
	return func(ctx context.Context) (n int, err error) {
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
			return 0, conn.Close()
		}
		c, err := tc.Dial(tc.DialOptions{})
		if err != nil {
			return 0, &reason.Error{Reason: reason.KernelRefused, Err: err}
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		if n, err = apply.RemoveProbes(ctx, c); err != nil {
			err = &reason.Error{Reason: reason.KernelRefused, Err: err}
		}
		return n, err
	}
}

// switchFacts are what can be seen of the node's Open vSwitch without the daemon; nothing if none answers.
func switchFacts(ctx context.Context) map[string]string {
	sw, err := readSwitch(ctx, defaultDatabase)
	if err != nil || sw.version == "" {
		return nil
	}
	return map[string]string{"Open vSwitch": sw.version}
}

func version() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "(devel)"
}

// socketPair is two ends of a connection of which each side can ask who is at the other.
func socketPair() (a, b net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, ferr := net.FileConn(f)
		err = errors.Join(err, ferr, f.Close())
		conns[i] = c
	}
	return conns[0], conns[1], err
}

// An onlyConn is a listener that has one connection.
type onlyConn struct {
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *onlyConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, io.EOF
}

func (l *onlyConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *onlyConn) Addr() net.Addr { return &net.UnixAddr{Name: "local", Net: "unix"} }
