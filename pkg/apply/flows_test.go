package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/openflow/openflowtest"
)

// learnedTable stands for the tables into which flows are learned.
const learnedTable = 77

var shared struct {
	sync.Once
	*openflowtest.Switch
	err     error
	bridges int
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.Switch != nil {
		shared.Close()
	}
	os.Exit(code)
}

// A bench is a bridge of its own and a Flows that works on it.
type bench struct {
	*Flows
	t      *testing.T
	sw     *openflowtest.Switch
	bridge string

	stop func() // ends Run, and waits for it
	log  strings.Builder
}

// newBench returns a bench whose Flows runs until stop.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := newBridge(t)
	b.start()
	return b
}

// newBridge returns a bench without a Flows. At the end of the test no goroutine is left.
func newBridge(t *testing.T) *bench {
	t.Helper()
	shared.Do(func() { shared.Switch, shared.err = openflowtest.Open() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	shared.bridges++
	b := &bench{t: t, sw: shared.Switch, bridge: fmt.Sprintf("br%d", shared.bridges)}
	if err := b.sw.AddBridge(b.bridge); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { goleak.VerifyNone(t) })
	return b
}

// start makes the Flows of a process that has just started, and points it at the bridge.
func (b *bench) start() {
	b.t.Helper()
	b.Flows = NewFlows(slog.New(slog.NewTextHandler(&b.log, nil)), learnedTable)
	b.SetPath(b.sw.Socket(b.bridge))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		b.t.Helper()
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run = %v", err)
		}
	})
	b.t.Cleanup(b.stop)
}

// until waits for a status that satisfies cond.
func (b *bench) until(what string, cond func(Status) bool) Status {
	b.t.Helper()
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	for {
		s := b.Status()
		if cond(s) {
			return s
		}
		select {
		case <-b.Changed():
		case <-timeout.C:
			b.t.Fatalf("no status with %s: it is %+v\n%s", what, s, b.log.String())
		}
	}
}

// installed waits until the bridge has everything up to a turn.
func (b *bench) installed(turn uint64) Status {
	b.t.Helper()
	return b.until(fmt.Sprintf("turn %d installed", turn), func(s Status) bool { return s.Installed && s.AckedTurn == turn })
}

// flows returns the bridge's flows as ovs-ofctl prints them, sorted.
func (b *bench) flows() []string {
	b.t.Helper()
	return lines(b.sw.OFctl(b.t, "--no-names", "--no-stats", "dump-flows", b.bridge))
}

// lines returns the lines that describe a flow, sorted.
func lines(out string) []string {
	var flows []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.Contains(line, "actions=") {
			flows = append(flows, line)
		}
	}
	slices.Sort(flows)
	return flows
}

// ruleTexts returns rules as ovs-ofctl prints them, sorted.
func ruleTexts(rules []ir.Rule) []string {
	var out []string
	for i := range rules {
		out = append(out, openflow.FormatFlow(&rules[i]))
	}
	slices.Sort(out)
	return out
}

// drained waits until nothing that was put waits to be taken in.
func (b *bench) drained() {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		waiting := len(b.pending.Replacements) + len(b.pending.FlushZones)
		b.mu.Unlock()
		if waiting == 0 {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("%d replacements and zones wait", waiting)
		}
	}
}

func (b *bench) wantFlows(want []string) {
	b.t.Helper()
	same(b.t, "flows", b.flows(), want)
}

// same fails the test unless two lists of flows, in whatever order, are equal.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// numbered returns n rules that the bridge accepts, one per priority from 1.
func numbered(n int) []ir.Rule {
	rules := make([]ir.Rule, n)
	for i := range rules {
		rules[i] = rule(uint16(i+1), uint64(i+100), ir.SetWhole(ir.Reg0, uint64(i)), ir.Resubmit{Table: 9})
	}
	return rules
}

// whole is a complete batch in which each rule has an owner of its own: 0, 1, ...
func whole(turn uint64, rules []ir.Rule) Batch {
	b := Batch{Turn: turn, Complete: true}
	for i := range rules {
		b.Replacements = append(b.Replacements, Replacement{Owner: owner(i), Rules: rules[i : i+1]})
	}
	return b
}

