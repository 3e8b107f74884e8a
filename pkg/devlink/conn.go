package devlink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/nlgroup"
)

// Conn asks the kernel, each time through a socket of its own. Its methods may be called from several goroutines, and do not wait for
// each other.
//
// A driver works while the kernel sends, and no deadline ends that: creating a subfunction takes hundreds of milliseconds, changing the
// mode of an eswitch seconds, and a driver that waits for its firmware may never come back. So every call ends with its context,
// or after the time given here for its command if the context has no deadline; the error is ErrUnanswered then, and what was asked for may
// still be done later. Events tell whether it was.
type Conn struct {
	open   func(protocol int) (*netlink.Conn, error)
	close  func() error
	family genetlink.Family

	inKernel chan struct{} // has an element for each call that the kernel has not answered
}

// Times after which a call without a deadline ends.
const (
	readTime   = 20 * time.Second // reading waits for whoever changes the same device
	changeTime = 2 * time.Minute
	modeTime   = 10 * time.Minute // eswitch modes and reloads, with hundreds of functions
)

// mostInKernel bounds the calls that wait for the kernel. Each has a thread, also those that nobody waits for any more.
const mostInKernel = 64

// DialOptions say where sockets are opened.
type DialOptions struct {
	// NetNS is the path of a network namespace, "": that of the process. Devices are in one, as links are.
	NetNS string
}

// Dial finds out whether the kernel has devlink.
func Dial(o DialOptions) (*Conn, error) {
	namespace := func() int { return 0 }
	closeNS := func() error { return nil }
	if o.NetNS != "" {
		ns, err := os.Open(o.NetNS)
		if err != nil {
			return nil, fmt.Errorf("devlink dial: %w", err)
		}
		// After Close this is -1, not the number of another file.
		namespace, closeNS = func() int { return int(ns.Fd()) }, ns.Close
	}
	c, err := NewConn(func(protocol int) (*netlink.Conn, error) {
		nl, err := netlink.Dial(protocol, &netlink.Config{NetNS: namespace()})
		if err != nil {
			return nil, err
		}
		// Not netlink.CapAcknowledge: see pkg/tc.
		if err := errors.Join(nl.SetOption(netlink.ExtendedAcknowledge, true), nl.SetReadBuffer(receiveBuffer)); err != nil {
			return nil, errors.Join(err, nl.Close())
		}
		return nl, nil
	})
	if err != nil {
		return nil, errors.Join(err, closeNS())
	}
	c.close = closeNS
	return c, nil
}

// receiveBuffer holds some thousand events. The kernel takes it from those who have CAP_NET_ADMIN; others get less.
const receiveBuffer = 1 << 20

// NewConn takes a function that opens a socket of a netlink protocol.
func NewConn(open func(protocol int) (*netlink.Conn, error)) (*Conn, error) {
	nl, err := open(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("devlink dial: %w", err)
	}
	defer func() { _ = nl.Close() }()
	family, err := genetlink.NewConn(nl).GetFamily("devlink")
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("devlink dial: %w: this kernel has no devlink: %w", ErrUnsupported, err)
	}
	if err != nil {
		return nil, fmt.Errorf("devlink dial: %w", err)
	}
	return &Conn{open: open, close: func() error { return nil }, family: family, inKernel: make(chan struct{}, mostInKernel)}, nil
}

// Close lets go of the network namespace, if it was dialled to one: calls fail from then on. Those that have begun, and monitors, go on.
func (c *Conn) Close() error { return c.close() }

// Devices returns all devices, in the order of their handles.
func (c *Conn) Devices(ctx context.Context) ([]*Device, error) {
	return all(ctx, c, cmdGet, "dev show", Handle{}, decodeDevice, nil)
}

// Device returns a device.
func (c *Conn) Device(ctx context.Context, h Handle) (*Device, error) {
	return one(ctx, c, of(cmdGet, "dev show", h), decodeDevice)
}

// Info returns what a driver says of a device's hardware and firmware. It may ask the firmware, which takes time.
func (c *Conn) Info(ctx context.Context, h Handle) (*Info, error) {
	return one(ctx, c, of(cmdInfoGet, "dev info", h), decodeInfo)
}

// Eswitch returns the modes of a device's embedded switch, without those that its driver does not have.
func (c *Conn) Eswitch(ctx context.Context, h Handle) (Eswitch, error) {
	return one(ctx, c, of(cmdEswitchGet, "dev eswitch show", h), decodeEswitch)
}

// SetEswitch changes the modes that e has, in the order of its fields; one that is refused does not undo those before it. Each mode has ports
// and network devices of its own, which come and go with it.
func (c *Conn) SetEswitch(ctx context.Context, h Handle, e Eswitch) error {
	return c.do(ctx, setEswitch(h, e))
}

