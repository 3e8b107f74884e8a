package pinctrl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// More of what ip4 and ip6 take for payloads.
const (
	// A segment of an established connection, with two bytes.
	segment = "1108 0050 00000010 0000abcd 5018 ffff 0000 0000 6162"
	synFIN  = "1108 0050 fffffffe 00000000 6003 ffff 0000 0000 02040550 616263"
	reset   = "1108 0050 00000010 00000000 5004 0000 0000 0000"
	echo    = "0800 0000 0001 0002 6162"
	echo6   = "8000 0000 0001 0002 6162"
	heart   = "0007 0008 0a0b0c0d 00000000 04 00 0008 00000000"
	abort   = "0007 0008 0a0b0c0d 00000000 06 00 0004"
)

// mtu returns the nested action that ovn-controller makes of icmp4.frag_mtu or icmp6.frag_mtu.
func mtu(op compile.Opcode, n uint32) ir.Action {
	data := userData(op)
	if op == compile.OpPutICMP4FragMTU {
		data = binary.BigEndian.AppendUint16(data, uint16(n))
	} else {
		data = binary.BigEndian.AppendUint32(data, n)
	}
	return ir.Controller{MaxLen: 0xffff, UserData: data, Pause: true, MeterID: 7}
}

func TestAnswerErrors(t *testing.T) {
	long4, long6 := ip4(t, "11", "4000", "1108 0035 0578 0000"+strings.Repeat("61", 1392)), ip6(t, "11", "1108 0035 0578 0000"+strings.Repeat("61", 1392))
	odd := ip4(t, "11", "0000", query+"00")
	tagged := append(append(bytes.Clone(odd[:12]), packet(t, "8100 6064")...), odd[12:]...)
	for _, tt := range []struct {
		name   string
		in     []byte
		op     compile.Opcode
		nested []ir.Action
		want   string
	}{
		{
			"UDP, IPv4", odd, compile.OpICMP, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv4 (0x0800), length 75: " +
				"(tos 0x0, ttl 255, id 0, offset 0, flags [none], proto ICMP (1), length 61) 10.0.0.1 > 10.0.0.2: ICMP 10.0.0.2 udp port 53 unreachable, length 41 (tos 0xb8, ttl 64, id 7, offset 0, flags [none], proto UDP (17), length 33) 10.0.0.1.4360 > 10.0.0.2.53: domain [length 4 < 12] (invalid)",
		},
		{
			"UDP in a VLAN", tagged, compile.OpICMP, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype 802.1Q (0x8100), length 79: vlan 100, p 3, ethertype IPv4 (0x0800), " +
				"(tos 0x0, ttl 255, id 0, offset 0, flags [none], proto ICMP (1), length 61) 10.0.0.1 > 10.0.0.2: ICMP 10.0.0.2 udp port 53 unreachable, length 41 (tos 0xb8, ttl 64, id 7, offset 0, flags [none], proto UDP (17), length 33) 10.0.0.1.4360 > 10.0.0.2.53: domain [length 4 < 12] (invalid)",
		},
		{
			"ping, IPv4", ip4(t, "01", "0000", echo), compile.OpICMP, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv4 (0x0800), length 72: " +
				"(tos 0x0, ttl 255, id 0, offset 0, flags [none], proto ICMP (1), length 58) 10.0.0.1 > 10.0.0.2: ICMP host 10.0.0.2 unreachable, length 38 (tos 0xb8, ttl 64, id 7, offset 0, flags [none], proto ICMP (1), length 30) 10.0.0.1 > 10.0.0.2: ICMP echo request, id 1, seq 2, length 10 (wrong icmp cksum 0 (->969a)!)",
		},
		{
			"first fragment", ip4(t, "06", "2000", syn), compile.OpICMP, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv4 (0x0800), length 82: " +
				"(tos 0x0, ttl 255, id 0, offset 0, flags [none], proto ICMP (1), length 68) 10.0.0.1 > 10.0.0.2: ICMP host 10.0.0.2 unreachable, length 48 (tos 0xb8, ttl 64, id 7, offset 0, flags [+], proto TCP (6), length 40) 10.0.0.1.4360 > 10.0.0.2.80: Flags [S], seq 1, win 65535, length 0",
		},
		{
			"long, IPv4", long4, compile.OpICMP4Error,
			[]ir.Action{mtu(compile.OpPutICMP4FragMTU, 1300)},
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv4 (0x0800), length 590: " +
				"(tos 0x0, ttl 255, id 0, offset 0, flags [none], proto ICMP (1), length 576) 10.0.0.1 > 10.0.0.2: ICMP host 10.0.0.2 unreachable, length 556 (tos 0xb8, ttl 64, id 7, offset 0, flags [DF], proto UDP (17), length 1420) 10.0.0.1.4360 > 10.0.0.2.53: 24929 updateM+ [b2&3=0x6161] [24929a] [24929q] [24929n] [24929au] [|domain]",
		},
		{
			"UDP, IPv6", ip6(t, "11", query), compile.OpICMP, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv6 (0x86dd), length 114: " +
				"(hlim 255, next-header ICMPv6 (58) payload length: 60) fd10::1 > fd10::2: [icmp6 sum ok] ICMP6, destination unreachable, unreachable port, fd10::2 udp port 53",
		},
		{
			"ping, IPv6", ip6(t, "3a", echo6), compile.OpICMP, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv6 (0x86dd), length 112: " +
				"(hlim 255, next-header ICMPv6 (58) payload length: 58) fd10::1 > fd10::2: [icmp6 sum ok] ICMP6, destination unreachable, unreachable prohibited fd10::2",
		},
		{
			"long, IPv6", long6, compile.OpICMP6Error,
			[]ir.Action{mtu(compile.OpPutICMP6FragMTU, 1300)},
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv6 (0x86dd), length 1294: " +
				"(hlim 255, next-header ICMPv6 (58) payload length: 1240) fd10::1 > fd10::2: [icmp6 sum ok] ICMP6, destination unreachable, unreachable prohibited fd10::2",
		},
		{
			"padding", append(ip4(t, "01", "0000", echo), make([]byte, 20)...), compile.OpICMP, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv4 (0x0800), length 72: " +
				"(tos 0x0, ttl 255, id 0, offset 0, flags [none], proto ICMP (1), length 58) 10.0.0.1 > 10.0.0.2: ICMP host 10.0.0.2 unreachable, length 38 (tos 0xb8, ttl 64, id 7, offset 0, flags [none], proto ICMP (1), length 30) 10.0.0.1 > 10.0.0.2: ICMP echo request, id 1, seq 2, length 10 (wrong icmp cksum 0 (->969a)!)",
		},
		{
			"SYN", ip4(t, "06", "0000", syn), compile.OpTCPReset, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv4 (0x0800), length 54: " +
				"(tos 0x0, ttl 63, id 0, offset 0, flags [none], proto TCP (6), length 40) 10.0.0.1.80 > 10.0.0.2.4360: Flags [R.], cksum 0x8a74 (correct), seq 0, ack 2, win 0, length 0",
		},
		{
			"SYN, IPv6", ip6(t, "06", syn), compile.OpTCPReset, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv6 (0x86dd), length 74: " +
				"(hlim 63, next-header TCP (6) payload length: 20) fd10::1.80 > fd10::2.4360: Flags [R.], cksum 0xa452 (correct), seq 0, ack 2, win 0, length 0",
		},
		{
			"SYN and FIN with options and data", ip4(t, "06", "0000", synFIN), compile.OpTCPReset, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv4 (0x0800), length 54: " +
				"(tos 0x0, ttl 63, id 0, offset 0, flags [none], proto TCP (6), length 40) 10.0.0.1.80 > 10.0.0.2.4360: Flags [R.], cksum 0x8a73 (correct), seq 0, ack 3, win 0, length 0",
		},
		{
			"established", ip4(t, "06", "0000", segment), compile.OpTCPReset, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv4 (0x0800), length 54: " +
				"(tos 0x0, ttl 63, id 0, offset 0, flags [none], proto TCP (6), length 40) 10.0.0.1.80 > 10.0.0.2.4360: Flags [R], cksum 0xdeb8 (correct), seq 43981, win 0, length 0",
		},
		{
			"INIT", ip4(t, "84", "0000", initChunk), compile.OpSCTPAbort, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv4 (0x0800), length 50: " +
				"(tos 0x0, ttl 63, id 0, offset 0, flags [none], proto SCTP (132), length 36) 10.0.0.1.8 > 10.0.0.2.7: sctp (1) [ABORT]",
		},
		{
			"HEARTBEAT, IPv6", ip6(t, "84", heart), compile.OpSCTPAbort, nil,
			"50:54:00:00:00:01 > 50:54:00:00:00:02, ethertype IPv6 (0x86dd), length 70: " +
				"(hlim 63, next-header SCTP (132) payload length: 16) fd10::1.8 > fd10::2.7: sctp (1) [ABORT]",
		},
		{
			"rejected SYN", ip4(t, "06", "0000", syn), compile.OpReject, nil,
			"50:54:00:00:00:02 > 50:54:00:00:00:01, ethertype IPv4 (0x0800), length 54: " +
				"(tos 0x0, ttl 63, id 0, offset 0, flags [none], proto TCP (6), length 40) 10.0.0.2.80 > 10.0.0.1.4360: Flags [R.], cksum 0x8a74 (correct), seq 0, ack 2, win 0, length 0",
		},
		{
			"rejected INIT", ip6(t, "84", initChunk), compile.OpReject, nil,
			"50:54:00:00:00:02 > 50:54:00:00:00:01, ethertype IPv6 (0x86dd), length 70: " +
				"(hlim 63, next-header SCTP (132) payload length: 16) fd10::2.8 > fd10::1.7: sctp (1) [ABORT]",
		},
		{
			"rejected UDP", ip4(t, "11", "0000", query), compile.OpReject, nil,
			"50:54:00:00:00:02 > 50:54:00:00:00:01, ethertype IPv4 (0x0800), length 74: " +
				"(tos 0x0, ttl 255, id 0, offset 0, flags [none], proto ICMP (1), length 60) 10.0.0.2 > 10.0.0.1: ICMP 10.0.0.2 udp port 53 unreachable, length 40 (tos 0xb8, ttl 64, id 7, offset 0, flags [none], proto UDP (17), length 32) 10.0.0.1.4360 > 10.0.0.2.53: domain [length 4 < 12] (invalid)",
		},
		{
			"rejected UDP, IPv6", ip6(t, "11", query), compile.OpReject, nil,
			"50:54:00:00:00:02 > 50:54:00:00:00:01, ethertype IPv6 (0x86dd), length 114: " +
				"(hlim 255, next-header ICMPv6 (58) payload length: 60) fd10::2 > fd10::1: [icmp6 sum ok] ICMP6, destination unreachable, unreachable port, fd10::2 udp port 53",
		},
		{
			"rejected GRE", ip4(t, "2f", "0000", "00000800"), compile.OpReject, nil,
			"50:54:00:00:00:02 > 50:54:00:00:00:01, ethertype IPv4 (0x0800), length 66: " +
				"(tos 0x0, ttl 255, id 0, offset 0, flags [none], proto ICMP (1), length 52) 10.0.0.2 > 10.0.0.1: ICMP host 10.0.0.2 unreachable, length 32 (tos 0xb8, ttl 64, id 7, offset 0, flags [none], proto GRE (47), length 24) 10.0.0.1 > 10.0.0.2: GREv0, Flags [none], proto IPv4 (0x0800), length 4 [|ip]",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kept := bytes.Clone(tt.in)
			nested := append([]ir.Action{ir.SetWhole(ir.ICMPType, 11)}, tt.nested...)
			out, err := Answer(openflow.PacketIn{Packet: tt.in, UserData: userData(tt.op, append(nested, ir.Resubmit{Table: 8})...)})
			if err != nil {
				t.Fatal(err)
			}
			if got := tcpdump(t, out.Packet); got != tt.want {
				t.Errorf("answer\n%s\nwant\n%s", got, tt.want)
			}
			if got := openflow.FormatActions(out.Actions); got != "set_field:11->icmp_type,resubmit(,8)" {
				t.Errorf("actions %s", got)
			}
			if !bytes.Equal(tt.in, kept) {
				t.Error("the packet has changed")
			}
		})
	}
}

