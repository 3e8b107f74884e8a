// Package ovsdbtest starts ovsdb-servers, alone and in clusters, and scripted servers that misbehave, for tests.
package ovsdbtest

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ovn-org/libovsdb/ovsdb"
)

// Schemas as Debian installs them.
const (
	Southbound = "/usr/share/ovn/ovn-sb.ovsschema"
	Vswitch    = "/usr/share/openvswitch/vswitch.ovsschema"
)

// deadline bounds every wait; it is only reached when something is broken.
const deadline = 30 * time.Second

// A Server is an ovsdb-server process with one database.
type Server struct {
	t        testing.TB
	dir      string
	name     string // of its files in dir
	database string // name of the database
	options  []string

	process *os.Process
	paused  bool
	exited  chan struct{}
}

// Start creates a database with the schema in the given file and serves it on
// a socket until the test ends. Options are passed to ovsdb-server.
func Start(t testing.TB, schema string, options ...string) *Server {
	t.Helper()
	s := newServer(t, directory(t), "db", databaseName(t, schema), options)
	tool(t, "create", s.file(), schema)
	s.Restart()
	return s
}

func newServer(t testing.TB, dir, name, database string, options []string) *Server {
	s := &Server{t: t, dir: dir, name: name, database: database, options: options}
	t.Cleanup(s.Kill)
	return s
}

// directory returns a directory for sockets, whose paths must stay shorter
// than 108 bytes; those of t.TempDir may not.
func directory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ovsdb") //nolint:usetesting // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func databaseName(t testing.TB, schema string) string {
	t.Helper()
	text, err := os.ReadFile(schema)
	if err != nil {
		t.Fatal(err)
	}
	var wire struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	return wire.Name
}

func tool(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ovsdb-tool", args...).CombinedOutput(); err != nil {
		t.Fatalf("ovsdb-tool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (s *Server) file() string   { return filepath.Join(s.dir, s.name+".db") }
func (s *Server) socket() string { return filepath.Join(s.dir, s.name+".sock") }

// Remote returns the active connection method of the server's socket.
func (s *Server) Remote() string { return "unix:" + s.socket() }

// Dir returns the directory of the server's files.
func (s *Server) Dir() string { return s.dir }

// Restart starts the server's process, after Kill, and waits until it listens.
func (s *Server) Restart() {
	s.t.Helper()
	args := append([]string{
		"--remote=punix:" + s.socket(),
		"--unixctl=" + filepath.Join(s.dir, s.name+".ctl"),
		"--log-file=" + filepath.Join(s.dir, s.name+".log"),
		"-vconsole:off", "-vfile:info",
	}, s.options...)
	cmd := exec.Command("ovsdb-server", append(args, s.file())...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	s.exited = make(chan struct{})
	go func() {
		// The parent that Pdeathsig means is the thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(s.exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatalf("ovsdb-server: %v (on Debian: apt-get install openvswitch-switch ovn-common)", err)
	}
	s.process = cmd.Process
	s.wait("to listen", func() bool {
		conn, err := net.Dial("unix", s.socket())
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// wait fails the test if the server exits or takes too long.
func (s *Server) wait(what string, done func() bool) {
	s.t.Helper()
	timeout := time.After(deadline)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-s.exited:
			s.t.Fatalf("ovsdb-server exited:\n%s", s.log())
		case <-timeout:
			s.t.Fatalf("ovsdb-server takes too long %s:\n%s", what, s.log())
		}
	}
}

// Kill ends the server's process with SIGKILL and waits for that.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	_ = s.process.Kill()
	<-s.exited
	s.process, s.paused = nil, false
}

// Port returns the TCP port that the server chose for a remote with port 0, and
// waits until it has.
func (s *Server) Port() string {
	s.t.Helper()
	listening := regexp.MustCompile(`listening on port (\d+)`)
	var match []string
	s.wait("to listen on a port", func() bool {
		match = listening.FindStringSubmatch(s.log())
		return match != nil
	})
	return match[1]
}

// Pause stops the process with SIGSTOP: it holds its connections and says
// nothing. Resume or Kill ends that.
func (s *Server) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	s.paused = true
}

// Resume continues a paused process.
func (s *Server) Resume() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
	s.paused = false
}

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, s.name+".log"))
	return string(text)
}

// Appctl runs ovs-appctl on the server and returns what it prints.
func (s *Server) Appctl(args ...string) string {
	s.t.Helper()
	out, err := s.appctl(args...)
	if err != nil {
		s.t.Fatalf("ovs-appctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *Server) appctl(args ...string) (string, error) {
	target := filepath.Join(s.dir, s.name+".ctl")
	out, err := exec.Command("ovs-appctl", append([]string{"-t", target}, args...)...).CombinedOutput()
	return string(out), err
}

// Transact does a transaction on a connection of its own, past the client
// under test. It fails the test if the server refuses.
func (s *Server) Transact(ops ...ovsdb.Operation) []ovsdb.OperationResult {
	s.t.Helper()
	results, err := s.TryTransact(ops...)
	if err != nil {
		s.t.Fatal(err)
	}
	return results
}

// TryTransact is Transact that returns the server's refusal.
func (s *Server) TryTransact(ops ...ovsdb.Operation) ([]ovsdb.OperationResult, error) {
	params := []any{s.database}
	for _, op := range ops {
		params = append(params, op)
	}
	var results []ovsdb.OperationResult
	if err := s.transact(params, &results); err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Error != "" {
			return nil, fmt.Errorf("transact: %s: %s", r.Error, r.Details)
		}
	}
	return results, nil
}

// Select returns the rows of a table that match all conditions of a list, both
// in the notation of RFC 7047. Numbers are of type json.Number.
func (s *Server) Select(table, where string) []map[string]any {
	s.t.Helper()
	var results []struct {
		Rows           []map[string]any
		Error, Details string
	}
	op := map[string]any{"op": "select", "table": table, "where": json.RawMessage(where)}
	if err := s.transact([]any{s.database, op}, &results); err != nil {
		s.t.Fatal(err)
	}
	if len(results) != 1 || results[0].Error != "" {
		s.t.Fatalf("select %s where %s: %+v", table, where, results)
	}
	return results[0].Rows
}

func (s *Server) transact(params []any, results any) error {
	conn, err := net.Dial("unix", s.socket())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"id": 1, "method": "transact", "params": params}); err != nil {
		return err
	}
	reply := struct{ Result, Error any }{Result: results}
	d := json.NewDecoder(conn)
	d.UseNumber()
	if err := d.Decode(&reply); err != nil {
		return err
	}
	if reply.Error != nil {
		return fmt.Errorf("transact: %v", reply.Error)
	}
	return nil
}
