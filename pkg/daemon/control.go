package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// A Control answers on a unix socket in the protocol of ovs-appctl(8): JSON-RPC 1.0, one request per line of text, the
// result a string. So `ovs-appctl -t SOCKET list-commands` works on it.
type Control struct {
	listener net.Listener
	log      *slog.Logger
	commands map[string]controlCommand
}

type controlCommand struct {
	usage string
	args  int // at most
	run   func(args []string) (string, error)
}

// NewControl opens the control socket of an agent; Run serves and closes it. remote is unix:PATH. It is an error if
// another process listens there, so it is best done before the agent does anything.
func NewControl(remote string, agent *Agent, version string, log *slog.Logger) (*Control, error) {
	l, err := listenUnix(strings.TrimPrefix(remote, "unix:"))
	if err != nil {
		return nil, fmt.Errorf("daemon control: %w", err)
	}
	c := &Control{listener: l, log: log}
	c.commands = map[string]controlCommand{
		"list-commands": {run: func([]string) (string, error) { return c.list(), nil }},
		"version":       {run: func([]string) (string, error) { return version + "\n", nil }},
		"status": {run: func([]string) (string, error) {
			return ask(agent, func() string { return agent.summary().String() })
		}},
		"connection-status": {run: func([]string) (string, error) {
			return ask(agent, func() string {
				if agent.south.connected {
					return "connected"
				}
				return "not connected"
			})
		}},
		"ct-zone-list": {run: func([]string) (string, error) {
			return ask(agent, agent.zoneList)
		}},
		"inc-engine/recompute": {run: func([]string) (string, error) {
			return "", agent.Recompute()
		}},
		"node/leave": {run: func([]string) (string, error) {
			return "", agent.Leave()
		}},
	}
	c.commands["recompute"] = c.commands["inc-engine/recompute"]
	return c, nil
}

// ask runs f in the agent's loop.
func ask(a *Agent, f func() string) (string, error) {
	var out string
	err := a.do(func() { out = f() })
	return out, err
}

func (a *Agent) zoneList() string {
	var b strings.Builder
	if a.plan.Local != nil {
		for _, key := range sortedKeys(a.plan.Local.Zones) {
			fmt.Fprintf(&b, "%s %d\n", key, a.plan.Local.Zones[key])
		}
	}
	return b.String()
}

func (c *Control) list() string {
	var b strings.Builder
	b.WriteString("The available commands are:\n")
	for _, name := range sortedKeys(c.commands) {
		fmt.Fprintf(&b, "  %-23s %s\n", name, c.commands[name].usage)
	}
	return b.String()
}

// Run serves until ctx ends.
func (c *Control) Run(ctx context.Context) error {
	l := c.listener
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("daemon control: %w", err)
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now().Add(time.Second)) })
			defer stop()
			defer func() { _ = conn.Close() }()
			if err := c.serve(conn); err != nil {
				c.log.Debug("control connection ended", "err", err)
			}
		})
	}
}

// listenUnix listens on path, taking the place of a socket that nobody listens on any more. Only the owner may connect.
func listenUnix(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen unix %s: another process does", path)
	}
	switch at, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case at.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("listen unix %s: it is no socket", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

type controlRequest struct {
	Method string          `json:"method"`
	Params []string        `json:"params"`
	ID     json.RawMessage `json:"id"`
}

type controlReply struct {
	ID     json.RawMessage `json:"id"`
	Result any             `json:"result"`
	Error  any             `json:"error"`
}

// maxControlRequest bounds what one connection may send, in bytes.
const maxControlRequest = 1 << 20

func (c *Control) serve(conn net.Conn) error {
	in := json.NewDecoder(io.LimitReader(conn, maxControlRequest))
	out := json.NewEncoder(conn)
	for {
		var req controlRequest
		if err := in.Decode(&req); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		reply := controlReply{ID: req.ID}
		if text, err := c.call(req); err != nil {
			reply.Error = err.Error() + "\n"
		} else {
			reply.Result = text
		}
		if err := out.Encode(reply); err != nil {
			return err
		}
	}
}

func (c *Control) call(req controlRequest) (string, error) {
	cmd, ok := c.commands[req.Method]
	switch {
	case !ok:
		return "", fmt.Errorf("%q is not a valid command (use \"list-commands\" to see a list of valid commands)", req.Method)
	case len(req.Params) > cmd.args:
		return "", fmt.Errorf("%q command takes at most %d arguments", req.Method, cmd.args)
	}
	return cmd.run(req.Params)
}
