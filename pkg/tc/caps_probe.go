package tc

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Probe finds out what the kernel can do, by trying in a network namespace that is gone afterwards. The kernel loads modules that
// it needs for it, as it does for filters. It fails if there is no such namespace to be had.
func Probe(ctx context.Context) (Caps, error) {
	var c Caps
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return c, fmt.Errorf("tc probe: uname: %w", err)
	}
	c.Release = unix.ByteSliceToString(name.Release[:])
	space, err := newProbe(ctx, c.Release)
	if err != nil {
		return c, fmt.Errorf("tc probe: %w", err)
	}
	defer space.close()
	for i := range Capabilities {
		space.look(&Capabilities[i])
	}
	if ctx.Err() != nil {
		return c, fmt.Errorf("tc probe: %w", context.Cause(ctx))
	}
	c.Findings = space.findings
	return c, nil
}

// A probe is a network namespace and what has been found out in it.
type probe struct {
	ctx      context.Context // of Probe
	release  string          // of the kernel
	conn     *Conn
	generic  *netlink.Conn
	target   Target
	findings []Finding
}

const (
	loopback   = 1 // ifindex of lo in every network namespace
	probeBlock = 1
)

// newProbe opens sockets in a new network namespace, which lasts as long as they do.
func newProbe(ctx context.Context, release string) (*probe, error) {
	p := &probe{ctx: ctx, release: release, target: Target{Ifindex: loopback}}
	err := inNewNetNS(func() (err error) {
		if p.conn, err = Dial(DialOptions{}); err != nil {
			return err
		}
		if p.generic, err = netlink.Dial(unix.NETLINK_GENERIC, nil); err != nil {
			return errors.Join(err, p.conn.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *probe) close() { _ = errors.Join(p.conn.Close(), p.generic.Close()) }

// inNewNetNS calls f in a new network namespace. The thread goes back to its own one; if it cannot, it ends.
func inNewNetNS(f func() error) error {
	result := make(chan error)
	go func() { // ends with f
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer func() { _ = own.Close() }()
			err = unix.Unshare(unix.CLONE_NEWNET)
		}
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("new network namespace: %w", err)
			return
		}
		err = f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// look finds out about one capability.
func (p *probe) look(c *Capability) {
	f := Finding{Capability: c}
	switch {
	case answer(p.findings, c.Needs) == No:
		f.Answer, f.Words = No, "not without "+c.Needs
	case c.filters != nil:
		f.Answer, f.Words = try(p.ctx, p.conn, p.target, c.filters(trial{device: "lo", egress: loopback, chain: 1, another: 2, pref: 1}))
	default:
		f.Answer, f.Words = p.otherwise(c.Name)
	}
	p.findings = append(p.findings, f)
}

// otherwise finds out about what filters do not tell.
func (p *probe) otherwise(name string) (Answer, string) {
	switch name {
	case CapClsact:
		return verdictOf(p.conn.EnsureClsact(p.ctx, loopback, 0))
	case CapBlock:
		return p.block()
	case CapTerse:
		return p.terse()
	case CapOpenvswitch:
		_, err := genericFamily(p.ctx, p.generic, "ovs_datapath")
		return verdictOf(err)
	case CapResume:
		return p.resume()
	}
	panic("tc: nobody can find out about " + name)
}

// block gives lo a shared block, in which all else is tried from then on.
func (p *probe) block() (Answer, string) {
	if err := p.conn.DeleteClsact(p.ctx, loopback); err != nil {
		return verdictOf(err)
	}
	if err := p.conn.EnsureClsact(p.ctx, loopback, probeBlock); err != nil {
		a, words := verdictOf(err)
		_ = p.conn.EnsureClsact(p.ctx, loopback, 0) // for what comes next, which will say if it is not there
		return a, words
	}
	qs, err := p.conn.Qdiscs(p.ctx)
	if err != nil {
		return verdictOf(err)
	}
	for _, q := range qs {
		if q.Ifindex == loopback && q.Block == probeBlock {
			p.target = Target{Block: probeBlock}
			return Yes, ""
		}
	}
	return No, "the kernel has not taken notice of it"
}

func (p *probe) terse() (Answer, string) {
	f := Filter{Chain: 1, Pref: 1, Handle: 1, Protocol: ProtocolAll, Actions: []Action{Pass{}}}
	if refused, err := p.conn.Apply(p.ctx, p.target, []Op{AddOp(&f)}); err != nil || len(refused) > 0 {
		return Unknown, "no filter to list"
	}
	terse := false
	err := p.conn.Dump(p.ctx, p.target, DumpOptions{Terse: true}, func(in *Installed) error {
		terse = in.Terse
		return nil
	})
	_, _ = p.conn.Apply(p.ctx, p.target, []Op{DeleteOp(f.Key())}) // the namespace goes anyway
	switch {
	case err != nil:
		return verdictOf(err)
	case !terse:
		return No, "the kernel lists all"
	}
	return Yes, ""
}

// resume asks the kernel for a datapath that goes on where chains stop, which Open vSwitch does as well; if there is no
// datapath, it reads how the kernel was configured.
func (p *probe) resume() (Answer, string) {
	const option = "CONFIG_NET_TC_SKB_EXT"
	if answer(p.findings, CapOpenvswitch) == Yes {
		switch err := tryDatapath(p.ctx, p.generic); {
		case errors.Is(err, unix.EOPNOTSUPP):
			return No, wordsOf(err)
		case err == nil:
			return Yes, ""
		}
	}
	for _, path := range []string{"/proc/config.gz", "/boot/config-" + p.release, "/lib/modules/" + p.release + "/config"} {
		text, err := readConfig(path)
		if err != nil {
			continue
		}
		switch configValue(text, option) {
		case "y":
			return Yes, ""
		case "n":
			return No, option + " is not set in " + path
		}
	}
	return Unknown, "there is no datapath to try with, and no configuration of the kernel to read"
}

// readConfig reads the configuration of a kernel.
func readConfig(path string) (string, error) {
	const enough = 4 << 20
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return "", err
		}
	}
	text, err := io.ReadAll(io.LimitReader(r, enough))
	return string(text), err
}

// try adds filters, looks whether the kernel has understood them, and removes them. If that fails the answer is Unknown.
func try(ctx context.Context, c *Conn, t Target, fs []Filter) (a Answer, words string) {
	var done []Op
	defer func() {
		// The last one first, since an earlier one may be gone to; and also if ctx has ended.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		slices.Reverse(done)
		refused, err := c.Apply(ctx, t, done)
		for i := range refused {
			if !errors.Is(&refused[i], unix.ENOENT) {
				err = errors.Join(err, &refused[i])
			}
		}
		if err != nil && a == Yes {
			a, words = Unknown, "the filter is not removed: "+err.Error()
		}
	}()
	said := make([]string, len(fs))
	for i := range fs {
		f := &fs[i]
		says, refused, err := c.Offer(ctx, t, f)
		if err != nil {
			return Unknown, err.Error()
		}
		if refused != nil {
			return verdictOf(&OpError{Op: AddOp(f), Err: refused, Message: says})
		}
		said[i] = says
		done = append(done, DeleteOp(f.Key()))
	}
	for i := range fs {
		if a, words := c.kept(ctx, t, &fs[i]); a != Yes {
			if said[i] != "" {
				words += " (" + said[i] + ")"
			}
			return a, words
		}
	}
	return Yes, ""
}

const (
	cleanupTimeout = 5 * time.Second
	// deviceTimeout is far more than any driver needs. A filter that is being added when it passes stays.
	deviceTimeout = 30 * time.Second
)

// kept finds out whether the kernel has all of f. An older one ignores keys and parameters that it does not know.
func (c *Conn) kept(ctx context.Context, t Target, f *Filter) (Answer, string) {
	a, words := No, "the kernel has lost it"
	err := c.Dump(ctx, t, DumpOptions{Chain: &f.Chain}, func(in *Installed) error {
		if in.Filter.Key() != f.Key() {
			return nil
		}
		got, want := in.Filter, *f
		got.Flags &^= InHW | NotInHW | Verbose
		want.Flags &^= Verbose
		switch {
		case f.Flags&(SkipSW|Verbose) != 0 && in.Filter.Flags&InHW == 0:
			a, words = No, "the filter is not in the hardware"
		case got.String() == want.String() && len(in.Foreign) == 0:
			a, words = Yes, ""
		default:
			a, words = No, "the kernel has made of it: "+got.String()+strings.Join(in.Foreign, ", ")
		}
		return nil
	})
	if err != nil {
		return Unknown, err.Error()
	}
	return a, words
}

// verdictOf turns a refusal into an answer. What may be different next time is no answer.
func verdictOf(err error) (Answer, string) {
	var errno unix.Errno
	switch {
	case err == nil:
		return Yes, ""
	case !errors.As(err, &errno):
		return Unknown, err.Error()
	}
	switch errno { //nolint:exhaustive // all others are answers
	case unix.EPERM, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN, unix.EINTR, unix.EBUSY:
		return Unknown, wordsOf(err)
	}
	return No, wordsOf(err)
}

// wordsOf returns the number and the explanation of an error of the kernel.
func wordsOf(err error) string {
	words := err.Error()
	if op := (*OpError)(nil); errors.As(err, &op) { // without the filter, which is known
		words = op.Err.Error()
		if op.Message != "" {
			words += " (" + op.Message + ")"
		}
	}
	if errno := unix.Errno(0); errors.As(err, &errno) {
		name := unix.ErrnoName(errno)
		if errno == unix.EOPNOTSUPP {
			name = "EOPNOTSUPP" // which has two names
		}
		return name + " " + words
	}
	return words
}

// Generic netlink, linux/genetlink.h, and what is asked with it: a datapath of Open vSwitch (linux/openvswitch.h), and the
// features of a device (linux/ethtool_netlink.h).
const (
	genlCtrl         = 0x10
	ctrlGetFamily    = 3
	ctrlFamilyID     = 1
	ctrlFamilyName   = 2
	genlHeaderSize   = 4
	genlCtrlVersion  = 1
	ovsDPVersion     = 2
	ovsDPNew         = 1
	ovsDPDel         = 2
	ovsDPName        = 1
	ovsDPUpcallPID   = 2
	ovsDPFeatures    = 5
	ovsHeaderSize    = 4
	ovsRecircSharing = 1 << 2 // OVS_DP_F_TC_RECIRC_SHARING

	ethtoolVersion     = 1
	ethtoolFeaturesGet = 11
	ethtoolHeader      = 1
	ethtoolDevIndex    = 1
	ethtoolActive      = 4
	bitsetBits         = 3
	bitsetBit          = 1
	bitName            = 2
)

// askGeneric sends a message of generic netlink and returns the answers' payloads.
func askGeneric(ctx context.Context, c *netlink.Conn, family uint16, flags netlink.HeaderFlags, cmd, version uint8, data []byte) ([][]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(family), Flags: netlink.Request | flags},
		Data:   append([]byte{cmd, version, 0, 0}, data...),
	})
	if refusal := (*netlink.OpError)(nil); errors.As(err, &refusal) {
		return nil, explained(refusal)
	}
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, m := range answers {
		if m.Header.Type == netlink.HeaderType(family) && len(m.Data) >= genlHeaderSize {
			all = append(all, m.Data[genlHeaderSize:])
		}
	}
	return all, nil
}

