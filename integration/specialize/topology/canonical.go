package topology

import (
	"cmp"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

var uuidText = regexp.MustCompile(`\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`)

// canonical returns the Southbound rows with UUIDs that follow from what the rows say, so that the same content makes the same
// program, cookies and conjunction identifiers included, each time.
func canonical(rows map[string]table) ([]sb.Update, error) {
	c := canon{known: map[string]string{}}
	for _, r := range rows[sbdb.DatapathBindingTable] {
		dp := r.(*sbdb.DatapathBinding)
		for _, key := range []string{"logical-switch", "logical-router"} {
			c.name(dp.ExternalIDs[key], "northbound "+dp.ExternalIDs["name"])
		}
		c.name(dp.UUID, "datapath "+dp.ExternalIDs["name"])
	}
	for _, r := range rows[sbdb.PortBindingTable] {
		c.name(r.(*sbdb.PortBinding).UUID, "port "+r.(*sbdb.PortBinding).LogicalPort)
	}
	for _, r := range rows[sbdb.ChassisTable] {
		c.name(r.(*sbdb.Chassis).UUID, "chassis "+r.(*sbdb.Chassis).Name)
	}
	// The other rows are what they say, and what they refer to: the tables that are referred to come first.
	var updates []sb.Update
	order := []string{
		sbdb.DatapathBindingTable, sbdb.EncapTable, sbdb.ChassisTable, sbdb.ChassisPrivateTable, sbdb.HAChassisTable,
		sbdb.HAChassisGroupTable, sbdb.PortBindingTable, sbdb.LogicalDPGroupTable,
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	for _, name := range order {
		all, err := c.table(name, rows[name])
		if err != nil {
			return nil, err
		}
		updates = append(updates, all...)
	}
	return updates, nil
}

// A canon knows which UUIDs stand for others.
type canon struct{ known map[string]string }

// name gives a row a UUID that follows from a text.
func (c *canon) name(uuid, text string) string {
	if uuid == "" {
		return ""
	}
	h := sha1.Sum([]byte(text))
	n := fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
	c.known[uuid] = n
	return n
}

func (c *canon) table(name string, rows table) ([]sb.Update, error) {
	type entry struct{ uuid, text, made string }
	var entries []entry
	seen := map[string]int{}
	for uuid, r := range rows {
		// Sets are sorted by what stands for their elements.
		made, err := c.replaced(r, uuid)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{uuid, strings.ReplaceAll(made, uuid, ""), made})
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(cmp.Compare(a.text, b.text), cmp.Compare(a.uuid, b.uuid)) })
	var updates []sb.Update
	for _, e := range entries {
		now, ok := c.known[e.uuid]
		if !ok {
			now = c.name(e.uuid, fmt.Sprintf("%s %s %d", name, e.text, seen[e.text]))
			seen[e.text]++
		}
		row := reflect.New(reflect.TypeOf(rows[e.uuid]).Elem()).Interface()
		if err := json.Unmarshal([]byte(strings.ReplaceAll(e.made, e.uuid, now)), row); err != nil {
			return nil, err
		}
		updates = append(updates, sb.Update{Table: name, UUID: now, New: row})
	}
	slices.SortFunc(updates, func(a, b sb.Update) int { return cmp.Compare(a.UUID, b.UUID) })
	return updates, nil
}

// replaced returns a row as JSON in which known UUIDs are replaced.
func (c *canon) replaced(row any, self string) (string, error) {
	text, err := json.Marshal(row)
	if err != nil {
		return "", err
	}
	replaced := uuidText.ReplaceAllStringFunc(string(text), func(u string) string {
		if u == self {
			return u
		}
		return cmp.Or(c.known[u], u)
	})
	now := reflect.New(reflect.TypeOf(row).Elem())
	if err := json.Unmarshal([]byte(replaced), now.Interface()); err != nil {
		return "", err
	}
	for _, field := range now.Elem().Fields() {
		if set, ok := reflect.TypeAssert[[]string](field); ok {
			slices.Sort(set)
		}
	}
	text, err = json.Marshal(now.Interface())
	return string(text), err
}
