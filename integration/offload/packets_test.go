package offload

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/pkg/tc"
)

// Filters make of each packet what Open vSwitch makes of it, to the byte. Outside, tunnelled packets differ in the following:
//
//   - Open vSwitch sets DF; in Linux 6.1 tunnel_key cannot.
//   - Open vSwitch sets the C flag of the Geneve header, since OVN's option is a critical one; tunnel_key does not.
//
// Neither is looked at by who receives them. Checksums follow, and the identification of the outer packet is a number that the kernel
// draws.
func TestSamePackets(t *testing.T) {
	r := rig(t)
	for _, p := range r.Pods() {
		deafen(t, p)
	}
	taps := map[string]*tap{}
	for _, p := range r.Pods() {
		taps[p.Name] = newTap(t, p.Netns(), "eth0")
	}
	wire := newTap(t, r.Node("n2").Netns(), "phy0")
	record := func(how string) map[string]arrival {
		all := map[string]arrival{}
		for _, n := range r.Nodes {
			_, err := n.AppCtl(t.Context(), "dpctl/flush-conntrack")
			check(t, err)
		}
		for _, p := range Paths() {
			before := count(t, r)
			for _, v6 := range []bool{false, true} {
				for _, s := range script(t, r, p, v6) {
					from, to := p.From, p.To
					if s.back {
						from, to = to, from
					}
					taps[to].drop()
					wire.drop()
					taps[from].send(s.frame)
					wait := lab.Patient(2 * time.Second)
					if s.lost {
						wait = 300 * time.Millisecond
					}
					a := arrival{inner: taps[to].next(wait, unicastIP)}
					if p.Tunnel && !s.back && a.inner != nil {
						a.outer = wire.next(wait, geneve)
					}
					if s.lost != (a.inner == nil) {
						t.Errorf("%s, %s, %s %s: arrived is %t", how, p.Name, family(v6), s.name, s.lost)
					}
					all[fmt.Sprintf("%s, %s, %s", p.Name, family(v6), s.name)] = a
				}
			}
			counts := since(t, r, before)
			there, back := r.Way(counts, p.From, p.To), r.Way(counts, p.To, p.From)
			t.Logf("%s: %s: there, Open vSwitch saw %d packets and filters sent %d; back %d and %d", how, p.Name, there.OVS, there.TC, back.OVS, back.TC)
			if on := how == "on"; on != (there.TC > there.OVS) || on != (back.TC > back.OVS) {
				t.Errorf("filters are %s, but did other", how)
			}
		}
		return all
	}
	with := record("on")
	check(t, r.SetFilters(t.Context(), false))
	defer func() { check(t, r.SetFilters(t.Context(), true)) }()
	without := record("off")
	differences := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(without)) {
		w, wo := with[name], without[name]
		if !bytes.Equal(w.inner, wo.inner) {
			t.Errorf("%s: with filters\n%swithout\n%s", name, hex.Dump(w.inner), hex.Dump(wo.inner))
		}
		if (w.outer == nil) != (wo.outer == nil) {
			t.Errorf("%s: in the tunnel is %t with filters, %t without", name, w.outer != nil, wo.outer != nil)
		} else if w.outer != nil {
			for _, d := range outerDifferences(t, w.outer, wo.outer) {
				differences[d]++
			}
		}
	}
	t.Logf("%d packets, differences outside: %v", len(with), differences)
	for d := range differences {
		if !slices.Contains([]string{"DF", "C flag", "identification"}, d) {
			t.Errorf("outside, %d packets differ in: %s", differences[d], d)
		}
	}
}

// An arrival is a frame as it arrives at the pod, and in the tunnel if it went through one.
type arrival struct{ inner, outer []byte }

