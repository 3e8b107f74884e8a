package main

import (
	"cmp"
	"fmt"

	offloadv1 "github.com/offloadd/offloadd/proto/offload/v1"
)

// addDelegated adds to a status what Open vSwitch offloads.
func (c *cli) addDelegated(s *sheet, o *offloadv1.Offload) {
	d := o.GetDelegated()
	if o.GetIdle() != "" {
		s.add("Offload", c.paint(red, "delegated, but "+o.GetIdle()))
		if d.GetFix() != "" {
			s.add("  To do", d.GetFix())
		}
		return
	}
	s.add("Offload", "delegated to Open vSwitch, tc-policy "+cmp.Or(d.GetTcPolicy(), "none"))
	if d.GetError() != "" {
		s.add("  Unknown", c.paint(red, "what it offloads: "+d.GetError()))
	}
}

// printDelegated prints the megaflows of each port by where they are.
func (c *cli) printDelegated(d *offloadv1.Delegated) {
	if len(d.GetPorts()) == 0 {
		return
	}
	fmt.Fprintln(c.stdout)
	sum := func(of func(*offloadv1.DelegatedPort) *offloadv1.MegaflowSum) func(*offloadv1.DelegatedPort) string {
		return func(p *offloadv1.DelegatedPort) string {
			n := of(p)
			return fmt.Sprintf("%d flows, %d packets", n.GetFlows(), n.GetPackets())
		}
	}
	l := newList(c, "", []column[*offloadv1.DelegatedPort]{
		{name: "PORT", value: func(p *offloadv1.DelegatedPort) string { return cmp.Or(p.GetPort(), "-") }},
		{name: "DEVICE", value: (*offloadv1.DelegatedPort).GetDevice},
		{name: "NIC", value: sum((*offloadv1.DelegatedPort).GetNic)},
		{name: "TC", value: sum((*offloadv1.DelegatedPort).GetTc)},
		{name: "PARTLY", value: sum((*offloadv1.DelegatedPort).GetPartly)},
		{name: "OVS", value: sum((*offloadv1.DelegatedPort).GetOvs)},
	})
	for _, p := range d.GetPorts() {
		_ = l.add(p) // tables do not fail
	}
	l.end()
}

// printMegaflows prints where the megaflows of a port are.
func (c *cli) printMegaflows(e *offloadv1.ExplainResponse) {
	fmt.Fprintln(c.stdout)
	l := newList(c, "", []column[*offloadv1.Megaflow]{
		{
			name:  "LAYER",
			value: func(m *offloadv1.Megaflow) string { return layerText(m.GetLayer()) },
			style: func(m *offloadv1.Megaflow) style {
				return choose(m.GetLayer() == offloadv1.Layer_LAYER_OVS, yellow, green)
			},
		},
		{name: "PACKETS", value: func(m *offloadv1.Megaflow) string { return packetsText(m.GetCounters()) }},
		{name: "BYTES", value: func(m *offloadv1.Megaflow) string { return bytesText(m.GetCounters()) }},
		{name: "USED", value: (*offloadv1.Megaflow).GetUsed},
		{name: "UFID", wide: true, value: func(m *offloadv1.Megaflow) string { return cmp.Or(m.GetUfid(), "-") }},
		{name: "MEGAFLOW", value: func(m *offloadv1.Megaflow) string {
			text := m.GetMatch() + " actions:" + m.GetActions()
			if m.GetReason() != "" {
				text += " (" + m.GetReason() + ")"
			}
			return text
		}},
	})
	for _, m := range e.GetMegaflows() {
		_ = l.add(m) // tables do not fail
	}
	l.end()
	if n := e.GetMegaflowsLeft(); n > 0 {
		fmt.Fprintf(c.stdout, "\nand %d more, with fewer packets\n", n)
	}
}
