package ovsdb

import (
	"fmt"
	"reflect"
	"slices"
)

// A Table names a table to monitor and the struct that takes its rows.
type Table struct {
	Name string

	// Row is the zero value of a generated struct, for example
	// sbdb.LogicalFlow{}. Changes carry pointers to such structs.
	Row any

	// Columns restricts the table to some columns; nil means all those of Row.
	// Fields of other columns, and of columns that the server does not have,
	// stay zero.
	Columns []string

	// Where selects the rows that match at least one condition. Nil means all
	// rows, an empty list none. See [Client.SetConditions].
	Where []Condition
}

// maxColumns is the number of bits of a rowUpdate's mask.
const maxColumns = 64

// A tablePlan says how to read the rows of a table into their struct. It is
// made once, by reflection.
type tablePlan struct {
	name    string
	row     reflect.Type
	uuid    int // index of the field tagged _uuid
	columns []column
	index   map[string]int // from column name to position in columns
}

func newTablePlan(t Table) (*tablePlan, error) {
	row := reflect.TypeOf(t.Row)
	if row == nil || row.Kind() != reflect.Struct {
		return nil, fmt.Errorf("ovsdb table %s: Row is %T, want a struct", t.Name, t.Row)
	}
	plan := &tablePlan{name: t.Name, row: row, uuid: -1, index: make(map[string]int)}
	zero := reflect.New(row).Elem()
	for i := range row.NumField() {
		name, ok := row.Field(i).Tag.Lookup("ovsdb")
		if !ok {
			continue
		}
		field := zero.Field(i).Addr().Interface()
		if name == "_uuid" {
			if _, ok := field.(*string); ok {
				plan.uuid = i
			}
			continue
		}
		if t.Columns != nil && !slices.Contains(t.Columns, name) {
			continue
		}
		c, ok := columnFor(field)
		if !ok {
			return nil, fmt.Errorf("ovsdb table %s: column %s: no way to read into %s", t.Name, name, row.Field(i).Type)
		}
		c.name, c.field, c.yield = name, i, new(yield)
		plan.index[name] = len(plan.columns)
		plan.columns = append(plan.columns, c)
	}
	for _, name := range t.Columns {
		if _, ok := plan.index[name]; !ok {
			return nil, fmt.Errorf("ovsdb table %s: %s has no column %s", t.Name, row, name)
		}
	}
	switch {
	case plan.uuid < 0:
		return nil, fmt.Errorf("ovsdb table %s: %s has no string field tagged _uuid", t.Name, row)
	case len(plan.columns) > maxColumns:
		return nil, fmt.Errorf("ovsdb table %s: more than %d columns", t.Name, maxColumns)
	}
	return plan, nil
}

// decode reads a <row> into a new struct. Bit i of the mask is set if
// p.columns[i] was present.
func (p *tablePlan) decode(d *decoder, uuid string) (row any, mask uint64, err error) {
	ptr := reflect.New(p.row)
	v := ptr.Elem()
	v.Field(p.uuid).SetString(uuid)
	err = d.object(func(name []byte) error {
		i, ok := p.index[string(name)]
		if !ok {
			return d.skip()
		}
		c := &p.columns[i]
		d.yield = c.yield
		if err := c.decode(d, v.Field(c.field).Addr().Interface()); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
		mask |= 1 << i
		return nil
	})
	return ptr.Interface(), mask, err
}

// patch returns a copy of old in which the columns of mask are changed by
// their difference.
func (p *tablePlan) patch(old, difference any, mask uint64) any {
	ptr := reflect.New(p.row)
	v, diff := ptr.Elem(), reflect.ValueOf(difference).Elem()
	v.Set(reflect.ValueOf(old).Elem())
	for i := range p.columns {
		if c := &p.columns[i]; mask>>i&1 == 1 {
			c.patch(v.Field(c.field).Addr().Interface(), diff.Field(c.field).Addr().Interface())
		}
	}
	return ptr.Interface()
}

// equal tells whether two rows agree in every column.
func (p *tablePlan) equal(a, b any) bool {
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for i := range p.columns {
		c := &p.columns[i]
		if !c.equal(x.Field(c.field).Addr().Interface(), y.Field(c.field).Addr().Interface()) {
			return false
		}
	}
	return true
}
