package ovsdb

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	libovsdb "github.com/ovn-org/libovsdb/ovsdb"
)

const testRow = "00000001-0000-4000-8000-000000000000"

func TestOperations(t *testing.T) {
	text, n, truth := "x", 5, true
	where := `"where":[["_uuid","==",["uuid","` + testRow + `"]]]`
	tests := []struct {
		op   Operation
		want string
	}{
		{InsertRow("Encap", "", nil), `{"op":"insert","table":"Encap","row":{}}`},
		{
			InsertRow("Encap", "e1", map[string]any{"type": "geneve", "ip": "1.2.3.4", "options": map[string]string{"csum": "true", "b": "<&>"}}),
			`{"op":"insert","table":"Encap","row":{"ip":"1.2.3.4","options":["map",[["b","<&>"],["csum","true"]]],"type":"geneve"},"uuid-name":"e1"}`,
		},
		{
			UpdateRow("T", testRow, map[string]any{
				"atom": 1, "big": int64(math.MaxInt64), "bool": true, "real": 1.5, "ref": Ref(testRow), "named": Ref("e1"), "uuid": UUID{15: 1},
				"none": (*string)(nil), "some": &text, "int": &n, "truth": &truth, "set": []string{"b", "a"}, "empty": []string(nil), "ints": []int{2},
				"refs": []Ref{testRow, "e1"}, "msi": map[string]int{"a": 1}, "msr": map[string]Ref{"a": "e1"}, "mir": map[int]Ref{2: testRow, 1: "e1"},
				"raw": json.RawMessage(`["set",[]]`),
			}),
			`{"op":"update","table":"T","row":{"atom":1,"big":9223372036854775807,"bool":true,"empty":["set",[]],"int":5,"ints":["set",[2]],` +
				`"mir":["map",[[1,["named-uuid","e1"]],[2,["uuid","` + testRow + `"]]]],"msi":["map",[["a",1]]],"msr":["map",[["a",["named-uuid","e1"]]]],` +
				`"named":["named-uuid","e1"],"none":["set",[]],"raw":["set",[]],"real":1.5,"ref":["uuid","` + testRow + `"],` +
				`"refs":["set",[["uuid","` + testRow + `"],["named-uuid","e1"]]],"set":["set",["b","a"]],"some":"x","truth":true,` +
				`"uuid":["uuid","00000000-0000-0000-0000-000000000001"]},` + where + `}`,
		},
		{DeleteRow("T", testRow), `{"op":"delete","table":"T",` + where + `}`},
		{
			InsertElements("T", testRow, "encaps", []Ref{"e1"}),
			`{"op":"mutate","table":"T","mutations":[["encaps","insert",["set",[["named-uuid","e1"]]]]],` + where + `}`,
		},
		{
			DeleteElements("T", testRow, "external_ids", []string{"a"}),
			`{"op":"mutate","table":"T","mutations":[["external_ids","delete",["set",["a"]]]],` + where + `}`,
		},
		{
			SetPairs("T", testRow, "external_ids", map[string]string{"b": "2", "a": "1"}),
			`{"op":"mutate","table":"T","mutations":[["external_ids","delete",["set",["a","b"]]],["external_ids","insert",["map",[["a","1"],["b","2"]]]]],` + where + `}`,
		},
		{
			Expect("T", testRow, map[string]any{"b": "x", "a": 1}),
			`{"op":"wait","table":"T","rows":[{"a":1,"b":"x"}],"columns":["a","b"],"timeout":0,` + where + `,"until":"=="}`,
		},
		{Comment("hello"), `{"op":"comment","comment":"hello"}`},
	}
	for _, test := range tests {
		got, err := encodeTransaction("DB", []Operation{test.op})
		if err != nil {
			t.Errorf("%s: %v", test.want, err)
			continue
		}
		if want := `["DB",` + test.want + `]`; canonical(t, got) != canonical(t, []byte(want)) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// canonical makes the order and escaping of JSON members irrelevant.
func canonical(t *testing.T, text []byte) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestOperationsAreDeterministic encodes maps again and again.
func TestOperationsAreDeterministic(t *testing.T) {
	pairs := make(map[string]string)
	columns := make(map[string]any)
	for c := 'a'; c < 'p'; c++ {
		pairs[string(c)], columns[string(c)] = "x", pairs
	}
	ops := []Operation{InsertRow("T", "", columns), SetPairs("T", testRow, "c", pairs), Expect("T", testRow, columns)}
	want, err := encodeTransaction("DB", ops)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ops = []Operation{InsertRow("T", "", columns), SetPairs("T", testRow, "c", pairs), Expect("T", testRow, columns)}
		if got, err := encodeTransaction("DB", ops); err != nil || string(got) != string(want) {
			t.Fatalf("%v\ngot  %s\nwant %s", err, got, want)
		}
	}
}

func TestOperationsRefused(t *testing.T) {
	tests := []struct {
		op   Operation
		want string
	}{
		{UpdateRow("T", testRow, map[string]any{"a": struct{}{}}), "ovsdb encode struct {}: no OVSDB notation"},
		{InsertRow("T", "", map[string]any{"a": nil}), "ovsdb encode <nil>: no OVSDB notation"},
		{InsertElements("T", testRow, "a", []any{"x"}), "ovsdb encode []interface {}: no OVSDB notation"},
		{InsertRow("T", "", map[string]any{"a": math.NaN()}), "unsupported value"},
		{Operation{Op: libovsdb.OperationSelect, Table: "T"}, "ovsdb transact: operation 0: select: read updates instead"},
	}
	for _, test := range tests {
		if text, err := encodeTransaction("DB", []Operation{test.op}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s, %v, want %s", text, err, test.want)
		}
	}
}

func TestResults(t *testing.T) {
	ops := []Operation{InsertRow("Encap", "", nil), UpdateRow("Chassis", testRow, nil)}
	tests := []struct {
		reply message
		want  string // of the error
	}{
		{message{value: []byte(`[{"uuid":["uuid","` + testRow + `"]},{"count":1}]`)}, ""},
		{message{value: []byte(`[{},{"error":"permission error","details":"no"}]`)}, "ovsdb transact update Chassis: permission error: no"},
		{message{value: []byte(`[{"error":"domain error"},null]`)}, "ovsdb transact insert Encap: domain error"},
		{message{value: []byte(`[{},{},{"error":"constraint violation","details":"x"}]`)}, "ovsdb transact commit: constraint violation: x"},
		{message{fault: []byte(`"canceled"`)}, "ovsdb transact commit: canceled"},
		{message{fault: []byte(`{"error":"unknown database","details":"DB","syntax":"x"}`)}, "ovsdb transact commit: unknown database: DB"},
		{message{fault: []byte(`{"error":"not leader"}`)}, "ovsdb transact commit: not leader"},
		{message{fault: []byte(`[1]`)}, "ovsdb transact commit: [1]"},
		{message{value: []byte(`[{}]`)}, "ovsdb transact: 1 results for 2 operations"},
		{message{value: []byte(`{}`)}, "ovsdb transact: reply: "},
		{message{}, "ovsdb transact: reply: "},
	}
	for _, test := range tests {
		results, err := decodeResults(&test.reply, ops)
		if test.want != "" {
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("%s%s: %v, want %s", test.reply.value, test.reply.fault, err, test.want)
			}
			continue
		}
		if err != nil || len(results) != 2 || results[0].UUID.GoUUID != testRow || results[1].Count != 1 {
			t.Errorf("%s: %+v, %v", test.reply.value, results, err)
		}
	}
	_, err := decodeResults(&message{value: []byte(`[{},{"error":"permission error","details":"no"}]`)}, ops)
	var refused *TransactError
	if !errors.As(err, &refused) || refused.Index != 1 || refused.Table != "Chassis" || refused.Code != "permission error" {
		t.Errorf("%#v is not the refusal of operation 1", err)
	}
	// What libovsdb's own decoder does not survive.
	for _, odd := range []string{`[{"uuid":[]},{"uuid":["uuid"],"rows":[{"a":[]},{"b":["set"]}]}]`, `[{"uuid":7},{"uuid":null,"rows":3}]`} {
		if _, err := decodeResults(&message{value: []byte(odd)}, ops); err != nil {
			t.Errorf("%s: %v", odd, err)
		}
	}
}

