package main

import (
	"fmt"
	"strings"
	"time"
)

// goal is what the daemon may add to the kernel's own time, at the median.
const goal = 15 * time.Millisecond

// details prints the percentiles of each row of each of a trial's ways.
func details(t *trial, parallel int) string {
	var b strings.Builder
	for _, w := range t.ways {
		serial, several := t.serial[w.name], t.parallel[w.name]
		fmt.Fprintf(&b, "%s: %s\n%-38s%-36s%d at a time\n", t.title, w.name, "", "one at a time", parallel)
		fmt.Fprintf(&b, "%-34s%s%s\n", "ms", heads(), heads())
		for _, r := range steps(serial, several) {
			fmt.Fprintf(&b, "%-34s%s%s\n", label(r), percentiles(serial.rows[r], serial.pods), percentiles(several.rows[r], several.pods))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// summary prints the medians of all trials, with ratios, and what the daemon adds to the kernel's own time.
func summary(trials []*trial, kernel map[string]*histogram, parallel int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Medians in ms, pods attached and detached per second, and each as a multiple of the reference's in the same part.\n\n")
	fmt.Fprintf(&b, "%-38s%-48s%s\n", "", "one at a time", fmt.Sprintf("%d at a time", parallel))
	columns := fmt.Sprintf("%8s%8s%8s%8s%8s%8s", "ADD", "", "DEL", "", "pods/s", "")
	for _, t := range trials {
		fmt.Fprintf(&b, "%-34s%s%s\n", t.title, columns, strings.TrimRight(columns, " "))
		for _, w := range t.ways {
			name := "  " + w.name
			if w.to != "" {
				name += ", to " + w.to
			}
			line := fmt.Sprintf("%-34s%s%s", name, compare(t.serial[w.name], t.serial[w.to]), compare(t.parallel[w.name], t.parallel[w.to]))
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	fmt.Fprintf(&b, "\n%-34s%s\n", "ms", heads())
	for _, name := range []string{placeRow, moveRow} {
		fmt.Fprintf(&b, "%-34s%s\n", name, percentiles(kernel[name], int(kernel[name].TotalCount())))
	}
	daemon := trials[0].serial["veth"].rows[row{"ADD", inDaemon}]
	if daemon == nil {
		return b.String()
	}
	added := func(name string) string { return ms(daemon.quantile(50) - kernel[name].quantile(50)) }
	fmt.Fprintf(&b, "For a veth the daemon adds %s ms to the kernel's own time at the median, %s ms to that with a move; the aim is %s ms.\n",
		added(placeRow), added(moveRow), ms(goal))
	return b.String()
}

func heads() string { return fmt.Sprintf("%9s%9s%9s%9s", "p50", "p90", "p99", "max") }

func label(r row) string {
	if r.step == "" {
		return "cnitool " + r.verb
	}
	return "  " + r.step
}

// percentiles prints those of a row that so many values can tell: of fewer than ten the ninetieth is the greatest, and of fewer than a hundred
// the ninety-ninth. Some pods may not have the row: that they are fewer than all is said by a tilde.
func percentiles(h *histogram, pods int) string {
	if h == nil {
		return strings.Repeat(fmt.Sprintf("%9s", "-"), 4)
	}
	few := ""
	if h.TotalCount() < int64(pods) {
		few = "~"
	}
	high := func(q float64, least int64) string {
		if h.TotalCount() < least {
			return "-"
		}
		return ms(h.quantile(q))
	}
	return fmt.Sprintf("%9s%9s%9s%9s", few+ms(h.quantile(50)), high(90, 10), high(99, 100), ms(h.quantile(100)))
}

// compare prints a measure, and with a reference its multiples of that.
func compare(m, to *measure) string {
	var b strings.Builder
	column := func(value, reference float64, format string) {
		multiple := ""
		if reference != 0 {
			multiple = fmt.Sprintf("%.2fx", value/reference)
		}
		fmt.Fprintf(&b, "%8s%8s", fmt.Sprintf(format, value), multiple)
	}
	for _, verb := range []string{"ADD", "DEL"} {
		median := func(m *measure) float64 {
			if m == nil {
				return 0
			}
			return m.rows[row{verb, ""}].quantile(50).Seconds() * 1000
		}
		column(median(m), median(to), "%.1f")
	}
	reference := 0.0
	if to != nil {
		reference = to.rate()
	}
	column(m.rate(), reference, "%.2f")
	return b.String()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }
