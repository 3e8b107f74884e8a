package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/integration/parity/content"
	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

// What the document says of chains is what pkg/specialize makes of its network, and the filters that it quotes are those that its
// packets pass.
func TestPipelineDocChains(t *testing.T) {
	all := quotations(t)
	top, err := topology.Make(content.Content{
		Name: "pipeline-doc", NB: quoted(t, all, "ovn-nbctl"), Local: []string{"web"},
		SB: "chassis-add n2 geneve 172.31.0.2\nset chassis n2 other_config:port-up-notif=true other_config:ct-no-masked-label=true\n" +
			"lsp-bind client n2\nlsp-bind db n2\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	rules, in := top.Specialize()
	names := map[int]string{1: "web", 2: "genev_sys_6081"}
	in.TunnelDevice = &specialize.Device{Name: names[2], Ifindex: 2}
	for i := range in.Ports {
		in.Ports[i].Device = specialize.Device{Name: names[1], Ifindex: 1}
	}
	for i := range in.Tunnels {
		in.Tunnels[i].Local = netip.Addr{} // the default: the kernel chooses it
	}
	program := rules.Specialize(in)
	var text strings.Builder
	if err := program.Text(&text); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.SplitSeq(text.String(), "\n") {
		line, _, _ = strings.Cut(line, "  #") // rows have another UUID each time
		lines = append(lines, line)
	}
	for _, q := range all {
		if q.language != "chains" {
			continue
		}
		for line := range strings.SplitSeq(q.text, "\n") {
			found := false
			for _, l := range lines {
				found = found || l == line
			}
			if !found {
				t.Errorf("%s:%d: no chain has: %s", pipelineDoc, q.line, line)
			}
		}
	}

	var filters []tc.Filter
	for _, f := range program.Filters() {
		filters = append(filters, f.Filter)
	}
	block := eval.NewBlock(filters)
	var request eval.Packet
	for f, v := range map[ir.Field]uint64{
		ir.EthDst: 0x505400000001, ir.EthSrc: 0x505400000002, ir.EthType: 0x800, ir.IPSrc: 0x0a00000c, ir.IPDst: 0x0a00000b,
		ir.IPProto: 6, ir.IPTTL: 64, ir.TCPSrc: 40000, ir.TCPDst: 80,
		ir.TunID: 1, ir.TunSrc: 0xac1f0002, ir.TunDst: 0xac1f0001, ir.TunMetadata0: 0x20001,
	} {
		request.Set(f, ir.U64(v))
	}
	var answer eval.Packet
	for f, v := range map[ir.Field]uint64{
		ir.EthDst: 0x505400000002, ir.EthSrc: 0x505400000001, ir.EthType: 0x800, ir.IPSrc: 0x0a00000b, ir.IPDst: 0x0a00000c,
		ir.IPProto: 6, ir.IPTTL: 64, ir.TCPSrc: 80, ir.TCPDst: 40000,
	} {
		answer.Set(f, ir.U64(v))
	}
	var got []string
	for _, way := range []struct {
		packet eval.Packet
		from   eval.Arrival
		state  uint32
	}{
		{request, eval.Arrival{Device: names[2], EncDstPort: 6081}, eval.StateEst},
		{answer, eval.Arrival{Device: names[1]}, eval.StateEst | eval.StateRpl},
	} {
		v := block.Run(way.packet, way.from, func(uint16, *eval.Packet) eval.Conn { return eval.Conn{State: way.state} })
		if v.Kind != eval.Redirected {
			t.Fatalf("a packet is %v: %s; the filters it passed: %v", v.Kind, v.Why, v.Path)
		}
		for _, f := range v.Filters {
			args := f.Args(func(ifindex int) string { return names[ifindex] })
			for _, word := range []string{" no_percpu", " " + fmt.Sprint("cookie ", f.Cookie)} {
				args = strings.ReplaceAll(args, word, "")
			}
			got = append(got, args)
		}
	}
	if diff := cmp.Diff(strings.Split(quoted(t, all, "tc"), "\n"), got); diff != "" {
		t.Errorf("%s, tc (-quoted +is):\n%s", pipelineDoc, diff)
	}
}
