package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
)

// guest is a pod of the tests of the CNI plugin: number i of the switch sw0, 10.0.0.0/16.
func guest(i int) lab.PodConfig {
	return lab.PodConfig{
		Name: fmt.Sprintf("g%d", i), MAC: fmt.Sprintf("50:54:00:01:%02x:%02x", i/256, i%256),
		IPs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/16", 1+i/200, 1+i%200)),
			netip.MustParsePrefix(fmt.Sprintf("fd10::%x/64", 0x100+i)),
		},
	}
}

// guests is a switch with ports for count guests, a node n1 with offloadd, and on it a pod that guests can ping.
func guests(t *testing.T, count int) (*labtest.Lab, *lab.Pod) {
	t.Helper()
	l := labtest.Start(t, lab.Options{Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.Offloadd}}})
	var script strings.Builder
	script.WriteString("ls-add sw0\n")
	for i := range count + 1 {
		c := guest(i)
		fmt.Fprintf(&script, "lsp-add sw0 %s -- lsp-set-addresses %s '%s %s %s'\n", c.Name, c.Name, c.MAC, c.IPs[0].Addr(), c.IPs[1].Addr())
	}
	l.NB(script.String())
	host := l.AddPod("n1", guest(0))
	l.WaitInstalled(host)
	l.Sync()
	return l, host
}

// onLink makes a configuration of offload-cni in which the guests' network is on the link.
func onLink(extra string) string {
	if extra != "" {
		extra = "," + extra
	}
	return `{"type":"offload-cni","mtu":1400,"routes":[{"dst":"10.0.0.0/16"},{"dst":"fd10::/64"}]` + extra + `}`
}

// args1 are the CNI_ARGS of guest 1; plugins that know nothing of logical ports want to be told that this is right.
const args1 = "IgnoreUnknown=1;LogicalPort=g1"

// network makes a network on n1.
func network(l *labtest.Lab, name string, path string, plugins ...string) *attach.Network {
	l.T.Helper()
	net, err := attach.NewNetwork(l.Node("n1"), path, name, plugins...)
	l.Check(err)
	l.T.Cleanup(func() {
		if err := net.Forget(); err != nil {
			l.T.Error(err)
		}
	})
	return net
}

func cniPath(t *testing.T, plugins ...string) string {
	t.Helper()
	path, err := attach.Build(t.Context(), t.TempDir(), plugins...)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// belongings is everything on the node that a pod's port consists of, for comparison.
func belongings(l *labtest.Lab) string {
	l.T.Helper()
	n, ctx := l.Node("n1"), l.T.Context()
	links, err := n.Exec(ctx, "ip", "-br", "link")
	l.Check(err)
	var names []string
	for line := range strings.Lines(links) {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@")
		names = append(names, name)
	}
	slices.Sort(names)
	var rows []string
	for _, table := range []string{"Port", "Interface"} {
		out, err := n.VSctl(ctx, "--bare", "--columns=name", "list", table)
		l.Check(err)
		rows = append(rows, strings.Fields(out)...)
	}
	slices.Sort(rows)
	journal := files(l, filepath.Join(n.Dir, "state"))
	spaces, err := n.Exec(ctx, "ip", "netns", "list")
	l.Check(err)
	var ours []string
	for line := range strings.Lines(spaces) {
		if strings.HasPrefix(line, l.Name+"-") {
			ours = append(ours, strings.Fields(line)[0])
		}
	}
	slices.Sort(ours)
	return fmt.Sprintf("links %v\nrows %v\nnamespaces %v\nstate %v\n", names, rows, ours, journal)
}

// files lists the files below dir.
func files(l *labtest.Lab, dir string) []string {
	l.T.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		l.T.Fatal(err)
	}
	return found
}

