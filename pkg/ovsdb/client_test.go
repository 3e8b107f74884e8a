package ovsdb_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline bounds every wait; it is only reached when something is broken.
const deadline = 30 * time.Second

// A follower is a consumer: it adds up the changes, and checks that each starts
// from what it has seen.
type follower struct {
	*ovsdb.Client
	t    testing.TB
	ctx  context.Context
	log  *recorder
	last ovsdb.Update
	rows map[string]map[string]any // by table and UUID

	answered uint64 // transactions
}

// follow starts a client, which ends with the test.
func follow(t testing.TB, config ovsdb.Config) *follower {
	t.Helper()
	f := &follower{t: t, log: &recorder{}, rows: make(map[string]map[string]any)}
	config.Log = slog.New(f.log)
	var err error
	if f.Client, err = ovsdb.New(config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.ctx = ctx
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run = %v, want nil", err)
			}
		case <-time.After(deadline):
			t.Error("Run does not return")
		}
		if t.Failed() {
			t.Logf("log of the client:\n%s", f.log)
		}
	})
	return f
}

// until takes updates until done is true.
func (f *follower) until(what string, done func() bool) {
	f.t.Helper()
	timeout := time.After(deadline)
	for !done() {
		select {
		case u := <-f.Updates():
			f.take(u)
		case <-timeout:
			f.t.Fatalf("no %s; last update: %+v", what, f.last)
		}
	}
}

func (f *follower) take(u ovsdb.Update) {
	f.t.Helper()
	if !u.Synced && (f.last.Synced || len(u.Changes) > 0 || u.Connected) {
		f.t.Errorf("update not synced: %+v", u)
	}
	if u.Conditions < f.last.Conditions || u.Transactions < f.last.Transactions {
		f.t.Errorf("update goes back: %+v after %+v", u, f.last)
	}
	f.last = u
	for _, c := range u.Changes {
		table := f.rows[c.Table]
		if table == nil {
			table = make(map[string]any)
			f.rows[c.Table] = table
		}
		if seen := table[c.UUID]; seen != c.Old {
			f.t.Errorf("%s %s: Old is %v, seen was %v", c.Table, c.UUID, c.Old, seen)
		}
		if c.Old == nil && c.New == nil {
			f.t.Errorf("%s %s: a change from nothing to nothing", c.Table, c.UUID)
		}
		if table[c.UUID] = c.New; c.New == nil {
			delete(table, c.UUID)
		}
	}
}

func (f *follower) connected() { f.t.Helper(); f.until("connection", f.isConnected) }
func (f *follower) disconnected() {
	f.t.Helper()
	f.until("disconnection", func() bool { return !f.last.Connected })
}

func (f *follower) isConnected() bool {
	return f.last.Connected
}

// Transact counts the server's answers.
func (f *follower) Transact(ctx context.Context, ops ...ovsdb.Operation) ([]ovsdb.OperationResult, error) {
	results, err := f.Client.Transact(ctx, ops...)
	if _, refused := errors.AsType[*ovsdb.TransactError](err); err == nil || refused {
		f.answered++
	}
	return results, err
}

// seen waits for the changes of all transactions that were answered.
func (f *follower) seen() {
	f.t.Helper()
	f.until("update of the transactions", func() bool { return f.last.Transactions == f.answered })
}