func TestNothingChangesBeforeTheFirstCompleteBatch(t *testing.T) {
	b := newBench(t)
	b.sw.OFctl(t, "add-flow", b.bridge, "table=8,priority=1,metadata=1,actions=drop")
	before := b.flows()
	b.until("a connection", func(s Status) bool { return s.Connected })
	b.Put(Batch{Turn: 1, Replacements: []Replacement{{Owner: owner(1), Rules: numbered(3)}}, FlushZones: []uint16{7}})
	b.Put(Batch{Turn: 2, Replacements: []Replacement{{Owner: owner(2), Rules: numbered(2)}}})
	// Another connection sees everything that this one sent before, if it sent anything.
	time.Sleep(50 * time.Millisecond)
	b.wantFlows(before)
	if s := b.Status(); s.Installed || s.Sent != 0 || s.AckedTurn != 0 {
		t.Errorf("status %+v, want nothing sent or acknowledged", s)
	}
	b.Put(whole(3, numbered(3)))
	s := b.installed(3)
	b.wantFlows(ruleTexts(numbered(3)))
	if s.Desired != 3 || s.Refused != 0 || s.Sent != 3 {
		t.Errorf("status %+v, want 3 desired, 0 refused, 3 sent", s)
	}
}

// A turn that comes in parts is installed as a whole, and what no part names is not wanted.
func TestParts(t *testing.T) {
	b := newBench(t)
	b.Put(whole(1, numbered(10)))
	sent := b.installed(1).Sent
	rules := numbered(6)
	parts := whole(2, rules).Replacements
	b.Put(Batch{Turn: 2, Complete: true, More: true, Replacements: parts[:2]})
	b.drained()
	b.Put(Batch{Turn: 2, More: true, Replacements: parts[2:4]})
	b.drained()
	time.Sleep(50 * time.Millisecond)
	b.wantFlows(ruleTexts(numbered(10)))
	if s := b.Status(); s.AckedTurn != 1 || s.Sent != sent {
		t.Errorf("half a turn: %+v, want turn 1 and nothing sent", s)
	}
	b.Put(Batch{Turn: 2, Replacements: parts[4:]})
	if s := b.installed(2); s.Sent != sent+4 {
		t.Errorf("%d flow modifications, want 4 deletions", s.Sent-sent)
	}
	b.wantFlows(ruleTexts(rules))

	// All of it may be waiting at once, with the next turn behind it.
	b.SetPath("")
	b.until("no bridge", func(s Status) bool { return !s.Connected })
	b.Put(Batch{Turn: 3, Complete: true, More: true, Replacements: parts[:2]})
	b.Put(Batch{Turn: 3, Replacements: parts[2:3]})
	b.Put(Batch{Turn: 4, Replacements: parts[5:]})
	b.SetPath(b.sw.Socket(b.bridge))
	b.installed(4)
	b.wantFlows(ruleTexts(append(numbered(3), rules[5])))
}

