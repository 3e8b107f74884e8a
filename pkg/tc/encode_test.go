package tc

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ir"
)

var cmpFilters = cmp.Options{
	cmp.Comparer(func(a, b ir.Match) bool { return a.Equal(b) }), cmp.Comparer(func(a, b CT) bool { return a == b }),
	cmp.Comparer(func(a, b TunnelSet) bool { return sameAction(a, b) }),
}

func diff(want, got *Filter) string { return cmp.Diff(want, got, cmpFilters) }

// What is decoded is what was encoded.
func TestRoundTrip(t *testing.T) {
	g := newGen(t)
	kinds := map[string]int{}
	for i := range 5000 {
		f := g.filter(Key{uint32(g.IntN(MaxChain + 1)), uint16(1 + g.IntN(65535)), 1 + uint32(i)})
		target := pick(g, Target{Ifindex: 7}, Target{Block: 1 + g.Uint32N(1000)})
		b, err := AppendFilter(nil, target, &f)
		if err != nil {
			t.Fatalf("AppendFilter(%v) = %v", &f, err)
		}
		in, err := Decode(b)
		if err != nil {
			t.Fatalf("Decode(AppendFilter(%v)) = %v", &f, err)
		}
		if in.Foreign != nil || in.Target != target || in.Terse {
			t.Fatalf("%v: decoded at %v, terse %v, foreign %q", &f, in.Target, in.Terse, in.Foreign)
		}
		if d := diff(&f, &in.Filter); d != "" {
			t.Fatalf("Decode(AppendFilter(%v)) (-want +got):\n%s", &f, d)
		}
		for _, a := range f.Actions {
			kinds[fmt.Sprintf("%T", a)]++
		}
	}
	if len(kinds) != 12 {
		t.Errorf("filters had %d kinds of actions, want 12: %v", len(kinds), kinds)
	}
}

// Every field that flower has a key for is used by the generator, which the other tests rely on.
func TestGeneratorIsComplete(t *testing.T) {
	g := newGen(t)
	seen := map[ir.Field]bool{}
	for range 5000 {
		f := g.filter(Key{0, 1, 1})
		for _, term := range f.Match {
			seen[term.Field] = true
		}
	}
	for _, k := range append(keys, fragKey) {
		if !seen[k.field] {
			t.Errorf("no filter has %s", k.field)
		}
	}
}

// Conditions that flower has no words for are refused, not weakened.
func TestNoWords(t *testing.T) {
	for _, c := range []struct {
		field       ir.Field
		value, mask uint64
	}{
		{ir.Reg0, 1, 1},
		{ir.Metadata, 1, 1},
		{ir.InPort, 1, 0xffff},
		{ir.IPv6Label, 1, 1},
		{ir.NDTarget, 1, 1},
		{ir.PktMark, 1, 1},
		{ir.TunFlags, 1, 1},
		{ir.CTNWSrc, 1, 1},
		{ir.IPProto, 6, 7},
		{ir.IPFrag, 2, 2},
		{ir.IPFrag, 0, 2},
		{ir.ARPOp, 1, 0xff},
		{ir.ARPOp, 0x101, 0xffff},
		{ir.CTState, 0x40, 0x40},
		{ir.TunID, 1, 0xffffff},
		{ir.TunID, 1 << 32, ^uint64(0)},
		{ir.EthType, 0x800, 0xffff},
		{ir.VLANTCI, 0, 0x1000},
		{ir.VLANTCI, 5, 0xfff},
		{ir.VLANTCI, 0x1005, 0x1fff},
	} {
		f := Filter{Pref: 1, Handle: 1, Protocol: ProtocolIPv4, Match: ir.Match{}.Masked(c.field, c.value, c.mask), Actions: []Action{Drop{}}}
		if _, err := AppendFilter(nil, Target{Block: 1}, &f); err == nil {
			t.Errorf("AppendFilter of %s=%#x/%#x succeeds", c.field, c.value, c.mask)
		}
	}
}

// Our messages are those of tc: it is run under strace with the arguments of random filters. That the kernel may refuse
// them does not matter.
func TestSameBytesAsTC(t *testing.T) {
	for _, program := range []string{"tc", "strace"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	g := newGen(t)
	g.tc = true
	filters := examples(t)
	for i := range 400 {
		filters = append(filters, g.filter(Key{uint32(g.IntN(1000)), uint16(1 + g.IntN(65535)), 1 + uint32(i)}))
	}
	var script strings.Builder
	var want []Filter
	for _, f := range filters {
		if strings.Contains(f.Args(nil), "no_frag") {
			continue // newer than tc 6.1
		}
		want = append(want, f)
		fmt.Fprintf(&script, "filter add block 7 %s\n", f.Args(func(i int) string { return map[int]string{1: "lo"}[i] }))
	}
	dir := t.TempDir()
	batch, trace := filepath.Join(dir, "batch"), filepath.Join(dir, "trace")
	if err := os.WriteFile(batch, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command("strace", "-e", "trace=sendmsg", "-e", "write=all", "-o", trace, "tc", "-force", "-batch", batch).CombinedOutput()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got [][]byte
	for _, b := range hexdumps(t, string(text)) {
		if len(b) > 16 && ne.Uint16(b[4:]) == rtmNewTFilter {
			got = append(got, b[16:ne.Uint32(b)])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("tc sent %d messages, want %d; it said\n%s", len(got), len(want), strings.ReplaceAll(string(out), "Error: Block of given index was not found.\nWe have an error talking to the kernel\n", ""))
	}
	for i := range want {
		b, err := AppendFilter(nil, Target{Block: 7}, &want[i])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, got[i]) {
			t.Fatalf("%v: tc sends\n%swe\n%s", want[i].Args(nil), hex.Dump(got[i]), hex.Dump(b))
		}
	}
}

var dumpLine = regexp.MustCompile(`^ \| [0-9a-f]+  ((?:[0-9a-f]{2}[ ]{1,2}){1,16})`)

// hexdumps returns the buffers that strace has dumped.
func hexdumps(t *testing.T, trace string) (buffers [][]byte) {
	t.Helper()
	for l := range strings.SplitSeq(trace, "\n") {
		if strings.HasPrefix(l, " * ") && strings.Contains(l, "bytes in buffer") {
			buffers = append(buffers, nil)
		}
		if m := dumpLine.FindStringSubmatch(l); m != nil && len(buffers) > 0 {
			b, err := hex.DecodeString(strings.ReplaceAll(m[1], " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			buffers[len(buffers)-1] = append(buffers[len(buffers)-1], b...)
		}
	}
	return buffers
}
