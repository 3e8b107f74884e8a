package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/integration/lab"
)

func TestParseUsage(t *testing.T) {
	stat := "4711 (a) b) S 1 4711 4711 0 -1 4194304 11 0 0 0 123 45 0 0 20 0 9 0 100 1000 200 18446744073709551615"
	status := "Name:\ta) b\nVmPeak:\t  90000 kB\nVmHWM:\t   65536 kB\nVmRSS:\t 1 kB\n"
	got, err := parseUsage(stat, status)
	want := usage{cpu: 1680 * time.Millisecond, peak: 64 << 20}
	if err != nil || got != want {
		t.Errorf("parseUsage = %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range [][2]string{{"", status}, {"4711 (a) S 1", status}, {stat, "VmRSS:\t1 kB\n"}, {stat, "VmHWM:\tmany kB\n"}, {strings.Replace(stat, "123", "x", 1), status}} {
		if got, err := parseUsage(bad[0], bad[1]); err == nil {
			t.Errorf("parseUsage(%q, %q) = %+v, want an error", bad[0], bad[1], got)
		}
	}
}

func TestTable(t *testing.T) {
	second := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	got := table(map[lab.Agent][]result{
		lab.OVNController: {
			{acknowledged: second(4), complete: second(4), cpu: second(3), peak: 200e6, flows: 1000},
			{acknowledged: second(3), complete: second(5), cpu: second(2), peak: 220e6, flows: 1000},
			{acknowledged: second(9), complete: second(9), cpu: second(9), peak: 210e6, flows: 1000},
		},
		lab.Offloadd: {
			{acknowledged: second(1), complete: second(1.5), cpu: second(1), peak: 100e6, flows: 990},
			{acknowledged: second(2), complete: second(2.5), cpu: second(1.5), peak: 105e6, flows: 990},
			{acknowledged: second(0.5), complete: second(1), cpu: second(0.5), peak: 84e6, flows: 990},
		},
	})
	want := `
min / median            acknowledged s        complete s             CPU s       peak RSS MB             flows
ovn-controller           3.000 / 4.000     4.000 / 5.000       2.00 / 3.00         200 / 210       1000 / 1000
offloadd                 0.500 / 1.000     1.000 / 1.500       0.50 / 1.00          84 / 100         990 / 990
ratio of medians                  0.25              0.30              0.33              0.48              0.99
ratio of minima                   0.17              0.25              0.25              0.42              0.99
aim                    1.00, goal 0.25   1.00, goal 0.25   1.00, goal 0.50   1.00, goal 0.60             equal
`
	if diff := cmp.Diff(want[1:], got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// TestSize counts what the scripts make; a benchmark of another size than it prints would mislead.
func TestSize(t *testing.T) {
	z := size{switches: 5, ports: 8, routers: 2, acls: 30, local: 7, chassis: 3}
	nb, sb := strings.Join(z.northbound(), ""), strings.Join(z.southbound(), "")
	local := 0
	for s := range z.switches {
		for p := range z.ports {
			if z.isLocal(s, p) {
				local++
			}
		}
	}
	for what, counts := range map[string][2]int{
		"switches":    {strings.Count(nb, "ls-add sw"), 5},
		"ports":       {strings.Count(nb, "lsp-set-port-security "), 40},
		"routers":     {strings.Count(nb, "lr-add lr"), 2},
		"ACLs":        {strings.Count(nb, " allow-related\n"), 30},
		"local ports": {local, 7},
		"bound ports": {strings.Count(sb, "lsp-bind "), 33},
		"chassis":     {strings.Count(sb, "chassis-add "), 3},
	} {
		if counts[0] != counts[1] {
			t.Errorf("%s: %d, want %d", what, counts[0], counts[1])
		}
	}
}
