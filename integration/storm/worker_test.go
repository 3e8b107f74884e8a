package storm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const (
	veth = offloadv1.PortKind_PORT_KIND_VETH
	vf   = offloadv1.PortKind_PORT_KIND_VF
	sf   = offloadv1.PortKind_PORT_KIND_SF
	auto = offloadv1.PortKind_PORT_KIND_AUTO
)

// A wish is what a port is to be, and what it may be instead.
type wish struct {
	kind     offloadv1.PortKind
	fallback []offloadv1.PortKind
}

func (w wish) String() string {
	words := []string{strings.ToLower(strings.TrimPrefix(w.kind.String(), "PORT_KIND_"))}
	for _, k := range w.fallback {
		words = append(words, strings.ToLower(strings.TrimPrefix(k.String(), "PORT_KIND_")))
	}
	return strings.Join(words, " or ")
}

// wishes are those that there are on a node with a NIC, and on others.
func wishes(nic bool) []wish {
	if !nic {
		return []wish{{kind: veth}, {vf, []offloadv1.PortKind{veth}}, {auto, []offloadv1.PortKind{sf, veth}}}
	}
	return []wish{
		{kind: veth},
		{kind: vf},
		{kind: sf},
		{kind: auto},
		{auto, []offloadv1.PortKind{sf, vf}},
		{auto, []offloadv1.PortKind{vf, sf, veth}},
		{vf, []offloadv1.PortKind{veth}},
		{sf, []offloadv1.PortKind{vf}},
	}
}

// allows reports whether a port that was asked for with s may be of a kind.
func allows(s *offloadv1.PortSpec, kind offloadv1.PortKind) bool {
	switch {
	case s.GetKind() == kind || slices.Contains(s.GetFallback(), kind):
		return true
	default:
		return s.GetKind() == auto && len(s.GetFallback()) == 0 && kind != veth
	}
}

// A slot is a pod, and what is known of its port.
type slot struct {
	n      *node
	number int
	pod    *lab.Pod
	spec   *offloadv1.PortSpec // that was asked for last; nil: none ever was
	port   *offloadv1.Port     // as it was acknowledged; nil: it does not exist, or unsure
	unsure bool                // the last call was not answered
}

// wants asks for a port of the slot's pod.
func (s *slot) wants(w wish) *offloadv1.PortSpec {
	return &offloadv1.PortSpec{
		Key:         &offloadv1.PortKey{Network: "net", ContainerId: s.pod.Name, Ifname: "eth0"},
		Netns:       "/run/netns/" + s.pod.Netns(),
		Kind:        w.kind,
		Fallback:    w.fallback,
		LogicalPort: s.pod.Name,
		Mac:         s.pod.MAC,
		Addresses:   []string{s.pod.IPs[0].String()},
	}
}

func (n *node) create(spec *offloadv1.PortSpec, within time.Duration) (*offloadv1.Port, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	resp, err := n.ports.CreatePort(ctx, &offloadv1.CreatePortRequest{Spec: spec})
	return resp.GetPort(), client.Error(err)
}

func (n *node) remove(k *offloadv1.PortKey) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	resp, err := n.ports.DeletePort(ctx, &offloadv1.DeletePortRequest{Key: k})
	return resp.GetExisted(), client.Error(err)
}

// create makes the port, and notes what is known of it then.
func (s *slot) create(spec *offloadv1.PortSpec, within time.Duration) error {
	before := s.port
	p, err := s.n.create(spec, within)
	s.spec = spec
	switch st := p.GetStatus(); {
	case err != nil:
		return err
	case st.GetState() != offloadv1.PortState_PORT_STATE_READY:
		return fmt.Errorf("it was made, and is not ready: %v", st)
	case !allows(spec, st.GetKind()):
		return fmt.Errorf("a %v was made for %v", st.GetKind(), spec)
	case (st.GetFunction() != nil) != (st.GetKind() != veth):
		return fmt.Errorf("a %v with the function %v", st.GetKind(), st.GetFunction())
	case before != nil && !st.GetCreated().AsTime().Equal(before.GetStatus().GetCreated().AsTime()):
		return fmt.Errorf("what existed was made again: %v, before %v", st, before.GetStatus())
	}
	s.port, s.unsure = p, false
	return nil
}

// remove removes the port, with as many calls as it takes until the daemon is not killed meanwhile.
func (s *slot) remove() error {
	key := s.wants(wish{}).GetKey()
	for {
		c := s.n.begin()
		existed, err := s.n.remove(key)
		switch {
		case err == nil && !s.unsure && existed != (s.port != nil):
			return fmt.Errorf("deleted: existed is %v", existed)
		case err == nil:
			s.port, s.unsure = nil, false
			return nil
		case !c.killed(err):
			return fmt.Errorf("delete: %w", err)
		}
		s.unsure = true
	}
}

// A worker does operations to the ports of its own slots, one after the other.
type worker struct {
	n     *node
	rnd   *rand.Rand
	slots []*slot
	did   map[string]int // how often there was which outcome
}

