package report

import (
	"fmt"
	"html"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// HTML is a run, or several one after the other, as a page in one file: no scripts, no fonts, no network. It follows the reader's preference for
// light or dark, and prints light.
func HTML(runs ...*result.Run) (string, error) {
	p := &page{}
	titles := make([]string, len(runs))
	for i, run := range runs {
		titles[i] = run.ID
	}
	p.open("probe " + strings.Join(titles, ", "))
	if len(runs) > 1 {
		p.add("<p class=sub>%d runs, one after the other. Numbers of different runs are not to be compared, least of all those of different kernels; differences to the baseline of each are.</p>\n", len(runs))
	}
	for _, run := range runs {
		if err := p.run(run); err != nil {
			return "", err
		}
	}
	p.add("</main></body></html>\n")
	return p.b.String(), nil
}

func (p *page) run(run *result.Run) error {
	p.add("<h1>Probe %s</h1>\n<p class=sub>%s, %s, %s, Linux %s</p>\n", e(run.ID), e(when(run.Started)), e(run.Program), e(run.Machine.Hostname), e(run.Machine.Kernel))
	if run.Starts != nil {
		p.add("<p>%s.</p>\n", e(startsManner(run)))
		p.starts(run)
		p.facts(run)
		return nil
	}
	p.add("<p>Differentials, not absolutes: the same path takes a fifth more or less some minutes later, what it takes more than <b>%s</b> in the same minute stays.</p>\n", e(run.Baseline))
	p.add("<p>%s.</p>\n", e(manner(run)))
	for _, n := range run.Noise {
		p.add("<p class=warn>No verdicts: %s.</p>\n", e(n))
	}
	all, before := sections(run), p.loads
	if len(all) > 1 {
		p.add("<nav>")
		for i, s := range all {
			p.add(`<a href="#load-%d">%s</a> `, before+i+1, e(s.load.String()))
		}
		p.add("</nav>\n")
	}
	for i := range all {
		p.loads++
		if err := p.section(run, &all[i], p.loads); err != nil {
			return err
		}
	}
	if run.Ports != nil {
		p.ports(run.Ports)
	}
	p.facts(run)
	return nil
}

type page struct {
	b     strings.Builder
	loads int // so far
}

// add formats; what is not from here goes through e.
func (p *page) add(format string, args ...any) { fmt.Fprintf(&p.b, format, args...) }

var e = html.EscapeString

func (p *page) open(title string) {
	p.add("<!doctype html>\n<html lang=en><head><meta charset=utf-8>\n<meta name=viewport content=\"width=device-width,initial-scale=1\">\n")
	p.add("<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\n")
	p.add("<title>%s</title>\n<style>\n%s</style></head><body><main>\n", e(title), style())
}

func (p *page) section(run *result.Run, s *section, n int) error {
	p.add("<section id=load-%d>\n<h2>%s</h2>\n", n, e(s.load.String()))
	if s.streams() {
		p.add("<h3>Throughput</h3>\n")
		p.figure("throughput of each path", barHeight(s.throughput()), func(c canvas) { barPlot(c, s.throughput(), []string{"received"}, "Mb/s") })
		p.cost(s, "kB")
		p.table(s.streamColumns(), nil)
		p.add("</section>\n")
		return nil
	}
	p.add("<p>Floor %s.</p>\n", e(s.floorText()))
	if len(s.compared()) > 0 {
		p.add("<h3>Differences to %s</h3>\n", e(run.Baseline))
		p.figure("differences to the baseline", differenceHeight(s), func(c canvas) { differencePlot(c, s) })
		p.list(s.explanations())
	}
	curves, err := s.curves()
	if err != nil {
		return err
	}
	if len(curves) > 0 {
		p.add("<h3>Round trips by percentile</h3>\n")
		p.figure("round trips by percentile", percentileHeight(curves), func(c canvas) { percentilePlot(c, curves, "us") })
		p.add("<p class=sub>A curve ends where fewer than ten samples are beyond it. Twins are dotted.</p>\n")
	}
	p.add("<h3>Numbers, us</h3>\n")
	p.table(s.columns(), s.rows)
	p.list(s.notes())
	p.add("<p class=sub>= equivalent, + slower, &minus; faster, ? undecided, ~ no verdict. Intervals are of 95 %%, over sessions. - is a percentile for which there are too few samples.</p>\n")
	if s.fromSend() {
		p.add("<h3>From when requests were sent, us</h3>\n<p class=sub>Above is from when they should have been sent. Where the sender is held up the two differ, and this one hides it.</p>\n")
		p.table(s.fromSendColumns(), nil)
	}
	p.cost(s, "transaction")
	if bars := s.segments(); len(bars) > 0 {
		p.add("<h3>One way, by the kernel's timestamps</h3>\n")
		p.figure("segments of the way", barHeight(bars), func(c canvas) {
			barPlot(c, bars, []string{"application to device", "device to device", "device to application"}, "us, medians")
		})
	}
	if bars := s.oneWay(); len(bars) > 0 {
		p.add("<h3>There and back, by one clock</h3>\n")
		p.figure("the two ways of round trips", barHeight(bars), func(c canvas) {
			barPlot(c, bars, []string{"client to server", "server to client"}, "us, medians")
		})
	}
	p.add("</section>\n")
	return nil
}

func (p *page) list(notes []string) {
	if len(notes) == 0 {
		return
	}
	p.add("<ul class=notes>")
	for _, note := range notes {
		p.add("<li>%s</li>", e(note))
	}
	p.add("</ul>\n")
}

func (p *page) cost(s *section, unit string) {
	var bars []bar
	for _, r := range s.rows {
		a, b := perUnit(r.CPU[0]), perUnit(r.CPU[1])
		if a+b > 0 {
			bars = append(bars, bar{r.Path, []float64{a, b}, cost(a) + " + " + cost(b)})
		}
	}
	if len(bars) == 0 {
		return
	}
	p.add("<h3>CPU for a %s</h3>\n", unit)
	p.figure("CPU time of both sides", barHeight(bars), func(c canvas) { barPlot(c, bars, []string{"client", "server"}, "us for a "+unit) })
}

func (s *section) throughput() []bar {
	var bars []bar
	for _, r := range s.rows {
		mbs := r.Rate * 8 / 1e6
		bars = append(bars, bar{r.Path, []float64{mbs}, fmt.Sprintf("%.0f", mbs)})
	}
	return bars
}

func (s *section) segments() []bar {
	var bars []bar
	for _, r := range s.rows {
		if g := r.Segments; g != nil {
			parts := []float64{float64(g.Send) / 1000, float64(g.Path) / 1000, float64(g.Receive) / 1000}
			bars = append(bars, bar{r.Path, parts, us(float64(g.Send)) + " + " + us(float64(g.Path)) + " + " + us(float64(g.Receive))})
		}
	}
	return bars
}

func (s *section) oneWay() []bar {
	var bars []bar
	for _, r := range s.rows {
		if w := r.OneWay; w != nil {
			parts := []float64{float64(w.There) / 1000, float64(w.Back) / 1000}
			bars = append(bars, bar{r.Path, parts, us(float64(w.There)) + " + " + us(float64(w.Back))})
		}
	}
	return bars
}

func (p *page) figure(title string, height float64, draw func(canvas)) {
	c := newSVG(width, height, title)
	draw(c)
	p.add("<figure>%s</figure>\n", c)
}

// table has the columns of the terminal. If rows are given, a name says when pointed at what a packet passes.
func (p *page) table(columns []column, rows []row) {
	p.add("<div class=scroll><table><thead><tr>")
	for _, c := range columns {
		p.add("<th%s>%s</th>", leftClass(c), e(c.name))
	}
	p.add("</tr></thead><tbody>\n")
	for i := range columns[0].cells {
		p.add("<tr>")
		for k, c := range columns {
			title := ""
			if k == 0 && rows != nil && rows[i].path.About != "" {
				title = ` title="` + e(rows[i].path.About) + `"`
			}
			p.add("<td%s%s%s>%s</td>", leftClass(c), verdictClass(c, i), title, e(c.cells[i]))
		}
		p.add("</tr>\n")
	}
	p.add("</tbody></table></div>\n")
}

func leftClass(c column) string {
	if c.left {
		return " class=left"
	}
	return ""
}

// verdictClass tells cells that were found different, by their mark.
func verdictClass(c column, i int) string {
	if !strings.HasPrefix(c.name, "d p") {
		return ""
	}
	switch cell := c.cells[i]; {
	case strings.HasSuffix(cell, " +"):
		return " class=slower"
	case strings.HasSuffix(cell, " -"):
		return " class=faster"
	case strings.HasSuffix(cell, " ?"), strings.HasSuffix(cell, "~"):
		return " class=open"
	}
	return ""
}

func (p *page) facts(run *result.Run) {
	p.add("<section>\n<h2>Paths</h2>\n<div class=scroll><table><thead><tr><th class=left>path</th><th class=left>a packet passes</th><th class=left>stands for</th></tr></thead><tbody>\n")
	for _, path := range run.Paths {
		about := path.About
		if path.Twin != "" {
			about = "identical with " + path.Twin
		}
		p.add("<tr><td class=left>%s</td><td class=\"left wrap\">%s</td><td class=\"left wrap\">%s</td></tr>\n", e(path.Name), e(about), e(strings.Join(path.Stands, ", ")))
	}
	p.add("</tbody></table></div>\n")
	if len(run.Missing) > 0 {
		p.add("<h3>Missing</h3>\n<dl>")
		for _, m := range run.Missing {
			p.add("<dt>%s</dt><dd>%s</dd>\n", e(m.Kind), e(m.Why))
		}
		p.add("</dl>\n")
	}
	p.add("</section>\n<section>\n<h2>Conditions</h2>\n<div class=two><div><h3>Machine</h3>\n<dl>")
	m := run.Machine
	p.definition("host", m.Hostname)
	p.definition("kernel", m.Kernel)
	p.definition("CPU", fmt.Sprintf("%s, %d CPUs", m.CPU, m.CPUs))
	for _, k := range slices.Sorted(maps.Keys(m.Facts)) {
		p.definition(k, m.Facts[k])
	}
	p.add("</dl></div><div><h3>Parameters</h3>\n<dl>")
	for _, d := range parameters(run) {
		p.definition(d[0], d[1])
	}
	p.add("</dl></div></div></section>\n")
}

func (p *page) definition(term, text string) {
	if text != "" {
		p.add("<dt>%s</dt><dd>%s</dd>\n", e(term), e(text))
	}
}

// parameters are all of them, with names.
func parameters(run *result.Run) [][2]string {
	p := run.Parameters
	if s := run.Starts; s != nil {
		return [][2]string{
			{"run", run.ID},
			{"took", run.Ended.Sub(run.Started).Round(time.Second).String()},
			{"target", s.Target.Name},
			{"ports", strings.Join(s.Ports, ", ")},
			{"wait", s.Wait.String()},
			{"interval", s.Interval.String()},
			{"seed", fmt.Sprint(p.Seed)},
		}
	}
	var loads []string
	for _, l := range p.Loads {
		text := l.String()
		if l.Duration > 0 {
			text += fmt.Sprintf(" for %v", l.Duration)
		}
		loads = append(loads, text)
	}
	limits := fmt.Sprintf("stolen %s %%, used by others %s %%, switches %s/s, floor %s %% of the baseline",
		short(100*p.Limits.Steal), short(100*p.Limits.Others), short(p.Limits.Switches), short(100*p.Limits.Floor))
	return [][2]string{
		{"run", run.ID},
		{"took", run.Ended.Sub(run.Started).Round(time.Second).String()},
		{"loads", strings.Join(loads, ", ")},
		{"baseline", run.Baseline},
		{"sessions", fmt.Sprint(p.Sessions)},
		{"rounds", fmt.Sprint(p.Rounds)},
		{"burst", fmt.Sprint(p.Burst)},
		{"warm-up", p.Warmup.String()},
		{"timeout", p.Timeout.String()},
		{"busy", fmt.Sprint(p.Busy)},
		{"priority", fmt.Sprint(p.Priority)},
		{"CPUs", fmt.Sprint(p.CPUs[0], " ", p.CPUs[1])},
		{"timestamps", fmt.Sprint(p.Timestamps)},
		{"wire", p.Wire.String()},
		{"margin", p.Margin.String()},
		{"limits", limits},
		{"seed", fmt.Sprint(p.Seed)},
		{"study", p.Study},
	}
}
