package specialize_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
)

// switchRules are a small switch: two ports and a tunnel, an ACL that lets what is established and HTTP pass, and a router's hop on the
// way to the tunnel. Each has the row of its table and priority, as the first bytes of its UUID.
func switchRules() map[specialize.Owner][]ir.Rule {
	var all ir.Match
	set := func(f ir.Field, v uint64) ir.Action { return ir.Set{Field: f, Value: ir.U64(v), Mask: f.Ones()} }
	const ipv4, ipv6, tcp = 0x800, 0x86dd, 6
	const trk, est = 0x20, 0x02
	rules := []ir.Rule{
		{Table: 0, Priority: 100, Match: all.Eq(ir.InPort, 1), Actions: []ir.Action{set(ir.Metadata, 7), set(ir.Reg14, 1), ir.Resubmit{Table: 8}}},
		{Table: 0, Priority: 100, Match: all.Eq(ir.InPort, 2), Actions: []ir.Action{set(ir.Metadata, 7), set(ir.Reg14, 2), ir.Resubmit{Table: 8}}},
		{Table: 8, Priority: 90, Match: all.Eq(ir.Metadata, 7).Eq(ir.EthType, ipv4), Actions: []ir.Action{ir.CT{Table: 9, Zone: 5}}},
		{Table: 8, Priority: 80, Match: all.Eq(ir.Metadata, 7).Eq(ir.EthType, ipv6), Actions: []ir.Action{ir.Controller{}}},
		{
			Table: 9, Priority: 100, Match: all.Eq(ir.Metadata, 7).Masked(ir.CTState, trk|est, trk|est).Eq(ir.EthType, ipv4).Eq(ir.IPProto, tcp).Eq(ir.TCPDst, 80),
			Actions: []ir.Action{ir.Resubmit{Table: 10}},
		},
		{Table: 9, Priority: 50, Match: all.Eq(ir.Metadata, 7).Masked(ir.CTState, trk|est, trk|est).Eq(ir.CTMark, 1), Actions: nil},
		{Table: 9, Priority: 40, Match: all.Eq(ir.Metadata, 7), Actions: []ir.Action{ir.Resubmit{Table: 10}}},
		{Table: 10, Priority: 50, Match: all.Eq(ir.Metadata, 7).Eq(ir.EthDst, 0x0a0000000001), Actions: []ir.Action{ir.Output{Port: 1}}},
		{Table: 10, Priority: 50, Match: all.Eq(ir.Metadata, 7).Eq(ir.EthDst, 0x0a0000000002), Actions: []ir.Action{ir.Output{Port: 2}}},
		{
			Table: 10, Priority: 40, Match: all.Eq(ir.Metadata, 7).Eq(ir.EthDst, 0x0a00000000fe).Eq(ir.EthType, ipv4),
			Actions: []ir.Action{ir.DecTTL{}, set(ir.EthSrc, 0x0a00000000fe), set(ir.EthDst, 0x0a0000000003), set(ir.TunID, 9), set(ir.TunMetadata0, 0x10002), ir.Output{Port: 3}},
		},
	}
	owned := map[specialize.Owner][]ir.Rule{}
	for _, r := range rules {
		o := specialize.Owner{Row: [16]byte{0: r.Table, 1: byte(r.Priority)}, Part: 7}
		owned[o] = append(owned[o], r)
	}
	return owned
}

// The text of a program: an input is what the node has, "ports" or "ports tunnel".
func TestText(t *testing.T) {
	golden.Run(t, "testdata/text.txt", func(input string) string {
		return programText(t, smallProgram(strings.Contains(input, "tunnel")))
	})
}

func smallProgram(tunnel bool) *specialize.Program {
	rules := specialize.NewRules()
	for o, r := range switchRules() {
		rules.Replace(o, r)
	}
	in := specialize.Input{Ports: []specialize.Port{
		{OFPort: 1, Device: specialize.Device{Name: "v1", Ifindex: 11}, Enter: true},
		{OFPort: 2, Device: specialize.Device{Name: "v2", Ifindex: 12}},
	}}
	if tunnel {
		in.Geneve = ir.TunMetadata0
		in.TunnelDevice = &specialize.Device{Name: "genev_sys_6081", Ifindex: 13}
		in.Tunnels = []specialize.Tunnel{{OFPort: 3, Remote: netip.MustParseAddr("192.0.2.2"), Local: netip.MustParseAddr("192.0.2.1")}}
	}
	return rules.Specialize(in)
}

func programText(t *testing.T, p *specialize.Program) string {
	t.Helper()
	var b strings.Builder
	if err := p.Text(&b); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// The text does not depend on the order in which rules and ports are told.
func TestTextIsStable(t *testing.T) {
	want := programText(t, smallProgram(true))
	for range 20 {
		if got := programText(t, smallProgram(true)); got != want { // switchRules is a map
			t.Fatalf("the text is\n%s\nafter\n%s", got, want)
		}
	}
}

// From a device lead its own entries, to all states and no others.
func TestFrom(t *testing.T) {
	p := smallProgram(true)
	entries, states := p.From("v1")
	if len(entries) != 2 || entries[0].Device != "v1" || !slices.Equal(states, p.States) {
		t.Errorf("from v1: %v, %v, want two entries and %v", entries, states, p.States)
	}
	if entries, states := p.From("v2"); len(entries)+len(states) != 0 {
		t.Errorf("from v2, by which no packets enter: %v, %v", entries, states)
	}
}
