package ovsdb

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
)

// A Change is what happened to one row between two contents.
type Change struct {
	Table string
	UUID  string // of the row, in text form

	// Old and New point to the struct of [Table.Row]. Old is nil if the row was
	// inserted, New if it was deleted; a row that came to match the conditions
	// counts as inserted, one that ceased to, as deleted. The structs, and all
	// they refer to, are shared and must not be written to.
	Old, New any
}

// contents is a copy of the monitored part of a database.
type contents map[*tablePlan]map[UUID]any

// apply makes the changes of u. If u does not fit, nothing is changed.
func (c contents) apply(u *update) ([]Change, error) {
	if err := c.check(u); err != nil {
		return nil, err
	}
	changes := make([]Change, 0, len(u.rows))
	for _, r := range u.rows {
		change := Change{Table: r.table.name, UUID: r.id, Old: c[r.table][r.uuid]}
		switch r.kind {
		case rowInsert:
			change.New = r.row
		case rowModify:
			change.New = r.table.patch(change.Old, r.row, r.mask)
		case rowDelete:
		}
		c.put(r.table, r.uuid, change.New)
		changes = append(changes, change)
	}
	return changes, nil
}

// check tells whether u can be applied: each row occurs once, is there if it
// is to be changed, and is not there if it is to be inserted.
func (c contents) check(u *update) error {
	type key struct {
		table *tablePlan
		uuid  UUID
	}
	seen := make(map[key]struct{}, len(u.rows))
	for _, r := range u.rows {
		_, there := c[r.table][r.uuid]
		_, twice := seen[key{r.table, r.uuid}]
		switch {
		case twice:
			return fmt.Errorf("table %s: row %s: changed twice", r.table.name, r.uuid)
		case there && r.kind == rowInsert:
			return fmt.Errorf("table %s: row %s: inserted, but it is there", r.table.name, r.uuid)
		case !there && r.kind != rowInsert:
			return fmt.Errorf("table %s: row %s: changed, but it is not there", r.table.name, r.uuid)
		}
		seen[key{r.table, r.uuid}] = struct{}{}
	}
	return nil
}

// put sets a row; nil deletes it.
func (c contents) put(t *tablePlan, uuid UUID, row any) {
	if row == nil {
		delete(c[t], uuid)
		return
	}
	if c[t] == nil {
		c[t] = make(map[UUID]any)
	}
	c[t][uuid] = row
}

// replace makes c the contents of u, which has all rows as inserted, and
// returns the difference to what c was. Rows that did not change stay the same
// structs. If u is not of that form, c is unchanged.
func (c contents) replace(u *update) ([]Change, error) {
	count := make(map[*tablePlan]int)
	for _, r := range u.rows {
		if r.kind != rowInsert {
			return nil, fmt.Errorf("table %s: row %s: a change where all rows are due", r.table.name, r.uuid)
		}
		count[r.table]++
	}
	next := make(contents, len(count))
	for t, n := range count {
		next[t] = make(map[UUID]any, n)
	}
	var changes []Change
	if len(c) == 0 {
		changes = make([]Change, 0, len(u.rows))
	}
	for _, r := range u.rows {
		if next[r.table][r.uuid] != nil {
			return nil, fmt.Errorf("table %s: row %s: twice", r.table.name, r.uuid)
		}
		old := c[r.table][r.uuid]
		if old != nil && r.table.equal(old, r.row) {
			next[r.table][r.uuid] = old
			continue
		}
		next[r.table][r.uuid] = r.row
		changes = append(changes, Change{Table: r.table.name, UUID: r.id, Old: old, New: r.row})
	}
	for t, rows := range c {
		gone := make([]UUID, 0)
		for uuid := range rows {
			if next[t][uuid] == nil {
				gone = append(gone, uuid)
			}
		}
		slices.SortFunc(gone, func(a, b UUID) int { return bytes.Compare(a[:], b[:]) })
		for _, uuid := range gone {
			changes = append(changes, Change{Table: t.name, UUID: uuid.String(), Old: rows[uuid]})
		}
	}
	clear(c)
	maps.Copy(c, next)
	return changes, nil
}
