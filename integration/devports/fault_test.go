package devports

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/simnic"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A fault is something that goes wrong outside the daemon.
type fault struct {
	name  string
	kinds []offloadv1.PortKind // of the port that it happens to
	when  moment
	hit   func(f *struck)
	want  []reason.Reason // of the call; none: it succeeds in spite of the fault
	mend  func(f *struck)
}

// A moment is when a fault happens.
type moment string

const (
	beforeCreate moment = "before create"
	whileMade    moment = "while it is made" // it waits for its logical port, and has everything else
	whenThere    moment = "when it is there"
	beforeDelete moment = "before delete"
)

// A struck port is one that a fault happens to.
type struck struct {
	*rig
	pod  *lab.Pod
	spec *offloadv1.PortSpec
	made *offloadv1.Port // when there is or was one
}

// busy lets so many of each of the calls that ports need fail.
func busy(times int) func(*struck) {
	return func(f *struck) {
		for _, call := range []simnic.Failure{simnic.PortNew, simnic.PortDel, simnic.HWAddrSet, simnic.StateSet} {
			f.Check(nic.Fail(call, times))
		}
	}
}

func stopOVSDB(f *struck) { f.Check(f.node.Stop("ovsdb-server")) }

// resumeOVSDB waits until the daemon has noticed: it looks from time to time.
func resumeOVSDB(f *struck) {
	f.Check(f.node.Resume(f.T.Context(), "ovsdb-server"))
	f.Eventually(15*time.Second, "a daemon that has the database again", func() bool {
		_, err := f.node.Exec(f.T.Context(), "ovs-appctl", "-t", filepath.Join(f.node.Dir, "offloadd.ctl"), "ports/audit")
		return err == nil
	})
}

func removeNamespace(f *struck) { f.Check(f.pod.Remove(f.T.Context())) }

func makeNamespace(f *struck) { f.pod = f.AddPod("n1", f.pod.PodConfig) }

// removeFunction removes the SF, or all VFs.
func removeFunction(f *struck) {
	st := f.status(f.spec.GetKey())
	if st.GetKind() == vf {
		f.Check(nic.SetVFs(0))
		return
	}
	port := st.GetFunction().GetDevlinkPort()
	f.Check(run("devlink", "port", "function", "set", port, "state", "inactive"))
	f.Check(run("devlink", "port", "del", port))
}

func makeVFs(f *struck) {
	if f.spec.GetKind() == vf {
		f.Check(nic.SetVFs(vfs))
	}
}

// recoverFunctions asks for what is quarantined to be verified again.
func recoverFunctions(f *struck) {
	busy(0)(f)
	conn, err := client.Dial(filepath.Join(f.node.Dir, "offloadd.sock"))
	f.Check(err)
	defer func() { f.Check(conn.Close()) }()
	devices := offloadv1.NewDeviceServiceClient(conn)
	ctx, cancel := context.WithTimeout(f.T.Context(), patience())
	defer cancel()
	list, err := devices.ListFunctions(ctx, &offloadv1.ListFunctionsRequest{Filter: &offloadv1.FunctionFilter{
		States: []offloadv1.FunctionState{offloadv1.FunctionState_FUNCTION_STATE_QUARANTINED},
	}})
	f.Check(err)
	for _, q := range list.GetFunctions() {
		_, err := devices.ReleaseFunction(ctx, &offloadv1.ReleaseFunctionRequest{Port: q.GetPort()})
		f.Check(client.Error(err))
	}
}

func nothing(*struck) {}

// faults are those of docs/testing.md but for kills, which TestKills has.
func faults() []fault {
	all, functions := []offloadv1.PortKind{vf, sf, veth}, []offloadv1.PortKind{vf, sf}
	return []fault{
		{"OVSDB is away", all, beforeCreate, stopOVSDB, []reason.Reason{reason.OVSDBDisconnected}, resumeOVSDB},
		{"OVSDB is away", all, beforeDelete, stopOVSDB, []reason.Reason{reason.OVSDBDisconnected}, resumeOVSDB},
		{"the namespace vanishes", all, beforeCreate, removeNamespace, []reason.Reason{reason.NetnsGone}, makeNamespace},
		{"the namespace vanishes", all, whileMade, removeNamespace, []reason.Reason{reason.LPortNotFound, reason.KernelRefused}, makeNamespace},
		{"the namespace vanishes", all, beforeDelete, removeNamespace, nil, makeNamespace},
		{"the function vanishes", functions, whileMade, removeFunction, []reason.Reason{reason.LPortNotFound, reason.KernelRefused}, makeVFs},
		{"the function vanishes", functions, beforeDelete, removeFunction, nil, makeVFs},
		{
			"the link vanishes",
			[]offloadv1.PortKind{veth},
			whenThere,
			func(f *struck) {
				f.Check(run("ip", "link", "del", f.made.GetStatus().GetHostInterface()))
				f.waitFailed(f.spec.GetKey(), reason.LinkMissing)
			},
			[]reason.Reason{reason.LinkMissing},
			nothing,
		},
		{
			"the name inside clashes", all, beforeCreate,
			func(f *struck) { f.Check(run("ip", "-n", f.pod.Netns(), "link", "add", "eth0", "type", "dummy")) },
			[]reason.Reason{reason.IfnameInUse},
			func(f *struck) { f.Check(run("ip", "-n", f.pod.Netns(), "link", "del", "eth0")) },
		},
		{
			"the name on the host clashes",
			[]offloadv1.PortKind{veth},
			beforeCreate,
			func(f *struck) {
				f.made = f.mustCreate(f.spec) // to learn the name
				f.mustDelete(f.spec.GetKey())
				f.Check(run("ip", "link", "add", f.made.GetStatus().GetHostInterface(), "type", "dummy"))
			},
			[]reason.Reason{reason.KernelRefused},
			func(f *struck) { f.Check(run("ip", "link", "del", f.made.GetStatus().GetHostInterface())) },
		},
		{"devlink is busy for a while", functions, beforeCreate, busy(2), nil, busy(0)},
		{"devlink is busy for a while", functions, beforeDelete, busy(2), nil, busy(0)},
		{"devlink stays busy", functions, beforeCreate, busy(1 << 20), []reason.Reason{reason.DeviceBusy, reason.DeadlineExceeded}, recoverFunctions},
		// The function is quarantined. The port does not wait for a NIC that may never answer.
		{"devlink stays busy", functions, beforeDelete, busy(1 << 20), nil, func(f *struck) {
			if out := f.audit(); !strings.Contains(out, "quarantined: "+string(reason.DeviceBusy)) {
				f.T.Errorf("audit: %q, want that the function is quarantined", out)
			}
			recoverFunctions(f)
		}},
		{
			"the driver is slow",
			[]offloadv1.PortKind{sf},
			beforeCreate,
			func(f *struck) { f.Check(nic.Set(simnic.SFDelay, 1500)) }, nil,
			func(f *struck) { f.Check(nic.Set(simnic.SFDelay, 0)) },
		},
	}
}

