package ovsdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
)

// Request numbers. All but transactions are in flight at most once on a
// connection, so that the number of a reply tells what it answers.
const (
	requestServerMonitor = 1 + iota
	requestChangeAware
	requestSchema
	requestMonitorSince
	requestMonitor
	requestConditions
	requestEcho
	firstTransaction = 16
)

// serverMonitor is the id of the monitor on the _Server database; that on the
// client's database has the database's name for its id.
const serverMonitor = "_Server"

// serverDatabase is a row of the table Database of the _Server database, see
// ovsdb-server(5).
type serverDatabase struct {
	UUID      string  `ovsdb:"_uuid"`
	CID       *string `ovsdb:"cid"`
	Connected bool    `ovsdb:"connected"`
	Index     *int    `ovsdb:"index"`
	Leader    bool    `ovsdb:"leader"`
	Model     string  `ovsdb:"model"`
	Name      string  `ovsdb:"name"`
	Schema    *string `ovsdb:"schema"`
}

// A replica is what outlives a connection: the contents, and what is needed to
// continue them on the next.
type replica struct {
	database   string
	leaderOnly bool
	log        *slog.Logger
	plans      []*tablePlan
	server     *tablePlan

	contents   contents
	synced     bool
	txn        UUID // the contents are those after this transaction; zero if unknown
	conditions conditions
	schema     schema             // of the last server
	version    string             // of that schema
	skewLogged map[[3]string]bool // by reason, table, column

	// The newest log index seen of a cluster. A server that is behind it would
	// take the contents back in time. After turning down staleLimit servers in
	// a row the cluster is taken for a restored one.
	cluster    string
	index      int
	stale      int
	staleLimit int
}

// monitors returns the tables of each monitor, for the decoder.
func (r *replica) monitors() map[string]map[string]*tablePlan {
	tables := make(map[string]*tablePlan, len(r.plans))
	for _, p := range r.plans {
		tables[p.name] = p
	}
	return map[string]map[string]*tablePlan{
		r.database:    tables,
		serverMonitor: {r.server.name: r.server},
	}
}

// replies returns the monitor that each monitoring request starts.
func (r *replica) replies() map[uint64]string {
	return map[uint64]string{
		requestServerMonitor: serverMonitor,
		requestMonitorSince:  r.database,
		requestMonitor:       r.database,
	}
}

// A session is the protocol of one connection as a state machine: messages go
// in, changes and messages come out, and it neither waits nor does I/O. It
// monitors _Server to learn whether the server is fit and what its schema is,
// then the database.
type session struct {
	*replica
	state   sessionState
	resumed bool     // the server sent only what changed since the last connection
	servers contents // the rows of Database
	out     [][]byte // messages to send, oldest first
}

type sessionState int

const (
	askingServer  sessionState = iota // for the Database table of _Server
	askingSchema                      // of a server without _Server
	askingMonitor                     // for the contents
	monitoring
)

// newSession starts the protocol on a new connection.
func newSession(r *replica) *session {
	s := &session{replica: r, servers: make(contents)}
	s.request(requestServerMonitor, "monitor_cond",
		serverMonitor, serverMonitor, map[string]any{r.server.name: []any{struct{}{}}})
	return s
}

// request sends a request. Its parameters are made of strings and numbers that
// always encode.
func (s *session) request(id int, method string, params ...any) {
	if params == nil {
		params = []any{}
	}
	text, err := json.Marshal(struct {
		ID     int    `json:"id"`
		Method string `json:"method"`
		Params []any  `json:"params"`
	}{id, method, params})
	if err != nil {
		panic("ovsdb: " + method + ": " + err.Error())
	}
	s.out = append(s.out, text)
}

// receive takes a message, and returns the changes it makes to the contents.
// After an error the connection is to be closed.
func (s *session) receive(m *message) ([]Change, error) {
	switch {
	case m.method == "echo" && m.id != nil:
		return nil, s.echo(m)
	case m.method == "monitor_canceled":
		return nil, errMonitorCanceled
	case m.method != "" && m.update == nil:
		// Notifications of locks we do not hold, and requests nobody makes.
		return nil, nil
	case m.method != "" && m.update.monitor == serverMonitor:
		return nil, s.serverUpdate(m.update)
	case m.method != "":
		return s.contentsUpdate(m.update)
	}
	n, ok := m.number()
	if !ok {
		return nil, fmt.Errorf("reply to unknown request %.40s", m.id)
	}
	return s.reply(n, m)
}

var errMonitorCanceled = errors.New("monitor canceled: the database is gone or has a new schema")