func (w *worker) note(format string, args ...any) { w.did[fmt.Sprintf(format, args...)]++ }

// An operation is something that may be done to a port.
type operation struct {
	name   string
	weight int
	do     func(*worker, *slot) error
}

// operationTable is what there is to choose from. What makes sense only for a port that exists, or for none, is another operation for others.
func operationTable() []operation {
	return []operation{
		{"create", 34, (*worker).create},
		{"delete", 22, (*worker).delete},
		{"create with another MTU", 4, (*worker).conflict},
		{"create, not waiting long", 6, (*worker).impatient},
		{"create and delete at once", 6, (*worker).both},
		{"create twice at once", 3, (*worker).twice},
		{"delete twice at once", 3, (*worker).deleteTwice},
		{"create for an unknown logical port", 1, (*worker).nobody},
		{"create with a name that clashes", 4, (*worker).clash},
		{"the namespace dies", 5, (*worker).dies},
		{"check", 6, (*worker).check},
		{"kill", 2, (*worker).kill},
		{"kill twice", 1, (*worker).killTwice},
	}
}

// outcomes are what has to come at least once.
func (n *node) outcomes() []string {
	all := []string{"killed"}
	for _, o := range operationTable() {
		all = append(all, o.name)
	}
	for _, w := range wishes(n.nic) {
		all = append(all, "made: "+w.String())
	}
	if n.nic {
		all = append(all, string(reason.PoolExhausted), "fell back")
	}
	return all
}

// next does an operation. That it could not be is an error only if what is known of the port says that it could.
func (w *worker) next() error {
	s := w.slots[w.rnd.IntN(len(w.slots))]
	sum := 0
	for _, o := range operationTable() {
		sum += o.weight
	}
	pick := w.rnd.IntN(sum)
	for _, o := range operationTable() {
		if pick -= o.weight; pick < 0 {
			w.did[o.name]++
			was := fmt.Sprintf("port %v, unsure %v", s.port.GetStatus().GetKind(), s.unsure)
			if err := o.do(w, s); err != nil {
				return fmt.Errorf("%s, %s: %s: %w", s.pod.Name, was, o.name, err)
			}
			return nil
		}
	}
	panic("storm: the weights have another sum")
}

// choose is what to ask for: the same as before if that is there, or may be.
func (w *worker) choose(s *slot) *offloadv1.PortSpec {
	if s.port != nil || s.unsure {
		return s.spec
	}
	all := wishes(w.n.nic)
	return s.wants(all[w.rnd.IntN(len(all))])
}

// create makes a port, and once more what is there.
func (w *worker) create(s *slot) error { return w.make(s, w.choose(s), patience()) }

func (w *worker) make(s *slot, spec *offloadv1.PortSpec, within time.Duration) error {
	c := w.n.begin()
	return w.made(s, spec, c, s.create(spec, within))
}

// made judges an error of a creation.
func (w *worker) made(s *slot, spec *offloadv1.PortSpec, c call, err error) error {
	switch {
	case err == nil:
		w.note("made: %v", wish{spec.GetKind(), spec.GetFallback()})
		if s.port.GetStatus().GetFellBack() != "" {
			w.note("fell back")
		}
		return nil
	case c.killed(err):
		w.note("killed")
		s.unsure = s.port == nil // what was there still is
		return nil
	case reason.Of(err) == reason.PoolExhausted && s.port == nil && !allows(spec, veth):
		w.note("%s", reason.PoolExhausted)
		s.unsure = false
		return nil
	case c.early(err) && s.port == nil:
		w.note("too early")
		s.unsure = false
		return nil
	}
	return err
}

// moment is a random duration, on a slow machine a longer one.
func (w *worker) moment(longest time.Duration) time.Duration {
	return time.Duration(w.rnd.Int64N(int64(lab.Patient(longest))))
}

func (w *worker) delete(s *slot) error { return s.remove() }

// conflict asks for something else than what is there.
func (w *worker) conflict(s *slot) error {
	if s.port == nil {
		return w.create(s)
	}
	other := proto.CloneOf(s.spec)
	other.Mtu = 1300
	return w.refused(other, reason.PortConflict)
}

// refused is a creation that has to be refused, with no effect.
func (w *worker) refused(spec *offloadv1.PortSpec, want reason.Reason) error {
	c := w.n.begin()
	_, err := w.n.create(spec, patience())
	switch {
	case c.killed(err):
		w.note("killed")
		return nil
	case c.early(err):
		w.note("too early")
		return nil
	case reason.Of(err) != want:
		return fmt.Errorf("%s (%w), want %s", reason.Of(err), err, want)
	}
	return nil
}

// impatient gives up soon, most likely while something is being done.
func (w *worker) impatient(s *slot) error {
	was := s.port
	err := w.make(s, w.choose(s), w.moment(200*time.Millisecond))
	switch reason.Of(err) { //nolint:exhaustive // the others are not to be expected
	case reason.DeadlineExceeded, reason.OVNNotInstalled, reason.PortBusy, reason.SBDisconnected, reason.NotReady:
	default:
		return err
	}
	w.note("given up")
	s.unsure = was == nil // what was there still is
	return nil
}

