package openflow

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ir"
)

// prepare dials a bridge that has what generated rules refer to.
func prepare(t testing.TB) (*testBridge, *Conn) {
	t.Helper()
	b := newBridge(t)
	c := b.dial(t)
	table, err := c.TLVTable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(table.TLVs) == 0 {
		if err := c.AddTLVs(t.Context(), testTLVs...); err != nil {
			t.Fatal(err)
		}
	}
	var mods []Mod
	for id := range uint32(3) {
		mods = append(mods, AddGroup(id+1, &ir.SelectGroup{}))
		_ = c.DeleteMeter(t.Context(), id+1)
		if err := c.AddMeter(t.Context(), Meter{ID: id + 1, Packets: true, Bands: []Band{{Rate: 1000}}}); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, c, mods)
	return b, c
}

// commit makes mods, of which none may be refused.
func commit(t testing.TB, c *Conn, mods []Mod) {
	t.Helper()
	errs, err := c.Commit(t.Context(), mods)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range errs {
		m := mods[e.Index]
		match, err1 := DecodeMatch([]byte(m.Match))
		actions, err2 := DecodeActions([]byte(m.Body))
		t.Errorf("refused: %v: table=%d %s actions=%s (%v, %v)", e.Err, m.Table, FormatMatch(match), FormatActions(actions), err1, err2)
	}
	if errs != nil {
		t.FailNow()
	}
}

// flowKey is what identifies a flow.
func flowKey(table uint8, priority uint16, match string) string {
	return fmt.Sprintf("%d %d %x", table, priority, match)
}

