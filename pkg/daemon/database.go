package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
)

// A database is a client as the agent's loop sees it: what its last update said, and the one transaction that may be
// under way.
type database struct {
	name   string
	client *ovsdb.Client // nil while nobody has said where it is
	opened chan struct{} // closed when client is set

	remote      string
	probe       time.Duration
	ssl         *ovsdb.TLSFiles
	conditional map[string]bool // tables that have conditions

	connected, synced bool
	conditions        uint64 // those the contents reflect

	busy     bool
	answered uint64 // transactions that the server has answered
	shown    uint64 // those among them whose changes have been seen
	backoff  time.Duration
	retryAt  time.Time // after a transaction that was refused
	results  chan error
}

func newDatabase(name string, client *ovsdb.Client) *database {
	return &database{
		name: name, client: client, opened: make(chan struct{}),
		conditional: map[string]bool{}, results: make(chan error, 1),
	}
}

func (d *database) open(client *ovsdb.Client) {
	d.client = client
	close(d.opened)
}

// run runs the client once there is one.
func (d *database) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.opened:
		return d.client.Run(ctx)
	}
}

// updates is nil, and blocks, while there is no client.
func (d *database) updates() <-chan ovsdb.Update {
	if d.client == nil {
		return nil
	}
	return d.client.Updates()
}

func (d *database) seen(u ovsdb.Update) {
	d.connected, d.synced, d.conditions = u.Connected, u.Synced, u.Conditions
	d.shown = u.Transactions
}

// idle reports whether a transaction may start: none is under way, what the last one did has been seen, and if it was
// refused some time has passed.
func (d *database) idle(now time.Time) bool {
	return d.client != nil && d.connected && d.synced && !d.busy && d.shown >= d.answered && !now.Before(d.retryAt)
}

// waits returns how long it is until idle may be true for no other reason than time; 0 is never.
func (d *database) waits(now time.Time) time.Duration {
	if d.busy || !now.Before(d.retryAt) {
		return 0
	}
	return d.retryAt.Sub(now)
}

// transact starts a transaction; its end arrives in results.
func (d *database) transact(ctx context.Context, ops []ovsdb.Operation) {
	if len(ops) == 0 || d.client == nil {
		return
	}
	d.busy = true
	// Transact ends with ctx or with the connection, so the goroutine does.
	go func() {
		_, err := d.client.Transact(ctx, ops...)
		d.results <- err
	}()
}

// A refused transaction is tried again after a pause that doubles from the first to the last of these: what it asks for
// may be allowed by then, or not be asked for any more.
const (
	minRetry = 50 * time.Millisecond
	maxRetry = 5 * time.Second
)

// done takes the end of the transaction.
func (d *database) done(err error, now time.Time) {
	d.busy = false
	var refused *ovsdb.TransactError
	switch {
	case err == nil:
		d.answered++
		d.backoff = 0
	case errors.As(err, &refused):
		d.answered++
		d.backoff = min(max(2*d.backoff, minRetry), maxRetry)
		d.retryAt = now.Add(d.backoff)
	}
}

// setSSL takes over the row of the table SSL, which may be nil.
func (d *database) setSSL(row any, config TLSConfig) {
	d.ssl = nil
	if r, ok := row.(*vswitchdb.SSL); ok && r != nil {
		d.ssl = &ovsdb.TLSFiles{PrivateKey: r.PrivateKey, Certificate: r.Certificate, CACertificate: r.CaCert}
	}
	if d.client != nil {
		d.client.SetTLS(d.tlsFiles(config))
	}
}

// tlsFiles returns the files for ssl remotes: those of the configuration file, otherwise those of the OVS database.
func (d *database) tlsFiles(c TLSConfig) *ovsdb.TLSFiles {
	if c != (TLSConfig{}) {
		return &ovsdb.TLSFiles{PrivateKey: c.PrivateKey, Certificate: c.Certificate, CACertificate: c.CACertificate}
	}
	return d.ssl
}
