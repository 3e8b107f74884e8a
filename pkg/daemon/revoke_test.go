package daemon

import (
	"testing"
	"testing/synctest"
	"time"
)

// However often filters change, connections are looked for at once at first, at most once in two seconds from then on, and a last time two
// seconds after the last change or later.
func TestTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done []time.Duration
		begin := time.Now()
		w := twice{do: func() { done = append(done, time.Since(begin)) }}
		for range 95 {
			w.now()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if len(done) != 7 || done[0] != 0 {
			t.Fatalf("done after %v, want at once and six times more", done)
		}
		for i, at := range done[1:] {
			if at-done[i] < revokeAgain {
				t.Errorf("done after %v, too soon after %v", at, done[i])
			}
		}
		if last := 94 * 100 * time.Millisecond; done[6] < last+revokeAgain {
			t.Errorf("done for the last time after %v; the last change was after %v", done[6], last)
		}
		w.now()
		time.Sleep(time.Minute)
		if len(done) != 9 {
			t.Errorf("done %d times after one change, want 2", len(done)-7)
		}
	})
}
