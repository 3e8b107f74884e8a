package report

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

func TestJSON(t *testing.T) {
	run := simulateScene(t, "lossy")
	text, err := JSON(run)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Read(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(run, back) {
		t.Error("a run that is written and read is another")
	}
	if again, _ := JSON(back); !bytes.Equal(text, again) {
		t.Error("written again it differs")
	}
}

func TestReadRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*result.Run)
		want   string
	}{
		{"newer", func(r *result.Run) { r.Version = result.Version + 1 }, "newer program"},
		{"no version", func(r *result.Run) { r.Version = 0 }, "no run of a probe"},
		{"no baseline", func(r *result.Run) { r.Baseline = "x" }, `the baseline "x" is not a path`},
		{"unknown path", func(r *result.Run) { r.Cases[0].Path = "x" }, "not a path"},
		{"path twice", func(r *result.Run) { r.Paths = append(r.Paths, r.Paths[0]) }, "twice"},
		{"many paths", func(r *result.Run) { r.Paths = make([]result.Path, maxPaths+1) }, "at most 256"},
		{"many cases", func(r *result.Run) { r.Cases = make([]result.Case, maxCases+1) }, "at most 4096"},
		{"many sessions", func(r *result.Run) { r.Cases[0].Sessions = make([]result.Session, maxSessions+1) }, "at most 10000"},
		{"long text", func(r *result.Run) { r.Program = strings.Repeat("x", maxText+1) }, "octets"},
		{"escape sequence", func(r *result.Run) { r.Missing = []result.Missing{{Kind: "x", Why: "\x1b[2J"}} }, "not printed"},
		{"escape sequence in a fact", func(r *result.Run) { r.Machine.Facts = map[string]string{"a\nb": ""} }, "not printed"},
	} {
		run := &result.Run{
			Version: 1, Baseline: "a", Paths: []result.Path{{Name: "a"}}, Cases: []result.Case{{Path: "a", Sessions: make([]result.Session, 1)}},
		}
		test.change(run)
		text, err := json.Marshal(run)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	for _, text := range []string{"", "[]", "{", `{"version":1,"cases":[{"against":{"p50":{"low":"slow"}}}]}`} {
		if _, err := Read([]byte(text)); err == nil {
			t.Errorf("Read(%q) has no error", text)
		}
	}
}

// Whatever Read takes can be shown.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":1,"baseline":"a","paths":[{"name":"a"},{"name":"b","twin":"a"}],"cases":[{"path":"a","latency":null},{"path":"b","against":{"p50":{"sessions":1,"difference":"+inf"}}}]}`))
	f.Add([]byte(`{"version":1,"baseline":"a","paths":[{"name":"a"}],"cases":[{"path":"a","load":{"mode":"stream"}}]}`))
	f.Fuzz(func(_ *testing.T, text []byte) {
		run, err := Read(text)
		if err != nil {
			return
		}
		Text(run, 80)
		_, _ = HTML(run)
	})
}
