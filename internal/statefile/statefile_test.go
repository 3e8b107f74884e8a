package statefile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/statefile"
)

func TestReadWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "state.json")
	got := []string{"as it was"}
	if found, err := statefile.Read(file, 100, &got); err != nil || found || got[0] != "as it was" {
		t.Errorf("Read without a file = %v, %v, and %q", found, err, got)
	}
	for _, want := range []string{"first", "second"} {
		if err := statefile.Write(file, []string{want}); err != nil {
			t.Fatal(err)
		}
		if found, err := statefile.Read(file, 100, &got); err != nil || !found || len(got) != 1 || got[0] != want {
			t.Errorf("Read after Write of %s = %v, %v, and %q", want, found, err, got)
		}
	}
	if found, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); err != nil || len(found) != 1 {
		t.Errorf("files left: %v, %v", found, err)
	}
}

func TestReadBad(t *testing.T) {
	for name, tt := range map[string]struct{ text, why string }{
		"too large": {`"` + strings.Repeat("x", 100) + `"`, "larger than 100 octets"},
		"cut off":   {`["a"`, "unexpected end"},
		"two":       {`["a"] ["b"]`, "after top-level value"},
		"empty":     {"", "unexpected end"},
		"another":   {`{"a": 1}`, "cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state.json")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var got []string
			found, err := statefile.Read(file, 100, &got)
			if found || err == nil || !strings.Contains(err.Error(), tt.why) || !strings.Contains(err.Error(), file) {
				t.Errorf("Read of %q = %v, %v", tt.text, found, err)
			}
		})
	}
}

// No path is no file.
func TestNone(t *testing.T) {
	if err := statefile.Write("", 1); err != nil {
		t.Error(err)
	}
	got := 2
	if found, err := statefile.Read("", 100, &got); err != nil || found || got != 2 {
		t.Errorf("Read = %v, %v, and %d", found, err, got)
	}
}