// Every verb, by the real cnitool against the real daemon.
func TestCNI(t *testing.T) {
	l, host := guests(t, 3)
	net := network(l, "verbs", cniPath(t), onLink(""))
	ctx := t.Context()
	do := func(verb, netns, args string) string {
		t.Helper()
		out, err := net.Do(ctx, verb, netns, args)
		l.Check(err)
		return out
	}
	do("status", "none", "")
	before := belongings(l)

	pod, err := net.AddPod(ctx, guest(1))
	l.Check(err)
	wantPing(t, pod, host, 5*time.Second)
	do("check", pod.Netns(), args1)

	_, err = pod.Exec(ctx, "ip", "addr", "del", guest(1).IPs[0].Addr().String()+"/32", "dev", "eth0")
	l.Check(err)
	if out, err := net.Do(ctx, "check", pod.Netns(), args1); err == nil || !strings.Contains(err.Error(), guest(1).IPs[0].Addr().String()) {
		t.Errorf("check without the address = %s, %v; want an error that names it", out, err)
	}
	do("del", pod.Netns(), args1)
	do("del", pod.Netns(), args1)
	l.Check(pod.Remove(ctx))

	// A namespace that is gone before DEL.
	pod, err = net.AddPod(ctx, guest(2))
	l.Check(err)
	l.Check(pod.Remove(ctx))
	do("del", pod.Netns(), "")

	// cnitool gives GC no list, so it removes what cnitool knows of, and the plugin keeps the rest.
	pod, err = net.AddPod(ctx, guest(3))
	l.Check(err)
	do("gc", pod.Netns(), "")
	l.Check(pod.Remove(ctx))

	if after := belongings(l); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// Two hundred pods come and go, eight at a time, and each has traffic.
func TestTwoHundredPods(t *testing.T) {
	const count, parallel = 200, 8
	l, host := guests(t, count)
	net := network(l, "many", cniPath(t), onLink(""))
	before := belongings(l)
	begin := time.Now()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(parallel)
	for i := 1; i <= count; i++ {
		g.Go(func() error { return visit(ctx, net, host, guest(i)) })
	}
	l.Check(g.Wait())
	t.Logf("%d pods in %v", count, time.Since(begin).Round(time.Millisecond))
	if after := belongings(l); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if cached, err := net.Cached(); err != nil || len(cached) > 0 {
		t.Errorf("cnitool keeps %v, %v", cached, err)
	}
}

// visit attaches a pod, checks its traffic in both families and takes it away.
func visit(ctx context.Context, net *attach.Network, host *lab.Pod, c lab.PodConfig) error {
	pod, err := net.AddPod(ctx, c)
	if err != nil {
		return err
	}
	for _, v6 := range []bool{false, true} {
		// One request: when ADD has returned, packets pass.
		ok, err := pod.Ping(ctx, host.Addr(v6), 5*time.Second)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("pod %s: no answer from %v", c.Name, host.Addr(v6))
		}
	}
	if _, err := net.Do(ctx, "del", pod.Netns(), ""); err != nil {
		return err
	}
	return pod.Remove(ctx)
}

