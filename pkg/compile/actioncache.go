package compile

import (
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
	"github.com/offloadd/offloadd/pkg/sb"
)

// maxActions bounds the caches of parsed and of encoded actions.
const maxActions = 1 << 14

// An actionCache remembers actions by text: many logical flows share few lists of actions.
type actionCache struct {
	parsed  map[actionKey]*parsedActions
	encoded map[encodedKey][]ir.Action
	flows   []logical.FlowMatch // scratch space of the compiler
}

type actionKey struct {
	text   string
	egress bool
	table  uint8
}

type encodedKey struct {
	actionKey
	isSwitch, snatZone, ctZeroSNAT bool
}

type parsedActions struct {
	logical.Actions
	prereqText string
	own        bool // the encoding is this flow's alone
	err        error
}

func (c *actionCache) trim() {
	if len(c.parsed) > keptTexts || len(c.encoded) > keptTexts {
		*c = actionCache{flows: c.flows}
	}
}

func keyOf(f *sb.LogicalFlow) actionKey { return actionKey{f.Actions, f.Egress, f.Table} }

func (c *actionCache) parse(f *sb.LogicalFlow) (*parsedActions, error) {
	k := keyOf(f)
	if p, ok := c.parsed[k]; ok {
		return p, p.err
	}
	at := logical.Stage{Pipeline: logical.Ingress, Table: f.Table}
	if f.Egress {
		at.Pipeline = logical.Egress
	}
	acts, err := logical.ParseActions(f.Actions, logical.Symbols(), logical.ActionOptions{At: at, Tables: ingressTables})
	p := &parsedActions{Actions: acts, err: err}
	p.prereqText = strings.Join(acts.Prereqs, " && ")
	p.own = !sharable(acts)
	if len(c.parsed) >= maxActions || c.parsed == nil {
		c.parsed = map[actionKey]*parsedActions{}
	}
	c.parsed[k] = p
	return p, err
}

// encode returns the OpenFlow actions of a logical flow in a datapath. The result is shared. s gets the groups and
// meters that it uses.
func (e *Engine) encode(s *sink, f *sb.LogicalFlow, p *parsedActions, dp *sb.Datapath) ([]ir.Action, error) {
	v, c := &e.view, &e.actions
	ctx := encodeContext{
		IsSwitch:          dp.IsSwitch,
		DatapathKey:       dp.Key,
		Cookie:            uint32(f.UUID.Cookie()),
		SNATZoneRequested: dp.CommonNATZoneIsSNAT,
		CTZeroSNAT:        v.local.CTZeroSNAT,
		HashL4Sym:         v.local.HashL4Sym,
		Port:              func(name string) (uint32, bool) { return v.key(dp, name) },
	}
	if p.own {
		ctx.Group = func(g ir.SelectGroup) uint32 { return e.group(s, g) }
		ctx.RateMeter = func(rate, burst uint64) uint32 { return e.meter(s, f.UUID, rate, burst) }
		ctx.ControllerMeter = f.ControllerMeter
		ctx.NamedMeter = func(name string) uint32 { return e.namedMeter(s, name) }
		ctx.TunnelTo = func(port string) (uint32, bool) { return v.tunnelToPort(dp, port) }
		return encode(p.Actions, ctx)
	}
	k := encodedKey{keyOf(f), dp.IsSwitch, dp.CommonNATZoneIsSNAT, v.local.CTZeroSNAT}
	if acts, ok := c.encoded[k]; ok {
		return acts, nil
	}
	acts, err := encode(p.Actions, ctx)
	if err != nil {
		return nil, err
	}
	if len(c.encoded) >= maxActions || c.encoded == nil {
		c.encoded = map[encodedKey][]ir.Action{}
	}
	c.encoded[k] = acts
	return acts, nil
}

// tunnelToPort returns the OpenFlow port of the tunnel to the chassis that has a port of dp.
func (v *view) tunnelToPort(dp *sb.Datapath, name string) (uint32, bool) {
	p := v.portByName(name)
	if p == nil || p.Datapath != dp.UUID {
		return 0, false
	}
	t, ok := v.tunnel(p.Chassis, sb.UUID{})
	return uint32(t.OFPort), ok
}
