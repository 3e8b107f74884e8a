package ports

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/reason"
)

// maxPorts bounds how many ports a node has.
const maxPorts = 4096

// Options say what a Service works with.
type Options struct {
	StateDir    string // for the journal; exists
	OVSDatabase string // remote of the local Open_vSwitch database
	Chassis     Chassis
	Devices     *device.Inventory // of functions; nil: there are none
	Log         *slog.Logger

	// Fault is called at each of FaultPoints, for tests of what happens if the daemon ends there. Nil: not at all.
	Fault func(point string)
}

// A Service makes and removes ports. Its methods may be called from any goroutine, and wait until Run has found out what there
// is.
type Service struct {
	log   *slog.Logger
	feed  *Feed
	doors doors
	fault func(string)
	flaws []flaw

	ready  chan struct{} // closed when reconciled
	failed chan struct{} // has an element when a removal failed

	mu      sync.Mutex // guards what follows
	entries map[Key]*entry
}

// An entry is a port as the Service sees it. Its fields are guarded by the Service's mu.
type entry struct {
	port       Port
	netns      netnsID
	strayed    bool                    // the function's netdev is not in the container, but in the host's network namespace
	busy       chan struct{}           // closed when the operation that is under way ends; nil: none is
	cancel     context.CancelCauseFunc // ends it; nil: it cannot be ended
	unfinished bool                    // it is to be removed, and that failed
	tried      bool                    // in this round of finish
}

// New reads the journal. Nothing else happens before Run.
func New(opts Options) (*Service, error) {
	sockets, err := newSockets(opts.OVSDatabase, opts.Log)
	if err != nil {
		return nil, err
	}
	j, records, flaws, err := openJournal(opts.StateDir)
	if err != nil {
		return nil, err
	}
	s := &Service{
		log:     opts.Log,
		feed:    NewFeed(),
		doors:   doors{devices: opts.Devices, sockets: sockets, journal: j, chassis: opts.Chassis, boot: bootID(), log: opts.Log},
		fault:   opts.Fault,
		flaws:   flaws,
		ready:   make(chan struct{}),
		failed:  make(chan struct{}, 1),
		entries: map[Key]*entry{},
	}
	if s.fault == nil {
		s.fault = func(string) {}
	}
	for _, f := range flaws {
		s.log.Error("journal damaged", "file", j.path(corruptName), "offset", f.Offset,
			"reason", reason.JournalCorrupt, "err", f.Err)
	}
	for k, r := range records {
		e := &entry{port: r.Port, netns: r.Netns, unfinished: r.Phase != made}
		if old := r.Boot != "" && r.Boot != s.doors.boot; old {
			// Of such a port nothing exists but rows of Open vSwitch: what it was made of is as if new, and perhaps another port's.
			e.unfinished, e.port.Function, e.netns = true, nil, netnsID{}
			s.log.Info("port removed", "port", k.String(), "why", "it is from before the node booted")
		}
		s.entries[k] = e
	}
	return s, nil
}

// bootID identifies this boot; "" if the kernel does not say.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// Feed shows the ports.
func (s *Service) Feed() *Feed { return s.feed }

// Ready returns a channel that is closed when Run has found out what there is.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Connected reports whether the database is there in which ports are plugged in, and returns a channel that is closed when that may have changed.
func (s *Service) Connected() (bool, <-chan struct{}) {
	o := s.doors.sockets.look("")
	return o.connected, o.changed
}

// Create makes a port, see api.Ports.
func (s *Service) Create(ctx context.Context, req CreateRequest) (Port, error) {
	if err := s.Known(ctx); err != nil {
		return Port{}, err
	}
	spec := req.Spec
	for {
		s.mu.Lock()
		e := s.entries[spec.Key]
		switch {
		case e == nil:
			s.mu.Unlock()
			if p, again, err := s.create(ctx, req); !again {
				return p, err
			}
		case e.busy != nil && (e.unfinished || e.port.State != Creating):
			if err := s.waitFor(ctx, e); err != nil {
				return Port{}, err
			}
		case !e.unfinished && len(e.port.Spec.Differ(spec)) > 0:
			err := conflict(e.port.Spec, spec)
			s.mu.Unlock()
			return Port{}, err
		case e.busy != nil:
			if err := s.waitFor(ctx, e); err != nil {
				return Port{}, err
			}
		case req.ValidateOnly:
			s.mu.Unlock()
			return Port{Spec: spec}, nil
		case e.unfinished:
			if err := s.remove(ctx, e); err != nil {
				return Port{}, err
			}
		default:
			p := e.port
			s.mu.Unlock()
			return s.replay(ctx, p, req.Wait)
		}
	}
}

func conflict(have, want Spec) error {
	fields := strings.Join(have.Differ(want), ",")
	return reason.Errorf(reason.PortConflict, "ports create %s: exists with another %s", want.Key, fields).With("fields", fields)
}

// waitFor waits until the operation on e has ended. It is called with mu held, and gives it up.
func (s *Service) waitFor(ctx context.Context, e *entry) error {
	busy, key := e.busy, e.port.Spec.Key
	s.mu.Unlock()
	select {
	case <-busy:
		return nil
	case <-ctx.Done():
		return reason.Errorf(reason.PortBusy, "ports %s: another call is under way: %w", key, ctx.Err())
	}
}

// Known waits until it is known which ports there are: before, the Feed lacks those of an earlier daemon.
func (s *Service) Known(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
	}
	if !s.doors.sockets.look("").connected {
		return disconnected(ctx.Err(), "start")
	}
	return reason.Errorf(reason.NotReady, "ports: still finding out what there is: %w", ctx.Err())
}

// create makes a port of which nothing is known. If another call was faster, again is true.
func (s *Service) create(ctx context.Context, req CreateRequest) (p Port, again bool, err error) {
	spec := req.Spec
	ns, err := openNetns(spec.Netns)
	if err != nil {
		return Port{}, false, err
	}
	defer ns.close()
	switch o := s.doors.sockets.look(""); {
	case !o.connected:
		return Port{}, false, disconnected(errors.New("no connection"), "create")
	case !o.bridge:
		return Port{}, false, bridgeMissing()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := &making{
		doors: &s.doors,
		port: Port{
			Spec: spec, State: Creating, MAC: spec.MAC, Addresses: spec.Addresses,
			Gateways: spec.Gateways, Routes: spec.Routes, MTU: spec.MTU, Created: time.Now(),
		},
		wait: req.Wait, ns: ns, netns: ns.id, fault: s.fault,
	}
	if spec.Kind == Veth {
		m.port.Kind, m.port.HostInterface = Veth, spec.Key.hostName()
	}
	e := &entry{port: m.port, netns: ns.id, busy: make(chan struct{}), cancel: cancel}
	m.publish = func(p Port) { s.publish(e, p) }

	s.mu.Lock()
	if s.entries[spec.Key] != nil {
		s.mu.Unlock()
		return Port{}, true, nil
	}
	if err := s.admit(spec, ns.id); err != nil {
		s.mu.Unlock()
		return Port{}, false, err
	}
	s.entries[spec.Key] = e
	s.mu.Unlock()

	err = s.doors.kernel.free(ns, spec.Key.Ifname)
	if err == nil && req.ValidateOnly {
		err = m.validate(ctx)
	}
	if err != nil || req.ValidateOnly {
		s.end(e, true)
		return Port{Spec: spec}, false, err
	}
	err, unfinished := m.make(ctx, steps())
	switch {
	case unfinished != nil:
		s.fail(e, unfinished)
	case err != nil:
		s.end(e, true)
	default:
		s.publish(e, m.port)
		s.end(e, false)
		s.follow(named(m.port.HostInterface)) // what happened while it was still being made
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.port, false, err
}

// admit refuses a port that would get in another's way. The caller holds mu.
func (s *Service) admit(spec Spec, ns netnsID) error {
	if len(s.entries) >= maxPorts {
		return reason.Errorf(reason.TooManyPorts, "ports create: there are %d already", len(s.entries))
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.entries), Key.Compare) {
		e := s.entries[k]
		refuse := func(r reason.Reason, what string) error {
			return reason.Errorf(r, "ports create %s: %s of port %s", spec.Key, what, k).With("port", k.String())
		}
		switch o := e.port; {
		case e.netns == ns && k.Ifname == spec.Key.Ifname && leadsTo(o.Spec.Netns, ns):
			return refuse(reason.IfnameInUse, "the interface is that")
		case o.Spec.LogicalPort == spec.LogicalPort:
			return refuse(reason.LPortInUse, "the logical port is that")
		case spec.MAC != (MAC{}) && o.MAC == spec.MAC && k.Network == spec.Key.Network:
			return refuse(reason.MACInUse, "the MAC address is that")
		}
	}
	return nil
}

// replay answers a call for a port that exists.
func (s *Service) replay(ctx context.Context, p Port, until Wait) (Port, error) {
	after := p.Revision
	for {
		p, ok := s.feed.Find(p.Spec.Key)
		switch {
		case !ok || p.State == Deleting:
			return Port{}, errDeleted
		case p.State == Failed:
			return Port{}, reason.Errorf(p.Reason, "ports create %s: it exists, but %s", p.Spec.Key, p.Message)
		case p.State == Ready || until == UntilPlugged:
			return p, nil
		}
		events, _, err := s.feed.Next(ctx, after)
		if err != nil {
			return Port{}, reason.Errorf(reason.OVNNotInstalled, "ports create %s: it exists, but its flows are not installed: %w", p.Spec.Key, err)
		}
		if len(events) == 0 { // too much has happened meanwhile
			_, after = s.feed.All()
			continue
		}
		after = events[len(events)-1].Revision
	}
}

// Delete removes a port, see api.Ports.
func (s *Service) Delete(ctx context.Context, req DeleteRequest) (bool, error) {
	if err := s.Known(ctx); err != nil {
		return false, err
	}
	for {
		s.mu.Lock()
		e := s.entries[req.Key]
		switch {
		case req.ValidateOnly:
			s.mu.Unlock()
			return e != nil, nil
		case e == nil && !s.leftover(req.Key):
			s.mu.Unlock()
			return false, nil
		case e == nil:
			e = &entry{port: remains(req.Key), unfinished: true}
			s.entries[req.Key] = e
			return false, s.remove(ctx, e)
		case e.busy != nil:
			if e.cancel != nil {
				e.cancel(errDeleted)
			}
			if err := s.waitFor(ctx, e); err != nil {
				return false, err
			}
		default:
			return true, s.remove(ctx, e)
		}
	}
}

// leftover reports whether there is anything of a port of which there is no record.
func (s *Service) leftover(k Key) bool {
	exists, _ := s.doors.kernel.exists(k.hostName())
	return exists || s.doors.sockets.plugged(k)
}

// remains is a port of which there is no record: whatever it was made of, it had no function that anybody knows of.
func remains(k Key) Port {
	return Port{Spec: Spec{Key: k}, Kind: Veth, HostInterface: k.hostName()}
}

// remove unmakes a port. It is called with mu held and no operation under way, and gives mu up. It goes on when ctx ends.
func (s *Service) remove(ctx context.Context, e *entry) error {
	known := e.port.Spec.LogicalPort != ""
	e.busy, e.cancel, e.unfinished = make(chan struct{}), nil, true
	m := &making{doors: &s.doors, port: e.port, netns: e.netns, fault: s.fault}
	m.publish = func(p Port) { s.publish(e, p) }
	m.port.State, m.port.Timeline, m.port.Reason, m.port.Message = Deleting, nil, "", ""
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.unmakeTime())
	defer cancel()
	if known {
		if err := m.timed(condemn, m.condemn); err != nil { // a full disk is no reason to keep a port
			s.log.Warn("removal not journalled", "port", e.port.Spec.Key.String(), "err", err)
		}
	}
	if err := m.unmake(ctx, steps()); err != nil {
		s.fail(e, err)
		return err
	}
	s.end(e, true)
	return nil
}

// publish says how a port is while an operation is under way.
func (s *Service) publish(e *entry, p Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.port = s.feed.Put(p)
}

// end ends an operation; with forget the port does not exist any more.
func (s *Service) end(e *entry, forget bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if forget {
		delete(s.entries, e.port.Spec.Key)
		s.feed.Remove(e.port.Spec.Key)
	}
	close(e.busy)
	e.busy, e.cancel = nil, nil
}

// fail ends an operation that left something behind.
func (s *Service) fail(e *entry, err error) {
	s.log.Warn("port not removed", "port", e.port.Spec.Key.String(), "reason", reason.Of(err), "err", err)
	s.mu.Lock()
	e.unfinished = true
	p := e.port
	p.State, p.Reason, p.Message = Failed, reason.Of(err), fmt.Sprintf("it cannot be removed: %v", err)
	e.port = s.feed.Put(p)
	s.mu.Unlock()
	s.end(e, false)
	select {
	case s.failed <- struct{}{}:
	default:
	}
}

// Check compares a port with what there is, see api.Ports.
func (s *Service) Check(ctx context.Context, req CheckRequest) ([]Problem, error) {
	if err := s.Known(ctx); err != nil {
		return nil, err
	}
	p, ok := s.feed.Find(req.Key)
	if !ok {
		return nil, reason.Errorf(reason.PortNotFound, "ports check %s: there is no such port", req.Key)
	}
	switch p.State {
	case Creating:
		return nil, nil
	case Deleting:
		return []Problem{{reason.PortBusy, "the port is being removed"}}, nil
	case Failed:
		return []Problem{{p.Reason, p.Message}}, nil
	case Plugged, Ready:
	}
	s.mu.Lock()
	var id netnsID
	var missing Problem
	if e := s.entries[req.Key]; e != nil {
		id, missing = e.netns, s.missing(e)
	}
	s.mu.Unlock()
	path, addresses := p.Spec.Netns, p.Addresses
	if req.Netns != "" {
		path = req.Netns
	}
	if len(req.Addresses) > 0 {
		addresses = req.Addresses
	}
	ns, err := openNetns(path)
	if err != nil {
		return []Problem{{reason.Of(err), err.Error()}}, nil
	}
	defer ns.close()
	if ns.id != id {
		return []Problem{{reason.NetnsInvalid, path + " is another network namespace than the port's"}}, nil
	}
	found, err := s.doors.kernel.check(ns, p, addresses)
	if err != nil {
		return nil, err
	}
	if p.Function != nil && missing == (Problem{}) {
		missing, err = s.doors.kernel.checkRepresentor(p.Function.Representor)
		if err != nil {
			return nil, err
		}
	}
	if p.Function != nil && missing == (Problem{}) {
		found = append(found, s.doors.verify(ctx, p)...)
	}
	if missing != (Problem{}) {
		found = append(found, missing)
	}
	if o := s.doors.sockets.look(p.HostInterface); o.connected {
		if state, why, message := standing(Problem{}, o.socket, p.Spec); state == Failed {
			found = append(found, Problem{why, message})
		}
	}
	return found, nil
}
