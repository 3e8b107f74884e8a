package offload

import (
	"errors"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// A run without offload removes the filters of the run before, and packets go on.
func TestOff(t *testing.T) {
	r := rig(t)
	warm(t, r)
	restart := func(offload string) {
		t.Helper()
		r.flags[0], r.flags[1] = software+"="+strconv.FormatBool(offload == "direct"), "--offload="+offload
		for _, n := range r.Nodes {
			check(t, errors.Join(n.StopAgent(syscall.SIGTERM), n.StartAgent(lab.Offloadd)))
		}
		check(t, r.Sync(t.Context()))
	}
	restart("off")
	defer func() { restart("direct") }()
	for _, n := range r.Nodes {
		left := 0
		for end := time.Now().Add(lab.Patient(10 * time.Second)); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			all, err := Filters(t.Context(), n)
			check(t, err)
			if left = len(all); left == 0 {
				break
			}
		}
		if left > 0 {
			t.Errorf("%s: %d filters are left", n.Name, left)
		}
	}
	warm(t, r)
}
