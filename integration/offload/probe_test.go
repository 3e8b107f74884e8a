package offload

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/specialize"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// probed are the ports of a test: made by the daemon, on both switches of the scene.
var probed = []lab.PodConfig{
	{Name: "pa", MAC: "50:54:00:00:02:21", IPs: []netip.Prefix{netip.MustParsePrefix("10.2.0.21/24")}, Gateways: []netip.Addr{netip.MustParseAddr("10.2.0.1")}, Bare: true},
	{Name: "pb", MAC: "50:54:00:00:02:22", IPs: []netip.Prefix{netip.MustParsePrefix("10.2.0.22/24")}, Gateways: []netip.Addr{netip.MustParseAddr("10.2.0.1")}, Bare: true},
}

// probePorts makes the ports, and removes them when the test ends.
func probePorts(t *testing.T, r *Rig) {
	t.Helper()
	n := r.Node("n1")
	conn, err := client.Dial(attach.Socket(n))
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ports := offloadv1.NewPortServiceClient(conn)
	for _, c := range probed {
		_, err := r.NB(t.Context(), fmt.Sprintf("lsp-add db %s\nlsp-set-addresses %s '%s %s'\n", c.Name, c.Name, c.MAC, c.IPs[0].Addr()))
		check(t, err)
		p, err := n.AddPod(t.Context(), c)
		check(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), lab.Patient(patience))
		defer cancel()
		key := &offloadv1.PortKey{Network: "net", ContainerId: c.Name, Ifname: "eth0"}
		_, err = ports.CreatePort(ctx, &offloadv1.CreatePortRequest{Spec: &offloadv1.PortSpec{
			Key: key, Netns: attach.Netns(p.Netns()), LogicalPort: c.Name, Mac: c.MAC, Addresses: []string{c.IPs[0].String()}, Gateways: []string{c.Gateways[0].String()},
		}})
		check(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), lab.Patient(patience))
			defer cancel()
			_, err := ports.DeletePort(ctx, &offloadv1.DeletePortRequest{Key: key})
			check(t, err)
			check(t, p.Remove(ctx))
			_, err = r.NB(ctx, "lsp-del "+c.Name+"\n")
			check(t, err)
		})
	}
	check(t, r.Sync(t.Context()))
}

// probeFilters is how many filters of a probe the node has.
func probeFilters(t *testing.T, n *lab.Node) (count int) {
	t.Helper()
	filters, err := Filters(t.Context(), n)
	check(t, err)
	for _, f := range filters {
		if specialize.KindOf(f.Filter.Cookie) == specialize.KindProbe {
			count++
		}
	}
	return count
}

