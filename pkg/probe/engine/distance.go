package engine

import (
	"slices"
	"sync/atomic"
	"time"
)

// A handover is a cache line that two threads hand to each other. Its time says how far apart their CPUs are: threads of one core, cores of one cache, or others.
// On virtual CPUs it is not always the same, because a hypervisor moves them; a round trip that hands packets from one to the other moves with it.
type handover struct {
	_    [128]byte     // processors fetch pairs of lines
	turn atomic.Uint64 // odd: it is the answering thread's
	_    [128]byte
	over atomic.Bool
}

const (
	handoverTimes   = 100                   // in a batch
	handoverBatches = 9                     // of which the median counts: others may have run in one
	handoverLimit   = 20 * time.Millisecond // for all, and for how long the answering thread waits
)

// ask returns how long the line takes to the thread that answers and back, or 0 if that thread does not answer in time.
func (h *handover) ask(now func() time.Duration) time.Duration {
	defer h.over.Store(true)
	end := now() + handoverLimit
	var took [handoverBatches]time.Duration
	for i := range took {
		begun := now()
		for range handoverTimes {
			mine := h.turn.Add(1) + 1
			for spins := 1; h.turn.Load() != mine; spins++ {
				if spins%1024 == 0 && now() >= end {
					return 0
				}
			}
		}
		took[i] = (now() - begun) / handoverTimes
	}
	slices.Sort(took[:])
	return took[len(took)/2]
}

// answer hands the line back until ask has returned, or for not longer than twice the limit.
func (h *handover) answer(now func() time.Duration) {
	end := now() + 2*handoverLimit
	for spins := 1; !h.over.Load(); spins++ {
		if turn := h.turn.Load(); turn%2 == 1 {
			h.turn.Store(turn + 1)
		} else if spins%1024 == 0 && now() >= end {
			return
		}
	}
}

// distant reports whether the two threads are on CPUs of their own that are known.
func (e *engine) distant() bool {
	c := e.job.CPUs
	return c[0] >= 0 && c[1] >= 0 && c[0] != c[1]
}