// both creates and deletes at the same time, so either may be the last.
func (w *worker) both(s *slot) error {
	spec := w.choose(s)
	c := w.n.begin()
	done := make(chan error, 1)
	after := w.moment(60 * time.Millisecond)
	go func() {
		time.Sleep(after)
		_, err := w.n.remove(spec.GetKey())
		done <- err
	}()
	_, err := w.n.create(spec, patience())
	deleted := <-done
	s.spec, s.port, s.unsure = spec, nil, true
	for _, err := range []error{err, deleted} {
		if err != nil && !c.killed(err) && !c.early(err) && !slices.Contains([]reason.Reason{reason.PortDeleted, reason.PoolExhausted}, reason.Of(err)) {
			return fmt.Errorf("create: %w; delete: %w", err, deleted)
		}
	}
	return nil
}

// twice makes the port with two calls, which have one outcome.
func (w *worker) twice(s *slot) error {
	spec := w.choose(s)
	c := w.n.begin()
	other := make(chan *offloadv1.Port, 1)
	go func() {
		p, _ := w.n.create(spec, patience()) // an error is the one's too, or comes of a kill
		other <- p
	}()
	err := w.make(s, spec, patience())
	p := <-other
	if s.port == nil {
		s.unsure = s.unsure || p != nil
		return err
	}
	if p != nil && w.n.kills.Load() == c.kills && p.GetStatus().GetCreated().AsTime() != s.port.GetStatus().GetCreated().AsTime() {
		return fmt.Errorf("made at %v and at %v", p.GetStatus().GetCreated().AsTime(), s.port.GetStatus().GetCreated().AsTime())
	}
	return err
}

// deleteTwice deletes with two calls. Which of them finds something is left open.
func (w *worker) deleteTwice(s *slot) error {
	c := w.n.begin()
	done := make(chan error, 1)
	key := s.wants(wish{}).GetKey()
	go func() {
		_, err := w.n.remove(key)
		done <- err
	}()
	s.unsure = true
	err := s.remove()
	if other := <-done; other != nil && !c.killed(other) {
		err = errors.Join(err, other)
	}
	return err
}

// nobody asks for a logical port that does not exist.
func (w *worker) nobody(s *slot) error {
	if s.port != nil || s.unsure {
		return w.delete(s)
	}
	spec := s.wants(wish{kind: veth})
	spec.LogicalPort = "nobody-" + s.pod.Name
	return w.refused(spec, reason.LPortNotFound)
}

// clash asks for an interface whose name is in use in the container.
func (w *worker) clash(s *slot) error {
	if s.port != nil || s.unsure {
		return w.check(s)
	}
	spec := w.choose(s)
	spec.Key.Ifname = "lo"
	return w.refused(spec, reason.IfnameInUse)
}

// dies takes the namespace away from the port, if there is one, and makes another under its name, before the port is deleted or after.
func (w *worker) dies(s *slot) error {
	if err := s.pod.Remove(context.Background()); err != nil {
		return err
	}
	early := w.rnd.IntN(2) == 0
	var err error
	again := func() {
		if err == nil {
			s.pod, err = w.n.node.AddPod(context.Background(), config(s.number))
		}
	}
	if early {
		again()
	}
	s.unsure = true // a daemon that starts removes it by itself
	err = errors.Join(err, s.remove())
	if !early {
		again()
	}
	return err
}

// check wants nothing to be wrong with a port that is there.
func (w *worker) check(s *slot) error {
	if s.port == nil {
		return nil
	}
	c := w.n.begin()
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	resp, err := w.n.ports.CheckPort(ctx, &offloadv1.CheckPortRequest{Key: s.spec.GetKey()})
	switch err := client.Error(err); {
	case err != nil && !c.killed(err):
		return err
	case len(resp.GetProblems()) > 0:
		return fmt.Errorf("problems: %v", resp.GetProblems())
	}
	return nil
}

// kill kills the daemon at a random moment.
func (w *worker) kill(*slot) error { return w.n.kill(w.moment(50*time.Millisecond), true) }

// killTwice kills the new daemon too, while it starts.
func (w *worker) killTwice(s *slot) error {
	if err := w.n.kill(0, false); err != nil {
		return err
	}
	return w.kill(s)
}

// settle leaves nothing unsure: what was not answered is asked for again, or deleted.
func (w *worker) settle() error {
	for _, s := range w.slots {
		for s.unsure && w.rnd.IntN(2) == 0 {
			if err := w.create(s); err != nil {
				return fmt.Errorf("%s: create again: %w", s.pod.Name, err)
			}
		}
		if s.unsure {
			if err := w.delete(s); err != nil {
				return fmt.Errorf("%s: delete again: %w", s.pod.Name, err)
			}
		}
	}
	return nil
}
