package openflow

import (
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
)

func TestCommitThenDump(t *testing.T) {
	b := newBridge(t)
	c := b.dial(t)
	r := ir.Rule{Table: 5, Priority: 100, Cookie: 0xabc, Match: ir.Match{}.Eq(ir.Reg0, 1).Eq(ir.EthType, 0x800).Eq(ir.Metadata, 7), Actions: []ir.Action{ir.SetWhole(ir.Reg15, 3), ir.Resubmit{Table: 9}}}
	want := AddFlow(&r)
	errs, err := c.Commit(t.Context(), []Mod{want})
	if err != nil || errs != nil {
		t.Fatal(errs, err)
	}
	n := 0
	if err := c.DumpFlows(t.Context(), func(f *FlowStats) error {
		n++
		if string(f.Match) != want.Match || string(f.Actions) != want.Body {
			t.Errorf("got %x %x\nwant %x %x", f.Match, f.Actions, want.Match, want.Body)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Log(n, b.ofctl(t, "--no-names", "--no-stats", "dump-flows", "br0"))
}
