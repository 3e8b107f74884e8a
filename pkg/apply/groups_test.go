package apply

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// A modelSwitch is what a switch does with changes of flows, groups and meters. It refuses what Open vSwitch refuses,
// and beyond that what is under a bad identifier.
type modelSwitch struct {
	flows  map[Key]Flow
	groups map[uint32]string
	meters map[uint32]ir.RateMeter
	bad    map[uint32]bool
	tries  int // of what is bad
}

var errModel = errors.New("refused")

// mod carries out one change. Losing a flow that nobody deleted is an error of the caller.
func (s *modelSwitch) mod(m openflow.Mod) error {
	k := Key{m.Table, m.Priority, m.Match}
	_, there := s.groups[m.Group]
	switch m.Kind {
	case openflow.FlowAdd, openflow.FlowModifyStrict:
		for _, a := range actionsOf(m.Body) {
			if g, ok := a.(ir.Group); ok && s.groups[g.ID] == "" {
				return fmt.Errorf("no group %d: %w", g.ID, errModel)
			}
			if r, ok := a.(ir.Meter); ok && s.meters[r.ID] == (ir.RateMeter{}) {
				return fmt.Errorf("no meter %d: %w", r.ID, errModel)
			}
		}
		s.flows[k] = Flow{m.Cookie, m.Body}
	case openflow.FlowDeleteStrict:
		delete(s.flows, k)
	case openflow.GroupAdd, openflow.GroupModify:
		if there != (m.Kind == openflow.GroupModify) {
			return fmt.Errorf("group %d there: %v", m.Group, there)
		}
		if s.bad[m.Group] {
			s.tries++
			return errModel
		}
		s.groups[m.Group] = m.Body
	case openflow.GroupDelete:
		if m.Group == openflow.AllGroups {
			clear(s.groups)
			maps.DeleteFunc(s.flows, func(_ Key, f Flow) bool { return usesGroup([]byte(f.Actions)) })
			return nil
		}
		delete(s.groups, m.Group)
		for k, f := range s.flows {
			if slices.Contains(actionsOf(f.Actions), ir.Action(ir.Group{ID: m.Group})) {
				return fmt.Errorf("group %d is deleted, and used by priority %d", m.Group, k.Priority)
			}
		}
	case openflow.GroupInsert, openflow.FlowDelete:
		return fmt.Errorf("mod kind %d", m.Kind)
	}
	return nil
}

func (s *modelSwitch) meter(m MeterMod) error {
	if _, there := s.meters[m.ID]; there != m.Modify {
		return fmt.Errorf("meter %d there: %v", m.ID, there)
	}
	if s.bad[m.ID] {
		s.tries++
		return errModel
	}
	s.meters[m.ID] = m.Meter
	return nil
}

// deleteMeter deletes a meter.
func (s *modelSwitch) deleteMeter(id uint32) error {
	delete(s.meters, id)
	for k, f := range s.flows {
		if slices.Contains(actionsOf(f.Actions), ir.Action(ir.Meter{ID: id})) {
			return fmt.Errorf("meter %d is deleted, and used by priority %d", id, k.Priority)
		}
	}
	return nil
}

func actionsOf(body string) []ir.Action {
	acts, err := openflow.DecodeActions([]byte(body))
	if err != nil {
		panic(err)
	}
	return acts
}

// install does what Flows does with a table.
func (s *modelSwitch) install(t *FlowTable) error {
	meters, unwanted := t.MeterMods()
	for _, m := range meters {
		if err := s.meter(m); errors.Is(err, errModel) {
			t.RefusedMeter(m)
		} else if err != nil {
			return err
		}
	}
	for _, m := range t.Mods() {
		if err := t.Missing(m); err != nil {
			t.Refused(m, errors.New("refused"))
			continue
		}
		if err := s.mod(m); errors.Is(err, errModel) && isGroup(m) {
			t.Refused(m, errors.New("refused"))
		} else if err != nil {
			return err // a flow is only refused for what Missing knew
		}
	}
	for _, id := range unwanted {
		if err := s.deleteMeter(id); err != nil {
			return err
		}
	}
	return nil
}

// useWorld is what owners want of groups and meters: an identifier stands for one thing at a time.
type useWorld struct {
	rnd     *rand.Rand
	version map[uint32]uint32
	wanted  map[Owner]Replacement
}

