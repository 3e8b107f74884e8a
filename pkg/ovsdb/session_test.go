package ovsdb

import (
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// testReplica keeps the table Everything of the database DB.
func testReplica(t testing.TB) *replica {
	t.Helper()
	server, err := newTablePlan(Table{Name: "Database", Row: serverDatabase{}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := newTablePlan(Table{Name: "Everything", Row: everything{}, Columns: []string{"s", "i", "ss"}})
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{
		database: "DB", log: slog.New(slog.DiscardHandler), plans: []*tablePlan{plan}, server: server,
		contents: make(contents), skewLogged: make(map[[3]string]bool), staleLimit: 2,
	}
	r.want(map[string]clauseList{"Everything": clauses(t, nil)}, 0)
	return r
}

func clauses(t testing.TB, list []Condition) clauseList {
	t.Helper()
	c, err := newClauseList(list)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testSession(t testing.TB) (*session, *decoder) {
	t.Helper()
	r := testReplica(t)
	return newSession(r), &decoder{interner: &interner{}, replies: r.replies(), monitors: r.monitors()}
}

// A script is a conversation. Its lines are
//
//	> TEXT        the client sends it
//	< TEXT        the server sends it
//	+ ROW         the consumer is told of a change: insertion, modification,
//	~ ROW, - ROW  deletion
//	! ERROR       the client gives the connection up
//	connect       a new connection starts
//	want N COND   conditions N are set: rows whose i is the number COND, or all
//	acked N       the contents reflect conditions N
//
// In it #N stands for a UUID, and the following for messages of the server.
var macros = strings.NewReplacer(
	"{standalone}", `{"id":1,"result":{"Database":{"#90":{"initial":{"name":"DB","model":"standalone","connected":true,"leader":true,"schema":"{schema}"}}}},"error":null}`,
	"{leader}", `{"id":1,"result":{"Database":{"#90":{"initial":{"name":"DB","model":"clustered","connected":true,"leader":true,"cid":["uuid","#91"],"index":7,"schema":"{schema}"}}}},"error":null}`,
	"{follower}", `{"id":1,"result":{"Database":{"#90":{"initial":{"name":"DB","model":"clustered","connected":true,"cid":["uuid","#91"],"index":6,"schema":"{schema}"}}}},"error":null}`,
	"{schema}", `{\"tables\":{\"Everything\":{\"columns\":{\"s\":{\"type\":\"string\"},\"i\":{\"type\":\"integer\"},\"ss\":{\"type\":{\"key\":\"string\",\"min\":0,\"max\":\"unlimited\"}}}}}}`,
	"{hello}", `{"id":1,"method":"monitor_cond","params":["_Server","_Server",{"Database":[{}]}]}`,
	"{aware}", `{"id":2,"method":"set_db_change_aware","params":[true]}`,
	"{nil}", `00000000-0000-0000-0000-000000000000`,
	"{all}", `{"Everything":[{"columns":["i","s","ss"],"where":[true]}]}`,
)

func expandScript(script string) []string {
	for strings.Contains(script, "{standalone}") || strings.Contains(script, "{schema}") || strings.Contains(script, "{leader}") || strings.Contains(script, "{follower}") {
		script = macros.Replace(script)
	}
	script = macros.Replace(script)
	script = regexp.MustCompile(`#\d+`).ReplaceAllStringFunc(script, func(s string) string {
		n, _ := strconv.Atoi(s[1:])
		return testUUID(n)
	})
	var lines []string
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func runScript(t *testing.T, r *replica, script string) {
	t.Helper()
	d := &decoder{interner: &interner{}, replies: r.replies(), monitors: r.monitors()}
	var s *session
	var got []string // lines the client has made and the script has not yet had
	for i, line := range expandScript(script) {
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case ">", "+", "~", "-", "!":
			if len(got) == 0 {
				t.Fatalf("line %d: nothing happens, want\n%s", i, line)
			}
			if got[0] != line {
				t.Fatalf("line %d:\ngot  %s\nwant %s", i, got[0], line)
			}
			got = got[1:]
			continue
		}
		if len(got) > 0 {
			t.Fatalf("line %d: unexpected\n%s\nbefore\n%s", i, strings.Join(got, "\n"), line)
		}
		switch kind {
		case "connect":
			s = newSession(r)
		case "want":
			var n uint64
			var condition string
			if _, err := fmt.Sscan(rest, &n, &condition); err != nil {
				t.Fatalf("line %d: %s: %v", i, line, err)
			}
			list := []Condition{True()}
			if v, err := strconv.Atoi(condition); err == nil {
				list = []Condition{Equal("i", v)}
			}
			r.want(map[string]clauseList{"Everything": clauses(t, list)}, n)
			if s != nil {
				s.changeConditions()
			}
		case "acked":
			if n := strconv.FormatUint(r.conditions.ackedSeq, 10); n != rest {
				t.Fatalf("line %d: contents reflect conditions %s, want %s", i, n, rest)
			}
		case "<":
			m, err := d.decode(rest)
			if err != nil {
				t.Fatalf("line %d: %s: %v", i, line, err)
			}
			changes, err := s.receive(m)
			for _, c := range changes {
				switch {
				case c.Old == nil:
					got = append(got, "+ "+compact(c.New))
				case c.New == nil:
					got = append(got, "- "+compact(c.Old))
				default:
					got = append(got, "~ "+compact(c.New))
				}
			}
			if err != nil {
				got = append(got, "! "+err.Error())
				s = nil
			}
		default:
			t.Fatalf("line %d: %s: no such line", i, line)
		}
		if s != nil {
			for _, text := range s.out {
				got = append(got, "> "+string(text))
			}
			s.out = nil
		}
	}
	if len(got) > 0 {
		t.Fatalf("unexpected at the end:\n%s", strings.Join(got, "\n"))
	}
}

// inStep brings a session to where the contents are one row, after
// transaction #50 if the server is clustered.
const (
	inStep = `
	connect
	> {hello}
	< {standalone}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"{nil}"]}
	> {aware}
	< {"id":4,"result":[false,"{nil}",{"Everything":{"#1":{"initial":{"s":"a","i":1}}}}],"error":null}
	+ UUID:#1 S:a I:1
	< {"id":2,"result":{},"error":null}
	`
	inStepClustered = `
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"{nil}"]}
	> {aware}
	< {"id":4,"result":[false,"#50",{"Everything":{"#1":{"initial":{"s":"a","i":1}}}}],"error":null}
	+ UUID:#1 S:a I:1
	`
)

func TestSession(t *testing.T) {
	tests := []struct{ name, script string }{
		{"updates", inStep + `
	< {"id":null,"method":"update3","params":["DB","{nil}",{"Everything":{"#2":{"insert":{"ss":["set",["x","y"]]}}}}]}
	+ UUID:#2 SS:[x y]
	< {"id":null,"method":"update3","params":["DB","{nil}",{"Everything":{"#2":{"modify":{"ss":["set",["x","z"]],"s":"b"}},"#1":{"delete":null}}}]}
	~ UUID:#2 S:b SS:[y z]
	- UUID:#1 S:a I:1
	`},
		{"a standalone server is asked for everything again", inStep + `
	connect
	> {hello}
	< {standalone}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"{nil}"]}
	> {aware}
	< {"id":4,"result":[false,"{nil}",{"Everything":{"#1":{"initial":{"s":"a","i":1}},"#3":{"initial":{}}}}],"error":null}
	+ UUID:#3
	`},
		{"rows that vanished meanwhile are deletions", inStep + `
	connect
	> {hello}
	< {standalone}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"{nil}"]}
	> {aware}
	< {"id":4,"result":[false,"{nil}",{}],"error":null}
	- UUID:#1 S:a I:1
	`},
		{"a clustered server is asked for what changed", inStepClustered + `
	< {"id":null,"method":"update3","params":["DB","#51",{"Everything":{"#2":{"insert":{"i":2}}}}]}
	+ UUID:#2 I:2
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"#51"]}
	> {aware}
	< {"id":4,"result":[true,"#52",{"Everything":{"#2":{"delete":null},"#1":{"modify":{"i":5}}}}],"error":null}
	- UUID:#2 I:2
	~ UUID:#1 S:a I:5
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"#52"]}
	> {aware}
	`},
		{"a connection lost before the reply loses nothing", inStepClustered + `
	connect
	> {hello}
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"#50"]}
	> {aware}
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"#50"]}
	> {aware}
	`},
		{"a server that forgot the transaction sends everything", inStepClustered + `
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"#50"]}
	> {aware}
	< {"id":4,"result":[false,"#60",{"Everything":{"#1":{"initial":{"s":"a","i":1}}}}],"error":null}
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"#60"]}
	> {aware}
	`},
		{"conditions change", inStep + `
	want 1 1
	> {"id":6,"method":"monitor_cond_change","params":["DB","DB",{"Everything":[{"where":[["i","==",1]]}]}]}
	acked 0
	want 2 2
	want 3 3
	acked 0
	< {"id":6,"result":{},"error":null}
	> {"id":6,"method":"monitor_cond_change","params":["DB","DB",{"Everything":[{"where":[["i","==",3]]}]}]}
	acked 1
	< {"id":null,"method":"update3","params":["DB","{nil}",{"Everything":{"#1":{"delete":null}}}]}
	- UUID:#1 S:a I:1
	acked 1
	< {"id":6,"result":{},"error":null}
	acked 3
	`},
		{"conditions that change back need no request", inStep + `
	want 1 1
	> {"id":6,"method":"monitor_cond_change","params":["DB","DB",{"Everything":[{"where":[["i","==",1]]}]}]}
	want 2 all
	want 3 1
	< {"id":6,"result":{},"error":null}
	acked 3
	`},
		{"conditions set before the first reply", `
	connect
	> {hello}
	want 1 1
	< {standalone}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{"Everything":[{"columns":["i","s","ss"],"where":[["i","==",1]]}]},"{nil}"]}
	> {aware}
	want 2 2
	< {"id":4,"result":[false,"{nil}",{}],"error":null}
	> {"id":6,"method":"monitor_cond_change","params":["DB","DB",{"Everything":[{"where":[["i","==",2]]}]}]}
	acked 1
	`},
		{"conditions set while away: first resume with those of the contents", inStepClustered + `
	connect
	> {hello}
	want 1 1
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"#50"]}
	> {aware}
	< {"id":4,"result":[true,"#50",{}],"error":null}
	> {"id":6,"method":"monitor_cond_change","params":["DB","DB",{"Everything":[{"where":[["i","==",1]]}]}]}
	acked 0
	< {"id":6,"result":{},"error":null}
	acked 1
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{"Everything":[{"columns":["i","s","ss"],"where":[["i","==",1]]}]},"#50"]}
	> {aware}
	`},
		{"a change of conditions in flight when the connection is lost", inStepClustered + `
	want 1 1
	> {"id":6,"method":"monitor_cond_change","params":["DB","DB",{"Everything":[{"where":[["i","==",1]]}]}]}
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{"Everything":[{"columns":["i","s","ss"],"where":[["i","==",1]]}]},"{nil}"]}
	> {aware}
	acked 0
	< {"id":4,"result":[false,"#51",{"Everything":{"#1":{"initial":{"s":"a","i":1}}}}],"error":null}
	acked 1
	`},
		{"a server without _Server and monitor_cond_since", `
	connect
	> {hello}
	< {"id":1,"result":null,"error":"unknown database"}
	> {"id":3,"method":"get_schema","params":["DB"]}
	< {"id":3,"result":{"tables":{"Everything":{"columns":{"s":{"type":"string"}}}}},"error":null}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{"Everything":[{"columns":["s"],"where":[true]}]},"{nil}"]}
	< {"id":4,"error":"unknown method"}
	> {"id":5,"method":"monitor_cond","params":["DB","DB",{"Everything":[{"columns":["s"],"where":[true]}]}]}
	< {"id":5,"result":{"Everything":{"#1":{"initial":{"s":"a"}}}},"error":null}
	+ UUID:#1 S:a
	< {"id":null,"method":"update2","params":["DB",{"Everything":{"#1":{"modify":{"s":"b"}}}}]}
	~ UUID:#1 S:b
	`},
		{"columns and tables the server lacks are not asked for", `
	want 1 7
	connect
	> {hello}
	< {"id":1,"error":"x"}
	> {"id":3,"method":"get_schema","params":["DB"]}
	< {"id":3,"result":{"tables":{"Everything":{"columns":{"s":{"type":{"key":"string","min":0,"max":"unlimited"}},"ss":{"type":{"key":"string","min":0,"max":5}}}}}},"error":null}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{"Everything":[{"columns":["ss"],"where":[true]}]},"{nil}"]}
	< {"id":4,"result":[false,"{nil}",{}],"error":null}
	acked 1
	connect
	> {hello}
	< {"id":1,"error":"x"}
	> {"id":3,"method":"get_schema","params":["DB"]}
	< {"id":3,"result":{"tables":{"Nothing":{"columns":{}}}},"error":null}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{},"{nil}"]}
	< {"id":4,"result":[false,"{nil}",{}],"error":null}
	want 2 2
	acked 2
	`},
		{"contents that do not fit are asked for anew", inStepClustered + `
	< {"id":null,"method":"update3","params":["DB","#51",{"Everything":{"#1":{"modify":{"i":2}},"#7":{"modify":{"i":2}}}}]}
	! table Everything: row #7: changed, but it is not there
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"{nil}"]}
	> {aware}
	< {"id":4,"result":[false,"#51",{"Everything":{"#1":{"initial":{"s":"a","i":2}}}}],"error":null}
	~ UUID:#1 S:a I:2
	`},
		{"resumed contents that do not fit are asked for anew", inStepClustered + `
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"#50"]}
	> {aware}
	< {"id":4,"result":[true,"#51",{"Everything":{"#1":{"insert":{}}}}],"error":null}
	! table Everything: row #1: inserted, but it is there
	connect
	> {hello}
	< {leader}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"{nil}"]}
	> {aware}
	`},
		{"an echo is answered with its parameters", inStep + `
	< {"id":"echo","method":"echo","params":[]}
	> {"id":"echo","result":[],"error":null}
	< {"id":[1,"x"],"method":"echo","params":[{"a":"b"}]}
	> {"id":[1,"x"],"result":[{"a":"b"}],"error":null}
	`},
		{"notifications of others are ignored", inStep + `
	< {"id":null,"method":"locked","params":["x"]}
	< {"id":null,"method":"echo","params":[]}
	< {"id":3,"method":"reboot","params":[]}
	`},
		{"a canceled monitor", inStep + `
	< {"id":null,"method":"monitor_canceled","params":["DB"]}
	! monitor canceled: the database is gone or has a new schema
	`},
		{"a leader steps down", inStepClustered + `
	< {"id":null,"method":"update2","params":["_Server",{"Database":{"#90":{"modify":{"index":8}}}}]}
	< {"id":null,"method":"update2","params":["_Server",{"Database":{"#90":{"modify":{"leader":false}}}}]}
	! server of a clustered database is not the leader
	`},
		{"a server leaves its cluster", inStepClustered + `
	< {"id":null,"method":"update2","params":["_Server",{"Database":{"#90":{"modify":{"connected":false}}}}]}
	! server of a clustered database is disconnected from the others
	`},
		{"the database is dropped", inStep + `
	< {"id":null,"method":"update2","params":["_Server",{"Database":{"#90":{"delete":null}}}]}
	! server does not have the database
	`},
		{"a server that has not joined its cluster", `
	connect
	> {hello}
	< {"id":1,"result":{"Database":{"#90":{"initial":{"name":"DB","model":"clustered"}}}},"error":null}
	! server of a clustered database has not joined yet
	`},
		{"a server without the database", `
	connect
	> {hello}
	< {"id":1,"result":{"Database":{"#90":{"initial":{"name":"_Server","model":"standalone"}}}},"error":null}
	! server does not have the database
	`},
		{"a server without the database or _Server", `
	connect
	> {hello}
	< {"id":1,"error":"unknown database"}
	> {"id":3,"method":"get_schema","params":["DB"]}
	< {"id":3,"result":null,"error":{"error":"unknown database","details":"get_schema request specifies unknown database DB"}}
	! get_schema: unknown database: get_schema request specifies unknown database DB
	`},
		{"a schema that is none", `
	connect
	> {hello}
	< {"id":1,"result":{"Database":{"#90":{"initial":{"name":"DB","model":"standalone","schema":"{}"}}}},"error":null}
	! schema: no tables
	`},
		{"a server that knows only RFC 7047", `
	connect
	> {hello}
	< {"id":1,"error":"unknown method"}
	> {"id":3,"method":"get_schema","params":["DB"]}
	< {"id":3,"result":{"tables":{"Everything":{"columns":{}}}},"error":null}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{"Everything":[{"columns":[],"where":[true]}]},"{nil}"]}
	< {"id":4,"error":"unknown method"}
	> {"id":5,"method":"monitor_cond","params":["DB","DB",{"Everything":[{"columns":[],"where":[true]}]}]}
	< {"id":5,"error":"unknown method"}
	! monitor_cond: unknown method
	`},
		{"an update before the reply", `
	connect
	> {hello}
	< {"id":null,"method":"update3","params":["DB","#1",{}]}
	! update before the monitor's reply
	`},
		{"a reply to no request", inStep + `
	< {"id":6,"result":{},"error":null}
	! reply to unknown request 6
	`},
		{"a reply with somebody else's id", inStep + `
	< {"id":"x","result":{},"error":null}
	! reply to unknown request "x"
	`},
		{"the first reply again", inStep + `
	< {"id":4,"result":[false,"{nil}",{}],"error":null}
	! reply to unknown request 4
	`},
		{"refused conditions", inStep + `
	want 1 1
	> {"id":6,"method":"monitor_cond_change","params":["DB","DB",{"Everything":[{"where":[["i","==",1]]}]}]}
	< {"id":6,"error":"unknown monitor session"}
	! monitor_cond_change: unknown monitor session
	`},
		{"changes since no transaction", `
	connect
	> {hello}
	< {standalone}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"{nil}"]}
	> {aware}
	< {"id":4,"result":[true,"#1",{}],"error":null}
	! monitor_cond_since: resumes after no transaction
	`},
		{"deletions where all rows are due", `
	connect
	> {hello}
	< {standalone}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"{nil}"]}
	> {aware}
	< {"id":4,"result":[false,"#1",{"Everything":{"#1":{"delete":null}}}],"error":null}
	! table Everything: row #1: a change where all rows are due
	`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := testReplica(t)
			r.leaderOnly = strings.Contains(test.name, "leader")
			runScript(t, r, test.script)
		})
	}
}

func TestSessionLeaderOnly(t *testing.T) {
	const script = `
	connect
	> {hello}
	< {follower}
	`
	r := testReplica(t)
	r.leaderOnly = true
	runScript(t, r, script+"! server of a clustered database is not the leader")
	runScript(t, testReplica(t), script+`
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"{nil}"]}
	> {aware}`)
}

// TestSessionStale turns down a server that is behind what was seen, but not
// for ever: whoever restores a cluster from a backup gets us back.
func TestSessionStale(t *testing.T) {
	const stale = `
	connect
	> {hello}
	< {follower}
	! server has stale data: log index 6, we have seen 7
	`
	runScript(t, testReplica(t), inStepClustered+stale+stale+`
	connect
	> {hello}
	< {follower}
	> {"id":4,"method":"monitor_cond_since","params":["DB","DB",{all},"#50"]}
	> {aware}
	`)
}

func TestSessionEchoFlood(t *testing.T) {
	s, d := testSession(t)
	for i := range 2 * maxQueued {
		m, err := d.decode(`{"id":1,"method":"echo","params":[]}`)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.receive(m); err != nil {
			if i < maxQueued/2 {
				t.Errorf("gives up after %d echoes", i)
			}
			return
		}
	}
	t.Errorf("queues %d answers", len(s.out))
}

func TestSessionLongEcho(t *testing.T) {
	s, d := testSession(t)
	m, err := d.decode(`{"id":1,"method":"echo","params":["` + strings.Repeat("a", maxEcho) + `"]}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.receive(m); err == nil {
		t.Error("echoes a long text")
	}
}