// Reload reloads a device and returns what was done, if the kernel says so: it does if an action or a limit was asked for.
func (c *Conn) Reload(ctx context.Context, h Handle, o Reload) ([]ReloadAction, error) {
	answers, err := c.call(ctx, reload(h, o))
	if err != nil || len(answers) == 0 {
		return nil, err
	}
	return decodeReload(answers[0].Data), nil
}

// Ports returns the ports of a device, or if h is zero, of all, in the order of their handles. Where there are many that takes
// long: read them once, and then follow the events.
func (c *Conn) Ports(ctx context.Context, h Handle) ([]*Port, error) {
	return all(ctx, c, cmdPortGet, "port show", h, decodePort, func(a, b *Port) int { return cmp.Compare(a.Index, b.Index) })
}

// Port returns a port.
func (c *Conn) Port(ctx context.Context, h PortHandle) (*Port, error) {
	return one(ctx, c, ofPort(cmdPortGet, "port show", h), decodePort)
}

// PortOf returns the port that a network device belongs to: for a representor, that of the eswitch. The error is ErrGone if there is none.
// Kernels before 6.2 do not tell: there it takes a list of the ports of the device that has registered it.
func (c *Conn) PortOf(ctx context.Context, ifindex int) (*Port, error) {
	r := linkRequest(ifindex)
	answers, err := c.exchanged(ctx, r, c.askLink)
	if err != nil {
		return nil, err
	}
	for _, a := range answers {
		port, parent := decodeLink(a.Data)
		if port != nil {
			return c.Port(ctx, *port)
		}
		if parent == (Handle{}) {
			break
		}
		ports, err := c.Ports(ctx, parent)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(ports, func(p *Port) bool { return p.Ifindex == ifindex }); i >= 0 {
			return ports[i], nil
		}
	}
	return nil, &Error{Request: r.text, Err: unix.ENODEV, Kind: ErrGone, Meaning: "the network device belongs to no port"}
}

// NewPort makes a port and returns it. Its network device may come later, with an event.
func (c *Conn) NewPort(ctx context.Context, h Handle, p NewPort) (*Port, error) {
	return one(ctx, c, newPort(h, p), decodePort)
}

// DelPort deletes a port that NewPort has made. Its function should be inactive and detached before.
func (c *Conn) DelPort(ctx context.Context, h PortHandle) error {
	return c.do(ctx, ofPort(cmdPortDel, "port del", h))
}

// SetPortFunction changes what f has of the function behind a port; its opstate and device are not looked at. If it has a state, that is
// changed last. What is refused does not undo what was done before it. Capabilities, event queues and for most drivers the address have to
// be set while the function is inactive.
func (c *Conn) SetPortFunction(ctx context.Context, h PortHandle, f Function) error {
	return c.do(ctx, setFunction(h, f))
}

// Params returns the parameters of a device, or if h is zero, of all, by device in the driver's order.
func (c *Conn) Params(ctx context.Context, h Handle) ([]*Param, error) {
	return all(ctx, c, cmdParamGet, "dev param show", h, decodeParam, nil)
}

// Param returns a parameter.
func (c *Conn) Param(ctx context.Context, h Handle, name string) (*Param, error) {
	return one(ctx, c, getParam(h, name), decodeParam)
}

// SetParam sets a parameter in a mode. The value has to be of the parameter's type.
func (c *Conn) SetParam(ctx context.Context, h Handle, name string, v ParamValue) error {
	r, err := setParam(h, name, v)
	if err != nil {
		return err
	}
	return c.do(ctx, r)
}

// Rates returns the rates of a device's functions and nodes, or if h is zero, of all devices. Only an eswitch in switchdev mode has some.
func (c *Conn) Rates(ctx context.Context, h Handle) ([]*Rate, error) {
	return all(ctx, c, cmdRateGet, "port function rate show", h, decodeRate, func(a, b *Rate) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Port, b.Port))
	})
}

// Rate returns the rate of a function or node.
func (c *Conn) Rate(ctx context.Context, h RateHandle) (*Rate, error) {
	return one(ctx, c, ofRate(cmdRateGet, "port function rate show", h), decodeRate)
}

// SetRate changes the rate of a function or node: share, maximum and parent, in this order. One that is refused does not undo those before it.
func (c *Conn) SetRate(ctx context.Context, h RateHandle, change RateChange) error {
	return c.do(ctx, changeRate(cmdRateSet, "port function rate set", h, change))
}

// NewRate makes a node.
func (c *Conn) NewRate(ctx context.Context, h RateHandle, change RateChange) error {
	return c.do(ctx, changeRate(cmdRateNew, "port function rate add", h, change))
}

// DelRate deletes a node that has nothing below it.
func (c *Conn) DelRate(ctx context.Context, h RateHandle) error {
	return c.do(ctx, ofRate(cmdRateDel, "port function rate del", h))
}

