package ovsdb

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
)

// everything has a column of every type that can be read.
type everything struct {
	UUID string             `ovsdb:"_uuid"`
	S    string             `ovsdb:"s"`
	I    int                `ovsdb:"i"`
	B    bool               `ovsdb:"b"`
	R    float64            `ovsdb:"r"`
	OS   *string            `ovsdb:"os"`
	OI   *int               `ovsdb:"oi"`
	OB   *bool              `ovsdb:"ob"`
	OR   *float64           `ovsdb:"or"`
	SS   []string           `ovsdb:"ss"`
	SI   []int              `ovsdb:"si"`
	SB   []bool             `ovsdb:"sb"`
	SR   []float64          `ovsdb:"sr"`
	MSS  map[string]string  `ovsdb:"mss"`
	MSI  map[string]int     `ovsdb:"msi"`
	MSB  map[string]bool    `ovsdb:"msb"`
	MSR  map[string]float64 `ovsdb:"msr"`
	MIS  map[int]string     `ovsdb:"mis"`
	MII  map[int]int        `ovsdb:"mii"`
	Note int                // not a column
}

func everythingPlan(t testing.TB) *tablePlan {
	t.Helper()
	plan, err := newTablePlan(Table{Name: "Everything", Row: everything{}})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// randomValue returns a value of a column's type, from so few that values,
// elements and keys often agree.
func randomValue(rnd *rand.Rand, t reflect.Type) reflect.Value {
	switch t.Kind() { //nolint:exhaustive // the kinds of columns
	case reflect.String:
		return reflect.ValueOf(string(rune('a' + rnd.IntN(4))))
	case reflect.Int:
		return reflect.ValueOf(rnd.IntN(4) - 1)
	case reflect.Bool:
		return reflect.ValueOf(rnd.IntN(2) == 0)
	case reflect.Float64:
		return reflect.ValueOf(float64(rnd.IntN(4)) / 2)
	case reflect.Pointer:
		p := reflect.New(t.Elem())
		p.Elem().Set(randomValue(rnd, t.Elem()))
		if rnd.IntN(2) == 0 {
			p = reflect.Zero(t)
		}
		return p
	case reflect.Slice:
		// Ascending, without duplicates, nil if empty: as a map's keys.
		set := reflect.MakeMap(reflect.MapOf(t.Elem(), reflect.TypeFor[bool]()))
		for range rnd.IntN(4) {
			set.SetMapIndex(randomValue(rnd, t.Elem()), reflect.ValueOf(true))
		}
		s := reflect.Zero(t)
		for _, k := range sortedKeys(set) {
			s = reflect.Append(s, k)
		}
		return s
	case reflect.Map:
		m := reflect.MakeMap(t)
		for range rnd.IntN(4) {
			m.SetMapIndex(randomValue(rnd, t.Key()), randomValue(rnd, t.Elem()))
		}
		if m.Len() == 0 {
			m = reflect.Zero(t)
		}
		return m
	default:
		panic(t)
	}
}

func sortedKeys(m reflect.Value) []reflect.Value {
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int {
		switch {
		case a.CanInt():
			return int(a.Int() - b.Int())
		case a.CanFloat():
			return int(a.Float()*2 - b.Float()*2)
		case a.Kind() == reflect.Bool:
			return compareBool(a.Bool(), b.Bool())
		default:
			return strings.Compare(a.String(), b.String())
		}
	})
	return keys
}

func randomRow(rnd *rand.Rand, uuid string) *everything {
	row := &everything{UUID: uuid}
	v := reflect.ValueOf(row).Elem()
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("ovsdb"); tag != "" && tag != "_uuid" {
			v.Field(i).Set(randomValue(rnd, v.Field(i).Type()))
		}
	}
	return row
}

