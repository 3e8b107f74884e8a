package offload

import (
	"context"
	"fmt"
	"net/netip"
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
		_, err := n.VSctl(t.Context(), "set", "open", ".", "other_config:max-idle=1000")
		check(t, err)
		defer func() {
			_, err := n.VSctl(context.Background(), "remove", "open", ".", "other_config", "max-idle")
			check(t, err)
		}()
		out, code := c.run("probe", "port", "pa", "pb", "--sessions", "6", "--count", "1200", "--cold", "2", "--new", "3", "--idle", "3s", "-o", "json")
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, out)
		}
		run, err := report.Read([]byte(out))
		check(t, err)
		t.Log(report.Text(run, 0))
		wantAccounts(t, run)
		wantLives(t, run)
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

	t.Run("killed", func(t *testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = c.run(append(quick, "--duration", "1m")...) // it fails, since the daemon is killed
		}()
		waitFor(t, "filters of the probe", func() bool { return probeFilters(t, n) > 0 })
		check(t, n.StopAgent(syscall.SIGKILL))
		<-done
		if probeFilters(t, n) == 0 {
			t.Error("the filters went with the daemon: then the next one need not remove them")
		}
		check(t, n.StartAgent(lab.Offloadd))
		waitFor(t, "the filters to go", func() bool { return probeFilters(t, n) == 0 })
		check(t, r.Sync(t.Context()))
	})
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
