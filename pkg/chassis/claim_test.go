package chassis

import (
	"fmt"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/sb"
)

// claimTable is the life of a claim. The facts are those of claimFacts in order: 1 holds, 0 does not, - may be
// either.
const claimTable = `
  state          here known flows installed up    next
  claimed        0    -     -     -         -     claimed
  claimed        1    0     -     -         -     claimed
  claimed        1    1     -     -         -     install-flows

  install-flows  0    -     -     -         -     claimed
  install-flows  1    -     0     -         -     install-flows
  install-flows  1    -     1     1         -     remove-old
  install-flows  1    -     1     0         -     mark-up

  remove-old     0    -     -     -         -     claimed
  remove-old     1    -     -     1         -     remove-old
  remove-old     1    -     -     0         -     mark-up

  mark-up        0    -     -     -         -     claimed
  mark-up        1    -     -     0         -     mark-up
  mark-up        1    -     -     1         0     mark-up
  mark-up        1    -     -     1         1     settled

  settled        0    -     -     -         -     claimed
  settled        1    -     -     0         -     claimed
  settled        1    -     -     1         0     claimed
  settled        1    -     -     1         1     settled
`

// Every state with every combination of facts is in exactly one line of the table, and does what it says.
func TestClaimTransitions(t *testing.T) {
	var rows [][]string
	for line := range strings.Lines(claimTable) {
		if w := strings.Fields(line); len(w) == 7 && w[0] != "state" {
			rows = append(rows, w)
		}
	}
	bit := func(b bool) string {
		if b {
			return "1"
		}
		return "0"
	}
	for state := claimed; state <= settled; state++ {
		for n := range 32 {
			f := claimFacts{n&1 > 0, n&2 > 0, n&4 > 0, n&8 > 0, n&16 > 0}
			facts := []string{bit(f.here), bit(f.known), bit(f.flows), bit(f.installed), bit(f.up)}
			matched := 0
			for _, row := range rows {
				if row[0] != state.String() {
					continue
				}
				fits := true
				for i, v := range facts {
					fits = fits && (row[i+1] == "-" || row[i+1] == v)
				}
				if !fits {
					continue
				}
				matched++
				if got := state.next(f).String(); got != row[6] {
					t.Errorf("%v.next(%v) = %s, want %s", state, facts, got, row[6])
				}
			}
			if matched != 1 {
				t.Errorf("%v with %v is in %d lines of the table", state, facts, matched)
			}
		}
	}
}

func TestRoleOf(t *testing.T) {
	me := &sb.Chassis{UUID: sb.UUID{1}, Name: "hv1", Hostname: "host1"}
	for _, tt := range []struct {
		requested  string
		column     sb.UUID
		additional []sb.UUID
		want       role
	}{
		{"", sb.UUID{}, nil, main},
		{"hv1", sb.UUID{}, nil, main},
		{"host1", sb.UUID{}, nil, main},
		{"hv2", sb.UUID{}, nil, none},
		{"hv1,hv2", sb.UUID{}, nil, main},
		{"hv2,hv1", sb.UUID{}, nil, additional},
		{"hv2,hv3,host1", sb.UUID{}, nil, additional},
		{",hv1", sb.UUID{}, nil, main},
		{"hv2", sb.UUID{1}, nil, main},
		{"hv2", sb.UUID{2}, []sb.UUID{{1}}, additional},
		{"hv10", sb.UUID{}, nil, none},
	} {
		p := &sb.Port{
			RequestedChassis: tt.column, RequestedAdditionalChassis: tt.additional,
			Options: map[string]string{"requested-chassis": tt.requested},
		}
		if got := roleOf(p, me); got != tt.want {
			t.Errorf("roleOf(requested %q, columns %v %v) = %d, want %d", tt.requested, tt.column, tt.additional, got, tt.want)
		}
	}
}