// wire returns a value in the notation of RFC 7047, section 5.1, with the
// elements in random order. A set of one may be a bare atom.
func wire(rnd *rand.Rand, v reflect.Value) any {
	switch v.Kind() { //nolint:exhaustive // the kinds of columns
	case reflect.Pointer:
		if v.IsNil() {
			return []any{"set", []any{}}
		}
		return v.Elem().Interface()
	case reflect.Slice:
		if v.Len() == 1 && rnd.IntN(2) == 0 {
			return v.Index(0).Interface()
		}
		elements := make([]any, v.Len())
		for i, j := range rnd.Perm(v.Len()) {
			elements[j] = v.Index(i).Interface()
		}
		return []any{"set", elements}
	case reflect.Map:
		pairs := make([]any, 0, v.Len())
		for k, e := range v.Seq2() {
			pairs = append(pairs, []any{k.Interface(), e.Interface()})
		}
		return []any{"map", pairs}
	default:
		return v.Interface()
	}
}

// wireRow is the <row> of an insert, which may leave out what is zero.
func wireRow(rnd *rand.Rand, row *everything) map[string]any {
	columns := make(map[string]any)
	v := reflect.ValueOf(row).Elem()
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("ovsdb")
		if tag == "" || tag == "_uuid" || v.Field(i).IsZero() && rnd.IntN(2) == 0 {
			continue
		}
		columns[tag] = wire(rnd, v.Field(i))
	}
	return columns
}

// wireDifference is the <row> of a modify, by the words of ovsdb-server(7),
// section 4.1.14.
func wireDifference(rnd *rand.Rand, old, row *everything) map[string]any {
	columns := make(map[string]any)
	v, w := reflect.ValueOf(old).Elem(), reflect.ValueOf(row).Elem()
	for i := range v.NumField() {
		tag, a, b := v.Type().Field(i).Tag.Get("ovsdb"), v.Field(i), w.Field(i)
		if tag == "" || tag == "_uuid" || reflect.DeepEqual(a.Interface(), b.Interface()) {
			continue
		}
		switch a.Kind() { //nolint:exhaustive // the kinds of columns
		case reflect.Slice:
			var only []any
			for _, pair := range [][2]reflect.Value{{a, b}, {b, a}} {
				for j := range pair[0].Len() {
					e := pair[0].Index(j).Interface()
					if !contains(pair[1], e) {
						only = append(only, e)
					}
				}
			}
			columns[tag] = wire(rnd, reflect.ValueOf(only))
		case reflect.Map:
			differences := reflect.MakeMap(a.Type())
			for k, e := range a.Seq2() {
				if !b.MapIndex(k).IsValid() {
					differences.SetMapIndex(k, e)
				}
			}
			for k, e := range b.Seq2() {
				if was := a.MapIndex(k); !was.IsValid() || !was.Equal(e) {
					differences.SetMapIndex(k, e)
				}
			}
			columns[tag] = wire(rnd, differences)
		default:
			columns[tag] = wire(rnd, b)
		}
	}
	return columns
}

func contains(s reflect.Value, e any) bool {
	for i := range s.Len() {
		if s.Index(i).Interface() == e {
			return true
		}
	}
	return false
}

func testDecoder(t testing.TB, plans ...*tablePlan) *decoder {
	t.Helper()
	r := &replica{database: "DB", plans: plans, server: everythingPlan(t)}
	return &decoder{interner: &interner{}, replies: r.replies(), monitors: r.monitors()}
}

// decode reads one message.
func (d *decoder) decode(text string) (*message, error) {
	d.scanner = newScanner(strings.NewReader(text))
	return d.message()
}

func testUUID(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }

