package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A Study is what others have measured: its loads, to be sent again, and its tables, to be filled beside its numbers.
type Study struct {
	Name  string // of --as
	Title string
	// Loads are what its tables are of. Circuits are wires to emulate, one run each; none: as it is.
	Loads    []result.Load
	Circuits []Circuit
	// Kinds are of the paths that it takes, those that stand for its systems; the first is the study's own baseline.
	Kinds []string
	// Packets are how many transactions of a load it counted; 0: it does not say.
	Packets int
	// Conditions say under what its numbers came to be, and what ours cannot repeat.
	Conditions []string

	table func(Study, *strings.Builder, []*result.Run)
}

// A Circuit is a way between two sites. RTT is the least that the study saw on it, which is what the way itself takes.
type Circuit struct {
	Name string
	RTT  time.Duration
}

// Wire emulates a circuit: half of the round trip in each direction.
func (c Circuit) Wire() result.Wire { return result.Wire{Delay: c.RTT / 2} }

// Studies are all, by the names of --as.
func Studies() []Study { return slices.Clone(studies) }

// StudyOf finds a study.
func StudyOf(name string) (Study, error) {
	var names []string
	for _, s := range studies {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Study{}, fmt.Errorf("report: there is no study %q, only %s", name, strings.Join(names, ", "))
}

// Text fills the study's tables from runs of its loads; several are for studies with circuits. What a run does not have is a dash.
func (s Study) Text(runs ...*result.Run) string {
	var b strings.Builder
	wrap(&b, s.Title, 110)
	for _, c := range s.Conditions {
		wrap(&b, "- "+c, 110)
	}
	for _, run := range runs {
		wrap(&b, fmt.Sprintf("here: %s, %s, Linux %s, %s; %s", when(run.Started), run.Machine.Hostname, run.Machine.Kernel, run.Machine.CPU, manner(run)), 110)
		for _, n := range run.Noise {
			wrap(&b, "here, noise: "+n, 110)
		}
	}
	s.table(s, &b, runs)
	return b.String()
}

// A system is a row of a study, and the kinds of paths that stand for it, the best first.
type system struct {
	name  string
	kinds []string
}

// of finds the case of a system: the first kind that the run has, which is no twin. If the run does not have the load itself, it takes one like it.
func (s system) of(run *result.Run, load result.Load) *result.Case {
	for _, same := range []func(result.Load, result.Load) bool{equal, alike} {
		for _, kind := range s.kinds {
			for i := range run.Cases {
				c := &run.Cases[i]
				if p := find(run, c.Path); same(c.Load, load) && p.Kind == kind && p.Twin == "" {
					return c
				}
			}
		}
	}
	return nil
}

// equal is so for loads that differ in their durations only.
func equal(a, b result.Load) bool {
	a.Duration, b.Duration = 0, 0
	return a == b
}

// alike is so for loads whose answers have one size, at whatever rate and however long the requests are, beside the same stream.
func alike(a, b result.Load) bool {
	return a.Mode == b.Mode && a.Transport == b.Transport && a.Under == b.Under && answer(a) == answer(b)
}

func answer(l result.Load) int {
	if l.Answer != 0 {
		return l.Answer
	}
	return l.Size
}

// instead says what was measured here, if it is another load.
func instead(run *result.Run, load result.Load) string {
	for _, same := range []func(result.Load, result.Load) bool{equal, alike} {
		for _, c := range run.Cases {
			if same(c.Load, load) {
				if equal(c.Load, load) {
					return ""
				}
				return "; here: " + c.Load.String()
			}
		}
	}
	return ""
}

// from is which path it was, for a column: a stand-in is not the system itself.
func from(c *result.Case) string {
	if c == nil {
		return "-"
	}
	return c.Path
}

func rr(transport string, sizes ...int) []result.Load {
	var all []result.Load
	for _, n := range sizes {
		all = append(all, result.Load{Mode: result.RR, Transport: transport, Size: n})
	}
	return all
}

func open(size int, rates ...float64) []result.Load {
	var all []result.Load
	for _, r := range rates {
		all = append(all, result.Load{Mode: result.Open, Transport: "tcp", Size: 64, Answer: size, Rate: r})
	}
	return all
}

var studies = []Study{
	{
		Name: "deitcher", Title: "000: container networks on bare metal (Deitcher)",
		Loads: append(rr("udp", 300, 500, 1024, 2048), rr("tcp", 300, 500, 1024, 2048)...), Packets: 50_000,
		Kinds: []string{"metal", "net-host", "macvlan", "vf", "routed", "ipip", "overlay-vxlan", "flannel-vxlan", "ovs-vxlan", "tun-udp"},
		Conditions: []string{
			"there: netperf UDP_RR and TCP_RR on bare metal, 50,000 iterations; averages, percentiles and CPU; published are ranks and rough differences",
			"here: a veth pair is the wire, and both nodes are one machine; SR-IOV takes a NIC",
		},
		table: deitcher,
	},
	{
		Name: "k8s-compare", Title: "001: comparison of networks for Kubernetes, HTTP at constant rates",
		Loads: append(open(350, 150_000, 250_000), open(4096, 50_000, 150_000)...),
		Kinds: []string{"net-host", "ipvlan-l2", "hostgw", "flannel-vxlan", "metal"},
		Conditions: []string{
			"there: tcpkali to nginx, two c4.8xlarge with 10 Gb/s, Linux 4.3, one run each; its histogram has steps of 0.1 ms, and values near 200 and 400 ms fit retransmissions; its rates were 30 and 50 % of the most for 350 B, 20 and 60 % for 4096 B",
			"here: a few octets ask for as many as its answers had, over one connection and without HTTP; a veth pair is the wire. aws-vpc and host-gw are the same path on a host",
		},
		table: k8sCompare,
	},
	{
		Name: "uva", Title: "002: overlays between sites with high latency (University of Amsterdam)",
		Loads: rr("udp", 64),
		Circuits: []Circuit{
			{"AMS-MIL", 36200 * time.Microsecond},
			{"AMS-LJU", 29800 * time.Microsecond},
			{"AMS-BRA", 17400 * time.Microsecond},
			{"MIL-LJU", 55600 * time.Microsecond},
			{"MIL-BRA", 12700 * time.Microsecond},
			{"BRA-LJU", 43100 * time.Microsecond},
		},
		Kinds: []string{"metal", "overlay-vxlan", "ovs-vxlan", "tun-udp", "flannel-vxlan"},
		Conditions: []string{
			"there: netperf between five sites; its percentiles have steps of 1 ms; differences of minima are of routes and placement, not of overlays",
			"here: netem delays by half of the least round trip of a circuit in each direction; sites, their load and their throughput are not repeated",
		},
		table: uva,
	},
	{
		Name: "macvlan-etun", Title: "003: virtual network devices for containers, macvlan and etun (Thery)",
		Loads: []result.Load{
			{Mode: result.Stream, Transport: "tcp", Size: 1400, Duration: 20 * time.Second},
			{Mode: result.Maerts, Transport: "tcp", Size: 1400, Duration: 20 * time.Second},
			{Mode: result.RR, Transport: "tcp", Size: 16},
			{Mode: result.Stream, Transport: "udp", Size: 1400, Duration: 20 * time.Second},
			{Mode: result.RR, Transport: "udp", Size: 16},
		},
		Kinds: []string{"metal", "routed", "macvlan"},
		Conditions: []string{
			"there: netperf over 1 Gb/s, 1400 octets a send, 20 s (etun 40 s), to 2.5 % at 95 %; streams were as fast as the wire, so only their cost tells; etun's UDP_STREAM lost three quarters unseen, and its remote CPU is missing",
			"here: a veth pair is the wire, which has no limit of 1 Gb/s; streams are counted as received; round trips are of 16 octets, there of one; etun became veth, here with routing",
		},
		table: macvlanEtun,
	},
}

var deitcherSystems = []struct {
	system
	published string
}{
	{system{"metal", []string{"metal"}}, "the baseline"},
	{system{"net=host", []string{"net-host"}}, "as metal"},
	{system{"macvlan", []string{"macvlan"}}, "nearest of the virtual ones"},
	{system{"SR-IOV", []string{"vf"}}, "worst latency, best CPU"},
	{system{"calico", []string{"routed"}}, "+5..10 us, slightly better than the rest"},
	{system{"calico IPIP", []string{"ipip"}}, "+5..10 us; netperf got stuck"},
	{system{"docker overlay", []string{"overlay-vxlan"}}, "+5..10 us, slightly better than the rest"},
	{system{"flannel", []string{"flannel-vxlan"}}, "+5..10 us"},
	{system{"weave fastdp", []string{"ovs-vxlan"}}, "+5..10 us"},
	{system{"weave sleeve", []string{"tun-udp"}}, "beware"},
}

func deitcher(s Study, b *strings.Builder, runs []*result.Run) {
	for _, run := range runs {
		for _, load := range s.Loads {
			t := table{head: []string{"system", "path", "average", "p50", "p90", "p99", "p99.9", "d p50", "[95 %]", "cpu", "there"}}
			var any bool
			for _, sys := range deitcherSystems {
				c := sys.of(run, load)
				if any = any || c != nil; c == nil {
					t.add(sys.name, "-", "-", "-", "-", "-", "-", "", "", "-", sys.published)
					continue
				}
				average, d, i := "-", "", ""
				if c.Latency != nil {
					average = us(c.Latency.Mean)
				}
				if c.Against != nil && c.Against.P50.Sessions > 0 {
					d, i = delta(c.Against.P50.Difference)+" "+mark(c.Against.P50), interval(c.Against.P50)
				}
				t.add(sys.name, c.Path, average, percentile(c.Latency, 50), percentile(c.Latency, 90), percentile(c.Latency, 99), percentile(c.Latency, 99.9),
					d, i, cost(c.CPU[0].PerTransaction)+"/"+cost(c.CPU[1].PerTransaction), sys.published)
			}
			if any {
				fmt.Fprintf(b, "\n%s, us; differences to %s\n", load, run.Baseline)
				t.write(b)
			}
		}
	}
}

// k8sPublished are milliseconds at p95, p99, p99.5, p99.99, p99.999 and the maximum, for the loads in their order. 202.51 is printed so; what
// measured it cannot tell hundredths.
var k8sPublished = []struct {
	system
	values [4][6]string
}{
	{system{"host", []string{"net-host", "metal"}}, [4][6]string{
		{"0.5", "0.6", "0.6", "4.8", "8.9", "11.8"},
		{"0.7", "0.8", "0.9", "3.7", "7.7", "16.8"},
		{"0.5", "0.7", "0.7", "6.4", "9.9", "14.8"},
		{"0.9", "1.2", "1.3", "4.2", "9.5", "404.7"},
	}},
	{system{"ipvlan", []string{"ipvlan-l2", "ipvlan-l3"}}, [4][6]string{
		{"0.7", "0.9", "1", "6.7", "9.9", "18"},
		{"1", "1.2", "1.4", "6.3", "10.1", "24.3"},
		{"0.6", "0.8", "0.9", "5.7", "9.6", "15.8"},
		{"1", "1.3", "1.5", "5.3", "201.3", "405.7"},
	}},
	{system{"aws-vpc", []string{"hostgw"}}, [4][6]string{
		{"0.9", "1.1", "1.2", "6.5", "9.8", "15.7"},
		{"1.2", "1.5", "1.6", "5.6", "9.4", "27.3"},
		{"0.7", "0.9", "1", "5.6", "9.8", "403.1"},
		{"1.2", "1.5", "1.7", "6", "11.1", "405.1"},
	}},
	{system{"host-gw", []string{"hostgw"}}, [4][6]string{
		{"0.9", "1.1", "1.2", "5.9", "9.6", "24.3"},
		{"1.1", "1.4", "1.6", "8.6", "11.2", "40.1"},
		{"0.7", "0.9", "1", "7.4", "12", "202.5"},
		{"1.2", "1.5", "1.7", "7", "211", "405.3"},
	}},
	{system{"vxlan", []string{"flannel-vxlan"}}, [4][6]string{
		{"1.2", "1.5", "1.6", "6.6", "201.9", "405.3"},
		{"1.5", "1.9", "2.1", "16.6", "202.4", "245.5"},
		{"0.8", "1.1", "1.2", "5.7", "201.5", "402.5"},
		{"1.4", "1.7", "1.9", "6", "202.51", "406"},
	}},
}

func k8sCompare(s Study, b *strings.Builder, runs []*result.Run) {
	for k, load := range s.Loads {
		fmt.Fprintf(b, "\n%gk requests/s of %d B, ms", load.Rate/1000, load.Answer)
		for _, run := range runs {
			b.WriteString(instead(run, load))
		}
		b.WriteString("\n")
		t := table{head: []string{"system", "path", "p95", "p99", "p99.5", "p99.99", "p99.999", "max", "lost", "retransmits"}}
		for _, sys := range k8sPublished {
			v := sys.values[k]
			t.add(sys.name, "there", v[0], v[1], v[2], v[3], v[4], v[5], "", "")
			for _, run := range runs {
				c := sys.of(run, load)
				if c == nil {
					continue
				}
				retransmits := "-"
				if c.TCP != nil {
					retransmits = fmt.Sprint(c.TCP.Retransmits)
				}
				t.add("", c.Path, ms(c.Latency, 95), ms(c.Latency, 99), ms(c.Latency, 99.5), ms(c.Latency, 99.99), ms(c.Latency, 99.999),
					maxMS(c.Latency), fmt.Sprint(c.Loss.Lost), retransmits)
			}
		}
		t.write(b)
	}
}

// ms is a percentile in milliseconds, to three decimals, which the study did not have.
func ms(l *result.Latency, p float64) string {
	switch q, ok := l.At(p); {
	case !ok:
		return "-"
	case q.Lost:
		return "lost"
	default:
		return labelled(fmt.Sprintf("%.3f", float64(q.Value)/1e6), q.RTO)
	}
}

func maxMS(l *result.Latency) string {
	if l == nil || l.Count == 0 {
		return "-"
	}
	return labelled(fmt.Sprintf("%.3f", float64(l.Max)/1e6), l.MaxRTO)
}

var uvaSystems = []system{
	{"libnet", []string{"overlay-vxlan"}}, {"weave", []string{"ovs-vxlan", "tun-udp"}}, {"flannel", []string{"flannel-vxlan"}},
}

// uvaPublished are milliseconds: least, mean and p99 of the systems on the circuits.
var uvaPublished = map[string][3][3]string{
	"AMS-MIL": {{"36.3", "36.5", "37.0"}, {"36.2", "36.5", "37.0"}, {"42.5", "42.9", "43.0"}},
	"AMS-LJU": {{"30.1", "30.3", "31.0"}, {"29.8", "30.3", "31.0"}, {"29.8", "30.3", "31.0"}},
	"AMS-BRA": {{"17.6", "17.7", "18.0"}, {"17.4", "17.7", "18.0"}, {"17.4", "17.7", "18.0"}},
	"MIL-LJU": {{"61.8", "62.1", "62.4"}, {"59.6", "59.8", "60.0"}, {"55.6", "55.8", "56.0"}},
	"MIL-BRA": {{"12.7", "13.0", "14.0"}, {"12.9", "13.1", "14.0"}, {"12.9", "13.1", "14.0"}},
	"BRA-LJU": {{"47.1", "47.4", "48.0"}, {"43.1", "59.5", "130.0"}, {"43.1", "43.4", "44.0"}},
}

func uva(s Study, b *strings.Builder, runs []*result.Run) {
	t := table{head: []string{"circuit", "system", "there: min", "mean", "p99", "here: min", "mean", "p99", "path"}}
	for _, circuit := range s.Circuits {
		for k, sys := range uvaSystems {
			there := uvaPublished[circuit.Name][k]
			row := []string{circuit.Name, sys.name, there[0], there[1], there[2]}
			var c *result.Case
			for _, run := range runs {
				if run.Parameters.Wire.Delay == circuit.Wire().Delay {
					c = sys.of(run, s.Loads[0])
				}
			}
			if c == nil || c.Latency == nil || c.Latency.Count == 0 {
				t.add(append(row, "-", "-", "-", from(c))...)
				continue
			}
			l := c.Latency
			t.add(append(row, fmt.Sprintf("%.3f", float64(l.Min)/1e6), fmt.Sprintf("%.3f", l.Mean/1e6), ms(l, 99), c.Path)...)
		}
	}
	b.WriteString("\nround trips, ms\n")
	t.write(b)
}

var etunSystems = []system{{"physical", []string{"metal"}}, {"etun", []string{"routed"}}, {"macvlan", []string{"macvlan"}}}

// etunPublished are, of the loads in their order, the unit and what the study has of its systems: the rate, and CPU of both sides in us per unit; of etun and
// macvlan as changes against physical. RTT is one over the rate.
var etunPublished = []struct {
	test, unit string
	values     [3][3]string
}{
	{"TCP_STREAM", "Mb/s, us/KB", [3][3]string{{"857.39", "2.444", "3.727"}, {"-2.0 %", "+106 %", "n/a"}, {"-4.7 %", "+19 %", "+40 %"}}},
	{"TCP_MAERTS", "Mb/s, us/KB", [3][3]string{{"763.15", "2.038", "4.434"}, {"0 %", "+33 %", "n/a"}, {"0 %", "+4 %", "0 %"}}},
	{"TCP_RR", "/s, us/Tr", [3][3]string{{"12594.24", "13.21", "19.23"}, {"-2.9 %", "+15 %", "n/a"}, {"-1.2 %", "+6 %", "+4 %"}}},
	{"UDP_STREAM", "Mb/s, us/KB", [3][3]string{{"952.9", "2.354", "3.321"}, {"954.5 of 3634.7 sent", "", "n/a"}, {"+0.1 %", "+4 %", ""}}},
	{"UDP_RR", "/s, us/Tr", [3][3]string{{"13789.92", "11.09", "17.86"}, {"-2.9 %", "+14 %", "n/a"}, {"-0.3 %", "+5 %", ""}}},
}

func macvlanEtun(s Study, b *strings.Builder, runs []*result.Run) {
	loads := s.Loads
	for _, run := range runs {
		t := table{head: []string{"test", "system", "there: rate", "local", "remote", "here: rate", "local", "remote", "path"}}
		for k, x := range etunPublished {
			physical := etunSystems[0].of(run, loads[k])
			for i, sys := range etunSystems {
				name := ""
				if i == 0 {
					name = x.test + ", " + x.unit
				}
				row := append([]string{name, sys.name}, x.values[i][:]...)
				c := sys.of(run, loads[k])
				if c == nil {
					t.add(append(row, "-", "-", "-", "-")...)
					continue
				}
				rate := c.Rate
				if loads[k].Mode != result.RR {
					rate = rate * 8 / 1e6
				}
				if i == 0 || physical == nil {
					t.add(append(row, fmt.Sprintf("%.2f", rate), cost(perUnit(c.CPU[0])), cost(perUnit(c.CPU[1])), c.Path)...)
					continue
				}
				t.add(append(row, changed(c.Rate, physical.Rate), changed(perUnit(c.CPU[0]), perUnit(physical.CPU[0])),
					changed(perUnit(c.CPU[1]), perUnit(physical.CPU[1])), c.Path)...)
			}
		}
		b.WriteString("\netun and macvlan as changes against physical\n")
		t.write(b)
		macvlanEtunRTT(b, run, loads)
	}
}

// macvlanEtunRTT has what the study did not: intervals.
func macvlanEtunRTT(b *strings.Builder, run *result.Run, loads []result.Load) {
	there := map[string][2]string{"tcp": {"+2.36", "+0.93"}, "udp": {"+2.19", "+0.20"}}
	t := table{head: []string{"test", "system", "there", "here: d p50", "[95 %]", "d p99", "[95 %]"}}
	for _, load := range loads {
		if load.Mode != result.RR {
			continue
		}
		for i, sys := range etunSystems[1:] {
			row := []string{strings.ToUpper(load.Transport) + "_RR", sys.name, there[load.Transport][i]}
			c := sys.of(run, load)
			if c == nil || c.Against == nil || c.Against.P50.Sessions == 0 {
				t.add(append(row, "-", "", "-", "")...)
				continue
			}
			row = append(row, delta(c.Against.P50.Difference)+" "+mark(c.Against.P50), interval(c.Against.P50))
			if e := c.Against.P99; e.Sessions > 0 {
				row = append(row, delta(e.Difference)+" "+mark(e), interval(e))
			} else {
				row = append(row, "-", "")
			}
			t.add(row...)
		}
	}
	fmt.Fprintf(b, "\nround trips, us more than physical; here: than %s\n", run.Baseline)
	t.write(b)
}

func changed(now, before float64) string {
	if before == 0 {
		return "-"
	}
	return fmt.Sprintf("%+.1f %%", 100*(now/before-1))
}

// A table has texts on the left until the first number's column, which its head decides.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) {
	if len(cells) != len(t.head) {
		panic(fmt.Sprintf("report: a row of %d cells in a table of %d", len(cells), len(t.head)))
	}
	t.rows = append(t.rows, cells)
}

func (t *table) write(b *strings.Builder) {
	var columns []column
	for i, name := range t.head {
		c := column{name: name, left: slices.Contains([]string{"system", "path", "[95 %]", "there", "circuit", "test"}, name)}
		for _, r := range t.rows {
			c.cells = append(c.cells, r[i])
		}
		columns = append(columns, c)
	}
	fit(b, columns, 0)
}
