package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/report"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/reason"
)

// The last runs are kept, within bounds; what is half written or not ours is not among them.
func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "probe")
	p := New(Options{Dir: dir})
	if all, err := p.Runs(); err != nil || len(all) > 0 {
		t.Errorf("nothing is kept: %v, %v", all, err)
	}
	if _, err := p.Text(""); reason.Of(err) != reason.ProbeRunNotFound {
		t.Errorf("the latest of none: %v", err)
	}
	id := func(i int) string { return fmt.Sprintf("20260102-0304%02d-00ff", i) }
	for i := range maxKept + 5 {
		run := &result.Run{
			Version: 1, ID: id(i), Started: time.Unix(int64(i), 0).UTC(), Baseline: "metal", Paths: []result.Path{{Name: "metal"}},
			Parameters: result.Parameters{Sessions: i},
		}
		text, err := report.JSON(run)
		if err != nil {
			t.Fatal(err)
		}
		if i == maxKept {
			for name, content := range map[string]string{".run-123": "{", "notes.json": "{}", id(0) + ".txt": "x"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := p.keep(run.ID, text); err != nil {
			t.Fatal(err)
		}
	}
	all, err := p.Runs()
	if err != nil || len(all) != maxKept {
		t.Fatalf("%d are kept, %v, want %d", len(all), err, maxKept)
	}
	if all[0].ID != id(maxKept+4) || all[0].Sessions != maxKept+4 || all[maxKept-1].ID != id(5) {
		t.Errorf("kept from %+v to %+v", all[0], all[maxKept-1])
	}
	if _, err := os.Stat(filepath.Join(dir, ".run-123")); err == nil {
		t.Error("what was half written is still there")
	}
	if _, err := os.Stat(filepath.Join(dir, "notes.json")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{id(0), "notes", "../../etc/passwd", strings.Repeat("x", 1000)} {
		if _, err := p.Text(name); reason.Of(err) != reason.ProbeRunNotFound {
			t.Errorf("Text(%.20q): %v", name, err)
		}
	}

	// One that is broken is listed, and does not hide the others.
	if err := os.WriteFile(p.file(id(7)), []byte(`{"version": 1, "id`), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err = p.Runs()
	if err != nil || len(all) != maxKept || all[maxKept-3].ID != id(7) || all[maxKept-3].Sessions != 0 || all[maxKept-2].Sessions != 6 {
		t.Errorf("with a broken one: %v, %+v", err, all)
	}

	// Size counts, too, but never against the latest.
	if err := os.Truncate(p.file(id(maxKept+4)), maxOctets+1); err != nil {
		t.Fatal(err)
	}
	if err := p.forget(); err != nil {
		t.Fatal(err)
	}
	if left, err := p.kept(); err != nil || len(left) != 1 || left[0].id != id(maxKept+4) {
		t.Errorf("of a run that is too large: %v, %v", left, err)
	}
}

// A summary ends where the cases begin.
func TestSummarise(t *testing.T) {
	s, err := summarise(strings.NewReader(`{"version":1,"id":"a","parameters":{"sessions":3},"paths":[{"name":"metal"}],"cases":[{"this is`))
	if err != nil || s.ID != "a" || s.Sessions != 3 || len(s.Paths) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, text := range []string{"", "[", "{", `{"id":7}`, `{"id":`, "null"} {
		if s, err := summarise(strings.NewReader(text)); err == nil {
			t.Errorf("%q: %+v", text, s)
		}
	}
}
