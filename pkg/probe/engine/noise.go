package engine

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A stat is what /proc/stat says of some CPUs, in seconds since boot.
type stat struct {
	at  time.Time
	cpu map[int]share
}

type share struct{ busy, steal time.Duration }

// hertz is the unit of /proc/stat, which Linux has the same for all programs: USER_HZ.
const hertz = 100

// readStat returns nothing where there is no /proc/stat.
func readStat() stat {
	s := stat{at: time.Now(), cpu: map[int]share{}}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return s
	}
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		name, ok := bytes.CutPrefix(fields[0], []byte("cpu"))
		number, err := strconv.Atoi(string(name))
		if !ok || err != nil || len(fields) < 9 {
			continue
		}
		var ticks [9]time.Duration
		for i := 1; i < 9; i++ {
			n, _ := strconv.ParseInt(string(fields[i]), 10, 64) // digits
			ticks[i] = time.Duration(n) * (time.Second / hertz)
		}
		// user, nice, system, idle, iowait, irq, softirq, steal
		s.cpu[number] = share{busy: ticks[1] + ticks[2] + ticks[3] + ticks[6] + ticks[7], steal: ticks[8]}
	}
	return s
}

// sharesCPU reports whether threads that measure may be switched for those of the background. Nobody can tell then whether it was for others.
func (e *engine) sharesCPU() bool {
	if e.job.Load.Under == 0 || e.job.Priority > 0 {
		return false
	}
	for _, s := range e.job.StreamCPUs {
		for _, m := range e.job.CPUs {
			if s == m || s < 0 || m < 0 {
				return true
			}
		}
	}
	return false
}

// noise is what others have done meanwhile on the CPUs of the two threads, or if these are not said, on all.
func (e *engine) noise(before, after stat) result.Noise {
	n := result.Noise{Elapsed: after.at.Sub(before.at), Apart: e.apart}
	for number, a := range after.cpu {
		anywhere := e.job.CPUs[0] < 0 || e.job.CPUs[1] < 0
		if b := before.cpu[number]; anywhere || number == e.job.CPUs[0] || number == e.job.CPUs[1] {
			n.Steal += a.steal - b.steal
			n.Others += a.busy - b.busy
		}
	}
	for _, t := range e.threads() {
		if t.cpu == e.job.CPUs[0] || t.cpu == e.job.CPUs[1] || e.job.CPUs[0] < 0 || e.job.CPUs[1] < 0 {
			n.Others -= t.ran()
		}
	}
	for _, t := range []*thread{&e.client, &e.server} {
		if !e.sharesCPU() {
			n.Switches += t.last.Nivcsw - t.first.Nivcsw
		}
	}
	n.Others = max(n.Others, 0) // ticks are coarse
	return n
}
