package report

import (
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// ports are those of a run in which a NIC has taken the requests of a path, but not all answers.
func ports() *result.Ports {
	account := func(hardware, software, ovs int64) result.Account {
		const sent = 50_000
		return result.Account{
			Flow: "udp 10.0.0.1:50000 > 10.0.0.2:7531", Device: "rep1", Sent: sent, Hardware: hardware, Software: software, OVS: ovs, Datapath: ovs - min(ovs, 3), Upcalls: min(ovs, 3),
			Filters: 6, InHW: 5, Unexplained: sent - hardware - software - ovs,
		}
	}
	p := &result.Ports{
		Client: result.Port{Name: "web", Kind: "vf", Device: "rep1", Address: "10.0.0.1", NIC: true},
		Server: result.Port{Name: "db", Kind: "vf", Device: "rep2", Address: "10.0.0.2", NIC: true},
		Ways: []result.Way{
			{
				Path: "offload", Claim: "hardware", Accounts: [2]result.Account{account(49_998, 0, 2), account(49_000, 998, 2)},
				Connections: []result.Connection{{Zone: 5, Assured: true, Hardware: true}, {Zone: 6, Assured: true, Offload: true}, {Zone: 7}},
			},
			{Path: "software", Claim: "ovs", Accounts: [2]result.Account{account(0, 0, 50_000), account(0, 0, 49_999)}},
		},
	}
	for _, before := range []string{"cold", "new"} {
		offload := result.Life{Path: "offload", Before: before}
		for n := range int64(32) {
			offload.Took = append(offload.Took, 10_000+900_000/(n*n*n+1))
		}
		offload.Trials = []result.Trial{{Switches: [2]result.Switch{
			{Packet: 3, After: 2_500_000, Hardware: 20, HardwareAfter: 2_100_000_000}, {Packet: 4, After: 3_500_000},
		}}}
		software := result.Life{Path: "software", Before: before, Took: []int64{800_000, result.Lost, 200_000}, Trials: []result.Trial{{}}}
		p.Lives = append(p.Lives, offload, software)
	}
	effect := func(d result.Delta, verdict string) result.Effect {
		return result.Effect{Sessions: 8, Difference: d, Low: d - 40, High: d + 40, Floor: 60, Verdict: verdict}
	}
	p.BreakEvens = []result.BreakEven{
		{Path: "offload", Before: "cold", Of: result.OfTime, Verdict: result.FromPacket, From: 41, Octets: 41 * 128, Connections: 2, Packets: 32, First: 36_000, Then: effect(-4000, result.Different)},
		{Path: "offload", Before: "cold", Of: result.OfCPU, Verdict: result.Never, Why: "further packets take more", Connections: 2, Packets: 32, First: 80_000, Then: effect(400, result.Different)},
		{
			Path: "offload", Before: "new", Of: result.OfTime, Verdict: result.FromPacket, From: 1, Octets: 128, Low: 1, High: 7, Connections: 8, Packets: 112, First: -1000,
			Then: effect(-4000, result.Different),
		},
		{
			Path: "offload", Before: "new", Of: result.OfCPU, Verdict: result.Undecided, Why: "no connections were compared: what ovs-vswitchd takes is not known",
			Then: result.Effect{Verdict: result.NoVerdict, Why: "without twins the noise is not known"},
		},
	}
	return p
}

func TestPortsPage(t *testing.T) {
	page, err := HTML(scene(t, "ports"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Where the packets went", "zone 5: ASSURED HW_OFFLOAD, zone 6: ASSURED OFFLOAD, zone 7: neither assured nor offloaded", "cold, offload",
		"#3, 2.5ms / #4, 3.5ms", "round trips by packet", "From which packet on a connection is cheaper", "from #41", "from the first packet", "[#1,#7]", "5248", "never",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
		t.Error("a number is none")
	}
	empty := scene(t, "ports")
	empty.Ports = &result.Ports{Lives: []result.Life{{Path: "offload", Before: "cold", Took: []int64{result.Lost}}}}
	if _, err := HTML(empty); err != nil {
		t.Error(err)
	}
}

// What is beyond any use is refused.
func TestReadPorts(t *testing.T) {
	for what, change := range map[string]func(*result.Ports){
		"ways":    func(p *result.Ports) { p.Ways = make([]result.Way, maxPaths+1) },
		"trials":  func(p *result.Ports) { p.Lives[0].Trials = make([]result.Trial, maxSessions+1) },
		"packets": func(p *result.Ports) { p.Lives[0].Trials[0].Took = make([]int64, maxPackets+1) },
		"zones":   func(p *result.Ports) { p.Ways[0].Connections = make([]result.Connection, maxSessions+1) },
		"CPU":     func(p *result.Ports) { p.Lives[0].Trials[0].CPU = make([]int64, maxPackets+1) },
		"evens":   func(p *result.Ports) { p.BreakEvens = make([]result.BreakEven, 2*maxPaths+1) },
		"text":    func(p *result.Ports) { p.Client.Name = "a\x1b[2J" },
	} {
		run := scene(t, "ports")
		change(run.Ports)
		text, err := JSON(run)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(text); err == nil {
			t.Errorf("too many or wrong %s are taken", what)
		}
	}
}