// random returns flows of o that use groups and meters.
func (w *useWorld) random(o Owner) Replacement {
	r := Replacement{Owner: o, Groups: map[uint32]ir.SelectGroup{}, Meters: map[uint32]ir.RateMeter{}}
	for i := range w.rnd.IntN(4) {
		var acts []ir.Action
		for range w.rnd.IntN(3) {
			id := 1 + w.rnd.Uint32N(5)
			switch w.rnd.IntN(3) {
			case 0:
				acts = append(acts, ir.Group{ID: id})
				r.Groups[id] = ir.SelectGroup{}
			case 1:
				acts = append(acts, ir.Meter{ID: id})
				r.Meters[id] = ir.RateMeter{}
			case 2:
				acts = append(acts, ir.Resubmit{Table: uint8(20 + id)})
			}
		}
		r.Rules = append(r.Rules, rule(uint16(10*int(o.Row[0])+i), uint64(o.Row[0]), acts...))
	}
	return w.fill(r)
}

// fill gives what r uses its present contents.
func (w *useWorld) fill(r Replacement) Replacement {
	out := Replacement{Owner: r.Owner, Rules: r.Rules, Groups: map[uint32]ir.SelectGroup{}, Meters: map[uint32]ir.RateMeter{}}
	for id := range r.Groups {
		bucket := ir.Bucket{Weight: uint16(1 + w.version[id]), Actions: []ir.Action{ir.Output{Port: id}}}
		out.Groups[id] = ir.SelectGroup{Method: "dp_hash", Buckets: []ir.Bucket{bucket}}
	}
	for id := range r.Meters {
		out.Meters[id] = ir.RateMeter{Rate: 1 + w.version[id]}
	}
	return out
}

// mutate changes what somebody wants, or what an identifier stands for.
func (w *useWorld) mutate(put func(Replacement)) {
	if w.rnd.IntN(4) == 0 {
		id := 1 + w.rnd.Uint32N(5)
		w.version[id]++
		for _, o := range slices.SortedFunc(maps.Keys(w.wanted), func(a, b Owner) int { return int(a.Row[0]) - int(b.Row[0]) }) {
			w.wanted[o] = w.fill(w.wanted[o])
			put(w.wanted[o])
		}
		return
	}
	o := owner(1 + w.rnd.IntN(5))
	w.wanted[o] = w.random(o)
	put(w.wanted[o])
}

// The switch ends with the flows, groups and meters that are wanted last and no others, whatever it had before;
// at no time does it lack one that a flow uses.
func TestGroupsAndMeters(t *testing.T) {
	first := rand.Uint64()
	t.Logf("first seed %d", first)
	used := 0
	for i := range uint64(300) {
		seed := first + i
		w := &useWorld{rnd: rand.New(rand.NewPCG(seed, 0)), version: map[uint32]uint32{}, wanted: map[Owner]Replacement{}}
		sw := &modelSwitch{flows: map[Key]Flow{}, groups: map[uint32]string{}, meters: map[uint32]ir.RateMeter{}}
		table := NewFlowTable()
		for step := range 40 {
			switch w.rnd.IntN(10) {
			case 0:
				table.Begin()
				for o, r := range w.wanted {
					if w.rnd.IntN(4) == 0 {
						delete(w.wanted, o)
						continue
					}
					table.Replace(r)
				}
				table.End()
			case 1: // another connection: read back, maybe without the groups, and find what others have done
				id := 1 + w.rnd.Uint32N(7)
				sw.groups[id], sw.meters[id] = "foreign", ir.RateMeter{Rate: 99}
				table.Reset()
				if w.rnd.IntN(3) == 0 {
					table.UnknownGroups()
				} else {
					for id, body := range sw.groups {
						table.InstalledGroup(id, []byte(body))
					}
				}
				for id, m := range sw.meters {
					table.InstalledMeter(id, m)
				}
				for k, f := range sw.flows {
					table.Installed(k.Table, k.Priority, []byte(k.Match), []byte(f.Actions), f.Cookie)
				}
			default:
				w.mutate(table.Replace)
			}
			if w.rnd.IntN(3) == 0 {
				continue
			}
			if err := sw.install(table); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			fresh := NewFlowTable()
			for _, r := range w.wanted {
				fresh.Replace(r)
			}
			want := &modelSwitch{flows: map[Key]Flow{}, groups: map[uint32]string{}, meters: map[uint32]ir.RateMeter{}}
			if err := want.install(fresh); err != nil {
				t.Fatalf("seed %d step %d: from nothing: %v", seed, step, err)
			}
			if !maps.Equal(sw.flows, want.flows) || !maps.Equal(sw.groups, want.groups) || !maps.Equal(sw.meters, want.meters) {
				t.Fatalf("seed %d step %d: got\n%q\n%v\n%v\nwant\n%q\n%v\n%v", seed, step,
					texts(sw.flows), sw.groups, sw.meters, texts(want.flows), want.groups, want.meters)
			}
			used += len(want.groups) + len(want.meters)
			meters, unwanted := table.MeterMods()
			if again := table.Mods(); len(again)+len(meters)+len(unwanted) != 0 {
				t.Fatalf("seed %d step %d: %v, %v and %v although nothing changed", seed, step, again, meters, unwanted)
			}
		}
	}
	if used < 10000 {
		t.Errorf("only %d groups and meters were there to be compared", used)
	}
}

