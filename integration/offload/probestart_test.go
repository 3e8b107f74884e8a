package offload

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// startNetwork is the network in the keys of the probe's ports.
const startNetwork = "offloadd-probe"

// spares makes logical ports for starts, which end with the test.
func spares(t *testing.T, r *Rig, on string, net, n int) (names []string) {
	t.Helper()
	var add, del strings.Builder
	for i := range n {
		name := fmt.Sprintf("ps%d-%d", net, i)
		fmt.Fprintf(&add, "lsp-add %s %s -- lsp-set-addresses %s '50:54:00:00:%02x:%02x 10.%d.0.%d fd10:%d::%d'\n", on, name, name, 0x30+net, i, net, 40+i, net, 40+i)
		fmt.Fprintf(&del, "lsp-del %s\n", name)
		names = append(names, name)
	}
	_, err := r.NB(t.Context(), add.String())
	check(t, err)
	t.Cleanup(func() {
		_, err := r.NB(context.Background(), del.String())
		check(t, err)
	})
	check(t, r.Sync(t.Context()))
	return names
}

// startLeft is what there is of starts on a node.
func startLeft(t *testing.T, n *lab.Node) (left []string) {
	t.Helper()
	spaces, err := filepath.Glob("/run/netns/opr*")
	check(t, err)
	left = append(left, spaces...)
	conn, err := client.Dial(attach.Socket(n))
	check(t, err)
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), lab.Patient(patience))
	defer cancel()
	if all, err := offloadv1.NewPortServiceClient(conn).ListPorts(ctx, &offloadv1.ListPortsRequest{}); err != nil {
		left = append(left, err.Error())
	} else {
		for _, p := range all.GetPorts() {
			if p.GetSpec().GetKey().GetNetwork() == startNetwork {
				left = append(left, p.GetSpec().GetKey().String())
			}
		}
	}
	found, err := n.Exec(ctx, "ovs-appctl", "-t", filepath.Join(n.Dir, "offloadd.ctl"), "ports/audit")
	if err != nil {
		found = err.Error()
	}
	if found != "" {
		left = append(left, found)
	}
	plugged, err := n.VSctl(ctx, "list", "Interface")
	check(t, err)
	if strings.Contains(plugged, startNetwork) {
		left = append(left, plugged)
	}
	for range probeFilters(t, n) {
		left = append(left, "a filter")
	}
	return left
}

