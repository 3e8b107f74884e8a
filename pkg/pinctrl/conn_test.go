package pinctrl

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow/openflowtest"
)

// A wire is a bridge with a port p1 into which a test sends packets, and what came out of the port.
type wire struct {
	*openflowtest.Switch
	t       *testing.T
	capture string
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{openflowtest.Start(t), t, filepath.Join(t.TempDir(), "p1.pcap")}
	if err := w.AddBridge("br0"); err != nil {
		t.Fatal(err)
	}
	w.VSctl(t, "add-port", "br0", "p1", "--", "set", "interface", "p1", "type=dummy", "ofport_request=1", "options:tx_pcap="+w.capture)
	w.program()
	return w
}

// program adds flows as they are for a switch port whose address is fd10::2, and for all that is nobody's.
func (w *wire) program() {
	w.t.Helper()
	nested := []ir.Action{
		ir.SetWhole(ir.EthSrc, 0x505400000002),
		ir.SetWhole(ir.NDTLL, 0x505400000002),
		ir.Move{Src: ir.Whole(ir.Reg14), Dst: ir.Whole(ir.Reg15)},
		ir.Resubmit{Table: 37},
	}
	w.OFctl(w.t, "add-flow", "br0", "table=0,in_port=1,actions=set_field:3->reg14,set_field:7->metadata,resubmit(,8)")
	w.OFctl(w.t, "add-flow", "br0", fmt.Sprintf("table=8,priority=2,icmp6,icmp_type=135,icmp_code=0,nw_ttl=255,nd_target=fd10::2,actions=controller(userdata=%s)",
		dotted(userData(compile.OpNDNA, nested...))))
	w.OFctl(w.t, "add-flow", "br0", fmt.Sprintf("table=8,priority=1,ip,actions=controller(userdata=%s)", dotted(userData(compile.OpNDNA, nested...))))
	w.OFctl(w.t, "add-flow", "br0", fmt.Sprintf("table=8,priority=2,udp,actions=controller(userdata=%s)",
		dotted(append(userData(compile.OpLog), "\x01\x04acl \"1\""...))))
	w.OFctl(w.t, "add-flow", "br0", "table=37,reg15=3,metadata=7,actions=in_port,output:1")
}

// dotted returns bytes as ovs-actions(7) writes user data.
func dotted(data []byte) string {
	parts := make([]string, len(data))
	for i, b := range data {
		parts[i] = fmt.Sprintf("%02x", b)
	}
	return strings.Join(parts, ".")
}

// send lets packets come in through p1.
func (w *wire) send(packet []byte, n int) {
	w.t.Helper()
	hex := fmt.Sprintf("%x", packet)
	w.AppCtl(w.t, append([]string{"netdev-dummy/receive", "p1"}, slices.Repeat([]string{hex}, n)...)...)
}

// received waits until n packets have come out of p1 and returns them.
func (w *wire) received(n int) [][]byte {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		packets := w.packets()
		if len(packets) >= n {
			return packets
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d packets came out, want %d", len(packets), n)
		}
	}
}

// packets reads the capture file, pcap in host byte order.
func (w *wire) packets() [][]byte {
	w.t.Helper()
	b, err := os.ReadFile(w.capture)
	if err != nil {
		w.t.Fatal(err)
	}
	var packets [][]byte
	for b = b[min(24, len(b)):]; len(b) >= 16; {
		n := int(binary.NativeEndian.Uint32(b[8:]))
		if len(b) < 16+n {
			break // still being written
		}
		packets = append(packets, b[16:16+n])
		b = b[16+n:]
	}
	return packets
}

// A Neighbor Solicitation goes into a port of a real bridge, and its answer comes out; while nobody can answer, and after
// the bridge has been away and come back empty, too.
func TestResponder(t *testing.T) {
	w := newWire(t)
	defer goleak.VerifyNone(t)
	var log strings.Builder
	r := NewResponder(slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	const answer = "50:54:00:00:00:02 > 50:54:00:00:00:01, ethertype IPv6 (0x86dd), length 86: (hlim 255, next-header ICMPv6 (58) payload length: 32) " +
		"fd10::2 > fd10::1: [icmp6 sum ok] ICMP6, neighbor advertisement, length 32, tgt is fd10::2, Flags [solicited, override] " +
		"destination link-address option (2), length 8 (1): 50:54:00:00:00:02"
	// The bridge drops packets while no controller is connected: send until one is answered. Then send another kind, whose
	// answer is the last.
	first := func(before int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); len(w.packets()) == before; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("no answer")
			}
			w.send(packet(t, multicastNS), 1)
		}
		w.send(packet(t, duplicateNS), 1)
		for n := before + 2; ; n++ {
			if all := w.received(n); strings.HasPrefix(fmt.Sprintf("%x", all[len(all)-1]), "333300000001") {
				return
			}
		}
	}

	r.SetPath(w.Socket("nosuchbridge"))
	r.SetPath(w.Socket("br0"))
	first(0)
	got := w.received(1)
	if text := tcpdump(t, got[0]); text != answer {
		t.Errorf("answer\n%s\nwant\n%s", text, answer)
	}

	// A hundred at once, and garbage among them.
	before := len(w.packets())
	for range 10 {
		w.send(packet(t, "505400000002 505400000001 0800 4500 0014 0000 0000 40 3b 0000 0a000001 0a000002"), 5)
		w.send(packet(t, multicastNS), 10)
	}
	if all := w.received(before + 100); len(all) != before+100 {
		t.Errorf("%d answers to 100 solicitations", len(all)-before)
	}
	w.send(ip4(t, "11", "0000", query), 1)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		answered, refused := r.Counts()
		if answered == uint64(before+101) && refused == 50 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("Counts = %d, %d, want %d, 50", answered, refused, before+101)
		}
	}
	const entry = `level=INFO msg="acl log" name="acl \"1\"" verdict=drop severity=warning direction=from-lport ` +
		`flow="udp,vlan_tci=0x0000,dl_src=50:54:00:00:00:01,dl_dst=50:54:00:00:00:02,nw_src=10.0.0.1,nw_dst=10.0.0.2,` +
		`nw_tos=184,nw_ecn=0,nw_ttl=64,nw_frag=no,tp_src=4360,tp_dst=53"`
	if n := strings.Count(log.String(), entry); n != 1 {
		t.Errorf("%d times in the log, want once: %s\n%s", n, entry, log.String())
	}
	if n := strings.Count(log.String(), "packet-in not answered"); n != 1 {
		t.Errorf("%d lines about 50 packets that cannot be answered, want 1:\n%s", n, log.String())
	}

	w.Kill()
	if err := w.Resume(); err != nil {
		t.Fatal(err)
	}
	w.program()
	first(len(w.packets()))
}

// Whatever the packets do, so many are allowed in a period, and those that are not are counted until one is.
func TestLimiter(t *testing.T) {
	l := limiter{most: 3, per: time.Second}
	now := time.Unix(1e9, 0)
	for _, tt := range []struct {
		after time.Duration // since the one before
		want  bool
		over  uint64
	}{
		{0, true, 0},
		{0, true, 0},
		{time.Second - 1, true, 0},
		{0, false, 1},
		{0, false, 2},
		{1, true, 0},
		{0, true, 0},
		{0, true, 0},
		{0, false, 1},
		{time.Hour, true, 0},
	} {
		now = now.Add(tt.after)
		if got := l.allow(now); got != tt.want || l.over != tt.over {
			t.Errorf("%v: allow = %v, %d over, want %v, %d", now, got, l.over, tt.want, tt.over)
		}
	}
}
