// Command gen writes the row types of one OVSDB schema: a file per table made
// by libovsdb's modelgen, and a package comment that says which release of the
// schema they describe.
//
// The schemas are those the distribution installs. The release is pinned with
// -version, so that generating on a machine with another release is an error
// and not a silent change.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/format"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/ovn-org/libovsdb/modelgen"
	"github.com/ovn-org/libovsdb/ovsdb"
)

func main() {
	pkg := flag.String("package", "", "name of the generated package, and of its directory")
	schema := flag.String("schema", "", "path of the .ovsschema file")
	version := flag.String("version", "", "the schema version that is expected there")
	release := flag.String("release", "", "the distribution release that ships it")
	flag.Parse()
	if err := generate(*pkg, *schema, *version, *release); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// generate replaces every *.gen.go of the directory pkg.
func generate(pkg, path, version, release string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var schema ovsdb.DatabaseSchema
	if err := json.Unmarshal(text, &schema); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if schema.Version != version {
		return fmt.Errorf("%s: schema version %s, want %s as in %s", path, schema.Version, version, release)
	}
	if err := os.MkdirAll(pkg, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(pkg, "*.gen.go"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	header := fmt.Sprintf("// Code generated from %s %s (%s) by libovsdb's modelgen; DO NOT EDIT.\n",
		schema.Name, schema.Version, release)
	generator, err := modelgen.NewGenerator()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Tables)) {
		table := schema.Tables[name]
		tmpl := template.Must(modelgen.NewTableTemplate().Parse(`{{define "header"}}` + header + `{{end}}`))
		file := strings.TrimSuffix(modelgen.FileName(name), ".go") + ".gen.go"
		if err := generator.Generate(filepath.Join(pkg, file), tmpl, modelgen.GetTableTemplateData(pkg, name, &table)); err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
	}
	return writeDoc(filepath.Join(pkg, "doc.gen.go"), header, pkg, schema)
}

func writeDoc(path, header, pkg string, schema ovsdb.DatabaseSchema) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n", header)
	fmt.Fprintf(&b, "// Package %s has one struct per table of the %s database, with the columns of schema version %s.\n",
		pkg, schema.Name, schema.Version)
	fmt.Fprintf(&b, "//\n// References to rows are UUIDs in text form. An optional column is a pointer, nil when it is\n")
	fmt.Fprintf(&b, "// empty; a set is a slice in ascending order; an empty set or map is nil.\n")
	fmt.Fprintf(&b, "package %s\n\n", pkg)
	fmt.Fprintf(&b, "// Database is the name of the database.\nconst Database = %q\n\n", schema.Name)
	fmt.Fprintf(&b, "// SchemaVersion is the version of the schema that the structs describe.\nconst SchemaVersion = %q\n", schema.Version)
	text, err := format.Source(b.Bytes())
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
