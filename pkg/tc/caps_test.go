package tc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// The tables have what their readers need: names that are not used twice, sentences, and filters that pass Check. What a
// capability needs is tried before it.
func TestCapabilities(t *testing.T) {
	for _, table := range [][]Capability{Capabilities, DeviceCapabilities} {
		var seen []string
		for _, c := range table {
			if slices.Contains(seen, c.Name) || c.Needs != "" && !slices.Contains(seen, c.Needs) {
				t.Errorf("%s, which needs %q, comes after %q", c.Name, c.Needs, seen)
			}
			seen = append(seen, c.Name)
			if c.What == "" || !strings.HasSuffix(c.Cost, ".") || c.Fix == "" {
				t.Errorf("%+v: something is missing", c)
			}
			if c.filters == nil {
				continue
			}
			keys := map[Key]bool{}
			for _, f := range c.filters(trial{device: "lo", egress: 1, chain: 1, another: 2, pref: 1}) {
				if err := f.Check(); err != nil {
					t.Errorf("%s: %v: %v", c.Name, &f, err)
				}
				if keys[f.Key()] {
					t.Errorf("%s: two filters have the key %v", c.Name, f.Key())
				}
				keys[f.Key()] = true
				if hardware := f.Flags&SkipSW != 0; hardware != (c.Since == "") {
					t.Errorf("%s: %v has skip_sw %v", c.Name, &f, hardware)
				}
			}
		}
	}
}

// The filters of the specialiser have no key and no action that is not tried. The list is that of pkg/specialize.
func TestEverythingIsTried(t *testing.T) {
	fields := map[ir.Field]bool{}
	actions := map[string]bool{}
	for _, c := range Capabilities {
		if c.filters == nil {
			continue
		}
		for _, f := range c.filters(trial{device: "lo", egress: 1, chain: 1, another: 2, pref: 1}) {
			for _, term := range f.Match {
				fields[term.Field] = true
			}
			for _, a := range f.Actions {
				actions[kindOf(a)] = true
			}
		}
	}
	for _, f := range []ir.Field{
		ir.EthSrc, ir.EthDst, ir.IPProto, ir.IPSrc, ir.IPDst, ir.IPv6Dst, ir.IPDSCP, ir.IPTTL, ir.IPFrag, ir.TCPDst, ir.TCPFlags, ir.UDPSrc, ir.ICMPType,
		ir.ICMPCode, ir.ICMPv6Type, ir.CTState, ir.CTZone, ir.CTMark, ir.CTLabel, ir.TunSrc, ir.TunDst, ir.TunID, ir.TunMetadata0,
	} {
		if !fields[f] {
			t.Errorf("no filter asks for %v", f)
		}
	}
	for _, a := range []Action{CT{}, Pedit{}, CSum{}, TunnelSet{}, TunnelUnset{}, SkbEdit{}, Mirred{}, Goto{}, Pass{}, Drop{}} {
		if !actions[kindOf(a)] {
			t.Errorf("no filter has the action %s", kindOf(a))
		}
	}
}

func finding(t *testing.T, name string, a Answer, words string) Finding {
	t.Helper()
	for i := range Capabilities {
		if Capabilities[i].Name == name {
			return Finding{&Capabilities[i], a, words}
		}
	}
	t.Fatalf("no capability %s", name)
	return Finding{}
}

