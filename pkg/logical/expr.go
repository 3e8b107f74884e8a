package logical

// node is one node of an expression.
type node struct{}

func (t *SymbolTable) mustAnnotate(string) *node        { return nil }
func (t *SymbolTable) mustExpand(string) (Level, *node) { return Nominal, nil }