// deafen makes a pod ignore all that arrives: nobody but the test answers.
func deafen(t *testing.T, p *lab.Pod) {
	t.Helper()
	var ifindex int
	check(t, eth0(p, func(_ *netlink.Handle, link netlink.Link) error {
		ifindex = link.Attrs().Index
		return nil
	}))
	conn, err := tc.Dial(tc.DialOptions{NetNS: "/run/netns/" + p.Netns()})
	check(t, err)
	check(t, conn.EnsureClsact(t.Context(), ifindex, 0))
	t.Cleanup(func() {
		check(t, conn.DeleteClsact(context.Background(), ifindex)) // t's own has ended
		conn.Close()
	})
	f := tc.Filter{Pref: 1, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Drop{}}}
	refused, err := conn.Apply(t.Context(), tc.Target{Ifindex: ifindex}, []tc.Op{tc.AddOp(&f)})
	check(t, err)
	if len(refused) > 0 {
		t.Fatal(&refused[0])
	}
}

// A step is a frame that one end of a path sends.
type step struct {
	name  string
	back  bool
	lost  bool // nobody lets it through
	frame []byte
}

// script is a conversation in UDP, TCP and ICMP along a path, with what packets may have.
func script(t *testing.T, r *Rig, p Path, v6 bool) []step {
	t.Helper()
	from, to := r.Pod(p.From), r.Pod(p.To)
	macs := [2][2]string{{to.MAC, from.MAC}, {from.MAC, to.MAC}} // destination and source
	if p.Routed {
		macs[0][0], macs[1][0] = "50:54:00:00:01:ff", "50:54:00:00:02:ff" // scene's router
	}
	var steps []step
	add := func(name string, back bool, make func(h ip) []byte) *step {
		h := ip{src: from.Addr(v6), dst: to.Addr(v6), ttl: 64, id: uint16(0x1000 + len(steps))}
		m := macs[0]
		if back {
			h.src, h.dst, m = h.dst, h.src, macs[1]
		}
		steps = append(steps, step{name: name, back: back, frame: ethernet(t, m[0], m[1], make(h))})
		return &steps[len(steps)-1]
	}
	data := bytes.Repeat([]byte("All octets arrive as they were sent. "), 40)[:1300]

	const client = 40000
	udp := func(name string, n int, change func(*ip)) {
		for _, back := range []bool{false, true} {
			from, to, arrow := uint16(client), uint16(UDPPort), " there"
			if back {
				from, to, arrow = to, from, " back"
			}
			add("UDP: "+name+arrow, back, func(h ip) []byte {
				change(&h)
				return h.udp(from, to, data[:n])
			})
		}
	}
	udp("first", 100, func(*ip) {})
	udp("nothing", 0, func(*ip) {})
	udp("odd", 1, func(*ip) {})
	udp("large", 1300, func(*ip) {})
	udp("EF, congestion experienced", 100, func(h *ip) { h.tos = 0xbb })
	udp("TTL 255", 100, func(h *ip) { h.ttl = 255 })
	udp("TTL 2", 100, func(h *ip) { h.ttl = 2 })
	udp("TTL 3", 100, func(h *ip) { h.ttl = 3 })
	if v6 {
		udp("flow label", 100, func(h *ip) { h.label = 0xabcde })
		udp("hop-by-hop options", 100, func(h *ip) { h.hopByHop = []byte{1, 4, 0, 0, 0, 0} })
	} else {
		udp("DF", 100, func(h *ip) { h.df = true })
		udp("identification 0", 100, func(h *ip) { h.id = 0 })
		udp("options", 100, func(h *ip) { h.options = []byte{1, 1, 1, 0} })
		add("UDP: without checksum", false, func(h ip) []byte {
			b := h.udp(client, UDPPort, data[:100])
			b[26], b[27] = 0, 0
			return b
		})
	}
	add("UDP: wrong checksum", false, func(h ip) []byte {
		b := h.udp(client, UDPPort, data[:100])
		b[len(b)-1] ^= 1
		return b
	}).lost = true
	padded := add("UDP: padded", false, func(h ip) []byte { return h.udp(client, UDPPort, data[:1]) })
	padded.frame = append(padded.frame, bytes.Repeat([]byte{0xaa}, max(0, 70-len(padded.frame)))...)

	const port = 5432
	seq := [2]uint32{0xfffffff0, 1000} // there and back; the first wraps around
	tcp := func(name string, back bool, s segment) {
		i, from, to := 0, uint16(client), uint16(port)
		if back {
			i, from, to = 1, to, from
		}
		s.seq = seq[i]
		if s.flags&ack != 0 {
			s.ack = seq[1-i]
		}
		seq[i] += uint32(len(s.data))
		if s.flags&(syn|fin) != 0 {
			seq[i]++
		}
		add("TCP: "+name, back, func(h ip) []byte { return h.tcp(from, to, s) })
	}
	mss := []byte{2, 4, 5, 0x14, 4, 2, 1, 1} // and SACK permitted
	tcp("SYN", false, segment{flags: syn, options: mss})
	tcp("SYN ACK", true, segment{flags: syn | ack, options: mss})
	tcp("ACK", false, segment{flags: ack})
	tcp("data", false, segment{flags: ack | psh, data: data})
	tcp("data and ACK", true, segment{flags: ack | psh, data: data[:1299]})
	tcp("urgent", false, segment{flags: ack | urg, urgent: 3, data: data[:7]})
	tcp("selective ACK", true, segment{flags: ack, options: append([]byte{1, 1, 5, 10}, binary.BigEndian.AppendUint64(nil, 0x1000200010003000)...)})
	tcp("FIN", false, segment{flags: ack | fin})
	tcp("FIN ACK", true, segment{flags: ack | fin})
	tcp("last ACK", false, segment{flags: ack})

	for i := range uint16(2) {
		add(fmt.Sprintf("ping %d", i), false, func(h ip) []byte { return h.echo(false, i, data[:56]) })
		add(fmt.Sprintf("pong %d", i), true, func(h ip) []byte { return h.echo(true, i, data[:56]) })
	}
	return steps
}