// Limits on the messages that wait for a server which does not read.
const (
	maxQueued = 1024
	maxEcho   = 64 << 10 // bytes
)

func (s *session) echo(m *message) error {
	switch {
	case len(s.out) >= maxQueued:
		return errors.New("server asks for echoes but does not read them")
	case len(m.id)+len(m.value) > maxEcho:
		return fmt.Errorf("server asks for an echo of more than %d bytes", maxEcho)
	}
	params := m.value
	if params == nil {
		params = []byte("[]")
	}
	s.out = append(s.out, fmt.Appendf(nil, `{"id":%s,"result":%s,"error":null}`, m.id, params))
	return nil
}

func (s *session) reply(n uint64, m *message) ([]Change, error) {
	switch {
	case n == requestServerMonitor && s.state == askingServer:
		if m.fault != nil || m.update == nil {
			// A server from before there was _Server (OVS 2.9).
			s.state = askingSchema
			s.request(requestSchema, "get_schema", s.database)
			return nil, nil
		}
		if err := s.serverUpdate(m.update); err != nil {
			return nil, err
		}
		s.request(requestChangeAware, "set_db_change_aware", true)
		return nil, nil

	case n == requestSchema && s.state == askingSchema:
		if m.fault != nil {
			return nil, fmt.Errorf("get_schema: %s", faultText(m.fault))
		}
		return nil, s.monitor(m.value)

	case n == requestMonitorSince && s.state == askingMonitor:
		if m.fault != nil || m.update == nil {
			// A server from before monitor_cond_since (OVS 2.12).
			s.log.Debug("monitor_cond_since refused", "err", faultText(m.fault))
			s.conditions.reload()
			s.txn = UUID{}
			s.request(requestMonitor, "monitor_cond", s.database, s.database, s.monitorRequests())
			return nil, nil
		}
		return s.first(m.update)

	case n == requestMonitor && s.state == askingMonitor:
		if m.fault != nil || m.update == nil {
			return nil, fmt.Errorf("monitor_cond: %s", faultText(m.fault))
		}
		return s.first(m.update)

	case n == requestConditions && s.conditions.changing:
		if m.fault != nil {
			return nil, fmt.Errorf("monitor_cond_change: %s", faultText(m.fault))
		}
		s.conditions.ack()
		s.changeConditions()
		return nil, nil

	case n == requestEcho, n == requestChangeAware:
		return nil, nil
	}
	return nil, fmt.Errorf("reply to unknown request %d", n)
}

// serverUpdate keeps the Database table, and goes on or gives up depending on
// what the server says about its copy of the database.
func (s *session) serverUpdate(u *update) error {
	if _, err := s.servers.apply(u); err != nil {
		return fmt.Errorf("_Server: %w", err)
	}
	var db *serverDatabase
	for _, row := range s.servers[s.server] {
		if row := row.(*serverDatabase); row.Name == s.database {
			db = row
		}
	}
	if err := s.fit(db); err != nil {
		return err
	}
	if s.state == askingServer {
		return s.monitor([]byte(*db.Schema))
	}
	return nil
}

// fit tells why the server's copy of the database is of no use, if so.
func (s *session) fit(db *serverDatabase) error {
	switch {
	case db == nil:
		return errors.New("server does not have the database")
	case db.Schema == nil:
		return fmt.Errorf("server of a %s database has not joined yet", db.Model)
	case db.Model == "standalone":
		return nil
	case !db.Connected:
		return fmt.Errorf("server of a %s database is disconnected from the others", db.Model)
	case s.leaderOnly && !db.Leader:
		return fmt.Errorf("server of a %s database is not the leader", db.Model)
	case db.Index == nil || db.CID == nil:
		return nil
	}
	if s.cluster != *db.CID || s.stale >= s.staleLimit {
		s.cluster, s.index = *db.CID, 0
	}
	if *db.Index < s.index {
		s.stale++
		return fmt.Errorf("server has stale data: log index %d, we have seen %d", *db.Index, s.index)
	}
	s.index, s.stale = *db.Index, 0
	return nil
}

// monitor asks for the contents, now that the schema is known.
func (s *session) monitor(text []byte) error {
	schema, version, err := parseSchema(text)
	if err != nil {
		return err
	}
	s.schema, s.version = schema, version
	s.logSkew()
	s.state = askingMonitor
	if s.txn == (UUID{}) || s.conditions.changing {
		// If a change of conditions was in flight, nobody knows whether the
		// contents are from before or after it.
		s.txn = UUID{}
		s.conditions.reload()
	} else {
		s.conditions.resume()
	}
	s.request(requestMonitorSince, "monitor_cond_since", s.database, s.database, s.monitorRequests(), s.txn.String())
	return nil
}

