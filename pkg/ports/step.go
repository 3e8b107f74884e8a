package ports

//go:generate go test -run=TestDocument -update .

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A step is a part of making a port. Its undoing finds out itself whether there is anything to undo: so it can be repeated,
// and done without knowing how far the step came.
type step struct {
	name  string
	about string // for docs/ports.md
	do    func(*making, context.Context) error

	undoName string // "" if there is nothing to undo
	undo     func(*making, context.Context) error

	function bool // it is only for ports that are made of a function
	last     bool // it is undone only if all that came after it has been
}

// steps is how a port is made. Unmade it is in the opposite order. docs/ports.md shows it: go generate ./pkg/ports.
func steps() []step {
	return []step{
		{
			name: "journal", about: "Writes down what is going to be made: nothing exists without a record.",
			do: (*making).intend, undoName: "forget", undo: (*making).forget, last: true,
		},
		{
			name: "allocate", about: "Gets a function from a pool, or decides that it will be a veth instead.",
			do: (*making).allocate, undoName: "release", undo: (*making).release, function: true, last: true,
		},
		{
			name: "assign", about: "Writes down which function, and what it is set to: nothing of it is changed before.",
			do: (*making).assign, function: true,
		},
		{
			name: "function", about: "Sets MAC address, MTU and attributes, and reads them back. Releasing the function restores them.",
			do: (*making).prepare, function: true,
		},
		{
			name: "link", about: "Moves the function's netdev into the container under its name, and its RDMA device if such are moved; or makes a pair of veths, each end where it belongs.",
			do: (*making).link, undoName: "unlink", undo: (*making).unlink,
		},
		{
			name: "plug", about: "Brings the host's side up and plugs it into the integration bridge: early, for others have most to do with it.",
			do: (*making).plug, undoName: "unplug", undo: (*making).unplug,
		},
		{name: "addresses", about: "Waits for the addresses, if they are the logical port's.", do: (*making).learn},
		{name: "configure", about: "Gives the container's side its addresses and routes, and brings it up.", do: (*making).configure},
		{name: "ofport", about: "Waits for its number in the bridge.", do: wait(numbered)},
		{name: "claim", about: "Waits for the chassis to claim the logical port.", do: wait(claimed)},
		{name: "install", about: "Waits for its flows.", do: wait(installed)},
		{name: "record", about: "Writes down that it is made: from here on it outlives the daemon.", do: (*making).record},
	}
}

// condemn is the first step of a removal: from here on a restart finishes it.
const condemn = "condemn"

// FaultPoints lists where Options.Fault is called.
func FaultPoints() []string {
	names := []string{condemn}
	for _, s := range steps() {
		names = append(names, s.name)
		if s.undoName != "" {
			names = append(names, s.undoName)
		}
	}
	var points []string
	for _, n := range names {
		points = append(points, "before-"+n, "after-"+n)
	}
	return points
}

// A making is a port being made or unmade.
type making struct {
	doors *doors
	port  Port
	wait  Wait
	ns    *netns  // nil when unmaking
	netns netnsID // of ns

	follow <-chan LogicalPort
	lport  LogicalPort // the last of them

	publish func(Port)
	fault   func(string)
}

// doors are what the steps act on.
type doors struct {
	kernel  kernel
	devices *device.Inventory // nil: none
	sockets *sockets
	journal *journal
	chassis Chassis
	boot    string // the identifier of this boot
	log     *slog.Logger
}

// make does all steps. If one fails it undoes them all, and the error is that of the step; unfinished says that undoing did
// not succeed, and why.
func (m *making) make(ctx context.Context, all []step) (err, unfinished error) {
	for i, s := range all {
		if m.skips(s) {
			continue
		}
		if err = m.timed(s.name, func() error { return s.do(m, ctx) }); err == nil {
			continue
		}
		if ctx.Err() != nil {
			err = ended(ctx, err)
		}
		if i == 0 {
			return err, nil // without a record nothing was done
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.unmakeTime())
		defer cancel()
		return err, m.unmake(undo, all[:i+1])
	}
	return nil, nil
}