// A group or meter that is refused takes its flows with it and nothing else. They are tried again when something
// else is wanted under its identifier and by the flows.
func TestRefusedGroup(t *testing.T) {
	sw := &modelSwitch{
		flows: map[Key]Flow{}, groups: map[uint32]string{}, meters: map[uint32]ir.RateMeter{}, bad: map[uint32]bool{3: true},
	}
	use := func(n int, id uint32) Replacement {
		return Replacement{
			Owner:  owner(n),
			Rules:  []ir.Rule{rule(uint16(n), 1, ir.Clone{Actions: []ir.Action{ir.Group{ID: id}}}), rule(uint16(10*n), 1, ir.Meter{ID: id})},
			Groups: map[uint32]ir.SelectGroup{id: {Method: "dp_hash"}},
			Meters: map[uint32]ir.RateMeter{id: {Rate: 5}},
		}
	}
	table := NewFlowTable()
	table.Replace(use(1, 1))
	table.Replace(use(2, 3))
	table.Replace(use(3, 3))
	for range 2 { // the second time nothing is tried
		if err := sw.install(table); err != nil {
			t.Fatal(err)
		}
		if len(sw.flows) != 2 || table.LenRefused() != 4 || sw.tries != 2 {
			t.Errorf("%d flows installed and %d refused, after %d tries of group and meter, want 2, 4 and 2", len(sw.flows), table.LenRefused(), sw.tries)
		}
		table.Replace(use(3, 3))
	}
	table.Replace(use(2, 2))
	table.Replace(Replacement{Owner: owner(3)})
	if err := sw.install(table); err != nil {
		t.Fatal(err)
	}
	if len(sw.flows) != 4 || table.LenRefused() != 0 || len(sw.groups) != 2 || len(sw.meters) != 2 {
		t.Errorf("%d flows, %d groups, %d meters installed, %d flows refused, want 4, 2, 2, 0",
			len(sw.flows), len(sw.groups), len(sw.meters), table.LenRefused())
	}
	// A reconnection is another chance.
	table.Replace(use(3, 3))
	if err := sw.install(table); err != nil {
		t.Fatal(err)
	}
	sw.bad = nil
	table.Reset()
	clear(sw.flows)
	clear(sw.groups)
	clear(sw.meters)
	if err := sw.install(table); err != nil || len(sw.flows) != 6 {
		t.Errorf("after a reconnection %d flows, %v, want 6", len(sw.flows), err)
	}
}

// balancer returns n flows that share a group with some buckets and a meter each.
func balancer(group uint32, buckets, n int) Replacement {
	g := ir.SelectGroup{Method: "dp_hash"}
	for i := range buckets {
		g.Buckets = append(g.Buckets, ir.Bucket{Weight: 100, Actions: []ir.Action{
			ir.CT{Commit: true, Table: 21, ZoneFrom: ir.Sub{Field: ir.Reg0 + 13, N: 16}, NAT: &ir.NAT{Dst: true, AddrMin: ir.U64(0x0a000000 + uint64(i)), PortMin: 80}},
		}})
	}
	r := Replacement{Owner: owner(1), Groups: map[uint32]ir.SelectGroup{group: g}, Meters: map[uint32]ir.RateMeter{}}
	for i := range n {
		id := uint32(1 + i)
		r.Meters[id] = ir.RateMeter{Packets: id > 2, Rate: 1000, Burst: (id - 1) % 3}
		r.Rules = append(r.Rules, ir.Rule{
			Table: 8, Priority: 20, Match: ir.Match{}.Eq(ir.Metadata, uint64(i+1)).Eq(ir.EthType, 0x800),
			Actions: []ir.Action{ir.Meter{ID: id}, ir.Group{ID: group}},
		})
	}
	return r
}

