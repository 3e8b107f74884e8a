package openflow

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/ir"
)

// benchRules returns n rules of the kind that make up most of a node's flows.
func benchRules(n int) []ir.Rule {
	g := seeded()
	rules := make([]ir.Rule, n)
	for i := range rules {
		m := ir.Match{}.Eq(ir.EthType, etherTypeIPv4).Eq(ir.IPProto, protoTCP).Masked(ir.Reg10, 0, 0x10000).
			Eq(ir.Metadata, uint64(g.IntN(1000))).Eq(ir.IPSrc, uint64(i)).Eq(ir.TCPDst, uint64(g.IntN(65536)))
		rules[i] = ir.Rule{
			Table: uint8(8 + g.IntN(40)), Priority: 100, Cookie: g.Uint64() >> 32, Match: m,
			Actions: []ir.Action{
				ir.SetWhole(ir.Reg15, g.Uint64()&0xffff), ir.Load(ir.Bit(ir.Reg10, 3), 1), ir.Resubmit{Table: 20},
			},
		}
	}
	return rules
}

func BenchmarkAppend(b *testing.B) {
	rules := benchRules(1000)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r := &rules[i%len(rules)]
		buf = AppendMatch(buf[:0], r.Match)
		buf = AppendActions(buf, r.Actions)
	}
}

func BenchmarkAppendBundleAdd(b *testing.B) {
	m := AddFlow(&benchRules(1)[0])
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = appendBundleAdd(buf[:0], 1, 1, &m)
	}
}

// No memory is allocated for a flow on its way to the switch.
func TestEncodingDoesNotAllocate(t *testing.T) {
	g := gen{Rand: newRand(t)}
	buf := make([]byte, 0, maxMessage)
	for range 2000 {
		r := g.rule()
		m := AddFlow(&r)
		if n := testing.AllocsPerRun(1, func() {
			buf = AppendMatch(buf[:0], r.Match)
			buf = AppendActions(buf, r.Actions)
			buf, _ = appendBundleAdd(buf[:0], 1, 1, &m)
		}); n != 0 {
			t.Fatalf("%s: %v allocations", FormatFlow(&r), n)
		}
	}
}

// BenchmarkCommit installs flows and reads them back. The metric "ovs-ofctl-ratio" is our time for the installation
// divided by that of "ovs-ofctl --bundle add-flows" for the same flows; less is better.
func BenchmarkCommit(b *testing.B) {
	const n = 50000
	br, c := prepare(b)
	rules := benchRules(n)
	mods := make([]Mod, n)
	file := filepath.Join(b.TempDir(), "flows")
	var text []byte
	for i := range rules {
		mods[i] = AddFlow(&rules[i])
		text = append(append(text, FormatFlow(&rules[i])...), '\n')
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		b.Fatal(err)
	}
	var ours, theirs, dump time.Duration
	for b.Loop() {
		commit(b, c, []Mod{{Kind: FlowDelete, Table: AllTables}})
		start := time.Now()
		commit(b, c, mods)
		ours += time.Since(start)

		start = time.Now()
		got := 0
		if err := c.DumpFlows(b.Context(), func(*FlowStats) error { got++; return nil }); err != nil {
			b.Fatal(err)
		}
		dump += time.Since(start)
		if got != n {
			b.Fatalf("%d flows, want %d", got, n)
		}

		commit(b, c, []Mod{{Kind: FlowDelete, Table: AllTables}})
		start = time.Now()
		br.ofctl(b, "--bundle", "add-flows", "br0", file)
		theirs += time.Since(start)
	}
	total := float64(n * b.N)
	b.ReportMetric(total/ours.Seconds(), "installed-flows/s")
	b.ReportMetric(total/dump.Seconds(), "dumped-flows/s")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ovs-ofctl-ratio")
}
