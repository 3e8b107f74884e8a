package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// starts are those of a run in which a VF was not made once, and the first packet that hardware forwarded is not known of every fourth start.
func starts() *result.Starts {
	forwarding := func(i int, hardware bool) result.Forwarding {
		f := result.Forwarding{Filters: time.Duration(42+i) * time.Millisecond, Packet: 3 + i%2, Exact: true}
		if hardware {
			f.Hardware, f.HardwarePacket = time.Duration(2100+10*i)*time.Millisecond, 2050+i
		}
		if i%4 == 3 {
			f.Packet, f.HardwarePacket, f.Exact = 0, 0, false
		}
		return f
	}
	start := func(i int, hardware bool) result.Start {
		ms := func(n int) time.Duration {
			return time.Duration(n)*time.Millisecond + time.Duration(i*i)*10*time.Microsecond
		}
		return result.Start{
			Port: fmt.Sprintf("probe-%d", 1+i%2), Configured: ms(4), Installed: ms(31), Created: ms(32), Answered: ms(33), Deleted: ms(12), Sent: 3000,
			Requests: forwarding(i, hardware), Answers: forwarding(i+1, hardware),
		}
	}
	s := &result.Starts{
		Target: result.Port{Name: "db", Kind: "vf", Device: "rep2", Address: "10.0.0.2", NIC: true}, Ports: []string{"probe-1", "probe-2"},
		Wait: 10 * time.Second, Interval: time.Millisecond,
		Cases: []result.StartCase{
			{Path: "veth", Kind: "veth", Parallel: 1, Never: map[string]string{result.StepHardware: "a veth is no NIC's", result.StepHardwareBack: "a veth is no NIC's"}},
			{Path: "vf x2", Kind: "vf", Parallel: 2},
		},
	}
	for i := range 120 {
		s.Cases[0].Batches = append(s.Cases[0].Batches, result.Batch{Starts: []result.Start{start(i, false)}})
	}
	for i := 0; i < 30; i += 2 {
		s.Cases[1].Batches = append(s.Cases[1].Batches, result.Batch{Starts: []result.Start{start(i, true), start(i+1, true)}})
	}
	s.Cases[1].Batches[3].Starts[1] = result.Start{Port: "probe-2", Failed: "pool fast: none is free"}
	return s
}

func TestStartsPage(t *testing.T) {
	page, err := HTML(scene(t, "starts"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"answered by db (vf, rep2, 10.0.0.2)", "requests in hardware", "vf x2, 1 time: pool fast: none is free", "veth, by percentile", "a veth is no NIC&#39;s"} {
		if !strings.Contains(page, want) {
			t.Errorf("there is no %q", want)
		}
	}
	for _, not := range []string{"NaN", "Inf", "Differentials", "sessions", "lost from here"} {
		if strings.Contains(page, not) {
			t.Errorf("there is %s", not)
		}
	}
	none := scene(t, "starts")
	none.Starts.NoFilters, none.Starts.Cases = "offload is off", none.Starts.Cases[:1]
	none.Starts.Cases[0].Batches, none.Starts.Cases[0].Steps = nil, nil
	if page, err = HTML(none); err != nil || !strings.Contains(page, "by filters, in hardware: offload is off") {
		t.Errorf("without filters or starts: %v", err)
	}
	if text := Text(none, 80); !strings.Contains(text, "by filters, in hardware: offload is off") {
		t.Error(text)
	}
}

// What is beyond any use is refused, and starts are compared with nothing.
func TestReadStarts(t *testing.T) {
	for what, change := range map[string]func(*result.Starts){
		"cases":  func(s *result.Starts) { s.Cases = make([]result.StartCase, maxPaths+1) },
		"ports":  func(s *result.Starts) { s.Ports = make([]string, maxCases+1) },
		"path":   func(s *result.Starts) { s.Cases[0].Path = "sf" },
		"starts": func(s *result.Starts) { s.Cases[0].Batches[0].Starts = make([]result.Start, maxStarts+1) },
		"text":   func(s *result.Starts) { s.Cases[0].Never["x"] = "a\x1b[2J" },
	} {
		run := scene(t, "starts")
		change(run.Starts)
		text, err := JSON(run)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(text); err == nil {
			t.Errorf("too many or wrong %s are taken", what)
		}
	}
	if _, err := Compare(scene(t, "starts"), scene(t, "starts")); err == nil || !strings.Contains(err.Error(), "runs of starts") {
		t.Errorf("compared: %v", err)
	}
}
