package integration

import (
	"flag"
	"net/netip"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
)

var agentName = flag.String("agent", string(lab.Offloadd), "the chassis agent to test")

func agent(t *testing.T) lab.Agent {
	t.Helper()
	a, err := lab.ParseAgent(*agentName)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// pair is a switch with p1 on the node n1, whose agent is under test, and p2 on n2, which has ovn-controller, unless
// opts says otherwise. The switch has more ports for pods to come: p3 to p9.
func pair(t *testing.T, opts lab.Options) *labtest.Lab {
	t.Helper()
	if opts.Nodes == nil {
		opts.Nodes = []lab.NodeConfig{{Name: "n1", Agent: agent(t)}, {Name: "n2", Agent: lab.OVNController}}
	}
	l := labtest.Start(t, opts)
	script := "ls-add sw0\n"
	for i := 1; i <= 9; i++ {
		c := member(i)
		script += "lsp-add sw0 " + c.Name + "\n"
		script += "lsp-set-addresses " + c.Name + " '" + c.MAC + " " + c.IPs[0].Addr().String() + " " + c.IPs[1].Addr().String() + "'\n"
	}
	l.NB(script)
	l.WaitInstalled(l.AddPod("n1", member(1)), l.AddPod("n2", member(2)))
	l.Sync()
	return l
}

// member is the pod for port p<i> of the pair's switch.
func member(i int) lab.PodConfig {
	d := string(rune('0' + i))
	return lab.PodConfig{
		Name: "p" + d, MAC: "50:54:00:00:00:0" + d,
		IPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1" + d + "/24"), netip.MustParsePrefix("fd10::1" + d + "/64")},
	}
}

// wantPing fails the test unless from reaches to in both families within the time.
func wantPing(t *testing.T, from, to *lab.Pod, within time.Duration) {
	t.Helper()
	for _, v6 := range []bool{false, true} {
		deadline := time.Now().Add(within)
		for {
			ok, err := from.Ping(t.Context(), to.Addr(v6), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s on %s does not reach %s on %s at %v within %v", from.Name, from.Node.Name, to.Name, to.Node.Name, to.Addr(v6), within)
				break
			}
		}
	}
}