// genericFamily returns the number of a family; ENOENT if there is none, even after the kernel has looked for a module.
func genericFamily(ctx context.Context, c *netlink.Conn, name string) (uint16, error) {
	answers, err := askGeneric(ctx, c, genlCtrl, 0, ctrlGetFamily, genlCtrlVersion, appendString(nil, ctrlFamilyName, name))
	if err != nil {
		return 0, err
	}
	var id uint16
	for _, b := range answers {
		walk(b, func(typ uint16, data []byte) {
			if typ == ctrlFamilyID && len(data) == 2 {
				id = ne.Uint16(data)
			}
		})
	}
	if id == 0 {
		return 0, fmt.Errorf("generic netlink family %s: no answer", name)
	}
	return id, nil
}

// tryDatapath makes a datapath that shares the numbers of chains with TC, and removes it. Open vSwitch asks for that as well,
// and the kernel's code for it is active as long as anybody does.
func tryDatapath(ctx context.Context, c *netlink.Conn) error {
	family, err := genericFamily(ctx, c, "ovs_datapath")
	if err != nil {
		return err
	}
	named := appendString(make([]byte, ovsHeaderSize), ovsDPName, "probe")
	asked := appendU32(appendU32(bytes.Clone(named), ovsDPUpcallPID, 0), ovsDPFeatures, ovsRecircSharing)
	if _, err := askGeneric(ctx, c, family, netlink.Acknowledge, ovsDPNew, ovsDPVersion, asked); err != nil {
		return err
	}
	_, err = askGeneric(ctx, c, family, netlink.Acknowledge, ovsDPDel, ovsDPVersion, named)
	return err
}