// What is missing for want of something else is not told twice; what is not vital, or not known, is no obstacle.
func TestCapsMissing(t *testing.T) {
	c := Caps{Findings: []Finding{
		finding(t, CapClsact, Yes, ""), finding(t, CapFlower, No, "ENOENT"), finding(t, "indev", No, "not without flower"),
		finding(t, CapTerse, Unknown, "EPERM"), finding(t, CapResume, No, "EOPNOTSUPP"),
	}}
	var names []string
	for _, f := range c.Missing() {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "flower resume" {
		t.Errorf("Missing() = %s, want flower and resume", got)
	}
	if got := c.Obstacle(); !strings.Contains(got, "flower") || !strings.Contains(got, "ENOENT") {
		t.Errorf("Obstacle() = %q", got)
	}
	if !c.Has(CapClsact) || c.Has(CapFlower) || c.Has(CapTerse) || c.Has(CapCT) {
		t.Errorf("Has() is wrong about %+v", c)
	}
	c.Findings[1], c.Findings[2] = finding(t, CapFlower, Unknown, "EPERM"), finding(t, "indev", Unknown, "EPERM")
	if got := c.Obstacle(); got != "" {
		t.Errorf("Obstacle() = %q of what is not known", got)
	}
}

func TestConfigValue(t *testing.T) {
	const config = "# Linux\nCONFIG_NET=y\nCONFIG_NET_CLS_FLOWER=m\nCONFIG_NET_TC_SKB_EXT_NOT=y\n# CONFIG_NET_SCH_INGRESS is not set\n"
	for _, c := range []struct{ text, option, want string }{
		{config, "CONFIG_NET", "y"},
		{config, "CONFIG_NET_CLS_FLOWER", "m"},
		{config, "CONFIG_NET_SCH_INGRESS", "n"},
		{config, "CONFIG_NET_TC_SKB_EXT", "n"},
		{"", "CONFIG_NET_TC_SKB_EXT", ""},
		{"not found", "CONFIG_NET_TC_SKB_EXT", ""},
	} {
		if got := configValue(c.text, c.option); got != c.want {
			t.Errorf("configValue(%.20q, %s) = %q, want %q", c.text, c.option, got, c.want)
		}
	}
}

// An error says no, in the kernel's words, unless it may be gone next time.
func TestVerdicts(t *testing.T) {
	f := examples(t)[0]
	for _, c := range []struct {
		err    error
		answer Answer
		words  string
	}{
		{nil, Yes, ""},
		{&OpError{Op: AddOp(&f), Err: unix.ENOENT, Message: "TC classifier not found"}, No, "ENOENT no such file or directory (TC classifier not found)"},
		{&OpError{Op: AddOp(&f), Err: unix.EOPNOTSUPP}, No, "EOPNOTSUPP operation not supported"},
		{fmt.Errorf("tc clsact: %w", unix.EINVAL), No, "EINVAL tc clsact: invalid argument"},
		{&OpError{Op: AddOp(&f), Err: unix.EPERM}, Unknown, "EPERM operation not permitted"},
		{unix.ENOBUFS, Unknown, "ENOBUFS no buffer space available"},
		{context.Canceled, Unknown, "context canceled"},
	} {
		if a, words := verdictOf(c.err); a != c.answer || words != c.words {
			t.Errorf("verdictOf(%v) = %v, %q, want %v, %q", c.err, a, words, c.answer, c.words)
		}
	}
}

// A kernel that takes a filter and leaves out what it does not know is found out; whatever happens, the filter is removed.
func TestTry(t *testing.T) {
	target := Target{Block: 3}
	f := on(ProtocolIPv4, ipv4TCP.Masked(ir.TCPFlags, 2, 0x17), Pass{})(trial{chain: 1, pref: 1})
	less := f
	less.Match = ipv4TCP
	hw := f
	hw.Flags = SkipSW | Verbose
	for _, c := range []struct {
		name   string
		try    Filter
		has    *Filter // what the kernel makes of it
		inHW   bool
		refuse unix.Errno
		answer Answer
		words  string
	}{
		{"kept", f, &f, false, 0, Yes, ""},
		{"less", f, &less, false, 0, No, "the kernel has made of it: chain 1 pref 1"},
		{"lost", f, nil, false, 0, No, "lost"},
		{"refused", f, &f, false, unix.EOPNOTSUPP, No, "EOPNOTSUPP operation not supported (why)"},
		{"hardware", hw, &hw, true, 0, Yes, ""},
		{"not in hardware", hw, &hw, false, 0, No, "not in the hardware"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := tctest.NewKernel(t)
			k.Refuse = func(m netlink.Message) (unix.Errno, string) {
				if m.Header.Type == rtmNewTFilter && c.refuse != 0 {
					return c.refuse, "why"
				}
				return 0, ""
			}
			k.Makes = func([]byte) []byte {
				if c.has == nil {
					return nil
				}
				return filterOf(t, target, c.has)
			}
			k.NIC = func([]byte, int) bool { return c.inHW }
			a, words := try(t.Context(), NewConn(k.Dial()), target, []Filter{c.try})
			if a != c.answer || !strings.Contains(words, c.words) {
				t.Errorf("try() = %v, %q, want %v, %q", a, words, c.answer, c.words)
			}
			added, removed := 0, 0
			for _, r := range k.Requests() {
				for _, m := range r {
					if m.Header.Type == rtmNewTFilter {
						added++
					}
					if m.Header.Type == rtmDelTFilter {
						removed++
					}
				}
			}
			if c.refuse == 0 && added != removed || c.refuse != 0 && removed != 0 {
				t.Errorf("%d filters added, %d removed", added, removed)
			}
		})
	}
}

