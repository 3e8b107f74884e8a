package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/scene"
)

// What was seen stands beside what the policy wants, and each difference is marked and counted.
func TestShowMatrices(t *testing.T) {
	s := scene.New([]lab.NodeConfig{{Name: "n1", Agent: lab.None}})
	seen := map[scene.Probe]bool{}
	for _, kind := range scene.Kinds() {
		for _, v6 := range []bool{false, true} {
			for _, p := range []scene.Probe{{Kind: kind, From: "web1", To: "db1", V6: v6}, {Kind: kind, From: "db1", To: "web1", V6: v6}} {
				seen[p] = s.Allowed(p)
			}
		}
	}
	ping, tcp := scene.Kinds()[0], scene.Kinds()[2]
	seen[scene.Probe{Kind: ping, From: "web1", To: "db1", V6: true}] = false
	seen[scene.Probe{Kind: tcp, From: "db1", To: "web1", V6: false}] = true

	var out strings.Builder
	if wrong := showMatrices(newPage(&out), s, seen); wrong != 2 {
		t.Errorf("showMatrices = %d, want 2", wrong)
	}
	want := `
Who reaches whom: rows are sources; 4 and 6 stand for IPv4 and IPv6, a dot for no answer
  ping     web1 db1  want:web1 db1
  web1          4.!    |       46
  db1      ..          |  ..

  tcp 22   web1 db1  want:web1 db1
  web1          ..     |       ..
  db1      ..          |  ..

  tcp 5432 web1 db1  want:web1 db1
  web1          46     |       46
  db1      4.!         |  ..

`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("showMatrices (-want +got):\n%s", diff)
	}
}

func TestRunRefusesArguments(t *testing.T) {
	for _, args := range [][]string{{"-agents", "nosuch"}, {"-agents", strings.Repeat("none,", 9) + "none"}, {"-nosuch"}} {
		if err := run(t.Context(), args, new(strings.Builder)); err == nil {
			t.Errorf("run(%q) = nil, want an error", args)
		}
	}
}
