package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// ways are the accounts of a run between ports, a row for each direction of each path.
func ways(p *result.Ports) []column {
	type line struct {
		way  *result.Way
		side int
	}
	var lines []line
	for i := range p.Ways {
		lines = append(lines, line{&p.Ways[i], 0}, line{&p.Ways[i], 1})
	}
	col := func(name string, weight int, cell func(line, *result.Account) string) column {
		c := column{name: name, weight: weight}
		for _, l := range lines {
			c.cells = append(c.cells, cell(l, &l.way.Accounts[l.side]))
		}
		return c
	}
	number := func(name string, weight int, n func(*result.Account) int64) column {
		return col(name, weight, func(_ line, a *result.Account) string { return fmt.Sprint(n(a)) })
	}
	path := col("path", 0, func(l line, _ *result.Account) string { return l.way.Path })
	what := col("packets", 0, func(l line, _ *result.Account) string { return directions[l.side] })
	claim := col("claim", 2, func(l line, _ *result.Account) string { return l.way.Claim })
	path.left, what.left, claim.left = true, true, true
	return []column{
		path, what, claim,
		number("sent", 0, func(a *result.Account) int64 { return a.Sent }),
		number("hardware", 0, func(a *result.Account) int64 { return a.Hardware }),
		number("tc", 0, func(a *result.Account) int64 { return a.Software }),
		number("ovs", 0, func(a *result.Account) int64 { return a.OVS }),
		number("datapath", 5, func(a *result.Account) int64 { return a.Datapath }),
		number("upcalls", 4, func(a *result.Account) int64 { return a.Upcalls }),
		number("dropped", 3, func(a *result.Account) int64 { return a.Dropped }),
		number("unexplained", 0, func(a *result.Account) int64 { return a.Unexplained + a.Lost }),
		col("filters", 1, func(_ line, a *result.Account) string { return fmt.Sprintf("%d (%d)", a.Filters, a.InHW) }),
	}
}

var directions = [2]string{"requests", "answers"}

// connections says what the connection tracker has of a path.
func connections(w *result.Way) string {
	if len(w.Connections) == 0 {
		return "none"
	}
	var all []string
	for _, c := range w.Connections {
		state := []string{fmt.Sprintf("zone %d:", c.Zone)}
		for _, s := range []struct {
			is   bool
			word string
		}{{c.Assured, "ASSURED"}, {c.Offload, "OFFLOAD"}, {c.Hardware, "HW_OFFLOAD"}} {
			if s.is {
				state = append(state, s.word)
			}
		}
		if len(state) == 1 {
			state = append(state, "neither assured nor offloaded")
		}
		all = append(all, strings.Join(state, " "))
	}
	return strings.Join(all, ", ")
}

// lifeIndexes are the packets of a connection that tables show, from 1.
var lifeIndexes = []int{1, 2, 3, 4, 6, 8, 16, 32}

// lives are the first packets of connections, in microseconds.
func lives(p *result.Ports) []column {
	name := column{name: "connections", left: true}
	number := column{name: "n", weight: 2}
	var packets []column
	for i, n := range lifeIndexes {
		packets = append(packets, column{name: fmt.Sprintf("#%d", n), weight: []int{0, 0, 0, 6, 3, 5, 4, 7}[i]})
	}
	sw := column{name: "filters from", left: true}
	hw := column{name: "hardware from", weight: 8, left: true}
	for i := range p.Lives {
		l := &p.Lives[i]
		name.cells = append(name.cells, l.Before+", "+l.Path)
		number.cells = append(number.cells, fmt.Sprint(len(l.Trials)))
		for k, n := range lifeIndexes {
			cell := "-"
			if n <= len(l.Took) {
				if cell = "lost"; l.Took[n-1] != result.Lost {
					cell = us(float64(l.Took[n-1]))
				}
			}
			packets[k].cells = append(packets[k].cells, cell)
		}
		sw.cells = append(sw.cells, switches(l, func(s result.Switch) (int, time.Duration) { return s.Packet, s.After }))
		hw.cells = append(hw.cells, switches(l, func(s result.Switch) (int, time.Duration) { return s.Hardware, s.HardwareAfter }))
	}
	return append(append([]column{name, number}, packets...), sw, hw)
}

// switches are the medians over trials of when the path of requests and of answers changed.
func switches(l *result.Life, of func(result.Switch) (int, time.Duration)) string {
	var sides []string
	for side := range 2 {
		var packets []int
		var after []time.Duration
		for i := range l.Trials {
			if n, d := of(l.Trials[i].Switches[side]); n > 0 {
				packets, after = append(packets, n), append(after, d)
			}
		}
		if 2*len(packets) <= len(l.Trials) {
			sides = append(sides, "-")
			continue
		}
		slices.Sort(packets)
		slices.Sort(after)
		sides = append(sides, fmt.Sprintf("#%d, %v", packets[len(packets)/2], after[len(after)/2].Round(100*time.Microsecond)))
	}
	if sides[0] == "-" && sides[1] == "-" {
		return "-"
	}
	return sides[0] + " / " + sides[1]
}

