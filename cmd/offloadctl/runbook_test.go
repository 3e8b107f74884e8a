package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/pkg/reason"
)

// understood returns an error unless the words after offloadctl are a command, with flags that it has and as many arguments as it takes.
func understood(words []string) error {
	c := &cli{env: env{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}}
	root := c.root()
	cmd, rest, err := root.Find(words)
	switch {
	case err != nil:
		return err
	case cmd.HasSubCommands():
		return errors.New("no command")
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	for _, f := range []string{"state", "kind"} { // flags whose values are words
		if v := cmd.Flags().Lookup(f); v != nil && v.Changed && !strings.Contains(v.Usage, strings.Split(strings.Trim(v.Value.String(), "[]"), ",")[0]) {
			return fmt.Errorf("--%s %s is not among %q", f, v.Value, v.Usage)
		}
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// What runbooks tell people to type exists.
func TestRunbooks(t *testing.T) {
	n := 0
	for _, e := range reason.Table {
		for _, command := range slices.Concat(e.Runbook().Look, e.Runbook().Mend) {
			words := strings.Fields(command)
			if words[0] != "offloadctl" {
				continue
			}
			n++
			if err := understood(words[1:]); err != nil {
				t.Errorf("%s: %q: %v", e.Reason, command, err)
			}
		}
	}
	if n < len(reason.Table)/2 {
		t.Errorf("%d commands of offloadctl in %d runbooks", n, len(reason.Table))
	}
	for _, bad := range []string{"", "devics", "device", "functions --colour", "functions --state lost", "device release", "device vfs DEVICE", "describe port --all"} {
		if err := understood(strings.Fields(bad)); err == nil {
			t.Errorf("offloadctl %s is understood", bad)
		}
	}
}
