package tc

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ir"
)

// message returns a message of flower with the given options, as the kernel might send it.
func flowerMessage(options ...[]byte) []byte {
	b := appendTcmsg(nil, Target{Block: 7}, 1, 10, ProtocolIPv4)
	b = appendString(b, tcaKind, kindFlower)
	b = appendU32(b, tcaChain, 3)
	return appendAttr(b, tcaOptions, slices.Concat(options...))
}

func act(order uint16, attrs ...[]byte) []byte {
	return appendAttr(nil, flowerAct, appendAttr(nil, order, slices.Concat(attrs...)))
}

// What others have installed, or a newer kernel says, is told in words, and the rest is read.
func TestForeign(t *testing.T) {
	gact := func(verdict uint32) []byte {
		return appendAttr(nil, actOptions, appendAttr(nil, parms, tcGen(verdict)))
	}
	for _, c := range []struct {
		name string
		b    []byte
		want []string // each is part of an entry of Foreign
	}{
		{"nothing", flowerMessage(act(1, appendString(nil, actKind, "gact"), gact(verdictShot))), nil},
		{"matchall", appendString(appendTcmsg(nil, Target{Block: 7}, 1, 10, ProtocolAll), tcaKind, "matchall"), []string{`classifier "matchall"`}},
		{"egress", appendString(appendRawTcmsg(nil, 7, 1, 0xfffffff3, 0), tcaKind, kindFlower), []string{"parent 0xfffffff3"}},
		{"hash key", flowerMessage(appendU32(nil, 100, 1), appendU32(nil, 101, 1)), []string{"key 100", "key 101"}},
		{"newer key", flowerMessage(appendU32(nil, 999, 1)), []string{"key 999"}},
		{"key of another size", flowerMessage(appendU32(nil, 9, 6)), []string{"ip_proto of 4 bytes"}},
		{"mask alone", flowerMessage(appendBE16(nil, 36, 1)), []string{"mask 36 without a value"}},
		{"ct_state of a newer kernel", flowerMessage(appendU16(nil, 91, 64), appendU16(nil, 92, 64)), []string{"ct_state 0x40/0x40"}},
		{"fragment", flowerMessage(appendBE32(nil, 47, 2), appendBE32(nil, 48, 2)), []string{"ip_flags 0x2/0x2"}},
		{"eth_type", flowerMessage(appendBE16(nil, flowerEthType, 0x86dd)), []string{"eth_type 86dd"}},
		{"vlans", flowerMessage(appendU8(nil, flowerNumVLANs, 2)), []string{"num_of_vlans 2"}},
		{"tunnel port range", flowerMessage(appendBE16(nil, flowerEncDstPort, 1), appendBE16(nil, flowerEncDstPort+1, 0xff)), []string{"enc_dst_port 0001/00ff"}},
		{"option of others", flowerMessage(appendOptions(nil, flowerEncOpts, GeneveOption{1, 2, "abcd"}), appendOptions(nil, flowerEncOpts+1, GeneveOption{0xffff, 0xff, "abcd"})), []string{"enc_opts"}},
		{"police", flowerMessage(act(1, appendString(nil, actKind, "police"), gact(verdictPipe))), []string{`action 1: kind "police"`}},
		{"continue", flowerMessage(act(1, appendString(nil, actKind, "gact"), gact(^uint32(0)))), []string{"action 1: gact continue"}},
		{"verdict", flowerMessage(act(1, appendString(nil, actKind, "csum"), appendAttr(nil, actOptions, appendAttr(nil, csumParms, ne.AppendUint32(tcGen(verdictOK), 1))))), []string{"action 1: verdict pass"}},
		{"no parameters", flowerMessage(act(1, appendString(nil, actKind, "ct"), appendAttr(nil, actOptions, nil))), []string{"ct without parameters"}},
		{"cookie", flowerMessage(act(1, appendString(nil, actKind, "gact"), gact(0), appendAttr(nil, actCookie, []byte{1, 2}))), []string{"cookie of 2 bytes"}},
		{"order", flowerMessage(act(2, appendString(nil, actKind, "gact"), gact(0))), []string{"action 2 after 0"}},
		{"garbage", append(flowerMessage(), 1, 2, 3), []string{"malformed message"}},
		{"garbage inside", flowerMessage([]byte{9, 0, 1, 0}), []string{"malformed options"}},
	} {
		in, err := Decode(c.b)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(in.Foreign) != len(c.want) {
			t.Errorf("%s: foreign %q, want %q", c.name, in.Foreign, c.want)
			continue
		}
		for i := range c.want {
			if !strings.Contains(in.Foreign[i], c.want[i]) {
				t.Errorf("%s: foreign %q, want %q", c.name, in.Foreign, c.want)
			}
		}
	}
	for n := range tcmsgSize {
		if _, err := Decode(flowerMessage()[:n]); err == nil {
			t.Errorf("a message of %d bytes is decoded", n)
		}
	}
}

