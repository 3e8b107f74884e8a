package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/offloadd/offloadd/pkg/device"
	"github.com/offloadd/offloadd/pkg/devlink"
	"github.com/offloadd/offloadd/pkg/reason"
)

// What a killed daemon has lent is claimed at the start, under the names that it had, and given back, whatever is left of it; what is lent next has another
// name. A file that cannot be read keeps nobody from starting.
func TestLender(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run", "lent.json")
	var said strings.Builder
	log := slog.New(slog.NewTextHandler(&said, nil))
	handle := devlink.Handle{Bus: "pci", Dev: "0000:03:00.0"}
	lent := map[string]device.Function{
		"probe:7": {Handle: handle.Port(1), Kind: device.VF, Number: 0, Pool: "vfs", Generation: 40},
		"probe:8": {Handle: handle.Port(2), Kind: device.VF, Number: 1, Pool: "vfs", Generation: 41},
	}
	synctest.Test(t, func(t *testing.T) {
		devices := device.New(device.Options{Log: log})
		first := newLender(devices, file, log)
		first.lent = lent
		if err := first.write(); err != nil {
			t.Fatal(err)
		}

		devices = device.New(device.Options{Log: log})
		l := newLender(devices, file, log)
		for owner, f := range lent {
			if is, ok := devices.Lookup(owner); !ok || is.Number != f.Number || is.Generation != f.Generation {
				t.Errorf("%s has %v, %v; want %s", owner, is, ok, f.Name())
			}
		}
		if err := devices.Claim(lent["probe:7"], "a/b/c"); reason.Of(err) != reason.DeviceBusy {
			t.Errorf("a port claims what was lent: %v", err)
		}
		devices.Reconciled()
		// There is no NIC, and no function could be acquired, but the name is used up.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Lend(ctx, "vf"); err == nil || l.last != 9 {
			t.Errorf("Lend: %v; the last name had the number %d, want 9", err, l.last)
		}
		l.Recover(t.Context())
		for owner := range lent {
			if is, ok := devices.Lookup(owner); ok {
				t.Errorf("%s still has %v", owner, is)
			}
		}
	})
	var left map[string]device.Function
	if b, err := os.ReadFile(file); err != nil || json.Unmarshal(b, &left) != nil || len(left) != 0 {
		t.Errorf("the file has %s, %v", b, err)
	}

	for _, text := range []string{"{", "[]", "null", strings.Repeat(" ", maxLent+1)} {
		said.Reset()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if l := newLender(device.New(device.Options{Log: log}), file, log); len(l.lent) != 0 || l.lent == nil || !strings.Contains(said.String(), "functions that were lent to the probe are not known") {
			t.Errorf("%.10q: %v lent, said %q", text, l.lent, said.String())
		}
	}
}
