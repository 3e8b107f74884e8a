package ovsdb

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	libovsdb "github.com/ovn-org/libovsdb/ovsdb"
)

// An Operation is one step of a transaction (RFC 7047, section 5.2). The
// functions of this package make the usual ones.
type Operation = libovsdb.Operation

// An OperationResult is what the server says about an Operation that worked:
// the UUID of an inserted row, or the count of rows that matched. Rows is never
// filled; the contents are read from updates.
type OperationResult = libovsdb.OperationResult

// InsertRow adds a row. Other operations of the transaction may refer to it as
// Ref(name); the name, empty if nobody does, must be an <id>: letters, digits
// and underscores, not starting with a digit. Columns that are not given have
// their default.
//
// A column's value is a string, bool, int, int64, float64, [Ref], [UUID], a
// pointer to, slice or map of such types as generated rows have, or a
// json.Marshaler that produces OVSDB notation.
func InsertRow(table, name string, columns map[string]any) Operation {
	return Operation{Op: libovsdb.OperationInsert, Table: table, UUIDName: name, Row: row(columns)}
}

// UpdateRow replaces columns of the row with the given UUID.
func UpdateRow(table, uuid string, columns map[string]any) Operation {
	return Operation{Op: libovsdb.OperationUpdate, Table: table, Where: is(uuid), Row: row(columns)}
}

// DeleteRow removes the row with the given UUID.
func DeleteRow(table, uuid string) Operation {
	return Operation{Op: libovsdb.OperationDelete, Table: table, Where: is(uuid)}
}

// InsertElements adds elements to a set, or pairs to a map except those whose
// key it has already.
func InsertElements(table, uuid, column string, elements any) Operation {
	return mutate(table, uuid, mutation(column, libovsdb.MutateOperationInsert, elements))
}

// DeleteElements removes elements from a set. From a map it removes the pairs
// given as a map, or, given a slice, those with such keys.
func DeleteElements(table, uuid, column string, elements any) Operation {
	return mutate(table, uuid, mutation(column, libovsdb.MutateOperationDelete, elements))
}

// SetPairs gives the keys of pairs their values and leaves the map's other
// keys alone, as other agents may be writing them.
func SetPairs(table, uuid, column string, pairs map[string]string) Operation {
	return mutate(table, uuid,
		mutation(column, libovsdb.MutateOperationDelete, slices.Sorted(maps.Keys(pairs))),
		mutation(column, libovsdb.MutateOperationInsert, pairs))
}

// OnlyIf restricts an operation on existing rows to those whose columns have the
// given values, beside its other conditions. That no row is left is no error.
func OnlyIf(op Operation, columns map[string]any) Operation {
	op.Where = slices.Clone(op.Where)
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		op.Where = append(op.Where, libovsdb.NewCondition(name, libovsdb.ConditionEqual, value{columns[name]}))
	}
	return op
}

// OnlyIfAtMost restricts an operation on existing rows to those whose column is an integer of at most n, beside its other
// conditions. That no row is left is no error.
func OnlyIfAtMost(op Operation, column string, n int64) Operation {
	op.Where = append(slices.Clone(op.Where), libovsdb.NewCondition(column, libovsdb.ConditionLessThanOrEqual, value{n}))
	return op
}

// Expect makes the transaction fail with the error "timed out" unless columns
// of the row have the given values. It does not wait.
func Expect(table, uuid string, columns map[string]any) Operation {
	now := 0
	return Operation{
		Op: libovsdb.OperationWait, Table: table, Where: is(uuid), Timeout: &now,
		Columns: slices.Sorted(maps.Keys(columns)), Until: string(libovsdb.WaitConditionEqual), Rows: []libovsdb.Row{row(columns)},
	}
}

// Comment adds a text to the server's log of the transaction.
func Comment(text string) Operation {
	return Operation{Op: libovsdb.OperationComment, Comment: &text}
}

func row(columns map[string]any) libovsdb.Row {
	r := make(libovsdb.Row, len(columns))
	for name, v := range columns {
		r[name] = value{v}
	}
	return r
}

func is(uuid string) []libovsdb.Condition {
	return []libovsdb.Condition{libovsdb.NewCondition("_uuid", libovsdb.ConditionEqual, value{Ref(uuid)})}
}

func mutation(column string, mutator libovsdb.Mutator, v any) libovsdb.Mutation {
	return *libovsdb.NewMutation(column, mutator, value{v})
}

func mutate(table, uuid string, mutations ...libovsdb.Mutation) Operation {
	return Operation{Op: libovsdb.OperationMutate, Table: table, Where: is(uuid), Mutations: mutations}
}

// encodeTransaction returns the parameters of a transact request.
func encodeTransaction(database string, ops []Operation) ([]byte, error) {
	params := make([]any, 1, 1+len(ops))
	params[0] = database
	for i, op := range ops {
		switch {
		case op.Op == libovsdb.OperationSelect:
			return nil, fmt.Errorf("ovsdb transact: operation %d: select: read updates instead", i)
		case op.Op == libovsdb.OperationInsert && len(op.Row) == 0:
			// libovsdb would leave the row out, which the server refuses.
			type operation Operation
			params = append(params, struct {
				operation
				Row struct{} `json:"row"`
			}{operation: operation(op)})
		default:
			params = append(params, op)
		}
	}
	text, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("ovsdb transact: %w", err)
	}
	return text, nil
}

// A TransactError says which operation of a transaction the server refused,
// and why. Nothing of the transaction was done.
type TransactError struct {
	Index   int    // of the operation; the number of operations if committing failed
	Op      string // "commit" if committing failed
	Table   string
	Code    string // "constraint violation", "permission error", ... (RFC 7047, ovsdb-server(7))
	Details string
}

// Error names the operation, its table and the server's reason.
func (e *TransactError) Error() string {
	object := e.Op
	if e.Table != "" {
		object += " " + e.Table
	}
	if e.Details == "" {
		return fmt.Sprintf("ovsdb transact %s: %s", object, e.Code)
	}
	return fmt.Sprintf("ovsdb transact %s: %s: %s", object, e.Code, e.Details)
}

// decodeResults reads the reply to a transaction.
func decodeResults(m *message, ops []Operation) ([]OperationResult, error) {
	if m.fault != nil {
		return nil, &TransactError{Index: len(ops), Op: "commit", Code: faultText(m.fault)}
	}
	var wire []*struct {
		Count   int             `json:"count"`
		Error   string          `json:"error"`
		Details string          `json:"details"`
		UUID    json.RawMessage `json:"uuid"`
	}
	if err := json.Unmarshal(m.value, &wire); err != nil {
		return nil, fmt.Errorf("ovsdb transact: reply: %w", err)
	}
	results := make([]OperationResult, len(ops))
	for i, w := range wire {
		if w == nil {
			continue // an operation that was not tried, because one before it failed
		}
		if w.Error != "" {
			e := &TransactError{Index: i, Op: "commit", Code: w.Error, Details: w.Details}
			if i < len(ops) {
				e.Op, e.Table = ops[i].Op, ops[i].Table
			}
			return nil, e
		}
		if i >= len(ops) {
			continue
		}
		results[i].Count = w.Count
		var ref []string
		if json.Unmarshal(w.UUID, &ref) == nil && len(ref) == 2 {
			results[i].UUID.GoUUID = ref[1]
		}
	}
	if len(wire) < len(ops) {
		return nil, fmt.Errorf("ovsdb transact: %d results for %d operations", len(wire), len(ops))
	}
	return results, nil
}

// faultText makes the error of a JSON-RPC reply readable: a string, or an
// object like {"error": ..., "details": ...}.
func faultText(fault []byte) string {
	var object struct {
		Error   string `json:"error"`
		Details string `json:"details"`
	}
	if json.Unmarshal(fault, &object) == nil && object.Error != "" {
		if object.Details == "" {
			return object.Error
		}
		return object.Error + ": " + object.Details
	}
	var text string
	if json.Unmarshal(fault, &text) == nil {
		return text
	}
	return string(fault)
}