// hasFeature reports whether a feature of a device is on.
func hasFeature(ctx context.Context, c *netlink.Conn, ifindex int, feature string) (bool, error) {
	family, err := genericFamily(ctx, c, "ethtool")
	if err != nil {
		return false, err
	}
	request := appendAttr(nil, ethtoolHeader|attrNested, appendU32(nil, ethtoolDevIndex, uint32(ifindex)))
	answers, err := askGeneric(ctx, c, family, 0, ethtoolFeaturesGet, ethtoolVersion, request)
	if err != nil {
		return false, err
	}
	on := false
	for _, b := range answers {
		inside(b, ethtoolActive, func(b []byte) {
			inside(b, bitsetBits, func(b []byte) {
				inside(b, bitsetBit, func(b []byte) {
					inside(b, bitName, func(b []byte) { on = on || text(b) == feature })
				})
			})
		})
	}
	return on, nil
}

// inside calls f with the contents of each attribute of a type.
func inside(b []byte, want uint16, f func([]byte)) {
	walk(b, func(typ uint16, data []byte) {
		if typ == want {
			f(data)
		}
	})
}

// scratchChain is where filters are tried on devices: nothing leads to it.
const scratchChain = 0x0f1df00

// ProbeDevice finds out what a device of the caller's network namespace can do, by adding filters for the hardware and removing them again. No packet meets them: they are in chains to which nothing leads, or for Ethernet addresses that nobody has. A device
// without qdisc for them gets one meanwhile. It fails if there is no such device.
func ProbeDevice(ctx context.Context, name string) (d DeviceCaps, err error) {
	d.Name = name
	device, err := net.InterfaceByName(name)
	if err != nil {
		return d, fmt.Errorf("tc probe %s: %w", name, err)
	}
	if link, err := os.Readlink(filepath.Join("/sys/class/net", name, "device/driver")); err == nil {
		d.Driver = filepath.Base(link)
	}
	asked := ctx
	// What has been added is removed: an end of ctx must not end the connection.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deviceTimeout)
	defer cancel()
	conn, err := Dial(DialOptions{})
	if err != nil {
		return d, fmt.Errorf("tc probe %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	generic, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return d, fmt.Errorf("tc probe %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, generic.Close()) }()

	target, remove, why := borrowQdisc(ctx, conn, device.Index)
	defer func() { err = errors.Join(err, remove()) }()
	probe := func(c *Capability, t trial) (Answer, string) {
		fs := c.filters(t)
		if target.Block != 0 {
			// One that is for the hardware alone has to be taken for all devices of a block, and some never take it.
			for i := range fs {
				fs[i].Indev, fs[i].Flags = name, fs[i].Flags&^SkipSW
			}
		}
		return try(ctx, conn, target, fs)
	}
	t := trial{device: name, egress: otherPort(name), pref: 64000, chain: scratchChain, another: scratchChain + 1}
	for i := range DeviceCapabilities {
		c := &DeviceCapabilities[i]
		f := Finding{Capability: c}
		if asked.Err() != nil {
			return d, fmt.Errorf("tc probe %s: %w", name, context.Cause(asked))
		}
		switch {
		case answer(d.Findings, c.Needs) == No:
			f.Answer, f.Words = No, "not without "+c.Needs
		case c.Name == CapSwitch:
			f.Answer, f.Words = No, "the device has no phys_switch_id"
			if switchID(name) != "" {
				f.Answer, f.Words = Yes, ""
			}
		case c.Name == CapFeature:
			on, err := hasFeature(ctx, generic, device.Index, "hw-tc-offload")
			if f.Answer, f.Words = verdictOf(err); f.Answer == Yes && !on {
				f.Answer, f.Words = No, "the feature is off, or the driver has none"
			} else if f.Answer == No {
				f.Answer = Unknown // of the question, not of the feature
			}
		case why != "":
			f.Words = why
		case (c.Name == CapRedirect || c.Needs == CapRedirect) && t.egress == 0:
			f.Words = "the switch has no other port to send to"
		case c.Name == CapDrop:
			if f.Answer, f.Words = probe(c, t); f.Answer == No {
				// Perhaps it is only the chain.
				t.chain = 0
				f.Answer, f.Words = probe(c, t)
			}
		default:
			f.Answer, f.Words = probe(c, t)
		}
		d.Findings = append(d.Findings, f)
		t.pref += 10
	}
	return d, nil
}

