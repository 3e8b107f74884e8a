package ovsdb

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// A message is one JSON-RPC message from the server: a reply (no method), a
// notification (no id) or a request (both).
type message struct {
	id     []byte // JSON text; nil if absent or null
	method string
	value  []byte  // JSON text of result or params; nil if update holds it, or if absent or null
	fault  []byte  // JSON text of error; nil if absent or null
	update *update // a monitor's reply, update2 or update3
}

// number returns the message's id if it is one of ours.
func (m *message) number() (uint64, bool) {
	n, err := strconv.ParseUint(string(m.id), 10, 64)
	return n, err == nil
}

// An update is what a monitor's reply or an update2 or update3 says: which
// rows to change, and up to which transaction that leads.
type update struct {
	monitor string // the monitor's id
	found   bool   // in a reply to monitor_cond_since: rows are changes since the given transaction
	txn     UUID   // zero if unknown
	rows    []rowUpdate
}

// A rowUpdate is a <row-update2> of ovsdb-server(7), section 4.1.14.
type rowUpdate struct {
	table *tablePlan
	uuid  UUID
	id    string // uuid in text form
	kind  rowUpdateKind
	row   any    // insert: the row; modify: the differences
	mask  uint64 // modify: the columns that differ
}

type rowUpdateKind int

const (
	rowInsert rowUpdateKind = iota // "initial" or "insert"
	rowModify
	rowDelete
)

// A decoder reads messages from a stream. It knows the shape of what its
// client asked for; everything else it returns as text.
type decoder struct {
	*scanner
	*interner
	yield *yield // of the column being read

	// replies has the monitor whose contents the reply to a request carries,
	// by request number.
	replies map[uint64]string
	// monitors has the tables of each monitor.
	monitors map[string]map[string]*tablePlan
}

// message reads the next message. It returns io.EOF when the stream ends
// between two messages.
func (d *decoder) message() (*message, error) {
	if err := d.begin(); err != nil {
		return nil, err
	}
	m := &message{}
	seenID, seenMethod := false, false
	err := d.object(func(name []byte) (err error) {
		switch string(name) {
		case "id":
			seenID = true
			m.id, err = d.captureUnlessNull()
		case "method":
			seenMethod = true
			var method []byte
			method, err = d.text()
			m.method = string(method)
		case "error":
			m.fault, err = d.captureUnlessNull()
		case "result":
			// ovsdb-server sends the id first. If it did not, we would have
			// to keep the text until we know what it is the reply to.
			if seenID {
				return d.result(m)
			}
			m.value, err = d.captureUnlessNull()
		case "params":
			if seenMethod {
				return d.params(m)
			}
			m.value, err = d.captureUnlessNull()
		default:
			err = d.skip()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, d.late(m)
}

// late decodes a value that came before what says how to read it.
func (d *decoder) late(m *message) error {
	if m.value == nil || m.update != nil {
		return nil
	}
	stream := d.scanner
	defer func() { d.scanner = stream }()
	d.scanner = newScanner(bytes.NewReader(m.value))
	d.left = maxMessageSize
	m.value = nil
	if m.method != "" {
		return d.params(m)
	}
	return d.result(m)
}

func (d *decoder) captureUnlessNull() ([]byte, error) {
	text, err := d.capture()
	if string(text) == "null" {
		return nil, err
	}
	return text, err
}

// result reads the result of a reply, whose id is known.
func (d *decoder) result(m *message) (err error) {
	n, _ := m.number()
	monitor, ok := d.replies[n]
	if c, err := d.next(); err != nil {
		return err
	} else if !ok || c == 'n' || m.method != "" {
		m.value, err = d.captureUnlessNull()
		return err
	} else if c == '{' {
		// monitor_cond: <table-updates2>.
		m.update = &update{monitor: monitor}
		return d.tableUpdates(m.update)
	}
	// monitor_cond_since: [<found>, <last-txn-id>, <table-updates2>].
	u := &update{monitor: monitor}
	if err := d.expect('['); err != nil {
		return err
	}
	if u.found, err = d.boolean(); err != nil {
		return err
	}
	if err := d.expect(','); err != nil {
		return err
	}
	if err := d.sinceRest(u); err != nil {
		return err
	}
	m.update = u
	return nil
}

// params reads the parameters of a notification or request, whose method is
// known.
func (d *decoder) params(m *message) (err error) {
	if m.method != "update2" && m.method != "update3" {
		m.value, err = d.captureUnlessNull()
		return err
	}
	// [<monitor>, <last-txn-id>, <table-updates2>], update2 without the second.
	if err := d.expect('['); err != nil {
		return err
	}
	monitor, err := d.text()
	if err != nil {
		return err
	}
	u := &update{monitor: string(monitor)}
	if _, ok := d.monitors[u.monitor]; !ok {
		return fmt.Errorf("%s: unknown monitor %q", m.method, u.monitor)
	}
	if err := d.expect(','); err != nil {
		return err
	}
	if m.method == "update3" {
		err = d.sinceRest(u)
	} else if err = d.tableUpdates(u); err == nil {
		err = d.expect(']')
	}
	m.update = u
	return err
}

// sinceRest reads <last-txn-id>, <table-updates2>].
func (d *decoder) sinceRest(u *update) error {
	txn, err := d.text()
	if err != nil {
		return err
	}
	var ok bool
	if u.txn, ok = parseUUID(txn); !ok {
		return fmt.Errorf("last-txn-id %q is not a uuid", txn)
	}
	if err := d.expect(','); err != nil {
		return err
	}
	if err := d.tableUpdates(u); err != nil {
		return err
	}
	return d.expect(']')
}

// tableUpdates reads <table-updates2>.
func (d *decoder) tableUpdates(u *update) error {
	plans := d.monitors[u.monitor]
	return d.object(func(name []byte) error {
		plan, ok := plans[string(name)]
		if !ok {
			return d.skip()
		}
		return d.object(func(text []byte) error {
			uuid, ok := parseUUID(text)
			if !ok {
				return fmt.Errorf("table %s: %q is not a uuid", plan.name, text)
			}
			r := rowUpdate{table: plan, uuid: uuid, id: uuid.String()}
			if err := d.rowUpdate(&r); err != nil {
				return fmt.Errorf("table %s: row %s: %w", plan.name, uuid, err)
			}
			u.rows = append(u.rows, r)
			return nil
		})
	})
}

// rowUpdate reads a <row-update2>, an object with exactly one member.
func (d *decoder) rowUpdate(r *rowUpdate) error {
	n := 0
	err := d.object(func(kind []byte) (err error) {
		if n++; n > 1 {
			return errors.New("two changes of one row")
		}
		switch string(kind) {
		case "initial", "insert":
			r.kind = rowInsert
			r.row, _, err = r.table.decode(d, r.id)
		case "modify":
			r.kind = rowModify
			r.row, r.mask, err = r.table.decode(d, r.id)
		case "delete":
			r.kind = rowDelete
			err = d.skip()
		default:
			err = fmt.Errorf("unknown change %q", kind)
		}
		return err
	})
	if err == nil && n == 0 {
		err = errors.New("no change")
	}
	return err
}