// unmakeTime is how long undoing may take, beyond the caller's deadline. A function may have to come back, and is verified.
func (m *making) unmakeTime() time.Duration {
	if m.port.Function == nil {
		return 10 * time.Second
	}
	return 25 * time.Second
}

// unmake undoes steps from the last to the first. It goes on when one cannot be undone, so that as little as possible is
// left, except that then the record stays, and nobody else gets the function.
func (m *making) unmake(ctx context.Context, done []step) error {
	m.port.State, m.port.Timeline = Deleting, slices.Clip(m.port.Timeline)
	var failed error
	for i := range done {
		s := done[len(done)-1-i]
		if s.undo == nil || m.skips(s) || failed != nil && s.last {
			continue
		}
		failed = errors.Join(failed, m.timed(s.undoName, func() error { return s.undo(m, ctx) }))
	}
	return failed
}

// skips reports whether a step is not for this port. Which kind it is of is known after the step allocate.
func (m *making) skips(s step) bool { return s.function && m.port.Kind == Veth }

// timed does one step, and has it in the timeline.
func (m *making) timed(name string, do func() error) error {
	m.fault("before-" + name)
	start := time.Now()
	before := m.port.Timeline
	m.port.Timeline = append(slices.Clip(before), Step{name, start, -1})
	m.publish(m.port)
	err := do()
	m.port.Timeline = append(slices.Clip(before), Step{name, start, time.Since(start)})
	m.fault("after-" + name)
	return err
}

// errDeleted ends a making because of a Delete.
var errDeleted = reason.Errorf(reason.PortDeleted, "ports create: the port was deleted")

// ended says why ctx has ended, given what a step was waiting for.
func ended(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errDeleted):
		return errDeleted
	case errors.Is(cause, context.DeadlineExceeded):
		if _, ok := errors.AsType[*reason.Error](err); ok {
			return err
		}
		return reason.Errorf(reason.DeadlineExceeded, "ports create: %w", err)
	default:
		return reason.Errorf(reason.Cancelled, "ports create: cancelled: %w", err)
	}
}

func (m *making) write(p phase, durable bool) error {
	return m.doors.journal.write(record{Phase: p, Boot: m.doors.boot, Netns: m.netns, Port: m.port}, durable)
}

func (m *making) intend(context.Context) error { return m.write(intended, true) }

func (m *making) assign(context.Context) error { return m.write(intended, false) }

func (m *making) record(context.Context) error {
	m.port.State = Plugged
	if m.wait == UntilInstalled {
		m.port.State = Ready
	}
	return m.write(made, false)
}

func (m *making) condemn() error { return m.write(removing, false) }

func (m *making) forget(context.Context) error {
	return m.doors.journal.write(record{Phase: gone, Port: Port{Spec: Spec{Key: m.port.Spec.Key}}}, false)
}

// allocate decides what the port is made of.
func (m *making) allocate(ctx context.Context) error {
	kinds, veth := m.port.Spec.functions()
	if len(kinds) == 0 { // auto, of which only a veth is allowed
		m.port.Kind, m.port.HostInterface = Veth, m.port.Spec.Key.hostName()
		return nil
	}
	f, err := m.acquire(ctx, kinds)
	switch {
	case err == nil:
		m.port.Kind, m.port.Function, m.port.HostInterface = Kind(f.Kind), &f, f.Representor.Name
		if first := m.port.Spec.Kinds()[0]; m.port.Kind != first {
			m.port.FellBack = fmt.Sprintf("there is no %s to be had", first)
		}
		return nil
	case veth && lacking(reason.Of(err)):
		m.port.Kind, m.port.FellBack, m.port.HostInterface = Veth, err.Error(), m.port.Spec.Key.hostName()
		return nil
	default:
		return err
	}
}

// functions are the kinds of functions that the port may be made of, and whether it may be a veth.
func (s Spec) functions() (kinds []Kind, veth bool) {
	kinds = s.Kinds()
	if kinds[len(kinds)-1] == Veth {
		return kinds[:len(kinds)-1], true
	}
	return kinds, false
}