func (b *bench) groups() []string {
	b.t.Helper()
	return trimmed(b.sw.OFctl(b.t, "--no-names", "dump-groups", b.bridge), "group_id=")
}

func (b *bench) meters() []string {
	b.t.Helper()
	return trimmed(b.sw.OFctl(b.t, "dump-meters", b.bridge), "meter=")
}

// trimmed returns the lines that begin with prefix, and their continuations, sorted.
func trimmed(out, prefix string) []string {
	var found []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, prefix):
			found = append(found, line)
		case len(found) > 0 && line != "":
			found[len(found)-1] += " " + line
		}
	}
	slices.Sort(found)
	return found
}

// want fails the test unless the bridge has exactly what r says.
func (b *bench) want(r Replacement) {
	b.t.Helper()
	b.wantFlows(ruleTexts(r.Rules))
	var groups, meters []string
	for id, g := range r.Groups {
		groups = append(groups, openflow.FormatGroup(id, &g))
	}
	for id, m := range r.Meters {
		meters = append(meters, strings.Replace(formatMeter(MeterMod{ID: id, Meter: m}), " bands=", " bands= ", 1))
	}
	same(b.t, "groups", b.groups(), groups)
	same(b.t, "meters", b.meters(), meters)
}

// What another agent left goes, a restart touches nothing, and no packet class is without its flow when its group is
// replaced.
func TestGroupsOnSwitch(t *testing.T) {
	b := newBridge(t)
	for _, foreign := range [][]string{
		{"add-group", b.bridge, "group_id=5,type=all,bucket=output:1"},                             // in the place of ours
		{"add-group", b.bridge, "group_id=6,type=select,selection_method=hash,bucket=output:1"},    // of no use
		{"add-meter", b.bridge, "meter=1 pktps bands=type=drop rate=5"},                            // in the place of ours
		{"add-meter", b.bridge, "meter=9 kbps burst stats bands=type=drop rate=5 burst_size=6"},    // of no use
		{"add-flow", b.bridge, "table=8,priority=20,ip,metadata=1,actions=meter:9,group:6"},        // that is where ours will be
		{"add-flow", b.bridge, "table=9,priority=20,ip,metadata=1,actions=group:5"},                // of no use
		{"add-flow", b.bridge, "table=8,priority=20,ip,metadata=2,actions=meter:2,clone(group:5)"}, // refused: no meter 2
	} {
		_, _ = b.sw.Exec(append([]string{"ovs-ofctl", "-O", "OpenFlow15"}, foreign...)...)
	}
	b.start()
	r := balancer(5, 3, 4)
	b.Put(Batch{Turn: 1, Complete: true, Replacements: []Replacement{r}})
	s := b.installed(1)
	b.want(r)
	if s.Groups != 1 || s.Meters != 4 || s.Refused != 0 {
		t.Errorf("status %+v, want 1 group, 4 meters, nothing refused", s)
	}

	b.stop()
	b.start()
	b.Put(Batch{Turn: 1, Complete: true, Replacements: []Replacement{r}})
	if s := b.installed(1); s.Sent != 0 {
		t.Errorf("a restart that changes nothing sent %d modifications", s.Sent)
	}

	for turn := range uint64(5) {
		r = balancer(6+uint32(turn), 2+int(turn), 4) // the flows stay, their group goes
		b.Put(Batch{Turn: 2 + turn, Replacements: []Replacement{r}})
		b.installed(2 + turn)
		b.want(r)
	}
	b.Put(Batch{Turn: 9, Replacements: []Replacement{{Owner: owner(1)}}})
	b.installed(9)
	b.want(Replacement{})
}

