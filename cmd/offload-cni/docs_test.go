package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/reason"
)

var update = flag.Bool("update", false, "write docs/cni.md anew")

// docs/cni.md has the codes of the table of reasons, and every key of the configuration.
func TestDocs(t *testing.T) {
	const path = "../../docs/cni.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), "-update -->\n")
	_, after, ok2 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 {
		t.Fatalf("%s: no place for the codes", path)
	}
	want := before + "-update -->\n" + codes() + "<!-- end -->" + after
	switch {
	case *update:
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	case want != string(text):
		t.Errorf("%s: the codes are not those of the table: run go test ./cmd/offload-cni -update", path)
	}
	elsewhere := []string{"args", "cniVersion", "name", "prevResult", "runtimeConfig", "type"} // of the specification
	for key := range new(config).fields() {
		if !slices.Contains(elsewhere, key) && !strings.Contains(want, "\n| `"+key+"` | ") {
			t.Errorf("%s: nothing about the key %s", path, key)
		}
	}
}

// codes is a table of the reasons, ordered by code.
func codes() string {
	var b strings.Builder
	b.WriteString("| code | reason | meaning | remedy |\n|---|---|---|---|\n")
	entries := slices.SortedStableFunc(slices.Values(reason.Table), func(x, y reason.Entry) int { return cmp.Compare(x.CNI, y.CNI) })
	for _, e := range entries {
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", e.CNI, e.Reason, e.Meaning, e.Remedy)
	}
	return b.String()
}
