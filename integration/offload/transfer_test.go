package offload

import (
	"context"
	"testing"
	"time"
)

// mostInOVS is how many packets of a connection's direction Open vSwitch may see: the one that it commits, and what is on the way
// until it has.
const mostInOVS = 3

// Once Open vSwitch has let a connection in, filters forward it: through a switch and a router, in a node and through Geneve, in
// both families, with segments that are cut on the way, or before: then every packet is counted on one of the two sides.
func TestTransfer(t *testing.T) {
	r := rig(t)
	warm(t, r)
	pin(t, r)
	const size = 1 << 20
	transfer := func(t *testing.T, p Path, v6 bool) {
		t.Helper()
		took, err := Transfer(t.Context(), r.Pod(p.From), r.Pod(p.To), v6, 5432, size)
		check(t, err)
		t.Logf("%s: %d bytes each way in %v", family(v6), size, took.Round(time.Millisecond))
	}
	m := newMeter(t, r)
	for _, p := range Paths() {
		t.Run("large segments/"+p.Name, func(t *testing.T) {
			transfer(t, p, false)
			transfer(t, p, true)
			m.judge(t, p, 2, false, 2*size/1400)
		})
	}
	segments(t, r, "off")
	t.Cleanup(func() { segments(t, r, "on") })
	m.read(t)
	for _, p := range Paths() {
		for _, v6 := range []bool{false, true} {
			t.Run(p.Name+"/"+family(v6), func(t *testing.T) {
				transfer(t, p, v6)
				const requests = 200
				answered, err := Exchange(t.Context(), r.Pod(p.From), r.Pod(p.To), v6, UDPPort, requests)
				check(t, err)
				if answered != requests {
					t.Errorf("UDP: %d of %d requests were answered", answered, requests)
				}
				m.judge(t, p, 2, true, size/1400+requests-mostInOVS)
			})
		}
	}
}

// segments tells the pods whether to leave it to others to cut segments and to compute checksums.
func segments(t *testing.T, r *Rig, onOff string) {
	t.Helper()
	for _, p := range r.Pods() {
		_, err := p.Exec(context.Background(), "ethtool", "-K", "eth0", "tx", onOff, "tso", onOff, "gso", onOff) // t's own may have ended
		check(t, err)
	}
}

// A meter reads the counters of the rig and what the pods have sent. One reading is the end of a measurement and the beginning of the next.
type meter struct {
	rig    *Rig
	counts map[string]Counts
	sent   map[string]uint64
}

func newMeter(t *testing.T, r *Rig) *meter {
	t.Helper()
	m := &meter{rig: r, sent: map[string]uint64{}}
	m.read(t)
	return m
}

// read returns what has been counted since the last call.
func (m *meter) read(t *testing.T) (counts map[string]Counts, packets map[string]uint64) {
	t.Helper()
	now := count(t, m.rig)
	counts, packets = map[string]Counts{}, map[string]uint64{}
	for n, c := range now {
		counts[n] = c.Sub(m.counts[n])
	}
	for _, p := range m.rig.Pods() {
		n := sent(t, p)
		packets[p.Name] = n - m.sent[p.Name]
		m.sent[p.Name] = n
	}
	m.counts = now
	return counts, packets
}

// judge fails the test unless filters have forwarded all packets along the path and back since the last reading, except mostInOVS each
// way of each connection, and these are at least least. If exact, Open vSwitch and filters together have forwarded what the pods
// have sent.
func (m *meter) judge(t *testing.T, p Path, connections uint64, exact bool, least uint64) {
	t.Helper()
	most := connections * mostInOVS
	counts, packets := m.read(t)
	for _, e := range [][2]string{{p.From, p.To}, {p.To, p.From}} {
		way, sent := m.rig.Way(counts, e[0], e[1]), packets[e[0]]
		t.Logf("%s to %s: the pod sent %d; Open vSwitch saw %d, filters sent %d; behind the tunnel %d and %d",
			e[0], e[1], sent, way.OVS, way.TC, way.OVSFar, way.TCFar)
		if way.OVS > most || way.OVSFar > most {
			t.Errorf("%s to %s: Open vSwitch saw %d packets, and %d behind the tunnel, want at most %d", e[0], e[1], way.OVS, way.OVSFar, most)
		}
		if way.TC < least || p.Tunnel && way.TCFar < least {
			t.Errorf("%s to %s: filters sent %d packets, and %d behind the tunnel, want at least %d", e[0], e[1], way.TC, way.TCFar, least)
		}
		if exact && (way.OVS+way.TC != sent || p.Tunnel && way.OVSFar+way.TCFar != sent) {
			t.Errorf("%s to %s: the pod sent %d packets, of which %d + %d are counted, and behind the tunnel %d + %d",
				e[0], e[1], sent, way.OVS, way.TC, way.OVSFar, way.TCFar)
		}
	}
}
