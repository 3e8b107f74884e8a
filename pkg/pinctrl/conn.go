package pinctrl

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// Responder receives the packets of one bridge on a connection of its own, so that a large bundle of flows on another
// does not hold them up, and sends the answers.
type Responder struct {
	log *slog.Logger

	mu   sync.Mutex // guards path
	path string
	work chan struct{} // path has changed

	answered, refused atomic.Uint64

	// Of the loop in Run alone.
	logged, errors, complained limiter
}

// logsPerSecond is how many entries of ACLs are logged in a second. Who wants fewer gives the ACL a meter: then Open
// vSwitch sends up no others.
const logsPerSecond = 500

// errorsPerSecond is how many ICMP errors, resets and aborts are sent in a second: RFC 1812, section 4.3.2.8, and RFC 4443,
// section 2.4 (f), want a limit. It is that of Linux, icmp_msgs_per_sec.
const errorsPerSecond = 1000

// NewResponder returns a Responder without a bridge: SetPath gives it one.
func NewResponder(log *slog.Logger) *Responder {
	return &Responder{
		log: log, work: make(chan struct{}, 1),
		logged:     limiter{most: logsPerSecond, per: time.Second},
		errors:     limiter{most: errorsPerSecond, per: time.Second},
		complained: limiter{most: 1, per: time.Minute},
	}
}

// SetPath says where the bridge's management socket is. The empty path is no bridge.
func (r *Responder) SetPath(path string) {
	r.mu.Lock()
	changed := r.path != path
	r.path = path
	r.mu.Unlock()
	if changed {
		select {
		case r.work <- struct{}{}:
		default:
		}
	}
}

func (r *Responder) bridge() (path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.path
}

// Counts returns how many packets have been answered or logged, and how many could not be. Those that must not be answered
// count as neither.
func (r *Responder) Counts() (answered, refused uint64) { return r.answered.Load(), r.refused.Load() }

// Reconnection to a socket on the same machine: the pause doubles from the first to the last of these.
const (
	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second
)

// Run connects and reconnects until ctx ends, and then returns nil.
func (r *Responder) Run(ctx context.Context) error {
	backoff := minBackoff
	for ctx.Err() == nil {
		path := r.bridge()
		if path == "" {
			select {
			case <-ctx.Done():
			case <-r.work:
			}
			continue
		}
		began := time.Now()
		err := r.serve(ctx, path)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			backoff = minBackoff
			continue
		}
		if time.Since(began) > maxBackoff {
			r.log.Warn("packet-in connection ended", "path", path, "err", err)
			backoff = minBackoff
		}
		pause := time.NewTimer(backoff)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

func (r *Responder) serve(ctx context.Context, path string) error {
	conn, err := openflow.Dial(ctx, path)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetPacketInFormat(ctx, openflow.PacketInNicira2); err != nil {
		return err
	}
	if err := conn.SetMissSendLen(ctx, 0xffff); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Done():
			return conn.Err()
		case <-r.work:
			if r.bridge() != path {
				return nil // it has moved
			}
		case pin := <-conn.PacketIns():
			err := r.handle(ctx, conn, pin)
			if errors.Is(err, ErrSilence) {
				continue
			}
			if err != nil {
				r.refused.Add(1)
				if r.complained.allow(time.Now()) {
					r.log.Warn("packet-in not answered", "err", err, "refused", r.refused.Load())
				}
				continue
			}
			r.answered.Add(1)
		}
	}
}

// handle does what pin asks for.
func (r *Responder) handle(ctx context.Context, conn *openflow.Conn, pin openflow.PacketIn) error {
	if IsLog(pin) {
		return r.write(pin)
	}
	out, err := Answer(pin)
	if err != nil {
		return err
	}
	if op := opcode(pin.UserData); op != compile.OpNDNA && op != compile.OpNDNARouter && !r.errors.allow(time.Now()) {
		return ErrSilence
	}
	return conn.PacketOut(ctx, portController, out.Actions, out.Packet)
}

// write writes the entry that pin asks for into the log.
func (r *Responder) write(pin openflow.PacketIn) error {
	left := r.logged.over
	if !r.logged.allow(time.Now()) {
		return nil
	}
	if left > 0 {
		r.log.Warn("acl log incomplete", "left_out", left)
	}
	e, err := Log(pin)
	if err != nil {
		return err
	}
	r.log.Info("acl log", "name", e.Name, "verdict", e.Verdict, "severity", e.Severity, "direction", e.Direction, "flow", e.Flow)
	return nil
}

// A limiter allows so many things in each period of time. over counts those that it has not allowed since it last allowed
// one.
type limiter struct {
	most int
	per  time.Duration

	began time.Time
	used  int
	over  uint64
}

func (l *limiter) allow(now time.Time) bool {
	if now.Sub(l.began) >= l.per {
		l.began, l.used = now, 0
	}
	if l.used >= l.most {
		l.over++
		return false
	}
	l.used++
	l.over = 0
	return true
}

// portController is OFPP_CONTROLLER in 16 bits.
const portController = 0xfffd
