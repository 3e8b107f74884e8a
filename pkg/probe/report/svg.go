package report

import (
	"fmt"
	"html"
	"strings"
)

// An ink is a colour by its role. Pages have two sets of them, for light and dark; pictures that are printed have the light one.
type ink int

const (
	text ink = iota
	faint
	grid
	band   // what is within the floor
	series // and following: of series, modulo hues
)

// hues are how many colours series have.
const hues = 8

func seriesInk(i int) ink { return series + ink(i%hues) }

type align int

const (
	left align = iota
	middle
	right
)

// A canvas is what plots are drawn on: SVG, or pixels. Coordinates are of its upper left corner, in the pixels of SVG.
type canvas interface {
	line(points []point, i ink, width float64, dash string)
	rect(x, y, w, h float64, i ink)
	circle(x, y, r float64, i ink, filled bool)
	text(x, y float64, a align, i ink, s string)
}

type point struct{ x, y float64 }

// svg writes elements with the classes of style.
type svg struct{ b strings.Builder }

func newSVG(w, h float64, title string) *svg {
	s := &svg{}
	fmt.Fprintf(&s.b, `<svg viewBox="0 0 %s %s" role="img" aria-label="%s">`+"\n", f(w), f(h), html.EscapeString(title))
	return s
}

func (s *svg) String() string { return s.b.String() + "</svg>\n" }

// f has one decimal, if any.
func f(v float64) string {
	if t := fmt.Sprintf("%.1f", v); !strings.HasSuffix(t, ".0") {
		return t
	}
	return fmt.Sprintf("%.0f", v)
}

func class(i ink) string {
	if i >= series {
		return fmt.Sprintf("s%d", int(i-series))
	}
	return [...]string{text: "t", faint: "f", grid: "g", band: "b"}[i]
}

func (s *svg) line(points []point, i ink, width float64, dash string) {
	var d strings.Builder
	for k, p := range points {
		if k > 0 {
			d.WriteByte(' ')
		}
		d.WriteString(f(p.x) + "," + f(p.y))
	}
	extra := ""
	if dash != "" {
		extra = ` stroke-dasharray="` + dash + `"`
	}
	fmt.Fprintf(&s.b, `<polyline class="%s l" stroke-width="%s"%s points="%s"/>`+"\n", class(i), f(width), extra, d.String())
}

func (s *svg) rect(x, y, w, h float64, i ink) {
	fmt.Fprintf(&s.b, `<rect class="%s" x="%s" y="%s" width="%s" height="%s"/>`+"\n", class(i), f(x), f(y), f(w), f(h))
}

func (s *svg) circle(x, y, r float64, i ink, filled bool) {
	hollow := ""
	if !filled {
		hollow = " o"
	}
	fmt.Fprintf(&s.b, `<circle class="%s%s" cx="%s" cy="%s" r="%s"/>`+"\n", class(i), hollow, f(x), f(y), f(r))
}

func (s *svg) text(x, y float64, a align, i ink, content string) {
	anchor := [...]string{"", ` text-anchor="middle"`, ` text-anchor="end"`}[a]
	fmt.Fprintf(&s.b, `<text class="%s" x="%s" y="%s"%s>%s</text>`+"\n", class(i), f(x), f(y), anchor, html.EscapeString(content))
}