// geneve reports whether a frame is a Geneve packet on IPv4.
func geneve(f []byte) bool {
	return len(f) > 42 && binary.BigEndian.Uint16(f[12:]) == etherTypeIPv4 && f[14] == 0x45 && f[23] == protoUDP && binary.BigEndian.Uint16(f[36:]) == 6081
}

// outerDifferences names the differences of two frames with a Geneve packet, except those of checksums that follow from them.
func outerDifferences(t *testing.T, a, b []byte) []string {
	t.Helper()
	if len(a) != len(b) {
		return []string{fmt.Sprintf("length: %d, not %d", len(a), len(b))}
	}
	var all []string
	a, b = bytes.Clone(a), bytes.Clone(b)
	even := func(name string, at int, mask ...byte) {
		differ := false
		for i, m := range mask {
			differ = differ || (a[at+i]^b[at+i])&m != 0
			a[at+i], b[at+i] = a[at+i]&^m, b[at+i]&^m
		}
		if differ {
			all = append(all, name)
		}
	}
	if (a[40]|a[41] == 0) != (b[40]|b[41] == 0) {
		all = append(all, "presence of the UDP checksum")
	}
	for _, f := range [][]byte{a, b} {
		if fold(sum16(f[14:34])) != 0 {
			all = append(all, "wrong IPv4 checksum")
		}
		f[24], f[25], f[40], f[41] = 0, 0, 0, 0
	}
	even("identification", 18, 0xff, 0xff)
	even("DF", 20, 0x40)
	even("source port", 34, 0xff, 0xff)
	even("C flag", 43, 0x40)
	if !bytes.Equal(a, b) {
		all = append(all, fmt.Sprintf("the rest:\n%s\nand\n%s", hex.Dump(a), hex.Dump(b)))
	}
	return all
}
