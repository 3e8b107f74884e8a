package sb

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
)

func id(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", n*7919, n) }

func TestUUID(t *testing.T) {
	const text = "01234567-89ab-cdef-fedc-ba9876543210"
	u, err := ParseUUID(text)
	if err != nil || u.String() != text {
		t.Fatalf("ParseUUID(%q) = %v, %v", text, u, err)
	}
	if got, want := u.Cookie(), uint64(0x01234567); got != want {
		t.Errorf("Cookie() = %#x, want %#x", got, want)
	}
	if u, err := ParseUUID(""); err != nil || !u.IsZero() {
		t.Errorf(`ParseUUID("") = %v, %v, want no row`, u, err)
	}
	for _, bad := range []string{
		"0", text[1:], text + "0", strings.Replace(text, "-", "0", 1), strings.Replace(text, "0", "g", 1),
		strings.Replace(text, "1", "-", 1), "0123456-789ab-cdef-fedc-ba9876543210",
	} {
		if u, err := ParseUUID(bad); err == nil {
			t.Errorf("ParseUUID(%q) = %v, want an error", bad, u)
		}
	}
}

// Rows no chassis can use are refused with table, row and reason, are absent, and are forgiven once they are mended.
func TestRefusedRows(t *testing.T) {
	ok := &sbdb.LogicalFlow{UUID: id(1), Pipeline: "ingress"}
	for _, c := range []struct {
		table string
		row   any
		want  string
	}{
		{"Datapath_Binding", &sbdb.DatapathBinding{UUID: id(1)}, "tunnel_key 0: not within 1..16777215"},
		{"Datapath_Binding", &sbdb.DatapathBinding{UUID: id(1), TunnelKey: 1 << 24}, "tunnel_key 16777216: not within"},
		{"Port_Binding", &sbdb.PortBinding{UUID: id(1), LogicalPort: "p", Datapath: id(2), TunnelKey: 1 << 15}, "tunnel_key 32768: not within 1..32767"},
		{"Port_Binding", &sbdb.PortBinding{UUID: id(1), Datapath: id(2), TunnelKey: 1}, "logical_port is empty"},
		{"Port_Binding", &sbdb.PortBinding{UUID: id(1), LogicalPort: "p", Datapath: "x", TunnelKey: 1}, `uuid "x"`},
		{"Port_Binding", &sbdb.PortBinding{UUID: id(1), LogicalPort: "p", Datapath: id(2), TunnelKey: 1, Tag: new(4096)}, "tag 4096: not within 0..4095"},
		{"Logical_Flow", &sbdb.LogicalFlow{UUID: id(1), Pipeline: "sideways"}, `pipeline "sideways": neither ingress nor egress`},
		{"Logical_Flow", &sbdb.LogicalFlow{UUID: id(1), Pipeline: "ingress", TableID: 29}, "table_id 29: not within 0..28"},
		{"Logical_Flow", &sbdb.LogicalFlow{UUID: id(1), Pipeline: "egress", TableID: 22}, "table_id 22: not within 0..21"},
		{"Logical_Flow", &sbdb.LogicalFlow{UUID: id(1), Pipeline: "ingress", Priority: -1}, "priority -1: not within 0..65535"},
		{"Multicast_Group", &sbdb.MulticastGroup{UUID: id(1), Datapath: id(2), TunnelKey: 5}, "tunnel_key 5: not within 32768..65535"},
		{"FDB", &sbdb.FDB{UUID: id(1), DpKey: 1}, "port_key 0: not within"},
		{"Chassis", &sbdb.Chassis{UUID: id(1)}, "name is empty"},
	} {
		s := NewStore()
		d := s.Apply([]Update{{c.table, id(1), c.row}, {"Logical_Flow", id(9), &sbdb.LogicalFlow{UUID: id(9), Pipeline: "egress"}}})
		if len(d.Refused) != 1 || !strings.Contains(d.Refused[0].Err.Error(), c.want) ||
			!strings.Contains(d.Refused[0].Err.Error(), c.table+" "+id(1)) {
			t.Errorf("%s %+v: refused %v, want one with %q", c.table, c.row, d.Refused, c.want)
			continue
		}
		if len(d.Changes) != 1 || len(s.LogicalFlows) != 1 || s.Refused() != 1 {
			t.Errorf("%s: %d changes, %d flows, %d refused: the row beside it is not unharmed", c.want, len(d.Changes), len(s.LogicalFlows), s.Refused())
		}
		if d = s.Apply([]Update{{c.table, id(1), c.row}}); len(d.Refused) != 0 {
			t.Errorf("%s: told again: %v", c.want, d.Refused)
		}
		if d = s.Apply([]Update{{"Logical_Flow", id(1), ok}}); len(d.Accepted) != 1 || s.Refused() != 0 || len(s.LogicalFlows) != 2 {
			t.Errorf("%s: mended: accepted %v, %d refused, %d flows", c.want, d.Accepted, s.Refused(), len(s.LogicalFlows))
		}
	}
}

// A row that becomes unusable goes, as if it were deleted.
func TestRowTurnsBad(t *testing.T) {
	s := NewStore()
	good := &sbdb.DatapathBinding{UUID: id(1), TunnelKey: 3}
	s.Apply([]Update{{"Datapath_Binding", id(1), good}})
	d := s.Apply([]Update{{"Datapath_Binding", id(1), &sbdb.DatapathBinding{UUID: id(1), TunnelKey: -1}}})
	if len(d.Changes) != 1 || d.Changes[0].New != nil || s.DatapathByKey(3) != nil || len(s.Datapaths) != 0 {
		t.Errorf("changes %v, datapaths %v", d.Changes, s.Datapaths)
	}
	if d = s.Apply([]Update{{"Datapath_Binding", id(1), nil}}); len(d.Changes) != 0 || len(d.Accepted) != 1 {
		t.Errorf("deletion of a refused row: %+v", d)
	}
}

func TestNothingNewIsNoChange(t *testing.T) {
	s := NewStore()
	row := func(external string) *sbdb.PortBinding {
		return &sbdb.PortBinding{
			UUID: id(1), LogicalPort: "p", Datapath: id(2), TunnelKey: 1, Options: map[string]string{"a": "b"},
			ExternalIDs: map[string]string{"x": external},
		}
	}
	s.Apply([]Update{{"Port_Binding", id(1), row("1")}})
	if d := s.Apply([]Update{{"Port_Binding", id(1), row("2")}}); len(d.Changes) != 0 {
		t.Errorf("a change of external_ids is a change: %+v", d.Changes)
	}
}

// random returns a row of a random table, nil to delete it.
func random(rnd *rand.Rand, n int) (string, any) {
	ref := func() string { return id(rnd.IntN(12)) }
	var refs []string
	for i := range 12 {
		if rnd.IntN(4) == 0 {
			refs = append(refs, id(i))
		}
	}
	u := id(n)
	del := rnd.IntN(5) == 0
	row := func(table string, r any) (string, any) {
		if del {
			return table, nil
		}
		return table, r
	}
	switch n % 8 {
	case 0:
		return row("Datapath_Binding", &sbdb.DatapathBinding{UUID: u, TunnelKey: 1 + rnd.IntN(6)})
	case 1:
		return row("Port_Binding", &sbdb.PortBinding{
			UUID: u, LogicalPort: fmt.Sprint("p", rnd.IntN(6)), Datapath: ref(), TunnelKey: 1, ParentPort: new(fmt.Sprint("p", rnd.IntN(2))),
		})
	case 2:
		f := &sbdb.LogicalFlow{UUID: u, Pipeline: "ingress", Priority: rnd.IntN(3)}
		if rnd.IntN(2) == 0 {
			f.LogicalDatapath = new(ref())
		} else {
			f.LogicalDpGroup = new(ref())
		}
		return row("Logical_Flow", f)
	case 3:
		return row("Logical_DP_Group", &sbdb.LogicalDPGroup{UUID: u, Datapaths: refs})
	case 4:
		return row("Multicast_Group", &sbdb.MulticastGroup{UUID: u, Name: "m", Datapath: ref(), TunnelKey: 32768, Ports: refs})
	case 5:
		return row("FDB", &sbdb.FDB{UUID: u, DpKey: 1 + rnd.IntN(3), PortKey: 1})
	case 6:
		return row("MAC_Binding", &sbdb.MACBinding{UUID: u, Datapath: ref(), LogicalPort: "p"})
	default:
		return row("Address_Set", &sbdb.AddressSet{UUID: u, Name: fmt.Sprint("a", n)})
	}
}

// The indexes say the same after any history as after loading the rows at once.
func TestIndexesFollowHistory(t *testing.T) {
	first := rand.Uint64()
	t.Logf("first seed %d", first)
	for i := range uint64(200) {
		seed := first + i
		rnd := rand.New(rand.NewPCG(seed, 0))
		s := NewStore()
		rows := map[string]Update{}
		for step := range 30 {
			var updates []Update
			for _, n := range rnd.Perm(40)[:1+rnd.IntN(6)] {
				table, row := random(rnd, n)
				updates = append(updates, Update{table, id(n), row})
				rows[id(n)] = updates[len(updates)-1]
			}
			d := s.Apply(updates)
			for _, c := range d.Changes {
				if c.Old == nil && c.New == nil || c.Old != nil && c.New != nil && c.Old.id() != c.New.id() {
					t.Fatalf("seed %d step %d: change %+v", seed, step, c)
				}
			}
			fresh := NewStore()
			fresh.Apply(slices.Collect(maps.Values(rows)))
			// Rows that share a name or key, which the server's indexes forbid, may win in either order.
			for _, x := range []*Store{s, fresh} {
				clear(x.portByName)
				clear(x.datapathByKey)
			}
			if !reflect.DeepEqual(fresh, s) {
				t.Fatalf("seed %d step %d: -at once +step by step\n%s", seed, step,
					cmp.Diff(fresh, s, cmp.Exporter(func(reflect.Type) bool { return true })))
			}
		}
	}
}

// A name that moves from one row to another in one update stays known, whatever the order.
func TestNameMovesWithinAnUpdate(t *testing.T) {
	port := func(n int) *sbdb.PortBinding {
		return &sbdb.PortBinding{UUID: id(n), LogicalPort: "p", Datapath: id(9), TunnelKey: 1}
	}
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		s := NewStore()
		s.Apply([]Update{{"Port_Binding", id(1), port(1)}})
		both := []Update{{"Port_Binding", id(1), nil}, {"Port_Binding", id(2), port(2)}}
		s.Apply([]Update{both[order[0]], both[order[1]]})
		if p := s.PortByName("p"); p == nil || p.UUID.String() != id(2) {
			t.Errorf("order %v: port p is %v, want the new row", order, p)
		}
	}
}
