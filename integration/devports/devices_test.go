package devports

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/deviceplugin/kubelettest"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A deviceRig is a rig with a kubelet, and what the daemon tells of devices.
type deviceRig struct {
	*rig
	offloadv1.DeviceServiceClient
	ctx     context.Context
	kubelet *kubelettest.Kubelet
	others  []string // what was left over at the start on a NIC that is not ours to change: functions of no pool
}

func newDeviceRig(t *testing.T) *deviceRig {
	t.Helper()
	r := newRig(t)
	conn, err := client.Dial(filepath.Join(r.node.Dir, "offloadd.sock"), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	r.Check(err)
	ctx, cancel := context.WithTimeout(t.Context(), lab.Patient(5*time.Minute))
	t.Cleanup(func() {
		cancel()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	k := kubelettest.New(t, kubeletDir)
	k.Start()
	d := &deviceRig{rig: r, DeviceServiceClient: offloadv1.NewDeviceServiceClient(conn), ctx: ctx, kubelet: k}
	if !nic.Changeable() {
		d.others = strings.Split(d.leftovers(), "\n")
	}
	return d
}

// show is where the functions of a kind are in their lives, in order.
func (r *deviceRig) show(kind offloadv1.FunctionKind) string {
	r.T.Helper()
	pool := "" // any, or none
	if !nic.Changeable() && kind == kindVF {
		pool = "vfs" // there may be other VFs
	}
	list, err := r.ListFunctions(r.ctx, &offloadv1.ListFunctionsRequest{Filter: &offloadv1.FunctionFilter{Kind: kind, Parent: nic.Handle(), Pool: pool}})
	r.Check(err)
	var words []string
	for _, f := range list.GetFunctions() {
		words = append(words, strings.TrimPrefix(f.GetState().String(), "FUNCTION_STATE_"))
	}
	return strings.Join(words, " ")
}

func (r *deviceRig) wait(kind offloadv1.FunctionKind, want string) {
	r.T.Helper()
	r.Eventually(30*time.Second, kind.String()+": "+want, func() bool { return r.show(kind) == want })
}

// leftovers are what the daemon finds that does not fit together.
func (r *deviceRig) leftovers() string {
	r.T.Helper()
	var list *offloadv1.ListLeftoversResponse
	r.Eventually(30*time.Second, "a daemon that knows enough for an audit", func() bool {
		var err error
		list, err = r.ListLeftovers(r.ctx, &offloadv1.ListLeftoversRequest{})
		if reason.Of(client.Error(err)) == reason.NotReady {
			return false
		}
		r.Check(err)
		return true
	})
	var lines []string
	for _, l := range list.GetLeftovers() {
		if line := l.GetWhere() + " " + l.GetName() + ": " + l.GetCause(); !slices.Contains(r.others, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

const (
	kindVF = offloadv1.FunctionKind_FUNCTION_KIND_VF
	kindSF = offloadv1.FunctionKind_FUNCTION_KIND_SF

	fourFree = "FREE FREE FREE FREE"
	twoFree  = "FREE FREE" // SFs, when nobody has one
)

// settle gives the NIC back as setUp made it, with its pools filled.
func (r *deviceRig) settle() {
	r.T.Helper()
	r.wait(kindVF, fourFree)
	r.Eventually(30*time.Second, "warm SFs", func() bool { return strings.HasPrefix(r.show(kindSF)+" ", twoFree+" ") })
	if got := r.leftovers(); got != "" {
		r.T.Errorf("left over:\n%s", got)
	}
}

// What is done to a NIC is told before, is refused where it would take something from a port, and otherwise is done and seen.
func TestDeviceOperations(t *testing.T) {
	changing(t)
	r := newDeviceRig(t)
	r.settle()
	handle := nic.Handle()

	details, err := r.GetDevice(r.ctx, &offloadv1.GetDeviceRequest{Device: handle})
	r.Check(err)
	if d := details.GetDevice(); d.GetMode() != offloadv1.EswitchMode_ESWITCH_MODE_SWITCHDEV || d.GetVfs() != vfs || details.GetInfo().GetDriver() == "" {
		t.Errorf("the device is %v", details)
	}

	p := r.pods(1)[0]
	port := r.mustCreate(spec(p, vf))
	owner := "net/q1/eth0"
	plan, err := r.SetVFs(r.ctx, &offloadv1.SetVFsRequest{Device: handle, Count: 6, ValidateOnly: true})
	r.Check(err)
	if got := plan.GetPlan(); len(got.GetSteps()) != 2 || len(got.GetRemoves()) != vfs || !slices.Equal(got.GetAffected(), []string{owner}) {
		t.Errorf("6 instead of 4 VFs, one of them used, are planned as %v", got)
	}
	_, err = r.SetVFs(r.ctx, &offloadv1.SetVFsRequest{Device: handle, Count: 6})
	r.wantReason(client.Error(err), reason.FunctionsInUse)
	legacy := offloadv1.EswitchMode_ESWITCH_MODE_LEGACY
	_, err = r.SetEswitch(r.ctx, &offloadv1.SetEswitchRequest{Device: handle, Mode: legacy})
	r.wantReason(client.Error(err), reason.FunctionsInUse)
	if st := r.status(port.GetSpec().GetKey()); st.GetState() != port.GetStatus().GetState() {
		t.Errorf("after what was refused the port is %v", st)
	}
	r.mustDelete(port.GetSpec().GetKey())
	r.wait(kindVF, fourFree)

	_, err = r.SetVFs(r.ctx, &offloadv1.SetVFsRequest{Device: handle, Count: 6})
	r.Check(err)
	r.wait(kindVF, fourFree+" FREE FREE")
	_, err = r.SetVFs(r.ctx, &offloadv1.SetVFsRequest{Device: handle, Count: details.GetDevice().GetTotalVfs() + 1})
	r.wantReason(client.Error(err), reason.InvalidField)
	_, err = r.SetVFs(r.ctx, &offloadv1.SetVFsRequest{Device: handle, Count: vfs})
	r.Check(err)
	r.wait(kindVF, fourFree)

	_, err = r.SetEswitch(r.ctx, &offloadv1.SetEswitchRequest{Device: handle, Mode: legacy})
	r.Check(err)
	r.Eventually(20*time.Second, "a device whose functions cannot be had", func() bool {
		list, err := r.ListPools(r.ctx, &offloadv1.ListPoolsRequest{})
		r.Check(err)
		return !slices.ContainsFunc(list.GetPools(), func(p *offloadv1.Pool) bool { return p.GetReason() != string(reason.EswitchNotSwitchdev) })
	})
	_, err = r.SetEswitch(r.ctx, &offloadv1.SetEswitchRequest{Device: handle, Mode: offloadv1.EswitchMode_ESWITCH_MODE_SWITCHDEV})
	r.Check(err)
	r.settle()
}

// An SF by hand is of no pool; one of a pool that is deleted is made again.
func TestSFsByHand(t *testing.T) {
	r := newDeviceRig(t)
	r.settle()
	handle := nic.Handle()
	create := func(number uint32, validateOnly bool) (*offloadv1.CreateFunctionResponse, error) {
		resp, err := r.CreateFunction(r.ctx, &offloadv1.CreateFunctionRequest{Device: handle, Number: number, ValidateOnly: validateOnly})
		return resp, client.Error(err)
	}
	before := r.show(kindSF)
	planned, err := create(7, true)
	r.Check(err)
	if len(planned.GetPlan().GetSteps()) != 2 || planned.GetPort() != "" || r.show(kindSF) != before {
		t.Errorf("an SF that is only asked about: %v; there are %s, before %s", planned, r.show(kindSF), before)
	}
	_, err = create(101, false)
	r.wantReason(err, reason.InvalidField) // of the pool
	made, err := create(7, false)
	r.Check(err)
	r.wait(kindSF, "UNMANAGED "+before)
	_, err = create(7, false)
	r.wantReason(err, reason.DeviceBusy)
	if got := r.leftovers(); !strings.Contains(got, made.GetPort()) || !strings.Contains(got, "of no pool") {
		t.Errorf("left over, with an SF of no pool:\n%s", got)
	}
	_, err = r.DeleteFunction(r.ctx, &offloadv1.DeleteFunctionRequest{Port: made.GetPort(), ValidateOnly: true})
	r.Check(err)
	if got := r.show(kindSF); got != "UNMANAGED "+before {
		t.Errorf("a deletion that is only asked about: %s", got)
	}
	_, err = r.DeleteFunction(r.ctx, &offloadv1.DeleteFunctionRequest{Port: made.GetPort()})
	r.Check(err)
	r.wait(kindSF, before)

	p := r.pods(2)[0]
	port := r.mustCreate(spec(p, sf))
	_, err = r.DeleteFunction(r.ctx, &offloadv1.DeleteFunctionRequest{Port: port.GetStatus().GetFunction().GetDevlinkPort()})
	r.wantReason(client.Error(err), reason.FunctionsInUse)
	r.mustDelete(port.GetSpec().GetKey())

	free, err := r.ListFunctions(r.ctx, &offloadv1.ListFunctionsRequest{Filter: &offloadv1.FunctionFilter{
		Kind: kindSF, States: []offloadv1.FunctionState{offloadv1.FunctionState_FUNCTION_STATE_FREE},
	}})
	r.Check(err)
	gone := free.GetFunctions()[0]
	_, err = r.DeleteFunction(r.ctx, &offloadv1.DeleteFunctionRequest{Port: gone.GetPort()})
	r.Check(err)
	all, err := r.ListFunctions(r.ctx, &offloadv1.ListFunctionsRequest{Filter: &offloadv1.FunctionFilter{Kind: kindSF}})
	r.Check(err)
	for _, f := range all.GetFunctions() {
		if f.GetNumber() == gone.GetNumber() {
			t.Errorf("the SF that was deleted is there again at once: %v", f)
		}
	}
	r.settle()
}

// A watch that is resumed tells the same as the lists, through ports, operations and a restart of the daemon.
func TestDeviceWatch(t *testing.T) {
	changing(t)
	r := newDeviceRig(t)
	r.settle()
	known, token := map[string]string{}, ""
	follow := func(until func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
		defer cancel()
		stream, err := r.WatchDevices(ctx, &offloadv1.WatchDevicesRequest{ResumeToken: token})
		r.Check(err)
		for token == "" || !until() {
			e, err := stream.Recv()
			if err != nil {
				t.Fatalf("%v; known: %v", err, known)
			}
			if e.GetType() == offloadv1.EventType_EVENT_TYPE_LOST {
				known, token = map[string]string{}, ""
			}
			if e.GetResumeToken() != "" {
				token = e.GetResumeToken()
			}
			if f := e.GetFunction(); f != nil {
				name := fmt.Sprint(f.GetKind(), f.GetNumber())
				if known[name] = f.GetState().String() + " " + f.GetOwner(); e.GetType() == offloadv1.EventType_EVENT_TYPE_DELETED {
					delete(known, name)
				}
			}
		}
	}
	same := func() bool {
		list, err := r.ListFunctions(r.ctx, &offloadv1.ListFunctionsRequest{})
		r.Check(err)
		for _, f := range list.GetFunctions() {
			if known[fmt.Sprint(f.GetKind(), f.GetNumber())] != f.GetState().String()+" "+f.GetOwner() {
				return false
			}
		}
		return len(known) == len(list.GetFunctions())
	}
	follow(same)
	p := r.pods(3)[0]
	port := r.mustCreate(spec(p, sf))
	follow(same)
	r.mustDelete(port.GetSpec().GetKey())
	follow(same)
	_, err := r.SetVFs(r.ctx, &offloadv1.SetVFsRequest{Device: nic.Handle(), Count: 0})
	r.Check(err)
	follow(same)
	_, err = r.SetVFs(r.ctx, &offloadv1.SetVFsRequest{Device: nic.Handle(), Count: vfs})
	r.Check(err)
	r.wait(kindVF, fourFree)
	follow(same)
	r.restart()
	r.wait(kindVF, fourFree)
	follow(same)
	r.settle()
}

// Kubelet knows of VFs, and of SFs that are not there yet; what it gives to a pod the pod gets, and where it is of another opinion an audit
// tells.
func TestKubelet(t *testing.T) {
	changing(t)
	r := newDeviceRig(t)
	k := r.kubelet
	r.settle()
	list, err := r.ListFunctions(r.ctx, &offloadv1.ListFunctionsRequest{Filter: &offloadv1.FunctionFilter{Kind: kindVF}})
	r.Check(err)
	var ids, shownVFs, shownSlots []string
	node := ""
	for _, f := range list.GetFunctions() {
		if f.GetNuma() >= 0 {
			node = fmt.Sprint("@", f.GetNuma())
		}
		ids, shownVFs = append(ids, f.GetDevice()), append(shownVFs, f.GetDevice()+node)
	}
	for i := range 6 { // max of the pool
		shownSlots = append(shownSlots, fmt.Sprintf("sfs.slot.%d%s", i, node))
	}
	both := func() {
		t.Helper()
		k.Await("offloadd.io/vfs", strings.Join(shownVFs, " "))
		k.Await("offloadd.io/sfs", strings.Join(shownSlots, " "))
	}
	both()
	r.settle()

	given := func(pod, resource, id string) *podresources.PodResources {
		return &podresources.PodResources{Namespace: "default", Name: pod, Containers: []*podresources.ContainerResources{{
			Name: "main", Devices: []*podresources.ContainerDevices{{ResourceName: resource, DeviceIds: []string{id}}},
		}}}
	}
	pods := r.pods(4, 5)
	withSF, withVF := spec(pods[0], sf), spec(pods[1], vf)
	withSF.Device, withVF.Device = "sfs.slot.5", ids[2]
	k.Give(given("q4", "offloadd.io/sfs", withSF.GetDevice()), given("q5", "offloadd.io/vfs", withVF.GetDevice()))
	if got := r.leftovers(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "kubelet default/q4/main") || !strings.Contains(got, "kubelet default/q5/main") {
		t.Errorf("kubelet has given to pods what no port has, and an audit finds:\n%s", got)
	}
	a, b := r.mustCreate(withSF), r.mustCreate(withVF)
	if f := a.GetStatus().GetFunction(); a.GetStatus().GetKind() != sf || f.GetPool() != "sfs" || f.GetDevice() == "" {
		t.Errorf("for a slot the port has %v", a.GetStatus())
	}
	if f := b.GetStatus().GetFunction(); f.GetDevice() != ids[2] {
		t.Errorf("for %s the port has %v", ids[2], f)
	}
	r.wantPing(pods[0], pods[1])
	both()
	if got := r.leftovers(); got != "" {
		t.Errorf("kubelet and ports agree, and an audit finds:\n%s", got)
	}
	k.Give()
	if got := r.leftovers(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "sfs.slot.5") || !strings.Contains(got, ids[2]) {
		t.Errorf("kubelet believes to be free what ports have, and an audit finds:\n%s", got)
	}

	// A restart of the daemon, or of kubelet, changes nothing.
	r.restart()
	k.Stop()
	k.Start()
	both()
	r.mustDelete(a.GetSpec().GetKey())
	r.mustDelete(b.GetSpec().GetKey())

	// What is no longer there kubelet knows at once.
	r.wait(kindVF, fourFree)
	_, err = r.SetVFs(r.ctx, &offloadv1.SetVFsRequest{Device: nic.Handle(), Count: 0})
	r.Check(err)
	k.Await("offloadd.io/vfs", "")
	_, err = r.SetVFs(r.ctx, &offloadv1.SetVFsRequest{Device: nic.Handle(), Count: vfs})
	r.Check(err)
	both()
	r.settle()
}