// portsText writes what a run between ports says besides.
func portsText(b *strings.Builder, p *result.Ports, columns int) {
	say := func(format string, args ...any) { wrap(b, fmt.Sprintf(format, args...), columns) }
	b.WriteString("\n")
	say("packets, by who has counted them; of those of ovs, what its datapath and upcalls account for; filters (in hardware)")
	fit(b, ways(p), columns)
	for i := range p.Ways {
		say("connection tracker, %s: %s", p.Ways[i].Path, connections(&p.Ways[i]))
	}
	if len(p.Lives) == 0 {
		return
	}
	b.WriteString("\n")
	say("first packets of connections, us, median; cold: nothing was sent before, new: others were; from which packet on, and when, filters forwarded requests / answers")
	fit(b, lives(p), columns)
	if len(p.BreakEvens) == 0 {
		return
	}
	b.WriteString("\n")
	say("%s", breakEvenHead)
	fit(b, breakEvens(p), columns)
	for _, text := range breakEvenWhys(p) {
		say("%s", text)
	}
}

// lifePlot has the round trips of the first packets, a line for each life, both scales logarithmic.
func lifePlot(c canvas, p *result.Ports) {
	const top, bottom, start, end = 16, 320, 64, width - 16
	x, y := scale{start, end, 1, 2}, scale{bottom, top, 0, 0}
	for i := range p.Lives {
		for n, took := range p.Lives[i].Took {
			if took == result.Lost || took <= 0 {
				continue
			}
			v := float64(took)
			x.high = max(x.high, float64(n+1))
			if y.low == 0 {
				y.low = v
			}
			y.low, y.high = min(y.low, v), max(y.high, v)
		}
	}
	if y.low == 0 {
		return
	}
	y.low, y.high = y.low/1.1, y.high*1.1
	for _, n := range lifeIndexes {
		if v := float64(n); v <= x.high {
			c.line([]point{{x.at(v), top}, {x.at(v), bottom}}, grid, 1, "")
			c.text(x.at(v), bottom+16, middle, faint, fmt.Sprint(n))
		}
	}
	for _, v := range ticks(y.low/1000, y.high/1000) {
		at := y.at(v * 1000)
		c.line([]point{{start, at}, {end, at}}, grid, 1, "")
		c.text(start-8, at+4, right, faint, tick(v))
	}
	c.text(end, bottom+34, right, faint, "packet of the connection; us")
	for i := range p.Lives {
		l := &p.Lives[i]
		var line []point
		for n, took := range l.Took {
			if took != result.Lost && took > 0 {
				at := point{x.at(float64(n + 1)), y.at(float64(took))}
				line = append(line, at)
				c.circle(at.x, at.y, 2.5, seriesInk(i), true)
			}
		}
		if len(line) > 1 {
			c.line(line, seriesInk(i), 1.5, "")
		}
		lx, ly := start+220*float64(i%4), bottom+54+18*float64(i/4)
		c.rect(lx, ly-10, 12, 12, seriesInk(i))
		c.text(lx+18, ly, left, text, l.Before+", "+l.Path)
	}
}

func lifeHeight(p *result.Ports) float64 { return 320 + 54 + 18*float64((len(p.Lives)+3)/4) }

// ports is the part of a page that portsText is of a terminal.
func (p *page) ports(r *result.Ports) {
	p.add("<section>\n<h2>Where the packets went</h2>\n<p>From %s (%s, %s) to %s (%s, %s), and back.</p>\n", e(r.Client.Name), e(r.Client.Kind), e(r.Client.Device),
		e(r.Server.Name), e(r.Server.Kind), e(r.Server.Device))
	p.table(ways(r), nil)
	p.add("<p class=sub>Packets, by who has counted them; of those of ovs, what its datapath and upcalls account for; filters, and in brackets how many of them are in hardware.</p>\n<dl>")
	for i := range r.Ways {
		p.definition("connection tracker, "+r.Ways[i].Path, connections(&r.Ways[i]))
	}
	p.add("</dl>\n")
	if len(r.Lives) > 0 {
		p.add("<h3>First packets of connections, us</h3>\n")
		p.figure("round trips by packet", lifeHeight(r), func(c canvas) { lifePlot(c, r) })
		p.table(lives(r), nil)
		p.add("<p class=sub>Medians. Cold: nothing was sent before; new: other connections were. From which packet on, and when, filters forwarded requests / answers.</p>\n")
	}
	if len(r.BreakEvens) > 0 {
		p.add("<h3>From which packet on a connection is cheaper</h3>\n")
		p.table(breakEvens(r), nil)
		p.add("<p class=sub>%s.</p>\n", e(breakEvenHead))
		for _, text := range breakEvenWhys(r) {
			p.add("<p class=sub>%s.</p>\n", e(text))
		}
	}
	p.add("</section>\n")
}