// Between two ports of the daemon packets go through filters, and with other ports of UDP through Open vSwitch, and all of them are accounted for. If they are
// not, nothing is reported. Nothing is left of it, not even if the daemon is killed.
func TestProbePort(t *testing.T) {
	r := rig(t)
	n := r.Node("n1")
	probePorts(t, r)
	c := ctl{t, offloadctl(t), n}
	quick := []string{"probe", "port", "pa", "pb", "--sessions", "1", "--count", "60", "--cold", "0", "--new", "0"}

	t.Run("measured", func(t *testing.T) {
		_, err := n.VSctl(t.Context(), "set", "open", ".", "other_config:max-idle=3000")
		check(t, err)
		defer func() {
			_, err := n.VSctl(context.Background(), "remove", "open", ".", "other_config", "max-idle")
			check(t, err)
		}()
		out, code := c.run("probe", "port", "pa", "pb", "--sessions", "6", "--count", "1200", "--cold", "2", "--new", "3", "--idle", "5s", "-o", "json")
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, out)
		}
		run, err := report.Read([]byte(out))
		check(t, err)
		t.Log(report.Text(run, 0))
		wantAccounts(t, run)
		wantLives(t, run)
		wantBreakEvens(t, run)
		if left := probeFilters(t, n); left != 0 {
			t.Errorf("%d filters are left", left)
		}
	})

	t.Run("refused", func(t *testing.T) {
		filter := []string{"block", fmt.Sprint(apply.Block), "pref", "5", "protocol", "ip", "flower", "ip_proto", "udp", "dst_port", "7531", "action", "pass"}
		_, err := n.Exec(t.Context(), append([]string{"tc", "filter", "add"}, filter...)...)
		check(t, err)
		defer func() {
			_, err := n.Exec(context.Background(), "tc", "filter", "del", "block", fmt.Sprint(apply.Block), "pref", "5")
			check(t, err)
		}()
		c.says(5, []string{"PROBE_REFUSED", "were counted by nothing"}, quick...)
		if left := probeFilters(t, n); left != 0 {
			t.Errorf("%d filters are left", left)
		}
	})

	t.Run("not ours", func(*testing.T) {
		c.says(3, []string{"PORT_NOT_FOUND", "web1"}, "probe", "port", "pa", "web1")
	})

	// kill kills the daemon in the middle of a run, which leaves filters, and returns how many.
	kill := func(t *testing.T, meanwhile func()) int {
		t.Helper()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = c.run(append(quick, "--duration", "1m")...) // it fails, since the daemon is killed
		}()
		waitFor(t, "filters of the probe", func() bool { return probeFilters(t, n) > 0 })
		meanwhile()
		check(t, n.StopAgent(syscall.SIGKILL))
		<-done
		left := probeFilters(t, n)
		if left == 0 {
			t.Error("the filters went with the daemon: then nobody need remove them")
		}
		return left
	}
	clean := func() (string, error) {
		return n.Exec(t.Context(), c.path, "--socket", filepath.Join(n.Dir, "offloadd.sock"), "probe", "--local", "clean")
	}

	t.Run("killed", func(t *testing.T) {
		kill(t, func() {})
		check(t, n.StartAgent(lab.Offloadd))
		waitFor(t, "the filters to go", func() bool { return probeFilters(t, n) == 0 })
		check(t, r.Sync(t.Context()))
	})

	// Without a daemon they can be removed, and nothing else is.
	t.Run("cleaned", func(t *testing.T) {
		left := kill(t, func() {
			if out, err := clean(); err == nil || !strings.Contains(err.Error()+out, "PROBE_BUSY") {
				t.Errorf("while a run is made: %s, %v", out, err)
			}
		})
		before := keys(t, n)
		out, err := clean()
		check(t, err)
		if want := fmt.Sprintf("removed %d filters\n", left); out != want {
			t.Errorf("%q, want %q", out, want)
		}
		if after := keys(t, n); probeFilters(t, n) != 0 || len(after) == 0 || !slices.Equal(after, before) {
			t.Errorf("filters are now %v, were %v", after, before)
		}
		out, err = clean()
		check(t, err)
		if strings.Contains(out, "removed") {
			t.Errorf("once more: %s", out)
		}
		check(t, n.StartAgent(lab.Offloadd))
		check(t, r.Sync(t.Context()))
	})
}

// keys are where the filters are that are no probe's, and whose they are.
func keys(t *testing.T, n *lab.Node) (all []string) {
	t.Helper()
	filters, err := Filters(t.Context(), n)
	check(t, err)
	for _, f := range filters {
		if specialize.KindOf(f.Filter.Cookie) != specialize.KindProbe {
			all = append(all, fmt.Sprint(f.Filter.Key(), f.Filter.Cookie))
		}
	}
	slices.Sort(all)
	return all
}

// wantAccounts is that all packets are accounted for, and went where they should have.
func wantAccounts(t *testing.T, run *result.Run) {
	t.Helper()
	claims := map[string]ledger.Claim{"offload": ledger.ByFilters, "software": ledger.ByOVS, "software-twin": ledger.ByOVS}
	if len(run.Ports.Ways) != len(claims) || run.Baseline != "software" {
		t.Errorf("%d ways, baseline %s", len(run.Ports.Ways), run.Baseline)
	}
	for _, w := range run.Ports.Ways {
		if w.Claim != string(claims[w.Path]) {
			t.Errorf("of %s %s is claimed", w.Path, w.Claim)
		}
		for side, a := range w.Accounts {
			t.Logf("%s: %+v", w.Path, a)
			if why := ledger.Refuse(claims[w.Path], &a); why != "" {
				t.Error(why)
			}
			if a.Unexplained != 0 || a.Lost != 0 || a.Changed != 0 || a.Dropped != 0 || a.Hardware != 0 || a.Filters == 0 {
				t.Errorf("%s: %+v", w.Path, a)
			}
			if least := int64(6 * (200 + 5)); a.Sent < least {
				t.Errorf("%s: %d packets, at least %d should be", w.Path, a.Sent, least)
			}
			other := w.Accounts[1-side]
			if a.Sent != other.Sent {
				t.Errorf("%s: %d requests and answers, and %d: none was lost", w.Path, a.Sent, other.Sent)
			}
		}
		assured := 0
		for _, c := range w.Connections {
			if c.Hardware {
				t.Errorf("%s: %+v", w.Path, c)
			}
			if c.Assured {
				assured++
			}
		}
		if assured == 0 {
			t.Errorf("%s: connections %+v, none of which is assured", w.Path, w.Connections)
		}
	}
	for _, c := range run.Cases {
		if c.Latency == nil || c.Latency.Count == 0 || c.Loss.Lost != 0 {
			t.Errorf("%s: %+v, %+v", c.Path, c.Latency, c.Loss)
		}
	}
}