// TestContentsFollowsTable lets a random history of one table arrive as update3
// notifications, interrupted by complete contents, and compares all along:
// what the changes add up to, what the contents are, and what was sent.
func TestContentsFollowsTable(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		plan := everythingPlan(t)
		d := testDecoder(t, plan)
		got := make(contents)
		seen := make(map[string]*everything)   // by the changes
		server := make(map[string]*everything) // as sent
		for step := range 30 {
			complete := step%10 == 0
			rows := make(map[string]any)
			next := maps.Clone(server)
			for range rnd.IntN(6) {
				uuid := testUUID(rnd.IntN(8))
				if _, ok := rows[uuid]; ok {
					continue
				}
				old := server[uuid]
				row := randomRow(rnd, uuid)
				switch {
				case old == nil:
					rows[uuid] = map[string]any{"insert": wireRow(rnd, row)}
					next[uuid] = row
				case rnd.IntN(3) == 0:
					rows[uuid] = map[string]any{"delete": nil}
					delete(next, uuid)
				default:
					rows[uuid] = map[string]any{"modify": wireDifference(rnd, old, row)}
					next[uuid] = row
				}
			}
			if complete {
				clear(rows)
				for uuid, row := range next {
					rows[uuid] = map[string]any{"initial": wireRow(rnd, row)}
				}
			}
			text, err := json.Marshal(map[string]any{
				"method": "update3", "id": nil,
				"params": []any{"DB", testUUID(step), map[string]any{"Everything": rows}},
			})
			if err != nil {
				t.Fatal(err)
			}
			m, err := d.decode(string(text))
			if err != nil {
				t.Fatalf("seed %d step %d: decode %s: %v", seed, step, text, err)
			}
			take := got.apply
			if complete {
				take = got.replace
			}
			changes, err := take(m.update)
			if err != nil {
				t.Fatalf("seed %d step %d: %s: %v", seed, step, text, err)
			}
			for _, c := range changes {
				old, _ := c.Old.(*everything)
				row, _ := c.New.(*everything)
				if !reflect.DeepEqual(seen[c.UUID], old) {
					t.Fatalf("seed %d step %d: row %s: Old is not what was seen (-seen +Old):\n%s", seed, step, c.UUID, cmp.Diff(seen[c.UUID], old))
				}
				if complete && reflect.DeepEqual(old, row) {
					t.Fatalf("seed %d step %d: row %s: a change that changes nothing", seed, step, c.UUID)
				}
				if seen[c.UUID] = row; row == nil {
					delete(seen, c.UUID)
				}
			}
			server = next
			if !reflect.DeepEqual(server, seen) {
				t.Fatalf("seed %d step %d: changes (-sent +seen):\n%s\n%s", seed, step, cmp.Diff(server, seen), text)
			}
			rowsNow := make(map[string]*everything)
			for uuid, row := range got[plan] {
				rowsNow[uuid.String()] = row.(*everything)
			}
			if !reflect.DeepEqual(server, rowsNow) {
				t.Fatalf("seed %d step %d: contents (-sent +kept):\n%s", seed, step, cmp.Diff(server, rowsNow))
			}
		}
	}
}

