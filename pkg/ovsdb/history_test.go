package ovsdb_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
)

// TestRandomHistories lets random transactions, of the client and of others,
// random conditions and the server's death follow each other, and compares what
// the consumer ends up with to what the server selects by the same conditions.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			s := ovsdbtest.Start(t, ovsdbtest.Southbound)
			randomHistory(t, rand.New(rand.NewPCG(seed, 10)), s.Remote(), s, func() { s.Kill(); s.Restart() })
		})
	}
}

// TestRandomHistoriesOfCluster is the same where the client can resume.
func TestRandomHistoriesOfCluster(t *testing.T) {
	t.Parallel()
	c := ovsdbtest.StartCluster(t, ovsdbtest.Southbound, 1)
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			s := c.Servers[0]
			randomHistory(t, rand.New(rand.NewPCG(seed, 11)), s.Remote(), s, func() { s.Kill(); s.Restart(); c.Leader() })
		})
	}
}

var historyTables = []ovsdb.Table{
	{Name: "Address_Set", Row: sbdb.AddressSet{}},
	{Name: "Port_Group", Row: sbdb.PortGroup{}},
	{Name: "Datapath_Binding", Row: sbdb.DatapathBinding{}},
	{Name: "Port_Binding", Row: sbdb.PortBinding{}},
	{Name: "Load_Balancer", Row: sbdb.LoadBalancer{}},
}

func randomHistory(t *testing.T, rnd *rand.Rand, remote string, s *ovsdbtest.Server, restart func()) {
	h := &history{t: t, rnd: rnd, s: s}
	h.clear()
	f := follow(t, ovsdb.Config{Database: sbdb.Database, Remotes: []string{remote}, Tables: historyTables})
	conditions := make(map[string][]ovsdb.Condition)
	for step := range 300 {
		switch n := rnd.IntN(100); {
		case n < 70:
			ops := h.transaction()
			if rnd.IntN(2) == 0 && f.last.Connected {
				_, _ = f.Transact(f.ctx, ops...) // conflicts are part of the history
			} else {
				_, _ = s.TryTransact(ops...)
			}
		case n < 85:
			change := make(map[string][]ovsdb.Condition)
			for _, table := range historyTables {
				if rnd.IntN(3) == 0 {
					change[table.Name] = h.conditions(table.Name)
				}
			}
			f.SetConditions(change)
			maps.Copy(conditions, change)
		case n < 95:
			select {
			case u := <-f.Updates():
				f.take(u)
			default:
			}
		case step%10 == 0:
			restart()
		}
	}
	restart()
	retry(f, ovsdb.Comment("the end"))
	f.seen()
	n := f.SetConditions(nil)
	f.until("final conditions", func() bool { return f.last.Conditions >= n })
	t.Logf("connected %d times, of which resumed %d", f.log.count("database connected"), f.log.count("resumed=true"))
	for _, table := range historyTables {
		want := h.selectRows(table.Name, conditions[table.Name])
		got := make(map[string]map[string]any)
		for uuid, row := range f.rows[table.Name] {
			got[uuid] = plain(row)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s where %v (-server +client):\n%s", table.Name, conditions[table.Name], diff)
		}
	}
}

// A history makes transactions and conditions from few values, so that they
// meet each other.
type history struct {
	t   *testing.T
	rnd *rand.Rand
	s   *ovsdbtest.Server
}

func (h *history) word() string { return string(rune('a' + h.rnd.IntN(6))) }

func (h *history) words() []string {
	words := make(map[string]bool)
	for range h.rnd.IntN(4) {
		words[h.word()] = true
	}
	return slices.Sorted(maps.Keys(words))
}

func (h *history) pairs() map[string]string {
	pairs := make(map[string]string)
	for _, k := range h.words() {
		pairs[k] = h.word()
	}
	return pairs
}

func (h *history) pick(table string) string {
	uuids := slices.Sorted(maps.Keys(h.selectRows(table, nil)))
	if len(uuids) == 0 {
		return "00000000-0000-0000-0000-000000000000"
	}
	return uuids[h.rnd.IntN(len(uuids))]
}

func (h *history) transaction() []ovsdb.Operation {
	var ops []ovsdb.Operation
	for range 1 + h.rnd.IntN(3) {
		switch h.rnd.IntN(9) {
		case 0:
			ops = append(ops, ovsdb.InsertRow("Address_Set", "", map[string]any{"name": h.word(), "addresses": h.words()}))
		case 1:
			ops = append(ops, ovsdb.InsertElements("Address_Set", h.pick("Address_Set"), "addresses", h.words()))
		case 2:
			ops = append(ops, ovsdb.DeleteElements("Address_Set", h.pick("Address_Set"), "addresses", h.words()))
		case 3:
			ops = append(ops,
				ovsdb.InsertRow("Datapath_Binding", "dp", map[string]any{"tunnel_key": 1 + h.rnd.IntN(1000), "external_ids": h.pairs()}),
				ovsdb.InsertRow("Port_Binding", "", map[string]any{
					"datapath": ovsdb.Ref("dp"), "logical_port": fmt.Sprint(h.word(), h.word()), "tunnel_key": 1 + h.rnd.IntN(9),
					"mac": h.words(), "options": h.pairs(), "up": h.rnd.IntN(2) == 0, "tag": 1 + h.rnd.IntN(9),
				}))
		case 4:
			ops = append(ops, ovsdb.SetPairs("Port_Binding", h.pick("Port_Binding"), "options", h.pairs()))
		case 5:
			var tag *int
			if n := 1 + h.rnd.IntN(9); n < 5 {
				tag = &n
			}
			ops = append(ops, ovsdb.UpdateRow("Port_Binding", h.pick("Port_Binding"), map[string]any{"type": h.word(), "tag": tag, "up": h.rnd.IntN(2) == 0}))
		case 6:
			// Weak references shrink when the datapath goes away.
			ops = append(ops, ovsdb.InsertRow("Load_Balancer", "", map[string]any{
				"name": h.word(), "datapaths": []ovsdb.Ref{ovsdb.Ref(h.pick("Datapath_Binding"))}, "vips": h.pairs(),
			}))
		case 7:
			table := []string{"Address_Set", "Port_Group", "Port_Binding", "Datapath_Binding", "Load_Balancer"}[h.rnd.IntN(5)]
			ops = append(ops, ovsdb.DeleteRow(table, h.pick(table)))
		case 8:
			ops = append(ops, ovsdb.InsertRow("Port_Group", "", map[string]any{"name": h.word() + h.word(), "ports": h.words()}))
		}
	}
	return ops
}

