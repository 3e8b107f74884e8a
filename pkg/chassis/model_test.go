package chassis

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// A model is both databases and an ovs-vswitchd in a few maps: it takes commands that change what does not belong to
// the chassis, and the ops of plans. It keeps the rules of the schemas that matter here: unique columns, weak and
// strong references, rows that live only while something refers to them; and it refuses what the role
// ovn-controller may not write.
type model struct {
	rows   map[DB]map[string]map[string]any // by table and UUID, pointers to generated types
	serial int
	names  map[string]string // UUID -> what people call the row

	store      *sb.Store
	sw         *Switch
	seen       map[string]any // what store and sw have been told, by table and UUID
	conditions map[string][]Clause
	monitorAll bool // no conditions
	ofport     int
	refused    []string
}

const rootUUID = "00000000-0000-0000-0000-00000000aaaa"

func newModel() *model {
	m := &model{
		rows:  map[DB]map[string]map[string]any{Southbound: {}, OpenvSwitch: {}},
		names: map[string]string{rootUUID: "root"},
		store: sb.NewStore(), sw: NewSwitch(), seen: map[string]any{},
		conditions: map[string][]Clause{},
	}
	m.put(OpenvSwitch, vswitchdb.OpenvSwitchTable, rootUUID, &vswitchdb.OpenvSwitch{
		UUID: rootUUID, IfaceTypes: []string{"geneve", "vxlan"},
		ExternalIDs: map[string]string{"system-id": "hv1", "hostname": "host1", "ovn-encap-type": "geneve", "ovn-encap-ip": "10.0.0.1"},
	})
	m.insert(Southbound, sbdb.SBGlobalTable, "global", &sbdb.SBGlobal{})
	return m
}

func (m *model) uuid(name string) string {
	m.serial++
	u := fmt.Sprintf("%08x-0000-4000-8000-%012x", m.serial*0x9e3779b1&0xffffffff, m.serial)
	m.names[u] = name
	return u
}

func (m *model) table(db DB, table string) map[string]any {
	if m.rows[db][table] == nil {
		m.rows[db][table] = map[string]any{}
	}
	return m.rows[db][table]
}

func (m *model) put(db DB, table, uuid string, row any) { m.table(db, table)[uuid] = row }

func (m *model) insert(db DB, table, name string, row any) string {
	u := m.uuid(name)
	reflect.ValueOf(row).Elem().FieldByName("UUID").SetString(u)
	m.put(db, table, u, row)
	return u
}

// find returns the UUID of the row whose column has a value, and a copy of the row to change and put back.
func find[T any](m *model, db DB, table, column, value string) (uuid string, row *T) {
	for u, r := range m.table(db, table) {
		if f := field(r, column); f.Kind() == reflect.String && f.String() == value {
			c := *r.(*T)
			return u, &c
		}
	}
	return "", nil
}

// field returns the field of a generated row that holds a column.
func field(row any, column string) reflect.Value {
	v := reflect.ValueOf(row).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("ovsdb") == column {
			return v.Field(i)
		}
	}
	panic("no column " + column + " in " + v.Type().Name())
}

// writable are the columns that the role ovn-controller may update (ovn-northd, rbac_*_update).
var writable = map[string][]string{
	sbdb.ChassisTable:        {"nb_cfg", "external_ids", "encaps", "vtep_logical_switches", "other_config", "transport_zones"},
	sbdb.ChassisPrivateTable: {"nb_cfg", "nb_cfg_timestamp", "chassis", "external_ids"},
	sbdb.EncapTable:          {"type", "options", "ip"},
	sbdb.PortBindingTable:    {"chassis", "additional_chassis", "encap", "additional_encap", "up", "virtual_parent", "options"},
}

var insertable = []string{sbdb.ChassisTable, sbdb.ChassisPrivateTable, sbdb.EncapTable}

