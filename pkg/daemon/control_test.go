package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offloadd/offloadd/pkg/chassis"
)

// socketDir returns a directory for sockets, whose paths must be shorter than those of t.TempDir may be.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ctl") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// lonely starts an agent that reaches nobody, with its control socket at path. Cancel ends both.
func lonely(t *testing.T, path string) (agent *Agent, cancel func()) {
	t.Helper()
	agent, err := NewAgent(Config{OVSDatabase: "unix:" + path + ".nobody", OVSRunDir: "/"}, chassis.Options{}, silent())
	if err != nil {
		t.Fatal(err)
	}
	control, err := NewControl("unix:"+path, agent, "offloadd 1.2.3", silent())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Run(ctx, silent(), append(agent.Tasks(), Task{"control", control.Run})...) }()
	cancel = sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, ErrLeft) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		goleak.VerifyNone(t)
	})
	return agent, cancel
}

// appctl runs the real ovs-appctl.
func appctl(t *testing.T, path string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ovs-appctl", append([]string{"--timeout=20", "-t", path}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func TestAppctl(t *testing.T) {
	path := filepath.Join(socketDir(t), "o.ctl")
	agent, cancel := lonely(t, path)
	for _, tt := range []struct {
		args   []string
		stdout string // what it begins with
		stderr string // what it has in it; empty: success
	}{
		{[]string{"version"}, "offloadd 1.2.3\n", ""},
		{[]string{"list-commands"}, "The available commands are:\n  connection-status       \n  ct-zone-list            \n  inc-engine/recompute    \n", ""},
		{[]string{"status"}, "chassis: \nsouthbound connected: false\nopen_vswitch connected: false\nbridge connected: false\nflows desired: 0\n", ""},
		{[]string{"connection-status"}, "not connected", ""},
		{[]string{"ct-zone-list"}, "", ""},
		{[]string{"inc-engine/recompute"}, "", ""},
		{[]string{"recompute"}, "", ""},
		{[]string{"nosuch"}, "", `"nosuch" is not a valid command (use "list-commands" to see a list of valid commands)`},
		{[]string{"version", "a"}, "", `"version" command takes at most 0 arguments`},
	} {
		out, errs, err := appctl(t, path, tt.args...)
		if !strings.HasPrefix(out, tt.stdout) || tt.stdout == "" && out != "" {
			t.Errorf("%v prints %q, want %q", tt.args, out, tt.stdout)
		}
		if (err != nil) != (tt.stderr != "") || !strings.Contains(errs, tt.stderr) {
			t.Errorf("%v: %v, %q, want %q", tt.args, err, errs, tt.stderr)
		}
	}

	// Whoever asks too late, or waits for what will not be, is told.
	waiting := make(chan error, 1)
	go func() { waiting <- agent.Leave() }() // there is nothing to leave, but nobody knows yet
	for left := false; !left; {
		if err := agent.do(func() { left = agent.leaving }); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-waiting; err == nil {
		t.Error("Leave of a daemon that ends says nothing")
	}
	if err := agent.Recompute(); !errors.Is(err, errEnded) {
		t.Errorf("Recompute of a daemon that has ended = %v, want %v", err, errEnded)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// The protocol as bytes: several requests on a connection, identifiers of any kind, and clients that talk nonsense, which
// harm nobody but themselves.
func TestControlProtocol(t *testing.T) {
	path := filepath.Join(socketDir(t), "o.ctl")
	lonely(t, path)
	good := dial(t, path) // connected all the time
	for _, tt := range []struct{ name, request, reply string }{
		{"number", `{"method":"version","params":[],"id":0}`, `{"id":0,"result":"offloadd 1.2.3\n","error":null}`},
		{"string", `{"method":"version","params":[],"id":"x"}`, `{"id":"x","result":"offloadd 1.2.3\n","error":null}`},
		{"no identifier", `{"method":"version"}`, `{"id":null,"result":"offloadd 1.2.3\n","error":null}`},
		{
			"two at once", `{"method":"version","id":1} {"method":"connection-status","id":2}`,
			`{"id":1,"result":"offloadd 1.2.3\n","error":null}{"id":2,"result":"not connected","error":null}`,
		},
		{"unknown", `{"method":"x","id":1}`, `{"id":1,"result":null,"error":"\"x\" is not a valid command (use \"list-commands\" to see a list of valid commands)\n"}`},
		{"no JSON", `hello`, ``},
		{"no object", `[1]`, ``},
		{"parameters of a wrong type", `{"method":"version","params":[1],"id":1}`, ``},
		{"cut off", `{"method":"version"`, ``},
		{"nothing", ``, ``},
		{"nested too deep", `{"id":` + strings.Repeat("[", 100000), ``},
		{"oversized", `{"method":"` + strings.Repeat("x", maxControlRequest+1) + `","id":1}`, ``},
	} {
		c := dial(t, path)
		got := c.ask(tt.request)
		if strings.ReplaceAll(got, "}\n", "}") != tt.reply {
			t.Errorf("%s: reply %s, want %s", tt.name, got, tt.reply)
		}
	}
	good.write(`{"method":"version","params":[],"id":7}`)
	var reply struct{ ID int }
	if err := json.NewDecoder(good).Decode(&reply); err != nil || reply.ID != 7 {
		t.Errorf("a client that waited through all that: %+v, %v", reply, err)
	}

	// Many at once, each with answers of its own.
	var wg sync.WaitGroup
	for client := range 20 {
		c := dial(t, path)
		wg.Go(func() {
			in := json.NewDecoder(c)
			for i := range 20 {
				want := client*100 + i
				c.write(fmt.Sprintf(`{"method":"status","id":%d}`, want))
				var reply struct {
					ID     int
					Result string
				}
				if err := in.Decode(&reply); err != nil || reply.ID != want || !strings.Contains(reply.Result, "turn: ") {
					t.Errorf("client %d: %+v, %v", client, reply, err)
				}
			}
		})
	}
	wg.Wait()
}

type client struct {
	*net.UnixConn
	t *testing.T
}

func dial(t *testing.T, path string) client {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return client{c, t}
}

func (c client) write(text string) {
	// A server that has had enough closes the connection.
	_, _ = c.Write([]byte(text))
}

// ask sends all there is to send and returns all there is to read.
func (c client) ask(text string) string {
	c.write(text)
	_ = c.CloseWrite()
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.t.Error("the connection stays open")
			}
			return b.String()
		}
	}
}

func TestControlSocket(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "o.ctl")

	// What a process that was killed left behind.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	_, cancel := lonely(t, path)
	at, err := os.Stat(path)
	if err != nil || at.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket %v, %v, want mode 0600", at.Mode(), err)
	}

	// A living process keeps its socket.
	if _, err := NewControl("unix:"+path, nil, "", silent()); err == nil || !strings.Contains(err.Error(), "another process does") {
		t.Errorf("NewControl on the socket of another = %v", err)
	}
	if out, _, err := appctl(t, path, "version"); err != nil || out != "offloadd 1.2.3\n" {
		t.Errorf("afterwards: %q, %v", out, err)
	}
	cancel()

	// What is no socket is nobody's to remove.
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{file, "it is no socket"},
		{dir, "it is no socket"},
		{filepath.Join(dir, "missing", "o.ctl"), "no such file or directory"},
		{filepath.Join(dir, strings.Repeat("x", 120)), "invalid argument"},
	} {
		if _, err := NewControl("unix:"+tt.path, nil, "", silent()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("NewControl at %s = %v, want %s", tt.path, err, tt.want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file has %q, %v", text, err)
	}
}
