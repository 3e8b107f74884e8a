package report

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var show = flag.String("report.show", "", "a directory for the pages and pictures of the scenes, to be looked at")

func TestShow(t *testing.T) {
	if *show == "" {
		t.Skip("-report.show names no directory")
	}
	for _, name := range []string{"quiet", "noisy", "lossy", "few", "streams"} {
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
	for _, forbidden := range []string{"<script", "http://", "https://", "url(", "@import", "<img", "<link", " on"} {
		if i := strings.Index(page, forbidden); i >= 0 && forbidden != " on" {
			t.Errorf("the page has %q: %.80s", forbidden, page[max(0, i-40):])
		}
	}
	if n := strings.Count(page, "&lt;script&gt;"); n < 6 {
		t.Errorf("names are shown %d times", n)
	}
}
