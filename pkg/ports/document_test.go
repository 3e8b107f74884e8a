package ports

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/ports.md anew")

// docs/ports.md shows the steps that there are, and says something about each state.
func TestDocument(t *testing.T) {
	const document = "../../docs/ports.md"
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for _, part := range []struct{ name, text string }{{"diagram", diagram()}, {"steps", stepTable()}} {
		mark := "<!-- generated: " + part.name + " -->\n"
		begin, rest, ok := strings.Cut(want, mark)
		_, after, ends := strings.Cut(rest, "<!-- end -->")
		if !ok || !ends {
			t.Fatalf("%s has no part %s", document, part.name)
		}
		want = begin + mark + "\n" + part.text + "\n<!-- end -->" + after
	}
	switch {
	case *update:
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	case want != string(text):
		t.Errorf("%s is not what the steps are: go generate ./pkg/ports", document)
	}
	for _, s := range States() {
		if !strings.Contains(want, fmt.Sprintf("\n| `%s` | ", s)) {
			t.Errorf("%s says nothing of the state %s", document, s)
		}
	}
}

// diagram shows the way of a port through the steps, down on the left and up on the right.
func diagram() string {
	var b strings.Builder
	line := func(left, fails, right string) {
		fmt.Fprintf(&b, "%s\n", strings.TrimRight(fmt.Sprintf("%-16s%-16s%s", left, fails, right), " "))
	}
	b.WriteString("```\n")
	line("CREATING", "", "DELETING")
	line("   |", "", "   ^")
	for i, s := range steps() {
		name, fails := s.name, "-- fails -->"
		if s.function {
			name += " *"
		}
		if i == 0 {
			fails = "" // without a record nothing was done
		}
		line(name, fails, "   |  "+s.undoName)
	}
	line("   |", "", "   |")
	line("   v", "", "   |")
	line("PLUGGED, READY,", "", "   |")
	line("FAILED", "-- "+condemn+" -->", "   '")
	b.WriteString("```\n")
	return b.String()
}

func stepTable() string {
	var b strings.Builder
	b.WriteString("| step | does | undone by |\n| --- | --- | --- |\n")
	for _, s := range steps() {
		name, undo := "`"+s.name+"`", ""
		if s.function {
			name += " \\*"
		}
		if s.undo != nil {
			undo = "`" + s.undoName + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, s.about, undo)
	}
	return b.String()
}
