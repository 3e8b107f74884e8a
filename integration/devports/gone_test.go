package devports

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/simnic"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// unmade is a pod whose namespace a test removes itself.
func (r *rig) unmade(i int) *lab.Pod {
	r.T.Helper()
	return r.AddPod("n1", pod(i))
}

// When a namespace dies the kernel moves the function's netdev back, under the name that it had there or another: the port fails, its
// removal succeeds, and the function is as it was.
func TestNamespaceDies(t *testing.T) {
	r := newRig(t)
	before := home(t)
	clashes := []bool{false, true}
	if _, err := os.Stat("/sys/class/net/eth0"); err == nil {
		clashes = []bool{true} // the host has one of its own
	}
	for _, clash := range clashes {
		for _, kind := range []offloadv1.PortKind{vf, sf} {
			if clash && len(clashes) > 1 {
				r.Check(run("ip", "link", "add", "eth0", "type", "dummy"))
			}
			p := r.unmade(5)
			s := spec(p, kind)
			r.mustCreate(s)
			r.Check(p.Remove(t.Context()))
			r.waitFailed(s.GetKey(), reason.LinkMissing)
			r.mustDelete(s.GetKey())
			r.wantClean()
			if clash && len(clashes) > 1 {
				r.Check(run("ip", "link", "del", "eth0"))
			}
			r.wantRestored(before)
		}
	}
}

// While the daemon is away the namespace dies: when it starts there is no such port any more.
func TestNamespaceDiesWithoutDaemon(t *testing.T) {
	r := newRig(t)
	before := home(t)
	p, q := r.unmade(5), r.unmade(6)
	r.mustCreate(spec(p, vf))
	r.mustCreate(spec(q, sf))
	r.Check(r.node.StopAgent(syscall.SIGTERM))
	r.Check(p.Remove(t.Context()))
	r.Check(q.Remove(t.Context()))
	r.restart()
	r.Eventually(20*time.Second, "the removal of the ports", func() bool {
		list, err := r.ports.ListPorts(t.Context(), &offloadv1.ListPortsRequest{})
		return err == nil && len(list.GetPorts()) == 0
	})
	r.wantClean()
	r.wantRestored(before)
	again := r.pods(5)[0]
	r.mustCreate(spec(again, vf))
	r.mustDelete(spec(again, vf).GetKey())
}

// A namespace whose name is gone, but which a process keeps, is found by that process.
func TestNamespaceWithoutName(t *testing.T) {
	r := newRig(t)
	before := home(t)
	p := r.unmade(5)
	s := spec(p, vf)
	r.mustCreate(s)
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		_, _ = p.Exec(ctx, "sleep", "1000") // it is killed
		close(ended)
	}()
	r.Eventually(5*time.Second, "a process in the namespace", func() bool {
		out, err := r.node.Exec(t.Context(), "ip", "netns", "pids", p.Netns())
		return err == nil && strings.TrimSpace(out) != ""
	})
	r.Check(p.Remove(t.Context()))
	r.mustDelete(s.GetKey())
	r.wantClean()
	r.wantRestored(before)
	end()
	<-ended
}

// A namespace that somebody keeps without a name and a process does not keep the port: the function is quarantined, and comes back to
// its pool when the namespace dies.
func TestNamespaceKept(t *testing.T) {
	r := newRig(t)
	before := home(t)
	p := r.unmade(5)
	s := spec(p, vf)
	r.mustCreate(s)
	kept, err := os.Open(s.GetNetns())
	r.Check(err)
	r.Check(p.Remove(t.Context()))
	r.mustDelete(s.GetKey())
	if out := r.audit(); !strings.Contains(out, "quarantined: "+string(reason.FunctionElsewhere)) {
		t.Errorf("audit: %q, want that the function is quarantined", out)
	}
	others := r.pods(1, 2, 3)
	for _, o := range others {
		r.mustCreate(spec(o, vf))
	}
	_, err = r.create(s)
	r.wantReason(err, reason.NetnsGone)
	q := r.pods(6)[0]
	_, err = r.create(spec(q, vf))
	r.wantReason(err, reason.PoolExhausted)
	r.Check(kept.Close())
	r.Eventually(20*time.Second, "the function's return", func() bool { return r.audit() == "" })
	r.mustCreate(spec(q, vf))
	for _, o := range append(others, q) {
		r.mustDelete(spec(o, vf).GetKey())
	}
	r.wantClean()
	r.wantRestored(before)
}