func (h *history) conditions(table string) []ovsdb.Condition {
	list := []ovsdb.Condition{}
	for range h.rnd.IntN(3) {
		switch table {
		case "Port_Binding":
			list = append(list, []ovsdb.Condition{
				ovsdb.Equal("type", h.word()), ovsdb.Includes("options", h.pairs()), ovsdb.Includes("mac", h.words()), ovsdb.NotEmpty("tag"),
				ovsdb.Equal("datapath", ovsdb.Ref(h.pick("Datapath_Binding"))), ovsdb.Equal("up", true),
			}[h.rnd.IntN(6)])
		case "Datapath_Binding":
			list = append(list, ovsdb.Excludes("external_ids", h.pairs()), ovsdb.Equal("_uuid", ovsdb.Ref(h.pick(table))))
		default:
			list = append(list, ovsdb.NotEqual("name", h.word()))
		}
	}
	if h.rnd.IntN(4) == 0 {
		list = append(list, ovsdb.True())
	}
	return list
}

// clear empties the tables that another history has filled.
func (h *history) clear() {
	var ops []ovsdb.Operation
	for _, table := range historyTables {
		for uuid := range h.selectRows(table.Name, nil) {
			ops = append(ops, ovsdb.DeleteRow(table.Name, uuid))
		}
	}
	h.s.Transact(ops...)
}

// selectRows asks the server for the rows that match any of the conditions.
func (h *history) selectRows(table string, conditions []ovsdb.Condition) map[string]map[string]any {
	h.t.Helper()
	if conditions == nil {
		conditions = []ovsdb.Condition{ovsdb.True()}
	}
	rows := make(map[string]map[string]any)
	for _, condition := range conditions {
		text, err := condition.MarshalJSON()
		if err != nil {
			h.t.Fatal(err)
		}
		for _, row := range h.s.Select(table, fmt.Sprintf("[%s]", text)) {
			uuid := row["_uuid"].([]any)[1].(string)
			delete(row, "_uuid")
			delete(row, "_version")
			for column, v := range row {
				if v = unwrap(v); v == nil {
					delete(row, column)
				} else {
					row[column] = v
				}
			}
			rows[uuid] = row
		}
	}
	return rows
}

// unwrap turns OVSDB notation into a form that plain has, too: atoms, sets as
// slices, and maps; nil for what is empty or zero.
func unwrap(v any) any {
	list, ok := v.([]any)
	if !ok {
		if n, ok := v.(json.Number); ok {
			v = n.String()
		}
		if v == "" || v == "0" || v == false {
			return nil
		}
		return v
	}
	switch list[0] {
	case "uuid":
		return list[1]
	case "set":
		var set []any
		for _, e := range list[1].([]any) {
			set = append(set, unwrap(e))
		}
		if set == nil {
			return nil
		}
		if len(set) == 1 {
			return set[0]
		}
		return set
	case "map":
		m := make(map[any]any)
		for _, p := range list[1].([]any) {
			pair := p.([]any)
			m[unwrap(pair[0])] = unwrap(pair[1])
		}
		if len(m) == 0 {
			return nil
		}
		return m
	}
	panic(fmt.Sprint("not in OVSDB notation: ", v))
}

// plain does to a struct what unwrap does to a row.
func plain(row any) map[string]any {
	columns := make(map[string]any)
	v := reflect.ValueOf(row).Elem()
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Tag.Get("ovsdb"), v.Field(i)
		if name == "_uuid" || f.IsZero() {
			continue
		}
		var value any
		switch f.Kind() { //nolint:exhaustive // the kinds of columns
		case reflect.Pointer:
			value = plainAtom(f.Elem())
		case reflect.Slice:
			var set []any
			for j := range f.Len() {
				set = append(set, plainAtom(f.Index(j)))
			}
			value = set
			if len(set) == 1 {
				value = set[0]
			}
		case reflect.Map:
			m := make(map[any]any)
			for k, e := range f.Seq2() {
				m[plainAtom(k)] = plainAtom(e)
			}
			value = m
		default:
			value = plainAtom(f)
		}
		if value == nil {
			continue
		}
		columns[name] = value
	}
	return columns
}

func plainAtom(v reflect.Value) any {
	if v.IsZero() {
		return nil
	}
	if v.Kind() == reflect.Int {
		return fmt.Sprint(v.Int())
	}
	return v.Interface()
}
