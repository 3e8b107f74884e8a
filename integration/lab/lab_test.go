package lab_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
)

const twoPods = `
	ls-add sw0
	lsp-add sw0 p1
	lsp-set-addresses p1 "50:54:00:00:00:01 10.0.0.11 fd10::11"
	lsp-add sw0 p2
	lsp-set-addresses p2 "50:54:00:00:00:02 10.0.0.12 fd10::12"
`

func pod(name, mac string, ips ...string) lab.PodConfig {
	c := lab.PodConfig{Name: name, MAC: mac}
	for _, ip := range ips {
		c.IPs = append(c.IPs, netip.MustParsePrefix(ip))
	}
	return c
}

// A lab with Debian's own agent carries traffic, in every way of reaching the Southbound database.
func TestLab(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts lab.Options
	}{
		{"unix", lab.Options{}},
		{"cluster", lab.Options{SBServers: 3, MonitorAll: true}},
		{"rbac", lab.Options{RBAC: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			opts := tt.opts
			opts.Nodes = []lab.NodeConfig{{Name: "n1", Agent: lab.OVNController}, {Name: "n2", Agent: lab.OVNController}}
			l := labtest.Start(t, opts)
			l.NB(twoPods)
			p1 := l.AddPod("n1", pod("p1", "50:54:00:00:00:01", "10.0.0.11/24", "fd10::11/64"))
			p2 := l.AddPod("n2", pod("p2", "50:54:00:00:00:02", "10.0.0.12/24", "fd10::12/64"))
			l.WaitInstalled(p1, p2)
			l.Sync()
			l.Check(p2.Serve(t.Context(), 80))
			for _, v6 := range []bool{false, true} {
				if ok, err := p1.Ping(t.Context(), p2.Addr(v6), 2*time.Second); err != nil || !ok {
					t.Errorf("ping %v = %v, %v", p2.Addr(v6), ok, err)
				}
				if ok, err := p1.Connect(t.Context(), netip.AddrPortFrom(p2.Addr(v6), 80), 2*time.Second); err != nil || !ok {
					t.Errorf("connect %v port 80 = %v, %v", p2.Addr(v6), ok, err)
				}
				if ok, err := p1.Connect(t.Context(), netip.AddrPortFrom(p2.Addr(v6), 81), 2*time.Second); err != nil || ok {
					t.Errorf("connect %v port 81 = %v, %v, want a refusal", p2.Addr(v6), ok, err)
				}
			}
			tunnels, err := l.Node("n1").Tunnels(t.Context())
			if err != nil || len(tunnels) != 1 || tunnels[0].TxPackets == 0 {
				t.Errorf("tunnels of n1 = %+v, %v, want one that sent packets", tunnels, err)
			}
		})
	}
}

// A lab leaves nothing behind when it is closed.
func TestCloseRemovesEverything(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Options{Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.OVNController}}})
	if err != nil {
		t.Fatal(err)
	}
	pid := l.Nodes[0].AgentPID()
	if _, err := l.Nodes[0].AddPod(t.Context(), pod("p1", "50:54:00:00:00:01", "10.0.0.11/24")); err != nil {
		t.Fatal(err)
	}
	spaces, err := filepath.Glob("/run/netns/" + l.Name + "*")
	if err != nil || len(spaces) != 3 {
		t.Fatalf("namespaces %v, %v, want those of the underlay, a node and a pod", spaces, err)
	}
	alive := map[string]os.FileInfo{}
	for _, name := range spaces {
		if alive[name], err = os.Stat(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A namespace that this process has open lives, with the netdevs of NICs that are in it.
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			continue // of the list itself
		}
		for name, ns := range alive {
			if os.SameFile(info, ns) {
				t.Errorf("%s is still open, as %s", name, f)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	left, err := filepath.Glob("/run/netns/" + l.Name + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("namespaces left: %v, %v", left, err)
	}
	if _, err := os.Stat(l.Dir); !os.IsNotExist(err) {
		t.Errorf("stat %s = %v, want it gone", l.Dir, err)
	}
	if p, err := os.FindProcess(pid); err == nil && p.Signal(os.Signal(nil)) == nil {
		t.Errorf("the agent, process %d, still runs", pid)
	}
}
