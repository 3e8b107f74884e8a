package report

import (
	"fmt"
	"math"
	"strconv"

	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/probe/stats"
)

// width of plots; they are scaled to the page.
const width = 960

// A curve is a path in the percentile plot.
type curve struct {
	name   string
	points []stats.Point
	ink    ink
	dash   string
	thin   bool // twins
	lost   bool // it ends because packets were lost
}

// curves have a colour each, then the same with dashes. Twins have that of their path, thin and dotted.
func (s *section) curves() ([]curve, error) {
	var (
		all  []curve
		inks = map[string]int{}
		n    int
	)
	for _, r := range s.rows {
		if r.path.Twin == "" {
			inks[r.Path] = n
			n++
		}
	}
	for _, r := range s.rows {
		d, err := r.distribution()
		if err != nil {
			return nil, err
		}
		c := curve{name: r.Path, points: d.Curve(), lost: r.Loss.Lost > 0}
		k := inks[r.Path]
		if r.path.Twin != "" {
			k, c.thin, c.dash = inks[r.path.Twin], true, "1 3"
		} else if turn := k / hues; turn > 0 {
			c.dash = []string{"7 3", "2 3", "9 3 2 3"}[(turn-1)%3]
		}
		if c.ink = seriesInk(k); len(c.points) > 0 {
			all = append(all, c)
		}
	}
	return all, nil
}

// scale maps values to pixels, by logarithms.
type scale struct{ from, to, low, high float64 }

func (s scale) at(v float64) float64 {
	return s.from + (s.to-s.from)*(math.Log(v)-math.Log(s.low))/(math.Log(s.high)-math.Log(s.low))
}

// percentilePlot draws latency over percentiles, which are apart by 1/(1-q): each further nine is as long as the last.
func percentilePlot(c canvas, curves []curve, unit string) {
	const top, bottom, start, end = 16, 320, 64, width - 16
	x, y := scale{start, end, 1, 20}, scale{bottom, top, math.Inf(1), 0}
	for _, k := range curves {
		last := k.points[len(k.points)-1]
		x.high = max(x.high, 1/(1-last.Below))
		y.low, y.high = min(y.low, float64(k.points[0].Value)), max(y.high, float64(last.Value))
	}
	y.low, y.high = y.low/1.1, y.high*1.1
	for _, p := range []float64{0, 50, 90, 99, 99.9, 99.99, 99.999} {
		if v := 1 / (1 - p/100); v <= x.high*1.001 {
			c.line([]point{{x.at(v), top}, {x.at(v), bottom}}, grid, 1, "")
			c.text(x.at(v), bottom+16, middle, faint, fmt.Sprint(p))
		}
	}
	for _, v := range ticks(y.low, y.high) {
		c.line([]point{{start, y.at(v)}, {end, y.at(v)}}, grid, 1, "")
		c.text(start-6, y.at(v)+4, right, faint, tick(v/1000))
	}
	c.text(end, bottom+34, right, faint, "percentile")
	c.text(4, top-4, left, faint, unit)
	for _, k := range curves {
		w := 1.8
		if k.thin {
			w = 1.2
		}
		c.line(steps(k.points, x, y), k.ink, w, k.dash)
		if last := k.points[len(k.points)-1]; k.lost {
			c.text(x.at(1/(1-last.Below)), y.at(float64(last.Value))-4, right, k.ink, "lost from here")
		}
	}
	const column = (end - start) / 4.0
	for i, k := range curves {
		lx, ly := start+column*float64(i%4), bottom+54+18*float64(i/4)
		c.line([]point{{lx, ly - 4}, {lx + 26, ly - 4}}, k.ink, 2, k.dash)
		c.text(lx+32, ly, left, text, k.name)
	}
}

func percentileHeight(curves []curve) float64 { return 320 + 54 + 18*math.Ceil(float64(len(curves))/4) }

// steps are points that can be told apart: at most one a pixel and a half.
func steps(points []stats.Point, x, y scale) []point {
	var all []point
	for i, p := range points {
		at := point{x.at(1 / (1 - min(p.Below, 1-1e-9))), y.at(float64(p.Value))}
		if n := len(all); n > 0 && i < len(points)-1 && math.Abs(at.x-all[n-1].x)+math.Abs(at.y-all[n-1].y) < 1.5 {
			continue
		}
		all = append(all, at)
	}
	return all
}

// ticks are 1 to 9, or 1, 2 and 5, or only 1 times powers of ten, by how far it is from low to high.
func ticks(low, high float64) []float64 {
	multiples := []float64{1, 2, 5}
	switch ratio := high / low; {
	case ratio > 1000:
		multiples = []float64{1}
	case ratio < 6:
		multiples = []float64{1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9}
	}
	var all []float64
	for e := math.Floor(math.Log10(low)); e <= math.Log10(high); e++ {
		for _, m := range multiples {
			if v := m * math.Pow(10, e); v >= low && v <= high {
				all = append(all, v)
			}
		}
	}
	return all
}

// tick is a number as short as can be.
func tick(v float64) string { return strconv.FormatFloat(math.Round(v*1e4)/1e4, 'f', -1, 64) }

