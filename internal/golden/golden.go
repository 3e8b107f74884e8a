// Package golden keeps inputs and their expected outputs in files that a reader from the field can review.
//
// The notation is that of OVN's own test suite: unindented lines are an input, the lines indented by four spaces
// that follow are the output expected for it, lines that start with # are comments, and empty lines separate.
//
//	# Prerequisites are added.
//	tcp.dst == 80
//	    ip && tcp && tcp.dst == 80
//
// go test -update rewrites the expectations with what the code says now; commit such a file only if you can
// explain each changed line.
package golden

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the expectations of golden files")

// Run calls f with each input of the file and compares what it returns with the expectation. Inputs and
// outputs have no final newline; several input lines are joined by newlines. Trailing blanks of output lines do
// not count.
func Run(t *testing.T, file string, f func(input string) string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cases := parse(string(text))
	if len(cases) == 0 {
		t.Fatalf("%s: no inputs", file)
	}
	for i := range cases {
		c := &cases[i]
		got := trimLines(f(c.input))
		if *update {
			c.output = got
			continue
		}
		if diff := cmp.Diff(strings.Split(c.output, "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("%s:%d: %s (-want +got):\n%s", file, c.line, c.input, diff)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(format(cases)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const indent = "    "

// A section is a case with the comments and empty lines before it. The last one of a file may have no input.
type section struct {
	line          int // of the input, from 1
	before        []string
	input, output string
}

// parse splits a file; format is its inverse.
func parse(text string) []section {
	var (
		cases []section
		cur   section
		gap   []string // empty lines and comments since the last input or output line
		in    []string
		out   []string
	)
	flush := func() {
		if in != nil {
			cur.input, cur.output = strings.Join(in, "\n"), strings.Join(out, "\n")
			cases = append(cases, cur)
		}
		cur, in, out = section{}, nil, nil
	}
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		content, indented := strings.CutPrefix(line, indent)
		switch {
		case strings.TrimSpace(line) == "":
			gap = append(gap, "")
		case indented && in != nil && !hasComment(gap):
			out = append(append(out, gap...), content) // an empty line inside an output belongs to it
			gap = nil
		case strings.HasPrefix(line, "#"):
			gap = append(gap, line)
		default:
			if in == nil || out != nil || gap != nil {
				flush()
				cur.line, cur.before = i+1, gap
				gap = nil
			}
			in = append(in, line)
		}
	}
	flush()
	if gap != nil {
		cases = append(cases, section{before: gap})
	}
	return cases
}

func hasComment(lines []string) bool {
	for _, l := range lines {
		if l != "" {
			return true
		}
	}
	return false
}

func format(cases []section) string {
	var b strings.Builder
	for _, c := range cases {
		for _, l := range c.before {
			b.WriteString(l + "\n")
		}
		if c.line == 0 {
			continue
		}
		b.WriteString(c.input + "\n")
		if c.output == "" {
			continue
		}
		for l := range strings.SplitSeq(c.output, "\n") {
			b.WriteString(strings.TrimRight(indent+l, " ") + "\n")
		}
	}
	return b.String()
}

func trimLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t")
	}
	return strings.Join(lines, "\n")
}
