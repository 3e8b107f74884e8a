package ports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/reason"
)

// RunDatabase keeps the connection to the local database until ctx ends. Run needs it.
func (s *Service) RunDatabase(ctx context.Context) error { return s.doors.sockets.client.Run(ctx) }

// Run finds out what has become of the ports in the journal, then follows them, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.doors.journal.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.tidy(ctx) })
	events := make(chan linkEvent)
	wg.Go(func() { s.doors.kernel.watch(ctx, s.log, events) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-s.doors.sockets.client.Updates():
			s.follow(named(s.doors.sockets.apply(u)...))
		case e := <-events:
			switch {
			case e.gone != "":
				s.follow(named(e.gone))
			case e.device != "":
				s.look(madeOf(e.device))
			default:
				s.look(all)
			}
		}
	}
}

// retryTime is how long after it failed a removal is tried again, unless the database changes before.
const retryTime = 5 * time.Second

// tidy reconciles, and then removes again what could not be removed.
func (s *Service) tidy(ctx context.Context) {
	if s.doors.sockets.usable(ctx) != nil || !s.claim(ctx) {
		return
	}
	s.reconcile(ctx)
	close(s.ready)
	var retry <-chan time.Time
	for again := true; ; {
		if again && s.finish(ctx) > 0 {
			retry = time.After(retryTime)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.failed: // what made it fail is most likely still so
			retry, again = time.After(retryTime), false
		case <-s.doors.sockets.reconnected:
			again = true
		case <-retry:
			again = true
		}
	}
}

// finish tries to remove what is to be removed, and returns how many ports are left of it.
func (s *Service) finish(ctx context.Context) (left int) {
	for {
		s.mu.Lock()
		e := s.next(func(e *entry) bool { return e.unfinished && e.busy == nil && !e.tried })
		if e == nil {
			for _, e := range s.entries {
				if e.unfinished {
					left++
				}
				e.tried = false
			}
			s.mu.Unlock()
			return left
		}
		e.tried = true
		_ = s.remove(ctx, e) // it has been logged, and the port says it
	}
}

// next returns the entry with the lowest key that is like that. The caller holds mu.
func (s *Service) next(like func(*entry) bool) *entry {
	for _, k := range slices.SortedFunc(maps.Keys(s.entries), Key.Compare) {
		if e := s.entries[k]; like(e) {
			return e
		}
	}
	return nil
}

