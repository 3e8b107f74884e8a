package report

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
)

var show = flag.String("report.show", "", "a directory for the pages and pictures of the scenes, to be looked at")

func TestShow(t *testing.T) {
	if *show == "" {
		t.Skip("-report.show names no directory")
	}
	for _, name := range []string{"quiet", "noisy", "lossy", "few", "streams", "tiny", "ports", "starts", "loaded"} {
		page, err := HTML(scene(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if picture, err := PNG(scene(t, name), udp); err == nil {
			if err := os.WriteFile(filepath.Join(*show, name+"-plot.png"), picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(*show, name+".html"), []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The page of a small run, but for its style. Look at it after each change: go test -run Show -report.show DIR.
func TestHTML(t *testing.T) {
	golden.Run(t, "testdata/page.txt", func(input string) string {
		page, err := HTML(scene(t, input))
		if err != nil {
			return err.Error()
		}
		before, rest, _ := strings.Cut(page, "<style>")
		_, after, _ := strings.Cut(rest, "</style>")
		return before + after
	})
}

// Every colour of the themes can be read on its surface: contrast of 3 for graphics and 4.5 for text (WCAG 2.1, 1.4.3 and 1.4.11).
func TestContrast(t *testing.T) {
	luminance := func(s string) float64 {
		c := rgb(s)
		var sum float64
		for i, v := range []uint8{c.R, c.G, c.B} {
			x := float64(v) / 255
			if x <= 0.03928 {
				x /= 12.92
			} else {
				x = math.Pow((x+0.055)/1.055, 2.4)
			}
			sum += x * []float64{0.2126, 0.7152, 0.0722}[i]
		}
		return sum
	}
	for name, th := range map[string]theme{"light": light, "dark": dark} {
		check := func(s string, least float64) {
			a, b := luminance(s), luminance(th.surface)
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < least {
				t.Errorf("%s: %s has a contrast of %.2f, want %v", name, s, ratio, least)
			}
		}
		check(th.text, 4.5)
		check(th.faint, 4.5)
		check(th.warn, 4.5)
		check(th.series[0], 4.5) // text of differences, and links
		check(th.series[1], 4.5)
		for _, s := range th.series {
			check(s, 3)
		}
	}
}

// A page loads nothing and runs nothing, and what names say is text.
func TestSelfContained(t *testing.T) {
	run := scene(t, "few")
	const bad = `<script>alert("x")</script>`
	run.Paths[3].About, run.Missing[0].Why, run.Machine.Facts[bad], run.ID = bad, bad, bad, bad
	run.Paths[4].Name, run.Cases[4].Path = bad, bad
	page, err := HTML(run)
	if err != nil {
		t.Fatal(err)
	}
	for _, forbidden := range []string{"<script", "http://", "https://", "url(", "@import", "<img", "<link", "onload", "onclick"} {
		if i := strings.Index(page, forbidden); i >= 0 {
			t.Errorf("the page has %q: %.80s", forbidden, page[max(0, i-40):])
		}
	}
	if n := strings.Count(page, "&lt;script&gt;"); n < 6 {
		t.Errorf("names are shown %d times", n)
	}
}
