package compile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
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
		"log(name=\"x\"); next;", `log(verdict=drop, meter="m0");`, `log(name="y", verdict=allow, meter="m1"); set_meter(100); next;`,
		`icmp4 { output; };`, `nd_na { log(verdict=allow); output; };`, `outport = get_fdb(eth.dst); next;`, "ct_snat;",
		"reg8[16..31] = select(1, 2=20);", "reg8[16..31] = select(1, 2=30);", "ct_lb(backends=10.0.0.1:80,10.0.0.2:80);",
		`ct_lb_mark(backends=10.0.0.1,[fd00::1]:80; hash_fields="eth_src,ip_dst"; skip_snat);`, "set_meter(100); next;",
		"set_meter(200, 10); set_meter(100); next;", `fwd_group(childports="p1", "p2");`,
		`fwd_group(liveness="true", childports="p0", "p3");`, "reg8[16..31] = select(1, 2=20); no_such_action;",
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
		switch w.rnd.IntN(13) {
		case 0:
			edit("Datapath_Binding", 4, func(id string) any {
				kind := w.of("logical-switch", "logical-router")
				key := free("Datapath_Binding", id, func(r any) string { return fmt.Sprint(r.(*sbdb.DatapathBinding).TunnelKey) },
					[]string{"1", "2", "3", "4", "5"})
				if key == "" {
					return nil
				}
				return &sbdb.DatapathBinding{UUID: id, TunnelKey: int(key[0] - '0'), ExternalIDs: map[string]string{
					kind: "x", "mac_binding_age_threshold": w.of("", "0", "300"),
				}}
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
				f.ControllerMeter = optional(w.of("", "", "m0"))
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
			edit("Meter_Band", 3, func(id string) any {
				return &sbdb.MeterBand{UUID: id, Action: "drop", Rate: ownRates + w.rnd.IntN(3), BurstSize: w.rnd.IntN(2)}
			})
			edit("Meter", 2, func(id string) any {
				name := free("Meter", id, func(r any) string { return r.(*sbdb.Meter).Name }, []string{"m0", "m1"})
				if name == "" {
					return nil
				}
				return &sbdb.Meter{UUID: id, Name: name, Unit: map[string]string{"m0": "kbps", "m1": "pktps"}[name], Bands: w.some("Meter_Band", 2)}
			})
		case 12:
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
	l.HashL4Sym = w.rnd.IntN(10) > 0
	return l
}

// ownRates is above the rates of the meters that one flow alone has. Those of other meters tell them apart, with their units.
const ownRates = 1000

var usedID = regexp.MustCompile(`\b(group|meter)(?::|_id=)(\d+)`)

// meterText says what a meter of o is: its contents, and whose it is if it is one flow's alone.
func meterText(o Owner, m ir.RateMeter) string {
	if m.Rate < ownRates {
		return fmt.Sprintf("%+v of %v", m, o.Row)
	}
	return fmt.Sprintf("%+v", m)
}

// flat is a program as sorted text: who wants which flow. In the place of the identifiers of groups and meters, which
// depend on the history if hashes collide, is what they stand for.
func flat(owned map[Owner]Replacement) []string {
	var out []string
	for o, r := range owned {
		for i := range r.Rules {
			flow := usedID.ReplaceAllStringFunc(openflow.FormatFlow(&r.Rules[i]), func(s string) string {
				part := usedID.FindStringSubmatch(s)
				kind := part[1]
				n, err := strconv.ParseUint(part[2], 10, 32)
				if g, ok := r.Groups[uint32(n)]; kind == "group" && ok && err == nil {
					return openflow.FormatGroup(0, &g)
				}
				if m, ok := r.Meters[uint32(n)]; kind == "meter" && ok && err == nil {
					return "meter " + meterText(o, m)
				}
				return "unknown " + s
			})
			out = append(out, fmt.Sprintf("%v/%d %s", o.Row, o.Datapath, flow))
		}
	}
	slices.Sort(out)
	return out
}

// checkIdentifiers tests what a program promises about groups and meters, and that the engine holds those that are in
// use and no others.
func checkIdentifiers(e *Engine, owned map[Owner]Replacement) error {
	groups, meters := map[uint32]string{}, map[uint32]string{} // what they stand for
	users := map[string]int{}
	for o, r := range owned {
		used := map[string]bool{}
		for i := range r.Rules {
			for _, s := range usedID.FindAllStringSubmatch(openflow.FormatFlow(&r.Rules[i]), -1) {
				used[s[1]+":"+s[2]] = true
			}
		}
		for id, g := range r.Groups {
			what := openflow.FormatGroup(0, &g)
			if old, ok := groups[id]; ok && old != what {
				return fmt.Errorf("group %d is %s and %s", id, old, what)
			}
			groups[id] = what
		}
		for id, m := range r.Meters {
			what := meterText(o, m)
			if old, ok := meters[id]; ok && old != what {
				return fmt.Errorf("meter %d is %s and %s", id, old, what)
			}
			meters[id] = what
		}
		for id := range r.Groups {
			users[fmt.Sprint("group:", id)]++
		}
		for id := range r.Meters {
			users[fmt.Sprint("meter:", id)]++
		}
		if len(used) != len(r.Groups)+len(r.Meters) {
			return fmt.Errorf("%v uses %v, has groups %v and meters %v", o, used, r.Groups, r.Meters)
		}
	}
	if n := len(slices.Compact(slices.Sorted(maps.Values(groups)))); n != len(groups) {
		return fmt.Errorf("%d groups for %d contents", len(groups), n)
	}
	if n := len(slices.Compact(slices.Sorted(maps.Values(meters)))); n != len(meters) {
		return fmt.Errorf("%d meters for %d uses", len(meters), n)
	}
	held := map[string]int{}
	for id, i := range e.groups.issued {
		held[fmt.Sprint("group:", id)] = i.users
	}
	for id, i := range e.meters.issued {
		held[fmt.Sprint("meter:", id)] = i.users
	}
	if !maps.Equal(held, users) {
		return fmt.Errorf("engine holds %v, in use are %v", held, users)
	}
	return nil
}

func take(owned map[Owner]Replacement, rs []Replacement) {
	for _, r := range rs {
		if len(r.Rules) == 0 {
			delete(owned, r.Owner)
		} else {
			owned[r.Owner] = r
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
	var rules, groups, meters int
	for i := range uint64(histories) {
		seed := first + i
		w := newWorld(rand.New(rand.NewPCG(seed, 0)))
		store := sb.NewStore()
		e := NewEngine()
		e.groups, e.meters = newIdentifiers(23), newIdentifiers(23) // hashes collide
		owned := map[Owner]Replacement{}
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

			fresh := map[Owner]Replacement{}
			NewEngine().Recompute(in, func(r Replacement) { take(fresh, []Replacement{r}) })
			if err := checkIdentifiers(e, owned); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			groups, meters = max(groups, len(e.groups.issued)), max(meters, len(e.meters.issued))
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
	t.Logf("%d rules compared, with up to %d groups and %d meters", rules, groups, meters)
	if rules < histories*steps*5 || groups < 3 || meters < 3 {
		t.Errorf("only %d rules were compared: the worlds are too empty to say anything", rules)
	}
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}