// The MTU is where RFC 1191, section 4, and RFC 4443, section 3.2, have it, and no action is left that would punt the error
// again. Others are left alone.
func TestFragMTU(t *testing.T) {
	logged := ir.Controller{MaxLen: 0xffff, UserData: userData(compile.OpLog), MeterID: 7}
	for _, tt := range []struct {
		in     []byte
		op     compile.Opcode
		nested []ir.Action
		offset int
		want   []byte
		left   string
	}{
		{ip4(t, "06", "4000", syn), compile.OpICMP4Error, []ir.Action{mtu(compile.OpPutICMP4FragMTU, 1442), ir.Resubmit{Table: 8}}, 38, []byte{0, 0, 5, 0xa2}, "resubmit(,8)"},
		{
			ip4(t, "06", "4000", syn), compile.OpICMP,
			[]ir.Action{logged, mtu(compile.OpPutICMP4FragMTU, 0xffff)},
			38,
			[]byte{0, 0, 0xff, 0xff},
			openflow.FormatActions([]ir.Action{logged}),
		},
		{ip6(t, "06", syn), compile.OpICMP6Error, []ir.Action{ir.Resubmit{Table: 8}, mtu(compile.OpPutICMP6FragMTU, 0x10000)}, 58, []byte{0, 1, 0, 0}, "resubmit(,8)"},
		{ip6(t, "06", syn), compile.OpICMP6Error, []ir.Action{ir.Resubmit{Table: 8}}, 58, []byte{0, 0, 0, 0}, "resubmit(,8)"},
	} {
		out, err := Answer(openflow.PacketIn{Packet: tt.in, UserData: userData(tt.op, tt.nested...)})
		if err != nil {
			t.Error(err)
			continue
		}
		if got := out.Packet[tt.offset:][:4]; !bytes.Equal(got, tt.want) {
			t.Errorf("MTU %x, want %x", got, tt.want)
		}
		if got := openflow.FormatActions(out.Actions); got != tt.left {
			t.Errorf("actions %s, want %s", got, tt.left)
		}
		checkAnswer(t, tt.in, tt.op, out.Packet)
	}
}