// borrowQdisc returns where filters of a device can be tried, or why nowhere. remove undoes it.
func borrowQdisc(ctx context.Context, conn *Conn, ifindex int) (t Target, remove func() error, why string) {
	nothing := func() error { return nil }
	qs, err := conn.Qdiscs(ctx)
	if err != nil {
		return t, nothing, err.Error()
	}
	for _, q := range qs {
		switch {
		case q.Ifindex != ifindex:
		case q.Kind != kindClsact:
			return t, nothing, "not tried: the device has a qdisc " + q.Kind + " of somebody else"
		case q.Block != 0:
			return Target{Block: q.Block}, nothing, ""
		default:
			return Target{Ifindex: ifindex}, nothing, ""
		}
	}
	if err := conn.EnsureClsact(ctx, ifindex, 0); err != nil {
		return t, nothing, wordsOf(err)
	}
	return Target{Ifindex: ifindex}, func() error {
		// Not through conn, which may have ended.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		again, err := Dial(DialOptions{})
		if err != nil {
			return err
		}
		return errors.Join(again.DeleteClsact(ctx, ifindex), again.Close())
	}, ""
}

// switchID returns the number of the embedded switch that a device is a port of; empty if it is none.
func switchID(name string) string {
	id, err := os.ReadFile(filepath.Join("/sys/class/net", name, "phys_switch_id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// otherPort returns the ifindex of another port of the switch, 0 if there is none.
func otherPort(name string) int {
	id := switchID(name)
	all, err := net.Interfaces()
	if err != nil || id == "" {
		return 0
	}
	for _, i := range all {
		if i.Name != name && switchID(i.Name) == id {
			return i.Index
		}
	}
	return 0
}
