package ovsdb

import (
	"bytes"
	"maps"
	"slices"
)

// conditions follows what each table's clauses are, from wanted over requested
// to acknowledged, as the C library does (ovsdb_cs_db_sync_condition).
type conditions struct {
	wanted    map[string]clauseList
	requested map[string]clauseList // named by the latest request
	acked     map[string]clauseList // what the contents reflect

	changing bool // the latest request is a monitor_cond_change without a reply

	// The sequence numbers that belong to the three.
	wantedSeq, requestedSeq, ackedSeq uint64
}

// current tells whether the contents reflect what is wanted.
func (c *conditions) current() bool { return c.ackedSeq == c.wantedSeq }

// reload takes note that a request for everything goes out, with the wanted
// conditions.
func (c *conditions) reload() {
	c.requested, c.requestedSeq, c.changing = maps.Clone(c.wanted), c.wantedSeq, false
}

// resume takes note that a request for the changes since a transaction goes
// out. It has to name the conditions that the contents reflect.
func (c *conditions) resume() {
	c.requested, c.requestedSeq, c.changing = maps.Clone(c.acked), c.ackedSeq, false
}

// change takes note that a monitor_cond_change goes out, and returns the
// tables whose clauses differ from the acknowledged ones, in order.
func (c *conditions) change() []string {
	var tables []string
	for _, name := range slices.Sorted(maps.Keys(c.wanted)) {
		if !bytes.Equal(c.wanted[name].text, c.acked[name].text) {
			tables = append(tables, name)
		}
	}
	c.requested, c.requestedSeq, c.changing = maps.Clone(c.wanted), c.wantedSeq, true
	return tables
}

// ack takes note that the request was answered.
func (c *conditions) ack() {
	c.acked, c.ackedSeq, c.changing = c.requested, c.requestedSeq, false
}
