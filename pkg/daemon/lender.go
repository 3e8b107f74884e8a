package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/offloadd/offloadd/internal/statefile"
	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/tc"
)

const (
	// lenderPrefix begins the names under which a lender has functions. No port's key looks like that.
	lenderPrefix = "probe:"
	// lendTime is how long a function may take to be made, and to be restored.
	lendTime = time.Minute
	// maxLent bounds the file of what is lent, in bytes.
	maxLent = 1 << 20
)

// A lender lends functions of the node's pools to the probe. What is lent is in a file, so that the next daemon takes back what a daemon has lent
// that was killed.
type lender struct {
	devices *device.Inventory
	file    string
	log     *slog.Logger
	ended   chan struct{} // closed when the inventory ends too: from then on nothing is restored

	mu   sync.Mutex                 // guards what follows, and the file
	lent map[string]device.Function // by owner
	last int                        // number of the last owner
}

// newLender claims what an earlier daemon has lent. It is to be called before the inventory is told that all have claimed what they have.
func newLender(devices *device.Inventory, file string, log *slog.Logger) *lender {
	l := &lender{devices: devices, file: file, log: log, ended: make(chan struct{}), lent: map[string]device.Function{}}
	if err := l.read(); err != nil {
		log.Warn("functions that were lent to the probe are not known", "err", err) // they are verified as those that nobody has
	}
	for owner, f := range l.lent {
		if err := devices.Claim(f, owner); err != nil {
			log.Warn("function not claimed", "owner", owner, "function", f.Name(), "err", err)
			delete(l.lent, owner)
		}
		n := 0
		if _, err := fmt.Sscanf(owner, lenderPrefix+"%d", &n); err == nil {
			l.last = max(l.last, n)
		}
	}
	return l
}

// Lend is path.Functions.
func (l *lender) Lend(ctx context.Context, kind string) (fs [2]path.Function, err error) {
	ctx, cancel := context.WithTimeout(ctx, lendTime)
	defer cancel()
	var owners []string
	defer func() {
		if err == nil {
			return
		}
		for _, o := range owners {
			err = errors.Join(err, l.takeBack(context.WithoutCancel(ctx), o))
		}
	}()
	request := device.Request{Kinds: []device.Kind{device.Kind(kind)}}
	facts := map[string]string{}
	for i := range fs {
		owner, f, err := l.acquire(ctx, request)
		if err != nil {
			return fs, err
		}
		owners = append(owners, owner)
		if i == 0 {
			request.Pool = f.Pool // which is of one NIC
			facts = nicFacts(ctx, f.Handle.Handle)
		}
		own := maps.Clone(facts)
		own["function"] = f.Name()
		fs[i] = path.Function{
			Netdev: f.Netdev.Name, Representor: f.Representor.Name, Facts: own,
			Return: func() error { return l.takeBack(context.Background(), owner) },
		}
	}
	return fs, nil
}

// acquire gets a function, and notes it.
func (l *lender) acquire(ctx context.Context, r device.Request) (string, device.Function, error) {
	l.mu.Lock()
	l.last++
	r.Owner = fmt.Sprintf("%s%d", lenderPrefix, l.last)
	l.mu.Unlock()
	f, err := l.devices.Acquire(ctx, r)
	if err != nil {
		return "", f, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lent[r.Owner] = f
	if err := l.write(); err != nil {
		delete(l.lent, r.Owner)
		return "", f, errors.Join(err, l.devices.Release(ctx, f, r.Owner))
	}
	return r.Owner, f, nil
}

// takeBack restores a function that was lent, and takes away the filters of its representor. When the daemon ends it does not wait: the next one
// does the rest.
func (l *lender) takeBack(ctx context.Context, owner string) error {
	l.mu.Lock()
	f, ok := l.lent[owner]
	l.mu.Unlock()
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lendTime)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-l.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if now, ok := l.devices.Lookup(owner); ok {
		f.Representor = now.Representor // it may be another one than before
	}
	err := errors.Join(withoutFilters(ctx, f.Representor.Index), l.devices.Release(ctx, f, owner))
	if err != nil {
		return fmt.Errorf("probe: function %s: %w", f.Name(), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.lent, owner)
	return l.write()
}

// withoutFilters takes a device's clsact qdisc away.
func withoutFilters(ctx context.Context, ifindex int) (err error) {
	if ifindex == 0 {
		return nil
	}
	conn, err := tc.Dial(tc.DialOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.DeleteClsact(ctx, ifindex)
}

// Recover takes back what an earlier daemon has lent, of which the paths are removed.
func (l *lender) Recover(ctx context.Context) {
	l.mu.Lock()
	owners := slices.Sorted(maps.Keys(l.lent))
	l.mu.Unlock()
	for _, owner := range owners {
		l.await(ctx, owner)
		if err := l.takeBack(ctx, owner); err != nil && ctx.Err() == nil {
			l.log.Warn("function that was lent to a killed probe not taken back", "owner", owner, "err", err)
		}
	}
}

// findTime is how long it may take at the start to find a function.
const findTime = 10 * time.Second

// await waits until a function that was claimed has been found: before, nothing of it could be restored.
func (l *lender) await(ctx context.Context, owner string) {
	late := time.After(findTime)
	for {
		changed := l.devices.Snapshot().Changed
		if f, ok := l.devices.Lookup(owner); !ok || f.State != device.Gone {
			return
		}
		select {
		case <-changed:
		case <-late:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (l *lender) read() error {
	var lent map[string]device.Function
	found, err := statefile.Read(l.file, maxLent, &lent)
	if err != nil || !found {
		return err
	}
	if lent == nil {
		return fmt.Errorf("%s: it has no functions, not even none", l.file)
	}
	l.lent = lent
	return nil
}

// write replaces the file. The caller holds mu.
func (l *lender) write() error { return statefile.Write(l.file, l.lent) }

// nicFacts are what a NIC says of itself; nothing if it does not.
func nicFacts(ctx context.Context, h devlink.Handle) map[string]string {
	facts := map[string]string{"NIC": h.String()}
	conn, err := devlink.Dial(devlink.DialOptions{})
	if err != nil {
		return facts
	}
	defer func() { _ = conn.Close() }()
	info, err := conn.Info(ctx, h)
	if err != nil {
		return facts
	}
	facts["driver"] = info.Driver
	for _, v := range info.Running {
		facts["NIC "+v.Name] = v.Value
	}
	return facts
}
