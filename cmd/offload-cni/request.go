package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/metadata"

	"github.com/offloadd/offloadd/pkg/api/client"
	"github.com/offloadd/offloadd/pkg/reason"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

const (
	// patience is how long the daemon may be away before a call fails: a restart takes less.
	patience = 5 * time.Second
	// firstWait and lastWait are those between two calls of a daemon that is away; each is twice the one before.
	firstWait = 20 * time.Millisecond
	lastWait  = 500 * time.Millisecond
)

// A request is what the runtime asks for.
type request struct {
	*skel.CmdArgs
	conf *config
	id   string // for the daemon's log
}

func newRequest(a *skel.CmdArgs, care strictness) (*request, error) {
	conf, err := parseConfig(a.StdinData, care)
	if err != nil {
		return nil, err
	}
	return &request{CmdArgs: a, conf: conf, id: crand.Text()}, nil
}

func (r *request) timeout() time.Duration { return min(time.Duration(r.conf.Timeout), maxTimeout) }

func (r *request) key() *offloadv1.PortKey {
	return &offloadv1.PortKey{Network: r.conf.Name, ContainerId: r.ContainerID, Ifname: r.IfName}
}

// traced passes on the trace context that the runtime put into the environment, as libcni does since 1.3.1.
func (r *request) traced(ctx context.Context) context.Context {
	for _, name := range []string{"TRACEPARENT", "TRACESTATE"} {
		v := os.Getenv(name)
		printable := !strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c > '~' })
		if v != "" && len(v) <= 512 && printable { // W3C Trace Context, section 3.3.1.5
			ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), v)
		}
	}
	return ctx
}

// call calls the daemon. While nobody answers, or one that is only just starting, it tries again for as long as patient
// says. A call that a restart cut off is repeated too: the daemon gives the same answer to the same request.
func (r *request) call(ctx context.Context, patient time.Duration, do func(context.Context, *grpc.ClientConn) error) error {
	conn, err := client.Dial(r.conf.Socket,
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstWait, Multiplier: 2, MaxDelay: lastWait},
			MinConnectTimeout: patience,
		}))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // whatever it says, nothing more is sent
	begin := time.Now()
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := client.Error(do(ctx, conn))
		if !away(reason.Of(err)) || time.Since(begin)+wait > patient {
			return err
		}
		timer := time.NewTimer(jitter(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		conn.ResetConnectBackoff()
	}
}

// away reports whether the daemon is being restarted, perhaps.
func away(r reason.Reason) bool {
	return slices.Contains([]reason.Reason{reason.DaemonUnreachable, reason.ShuttingDown, reason.NotReady}, r)
}

// jitter returns half to all of d, so that containers that failed together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2)
}

// cniError returns an error as the runtime wants it: the code and the remedy that the table of reasons has for it.
func cniError(err error) *types.Error {
	if e, ok := errors.AsType[*types.Error](err); ok {
		return e
	}
	why := reason.Of(err)
	entry, ok := reason.Find(why)
	if !ok { // of a newer daemon
		entry, _ = reason.Find(reason.Internal)
	}
	details := []string{string(why) + ": " + entry.Remedy}
	if e, ok := errors.AsType[*reason.Error](err); ok {
		for _, k := range slices.Sorted(maps.Keys(e.Metadata)) {
			details = append(details, fmt.Sprintf("%s=%q", k, e.Metadata[k]))
		}
	}
	return types.NewError(uint(entry.CNI), err.Error(), strings.Join(details, " "))
}

// all returns an error with code and details of the first, and the messages of all; nil if there is none.
func all(errs ...error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	first := *cniError(errs[0])
	for _, err := range errs[1:] {
		first.Msg += "\n" + cniError(err).Msg
	}
	return &first
}