// A restart that changes nothing touches no flow; what is foreign goes; what was learned stays.
func TestAdoption(t *testing.T) {
	b := newBench(t)
	rules := numbered(50)
	rules = append(rules,
		ir.Rule{
			Table: 8, Priority: 60, Cookie: 7, Match: ir.Match{}.Eq(ir.EthType, 0x800).Eq(ir.IPProto, 6).Eq(ir.TCPDst, 80).Masked(ir.IPSrc, 0x0a000000, 0xff000000),
			Actions: []ir.Action{ir.CT{Commit: true, Table: ir.NoTable, Zone: 9, Exec: []ir.Action{ir.SetWhole(ir.CTMark, 1)}}},
		},
		ir.Rule{Table: 8, Priority: 61, Match: ir.Match{}.Eq(ir.Reg0, 1), Actions: []ir.Action{member(5, 0), member(6, 1)}})
	b.Put(whole(1, rules))
	b.installed(1)
	b.sw.OFctl(t, "packet-out", b.bridge, "in_port=controller,packet=505400000001505400000002080045000014000000000001000000000000000000000000,actions=set_field:1->metadata,resubmit(,8)")
	b.stop()
	b.wantFlows(ruleTexts(rules)) // the end of a process leaves everything

	for _, foreign := range []string{
		"cookie=1,table=0,priority=5,actions=drop",
		"cookie=1,table=20,priority=5,reg1=3,actions=normal",
		"cookie=0x64,table=8,priority=1,metadata=1,actions=drop",                                                                     // in the place of ours
		"cookie=0x65,table=8,priority=2,metadata=1,idle_timeout=600,actions=set_field:0x1->reg0,resubmit(,9)",                        // ours, but it would go away
		"cookie=0x66,table=8,priority=3,metadata=1,importance=1,send_flow_rem,actions=set_field:0x2->reg0,resubmit(,9)",              // ours, but with a flag
		"cookie=9,table=8,priority=4,metadata=1,actions=set_field:0x3->reg0,resubmit(,9)",                                            // ours, of another row
		"cookie=3,table=8,priority=99,mpls,mpls_label=3,actions=multipath(eth_src,1,hrw,2,0,reg0[])",                                 // nothing we could write
		"cookie=5,table=77,priority=100,hard_timeout=600,reg1=5,actions=set_field:0x1->reg0",                                         // learned
		"cookie=5,table=77,priority=100,reg1=6,actions=learn(table=79,NXM_OF_ETH_SRC[],load:0x1->NXM_NX_REG10[9]),set_field:1->reg9", // learned
	} {
		b.sw.OFctl(t, "add-flow", b.bridge, foreign)
	}
	before := b.counters()

	b.start()
	b.Put(whole(1, rules))
	s := b.installed(1)
	if s.Sent != 7 {
		t.Errorf("%d flow modifications, want 7: one for each flow that is foreign or in the place of ours", s.Sent)
	}
	var learned []string
	got := slices.DeleteFunc(b.flows(), func(s string) bool {
		if strings.Contains(s, "table=77,") {
			learned = append(learned, s)
			return true
		}
		return false
	})
	same(t, "adopted flows", got, ruleTexts(rules))
	if len(learned) != 2 {
		t.Errorf("learned flows %q, want 2", learned)
	}
	after := b.counters()
	if n := before["cookie=0x95"]; n != 1 {
		t.Fatalf("the packet was not counted: %v", before)
	}
	if after["cookie=0x95"] != 1 {
		t.Errorf("the flow that was right has been replaced: its counter is %d", after["cookie=0x95"])
	}

	b.stop()
	b.start()
	b.Put(whole(9, rules))
	if s := b.installed(9); s.Sent != 0 {
		t.Errorf("%d flow modifications by a restart without any change, want 0", s.Sent)
	}
}

// counters returns the packet counts by cookie.
func (b *bench) counters() map[string]int {
	b.t.Helper()
	counts := map[string]int{}
	for _, line := range lines(b.sw.OFctl(b.t, "--no-names", "dump-flows", b.bridge)) {
		cookie, rest, _ := strings.Cut(line, ",")
		_, rest, _ = strings.Cut(rest, "n_packets=")
		var n int
		if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
			b.t.Fatalf("%q: %v", line, err)
		}
		counts[cookie] += n
	}
	return counts
}

// unknownGroup returns a rule that can be understood but not installed; wrong one that cannot be understood.
func unknownGroup(priority uint16) ir.Rule { return rule(priority, 1, ir.Group{ID: 4242}) }

func wrong(priority uint16) ir.Rule {
	return ir.Rule{Table: 8, Priority: priority, Cookie: 1, Match: ir.Match{}.Eq(ir.TCPDst, 80), Actions: []ir.Action{ir.Resubmit{Table: 9}}}
}

