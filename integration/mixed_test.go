package integration

import (
	"testing"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/integration/scene"
)

// In a cluster with ovn-controller, every packet has the verdict of the policy: switched and routed, IPv4 and
// IPv6, new connections and answers, in both directions, whatever the tunnel and however the agent reaches its
// database.
func TestMixedCluster(t *testing.T) {
	for _, tt := range []struct {
		name   string
		encaps []string
		opts   lab.Options
	}{
		{"geneve", []string{"geneve"}, lab.Options{}},
		{"vxlan", []string{"vxlan"}, lab.Options{}},
		{"both, monitor all, cluster", []string{"geneve", "vxlan"}, lab.Options{MonitorAll: true, SBServers: 3}},
		{"rbac", []string{"geneve"}, lab.Options{RBAC: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := tt.opts
			opts.Nodes = []lab.NodeConfig{
				{Name: "n1", Agent: agent(t), EncapTypes: tt.encaps},
				{Name: "n2", Agent: lab.OVNController, EncapTypes: tt.encaps},
			}
			l := labtest.Start(t, opts)
			s := scene.New(opts.Nodes)
			l.NB(s.Northbound())
			_, err := s.Populate(t.Context(), l.Lab)
			l.Check(err)
			l.Sync()
			seen, err := s.Ask(t.Context(), l.Lab)
			l.Check(err)
			for p, ok := range seen {
				if ok != s.Allowed(p) {
					t.Errorf("%+v = %v, want %v", p, ok, s.Allowed(p))
				}
			}
			for _, n := range l.Nodes {
				tunnels, err := n.Tunnels(t.Context())
				l.Check(err)
				// Of several types, Geneve is preferred.
				for _, tun := range tunnels {
					if used := tun.Type == tt.encaps[0]; used != (tun.RxPackets > 0) {
						t.Errorf("%s: tunnel %+v: want packets through %s alone", n.Name, tun, tt.encaps[0])
					}
				}
				if len(tunnels) != 1 {
					t.Errorf("%s: tunnels %+v, want one", n.Name, tunnels)
				}
			}
		})
	}
}