// Reporters returns the health reporters of a device and its ports, or if h is zero, of all devices, in the driver's order.
func (c *Conn) Reporters(ctx context.Context, h Handle) ([]*Reporter, error) {
	return all(ctx, c, cmdReporterGet, "health show", h, decodeReporter, nil)
}

// Reporter returns a health reporter.
func (c *Conn) Reporter(ctx context.Context, h ReporterHandle) (*Reporter, error) {
	return one(ctx, c, ofReporter(cmdReporterGet, "health show", h), decodeReporter)
}

// SetReporter changes what a health reporter does by itself.
func (c *Conn) SetReporter(ctx context.Context, h ReporterHandle, change ReporterChange) error {
	return c.do(ctx, setReporter(h, change))
}

// RecoverReporter makes a reporter try to recover what it watches, if that is in error.
func (c *Conn) RecoverReporter(ctx context.Context, h ReporterHandle) error {
	return c.do(ctx, ofReporter(cmdReporterRecover, "health recover", h))
}

// all returns what a device has of something, or if h is zero, what all have: by device, and within one as compare says, or if it is nil, as
// the driver does.
func all[T interface{ handle() Handle }](
	ctx context.Context, c *Conn, command uint8, text string, h Handle, decode func([]byte) T, compare func(a, b T) int,
) ([]T, error) {
	answers, err := c.call(ctx, list(command, text, h))
	if err != nil {
		return nil, err
	}
	got := make([]T, 0, len(answers))
	for _, a := range answers {
		if t := decode(a.Data); h == (Handle{}) || t.handle() == h {
			got = append(got, t)
		}
	}
	slices.SortStableFunc(got, func(a, b T) int {
		if n := compareHandles(a.handle(), b.handle()); n != 0 || compare == nil {
			return n
		}
		return compare(a, b)
	})
	return got, nil
}

func compareHandles(a, b Handle) int {
	return cmp.Or(cmp.Compare(a.Bus, b.Bus), cmp.Compare(a.Dev, b.Dev))
}

// one returns the answer to a request that has one.
func one[T any](ctx context.Context, c *Conn, r request, decode func([]byte) T) (T, error) {
	var none T
	answers, err := c.call(ctx, r)
	if err != nil {
		return none, err
	}
	if len(answers) == 0 {
		return none, fmt.Errorf("devlink %s: the kernel agrees, but does not answer", r.text)
	}
	return decode(answers[0].Data), nil
}

// do makes a request that has no answer but whether it was done.
func (c *Conn) do(ctx context.Context, r request) error {
	_, err := c.call(ctx, r)
	return err
}

func (c *Conn) call(ctx context.Context, r request) ([]genetlink.Message, error) {
	return c.exchanged(ctx, r, c.ask)
}

// exchanged lets ask make a request, and waits for its answers at most as long as the context or the command allow.
func (c *Conn) exchanged(ctx context.Context, r request, ask func(context.Context, request) ([]genetlink.Message, error)) ([]genetlink.Message, error) {
	if _, ok := ctx.Deadline(); !ok {
		limit := timeFor(r.command)
		bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer for %v", limit))
		defer cancel()
		ctx = bounded
	}
	unanswered := func(meaning string) error {
		return &Error{Request: r.text, Err: context.Cause(ctx), Kind: ErrUnanswered, Meaning: meaning}
	}
	if ctx.Err() != nil {
		return nil, unanswered("not asked")
	}
	select {
	case c.inKernel <- struct{}{}:
	case <-ctx.Done():
		return nil, unanswered(fmt.Sprintf("not asked, for %d requests are in the kernel", mostInKernel))
	}
	type result struct {
		answers []genetlink.Message
		err     error
	}
	results := make(chan result, 1)
	// The goroutine ends with ctx, or when the driver lets it go: see Conn.
	go func() {
		defer func() { <-c.inKernel }()
		answers, err := ask(ctx, r)
		results <- result{answers, err}
	}()
	select {
	case got := <-results:
		if got.err != nil && ctx.Err() != nil && errors.Is(got.err, os.ErrDeadlineExceeded) {
			return nil, unanswered("")
		}
		return got.answers, got.err
	case <-ctx.Done():
		return nil, unanswered("")
	}
}

func timeFor(command uint8) time.Duration {
	switch command {
	case cmdEswitchSet, cmdReload:
		return modeTime
	case cmdPortNew, cmdPortDel, cmdPortSet, cmdParamSet, cmdRateNew, cmdRateSet, cmdRateDel, cmdReporterRecover:
		return changeTime
	}
	return readTime
}

// flagDumpInterrupted is NLM_F_DUMP_INTR.
const flagDumpInterrupted = 0x10

// ErrInterrupted means that things changed during a list, each time it was asked for, in such a way that it may be incomplete.
var ErrInterrupted = errors.New("list was interrupted by a change")