// The reference plugins that come after a main plugin do their work on our result, and undo it.
func TestChained(t *testing.T) {
	l, host := guests(t, 1)
	net := network(l, "chain", cniPath(t, "tuning", "bandwidth", "portmap"), onLink(""),
		`{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_notify":"1"}}`,
		`{"type":"bandwidth","ingressRate":100000000,"ingressBurst":80000000,"egressRate":100000000,"egressBurst":80000000}`,
		`{"type":"portmap","capabilities":{"portMappings":true}}`)
	ctx, n := t.Context(), l.Node("n1")
	before := belongings(l)
	const mapping = `CAP_ARGS={"portMappings":[{"hostPort":18080,"containerPort":80,"protocol":"tcp"}]}`

	c := guest(1)
	c.Bare = true
	pod := l.AddPod("n1", c)
	out, err := net.Do(ctx, "add", pod.Netns(), args1, mapping)
	l.Check(err)
	wantPing(t, pod, host, 5*time.Second)
	var result struct {
		Interfaces []struct{ Name, Sandbox string }
	}
	l.Check(json.Unmarshal([]byte(out), &result))
	dev := result.Interfaces[0].Name
	effects := func() (tuned, limited, mapped string) {
		tuned, err := pod.Exec(ctx, "sh", "-c", "cat /proc/sys/net/ipv4/conf/eth0/arp_notify 2>&1 || true")
		l.Check(err)
		limited, err = n.Exec(ctx, "tc", "qdisc", "show")
		l.Check(err)
		mapped, err = n.Exec(ctx, "iptables", "-t", "nat", "-S")
		l.Check(err)
		return tuned, limited, mapped
	}
	tuned, limited, mapped := effects()
	if strings.TrimSpace(tuned) != "1" {
		t.Errorf("tuning: arp_notify = %q, want 1", tuned)
	}
	if !strings.Contains(limited, "tbf") || !strings.Contains(limited, dev) {
		t.Errorf("bandwidth: no tbf of %s in\n%s", dev, limited)
	}
	if !strings.Contains(mapped, "--dport 18080 -j DNAT") {
		t.Errorf("portmap: no DNAT of 18080 in\n%s", mapped)
	}
	for _, verb := range []string{"check", "del"} {
		_, err := net.Do(ctx, verb, pod.Netns(), args1, mapping)
		l.Check(err)
	}
	if _, limited, mapped := effects(); strings.Contains(limited, "tbf") || strings.Contains(mapped, "18080") {
		t.Errorf("after DEL:\n%s\n%s", limited, mapped)
	}
	l.Check(pod.Remove(ctx))
	if after := belongings(l); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// host-local allocates, and gets back.
func TestIPAM(t *testing.T) {
	l, host := guests(t, 0)
	l.NB("lsp-add sw0 g1 -- lsp-set-addresses g1 '50:54:00:01:00:01 10.0.9.9'")
	store := filepath.Join(t.TempDir(), "leases")
	ipam := func(port string) string {
		return fmt.Sprintf(`{"type":"offload-cni","mtu":1400,"timeout":"2s","logicalPort":%q,"mac":"50:54:00:01:00:01",
			"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.0.0.0/16","rangeStart":"10.0.9.9","rangeEnd":"10.0.9.9","gateway":"10.0.0.1"}]],"routes":[{"dst":"192.0.2.0/24"}]}}`, port, store)
	}
	path := cniPath(t, "host-local")
	net := network(l, "ipam", path, ipam("g1"))
	leases := func() int {
		n := 0
		for _, f := range files(l, store) {
			if _, err := netip.ParseAddr(filepath.Base(f)); err == nil {
				n++
			}
		}
		return n
	}
	ctx := t.Context()
	// Without the logical port ADD fails and the only address is free again.
	wrong := network(l, "wrong", path, ipam("nobody"))
	c := guest(1)
	c.Bare = true
	pod := l.AddPod("n1", c)
	if _, err := wrong.Do(ctx, "add", pod.Netns(), ""); err == nil || !strings.Contains(err.Error(), "LPORT_NOT_FOUND") {
		t.Errorf("add without a logical port: %v, want LPORT_NOT_FOUND", err)
	}
	if n := leases(); n != 0 {
		t.Errorf("%d addresses are taken after a failed ADD", n)
	}
	_, err := net.Do(ctx, "add", pod.Netns(), "")
	l.Check(err)
	if ok, err := pod.Ping(ctx, host.Addr(false), 5*time.Second); !ok || err != nil {
		t.Errorf("ping = %v, %v", ok, err)
	}
	if n := leases(); n != 1 {
		t.Errorf("%d addresses are taken, want 1", n)
	}
	for _, verb := range []string{"status", "check", "del"} {
		_, err := net.Do(ctx, verb, pod.Netns(), "")
		l.Check(err)
	}
	if n := leases(); n != 0 {
		t.Errorf("%d addresses are taken after DEL", n)
	}
}
