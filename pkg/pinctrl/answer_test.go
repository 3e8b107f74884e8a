package pinctrl

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"os/exec"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// Neighbor Solicitations as they are on the wire.
const (
	// fd10::1 asks all who might be fd10::2.
	multicastNS = "3333ff000002 505400000001 86dd 60000000 0020 3a ff" +
		"fd100000000000000000000000000001 ff0200000000000000000001ff000002" +
		"8700 1f4d 00000000 fd100000000000000000000000000002 01 01 505400000001"
	// fd10::1 asks whether fd10::2 is still there; without its own link-layer address.
	unicastNS = "505400000002 505400000001 86dd 60000000 0018 3a ff" +
		"fd100000000000000000000000000001 fd100000000000000000000000000002" +
		"8700 0000 00000000 fd100000000000000000000000000002"
	// Somebody asks whether fd10::2 is free.
	duplicateNS = "3333ff000002 505400000001 86dd 60000000 0018 3a ff" +
		"00000000000000000000000000000000 ff0200000000000000000001ff000002" +
		"8700 0000 00000000 fd100000000000000000000000000002"
	taggedNS = "3333ff000002 505400000001 8100 0064 86dd 60000000 0018 3a ff" +
		"fe800000000000000000000000000001 ff0200000000000000000001ff000002" +
		"8700 0000 00000000 fe800000000000000000000000000002"
	doublyTaggedNS = "3333ff000002 505400000001 88a8 0007 8100 0064 86dd 60000000 0018 3a ff" +
		"fe800000000000000000000000000001 ff0200000000000000000001ff000002" +
		"8700 0000 00000000 fe800000000000000000000000000002"
)

func packet(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func userData(op compile.Opcode, actions ...ir.Action) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(op))
	return openflow.AppendActions(append(b, 0, 0, 0, 0), actions)
}

// tcpdump says what it sees in a packet, on one line; it checks the checksum.
func tcpdump(t testing.TB, packet []byte) string {
	t.Helper()
	order := binary.BigEndian
	pcap := order.AppendUint32(nil, 0xa1b2c3d4)
	pcap = append(pcap, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 1) // version 2.4, Ethernet
	pcap = append(pcap, 0, 0, 0, 0, 0, 0, 0, 0)
	pcap = order.AppendUint32(pcap, uint32(len(packet)))
	pcap = order.AppendUint32(pcap, uint32(len(packet)))
	cmd := exec.CommandContext(t.Context(), "tcpdump", "-n", "-e", "-t", "-v", "-r", "-")
	cmd.Stdin = bytes.NewReader(append(pcap, packet...))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tcpdump (on Debian: apt-get install tcpdump): %v\n%s", err, stderr.String())
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

func TestAnswer(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		op       compile.Opcode
		want     string
	}{
		{
			"host asked by multicast", multicastNS, compile.OpNDNA,
			"33:33:ff:00:00:02 > 50:54:00:00:00:01, ethertype IPv6 (0x86dd), length 86: (hlim 255, next-header ICMPv6 (58) payload length: 32) " +
				"fd10::2 > fd10::1: [icmp6 sum ok] ICMP6, neighbor advertisement, length 32, tgt is fd10::2, Flags [solicited, override] " +
				"destination link-address option (2), length 8 (1): 33:33:ff:00:00:02",
		},
		{
			"router asked by multicast", multicastNS, compile.OpNDNARouter,
			"33:33:ff:00:00:02 > 50:54:00:00:00:01, ethertype IPv6 (0x86dd), length 86: (hlim 255, next-header ICMPv6 (58) payload length: 32) " +
				"fd10::2 > fd10::1: [icmp6 sum ok] ICMP6, neighbor advertisement, length 32, tgt is fd10::2, Flags [router, solicited, override] " +
				"destination link-address option (2), length 8 (1): 33:33:ff:00:00:02",
		},
		{
			"host asked by unicast", unicastNS, compile.OpNDNA,
			"50:54:00:00:00:02 > 50:54:00:00:00:01, ethertype IPv6 (0x86dd), length 86: (hlim 255, next-header ICMPv6 (58) payload length: 32) " +
				"fd10::2 > fd10::1: [icmp6 sum ok] ICMP6, neighbor advertisement, length 32, tgt is fd10::2, Flags [solicited, override] " +
				"destination link-address option (2), length 8 (1): 50:54:00:00:00:02",
		},
		{
			"duplicate address detection", duplicateNS, compile.OpNDNARouter,
			"33:33:ff:00:00:02 > 33:33:00:00:00:01, ethertype IPv6 (0x86dd), length 86: (hlim 255, next-header ICMPv6 (58) payload length: 32) " +
				"fd10::2 > ff02::1: [icmp6 sum ok] ICMP6, neighbor advertisement, length 32, tgt is fd10::2, Flags [router, override] " +
				"destination link-address option (2), length 8 (1): 33:33:ff:00:00:02",
		},
		{
			"in a VLAN", taggedNS, compile.OpNDNA,
			"33:33:ff:00:00:02 > 50:54:00:00:00:01, ethertype 802.1Q (0x8100), length 90: vlan 100, p 0, ethertype IPv6 (0x86dd), " +
				"(hlim 255, next-header ICMPv6 (58) payload length: 32) " +
				"fe80::2 > fe80::1: [icmp6 sum ok] ICMP6, neighbor advertisement, length 32, tgt is fe80::2, Flags [solicited, override] " +
				"destination link-address option (2), length 8 (1): 33:33:ff:00:00:02",
		},
		{
			"in a VLAN of a VLAN", doublyTaggedNS, compile.OpNDNA,
			"33:33:ff:00:00:02 > 50:54:00:00:00:01, ethertype 802.1Q-QinQ (0x88a8), length 94: vlan 7, p 0, ethertype 802.1Q (0x8100), " +
				"vlan 100, p 0, ethertype IPv6 (0x86dd), (hlim 255, next-header ICMPv6 (58) payload length: 32) " +
				"fe80::2 > fe80::1: [icmp6 sum ok] ICMP6, neighbor advertisement, length 32, tgt is fe80::2, Flags [solicited, override] " +
				"destination link-address option (2), length 8 (1): 33:33:ff:00:00:02",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := packet(t, tt.in)
			kept := bytes.Clone(in)
			out, err := Answer(openflow.PacketIn{Packet: in, UserData: userData(tt.op)})
			if err != nil {
				t.Fatal(err)
			}
			if got := tcpdump(t, out.Packet); got != tt.want {
				t.Errorf("answer\n%s\nwant\n%s", got, tt.want)
			}
			if !bytes.Equal(in, kept) {
				t.Error("the packet has changed")
			}
		})
	}
}

