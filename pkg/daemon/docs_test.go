package daemon

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const manual = "../../docs/operating.md"

// section returns the part of the manual under a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", manual, heading)
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	return body
}

// firstColumn returns what is in code type in the first column of a section's table.
func firstColumn(body string) []string {
	var out []string
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			out = append(out, m[1])
		}
	}
	return out
}

// Every message that the manual explains is in the sources.
func TestManualExplainsRealMessages(t *testing.T) {
	var sources strings.Builder
	err := filepath.WalkDir("../../pkg", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		sources.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	messages := firstColumn(section(t, "What the log says, and what to do"))
	if len(messages) < 10 {
		t.Fatalf("the manual explains %q only", messages)
	}
	for _, m := range messages {
		if !strings.Contains(sources.String(), `"`+m+`"`) {
			t.Errorf("nothing logs %q", m)
		}
	}
}

// The manual lists the commands of the control socket, all of them.
func TestManualListsAllCommands(t *testing.T) {
	got := firstColumn(section(t, "The control socket"))
	slices.Sort(got)
	control, err := NewControl("unix:"+filepath.Join(t.TempDir(), "c"), nil, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = control.listener.Close() }()
	control.ServePorts(nil)
	want := sortedKeys(control.commands)
	if !slices.Equal(got, want) {
		t.Errorf("the manual has %q, the socket %q", got, want)
	}
}
