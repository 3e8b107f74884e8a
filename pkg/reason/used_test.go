package reason

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A reason that nothing gives is none.
func TestUsed(t *testing.T) {
	var sources strings.Builder
	for _, root := range []string{"../../cmd", "../../pkg"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == "../../pkg/reason" {
				return err
			}
			text, err := os.ReadFile(path)
			sources.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`\breason\.(\w+)`).FindAllStringSubmatch(sources.String(), -1) {
		used[m[1]] = true
	}
	for _, name := range slices.Sorted(maps.Keys(constants(t))) {
		if !used[name] {
			t.Errorf("nothing uses %s", name)
		}
	}
}