// Everything that rules can contain goes into a real switch, which answers with the very same bytes and prints
// the very same text as we do.
func TestSwitchAgrees(t *testing.T) {
	b, c := prepare(t)
	g := gen{Rand: newRand(t)}

	rules := map[string]ir.Rule{}
	var mods []Mod
	fields, kinds := map[ir.Field]bool{}, map[reflect.Type]bool{}
	for range 4000 {
		r := g.rule()
		m := AddFlow(&r)
		k := flowKey(r.Table, r.Priority, m.Match)
		if _, dup := rules[k]; dup {
			continue
		}
		rules[k] = r
		mods = append(mods, m)
		for _, term := range r.Match {
			fields[term.Field] = true
		}
		for _, a := range r.Actions {
			kinds[reflect.TypeOf(a)] = true
		}
	}
	for f := ir.Field(1); f <= ir.Metadata; f++ {
		if f.IsTunMetadata() && f > ir.TunMetadata0+1 && f < ir.TunMetadata0+63 {
			continue // not mapped to an option
		}
		if !fields[f] {
			t.Errorf("no rule matches on %v", f)
		}
	}
	if got, want := len(kinds), 22; got != want {
		t.Errorf("rules have %d kinds of actions, want %d", got, want)
	}

	commit(t, c, mods)

	var text []string
	if err := c.DumpFlows(t.Context(), func(f *FlowStats) error {
		k := flowKey(f.Table, f.Priority, string(f.Match))
		r, ok := rules[k]
		if !ok {
			m, err := DecodeMatch(f.Match)
			t.Errorf("switch has table=%d priority=%d %s (%x, %v)", f.Table, f.Priority, FormatMatch(m), f.Match, err)
			return nil
		}
		delete(rules, k)
		if want := AppendActions(nil, r.Actions); string(f.Actions) != string(want) || f.Cookie != r.Cookie || f.Other {
			t.Errorf("%s\n got %x\nwant %x", FormatFlow(&r), f.Actions, want)
		}
		m, err := DecodeMatch(f.Match)
		if err != nil || !m.Equal(canonical(r.Match)) {
			t.Errorf("DecodeMatch(%s) = %v, %v, want %v", FormatMatch(r.Match), m, err, r.Match)
		}
		a, err := DecodeActions(f.Actions)
		if diff := cmp.Diff(r.Actions, a); err != nil || diff != "" {
			t.Errorf("DecodeActions(%s): %v\n%s", FormatActions(r.Actions), err, diff)
		}
		text = append(text, FormatFlow(&r))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Errorf("switch lacks %s\n%x", FormatFlow(&r), AppendMatch(nil, r.Match))
	}
	sameLines(t, text, lines(b.ofctl(t, "--no-names", "--no-stats", "dump-flows", "br0")))
}

// canonical returns what a switch makes of m: it can match a VLAN's priority only as a whole.
func canonical(m ir.Match) ir.Match {
	if t, ok := m.Term(ir.VLANTCI); ok && t.Value.Lo&vlanVIDPresent != 0 && t.Mask.Lo>>vlanPCPShift != 0 {
		m = m.Masked(ir.VLANTCI, t.Value.Lo, t.Mask.Lo|7<<vlanPCPShift)
	}
	return m
}

// sameLines compares our text with that of ovs-ofctl, both in any order.
func sameLines(t *testing.T, got, want []string) {
	t.Helper()
	ours, theirs := map[string]bool{}, map[string]bool{}
	for _, s := range got {
		ours[s] = true
	}
	for _, s := range want {
		theirs[s] = true
	}
	for _, s := range slices.Sorted(maps.Keys(ours)) {
		if !theirs[s] {
			t.Errorf("ovs-ofctl does not print %s", s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(theirs)) {
		if !ours[s] {
			t.Errorf("we do not print         %s", s)
		}
	}
}

// lines returns the sorted lines of a dump without leading spaces.
func lines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

func TestSwitchAgreesOnGroups(t *testing.T) {
	b, c := prepare(t)
	g := gen{Rand: newRand(t), noOptions: true}
	groups := map[uint32]ir.SelectGroup{}
	var mods []Mod
	for id := uint32(10); id < 300; id++ {
		s := g.group()
		groups[id] = s
		mods = append(mods, AddGroup(id, &s))
	}
	commit(t, c, mods)
	var text []string
	var ids []uint32
	if err := c.DumpGroupStats(t.Context(), func(s GroupStats) error {
		if g, ok := groups[s.ID]; ok && s.Buckets != len(g.Buckets) {
			t.Errorf("group %d has %d buckets, want %d", s.ID, s.Buckets, len(g.Buckets))
		}
		ids = append(ids, s.ID)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.DescribeGroups(t.Context(), append(ids, 5555), func(d *GroupDesc) error {
		s, ok := groups[d.ID]
		if !ok {
			if d.ID > 3 {
				t.Errorf("switch has group %d", d.ID)
			}
			return nil
		}
		delete(groups, d.ID)
		want := AppendGroup(nil, &s)
		if !d.Select || string(d.Body) != string(want) {
			t.Errorf("%s\n got %x\nwant %x", FormatGroup(d.ID, &s), d.Body, want)
		}
		got, err := DecodeGroup(d.Body)
		if err != nil {
			t.Errorf("DecodeGroup(%s): %v", FormatGroup(d.ID, &s), err)
		} else if diff := cmp.Diff(&s, got); diff != "" {
			t.Errorf("DecodeGroup(%s):\n%s", FormatGroup(d.ID, &s), diff)
		}
		text = append(text, FormatGroup(d.ID, &s))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(groups) > 0 {
		t.Errorf("switch lacks %d groups", len(groups))
	}
	text = append(text, "group_id=1,type=select", "group_id=2,type=select", "group_id=3,type=select")
	want := lines(b.ofctl(t, "--no-names", "dump-groups", "br0"))
	want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "OFPST") })
	sameLines(t, text, want)
}

// Groups that are longer than a message arrive whole, whichever way they are made.
func TestLongGroups(t *testing.T) {
	b, c := prepare(t)
	for _, buckets := range []int{1, 700, 2000} {
		g := ir.SelectGroup{Method: "hash", Param: 7, Fields: []ir.Field{ir.IPSrc, ir.IPDst}}
		for i := range buckets {
			acts := []ir.Action{ir.SetWhole(ir.Reg0, uint64(i)), ir.Output{Port: 1}}
			if i%3 == 0 {
				acts = append(acts, ir.Clone{Actions: acts}, ir.Resubmit{Table: 9})
			}
			g.Buckets = append(g.Buckets, ir.Bucket{Weight: uint16(i), Actions: acts})
		}
		body := string(AppendGroup(nil, &g))
		if n := Buckets(body); n != buckets {
			t.Errorf("Buckets = %d, want %d", n, buckets)
		}
		for _, kind := range []ModKind{GroupAdd, GroupModify} {
			mods := GroupMods(kind, 77, body)
			if long := len(body) > maxModSize; long != (len(mods) > 1) || mods[0].Kind != kind {
				t.Errorf("%d bytes: %d mods, the first of kind %d, want %d", len(body), len(mods), mods[0].Kind, kind)
			}
			commit(t, c, mods)
			var ids []string // of buckets
			for word := range strings.SplitSeq(b.ofctl(t, "dump-group-stats", "br0", "group_id=77"), ",") {
				if id, ok := strings.CutPrefix(word, "bucket"); ok {
					ids = append(ids, id)
				}
			}
			if len(ids) != buckets {
				t.Errorf("kind %d: %d buckets, want %d", kind, len(ids), buckets)
			}
			if len(mods) == 1 {
				want := FormatGroup(77, &g)
				if got := lines(b.ofctl(t, "--no-names", "dump-groups", "br0", "77")); !slices.Contains(got, want) {
					t.Errorf("kind %d: %q, want %q", kind, got, want)
				}
			}
		}
		commit(t, c, []Mod{{Kind: GroupDelete, Group: 77}})
	}
}

func TestSwitchAgreesOnMeters(t *testing.T) {
	b, c := prepare(t)
	want := map[uint32]Meter{}
	for i, m := range []Meter{
		{Bands: []Band{{Rate: 1000, Burst: 5}}, Burst: true, Stats: true},
		{Bands: []Band{{Rate: 0xffffffff, Burst: 0xffffffff}}, Burst: true},
		{Packets: true, Stats: true, Burst: true, Bands: []Band{{Rate: 1, Burst: 1}}},
	} {
		m.ID = 100 + uint32(i)
		want[m.ID] = m
		if err := c.AddMeter(t.Context(), Meter{ID: m.ID, Bands: []Band{{Rate: 7}}}); err != nil {
			t.Fatal(err)
		}
		if err := c.ModifyMeter(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	got := map[uint32]Meter{}
	if err := c.DumpMeters(t.Context(), func(m Meter) error {
		if m.ID >= 100 {
			got[m.ID] = m
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("meters (-want +got):\n%s", diff)
	}
	text := b.ofctl(t, "dump-meters", "br0")
	for _, s := range []string{"meter=100 kbps burst stats bands=", "meter=101 kbps burst bands=", "meter=102 pktps burst stats bands=", "type=drop rate=1000 burst_size=5"} {
		if !strings.Contains(text, s) {
			t.Errorf("dump-meters: %s\nwithout %q", text, s)
		}
	}
	for id := range want {
		if err := c.DeleteMeter(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if text := b.ofctl(t, "dump-meters", "br0"); strings.Contains(text, "meter=10") {
		t.Errorf("after deletion: %s", text)
	}
}
