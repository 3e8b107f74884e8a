package openflow

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ir"
)

// A filter finds what it says, by table and by the bits of the cookie; many filters are as many answers.
func TestDumpFlowsOf(t *testing.T) {
	b := newBridge(t)
	c := b.dial(t)
	var mods []Mod
	for table := range uint8(4) {
		for cookie := range uint64(100) {
			mods = append(mods, AddFlow(&ir.Rule{Table: table, Priority: 1, Cookie: cookie, Match: ir.Match{}.Eq(ir.Metadata, cookie)}))
		}
	}
	commit(t, c, mods)
	each := make([]FlowFilter, 0, 400)
	for table := range uint8(4) {
		for cookie := range uint64(100) {
			each = append(each, FlowFilter{table, cookie, ^uint64(0)})
		}
	}
	for _, tt := range []struct {
		name    string
		filters []FlowFilter
		want    func(table uint8, cookie uint64) int
	}{
		{"none", nil, func(uint8, uint64) int { return 0 }},
		{"all", []FlowFilter{{Table: AllTables}}, func(uint8, uint64) int { return 1 }},
		{"a table", []FlowFilter{{Table: 2}}, func(table uint8, _ uint64) int { return count(table == 2) }},
		{"a cookie", []FlowFilter{{AllTables, 7, ^uint64(0)}}, func(_ uint8, cookie uint64) int { return count(cookie == 7) }},
		{"odd cookies of a table", []FlowFilter{{3, 1, 1}}, func(table uint8, cookie uint64) int { return count(table == 3 && cookie%2 == 1) }},
		{"two that overlap", []FlowFilter{{Table: 1}, {1, 5, ^uint64(0)}}, func(table uint8, cookie uint64) int {
			return count(table == 1) + count(table == 1 && cookie == 5)
		}},
		{"each", each, func(uint8, uint64) int { return 1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got, want []string
			if err := c.DumpFlowsOf(t.Context(), tt.filters, func(s *FlowStats) error {
				got = append(got, fmt.Sprint(s.Table, " ", s.Cookie))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for table := range uint8(4) {
				for cookie := range uint64(100) {
					for range tt.want(table, cookie) {
						want = append(want, fmt.Sprint(table, " ", cookie))
					}
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("flows (-want +got):\n%s", diff)
			}
		})
	}
}

func count(ok bool) int {
	if ok {
		return 1
	}
	return 0
}
