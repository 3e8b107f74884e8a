package lab

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseScript(t *testing.T) {
	tests := []struct {
		script string
		want   []string
	}{
		{"", nil},
		{"# nothing\n\n  \n", nil},
		{"ls-add sw0", []string{"ls-add", "sw0"}},
		{"ls-add sw0\n\t# ports\n lsp-add sw0 p1", []string{"ls-add", "sw0", "--", "lsp-add", "sw0", "p1"}},
		{`lsp-set-addresses p1 "50:54:00:00:00:01 10.0.0.1"`, []string{"lsp-set-addresses", "p1", "50:54:00:00:00:01 10.0.0.1"}},
		{`acl-add sw0 to-lport 1 'outport == "p1" && tcp' drop`, []string{"acl-add", "sw0", "to-lport", "1", `outport == "p1" && tcp`, "drop"}},
		{`set x "a\"b" c\ d '' "` + "\t" + `"`, []string{"set", "x", `a"b`, "c d", "", "\t"}},
		{`a'b'"c"`, []string{"abc"}},
	}
	for _, tt := range tests {
		got, err := parseScript(tt.script)
		if err != nil {
			t.Errorf("parseScript(%q): %v", tt.script, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("parseScript(%q) (-want +got):\n%s", tt.script, diff)
		}
	}
	for _, bad := range []string{`a "b`, `a 'b`, `a \`} {
		if got, err := parseScript(bad); err == nil {
			t.Errorf("parseScript(%q) = %q, want an error", bad, got)
		}
	}
}
