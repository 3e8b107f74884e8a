package tc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/ir"
)

// A space is a network namespace of its own with two devices, v0 and v1, which share block 5, and lo.
type space struct {
	t       *testing.T
	name    string
	conn    *Conn
	devices map[int]string
}

const kernelBlock = 5

// privileged skips a test that makes network namespaces, if the kernel refuses one. In a guest it does not.
func privileged(t *testing.T) {
	t.Helper()
	err := inNewNetNS(func() error { return nil })
	if errors.Is(err, unix.EPERM) && os.Getenv("OFFLOADD_VM") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// newSpace makes one. On a kernel without flower the test is skipped, if adding the simplest of filters says so; in a
// guest (OFFLOADD_VM) there is flower.
func newSpace(t *testing.T) *space {
	t.Helper()
	privileged(t)
	s := &space{t: t, name: fmt.Sprintf("tc-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)}
	s.run("ip", "netns", "add", s.name)
	t.Cleanup(func() { s.run("ip", "netns", "del", s.name) })
	conn, err := Dial(DialOptions{NetNS: "/run/netns/" + s.name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.conn = conn
	s.run("ip", "-n", s.name, "link", "set", "lo", "up")
	f := Filter{Pref: 1, Handle: 1, Protocol: ProtocolAll, Actions: []Action{Pass{}}}
	err = conn.EnsureClsact(t.Context(), 1, 0)
	if err == nil {
		var refused []OpError
		if refused, err = conn.Apply(t.Context(), Target{Ifindex: 1}, []Op{AddOp(&f), DeleteOp(f.Key())}); len(refused) > 0 {
			err = &refused[0]
		}
	}
	if errors.Is(err, unix.ENOENT) && os.Getenv("OFFLOADD_VM") == "" {
		t.Skipf("this kernel cannot do it: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.run("ip", "-n", s.name, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	s.devices = map[int]string{}
	for l := range strings.SplitSeq(s.run("ip", "-n", s.name, "-o", "link"), "\n") {
		if m := regexp.MustCompile(`^(\d+): (\w+)`).FindStringSubmatch(l); m != nil {
			i, _ := strconv.Atoi(m[1])
			s.devices[i] = m[2]
		}
	}
	for i, name := range s.devices {
		if name == "v0" || name == "v1" {
			if err := conn.EnsureClsact(t.Context(), i, kernelBlock); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func (s *space) device(i int) string { return s.devices[i] }

func (s *space) ifindex(name string) int {
	for i, n := range s.devices {
		if n == name {
			return i
		}
	}
	s.t.Fatalf("no device %s", name)
	return 0
}

func (s *space) run(args ...string) string {
	s.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (s *space) tc(args ...string) string {
	s.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", s.name, "tc"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Errorf("tc %s: %v\n%s", strings.Join(args, " "), err, out[max(0, len(out)-1000):])
	}
	return string(out)
}

// apply does operations that must succeed.
func (s *space) apply(target Target, ops []Op) {
	s.t.Helper()
	refused, err := s.conn.Apply(s.t.Context(), target, ops)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range refused {
		s.t.Errorf("%v", &refused[i])
	}
	if len(refused) > 0 {
		s.t.FailNow()
	}
}

// dump returns what there is.
func (s *space) dump(target Target, o DumpOptions) (all []*Installed) {
	s.t.Helper()
	if err := s.conn.Dump(s.t.Context(), target, o, func(in *Installed) error {
		all = append(all, in)
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return all
}

// filters returns n random filters in a few chains, each with its own pref, and the examples.
func (s *space) filters(n int, show bool) []Filter {
	g := newGen(s.t)
	g.kernel, g.show = true, show
	g.devices, g.indev = nil, nil
	for i := 1; i < 10; i++ {
		if name := s.devices[i]; name != "" {
			g.devices, g.indev = append(g.devices, i), append(g.indev, name)
		}
	}
	var fs []Filter
	for _, f := range examples(s.t) {
		if f.Flags&SkipSW == 0 {
			fs = append(fs, f)
		}
	}
	for i := range n {
		fs = append(fs, g.filter(Key{uint32(g.IntN(4)), uint16(1000 + i), 1 + g.Uint32N(1<<32-1)}))
	}
	return fs
}

// install adds filters and compares them with what the kernel lists.
func (s *space) install(target Target, fs []Filter) map[Key]*Installed {
	t := s.t
	t.Helper()
	ops := make([]Op, 0, len(fs))
	for i := range fs {
		ops = append(ops, AddOp(&fs[i]))
	}
	s.apply(target, ops)
	<-time.After(20 * time.Millisecond) // times count hundredths of a second, and tc says nothing of what is younger: so nothing is, in any list

	got := map[Key]*Installed{}
	for _, in := range s.dump(target, DumpOptions{}) {
		if got[in.Filter.Key()] != nil {
			t.Errorf("%v is listed twice", in.Filter.Key())
		}
		got[in.Filter.Key()] = in
	}
	if len(got) != len(fs) {
		t.Errorf("the dump has %d filters, want %d", len(got), len(fs))
	}
	for i := range fs {
		f := &fs[i]
		in := got[f.Key()]
		if in == nil {
			t.Errorf("not in the dump: %v", f)
			continue
		}
		back := in.Filter
		back.Flags &^= InHW | NotInHW
		if d := diff(f, &back); d != "" || in.Foreign != nil || in.Target != target {
			t.Errorf("%v: %v foreign %q (-want +got):\n%s", f, in.Target, in.Foreign, d)
		}
	}
	return got
}

// Masks of every form are given back as they were sent.
func TestKernelMasks(t *testing.T) {
	s := newSpace(t)
	s.install(Target{Block: kernelBlock}, s.filters(300, false))
	s.install(Target{Ifindex: 1}, s.filters(100, false))
}

// What the kernel gives back is what was installed, and tc shows it as Show does.
func TestKernelRoundTrip(t *testing.T) {
	s := newSpace(t)
	target := Target{Block: kernelBlock}
	fs := s.filters(500, true)
	if err := errors.Join(checkPrefs(fs)...); err != nil {
		t.Fatal(err)
	}
	got := s.install(target, fs)
	t.Run("terse", func(t *testing.T) {
		n := 0
		for _, in := range s.dump(target, DumpOptions{Terse: true}) {
			full := got[in.Filter.Key()]
			n++
			if full == nil || !in.Terse || in.Filter.Cookie != full.Filter.Cookie || len(in.Actions) != len(full.Actions) || in.Filter.Flags != full.Filter.Flags {
				t.Errorf("terse: %+v, full: %+v", in, full)
			}
		}
		if n != len(fs) {
			t.Errorf("the terse dump has %d filters, want %d", n, len(fs))
		}
	})
	t.Run("chain", func(t *testing.T) {
		chain, n := uint32(2), 0
		for i := range fs {
			if fs[i].Chain == chain {
				n++
			}
		}
		if all := s.dump(target, DumpOptions{Chain: &chain}); len(all) != n {
			t.Errorf("the dump of chain %d has %d filters, want %d", chain, len(all), n)
		}
	})
	t.Run("get", func(t *testing.T) {
		keys := []Key{{Chain: 4711, Pref: 1, Handle: 1}, {Chain: fs[0].Chain, Pref: fs[0].Pref, Handle: 0xfffff}} // which are not there
		for i := range fs {
			keys = append(keys, fs[i].Key())
		}
		n := 0
		err := s.conn.Get(t.Context(), target, keys, func(in *Installed) error {
			if full := got[in.Filter.Key()]; full == nil || in.Filter.String() != full.Filter.String() {
				t.Errorf("got: %+v, full: %+v", in, full)
			}
			n++
			return nil
		})
		if err != nil || n != len(fs) {
			t.Errorf("Get = %d filters, %v; want %d", n, err, len(fs))
		}
	})
	t.Run("show", func(t *testing.T) { s.compareText(t, got, ShowOptions{Device: s.device}) })
	t.Run("show -s", func(t *testing.T) { s.compareText(t, got, ShowOptions{Device: s.device, Stats: true}) })
	t.Run("show -j", func(t *testing.T) { s.compareJSON(t, got) })
	t.Run("replace and delete", func(t *testing.T) {
		var ops []Op
		for i := range fs {
			f := &fs[i]
			if i%2 == 0 {
				f.Actions = []Action{Drop{}}
				ops = append(ops, ReplaceOp(f))
			} else {
				ops = append(ops, DeleteOp(f.Key()))
			}
		}
		s.apply(target, ops)
		all := s.dump(target, DumpOptions{})
		if len(all) != (len(fs)+1)/2 {
			t.Errorf("after deleting every other one, there are %d filters of %d", len(all), len(fs))
		}
		for _, in := range all {
			if d := cmp.Diff([]Action{Drop{}}, in.Filter.Actions); d != "" {
				t.Errorf("%v: %s", in.Filter.Key(), d)
			}
		}
	})
}

var (
	seconds = regexp.MustCompile(`(installed|used|firstused) \d+ sec`)
	heads   = regexp.MustCompile(`(?m)^filter protocol \S+ pref \d+ flower chain \d+ \n`)
	starts  = regexp.MustCompile(`(?m)^filter protocol \S+ pref (\d+) flower chain (\d+) handle (0x[0-9a-f]+)`)
)

// compareText compares Show with tc, filter by filter.
func (s *space) compareText(t *testing.T, got map[Key]*Installed, o ShowOptions) {
	args := []string{"filter", "show", "block", strconv.Itoa(kernelBlock)}
	if o.Stats {
		args = append([]string{"-s"}, args...)
	}
	text := heads.ReplaceAllString(s.tc(args...), "")
	at := starts.FindAllStringSubmatchIndex(text, -1)
	if len(at) != len(got) {
		t.Errorf("tc shows %d filters, want %d", len(at), len(got))
	}
	bad := 0
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		pref, _ := strconv.ParseUint(text[m[2]:m[3]], 10, 16)
		chain, _ := strconv.ParseUint(text[m[4]:m[5]], 10, 32)
		handle, _ := strconv.ParseUint(text[m[6]:m[7]], 0, 32)
		in := got[Key{uint32(chain), uint16(pref), uint32(handle)}]
		if in == nil {
			t.Errorf("tc shows what the dump had not:\n%s", text[m[0]:end])
			continue
		}
		want, have := text[m[0]:end], in.Show(o)
		if d := cmp.Diff(strings.Split(seconds.ReplaceAllString(want, "$1"), "\n"), strings.Split(seconds.ReplaceAllString(have, "$1"), "\n")); d != "" {
			if bad++; bad > 3 {
				t.FailNow()
			}
			t.Errorf("%v (-tc +Show):\n%s", &in.Filter, d)
		}
	}
}

// compareJSON compares with what tc says to programs.
func (s *space) compareJSON(t *testing.T, got map[Key]*Installed) {
	var all []struct {
		Protocol string
		Pref     uint16
		Chain    uint32
		Options  struct {
			Handle  uint32
			Keys    map[string]any
			SkipHW  bool `json:"skip_hw"`
			Actions []struct {
				Order        int
				Kind, Cookie string
			}
		}
	}
	if err := json.Unmarshal([]byte(s.tc("-j", "filter", "show", "block", strconv.Itoa(kernelBlock))), &all); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, j := range all {
		if j.Options.Handle == 0 {
			continue // the head of a pref
		}
		n++
		in := got[Key{j.Chain, j.Pref, j.Options.Handle}]
		if in == nil {
			t.Errorf("tc has a filter that the dump had not: %+v", j)
			continue
		}
		if j.Protocol != protocolName(in.Filter.Protocol) || j.Options.SkipHW != (in.Filter.Flags&SkipHW != 0) || len(j.Options.Actions) != len(in.Actions) {
			t.Errorf("%v: tc has %+v", &in.Filter, j)
			continue
		}
		for i, a := range j.Options.Actions {
			cookie := ""
			if in.Filter.Cookie != (Cookie{}) {
				cookie = in.Filter.Cookie.String()
			}
			if a.Order != i+1 || strings.TrimSpace(a.Kind) != in.Actions[i].Kind || a.Cookie != cookie {
				t.Errorf("%v: tc has action %+v", &in.Filter, a)
			}
		}
		for _, c := range in.Filter.conditions(false) {
			if c.name == "geneve_opts" || c.name == "ip_flags" || c.name == "indev" {
				continue // of another form in JSON
			}
			value, _, _ := strings.Cut(c.value, "/")
			have, _, _ := strings.Cut(fmt.Sprint(j.Options.Keys[c.name]), "/")
			if f, ok := j.Options.Keys[c.name].(float64); ok {
				have = strconv.FormatUint(uint64(f), 10)
			}
			if have != value {
				t.Errorf("%v: tc has %s %v, want %s", &in.Filter, c.name, j.Options.Keys[c.name], c.value)
			}
		}
	}
	if n != len(got) {
		t.Errorf("tc has %d filters, want %d", n, len(got))
	}
}

// Refusals: each has its operation, its number and the kernel's words, also when all of a batch are refused, and the rest
// is done.
func TestKernelRefusals(t *testing.T) {
	s := newSpace(t)
	target := Target{Block: kernelBlock}
	f := examples(t)[1]
	s.apply(target, []Op{AddOp(&f)})
	otherMask := f
	otherMask.Match = f.Match.Masked(ir.IPDst, 0x0a000000, 0xffff0000)
	same := f
	same.Handle++
	missing := f
	missing.Handle = 77
	otherProtocol := f
	otherProtocol.Protocol, otherProtocol.Match, otherProtocol.Handle = ProtocolARP, nil, 78
	state := f
	state.Handle, state.Match = 79, f.Match.Masked(ir.CTState, stateNew, stateNew)
	device := f
	device.Handle, device.Actions, device.Match = 80, []Action{Mirred{Ifindex: 9999}}, nil
	for _, c := range []struct {
		op      Op
		err     error
		message string
	}{
		{AddOp(&f), unix.EEXIST, "Filter already exists"},
		{AddOp(&same), unix.EEXIST, ""},
		{ReplaceOp(&missing), unix.ENOENT, "NLM_F_CREATE"},
		{ReplaceOp(&otherMask), unix.EINVAL, ""},
		{AddOp(&otherProtocol), unix.EINVAL, "specified priority/protocol"},
		{AddOp(&state), unix.EINVAL, "no trk"},
		{AddOp(&device), unix.ENODEV, ""},
		{DeleteOp(missing.Key()), unix.ENOENT, "not found"},
		{DeleteOp(Key{99, 1, 1}), unix.ENOENT, "chain"},
	} {
		refused, err := s.conn.Apply(t.Context(), target, []Op{c.op})
		if err != nil {
			t.Fatal(err)
		}
		if len(refused) != 1 || !errors.Is(&refused[0], c.err) || !strings.Contains(refused[0].Message, c.message) {
			t.Errorf("Apply(%v) = %v, want %v with %q", c.op, refused, c.err, c.message)
		}
	}

	// A thousand operations, two thirds of which are refused.
	var ops []Op
	want := map[int]error{}
	for i := range 1000 {
		g := f
		g.Handle, g.Match = uint32(1000+i), f.Match.Eq(ir.TCPDst, uint64(i+1000))
		switch i % 3 {
		case 0:
			ops = append(ops, AddOp(&g))
		case 1:
			ops = append(ops, ReplaceOp(&g))
			want[i] = unix.ENOENT
		case 2:
			ops = append(ops, AddOp(&f))
			want[i] = unix.EEXIST
		}
	}
	refused, err := s.conn.Apply(t.Context(), target, ops)
	if err != nil || len(refused) != len(want) {
		t.Fatalf("%d of %d refused, %v", len(refused), len(want), err)
	}
	for i := range refused {
		if !errors.Is(&refused[i], want[refused[i].Index]) || i > 0 && refused[i].Index <= refused[i-1].Index {
			t.Errorf("%d: %v, want %v", refused[i].Index, &refused[i], want[refused[i].Index])
		}
	}
	if n := len(s.dump(target, DumpOptions{})); n != 1+334 {
		t.Errorf("%d filters, want 335", n)
	}
}

// A qdisc is made once, found again, and not taken from others.
func TestKernelQdiscs(t *testing.T) {
	s := newSpace(t)
	ctx := t.Context()
	v0 := s.ifindex("v0")
	qs, err := s.conn.Qdiscs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, q := range qs {
		if q == (Qdisc{1, "clsact", 0}) || q == (Qdisc{v0, "clsact", kernelBlock}) || q == (Qdisc{s.ifindex("v1"), "clsact", kernelBlock}) {
			found++
		}
	}
	if found != 3 || len(qs) != 3 {
		t.Errorf("Qdiscs() = %v", qs)
	}
	if err := s.conn.EnsureClsact(ctx, v0, kernelBlock); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := s.conn.EnsureClsact(ctx, v0, kernelBlock+1); !errors.Is(err, unix.EEXIST) {
		t.Errorf("another block: %v, want EEXIST", err)
	}
	if err := errors.Join(s.conn.DeleteClsact(ctx, v0), s.conn.DeleteClsact(ctx, v0), s.conn.DeleteClsact(ctx, 9999)); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
	s.tc("qdisc", "add", "dev", "v0", "ingress")
	if err := s.conn.EnsureClsact(ctx, v0, 0); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "ingress") {
		t.Errorf("where there is an ingress qdisc: %v, want EEXIST that says so", err)
	}
	if all := s.dump(Target{Block: 4711}, DumpOptions{}); len(all) != 0 {
		t.Errorf("a block that does not exist has %d filters", len(all))
	}
}

// Changes are told, with who has made them; counters count.
func TestKernelEventsAndCounters(t *testing.T) {
	s := newSpace(t)
	m, err := Watch(MonitorOptions{DialOptions{NetNS: "/run/netns/" + s.name}, true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	next := func(kind EventKind) Event {
		t.Helper()
		for {
			e, err := m.Next(ctx)
			if err != nil {
				t.Fatalf("waiting for event %d: %v", kind, err)
			}
			if e.Kind == kind {
				return e
			}
		}
	}
	f := Filter{Pref: 1, Handle: 1, Protocol: ProtocolIPv4, Actions: []Action{Pass{}}, Cookie: Cookie{1, 2, 3}}
	lo := Target{Ifindex: 1}
	s.apply(lo, []Op{AddOp(&f)})
	e := next(FilterNew)
	back := e.Filter.Filter
	back.Flags &^= InHW | NotInHW
	if d := diff(&f, &back); d != "" || e.Port != s.conn.Port() || e.Filter.Target != lo {
		t.Errorf("event of port %d (ours is %d) of %v:\n%s", e.Port, s.conn.Port(), e.Filter.Target, d)
	}
	s.run("ip", "netns", "exec", s.name, "ping", "-c", "3", "-i", "0.2", "-q", "127.0.0.1")
	for _, o := range []DumpOptions{{}, {Terse: true}} {
		all := s.dump(lo, o)
		if len(all) != 1 {
			t.Fatalf("%d filters", len(all))
		}
		if packets, bytes := all[0].Packets(); packets != 6 || bytes != 6*84 && bytes != 6*98 {
			t.Errorf("counters after 3 pings: %d packets, %d bytes", packets, bytes)
		}
		if !o.Terse && all[0].Actions[0].LastUsed > 1000 {
			t.Errorf("last used %d ticks ago", all[0].Actions[0].LastUsed)
		}
	}
	s.tc("filter", "del", "dev", "lo", "ingress", "pref", "1")
	if e := next(FilterGone); e.Port == s.conn.Port() || e.Filter.Filter.Pref != 1 {
		t.Errorf("event of port %d (ours is %d): %v", e.Port, s.conn.Port(), &e.Filter.Filter)
	}
	v0 := s.ifindex("v0")
	s.run("ip", "-n", s.name, "link", "del", "v0")
	if e := next(LinkGone); e.Ifindex != v0 && e.Name != "v1" {
		t.Errorf("gone: %+v", e)
	}
	stopped, stop := context.WithCancel(ctx)
	stop()
	if _, err := m.Next(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("Next of a context that has ended: %v", err)
	}
	s.run("ip", "-n", s.name, "link", "add", "d0", "type", "veth")
	next(LinkNew)
}
