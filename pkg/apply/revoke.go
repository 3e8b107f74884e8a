package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"
)

// statusHWOffload says that a NIC forwards the connection by itself (IPS_HW_OFFLOAD in nf_conntrack_common.h).
const statusHWOffload conntrack.Status = 1 << 15

// ctBlocked is the bit of mark and label by which OVN remembers that a connection is allowed no more; see ct_mark.blocked in
// ovn-northd(8).
const ctBlocked = 1

// A Revoker deletes connections that a policy has blocked after a NIC has taken them. The NIC remembers the mark that a connection
// had when it took it, and would go on with the replies; once the kernel's entry is gone, so is the NIC's, and the next packet begins a
// new connection, of which the policy decides.
type Revoker struct {
	log    *slog.Logger
	status conntrack.Status // any of these bits makes a connection one that is deleted
	zone   func(uint16) bool
	config *netlink.Config
	look   chan struct{}
}

// NewRevoker returns a Revoker for connections in zones for which zone is true. Run calls zone from another goroutine.
func NewRevoker(log *slog.Logger, zone func(uint16) bool) *Revoker {
	return &Revoker{log: log, status: statusHWOffload, zone: zone, look: make(chan struct{}, 1)}
}

// Look makes Run ask for all blocked connections. It never waits. The kernel reports no change of connections that began while nobody
// listened, as those that are older than the process (nf_ct_ecache_ext_add in nf_conntrack_ecache.c): after a change of policy
// somebody has to look.
func (r *Revoker) Look() {
	select {
	case r.look <- struct{}{}:
	default:
	}
}

const (
	revokerRetry = time.Second

	// revokerEvents is how many events may wait: each connection that begins, changes, or ends is one.
	revokerEvents = 4096

	// revokerBuffer is the size of the socket's buffer in bytes, in which events wait.
	revokerBuffer = 4 << 20
)

// Run works until ctx ends. It begins with the connections that are blocked already, and begins anew when events were lost.
func (r *Revoker) Run(ctx context.Context) error {
	for {
		err := r.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.log.Warn("connection tracker not watched", "err", err, "retry_in", revokerRetry)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(revokerRetry):
		}
	}
}

// session listens until something fails.
func (r *Revoker) session(ctx context.Context) (err error) {
	asks, err := conntrack.Dial(r.config)
	if err != nil {
		return fmt.Errorf("connection tracker: %w", err)
	}
	defer func() { err = errors.Join(err, asks.Close()) }()
	hears, err := conntrack.Dial(r.config)
	if err != nil {
		return fmt.Errorf("connection tracker: %w", err)
	}
	events := make(chan conntrack.Event, revokerEvents)
	failed, err := r.listen(hears, events)
	if err != nil {
		return errors.Join(err, hears.Close())
	}
	defer func() {
		closed := make(chan struct{})
		go func() {
			for { // the listener may be waiting for somebody to take what it has
				select {
				case <-events:
				case <-failed: //nolint:errcheck // the session has ended
				case <-closed:
					return
				}
			}
		}()
		err = errors.Join(err, hears.Close())
		close(closed)
	}()
	if err := r.all(asks); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("events of the connection tracker: %w", err)
		case <-r.look:
			if err := r.all(asks); err != nil {
				return err
			}
		case e := <-events:
			if e.Flow == nil {
				continue
			}
			if err := r.consider(asks, e.Flow); err != nil {
				return err
			}
		}
	}
}

// all considers the connections whose mark says that they are blocked. For labels the kernel has no such question.
func (r *Revoker) all(asks *conntrack.Conn) error {
	flows, err := asks.DumpFilter(conntrack.NewFilter().Mark(ctBlocked).MarkMask(ctBlocked), nil)
	if err != nil {
		return fmt.Errorf("connections that are blocked: %w", err)
	}
	for i := range flows {
		if err := r.consider(asks, &flows[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Revoker) listen(hears *conntrack.Conn, events chan<- conntrack.Event) (<-chan error, error) {
	if err := hears.SetReadBuffer(revokerBuffer); err != nil {
		return nil, fmt.Errorf("events of the connection tracker: %w", err)
	}
	failed, err := hears.Listen(events, 1, []netfilter.NetlinkGroup{netfilter.GroupCTUpdate})
	if err != nil {
		return nil, fmt.Errorf("events of the connection tracker: %w", err)
	}
	return failed, nil
}

// consider deletes a connection if it is blocked and a NIC has it.
func (r *Revoker) consider(asks *conntrack.Conn, f *conntrack.Flow) error {
	blocked := f.Mark&ctBlocked != 0 || len(f.Labels) > 0 && f.Labels[0]&ctBlocked != 0
	if !blocked || f.Status&r.status == 0 || !r.zone(f.Zone) {
		return nil
	}
	// If another one has its addresses by now, that one begins once more.
	err := asks.Delete(conntrack.Flow{Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete the connection %s -> %s in zone %d: %w", f.TupleOrig.IP.SourceAddress, f.TupleOrig.IP.DestinationAddress, f.Zone, err)
	}
	r.log.Debug("blocked connection deleted", "src", f.TupleOrig.IP.SourceAddress, "dst", f.TupleOrig.IP.DestinationAddress, "zone", f.Zone)
	return nil
}
