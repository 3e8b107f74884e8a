package pinctrl

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/openflow"
)

const (
	eths = "505400000002 505400000001 "
	// TCP from port 4360 to 80: a connection begins, sequence number 1.
	syn = "1108 0050 00000001 00000000 5002 ffff 0000 0000"
	// UDP from port 4360 to 53.
	query = "1108 0035 000c 0000 6869 6a6b"
	// SCTP from port 7 to 8: INIT with the tag 01020304.
	initChunk = "0007 0008 00000000 00000000 01 00 0014 01020304 0000ffff 0001 0001 00000001"
)

// ip4 and ip6 return packets from 10.0.0.1 to 10.0.0.2, from fd10::1 to fd10::2.
func ip4(t testing.TB, proto, fragment, payload string) []byte {
	t.Helper()
	p := packet(t, payload)
	head := packet(t, eths+"0800 45b8 0000 0007"+fragment+"40"+proto+"0000 0a000001 0a000002")
	binary.BigEndian.PutUint16(head[16:], uint16(20+len(p)))
	binary.BigEndian.PutUint16(head[24:], sum16(head[14:34]))
	return append(head, p...)
}

func ip6(t testing.TB, next, payload string) []byte {
	t.Helper()
	p := packet(t, payload)
	head := packet(t, eths+"86dd 6b812345 0000"+next+"40 fd100000000000000000000000000001 fd100000000000000000000000000002")
	binary.BigEndian.PutUint16(head[18:], uint16(len(p)))
	return append(head, p...)
}

// variety returns packets of many kinds.
func variety(t testing.TB) [][]byte {
	t.Helper()
	tag := func(tags string, p []byte) []byte {
		return append(append(bytes.Clone(p[:12]), packet(t, tags)...), p[12:]...)
	}
	tcp := ip4(t, "06", "0000", syn)
	return [][]byte{
		tcp,
		ip4(t, "06", "0000", "1108 0050 00000001 00000000 5fff ffff 0000 0000"),
		ip4(t, "06", "0000", "1108 0050 00000001 00000000 5000 ffff 0000 0000"),
		ip4(t, "06", "2000", syn), ip4(t, "06", "0005", syn), ip4(t, "06", "2005", syn),
		ip4(t, "11", "4000", query), ip4(t, "01", "0000", "0800 0000 0001 0002 6162"), ip4(t, "84", "0000", initChunk), ip4(t, "2f", "0000", "00000800"),
		tag("8100 6064", tcp), tag("8100 0000", tcp), tag("88a8 f007 8100 0064", tcp),
		ip6(t, "06", syn), ip6(t, "11", query), ip6(t, "84", initChunk), ip6(t, "3a", "8000 0000 0001 0002"), ip6(t, "3b", ""),
		ip6(t, "2c", "0600 0001 00000007"+syn), ip6(t, "2c", "0600 0008 00000007"+syn),
		ip6(t, "00", "3c00 0104 00000000 0601 0000 00000000 0000000000000000"+syn), ip6(t, "33", "0604 0000 00000001 00000001 000000000000000000000000"+syn),
		ip6(t, "2b", "1100 0000 00000000"+query),
		packet(t, multicastNS), packet(t, unicastNS),
		ip6(t, "3a", "8800 0000 60000000 fd100000000000000000000000000002 0201 505400000002"),
		packet(t, eths+"0806 0001 0800 06 04 0001 505400000001 0a000001 000000000000 0a000002"),
		packet(t, eths+"8035 0001 0800 06 04 0003 505400000001 0a000001 505400000009 0a000002"),
		packet(t, eths+"88b5 00010203"),
		append(bytes.Clone(tcp), make([]byte, 6)...), // padding
	}
}

// What OVS prints of a packet in a file, and we leave out.
var besides = regexp.MustCompile(`in_port=ANY,|vlan_tci1=0x0000,|dl_vlan1=\d+,|dl_vlan_pcp1=\d+,`)

