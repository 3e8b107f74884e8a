package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A ctl runs offloadctl against the daemon of a node.
type ctl struct {
	t    *testing.T
	path string
	node *lab.Node
}

// newCtl compiles offloadctl.
func newCtl(t *testing.T, n *lab.Node) ctl {
	t.Helper()
	path := filepath.Join(t.TempDir(), "offloadctl")
	out, err := exec.Command("go", "build", "-o", path, "github.com/offloadd/offloadd/cmd/offloadctl").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return ctl{t, path, n}
}

// in is the same for a subtest.
func (c ctl) in(t *testing.T) ctl { return ctl{t, c.path, c.node} }

func (c ctl) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.t.Context(), c.path, args...)
	cmd.Env = append(os.Environ(), "OFFLOADCTL_SOCKET="+filepath.Join(c.node.Dir, "offloadd.sock"))
	return cmd
}

func (c ctl) run(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	cmd := c.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// out runs a command that must succeed.
func (c ctl) out(args ...string) string {
	c.t.Helper()
	stdout, stderr, code := c.run(args...)
	if code != 0 {
		c.t.Fatalf("offloadctl %v: exit code %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// items runs a command with -o json and decodes what it lists into a slice.
func items[T any](c ctl, args ...string) []T {
	c.t.Helper()
	var list struct {
		APIVersion string
		Items      []T
	}
	text := c.out(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(text), &list); err != nil || list.APIVersion != "offload.v1" {
		c.t.Fatalf("offloadctl %v: apiVersion %q, %v in:\n%.1000s", args, list.APIVersion, err, text)
	}
	return list.Items
}

// A ctlFlow is a flow as offloadctl -o json prints it.
type ctlFlow struct {
	Table, Priority       int
	Match, Actions, State string
	Cookie                string
	Rows                  []string
	Counters              *struct{ Packets, Bytes, Duration string }
}

// packets sums what flows have counted.
func packets(t *testing.T, flows []ctlFlow) (sum int) {
	t.Helper()
	for _, f := range flows {
		if f.Counters == nil {
			continue
		}
		n, err := strconv.Atoi(f.Counters.Packets)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// What offloadctl tells agrees with what the databases, ovs-ofctl and the control socket tell.
func TestOffloadctl(t *testing.T) {
	l, n1 := offloadd(t, lab.Options{})
	c := newCtl(t, n1)

	t.Run("status", func(t *testing.T) {
		c := c.in(t)
		out := c.out("status")
		for _, want := range []string{"n1", "br-int, connected, everything is installed", "1 tunnels", "offload.sb"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in the status:\n%s", want, out)
			}
		}
		var st struct {
			Bridge struct{ FlowsDesired string }
		}
		if err := json.Unmarshal([]byte(c.out("status", "-o", "json")), &st); err != nil {
			t.Fatal(err)
		}
		if want := status(l, n1, "flows desired"); st.Bridge.FlowsDesired != want {
			t.Errorf("%s flows desired, want %s as ovs-appctl says", st.Bridge.FlowsDesired, want)
		}
	})

	t.Run("get", func(t *testing.T) {
		c := c.in(t)
		type named struct {
			Name, Interface, Chassis, Owner string
			Zone                            int
		}
		chassis := items[named](c, "get", "chassis")
		if len(chassis) != 2 || chassis[0].Name != "n1" || chassis[1].Name != "n2" {
			t.Errorf("get chassis: %+v, want n1 and n2", chassis)
		}
		tunnels := items[named](c, "get", "tunnels")
		if len(tunnels) != 1 || tunnels[0].Chassis != "n2" {
			t.Errorf("get tunnels: %+v, want one to n2", tunnels)
		}
		var zones strings.Builder
		for _, z := range items[named](c, "get", "zones") {
			zones.WriteString(z.Owner + " " + strconv.Itoa(z.Zone) + "\n")
		}
		if want := control(l, n1, "ct-zone-list"); zones.String() != want {
			t.Errorf("get zones:\n%swant:\n%s", zones.String(), want)
		}
		if _, err := n1.VSctl(t.Context(), "set", "Open_vSwitch", ".", "ovs_version=3.1.0"); err != nil { // as ovs-ctl does
			t.Fatal(err)
		}
		l.In(t).Eventually(10*time.Second, "the versions that are in the database are known", func() bool {
			out := c.out("node", "info")
			return strings.Contains(out, "Open vSwitch:  3.1.0\n") && strings.Contains(out, "Open_vSwitch 8.3.1\n") &&
				strings.Contains(out, "OVN_Southbound 20.27.0\n")
		})
	})

	// Every flow that offloadctl says is installed is one that ovs-ofctl sees, and the other way round, but for those that
	// the bridge has learned.
	t.Run("flows", func(t *testing.T) {
		c := c.in(t)
		learned := map[string]bool{"69": true, "76": true, "77": true, "78": true}
		seen := map[string]int{}
		for _, text := range flowTexts(l, n1, "br-int") {
			if table := tableOf(text); !learned[table] {
				seen[table]++
			}
		}
		got := map[string]int{}
		for _, f := range items[ctlFlow](c, "get", "flows") {
			if f.State != "FLOW_STATE_INSTALLED" || f.Counters == nil {
				t.Errorf("flow not installed, or without counters: %+v", f)
			}
			got[strconv.Itoa(f.Table)]++
		}
		for table, n := range seen {
			if got[table] != n {
				t.Errorf("table %s: %d flows, ovs-ofctl sees %d", table, got[table], n)
			}
		}
		// Each logical flow's flows are wanted by its row, and have its cookie unless they are members of a conjunction.
		type logical struct {
			UUID, DatapathName string
			Flows              []ctlFlow
		}
		with := 0
		for _, lf := range items[logical](c, "flows", "--datapath", "sw0") {
			if lf.DatapathName != "sw0" {
				t.Errorf("logical flow of %q, want of sw0", lf.DatapathName)
			}
			if len(lf.Flows) > 0 {
				with++
			}
			for _, f := range lf.Flows {
				cookie, err := strconv.ParseUint(lf.UUID[:8], 16, 64)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(strings.Join(f.Rows, " "), lf.UUID) || f.Cookie != strconv.FormatUint(cookie, 10) && !strings.Contains(f.Actions, "conjunction") && len(f.Rows) == 1 {
					t.Errorf("logical flow %s has the flow %+v", lf.UUID, f)
				}
			}
		}
		if with < 20 {
			t.Errorf("%d logical flows of sw0 have flows, want at least 20", with)
		}
		// The counters of one are read by its cookie, those of many by table.
		all := items[logical](c, "flows")
		i := slices.IndexFunc(all, func(lf logical) bool { return len(lf.Flows) == 1 })
		if i < 0 {
			t.Fatal("no logical flow has become one flow")
		}
		for _, id := range []string{all[i].UUID, all[i].UUID[:9], "0x" + strings.TrimLeft(all[i].UUID[:8], "0")} {
			one := items[logical](c, "flows", "--datapath", all[i].DatapathName, "--uuid", id)
			if len(one) != 1 || one[0].UUID != all[i].UUID || len(one[0].Flows) != 1 || one[0].Flows[0].Counters == nil {
				t.Errorf("flows --uuid %s: %+v, want %s with a flow and its counters", id, one, all[i].UUID)
			}
		}
		if one := items[logical](c, "flows", "--uuid", all[i].UUID, "--counters=false"); one[0].Flows[0].Counters != nil {
			t.Errorf("flows --counters=false: %+v", one[0].Flows[0])
		}
	})

	t.Run("counters grow with traffic", func(t *testing.T) {
		c := c.in(t)
		const pings = 50
		before := packets(t, items[ctlFlow](c, "get", "flows", "--table", "65"))
		s, err := l.Pod("p2").PingN(t.Context(), l.Pod("p1").Addr(false), pings, 5*time.Millisecond, 2*time.Second)
		if err != nil || s.Received != pings {
			t.Fatalf("%+v, %v", s, err)
		}
		// Open vSwitch takes counters out of the datapath once in a while.
		l.In(t).Eventually(10*time.Second, "table 65 has counted as many packets as were sent", func() bool {
			return packets(t, items[ctlFlow](c, "get", "flows", "--table", "65"))-before >= pings
		})
	})

	t.Run("exit codes", func(t *testing.T) {
		c := c.in(t)
		for want, args := range map[int][]string{
			0: {"version"},
			2: {"get", "flows", "--table", "300"},
			3: {"flows", "--datapath", "nowhere"},
			4: {"status", "--socket", "/nonexistent/offloadd.sock"},
		} {
			if _, stderr, code := c.run(args...); code != want {
				t.Errorf("offloadctl %v: exit code %d, want %d: %s", args, code, want, stderr)
			}
		}
	})

	t.Run("completion", func(t *testing.T) {
		c := c.in(t)
		if out := c.out("__complete", "flows", "--datapath", "s"); !strings.HasPrefix(out, "sw0\n") {
			t.Errorf("datapaths: %q, want sw0", out)
		}
		if out := c.out("__complete", "flows", "--port", "p"); !strings.HasPrefix(out, "p1\n") {
			t.Errorf("ports: %q, want p1", out)
		}
		if out := c.out("completion", "bash"); !strings.Contains(out, "__start_offloadctl") {
			t.Errorf("completion bash: %.200q", out)
		}
	})

	t.Run("recompute", func(t *testing.T) {
		c := c.in(t)
		sent := status(l, n1, "flow modifications sent")
		c.out("recompute")
		l.Sync()
		if now := status(l, n1, "flow modifications sent"); now != sent {
			t.Errorf("%s modifications before, %s after a recompute, want no change", sent, now)
		}
	})

	// A long list arrives while it is made: the first line is there long before the last.
	t.Run("a thousand flows", func(t *testing.T) {
		c := c.in(t)
		var sets []string
		for i := range 1500 {
			sets = append(sets, "10.9."+strconv.Itoa(i/250)+"."+strconv.Itoa(i%250+1))
		}
		l.NB("create Address_Set name=many addresses='" + strings.Join(sets, ",") + "'")
		l.NB("acl-add sw0 to-lport 1000 'ip4.src == $many' drop")
		l.Sync()
		cmd := c.command("get", "flows")
		out, err := cmd.StdoutPipe()
		l.Check(err)
		l.Check(cmd.Start())
		lines := 0
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines++
		}
		l.Check(cmd.Wait())
		if lines < 1500 {
			t.Errorf("%d lines, want 1500 at least", lines)
		}
		type logical struct{ Flows []ctlFlow }
		most := 0
		for _, lf := range items[logical](c, "flows", "--datapath", "sw0", "--pipeline", "egress") {
			most = max(most, len(lf.Flows))
		}
		if most < 1500 {
			t.Errorf("the logical flow of the address set has %d flows, want 1500", most)
		}
	})

	t.Run("bridge away", func(t *testing.T) {
		c := c.in(t)
		l.Check(n1.Stop("ovs-vswitchd"))
		l.In(t).Eventually(10*time.Second, "the status says that there is no bridge, with exit code 1", func() bool {
			stdout, _, code := c.run("status")
			return code == 1 && strings.Contains(stdout, "BRIDGE_DISCONNECTED")
		})
		for _, f := range items[ctlFlow](c, "get", "flows") {
			if f.State != "FLOW_STATE_UNSPECIFIED" || f.Counters != nil {
				t.Fatalf("without a bridge nobody knows about %+v", f)
			}
		}
		l.Check(n1.Resume(t.Context(), "ovs-vswitchd"))
		l.Sync()
		l.In(t).Eventually(10*time.Second, "everything works again, and the exit code is 0", func() bool {
			_, _, code := c.run("status")
			return code == 0
		})
	})

	t.Run("ports", func(t *testing.T) { testCtlPorts(l.In(t), c.in(t)) })

	// Last, since it ends the daemon.
	c.out("node", "leave")
	if out := l.SB("find Chassis name=n1"); strings.TrimSpace(out) != "" {
		t.Errorf("the chassis has left, but it is still there:\n%s", out)
	}
	if _, _, code := c.run("status"); code != 4 {
		t.Errorf("status after leaving: exit code %d, want 4", code)
	}
}

// tableOf returns the table of a flow as ovs-ofctl prints it.
func tableOf(text string) string {
	_, rest, ok := strings.Cut(text, "table=")
	if !ok {
		return "0"
	}
	table, _, _ := strings.Cut(rest, ",")
	return table
}

// A port that the API makes appears in lists, in its description with the timeline, in a watch, and is gone when deleted.
func testCtlPorts(l *labtest.Lab, c ctl) {
	t, n := c.t, c.node
	watch := c.command("watch", "ports", "-o", "json")
	events, err := watch.StdoutPipe()
	l.Check(err)
	l.Check(watch.Start())
	seen := make(chan string, 1000)
	go func() {
		defer close(seen)
		for scanner := bufio.NewScanner(events); scanner.Scan(); {
			var e struct {
				Type string
				Port struct{ Status struct{ State string } }
			}
			if err := json.Unmarshal(scanner.Bytes(), &e); err != nil {
				t.Errorf("watch ports: %v in %q", err, scanner.Text())
			}
			seen <- strings.TrimPrefix(e.Type, "EVENT_TYPE_") + " " + strings.TrimPrefix(e.Port.Status.State, "PORT_STATE_")
		}
	}()
	await := func(want string) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			select {
			case got, ok := <-seen:
				if got == want {
					return
				}
				if !ok {
					t.Fatalf("the watch has ended before %q", want)
				}
			case <-deadline:
				t.Fatalf("the watch does not tell %q", want)
			}
		}
	}
	await("SYNCED ")

	pod := member(5)
	pod.Bare = true
	p := l.AddPod(n.Name, pod)
	conn, err := client.Dial(attach.Socket(n))
	l.Check(err)
	defer func() { _ = conn.Close() }()
	ports := offloadv1.NewPortServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	key := &offloadv1.PortKey{Network: "net", ContainerId: "c5", Ifname: "eth0"}
	_, err = ports.CreatePort(ctx, &offloadv1.CreatePortRequest{Spec: &offloadv1.PortSpec{
		Key: key, Netns: attach.Netns(p.Netns()), LogicalPort: "p5", Mac: pod.MAC, Addresses: []string{pod.IPs[0].String()},
	}})
	l.Check(err)
	await("CHANGED READY")
	if out := c.out("get", "ports"); !strings.Contains(out, "p5     ready") {
		t.Errorf("get ports:\n%s", out)
	}
	for _, name := range []string{"p5", "c5", "net/c5/eth0"} {
		out := c.out("describe", "port", name)
		for _, want := range []string{"Port:           p5\n", pod.MAC, "10.0.0.15/24", "Timeline:", "  install "} {
			if !strings.Contains(out, want) {
				t.Errorf("describe port %s: no %q in\n%s", name, want, out)
			}
		}
	}
	if out := c.out("describe", "port", "--slowest"); !strings.Contains(out, "Port:           p5\n") {
		t.Errorf("describe port --slowest:\n%s", out)
	}
	c.out("describe", "port", "p5", "--check")
	if out := c.out("__complete", "describe", "port", "p"); !strings.HasPrefix(out, "p5\n") {
		t.Errorf("completion of ports: %q, want p5", out)
	}
	if _, _, code := c.run("describe", "port", "p6"); code != 3 {
		t.Errorf("describe port p6: exit code %d, want 3", code)
	}
	_, err = ports.DeletePort(ctx, &offloadv1.DeletePortRequest{Key: key})
	l.Check(err)
	for got := range seen {
		if strings.HasPrefix(got, "DELETED") {
			break
		}
	}
	if out := items[struct{}](c, "get", "ports"); len(out) != 0 {
		t.Errorf("get ports: %d, want none", len(out))
	}
	l.Check(watch.Process.Signal(os.Interrupt))
	if err := watch.Wait(); err != nil {
		t.Errorf("an interrupted watch ends with %v, want success", err)
	}
}
