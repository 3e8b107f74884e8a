package ports

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Feed shows everybody what the ports are and how they change, and waits for nobody: a reader that is too slow learns
// that it missed something and starts anew. One goroutine writes, any number read.
type Feed struct {
	epoch string // distinguishes the revisions of this process from those of another

	mu       sync.Mutex
	ports    map[Key]Port
	revision uint64
	recent   []Event       // the last changes, with consecutive revisions up to revision
	keep     int           // how many of them at least
	changed  chan struct{} // closed at the next change
}

// An Event is a change of a port.
type Event struct {
	Revision uint64
	Port     Port // as it is, or as it last was
	Deleted  bool
}

// feedKeeps is how many changes a reader may be behind: a thousand ports through their steps.
const feedKeeps = 16384

// NewFeed returns a feed without ports.
func NewFeed() *Feed {
	return &Feed{
		epoch:   rand.Text(),
		ports:   map[Key]Port{},
		keep:    feedKeeps,
		changed: make(chan struct{}),
	}
}

// Put says that p exists and is like this, and returns it with its revision.
func (f *Feed) Put(p Port) Port {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.Revision = f.revision + 1
	f.ports[p.Spec.Key] = p
	f.append(Event{Port: p})
	return p
}

// Remove says that the port no longer exists. It does nothing if there is none.
func (f *Feed) Remove(k Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.ports[k]
	if !ok {
		return
	}
	delete(f.ports, k)
	p.Revision = f.revision + 1
	f.append(Event{Port: p, Deleted: true})
}

func (f *Feed) append(e Event) {
	f.revision++
	e.Revision = f.revision
	if len(f.recent) >= 2*f.keep {
		f.recent = slices.Clone(f.recent[len(f.recent)-f.keep:]) // amortized, and lets go of the old ones
	}
	f.recent = append(f.recent, e)
	close(f.changed)
	f.changed = make(chan struct{})
}

// Find returns a port.
func (f *Feed) Find(k Key) (Port, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.ports[k]
	return p, ok
}

// All returns all ports in the order of their keys, and the revision of which this is the state.
func (f *Feed) All() ([]Port, uint64) {
	f.mu.Lock()
	all := make([]Port, 0, len(f.ports))
	for _, p := range f.ports {
		all = append(all, p)
	}
	revision := f.revision
	f.mu.Unlock()
	slices.SortFunc(all, func(a, b Port) int { return a.Spec.Key.Compare(b.Spec.Key) })
	return all, revision
}

// Next waits until something has changed after a revision, and returns the changes in order; of several of a port only the
// last. If the feed no longer has them all, it returns none and how many there were: the reader starts anew with All.
// It returns ctx's error if that ends first.
func (f *Feed) Next(ctx context.Context, after uint64) (events []Event, lost uint64, err error) {
	for {
		f.mu.Lock()
		pending, changed := f.revision-min(after, f.revision), f.changed
		if pending > uint64(len(f.recent)) {
			f.mu.Unlock()
			return nil, pending, nil
		}
		events := slices.Clone(f.recent[uint64(len(f.recent))-pending:])
		f.mu.Unlock()
		if len(events) > 0 {
			return lastOfEach(events), 0, nil
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-changed:
		}
	}
}

// lastOfEach keeps the last event of each port, in order.
func lastOfEach(events []Event) []Event {
	seen := make(map[Key]struct{}, len(events))
	kept := len(events)
	for i, e := range slices.Backward(events) {
		if _, ok := seen[e.Port.Spec.Key]; ok {
			continue
		}
		seen[e.Port.Spec.Key] = struct{}{}
		kept--
		events[kept] = events[i]
	}
	return events[kept:]
}

// Token names a revision, also across restarts of the daemon.
func (f *Feed) Token(revision uint64) string {
	return f.epoch + "." + strconv.FormatUint(revision, 10)
}

// ErrForeignToken says that a token was not given by this feed: by one before a restart, most likely.
var ErrForeignToken = errors.New("ports feed: token of another feed")

// Revision returns the revision that a token names.
func (f *Feed) Revision(token string) (uint64, error) {
	digits, ok := strings.CutPrefix(token, f.epoch+".")
	if !ok {
		return 0, ErrForeignToken
	}
	revision, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, ErrForeignToken
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if revision > f.revision {
		return 0, ErrForeignToken
	}
	return revision, nil
}
