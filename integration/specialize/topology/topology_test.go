package topology

import (
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/openflow"
)

// The same content makes the same program each time.
func TestSameProgram(t *testing.T) {
	for _, name := range []string{"spec-cluster", "spec-nat"} {
		first, err := Fixed(name)
		if err != nil {
			t.Fatal(err)
		}
		made.Lock()
		delete(made.by, name)
		made.Unlock()
		second, err := Fixed(name)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(first.Owned, second.Owned) {
			t.Errorf("%s: two programs (-first +second):\n%s", name, cmp.Diff(text(first), text(second)))
		}
		if !reflect.DeepEqual(first.Local, second.Local) {
			t.Errorf("%s: two chassis:\n%+v\n%+v", name, first.Local, second.Local)
		}
		if n := len(first.Rules()); n < 500 || len(first.Ports) != 3 || len(first.Tunnels) != 2 {
			t.Errorf("%s: %d rules, ports %v, tunnels %v", name, n, first.Ports, first.Tunnels)
		}
		t.Logf("%s: %d rules, ports %v, tunnels %v, patches %v, %d skipped", name, len(first.Rules()), first.Ports, first.Tunnels, first.Patches, len(first.Skipped))
	}
}

// text is the rules, one per line.
func text(t *Topology) []string {
	var lines []string
	for _, r := range t.Rules() {
		lines = append(lines, openflow.FormatFlow(&r))
	}
	slices.Sort(lines)
	return lines
}
