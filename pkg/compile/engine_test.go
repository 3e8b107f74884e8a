package compile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// A world is a small deployment that changes at random, in the types of the Southbound.
type world struct {
	rnd  *rand.Rand
	rows map[string]map[string]any // table, uuid
	next int
}

func newWorld(rnd *rand.Rand) *world { return &world{rnd: rnd, rows: map[string]map[string]any{}} }

func (w *world) uuid() string {
	w.next++
	return fmt.Sprintf("%08x-%04x-4000-8000-%012x", w.rnd.Uint32(), w.next&0xffff, w.next)
}

func (w *world) table(name string) map[string]any {
	if w.rows[name] == nil {
		w.rows[name] = map[string]any{}
	}
	return w.rows[name]
}

// pick returns a random UUID of a table, empty if it has no rows.
func (w *world) pick(table string) string {
	ids := slices.Sorted(maps.Keys(w.rows[table]))
	if len(ids) == 0 {
		return ""
	}
	return ids[w.rnd.IntN(len(ids))]
}

func (w *world) some(table string, most int) []string {
	var out []string
	for range w.rnd.IntN(most + 1) {
		if id := w.pick(table); id != "" && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (w *world) of(list ...string) string { return list[w.rnd.IntN(len(list))] }

// The names and texts that rows use: few, so that rows meet.
var (
	lportNames = []string{"p0", "p1", "p2", "p3", "p4", "p5", "r-s", "s-r", "cr-r"}
	matches    = []string{
		"1", "ip4", `inport == "p0"`, `inport == "p1" && eth.src == 0a:00:00:00:00:01`, `outport == "p2" && ip4.dst == $as0`,
		`outport == @pg0 && ip`, `inport == @pg1 && ip4.src == $as1 && tcp.dst == {80, 443}`,
		`ip4.src == $as0 && ip4.dst == $as1`, `is_chassis_resident("p3")`, `!is_chassis_resident("cr-r") && ip6`,
		`outport == "_MC_flood"`, `eth.mcast`, `ip4.src == {10.0.0.1, 10.0.0.2} && tcp.dst == {1, 2, 3}`,
		`ip.ttl ==`, `ip4 && tcp.dst == 70000`, `reg0[1] == 1 && ct.est`, `inport == {"p0", "p4"} && ip4.dst == {10.0.0.3, 10.0.0.4}`,
	}
	actionTexts = []string{
		"next;", "drop;", "output;", `outport = "p1"; output;`, `outport = "_MC_flood"; output;`, "ct_next;",
		"ct_commit { ct_mark.blocked = 0; }; next;", "eth.dst <-> eth.src; next;", "reg0 = 3; next;", "no_such_action;",
		"log(name=\"x\"); next;", `outport = get_fdb(eth.dst); next;`, "ct_snat;",
	}
)

// mutate changes a few rows and returns the updates.
func (w *world) mutate() []sb.Update {
	var out []sb.Update
	put := func(table, id string, row any) {
		if row == nil {
			delete(w.table(table), id)
		} else {
			w.table(table)[id] = row
		}
		out = slices.DeleteFunc(out, func(u sb.Update) bool { return u.UUID == id })
		out = append(out, sb.Update{Table: table, UUID: id, New: row})
	}
	// edit inserts a row, or changes or deletes an old one.
	edit := func(table string, most int, f func(id string) any) {
		id := w.pick(table)
		switch {
		case id == "" || len(w.rows[table]) < most && w.rnd.IntN(3) > 0:
			id = w.uuid()
		case w.rnd.IntN(4) == 0:
			put(table, id, nil)
			return
		}
		if row := f(id); row != nil {
			put(table, id, row)
		}
	}
	free := func(table string, id string, name func(any) string, names []string) string {
		used := map[string]bool{}
		for other, r := range w.rows[table] {
			if other != id {
				used[name(r)] = true
			}
		}
		for range 10 {
			if n := w.of(names...); !used[n] {
				return n
			}
		}
		return ""
	}
	for range 1 + w.rnd.IntN(4) {
		switch w.rnd.IntN(12) {
		case 0:
			edit("Datapath_Binding", 4, func(id string) any {
				kind := w.of("logical-switch", "logical-router")
				key := free("Datapath_Binding", id, func(r any) string { return fmt.Sprint(r.(*sbdb.DatapathBinding).TunnelKey) },
					[]string{"1", "2", "3", "4", "5"})
				if key == "" {
					return nil
				}
				return &sbdb.DatapathBinding{UUID: id, TunnelKey: int(key[0] - '0'), ExternalIDs: map[string]string{kind: "x"}}
			})
		case 1, 2:
			edit("Port_Binding", 9, func(id string) any {
				name := free("Port_Binding", id, func(r any) string { return r.(*sbdb.PortBinding).LogicalPort }, lportNames)
				dp := w.pick("Datapath_Binding")
				if name == "" || dp == "" {
					return nil
				}
				p := &sbdb.PortBinding{
					UUID: id, LogicalPort: name, Datapath: dp, TunnelKey: 1 + slices.Index(lportNames, name),
					Chassis: optional(w.of("", w.pick("Chassis"))), Options: map[string]string{}, MAC: []string{"0a:00:00:00:00:01"},
				}
				switch name {
				case "r-s":
					p.Type, p.Options["peer"] = "patch", "s-r"
				case "s-r":
					p.Type, p.Options["peer"] = "patch", "r-s"
				case "cr-r":
					p.Type, p.Options["distributed-port"] = "chassisredirect", "r-s"
					p.HaChassisGroup = optional(w.of("", w.pick("HA_Chassis_Group")))
				default:
					if w.rnd.IntN(3) == 0 {
						p.PortSecurity = []string{"0a:00:00:00:00:01 10.0.0.1"}
					}
				}
				return p
			})
		case 3, 4, 5:
			edit("Logical_Flow", 25, func(id string) any {
				f := &sbdb.LogicalFlow{
					UUID: id, Pipeline: w.of("ingress", "egress"), TableID: w.rnd.IntN(12), Priority: w.rnd.IntN(4),
					Match: w.of(matches...), Actions: w.of(actionTexts...),
				}
				if w.rnd.IntN(2) == 0 {
					f.LogicalDatapath = optional(w.pick("Datapath_Binding"))
				} else {
					f.LogicalDpGroup = optional(w.pick("Logical_DP_Group"))
				}
				if w.rnd.IntN(4) == 0 {
					f.Tags = map[string]string{"in_out_port": w.of(lportNames...)}
				}
				return f
			})
		case 6:
			edit("Logical_DP_Group", 3, func(id string) any {
				return &sbdb.LogicalDPGroup{UUID: id, Datapaths: w.some("Datapath_Binding", 4)}
			})
		case 7:
			edit("Multicast_Group", 3, func(id string) any {
				dp := w.pick("Datapath_Binding")
				if dp == "" {
					return nil
				}
				key := 32768 + w.rnd.IntN(5)
				for other, r := range w.rows["Multicast_Group"] {
					if m := r.(*sbdb.MulticastGroup); other != id && m.Datapath == dp {
						return nil // one per datapath: its name is an index
					}
				}
				return &sbdb.MulticastGroup{UUID: id, Name: "_MC_flood", Datapath: dp, TunnelKey: key, Ports: w.some("Port_Binding", 5)}
			})
		case 8:
			edit("Address_Set", 2, func(id string) any {
				name := free("Address_Set", id, func(r any) string { return r.(*sbdb.AddressSet).Name }, []string{"as0", "as1"})
				if name == "" {
					return nil
				}
				var addresses []string
				for i := range w.rnd.IntN(4) {
					addresses = append(addresses, fmt.Sprintf("10.0.%d.%d", i, w.rnd.IntN(4)))
				}
				return &sbdb.AddressSet{UUID: id, Name: name, Addresses: addresses}
			})
		case 9:
			edit("Port_Group", 4, func(id string) any {
				name := free("Port_Group", id, func(r any) string { return r.(*sbdb.PortGroup).Name }, []string{"1_pg0", "2_pg0", "pg1", "3_pg1"})
				if name == "" {
					return nil
				}
				return &sbdb.PortGroup{UUID: id, Name: name, Ports: lportNames[:w.rnd.IntN(4)]}
			})
		case 10:
			edit("Chassis", 3, func(id string) any {
				name := free("Chassis", id, func(r any) string { return r.(*sbdb.Chassis).Name }, []string{"me", "hv1", "hv2"})
				if name == "" {
					return nil
				}
				return &sbdb.Chassis{UUID: id, Name: name}
			})
			edit("HA_Chassis", 3, func(id string) any {
				return &sbdb.HAChassis{UUID: id, Chassis: optional(w.pick("Chassis")), Priority: w.rnd.IntN(3)}
			})
			edit("HA_Chassis_Group", 2, func(id string) any {
				return &sbdb.HAChassisGroup{UUID: id, Name: id, HaChassis: w.some("HA_Chassis", 3)}
			})
		case 11:
			edit("MAC_Binding", 3, func(id string) any {
				return &sbdb.MACBinding{
					UUID: id, LogicalPort: w.of(lportNames...), IP: w.of("10.0.0.1", "fd00::1", "nonsense"),
					MAC: w.of("0a:00:00:00:00:01", "0a:00"), Datapath: w.of(w.pick("Datapath_Binding"), id),
				}
			})
			edit("FDB", 3, func(id string) any {
				return &sbdb.FDB{UUID: id, MAC: "0a:00:00:00:00:07", DpKey: 1 + w.rnd.IntN(5), PortKey: 1 + w.rnd.IntN(4)}
			})
		}
	}
	return out
}

// local returns a chassis that fits the store more or less, as a real one does while rows are on their way.
func (w *world) local(s *sb.Store) *chassis.Local {
	l := &chassis.Local{
		Name: "me", Datapaths: map[sb.UUID]*chassis.LocalDatapath{}, Ports: map[string]chassis.LocalPort{},
		Related: map[sb.UUID]struct{}{}, Zones: map[string]uint16{}, ActiveTunnels: map[string]struct{}{}, Patch: map[string]uint16{},
	}
	if c := s.ChassisByName("me"); c != nil {
		l.Chassis = c.UUID
	}
	for _, dp := range sb.Sorted(s.Datapaths) {
		if w.rnd.IntN(3) > 0 {
			l.Datapaths[dp.UUID] = &chassis.LocalDatapath{UUID: dp.UUID, IsSwitch: dp.IsSwitch}
			l.Zones[dp.UUID.String()+"_dnat"] = uint16(100 + dp.Key)
		}
	}
	for i, name := range lportNames {
		if w.rnd.IntN(2) == 0 {
			l.Ports[name] = chassis.LocalPort{OFPort: uint16(1 + i)}
			l.Zones[name] = uint16(1 + i + w.rnd.IntN(2)*50)
		}
		if p := s.PortByName(name); p != nil && w.rnd.IntN(2) == 0 {
			l.Related[p.UUID] = struct{}{}
		}
	}
	for i, name := range []string{"hv1", "hv2"} {
		if w.rnd.IntN(3) > 0 {
			l.Tunnels = append(l.Tunnels, chassis.Tunnel{
				Chassis: name, Type: w.of("geneve", "vxlan"), RemoteIP: fmt.Sprintf("172.31.0.%d", i), OFPort: uint16(20 + i),
			})
			l.ActiveTunnels[name] = struct{}{}
		}
	}
	l.CTZeroSNAT = w.rnd.IntN(10) > 0
	return l
}

// flat is a program as sorted text: who wants which flow.
func flat(owned map[Owner][]ir.Rule) []string {
	var out []string
	for o, rules := range owned {
		for i := range rules {
			out = append(out, fmt.Sprintf("%v/%d %s", o.Row, o.Datapath, openflow.FormatFlow(&rules[i])))
		}
	}
	slices.Sort(out)
	return out
}

func take(owned map[Owner][]ir.Rule, rs []Replacement) {
	for _, r := range rs {
		if len(r.Rules) == 0 {
			delete(owned, r.Owner)
		} else {
			owned[r.Owner] = r.Rules
		}
	}
}

// Arriving step by step and computing from nothing give the same program, whatever the history.
func TestIncrementalEqualsRecompute(t *testing.T) {
	histories, steps := 150, 40
	if testing.Short() {
		histories = 20
	}
	first := rand.Uint64()
	t.Logf("first seed %d", first)
	rules := 0
	for i := range uint64(histories) {
		seed := first + i
		w := newWorld(rand.New(rand.NewPCG(seed, 0)))
		store := sb.NewStore()
		e := NewEngine()
		owned := map[Owner][]ir.Rule{}
		in := Input{SB: store, Local: w.local(store), Geneve: ir.TunMetadata0}
		for step := range steps {
			d := store.Apply(w.mutate())
			if w.rnd.IntN(3) == 0 {
				in.Local = w.local(store)
			}
			if w.rnd.IntN(20) == 0 {
				in.Geneve = ir.TunMetadata0 + ir.Field(w.rnd.IntN(3))
			}
			take(owned, e.Update(d, in))

			fresh := map[Owner][]ir.Rule{}
			take(fresh, NewEngine().Recompute(in))
			got, want := flat(owned), flat(fresh)
			rules += len(want)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d step %d:\nonly incremental: %q\nonly recomputed: %q", seed, step, without(got, want), without(want, got))
			}
			if again := e.Update(sb.Delta{}, in); len(again) != 0 {
				t.Fatalf("seed %d step %d: an empty delta replaces %d owners", seed, step, len(again))
			}
		}
	}
	t.Logf("%d rules compared", rules)
	if rules < histories*steps*5 {
		t.Errorf("only %d rules were compared: the worlds are too empty to say anything", rules)
	}
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}
