package report

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// kinds are paths with what they were seen to cost, in nanoseconds above the baseline.
var kinds = []struct {
	name, twin string
	effect     float64
	path       int64
	about      string
	stands     []string
}{
	{"metal", "", 0, 200, "wire, which is a veth pair between two nodes", []string{"bare metal (000)", "physical (003)"}},
	{"metal-1", "metal", 0, 195, "", nil},
	{"metal-2", "metal", 0, 199, "", nil},
	{"host", "", -1072, 230, "loopback", []string{"local run (000)"}},
	{"macvlan", "", 341, 200, "macvlan in mode bridge, wire, macvlan", []string{"macvlan (000, 003, 004)"}},
	{"veth", "", 60, 205, "veth pair, routing of the node, veth pair", nil},
	{"bridge", "", 2614, 1622, "veth pair, bridge, veth pair", nil},
	{"routed", "", 3115, 2293, "veth pair, routing, wire, routing, veth pair", nil},
	{"routed-rules", "", 17340, 8382, "as routed, with rules", nil},
	{"hostgw", "", 5598, 3405, "veth pair, bridge, routing, wire", nil},
	{"flannel-vxlan", "", 11200, 5669, "veth pair, bridge, routing, VXLAN", nil},
	{"overlay-vxlan", "", 9985, 5238, "veth pair, bridge with a VXLAN port", nil},
	{"tun-udp", "", 102_000, 32_000, "veth pair, TUN, a process", nil},
}

// simulate makes a run as a probe would, judged. The same seed makes the same run.
func simulate(t testing.TB, seed uint64, packets int, loads []result.Load, change func(*result.Run)) *result.Run {
	t.Helper()
	return simulateWire(t, seed, packets, loads, result.Wire{}, change)
}

func simulateWire(t testing.TB, seed uint64, packets int, loads []result.Load, wire result.Wire, change func(*result.Run)) *result.Run {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	start := time.Date(2026, 11, 29, 15, 4, 0, 0, time.UTC)
	run := &result.Run{
		Version: result.Version, ID: "20261129-150400", Started: start, Ended: start.Add(95 * time.Second), Program: "offloadd 1.0.0",
		Baseline: "metal",
		Parameters: result.Parameters{
			Loads: loads, Sessions: 8, Rounds: 500, Burst: 11, Warmup: 200 * time.Millisecond, Timeout: 100 * time.Millisecond, Busy: true,
			Priority: 10, CPUs: [2]int{0, 1}, Timestamps: true, Wire: wire, Seed: seed, Limits: stats.DefaultLimits(),
		},
		Machine: result.Machine{Hostname: "n1", Kernel: "6.18.44", CPU: "AMD EPYC", CPUs: 2, Facts: map[string]string{
			"clocksource": "tsc", "mitigations": "retpolines", "governor": "none",
		}},
		Missing: []result.Missing{{Kind: "wireguard", Why: "kernel: rtnetlink: operation not supported"}, {Kind: "vf", Why: "no NIC has virtual functions"}},
	}
	for _, k := range kinds {
		run.Paths = append(run.Paths, result.Path{Name: k.name, Kind: k.name, Twin: k.twin, About: k.about, Stands: k.stands})
	}
	for _, l := range loads {
		levels := make([]float64, run.Parameters.Sessions)
		for s := range levels {
			levels[s] = 7200 + 250*r.NormFloat64() + 2*float64(wire.Delay)
		}
		for _, k := range kinds {
			c := result.Case{Path: k.name, Load: l}
			for _, level := range levels {
				c.Sessions = append(c.Sessions, simulateSession(t, r, l, packets, level+k.effect+25*r.NormFloat64(), k.name))
			}
			if l.Mode == result.RR {
				c.Sessions = append(c.Sessions, result.Session{Segments: &result.Segments{
					Count: 2000, Send: 1700, Path: k.path, Receive: 1500, Send99: 2100, Path99: k.path * 11 / 10, Receive99: 1900,
				}})
			}
			run.Cases = append(run.Cases, c)
		}
	}
	if change != nil {
		change(run)
	}
	if err := stats.Judge(run); err != nil {
		t.Fatal(err)
	}
	return run
}

func simulateSession(t testing.TB, r *rand.Rand, l result.Load, packets int, at float64, name string) result.Session {
	t.Helper()
	forwarding := time.Duration(0)
	if name == "tun-udp" {
		forwarding = time.Duration(packets) * 40 * time.Microsecond
	}
	s := result.Session{
		Elapsed: time.Duration(float64(packets) * at), Transactions: int64(packets), Loss: result.Loss{Sent: int64(packets)},
		Noise: result.Noise{Elapsed: time.Second, Others: 10 * time.Millisecond},
		CPU: [2]result.CPU{
			{User: time.Duration(float64(packets) * at * 0.2), System: time.Duration(float64(packets) * at * 0.3)},
			{User: time.Duration(float64(packets) * at * 0.1), System: time.Duration(float64(packets) * at * 0.35), Forwarding: forwarding},
		},
	}
	if l.Mode == result.Stream || l.Mode == result.Maerts {
		s.Octets = int64(float64(s.Elapsed) * 1.25 * 7200 / at)
		s.TCP = &result.TCP{Retransmits: int64(r.IntN(5))}
		return s
	}
	h := stats.NewHistogram()
	var jitter, before float64
	for range packets {
		v := at + 0.01*min(at, 100_000)*r.NormFloat64()
		switch n := r.IntN(10_000); {
		case n < 8:
			v += 14_000 * math.Exp(r.NormFloat64())
		case n < 200:
			v += 700 * r.ExpFloat64()
		}
		if before != 0 {
			jitter += (math.Abs(v-before) - jitter) / 16
		}
		before = v
		if err := h.RecordValue(int64(v)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := stats.Encode(h)
	if err != nil {
		t.Fatal(err)
	}
	s.Histogram, s.Jitter = text, jitter
	if l.Mode == result.Open {
		s.FromSend = text
	}
	return s
}

var udp = result.Load{Mode: result.RR, Transport: "udp", Size: 64}