func TestConditions(t *testing.T) {
	tests := []struct {
		list []Condition
		want string
	}{
		{nil, `[true]`},
		{[]Condition{}, `[false]`},
		{[]Condition{False()}, `[false]`},
		{[]Condition{True()}, `[true]`},
		{[]Condition{Equal("a", 1), True(), Equal("b", 2)}, `[true]`},
		{[]Condition{False(), Equal("a", 1), False()}, `[["a","==",1]]`},
		{
			[]Condition{Equal("datapath", Ref(testRow)), NotEqual("type", "patch"), Includes("ports", []Ref{testRow}), Excludes("options", map[string]string{"a": "b"})},
			`[["datapath","==",["uuid","` + testRow + `"]],["type","!=","patch"],["ports","includes",["set",[["uuid","` + testRow + `"]]]],["options","excludes",["map",[["a","b"]]]]]`,
		},
		{[]Condition{NotEmpty("chassis")}, `[["chassis","!=",["set",[]]]]`},
	}
	for _, test := range tests {
		got, err := newClauseList(test.list)
		if err != nil || string(got.text) != test.want {
			t.Errorf("%v: %s, %v, want %s", test.list, got.text, err, test.want)
		}
	}
	if c, err := newClauseList([]Condition{Equal("a", struct{}{})}); err == nil {
		t.Errorf("a condition on a struct: %s", c.text)
	}
}

