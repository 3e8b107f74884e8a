package probe

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/probe/path"
	"github.com/offloadd/offloadd/pkg/probe/result"
)

// A forwarding is CPU time of the programs through which packets pass, those in the namespaces of a path, by the path's name and side.
type forwarding map[string][2]time.Duration

// space is the name of a namespace of a path: its number, what it is, and on which side.
var space = regexp.MustCompile(`^opr([0-9]+)-[a-z]+([12])$`)

// readForwarding reads it for paths on which packets wait for a program. It is as the scheduler counts it: a difference is of what has run
// meanwhile.
func readForwarding(paths []path.Path, kinds map[string]path.Kind) forwarding {
	numbers := map[string]path.Path{} // by the number of their namespaces
	for _, p := range paths {
		if m := space.FindStringSubmatch(filepath.Base(p.Client.Netns)); m != nil && kinds[p.Kind].Process {
			numbers[m[1]] = p
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	type owner struct {
		path path.Path
		side int
	}
	owners := map[[2]uint64]owner{}
	files, _ := filepath.Glob("/run/netns/opr*") // the pattern is one
	for _, file := range files {
		m := space.FindStringSubmatch(filepath.Base(file))
		if m == nil {
			continue
		}
		if p, ok := numbers[m[1]]; ok {
			side, _ := strconv.Atoi(m[2]) // 1 or 2
			owners[identify(file)] = owner{p, side - 1}
		}
	}
	f := forwarding{}
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is one
	for _, dir := range processes {
		o, ok := owners[identify(dir+"/ns/net")]
		if !ok {
			continue
		}
		used, sides := ran(dir), f[o.path.Name]
		if kinds[o.path.Kind].Nodes == 1 { // it serves both
			sides[0] += used / 2
			sides[1] += used / 2
		} else {
			sides[o.side] += used
		}
		f[o.path.Name] = sides
	}
	return f
}

// identify tells namespaces apart; that of nothing is zero.
func identify(file string) [2]uint64 {
	var st unix.Stat_t
	if unix.Stat(file, &st) != nil {
		return [2]uint64{}
	}
	return [2]uint64{st.Dev, st.Ino}
}

// ran is for how long the threads of a process have run: see the kernel's Documentation/scheduler/sched-stats.rst. 0: the kernel does not say.
func ran(dir string) time.Duration {
	threads, _ := filepath.Glob(dir + "/task/*/schedstat") // the pattern is one
	total := time.Duration(0)
	for _, file := range threads {
		text, _ := os.ReadFile(file) // the thread may have ended
		first, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(first, 10, 64) // digits
		total += time.Duration(n)
	}
	return total
}

// account gives sessions of one job, by path, what the programs have used between the two readings. The warm-up is not counted: programs are taken to
// have used as much of it as of the rest. What they use is not noise; but on which CPU they have run is known only if there are no others.
func account(sessions map[string]*result.Session, before, after forwarding, warmup time.Duration, onlyTwo bool) {
	counted := time.Duration(0)
	for _, s := range sessions {
		counted += s.Elapsed
	}
	if counted == 0 {
		return
	}
	share := float64(counted) / float64(counted+warmup)
	all := time.Duration(0)
	for name, sides := range after {
		for side, used := range sides {
			used -= before[name][side]
			all += used
			if s := sessions[name]; s != nil && s.Background == nil { // otherwise it is of the stream, too
				s.CPU[side].Forwarding = time.Duration(float64(used) * share)
			}
		}
	}
	for _, s := range sessions {
		if onlyTwo {
			s.Noise.Others = max(0, s.Noise.Others-all)
		}
	}
}
