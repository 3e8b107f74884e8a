package ovsdb_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
)

// TestCluster kills the leader of a cluster again and again. The client finds
// the next, resumes after the transaction it has, and nothing is loaded twice.
func TestCluster(t *testing.T) {
	for _, leaderOnly := range []bool{true, false} {
		t.Run(fmt.Sprintf("leaderOnly=%v", leaderOnly), func(t *testing.T) {
			t.Parallel()
			c := ovsdbtest.StartCluster(t, ovsdbtest.Southbound, 3)
			config := southbound(c.Remotes()...)
			config.LeaderOnly = leaderOnly
			f := follow(t, config)
			f.connected()
			retry(f, addressSet("a"), addressSet("b"))
			want := "a b"
			for round := range 3 {
				leader := c.Leader()
				start := time.Now()
				leader.Kill()
				name := fmt.Sprint("c", round)
				retry(f, addressSet(name))
				t.Logf("round %d: transaction done %v after the leader's death", round, time.Since(start))
				want += " " + name
				f.until("row "+name, func() bool { return f.names() == want })
				leader.Restart()
			}
			if n := f.log.count("database connected", "resumed=false"); n != 1 {
				t.Errorf("everything is loaded %d times, want once:\n%s", n, f.log)
			}
			if leaderOnly && f.log.count("database connected", "resumed=true") < 3 {
				t.Errorf("the client did not follow the leader:\n%s", f.log)
			}
		})
	}
}

// retry does a transaction that may hit an election.
func retry(f *follower, ops ...ovsdb.Operation) {
	f.t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(10 * time.Millisecond) {
		_, err := f.Transact(f.ctx, ops...)
		if err == nil {
			return
		}
		var refused *ovsdb.TransactError
		if errors.As(err, &refused) && refused.Code == "constraint violation" {
			return // it was done before the connection was lost
		}
		if time.Now().After(end) {
			f.t.Fatal(err)
		}
		select {
		case u := <-f.Updates():
			f.take(u)
		default:
		}
	}
}

// TestClusterLeaderMoves lets a leader sleep until there is another. The client
// leaves it when it wakes up and learns that.
func TestClusterLeaderMoves(t *testing.T) {
	t.Parallel()
	c := ovsdbtest.StartCluster(t, ovsdbtest.Southbound, 3)
	config := southbound(c.Remotes()...)
	config.LeaderOnly = true
	f := follow(t, config)
	for range 3 {
		f.connected()
		// On a busy machine the servers elect another leader of their own accord; the client follows.
		leader := c.Leader()
		f.until("connection to the leader", func() bool {
			leader = c.Leader()
			return f.log.count("database connected", leader.Remote()) > 0
		})
		leader.Pause()
		c.Leader()
		leader.Resume()
		f.until("loss of the leader", func() bool { return f.log.count("is not the leader", leader.Remote()) > 0 })
	}
	f.connected()
}

// TestClusterMinority leaves a server without its cluster.
func TestClusterMinority(t *testing.T) {
	t.Parallel()
	c := ovsdbtest.StartCluster(t, ovsdbtest.Southbound, 3)
	f := follow(t, southbound(c.Servers[0].Remote()))
	f.connected()
	c.Servers[1].Kill()
	c.Servers[2].Kill()
	f.until("server without cluster to be given up", func() bool {
		return f.log.count("disconnected from the others") > 0
	})
	c.Servers[1].Restart()
	f.connected()
	retry(f, addressSet("a"))
	f.until("row", func() bool { return f.names() == "a" })
}
