package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// apiVersion is the version of what programs are given to read.
const apiVersion = "offload.v1"

// A column is one of a table of Ts.
type column[T any] struct {
	name  string
	value func(T) string
	wide  bool // only with -o wide
	// style returns how a value is to be coloured; nil: not at all.
	style func(T) style
}

// A style is the parameter of the escape sequence SGR, ECMA-48.
type style string

// The styles.
const (
	plain  style = ""
	green  style = "32"
	yellow style = "33"
	red    style = "31"
)

// A list prints items as they come, as the user wants it.
type list[T proto.Message] struct {
	c       *cli
	kind    string
	columns []column[T]
	table   table
	n       int
}

// newList returns a list whose kind, for programs, ends in List.
func newList[T proto.Message](c *cli, kind string, columns []column[T]) *list[T] {
	l := &list[T]{c: c, kind: kind}
	var heading []cell
	for _, col := range columns {
		if !col.wide || c.format == "wide" {
			l.columns = append(l.columns, col)
			heading = append(heading, cell{text: col.name})
		}
	}
	l.table = table{c: c}
	if !c.noHeaders {
		l.table.heading = heading
	}
	return l
}

// add prints an item, or keeps it for a while so that columns can be aligned.
func (l *list[T]) add(item T) error {
	l.n++
	if l.c.structured() {
		return l.addMessage(item)
	}
	row := make([]cell, len(l.columns))
	for i, col := range l.columns {
		row[i].text = col.value(item)
		if col.style != nil {
			row[i].style = col.style(item)
		}
	}
	l.table.add(row)
	return nil
}

func (l *list[T]) addMessage(item T) error {
	text, err := marshal(item)
	if err != nil {
		return err
	}
	if l.c.format == "yaml" {
		if l.n == 1 {
			fmt.Fprintf(l.c.stdout, "apiVersion: %s\nitems:\n", apiVersion)
		}
		y, err := yaml.JSONToYAML(text)
		if err != nil {
			return fmt.Errorf("yaml: %w", err)
		}
		lines := strings.Split(strings.TrimSuffix(string(y), "\n"), "\n")
		fmt.Fprintf(l.c.stdout, "- %s\n", strings.Join(lines, "\n  "))
		return nil
	}
	before := ","
	if l.n == 1 {
		before = fmt.Sprintf("{\n  \"apiVersion\": %q,\n  \"kind\": %q,\n  \"items\": [", apiVersion, l.kind)
	}
	fmt.Fprintf(l.c.stdout, "%s\n    %s", before, indented(text, "    "))
	return nil
}

// end prints what is left.
func (l *list[T]) end() {
	switch {
	case l.c.format == "yaml" && l.n == 0:
		fmt.Fprintf(l.c.stdout, "apiVersion: %s\nitems: []\nkind: %s\n", apiVersion, l.kind)
	case l.c.format == "yaml":
		fmt.Fprintf(l.c.stdout, "kind: %s\n", l.kind)
	case l.c.format == "json" && l.n == 0:
		fmt.Fprintf(l.c.stdout, "{\n  \"apiVersion\": %q,\n  \"kind\": %q,\n  \"items\": []\n}\n", apiVersion, l.kind)
	case l.c.format == "json":
		fmt.Fprint(l.c.stdout, "\n  ]\n}\n")
	case l.n == 0:
		fmt.Fprintln(l.c.stderr, "nothing found")
	default:
		l.table.flush()
	}
}

