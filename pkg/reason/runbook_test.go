package reason

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tools are the programs that runbooks may tell people to use.
var tools = strings.Fields(`cat crictl df devlink dmesg findmnt grpcurl id ip journalctl kubectl ls lsns lspci modprobe offloadctl
	ovn-appctl ovn-nbctl ovn-sbctl ovs-appctl ovs-vsctl ps ss systemctl tc`)

// changes are beginnings of commands that change something.
var changes = regexp.MustCompile(`^(modprobe|kubectl (delete|drain)|systemctl (start|stop|restart)|devlink dev reload|devlink health recover|` +
	`ip (-n \S+ )?(link|addr|route) (set|add|del)|ov[sn]-[a-z]+ (set|remove|del|lsp-set|lsp-add)|offloadctl (recompute|node leave|device .*))`)

// Each reason says how it is seen, and has commands that show what is wrong without changing anything. No runbook is of no reason.
func TestRunbooks(t *testing.T) {
	for _, e := range Table {
		r := e.Runbook()
		if len(r.Seen) < 40 || !strings.HasSuffix(r.Seen, ".") {
			t.Errorf("%s: Seen %q is no sentence", e.Reason, r.Seen)
		}
		if len(r.Look) == 0 {
			t.Errorf("%s: nothing to look at", e.Reason)
		}
		for _, c := range r.Look {
			if changes.MatchString(c) && !strings.HasSuffix(c, " --dry-run") {
				t.Errorf("%s: %q is to look, and changes something", e.Reason, c)
			}
		}
		for _, c := range slices.Concat(r.Look, r.Mend) {
			if name, _, _ := strings.Cut(c, " "); !slices.Contains(tools, name) {
				t.Errorf("%s: %q: %s is none of the programs that people are told to use", e.Reason, c, name)
			}
		}
		// Commands are in lists, where the test of offloadctl finds them.
		for _, s := range []string{e.Meaning, e.Remedy} {
			if strings.Contains(s, "offloadctl ") {
				t.Errorf("%s: %q has a command of offloadctl, which belongs into the runbook", e.Reason, s)
			}
		}
	}
	for r := range runbooks {
		if _, ok := Find(r); !ok {
			t.Errorf("%s has a runbook, but is no reason", r)
		}
	}
}
