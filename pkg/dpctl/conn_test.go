package dpctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// files returns a directory for the files of ovs-vswitchd, process 7. Paths of sockets must be short.
func files(t *testing.T) (dir, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "dpctl") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "ovs-vswitchd.pid"), []byte("7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "ovs-vswitchd.7.ctl")
}

// The real ovs-vswitchd answers, and refuses what it does not have.
func TestRealVswitchd(t *testing.T) {
	dir, socket := files(t)
	cmd := exec.CommandContext(t.Context(), "ovs-vswitchd", "--disable-system", "--unixctl="+socket, "-vconsole:off", "unix:"+dir+"/nobody")
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var c *Conn
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c, err = Dial(t.Context(), dir); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if text, err := c.Call(t.Context(), "version"); err != nil || !strings.Contains(text, "Open vSwitch") {
		t.Errorf("version: %q, %v", text, err)
	}
	if _, err := c.Flows(t.Context(), KernelDatapath); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "dpctl/dump-flows") {
		t.Errorf("flows of a datapath that does not exist: %v", err)
	}
	// The connection is good for more.
	if _, err := c.Call(t.Context(), "version"); err != nil {
		t.Error(err)
	}
}

// The calls that are answered.
const (
	dumpFlows = `"method":"dpctl/dump-flows","params":["-m","--names","system@ovs-system"]`
	show      = `"method":"dpctl/show","params":["system@ovs-system"]`
)

// answer serves one end of a pipe with a fixed answer to a call, and returns a Conn at the other.
func answer(t *testing.T, call, reply string) *Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	go func() { // ends when either end is closed
		defer func() { _ = theirs.Close() }()
		line, err := bufio.NewReader(theirs).ReadString('\n')
		if want := "{" + call + `,"id":1}`; err != nil || strings.TrimSpace(line) != want {
			t.Errorf("question %q, %v, want %s", line, err, want)
			return
		}
		_, _ = theirs.Write([]byte(reply))
	}()
	return &Conn{conn: ours}
}

func TestAnswers(t *testing.T) {
	flow := "recirc_id(0),in_port(v1), packets:1, bytes:60, used:never, dp:tc, actions:drop\n"
	for _, c := range []struct {
		name, reply, want string // "": no error
	}{
		{"good", fmt.Sprintf(`{"id":1,"result":%q,"error":null}`, flow), ""},
		{"refused", `{"id":1,"result":null,"error":"no such datapath\n"}`, "refused: no such datapath"},
		{"of another question", `{"id":2,"result":"","error":null}`, "answer 2 to question 1"},
		{"empty", `{"id":1,"result":null,"error":null}`, "no answer"},
		{"no JSON", `flows`, "invalid character"},
		{"cut", `{"id":1,"result":"`, "EOF"},
		{"too long", `{"id":1,"result":"` + strings.Repeat("x", MaxReply), "more than"},
		{"no flows", `{"id":1,"result":"what is this","error":null}`, "no actions"},
	} {
		conn := answer(t, dumpFlows, c.reply)
		flows, err := conn.Flows(t.Context(), KernelDatapath)
		switch {
		case c.want == "" && (err != nil || len(flows) != 1 || flows[0].InPort != "v1" || flows[0].Layer != TC):
			t.Errorf("%s: %+v, %v", c.name, flows, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
		_ = conn.Close()
	}
}

// An ovs-vswitchd that does not answer is waited for as long as the caller says.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer func() { _, _ = ours.Close(), theirs.Close() }()
		go func() { _, _ = bufio.NewReader(theirs).ReadString('\n') }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		_, err := (&Conn{conn: ours}).Call(ctx, "version")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Minute {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

// Errors say what is missing.
func TestDialNobody(t *testing.T) {
	dir, socket := files(t)
	if _, err := Dial(t.Context(), dir); err == nil || !strings.Contains(err.Error(), socket) {
		t.Errorf("nobody listens: %v", err)
	}
	pid := filepath.Join(dir, "ovs-vswitchd.pid")
	if err := os.WriteFile(pid, []byte("../x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "no process number") {
		t.Errorf("a pidfile without a number: %v", err)
	}
	if _, err := Dial(t.Context(), dir+"/none"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("no pidfile: %v", err)
	}
}

// The lookups of a datapath are those that found a flow and those that did not.
func TestLookups(t *testing.T) {
	for _, c := range []struct {
		text string
		want uint64
		ok   bool
	}{
		{`system@ovs-system:\n  lookups: hit:120 missed:3 lost:1\n  flows: 2\n  masks: hit:7 total:1 hit/pkt:0.05\n  port 0: ovs-system (internal)\n`, 123, true},
		{`system@ovs-system:\n  lookups: hit:x missed:3 lost:1\n`, 0, false},
		{`system@ovs-system:\n  flows: 2\n`, 0, false},
		{``, 0, false},
	} {
		got, err := answer(t, show, `{"id":1,"result":"`+c.text+`","error":null}`).Lookups(t.Context(), KernelDatapath)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("Lookups of %q = %d, %v; want %d, ok: %v", c.text, got, err, c.want, c.ok)
		}
	}
}