// ask makes a request, for a list up to three times if things change meanwhile.
func (c *Conn) ask(ctx context.Context, r request) ([]genetlink.Message, error) {
	for range 3 {
		answers, err := c.askOnce(ctx, r)
		if !errors.Is(err, ErrInterrupted) {
			return answers, err
		}
	}
	return nil, fmt.Errorf("devlink %s: %w", r.text, ErrInterrupted)
}

func (c *Conn) askOnce(ctx context.Context, r request) ([]genetlink.Message, error) {
	nl, err := c.open(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("devlink %s: %w", r.text, err)
	}
	defer func() { _ = nl.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = nl.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	g := genetlink.NewConn(nl)
	// Lists too: devlink(8) does.
	flags := netlink.Request | netlink.Acknowledge
	if r.dump {
		flags |= netlink.Dump
	}
	request := genetlink.Message{Header: genetlink.Header{Command: r.command, Version: version}, Data: r.data}
	sent, err := g.Send(request, c.family.ID, flags)
	if err != nil {
		return nil, fmt.Errorf("devlink %s: %w", r.text, err)
	}
	var answers []genetlink.Message
	interrupted := false
	for {
		got, headers, err := g.Receive()
		if err != nil {
			return nil, failed(r, err)
		}
		done := r.dump // a list is received as a whole
		for i, m := range headers {
			interrupted = interrupted || m.Header.Flags&flagDumpInterrupted != 0
			switch {
			case m.Header.Sequence != sent.Header.Sequence:
			case m.Header.Type == netlink.Error:
				done = true
			default:
				answers = append(answers, got[i])
			}
		}
		switch {
		case done && interrupted:
			return nil, ErrInterrupted
		case done:
			return answers, nil
		}
	}
}

// version is DEVLINK_GENL_VERSION.
const version = 1

// failed returns the error for a request whose answer could not be received, or is a refusal.
func failed(r request, err error) error {
	var refusal *netlink.OpError
	var errno unix.Errno
	if errors.As(err, &refusal) && refusal.Sequence != 0 && errors.As(refusal.Err, &errno) {
		return refused(r, int(errno), errno, refusal.Message, refusal.Offset)
	}
	return fmt.Errorf("devlink %s: %w", r.text, err)
}

// askLink makes a request of rtnetlink.
func (c *Conn) askLink(ctx context.Context, r request) ([]genetlink.Message, error) {
	nl, err := c.open(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("devlink %s: %w", r.text, err)
	}
	defer func() { _ = nl.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = nl.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	got, err := nl.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: r.data})
	if err != nil {
		return nil, failed(r, err)
	}
	var answers []genetlink.Message
	for _, m := range got {
		answers = append(answers, genetlink.Message{Data: m.Data})
	}
	return answers, nil
}

// A Monitor tells of changes that anybody makes. It is for one goroutine.
type Monitor struct {
	nl     *netlink.Conn
	family uint16
	events []Event
}

// Watch opens a socket for the events of the network namespace. What was before has to be read after it.
func (c *Conn) Watch() (*Monitor, error) {
	i := slices.IndexFunc(c.family.Groups, func(g genetlink.MulticastGroup) bool { return g.Name == "config" })
	if i < 0 {
		return nil, fmt.Errorf("devlink watch: %w: this kernel has no multicast group config", ErrUnsupported)
	}
	nl, err := c.open(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("devlink watch: %w", err)
	}
	if err := nl.JoinGroup(c.family.Groups[i].ID); err != nil {
		return nil, errors.Join(fmt.Errorf("devlink watch: %w", err), nl.Close())
	}
	return &Monitor{nl: nl, family: c.family.ID}, nil
}

// Close ends the Monitor.
func (m *Monitor) Close() error { return m.nl.Close() }

// Next waits for an event. If the kernel had more events than the socket has room for, the event is Resync: what is there is to be
// read then. An error is
// final.
func (m *Monitor) Next(ctx context.Context) (Event, error) {
	for len(m.events) == 0 {
		if err := m.receive(ctx); err != nil {
			return Event{}, fmt.Errorf("devlink monitor: %w", err)
		}
	}
	e := m.events[0]
	m.events = m.events[1:]
	return e, nil
}

func (m *Monitor) receive(ctx context.Context) error {
	got, lost, err := nlgroup.Receive(ctx, m.nl)
	if lost && err == nil {
		m.events = append(m.events, Event{Kind: Resync})
	}
	if err != nil {
		return err
	}
	for _, g := range got {
		var message genetlink.Message
		if uint16(g.Header.Type) != m.family || message.UnmarshalBinary(g.Data) != nil {
			continue
		}
		if e, ok := decodeEvent(message.Header.Command, message.Data); ok {
			m.events = append(m.events, e)
		}
	}
	return nil
}
