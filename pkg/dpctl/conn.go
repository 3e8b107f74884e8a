package dpctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Conn asks an ovs-vswitchd over its control socket, in the protocol of ovs-appctl(8): JSON-RPC 1.0. It is for one call after the
// other. ovs-vswitchd answers in its main thread, so that it does little else meanwhile: ask when somebody wants to know.
type Conn struct {
	conn net.Conn
	id   int
}

// MaxReply bounds an answer, in bytes. A megaflow takes about 600.
const MaxReply = 64 << 20

// SocketPath returns where the ovs-vswitchd listens whose files are in dir: ovs-vswitchd.PID.ctl, with the PID of ovs-vswitchd.pid.
func SocketPath(dir string) (string, error) {
	pid, err := PID(dir)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, fmt.Sprintf("ovs-vswitchd.%d.ctl", pid)), nil
}

// PID returns the process of the ovs-vswitchd whose files are in dir, as it says: in its own namespace, and it may have ended.
func PID(dir string) (int, error) {
	f, err := os.Open(filepath.Join(dir, "ovs-vswitchd.pid"))
	if err != nil {
		return 0, fmt.Errorf("dpctl: ovs-vswitchd does not run, or has its files elsewhere: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, fmt.Errorf("dpctl: %w", err)
	}
	pid, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 31)
	if err != nil {
		return 0, fmt.Errorf("dpctl: %s has no process number: %q", f.Name(), text)
	}
	return int(pid), nil
}

// Dial connects to the ovs-vswitchd whose files are in dir.
func Dial(ctx context.Context, dir string) (*Conn, error) {
	path, err := SocketPath(dir)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("dpctl: ovs-vswitchd: %w", err)
	}
	return &Conn{conn: conn}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// ErrRefused is the error of a command that ovs-vswitchd answers with an error.
var ErrRefused = errors.New("refused")

// Call runs a command and returns what it prints. After an error other than ErrRefused the connection is of no use.
func (c *Conn) Call(ctx context.Context, method string, args ...string) (string, error) {
	text, err := c.call(ctx, method, args)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("dpctl: ovs-vswitchd: %s: %w", method, err)
	}
	return text, nil
}

func (c *Conn) call(ctx context.Context, method string, args []string) (string, error) {
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.id++
	if args == nil {
		args = []string{}
	}
	request := struct {
		Method string   `json:"method"`
		Params []string `json:"params"`
		ID     int      `json:"id"`
	}{method, args, c.id}
	if err := json.NewEncoder(c.conn).Encode(request); err != nil {
		return "", err
	}
	var reply struct {
		ID     int     `json:"id"`
		Result *string `json:"result"`
		Error  *string `json:"error"`
	}
	in := &io.LimitedReader{R: c.conn, N: MaxReply}
	if err := json.NewDecoder(in).Decode(&reply); err != nil {
		if in.N == 0 {
			err = fmt.Errorf("the answer has more than %d bytes", MaxReply)
		}
		return "", err
	}
	switch {
	case reply.ID != c.id:
		return "", fmt.Errorf("answer %d to question %d", reply.ID, c.id)
	case reply.Error != nil:
		return "", fmt.Errorf("%w: %s", ErrRefused, strings.TrimSpace(*reply.Error))
	case reply.Result == nil:
		return "", errors.New("no answer in the reply")
	}
	return *reply.Result, nil
}

// The datapaths of all bridges whose datapath_type is system, or netdev.
const (
	KernelDatapath = "system@ovs-system"
	UserDatapath   = "netdev@ovs-netdev"
)

// Missed returns for how many packets a datapath has had no megaflow.
func (c *Conn) Missed(ctx context.Context, datapath string) (uint64, error) {
	text, err := c.Call(ctx, "dpctl/show", datapath)
	if err != nil {
		return 0, err
	}
	return ParseMissed(text)
}

// Flows returns the megaflows of a datapath, those that are offloaded and those that are not, with the names of ports.
func (c *Conn) Flows(ctx context.Context, datapath string) ([]Flow, error) {
	text, err := c.Call(ctx, "dpctl/dump-flows", "-m", "--names", datapath)
	if err != nil {
		return nil, err
	}
	return Parse(text)
}

// Lookups returns how many packets a datapath has looked up in its table of flows, each as often as it was there, since the datapath was made.
func (c *Conn) Lookups(ctx context.Context, datapath string) (uint64, error) {
	text, err := c.Call(ctx, "dpctl/show", datapath)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		// "  lookups: hit:12 missed:3 lost:0", of which the lost are among the missed
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "lookups:" {
			continue
		}
		hit, err1 := strconv.ParseUint(strings.TrimPrefix(words[1], "hit:"), 10, 64)
		missed, err2 := strconv.ParseUint(strings.TrimPrefix(words[2], "missed:"), 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, fmt.Errorf("dpctl: show: %q: %w", strings.TrimSpace(line), err)
		}
		return hit + missed, nil
	}
	return 0, fmt.Errorf("dpctl: show %s: no lookups in %.200q", datapath, text)
}
