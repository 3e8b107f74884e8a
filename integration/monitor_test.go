package integration

import (
	"context"
	"errors"
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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A watched is what two nodes say of their pairs: n1 has the pods q1 and q2, n2 has q3, and q9 is nowhere.
type watched struct {
	l       *labtest.Lab
	from    map[string]offloadv1.MonitorServiceClient // by node
	ports   map[string]offloadv1.PortServiceClient    // by node
	metrics map[string]string                         // sockets, by node
	specs   map[string]*offloadv1.PortSpec            // by pod
}

func (w *watched) node(pod string) string {
	if pod == "q3" {
		return "n2"
	}
	return "n1"
}

// watchPairs starts the lab, with this in the agents' configuration, and returns when the pods are there.
func watchPairs(t *testing.T, opts lab.Options, yaml string, args ...string) *watched {
	t.Helper()
	w := &watched{
		from: map[string]offloadv1.MonitorServiceClient{}, ports: map[string]offloadv1.PortServiceClient{}, metrics: map[string]string{},
		specs: map[string]*offloadv1.PortSpec{},
	}
	dir := t.TempDir()
	for _, n := range []string{"n1", "n2"} {
		w.metrics[n] = filepath.Join(dir, n)
		opts.Nodes = append(opts.Nodes, lab.NodeConfig{Name: n, Agent: lab.Offloadd, AgentArgs: args, ConfigYAML: yaml + "metrics: unix:" + w.metrics[n] + "\n"})
	}
	l := labtest.Start(t, opts)
	w.l = l
	script := "ls-add sw0\n"
	for i := range 9 {
		c := pod(i + 1)
		script += "lsp-add sw0 " + c.Name + "\n"
		script += fmt.Sprintf("lsp-set-addresses %s '%s %s'\n", c.Name, c.MAC, c.IPs[0].Addr())
	}
	l.NB(script)
	l.Sync()
	for _, n := range l.Nodes {
		w.ports[n.Name] = dialPorts(t, n)
		conn, err := client.Dial(filepath.Join(n.Dir, "offloadd.sock"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		l.Check(err)
		t.Cleanup(func() { _ = conn.Close() })
		w.from[n.Name] = offloadv1.NewMonitorServiceClient(conn)
	}
	for i := range 3 {
		c := pod(i + 1)
		w.specs[c.Name] = spec(l.AddPod(w.node(c.Name), c))
		w.plug(c.Name)
	}
	l.Sync()
	return w
}

func (w *watched) plug(pod string) {
	w.l.T.Helper()
	_, err := create(w.l.T.Context(), w.ports[w.node(pod)], w.specs[pod], lab.Patient(patience))
	w.l.Check(err)
}

func (w *watched) unplug(pod string) {
	w.l.T.Helper()
	_, err := remove(w.l.T.Context(), w.ports[w.node(pod)], w.specs[pod].GetKey())
	w.l.Check(err)
}

// pair is how a node says that the requests of a pair are now; nil: it does not know them.
func (w *watched) pair(node, from, to string) *offloadv1.ProbePair {
	w.l.T.Helper()
	return w.side(node, from, to, false)
}

func (w *watched) side(node, from, to string, answers bool) *offloadv1.ProbePair {
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
		if p.GetFrom() == from && p.GetTo() == to && p.GetAnswers() == answers {
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
	p := w.await(node, from, to, "well", func(p *offloadv1.ProbePair) bool {
		return p.GetMeasured() && p.GetReason() == "" && p.GetAnswered() > 0
	})
	before := p.GetAnswered()
	w.await(node, from, to, "measured on", func(p *offloadv1.ProbePair) bool {
		return p.GetReason() == "" && p.GetAnswered() >= before+20
	})
}

// reason waits until the pair from q1 has a reason.
func (w *watched) reason(to string, why reason.Reason, measured bool) {
	w.l.T.Helper()
	w.await("n1", "q1", to, "with "+string(why), func(p *offloadv1.ProbePair) bool {
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
	w := watchPairs(t, lab.Options{}, monitorYAML)
	l, ctx := w.l, t.Context()

	// Those that are there are measured, and the others say why not.
	w.more("n1", "q1", "q2")
	w.more("n1", "q1", "q3")
	w.more("n2", "q3", "q1")
	w.reason("q9", reason.ProbeImpossible, false)
	if p := w.pair("n1", "q9", "q1"); p != nil {
		t.Errorf("n1 says of a pair whose requests are not its own: %v", p)
	}
	if p := w.pair("n1", "q1", "q3"); p.GetChassis() != "n2" {
		t.Errorf("q3 is on chassis %q, want n2", p.GetChassis())
	}
	if text := scrape(t, w.metrics["n1"]); !strings.Contains(text, `offloadd_probe_sent_total{from="q1",to="q3"}`) || !strings.Contains(text, `offloadd_probe_rtt_seconds_bucket{from="q1",to="q2",le="+Inf"}`) {
		t.Errorf("metrics of n1:\n%s", text)
	}

	// A policy drops the requests of one pair: that is loss, and said; the others go on. Without it all is well again.
	drop := `to-lport 3000 'outport == "q3" && ip4.src == 10.0.1.1 && udp.dst == 8629'`
	l.NB("acl-add sw0 " + drop + " drop")
	l.Sync()
	w.reason("q3", reason.ProbeNoAnswer, true)
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
	w.unplug("q3")
	w.reason("q3", reason.ProbeImpossible, false)
	w.plug("q3")
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
		for _, c := range child {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", c))
			l.Check(err)
			var size, resident int
			if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
				t.Fatal(err)
			}
			if resident *= os.Getpagesize(); resident > 20<<20 {
				t.Errorf("%s: the process has %d octets, more than 20 MiB", n, resident)
			} else {
				t.Logf("%s: the process has %.1f MiB", n, float64(resident)/(1<<20))
			}
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
		w.unplug(name)
	}
	wantClean(t, l.Node("n1"), w.ports["n1"], 0)
	wantClean(t, l.Node("n2"), w.ports["n2"], 0)
}

// The requests of two pairs are forwarded by filters; then a policy logs those of one, which leaves them to Open vSwitch. That is found, said and counted, and
// when the policy is gone all is well again.
func TestOffloadLost(t *testing.T) {
	if _, err := netlink.GenlFamilyGet("ovs_datapath"); errors.Is(err, unix.ENOENT) {
		t.Skipf("this kernel has no datapath of Open vSwitch: %v (make test-vm runs the test on one that has)", err)
	} else if err != nil {
		t.Fatal(err)
	}
	w := watchPairs(t, lab.Options{Datapath: lab.System}, strings.ReplaceAll(monitorYAML, "burst: 1", "look: 5s"), "--tc-software")
	l := w.l
	offloaded := func(to string) {
		t.Helper()
		w.await("n1", "q1", to, "by filters", func(p *offloadv1.ProbePair) bool {
			return p.GetReason() == "" && p.GetLevel() == offloadv1.OffloadLevel_OFFLOAD_LEVEL_FILTERS && p.GetFilters() >= 0.9 && p.GetHardware() == 0
		})
	}
	offloaded("q2")
	offloaded("q3")

	logs := `from-lport 3000 'inport == "q1" && ip4.dst == 10.0.1.3 && udp.dst == 8629'`
	l.NB("--log acl-add sw0 " + logs + " allow-related")
	l.Sync()
	w.reason("q3", reason.ProbeOffloadLost, true)
	if p := w.pair("n1", "q1", "q3"); p.GetLevel() != offloadv1.OffloadLevel_OFFLOAD_LEVEL_OVS || p.GetRegressions() != 1 {
		t.Errorf("what was lost: %v", p)
	}
	offloaded("q2")
	if text := scrape(t, w.metrics["n1"]); !strings.Contains(text, `offloadd_probe_offload_lost_total{from="q1",packets="requests",to="q3"} 1`) ||
		!strings.Contains(text, `offloadd_probe_worse{from="q1",packets="requests",to="q3"} 1`) {
		t.Errorf("metrics of n1:\n%s", text)
	}
	if log, err := os.ReadFile(l.Node("n1").AgentLog()); err != nil || !strings.Contains(string(log), "reason=PROBE_OFFLOAD_LOST") {
		t.Errorf("the log does not say it (%v)", err)
	}
	// A daemon that finds it so knows that it was otherwise.
	l.Check(l.Node("n1").StopAgent(syscall.SIGTERM))
	l.Check(l.Node("n1").StartAgent(lab.Offloadd))
	w.reason("q3", reason.ProbeOffloadLost, true)
	l.NB("acl-del sw0 " + logs)
	l.Sync()
	offloaded("q3")
	offloaded("q2")

	// The node of who answers sees that the answers are offloaded, and what the connection tracker has there; and when they are not any more, which the other does not see.
	answers := func(what string, so func(p *offloadv1.ProbePair) bool) {
		t.Helper()
		var p *offloadv1.ProbePair
		l.Eventually(2*patience, "answers of q3 "+what, func() bool {
			p = w.side("n2", "q1", "q3", true)
			return p != nil && so(p)
		})
		t.Logf("answers %s: %v", what, p)
	}
	l.NB("acl-add sw0 to-lport 1 ip4 allow-related") // connections have a state from now on
	l.Sync()
	answers("by filters", func(p *offloadv1.ProbePair) bool {
		c := p.GetConnection()
		return p.GetReason() == "" && p.GetLevel() == offloadv1.OffloadLevel_OFFLOAD_LEVEL_FILTERS && c.GetOffload() > 0 && c.GetAssured() == c.GetZones() && c.GetHwOffload() == 0
	})
	l.NB(`qos-add sw0 from-lport 100 'inport == "q3" && udp.src == 8629 && ip4.dst == 10.0.1.1' rate=1000000`)
	l.Sync()
	answers("by Open vSwitch", func(p *offloadv1.ProbePair) bool {
		return p.GetReason() == string(reason.ProbeOffloadLost) && p.GetLevel() == offloadv1.OffloadLevel_OFFLOAD_LEVEL_OVS && p.GetRegressions() == 1 && p.GetWhy() != ""
	})
	offloaded("q3")
	if text := scrape(t, w.metrics["n2"]); !strings.Contains(text, `offloadd_probe_worse{from="q1",packets="answers",to="q3"} 1`) ||
		!strings.Contains(text, `offloadd_probe_connection_zones{from="q1",packets="answers",state="assured",to="q3"} 1`) {
		t.Errorf("metrics of n2:\n%s", text)
	}
	if p := w.pair("n1", "q1", "q3"); p.GetConnection().GetAssured() == 0 {
		t.Errorf("to n1 the connection is not assured: %v", p)
	}
	l.NB("qos-del sw0")
	l.Sync()
	answers("by filters again", func(p *offloadv1.ProbePair) bool {
		return p.GetReason() == "" && p.GetLevel() == offloadv1.OffloadLevel_OFFLOAD_LEVEL_FILTERS
	})
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
		for word := range strings.FieldsSeq(string(text)) {
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
