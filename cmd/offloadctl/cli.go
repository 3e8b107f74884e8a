package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// An env is what a run of the program sees of the world.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time
	// width is that of the terminal which stdout is, in columns; 0 if it is none.
	width int
	// live says that stderr is a terminal: a line there may be written again and again.
	live bool
}

func environment() env {
	e := env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, now: time.Now}
	if size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil {
		e.width = int(size.Col)
		if e.width == 0 {
			e.width = 80
		}
	}
	_, err := unix.IoctlGetWinsize(int(os.Stderr.Fd()), unix.TIOCGWINSZ)
	e.live = err == nil && os.Getenv("TERM") != "dumb"
	return e
}

// A cli is one run of the program: the flags that all commands have, and the connection.
type cli struct {
	env
	socket    string
	timeout   time.Duration
	format    string
	noHeaders bool
	color     string
	conn      *grpc.ClientConn // nil before the first call
}

// run runs the command that args say and returns the exit code.
func run(ctx context.Context, args []string, e env) int {
	c := &cli{env: e}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	err := root.ExecuteContext(ctx)
	if c.conn != nil {
		_ = c.conn.Close()
	}
	if err != nil {
		c.explainError(err)
	}
	return exitCode(err)
}

const longHelp = `offloadctl shows and changes what offloadd does on this node. It talks to the daemon over a unix socket.

Exit codes:
  0  done
  1  the answer is no: something does not work, differs, or is dropped
  2  usage: the command line, or a value on it, cannot be
  3  what was asked for does not exist
  4  the daemon, or something that it needs, is away, too slow or broken
  5  it cannot be done as things are: not permitted, in conflict, not supported`

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "offloadctl",
		Short:         "show and change what offloadd does on this node",
		Long:          longHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return usageError{errors.New("no command")}
		},
		PersistentPreRunE: func(*cobra.Command, []string) error { return c.check() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	socket := client.DefaultSocket
	if s := c.getenv("OFFLOADCTL_SOCKET"); s != "" {
		socket = s
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", socket, "`path` of the daemon's socket; also OFFLOADCTL_SOCKET")
	flags.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long a call may take; watches are not limited")
	flags.StringVarP(&c.format, "output", "o", "table", "`format`: table, wide, json or yaml")
	flags.BoolVar(&c.noHeaders, "no-headers", false, "print tables without a heading")
	flags.StringVar(&c.color, "color", "auto", "`when` to colour: auto, always or never; auto is on a terminal, without NO_COLOR")
	mustComplete(root, "output", "table", "wide", "json", "yaml")
	mustComplete(root, "color", "auto", "always", "never")

	root.AddCommand(
		c.statusCommand(),
		c.getCommand(),
		c.describeCommand(),
		c.watchCommand(),
		c.flowsCommand(),
		c.traceCommand(),
		c.chainsCommand(),
		c.diffCommand(),
		c.doctorCommand(),
		c.deviceCommand(),
		c.auditCommand(),
		c.gcCommand(),
		c.nodeCommand(),
		c.recomputeCommand(),
		c.explainCommand(),
		c.probeCommand(),
		c.versionCommand(),
	)
	root.AddCommand(c.deviceLists()...)
	return root
}

// check refuses values of the common flags that cannot be.
func (c *cli) check() error {
	c.socket = strings.TrimPrefix(c.socket, "unix:")
	switch c.format {
	case "table", "wide", "json", "yaml":
	default:
		return usageError{fmt.Errorf("--output %q: none of table, wide, json, yaml", c.format)}
	}
	switch c.color {
	case "auto", "always", "never":
	default:
		return usageError{fmt.Errorf("--color %q: none of auto, always, never", c.color)}
	}
	if c.timeout <= 0 {
		return usageError{fmt.Errorf("--timeout %v: not positive", c.timeout)}
	}
	return nil
}

// structured reports whether the output is for programs.
func (c *cli) structured() bool { return c.format == "json" || c.format == "yaml" }

// dial returns the connection to the daemon.
func (c *cli) dial() (*grpc.ClientConn, error) {
	if c.conn == nil {
		conn, err := client.Dial(c.socket)
		if err != nil {
			return nil, usageError{err}
		}
		c.conn = conn
	}
	return c.conn, nil
}

// A daemon is its services, for calls under ctx.
type daemon struct {
	ctx     context.Context
	ports   offloadv1.PortServiceClient
	node    offloadv1.NodeServiceClient
	flows   offloadv1.FlowServiceClient
	devices offloadv1.DeviceServiceClient
	probe   offloadv1.ProbeServiceClient
	monitor offloadv1.MonitorServiceClient
}

// call calls do with the daemon. The calls together may take --timeout.
func (c *cli) call(ctx context.Context, do func(daemon) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.stream(ctx, do)
}

// stream is call without a limit.
func (c *cli) stream(ctx context.Context, do func(daemon) error) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	return do(daemon{
		ctx:     ctx,
		ports:   offloadv1.NewPortServiceClient(conn),
		node:    offloadv1.NewNodeServiceClient(conn),
		flows:   offloadv1.NewFlowServiceClient(conn),
		devices: offloadv1.NewDeviceServiceClient(conn),
		probe:   offloadv1.NewProbeServiceClient(conn),
		monitor: offloadv1.NewMonitorServiceClient(conn),
	})
}

// pages calls each with the items of all pages of a list.
func pages[T any](fetch func(token string) (items []T, next string, err error), each func(T) error) error {
	for token := ""; ; {
		items, next, err := fetch(token)
		if err != nil {
			return client.Error(err)
		}
		for _, item := range items {
			if err := each(item); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		token = next
	}
}

// received calls each with what comes over a stream until it ends.
func received[T any](next func() (T, error), each func(T) error) error {
	for {
		m, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return client.Error(err)
		}
		if err := each(m); err != nil {
			return err
		}
	}
}