// validate finds out whether the step allocate would succeed, and changes nothing.
func (m *making) validate(ctx context.Context) error {
	kinds, veth := m.port.Spec.functions()
	if len(kinds) == 0 {
		return nil
	}
	err := m.fromPools(kinds, func(r device.Request) error { return m.doors.devices.Validate(ctx, r) })
	if veth && lacking(reason.Of(err)) {
		return nil
	}
	return err
}

func (m *making) acquire(ctx context.Context, kinds []Kind) (f device.Function, err error) {
	err = m.fromPools(kinds, func(r device.Request) (err error) {
		f, err = m.doors.devices.Acquire(ctx, r)
		return err
	})
	return f, err
}

// fromPools asks for a function for the port, if there can be one.
func (m *making) fromPools(kinds []Kind, ask func(device.Request) error) error {
	none := reason.Errorf(reason.FeatureUnsupported, "ports allocate: no pool of functions is configured on this node")
	switch {
	case m.doors.devices == nil:
		return none
	case m.doors.sockets.userspace():
		return reason.Errorf(reason.FeatureUnsupported,
			"ports allocate: the integration bridge is of the userspace datapath, and representors belong to the kernel's")
	}
	r := device.Request{
		Pool: m.port.Spec.Pool, Device: m.port.Spec.Device, Owner: m.port.Spec.Key.String(), Attributes: m.port.Spec.function(),
	}
	for _, k := range kinds {
		r.Kinds = append(r.Kinds, device.Kind(k))
	}
	err := ask(r)
	if reason.Of(err) == reason.PoolNotFound && len(m.doors.devices.Snapshot().Pools) == 0 {
		err = none
	}
	return err
}

// lacking reports whether a function was refused because there is none to be had, in which case a port may be something else.
// That a pool does not exist is a mistake, which nothing shall hide.
func lacking(r reason.Reason) bool {
	return slices.Contains([]reason.Reason{reason.PoolExhausted, reason.DeviceNotFound, reason.FeatureUnsupported}, r)
}

// release gives the function back. One that has another owner by now was given back before.
func (m *making) release(ctx context.Context) error {
	if m.port.Function == nil || m.doors.devices == nil {
		return nil
	}
	err := m.doors.devices.Release(ctx, *m.port.Function, m.port.Spec.Key.String())
	if reason.Of(err) == reason.DeviceStaleOwner {
		return nil
	}
	return err
}

// function is what the spec wants of a function.
func (s Spec) function() device.Attributes {
	a := device.Attributes{
		MAC: device.MAC(s.MAC), MTU: s.MTU,
		Trust: s.Attributes.Trust, SpoofCheck: s.Attributes.SpoofCheck, LinkState: device.LinkState(s.Attributes.LinkState),
		GUID: s.Attributes.GUID, RDMA: s.Attributes.RDMA,
	}
	if s.Attributes.VLAN != 0 {
		a.VLAN = &device.VLAN{ID: s.Attributes.VLAN, QoS: s.Attributes.QoS, Protocol: unix.ETH_P_8021Q}
		if s.Attributes.VLANProto == VLAN8021AD {
			a.VLAN.Protocol = unix.ETH_P_8021AD
		}
	}
	if r := s.Attributes.MinRate; r != 0 {
		a.MinRate = &r
	}
	if r := s.Attributes.MaxRate; r != 0 {
		a.MaxRate = &r
	}
	return a
}

func (m *making) prepare(ctx context.Context) error {
	return m.doors.devices.Configure(ctx, *m.port.Function, m.port.Spec.function())
}

// verify says what of a port's function is not set as the port asked for. That this cannot be found out is a problem too.
func (d *doors) verify(ctx context.Context, p Port) (found []Problem) {
	if d.devices == nil {
		return nil
	}
	differ, err := d.devices.Verify(ctx, *p.Function, p.Spec.function())
	if err != nil {
		return []Problem{{reason.Of(err), err.Error()}}
	}
	for _, what := range differ {
		found = append(found, Problem{reason.LinkChanged, fmt.Sprintf("of the function %s the %s", p.Function.Name(), what)})
	}
	return found
}

