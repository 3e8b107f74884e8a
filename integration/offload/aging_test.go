package offload

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// learnedAge is the age that northd of OVN 23.09 would tell; the agents look each second and a half.
const learnedAge = 8

// A neighbour whose packets only filters see is kept from ageing, one that sends nothing is not. The northd at hand is older than ages: it
// is paused, and what a later one writes is written by hand.
func TestAging(t *testing.T) {
	r := rig(t)
	warm(t, r)
	pin(t, r)
	check(t, r.Pause(t.Context()))
	t.Cleanup(func() {
		_, err := r.SB(context.Background(), "--all destroy MAC_Binding")
		if err := errors.Join(err, r.Unpause(context.Background())); err != nil {
			t.Error(err)
		}
	})
	sb := func(format string, args ...any) string {
		t.Helper()
		out, err := r.SB(t.Context(), fmt.Sprintf(format, args...))
		check(t, err)
		return strings.TrimSpace(out)
	}
	router := sb("--bare --columns=_uuid find Datapath_Binding external_ids:name=r0")
	learn := sb("--bare --columns=_uuid find Logical_Flow logical_datapath=%s external_ids:stage-name=lr_in_learn_neighbor priority=100", router)
	before := sb("--bare --columns=actions list Logical_Flow %s", learn)
	if before != "next;" {
		t.Fatalf("the flow of lr_in_learn_neighbor does %q, want next;", before)
	}
	bindings := map[string]string{} // by pod
	for _, name := range []string{"web1", "web3"} {
		pod := r.Pod(name)
		bindings[name] = sb(`create MAC_Binding logical_port=r0-web ip='"%v"' mac='"%s"' datapath=%s timestamp=1`, pod.Addr(false), pod.MAC, router)
	}
	sb(`set Logical_Flow %s actions='"mac_cache_use; next;"'`, learn)
	sb("set Datapath_Binding %s external_ids:mac_binding_age_threshold=%d", router, learnedAge)
	timestamp := func(pod string) int64 {
		t.Helper()
		n, err := strconv.ParseInt(sb("--bare --columns=timestamp list MAC_Binding %s", bindings[pod]), 10, 64)
		check(t, err)
		return n
	}
	// seen is how many packets of a pod the flow of its binding has counted, with those that the datapath has forwarded meanwhile.
	seen := func(pod string) uint64 {
		t.Helper()
		_, err := r.Nodes[0].AppCtl(t.Context(), "revalidator/purge")
		check(t, err)
		out, err := r.Nodes[0].OFctl(t.Context(), "dump-flows", "br-int", fmt.Sprintf("table=79,ip,nw_src=%v", r.Pod(pod).Addr(false)))
		check(t, err)
		m := regexp.MustCompile(`n_packets=(\d+)`).FindStringSubmatch(out)
		if m == nil {
			return 0
		}
		n, err := strconv.ParseUint(m[1], 10, 64)
		check(t, err)
		return n
	}

	path := Path{Name: "router, local", From: "web1", To: "db1", Routed: true}
	l := startLoad(t, r, []stream{{Path: path, client: 20500, interval: udpInterval()}})
	defer l.stop(t)
	wantOffloaded(t, r, []Path{path})
	waitFor(t, "a binding that is used to be refreshed", func() bool { return timestamp("web1") > 1 })

	// From here on only filters see it: in a time in which each agent reads twice.
	for deadline := time.Now().Add(lab.Patient(patience)); ; {
		n := seen("web1")
		time.Sleep(4 * time.Second)
		if seen("web1") == n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("Open vSwitch goes on seeing packets that filters should forward")
		}
	}
	began, n, filters := time.Now().UnixMilli(), seen("web1"), count(t, r)["n1"].TC[r.Pod("db1").Iface()]
	sb("set MAC_Binding %s timestamp=1", bindings["web1"])
	waitFor(t, "a binding that only filters use to be refreshed", func() bool { return timestamp("web1") > began })
	if now := seen("web1"); now != n {
		t.Errorf("Open vSwitch has seen %d packets of it meanwhile, want none", now-n)
	}
	t.Logf("refreshed %d ms later, after %d packets that filters sent and none that Open vSwitch saw", timestamp("web1")-began,
		count(t, r)["n1"].TC[r.Pod("db1").Iface()]-filters)
	if at := timestamp("web3"); at != 1 {
		t.Errorf("the binding of a pod that sends nothing was refreshed at %d", at)
	}
}
