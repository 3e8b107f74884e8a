package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Source is a live bridge.
type Source struct {
	Database string // remote of its Open_vSwitch database, such as unix:/run/openvswitch/db.sock
	Bridge   string // mostly br-int
	Switch   string // its OpenFlow socket; "" means unix:BRIDGE.mgmt in the directory of a unix: Database
}

// Dump asks ovs-ofctl and ovsdb-client for everything Normalise needs.
func (s Source) Dump(ctx context.Context) (Dump, error) {
	mgmt := s.Switch
	if mgmt == "" {
		path, ok := strings.CutPrefix(s.Database, "unix:")
		if !ok {
			return Dump{}, fmt.Errorf("parity: dump %s: no OpenFlow socket given and %s is not a unix socket", s.Bridge, s.Database)
		}
		mgmt = "unix:" + filepath.Join(filepath.Dir(path), s.Bridge+".mgmt")
	}
	d := Dump{Ports: make(map[uint64]string), Zones: make(map[uint64]string)}
	for _, part := range []struct {
		command string
		to      *string
	}{
		{"dump-flows", &d.Flows}, {"dump-groups", &d.Groups}, {"dump-meters", &d.Meters}, {"dump-tlv-map", &d.TLVs},
	} {
		out, err := output(ctx, "ovs-ofctl", "-O", "OpenFlow15", "--no-names", "--no-stats", part.command, mgmt)
		if err != nil {
			return Dump{}, err
		}
		*part.to = string(out)
	}
	return d, s.names(ctx, &d)
}

// names fills in what ports and zones mean.
func (s Source) names(ctx context.Context, d *Dump) error {
	results, err := transact(ctx, s.Database, "Open_vSwitch",
		selectRows("Bridge", []any{[]any{"name", "==", s.Bridge}}, "ports", "external_ids"),
		selectRows("Port", nil, "_uuid", "interfaces", "external_ids"),
		selectRows("Interface", nil, "_uuid", "name", "ofport", "external_ids"))
	if err != nil {
		return err
	}
	if len(results[0]) == 0 {
		return fmt.Errorf("parity: dump %s: no such bridge in %s", s.Bridge, s.Database)
	}
	bridge := results[0][0]
	for key, value := range pairs(bridge["external_ids"]) {
		if zone, ok := strings.CutPrefix(key, "ct-zone-"); ok {
			var n uint64
			if _, err := fmt.Sscan(value, &n); err != nil {
				return fmt.Errorf("parity: dump %s: zone %q: %w", s.Bridge, key, err)
			}
			d.Zones[n] = joinNames(d.Zones[n], zone)
		}
	}
	ports, interfaces := byUUID(results[1]), byUUID(results[2])
	for _, p := range elements(bridge["ports"]) {
		for _, i := range elements(ports[p]["interfaces"]) {
			row := interfaces[i]
			ofport, ok := row["ofport"].(float64)
			if !ok || ofport < 1 {
				continue
			}
			name, _ := row["name"].(string)
			n := uint64(ofport)
			d.Ports[n] = joinNames(d.Ports[n], portName(name, pairs(row["external_ids"]), pairs(ports[p]["external_ids"])))
		}
	}
	return nil
}

// portName says what a port is for in words that do not depend on how an agent named it.
func portName(name string, iface, port map[string]string) string {
	for _, key := range []string{"ovn-chassis-id", "ovn-localnet-port", "ovn-l2gateway-port"} {
		if v := port[key]; v != "" {
			return strings.TrimPrefix(key, "ovn-") + " " + v
		}
	}
	if v := iface["iface-id"]; v != "" {
		return "lport " + v
	}
	return "interface " + name
}

func joinNames(a, b string) string {
	if a == "" {
		return b
	}
	return min(a, b) + "|" + max(a, b)
}

// ReadLflows reads the Logical_Flow table of a Southbound database.
func ReadLflows(ctx context.Context, remote string) ([]Lflow, error) {
	results, err := transact(ctx, remote, "OVN_Southbound",
		selectRows("Logical_Flow", nil, "_uuid", "pipeline", "table_id", "priority", "match", "actions", "external_ids"))
	if err != nil {
		return nil, err
	}
	lflows := make([]Lflow, 0, len(results[0]))
	for _, row := range results[0] {
		l := Lflow{UUID: elements(row["_uuid"])[0], Stage: pairs(row["external_ids"])["stage-name"]}
		l.Pipeline, _ = row["pipeline"].(string)
		l.Match, _ = row["match"].(string)
		l.Actions, _ = row["actions"].(string)
		table, _ := row["table_id"].(float64)
		priority, _ := row["priority"].(float64)
		l.Table, l.Priority = int(table), int(priority)
		lflows = append(lflows, l)
	}
	return lflows, nil
}

// selectRows is the operation of RFC 7047 section 5.2.2.
func selectRows(table string, where []any, columns ...string) map[string]any {
	if where == nil {
		where = []any{}
	}
	return map[string]any{"op": "select", "table": table, "where": where, "columns": columns}
}

// transact runs selects in one ovsdb-client and returns the rows of each.
func transact(ctx context.Context, remote, database string, ops ...map[string]any) ([][]map[string]any, error) {
	request := []any{database}
	for _, op := range ops {
		request = append(request, op)
	}
	text, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("parity: transact %s: %w", database, err)
	}
	out, err := output(ctx, "ovsdb-client", "transact", remote, string(text))
	if err != nil {
		return nil, err
	}
	var replies []struct {
		Rows  []map[string]any `json:"rows"`
		Error string           `json:"error"`
	}
	if err := json.Unmarshal(out, &replies); err != nil {
		return nil, fmt.Errorf("parity: transact %s: %w", database, err)
	}
	if len(replies) < len(ops) {
		return nil, fmt.Errorf("parity: transact %s: %d results for %d operations", database, len(replies), len(ops))
	}
	rows := make([][]map[string]any, len(ops))
	for i := range ops {
		if replies[i].Error != "" {
			return nil, fmt.Errorf("parity: transact %s: %s", database, replies[i].Error)
		}
		rows[i] = replies[i].Rows
	}
	return rows, nil
}

// byUUID indexes rows by their _uuid column.
func byUUID(rows []map[string]any) map[string]map[string]any {
	m := make(map[string]map[string]any, len(rows))
	for _, row := range rows {
		if ids := elements(row["_uuid"]); len(ids) == 1 {
			m[ids[0]] = row
		}
	}
	return m
}

// elements reads a UUID or a set of them in the notation of RFC 7047 section 5.1.
func elements(value any) []string {
	list, ok := value.([]any)
	if !ok || len(list) != 2 {
		return nil
	}
	if list[0] == "uuid" {
		id, _ := list[1].(string)
		return []string{id}
	}
	var ids []string
	members, _ := list[1].([]any)
	for _, m := range members {
		ids = append(ids, elements(m)...)
	}
	return ids
}

// pairs reads a map of strings in the notation of RFC 7047 section 5.1.
func pairs(value any) map[string]string {
	m := make(map[string]string)
	list, ok := value.([]any)
	if !ok || len(list) != 2 {
		return m
	}
	members, _ := list[1].([]any)
	for _, member := range members {
		if kv, ok := member.([]any); ok && len(kv) == 2 {
			k, _ := kv[0].(string)
			v, _ := kv[1].(string)
			m[k] = v
		}
	}
	return m
}

// output runs a program and returns what it printed; an error carries what it complained about.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("parity: %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(exit.Stderr))
	}
	if err != nil {
		return nil, fmt.Errorf("parity: %s %s: %w", name, strings.Join(args, " "), err)
	}
	return out, nil
}
