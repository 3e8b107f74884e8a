package devports

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/simnic"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// withRDMA gives the functions of the NIC RDMA devices, or takes these away.
func (r *deviceRig) withRDMA(on int) {
	r.T.Helper()
	r.settled()
	r.Check(nic.Set(simnic.RDMA, on))
	for i := range vfs { // from the next time that their drivers are bound
		name := []byte(nic.VFDevice(i))
		for _, file := range []string{"unbind", "bind"} {
			r.Check(os.WriteFile("/sys/bus/simnic/drivers/simnic_vf/"+file, name, 0))
		}
	}
	list, err := r.ListFunctions(r.ctx, &offloadv1.ListFunctionsRequest{Filter: &offloadv1.FunctionFilter{Kind: kindSF}})
	r.Check(err)
	for _, f := range list.GetFunctions() { // others are made in their places
		_, err := r.DeleteFunction(r.ctx, &offloadv1.DeleteFunctionRequest{Port: f.GetPort()})
		r.Check(err)
	}
	r.settle()
	r.settled()
}

// hasRDMA reports whether an RDMA device is in the network namespace of a pod, or of the host, "".
func (r *rig) hasRDMA(netns, name string) bool {
	r.T.Helper()
	command := "rdma dev show"
	if netns != "" {
		command = "ip netns exec " + netns + " " + command
	}
	for line := range strings.Lines(r.shows(command)) {
		if strings.Contains(line, " "+name+":") {
			return true
		}
	}
	return false
}

// Where RDMA devices are in one namespace only, that of a function is where its netdev is: it goes into the pod and comes back, also if the
// daemon ends meanwhile, or the namespace does.
func TestRDMA(t *testing.T) {
	faulty(t)
	r := newDeviceRig(t)
	r.settle()
	r.withRDMA(1)
	defer r.withRDMA(0)
	for _, kind := range []string{"vf", "sf"} {
		for _, end := range []string{"DEL", "DEL after the daemon was killed", "the namespace ends", "the namespace is kept", "ADD fails"} {
			t.Run(kind+", "+end, func(t *testing.T) {
				r := r.in(t)
				before := r.settings()
				if end == "ADD fails" {
					s := spec(r.pods(1)[0], portKind(kind))
					s.LogicalPort = "none" // found out after the RDMA device was moved
					if _, err := r.create(s); err == nil {
						t.Fatal("a port of no logical port was made")
					}
					r.wantSettings(before)
					r.wantClean()
					return
				}
				p := r.attachment(r.unmade(1), kind, `"rdma":true`, "")
				remove := sync.OnceFunc(func() { r.Check(p.Remove(context.Background())) })
				defer remove()
				if out, err := p.do(r.rig, "add"); err != nil {
					t.Fatalf("ADD: %v\n%s", err, out)
				}
				list, err := r.ports.ListPorts(t.Context(), &offloadv1.ListPortsRequest{})
				r.Check(err)
				f := list.GetPorts()[0].GetStatus().GetFunction()
				name := f.GetRdmaDevice()
				if name == "" || !r.hasRDMA(p.Netns(), name) || r.hasRDMA("", name) {
					t.Errorf("RDMA device %q: in the pod %t, on the host %t", name, r.hasRDMA(p.Netns(), name), r.hasRDMA("", name))
				}
				if out, err := p.do(r.rig, "check"); err != nil {
					t.Errorf("CHECK: %v\n%s", err, out)
				}
				switch end {
				case "DEL after the daemon was killed":
					r.restart()
					r.settled() // as soon as it answers
				case "the namespace ends":
					remove()
				case "the namespace is kept": // longer than its netdev and its RDMA device are waited for
					kept, err := os.Open("/run/netns/" + p.Netns())
					r.Check(err)
					defer func() { _ = kept.Close() }()
					remove()
					if _, err := p.do(r.rig, "del"); err != nil {
						t.Error(err)
					}
					if out := r.audit(); !strings.Contains(out, "quarantined: "+string(reason.FunctionElsewhere)) {
						t.Errorf("audit: %q, want that the function is quarantined", out)
					}
					r.Check(kept.Close())
				}
				if _, err := p.do(r.rig, "del"); err != nil {
					t.Error(err)
				}
				r.Eventually(5*time.Second, "the RDMA device at home", func() bool { return r.hasRDMA("", name) })
				r.wantSettings(before)
				r.wantClean()
			})
		}
	}
}

func portKind(kind string) offloadv1.PortKind {
	return map[string]offloadv1.PortKind{"vf": vf, "sf": sf}[kind]
}
