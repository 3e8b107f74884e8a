package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// goal is what the daemon may add to the kernel's own time, at the median.
const goal = 15 * time.Millisecond

// report prints the percentiles of each row: what cnitool takes, the kernel alone, the daemon, and its steps.
func report(times map[string][]time.Duration, steps []string, rates map[string]float64, parallel int, load string) string {
	var b strings.Builder
	rows := slices.Sorted(maps.Keys(times))
	rows = slices.DeleteFunc(rows, func(r string) bool { return r == daemonRow || slices.Contains(steps, r) })
	fmt.Fprintf(&b, "%-32s%10s%10s%10s\n", "ms", "p50", "p90", "p99")
	line := func(name, row string) {
		fmt.Fprintf(&b, "%-32s%10s%10s%10s\n", name, ms(percentile(times[row], 50)), ms(percentile(times[row], 90)), ms(percentile(times[row], 99)))
	}
	for _, r := range append(rows, daemonRow) {
		line(r, r)
	}
	for _, s := range steps {
		line("  "+s, s)
	}
	for _, plugin := range slices.Sorted(maps.Keys(rates)) {
		fmt.Fprintf(&b, "%-32s%10.1f pods/s, attached and detached, %d at a time\n", plugin, rates[plugin], parallel)
	}
	added := percentile(times[daemonRow], 50) - percentile(times[placeRow], 50)
	moved := percentile(times[daemonRow], 50) - percentile(times[moveRow], 50)
	fmt.Fprintf(&b, "The daemon adds %s ms to the kernel's own time at the median, %s ms to that with a move; the aim is %s ms. Load average %s.\n",
		ms(added), ms(moved), ms(goal), load)
	return b.String()
}

// percentile returns the smallest value that at least p percent are not above; 0 of none.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[(len(sorted)*p+99)/100-1]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }
