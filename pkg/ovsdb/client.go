package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// Config says what a Client is to keep a copy of, and from where.
type Config struct {
	Database string   // for example "OVN_Southbound"
	Remotes  []string // each as ParseRemotes reads them; tried in random order

	// LeaderOnly avoids the followers of a clustered database. Their contents
	// lag behind a little, and transactions take a hop more.
	LeaderOnly bool

	// ProbeInterval is how long a server on the network may be silent before
	// it is asked for a sign of life; after the same time again it is given
	// up. Zero means never.
	ProbeInterval time.Duration

	TLS    *TLSFiles // for ssl remotes
	Tables []Table
	Log    *slog.Logger // should say which database this is; nil means silence
}

// Errors that Transact returns without or before an answer of the server.
var (
	// ErrNotConnected means that the transaction was not sent.
	ErrNotConnected = errors.New("not connected")

	// ErrConnectionLost means that the transaction was sent, and may have been
	// done or not. The updates after the next connection will tell.
	ErrConnectionLost = errors.New("connection lost")

	// ErrStopped means that Run has returned.
	ErrStopped = errors.New("client stopped")
)

// A Client keeps a copy of a part of a database. Its methods may be called from
// any goroutine; none of them waits for the consumer of Updates.
type Client struct {
	config   Config
	replica  *replica
	updates  chan Update
	requests chan *request
	wake     chan struct{} // wanted, remotes or probe have changed
	done     chan struct{} // closed when Run returns

	mu       sync.Mutex // guards the following
	started  bool
	remotes  []Remote
	probe    time.Duration
	tls      *TLSFiles
	wanted   map[string]clauseList
	sequence uint64
	schema   schema
	version  string // of the schema
}

// New checks the configuration. Nothing happens before [Client.Run].
func New(config Config) (*Client, error) {
	remotes, err := ParseRemotes(strings.Join(config.Remotes, ","))
	if err != nil {
		return nil, err
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	server, err := newTablePlan(Table{Name: "Database", Row: serverDatabase{}})
	if err != nil {
		return nil, err
	}
	c := &Client{
		config: config,
		replica: &replica{
			database:   config.Database,
			leaderOnly: config.LeaderOnly,
			log:        config.Log,
			server:     server,
			contents:   make(contents),
			skewLogged: make(map[[3]string]bool),
		},
		updates:  make(chan Update),
		requests: make(chan *request),
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		remotes:  remotes,
		probe:    config.ProbeInterval,
		tls:      config.TLS,
		wanted:   make(map[string]clauseList),
	}
	for _, t := range config.Tables {
		if _, ok := c.wanted[t.Name]; ok {
			return nil, fmt.Errorf("ovsdb table %s: given twice", t.Name)
		}
		plan, err := newTablePlan(t)
		if err != nil {
			return nil, err
		}
		c.replica.plans = append(c.replica.plans, plan)
		if c.wanted[t.Name], err = newClauseList(t.Where); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Updates returns the channel of updates. It is never closed. An update that
// is not received is merged with those that follow; the connection, and
// Transact, go on meanwhile.
func (c *Client) Updates() <-chan Update { return c.updates }

// SetConditions changes which rows of some tables are monitored, to those that
// match at least one condition of the table's list. An empty list means no
// rows, as does one of only [False]; a table with a nil list, or none, stays as
// it is. While the change is under way the contents may have rows of both.
//
// It returns a sequence number: the contents of an [Update] whose Conditions
// is this large are selected by these conditions or newer ones.
//
// It panics if a condition has a value without OVSDB notation.
func (c *Client) SetConditions(lists map[string][]Condition) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	for table, list := range lists {
		old, ok := c.wanted[table]
		if !ok || list == nil {
			continue
		}
		clauses, err := newClauseList(list)
		if err != nil {
			panic(err)
		}
		if string(clauses.text) != string(old.text) {
			c.wanted[table], changed = clauses, true
		}
	}
	if changed {
		c.sequence++
		c.notify()
	}
	return c.sequence
}

// SetRemotes replaces the remotes. A connection to one that is no longer named
// is closed; the contents stay, and the next server only changes what differs.
func (c *Client) SetRemotes(remotes []string) error {
	list, err := ParseRemotes(strings.Join(remotes, ","))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remotes = list
	c.notify()
	return nil
}

// SetProbeInterval replaces [Config.ProbeInterval].
func (c *Client) SetProbeInterval(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probe = d
	c.notify()
}

// SetTLS replaces [Config.TLS], for the connections from now on.
func (c *Client) SetTLS(files *TLSFiles) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tls = files
}

// notify wakes the loop, which then looks at what mu guards.
func (c *Client) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// HasColumn tells whether the server has a column, whatever its type. It is
// false for all columns before the first connection.
func (c *Client) HasColumn(table, column string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.schema[table][column]
	return ok
}

// SchemaVersion returns the version of the server's schema, like "20.27.0". It is empty before the first connection.
func (c *Client) SchemaVersion() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// A request is a transaction on its way through the loop.
type request struct {
	params []byte
	reply  chan reply // with room for one
}

type reply struct {
	message *message
	err     error
}

// Transact does all of the operations or none of them. The results are in the
// order of the operations. If the server refuses, the error is a
// *[TransactError]; if there is no connection, it is [ErrNotConnected] or
// [ErrConnectionLost].
//
// The server sends what a transaction changes before it says that it is done:
// when Transact returns, the changes are in the update that Updates yields
// next, or were in one before. See [Update.Transactions].
func (c *Client) Transact(ctx context.Context, ops ...Operation) ([]OperationResult, error) {
	params, err := encodeTransaction(c.config.Database, ops)
	if err != nil {
		return nil, err
	}
	r := &request{params: params, reply: make(chan reply, 1)}
	select {
	case c.requests <- r:
	case <-ctx.Done():
		return nil, fmt.Errorf("ovsdb transact: %w", ctx.Err())
	case <-c.done:
		return nil, fmt.Errorf("ovsdb transact: %w", ErrStopped)
	}
	select {
	case got := <-r.reply:
		if got.err != nil {
			return nil, fmt.Errorf("ovsdb transact: %w", got.err)
		}
		return decodeResults(got.message, ops)
	case <-ctx.Done():
		return nil, fmt.Errorf("ovsdb transact: %w", ctx.Err())
	}
}

// Run connects, and connects again, until ctx ends; then it returns nil. It can
// be called once.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	started := c.started
	c.started = true
	c.mu.Unlock()
	if started {
		return errors.New("ovsdb run: called twice")
	}
	defer close(c.done)
	l := &loop{
		Client: c,
		log:    c.config.Log,
		decoder: &decoder{
			interner: &interner{},
			replies:  c.replica.replies(),
			monitors: c.replica.monitors(),
		},
		transactions: make(map[uint64]*request),
		timer:        time.NewTimer(0),
	}
	l.refresh()
	l.run(ctx)
	return nil
}

