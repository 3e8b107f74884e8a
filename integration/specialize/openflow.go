package specialize

import (
	"fmt"

	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// flows returns the program that the switch gets: what pkg/apply sends of a topology's rules, read back from the bytes.
func flows(t *topology.Topology) (*eval.Program, error) {
	table := apply.NewFlowTable()
	groups := map[uint32]ir.SelectGroup{}
	for _, o := range t.Owned {
		table.Replace(apply.Replacement{Owner: apply.Owner(o.Owner), Rules: o.Rules, Groups: o.Groups, Meters: o.Meters})
		for id, g := range o.Groups {
			decoded, err := openflow.DecodeGroup(openflow.AppendGroup(nil, &g))
			if err != nil {
				return nil, fmt.Errorf("group %d: %w", id, err)
			}
			groups[id] = *decoded
		}
	}
	var b eval.Builder
	var failed error
	table.Desired(func(k apply.Key, f apply.Flow) {
		m, err := openflow.DecodeMatch([]byte(k.Match))
		if err == nil {
			var acts []ir.Action
			acts, err = openflow.DecodeActions([]byte(f.Actions))
			b.Add(eval.Owner{}, []ir.Rule{{Table: k.Table, Priority: k.Priority, Cookie: f.Cookie, Match: m, Actions: acts}}, nil)
		}
		if err != nil {
			failed = fmt.Errorf("flow in table %d: %w", k.Table, err)
		}
	})
	b.Add(eval.Owner{}, nil, groups)
	return b.Program(), failed
}
