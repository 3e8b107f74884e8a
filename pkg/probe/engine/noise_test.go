package engine

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// What the threads of a job have used is not used by others, those of its streams included, where they have run on the CPUs that are looked at.
func TestNoiseIsOfOthers(t *testing.T) {
	const ms = time.Millisecond
	before := stat{at: time.Unix(100, 0), cpu: map[int]share{0: {}, 1: {}, 2: {}, 3: {}}}
	after := stat{at: time.Unix(101, 0), cpu: map[int]share{0: {busy: 500 * ms, steal: 10 * ms}, 1: {busy: 600 * ms}, 2: {busy: 300 * ms}, 3: {busy: 200 * ms, steal: 70 * ms}}}
	for _, c := range []struct {
		name           string
		under          float64
		cpus, streams  [2]int
		priority       int
		others, steals time.Duration
		switches       int64
	}{
		{"no stream", 0, [2]int{0, 1}, [2]int{0, 1}, 0, 1100*ms - 200*ms, 10 * ms, 12},
		{"streams on the same CPUs", 0.3, [2]int{0, 1}, [2]int{0, 1}, 10, 1100*ms - 200*ms - 700*ms, 10 * ms, 12},
		{"and without priority", 0.3, [2]int{0, 1}, [2]int{0, 1}, 0, 1100*ms - 200*ms - 700*ms, 10 * ms, 0},
		{"streams elsewhere", 0.3, [2]int{0, 1}, [2]int{2, 3}, 0, 1100*ms - 200*ms, 10 * ms, 12},
		{"anywhere", 0.3, [2]int{-1, -1}, [2]int{2, 3}, 0, 1600*ms - 200*ms - 700*ms, 80 * ms, 0},
	} {
		e := newEngine(Job{Load: result.Load{Mode: result.RR, Transport: "udp", Under: c.under}, CPUs: c.cpus, StreamCPUs: c.streams, Priority: c.priority})
		for i, th := range []*thread{&e.client, &e.server, &e.background.sender, &e.background.receiver} {
			th.cpu = append(c.cpus[:], c.streams[:]...)[i]
			th.last.Utime = unix.NsecToTimeval(int64([]time.Duration{50, 40, 300, 200}[i] * ms))
			th.last.Stime = unix.NsecToTimeval(int64([]time.Duration{50, 60, 100, 100}[i] * ms))
			th.last.Nivcsw = []int64{5, 7, 1000, 1000}[i]
		}
		e.apart = 110
		got := e.noise(before, after)
		if want := (result.Noise{Steal: c.steals, Others: c.others, Switches: c.switches, Elapsed: time.Second, Apart: 110}); got != want {
			t.Errorf("%s: %+v, want %+v", c.name, got, want)
		}
	}
}