func TestUUID(t *testing.T) {
	const text = "01234567-89ab-cdef-0123-456789abcdef"
	u, err := ParseUUID(text)
	if err != nil || u.String() != text || u[0] != 0x01 || u[15] != 0xef {
		t.Errorf("ParseUUID(%s) = %v, %v", text, u, err)
	}
	if upper, err := ParseUUID(strings.ToUpper(text)); err != nil || upper != u {
		t.Errorf("ParseUUID of upper case = %v, %v", upper, err)
	}
	for i := range text {
		bad := text[:i] + "g" + text[i+1:]
		if u, err := ParseUUID(bad); err == nil {
			t.Errorf("ParseUUID(%s) = %v, want an error", bad, u)
		}
	}
	for _, bad := range []string{"", text[1:], text + "0", strings.ReplaceAll(text, "-", "0")} {
		if u, err := ParseUUID(bad); err == nil {
			t.Errorf("ParseUUID(%s) = %v, want an error", bad, u)
		}
	}
}

// FuzzReplies has the texts that a server sends and encoding/json reads.
func FuzzReplies(f *testing.F) {
	for _, seed := range []string{
		`[{"uuid":["uuid","` + testRow + `"]},{"count":1}]`, `[null,{"error":"x","details":"y"}]`, `{"error":"x","details":"y"}`, `"x"`,
		`{"tables":{"T":{"columns":{"c":{"type":{"key":{"type":"string"},"value":"uuid","min":0,"max":"unlimited"}}}}}}`,
	} {
		f.Add([]byte(seed))
	}
	ops := []Operation{Comment("a"), Comment("b")}
	f.Fuzz(func(t *testing.T, text []byte) {
		if results, err := decodeResults(&message{value: text}, ops); err == nil && len(results) != len(ops) {
			t.Errorf("%d results for %d operations", len(results), len(ops))
		}
		if _, err := decodeResults(&message{fault: text}, ops); err == nil && text != nil {
			t.Error("an error is none")
		}
		if s, _, err := parseSchema(text); err == nil && len(s) == 0 {
			t.Error("a schema without tables")
		}
	})
}