// TestContentsRowsDoNotChange keeps a published row and looks at it after it
// was modified in every column.
func TestContentsRowsDoNotChange(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		plan := everythingPlan(t)
		d := testDecoder(t, plan)
		got := make(contents)
		row := randomRow(rnd, testUUID(1))
		var published []any
		var copies []*everything
		for step := range 5 {
			kind, columns := "insert", wireRow(rnd, row)
			if step > 0 {
				next := randomRow(rnd, row.UUID)
				kind, columns = "modify", wireDifference(rnd, row, next)
				row = next
			}
			text, err := json.Marshal(map[string]any{"method": "update2", "id": nil, "params": []any{
				"DB", map[string]any{"Everything": map[string]any{row.UUID: map[string]any{kind: columns}}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			m, err := d.decode(string(text))
			if err != nil {
				t.Fatal(err)
			}
			changes, err := got.apply(m.update)
			if err != nil {
				t.Fatal(err)
			}
			published = append(published, changes[0].New)
			copies = append(copies, row)
		}
		for i := range published {
			if diff := cmp.Diff(copies[i], published[i]); diff != "" {
				t.Fatalf("seed %d: row published at step %d has changed:\n%s", seed, i, diff)
			}
		}
	}
}

func TestContentsRefuses(t *testing.T) {
	there, other := testUUID(1), testUUID(2)
	tests := []struct{ rows, want string }{
		{`"` + there + `":{"insert":{}}`, "inserted, but it is there"},
		{`"` + other + `":{"modify":{}}`, "changed, but it is not there"},
		{`"` + other + `":{"delete":null}`, "changed, but it is not there"},
		{`"` + other + `":{"insert":{}},"` + other + `":{"insert":{}}`, "changed twice"},
		{`"` + other + `":{"insert":{}},"` + other + `":{"delete":null}`, "changed twice"},
		{`"` + there + `":{"delete":null},"` + there + `":{"delete":null}`, "changed twice"},
		{`"` + there + `":{"modify":{"i":1}},"` + other + `":{"delete":null}`, "changed, but it is not there"},
	}
	for _, test := range tests {
		plan := everythingPlan(t)
		d := testDecoder(t, plan)
		got := make(contents)
		row := &everything{UUID: there, I: 7}
		got.put(plan, UUID{0, 0, 0, 1, 0, 0, 0x40, 0, 0x80}, row)
		m, err := d.decode(`{"id":null,"method":"update2","params":["DB",{"Everything":{` + test.rows + `}}]}`)
		if err != nil {
			t.Fatalf("%s: %v", test.rows, err)
		}
		if _, err = got.apply(m.update); err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "Everything") {
			t.Errorf("apply(%s) = %v, want %s", test.rows, err, test.want)
		}
		if len(got[plan]) != 1 || got[plan][UUID{0, 0, 0, 1, 0, 0, 0x40, 0, 0x80}] != any(row) || row.I != 7 {
			t.Errorf("apply(%s) failed and changed the contents", test.rows)
		}
		if _, err = got.replace(m.update); err == nil && test.want != "inserted, but it is there" {
			t.Errorf("replace(%s) = nil, want an error", test.rows)
		}
	}
}

// TestGeneratedRowsFitSchemas has every column of the generated rows fit the schema
// they were generated from: the two ways to read a type agree.
func TestGeneratedRowsFitSchemas(t *testing.T) {
	for path, rows := range map[string][]any{
		"/usr/share/ovn/ovn-sb.ovsschema": {
			sbdb.AddressSet{},
			sbdb.BFD{},
			sbdb.Chassis{},
			sbdb.ChassisPrivate{},
			sbdb.ChassisTemplateVar{},
			sbdb.Connection{},
			sbdb.ControllerEvent{},
			sbdb.DatapathBinding{},
			sbdb.DHCPOptions{},
			sbdb.DHCPv6Options{},
			sbdb.DNS{},
			sbdb.Encap{},
			sbdb.FDB{},
			sbdb.GatewayChassis{},
			sbdb.HAChassis{},
			sbdb.HAChassisGroup{},
			sbdb.IGMPGroup{},
			sbdb.IPMulticast{},
			sbdb.LoadBalancer{},
			sbdb.LogicalDPGroup{},
			sbdb.LogicalFlow{},
			sbdb.MACBinding{},
			sbdb.Meter{},
			sbdb.MeterBand{},
			sbdb.Mirror{},
			sbdb.MulticastGroup{},
			sbdb.PortBinding{},
			sbdb.PortGroup{},
			sbdb.RBACPermission{},
			sbdb.RBACRole{},
			sbdb.SBGlobal{},
			sbdb.ServiceMonitor{},
			sbdb.SSL{},
			sbdb.StaticMACBinding{},
		},
		"/usr/share/openvswitch/vswitch.ovsschema": {
			vswitchdb.AutoAttach{},
			vswitchdb.Bridge{},
			vswitchdb.Controller{},
			vswitchdb.CTTimeoutPolicy{},
			vswitchdb.CTZone{},
			vswitchdb.Datapath{},
			vswitchdb.FlowSampleCollectorSet{},
			vswitchdb.FlowTable{},
			vswitchdb.Interface{},
			vswitchdb.IPFIX{},
			vswitchdb.Manager{},
			vswitchdb.Mirror{},
			vswitchdb.NetFlow{},
			vswitchdb.OpenvSwitch{},
			vswitchdb.Port{},
			vswitchdb.QoS{},
			vswitchdb.Queue{},
			vswitchdb.SFlow{},
			vswitchdb.SSL{},
		},
	} {
		schema, version, err := parseSchema(readFile(t, path))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(version, ".") != 2 {
			t.Errorf("%s has the version %q", path, version)
		}
		for name, columns := range schema {
			row := rowNamed(t, rows, name)
			plan, err := newTablePlan(Table{Name: name, Row: row})
			if err != nil {
				t.Error(err)
				continue
			}
			if len(plan.columns) != len(columns) {
				t.Errorf("%s has %d columns, the schema %d", name, len(plan.columns), len(columns))
			}
			for _, c := range plan.columns {
				if !c.fits(columns[c.name]) {
					t.Errorf("%s: column %s of type %+v does not fit %+v", name, c.name, c.typ, columns[c.name])
				}
			}
		}
		if len(schema) != len(rows) {
			t.Errorf("%s has %d tables, want %d", path, len(schema), len(rows))
		}
	}
}

// rowNamed finds the struct of a table: its name is the table's without
// underscores.
func rowNamed(t *testing.T, rows []any, table string) any {
	t.Helper()
	for _, row := range rows {
		if strings.EqualFold(reflect.TypeOf(row).Name(), strings.ReplaceAll(table, "_", "")) {
			return row
		}
	}
	t.Fatalf("no struct for table %s", table)
	return nil
}

func TestColumnFits(t *testing.T) {
	str, optional, set := scalar(stringAtom), optional(stringAtom), set(stringAtom)
	m := mapping(stringAtom, integerAtom)
	tests := []struct {
		column *column
		schema string
		want   bool
	}{
		{&str, `"string"`, true},
		{&str, `"uuid"`, true},
		{&str, `"integer"`, false},
		{&str, `{"key":"string","min":0,"max":1}`, true}, // the column has become optional
		{&str, `{"key":"string","min":0,"max":"unlimited"}`, false},
		{&optional, `{"key":{"type":"uuid","refTable":"X"},"min":0,"max":1}`, true},
		{&optional, `{"key":{"type":"string","enum":["set",["a","b"]]}}`, true}, // or obligatory
		{&set, `{"key":"string","min":0,"max":"unlimited"}`, true},
		{&set, `{"key":"string","min":1,"max":2}`, true},
		{&set, `{"key":"string","min":0,"max":1}`, false}, // differences mean something else
		{&m, `{"key":"string","value":"integer","min":0,"max":"unlimited"}`, true},
		{&m, `{"key":"string","value":"string","min":0,"max":"unlimited"}`, false},
		{&m, `{"key":"string","min":0,"max":"unlimited"}`, false},
	}
	for _, test := range tests {
		var typ columnType
		if err := json.Unmarshal([]byte(test.schema), &typ); err != nil {
			t.Fatal(err)
		}
		if got := test.column.fits(typ); got != test.want {
			t.Errorf("%+v fits %s = %v, want %v", test.column.typ, test.schema, got, test.want)
		}
	}
}

func TestParseSchemaRefuses(t *testing.T) {
	for _, text := range []string{
		``, `null`, `{}`, `[]`, `{"tables":{}}`, `{"tables":[]}`, `{"tables":{"T":{"columns":{"c":{"type":[]}}}}}`,
		`{"tables":{"T":{"columns":{"c":{"type":{"key":1}}}}}}`, `{"tables":{"T":{"columns":{"c":{"type":{"key":{"type":2}}}}}}}`,
	} {
		if s, _, err := parseSchema([]byte(text)); err == nil {
			t.Errorf("parseSchema(%s) = %v, want an error", text, s)
		}
	}
}

func TestNewTablePlanRefuses(t *testing.T) {
	type noUUID struct {
		A string `ovsdb:"a"`
	}
	type odd struct {
		UUID string   `ovsdb:"_uuid"`
		A    []uint32 `ovsdb:"a"`
	}
	tests := []struct {
		table Table
		want  string
	}{
		{Table{Name: "T"}, "ovsdb table T: Row is <nil>, want a struct"},
		{Table{Name: "T", Row: &everything{}}, "ovsdb table T: Row is *ovsdb.everything, want a struct"},
		{Table{Name: "T", Row: noUUID{}}, "ovsdb table T: ovsdb.noUUID has no string field tagged _uuid"},
		{Table{Name: "T", Row: odd{}}, "ovsdb table T: column a: no way to read into []uint32"},
		{Table{Name: "T", Row: everything{}, Columns: []string{"s", "z"}}, "ovsdb table T: ovsdb.everything has no column z"},
	}
	for _, test := range tests {
		if _, err := newTablePlan(test.table); err == nil || err.Error() != test.want {
			t.Errorf("newTablePlan = %v, want %s", err, test.want)
		}
	}
}

// TestMerger compares updates taken now and then with the changes that went in.
func TestMerger(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		var m merger
		server, consumer := make(map[string]int), make(map[string]int)
		for step := range 40 {
			var changes []Change
			for _, n := range rnd.Perm(5)[:rnd.IntN(4)] {
				uuid := testUUID(n)
				c := Change{Table: "T", UUID: uuid}
				if old, ok := server[uuid]; ok {
					c.Old = old
				}
				if c.Old == nil || rnd.IntN(3) > 0 {
					c.New = step
					server[uuid] = step
				} else {
					delete(server, uuid)
				}
				changes = append(changes, c)
			}
			m.add(changes)
			m.status(Update{Connected: true, Synced: true, Conditions: uint64(step / 10)})
			if rnd.IntN(3) > 0 {
				continue
			}
			taken := m.next
			m.taken()
			rows := make(map[string]bool)
			for _, c := range taken.Changes {
				if rows[c.UUID] {
					t.Fatalf("seed %d step %d: two changes of row %s", seed, step, c.UUID)
				}
				rows[c.UUID] = true
				old, ok := consumer[c.UUID]
				if ok != (c.Old != nil) || ok && c.Old != old || c.Old == nil && c.New == nil {
					t.Fatalf("seed %d step %d: change %v of a row seen as %v, %v", seed, step, c, old, ok)
				}
				if delete(consumer, c.UUID); c.New != nil {
					consumer[c.UUID] = c.New.(int)
				}
			}
			if !maps.Equal(server, consumer) {
				t.Fatalf("seed %d step %d: consumer has %v, server %v", seed, step, consumer, server)
			}
		}
	}
}

func TestMergerIsDirtyOnlyWithNews(t *testing.T) {
	var m merger
	m.status(Update{})
	m.add(nil)
	if m.dirty {
		t.Error("dirty without news")
	}
	for _, u := range []Update{
		{Connected: true},
		{Connected: true, Synced: true},
		{Connected: true, Synced: true, Conditions: 1},
		{Connected: true, Synced: true, Conditions: 1, Transactions: 1},
		{Synced: true, Conditions: 1, Transactions: 1},
	} {
		m.status(u)
		if !m.dirty || !cmp.Equal(m.next, u) {
			t.Errorf("after %+v: dirty %v, update %+v", u, m.dirty, m.next)
		}
		m.taken()
		m.status(u)
		if m.dirty {
			t.Errorf("dirty again with %+v, which was taken", u)
		}
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