// A device that vanishes takes its port with it: the port says so, can be deleted, and made anew from another. Other ports go on.
func TestDeviceVanishes(t *testing.T) {
	r := newRig(t)
	all := r.pods(1, 2, 3)
	for _, tt := range []struct {
		name   string
		kind   offloadv1.PortKind
		other  offloadv1.PortKind // of those that do not notice
		vanish func(f *offloadv1.PortFunction) error
		repair func() error
		needs  func(*testing.T) // nil: nothing that a NIC may lack
	}{
		{"an SF is deleted", sf, vf, func(f *offloadv1.PortFunction) error {
			if err := run("devlink", "port", "function", "set", f.GetDevlinkPort(), "state", "inactive"); err != nil {
				return err
			}
			return run("devlink", "port", "del", f.GetDevlinkPort())
		}, func() error { return nil }, nil},
		{"all VFs are deleted", vf, sf, func(*offloadv1.PortFunction) error { return nic.SetVFs(0) }, func() error { return nic.SetVFs(vfs) }, changing},
		{"the NIC is reset", sf, veth, func(*offloadv1.PortFunction) error { return nic.Reset() }, func() error { return nil }, faulty},
		{"the NIC is reset under a VF", vf, veth, func(*offloadv1.PortFunction) error { return nic.Reset() }, func() error { return nil }, faulty},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.needs != nil {
				tt.needs(t)
			}
			r := &rig{r.In(t), r.node, r.ports}
			want := spec(all[0], tt.kind)
			f := r.mustCreate(want).GetStatus().GetFunction()
			for _, p := range all[1:] {
				r.mustCreate(spec(p, tt.other))
			}
			r.Check(tt.vanish(f))
			r.waitFailed(want.GetKey(), reason.DeviceGone)
			r.wantPing(all[1], all[2])
			r.Check(tt.repair())
			if st := r.status(want.GetKey()); st.GetState() != offloadv1.PortState_PORT_STATE_FAILED {
				t.Errorf("a port whose function was made anew: %v", st)
			}
			r.mustDelete(want.GetKey())
			r.Eventually(10*time.Second, "a port again", func() bool {
				_, err := r.create(want)
				return err == nil
			})
			r.wantPing(all[0], all[1])
			for _, p := range all {
				r.mustDelete(spec(p, tt.kind).GetKey())
			}
			r.wantClean()
		})
	}
}

// A slow driver makes ports slow, and one that is busy for a while does not make them fail.
func TestSlowAndBusyDriver(t *testing.T) {
	faulty(t)
	r := newRig(t)
	all := r.pods(1, 2, 3, 4, 5)
	r.Check(nic.Set(simnic.SFDelay, 300))
	defer func() { r.Check(nic.Set(simnic.SFDelay, 0)) }()
	for _, p := range all { // more than are made in advance
		r.mustCreate(spec(p, sf))
	}
	for _, p := range all {
		r.mustDelete(spec(p, sf).GetKey())
	}
	r.Check(nic.Fail(simnic.HWAddrSet, 2))
	r.mustCreate(spec(all[0], vf))
	r.mustDelete(spec(all[0], vf).GetKey())
	r.Check(nic.Fail(simnic.HWAddrSet, 0))
	r.wantClean()
}

// After the node has booted there are no ports but in the journal and in Open vSwitch, and the functions are new. When the daemon says
// that ports can be made, nothing of that is left.
func TestReboot(t *testing.T) {
	changing(t)
	r := newRig(t)
	p, q, v := r.unmade(5), r.unmade(6), r.unmade(7)
	r.mustCreate(spec(p, vf))
	r.mustCreate(spec(q, sf))
	r.mustCreate(spec(v, veth))
	r.Check(r.node.StopAgent(syscall.SIGKILL))
	for _, gone := range []*lab.Pod{p, q, v} {
		r.Check(gone.Remove(t.Context()))
	}
	// Without VFs and SFs, and then with new ones.
	r.Check(run("devlink", "dev", "eswitch", "set", nic.Handle(), "mode", "legacy"))
	r.Check(nic.SetVFs(0))
	r.Check(setUp())
	r.Check(olderBoot(filepath.Join(r.node.Dir, "state", "ports.journal")))
	out, err := r.node.VSctl(t.Context(), "--bare", "--columns=name", "find", "interface", "external_ids:offloadd-port!=x")
	if r.Check(err); len(strings.Fields(out)) != 3 {
		t.Fatalf("Interfaces before the start: %q, want three", out)
	}
	r.restart()
	again := r.pods(5)[0]
	r.mustCreate(spec(again, vf)) // waits until ports can be made
	r.wantClean(again.Name)
	r.mustDelete(spec(again, vf).GetKey())
	r.wantClean()
	r.wantRestored(nil)
}

// olderBoot changes a journal into one that was written before the last boot.
func olderBoot(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	changed := 0
	for i, line := range lines {
		_, record, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		if !ok || !json.Valid(record) {
			continue // the first line, or what is behind the last
		}
		older := bytes.Replace(record, bytes.TrimSpace(boot), []byte("00000000-0000-0000-0000-000000000000"), 1)
		if !bytes.Equal(older, record) {
			changed++
		}
		lines[i] = fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(older, crc32.MakeTable(crc32.Castagnoli)), older)
	}
	if changed == 0 {
		return fmt.Errorf("%s: no record of this boot", path)
	}
	return os.WriteFile(path, bytes.Join(lines, nil), 0o600)
}
