package ports

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/reason"
)

// A step is a part of making a port. Its undoing finds out itself whether there is anything to undo: so it can be repeated,
// and done without knowing how far the step came.
type step struct {
	name string
	do   func(*making, context.Context) error

	undoName string // "" if there is nothing to undo
	undo     func(*making, context.Context) error
}

// steps is how a port is made. Unmade it is in the opposite order.
func steps() []step {
	return []step{
		{"journal", (*making).intend, "forget", (*making).forget}, // nothing exists without a record
		{"link", (*making).link, "unlink", (*making).unlink},      // the pair, each end where it belongs
		{"plug", (*making).plug, "unplug", (*making).unplug},      // early, since others have most to do with it
		{"addresses", (*making).learn, "", nil},                   // if they come from the logical port
		{"configure", (*making).configure, "", nil},               // what this does goes away with the link
		{"ofport", wait(numbered), "", nil},
		{"claim", wait(claimed), "", nil},
		{"install", wait(installed), "", nil},
		{"record", (*making).record, "", nil}, // from here on the port outlives the daemon
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
	sockets *sockets
	journal *journal
	chassis Chassis
}

// make does all steps. If one fails it undoes them all, and the error is that of the step; unfinished says that undoing did
// not succeed, and why.
func (m *making) make(ctx context.Context, all []step) (err, unfinished error) {
	for i, s := range all {
		if err = m.timed(s.name, func() error { return s.do(m, ctx) }); err == nil {
			continue
		}
		if ctx.Err() != nil {
			err = ended(ctx, err)
		}
		if i == 0 {
			return err, nil // without a record nothing was done
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), unmakeTime)
		defer cancel()
		return err, m.unmake(undo, all[:i+1])
	}
	return nil, nil
}

// unmakeTime is how long undoing may take, beyond the caller's deadline.
const unmakeTime = 10 * time.Second

// unmake undoes steps from the last to the first. It goes on when one cannot be undone, so that as little as possible is
// left, except that then the record stays.
func (m *making) unmake(ctx context.Context, done []step) error {
	m.port.State, m.port.Timeline = Deleting, slices.Clip(m.port.Timeline)
	var failed error
	for i := range done {
		s := done[len(done)-1-i]
		if s.undo == nil || failed != nil && len(done)-1-i == 0 {
			continue
		}
		failed = errors.Join(failed, m.timed(s.undoName, func() error { return s.undo(m, ctx) }))
	}
	return failed
}

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

func (m *making) intend(context.Context) error {
	return m.doors.journal.write(record{intended, m.netns, m.port}, true)
}

func (m *making) record(context.Context) error {
	m.port.State = Plugged
	if m.wait == UntilInstalled {
		m.port.State = Ready
	}
	return m.doors.journal.write(record{made, m.netns, m.port}, false)
}

func (m *making) condemn() error {
	return m.doors.journal.write(record{removing, m.netns, m.port}, false)
}

func (m *making) forget(context.Context) error {
	return m.doors.journal.write(record{Phase: gone, Port: Port{Spec: Spec{Key: m.port.Spec.Key}}}, false)
}

func (m *making) link(context.Context) error {
	mac, err := m.doors.kernel.create(m.ns, m.port.Spec)
	if m.port.Spec.Addressing == Static {
		m.port.MAC = mac
	}
	return err
}

func (m *making) unlink(context.Context) error { return m.doors.kernel.remove(m.port.HostInterface) }

func (m *making) plug(ctx context.Context) (err error) {
	if m.follow, err = m.doors.chassis.Follow(ctx, m.port.Spec.LogicalPort); err != nil {
		return reason.Errorf(reason.ShuttingDown, "ports plug: %w", err)
	}
	return m.doors.sockets.plug(ctx, m.port)
}

func (m *making) unplug(ctx context.Context) error {
	return m.doors.sockets.unplug(ctx, m.port.HostInterface)
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
	return m.doors.kernel.configure(m.ns, m.port, m.doors.sockets.userspace())
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
