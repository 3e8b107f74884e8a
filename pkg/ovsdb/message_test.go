package ovsdb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// summary shows a message on one line per fact.
func (m *message) summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "id=%s method=%s value=%s error=%s\n", m.id, m.method, m.value, m.fault)
	if u := m.update; u != nil {
		fmt.Fprintf(&b, "update monitor=%s found=%v txn=%s\n", u.monitor, u.found, u.txn)
		for _, r := range u.rows {
			fmt.Fprintf(&b, "%s %s kind=%d mask=%b row=%s\n", r.table.name, r.uuid, r.kind, r.mask, compact(r.row))
		}
	}
	return b.String()
}

// compact shows the fields of a row that are not empty.
func compact(row any) string {
	if row == nil {
		return "none"
	}
	v := reflect.ValueOf(row).Elem()
	var fields []string
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			fields = append(fields, fmt.Sprintf("%s:%v", v.Type().Field(i).Name, f.Interface()))
		}
	}
	return strings.Join(fields, " ")
}

// memberOrders put members in the order of ovsdb-server, or another.
var memberOrders = []func(id, method, result, params string) string{
	func(id, method, result, params string) string {
		if method == "" {
			return `{"id":` + id + `,"result":` + result + `,"error":null}`
		}
		return `{"id":` + id + `,"method":"` + method + `","params":` + params + `}`
	},
	func(id, method, result, params string) string {
		if method == "" {
			return ` { "error" : null , "result" : ` + result + ` , "id" : ` + id + ` } `
		}
		return "\n{\"params\":\t" + params + ",\r\n\"method\":\"" + method + "\", \"jsonrpc\":\"1.0\", \"id\":" + id + "}"
	},
}

func TestMessages(t *testing.T) {
	const rows = `{"Everything":{"00000001-0000-4000-8000-000000000000":{"insert":{"s":"a\"b","unknown":["set",[["uuid","x"]]]}},` +
		`"00000002-0000-4000-8000-000000000000":{"modify":{"ss":["set",["z","a"]],"oi":["set",[]]}},` +
		`"00000003-0000-4000-8000-000000000000":{"delete":null}},"Unknown":{"x":{"initial":{"y":1}}}}`
	decoded := fmt.Sprintf("Everything %[1]s kind=0 mask=0 row=UUID:%[1]s S:a\"b\n", testUUID(1)) +
		fmt.Sprintf("Everything %[1]s kind=1 mask=100100000 row=UUID:%[1]s SS:[a z]\n", testUUID(2)) +
		fmt.Sprintf("Everything %s kind=2 mask=0 row=none\n", testUUID(3))
	tests := []struct{ id, method, result, params, want string }{
		{id: `"x"`, method: "echo", params: `[1,"a"]`, want: "id=\"x\" method=echo value=[1,\"a\"] error=\n"},
		{id: `null`, method: "monitor_canceled", params: `["DB"]`, want: "id= method=monitor_canceled value=[\"DB\"] error=\n"},
		{id: `16`, result: `[{},{"count":1}]`, want: "id=16 method= value=[{},{\"count\":1}] error=\n"},
		{id: `16`, result: `null`, want: "id=16 method= value= error=\n"},
		{
			id: `null`, method: "update2", params: `["DB",` + rows + `]`,
			want: "id= method=update2 value= error=\nupdate monitor=DB found=false txn=00000000-0000-0000-0000-000000000000\n" + decoded,
		},
		{
			id: `null`, method: "update3", params: `["DB","` + testUUID(9) + `",` + rows + `]`,
			want: "id= method=update3 value= error=\nupdate monitor=DB found=false txn=" + testUUID(9) + "\n" + decoded,
		},
		{
			id: `4`, result: `[true,"` + testUUID(9) + `",` + rows + `]`,
			want: "id=4 method= value= error=\nupdate monitor=DB found=true txn=" + testUUID(9) + "\n" + decoded,
		},
		{
			id: `5`, result: rows,
			want: "id=5 method= value= error=\nupdate monitor=DB found=false txn=00000000-0000-0000-0000-000000000000\n" + decoded,
		},
	}
	for _, test := range tests {
		for i, order := range memberOrders {
			text := order(test.id, test.method, test.result, test.params)
			d := testDecoder(t, everythingPlan(t))
			d.scanner = newScanner(iotest.OneByteReader(strings.NewReader(text)))
			m, err := d.message()
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			if diff := cmp.Diff(test.want, m.summary()); diff != "" {
				t.Errorf("order %d: %s (-want +got):\n%s", i, text, diff)
			}
			if _, err := d.message(); !errors.Is(err, io.EOF) {
				t.Errorf("after %s: %v, want %v", text, err, io.EOF)
			}
		}
	}
}

