package chassis

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// DB is one of the two databases a chassis writes.
type DB int

// The databases.
const (
	Southbound DB = iota
	OpenvSwitch
)

// String returns the name of the database as its schema gives it.
func (d DB) String() string {
	switch d {
	case Southbound:
		return "OVN_Southbound"
	case OpenvSwitch:
		return "Open_vSwitch"
	}
	panic(fmt.Sprintf("chassis: unknown database %d", int(d)))
}

// OpKind says what an Op does to its row. The names are those of RFC 7047, section 5.2.
type OpKind int

// The kinds of operation.
const (
	Insert OpKind = iota
	Update
	Mutate
	Delete
)

// Op is one write, as a value. The ops of a plan for one database are one transaction, in order.
//
// A column value is a string, bool, int64, []string, map[string]string, Ref, []Ref or map[string]Ref; nil is the
// empty set.
type Op struct {
	DB    DB
	Kind  OpKind
	Table string
	// UUID is the row of an Update, Mutate or Delete, in its 36-character form.
	UUID string
	// Name is the named-uuid of an Insert, by which other ops of the transaction refer to the row. It may be empty.
	Name string
	// Where holds further conditions: the op changes nothing unless each of these columns equals its value.
	Where map[string]any
	// Set holds the columns that an Insert or Update assigns.
	Set map[string]any
	// Remove holds what a Mutate deletes: the keys of a map column ([]string) or the elements of a set column
	// ([]string or []Ref). It takes effect before Add.
	Remove map[string]any
	// Add holds what a Mutate inserts: the pairs of a map column or the elements of a set column. The old value of
	// a key that should change is in Remove, since OVSDB keeps the pair that is there.
	Add map[string]any
}

// Ref refers to a row: to an existing one by UUID, or to one inserted in the same transaction by its Op.Name.
type Ref struct{ UUID, Name string }

// String returns the UUID, or the name behind an @ as ovs-vsctl(8) writes it.
func (r Ref) String() string {
	if r.Name != "" {
		return "@" + r.Name
	}
	return r.UUID
}

// String returns the op on one line: + for an insert, - for a delete, ~ for a change, then the table, the row and
// the columns in order. In a mutation k-=v and k+=v stand for removing and adding.
func (o Op) String() string {
	var b strings.Builder
	switch o.Kind {
	case Insert:
		b.WriteString("+ ")
	case Update, Mutate:
		b.WriteString("~ ")
	case Delete:
		b.WriteString("- ")
	default:
		panic(fmt.Sprintf("chassis: unknown op kind %d", int(o.Kind)))
	}
	b.WriteString(o.Table)
	if o.UUID != "" {
		b.WriteString(" " + o.UUID)
	}
	if o.Name != "" {
		b.WriteString(" @" + o.Name)
	}
	for _, part := range []struct {
		sign string
		cols map[string]any
	}{{"==", o.Where}, {"=", o.Set}, {"-=", o.Remove}, {"+=", o.Add}} {
		for _, col := range slices.Sorted(maps.Keys(part.cols)) {
			fmt.Fprintf(&b, " %s%s%s", col, part.sign, formatValue(part.cols[col]))
		}
	}
	return b.String()
}

func formatValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "[]"
	case string:
		return quote(v)
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case Ref:
		return v.String()
	case []string:
		return formatSet(v, quote)
	case []Ref:
		return formatSet(v, Ref.String)
	case map[string]string:
		return formatMap(v, quote)
	case map[string]Ref:
		return formatMap(v, Ref.String)
	}
	panic(fmt.Sprintf("chassis: column value of type %T", v))
}

func formatSet[T any](set []T, format func(T) string) string {
	parts := make([]string, 0, len(set))
	for _, v := range set {
		parts = append(parts, format(v))
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func formatMap[T any](m map[string]T, format func(T) string) string {
	parts := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, quote(k)+"="+format(m[k]))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// quote returns s in quotes unless it can be read without.
func quote(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r == '"' || r == ',' || r == '=' || r == '[' || r == '{' || r > '~'
	}) < 0
	if plain {
		return s
	}
	return strconv.Quote(s)
}

// A transaction collects the ops for one database. It stays empty while the database takes none.
type transaction struct {
	db        DB
	open      bool
	hasColumn func(db DB, table, column string) bool
	ops       []Op
	names     int
}

// add appends op without the columns the server's schema lacks, and reports whether it will be sent.
func (t *transaction) add(op Op) bool {
	if !t.open {
		return false
	}
	op.DB = t.db
	op.Set = t.known(op.Table, op.Set)
	op.Remove = t.known(op.Table, op.Remove)
	op.Add = t.known(op.Table, op.Add)
	if op.Kind != Delete && len(op.Set) == 0 && len(op.Remove) == 0 && len(op.Add) == 0 {
		return false
	}
	t.ops = append(t.ops, op)
	return true
}

func (t *transaction) known(table string, cols map[string]any) map[string]any {
	if t.hasColumn == nil {
		return cols
	}
	out := map[string]any{}
	for col, v := range cols {
		if t.hasColumn(t.db, table, col) {
			out[col] = v
		}
	}
	return out
}

// name returns a named-uuid that no other op of the transaction has.
func (t *transaction) name() string {
	t.names++
	return "row" + strconv.Itoa(t.names)
}

// setKeys makes the pairs of want true in a map column whose current contents are have, leaving other keys alone.
func (t *transaction) setKeys(table, uuid, column string, have, want map[string]string) bool {
	var stale []string
	pairs := map[string]string{}
	for k, v := range want {
		old, ok := have[k]
		if ok && old == v {
			continue
		}
		if ok {
			stale = append(stale, k)
		}
		pairs[k] = v
	}
	if len(pairs) == 0 {
		return false
	}
	op := Op{Kind: Mutate, Table: table, UUID: uuid, Add: map[string]any{column: pairs}}
	if len(stale) > 0 {
		slices.Sort(stale)
		op.Remove = map[string]any{column: stale}
	}
	return t.add(op)
}

// dropKeys removes those of keys that a map column has.
func (t *transaction) dropKeys(table, uuid, column string, have map[string]string, keys ...string) {
	var present []string
	for _, k := range keys {
		if _, ok := have[k]; ok {
			present = append(present, k)
		}
	}
	if len(present) == 0 {
		return
	}
	slices.Sort(present)
	t.add(Op{Kind: Mutate, Table: table, UUID: uuid, Remove: map[string]any{column: present}})
}

func compareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.UUID, b.UUID), cmp.Compare(a.Name, b.Name))
}
