package report

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// Text is a run for a terminal of the given columns; 0 is as wide as it gets. On narrow ones columns are left out, those that the differences
// can do without first.
func Text(run *result.Run, columns int) string {
	var b strings.Builder
	say := func(format string, args ...any) { wrap(&b, fmt.Sprintf(format, args...), columns) }
	say("probe %s, %s, %s", run.ID, when(run.Started), run.Program)
	if run.Starts == nil {
		say("%s", manner(run))
	} else {
		say("%s", startsManner(run))
	}
	say("%s, %s, Linux %s, %d CPUs", run.Machine.Hostname, run.Machine.CPU, run.Machine.Kernel, run.Machine.CPUs)
	if run.Starts != nil {
		startsText(&b, run, columns)
		return b.String()
	}
	if len(run.Noise) == 0 {
		say("noise: within limits")
	}
	for _, n := range run.Noise {
		say("NO VERDICTS: %s", n)
	}
	for _, s := range sections(run) {
		b.WriteString("\n")
		if s.streams() {
			say("%s", s.load)
			fit(&b, s.streamColumns(), columns)
			continue
		}
		say("%s, us; differences to %s; floor %s", s.load, run.Baseline, s.floorText())
		fit(&b, s.columns(), columns)
		for _, e := range slices.Concat(s.explanations(), s.notes()) {
			say("%s", e)
		}
		if s.fromSend() {
			b.WriteString("\n")
			say("%s, us, from when requests were sent, not from when they should have been", s.load)
			fit(&b, s.fromSendColumns(), columns)
		}
	}
	if run.Ports != nil {
		portsText(&b, run.Ports, columns)
	}
	if len(run.Missing) > 0 {
		b.WriteString("\n")
		for _, m := range run.Missing {
			say("missing %s: %s", m.Kind, m.Why)
		}
	}
	b.WriteString("\n")
	say("= equivalent  + slower  - faster  ? undecided  ~ no verdict; intervals are of 95 %%, over sessions; cpu is us per transaction, client/server")
	return b.String()
}

// A column has a cell for each row. The columns of least weight go first; weight 0 stays.
type column struct {
	name   string
	weight int
	left   bool // alignment
	cells  []string
}

func (s *section) column(name string, weight int, cell func(row) string) column {
	c := column{name: name, weight: weight}
	for _, r := range s.rows {
		c.cells = append(c.cells, cell(r))
	}
	return c
}

func (s *section) names() column {
	c := s.column("path", 0, func(r row) string { return r.Path })
	c.left = true
	return c
}

// against has two columns: the difference with its mark, and its interval.
func (s *section) against(name string, weight int, pick func(*result.Against) result.Effect) []column {
	d := s.column("d "+name, 0, func(r row) string {
		if r.Against == nil {
			return ""
		}
		if e := pick(r.Against); e.Sessions > 0 {
			return delta(e.Difference) + " " + mark(e)
		}
		return "~"
	})
	i := s.column("[95 %]", weight, func(r row) string {
		if r.Against == nil || pick(r.Against).Sessions == 0 {
			return ""
		}
		return interval(pick(r.Against))
	})
	i.left = true
	return []column{d, i}
}

func (s *section) columns() []column {
	at := func(p float64) func(row) string { return func(r row) string { return percentile(r.Latency, p) } }
	all := []column{
		s.names(),
		s.column("n", 2, func(r row) string {
			if r.Latency == nil {
				return "-"
			}
			return fmt.Sprint(r.Latency.Count)
		}),
		s.column("lost", 0, func(r row) string { return fmt.Sprint(r.Loss.Lost) }),
		s.column("p50", 0, at(50)), s.column("p90", 4, at(90)), s.column("p99", 0, at(99)),
		s.column("p99.9", 9, at(99.9)), s.column("p99.99", 5, at(99.99)),
		s.column("max", 3, func(r row) string { return maximum(r.Latency) }),
	}
	if s.load.Transport == "tcp" {
		all = append(all, s.retransmits())
	}
	if s.load.Under > 0 {
		all = append(all, s.background()...)
	}
	all = append(all, s.against("p50", 10, func(a *result.Against) result.Effect { return a.P50 })...)
	all = append(all, s.against("p99", 8, func(a *result.Against) result.Effect { return a.P99 })...)
	if s.load.Under > 0 {
		return all // there are neither CPU nor segments
	}
	all = append(all, s.column("cpu", 7, func(r row) string {
		return cost(r.CPU[0].PerTransaction) + "/" + cost(r.CPU[1].PerTransaction)
	}), s.column("path ns", 6, func(r row) string {
		if r.Segments == nil {
			return "-"
		}
		if r.Segments.NIC > 0 {
			return fmt.Sprintf("%d (NIC %d)", r.Segments.Path, r.Segments.NIC)
		}
		return fmt.Sprint(r.Segments.Path)
	}))
	if s.oneWay() == nil {
		return all
	}
	return append(all, s.column("there/back", 1, func(r row) string {
		if r.OneWay == nil {
			return "-"
		}
		return us(float64(r.OneWay.There)) + "/" + us(float64(r.OneWay.Back))
	}))
}

