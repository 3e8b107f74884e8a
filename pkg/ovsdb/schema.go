package ovsdb

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A schema is what a server says its tables look like, as far as we need it:
// table name, column name, type.
type schema map[string]map[string]columnType

// A columnType is the <type> of RFC 7047, section 3.2.
type columnType struct {
	key, value string // atomic types; value is empty unless this is a map

	// many is true for sets and maps that may have more than one element. Their
	// differences list the elements that only one of two values has; those of
	// all other types are just the new value (ovsdb_type_is_composite).
	many bool
}

// parseSchema returns the tables of a database schema, and its version.
func parseSchema(text []byte) (tables schema, version string, err error) {
	var wire struct {
		Version string `json:"version"`
		Tables  map[string]struct {
			Columns map[string]struct {
				Type columnType `json:"type"`
			} `json:"columns"`
		} `json:"tables"`
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return nil, "", fmt.Errorf("schema: %w", err)
	}
	if len(wire.Tables) == 0 {
		return nil, "", errors.New("schema: no tables")
	}
	s := make(schema, len(wire.Tables))
	for name, table := range wire.Tables {
		columns := make(map[string]columnType, len(table.Columns))
		for column, c := range table.Columns {
			columns[column] = c.Type
		}
		s[name] = columns
	}
	return s, wire.Version, nil
}

// UnmarshalJSON reads either the name of an atomic type or an object.
func (t *columnType) UnmarshalJSON(text []byte) error {
	*t = columnType{}
	if json.Unmarshal(text, &t.key) == nil {
		return nil
	}
	var wire struct {
		Key   baseType        `json:"key"`
		Value baseType        `json:"value"`
		Max   json.RawMessage `json:"max"` // a number or "unlimited", 1 if absent
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	t.key, t.value = string(wire.Key), string(wire.Value)
	t.many = len(wire.Max) > 0 && string(wire.Max) != "1"
	return nil
}

// A baseType is the name of an atomic type; its constraints are the server's
// business.
type baseType string

// UnmarshalJSON reads either the name of an atomic type or an object.
func (b *baseType) UnmarshalJSON(text []byte) error {
	var name string
	if json.Unmarshal(text, &name) == nil {
		*b = baseType(name)
		return nil
	}
	var wire struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	*b = baseType(wire.Type)
	return nil
}