func TestMessagesRefused(t *testing.T) {
	u := testUUID(1)
	update := func(row string) string {
		return `{"id":null,"method":"update2","params":["DB",{"Everything":{"` + u + `":` + row + `}}]}`
	}
	column := func(value string) string { return update(`{"insert":{` + value + `}}`) }
	in := "table Everything: row " + u + ": "
	tests := []struct{ text, want string }{
		{`[]`, `json: '[' where '{' is due`},
		{`{"id":null,"method":7}`, `json: '7' where '"' is due`},
		{`{"id":null,"method":"update2","params":["DX",{}]}`, `update2: unknown monitor "DX"`},
		{`{"id":null,"method":"update2","params":[["DB"],{}]}`, `json: '[' where '"' is due`},
		{`{"id":null,"method":"update2","params":{}}`, `json: '{' where '[' is due`},
		{`{"id":null,"method":"update2","params":["DB"]}`, `json: ']' where ',' is due`},
		{`{"id":null,"method":"update2","params":["DB",{},1]}`, `json: ',' where ']' is due`},
		{`{"id":null,"method":"update3","params":["DB","x",{}]}`, `last-txn-id "x" is not a uuid`},
		{`{"id":null,"method":"update3","params":["DB",{}]}`, `json: '{' where '"' is due`},
		{`{"id":4,"result":[1,"` + u + `",{}],"error":null}`, `json: '1' where a boolean is due`},
		{`{"id":4,"result":"x","error":null}`, `json: '"' where '[' is due`},
		{`{"id":null,"method":"update2","params":["DB",{"Everything":{"x":{}}}]}`, `table Everything: "x" is not a uuid`},
		{update(`{}`), in + `no change`},
		{update(`{"old":{}}`), in + `unknown change "old"`},
		{update(`{"insert":{},"delete":null}`), in + `two changes of one row`},
		{update(`[]`), in + `json: '[' where '{' is due`},
		{column(`"s":1`), in + `column s: json: '1' where '"' is due`},
		{column(`"s":null`), in + `column s: json: 'n' where '"' is due`},
		{column(`"s":["set",["a","b"]]`), in + `column s: more than one element`},
		{column(`"s":["set","a"]`), in + `column s: json: '"' where '[' is due`},
		{column(`"s":["map",[]]`), in + `column s: "map" where a set is due`},
		{column(`"s":["uuid","x"]`), in + `column s: "x" is not a uuid`},
		{column(`"s":["set",[["uuid"]]]`), in + `column s: json: ']' where ',' is due`},
		{column(`"s":["set",[["set",[]]]]`), in + `column s: "set" where a uuid is due`},
		{column(`"i":"a"`), in + `column i: json: "" is not a number`},
		{column(`"i":1.5`), in + `column i: json: "1.5" is not a 64-bit integer`},
		{column(`"i":["uuid","` + u + `"]`), in + `column i: a uuid where integer is due`},
		{column(`"r":1e999`), in + `column r: json: "1e999" is out of range`},
		{column(`"b":0`), in + `column b: json: '0' where a boolean is due`},
		{column(`"oi":["set",[1,2]]`), in + `column oi: more than one element`},
		{column(`"ss":[]`), in + `column ss: json: ']' where '"' is due`},
		{column(`"si":["set",[1,"a"]]`), in + `column si: json: "" is not a number`},
		{column(`"mss":{}`), in + `column mss: json: '{' where '[' is due`},
		{column(`"mss":["set",[]]`), in + `column mss: "set" where a map is due`},
		{column(`"mss":["map",[["a"]]]`), in + `column mss: json: ']' where ',' is due`},
		{column(`"mss":["map",[["a","b","c"]]]`), in + `column mss: json: ',' where ']' is due`},
		{column(`"mii":["map",[["a",1]]]`), in + `column mii: json: "" is not a number`},
	}
	for _, test := range tests {
		d := testDecoder(t, everythingPlan(t))
		if m, err := d.decode(test.text); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, %v, want %s", test.text, m, err, test.want)
		}
	}
}