// A loop owns the replica and the connection. All else sends it values.
type loop struct {
	*Client
	log     *slog.Logger
	decoder *decoder

	order    []Remote // the remotes as they are tried
	nextTry  int
	backoff  *backoff
	interval time.Duration // of probes

	lastFailure string // as logged last

	conn    *connection // nil while waiting to try again
	session *session    // nil unless established
	since   time.Time   // when the contents became current; zero if they are not
	probed  time.Time   // when the last probe was sent

	transactions map[uint64]*request
	lastRequest  uint64
	answered     uint64 // transactions
	merger       merger
	timer        *time.Timer // to try again, or to probe
}

func (l *loop) run(ctx context.Context) {
	defer l.disconnect()
	defer l.timer.Stop()
	for {
		var events <-chan event
		var write chan<- []byte
		var text []byte
		var updates chan<- Update
		if l.conn != nil {
			events = l.conn.events
		}
		if l.session != nil && len(l.session.out) > 0 {
			write, text = l.conn.write, l.session.out[0]
		}
		if l.merger.dirty {
			updates = l.updates
		}
		select {
		case <-ctx.Done():
			return
		case updates <- l.merger.next:
			l.merger.taken()
		case write <- text:
			l.session.out = l.session.out[1:]
		case e := <-events:
			l.event(e)
		case r := <-l.requests:
			l.transact(r)
		case <-l.wake:
			l.refresh()
		case <-l.timer.C:
			if l.conn == nil {
				l.connect(ctx)
			} else {
				l.checkAlive()
			}
		}
		l.merger.status(Update{
			Connected:    l.current(),
			Synced:       l.replica.synced,
			Conditions:   l.replica.conditions.ackedSeq,
			Transactions: l.answered,
		})
	}
}

// current tells whether a server keeps the contents current.
func (l *loop) current() bool { return l.session != nil && l.session.state == monitoring }

