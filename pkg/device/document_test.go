package device

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is generated of docs/functions.md")

var stateMeanings = map[State]string{
	Unknown:     "It was there when the daemon started, and who has functions since before has not said so yet.",
	Warming:     "An SF is being made, or has no netdev yet.",
	Free:        "It has been verified, and can be acquired.",
	Used:        "It has an owner.",
	Resetting:   "What was set is restored, and everything is read back. If its netdev is elsewhere it is waited for.",
	Quarantined: "It could not be verified, and nobody gets it. The reason is with it.",
	Removing:    "An SF is being deleted.",
	Gone:        "It has an owner, but no longer exists.",
	Unmanaged:   "It belongs to no pool.",
}

var eventMeanings = map[event]string{
	appears:    "the kernel has a port for it",
	vanishes:   "the kernel has none any more",
	ready:      "an SF has its netdev",
	acquired:   "somebody gets it",
	claimed:    "somebody has it since before the start",
	released:   "its owner gives it back",
	reconciled: "all who have something have said so",
	verified:   "it is as it should be",
	refused:    "it is not, or the driver refused",
	retried:    "it is to be verified again: somebody says so, or what was missing has come back",
	removed:    "an SF is too many, or somebody discards it",
}

// docs/functions.md has all states and all ways between them.
func TestDocument(t *testing.T) {
	const file = "../../docs/functions.md"
	var b strings.Builder
	b.WriteString("| state | means | goes to |\n| --- | --- | --- |\n")
	name := func(s State) string {
		if s == nowhere {
			return "none"
		}
		return "`" + string(s) + "`"
	}
	for _, s := range append([]State{nowhere}, States()...) {
		meaning := stateMeanings[s]
		if s == nowhere {
			meaning = "Nothing is known of it."
		}
		if meaning == "" {
			t.Errorf("%s has no meaning", s)
		}
		var ways []string
		for _, e := range slices.Sorted(maps.Keys(transitions[s])) {
			if eventMeanings[e] == "" {
				t.Errorf("%s has no meaning", e)
			}
			ways = append(ways, fmt.Sprintf("%s: %s", name(transitions[s][e]), e))
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name(s), meaning, strings.Join(ways, "<br>"))
	}
	b.WriteString("\n| event | means |\n| --- | --- |\n")
	for _, e := range slices.Sorted(maps.Keys(eventMeanings)) {
		fmt.Fprintf(&b, "| %s | %s |\n", e, eventMeanings[e])
	}
	b.WriteString("\n```mermaid\nstateDiagram-v2\n")
	diagram := func(s State) string {
		if s == nowhere {
			return "[*]"
		}
		return string(s)
	}
	for _, s := range append([]State{nowhere}, States()...) {
		for _, e := range slices.Sorted(maps.Keys(transitions[s])) {
			fmt.Fprintf(&b, "  %s --> %s: %s\n", diagram(s), diagram(transitions[s][e]), e)
		}
	}
	b.WriteString("```\n")

	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- generated: states -->\n\n", "\n<!-- end -->"
	before, rest, ok1 := strings.Cut(string(got), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the states", file)
	}
	want := before + begin + b.String() + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(got) != want {
		t.Errorf("%s is not what the code says: go generate ./pkg/device", file)
	}
}
