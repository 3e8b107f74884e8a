package integration

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// The agent is killed and started again while a thousand packets a second pass: none is lost, and
// connections can be made while it is away.
func TestKilledAgentLosesNoPacket(t *testing.T) {
	l := pair(t, lab.Options{})
	ctx, n1 := t.Context(), l.Node("n1")
	p1, p2 := l.Pod("p1"), l.Pod("p2")
	l.Check(p1.Serve(ctx, 80))

	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		const count = 5000
		done := make(chan lab.PingStats)
		go func() {
			s, err := p2.PingN(ctx, p1.Addr(false), count, time.Millisecond, 2*time.Second)
			if err != nil {
				t.Error(err)
			}
			done <- s
		}()
		time.Sleep(time.Second) // the test is about what passes meanwhile
		l.Check(n1.StopAgent(sig))
		time.Sleep(time.Second)
		// IPv4 alone: that somebody answers neighbour solicitations is the agent's business.
		if ok, err := p2.Connect(ctx, netip.AddrPortFrom(p1.Addr(false), 80), 5*time.Second); err != nil || !ok {
			t.Errorf("%v: no new connection while the agent is away: %v", sig, err)
		}
		l.Check(n1.StartAgent(agent(t)))
		l.Sync()
		s := <-done
		if s.Sent != count || s.Received != count {
			t.Errorf("%v: %+v, want %d answers (the agent was stopped at about request 1000, and started some 1000 later)", sig, s, count)
		}
	}
}

// After each neighbour of the agent has died and come back, what worked works, and what is new is set up.
func TestNeighboursRestart(t *testing.T) {
	l := pair(t, lab.Options{})
	n1 := l.Node("n1")
	next := 3
	for _, tt := range []struct {
		name    string
		restart func(context.Context) error
	}{
		{"sb", func(ctx context.Context) error { return l.Restart(ctx, "sb") }},
		{"northd", func(ctx context.Context) error { return l.Restart(ctx, "northd") }},
		{"ovsdb-server", func(ctx context.Context) error { return n1.Restart(ctx, "ovsdb-server") }},
		{"ovs-vswitchd", func(ctx context.Context) error { return n1.Restart(ctx, "ovs-vswitchd") }},
		{"all", func(ctx context.Context) error {
			if err := errors.Join(l.Stop("sb"), l.Stop("northd"), n1.Stop("ovs-vswitchd"), n1.Stop("ovsdb-server")); err != nil {
				return err
			}
			return errors.Join(l.Resume(ctx, "sb"), l.Resume(ctx, "northd"), n1.Resume(ctx, "ovsdb-server"), n1.Resume(ctx, "ovs-vswitchd"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := l.In(t)
			l.Check(tt.restart(t.Context()))
			pod := l.AddPod("n1", member(next))
			next++
			l.WaitInstalled(pod)
			l.Sync()
			wantPing(t, l.Pod("p2"), l.Pod("p1"), 5*time.Second)
			wantPing(t, l.Pod("p2"), pod, 5*time.Second)
			if !n1.AgentRuns() {
				t.Fatalf("the agent has ended")
			}
		})
	}
}
