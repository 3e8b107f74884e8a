package ovsdbtest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A Cluster is a clustered database (RAFT), see ovsdb(7).
type Cluster struct {
	t       testing.TB
	Servers []*Server
}

// StartCluster creates a clustered database of n servers with the schema in
// the given file, and waits until it has a leader and all have joined.
func StartCluster(t testing.TB, schema string, n int) *Cluster {
	t.Helper()
	dir, database := directory(t), databaseName(t, schema)
	c := &Cluster{t: t}
	raft := func(i int) string { return fmt.Sprintf("unix:%s/s%d.raft", dir, i) }
	for i := range n {
		s := newServer(t, dir, fmt.Sprintf("s%d", i), database, nil)
		if i == 0 {
			// Elections are to take tenths of seconds.
			tool(t, "--election-timer=200", "create-cluster", s.file(), schema, raft(0))
		} else {
			tool(t, "join-cluster", s.file(), database, raft(i), raft(0))
		}
		s.Restart()
		c.Servers = append(c.Servers, s)
		c.wait("server to join", func() bool {
			return strings.Contains(s.status(), "Status: cluster member") && c.leader() != nil
		})
	}
	return c
}

// Remotes returns the active connection methods of all servers.
func (c *Cluster) Remotes() []string {
	remotes := make([]string, 0, len(c.Servers))
	for _, s := range c.Servers {
		remotes = append(remotes, s.Remote())
	}
	return remotes
}

// Leader returns the server that leads the cluster, and waits for there to be
// one.
func (c *Cluster) Leader() *Server {
	c.t.Helper()
	var leader *Server
	c.wait("a leader", func() bool {
		leader = c.leader()
		return leader != nil
	})
	return leader
}

func (c *Cluster) leader() *Server {
	for _, s := range c.Servers {
		if strings.Contains(s.status(), "Role: leader") {
			return s
		}
	}
	return nil
}

// status returns what cluster/status prints, nothing if the server is away or paused.
func (s *Server) status() string {
	if s.process == nil || s.paused {
		return ""
	}
	out, err := s.appctl("cluster/status", s.database)
	if err != nil {
		return ""
	}
	return out
}

func (c *Cluster) wait(what string, done func() bool) {
	c.t.Helper()
	timeout := time.After(deadline)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			for _, s := range c.Servers {
				c.t.Logf("%s:\n%s", s.name, s.status())
			}
			c.t.Fatalf("no %s", what)
		}
	}
}