// Whatever goes wrong, and whenever: the call says so or succeeds, the call that is repeated when it is over succeeds, nothing is left, and
// pods that have nothing to do with it lose no packet.
func TestFaults(t *testing.T) {
	faulty(t)
	r := newRig(t)
	others := r.pods(11, 12)
	for _, o := range others {
		r.mustCreate(spec(o, veth))
	}
	before := home(t)
	for _, tt := range faults() {
		for _, kind := range tt.kinds {
			t.Run(strings.Join([]string{tt.name, string(tt.when), strings.TrimPrefix(kind.String(), "PORT_KIND_")}, " "), func(t *testing.T) {
				r := &rig{r.In(t), r.node, r.ports}
				notice := r.watch(others[0], others[1])
				defer notice()
				f := &struck{rig: r, pod: r.unmade(10)}
				f.spec = spec(f.pod, kind)
				defer func() { r.Check(f.pod.Remove(context.Background())) }()
				f.happens(tt)
				r.mustCreate(f.spec)
				r.wantPing(f.pod, others[0])
				r.mustDelete(f.spec.GetKey())
				notice()
				r.Eventually(20*time.Second, "an audit that finds nothing", func() bool { return r.audit() == "" })
				r.wantClean(others[0].Name, others[1].Name)
				if tt.name != "the function vanishes" { // otherwise VFs are new, with other addresses
					r.wantRestored(before)
				}
				before = home(t)
			})
		}
	}
	for _, o := range others {
		r.mustDelete(spec(o, veth).GetKey())
	}
	r.wantClean()
}

// happens lets the fault happen and end.
func (f *struck) happens(tt fault) {
	f.T.Helper()
	var err error
	switch tt.when {
	case beforeCreate:
		tt.hit(f)
		err = f.createWithin(f.spec, lab.Patient(10*time.Second))
	case whileMade:
		nobody := spec(f.pod, f.spec.GetKind())
		nobody.LogicalPort = "nobody"
		ended := make(chan error, 1)
		go func() { ended <- f.createWithin(nobody, patience()) }()
		f.Eventually(10*time.Second, "a port that waits for its logical port", func() bool {
			steps := f.status(nobody.GetKey()).GetTimeline()
			return len(steps) > 0 && steps[len(steps)-1].GetName() == "claim"
		})
		tt.hit(f)
		err = <-ended
	case whenThere:
		f.made = f.mustCreate(f.spec)
		tt.hit(f)
		err = f.createWithin(f.spec, patience())
	case beforeDelete:
		f.mustCreate(f.spec)
		tt.hit(f)
		err = f.delete(f.spec.GetKey())
	}
	got, ok := reason.Of(err), err == nil && len(tt.want) == 0
	for _, want := range tt.want {
		ok = ok || err != nil && got == want
	}
	if !ok {
		f.T.Errorf("the call: %v (%s), want %v", err, got, tt.want)
	}
	tt.mend(f)
	if tt.when == beforeDelete || tt.when == whenThere {
		f.mustDelete(f.spec.GetKey())
	}
}

func (r *rig) createWithin(s *offloadv1.PortSpec, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	_, err := r.ports.CreatePort(ctx, &offloadv1.CreatePortRequest{Spec: s})
	return client.Error(err)
}

// watch lets a reach b all the time. The function that it returns ends that, and fails the test if a packet was lost.
func (r *rig) watch(a, b *lab.Pod) func() {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for over := false; !over; {
			s, err := a.PingN(context.Background(), b.Addr(false), 20, 100*time.Millisecond, lab.Patient(2*time.Second))
			if err != nil || len(s.Lost()) > 0 || s.Received == 0 {
				r.T.Errorf("others noticed: %+v, %v", s, err)
			}
			select {
			case <-end:
				over = true
			default:
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(end)
		<-ended
	})
}
