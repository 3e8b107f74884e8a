package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"google.golang.org/grpc"

	"github.com/offloadd/offloadd/integration/attach"
	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/api/client"
	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// A histogram is of durations, in microseconds, each exact to three digits.
type histogram struct{ *hdrhistogram.Histogram }

func newHistogram() *histogram {
	return &histogram{hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)}
}

// record adds a duration; one that is longer than ten minutes counts as that.
func (h *histogram) record(d time.Duration) {
	_ = h.RecordValue(min(d.Microseconds(), h.HighestTrackableValue())) // it fails for larger values only
}

func (h *histogram) quantile(q float64) time.Duration {
	return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond
}

// A row is of a call of cnitool as a whole, if step is "", or of what the daemon does meanwhile.
type row struct{ verb, step string }

// inDaemon is the row of the daemon's part of an ADD: from the call to the end of the last step.
const inDaemon = "in the daemon"

// A measure is what one way took under one load.
type measure struct {
	elapsed time.Duration // in which pods were attached and detached

	mu    sync.Mutex // guards what follows
	pods  int
	order []row
	rows  map[row]*histogram
}

func newMeasure() *measure { return &measure{rows: map[row]*histogram{}} }

func (m *measure) took(r row, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.rows[r]
	if h == nil {
		h = newHistogram()
		m.rows[r], m.order = h, append(m.order, r)
	}
	h.record(d)
}

func (m *measure) attached() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pods++
}

// rate is in pods per second.
func (m *measure) rate() float64 { return float64(m.pods) / m.elapsed.Seconds() }

// timeline adds the steps of a port's creation or removal. The last step of a removal has no end that anybody is told.
func (m *measure) timeline(verb string, st *offloadv1.PortStatus) {
	var end time.Time
	for _, s := range st.GetTimeline() {
		if s.GetDuration() == nil {
			continue
		}
		m.took(row{verb, s.GetName()}, s.GetDuration().AsDuration())
		end = s.GetStarted().AsTime().Add(s.GetDuration().AsDuration())
	}
	if verb == "ADD" && !end.IsZero() {
		m.took(row{verb, inDaemon}, end.Sub(st.GetCreated().AsTime()))
	}
}

// A watch is told of the ports of a daemon.
type watch struct {
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	events <-chan *offloadv1.WatchPortsResponse
	ended  <-chan error

	created map[string]*offloadv1.PortStatus // by the logical port, as it was last before its removal
}

// newWatch waits until the daemon answers.
func newWatch(ctx context.Context, n *lab.Node) (*watch, error) {
	conn, err := client.Dial(attach.Socket(n), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	events, ended := make(chan *offloadv1.WatchPortsResponse, 1024), make(chan error, 1)
	w := &watch{conn, cancel, events, ended, map[string]*offloadv1.PortStatus{}}
	stream, err := offloadv1.NewPortServiceClient(conn).WatchPorts(ctx, &offloadv1.WatchPortsRequest{})
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	synced := make(chan struct{})
	go func() { // ends with close
		for {
			e, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			switch e.GetType() { //nolint:exhaustive // the others tell what is not needed
			case offloadv1.EventType_EVENT_TYPE_SYNCED:
				close(synced)
			case offloadv1.EventType_EVENT_TYPE_CHANGED, offloadv1.EventType_EVENT_TYPE_DELETED:
				events <- e
			case offloadv1.EventType_EVENT_TYPE_LOST:
				ended <- errors.New("the watch was too slow")
				return
			}
		}
	}()
	select {
	case <-synced:
		return w, nil
	case err := <-ended:
		return nil, errors.Join(err, w.close())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), w.close())
	}
}

// next waits until a port is removed, and returns what it was like when it had been made, nil if the watch was not told in time, and in the
// end.
func (w *watch) next(ctx context.Context) (created, removed *offloadv1.PortStatus, err error) {
	for {
		select {
		case e := <-w.events:
			name, st := e.GetPort().GetSpec().GetLogicalPort(), e.GetPort().GetStatus()
			switch {
			case e.GetType() == offloadv1.EventType_EVENT_TYPE_DELETED:
				created = w.created[name]
				delete(w.created, name)
				return created, st, nil
			case st.GetState() == offloadv1.PortState_PORT_STATE_READY:
				w.created[name] = st
			}
		case err := <-w.ended:
			return nil, nil, fmt.Errorf("watch: %w", client.Error(err))
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(time.Minute):
			return nil, nil, errors.New("watch: a port was removed, and nobody was told for a minute")
		}
	}
}

// close ends the watch; w may be nil.
func (w *watch) close() error {
	if w == nil {
		return nil
	}
	w.cancel()
	return w.conn.Close()
}

// Ways to make a veth with nothing but the kernel.
const (
	placeRow = "kernel: veth made in place"
	moveRow  = "kernel: veth made, then moved"
)

// kernel gives a pod an interface with nothing but the kernel: a veth pair, an address, both ends up. In one way the pair is
// made with one end in the pod, in the other that end is moved there, as plugins often do.
func (b *bench) kernel(pod *lab.Pod) (err error) {
	host, inHost, err := open(b.node.Netns())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inHost.Close(), host.Close()) }()
	space, inPod, err := open(pod.Netns())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inPod.Close(), space.Close()) }()
	for _, name := range []string{placeRow, moveRow} {
		v := netlink.NewVeth(netlink.NewLinkAttrs())
		v.Name, v.PeerName = "bench1", "eth0"
		begin := time.Now()
		if name == placeRow {
			v.PeerNamespace = netlink.NsFd(space)
		}
		if err := inHost.LinkAdd(v); err != nil {
			return fmt.Errorf("link add: %w", err)
		}
		if name == moveRow {
			peer, err := inHost.LinkByName("eth0")
			if err == nil {
				err = inHost.LinkSetNsFd(peer, int(space))
			}
			if err != nil {
				return fmt.Errorf("link move: %w", err)
			}
		}
		peer, err := inPod.LinkByName("eth0")
		if err != nil {
			return fmt.Errorf("link: %w", err)
		}
		address, err := netlink.ParseAddr(pod.IPs[0].String())
		if err != nil {
			return err
		}
		if err := errors.Join(inPod.AddrAdd(peer, address), inPod.LinkSetUp(peer), inHost.LinkSetUp(v)); err != nil {
			return fmt.Errorf("link configure: %w", err)
		}
		b.kernelTimes[name].record(time.Since(begin))
		if err := inHost.LinkDel(v); err != nil {
			return fmt.Errorf("link del: %w", err)
		}
	}
	return nil
}

func open(name string) (netns.NsHandle, *netlink.Handle, error) {
	ns, err := netns.GetFromName(name)
	if err != nil {
		return ns, nil, fmt.Errorf("netns %s: %w", name, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return ns, nil, errors.Join(fmt.Errorf("netns %s: %w", name, err), ns.Close())
	}
	return ns, h, nil
}

// steps are the rows that any of the measures has: those of ADD, the whole first, then those of DEL.
func steps(all ...*measure) []row {
	var rows []row
	for _, verb := range []string{"ADD", "DEL"} {
		rows = append(rows, row{verb, ""})
		if slices.ContainsFunc(all, func(m *measure) bool { return m.rows[row{verb, inDaemon}] != nil }) {
			rows = append(rows, row{verb, inDaemon})
		}
		for _, m := range all {
			for _, r := range m.order {
				if r.verb == verb && !slices.Contains(rows, r) {
					rows = append(rows, r)
				}
			}
		}
	}
	return rows
}