// New ports are made, answered, forwarded by filters, and deleted, one at a time and several at once, near the port that answers and behind a router. Nothing is left, not even if the
// daemon is killed.
func TestProbeStart(t *testing.T) {
	r := rig(t)
	n := r.Node("n1")
	probePorts(t, r)
	near, far := spares(t, r, "db", 2, 4), spares(t, r, "web", 1, 2)
	c := ctl{t, offloadctl(t), n}
	// A guest of one CPU is busy with a packet for a good part of a millisecond.
	start := append([]string{"probe", "start", "pb", "--interval", "10ms"}, near...)

	measured := func(t *testing.T, args ...string) *result.Run {
		t.Helper()
		out, code := c.run(append(args, "-o", "json")...)
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, out)
		}
		run, err := report.Read([]byte(out))
		check(t, err)
		t.Log(report.Text(run, 0))
		if left := startLeft(t, n); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		return run
	}

	t.Run("measured", func(t *testing.T) {
		run := measured(t, append(start, "--count", "6", "--parallel", "1,2", "--wait", "1m")...)
		wantStarts(t, run, map[string]int{"veth": 6, "veth x2": 6}, near, true)
		for _, cs := range run.Starts.Cases {
			for _, step := range []string{result.StepHardware, result.StepHardwareBack} {
				if !strings.Contains(cs.Never[step], "a veth is no NIC's") {
					t.Errorf("%s, %s: %q", cs.Path, step, cs.Never[step])
				}
			}
			exact := 0
			for _, s := range cs.Steps {
				if s.Name == result.StepFilters {
					exact = s.Exact
				}
			}
			if exact < 3 {
				t.Errorf("%s: of %d starts it is known which packet filters forwarded first", cs.Path, exact)
			}
		}
	})

	t.Run("IPv6", func(*testing.T) {
		c.says(5, []string{"PROBE_IMPOSSIBLE", "addresses of the same family"}, append(start, "--family", "6")...)
	})

	t.Run("behind a router", func(t *testing.T) {
		args := append([]string{"probe", "start", "pb", "--interval", "10ms"}, far...)
		c.says(5, []string{"PROBE_IMPOSSIBLE", "a gateway is needed"}, args...)
		run := measured(t, append(args, "--count", "2", "--wait", "1m", "--gateway", "10.1.0.1")...)
		wantStarts(t, run, map[string]int{"veth": 2}, far, true)
	})

	t.Run("refused", func(t *testing.T) {
		c.says(3, []string{"PORT_NOT_FOUND", "web1"}, "probe", "start", "web1", "ps2-0")
		c.says(3, []string{"LPORT_NOT_FOUND", "ps2-9"}, "probe", "start", "pb", "ps2-9")
		c.says(5, []string{"LPORT_IN_USE", "pa"}, "probe", "start", "pb", "pa")
		c.says(5, []string{"LPORT_IN_USE", "db3"}, "probe", "start", "pb", "db3")
		out, code := c.run("probe", "start", "pb", "ps2-0", "--kind", "vf", "--wait", "2s")
		if code == 0 || !strings.Contains(out, "FEATURE_UNSUPPORTED") {
			t.Errorf("exit code %d: %s", code, out)
		}
		if left := startLeft(t, n); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})

	t.Run("without filters", func(t *testing.T) {
		check(t, r.SetFilters(t.Context(), false))
		defer func() { check(t, r.SetFilters(context.Background(), true)) }()
		run := measured(t, append(start, "--count", "3", "--wait", "1m")...)
		if why := run.Starts.NoFilters; !strings.Contains(why, "no device of a local port can offload") {
			t.Errorf("there are no filters because of %q", why)
		}
		wantStarts(t, run, map[string]int{"veth": 3}, near, false)
	})

	t.Run("killed", func(t *testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = c.run(append(start, "--count", "1000", "--parallel", "2")...) // it fails, since the daemon is killed
		}()
		waitFor(t, "a port of the probe", func() bool {
			return slices.ContainsFunc(startLeft(t, n), func(s string) bool { return strings.Contains(s, startNetwork) })
		})
		check(t, n.StopAgent(syscall.SIGKILL))
		<-done
		spaces, err := filepath.Glob("/run/netns/opr*")
		check(t, err)
		if len(spaces) == 0 {
			t.Error("the namespaces went with the daemon: then the next one need not remove them")
		}
		check(t, n.StartAgent(lab.Offloadd))
		waitFor(t, "everything to go", func() bool { return len(startLeft(t, n)) == 0 })
		check(t, r.Sync(t.Context()))
		wantStarts(t, measured(t, append(start, "--count", "2", "--wait", "1m")...), map[string]int{"veth": 2}, near, true)
	})

	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		conn, err := client.Dial(attach.Socket(n))
		check(t, err)
		defer func() { _ = conn.Close() }()
		ctx, end := context.WithTimeout(ctx, lab.Patient(patience))
		defer end()
		stream, err := offloadv1.NewProbeServiceClient(conn).RunStarts(ctx, &offloadv1.RunStartsRequest{Spec: &offloadv1.StartProbeSpec{Target: "pb", Ports: near, Count: 1000, Parallel: []uint32{2}}})
		check(t, err)
		for {
			m, err := stream.Recv()
			check(t, err)
			if m.GetProgress().GetFraction() > 0 {
				break
			}
		}
		cancel()
		waitFor(t, "everything to go", func() bool { return len(startLeft(t, n)) == 0 })
	})
	if _, err := os.Stat("/run/opr/lock"); err == nil {
		t.Error("the lock is left")
	}
}

// wantStarts is that all starts of a run came through all steps, in their order.
func wantStarts(t *testing.T, run *result.Run, counts map[string]int, names []string, filters bool) {
	t.Helper()
	if len(run.Starts.Cases) != len(counts) {
		t.Errorf("%d cases, want %v", len(run.Starts.Cases), counts)
	}
	for _, cs := range run.Starts.Cases {
		n := 0
		for _, b := range cs.Batches {
			if len(b.Starts) != cs.Parallel {
				t.Errorf("%s: %d starts at once, want %d", cs.Path, len(b.Starts), cs.Parallel)
			}
			for _, s := range b.Starts {
				n++
				t.Logf("%s: %+v", cs.Path, s)
				switch {
				case s.Failed != "" || s.Requests.Unknown != "" || s.Answers.Unknown != "" || !slices.Contains(names, s.Port):
					t.Errorf("%s: %+v", cs.Path, s)
				case s.Configured <= 0 || s.Installed < s.Configured || s.Created < s.Installed || s.Answered < s.Configured || s.Deleted <= 0 || s.Sent == 0:
					t.Errorf("%s: not in order: %+v", cs.Path, s)
				case filters && (s.Requests.Filters < s.Configured || s.Answers.Filters < s.Configured || s.Requests.Hardware+s.Answers.Hardware > 0):
					t.Errorf("%s: filters do not forward both ways, or hardware does: %+v", cs.Path, s)
				case !filters && (s.Requests != result.Forwarding{} || s.Answers != result.Forwarding{}):
					t.Errorf("%s: without filters they forward: %+v", cs.Path, s)
				}
				for _, f := range []result.Forwarding{s.Requests, s.Answers} {
					if filters && f.Exact != (f.Packet > 0) {
						t.Errorf("%s: %+v", cs.Path, f)
					}
				}
			}
		}
		if n != counts[cs.Path] || cs.Failed != 0 || cs.Made <= 0 || cs.Answered <= 0 || cs.Deleted <= 0 {
			t.Errorf("%s: %d starts, want %d; %d failed; %v, %v, %v a second", cs.Path, n, counts[cs.Path], cs.Failed, cs.Made, cs.Answered, cs.Deleted)
		}
	}
}