// What the RFCs say must not be answered is not, and is told from what cannot be.
func TestSilence(t *testing.T) {
	change := func(p []byte, offset int, to string) []byte {
		copy(p[offset:], packet(t, to))
		return p
	}
	const silence = "not to be answered"
	tcp, udp, udp6 := func() []byte { return ip4(t, "06", "0000", syn) }, func() []byte { return ip4(t, "11", "0000", query) }, func() []byte { return ip6(t, "11", query) }
	unreachable6 := ip6(t, "3a", "0104 0000 00000000"+strings.Repeat("00", 48))
	for _, tt := range []struct {
		name string
		in   []byte
		op   compile.Opcode
		want string // in the error
	}{
		{"later fragment", ip4(t, "06", "0005", syn), compile.OpICMP, silence},
		{"later fragment, reset", ip4(t, "06", "0005", syn), compile.OpTCPReset, silence},
		{"later fragment, IPv6", ip6(t, "2c", "1100 0008 00000007"+query), compile.OpReject, silence},
		{"Destination Unreachable", ip4(t, "01", "0000", "0301 0000 00000000"), compile.OpICMP, silence},
		{"Source Quench", ip4(t, "01", "0000", "0400 0000 00000000"), compile.OpICMP, silence},
		{"Redirect", ip4(t, "01", "0000", "0500 0000 00000000"), compile.OpReject, silence},
		{"Time Exceeded", ip4(t, "01", "0000", "0b00 0000 00000000"), compile.OpICMP, silence},
		{"Parameter Problem", ip4(t, "01", "0000", "0c00 0000 00000000"), compile.OpICMP4Error, silence},
		{"ICMP without a type", ip4(t, "01", "0000", ""), compile.OpICMP, silence},
		{"unreachable, IPv6", unreachable6, compile.OpICMP, silence},
		{"unreachable, IPv6, rejected", unreachable6, compile.OpReject, silence},
		{"redirect, IPv6", ip6(t, "3a", "8900 0000 00000000"), compile.OpICMP6Error, silence},
		{"ICMPv6 without a type", ip6(t, "3a", ""), compile.OpICMP, silence},
		{"to a group", change(udp(), 30, "e00000fb"), compile.OpReject, silence},
		{"to all", change(udp(), 30, "ffffffff"), compile.OpICMP, silence},
		{"broadcast on the link", change(udp(), 0, "ffffffffffff"), compile.OpICMP, silence},
		{"SYN to a group", change(tcp(), 30, "e00000fb"), compile.OpTCPReset, silence},
		{"to a group, IPv6", change(udp6(), 38, "ff02"), compile.OpICMP, silence},
		{"from nobody", change(udp(), 26, "00000000"), compile.OpICMP, silence},
		{"from a group", change(udp(), 26, "e0000001"), compile.OpICMP, silence},
		{"from loopback", change(udp(), 26, "7f000001"), compile.OpICMP, silence},
		{"from all", change(udp(), 26, "ffffffff"), compile.OpReject, silence},
		{"from nobody, IPv6", change(udp6(), 22, strings.Repeat("00", 16)), compile.OpICMP, silence},
		{"from a group, IPv6", change(udp6(), 22, "ff02"), compile.OpICMP, silence},
		{"RST", ip4(t, "06", "0000", reset), compile.OpTCPReset, silence},
		{"rejected RST, IPv6", ip6(t, "06", reset), compile.OpReject, silence},
		{"ABORT", ip4(t, "84", "0000", abort), compile.OpSCTPAbort, silence},
		{"rejected SHUTDOWN COMPLETE", ip4(t, "84", "0000", strings.Replace(abort, " 06 ", " 0e ", 1)), compile.OpReject, silence},

		{"ARP", packet(t, eths+"0806 0001 0800 06 04 0001 505400000001 0a000001 000000000000 0a000002"), compile.OpReject, "EtherType 0x0806"},
		{"ARP, reset", packet(t, eths+"0806 0001 0800 06 04 0001 505400000001 0a000001 000000000000 0a000002"), compile.OpTCPReset, "EtherType 0x0806"},
		{"UDP, reset", udp(), compile.OpTCPReset, "IP protocol 17 of 12 bytes: no TCP segment"},
		{"half a segment", ip4(t, "06", "0000", syn[:30]), compile.OpReject, "IP protocol 6 of 13 bytes"},
		{"TCP header of 16 bytes", ip4(t, "06", "0000", strings.Replace(syn, "5002", "4002", 1)), compile.OpReject, "header of 16 bytes"},
		{"TCP header beyond the end", ip4(t, "06", "0000", strings.Replace(syn, "5002", "6002", 1)), compile.OpReject, "header of 24 bytes"},
		{"TCP, abort", tcp(), compile.OpSCTPAbort, "no SCTP packet"},
		{"no chunk", ip4(t, "84", "0000", "0007 0008 00000000 00000000"), compile.OpReject, "IP protocol 132 of 12 bytes"},
		{"INIT without a tag", ip4(t, "84", "0000", "0007 0008 00000000 00000000 01 00 0004 01"), compile.OpReject, "SCTP INIT of 5 bytes"},
		{"version", change(tcp(), 14, "65"), compile.OpReject, "version 6"},
		{"header length", change(tcp(), 14, "44"), compile.OpReject, "header of 16 bytes"},
		{"longer than it is", change(tcp(), 16, "0029"), compile.OpICMP, "length 41"},
		{"shorter than its header", change(tcp(), 16, "0013"), compile.OpICMP, "length 19"},
		{"version, IPv6", change(udp6(), 14, "4"+"0"), compile.OpICMP, "version 4"},
		{"longer than it is, IPv6", change(udp6(), 18, "000d"), compile.OpICMP, "payload of 13 bytes"},
		{"options beyond the end", ip6(t, "00", "1101 0104 00000000"), compile.OpICMP, "IPv6 header 0 of 16 bytes: 8 are left"},
		{"half an extension header", ip6(t, "3c", "1100 0104"), compile.OpICMP, "IPv6 header 60 of 4 bytes"},
	} {
		out, err := Answer(openflow.PacketIn{Table: 9, Packet: tt.in, UserData: userData(tt.op)})
		if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrSilence) != (tt.want == silence) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
		if out.Packet != nil || out.Actions != nil {
			t.Errorf("%s: %+v besides the error", tt.name, out)
		}
	}
	// Senders to a group have to learn the path's MTU, too: RFC 4443, section 2.4 (e.3).
	in := change(change(udp6(), 38, "ff02"), 0, "3333000000fb")
	out, err := Answer(openflow.PacketIn{Packet: in, UserData: userData(compile.OpICMP6Error, mtu(compile.OpPutICMP6FragMTU, 1280))})
	if err != nil {
		t.Fatal(err)
	}
	checkAnswer(t, in, compile.OpICMP6Error, out.Packet)
}

