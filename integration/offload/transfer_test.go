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
// both families, with segments that are cut at the end or in the middle. Every packet is counted on one of the two sides.
func TestTransfer(t *testing.T) {
	r := rig(t)
	warm(t, r)
	pin(t, r)
	const size = 1 << 20
	for _, segments := range []string{"large", "cut"} {
		if segments == "cut" {
			// What the pod sends is what is counted.
			for _, p := range r.Pods() {
				_, err := p.Exec(t.Context(), "ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off")
				check(t, err)
			}
			t.Cleanup(func() {
				for _, p := range r.Pods() {
					_, err := p.Exec(context.Background(), "ethtool", "-K", "eth0", "tx", "on", "tso", "on", "gso", "on") // t's own has ended
					check(t, err)
				}
			})
		}
		for _, p := range Paths() {
			for _, v6 := range []bool{false, true} {
				t.Run(segments+"/"+p.Name+"/"+family(v6), func(t *testing.T) {
					from, to := r.Pod(p.From), r.Pod(p.To)
					measure(t, r, p, segments == "cut", size/1400, func() {
						took, err := Transfer(t.Context(), from, to, v6, 5432, size)
						check(t, err)
						t.Logf("TCP: %d bytes each way in %v", size, took.Round(time.Millisecond))
					})
				})
			}
		}
	}
	for _, p := range Paths() {
		for _, v6 := range []bool{false, true} {
			t.Run("requests/"+p.Name+"/"+family(v6), func(t *testing.T) {
				const requests = 200
				measure(t, r, p, true, requests-mostInOVS, func() {
					answered, err := Exchange(t.Context(), r.Pod(p.From), r.Pod(p.To), v6, UDPPort, requests)
					check(t, err)
					if answered != requests {
						t.Errorf("UDP: %d of %d requests were answered", answered, requests)
					}
				})
			})
		}
	}
}

// measure fails the test unless filters forward all packets that traffic sends along the path and back, except mostInOVS each way,
// and these are at least least. If exact, Open vSwitch and filters together forward what the pods send.
func measure(t *testing.T, r *Rig, p Path, exact bool, least uint64, traffic func()) {
	t.Helper()
	ends := [][2]string{{p.From, p.To}, {p.To, p.From}}
	var before [2]uint64
	for i, e := range ends {
		before[i] = sent(t, r.Pod(e[0]))
	}
	counts := count(t, r)
	traffic()
	time.Sleep(200 * time.Millisecond) // the last FIN
	counts = since(t, r, counts)
	for i, e := range ends {
		way, packets := r.Way(counts, e[0], e[1]), sent(t, r.Pod(e[0]))-before[i]
		t.Logf("%s to %s: the pod sent %d; Open vSwitch saw %d, filters sent %d; behind the tunnel %d and %d",
			e[0], e[1], packets, way.OVS, way.TC, way.OVSFar, way.TCFar)
		if way.OVS > mostInOVS || way.OVSFar > mostInOVS {
			t.Errorf("%s to %s: Open vSwitch saw %d packets, and %d behind the tunnel, want at most %d", e[0], e[1], way.OVS, way.OVSFar, mostInOVS)
		}
		if way.TC < least || p.Tunnel && way.TCFar < least {
			t.Errorf("%s to %s: filters sent %d packets, and %d behind the tunnel, want at least %d", e[0], e[1], way.TC, way.TCFar, least)
		}
		if exact && (way.OVS+way.TC != packets || p.Tunnel && way.OVSFar+way.TCFar != packets) {
			t.Errorf("%s to %s: the pod sent %d packets, of which %d + %d are counted, and behind the tunnel %d + %d",
				e[0], e[1], packets, way.OVS, way.TC, way.OVSFar, way.TCFar)
		}
	}
}