// The answer has the registers of the question, and then does what the logical flow says.
func TestAnswerActions(t *testing.T) {
	metadata := ir.Match{}.Eq(ir.Reg0, 5).Eq(ir.Reg14, 3).Eq(ir.Metadata, 0x1234).Eq(ir.InPort, 7).Eq(ir.TunSrc, 1).Eq(ir.CTState, 0x21).Eq(ir.CTMark, 9)
	nested := []ir.Action{ir.SetWhole(ir.EthSrc, 0x505400000002), ir.Resubmit{Table: 37}}
	out, err := Answer(openflow.PacketIn{Packet: packet(t, unicastNS), UserData: userData(compile.OpNDNA, nested...), Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	const want = "set_field:0x5->reg0,set_field:0x3->reg14,set_field:0x1234->metadata,set_field:50:54:00:00:00:02->eth_src,resubmit(,37)"
	if got := openflow.FormatActions(out.Actions); got != want {
		t.Errorf("actions\n%s\nwant\n%s", got, want)
	}
}

// restore gives back what OVN keeps logical state in, and no more.
func TestRestore(t *testing.T) {
	for f := ir.Field(1); f < ir.XReg0; f++ {
		in := ir.Match{}.Eq(f, 1)
		want := ""
		if f.IsReg() || f == ir.Metadata {
			want = fmt.Sprintf("set_field:0x1->%v", f)
		}
		got := ""
		if acts := restore(in); len(acts) > 0 {
			got = openflow.FormatActions(acts)
		}
		if got != want {
			t.Errorf("restore of %v = %q, want %q", in, got, want)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	change := func(offset int, to string) []byte {
		b := packet(t, multicastNS)
		copy(b[offset:], packet(t, to))
		return b
	}
	for _, tt := range []struct {
		name     string
		packet   []byte
		userData []byte
		want     string
	}{
		{"nothing at all", nil, nil, "pinctrl packet-in of table 9: user data of 0 bytes"},
		{"half an opcode", packet(t, multicastNS), []byte{0, 0, 0, 3}, "user data of 4 bytes"},
		{"unknown opcode", packet(t, multicastNS), userData(999), "opcode 999 is not answered"},
		{"broken nested actions", packet(t, multicastNS), append(userData(compile.OpNDNA), 0, 1), "nested actions: "},
		{"no packet", nil, userData(compile.OpNDNA), "neighbor solicitation: 0 bytes"},
		{"IPv4", change(12, "0800"), userData(compile.OpNDNA), "EtherType 0x0800"},
		{"third tag", change(12, "88a8 0001 8100 0002 8100 0003"), userData(compile.OpNDNA), "EtherType 0x8100"},
		{"version 4 in IPv6", change(14, "40"), userData(compile.OpNDNA), "version 4"},
		{"extension header", change(20, "00"), userData(compile.OpNDNA), "next header 0"},
		{"from beyond the link", change(21, "fe"), userData(compile.OpNDNA), "hop limit 254"},
		{"advertisement", change(54, "88"), userData(compile.OpNDNA), "type 136"},
		{"code", change(55, "01"), userData(compile.OpNDNA), "code 1"},
		{"multicast target", change(62, "ff02"), userData(compile.OpNDNA), "multicast target"},
	} {
		out, err := Answer(openflow.PacketIn{Table: 9, Packet: tt.packet, UserData: tt.userData})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
		if out.Packet != nil || out.Actions != nil {
			t.Errorf("%s: %+v besides the error", tt.name, out)
		}
	}
}

// A packet that ends too early is not answered; the options of a solicitation do not matter.
func TestTruncated(t *testing.T) {
	for _, text := range []string{multicastNS, unicastNS, taggedNS, doublyTaggedNS} {
		whole := packet(t, text)
		enough := bytes.Index(whole, []byte{0x86, 0xdd}) + 2 + ip6Header + ndHeader
		for n := range whole {
			_, err := Answer(openflow.PacketIn{Packet: whole[:n:n], UserData: userData(compile.OpNDNA)})
			if (err == nil) != (n >= enough) {
				t.Errorf("the first %d bytes of %s: error %v, want one below %d", n, text, err, enough)
			}
		}
	}
}

// sumOK checks a checksum as RFC 1071 defines it, by arithmetic instead of carries: one's complement addition of 16-bit
// words is addition modulo 65535, so all words of the pseudo-header and of the message together are 0.
func sumOK(ip, message []byte) bool {
	words := append(bytes.Clone(ip[8:40]), 0, 0, byte(len(message)>>8), byte(len(message)), 0, 0, 0, ip[6])
	words = append(words, message...)
	if len(words)%2 != 0 {
		words = append(words, 0)
	}
	// A number in base 65536 is the sum of its digits modulo 65535.
	return new(big.Int).Mod(new(big.Int).SetBytes(words), big.NewInt(65535)).Sign() == 0
}

// Whatever the bridge sends: no panic, and what is answered is a Neighbor Advertisement with a right checksum.
func FuzzAdvertise(f *testing.F) {
	for _, text := range []string{multicastNS, unicastNS, duplicateNS, taggedNS, doublyTaggedNS} {
		f.Add(packet(f, text), userData(compile.OpNDNA, ir.SetWhole(ir.EthSrc, 1), ir.Resubmit{Table: 37}))
		f.Add(packet(f, text), userData(compile.OpNDNARouter))
	}
	f.Fuzz(func(t *testing.T, in, data []byte) {
		if len(data) < 4 || opcode(data) != compile.OpNDNA && opcode(data) != compile.OpNDNARouter {
			return
		}
		out, err := Answer(openflow.PacketIn{Packet: in, UserData: data})
		if err != nil {
			return
		}
		l3 := len(out.Packet) - ip6Header - ndHeader - llaOption
		if l3 != 14 && l3 != 18 && l3 != 22 {
			t.Fatalf("answer of %d bytes", len(out.Packet))
		}
		ip, nd := out.Packet[l3:], out.Packet[l3+ip6Header:]
		if nd[0] != 136 || !bytes.Equal(nd[8:24], in[l3+ip6Header+8:][:16]) || !bytes.Equal(ip[8:24], nd[8:24]) {
			t.Errorf("answer %x to %x", out.Packet, in)
		}
		if !sumOK(ip, nd) {
			t.Errorf("checksum of %x", out.Packet)
		}
		if solicited, asked := nd[4]&0x40 != 0, !bytes.Equal(in[l3+8:][:16], make([]byte, 16)); solicited != asked {
			t.Errorf("solicited flag %v in the answer to %x", solicited, in)
		}
	})
}
