package ports

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

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
	gone := make(chan string)
	wg.Go(func() { s.doors.kernel.watch(ctx, s.log, gone) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-s.doors.sockets.client.Updates():
			s.follow(s.doors.sockets.apply(u)...)
		case name := <-gone:
			if name == "" {
				s.follow(s.hostNames()...)
				continue
			}
			s.follow(name)
		}
	}
}

// retryTime is how long after it failed a removal is tried again, unless the database changes before.
const retryTime = 5 * time.Second

// tidy reconciles, and then removes again what could not be removed.
func (s *Service) tidy(ctx context.Context) {
	if s.doors.sockets.usable(ctx) != nil {
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

// reconcile compares the journal with Open vSwitch and the kernel. What was being made or removed is removed, as are ports that
// went away with their containers; of others that are not whole, people have to know.
func (s *Service) reconcile(ctx context.Context) {
	s.finish(ctx)
	s.mu.Lock()
	for _, k := range slices.SortedFunc(maps.Keys(s.entries), Key.Compare) {
		e := s.entries[k]
		if e.unfinished {
			continue
		}
		if why := s.vanished(e); why != "" {
			s.log.Info("port removed", "port", k.String(), "why", why)
			e.unfinished = true
			continue
		}
		e.port = s.feed.Put(e.port)
	}
	// Nothing else knows of these any more, and they lead nowhere.
	for name, key := range s.doors.sockets.ours() {
		k, err := parseKey(key)
		if err != nil || k.hostName() != name || s.entries[k] != nil {
			continue
		}
		if exists, err := s.doors.kernel.exists(name); err != nil || exists {
			continue
		}
		s.log.Info("port removed", "port", key, "why", "it has neither record nor link")
		s.entries[k] = &entry{port: Port{Spec: Spec{Key: k}, HostInterface: name}, unfinished: true}
	}
	s.mu.Unlock()
	s.finish(ctx)
	s.follow(s.hostNames()...)
}

// hostNames are the names of the ports' interfaces on the host.
func (s *Service) hostNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.entries))
	for _, e := range s.entries {
		names = append(names, e.port.HostInterface)
	}
	return names
}

// vanished says why a port went away, "" if it did not. A pair of veth devices goes away with the namespace of either.
func (s *Service) vanished(e *entry) string {
	exists, err := s.doors.kernel.exists(e.port.HostInterface)
	if err != nil || exists {
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

// follow tells the readers of the feed what has become of the ports with these interfaces on the host.
func (s *Service) follow(names ...string) {
	if len(names) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range slices.SortedFunc(maps.Keys(s.entries), Key.Compare) {
		e := s.entries[k]
		if e.busy != nil || e.unfinished || !slices.Contains(names, e.port.HostInterface) {
			continue
		}
		o := s.doors.sockets.look(e.port.HostInterface)
		if !o.connected {
			continue
		}
		p := e.port
		exists, err := s.doors.kernel.exists(p.HostInterface)
		p.State, p.Reason, p.Message = standing(exists || err != nil, o.socket, p.Spec)
		if p.OFPort = uint32(max(o.socket.OFPort, 0)); p.State == Failed {
			p.OFPort = 0
		}
		if p.State != e.port.State || p.Reason != e.port.Reason || p.Message != e.port.Message || p.OFPort != e.port.OFPort {
			e.port = s.feed.Put(p)
		}
	}
}

// standing is the state of a port that was made, judged by whether its link exists and how it is plugged in.
func standing(link bool, k socket, spec Spec) (State, reason.Reason, string) {
	switch {
	case !link:
		return Failed, reason.LinkMissing, "its link no longer exists"
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
	Where string // "link", "interface" or "journal"
	Name  string // of the link, the Interface or the port
	Cause string
}

// Audit compares journal, Open vSwitch and kernel, and returns what does not fit together, by place and name. Ports on which an
// operation is under way are left out. It changes nothing.
func (s *Service) Audit(ctx context.Context) ([]Leftover, error) {
	if err := s.usable(ctx); err != nil {
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
	known, busy := map[string]bool{}, map[string]bool{}
	for _, k := range slices.SortedFunc(maps.Keys(s.entries), Key.Compare) {
		e := s.entries[k]
		name := e.port.HostInterface
		known[name], busy[name] = true, e.busy != nil
		if e.busy != nil {
			continue
		}
		if e.unfinished {
			found = append(found, Leftover{"journal", k.String(), "it is to be removed: " + e.port.Message})
		}
		if !slices.Contains(links, name) {
			found = append(found, Leftover{"journal", k.String(), "its link " + name + " does not exist"})
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
	return found, nil
}