// A packet that ends too early is an error, wherever it ends.
func TestTruncatedErrors(t *testing.T) {
	for _, in := range [][]byte{ip4(t, "06", "0000", syn), ip4(t, "84", "0000", initChunk), ip6(t, "11", query), ip6(t, "2c", "0600 0001 00000007"+syn)} {
		for n := range in {
			if _, err := Answer(openflow.PacketIn{Packet: in[:n:n], UserData: userData(compile.OpReject)}); err == nil {
				t.Errorf("the first %d bytes of %x are answered", n, in)
			}
		}
	}
}

// checkAnswer tests what holds for every ICMP error, reset and abort: who it is from and to, lengths, and checksums, which it
// computes in other ways than the code does.
func checkAnswer(t *testing.T, in []byte, op compile.Opcode, out []byte) {
	t.Helper()
	f, err := parseFrame(in)
	if err != nil {
		t.Fatalf("answer to %x, of which %v", in, err)
	}
	g, err := parseFrame(out)
	if err != nil || g.end != len(out) || g.l3 != f.l3 || !bytes.Equal(in[12:f.l3], out[12:f.l3]) {
		t.Fatalf("answer %x to %x: %v", out, in, err)
	}
	src, dst, macs := f.src, f.dst, bytes.Clone(in[:12])
	if op == compile.OpReject {
		src, dst, macs = dst, src, append(macs[6:12:12], macs[0:6]...)
	}
	if g.src != src || g.dst != dst || !bytes.Equal(out[:12], macs) || g.fragment != whole {
		t.Errorf("answer %x to %x: from %v to %v", out, in, g.src, g.dst)
	}
	if g.etherType == etherIPv4 && !zeroMod65535(out[g.l3:][:ip4Header]) {
		t.Errorf("answer %x to %x: checksum of IPv4", out, in)
	}
	t4 := g.transport()
	if g.etherType == etherIPv6 && g.proto != protoSCTP && !sumOK(out[g.l3:], t4) {
		t.Errorf("answer %x to %x: checksum", out, in)
	}
	switch g.proto {
	case protoICMP, protoICMPv6:
		if g.etherType == etherIPv4 && !zeroMod65535(t4) {
			t.Errorf("answer %x to %x: checksum of ICMP", out, in)
		}
		most := map[uint16]int{etherIPv4: 576, etherIPv6: 1280}[g.etherType]
		if quoted := t4[icmpHeader:]; len(out)-g.l3 > most || !bytes.HasPrefix(in[f.l3:f.end], quoted) || len(quoted) < f.end-f.l3 && len(out)-g.l3 != most {
			t.Errorf("answer %x to %x: %d bytes are quoted", out, in, len(quoted))
		}
	case protoTCP:
		if len(t4) != tcpHeader || t4[13]&tcpRST == 0 || !bytes.Equal(t4[0:2], f.transport()[2:4]) || !bytes.Equal(t4[2:4], f.transport()[0:2]) {
			t.Errorf("reset %x of %x", t4, in)
		}
		pseudo := append(append(g.src.AsSlice(), g.dst.AsSlice()...), 0, protoTCP, 0, tcpHeader)
		if g.etherType == etherIPv4 && !zeroMod65535(append(pseudo, t4...)) {
			t.Errorf("reset %x of %x: checksum", t4, in)
		}
	case protoSCTP:
		want := binary.LittleEndian.Uint32(t4[8:])
		if got := crc32c(append(append(bytes.Clone(t4[:8]), 0, 0, 0, 0), t4[12:]...)); got != want || t4[12] != chunkAbort {
			t.Errorf("abort %x of %x: checksum %#x", t4, in, got)
		}
	default:
		t.Errorf("answer %x to %x: protocol %d", out, in, g.proto)
	}
}

