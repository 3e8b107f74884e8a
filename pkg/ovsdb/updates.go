package ovsdb

// An Update is the difference between the contents a consumer has seen and the
// contents now, both of them as between two transactions. Updates that the
// consumer did not take yet are merged, so that a slow consumer costs no more
// memory than the rows that differ.
type Update struct {
	// Connected is true while a server keeps the contents current, and
	// transactions can be tried.
	Connected bool

	// Synced is true once the contents are complete, which they stay when the
	// connection is lost: they are then of that moment. The first update with
	// Synced has all rows.
	Synced bool

	// Changes has at most one change of a row; the order means nothing.
	Changes []Change

	// Conditions is the newest sequence number of [Client.SetConditions] that
	// the contents reflect.
	Conditions uint64

	// Transactions is how many transactions the server has answered. What they
	// changed is in this update or was in one before.
	Transactions uint64
}

// A merger collects the next update.
type merger struct {
	next  Update
	dirty bool // there is news in next

	// index has the position of each changed row in next.Changes. It is made
	// when a second set of changes comes in.
	index map[rowKey]int
}

type rowKey struct{ table, uuid string }

// taken starts the next update; the consumer owns the one before.
func (m *merger) taken() {
	m.next.Changes, m.index, m.dirty = nil, nil, false
}

// status notes the state that the update ends with, all of it but the changes.
func (m *merger) status(u Update) {
	u.Changes = m.next.Changes
	m.dirty = m.dirty || m.next.Connected != u.Connected || m.next.Synced != u.Synced ||
		m.next.Conditions != u.Conditions || m.next.Transactions != u.Transactions
	m.next = u
}

// add merges changes, at most one of each row, that follow those already in
// the update. It keeps the slice.
func (m *merger) add(changes []Change) {
	if len(changes) == 0 {
		return
	}
	m.dirty = true
	if m.next.Changes == nil {
		m.next.Changes = changes
		return
	}
	if m.index == nil {
		m.index = make(map[rowKey]int, len(m.next.Changes)+len(changes))
		for i, c := range m.next.Changes {
			m.index[rowKey{c.Table, c.UUID}] = i
		}
	}
	for _, c := range changes {
		m.merge(c)
	}
}

func (m *merger) merge(c Change) {
	key := rowKey{c.Table, c.UUID}
	i, ok := m.index[key]
	if !ok {
		m.index[key] = len(m.next.Changes)
		m.next.Changes = append(m.next.Changes, c)
		return
	}
	m.next.Changes[i].New = c.New
	if m.next.Changes[i].Old != nil || c.New != nil {
		return
	}
	// Inserted and deleted: the consumer has seen neither.
	last := len(m.next.Changes) - 1
	m.next.Changes[i] = m.next.Changes[last]
	m.next.Changes[last] = Change{}
	m.next.Changes = m.next.Changes[:last]
	delete(m.index, key)
	if i < last {
		moved := m.next.Changes[i]
		m.index[rowKey{moved.Table, moved.UUID}] = i
	}
}