func TestRefusedGroupOnSwitch(t *testing.T) {
	b := newBench(t)
	good, bad := balancer(5, 3, 2), balancer(6, 3, 12)
	bad.Owner = owner(2)
	for i := range bad.Rules {
		bad.Rules[i].Priority = 30
	}
	bad.Meters = map[uint32]ir.RateMeter{}
	for i := range bad.Rules {
		bad.Rules[i].Actions = []ir.Action{ir.Group{ID: 6}}
	}
	bad.Groups[6] = ir.SelectGroup{Method: "astrology"}
	lost := Replacement{
		Owner: owner(3), Rules: []ir.Rule{rule(40, 1, ir.Meter{ID: 0xfffffff0}, ir.Resubmit{Table: 9})},
		Meters: map[uint32]ir.RateMeter{0xfffffff0: {Rate: 1}},
	}
	b.Put(Batch{Turn: 1, Complete: true, Replacements: []Replacement{lost, bad, good}})
	if s := b.installed(1); s.Refused != 13 || s.Desired != 15 {
		t.Errorf("status %+v, want 13 of 15 flows refused", s)
	}
	b.want(good)
	told := map[string]int{}
	for _, r := range b.TakeRefused() {
		kind, _, _ := strings.Cut(r.Flow, "=")
		told[kind+" "+fmt.Sprint(r.Rows[0][0], len(r.Rows))]++
		if strings.Contains(r.Flow, "actions=group:6") != strings.Contains(r.Err.Error(), "group 6 was refused") {
			t.Errorf("%s: %v", r.Flow, r.Err)
		}
	}
	if want := map[string]int{"group_id 2 1": 1, "meter 3 1": 1, "table 2 1": 12, "cookie 3 1": 1}; !maps.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
	bad.Groups[6] = ir.SelectGroup{Method: "hash", Fields: []ir.Field{ir.IPSrc}}
	bad.Rules = bad.Rules[:1]
	bad.Rules[0].Cookie = 77
	b.Put(Batch{Turn: 2, Replacements: []Replacement{bad}})
	if s := b.installed(2); s.Refused != 1 || len(b.groups()) != 2 {
		t.Errorf("status %+v and groups %q, want 2 groups and 1 flow refused", s, b.groups())
	}
}

// A packet that goes to the controller need not be limited: what is lost with a meter is the limit, not the flow.
func TestRefusedControllerMeter(t *testing.T) {
	b := newBench(t)
	r := Replacement{
		Owner: owner(1), Meters: map[uint32]ir.RateMeter{0xfffffff0: {Rate: 1}},
		Rules: []ir.Rule{rule(1, 1, ir.Controller{MaxLen: 0xffff, UserData: []byte{0, 0, 0, 7}, MeterID: 0xfffffff0}, ir.Resubmit{Table: 9})},
	}
	b.Put(Batch{Turn: 1, Complete: true, Replacements: []Replacement{r}})
	if s := b.installed(1); s.Refused != 0 {
		t.Errorf("status %+v, want no flow refused", s)
	}
	b.wantFlows(ruleTexts(r.Rules))
	if told := b.TakeRefused(); len(told) != 1 || !strings.HasPrefix(told[0].Flow, "meter=") {
		t.Errorf("told of %+v, want the meter", told)
	}
}

// A group whose description, or whose statistics, are longer than a message is installed, and a restart finds its way.
func TestLongGroup(t *testing.T) {
	for _, tt := range []struct{ buckets, besides int }{
		{2500, 0},
		{5000, 1 + 1 + 4}, // all groups deleted, the other one added, and the flows that use them
	} {
		t.Run(fmt.Sprint(tt.buckets), func(t *testing.T) {
			b := newBench(t)
			r, other := balancer(5, tt.buckets, 3), balancer(6, 2, 0)
			other.Owner = owner(2)
			other.Rules = []ir.Rule{rule(9, 1, ir.Group{ID: 6}), rule(10, 1, ir.Resubmit{Table: 9})}
			g := r.Groups[5]
			parts := len(openflow.GroupMods(openflow.GroupAdd, 5, string(openflow.AppendGroup(nil, &g))))
			for range 2 {
				b.Put(Batch{Turn: 1, Complete: true, Replacements: []Replacement{r, other}})
				b.installed(1)
				b.wantFlows(ruleTexts(slices.Concat(r.Rules, other.Rules)))
				b.stop()
				b.start()
			}
			b.Put(Batch{Turn: 1, Complete: true, Replacements: []Replacement{r, other}})
			if sent := int(b.installed(1).Sent); parts < 2 || sent != parts+tt.besides {
				t.Errorf("%d modifications, want the %d parts of the group that is too long to be read, and %d", sent, parts, tt.besides)
			}
			r = balancer(5, 4, 3)
			b.Put(Batch{Turn: 2, Replacements: []Replacement{r}})
			b.installed(2)
			b.wantFlows(ruleTexts(slices.Concat(r.Rules, other.Rules)))
			if groups := b.groups(); len(groups) != 2 {
				t.Errorf("groups %q, want 2", groups)
			}
		})
	}
}