// permit says why the role may not do op, or nothing.
func (m *model) permit(op Op, chassis string) string {
	if op.DB != Southbound {
		return ""
	}
	if op.Kind == Insert || op.Kind == Delete {
		if !slices.Contains(insertable, op.Table) {
			return "may not insert or delete"
		}
	}
	if row := m.table(Southbound, op.Table)[op.UUID]; row != nil && op.Table != sbdb.PortBindingTable {
		column := "name"
		if op.Table == sbdb.EncapTable {
			column = "chassis_name"
		}
		if field(row, column).String() != chassis {
			return "not the row of this chassis"
		}
	}
	if op.Kind == Update || op.Kind == Mutate {
		for _, cols := range []map[string]any{op.Set, op.Add, op.Remove} {
			for col := range cols {
				if !slices.Contains(writable[op.Table], col) {
					return "may not change column " + col
				}
			}
		}
	}
	return ""
}

// transact does ops and then what the schemas and ovs-vswitchd ask for. It returns what is wrong with them.
func (m *model) transact(ops []Op, chassis string) error {
	if len(ops) == 0 {
		return nil
	}
	named := map[string]string{}
	for _, op := range ops {
		if op.Kind == Insert && op.Name != "" {
			if named[op.Name] != "" {
				return fmt.Errorf("%s: duplicate named-uuid", op)
			}
			name, _ := op.Set["name"].(string)
			if op.Table == sbdb.EncapTable {
				name = fmt.Sprint(op.Set["chassis_name"], "@", op.Set["ip"], "/", op.Set["type"])
			}
			if name == "" {
				name = op.Table
			}
			named[op.Name] = m.uuid(strings.ToLower(op.Table) + ":" + name)
		}
	}
	for _, op := range ops {
		if why := m.permit(op, chassis); why != "" {
			return fmt.Errorf("%s: permission error: %s", op, why)
		}
		if err := m.do(op, named); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	m.collect()
	if err := m.unique(); err != nil {
		return fmt.Errorf("%v: %w", ops, err)
	}
	m.vswitchd()
	return nil
}

func (m *model) do(op Op, named map[string]string) error {
	rows := m.table(op.DB, op.Table)
	var row reflect.Value
	switch op.Kind {
	case Insert:
		row = reflect.New(rowType(op.Table))
		uuid := named[op.Name]
		row.Elem().FieldByName("UUID").SetString(uuid)
		rows[uuid] = row.Interface()
	case Update, Mutate, Delete:
		old := rows[op.UUID]
		if old == nil {
			return nil // as in OVSDB, no row matches
		}
		for col, want := range op.Where {
			if fmt.Sprint(plain(field(old, col))) != fmt.Sprint(resolve(want, named)) {
				return nil
			}
		}
		if op.Kind == Delete {
			delete(rows, op.UUID)
			return nil
		}
		row = reflect.New(reflect.TypeOf(old).Elem())
		row.Elem().Set(reflect.ValueOf(old).Elem())
		rows[op.UUID] = row.Interface()
	}
	for col, v := range op.Set {
		assign(field(row.Interface(), col), resolve(v, named))
	}
	for col, v := range op.Remove {
		f := field(row.Interface(), col)
		list := resolve(v, named).([]string)
		if f.Kind() == reflect.Map {
			c := maps.Clone(f.Interface().(map[string]string))
			for _, k := range list {
				delete(c, k)
			}
			f.Set(reflect.ValueOf(c))
		} else {
			f.Set(reflect.ValueOf(slices.DeleteFunc(slices.Clone(f.Interface().([]string)), func(s string) bool {
				return slices.Contains(list, s)
			})))
		}
	}
	for col, v := range op.Add {
		f := field(row.Interface(), col)
		switch v := resolve(v, named).(type) {
		case map[string]string:
			c := maps.Clone(f.Interface().(map[string]string))
			if c == nil {
				c = map[string]string{}
			}
			for k, x := range v {
				if _, ok := c[k]; !ok {
					c[k] = x
				}
			}
			f.Set(reflect.ValueOf(c))
		case []string:
			c := slices.Clone(f.Interface().([]string))
			for _, x := range v {
				if !slices.Contains(c, x) {
					c = append(c, x)
				}
			}
			f.Set(reflect.ValueOf(c))
		default:
			return fmt.Errorf("cannot add %T", v)
		}
	}
	return nil
}

func rowType(table string) reflect.Type {
	switch table {
	case sbdb.ChassisTable:
		return reflect.TypeFor[sbdb.Chassis]()
	case sbdb.ChassisPrivateTable:
		return reflect.TypeFor[sbdb.ChassisPrivate]()
	case sbdb.EncapTable:
		return reflect.TypeFor[sbdb.Encap]()
	case vswitchdb.BridgeTable:
		return reflect.TypeFor[vswitchdb.Bridge]()
	case vswitchdb.PortTable:
		return reflect.TypeFor[vswitchdb.Port]()
	case vswitchdb.InterfaceTable:
		return reflect.TypeFor[vswitchdb.Interface]()
	case vswitchdb.DatapathTable:
		return reflect.TypeFor[vswitchdb.Datapath]()
	}
	panic("nobody inserts into " + table)
}

// resolve turns references of an op into UUIDs.
func resolve(v any, named map[string]string) any {
	one := func(r Ref) string {
		if r.Name != "" {
			if named[r.Name] == "" {
				panic("unknown named-uuid " + r.Name)
			}
			return named[r.Name]
		}
		return r.UUID
	}
	switch v := v.(type) {
	case Ref:
		return one(v)
	case []Ref:
		out := []string{}
		for _, r := range v {
			out = append(out, one(r))
		}
		return out
	case map[string]Ref:
		out := map[string]string{}
		for k, r := range v {
			out[k] = one(r)
		}
		return out
	}
	return v
}

func assign(f reflect.Value, v any) {
	switch {
	case v == nil:
		f.SetZero()
	case f.Kind() == reflect.Pointer:
		p := reflect.New(f.Type().Elem())
		p.Elem().Set(reflect.ValueOf(v).Convert(f.Type().Elem()))
		f.Set(p)
	default:
		f.Set(reflect.ValueOf(v).Convert(f.Type()))
	}
}

// plain returns a column's value without the pointer of an optional one; nil if that is empty.
func plain(f reflect.Value) any {
	if f.Kind() != reflect.Pointer {
		return f.Interface()
	}
	if f.IsNil() {
		return nil
	}
	return f.Elem().Interface()
}

// collect removes rows that nothing refers to, and weak references to rows that are gone.
func (m *model) collect() {
	live := map[string]bool{}
	mark := func(table string, uuids ...string) []any {
		var out []any
		for _, u := range uuids {
			if r := m.table(OpenvSwitch, table)[u]; r != nil && !live[u] {
				live[u] = true
				out = append(out, r)
			}
		}
		return out
	}
	for _, r := range m.table(OpenvSwitch, vswitchdb.OpenvSwitchTable) {
		root := r.(*vswitchdb.OpenvSwitch)
		mark(vswitchdb.DatapathTable, slices.Collect(maps.Values(root.Datapaths))...)
		for _, b := range mark(vswitchdb.BridgeTable, root.Bridges...) {
			for _, p := range mark(vswitchdb.PortTable, b.(*vswitchdb.Bridge).Ports...) {
				mark(vswitchdb.InterfaceTable, p.(*vswitchdb.Port).Interfaces...)
			}
		}
	}
	for _, table := range []string{vswitchdb.DatapathTable, vswitchdb.BridgeTable, vswitchdb.PortTable, vswitchdb.InterfaceTable} {
		maps.DeleteFunc(m.table(OpenvSwitch, table), func(u string, _ any) bool { return !live[u] })
	}
	for _, r := range m.table(Southbound, sbdb.ChassisTable) {
		for _, u := range r.(*sbdb.Chassis).Encaps {
			live[u] = true
		}
	}
	maps.DeleteFunc(m.table(Southbound, sbdb.EncapTable), func(u string, _ any) bool { return !live[u] })

	chassis, encaps := m.table(Southbound, sbdb.ChassisTable), m.table(Southbound, sbdb.EncapTable)
	for u, r := range m.table(Southbound, sbdb.PortBindingTable) {
		p := *r.(*sbdb.PortBinding)
		p.Chassis = weak(chassis, p.Chassis)
		p.RequestedChassis = weak(chassis, p.RequestedChassis)
		p.Encap = weak(encaps, p.Encap)
		p.AdditionalChassis = weakSet(chassis, p.AdditionalChassis)
		p.AdditionalEncap = weakSet(encaps, p.AdditionalEncap)
		m.put(Southbound, sbdb.PortBindingTable, u, &p)
	}
	for u, r := range m.table(Southbound, sbdb.ChassisPrivateTable) {
		p := *r.(*sbdb.ChassisPrivate)
		p.Chassis = weak(chassis, p.Chassis)
		m.put(Southbound, sbdb.ChassisPrivateTable, u, &p)
	}
}

func weak(rows map[string]any, ref *string) *string {
	if ref == nil || rows[*ref] == nil {
		return nil
	}
	return ref
}

func weakSet(rows map[string]any, refs []string) []string {
	return slices.DeleteFunc(slices.Clone(refs), func(u string) bool { return rows[u] == nil })
}

func (m *model) unique() error {
	for _, index := range []struct {
		db      DB
		table   string
		columns []string
	}{
		{Southbound, sbdb.ChassisTable, []string{"name"}},
		{Southbound, sbdb.ChassisPrivateTable, []string{"name"}},
		{Southbound, sbdb.EncapTable, []string{"type", "ip"}},
		{OpenvSwitch, vswitchdb.BridgeTable, []string{"name"}},
		{OpenvSwitch, vswitchdb.PortTable, []string{"name"}},
		{OpenvSwitch, vswitchdb.InterfaceTable, []string{"name"}},
	} {
		seen := map[string]bool{}
		for _, r := range m.table(index.db, index.table) {
			key := ""
			for _, c := range index.columns {
				key += field(r, c).String() + " "
			}
			if seen[key] {
				return fmt.Errorf("constraint violation: two rows in %s with %v %s", index.table, index.columns, key)
			}
			seen[key] = true
		}
	}
	for _, r := range m.table(Southbound, sbdb.ChassisTable) {
		if c := r.(*sbdb.Chassis); len(c.Encaps) == 0 {
			return fmt.Errorf("constraint violation: chassis %s without encaps", c.Name)
		}
	}
	return nil
}

// vswitchd gives interfaces their ports and datapaths their capabilities.
func (m *model) vswitchd() {
	for _, u := range slices.Sorted(maps.Keys(m.table(OpenvSwitch, vswitchdb.InterfaceTable))) {
		i := *m.table(OpenvSwitch, vswitchdb.InterfaceTable)[u].(*vswitchdb.Interface)
		if i.Ofport == nil {
			m.ofport++
			n := m.ofport
			i.Ofport = &n
			m.put(OpenvSwitch, vswitchdb.InterfaceTable, u, &i)
		}
	}
	for u, r := range m.table(OpenvSwitch, vswitchdb.DatapathTable) {
		dp := *r.(*vswitchdb.Datapath)
		dp.Capabilities = map[string]string{"ct_zero_snat": "true"}
		m.put(OpenvSwitch, vswitchdb.DatapathTable, u, &dp)
	}
}

// publish tells the snapshots what is in the databases, as far as the conditions let them see it.
func (m *model) publish() {
	now := map[string]any{}
	for table, rows := range m.rows[Southbound] {
		for u, r := range rows {
			if m.visible(table, r) {
				now[table+" "+u] = r
			}
		}
	}
	for table, rows := range m.rows[OpenvSwitch] {
		for u, r := range rows {
			now["ovs "+table+" "+u] = r
		}
	}
	var updates []sb.Update
	var changes []Change
	tell := func(key string, row any) {
		if rest, ok := strings.CutPrefix(key, "ovs "); ok {
			table, u, _ := strings.Cut(rest, " ")
			changes = append(changes, Change{Table: table, UUID: u, New: row})
			return
		}
		table, u, _ := strings.Cut(key, " ")
		updates = append(updates, sb.Update{Table: table, UUID: u, New: row})
	}
	for _, key := range slices.Sorted(maps.Keys(m.seen)) {
		if now[key] == nil {
			tell(key, nil)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if !reflect.DeepEqual(now[key], m.seen[key]) {
			tell(key, now[key])
		}
	}
	m.seen = now
	for _, r := range m.store.Apply(updates).Refused {
		m.refused = append(m.refused, r.Err.Error())
	}
	m.sw.Apply(changes)
}

func (m *model) visible(table string, row any) bool {
	if m.monitorAll {
		return true
	}
	clauses, ok := m.conditions[table]
	if !ok {
		return true
	}
	return slices.ContainsFunc(clauses, func(c Clause) bool {
		if c.Column == "" {
			return true
		}
		have := plain(field(row, c.Column))
		want := resolve(c.Value, nil)
		switch c.Function {
		case "==":
			return fmt.Sprint(have) == fmt.Sprint(want)
		case "!=":
			return fmt.Sprint(have) != fmt.Sprint(want)
		case "includes":
			switch have := have.(type) {
			case map[string]string:
				for k, v := range want.(map[string]string) {
					if have[k] != v {
						return false
					}
				}
				return true
			case []string:
				return !slices.ContainsFunc(want.([]string), func(s string) bool { return !slices.Contains(have, s) })
			}
		}
		panic("condition " + c.String())
	})
}

// command changes the databases as somebody else would. A first word it does not know is an error.
//
//	ovs KEY=VALUE... | ovs -KEY        Open_vSwitch external_ids
//	other-config KEY=VALUE...          Open_vSwitch other_config
//	bridge NAME | del-bridge NAME
//	iface NAME [bridge=B] [type=T] [port:KEY=VALUE...] [KEY=VALUE...]   a port and its interface, with external_ids;
//	                                       the bridge too if need be
//	del-iface NAME | ofport NAME N | unmark NAME
//	switch NAME [KEY=VALUE...] | router NAME [KEY=VALUE...] | del-datapath NAME
//	port NAME DATAPATH [type=T] [parent=P] [requested=CHASSIS] [KEY=VALUE...]   with options
//	del-port NAME | bind NAME CHASSIS | up NAME true|false|unset
//	chassis NAME TYPE:IP,... [zones=Z] | del-chassis NAME
//	ha GROUP CHASSIS=PRIORITY,... [refs=CHASSIS,...]   an HA group; "port ... ha=GROUP" belongs to it
//	bfd TUNNEL-PORT STATE
//	nb_cfg N
func (m *model) command(line string) error {
	w := strings.Fields(line)
	arg := func(i int) string {
		if i < len(w) {
			return w[i]
		}
		return ""
	}
	pairs := func(from int) map[string]string {
		out := map[string]string{}
		for _, p := range w[min(from, len(w)):] {
			k, v, _ := strings.Cut(p, "=")
			out[k] = v
		}
		return out
	}
	switch w[0] {
	case "ovs":
		root := *m.table(OpenvSwitch, vswitchdb.OpenvSwitchTable)[rootUUID].(*vswitchdb.OpenvSwitch)
		root.ExternalIDs = maps.Clone(root.ExternalIDs)
		for _, p := range w[1:] {
			if k, ok := strings.CutPrefix(p, "-"); ok {
				delete(root.ExternalIDs, k)
				continue
			}
			k, v, _ := strings.Cut(p, "=")
			root.ExternalIDs[k] = v
		}
		m.put(OpenvSwitch, vswitchdb.OpenvSwitchTable, rootUUID, &root)
	case "other-config":
		root := *m.table(OpenvSwitch, vswitchdb.OpenvSwitchTable)[rootUUID].(*vswitchdb.OpenvSwitch)
		root.OtherConfig = maps.Clone(root.OtherConfig)
		maps.Copy(root.OtherConfig, pairs(1))
		m.put(OpenvSwitch, vswitchdb.OpenvSwitchTable, rootUUID, &root)
	case "bridge":
		m.addBridge(arg(1))
	case "del-bridge":
		if u, _ := find[vswitchdb.Bridge](m, OpenvSwitch, vswitchdb.BridgeTable, "name", arg(1)); u != "" {
			root := *m.table(OpenvSwitch, vswitchdb.OpenvSwitchTable)[rootUUID].(*vswitchdb.OpenvSwitch)
			root.Bridges = slices.DeleteFunc(slices.Clone(root.Bridges), func(s string) bool { return s == u })
			m.put(OpenvSwitch, vswitchdb.OpenvSwitchTable, rootUUID, &root)
		}
	case "iface":
		ids := pairs(2)
		m.removeIface(arg(1))
		bridge := ids["bridge"]
		if bridge == "" {
			bridge = "br-int"
		}
		delete(ids, "bridge")
		m.addIface(arg(1), bridge, ids)
	case "del-iface":
		m.removeIface(arg(1))
	case "ofport", "unmark":
		u, i := find[vswitchdb.Interface](m, OpenvSwitch, vswitchdb.InterfaceTable, "name", arg(1))
		if u == "" {
			break
		}
		if w[0] == "unmark" {
			i.ExternalIDs = maps.Clone(i.ExternalIDs)
			delete(i.ExternalIDs, "ovn-installed")
		} else {
			n, _ := strconv.Atoi(arg(2))
			i.Ofport = &n
		}
		m.put(OpenvSwitch, vswitchdb.InterfaceTable, u, i)
	case "switch", "router":
		ids := pairs(2)
		ids["name"] = arg(1)
		ids["logical-"+w[0]] = m.uuid("nb")
		u, dp := m.datapath(arg(1))
		if u == "" {
			m.serial++
			dp = &sbdb.DatapathBinding{TunnelKey: m.serial}
			u = m.insert(Southbound, sbdb.DatapathBindingTable, arg(1), dp)
		}
		dp.ExternalIDs = ids
		m.put(Southbound, sbdb.DatapathBindingTable, u, dp)
	case "del-datapath":
		if u, _ := m.datapath(arg(1)); u != "" {
			maps.DeleteFunc(m.table(Southbound, sbdb.PortBindingTable), func(_ string, r any) bool {
				return r.(*sbdb.PortBinding).Datapath == u
			})
			delete(m.table(Southbound, sbdb.DatapathBindingTable), u)
		}
	case "port":
		dp, _ := m.datapath(arg(2))
		if dp == "" {
			break
		}
		u, p := find[sbdb.PortBinding](m, Southbound, sbdb.PortBindingTable, "logical_port", arg(1))
		if u == "" {
			u, p = m.addPort(arg(1), dp)
		}
		options := pairs(3)
		p.Datapath, p.Type = dp, options["type"]
		p.ParentPort, p.RequestedChassis = nil, nil
		if v := options["parent"]; v != "" {
			p.ParentPort = &v
		}
		if v := options["requested"]; v != "" {
			options["requested-chassis"] = v
			first, _, _ := strings.Cut(v, ",")
			if c, _ := find[sbdb.Chassis](m, Southbound, sbdb.ChassisTable, "name", first); c != "" {
				p.RequestedChassis = &c
			}
		}
		p.HaChassisGroup = nil
		if v := options["ha"]; v != "" {
			g, _ := find[sbdb.HAChassisGroup](m, Southbound, sbdb.HAChassisGroupTable, "name", v)
			p.HaChassisGroup = &g
		}
		for _, k := range []string{"type", "parent", "requested", "ha"} {
			delete(options, k)
		}
		p.Options = options
		m.put(Southbound, sbdb.PortBindingTable, u, p)
	case "del-port":
		u, _ := find[sbdb.PortBinding](m, Southbound, sbdb.PortBindingTable, "logical_port", arg(1))
		delete(m.table(Southbound, sbdb.PortBindingTable), u)
	case "bind", "up":
		u, p := find[sbdb.PortBinding](m, Southbound, sbdb.PortBindingTable, "logical_port", arg(1))
		if u == "" {
			break
		}
		if w[0] == "up" {
			p.Up = nil
			if v := arg(2) == "true"; arg(2) != "unset" {
				p.Up = &v
			}
		} else {
			c, _ := find[sbdb.Chassis](m, Southbound, sbdb.ChassisTable, "name", arg(2))
			if c == "" {
				break
			}
			p.Chassis, p.Encap = &c, nil
		}
		m.put(Southbound, sbdb.PortBindingTable, u, p)
	case "chassis":
		u, c := find[sbdb.Chassis](m, Southbound, sbdb.ChassisTable, "name", arg(1))
		if u == "" {
			c = &sbdb.Chassis{Name: arg(1), Hostname: "host-" + arg(1)}
			u = m.insert(Southbound, sbdb.ChassisTable, arg(1), c)
		}
		c.Encaps = nil
		for e := range strings.SplitSeq(arg(2), ",") {
			kind, ip, _ := strings.Cut(e, ":")
			c.Encaps = append(c.Encaps, m.addEncap(arg(1), kind, ip))
		}
		c.TransportZones = nil
		if z := pairs(3)["zones"]; z != "" {
			c.TransportZones = strings.Split(z, ",")
		}
		m.put(Southbound, sbdb.ChassisTable, u, c)
	case "del-chassis":
		u, _ := find[sbdb.Chassis](m, Southbound, sbdb.ChassisTable, "name", arg(1))
		delete(m.table(Southbound, sbdb.ChassisTable), u)
	case "ha":
		g := &sbdb.HAChassisGroup{Name: arg(1)}
		chassis := func(name string) string {
			u, _ := find[sbdb.Chassis](m, Southbound, sbdb.ChassisTable, "name", name)
			return u
		}
		for member := range strings.SplitSeq(arg(2), ",") {
			name, priority, _ := strings.Cut(member, "=")
			c := chassis(name)
			n, _ := strconv.Atoi(priority)
			g.HaChassis = append(g.HaChassis, m.insert(Southbound, sbdb.HAChassisTable, member, &sbdb.HAChassis{Chassis: &c, Priority: n}))
		}
		if refs := pairs(3)["refs"]; refs != "" {
			for name := range strings.SplitSeq(refs, ",") {
				g.RefChassis = append(g.RefChassis, chassis(name))
			}
		}
		m.insert(Southbound, sbdb.HAChassisGroupTable, arg(1), g)
	case "bfd":
		u, i := find[vswitchdb.Interface](m, OpenvSwitch, vswitchdb.InterfaceTable, "name", arg(1))
		if u == "" {
			return fmt.Errorf("no interface %s", arg(1))
		}
		i.BFDStatus = map[string]string{"state": arg(2)}
		m.put(OpenvSwitch, vswitchdb.InterfaceTable, u, i)
	case "nb_cfg":
		for u, r := range m.table(Southbound, sbdb.SBGlobalTable) {
			g := *r.(*sbdb.SBGlobal)
			g.NbCfg, _ = strconv.Atoi(arg(1))
			m.put(Southbound, sbdb.SBGlobalTable, u, &g)
		}
	default:
		return fmt.Errorf("unknown command %q", line)
	}
	m.collect()
	m.vswitchd()
	return m.unique()
}

func (m *model) addEncap(chassis, kind, ip string) string {
	return m.insert(Southbound, sbdb.EncapTable, chassis+"@"+kind+":"+ip, &sbdb.Encap{
		Type: kind, IP: ip, ChassisName: chassis, Options: map[string]string{"csum": "true"},
	})
}

func (m *model) addChassis(name, kind, ip string) {
	m.insert(Southbound, sbdb.ChassisTable, name, &sbdb.Chassis{Name: name, Encaps: []string{m.addEncap(name, kind, ip)}})
}

func (m *model) addPort(name, dp string) (string, *sbdb.PortBinding) {
	down := false
	m.serial++
	p := &sbdb.PortBinding{LogicalPort: name, Datapath: dp, TunnelKey: 1 + m.serial%sb.MaxPortKey, Up: &down}
	return m.insert(Southbound, sbdb.PortBindingTable, name, p), p
}

func (m *model) datapath(name string) (string, *sbdb.DatapathBinding) {
	for u, r := range m.table(Southbound, sbdb.DatapathBindingTable) {
		if dp := *r.(*sbdb.DatapathBinding); dp.ExternalIDs["name"] == name {
			return u, &dp
		}
	}
	return "", nil
}

func (m *model) addBridge(name string) {
	if u, _ := find[vswitchdb.Bridge](m, OpenvSwitch, vswitchdb.BridgeTable, "name", name); u != "" {
		return
	}
	root := *m.table(OpenvSwitch, vswitchdb.OpenvSwitchTable)[rootUUID].(*vswitchdb.OpenvSwitch)
	b := m.insert(OpenvSwitch, vswitchdb.BridgeTable, name, &vswitchdb.Bridge{Name: name})
	root.Bridges = append(slices.Clone(root.Bridges), b)
	m.put(OpenvSwitch, vswitchdb.OpenvSwitchTable, rootUUID, &root)
}

func (m *model) addIface(name, bridge string, ids map[string]string) {
	m.addBridge(bridge)
	u, b := find[vswitchdb.Bridge](m, OpenvSwitch, vswitchdb.BridgeTable, "name", bridge)
	kind := ids["type"]
	delete(ids, "type")
	portIDs := map[string]string{}
	for k, v := range ids {
		if key, ok := strings.CutPrefix(k, "port:"); ok {
			portIDs[key] = v
			delete(ids, k)
		}
	}
	i := m.insert(OpenvSwitch, vswitchdb.InterfaceTable, name, &vswitchdb.Interface{Name: name, Type: kind, ExternalIDs: ids})
	p := m.insert(OpenvSwitch, vswitchdb.PortTable, name, &vswitchdb.Port{Name: name, Interfaces: []string{i}, ExternalIDs: portIDs})
	b.Ports = append(slices.Clone(b.Ports), p)
	m.put(OpenvSwitch, vswitchdb.BridgeTable, u, b)
}

func (m *model) removeIface(name string) {
	p, _ := find[vswitchdb.Port](m, OpenvSwitch, vswitchdb.PortTable, "name", name)
	for u, r := range m.table(OpenvSwitch, vswitchdb.BridgeTable) {
		b := *r.(*vswitchdb.Bridge)
		b.Ports = slices.DeleteFunc(slices.Clone(b.Ports), func(s string) bool { return s == p })
		m.put(OpenvSwitch, vswitchdb.BridgeTable, u, &b)
	}
	m.collect()
}

// text replaces UUIDs by what people call the rows.
func (m *model) text(s string) string {
	for u, name := range m.names {
		s = strings.ReplaceAll(s, u, name)
	}
	return s
}