// Probe leaves nothing behind: no qdisc, no device, no thread in another namespace. In a guest there is everything but what is
// newer than its kernel, and whether NET_TC_SKB_EXT is there is told from how the kernel was made.
func TestKernelProbe(t *testing.T) {
	privileged(t)
	before := surroundings(t)
	c, err := Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range c.Findings {
		t.Logf("%-20s %-8v %s", f.Name, f.Answer, f.Words)
	}
	if after := surroundings(t); before != after {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if len(c.Findings) != len(Capabilities) || c.Release == "" {
		t.Errorf("%d findings of %d, kernel %q", len(c.Findings), len(Capabilities), c.Release)
	}
	if os.Getenv("OFFLOADD_VM") == "" {
		return
	}
	for _, f := range c.Missing() {
		if f.Name != CapNoFrag && f.Name != CapResume {
			t.Errorf("%s is missing: %s", f.Name, f.Words)
		}
	}
	config, err := readConfig("/proc/config.gz")
	if err != nil {
		if config, err = readConfig("/boot/config-" + c.Release); err != nil {
			config, err = readConfig("/lib/modules/" + c.Release + "/config")
		}
	}
	if want := configValue(config, "CONFIG_NET_TC_SKB_EXT"); err == nil && c.Has(CapResume) != (want == "y") {
		t.Errorf("resume: %v, but CONFIG_NET_TC_SKB_EXT=%s", c.Has(CapResume), want)
	}
}

// surroundings is what a probe must not change.
func surroundings(t *testing.T) string {
	t.Helper()
	conn, err := Dial(DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	qs, err := conn.Qdiscs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	devices, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{fmt.Sprint(qs)}
	for l := range strings.Lines(string(devices)) {
		name, _, _ := strings.Cut(l, ":")
		names = append(names, name)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	spaces := map[string]bool{}
	for _, thread := range threads {
		if ns, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/net"); err == nil {
			spaces[ns] = true
		}
	}
	return strings.Join(names, "\n") + fmt.Sprint(spaces)
}

// A device that is no port of a switch is probed without a trace. In a guest its driver says that it has no offload.
func TestKernelProbeDevice(t *testing.T) {
	s := newSpace(t)
	_ = s.conn.DeleteClsact(t.Context(), s.ifindex("v0"))
	err := inNetNS("/run/netns/"+s.name, func() error {
		for _, name := range []string{"v0", "v1", "lo"} {
			d, err := ProbeDevice(t.Context(), name)
			if err != nil {
				return err
			}
			for _, f := range d.Findings {
				t.Logf("%s %-20s %-8v %s", name, f.Name, f.Answer, f.Words)
			}
			if a := answer(d.Findings, CapDrop); a != No || answer(d.Findings, CapSwitch) != No {
				t.Errorf("%s: drop %v", name, a)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, target := range []Target{{Block: kernelBlock}, {Ifindex: 1}} {
		if all := s.dump(target, DumpOptions{}); len(all) != 0 {
			t.Errorf("%v has %d filters", target, len(all))
		}
	}
	qs, err := s.conn.Qdiscs(t.Context())
	if err != nil || slices.ContainsFunc(qs, func(q Qdisc) bool { return q.Ifindex == s.ifindex("v0") }) || len(qs) != 2 {
		t.Errorf("qdiscs %v, %v", qs, err)
	}
	if _, err := ProbeDevice(t.Context(), "nosuchdevice"); err == nil {
		t.Error("a device that does not exist is probed")
	}
}

// inNetNS calls f in the network namespace at path.
func inNetNS(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return inNewNetNS(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// Features are read by name; lo is known for one.
func TestFeatures(t *testing.T) {
	generic, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = generic.Close() }()
	on, err := hasFeature(t.Context(), generic, loopback, "loopback")
	if errors.Is(err, unix.ENOENT) {
		t.Skip("this kernel has no ethtool netlink, which is of Linux 5.6")
	}
	if err != nil || !on {
		t.Errorf("hasFeature(lo, loopback) = %v, %v", on, err)
	}
	if on, err := hasFeature(t.Context(), generic, loopback, "hw-tc-offload"); err != nil || on {
		t.Errorf("hasFeature(lo, hw-tc-offload) = %v, %v", on, err)
	}
	ended, end := context.WithTimeout(t.Context(), time.Nanosecond)
	defer end()
	<-ended.Done()
	if _, err := hasFeature(ended, generic, loopback, "loopback"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the end: %v", err)
	}
}
