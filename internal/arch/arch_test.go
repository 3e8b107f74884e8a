// Package arch tests that the packages of the project import each other and the world only as its map allows.
package arch

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/offloadd/offloadd"

// A room is a package, what it may import of the project, and whether it may touch the world.
type room struct {
	// imports are packages of this module, or trees of them if the name ends in /...
	imports []string

	// pure rooms import neither what does input and output or reads the clock (see impure), nor any other module.
	pure bool

	// values are packages that a pure room imports nonetheless, for values only: a duration, a histogram, a font.
	values []string

	// doors are the files of a pure room to which that does not apply.
	doors []string
}

// rooms is the map of the building: data walks from the databases through the pure rooms to the switch. Test
// files may import more; only what ships is held to the map.
var rooms = map[string]room{
	"cmd/offloadd":    {imports: []string{"pkg/daemon", "pkg/chassis", "pkg/api", "pkg/ports", "pkg/probe/engine", "pkg/probe/path", "pkg/probe/pinger", "pkg/probe/train"}},
	"cmd/offload-cni": {imports: []string{"pkg/api/client", "pkg/reason", "proto/offload/v1"}},
	"cmd/offloadctl": {imports: []string{
		"pkg/api/client", "pkg/reason", "proto/offload/v1",
		"pkg/tc", "pkg/ovsdb", "pkg/ovsdb/vswitchdb", "pkg/dpctl", // doctor
		"pkg/probe/result", "pkg/probe/stats", "pkg/probe/report", // what a probe has measured
		"pkg/api", "pkg/probe", "pkg/probe/engine", "pkg/probe/path", "pkg/apply", // a probe without a daemon
	}},

	"pkg/daemon": {imports: []string{"internal/statefile", "pkg/..."}},

	"pkg/ovsdb":              {imports: []string{"pkg/ovsdb/sbdb", "pkg/ovsdb/vswitchdb"}},
	"pkg/ovsdb/sbdb":         {pure: true},
	"pkg/ovsdb/vswitchdb":    {pure: true},
	"pkg/ovsdb/ovsdbtest":    {imports: []string{"pkg/ovsdb/..."}},
	"pkg/ovsdb/internal/gen": {},

	"pkg/ir":                    {pure: true},
	"pkg/eval":                  {pure: true, imports: []string{"pkg/ir", "pkg/tc"}},
	"pkg/tc":                    {pure: true, imports: []string{"internal/nlgroup", "pkg/ir"}, doors: []string{"conn.go", "caps_probe.go", "why.go"}},
	"pkg/tc/tctest":             {},
	"pkg/devlink":               {pure: true, imports: []string{"internal/nlgroup"}, doors: []string{"conn.go"}},
	"pkg/devlink/devlinktest":   {imports: []string{"pkg/devlink"}},
	"pkg/specialize":            {pure: true, imports: []string{"pkg/ir", "pkg/tc"}},
	"pkg/logical":               {pure: true, imports: []string{"pkg/ir"}},
	"pkg/sb":                    {pure: true, imports: []string{"pkg/ovsdb/sbdb", "pkg/ovsdb/vswitchdb"}},
	"pkg/chassis":               {pure: true, imports: []string{"pkg/sb", "pkg/ovsdb/sbdb", "pkg/ovsdb/vswitchdb"}},
	"pkg/compile":               {pure: true, imports: []string{"pkg/ir", "pkg/logical", "pkg/sb", "pkg/chassis", "pkg/openflow"}},
	"pkg/openflow":              {pure: true, imports: []string{"pkg/ir"}, doors: []string{"conn.go"}},
	"pkg/openflow/openflowtest": {},
	"pkg/dpctl":                 {pure: true, imports: []string{"pkg/ir"}, doors: []string{"conn.go"}},
	"pkg/device": {
		pure: true, imports: []string{"internal/nlgroup", "internal/statefile", "pkg/devlink", "pkg/reason"},
		doors: []string{"inventory.go", "worker.go", "configure.go", "operation.go", "snapshot.go", "kernel.go", "sysfs.go", "memory.go"},
	},
	"pkg/apply": {
		pure: true, imports: []string{"pkg/ir", "pkg/openflow", "pkg/specialize", "pkg/tc"}, doors: []string{"flows.go", "filters.go", "withdraw.go", "revoke.go", "probes.go"},
	},

	"pkg/trace": {pure: true, imports: []string{
		"pkg/ir", "pkg/eval", "pkg/logical", "pkg/openflow", "pkg/sb", "pkg/chassis", "pkg/compile", "pkg/reason",
	}},

	"pkg/pinctrl": {pure: true, imports: []string{"pkg/ir", "pkg/openflow", "pkg/compile"}, doors: []string{"conn.go"}},

	"pkg/probe":        {imports: []string{"pkg/probe/ledger", "pkg/dpctl", "pkg/probe/result", "pkg/probe/engine", "pkg/probe/path", "pkg/probe/train", "pkg/probe/stats", "pkg/probe/report", "pkg/reason"}},
	"pkg/probe/result": {pure: true, values: []string{"time"}},
	"pkg/probe/ledger": {pure: true, imports: []string{"pkg/ir", "pkg/tc", "pkg/specialize", "pkg/dpctl", "pkg/probe/result"}, values: []string{"net", "time"}},
	"pkg/probe/child":  {},
	"pkg/probe/engine": {imports: []string{"pkg/probe/child", "pkg/probe/result", "pkg/probe/stats"}},
	"pkg/probe/pinger": {imports: []string{"pkg/probe/child", "pkg/probe/engine"}},
	"pkg/probe/train":  {imports: []string{"pkg/probe/child"}},
	"pkg/probe/monitor": {
		pure: true, imports: []string{"internal/statefile", "pkg/probe/pinger", "pkg/probe/stats", "pkg/reason"}, values: []string{"time"}, doors: []string{"monitor.go", "memory.go"},
	},
	"pkg/metrics":     {imports: []string{"pkg/probe/monitor"}},
	"pkg/probe/path":  {imports: []string{"internal/netnsdir", "pkg/probe/result", "pkg/ir", "pkg/tc", "pkg/dpctl"}},
	"pkg/probe/stats": {pure: true, imports: []string{"pkg/probe/result"}, values: []string{"github.com/HdrHistogram/hdrhistogram-go"}},
	"pkg/probe/report": {pure: true, imports: []string{"pkg/probe/result", "pkg/probe/stats"}, values: []string{
		"time", "golang.org/x/image/font", "golang.org/x/image/font/gofont/goregular", "golang.org/x/image/font/opentype",
		"golang.org/x/image/math/fixed", "golang.org/x/image/vector",
	}},

	"pkg/reason":                   {pure: true},
	"pkg/ports":                    {imports: []string{"pkg/reason", "pkg/device", "pkg/ovsdb", "pkg/ovsdb/vswitchdb"}},
	"pkg/api":                      {imports: []string{"pkg/ports", "pkg/device", "pkg/devlink", "pkg/probe", "pkg/probe/monitor", "pkg/probe/path", "pkg/probe/result", "pkg/reason", "proto/offload/v1"}},
	"pkg/api/client":               {imports: []string{"pkg/reason"}},
	"pkg/deviceplugin/kubelettest": {},
	"pkg/deviceplugin":             {imports: []string{"pkg/device", "pkg/devlink", "pkg/reason"}},
	"proto/offload/v1":             {},

	"internal/apidoc":    {},
	"internal/arch":      {},
	"internal/golden":    {},
	"internal/nlgroup":   {},
	"internal/netnsdir":  {},
	"internal/statefile": {},

	"integration":     {},
	"integration/...": {imports: []string{"integration/...", "internal/...", "pkg/...", "proto/..."}},
}

