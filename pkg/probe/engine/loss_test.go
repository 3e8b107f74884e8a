package engine

import (
	"encoding/binary"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A thief drops packets that come in at an end, by nf_tables, and counts them.
type thief struct {
	t     *testing.T
	conn  *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain
}

// steal drops every nth packet of a protocol that has payload: those that are longer than a header of TCP with options.
func steal(t *testing.T, end End, protocol byte, nth uint32) *thief {
	t.Helper()
	space, err := os.Open(end.Netns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { space.Close() })
	s := &thief{t: t}
	if s.conn, err = nftables.New(nftables.WithNetNSFd(int(space.Fd()))); err != nil {
		t.Fatal(err)
	}
	s.table = s.conn.AddTable(&nftables.Table{Name: "thief", Family: nftables.TableFamilyIPv4})
	s.chain = s.conn.AddChain(&nftables.Chain{
		Name: "input", Table: s.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	long := make([]byte, 2) // an IPv4 header and one of TCP of the greatest length
	binary.BigEndian.PutUint16(long, 20+60)
	s.conn.AddRule(&nftables.Rule{Table: s.table, Chain: s.chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 2, Len: 2}, // total length
		&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: long},
		&expr.Numgen{Register: 1, Type: unix.NFT_NG_INCREMENTAL, Modulus: nth},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(nth - 1)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := s.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return s
}

// taken is how many packets it has dropped.
func (s *thief) taken() int64 {
	s.t.Helper()
	rules, err := s.conn.GetRules(s.table, s.chain)
	if err != nil || len(rules) != 1 {
		s.t.Fatalf("%d rules, %v", len(rules), err)
	}
	for _, e := range rules[0].Exprs {
		if c, ok := e.(*expr.Counter); ok {
			return int64(c.Packets)
		}
	}
	s.t.Fatal("the rule does not count")
	return 0
}

// A segment of TCP that the path drops costs its request a retransmission timer, and no other: the oracle is what drops, which counts. A server that stalls for
// longer costs as much, and is not called that.
func TestRetransmissionTimeouts(t *testing.T) {
	for _, c := range []struct {
		name string
		load result.Load
		busy bool
		nth  int
	}{
		{"asleep", result.Load{Mode: result.RR, Transport: "tcp", Size: 200}, false, 50},
		{"polling", result.Load{Mode: result.RR, Transport: "tcp", Size: 200}, true, 50},
		{"answers", result.Load{Mode: result.RR, Transport: "tcp", Size: 200}, false, 50},
		// Requests that follow sooner than the timer expires have the kernel send again at once what they tell it is missing.
		{"open loop", result.Load{Mode: result.Open, Transport: "tcp", Size: 200, Rate: 4}, false, 8},
		{"answers of connections", result.Load{Mode: result.CRR, Transport: "tcp", Size: 200}, false, 50},
		{"connections", result.Load{Mode: result.CRR, Transport: "tcp", Size: 200}, false, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := wire(t)
			end := p.Server
			if strings.HasPrefix(c.name, "answers") {
				end = p.Client
			}
			thief := steal(t, end, unix.IPPROTO_TCP, uint32(c.nth))
			stalls := loopback("stalls")
			stalls.Fault = &Fault{Stall: 300 * time.Millisecond, StallAfter: 20}
			job := Job{
				Paths: []Path{p, stalls}, Load: c.load, Rounds: 3*c.nth + 2, Burst: 1, Timeout: MaxTimeout, Busy: c.busy, CPUs: [2]int{-1, -1},
			}
			sessions := run(t, job)
			s, dropped := sessions[p.Name], thief.taken()
			t.Logf("%d dropped, %+v, %+v", dropped, s.TCP, s.Loss)
			if dropped < 3 || s.Loss.Lost > 0 || s.TCP == nil {
				t.Fatalf("%d dropped; %+v, TCP %+v; want 3 at least, and none lost", dropped, s.Loss, s.TCP)
			}
			late := atLeast(t, s.Histogram, s.TCP.RTO*9/10)
			if s.TCP.RTO < 100*time.Millisecond || s.TCP.Retransmits < dropped || late < s.TCP.Timeouts {
				t.Errorf("%d dropped, %d of at least 9/10 of the timer: TCP %+v", dropped, late, s.TCP)
			}
			// A machine that is busy may make the kernel send again what was not dropped, and keep the client from looking in time: then it is not said.
			if s.TCP.Timeouts < 1 && c.name != "answers of connections" || s.TCP.Timeouts > s.TCP.Retransmits {
				t.Errorf("%d dropped, %d sent again, %d are said to have waited for the timer", dropped, s.TCP.Retransmits, s.TCP.Timeouts)
			}
			if l := decode(t, s.TCP.Waited, 0).Latency(0); l != nil && l.Count != s.TCP.Timeouts || l == nil && s.TCP.Timeouts != 0 {
				t.Errorf("%+v in the histogram of those that waited, want %d", l, s.TCP.Timeouts)
			}
			other := sessions[stalls.Name]
			if n := atLeast(t, other.Histogram, stalls.Fault.Stall); n == 0 || other.TCP.Timeouts > other.TCP.Retransmits {
				t.Errorf("%d have waited for the stalled server, TCP %+v", n, other.TCP)
			}
		})
	}
}

// What is dropped is lost, and nothing waits for it for longer than the timeout. A client as netperf's UDP_RR, which sends a request when it has
// the last answer, does nothing more after the first.
func TestLostDatagrams(t *testing.T) {
	const nth = 20
	p := wire(t)
	await(t, "a neighbour", func() bool { return asNetperf(t, p, 1) == 1 })
	thief := steal(t, p.Server, unix.IPPROTO_UDP, nth)
	if answered := asNetperf(t, p, 5*nth); answered != nth-1 {
		t.Errorf("a client that waits for each answer has had %d, want %d and no more", answered, nth-1)
	}
	before := thief.taken()
	if before != 1 {
		t.Fatalf("%d dropped, want one", before)
	}
	job := Job{
		Paths: []Path{p, loopback("other")}, Load: result.Load{Mode: result.RR, Transport: "udp", Size: 200},
		Rounds: 10 * nth, Burst: 2, Timeout: 100 * time.Millisecond, CPUs: [2]int{-1, -1},
	}
	sessions := run(t, job)
	s, dropped := sessions[p.Name], thief.taken()-before
	t.Logf("%d dropped, %+v", dropped, s.Loss)
	if s.Loss.Sent != 10*nth || s.Loss.Lost-s.Loss.Late != dropped || dropped != 20 {
		t.Errorf("%+v, want %d sent, and lost those %d that were dropped of twice as many", s.Loss, 10*nth, dropped)
	}
	if l := decode(t, s.Histogram, s.Loss.Lost).Latency(0); len(l.Percentiles) == 0 || l.Percentiles[len(l.Percentiles)-1].P != 95 || !l.Percentiles[len(l.Percentiles)-1].Lost {
		t.Errorf("percentiles %+v, want that the last one is lost", l.Percentiles)
	}
	if other := sessions["other"].Loss; other.Lost-other.Late != 0 {
		t.Errorf("the path that drops nothing: %+v", other)
	}
}

// asNetperf is how many of n requests are answered to a client that sends one when it has the answer to the last.
func asNetperf(t *testing.T, p Path, n int) (answered int) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var fds [2]int
	for i, end := range []End{p.Server, p.Client} {
		err := InNetns(end.Netns, func() (err error) {
			fds[i], err = open(false, netip.AddrPortFrom(end.Addr, 0))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[i])
		if err := patience(fds[i], 200*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	to, err := local(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 200)
	if err := unix.Connect(fds[1], sockaddr(to)); err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := unix.Write(fds[1], b); err != nil {
			t.Fatal(err)
		}
		_, from, err := unix.Recvfrom(fds[0], b, 0)
		if err != nil {
			break // it was dropped, and nobody will ever send another
		}
		if err := unix.Sendto(fds[0], b, 0, from); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Read(fds[1], b); err != nil {
			break
		}
		answered++
	}
	return answered
}

// When a path of TCP dies under a run, each request costs the timeout and no more, and the others go on.
func TestDeadConnection(t *testing.T) {
	p := wire(t)
	await(t, "a neighbour", func() bool { return asNetperf(t, p, 1) == 1 })
	thief := steal(t, p.Server, unix.IPPROTO_TCP, 1)
	job := Job{
		Paths: []Path{p, loopback("other")}, Load: result.Load{Mode: result.RR, Transport: "tcp", Size: 200},
		Rounds: 20, Burst: 1, Timeout: 20 * time.Millisecond, CPUs: [2]int{-1, -1},
	}
	sessions := run(t, job)
	if s := sessions[p.Name]; s.Loss != (result.Loss{Sent: 20, Lost: 20}) || s.Histogram != "" || thief.taken() == 0 {
		t.Errorf("%d dropped, %+v, histogram %q; want 20 lost and nothing else", thief.taken(), s.Loss, s.Histogram)
	}
	if s := sessions["other"]; s.Loss.Sent != 20 || s.Loss.Lost != s.Loss.Late {
		t.Errorf("the other path: %+v", s.Loss)
	}
}
