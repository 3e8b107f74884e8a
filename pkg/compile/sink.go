package compile

import "github.com/offloadd/offloadd/pkg/ir"

// A sink collects the rules of one unit, and the groups and meters that they use.
type sink struct {
	rules  []ir.Rule
	groups map[uint32]ir.SelectGroup
	meters map[uint32]ir.RateMeter
}

// rule adds a rule. The sink keeps m and acts, which the caller does not change afterwards.
func (s *sink) rule(table uint8, priority uint16, cookie uint64, m ir.Match, acts ...ir.Action) {
	s.rules = append(s.rules, ir.Rule{Table: table, Priority: priority, Cookie: cookie, Match: m, Actions: acts})
}
