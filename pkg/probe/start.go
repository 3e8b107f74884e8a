package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/ledger"
	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/train"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A start is one port, from its namespace to the end of it. One goroutine at a time has it.
type start struct {
	c     *startCampaign
	steps []string // that are waited for

	spare  Spare
	port   NewPort
	from   netip.AddrPort
	train  *train.Run // nil: there is none any more
	meters [2]*meter  // of requests and of answers
	made   bool       // it may exist

	out    result.Start
	err    error // why it has failed
	broken error // why the run cannot go on
}

// prepare does all that precedes the request: the namespace, and a train that sends as soon as there is an interface.
func (s *start) prepare(ctx context.Context, kind string) (err error) {
	c := s.c
	i := c.next % len(c.spares)
	c.next++
	s.spare, err = c.spareAgain(ctx, c.spares[i])
	if err != nil {
		return err
	}
	s.out.Port = s.spare.Name
	s.from = netip.AddrPortFrom(c.from[i], c.clientPort())
	netns, err := path.NewNetns(c.number)
	c.number++
	if err != nil {
		return err
	}
	s.port = NewPort{Netns: netns, LogicalPort: s.spare.Name, Kind: kind, To: c.to.Addr()}
	if kind != "veth" {
		s.port.Pool = c.spec.Pool
	}
	if !s.spare.Near {
		s.port.Via = c.spec.Gateway
	}
	s.meters[1] = newMeter(ctx, c, c.flow(c.target.Device, c.to, s.from, c.target.MAC, s.beside(s.spare.MAC)))
	s.train, err = c.trains.Send(ctx, train.Train{Netns: netns.Path, Device: StartDevice, From: s.from, Interval: c.spec.Interval})
	return err
}

// beside is the Ethernet address of the other end if nothing is between.
func (s *start) beside(mac []byte) []byte {
	if s.spare.Near {
		return mac
	}
	return nil
}

// spareAgain waits until nobody has a logical port any more.
func (c *startCampaign) spareAgain(ctx context.Context, s Spare) (Spare, error) {
	for begun := time.Now(); ; {
		again, err := c.maker.Spare(ctx, s.Name, c.spec.Target)
		if err == nil || reason.Of(err) != reason.LPortInUse || time.Since(begun) > spareTime {
			return again, err
		}
		if err := wait(ctx, lookInterval); err != nil {
			return s, err
		}
	}
}

// follow asks for the port, and looks until all that is waited for has come, or for too long.
func (s *start) follow(ctx context.Context) {
	c := s.c
	within, cancel := context.WithTimeout(ctx, c.spec.Wait)
	defer cancel()
	type outcome struct {
		made Made
		at   time.Time
		err  error
	}
	devices, outcomes := make(chan string, 1), make(chan outcome, 1)
	s.made = true
	begun, begunAt := time.Now(), train.Now()
	go func() { // ends soon after within
		made, err := c.maker.Make(within, s.port, func(device string) { devices <- device })
		outcomes <- outcome{made, time.Now(), err}
	}()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	created := false
	for !created || within.Err() == nil && !s.complete() {
		select {
		case o := <-outcomes:
			if created = true; o.err != nil {
				s.made, s.err = false, o.err
				return
			}
			s.out.Created, s.out.Configured, s.out.Installed = o.at.Sub(begun), o.made.Configured.Sub(begun), o.made.Installed.Sub(begun)
		case device := <-devices:
			s.meters[0] = newMeter(ctx, c, c.flow(device, s.from, c.to, s.spare.MAC, s.beside(c.target.MAC)))
		case at := <-s.train.Answered():
			s.out.Answered = time.Duration(at - begunAt)
		case <-look.C:
			for _, m := range s.meters {
				m.look(ctx, time.Since(begun))
			}
		}
	}
	s.finish(ctx, begun, begunAt)
}

// complete reports whether all that is waited for has come.
func (s *start) complete() bool {
	if s.out.Answered == 0 {
		return false
	}
	for _, step := range s.steps {
		m, hardware := s.meterOf(step)
		if m == nil || m.failed == nil && (hardware && m.hardware == 0 || m.filters == 0) {
			return false
		}
	}
	return true
}

func (s *start) meterOf(step string) (m *meter, hardware bool) {
	side := 0
	if step == result.StepFiltersBack || step == result.StepHardwareBack {
		side = 1
	}
	return s.meters[side], step == result.StepHardware || step == result.StepHardwareBack
}

// finish ends the train, waits for counters to be final, and notes which packets were the first.
func (s *start) finish(ctx context.Context, begun time.Time, begunAt int64) {
	report, err := s.train.Stop(ctx)
	s.train = nil
	if err != nil {
		s.broken = reason.Errorf(reason.ProbeImpossible, "probe port %s: %w", s.spare.Name, err)
		return
	}
	s.out.Sent = len(report.Sent)
	if report.First > 0 {
		s.out.Answered = time.Duration(report.Answered - begunAt)
	}
	slow := slices.ContainsFunc(s.steps, func(step string) bool { _, hardware := s.meterOf(step); return hardware })
	for ended := time.Now(); ; {
		final := true
		for _, m := range s.meters {
			m.look(ctx, time.Since(begun))
			final = final && m.final(slow)
		}
		if final || time.Since(ended) > patienceOfCounters || wait(ctx, betweenReadings) != nil {
			break
		}
	}
	s.out.Requests = s.meters[0].forwarding(report.Sent, begunAt, max(report.First, 1))
	s.out.Answers = s.meters[1].forwarding(report.Answers, begunAt, 1)
}