// wantLives is that Open vSwitch has the first packets of connections, and filters those after some, both ways, unless they are left to Open vSwitch.
func wantLives(t *testing.T, run *result.Run) {
	t.Helper()
	trials := map[string]int{"offload cold": 2, "software cold": 2, "offload new": 3, "software new": 3}
	if len(run.Ports.Lives) != len(trials) {
		t.Errorf("%d lives", len(run.Ports.Lives))
	}
	for _, l := range run.Ports.Lives {
		t.Logf("%s %s: %v", l.Before, l.Path, l.Took)
		if want := trials[l.Path+" "+l.Before]; len(l.Trials) != want || len(l.Took) < 32 {
			t.Errorf("%s %s: %d trials, want %d; %d packets", l.Before, l.Path, len(l.Trials), want, len(l.Took))
		}
		for _, trial := range l.Trials {
			for side, s := range trial.Switches {
				a := trial.Accounts[side]
				t.Logf("  %+v, %+v", s, a)
				if a.Unexplained != 0 || a.Lost != 0 {
					t.Errorf("%s %s: %+v", l.Before, l.Path, a)
				}
				switch {
				case l.Path == "software" && (s != (result.Switch{}) || a.OVS != a.Sent):
					t.Errorf("%s %s: filters forward from %+v, %+v", l.Before, l.Path, s, a)
				case l.Path == "offload" && (s.Packet < 1 || s.Packet > 16 || s.Hardware != 0 || a.OVS != int64(s.Packet-1)):
					t.Errorf("%s %s: filters forward from %+v, %+v", l.Before, l.Path, s, a)
				}
			}
			if l.Path == "offload" && trial.Switches[0].Packet < 2 {
				t.Errorf("%s: filters have forwarded the first packet, which is to be committed", l.Before)
			}
		}
	}
}

// wantBreakEvens is that a connection is said to become cheaper where it does, by adding up what its packets take.
func wantBreakEvens(t *testing.T, run *result.Run) {
	t.Helper()
	if len(run.Ports.BreakEvens) != 4 {
		t.Errorf("break-evens %+v", run.Ports.BreakEvens)
	}
	lives := map[string]result.Life{}
	for _, l := range run.Ports.Lives {
		lives[l.Path+" "+l.Before] = l
	}
	for _, b := range run.Ports.BreakEvens {
		t.Logf("%+v", b)
		offload, software := lives["offload "+b.Before], lives["software "+b.Before]
		if b.Connections != len(offload.Trials) || b.Packets < 32 {
			t.Errorf("%d connections of %d packets were compared, there are %d", b.Connections, b.Packets, len(offload.Trials))
			continue
		}
		var firsts []float64
		cheaper := 0 // connections that are it after From packets, and not before
		for i := range offload.Trials {
			x, y := offload.Trials[i].Took, software.Trials[i].Took
			if b.Of == result.OfCPU {
				x, y = offload.Trials[i].CPU, software.Trials[i].CPU
			}
			if len(x) == 0 || len(x) > len(y) {
				t.Fatalf("%s %s: %d packets through filters, and %d through Open vSwitch", b.Before, b.Of, len(x), len(y))
			}
			sum, stays := 0.0, int64(1)
			for n := range max(int64(len(x)), b.From+1) {
				if n < int64(len(x)) {
					sum += float64(x[n] - y[n])
				} else {
					sum += float64(b.Then.Difference)
				}
				if sum >= 0 {
					stays = n + 2
				}
				if n+1 == int64(len(x)) {
					firsts = append(firsts, sum)
				}
			}
			if stays <= b.From {
				cheaper++
			}
		}
		slices.Sort(firsts)
		if middle := (firsts[(len(firsts)-1)/2] + firsts[len(firsts)/2]) / 2; math.Abs(middle-float64(b.First)) > 1 {
			t.Errorf("%s %s: first packets take %v more, added up %v", b.Before, b.Of, b.First, middle)
		}
		different := b.Then.Verdict == result.Different
		switch {
		case b.Verdict == result.FromPacket && (!different || b.Then.Difference >= 0 || 2*cheaper < len(firsts) || b.Octets != 128*b.From),
			b.Verdict == result.Never && (!different || b.Then.Difference <= 0 || b.From != 0),
			b.Verdict == result.Undecided && (different || b.Why == "" || b.From != 0),
			b.Verdict == "":
			t.Errorf("%s %s: %d of %d connections are cheaper: %+v", b.Before, b.Of, cheaper, len(firsts), b)
		}
	}
}