// TestMessagesCut cuts a conversation at every byte: all messages before the
// cut are read, and then comes an error, which is io.EOF only between two.
func TestMessagesCut(t *testing.T) {
	conversation := []string{
		`{"id":1,"result":{},"error":null}`,
		`{"id":null,"method":"update3","params":["DB","` + testUUID(9) + `",{"Everything":{"` + testUUID(1) +
			`":{"insert":{"s":"\u00e9\n\"","mss":["map",[["a","b"],["c","d"]]],"si":["set",[1,2,-3]],"r":1.5e3,"ob":true}}}}]}`,
		`{"error":{"details":"x"},"result":null,"id":16}`,
		`{"id":"echo","method":"echo","params":[]}`,
	}
	text := strings.Join(conversation, "")
	for cut := range len(text) + 1 {
		d := testDecoder(t, everythingPlan(t))
		d.scanner = newScanner(strings.NewReader(text[:cut]))
		end := 0
		for i := range conversation {
			end += len(conversation[i])
			_, err := d.message()
			switch {
			case err == nil && cut >= end:
				continue
			case cut == end-len(conversation[i]):
				if !errors.Is(err, io.EOF) {
					t.Errorf("cut at %d, between messages: %v, want %v", cut, err, io.EOF)
				}
			case err == nil || errors.Is(err, io.EOF):
				t.Errorf("cut at %d, in message %d: %v, want another error", cut, i, err)
			}
			break
		}
	}
}

// FuzzDecoder feeds arbitrary bytes to the decoder and what it makes of them to
// a session in each state.
func FuzzDecoder(f *testing.F) {
	for _, order := range memberOrders {
		f.Add([]byte(order("1", "", `{"Database":{"`+testUUID(1)+`":{"initial":{"name":"DB","model":"standalone","connected":true,`+
			`"schema":"{\"tables\":{\"Everything\":{\"columns\":{\"s\":{\"type\":\"string\"}}}}}"}}}}`, "") +
			order("4", "", `[false,"`+testUUID(7)+`",{"Everything":{"`+testUUID(1)+`":{"initial":{"s":"a"}}}}]`, "") +
			order("null", "update3", "", `["DB","`+testUUID(8)+`",{"Everything":{"`+testUUID(1)+`":{"modify":{"s":"b","mss":["map",[["a","b"]]]}}}}]`) +
			order("6", "", "{}", "") + order("7", "", "[]", "") + order(`"echo"`, "echo", "", "[1]")))
	}
	f.Add([]byte(`{"id":1,"result":null,"error":"unknown method"}{"id":3,"result":{"tables":{"Everything":{"columns":{}}}},"error":null}` +
		`{"id":4,"error":"unknown method"}{"id":5,"result":{},"error":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, d := testSession(t)
		d.scanner = newScanner(bytes.NewReader(text))
		seen := make(map[string]any)
		for {
			m, err := d.message()
			if err != nil {
				return
			}
			changes, err := s.receive(m)
			if err != nil {
				return
			}
			for _, c := range changes {
				if seen[c.UUID] != c.Old {
					t.Fatalf("row %s: Old is %v, seen was %v", c.UUID, c.Old, seen[c.UUID])
				}
				if seen[c.UUID] = c.New; c.New == nil {
					delete(seen, c.UUID)
				}
			}
			for _, out := range s.out {
				if !json.Valid(out) {
					t.Fatalf("answers %q", out)
				}
			}
			s.out = nil
		}
	})
}
