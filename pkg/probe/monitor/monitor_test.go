package monitor

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/offloadd/offloadd/pkg/probe/pinger"
	"github.com/offloadd/offloadd/pkg/reason"
)

// A stage is a Monitor without a process, whose clock and reports are the test's.
type stage struct {
	*Monitor
	t       *testing.T
	now     time.Time
	log     bytes.Buffer
	way     Way
	numbers *numbering
}

func newStage(t *testing.T, file string, pairs ...string) *stage {
	t.Helper()
	s := &stage{t: t, now: time.Unix(1000, 0), numbers: &numbering{}}
	s.Monitor = New(Options{
		Config: config(pairs...), Log: slog.New(slog.NewTextHandler(&s.log, nil)), File: file, Now: func() time.Time { return s.now },
		Ways: func(_ context.Context, flows []Flow) ([]Way, error) {
			ways := make([]Way, len(flows))
			for i := range ways {
				ways[i] = s.way
			}
			return ways, nil
		},
	})
	return s
}

// see is the part of Run that takes a world.
func (s *stage) see(w World) {
	var all map[Pair]role
	all, s.numbers = roles(s.options.Config, w, s.numbers)
	s.arrange(all)
}

// looks looks twice.
func (s *stage) looks(w Way) {
	s.way = w
	for range 2 {
		s.now = s.now.Add(time.Minute)
		s.look(s.t.Context())
	}
}

func (s *stage) only() State {
	s.t.Helper()
	all, _ := s.States(true)
	if len(all) != 1 {
		s.t.Fatalf("%+v", all)
	}
	return all[0]
}

func (s *stage) want(what string, why reason.Reason, log string) {
	s.t.Helper()
	if p := s.only(); p.Reason != why || !strings.Contains(s.log.String(), log) {
		s.t.Errorf("%s: %+v, want %q; log:\n%s", what, p, why, s.log.String())
	}
	s.log.Reset()
}

func twoPorts(netns string) World {
	return World{map[string]Own{"a": own(netns, "10.0.0.1")}, map[string]Port{"a": {addrs("10.0.0.1"), "n1"}, "b": {addrs("10.0.0.2"), "n2"}}}
}

// Each state that a pair comes to is said once, with when it began, and forgotten when its ends are others. What was counted stays.
func TestMonitor(t *testing.T) {
	s := newStage(t, "", "a b")
	if all, _ := s.States(false); len(all) != 0 {
		t.Errorf("before anything is known: %+v", all)
	}
	_, changed := s.States(false)
	s.see(World{map[string]Own{"a": own("a", "10.0.0.1")}, map[string]Port{"a": {addrs("10.0.0.1"), "n1"}}})
	select {
	case <-changed:
	default:
		t.Error("nobody is told")
	}
	s.want("the other end is not there", reason.LPortNotFound, `level=INFO msg="probe pair not measured" from=a to=b packets=requests`)
	s.see(twoPorts("a"))
	s.want("both are there", "", `level=INFO msg="probe pair well again"`)
	id := s.only()
	if !id.Measured || id.Chassis != "n2" || id.Worse() {
		t.Errorf("%+v", id)
	}
	number := s.numbers.last
	report := func(r pinger.PairReport) {
		r.ID = number
		s.now = s.now.Add(time.Second)
		s.report(pinger.Report{Pairs: []pinger.PairReport{r}})
	}
	lost := pinger.PairReport{Counts: pinger.Counts{Sent: 1, Lost: 1}}
	report(lost)
	report(lost)
	s.want("two are lost", "", "")
	report(lost)
	s.want("three are lost", reason.ProbeNoAnswer, `level=WARN msg="probe pair worse" from=a to=b packets=requests reason=PROBE_NO_ANSWER`)
	since := s.only().Since
	report(lost)
	if p := s.only(); s.log.Len() > 0 || p.Since != since || !p.Worse() || !strings.Contains(p.Message, "4 requests") {
		t.Errorf("%+v; log:\n%s", p, s.log.String())
	}
	report(pinger.PairReport{Counts: pinger.Counts{Sent: 1, Answered: 1}, Took: []int64{5000}})
	s.want("one is answered", "", "well again")

	s.looks(Way{Packets: 100, Hardware: 100})
	s.want("offloaded", "", "")
	if p := s.only(); p.Level != Hardware {
		t.Errorf("%+v", p)
	}
	s.looks(Way{Packets: 100})
	s.want("not any more", reason.ProbeOffloadLost, "by hardware, and are by Open vSwitch now")
	if p := s.only(); p.Regressions != 1 || p.Level != ByOVS {
		t.Errorf("%+v", p)
	}
	report(pinger.PairReport{Error: "network is unreachable"})
	s.want("it cannot be sent", reason.KernelRefused, "network is unreachable")
	report(pinger.PairReport{})

	s.see(twoPorts("another"))
	s.want("another pod", "", "well again")
	if p := s.only(); p.Level != Unknown || p.Latency.Count != 0 || p.Counts.Sent != 5 || p.All.Count != 1 || p.Regressions != 1 {
		t.Errorf("%+v", p)
	}
	report(lost) // of the pod before
	if p := s.only(); p.Counts.Sent != 5 {
		t.Errorf("%+v", p)
	}
	s.fail("killed")
	s.want("no process", reason.Internal, "killed")
	s.see(World{Ports: twoPorts("a").Ports})
	if all, _ := s.States(false); len(all) != 0 {
		t.Errorf("what is not here: %+v", all)
	}
}