// differencePlot has for each path the differences to the baseline with their intervals, on a band of what means nothing. Its scale is linear
// around zero and logarithmic beyond, so that a tenth of a microsecond and a hundred are both seen.
func differencePlot(c canvas, s *section) {
	const start, end, top, step = 150.0, width - 90.0, 30.0, 34.0
	rows := s.compared()
	unit := 100.0 // nanoseconds; where the scale turns
	reach := 1000.0
	for _, r := range rows {
		for _, e := range []result.Effect{r.Against.P50, r.Against.P99} {
			for _, v := range []result.Delta{e.Low, e.High, e.Difference, e.Floor} {
				if f := math.Abs(float64(v)); !math.IsInf(f, 0) {
					reach = max(reach, 1.2*f)
				}
			}
		}
	}
	least := -0.3 * unit
	for _, r := range rows {
		for _, e := range []result.Effect{r.Against.P50, r.Against.P99} {
			for _, v := range []result.Delta{e.Low, -e.Floor} {
				if f := float64(v); !math.IsInf(f, 0) {
					least = min(least, 1.2*f)
				}
			}
		}
	}
	from, to := math.Asinh(least/unit), math.Asinh(reach/unit)
	x := func(d float64) float64 {
		return start + (end-start)*min(max((math.Asinh(d/unit)-from)/(to-from), 0), 1)
	}
	bottom := top + step*float64(len(rows))
	for e := 2.0; e <= 9; e++ {
		for _, sign := range []float64{-1, 1} {
			if v := sign * math.Pow(10, e); v >= least && v <= reach {
				c.line([]point{{x(v), top}, {x(v), bottom}}, grid, 1, "")
				c.text(x(v), bottom+16, middle, faint, fmt.Sprintf("%+g", v/1000))
			}
		}
	}
	c.text(x(0), bottom+16, middle, faint, "0")
	c.text(end, bottom+34, right, faint, "us more than the baseline")
	for i, r := range rows {
		y := top + step*float64(i)
		c.text(start-12, y+step/2+4, right, text, r.Path)
		c.line([]point{{start, y}, {end, y}}, grid, 1, "")
		for k, e := range []result.Effect{r.Against.P50, r.Against.P99} {
			at := y + 10 + 14*float64(k)
			if e.Sessions == 0 {
				c.text(end+10, at+4, left, faint, "~")
				continue
			}
			if f := float64(e.Floor); !math.IsInf(f, 0) {
				c.rect(x(-f), at-6, x(f)-x(-f), 12, band)
			}
			i := seriesInk(k)
			c.line([]point{{x(float64(e.Low)), at}, {x(float64(e.High)), at}}, i, 2, "")
			c.circle(x(float64(e.Difference)), at, 4, i, k == 0)
			c.text(end+10, at+4, left, i, delta(e.Difference)+" "+mark(e))
		}
	}
	c.line([]point{{x(0), top}, {x(0), bottom}}, faint, 1, "")
	for k, name := range []string{"p50", "p99"} {
		lx := start + 90*float64(k)
		c.circle(lx, 12, 4, seriesInk(k), k == 0)
		c.text(lx+10, 16, left, text, name)
	}
	c.rect(start+180, 6, 26, 12, band)
	c.text(start+212, 16, left, text, "floor: identical paths differ by as much")
}

// compared are the rows that have differences.
func (s *section) compared() []row {
	var all []row
	for _, r := range s.rows {
		if r.Against != nil {
			all = append(all, r)
		}
	}
	return all
}

func differenceHeight(s *section) float64 { return 30 + 34*float64(len(s.compared())) + 40 }

// A bar is a row of parts.
type bar struct {
	name  string
	parts []float64
	label string
}

// barPlot draws bars of parts, which legend names.
func barPlot(c canvas, bars []bar, legend []string, axis string) {
	const start, end, top, step = 150.0, width - 150.0, 30.0, 22.0
	var most float64
	for _, b := range bars {
		var sum float64
		for _, p := range b.parts {
			sum += p
		}
		most = max(most, sum)
	}
	if most == 0 {
		most = 1
	}
	bottom := top + step*float64(len(bars))
	each := math.Pow(10, math.Floor(math.Log10(most)))
	for _, m := range []float64{0.2, 0.5, 1, 2} {
		if most/(each*m) <= 8 {
			each *= m
			break
		}
	}
	for v := 0.0; v <= most; v += each {
		at := start + (end-start)*v/most
		c.line([]point{{at, top}, {at, bottom}}, grid, 1, "")
		c.text(at, bottom+16, middle, faint, tick(v))
	}
	c.text(end, bottom+34, right, faint, axis)
	for i, b := range bars {
		y, at := top+step*float64(i), start
		c.text(start-12, y+step/2+4, right, text, b.name)
		for k, p := range b.parts {
			w := (end - start) * p / most
			c.rect(at, y+4, w, step-8, seriesInk(k))
			at += w
		}
		c.text(at+8, y+step/2+4, left, faint, b.label)
	}
	for k, name := range legend {
		lx := start + 200*float64(k)
		c.rect(lx, 7, 12, 12, seriesInk(k))
		c.text(lx+18, 17, left, text, name)
	}
}

func barHeight(bars []bar) float64 { return 30 + 22*float64(len(bars)) + 40 }
