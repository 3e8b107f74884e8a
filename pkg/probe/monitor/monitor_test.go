package monitor

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	s.want("the other end is not there", reason.LPortNotFound, `level=INFO msg="probe pair not measured" from=a to=b`)
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
	s.want("three are lost", reason.ProbeNoAnswer, `level=WARN msg="probe pair worse" from=a to=b reason=PROBE_NO_ANSWER`)
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
	if want := `level=WARN msg="probe port does not answer" lport=a err=bind`; strings.Count(s.log.String(), want) != 1 {
		t.Errorf("log:\n%s", s.log.String())
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
	if again, err := memory(file).read(); err != nil || again[Pair{"a", "b"}].Best != Filters {
		t.Errorf("%v %v", again, err)
	}
}
