package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
)

// The agent takes over a node from ovn-controller, and hands it back: it goes on with the chassis record, the tunnels
// and the conntrack zones that it finds. While it takes over, no packet is lost, and a connection that a stateful ACL
// let in stays established.
func TestHandover(t *testing.T) {
	opts := lab.Options{Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.OVNController}, {Name: "n2", Agent: lab.OVNController}}}
	if agent(t) == lab.Offloadd {
		opts.OffloaddPath = labtest.Offloadd(t)
	}
	l := labtest.Start(t, opts)
	for i := 1; i <= 2; i++ {
		c := member(i)
		l.NB(fmt.Sprintf("--may-exist ls-add sw0\nlsp-add sw0 %s\nlsp-set-addresses %s '%s %s %s'", c.Name, c.Name, c.MAC, c.IPs[0].Addr(), c.IPs[1].Addr()))
	}
	l.NB(`
		acl-add sw0 to-lport 1001 'outport == "p1" && ip4.src == 10.0.0.12' allow-related
		acl-add sw0 to-lport 1000 'outport == "p1" && ip' drop
		acl-add sw0 from-lport 1000 'inport == "p1" && ip' drop
	`)
	p1, p2 := l.AddPod("n1", member(1)), l.AddPod("n2", member(2))
	l.WaitInstalled(p1, p2)
	l.Sync()

	ctx, n1 := t.Context(), l.Node("n1")
	say := dial(t, p2, p1)
	say("with ovn-controller")
	record := chassisRecord(l)
	zones := ctZones(l)

	const count = 4000
	done := make(chan lab.PingStats)
	go func() {
		s, err := p2.PingN(ctx, p1.Addr(false), count, time.Millisecond, 2*time.Second)
		if err != nil {
			t.Error(err)
		}
		done <- s
	}()
	time.Sleep(time.Second) // the test is about what passes meanwhile
	l.Check(n1.StopAgent(syscall.SIGTERM))
	say("with nobody")
	l.Check(n1.StartAgent(agent(t)))
	l.Sync()
	say("with the agent")
	if s := <-done; s.Received != count {
		t.Errorf("taking over: %+v, want %d answers", s, count)
	}
	if got := chassisRecord(l); got != record {
		t.Errorf("chassis record and tunnels after taking over:\n%s\nbefore:\n%s", got, record)
	}
	if got := ctZones(l); got != zones {
		t.Errorf("conntrack zones after taking over:\n%s\nbefore:\n%s", got, zones)
	}

	l.Check(n1.StopAgent(syscall.SIGTERM))
	l.Check(n1.StartAgent(lab.OVNController))
	l.Sync()
	say("with ovn-controller again")
	if got := chassisRecord(l); got != record {
		t.Errorf("chassis record and tunnels after handing back:\n%s\nbefore:\n%s", got, record)
	}
}

// chassisRecord is what the world knows of n1, by row.
func chassisRecord(l *labtest.Lab) string {
	l.T.Helper()
	tunnels, err := l.Node("n1").Tunnels(l.T.Context())
	l.Check(err)
	out := l.SB("--bare --columns=_uuid,encaps find chassis name=n1") + l.SB("--bare --columns=_uuid find chassis_private name=n1") +
		l.SB("--bare --columns=chassis,up find port_binding logical_port=p1")
	for _, tun := range tunnels {
		out += tun.Port + " " + tun.Type + " " + tun.Remote + "\n"
	}
	return out
}

// ctZones are the zones that br-int of n1 remembers.
func ctZones(l *labtest.Lab) string {
	l.T.Helper()
	out, err := l.Node("n1").VSctl(l.T.Context(), "get", "bridge", "br-int", "external_ids")
	l.Check(err)
	var zones []string
	for id := range strings.SplitSeq(strings.Trim(out, "{}\n"), ", ") {
		if strings.HasPrefix(id, "ct-zone-") {
			zones = append(zones, id)
		}
	}
	if len(zones) == 0 {
		l.T.Fatalf("no conntrack zones in %s", out)
	}
	return strings.Join(zones, "\n")
}

// dial makes a connection from one pod to the other and returns a function that fails the test unless a word sent
// through it comes back.
func dial(t *testing.T, from, to *lab.Pod) func(word string) {
	t.Helper()
	var (
		lis         net.Listener
		there, here net.Conn
	)
	err := errors.Join(
		to.Do(func() (err error) { lis, err = net.Listen("tcp", "[::]:7"); return err }),
		from.Do(func() (err error) {
			here, err = net.DialTimeout("tcp", to.Addr(false).String()+":7", 5*time.Second)
			return err
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	if there, err = lis.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(there.Close(), here.Close(), lis.Close()) })
	go func() { _, _ = io.Copy(there, there) }() // ends with the connection
	return func(word string) {
		t.Helper()
		if err := here.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		echo := make([]byte, len(word))
		_, err := io.WriteString(here, word)
		if err == nil {
			_, err = io.ReadFull(here, echo)
		}
		if err != nil || string(echo) != word {
			t.Fatalf("the connection, %s: %q, %v", word, echo, err)
		}
	}
}
