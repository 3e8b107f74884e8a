package chassis

// Clause is one condition of a conditional monitor, ovsdb-server(7), section 4.1.12. The zero Clause holds for
// every row.
type Clause struct {
	Column   string
	Function string // "==", "!=" or "includes"
	Value    any    // as in Op
}
