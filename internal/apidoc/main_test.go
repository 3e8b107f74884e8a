package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every comment of the .proto files is in the reference, so it is not older than they are.
func TestUpToDate(t *testing.T) {
	words := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	reference := words(strings.ReplaceAll(string(text), `\|`, "|"))
	files, err := filepath.Glob("../../proto/*/*/*.proto")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var comment []string
		n := 0
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if c, ok := strings.CutPrefix(line, "//"); ok {
				comment = append(comment, c)
				continue
			}
			if c := words(strings.Join(comment, " ")); c != "" {
				n++
				if !strings.Contains(reference, c) {
					t.Errorf("docs/api.md lacks %q of %s: run make generate", c, file)
				}
			}
			comment = nil
		}
		if n < 20 {
			t.Errorf("%s has %d comments", file, n)
		}
	}
}