// unwatch takes the filters away.
func (s *start) unwatch(context.Context) {
	for i := range s.meters {
		s.broken = errors.Join(s.broken, s.meters[i].close())
		s.meters[i] = nil
	}
}

// unmake deletes the port.
func (s *start) unmake(ctx context.Context) {
	if !s.made {
		return
	}
	begun := time.Now()
	if err := s.c.maker.Unmake(ctx, s.port); err != nil {
		s.err = errors.Join(s.err, err)
		return
	}
	s.out.Deleted, s.made = time.Since(begun), false
}

// close removes what there still is, also if ctx has ended. It may be called again.
func (s *start) close(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unmakeTime)
	defer cancel()
	if s.train != nil {
		_, err = s.train.Stop(ctx)
		s.train = nil
	}
	for i := range s.meters {
		err = errors.Join(err, s.meters[i].close())
		s.meters[i] = nil
	}
	if s.made {
		err = errors.Join(err, s.c.maker.Unmake(ctx, s.port))
		s.made = false
	}
	if s.port.Netns.Path != "" {
		err = errors.Join(err, s.port.Netns.Close())
	}
	return err
}

// A meter looks at what filters have counted of the packets of one direction. A nil one sees nothing.
type meter struct {
	watch ledger.Watch
	id    uint32

	counts  ledger.Counts // at the last look
	changes int
	moved   time.Time // when counts last moved
	exact   bool      // what filters have counted since they began to forward is in counts
	version int       // changes when those are there that began
	// filters and hardware are when it was seen that they forward; 0: they do not.
	filters, hardware time.Duration
	failed            error
}

// newMeter makes one for a flow, nil if there are no filters.
func newMeter(ctx context.Context, c *startCampaign, f ledger.Flow) *meter {
	if c.filters != "" {
		return nil
	}
	w, err := c.node.Watch(ctx, []ledger.Flow{f})
	if err != nil {
		return &meter{failed: err}
	}
	return &meter{watch: w, id: w.Flows()[0].ID, moved: time.Now()}
}

// look reads the counters, at a time since the request.
func (m *meter) look(ctx context.Context, at time.Duration) {
	if m == nil || m.failed != nil {
		return
	}
	all, changes, err := m.watch.Read(ctx)
	if err != nil {
		m.failed = err
		return
	}
	m.see(all[m.id], changes, at)
}

// see takes what was read. The first filters that forward have counted from nothing, so what they have forwarded is known exactly, until they are made anew: then what they had
// counted is lost.
func (m *meter) see(counts ledger.Counts, changes int, at time.Duration) {
	f := counts.Forwarded
	there := changes + changes%2 // what is wanted, when it is there
	switch forwarded := f.Software+f.Hardware > 0; {
	case forwarded && m.filters == 0:
		first := m.counts.Forwarders == 0 && there-m.changes+m.changes%2 <= 2
		m.filters, m.exact, m.version = at, first || changes == m.changes && changes == there, there
	case m.filters > 0 && changes > m.version:
		m.exact = false
	}
	if f.Hardware > 0 && m.hardware == 0 {
		m.hardware = at
	}
	if counts != m.counts {
		m.moved = time.Now()
	}
	m.counts, m.changes = counts, changes
}

// final reports whether counters will hardly move any more. Those of software do not, once the last packet has passed; those of a NIC, which are slow, may.
func (m *meter) final(slow bool) bool {
	return m == nil || m.failed != nil || !slow || m.counts.InHW == 0 || time.Since(m.moved) > settled
}

// forwarding finds the first packets that were forwarded, of those that were sent at these times: the last ones, as many as were counted. first is the number of the
// packet that counts as the first.
func (m *meter) forwarding(sent []int64, begun int64, first int) (f result.Forwarding) {
	switch {
	case m == nil:
		return f
	case m.failed != nil:
		f.Unknown = printable(m.failed.Error())
		return f
	case m.filters == 0:
		return f
	}
	hardware, all := m.counts.Forwarded.Hardware, m.counts.Forwarded.Hardware+m.counts.Forwarded.Software
	if m.exact && all > uint64(len(sent)) {
		f.Unknown = fmt.Sprintf("filters have counted %d packets, and %d were sent", all, len(sent))
		return f
	}
	at := func(n uint64) (time.Duration, int) {
		if n == 0 || n > uint64(len(sent)) {
			return 0, 0
		}
		i := len(sent) - int(n)
		return time.Duration(sent[i] - begun), max(i+1-first+1, 1)
	}
	counted, packet := at(all)
	countedHardware, packetHardware := at(hardware)
	if f.Exact = m.exact; !f.Exact { // none was later than it was seen, nor than what has been counted since
		f.Filters, f.Hardware = earlier(m.filters, counted), earlier(m.hardware, countedHardware)
		return f
	}
	f.Filters, f.Packet, f.Hardware, f.HardwarePacket = counted, packet, countedHardware, packetHardware
	return f
}

// earlier is the earlier of two times, of which 0 is none.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

func (m *meter) close() error {
	if m == nil || m.watch == nil {
		return nil
	}
	return m.watch.Close()
}