// The second of two actions' cookies, and one that is missing, show that somebody else was here.
func TestCookies(t *testing.T) {
	f := Filter{Pref: 1, Handle: 1, Protocol: ProtocolAll, Actions: []Action{TunnelUnset{}, Drop{}}, Cookie: Cookie{1}}
	b, err := AppendFilter(nil, Target{Block: 1}, &f)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"actions without cookie", "another cookie"} {
		other := slices.Clone(b)
		at := strings.LastIndex(string(b), string(f.Cookie[:]))
		if i == 0 {
			ne.PutUint16(other[at-2:], 99) // another attribute
		} else {
			other[at] = 2
		}
		in, err := Decode(other)
		if err != nil || len(in.Foreign) != 1 || !strings.Contains(in.Foreign[0], want) {
			t.Errorf("%v, foreign %q, want %q", err, in.Foreign, want)
		}
	}
}

// Counters of 64 bits follow those of 32, in software and of the hardware.
func TestStats(t *testing.T) {
	basic := func(bytes uint64, packets uint32) []byte {
		return ne.AppendUint32(ne.AppendUint32(ne.AppendUint64(nil, bytes), packets), 0)
	}
	queue := ne.AppendUint32(ne.AppendUint32(ne.AppendUint32(ne.AppendUint32(ne.AppendUint32(nil, 1), 2), 3), 4), 5)
	stats := slices.Concat(
		appendAttr(nil, statsBasic, basic(1000, 7)), appendAttr(nil, statsPkt64, ne.AppendUint64(nil, 1<<32+7)),
		appendAttr(nil, statsBasicHW, basic(600, 5)), appendAttr(nil, statsQueue, queue))
	in, err := Decode(flowerMessage(act(1, appendString(nil, actKind, "gact"), appendAttr(nil, actStats, stats), appendAttr(nil, actCookie, make([]byte, 16)))))
	if err != nil {
		t.Fatal(err)
	}
	want := []ActionState{{Kind: "gact", Bytes: 1000, Packets: 1<<32 + 7, HWBytes: 600, HWPackets: 5, Qlen: 1, Backlog: 2, Drops: 3, Requeues: 4, Overlimits: 5}}
	if d := cmp.Diff(want, in.Actions); d != "" || !in.Terse {
		t.Errorf("terse %v (-want +got):\n%s", in.Terse, d)
	}
	if packets, bytes := in.Packets(); packets != 1<<32+7 || bytes != 1000 {
		t.Errorf("Packets() = %d, %d", packets, bytes)
	}
}

// A key of pedit that covers the ends of two fields is two edits; one that covers none is foreign.
func TestPeditOfOthers(t *testing.T) {
	for _, c := range []struct {
		w    word
		want []Edit
		rest uint32
	}{
		{word{headerEth, false, 4, 0x00010002, 0xffffffff}, []Edit{
			{Field: ir.EthDst, Value: ir.U64(1), Mask: ir.U64(0xffff)}, {Field: ir.EthSrc, Value: ir.U64(2 << 32), Mask: ir.U64(0xffff << 32)},
		}, 0},
		{word{headerIPv4, false, 8, 0x40000000, 0xffff0000}, []Edit{{Field: ir.IPTTL, Value: ir.U64(64), Mask: ir.Ones(8)}}, 0x00ff0000},
		{word{headerIPv6, false, 0, 0x02800000, 0x0fc00000}, []Edit{{Field: ir.IPDSCP, Value: ir.U64(10), Mask: ir.Ones(6)}}, 0},
		{word{headerTCP, false, 12, 1, 1}, nil, 1},
	} {
		var p Pedit
		rest := p.add(c.w)
		if d := cmp.Diff(c.want, p.Edits); d != "" || rest != c.rest {
			t.Errorf("add(%+v) = %#x, want %#x (-want +got):\n%s", c.w, rest, c.rest, d)
		}
	}
}
