package path

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is generated of docs/probe.md")

// docs/probe.md has all kinds.
func TestDocument(t *testing.T) {
	const file = "../../../docs/probe.md"
	var b strings.Builder
	b.WriteString("| kind | nodes | a packet passes | stands for | needs | options |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, k := range Kinds() {
		nodes, options := "", ""
		if k.Nodes > 0 {
			nodes = fmt.Sprint(k.Nodes)
		}
		if len(k.Options) > 0 {
			options = "`" + strings.Join(k.Options, "` `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", k.Name, nodes, k.Passes, strings.Join(k.Stands, ", "), k.Needs, options)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- generated: kinds -->\n\n", "\n<!-- end -->"
	before, rest, ok1 := strings.Cut(string(got), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the kinds", file)
	}
	want := before + begin + b.String() + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(got) != want {
		t.Errorf("%s is not what the code says: go generate ./pkg/probe/path", file)
	}
}
