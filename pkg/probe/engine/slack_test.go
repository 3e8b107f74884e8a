package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// While something is measured the timers of all threads but the two that measure are late, so that they expire with others. These two have none that is.
func TestSlack(t *testing.T) {
	var looks [][2]int // threads with slack, and without
	_, err := Run(t.Context(), Job{
		Paths: []Path{loopback("lo")}, Load: result.Load{Mode: result.RR, Transport: "udp", Size: 64, Duration: 4 * tick}, Burst: 10, Timeout: time.Second, CPUs: [2]int{-1, -1},
	}, func(e Event) {
		switch {
		case e.Note != "":
			t.Error(e.Note)
		case e.Progress != nil:
			looks = append(looks, slacks(t))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	measured := func(n [2]int) bool { return n[0] > 0 && n[1] == 2 }
	if !slices.ContainsFunc(looks, measured) { // of others the two have not begun, or have ended
		t.Errorf("threads with slack, and without: %v, want some and 2", looks)
	}
}

// slacks counts the threads of the engine that this process has started.
func slacks(t *testing.T) (n [2]int) {
	t.Helper()
	lines, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		text, _ := os.ReadFile(file) // a thread may have ended
		for child := range strings.FieldsSeq(string(text)) {
			tasks, err := filepath.Glob(filepath.Join("/proc", child, "task", "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range tasks {
				text, err := os.ReadFile(filepath.Join("/proc", filepath.Base(task), "timerslack_ns"))
				if err != nil {
					t.Fatal(err)
				}
				if strings.TrimSpace(string(text)) == strconv.Itoa(int(slack)) {
					n[0]++
				} else {
					n[1]++
				}
			}
		}
	}
	return n
}
