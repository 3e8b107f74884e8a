package offload

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
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

// Between two ports of the daemon packets go through filters, and with other ports of UDP through Open vSwitch, and all of them are accounted for.
func TestProbePort(t *testing.T) {
	r := rig(t)
	n := r.Node("n1")
	probePorts(t, r)
	c := ctl{t, offloadctl(t), n}
	_, err := n.VSctl(t.Context(), "set", "open", ".", "other_config:max-idle=1000")
	check(t, err)
	defer func() {
		_, err := n.VSctl(context.Background(), "remove", "open", ".", "other_config", "max-idle")
		check(t, err)
	}()
	begin := time.Now()
	out, code := c.run("probe", "port", "pa", "pb", "--sessions", "6", "--count", "1200", "--cold", "2", "--new", "3", "--idle", "3s", "-o", "json")
	t.Logf("%v", time.Since(begin).Round(time.Millisecond))
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	run, err := report.Read([]byte(out))
	check(t, err)
	t.Log(report.Text(run, 0))
	for _, w := range run.Ports.Ways {
		for _, a := range w.Accounts {
			t.Logf("%s %+v", w.Path, a)
			if why := ledger.Refuse(ledger.Claim(w.Claim), &a); why != "" {
				t.Error(why)
			}
		}
		t.Logf("%s %+v", w.Path, w.Connections)
	}
	for _, l := range run.Ports.Lives {
		t.Logf("%s %s %v", l.Path, l.Before, l.Took)
		for _, trial := range l.Trials {
			t.Logf("  %+v %+v", trial.Switches, trial.Accounts)
		}
	}
	if left := probeFilters(t, n); left != 0 {
		t.Errorf("%d filters are left", left)
	}
	_ = result.Lost
	_ = strings.Contains
}
