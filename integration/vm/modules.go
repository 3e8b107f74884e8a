package vm

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// loadOrder returns the files of the named modules and of those they need, each once, in an order in which insmod(8)
// takes them. dep is the contents of modules.dep: a line "file: what it needs", the first to load last.
func loadOrder(dep string, names []string) ([]string, error) {
	needs := map[string][]string{}
	file := map[string]string{}
	for line := range strings.Lines(dep) {
		f, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[f] = strings.Fields(rest)
		file[strings.TrimSuffix(path.Base(f), ".ko")] = f
	}
	var order []string
	for _, name := range names {
		f, ok := file[name]
		if !ok {
			return nil, fmt.Errorf("no module %s in modules.dep", name)
		}
		for _, m := range slices.Backward(append([]string{f}, needs[f]...)) {
			if !slices.Contains(order, m) {
				order = append(order, m)
			}
		}
	}
	return order, nil
}