// print prints one message for programs.
func (c *cli) print(kind string, m proto.Message) error {
	text, err := marshal(m)
	if err != nil {
		return err
	}
	head := fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q`, apiVersion, kind)
	if len(text) > 2 {
		head = append(head, ',')
	}
	text = append(head, text[1:]...)
	if c.format == "yaml" {
		y, err := yaml.JSONToYAML(text)
		if err != nil {
			return fmt.Errorf("yaml: %w", err)
		}
		fmt.Fprint(c.stdout, string(y))
		return nil
	}
	fmt.Fprintln(c.stdout, indented(text, ""))
	return nil
}

// printEvent prints one message of many: a line of JSON, or a document of YAML.
func (c *cli) printEvent(m proto.Message) error {
	text, err := marshal(m)
	if err != nil {
		return err
	}
	if c.format == "yaml" {
		y, err := yaml.JSONToYAML(text)
		if err != nil {
			return fmt.Errorf("yaml: %w", err)
		}
		fmt.Fprintf(c.stdout, "---\n%s", y)
		return nil
	}
	fmt.Fprintf(c.stdout, "%s\n", text)
	return nil
}

// marshal returns m as JSON without white space. protojson puts some in at random.
func marshal(m proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("json: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return nil, fmt.Errorf("json: %w", err)
	}
	return b.Bytes(), nil
}

func indented(text []byte, prefix string) string {
	var b bytes.Buffer
	_ = json.Indent(&b, text, prefix, "  ") // it is JSON: we have made it
	return b.String()
}

// A cell is a text in a table.
type cell struct {
	text  string
	style style
}

// A table aligns columns. It holds back tableChunk rows at most: what comes later stands below them, unless it is wider.
type table struct {
	c       *cli
	heading []cell
	rows    [][]cell
	widths  []int
}

const (
	tableChunk = 256
	tableGap   = 3 // between columns, as kubectl(1) has it
)

func (t *table) add(row []cell) {
	t.rows = append(t.rows, row)
	if len(t.rows) == tableChunk {
		t.flush()
	}
}

// flush prints what is held back. Without a row there is no heading.
func (t *table) flush() {
	if len(t.rows) == 0 {
		return
	}
	if t.heading != nil {
		t.rows = slices.Insert(t.rows, 0, t.heading)
		t.heading = nil
	}
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range t.rows {
		fmt.Fprintln(t.c.stdout, t.line(row))
	}
	t.rows = t.rows[:0]
}

// line returns a row, cut where the terminal ends unless the user wants all of it.
func (t *table) line(row []cell) string {
	for len(row) > 0 && row[len(row)-1].text == "" {
		row = row[:len(row)-1]
	}
	starts, length := make([]int, len(row)), 0
	for i, c := range row {
		starts[i] = length
		length += max(t.widths[i], utf8.RuneCountInString(c.text)) + tableGap
		if i == len(row)-1 {
			length = starts[i] + utf8.RuneCountInString(c.text)
		}
	}
	room, cut := length, ""
	if t.c.width > 0 && t.c.format != "wide" && length > t.c.width {
		room, cut = t.c.width-1, "…"
	}
	var b strings.Builder
	used := 0
	for i, c := range row {
		gap := min(starts[i], room) - used
		text := []rune(c.text)
		text = text[:min(len(text), room-used-gap)]
		b.WriteString(strings.Repeat(" ", gap))
		b.WriteString(t.c.paint(c.style, string(text)))
		used += gap + len(text)
	}
	return b.String() + strings.Repeat(" ", room-used) + cut
}

// paint colours a text if the user wants colours.
func (c *cli) paint(s style, text string) string {
	if s == plain || text == "" || !c.coloured() {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// coloured follows https://no-color.org where the user says nothing.
func (c *cli) coloured() bool {
	switch c.color {
	case "always":
		return true
	case "never":
		return false
	default:
		return c.width > 0 && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb"
	}
}

// A sheet prints names and values below each other.
type sheet struct {
	c    *cli
	rows [][2]string
}

func (s *sheet) add(name, value string) {
	if value != "" {
		s.rows = append(s.rows, [2]string{name + ":", value})
	}
}

func (s *sheet) print() {
	width := 0
	for _, r := range s.rows {
		width = max(width, len(r[0]))
	}
	for _, r := range s.rows {
		fmt.Fprintf(s.c.stdout, "%-*s  %s\n", width, r[0], r[1])
	}
}

// age returns a duration as kubectl(1) does: its largest one or two units.
func age(d time.Duration) string {
	d = max(d, 0)
	s := int64(d / time.Second)
	switch {
	case s < 120:
		return fmt.Sprintf("%ds", s)
	case s < 10*60:
		return twoUnits(s/60, "m", s%60, "s")
	case s < 3*3600:
		return fmt.Sprintf("%dm", s/60)
	case s < 8*3600:
		return twoUnits(s/3600, "h", s%3600/60, "m")
	case s < 48*3600:
		return fmt.Sprintf("%dh", s/3600)
	default:
		return fmt.Sprintf("%dd", s/86400)
	}
}

func twoUnits(a int64, unitA string, b int64, unitB string) string {
	if b == 0 {
		return fmt.Sprintf("%d%s", a, unitA)
	}
	return fmt.Sprintf("%d%s%d%s", a, unitA, b, unitB)
}

// millis returns a duration in milliseconds, as precise as it matters.
func millis(d time.Duration) string {
	return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