// zeroMod65535 is sumOK without a pseudo-header.
func zeroMod65535(b []byte) bool {
	if len(b)%2 != 0 {
		b = append(bytes.Clone(b), 0)
	}
	return new(big.Int).Mod(new(big.Int).SetBytes(b), big.NewInt(65535)).Sign() == 0
}

// crc32c is the checksum of RFC 9260, appendix A, bit by bit.
func crc32c(b []byte) uint32 {
	crc := ^uint32(0)
	for _, x := range b {
		crc ^= uint32(x)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0x82f63b78
			} else {
				crc >>= 1
			}
		}
	}
	return ^crc
}

var errorOps = []compile.Opcode{compile.OpICMP, compile.OpICMP4Error, compile.OpICMP6Error, compile.OpTCPReset, compile.OpSCTPAbort, compile.OpReject}

// Whatever is sent: no panic, no answer to what must not have one, and what is answered is answered well.
func FuzzErrors(f *testing.F) {
	for i, p := range variety(f) {
		f.Add(p, uint8(i), userData(compile.OpPutICMP4FragMTU))
	}
	for i, text := range []string{segment, synFIN, reset} {
		f.Add(ip4(f, "06", "0000", text), uint8(i), openflow.AppendActions(nil, []ir.Action{mtu(compile.OpPutICMP4FragMTU, 1500), ir.Resubmit{Table: 8}}))
		f.Add(ip6(f, "06", text), uint8(3), openflow.AppendActions(nil, []ir.Action{mtu(compile.OpPutICMP6FragMTU, 1500)}))
	}
	for _, text := range []string{heart, abort, initChunk} {
		f.Add(ip4(f, "84", "0000", text), uint8(4), []byte{})
	}
	f.Fuzz(func(t *testing.T, in []byte, op uint8, nested []byte) {
		o := errorOps[int(op)%len(errorOps)]
		out, err := Answer(openflow.PacketIn{Packet: in, UserData: append(userData(o), nested...)})
		if err != nil {
			return
		}
		checkAnswer(t, in, o, out.Packet)
		// Two that answer each other must come to an end.
		if again, err := Answer(openflow.PacketIn{Packet: out.Packet, UserData: userData(o)}); err == nil {
			t.Errorf("the answer %x to %x is answered by %x", out.Packet, in, again.Packet)
		}
	})
}
