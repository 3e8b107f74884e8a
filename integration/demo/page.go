package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A page writes for people: plain text, with colours on a terminal unless NO_COLOR is set.
type page struct {
	w      io.Writer
	colour bool
}

func newPage(w io.Writer) *page {
	p := &page{w: w}
	if f, ok := w.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.colour = err == nil
	}
	return p
}

// The escape sequences of ECMA-48 that the page uses.
const (
	bold  = "1"
	green = "32"
	red   = "1;31"
)

func (p *page) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *page) title(format string, args ...any) {
	fmt.Fprintf(p.w, "%s\n\n", p.paint(bold, fmt.Sprintf(format, args...)))
}

func (p *page) heading(s string) { fmt.Fprintf(p.w, "\n%s\n", p.paint(bold, s)) }

// step reports what is done and how long it took.
func (p *page) step(format string, begin time.Time, args ...any) {
	fmt.Fprintf(p.w, "%5.1f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
}

func (p *page) text(format string, args ...any) {
	fmt.Fprintf(p.w, "%s\n", strings.TrimRight(fmt.Sprintf(format, args...), "\n"))
}

// table prints rows in columns; the first row is their heads.
func (p *page) table(rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&line, "  %-*s", widths[i], cell)
		}
		fmt.Fprintln(p.w, strings.TrimRight(line.String(), " "))
	}
}

// matrix prints two matrices of n columns side by side, what was seen and what was wanted. A row is its
// name, n cells, a gap, n cells, a gap. A cell that ends in ! is wrong.
func (p *page) matrix(rows [][]string, n int) {
	for r, row := range rows {
		var line strings.Builder
		fmt.Fprintf(&line, "  %-9s", row[0])
		for i, cell := range row[1:] {
			text := fmt.Sprintf("%-5s", cell)
			switch {
			case r == 0:
				text = p.paint(bold, text)
			case strings.HasSuffix(cell, "!"):
				text = p.paint(red, text)
			case i < n && strings.ContainsAny(cell, "46"):
				text = p.paint(green, text)
			}
			if i == n {
				text = "  |  "
				if r == 0 {
					text = "want:"
				}
			}
			line.WriteString(text)
		}
		fmt.Fprintln(p.w, strings.TrimRight(line.String(), " "))
	}
	fmt.Fprintln(p.w)
}
