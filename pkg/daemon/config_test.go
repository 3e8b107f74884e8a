package daemon

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"
)

const example = "../../docs/offloadd.yaml"

// The commented example names every key, says the defaults, and is accepted.
func TestExampleConfig(t *testing.T) {
	got, err := ReadConfig(example, Config{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := DefaultConfig().Check()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s is not the defaults (-defaults +it):\n%s", example, d)
	}

	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := yaml.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	for _, k := range configKeys(reflect.TypeFor[Config](), "") {
		m := keys
		parts := strings.Split(k, ".")
		for _, p := range parts[:len(parts)-1] {
			m, _ = m[p].(map[string]any)
		}
		if _, ok := m[parts[len(parts)-1]]; !ok {
			t.Errorf("%s does not have %s", example, k)
		}
	}
}

func configKeys(t reflect.Type, prefix string) []string {
	var keys []string
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, configKeys(f.Type, prefix+name+".")...)
		} else {
			keys = append(keys, prefix+name)
		}
	}
	return keys
}

// off is a word, although YAML 1.1 has it for false.
func TestOffloadWords(t *testing.T) {
	for _, word := range []string{offloadDirect, offloadDelegated, offloadOff} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte("offload: "+word+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := ReadConfig(path, DefaultConfig())
		if err == nil {
			c, err = c.Check()
		}
		if err != nil || c.Offload != word {
			t.Errorf("offload: %s is read as %q, %v", word, c.Offload, err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"no_such_key: 1", `unknown field "no_such_key"`},
		{"log_format: xml", `log_format "xml": neither text nor json`},
		{"log_level: loud", `log_level "loud": none of debug, info, warn, error`},
		{"control: relative", `control "relative": not unix:/PATH`},
		{"listen: unix:/a\ncontrol: unix:/a", `control "unix:/a": the API listens there`},
		{"listen: tcp:1.2.3.4:5", `listen "tcp:1.2.3.4:5": not unix:/PATH`},
		{"ovs_database: tcp:127.0.0.1:6640", "ovs_run_dir: needed, since ovs_database"},
		{"ovs_database: nonsense", "ovs_database: "},
		{"tls: {private_key: a}", "tls: private_key, certificate and ca_certificate go together"},
		{"offload: hardware", `offload "hardware": none of direct, delegated, off`},
		{"offload: off\ntc_software: true", "tc_software: there are no filters of ours with offload off"},
		{"offload: delegated\ntc_software: true", "tc_software: there are no filters of ours with offload delegated"},
		{"ovs_database: [1]", "cannot unmarshal"},
		{strings.Repeat("#", maxConfig+1), "larger than"},
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := ReadConfig(path, DefaultConfig())
		if err == nil {
			_, err = cfg.Check()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q gives %v, want an error with %q", c.text, err, c.want)
		}
	}
	if _, err := ReadConfig("/nonexistent/c.yaml", DefaultConfig()); err == nil {
		t.Error("a missing file is accepted")
	}
}
