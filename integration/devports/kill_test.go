package devports

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/ports"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// The daemon is killed at every step of making, undoing and removing a port. The call that is repeated after its restart
// succeeds, nothing is left but what should be, the function is as it was, and other pods lose no packet.
func TestKills(t *testing.T) {
	r := newRig(t)
	all := r.pods(1, 2, 3)
	p, x, y := all[0], all[1], all[2]
	before := home(t)
	r.mustCreate(spec(x, vf))
	r.mustCreate(spec(y, sf))
	defer func() {
		r.mustDelete(spec(x, vf).GetKey())
		r.mustDelete(spec(y, sf).GetKey())
		r.wantClean()
		r.wantRestored(before)
	}()
	undoing := []string{"unplug", "unlink", "release", "forget"}
	for _, kind := range []offloadv1.PortKind{vf, sf} {
		for _, point := range ports.FaultPoints() {
			_, step, _ := strings.Cut(point, "-")
			calls := []string{"create"}
			switch {
			case slices.Contains(undoing, step):
				calls = []string{"create that fails", "delete"}
			case step == "condemn":
				calls = []string{"delete"}
			}
			for _, call := range calls {
				t.Run(strings.ToLower(strings.TrimPrefix(kind.String(), "PORT_KIND_"))+" "+call+" "+point, func(t *testing.T) {
					r := &rig{r.In(t), r.node, r.ports}
					r.kill(call, point, spec(p, kind), p, x, y)
				})
			}
		}
	}
}

// kill lets the daemon be killed at a point of a call, starts it again, and repeats the call. Meanwhile x reaches y.
func (r *rig) kill(call, point string, want *offloadv1.PortSpec, p, x, y *lab.Pod) {
	t := r.T
	arm := filepath.Join(r.node.Dir, "state", "fault")
	if call == "delete" {
		r.mustCreate(want)
	}
	pings := make(chan lab.PingStats)
	go func() {
		s, err := x.PingN(t.Context(), y.Addr(false), 200, 10*time.Millisecond, lab.Patient(2*time.Second))
		if err != nil {
			t.Error(err)
		}
		pings <- s
	}()
	defer func() {
		if s := <-pings; len(s.Lost()) > 0 || s.Received == 0 {
			t.Errorf("others noticed: %+v", s)
		}
	}()
	r.Check(os.WriteFile(arm, []byte(point), 0o644))
	var err error
	switch call {
	case "create":
		_, err = r.create(want)
	case "create that fails":
		nobody := spec(p, want.GetKind())
		nobody.LogicalPort = "nobody"
		_, err = r.create(nobody)
	case "delete":
		err = r.delete(want.GetKey())
	}
	r.wantReason(err, reason.DaemonUnreachable)
	r.Eventually(10*time.Second, "the daemon's end", func() bool { return !r.node.AgentRuns() })
	r.Check(os.Remove(arm))
	r.restart()
	if call != "delete" {
		r.mustCreate(want)
		r.wantClean(p.Name, x.Name, y.Name)
		r.wantPing(p, x)
	}
	r.mustDelete(want.GetKey())
	r.wantClean(x.Name, y.Name)
}
