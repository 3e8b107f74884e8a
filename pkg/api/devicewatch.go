package api

import (
	"cmp"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/offloadd/offloadd/pkg/device"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A deviceFeed turns snapshots into changes. It remembers when each thing last changed, not how: a reader that is slow, or resumes, gets
// what each is like now. Only what vanished can be forgotten.
type deviceFeed struct {
	devices Devices
	epoch   string // distinguishes the revisions of this process from those of another
	keep    int    // how many things that vanished are remembered at least

	mu        sync.Mutex // guards what follows
	revision  uint64     // of the last snapshot
	things    map[string]*thing
	vanished  []*thing // ordered by revision
	forgotten uint64   // what vanished up to this revision is not known any more
}

// A thing is a device, a function or a pool.
type thing struct {
	key      string
	message  *offloadv1.WatchDevicesResponse // without type and token
	revision uint64                          // of its last change
	gone     bool
}

// feedKeeps is how many things that vanished are remembered: all the functions of a large node, some times over.
const feedKeeps = 8192

func newDeviceFeed(d Devices) *deviceFeed {
	return &deviceFeed{devices: d, epoch: rand.Text(), keep: feedKeeps, things: map[string]*thing{}}
}

// catchUp takes in what has changed, and returns what is closed at the next change.
func (f *deviceFeed) catchUp() <-chan struct{} {
	s := f.devices.Snapshot()
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.Revision <= f.revision {
		return s.Changed // closed, if somebody else has taken in a newer one
	}
	f.revision = s.Revision
	here := make(map[string]bool, len(s.Devices)+len(s.Functions)+len(s.Pools))
	put := func(key string, m *offloadv1.WatchDevicesResponse) {
		here[key] = true
		old := f.things[key]
		if old != nil && proto.Equal(old.message, m) {
			return
		}
		if old == nil {
			f.vanished = slices.DeleteFunc(f.vanished, func(t *thing) bool { return t.key == key })
		}
		f.things[key] = &thing{key: key, message: m, revision: s.Revision}
	}
	for _, d := range s.Devices {
		put("device "+d.Handle.String(), &offloadv1.WatchDevicesResponse{Item: &offloadv1.WatchDevicesResponse_Device{Device: deviceMessage(d)}})
	}
	for _, fn := range s.Functions {
		put("function "+functionKey(fn), &offloadv1.WatchDevicesResponse{Item: &offloadv1.WatchDevicesResponse_Function{Function: functionStatusMessage(fn)}})
	}
	for _, p := range s.Pools {
		put("pool "+p.Name, &offloadv1.WatchDevicesResponse{Item: &offloadv1.WatchDevicesResponse_Pool{Pool: f.pool(p)}})
	}
	var gone []*thing
	for key, t := range f.things {
		if !here[key] {
			delete(f.things, key)
			gone = append(gone, &thing{key: key, message: t.message, revision: s.Revision, gone: true})
		}
	}
	f.vanished = append(f.vanished, gone...)
	if n := len(f.vanished) - f.keep; n > f.keep { // amortized
		f.forgotten = f.vanished[n-1].revision
		f.vanished = slices.Clone(f.vanished[n:])
	}
	return s.Changed
}

func (f *deviceFeed) pool(p device.PoolStatus) *offloadv1.Pool {
	return poolMessage(p, f.devices.Resource(p.Name))
}

// since returns what has changed after a revision, or with 0 everything that there is, and up to which revision that is. It is false if
// something that vanished since is not known any more.
func (f *deviceFeed) since(revision uint64) (changed []*thing, upTo uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if revision != 0 && revision < f.forgotten {
		return nil, f.revision, false
	}
	for _, t := range f.things {
		if t.revision > revision {
			changed = append(changed, t)
		}
	}
	if revision != 0 {
		for _, t := range f.vanished {
			if t.revision > revision {
				changed = append(changed, t)
			}
		}
		slices.SortFunc(changed, func(a, b *thing) int {
			return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.key, b.key))
		})
	} else {
		slices.SortFunc(changed, func(a, b *thing) int { return cmp.Compare(a.key, b.key) })
	}
	return changed, f.revision, true
}

// token names a revision, also across restarts of the daemon.
func (f *deviceFeed) token(revision uint64) string {
	return f.epoch + "." + strconv.FormatUint(revision, 10)
}

// parse returns the revision that a token of ours names.
func (f *deviceFeed) parse(token string) (uint64, bool) {
	digits, ok := strings.CutPrefix(token, f.epoch+".")
	if !ok {
		return 0, false
	}
	revision, err := strconv.ParseUint(digits, 10, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	return revision, err == nil && revision != 0 && revision <= f.revision
}

func (s *deviceService) WatchDevices(req *offloadv1.WatchDevicesRequest, stream offloadv1.DeviceService_WatchDevicesServer) error {
	ctx := stream.Context()
	changed := s.feed.catchUp()
	revision, ok := uint64(0), true
	if req.GetResumeToken() != "" {
		revision, ok = s.feed.parse(req.GetResumeToken())
	}
	alive := time.NewTimer(s.heartbeat)
	defer alive.Stop()
	for {
		var things []*thing
		var upTo uint64
		if ok {
			things, upTo, ok = s.feed.since(revision)
		}
		if !ok {
			if err := stream.Send(&offloadv1.WatchDevicesResponse{Type: offloadv1.EventType_EVENT_TYPE_LOST}); err != nil {
				return err
			}
			revision = 0
			things, upTo, ok = s.feed.since(0)
		}
		if err := s.tell(stream, things, revision == 0, upTo); err != nil {
			return err
		}
		if len(things) > 0 || revision == 0 {
			alive.Reset(s.heartbeat)
		}
		revision = upTo
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			changed = s.feed.catchUp()
		case <-alive.C:
			alive.Reset(s.heartbeat)
			err := stream.Send(&offloadv1.WatchDevicesResponse{Type: offloadv1.EventType_EVENT_TYPE_HEARTBEAT, ResumeToken: s.feed.token(revision)})
			if err != nil {
				return err
			}
		}
	}
}

// tell sends changes, or everything, up to a revision.
func (s *deviceService) tell(stream offloadv1.DeviceService_WatchDevicesServer, things []*thing, everything bool, upTo uint64) error {
	for i, t := range things {
		m := &offloadv1.WatchDevicesResponse{Type: offloadv1.EventType_EVENT_TYPE_CHANGED, Item: t.message.GetItem()}
		switch {
		case everything:
			m.Type = offloadv1.EventType_EVENT_TYPE_EXISTS
		case t.gone:
			m.Type = offloadv1.EventType_EVENT_TYPE_DELETED
		}
		if i == len(things)-1 && !everything {
			m.ResumeToken = s.feed.token(upTo)
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	if !everything {
		return nil
	}
	return stream.Send(&offloadv1.WatchDevicesResponse{Type: offloadv1.EventType_EVENT_TYPE_SYNCED, ResumeToken: s.feed.token(upTo)})
}
