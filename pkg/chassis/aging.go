package chassis

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// An AgingRow is a learned row that northd deletes when its timestamp is as old as Age. Each chassis that sees it used keeps it, as
// ovn-controller does since 23.09 (controller/mac-cache.c).
type AgingRow struct {
	Table string // MAC_Binding or FDB
	UUID  sb.UUID
	Age   int64 // milliseconds
}

// AgingRows returns the rows of local datapaths for which northd has told an age, ordered by table and UUID. hasColumn says whether
// the Southbound's schema has a column: FDB has a timestamp since 23.09.
func AgingRows(s *sb.Store, local *Local, hasColumn func(table, column string) bool) []AgingRow {
	if local == nil {
		return nil
	}
	var rows []AgingRow
	const timestamp = "timestamp"
	bindings, fdbs := hasColumn(sbdb.MACBindingTable, timestamp), hasColumn(sbdb.FDBTable, timestamp)
	for id := range local.Datapaths {
		dp := s.Datapaths[id]
		if dp == nil {
			continue
		}
		if dp.MACBindingAge > 0 && bindings {
			for row := range s.MACBindingsOf(id) {
				rows = append(rows, AgingRow{sbdb.MACBindingTable, row, 1000 * int64(dp.MACBindingAge)})
			}
		}
		if dp.FDBAge > 0 && fdbs {
			for row := range s.FDBsOf(dp.Key) {
				rows = append(rows, AgingRow{sbdb.FDBTable, row, 1000 * int64(dp.FDBAge)})
			}
		}
	}
	slices.SortFunc(rows, func(a, b AgingRow) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), bytes.Compare(a.UUID[:], b.UUID[:]))
	})
	return rows
}

// cooldown is how old a timestamp is when it is worth writing again, in milliseconds: at 3/16 of the age, so that two readings
// and two cooldowns are less than the age.
func (r AgingRow) cooldown() int64 { return r.Age * 3 / 16 }

// The bounds of AgingPeriod, in milliseconds. The lower one keeps ages of 4 s and more. With the upper one rows outlast restarts, after
// which the first reading says nothing.
const (
	minAgingPeriod = 1000
	maxAgingPeriod = 300_000
)

// AgingPeriod returns how much time may pass between two readings of counters, in milliseconds; 0: there is nothing to read.
func AgingPeriod(rows []AgingRow) int64 {
	period := int64(0)
	for _, r := range rows {
		if p := min(max(r.cooldown(), minAgingPeriod), maxAgingPeriod); period == 0 || p < period {
			period = p
		}
	}
	return period
}

// A UseCounter counts packets that use a row: a flow or filter, by whatever tells those of a row apart.
type UseCounter struct {
	Row sb.UUID
	At  string
}

// A Refresh is a timestamp to write: Now, unless it is not older than Before any more, since another chassis has written it. Times
// are in milliseconds since the epoch.
type Refresh struct {
	Table       string
	UUID        sb.UUID
	Now, Before int64
}

// Refreshes returns what to write for those rows that have been used between two readings, in their order. A counter that is new, or
// smaller than it was, began after the first reading. A nil before is no reading: then nothing is known to have been used.
func Refreshes(rows []AgingRow, before, after map[UseCounter]uint64, now int64) []Refresh {
	if before == nil {
		return nil
	}
	used := map[sb.UUID]struct{}{}
	for c, n := range after {
		if n > 0 && n != before[c] {
			used[c.Row] = struct{}{}
		}
	}
	var out []Refresh
	for _, r := range rows {
		if _, ok := used[r.UUID]; ok {
			out = append(out, Refresh{r.Table, r.UUID, now, now - r.cooldown()})
		}
	}
	return out
}
