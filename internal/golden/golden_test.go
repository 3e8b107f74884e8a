package golden

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRun(t *testing.T) {
	Run(t, "testdata/upper.txt", func(in string) string {
		if in == "-" {
			return ""
		}
		return strings.ToUpper(strings.ReplaceAll(in, "\n", "\n\n"))
	})
}

func TestParse(t *testing.T) {
	got := parse("# c\na\nb\n    A\n\n    B\n\nc\n# d\ne\n    E\n\n# end\n")
	want := []section{
		{line: 2, before: []string{"# c"}, input: "a\nb", output: "A\n\nB"},
		{line: 8, before: []string{""}, input: "c"},
		{line: 10, before: []string{"# d"}, input: "e", output: "E"},
		{before: []string{"", "# end"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(section{})); diff != "" {
		t.Errorf("parse (-want +got):\n%s", diff)
	}
}

// What -update writes is what was read, when nothing has changed.
func TestFormatIsInverseOfParse(t *testing.T) {
	b, err := os.ReadFile("testdata/upper.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(b), format(parse(string(b)))); diff != "" {
		t.Errorf("format(parse(x)) (-x +got):\n%s", diff)
	}
}