// columns returns the columns of a table that the server has, in a type that
// the struct can hold.
func (s *session) columns(p *tablePlan) []string {
	columns := make([]string, 0, len(p.columns))
	for i := range p.columns {
		c := &p.columns[i]
		if t, ok := s.schema[p.name][c.name]; ok && c.fits(t) {
			columns = append(columns, c.name)
		}
	}
	slices.Sort(columns)
	return columns
}

// logSkew says once what the server lacks. That is normal while a cluster is
// upgraded.
func (s *session) logSkew() {
	for _, p := range s.plans {
		table, ok := s.schema[p.name]
		if !ok {
			s.logOnce("no such table", p.name, "")
			continue
		}
		for i := range p.columns {
			c := &p.columns[i]
			if t, ok := table[c.name]; !ok {
				s.logOnce("no such column", p.name, c.name)
			} else if !c.fits(t) {
				s.logOnce("column has another type", p.name, c.name)
			}
		}
	}
}

func (s *session) logOnce(reason, table, column string) {
	key := [3]string{reason, table, column}
	if !s.skewLogged[key] {
		s.skewLogged[key] = true
		s.log.Info("server schema differs", "table", table, "column", column, "reason", reason)
	}
}

// monitorRequests returns <monitor-cond-requests> with the requested clauses.
func (s *session) monitorRequests() map[string]any {
	requests := make(map[string]any, len(s.plans))
	for _, p := range s.plans {
		if _, ok := s.schema[p.name]; ok {
			requests[p.name] = []any{map[string]any{
				"columns": s.columns(p),
				"where":   s.where(p.name, s.conditions.requested[p.name]),
			}}
		}
	}
	return requests
}

// where returns the clauses for a table, or all rows if the server lacks a
// column they name: more rows than asked for are always right.
func (s *session) where(table string, clauses clauseList) json.RawMessage {
	for _, column := range clauses.columns {
		if _, ok := s.schema[table][column]; !ok && column != "_uuid" {
			s.logOnce("no such column for a condition", table, column)
			return json.RawMessage("[true]")
		}
	}
	return clauses.text
}

// first takes the reply to the monitoring request.
func (s *session) first(u *update) (changes []Change, err error) {
	if u.found && s.txn == (UUID{}) {
		return nil, errors.New("monitor_cond_since: resumes after no transaction")
	}
	if u.found {
		changes, err = s.contents.apply(u)
	} else {
		changes, err = s.contents.replace(u)
	}
	if err != nil {
		s.txn = UUID{}
		return nil, err
	}
	s.txn = u.txn
	s.conditions.ack()
	s.state, s.synced, s.resumed = monitoring, true, u.found
	s.changeConditions()
	return changes, nil
}

// contentsUpdate takes an update2 or update3.
func (s *session) contentsUpdate(u *update) ([]Change, error) {
	if s.state != monitoring {
		return nil, errors.New("update before the monitor's reply")
	}
	changes, err := s.contents.apply(u)
	if err != nil {
		// What we have is not what the server thinks we have.
		s.txn = UUID{}
		return nil, err
	}
	s.txn = u.txn
	return changes, nil
}

// changeConditions requests what is wanted, unless a request is in flight.
func (s *session) changeConditions() {
	if s.state != monitoring || s.conditions.changing || s.conditions.current() {
		return
	}
	requests := make(map[string]any)
	for _, table := range s.conditions.change() {
		if _, ok := s.schema[table]; ok {
			requests[table] = []any{map[string]any{"where": s.where(table, s.conditions.wanted[table])}}
		}
	}
	if len(requests) == 0 {
		s.conditions.ack()
		return
	}
	s.request(requestConditions, "monitor_cond_change", s.database, s.database, requests)
}

// want sets the conditions that changeConditions is to reach.
func (r *replica) want(clauses map[string]clauseList, seq uint64) {
	r.conditions.wanted, r.conditions.wantedSeq = maps.Clone(clauses), seq
}

// transact sends a transaction under the given request number.
func (s *session) transact(n uint64, params []byte) {
	text := append([]byte(nil), `{"id":`...)
	text = strconv.AppendUint(text, n, 10)
	text = append(text, `,"method":"transact","params":`...)
	text = append(text, params...)
	s.out = append(s.out, append(text, '}'))
}

// probe asks the server for a sign of life.
func (s *session) probe() { s.request(requestEcho, "echo") }