func TestRefusedFlowsAreIsolated(t *testing.T) {
	for _, tt := range []struct {
		name   string
		bad    func(uint16) ir.Rule
		reason string
	}{
		{"that cannot be applied", unknownGroup, "OFPBAC_BAD_OUT_GROUP"},
		{"that cannot be understood", wrong, "OFPBMC_BAD_PREREQ"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			rules := numbered(1000)
			var good, bad []ir.Rule
			for i := range rules {
				if i%10 == 3 {
					rules[i] = tt.bad(uint16(i + 1))
					bad = append(bad, rules[i])
				} else {
					good = append(good, rules[i])
				}
			}
			b.Put(whole(1, rules))
			s := b.installed(1)
			if s.Refused != len(bad) || s.Desired != len(rules) {
				t.Errorf("status %+v, want %d refused of %d", s, len(bad), len(rules))
			}
			b.wantFlows(ruleTexts(good))

			refused := b.TakeRefused()
			var texts []string
			for _, r := range refused {
				texts = append(texts, r.Flow)
				var e *openflow.Error
				if !errors.As(r.Err, &e) || e.Name() != tt.reason {
					t.Fatalf("%s refused with %v, want %s", r.Flow, r.Err, tt.reason)
				}
			}
			same(t, "refused flows", texts, ruleTexts(bad))
			for _, r := range refused {
				if len(r.Rows) != 1 || !strings.Contains(r.Flow, fmt.Sprintf("priority=%d,", rowNumber(r.Rows[0])+1)) {
					t.Fatalf("%s is said to be of rows %v", r.Flow, r.Rows)
				}
			}

			// A turn that changes something else tries none of them again.
			sent := s.Sent
			b.Put(Batch{Turn: 2, Replacements: []Replacement{{Owner: owner(2000), Rules: []ir.Rule{rule(5000, 1)}}}})
			if s := b.installed(2); s.Sent != sent+1 || s.Refused != len(bad) {
				t.Errorf("one more flow: %d sent and %d refused, want 1 and %d", s.Sent-sent, s.Refused, len(bad))
			}
			if again := b.TakeRefused(); len(again) != 0 {
				t.Errorf("refused once more: %v", again)
			}
			// One that changes is tried again, and one that nobody wants is forgotten.
			fixed := numbered(14)[13]
			sent = b.Status().Sent
			b.Put(Batch{Turn: 3, Replacements: []Replacement{{Owner: owner(3), Rules: nil}, {Owner: owner(13), Rules: []ir.Rule{fixed}}}})
			if s := b.installed(3); s.Refused != len(bad)-2 || s.Sent != sent+1 {
				t.Errorf("one refused flow changed and one gone: %d sent and %d refused, want 1 and %d", s.Sent-sent, s.Refused, len(bad)-2)
			}
			b.wantFlows(append(ruleTexts(good), openflow.FormatFlow(&fixed), "cookie=0x1, table=8, priority=5000,metadata=0x1 actions=drop"))
		})
	}
}

// A flow that was fine is refused when it changes: whatever the bridge still has there is told apart from what is wanted.
func TestRefusedChange(t *testing.T) {
	b := newBench(t)
	b.Put(whole(1, numbered(2)))
	b.installed(1)
	b.Put(Batch{Turn: 2, Replacements: []Replacement{{Owner: owner(1), Rules: []ir.Rule{unknownGroup(2)}}}})
	if s := b.installed(2); s.Refused != 1 {
		t.Fatalf("status %+v, want 1 refused", s)
	}
	b.Put(Batch{Turn: 3, Replacements: []Replacement{{Owner: owner(1), Rules: numbered(2)[1:]}}})
	if s := b.installed(3); s.Refused != 0 {
		t.Errorf("status %+v, want 0 refused", s)
	}
	b.wantFlows(ruleTexts(numbered(2)))
	b.Put(Batch{Turn: 4, Replacements: []Replacement{{Owner: owner(1), Rules: []ir.Rule{unknownGroup(2)}}}})
	b.installed(4)
	b.Put(Batch{Turn: 5, Replacements: []Replacement{{Owner: owner(1)}}})
	b.installed(5)
	b.wantFlows(ruleTexts(numbered(1)))
}

// rowNumber is the inverse of owner.
func rowNumber(row [16]byte) int { return int(row[0]) | int(row[1])<<8 }