// impure packages of the standard library reach out of the program, or read its clock. net/netip and the
// other packages below net are values only, unless named here.
var impure = []string{"os", "os/...", "net", "net/http/...", "net/rpc/...", "net/smtp", "time", "sync", "sync/...", "log", "log/...", "syscall", "unsafe"}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range sources(t) {
		name, r, ok := find(f.pkg)
		if !ok {
			t.Errorf("%s: package %s is not in the map: give it a place there, or put the code where it belongs", f.path, f.pkg)
			continue
		}
		seen[name] = true
		for _, imp := range f.imports {
			if why := r.refuses(f, imp); why != "" {
				t.Errorf("%s imports %s: %s", f.path, imp, why)
			}
		}
	}
	for name := range rooms {
		if !seen[name] {
			t.Errorf("the map has %s, which does not exist", name)
		}
	}
}

// The map has a direction: nothing that a room imports leads back to the room.
func TestNoWayBack(t *testing.T) {
	for name, r := range rooms {
		if !r.pure {
			continue
		}
		for _, imp := range r.imports {
			if _, next, ok := find(imp); !ok || slices.Contains(next.imports, name) {
				t.Errorf("%s may import %s, which is no room or may import %s", name, imp, name)
			}
		}
	}
}

// refuses says why f may not import imp, or nothing.
func (r room) refuses(f source, imp string) string {
	if local, ok := strings.CutPrefix(imp, module+"/"); ok {
		if covers(r.imports, local) {
			return ""
		}
		return fmt.Sprintf("the map lets %s import %v of this module", f.pkg, r.imports)
	}
	if !r.pure || slices.Contains(r.doors, path.Base(f.path)) || slices.Contains(r.values, imp) {
		return ""
	}
	if covers(impure, imp) {
		return f.pkg + " is pure: it decides, and leaves acting to a door"
	}
	if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") {
		return f.pkg + " is pure: it needs nothing but the standard library"
	}
	return ""
}

func find(pkg string) (string, room, bool) {
	if r, ok := rooms[pkg]; ok {
		return pkg, r, true
	}
	for name, r := range rooms {
		if strings.HasSuffix(name, "/...") && covers([]string{name}, pkg) {
			return name, r, true
		}
	}
	return "", room{}, false
}

// covers reports whether one of the patterns is pkg, or a tree (x/...) with pkg inside.
func covers(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		tree, ok := strings.CutSuffix(p, "/...")
		return p == pkg || ok && strings.HasPrefix(pkg, tree+"/")
	})
}

type source struct {
	path    string // below the module's root
	pkg     string // likewise
	imports []string
}

// sources reads the imports of every Go file that ships. It reads the files itself, for go test caches results
// and would not notice what a subprocess read.
func sources(t *testing.T) []source {
	t.Helper()
	const root = "../.."
	var found []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			_, err := os.Stat(filepath.Join(p, "go.mod"))
			if p != root && (err == nil || name == "testdata" || strings.HasPrefix(name, ".") || name == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") && !strings.HasSuffix(p, "arch_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		s := source{path: rel, pkg: path.Dir(rel)}
		for _, imp := range file.Imports {
			value, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, value)
		}
		found = append(found, s)
		return nil
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("reading the sources: %d files, %v", len(found), err)
	}
	return found
}
