package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	nbSchema = "/usr/share/ovn/ovn-nb.ovsschema"
	sbSchema = "/usr/share/ovn/ovn-sb.ovsschema"
)

func (l *Lab) central(file string) string { return filepath.Join(l.Dir, "central", file) }

// sbServers names the Southbound servers: sb alone, or sb1, sb2, ... as members of a cluster.
func (l *Lab) sbServers() []string {
	if l.opts.SBServers <= 1 {
		return []string{"sb"}
	}
	var names []string
	for i := range l.opts.SBServers {
		names = append(names, fmt.Sprintf("sb%d", i+1))
	}
	return names
}

// NBRemote is the Northbound database's address, for any namespace.
func (l *Lab) NBRemote() string { return "unix:" + l.central("nb.sock") }

// SBRemote is the Southbound database's address through Unix sockets, for any namespace: several remotes
// separated by commas if it is a cluster.
func (l *Lab) SBRemote() string {
	var remotes []string
	for _, name := range l.sbServers() {
		remotes = append(remotes, "unix:"+l.central(name+".sock"))
	}
	return strings.Join(remotes, ",")
}

// agentRemote is what agents find in external_ids:ovn-remote.
func (l *Lab) agentRemote() string {
	if l.opts.TLS {
		return "ssl:" + centralIP + ":6642"
	}
	return l.SBRemote()
}

func (l *Lab) startCentral(ctx context.Context) error {
	if err := os.Mkdir(l.central(""), 0o755); err != nil {
		return err
	}
	if _, err := l.tool(ctx, "ovsdb-tool", "create", l.central("nb.db"), nbSchema); err != nil {
		return err
	}
	for i, name := range l.sbServers() {
		create := []string{"ovsdb-tool", "create", l.central(name + ".db"), sbSchema}
		raft := func(name string) string { return "unix:" + l.central(name+".raft") }
		switch {
		case l.opts.SBServers > 1 && i == 0:
			create = []string{"ovsdb-tool", "create-cluster", l.central(name + ".db"), sbSchema, raft(name)}
		case l.opts.SBServers > 1:
			create = []string{"ovsdb-tool", "join-cluster", l.central(name + ".db"), "OVN_Southbound", raft(name), raft("sb1")}
		}
		if _, err := l.tool(ctx, create...); err != nil {
			return err
		}
	}
	for _, name := range append([]string{"nb"}, l.sbServers()...) {
		if err := l.startDB(ctx, name); err != nil {
			return err
		}
	}
	if l.opts.TLS {
		role := ""
		if l.opts.RBAC {
			role = "role=ovn-controller "
		}
		if _, err := l.SB(ctx, "set-connection "+role+"pssl:6642"); err != nil {
			return err
		}
	}
	return l.startNorthd()
}

// startDB starts the server of a central database that exists and returns when it serves clients.
func (l *Lab) startDB(ctx context.Context, name string) error {
	argv := []string{
		"ovsdb-server", l.central(name + ".db"),
		"--remote=punix:" + l.central(name+".sock"), "--unixctl=" + l.central(name+".ctl"),
		"--pidfile=" + l.central(name+".pid"), "-vconsole:off", "--log-file=" + l.central(name+".log"),
	}
	if name != "nb" && l.opts.TLS {
		k := l.keys("central")
		argv = append(argv, "--remote=db:OVN_Southbound,SB_Global,connections",
			"--private-key="+k.private, "--certificate="+k.certificate, "--ca-cert="+k.ca)
	}
	p, err := l.spawn(l.net, name, l.central(name+".log"), l.centralEnv(), argv...)
	if err != nil {
		return err
	}
	l.logf("%s: %s", name, strings.Join(argv, " "))
	database := "OVN_Southbound"
	if name == "nb" {
		database = "OVN_Northbound"
	}
	if err := p.until(ctx, "its socket", func() bool { return accepts(l.central(name + ".sock")) }); err != nil {
		return err
	}
	// A member of a cluster serves when it has joined and there is a leader.
	_, err = l.tool(ctx, "ovsdb-client", timeoutArg(20*time.Second), "wait", "unix:"+l.central(name+".sock"), database, "connected")
	return err
}

