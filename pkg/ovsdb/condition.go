package ovsdb

import (
	"bytes"
	"encoding/json"
	"fmt"

	libovsdb "github.com/ovn-org/libovsdb/ovsdb"
)

// A Condition selects rows, see <condition> in RFC 7047, section 5.1, and in
// ovsdb-server(7). Lists of conditions select the rows that match any of them.
// The zero Condition is not valid; make one with a function of this package.
type Condition struct {
	column   string
	function libovsdb.ConditionFunction
	value    any // a truth value if column is empty
}

// True matches all rows.
func True() Condition { return Condition{value: true} }

// False matches no row.
func False() Condition { return Condition{value: false} }

// Equal matches rows whose column has exactly this value; a reference is a
// [Ref]. Any type that transactions accept is accepted, see [InsertRow].
func Equal(column string, v any) Condition {
	return Condition{column, libovsdb.ConditionEqual, v}
}

// NotEqual matches rows whose column has another value.
func NotEqual(column string, v any) Condition {
	return Condition{column, libovsdb.ConditionNotEqual, v}
}

// Includes matches rows whose column, a set or map, has all elements of v.
func Includes(column string, v any) Condition {
	return Condition{column, libovsdb.ConditionIncludes, v}
}

// Excludes matches rows whose column, a set or map, has no element of v.
func Excludes(column string, v any) Condition {
	return Condition{column, libovsdb.ConditionExcludes, v}
}

// NotEmpty matches rows whose column, an optional value or a set, has an
// element.
func NotEmpty(column string) Condition { return NotEqual(column, []string(nil)) }

// MarshalJSON returns the <condition>.
func (c Condition) MarshalJSON() ([]byte, error) {
	if c.column == "" {
		return json.Marshal(c.value)
	}
	return json.Marshal([]any{c.column, c.function, value{c.value}})
}

// A clauseList is what the server is told to select of a table.
type clauseList struct {
	columns []string // that the conditions name
	text    []byte   // JSON
}

// newClauseList encodes a list. Lists that select the same in an obvious way
// have the same text.
func newClauseList(list []Condition) (clauseList, error) {
	var c clauseList
	if list == nil {
		c.text = []byte("[true]")
		return c, nil
	}
	var b bytes.Buffer
	for _, condition := range list {
		if condition.column == "" {
			if condition.value == true {
				return clauseList{text: []byte("[true]")}, nil
			}
			continue
		}
		text, err := condition.MarshalJSON()
		if err != nil {
			return clauseList{}, fmt.Errorf("ovsdb condition on %s: %w", condition.column, err)
		}
		c.columns = append(c.columns, condition.column)
		if b.Len() == 0 {
			b.WriteByte('[')
		} else {
			b.WriteByte(',')
		}
		b.Write(text)
	}
	if b.Len() == 0 {
		// An empty list would select everything.
		return clauseList{text: []byte("[false]")}, nil
	}
	b.WriteByte(']')
	c.text = b.Bytes()
	return c, nil
}