// nb_cfg goes back to databases in the order it was seen, never before its flows are in.
func TestAcknowledgement(t *testing.T) {
	// Each line is a turn: the value seen, the turn of the conditions, the turn of those reflected, the turn whose
	// flows are in, and the value that is done after it.
	for _, tt := range []struct {
		name  string
		turns [][5]int64
	}{
		{"flows take two turns", [][5]int64{{7, 1, 1, 0, 0}, {7, 1, 1, 0, 0}, {7, 1, 1, 1, 7}}},
		{"rows are owed", [][5]int64{{7, 1, 0, 0, 0}, {7, 1, 0, 1, 0}, {7, 1, 1, 2, 0}, {7, 1, 1, 3, 7}}},
		{"conditions change faster than they are reflected", [][5]int64{
			{7, 1, 0, 0, 0}, {7, 2, 0, 1, 0}, {7, 3, 1, 2, 0}, {7, 4, 2, 3, 7},
		}},
		{"values come faster than flows", [][5]int64{
			{1, 1, 1, 0, 0}, {2, 1, 1, 0, 0}, {3, 1, 1, 0, 0}, {4, 1, 1, 1, 1}, {5, 1, 1, 2, 1}, {5, 1, 1, 4, 4}, {5, 1, 1, 5, 5},
		}},
		{"a smaller value is a value", [][5]int64{{9, 1, 1, 0, 0}, {1, 1, 1, 1, 9}, {1, 1, 1, 2, 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var a acknowledgement
			for i, v := range tt.turns {
				a.see(v[0], uint64(v[1]))
				a.program(uint64(i+1), uint64(v[2]))
				a.installed(uint64(v[3]))
				if a.done != v[4] {
					t.Errorf("turn %d: done %d, want %d", i+1, a.done, v[4])
				}
			}
		})
	}
}

func TestTunnelID(t *testing.T) {
	for _, tt := range []struct {
		id, chassis, ip string
		ok              bool
	}{
		{"hv1@10.0.0.1", "hv1", "10.0.0.1", true},
		{"a@b@fd00::1", "a@b", "fd00::1", true},
		{"hv1", "", "", false},
		{"hv1@", "", "", false},
		{"@10.0.0.1", "", "", false},
		{"", "", "", false},
	} {
		if chassis, ip, ok := tunnelID(tt.id); chassis != tt.chassis || ip != tt.ip || ok != tt.ok {
			t.Errorf("tunnelID(%q) = %q, %q, %v, want %q, %q, %v", tt.id, chassis, ip, ok, tt.chassis, tt.ip, tt.ok)
		}
	}
}

func TestTunnelName(t *testing.T) {
	for _, tt := range []struct {
		index, chassis string
		taken          []string
		want           string
	}{
		{"", "hv2", nil, "ovn-hv2-0"},
		{"", "compute-17", nil, "ovn-comput-0"},
		{"3", "compute-17", nil, "ovn3-compu-0"},
		{"", "büroéé1", nil, "ovn-büro-0"},
		{"", "compute-17", []string{"ovn-comput-0", "ovn-comput-1"}, "ovn-comput-2"},
	} {
		taken := map[string]bool{}
		for _, n := range tt.taken {
			taken[n] = true
		}
		if got := tunnelName(tt.index, tt.chassis, taken); got != tt.want {
			t.Errorf("tunnelName(%q, %q, %v) = %q, want %q", tt.index, tt.chassis, tt.taken, got, tt.want)
		}
	}
	all := map[string]bool{}
	for n := range 1 << 16 {
		all[fmt.Sprintf("ovn-hv2-%x", n)] = true
	}
	if got := tunnelName("", "hv2", all); got != "" {
		t.Errorf("with all names taken: %q", got)
	}
	if name := tunnelName("z", "compute-17", map[string]bool{"ovnz-compu-ffff": true}); len(name) > 15 {
		t.Errorf("%q is too long for a network device", name)
	}
}
