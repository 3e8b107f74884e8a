package devports

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// Between two VFs packets are forwarded by the NIC, and with other ports of UDP by Open vSwitch, to which the NIC leaves them; all are accounted for. A NIC
// that has all filters and forwards nothing is found out.
func TestProbePort(t *testing.T) {
	r := newRig(t)
	pods := r.pods(1, 2)
	for _, p := range pods {
		s := spec(p, vf)
		r.mustCreate(s)
		defer r.mustDelete(s.GetKey())
	}
	conn, err := client.Dial(filepath.Join(r.node.Dir, "offloadd.sock"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	r.Check(err)
	defer func() { r.Check(conn.Close()) }()
	none, some := uint32(0), uint32(2)
	ctx, cancel := context.WithTimeout(t.Context(), lab.Patient(2*time.Minute))
	defer cancel()
	stream, err := offloadv1.NewProbeServiceClient(conn).RunPorts(ctx, &offloadv1.RunPortsRequest{Spec: &offloadv1.PortProbeSpec{
		Client: pods[0].Name, Server: pods[1].Name, Cold: &none, New: &some,
		Spec: &offloadv1.ProbeSpec{Sessions: 2, Count: 4000},
	}})
	r.Check(err)
	var text []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		err = client.Error(err)
		if err != nil && !nic.Real() { // it takes filters, and leaves their packets to the host
			if reason.Of(err) != reason.ProbeRefused || !strings.Contains(err.Error(), "the hardware has forwarded 0 (0.00 %)") {
				t.Errorf("the NIC says that it has forwarded nothing, and the probe: %v", err)
			}
			return
		}
		r.Check(err)
		text = append(text, m.GetRun()...)
	}
	if !nic.Real() {
		t.Fatal("a run was reported, though the NIC has forwarded nothing")
	}
	run, err := report.Read(text)
	r.Check(err)
	t.Log(report.Text(run, 0))
	claims := map[string]ledger.Claim{"offload": ledger.ByHardware, "software": ledger.ByOVS, "software-twin": ledger.ByOVS}
	if len(run.Ports.Ways) != len(claims) {
		t.Errorf("%d ways", len(run.Ports.Ways))
	}
	for _, w := range run.Ports.Ways {
		if w.Claim != string(claims[w.Path]) {
			t.Errorf("of %s %s is claimed", w.Path, w.Claim)
		}
		for _, a := range w.Accounts {
			t.Logf("%s: %+v", w.Path, a)
			if why := ledger.Refuse(claims[w.Path], &a); why != "" || a.InHW == 0 {
				t.Errorf("%s: %d filters in hardware; %s", w.Path, a.InHW, why)
			}
		}
	}
	for _, l := range run.Ports.Lives {
		for _, trial := range l.Trials {
			for side, s := range trial.Switches {
				t.Logf("%s %s: %+v, %+v", l.Before, l.Path, s, trial.Accounts[side])
				if (l.Path == "offload") != (s.Hardware > 0) {
					t.Errorf("%s %s: the NIC forwards from packet %d", l.Before, l.Path, s.Hardware)
				}
			}
		}
	}
}