// retransmits are beside the tail, which they may be.
func (s *section) retransmits() column {
	return s.column("retransmits", 9, func(r row) string {
		if r.TCP == nil {
			return "-"
		}
		return fmt.Sprint(r.TCP.Retransmits)
	})
}

// background is what the stream beside the round trips was.
func (s *section) background() []column {
	of := func(say func(*result.Background) string) func(row) string {
		return func(r row) string {
			if r.Background == nil {
				return "-"
			}
			return say(r.Background)
		}
	}
	return []column{
		s.column("stream", 0, of(func(b *result.Background) string {
			part := fmt.Sprintf("%.1f %%", 100*b.Part())
			if b.Part() < result.Reached*s.load.Under {
				part += "!"
			}
			return part
		})),
		s.column("of Mb/s", 6, of(func(b *result.Background) string { return fmt.Sprintf("%.0f", float64(b.Maximum)*8/1e6) })),
		s.column("its retransmits", 7, of(func(b *result.Background) string { return fmt.Sprint(b.TCP.Retransmits) })),
	}
}

func (s *section) fromSend() bool {
	return slices.ContainsFunc(s.rows, func(r row) bool { return r.FromSend != nil })
}

func (s *section) fromSendColumns() []column {
	all := []column{s.names()}
	for i, p := range []float64{99.99, 90, 99.9, 50, 99} {
		all = append(all, s.column(fmt.Sprint("p", p), i+1, func(r row) string { return percentile(r.FromSend, p) }))
	}
	all = []column{all[0], all[4], all[2], all[5], all[3], all[1]}
	return append(all, s.column("max", 0, func(r row) string { return maximum(r.FromSend) }))
}

func (s *section) streamColumns() []column {
	return []column{
		s.names(),
		s.column("Mb/s received", 0, func(r row) string { return fmt.Sprintf("%.0f", r.Rate*8/1e6) }),
		s.column("lost", 0, func(r row) string {
			if r.Loss.Sent == 0 {
				return fmt.Sprint(r.Loss.Lost)
			}
			return fmt.Sprintf("%s %%", short(100*float64(r.Loss.Lost)/float64(r.Loss.Sent)))
		}),
		s.retransmits(),
		s.column("us/kB client", 3, func(r row) string { return cost(r.CPU[0].PerKB) }),
		s.column("server", 3, func(r row) string { return cost(r.CPU[1].PerKB) }),
		s.column("CPU client", 2, func(r row) string { return fmt.Sprintf("%.0f %%", 100*r.CPU[0].Utilisation) }),
		s.column("server", 2, func(r row) string { return fmt.Sprintf("%.0f %%", 100*r.CPU[1].Utilisation) }),
	}
}

// fit writes columns, as many as fit, two blanks apart.
func fit(b *strings.Builder, all []column, columns int) {
	for columns > 0 {
		total, least := -2, -1
		for i, c := range all {
			if total += c.width() + 2; c.weight > 0 && (least < 0 || c.weight < all[least].weight) {
				least = i
			}
		}
		if total <= columns || least < 0 {
			break
		}
		all = slices.Delete(slices.Clone(all), least, least+1)
	}
	for i := -1; i < len(all[0].cells); i++ {
		var line strings.Builder
		for k, c := range all {
			cell := c.name
			if i >= 0 {
				cell = c.cells[i]
			}
			pad := strings.Repeat(" ", c.width()-utf8.RuneCountInString(cell))
			if k > 0 {
				line.WriteString("  ")
			}
			if c.left {
				line.WriteString(cell + pad)
			} else {
				line.WriteString(pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

func (c column) width() int {
	w := utf8.RuneCountInString(c.name)
	for _, cell := range c.cells {
		w = max(w, utf8.RuneCountInString(cell))
	}
	return w
}

// wrap writes a line, and what does not fit indented below it.
func wrap(b *strings.Builder, text string, columns int) {
	line, indent := "", ""
	for word := range strings.SplitSeq(text, " ") {
		switch {
		case line == indent:
			line += word
		case columns > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns:
			b.WriteString(line + "\n")
			indent = "  "
			line = indent + word
		default:
			line += " " + word
		}
	}
	b.WriteString(line + "\n")
}