// claim tells whose functions are which, and waits until they have been found, so that what is released is restored. It reports false
// if ctx ends before.
func (s *Service) claim(ctx context.Context) bool {
	if s.doors.devices == nil {
		return true
	}
	s.mu.Lock()
	users := slices.Collect(maps.Values(s.entries))
	users = slices.DeleteFunc(users, func(e *entry) bool { return e.port.Function == nil })
	// Of two ports with one function the later use is the true one: the earlier is over, but its record could not be removed.
	slices.SortFunc(users, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.port.Function.Generation, a.port.Function.Generation), a.port.Spec.Key.Compare(b.port.Spec.Key))
	})
	awaited := map[string]device.Function{}
	for _, e := range users {
		key := e.port.Spec.Key.String()
		if err := s.doors.devices.Claim(*e.port.Function, key); err != nil {
			s.log.Warn("function not claimed", "port", key, "function", e.port.Function.Name(), "reason", reason.Of(err), "err", err)
			continue
		}
		awaited[key] = *e.port.Function
	}
	s.mu.Unlock()
	s.doors.devices.Reconciled()
	late := time.After(findTime)
	for {
		changed := s.doors.devices.Snapshot().Changed
		maps.DeleteFunc(awaited, func(key string, f device.Function) bool {
			is, ok := s.doors.devices.Lookup(key)
			return !ok || is.State != device.Gone || !present(f)
		})
		if len(awaited) == 0 {
			return true
		}
		select {
		case <-changed:
		case <-late:
			s.log.Warn("functions not found", "ports", slices.Sorted(maps.Keys(awaited)))
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// findTime is how long it may take at the start to find the functions that ports have, and whose devices exist.
const findTime = 10 * time.Second

// reconcile compares the journal with Open vSwitch, the kernel and the functions. What was being made or removed is removed, as are
// ports that went away with their containers; of others that are not whole, people have to know.
func (s *Service) reconcile(ctx context.Context) {
	s.finish(ctx)
	home, err := s.doors.kernel.home()
	if err != nil {
		s.log.Warn("links not listed", "err", err)
	}
	s.mu.Lock()
	for _, k := range slices.SortedFunc(maps.Keys(s.entries), Key.Compare) {
		e := s.entries[k]
		if e.unfinished {
			continue
		}
		if why := s.vanished(e, home); why != "" {
			s.log.Info("port removed", "port", k.String(), "why", why)
			e.unfinished = true
			continue
		}
		e.port = s.feed.Put(e.port)
	}
	// Nothing else knows of these any more, and they lead nowhere.
	for name, key := range s.doors.sockets.ours() {
		k, err := parseKey(key)
		if err != nil || s.entries[k] != nil || s.leads(name, k, home) {
			continue
		}
		s.log.Info("port removed", "port", key, "why", "it has neither record nor link")
		s.entries[k] = &entry{port: remains(k), unfinished: true}
	}
	s.mu.Unlock()
	s.finish(ctx)
	s.look(all)
}

// leads reports whether something may still be reached by an Interface with our mark: a pair of veths is there, or a function whose
// netdev is not at home.
func (s *Service) leads(name string, k Key, home map[string]bool) bool {
	if k.hostName() != name && s.doors.devices != nil {
		for _, f := range s.doors.devices.Snapshot().Functions {
			if f.Representor.Name == name {
				return !home[f.Device]
			}
		}
	}
	exists, err := s.doors.kernel.exists(name)
	return err != nil || exists
}

// vanished says why a port went away, "" if it did not. A pair of veth devices goes away with the namespace of either; the netdev of a
// function comes back from it.
func (s *Service) vanished(e *entry, home map[string]bool) string {
	if f := e.port.Function; f != nil {
		if present(*f) && !home[f.Device] {
			return ""
		}
	} else if exists, err := s.doors.kernel.exists(e.port.HostInterface); err != nil || exists {
		return ""
	}
	ns, err := openNetns(e.port.Spec.Netns)
	if err != nil {
		return err.Error()
	}
	defer ns.close()
	if ns.id != e.netns {
		return "its network namespace is another one now"
	}
	return ""
}

// all, named and madeOf say which ports are meant.
func all(Port) bool { return true }

func named(interfaces ...string) func(Port) bool {
	return func(p Port) bool { return slices.Contains(interfaces, p.HostInterface) }
}

func madeOf(dev string) func(Port) bool {
	return func(p Port) bool { return p.Function != nil && p.Function.Device == dev }
}

// meant lists the entries that are at rest and meant, in the order of their keys. The caller holds mu.
func (s *Service) meant(which func(Port) bool) []*entry {
	var found []*entry
	for _, e := range s.entries {
		if e.busy == nil && !e.unfinished && which(e.port) {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *entry) int { return a.port.Spec.Key.Compare(b.port.Spec.Key) })
	return found
}

// look finds out whether netdevs of functions are in the host's network namespace, and follows.
func (s *Service) look(which func(Port) bool) {
	s.mu.Lock()
	functions := slices.ContainsFunc(s.meant(which), func(e *entry) bool { return e.port.Function != nil })
	s.mu.Unlock()
	if functions {
		home, err := s.doors.kernel.home()
		if err != nil {
			s.log.Warn("links not listed", "err", err)
		}
		s.mu.Lock()
		for _, e := range s.meant(which) {
			if f := e.port.Function; f != nil && err == nil {
				e.strayed = home[f.Device]
			}
		}
		s.mu.Unlock()
	}
	s.follow(which)
}

// follow tells the readers of the feed what has become of ports.
func (s *Service) follow(which func(Port) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.meant(which) {
		o := s.doors.sockets.look(e.port.HostInterface)
		if !o.connected {
			continue
		}
		p := e.port
		p.State, p.Reason, p.Message = standing(s.missing(e), o.socket, p.Spec)
		if p.OFPort = uint32(max(o.socket.OFPort, 0)); p.State == Failed {
			p.OFPort = 0
		}
		if p.State != e.port.State || p.Reason != e.port.Reason || p.Message != e.port.Message || p.OFPort != e.port.OFPort {
			e.port = s.feed.Put(p)
		}
	}
}

// missing says what is missing of a port's links; the zero Problem if they are there. The caller holds mu.
func (s *Service) missing(e *entry) Problem {
	f := e.port.Function
	if f == nil {
		if exists, err := s.doors.kernel.exists(e.port.HostInterface); err == nil && !exists {
			return Problem{reason.LinkMissing, "its link " + e.port.HostInterface + " no longer exists"}
		}
		return Problem{}
	}
	stands, err := s.doors.kernel.stands(f.Representor)
	switch {
	case !present(*f):
		return Problem{reason.DeviceGone, fmt.Sprintf("its function %s, device %s, no longer exists", f.Name(), f.Device)}
	case err == nil && !stands:
		return Problem{reason.DeviceGone, fmt.Sprintf("the representor %s of its function %s no longer exists", f.Representor.Name, f.Name())}
	case e.strayed:
		return Problem{reason.LinkMissing, fmt.Sprintf("the netdev of its function %s is in the host's network namespace, not in the container", f.Name())}
	default:
		return Problem{}
	}
}

// standing is the state of a port that was made, judged by what is missing of its links and how it is plugged in.
func standing(missing Problem, k socket, spec Spec) (State, reason.Reason, string) {
	switch {
	case missing != Problem{}:
		return Failed, missing.Reason, missing.Message
	case !k.Exists:
		return Failed, reason.PortUnplugged, "it is no longer in the integration bridge"
	case k.LPort != spec.LogicalPort:
		return Failed, reason.PortUnplugged, fmt.Sprintf("its Interface is there as logical port %q, not %q", k.LPort, spec.LogicalPort)
	case k.OFPort < 0 || k.Error != "":
		return Failed, reason.LinkMissing, "Open vSwitch: " + k.Error
	case k.Installed:
		return Ready, "", ""
	default:
		return Plugged, reason.OVNNotInstalled, "its flows are not installed"
	}
}

// A Leftover is something of ours that does not belong to a port, or a port that is not whole.
type Leftover struct {
	Where string // "link", "interface", "journal" or "function"
	Name  string // of the link, the Interface, the port or the function
	Cause string
}

// Audit compares journal, Open vSwitch and kernel, and returns what does not fit together, by place and name. Ports on which an
// operation is under way are left out. It changes nothing.
func (s *Service) Audit(ctx context.Context) ([]Leftover, error) {
	if err := s.Known(ctx); err != nil {
		return nil, err
	}
	links, err := s.doors.kernel.ours()
	if err != nil {
		return nil, err
	}
	if !s.doors.sockets.look("").connected {
		return nil, disconnected(errors.New("no connection"), "audit")
	}
	plugged := s.doors.sockets.ours()
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Leftover
	known, owners := map[string]bool{}, map[string]bool{}
	for _, k := range slices.SortedFunc(maps.Keys(s.entries), Key.Compare) {
		e := s.entries[k]
		name := e.port.HostInterface
		known[name], owners[k.String()] = true, true
		if e.busy != nil {
			continue
		}
		if e.unfinished {
			found = append(found, Leftover{"journal", k.String(), "it is to be removed: " + e.port.Message})
		}
		if missing := s.missing(e); missing != (Problem{}) {
			found = append(found, Leftover{"journal", k.String(), missing.Message})
		}
		if _, ok := plugged[name]; !ok {
			found = append(found, Leftover{"journal", k.String(), "its Interface " + name + " does not exist"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(plugged)) {
		if !known[name] {
			found = append(found, Leftover{"interface", name, "of no port; its mark says " + plugged[name]})
		}
	}
	for _, name := range links {
		if !known[name] {
			found = append(found, Leftover{"link", name, "of no port"})
		}
	}
	return append(found, s.strays(owners)...), nil
}

// strays are functions that have an owner that is no port, and those that nobody can have.
func (s *Service) strays(owners map[string]bool) (found []Leftover) {
	if s.doors.devices == nil {
		return nil
	}
	for _, f := range s.doors.devices.Snapshot().Functions {
		switch {
		case f.Owner != "" && !owners[f.Owner] && isKey(f.Owner): // what is lent otherwise is not a port's
			found = append(found, Leftover{"function", f.Name(), "its owner " + f.Owner + " is no port"})
		case f.State == device.Quarantined:
			found = append(found, Leftover{"function", f.Name(), fmt.Sprintf("quarantined: %s: %s", f.Reason, f.Message)})
		}
	}
	return found
}