// What ports answer is added up, and said if they cannot.
func TestAnswers(t *testing.T) {
	s := newStage(t, "", "b a")
	s.see(twoPorts("a"))
	id := s.numbers.last
	s.report(pinger.Report{Answers: []pinger.AnswerReport{{ID: id, Answered: 3, Refused: 1}, {ID: id + 1, Answered: 2}}})
	s.report(pinger.Report{Answers: []pinger.AnswerReport{{ID: id, Answered: 1, Error: "bind"}}})
	if answered, refused := s.Answers(); answered != 6 || refused != 1 {
		t.Errorf("%d answered, %d refused", answered, refused)
	}
	s.want("it cannot answer", reason.KernelRefused, `msg="probe pair worse" from=b to=a packets=answers reason=KERNEL_REFUSED err=bind`)
	if p := s.only(); !p.Answers || p.Measured || !p.Worse() {
		t.Errorf("%+v", p)
	}
	s.report(pinger.Report{Answers: []pinger.AnswerReport{{ID: id, Answered: 1}}})
	s.want("it answers", "", "well again")
}

// The way of answers is looked at where they are sent, and that their offload is lost is found there, also by the next daemon; a pair of one node has both sides.
func TestAnswersLost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "monitor.json")
	s := newStage(t, file, "b a")
	s.see(twoPorts("a"))
	s.looks(Way{Packets: 100, Hardware: 100, NIC: true})
	s.want("offloaded", "", "")
	assured := Tracked{}.With(true, false, false)
	s.looks(Way{Packets: 100, NIC: true, Tracked: assured})
	s.want("not any more", reason.ProbeOffloadLost, "by hardware, and are by Open vSwitch now; the connection tracker has it in no flow table")
	if p := s.only(); !p.Answers || p.Way.Tracked != assured || p.Why == "" || p.Level != ByOVS || p.Regressions != 1 {
		t.Errorf("%+v", p)
	}
	flows := []Flow{{Side{Pair{"b", "a"}, true}, pinger.Pair{From: end("a", "10.0.0.1"), To: addrs("10.0.0.2")[0]}, 8629, 8630}}
	if d := cmp.Diff(flows, s.flows, cmpopts.EquateComparable(netip.Addr{})); d != "" || s.flows[0].Port() != "a" {
		t.Errorf("looked at (-want +got)\n%s", d)
	}

	next := newStage(t, file, "b a", "a b")
	next.see(twoPorts("a"))
	next.looks(Way{Packets: 100, Software: 100})
	all, _ := next.States(false)
	if len(all) != 2 || all[0].Answers || all[0].Reason != "" || !all[1].Answers || all[1].Reason != reason.ProbeOffloadLost || !strings.Contains(all[1].Message, "by filters in software now") {
		t.Errorf("the next daemon: %+v", all)
	}

	both := newStage(t, "", "a b")
	w := twoPorts("a")
	w.Own["b"] = own("b", "10.0.0.2")
	both.see(w)
	if all, _ := both.States(false); len(all) != 2 || all[0].Answers || !all[1].Answers || all[0].Pair != all[1].Pair {
		t.Errorf("a pair of one node: %+v", all)
	}
	delete(w.Own, "b")
	both.see(w)
	if p := both.only(); p.Answers {
		t.Errorf("of a port that is gone: %+v", p)
	}
}

// A daemon that offloads less than the one before it says so; of other ends it remembers nothing, nor of a file that it cannot read.
func TestMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "monitor.json")
	s := newStage(t, file, "a b")
	s.see(twoPorts("a"))
	s.looks(Way{Packets: 100, Software: 95})

	next := newStage(t, file, "a b")
	next.see(twoPorts("a"))
	next.want("before a look", "", "")
	next.looks(Way{Packets: 100, Software: 5})
	next.want("it offloads less", reason.ProbeOffloadLost, "by filters in software, and are by Open vSwitch now")

	moved := newStage(t, file, "a b")
	moved.see(twoPorts("another"))
	moved.looks(Way{Packets: 100})
	moved.want("another pod", "", "")

	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := newStage(t, file, "a b")
	broken.see(twoPorts("a"))
	broken.looks(Way{Packets: 100, Software: 95})
	broken.want("a broken file", "", `msg="offload of probes not remembered"`)
	if again, err := memory(file).read(); err != nil || again[Side{Pair{"a", "b"}, false}].Best != Filters {
		t.Errorf("%v %v", again, err)
	}
}