// must does a transaction, and waits for its changes.
func (f *follower) must(ops ...ovsdb.Operation) []ovsdb.OperationResult {
	f.t.Helper()
	results, err := f.Transact(f.ctx, ops...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.seen()
	return results
}

// names returns the sorted names of the address sets.
func (f *follower) names() string {
	var names []string
	for _, row := range f.rows["Address_Set"] {
		names = append(names, row.(*sbdb.AddressSet).Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// A recorder keeps the lines of a log.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithGroup(string) slog.Handler            { return r }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }

func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	line := record.Time.Format("15:04:05.000 ") + record.Message
	record.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	return nil
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// count returns how many lines have all the words.
func (r *recorder) count(words ...string) int {
	n := 0
	for line := range strings.Lines(r.String() + "\n") {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			n++
		}
	}
	return n
}

var addressSets = []ovsdb.Table{{Name: "Address_Set", Row: sbdb.AddressSet{}}}

func southbound(remotes ...string) ovsdb.Config {
	return ovsdb.Config{Database: sbdb.Database, Remotes: remotes, Tables: addressSets}
}

func addressSet(name string, addresses ...string) ovsdb.Operation {
	return ovsdb.InsertRow("Address_Set", "", map[string]any{"name": name, "addresses": addresses})
}

func TestClientFollows(t *testing.T) {
	s := ovsdbtest.Start(t, ovsdbtest.Southbound)
	f := follow(t, southbound(s.Remote()))
	f.connected()
	if !f.last.Synced || len(f.rows) != 0 {
		t.Errorf("first update of an empty database: %+v", f.last)
	}
	uuid := f.must(addressSet("a", "10.0.0.2", "10.0.0.1"))[0].UUID.GoUUID
	want := &sbdb.AddressSet{UUID: uuid, Name: "a", Addresses: []string{"10.0.0.1", "10.0.0.2"}}
	if diff := cmp.Diff(any(want), f.rows["Address_Set"][uuid]); diff != "" {
		t.Errorf("inserted row (-want +got):\n%s", diff)
	}
	s.Transact(
		ovsdb.InsertElements("Address_Set", uuid, "addresses", []string{"10.0.0.3"}),
		ovsdb.DeleteElements("Address_Set", uuid, "addresses", []string{"10.0.0.1"}))
	inserted := f.rows["Address_Set"][uuid]
	f.until("modification", func() bool { return f.rows["Address_Set"][uuid] != inserted })
	want = &sbdb.AddressSet{UUID: uuid, Name: "a", Addresses: []string{"10.0.0.2", "10.0.0.3"}}
	if diff := cmp.Diff(any(want), f.rows["Address_Set"][uuid]); diff != "" {
		t.Errorf("modified row (-want +got):\n%s", diff)
	}
	f.must(ovsdb.DeleteRow("Address_Set", uuid))
	if len(f.rows["Address_Set"]) != 0 {
		t.Errorf("after deletion: %v", f.rows)
	}
	if !f.HasColumn("Address_Set", "name") || f.HasColumn("Address_Set", "nonsense") || f.HasColumn("Nonsense", "name") {
		t.Error("HasColumn does not tell what the server has")
	}
}

func TestTransactRefused(t *testing.T) {
	s := ovsdbtest.Start(t, ovsdbtest.Southbound)
	f := follow(t, southbound(s.Remote()))
	if _, err := f.Transact(f.ctx, addressSet("a")); err != nil && !errors.Is(err, ovsdb.ErrNotConnected) {
		t.Errorf("perhaps before the connection: %v", err)
	}
	f.connected()
	tests := []struct {
		ops  []ovsdb.Operation
		want string
	}{
		{
			[]ovsdb.Operation{addressSet("b"), ovsdb.InsertRow("Encap", "", map[string]any{"type": "foo"})},
			"ovsdb transact insert Encap: constraint violation: foo is not one of the allowed values",
		},
		{
			[]ovsdb.Operation{addressSet("c"), addressSet("c")},
			`ovsdb transact commit: constraint violation: Transaction causes multiple rows in "Address_Set" table to have identical values`,
		},
		{
			[]ovsdb.Operation{ovsdb.UpdateRow("Address_Set", "not-a-uuid", nil)},
			"ovsdb transact update Address_Set: syntax error",
		},
		{
			[]ovsdb.Operation{addressSet("x"), ovsdb.Expect("Address_Set", "00000000-0000-0000-0000-000000000001", map[string]any{"name": "b"})},
			"ovsdb transact wait Address_Set: timed out",
		},
	}
	for _, test := range tests {
		_, err := f.Transact(f.ctx, test.ops...)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%v, want %s", err, test.want)
		}
		if _, ok := errors.AsType[*ovsdb.TransactError](err); !ok {
			t.Errorf("%v is not a TransactError", err)
		}
	}
	f.must(ovsdb.Comment("all is well"))
	if names := f.names(); names != "" && names != "a" {
		t.Errorf("refused transactions left %s", names)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Transact(ctx, addressSet("z")); !errors.Is(err, context.Canceled) {
		t.Errorf("with a canceled context: %v", err)
	}
}

func TestTransactWithoutRun(t *testing.T) {
	c, err := ovsdb.New(southbound("unix:/nonexistent"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if err := c.Run(ctx); err == nil {
		t.Error("Run twice = nil, want an error")
	}
	if _, err := c.Transact(t.Context(), addressSet("a")); !errors.Is(err, ovsdb.ErrStopped) {
		t.Errorf("Transact after Run = %v, want %v", err, ovsdb.ErrStopped)
	}
}

func TestNewRefuses(t *testing.T) {
	good := southbound("unix:/x")
	for want, change := range map[string]func(*ovsdb.Config){
		`ovsdb remote "foo": want unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT`: func(c *ovsdb.Config) { c.Remotes = []string{"foo"} },
		`ovsdb remotes "": none given`:                                       func(c *ovsdb.Config) { c.Remotes = nil },
		"ovsdb table Address_Set: given twice":                               func(c *ovsdb.Config) { c.Tables = append(slices.Clip(c.Tables), c.Tables...) },
		"ovsdb table T: Row is int, want a struct":                           func(c *ovsdb.Config) { c.Tables = []ovsdb.Table{{Name: "T", Row: 1}} },
		"ovsdb table Address_Set: sbdb.AddressSet has no column foo": func(c *ovsdb.Config) {
			c.Tables = []ovsdb.Table{{Name: "Address_Set", Row: sbdb.AddressSet{}, Columns: []string{"foo"}}}
		},
	} {
		config := good
		change(&config)
		if _, err := ovsdb.New(config); err == nil || err.Error() != want {
			t.Errorf("New = %v, want %s", err, want)
		}
	}
}

// TestSlowConsumer lets a consumer sleep through a thousand transactions of its
// own: nothing waits for it, and it then gets the difference.
func TestSlowConsumer(t *testing.T) {
	s := ovsdbtest.Start(t, ovsdbtest.Southbound)
	f := follow(t, southbound(s.Remote()))
	f.connected()
	for i := range 1000 {
		op := addressSet(fmt.Sprint("s", i))
		op.UUIDName = "new"
		results, err := f.Transact(f.ctx, op)
		if err != nil {
			t.Fatal(err)
		}
		if i%100 != 0 {
			if _, err = f.Transact(f.ctx, ovsdb.DeleteRow("Address_Set", results[0].UUID.GoUUID)); err != nil {
				t.Fatal(err)
			}
		}
	}
	u := <-f.Updates()
	f.take(u)
	if len(u.Changes) != 10 || len(f.rows["Address_Set"]) != 10 || u.Transactions != 1990 {
		t.Errorf("%d changes, %d rows, %d transactions, want 10, 10, 1990", len(u.Changes), len(f.rows["Address_Set"]), u.Transactions)
	}
}

// TestServerKilled kills a standalone server, whose clients must load all
// again, and sees only what changed meanwhile.
func TestServerKilled(t *testing.T) {
	s := ovsdbtest.Start(t, ovsdbtest.Southbound)
	f := follow(t, southbound(s.Remote()))
	f.connected()
	f.must(addressSet("a"), addressSet("b", "1"), addressSet("c"))
	kept := maps.Clone(f.rows["Address_Set"])
	for round := range 5 {
		s.Kill()
		f.disconnected()
		if !f.last.Synced || len(f.last.Changes) != 0 {
			t.Errorf("losing the connection changed the contents: %+v", f.last)
		}
		if _, err := f.Transact(f.ctx, addressSet("never")); !errors.Is(err, ovsdb.ErrNotConnected) {
			t.Errorf("Transact without connection = %v, want %v", err, ovsdb.ErrNotConnected)
		}
		start := time.Now()
		s.Restart()
		f.connected()
		if len(f.last.Changes) != 0 {
			t.Errorf("round %d: changes after a restart without any: %+v", round, f.last.Changes)
		}
		t.Logf("round %d: connected %v after the server was started", round, time.Since(start))
	}
	if !maps.Equal(kept, f.rows["Address_Set"]) {
		t.Error("rows that did not change are not the same structs")
	}
	// The consumer must not learn of a row that came and went.
	s.Kill()
	f.disconnected()
	other := ovsdbtest.Start(t, ovsdbtest.Southbound)
	other.Transact(addressSet("a"), addressSet("b", "1", "2"), addressSet("d"))
	if err := f.SetRemotes([]string{other.Remote()}); err != nil {
		t.Fatal(err)
	}
	f.connected()
	if names := f.names(); names != "a b d" {
		t.Errorf("rows of the other database: %s, want a b d", names)
	}
}

// TestTransactLostConnection kills the server while it is stopped with a
// transaction in its hands.
func TestTransactLostConnection(t *testing.T) {
	s := ovsdbtest.Start(t, ovsdbtest.Southbound)
	f := follow(t, southbound(s.Remote()))
	f.connected()
	s.Pause()
	done := make(chan error, 1)
	go func() {
		_, err := f.Client.Transact(f.ctx, addressSet("a"))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("a stopped server answers: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	s.Kill()
	if err := <-done; !errors.Is(err, ovsdb.ErrConnectionLost) {
		t.Errorf("Transact = %v, want %v", err, ovsdb.ErrConnectionLost)
	}
}

func TestConditionalMonitoring(t *testing.T) {
	s := ovsdbtest.Start(t, ovsdbtest.Southbound)
	s.Transact(addressSet("a"), addressSet("b"), addressSet("c"))
	config := southbound(s.Remote())
	config.Tables = []ovsdb.Table{{Name: "Address_Set", Row: sbdb.AddressSet{}, Where: []ovsdb.Condition{ovsdb.Equal("name", "a")}}}
	f := follow(t, config)
	f.connected()
	if names := f.names(); names != "a" {
		t.Fatalf("initial condition selects %q, want a", names)
	}
	for _, step := range []struct {
		list []ovsdb.Condition
		want string
	}{
		{[]ovsdb.Condition{ovsdb.Equal("name", "b"), ovsdb.Equal("name", "c")}, "b c"},
		{[]ovsdb.Condition{}, ""},
		{nil, ""},
		{[]ovsdb.Condition{ovsdb.True()}, "a b c"},
		{[]ovsdb.Condition{ovsdb.NotEqual("name", "a")}, "b c"},
		{[]ovsdb.Condition{ovsdb.False()}, ""},
	} {
		n := f.SetConditions(map[string][]ovsdb.Condition{"Address_Set": step.list, "Unmonitored": {}})
		f.until("acknowledgement of conditions", func() bool { return f.last.Conditions >= n })
		if names := f.names(); names != step.want {
			t.Errorf("condition %d selects %q, want %q", n, names, step.want)
		}
		if again := f.SetConditions(map[string][]ovsdb.Condition{"Address_Set": step.list}); again != n {
			t.Errorf("the same conditions again are number %d, want %d", again, n)
		}
	}
	// Rows come and go by their values, and conditions survive the server.
	n := f.SetConditions(map[string][]ovsdb.Condition{"Address_Set": {ovsdb.Includes("addresses", []string{"1"})}})
	f.until("acknowledgement of conditions", func() bool { return f.last.Conditions >= n })
	s.Transact(addressSet("d", "1", "2"), addressSet("e", "2"))
	f.until("row that matches", func() bool { return f.names() == "d" })
	s.Kill()
	f.disconnected()
	s.Restart()
	s.Transact(addressSet("f", "1"))
	f.until("row that matches after the restart", func() bool { return f.names() == "d f" })
	for uuid := range f.rows["Address_Set"] {
		s.Transact(ovsdb.DeleteElements("Address_Set", uuid, "addresses", []string{"1"}))
	}
	f.until("no row that matches", func() bool { return f.names() == "" })
}

// TestServerLacksColumns runs against a server of another version.
func TestServerLacksColumns(t *testing.T) {
	text, err := os.ReadFile(ovsdbtest.Southbound)
	if err != nil {
		t.Fatal(err)
	}
	// No Address_Set; SB_Global without options; nb_cfg is a string.
	start := strings.Index(string(text), `"SB_Global": {`)
	changed := string(text)
	for old, replacement := range map[string]string{
		`"Address_Set"`:                          `"Address_Sets"`,
		`"options"`:                              `"wishes"`,
		`"nb_cfg": {"type": {"key": "integer"}}`: `"nb_cfg": {"type": "string"}`,
	} {
		changed = changed[:start] + strings.Replace(changed[start:], old, replacement, 1)
	}
	path := filepath.Join(t.TempDir(), "old.ovsschema")
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	s := ovsdbtest.Start(t, path)
	config := southbound(s.Remote())
	config.Tables = append(slices.Clip(addressSets), ovsdb.Table{
		Name: "SB_Global", Row: sbdb.SBGlobal{},
		Where: []ovsdb.Condition{ovsdb.Includes("options", map[string]string{"a": "b"})},
	})
	f := follow(t, config)
	f.connected()
	uuid := f.must(ovsdb.InsertRow("SB_Global", "", map[string]any{"nb_cfg": "five", "ipsec": true}))[0].UUID.GoUUID
	want := &sbdb.SBGlobal{UUID: uuid, Ipsec: true}
	if diff := cmp.Diff(any(want), f.rows["SB_Global"][uuid]); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if f.HasColumn("SB_Global", "options") || !f.HasColumn("SB_Global", "wishes") || f.HasColumn("Address_Set", "name") {
		t.Error("HasColumn does not tell what the server has")
	}
	s.Kill()
	f.disconnected()
	s.Restart()
	f.connected()
	for _, reason := range []string{
		`table=Address_Set column= reason=no such table`,
		`table=SB_Global column=options reason=no such column`,
		`table=SB_Global column=options reason=no such column for a condition`,
		`table=SB_Global column=nb_cfg reason=column has another type`,
	} {
		if n := f.log.count("server schema differs " + reason + "\n"); n != 1 {
			t.Errorf("%s is logged %d times, want once", reason, n)
		}
	}
}

// wait waits for something that no update tells.
func wait(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}