// refresh takes over what other goroutines have set.
func (l *loop) refresh() {
	l.mu.Lock()
	remotes, probe := l.remotes, l.probe
	l.replica.want(l.wanted, l.sequence)
	l.mu.Unlock()
	if l.session != nil {
		l.session.changeConditions()
	}
	if probe != l.interval {
		l.interval = probe
		if l.session != nil {
			l.armProbe()
		}
	}
	if sameRemotes(remotes, l.order) {
		return
	}
	l.order = make([]Remote, len(remotes))
	for i, j := range rand.Perm(len(remotes)) {
		l.order[i] = remotes[j]
	}
	l.nextTry, l.backoff = 0, newBackoff(remotes)
	l.replica.staleLimit = len(remotes)
	for _, r := range remotes {
		if l.conn != nil && l.conn.remote == r {
			return
		}
	}
	if l.conn != nil {
		l.log.Info("remotes changed")
		l.disconnect()
	}
	l.timer.Reset(0)
}

// sameRemotes compares as sets.
func sameRemotes(a, b []Remote) bool {
	x, y := make(map[Remote]bool), make(map[Remote]bool)
	for _, r := range a {
		x[r] = true
	}
	for _, r := range b {
		y[r] = true
	}
	return maps.Equal(x, y)
}

// connect tries the next remote.
func (l *loop) connect(ctx context.Context) {
	remote := l.order[l.nextTry%len(l.order)]
	l.nextTry++
	l.mu.Lock()
	files := l.tls
	l.mu.Unlock()
	l.conn = connect(ctx, remote, files, l.decoder)
}

// event takes what the connection reports.
func (l *loop) event(e event) {
	switch {
	case e.established:
		l.session = newSession(l.replica)
		l.armProbe()
	case e.message != nil:
		if err := l.receive(e.message); err != nil {
			l.fail(err)
		}
	default:
		l.fail(e.err)
	}
}

func (l *loop) receive(m *message) error {
	if n, ok := m.number(); ok && n >= firstTransaction && m.method == "" {
		if r := l.transactions[n]; r != nil {
			delete(l.transactions, n)
			l.answered++
			r.reply <- reply{message: m}
		}
		return nil
	}
	before := l.session.state
	changes, err := l.session.receive(m)
	l.merger.add(changes)
	if l.session.state == before || err != nil {
		return err
	}
	switch l.session.state {
	case askingMonitor:
		l.mu.Lock()
		l.schema, l.version = l.replica.schema, l.replica.version
		l.mu.Unlock()
	case monitoring:
		l.since, l.lastFailure = time.Now(), ""
		l.log.Info("database connected", "remote", l.conn.remote.String(),
			"resumed", l.session.resumed, "changes", len(changes))
	case askingServer, askingSchema:
	}
	return nil
}

// fail gives the connection up and plans the next.
func (l *loop) fail(cause error) {
	if !l.since.IsZero() {
		l.backoff.lost(time.Since(l.since))
	}
	remote := l.conn.remote
	l.disconnect()
	wait := l.backoff.next()
	level := slog.LevelInfo
	if reason := remote.String() + ": " + cause.Error(); reason != l.lastFailure {
		l.lastFailure = reason
	} else {
		level = slog.LevelDebug // while a local server is away we try often
	}
	l.log.Log(context.Background(), level, "database connection failed",
		"remote", remote.String(), "err", cause, "retry_in", wait)
	l.timer.Reset(wait)
}

// disconnect closes the connection, if there is one.
func (l *loop) disconnect() {
	if l.conn == nil {
		return
	}
	l.conn.close()
	l.conn, l.session, l.since = nil, nil, time.Time{}
	for n, r := range l.transactions {
		delete(l.transactions, n)
		r.reply <- reply{err: ErrConnectionLost}
	}
	l.timer.Stop()
}

func (l *loop) transact(r *request) {
	if !l.current() || len(l.session.out) >= maxQueued {
		r.reply <- reply{err: ErrNotConnected}
		return
	}
	l.lastRequest = max(l.lastRequest+1, firstTransaction)
	l.transactions[l.lastRequest] = r
	l.session.transact(l.lastRequest, r.params)
}

// armProbe sets the timer to when the server will have been silent for the
// probe interval.
func (l *loop) armProbe() {
	l.timer.Stop()
	if l.interval > 0 && !l.conn.remote.local() {
		l.timer.Reset(l.interval - time.Since(l.conn.lastRead()))
	}
}

// checkAlive asks a silent server for a sign of life, or gives up one that has
// been asked an interval ago. Any byte counts, for one message may take long.
func (l *loop) checkAlive() {
	if l.session == nil {
		return
	}
	switch last := l.conn.lastRead(); {
	case time.Since(last) < l.interval:
		l.armProbe()
	case l.probed.After(last):
		l.fail(fmt.Errorf("silent for %v after an inactivity probe", l.interval))
	default:
		l.session.probe()
		l.probed = time.Now()
		l.timer.Reset(l.interval)
	}
}
