package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A watched is what nodes say of their pairs.
type watched struct {
	l    *labtest.Lab
	from map[string]offloadv1.MonitorServiceClient // by node
}

// pair is how a node says that a pair is now; nil: it does not know it.
func (w *watched) pair(node, from, to string) *offloadv1.ProbePair {
	w.l.T.Helper()
	ctx, cancel := context.WithTimeout(w.l.T.Context(), patience)
	defer cancel()
	stream, err := w.from[node].WatchPairs(ctx, &offloadv1.WatchPairsRequest{})
	if err != nil {
		w.l.T.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil {
		w.l.T.Fatal(client.Error(err))
	}
	for _, p := range r.GetPairs() {
		if p.GetFrom() == from && p.GetTo() == to {
			return p
		}
	}
	return nil
}

// await waits until a pair is as it should be, and returns it.
func (w *watched) await(node, from, to, what string, so func(p *offloadv1.ProbePair) bool) *offloadv1.ProbePair {
	w.l.T.Helper()
	var p *offloadv1.ProbePair
	defer func() {
		if w.l.T.Failed() {
			w.l.T.Logf("%s: from %s to %s, %s: %v", node, from, to, what, p)
		}
	}()
	w.l.Eventually(2*patience, fmt.Sprintf("%s: from %s to %s %s", node, from, to, what), func() bool {
		p = w.pair(node, from, to)
		return p != nil && so(p)
	})
	return p
}

// more waits until a pair has had more answers, and no loss meanwhile.
func (w *watched) more(node, from, to string) {
	w.l.T.Helper()
	p := w.await(node, from, to, "well", func(p *offloadv1.ProbePair) bool { return p.GetMeasured() && p.GetReason() == "" && p.GetAnswered() > 0 })
	before := p.GetAnswered()
	w.await(node, from, to, "measured on", func(p *offloadv1.ProbePair) bool {
		return p.GetReason() == "" && p.GetAnswered() >= before+20
	})
}

func (w *watched) reason(node, from, to string, why reason.Reason, measured bool) {
	w.l.T.Helper()
	w.await(node, from, to, "with "+string(why), func(p *offloadv1.ProbePair) bool {
		return p.GetReason() == string(why) && p.GetMeasured() == measured
	})
}

const monitorYAML = `
continuous_probe:
  interval: 100ms
  burst: 1
  pairs:
    - {from: q1, to: q2}
    - {from: q1, to: q3}
    - {from: q3, to: q1}
    - {from: q9, to: q1}
    - {from: q1, to: q9}
`

// Two nodes measure pairs of ports all the time: of one node, and from one to the other, while pods come and go, a policy drops the requests, and
// the daemon is killed.
func TestContinuousProbe(t *testing.T) {
	dir := t.TempDir()
	var nodes []lab.NodeConfig
	for _, n := range []string{"n1", "n2"} {
		nodes = append(nodes, lab.NodeConfig{Name: n, Agent: lab.Offloadd, ConfigYAML: monitorYAML + "metrics: unix:" + filepath.Join(dir, n) + "\n"})
	}
	l := labtest.Start(t, lab.Options{Nodes: nodes})
	script := "ls-add sw0\n"
	for i := range 9 {
		c := pod(i + 1)
		script += "lsp-add sw0 " + c.Name + "\n"
		script += fmt.Sprintf("lsp-set-addresses %s '%s %s'\n", c.Name, c.MAC, c.IPs[0].Addr())
	}
	l.NB(script)
	l.Sync()
	ctx := t.Context()
	ports, at := map[string]offloadv1.PortServiceClient{}, map[string]string{"q1": "n1", "q2": "n1", "q3": "n2"}
	w := &watched{l, map[string]offloadv1.MonitorServiceClient{}}
	for _, n := range l.Nodes {
		ports[n.Name] = dialPorts(t, n)
		conn, err := client.Dial(filepath.Join(n.Dir, "offloadd.sock"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		l.Check(err)
		t.Cleanup(func() { _ = conn.Close() })
		w.from[n.Name] = offloadv1.NewMonitorServiceClient(conn)
	}
	specs := map[string]*offloadv1.PortSpec{}
	plug := func(name string) {
		t.Helper()
		var i int
		_, _ = fmt.Sscanf(name, "q%d", &i)
		if specs[name] == nil {
			specs[name] = spec(l.AddPod(at[name], pod(i)))
		}
		_, err := create(ctx, ports[at[name]], specs[name], patience)
		l.Check(err)
	}
	for _, name := range []string{"q1", "q2", "q3"} {
		plug(name)
	}
	l.Sync()

	// Those that are there are measured, and the others say why not.
	w.more("n1", "q1", "q2")
	w.more("n1", "q1", "q3")
	w.more("n2", "q3", "q1")
	w.reason("n1", "q1", "q9", reason.ProbeImpossible, false)
	if p := w.pair("n1", "q9", "q1"); p != nil {
		t.Errorf("n1 says of a pair whose requests are not its own: %v", p)
	}
	if p := w.pair("n1", "q1", "q3"); p.GetChassis() != "n2" {
		t.Errorf("q3 is on chassis %q, want n2", p.GetChassis())
	}
	if text := scrape(t, filepath.Join(dir, "n1")); !strings.Contains(text, `offloadd_probe_sent_total{from="q1",to="q3"}`) || !strings.Contains(text, `offloadd_probe_rtt_seconds_bucket{from="q1",to="q2",le="+Inf"}`) {
		t.Errorf("metrics of n1:\n%s", text)
	}

	// A policy drops the requests of one pair: that is loss, and said; the others go on. Without it all is well again.
	drop := `to-lport 3000 'outport == "q3" && ip4.src == 10.0.1.1 && udp.dst == 8629'`
	l.NB("acl-add sw0 " + drop + " drop")
	l.Sync()
	w.reason("n1", "q1", "q3", reason.ProbeNoAnswer, true)
	w.more("n1", "q1", "q2")
	w.more("n2", "q3", "q1")
	lost := w.pair("n1", "q1", "q3")
	if lost.GetLost() < 3 || lost.GetSent() < lost.GetAnswered()+lost.GetLost() {
		t.Errorf("what is dropped is counted as %v", lost)
	}
	if out, err := l.Node("n1").Exec(ctx, "grep", "-c", "probe pair worse", l.Node("n1").AgentLog()); err != nil || strings.TrimSpace(out) == "0" {
		t.Errorf("the log does not say it: %s %v", out, err)
	}
	l.NB("acl-del sw0 " + drop)
	l.Sync()
	w.more("n1", "q1", "q3")

	// The pod that answers goes, and comes again.
	_, err := remove(ctx, ports["n2"], specs["q3"].GetKey())
	l.Check(err)
	w.reason("n1", "q1", "q3", reason.ProbeImpossible, false)
	plug("q3")
	l.Sync()
	w.more("n1", "q1", "q3")
	w.more("n2", "q3", "q1")

	// The daemon that sends is killed, with its process, and that which answers.
	for _, n := range []string{"n1", "n2"} {
		pid := l.Node(n).AgentPID()
		child := children(t, pid)
		if len(child) != 1 {
			t.Errorf("%s: processes %v, want one", n, child)
		}
		l.Check(l.Node(n).StopAgent(syscall.SIGKILL))
		for _, c := range child {
			l.Eventually(patience, fmt.Sprintf("end of process %d", c), func() bool {
				return syscall.Kill(c, 0) == syscall.ESRCH
			})
		}
		l.Check(l.Node(n).StartAgent(lab.Offloadd))
		w.more("n1", "q1", "q2")
		w.more("n1", "q1", "q3")
		w.more("n2", "q3", "q1")
	}

	// The process alone is killed.
	for _, c := range children(t, l.Node("n1").AgentPID()) {
		l.Check(syscall.Kill(c, syscall.SIGKILL))
	}
	w.more("n1", "q1", "q2")

	for _, name := range []string{"q1", "q2", "q3"} {
		_, err := remove(ctx, ports[at[name]], specs[name].GetKey())
		l.Check(err)
	}
	wantClean(t, l.Node("n1"), ports["n1"], 0)
	wantClean(t, l.Node("n2"), ports["n2"], 0)
}

// children are the processes that a process has started.
func children(t *testing.T, pid int) []int {
	t.Helper()
	var all []int
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			var n int
			_, _ = fmt.Sscan(word, &n)
			all = append(all, n)
		}
	}
	return all
}

// scrape is what a daemon tells a Prometheus that takes text only.
func scrape(t *testing.T, socket string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}, Timeout: 10 * time.Second}
	defer c.CloseIdleConnections()
	r, err := c.Get("http://daemon/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatal(r.Status, err)
	}
	return string(text)
}