func (l *Lab) startNorthd() error {
	argv := []string{
		"ovn-northd", "--ovnnb-db=" + l.NBRemote(), "--ovnsb-db=" + l.SBRemote(), "--unixctl=" + l.central("northd.ctl"),
		"--pidfile=" + l.central("northd.pid"), "-vconsole:off", "--log-file=" + l.central("northd.log"),
	}
	l.logf("northd: %s", strings.Join(argv, " "))
	_, err := l.spawn(l.net, "northd", l.central("northd.log"), l.centralEnv(), argv...)
	return err
}

func (l *Lab) centralEnv() []string {
	dir := l.central("")
	return []string{"OVS_RUNDIR=" + dir, "OVS_LOGDIR=" + dir, "OVS_DBDIR=" + dir, "OVN_RUNDIR=" + dir, "OVN_LOGDIR=" + dir, "OVN_DBDIR=" + dir}
}

// Restart kills a central daemon (nb, sb or one of sb1..., northd) and starts it again at once.
func (l *Lab) Restart(ctx context.Context, name string) error {
	if err := l.Stop(name); err != nil {
		return err
	}
	return l.Resume(ctx, name)
}

// Stop kills a central daemon; Resume starts it again.
func (l *Lab) Stop(name string) error {
	l.logf("%s: SIGKILL", name)
	return l.process(name).stop(syscall.SIGKILL)
}

// Resume starts a central daemon that Stop ended, with the database it had.
func (l *Lab) Resume(ctx context.Context, name string) error {
	if name == "northd" {
		return l.startNorthd()
	}
	return l.startDB(ctx, name)
}

// Pause stops northd from writing (and Unpause lets it go on), so that a test can put rows into the
// Southbound database that northd would remove.
func (l *Lab) Pause(ctx context.Context) error {
	_, err := l.tool(ctx, "ovn-appctl", "-t", l.central("northd.ctl"), "pause")
	return err
}

// Unpause ends Pause.
func (l *Lab) Unpause(ctx context.Context) error {
	_, err := l.tool(ctx, "ovn-appctl", "-t", l.central("northd.ctl"), "resume")
	return err
}

// NB runs ovn-nbctl commands as one transaction. The script has a command per line, quoted as in a shell;
// empty lines and lines that start with # are comments.
func (l *Lab) NB(ctx context.Context, script string) (string, error) {
	return l.ctl(ctx, script, "ovn-nbctl", "--db="+l.NBRemote())
}

// SB is NB for ovn-sbctl.
func (l *Lab) SB(ctx context.Context, script string) (string, error) {
	return l.ctl(ctx, script, "ovn-sbctl", "--db="+l.SBRemote())
}

func (l *Lab) ctl(ctx context.Context, script string, argv ...string) (string, error) {
	commands, err := parseScript(script)
	if err != nil || len(commands) == 0 {
		return "", err
	}
	return l.tool(ctx, append(argv, commands...)...)
}

// SBTransact sends a transaction as ovsdb-client(1) takes it: a JSON array of operations, without the
// database's name. It returns the server's answer.
func (l *Lab) SBTransact(ctx context.Context, operations string) (string, error) {
	remote, _, _ := strings.Cut(l.SBRemote(), ",")
	arg := `["OVN_Southbound",` + strings.TrimPrefix(strings.TrimSpace(operations), "[")
	return l.tool(ctx, "ovsdb-client", "transact", remote, arg)
}

// Sync waits until ovn-northd and every chassis have caught up with the Northbound database.
func (l *Lab) Sync(ctx context.Context) error {
	_, err := l.tool(ctx, "ovn-nbctl", "--db="+l.NBRemote(), timeoutArg(30*time.Second), "--wait=hv", "sync")
	return err
}

// tool runs a program with the central daemons' environment.
func (l *Lab) tool(ctx context.Context, argv ...string) (string, error) {
	return command{env: l.centralEnv(), argv: argv}.run(ctx)
}

// process returns the daemon of that name; it panics if it was never started.
func (l *Lab) process(name string) *process {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.daemon[name]
	if !ok {
		panic("lab: no daemon " + name)
	}
	return p
}