func (m *making) link(context.Context) (err error) {
	var mac MAC
	if f := m.port.Function; f != nil {
		if mac, err = m.doors.kernel.lend(m.ns, *f, m.port.Spec.Key.Ifname); err == nil {
			err = m.doors.kernel.lendRDMA(m.ns, f.RDMA)
		}
	} else {
		mac, err = m.doors.kernel.create(m.ns, m.port.Spec)
	}
	if m.port.Spec.Addressing == Static && m.port.MAC == (MAC{}) {
		m.port.MAC = mac
	}
	return err
}

func (m *making) unlink(ctx context.Context) error {
	if f := m.port.Function; f != nil {
		return m.takeBack(ctx, *f)
	}
	return m.doors.kernel.remove(m.port.Spec.Key.hostName())
}

// homeTime is how long a function's netdev may take to come back out of a network namespace that has died.
const homeTime = 5 * time.Second

// takeBack gets the function's netdev back. If that does not succeed in time releasing the function will find it missing, and nobody
// else gets the function: the port's removal does not wait for a namespace that somebody keeps alive without a name.
func (m *making) takeBack(ctx context.Context, f device.Function) error {
	ctx, cancel := context.WithTimeout(ctx, homeTime)
	defer cancel()
	err := m.doors.kernel.takeBack(ctx, f, m.port.Spec.Netns, m.netns)
	if err == nil {
		err = m.doors.kernel.takeBackRDMA(ctx, f, m.port.Spec.Netns, m.netns)
	}
	if errors.Is(err, errAway) {
		m.doors.log.Warn("function not back", "port", m.port.Spec.Key.String(), "function", f.Name(), "err", err)
		err = nil
	}
	return err
}

func (m *making) plug(ctx context.Context) (err error) {
	if m.follow, err = m.doors.chassis.Follow(ctx, m.port.Spec.LogicalPort); err != nil {
		return reason.Errorf(reason.ShuttingDown, "ports plug: %w", err)
	}
	if f := m.port.Function; f != nil {
		renamed := *f // by udev, since it was acquired
		if renamed.Representor.Name, err = m.doors.kernel.raise(f.Representor); err != nil {
			return err
		}
		m.port.Function, m.port.HostInterface = &renamed, renamed.Representor.Name
	}
	return m.doors.sockets.plug(ctx, m.port)
}

func (m *making) unplug(ctx context.Context) error {
	return m.doors.sockets.unplug(ctx, m.port.Spec.Key)
}

func (m *making) learn(ctx context.Context) error {
	if m.port.Spec.Addressing == Static {
		return nil
	}
	if err := m.await(ctx, bound); err != nil {
		return err
	}
	var err error
	if m.port.MAC, m.port.Addresses, err = m.lport.addresses(); err != nil {
		return reason.Errorf(reason.LPortNoAddresses, "ports addresses: %w", err)
	}
	return nil
}

func (m *making) configure(context.Context) error {
	return m.doors.kernel.configure(m.ns, m.port, m.doors.sockets.userspace()) // no function is in a userspace bridge
}

// wait returns a step that waits until a milestone has been reached, if the caller wants to wait for that.
func wait(goal milestone) func(*making, context.Context) error {
	return func(m *making, ctx context.Context) error {
		if goal > numbered && m.wait != UntilInstalled {
			return nil
		}
		return m.await(ctx, goal)
	}
}

// grace is how long something that is not as it should be may last before waiting for it ends: a logical port that has just
// been created, or a neighbour that restarts.
const grace = 2 * time.Second

// await waits until goal has been reached.
func (m *making) await(ctx context.Context, goal milestone) error {
	var (
		cause   reason.Reason
		patient <-chan time.Time
	)
	for {
		o := m.doors.sockets.look(m.port.HostInterface)
		ok, obstacle := goal.reached(o, m.lport, m.port.Spec)
		m.port.OFPort, m.port.Zone = uint32(max(o.socket.OFPort, 0)), m.lport.Zone
		if ok {
			return nil
		}
		if obstacle.Reason != cause {
			cause, patient = obstacle.Reason, nil
			if cause != reason.OVNNotInstalled { // in that case nothing is wrong, it only takes its time
				patient = time.After(grace)
			}
		}
		select {
		case <-o.changed:
		case m.lport = <-m.follow:
		case <-patient:
			return obstacle
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", obstacle, ctx.Err())
		}
	}
}