// ovs-vswitchd dies and comes back with empty bridges: they are filled from memory, and nobody is told that flows are
// installed while they are not.
func TestSwitchRestart(t *testing.T) {
	b := newBridge(t)
	rules := numbered(200)
	rules = append(rules, ir.Rule{
		Table: 0, Priority: 100, Cookie: 3, Match: ir.Match{}.Eq(ir.InPort, 1), Actions: []ir.Action{
			ir.Move{Src: ir.Sub{Field: ir.TunMetadata0 + 1, N: 16}, Dst: ir.Sub{Field: ir.Reg15, N: 16}}, ir.Resubmit{Table: 8},
		},
	})
	b.sw.OFctl(t, "add-tlv-map", b.bridge, "{class=0x103,type=1,len=4}->tun_metadata0") // somebody else's
	b.start()
	geneve := b.until("a connection", func(s Status) bool { return s.Connected }).Geneve
	if geneve != ir.TunMetadata0+1 {
		t.Fatalf("Geneve option in %v although tun_metadata0 is taken, want tun_metadata1", geneve)
	}
	b.Put(whole(1, rules))
	b.installed(1)

	b.sw.Kill()
	s := b.until("the connection lost", func(s Status) bool { return !s.Connected })
	if s.Installed || s.Err == nil {
		t.Errorf("while there is no bridge: %+v, want nothing installed and an error", s)
	}
	b.Put(Batch{Turn: 2, Replacements: []Replacement{{Owner: owner(500), Rules: numbered(201)[200:]}}})
	b.Put(Batch{Turn: 3, Replacements: []Replacement{{Owner: owner(0)}}})
	if s := b.Status(); s.Installed || s.AckedTurn != 1 {
		t.Errorf("turn acknowledged without a bridge: %+v", s)
	}
	if err := b.sw.Resume(); err != nil {
		t.Fatal(err)
	}
	s = b.installed(3)
	b.wantFlows(ruleTexts(append(numbered(201)[1:], rules[200])))
	if s.Geneve != geneve || s.Err != nil || s.Refused != 0 {
		t.Errorf("status %+v, want the Geneve option in %v as before", s, geneve)
	}
}

// While the switch is away turns go on; memory does not grow with their number.
func TestTurnsWithoutBridge(t *testing.T) {
	b := newBench(t)
	b.SetPath("")
	b.until("no connection", func(s Status) bool { return !s.Connected })
	b.Put(whole(1, numbered(10)))
	for turn := range uint64(10000) {
		b.Put(Batch{Turn: turn + 2, Replacements: []Replacement{{Owner: owner(1), Rules: numbered(2)[1:]}, {Owner: owner(2), Rules: numbered(3)[2:]}}, FlushZones: []uint16{7}})
		if turn%100 == 0 {
			b.drained()
		}
	}
	b.SetPath(b.sw.Socket(b.bridge))
	b.installed(10001)
	b.wantFlows(ruleTexts(numbered(10)))
}

// Connections of a zone are gone before flows use it.
func TestZonesAreFlushedFirst(t *testing.T) {
	b := newBench(t)
	relay := openflowtest.StartRelay(t, b.sw, b.bridge)
	b.SetPath(relay.Socket(b.bridge))
	batch := whole(1, numbered(3))
	batch.FlushZones = []uint16{9, 5, 9}
	b.Put(batch)
	b.installed(1)
	want := []string{"flush 5", "flush 9", "bundle add", "bundle add", "bundle add"}
	if got := relay.Seen(); !slices.Equal(got, want) {
		t.Errorf("the bridge was sent %q, want %q", got, want)
	}
	b.Put(Batch{Turn: 2, FlushZones: []uint16{6}})
	b.installed(2)
	if got := relay.Seen(); !slices.Equal(got, []string{"flush 6"}) {
		t.Errorf("the bridge was sent %q, want one flush", got)
	}
}

func TestSetPath(t *testing.T) {
	b := newBench(t)
	b.Put(whole(1, numbered(5)))
	b.installed(1)
	other := b.bridge + "x"
	if err := b.sw.AddBridge(other); err != nil {
		t.Fatal(err)
	}
	b.SetPath(b.sw.Socket(other))
	if s := b.Status(); s.Installed && s.Sent == 5 {
		t.Errorf("%+v as soon as the bridge is another one", s)
	}
	b.until("the other bridge connected", func(s Status) bool { return s.Installed && s.Sent == 10 })
	b.wantFlows(ruleTexts(numbered(5))) // the old bridge is left alone
	b.bridge = other
	b.wantFlows(ruleTexts(numbered(5)))

	b.SetPath("")
	b.until("no bridge", func(s Status) bool { return !s.Connected && !s.Installed })
	b.Put(whole(2, numbered(2)))
	b.SetPath(b.sw.Socket(other))
	b.installed(2)
	b.wantFlows(ruleTexts(numbered(2)))

	// A path where nothing listens yet.
	late := b.bridge + "y"
	b.SetPath(b.sw.Socket(late))
	b.until("an error", func(s Status) bool { return !s.Connected && s.Err != nil && !errors.Is(s.Err, errMoved) })
	if err := b.sw.AddBridge(late); err != nil {
		t.Fatal(err)
	}
	b.bridge = late
	b.installed(2)
	b.wantFlows(ruleTexts(numbered(2)))
}