// The headers in an entry are those that ovs-ofctl(8) finds in the packet, in its words.
func TestHeadersAsOVS(t *testing.T) {
	order := binary.BigEndian
	pcap := order.AppendUint32(nil, 0xa1b2c3d4)
	pcap = append(pcap, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 1) // version 2.4, Ethernet
	packets := variety(t)
	for _, p := range packets {
		pcap = append(pcap, 0, 0, 0, 0, 0, 0, 0, 0)
		pcap = order.AppendUint32(pcap, uint32(len(p)))
		pcap = order.AppendUint32(pcap, uint32(len(p)))
		pcap = append(pcap, p...)
	}
	file := filepath.Join(t.TempDir(), "packets.pcap")
	if err := os.WriteFile(file, pcap, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "ovs-ofctl", "parse-pcap", file).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != len(packets) {
		t.Fatalf("ovs-ofctl parse-pcap: %v\n%s", err, out)
	}
	for i, p := range packets {
		e, err := Log(openflow.PacketIn{Packet: p, UserData: append(userData(compile.OpLog), 0, 6)})
		if want := besides.ReplaceAllString(lines[i], ""); err != nil || e.Flow != want {
			t.Errorf("flow of %x, %v\n%s\nwant\n%s", p, err, e.Flow, want)
		}
	}
}

func TestLog(t *testing.T) {
	const flow = "tcp,vlan_tci=0x0000,dl_src=50:54:00:00:00:01,dl_dst=50:54:00:00:00:02,nw_src=10.0.0.1,nw_dst=10.0.0.2," +
		"nw_tos=184,nw_ecn=0,nw_ttl=64,nw_frag=no,tp_src=4360,tp_dst=80,tcp_flags=syn"
	tcp := ip4(t, "06", "0000", syn)
	for _, tt := range []struct {
		table uint8
		data  string // behind the opcode
		want  Entry
	}{
		{compile.TableEgress, "\x00\x06acl 1", Entry{"acl 1", "allow", "info", "to-lport", flow}},
		{compile.TableEgress - 1, "\x01\x01", Entry{"<unnamed>", "drop", "alert", "from-lport", flow}},
		{0xff, "\x02\x04\x00\xff", Entry{"\x00\xff", "reject", "warning", "to-lport", flow}},
		{0, "\x03\x00x", Entry{"x", "<unknown>", "<unknown>", "from-lport", flow}},
	} {
		pin := openflow.PacketIn{Table: tt.table, Packet: tcp, UserData: append(userData(compile.OpLog), tt.data...)}
		if got, err := Log(pin); err != nil || got != tt.want || !IsLog(pin) {
			t.Errorf("Log of %q = %+v, %v, want %+v", tt.data, got, err, tt.want)
		}
	}
	for _, data := range [][]byte{nil, {0, 0, 0, 7}, userData(compile.OpLog), append(userData(compile.OpLog), 0)} {
		if e, err := Log(openflow.PacketIn{Packet: tcp, UserData: data}); err == nil || !strings.Contains(err.Error(), "user data of") {
			t.Errorf("Log of user data %x = %+v, %v", data, e, err)
		}
	}
	if IsLog(openflow.PacketIn{UserData: []byte{0, 0, 0, 7}}) || IsLog(openflow.PacketIn{UserData: userData(compile.OpNDNA)}) {
		t.Error("IsLog takes something else for a log")
	}
}

// sum16 is the Internet checksum of RFC 1071 of bytes among which the checksum is 0.
func sum16(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// Whatever is sent: no panic, and OVN's words in the entry.
func FuzzLog(f *testing.F) {
	for _, p := range variety(f) {
		f.Add(p, append(userData(compile.OpLog), 1, 6, 'x'))
	}
	f.Fuzz(func(t *testing.T, in, data []byte) {
		e, err := Log(openflow.PacketIn{Packet: in, UserData: data})
		if err == nil && (e.Name == "" || e.Verdict == "" || e.Severity == "" || len(in) >= ethHeader && e.Flow == "") {
			t.Errorf("entry %+v of %x, %x", e, in, data)
		}
	})
}
