package engine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// While something is measured Go's sysmon is late, and the two threads that measure, which poll, never wait for another one.
func TestSlack(t *testing.T) {
	var looks []look
	_, err := Run(t.Context(), Job{
		Paths: []Path{loopback("lo")}, Load: result.Load{Mode: result.RR, Transport: "udp", Size: 64, Duration: 6 * tick}, Burst: 10, Timeout: time.Second, Busy: true, CPUs: [2]int{-1, -1},
	}, func(e Event) {
		switch {
		case e.Note != "":
			t.Error(e.Note)
		case e.Progress != nil:
			looks = append(looks, threads(t))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("threads: %v", looks)
	whole := false
	for i := 1; i < len(looks); i++ {
		was, is := looks[i-1], looks[i]
		if len(was.measuring) != 2 || !maps.EqualFunc(was.measuring, is.measuring, func(_, _ int) bool { return true }) {
			continue // they have not begun, or have ended
		}
		whole = true
		if is.late == 0 {
			t.Errorf("no thread of Go's runtime is late: %v", is)
		}
		for id, waited := range is.measuring {
			if n := waited - was.measuring[id]; n > 5 {
				t.Errorf("thread %s has waited %d times in %v", id, n, tick)
			}
		}
	}
	if !whole {
		t.Errorf("two threads measure, and were not seen: %v", looks)
	}
}

// A look is how many threads have slack, and how often those that measure, whose slack is the least, have waited.
type look struct {
	late      int
	measuring map[string]int
}

// threads looks at the engine that this process has started.
func threads(t *testing.T) look {
	t.Helper()
	l := look{measuring: map[string]int{}}
	for _, task := range tasks(t) {
		text, err := os.ReadFile(filepath.Join("/proc", filepath.Base(task), "timerslack_ns"))
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		switch strings.TrimSpace(string(text)) {
		case strconv.Itoa(int(slack)):
			l.late++
		case "1":
			l.measuring[filepath.Base(task)] = waits(t, task)
		}
	}
	return l
}

// tasks are the directories of the threads of this process' children.
func tasks(t *testing.T) (all []string) {
	t.Helper()
	lines, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		text, _ := os.ReadFile(file) // a thread may have ended
		for child := range strings.FieldsSeq(string(text)) {
			found, err := filepath.Glob(filepath.Join("/proc", child, "task", "*"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, found...)
		}
	}
	return all
}

// waits is how often a thread has let others run because it had to wait.
func waits(t *testing.T, task string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(task, "status"))
	if err != nil {
		return 0 // it has ended
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s does not say how often it has waited:\n%s", task, text)
	return 0
}
