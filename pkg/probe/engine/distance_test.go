package engine

import (
	"runtime"
	"testing"
	"time"
)

// clock is one for threads of a test.
func clock() func() time.Duration {
	base := time.Now()
	return func() time.Duration { return time.Since(base) }
}

// The line comes back to who has handed it over, and both threads go on.
func TestHandover(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("two threads cannot run at the same time: there is one CPU")
	}
	for range 20 { // others may run for longer than it may take
		var h handover
		now, answered := clock(), make(chan struct{})
		go func() { // ends with ask, or by its own limit
			defer close(answered)
			h.answer(now)
		}()
		d := h.ask(now)
		<-answered
		if d > 0 {
			if want := uint64(2 * handoverTimes * handoverBatches); h.turn.Load() != want {
				t.Errorf("%d turns, want %d", h.turn.Load(), want)
			}
			return
		}
	}
	t.Error("no line has come back in time, 20 times")
}

// Nobody waits for a thread that does not run.
func TestHandoverAlone(t *testing.T) {
	var h handover
	if d := h.ask(clock()); d != 0 {
		t.Errorf("ask() = %v, though nobody answers", d)
	}
	h.answer(clock()) // ask is over
	h = handover{}
	h.answer(clock()) // nobody asks
}
