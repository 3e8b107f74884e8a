package tc_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

const document = "../../docs/offload.md"

// The generated parts of docs/offload.md are what the tables say.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for _, part := range []struct{ name, text string }{
		{"example", example(t)},
		{"reasons", reasons()},
		{"capabilities", capabilities(tc.Capabilities)},
		{"devices", capabilities(tc.DeviceCapabilities)},
	} {
		begin, rest, ok := strings.Cut(want, "<!-- generated: "+part.name+" -->\n")
		_, after, ends := strings.Cut(rest, "<!-- end -->")
		if !ok || !ends {
			t.Fatalf("%s has no part %s", document, part.name)
		}
		want = begin + "<!-- generated: " + part.name + " -->\n\n" + part.text + "\n<!-- end -->" + after
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("%s is not what the tables say: go generate ./pkg/tc", document)
	}
}

// Numbers and names in the text are those of the sources.
func TestDocumentNumbers(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		fmt.Sprintf("number %d (%#04x)", apply.Block, apply.Block),
		fmt.Sprintf("chains from %d (0x%08x)", specialize.ChainBase, specialize.ChainBase),
		fmt.Sprintf("| | %d | the end", specialize.PrefEnd),
		fmt.Sprintf("| chain 0 | %d | only while", specialize.PrefGuard),
		fmt.Sprintf("%02x a guard, %02x a rule of chain 0, %02x a rule of another chain, %02x the end of a chain, %02x closes a chain or a device, %02x a probe",
			uint8(specialize.KindGuard), uint8(specialize.KindEntry), uint8(specialize.KindRule), uint8(specialize.KindEnd), uint8(specialize.KindClosed), uint8(specialize.KindProbe)),
		fmt.Sprintf("| any | %d to %d | only while a probe", specialize.PrefProbe, specialize.PrefProbeEnd),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q", document, want)
		}
	}
}

func reasons() string {
	var b strings.Builder
	b.WriteString("| reason | what it is about | what would change it |\n| --- | --- | --- |\n")
	for _, r := range specialize.Reasons() {
		d := r.Doc()
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", d.Name, d.Text, d.Fix)
	}
	return b.String()
}

func capabilities(all []tc.Capability) string {
	kernel := all[0].Since != ""
	var b strings.Builder
	if kernel {
		b.WriteString("| capability | what | Linux | without it | what brings it |\n| --- | --- | --- | --- | --- |\n")
	} else {
		b.WriteString("| capability | what | without it | what brings it |\n| --- | --- | --- | --- |\n")
	}
	for _, c := range all {
		name := "`" + c.Name + "`"
		if c.Vital {
			name += " *vital*"
		}
		fmt.Fprintf(&b, "| %s | %s | ", name, c.What)
		if kernel {
			b.WriteString(c.Since + " | ")
		}
		fmt.Fprintf(&b, "%s | %s |\n", c.Cost, c.Fix)
	}
	return b.String()
}

// example shows four filters as pkg/specialize makes them.
func example(t *testing.T) string {
	t.Helper()
	const chain = specialize.ChainBase
	cookie := func(kind specialize.Kind, state ...byte) tc.Cookie {
		c := tc.Cookie{0x0f, 0x1d, 1, byte(kind)}
		copy(c[4:], state)
		return c
	}
	filters := []tc.Filter{
		{
			Pref: 10, Protocol: tc.ProtocolIPv4, Match: ir.Match{}.Masked(ir.IPFrag, 1, 1), Actions: []tc.Action{tc.Pass{}},
			Cookie: cookie(specialize.KindGuard),
		},
		{
			Pref: 100, Protocol: tc.ProtocolIPv4, Indev: "pod1", Match: ir.Match{}.Eq(ir.EthSrc, 0x505400000001).Eq(ir.IPSrc, 0x0a00000b),
			Actions: []tc.Action{tc.CT{Zone: 5}, tc.Goto{Chain: chain}}, Cookie: cookie(specialize.KindEntry, 0, 0, 0, 0, 0, 0, 0, 3, 0x6e, 0x1c, 0x02, 0xd4),
		},
		{
			Chain: chain, Pref: 100, Protocol: tc.ProtocolIPv4,
			Match: ir.Match{}.Eq(ir.EthDst, 0x505400000002).Masked(ir.CTState, 0x22, 0x22).Eq(ir.CTZone, 5).Masked(ir.CTMark, 0, 1),
			Actions: []tc.Action{tc.TunnelSet{
				ID: 1, Src: netip.IPv4Unspecified(), Dst: netip.MustParseAddr("192.0.2.12"), DstPort: 6081, TTL: 64,
				Options: []tc.GeneveOption{{Class: tc.OptionClass, Type: tc.OptionType, Data: "\x00\x01\x00\x02"}},
			}, tc.Mirred{Ifindex: 9}},
			Cookie: cookie(specialize.KindRule, 0x3b, 0x91, 0x0c, 0xf2, 0x55, 0x08, 0xe6, 0x7a, 0xa0, 0x4f, 0x88, 0x15),
		},
		{
			Chain: chain, Pref: specialize.PrefEnd, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.CT{Clear: true}, tc.Pass{}},
			Cookie: cookie(specialize.KindEnd),
		},
	}
	var b strings.Builder
	b.WriteString("```\n")
	for i := range filters {
		f := &filters[i]
		f.Handle = 1
		if err := f.Check(); err != nil {
			t.Error(err)
		}
		f.Flags = tc.NotInHW
		b.WriteString(f.Show(tc.ShowOptions{Device: func(int) string { return "genev_sys_6081" }}))
	}
	return strings.TrimRight(b.String(), "\n") + "\n```\n"
}
